//! The only owner of state: spool, journal, open items, cursors, audit. In a file of SQLite, or on a PostgreSQL that several
//! bridges share; one writer thread, group commit.
//!
//! Every promise rests on one sentence: when a call here returns, its effect is on disk (`synchronous=FULL`,
//! `synchronous_commit = on`). Callers
//! acknowledge to the broker, or answer a source, only after that.

mod account;
mod batches;
mod beside;
mod copy;
mod copyback;
mod database;
mod extracts;
mod files;
mod gates;
mod intake;
mod items;
mod journal;
mod lead;
mod left;
mod parked;
#[cfg(feature = "postgres")]
mod postgres;
mod prune;
mod replays;
mod schema;
mod spool;
mod sql;
mod sqlite;
mod verify;
mod writer;

pub use account::{
    Account, Asked, Astray, At, Buried, DiscardedBy, FileAccount, Named, RouteAccount, Waits, Wrong,
};
pub use batches::{After, BatchFileState, BatchState, GroupTotal, Joining, Known, Placed, Says, ToMark};
pub use copy::{Copied, backup, migrate};
pub use extracts::{Compared, Said};
pub use files::{BASELINE, Decision, FileEnd, FileState, NewFile, Progress, SameAs, TakenFile, Took};
pub use gates::{Away, Gates};
pub use items::{BEFORE_A_PERSON, Item, NewItem, Open, Settled};
pub use journal::{Answer, Claim, GivenUp, Place, Record, State, Went, Why};
pub use parked::{Due, HeldSubject, Kept, Parking, Stands};
pub use prune::{Size, Walk};
pub use spool::{Finish, Intake, Taken, Waiting};
pub use verify::verify;

use crate::{code::Code, config};
use beside::Beside;
use database::Location;
use lead::Lead;
use left::Left;
use sql::{Tx, params};
use std::{
    collections::HashMap,
    fmt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};
use writer::Writer;

/// What went wrong with the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreError {
    /// The code.
    pub code: Code,
    /// What happened, what it means, what to do.
    pub what: String,
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.what)
    }
}

impl std::error::Error for StoreError {}

impl StoreError {
    fn of(doing: &str, error: &sql::Error) -> StoreError {
        let code = match error {
            error if error.is_full() => Code::StoreFull,
            error if error.is_damage() => Code::StoreDamaged,
            _ => Code::StoreUnavailable,
        };
        StoreError { code, what: format!("{doing}: {error}") }
    }
}

/// The number of a route in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RouteNumber(i64);

/// The store.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
    /// By which lead this is ours to write, where several bridges share it.
    lead: Option<Arc<Lead>>,
}

struct Inner {
    writer: Writer,
    location: Location,
    path: PathBuf,
    /// The number of this run of the bridge; 0 for anybody who only looks.
    run: i64,
    routes: Mutex<HashMap<String, RouteNumber>>,
    spool_bytes: AtomicU64,
    spool_limit: u64,
    left: Left,
}

/// Who opens a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opener {
    /// The bridge: alone on a file, and counted as a run.
    Bridge,
    /// A person's command beside it.
    Command,
}

impl Store {
    /// Opens the store in a file, making its tables if it is new.
    ///
    /// # Errors
    /// It cannot be opened or written, is of a newer version, or another bridge has it.
    pub fn open(path: &Path, spool_limit: u64, opener: Opener) -> Result<Store, StoreError> {
        Store::start(&Location::File(path.to_owned()), path, spool_limit, opener)
    }

    /// Opens the store where a configuration says.
    ///
    /// # Errors
    /// As [`Store::open`]; a server cannot be reached, or does not let us in.
    pub fn of(config: &config::Store, opener: Opener) -> Result<Store, StoreError> {
        Store::start(&Location::of(config), &config.path, config.spool_limit, opener)
    }

