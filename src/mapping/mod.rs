//! Mappings: the table that translates between one type of event and one document, compiled once, used both ways.
//!
//! Pure: no clock, no file, no network. [`compile`] turns a [`raw::MappingFile`] into a [`Mapping`] or says everything
//! that is wrong with it; [`Mapping::to_document`] and [`Mapping::to_event`] run it; [`laws`] says whether what goes over
//! comes back.

pub mod cases;
pub mod checks;
pub mod codes;
mod compile;
pub mod convert;
pub mod dates;
pub mod generate;
pub mod laws;
pub mod path;
pub mod raw;
mod read;
mod write;

pub use compile::{Condition, Test, With, bad_path, bad_template, compile, impossible};

use crate::{
    code::Code,
    event::{Event, schema::EventSchema},
    format::{Format, FormatError, Limits, Style, charset},
    template::{Template, Texts},
    tree::{Name, Tree},
};
use convert::Conversion;
use jiff::Timestamp;
use path::Path;
use raw::Direction;
use std::{cell::RefCell, collections::BTreeSet, fmt, sync::Arc};

/// A compiled mapping.
#[derive(Debug)]
pub struct Mapping {
    /// `<system>/<document>`.
    pub name: String,
    /// The digest of the mapping with its schema and code lists, as the journal keeps it: which mapping did this?
    pub digest: String,
    /// The event's schema.
    pub schema: Arc<EventSchema>,
    /// The document's format.
    pub format: Format,
    /// How the document is written.
    pub style: Style,
    /// The direction, if it works in one only.
    pub only: Option<Direction>,
    root: Option<Name>,
    rows: Vec<Row>,
    known: read::Known,
}

/// A compiled row.
#[derive(Debug)]
struct Row {
    /// Its number in the file, in the order of writing, to tell rows apart.
    number: usize,
    /// The line in the file.
    line: usize,
    event: Option<EventPlace>,
    document: Option<Path>,
    input: Input,
    default: Option<String>,
    when: Vec<Condition>,
    only: Option<Direction>,
    required: bool,
    /// Whether the event's schema requires the field.
    event_requires: bool,
    lossy: bool,
    quoted: bool,
    personal: bool,
    body: Body,
    sum: Option<Path>,
    /// A group: how many the document holds at most.
    most: Option<usize>,
    /// Money: the largest amount that the system takes, in pence.
    max_pence: Option<i64>,
    /// What the document holds where there is no value.
    none: Vec<String>,
    /// Codes that are valid on some days only: the event's field that names the day.
    codes_at: Option<Path>,
}

/// Where in an event.
#[derive(Debug)]
enum EventPlace {
    /// In its data.
    Data(Path),
    /// One of its attributes.
    Attribute(Attribute),
}

/// The attributes of an event that rows can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attribute {
    /// `$id`
    Id,
    /// `$source`
    Source,
    /// `$subject`
    Subject,
    /// `$time`
    Time,
    /// `$type`
    Type,
}

/// Where a row's value comes from.
#[derive(Debug)]
enum Input {
    /// From the other side.
    Other,
    /// It is fixed.
    Constant(String),
    /// From a setting of the adapter.
    Setting(String),
    /// From a value that the adapter computed.
    Value(String),
    /// From what was kept of the cause.
    Cause(Path),
    /// From a template.
    Template(Template),
}

/// What a row does with its value.
#[derive(Debug)]
enum Body {
    /// It goes over by a conversion.
    Value { conversion: Conversion, kind: crate::event::schema::Kind, fund: Option<Path> },
    /// It is a group with rows of its own.
    Group(Vec<Row>),
    /// It is a group packed into one text.
    Packed { separator: String, max: Option<usize>, rows: Vec<Row> },
}

/// What a mapping is given beside the event or the document.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The adapter's settings, secrets left out.
    pub settings: &'a Texts,
    /// What the adapter computed for this message.
    pub values: &'a Texts,
    /// What was kept from what caused this.
    pub cause: Option<&'a Tree>,
    /// The moment.
    pub now: Timestamp,
    /// Where to write down what was done, for `--explain` and the laws.
    pub trace: Option<&'a Trace>,
}

/// What a mapping made of a document: an event without the parts that only the route knows.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEvent {
    /// `$id`, if a row makes one.
    pub id: Option<String>,
    /// `$subject`, by a row or else by the schema.
    pub subject: Option<String>,
    /// `$time`, if a row makes one.
    pub time: Option<String>,
    /// The data.
    pub data: Tree,
    /// Parts of the document that no row knows.
    pub drift: Vec<String>,
}

