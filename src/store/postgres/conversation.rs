//! One connection to the server, and what pieces of work say over it.

use super::{
    Lock, Setup,
    values::{Parameter, of_kind},
};
use crate::{
    code::Code,
    store::{
        schema,
        sql::{self, Error, Tx, Value, params},
    },
};
use futures_util::{StreamExt as _, future};
use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, HashSet},
    future::Future,
    pin::pin,
    time::Duration,
};
use tokio::{runtime::Runtime, task::JoinHandle, time::timeout};
use tokio_postgres::{Client, Row, SimpleQueryMessage, Statement, types::Type};

/// How long a statement may take, waiting for other bridges included.
const STATEMENT: Duration = Duration::from_secs(60);
/// How much longer we wait for the server to say so.
const MORE: Duration = Duration::from_secs(5);
/// After how long the server gives up a bridge that stands still, and the others go on.
const FROZEN: Duration = Duration::from_secs(10);
/// The first version of PostgreSQL that gives up one that stands still between transactions.
const GIVES_UP_IDLE: u32 = 140_000;

/// A connection.
pub struct Session {
    pub client: Client,
    pub connection: JoinHandle<()>,
    pub statements: RefCell<HashMap<String, Statement>>,
    /// Which of our connections it is, one after the other.
    pub number: u64,
    pub duties: RefCell<HashSet<String>>,
    pub schema: String,
    /// What goes to the server ahead of the next statement.
    pub ahead: RefCell<String>,
    /// The number of this transaction at the server, when it has been begun there.
    pub transaction: Cell<Option<i64>>,
    /// Whether a statement of this piece of work has failed, which undoes all of it.
    pub failed: RefCell<Option<String>>,
    /// Why the connection is of no use any more.
    pub lost: RefCell<Option<String>>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// How a transaction ended that did not end well.
pub enum Ended {
    /// It was undone.
    Undone(Error),
    /// The server may have committed it.
    Unknown(i64, Error),
}

/// What pieces of work see of it.
pub struct Conversation<'a> {
    pub runtime: &'a Runtime,
    pub session: &'a Session,
}

impl Session {
    /// A connection that was just made.
    pub fn new(client: Client, connection: JoinHandle<()>, number: u64, schema: &str) -> Session {
        Session {
            client,
            connection,
            statements: RefCell::default(),
            number,
            duties: RefCell::default(),
            schema: schema.to_owned(),
            ahead: RefCell::default(),
            transaction: Cell::new(None),
            failed: RefCell::default(),
            lost: RefCell::default(),
        }
    }

