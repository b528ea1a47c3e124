//! A first draft of an adapter from a sample: `packhorse new`. Looks at the names and values of one real file and at the
//! schema of one event, and writes an adapter, a mapping, a layout where the file needs one, and a case that passes.
//!
//! Pure: what is to be written is handed back as text. Every row that nobody has looked at says so (`guess`), and nothing
//! here is clever: a guess that says why is worth more than a good one that does not.

mod guess;
mod names;
mod sample;
mod table;
mod values;
mod write;

pub use sample::Kind;

use crate::{
    code::Code,
    event::schema::EventSchema,
    format::{Layout, write_json_pretty},
    mapping::{
        self, Context, Mapping,
        codes::CodeList,
        raw::{Direction, DocumentKeys, MappingFile, RowKeys},
    },
    problem::Severity,
    template::Texts,
    tree::Tree,
};
use guess::{Known, Table};
use jiff::Timestamp;
use sample::Sample;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

/// What a draft is made from.
#[derive(Debug, Clone, Copy)]
pub struct From<'a> {
    /// The name of the adapter.
    pub name: &'a str,
    /// The sample's file name, without its folder.
    pub file: &'a str,
    /// What the sample is.
    pub kind: Kind,
    /// Its bytes.
    pub bytes: &'a [u8],
    /// The event.
    pub schema: &'a Arc<EventSchema>,
    /// An example of the event's data.
    pub example: &'a Tree,
}

/// A draft.
#[derive(Debug)]
pub struct Draft {
    /// The files.
    pub files: Vec<NewFile>,
    /// What a person should look at, a sentence each.
    pub look: Vec<String>,
}

/// A file to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewFile {
    /// Where.
    pub place: Place,
    /// The path below the folder of its kind.
    pub path: String,
    /// The text.
    pub text: String,
}

/// The folder a file goes into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Among the adapters.
    Adapters,
    /// Among the mappings.
    Mappings,
}

/// Why there is no draft.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The code.
    pub code: Code,
    /// What is wrong with the sample.
    pub what: String,
}

/// What the texts are about.
struct Files<'a> {
    name: &'a str,
    document: &'a str,
    sample: &'a str,
    event: &'a str,
}

/// Makes a draft.
///
/// # Errors
/// A sample that cannot be read, or of which no event can be made.
pub fn draft(from: From<'_>) -> Result<Draft, Refused> {
    let sample = sample::read(from.kind, from.bytes, from.schema, from.example)?;
    let made = settle(&from, &sample)?;
    let event =
        from.schema.event_type.rsplit_once(".v").map_or(from.schema.event_type.as_str(), |(name, _)| name);
    let document = event.replace('.', "-");
    let files =
        Files { name: from.name, document: &document, sample: from.file, event: &from.schema.event_type };
    let mut written = vec![
        NewFile {
            place: Place::Adapters,
            path: format!("{}.toml", from.name),
            text: write::adapter(&files, &sample),
        },
        NewFile {
            place: Place::Mappings,
            path: format!("{}/{document}.toml", from.name),
            text: write::mapping(&files, &sample, &made.table),
        },
        NewFile {
            place: Place::Mappings,
            path: format!("{}/{document}.cases.toml", from.name),
            text: write::cases(
                &files,
                &made.document,
                &format!("{}\n", write_json_pretty(&made.event).trim_end()),
            ),
        },
    ];
    if let Some(table) = &sample.table {
        let path = format!("{}/rows.sql", from.name);
        written.push(NewFile { place: Place::Adapters, path, text: table.query.clone() });
    }
    written.extend(write::layout(&files, &sample).map(|text| NewFile {
        place: Place::Mappings,
        path: format!("layouts/{}.toml", from.name),
        text,
    }));
    for (list, pairs) in &made.table.codes {
        let text = write::codes(&files, pairs);
        written.push(NewFile { place: Place::Mappings, path: format!("codes/{list}.csv"), text });
    }
    Ok(Draft { files: written, look: made.look(&sample) })
}

/// A table that works for the first record.
struct Settled {
    table: Table,
    /// The first record as text.
    document: String,
    event: Tree,
    /// How many records become events, and the first reason of one that does not.
    passed: usize,
    failing: Option<(usize, String)>,
    notes: Vec<String>,
}

