//! Files in a folder of this machine, or one that is mounted on it. A mounted folder may stop answering for ever: every
//! operation runs on a thread of its own, is waited for only so long, and a thread that hangs keeps its turn, so that they
//! do not pile up. Links are never followed as files, and never lead out of the folder.

use super::{AT_ONCE, Fetched, Gathering, LISTING, Listed, Listing, Need, Put, Times, failure, name, place};
use crate::{
    code::Code,
    config::{Instance, plan},
    verdict::Failure,
};
use ring::digest::{Context, SHA256};
use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};
use std::{
    fs::{self, File, Metadata, OpenOptions},
    io::{self, ErrorKind, Read as _, Write},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};
use tokio::{sync::Semaphore, time::timeout};

/// Bytes copied at once.
const CHUNK: usize = 128 << 10;

/// A folder.
pub struct Folder {
    root: PathBuf,
    times: Times,
    turns: Arc<Semaphore>,
}

/// Who decides whether something still happens: the one who waits, or the one who works.
const WORKING: u8 = 0;
const COMMITTING: u8 = 1;
const ABANDONED: u8 = 2;

/// A piece of work that somebody waits for, and may stop waiting for.
#[derive(Clone)]
struct Job(Arc<AtomicU8>);

impl Job {
    /// Whether nobody waits any more.
    fn go_on(&self) -> Result<(), Failure> {
        match self.0.load(Ordering::SeqCst) {
            ABANDONED => Err(Failure::away(Code::SystemUnreachable, "given up")),
            _ => Ok(()),
        }
    }

    /// From here on it is done even if nobody waits; fails if nobody does.
    fn commit(&self) -> Result<(), Failure> {
        match self.0.compare_exchange(WORKING, COMMITTING, Ordering::SeqCst, Ordering::SeqCst) {
            Ok(_) | Err(COMMITTING) => Ok(()),
            Err(_) => Err(Failure::away(Code::SystemUnreachable, "given up")),
        }
    }

    /// Nobody waits any more; whether it may happen all the same.
    fn abandon(&self) -> bool {
        self.0.compare_exchange(WORKING, ABANDONED, Ordering::SeqCst, Ordering::SeqCst).is_err()
    }
}

/// Abandons the job when the waiting ends, by a time-out or because the waiter was dropped.
struct Waiting(Job);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

impl Folder {
    /// Makes ready; looks at nothing.
    ///
    /// # Errors
    /// The path is empty.
    pub fn open(instance: &Arc<Instance>, plan: &plan::Folder) -> Result<Folder, Failure> {
        let root = instance
            .render(&plan.path)
            .map_err(|failed| Failure::refused(Code::TemplateFailed, "path", failed.0))?;
        if root.is_empty() {
            let what = format!("{}: the folder has no path", instance.name);
            return Err(Failure::refused(Code::MissingSetting, "path", what));
        }
        let times = Times { answer: plan.timeout, transfer: plan.transfer_timeout };
        Ok(Folder { root: instance.path(&root), times, turns: Arc::new(Semaphore::new(AT_ONCE)) })
    }

