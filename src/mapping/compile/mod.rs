//! From a mapping file as written to a mapping that runs, or to everything that is wrong with it.

mod check;
mod layout;

use super::{
    Attribute, Body, EventPlace, Input, Mapping, Row,
    codes::CodeList,
    convert::Conversion,
    dates::{DateForm, TimeForm, london},
    path::{BadPath, Path},
    raw::{ConditionKeys, Direction, MappingFile, RowKeys},
};
use crate::{
    code::Code,
    event::schema::{EventSchema, Field, Kind},
    format::{Format, Layout, Namespaces, Style, charset},
    problem::Problem,
    template::{BadTemplate, Escape, Template},
    tree::Tree,
};
use jiff::tz::TimeZone;
use rust_decimal::Decimal;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

/// What a mapping is compiled with.
pub struct With<'a> {
    /// The schema of its event.
    pub schema: Arc<EventSchema>,
    /// The code lists by name.
    pub codes: &'a HashMap<String, Arc<CodeList>>,
    /// The layouts by name.
    pub layouts: &'a BTreeMap<String, Arc<Layout>>,
    /// The names of layouts that are there but broken: their problems are told elsewhere.
    pub broken_layouts: &'a BTreeSet<String>,
    /// The line at which these keys stand in the file.
    pub line_of: &'a dyn Fn(&[String]) -> usize,
    /// The digest to note.
    pub digest: String,
}

/// A condition, compiled.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    /// Which side it looks at.
    pub on: Direction,
    /// Where.
    pub path: Path,
    /// Whether the path begins at the top rather than in the group that the row stands in.
    pub from_top: bool,
    /// What must hold.
    pub test: Test,
}

/// What a condition asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    /// One of these values.
    Is(Vec<String>),
    /// None of these values, or absent.
    Not(Vec<String>),
    /// Present, or absent.
    Present(bool),
    /// A number below zero, or not.
    BelowZero(bool),
}

impl Test {
    /// Whether it holds for a value. Null and empty text count as absent.
    pub fn holds(&self, value: Option<&Tree>) -> bool {
        let value = value.filter(|tree| !matches!(tree, Tree::Null) && tree.as_text() != Some(""));
        match self {
            Test::Present(wanted) => value.is_some() == *wanted,
            Test::BelowZero(wanted) => {
                let number = value.and_then(Tree::to_plain_text).and_then(|text| text.trim().parse().ok());
                number.is_some_and(|number: Decimal| number < Decimal::ZERO) == *wanted
            }
            Test::Is(values) => {
                value.and_then(Tree::to_plain_text).is_some_and(|text| values.contains(&text))
            }
            Test::Not(values) => {
                value.and_then(Tree::to_plain_text).is_none_or(|text| !values.contains(&text))
            }
        }
    }
}

impl Condition {
    /// Compiles a condition as written. `namespaces` is for its document side.
    ///
    /// # Errors
    /// What is wrong with it, at these keys.
    pub fn compile(
        keys: &ConditionKeys,
        namespaces: Option<&Namespaces>,
        at: &[String],
    ) -> Result<Condition, Problem> {
        let (on, path) = match (&keys.event, &keys.document) {
            (Some(event), None) => (
                Direction::ToDocument,
                Path::in_event(event).map_err(|bad| bad_path(bad, at, "event", event))?,
            ),
            (None, Some(document)) => (
                Direction::ToEvent,
                Path::in_document(document, namespaces)
                    .map_err(|bad| bad_path(bad, at, "document", document))?,
            ),
            _ => {
                let what = "a condition names either a field of the event or a place in the document";
                return Err(Problem::under(Code::ExclusiveKeys, at, "", what)
                    .label("exactly one of `event` and `document`"));
            }
        };
        let test = match (&keys.is, &keys.not, keys.present, keys.below_zero) {
            (Some(values), None, None, None) => Test::Is(values.clone()),
            (None, Some(values), None, None) => Test::Not(values.clone()),
            (None, None, Some(present), None) => Test::Present(present),
            (None, None, None, Some(below)) => Test::BelowZero(below),
            _ => {
                let what = "a condition asks exactly one thing: `is`, `not`, `present` or `below_zero`";
                return Err(
                    Problem::under(Code::ExclusiveKeys, at, "", what).label("exactly one of the four")
                );
            }
        };
        Ok(Condition { on, path, from_top: false, test })
    }
}

