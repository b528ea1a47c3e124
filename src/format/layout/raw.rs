//! A layout file exactly as written. The doc comments here are the reference and the editor's help: one home per key.
//!
//! Nothing is checked here beyond the types; [`super::compile`] says what it means.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A layout: how a file of records is built. Stands at `mappings/layouts/<name>.toml`. Exactly one of `csv`, `fixed`,
/// `xml` and `lines` says of what kind the file is.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LayoutFile {
    /// The version of this file format: 1.
    pub version: u32,
    /// What the file is, where its makers describe it, what is uncertain.
    pub about: String,
    /// The character encoding: `windows-1252`, `utf-16`. UTF-8 unless stated; a file that begins with the byte-order mark
    /// of UTF-16 need not be announced. UTF-16 is read, not written. XML says its encoding itself.
    pub encoding: Option<String>,
    /// Rows of cells parted by a character.
    pub csv: Option<CsvKeys>,
    /// Lines with fields at fixed positions.
    pub fixed: Option<FixedKeys>,
    /// XML in which one element is repeated.
    pub xml: Option<XmlKeys>,
    /// JSON lines: one JSON object a line.
    pub lines: Option<LinesKeys>,
    /// The kinds of records (CSV and fixed width). A CSV file without any has one kind, named by its columns.
    #[serde(default)]
    pub records: Vec<RecordKeys>,
    /// What must add up before the first record is released.
    #[serde(default)]
    pub totals: Vec<TotalKeys>,
}

/// How a CSV file is written.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CsvKeys {
    /// What parts the cells, one ASCII character. Default: `,`.
    pub delimiter: Option<String>,
    /// What stands around cells that hold the delimiter or a line break; doubled inside. Empty: there is no quoting.
    /// Default: `"`.
    pub quote: Option<String>,
    /// How many rows stand before the first record. Default: 1; 0 where `records` are given.
    pub header_rows: Option<usize>,
    /// Which of the header rows names the columns, counted from 1. Default: the last.
    pub names_row: Option<usize>,
    /// Where the names of the columns come from. Default: `file`; `layout` where there are no header rows.
    pub names: Option<NamesFrom>,
    /// Names from the file: the columns that must be there, in any order. Names from the layout: all columns, in order.
    #[serde(default)]
    pub columns: Vec<String>,
    /// Names from the file: columns that may be missing.
    #[serde(default)]
    pub optional: Vec<String>,
    /// How such a file is written.
    pub write: Option<CsvWriteKeys>,
}

/// Where the names of columns come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NamesFrom {
    /// From a header row of the file.
    File,
    /// From `columns`, by position.
    Layout,
}

/// How a CSV file is written.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CsvWriteKeys {
    /// How lines end. Default: `crlf`.
    pub line_end: Option<LineEnd>,
    /// Which cells are quoted. Default: `needed`.
    pub quote: Option<Quoting>,
    /// Whether the file begins with a byte-order mark (UTF-8 only).
    #[serde(default)]
    pub bom: bool,
    /// The header rows, cell by cell, where they are not one row with the names of the columns.
    pub header: Option<Vec<Vec<String>>>,
}

/// How lines end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LineEnd {
    /// Carriage return and line feed. Reading, a line feed alone is taken as well.
    Crlf,
    /// Line feed. Reading, one with a carriage return before it is taken as well.
    Lf,
    /// Nothing: records of fixed width follow each other.
    None,
}

/// Which cells are quoted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Quoting {
    /// Those that could not be read otherwise.
    Needed,
    /// All.
    Always,
    /// None; a cell that would need it is an error.
    Never,
}

/// How a file of fixed width is written.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FixedKeys {
    /// The width of each line without its end, unless its kind of record says otherwise. Absent: where the last field ends.
    pub width: Option<usize>,
    /// What positions count. Default: `bytes`.
    pub unit: Option<Unit>,
    /// How lines end. Default: `crlf`.
    pub line_end: Option<LineEnd>,
}

/// What positions count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Bytes in the file's encoding.
    Bytes,
    /// Characters.
    Characters,
}

