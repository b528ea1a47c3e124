//! A system that is a database: rows out by queries, documents in by statements, each classified by what its failure means.
//!
//! Two ways to speak: PostgreSQL's own protocol, and ODBC for the rest. What they have in common is here: values go beside the
//! statement and never into it, a query runs in a transaction that reads only, rows come as batches through a channel
//! that holds one, so that no look at a table needs memory for the table.

#[cfg(feature = "odbc")]
mod odbc;
#[cfg(feature = "postgres")]
mod postgres;
mod rows;
mod state;

pub use rows::{Batch, Column, Kind};

use super::pace::Pace;
use crate::{
    code::Code,
    config::{
        Instance,
        plan::{Action, Database, Question, Source, Sql},
        statement::Statement,
    },
    format,
    tree::{Name, Record, Tree},
    verdict::Failure,
};
use std::{path::Path, sync::Arc};
use tokio::{io::AsyncWriteExt as _, sync::mpsc};

/// The values of a statement's parameters, by name. What is not there is NULL.
pub type Values = Vec<(String, Tree)>;

/// A system that is a database.
pub struct SqlSystem {
    instance: Arc<Instance>,
    way: Way,
    pace: Box<Pace>,
}

/// The ways to speak to a database that were built in.
enum Way {
    #[cfg(feature = "postgres")]
    Postgres(Box<postgres::Postgres>),
    #[cfg(feature = "odbc")]
    Odbc(odbc::Odbc),
}

/// What a statement has done.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Written {
    /// How many rows it changed.
    pub count: u64,
    /// The rows it gave back.
    pub rows: Vec<Tree>,
}

impl Written {
    /// As a document: what replies are made of.
    pub fn document(&self) -> Tree {
        let count = i64::try_from(self.count).unwrap_or(i64::MAX);
        Tree::Record(Record::from_iter([
            (Name::plain("count"), Tree::integer(count)),
            (Name::plain("rows"), Tree::List(self.rows.clone())),
        ]))
    }
}

/// A whole view in a local file, one JSON object a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dumped {
    /// How many rows.
    pub rows: u64,
    /// Bytes of the file.
    pub size: u64,
    /// The SHA-256 of the file.
    pub digest: [u8; 32],
    /// The columns, in order.
    pub columns: Vec<Column>,
}

/// How much a dump may hold.
#[derive(Debug, Clone, Copy)]
pub struct DumpLimits {
    /// Rows.
    pub rows: u64,
    /// Bytes of the file.
    pub bytes: u64,
}

/// What was found out about a database, for a person: what, and what is wrong with it.
pub type Finding = (String, Option<Failure>);

impl SqlSystem {
    /// Makes ready. Nothing is sent yet.
    ///
    /// # Errors
    /// Settings that cannot work; a kind of database that this program was built without.
    pub fn open(instance: Arc<Instance>, plan: &Sql) -> Result<SqlSystem, Failure> {
        let way = match &plan.database {
            #[cfg(feature = "postgres")]
            Database::Postgres(database) => {
                Way::Postgres(Box::new(postgres::Postgres::open(instance.clone(), plan, database)?))
            }
            #[cfg(not(feature = "postgres"))]
            Database::Postgres(_) => return Err(not_built_in(&instance, "PostgreSQL", "postgres")),
            #[cfg(feature = "odbc")]
            Database::Odbc { connection, password } => {
                Way::Odbc(odbc::Odbc::open(instance.clone(), plan, connection, password.as_deref())?)
            }
            #[cfg(not(feature = "odbc"))]
            Database::Odbc { .. } => return Err(not_built_in(&instance, "ODBC", "odbc")),
        };
        let pace = Box::new(Pace::new(&instance.bears, &instance.adapter.rates));
        Ok(SqlSystem { instance, way, pace })
    }

    /// The columns of a query, without reading a row: it is only prepared, with NULL for every parameter.
    ///
    /// # Errors
    /// The database cannot be reached, or does not understand or permit it.
    pub async fn describe(&self, statement: &Statement) -> Result<Vec<Column>, Failure> {
        match self.way {
            #[cfg(feature = "postgres")]
            Way::Postgres(ref postgres) => postgres.describe(statement).await,
            #[cfg(feature = "odbc")]
            Way::Odbc(ref odbc) => odbc.describe(statement).await,
        }
    }

