//! The records of a file: read through once before the first is released, then taken in a chunk at a time, each chunk in
//! one commit with the point up to which the file has been read.

use super::{
    Collector, now,
    pickup::{Halt, NARROWED, unwritable},
};
use crate::{
    code::Code,
    event::{Key, hex},
    format::{
        FormatError,
        records::{Point, RecordLimits, Records, Summary},
        wide::{self, NotNarrowed},
    },
    origin::{Origin, shown},
    store::{BASELINE, Compared, FileState, Intake, Progress, Taken, TakenFile},
    template::Scope,
    verdict::Failure,
};
use std::{
    fs::File,
    io::{BufReader, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    time::Duration,
};

/// Records of one commit.
const CHUNK: usize = 512;
/// Bytes of one commit.
const CHUNK_BYTES: usize = 8 << 20;
/// Bytes at the beginning of a file that say its encoding.
const HEAD: u64 = 64;
/// How long the spool is left to empty itself.
const FULL: Duration = Duration::from_secs(2);

/// A file that is being read.
pub(super) type Open = Records<BufReader<File>>;

/// A record as it is spooled.
pub(super) struct Found {
    /// Its number in the file.
    pub number: u64,
    /// The document: the record with what stands before and after it.
    pub document: Vec<u8>,
    /// Whether it is no record of the layout.
    pub wrong: bool,
}

impl Collector {
    /// Reads a file on, to its end. What a person should know of it, if anything.
    pub(super) async fn read_file(&self, file: &TakenFile) -> Result<Option<String>, Halt> {
        if file.point.is_none() || file.state == FileState::Taken {
            self.check_file(file).await?;
            self.in_order(file).await?;
        }
        match &self.route.plan.compare {
            None => self.split(file).await,
            Some(compare) => self.compare(compare, file).await,
        }
    }

    /// Reads a file through, and sees whether it is whole, of its layout, and of the totals that it states.
    async fn check_file(&self, file: &TakenFile) -> Result<Summary, Halt> {
        let mut records = self.open_copy(file, None).await?;
        let read = tokio::task::spawn_blocking(move || {
            while records.next()?.is_some() {}
            records.finish()
        });
        read.await.map_err(panicked)?.map_err(|error| refused(&error))
    }

    async fn split(&self, file: &TakenFile) -> Result<Option<String>, Halt> {
        let point = match &file.point {
            Some(text) if text == BASELINE => {
                return Ok(Some("nothing of it is taken in: a person has said so".to_owned()));
            }
            Some(text) => Some(read_point(text)?),
            None => None,
        };
        let mut records = self.open_copy(file, point).await?;
        self.store.begin_file(file.n, file.point.clone()).await?;
        loop {
            let (rest, found) = self.chunk(records).await?;
            records = rest;
            if found.is_empty() {
                return Ok(None);
            }
            let bad = found.iter().filter(|found| found.wrong).count() as u64;
            let point = written_point(&records.point())?;
            let intakes = found.into_iter().map(|found| self.record(file, found)).collect();
            let progress = Progress { file: file.n, point, bad, compared: Compared::default() };
            self.take_records(intakes, progress).await?;
            crate::kill::point("files.records");
        }
    }

    /// Takes records in; waits while the spool is full.
    pub(super) async fn take_records(&self, intakes: Vec<Intake>, progress: Progress) -> Result<(), Halt> {
        loop {
            if self.stop.is_cancelled() {
                return Err(Halt::Later(Failure::not_done(Code::SystemBusy, "we are stopping")));
            }
            match self.store.take_records(self.number, now(), intakes.clone(), progress.clone()).await? {
                Taken::Stored(new) => {
                    self.count_taken(&new);
                    return Ok(());
                }
                Taken::Full => {
                    let full = self.store.full();
                    tracing::warn!(route = self.route.id, code = %full.code, "a file waits for room: {}", full.what);
                    self.pause(FULL).await;
                }
            }
        }
    }

    /// Our copy of a file as it is split: of one in UTF-16, its text in UTF-8, which stands beside it.
    pub(super) async fn text_of(&self, file: &TakenFile) -> Result<PathBuf, Halt> {
        let (path, layout) = (self.copy_of(&file.digest), self.route.plan.layout.clone());
        let text = move || -> Result<PathBuf, Opening> {
            let ours = |error| Opening::Io(path.clone(), error);
            let narrowed = path.with_extension(NARROWED);
            let mut copy = File::open(&path).map_err(ours)?;
            let mut head = Vec::new();
            copy.by_ref().take(HEAD).read_to_end(&mut head).map_err(ours)?;
            let Some(encoding) = wide::of_file(&head, layout.as_deref()).map_err(Opening::Format)? else {
                return Ok(path);
            };
            if narrowed.exists() {
                return Ok(narrowed);
            }
            copy.rewind().map_err(ours)?;
            let part = narrowed.with_extension("part");
            let unwritable = |error| Opening::Unwritable(part.clone(), error);
            let to = File::create(&part).map_err(unwritable)?;
            wide::narrow(copy, &to, encoding).map_err(|failed| {
                let _ = std::fs::remove_file(&part);
                match failed {
                    NotNarrowed::Read(error) => ours(error),
                    NotNarrowed::Write(error) => unwritable(error),
                    NotNarrowed::Format(error) => Opening::Format(error),
                }
            })?;
            to.sync_all().and_then(|()| std::fs::rename(&part, &narrowed)).map_err(unwritable)?;
            Ok(narrowed)
        };
        tokio::task::spawn_blocking(text).await.map_err(panicked)?.map_err(opening)
    }

    /// Opens our copy of a file, at its beginning or at the point up to which it has been read.
    pub(super) async fn open_copy(&self, file: &TakenFile, point: Option<Point>) -> Result<Open, Halt> {
        let path = self.text_of(file).await?;
        let (format, layout) = (self.route.plan.format, self.route.plan.layout.clone());
        let open = move || -> Result<Open, Opening> {
            let ours = |error| Opening::Io(path.clone(), error);
            let mut file = File::open(&path).map_err(ours)?;
            match point {
                None => Records::new(format, layout, BufReader::new(file), RecordLimits::default())
                    .map_err(Opening::Format),
                Some(point) => {
                    file.seek(SeekFrom::Start(point.offset)).map_err(ours)?;
                    Records::resume(format, layout, BufReader::new(file), RecordLimits::default(), point)
                        .map_err(Opening::Format)
                }
            }
        };
        tokio::task::spawn_blocking(open).await.map_err(panicked)?.map_err(opening)
    }

    /// The next records.
    pub(super) async fn chunk(&self, mut records: Open) -> Result<(Open, Vec<Found>), Halt> {
        let read = move || -> Result<(Open, Vec<Found>), FormatError> {
            let (mut found, mut bytes) = (Vec::with_capacity(CHUNK), 0);
            while found.len() < CHUNK && bytes < CHUNK_BYTES {
                let Some(piece) = records.next()? else { break };
                let document = records.frame().wrap(&piece.bytes);
                bytes += document.len();
                found.push(Found { number: piece.number, document, wrong: piece.wrong.is_some() });
            }
            Ok((records, found))
        };
        tokio::task::spawn_blocking(read).await.map_err(panicked)?.map_err(|error| refused(&error))
    }

    /// A record as a document to be taken in: what the route's `key` makes of it, or else the file and its number there.
    fn record(&self, file: &TakenFile, found: Found) -> Intake {
        let digest = hex(file.digest.get(..6).unwrap_or_default());
        let origin =
            Origin { file: file.name.clone(), digest: digest.clone(), row: found.number, change: None };
        let named = self.route.plan.key.as_ref().and_then(|template| {
            let document = self.read(&found.document, None).ok()?;
            let cause = origin.tree();
            let scope = Scope {
                document: Some(&document),
                cause: Some(&cause),
                settings: Some(&self.route.instance.settings),
                ..Scope::default()
            };
            template.render(&scope).ok().filter(|key| !key.trim().is_empty())
        });
        let id = named.unwrap_or_else(|| format!("{}#{}@{digest}", shown(&file.name), found.number));
        Intake {
            key: Key::of(&self.route.id, &id),
            id,
            replay: 0,
            content_type: Some(origin.content_type(self.route.plan.format.media_type())),
            body: found.document,
        }
    }
}

enum Opening {
    Io(PathBuf, std::io::Error),
    Unwritable(PathBuf, std::io::Error),
    Format(FormatError),
}

fn opening(failed: Opening) -> Halt {
    match failed {
        Opening::Format(error) => refused(&error),
        Opening::Io(path, error) => lost(&path, &error),
        Opening::Unwritable(path, error) => Halt::Later(unwritable(&path, &error)),
    }
}

/// The file as a whole cannot be read.
pub(super) fn refused(error: &FormatError) -> Halt {
    Halt::Refused { code: error.code, why: error.to_string() }
}

pub(super) fn panicked(error: tokio::task::JoinError) -> Halt {
    Halt::Later(Failure::not_done(Code::StoreUnavailable, format!("reading a file was cut off: {error}")))
}

/// Our own copy cannot be read.
pub(super) fn lost(path: &Path, error: &std::io::Error) -> Halt {
    let what = format!("our copy of the file, {}, cannot be read: {error}", path.display());
    match error.kind() {
        std::io::ErrorKind::NotFound => Halt::Refused { code: Code::CannotReadFile, why: what },
        _ => Halt::Later(Failure::not_done(Code::CannotReadFile, what)),
    }
}

fn read_point(text: &str) -> Result<Point, Halt> {
    serde_json::from_str(text).map_err(|error| {
        let what = format!("the point up to which the file has been read cannot be read: {error}");
        Halt::Later(Failure::not_done(Code::StoreUnavailable, what))
    })
}

fn written_point(point: &Point) -> Result<String, Halt> {
    serde_json::to_string(point)
        .map_err(|error| Halt::Later(Failure::not_done(Code::StoreUnavailable, error.to_string())))
}
