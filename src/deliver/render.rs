//! The files of a batch, from what the store holds of it: the same bytes each time, for nothing in them comes from the
//! clock, only from the batch's own record.

use crate::{
    batch::Stage,
    code::Code,
    config::{
        Instance,
        batch::{Batch, BatchFile, Part, Says},
        raw::batch::Keep,
    },
    format::{Limits, parse_json},
    store::{After, BatchFileState, BatchState, GroupTotal, Placed, Store, StoreError},
    system::files::Incoming,
    template::{Scope, Template, says_no},
    tree::{Name, Record, Tree},
    verdict::Failure,
};
use jiff::Timestamp;
use std::path::Path;

/// How many records are read from the store at once.
const PORTION: u32 = 2_000;
/// Bytes of a file at most: no system takes more, and a disk is finite.
const LARGEST: u64 = 16 << 30;

/// A batch about to be rendered.
pub struct Rendering<'a> {
    /// The adapter in use.
    pub instance: &'a Instance,
    /// The batch.
    pub batch: &'a Batch,
    /// How it stands.
    pub state: &'a BatchState,
    /// Where it is kept.
    pub store: &'a Store,
    /// The folder for its files, which is there.
    pub folder: &'a Path,
}

/// What templates of a file see.
struct Seen {
    batch: Tree,
    file: Tree,
    groups: Tree,
    each: Vec<Tree>,
    now: Timestamp,
}

