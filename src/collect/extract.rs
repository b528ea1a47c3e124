//! Extracts: a file that says everything there is, compared with what the last one said. What is new, changed or gone is
//! taken in; a first extract is where the comparing starts from; one that lost or changed too much waits for a person,
//! since it is more often a broken export than a thousand closed cases.
//!
//! In three steps: every row's key and hash are sorted; how they differ from the last extract's is judged; the news is
//! taken in, in one commit with the key's new hash. After a crash the first two are done again: they write nothing down.

use super::{
    Collector,
    difference::{Difference, Is, Order, Row, SIZE, Walk},
    now,
    pickup::Halt,
    sort::{Sorted, Sorter},
    split::{Open, lost, panicked, refused},
};
use crate::{
    code::Code,
    config::{plan::Compare, raw::pickup::Change},
    event::{Key, hex},
    format::{
        Limits,
        records::{Frame, Piece, only},
    },
    mapping::path::Path,
    origin::{Origin, shown},
    store::{BASELINE, Compared, FileState, Intake, Progress, Said, TakenFile},
    tree::Tree,
    verdict::Failure,
};
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};
use std::{fs::File, os::unix::fs::FileExt as _, path::PathBuf};

/// News of one commit.
const CHUNK: usize = 256;
/// Rows of one commit that are no news.
const BASELINE_CHUNK: usize = 4_096;
/// Keys of the last extract that are looked at in one go.
const LOOK: usize = 8_192;
/// After how many rows it is seen whether we are stopping.
const ROWS: usize = 4_096;

/// How far the news of an extract has been taken in.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Point {
    /// News up to this row's number.
    behind: u64,
    /// Whether it is where comparing starts from.
    baseline: bool,
    /// As it was found before any of it was taken in.
    difference: Difference,
}

impl Point {
    fn progress(&self, file: &TakenFile, bad: u64, compared: Compared) -> Progress {
        Progress { file: file.n, point: serde_json::to_string(self).unwrap_or_default(), bad, compared }
    }
}

impl Collector {
    /// Compares an extract with the last one, and takes its news in. What a person should know of it.
    pub(super) async fn compare(&self, compare: &Compare, file: &TakenFile) -> Result<Option<String>, Halt> {
        let accepted = file.state == FileState::Accepted;
        let as_baseline = accepted && file.point.as_deref() == Some(BASELINE);
        let last = self.store.last_done(self.number).await?;
        let under_way: Option<Point> =
            file.point.as_deref().and_then(|point| serde_json::from_str(point).ok());
        if under_way.is_none() {
            self.store.begin_file(file.n, file.point.clone().filter(|point| point == BASELINE)).await?;
        }
        let baseline = match &under_way {
            Some(point) => point.baseline,
            None => as_baseline || (last.is_none() && !compare.first_is_news),
        };
        let rows = self.rows(file).await?;
        let order = if baseline { Order::Key } else { Order::File };
        let walk = self.walk(rows, order).await?;
        if let Some((first, second)) = walk.twice {
            let why = format!(
                "rows {first} and {second} have the same key ({}): which of them counts cannot be known",
                key_in_words(compare)
            );
            return Err(Halt::Refused { code: Code::KeyTwice, why });
        }
        let point = match under_way {
            Some(point) => point,
            None => {
                // Where something else says the order of files, their times need not.
                let by_time = last.as_ref().filter(|last| last.sequence.is_none());
                if !accepted {
                    doubts(compare, &walk.difference, file, by_time)?;
                }
                self.store
                    .supersede(self.number, file.n, now(), Code::ExtractSuperseded.as_str().to_owned())
                    .await?;
                crate::kill::point("extract.compared");
                Point { behind: 0, baseline, difference: walk.difference }
            }
        };
        let news = in_order(walk.news, &self.files)?;
        let gone = in_order(walk.gone, &self.files)?;
        match baseline {
            true => self.take_baseline(file, point, news, gone).await?,
            false => {
                self.take_news(file, point, news).await?;
                if point.difference.wrong == 0 {
                    self.take_gone(compare, file, point, gone).await?;
                }
            }
        }
        Ok(told(&point.difference, baseline))
    }

