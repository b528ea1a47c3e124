//! The store in a schema of a PostgreSQL, so that several bridges may share it.
//!
//! Every transaction first takes one lock of the store, so that bridges write one after another as threads do in a file of
//! SQLite, and everything that is said of one writer holds here too. A bridge holds a lock with the number of its run for as
//! long as its connection lives: whoever finds a claim of a run that nobody holds knows that its bridge is gone.
//!
//! It is driven by the store's thread and nobody else. What opens and closes pieces of work travels with their first and last
//! statement, so that it costs no journeys of its own.

use super::{
    Opener,
    schema::{self, Opened, Refused},
    sql::{self, Error, Kind, Tx, Value, params},
};
use crate::{
    code::Code,
    config::StoreServer,
    retry::Delays,
    tls::{self, postgres::Tls},
};
use bytes::{BufMut as _, BytesMut};
use futures_util::{StreamExt as _, future};
use secrecy::ExposeSecret as _;
use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, HashSet},
    error::Error as StdError,
    future::Future,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    runtime::{Builder, Runtime},
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};
use tokio_postgres::{
    Client, Config, NoTls, Row, SimpleQueryMessage, Statement,
    config::{SslMode, TargetSessionAttrs},
    types::{FromSql, IsNull, ToSql, Type, to_sql_checked},
};

/// How long a statement may take, waiting for other bridges included.
const STATEMENT: Duration = Duration::from_secs(60);
/// How much longer we wait for the server to say so.
const MORE: Duration = Duration::from_secs(5);
/// After how long the server gives up a bridge that stands still within a transaction, and the others go on.
const FROZEN: Duration = Duration::from_secs(10);
/// How long we wait for a lost connection of our own to let go of the number of our run.
const OWN_RUN: Duration = Duration::from_secs(30);