    fn start(
        location: &Location,
        path: &Path,
        spool_limit: u64,
        opener: Opener,
    ) -> Result<Store, StoreError> {
        let bridge = opener == Opener::Bridge;
        let beside = Beside::of(path);
        if bridge {
            beside.nothing_left(location)?;
        }
        let (writer, opened) = Writer::start(location.clone(), opener, beside.last_run())?;
        if bridge {
            beside.note(location, &opened);
        }
        Ok(Store {
            inner: Arc::new(Inner {
                writer,
                location: location.clone(),
                path: path.to_owned(),
                run: opened.run,
                routes: Mutex::default(),
                spool_bytes: AtomicU64::new(opened.spool_bytes),
                spool_limit,
                left: Left::default(),
            }),
            lead: None,
        })
    }

    /// The number of this run of the bridge, or of its term where it leads; 0 for a command beside it.
    pub fn run(&self) -> i64 {
        self.lead.as_ref().map_or(self.inner.run, |lead| lead.run)
    }

    /// Whether the bridge of a run lives.
    ///
    /// # Errors
    /// The store failed.
    pub async fn lives(&self, run: i64) -> Result<bool, StoreError> {
        match run == self.run() && run != 0 {
            true => Ok(true),
            false => self.write("looking for a bridge", move |tx| tx.lives(run)).await,
        }
    }

    /// Its file; for a store on a server, where files that are under way lie beside.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// The number under which a route is kept, given out at its first use.
    ///
    /// # Errors
    /// The store failed.
    pub async fn route(&self, name: &str) -> Result<RouteNumber, StoreError> {
        if let Some(number) = self.inner.routes.lock().ok().and_then(|routes| routes.get(name).copied()) {
            return Ok(number);
        }
        let owned = name.to_owned();
        let number = self
            .write("numbering a route", move |tx| {
                tx.run("INSERT INTO route (name) VALUES (?1) ON CONFLICT (name) DO NOTHING", params![owned])?;
                tx.value("SELECT n FROM route WHERE name = ?1", params![owned])
            })
            .await?;
        if let Ok(mut routes) = self.inner.routes.lock() {
            routes.insert(name.to_owned(), RouteNumber(number));
        }
        Ok(RouteNumber(number))
    }

    /// Bytes that wait in the spool.
    pub fn spool_bytes(&self) -> u64 {
        self.inner.spool_bytes.load(Ordering::Relaxed)
    }

    /// Carries out a piece of work in the next group commit; when this returns, it is on disk.
    async fn write<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&Tx<'_>) -> sql::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let Some(lead) = &self.lead else { return self.inner.writer.run(doing, work).await };
        let held = lead.clone();
        let work = move |tx: &Tx<'_>| match held.holds(tx) {
            true => work(tx).map(Some),
            false => Ok(None),
        };
        lead.unless_lost(doing, self.inner.writer.run(doing, work)).await
    }

    /// Looks at everything as it is at one moment, on a connection of its own: whoever writes goes on meanwhile.
    async fn read<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&Tx<'_>) -> sql::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let location = self.inner.location.clone();
        match tokio::task::spawn_blocking(move || location.moment(work)).await {
            Ok(found) => found.map_err(|error| StoreError::of(doing, &error)),
            Err(_) => Err(StoreError {
                code: Code::StoreUnavailable,
                what: format!("{doing}: the runtime is ending"),
            }),
        }
    }

    /// Writes down what a person did.
    ///
    /// # Errors
    /// The store failed.
    pub async fn audit(
        &self,
        now: i64,
        who: &str,
        what: &str,
        reason: &str,
        about: &str,
    ) -> Result<(), StoreError> {
        let line = [who, what, reason, about].map(str::to_owned);
        self.write("writing the audit trail", move |tx| {
            let [who, what, reason, about] = line;
            tx.run(
                "INSERT INTO audit (at, who, what, reason, about) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![now, who, what, reason, about],
            )?;
            Ok(())
        })
        .await
    }
}
