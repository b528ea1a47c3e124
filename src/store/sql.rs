//! SQL as the store speaks it: written once, in words that SQLite and PostgreSQL understand alike.
//!
//! What both understand and the store keeps to: numbered parameters (`?1`; PostgreSQL hears `$1`), whole numbers, text and
//! bytes as the only types (a truth is 0 or 1, so it is compared: `doubt = 1`), `ON CONFLICT`, `RETURNING`, sub-selects with a
//! name, `CAST(sum(x) AS BIGINT)` where whole numbers are added up, every selected column grouped by, and
//! `excluded.x` beside `table.x` in an update of a conflict. The tests run every operation on both.

use std::fmt;

/// What a database answers.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a statement was not done.
#[derive(Debug)]
pub enum Error {
    /// What SQLite says.
    Sqlite(rusqlite::Error),
    /// What PostgreSQL says.
    #[cfg(feature = "postgres")]
    Postgres(tokio_postgres::Error),
    /// The database cannot be had, or not as it must be.
    Lost(String),
    /// A column holds what this program does not read, or a row is missing that is always there.
    Unreadable(String),
}

/// By what a duty is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Led {
    /// There is no other bridge.
    Alone,
    /// A connection, by its number.
    Connection(u64),
}

impl Error {
    /// Whether there is no room left.
    pub fn is_full(&self) -> bool {
        match self {
            Error::Sqlite(error) => error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull),
            #[cfg(feature = "postgres")]
            Error::Postgres(error) => error.code() == Some(&tokio_postgres::error::SqlState::DISK_FULL),
            Error::Lost(_) | Error::Unreadable(_) => false,
        }
    }

    /// Whether what lies there is damaged.
    pub fn is_damage(&self) -> bool {
        match self {
            Error::Sqlite(error) => matches!(
                error.sqlite_error_code(),
                Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase)
            ),
            #[cfg(feature = "postgres")]
            Error::Postgres(error) => {
                use tokio_postgres::error::SqlState;
                matches!(error.code(), Some(&SqlState::DATA_CORRUPTED | &SqlState::INDEX_CORRUPTED))
            }
            Error::Lost(_) | Error::Unreadable(_) => false,
        }
    }

    /// Whether nothing more is to be had of this connection.
    #[cfg(feature = "postgres")]
    pub fn is_lost(&self) -> bool {
        match self {
            Error::Postgres(error) => match error.code().map(tokio_postgres::error::SqlState::code) {
                // Its own word on a statement; a server that has become one that is only read is left for its successor, and one
                // that shuts down or has given the session up, too.
                Some(state) => {
                    matches!(state, "25006" | "25P03" | "57P01" | "57P02" | "57P03" | "57P05")
                        || state.starts_with("08")
                }
                // Only a value that could not be read or written leaves the connection whole.
                None => error.is_closed() || !has_source::<tokio_postgres::types::WrongType>(error),
            },
            Error::Lost(_) => true,
            Error::Sqlite(_) | Error::Unreadable(_) => false,
        }
    }
}

#[cfg(feature = "postgres")]
fn has_source<E: std::error::Error + 'static>(error: &tokio_postgres::Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.is::<E>())
}

/// The innermost cause says most.
#[cfg(feature = "postgres")]
fn write_postgres(error: &tokio_postgres::Error, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if let Some(said) = error.as_db_error() {
        write!(f, "{} (SQLSTATE {})", said.message(), said.code().code())?;
        return match said.code().code() {
            "25006" => f.write_str(": the server may only be read; after a failover the bridge waits for the one that takes over"),
            "55P03" | "57014" => f.write_str(": the server was too slow, or another bridge writes for very long"),
            _ => Ok(()),
        };
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    write!(f, "{cause}")
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Sqlite(error) => write!(f, "{error}"),
            #[cfg(feature = "postgres")]
            Error::Postgres(error) => write_postgres(error, f),
            Error::Lost(what) | Error::Unreadable(what) => f.write_str(what),
        }
    }
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Error {
        Error::Sqlite(error)
    }
}

