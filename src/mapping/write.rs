//! From event to document: carries the rows out in their order.

use super::{
    Body, Context, EventPlace, Failure, Input, Mapping, Row, Step,
    compile::Condition,
    convert::Beside,
    path::{Path, Which},
    raw::Direction,
};
use crate::{
    code::Code,
    event::Event,
    template::Scope,
    tree::{Name, Record, Tree},
};

/// Runs a mapping; the document counts only if nothing failed.
pub fn run(mapping: &Mapping, event: &Event, context: Context<'_>) -> (Tree, Vec<Failure>) {
    let mut writer = Writer { mapping, event, context, failures: Vec::new() };
    let mut inside = Tree::Null;
    let scope = writer.scope(None);
    writer.rows(&mapping.rows, &event.data, &mut inside, &scope);
    let document = match &mapping.root {
        Some(root) => {
            let inside = if inside == Tree::Null { Tree::text("") } else { inside };
            Tree::Record(Record::from_iter([(root.clone(), inside)]))
        }
        None if inside == Tree::Null => Tree::Record(Record::new()),
        None => inside,
    };
    (document, writer.failures)
}

struct Writer<'a> {
    mapping: &'a Mapping,
    event: &'a Event,
    context: Context<'a>,
    failures: Vec<Failure>,
}

