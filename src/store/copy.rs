//! The whole of a store from one database to the other, in one transaction there, and proved by reading it back. And a backup, which
//! is the same: a file of SQLite, whatever the store lies on.

use super::{
    Opener, StoreError,
    database::{Database, Location, lock},
    sql::{self, Column, Error, Kind, Tx, Value, params},
};
use crate::{code::Code, config};
use std::path::Path;

/// How many rows go at once.
const PORTION: usize = 500;
/// What of the table `meta` is of the place and not of the store.
const OF_THE_PLACE: &str = "name NOT IN ('version', 'moved to') AND name NOT LIKE 'reads %'";

/// A table, as much of it as there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// Its name.
    pub table: String,
    /// Its rows.
    pub rows: u64,
    /// The sum of the digests of all rows: the same on both sides, whatever their order.
    sum: u64,
}

/// A value that has been read.
enum Owned {
    Null,
    Int(i64),
    Text(String),
    Bytes(Vec<u8>),
}

impl Column for Owned {
    fn of(value: Value<'_>) -> Option<Owned> {
        Some(match value {
            Value::Null(_) => Owned::Null,
            Value::Int(number) => Owned::Int(number),
            // PostgreSQL holds no NUL in a text.
            Value::Text(text) => Owned::Text(text.replace('\0', "\u{fffd}")),
            Value::Bytes(bytes) => Owned::Bytes(bytes.to_owned()),
        })
    }
}

impl Owned {
    fn value(&self, kind: Kind) -> Value<'_> {
        match self {
            Owned::Null => Value::Null(kind),
            Owned::Int(number) => Value::Int(*number),
            Owned::Text(text) => Value::Text(text),
            Owned::Bytes(bytes) => Value::Bytes(bytes),
        }
    }

    /// FNV-1a, on.
    fn digest(&self, digest: u64) -> u64 {
        let number;
        let (kind, bytes): (u8, &[u8]) = match self {
            Owned::Null => (0, &[]),
            Owned::Int(whole) => {
                number = whole.to_be_bytes();
                (1, &number)
            }
            Owned::Text(text) => (2, text.as_bytes()),
            Owned::Bytes(bytes) => (3, bytes),
        };
        let step = |digest: u64, byte: &u8| (digest ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        let digest = step(digest, &kind);
        let digest = (bytes.len() as u64).to_be_bytes().iter().fold(digest, step);
        bytes.iter().fold(digest, step)
    }
}

/// A table of the store.
#[derive(Debug, PartialEq, Eq)]
struct Table {
    name: String,
    /// In the order of their names.
    columns: Vec<(String, Kind)>,
}

impl Table {
    fn select(&self) -> String {
        let names: Vec<&str> = self.columns.iter().map(|(name, _)| name.as_str()).collect();
        let only = if self.name == "meta" { format!(" WHERE {OF_THE_PLACE}") } else { String::new() };
        format!("SELECT {} FROM {}{only}", names.join(", "), self.name)
    }

    fn insert(&self) -> String {
        let names: Vec<&str> = self.columns.iter().map(|(name, _)| name.as_str()).collect();
        let places: Vec<String> = (1..=names.len()).map(|place| format!("?{place}")).collect();
        format!("INSERT INTO {} ({}) VALUES ({})", self.name, names.join(", "), places.join(", "))
    }

    /// Reads all rows, and what they are as a whole.
    fn read(&self, tx: &Tx<'_>, mut each: impl FnMut(Vec<Owned>) -> sql::Result<()>) -> sql::Result<Copied> {
        let mut copied = Copied { table: self.name.clone(), rows: 0, sum: 0 };
        tx.walk(&self.select(), |row| {
            let row: Vec<Owned> =
                (0..self.columns.len()).map(|index| row.get(index)).collect::<sql::Result<_>>()?;
            let digest = row.iter().fold(0xcbf2_9ce4_8422_2325, |digest, value| value.digest(digest));
            copied.rows += 1;
            copied.sum = copied.sum.wrapping_add(digest);
            each(row)
        })?;
        Ok(copied)
    }

    fn is_empty(&self, tx: &Tx<'_>) -> sql::Result<bool> {
        Ok(!tx.exists(&format!("{} LIMIT 1", self.select()), params![])?)
    }
}

/// The tables, those first that others refer to.
fn tables(tx: &Tx<'_>) -> sql::Result<Vec<Table>> {
    let mut tables = Vec::new();
    let mut names = tx.tables()?;
    names.sort_by_key(|name| {
        let first = ["meta", "route", "batch"].iter().position(|first| first == name).unwrap_or(usize::MAX);
        (first, name.clone())
    });
    for name in names {
        let mut columns = tx.columns(&name)?;
        columns.sort_by(|(one, _), (other, _)| one.cmp(other));
        tables.push(Table { name, columns });
    }
    Ok(tables)
}

/// Copies everything; what was copied, proved by reading it back.
fn copy(from: &Tx<'_>, to: &Tx<'_>) -> sql::Result<Vec<Copied>> {
    let mut copied = Vec::new();
    for table in tables(from)? {
        let insert = table.insert();
        let mut portion: Vec<Vec<Owned>> = Vec::with_capacity(PORTION);
        let put = |portion: &mut Vec<Vec<Owned>>| {
            let rows: Vec<Vec<Value<'_>>> = portion
                .iter()
                .map(|row| {
                    row.iter().zip(&table.columns).map(|(value, (_, kind))| value.value(*kind)).collect()
                })
                .collect();
            to.each(&insert, &rows)?;
            portion.clear();
            Ok::<_, Error>(())
        };
        let said = table.read(from, |row| {
            portion.push(row);
            if portion.len() == PORTION { put(&mut portion) } else { Ok(()) }
        })?;
        put(&mut portion)?;
        let there = table.read(to, |_| Ok(()))?;
        if said != there {
            return Err(Error::Unreadable(format!(
                "the table {} came over as {} rows and not as the same {}",
                said.table, there.rows, said.rows
            )));
        }
        to.number_on(&table.name)?;
        copied.push(said);
    }
    Ok(copied)
}