#[cfg(feature = "postgres")]
impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Error {
        Error::Postgres(error)
    }
}

/// The types of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A whole number, or a truth.
    Int,
    /// Text.
    Text,
    /// Bytes.
    Bytes,
}

/// One value, on its way in or out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// Nothing, of this type.
    Null(Kind),
    /// A whole number, or a truth.
    Int(i64),
    /// Text.
    Text(&'a str),
    /// Bytes.
    Bytes(&'a [u8]),
}

#[cfg(feature = "postgres")]
impl Value<'_> {
    /// Its type.
    pub fn kind(&self) -> Kind {
        match self {
            Value::Null(kind) => *kind,
            Value::Int(_) => Kind::Int,
            Value::Text(_) => Kind::Text,
            Value::Bytes(_) => Kind::Bytes,
        }
    }
}

/// What may be a parameter.
pub trait Param {
    /// Its type, also when it is nothing.
    const KIND: Kind;
    /// Its value.
    fn value(&self) -> Value<'_>;
}

/// What a column may be read as.
pub trait Column: Sized {
    /// Nothing if the value is of another type.
    fn of(value: Value<'_>) -> Option<Self>;
}

macro_rules! whole_numbers {
    ($($number:ty),*) => {$(
        impl Param for $number {
            const KIND: Kind = Kind::Int;
            fn value(&self) -> Value<'_> {
                Value::Int(i64::from(*self))
            }
        }
        impl Column for $number {
            fn of(value: Value<'_>) -> Option<Self> {
                match value {
                    Value::Int(number) => number.try_into().ok(),
                    Value::Null(_) | Value::Text(_) | Value::Bytes(_) => None,
                }
            }
        }
    )*};
}

whole_numbers!(i64, u32);

impl Param for bool {
    const KIND: Kind = Kind::Int;
    fn value(&self) -> Value<'_> {
        Value::Int(i64::from(*self))
    }
}

impl Column for bool {
    fn of(value: Value<'_>) -> Option<Self> {
        i64::of(value).map(|number| number != 0)
    }
}

impl Param for str {
    const KIND: Kind = Kind::Text;
    fn value(&self) -> Value<'_> {
        Value::Text(self)
    }
}

impl Param for String {
    const KIND: Kind = Kind::Text;
    fn value(&self) -> Value<'_> {
        Value::Text(self)
    }
}

impl Column for String {
    fn of(value: Value<'_>) -> Option<Self> {
        match value {
            Value::Text(text) => Some(text.to_owned()),
            Value::Null(_) | Value::Int(_) | Value::Bytes(_) => None,
        }
    }
}

impl Param for [u8] {
    const KIND: Kind = Kind::Bytes;
    fn value(&self) -> Value<'_> {
        Value::Bytes(self)
    }
}

impl Param for Vec<u8> {
    const KIND: Kind = Kind::Bytes;
    fn value(&self) -> Value<'_> {
        Value::Bytes(self)
    }
}

impl Column for Vec<u8> {
    fn of(value: Value<'_>) -> Option<Self> {
        match value {
            Value::Bytes(bytes) => Some(bytes.to_owned()),
            Value::Null(_) | Value::Int(_) | Value::Text(_) => None,
        }
    }
}

impl<const N: usize> Param for [u8; N] {
    const KIND: Kind = Kind::Bytes;
    fn value(&self) -> Value<'_> {
        Value::Bytes(self)
    }
}

impl<const N: usize> Column for [u8; N] {
    fn of(value: Value<'_>) -> Option<Self> {
        match value {
            Value::Bytes(bytes) => bytes.try_into().ok(),
            Value::Null(_) | Value::Int(_) | Value::Text(_) => None,
        }
    }
}

impl<T: Param> Param for Option<T> {
    const KIND: Kind = T::KIND;
    fn value(&self) -> Value<'_> {
        self.as_ref().map_or(Value::Null(T::KIND), Param::value)
    }
}

impl<T: Column> Column for Option<T> {
    fn of(value: Value<'_>) -> Option<Self> {
        match value {
            Value::Null(_) => Some(None),
            Value::Int(_) | Value::Text(_) | Value::Bytes(_) => T::of(value).map(Some),
        }
    }
}

