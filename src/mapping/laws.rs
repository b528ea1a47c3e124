//! The laws of a mapping: what goes over comes back.
//!
//! `to_event(to_document(e))` gives back every field of `e` that goes over by a row in both directions, and
//! `to_document(to_event(d))` every such place of `d`. Rows that go one way, or that say what they lose, are left out.
//! A mapping that is used in one direction keeps the laws too: a conversion that does not come back is mostly a mistake.

use super::{
    Body, Context, EventPlace, Failure, Input, Mapping, Row, Step, Trace,
    convert::{Beside, Conversion},
    read, write,
};
use crate::{
    code::Code,
    event::{Event, schema::Kind},
    format::Format,
    tree::Tree,
};

/// A row that does not give back what it was given.
#[derive(Debug, Clone, PartialEq)]
pub struct Broken {
    /// Its line in the mapping's file.
    pub line: usize,
    /// The field.
    pub field: String,
    /// What went in, what came back, in words. Holds values: for people who test, not for logs.
    pub what: String,
}

/// What became of an attempt at a law.
#[derive(Debug, Clone, PartialEq)]
pub enum Law {
    /// It held for so many values.
    Kept(usize),
    /// It did not hold.
    Broken(Vec<Broken>),
    /// The mapping refuses the input, for these reasons: nothing is promised of refused messages.
    Refused(Vec<Failure>),
}

/// The law from the event's side.
pub fn of_event(mapping: &Mapping, event: &Event, context: Context<'_>) -> Law {
    let (out, back) = (Trace::default(), Trace::default());
    let (document, failures) = write::run(mapping, event, Context { trace: Some(&out), ..context });
    if !failures.is_empty() {
        return Law::Refused(failures);
    }
    let document = match over(mapping, document) {
        Ok(document) => document,
        Err(law) => return law,
    };
    let (_, failures) = read::run(mapping, &document, Context { trace: Some(&back), ..context });
    compare(mapping, &out, &back, failures, |step| &step.event_value, Conversion::same)
}

/// The document as it is read again, where writing may lose something that the tree still has: a text that is too long
/// for its field, zeros that are taken for its fill.
fn over(mapping: &Mapping, document: Tree) -> Result<Tree, Law> {
    match mapping.format {
        Format::Json | Format::Xml | Format::Soap11 | Format::Soap12 | Format::Form => Ok(document),
        Format::Csv | Format::Fixed => {
            let bytes = mapping.format.encode(&document, &mapping.style).map_err(|error| {
                Law::Refused(vec![Failure {
                    code: error.code,
                    line: 0,
                    field: "document".to_owned(),
                    what: error.what,
                    value: None,
                }])
            })?;
            mapping.read(&bytes).map_err(|error| {
                let what = format!("what was written cannot be read again: {error}");
                Law::Broken(vec![Broken { line: 0, field: "document".to_owned(), what }])
            })
        }
    }
}

/// The law from the document's side.
pub fn of_document(mapping: &Mapping, document: &Tree, context: Context<'_>) -> Law {
    let (out, back) = (Trace::default(), Trace::default());
    let (event, failures) = read::run(mapping, document, Context { trace: Some(&out), ..context });
    let serious: Vec<Failure> =
        failures.into_iter().filter(|failure| failure.code != Code::ValueMissing).collect();
    if !serious.is_empty() {
        return Law::Refused(serious);
    }
    let event = Event {
        id: event.id.unwrap_or_default(),
        source: String::new(),
        event_type: mapping.schema.event_type.clone(),
        subject: event.subject,
        time: event.time,
        data: event.data,
        ..Event::default()
    };
    let (_, failures) = write::run(mapping, &event, Context { trace: Some(&back), ..context });
    // Two spellings that are read as the same value are no loss: `05` and `5`, with and without zeros behind the point.
    let same = |conversion: &Conversion, a: &Tree, b: &Tree| {
        let read = |tree: &Tree| conversion.to_event(tree, Kind::Any, Beside::default());
        conversion.same(a, b)
            || matches!((read(a), read(b)), (Ok(Some(a)), Ok(Some(b))) if conversion.same(&a, &b))
    };
    compare(mapping, &out, &back, failures, |step| &step.document_value, same)
}

fn compare(
    mapping: &Mapping,
    out: &Trace,
    back: &Trace,
    failures: Vec<Failure>,
    of: impl Fn(&Step) -> &Tree,
    same: impl Fn(&Conversion, &Tree, &Tree) -> bool,
) -> Law {
    let mut broken: Vec<Broken> = failures
        .into_iter()
        // On the way back only the rows that go both ways have something to read.
        .filter(|failure| failure.code != Code::ValueMissing)
        .map(|failure| Broken {
            line: failure.line,
            field: failure.field,
            what: format!("what was written is refused when it is read back: {}", failure.what),
        })
        .collect();
    let (out, back) = (out.0.borrow(), back.0.borrow());
    let mut kept = 0;
    let mut rows = Vec::new();
    collect(&mapping.rows, true, &mut rows);
    for (row, conversion) in rows {
        let values = |steps: &[Step]| -> Vec<Tree> {
            steps.iter().filter(|step| step.row == row.number).map(|step| of(step).clone()).collect()
        };
        let (given, returned) = (values(&out), values(&back));
        if given.is_empty() {
            continue;
        }
        let kept_all =
            given.len() == returned.len() && given.iter().zip(&returned).all(|(a, b)| same(conversion, a, b));
        match kept_all {
            true => kept += given.len(),
            false => {
                let show = |values: &[Tree]| {
                    let texts: Vec<String> = values.iter().map(crate::format::write_json).collect();
                    if texts.is_empty() { "nothing".to_owned() } else { texts.join(", ") }
                };
                broken.push(Broken {
                    line: row.line,
                    field: row.field(),
                    what: format!("{} went over, {} came back", show(&given), show(&returned)),
                });
            }
        }
    }
    match broken.is_empty() {
        true => Law::Kept(kept),
        false => Law::Broken(broken),
    }
}

/// The rows that carry values in both directions.
fn collect<'m>(rows: &'m [Row], both: bool, found: &mut Vec<(&'m Row, &'m Conversion)>) {
    for row in rows {
        let both = both && row.only.is_none() && !row.lossy;
        match &row.body {
            Body::Value { conversion, .. } => {
                let sided =
                    row.event.is_some() && row.document.is_some() && matches!(row.input, Input::Other);
                // What stands under a condition of one side need not come back from the other.
                let attribute = matches!(row.event, Some(EventPlace::Attribute(_)));
                if both && sided && row.when.is_empty() && !attribute {
                    found.push((row, conversion));
                }
            }
            Body::Group(rows) | Body::Packed { rows, .. } => {
                collect(
                    rows,
                    both && row.when.is_empty() && row.event.is_some() == row.document.is_some(),
                    found,
                );
            }
        }
    }
}
