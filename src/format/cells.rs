//! CSV: where a row ends, its cells, a record's document to tree and back.
//!
//! A reader of our own, because the file's bytes must be kept: exact ends of rows, reading that goes on in the middle, a
//! quote that never closes told at the line where it opened. The tests hold it against the `csv` crate, cell by cell.

use super::{
    FormatError, Limits, charset,
    layout::{Csv, Field, Layout, LineEnd, Quoting, RecordType, Role},
};
use crate::{
    code::Code,
    tree::{Name, Record, Tree},
};
use encoding_rs::{Encoding, UTF_8};
use memchr::{memchr, memchr_iter, memchr2, memchr2_iter, memchr3};

/// Looks for the end of a row in bytes that may not be all there yet.
#[derive(Debug, Clone, Default)]
pub(super) struct Scan {
    /// How far it has looked.
    at: usize,
    /// Where the quote opened that is open.
    pub open: Option<usize>,
    /// Whether a cell was quoted.
    pub quoted: bool,
    /// Whether text stands behind a closing quote.
    pub stray: bool,
}

impl Scan {
    /// The length of the row with its line end; nothing if more bytes are needed. At the end of the file a row needs none.
    pub fn row(&mut self, csv: &Csv, bytes: &[u8], ended: bool) -> Option<usize> {
        loop {
            let rest = bytes.get(self.at..).unwrap_or_default();
            match (csv.quote, self.open) {
                (Some(quote), Some(_)) => {
                    let Some(found) = memchr(quote, rest) else {
                        self.at = bytes.len();
                        return None;
                    };
                    let at = self.at + found;
                    match bytes.get(at + 1) {
                        None if !ended => {
                            self.at = at;
                            return None;
                        }
                        Some(next) if *next == quote => self.at = at + 2,
                        next => {
                            self.open = None;
                            self.at = at + 1;
                            self.stray |=
                                next.is_some_and(|b| *b != csv.delimiter && !matches!(b, b'\n' | b'\r'));
                        }
                    }
                }
                (quote, _) => {
                    let found = match quote {
                        Some(quote) => memchr3(b'\n', b'\r', quote, rest),
                        None => memchr2(b'\n', b'\r', rest),
                    };
                    let Some(found) = found else {
                        self.at = bytes.len();
                        return ended.then_some(bytes.len());
                    };
                    let at = self.at + found;
                    match (bytes.get(at), bytes.get(at + 1)) {
                        (Some(b'\n'), _) => return Some(at + 1),
                        (Some(b'\r'), Some(b'\n')) => return Some(at + 2),
                        (Some(b'\r'), None) if !ended => {
                            self.at = at;
                            return None;
                        }
                        (Some(b'\r'), _) => return Some(at + 1),
                        _ => {
                            let before = at.checked_sub(1).and_then(|at| bytes.get(at));
                            if before.is_none_or(|b| *b == csv.delimiter) {
                                self.open = Some(at);
                                self.quoted = true;
                            }
                            self.at = at + 1;
                        }
                    }
                }
            }
        }
    }
}

/// The row without its line end.
pub(super) fn without_end(row: &[u8]) -> &[u8] {
    let row = row.strip_suffix(b"\n").unwrap_or(row);
    row.strip_suffix(b"\r").unwrap_or(row)
}

/// How many cells a row has.
pub(super) fn count(csv: &Csv, row: &[u8], quoted: bool) -> usize {
    if !quoted {
        return memchr_iter(csv.delimiter, row).count() + 1;
    }
    let Some(quote) = csv.quote else { return memchr_iter(csv.delimiter, row).count() + 1 };
    let (mut cells, mut at, mut open, mut start) = (1, 0, false, true);
    while let Some(b) = row.get(at) {
        match (open, *b == quote) {
            (true, true) if row.get(at + 1) == Some(&quote) => at += 1,
            (true, true) => open = false,
            (false, true) if start => open = true,
            (false, false) if *b == csv.delimiter => {
                cells += 1;
                at += 1;
                start = true;
                continue;
            }
            _ => {}
        }
        start = false;
        at += 1;
    }
    cells
}

/// The cells of a row, as one text and where each ends.
#[derive(Debug, Default)]
pub(super) struct Cells {
    text: String,
    ends: Vec<usize>,
}