/// A row that could not be carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The code.
    pub code: Code,
    /// The line of the row in the mapping's file; 0 where no row is at fault.
    pub line: usize,
    /// The field: of the input, and of the output where that says more.
    pub field: String,
    /// What is wrong, without the value.
    pub what: String,
    /// The value, for a person who tries the mapping out. Never logged, never put into headers, left out if personal.
    pub value: Option<String>,
}

/// Everything that kept a message from being mapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failures {
    /// The mapping.
    pub mapping: String,
    /// One or more.
    pub all: Vec<Failure>,
}

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(first) = self.all.first() else { return Ok(()) };
        write!(f, "mappings/{}.toml", self.mapping)?;
        if first.line > 0 {
            write!(f, ":{}", first.line)?;
        }
        write!(f, " `{}`: {}", first.field, first.what)?;
        match self.all.len() {
            1 => Ok(()),
            more => write!(f, " (and {} more)", more - 1),
        }
    }
}

impl std::error::Error for Failures {}

/// A place in the documents of a mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// The place.
    pub name: String,
    /// Its first step's name: in a row of a table, the column.
    pub column: String,
    /// Whether it is one value directly in the document.
    pub plain: bool,
    /// Whether a document without it can never be mapped.
    pub needed: bool,
}

/// What one row did.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The row's number.
    pub row: usize,
    /// Its line in the file.
    pub line: usize,
    /// The event's field.
    pub event: String,
    /// The document's place.
    pub document: String,
    /// The conversion, or where else the value came from.
    pub how: String,
    /// The value on the event's side.
    pub event_value: Tree,
    /// The value on the document's side.
    pub document_value: Tree,
}

/// What the rows did, in order.
#[derive(Debug, Default)]
pub struct Trace(pub RefCell<Vec<Step>>);

impl Mapping {
    /// Whether it can be used in this direction.
    pub fn works(&self, direction: Direction) -> bool {
        self.only.is_none_or(|only| only == direction)
    }

    /// The adapter's settings that its rows use.
    pub fn settings_used(&self) -> BTreeSet<String> {
        self.collect(|row| match &row.input {
            Input::Setting(name) => vec![name.clone()],
            Input::Template(template) => names_under(template, "settings."),
            _ => Vec::new(),
        })
    }

    /// The computed values that its rows use.
    pub fn values_used(&self) -> BTreeSet<String> {
        self.collect(|row| match &row.input {
            Input::Value(name) => vec![name.clone()],
            Input::Template(template) => names_under(template, "values."),
            _ => Vec::new(),
        })
    }

    /// The constants it puts into events, by field: what can be proved of every event it makes.
    pub fn event_constants(&self) -> Vec<(String, String)> {
        let constant = |row: &Row| match (&row.input, &row.event) {
            (Input::Constant(value), Some(EventPlace::Data(path))) if row.when.is_empty() => {
                Some((path.to_string(), value.clone()))
            }
            _ => None,
        };
        self.rows.iter().filter_map(constant).collect()
    }

    /// Reads one of its documents.
    ///
    /// # Errors
    /// What is not as the format and the layout say.
    pub fn read(&self, bytes: &[u8]) -> Result<Tree, FormatError> {
        self.format.read(bytes, None, self.style.layout.as_deref(), &Limits::default())
    }

    /// Reads one of its documents that somebody wrote as text, in a case.
    ///
    /// # Errors
    /// As [`Mapping::read`]; and a character that the layout's encoding lacks.
    pub fn read_text(&self, text: &str) -> Result<Tree, FormatError> {
        match &self.style.layout {
            Some(layout) => self.read(&charset::encode(text.to_owned(), Some(layout.encoding))?),
            None => self.read(text.as_bytes()),
        }
    }

    /// The places in documents that its rows write (to documents) or read (to events): each once, those of groups by the
    /// group's own place.
    pub fn document_fields(&self, direction: Direction) -> Vec<Field> {
        let mut found: Vec<Field> = Vec::new();
        for row in self.rows.iter().filter(|row| row.goes(direction)) {
            let from_elsewhere = direction == Direction::ToEvent && !matches!(row.input, Input::Other);
            let Some(path) = row.document.as_ref().filter(|_| !from_elsewhere) else { continue };
            let needed = (row.required || row.event_requires) && row.default.is_none() && row.when.is_empty();
            let name = path.to_string();
            match found.iter_mut().find(|field| field.name == name) {
                Some(field) => field.needed |= needed,
                None => found.push(Field {
                    plain: path.steps().len() == 1
                        && !path.is_repeated()
                        && !matches!(row.body, Body::Group(_)),
                    column: path.steps().first().map(|step| step.name.local.to_string()).unwrap_or_default(),
                    name,
                    needed,
                }),
            }
        }
        found
    }

