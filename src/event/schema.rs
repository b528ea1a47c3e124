//! The schema of one type of event: what its data must look like, field by field, and which of it is personal.
//!
//! JSON Schema 2020-12 with formats asserted, and annotations of our own: `x-event-type`, `x-subject` (which fields the
//! event's subject repeats, the first that is there), `x-sum`, `x-part-of` and `x-unique` (rules JSON Schema has no word for),
//! `x-personal-data`, `x-secret`. Schemas stand in `mappings/events/` and are the contract with the platform.

use super::instance::Trees;
use crate::{
    mapping::path::{Path, Step},
    tree::Tree,
};
use serde_json::Value;
use std::collections::HashSet;

/// A compiled event schema.
#[derive(Debug)]
pub struct EventSchema {
    /// `payment.succeeded.v1`.
    pub event_type: String,
    /// The schema's `$id`: what events carry as `dataschema`.
    pub id: String,
    /// The schema as written.
    pub document: Value,
    /// The data as a whole.
    pub root: Field,
    /// Which field the event's subject repeats: the first of these that is there.
    pub subject: Vec<Path>,
    sums: Vec<(Path, Path)>,
    parts: Vec<(Path, Path)>,
    unique: Vec<Path>,
    validator: jsonschema::Validator<Trees>,
}

/// What the schema says of one field.
#[derive(Debug, Clone)]
pub struct Field {
    /// Its name; empty for the data as a whole and for items of lists.
    pub name: String,
    /// Its type.
    pub kind: Kind,
    /// Whether it must be there, given that what it stands in is there.
    pub required: bool,
    /// Whether it is personal data.
    pub personal: bool,
    /// Whether it opens somebody's session or the like: shown no more than a password.
    pub secret: bool,
    /// All the values it can have, if the schema lists them.
    pub values: Option<Vec<Value>>,
    /// `pattern`.
    pub pattern: Option<String>,
    /// `format`.
    pub format: Option<String>,
    /// Lengths of text, or numbers of items.
    pub length: (Option<u64>, Option<u64>),
    /// Bounds of numbers.
    pub bounds: (Option<i64>, Option<i64>),
    /// The fields of a record.
    pub fields: Vec<Field>,
    /// The items of a list.
    pub items: Option<Box<Field>>,
    /// `description`.
    pub description: String,
}

/// The type of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A string.
    Text,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// True or false.
    Boolean,
    /// An array.
    List,
    /// An object.
    Record,
    /// Anything.
    Any,
}

/// One way in which data breaks its schema. Holds no value of the data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breach {
    /// Where in the data: `lines.0.amount`.
    pub field: String,
    /// What is wrong, in lower case.
    pub what: String,
}

/// Why a text is not a usable event schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadSchema {
    /// What is wrong.
    pub what: String,
    /// Where in the schema, as a JSON pointer.
    pub at: String,
}