    /// Does something on a thread that may block, and waits so long for it.
    async fn work<T: Send + 'static>(
        &self,
        time: Duration,
        work: impl FnOnce(&Path, &Job) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let root = self.root.clone();
        let what = format!("the folder {}", root.display());
        let Ok(turn) = timeout(time, self.turns.clone().acquire_owned()).await else {
            return Err(failure::silent(&what, time));
        };
        let job = Job(Arc::default());
        let waiting = Waiting(job.clone());
        let thread = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work(&root, &job)
        });
        match timeout(time, thread).await {
            Ok(Ok(result)) => result,
            Ok(Err(error)) => Err(Failure::not_done(Code::SystemFails, format!("{what}: {error}"))),
            Err(_) if waiting.0.abandon() => Err(Failure::unknown(format!(
                "{what} did not answer within {} when the file was to get its name",
                crate::config::units::in_words(time)
            ))),
            Err(_) => Err(failure::silent(&what, time)),
        }
    }

    pub async fn list(&self, folder: &str, most: usize) -> Result<Listing, Failure> {
        let folder = folder.to_owned();
        self.work(self.times.answer * LISTING, move |root, job| {
            let inside = inside(root, &folder)?;
            let mut gathering = Gathering::new(most);
            for entry in fs::read_dir(&inside).map_err(|error| failed(&shown(root, &folder), &error))? {
                job.go_on()?;
                let entry = entry.map_err(|error| failed(&shown(root, &folder), &error))?;
                let kind = match entry.file_type() {
                    Ok(kind) if kind.is_dir() => continue,
                    Ok(kind) => kind,
                    // Gone since: it is not there any more.
                    Err(error) if error.kind() == ErrorKind::NotFound => continue,
                    Err(error) => return Err(failed(&shown(root, &folder), &error)),
                };
                if !kind.is_file() {
                    gathering.other();
                    continue;
                }
                let raw = entry.file_name();
                let name = raw.to_str();
                if !gathering.wants(name, || name::shown(&raw.to_string_lossy())) {
                    continue;
                }
                match entry.metadata() {
                    Ok(found) => gathering.add(listed(name.unwrap_or_default(), &found)),
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => return Err(failed(&shown(root, &folder), &error)),
                }
            }
            Ok(gathering.listing())
        })
        .await
    }

    pub async fn fetch(&self, folder: &str, name: &str, to: &Path, limit: u64) -> Result<Fetched, Failure> {
        let (folder, name, to) = (folder.to_owned(), name.to_owned(), to.to_owned());
        self.work(self.times.transfer, move |root, job| {
            let what = shown(root, &place(&folder, &name));
            let path = inside(root, &folder)?.join(&name);
            let mut from = regular(&path, &what)?;
            let before = from.metadata().map_err(|error| failed(&what, &error))?;
            if before.len() > limit {
                return Err(failure::too_large(&what, before.len(), limit));
            }
            let mut local = super::local::Incoming::create(&to, limit)?;
            let mut buffer = vec![0; CHUNK];
            loop {
                job.go_on()?;
                let count = from.read(&mut buffer).map_err(|error| failed(&what, &error))?;
                let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else { break };
                local.write(bytes, &what)?;
            }
            // By its name, not by our handle: it may have been replaced since.
            let now = fs::symlink_metadata(&path).map_err(|error| failed(&what, &error))?;
            let same = now.ino() == before.ino()
                && now.len() == before.len()
                && now.mtime() == before.mtime()
                && now.mtime_nsec() == before.mtime_nsec();
            if !same || local.size() != before.len() {
                return Err(failure::changed(&what, before.len(), now.len().max(local.size())));
            }
            job.commit()?;
            local.finish()
        })
        .await
    }

    pub async fn look(&self, folder: &str, name: &str) -> Result<Option<Listed>, Failure> {
        let (folder, name) = (folder.to_owned(), name.to_owned());
        self.work(self.times.answer, move |root, _| {
            let what = shown(root, &place(&folder, &name));
            found(&inside(root, &folder)?.join(&name), &name, &what)
        })
        .await
    }

    pub async fn put(&self, folder: &str, name: &str, from: &Path, digest: [u8; 32]) -> Result<Put, Failure> {
        let (folder, name, from) = (folder.to_owned(), name.to_owned(), from.to_owned());
        self.work(self.times.transfer, move |root, job| {
            let what = shown(root, &place(&folder, &name));
            let inside = inside(root, &folder)?;
            let path = inside.join(&name);
            if let Some(there) = found(&path, &name, &what)? {
                return already(&path, &there, &from, digest, &what, job);
            }
            let mut local = File::open(&from).map_err(|error| failure::local(&from, &error))?;
            let part = Part::create(inside.join(format!(".{name}.part")), &what)?;
            let (mut context, mut size, mut buffer) = (Context::new(&SHA256), 0, vec![0; CHUNK]);
            loop {
                job.go_on()?;
                let count = local.read(&mut buffer).map_err(|error| failure::local(&from, &error))?;
                let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else { break };
                context.update(bytes);
                (&part.file).write_all(bytes).map_err(|error| failed(&what, &error))?;
                size += count as u64;
            }
            if context.finish().as_ref() != digest {
                return Err(failure::other_bytes(&what));
            }
            part.finish(&path, size, Replace::Never, &what, job)?;
            Ok(Put::Done)
        })
        .await
    }

    pub async fn write(&self, folder: &str, name: &str, bytes: &[u8]) -> Result<(), Failure> {
        let (folder, name, bytes) = (folder.to_owned(), name.to_owned(), bytes.to_owned());
        self.work(self.times.answer, move |root, job| {
            let what = shown(root, &place(&folder, &name));
            let inside = made(root, &folder)?;
            let part = Part::create(inside.join(format!(".{name}.part")), &what)?;
            (&part.file).write_all(&bytes).map_err(|error| failed(&what, &error))?;
            part.finish(&inside.join(&name), bytes.len() as u64, Replace::Always, &what, job)
        })
        .await
    }

    pub async fn rename(&self, from: (&str, &str), to: (&str, &str)) -> Result<(), Failure> {
        let (from, to) = ((from.0.to_owned(), from.1.to_owned()), (to.0.to_owned(), to.1.to_owned()));
        self.work(self.times.answer, move |root, job| {
            let (old, new) = (shown(root, &place(&from.0, &from.1)), shown(root, &place(&to.0, &to.1)));
            let source = inside(root, &from.0)?.join(&from.1);
            if found(&source, &from.1, &old)?.is_none() {
                return Err(failure::missing(&old));
            }
            let folder = made(root, &to.0)?;
            job.commit()?;
            move_to_free(&source, &folder.join(&to.1), &new)?;
            flush_folder(&folder)
                .and_then(|()| source.parent().map_or(Ok(()), flush_folder))
                .map_err(|error| failed(&new, &error))
        })
        .await
    }

    pub async fn delete(&self, folder: &str, name: &str) -> Result<(), Failure> {
        let (folder, name) = (folder.to_owned(), name.to_owned());
        self.work(self.times.answer, move |root, job| {
            let what = shown(root, &place(&folder, &name));
            let folder = inside(root, &folder)?;
            let path = folder.join(&name);
            if found(&path, &name, &what)?.is_none() {
                return Ok(());
            }
            job.commit()?;
            match fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => Err(failed(&what, &error)),
                Ok(()) | Err(_) => flush_folder(&folder).map_err(|error| failed(&what, &error)),
            }
        })
        .await
    }

    pub async fn check(&self, need: Need) -> Result<String, Failure> {
        self.work(self.times.answer, move |root, _| {
            let what = format!("the folder {}", root.display());
            let inside = inside(root, "")?;
            // One entry shows that it may be read; there may be very many.
            fs::read_dir(&inside)
                .and_then(|mut entries| entries.next().transpose())
                .map_err(|error| failed(&what, &error))?;
            if need == Need::Read {
                return Ok(format!("{what} can be read"));
            }
            let part = Part::create(inside.join(".packhorse-check.part"), &what)?;
            (&part.file).write_all(b"written by packhorse doctor").map_err(|error| failed(&what, &error))?;
            Ok(format!("{what} can be read and written"))
        })
        .await
    }
}