impl Cells {
    /// Parts a row. Delimiter and quote are ASCII, so that no character is cut.
    pub fn part(&mut self, csv: &Csv, row: &str) {
        self.text.clear();
        self.ends.clear();
        let row = row.strip_suffix('\n').unwrap_or(row);
        let row = row.strip_suffix('\r').unwrap_or(row);
        let find = |b: u8, from: usize| {
            memchr(b, row.as_bytes().get(from..).unwrap_or_default()).map(|found| from + found)
        };
        let mut at = 0;
        loop {
            let quote = csv.quote.filter(|quote| row.as_bytes().get(at) == Some(quote));
            if let Some(quote) = quote {
                at += 1;
                loop {
                    let end = find(quote, at).unwrap_or(row.len());
                    let doubled = row.as_bytes().get(end + 1) == Some(&quote);
                    let to = if doubled { end + 1 } else { end };
                    self.text.push_str(row.get(at..to).unwrap_or_default());
                    at = (to + 1).min(row.len());
                    if !doubled {
                        break;
                    }
                }
            }
            let end = find(csv.delimiter, at);
            self.text.push_str(row.get(at..end.unwrap_or(row.len())).unwrap_or_default());
            self.ends.push(self.text.len());
            match end {
                Some(end) => at = end + 1,
                None => return,
            }
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// The cells in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        let mut from = 0;
        self.ends
            .iter()
            .map(move |end| self.text.get(std::mem::replace(&mut from, *end)..*end).unwrap_or_default())
    }

    /// The cell of this number, counted from 0.
    pub fn get(&self, at: usize) -> Option<&str> {
        let end = *self.ends.get(at)?;
        let from = match at {
            0 => 0,
            at => *self.ends.get(at - 1)?,
        };
        self.text.get(from..end)
    }
}

/// The encoding to read in: what the transport said, else the layout's.
pub(super) fn encoding_of(charset: Option<&str>, layout: &Layout) -> Result<&'static Encoding, FormatError> {
    charset.map_or(Ok(layout.encoding), charset::by_label)
}

/// The names of the columns, by the row that names them.
pub(super) fn names(csv: &Csv, cells: &Cells) -> Result<Vec<Name>, FormatError> {
    let differ = |what: String| FormatError::nowhere(Code::ColumnsDiffer, what);
    let mut names: Vec<Name> = Vec::with_capacity(cells.len());
    let mut seen = std::collections::HashSet::new();
    for (index, cell) in cells.iter().enumerate() {
        let cell = cell.trim_matches(' ');
        if !cell.is_empty() && !seen.insert(cell) {
            return Err(differ(format!(
                "two columns are called `{cell}`: which of them counts nobody has said"
            )));
        }
        names.push(match cell.is_empty() {
            true => Name::plain((index + 1).to_string()),
            false => Name::plain(cell),
        });
    }
    let missing: Vec<String> =
        csv.columns.iter().filter(|name| !names.contains(name)).map(|name| format!("`{name}`")).collect();
    match missing.is_empty() {
        true => Ok(names),
        false => Err(differ(format!("the file has no column {}", missing.join(", ")))),
    }
}

/// A ragged row.
pub(super) fn ragged(cells: usize, columns: usize) -> FormatError {
    let what = format!("the row has {cells} cells, and there are {columns} columns");
    FormatError::nowhere(Code::WrongRecord, what)
}

/// Bytes that no text has: NUL, and a byte-order mark that does not begin the file.
pub(super) fn odd_bytes(row: &[u8], utf_8: bool) -> Option<FormatError> {
    for at in memchr2_iter(0, 0xef, row) {
        let rest = row.get(at..).unwrap_or_default();
        if rest.starts_with(b"\0") {
            return Some(FormatError::nowhere(Code::WrongRecord, "a NUL byte stands in the record"));
        }
        if utf_8 && rest.starts_with(b"\xef\xbb\xbf") {
            let what = "a byte-order mark stands inside the record";
            return Some(FormatError::nowhere(Code::WrongRecord, what));
        }
    }
    None
}

/// Text behind a closing quote.
pub(super) fn stray() -> FormatError {
    let what = "text stands behind a closing quote: a quote inside a cell is written twice";
    FormatError::nowhere(Code::WrongRecord, what)
}

