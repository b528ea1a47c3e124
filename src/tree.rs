//! The one tree that every format decodes to, that mappings read and write, and that every format encodes from.
//!
//! A tree knows nothing of JSON or XML. XML elements and JSON members are both entries of a [`Record`]; the order of
//! entries is kept and a name may occur more than once, because in XML both carry meaning. Attributes are entries
//! whose local name begins with `@`; the text of an element that also has attributes or children is its `#text`.
//! Numbers keep their digits as written: a payment reference of twenty digits must not pass through a float.
//!
//! Names and values are compact strings: up to 24 bytes, which is most of them, stand in the tree itself. Half of what a
//! message costs was making and freeing small strings.

use compact_str::{CompactString, ToCompactString as _};
use std::{fmt, sync::Arc};

/// The local name under which the text of an element with attributes or children stands.
pub const TEXT: &str = "#text";

/// A value of a document or an event.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Tree {
    /// JSON `null`, or an XML element with `xsi:nil="true"`.
    #[default]
    Null,
    /// JSON `true` or `false`.
    Bool(bool),
    /// A number, its digits exactly as written (JSON grammar).
    Number(CompactString),
    /// Text: a JSON string, the content of an XML element or attribute.
    Text(CompactString),
    /// A JSON array. XML has none: repeated elements are repeated entries of a record.
    List(Vec<Tree>),
    /// Named entries, in order.
    Record(Record),
}

/// The name of an entry: a local name and, in XML, the namespace it is in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Name {
    /// The local name; `@name` for an attribute, `#text` for an element's text. First, since names are compared in this
    /// order, and most differ here.
    pub local: CompactString,
    /// The namespace URI. `None`: in no namespace.
    pub space: Option<Arc<str>>,
}

/// Named entries in order; a name may occur more than once.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Record {
    entries: Vec<(Name, Tree)>,
}

impl Name {
    /// A name in no namespace.
    pub fn plain(local: impl Into<CompactString>) -> Name {
        Name { space: None, local: local.into() }
    }

    /// A name in a namespace.
    pub fn spaced(space: Arc<str>, local: impl Into<CompactString>) -> Name {
        Name { space: Some(space), local: local.into() }
    }

    /// Whether this names an attribute or an element's text rather than a child.
    pub fn is_attribute(&self) -> bool {
        self.local.starts_with('@')
    }
}

/// `{namespace}local`, as in error messages about documents.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.space {
            Some(space) => write!(f, "{{{space}}}{}", self.local),
            None => f.write_str(&self.local),
        }
    }
}

impl Record {
    /// A record without entries.
    pub fn new() -> Record {
        Record::default()
    }

    /// A record without entries, and with room for so many.
    pub fn with_capacity(entries: usize) -> Record {
        Record { entries: Vec::with_capacity(entries) }
    }

    /// The entries in order.
    pub fn entries(&self) -> &[(Name, Tree)] {
        &self.entries
    }

    /// The entries in order, by value.
    pub fn into_entries(self) -> Vec<(Name, Tree)> {
        self.entries
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The first entry of that name.
    pub fn get(&self, name: &Name) -> Option<&Tree> {
        self.entries.iter().find(|(n, _)| n == name).map(|(_, tree)| tree)
    }

    /// The first entry of that local name which is in no namespace.
    pub fn get_plain(&self, local: &str) -> Option<&Tree> {
        self.entries.iter().find(|(n, _)| n.space.is_none() && n.local == local).map(|(_, tree)| tree)
    }

    /// Adds an entry at the end, even where the name occurs already.
    pub fn push(&mut self, name: Name, tree: Tree) {
        self.entries.push((name, tree));
    }

    /// The first entry of that local name, whatever its namespace.
    pub fn get_local(&self, local: &str) -> Option<&Tree> {
        self.entries.iter().find(|(n, _)| n.local == local).map(|(_, tree)| tree)
    }

    /// The last entry of that name, to write into.
    pub fn last_mut(&mut self, name: &Name) -> Option<&mut Tree> {
        self.entries.iter_mut().rev().find(|(n, _)| n == name).map(|(_, tree)| tree)
    }

    /// The last entry of that name, to write into; made (as `Null`) at the end where there is none.
    pub fn entry(&mut self, name: &Name) -> &mut Tree {
        let found = self.entries.iter().rposition(|(n, _)| n == name);
        if found.is_none() {
            self.entries.push((name.clone(), Tree::Null));
        }
        let at = found.unwrap_or(self.entries.len() - 1);
        #[expect(clippy::indexing_slicing, reason = "the entry was found or has just been pushed")]
        &mut self.entries[at].1
    }

    /// Sets the plain entry of that name, replacing an earlier one.
    pub fn set(&mut self, local: &str, tree: Tree) {
        *self.entry(&Name::plain(local)) = tree;
    }
}

impl FromIterator<(Name, Tree)> for Record {
    fn from_iter<I: IntoIterator<Item = (Name, Tree)>>(entries: I) -> Record {
        Record { entries: entries.into_iter().collect() }
    }
}

impl Tree {
    /// Text from anything that makes a string.
    pub fn text(text: impl Into<CompactString>) -> Tree {
        Tree::Text(text.into())
    }

    /// Text as something is shown.
    pub fn shown(what: impl fmt::Display) -> Tree {
        Tree::Text(what.to_compact_string())
    }

    /// A number by its digits.
    pub fn number(digits: impl Into<CompactString>) -> Tree {
        Tree::Number(digits.into())
    }

