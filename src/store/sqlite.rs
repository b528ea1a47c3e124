//! The store in a file of SQLite: how it is opened, and its tables brought to this version.

use super::{
    Opener,
    copyback::{self, CopyBack},
    schema::{self, Opened, Refused},
    sql::{self, Tx},
};
use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use std::{fs::File, path::Path, time::Duration};

/// In KiB: what lies above the leaves of an index of ten million keys stays, and of each key only its leaf is read.
const CACHE: i64 = -16_384;
/// While tables are made over, of which there may be much.
const LARGE_CACHE: i64 = -262_144;

/// The file.
pub struct Sqlite {
    connection: Connection,
    /// Beside a bridge.
    _copy_back: Option<CopyBack>,
    /// What a bridge holds as long as it runs.
    _lock: Option<File>,
}

impl Sqlite {
    /// Opens it, or makes it if there is none.
    pub fn open(path: &Path, lock: Option<File>) -> sql::Result<Sqlite> {
        let mut connection = Connection::open(path)?;
        // A person's command waits for the bridge, which may be writing large files down without a pause.
        connection.busy_timeout(Duration::from_secs(30))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
        connection.pragma_update(None, "cache_size", CACHE)?;
        // In pages of 4 KiB, of whoever writes beside a bridge.
        connection.pragma_update(None, "wal_autocheckpoint", 8_192)?;
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        connection.set_prepared_statement_cache_capacity(160);
        let copy_back =
            lock.as_ref().map(|_| CopyBack::start(&mut connection, path, copyback::LIMITS)).transpose()?;
        Ok(Sqlite { connection, _copy_back: copy_back, _lock: lock })
    }

    /// Opens one that is there, to look at it.
    pub fn look(path: &Path) -> sql::Result<Sqlite> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(Duration::from_secs(30))?;
        Ok(Sqlite { connection, _copy_back: None, _lock: None })
    }

    /// Makes or checks the tables.
    pub fn prepare(&mut self, opener: Opener, noted: i64) -> Result<Opened, Refused> {
        let tx = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let version = tx.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if version < schema::VERSION {
            tx.pragma_update(None, "cache_size", LARGE_CACHE)?;
        }
        let opened = schema::bring_up(&Tx::Sqlite(&tx), version, opener, noted)?;
        if version < schema::VERSION {
            tx.pragma_update(None, "user_version", schema::VERSION)?;
        }
        tx.commit()?;
        self.connection.pragma_update(None, "cache_size", CACHE)?;
        Ok(opened)
    }

    /// Looks at everything as it is at one moment; nothing is written, and nobody else waits.
    pub fn moment<T>(&mut self, work: impl FnOnce(&Tx<'_>) -> sql::Result<T>) -> sql::Result<T> {
        let tx = self.connection.transaction_with_behavior(TransactionBehavior::Deferred)?;
        work(&Tx::Sqlite(&tx))
    }

    /// Does work in one transaction, durable when this returns.
    pub fn transaction(&mut self, work: impl FnOnce(&Tx<'_>)) -> sql::Result<()> {
        let tx = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        work(&Tx::Sqlite(&tx));
        Ok(tx.commit()?)
    }
}
