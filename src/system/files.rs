//! Files of a system, in a folder of this machine or over SFTP: what is there, fetching and putting whole files, moving and
//! deleting them. Knows names, bytes and digests; not what stands in a file, nor which files a route is for.
//!
//! What holds for both ways of reaching them, and is proved for both by one suite of tests:
//!
//! - A name is never a path. What a system lists under a name with `/`, `..`, a line break or the like is counted as refused
//!   ([`Listing`]) and nothing is ever opened by it.
//! - A file has its final name only when it is whole: [`FileSystem::fetch`] writes `<to>.part`, [`FileSystem::put`]
//!   `.<name>.part`, both counted and digested before the rename. What a crash leaves is replaced by the next try.
//! - Everything ends: each single answer has a time, a whole listing or copy has one too, and so have bytes.
//! - A failure says whether something may have been done. `put` and `rename` settle it by looking, where they can.

mod folder;
mod local;
mod name;
#[cfg(feature = "sftp")]
mod sftp;

pub use local::Incoming;
pub use name::{is_name, shown};

use crate::{
    code::Code,
    config::{Instance, plan::Files},
    verdict::Failure,
};
use std::{path::Path, sync::Arc, time::Duration};

/// Operations of one system under way at once; more wait for their turn.
const AT_ONCE: usize = 4;
/// A whole listing may take so many times as long as a single answer.
const LISTING: u32 = 4;
/// How many refused names are shown.
const SHOWN: usize = 5;

/// A file of a system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name, which is no path.
    pub name: String,
    /// Its bytes.
    pub size: u64,
    /// When it was changed, in milliseconds since 1970. SFTP knows whole seconds only.
    pub modified: Option<i64>,
}

/// What is in a folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// Regular files with good names, the first of them by name. Those that we or another Packhorse are still writing
    /// (`.<name>.part`) are not among them.
    pub files: Vec<Listed>,
    /// How many more there are.
    pub more: u64,
    /// How many have a name that is not used as a path.
    pub refused: u64,
    /// The first few of those names, escaped for people.
    pub refused_names: Vec<String>,
    /// How many are neither files nor folders: links, pipes, devices. They are never followed.
    pub others: u64,
}

impl Listing {
    /// What somebody should know about this folder: too many files, names that are refused.
    pub fn warning(&self) -> Option<String> {
        let mut said = Vec::new();
        if self.more > 0 {
            let all = self.files.len() as u64 + self.more;
            said.push(format!(
                "{all} files are there, of which the first {} are looked at",
                self.files.len()
            ));
        }
        if self.refused > 0 {
            let names = self.refused_names.join(", ");
            said.push(format!("{} have a name that is not used: {names}", self.refused));
        }
        (!said.is_empty()).then(|| said.join("; "))
    }
}

/// A file that has been fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fetched {
    /// Its bytes.
    pub size: u64,
    /// Their SHA-256.
    pub digest: [u8; 32],
}

/// What putting a file has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It is there now.
    Done,
    /// The same bytes were there under this name already.
    Already,
}

/// What is wanted of a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Files are read there, and stay as they are.
    Read,
    /// Files are written, moved or deleted there.
    Write,
}

/// Times of a system.
#[derive(Debug, Clone, Copy)]
struct Times {
    /// Of a single answer.
    answer: Duration,
    /// Of copying a whole file.
    transfer: Duration,
}

/// The files of a system.
pub struct FileSystem {
    place: Place,
}

enum Place {
    Folder(folder::Folder),
    #[cfg(feature = "sftp")]
    Sftp(Box<sftp::Sftp>),
}

/// Calls the same on whichever place it is.
macro_rules! at {
    ($self:ident, $place:ident => $call:expr) => {
        match &$self.place {
            Place::Folder($place) => $call,
            #[cfg(feature = "sftp")]
            Place::Sftp($place) => $call,
        }
    };
}

