//! The document of a record that is gone: only the fields that say which it was.

use super::Frame;
use crate::{
    code::Code,
    format::{
        Format, FormatError, Layout,
        cells::{self, Cells, Scan},
        charset,
        layout::Xml,
    },
    tree::{Name, Record, Tree},
};

/// The document of a removed row: only these fields are filled.
///
/// # Errors
/// A field that the file does not have, a value that the format cannot hold.
pub fn only(
    format: Format,
    layout: Option<&Layout>,
    frame: &Frame,
    fields: &[(String, String)],
) -> Result<Vec<u8>, FormatError> {
    let record: Record =
        fields.iter().map(|(name, text)| (Name::plain(name.as_str()), Tree::text(text.as_str()))).collect();
    if let Some((layout, shape)) = layout.and_then(|layout| Some((layout, layout.xml()?))) {
        return Ok(frame.wrap(&layout.write_record("", &nested(shape, fields))?));
    }
    let layout = match format {
        Format::Csv => layout.unwrap_or(Layout::plain_csv()),
        Format::Json => return Ok((super::super::write_json(&Tree::Record(record)) + "\n").into_bytes()),
        Format::Fixed => layout.ok_or_else(crate::format::fixed::no_layout)?,
        Format::Xml | Format::Soap11 | Format::Soap12 | Format::Form => {
            let what = "a record that is gone can be told of only if a layout says what a record is";
            return Err(FormatError::nowhere(Code::CannotWrite, what));
        }
    };
    let own = match (layout.csv(), layout.records.is_empty()) {
        (Some(csv), true) => {
            let names = names_of(layout, frame)?;
            if let Some(name) = cells::foreign(&record, |name| names.contains(name)) {
                let what = format!("the file has no column `{}`", name.local);
                return Err(FormatError::nowhere(Code::ColumnsDiffer, what));
            }
            let cells = names.iter().map(|name| cells::text_of(name, record.get(name)));
            let cells: Vec<String> = cells.collect::<Result<_, _>>()?;
            cells::encoded(csv.row(&cells)?, layout)?
        }
        _ => layout.write_record("", &Tree::Record(record))?,
    };
    Ok(frame.wrap(&own))
}

/// The fields at their paths from the root of an XML document.
fn nested(shape: &Xml, fields: &[(String, String)]) -> Tree {
    let mut tree = Tree::Null;
    for (path, text) in fields {
        let place = path.split('/').fold(&mut tree, |tree, step| {
            let (prefix, local) = step.split_once(':').unwrap_or(("", step));
            let name = Name { space: shape.namespaces.uri(prefix).cloned(), local: local.into() };
            tree.record_mut().entry(&name)
        });
        *place = Tree::text(text.as_str());
    }
    tree
}

/// The names of the columns in a frame.
fn names_of(layout: &Layout, frame: &Frame) -> Result<Vec<Name>, FormatError> {
    let Some(csv) = layout.csv().filter(|csv| csv.names_row > 0) else {
        return Ok(layout.csv().map(|csv| csv.columns.clone()).unwrap_or_default());
    };
    let mut rest = frame.before.as_slice();
    for number in 1..=csv.names_row {
        let length = Scan::default().row(csv, rest, true).unwrap_or(rest.len());
        let (row, after) = rest.split_at_checked(length).unwrap_or((rest, &[]));
        rest = after;
        if number == csv.names_row {
            let mut cells = Cells::default();
            cells.part(csv, &charset::decode_as(layout.encoding, row)?);
            return cells::names(csv, &cells);
        }
    }
    Ok(Vec::new())
}
