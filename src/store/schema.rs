//! The tables, and how those of older versions are brought up to this one.

use super::{
    Opener,
    sql::{self, Tx, params},
};

/// The version of the tables that this program reads and writes.
pub const VERSION: i64 = 7;

const JOURNAL: &str = include_str!("journal.sql");

/// A store that has been opened.
pub struct Opened {
    /// The number of this run of the bridge; 0 for anybody else.
    pub run: i64,
    /// The last run that the store itself knew of, if beside it a later one is noted.
    pub restored: Option<i64>,
    /// Bytes that wait in the spool.
    pub spool_bytes: u64,
}

/// Why a store is not opened.
pub enum Refused {
    /// It was written by a newer program.
    Newer(i64),
    /// It was moved to another place, which is named.
    Moved(String),
    /// The database failed.
    Sql(sql::Error),
}

impl<E: Into<sql::Error>> From<E> for Refused {
    fn from(error: E) -> Refused {
        Refused::Sql(error.into())
    }
}

/// Brings the tables of this version up, 0 being none, and counts the run of a bridge: behind the last one that is noted beside
/// the store, too.
pub fn bring_up(tx: &Tx<'_>, version: i64, opener: Opener, noted: i64) -> Result<Opened, Refused> {
    if version > VERSION {
        return Err(Refused::Newer(version));
    }
    if version == 0 {
        tx.script(include_str!("schema.sql"))?;
        tx.script(JOURNAL)?;
    }
    if version == 1 {
        tx.script("ALTER TABLE journal ADD COLUMN why TEXT")?;
    }
    if version < 3 {
        tx.script(include_str!("files.sql"))?;
    }
    if version < 4 {
        tx.script(include_str!("batches.sql"))?;
    }
    if version < 5 {
        // Extracts were compared within the store.
        tx.script("DROP TABLE IF EXISTS extract_new")?;
        tx.script(include_str!("parked.sql"))?;
        tx.script(include_str!("gates.sql"))?;
    }
    if matches!(version, 3 | 4) {
        tx.script("ALTER TABLE file ADD COLUMN sequence TEXT")?;
    }
    if version < 6 {
        tx.script(include_str!("intake.sql"))?;
        super::intake::spread(tx)?;
    }
    if matches!(version, 1..7) {
        in_order_of_intake(tx)?;
    }
    if let Some(to) = tx.find::<String>("SELECT value FROM meta WHERE name = 'moved to'", params![])? {
        return Err(Refused::Moved(to));
    }
    let mut restored = None;
    let run = match opener {
        Opener::Command => 0,
        Opener::Bridge => {
            let last = last_run(tx)?;
            if last < noted {
                restored = Some(last);
                note_run(tx, noted)?;
            }
            next_run(tx)?
        }
    };
    let bytes: i64 =
        tx.value("SELECT CAST(coalesce(sum(length(body)), 0) AS BIGINT) FROM spool", params![])?;
    Ok(Opened { run, restored, spool_bytes: u64::try_from(bytes).unwrap_or(0) })
}

/// Before version 7 a file had the journal in the order of its keys. Its rows go over in the order of their intake, all in this
/// one transaction: a kill leaves them where they were. Nothing is sorted, so it takes time but neither memory nor other files.
/// A server keeps rows in the order in which they come anyway.
fn in_order_of_intake(tx: &Tx<'_>) -> sql::Result<()> {
    if tx.is_shared() {
        tx.script("DROP INDEX journal_by_age")?;
        return tx.script("CREATE INDEX journal_by_age_of_route ON journal (route, taken_at, key)");
    }
    tx.script("ALTER TABLE journal RENAME TO journal_before; DROP INDEX journal_waiting; DROP INDEX journal_given_up")?;
    tx.script(JOURNAL)?;
    tx.script(
        "CREATE INDEX journal_waiting ON journal (route, taken_at) WHERE state = 2;
         CREATE INDEX journal_given_up ON journal (state, route) WHERE state = 5 OR state = 6",
    )?;
    let columns = "route, key, part, state, attempt, replay, doubt, run, duplicates, source, id, taken_at, sent_at, failed_at,
        due_at, done_at, kept, answer, code, why, mapping";
    tx.script(&format!(
        "INSERT INTO journal ({columns}) SELECT {columns} FROM journal_before INDEXED BY journal_by_age
         ORDER BY taken_at, route, key, part"
    ))?;
    tx.script("DROP TABLE journal_before")
}

/// The number of a run that begins.
pub fn next_run(tx: &Tx<'_>) -> sql::Result<i64> {
    let run = last_run(tx)? + 1;
    note_run(tx, run)?;
    Ok(run)
}

fn last_run(tx: &Tx<'_>) -> sql::Result<i64> {
    let last: Option<String> = tx.find("SELECT value FROM meta WHERE name = 'run'", params![])?;
    Ok(last.and_then(|last| last.parse().ok()).unwrap_or(0))
}

fn note_run(tx: &Tx<'_>, run: i64) -> sql::Result<()> {
    tx.run(
        "INSERT INTO meta (name, value) VALUES ('run', ?1) ON CONFLICT (name) DO UPDATE SET value = ?1",
        params![run.to_string()],
    )?;
    Ok(())
}

/// The version of tables that say it themselves, as those on PostgreSQL do; 0 if there are none.
#[cfg(feature = "postgres")]
pub fn version_in_meta(tx: &Tx<'_>) -> sql::Result<i64> {
    let there = "SELECT 1 FROM information_schema.tables WHERE table_schema = current_schema() AND table_name = 'meta'";
    if !tx.exists(there, params![])? {
        return Ok(0);
    }
    let version: Option<String> = tx.find("SELECT value FROM meta WHERE name = 'version'", params![])?;
    Ok(version.and_then(|version| version.parse().ok()).unwrap_or(0))
}

/// Writes the version of the tables where they say it themselves.
#[cfg(feature = "postgres")]
pub fn note_version(tx: &Tx<'_>) -> sql::Result<()> {
    tx.run(
        "INSERT INTO meta (name, value) VALUES ('version', ?1) ON CONFLICT (name) DO UPDATE SET value = ?1",
        params![VERSION.to_string()],
    )?;
    Ok(())
}

/// The tables in the words of PostgreSQL, which has other names for the same types. Texts are compared byte by byte there too.
#[cfg(feature = "postgres")]
pub fn for_postgres(script: &str) -> String {
    let mut words = String::with_capacity(script.len());
    for line in script.lines().filter(|line| !line.trim_start().starts_with("--")) {
        let line = match line.contains("REFERENCES") {
            true => line.to_owned(),
            false => {
                line.replace("INTEGER PRIMARY KEY", "INTEGER GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY")
            }
        };
        words.push_str(
            &line
                .replace("INTEGER", "BIGINT")
                .replace(" BLOB", " BYTEA")
                .replace(" TEXT", " TEXT COLLATE \"C\"")
                .replace(") STRICT, WITHOUT ROWID;", ");")
                .replace(") STRICT;", ");"),
        );
        words.push('\n');
    }
    words
}
