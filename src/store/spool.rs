//! The spool: collected documents, whole, until the broker has confirmed what was made of them.

use super::{
    RouteNumber, State, Store, StoreError,
    items::NewItem,
    sql::{self, Tx, params},
};
use crate::{code::Code, event::Key};
use std::sync::atomic::Ordering;

/// A document to be taken in.
#[derive(Debug, Clone)]
pub struct Intake {
    /// What makes it the same as another.
    pub key: Key,
    /// Its id, for people.
    pub id: String,
    /// How often people have replayed it.
    pub replay: u32,
    /// The content type it came with.
    pub content_type: Option<String>,
    /// The bytes as they came.
    pub body: Vec<u8>,
}

/// What became of documents to be taken in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    /// They are on disk; for each, whether it is new.
    Stored(Vec<bool>),
    /// There is no room: nothing was taken.
    Full,
}

/// A document that waits in the spool.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// Its number in the spool.
    pub n: i64,
    /// What makes it the same as another.
    pub key: Key,
    /// Its id, for people.
    pub id: String,
    /// The content type it came with.
    pub content_type: Option<String>,
    /// The bytes as they came.
    pub body: Vec<u8>,
    /// The number of the attempt it is due for, from 1.
    pub attempt: u32,
    /// When the first attempt failed.
    pub failed_at: Option<i64>,
    /// How often people have replayed it.
    pub replay: u32,
}

/// What became of a document in the spool.
#[derive(Debug, Clone)]
pub enum Finish {
    /// It is through: its events are published, or were before, or it asks for none.
    Through { state: State, published: Vec<Key>, opens: Vec<NewItem> },
    /// It waits for its next attempt.
    Later { due_at: i64, failed_at: i64 },
    /// It is in the dead-letter queue.
    Dead { code: &'static str },
}

impl Store {
    /// Takes documents in, all in one commit, and moves the cursor with them. Full means that nothing was taken.
    ///
    /// # Errors
    /// The store failed; nothing was taken.
    pub async fn take_in(
        &self,
        route: RouteNumber,
        now: i64,
        intakes: Vec<Intake>,
        cursor: Option<String>,
    ) -> Result<Taken, StoreError> {
        let bytes: u64 = intakes.iter().map(|intake| intake.body.len() as u64).sum();
        if bytes > 0 && !self.has_room(bytes) && !self.has_room_now(bytes).await? {
            return Ok(Taken::Full);
        }
        let run = self.run();
        let (new, stored) = self
            .write("taking documents in", move |tx| {
                let taken = take_all(tx, route, run, now, &intakes)?;
                if let Some(cursor) = cursor {
                    tx.run(
                        "INSERT INTO cursor (route, value) VALUES (?1, ?2) ON CONFLICT (route) DO UPDATE SET value = ?2",
                        params![route.0, cursor],
                    )?;
                }
                Ok(taken)
            })
            .await?;
        self.spooled(stored);
        Ok(Taken::Stored(new))
    }