impl FileSystem {
    /// Makes ready. Nothing is looked at yet, and nothing is connected to.
    ///
    /// # Errors
    /// Settings that cannot work.
    pub fn open(instance: &Arc<Instance>, plan: &Files) -> Result<FileSystem, Failure> {
        let place = match plan {
            Files::Folder(plan) => Place::Folder(folder::Folder::open(instance, plan)?),
            #[cfg(feature = "sftp")]
            Files::Sftp(plan) => Place::Sftp(Box::new(sftp::Sftp::open(instance, plan)?)),
            #[cfg(not(feature = "sftp"))]
            Files::Sftp(_) => {
                let what = format!("{}: this packhorse was built without SFTP", instance.name);
                return Err(Failure::refused(Code::BadAddress, "sftp", what));
            }
        };
        Ok(FileSystem { place })
    }

    /// Why nothing is tried any more until a person has looked at it and the bridge is started anew: the server has shown
    /// another host key than the pinned ones. Every call then fails with the same words and connects nowhere.
    pub fn stopped(&self) -> Option<Failure> {
        match &self.place {
            Place::Folder(_) => None,
            #[cfg(feature = "sftp")]
            Place::Sftp(sftp) => sftp.stopped(),
        }
    }

    /// The files of a folder, which is relative to the system's own; `most` of them.
    ///
    /// # Errors
    /// The folder is not there or may not be read, or the system cannot be reached.
    pub async fn list(&self, folder: &str, most: usize) -> Result<Listing, Failure> {
        let folder = name::folder(folder)?;
        at!(self, place => place.list(&folder, most).await)
    }

    /// Fetches a file of at most so many bytes to a path of this machine, and flushes it to the disk with its folder. What is
    /// at the path is replaced. A connection that is lost in the middle leaves nothing under the path; the next try begins
    /// at the beginning.
    ///
    /// # Errors
    /// It is not there, may not be read, is too large, is not a regular file, or changes while it is read.
    pub async fn fetch(&self, folder: &str, name: &str, to: &Path, limit: u64) -> Result<Fetched, Failure> {
        let folder = name::folder(folder)?;
        name::file(name)?;
        at!(self, place => place.fetch(&folder, name, to, limit).await)
    }

    /// The file of this name, if there is one.
    ///
    /// # Errors
    /// The folder is not there, or what has this name is not a regular file.
    pub async fn look(&self, folder: &str, name: &str) -> Result<Option<Listed>, Failure> {
        let folder = name::folder(folder)?;
        name::file(name)?;
        at!(self, place => place.look(&folder, name).await)
    }

    /// Puts a file of this machine, whose bytes have this SHA-256, into a folder that is there already. It appears under its
    /// name at once and whole, or not at all.
    ///
    /// It may be called again after any failure: if the same bytes are there, nothing is done. Yet a system that takes
    /// files away as they come would get them twice, so a failure after which the file may have been there is
    /// [`Class::Unknown`](crate::verdict::Class::Unknown).
    ///
    /// # Errors
    /// Another file of that name is there, there is no room, the folder is missing or may not be written.
    pub async fn put(&self, folder: &str, name: &str, from: &Path, digest: [u8; 32]) -> Result<Put, Failure> {
        let folder = name::folder(folder)?;
        name::file(name)?;
        at!(self, place => place.put(&folder, name, from, digest).await)
    }

    /// Writes a small file at once and whole, replacing what was there. The folder is made if it is missing.
    ///
    /// # Errors
    /// There is no room, or the folder may not be written.
    pub async fn write(&self, folder: &str, name: &str, bytes: &[u8]) -> Result<(), Failure> {
        let folder = name::folder(folder)?;
        name::file(name)?;
        at!(self, place => place.write(&folder, name, bytes).await)
    }

    /// Moves a file to a name that is free. The folder it goes to is made if it is missing.
    ///
    /// # Errors
    /// It is not there, the name is taken, or the folders may not be written.
    pub async fn rename(&self, from: (&str, &str), to: (&str, &str)) -> Result<(), Failure> {
        let folders = (name::folder(from.0)?, name::folder(to.0)?);
        name::file(from.1)?;
        name::file(to.1)?;
        at!(self, place => place.rename((&folders.0, from.1), (&folders.1, to.1)).await)
    }

    /// Deletes a file. One that is not there is deleted already.
    ///
    /// # Errors
    /// It may not be deleted, or the folder is not there.
    pub async fn delete(&self, folder: &str, name: &str) -> Result<(), Failure> {
        let folder = name::folder(folder)?;
        name::file(name)?;
        at!(self, place => place.delete(&folder, name).await)
    }

