//! The formats in which systems speak: bytes to tree and back, nothing else.
//!
//! A format knows no mapping, no transport and no clock. Everything read has [`Limits`]; everything refused says where
//! in the document, by line and column. HL7 is a further variant of [`Format`].
//!
//! A file of many records is split by [`records::Records`]; each record is a document by itself, read by [`Format::read`].

mod cells;
pub mod charset;
mod fixed;
mod form;
mod json;
pub mod layout;
mod names;
pub mod records;
mod soap;
pub mod wide;
mod xml;

pub use json::{parse as parse_json, write as write_json, write_pretty as write_json_pretty};
pub use layout::Layout;
pub use names::Namespaces;
pub use soap::{Fault, fault};

use crate::{code::Code, tree::Tree};
use serde::{Deserialize, Serialize};
use std::{fmt, sync::Arc};

/// How a document is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// JSON (RFC 8259).
    Json,
    /// XML 1.0 with namespaces. DTDs are refused.
    Xml,
    /// A SOAP 1.1 envelope; the mapping sees the element inside the body.
    #[serde(rename = "soap-1.1")]
    Soap11,
    /// A SOAP 1.2 envelope; the mapping sees the element inside the body.
    #[serde(rename = "soap-1.2")]
    Soap12,
    /// Name and value pairs as an HTML form sends them (`application/x-www-form-urlencoded`).
    Form,
    /// Rows of cells (RFC 4180, and what else is called CSV). A layout says what parts the cells and names the columns;
    /// without one: commas, double quotes and one header row.
    Csv,
    /// Lines with fields at fixed positions, by a layout.
    Fixed,
}

/// What a document may be at most. Bigger ones are refused before they cost memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the whole document, as received.
    pub bytes: usize,
    /// How deep elements or objects may be nested.
    pub depth: usize,
    /// How many values (elements, members, items) there may be in all.
    pub values: usize,
    /// Bytes of one text or one attribute value.
    pub text: usize,
    /// Attributes of one element.
    pub attributes: usize,
    /// Namespace declarations in force at one place.
    pub namespaces: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            bytes: 16 << 20,
            depth: 64,
            values: 1_000_000,
            text: 4 << 20,
            attributes: 256,
            namespaces: 64,
        }
    }
}

/// How a tree is to be written.
#[derive(Debug, Clone, Default)]
pub struct Style {
    /// The prefixes to declare on the root element, in order. XML only.
    pub namespaces: Namespaces,
    /// The character encoding of the bytes; `None` is UTF-8.
    pub charset: Option<&'static encoding_rs::Encoding>,
    /// How a record is built. CSV and fixed width only.
    pub layout: Option<Arc<Layout>>,
}

/// Why bytes could not be read as a document, or a tree not written as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormatError {
    /// The stable code of the failure.
    pub code: Code,
    /// What is wrong, in lower case, with no value of the document in it.
    pub what: String,
    /// Where in the document; absent when writing.
    pub at: Option<Place>,
}

