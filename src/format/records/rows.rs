//! Splitting files of rows and lines: CSV, fixed width, JSON lines.

use super::{Frame, Piece, RecordLimits, Records, at_line, kind_of_file};
use crate::{
    code::Code,
    format::{
        FormatError, Layout,
        cells::{self, Cells, Scan},
        charset,
        fixed::{self, Line},
        layout::{Csv, Fixed, LineEnd, Role, Shape},
    },
    tree::{Name, Tree},
};
use memchr::memchr_iter;
use serde::{Deserialize, Serialize};
use std::io::BufRead;

const BOM: &[u8] = b"\xef\xbb\xbf";

/// What a point keeps of a file of rows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct State {
    /// The header rows' bytes at the beginning of the frame.
    head: usize,
    /// The header records in the frame behind them: which kind, how many bytes.
    headers: Vec<(usize, usize)>,
    /// Whether something stood behind the last header record.
    past: bool,
    /// Whether the last line that counts was a trailer.
    trailer: bool,
}

/// The splitter of rows.
#[derive(Debug)]
pub(super) struct Rows {
    state: State,
    /// The names of the columns.
    names: Vec<Name>,
    /// How many cells a row must have; 0: its kind says.
    columns: usize,
    cells: Cells,
}

/// A row or line in the window.
struct Found {
    /// Its length with its end.
    length: usize,
    /// Its lines.
    lines: u64,
    /// Whether a cell is quoted.
    quoted: bool,
    wrong: Option<FormatError>,
}

impl Rows {
    pub fn resume(
        layout: &Layout,
        state: State,
        frame: &Frame,
        limits: &RecordLimits,
    ) -> Result<Rows, FormatError> {
        let mut rows = Rows { state, names: Vec::new(), columns: 0, cells: Cells::default() };
        if let (Some(csv), head @ 1..) = (layout.csv(), rows.state.head) {
            let head = frame.before.get(..head).unwrap_or_default();
            rows.head(layout, csv, head, limits)?;
        } else if let Some(csv) = layout.csv() {
            rows.by_layout(csv);
        }
        Ok(rows)
    }

    pub fn state(&self) -> State {
        self.state.clone()
    }

    fn by_layout(&mut self, csv: &Csv) {
        self.names = csv.columns.clone();
        self.columns = self.names.len();
    }

    /// Takes in the header rows.
    fn head(
        &mut self,
        layout: &Layout,
        csv: &Csv,
        head: &[u8],
        limits: &RecordLimits,
    ) -> Result<(), FormatError> {
        self.by_layout(csv);
        let (mut rest, mut number, mut line) = (head, 0, 1_u64);
        while !rest.is_empty() {
            number += 1;
            let mut scan = Scan::default();
            let length = scan.row(csv, rest, true).ok_or_else(|| cells::never_closes(rest, &scan, 1))?;
            let (row, after) = rest.split_at_checked(length).unwrap_or((rest, &[]));
            rest = after;
            if number == csv.names_row {
                let text = charset::decode_as(layout.encoding, row).map_err(|error| at_line(error, line))?;
                self.cells.part(csv, &text);
                if self.cells.len() > limits.columns {
                    let what = format!(
                        "the file has {} columns; at most {} are read",
                        self.cells.len(),
                        limits.columns
                    );
                    return Err(at_line(FormatError::nowhere(Code::DocumentTooLarge, what), line));
                }
                self.names = cells::names(csv, &self.cells).map_err(|error| at_line(error, line))?;
                self.columns = self.names.len();
            }
            line += lines_of(row);
        }
        Ok(())
    }

    /// A row as a tree where the names are at hand; nothing where the whole document has to be read.
    pub fn read(&mut self, layout: &Layout, piece: &Piece) -> Option<Result<Tree, FormatError>> {
        let csv = layout.csv().filter(|_| layout.records.is_empty())?;
        let at = |error| at_line(error, piece.line);
        Some(match charset::decode_as(layout.encoding, &piece.bytes) {
            Err(error) => Err(at(error)),
            Ok(text) => {
                self.cells.part(csv, &text);
                cells::record(&self.names, &self.cells).map(Tree::Record).map_err(at)
            }
        })
    }

    /// Whether the file ends as it must.
    pub fn finish(&self, layout: &Layout) -> Result<(), FormatError> {
        let needed = layout.records.iter().any(|record| record.role == Role::Trailer);
        if needed && !self.state.trailer {
            let what = "the file ends without its trailer: it is cut off";
            return Err(FormatError::nowhere(Code::FileCutOff, what));
        }
        Ok(())
    }
}

fn lines_of(row: &[u8]) -> u64 {
    let feeds = memchr_iter(b'\n', row).count();
    match feeds {
        0 => 1,
        feeds => feeds as u64,
    }
}