/// The problem of a path.
pub fn bad_path(bad: BadPath, at: &[String], key: &str, _text: &str) -> Problem {
    let code = if bad.unknown_prefix.is_some() { Code::UnknownPrefix } else { Code::BadPath };
    Problem::under(code, at, key, bad.what).part(Some(bad.part)).label("here")
}

/// The problem of a template.
pub fn bad_template(bad: BadTemplate, at: &[String], key: &str) -> Problem {
    Problem::under(Code::BadTemplate, at, key, format!("the template cannot work: {}", bad.what))
        .part(bad.part)
        .label("in this template")
        .help("a template sees event, document, settings, values, cause, item and now")
}

/// Compiles a mapping. Problems that are only warnings come with a mapping; with an error there is none.
pub fn compile(name: &str, file: &MappingFile, with: With<'_>) -> (Option<Mapping>, Vec<Problem>) {
    let mut compiler = Compiler {
        with,
        file,
        namespaces: Namespaces::default(),
        problems: Vec::new(),
        number: 0,
        unsound: false,
    };
    let mapping = compiler.mapping(name);
    let problems = compiler.problems;
    let broken = compiler.unsound
        || problems.iter().any(|problem| problem.severity == crate::problem::Severity::Error);
    (mapping.filter(|_| !broken), problems)
}

struct Compiler<'a> {
    with: With<'a>,
    file: &'a MappingFile,
    namespaces: Namespaces,
    problems: Vec<Problem>,
    number: usize,
    /// Whether it cannot run for a reason that is told elsewhere: its layout is broken.
    unsound: bool,
}

/// Where in the table a row stands: the group of the event, and the keys in the file.
struct Group<'f> {
    /// What the schema says of the group that the rows stand in.
    field: &'f Field,
    /// Whether rows name positions in one text instead of places in a document.
    packed: bool,
}

