//! Every database that has an ODBC driver on this machine.
//!
//! A driver blocks, so each piece of work has a thread and a connection of its own, and there are only so many of them. A driver
//! that hangs is not waited for; what it was about to commit is not committed then. Values go and come as texts.

use super::{
    Values, Written,
    rows::{BATCH_BYTES, BATCH_ROWS, Batch, Column, Kind, distinct, too_large},
    state::{self, Said},
};
use crate::{
    code::Code,
    config::{Instance, plan::Sql, statement::Statement},
    format,
    system::sign::secret,
    template::Template,
    tree::{Name, Record, Tree},
    verdict::Failure,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use odbc_api::{
    Connection, ConnectionOptions, Cursor, CursorRow, DataType, Error, IntoParameter as _, ResultSetMetadata,
    Utf16String, environment, escape_attribute_value, parameter::VarWCharBox,
};
use secrecy::ExposeSecret as _;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout,
};

/// How many drivers may be at work, or hang, at once.
const AT_ONCE: usize = 8;
/// How much longer than the driver we wait for it to give up.
const MORE: Duration = Duration::from_secs(5);

/// The work goes on.
const RUNNING: u8 = 0;
/// Nobody waits for it any more: nothing may be committed.
const LEFT: u8 = 1;
/// It is being committed: from here on nobody knows until the driver says so.
const COMMITTING: u8 = 2;

/// A database behind a driver.
pub struct Odbc {
    instance: Arc<Instance>,
    connection: String,
    password: Option<String>,
    write: bool,
    connect_timeout: Duration,
    timeout: Duration,
    row_limit: u64,
    threads: Arc<Semaphore>,
}

/// What a thread needs to work on its own.
struct Task {
    connection: secrecy::SecretString,
    connect_timeout: Duration,
    timeout: Duration,
    row_limit: u64,
    file: String,
    sql: String,
    values: Vec<VarWCharBox>,
    _place: OwnedSemaphorePermit,
}

impl Odbc {
    pub fn open(
        instance: Arc<Instance>,
        plan: &Sql,
        connection: &Template,
        password: Option<&str>,
    ) -> Result<Odbc, Failure> {
        let connection = instance.render(connection).map_err(|failed| {
            Failure::refused(Code::TemplateFailed, "", format!("{}: {}", instance.name, failed.0))
        })?;
        Ok(Odbc {
            connection,
            password: password.map(str::to_owned),
            write: plan.write,
            connect_timeout: plan.connect_timeout,
            timeout: plan.timeout,
            row_limit: plan.row_limit,
            threads: Arc::new(Semaphore::new(AT_ONCE)),
            instance,
        })
    }

    async fn task(&self, file: &str, sql: String, values: Vec<VarWCharBox>) -> Result<Task, Failure> {
        let mut connection = self.connection.trim_end_matches(';').to_owned();
        if let Some(name) = &self.password {
            let password = secret(&self.instance, name)?;
            connection.push_str(";PWD=");
            connection.push_str(&escape_attribute_value(password.expose_secret()));
        }
        let place = timeout(self.timeout, self.threads.clone().acquire_owned()).await;
        let Ok(Ok(place)) = place else {
            let what = "the driver hangs: as many threads wait for it as may";
            return Err(Failure::not_done(Code::SystemBusy, what));
        };
        Ok(Task {
            connection: connection.into(),
            connect_timeout: self.connect_timeout,
            timeout: self.timeout,
            row_limit: self.row_limit,
            file: file.to_owned(),
            sql,
            values,
            _place: place,
        })
    }

