//! Keys of what is delivered in files: batches, the files that they become, and single files for single events.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A batch: events of one or several routes that go into the same files. An open batch is kept in the store until it is
/// sealed; then it gets its serial number, is rendered once, and its files are put into the system. After any crash they
/// have the same bytes and the same names.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchKeys {
    /// What it is, in a sentence.
    pub about: String,
    /// The folder, below the system's own; a template of `settings`.
    pub folder: Option<String>,
    /// The times of day at which it is sealed: `["16:00"]`. Without any, count, sum or a person seal it.
    #[serde(default)]
    pub cut_off: Vec<String>,
    /// The zone of these times. Default: `Europe/London`.
    pub zone: Option<String>,
    /// The days of the week on which there is a cut-off, which are also its working days: `["mon", "tue"]`. Default:
    /// Monday to Friday.
    pub days: Option<Vec<Weekday>>,
    /// Days that are no working days: a calendar, `mappings/calendars/<name>.toml`.
    pub holidays: Option<String>,
    /// With fewer items than this it waits for the next cut-off. Default: 1.
    pub least: Option<u32>,
    /// With so many items it is sealed at once. Default: 1000000.
    pub most: Option<u32>,
    /// It is sealed before its sum is larger than this. The amounts are those that routes give.
    pub most_sum: Option<i64>,
    /// The serial number that each batch gets once, as `batch.serial`.
    #[serde(default)]
    pub serial: SerialKeys,
    /// How many working days after it is sealed it is processed at the earliest: `batch.processing_date`. Default: 0.
    pub processing: Option<u32>,
    /// What it holds.
    #[serde(default)]
    pub keep: Keep,
    /// The files it becomes, by name.
    pub files: BTreeMap<String, BatchFileKeys>,
}

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Weekday {
    /// Monday.
    Mon,
    /// Tuesday.
    Tue,
    /// Wednesday.
    Wed,
    /// Thursday.
    Thu,
    /// Friday.
    Fri,
    /// Saturday.
    Sat,
    /// Sunday.
    Sun,
}

/// What a batch holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Keep {
    /// What has joined since the last one.
    #[default]
    New,
    /// A complete return: the latest of each key. What was returned stays for the next one, until an event removes it.
    Latest,
}

/// Serial numbers.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SerialKeys {
    /// The first. Default: 1.
    pub first: Option<i64>,
    /// The last, after which they begin anew. Default: 999999.
    pub last: Option<i64>,
}

/// A file of a batch. It is given also if it has no records.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchFileKeys {
    /// Its name: a template of `batch` and `settings`. It must differ from batch to batch.
    pub name: String,
    /// The layout, `mappings/layouts/<name>.toml`, by which records of `head`, `around` and `foot` are written.
    pub layout: Option<String>,
    /// Write the head that the layout itself describes (CSV: its header rows). Default: yes, for a layout of CSV.
    pub layout_head: Option<bool>,
    /// What stands before the items.
    #[serde(default)]
    pub head: Vec<PartKeys>,
    /// The names of the routes' `group` by which items are brought together, the outermost first. Without them, items
    /// stand in the order in which they came.
    #[serde(default)]
    pub groups: Vec<String>,
    /// What stands around the items of a group, by the group's name.
    #[serde(default)]
    pub around: BTreeMap<String, AroundKeys>,
    /// What stands after the items.
    #[serde(default)]
    pub foot: Vec<PartKeys>,
}

/// What stands around the items of a group.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AroundKeys {
    /// Before them.
    #[serde(default)]
    pub head: Vec<PartKeys>,
    /// After them.
    #[serde(default)]
    pub foot: Vec<PartKeys>,
}

/// A record or text of a file that is no item: a label, a header, a control total. Templates see `batch`, `file`, `groups`,
/// `group` where there is one, and `settings`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PartKeys {
    /// A record of the layout, by the layout's name for it. One of `record` and `text`.
    pub record: Option<String>,
    /// The record's fields: templates.
    #[serde(default)]
    pub fields: BTreeMap<String, String>,
    /// Text as it is, a template; line ends stand in it. One of `record` and `text`.
    pub text: Option<String>,
    /// One for each group, in the order in which the groups began: contra records. The part sees `group`.
    pub each: Option<Each>,
    /// Only if this template's text is neither empty nor `false`.
    pub when: Option<String>,
}

