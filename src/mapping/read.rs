//! From document to event: carries the rows out in their order, and finds what no row knows.

use super::{
    Attribute, Body, Context, EventPlace, Failure, Input, Mapping, NewEvent, Row,
    compile::Condition,
    convert::{Beside, Conversion},
    path::{Path, Which},
    raw::Direction,
    write::{step_of, typed_as},
};
use crate::{
    code::Code,
    event::schema::Kind,
    template::Scope,
    tree::{Name, Record, TEXT, Tree},
};

/// How many unknown parts of one document are named.
const MOST_DRIFT: usize = 20;

/// Runs a mapping; the event counts only if nothing failed. The schema is not checked here.
pub fn run(mapping: &Mapping, document: &Tree, context: Context<'_>) -> (NewEvent, Vec<Failure>) {
    let mut event = NewEvent {
        id: None,
        subject: None,
        time: None,
        data: Tree::Record(Record::new()),
        drift: Vec::new(),
    };
    let inside = match &mapping.root {
        None => document,
        Some(root) => match document.as_record().and_then(|record| record.get(root)) {
            Some(inside) => inside,
            None => {
                let found = document.as_record().and_then(|record| record.entries().first());
                let found = found.map_or_else(|| document.kind().to_owned(), |(name, _)| format!("`{name}`"));
                let failure = Failure {
                    code: Code::WrongShape,
                    line: 0,
                    field: root.local.to_string(),
                    what: format!("the document's root is {found}, the mapping is for `{root}`"),
                    value: None,
                };
                return (event, vec![failure]);
            }
        },
    };
    let mut reader = Reader { context, top: inside, failures: Vec::new(), attributes: [None, None, None] };
    let scope = reader.scope(None);
    reader.rows(&mapping.rows, inside, &mut event.data, &scope);
    let [id, subject, time] = reader.attributes;
    event.subject = subject.or_else(|| mapping.schema.subject_of(&event.data));
    (event.id, event.time) = (id, time);
    find_drift(mapping, inside, &mut event.drift);
    (event, reader.failures)
}

struct Reader<'a> {
    context: Context<'a>,
    top: &'a Tree,
    failures: Vec<Failure>,
    /// `$id`, `$subject`, `$time`.
    attributes: [Option<String>; 3],
}

