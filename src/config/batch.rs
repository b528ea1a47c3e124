//! Batches and files of single events, compiled: templates, cut-offs, layouts, ready to be carried out.

use super::raw::batch::{DateRule, Keep, Unmatched};
use crate::{
    batch::{CutOffs, Size},
    format::Layout,
    template::Template,
};
use std::sync::Arc;

/// A batch.
#[derive(Debug)]
pub struct Batch {
    /// Its name within the adapter.
    pub name: String,
    /// What it is.
    pub about: String,
    /// The folder, below the system's own.
    pub folder: Template,
    /// When it is sealed.
    pub cut_offs: CutOffs,
    /// How much it holds.
    pub size: Size,
    /// The first and the last serial number.
    pub serial: (i64, i64),
    /// How many working days after it is sealed it is processed at the earliest.
    pub processing: u32,
    /// What it holds.
    pub keep: Keep,
    /// The files it becomes.
    pub files: Vec<BatchFile>,
}

/// A file of a batch.
#[derive(Debug)]
pub struct BatchFile {
    /// Which.
    pub file: String,
    /// Its name in the system.
    pub name: Template,
    /// The layout that describes its records, if there is one.
    pub layout: Option<Arc<Layout>>,
    /// Whether the layout's own head stands first.
    pub layout_head: bool,
    /// Before the items.
    pub head: Vec<Part>,
    /// What items are brought together by, the outermost first.
    pub groups: Vec<String>,
    /// What stands around the items of each of these groups: before and after.
    pub around: Vec<(Vec<Part>, Vec<Part>)>,
    /// After the items.
    pub foot: Vec<Part>,
}

/// A part of a file that is no item.
#[derive(Debug)]
pub struct Part {
    /// What it says.
    pub says: Says,
    /// Whether there is one for each group.
    pub each_group: bool,
    /// Only if this says so.
    pub when: Option<Template>,
}

/// What a part of a file says.
#[derive(Debug)]
pub enum Says {
    /// Text as it is.
    Text(Template),
    /// A record of the file's layout: its name and fields.
    Record(String, Vec<(String, Template)>),
}

/// How a route's events join a batch.
#[derive(Debug)]
pub struct Join {
    /// The batch.
    pub batch: Arc<Batch>,
    /// Which of its files.
    pub file: usize,
    /// The record of the layout; empty if there is only one.
    pub record: String,
    /// The item's amount.
    pub amount: Option<Template>,
    /// What brings items together.
    pub group: Vec<(String, Template)>,
    /// Where they stand within their group.
    pub place: u16,
    /// Their order there.
    pub order: Option<Template>,
    /// The day of processing.
    pub date: Option<Template>,
    /// What is done with a day that is not possible.
    pub date_rule: DateRule,
    /// What makes it the same row.
    pub key: Option<Template>,
    /// Whether the row is taken out.
    pub removes: Option<Template>,
    /// What is remembered.
    pub remember: Option<Remember>,
}

/// What is remembered of an item.
#[derive(Debug)]
pub struct Remember {
    /// What a report names it by.
    pub key: Template,
    /// What is kept.
    pub keep: Vec<(String, Template)>,
    /// Whether the event's data is kept as well.
    pub keep_event: bool,
}

/// One file for each event.
#[derive(Debug)]
pub struct WriteFile {
    /// The folder, below the system's own.
    pub folder: Template,
    /// The name.
    pub name: Template,
}

/// What a report is about.
#[derive(Debug)]
pub struct About {
    /// The route that sent it, as it is called within the adapter or as a whole.
    pub route: String,
    /// What it is remembered by.
    pub key: Template,
    /// What becomes of it if that was never sent.
    pub unmatched: Unmatched,
}
