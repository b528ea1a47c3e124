//! One session with an SFTP server: the connection, the host key, the login. Nothing secret is sent before the host key has
//! been found among the pinned ones.

use super::{Settings, Trouble};
use crate::{code::Code, system::sign, verdict::Failure};
use russh::{
    ChannelMsg, MethodKind, MethodSet,
    client::{self, AuthResult, KeyboardInteractiveAuthResponse},
    keys::{
        Algorithm, EcdsaCurve, HashAlg, PrivateKey, PrivateKeyWithHashAlg, PublicKeyOrCertificate,
        decode_secret_key,
    },
};
use russh_sftp::client::RawSftpSession;
use secrecy::ExposeSecret as _;
use std::{
    borrow::Cow,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{net::TcpStream, time::timeout};

/// How often a connection on which nothing is heard is asked for a sign of life; after three it counts as lost.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Bytes read or written at once: what every server takes.
const CHUNK: u64 = 32 << 10;

/// A session, shared by the routes of an instance.
pub struct Session {
    /// The protocol.
    pub raw: RawSftpSession,
    /// The system's own folder, as the server calls it.
    pub root: String,
    /// Whether a rename may replace.
    pub posix_rename: bool,
    /// Whether a file can be flushed.
    pub fsync: bool,
    /// Bytes read at once.
    pub read: u32,
    /// Bytes written at once.
    pub write: usize,
    /// The fingerprint of the host key that was shown.
    pub host_key: String,
    handle: client::Handle<Host>,
    broken: AtomicBool,
    // Last: the socket is cut when everything else is gone.
    socket: Socket,
}

/// The connection's socket. Dropping it cuts the connection, whatever still waits on it: a task that hangs at a silent server
/// would otherwise stay for ever.
struct Socket(std::net::TcpStream);

impl Socket {
    fn cut(&self) {
        // One that is closed already is cut.
        let _ = self.0.shutdown(std::net::Shutdown::Both);
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.cut();
    }
}

/// What the server has shown us.
#[derive(Clone, PartialEq, Eq)]
enum Shown {
    Nothing,
    Pinned(String),
    Other { fingerprint: String, algorithm: Algorithm },
    Certificate(String),
}

/// Looks at the host key.
struct Host {
    pinned: Arc<[String]>,
    shown: Arc<Mutex<Shown>>,
}

impl client::Handler for Host {
    type Error = russh::Error;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        let key = shown.public_key();
        let fingerprint = key.fingerprint(HashAlg::Sha256).to_string();
        let found = match shown {
            PublicKeyOrCertificate::Certificate(_) => Shown::Certificate(fingerprint),
            PublicKeyOrCertificate::PublicKey { .. } if self.pinned.contains(&fingerprint) => {
                Shown::Pinned(fingerprint)
            }
            PublicKeyOrCertificate::PublicKey { .. } => {
                Shown::Other { fingerprint, algorithm: key.algorithm() }
            }
        };
        let good = matches!(found, Shown::Pinned(_));
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = found;
        Ok(good)
    }
}

/// The kinds of host keys, the best first. A server mostly has one of each and shows the first that we take.
const KINDS: [&[Algorithm]; 3] = [
    &[Algorithm::Ed25519],
    &[
        Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
        Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
        Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
    ],
    &[Algorithm::Rsa { hash: Some(HashAlg::Sha512) }, Algorithm::Rsa { hash: Some(HashAlg::Sha256) }],
];

fn kind_of(algorithm: &Algorithm) -> usize {
    let is = |kind: &&[Algorithm]| match kind.first() {
        Some(Algorithm::Ecdsa { .. }) => matches!(algorithm, Algorithm::Ecdsa { .. }),
        Some(Algorithm::Rsa { .. }) => matches!(algorithm, Algorithm::Rsa { .. }),
        first => first == Some(algorithm),
    };
    KINDS.iter().position(is).unwrap_or(KINDS.len())
}

impl Session {
    /// Connects, compares the host key, logs in, and finds the folder.
    pub async fn open(settings: &Settings) -> Result<Session, Trouble> {
        let whole = settings.connect * 3;
        match timeout(whole, Session::connect(settings)).await {
            Ok(result) => result,
            Err(_) => Err(Trouble::Failure(super::failure::silent(&settings.name(), whole))),
        }
    }

