//! What only a server can do to us: another host key, a refused login, silence, an end in the middle.

use super::*;
use crate::support::{Site, root};
use std::collections::BTreeMap;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// How the adapters of these tests reach their server.
pub const REACH: &str = "[sftp]\naddress = \"{{ settings.address }}\"\nusername = \"{{ settings.username }}\"\n\
    host_keys = \"{{ settings.host_keys }}\"\nfolder = \"{{ settings.folder }}\"\nkey = \"key\"\npassword = \"password\"\n\
    connect_timeout = \"2s\"\ntimeout = \"3s\"\n";

/// A server, with what `scripts/sftp` has printed of it.
pub struct Server {
    folder: Folder,
    settings: BTreeMap<String, String>,
}

fn script(arguments: &[&str]) -> String {
    let done = std::process::Command::new(root().join("scripts/sftp")).args(arguments).output().unwrap();
    assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

impl Server {
    /// One of the test's own.
    pub fn start() -> Server {
        let folder = Folder::new();
        let printed = script(&["start", folder.0.join("server").to_str().unwrap()]);
        Server { folder, settings: settings(&printed) }
    }

    pub fn does(&self, command: &str) {
        script(&[command, self.folder.0.join("server").to_str().unwrap()]);
    }

    pub fn says(&self, name: &str) -> &str {
        &self.settings[name]
    }

    pub fn key(&self, name: &str) -> PathBuf {
        Path::new(self.says("SFTP_DIR")).join(name)
    }

    /// Its files, reached with this key at this address.
    fn place_with(&self, address: &str, host_keys: &str, key: &str) -> Place {
        let own = Folder::new();
        let key = self.key(key);
        let settings = [
            ("address", address),
            ("username", self.says("SFTP_USER")),
            ("host_keys", host_keys),
            ("folder", ""),
        ];
        let system = opened(&project(&own, REACH, &settings, &[("key", &key)])).unwrap();
        Place { system, files: self.says("SFTP_FILES").into(), own, full: None }
    }

    fn place(&self) -> Place {
        self.place_with(self.says("SFTP_ADDRESS"), self.says("SFTP_HOST_KEY"), "client_ed25519")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.does("kill");
    }
}

fn settings(printed: &str) -> BTreeMap<String, String> {
    let pairs = printed.lines().filter_map(|line| line.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.trim_matches('\'').to_owned())).collect()
}

