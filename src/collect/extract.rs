//! Extracts: a file that says everything there is, compared with what the last one said. What is new, changed or gone is
//! taken in; a first extract is where the comparing starts from; one that lost or changed too much waits for a person,
//! since it is more often a broken export than a thousand closed cases.
//!
//! In three steps, each of which goes on where it was after a crash: every row's key and hash are written down; how they
//! differ is judged; the news is taken in, in one commit with the key's new hash.

use super::{
    Collector, now,
    pickup::Halt,
    split::{Found, lost, panicked, refused},
};
use crate::{
    code::Code,
    config::{plan::Compare, raw::pickup::Change},
    event::{Key, hex},
    format::records::{Frame, only},
    mapping::path::Path,
    origin::{Origin, shown},
    store::{BASELINE, Compared, Difference, ExtractRow, FileState, Intake, News, Progress, TakenFile},
    tree::Tree,
    verdict::Failure,
};
use ring::digest::{SHA256, digest};
use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
};

/// News of one commit.
const CHUNK: u32 = 256;

impl Collector {
    /// Compares an extract with the last one, and takes its news in. What a person should know of it.
    pub(super) async fn compare(&self, compare: &Compare, file: &TakenFile) -> Result<Option<String>, Halt> {
        let accepted = file.state == FileState::Accepted;
        let as_baseline = accepted && file.point.as_deref() == Some(BASELINE);
        let last = self.store.last_done(self.number).await?;
        let applying = file.point.as_deref().and_then(|point| point.strip_prefix("news:"));
        let difference = match applying {
            Some(_) => self.store.difference(self.number).await?,
            None => {
                self.stage_rows(compare, file).await?;
                let difference = self.store.difference(self.number).await?;
                // Where something else says the order of files, their times need not.
                let by_time = last.as_ref().filter(|last| last.sequence.is_none());
                let doubts = if accepted { Ok(()) } else { doubts(compare, &difference, file, by_time) };
                if let Err(halt) = doubts {
                    self.unstage().await?;
                    return Err(halt);
                }
                self.store
                    .supersede(self.number, file.n, now(), Code::ExtractSuperseded.as_str().to_owned())
                    .await?;
                difference
            }
        };
        let is_baseline = as_baseline || (last.is_none() && !compare.first_is_news);
        if is_baseline {
            self.baseline(&difference).await?;
        }
        // Behind a baseline only what is no record of the layout is left to be told.
        self.take_news(file, applying.and_then(|at| at.parse().ok()).unwrap_or(0), is_baseline).await?;
        if difference.wrong == 0 && !is_baseline {
            self.take_gone(compare, file).await?;
        }
        self.unstage().await?;
        Ok(told(&difference, is_baseline))
    }

    /// Writes down the key and hash of every row.
    async fn stage_rows(&self, compare: &Compare, file: &TakenFile) -> Result<(), Halt> {
        self.unstage().await?;
        let mut records = self.open_copy(file, None).await?;
        self.store.begin_file(file.n, file.point.clone().filter(|point| point == BASELINE)).await?;
        loop {
            let (rest, found) = self.chunk(records).await?;
            records = rest;
            if found.is_empty() {
                return Ok(());
            }
            let rows: Vec<ExtractRow> = found.iter().map(|found| self.row(compare, found)).collect();
            if let Some((first, second)) = self.store.stage(self.number, rows).await? {
                self.unstage().await?;
                let why = format!(
                    "rows {first} and {second} have the same key ({}): which of them counts cannot be known",
                    key_in_words(compare)
                );
                return Err(Halt::Refused { code: Code::KeyTwice, why });
            }
            if self.stop.is_cancelled() {
                return Err(Halt::Later(Failure::not_done(Code::SystemBusy, "we are stopping")));
            }
        }
    }

    /// The key and hash of a row. One that cannot be read, or has no key, is kept apart under its number.
    fn row(&self, compare: &Compare, found: &Found) -> ExtractRow {
        let at = |key: [u8; 16], hash: [u8; 16], name: String, wrong: bool| ExtractRow {
            key,
            name,
            hash,
            number: found.number,
            offset: found.offset,
            length: found.length,
            wrong,
        };
        let wrong = || at(short(format!("row {}", found.number).as_bytes()), [0; 16], String::new(), true);
        if found.wrong {
            return wrong();
        }
        let Ok(document) = self.read(&found.document, None) else { return wrong() };
        let values: Option<Vec<String>> = compare
            .key
            .iter()
            .map(|path| path.find(&document)?.to_plain_text().filter(|text| !text.trim().is_empty()))
            .collect();
        let Some(values) = values else { return wrong() };
        let name = serde_json::to_string(&values).unwrap_or_default();
        at(short(name.as_bytes()), self.hash(compare, found, document), name, false)
    }

