//! The account: taken in = delivered + waiting + dead + duplicate + discarded + nothing to publish, per route. The left
//! side is counted when messages come in, the right side from the rows: they agree, or something is wrong.

use super::{FileState, State, Store, StoreError};
use rusqlite::params;

/// The account of all routes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Account {
    /// One line per route, sorted by name.
    pub routes: Vec<RouteAccount>,
}

/// The account of one route.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RouteAccount {
    /// The route.
    pub route: String,
    /// Taken in, counted at intake.
    pub taken: i64,
    /// Done.
    pub delivered: i64,
    /// Waiting for an attempt, under way, or in a batch that is not yet sent.
    pub waiting: i64,
    /// Of those, in a batch.
    pub batched: i64,
    /// Of those waiting, behind another of their subject or for its next attempt, in the store.
    pub parked: i64,
    /// Given up, in the dead-letter queue.
    pub dead: i64,
    /// Seen before.
    pub duplicate: i64,
    /// Discarded by a person.
    pub discarded: i64,
    /// Asked for no event.
    pub nothing: i64,
    /// When the next waiting one is due, in milliseconds since 1970.
    pub next_due: Option<i64>,
    /// Open items to be asked about.
    pub open_items: i64,
    /// The files that its records came in.
    pub files: FileAccount,
}

/// The account of a route's files: taken = read + under way + refused + held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FileAccount {
    /// Taken, each for the first time.
    pub taken: i64,
    /// Read to the end.
    pub read: i64,
    /// Being read.
    pub under_way: i64,
    /// Refused as a whole.
    pub refused: i64,
    /// Waiting for a person.
    pub held: i64,
    /// The same bytes again.
    pub duplicate: i64,
    /// Records that were taken in from them.
    pub records: i64,
}

impl RouteAccount {
    /// Taken in less all that is accounted for: 0, or something is wrong.
    pub fn difference(&self) -> i64 {
        let sum = self.delivered + self.waiting + self.dead + self.duplicate + self.discarded + self.nothing;
        self.taken - sum
    }
}

impl Account {
    /// Whether every line closes.
    pub fn closes(&self) -> bool {
        self.routes.iter().all(|route| route.difference() == 0)
    }
}

impl Store {
    /// The account, all from one moment.
    ///
    /// # Errors
    /// The store failed.
    pub async fn account(&self) -> Result<Account, StoreError> {
        self.write("drawing up the account", |tx| {
            let mut account = Account::default();
            let mut routes = tx.prepare_cached("SELECT n, name, taken FROM route ORDER BY name")?;
            let mut rows = routes.query([])?;
            while let Some(row) = rows.next()? {
                let n: i64 = row.get(0)?;
                let mut line =
                    RouteAccount { route: row.get(1)?, taken: row.get(2)?, ..RouteAccount::default() };
                let mut states = tx.prepare_cached(
                    "SELECT state, sum(messages), sum(duplicates) FROM (
                       SELECT state, count(*) AS messages, sum(duplicates) AS duplicates FROM journal
                         WHERE route = ?1 AND part = 0 GROUP BY state
                       UNION ALL SELECT state, messages, duplicates FROM pruned WHERE route = ?1)
                     GROUP BY state",
                )?;
                let mut counts = states.query([n])?;
                while let Some(count) = counts.next()? {
                    let (messages, duplicates): (i64, i64) = (count.get(1)?, count.get(2)?);
                    line.duplicate += duplicates;
                    match State::of(count.get(0)?) {
                        Some(State::Delivered) => line.delivered += messages,
                        Some(State::Claimed | State::Waiting | State::Answered) | None => {
                            line.waiting += messages
                        }
                        Some(State::Batched) => {
                            line.waiting += messages;
                            line.batched += messages;
                        }
                        Some(State::Dead) => line.dead += messages,
                        Some(State::Discarded) => line.discarded += messages,
                        Some(State::Duplicate) => line.duplicate += messages,
                        Some(State::Nothing) => line.nothing += messages,
                    }
                }
                line.next_due = tx
                    .prepare_cached("SELECT min(due_at) FROM journal WHERE route = ?1 AND state = 2")?
                    .query_row(params![n], |row| row.get(0))?;
                line.parked = tx
                    .prepare_cached("SELECT parked FROM route WHERE n = ?1")?
                    .query_row(params![n], |row| row.get(0))?;
                line.open_items = tx
                    .prepare_cached("SELECT count(*) FROM item WHERE route = ?1 AND settled_at IS NULL")?
                    .query_row(params![n], |row| row.get(0))?;
                let mut files = tx.prepare_cached(
                    "SELECT state, count(*), sum(records), sum(duplicates) FROM file WHERE route = ?1 GROUP BY state",
                )?;
                let mut counts = files.query([n])?;
                while let Some(count) = counts.next()? {
                    let number: i64 = count.get(1)?;
                    line.files.taken += number;
                    line.files.records += count.get::<_, i64>(2)?;
                    line.files.duplicate += count.get::<_, i64>(3)?;
                    match FileState::of(count.get(0)?) {
                        FileState::Done => line.files.read += number,
                        FileState::Taken | FileState::Reading | FileState::Accepted => line.files.under_way += number,
                        FileState::Refused => line.files.refused += number,
                        FileState::Held => line.files.held += number,
                    }
                }
                account.routes.push(line);
            }
            Ok(account)
        })
        .await
    }
}