impl<'a> Reader<'a> {
    fn scope<'s>(&self, item: Option<&'s Tree>) -> Scope<'s>
    where
        'a: 's,
    {
        Scope {
            document: Some(self.top),
            cause: self.context.cause,
            settings: Some(self.context.settings),
            values: Some(self.context.values),
            now: self.context.now,
            item,
            ..Scope::default()
        }
    }

    fn rows(&mut self, rows: &[Row], item: &Tree, out: &mut Tree, scope: &Scope<'_>) {
        for row in rows.iter().filter(|row| row.goes(Direction::ToEvent)) {
            if row.when.iter().all(|condition| self.holds(condition, item)) {
                self.row(row, item, out, scope);
            }
        }
    }

    fn holds(&self, condition: &Condition, item: &Tree) -> bool {
        match condition.on {
            // What a condition says of the event counts when the event is read.
            Direction::ToDocument => true,
            Direction::ToEvent => {
                condition.test.holds(condition.path.find(item).or_else(|| condition.path.find(self.top)))
            }
        }
    }

    fn row(&mut self, row: &Row, item: &Tree, out: &mut Tree, scope: &Scope<'_>) {
        match &row.body {
            Body::Value { .. } => self.value(row, item, out, scope),
            Body::Group(rows) => self.group(row, rows, None, item, out, scope),
            Body::Packed { separator, rows, .. } => self.group(row, rows, Some(separator), item, out, scope),
        }
    }

    fn group(
        &mut self,
        row: &Row,
        rows: &[Row],
        packed: Option<&str>,
        item: &Tree,
        out: &mut Tree,
        scope: &Scope<'_>,
    ) {
        let items: Vec<&Tree> = match &row.document {
            Some(path) if path.is_repeated() => path.find_all(item),
            Some(path) => path.find(item).into_iter().collect(),
            None => vec![item],
        };
        if items.is_empty() && row.required {
            self.failures.push(row.failure(
                Code::ValueMissing,
                "the document has none, and the event needs one",
                None,
            ));
        }
        for item in items {
            let unpacked;
            let item = match packed {
                None => item,
                Some(separator) => {
                    let text = item.to_plain_text().unwrap_or_default();
                    let parts = text.split(separator).enumerate();
                    unpacked = Tree::Record(
                        parts
                            .map(|(at, part)| (Name::plain((at + 1).to_string()), Tree::text(part)))
                            .collect(),
                    );
                    &unpacked
                }
            };
            let inner_scope;
            let scope = match row.document {
                Some(_) => {
                    inner_scope = self.scope(Some(item));
                    &inner_scope
                }
                None => scope,
            };
            let Some(EventPlace::Data(path)) = &row.event else {
                self.rows(rows, item, out, scope);
                continue;
            };
            let mut inside = Tree::Null;
            self.rows(rows, item, &mut inside, scope);
            match path.split_last() {
                Some((last, before)) if last.which == Which::Each => {
                    let parent =
                        before.iter().fold(&mut *out, |tree, step| tree.record_mut().entry(&step.name));
                    let list = parent.record_mut().entry(&last.name).list_mut();
                    list.push(if inside == Tree::Null { Tree::Record(Record::new()) } else { inside });
                }
                _ if inside != Tree::Null => *path.place(out, true) = inside,
                _ => {}
            }
        }
    }

    fn value(&mut self, row: &Row, item: &Tree, out: &mut Tree, scope: &Scope<'_>) {
        let Body::Value { conversion, kind, fund } = &row.body else { return };
        let Some(place) = &row.event else { return };
        let given = match &row.input {
            Input::Other => match row.document.as_ref().map(|path| path.find_one(item)) {
                Some(Ok(found)) => found.cloned(),
                None => None,
                Some(Err(name)) => {
                    let what = format!("`{}` occurs several times, and the row is for one", name.local);
                    self.failures.push(row.failure(Code::WrongShape, what, None));
                    return;
                }
            },
            Input::Constant(value) => Some(Tree::text(value)),
            Input::Setting(name) => {
                self.context.settings.get(name).filter(|text| !text.is_empty()).map(Tree::text)
            }
            Input::Value(name) => self.context.values.get(name).map(Tree::text),
            Input::Cause(path) => self.context.cause.and_then(|cause| path.find(cause)).cloned(),
            Input::Template(template) => match template.render(scope) {
                Ok(text) => Some(Tree::text(text)),
                Err(failed) => {
                    self.failures.push(row.failure(Code::TemplateFailed, failed.0, None));
                    return;
                }
            },
        };
        let converted = match (&row.input, &given) {
            (_, None) => Ok(None),
            // What is kept of a cause is in the event's terms already.
            (Input::Cause(_), Some(value)) => Ok(Some(value.clone())),
            // A fixed value is written in the event's terms, like a default.
            (Input::Constant(text), _) => Ok(Some(in_event_terms(conversion, *kind, text))),
            (_, Some(value)) if conversion.means_none(&row.none, value) => Ok(None),
            (_, Some(value)) => {
                let fund = fund.as_ref().and_then(|path| path.find(out)).and_then(Tree::as_text);
                let day = row.day(conversion, out, self.context.now);
                conversion.to_event(value, *kind, Beside { fund, day })
            }
        };
        match converted {
            Ok(Some(value)) => {
                if let (Some(trace), Some(given)) = (self.context.trace, &given) {
                    trace.0.borrow_mut().push(step_of(row, &value, given));
                }
                self.put(place, value, out);
            }
            Ok(None) => match &row.default {
                Some(default) => {
                    let value = in_event_terms(conversion, *kind, default);
                    self.put(place, value, out);
                }
                None if row.required || row.event_requires => {
                    let what = "the document has no value here, and the event needs one";
                    self.failures.push(row.failure(Code::ValueMissing, what, None));
                }
                None => {}
            },
            Err(refusal) => self.failures.push(row.failure(refusal.code, refusal.what, given.as_ref())),
        }
    }

    fn put(&mut self, place: &EventPlace, value: Tree, out: &mut Tree) {
        match place {
            EventPlace::Data(path) => *path.place(out, true) = value,
            EventPlace::Attribute(attribute) => {
                let [id, subject, time] = &mut self.attributes;
                let slot = match attribute {
                    Attribute::Id => id,
                    Attribute::Subject => subject,
                    Attribute::Time => time,
                    Attribute::Source | Attribute::Type => return,
                };
                *slot = value.to_plain_text();
            }
        }
    }
}

/// A default or a constant as the type that the event's schema gives the field.
fn in_event_terms(conversion: &Conversion, kind: Kind, text: &str) -> Tree {
    match kind {
        Kind::Integer | Kind::Number => Tree::number(text.trim().to_owned()),
        Kind::Boolean => Tree::Bool(text == "true"),
        Kind::Text | Kind::List | Kind::Record => Tree::text(text),
        Kind::Any => typed_as(conversion, text),
    }
}