    /// A whole number.
    pub fn integer(number: i64) -> Tree {
        Tree::Number(number.to_compact_string())
    }

    /// The record, if this is one.
    pub fn as_record(&self) -> Option<&Record> {
        match self {
            Tree::Record(record) => Some(record),
            _ => None,
        }
    }

    /// The text, if this is text; an element that has attributes or children gives its `#text`.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Tree::Text(text) => Some(text),
            Tree::Record(record) => record.get_plain(TEXT)?.as_text(),
            Tree::Null | Tree::Bool(_) | Tree::Number(_) | Tree::List(_) => None,
        }
    }

    /// The value as the text a person would write for it: text, digits, `true`. Nothing for null, lists and records
    /// without text.
    pub fn to_plain_text(&self) -> Option<String> {
        self.plain_text().map(str::to_owned)
    }

    /// The same, where it stands.
    pub fn plain_text(&self) -> Option<&str> {
        match self {
            Tree::Text(text) | Tree::Number(text) => Some(text),
            Tree::Bool(true) => Some("true"),
            Tree::Bool(false) => Some("false"),
            Tree::Record(_) => self.as_text(),
            Tree::Null | Tree::List(_) => None,
        }
    }

    /// The value at a path of plain names: `tree.at(&["data", "amount"])`.
    pub fn at(&self, path: &[&str]) -> Option<&Tree> {
        path.iter().try_fold(self, |tree, name| tree.as_record()?.get_plain(name))
    }

    /// This as a record to write into: what is there, or a new one. A plain value that stands there becomes its `#text`.
    pub fn record_mut(&mut self) -> &mut Record {
        if !matches!(self, Tree::Record(_)) {
            let mut record = Record::new();
            if let text @ (Tree::Text(_) | Tree::Number(_) | Tree::Bool(_)) = std::mem::take(self) {
                record.push(Name::plain(TEXT), text);
            }
            *self = Tree::Record(record);
        }
        match self {
            Tree::Record(record) => record,
            _ => unreachable!("it was made a record just above"),
        }
    }

    /// This as a list to write into: what is there, or a new one.
    pub fn list_mut(&mut self) -> &mut Vec<Tree> {
        if !matches!(self, Tree::List(_)) {
            *self = Tree::List(Vec::new());
        }
        match self {
            Tree::List(items) => items,
            _ => unreachable!("it was made a list just above"),
        }
    }

    /// The nth item, counted from 1, of this as a list, which is made that long.
    pub fn nth_mut(&mut self, number: usize) -> &mut Tree {
        let items = self.list_mut();
        if items.len() < number {
            items.resize(number, Tree::Null);
        }
        #[expect(clippy::indexing_slicing, reason = "the list was made that long just above")]
        &mut items[number.saturating_sub(1)]
    }

    /// What kind of value this is, for a message: `text`, `a number`.
    pub fn kind(&self) -> &'static str {
        match self {
            Tree::Null => "null",
            Tree::Bool(_) => "true or false",
            Tree::Number(_) => "a number",
            Tree::Text(_) => "text",
            Tree::List(_) => "a list",
            Tree::Record(record) if record.get_plain(TEXT).is_some() => "text",
            Tree::Record(_) => "a group of fields",
        }
    }

    /// The tree as a JSON value, for schemas and documents about them. Repeated names become a list; namespaces
    /// are left out; a number too large for 64 bits becomes the nearest float, which is good enough to check a schema
    /// but not to pass money on: mappings never come this way.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::{Map, Number, Value};
        match self {
            Tree::Null => Value::Null,
            Tree::Bool(b) => Value::Bool(*b),
            Tree::Number(digits) => {
                let whole = digits
                    .parse::<i64>()
                    .map(Number::from)
                    .or_else(|_| digits.parse::<u64>().map(Number::from));
                let number = whole.ok().or_else(|| digits.parse::<f64>().ok().and_then(Number::from_f64));
                number.map_or_else(|| Value::String(digits.to_string()), Value::Number)
            }
            Tree::Text(text) => Value::String(text.to_string()),
            Tree::List(items) => Value::Array(items.iter().map(Tree::to_json).collect()),
            Tree::Record(record) => {
                let mut map = Map::new();
                for (name, tree) in &record.entries {
                    match map.get_mut(name.local.as_str()) {
                        None => {
                            map.insert(name.local.to_string(), tree.to_json());
                        }
                        Some(Value::Array(items)) if !matches!(tree, Tree::List(_)) => {
                            items.push(tree.to_json())
                        }
                        Some(first) => {
                            let earlier = first.take();
                            *first = Value::Array(vec![earlier, tree.to_json()]);
                        }
                    }
                }
                Value::Object(map)
            }
        }
    }

    /// A tree from a JSON value (examples, cases, kept values).
    pub fn from_json(value: &serde_json::Value) -> Tree {
        use serde_json::Value;
        match value {
            Value::Null => Tree::Null,
            Value::Bool(b) => Tree::Bool(*b),
            Value::Number(number) => Tree::Number(number.to_compact_string()),
            Value::String(text) => Tree::text(text.as_str()),
            Value::Array(items) => Tree::List(items.iter().map(Tree::from_json).collect()),
            Value::Object(map) => {
                Tree::Record(map.iter().map(|(k, v)| (Name::plain(k.as_str()), Tree::from_json(v))).collect())
            }
        }
    }
}
