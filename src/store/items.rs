//! Open items: what is under way in a system and has to be asked about until it is settled.

use super::{
    RouteNumber, State, Store, StoreError,
    intake::Intakes,
    sql::{self, Tx, params},
};
use crate::event::Key;

/// An item about to be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewItem {
    /// The route that will ask.
    pub route: RouteNumber,
    /// What it is asked by.
    pub key: String,
    /// What no second one is opened for while it is open.
    pub one_per: Option<String>,
    /// What is kept, as JSON.
    pub cause: String,
    /// When it is asked first.
    pub due_at: i64,
}

/// An open item that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its number in the store.
    pub n: i64,
    /// What it is asked by.
    pub key: String,
    /// What was kept, as JSON.
    pub cause: String,
    /// When it was opened.
    pub opened_at: i64,
    /// How often it has been asked.
    pub asked: u32,
    /// How often in a row asking has failed.
    pub failed: u32,
    /// Whether a person has been told that it is still open.
    pub told: bool,
}

/// How an item ended.
#[derive(Debug, Clone)]
pub struct Settled {
    /// Its number in the store.
    pub n: i64,
    /// What makes it the same as another, in the journal.
    pub key: Key,
    /// What it was asked by.
    pub id: String,
    /// How the journal has it.
    pub state: State,
    /// The type of the event in which it ended.
    pub outcome: String,
    /// The events that were published.
    pub published: Vec<Key>,
    /// What is open from here on.
    pub opens: Vec<NewItem>,
    /// The code, if it went before a person.
    pub code: Option<&'static str>,
}

/// The outcome of an item that went before a person, until that person has decided.
pub const BEFORE_A_PERSON: &str = "before a person";

/// How an earlier item of the same stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Open {
    /// It is open since then.
    Since(i64),
    /// It was settled, by an event of this type.
    Settled(String),
}

impl NewItem {
    pub(super) fn open(&self, tx: &Tx<'_>, now: i64) -> sql::Result<()> {
        tx.run(
            "INSERT INTO item (route, key, one_per, cause, opened_at, due_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (route, key) DO NOTHING",
            params![self.route.0, self.key, self.one_per, self.cause, now, self.due_at],
        )?;
        Ok(())
    }

    /// Remembers what was sent: nobody asks about it, but a report may name it. The first of a key counts.
    pub(super) fn remember(&self, tx: &Tx<'_>, now: i64) -> sql::Result<()> {
        tx.run(
            "INSERT INTO item (route, key, cause, opened_at, due_at, settled_at, outcome) VALUES (?1, ?2, ?3, ?4, ?4, ?4, '')
             ON CONFLICT (route, key) DO NOTHING",
            params![self.route.0, self.key, self.cause, now],
        )?;
        Ok(())
    }
}

impl Store {
    /// Items of a route that are due, oldest first.
    ///
    /// # Errors
    /// The store failed.
    pub async fn due_items(&self, route: RouteNumber, now: i64, most: u32) -> Result<Vec<Item>, StoreError> {
        self.write("looking for open items", move |tx| {
            tx.all(
                "SELECT n, key, cause, opened_at, asked, failed, told FROM item
                 WHERE route = ?1 AND settled_at IS NULL AND due_at <= ?2 ORDER BY due_at LIMIT ?3",
                params![route.0, now, most],
                |row| {
                    Ok(Item {
                        n: row.get(0)?,
                        key: row.get(1)?,
                        cause: row.get(2)?,
                        opened_at: row.get(3)?,
                        asked: row.get(4)?,
                        failed: row.get(5)?,
                        told: row.get(6)?,
                    })
                },
            )
        })
        .await
    }

    /// Notes that an item was asked about and when it is due again.
    ///
    /// # Errors
    /// The store failed.
    pub async fn asked(&self, n: i64, due_at: i64, failed: u32, told: bool) -> Result<(), StoreError> {
        self.write("noting an answer", move |tx| {
            tx.run(
                "UPDATE item SET asked = asked + 1, due_at = ?2, failed = ?3,
                   told = CASE WHEN ?4 = 1 THEN 1 ELSE told END
                 WHERE n = ?1",
                params![n, due_at, failed, told],
            )?;
            Ok(())
        })
        .await
    }