    /// The key and hash of every row, by key. One that cannot be read, or has no key, is kept apart under its number.
    async fn rows(&self, file: &TakenFile) -> Result<Sorted<SIZE>, Halt> {
        let mut records = self.open_copy(file, None).await?;
        let (route, folder, stop) = (self.route.clone(), self.files.clone(), self.stop.clone());
        blocking(move || {
            let mut sorter = Sorter::new();
            let Some(compare) = &route.plan.compare else { return in_order(sorter, &folder) };
            let mut read = 0;
            while let Some(piece) = records.next().map_err(|error| refused(&error))? {
                let row = row(compare, route.plan.format.typed(), &mut records, &piece);
                sorter.push(row.entry(0), &folder).map_err(|error| unsorted(&folder, &error))?;
                read += 1;
                if read % ROWS == 0 && stop.is_cancelled() {
                    return Err(Halt::Later(Failure::not_done(Code::SystemBusy, "we are stopping")));
                }
            }
            in_order(sorter, &folder)
        })
        .await
    }

    /// Walks along the rows and what the last extract said.
    async fn walk(&self, rows: Sorted<SIZE>, order: Order) -> Result<Walk, Halt> {
        let mut walk = Walk::new(rows, order);
        let mut behind = None;
        loop {
            let said = self.store.said(self.number, behind, LOOK).await?;
            let is_end = said.len() < LOOK;
            behind = said.last().map(|(key, _)| *key);
            let folder = self.files.clone();
            walk = blocking(move || {
                walk.past(&said, is_end, &folder).map_err(|error| unsorted(&folder, &error))?;
                Ok(walk)
            })
            .await?;
            if is_end {
                return Ok(walk);
            }
        }
    }

    /// Takes what the extract says as said, without news of it, and forgets what an earlier baseline said and this one
    /// does not. What is no record of the layout is told all the same.
    async fn take_baseline(
        &self,
        file: &TakenFile,
        point: Point,
        mut news: Sorted<SIZE>,
        mut gone: Sorted<16>,
    ) -> Result<(), Halt> {
        let folder = &self.files;
        loop {
            let keys = next_of(&mut gone, CHUNK, folder)?;
            if keys.is_empty() {
                break;
            }
            self.store.say(self.number, Compared { said: Vec::new(), gone: keys }).await?;
        }
        let mut copy = self.copy(file).await?;
        let mut wrong = Sorter::new();
        loop {
            let rows = next_of(&mut news, BASELINE_CHUNK, folder)?.iter().map(Row::of).collect();
            let (back, found) = self.said_at(copy, rows).await?;
            copy = back;
            if found.is_empty() {
                break;
            }
            let mut said = Vec::with_capacity(found.len());
            for At { row, name, .. } in found {
                match row.is {
                    Is::New | Is::Changed => said.push(Said { key: row.key, hash: row.hash, name }),
                    Is::Wrong => {
                        wrong.push(row.entry(row.number), folder).map_err(|error| unsorted(folder, &error))?
                    }
                }
            }
            self.store.say(self.number, Compared { said, gone: Vec::new() }).await?;
            crate::kill::point("extract.said");
            if self.stop.is_cancelled() {
                return Err(Halt::Later(Failure::not_done(Code::SystemBusy, "we are stopping")));
            }
        }
        self.take_news(file, point, in_order(wrong, folder)?).await
    }

