//! Picking files up: seen, complete, copied to our disk and written down, read, and only then put where they belong in the
//! system. From the moment a file is written down it is ours: a crash goes on with our copy, at the record it had reached.
//!
//! What becomes of the records of a file: [`super::split`]; of an extract that is compared: [`super::extract`].

use super::{Collector, now};
use crate::{
    code::Code,
    config::plan::{Complete, Pickup, PickupThen, Source},
    event::hex,
    retry::Delays,
    store::{FileEnd, FileState, NewFile, SameAs, StoreError, TakenFile, Took},
    system::{
        System,
        files::{FileSystem, Listed},
    },
    template::Template,
    verdict::Failure,
};
use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use tracing::{error, info, warn};

/// The ending of a copy's text in UTF-8, where the file came in UTF-16.
pub(super) const NARROWED: &str = "utf8";
/// How many files of one folder are looked at.
const MOST_FILES: usize = 100_000;
/// How often it is looked whether a person has decided on a file.
pub(super) const LOOK: Duration = Duration::from_secs(1);

/// Why a file is not read on.
#[derive(Debug)]
pub(super) enum Halt {
    /// We are stopping; or something failed that need not fail the next time.
    Later(Failure),
    /// Nothing of the file counts.
    Refused { code: Code, why: String },
    /// A person must look first.
    Held { code: Code, why: String },
}

impl From<StoreError> for Halt {
    fn from(error: StoreError) -> Halt {
        Halt::Later(Failure::not_done(error.code, error.what))
    }
}

/// What was seen of a folder the last time.
#[derive(Default)]
struct Seen {
    /// Files that are waited for: size, time, and since when these have not changed.
    files: HashMap<String, (u64, Option<i64>, Instant)>,
    /// What was said of the folder.
    warned: String,
}

impl Collector {
    /// Picks files up until it is stopped.
    pub(super) async fn picking_up(self: Arc<Self>) {
        let (Source::Pickup(pickup), System::Files(files)) = (&self.route.plan.source, &*self.system) else {
            return;
        };
        let every = self.route.pace.first().copied().unwrap_or(pickup.every);
        let mut delays = Delays::new(Duration::from_secs(1), every.max(Duration::from_secs(60)));
        let mut seen = Seen::default();
        let mut next_look = Instant::now();
        while let Some(_ticket) = self.keeper.pass(&self.stop).await {
            if let Some(failure) = files.stopped() {
                error!(route = self.route.id, code = %failure.code, "no file is picked up any more: {}", failure.what);
                return;
            }
            match self.round(pickup, files, &mut seen, &mut next_look, every).await {
                Ok(()) => {
                    delays.reset();
                    self.pause(next_look.saturating_duration_since(Instant::now()).min(LOOK)).await;
                }
                Err(_) if self.stop.is_cancelled() => return,
                Err(failure) => {
                    warn!(route = self.route.id, code = %failure.code, "files wait: {}", failure.what);
                    self.pause(delays.delay()).await;
                }
            }
        }
    }

    /// Goes on with the files we have, and looks for new ones when it is time.
    async fn round(
        &self,
        pickup: &Pickup,
        files: &FileSystem,
        seen: &mut Seen,
        next_look: &mut Instant,
        every: Duration,
    ) -> Result<(), Failure> {
        self.carry_files(Some((pickup, files))).await?;
        if Instant::now() < *next_look {
            return Ok(());
        }
        self.look_for_files(pickup, files, seen).await?;
        // One that is only waited for to be still is looked at again as soon as it may be.
        let soon = match (&pickup.complete, seen.files.is_empty()) {
            (Complete::Still(still), false) => every.min(*still).max(Duration::from_millis(100)),
            (Complete::Still(_) | Complete::Marker(_), _) => every,
        };
        *next_look = Instant::now() + soon;
        self.carry_files(Some((pickup, files))).await
    }