/// What a lock of the server is for.
#[derive(Debug, Clone, Copy)]
enum Lock {
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

/// A connection.
pub struct Session {
    client: Client,
    connection: JoinHandle<()>,
    statements: RefCell<HashMap<String, Statement>>,
    /// Which of our connections it is, one after the other.
    number: u64,
    duties: RefCell<HashSet<String>>,
    schema: String,
    /// What goes to the server ahead of the next statement.
    ahead: RefCell<String>,
    /// The number of this transaction at the server, when it has been begun there.
    transaction: Cell<Option<i64>>,
    /// Whether a statement of this piece of work has failed, which undoes all of it.
    failed: RefCell<Option<String>>,
    /// Why the connection is of no use any more.
    lost: RefCell<Option<String>>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// How a transaction ended that did not end well.
enum Ended {
    /// It was undone.
    Undone(Error),
    /// The server may have committed it.
    Unknown(i64, Error),
}

/// What pieces of work see of it.
pub struct Conversation<'a> {
    runtime: &'a Runtime,
    session: &'a Session,
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
    pub fn prepare(&mut self, opener: Opener) -> Result<Opened, Refused> {
        self.connect(Setup::First)?;
        let mut opened = None;
        let done = self.transaction(|tx| {
            opened = Some(tx.whole(|tx| {
                let version = schema::version_in_meta(tx)?;
                let opened = schema::bring_up(tx, version, opener);
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
            let received = self.runtime.block_on(async {
                tokio::select! {
                    biased;
                    _ = connection => None,
                    count = waiting.recv_many(group, most) => Some(count),
                }
            });
            if let Some(count) = received {
                return count;
            }
            tracing::warn!(code = %Code::StoreUnavailable, "the connection to the store is lost; it is made anew");
            self.session = None;
        }
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
        let session = Session {
            client,
            connection,
            statements: RefCell::default(),
            number: self.connections,
            duties: RefCell::default(),
            schema: self.server.schema.clone(),
            ahead: RefCell::default(),
            transaction: Cell::new(None),
            failed: RefCell::default(),
            lost: RefCell::default(),
        };
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
                return Ok(());
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

/// What a new connection finds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Setup {
    /// Perhaps no schema yet.
    First,
    /// What we left there.
    Again,
}

impl Session {
    /// The two numbers of a lock. They are the database's, so the schema is a part of them.
    fn lock(&self, lock: Lock, number: i64) -> String {
        let (class, number) = self.lock_numbers(lock, number);
        format!("{class}, {number}")
    }

    fn lock_numbers(&self, lock: Lock, number: i64) -> (i32, i32) {
        // FNV-1a.
        let name = format!("packhorse {lock:?} {}", self.schema);
        (hash(&name), i32::try_from(number).unwrap_or(i32::MAX))
    }

    fn duty(&self, name: &str) -> String {
        let (class, _) = self.lock_numbers(Lock::Duty, 0);
        format!("{class}, {}", hash(name))
    }
}

/// FNV-1a.
fn hash(text: &str) -> i32 {
    let hash =
        text.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    hash.cast_signed()
}

fn gone() -> Error {
    Error::Lost("the connection to the store is lost".to_owned())
}

impl Conversation<'_> {
    /// Sends what is to go ahead, and the statement with it; waits for both.
    fn ask<T>(&self, statement: impl Future<Output = Result<T, tokio_postgres::Error>>) -> sql::Result<T> {
        if let Some(why) = &*self.session.lost.borrow() {
            return Err(Error::Lost(why.clone()));
        }
        let ahead = self.session.ahead.take();
        let ahead = async {
            if !ahead.is_empty() {
                let said = self.session.client.simple_query(&ahead).await?;
                if let Some(number) = said.iter().find_map(transaction_in) {
                    self.session.transaction.set(Some(number));
                }
            }
            Ok(())
        };
        // In this order they go to the server, and it does them in this order.
        let both = future::join(ahead, statement);
        let answered = self.runtime.block_on(async { timeout(STATEMENT + MORE, both).await });
        let answer = match answered {
            Ok((Ok(()), Ok(answer))) => return Ok(answer),
            Ok((Err(error), _) | (Ok(()), Err(error))) => Error::Postgres(error),
            Err(_) => Error::Lost("the server did not answer in time".to_owned()),
        };
        self.session.failed.replace(Some(answer.to_string()));
        if answer.is_lost() {
            self.session.lost.replace(Some(answer.to_string()));
        }
        Err(answer)
    }

    fn say(&self, sql: &str) -> sql::Result<()> {
        self.ask(self.session.client.batch_execute(sql))
    }

    fn set_up(&self, setup: Setup) -> sql::Result<()> {
        let schema = quoted(&self.session.schema);
        let milliseconds = |duration: Duration| duration.as_millis();
        self.say(&format!(
            "SET search_path TO {schema}; SET statement_timeout = {}; SET lock_timeout = 0; \
             SET idle_in_transaction_session_timeout = {}; SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; \
             SET tcp_keepalives_count = 3; SET tcp_user_timeout = {}; SET default_transaction_isolation = 'read committed'",
            milliseconds(STATEMENT),
            milliseconds(FROZEN),
            milliseconds(Duration::from_secs(20)),
        ))?;
        let settings = "SELECT current_setting('server_encoding'), current_setting('synchronous_commit'),
               current_setting('fsync'), current_setting('server_version_num')";
        let read = |row: &sql::Row<'_>| {
            Ok((row.get::<String>(0)?, row.get::<String>(1)?, row.get::<String>(2)?, row.get::<String>(3)?))
        };
        let Some((encoding, synchronous, fsync, version)) = self.one(settings, params![], read)? else {
            return Err(gone());
        };
        if encoding != "UTF8" {
            return Err(Error::Lost(format!(
                "the database is encoded as {encoding}; the store takes one in UTF8"
            )));
        }
        if version.parse::<u32>().is_ok_and(|version| version < 120_000) {
            return Err(Error::Lost("the server is older than PostgreSQL 12".to_owned()));
        }
        // What the server says is committed must be on its disk.
        if synchronous == "off" {
            self.say("SET synchronous_commit = on")?;
        }
        if setup == Setup::First {
            if fsync == "off" {
                tracing::warn!(
                    code = %Code::StoreUnavailable,
                    "the server of the store runs with fsync = off: what it says is on disk may be lost with its machine"
                );
            }
            let there = "SELECT 1 FROM pg_namespace WHERE nspname = ?1";
            if !self.exists(there, params![self.session.schema])? {
                self.say(&format!("CREATE SCHEMA IF NOT EXISTS {schema}"))?;
            }
        }
        Ok(())
    }

    pub(super) fn whole<T>(
        &self,
        tx: &Tx<'_>,
        work: impl FnOnce(&Tx<'_>) -> sql::Result<T>,
    ) -> sql::Result<T> {
        let session = self.session;
        let before = session.ahead.borrow().clone();
        {
            let mut ahead = session.ahead.borrow_mut();
            if !ahead.is_empty() {
                ahead.push_str("; ");
            }
            ahead.push_str("SAVEPOINT work");
        }
        session.failed.take();
        let done = work(tx);
        let unsent = !session.ahead.borrow().is_empty();
        let done = match done {
            // Whatever the work made of it: the server takes nothing more of this piece.
            Ok(value) => match session.failed.take() {
                None => Ok(value),
                Some(why) => Err(Error::Lost(why)),
            },
            Err(error) => Err(error),
        };
        match (&done, unsent) {
            (_, true) => {
                session.ahead.replace(before);
            }
            (Ok(_), false) => {
                session.ahead.replace("RELEASE work".to_owned());
            }
            (Err(_), false) => {
                if let Err(error) = self.say("ROLLBACK TO work; RELEASE work") {
                    // Then the transaction is lost, and the connection is not worth keeping.
                    let mut lost = session.lost.borrow_mut();
                    lost.get_or_insert_with(|| error.to_string());
                }
            }
        }
        done
    }

    /// Commits what has been done.
    fn end(&self) -> Result<(), Ended> {
        if let Some(why) = &*self.session.lost.borrow() {
            return Err(Ended::Undone(Error::Lost(why.clone())));
        }
        let Some(transaction) = self.session.transaction.get() else {
            self.session.ahead.take();
            return Ok(());
        };
        // A transaction that the server has given up refuses to release, and is not taken for committed.
        self.say("COMMIT").map_err(|error| Ended::Unknown(transaction, error))
    }

    fn prepared(&self, sql: &str, params: &[Value<'_>]) -> sql::Result<Statement> {
        if let Some(statement) = self.session.statements.borrow().get(sql) {
            return Ok(statement.clone());
        }
        let types: Vec<Type> = params.iter().map(|value| of_kind(value.kind())).collect();
        // Question marks stand for parameters only.
        let text = sql.replace('?', "$");
        let statement = self.ask(self.session.client.prepare_typed(&text, &types))?;
        self.session.statements.borrow_mut().insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }

    pub(super) fn script(&self, sql: &str) -> sql::Result<()> {
        self.say(&schema::for_postgres(sql))
    }

    pub(super) fn run(&self, sql: &str, params: &[Value<'_>]) -> sql::Result<usize> {
        let statement = self.prepared(sql, params)?;
        let changed = self.ask(self.session.client.execute_raw(&statement, params.iter().map(Parameter)))?;
        Ok(usize::try_from(changed).unwrap_or(usize::MAX))
    }

    fn rows(&self, sql: &str, params: &[Value<'_>]) -> sql::Result<Vec<Row>> {
        let statement = self.prepared(sql, params)?;
        self.ask(async {
            let mut stream =
                pin!(self.session.client.query_raw(&statement, params.iter().map(Parameter)).await?);
            let mut rows = Vec::new();
            while let Some(row) = stream.next().await {
                rows.push(row?);
            }
            Ok(rows)
        })
    }

    pub(super) fn all<T>(
        &self,
        sql: &str,
        params: &[Value<'_>],
        mut read: impl FnMut(&sql::Row<'_>) -> sql::Result<T>,
    ) -> sql::Result<Vec<T>> {
        self.rows(sql, params)?.iter().map(|row| read(&sql::Row::Postgres(row))).collect()
    }

    pub(super) fn one<T>(
        &self,
        sql: &str,
        params: &[Value<'_>],
        read: impl FnOnce(&sql::Row<'_>) -> sql::Result<T>,
    ) -> sql::Result<Option<T>> {
        self.rows(sql, params)?.first().map(|row| read(&sql::Row::Postgres(row))).transpose()
    }

    fn exists(&self, sql: &str, params: &[Value<'_>]) -> sql::Result<bool> {
        Ok(!self.rows(sql, params)?.is_empty())
    }

    /// Carries out one statement for each of many, all on their way at once; how many rows each wrote.
    pub(super) fn each<const N: usize>(&self, sql: &str, rows: &[[Value<'_>; N]]) -> sql::Result<Vec<usize>> {
        let Some(first) = rows.first() else { return Ok(Vec::new()) };
        let statement = self.prepared(sql, first)?;
        let all =
            rows.iter().map(|row| self.session.client.execute_raw(&statement, row.iter().map(Parameter)));
        let changed = self.ask(future::try_join_all(all))?;
        Ok(changed.into_iter().map(|count| usize::try_from(count).unwrap_or(usize::MAX)).collect())
    }

    /// Whether the bridge of this run lives.
    pub(super) fn lives(&self, run: i64) -> sql::Result<bool> {
        let (class, number) = self.session.lock_numbers(Lock::Run, run);
        let [class, number] = [class, number].map(|number| i64::from(number.cast_unsigned()));
        self.exists(
            "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND granted
               AND CAST(classid AS BIGINT) = ?1 AND CAST(objid AS BIGINT) = ?2
               AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
            params![class, number],
        )
    }

    /// Takes a duty, unless another bridge has it; by which connection we have it.
    pub(super) fn lead(&self, name: &str) -> sql::Result<Option<u64>> {
        let lock = format!("SELECT pg_try_advisory_lock({})", self.session.duty(name));
        let leads = self.session.duties.borrow().contains(name)
            || self.one(&lock, params![], |row| row.get::<bool>(0))?.unwrap_or(false);
        if leads {
            self.session.duties.borrow_mut().insert(name.to_owned());
        }
        Ok(leads.then_some(self.session.number))
    }

    /// Whether we have a duty by this connection.
    pub(super) fn leads(&self, name: &str, connection: u64) -> bool {
        self.session.number == connection && self.session.duties.borrow().contains(name)
    }

    /// Lets a duty go.
    pub(super) fn follow(&self, name: &str) -> sql::Result<()> {
        if self.session.duties.borrow().contains(name) {
            self.one(&format!("SELECT pg_advisory_unlock({})", self.session.duty(name)), params![], |_| {
                Ok(())
            })?;
            self.session.duties.borrow_mut().remove(name);
        }
        Ok(())
    }
}

/// The number of the transaction, in what was answered to its beginning.
fn transaction_in(message: &SimpleQueryMessage) -> Option<i64> {
    match message {
        SimpleQueryMessage::Row(row) => row.try_get("begun").ok()??.parse().ok(),
        _ => None,
    }
}

/// A name as SQL has it.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn of_kind(kind: Kind) -> Type {
    match kind {
        Kind::Int => Type::INT8,
        Kind::Text => Type::TEXT,
        Kind::Bytes => Type::BYTEA,
    }
}

/// A value on its way to the server.
#[derive(Debug)]
struct Parameter<'a>(&'a Value<'a>);

impl ToSql for Parameter<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        match self.0 {
            Value::Null(_) => return Ok(IsNull::Yes),
            Value::Int(number) => out.put_i64(*number),
            // The server holds no NUL in a text; what may have one is there for people.
            Value::Text(text) if text.contains('\0') => {
                out.put_slice(text.replace('\0', "\u{fffd}").as_bytes());
            }
            Value::Text(text) => out.put_slice(text.as_bytes()),
            Value::Bytes(bytes) => out.put_slice(bytes),
        }
        Ok(IsNull::No)
    }

    fn accepts(of: &Type) -> bool {
        matches!(*of, Type::INT8 | Type::TEXT | Type::BYTEA)
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for Value<'a> {
    fn from_sql(of: &Type, raw: &'a [u8]) -> Result<Value<'a>, Box<dyn StdError + Sync + Send>> {
        Ok(match *of {
            Type::INT8 => Value::Int(i64::from_sql(of, raw)?),
            Type::INT4 => Value::Int(i64::from(i32::from_sql(of, raw)?)),
            Type::BOOL => Value::Int(i64::from(bool::from_sql(of, raw)?)),
            Type::BYTEA => Value::Bytes(raw),
            _ => Value::Text(std::str::from_utf8(raw)?),
        })
    }

    fn from_sql_null(of: &Type) -> Result<Value<'a>, Box<dyn StdError + Sync + Send>> {
        Ok(Value::Null(match *of {
            Type::BYTEA => Kind::Bytes,
            Type::INT8 | Type::INT4 | Type::BOOL => Kind::Int,
            _ => Kind::Text,
        }))
    }

    fn accepts(of: &Type) -> bool {
        matches!(
            *of,
            Type::INT8 | Type::INT4 | Type::BOOL | Type::BYTEA | Type::TEXT | Type::VARCHAR | Type::NAME
        )
    }
}
