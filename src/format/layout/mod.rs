//! Layouts: how a file of records is built, compiled from `mappings/layouts/*.toml`.
//!
//! A layout says where a record begins, what its fields are called and how it is written; it knows no event and no
//! system. [`super::records`] splits files by it, [`super::Format::read`] reads one record, [`Layout::write_record`] writes one.

mod compile;
pub mod raw;
mod write;

pub use compile::compile;
pub use raw::{Align, LineEnd, NamesFrom, Quoting, Role, Unit};
pub(super) use write::write_group;

use crate::tree::Name;
use encoding_rs::Encoding;
use std::sync::Arc;

/// How a file of records is built.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Its name.
    pub name: String,
    /// The digest of its file: what a layout says decides what a mapping makes.
    pub digest: String,
    /// The encoding in which records are read and written: UTF-8, or one of one byte a character.
    pub encoding: &'static Encoding,
    /// The encoding of files that are made UTF-8 before they are split.
    pub wide: Option<&'static Encoding>,
    /// What kind of file it is.
    pub shape: Shape,
    /// The kinds of records; none for XML, JSON lines and CSV files whose rows are all alike.
    pub records: Vec<RecordType>,
    /// What must add up.
    pub totals: Vec<Total>,
}

/// What kind of file a layout is for.
#[derive(Debug, Clone)]
pub enum Shape {
    /// Rows of cells.
    Csv(Csv),
    /// Fields at fixed positions.
    Fixed(Fixed),
    /// XML with a repeated element.
    Xml(Xml),
    /// JSON lines.
    Lines,
}

/// How cells are parted, named and written.
#[derive(Debug, Clone)]
pub struct Csv {
    /// What parts cells.
    pub delimiter: u8,
    /// What stands around them.
    pub quote: Option<u8>,
    /// Rows before the first record.
    pub header_rows: usize,
    /// Which of them names the columns, counted from 1; 0: none.
    pub names_row: usize,
    /// Columns that must be there, or all by position if no row names them.
    pub columns: Vec<Name>,
    /// Columns that may be missing.
    pub optional: Vec<Name>,
    /// How lines end in writing.
    pub line_end: LineEnd,
    /// Which cells are quoted in writing.
    pub quoting: Quoting,
    /// Whether a written file begins with a byte-order mark.
    pub bom: bool,
    /// The header rows as written.
    pub header: Vec<Vec<String>>,
}

/// How lines of fixed width are written.
#[derive(Debug, Clone, Copy)]
pub struct Fixed {
    /// What positions count.
    pub unit: Unit,
    /// How lines end.
    pub line_end: LineEnd,
}

/// How an XML file is split.
#[derive(Debug, Clone)]
pub struct Xml {
    /// The namespaces a file may use.
    pub namespaces: super::Namespaces,
    /// Namespaces that count as the default one.
    pub accept: Vec<Arc<str>>,
    /// The path to the repeated element.
    pub record: Vec<Name>,
    /// The paths of what is kept in front of each record.
    pub keep: Vec<Vec<Name>>,
}

/// A kind of record.
#[derive(Debug, Clone)]
pub struct RecordType {
    /// What it is called.
    pub name: Name,
    /// What it is for.
    pub role: Role,
    /// Where it is told from the others, and by what.
    pub when: Option<(usize, Vec<String>)>,
    /// The width of a line; the number of cells of a row.
    pub width: usize,
    /// Whether it may be longer.
    pub longer: bool,
    /// Its fields, in order.
    pub fields: Vec<Field>,
}

/// A field.
#[derive(Debug, Clone)]
pub struct Field {
    /// What it is called.
    pub name: Name,
    /// Where it begins, counted from 0: a position, or a column.
    pub at: usize,
    /// How wide it is; of a cell nobody knows.
    pub width: Option<usize>,
    /// On which side the text stands.
    pub align: Align,
    /// What fills it up.
    pub fill: char,
    /// What it always is.
    pub value: Option<String>,
}

/// Something that must add up.
#[derive(Debug, Clone)]
pub struct Total {
    /// What it is.
    pub what: String,
    /// What is added up.
    pub of: Sum,
    /// Where to start.
    pub start: Option<Amount>,
    /// Where the total is stated.
    pub equals: Amount,
}

/// What stands beside an amount: in one of the places one of the texts.
#[derive(Debug, Clone, PartialEq)]
pub struct Beside {
    /// The places.
    pub at: Vec<Source>,
    /// The texts.
    pub is: Vec<String>,
}

/// Where an amount stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Amount {
    /// The field.
    pub at: Source,
    /// XML: which of several counts: what must stand beside it.
    pub when: Option<Beside>,
}