impl<'a> Compiler<'a> {
    fn problem(&mut self, problem: Problem) {
        self.problems.push(problem);
    }
    fn mapping(&mut self, name: &str) -> Option<Mapping> {
        let document = &self.file.document;
        let is_xml = document.format.is_xml();
        self.namespaces = document.namespaces.iter().map(|(p, u)| (p.as_str(), u.as_str())).collect();
        if !is_xml && (document.root.is_some() || !document.namespaces.is_empty()) {
            let key = if document.root.is_some() { "root" } else { "namespaces" };
            self.problem(
                Problem::error(
                    Code::WrongConversion,
                    &["document", key],
                    format!("`{key}` means nothing in this format"),
                )
                .label("only XML and SOAP have it"),
            );
        }
        let root = match (&document.root, is_xml) {
            (Some(root), true) => match Path::in_document(root, Some(&self.namespaces)) {
                Ok(path) if path.steps().len() == 1 => path.steps().first().map(|step| step.name.clone()),
                Ok(_) => {
                    let what = "the root is one element";
                    self.problem(Problem::error(Code::BadPath, &["document", "root"], what));
                    None
                }
                Err(bad) => {
                    self.problem(bad_path(bad, &["document".to_owned()], "root", root));
                    None
                }
            },
            (None, true) => {
                let what = "an XML document has a root element: name it";
                self.problem(
                    Problem::error(Code::MissingKey, &["document"], what).label("`root` is missing"),
                );
                None
            }
            (_, false) => None,
        };
        let encoding = document.encoding.as_deref().and_then(|label| match charset::by_label(label) {
            Ok(encoding) => Some(encoding),
            Err(error) => {
                self.problem(Problem::error(Code::WrongEncoding, &["document", "encoding"], error.what));
                None
            }
        });
        let layout = self.layout();
        let schema = self.with.schema.clone();
        let group = Group { field: &schema.root, packed: false };
        let file = self.file;
        let rows = self.rows(&file.fields, &["fields".to_owned()], &group);
        let ignore = self.paths(&file.ignore, "ignore");
        self.coverage(&rows, &schema.root, "");
        Some(Mapping {
            name: name.to_owned(),
            digest: self.with.digest.clone(),
            schema: schema.clone(),
            format: document.format,
            style: Style { namespaces: std::mem::take(&mut self.namespaces), charset: encoding, layout },
            only: self.file.only,
            root,
            known: super::read::Known::of(&rows, &ignore),
            rows,
        })
    }
    fn paths(&mut self, texts: &[String], key: &str) -> Vec<Path> {
        let mut paths = Vec::new();
        for (index, text) in texts.iter().enumerate() {
            match self.document_path(text) {
                Ok(path) => paths.push(path),
                Err(bad) => self.problem(bad_path(bad, &[key.to_owned()], &index.to_string(), text)),
            }
        }
        paths
    }
    fn document_path(&self, text: &str) -> Result<Path, BadPath> {
        Path::in_document(text, self.file.document.format.is_xml().then_some(&self.namespaces))
    }
    fn rows(&mut self, keys: &[RowKeys], at: &[String], group: &Group<'_>) -> Vec<Row> {
        let mut rows: Vec<Row> = Vec::new();
        for (index, keys) in keys.iter().enumerate() {
            let mut at = at.to_vec();
            at.push(index.to_string());
            if let Some(row) = self.row(keys, &at, group, &rows) {
                self.twice(&rows, &row, &at);
                rows.push(row);
            }
        }
        rows
    }
    fn row(&mut self, keys: &RowKeys, at: &[String], group: &Group<'_>, above: &[Row]) -> Option<Row> {
        self.number += 1;
        let number = self.number;
        let before = self.problems.len();
        let (event, field) = self.event_place(keys, at, group);
        let document = keys.document.as_deref().and_then(|text| {
            let parsed = match group.packed {
                true => Path::in_document(text, None),
                false => self.document_path(text),
            };
            parsed.map_err(|bad| self.problems.push(bad_path(bad, at, "document", text))).ok()
        });
        if keys.event.is_none() && keys.document.is_none() {
            let what = "a row names a field of the event, a place in the document, or both";
            self.problem(
                Problem::under(Code::MissingKey, at, "", what).label("neither `event` nor `document`"),
            );
        }
        let input = self.input(keys, at);
        let is_group = !keys.fields.is_empty();
        let body = match is_group {
            true => self.group(keys, at, field.as_ref()),
            false => self.value(keys, at, event.as_ref(), field.as_ref(), group),
        };
        if matches!(body, Some(Body::Value { .. })) {
            for (key, repeated) in [
                ("event", matches!(&event, Some(EventPlace::Data(path)) if path.is_repeated())),
                ("document", document.as_ref().is_some_and(Path::is_repeated)),
            ] {
                if repeated {
                    let what = "`[]` means several, and this row carries one value";
                    self.problem(
                        Problem::under(Code::BadPath, at, key, what)
                            .label("several")
                            .help("give the row `fields`, or say which one: `[1]`"),
                    );
                }
            }
        }
        for (key, path) in
            [("document", document.as_ref()), ("event", event.as_ref().and_then(EventPlace::path))]
        {
            if path.is_some_and(Path::repeats_before_the_end) {
                let what = "`[]` stands in the middle of a path";
                self.problem(
                    Problem::under(Code::BadPath, at, key, what)
                        .help("make the repeated part a row with `fields`"),
                );
            }
        }
        let only = self.direction(keys, at, event.as_ref(), document.as_ref(), &input, is_group);
        let when = self.conditions(keys, at, group);
        let codes_at = keys.codes_at.as_deref().and_then(|text| self.codes_at(text, at, group, above));
        let sum = keys.sum.as_deref().and_then(|text| self.sum(text, at));
        if keys.text.as_ref().is_some_and(|text| text.cut) && keys.lossy.is_none() {
            let what = "a text that is cut loses something: say in `lossy` why that is right";
            self.problem(Problem::under(Code::OneWayRow, at, "text", what).label("`cut` without `lossy`"));
        }
        let misplaced = [
            ("most", keys.most.is_some() && !is_group, "is for rows with `fields`"),
            ("max_pence", keys.max_pence.is_some() && keys.money.is_none(), "is for rows with `money`"),
            ("shift_days", keys.shift_days.is_some() && keys.date.is_none(), "is for rows with `date`"),
            ("pivot", keys.pivot.is_some() && keys.date.is_none(), "is for rows with `date`"),
            ("codes_at", keys.codes_at.is_some() && keys.codes.is_none(), "is for rows with `codes`"),
            ("none", !keys.none.is_empty() && is_group, "is for rows that carry one value"),
            (
                "packed_max",
                keys.packed_max.is_some() && keys.packed.is_none(),
                "is for groups that are `packed`",
            ),
        ];
        for (key, _, what) in misplaced.iter().filter(|(_, wrong, _)| *wrong) {
            let problem = Problem::under(Code::ExclusiveKeys, at, key, format!("`{key}` {what}")).on_key();
            self.problem(problem);
        }
        if self.problems.len() > before && body.is_none() {
            return None;
        }
        if let Some(why) = &keys.guess {
            let problem = Problem::under(Code::StillGuessed, at, "guess", format!("still a guess: {why}"));
            let problem = problem.on_key().warning().label("nobody has looked at it yet");
            self.problem(
                problem.help("compare it with the system's description; when it is right, take `guess` out"),
            );
        }
        let personal = field.as_ref().is_some_and(|field| field.personal || field.secret);
        Some(Row {
            number,
            line: (self.with.line_of)(at),
            event,
            document,
            input,
            default: keys.default.clone(),
            when,
            only,
            required: keys.required,
            event_requires: field.as_ref().is_some_and(|field| field.required),
            lossy: keys.lossy.is_some(),
            quoted: keys.quoted,
            personal,
            body: body?,
            sum,
            most: keys.most,
            max_pence: keys.max_pence,
            none: keys.none.clone(),
            codes_at,
        })
    }
    fn event_place(
        &mut self,
        keys: &RowKeys,
        at: &[String],
        group: &Group<'_>,
    ) -> (Option<EventPlace>, Option<Field>) {
        let Some(text) = keys.event.as_deref() else { return (None, None) };
        if text.starts_with('$') {
            return match Attribute::ALL.iter().find(|attribute| attribute.as_str() == text) {
                Some(attribute) => (Some(EventPlace::Attribute(*attribute)), None),
                None => {
                    let what = format!("an event has no attribute `{text}` that rows can use");
                    let problem = Problem::under(Code::UnknownEventField, at, "event", what)
                        .did_you_mean(text, Attribute::ALL.iter().map(|a| a.as_str()));
                    self.problem(problem);
                    (None, None)
                }
            };
        }
        let path = match Path::in_event(text) {
            Ok(path) => path,
            Err(bad) => {
                self.problem(bad_path(bad, at, "event", text));
                return (None, None);
            }
        };
        let field = group.field.at(&path).cloned();
        if field.is_none() && !group.packed_without_schema() {
            self.unknown_field(&path, at, "event", group.field);
            return (None, None);
        }
        (Some(EventPlace::Data(path)), field)
    }
    /// Points at the first step of a path that the schema does not have.
    fn unknown_field(&mut self, path: &Path, at: &[String], key: &str, group: &Field) {
        let mut field = group;
        let mut offset = 0;
        for step in path.steps() {
            let name = &step.name.local;
            match field.fields.iter().find(|f| f.name == name) {
                Some(next) => {
                    let several = step.which != super::path::Which::One;
                    if several != (next.kind == Kind::List) {
                        let what = match several {
                            true => format!("`{name}` is not a list in the event's schema"),
                            false => format!("`{name}` is a list in the event's schema"),
                        };
                        let help = if several { "leave out the brackets" } else { "write `[]` behind it" };
                        self.problem(Problem::under(Code::UnknownEventField, at, key, what).help(help));
                        return;
                    }
                    field = next.items.as_deref().filter(|_| several).unwrap_or(next);
                    offset += name.len() + 1 + if several { 2 } else { 0 };
                }
                None => {
                    let known: Vec<&str> = field.fields.iter().map(|f| f.name.as_str()).collect();
                    let event = self.with.schema.event_type.clone();
                    let problem = Problem::under(
                        Code::UnknownEventField,
                        at,
                        key,
                        format!("{event} has no field `{name}` here"),
                    )
                    .label("not in the schema")
                    .part(Some(offset..offset + name.len()))
                    .did_you_mean(name, known);
                    self.problem(problem);
                    return;
                }
            }
        }
    }
    fn input(&mut self, keys: &RowKeys, at: &[String]) -> Input {
        let given = [
            ("constant", keys.constant.is_some()),
            ("setting", keys.setting.is_some()),
            ("value", keys.value.is_some()),
            ("cause", keys.cause.is_some()),
            ("template", keys.template.is_some()),
        ];
        let given: Vec<&str> = given.iter().filter(|(_, given)| *given).map(|(key, _)| *key).collect();
        if let [first, second, ..] = given.as_slice() {
            let what = format!("`{first}` and `{second}` exclude each other: a row has one source");
            self.problem(Problem::under(Code::ExclusiveKeys, at, second, what).on_key());
        }
        match keys {
            RowKeys { constant: Some(value), .. } => Input::Constant(value.clone()),
            RowKeys { setting: Some(name), .. } => Input::Setting(name.clone()),
            RowKeys { value: Some(name), .. } => Input::Value(name.clone()),
            RowKeys { cause: Some(text), .. } => match Path::in_event(text) {
                Ok(path) => Input::Cause(path),
                Err(bad) => {
                    self.problem(bad_path(bad, at, "cause", text));
                    Input::Other
                }
            },
            RowKeys { template: Some(source), .. } => match Template::compile(source, Escape::None) {
                Ok(template) => Input::Template(template),
                Err(bad) => {
                    self.problem(bad_template(bad, at, "template"));
                    Input::Other
                }
            },
            _ => Input::Other,
        }
    }
    fn group(&mut self, keys: &RowKeys, at: &[String], field: Option<&Field>) -> Option<Body> {
        let mut under = at.to_vec();
        under.push("fields".to_owned());
        let field = match (field, &keys.event) {
            (Some(field), _) => field.clone(),
            (None, None) => self.with.schema.root.clone(),
            (None, Some(_)) => return None,
        };
        if field.kind != Kind::Record {
            let what = "a row with `fields` is for a group of fields, and this field is none";
            self.problem(Problem::under(Code::WrongConversion, at, "event", what));
            return None;
        }
        for (key, given) in conversion_keys(keys) {
            if given {
                self.problem(
                    Problem::under(
                        Code::ExclusiveKeys,
                        at,
                        key,
                        format!("a row with `fields` has no `{key}`"),
                    )
                    .on_key(),
                );
            }
        }
        let rows = self.rows(&keys.fields, &under, &Group { field: &field, packed: keys.packed.is_some() });
        match &keys.packed {
            None => Some(Body::Group(rows)),
            Some(separator) if separator.is_empty() => {
                self.problem(Problem::under(Code::WrongType, at, "packed", "the separator is empty"));
                None
            }
            Some(separator) => {
                Some(Body::Packed { separator: separator.clone(), max: keys.packed_max, rows })
            }
        }
    }
}

