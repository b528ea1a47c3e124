//! Compiling batches, and the routes that feed them or write single files.

use super::*;
use crate::{
    batch::{CutOffs, Days, Size},
    config::{
        batch::*,
        raw::batch::{AboutKeys, BatchFileKeys, BatchKeys, DateRule, JoinKeys, Keep, PartKeys, WriteKeys},
    },
};

/// More items than any batch needs to hold; every batch has a bound.
const MOST: u32 = 1_000_000;

impl Compiler<'_> {
    pub(super) fn batches(&mut self) -> BTreeMap<String, Arc<Batch>> {
        let file = self.file;
        let compiled = file
            .batch
            .iter()
            .filter_map(|(name, keys)| Some((name.clone(), Arc::new(self.batch(name, keys)?))));
        compiled.collect()
    }
    fn batch(&mut self, name: &str, keys: &BatchKeys) -> Option<Batch> {
        let at = ["batch".to_owned(), name.to_owned()];
        self.route_name(name, &at);
        let cut_offs = self.cut_offs(keys, &at);
        let serial = (keys.serial.first.unwrap_or(1), keys.serial.last.unwrap_or(999_999));
        if serial.0 > serial.1 || serial.0 < 0 {
            let what = "serial numbers go from `first` to `last`, and neither is negative";
            self.problem(Problem::under(Code::WrongType, &at, "serial", what));
        }
        let size = Size {
            least: i64::from(keys.least.unwrap_or(1)),
            most: i64::from(keys.most.unwrap_or(MOST).clamp(1, MOST)),
            most_sum: keys.most_sum,
        };
        if size.least > size.most {
            let what = "a batch cannot wait for more items than it holds";
            self.problem(Problem::under(Code::WrongType, &at, "least", what));
        }
        let folder = keys.folder.as_deref().unwrap_or("");
        let folder = self.template(folder, Escape::None, &under(&at, &["folder"]));
        if keys.files.is_empty() {
            let what = "a batch becomes at least one file";
            self.problem(Problem::under(Code::MissingKey, &at, "files", what));
        }
        let mut files = Vec::new();
        for (file, file_keys) in &keys.files {
            let at = under(&at, &["files", file]);
            self.route_name(file, &at);
            files.extend(self.batch_file(file, file_keys, &at));
        }
        Some(Batch {
            name: name.to_owned(),
            about: keys.about.clone(),
            folder: folder?,
            cut_offs: cut_offs?,
            size,
            serial,
            processing: keys.processing.unwrap_or(0).min(30),
            keep: keys.keep,
            files,
        })
    }
    fn cut_offs(&mut self, keys: &BatchKeys, at: At<'_>) -> Option<CutOffs> {
        let mut times = Vec::new();
        for (index, text) in keys.cut_off.iter().enumerate() {
            match hours::time(text) {
                Ok(time) => times.push(time),
                Err(what) => {
                    let at = under(at, &["cut_off", &index.to_string()]);
                    let problem = Problem::under(Code::WrongType, &at, "", what);
                    self.problem(problem.help("hours and minutes: `16:00`"));
                }
            }
        }
        let zone = match hours::zone(keys.zone.as_deref()) {
            Ok(zone) => zone,
            Err(what) => {
                self.problem(Problem::under(Code::UnknownName, at, "zone", what));
                return None;
            }
        };
        let week = hours::week(keys.days.as_deref());
        if week.is_empty() {
            let what = "there must be a working day";
            self.problem(Problem::under(Code::WrongType, at, "days", what));
        }
        let holidays = hours::holidays(keys.holidays.as_deref(), self.with.calendars, at);
        let holidays = holidays.unwrap_or_else(|problem| {
            self.problem(problem);
            None
        });
        Some(CutOffs { times, zone, days: Days { week, holidays } })
    }
    fn batch_file(&mut self, file: &str, keys: &BatchFileKeys, at: At<'_>) -> Option<BatchFile> {
        let name = self.template(&keys.name, Escape::None, &under(at, &["name"]))?;
        // By the text: names of what is used say nothing of filters.
        if !["batch.serial", "batch.sealed", "batch.number"].iter().any(|unique| keys.name.contains(unique)) {
            let what = "the name is the same for each batch: the next one could not be put beside the last";
            self.problem(
                Problem::under(Code::NameNotUnique, at, "name", what)
                    .help("put `{{ batch.serial }}`, `{{ batch.number }}` or a moment of `{{ batch.sealed_at }}` into it")
                    .warning(),
            );
        }
        for group in keys.around.keys().filter(|group| !keys.groups.contains(group)) {
            let what = format!("items are not brought together by `{group}`");
            let problem = Problem::under(Code::UnknownName, &under(at, &["around"]), group, what);
            self.problem(problem.did_you_mean(group, keys.groups.iter().map(String::as_str)));
        }
        let layout = keys.layout.as_ref().and_then(|name| self.batch_layout(name, at));
        let mut around = Vec::new();
        for group in &keys.groups {
            let at = under(at, &["around", group]);
            let parts = keys.around.get(group);
            let head = self.parts(parts.map_or(&[], |parts| &parts.head), keys, &under(&at, &["head"]));
            let foot = self.parts(parts.map_or(&[], |parts| &parts.foot), keys, &under(&at, &["foot"]));
            around.push((head, foot));
        }
        Some(BatchFile {
            file: file.to_owned(),
            name,
            layout_head: keys.layout_head.unwrap_or(true),
            layout,
            head: self.parts(&keys.head, keys, &under(at, &["head"])),
            groups: keys.groups.clone(),
            around,
            foot: self.parts(&keys.foot, keys, &under(at, &["foot"])),
        })
    }
    fn parts(&mut self, parts: &[PartKeys], file: &BatchFileKeys, at: At<'_>) -> Vec<Part> {
        let mut found = Vec::new();
        for (index, keys) in parts.iter().enumerate() {
            let at = under(at, &[&index.to_string()]);
            let says = self.says(keys, file, &at);
            let when =
                keys.when.as_ref().and_then(|when| self.template(when, Escape::None, &under(&at, &["when"])));
            if let Some(says) = says {
                found.push(Part { says, each_group: keys.each.is_some(), when });
            }
        }
        found
    }
    fn batch_layout(&mut self, name: &str, at: At<'_>) -> Option<Arc<Layout>> {
        let layout = self.with.layouts.get(name).cloned();
        if layout.is_none() && !self.with.broken_layouts.contains(name) {
            let known: Vec<&str> = self.with.layouts.keys().map(String::as_str).collect();
            let problem =
                Problem::under(Code::UnknownName, at, "layout", format!("there is no layout `{name}`"))
                    .label("no such file in mappings/layouts/")
                    .did_you_mean(name, known);
            self.problem(problem);
        }
        layout
    }
    fn says(&mut self, keys: &PartKeys, file: &BatchFileKeys, at: At<'_>) -> Option<Says> {
        match (&keys.record, &keys.text) {
            (Some(record), None) => {
                let fields = self.templates(&keys.fields, Escape::None, &under(at, &["fields"]));
                let Some(layout) = &file.layout else {
                    let what = "a record is written by the layout of its file, and the file names none";
                    self.problem(Problem::under(Code::MissingKey, at, "record", what));
                    return None;
                };
                let known = self.with.layouts.get(layout).cloned()?;
                let Some(kind) = known.record(record) else {
                    let what = format!("the layout `{layout}` has no record `{record}`");
                    let names = known.records.iter().map(|kind| kind.name.local.as_str());
                    let problem =
                        Problem::under(Code::NotInLayout, at, "record", what).did_you_mean(record, names);
                    self.problem(problem);
                    return None;
                };
                for (field, _) in &fields {
                    if !kind.fields.iter().any(|known| known.name.local == field.as_str()) {
                        let what = format!("the record `{record}` has no field `{field}`");
                        let names = kind.fields.iter().map(|field| field.name.local.as_str());
                        let problem = Problem::under(Code::NotInLayout, &under(at, &["fields"]), field, what)
                            .did_you_mean(field, names);
                        self.problem(problem);
                    }
                }
                Some(Says::Record(record.clone(), fields))
            }
            (None, Some(text)) => self.template(text, Escape::None, &under(at, &["text"])).map(Says::Text),
            _ => {
                let what = "a part of a file is exactly one of `record` and `text`";
                self.problem(Problem::under(Code::ExclusiveKeys, at, "", what).on_key());
                None
            }
        }
    }
    pub(super) fn join(&mut self, keys: &JoinKeys, at: At<'_>) -> Option<Join> {
        let Some(batch) = self.batches.get(&keys.into).cloned() else {
            // One that is there but broken has told its problems.
            if !self.file.batch.contains_key(&keys.into) {
                let what = format!("the adapter has no batch `{}`", keys.into);
                let problem = Problem::under(Code::UnknownName, at, "into", what)
                    .did_you_mean(&keys.into, self.file.batch.keys().map(String::as_str));
                self.problem(problem);
            }
            return None;
        };
        let file = match &keys.file {
            Some(name) => batch.files.iter().position(|file| file.file == *name),
            None if batch.files.len() == 1 => Some(0),
            None => None,
        };
        let Some(file) = file else {
            let written = keys.file.clone().unwrap_or_default();
            let what = match keys.file {
                Some(_) => format!("the batch has no file `{written}`"),
                None => "the batch has several files: say which one".to_owned(),
            };
            let problem = Problem::under(Code::UnknownName, at, "file", what)
                .did_you_mean(&written, batch.files.iter().map(|file| file.file.as_str()));
            self.problem(problem);
            return None;
        };
        let mut template = |text: &Option<String>, key: &str| {
            text.as_ref().and_then(|text| self.template(text, Escape::None, &under(at, &[key])))
        };
        let (amount, order) = (template(&keys.amount, "amount"), template(&keys.order, "order"));
        let (date, key) = (template(&keys.date, "date"), template(&keys.key, "key"));
        let removes = template(&keys.removes, "removes");
        let group = self.templates(&keys.group, Escape::None, &under(at, &["group"]));
        if let Some(file) = batch.files.get(file) {
            for missing in file.groups.iter().take(1).filter(|name| !keys.group.contains_key(*name)) {
                let what =
                    format!("the file brings items together by `{missing}`, which this route does not give");
                self.problem(Problem::under(Code::MissingKey, at, "group", what));
            }
        }
        match (batch.keep, &keys.key) {
            (Keep::Latest, None) => {
                let what = "a complete return holds the latest of each key: say what the `key` is";
                self.problem(Problem::under(Code::MissingKey, at, "key", what));
            }
            (Keep::New, Some(_)) | (Keep::New, None) if keys.removes.is_some() || keys.key.is_some() => {
                let what = "only of a complete return (`keep = \"latest\"`) are rows replaced or removed";
                self.problem(Problem::under(
                    Code::ExclusiveKeys,
                    at,
                    if keys.removes.is_some() { "removes" } else { "key" },
                    what,
                ));
            }
            (Keep::Latest, Some(_)) | (Keep::New, _) => {}
        }
        if keys.date_rule == DateRule::Refuse && keys.date.is_none() {
            let what = "there is no `date` to refuse";
            self.problem(Problem::under(Code::MissingKey, at, "date_rule", what));
        }
        let remember = match &keys.remember {
            None => None,
            Some(remember) => {
                let at = under(at, &["remember"]);
                let key = self.template(&remember.key, Escape::None, &under(&at, &["key"]));
                let keep = self.templates(&remember.keep, Escape::None, &under(&at, &["keep"]));
                key.map(|key| Remember { key, keep, keep_event: remember.keep_event })
            }
        };
        Some(Join {
            batch,
            file,
            record: keys.record.clone().unwrap_or_default(),
            amount,
            group,
            place: keys.place.unwrap_or(0),
            order,
            date,
            date_rule: keys.date_rule,
            key,
            removes,
            remember,
        })
    }
    pub(super) fn write_file(&mut self, keys: &WriteKeys, at: At<'_>) -> Option<WriteFile> {
        let folder = keys.folder.as_deref().unwrap_or("");
        let folder = self.template(folder, Escape::None, &under(at, &["folder"]));
        let name = self.template(&keys.name, Escape::None, &under(at, &["name"]))?;
        if !keys.name.contains("event.id") && !keys.name.contains("event.data") {
            let what =
                "nothing in the name tells one event from another: their files would have the same name";
            self.problem(
                Problem::under(Code::NameNotUnique, at, "name", what)
                    .help("put `{{ event.id }}` into it, or an id of `event.data`")
                    .warning(),
            );
        }
        Some(WriteFile { folder: folder?, name })
    }
    pub(super) fn about(&mut self, keys: &AboutKeys, at: At<'_>) -> Option<About> {
        let key = self.template(&keys.key, Escape::None, &under(at, &["key"]));
        let remembers =
            |route: &DeliverKeys| route.batch.as_ref().is_some_and(|join| join.remember.is_some());
        if !keys.route.contains('.') && !self.file.deliver.get(&keys.route).is_some_and(remembers) {
            let what =
                format!("no route `{}` of this adapter remembers what it has sent in batches", keys.route);
            let known =
                self.file.deliver.iter().filter(|(_, route)| remembers(route)).map(|(name, _)| name.as_str());
            let problem =
                Problem::under(Code::UnknownName, at, "route", what).did_you_mean(&keys.route, known);
            self.problem(problem);
        }
        Some(About { route: keys.route.clone(), key: key?, unmatched: keys.unmatched })
    }
}