/// A folder of its own on the server that `scripts/test` has started for all.
pub(super) fn shared() -> Place {
    static NUMBER: AtomicU32 = AtomicU32::new(1);
    let says =
        |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run scripts/test"));
    let own = Folder::new();
    let folder = format!("test-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    let files = Path::new(&says("SFTP_FILES")).join(&folder);
    std::fs::create_dir(&files).unwrap();
    std::fs::set_permissions(&files, std::fs::Permissions::from_mode(0o777)).unwrap();
    // A small disk, where the server has one.
    let small = Path::new(&says("SFTP_FILES")).join("small");
    let full = (!says("SFTP_PASSWORD").is_empty()).then(|| symlink(&small, files.join("small")).unwrap());
    let settings = [
        ("address", says("SFTP_ADDRESS")),
        ("username", says("SFTP_USER")),
        ("host_keys", says("SFTP_HOST_KEY")),
        ("folder", folder),
    ];
    let settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let key = PathBuf::from(says("SFTP_KEY"));
    let system = opened(&project(&own, REACH, &settings, &[("key", &key)])).unwrap();
    Place { system, files, own, full: full.map(|()| "small".to_owned()) }
}

/// Stands between us and a server, passes on so many bytes either way, then nothing until it is let go on.
pub struct Between {
    pub address: String,
    /// Bytes that may pass.
    pub may_pass: watch::Sender<u64>,
    /// Whether the limit has been reached.
    held: watch::Receiver<bool>,
    /// Connections taken, and connections of ours that have ended.
    taken: Arc<AtomicU32>,
    ended: Arc<AtomicU32>,
}

impl Between {
    pub async fn start(target: &str, may_pass: u64) -> Between {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (may_pass, allowed) = watch::channel(may_pass);
        let (hold, held) = watch::channel(false);
        let (taken, ended) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let (target, counts) = (target.to_owned(), (taken.clone(), ended.clone()));
        tokio::spawn(async move {
            let passed = Arc::new(std::sync::atomic::AtomicU64::new(0));
            while let Ok((ours, _)) = listener.accept().await {
                counts.0.fetch_add(1, Ordering::SeqCst);
                let Ok(theirs) = TcpStream::connect(&target).await else { continue };
                let ((mut from_us, mut to_us), (mut from_them, mut to_them)) =
                    (ours.into_split(), theirs.into_split());
                let (mut allowed, hold, passed, ended) =
                    (allowed.clone(), hold.clone(), passed.clone(), counts.1.clone());
                let (mut also, also_hold, also_passed) = (allowed.clone(), hold.clone(), passed.clone());
                tokio::spawn(async move {
                    pass(&mut from_us, &mut to_them, &mut allowed, &hold, &passed).await;
                    ended.fetch_add(1, Ordering::SeqCst);
                });
                tokio::spawn(async move {
                    pass(&mut from_them, &mut to_us, &mut also, &also_hold, &also_passed).await;
                });
            }
        });
        Between { address, may_pass, held, taken, ended }
    }

    pub async fn is_held(&mut self) {
        tokio::time::timeout(Duration::from_secs(30), self.held.wait_for(|held| *held))
            .await
            .unwrap()
            .unwrap();
    }
}

async fn pass(
    from: &mut (impl tokio::io::AsyncRead + Unpin),
    to: &mut (impl tokio::io::AsyncWrite + Unpin),
    allowed: &mut watch::Receiver<u64>,
    hold: &watch::Sender<bool>,
    passed: &std::sync::atomic::AtomicU64,
) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let count = match from.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(count) => count,
        };
        let now = passed.fetch_add(count as u64, Ordering::SeqCst) + count as u64;
        if now > *allowed.borrow() {
            let _ = hold.send(true);
            let _ = allowed.wait_for(|allowed| now <= *allowed).await;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}

#[tokio::test]
async fn a_changed_host_key_stops_everything_until_a_person_has_looked() {
    let server = Server::start();
    let place = server.place();
    place.has("a.csv", "1");
    assert_eq!(place.system.list("", 9).await.unwrap().files.len(), 1);
    assert!(place.system.stopped().is_none());
    // The server is set up anew, with other keys.
    server.does("kill");
    server.does("rekey");
    server.does("again");
    let failure = place.system.list("", 9).await.unwrap_err();
    assert_eq!((failure.code, failure.class), (Code::HostKeyChanged, Class::NotDone));
    let print = |name: &str| {
        let arguments = ["-lf".to_owned(), server.key(name).display().to_string()];
        let done = std::process::Command::new("ssh-keygen").args(arguments).output().unwrap();
        String::from_utf8(done.stdout).unwrap().split(' ').nth(1).unwrap().to_owned()
    };
    // The sentence names the keys that were seen, and what to do.
    for name in ["host_ed25519.pub", "host_ecdsa.pub", "host_rsa.pub"] {
        assert!(failure.what.contains(&print(name)), "{name}: {}", failure.what);
    }
    assert!(failure.what.contains("ssh-keygen -lf"), "{}", failure.what);
    // Nobody tries again by himself, not even when the old server is gone altogether.
    assert_eq!(place.system.stopped(), Some(failure.clone()));
    server.does("kill");
    assert_eq!(place.system.list("", 9).await.unwrap_err(), failure);
    // Two fingerprints while the key is being changed; then the bridge is started anew.
    server.does("again");
    let both = format!("{} {}", server.says("SFTP_HOST_KEY"), print("host_ed25519.pub"));
    let anew = server.place_with(server.says("SFTP_ADDRESS"), &both, "client_ed25519");
    assert_eq!(anew.system.list("", 9).await.unwrap().files.len(), 1);
    assert!(anew.system.check(Need::Read).await.unwrap().contains(&print("host_ed25519.pub")));
}

