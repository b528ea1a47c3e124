//! Running the cases of a mapping: given this, that must come out, or this error.

use super::{
    Context, Failures, Mapping, laws,
    raw::{CaseKeys, Direction},
};
use crate::{
    code::Code,
    event::Event,
    format::{Format, Limits, parse_json, write_json_pretty},
    tree::{Name, Record, Tree},
};
use jiff::Timestamp;

/// What a case came to in one direction.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The direction, or the law from that side.
    pub what: String,
    /// What is wrong, in lines; nothing if it came out as expected.
    pub wrong: Option<String>,
}

/// The texts of a case, with files read.
#[derive(Debug, Clone, Default)]
pub struct Texts {
    /// The event.
    pub event: Option<String>,
    /// The document.
    pub document: Option<String>,
}

/// An event from a case or from standard input: a whole CloudEvent, or its data with attributes as `$id`, `$time` …
///
/// # Errors
/// It is not JSON, or not an object.
pub fn event_of(text: &str, event_type: &str) -> Result<Event, String> {
    let tree = parse_json(text, &Limits::default()).map_err(|error| error.to_string())?;
    let Tree::Record(record) = tree else { return Err("the event is not a JSON object".to_owned()) };
    let mut event = Event { event_type: event_type.to_owned(), ..Event::default() };
    if record.get_plain("specversion").is_some() {
        let text = |name: &str| record.get_plain(name).and_then(Tree::as_text).map(str::to_owned);
        event.id = text("id").unwrap_or_default();
        event.source = text("source").unwrap_or_default();
        event.event_type = text("type").unwrap_or_default();
        event.subject = text("subject");
        event.time = text("time");
        event.data = record.get_plain("data").cloned().unwrap_or_default();
        return Ok(event);
    }
    let mut data = Record::new();
    for (name, value) in record.entries() {
        let text = value.to_plain_text();
        match name.local.as_str() {
            "$id" => event.id = text.unwrap_or_default(),
            "$source" => event.source = text.unwrap_or_default(),
            "$subject" => event.subject = text,
            "$time" => event.time = text,
            _ => data.push(name.clone(), value.clone()),
        }
    }
    event.data = Tree::Record(data);
    Ok(event)
}

/// Runs a case in every direction it is for, with the laws that it allows to check.
pub fn run(mapping: &Mapping, case: &CaseKeys, texts: &Texts) -> Vec<Outcome> {
    let now = case.now.as_deref().and_then(|text| text.parse().ok()).unwrap_or(Timestamp::UNIX_EPOCH);
    let cause = case.cause.as_deref().and_then(|text| parse_json(text, &Limits::default()).ok());
    let context =
        Context { settings: &case.settings, values: &case.values, cause: cause.as_ref(), now, trace: None };
    let goes = |direction| mapping.works(direction) && case.only.is_none_or(|only| only == direction);
    let mut outcomes = Vec::new();
    let event = texts.event.as_deref().map(|text| event_of(text, &mapping.schema.event_type));
    let document = texts.document.as_deref().map(|text| mapping.read_text(text));
    if goes(Direction::ToDocument) && texts.event.is_some() {
        let wrong = match (&event, &document) {
            (Some(Ok(event)), _) => to_document(mapping, event, texts, case, context),
            (Some(Err(error)), _) => Some(format!("the case's event cannot be read: {error}")),
            (None, _) => None,
        };
        outcomes.push(Outcome { what: "to document".to_owned(), wrong });
    }
    if goes(Direction::ToEvent) && texts.document.is_some() {
        let wrong = match &document {
            Some(Ok(document)) => to_event(mapping, document, event.as_ref(), case, context),
            Some(Err(error)) => failed_as(case, error.code.as_str(), &error.to_string()),
            None => None,
        };
        outcomes.push(Outcome { what: "to event".to_owned(), wrong });
    }
    if case.fails.is_none() {
        let law = |law| match law {
            laws::Law::Broken(broken) => {
                let lines = broken.iter().map(|b| format!("line {} `{}`: {}", b.line, b.field, b.what));
                Some(lines.collect::<Vec<_>>().join("\n"))
            }
            laws::Law::Kept(_) | laws::Law::Refused(_) => None,
        };
        if let Some(Ok(event)) = event.as_ref().filter(|_| goes(Direction::ToDocument)) {
            outcomes.push(Outcome {
                what: "law from the event".to_owned(),
                wrong: law(laws::of_event(mapping, event, context)),
            });
        }
        if let Some(Ok(document)) = document.as_ref().filter(|_| goes(Direction::ToEvent)) {
            let wrong = law(laws::of_document(mapping, document, context));
            outcomes.push(Outcome { what: "law from the document".to_owned(), wrong });
        }
    }
    if outcomes.is_empty() {
        let wrong =
            Some("the case has neither an event nor a document for the mapping's direction".to_owned());
        outcomes.push(Outcome { what: "nothing".to_owned(), wrong });
    }
    outcomes
}