/// A place in a document: line and column counted from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl Place {
    /// The place of a byte offset in text.
    pub fn of(text: &[u8], offset: usize) -> Place {
        let before = text.get(..offset.min(text.len())).unwrap_or_default();
        let line = before.iter().filter(|b| **b == b'\n').count() + 1;
        let start = before.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let column =
            before.get(start..).unwrap_or_default().iter().filter(|b| (**b & 0xC0) != 0x80).count() + 1;
        Place { line, column }
    }
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        match self.at {
            Some(Place { line, column }) => write!(f, " (line {line}, column {column} of the document)"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for FormatError {}

impl FormatError {
    /// A failure at a byte offset of the text being read.
    pub(crate) fn at(code: Code, what: impl Into<String>, text: &[u8], offset: usize) -> FormatError {
        FormatError { code, what: what.into(), at: Some(Place::of(text, offset)) }
    }

    /// A failure that has no place.
    pub(crate) fn nowhere(code: Code, what: impl Into<String>) -> FormatError {
        FormatError { code, what: what.into(), at: None }
    }
}

impl Format {
    /// The media type a document of this format is sent with.
    pub fn media_type(self) -> &'static str {
        match self {
            Format::Json => "application/json",
            Format::Xml => "application/xml",
            Format::Soap11 => "text/xml",
            Format::Soap12 => "application/soap+xml",
            Format::Form => "application/x-www-form-urlencoded",
            Format::Csv => "text/csv",
            Format::Fixed => "text/plain",
        }
    }

    /// As written in files.
    pub fn as_str(self) -> &'static str {
        match self {
            Format::Json => "json",
            Format::Xml => "xml",
            Format::Soap11 => "soap-1.1",
            Format::Soap12 => "soap-1.2",
            Format::Form => "form",
            Format::Csv => "csv",
            Format::Fixed => "fixed",
        }
    }

    /// Whether values have types of their own (a number is not a text). In the others every value is text.
    pub fn typed(self) -> bool {
        match self {
            Format::Json => true,
            Format::Xml | Format::Soap11 | Format::Soap12 | Format::Form | Format::Csv | Format::Fixed => {
                false
            }
        }
    }

    /// Whether names may be in namespaces and may repeat.
    pub fn is_xml(self) -> bool {
        match self {
            Format::Xml | Format::Soap11 | Format::Soap12 => true,
            Format::Json | Format::Form | Format::Csv | Format::Fixed => false,
        }
    }

    /// Reads a document. `charset` is what the transport said of the encoding (the `charset` parameter of a content
    /// type), which in XML counts less than a byte-order mark and more than the declaration (RFC 7303 s.3).
    ///
    /// # Errors
    /// What is not well-formed, beyond a limit, or refused on principle (DTDs, entities, duplicate members).
    pub fn decode(self, bytes: &[u8], charset: Option<&str>, limits: &Limits) -> Result<Tree, FormatError> {
        self.read(bytes, charset, None, limits)
    }

    /// Reads a document by a layout: one record with the headers that stand before it in its file.
    ///
    /// # Errors
    /// As [`Format::decode`]; and what is not as the layout says.
    pub fn read(
        self,
        bytes: &[u8],
        charset: Option<&str>,
        layout: Option<&Layout>,
        limits: &Limits,
    ) -> Result<Tree, FormatError> {
        if bytes.len() > limits.bytes {
            return Err(FormatError::nowhere(
                Code::DocumentTooLarge,
                format!("the document has {} bytes; at most {} are read", bytes.len(), limits.bytes),
            ));
        }
        match self {
            Format::Json => json::parse(&charset::decode(bytes, charset, None)?, limits),
            Format::Xml => {
                let text = charset::decode(bytes, charset, Some(charset::xml_declaration))?;
                let by = layout.and_then(Layout::xml);
                xml::parse_by(&text, by, limits)
            }
            Format::Soap11 | Format::Soap12 => {
                let text = charset::decode(bytes, charset, Some(charset::xml_declaration))?;
                soap::open(xml::parse(&text, limits)?)
            }
            Format::Form => form::parse(&charset::decode(bytes, charset, None)?, limits),
            Format::Csv => cells::parse(bytes, charset, layout.unwrap_or(Layout::plain_csv()), limits),
            Format::Fixed => fixed::parse(bytes, charset, layout.ok_or_else(fixed::no_layout)?, limits),
        }
    }

    /// Writes a document.
    ///
    /// # Errors
    /// What the format cannot hold: a control character in XML, a character that the encoding lacks, a list in a form.
    pub fn encode(self, tree: &Tree, style: &Style) -> Result<Vec<u8>, FormatError> {
        let text = match self {
            Format::Json => json::write(tree),
            Format::Xml => xml::write(tree, style)?,
            Format::Soap11 => soap::write(tree, style, soap::SPACE_11)?,
            Format::Soap12 => soap::write(tree, style, soap::SPACE_12)?,
            Format::Form => form::write(tree)?,
            Format::Csv => return cells::write(tree, style.layout.as_deref().unwrap_or(Layout::plain_csv())),
            Format::Fixed => {
                return fixed::write(tree, style.layout.as_deref().ok_or_else(fixed::no_layout)?);
            }
        };
        charset::encode(text, style.charset)
    }
}