    async fn connect(settings: &Settings) -> Result<Session, Trouble> {
        // If the first key that a server shows is not pinned, another one that it has may be: it is asked for those too.
        let mut kinds: Vec<usize> = (0..KINDS.len()).collect();
        let mut others: Vec<String> = Vec::new();
        loop {
            let shown = Arc::new(Mutex::new(Shown::Nothing));
            let connected = Session::greet(settings, &kinds, shown.clone()).await;
            let shown = shown.lock().unwrap_or_else(PoisonError::into_inner).clone();
            match (connected, shown) {
                (Ok((handle, socket)), Shown::Pinned(host_key)) => {
                    return Session::log_in(settings, handle, socket, host_key).await;
                }
                (_, Shown::Certificate(fingerprint)) => {
                    let what = format!(
                        "{} shows a certificate (of the key {fingerprint}) in place of a host key; certificates are not \
                         trusted, pin the fingerprint of a plain host key",
                        settings.name()
                    );
                    return Err(Trouble::HostKey(what));
                }
                (_, Shown::Other { fingerprint, algorithm }) => {
                    let kind = kind_of(&algorithm);
                    others.push(format!("{fingerprint} ({algorithm})"));
                    kinds.retain(|left| *left != kind);
                    if kinds.is_empty() || kind >= KINDS.len() {
                        return Err(Trouble::HostKey(unknown(settings, &others)));
                    }
                }
                (Err(Trouble::NoCommonAlgorithm), _) if !others.is_empty() => {
                    return Err(Trouble::HostKey(unknown(settings, &others)));
                }
                (Err(trouble), _) => return Err(trouble),
                (Ok(_), Shown::Nothing) => return Err(Trouble::Lost("no host key was shown".to_owned())),
            }
        }
    }

    /// Connects as far as the host key.
    async fn greet(
        settings: &Settings,
        kinds: &[usize],
        shown: Arc<Mutex<Shown>>,
    ) -> Result<(client::Handle<Host>, Socket), Trouble> {
        let unreachable = |error: std::io::Error| {
            let what = format!("{} cannot be reached: {error}", settings.name());
            Trouble::Failure(Failure::away(Code::SystemUnreachable, what))
        };
        let silent = || Trouble::Failure(super::failure::silent(&settings.name(), settings.connect));
        let address = (settings.host.as_str(), settings.port);
        let stream = timeout(settings.connect, TcpStream::connect(address)).await;
        let stream = stream.map_err(|_| silent())?.map_err(unreachable)?;
        let stream = stream.into_std().map_err(unreachable)?;
        let socket = Socket(stream.try_clone().map_err(unreachable)?);
        let stream = TcpStream::from_std(stream).map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        let key: Vec<Algorithm> =
            kinds.iter().filter_map(|kind| KINDS.get(*kind)).flat_map(|kind| kind.iter().cloned()).collect();
        let config = client::Config {
            client_id: russh::SshId::Standard(Cow::Borrowed(concat!(
                "SSH-2.0-packhorse_",
                env!("CARGO_PKG_VERSION")
            ))),
            preferred: russh::Preferred { key: Cow::Owned(key), ..russh::Preferred::default() },
            keepalive_interval: Some(KEEP_ALIVE),
            keepalive_max: 3,
            ..client::Config::default()
        };
        let host = Host { pinned: settings.pinned.clone(), shown };
        match timeout(settings.connect, client::connect_stream(Arc::new(config), stream, host)).await {
            Err(_) => Err(silent()),
            Ok(Ok(handle)) => Ok((handle, socket)),
            Ok(Err(russh::Error::NoCommonAlgo { .. })) => Err(Trouble::NoCommonAlgorithm),
            Ok(Err(error)) => Err(Trouble::Lost(error.to_string())),
        }
    }

