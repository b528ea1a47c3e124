//! An event on its way into a batch: its record is made now, by the route's mapping, so that what cannot be rendered is a
//! dead letter of its own and not a hole in a file.

use super::{Deliverer, now};
use crate::{
    batch::CutOffs,
    code::Code,
    config::{
        PROCESSING_DATE,
        batch::{Batch, Join, Remember},
        raw::batch::{DateRule, Keep},
    },
    emit,
    event::Event,
    format::{Format, write_json},
    mapping::{Context, Mapping},
    store::{Joining, Says},
    system::sign,
    template::{Scope, Template, Texts, says_no},
    tree::{Name, Record, Tree},
    verdict::Failure,
};
use jiff::{Timestamp, civil::Date};

/// What parts the steps of a sort key: less than any text.
const STEP: char = '\u{1}';

/// Makes an event ready to join the batch of its route.
///
/// # Errors
/// The mapping, a template or the layout refuses it; its day cannot be had.
pub fn joining(deliverer: &Deliverer, join: &Join, event: &Event) -> Result<Joining, Failure> {
    let instance = &deliverer.route.instance;
    let moment = Timestamp::now();
    let scope = |values| Scope {
        event: Some(event),
        settings: Some(&instance.settings),
        values,
        now: moment,
        ..Scope::default()
    };
    let own = match instance.adapter.values.is_empty() {
        true => Texts::new(),
        false => sign::values(instance, &scope(None))?,
    };
    let batch = &join.batch;
    let cut_off = batch.cut_offs.after(moment);
    let (mut values, mut per) = (own.clone(), String::new());
    if let Some(template) = &join.date {
        let wanted = render(template, "date", &scope(Some(&own)))?;
        let day = day(batch, join.date_rule, &wanted, cut_off.unwrap_or(moment))?;
        values.insert(PROCESSING_DATE.to_owned(), day.to_string());
        if join.date_rule != DateRule::Any {
            per = day.to_string();
        }
    }
    let scope = scope(Some(&values));
    let text = |template: &Template, field: &str| render(template, field, &scope);
    let amount = match &join.amount {
        None => 0,
        Some(template) => text(template, "amount")?.trim().parse::<i64>().map_err(|_| {
            Failure::refused(Code::ValueRefused, "amount", "the amount of the item is not a whole number")
        })?,
    };
    let mut group = Record::new();
    for (name, template) in &join.group {
        group.push(Name::plain(name.as_str()), Tree::text(text(template, name)?));
    }
    let order = join.order.as_ref().map(|order| text(order, "order")).transpose()?;
    let file = batch.files.get(join.file);
    let sort = sort(file.map_or(&[], |file| &file.groups), &group, join.place, order.as_deref());
    let removes = match &join.removes {
        None => false,
        Some(template) => !says_no(&text(template, "removes")?),
    };
    let record = match &deliverer.route.plan.mapping {
        Some(mapping) if !removes => {
            let context = Context {
                settings: &instance.settings,
                values: &values,
                cause: None,
                now: moment,
                trace: None,
            };
            let document =
                mapping.to_document(event, context).map_err(|failures| emit::of_mapping(&failures))?;
            record(mapping, join, &document)?
        }
        Some(_) | None => Vec::new(),
    };
    let says = match (batch.keep, &join.key) {
        (Keep::Latest, Some(key)) if removes => Says::NoRow { key: text(key, "key")? },
        (Keep::Latest, Some(key)) => Says::Row { key: text(key, "key")?, record },
        (Keep::Latest, None) | (Keep::New, _) => Says::Record(record),
    };
    Ok(Joining {
        feed: instance.feed(&batch.name),
        per,
        cut_off: cut_off.map(Timestamp::as_millisecond),
        size: batch.size,
        file: file.map(|file| file.file.clone()).unwrap_or_default(),
        group: write_json(&Tree::Record(group)),
        sort,
        amount,
        says,
        kept: join.remember.as_ref().map(|remember| kept(remember, event, &text)).transpose()?,
    })
}

fn render(template: &Template, field: &str, scope: &Scope<'_>) -> Result<String, Failure> {
    template.render(scope).map_err(|failed| Failure::refused(Code::TemplateFailed, field, failed.0))
}

