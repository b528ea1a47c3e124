//! A table of a database as a sample: the columns of a `CREATE TABLE` with their types. There are no values in it, so each
//! column gets one of its type, and the query is written that reads them.
//!
//! It is no SQL parser: it knows names, types and keys, and passes over the rest.

use super::{Refused, names, sample::not_a_sample};
use crate::{
    event::schema::EventSchema,
    tree::{Name, Record, Tree},
};
use std::fmt::Write as _;

/// A table, and how it is read.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// The query.
    pub query: String,
    /// A row, made up.
    pub row: Tree,
    /// The column that says when a row last changed.
    pub changed: Option<String>,
    /// The columns of the primary key.
    pub key: Vec<String>,
    /// Whether it is written as no PostgreSQL table is: it is reached by ODBC.
    pub foreign: bool,
}

/// A column.
struct Column {
    /// As the table writes it, quotes included.
    written: String,
    /// As the documents have it: small letters, no odd characters.
    name: String,
    /// Its type in small letters, with its brackets.
    kind: String,
}

/// Reads the text of a `CREATE TABLE`. The example says what texts look like.
///
/// # Errors
/// There is none in it, or it is cut off.
pub fn read(text: &str, schema: &EventSchema, example: &Tree) -> Result<Table, Refused> {
    let text = without_comments(text);
    let words = text.to_lowercase();
    let start =
        words.find("create").and_then(|at| words.get(at..)?.find("table").map(|further| at + further + 5));
    let Some(start) = start.filter(|_| words.len() == text.len()) else {
        return Err(not_a_sample("it has no CREATE TABLE".to_owned()));
    };
    let rest = text.get(start..).unwrap_or_default();
    let cut_off = || not_a_sample("its CREATE TABLE is cut off: the bracket never closes".to_owned());
    let (name, rest) = rest.split_once('(').ok_or_else(cut_off)?;
    let body = inside(rest).ok_or_else(cut_off)?;
    let name = name.trim();
    let name = name
        .get(..13)
        .filter(|start| start.eq_ignore_ascii_case("if not exists"))
        .map_or(name, |start| name.get(start.len()..).unwrap_or_default().trim());
    let (mut columns, mut key) = (Vec::new(), Vec::new());
    for part in parts(body) {
        let (first, after) = first_name(part);
        match first.to_uppercase().as_str() {
            "" => {}
            "CONSTRAINT" | "PRIMARY" | "UNIQUE" | "FOREIGN" | "CHECK" | "KEY" | "INDEX" | "EXCLUDE"
            | "LIKE" => {
                if part.to_uppercase().contains("PRIMARY KEY")
                    && let Some((_, list)) = part.split_once('(')
                {
                    key = parts(inside(list).unwrap_or_default())
                        .into_iter()
                        .map(|column| plain(first_name(column).0))
                        .collect();
                }
            }
            _ => {
                let kind = kind_of(after);
                if kind.is_empty() {
                    return Err(not_a_sample(format!("its column {first} has no type")));
                }
                if after.to_uppercase().contains("PRIMARY KEY") {
                    key = vec![plain(first)];
                }
                columns.push(Column { written: first.to_owned(), name: plain(first), kind });
            }
        }
    }
    if columns.is_empty() {
        return Err(not_a_sample("its CREATE TABLE has no columns".to_owned()));
    }
    let changed = columns.iter().find(|column| is_moment(&column.kind) && is_of_change(&column.name));
    let changed = changed.map(|column| (column.written.clone(), column.name.clone()));
    let row =
        columns.iter().map(|column| (Name::plain(column.name.as_str()), value(column, schema, example)));
    Ok(Table {
        row: Tree::Record(row.collect::<Record>()),
        query: query(name, &columns, changed.as_ref()),
        changed: changed.map(|(_, name)| name),
        key,
        foreign: text.contains(['[', '`'])
            || columns.iter().any(|column| {
                [
                    "nvarchar",
                    "varchar2",
                    "nchar",
                    "datetime",
                    "number",
                    "bit",
                    "money",
                    "uniqueidentifier",
                    "tinyint",
                ]
                .iter()
                .any(|word| column.kind.starts_with(word))
            }),
    })
}