    /// Runs a query in a transaction that reads only, and sends its rows in batches, the first of them even if it is
    /// empty: then the columns are known. If nobody takes them any more, it ends early.
    ///
    /// # Errors
    /// What went wrong; rows that were sent before are true all the same.
    pub async fn read(
        &self,
        statement: &Statement,
        values: &Values,
        to: mpsc::Sender<Batch>,
    ) -> Result<(), Failure> {
        let _call = self.pace.call(None).await;
        match self.way {
            #[cfg(feature = "postgres")]
            Way::Postgres(ref postgres) => postgres.read(statement, values, to).await,
            #[cfg(feature = "odbc")]
            Way::Odbc(ref odbc) => odbc.read(statement, values, to).await,
        }
    }

    /// Runs a statement in a transaction of its own and commits it, if it changed as many rows as it must.
    ///
    /// # Errors
    /// It was not done, or (only if the commit itself failed without an answer) nobody knows.
    pub async fn write(
        &self,
        statement: &Statement,
        values: &Values,
        expect_rows: Option<u64>,
    ) -> Result<Written, Failure> {
        let _call = self.pace.call(None).await;
        match self.way {
            #[cfg(feature = "postgres")]
            Way::Postgres(ref postgres) => postgres.write(statement, values, expect_rows).await,
            #[cfg(feature = "odbc")]
            Way::Odbc(ref odbc) => odbc.write(statement, values, expect_rows).await,
        }
    }

    /// Whether a query finds any row.
    ///
    /// # Errors
    /// It could not be asked.
    pub async fn finds(&self, statement: &Statement, values: &Values) -> Result<Option<Tree>, Failure> {
        let (to, rows) = mpsc::channel::<Batch>(1);
        let first = async {
            let mut rows = rows;
            while let Some(batch) = rows.recv().await {
                if let Some(document) = batch.documents().into_iter().next() {
                    return Some(document);
                }
            }
            None
        };
        let (read, found) = tokio::join!(self.read(statement, values, to), first);
        match found {
            Some(row) => Ok(Some(row)),
            None => read.map(|()| None),
        }
    }

    /// Writes all rows of a query to a local file, one JSON object a line, from one snapshot of the database. The file is
    /// there only when it is whole and on disk.
    ///
    /// # Errors
    /// It could not be read, is beyond the limits, or cannot be written here.
    pub async fn dump(
        &self,
        statement: &Statement,
        values: &Values,
        to: &Path,
        limits: DumpLimits,
    ) -> Result<Dumped, Failure> {
        let (sender, rows) = mpsc::channel::<Batch>(1);
        let part = {
            let mut name = to.file_name().unwrap_or_default().to_owned();
            name.push(".part");
            to.with_file_name(name)
        };
        let disk = |error: std::io::Error| {
            let what = format!("the rows cannot be written to {}: {error}", part.display());
            Failure::not_done(Code::StoreUnavailable, what)
        };
        let writing = async {
            // When this ends, so does the channel: whoever still reads need not go on.
            let mut rows = rows;
            let mut file = tokio::fs::File::create(&part).await.map_err(disk)?;
            let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
            let mut dumped = Dumped { rows: 0, size: 0, digest: [0; 32], columns: Vec::new() };
            let mut lines = Vec::new();
            while let Some(batch) = rows.recv().await {
                lines.clear();
                dumped.columns.clone_from(&batch.columns);
                for document in batch.documents() {
                    lines.extend_from_slice(format::write_json(&document).as_bytes());
                    lines.push(b'\n');
                    dumped.rows += 1;
                }
                dumped.size += lines.len() as u64;
                if dumped.rows > limits.rows || dumped.size > limits.bytes {
                    let what = format!(
                        "the query gives more than {} rows or {} bytes, which is the limit",
                        limits.rows, limits.bytes
                    );
                    return Err(Failure::not_done(Code::AnswerTooLarge, what));
                }
                digest.update(&lines);
                file.write_all(&lines).await.map_err(disk)?;
            }
            file.flush().await.map_err(disk)?;
            file.sync_all().await.map_err(disk)?;
            dumped.digest.copy_from_slice(digest.finish().as_ref());
            Ok(dumped)
        };
        let (read, written) = tokio::join!(self.read(statement, values, sender), writing);
        let result = match (read, written) {
            (_, Err(failure)) => Err(failure),
            (Err(failure), Ok(_)) => Err(failure),
            (Ok(()), Ok(dumped)) => Ok(dumped),
        };
        if result.is_err() {
            let _ = tokio::fs::remove_file(&part).await;
            return result;
        }
        tokio::fs::rename(&part, to).await.map_err(disk)?;
        let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let folder = tokio::fs::File::open(folder).await.map_err(disk)?;
        folder.sync_all().await.map_err(disk)?;
        result
    }