impl<R: BufRead> Records<R> {
    /// Looks at the beginning of a file and takes in its header rows.
    pub(super) fn begin(&mut self) -> Result<(), FormatError> {
        self.window.more()?;
        if let Some(kind) = kind_of_file(self.window.bytes()) {
            return Err(FormatError::nowhere(Code::NotText, format!("the file is {kind}, not text")));
        }
        let head = self.window.bytes().get(..4096.min(self.window.bytes().len())).unwrap_or_default();
        // Most letters of a text in UTF-16 have a byte that is zero; no text in another encoding has one.
        let zeros = head.iter().filter(|b| **b == 0).count();
        if head.len() >= 4 && zeros > head.len() / 3 {
            let what = "the file seems to be in UTF-16, and neither a byte-order mark nor its layout says so";
            return Err(FormatError::nowhere(Code::WrongEncoding, what));
        }
        let page = head.trim_ascii_start();
        let starts = |text: &[u8]| page.get(..text.len()).is_some_and(|head| head.eq_ignore_ascii_case(text));
        if starts(b"<!doctype html") || starts(b"<html") {
            let what = "the file is an HTML page: a login or an error page was saved in its place";
            return Err(FormatError::nowhere(Code::NotText, what));
        }
        if head.starts_with(BOM) {
            if self.layout.encoding != encoding_rs::UTF_8 {
                let what = format!(
                    "the file begins with the mark of UTF-8, and its layout says {}",
                    self.layout.encoding.name()
                );
                return Err(FormatError::nowhere(Code::WrongEncoding, what));
            }
            self.window.consume(BOM.len());
        }
        self.head_rows()
    }

    fn head_rows(&mut self) -> Result<(), FormatError> {
        let layout = self.layout.clone();
        let Some(csv) = layout.csv().filter(|csv| csv.header_rows > 0) else { return Ok(()) };
        for number in 1..=csv.header_rows {
            let Some(found) = self.find()? else {
                let what = match number {
                    1 => "the file is empty: not even its header is there",
                    _ => "the file ends within its header rows",
                };
                return Err(FormatError::nowhere(Code::MalformedCsv, what));
            };
            if self.state().head + found.length > self.limits.head {
                let what = format!("the header has more than {} bytes", self.limits.head);
                return Err(self.refuse(Code::DocumentTooLarge, what));
            }
            let row = self.window.bytes().get(..found.length).unwrap_or_default();
            self.frame.before.extend_from_slice(row);
            self.rows.state.head = self.frame.before.len();
            self.line += found.lines;
            self.window.consume(found.length);
        }
        // A file that holds nothing but its header may lack the line end that records need before them.
        if self.window.bytes().is_empty()
            && !self.frame.before.ends_with(b"\n")
            && !self.frame.before.ends_with(b"\r")
        {
            self.frame.before.extend_from_slice(b"\n");
            self.rows.state.head = self.frame.before.len();
        }
        let head = std::mem::take(&mut self.frame.before);
        let taken = self.rows.head(&layout, csv, &head, &self.limits);
        self.frame.before = head;
        taken
    }

    fn state(&self) -> &State {
        &self.rows.state
    }

    /// The next row or line in the window, which is filled as far as it takes.
    fn find(&mut self) -> Result<Option<Found>, FormatError> {
        let layout = self.layout.clone();
        let mut scan = Scan::default();
        let mut looked = 0;
        loop {
            let (bytes, ended) = (self.window.bytes(), self.window.ended());
            if bytes.is_empty() && ended {
                return Ok(None);
            }
            let length = match &layout.shape {
                Shape::Csv(csv) => scan.row(csv, bytes, ended),
                Shape::Fixed(Fixed { line_end: LineEnd::None, .. }) => self.stretch(&layout, bytes, ended)?,
                Shape::Fixed(_) | Shape::Lines | Shape::Xml(_) => fixed::next_line(bytes, ended, looked),
            };
            if let Some(length) = length.filter(|length| *length > 0) {
                if length > self.limits.bytes {
                    return Err(self.too_long());
                }
                let row = bytes.get(..length).unwrap_or_default();
                return Ok(Some(self.found(row, &scan)?));
            }
            if bytes.len() > self.limits.bytes || ended {
                return Err(match (scan.open, &layout.shape) {
                    (Some(_), _) => {
                        cells::never_closes(bytes, &scan, usize::try_from(self.line).unwrap_or(usize::MAX))
                    }
                    (None, _) => self.too_long(),
                });
            }
            looked = bytes.len();
            self.window.more()?;
        }
    }

    fn too_long(&self) -> FormatError {
        self.refuse(Code::DocumentTooLarge, format!("a record has more than {} bytes", self.limits.bytes))
    }

