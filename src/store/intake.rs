//! How much was taken in, by route and hour: the left side of the account, counted when messages come in and never made of
//! the journal, which is the right side.

use super::{
    Claim, RouteNumber,
    sql::{self, Tx, params},
};
use crate::event::Key;
use std::collections::{BTreeMap, HashMap};

/// An hour, in milliseconds.
pub(super) const HOUR: i64 = 3_600_000;

/// Under this hour stands what is no longer remembered one by one.
pub(super) const FORGOTTEN: i64 = -1;

/// The hour of a moment.
pub(super) fn hour(moment: i64) -> i64 {
    moment.max(0) / HOUR
}

/// What was counted of one hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sums {
    /// Messages, each once.
    pub messages: i64,
    /// Copies of them.
    pub copies: i64,
    /// The sum of the first four bytes of their keys.
    pub high: i64,
    /// The sum of the second four bytes.
    pub low: i64,
}

impl Sums {
    pub(super) fn add(&mut self, key: &[u8; 32]) {
        let [a, b, c, d, e, f, g, h, ..] = *key;
        self.messages += 1;
        self.high += i64::from(u32::from_be_bytes([a, b, c, d]));
        self.low += i64::from(u32::from_be_bytes([e, f, g, h]));
    }

    pub(super) fn less(self, other: Sums) -> Sums {
        Sums {
            messages: self.messages - other.messages,
            copies: self.copies - other.copies,
            high: self.high - other.high,
            low: self.low - other.low,
        }
    }

    /// How the key begins of the one message that the sums are of, if it is one.
    pub(super) fn key(self) -> Option<String> {
        let half = |sum: i64| u32::try_from(sum).ok();
        match (self.messages, half(self.high), half(self.low)) {
            (1, Some(high), Some(low)) => Some(format!("{high:08x}{low:08x}")),
            _ => None,
        }
    }
}

/// What is taken in by one piece of work.
#[derive(Debug, Default)]
pub(super) struct Intakes {
    by_hour: BTreeMap<i64, Sums>,
}

impl Intakes {
    /// A message that has been claimed for the first time; its parts are not counted.
    pub(super) fn claimed(&mut self, claim: &Claim, now: i64) {
        if claim.part == 0 {
            self.first(claim.key, now);
        }
    }

    /// A message that is new.
    pub(super) fn first(&mut self, key: Key, now: i64) {
        self.by_hour.entry(hour(now)).or_default().add(&key.0);
    }

    /// A copy of one that was taken in at that time: with its first, so that the sum of that time closes.
    pub(super) fn again(&mut self, taken_at: i64) {
        self.by_hour.entry(hour(taken_at)).or_default().copies += 1;
    }

    /// Counts them.
    pub(super) fn write(&self, tx: &Tx<'_>, route: RouteNumber) -> sql::Result<()> {
        self.by_hour.iter().try_for_each(|(hour, sums)| add(tx, route.0, *hour, *sums))
    }
}

fn add(tx: &Tx<'_>, route: i64, hour: i64, sums: Sums) -> sql::Result<()> {
    tx.run(
        "INSERT INTO intake (route, hour, messages, copies, high, low) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (route, hour) DO UPDATE SET messages = intake.messages + excluded.messages,
           copies = intake.copies + excluded.copies, high = intake.high + excluded.high, low = intake.low + excluded.low",
        params![route, hour, sums.messages, sums.copies, sums.high, sums.low],
    )?;
    Ok(())
}

/// The journal no longer remembers these: they move to those that are forgotten, and an hour of which nothing is left is gone.
pub(super) fn forget(tx: &Tx<'_>, forgotten: &HashMap<(i64, i64), Sums>) -> sql::Result<()> {
    for ((route, hour), sums) in forgotten {
        add(tx, *route, *hour, Sums::default().less(*sums))?;
        add(tx, *route, FORGOTTEN, Sums { high: 0, low: 0, ..*sums })?;
        tx.run(
            "DELETE FROM intake WHERE route = ?1 AND hour = ?2 AND hour >= 0 AND messages = 0 AND copies = 0 AND high = 0 AND low = 0",
            params![route, hour],
        )?;
    }
    Ok(())
}

/// A store of before version 6 has one count for each route: what its journal has is spread over the hours, the rest is what it
/// no longer remembers.
pub(super) fn spread(tx: &Tx<'_>) -> sql::Result<()> {
    let mut by_hour: HashMap<(i64, i64), Sums> = HashMap::new();
    tx.all("SELECT route, taken_at, duplicates, key FROM journal WHERE part = 0", params![], |row| {
        let sums = by_hour.entry((row.get(0)?, hour(row.get(1)?))).or_default();
        sums.add(&row.get(3)?);
        sums.copies += row.get::<i64>(2)?;
        Ok(())
    })?;
    for ((route, hour), sums) in &by_hour {
        add(tx, *route, *hour, *sums)?;
    }
    tx.run(
        "INSERT INTO intake (route, hour, messages, copies, high, low)
         SELECT n, -1, taken - coalesce((SELECT CAST(sum(messages + copies) AS BIGINT) FROM intake WHERE route = n), 0), 0, 0, 0
         FROM route WHERE taken <> coalesce((SELECT CAST(sum(messages + copies) AS BIGINT) FROM intake WHERE route = n), 0)",
        params![],
    )?;
    tx.script("ALTER TABLE route DROP COLUMN taken")
}
