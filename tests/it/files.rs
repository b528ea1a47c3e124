//! Files of a system: one suite for both ways of reaching them, a folder of this machine and the real OpenSSH server; and in
//! its part `sftp` what only a server can do to us.

pub mod sftp;

use crate::support::{Folder, ran, small_disk, until};
use packhorse::{
    code::Code,
    config::Project,
    system::{
        FileSystem,
        files::{Need, Put},
    },
    verdict::{Class, Failure},
};
use ring::digest::{SHA256, digest};
use std::{
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

/// A system with its files, which the test sees from behind.
struct Place {
    system: FileSystem,
    /// The same files, on this machine.
    files: PathBuf,
    /// Where the test keeps its own.
    own: Folder,
    /// What is wanted of the place to make it full, if that can be had.
    full: Option<String>,
}

/// A project whose one adapter reaches its system like this; `settings` are the adapter's.
fn project(folder: &Folder, reach: &str, settings: &[(&str, &str)], secrets: &[(&str, &Path)]) -> Project {
    let mut adapter = "version = 1\ntitle = \"Files\"\nabout = \"A stand-in of the tests\"\n".to_owned();
    let mut given = Vec::new();
    for (name, value) in settings {
        adapter += &format!("[settings.{name}]\nabout = \"x\"\noptional = true\n");
        given.push(format!("{name} = \"{value}\""));
    }
    for name in ["key", "password"] {
        adapter += &format!("[settings.{name}]\nabout = \"x\"\nsecret = true\noptional = true\n");
    }
    given.extend(secrets.iter().map(|(name, path)| format!("{name} = \"file:{}\"", path.display())));
    adapter += reach;
    folder.write("adapters/files.toml", adapter);
    folder.write(
        "packhorse.toml",
        format!(
            "version = 1\ncouncil = \"example\"\n[broker]\naddresses = [\"amqp://127.0.0.1:1/x\"]\n\
             [adapters.files]\nsettings = {{ {} }}\n",
            given.join(", ")
        ),
    );
    std::fs::create_dir_all(folder.0.join("mappings/events")).unwrap();
    Project::load(&folder.0.join("packhorse.toml"))
}

/// The files of a project's one system.
fn opened(project: &Project) -> Result<FileSystem, Failure> {
    let wrong: Vec<&String> = project
        .diagnostics
        .iter()
        .filter(|found| found.is_error())
        .map(|found| &found.problem.what)
        .collect();
    let config = project.config.as_ref().unwrap_or_else(|| panic!("{wrong:?}"));
    let instance = &config.instances[0];
    match &instance.adapter.system {
        packhorse::config::plan::SystemPlan::Files(plan) => FileSystem::open(instance, plan),
        _ => panic!("not by files"),
    }
}

/// A folder of this machine.
fn folder_at(path: &Path) -> FileSystem {
    let own = Folder::new();
    let path = path.display().to_string();
    let reach = "[folder]\npath = \"{{ settings.path }}\"\ntimeout = \"5s\"\n";
    opened(&project(&own, reach, &[("path", &path)], &[])).unwrap()
}

fn folder() -> Place {
    let own = Folder::new();
    let files = own.0.join("files");
    std::fs::create_dir(&files).unwrap();
    Place { system: folder_at(&files), files, own, full: None }
}

impl Place {
    /// Puts something there behind the system's back.
    fn has(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.files.join(name);
        self.makes(path.parent().unwrap());
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// A folder that everybody may write in.
    fn makes(&self, path: &Path) {
        std::fs::create_dir_all(path).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
    }

    /// A local file to send.
    fn local(&self, name: &str, bytes: impl AsRef<[u8]>) -> (PathBuf, [u8; 32]) {
        let sum = sum(bytes.as_ref());
        (self.own.write(name, bytes), sum)
    }

    /// The names in a folder, from behind.
    fn names(&self, folder: &str) -> Vec<String> {
        names(&self.files.join(folder))
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap().flatten();
    let mut names: Vec<String> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn sum(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes).as_ref().try_into().unwrap()
}

/// Bytes that are not all the same and do not shrink.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let mut byte = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    (0..length).map(|_| byte()).collect()
}

fn code<T: std::fmt::Debug>(result: Result<T, Failure>) -> (Code, Class) {
    let failure = result.unwrap_err();
    (failure.code, failure.class)
}

#[tokio::test]
async fn in_a_folder_everything_holds_that_is_promised_of_files() {
    all(folder()).await;
}

#[tokio::test]
async fn over_sftp_everything_holds_that_is_promised_of_files() {
    all(sftp::shared()).await;
}

/// What holds wherever the files are.
async fn all(place: Place) {
    lists(&place).await;
    fetches(&place).await;
    puts(&place).await;
    writes_moves_and_deletes(&place).await;
    names_are_never_paths(&place).await;
    a_file_that_grows_is_not_taken(&place).await;
    a_huge_folder_is_no_trouble(&place).await;
    no_room_is_said_and_nothing_is_left(&place).await;
    assert!(place.system.check(Need::Read).await.unwrap().ends_with("can be read"));
    assert!(place.system.check(Need::Write).await.unwrap().ends_with("can be read and written"));
    assert!(!place.names("").iter().any(|name| name.contains("check")));
}

async fn lists(place: &Place) {
    for name in ["b.csv", "a.csv", "c.csv", ".a.csv.part", "Ümlaut (1).txt"] {
        place.has(&format!("in/{name}"), name);
    }
    place.makes(&place.files.join("in/folder"));
    symlink("a.csv", place.files.join("in/link.csv")).unwrap();
    place.has("in/line\nbreak.csv", "x");
    place.has("in/back\\slash.csv", "x");
    let listing = place.system.list("in", 10).await.unwrap();
    let names: Vec<&str> = listing.files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names, ["a.csv", "b.csv", "c.csv", "Ümlaut (1).txt"]);
    assert_eq!((listing.more, listing.refused, listing.others), (0, 2, 1));
    let warning = listing.warning().unwrap();
    assert!(warning.contains("line\\nbreak.csv") && !warning.contains('\n'), "{warning}");
    assert_eq!(listing.files[0].size, 5);
    let now = jiff::Timestamp::now().as_millisecond();
    assert!((now - listing.files[0].modified.unwrap()).abs() < 60_000);
    // The first by name, and how many more there are.
    let first = place.system.list("in", 2).await.unwrap();
    let names: Vec<&str> = first.files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!((names, first.more), (vec!["a.csv", "b.csv"], 2));
    // The system's own folder, and one that is not there.
    assert!(place.system.list("", 10).await.unwrap().files.is_empty());
    assert_eq!(code(place.system.list("out", 10).await), (Code::FolderMissing, Class::NotDone));
    assert_eq!(code(place.system.list("in/a.csv", 10).await).0, Code::FolderMissing);
}

async fn fetches(place: &Place) {
    let bytes = noise(300_001);
    place.has("out/big.xml", &bytes);
    place.has("out/empty.xml", "");
    let to = place.own.write("taken/big.xml", "an older one");
    place.own.write("taken/big.xml.part", "what a crash has left");
    let fetched = place.system.fetch("out", "big.xml", &to, 300_001).await.unwrap();
    assert_eq!((fetched.size, fetched.digest), (300_001, sum(&bytes)));
    assert_eq!(std::fs::read(&to).unwrap(), bytes);
    let empty = place.own.0.join("taken/empty.xml");
    assert_eq!(place.system.fetch("out", "empty.xml", &empty, 0).await.unwrap().digest, sum(b""));
    // Beyond the limit, missing, a link, a folder: nothing is left here.
    let no = place.own.0.join("taken/no");
    assert_eq!(
        code(place.system.fetch("out", "big.xml", &no, 300_000).await),
        (Code::FileTooLarge, Class::Refused)
    );
    assert_eq!(code(place.system.fetch("out", "gone", &no, 9).await), (Code::FolderMissing, Class::NotDone));
    symlink("/etc/hostname", place.files.join("out/link")).unwrap();
    place.makes(&place.files.join("out/sub"));
    for name in ["link", "sub"] {
        assert_eq!(code(place.system.fetch("out", name, &no, 9).await).0, Code::BadFileName, "{name}");
        assert_eq!(code(place.system.look("out", name).await).0, Code::BadFileName, "{name}");
    }
    assert_eq!(names(&place.own.0.join("taken")), ["big.xml", "empty.xml"]);
    // Our own disk is not the system's fault.
    let nowhere = place.own.0.join("no-such-folder/x");
    assert_eq!(code(place.system.fetch("out", "empty.xml", &nowhere, 9).await).0, Code::StoreUnavailable);
    assert_eq!(place.system.look("out", "big.xml").await.unwrap().unwrap().size, 300_001);
    assert_eq!(place.system.look("out", "gone").await.unwrap(), None);
    assert_eq!(code(place.system.look("nowhere", "gone").await).0, Code::FolderMissing);
}

async fn puts(place: &Place) {
    let target = place.files.join("put");
    place.makes(&target);
    let bytes = noise(200_000);
    let (local, digest) = place.local("bacs.txt", &bytes);
    // A crash has left a part, and somebody a link in its place: neither is written into.
    let victim = place.own.write("victim", "untouched");
    symlink(&victim, target.join(".bacs.txt.part")).unwrap();
    assert_eq!(place.system.put("put", "bacs.txt", &local, digest).await.unwrap(), Put::Done);
    assert_eq!(std::fs::read(target.join("bacs.txt")).unwrap(), bytes);
    assert_eq!(std::fs::read(&victim).unwrap(), b"untouched");
    assert_eq!(place.system.put("put", "bacs.txt", &local, digest).await.unwrap(), Put::Already);
    assert_eq!(place.names("put"), ["bacs.txt"]);
    // Another file of the name, of the same size or not.
    for other in [noise(200_001).split_off(1), noise(10)] {
        let (local, digest) = place.local("other.txt", &other);
        assert_eq!(
            code(place.system.put("put", "bacs.txt", &local, digest).await),
            (Code::FileExists, Class::Refused)
        );
    }
    assert_eq!(std::fs::read(target.join("bacs.txt")).unwrap(), bytes);
    // What is to be sent is not what it was.
    assert_eq!(code(place.system.put("put", "new.txt", &local, [0; 32]).await).0, Code::FileChanged);
    // A folder is never made for a file that somebody is to find there.
    assert_eq!(code(place.system.put("typo", "new.txt", &local, digest).await).0, Code::FolderMissing);
    assert!(!place.files.join("typo").exists());
    let gone = place.own.0.join("gone.txt");
    assert_eq!(code(place.system.put("put", "new.txt", &gone, digest).await).0, Code::StoreUnavailable);
    let (empty, digest) = place.local("empty.txt", "");
    assert_eq!(place.system.put("put", "empty.txt", &empty, digest).await.unwrap(), Put::Done);
    assert_eq!(place.names("put"), ["bacs.txt", "empty.txt"]);
}

async fn writes_moves_and_deletes(place: &Place) {
    let system = &place.system;
    place.has("day/a.csv", "1");
    place.has("day/b.csv", "2");
    // Notes are replaced; their folder is made.
    system.write("failed/today", "a.csv.reason.txt", b"one").await.unwrap();
    system.write("failed/today", "a.csv.reason.txt", &noise(100_000)).await.unwrap();
    assert_eq!(std::fs::read(place.files.join("failed/today/a.csv.reason.txt")).unwrap(), noise(100_000));
    assert_eq!(place.names("failed/today"), ["a.csv.reason.txt"]);
    // Moved into a folder that is made; never over another file; not twice.
    system.rename(("day", "a.csv"), ("done/2026", "a.csv")).await.unwrap();
    assert_eq!(std::fs::read(place.files.join("done/2026/a.csv")).unwrap(), b"1");
    assert_eq!(
        code(system.rename(("day", "b.csv"), ("done/2026", "a.csv")).await),
        (Code::FileExists, Class::Refused)
    );
    assert_eq!(std::fs::read(place.files.join("done/2026/a.csv")).unwrap(), b"1");
    assert_eq!(code(system.rename(("day", "a.csv"), ("done", "x.csv")).await).0, Code::FolderMissing);
    assert_eq!(place.names("day"), ["b.csv"]);
    system.delete("day", "b.csv").await.unwrap();
    system.delete("day", "b.csv").await.unwrap();
    assert!(place.names("day").is_empty());
    assert_eq!(code(system.delete("nowhere", "b.csv").await).0, Code::FolderMissing);
}

async fn names_are_never_paths(place: &Place) {
    let (local, digest) = place.local("evil", "x");
    let outside = place.own.write("outside.txt", "untouched");
    let to = place.own.0.join("evil-fetched");
    for name in ["..", ".", "", "../outside.txt", "in/a.csv", "/etc/passwd", "a\nb", "a\0b", "a\\b"] {
        let system = &place.system;
        let refused = (Code::BadFileName, Class::Refused);
        assert_eq!(code(system.fetch("in", name, &to, 99).await), refused, "{name:?}");
        assert_eq!(code(system.look("in", name).await), refused, "{name:?}");
        assert_eq!(code(system.put("in", name, &local, digest).await), refused, "{name:?}");
        assert_eq!(code(system.write("in", name, b"x").await), refused, "{name:?}");
        assert_eq!(code(system.delete("in", name).await), refused, "{name:?}");
        assert_eq!(code(system.rename(("in", name), ("in", "z")).await), refused, "{name:?}");
        assert_eq!(code(system.rename(("in", "a.csv"), ("in", name)).await), refused, "{name:?}");
    }
    for folder in ["..", "in/..", "/etc", "in/../..", "a\nb"] {
        assert_eq!(code(place.system.list(folder, 9).await).0, Code::BadFileName, "{folder:?}");
        assert_eq!(code(place.system.write(folder, "x", b"x").await).0, Code::BadFileName, "{folder:?}");
    }
    assert_eq!(std::fs::read(outside).unwrap(), b"untouched");
}

async fn a_file_that_grows_is_not_taken(place: &Place) {
    let path = place.has("grow/growing.csv", noise(40 << 20));
    let stop = Arc::new(AtomicBool::new(false));
    let (writing, told) = (path.clone(), stop.clone());
    let writer = std::thread::spawn(move || {
        use std::io::Write as _;
        let mut file = std::fs::OpenOptions::new().append(true).open(writing).unwrap();
        while !told.load(Ordering::SeqCst) {
            file.write_all(b"one more line\n").unwrap();
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    let to = place.own.0.join("growing.csv");
    let failed = place.system.fetch("grow", "growing.csv", &to, 1 << 30).await;
    stop.store(true, Ordering::SeqCst);
    writer.join().unwrap();
    assert_eq!(code(failed), (Code::FileChanged, Class::NotDone));
    assert!(!to.exists() && !place.own.0.join("growing.csv.part").exists());
    // At rest it is.
    let fetched = place.system.fetch("grow", "growing.csv", &to, 1 << 30).await.unwrap();
    assert_eq!(fetched.digest, sum(&std::fs::read(&path).unwrap()));
    std::fs::remove_file(path).unwrap();
}

async fn a_huge_folder_is_no_trouble(place: &Place) {
    for number in 0..20_000 {
        place.has(&format!("many/{number:05}.csv"), "");
    }
    let began = Instant::now();
    let listing = place.system.list("many", 100).await.unwrap();
    assert_eq!((listing.files.len(), listing.more), (100, 19_900));
    assert_eq!(listing.files.last().unwrap().name, "00099.csv");
    assert!(listing.warning().unwrap().starts_with("20000 files are there"));
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    std::fs::remove_dir_all(place.files.join("many")).unwrap();
}

async fn no_room_is_said_and_nothing_is_left(place: &Place) {
    let Some(full) = &place.full else {
        eprintln!("left out: no small disk can be had here");
        return;
    };
    let (local, digest) = place.local("large", noise(3 << 20));
    let system = &place.system;
    assert_eq!(code(system.put(full, "large.bin", &local, digest).await), (Code::NoRoom, Class::NotDone));
    assert_eq!(system.look(full, "large.bin").await.unwrap(), None);
    assert_eq!(system.look(full, ".large.bin.part").await.unwrap(), None, "the part is deleted again");
    let (small, digest) = place.local("small", noise(1 << 10));
    assert_eq!(system.put(full, "small.bin", &small, digest).await.unwrap(), Put::Done);
    system.delete(full, "small.bin").await.unwrap();
}

/// Whether this process may do anything.
fn is_root() -> bool {
    std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap()) == 0
}

#[tokio::test]
async fn a_full_disk_is_the_systems_trouble_or_our_own_and_nothing_half_is_left() {
    let own = Folder::new();
    let disk = own.0.join("disk");
    if !small_disk(&disk) {
        return;
    }
    let path = disk.display().to_string();
    let place = Place { full: Some("disk".to_owned()), ..folder() };
    let place = Place { system: folder_at(&own.0), files: own.0.clone(), ..place };
    no_room_is_said_and_nothing_is_left(&place).await;
    own.write("large.csv", noise(3 << 20));
    let ours = place.system.fetch("", "large.csv", &disk.join("taken"), 1 << 30).await;
    let left = names(&disk);
    ran("umount", &[&path]);
    assert_eq!(code(ours), (Code::StoreFull, Class::NotDone));
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn a_folder_that_may_only_be_read_is_told_so_when_something_is_written() {
    // Nothing is forbidden to root but in the kernel's own file systems.
    let own = Folder::new();
    let path = match is_root() {
        true => PathBuf::from("/sys/kernel"),
        false => own.0.clone(),
    };
    if !is_root() {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o555)).unwrap();
    }
    let system = folder_at(&path);
    assert!(system.check(Need::Read).await.is_ok());
    assert_eq!(code(system.check(Need::Write).await), (Code::AccessDenied, Class::NotDone));
    assert_eq!(code(system.write("", "x", b"x").await).0, Code::AccessDenied);
    std::fs::set_permissions(&own.0, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test]
async fn a_link_to_a_folder_outside_is_not_followed_and_one_inside_is() {
    let place = folder();
    let outside = Folder::new();
    outside.write("secret.csv", "x");
    place.has("real/a.csv", "1");
    symlink(&outside.0, place.files.join("out")).unwrap();
    symlink(place.files.join("real"), place.files.join("alias")).unwrap();
    assert_eq!(code(place.system.list("out", 9).await), (Code::BadFileName, Class::Refused));
    assert_eq!(code(place.system.write("out", "x", b"x").await).0, Code::BadFileName);
    assert_eq!(place.system.list("alias", 9).await.unwrap().files.len(), 1);
    assert_eq!(names(&outside.0), ["secret.csv"]);
}

#[tokio::test]
async fn a_folder_that_is_not_mounted_yet_is_waited_for_and_never_made() {
    let own = Folder::new();
    let system = folder_at(&own.0.join("mount"));
    assert_eq!(code(system.check(Need::Read).await), (Code::FolderMissing, Class::NotDone));
    assert_eq!(code(system.write("failed", "x", b"x").await).0, Code::FolderMissing);
    assert!(!own.0.join("mount").exists());
    std::fs::create_dir(own.0.join("mount")).unwrap();
    system.write("failed", "x", b"x").await.unwrap();
}

#[tokio::test]
async fn a_pipe_that_nobody_writes_to_holds_nobody_up() {
    let place = folder();
    let made = std::process::Command::new("mkfifo").arg(place.files.join("pipe")).status().unwrap();
    assert!(made.success());
    let listing = place.system.list("", 9).await.unwrap();
    assert_eq!((listing.files.len(), listing.others), (0, 1));
    let to = place.own.0.join("x");
    assert_eq!(code(place.system.fetch("", "pipe", &to, 9).await).0, Code::BadFileName);
}

#[test]
fn a_system_is_reached_one_way_only_and_an_sftp_server_needs_its_fingerprint() {
    let own = Folder::new();
    let told = |reach: &str, settings: &[(&str, &str)], secrets: &[(&str, &Path)]| {
        let project = project(&own, reach, settings, secrets);
        let errors = project.diagnostics.iter().filter(|found| found.is_error());
        errors.map(|found| (found.problem.code, found.problem.what.clone())).collect::<Vec<_>>()
    };
    let both = told("[folder]\npath = \"/a\"\n[amqp]\naddresses = \"\"\n", &[], &[]);
    assert_eq!(both[0].0, Code::ExclusiveKeys);
    assert!(both[0].1.contains("`amqp` and `folder` exclude each other"), "{both:?}");
    assert!(told("", &[], &[])[0].1.contains("how the system is reached"));
    let key = own.write("key", "x");
    let sftp = |address: &str, keys: &str, secrets: &[(&str, &Path)]| {
        told(
            sftp::REACH,
            &[("address", address), ("username", "u"), ("host_keys", keys), ("folder", "")],
            secrets,
        )
    };
    let pin = "SHA256:uNiVztksCsDhcc0u9e8BgrJXVGDXtQxk1qYQxWv0S0c";
    let good: [(&str, &Path); 1] = [("key", &key)];
    assert!(sftp("h", pin, &good).is_empty(), "{:?}", sftp("h", pin, &good));
    assert_eq!(sftp("h", "", &good)[0].0, Code::BadFingerprint);
    assert_eq!(sftp("h", "16:27:ac:a5", &good)[0].0, Code::BadFingerprint);
    assert_eq!(sftp("user@h", pin, &good)[0].0, Code::BadAddress);
    assert_eq!(sftp("h", pin, &[])[0].0, Code::MissingSetting);
    // Requests and messages do not go by files.
    let route =
        "[deliver.pay]\nabout = \"x\"\nevent = \"x.v1\"\nrequest = { method = \"GET\", path = \"/\" }\n";
    let wrong = told(&format!("[folder]\npath = \"/a\"\n{route}"), &[], &[]);
    assert!(wrong.iter().any(|(_, what)| what.contains("this system is reached by files")), "{wrong:?}");
}