/// Whether both hold the same.
fn is_same(from: &Tx<'_>, to: &Tx<'_>) -> sql::Result<Option<Vec<Copied>>> {
    let mut same = Vec::new();
    for table in tables(from)? {
        let (ours, theirs) = (table.read(from, |_| Ok(()))?, table.read(to, |_| Ok(()))?);
        if ours != theirs {
            return Ok(None);
        }
        same.push(ours);
    }
    Ok(Some(same))
}

fn is_empty(tx: &Tx<'_>) -> sql::Result<bool> {
    for table in tables(tx)? {
        if !table.is_empty(tx)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Moves a store from its file to a server: everything or nothing. The file is marked, so that no bridge starts on it by mistake.
/// Blocks, and not within a runtime.
///
/// # Errors
/// A bridge runs on the file; the target holds something else; either of them failed. Then nothing was moved.
pub fn migrate(from: &Path, to: &config::Store) -> Result<Vec<Copied>, StoreError> {
    let (source, target) = (Location::File(from.to_owned()), Location::of(to));
    if !from.exists() {
        let what = format!("there is no store at {source}");
        return Err(StoreError { code: Code::StoreUnavailable, what });
    }
    let _lock = lock(from).map_err(|error| StoreError {
        code: Code::StoreTaken,
        what: format!("{}: stop it first", error.what),
    })?;
    let (mut file, _) = source.open(Opener::Command, 0)?;
    let (mut server, _) = target.open(Opener::Command, 0)?;
    let mut moved =
        Err(StoreError { code: Code::StoreUnavailable, what: format!("{source} cannot be read") });
    let marked = file.transaction(|from| {
        let copied = send(from, &mut server, &target);
        // The far side has committed: from here on the store is there.
        moved = copied.and_then(|copied| {
            let mark = from.whole(|from| {
                from.run(
                    "INSERT INTO meta (name, value) VALUES ('moved to', ?1)",
                    params![target.to_string()],
                )
            });
            mark.map(|_| copied).map_err(|error| unmarked(&source, &target, &error))
        });
    });
    marked.map_err(|error| unmarked(&source, &target, &error)).and(moved)
}

fn unmarked(source: &Location, target: &Location, error: &Error) -> StoreError {
    StoreError::of(
        &format!(
            "everything is at {target}, but {source} could not be marked as moved (move it again, and never start a bridge on it)"
        ),
        error,
    )
}

fn send(from: &Tx<'_>, server: &mut Database, target: &Location) -> Result<Vec<Copied>, StoreError> {
    let mut sent = None;
    let committed = server.transaction(|to| {
        sent = Some(to.whole(|to| match is_empty(to)? {
            true => copy(from, to).map(Some),
            // Perhaps it was moved before, and only the mark is missing.
            false => is_same(from, to),
        }));
    });
    let moving = format!("moving the store to {target}");
    match (sent, committed) {
        (Some(Ok(Some(copied))), Ok(())) => Ok(copied),
        (Some(Ok(None)), _) => Err(StoreError {
            code: Code::StoreTaken,
            what: format!("{target} holds a store already, and not this one: nothing was moved"),
        }),
        (Some(Err(error)), _) | (_, Err(error)) => Err(StoreError::of(&moving, &error)),
        (None, Ok(())) => Err(StoreError { code: Code::StoreUnavailable, what: moving }),
    }
}

/// Writes the whole store, as it is at one moment, to a file of SQLite that may take its place; bridges go on meanwhile. Blocks, and
/// not within a runtime.
///
/// # Errors
/// There is a file of that name; the store or the file failed.
pub fn backup(from: &config::Store, to: &Path) -> Result<Vec<Copied>, StoreError> {
    let location = Location::of(from);
    let doing = format!("backing {location} up to {}", to.display());
    let cannot = |error: std::io::Error| StoreError {
        code: Code::StoreUnavailable,
        what: format!("{doing}: {error}"),
    };
    if to.exists() {
        return Err(StoreError {
            code: Code::StoreTaken,
            what: format!("{} is there already", to.display()),
        });
    }
    let mut part = to.as_os_str().to_owned();
    part.push(".part");
    let part = Path::new(&part);
    if part.exists() {
        std::fs::remove_file(part).map_err(cannot)?;
    }
    // It is brought up to this version first.
    drop(location.open(Opener::Command, 0)?);
    let (mut target, _) = Location::File(part.to_owned()).open(Opener::Command, 0)?;
    let mut copied = None;
    let read = location.moment(&doing, |from| {
        let committed = target.transaction(|to| copied = Some(to.whole(|to| copy(from, to))));
        committed.and(copied.take().unwrap_or_else(|| Err(Error::Lost(doing.clone()))))
    });
    drop(target);
    let done = read.and_then(|copied| {
        let flushed = std::fs::File::open(part).and_then(|file| file.sync_all());
        flushed.and_then(|()| std::fs::rename(part, to)).map_err(cannot)?;
        Ok(copied)
    });
    if done.is_err() {
        let _ = std::fs::remove_file(part);
    }
    done
}