    /// How an earlier item for the same stands: open, or settled by an event.
    ///
    /// # Errors
    /// The store failed.
    pub async fn one_per(&self, route: RouteNumber, one_per: String) -> Result<Option<Open>, StoreError> {
        self.write("looking for an open item", move |tx| {
            let found: Option<(i64, Option<i64>, Option<String>)> = tx.one(
                "SELECT opened_at, settled_at, outcome FROM item WHERE route = ?1 AND one_per = ?2
                     ORDER BY settled_at IS NOT NULL, n DESC LIMIT 1",
                params![route.0, one_per],
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
            )?;
            Ok(found.map(|(opened, settled, outcome)| match settled {
                None => Open::Since(opened),
                Some(_) => Open::Settled(outcome.unwrap_or_default()),
            }))
        })
        .await
    }

    /// Settles an item: the events made of its last answer are published, what it opens is open, and the journal has it.
    ///
    /// # Errors
    /// The store failed.
    pub async fn settle_item(
        &self,
        route: RouteNumber,
        now: i64,
        settled: Settled,
    ) -> Result<(), StoreError> {
        let run = self.run();
        self.write("settling an open item", move |tx| {
            tx.run(
                "UPDATE item SET settled_at = ?2, outcome = ?3 WHERE n = ?1",
                params![settled.n, now, settled.outcome],
            )?;
            let new = tx.run(
                "INSERT INTO journal (route, key, part, state, attempt, replay, doubt, run, source, id, taken_at, done_at, code)
                     VALUES (?1, ?2, 0, ?3, 1, 0, 0, ?4, '', ?5, ?6, ?6, ?7) ON CONFLICT DO NOTHING",
                params![route.0, settled.key.0, settled.state.number(), run, settled.id, now, settled.code],
            )?;
            if new == 1 {
                let mut counted = Intakes::default();
                counted.first(settled.key, now);
                counted.write(tx, route)?;
            } else {
                tx.run(
                    "UPDATE journal SET state = ?3, done_at = ?4, due_at = NULL, code = ?5 WHERE route = ?1 AND key = ?2 AND part = 0",
                    params![route.0, settled.key.0, settled.state.number(), now, settled.code],
                )?;
            }
            super::spool::note_published(tx, now, &settled.published)?;
            settled.opens.iter().try_for_each(|item| item.open(tx, now))
        })
        .await
    }

    /// A person has replayed the letter of an item: it is asked about at once, and its time begins anew. Whether there is
    /// such an item: one that has come to its end meanwhile, or that a person has let go, is not opened again.
    ///
    /// # Errors
    /// The store failed.
    pub async fn ask_now(
        &self,
        route: RouteNumber,
        key: String,
        letter: Option<Key>,
        now: i64,
    ) -> Result<bool, StoreError> {
        self.write("asking again", move |tx| {
            let found = tx.run(
                "UPDATE item SET due_at = ?3, opened_at = ?3, asked = 0, failed = 0, settled_at = NULL, outcome = NULL
                 WHERE route = ?1 AND key = ?2 AND (settled_at IS NULL OR outcome = ?4)",
                params![route.0, key, now, BEFORE_A_PERSON],
            )?;
            // Its letter is gone: from here on it waits.
            if let (Some(letter), 1..) = (letter, found) {
                tx.run(
                    "UPDATE journal SET state = 2, due_at = ?3 WHERE route = ?1 AND key = ?2 AND part = 0 AND state = 5",
                    params![route.0, letter.0, now],
                )?;
            }
            Ok(found > 0)
        })
        .await
    }

    /// A person has discarded the letter of an item that went before a person: what waits for it goes on. How an item
    /// ended that was asked about once more meanwhile stays as it is.
    ///
    /// # Errors
    /// The store failed.
    pub async fn let_go(&self, route: RouteNumber, key: String) -> Result<(), StoreError> {
        self.write("letting an item go", move |tx| {
            tx.run(
                "UPDATE item SET outcome = '' WHERE route = ?1 AND key = ?2 AND outcome = ?3",
                params![route.0, key, BEFORE_A_PERSON],
            )?;
            Ok(())
        })
        .await
    }

    /// Whether an item is open.
    ///
    /// # Errors
    /// The store failed.
    pub async fn is_open(&self, route: RouteNumber, key: String) -> Result<bool, StoreError> {
        self.write("looking for an open item", move |tx| {
            tx.value(
                "SELECT count(*) FROM item WHERE route = ?1 AND key = ?2 AND settled_at IS NULL",
                params![route.0, key],
            )
        })
        .await
    }

    /// How many items are open on a route.
    ///
    /// # Errors
    /// The store failed.
    pub async fn open_items(&self, route: RouteNumber) -> Result<u32, StoreError> {
        self.write("counting open items", move |tx| {
            tx.value("SELECT count(*) FROM item WHERE route = ?1 AND settled_at IS NULL", params![route.0])
        })
        .await
    }
}
