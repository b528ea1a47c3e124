//! Writing records by a layout.

use super::{Layout, RecordType, Role, Shape, Xml};
use crate::{
    code::Code,
    format::{FormatError, Style, cells, fixed, xml},
    tree::{Record, Tree},
};

impl Layout {
    /// What stands before the first record of a file: the byte-order mark and the header rows of a CSV file. Header
    /// records are written as records.
    pub fn write_head(&self) -> Vec<u8> {
        match &self.shape {
            Shape::Csv(csv) => {
                let mut head = if csv.bom { b"\xef\xbb\xbf".to_vec() } else { Vec::new() };
                // That the header can be written was checked when the layout was compiled.
                head.extend(cells::head(self).unwrap_or_default());
                head
            }
            Shape::Fixed(_) | Shape::Xml(_) | Shape::Lines => Vec::new(),
        }
    }

    /// One line of a kind of record with its end; the empty name is the only kind there is. Headers and children that
    /// the tree holds are not written with it. Of an XML document the repeated element, without what stands around it.
    ///
    /// # Errors
    /// A text too long for its field, a character that the encoding lacks, a field that the record does not have.
    pub fn write_record(&self, record: &str, tree: &Tree) -> Result<Vec<u8>, FormatError> {
        match &self.shape {
            Shape::Csv(_) if self.records.is_empty() && record.is_empty() => {
                cells::write_row(self, None, tree)
            }
            Shape::Csv(_) => cells::write_row(self, Some(self.kind_to_write(record, tree)?), tree),
            Shape::Fixed(_) => fixed::write_line(self, self.kind_to_write(record, tree)?, tree),
            Shape::Lines => Ok((crate::format::write_json(tree) + "\n").into_bytes()),
            Shape::Xml(shape) => element(shape, tree),
        }
    }

    /// Whether a character can be written in files of this layout.
    pub fn can_write(&self, c: char) -> bool {
        match &self.shape {
            Shape::Csv(csv) if csv.row(&[c.to_string(), String::new()]).is_err() => false,
            Shape::Csv(_) | Shape::Fixed(_) => cells::encoded(c.to_string(), self).is_ok(),
            Shape::Xml(_) | Shape::Lines => true,
        }
    }

    fn kind_to_write(&self, record: &str, tree: &Tree) -> Result<&RecordType, FormatError> {
        let found = match record {
            "" => main_kind(self, tree.as_record().unwrap_or(&Record::new())),
            name => self.record(name),
        };
        found.ok_or_else(|| {
            let what = format!("the layout `{}` has no record `{record}`", self.name);
            FormatError::nowhere(Code::CannotWrite, what)
        })
    }
}

/// Which kind of record a document is: the only one, the one whose mark the document bears, or the first that has all
/// its fields.
fn main_kind<'l>(layout: &'l Layout, record: &Record) -> Option<&'l RecordType> {
    let kinds = || layout.records.iter().filter(|kind| kind.role == Role::Record);
    let mut several = kinds();
    if let (Some(only), None) = (several.next(), several.next()) {
        return Some(only);
    }
    let marked = |kind: &&RecordType| {
        kind.when.as_ref().is_some_and(|(at, texts)| {
            let field = kind.fields.iter().find(|field| field.at == *at);
            let text = field.and_then(|field| record.get(&field.name)).and_then(Tree::as_text);
            text.is_some_and(|text| texts.iter().any(|known| known == text))
        })
    };
    let holds = |kind: &&RecordType| cells::check_foreign(layout, kind, record).is_ok();
    kinds().find(|kind| marked(kind) && holds(kind)).or_else(|| kinds().find(holds))
}

/// A record with its headers before it and its children behind it: the document of one record.
pub(in crate::format) fn write_group(layout: &Layout, tree: &Tree) -> Result<Vec<u8>, FormatError> {
    let Some(record) = tree.as_record() else {
        return Err(FormatError::nowhere(Code::CannotWrite, "a record holds named fields, nothing else"));
    };
    let mut out = Vec::new();
    let below = |role: Role, out: &mut Vec<u8>| -> Result<(), FormatError> {
        for (name, tree) in record.entries() {
            if layout.records.iter().any(|kind| kind.role == role && kind.name == *name) {
                out.extend(layout.write_record(&name.local, tree)?);
            }
        }
        Ok(())
    };
    below(Role::Header, &mut out)?;
    out.extend(layout.write_record("", tree)?);
    below(Role::Child, &mut out)?;
    Ok(out)
}

/// The repeated element of a document that holds one.
fn element(shape: &Xml, tree: &Tree) -> Result<Vec<u8>, FormatError> {
    let cannot = |what: &str| FormatError::nowhere(Code::CannotWrite, what);
    let none = || cannot("the document does not hold the element that the layout calls its record");
    let (last, around) = shape.record.split_last().ok_or_else(none)?;
    let inside = around.iter().try_fold(tree, |tree, name| tree.as_record()?.get(name));
    let found = inside.and_then(|tree| tree.as_record()?.get(last)).ok_or_else(none)?;
    let alone: Record = [(last.clone(), found.clone())].into_iter().collect();
    let style = Style { namespaces: shape.namespaces.clone(), ..Style::default() };
    let document = xml::write(&Tree::Record(alone), &style)?;
    // A part of a document has no declaration: the file's own head has it.
    let (_, element) = document.split_once("?>").ok_or_else(none)?;
    Ok((element.trim_start().to_owned() + "\n").into_bytes())
}