fn failed_as(case: &CaseKeys, code: &str, what: &str) -> Option<String> {
    match &case.fails {
        Some(wanted) if wanted == code => None,
        Some(wanted) => Some(format!("it must fail with {wanted}, and fails with {code}: {what}")),
        None => Some(format!("it fails with {code}: {what}")),
    }
}

fn failures(case: &CaseKeys, failures: &Failures) -> Option<String> {
    let codes: Vec<&str> = failures.all.iter().map(|failure| failure.code.as_str()).collect();
    match &case.fails {
        Some(wanted) if codes.contains(&wanted.as_str()) => None,
        _ => failed_as(case, codes.first().copied().unwrap_or_default(), &failures.to_string()),
    }
}

fn to_document(
    mapping: &Mapping,
    event: &Event,
    texts: &Texts,
    case: &CaseKeys,
    context: Context<'_>,
) -> Option<String> {
    let made = match mapping.to_document(event, context) {
        Ok(made) => made,
        Err(error) => return failures(case, &error),
    };
    let bytes = match mapping.format.encode(&made, &mapping.style) {
        Ok(bytes) => bytes,
        Err(error) => return failed_as(case, error.code.as_str(), &error.to_string()),
    };
    // The bridge looks at the schema first; here the mapping's own word for it counts before that.
    if let Some(breach) = mapping.schema.breaches(&event.data).first() {
        let what = format!("the event breaks its schema: `{}`: {}", breach.field, breach.what);
        return failed_as(case, Code::EventBreaksSchema.as_str(), &what);
    }
    if let Some(wanted) = &case.fails {
        return Some(format!("it must fail with {wanted}, and does not"));
    }
    let expected = texts.document.as_deref()?;
    // Both are read again: white space, prefixes and the order of JSON members are no differences.
    match (mapping.read(&bytes), mapping.read_text(expected)) {
        (Ok(made), Ok(expected)) if same(&made, &expected, mapping.format) => None,
        (Ok(made), Ok(expected)) => Some(difference(&shown(&expected), &shown(&made))),
        (Err(error), _) => Some(format!("what was written cannot be read again: {error}")),
        (_, Err(error)) => Some(format!("the case's document cannot be read: {error}")),
    }
}

fn to_event(
    mapping: &Mapping,
    document: &Tree,
    expected: Option<&Result<Event, String>>,
    case: &CaseKeys,
    context: Context<'_>,
) -> Option<String> {
    let made = match mapping.to_event(document, context) {
        Ok(made) => made,
        Err(error) => return failures(case, &error),
    };
    if let Some(wanted) = &case.fails {
        return Some(format!("it must fail with {wanted}, and does not"));
    }
    let expected = match expected? {
        Ok(expected) => expected,
        Err(error) => return Some(format!("the case's event cannot be read: {error}")),
    };
    let attribute = |name: &str, wanted: Option<&str>, made: Option<&str>| match wanted {
        Some(wanted) if Some(wanted) != made => Some(format!("{name} is {made:?}, expected {wanted:?}")),
        _ => None,
    };
    let wanted_id = Some(expected.id.as_str()).filter(|id| !id.is_empty());
    let wrong = [
        attribute("$id", wanted_id, made.id.as_deref()),
        attribute("$subject", expected.subject.as_deref(), made.subject.as_deref()),
        attribute("$time", expected.time.as_deref(), made.time.as_deref()),
        (!same(&made.data, &expected.data, Format::Json))
            .then(|| difference(&shown(&expected.data), &shown(&made.data))),
    ];
    let wrong: Vec<String> = wrong.into_iter().flatten().collect();
    (!wrong.is_empty()).then(|| wrong.join("\n"))
}