    /// What a row says, as a hash: of its bytes, or of its values where some of them are no news.
    fn hash(&self, compare: &Compare, found: &Found, mut document: Tree) -> [u8; 16] {
        if compare.ignore.is_empty() {
            return short(&found.document);
        }
        for path in &compare.ignore {
            if path.find(&document).is_some() {
                *path.place(&mut document, self.route.plan.format.typed()) = Tree::Null;
            }
        }
        short(crate::format::write_json(&document).as_bytes())
    }

    /// Takes what the extract says as said, without news of it.
    async fn baseline(&self, difference: &Difference) -> Result<(), Halt> {
        // What an earlier baseline said and this one does not is forgotten without a word.
        let mut left = difference.removed > 0;
        while left {
            let gone = self.store.gone(self.number, CHUNK).await?;
            left = !gone.is_empty();
            let keys = gone.into_iter().filter_map(|news| match news {
                News::Gone { key, .. } => Some(key),
                News::Row { .. } => None,
            });
            self.store.forget(self.number, keys.collect()).await?;
        }
        let mut behind = 0;
        while let Some(last) = self.store.take_as_baseline(self.number, behind).await? {
            behind = last;
        }
        Ok(())
    }

    /// Takes in what is new or changed, and what is no record, in the order of the file.
    async fn take_news(&self, file: &TakenFile, mut behind: i64, only_wrong: bool) -> Result<(), Halt> {
        let frame = self.frame(file).await?;
        loop {
            let news = self.store.news(self.number, behind, CHUNK).await?;
            let Some(last) = news.iter().rev().find_map(place) else { return Ok(()) };
            behind = last;
            let rows: Vec<(ExtractRow, bool)> = news
                .into_iter()
                .filter_map(|news| match news {
                    News::Row { row, is_new, .. } if row.wrong || !only_wrong => Some((row, is_new)),
                    News::Row { .. } | News::Gone { .. } => None,
                })
                .collect();
            let documents = self.documents(file, &rows, &frame).await?;
            let intakes = rows
                .iter()
                .zip(documents)
                .map(|((row, is_new), document)| {
                    let change = match (row.wrong, is_new) {
                        (true, _) => None,
                        (false, true) => Some(Change::Created),
                        (false, false) => Some(Change::Changed),
                    };
                    self.news(file, Said { row: row.number, change, key: None }, document)
                })
                .collect();
            let bad = rows.iter().filter(|(row, _)| row.wrong).count() as u64;
            let said = rows.into_iter().map(|(row, _)| row).filter(|row| !row.wrong).collect();
            let compared = Compared { said, gone: Vec::new() };
            self.take_records(
                intakes,
                Progress { file: file.n, point: format!("news:{behind}"), bad, compared },
            )
            .await?;
        }
    }

    /// Takes in what is gone.
    async fn take_gone(&self, compare: &Compare, file: &TakenFile) -> Result<(), Halt> {
        let frame = self.frame(file).await?;
        loop {
            let news = self.store.gone(self.number, CHUNK).await?;
            if news.is_empty() {
                return Ok(());
            }
            let (mut intakes, mut gone) = (Vec::new(), Vec::new());
            for news in news {
                let News::Gone { key, name } = news else { continue };
                let values: Vec<String> = serde_json::from_str(&name).unwrap_or_default();
                let fields: Vec<(String, String)> =
                    compare.key.iter().map(Path::to_string).zip(values).collect();
                let plan = &self.route.plan;
                let document = only(plan.format, plan.layout.as_deref(), &frame, &fields)
                    .map_err(|error| refused(&error))?;
                let said = Said { row: 0, change: Some(Change::Removed), key: Some(key) };
                intakes.push(self.news(file, said, document));
                gone.push(key);
            }
            let compared = Compared { said: Vec::new(), gone };
            let point = format!("news:{}", i64::MAX);
            self.take_records(intakes, Progress { file: file.n, point, bad: 0, compared }).await?;
        }
    }

    fn news(&self, file: &TakenFile, said: Said, document: Vec<u8>) -> Intake {
        let digest = hex(file.digest.get(..6).unwrap_or_default());
        let origin = Origin { file: file.name.clone(), digest, row: said.row, change: said.change };
        let which = match said.key {
            None => said.row.to_string(),
            Some(key) => format!("gone-{}", hex(&key)),
        };
        let id = format!("{}#{which}@x{}", shown(&file.name), file.n);
        Intake {
            key: Key::of(&self.route.id, &id),
            id,
            replay: 0,
            content_type: Some(origin.content_type(self.route.plan.format.media_type())),
            body: document,
        }
    }