    /// Does something in a thread, within a time.
    async fn work<T: Send + 'static>(
        &self,
        task: Task,
        work: impl FnOnce(Task) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let late = Failure::not_done(Code::SystemBusy, format!("`{}`: no answer in time", task.file));
        let time = self.connect_timeout + self.timeout + MORE;
        match timeout(time, tokio::task::spawn_blocking(move || work(task))).await {
            Ok(Ok(done)) => done,
            Ok(Err(_)) | Err(_) => Err(late),
        }
    }

    pub async fn describe(&self, statement: &Statement) -> Result<Vec<Column>, Failure> {
        let (sql, names) = statement.marked();
        let task = self.task(&statement.file, sql, texts(&names, &Values::new())?).await?;
        self.work(task, |task| {
            let connection = task.connect()?;
            let mut prepared = connection.prepare(&task.sql).map_err(|error| task.failed(&error))?;
            let columns = columns(&mut prepared).map_err(|error| task.failed(&error))?;
            task.queried(columns)
        })
        .await
    }

    pub async fn prepare(&self, statement: &Statement) -> Result<(), Failure> {
        let (sql, _) = statement.marked();
        let task = self.task(&statement.file, sql, Vec::new()).await?;
        self.work(task, |task| {
            let connection = task.connect()?;
            connection.prepare(&task.sql).map(|_| ()).map_err(|error| task.failed(&error))
        })
        .await
    }

    pub async fn read(
        &self,
        statement: &Statement,
        values: &Values,
        to: mpsc::Sender<Batch>,
    ) -> Result<(), Failure> {
        let (sql, names) = statement.marked();
        let task = self.task(&statement.file, sql, texts(&names, values)?).await?;
        // The batches pass through a channel of our own: as long as they come, the driver does not hang.
        let (sender, mut batches) = mpsc::channel::<Batch>(1);
        let reading = tokio::task::spawn_blocking(move || task.read(&sender));
        let time = self.connect_timeout + self.timeout + MORE;
        let late = || Failure::not_done(Code::SystemBusy, format!("`{}`: no rows in time", statement.file));
        while let Some(batch) = timeout(time, batches.recv()).await.map_err(|_| late())? {
            if to.send(batch).await.is_err() {
                return Ok(());
            }
        }
        match timeout(time, reading).await {
            Ok(Ok(read)) => read,
            Ok(Err(_)) | Err(_) => Err(late()),
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
        let (sql, names) = statement.marked();
        let task = self.task(&statement.file, sql, texts(&names, values)?).await?;
        let stage = Arc::new(AtomicU8::new(RUNNING));
        let own = stage.clone();
        let writing = tokio::task::spawn_blocking(move || task.write(expect_rows, &own));
        let time = self.connect_timeout + self.timeout + MORE;
        match timeout(time, writing).await {
            Ok(Ok(written)) => written,
            Ok(Err(_)) | Err(_) => {
                // Whoever comes first: either it is not committed any more, or nobody knows.
                match stage.compare_exchange(RUNNING, LEFT, Ordering::SeqCst, Ordering::SeqCst) {
                    Ok(_) => Err(Failure::not_done(
                        Code::SystemBusy,
                        format!("`{}`: no answer in time", statement.file),
                    )),
                    Err(_) => Err(Failure::unknown(format!(
                        "`{}`: the commit was not answered in time",
                        statement.file
                    ))),
                }
            }
        }
    }

    pub async fn greet(&self) -> Result<Vec<String>, Failure> {
        let task = self.task("", String::new(), Vec::new()).await?;
        let write = self.write;
        self.work(task, move |task| {
            let connection = task.connect()?;
            let product = connection.database_management_system_name().map_err(|error| task.failed(&error))?;
            let catalogue = connection.current_catalog().unwrap_or_default();
            let mut lines = vec![format!("{product} by ODBC, database {catalogue}")];
            if !write {
                let what = "a hint: whether the user may write cannot be asked by ODBC; give it SELECT and nothing else";
                lines.push(what.to_owned());
            }
            Ok(lines)
        })
        .await
    }
}

impl Task {
    fn failed(&self, error: &Error) -> Failure {
        state::failure(&said(error), &self.file)
    }