#[tokio::test]
async fn whichever_of_a_servers_host_keys_is_pinned_is_asked_for() {
    let server = Server::start();
    for pin in ["SFTP_HOST_KEY", "SFTP_HOST_KEY_ECDSA", "SFTP_HOST_KEY_RSA"] {
        let place = server.place_with(server.says("SFTP_ADDRESS"), server.says(pin), "client_ed25519");
        let said = place.system.check(Need::Read).await.unwrap();
        assert!(said.contains(server.says(pin)), "{said}");
    }
}

#[tokio::test]
async fn logins_by_key_and_password_and_what_is_said_of_those_that_fail() {
    let server = Server::start();
    let with =
        |key: &str| server.place_with(server.says("SFTP_ADDRESS"), server.says("SFTP_HOST_KEY"), key).system;
    with("client_ecdsa").check(Need::Read).await.unwrap();
    let refused = with("stranger").list("", 9).await.unwrap_err();
    assert_eq!((refused.code, refused.class), (Code::LoginRefused, Class::Away));
    // Our own keys that are not used are refused before anything is sent by them.
    for (key, says) in [
        ("client_rsa", "RUSTSEC-2023-0071"),
        ("client_locked", "passphrase"),
        ("sshd_config", "cannot be read"),
    ] {
        let failure = with(key).list("", 9).await.unwrap_err();
        assert_eq!((failure.code, failure.class), (Code::SecretUnavailable, Class::NotDone), "{key}");
        assert!(failure.what.contains(says), "{key}: {}", failure.what);
    }
    // After a refused login nobody tries again at once: servers lock accounts.
    let stranger = with("stranger");
    let first = stranger.list("", 9).await.unwrap_err();
    server.does("kill");
    assert_eq!(stranger.list("", 9).await.unwrap_err(), first);
    server.does("again");
    if server.says("SFTP_PASSWORD").is_empty() {
        eprintln!("left out: no user with a password can be had here");
        return;
    }
    let own = Folder::new();
    for (password, good) in [(server.says("SFTP_PASSWORD"), true), ("wrong", false)] {
        let secret = own.write("password", format!("{password}\n"));
        let settings = [
            ("address", server.says("SFTP_ADDRESS")),
            ("username", server.says("SFTP_PASSWORD_USER")),
            ("host_keys", server.says("SFTP_HOST_KEY")),
            ("folder", ""),
        ];
        let system = opened(&project(&own, REACH, &settings, &[("password", &secret)])).unwrap();
        let listed = system.list("", 9).await;
        assert_eq!(listed.is_ok(), good, "{listed:?}");
        if let Err(failure) = listed {
            assert_eq!(failure.code, Code::LoginRefused);
            assert!(!failure.what.contains(password), "{}", failure.what);
        }
    }
}

#[tokio::test]
async fn a_server_killed_in_the_middle_of_a_fetch_leaves_nothing_half_and_the_next_try_succeeds() {
    let server = Server::start();
    let mut between = Between::start(server.says("SFTP_ADDRESS"), 10 << 20).await;
    let place = server.place_with(&between.address, server.says("SFTP_HOST_KEY"), "client_ed25519");
    let bytes = noise(50 << 20);
    place.has("big.xml", &bytes);
    let to = place.own.0.join("big.xml");
    let (fetched, ()) = tokio::join!(place.system.fetch("", "big.xml", &to, 1 << 30), async {
        between.is_held().await;
        server.does("kill");
        between.may_pass.send_replace(u64::MAX);
    });
    let failure = fetched.unwrap_err();
    assert_eq!((failure.code, failure.class), (Code::SystemUnreachable, Class::Away), "{}", failure.what);
    assert!(!to.exists() && !place.own.0.join("big.xml.part").exists());
    server.does("again");
    let fetched =
        until("the next try", async || place.system.fetch("", "big.xml", &to, 1 << 30).await.ok()).await;
    assert_eq!(fetched.digest, sum(&bytes));
}