/// What is added up.
#[derive(Debug, Clone)]
pub enum Sum {
    /// Records of these kinds, by their place in [`Layout::records`]; in XML all.
    Count(Vec<usize>),
    /// A field, negative where another is one of these texts.
    Field {
        /// The amount.
        amount: Amount,
        /// What makes it negative.
        minus: Option<Beside>,
    },
}

/// A field of a kind of record.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// The kind of record and the field, by their places.
    Field(usize, usize),
    /// XML: names from the root down, or of what stands beside an amount from the element that holds it.
    Path(Vec<Name>),
}

impl RecordType {
    /// Whether a line so wide, or a row of so many cells, is such a record.
    pub(super) fn holds(&self, width: usize) -> bool {
        if self.longer { width >= self.width } else { width == self.width }
    }
}

impl Layout {
    /// The layout of JSON lines: an object a line, in UTF-8.
    pub fn json_lines() -> &'static Layout {
        static LINES: std::sync::OnceLock<Layout> = std::sync::OnceLock::new();
        LINES.get_or_init(|| Layout { shape: Shape::Lines, ..Layout::plain_csv().clone() })
    }

    /// The layout of a CSV file of which nothing is said: commas, quotes, one header row, UTF-8.
    pub fn plain_csv() -> &'static Layout {
        static PLAIN: std::sync::OnceLock<Layout> = std::sync::OnceLock::new();
        PLAIN.get_or_init(|| Layout {
            name: String::new(),
            digest: String::new(),
            encoding: encoding_rs::UTF_8,
            wide: None,
            shape: Shape::Csv(Csv {
                delimiter: b',',
                quote: Some(b'"'),
                header_rows: 1,
                names_row: 1,
                columns: Vec::new(),
                optional: Vec::new(),
                line_end: LineEnd::Crlf,
                quoting: Quoting::Needed,
                bom: false,
                header: Vec::new(),
            }),
            records: Vec::new(),
            totals: Vec::new(),
        })
    }

    /// The CSV side of it.
    pub(super) fn csv(&self) -> Option<&Csv> {
        match &self.shape {
            Shape::Csv(csv) => Some(csv),
            Shape::Fixed(_) | Shape::Xml(_) | Shape::Lines => None,
        }
    }

    /// The XML side of it.
    pub(super) fn xml(&self) -> Option<&Xml> {
        match &self.shape {
            Shape::Xml(xml) => Some(xml),
            Shape::Csv(_) | Shape::Fixed(_) | Shape::Lines => None,
        }
    }

    /// The format of files of this layout.
    pub fn format(&self) -> super::Format {
        match self.shape {
            Shape::Csv(_) => super::Format::Csv,
            Shape::Fixed(_) => super::Format::Fixed,
            Shape::Xml(_) => super::Format::Xml,
            Shape::Lines => super::Format::Json,
        }
    }

    /// The one kind of record of that name.
    pub fn record(&self, name: &str) -> Option<&RecordType> {
        self.records.iter().find(|record| record.name.local == name)
    }

    /// The names at the top level of a record's document and below a header's or child's name, with the width of fixed
    /// fields. `None` where the layout cannot know them: XML, JSON lines, CSV whose columns only the file names.
    pub fn places(&self) -> Option<Vec<Place<'_>>> {
        let one = |name, below, width| Place { below, name, width };
        match &self.shape {
            Shape::Xml(_) | Shape::Lines => None,
            Shape::Csv(csv) if self.records.is_empty() => {
                let known = csv.columns.iter().chain(&csv.optional);
                let places: Vec<Place<'_>> = known.map(|name| one(name.local.as_str(), None, None)).collect();
                (!places.is_empty()).then_some(places)
            }
            Shape::Csv(_) | Shape::Fixed(_) => Some(
                self.records
                    .iter()
                    .filter_map(|record| match record.role {
                        Role::Record => Some((None, record)),
                        Role::Header | Role::Child => Some((Some(record), record)),
                        Role::Trailer | Role::Ignore => None,
                    })
                    .flat_map(|(below, record)| {
                        record.fields.iter().map(move |field| {
                            one(
                                field.name.local.as_str(),
                                below.map(|r| (r.name.local.as_str(), r.role)),
                                field.width,
                            )
                        })
                    })
                    .collect(),
            ),
        }
    }
}

/// A place that a layout has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'l> {
    /// The header or child that it stands in.
    pub below: Option<(&'l str, Role)>,
    /// Its name.
    pub name: &'l str,
    /// How wide it is.
    pub width: Option<usize>,
}