    /// What stands before and after each record of an extract.
    async fn frame(&self, file: &TakenFile) -> Result<Frame, Halt> {
        let mut records = self.open_copy(file, None).await?;
        let read = tokio::task::spawn_blocking(move || {
            records.next()?;
            Ok(records.frame().clone())
        });
        read.await.map_err(panicked)?.map_err(|error: crate::format::FormatError| refused(&error))
    }

    /// The documents of rows, read where they stand in our copy.
    async fn documents(
        &self,
        file: &TakenFile,
        rows: &[(ExtractRow, bool)],
        frame: &Frame,
    ) -> Result<Vec<Vec<u8>>, Halt> {
        let places: Vec<(u64, u64)> = rows.iter().map(|(row, _)| (row.offset, row.length)).collect();
        let (path, frame) = (self.copy_of(&file.digest), frame.clone());
        let read = move || {
            let read = || -> std::io::Result<Vec<Vec<u8>>> {
                let mut copy = File::open(&path)?;
                let mut documents = Vec::with_capacity(places.len());
                for (offset, length) in places {
                    let mut record = vec![0; usize::try_from(length).unwrap_or(0)];
                    copy.seek(SeekFrom::Start(offset))?;
                    copy.read_exact(&mut record)?;
                    documents.push(frame.wrap(&record));
                }
                Ok(documents)
            };
            read().map_err(|error| lost(&path, &error))
        };
        tokio::task::spawn_blocking(read).await.map_err(panicked)?
    }

    async fn unstage(&self) -> Result<(), Halt> {
        while self.store.unstage(self.number).await? {}
        Ok(())
    }
}

/// What an extract says of one record.
struct Said {
    row: u64,
    change: Option<Change>,
    key: Option<[u8; 16]>,
}

/// Whether an extract is one that a person should see first.
fn doubts(
    compare: &Compare,
    difference: &Difference,
    file: &TakenFile,
    last: Option<&TakenFile>,
) -> Result<(), Halt> {
    let held = |code: Code, why: String| Err(Halt::Held { code, why });
    if let Some((before, now)) = last.and_then(|last| Some((last.modified?, file.modified?)))
        && now < before
    {
        let name = last.map_or("", |last| last.name.as_str());
        return held(
            Code::FileOutOfOrder,
            format!(
                "it was written before {name}, which counts already: the files may have come in the wrong order"
            ),
        );
    }
    if difference.now == 0 {
        return held(
            Code::ExtractSuspicious,
            "it has a header and no row: everything would be gone".to_owned(),
        );
    }
    let share = |part: u64, most: u32| {
        part.saturating_mul(10_000) > difference.before.saturating_mul(u64::from(most))
    };
    let in_per_cent = |part: u64| part.saturating_mul(100).checked_div(difference.before).unwrap_or(0);
    if share(difference.removed, compare.most_removed) {
        return held(
            Code::ExtractSuspicious,
            format!(
                "{} of {} rows would be gone ({} %), more than `most_removed` allows",
                difference.removed,
                difference.before,
                in_per_cent(difference.removed)
            ),
        );
    }
    if share(difference.changed, compare.most_changed) {
        return held(
            Code::ExtractSuspicious,
            format!(
                "{} of {} rows say something else ({} %), more than `most_changed` allows",
                difference.changed,
                difference.before,
                in_per_cent(difference.changed)
            ),
        );
    }
    Ok(())
}

/// What a person should know of an extract that counts.
fn told(difference: &Difference, is_baseline: bool) -> Option<String> {
    let mut text = match is_baseline {
        true => format!("the baseline: {} rows", difference.now),
        false => {
            format!(
                "{} created, {} changed, {} removed",
                difference.created, difference.changed, difference.removed
            )
        }
    };
    if difference.wrong > 0 {
        text.push_str(&format!(
            "; {} rows are no records, so that nothing can be said of what is gone: that waits for an extract without such rows",
            difference.wrong
        ));
    }
    Some(text)
}

fn place(news: &News) -> Option<i64> {
    match news {
        News::Row { at, .. } => Some(*at),
        News::Gone { .. } => None,
    }
}

fn key_in_words(compare: &Compare) -> String {
    let paths: Vec<String> = compare.key.iter().map(Path::to_string).collect();
    paths.join(", ")
}

/// The first half of a SHA-256: enough to tell rows apart, half as large.
fn short(bytes: &[u8]) -> [u8; 16] {
    let whole = digest(&SHA256, bytes);
    let mut half = [0; 16];
    half.iter_mut().zip(whole.as_ref()).for_each(|(to, from)| *to = *from);
    half
}