    /// A connection on which nothing is kept unless it is committed.
    fn connect(&self) -> Result<Connection<'static>, Failure> {
        let environment = environment().map_err(|error| {
            Failure::away(Code::SystemUnreachable, format!("the machine's ODBC cannot be used: {error}"))
        })?;
        let seconds = u32::try_from(self.connect_timeout.as_secs().max(1)).unwrap_or(u32::MAX);
        let options = ConnectionOptions { login_timeout_sec: Some(seconds), ..ConnectionOptions::default() };
        let connection = environment
            .connect_with_connection_string(self.connection.expose_secret(), options)
            .map_err(|error| match said(&error) {
                // A driver that is not installed, a server that is not there.
                said if said.state.starts_with("IM") || matches!(said.state.as_str(), "HY000" | "01000") => {
                    Failure::away(
                        Code::SystemUnreachable,
                        format!("the database cannot be reached (SQLSTATE {}): {}", said.state, said.message),
                    )
                }
                said => state::failure(&said, ""),
            })?;
        connection.set_autocommit(false).map_err(|error| self.failed(&error))?;
        Ok(connection)
    }

    /// A query has columns, and each its own name.
    fn queried(&self, columns: Vec<Column>) -> Result<Vec<Column>, Failure> {
        if columns.is_empty() {
            let what = format!("`{}` gives no rows: a query is a SELECT", self.file);
            return Err(Failure::not_done(Code::StatementWrong, what));
        }
        distinct(&columns, &self.file).map(|()| columns)
    }

    fn read(&self, to: &mpsc::Sender<Batch>) -> Result<(), Failure> {
        let connection = self.connect()?;
        let read = self.rows(&connection, to);
        // Whatever the query did beside reading is undone.
        let _ = connection.rollback();
        read
    }

    fn rows(&self, connection: &Connection<'_>, to: &mpsc::Sender<Batch>) -> Result<(), Failure> {
        let failed = |error: Error| self.failed(&error);
        let mut statement = connection.preallocate().map_err(failed)?;
        // Not every driver knows it; the time is bounded here as well.
        let _ = statement.set_query_timeout_sec(seconds(self.timeout));
        let cursor = statement.execute(&self.sql, self.values.as_slice()).map_err(failed)?;
        let Some(mut cursor) = cursor else { return self.queried(Vec::new()).map(|_| ()) };
        let columns = self.queried(columns(&mut cursor).map_err(failed)?)?;
        let (mut rows, mut bytes, mut number, mut first) = (Vec::new(), 0, 0, true);
        while let Some(mut row) = cursor.next_row().map_err(failed)? {
            let (values, size) = values_of(&mut row, &columns).map_err(failed)?;
            number += 1;
            if size as u64 > self.row_limit {
                return Err(too_large(&self.file, number, size, self.row_limit));
            }
            bytes += size;
            rows.push(values);
            if rows.len() >= BATCH_ROWS || bytes >= BATCH_BYTES {
                (bytes, first) = (0, false);
                let rows = std::mem::take(&mut rows);
                if to.blocking_send(Batch { columns: columns.clone(), rows }).is_err() {
                    return Ok(());
                }
            }
        }
        if first || !rows.is_empty() {
            let _ = to.blocking_send(Batch { columns, rows });
        }
        Ok(())
    }

    fn write(&self, expect_rows: Option<u64>, stage: &AtomicU8) -> Result<Written, Failure> {
        let connection = self.connect()?;
        let written = match self.execute(&connection) {
            Ok(written) => written,
            Err(failure) => {
                let _ = connection.rollback();
                return Err(failure);
            }
        };
        if let Some(expected) = expect_rows.filter(|expected| *expected != written.count) {
            let _ = connection.rollback();
            let what = format!(
                "`{}` changed {} rows and must change {expected}: it was undone",
                self.file, written.count
            );
            return Err(Failure::refused(Code::RowCountDiffers, "", what));
        }
        if stage.compare_exchange(RUNNING, COMMITTING, Ordering::SeqCst, Ordering::SeqCst).is_err() {
            let _ = connection.rollback();
            return Err(Failure::not_done(Code::SystemBusy, "nobody waited for it any more"));
        }
        connection.commit().map(|()| written).map_err(|error| {
            let said = said(&error);
            match said.state.get(..2) {
                // What the database itself refuses at the end is certainly not done.
                Some("23" | "40") => state::failure(&said, &self.file),
                _ => {
                    Failure::unknown(format!("`{}`: the commit failed (SQLSTATE {})", self.file, said.state))
                }
            }
        })
    }

    fn execute(&self, connection: &Connection<'_>) -> Result<Written, Failure> {
        let failed = |error: Error| self.failed(&error);
        let mut statement = connection.preallocate().map_err(failed)?;
        let _ = statement.set_query_timeout_sec(seconds(self.timeout));
        let mut found = Vec::new();
        if let Some(mut cursor) = statement.execute(&self.sql, self.values.as_slice()).map_err(failed)? {
            let columns = columns(&mut cursor).map_err(failed)?;
            while let Some(mut row) = cursor.next_row().map_err(failed)? {
                let (values, _) = values_of(&mut row, &columns).map_err(failed)?;
                let names = columns.iter().map(|column| Name::plain(column.name.as_str()));
                found.push(Tree::Record(names.zip(values).collect::<Record>()));
            }
            return Ok(Written { count: found.len() as u64, rows: found });
        }
        let count = statement.row_count().map_err(failed)?.unwrap_or(0);
        Ok(Written { count: count as u64, rows: found })
    }
}

fn seconds(time: Duration) -> usize {
    usize::try_from(time.as_secs().max(1)).unwrap_or(usize::MAX)
}

fn columns(of: &mut impl ResultSetMetadata) -> Result<Vec<Column>, Error> {
    let count = u16::try_from(of.num_result_cols()?).unwrap_or(0);
    (1..=count)
        .map(|number| {
            let data_type = of.col_data_type(number)?;
            Ok(Column {
                name: of.col_name(number)?,
                kind: kind(data_type),
                type_name: format!("{data_type:?}").split([' ', '{']).next().unwrap_or_default().to_owned(),
            })
        })
        .collect()
}