impl<'a> Writer<'a> {
    fn scope<'s>(&self, item: Option<&'s Tree>) -> Scope<'s>
    where
        'a: 's,
    {
        Scope {
            event: Some(self.event),
            cause: self.context.cause,
            settings: Some(self.context.settings),
            values: Some(self.context.values),
            now: self.context.now,
            item,
            ..Scope::default()
        }
    }

    fn rows(&mut self, rows: &[Row], item: &Tree, out: &mut Tree, scope: &Scope<'_>) {
        for row in rows.iter().filter(|row| row.goes(Direction::ToDocument)) {
            if row.when.iter().all(|condition| self.holds(condition, item)) {
                self.row(row, item, out, scope);
            }
        }
    }

    fn holds(&self, condition: &Condition, item: &Tree) -> bool {
        match condition.on {
            // What a condition says of the document counts when the document is read.
            Direction::ToEvent => true,
            Direction::ToDocument => {
                let top = if condition.from_top { &self.event.data } else { item };
                condition.test.holds(condition.path.find(top))
            }
        }
    }

    fn row(&mut self, row: &Row, item: &Tree, out: &mut Tree, scope: &Scope<'_>) {
        match &row.body {
            Body::Value { .. } => self.value(row, item, out, scope),
            Body::Group(rows) => self.group(row, rows, None, item, out, scope),
            Body::Packed { separator, max, rows } => {
                self.group(row, rows, Some((separator, *max)), item, out, scope);
            }
        }
    }

    fn group(
        &mut self,
        row: &Row,
        rows: &[Row],
        packed: Option<(&str, Option<usize>)>,
        item: &Tree,
        out: &mut Tree,
        scope: &Scope<'_>,
    ) {
        let items: Vec<&Tree> = match &row.event {
            Some(EventPlace::Data(path)) if path.is_repeated() => path.find_all(item),
            Some(EventPlace::Data(path)) => path.find(item).into_iter().collect(),
            Some(EventPlace::Attribute(_)) => return,
            None => vec![item],
        };
        if items.is_empty() && row.required {
            self.failures.push(row.failure(
                Code::ValueMissing,
                "the event has none, and the document needs one",
                None,
            ));
        }
        let several = row.document.as_ref().is_none_or(Path::is_repeated);
        if items.len() > 1 && !several {
            let what = format!("the event has {}, the document holds one", items.len());
            self.failures.push(row.failure(Code::WrongShape, what, None));
            return;
        }
        if let Some(most) = row.most.filter(|most| items.len() > *most) {
            let what = format!("the event has {}, the document holds at most {most}", items.len());
            self.failures.push(row.failure(Code::WrongShape, what, None));
            return;
        }
        for (index, item) in items.into_iter().enumerate() {
            let inner_scope;
            let scope = match row.event {
                Some(_) => {
                    inner_scope = self.scope(Some(item));
                    &inner_scope
                }
                None => scope,
            };
            let Some(path) = &row.document else {
                self.rows(rows, item, out, scope);
                continue;
            };
            let mut inside = Tree::Null;
            self.rows(rows, item, &mut inside, scope);
            if let Some((separator, max)) = packed {
                inside = match pack(&inside, separator, max, &cuttable(rows)) {
                    Ok(text) => Tree::text(text),
                    Err((code, what)) => {
                        self.failures.push(row.failure(code, what, None));
                        continue;
                    }
                };
            }
            if inside != Tree::Null || path.is_repeated() {
                *self.place(path, index, out) = inside;
            }
        }
    }

    /// Where the nth of a group goes.
    fn place<'t>(&self, path: &Path, index: usize, out: &'t mut Tree) -> &'t mut Tree {
        let list = self.mapping.format.typed();
        let Some((last, before)) = path.split_last() else { return out };
        if matches!(last.which, Which::One | Which::Nth(_)) {
            return path.place(out, list);
        }
        let parent = before.iter().fold(out, |tree, step| tree.record_mut().entry(&step.name));
        match last.which {
            Which::Numbered => parent.record_mut().entry(&last.numbered(index + 1)),
            Which::Each if last.name.local.is_empty() => pushed(parent),
            Which::Each if list => pushed(parent.record_mut().entry(&last.name)),
            Which::Each => {
                let record = parent.record_mut();
                record.push(last.name.clone(), Tree::Null);
                record.entry(&last.name)
            }
            Which::One | Which::Nth(_) => parent,
        }
    }

    fn value(&mut self, row: &Row, item: &Tree, out: &mut Tree, scope: &Scope<'_>) {
        let Body::Value { conversion, fund, .. } = &row.body else { return };
        let given = match &row.input {
            Input::Other => match &row.event {
                Some(EventPlace::Data(path)) => path.find(item).cloned(),
                Some(EventPlace::Attribute(attribute)) => attribute.of(self.event).map(Tree::text),
                None => None,
            },
            Input::Constant(value) => {
                if row.document.is_none() {
                    self.demand(row, value, item);
                    return;
                }
                Some(Tree::text(value))
            }
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
        let given = given.or_else(|| row.default.as_deref().map(Tree::text));
        let Some(path) = &row.document else { return };
        let typed = self.mapping.format.typed() && !row.quoted;
        let Some(given) = given else {
            if let Some(none) = conversion.none_written(&row.none, typed).filter(|_| !row.required) {
                *path.place(out, self.mapping.format.typed()) = none;
                return;
            }
            if row.required || !matches!(row.input, Input::Other | Input::Cause(_) | Input::Setting(_)) {
                self.failures.push(row.failure(
                    Code::ValueMissing,
                    "there is no value, and the document needs one",
                    None,
                ));
            }
            return;
        };
        if let Some(parts) = &row.sum {
            self.check_sum(row, parts, &given);
        }
        let fund = fund.as_ref().and_then(|path| path.find(item)).and_then(Tree::as_text);
        let day = row.day(conversion, item, self.context.now);
        // A computed text is brought to the type that the conversion expects of the event.
        let given_value = match (&row.input, &given) {
            (Input::Other, _) => given.clone(),
            (_, Tree::Text(text)) => typed_as(conversion, text),
            _ => given.clone(),
        };
        if let Some(max) = row.max_pence
            && given_value
                .to_plain_text()
                .and_then(|text| text.parse::<i64>().ok())
                .is_some_and(|pence| pence > max)
        {
            let what = format!("the system takes at most {max} pence");
            self.failures.push(row.failure(Code::ValueRefused, what, Some(&given)));
            return;
        }
        match conversion.to_document(&given_value, typed, Beside { fund, day }) {
            Ok(Some(value)) if conversion.means_none(&row.none, &value) => {
                let what = "the document would hold what means that there is no value";
                self.failures.push(row.failure(Code::ValueRefused, what, Some(&given)));
            }
            Ok(Some(value)) => {
                self.trace(row, &given_value, &value);
                *path.place(out, self.mapping.format.typed()) = value;
            }
            Ok(None) if row.required => {
                self.failures.push(row.failure(
                    Code::ValueMissing,
                    "the value is empty, and the document needs one",
                    None,
                ));
            }
            Ok(None) => {}
            Err(refusal) => self.failures.push(row.failure(refusal.code, refusal.what, Some(&given))),
        }
    }

    /// A constant of the event: what the event says must be that.
    fn demand(&mut self, row: &Row, value: &str, item: &Tree) {
        let Some(EventPlace::Data(path)) = &row.event else { return };
        // A constant that stands under a condition on the document is one of several: another row may be for the others.
        if row.when.iter().any(|condition| condition.on == Direction::ToEvent) {
            return;
        }
        let given = path.find(item);
        if given.and_then(Tree::to_plain_text).is_some_and(|text| text != value) {
            let what = format!("the mapping is for `{value}` only");
            self.failures.push(row.failure(Code::ValueRefused, what, given));
        }
    }

    fn check_sum(&mut self, row: &Row, parts: &Path, given: &Tree) {
        let amount = |tree: &Tree| tree.to_plain_text().and_then(|text| text.parse::<i128>().ok());
        let sum: Option<i128> = parts.find_all(&self.event.data).into_iter().map(amount).sum();
        if sum.is_none() || sum != amount(given) {
            let what = format!("the amounts at `{parts}` do not add up to it");
            self.failures.push(row.failure(Code::SumWrong, what, Some(given)));
        }
    }

    fn trace(&self, row: &Row, event_value: &Tree, document_value: &Tree) {
        let Some(trace) = self.context.trace else { return };
        trace.0.borrow_mut().push(step_of(row, event_value, document_value));
    }
}