    /// Counts bytes that have come into the spool.
    pub(super) fn spooled(&self, bytes: u64) {
        self.inner.spool_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Documents of a route that are due, oldest first.
    ///
    /// # Errors
    /// The store failed.
    pub async fn due(&self, route: RouteNumber, now: i64, most: u32) -> Result<Vec<Waiting>, StoreError> {
        self.write("looking into the spool", move |tx| {
            tx.all(
                "SELECT s.n, s.key, j.id, s.content_type, s.body, s.attempt, s.failed_at, j.replay
                 FROM spool s JOIN journal j ON j.route = s.route AND j.key = s.key AND j.part = 0
                 WHERE s.route = ?1 AND s.due_at <= ?2 ORDER BY s.due_at, s.n LIMIT ?3",
                params![route.0, now, most],
                |row| {
                    let mut key = [0; 32];
                    let bytes: Vec<u8> = row.get(1)?;
                    key.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
                    Ok(Waiting {
                        n: row.get(0)?,
                        key: Key(key),
                        id: row.get(2)?,
                        content_type: row.get(3)?,
                        body: row.get(4)?,
                        attempt: row.get(5)?,
                        failed_at: row.get(6)?,
                        replay: row.get(7)?,
                    })
                },
            )
        })
        .await
    }

    /// When the next document of a route is due.
    ///
    /// # Errors
    /// The store failed.
    pub async fn next_due(&self, route: RouteNumber) -> Result<Option<i64>, StoreError> {
        self.write("looking into the spool", move |tx| {
            tx.value("SELECT min(due_at) FROM spool WHERE route = ?1", params![route.0])
        })
        .await
    }

    /// Writes down what became of documents, all in one commit.
    ///
    /// # Errors
    /// The store failed; nothing was written.
    pub async fn finish(
        &self,
        route: RouteNumber,
        now: i64,
        finished: Vec<(i64, Key, Finish)>,
    ) -> Result<(), StoreError> {
        let freed = self
            .write("finishing documents", move |tx| {
                let mut freed: i64 = 0;
                for (n, key, finish) in &finished {
                    freed += write(tx, route, now, *n, *key, finish)?;
                }
                Ok(freed)
            })
            .await?;
        let freed = u64::try_from(freed).unwrap_or(0);
        let _ = self
            .inner
            .spool_bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |bytes| Some(bytes.saturating_sub(freed)));
        Ok(())
    }

    /// Which of these events were published before.
    ///
    /// # Errors
    /// The store failed.
    pub async fn published_before(&self, keys: Vec<Key>) -> Result<Vec<bool>, StoreError> {
        self.write("looking for earlier events", move |tx| {
            let sql = "SELECT 1 FROM published WHERE key = ?1";
            keys.iter().map(|key| tx.exists(sql, params![key.0])).collect()
        })
        .await
    }