    /// What there is, for `doctor`: the database and its version, our user and what it may do, and each statement of
    /// the adapter, prepared.
    pub async fn examine(&self) -> Vec<Finding> {
        let system = format!("system {}", self.instance.name);
        let greeting: Result<Vec<String>, Failure> = match self.way {
            #[cfg(feature = "postgres")]
            Way::Postgres(ref postgres) => postgres.greet().await,
            #[cfg(feature = "odbc")]
            Way::Odbc(ref odbc) => odbc.greet().await,
        };
        let mut found = match greeting {
            Err(failure) => return vec![(system, Some(failure))],
            Ok(lines) => {
                lines.into_iter().map(|line| (format!("{system}: {line}"), None)).collect::<Vec<_>>()
            }
        };
        let adapter = &self.instance.adapter;
        for route in &adapter.collect {
            if let Source::Query(query) = &route.source {
                let subject =
                    format!("query {}.{} ({})", self.instance.name, route.name, query.statement.file);
                let wrong = match self.describe(&query.statement).await {
                    Err(failure) => Some(failure),
                    Ok(columns) => missing(&columns, route).err(),
                };
                found.push((subject, wrong));
            }
        }
        for route in &adapter.deliver {
            if let Action::Statement(write) = &route.action {
                found.push(self.prepared(&route.name, &write.statement).await);
            }
            if let Some(Question::Statement(statement)) = route.probe.as_ref().map(|probe| &probe.question) {
                found.push(self.prepared(&route.name, statement).await);
            }
        }
        found
    }

    async fn prepared(&self, route: &str, statement: &Statement) -> Finding {
        let subject = format!("statement {}.{route} ({})", self.instance.name, statement.file);
        let prepared: Result<(), Failure> = match self.way {
            #[cfg(feature = "postgres")]
            Way::Postgres(ref postgres) => postgres.prepare(statement).await,
            #[cfg(feature = "odbc")]
            Way::Odbc(ref odbc) => odbc.prepare(statement).await,
        };
        (subject, prepared.err())
    }
}

/// A query must have the column of its cursor, and those that its mappings cannot do without.
///
/// # Errors
/// The first that it lacks, by name. The route waits: the statement or the table can be mended.
pub fn missing(columns: &[Column], route: &crate::config::plan::Collect) -> Result<(), Failure> {
    use crate::{config::plan::EmitAction, mapping::raw::Direction};
    let has = |name: &str| columns.iter().any(|column| column.name == name);
    let no = |name: &str, who: String| {
        let known = columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>().join(", ");
        let what = format!("the query has no column `{name}`, which {who}; it has {known}");
        Failure { field: name.to_owned(), ..Failure::not_done(Code::ColumnMissing, what) }
    };
    if let Source::Query(query) = &route.source
        && let Some(cursor) = query.cursor.as_ref().filter(|cursor| !has(&cursor.column))
    {
        return Err(no(&cursor.column, "its cursor looks at".to_owned()));
    }
    for path in route.compare.iter().flat_map(|compare| &compare.key) {
        let column = path.to_string();
        if !has(&column) {
            return Err(no(&column, "its rows are compared by".to_owned()));
        }
    }
    for emit in &route.events {
        let EmitAction::Event(mapping) = &emit.action else { continue };
        for field in mapping.document_fields(Direction::ToEvent) {
            if field.needed && emit.each.is_none() && !has(&field.column) {
                return Err(no(&field.column, format!("the mapping `{}` needs", mapping.name)));
            }
        }
    }
    Ok(())
}

#[cfg(not(all(feature = "postgres", feature = "odbc")))]
fn not_built_in(instance: &Instance, what: &str, feature: &str) -> Failure {
    let what = format!(
        "{}: this Packhorse was built without {what}; build it with `--features {feature}`",
        instance.name
    );
    Failure::refused(Code::NotBuiltIn, "", what)
}