/// What there is one of each for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Each {
    /// For each group.
    Group,
}

/// How the events of a route join a batch. The record is made by the route's mapping when the event joins: an event that
/// cannot be rendered is a dead letter at once, and not a hole in a file.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JoinKeys {
    /// The batch, by its name under `[batch]`.
    pub into: String,
    /// The file of the batch. Needed if it has several.
    pub file: Option<String>,
    /// The record of the layout. Needed if the layout has several.
    pub record: Option<String>,
    /// The item's amount, for sums: a template that makes a whole number (pence).
    pub amount: Option<String>,
    /// What brings items together, for `groups`, `around` and contra records: names and templates.
    #[serde(default)]
    pub group: BTreeMap<String, String>,
    /// Where items of this route stand within their group, before or after those of other routes. Default: 0.
    pub place: Option<u16>,
    /// The order among items of the same place: a template. Default: as they came.
    pub order: Option<String>,
    /// The day on which the item is to be processed: a template that makes `YYYY-MM-DD`. Items of different days go into
    /// different batches. The day that is taken is the value `processing_date` for the mapping and the other templates here.
    pub date: Option<String>,
    /// What is done with a `date` that is no working day or too soon. Default: `next`.
    #[serde(default)]
    pub date_rule: DateRule,
    /// What makes it the same row of a complete return (`keep = "latest"`): a template.
    pub key: Option<String>,
    /// The event takes the row out of a complete return if this template's text is neither empty nor `false`:
    /// `{{ event.data.change == 'removed' }}`. One route for both, so that what is removed and comes again stays in order.
    pub removes: Option<String>,
    /// What is remembered of the item when it has been sent, so that a report can be matched to it.
    pub remember: Option<RememberKeys>,
}

/// What is done with a day that is no working day.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DateRule {
    /// The next day that is possible is taken.
    #[default]
    Next,
    /// The event is a dead letter.
    Refuse,
    /// The next day that is possible is taken, and items of several days go into one batch, each with its own.
    Any,
}

/// What is remembered of an item.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RememberKeys {
    /// What a report names it by: a template of `cause` (what is kept), `batch` and `settings`.
    pub key: String,
    /// What is kept: names and templates of `event`.
    #[serde(default)]
    pub keep: BTreeMap<String, String>,
    /// Keep the event's data as well, under `event`.
    #[serde(default)]
    pub keep_event: bool,
}

/// One file for each event.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WriteKeys {
    /// The folder, below the system's own; a template.
    pub folder: Option<String>,
    /// The name: a template of `event` and `settings`. It must differ from event to event, or one would be taken for
    /// another: the event's `id` is the usual part of it.
    pub name: String,
}

/// What a report is about: an item that a route has sent in a batch.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AboutKeys {
    /// The `deliver` route that sent it: of this adapter, or `<adapter>.<route>`.
    pub route: String,
    /// What it is remembered by: a template of `document`, which is the part that `each` names.
    pub key: String,
    /// What becomes of a report about something that was never sent. Default: `dead`.
    #[serde(default)]
    pub unmatched: Unmatched,
}

/// What becomes of a report about something that was never sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Unmatched {
    /// A person must look.
    #[default]
    Dead,
    /// The event is made all the same, without what would have been kept.
    Emit,
}

/// A calendar: days that are no working days. Stands at `mappings/calendars/<name>.toml`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CalendarFile {
    /// The version of this file format: 1.
    pub version: u32,
    /// Whose days these are, and where they are published.
    pub about: String,
    /// The first and the last year that it is complete for.
    pub years: (i16, i16),
    /// The days, `YYYY-MM-DD`, each with its name.
    pub days: BTreeMap<String, String>,
}