impl Group<'_> {
    fn packed_without_schema(&self) -> bool {
        self.packed && self.field.fields.is_empty()
    }
}

impl EventPlace {
    fn path(&self) -> Option<&Path> {
        match self {
            EventPlace::Data(path) => Some(path),
            EventPlace::Attribute(_) => None,
        }
    }
}

/// A condition that no event can meet, or that every event meets, because the schema lists other values.
pub fn impossible(test: &Test, field: &Field, at: &[String]) -> Vec<Problem> {
    let (Some(values), Test::Is(wanted) | Test::Not(wanted)) = (&field.values, test) else {
        return Vec::new();
    };
    let known: Vec<&str> = values.iter().filter_map(|value| value.as_str()).collect();
    let key = if matches!(test, Test::Is(_)) { "is" } else { "not" };
    let foreign = wanted.iter().enumerate().filter(|(_, value)| !known.contains(&value.as_str()));
    foreign
        .map(|(index, value)| {
            let mut under = at.to_vec();
            under.push(key.to_owned());
            Problem::under(
                Code::UnknownName,
                &under,
                &index.to_string(),
                format!("`{}` is never `{value}`", field.name),
            )
            .label("not among the values of the schema")
            .did_you_mean(value, known.iter().copied())
        })
        .collect()
}

fn conversion_keys(keys: &RowKeys) -> [(&'static str, bool); 11] {
    [
        ("text", keys.text.is_some()),
        ("integer", keys.integer.is_some()),
        ("decimal", keys.decimal.is_some()),
        ("money", keys.money.is_some()),
        ("date", keys.date.is_some()),
        ("time", keys.time.is_some()),
        ("boolean", keys.boolean.is_some()),
        ("codes", keys.codes.is_some()),
        ("check", keys.check.is_some()),
        ("account", keys.account.is_some()),
        ("fund_of", keys.fund_of.is_some()),
    ]
}

fn kind_in_words(kind: Kind) -> &'static str {
    match kind {
        Kind::Text => "text",
        Kind::Integer => "a whole number",
        Kind::Number => "a number",
        Kind::Boolean => "true or false",
        Kind::List => "a list",
        Kind::Record => "a group of fields",
        Kind::Any => "anything",
    }
}

fn quoted(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}
