//! A file of many records, read one by one in constant memory: where each begins to the byte, what belongs to it, what
//! stands before it, and whether the totals agree.
//!
//! Each record is a document by itself: `frame.wrap(piece)`, byte for byte as in the file. What is wrong with one
//! record only ([`Piece::wrong`]) leaves the others alone; what makes the rest of the file unreadable is an error, and
//! the file is refused whole. Knows no file, only something to read from.

mod only;
mod rows;
mod totals;
mod window;
mod xml;

pub use only::only;

use super::{Format, FormatError, Layout, Limits};
use crate::{code::Code, tree::Tree};
use rows::Rows;
use serde::{Deserialize, Serialize};
use std::{io::BufRead, sync::Arc};
use totals::Totals;
use window::Window;

/// What a file of records may be at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordLimits {
    /// Bytes of one record with all that belongs to it.
    pub bytes: usize,
    /// Cells of a row.
    pub columns: usize,
    /// Bytes of what is kept before each record.
    pub head: usize,
    /// Records in all.
    pub records: u64,
}

impl Default for RecordLimits {
    fn default() -> RecordLimits {
        RecordLimits { bytes: 1 << 20, columns: 4_096, head: 1 << 20, records: u64::MAX }
    }
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Its number, counted from 1.
    pub number: u64,
    /// The line at which it begins.
    pub line: u64,
    /// The byte at which it begins.
    pub offset: u64,
    /// Its own bytes.
    pub bytes: Vec<u8>,
    /// What is wrong with it, and with no other.
    pub wrong: Option<FormatError>,
}

/// What stands around each record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// Before it.
    #[serde(with = "packed")]
    pub before: Vec<u8>,
    /// Behind it.
    #[serde(with = "packed")]
    pub after: Vec<u8>,
}

impl Frame {
    /// The document of a record.
    pub fn wrap(&self, record: &[u8]) -> Vec<u8> {
        let mut document = Vec::with_capacity(self.before.len() + record.len() + self.after.len());
        document.extend_from_slice(&self.before);
        document.extend_from_slice(record);
        document.extend_from_slice(&self.after);
        document
    }
}

/// Where reading goes on: behind the record that was read last.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// The byte at which the rest begins.
    pub offset: u64,
    /// The line there.
    pub line: u64,
    /// Records read.
    pub number: u64,
    /// Of them wrong.
    pub bad: u64,
    /// What stands around records here.
    pub frame: Frame,
    /// What the splitter knows of the file up to here.
    rows: rows::State,
    /// The same of an XML file.
    xml: xml::State,
    /// What has been added up.
    totals: Vec<totals::Running>,
}

/// What a file was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Records in all.
    pub records: u64,
    /// Of them wrong.
    pub bad: u64,
    /// Totals that could not be checked because a record that counts in them is wrong.
    pub unchecked: Vec<String>,
}

/// Splits a file into records.
#[derive(Debug)]
pub struct Records<R> {
    window: Window<R>,
    layout: Arc<Layout>,
    limits: RecordLimits,
    frame: Frame,
    number: u64,
    bad: u64,
    line: u64,
    rows: Rows,
    xml: Option<xml::Splitter>,
    totals: Totals,
}

impl<R: BufRead> Records<R> {
    /// Begins a file: looks what it is, and reads what stands before its records.
    ///
    /// # Errors
    /// A file of another kind, another encoding, without a column that must be there.
    pub fn new(
        format: Format,
        layout: Option<Arc<Layout>>,
        reader: R,
        limits: RecordLimits,
    ) -> Result<Records<R>, FormatError> {
        let mut records = Records::at(format, layout, reader, limits, Point { line: 1, ..Point::default() })?;
        records.begin()?;
        Ok(records)
    }

    /// Goes on at a point; the reader stands at `point.offset`.
    ///
    /// # Errors
    /// A point that does not belong to the layout.
    pub fn resume(
        format: Format,
        layout: Option<Arc<Layout>>,
        reader: R,
        limits: RecordLimits,
        point: Point,
    ) -> Result<Records<R>, FormatError> {
        Records::at(format, layout, reader, limits, point)
    }

