//! The parts of an adapter file that are about databases: `[sql]`, `query` and `statement`. The SQL itself stands in files of
//! its own, in the folder `adapters/<name>/`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A system that is a database.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SqlKeys {
    /// How it is spoken to.
    pub database: DatabaseKind,
    /// PostgreSQL: host and port, or the folder of a socket; a template of `settings`. The port is 5432 unless stated.
    pub address: Option<String>,
    /// PostgreSQL: the database's name; a template of `settings`.
    pub name: Option<String>,
    /// PostgreSQL: the user; a template of `settings`.
    pub username: Option<String>,
    /// The password: the name of a secret setting. With ODBC it is added to the connection string as `PWD`.
    pub password: Option<String>,
    /// PostgreSQL: certificates; the paths are templates of `settings`. Another machine is always reached over TLS.
    pub tls: Option<super::bridge::TlsKeys>,
    /// PostgreSQL: go to another machine unencrypted: the name of a setting that must then be `yes`.
    pub allow_unencrypted_login: Option<String>,
    /// ODBC: the connection string without the password; a template of `settings`:
    /// `Driver={ODBC Driver 18 for SQL Server};Server={{ settings.server }};UID={{ settings.username }}`.
    pub connection: Option<String>,
    /// Statements may write. Without it the database is only read, and PostgreSQL is told so.
    #[serde(default)]
    pub write: bool,
    /// How long making a connection may take. Default: `5s`.
    pub connect_timeout: Option<String>,
    /// How long a statement may take, or the next rows of a query. Default: `60s`.
    pub timeout: Option<String>,
    /// How long a statement may wait for somebody else's lock (PostgreSQL). Default: `10s`.
    pub lock_timeout: Option<String>,
    /// How large a row may be. Default: `1 MiB`.
    pub row_limit: Option<String>,
}

/// How a database is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DatabaseKind {
    /// PostgreSQL, in its own protocol.
    Postgres,
    /// By the machine's ODBC driver: SQL Server, Oracle, MySQL and the rest. Only in a Packhorse that was built with ODBC.
    Odbc,
}

/// We ask a database from time to time. Each row becomes a JSON document with the columns' names.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QueryKeys {
    /// The file with the query, in the adapter's folder: `changes.sql`. Its parameters are written `:name`; `:cursor` is the
    /// cursor's value.
    pub statement: String,
    /// How often.
    pub every: String,
    /// Look from the last value of a column on. Without it, all rows are read each time, and those that are known are passed over;
    /// with `compare`, what is new, changed or gone since the last look is told.
    pub cursor: Option<QueryCursorKeys>,
    /// Values for other parameters: templates of `settings`.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
    /// How many rows one look may bring at most. What is beyond it comes with the next look. Default: 100000; with `compare`,
    /// which wants the whole of it, 10 million.
    pub limit: Option<u64>,
}

/// A column whose values rise. The query has `>= :cursor` and is ordered by the column. A moment is given as ISO 8601,
/// `2026-11-24T09:41:06`; where a database keeps moments as texts, the query brings it into their form.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QueryCursorKeys {
    /// The column.
    pub column: String,
    /// What it begins with.
    pub first: String,
    /// How far back each look reaches, for rows that were committed late and rows of the same moment: `10m`, or a number. Those
    /// that are known are passed over.
    pub overlap: Option<Overlap>,
    /// What its values are.
    pub kind: CursorKind,
}

/// How far back a look reaches.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Overlap {
    /// A number.
    Number(u32),
    /// A duration.
    Time(String),
}

/// What the values of a cursor's column are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CursorKind {
    /// Dates or moments.
    Time,
    /// Whole numbers.
    Number,
    /// Texts, in the order in which the database sorts them.
    Text,
}

/// A statement that writes a document: insert, upsert, or a call of a procedure. Its parameters are the document's fields.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StatementKeys {
    /// The file with the statement, in the adapter's folder: `insert.sql`.
    pub file: String,
    /// How many rows it must change: with more or fewer nothing is changed, and a person looks.
    pub expect_rows: Option<u64>,
    /// What it means that such a row is there already, by a unique constraint. Default: `dead`.
    #[serde(default)]
    pub duplicate: DuplicateIs,
    /// The constraints whose violation means that the row is there already. Any unique one unless stated.
    #[serde(default)]
    pub constraints: Vec<String>,
}

/// What it means that a row is there already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DuplicateIs {
    /// A refusal: a person looks.
    #[default]
    Dead,
    /// An earlier attempt has written it.
    Delivered,
}
