//! The tables, and how those of older versions are brought up to this one.

use super::{
    Opener,
    sql::{self, Tx, params},
};

/// The version of the tables that this program reads and writes.
pub const VERSION: i64 = 5;

/// A store that has been opened.
pub struct Opened {
    /// The number of this run of the bridge; 0 for anybody else.
    pub run: i64,
    /// Bytes that wait in the spool.
    pub spool_bytes: u64,
}

/// Why a store is not opened.
pub enum Refused {
    /// It was written by a newer program.
    Newer(i64),
    /// The database failed.
    Sql(sql::Error),
}

impl<E: Into<sql::Error>> From<E> for Refused {
    fn from(error: E) -> Refused {
        Refused::Sql(error.into())
    }
}

/// Brings the tables of this version up, 0 being none, and counts the run of a bridge.
pub fn bring_up(tx: &Tx<'_>, version: i64, opener: Opener) -> Result<Opened, Refused> {
    if version > VERSION {
        return Err(Refused::Newer(version));
    }
    if version == 0 {
        tx.script(include_str!("schema.sql"))?;
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
    let run = match opener {
        Opener::Command => 0,
        Opener::Bridge => {
            let last: Option<String> = tx.find("SELECT value FROM meta WHERE name = 'run'", params![])?;
            let run = last.and_then(|last| last.parse::<i64>().ok()).unwrap_or(0) + 1;
            tx.run(
                "INSERT INTO meta (name, value) VALUES ('run', ?1) ON CONFLICT (name) DO UPDATE SET value = ?1",
                params![run.to_string()],
            )?;
            run
        }
    };
    let bytes: i64 =
        tx.value("SELECT CAST(coalesce(sum(length(body)), 0) AS BIGINT) FROM spool", params![])?;
    Ok(Opened { run, spool_bytes: u64::try_from(bytes).unwrap_or(0) })
}
