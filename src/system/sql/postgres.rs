//! PostgreSQL in its own protocol.
//!
//! Values go as text and the server reads them as what the statement makes of them; rows come as text too, by `FETCH` from a
//! cursor on the server's side. So every type has its exact value, ours or not, and a table of any size passes through
//! the memory of one batch.

use super::{
    Values, Written,
    rows::{BATCH_BYTES, BATCH_ROWS, Batch, Column, Kind, distinct, too_large},
    state::{self, Said},
};
use crate::{
    code::Code,
    config::{
        Instance,
        plan::{self, Sql},
        statement::Statement,
    },
    format,
    system::sign::secret,
    template::Template,
    tls::postgres::Tls,
    tree::{Name, Record, Tree},
    verdict::Failure,
};
use bytes::BytesMut;
use futures_util::StreamExt as _;
use secrecy::ExposeSecret as _;
use std::{
    error::Error as StdError,
    pin::pin,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{sync::mpsc, time::timeout};
use tokio_postgres::{
    Client, Config, Error, NoTls, SimpleQueryMessage, SimpleQueryRow,
    config::SslMode,
    types::{Format as WireFormat, FromSql, IsNull, Kind as TypeKind, ToSql, Type, to_sql_checked},
};

/// How many connections wait for their next use at most.
const IDLE: usize = 4;
/// How much longer than the server we wait for it to give up.
const MORE: Duration = Duration::from_secs(5);

/// A PostgreSQL.
pub struct Postgres {
    instance: Arc<Instance>,
    config: Config,
    password: Option<String>,
    tls: Option<Arc<rustls::ClientConfig>>,
    write: bool,
    connect_timeout: Duration,
    timeout: Duration,
    lock_timeout: Duration,
    row_limit: u64,
    idle: Mutex<Vec<Client>>,
}

impl Postgres {
    pub fn open(instance: Arc<Instance>, plan: &Sql, database: &plan::Postgres) -> Result<Postgres, Failure> {
        let bad = |code, what: String| Failure::refused(code, "", format!("{}: {what}", instance.name));
        let text = |template: &Template| {
            instance.render(template).map_err(|failed| bad(Code::TemplateFailed, failed.0))
        };
        let address = text(&database.address)?;
        let (host, port) = host_and_port(&address).map_err(|what| bad(Code::BadAddress, what))?;
        let mut config = Config::new();
        config
            .host(&host)
            .port(port)
            .dbname(text(&database.name)?)
            .application_name(format!("packhorse {}", instance.name))
            .connect_timeout(plan.connect_timeout)
            .keepalives_idle(Duration::from_secs(60))
            .tcp_user_timeout(plan.timeout + MORE);
        if let Some(username) =
            database.username.as_ref().map(text).transpose()?.filter(|user| !user.is_empty())
        {
            config.user(username);
        }
        let local = host.starts_with('/')
            || host == "localhost"
            || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        let unencrypted = database.allow_unencrypted_login.as_ref().is_some_and(|name| {
            instance.settings.get(name).is_some_and(|text| matches!(text.as_str(), "yes" | "true"))
        });
        let tls = match &database.tls {
            None if local || unencrypted => None,
            keys => Some(Arc::new(client_tls(&instance, keys.as_ref())?)),
        };
        config.ssl_mode(if tls.is_some() { SslMode::Require } else { SslMode::Disable });
        Ok(Postgres {
            config,
            password: database.password.clone(),
            tls,
            write: plan.write,
            connect_timeout: plan.connect_timeout,
            timeout: plan.timeout,
            lock_timeout: plan.lock_timeout,
            row_limit: plan.row_limit,
            idle: Mutex::default(),
            instance,
        })
    }

    async fn connect(&self) -> Result<Client, Failure> {
        let mut config = self.config.clone();
        if let Some(name) = &self.password {
            config.password(secret(&self.instance, name)?.expose_secret());
        }
        let late = |_| Failure::away(Code::SystemUnreachable, "the database did not answer in time");
        match &self.tls {
            None => {
                let connected =
                    timeout(self.connect_timeout + MORE, config.connect(NoTls)).await.map_err(late)?;
                let (client, connection) = connected.map_err(|error| of_connecting(&error))?;
                tokio::spawn(connection);
                Ok(client)
            }
            Some(tls) => {
                let connecting = config.connect(Tls(tls.clone()));
                let connected = timeout(self.connect_timeout + MORE, connecting).await.map_err(late)?;
                let (client, connection) = connected.map_err(|error| of_connecting(&error))?;
                tokio::spawn(connection);
                Ok(client)
            }
        }
    }

    /// A connection within a transaction. One that was kept may have died meanwhile: then another is made.
    async fn begin(&self, begin: &str) -> Result<Client, Failure> {
        let seconds = |duration: Duration| duration.as_millis().clamp(1, i32::MAX as u128);
        let begin = format!(
            "{begin}; SET LOCAL statement_timeout = {}; SET LOCAL lock_timeout = {}; \
             SET LOCAL idle_in_transaction_session_timeout = {}; SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO'; \
             SET LOCAL IntervalStyle = 'iso_8601'; SET LOCAL bytea_output = 'hex'; SET LOCAL extra_float_digits = 1",
            seconds(self.timeout),
            seconds(self.lock_timeout),
            seconds(self.timeout * 10),
        );
        loop {
            let kept = self.idle.lock().ok().and_then(|mut idle| idle.pop());
            let (client, fresh) = match kept {
                Some(client) if client.is_closed() => continue,
                Some(client) => (client, false),
                None => (self.connect().await?, true),
            };
            match timeout(self.connect_timeout + MORE, client.batch_execute(&begin)).await {
                Ok(Ok(())) => return Ok(client),
                Ok(Err(error)) if fresh => return Err(of_error(&error, "", &[])),
                Err(_) if fresh => {
                    return Err(Failure::away(Code::SystemUnreachable, "the database does not answer"));
                }
                Ok(Err(_)) | Err(_) => {}
            }
        }
    }

    fn keep(&self, client: Client) {
        if let Ok(mut idle) = self.idle.lock()
            && idle.len() < IDLE
            && !client.is_closed()
        {
            idle.push(client);
        }
    }

    /// Ends a transaction in which nothing is to be kept, and keeps the connection if that went well.
    async fn end(&self, client: Client) {
        if let Ok(Ok(())) = timeout(MORE, client.batch_execute("ROLLBACK")).await {
            self.keep(client);
        }
    }

    /// What the server did in time, or why not.
    async fn within<T>(
        &self,
        work: impl Future<Output = Result<T, Error>>,
        file: &str,
        names: &[&str],
    ) -> Result<T, Failure> {
        match timeout(self.timeout + MORE, work).await {
            Ok(done) => done.map_err(|error| of_error(&error, file, names)),
            Err(_) => Err(Failure::not_done(Code::SystemBusy, format!("`{file}`: no answer in time"))),
        }
    }

    const READ: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

    /// The columns; everything that the query needs is looked at, its rights as well, and nothing is read.
    pub async fn describe(&self, statement: &Statement) -> Result<Vec<Column>, Failure> {
        let client = self.begin(Self::READ).await?;
        let nothing = Values::new();
        let described = self.declare(&client, statement, &nothing).await;
        self.end(client).await;
        described
    }

    pub async fn prepare(&self, statement: &Statement) -> Result<(), Failure> {
        let client = self.begin("BEGIN READ ONLY").await?;
        let (sql, names) = statement.numbered();
        let prepared = self.within(client.prepare(&sql), &statement.file, &names).await;
        self.end(client).await;
        prepared.map(|_| ())
    }

    /// Opens the server's cursor.
    async fn declare(
        &self,
        client: &Client,
        statement: &Statement,
        values: &Values,
    ) -> Result<Vec<Column>, Failure> {
        let (sql, names) = statement.numbered();
        let prepared = self.within(client.prepare(&sql), &statement.file, &names).await?;
        let columns: Vec<Column> = prepared
            .columns()
            .iter()
            .map(|column| Column {
                name: column.name().to_owned(),
                kind: kind(column.type_()),
                type_name: column.type_().name().to_owned(),
            })
            .collect();
        if columns.is_empty() {
            let what = format!("`{}` gives no rows: a query is a SELECT", statement.file);
            return Err(Failure::not_done(Code::StatementWrong, what));
        }
        distinct(&columns, &statement.file)?;
        let texts = texts(&names, values)?;
        // In the words of the statement itself a parameter may stand where nothing says its type; then it is text.
        let cursor = format!("DECLARE packhorse NO SCROLL CURSOR FOR {sql}");
        let types = prepared.params().to_vec();
        let opening = async {
            let cursor = client.prepare_typed(&cursor, &types).await?;
            client.execute_raw(&cursor, texts.iter().map(|text| text as &(dyn ToSql + Sync))).await
        };
        self.within(opening, &statement.file, &names).await?;
        Ok(columns)
    }

    pub async fn read(
        &self,
        statement: &Statement,
        values: &Values,
        to: mpsc::Sender<Batch>,
    ) -> Result<(), Failure> {
        let client = self.begin(Self::READ).await?;
        let read = self.rows(&client, statement, values, to).await;
        match &read {
            Ok(()) => self.end(client).await,
            // It may be in the middle of something.
            Err(_) => drop(client),
        }
        read
    }

    async fn rows(
        &self,
        client: &Client,
        statement: &Statement,
        values: &Values,
        to: mpsc::Sender<Batch>,
    ) -> Result<(), Failure> {
        let columns = self.declare(client, statement, values).await?;
        let mut number = 0;
        let mut first = true;
        loop {
            let fetch = format!("FETCH {BATCH_ROWS} FROM packhorse");
            let fetched = self.within(client.simple_query_raw(&fetch), &statement.file, &[]).await?;
            let mut fetched = pin!(fetched);
            let (mut rows, mut bytes, mut count) = (Vec::new(), 0, 0);
            loop {
                let next = async { fetched.next().await.transpose() };
                match self.within(next, &statement.file, &[]).await? {
                    None => break,
                    Some(SimpleQueryMessage::Row(row)) => {
                        (number, count) = (number + 1, count + 1);
                        let size = bytes_of(&row);
                        if size as u64 > self.row_limit {
                            return Err(too_large(&statement.file, number, size, self.row_limit));
                        }
                        bytes += size;
                        rows.push(values_of(&row, &columns));
                        if bytes >= BATCH_BYTES {
                            bytes = 0;
                            first = false;
                            let rows = std::mem::take(&mut rows);
                            if to.send(Batch { columns: columns.clone(), rows }).await.is_err() {
                                return Ok(());
                            }
                        }
                    }
                    Some(_) => {}
                }
            }
            if (first || !rows.is_empty()) && to.send(Batch { columns: columns.clone(), rows }).await.is_err()
            {
                return Ok(());
            }
            first = false;
            if count < BATCH_ROWS {
                return Ok(());
            }
        }
    }

    pub async fn write(
        &self,
        statement: &Statement,
        values: &Values,
        expect_rows: Option<u64>,
    ) -> Result<Written, Failure> {
        if !self.write {
            return Err(Failure::refused(Code::ReadOnly, "", "the adapter only reads from this database"));
        }
        let client = self.begin("BEGIN READ WRITE").await?;
        let written = match self.execute(&client, statement, values).await {
            Ok(written) => written,
            Err(failure) => {
                // The server undoes it, whatever becomes of this.
                self.end(client).await;
                return Err(failure);
            }
        };
        if let Some(expected) = expect_rows.filter(|expected| *expected != written.count) {
            self.end(client).await;
            let what = format!(
                "`{}` changed {} rows and must change {expected}: it was undone",
                statement.file, written.count
            );
            return Err(Failure::refused(Code::RowCountDiffers, "", what));
        }
        match timeout(self.timeout + MORE, client.batch_execute("COMMIT")).await {
            Ok(Ok(())) => {
                self.keep(client);
                Ok(written)
            }
            Ok(Err(error)) => Err(of_commit(&error, &statement.file)),
            Err(_) => {
                Err(Failure::unknown(format!("`{}`: the commit was not answered in time", statement.file)))
            }
        }
    }

    async fn execute(
        &self,
        client: &Client,
        statement: &Statement,
        values: &Values,
    ) -> Result<Written, Failure> {
        let (sql, names) = statement.numbered();
        let prepared = self.within(client.prepare(&sql), &statement.file, &names).await?;
        let texts = texts(&names, values)?;
        let parameters = texts.iter().map(|text| text as &(dyn ToSql + Sync));
        // Before anything is done: what it gives back must be readable.
        for column in prepared.columns() {
            if answer(column.type_()).is_none() {
                let what = format!(
                    "`{}` gives back the column `{}` of the type {}: cast it to text",
                    statement.file,
                    column.name(),
                    column.type_().name()
                );
                return Err(Failure::not_done(Code::StatementWrong, what));
            }
        }
        if prepared.columns().is_empty() {
            let executed = client.execute_raw(&prepared, parameters);
            let count = self.within(executed, &statement.file, &names).await?;
            return Ok(Written { count, rows: Vec::new() });
        }
        let rows = async {
            let mut rows = pin!(client.query_raw(&prepared, parameters).await?);
            let mut found = Vec::new();
            while let Some(row) = rows.next().await {
                let row = row?;
                let mut record = Record::with_capacity(row.len());
                for (index, column) in row.columns().iter().enumerate() {
                    let value: Option<Answer> = row.try_get(index)?;
                    record.push(Name::plain(column.name()), value.map_or(Tree::Null, |answer| answer.0));
                }
                found.push(Tree::Record(record));
            }
            let count = rows.rows_affected().unwrap_or(found.len() as u64);
            Ok(Written { count, rows: found })
        };
        self.within(rows, &statement.file, &names).await
    }

    /// The database, its version, our user; and a warning if it may do more than it needs.
    pub async fn greet(&self) -> Result<Vec<String>, Failure> {
        let client = self.begin(Self::READ).await?;
        let ask = "SELECT current_setting('server_version'), current_user, current_database(), \
                   (SELECT rolsuper FROM pg_roles WHERE rolname = current_user), \
                   (SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                    WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^(pg_|information_schema$)' \
                    AND has_table_privilege(c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE'))";
        let answer = self.within(client.simple_query(ask), "the question who we are", &[]).await;
        self.end(client).await;
        let answer = answer?;
        let row = answer.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let text = |index| row.and_then(|row| row.get(index)).unwrap_or_default().to_owned();
        let encrypted = if self.tls.is_some() { ", over TLS" } else { "" };
        let mut lines =
            vec![format!("PostgreSQL {}, database {}, user {}{encrypted}", text(0), text(2), text(1))];
        if !self.write {
            let superuser = text(3) == "t";
            match text(4).as_str() {
                _ if superuser => lines.push(format!(
                    "a warning: the user {} is a superuser, and the adapter only reads; give it SELECT and nothing else",
                    text(1)
                )),
                "0" => {}
                tables => lines.push(format!(
                    "a warning: the user {} may write to {tables} tables, and the adapter only reads; give it SELECT and nothing else",
                    text(1)
                )),
            }
        }
        Ok(lines)
    }
}

/// `host`, `host:port`, `[v6]:port` or a socket's folder.
fn host_and_port(address: &str) -> Result<(String, u16), String> {
    let port =
        |text: &str| text.parse().map_err(|_| format!("`{text}` is no port: a number from 1 to 65535"));
    let (host, number) = match address.strip_prefix('[').map(|rest| rest.split_once(']')) {
        Some(Some((host, rest))) => (host, rest.strip_prefix(':')),
        Some(None) => return Err("the bracket of the IPv6 address is not closed".to_owned()),
        None => match address.rsplit_once(':') {
            Some((host, number)) if !host.contains(':') => (host, Some(number)),
            _ => (address, None),
        },
    };
    match host.trim().is_empty() {
        true => Err("the address has no host".to_owned()),
        false => Ok((host.trim().to_owned(), number.map_or(Ok(5432), port)?)),
    }
}

fn client_tls(instance: &Instance, keys: Option<&plan::Tls>) -> Result<rustls::ClientConfig, Failure> {
    let bad = |code, what: String| Failure::refused(code, "", format!("{}: {what}", instance.name));
    let text = |template: Option<&Template>| -> Result<Option<String>, Failure> {
        let text = template.map(|template| instance.render(template)).transpose();
        Ok(text.map_err(|failed| bad(Code::TemplateFailed, failed.0))?.filter(|text| !text.is_empty()))
    };
    let ca = text(keys.and_then(|keys| keys.ca.as_ref()))?;
    let certificate = text(keys.and_then(|keys| keys.certificate.as_ref()))?;
    let key = text(keys.and_then(|keys| keys.key.as_ref()))?;
    let identity = match (certificate, key) {
        (None, _) => None,
        (Some(_), None) => return Err(bad(Code::TlsFailed, "a certificate needs its `key`".to_owned())),
        (Some(certificate), Some(key)) => {
            let reference = instance
                .reference(&key)
                .ok_or_else(|| bad(Code::SecretInClear, "the certificate's key is a reference".to_owned()))?;
            Some((instance.path(&certificate), reference.resolve().map_err(|no| bad(no.code, no.what))?))
        }
    };
    let ca = ca.map(|ca| instance.path(&ca));
    crate::tls::client(ca.as_deref(), identity).map_err(|what| bad(Code::TlsFailed, what))
}

/// What the values of a type become.
fn kind(of: &Type) -> Kind {
    match *of {
        Type::INT2 | Type::INT4 | Type::INT8 | Type::OID | Type::FLOAT4 | Type::FLOAT8 | Type::NUMERIC => {
            Kind::Number
        }
        Type::BOOL => Kind::Truth,
        Type::DATE => Kind::Date,
        Type::TIMESTAMP => Kind::Local,
        Type::TIMESTAMPTZ => Kind::Moment,
        Type::BYTEA => Kind::Bytes,
        _ => match of.kind() {
            TypeKind::Domain(inner) => kind(inner),
            _ => Kind::Text,
        },
    }
}

fn bytes_of(row: &SimpleQueryRow) -> usize {
    (0..row.len()).filter_map(|index| row.get(index)).map(str::len).sum()
}

fn values_of(row: &SimpleQueryRow, columns: &[Column]) -> Vec<Tree> {
    let value =
        |(index, column): (usize, &Column)| row.get(index).map_or(Tree::Null, |text| column.kind.value(text));
    columns.iter().enumerate().map(value).collect()
}

/// A parameter, as text whatever the server makes of it.
#[derive(Debug)]
struct Text(Option<String>);

impl ToSql for Text {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        match &self.0 {
            None => Ok(IsNull::Yes),
            Some(text) => {
                out.extend_from_slice(text.as_bytes());
                Ok(IsNull::No)
            }
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> WireFormat {
        WireFormat::Text
    }

    to_sql_checked!();
}

/// The values in the order of the names.
fn texts(names: &[&str], values: &Values) -> Result<Vec<Text>, Failure> {
    let text = |name: &&str| {
        let value = values.iter().find(|(known, _)| known == name).map(|(_, value)| value);
        let text = match value {
            None | Some(Tree::Null) => None,
            Some(Tree::List(_) | Tree::Record(_)) => value.map(format::write_json),
            Some(Tree::Text(text)) if text.contains('\0') => {
                let what = "a text with a NUL character, which no database holds";
                return Err(Failure::refused(Code::StatementRefused, *name, what));
            }
            Some(value) => value.to_plain_text(),
        };
        Ok(Text(text))
    };
    names.iter().map(text).collect()
}

/// A value that a writing statement gave back: only texts, whole numbers and truths, which need no reading.
struct Answer(Tree);

/// Reads the bytes of a value.
type Reader = fn(&[u8]) -> Option<Tree>;

fn answer(of: &Type) -> Option<Reader> {
    let whole = |raw: &[u8]| {
        let negative = raw.first().is_some_and(|byte| byte & 0x80 != 0);
        let start = if negative { -1_i64 } else { 0 };
        Some(Tree::integer(raw.iter().fold(start, |number, byte| number << 8 | i64::from(*byte))))
    };
    match *of {
        Type::INT2 | Type::INT4 | Type::INT8 => Some(whole),
        Type::BOOL => Some(|raw| Some(Tree::Bool(raw.first() == Some(&1)))),
        Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::UNKNOWN | Type::JSON => {
            Some(|raw| std::str::from_utf8(raw).ok().map(Tree::text))
        }
        Type::VOID => Some(|_| Some(Tree::Null)),
        _ => match of.kind() {
            TypeKind::Domain(inner) => answer(inner),
            TypeKind::Enum(_) => Some(|raw| std::str::from_utf8(raw).ok().map(Tree::text)),
            _ => None,
        },
    }
}

impl FromSql<'_> for Answer {
    fn from_sql(of: &Type, raw: &[u8]) -> Result<Answer, Box<dyn StdError + Sync + Send>> {
        answer(of).and_then(|read| read(raw)).map(Answer).ok_or_else(|| "a value that cannot be read".into())
    }

    fn accepts(of: &Type) -> bool {
        answer(of).is_some()
    }
}

fn said(error: &Error, names: &[&str]) -> Option<Said> {
    let database = error.as_db_error()?;
    // "unnamed portal parameter $2": which of our parameters could not be read.
    let parameter = database.where_().and_then(|place| {
        let digits: String =
            place.split_once("parameter $")?.1.chars().take_while(char::is_ascii_digit).collect();
        names.get(digits.parse::<usize>().ok()?.checked_sub(1)?)
    });
    Some(Said {
        state: database.code().code().to_owned(),
        native: 0,
        message: database.message().to_owned(),
        constraint: database.constraint().map(str::to_owned),
        table: database.table().map(str::to_owned),
        column: database.column().map(str::to_owned).or(parameter.map(|name| format!(":{name}"))),
    })
}

/// A failure before the commit: nothing was done.
fn of_error(error: &Error, file: &str, names: &[&str]) -> Failure {
    match said(error, names) {
        Some(said) => state::failure(&said, file),
        None => {
            let what = format!("the connection to the database is lost: {}", innermost(error));
            Failure::away(Code::SystemUnreachable, what)
        }
    }
}

fn of_connecting(error: &Error) -> Failure {
    match said(error, &[]) {
        Some(said) => state::failure(&said, ""),
        None if error.to_string().contains("TLS") => Failure::away(Code::TlsFailed, innermost(error)),
        None => {
            let what = format!("the database cannot be reached: {}", innermost(error));
            Failure::away(Code::SystemUnreachable, what)
        }
    }
}

/// A commit that failed: only what the database itself refuses is certainly not done.
fn of_commit(error: &Error, file: &str) -> Failure {
    match said(error, &[]) {
        Some(said) if matches!(said.state.get(..2), Some("23" | "40")) => state::failure(&said, file),
        Some(said) => Failure::unknown(format!("`{file}`: the commit failed (SQLSTATE {})", said.state)),
        None => Failure::unknown(format!(
            "`{file}`: the connection was lost during the commit: {}",
            innermost(error)
        )),
    }
}

fn innermost(error: &Error) -> String {
    let mut cause: &dyn StdError = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
