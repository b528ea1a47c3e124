//! Pruning: what need no longer be remembered goes, so little at a time that whoever writes does not notice, and the account
//! still closes over it.

use super::{
    State, Store, StoreError,
    intake::{self, Sums, hour},
    sql::{self, Tx, params},
};
use std::collections::HashMap;

/// How many rows are looked at in one commit.
const ROWS: u32 = 200;

/// How far a walk through what is old has got.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Walk {
    /// The last row of the journal that was looked at: its route, when it was taken in, its key. What cannot go yet is not looked
    /// at again and again.
    after: Option<(i64, i64, Vec<u8>)>,
    /// Whether the journal has been walked through.
    through: bool,
}

/// How large the journal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Size {
    /// The messages that it remembers one by one.
    pub messages: i64,
    /// The bytes of the whole store, on disk.
    pub bytes: i64,
    /// When the oldest of them was taken in.
    pub oldest: Option<i64>,
}

impl Store {
    /// Removes what is older than it need be remembered, a few rows in one commit: how many are gone, and from where to go
    /// on; nothing, if that was all.
    ///
    /// # Errors
    /// The store failed.
    pub async fn prune(&self, before: i64, walk: Walk) -> Result<(usize, Option<Walk>), StoreError> {
        self.write("pruning the journal", move |tx| match walk.through {
            false => journal(tx, before, walk.after),
            true => rest(tx, before).map(|gone| (gone, (gone > 0).then_some(walk))),
        })
        .await
    }

    /// How large the journal is. Cheap: nothing is counted row by row.
    ///
    /// # Errors
    /// The store failed.
    pub async fn size(&self) -> Result<Size, StoreError> {
        self.write("measuring the journal", |tx| {
            Ok(Size {
                messages: tx.value(
                    "SELECT CAST(coalesce(sum(messages), 0) AS BIGINT) FROM intake WHERE hour >= 0",
                    params![],
                )?,
                bytes: tx.bytes()?,
                oldest: tx.value(
                    "SELECT min((SELECT min(taken_at) FROM journal WHERE route = r.n)) FROM route r",
                    params![],
                )?,
            })
        })
        .await
    }
}

/// Messages that have come to an end, with their parts: a part is forgotten with its message and not before, for whoever
/// replays the message must know which parts have been sent.
fn journal(
    tx: &Tx<'_>,
    before: i64,
    after: Option<(i64, i64, Vec<u8>)>,
) -> sql::Result<(usize, Option<Walk>)> {
    let at_first = (0, i64::MIN, Vec::new());
    let mut place = after.unwrap_or_else(|| at_first.clone());
    let mut old = Vec::new();
    let mut looked_at = 0;
    // A route at a time, as the rows lie.
    loop {
        let (route, at, key) = place.clone();
        tx.all(
            "SELECT taken_at, key, state, answer IS NOT NULL FROM journal
             WHERE route = ?1 AND taken_at >= ?2 AND taken_at < ?3 AND part = 0 AND (taken_at, key) > (?2, ?4)
             ORDER BY taken_at, key LIMIT ?5",
            params![route, at, before, key, ROWS - looked_at],
            |row| {
                let (taken_at, key): (i64, [u8; 32]) = (row.get(0)?, row.get(1)?);
                let (state, is_owed): (i64, bool) = (row.get(2)?, row.get(3)?);
                looked_at += 1;
                place = (route, taken_at, key.to_vec());
                if State::of(state).is_some_and(State::is_end) && !is_owed {
                    old.push((taken_at, route, key));
                }
                Ok(())
            },
        )?;
        if looked_at >= ROWS {
            break;
        }
        let next: Option<i64> = tx.value("SELECT min(n) FROM route WHERE n > ?1", params![route])?;
        let Some(next) = next else { break };
        place = (next, at_first.1, at_first.2.clone());
    }
    let mut forgotten: HashMap<(i64, i64), Sums> = HashMap::new();
    let mut by_state: HashMap<(i64, i64), (i64, i64)> = HashMap::new();
    let (mut gone, mut until) = (0, None);
    for (taken_at, route, key) in old {
        // What counts is what is removed here: another bridge may have removed it, or counted a copy, in the meantime.
        let sql = "DELETE FROM journal WHERE route = ?1 AND key = ?2 RETURNING part, state, duplicates";
        tx.all(sql, params![route, key], |row| {
            gone += 1;
            if row.get::<i64>(0)? == 0 {
                let (state, duplicates): (i64, i64) = (row.get(1)?, row.get(2)?);
                let sums = forgotten.entry((route, hour(taken_at))).or_default();
                sums.add(&key);
                sums.copies += duplicates;
                let counts = by_state.entry((route, state)).or_default();
                *counts = (counts.0 + 1, counts.1 + duplicates);
                until = Some(taken_at + 1);
            }
            Ok(())
        })?;
    }
    for ((route, state), (messages, duplicates)) in by_state {
        tx.run(
            "INSERT INTO pruned (route, state, messages, duplicates) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (route, state) DO UPDATE SET
               messages = pruned.messages + excluded.messages, duplicates = pruned.duplicates + excluded.duplicates",
            params![route, state, messages, duplicates],
        )?;
    }
    intake::forget(tx, &forgotten)?;
    if let Some(until) = until {
        note_pruned(tx, until)?;
    }
    let walk = match looked_at < ROWS {
        true => Walk { after: None, through: true },
        false => Walk { after: Some(place), through: false },
    };
    Ok((gone, Some(walk)))
}

/// What else grows: events that were published, batches that were sent, items that were settled.
fn rest(tx: &Tx<'_>, before: i64) -> sql::Result<usize> {
    let published = tx.run(
        "DELETE FROM published WHERE key IN (SELECT key FROM published WHERE at < ?1 ORDER BY at LIMIT ?2)",
        params![before, ROWS],
    )?;
    let items = tx.run(
        "DELETE FROM item WHERE n IN (SELECT n FROM item WHERE settled_at < ?1 LIMIT ?2)",
        params![before, ROWS],
    )?;
    Ok(published + items + super::batches::prune(tx, before)?)
}

const PRUNED_BEFORE: &str = "pruned_before";

/// The journal is whole from this moment on.
fn note_pruned(tx: &Tx<'_>, until: i64) -> sql::Result<()> {
    let known = pruned_before(tx)?.unwrap_or(0);
    tx.run(
        "INSERT INTO meta (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        params![PRUNED_BEFORE, known.max(until).to_string()],
    )?;
    Ok(())
}

/// From which moment on the journal is whole; what was taken in before and has come to its end may be forgotten.
pub(super) fn pruned_before(tx: &Tx<'_>) -> sql::Result<Option<i64>> {
    let value: Option<String> = tx.find("SELECT value FROM meta WHERE name = ?1", params![PRUNED_BEFORE])?;
    Ok(value.and_then(|value| value.parse().ok()))
}
