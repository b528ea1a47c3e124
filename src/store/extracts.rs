//! What the last extract of a route said, as a hash per key, and the one that is being compared with it.
//!
//! Neither holds what a row said, only that it was said: keys stand here in clear, since an event that says "gone" has
//! nothing else to say.

use super::{RouteNumber, Store, StoreError};
use rusqlite::{Transaction, params};

/// A row of an extract that is being compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtractRow {
    /// Hash of its key.
    pub key: [u8; 16],
    /// Its key's values, as a JSON list.
    pub name: String,
    /// Hash of what it says.
    pub hash: [u8; 16],
    /// Its number in the file.
    pub number: u64,
    /// Where it stands in the file.
    pub offset: u64,
    /// Its bytes there.
    pub length: u64,
    /// Whether it is no record of its layout, or has no key: nothing can be said of its key then.
    pub wrong: bool,
}

/// How an extract differs from the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Difference {
    /// Rows of the last one.
    pub before: u64,
    /// Rows of this one.
    pub now: u64,
    /// Rows whose key the last one did not have.
    pub created: u64,
    /// Rows that say something else than in the last one.
    pub changed: u64,
    /// Rows of the last one whose key this one does not have.
    pub removed: u64,
    /// Rows that are none of the layout, or have no key.
    pub wrong: u64,
}

/// A row that is news.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// It is new, or says something else.
    Row { row: ExtractRow, is_new: bool, at: i64 },
    /// It is gone.
    Gone { key: [u8; 16], name: String },
}

/// What counts as said from here on.
#[derive(Debug, Clone, Default)]
pub struct Compared {
    /// Rows as they are now.
    pub said: Vec<ExtractRow>,
    /// Keys that are gone.
    pub gone: Vec<[u8; 16]>,
}

impl Compared {
    pub(super) fn write(&self, tx: &Transaction<'_>, route: RouteNumber) -> rusqlite::Result<()> {
        for row in &self.said {
            tx.prepare_cached(
                "INSERT INTO extract_row (route, key, hash, name) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (route, key) DO UPDATE SET hash = ?3, name = ?4",
            )?
            .execute(params![route.0, row.key, row.hash, row.name])?;
        }
        for key in &self.gone {
            tx.prepare_cached("DELETE FROM extract_row WHERE route = ?1 AND key = ?2")?
                .execute(params![route.0, key])?;
        }
        Ok(())
    }
}

/// How many rows are written or deleted at once.
const CHUNK: i64 = 2_000;

impl Store {
    /// Adds rows to the extract that is being compared and moves its file's point. The first row whose key was there
    /// before, with the number of the row that had it.
    ///
    /// # Errors
    /// The store failed; nothing was added.
    pub async fn stage(
        &self,
        route: RouteNumber,
        rows: Vec<ExtractRow>,
    ) -> Result<Option<(u64, u64)>, StoreError> {
        self.write("comparing an extract", move |tx| {
            let mut twice = None;
            for row in &rows {
                let added = tx
                    .prepare_cached(
                        "INSERT INTO extract_new (route, key, hash, name, number, start, length, wrong)
                         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO NOTHING",
                    )?
                    .execute(params![
                        route.0,
                        row.key,
                        row.hash,
                        row.name,
                        row.number as i64,
                        row.offset as i64,
                        row.length as i64,
                        row.wrong
                    ])?;
                if added == 0 && twice.is_none() {
                    let first: i64 = tx
                        .prepare_cached("SELECT number FROM extract_new WHERE route = ?1 AND key = ?2")?
                        .query_row(params![route.0, row.key], |found| found.get(0))?;
                    twice = Some((u64::try_from(first).unwrap_or(0), row.number));
                }
            }
            Ok(twice)
        })
        .await
    }

    /// How the extract that is being compared differs from the last one.
    ///
    /// # Errors
    /// The store failed.
    pub async fn difference(&self, route: RouteNumber) -> Result<Difference, StoreError> {
        self.write("comparing an extract", move |tx| {
            let count = |sql: &str| -> rusqlite::Result<u64> {
                let number: i64 = tx.prepare_cached(sql)?.query_row([route.0], |row| row.get(0))?;
                Ok(u64::try_from(number).unwrap_or(0))
            };
            let before = count("SELECT count(*) FROM extract_row WHERE route = ?1")?;
            let now = count("SELECT count(*) FROM extract_new WHERE route = ?1 AND wrong = 0")?;
            let wrong = count("SELECT count(*) FROM extract_new WHERE route = ?1 AND wrong = 1")?;
            let same_key = count(
                "SELECT count(*) FROM extract_new n JOIN extract_row o ON o.route = n.route AND o.key = n.key WHERE n.route = ?1",
            )?;
            let changed = count(
                "SELECT count(*) FROM extract_new n JOIN extract_row o ON o.route = n.route AND o.key = n.key
                 WHERE n.route = ?1 AND n.hash <> o.hash",
            )?;
            Ok(Difference {
                before,
                now,
                created: now.saturating_sub(same_key),
                changed,
                removed: before.saturating_sub(same_key),
                wrong,
            })
        })
        .await
    }