    /// Reads on what is begun, oldest first, and tells the source, where there is one, of what has ended.
    pub(super) async fn carry_files(&self, source: Option<(&Pickup, &FileSystem)>) -> Result<(), Failure> {
        for mut file in self.store.open_files(self.number).await.map_err(of_store)? {
            if file.state.is_open() {
                if let Some((pickup, files)) = source {
                    self.copy_again(pickup, files, &file).await?;
                }
                let end = match self.read_file(&file).await {
                    Ok(why) => FileEnd::Done { why },
                    Err(Halt::Later(failure)) => return Err(failure),
                    Err(Halt::Refused { code, why }) => {
                        self.metrics.count(&self.route.id, "file refused", 1);
                        error!(route = self.route.id, file = file.name, code = %code, "a file is refused as a whole: {why}");
                        FileEnd::Refused { code: code.as_str().to_owned(), why }
                    }
                    Err(Halt::Held { code, why }) => {
                        self.metrics.count(&self.route.id, "file held", 1);
                        error!(route = self.route.id, file = file.name, extract = file.n, code = %code, "a file waits for a person: {why}");
                        FileEnd::Held { code: code.as_str().to_owned(), why }
                    }
                };
                self.store.end_file(file.n, now(), end).await.map_err(of_store)?;
                crate::kill::point("files.ended");
                let Some(after) = self.store.file(file.n).await.map_err(of_store)? else { continue };
                if after.state == FileState::Done {
                    info!(
                        route = self.route.id,
                        file = file.name,
                        records = after.records,
                        bad = after.bad,
                        "a file is read"
                    );
                }
                file = after;
            }
            if !file.told {
                if let Some((pickup, files)) = source {
                    self.tell_source(pickup, files, &file).await?;
                }
                crate::kill::point("files.told");
                self.store.file_told(file.n).await.map_err(of_store)?;
            }
            if self.store.may_forget(file.digest).await.map_err(of_store)? {
                self.forget(&file.digest).await;
            }
        }
        Ok(())
    }

    /// Our copy of a file, by its digest.
    pub(super) fn copy_of(&self, digest: &[u8]) -> PathBuf {
        self.files.join(hex(digest))
    }

    /// Removes our copy of a file that nobody needs any more.
    pub(super) async fn forget(&self, digest: &[u8]) {
        let copy = self.copy_of(digest);
        let _ = tokio::fs::remove_file(copy.with_extension(NARROWED)).await;
        let _ = tokio::fs::remove_file(copy).await;
    }

    /// Takes every file that is complete and not ours yet, in the order of their names.
    async fn look_for_files(
        &self,
        pickup: &Pickup,
        files: &FileSystem,
        seen: &mut Seen,
    ) -> Result<(), Failure> {
        let folder = self.named(&pickup.folder, "folder")?;
        let pattern = self.named(&pickup.pattern, "pattern")?;
        let listing = files.list(&folder, MOST_FILES).await?;
        if let Some(warning) = listing.warning().filter(|warning| seen.warned != *warning) {
            warn!(route = self.route.id, code = %Code::BadFileName, "in the folder `{folder}`: {warning}");
            seen.warned = warning;
        }
        let listed = listing.files;
        let names: HashSet<&str> = listed.iter().map(|file| file.name.as_str()).collect();
        let mut wanted: Vec<&Listed> =
            listed.iter().filter(|file| fits(&pattern, &file.name, pickup.ignore_case)).collect();
        wanted.sort_by(|a, b| a.name.cmp(&b.name));
        seen.files.retain(|name, _| names.contains(name.as_str()));
        for file in wanted {
            let complete = match &pickup.complete {
                Complete::Marker(marker) => names.contains(marker.replace("{name}", &file.name).as_str()),
                Complete::Still(still) => {
                    let now = Instant::now();
                    let (size, modified, since) =
                        seen.files.entry(file.name.clone()).or_insert((file.size, file.modified, now));
                    if (*size, *modified) != (file.size, file.modified) {
                        (*size, *modified, *since) = (file.size, file.modified, now);
                    }
                    now.duration_since(*since) >= *still
                }
            };
            if !complete || self.has(pickup, file).await? {
                continue;
            }
            match self.take_file(pickup, files, &folder, file).await {
                Err(failure) if failure.code == Code::FileChanged => {
                    warn!(route = self.route.id, file = file.name, code = %failure.code,
                          "a file is not complete yet, it is taken when it is: {}", failure.what);
                }
                // One that can never be taken must not hold up the others.
                Err(failure) if failure.code == Code::FileTooLarge => {
                    self.keep_apart(pickup, files, &folder, file, &failure).await?;
                }
                taken => taken?,
            }
            seen.files.remove(&file.name);
            if self.stop.is_cancelled() {
                break;
            }
        }
        Ok(())
    }

    /// Whether a file that stays in the system is one we have.
    async fn has(&self, pickup: &Pickup, file: &Listed) -> Result<bool, Failure> {
        let known = self.store.file_named(self.number, file.name.clone()).await.map_err(of_store)?;
        Ok(known.is_some_and(|known| {
            let same = (known.size, known.modified) == (file.size, file.modified);
            same && (!known.told || matches!(pickup.then, PickupThen::Leave) && file.modified.is_some())
        }))
    }