impl EventSchema {
    /// Compiles a schema.
    ///
    /// # Errors
    /// Everything that keeps it from being used.
    pub fn compile(document: Value) -> Result<EventSchema, Vec<BadSchema>> {
        let bad = |at: &str, what: String| BadSchema { what, at: at.to_owned() };
        let mut problems = Vec::new();
        let text = |key: &str| document.get(key).and_then(Value::as_str).map(str::to_owned);
        let mut need = |key: &str| {
            text(key).unwrap_or_else(|| {
                problems.push(bad("", format!("`{key}` is missing, or is not text")));
                String::new()
            })
        };
        let (event_type, id) = (need("x-event-type"), need("$id"));
        let options = jsonschema::options_for::<Trees>()
            .with_draft(jsonschema::Draft::Draft202012)
            .should_validate_formats(true);
        let validator = match options.build(&document) {
            Ok(validator) => Some(validator),
            Err(error) => {
                problems.push(bad(&error.instance_path().to_string(), error.masked().to_string()));
                None
            }
        };
        let mut paths =
            |key: &str, list: &mut dyn FnMut(&Value) -> Vec<(String, String)>| -> Vec<(Path, Path)> {
                let pairs = document.get(key).map(list).unwrap_or_default();
                let parsed =
                    pairs.into_iter().filter_map(|(a, b)| match (Path::in_event(&a), Path::in_event(&b)) {
                        (Ok(a), Ok(b)) => Some((a, b)),
                        _ => {
                            problems.push(bad(
                                &format!("/{key}"),
                                format!("`{a}` or `{b}` is not the path of a field"),
                            ));
                            None
                        }
                    });
                parsed.collect()
            };
        let texts = |value: &Value| -> Vec<String> {
            value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let subject = paths("x-subject", &mut |v| texts(v).into_iter().map(|p| (p.clone(), p)).collect());
        let unique = paths("x-unique", &mut |v| texts(v).into_iter().map(|p| (p.clone(), p)).collect());
        let sums = paths("x-sum", &mut |v| {
            let pairs = v.as_object().into_iter().flatten();
            pairs.filter_map(|(total, parts)| Some((total.clone(), parts.as_str()?.to_owned()))).collect()
        });
        let parts = paths("x-part-of", &mut |v| {
            let pairs = v.as_object().into_iter().flatten();
            pairs.filter_map(|(part, whole)| Some((part.clone(), whole.as_str()?.to_owned()))).collect()
        });
        let root = field_of("", &document, &document, true, 0);
        if root.kind != Kind::Record {
            problems.push(bad("/type", "an event's data is an object".to_owned()));
        }
        match validator {
            Some(validator) if problems.is_empty() => Ok(EventSchema {
                event_type,
                id,
                root,
                subject: subject.into_iter().map(|(path, _)| path).collect(),
                sums,
                parts,
                unique: unique.into_iter().map(|(path, _)| path).collect(),
                validator,
                document,
            }),
            _ => Err(problems),
        }
    }

    /// Everything in which data breaks the schema; nothing if it keeps it.
    pub fn breaches(&self, data: &Tree) -> Vec<Breach> {
        let mut found: Vec<Breach> = Vec::new();
        if !self.validator.is_valid(data) {
            found = self
                .validator
                .iter_errors(data)
                .take(20)
                .map(|error| Breach {
                    field: error.instance_path().as_str().trim_start_matches('/').replace('/', "."),
                    what: error.masked_with("the value").to_string(),
                })
                .collect();
        }
        if holds_control_characters(data) {
            control_characters(data, "", &mut found);
        }
        for (total, parts) in &self.sums {
            let amount = |tree: &Tree| {
                if let Tree::Number(digits) = tree { digits.parse::<i128>().ok() } else { None }
            };
            let sum: Option<i128> = parts.find_all(data).into_iter().map(amount).sum();
            if let (Some(total_amount), Some(sum)) = (total.find(data).and_then(amount), sum)
                && total_amount != sum
            {
                let what = format!("the amounts at `{parts}` do not add up to `{total}`");
                found.push(Breach { field: total.to_string(), what });
            }
        }
        for (part, whole) in &self.parts {
            if exceeds(data, part.steps(), whole.steps()) {
                let what = format!("the amount is more than that at `{whole}`, of which it is a part");
                found.push(Breach { field: part.to_string(), what });
            }
        }
        for path in &self.unique {
            let mut seen = HashSet::new();
            if !path
                .find_all(data)
                .into_iter()
                .filter_map(Tree::to_plain_text)
                .all(|value| seen.insert(value))
            {
                found.push(Breach {
                    field: path.to_string(),
                    what: format!("a value at `{path}` occurs twice"),
                });
            }
        }
        found
    }

    /// The totals and their parts (`x-sum`).
    pub fn sum_paths(&self) -> &[(Path, Path)] {
        &self.sums
    }

    /// The amounts that are a part of another beside them, and those (`x-part-of`).
    pub fn part_paths(&self) -> &[(Path, Path)] {
        &self.parts
    }

    /// The fields whose values occur once (`x-unique`).
    pub fn unique_paths(&self) -> &[Path] {
        &self.unique
    }

    /// The subject of an event with this data, if the schema says which field it is.
    pub fn subject_of(&self, data: &Tree) -> Option<String> {
        self.subject.iter().find_map(|path| path.find(data)?.to_plain_text())
    }

    /// What the schema says of a field; `None` if it has no such field.
    pub fn field(&self, path: &Path) -> Option<&Field> {
        self.root.at(path)
    }
}

impl Field {
    /// The field at a path from here.
    pub fn at(&self, path: &Path) -> Option<&Field> {
        path.steps().iter().try_fold(self, |field, step| {
            let next = field.fields.iter().find(|f| f.name == step.name.local)?;
            match step.which {
                crate::mapping::path::Which::One => Some(next),
                _ => next.items.as_deref(),
            }
        })
    }

    /// Every leaf below here, with its path, that must be there if this is there: for coverage.
    pub fn leaves(&self) -> Vec<(String, &Field)> {
        let mut found = Vec::new();
        self.collect("", &mut found);
        found
    }