/// Whether two documents say the same: in JSON the order of members says nothing, and 62.5 is 62.50.
fn same(a: &Tree, b: &Tree, format: Format) -> bool {
    match (a, b) {
        (Tree::Number(x), Tree::Number(y)) => {
            x == y
                || matches!((x.parse::<rust_decimal::Decimal>(), y.parse::<rust_decimal::Decimal>()), (Ok(x), Ok(y)) if x == y)
        }
        (Tree::List(x), Tree::List(y)) => {
            x.len() == y.len() && x.iter().zip(y).all(|(x, y)| same(x, y, format))
        }
        (Tree::Record(x), Tree::Record(y)) if format.typed() => {
            let inside = |x: &Record, y: &Record| {
                x.entries()
                    .iter()
                    .all(|(name, tree)| y.get(name).is_some_and(|other| same(tree, other, format)))
            };
            x.entries().len() == y.entries().len() && inside(x, y)
        }
        (Tree::Record(x), Tree::Record(y)) => {
            let attributes = |record: &Record| -> Vec<(Name, Tree)> {
                let mut found: Vec<(Name, Tree)> =
                    record.entries().iter().filter(|(name, _)| name.is_attribute()).cloned().collect();
                found.sort_by_key(|(name, _)| name.to_string());
                found
            };
            let rest = |record: &Record| -> Vec<(Name, Tree)> {
                record.entries().iter().filter(|(name, _)| !name.is_attribute()).cloned().collect()
            };
            let (x_rest, y_rest) = (rest(x), rest(y));
            attributes(x) == attributes(y)
                && x_rest.len() == y_rest.len()
                && x_rest.iter().zip(&y_rest).all(|((n, x), (m, y))| n == m && same(x, y, format))
        }
        (a, b) => a == b,
    }
}

fn shown(tree: &Tree) -> String {
    write_json_pretty(&sorted(tree))
}

/// With the members of records by name, so that only real differences show.
fn sorted(tree: &Tree) -> Tree {
    match tree {
        Tree::List(items) => Tree::List(items.iter().map(sorted).collect()),
        Tree::Record(record) => {
            let mut entries: Vec<(Name, Tree)> =
                record.entries().iter().map(|(name, tree)| (name.clone(), sorted(tree))).collect();
            entries.sort_by(|(a, _), (b, _)| a.local.cmp(&b.local));
            Tree::Record(entries.into_iter().collect())
        }
        other => other.clone(),
    }
}

/// The lines in which two texts differ, in the manner of a diff.
fn difference(expected: &str, made: &str) -> String {
    let (expected, made): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), made.lines().collect());
    let mut lines = vec!["expected (-) and made (+):".to_owned()];
    let (mut i, mut j) = (0, 0);
    while i < expected.len() || j < made.len() {
        match (expected.get(i), made.get(j)) {
            (Some(a), Some(b)) if a == b => {
                i += 1;
                j += 1;
            }
            (Some(a), b) => {
                let ahead = made.get(j..).unwrap_or_default().iter().take(12).position(|line| line == a);
                match (ahead, b) {
                    (Some(count), _) => {
                        lines.extend(
                            made.get(j..j + count).unwrap_or_default().iter().map(|line| format!("+ {line}")),
                        );
                        j += count;
                    }
                    (None, _) => {
                        lines.push(format!("- {a}"));
                        i += 1;
                    }
                }
            }
            (None, Some(b)) => {
                lines.push(format!("+ {b}"));
                j += 1;
            }
            (None, None) => break,
        }
    }
    lines.join("\n")
}