/// The day on which an item is processed that asks for one.
fn day(batch: &Batch, rule: DateRule, text: &str, sealed: Timestamp) -> Result<Date, Failure> {
    let refused = |what: &str| Failure::refused(Code::DateRefused, "date", what);
    let wanted: Date = text.trim().parse().map_err(|_| refused("this is not a day, YYYY-MM-DD"))?;
    let earliest = earliest(&batch.cut_offs, batch.processing, sealed)
        .ok_or_else(|| refused("no working day is found"))?;
    let possible = batch
        .cut_offs
        .days
        .on_or_after(wanted.max(earliest))
        .ok_or_else(|| refused("no working day is found after it"))?;
    match rule {
        DateRule::Next | DateRule::Any => Ok(possible),
        DateRule::Refuse if wanted < earliest => {
            Err(refused("the day can no longer be reached: batches that are sealed now are processed later"))
        }
        DateRule::Refuse if possible != wanted => {
            Err(refused("nothing is processed on this day: it is no working day"))
        }
        DateRule::Refuse => Ok(wanted),
    }
}

/// The first day on which a batch is processed that is sealed at this moment.
pub fn earliest(cut_offs: &CutOffs, processing: u32, sealed: Timestamp) -> Option<Date> {
    let first = cut_offs.days.on_or_after(cut_offs.date(sealed))?;
    // What is sealed on a day on which nobody works counts as sealed on the next working day.
    cut_offs.days.after(first, processing)
}

/// Where an item stands in its file: by group from the outermost in, then by place, then by order. Without any of these,
/// as it came.
fn sort(groups: &[String], group: &Record, place: u16, order: Option<&str>) -> String {
    let mut sort = String::new();
    for name in groups {
        sort.push_str(group.get_plain(name).and_then(Tree::as_text).unwrap_or_default());
        sort.push(STEP);
    }
    if place > 0 || order.is_some() || !groups.is_empty() {
        sort.push_str(&format!("{place:05}"));
        sort.push(STEP);
    }
    sort.push_str(order.unwrap_or_default());
    sort
}

/// The item as it stands in the file.
fn record(mapping: &Mapping, join: &Join, document: &Tree) -> Result<Vec<u8>, Failure> {
    let refused = |error: crate::format::FormatError| Failure::refused(error.code, "", error.what);
    let file = join.batch.files.get(join.file);
    if let Some(layout) = mapping.style.layout.as_ref().or(file.and_then(|file| file.layout.as_ref())) {
        return layout.write_record(&join.record, document).map_err(refused);
    }
    let mut bytes = mapping.format.encode(document, &mapping.style).map_err(refused)?;
    if mapping.format == Format::Xml && bytes.starts_with(b"<?xml") {
        // A piece of a document has no declaration; the file's own head has it.
        let end = bytes.windows(2).position(|two| two == b"?>").map_or(0, |at| at + 2);
        bytes.drain(..end);
        let line_ends = bytes.iter().take_while(|byte| **byte == b'\n' || **byte == b'\r').count();
        bytes.drain(..line_ends);
    }
    if !bytes.ends_with(b"\n") {
        bytes.push(b'\n');
    }
    Ok(bytes)
}

/// What is remembered of an item when it has been sent, as JSON.
fn kept(
    remember: &Remember,
    event: &Event,
    text: &impl Fn(&Template, &str) -> Result<String, Failure>,
) -> Result<String, Failure> {
    let mut kept = Record::new();
    for (name, template) in &remember.keep {
        kept.push(Name::plain(name.as_str()), Tree::text(text(template, name)?));
    }
    if remember.keep_event {
        kept.push(Name::plain("event"), event.data.clone());
    }
    Ok(write_json(&Tree::Record(kept)))
}

impl Deliverer {
    /// What joins a batch is in the store's custody from this record on.
    pub(super) fn joined(&self, joining: Joining) -> crate::store::Record {
        self.metrics.count(&self.route.id, "batched", 1);
        tracing::debug!(route = self.route.id, feed = joining.feed, at = now(), "an event joins a batch");
        crate::store::Record::Batched(Box::new(joining))
    }
}