#[tokio::test]
async fn a_server_killed_in_the_middle_of_a_put_has_no_file_of_the_name_and_the_next_try_replaces_the_part() {
    let server = Server::start();
    let mut between = Between::start(server.says("SFTP_ADDRESS"), 10 << 20).await;
    let place = server.place_with(&between.address, server.says("SFTP_HOST_KEY"), "client_ed25519");
    let bytes = noise(50 << 20);
    let (local, digest) = place.local("bacs.txt", &bytes);
    let (put, ()) = tokio::join!(place.system.put("", "bacs.txt", &local, digest), async {
        between.is_held().await;
        server.does("kill");
        between.may_pass.send_replace(u64::MAX);
    });
    let failure = put.unwrap_err();
    assert_eq!((failure.code, failure.class), (Code::SystemUnreachable, Class::Away), "{}", failure.what);
    let left = place.names("");
    assert!(
        left.contains(&".bacs.txt.part".to_owned()) && !left.contains(&"bacs.txt".to_owned()),
        "{left:?}"
    );
    server.does("again");
    until("the next try", async || place.system.put("", "bacs.txt", &local, digest).await.ok()).await;
    assert_eq!(std::fs::read(place.files.join("bacs.txt")).unwrap(), bytes);
    assert!(!place.names("").contains(&".bacs.txt.part".to_owned()));
    assert_eq!(place.system.put("", "bacs.txt", &local, digest).await.unwrap(), Put::Already);
}

#[tokio::test]
async fn a_connection_that_was_lost_while_idle_is_made_anew_within_the_call() {
    let server = Server::start();
    let place = server.place();
    place.has("a.csv", "1");
    for _ in 0..2 {
        assert_eq!(place.system.list("", 9).await.unwrap().files.len(), 1);
        server.does("kill");
        server.does("again");
    }
    place.system.rename(("", "a.csv"), ("done", "a.csv")).await.unwrap();
    assert_eq!(place.names("done"), ["a.csv"]);
}

#[tokio::test]
async fn routes_share_one_connection() {
    let server = Server::start();
    let between = Between::start(server.says("SFTP_ADDRESS"), u64::MAX).await;
    let place = server.place_with(&between.address, server.says("SFTP_HOST_KEY"), "client_ed25519");
    for number in 0..30 {
        place.has(&format!("{number:02}.csv"), noise(100_000));
    }
    let one = async |number: usize| {
        let to = place.own.0.join(format!("{number:02}.csv"));
        place.system.fetch("", &format!("{number:02}.csv"), &to, 1 << 20).await.unwrap()
    };
    let all: Vec<_> = (0..30).map(one).collect();
    let fetched = futures_util::future::join_all(all).await;
    assert!(fetched.iter().all(|fetched| fetched.digest == sum(&noise(100_000))));
    assert_eq!(between.taken.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up_and_its_connection_cut() {
    let server = Server::start();
    // Accepts and stays silent; greets and stays silent; falls silent in the middle of a listing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let greets = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (pin, key) = (server.says("SFTP_HOST_KEY"), "client_ed25519");
    for (listener, greeting) in [(&silent, ""), (&greets, "SSH-2.0-OpenSSH_9.2\r\n")] {
        let place = server.place_with(&listener.local_addr().unwrap().to_string(), pin, key);
        let began = Instant::now();
        let (listed, closed) = tokio::join!(place.system.list("", 9), async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(greeting.as_bytes()).await.unwrap();
            let mut all = Vec::new();
            tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut all)).await.is_ok()
        });
        assert_eq!(code(listed), (Code::SystemUnreachable, Class::Away));
        assert!(closed, "the connection is cut, not left to a task that waits for ever");
        assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    }
}

