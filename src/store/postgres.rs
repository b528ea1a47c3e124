//! The store in a schema of a PostgreSQL, so that several bridges may share it.
//!
//! Every transaction first takes one lock of the store, so that bridges write one after another as threads do in a file of
//! SQLite, and everything that is said of one writer holds here too. A bridge holds a lock with the number of its run for as
//! long as its connection lives: whoever finds a claim of a run that nobody holds knows that its bridge is gone.
//!
//! It is driven by the store's thread and nobody else. What opens and closes pieces of work travels with their first and last
//! statement, so that it costs no journeys of its own.

mod conversation;
mod values;

pub use conversation::Conversation;

use super::{
    Opener,
    schema::{self, Opened, Refused},
    sql::{self, Error, Tx, params},
};
use crate::{
    code::Code,
    config::StoreServer,
    retry::Delays,
    tls::{self, postgres::Tls},
};
use conversation::{Ended, Session, gone};
use secrecy::ExposeSecret as _;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    runtime::{Builder, Runtime},
    sync::mpsc,
    time::timeout,
};
use tokio_postgres::{
    Config, NoTls,
    config::{SslMode, TargetSessionAttrs},
};

/// How long we wait for a lost connection of our own to let go of the number of our run.
const OWN_RUN: Duration = Duration::from_secs(30);

/// How often a bridge that has nothing to say lets the server hear of it: a few times before it is given up.
const BEAT: Duration = Duration::from_secs(2);

/// What a lock of the server is for.
#[derive(Debug, Clone, Copy)]
pub enum Lock {
    /// Who writes.
    Writer,
    /// Which runs live.
    Run,
    /// Who has a duty.
    Duty,
}

/// The server, and the connection to it while there is one.
pub struct Postgres {
    runtime: Runtime,
    server: Arc<StoreServer>,
    tls: Option<Arc<rustls::ClientConfig>>,
    /// By this our own connections are known from all others.
    name: String,
    /// The number of our run; 0 for a command.
    run: i64,
    session: Option<Session>,
    /// How many connections there have been.
    connections: u64,
    delays: Delays,
    again_at: Instant,
}