impl<T: Param + ?Sized> Param for &T {
    const KIND: Kind = T::KIND;
    fn value(&self) -> Value<'_> {
        (**self).value()
    }
}

/// The parameters of a statement, in their order.
macro_rules! params {
    ($($value:expr),* $(,)?) => {
        &[$($crate::store::sql::Param::value(&$value)),*]
    };
}
pub(super) use params;

impl rusqlite::ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
        use rusqlite::types::{ToSqlOutput, ValueRef};
        Ok(ToSqlOutput::Borrowed(match *self {
            Value::Null(_) => ValueRef::Null,
            Value::Int(number) => ValueRef::Integer(number),
            Value::Text(text) => ValueRef::Text(text.as_bytes()),
            Value::Bytes(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

/// A row of an answer.
pub enum Row<'a> {
    /// Of SQLite.
    Sqlite(&'a rusqlite::Row<'a>),
    /// Of PostgreSQL.
    #[cfg(feature = "postgres")]
    Postgres(&'a tokio_postgres::Row),
}

impl Row<'_> {
    /// A column, from 0.
    pub fn get<T: Column>(&self, index: usize) -> Result<T> {
        let unreadable =
            || Error::Unreadable(format!("column {index} holds what this program does not read"));
        match self {
            Row::Sqlite(row) => {
                use rusqlite::types::ValueRef;
                let value = match row.get_ref(index)? {
                    ValueRef::Null => Value::Null(Kind::Int),
                    ValueRef::Integer(number) => Value::Int(number),
                    ValueRef::Text(text) => Value::Text(std::str::from_utf8(text).map_err(|_| unreadable())?),
                    ValueRef::Blob(bytes) => Value::Bytes(bytes),
                    ValueRef::Real(_) => return Err(unreadable()),
                };
                T::of(value).ok_or_else(unreadable)
            }
            #[cfg(feature = "postgres")]
            Row::Postgres(row) => T::of(row.try_get(index)?).ok_or_else(unreadable),
        }
    }
}

/// The transaction of a group, in which a piece of work does its own.
pub enum Tx<'a> {
    /// Of SQLite.
    Sqlite(&'a rusqlite::Connection),
    /// Of PostgreSQL.
    #[cfg(feature = "postgres")]
    Postgres(&'a super::postgres::Conversation<'a>),
}

impl Tx<'_> {
    /// Does a piece of work whole or not at all, whatever becomes of the others in its transaction.
    pub fn whole<T>(&self, work: impl FnOnce(&Tx<'_>) -> Result<T>) -> Result<T> {
        match self {
            Tx::Sqlite(connection) => {
                connection.prepare_cached("SAVEPOINT work")?.execute([])?;
                match work(self) {
                    Ok(value) => {
                        connection.prepare_cached("RELEASE work")?.execute([])?;
                        Ok(value)
                    }
                    Err(error) => {
                        connection.execute_batch("ROLLBACK TO work; RELEASE work")?;
                        Err(error)
                    }
                }
            }
            #[cfg(feature = "postgres")]
            Tx::Postgres(conversation) => conversation.whole(self, work),
        }
    }

    /// Carries out statements that make or change tables.
    pub fn script(&self, sql: &str) -> Result<()> {
        match self {
            Tx::Sqlite(connection) => Ok(connection.execute_batch(sql)?),
            #[cfg(feature = "postgres")]
            Tx::Postgres(conversation) => conversation.script(sql),
        }
    }

    /// Carries out a statement; how many rows it wrote or removed.
    pub fn run(&self, sql: &str, params: &[Value<'_>]) -> Result<usize> {
        match self {
            Tx::Sqlite(connection) => {
                Ok(connection.prepare_cached(sql)?.execute(rusqlite::params_from_iter(params))?)
            }
            #[cfg(feature = "postgres")]
            Tx::Postgres(conversation) => conversation.run(sql, params),
        }
    }

    /// The first row of an answer, if there is one.
    pub fn one<T>(
        &self,
        sql: &str,
        params: &[Value<'_>],
        read: impl FnOnce(&Row<'_>) -> Result<T>,
    ) -> Result<Option<T>> {
        match self {
            Tx::Sqlite(connection) => {
                let mut statement = connection.prepare_cached(sql)?;
                let mut rows = statement.query(rusqlite::params_from_iter(params))?;
                rows.next()?.map(|row| read(&Row::Sqlite(row))).transpose()
            }
            #[cfg(feature = "postgres")]
            Tx::Postgres(conversation) => conversation.one(sql, params, read),
        }
    }

    /// All rows of an answer.
    pub fn all<T>(
        &self,
        sql: &str,
        params: &[Value<'_>],
        mut read: impl FnMut(&Row<'_>) -> Result<T>,
    ) -> Result<Vec<T>> {
        match self {
            Tx::Sqlite(connection) => {
                let mut statement = connection.prepare_cached(sql)?;
                let mut rows = statement.query(rusqlite::params_from_iter(params))?;
                let mut all = Vec::new();
                while let Some(row) = rows.next()? {
                    all.push(read(&Row::Sqlite(row))?);
                }
                Ok(all)
            }
            #[cfg(feature = "postgres")]
            Tx::Postgres(conversation) => conversation.all(sql, params, read),
        }
    }

    /// The first column of the first row, if there is one.
    pub fn find<T: Column>(&self, sql: &str, params: &[Value<'_>]) -> Result<Option<T>> {
        self.one(sql, params, |row| row.get(0))
    }

    /// The one value of an answer that always has a row: a count, a sum.
    pub fn value<T: Column>(&self, sql: &str, params: &[Value<'_>]) -> Result<T> {
        self.find(sql, params)?
            .ok_or_else(|| Error::Unreadable("a row is missing that is always there".to_owned()))
    }

    /// Whether there is a row.
    pub fn exists(&self, sql: &str, params: &[Value<'_>]) -> Result<bool> {
        Ok(self.one(sql, params, |_| Ok(()))?.is_some())
    }

    /// Carries out one statement for each of many; how many rows each wrote.
    pub fn each<'v>(&self, sql: &str, rows: &[impl AsRef<[Value<'v>]>]) -> Result<Vec<usize>> {
        match self {
            Tx::Sqlite(_) => rows.iter().map(|row| self.run(sql, row.as_ref())).collect(),
            #[cfg(feature = "postgres")]
            Tx::Postgres(conversation) => conversation.each(sql, rows),
        }
    }

    /// Reads an answer of any length, row by row.
    pub fn walk(&self, sql: &str, mut read: impl FnMut(&Row<'_>) -> Result<()>) -> Result<()> {
        match self {
            Tx::Sqlite(connection) => {
                let mut statement = connection.prepare_cached(sql)?;
                let mut rows = statement.query([])?;
                while let Some(row) = rows.next()? {
                    read(&Row::Sqlite(row))?;
                }
                Ok(())
            }
            #[cfg(feature = "postgres")]
            Tx::Postgres(conversation) => conversation.walk(sql, read),
        }
    }

    /// The names of the tables.
    pub fn tables(&self) -> Result<Vec<String>> {
        let sql = match self {
            Tx::Sqlite(_) => {
                "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
            }
            #[cfg(feature = "postgres")]
            Tx::Postgres(_) => {
                "SELECT CAST(table_name AS TEXT) FROM information_schema.tables WHERE table_schema = current_schema()"
            }
        };
        self.all(sql, params![], |row| row.get(0))
    }

    /// The columns of a table.
    pub fn columns(&self, table: &str) -> Result<Vec<(String, Kind)>> {
        let sql = match self {
            Tx::Sqlite(_) => "SELECT name, type FROM pragma_table_info(?1)",
            #[cfg(feature = "postgres")]
            Tx::Postgres(_) => {
                "SELECT CAST(column_name AS TEXT), CAST(data_type AS TEXT) FROM information_schema.columns
                 WHERE table_schema = current_schema() AND table_name = ?1"
            }
        };
        self.all(sql, params![table], |row| {
            let kind = match row.get::<String>(1)?.as_str() {
                "INTEGER" | "bigint" => Kind::Int,
                "BLOB" | "bytea" => Kind::Bytes,
                _ => Kind::Text,
            };
            Ok((row.get(0)?, kind))
        })
    }

    /// Numbers of rows go on behind those that a table has; SQLite sees to it itself.
    pub fn number_on(&self, table: &str) -> Result<()> {
        match self {
            Tx::Sqlite(_) => {}
            #[cfg(feature = "postgres")]
            Tx::Postgres(_) => {
                let counted = "SELECT 1 FROM information_schema.columns
                     WHERE table_schema = current_schema() AND table_name = ?1 AND column_name = 'n' AND is_identity = 'YES'";
                if self.exists(counted, params![table])? {
                    let last = format!("SELECT coalesce(max(n), 0) + 1 FROM {table}");
                    self.one(
                        &format!("SELECT setval(pg_get_serial_sequence(?1, 'n'), ({last}), false)"),
                        params![table],
                        |_| Ok(()),
                    )?;
                }
            }
        }
        Ok(())
    }

    /// What is broken in the database itself, as far as it tells.
    pub fn damage(&self) -> Result<Vec<String>> {
        match self {
            Tx::Sqlite(connection) => {
                let mut wrong = Vec::new();
                let mut check = connection.prepare("PRAGMA integrity_check(20)")?;
                for line in check.query_map([], |row| row.get::<_, String>(0))? {
                    wrong.push(line?);
                }
                wrong.retain(|line| line != "ok");
                let foreign = "SELECT \"table\", count(*) FROM pragma_foreign_key_check() GROUP BY 1";
                let lost = |row: &Row<'_>| {
                    let rows: i64 = row.get(1)?;
                    Ok(format!(
                        "{}: rows that refer to something that is not there ({rows})",
                        row.get::<String>(0)?
                    ))
                };
                wrong.extend(self.all(foreign, params![], lost)?);
                Ok(wrong)
            }
            // The server keeps what refers to what, and checks its own pages.
            #[cfg(feature = "postgres")]
            Tx::Postgres(_) => Ok(Vec::new()),
        }
    }

    /// Whether several bridges may share it.
    pub fn is_shared(&self) -> bool {
        match self {
            Tx::Sqlite(_) => false,
            #[cfg(feature = "postgres")]
            Tx::Postgres(_) => true,
        }
    }

    /// Whether the bridge of another run lives. A file of SQLite is of one bridge alone.
    pub fn lives(&self, run: i64) -> Result<bool> {
        match self {
            Tx::Sqlite(_) => Ok(false),
            #[cfg(feature = "postgres")]
            Tx::Postgres(conversation) => conversation.lives(run),
        }
    }

    /// Takes a duty that one bridge has at a time; nothing if another one has it.
    pub fn lead(&self, name: &str) -> Result<Option<Led>> {
        match self {
            Tx::Sqlite(_) => Ok(Some(Led::Alone)),
            #[cfg(feature = "postgres")]
            Tx::Postgres(conversation) => Ok(conversation.lead(name)?.map(Led::Connection)),
        }
    }

    /// Whether a duty that was taken is still ours: it was taken on this very connection and not let go.
    pub fn leads(&self, name: &str, led: Led) -> bool {
        match (self, led) {
            (Tx::Sqlite(_), Led::Alone | Led::Connection(_)) => true,
            #[cfg(feature = "postgres")]
            (Tx::Postgres(conversation), Led::Connection(connection)) => conversation.leads(name, connection),
            #[cfg(feature = "postgres")]
            (Tx::Postgres(_), Led::Alone) => false,
        }
    }

    /// Lets a duty go.
    pub fn follow(&self, name: &str) -> Result<()> {
        match self {
            Tx::Sqlite(_) => Ok(()),
            #[cfg(feature = "postgres")]
            Tx::Postgres(conversation) => conversation.follow(name),
        }
    }
}