#[tokio::test]
async fn a_server_that_falls_silent_in_the_middle_is_given_up_in_time_and_left_for_a_new_connection() {
    let server = Server::start();
    let mut between = Between::start(server.says("SFTP_ADDRESS"), u64::MAX).await;
    let place = server.place_with(&between.address, server.says("SFTP_HOST_KEY"), "client_ed25519");
    for number in 0..3_000 {
        place.has(&format!("{number:05}.csv"), "");
    }
    assert_eq!(place.system.list("", 9).await.unwrap().more, 2_991);
    between.may_pass.send_replace(1);
    let began = Instant::now();
    let listed = place.system.list("", 9).await;
    assert_eq!(code(listed), (Code::SystemUnreachable, Class::Away));
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    between.is_held().await;
    between.may_pass.send_replace(u64::MAX);
    until("the old connection to be cut", async || (between.ended.load(Ordering::SeqCst) > 0).then_some(()))
        .await;
    let more = until("a new connection", async || Some(place.system.list("", 9).await.ok()?.more)).await;
    assert_eq!((more, between.taken.load(Ordering::SeqCst)), (2_991, 2));
}

#[tokio::test]
async fn a_folder_that_the_login_may_not_use_is_told_so() {
    let server = Server::start();
    let place = server.place();
    let closed = place.files.join("closed");
    std::fs::create_dir(&closed).unwrap();
    // Its owner is root, or we are who logs in.
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o555)).unwrap();
    std::fs::write(place.own.0.join("x"), "x").unwrap();
    let (local, digest) = place.local("x", "x");
    assert_eq!(
        code(place.system.put("closed", "x", &local, digest).await),
        (Code::AccessDenied, Class::NotDone)
    );
    assert_eq!(code(place.system.write("closed", "x", b"x").await).0, Code::AccessDenied);
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o700)).unwrap();
    if is_root() {
        assert_eq!(code(place.system.list("closed", 9).await), (Code::AccessDenied, Class::NotDone));
    }
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test]
async fn doctor_tells_of_folders_and_servers_what_is_there_and_what_is_in_the_way() {
    let server = Server::start();
    let site = Site::new(
        "[adapters.files]\nsettings = { address = \"$A\", username = \"$U\", host_keys = \"$H\", key = \"file:$K\" }\n\
         [adapters.inbox]\nsettings = { path = \"$FOLDER/inbox\" }\n",
    )
    .await;
    // Only what this test is about.
    for name in ["adapters", "mappings"] {
        std::fs::remove_dir_all(site.folder.0.join(name)).unwrap();
    }
    std::fs::create_dir_all(site.folder.0.join("mappings/events")).unwrap();
    site.edit("packhorse.toml", "$A", server.says("SFTP_ADDRESS"));
    site.edit("packhorse.toml", "$U", server.says("SFTP_USER"));
    site.edit("packhorse.toml", "$H", server.says("SFTP_HOST_KEY"));
    site.edit("packhorse.toml", "$K", server.says("SFTP_KEY"));
    let head = "version = 1\ntitle = \"Files\"\nabout = \"A stand-in\"\n";
    let setting = |name: &str, more: &str| format!("[settings.{name}]\nabout = \"x\"\n{more}");
    site.folder.write(
        "adapters/files.toml",
        format!(
            "{head}{}{}{}{}[sftp]\naddress = \"{{{{ settings.address }}}}\"\nusername = \"{{{{ settings.username }}}}\"\n\
             host_keys = \"{{{{ settings.host_keys }}}}\"\nkey = \"key\"\n",
            setting("address", ""),
            setting("username", ""),
            setting("host_keys", ""),
            setting("key", "secret = true\n")
        ),
    );
    site.folder.write(
        "adapters/inbox.toml",
        format!("{head}{}[folder]\npath = \"{{{{ settings.path }}}}\"\n", setting("path", "")),
    );
    std::fs::create_dir(site.folder.0.join("inbox")).unwrap();
    let (_, out, err) = site.command(&["doctor"]).await;
    let pinned = format!("shows the pinned host key {}", server.says("SFTP_HOST_KEY"));
    assert!(out.contains(&pinned), "{out}{err}");
    assert!(out.contains("inbox can be read"), "{out}");
    std::fs::remove_dir(site.folder.0.join("inbox")).unwrap();
    server.does("kill");
    server.does("rekey");
    server.does("again");
    let (status, out, _) = site.command(&["check", "--live"]).await;
    assert_eq!(status, 1);
    for code in [Code::HostKeyChanged, Code::FolderMissing] {
        assert!(out.contains(code.as_str()), "{out}");
    }
}