/// How an XML file is split.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct XmlKeys {
    /// The namespaces by prefix; the empty prefix is the default namespace. Another namespace in a file is an error,
    /// unless it is listed under `accept`.
    #[serde(default)]
    pub namespaces: BTreeMap<String, String>,
    /// Namespaces that are read as if they were the default one: other versions of the same message that agree with
    /// this one in what is mapped.
    #[serde(default)]
    pub accept: Vec<String>,
    /// The path from the root to the repeated element: `Document/BkToCstmrStmt/Stmt/Ntry`.
    pub record: String,
    /// Elements that stand before the records and are kept in front of each, by their paths from the root.
    #[serde(default)]
    pub keep: Vec<String>,
}

/// JSON lines.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LinesKeys {}

/// A kind of record.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RecordKeys {
    /// What it is called: under this name a document holds its headers and children.
    pub name: String,
    /// What it is for. Default: `record`.
    pub role: Option<Role>,
    /// How it is told from the others. One kind at most has none: whatever no other is.
    pub when: Option<WhenKeys>,
    /// The width of its lines, if it differs from the file's.
    pub width: Option<usize>,
    /// Its lines or rows may be longer: what stands behind the last field is passed over. Where a file's makers do not say
    /// what comes there.
    #[serde(default)]
    pub longer: bool,
    /// Its fields.
    #[serde(default)]
    pub fields: Vec<FieldKeys>,
}

/// What a kind of record is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// A record: one document.
    Record,
    /// Kept in front of each record that follows it.
    Header,
    /// Ends what it stands behind; read for totals only.
    Trailer,
    /// Belongs to the record before it.
    Child,
    /// Passed over.
    Ignore,
}

/// How a kind of record is told from the others.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WhenKeys {
    /// Where, counted from 1: the position of the first character (fixed width) or the number of the column (CSV).
    pub at: usize,
    /// What stands there: one of these.
    pub is: Vec<String>,
}

/// A field of a record.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FieldKeys {
    /// What it is called.
    pub name: String,
    /// Fixed width: its first position, counted from 1 as specifications print it.
    pub from: Option<usize>,
    /// Fixed width: its last position, which belongs to it.
    pub to: Option<usize>,
    /// CSV: the number of its column, counted from 1.
    pub column: Option<usize>,
    /// On which side of a fixed field the text stands. Default: `left`.
    pub align: Option<Align>,
    /// With what a fixed field is filled up, one character; taken off when it is read. Of zeros one is left.
    /// Default: a space.
    pub fill: Option<String>,
    /// It is always this: written so, and anything else is an error when it is read.
    pub value: Option<String>,
}

/// On which side of its field a text stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Align {
    /// The fill stands behind the text.
    Left,
    /// The fill stands before the text.
    Right,
}

/// Something that must add up. Fields are written `record.field`; in XML they are paths from the root. In XML a total is
/// checked where the element that holds the records ends, from what is kept before them.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TotalKeys {
    /// What it is, for the message: `number of details`.
    pub what: String,
    /// Counts the records of these kinds; in XML `["record"]`.
    pub count: Option<Vec<String>>,
    /// Adds up this field, exactly.
    pub sum: Option<String>,
    /// An amount counts negative where this holds; in XML opening and stated totals as well.
    pub minus_when: Option<BesideKeys>,
    /// XML: only amounts beside which this stands are added up.
    pub when: Option<BesideKeys>,
    /// Where to start: the opening balance.
    pub start: Option<String>,
    /// XML: beside the opening balance stands this.
    pub start_when: Option<BesideKeys>,
    /// The field that states the total.
    pub equals: String,
    /// XML: beside the stated total stands this.
    pub equals_when: Option<BesideKeys>,
}

/// What stands beside an amount.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BesideKeys {
    /// The field of the same record; in XML a path from the element that holds the amount: `Tp/CdOrPrtry/Cd`.
    pub field: String,
    /// XML: or this one, where two versions of a message have it in two places.
    pub or: Option<String>,
    /// What it is: one of these.
    pub is: Vec<String>,
}
