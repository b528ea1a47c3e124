//! Fixed width: fields at positions, a record's document to tree and back.
//!
//! Positions count bytes of the file's encoding or characters, as the layout says.

use super::{
    FormatError, Limits, Place,
    cells::{
        Assembly, check_foreign, encoded, encoding_of, field_text, not_the_value, unknown_kind, wrong_layout,
    },
    charset,
    layout::{Align, Field, Fixed, Layout, LineEnd, RecordType, Role, Shape, Unit},
};
use crate::{
    code::Code,
    tree::{Record, Tree},
};
use encoding_rs::{Encoding, UTF_8};
use memchr::memchr;
use std::borrow::Cow;

/// Fixed width without a layout says nothing.
pub(super) fn no_layout() -> FormatError {
    FormatError::nowhere(
        Code::WrongRecord,
        "a document of fixed width is read by a layout, and none is named",
    )
}

/// One line, without its end, to take fields from.
pub(super) struct Line<'b> {
    text: Cow<'b, str>,
    /// Where each character begins, if not every character is one byte of text.
    starts: Option<Vec<usize>>,
    /// Whether positions are those of the text's bytes.
    bytes: bool,
}

impl<'b> Line<'b> {
    /// Decodes a line.
    pub fn of(line: &'b [u8], fixed: &Fixed, encoding: &'static Encoding) -> Result<Line<'b>, FormatError> {
        let text = charset::decode_as(encoding, line)?;
        let bytes = text.is_ascii() || (fixed.unit == Unit::Bytes && encoding == UTF_8);
        let starts = (!bytes).then(|| {
            let mut starts: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
            starts.push(text.len());
            starts
        });
        Ok(Line { text, starts, bytes })
    }

    /// How wide it is.
    pub fn width(&self) -> usize {
        self.starts.as_ref().map_or(self.text.len(), |starts| starts.len().saturating_sub(1))
    }

    /// What stands from here, so wide; nothing if the line is shorter or a character would be cut.
    pub fn at(&self, from: usize, width: usize) -> Option<&str> {
        match (&self.starts, self.bytes) {
            (Some(starts), false) => self.text.get(*starts.get(from)?..*starts.get(from + width)?),
            _ => self.text.get(from..from + width),
        }
    }

    /// Which kind of record it is.
    pub fn kind(&self, layout: &Layout, fixed: &Fixed) -> Option<usize> {
        let is = |(at, texts): &(usize, Vec<String>)| {
            texts.iter().any(|text| self.at(*at, units(text, fixed, layout.encoding)) == Some(text.as_str()))
        };
        layout
            .records
            .iter()
            .position(|record| record.when.as_ref().is_some_and(is))
            .or_else(|| layout.records.iter().position(|record| record.when.is_none()))
    }

    /// The text of a field, its fill taken off.
    pub fn field(&self, field: &Field) -> Option<&str> {
        Some(bare(self.at(field.at, field.width.unwrap_or_default())?, field))
    }

    /// Its fields as a record of texts.
    pub fn fields(&self, kind: &RecordType) -> Result<Record, FormatError> {
        if !kind.holds(self.width()) {
            return Err(wrong_width(self.width(), kind.width));
        }
        let mut record = Record::with_capacity(kind.fields.len());
        for field in &kind.fields {
            let text = self.field(field).ok_or_else(|| {
                let what = format!("`{}` begins or ends inside a character", field.name.local);
                FormatError::nowhere(Code::WrongRecord, what)
            })?;
            match &field.value {
                Some(value) if bare(value, field) != text => return Err(not_the_value(field)),
                Some(value) => record.push(field.name.clone(), Tree::text(value.as_str())),
                None => record.push(field.name.clone(), Tree::text(text)),
            }
        }
        Ok(record)
    }
}

/// A line of another width than its kind's.
pub(super) fn wrong_width(width: usize, wanted: usize) -> FormatError {
    FormatError::nowhere(
        Code::WrongRecord,
        format!("the line is {width} wide, and such a record is {wanted} wide"),
    )
}

/// How wide a text is in the layout's unit.
fn units(text: &str, fixed: &Fixed, encoding: &'static Encoding) -> usize {
    match fixed.unit {
        Unit::Bytes if encoding == UTF_8 => text.len(),
        Unit::Bytes | Unit::Characters => text.chars().count(),
    }
}

/// A text without its fill. Of zeros one is left; blanks in a field that is filled otherwise mean nothing.
fn bare<'t>(text: &'t str, field: &Field) -> &'t str {
    if text.bytes().all(|b| b == b' ') {
        return "";
    }
    let bare = match field.align {
        Align::Left => text.trim_end_matches(field.fill),
        Align::Right => text.trim_start_matches(field.fill),
    };
    match bare.is_empty() && field.fill == '0' {
        true => "0",
        false => bare,
    }
}

/// The length of the next line with its end in bytes that may not be all there yet.
pub(super) fn next_line(bytes: &[u8], ended: bool, from: usize) -> Option<usize> {
    match memchr(b'\n', bytes.get(from..).unwrap_or_default()) {
        Some(at) => Some(from + at + 1),
        None => ended.then_some(bytes.len()),
    }
}