/// What the values of a type become.
fn kind(of: DataType) -> Kind {
    match of {
        DataType::Numeric { .. }
        | DataType::Decimal { .. }
        | DataType::Integer
        | DataType::SmallInt
        | DataType::BigInt
        | DataType::TinyInt
        | DataType::Float { .. }
        | DataType::Real
        | DataType::Double => Kind::Number,
        DataType::Bit => Kind::Truth,
        DataType::Date => Kind::Date,
        DataType::Timestamp { .. } => Kind::Local,
        DataType::Varbinary { .. } | DataType::Binary { .. } | DataType::LongVarbinary { .. } => Kind::Bytes,
        DataType::Unknown
        | DataType::Char { .. }
        | DataType::WChar { .. }
        | DataType::Varchar { .. }
        | DataType::WVarchar { .. }
        | DataType::LongVarchar { .. }
        | DataType::WLongVarchar { .. }
        | DataType::Time { .. }
        | DataType::Other { .. } => Kind::Text,
    }
}

/// The values of a row, and how many bytes it has.
fn values_of(row: &mut CursorRow<'_>, columns: &[Column]) -> Result<(Vec<Tree>, usize), Error> {
    let (mut values, mut size) = (Vec::with_capacity(columns.len()), 0);
    let (mut wide, mut bytes) = (Vec::new(), Vec::new());
    for (number, column) in (1_u16..).zip(columns) {
        values.push(match column.kind {
            Kind::Bytes => match row.get_binary(number, &mut bytes)? {
                true => {
                    size += bytes.len();
                    Tree::text(STANDARD.encode(&bytes))
                }
                false => Tree::Null,
            },
            Kind::Number | Kind::Truth | Kind::Date | Kind::Local | Kind::Moment | Kind::Text => {
                match row.get_wide_text(number, &mut wide)? {
                    true => {
                        let text = String::from_utf16_lossy(&wide);
                        size += text.len();
                        column.kind.value(&text)
                    }
                    false => Tree::Null,
                }
            }
        });
    }
    Ok((values, size))
}

/// The values, one for each mark.
fn texts(names: &[&str], values: &Values) -> Result<Vec<VarWCharBox>, Failure> {
    let text = |name: &&str| {
        let value = values.iter().find(|(known, _)| known == name).map(|(_, value)| value);
        let text = match value {
            None | Some(Tree::Null) => None,
            Some(Tree::List(_) | Tree::Record(_)) => value.map(format::write_json),
            // What a database calls a truth differs; 1 and 0 are understood by all.
            Some(Tree::Bool(truth)) => Some(if *truth { "1" } else { "0" }.to_owned()),
            Some(Tree::Text(text)) if text.contains('\0') => {
                let what = "a text with a NUL character, which no database holds";
                return Err(Failure::refused(Code::StatementRefused, *name, what));
            }
            Some(value) => value.to_plain_text(),
        };
        Ok(text.map(|text| Utf16String::from_str(&text)).into_parameter())
    };
    names.iter().map(text).collect()
}

fn said(error: &Error) -> Said {
    let record = match error {
        Error::Diagnostics { record, .. } => record,
        other => {
            return Said { state: "HY000".to_owned(), message: other.to_string(), ..Said::default() };
        }
    };
    let message = String::from_utf8_lossy(&record.message).into_owned();
    let (constraint, column) = names_in(&message);
    Said {
        state: String::from_utf8_lossy(&record.state.0).into_owned(),
        native: record.native_error,
        constraint,
        column,
        message,
        ..Said::default()
    }
}

/// Constraint and column as the drivers that we know write them. Names, never values: of the rest nothing is taken.
fn names_in(message: &str) -> (Option<String>, Option<String>) {
    let quoted = |before: &str| {
        let rest = message.split_once(before)?.1;
        Some(rest.split_once('"')?.0.to_owned())
    };
    let after = |before: &str| {
        let rest = message.split_once(before)?.1;
        let name: String =
            rest.chars().take_while(|c| c.is_alphanumeric() || matches!(c, '_' | '.')).collect();
        Some(name).filter(|name| !name.is_empty())
    };
    // PostgreSQL; SQLite.
    let constraint = quoted("constraint \"").or_else(|| after("UNIQUE constraint failed: "));
    let column = quoted("null value in column \"").or_else(|| after("NOT NULL constraint failed: "));
    (constraint, column)
}