/// What a row did, for a trace.
pub fn step_of(row: &Row, event_value: &Tree, document_value: &Tree) -> Step {
    let conversion = match &row.body {
        Body::Value { conversion, .. } => conversion.name(),
        Body::Group(_) | Body::Packed { .. } => "group",
    };
    let how = match &row.input {
        Input::Other => conversion.to_owned(),
        Input::Constant(_) => "constant".to_owned(),
        Input::Setting(name) => format!("setting `{name}`"),
        Input::Value(name) => format!("value `{name}`"),
        Input::Cause(path) => format!("cause `{path}`"),
        Input::Template(_) => "template".to_owned(),
    };
    Step {
        row: row.number,
        line: row.line,
        event: row.event.as_ref().map(EventPlace::to_string).unwrap_or_default(),
        document: row.document.as_ref().map(Path::to_string).unwrap_or_default(),
        how,
        event_value: event_value.clone(),
        document_value: document_value.clone(),
    }
}

/// A text as the type that a conversion expects on the event's side, where that is not text.
pub fn typed_as(conversion: &super::convert::Conversion, text: &str) -> Tree {
    use super::convert::Conversion;
    match conversion {
        Conversion::Integer { .. } | Conversion::Money(_) => Tree::number(text.trim().to_owned()),
        Conversion::Boolean { .. } if matches!(text, "true" | "false") => Tree::Bool(text == "true"),
        _ => Tree::text(text),
    }
}

fn pushed(tree: &mut Tree) -> &mut Tree {
    let next = tree.list_mut().len() + 1;
    tree.nth_mut(next)
}

/// The positions in a packed text whose texts may be cut.
fn cuttable(rows: &[Row]) -> Vec<usize> {
    let cut = |row: &&Row| matches!(&row.body, Body::Value { conversion: super::convert::Conversion::Text(keys), .. } if keys.cut);
    rows.iter()
        .filter(cut)
        .filter_map(|row| row.document.as_ref()?.steps().first()?.name.local.parse().ok())
        .collect()
}

/// The positions 1, 2, 3 … of a record as one text of at most so many characters.
fn pack(
    values: &Tree,
    separator: &str,
    max: Option<usize>,
    cuttable: &[usize],
) -> Result<String, (Code, String)> {
    let Tree::Record(record) = values else { return Ok(String::new()) };
    let last =
        record.entries().iter().filter_map(|(name, _)| name.local.parse::<usize>().ok()).max().unwrap_or(0);
    let mut texts: Vec<String> = (1..=last)
        .map(|position| {
            record.get(&Name::plain(position.to_string())).and_then(Tree::to_plain_text).unwrap_or_default()
        })
        .collect();
    if texts.iter().any(|text| text.contains(separator)) {
        return Err((Code::ValueRefused, "one of the packed values holds the separator".to_owned()));
    }
    if let Some(max) = max {
        let length = |texts: &[String]| texts.join(separator).chars().count();
        for position in cuttable {
            let over = length(&texts).saturating_sub(max);
            if let Some(text) = texts.get_mut(position - 1).filter(|_| over > 0) {
                let keep = text.chars().count().saturating_sub(over);
                *text = text.chars().take(keep).collect::<String>().trim_end().to_owned();
            }
        }
        let length = length(&texts);
        if length > max {
            return Err((
                Code::TextTooLong,
                format!("the packed values have {length} characters, at most {max} fit"),
            ));
        }
    }
    Ok(texts.join(separator))
}