/// The row as a record of texts.
pub(super) fn record(names: &[Name], cells: &Cells) -> Result<Record, FormatError> {
    if cells.len() != names.len() {
        return Err(ragged(cells.len(), names.len()));
    }
    let mut record = Record::with_capacity(names.len());
    for (name, cell) in names.iter().zip(cells.iter()) {
        record.push(name.clone(), Tree::text(cell));
    }
    Ok(record)
}

/// Which kind of record a row is.
pub(super) fn kind(layout: &Layout, cells: &Cells) -> Option<usize> {
    let is = |record: &RecordType| {
        record.when.as_ref().is_none_or(|(at, texts)| {
            cells.get(*at).is_some_and(|cell| texts.iter().any(|text| text == cell))
        })
    };
    layout
        .records
        .iter()
        .position(|record| record.when.is_some() && is(record))
        .or_else(|| layout.records.iter().position(|record| record.when.is_none()))
}

/// The fields of a row of a kind.
pub(super) fn fields(kind: &RecordType, cells: &Cells) -> Result<Record, FormatError> {
    if !kind.holds(cells.len()) {
        return Err(ragged(cells.len(), kind.width));
    }
    let mut record = Record::with_capacity(kind.fields.len());
    for field in &kind.fields {
        let cell = cells.get(field.at).unwrap_or_default();
        if field.value.as_ref().is_some_and(|value| value != cell) {
            return Err(not_the_value(field));
        }
        record.push(field.name.clone(), Tree::text(cell));
    }
    Ok(record)
}

/// A field that is not what it always is.
pub(super) fn not_the_value(field: &Field) -> FormatError {
    let value = field.value.as_deref().unwrap_or_default();
    FormatError::nowhere(Code::WrongRecord, format!("`{}` is not `{value}`", field.name.local))
}

/// A document put together from its lines: headers, the record, its children.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    record: Record,
    found: bool,
}

impl Assembly {
    /// Adds a line of a kind.
    pub fn add(&mut self, kind: &RecordType, fields: Record) -> Result<(), FormatError> {
        match kind.role {
            Role::Record if self.found => {
                return Err(FormatError::nowhere(Code::WrongRecord, "the document holds two records"));
            }
            Role::Record => {
                self.found = true;
                for (name, tree) in fields.into_entries() {
                    self.record.push(name, tree);
                }
            }
            Role::Header | Role::Child => self.record.push(kind.name.clone(), Tree::Record(fields)),
            Role::Trailer | Role::Ignore => {}
        }
        Ok(())
    }

    /// The whole.
    pub fn finish(self) -> Result<Tree, FormatError> {
        match self.found {
            true => Ok(Tree::Record(self.record)),
            false => Err(FormatError::nowhere(Code::WrongRecord, "the document holds no record")),
        }
    }
}

/// Reads the document of one record.
pub(super) fn parse(
    bytes: &[u8],
    charset: Option<&str>,
    layout: &Layout,
    limits: &Limits,
) -> Result<Tree, FormatError> {
    let encoding = encoding_of(charset, layout)?;
    let Some(csv) = layout.csv() else { return Err(wrong_layout(layout, "csv")) };
    let mut cells = Cells::default();
    let (mut rest, mut number, mut line) = (bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes), 0, 1);
    let mut names = csv.columns.clone();
    let mut assembly = Assembly::default();
    while !rest.is_empty() {
        let mut scan = Scan::default();
        let Some(length) = scan.row(csv, rest, true) else { return Err(never_closes(rest, &scan, line)) };
        let (row, after) = rest.split_at_checked(length).unwrap_or((rest, &[]));
        rest = after;
        let at = |error: FormatError| FormatError { at: Some(super::Place { line, column: 1 }), ..error };
        number += 1;
        let is_head = number <= csv.header_rows;
        if (!is_head && !without_end(row).is_empty()) || number == csv.names_row {
            if scan.stray {
                return Err(at(stray()));
            }
            if let Some(error) = odd_bytes(row, encoding == UTF_8) {
                return Err(at(error));
            }
            cells.part(csv, &charset::decode_as(encoding, row).map_err(at)?);
            let too_long = cells.iter().any(|cell| cell.len() > limits.text);
            if cells.len() > limits.values || too_long {
                return Err(at(FormatError::nowhere(Code::DocumentTooLarge, "the row is beyond the limits")));
            }
            if is_head {
                names = self::names(csv, &cells).map_err(at)?;
            } else if layout.records.is_empty() {
                if assembly.found {
                    return Err(at(FormatError::nowhere(
                        Code::WrongRecord,
                        "the document holds two records",
                    )));
                }
                assembly = Assembly { record: record(&names, &cells).map_err(at)?, found: true };
            } else {
                let kind = kind(layout, &cells).and_then(|kind| layout.records.get(kind));
                let kind = kind.ok_or_else(|| at(unknown_kind()))?;
                match kind.role {
                    Role::Ignore => {}
                    Role::Record | Role::Header | Role::Trailer | Role::Child => {
                        assembly.add(kind, fields(kind, &cells).map_err(at)?).map_err(at)?;
                    }
                }
            }
        }
        line += memchr_iter(b'\n', row).count();
    }
    assembly.finish()
}