impl Rendering<'_> {
    /// Writes the files, flushed to disk: name, digest and size of each.
    ///
    /// # Errors
    /// A template or record that cannot be written, the store, our own disk.
    pub async fn files(&self) -> Result<Vec<BatchFileState>, Failure> {
        let totals = match self.batch.keep {
            Keep::New => self.store.batch_totals(self.state.n).await,
            Keep::Latest => self.store.return_totals(self.state.feed.clone()).await,
        };
        let totals = totals.map_err(|error| of_store(&error))?;
        let mut found = Vec::with_capacity(self.batch.files.len());
        for file in &self.batch.files {
            found.push(self.file(file, &totals).await?);
        }
        Ok(found)
    }

    /// The name of a file in the system.
    fn name(&self, file: &BatchFile, seen: &Seen) -> Result<String, Failure> {
        self.text(&file.name, "name", seen, None)
    }

    async fn file(&self, file: &BatchFile, totals: &[GroupTotal]) -> Result<BatchFileState, Failure> {
        let seen = self.seen(file, totals);
        let name = self.name(file, &seen)?;
        let mut out = Incoming::create(&self.folder.join(&file.file), LARGEST)?;
        if let Some(layout) = file.layout.as_ref().filter(|_| file.layout_head) {
            out.write(&layout.write_head(), &name)?;
        }
        self.parts(file, &file.head, &seen, None, &mut out)?;
        let (mut after, mut levels): (After, Vec<String>) = Default::default();
        loop {
            let records = self.records(file, after.clone()).await.map_err(|error| of_store(&error))?;
            let Some(last) = records.last() else { break };
            after = last.after.clone();
            for record in &records {
                if !file.groups.is_empty() {
                    self.change(file, &mut levels, Some(&record.group), &seen, &mut out)?;
                }
                out.write(&record.record, &name)?;
            }
        }
        self.change(file, &mut levels, None, &seen, &mut out)?;
        self.parts(file, &file.foot, &seen, None, &mut out)?;
        let written = out.finish()?;
        Ok(BatchFileState {
            file: file.file.clone(),
            name,
            digest: written.digest,
            size: i64::try_from(written.size).unwrap_or(i64::MAX),
            claimed_at: None,
            put_at: None,
        })
    }

    async fn records(&self, file: &BatchFile, after: After) -> Result<Vec<Placed>, StoreError> {
        let name = file.file.clone();
        match self.batch.keep {
            Keep::New => self.store.batch_records(self.state.n, name, after, PORTION).await,
            Keep::Latest => self.store.return_rows(self.state.feed.clone(), name, after, PORTION).await,
        }
    }

    /// Closes the groups that end and opens those that begin, where records of another group follow, or none.
    fn change(
        &self,
        file: &BatchFile,
        levels: &mut Vec<String>,
        group: Option<&str>,
        seen: &Seen,
        out: &mut Incoming,
    ) -> Result<(), Failure> {
        let group = group.map(tree_of);
        let value = |name: &String| {
            let text = group.as_ref().and_then(|group| group.at(&[name])).and_then(Tree::as_text);
            text.unwrap_or_default().to_owned()
        };
        // An item that has no value for an inner level stands directly in the outer one.
        let new: Vec<String> = match &group {
            None => Vec::new(),
            Some(_) => file.groups.iter().map(value).take_while(|value| !value.is_empty()).collect(),
        };
        let same = levels.iter().zip(&new).take_while(|(old, new)| old == new).count();
        while levels.len() > same {
            let depth = levels.len() - 1;
            if let Some((_, foot)) = file.around.get(depth) {
                self.parts(file, foot, seen, Some(&level(file, levels)), out)?;
            }
            levels.pop();
        }
        for value in new.into_iter().skip(same) {
            levels.push(value);
            if let Some((head, _)) = file.around.get(levels.len() - 1) {
                self.parts(file, head, seen, Some(&level(file, levels)), out)?;
            }
        }
        Ok(())
    }

    fn parts(
        &self,
        file: &BatchFile,
        parts: &[Part],
        seen: &Seen,
        group: Option<&Tree>,
        out: &mut Incoming,
    ) -> Result<(), Failure> {
        for part in parts {
            match part.each_group {
                false => self.part(file, part, seen, group, out)?,
                true => {
                    seen.each.iter().try_for_each(|group| self.part(file, part, seen, Some(group), out))?
                }
            }
        }
        Ok(())
    }

    fn part(
        &self,
        file: &BatchFile,
        part: &Part,
        seen: &Seen,
        group: Option<&Tree>,
        out: &mut Incoming,
    ) -> Result<(), Failure> {
        if let Some(when) = &part.when
            && says_no(&self.text(when, "when", seen, group)?)
        {
            return Ok(());
        }
        let bytes = match &part.says {
            Says::Text(template) => self.text(template, "text", seen, group)?.into_bytes(),
            Says::Record(record, fields) => {
                let mut document = Record::new();
                for (name, template) in fields {
                    let text = self.text(template, name, seen, group)?;
                    document.push(Name::plain(name.as_str()), Tree::text(text));
                }
                let Some(layout) = &file.layout else {
                    return Err(Failure::not_done(Code::BadLayout, "the file of this record has no layout"));
                };
                let written = layout.write_record(record, &Tree::Record(document));
                written.map_err(|error| {
                    Failure::not_done(
                        error.code,
                        format!("the record `{record}` of the file: {}", error.what),
                    )
                })?
            }
        };
        out.write(&bytes, "a batch's file")
    }

    fn text(
        &self,
        template: &Template,
        field: &str,
        seen: &Seen,
        group: Option<&Tree>,
    ) -> Result<String, Failure> {
        let mut more =
            vec![("batch", seen.batch.clone()), ("file", seen.file.clone()), ("groups", seen.groups.clone())];
        more.extend(group.map(|group| ("group", group.clone())));
        let scope =
            Scope { settings: Some(&self.instance.settings), now: seen.now, more, ..Scope::default() };
        template
            .render(&scope)
            .map_err(|failed| Failure::not_done(Code::TemplateFailed, failed.0).in_field(field))
    }

    fn seen(&self, file: &BatchFile, totals: &[GroupTotal]) -> Seen {
        let own: Vec<&GroupTotal> = totals.iter().filter(|total| total.file == file.file).collect();
        let sum = |totals: &[&GroupTotal], of: fn(&GroupTotal) -> i64| {
            Tree::integer(totals.iter().map(|total| of(total)).fold(0, i64::saturating_add))
        };
        let all: Vec<&GroupTotal> = totals.iter().collect();
        let mut batch = batch_of(self.state);
        batch.set("count", sum(&all, |total| total.count));
        batch.set("sum", sum(&all, |total| total.sum));
        let mut about = Record::new();
        about.set("name", Tree::text(file.file.as_str()));
        about.set("count", sum(&own, |total| total.count));
        about.set("sum", sum(&own, |total| total.sum));
        let each: Vec<Tree> = own
            .iter()
            .map(|total| {
                let mut group = tree_of(&total.group);
                group.record_mut().set("count", Tree::integer(total.count));
                group.record_mut().set("sum", Tree::integer(total.sum));
                group
            })
            .collect();
        Seen {
            batch: Tree::Record(batch),
            file: Tree::Record(about),
            groups: Tree::List(each.clone()),
            each,
            now: sealed_at(self.state),
        }
    }
}

/// What templates see as `batch`.
pub fn batch_of(state: &BatchState) -> Record {
    let mut batch = Record::new();
    batch.set("number", Tree::integer(state.n));
    batch.set("serial", Tree::integer(state.serial.unwrap_or(0)));
    batch.set("sealed_at", Tree::text(sealed_at(state).to_string()));
    batch.set("processing_date", Tree::text(state.processing.clone().unwrap_or_default()));
    batch
}

/// When a batch was sealed: `now` of all its templates.
pub fn sealed_at(state: &BatchState) -> Timestamp {
    debug_assert!(state.life.stage > Stage::Open, "an open batch is not rendered");
    Timestamp::from_millisecond(state.sealed_at.unwrap_or(state.opened_at)).unwrap_or_default()
}

fn level(file: &BatchFile, levels: &[String]) -> Tree {
    let names = file.groups.iter().zip(levels);
    let mut group = Record::new();
    names.for_each(|(name, value)| group.push(Name::plain(name.as_str()), Tree::text(value.as_str())));
    Tree::Record(group)
}

/// Text that this program has written as JSON.
fn tree_of(json: &str) -> Tree {
    parse_json(json, &Limits::default()).unwrap_or_default()
}

fn of_store(error: &StoreError) -> Failure {
    Failure::not_done(error.code, error.what.clone())
}