    /// The length of a record that has no line end.
    fn stretch(&self, layout: &Layout, bytes: &[u8], ended: bool) -> Result<Option<usize>, FormatError> {
        let Shape::Fixed(fixed) = &layout.shape else { return Ok(None) };
        let width = fixed::common_width(layout);
        let length = fixed::stretch(bytes, width, fixed, layout.encoding);
        // Of characters the last byte is known only by what follows it.
        let sure = length.filter(|length| {
            *length < bytes.len() || ended || fixed.unit == crate::format::layout::Unit::Bytes
        });
        if sure.is_some() || !ended {
            return Ok(sure);
        }
        match bytes.iter().all(|b| matches!(b, b'\r' | b'\n' | b' ' | 0x1a)) {
            true => Ok(Some(bytes.len())),
            false => {
                let what = format!(
                    "the file ends inside a record: {} bytes are left, a record is {width} wide",
                    bytes.len()
                );
                Err(self.refuse(Code::FileCutOff, what))
            }
        }
    }

    fn found(&self, row: &[u8], scan: &Scan) -> Result<Found, FormatError> {
        let utf_8 = self.layout.encoding == encoding_rs::UTF_8;
        if row.starts_with(BOM) && utf_8 {
            let what = "a byte-order mark stands in the middle: two files were put one behind the other";
            return Err(self.refuse(Code::WrongEncoding, what));
        }
        let wrong = scan.stray.then(cells::stray).or_else(|| cells::odd_bytes(row, utf_8));
        let lines = if scan.quoted { lines_of(row) } else { 1 };
        let lines = match &self.layout.shape {
            Shape::Fixed(Fixed { line_end: LineEnd::None, .. }) => 1,
            Shape::Fixed(_) | Shape::Csv(_) | Shape::Lines | Shape::Xml(_) => lines,
        };
        Ok(Found { length: row.len(), lines, quoted: scan.quoted, wrong })
    }

    /// The next record with all that belongs to it.
    pub(super) fn next_row(&mut self) -> Result<Option<Piece>, FormatError> {
        let layout = self.layout.clone();
        let mut pending: Option<Piece> = None;
        while let Some(found) = self.find()? {
            let row = self.window.bytes().get(..found.length).unwrap_or_default();
            let text = cells::without_end(row);
            let last = self.window.ended() && found.length == self.window.bytes().len();
            if text.is_empty() || (text == b"\x1a" && last) || self.blank_rest(text, &layout) {
                // A blank line is no record, and a Ctrl-Z at the end is how DOS ended files.
                self.line += found.lines;
                self.window.consume(found.length);
                continue;
            }
            let piece = |wrong| Piece {
                number: self.number + 1,
                line: self.line,
                offset: self.window.offset(),
                bytes: row.to_vec(),
                wrong,
            };
            if layout.records.is_empty() {
                let wrong = found.wrong.or_else(|| self.cells_wrong(&layout, row, found.quoted));
                let piece = piece(wrong.map(|error| at_line(error, self.line)));
                self.line += found.lines;
                self.window.consume(found.length);
                return Ok(Some(piece));
            }
            let (kind, wrong) = classify(&layout, row, found.wrong, &mut self.rows.cells);
            let wrong = wrong.map(|error| at_line(error, self.line));
            let role = kind.and_then(|kind| layout.records.get(kind)).map(|record| record.role);
            if pending.is_some() && role != Some(Role::Child) {
                break;
            }
            if let Some(kind) = kind {
                let rows = &self.rows;
                let (line, fixed) = (self.line, &layout.shape);
                let field = |place: usize| match wrong {
                    Some(_) => None,
                    None => field_text(&layout, fixed, kind, place, row, &rows.cells),
                };
                self.totals.line(&layout, kind, line, &field);
            }
            match role {
                Some(Role::Ignore) => {}
                Some(Role::Header | Role::Trailer) if wrong.is_some() => {
                    return Err(wrong.unwrap_or_else(cells::stray));
                }
                Some(Role::Trailer) => {
                    self.rows.state.past = true;
                    self.rows.state.trailer = true;
                }
                Some(Role::Header) => {
                    let row = row.to_vec();
                    self.header(kind.unwrap_or_default(), &row)?;
                }
                Some(Role::Child) => {
                    let row = row.to_vec();
                    self.rows.state.past = true;
                    self.rows.state.trailer = false;
                    match &mut pending {
                        Some(pending) => {
                            if pending.bytes.len() + row.len() > self.limits.bytes {
                                return Err(self.too_long());
                            }
                            pending.bytes.extend_from_slice(&row);
                            pending.wrong = pending.wrong.take().or(wrong);
                        }
                        None => {
                            let what = "this belongs to the record before it, and there is none";
                            let none = at_line(FormatError::nowhere(Code::WrongRecord, what), self.line);
                            pending = Some(Piece {
                                number: self.number + 1,
                                line: self.line,
                                offset: self.window.offset(),
                                bytes: row,
                                wrong: Some(wrong.unwrap_or(none)),
                            });
                        }
                    }
                }
                Some(Role::Record) | None => {
                    pending = Some(piece(wrong));
                    self.rows.state.past = true;
                    self.rows.state.trailer = false;
                }
            }
            self.line += found.lines;
            self.window.consume(found.length);
        }
        Ok(pending)
    }