/// A quote that is open at the end.
pub(super) fn never_closes(bytes: &[u8], scan: &Scan, line: usize) -> FormatError {
    let opened = scan.open.unwrap_or_default();
    let place = super::Place::of(bytes, opened);
    FormatError {
        code: Code::MalformedCsv,
        what: "a quote opens here and never closes".to_owned(),
        at: Some(super::Place { line: line + place.line - 1, column: place.column }),
    }
}

/// A line that is no kind of record.
pub(super) fn unknown_kind() -> FormatError {
    FormatError::nowhere(Code::WrongRecord, "this is no kind of record that the layout knows")
}

/// A layout for another kind of file.
pub(super) fn wrong_layout(layout: &Layout, format: &str) -> FormatError {
    let what = format!("the layout `{}` is not for {format}", layout.name);
    FormatError::nowhere(Code::WrongRecord, what)
}

/// The value of a field to be written, as text.
pub(super) fn text_of(name: &Name, tree: Option<&Tree>) -> Result<String, FormatError> {
    match tree {
        None | Some(Tree::Null) => Ok(String::new()),
        Some(tree) => tree.to_plain_text().ok_or_else(|| {
            let what = format!("`{}` is {}; a field holds a plain value", name.local, tree.kind());
            FormatError::nowhere(Code::CannotWrite, what)
        }),
    }
}

/// The name of an entry that a record has no place for, children and headers left out.
pub(super) fn foreign(record: &Record, known: impl Fn(&Name) -> bool) -> Option<&Name> {
    record.entries().iter().map(|(name, _)| name).find(|name| !known(name))
}

impl Csv {
    /// The columns as they are written, in order.
    fn written(&self) -> Vec<Name> {
        let by_row = self.names_row.checked_sub(1).and_then(|row| self.header.get(row));
        match by_row {
            Some(names) if !names.is_empty() => names.iter().map(|name| Name::plain(name.as_str())).collect(),
            _ => self.columns.iter().chain(&self.optional).cloned().collect(),
        }
    }

    /// One row with its line end.
    pub(super) fn row(&self, cells: &[String]) -> Result<String, FormatError> {
        let mut out = String::new();
        for (index, cell) in cells.iter().enumerate() {
            if index > 0 {
                out.push(char::from(self.delimiter));
            }
            let breaks = |b: u8| b == self.delimiter || Some(b) == self.quote || matches!(b, b'\n' | b'\r');
            let alone = cells.len() == 1 && cell.is_empty();
            let needed = cell.bytes().any(breaks) || alone;
            match (self.quoting, self.quote) {
                (Quoting::Never, _) | (_, None) if needed => {
                    let what = "a cell holds a line break or what parts cells, and the layout has no quotes";
                    return Err(FormatError::nowhere(Code::CannotWrite, what));
                }
                (Quoting::Always, Some(quote)) => quoted(cell, quote, &mut out),
                (Quoting::Needed, Some(quote)) if needed => quoted(cell, quote, &mut out),
                (Quoting::Never | Quoting::Needed | Quoting::Always, _) => out.push_str(cell),
            }
        }
        out.push_str(match self.line_end {
            LineEnd::Crlf => "\r\n",
            LineEnd::Lf | LineEnd::None => "\n",
        });
        Ok(out)
    }
}

fn quoted(cell: &str, quote: u8, out: &mut String) {
    let quote = char::from(quote);
    out.push(quote);
    for c in cell.chars() {
        if c == quote {
            out.push(quote);
        }
        out.push(c);
    }
    out.push(quote);
}

