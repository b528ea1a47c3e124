//! Files over SFTP (version 3, as OpenSSH and everybody else speaks it). One session for all routes of an instance, opened when
//! it is first needed and anew when it was lost, with growing pauses between tries that fail.
//!
//! A session that turns out to be lost is replaced once within an operation, since servers close those that were idle; a copy
//! then begins at the beginning. A rename that was sent and not answered is settled by looking.

mod copy;
mod session;

use super::{
    AT_ONCE, Fetched, Gathering, LISTING, Listed, Listing, Need, Put, Times, failure, local::Incoming, name,
    place,
};
use crate::{
    code::Code,
    config::{Instance, host_keys, plan},
    retry::Delays,
    template::Template,
    verdict::{Class, Failure},
};
use russh_sftp::{
    client::error::Error,
    protocol::{FileAttributes, OpenFlags, Packet, StatusCode},
};
use session::Session;
use std::{
    path::Path,
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::{
    sync::{Mutex, Semaphore},
    time::{Instant, timeout},
};
use tracing::error;

/// A folder on a server.
pub struct Sftp {
    settings: Settings,
    turns: Semaphore,
    connection: Mutex<Connection>,
    stopped: OnceLock<Failure>,
}

/// What is needed to reach a server.
struct Settings {
    instance: Arc<Instance>,
    host: String,
    port: u16,
    username: String,
    key: Option<String>,
    password: Option<String>,
    pinned: Arc<[String]>,
    folder: String,
    connect: Duration,
    times: Times,
}

impl Settings {
    /// The server, for messages.
    fn name(&self) -> String {
        format!("the SFTP server {}:{}", self.host, self.port)
    }
}

struct Connection {
    session: Option<Arc<Session>>,
    /// After a try that failed: when the next one may be, and what went wrong.
    failed: Option<(Instant, Failure)>,
    delays: Delays,
    /// After a refused login, longer: servers lock accounts.
    login_delays: Delays,
}

/// What can go wrong on the wire.
enum Trouble {
    /// The connection is gone.
    Lost(String),
    /// An answer has not come in time: the connection is not used any more.
    Silent,
    /// The server said no.
    Status(StatusCode, String),
    /// It has no host key of the kinds that we take.
    NoCommonAlgorithm,
    /// Its host key is not pinned.
    HostKey(String),
    /// Known already what it means.
    Failure(Failure),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Trouble {
        match error {
            Error::Status(status) => match status.status_code {
                StatusCode::NoConnection | StatusCode::ConnectionLost => Trouble::Lost(status.error_message),
                StatusCode::Ok
                | StatusCode::Eof
                | StatusCode::NoSuchFile
                | StatusCode::PermissionDenied
                | StatusCode::Failure
                | StatusCode::BadMessage
                | StatusCode::OpUnsupported => Trouble::Status(status.status_code, status.error_message),
            },
            Error::Timeout => Trouble::Silent,
            Error::IO(_) | Error::Limited(_) | Error::UnexpectedPacket | Error::UnexpectedBehavior(_) => {
                Trouble::Lost(error.to_string())
            }
        }
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Trouble {
        Trouble::Failure(failure)
    }
}

impl Trouble {
    /// With what the server's status is about.
    fn on(self, what: &str) -> Trouble {
        match self {
            Trouble::Status(code, said) => Trouble::Failure(match code {
                StatusCode::NoSuchFile => failure::missing(what),
                StatusCode::PermissionDenied => failure::denied(what),
                StatusCode::Ok
                | StatusCode::Eof
                | StatusCode::Failure
                | StatusCode::BadMessage
                | StatusCode::NoConnection
                | StatusCode::ConnectionLost
                | StatusCode::OpUnsupported => {
                    let said: String = said.chars().filter(|c| !c.is_control()).take(120).collect();
                    Failure::not_done(Code::SystemFails, format!("{what}: the server answers {code}: {said}"))
                }
            }),
            other => other,
        }
    }

    fn is(&self, wanted: StatusCode) -> bool {
        matches!(self, Trouble::Status(code, _) if *code == wanted)
    }
}

/// Does something on a session within a time; on a lost one that was open before, once more on a new one.
macro_rules! on {
    ($self:ident, $time:expr, $session:ident => $work:expr) => {{
        let time: Duration = $time;
        let what = $self.settings.name();
        let turn = timeout(time, $self.turns.acquire()).await;
        let _turn = turn.map_err(|_| failure::too_slow(&format!("{what}: other work"), time))?;
        let mut again = true;
        loop {
            let ($session, fresh) = $self.session().await?;
            let result: Result<_, Trouble> = match timeout(time, async { $work }).await {
                Ok(result) => result,
                Err(_) => {
                    $session.give_up();
                    break Err(failure::too_slow(&format!("what was asked of {what}"), time));
                }
            };
            match result {
                Ok(done) => break Ok(done),
                Err(Trouble::Lost(_)) if again && !fresh => {
                    $session.give_up();
                    again = false;
                }
                Err(trouble) => break Err($self.failed(&$session, trouble)),
            }
        }
    }};
}

impl Sftp {
    /// Makes ready; connects nowhere yet.
    ///
    /// # Errors
    /// Settings that cannot work.
    pub fn open(instance: &Arc<Instance>, plan: &plan::Sftp) -> Result<Sftp, Failure> {
        let text = |template: &Template, field: &str| {
            instance
                .render(template)
                .map_err(|failed| Failure::refused(Code::TemplateFailed, field, failed.0))
        };
        let bad = |code, field: &str, what: String| {
            Failure::refused(code, field, format!("{}: {what}", instance.name))
        };
        let (host, port) = host_keys::host(&text(&plan.address, "address")?)
            .map_err(|what| bad(Code::BadAddress, "address", what))?;
        let pinned = host_keys::fingerprints(&text(&plan.host_keys, "host_keys")?)
            .map_err(|what| bad(Code::BadFingerprint, "host_keys", what))?;
        let folder = plan.folder.as_ref().map_or(Ok(String::new()), |folder| text(folder, "folder"))?;
        let settings = Settings {
            host,
            port,
            username: text(&plan.username, "username")?,
            key: plan.key.clone(),
            password: plan.password.clone(),
            pinned: pinned.into(),
            folder,
            connect: plan.connect_timeout,
            times: Times { answer: plan.timeout, transfer: plan.transfer_timeout },
            instance: instance.clone(),
        };
        let connection = Connection {
            session: None,
            failed: None,
            delays: Delays::new(Duration::from_secs(1), Duration::from_secs(60)),
            login_delays: Delays::new(Duration::from_secs(60), Duration::from_secs(900)),
        };
        Ok(Sftp {
            settings,
            turns: Semaphore::new(AT_ONCE),
            connection: Mutex::new(connection),
            stopped: OnceLock::new(),
        })
    }

    /// Why nothing is tried any more.
    pub fn stopped(&self) -> Option<Failure> {
        self.stopped.get().cloned()
    }

    /// The session, and whether it has been opened just now.
    async fn session(&self) -> Result<(Arc<Session>, bool), Failure> {
        if let Some(stopped) = self.stopped.get() {
            return Err(stopped.clone());
        }
        let mut connection = self.connection.lock().await;
        if let Some(session) = connection.session.as_ref().filter(|session| session.is_alive()) {
            return Ok((session.clone(), false));
        }
        connection.session = None;
        if let Some((next, failure)) = &connection.failed
            && Instant::now() < *next
        {
            return Err(failure.clone());
        }
        match Session::open(&self.settings).await {
            Ok(session) => {
                let session = Arc::new(session);
                connection.session = Some(session.clone());
                connection.failed = None;
                connection.delays.reset();
                connection.login_delays.reset();
                Ok((session, true))
            }
            Err(trouble) => {
                let failure = self.meaning(trouble);
                let delay = match failure.code {
                    Code::LoginRefused => connection.login_delays.delay(),
                    _ => connection.delays.delay(),
                };
                connection.failed = Some((Instant::now() + delay, failure.clone()));
                Err(failure)
            }
        }
    }

    /// What went wrong on a session means; one that is silent or lost is not used again.
    fn failed(&self, session: &Session, trouble: Trouble) -> Failure {
        if matches!(trouble, Trouble::Lost(_) | Trouble::Silent) {
            session.give_up();
        }
        self.meaning(trouble)
    }

    fn meaning(&self, trouble: Trouble) -> Failure {
        let name = self.settings.name();
        match trouble.on(&name) {
            Trouble::Lost(what) => {
                Failure::away(Code::SystemUnreachable, format!("the connection to {name} was lost: {what}"))
            }
            Trouble::Silent => failure::silent(&name, self.settings.times.answer),
            Trouble::NoCommonAlgorithm => Failure::away(
                Code::SystemUnreachable,
                format!("{name} and we have no kind of host key, key exchange or cipher in common"),
            ),
            Trouble::HostKey(what) => {
                let failure = Failure::not_done(Code::HostKeyChanged, what);
                if self.stopped.set(failure.clone()).is_ok() {
                    error!(system = self.settings.instance.name, code = %failure.code, "stopped: {}", failure.what);
                }
                failure
            }
            Trouble::Failure(failure) => failure,
            // `on` has made a failure of it.
            Trouble::Status(code, _) => {
                Failure::not_done(Code::SystemFails, format!("{name} answers {code}"))
            }
        }
    }

    fn shown(&self, place: &str) -> String {
        format!("{place} on {}", self.settings.name())
    }

    pub async fn list(&self, folder: &str, most: usize) -> Result<Listing, Failure> {
        on!(self, self.settings.times.answer * LISTING, session => {
            let path = path(&session.root, folder, "");
            let what = self.shown(&format!("the folder {path}"));
            let handle = session.raw.opendir(&path).await.map_err(|error| Trouble::from(error).on(&what))?.handle;
            let mut gathering = Gathering::new(most);
            let result = loop {
                let batch = match session.raw.readdir(&handle).await.map_err(Trouble::from) {
                    Ok(batch) => batch,
                    Err(trouble) if trouble.is(StatusCode::Eof) => break Ok(()),
                    Err(trouble) => break Err(trouble.on(&what)),
                };
                batch.files.iter().for_each(|file| gather(&mut gathering, file));
            };
            close(&session, &handle).await;
            result.map(|()| gathering.listing())
        })
    }

    pub async fn fetch(&self, folder: &str, name: &str, to: &Path, limit: u64) -> Result<Fetched, Failure> {
        on!(self, self.settings.times.transfer, session => {
            let path = path(&session.root, folder, name);
            let what = self.shown(&path);
            let before = regular(&session, &path, &what).await?;
            let size = size(&before, &what)?;
            if size > limit {
                return Err(failure::too_large(&what, size, limit).into());
            }
            let mut local = Incoming::create(to, limit)?;
            let handle = open(&session, &path, OpenFlags::READ, &what).await?;
            let result = copy::read(&session, &handle, size, &what, |bytes| local.write(bytes, &what)).await;
            close(&session, &handle).await;
            result?;
            // By its name: it may have been replaced since.
            let now = regular(&session, &path, &what).await?;
            if now.size != before.size || now.mtime != before.mtime {
                return Err(failure::changed(&what, size, now.size.unwrap_or_default()).into());
            }
            finish(local).await.map_err(Trouble::Failure)
        })
    }

    pub async fn look(&self, folder: &str, name: &str) -> Result<Option<Listed>, Failure> {
        on!(self, self.settings.times.answer, session => {
            let path = path(&session.root, folder, name);
            let found = found(&session, &path, &self.shown(&path)).await?;
            if found.is_none() {
                // No file, or no folder: only the first is an answer.
                there(&session, &parent(&session.root, folder), &self.shown(folder)).await?;
            }
            Ok(found.map(|found| listed(name, &found)))
        })
    }

    pub async fn put(&self, folder: &str, name: &str, from: &Path, digest: [u8; 32]) -> Result<Put, Failure> {
        let part = format!(".{name}.part");
        let sent = on!(self, self.settings.times.transfer, session => {
            self.send(&session, folder, (name, &part), from, digest).await
        })?;
        let Some(size) = sent else { return Ok(Put::Already) };
        match self.named(folder, (&part, name)).await {
            Ok(()) => Ok(Put::Done),
            Err((failure, Sure::Yes)) => Err(failure),
            Err((failure, Sure::No)) => self.settled(folder, (&part, name), size, failure).await,
        }
    }

    /// Sends a file under its provisional name; its size, or `None` if the same bytes are there under their own.
    async fn send(
        &self,
        session: &Session,
        folder: &str,
        (name, part): (&str, &str),
        from: &Path,
        digest: [u8; 32],
    ) -> Result<Option<u64>, Trouble> {
        let (to, part) = (path(&session.root, folder, name), path(&session.root, folder, part));
        let what = self.shown(&to);
        there(session, &parent(&session.root, folder), &self.shown(&parent(&session.root, folder))).await?;
        let mut local = std::fs::File::open(from).map_err(|error| failure::local(from, &error))?;
        let size = local.metadata().map_err(|error| failure::local(from, &error))?.len();
        if let Some(there) = found(session, &to, &what).await? {
            if there.size != Some(size) {
                return Err(failure::taken(&what).into());
            }
            let handle = open(session, &to, OpenFlags::READ, &what).await?;
            let mut context = ring::digest::Context::new(&ring::digest::SHA256);
            let result = copy::read(session, &handle, size, &what, |bytes| {
                context.update(bytes);
                Ok(())
            })
            .await;
            close(session, &handle).await;
            result?;
            return match context.finish().as_ref() == digest {
                true => Ok(None),
                false => Err(failure::taken(&what).into()),
            };
        }
        removed(session, &part, &what).await?;
        let flags = OpenFlags::WRITE | OpenFlags::CREATE | OpenFlags::EXCLUDE;
        let handle = open(session, &part, flags, &what).await?;
        let result = self.written(session, &handle, &mut local, from, size, digest, &what).await;
        close(session, &handle).await;
        if let Err(trouble) = result {
            let full =
                trouble.is(StatusCode::Failure) && no_room(session, &parent(&session.root, folder)).await;
            if !matches!(trouble, Trouble::Lost(_) | Trouble::Silent) {
                let _ = session.raw.remove(&part).await;
            }
            return Err(if full { failure::full(&what).into() } else { trouble.on(&what) });
        }
        Ok(Some(size))
    }

    #[allow(clippy::too_many_arguments)]
    async fn written(
        &self,
        session: &Session,
        handle: &str,
        local: &mut std::fs::File,
        from: &Path,
        size: u64,
        digest: [u8; 32],
        what: &str,
    ) -> Result<(), Trouble> {
        let sent = copy::write(session, handle, local, from).await?;
        if sent.digest != digest || sent.size != size {
            return Err(failure::other_bytes(what).into());
        }
        if session.fsync {
            session.raw.fsync(handle).await?;
        }
        let there = session.raw.fstat(handle).await?.attrs.size;
        match there == Some(size) {
            true => Ok(()),
            false => {
                let what =
                    format!("{what}: {size} bytes were sent and {} are there", there.unwrap_or_default());
                Err(Failure::not_done(Code::SystemFails, what).into())
            }
        }
    }

    /// Gives a file that is whole its name, which must be free.
    async fn named(&self, folder: &str, (part, name): (&str, &str)) -> Result<(), (Failure, Sure)> {
        let (session, _) = self.session().await.map_err(|failure| (failure, Sure::Yes))?;
        let (from, to) = (path(&session.root, folder, part), path(&session.root, folder, name));
        let what = self.shown(&to);
        match move_to_free(&session, &from, &to, &what).await {
            Ok(()) => Ok(()),
            Err(trouble) => {
                let sure = match trouble {
                    Trouble::Lost(_) | Trouble::Silent => Sure::No,
                    Trouble::Status(..)
                    | Trouble::NoCommonAlgorithm
                    | Trouble::HostKey(_)
                    | Trouble::Failure(_) => Sure::Yes,
                };
                Err((self.failed(&session, trouble), sure))
            }
        }
    }

    /// The rename was sent and not answered: what is there under which name tells whether it was done.
    async fn settled(
        &self,
        folder: &str,
        (part, name): (&str, &str),
        size: u64,
        failure: Failure,
    ) -> Result<Put, Failure> {
        let doubt = |why: &str| Failure {
            class: Class::Unknown,
            code: Code::OutcomeUnknown,
            ..Failure::unknown(format!("{} when {name} was to get its name, and {why}", failure.what))
        };
        match (self.look(folder, name).await, self.look(folder, part).await) {
            (Ok(Some(there)), Ok(None)) if there.size == size => Ok(Put::Done),
            // Not renamed: the next try replaces it.
            (Ok(None), Ok(Some(_))) => Err(failure),
            (Ok(_), Ok(_)) => Err(doubt("what is there does not tell whether it did")),
            (Err(other), _) | (_, Err(other)) => Err(doubt(&other.what)),
        }
    }

    pub async fn write(&self, folder: &str, name: &str, bytes: &[u8]) -> Result<(), Failure> {
        on!(self, self.settings.times.answer * LISTING, session => {
            self.made(&session, folder).await?;
            let (to, part) = (path(&session.root, folder, name), path(&session.root, folder, &format!(".{name}.part")));
            let what = self.shown(&to);
            removed(&session, &part, &what).await?;
            let handle = open(&session, &part, OpenFlags::WRITE | OpenFlags::CREATE | OpenFlags::EXCLUDE, &what).await?;
            let mut result = Ok(());
            for (index, chunk) in bytes.chunks(session.write).enumerate() {
                let at = (index * session.write) as u64;
                result = session.raw.write(&handle, at, chunk.to_vec()).await.map(drop).map_err(Trouble::from);
                if result.is_err() {
                    break;
                }
            }
            if result.is_ok() && session.fsync {
                result = session.raw.fsync(&handle).await.map(drop).map_err(Trouble::from);
            }
            close(&session, &handle).await;
            if let Err(trouble) = result {
                let full = trouble.is(StatusCode::Failure) && no_room(&session, &parent(&session.root, folder)).await;
                let _ = session.raw.remove(&part).await;
                return Err(if full { failure::full(&what).into() } else { trouble.on(&what) });
            }
            replace(&session, &part, &to, &what).await
        })
    }

    pub async fn rename(&self, from: (&str, &str), to: (&str, &str)) -> Result<(), Failure> {
        let mut first = true;
        on!(self, self.settings.times.answer * LISTING, session => {
            let again = !std::mem::take(&mut first);
            let (old, new) = (path(&session.root, from.0, from.1), path(&session.root, to.0, to.1));
            let what = self.shown(&old);
            if found(&session, &old, &what).await?.is_none() {
                // A lost session may have done it.
                let done = again && found(&session, &new, &self.shown(&new)).await?.is_some();
                return if done { Ok(()) } else { Err(failure::missing(&what).into()) };
            }
            self.made(&session, to.0).await?;
            move_to_free(&session, &old, &new, &self.shown(&new)).await
        })
    }

    pub async fn delete(&self, folder: &str, name: &str) -> Result<(), Failure> {
        on!(self, self.settings.times.answer, session => {
            let path = path(&session.root, folder, name);
            let what = self.shown(&path);
            if found(&session, &path, &what).await?.is_none() {
                return there(&session, &parent(&session.root, folder), &self.shown(folder)).await;
            }
            removed(&session, &path, &what).await
        })
    }

    pub async fn check(&self, need: Need) -> Result<String, Failure> {
        on!(self, self.settings.times.answer * LISTING, session => {
            let what = self.shown(&format!("the folder {}", session.root));
            let handle = session.raw.opendir(&session.root).await.map_err(|error| Trouble::from(error).on(&what))?.handle;
            let read = session.raw.readdir(&handle).await.map_err(Trouble::from);
            close(&session, &handle).await;
            match read {
                Err(trouble) if !trouble.is(StatusCode::Eof) => return Err(trouble.on(&what)),
                Ok(_) | Err(_) => {}
            }
            let said = format!("{} shows the pinned host key {}; the folder {}", self.settings.name(), session.host_key, session.root);
            if need == Need::Read {
                return Ok(format!("{said} can be read"));
            }
            let part = path(&session.root, "", ".packhorse-check.part");
            removed(&session, &part, &what).await?;
            let handle = open(&session, &part, OpenFlags::WRITE | OpenFlags::CREATE | OpenFlags::EXCLUDE, &what).await?;
            let wrote = session.raw.write(&handle, 0, b"written by packhorse doctor".to_vec()).await.map_err(Trouble::from);
            close(&session, &handle).await;
            removed(&session, &part, &what).await?;
            match wrote {
                Ok(_) => Ok(format!("{said} can be read and written")),
                Err(trouble) if trouble.is(StatusCode::Failure) && no_room(&session, &session.root).await => {
                    Err(failure::full(&what).into())
                }
                Err(trouble) => Err(trouble.on(&what)),
            }
        })
    }

    /// Makes the folders below the system's own that are missing.
    async fn made(&self, session: &Session, folder: &str) -> Result<(), Trouble> {
        let mut so_far = String::new();
        for part in folder.split('/').filter(|part| !part.is_empty()) {
            so_far = place(&so_far, part);
            let path = parent(&session.root, &so_far);
            let what = self.shown(&format!("the folder {path}"));
            match there(session, &path, &what).await {
                Err(Trouble::Failure(failure)) if failure.code == Code::FolderMissing => {
                    let made = session.raw.mkdir(&path, FileAttributes::empty()).await;
                    made.map_err(|error| Trouble::from(error).on(&what))?;
                }
                other => other?,
            }
        }
        Ok(())
    }
}

/// Whether we know that a rename was not done.
enum Sure {
    Yes,
    No,
}

fn gather(gathering: &mut Gathering, file: &russh_sftp::protocol::File) {
    let raw = file.filename.as_str();
    if raw == "." || raw == ".." {
        return;
    }
    // Servers that send no permissions say in their list, as `ls -l` does, what it is.
    let kind = match file.attrs.permissions {
        Some(mode) => mode & KIND,
        None => match file.longname.chars().next() {
            Some('d') => FOLDER,
            Some('-') | None => REGULAR,
            Some(_) => 0,
        },
    };
    match kind {
        FOLDER => {}
        REGULAR => {
            if gathering.wants(Some(raw), || name::shown(raw)) {
                gathering.add(listed(raw, &file.attrs));
            }
        }
        _ => gathering.other(),
    }
}

/// The part of a mode that says what something is (POSIX `S_IFMT`), with files and folders.
const KIND: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;
const FOLDER: u32 = 0o040_000;

fn listed(name: &str, found: &FileAttributes) -> Listed {
    let modified = found.mtime.map(|seconds| i64::from(seconds) * 1_000);
    Listed { name: name.to_owned(), size: found.size.unwrap_or_default(), modified }
}

fn size(found: &FileAttributes, what: &str) -> Result<u64, Failure> {
    found.size.ok_or_else(|| {
        Failure::not_done(Code::SystemFails, format!("{what}: the server does not tell its size"))
    })
}

/// A folder below the root, as the server calls it.
fn parent(root: &str, folder: &str) -> String {
    let root = root.trim_end_matches('/');
    match (root.is_empty(), folder.is_empty()) {
        (true, true) => "/".to_owned(),
        (false, true) => root.to_owned(),
        (_, false) => format!("{root}/{folder}"),
    }
}

fn path(root: &str, folder: &str, name: &str) -> String {
    let parent = parent(root, folder);
    if name.is_empty() { parent } else { format!("{}/{name}", parent.trim_end_matches('/')) }
}

/// What has this name, if anything; links are not followed.
async fn found(session: &Session, path: &str, what: &str) -> Result<Option<FileAttributes>, Trouble> {
    match session.raw.lstat(path).await.map_err(Trouble::from) {
        Ok(found) => match found.attrs.permissions.map(|mode| mode & KIND) {
            Some(REGULAR) | None => Ok(Some(found.attrs)),
            Some(_) => Err(failure::not_regular(what).into()),
        },
        Err(trouble) if trouble.is(StatusCode::NoSuchFile) => Ok(None),
        Err(trouble) => Err(trouble.on(what)),
    }
}

async fn regular(session: &Session, path: &str, what: &str) -> Result<FileAttributes, Trouble> {
    found(session, path, what).await?.ok_or_else(|| failure::missing(what).into())
}

/// The folder is there.
async fn there(session: &Session, path: &str, what: &str) -> Result<(), Trouble> {
    let found = session.raw.stat(path).await.map_err(|error| Trouble::from(error).on(what))?;
    match found.attrs.permissions.map(|mode| mode & KIND) {
        Some(FOLDER) | None => Ok(()),
        Some(_) => Err(Failure::not_done(Code::FolderMissing, format!("{what} is not a folder")).into()),
    }
}

async fn open(session: &Session, path: &str, flags: OpenFlags, what: &str) -> Result<String, Trouble> {
    let opened = session.raw.open(path, flags, FileAttributes::empty()).await;
    opened.map(|opened| opened.handle).map_err(|error| Trouble::from(error).on(what))
}

/// Closes a handle. What goes wrong with that changes nothing any more.
async fn close(session: &Session, handle: &str) {
    let _ = timeout(Duration::from_secs(5), session.raw.close(handle)).await;
}

/// Nothing is there under this name any more.
async fn removed(session: &Session, path: &str, what: &str) -> Result<(), Trouble> {
    match session.raw.remove(path).await.map_err(Trouble::from) {
        Err(trouble) if !trouble.is(StatusCode::NoSuchFile) => Err(trouble.on(what)),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Renames to a name that is free. The plain rename of SFTP 3 fails where the name is taken, the extension would replace.
async fn move_to_free(session: &Session, from: &str, to: &str, what: &str) -> Result<(), Trouble> {
    match session.raw.lstat(to).await.map_err(Trouble::from) {
        Ok(_) => return Err(failure::taken(what).into()),
        Err(trouble) if trouble.is(StatusCode::NoSuchFile) => {}
        Err(trouble) => return Err(trouble.on(what)),
    }
    match session.raw.rename(from, to).await.map_err(Trouble::from) {
        Ok(_) => Ok(()),
        Err(trouble) if trouble.is(StatusCode::Failure) && session.raw.lstat(to).await.is_ok() => {
            Err(failure::taken(what).into())
        }
        Err(trouble) => Err(trouble.on(what)),
    }
}

/// Renames and replaces: at once where the server can, else by way of a moment without.
async fn replace(session: &Session, from: &str, to: &str, what: &str) -> Result<(), Trouble> {
    if !session.posix_rename {
        removed(session, to, what).await?;
        return session.raw.rename(from, to).await.map(drop).map_err(|error| Trouble::from(error).on(what));
    }
    let mut data = Vec::new();
    for text in [from, to] {
        let length = u32::try_from(text.len()).unwrap_or_default();
        data.extend_from_slice(&length.to_be_bytes());
        data.extend_from_slice(text.as_bytes());
    }
    match session.raw.extended("posix-rename@openssh.com", data).await? {
        Packet::Status(status) if status.status_code == StatusCode::Ok => Ok(()),
        Packet::Status(status) => Err(Trouble::from(Error::Status(status)).on(what)),
        _ => Err(Trouble::Lost("an answer that does not belong to the question".to_owned())),
    }
}

/// Whether the server's disk is full, as far as it tells: for a failed write it gives no reason.
async fn no_room(session: &Session, folder: &str) -> bool {
    session.raw.statvfs(folder).await.is_ok_and(|found| {
        found.blocks_avail.saturating_mul(found.fragment_size) < (1 << 16)
            || (found.inodes > 0 && found.inodes_avail == 0)
    })
}

/// Flushing may take long: not on a thread that others need.
async fn finish(local: Incoming) -> Result<Fetched, Failure> {
    match tokio::task::spawn_blocking(move || local.finish()).await {
        Ok(result) => result,
        Err(error) => Err(Failure::not_done(Code::StoreUnavailable, format!("our own file: {error}"))),
    }
}