    fn collect(&self, of: impl Fn(&Row) -> Vec<String> + Copy) -> BTreeSet<String> {
        fn walk(rows: &[Row], of: impl Fn(&Row) -> Vec<String> + Copy, found: &mut BTreeSet<String>) {
            for row in rows {
                found.extend(of(row));
                if let Body::Group(rows) | Body::Packed { rows, .. } = &row.body {
                    walk(rows, of, found);
                }
            }
        }
        let mut found = BTreeSet::new();
        walk(&self.rows, of, &mut found);
        found
    }

    /// The document for an event.
    ///
    /// # Errors
    /// Every row that could not be carried out.
    pub fn to_document(&self, event: &Event, context: Context<'_>) -> Result<Tree, Failures> {
        let (document, failures) = write::run(self, event, context);
        match failures.is_empty() {
            true => Ok(document),
            false => Err(Failures { mapping: self.name.clone(), all: failures }),
        }
    }

    /// The event for a document, its data checked against the schema.
    ///
    /// # Errors
    /// Every row that could not be carried out; everything in which the data breaks its schema.
    pub fn to_event(&self, document: &Tree, context: Context<'_>) -> Result<NewEvent, Failures> {
        let (event, mut failures) = read::run(self, document, context);
        if failures.is_empty() {
            failures.extend(self.schema.breaches(&event.data).into_iter().map(|breach| Failure {
                code: Code::ResultBreaksSchema,
                line: 0,
                field: breach.field,
                what: format!("the event would break its schema: {}", breach.what),
                value: None,
            }));
        }
        match failures.is_empty() {
            true => Ok(event),
            false => Err(Failures { mapping: self.name.clone(), all: failures }),
        }
    }
}

impl Row {
    /// The day on which a code must be valid: that of the field which the row names, or else the message's.
    fn day(&self, conversion: &Conversion, item: &Tree, now: Timestamp) -> Option<jiff::civil::Date> {
        let Conversion::Codes(list) = conversion else { return None };
        if !list.has_validity() {
            return None;
        }
        let named = self.codes_at.as_ref().and_then(|path| path.find(item)).and_then(Tree::as_text);
        let named = named.and_then(|text| dates::DateForm::plain("iso8601").read(text).ok());
        Some(named.unwrap_or_else(|| dates::london().to_datetime(now).date()))
    }

    fn goes(&self, direction: Direction) -> bool {
        self.only.is_none_or(|only| only == direction)
    }

    /// The field's name for a message.
    fn field(&self) -> String {
        match (&self.event, &self.document) {
            (Some(event), Some(document)) => format!("{event} / {document}"),
            (Some(event), None) => event.to_string(),
            (None, Some(document)) => document.to_string(),
            (None, None) => String::new(),
        }
    }

    fn failure(&self, code: Code, what: impl Into<String>, value: Option<&Tree>) -> Failure {
        let value = value.filter(|_| !self.personal).and_then(Tree::to_plain_text);
        Failure { code, line: self.line, field: self.field(), what: what.into(), value }
    }
}

impl fmt::Display for EventPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EventPlace::Data(path) => path.fmt(f),
            EventPlace::Attribute(attribute) => f.write_str(attribute.as_str()),
        }
    }
}

impl Attribute {
    /// All of them.
    pub const ALL: [Attribute; 5] =
        [Attribute::Id, Attribute::Source, Attribute::Subject, Attribute::Time, Attribute::Type];

    /// As written in a row.
    pub fn as_str(self) -> &'static str {
        match self {
            Attribute::Id => "$id",
            Attribute::Source => "$source",
            Attribute::Subject => "$subject",
            Attribute::Time => "$time",
            Attribute::Type => "$type",
        }
    }

    fn of(self, event: &Event) -> Option<&str> {
        match self {
            Attribute::Id => Some(&event.id),
            Attribute::Source => Some(&event.source),
            Attribute::Subject => event.subject.as_deref(),
            Attribute::Time => event.time.as_deref(),
            Attribute::Type => Some(&event.event_type),
        }
    }
}

/// The names below one of a scope's names that a template uses: `site_id` for `settings.site_id`.
pub fn names_under(template: &Template, prefix: &str) -> Vec<String> {
    let names = template.names();
    let below = names.iter().filter_map(|name| name.strip_prefix(prefix));
    below.map(|name| name.split('.').next().unwrap_or(name).to_owned()).collect()
}