    async fn log_in(
        settings: &Settings,
        mut handle: client::Handle<Host>,
        socket: Socket,
        host_key: String,
    ) -> Result<Session, Trouble> {
        let silent = || Trouble::Failure(super::failure::silent(&settings.name(), settings.connect));
        timeout(settings.connect, authenticate(settings, &mut handle)).await.map_err(|_| silent())??;
        let raw = timeout(settings.connect, subsystem(settings, &handle)).await.map_err(|_| silent())??;
        let version = raw.init().await?;
        let has = |name: &str| version.extensions.contains_key(name);
        let limits = if has("limits@openssh.com") { raw.limits().await.ok() } else { None };
        let least = |limit: Option<u64>| limit.filter(|limit| *limit > 0).unwrap_or(CHUNK).min(CHUNK);
        let read = least(limits.as_ref().map(|limits| limits.max_read_len));
        let write = least(limits.as_ref().map(|limits| limits.max_write_len));
        let folder = if settings.folder.is_empty() { "." } else { settings.folder.as_str() };
        let root = match raw.realpath(folder).await {
            Ok(found) => found.files.into_iter().next().map(|file| file.filename),
            Err(error) => {
                return Err(Trouble::from(error).on(&format!("the folder {folder} of {}", settings.name())));
            }
        };
        Ok(Session {
            root: root.unwrap_or_else(|| folder.to_owned()),
            posix_rename: has("posix-rename@openssh.com"),
            fsync: has("fsync@openssh.com"),
            read: u32::try_from(read).unwrap_or(4096),
            write: usize::try_from(write).unwrap_or(4096),
            raw,
            host_key,
            handle,
            broken: AtomicBool::new(false),
            socket,
        })
    }

    /// Whether it can still be used.
    pub fn is_alive(&self) -> bool {
        !self.broken.load(Ordering::SeqCst) && !self.handle.is_closed()
    }

    /// It is not used again, and what others wait for on it ends as well.
    pub fn give_up(&self) {
        self.broken.store(true, Ordering::SeqCst);
        self.socket.cut();
    }
}

fn unknown(settings: &Settings, others: &[String]) -> String {
    format!(
        "{} shows a host key that is not pinned: {}. Ask those who run the server, by another way, for the fingerprint \
         (there: ssh-keygen -lf on its public host key). Only if it is this one, put it into the setting for host keys and \
         start the bridge anew. Nothing was sent",
        settings.name(),
        others.join(", ")
    )
}

/// Logs in by key, by password, or by one after the other where the server wants both.
async fn authenticate(settings: &Settings, handle: &mut client::Handle<Host>) -> Result<(), Trouble> {
    let user = settings.username.as_str();
    let mut tried = Vec::new();
    if let Some(name) = settings.key.as_ref().filter(|name| settings.instance.secrets.contains_key(*name)) {
        tried.push("key");
        let key = PrivateKeyWithHashAlg::new(Arc::new(private_key(settings, name)?), None);
        if accepted(handle.authenticate_publickey(user, key).await, handle)?.is_none() {
            return Ok(());
        }
    }
    if let Some(name) =
        settings.password.as_ref().filter(|name| settings.instance.secrets.contains_key(*name))
    {
        tried.push("password");
        let password = sign::secret(&settings.instance, name).map_err(Trouble::Failure)?;
        let Some(left) =
            accepted(handle.authenticate_password(user, password.expose_secret()).await, handle)?
        else {
            return Ok(());
        };
        // Many servers know passwords only as an answer to a question. Where both ways are open it has been refused once, and
        // asking again would only bring a lock of the account nearer.
        let asks = left.contains(&MethodKind::KeyboardInteractive) && !left.contains(&MethodKind::Password);
        let mut said = match asks {
            true => handle.authenticate_keyboard_interactive_start(user, None::<String>).await,
            false => Ok(KeyboardInteractiveAuthResponse::Failure {
                remaining_methods: left,
                partial_success: false,
            }),
        };
        for _ in 0..3 {
            let prompts = match said {
                Ok(KeyboardInteractiveAuthResponse::Success) => return Ok(()),
                Ok(KeyboardInteractiveAuthResponse::InfoRequest { prompts, .. }) => prompts.len(),
                Ok(KeyboardInteractiveAuthResponse::Failure { .. }) => break,
                Err(error) => return Err(Trouble::Lost(error.to_string())),
            };
            let answers = match prompts {
                0 => Vec::new(),
                1 => vec![password.expose_secret().to_owned()],
                // More than a password is asked for: nobody is there to answer.
                _ => break,
            };
            said = handle.authenticate_keyboard_interactive_respond(answers).await;
        }
    }
    if tried.is_empty() {
        let what = format!("{}: neither a key nor a password is set", settings.instance.name);
        return Err(Trouble::Failure(Failure::not_done(Code::SecretUnavailable, what)));
    }
    let what = format!("{} does not let {user} in with our {}", settings.name(), tried.join(" and our "));
    Err(Trouble::Failure(Failure::away(Code::LoginRefused, what)))
}

