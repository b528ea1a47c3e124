//! A file as text, with the place of every key and value in it.

use crate::{
    code::Code,
    problem::{Problem, Severity},
};
use serde_json::Value;
use std::{ops::Range, path::PathBuf};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// A TOML file that has been read.
#[derive(Debug, Clone)]
pub struct SourceFile {
    /// Where it stands, relative to the project's folder where possible.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
    /// Its values as JSON, for checks by JSON Schema.
    pub value: Value,
    /// Whether it is TOML at all.
    pub well_formed: bool,
    root: Node,
}

/// A value and where it and its key stand.
#[derive(Debug, Clone, Default)]
struct Node {
    key: Option<Range<usize>>,
    value: Range<usize>,
    /// Whether the value is written in simple quotes, so that a part of the text is a part of the file.
    quoted: bool,
    inside: Vec<(String, Node)>,
}

impl SourceFile {
    /// Reads TOML, with everything that is wrong with its syntax.
    pub fn parse(path: PathBuf, text: String) -> (SourceFile, Vec<Problem>) {
        let (table, errors) = DeTable::parse_recoverable(&text);
        let problems: Vec<Problem> = errors
            .iter()
            .map(|error| {
                let mut problem =
                    Problem::error(Code::TomlSyntax, &[], error.message().to_owned()).label("not TOML");
                problem.part = error.span();
                problem
            })
            .collect();
        let (root, value) = node_of_table(&text, None, table.span(), table.get_ref());
        let file = SourceFile { path, value, root, well_formed: problems.is_empty(), text };
        (file, problems)
    }

    /// A file that is not TOML (a schema, a code list), for problems with a place of their own.
    pub fn plain(path: PathBuf, text: String) -> SourceFile {
        SourceFile { path, value: Value::Null, root: Node::default(), well_formed: true, text }
    }

    /// Where a problem stands. Keys that are not there give the nearest that is.
    pub fn span(&self, problem: &Problem) -> Range<usize> {
        if problem.at.is_empty() {
            return problem.part.clone().unwrap_or(0..0);
        }
        let mut node = &self.root;
        let mut complete = true;
        for key in &problem.at {
            match node.inside.iter().find(|(name, _)| name == key) {
                Some((_, next)) => node = next,
                None => {
                    complete = false;
                    break;
                }
            }
        }
        let first_line = |range: &Range<usize>| {
            let text = self.text.get(range.clone()).unwrap_or_default();
            range.start..range.start + text.find('\n').unwrap_or(text.len())
        };
        match (&problem.part, &node.key) {
            (Some(part), _) if complete && node.quoted => {
                node.value.start + 1 + part.start..node.value.start + 1 + part.end
            }
            (_, Some(key)) if problem.on_key || !complete => key.clone(),
            (_, Some(key)) if node.value.is_empty() => key.clone(),
            _ => first_line(&node.value),
        }
    }

    /// The line, counted from 1, at which these keys stand.
    pub fn line_of(&self, at: &[String]) -> usize {
        let mut problem = Problem::error(Code::TomlSyntax, &[], "");
        problem.at = at.to_vec();
        let start = self.span(&problem).start;
        self.text.get(..start).unwrap_or_default().matches('\n').count() + 1
    }

    /// The line and column, counted from 1, of a byte.
    pub fn line_and_column(&self, at: usize) -> (usize, usize) {
        let place = crate::format::Place::of(self.text.as_bytes(), at);
        (place.line, place.column)
    }
}

fn node_of_table(
    text: &str,
    key: Option<Range<usize>>,
    span: Range<usize>,
    table: &DeTable<'_>,
) -> (Node, Value) {
    let mut node = Node { key, value: span, ..Node::default() };
    let mut object = serde_json::Map::new();
    for (name, value) in table {
        let (inside, json) = node_of_value(text, Some(name.span()), value);
        node.inside.push((name.get_ref().to_string(), inside));
        object.insert(name.get_ref().to_string(), json);
    }
    (node, Value::Object(object))
}

fn node_of_value(text: &str, key: Option<Range<usize>>, value: &Spanned<DeValue<'_>>) -> (Node, Value) {
    let span = value.span();
    let leaf = |json: Value| {
        let written = text.get(span.clone()).unwrap_or_default();
        let simple = (written.starts_with('"') && !written.starts_with("\"\"\"") && !written.contains('\\'))
            || (written.starts_with('\'') && !written.starts_with("'''"));
        (Node { key: key.clone(), value: span.clone(), quoted: simple, ..Node::default() }, json)
    };
    match value.get_ref() {
        DeValue::Table(table) => node_of_table(text, key, span, table),
        DeValue::Array(items) => {
            let mut node = Node { key, value: span, ..Node::default() };
            let mut list = Vec::new();
            for (index, item) in items.iter().enumerate() {
                let (inside, json) = node_of_value(text, None, item);
                node.inside.push((index.to_string(), inside));
                list.push(json);
            }
            (node, Value::Array(list))
        }
        DeValue::String(text) => leaf(Value::String(text.to_string())),
        DeValue::Boolean(b) => leaf(Value::Bool(*b)),
        DeValue::Integer(number) => {
            let parsed = i64::from_str_radix(&number.as_str().replace('_', ""), number.radix());
            leaf(parsed.map_or(Value::Null, Value::from))
        }
        DeValue::Float(number) => leaf(number.as_str().parse::<f64>().map_or(Value::Null, Value::from)),
        DeValue::Datetime(moment) => leaf(Value::String(moment.to_string())),
    }
}

/// A problem in a file.
#[derive(Debug, Clone)]
pub struct Diagnostic {
    /// The problem.
    pub problem: Problem,
    /// The file, relative to the project's folder.
    pub path: PathBuf,
    /// The bytes of the file's text.
    pub span: Range<usize>,
    /// The line, counted from 1.
    pub line: usize,
    /// The column, counted from 1.
    pub column: usize,
}

impl Diagnostic {
    /// A problem at its place in a file.
    pub fn new(file: &SourceFile, problem: Problem) -> Diagnostic {
        let span = file.span(&problem);
        let (line, column) = file.line_and_column(span.start);
        Diagnostic { problem, path: file.path.clone(), span, line, column }
    }

    /// Whether `run` will not start because of it.
    pub fn is_error(&self) -> bool {
        self.problem.severity == Severity::Error
    }
}