    /// A line of blanks that is too short for a record; without line ends, what is left at the end of the file.
    fn blank_rest(&self, text: &[u8], layout: &Layout) -> bool {
        let widths = layout.records.iter().map(|record| record.width).filter(|width| *width > 0);
        matches!(&layout.shape, Shape::Fixed(_))
            && text.iter().all(|b| matches!(b, b'\r' | b'\n' | b'\x0c' | b' ' | 0x1a))
            && text.len() < widths.min().unwrap_or(0)
    }

    /// Whether a row has as many cells as there are columns.
    fn cells_wrong(&self, layout: &Layout, row: &[u8], quoted: bool) -> Option<FormatError> {
        let csv = layout.csv()?;
        let cells = cells::count(csv, cells::without_end(row), quoted);
        (cells != self.rows.columns).then(|| cells::ragged(cells, self.rows.columns))
    }

    /// A header record: replaces those of its kind, and of the kinds behind it, that stood before records.
    fn header(&mut self, kind: usize, row: &[u8]) -> Result<(), FormatError> {
        let state = &mut self.rows.state;
        state.trailer = false;
        if std::mem::take(&mut state.past) {
            let keep =
                state.headers.iter().position(|(known, _)| *known >= kind).unwrap_or(state.headers.len());
            state.headers.truncate(keep);
            let length = state.head + state.headers.iter().map(|(_, length)| *length).sum::<usize>();
            self.frame.before.truncate(length);
        }
        state.headers.push((kind, row.len()));
        self.frame.before.extend_from_slice(row);
        if self.frame.before.len() > self.limits.head {
            let what = format!("the headers have more than {} bytes", self.limits.head);
            return Err(self.refuse(Code::DocumentTooLarge, what));
        }
        Ok(())
    }
}

/// Which kind of record a line is, and what is wrong with it. Of CSV the cells are left in `cells`.
fn classify(
    layout: &Layout,
    row: &[u8],
    wrong: Option<FormatError>,
    cells: &mut Cells,
) -> (Option<usize>, Option<FormatError>) {
    let kind_of = |kind: usize| layout.records.get(kind);
    match &layout.shape {
        Shape::Csv(csv) => match charset::decode_as(layout.encoding, row) {
            Err(error) => (None, Some(error)),
            Ok(text) => {
                cells.part(csv, &text);
                let kind = cells::kind(layout, cells);
                let wrong = wrong.or_else(|| match kind.and_then(kind_of) {
                    None => Some(cells::unknown_kind()),
                    Some(kind) if kind.role == Role::Ignore => None,
                    Some(kind) => (!kind.holds(cells.len())).then(|| cells::ragged(cells.len(), kind.width)),
                });
                (kind, wrong)
            }
        },
        Shape::Fixed(fixed) => {
            let text = match fixed.line_end {
                LineEnd::None => row,
                LineEnd::Crlf | LineEnd::Lf => cells::without_end(row),
            };
            match Line::of(text, fixed, layout.encoding) {
                Err(error) => (None, Some(error)),
                Ok(line) => {
                    let kind = line.kind(layout, fixed);
                    let wrong = wrong.or_else(|| match kind.and_then(kind_of) {
                        None => Some(cells::unknown_kind()),
                        Some(kind) if kind.role == Role::Ignore => None,
                        Some(kind) => {
                            (!kind.holds(line.width())).then(|| fixed::wrong_width(line.width(), kind.width))
                        }
                    });
                    (kind, wrong)
                }
            }
        }
        Shape::Xml(_) | Shape::Lines => (None, wrong),
    }
}

/// The text of a field of a line.
fn field_text(
    layout: &Layout,
    shape: &Shape,
    kind: usize,
    place: usize,
    row: &[u8],
    cells: &Cells,
) -> Option<String> {
    let field = layout.records.get(kind)?.fields.get(place)?;
    match shape {
        Shape::Csv(_) => cells.get(field.at).map(str::to_owned),
        Shape::Fixed(fixed) => {
            let line = Line::of(cells::without_end(row), fixed, layout.encoding).ok()?;
            line.field(field).map(str::to_owned)
        }
        Shape::Xml(_) | Shape::Lines => None,
    }
}