/// Names the parts of a document that no row reads and `ignore` does not name: a vendor's upgrade, seen on its first day.
fn find_drift(mapping: &Mapping, document: &Tree, found: &mut Vec<String>) {
    walk(&mapping.known, document, &mut Vec::new(), found);
}

fn walk<'t>(known: &Known, tree: &'t Tree, prefix: &mut Vec<&'t str>, found: &mut Vec<String>) {
    if known.all || found.len() >= MOST_DRIFT {
        return;
    }
    match tree {
        Tree::List(items) => items.iter().for_each(|item| walk(known, item, prefix, found)),
        Tree::Record(record) => {
            // Documents mostly come in the order in which they are described.
            let mut next = 0;
            for (name, tree) in record.entries().iter().filter(|(name, _)| name.local != TEXT) {
                prefix.push(&name.local);
                match known.inside(&name.local, next) {
                    Some((at, deeper)) => {
                        next = at + 1;
                        walk(deeper, tree, prefix, found);
                    }
                    None => {
                        let path = prefix.join("/");
                        if !found.contains(&path) {
                            found.push(path);
                        }
                    }
                }
                prefix.pop();
            }
        }
        Tree::Null | Tree::Bool(_) | Tree::Number(_) | Tree::Text(_) => {}
    }
}

/// The parts of a document that some row knows, by local names.
#[derive(Debug, Default)]
pub struct Known {
    inside: Vec<(Called, Known)>,
    /// Whether all that is inside counts as known.
    all: bool,
}

/// What a part is called.
#[derive(Debug, PartialEq)]
enum Called {
    /// This.
    Just(String),
    /// This, a number, and this: one of a series.
    Numbered(String, String),
}

impl Called {
    fn of(name: &str) -> Called {
        match name.split_once("{n}") {
            None => Called::Just(name.to_owned()),
            Some((before, behind)) => Called::Numbered(before.to_owned(), behind.to_owned()),
        }
    }

    fn is(&self, name: &str) -> bool {
        match self {
            Called::Just(own) => own == name,
            Called::Numbered(before, behind) => name
                .strip_prefix(before.as_str())
                .and_then(|rest| rest.strip_suffix(behind.as_str()))
                .is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())),
        }
    }
}

impl Known {
    /// The part of that name and its place, looked for from this place on.
    fn inside(&self, name: &str, from: usize) -> Option<(usize, &Known)> {
        let (before, behind) = self.inside.split_at_checked(from)?;
        let fits = |part: &&(Called, Known)| part.0.is(name);
        let at = match behind.iter().position(|part| fits(&part)) {
            Some(at) => from + at,
            None => before.iter().position(|part| fits(&part))?,
        };
        self.inside.get(at).map(|(_, known)| (at, known))
    }

    fn enter<'k>(&mut self, names: impl IntoIterator<Item = &'k str>) -> &mut Known {
        names.into_iter().filter(|name| !name.is_empty()).fold(self, |known, name| {
            let called = Called::of(name);
            let at = match known.inside.iter().position(|(own, _)| *own == called) {
                Some(at) => at,
                None => {
                    known.inside.push((called, Known::default()));
                    known.inside.len() - 1
                }
            };
            #[expect(clippy::indexing_slicing, reason = "it was found or pushed just above")]
            &mut known.inside[at].1
        })
    }

    /// What these rows and the ignored paths know.
    pub fn of(rows: &[Row], ignore: &[Path]) -> Known {
        let mut known = Known::default();
        for path in ignore {
            known.enter(names_of(path)).all = true;
        }
        known.learn(rows, &[]);
        known
    }

    fn learn(&mut self, rows: &[Row], prefix: &[&str]) {
        for row in rows {
            let mut here: Vec<&str> = prefix.to_vec();
            here.extend(row.document.iter().flat_map(names_of));
            for condition in row.when.iter().filter(|condition| condition.on == Direction::ToEvent) {
                self.enter(prefix.iter().copied().chain(names_of(&condition.path)));
            }
            if let Input::Template(template) = &row.input {
                for name in template.names() {
                    if let Some(path) = name.strip_prefix("document.") {
                        self.enter(path.split('.'));
                    }
                    if let Some(path) = name.strip_prefix("item.") {
                        self.enter(prefix.iter().copied().chain(path.split('.')));
                    }
                }
            }
            let node = self.enter(here.iter().copied());
            match &row.body {
                Body::Value { conversion: Conversion::AsIs, .. } if row.document.is_some() => node.all = true,
                Body::Value { .. } | Body::Packed { .. } => {}
                Body::Group(rows) => self.learn(rows, &here),
            }
        }
    }
}

fn names_of(path: &Path) -> impl Iterator<Item = &str> {
    path.steps().iter().map(|step| step.name.local.as_str())
}