    /// How far a poll has looked.
    ///
    /// # Errors
    /// The store failed.
    pub async fn cursor(&self, route: RouteNumber) -> Result<Option<String>, StoreError> {
        self.write("reading a cursor", move |tx| {
            tx.find("SELECT value FROM cursor WHERE route = ?1", params![route.0])
        })
        .await
    }
}

/// Takes documents in, and counts them for themselves, so that the account has two sides: which are new, and the bytes of these.
pub(super) fn take_all(
    tx: &Tx<'_>,
    route: RouteNumber,
    run: i64,
    now: i64,
    intakes: &[Intake],
) -> sql::Result<(Vec<bool>, u64)> {
    let mut new = Vec::with_capacity(intakes.len());
    let mut stored = 0;
    for intake in intakes {
        let is_new = take(tx, route, run, now, intake)?;
        stored += if is_new { intake.body.len() as u64 } else { 0 };
        new.push(is_new);
    }
    let count = intakes.iter().filter(|intake| intake.replay == 0).count();
    tx.run("UPDATE route SET taken = taken + ?2 WHERE n = ?1", params![route.0, count as i64])?;
    Ok((new, stored))
}

/// Whether the document is new.
fn take(tx: &Tx<'_>, route: RouteNumber, run: i64, now: i64, intake: &Intake) -> sql::Result<bool> {
    let inserted = tx.run(
        "INSERT INTO journal (route, key, part, state, attempt, replay, doubt, run, source, id, taken_at, due_at)
             VALUES (?1, ?2, 0, 2, 1, 0, 0, ?3, '', ?4, ?5, ?5) ON CONFLICT DO NOTHING",
        params![route.0, intake.key.0, run, intake.id, now],
    )?;
    if inserted == 0 {
        // Only a replay brings a dead one back; everything else that is known is a duplicate.
        let revived = tx.run(
            "UPDATE journal SET state = 2, attempt = 1, replay = ?3, due_at = ?4, failed_at = NULL
                 WHERE route = ?1 AND key = ?2 AND part = 0 AND state = 5 AND replay < ?3",
            params![route.0, intake.key.0, intake.replay, now],
        )?;
        if revived == 0 {
            tx.run(
                "UPDATE journal SET duplicates = duplicates + 1 WHERE route = ?1 AND key = ?2 AND part = 0 AND ?3 = 0",
                params![route.0, intake.key.0, intake.replay],
            )?;
            return Ok(false);
        }
    }
    tx.run(
        "INSERT INTO spool (route, key, content_type, body, attempt, due_at) VALUES (?1, ?2, ?3, ?4, 1, ?5)",
        params![route.0, intake.key.0, intake.content_type, intake.body, now],
    )?;
    Ok(true)
}

/// Notes events as published.
pub(super) fn note_published(tx: &Tx<'_>, now: i64, keys: &[Key]) -> sql::Result<()> {
    let sql = "INSERT INTO published (key, at) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
    keys.iter().try_for_each(|key| tx.run(sql, params![key.0, now]).map(|_| ()))
}

/// Writes one outcome; gives the bytes that it frees.
fn write(tx: &Tx<'_>, route: RouteNumber, now: i64, n: i64, key: Key, finish: &Finish) -> sql::Result<i64> {
    let gone = |tx: &Tx<'_>| -> sql::Result<i64> {
        let bytes = tx.find("DELETE FROM spool WHERE n = ?1 RETURNING length(body)", params![n])?;
        Ok(bytes.unwrap_or(0))
    };
    match finish {
        Finish::Through { state, published, opens } => {
            tx.run(
                "UPDATE journal SET state = ?3, done_at = ?4, due_at = NULL WHERE route = ?1 AND key = ?2 AND part = 0",
                params![route.0, key.0, state.number(), now],
            )?;
            note_published(tx, now, published)?;
            opens.iter().try_for_each(|item| item.open(tx, now))?;
            gone(tx)
        }
        Finish::Later { due_at, failed_at } => {
            tx.run(
                "UPDATE spool SET attempt = attempt + 1, due_at = ?2, failed_at = coalesce(failed_at, ?3) WHERE n = ?1",
                params![n, due_at, failed_at],
            )?;
            tx.run(
                "UPDATE journal SET attempt = attempt + 1, due_at = ?3, failed_at = coalesce(failed_at, ?4)
                 WHERE route = ?1 AND key = ?2 AND part = 0",
                params![route.0, key.0, due_at, failed_at],
            )?;
            Ok(0)
        }
        Finish::Dead { code } => {
            tx.run(
                "UPDATE journal SET state = 5, code = ?3, done_at = ?4, due_at = NULL WHERE route = ?1 AND key = ?2 AND part = 0",
                params![route.0, key.0, code, now],
            )?;
            gone(tx)
        }
    }
}

impl Store {
    /// Whether there is room in the spool for so many bytes.
    pub fn has_room(&self, bytes: u64) -> bool {
        self.spool_bytes().saturating_add(bytes) <= self.inner.spool_limit
    }

    /// The same by what lies in the store at this moment: another bridge may have brought on what this one has taken in.
    ///
    /// # Errors
    /// The store failed.
    pub async fn has_room_now(&self, bytes: u64) -> Result<bool, StoreError> {
        let held = self
            .write("looking into the spool", |tx| match tx.is_shared() {
                true => tx.find::<i64>(
                    "SELECT CAST(coalesce(sum(length(body)), 0) AS BIGINT) FROM spool",
                    params![],
                ),
                false => Ok(None),
            })
            .await?;
        if let Some(held) = held {
            self.inner.spool_bytes.store(u64::try_from(held).unwrap_or(0), Ordering::Relaxed);
        }
        Ok(self.has_room(bytes))
    }

    /// What is said to a source when there is no room.
    pub fn full(&self) -> StoreError {
        StoreError {
            code: Code::SpoolFull,
            what: format!(
                "the spool holds {} bytes, its limit is {}",
                self.spool_bytes(),
                self.inner.spool_limit
            ),
        }
    }
}