/// The bytes of text in the layout's encoding.
pub(super) fn encoded(text: String, layout: &Layout) -> Result<Vec<u8>, FormatError> {
    if let Some(wide) = layout.wide {
        let what = format!("files in {} are read, not written", wide.name());
        return Err(FormatError::nowhere(Code::CannotWrite, what));
    }
    charset::encode(text, Some(layout.encoding).filter(|encoding| *encoding != UTF_8))
}

/// The header rows of a layout.
pub(super) fn head(layout: &Layout) -> Result<Vec<u8>, FormatError> {
    let Some(csv) = layout.csv() else { return Ok(Vec::new()) };
    let mut text = String::new();
    for row in &csv.header {
        text.push_str(&csv.row(row)?);
    }
    encoded(text, layout)
}

/// Writes a row; of a layout with several kinds of records, a row of this kind.
pub(super) fn write_row(
    layout: &Layout,
    kind: Option<&RecordType>,
    tree: &Tree,
) -> Result<Vec<u8>, FormatError> {
    let Some(csv) = layout.csv() else { return Err(wrong_layout(layout, "csv")) };
    let empty = Record::new();
    let record = tree.as_record().unwrap_or(&empty);
    let cells: Vec<String> = match kind {
        None => {
            let columns = csv.written();
            if let Some(name) = foreign(record, |name| columns.contains(name)) {
                let what = format!("the layout has no column `{}`", name.local);
                return Err(FormatError::nowhere(Code::CannotWrite, what));
            }
            columns.iter().map(|name| text_of(name, record.get(name))).collect::<Result<_, _>>()?
        }
        Some(kind) => {
            check_foreign(layout, kind, record)?;
            let mut cells = vec![String::new(); kind.width];
            if let Some((at, texts)) = &kind.when
                && let (Some(cell), [text]) = (cells.get_mut(*at), texts.as_slice())
            {
                cell.clone_from(text);
            }
            for field in &kind.fields {
                let text = field_text(field, record)?;
                let marks = kind.when.as_ref().is_some_and(|(at, _)| *at == field.at) && text.is_empty();
                if let (Some(cell), false) = (cells.get_mut(field.at), marks) {
                    *cell = text;
                }
            }
            cells
        }
    };
    encoded(csv.row(&cells)?, layout)
}

/// The text of a field to be written: what it always is, or the record's.
pub(super) fn field_text(field: &Field, record: &Record) -> Result<String, FormatError> {
    let given = text_of(&field.name, record.get(&field.name))?;
    match &field.value {
        Some(value) if given.is_empty() || given == *value => Ok(value.clone()),
        Some(_) => Err(FormatError { code: Code::CannotWrite, ..not_the_value(field) }),
        None => Ok(given),
    }
}

/// Refuses what the kind has no field for.
pub(super) fn check_foreign(layout: &Layout, kind: &RecordType, record: &Record) -> Result<(), FormatError> {
    let known = |name: &Name| {
        kind.fields.iter().any(|field| field.name == *name)
            || layout.records.iter().any(|other| {
                other.name == *name
                    && matches!(other.role, Role::Header | Role::Child)
                    && kind.role == Role::Record
            })
    };
    match foreign(record, known) {
        None => Ok(()),
        Some(name) => {
            let what = format!("the record `{}` has no field `{}`", kind.name.local, name.local);
            Err(FormatError::nowhere(Code::CannotWrite, what))
        }
    }
}

/// Writes the document of one record.
pub(super) fn write(tree: &Tree, layout: &Layout) -> Result<Vec<u8>, FormatError> {
    if !layout.records.is_empty() {
        let mut out = head(layout)?;
        out.extend(super::layout::write_group(layout, tree)?);
        return Ok(out);
    }
    let Some(csv) = layout.csv() else { return Err(wrong_layout(layout, "csv")) };
    if csv.written().is_empty() {
        // Nothing names the columns but the record itself.
        let entries = tree.as_record().map(Record::entries).unwrap_or_default();
        let names: Vec<String> = entries.iter().map(|(name, _)| name.local.to_string()).collect();
        let cells = entries.iter().map(|(name, tree)| text_of(name, Some(tree)));
        let cells: Vec<String> = cells.collect::<Result<_, _>>()?;
        return encoded(csv.row(&names)? + &csv.row(&cells)?, layout);
    }
    let mut out = head(layout)?;
    out.extend(write_row(layout, None, tree)?);
    Ok(out)
}
