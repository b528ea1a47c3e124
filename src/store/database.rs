//! Where the store lies: in a file of our own, or on a server that several bridges share.

use super::{
    Opener, StoreError,
    schema::{self, Opened, Refused},
    sql::{self, Tx},
    sqlite::Sqlite,
};
use crate::{code::Code, config};
use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::sync::mpsc;

/// Where a store is to be had.
#[derive(Debug, Clone)]
pub enum Location {
    /// A file.
    File(PathBuf),
    /// A server.
    Server(Arc<config::StoreServer>),
}

/// The database, in the hands of the store's thread.
pub enum Database {
    /// A file.
    Sqlite(Sqlite),
    /// A server.
    #[cfg(feature = "postgres")]
    Postgres(Box<super::postgres::Postgres>),
}

fn unavailable(what: String) -> StoreError {
    StoreError { code: Code::StoreUnavailable, what }
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Location::File(path) => write!(f, "{}", path.display()),
            Location::Server(server) => write!(f, "{server}"),
        }
    }
}

impl Location {
    /// Where a configuration says.
    pub fn of(store: &config::Store) -> Location {
        match &store.server {
            Some(server) => Location::Server(server.clone()),
            None => Location::File(store.path.clone()),
        }
    }

    /// What is said to somebody whose opening was refused.
    pub fn refused(&self, refused: Refused) -> StoreError {
        match refused {
            Refused::Newer(version) => StoreError {
                code: Code::StoreNewer,
                what: format!("{self} has version {version}; this program reads version {}", schema::VERSION),
            },
            Refused::Moved(to) => StoreError {
                code: Code::StoreMoved,
                what: format!("{self} was moved to {to}; what happened since then stands only there"),
            },
            Refused::Sql(error) => StoreError::of(&format!("opening {self}"), &error),
        }
    }

    /// Opens it, making its tables if it is new; `noted` is the last run that is noted beside it. Blocks, and not within a runtime.
    pub fn open(&self, opener: Opener, noted: i64) -> Result<(Database, Opened), StoreError> {
        match self {
            Location::File(path) => {
                if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
                    std::fs::create_dir_all(folder).map_err(|error| {
                        unavailable(format!("the folder {} cannot be made: {error}", folder.display()))
                    })?;
                }
                let lock = match opener {
                    Opener::Command => None,
                    Opener::Bridge => Some(lock(path)?),
                };
                let mut file = Sqlite::open(path, lock).map_err(|error| self.refused(error.into()))?;
                let opened = file.prepare(opener, noted).map_err(|refused| self.refused(refused))?;
                Ok((Database::Sqlite(file), opened))
            }
            #[cfg(feature = "postgres")]
            Location::Server(server) => {
                let opening = |what: String| unavailable(format!("opening {self}: {what}"));
                let mut server = super::postgres::Postgres::new(server).map_err(opening)?;
                let opened = server.prepare(opener, noted).map_err(|refused| self.refused(refused))?;
                Ok((Database::Postgres(Box::new(server)), opened))
            }
            #[cfg(not(feature = "postgres"))]
            Location::Server(_) => {
                Err(unavailable(format!("{self}: this Packhorse was built without PostgreSQL")))
            }
        }
    }
}

impl Location {
    /// Looks at a store that is there, as it is at one moment, on a connection of its own: whoever writes goes on meanwhile. Blocks,
    /// and not within a runtime.
    pub fn moment<T>(
        &self,
        doing: &str,
        work: impl FnOnce(&Tx<'_>) -> sql::Result<T>,
    ) -> Result<T, StoreError> {
        let found = match self {
            Location::File(path) => Sqlite::look(path).and_then(|mut file| file.moment(work)),
            #[cfg(feature = "postgres")]
            Location::Server(server) => {
                let server = super::postgres::Postgres::new(server);
                server.map_err(sql::Error::Lost).and_then(|mut server| server.moment(work))
            }
            #[cfg(not(feature = "postgres"))]
            Location::Server(_) => {
                return Err(unavailable(format!("{self}: this Packhorse was built without PostgreSQL")));
            }
        };
        found.map_err(|error| StoreError::of(doing, &error))
    }
}

/// The lock of the one bridge on a file.
pub fn lock(path: &Path) -> Result<File, StoreError> {
    let path = path.with_extension("lock");
    let file = File::create(&path)
        .map_err(|error| unavailable(format!("{} cannot be written: {error}", path.display())))?;
    file.try_lock().map_err(|_| {
        unavailable(format!("another bridge runs on this store ({} is locked)", path.display()))
    })?;
    Ok(file)
}

impl Database {
    /// Waits for work; how much there is. None: nobody has any more.
    pub fn wait<W>(&mut self, waiting: &mut mpsc::Receiver<W>, group: &mut Vec<W>, most: usize) -> usize {
        match self {
            Database::Sqlite(_) => waiting.blocking_recv_many(group, most),
            #[cfg(feature = "postgres")]
            Database::Postgres(server) => server.wait(waiting, group, most),
        }
    }

    /// Does work in one transaction, durable when this returns.
    pub fn transaction(&mut self, work: impl FnOnce(&Tx<'_>)) -> sql::Result<()> {
        match self {
            Database::Sqlite(file) => file.transaction(work),
            #[cfg(feature = "postgres")]
            Database::Postgres(server) => server.transaction(work),
        }
    }
}