    /// Takes in what is new or changed, and what is no record, in the order of the file.
    async fn take_news(
        &self,
        file: &TakenFile,
        mut point: Point,
        mut news: Sorted<SIZE>,
    ) -> Result<(), Halt> {
        let mut copy = self.copy(file).await?;
        loop {
            let rows: Vec<Row> = next_of(&mut news, CHUNK, &self.files)?.iter().map(Row::of).collect();
            let Some(last) = rows.last() else { return Ok(()) };
            let (behind, last) = (point.behind, last.number);
            let rows: Vec<Row> = rows.into_iter().filter(|row| row.number > behind).collect();
            if rows.is_empty() {
                continue;
            }
            point.behind = last;
            let (back, found) = self.said_at(copy, rows).await?;
            copy = back;
            let bad = found.iter().filter(|at| at.row.is == Is::Wrong).count() as u64;
            let (mut intakes, mut said) = (Vec::with_capacity(found.len()), Vec::with_capacity(found.len()));
            for At { row, name, document } in found {
                let change = match row.is {
                    Is::Wrong => None,
                    Is::New => Some(Change::Created),
                    Is::Changed => Some(Change::Changed),
                };
                if change.is_some() {
                    said.push(Said { key: row.key, hash: row.hash, name });
                }
                intakes.push(self.news(file, row.number, change, None, document));
            }
            let compared = Compared { said, gone: Vec::new() };
            self.take_records(intakes, point.progress(file, bad, compared)).await?;
            crate::kill::point("extract.news");
        }
    }

    /// Takes in what is gone.
    async fn take_gone(
        &self,
        compare: &Compare,
        file: &TakenFile,
        mut point: Point,
        mut gone: Sorted<16>,
    ) -> Result<(), Halt> {
        point.behind = u64::MAX;
        let plan = &self.route.plan;
        let frame = self.copy(file).await?.records.frame().clone();
        loop {
            let keys = next_of(&mut gone, CHUNK, &self.files)?;
            if keys.is_empty() {
                return Ok(());
            }
            let names = self.store.said_names(self.number, keys.clone()).await?;
            let mut intakes = Vec::with_capacity(keys.len());
            for (key, name) in keys.iter().zip(names) {
                let values: Vec<String> = serde_json::from_str(&name).unwrap_or_default();
                let fields: Vec<(String, String)> =
                    compare.key.iter().map(Path::to_string).zip(values).collect();
                let document = only(plan.format, plan.layout.as_deref(), &frame, &fields)
                    .map_err(|error| refused(&error))?;
                intakes.push(self.news(file, 0, Some(Change::Removed), Some(key), document));
            }
            let compared = Compared { said: Vec::new(), gone: keys };
            self.take_records(intakes, point.progress(file, 0, compared)).await?;
            crate::kill::point("extract.news");
        }
    }