    fn collect<'f>(&'f self, prefix: &str, found: &mut Vec<(String, &'f Field)>) {
        for field in &self.fields {
            let path = match prefix {
                "" => field.name.clone(),
                prefix => format!("{prefix}.{}", field.name),
            };
            match (&field.kind, &field.items) {
                (Kind::Record, _) if !field.fields.is_empty() => field.collect(&path, found),
                (Kind::List, Some(items)) if items.kind == Kind::Record => {
                    items.collect(&format!("{path}[]"), found)
                }
                _ => found.push((path, field)),
            }
        }
    }
}

/// How deep references are followed.
const DEEPEST: usize = 16;

fn field_of(name: &str, schema: &Value, root: &Value, required: bool, depth: usize) -> Field {
    let referred = schema
        .get("$ref")
        .and_then(Value::as_str)
        .and_then(|reference| root.pointer(reference.strip_prefix('#')?));
    // A keyword beside `$ref` holds as well, and counts before the referred schema's own.
    let get = |key: &str| schema.get(key).or_else(|| referred?.get(key));
    let text = |key: &str| get(key).and_then(Value::as_str).map(str::to_owned);
    let number = |key: &str| get(key).and_then(Value::as_u64);
    let integer = |key: &str| get(key).and_then(Value::as_i64);
    let kind = match get("type").and_then(Value::as_str) {
        Some("string") => Kind::Text,
        Some("integer") => Kind::Integer,
        Some("number") => Kind::Number,
        Some("boolean") => Kind::Boolean,
        Some("array") => Kind::List,
        Some("object") => Kind::Record,
        _ => match get("const") {
            Some(Value::String(_)) => Kind::Text,
            Some(Value::Bool(_)) => Kind::Boolean,
            _ => Kind::Any,
        },
    };
    let needed: Vec<&str> =
        get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let deeper = depth < DEEPEST;
    let fields = get("properties").and_then(Value::as_object).filter(|_| deeper).map(|properties| {
        properties
            .iter()
            .map(|(n, s)| field_of(n, s, root, needed.contains(&n.as_str()), depth + 1))
            .collect()
    });
    let items =
        get("items").filter(|_| deeper).map(|items| Box::new(field_of("", items, root, true, depth + 1)));
    let length = match kind {
        Kind::List => (number("minItems"), number("maxItems")),
        _ => (number("minLength"), number("maxLength")),
    };
    Field {
        name: name.to_owned(),
        kind,
        required,
        personal: get("x-personal-data").is_some(),
        secret: get("x-secret").and_then(Value::as_bool).unwrap_or(false),
        values: get("const")
            .map(|v| vec![v.clone()])
            .or_else(|| get("enum").and_then(Value::as_array).cloned()),
        pattern: text("pattern"),
        format: text("format"),
        length,
        bounds: (integer("minimum"), integer("maximum")),
        fields: fields.unwrap_or_default(),
        items,
        description: text("description").unwrap_or_default(),
    }
}

/// Whether a part is more than its whole, in any entry of the lists that both paths go through.
fn exceeds(tree: &Tree, part: &[Step], whole: &[Step]) -> bool {
    if let (Some((step, part)), Some((same, whole))) = (part.split_first(), whole.split_first())
        && step == same
    {
        return match tree.at(&[&step.name.local]) {
            Some(Tree::List(entries)) => entries.iter().any(|entry| exceeds(entry, part, whole)),
            Some(inner) => exceeds(inner, part, whole),
            None => false,
        };
    }
    let amount = |path: &[Step]| -> Option<i128> {
        let names: Vec<&str> = path.iter().map(|step| step.name.local.as_str()).collect();
        tree.at(&names)?.to_plain_text()?.parse().ok()
    };
    matches!((amount(part), amount(whole)), (Some(part), Some(whole)) if part > whole)
}

fn holds_control_characters(tree: &Tree) -> bool {
    match tree {
        // Bytes below the blank and DEL are control characters; those above U+007F begin with 0xC2 in UTF-8.
        Tree::Text(text) => {
            text.bytes().any(|byte| byte < 0x20 || byte == 0x7F || byte == 0xC2)
                && text.contains(char::is_control)
        }
        Tree::Record(record) => record.entries().iter().any(|(_, inner)| holds_control_characters(inner)),
        Tree::List(items) => items.iter().any(holds_control_characters),
        Tree::Null | Tree::Bool(_) | Tree::Number(_) => false,
    }
}

/// Texts of an event are one line without control characters, as the contract says of all of them.
fn control_characters(tree: &Tree, path: &str, found: &mut Vec<Breach>) {
    match tree {
        Tree::Text(text) if text.contains(char::is_control) => {
            let what = "the text holds a control character".to_owned();
            found.push(Breach { field: path.to_owned(), what });
        }
        Tree::Record(record) => {
            for (name, inner) in record.entries() {
                let path =
                    if path.is_empty() { name.local.to_string() } else { format!("{path}.{}", name.local) };
                control_characters(inner, &path, found);
            }
        }
        Tree::List(items) => {
            for (index, inner) in items.iter().enumerate() {
                control_characters(inner, &format!("{path}.{index}"), found);
            }
        }
        Tree::Null | Tree::Bool(_) | Tree::Number(_) | Tree::Text(_) => {}
    }
}