    /// The two numbers of a lock. They are the database's, so the schema is a part of them.
    pub fn lock(&self, lock: Lock, number: i64) -> String {
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

/// What is said while there is no connection.
pub fn gone() -> Error {
    Error::Lost("the connection to the store is lost".to_owned())
}

impl Conversation<'_> {
    /// Lets the server hear of us, and looks whether it answers.
    pub fn beat(&self) -> sql::Result<()> {
        self.ask_within(FROZEN, self.session.client.batch_execute("SELECT 1"))
    }

    fn ask<T>(&self, statement: impl Future<Output = Result<T, tokio_postgres::Error>>) -> sql::Result<T> {
        self.ask_within(STATEMENT + MORE, statement)
    }

    /// Sends what is to go ahead, and the statement with it; waits for both, so long at most.
    fn ask_within<T>(
        &self,
        limit: Duration,
        statement: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> sql::Result<T> {
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
        let answered = self.runtime.block_on(async { timeout(limit, both).await });
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

    /// Says something to which there is no answer.
    pub fn say(&self, sql: &str) -> sql::Result<()> {
        self.ask(self.session.client.batch_execute(sql))
    }

    /// Settles how we speak, and looks whether the server is one that keeps what it says.
    pub fn set_up(&self, setup: Setup) -> sql::Result<()> {
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

    /// Has the server give this session up, and with it the locks by which others know us, when nothing is heard of us: that we
    /// stand still the network does not show. What holds a run says something more often ([`super::BEAT`]).
    pub fn be_given_up_when_idle(&self) -> sql::Result<()> {
        let version =
            self.one("SELECT current_setting('server_version_num')", params![], |row| row.get::<String>(0))?;
        let knows = version
            .and_then(|version| version.parse::<u32>().ok())
            .is_some_and(|version| version >= GIVES_UP_IDLE);
        match knows {
            true => self.say(&format!("SET idle_session_timeout = {}", FROZEN.as_millis())),
            false => {
                if self.session.number == 1 {
                    tracing::warn!(
                        code = %Code::StoreUnavailable,
                        "the server of the store is older than PostgreSQL 14 and does not end a session of which it hears nothing: a bridge that stands still \
                         keeps what it leads until its process is ended; let a newer server have the store, or end such a process"
                    );
                }
                Ok(())
            }
        }
    }

    /// Does a piece of work whole or not at all.
    pub fn whole<T>(&self, tx: &Tx<'_>, work: impl FnOnce(&Tx<'_>) -> sql::Result<T>) -> sql::Result<T> {
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
    pub fn end(&self) -> Result<(), Ended> {
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

    /// Carries out statements that make or change tables.
    pub fn script(&self, sql: &str) -> sql::Result<()> {
        self.say(&schema::for_postgres(sql))
    }

    /// Carries out a statement; how many rows it wrote or removed.
    pub fn run(&self, sql: &str, params: &[Value<'_>]) -> sql::Result<usize> {
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

    /// All rows of an answer.
    pub fn all<T>(
        &self,
        sql: &str,
        params: &[Value<'_>],
        mut read: impl FnMut(&sql::Row<'_>) -> sql::Result<T>,
    ) -> sql::Result<Vec<T>> {
        self.rows(sql, params)?.iter().map(|row| read(&sql::Row::Postgres(row))).collect()
    }

    /// The first row of an answer, if there is one.
    pub fn one<T>(
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

    /// Reads an answer of any length, a part at a time.
    pub fn walk(&self, sql: &str, mut read: impl FnMut(&sql::Row<'_>) -> sql::Result<()>) -> sql::Result<()> {
        self.say(&format!("DECLARE walked NO SCROLL CURSOR FOR {sql}"))?;
        loop {
            let fetch = self.session.client.prepare("FETCH 1000 FROM walked");
            let fetch = self.ask(fetch)?;
            let rows = self.ask(self.session.client.query(&fetch, &[]))?;
            rows.iter().try_for_each(|row| read(&sql::Row::Postgres(row)))?;
            if rows.is_empty() {
                return self.say("CLOSE walked");
            }
        }
    }

    /// Carries out one statement for each of many, all on their way at once; how many rows each wrote.
    pub fn each<'v>(&self, sql: &str, rows: &[impl AsRef<[Value<'v>]>]) -> sql::Result<Vec<usize>> {
        let Some(first) = rows.first() else { return Ok(Vec::new()) };
        let statement = self.prepared(sql, first.as_ref())?;
        let all = rows
            .iter()
            .map(|row| self.session.client.execute_raw(&statement, row.as_ref().iter().map(Parameter)));
        let changed = self.ask(future::try_join_all(all))?;
        Ok(changed.into_iter().map(|count| usize::try_from(count).unwrap_or(usize::MAX)).collect())
    }

    /// Whether the bridge of this run lives.
    pub fn lives(&self, run: i64) -> sql::Result<bool> {
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
    pub fn lead(&self, name: &str) -> sql::Result<Option<u64>> {
        let lock = format!("SELECT pg_try_advisory_lock({})", self.session.duty(name));
        let leads = self.session.duties.borrow().contains(name)
            || self.one(&lock, params![], |row| row.get::<bool>(0))?.unwrap_or(false);
        if leads {
            self.session.duties.borrow_mut().insert(name.to_owned());
        }
        Ok(leads.then_some(self.session.number))
    }

    /// Whether we have a duty by this connection.
    pub fn leads(&self, name: &str, connection: u64) -> bool {
        self.session.number == connection && self.session.duties.borrow().contains(name)
    }

    /// Lets a duty go.
    pub fn follow(&self, name: &str) -> sql::Result<()> {
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