fn query(name: &str, columns: &[Column], changed: Option<&(String, String)>) -> String {
    let mut text =
        String::from("-- Written by `packhorse new`: every column by a name in small letters.\nSELECT ");
    let named: Vec<String> =
        columns.iter().map(|column| format!("{} AS {}", column.written, column.name)).collect();
    text.push_str(&named.join(",\n       "));
    let _ = write!(text, "\nFROM {name}\n");
    if let Some((written, _)) = changed {
        let _ = write!(text, "WHERE {written} >= :cursor\nORDER BY {written}\n");
    }
    text
}

fn is_moment(kind: &str) -> bool {
    kind.starts_with("timestamp") || kind.starts_with("datetime") || kind.starts_with("smalldatetime")
}

fn is_of_change(name: &str) -> bool {
    let words = names::words(name);
    ["updated", "update", "modified", "changed", "change", "amended"].iter().any(|word| words.contains(*word))
}

/// A value as a row of this type has it.
fn value(column: &Column, schema: &EventSchema, example: &Tree) -> Tree {
    let kind = column.kind.as_str();
    let starts = |words: &[&str]| words.iter().any(|word| kind.starts_with(word));
    let scaled = kind.split_once(',').is_some_and(|(_, scale)| scale.trim_end_matches(')').trim() != "0");
    if starts(&["bool", "bit"]) {
        return Tree::Bool(true);
    }
    if starts(&["timestamp with time", "timestamptz", "datetimeoffset"])
        || (starts(&["timestamp"]) && kind.contains("with time"))
    {
        return Tree::text("2026-11-24T09:30:00Z");
    }
    if is_moment(kind) {
        return Tree::text("2026-11-24T09:30:00");
    }
    if starts(&["date"]) {
        return Tree::text("2026-11-24");
    }
    if starts(&["real", "double", "float", "money", "smallmoney"]) || scaled {
        return Tree::number("12.50");
    }
    if starts(&[
        "int",
        "bigint",
        "smallint",
        "tinyint",
        "serial",
        "bigserial",
        "numeric",
        "decimal",
        "number",
    ]) {
        return Tree::integer(1);
    }
    // A text is as the example's, if there is a field like it and it has the length.
    let longest =
        kind.split_once('(').and_then(|(_, length)| length.trim_end_matches(')').parse::<usize>().ok());
    let fields = schema.root.leaves();
    let like = fields.iter().filter_map(|(path, _)| {
        let steps: Vec<String> = path.split('.').map(|step| step.trim_end_matches("[]").to_owned()).collect();
        let text = super::guess::example_of(example, path)?;
        let likeness = names::likeness(&steps, std::slice::from_ref(&column.name));
        let fits = longest.is_none_or(|longest| text.chars().count() <= longest);
        (likeness >= names::ENOUGH && fits).then_some((likeness, text))
    });
    Tree::text(like.max_by_key(|(likeness, _)| *likeness).map_or_else(|| "A".to_owned(), |(_, text)| text))
}

fn without_comments(text: &str) -> String {
    let mut found = String::new();
    let mut rest = text;
    while let Some(at) = [rest.find("--"), rest.find("/*")].into_iter().flatten().min() {
        found.push_str(rest.get(..at).unwrap_or_default());
        let comment = rest.get(at..).unwrap_or_default();
        let (end, length) = if comment.starts_with("--") { ("\n", 0) } else { ("*/", 2) };
        rest = comment.find(end).and_then(|end| comment.get(end + length..)).unwrap_or_default();
        found.push(' ');
    }
    found.push_str(rest);
    found
}

/// What stands before the bracket that closes.
fn inside(text: &str) -> Option<&str> {
    let (mut depth, mut quote) = (0, None);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '(') => depth += 1,
            (None, ')') if depth == 0 => return text.get(..at),
            (None, ')') => depth -= 1,
            (None, _) => {}
        }
    }
    None
}

/// The parts between the commas outside of brackets.
fn parts(text: &str) -> Vec<&str> {
    let (mut found, mut start, mut depth, mut quote) = (Vec::new(), 0, 0, None);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '(') => depth += 1,
            (None, ')') => depth -= 1,
            (None, ',') if depth == 0 => {
                found.push(text.get(start..at).unwrap_or_default().trim());
                start = at + 1;
            }
            (None, _) => {}
        }
    }
    found.push(text.get(start..).unwrap_or_default().trim());
    found
}