    /// What is there, in a sentence, for `doctor`. If files are to be written, a small one is written and deleted again.
    ///
    /// # Errors
    /// What is in the way.
    pub async fn check(&self, need: Need) -> Result<String, Failure> {
        at!(self, place => place.check(need).await)
    }
}

/// A path below the system's own folder, for messages.
fn place(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

/// The first files of a folder by name, however many there are.
struct Gathering {
    most: usize,
    files: std::collections::BTreeMap<String, Listed>,
    listing: Listing,
}

impl Gathering {
    fn new(most: usize) -> Gathering {
        Gathering { most, files: Default::default(), listing: Listing::default() }
    }

    /// Whether a name is good and could be among the first: only then its size matters.
    fn wants(&mut self, name: Option<&str>, raw: impl FnOnce() -> String) -> bool {
        let good = name.filter(|name| is_name(name));
        let Some(name) = good else {
            self.listing.refused += 1;
            if self.listing.refused_names.len() < SHOWN {
                self.listing.refused_names.push(raw());
            }
            return false;
        };
        // Ours, or of another Packhorse, and not whole yet.
        !(name.starts_with('.') && name.ends_with(".part"))
    }

    fn add(&mut self, file: Listed) {
        self.files.insert(file.name.clone(), file);
        if self.files.len() > self.most {
            self.files.pop_last();
            self.listing.more += 1;
        }
    }

    fn other(&mut self) {
        self.listing.others += 1;
    }

    fn listing(self) -> Listing {
        Listing { files: self.files.into_values().collect(), ..self.listing }
    }
}

/// Failures that both ways have.
mod failure {
    use super::*;

    pub fn missing(what: &str) -> Failure {
        Failure::not_done(Code::FolderMissing, format!("{what} is not there"))
    }

    pub fn denied(what: &str) -> Failure {
        Failure::not_done(Code::AccessDenied, format!("our login has no permission for {what}"))
    }

    pub fn full(what: &str) -> Failure {
        Failure::not_done(Code::NoRoom, format!("there is no room for {what}"))
    }

    pub fn too_large(what: &str, size: u64, limit: u64) -> Failure {
        let what = format!("{what} has {size} bytes, and {limit} are allowed");
        Failure::refused(Code::FileTooLarge, "", what)
    }

    pub fn changed(what: &str, before: u64, now: u64) -> Failure {
        let said = match before == now {
            true => "was changed while it was read".to_owned(),
            false => format!("had {before} bytes when reading began and {now} when it ended"),
        };
        Failure::not_done(
            Code::FileChanged,
            format!("{what} {said}: somebody is still writing it, or it was replaced"),
        )
    }

    pub fn not_regular(what: &str) -> Failure {
        let what = format!("{what} is not a regular file; links, folders and devices are not followed");
        Failure::refused(Code::BadFileName, "", what)
    }

    pub fn taken(what: &str) -> Failure {
        Failure::refused(
            Code::FileExists,
            "",
            format!("another file is there under the name {what}; it is left as it is"),
        )
    }

    pub fn other_bytes(what: &str) -> Failure {
        let what =
            format!("the bytes of {what} are not those that were to be sent: the local file has changed");
        Failure::refused(Code::FileChanged, "", what)
    }

    pub fn silent(what: &str, time: Duration) -> Failure {
        Failure::away(
            Code::SystemUnreachable,
            format!("{what} did not answer within {}", crate::config::units::in_words(time)),
        )
    }

    #[cfg(feature = "sftp")]
    pub fn too_slow(what: &str, time: Duration) -> Failure {
        Failure::away(
            Code::SystemUnreachable,
            format!("{what} was not done within {}", crate::config::units::in_words(time)),
        )
    }

    /// A failure of our own disk, where a fetched file goes or one to be sent comes from.
    pub fn local(path: &Path, error: &std::io::Error) -> Failure {
        let code = match error.kind() {
            std::io::ErrorKind::StorageFull
            | std::io::ErrorKind::QuotaExceeded
            | std::io::ErrorKind::FileTooLarge => Code::StoreFull,
            _ => Code::StoreUnavailable,
        };
        Failure::not_done(code, format!("our own file {}: {error}", path.display()))
    }
}