    fn news(
        &self,
        file: &TakenFile,
        row: u64,
        change: Option<Change>,
        gone: Option<&[u8; 16]>,
        document: Vec<u8>,
    ) -> Intake {
        let digest = hex(file.digest.get(..6).unwrap_or_default());
        let origin = Origin { file: file.name.clone(), digest, row, change };
        let which = match gone {
            None => row.to_string(),
            Some(key) => format!("gone-{}", hex(key)),
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

    /// Our copy of an extract, to look at single rows.
    async fn copy(&self, file: &TakenFile) -> Result<Copy, Halt> {
        let mut records = self.open_copy(file, None).await?;
        let path = self.text_of(file).await?;
        blocking(move || {
            // Behind its first record it is known what stands around records.
            records.next().map_err(|error| refused(&error))?;
            let file = File::open(&path).map_err(|error| lost(&path, &error))?;
            Ok(Copy { path, file, records })
        })
        .await
    }

    /// What stands in these rows.
    async fn said_at(&self, mut copy: Copy, rows: Vec<Row>) -> Result<(Copy, Vec<At>), Halt> {
        let route = self.route.clone();
        blocking(move || {
            let Some(compare) = &route.plan.compare else { return Ok((copy, Vec::new())) };
            let found = rows.into_iter().map(|row| copy.at(compare, row)).collect::<Result<_, Halt>>()?;
            Ok((copy, found))
        })
        .await
    }
}

/// Our copy of an extract, of which single rows are read.
struct Copy {
    path: PathBuf,
    file: File,
    records: Open,
}

/// A row with what stands in it.
struct At {
    row: Row,
    /// Its key's values, as a JSON list.
    name: String,
    document: Vec<u8>,
}

impl Copy {
    fn at(&mut self, compare: &Compare, row: Row) -> Result<At, Halt> {
        let mut bytes = vec![0; row.length as usize];
        self.file.read_exact_at(&mut bytes, row.offset).map_err(|error| lost(&self.path, &error))?;
        let piece = Piece { number: row.number, line: 1, offset: row.offset, bytes, wrong: None };
        let name = match row.is {
            Is::Wrong => String::new(),
            Is::New | Is::Changed => {
                let document =
                    self.records.read(&piece, &Limits::default()).map_err(|error| refused(&error))?;
                name_of(compare, &document).unwrap_or_default()
            }
        };
        Ok(At { row, name, document: self.records.frame().wrap(&piece.bytes) })
    }
}

/// The values of a row's key, as a JSON list; nothing if one is missing.
fn name_of(compare: &Compare, document: &Tree) -> Option<String> {
    let values: Option<Vec<String>> = compare
        .key
        .iter()
        .map(|path| path.find(document)?.to_plain_text().filter(|text| !text.trim().is_empty()))
        .collect();
    serde_json::to_string(&values?).ok()
}

fn row(compare: &Compare, typed: bool, records: &mut Open, piece: &Piece) -> Row {
    let row = Row {
        number: piece.number,
        offset: piece.offset,
        length: u32::try_from(piece.bytes.len()).unwrap_or(u32::MAX),
        ..Row::default()
    };
    let document = match &piece.wrong {
        None => records.read(piece, &Limits::default()).ok(),
        Some(_) => None,
    };
    let named = document.and_then(|document| Some((name_of(compare, &document)?, document)));
    match named {
        Some((name, document)) => Row {
            key: short(&[name.as_bytes()]),
            hash: hash(compare, typed, records.frame(), piece, document),
            ..row
        },
        None => Row { key: short(&[format!("row {}", row.number).as_bytes()]), is: Is::Wrong, ..row },
    }
}

/// What a row says, as a hash: of its bytes with what stands around them, or of its values where some of them are no news.
fn hash(compare: &Compare, typed: bool, frame: &Frame, piece: &Piece, mut document: Tree) -> [u8; 16] {
    if compare.ignore.is_empty() {
        return short(&[&frame.before, &piece.bytes, &frame.after]);
    }
    for path in &compare.ignore {
        if path.find(&document).is_some() {
            *path.place(&mut document, typed) = Tree::Null;
        }
    }
    short(&[crate::format::write_json(&document).as_bytes()])
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Halt> + Send + 'static,
) -> Result<T, Halt> {
    tokio::task::spawn_blocking(work).await.map_err(panicked)?
}

fn in_order<const N: usize>(sorter: Sorter<N>, folder: &std::path::Path) -> Result<Sorted<N>, Halt> {
    sorter.sorted().map_err(|error| unsorted(folder, &error))
}

/// The next entries.
fn next_of<const N: usize>(
    sorted: &mut Sorted<N>,
    most: usize,
    folder: &std::path::Path,
) -> Result<Vec<[u8; N]>, Halt> {
    let mut entries = Vec::with_capacity(most);
    while entries.len() < most {
        match sorted.next().map_err(|error| unsorted(folder, &error))? {
            Some(entry) => entries.push(entry),
            None => break,
        }
    }
    Ok(entries)
}

fn unsorted(folder: &std::path::Path, error: &std::io::Error) -> Halt {
    let what = format!("the rows of an extract cannot be sorted in {}: {error}", folder.display());
    Halt::Later(Failure::not_done(Code::StoreUnavailable, what))
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

fn key_in_words(compare: &Compare) -> String {
    let paths: Vec<String> = compare.key.iter().map(Path::to_string).collect();
    paths.join(", ")
}

/// The first half of a SHA-256: enough to tell rows apart, half as large.
fn short(parts: &[&[u8]]) -> [u8; 16] {
    let mut context = Context::new(&SHA256);
    parts.iter().for_each(|part| context.update(part));
    let mut half = [0; 16];
    half.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
    half
}