/// The name at the beginning, with its quotes, and what follows.
fn first_name(text: &str) -> (&str, &str) {
    let text = text.trim();
    let close = match text.chars().next() {
        Some('"') => Some('"'),
        Some('[') => Some(']'),
        Some('`') => Some('`'),
        _ => None,
    };
    let end = match close {
        Some(close) => text.get(1..).and_then(|rest| rest.find(close)).map_or(text.len(), |at| at + 2),
        None => text.find(|c: char| c.is_whitespace() || c == '(').unwrap_or(text.len()),
    };
    (text.get(..end).unwrap_or_default(), text.get(end..).unwrap_or_default().trim())
}

/// A name as documents have it.
fn plain(name: &str) -> String {
    let bare = name.trim_matches(['"', '[', ']', '`']);
    let small: String =
        bare.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).collect();
    match small.starts_with(|c: char| c.is_ascii_digit()) {
        true => format!("c{small}"),
        false => small,
    }
}

/// The type at the beginning: its words up to what is no part of it.
fn kind_of(text: &str) -> String {
    let mut found: Vec<String> = Vec::new();
    let small = text.to_lowercase().replace(['[', ']', '"'], "");
    let spaced = small.replace(", ", ",").replace(" (", "(");
    for word in spaced.split_whitespace() {
        let part = matches!(
            word,
            "precision" | "varying" | "with" | "without" | "time" | "zone" | "large" | "object" | "local"
        );
        if !found.is_empty() && !part {
            break;
        }
        found.push(word.to_owned());
    }
    found.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema() -> EventSchema {
        EventSchema::compile(serde_json::json!({
            "$id": "x", "x-event-type": "x.v1", "type": "object",
            "properties": { "surname": { "type": "string" } }
        }))
        .unwrap()
    }

    fn table(text: &str) -> Result<Table, Refused> {
        read(text, &schema(), &Tree::from_json(&serde_json::json!({ "surname": "Sample" })))
    }

    #[test]
    fn columns_keys_and_the_moment_of_change_are_found() {
        let text = "-- a table\nCREATE TABLE dbo.client (\n  client_id integer NOT NULL,\n  \"Last Name\" varchar(50),\n \
                    balance numeric(10, 2) DEFAULT 0, /* in pounds */\n  updated_at timestamp without time zone,\n  \
                    CONSTRAINT pk PRIMARY KEY (client_id)\n);";
        let table = table(text).unwrap();
        assert_eq!(table.key, ["client_id"]);
        assert_eq!(table.changed.as_deref(), Some("updated_at"));
        assert!(!table.foreign);
        assert!(table.query.contains("\"Last Name\" AS last_name"), "{}", table.query);
        assert!(table.query.contains("FROM dbo.client\nWHERE updated_at >= :cursor\nORDER BY updated_at"));
        assert_eq!(table.row.at(&["last_name"]), Some(&Tree::text("Sample")));
        assert_eq!(table.row.at(&["balance"]), Some(&Tree::number("12.50")));
        assert_eq!(table.row.at(&["updated_at"]), Some(&Tree::text("2026-11-24T09:30:00")));
    }

    #[test]
    fn a_table_of_sql_server_is_known_by_its_spelling() {
        let table =
            table("create table [dbo].[Client] ([ClientID] int PRIMARY KEY, [Active] bit, [DOB] date)")
                .unwrap();
        assert!(table.foreign);
        assert_eq!(table.key, ["clientid"]);
        assert!(table.query.contains("[ClientID] AS clientid"));
        assert_eq!(table.row.at(&["active"]), Some(&Tree::Bool(true)));
    }

    #[test]
    fn what_is_no_whole_table_is_refused() {
        for (text, reason) in [
            ("SELECT 1", "no CREATE TABLE"),
            ("CREATE TABLE a (b int, c varchar(10", "cut off"),
            ("CREATE TABLE a", "cut off"),
            ("CREATE TABLE a ()", "no columns"),
            ("CREATE TABLE a (b)", "no type"),
        ] {
            let refused = table(text).unwrap_err();
            assert!(refused.what.contains(reason), "{}", refused.what);
        }
    }
}