/// The folder below the root, links resolved: it is there and not outside.
fn inside(root: &Path, folder: &str) -> Result<PathBuf, Failure> {
    let real = |path: &Path| {
        let path = fs::canonicalize(path)
            .map_err(|error| failed(&format!("the folder {}", path.display()), &error))?;
        Ok::<PathBuf, Failure>(path)
    };
    let root_itself = real(root)?;
    let path = real(&root.join(folder))?;
    if !path.starts_with(&root_itself) {
        let what = format!("the folder {} leads out of {}", root.join(folder).display(), root.display());
        return Err(Failure::refused(Code::BadFileName, "", what));
    }
    if !path.is_dir() {
        return Err(Failure::not_done(Code::FolderMissing, format!("{} is not a folder", path.display())));
    }
    Ok(path)
}

/// The same, made if it is missing, but never the root itself: an unmounted folder must not be filled.
fn made(root: &Path, folder: &str) -> Result<PathBuf, Failure> {
    let mut so_far = String::new();
    let mut path = inside(root, "")?;
    for part in folder.split('/').filter(|part| !part.is_empty()) {
        so_far = place(&so_far, part);
        match fs::create_dir(path.join(part)) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(failed(&format!("the folder {}", shown(root, &so_far)), &error));
            }
            Ok(()) | Err(_) => path = inside(root, &so_far)?,
        }
    }
    Ok(path)
}

/// A regular file, opened without following a link.
fn regular(path: &Path, what: &str) -> Result<File, Failure> {
    let found = fs::symlink_metadata(path).map_err(|error| failed(what, &error))?;
    if !found.is_file() {
        return Err(failure::not_regular(what));
    }
    // Without waiting for a pipe that was put in its place since.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags as i32)
        .open(path)
        .map_err(|error| failed(what, &error))?;
    match file.metadata() {
        Ok(opened) if opened.is_file() => Ok(file),
        Ok(_) => Err(failure::not_regular(what)),
        Err(error) => Err(failed(what, &error)),
    }
}