    fn at(
        format: Format,
        layout: Option<Arc<Layout>>,
        reader: R,
        limits: RecordLimits,
        point: Point,
    ) -> Result<Records<R>, FormatError> {
        let layout = match (layout, format) {
            (Some(layout), _) => layout,
            (None, Format::Csv) => Arc::new(Layout::plain_csv().clone()),
            (None, Format::Json) => Arc::new(Layout::json_lines().clone()),
            (None, Format::Xml | Format::Soap11 | Format::Soap12 | Format::Form | Format::Fixed) => {
                let what = "a file is split into records by a layout, and none is named";
                return Err(FormatError::nowhere(Code::WrongRecord, what));
            }
        };
        if layout.format() != format {
            return Err(super::cells::wrong_layout(&layout, format.media_type()));
        }
        let rows = Rows::resume(&layout, point.rows, &point.frame, &limits)?;
        let xml = xml::Splitter::resume(&layout, point.xml)?;
        let totals = Totals::resume(&layout, point.totals);
        Ok(Records {
            window: Window::new(reader, point.offset),
            layout,
            limits,
            frame: point.frame,
            number: point.number,
            bad: point.bad,
            line: point.line,
            rows,
            xml,
            totals,
        })
    }

    /// The next record. An error ends the file: it cannot be read on.
    ///
    /// # Errors
    /// A quote that never closes, a record beyond the limits, a file that is cut off.
    #[expect(
        clippy::should_implement_trait,
        reason = "an error must not be passed over as an iterator lets one"
    )]
    pub fn next(&mut self) -> Result<Option<Piece>, FormatError> {
        let piece = match self.xml {
            Some(_) => self.next_element()?,
            None => self.next_row()?,
        };
        if let Some(piece) = &piece {
            self.number = piece.number;
            self.bad += u64::from(piece.wrong.is_some());
            if self.number > self.limits.records {
                let what = format!("the file has more than {} records", self.limits.records);
                return Err(self.refuse(Code::DocumentTooLarge, what));
            }
        }
        Ok(piece)
    }

    /// A record as a tree: what [`Format::read`] makes of its document, without reading the frame each time.
    ///
    /// # Errors
    /// What is not as the layout says.
    pub fn read(&mut self, piece: &Piece, limits: &Limits) -> Result<Tree, FormatError> {
        match self.rows.read(&self.layout, piece) {
            Some(tree) => tree,
            None => {
                let document = self.frame.wrap(&piece.bytes);
                self.layout.format().read(&document, None, Some(&self.layout), limits)
            }
        }
    }

    /// Where reading goes on behind the last record.
    pub fn point(&self) -> Point {
        Point {
            offset: self.window.offset(),
            line: self.line,
            number: self.number,
            bad: self.bad,
            frame: self.frame.clone(),
            rows: self.rows.state(),
            xml: self.xml.as_ref().map(xml::Splitter::state).unwrap_or_default(),
            totals: self.totals.state(),
        }
    }

    /// What stands around the records here.
    pub fn frame(&self) -> &Frame {
        &self.frame
    }

    /// At the end: whether the totals agree and the trailer is there.
    ///
    /// # Errors
    /// Both numbers of a total that differs; a missing trailer.
    pub fn finish(self) -> Result<Summary, FormatError> {
        match &self.xml {
            Some(xml) => xml.finish()?,
            None => self.rows.finish(&self.layout)?,
        }
        let unchecked = self.totals.finish(&self.layout)?;
        Ok(Summary { records: self.number, bad: self.bad, unchecked })
    }

    /// An error at the line that was reached.
    fn refuse(&self, code: Code, what: impl Into<String>) -> FormatError {
        at_line(FormatError::nowhere(code, what), self.line)
    }
}

/// The error at a line.
fn at_line(error: FormatError, line: u64) -> FormatError {
    let line = usize::try_from(line).unwrap_or(usize::MAX);
    FormatError { at: Some(super::Place { line, column: 1 }), ..error }
}

/// What the first bytes of a file say that it is, if that is no text.
pub(crate) fn kind_of_file(head: &[u8]) -> Option<&'static str> {
    const KINDS: [(&[u8], &str); 8] = [
        (b"PK\x03\x04", "a zip archive (an Excel or Word file is one too)"),
        (b"PK\x05\x06", "a zip archive"),
        (b"\x1f\x8b", "compressed by gzip"),
        (b"BZh", "compressed by bzip2"),
        (b"\xfd7zXZ\x00", "compressed by xz"),
        (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
        (b"%PDF-", "a PDF document"),
        (b"\xd0\xcf\x11\xe0", "an old Excel or Word file"),
    ];
    KINDS.iter().find(|(magic, _)| head.starts_with(magic)).map(|(_, kind)| *kind)
}

/// Bytes as text in a point: base64.
mod packed {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        STANDARD.decode(String::deserialize(from)?).map_err(D::Error::custom)
    }
}