impl Settled {
    /// What a person should look at.
    fn look(&self, sample: &Sample) -> Vec<String> {
        fn count(rows: &[RowKeys], of: &dyn Fn(&RowKeys) -> bool) -> usize {
            rows.iter().map(|row| usize::from(of(row)) + count(&row.fields, of)).sum()
        }
        let mut look: Vec<String> = sample.notes.iter().chain(&self.notes).cloned().collect();
        let guesses = count(&self.table.rows, &|row| row.guess.is_some());
        let made_up = count(&self.table.rows, &|row| {
            row.guess.is_some() && row.document.is_none() && row.fields.is_empty()
        });
        look.push(format!(
            "rows that are guesses: {guesses}. `packhorse check` repeats each until its `guess` is taken out"
        ));
        if made_up > 0 {
            look.push(format!(
                "of them with the value of the event's example: {made_up}. Say where it really comes from"
            ));
        }
        if !self.table.ignore.is_empty() {
            look.push(format!(
                "places of the sample that go nowhere: {}. They stand under `ignore`",
                self.table.ignore.len()
            ));
        }
        match (&self.failing, sample.records.len()) {
            (_, 1) => {}
            (None, all) => look.push(format!("all {all} records of the sample become events")),
            (Some((number, why)), all) => look.push(format!(
                "{} of {all} records of the sample become events; record {number} does not: {why}",
                self.passed
            )),
        }
        look
    }
}

/// How often a table is made anew without what was refused.
const MOST_TRIES: usize = 100;

/// Makes the table, tries it on the first record, and takes back what is refused until it works.
fn settle(from: &From<'_>, sample: &Sample) -> Result<Settled, Refused> {
    let mut known = Known {
        schema: from.schema,
        example: from.example,
        name: from.name,
        refused: BTreeMap::new(),
        everything: false,
    };
    let mut last = String::new();
    let (document, tree, notes) = first(sample)?;
    for _ in 0..MOST_TRIES {
        let table = guess::table(&known, &sample.top);
        let tried_everything = known.everything;
        let wrong = match compile(from, sample, &table) {
            Ok(mapping) => match event_of(&mapping, &table.rows, &tree) {
                Ok(event) => return Ok(tried(sample, table, &mapping, document, event, notes)),
                Err(wrong) => wrong,
            },
            Err(wrong) => wrong,
        };
        let before = known.refused.len();
        for (field, what) in wrong {
            if field.is_empty() && !known.everything {
                known.everything = true;
                last = what;
                continue;
            }
            last = format!("`{field}`: {what}");
            let below = format!("{field}.");
            let meant = |own: &String| *own == field.trim_end_matches("[]") || own.starts_with(&below);
            let tried: Vec<String> = read_fields(&table.rows, "").into_iter().filter(meant).collect();
            known.refused.extend(
                tried.into_iter().map(|own| (own, format!("what looked like it was refused ({what})"))),
            );
        }
        // Nothing to take back: rules between fields are broken. Then nothing is read at all, and a person goes on.
        if known.refused.len() == before && tried_everything {
            let all = read_fields(&table.rows, "");
            if all.is_empty() {
                break;
            }
            let why = format!("together with the others it breaks a rule of the event ({last})");
            known.refused.extend(all.into_iter().map(|own| (own, why.clone())));
        }
    }
    let what = format!(
        "no event {} can be made of it, and not with the example's values either: {last}",
        from.schema.event_type
    );
    Err(Refused { code: Code::NotASample, what })
}

/// The fields that are read from the sample, with their groups: `lines[].amount`.
fn read_fields(rows: &[RowKeys], prefix: &str) -> Vec<String> {
    rows.iter()
        .flat_map(|row| {
            let own = format!("{prefix}{}", row.event.as_deref().unwrap_or_default());
            match row.fields.is_empty() {
                true => row.document.iter().map(|_| own.clone()).collect(),
                false => read_fields(&row.fields, &format!("{own}.")),
            }
        })
        .collect()
}

/// What a field is refused for: the field with its groups, and the reason.
type Wrong = Vec<(String, String)>;

fn compile(from: &From<'_>, sample: &Sample, table: &Table) -> Result<Mapping, Wrong> {
    let file = MappingFile {
        version: 1,
        about: String::new(),
        event: from.schema.event_type.clone(),
        only: Some(Direction::ToEvent),
        document: DocumentKeys {
            format: sample.format,
            root: sample.root.clone(),
            namespaces: sample.namespaces.clone(),
            layout: sample.layout.as_ref().map(|_| from.name.to_owned()),
            encoding: None,
        },
        fields: table.rows.clone(),
        ignore: table.ignore.clone(),
    };
    let codes: HashMap<String, Arc<CodeList>> = table
        .codes
        .iter()
        .map(|(name, pairs)| {
            let text = write::codes(&Files { name: "", document: "", sample: "", event: "" }, pairs);
            (name.clone(), Arc::new(CodeList::parse(name, &text).0))
        })
        .collect();
    let layouts: BTreeMap<String, Arc<Layout>> =
        sample.compiled.iter().map(|layout| (from.name.to_owned(), layout.clone())).collect();
    let with = mapping::With {
        schema: from.schema.clone(),
        codes: &codes,
        layouts: &layouts,
        broken_layouts: &BTreeSet::new(),
        line_of: &|at| numbered(at),
        digest: String::new(),
    };
    let (mapping, problems) = mapping::compile(from.name, &file, with);
    mapping.ok_or_else(|| {
        let errors = problems.iter().filter(|problem| problem.severity == Severity::Error);
        errors.map(|problem| (field_at(&table.rows, &problem.at), problem.what.clone())).collect()
    })
}