    /// Copies a file to our disk and writes it down.
    async fn take_file(
        &self,
        pickup: &Pickup,
        files: &FileSystem,
        folder: &str,
        file: &Listed,
    ) -> Result<(), Failure> {
        let fetched_to = self.arriving().await?;
        let fetched = files.fetch(folder, &file.name, &fetched_to, pickup.limit).await?;
        crate::kill::point("files.fetched");
        if fetched.size != file.size {
            let what = format!(
                "{} had {} bytes when it was seen and {} when it was read",
                file.name, file.size, fetched.size
            );
            return Err(Failure::not_done(Code::FileChanged, what));
        }
        let modified = file.modified;
        let new = NewFile { name: file.name.clone(), digest: fetched.digest, size: fetched.size, modified };
        match self.write_down(&fetched_to, new).await? {
            Took::New(_) => {}
            Took::Known(known) if !known.told && known.name == file.name => {}
            Took::Known(known) => {
                warn!(route = self.route.id, file = file.name, code = %Code::FileTwice,
                      "the very bytes came before as {}; nothing of it is taken again", known.name);
                self.metrics.count(&self.route.id, "file duplicate", 1);
                let again = TakenFile { name: file.name.clone(), modified: file.modified, ..*known };
                self.tell_source(pickup, files, &again).await?;
                if self.store.may_forget(fetched.digest).await.map_err(of_store)? {
                    self.forget(&fetched.digest).await;
                }
            }
        }
        Ok(())
    }

    /// Copies a file that is begun once more if its copy is not on our disk: another bridge, which has ended, has it on its own.
    /// The file stays in the system until all of it is through; if it is gone or another one now, it is told when it is read.
    async fn copy_again(&self, pickup: &Pickup, files: &FileSystem, file: &TakenFile) -> Result<(), Failure> {
        let copy = self.copy_of(&file.digest);
        if tokio::fs::try_exists(&copy).await.map_err(|error| self.unwritable(&error))? {
            return Ok(());
        }
        let folder = self.named(&pickup.folder, "folder")?;
        if files.look(&folder, &file.name).await?.is_none_or(|there| there.size != file.size) {
            return Ok(());
        }
        let arriving = self.arriving().await?;
        let fetched = files.fetch(&folder, &file.name, &arriving, pickup.limit).await?;
        if fetched.digest == file.digest {
            warn!(
                route = self.route.id,
                file = file.name,
                "our copy of a file that is begun was gone: it is copied again"
            );
            tokio::fs::rename(&arriving, copy).await.map_err(|error| self.unwritable(&error))?;
        }
        Ok(())
    }

    /// Where a file is copied to before it is known what it is.
    pub(super) async fn arriving(&self) -> Result<PathBuf, Failure> {
        tokio::fs::create_dir_all(&self.files).await.map_err(|error| self.unwritable(&error))?;
        Ok(self.files.join(format!("{}.arriving", self.route.id)))
    }

    fn unwritable(&self, error: &std::io::Error) -> Failure {
        unwritable(&self.files, error)
    }

    /// Makes a file that has arrived ours: under its digest, and written down in the store.
    pub(super) async fn write_down(&self, arrived: &Path, new: NewFile) -> Result<Took, Failure> {
        tokio::fs::rename(arrived, self.copy_of(&new.digest))
            .await
            .map_err(|error| self.unwritable(&error))?;
        crate::kill::point("files.renamed");
        let same = if self.route.plan.compare.is_some() { SameAs::Last } else { SameAs::Any };
        let (name, size) = (new.name.clone(), new.size);
        let took = self.store.take_file(self.number, now(), same, new).await.map_err(of_store)?;
        crate::kill::point("files.taken");
        if let Took::New(n) = &took {
            info!(route = self.route.id, file = name, number = n, bytes = size, "a file is taken");
        }
        Ok(took)
    }

    /// Puts the file in the system where it belongs. One that has changed since is another file, and left alone.
    async fn tell_source(
        &self,
        pickup: &Pickup,
        files: &FileSystem,
        file: &TakenFile,
    ) -> Result<(), Failure> {
        let folder = self.named(&pickup.folder, "folder")?;
        let there = files.look(&folder, &file.name).await?;
        if there.is_none_or(|there| (there.size, there.modified) != (file.size, file.modified)) {
            return Ok(());
        }
        let (code, why) = (file.code.as_deref().unwrap_or_default(), file.why.as_deref().unwrap_or_default());
        match (file.state, &pickup.then) {
            (FileState::Refused, PickupThen::Archive(_) | PickupThen::Delete) => {
                let failed = self.named(&pickup.failed, "failed")?;
                note_reason(files, &failed, &file.name, code, why).await?;
                self.put_away(files, &folder, &failed, &file.name, &file.digest).await?;
            }
            (_, PickupThen::Archive(archive)) => {
                let archive = self.named(archive, "archive")?;
                self.put_away(files, &folder, &archive, &file.name, &file.digest).await?;
            }
            (_, PickupThen::Delete) => files.delete(&folder, &file.name).await?,
            (_, PickupThen::Leave) => return Ok(()),
        }
        if let Complete::Marker(marker) = &pickup.complete {
            let marker = marker.replace("{name}", &file.name);
            if files.look(&folder, &marker).await?.is_some() {
                files.delete(&folder, &marker).await?;
            }
        }
        Ok(())
    }