/// The length in bytes of so many units; nothing if there are fewer.
pub(super) fn stretch(
    bytes: &[u8],
    width: usize,
    fixed: &Fixed,
    encoding: &'static Encoding,
) -> Option<usize> {
    if fixed.unit == Unit::Bytes || encoding != UTF_8 {
        return (bytes.len() >= width).then_some(width);
    }
    let mut starts = bytes.iter().enumerate().filter(|(_, b)| (**b & 0xC0) != 0x80).map(|(at, _)| at);
    match starts.nth(width) {
        Some(at) => Some(at),
        None => {
            let characters = bytes.iter().filter(|b| (**b & 0xC0) != 0x80).count();
            (characters == width).then_some(bytes.len())
        }
    }
}

/// The width of every line, where there are no line ends.
pub(super) fn common_width(layout: &Layout) -> usize {
    layout.records.iter().map(|record| record.width).max().unwrap_or(0)
}

/// The fixed side of a layout.
pub(super) fn shape(layout: &Layout) -> Result<&Fixed, FormatError> {
    match &layout.shape {
        Shape::Fixed(fixed) => Ok(fixed),
        Shape::Csv(_) | Shape::Xml(_) | Shape::Lines => Err(wrong_layout(layout, "fixed width")),
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
    let fixed = shape(layout)?;
    let mut rest = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut assembly = Assembly::default();
    let mut number = 0;
    while !rest.is_empty() {
        number += 1;
        let at = |error: FormatError| FormatError { at: Some(Place { line: number, column: 1 }), ..error };
        let length = match fixed.line_end {
            LineEnd::None => stretch(rest, common_width(layout), fixed, encoding).unwrap_or(rest.len()),
            LineEnd::Crlf | LineEnd::Lf => next_line(rest, true, 0).unwrap_or(rest.len()),
        };
        let (line, after) = rest.split_at_checked(length.max(1)).unwrap_or((rest, &[]));
        rest = after;
        let line = match fixed.line_end {
            LineEnd::None => line,
            LineEnd::Crlf | LineEnd::Lf => super::cells::without_end(line),
        };
        if line.is_empty() {
            continue;
        }
        if line.len() > limits.text {
            return Err(at(FormatError::nowhere(Code::DocumentTooLarge, "the line is beyond the limits")));
        }
        if let Some(error) = super::cells::odd_bytes(line, encoding == UTF_8) {
            return Err(at(error));
        }
        let line = Line::of(line, fixed, encoding).map_err(at)?;
        let kind = line.kind(layout, fixed).and_then(|kind| layout.records.get(kind));
        let kind = kind.ok_or_else(|| at(unknown_kind()))?;
        match kind.role {
            Role::Ignore => {}
            Role::Record | Role::Header | Role::Trailer | Role::Child => {
                assembly.add(kind, line.fields(kind).map_err(at)?).map_err(at)?;
            }
        }
    }
    assembly.finish()
}

/// Writes a line of a kind.
pub(super) fn write_line(layout: &Layout, kind: &RecordType, tree: &Tree) -> Result<Vec<u8>, FormatError> {
    let fixed = shape(layout)?;
    let empty = Record::new();
    let record = tree.as_record().unwrap_or(&empty);
    check_foreign(layout, kind, record)?;
    let mut parts: Vec<(usize, usize, String)> = Vec::with_capacity(kind.fields.len() + 1);
    for field in &kind.fields {
        let text = field_text(field, record)?;
        let marks = kind.when.as_ref().is_some_and(|(at, _)| *at == field.at) && text.is_empty();
        let width = field.width.unwrap_or_default();
        if !marks {
            parts.push((field.at, width, filled(&text, field, width, fixed, layout.encoding)?));
        }
    }
    if let Some((at, texts)) = &kind.when
        && let [text] = texts.as_slice()
    {
        let width = units(text, fixed, layout.encoding);
        if !parts.iter().any(|(from, wide, _)| *at < from + wide && *from < at + width) {
            parts.push((*at, width, text.clone()));
        }
    }
    parts.sort_by_key(|(at, _, _)| *at);
    let mut out = String::with_capacity(kind.width + 2);
    let mut reached = 0;
    for (at, width, text) in parts {
        out.extend(std::iter::repeat_n(' ', at.saturating_sub(reached)));
        out.push_str(&text);
        reached = at + width;
    }
    out.extend(std::iter::repeat_n(' ', kind.width.saturating_sub(reached)));
    out.push_str(match fixed.line_end {
        LineEnd::Crlf => "\r\n",
        LineEnd::Lf => "\n",
        LineEnd::None => "",
    });
    encoded(out, layout)
}

fn filled(
    text: &str,
    field: &Field,
    width: usize,
    fixed: &Fixed,
    encoding: &'static Encoding,
) -> Result<String, FormatError> {
    if text.contains(['\n', '\r']) {
        let what = format!("`{}` holds a line break; a field of fixed width cannot", field.name.local);
        return Err(FormatError::nowhere(Code::CannotWrite, what));
    }
    let length = units(text, fixed, encoding);
    let Some(missing) = width.checked_sub(length) else {
        let what = format!("`{}` holds {width}, and the text has {length}", field.name.local);
        return Err(FormatError::nowhere(Code::TextTooLong, what));
    };
    let fill: String = std::iter::repeat_n(field.fill, missing).collect();
    Ok(match field.align {
        Align::Left => text.to_owned() + &fill,
        Align::Right => fill + text,
    })
}

/// Writes the document of one record.
pub(super) fn write(tree: &Tree, layout: &Layout) -> Result<Vec<u8>, FormatError> {
    shape(layout)?;
    super::layout::write_group(layout, tree)
}