impl Postgres {
    /// Readies it; nothing is said to the server yet.
    pub fn new(server: &Arc<StoreServer>) -> Result<Postgres, String> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| format!("the runtime cannot be started: {error}"))?;
        let tls = match &server.tls {
            None => None,
            Some(keys) => {
                let identity = match (&keys.certificate, &keys.key) {
                    (Some(certificate), Some(key)) => {
                        Some((certificate.clone(), key.resolve().map_err(|no| no.what)?))
                    }
                    (None | Some(_), None) | (None, Some(_)) => None,
                };
                Some(Arc::new(tls::client(keys.ca.as_deref(), identity)?))
            }
        };
        let nonce = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos() as u64);
        Ok(Postgres {
            runtime,
            server: server.clone(),
            tls,
            name: format!("packhorse {} {nonce:x}", std::process::id()),
            run: 0,
            session: None,
            connections: 0,
            delays: Delays::new(Duration::from_millis(100), Duration::from_secs(5)),
            again_at: Instant::now(),
        })
    }

    /// Makes or checks the tables, and for a bridge takes the lock of its run.
    pub fn prepare(&mut self, opener: Opener, noted: i64) -> Result<Opened, Refused> {
        self.connect(Setup::First)?;
        let mut opened = None;
        let done = self.transaction(|tx| {
            opened = Some(tx.whole(|tx| {
                let version = schema::version_in_meta(tx)?;
                let opened = schema::bring_up(tx, version, opener, noted);
                if opened.is_ok() && version < schema::VERSION {
                    schema::note_version(tx)?;
                }
                Ok(opened)
            }));
        });
        let opened = match opened {
            // The group's transaction could not even be begun.
            None => return Err(done.err().unwrap_or_else(gone).into()),
            Some(Err(error)) => return Err(error.into()),
            // A newer version: nothing was changed.
            Some(Ok(Err(refused))) => return Err(refused),
            Some(Ok(Ok(opened))) => opened,
        };
        done?;
        self.run = opened.run;
        if self.run != 0 {
            self.take_run()?;
        }
        Ok(opened)
    }

    /// Waits for work; a connection that is lost meanwhile is made anew. How much there is.
    pub fn wait<W>(&mut self, waiting: &mut mpsc::Receiver<W>, group: &mut Vec<W>, most: usize) -> usize {
        loop {
            let Some(session) = &mut self.session else {
                let pause = self.again_at.saturating_duration_since(Instant::now());
                let received =
                    self.runtime.block_on(async { timeout(pause, waiting.recv_many(group, most)).await });
                match received {
                    Ok(count) => return count,
                    Err(_) => {
                        // Who asks next hears why not.
                        let _ = self.reconnect();
                        continue;
                    }
                }
            };
            let connection = &mut session.connection;
            let is_bridge = self.run != 0;
            let heard = self.runtime.block_on(async {
                tokio::select! {
                    biased;
                    _ = connection => Heard::Lost,
                    count = waiting.recv_many(group, most) => Heard::Work(count),
                    () = tokio::time::sleep(BEAT), if is_bridge => Heard::Nothing,
                }
            });
            let lives = match heard {
                Heard::Work(count) => return count,
                Heard::Nothing => Conversation { runtime: &self.runtime, session }.beat().is_ok(),
                Heard::Lost => false,
            };
            if !lives {
                tracing::warn!(code = %Code::StoreUnavailable, "the connection to the store is lost; it is made anew");
                self.session = None;
            }
        }
    }

    /// Looks at everything as it is at one moment; nothing is written, and nobody else waits.
    pub fn moment<T>(&mut self, work: impl FnOnce(&Tx<'_>) -> sql::Result<T>) -> sql::Result<T> {
        self.connect(Setup::Again)?;
        let Some(session) = &self.session else { return Err(gone()) };
        let conversation = Conversation { runtime: &self.runtime, session };
        conversation.say("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")?;
        let found = work(&Tx::Postgres(&conversation))?;
        conversation.say("COMMIT")?;
        Ok(found)
    }

    /// Does work in one transaction, durable when this returns.
    pub fn transaction(&mut self, work: impl FnOnce(&Tx<'_>)) -> sql::Result<()> {
        if self.session.is_none() {
            let pause = self.again_at.saturating_duration_since(Instant::now());
            std::thread::sleep(pause);
            self.reconnect()?;
        }
        let Some(session) = &self.session else { return Err(gone()) };
        let conversation = Conversation { runtime: &self.runtime, session };
        let begin = format!(
            "BEGIN; SELECT txid_current() AS begun, pg_advisory_xact_lock({})",
            session.lock(Lock::Writer, 0)
        );
        session.ahead.replace(begin);
        session.transaction.set(None);
        work(&Tx::Postgres(&conversation));
        let ended = conversation.end();
        if session.lost.borrow().is_some() {
            self.session = None;
        }
        match ended {
            Ok(()) => Ok(()),
            Err(Ended::Undone(error)) => Err(error),
            Err(Ended::Unknown(transaction, error)) => self.find_out(transaction, error),
        }
    }

    /// Whether a commit was done that was not answered. The server knows; until it says so, nobody is told anything.
    fn find_out(&mut self, transaction: i64, error: Error) -> sql::Result<()> {
        tracing::warn!(
            code = %Code::StoreUnavailable,
            "the store did not answer a commit, and is asked what became of it: {error}"
        );
        self.session = None;
        loop {
            let pause = self.again_at.saturating_duration_since(Instant::now());
            std::thread::sleep(pause);
            if self.session.is_none() && self.reconnect().is_err() {
                continue;
            }
            let Some(session) = &self.session else { continue };
            let conversation = Conversation { runtime: &self.runtime, session };
            let status = conversation
                .one("SELECT txid_status(?1)", params![transaction], |row| row.get::<Option<String>>(0));
            match status.as_ref().map(|status| status.as_ref().and_then(Option::as_deref)) {
                Ok(Some("committed")) => return Ok(()),
                Ok(Some("in progress")) => self.again_at = Instant::now() + Duration::from_millis(100),
                Ok(_) => return Err(error),
                Err(_) if session.lost.borrow().is_some() => self.session = None,
                Err(_) => return Err(error),
            }
        }
    }

    fn reconnect(&mut self) -> sql::Result<()> {
        let connected = self.connect(Setup::Again).and_then(|()| match self.run {
            0 => Ok(()),
            _ => self.take_run(),
        });
        match &connected {
            Ok(()) => self.delays.reset(),
            Err(error) => {
                self.session = None;
                let pause = self.delays.delay();
                self.again_at = Instant::now() + pause;
                tracing::warn!(
                    code = %Code::StoreUnavailable,
                    "the store is tried again in {} ms: {error}",
                    pause.as_millis()
                );
            }
        }
        connected
    }

    fn connect(&mut self, setup: Setup) -> sql::Result<()> {
        let mut config = Config::new();
        for (host, port) in &self.server.hosts {
            config.host(host).port(*port);
        }
        config
            .dbname(&self.server.database)
            .application_name(&self.name)
            .connect_timeout(Duration::from_secs(5))
            .keepalives_idle(Duration::from_secs(10))
            .keepalives_interval(Duration::from_secs(5))
            .keepalives_retries(3)
            .tcp_user_timeout(Duration::from_secs(20))
            .ssl_mode(if self.tls.is_some() { SslMode::Require } else { SslMode::Disable });
        if self.server.hosts.len() > 1 {
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        if let Some(username) = &self.server.username {
            config.user(username);
        }
        if let Some(password) = &self.server.password {
            config.password(password.resolve().map_err(|no| Error::Lost(no.what))?.expose_secret());
        }
        let late = || Error::Lost("the server did not answer in time".to_owned());
        let limit = Duration::from_secs(10) * u32::try_from(self.server.hosts.len()).unwrap_or(1);
        let (client, connection) = match self.tls.clone() {
            None => self.runtime.block_on(async {
                let (client, connection) =
                    timeout(limit, config.connect(NoTls)).await.map_err(|_| late())??;
                Ok::<_, Error>((client, tokio::spawn(async { drop(connection.await) })))
            })?,
            Some(tls) => self.runtime.block_on(async {
                let (client, connection) =
                    timeout(limit, config.connect(Tls(tls))).await.map_err(|_| late())??;
                Ok::<_, Error>((client, tokio::spawn(async { drop(connection.await) })))
            })?,
        };
        self.connections += 1;
        let session = Session::new(client, connection, self.connections, &self.server.schema);
        let conversation = Conversation { runtime: &self.runtime, session: &session };
        conversation.set_up(setup)?;
        self.session = Some(session);
        Ok(())
    }

    /// Takes the lock of our run. A connection of our own that was lost, and of which the server does not know it yet, is ended.
    fn take_run(&mut self) -> sql::Result<()> {
        let Some(session) = &self.session else { return Err(gone()) };
        let conversation = Conversation { runtime: &self.runtime, session };
        let lock = format!("SELECT pg_try_advisory_lock({})", session.lock(Lock::Run, self.run));
        let until = Instant::now() + OWN_RUN;
        loop {
            if conversation.one(&lock, params![], |row| row.get::<bool>(0))? == Some(true) {
                return conversation.be_given_up_when_idle();
            }
            conversation.all(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                 WHERE application_name = ?1 AND pid <> pg_backend_pid()",
                params![self.name],
                |_| Ok(()),
            )?;
            if Instant::now() > until {
                return Err(Error::Lost(format!(
                    "run {} of this store is held by another connection: is this a restored backup, and does a bridge run on the original?",
                    self.run
                )));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// What the store's thread hears while it waits.
enum Heard {
    /// So much work.
    Work(usize),
    /// Nothing, for a while.
    Nothing,
    /// That the connection is lost.
    Lost,
}

/// What a new connection finds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Setup {
    /// Perhaps no schema yet.
    First,
    /// What we left there.
    Again,
}