    /// Moves a file into another folder; beside one that has its name there already, under a name with its digest.
    async fn put_away(
        &self,
        files: &FileSystem,
        from: &str,
        to: &str,
        name: &str,
        digest: &[u8],
    ) -> Result<(), Failure> {
        match files.rename((from, name), (to, name)).await {
            Err(failure) if failure.code == Code::FileExists => {}
            moved => return moved,
        }
        let other = with_ending(name, &format!(".{}", hex(digest.get(..6).unwrap_or_default())));
        match files.rename((from, name), (to, &other)).await {
            // The very bytes are there.
            Err(failure) if failure.code == Code::FileExists => files.delete(from, name).await,
            moved => moved,
        }
    }

    /// A file that cannot be taken at all is put among the failures, with its reason.
    async fn keep_apart(
        &self,
        pickup: &Pickup,
        files: &FileSystem,
        folder: &str,
        file: &Listed,
        failure: &Failure,
    ) -> Result<(), Failure> {
        error!(route = self.route.id, file = file.name, code = %failure.code, "a file is not taken: {}", failure.what);
        self.metrics.count(&self.route.id, "file refused", 1);
        if let PickupThen::Leave = pickup.then {
            return Ok(());
        }
        let failed = self.named(&pickup.failed, "failed")?;
        note_reason(files, &failed, &file.name, failure.code.as_str(), &failure.what).await?;
        let moment = now().to_be_bytes();
        self.put_away(files, folder, &failed, &file.name, &moment).await
    }

    fn named(&self, template: &Template, field: &str) -> Result<String, Failure> {
        self.route
            .instance
            .render(template)
            .map_err(|failed| Failure::refused(Code::TemplateFailed, field, failed.0))
    }
}

/// Writes beside a file that is kept apart why.
async fn note_reason(
    files: &FileSystem,
    folder: &str,
    name: &str,
    code: &str,
    why: &str,
) -> Result<(), Failure> {
    let remedy = Code::parse(code).map(Code::remedy).unwrap_or_default();
    let note = format!("{code}: {why}\n\nWhat to do: {remedy}\n");
    files.write(folder, &with_ending(name, ".reason.txt"), note.as_bytes()).await
}

/// A name with something at its end; a long one is cut before it, since names hold 255 bytes.
fn with_ending(name: &str, ending: &str) -> String {
    let mut end = name.len().min(255 - ending.len().min(255));
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{ending}", name.get(..end).unwrap_or_default())
}

/// Our own disk does not take something.
pub(super) fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::not_done(Code::StoreUnavailable, format!("{} cannot be written: {error}", path.display()))
}

/// The store's failure as one of an attempt.
pub(super) fn of_store(error: StoreError) -> Failure {
    Failure::not_done(error.code, error.what)
}

/// Whether a name fits a pattern: `*` stands for any characters, `?` for one.
fn fits(pattern: &str, name: &str, ignore_case: bool) -> bool {
    let letters = |text: &str| -> Vec<char> {
        if ignore_case { text.to_lowercase().chars().collect() } else { text.chars().collect() }
    };
    let (pattern, name) = (letters(pattern), letters(name));
    let (mut p, mut n) = (0, 0);
    // Where the last `*` stood, and how much of the name it stands for so far.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(letter) if *letter == '?' || name.get(n) == Some(letter) => {
                p += 1;
                n += 1;
            }
            _ => match star {
                None => return false,
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    p = at + 1;
                    n = taken + 1;
                }
            },
        }
    }
    pattern.iter().skip(p).all(|letter| *letter == '*')
}

#[cfg(test)]
mod tests {
    use super::{fits, with_ending};

    #[test]
    fn a_long_name_makes_room_for_its_ending() {
        assert_eq!(with_ending("a.csv", ".reason.txt"), "a.csv.reason.txt");
        let long = with_ending(&"ü".repeat(127), ".reason.txt");
        assert!(long.len() <= 255 && long.ends_with("ü.reason.txt"), "{long}");
    }

    #[test]
    fn patterns_mean_what_a_shell_means() {
        for (pattern, name, is) in [
            ("*.csv", "a.csv", true),
            ("*.csv", "a.csv.part", false),
            ("a?c*", "abcdef", true),
            ("a?c*", "ac", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b", "abab", true),
            ("", "", true),
            ("*", "", true),
            ("?", "", false),
        ] {
            assert_eq!(fits(pattern, name, false), is, "{pattern} {name}");
        }
        assert!(fits("*.CSV", "a.csv", true) && !fits("*.CSV", "a.csv", false));
    }
}
