//! Whether a store is what it must be: its file whole, its tables those of this version, and what stands in them without
//! contradiction. The account, which proves the sums of every route, is drawn up for itself.

use super::{
    Opener, StoreError,
    database::Location,
    sql::{self, Tx, params},
};
use crate::config;

/// What must give no row: each with what it means if it does. A row is a name and a number.
const CONTRADICTIONS: [(&str, &str); 8] = [
    (
        "messages with a state that there is not",
        "SELECT r.name, count(*) FROM journal j JOIN route r ON r.n = j.route
         WHERE j.state NOT BETWEEN 1 AND 9 GROUP BY r.name",
    ),
    (
        "claims of runs that were never counted: this is an older copy of the store, or a part of one",
        "SELECT r.name, count(*) FROM journal j JOIN route r ON r.n = j.route
         WHERE j.state = 1 AND j.run > (SELECT coalesce(max(CAST(value AS BIGINT)), 0) FROM meta WHERE name = 'run')
         GROUP BY r.name",
    ),
    (
        "messages that wait in the parking lot or the spool and of which the journal says otherwise",
        "SELECT r.name, count(*) FROM (SELECT route, key FROM parked UNION ALL SELECT route, key FROM spool) AS w
         JOIN route r ON r.n = w.route LEFT JOIN journal j ON j.route = w.route AND j.key = w.key AND j.part = 0
         WHERE j.state IS NULL OR j.state NOT IN (1, 2, 3) GROUP BY r.name",
    ),
    (
        "parked messages that are not as many as were counted",
        "SELECT r.name, r.parked - count(p.key) FROM route r LEFT JOIN parked p ON p.route = r.n
         GROUP BY r.n, r.name, r.parked, r.parked_bytes
         HAVING r.parked <> count(p.key) OR r.parked_bytes <> coalesce(sum(length(p.body)), 0)",
    ),
    (
        "subjects that a message holds which was not given up",
        "SELECT r.name, count(*) FROM held h JOIN route r ON r.n = h.route
         LEFT JOIN journal j ON j.route = h.route AND j.key = h.key AND j.part = 0
         WHERE j.state IS NULL OR j.state <> 5 GROUP BY r.name",
    ),
    (
        "batches that hold another number of items than was counted",
        "SELECT b.feed, b.items - count(i.n) FROM batch b LEFT JOIN batch_item i ON i.batch = b.n
         WHERE b.stage < 5 GROUP BY b.n, b.feed, b.items HAVING b.items <> count(i.n)",
    ),
    (
        "items of batches of which the journal says otherwise",
        "SELECT r.name, count(*) FROM batch_item i JOIN route r ON r.n = i.route
         LEFT JOIN journal j ON j.route = i.route AND j.key = i.key AND j.part = 0
         WHERE j.state IS NULL OR j.state <> 9 GROUP BY r.name",
    ),
    (
        "messages that are said to be in a batch and are in none",
        "SELECT r.name, count(*) FROM journal j JOIN route r ON r.n = j.route
         WHERE j.state = 9 AND j.part = 0
           AND NOT EXISTS (SELECT 1 FROM batch_item i WHERE i.route = j.route AND i.key = j.key)
         GROUP BY r.name",
    ),
];

/// What is wrong with a store, a sentence each; nothing if nothing is. Bridges go on meanwhile. Blocks, and not within a runtime.
///
/// # Errors
/// It cannot be read.
pub fn verify(store: &config::Store) -> Result<Vec<String>, StoreError> {
    let location = Location::of(store);
    // Brought up to this version, and not one that was moved.
    drop(location.open(Opener::Command, 0)?);
    location.moment(&format!("reading {location}"), |tx| {
        let mut wrong = tx.damage()?;
        if wrong.is_empty() {
            contradictions(tx, &mut wrong)?;
        }
        Ok(wrong)
    })
}

fn contradictions(tx: &Tx<'_>, wrong: &mut Vec<String>) -> sql::Result<()> {
    for (what, sql) in CONTRADICTIONS {
        let found = tx.all(sql, params![], |row| Ok((row.get::<String>(0)?, row.get::<i64>(1)?)))?;
        wrong.extend(found.into_iter().map(|(of, number)| format!("{of}: {what} ({number})")));
    }
    Ok(())
}