    /// The next rows that are new or changed, in the order of the file, behind this place.
    ///
    /// # Errors
    /// The store failed.
    pub async fn news(&self, route: RouteNumber, behind: i64, most: u32) -> Result<Vec<News>, StoreError> {
        self.write("comparing an extract", move |tx| {
            let mut statement = tx.prepare_cached(
                "SELECT n.n, n.key, n.hash, n.name, n.number, n.start, n.length, o.hash IS NULL, n.wrong
                 FROM extract_new n LEFT JOIN extract_row o ON o.route = n.route AND o.key = n.key
                 WHERE n.route = ?1 AND n.n > ?2 AND (o.hash IS NULL OR o.hash <> n.hash) ORDER BY n.n LIMIT ?3",
            )?;
            let rows = statement.query_map(params![route.0, behind, most], |row| {
                let number = |at: usize| row.get::<_, i64>(at).map(|number| u64::try_from(number).unwrap_or(0));
                let row_of = ExtractRow {
                    key: row.get(1)?,
                    hash: row.get(2)?,
                    name: row.get(3)?,
                    number: number(4)?,
                    offset: number(5)?,
                    length: number(6)?,
                    wrong: row.get(8)?,
                };
                Ok(News::Row { row: row_of, is_new: row.get(7)?, at: row.get(0)? })
            })?;
            rows.collect()
        })
        .await
    }

    /// The next keys that are gone.
    ///
    /// # Errors
    /// The store failed.
    pub async fn gone(&self, route: RouteNumber, most: u32) -> Result<Vec<News>, StoreError> {
        self.write("comparing an extract", move |tx| {
            let mut statement = tx.prepare_cached(
                "SELECT o.key, o.name FROM extract_row o WHERE o.route = ?1
                 AND NOT EXISTS (SELECT 1 FROM extract_new n WHERE n.route = o.route AND n.key = o.key) LIMIT ?2",
            )?;
            let rows = statement
                .query_map(params![route.0, most], |row| Ok(News::Gone { key: row.get(0)?, name: row.get(1)? }))?;
            rows.collect()
        })
        .await
    }

    /// Takes what the new extract says as said, without news of it: a first one. A chunk at a time; whether there is more.
    ///
    /// # Errors
    /// The store failed.
    pub async fn take_as_baseline(&self, route: RouteNumber, behind: i64) -> Result<Option<i64>, StoreError> {
        self.write("taking an extract as the baseline", move |tx| {
            let last: Option<i64> = tx
                .prepare_cached("SELECT max(n) FROM (SELECT n FROM extract_new WHERE route = ?1 AND n > ?2 ORDER BY n LIMIT ?3)")?
                .query_row(params![route.0, behind, CHUNK], |row| row.get(0))?;
            if let Some(last) = last {
                tx.prepare_cached(
                    "INSERT INTO extract_row (route, key, hash, name)
                     SELECT route, key, hash, name FROM extract_new WHERE route = ?1 AND n > ?2 AND n <= ?3 AND wrong = 0
                     ON CONFLICT (route, key) DO UPDATE SET hash = excluded.hash, name = excluded.name",
                )?
                .execute(params![route.0, behind, last])?;
            }
            Ok(last)
        })
        .await
    }

    /// Forgets what was said of keys, without news of it.
    ///
    /// # Errors
    /// The store failed.
    pub async fn forget(&self, route: RouteNumber, keys: Vec<[u8; 16]>) -> Result<(), StoreError> {
        self.write("forgetting keys", move |tx| Compared { said: Vec::new(), gone: keys }.write(tx, route))
            .await
    }

    /// Forgets the extract that was being compared, a chunk at a time; whether there is more.
    ///
    /// # Errors
    /// The store failed.
    pub async fn unstage(&self, route: RouteNumber) -> Result<bool, StoreError> {
        self.write("forgetting an extract", move |tx| {
            let deleted = tx
                .prepare_cached(
                    "DELETE FROM extract_new WHERE n IN (SELECT n FROM extract_new WHERE route = ?1 LIMIT ?2)",
                )?
                .execute(params![route.0, CHUNK])?;
            Ok(deleted as i64 == CHUNK)
        })
        .await
    }
}