fn found(path: &Path, name: &str, what: &str) -> Result<Option<Listed>, Failure> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_file() => Ok(Some(listed(name, &found))),
        Ok(_) => Err(failure::not_regular(what)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(what, &error)),
    }
}

fn listed(name: &str, found: &Metadata) -> Listed {
    let modified = found.modified().ok().map(|at| match at.duration_since(std::time::UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |before| -before),
    });
    Listed { name: name.to_owned(), size: found.len(), modified }
}

/// A file is there under the name: the same bytes, or others.
fn already(
    path: &Path,
    there: &Listed,
    from: &Path,
    digest: [u8; 32],
    what: &str,
    job: &Job,
) -> Result<Put, Failure> {
    let size = fs::metadata(from).map_err(|error| failure::local(from, &error))?.len();
    if there.size != size {
        return Err(failure::taken(what));
    }
    let mut file = regular(path, what)?;
    let (mut context, mut buffer) = (Context::new(&SHA256), vec![0; CHUNK]);
    loop {
        job.go_on()?;
        let count = file.read(&mut buffer).map_err(|error| failed(what, &error))?;
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else { break };
        context.update(bytes);
    }
    if context.finish().as_ref() == digest { Ok(Put::Already) } else { Err(failure::taken(what)) }
}

/// Whether a file of the name is replaced.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Replace {
    Never,
    Always,
}

/// A file under its provisional name; deleted unless it is finished.
struct Part {
    file: File,
    path: PathBuf,
}

impl Part {
    /// A new one. What a crash has left under the name goes.
    fn create(path: PathBuf, what: &str) -> Result<Part, Failure> {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(what, &error)),
            Ok(()) | Err(_) => {}
        }
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(|error| failed(what, &error))?;
        Ok(Part { file, path })
    }

    /// On the disk, as large as it must be, and under its name.
    fn finish(self, to: &Path, size: u64, replace: Replace, what: &str, job: &Job) -> Result<(), Failure> {
        self.file.sync_all().map_err(|error| failed(what, &error))?;
        let there = self.file.metadata().map_err(|error| failed(what, &error))?.len();
        if there != size {
            let what = format!("{what}: {size} bytes were written and {there} are there");
            return Err(Failure::not_done(Code::SystemFails, what));
        }
        job.commit()?;
        match replace {
            Replace::Never => move_to_free(&self.path, to, what)?,
            Replace::Always => fs::rename(&self.path, to).map_err(|error| failed(what, &error))?,
        }
        to.parent().map_or(Ok(()), flush_folder).map_err(|error| failed(what, &error))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // After a rename nothing is there any more.
        let _ = fs::remove_file(&self.path);
    }
}

/// Renames to a name that is free; the kernel looks, where the file system lets it.
fn move_to_free(from: &Path, to: &Path, what: &str) -> Result<(), Failure> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE).map_err(io::Error::from) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Err(failure::taken(what)),
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => {}
        Err(error) => return Err(failed(what, &error)),
    }
    match fs::symlink_metadata(to) {
        Ok(_) => Err(failure::taken(what)),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            fs::rename(from, to).map_err(|error| failed(what, &error))
        }
        Err(error) => Err(failed(what, &error)),
    }
}

fn flush_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        // Some mounted file systems know no flushing of folders.
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => Ok(()),
        result => result,
    }
}

fn shown(root: &Path, place: &str) -> String {
    root.join(place).display().to_string()
}

/// What a failure of the system's folder means.
fn failed(what: &str, error: &io::Error) -> Failure {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => failure::missing(what),
        ErrorKind::PermissionDenied => failure::denied(what),
        ErrorKind::ReadOnlyFilesystem => {
            Failure::not_done(Code::AccessDenied, format!("{what} is on a file system that is read-only"))
        }
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => failure::full(what),
        ErrorKind::CrossesDevices => Failure::refused(
            Code::AccessDenied,
            "",
            format!("{what} is on another file system: files are moved within one only"),
        ),
        ErrorKind::InvalidFilename => Failure::refused(
            Code::BadFileName,
            "",
            format!("{what}: the file system does not take this name"),
        ),
        _ => Failure::not_done(Code::SystemFails, format!("{what}: {error}")),
    }
}