/// The number by which a row is known again, in place of a line: the keys to it, each in three digits.
fn numbered(at: &[String]) -> usize {
    at.iter().filter_map(|key| key.parse::<usize>().ok()).fold(0, |sum, index| sum * 1_000 + index + 1)
}

/// The keys behind such a number.
fn keys_of(mut number: usize) -> Vec<String> {
    let mut found = Vec::new();
    while number > 0 {
        found.push((number % 1_000).saturating_sub(1).to_string());
        number /= 1_000;
    }
    found.reverse();
    found
}

/// The field of the row at these keys.
fn field_at(rows: &[RowKeys], at: &[String]) -> String {
    let (mut rows, mut field) = (rows, String::new());
    for index in at.iter().filter_map(|key| key.parse::<usize>().ok()) {
        let Some(row) = rows.get(index) else { break };
        if !field.is_empty() {
            field.push('.');
        }
        field.push_str(row.event.as_deref().unwrap_or_default());
        rows = &row.fields;
    }
    field
}

fn event_of(mapping: &Mapping, rows: &[RowKeys], document: &Tree) -> Result<Tree, Wrong> {
    let nothing = Texts::new();
    let context = Context {
        settings: &nothing,
        values: &nothing,
        cause: None,
        now: Timestamp::UNIX_EPOCH,
        trace: None,
    };
    match mapping.to_event(document, context) {
        Ok(event) => Ok(event.data),
        Err(failures) => Err(failures
            .all
            .into_iter()
            .map(|failure| match failure.line {
                0 => (without_numbers(&failure.field), failure.what),
                line => (field_at(rows, &keys_of(line)), failure.what),
            })
            .collect()),
    }
}

/// `lines.0.amount` as rows write it: `lines[].amount`.
fn without_numbers(field: &str) -> String {
    let mut found = String::new();
    for part in field.split('.') {
        if part.parse::<usize>().is_ok() {
            found.push_str("[]");
            continue;
        }
        if !found.is_empty() {
            found.push('.');
        }
        found.push_str(part);
    }
    found
}

fn tried(
    sample: &Sample,
    table: Table,
    mapping: &Mapping,
    document: String,
    event: Tree,
    notes: Vec<String>,
) -> Settled {
    let results: Vec<Result<Tree, Wrong>> =
        sample.records.iter().map(|(_, tree)| event_of(mapping, &table.rows, tree)).collect();
    let passed = results.iter().filter(|result| result.is_ok()).count();
    let failing = results.iter().enumerate().find_map(|(at, result)| {
        let (field, what) = result.as_ref().err()?.first()?;
        Some((at + 1, format!("`{field}`: {what}")))
    });
    Settled { table, document, event, passed, failing, notes }
}

/// The record that becomes the case, as text that reads the same whatever the encoding of the file.
fn first(sample: &Sample) -> Result<(String, Tree, Vec<String>), Refused> {
    let utf8 = sample.compiled.as_ref().is_none_or(|layout| layout.encoding == encoding_rs::UTF_8);
    let fits = |bytes: &[u8]| bytes.is_ascii() || utf8;
    let text = |bytes: &[u8]| {
        String::from_utf8_lossy(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)).into_owned()
    };
    if let Some((bytes, tree)) = sample.records.iter().find(|(bytes, _)| fits(bytes)) {
        return Ok((text(bytes), tree.clone(), Vec::new()));
    }
    // A case is UTF-8 text, and is read in the encoding of the layout: only what is the same in both can stand in it.
    let Some((bytes, _)) = sample.records.first() else {
        return Err(Refused { code: Code::NotASample, what: "it has no record".to_owned() });
    };
    let plain: Vec<u8> = bytes.iter().map(|byte| if byte.is_ascii() { *byte } else { b'?' }).collect();
    let layout = sample.compiled.as_deref();
    let tree = sample.format.read(&plain, None, layout, &crate::format::Limits::default());
    let tree = tree.map_err(|error| Refused { code: error.code, what: error.to_string() })?;
    let note = "letters beyond ASCII are question marks in the case: a case is UTF-8, and the file is not"
        .to_owned();
    Ok((text(&plain), tree, vec![note]))
}
