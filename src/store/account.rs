//! The account: taken in = delivered + waiting + dead + duplicate + discarded + nothing to publish, per route. The left
//! side is counted when messages come in, the right side from the rows: they agree, or something is wrong.

use super::{FileState, State, Store, StoreError, sql::params};

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
            let routes =
                tx.all("SELECT n, name, taken, parked FROM route ORDER BY name", params![], |row| {
                    let parked = row.get(3)?;
                    let line = RouteAccount {
                        route: row.get(1)?,
                        taken: row.get(2)?,
                        parked,
                        ..RouteAccount::default()
                    };
                    Ok((row.get::<i64>(0)?, line))
                })?;
            for (n, mut line) in routes {
                let states = tx.all(
                    "SELECT state, CAST(sum(messages) AS BIGINT), CAST(sum(duplicates) AS BIGINT) FROM (
                       SELECT state, count(*) AS messages, sum(duplicates) AS duplicates FROM journal
                         WHERE route = ?1 AND part = 0 GROUP BY state
                       UNION ALL SELECT state, messages, duplicates FROM pruned WHERE route = ?1) AS counted
                     GROUP BY state",
                    params![n],
                    |row| Ok((State::of(row.get(0)?), row.get::<i64>(1)?, row.get::<i64>(2)?)),
                )?;
                for (state, messages, duplicates) in states {
                    line.duplicate += duplicates;
                    match state {
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
                line.next_due =
                    tx.value("SELECT min(due_at) FROM journal WHERE route = ?1 AND state = 2", params![n])?;
                line.open_items = tx
                    .value("SELECT count(*) FROM item WHERE route = ?1 AND settled_at IS NULL", params![n])?;
                let files = tx.all(
                    "SELECT state, count(*), CAST(sum(records) AS BIGINT), CAST(sum(duplicates) AS BIGINT)
                     FROM file WHERE route = ?1 GROUP BY state",
                    params![n],
                    |row| {
                        Ok((
                            FileState::of(row.get(0)?),
                            row.get::<i64>(1)?,
                            row.get::<i64>(2)?,
                            row.get::<i64>(3)?,
                        ))
                    },
                )?;
                for (state, number, records, duplicates) in files {
                    line.files.taken += number;
                    line.files.records += records;
                    line.files.duplicate += duplicates;
                    match state {
                        FileState::Done => line.files.read += number,
                        FileState::Taken | FileState::Reading | FileState::Accepted => {
                            line.files.under_way += number
                        }
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