/// `None` if we are in, else the ways that are left. A connection that is lost while we ask looks like a refusal without any way left.
fn accepted(
    result: Result<AuthResult, russh::Error>,
    handle: &client::Handle<Host>,
) -> Result<Option<MethodSet>, Trouble> {
    match result {
        Ok(AuthResult::Success) => Ok(None),
        Ok(AuthResult::Failure { remaining_methods, .. })
            if remaining_methods.is_empty() && handle.is_closed() =>
        {
            Err(Trouble::Lost("it closed the connection during the login".to_owned()))
        }
        Ok(AuthResult::Failure { remaining_methods, .. }) => Ok(Some(remaining_methods)),
        Err(error) => Err(Trouble::Lost(error.to_string())),
    }
}

/// Our key; RSA is refused, since the only implementation at hand leaks it by its timing (RUSTSEC-2023-0071).
fn private_key(settings: &Settings, name: &str) -> Result<PrivateKey, Trouble> {
    let bad = |what: &str| {
        let what = format!("the private key in the setting `{name}` of {} {what}", settings.instance.name);
        Trouble::Failure(Failure::not_done(Code::SecretUnavailable, what))
    };
    let secret = sign::secret(&settings.instance, name).map_err(Trouble::Failure)?;
    let key = match decode_secret_key(secret.expose_secret(), None) {
        Ok(key) => key,
        Err(russh::keys::Error::KeyIsEncrypted) => return Err(bad("has a passphrase: store it without one")),
        Err(_) => return Err(bad("cannot be read: it is in OpenSSH's or PKCS#8 form")),
    };
    match key.algorithm() {
        Algorithm::Ed25519 | Algorithm::Ecdsa { .. } if key.is_encrypted() => {
            Err(bad("has a passphrase: store it without one"))
        }
        Algorithm::Ed25519 | Algorithm::Ecdsa { .. } => Ok(key),
        Algorithm::Rsa { .. } => Err(bad(
            "is an RSA key, which can leak by the time that signing takes (RUSTSEC-2023-0071): make an Ed25519 one, \
             ssh-keygen -t ed25519",
        )),
        _ => Err(bad("is neither an Ed25519 nor an ECDSA key")),
    }
}

/// Starts the SFTP subsystem.
async fn subsystem(settings: &Settings, handle: &client::Handle<Host>) -> Result<RawSftpSession, Trouble> {
    let refused = || {
        let what = format!("{} lets us in, but offers no SFTP to this login", settings.name());
        Trouble::Failure(Failure::not_done(Code::SystemRefuses, what))
    };
    let lost = |error: russh::Error| Trouble::Lost(error.to_string());
    let mut channel = match handle.channel_open_session().await {
        Ok(channel) => channel,
        Err(russh::Error::ChannelOpenFailure(_)) => return Err(refused()),
        Err(error) => return Err(lost(error)),
    };
    channel.request_subsystem(true, "sftp").await.map_err(lost)?;
    loop {
        match channel.wait().await {
            Some(ChannelMsg::Success) => break,
            Some(
                ChannelMsg::Failure | ChannelMsg::Close | ChannelMsg::Eof | ChannelMsg::ExitStatus { .. },
            ) => {
                return Err(refused());
            }
            Some(_) => {}
            None => return Err(Trouble::Lost("it closed the connection".to_owned())),
        }
    }
    let config = russh_sftp::client::Config {
        request_timeout_secs: settings.times.answer.as_secs().max(1),
        ..russh_sftp::client::Config::default()
    };
    Ok(RawSftpSession::new_with_config(channel.into_stream(), config))
}
