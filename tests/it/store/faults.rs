//! What a store does when its database breaks: a clear error, nothing half, and on again by itself.

use super::Home;
use crate::{
    databases::Database,
    proxy::{Proxy, Way},
    support::{Folder, Site, ran, small_disk, until},
};
use packhorse::{
    code::Code,
    event::Key,
    store::{Asked, Claim, Opener, Place, Record, State, Store, StoreError},
};
use std::time::Duration;

fn claim(id: &str) -> Claim {
    let source = "urn:test".to_owned();
    Claim { key: Key::of(&source, id), part: 0, id: id.into(), source, attempt: 1, replay: 0, settled: false }
}

async fn claims(store: &Store, id: &str) -> Result<Vec<Place>, StoreError> {
    let route = store.route("pay.post").await?;
    store.claim(route, 5, vec![claim(id)]).await
}

async fn state(store: &Store, id: &str) -> Option<State> {
    let route = store.route("pay.post").await.unwrap();
    store.state(route, claim(id).key).await.unwrap().map(|(state, _)| state)
}

/// A store on a server behind a proxy of ours.
async fn behind_a_proxy(database: Database) -> (Home, std::sync::Arc<Proxy>) {
    let proxy = Proxy::to(database.address.parse().unwrap()).await;
    let home = Home { folder: Folder::new(), database: Some(database), through: Some(proxy.address) };
    (home, proxy)
}

#[tokio::test]
async fn a_disk_of_sqlite_that_is_full_is_told_and_what_was_committed_stays() {
    let own = Folder::new();
    let disk = own.0.join("disk");
    if !small_disk(&disk) {
        return;
    }
    let path = disk.display().to_string();
    let store = Store::open(&disk.join("packhorse.db"), 1 << 30, Opener::Bridge).unwrap();
    let mut done = 0;
    let error = loop {
        match claims(&store, &format!("{done}{}", "x".repeat(20_000))).await {
            Ok(_) => done += 1,
            Err(error) => break error,
        }
        assert!(done < 1_000, "a disk of a megabyte takes no twenty");
    };
    assert!(done > 0);
    assert_eq!(error.code, Code::StoreFull, "{error}");
    // With room again it goes on by itself.
    assert!(ran("mount", &["-o", "remount,size=8m", &path]));
    let again = claims(&store, "again").await;
    let account = store.account(Asked::default()).await.unwrap();
    drop(store);
    until("the file is let go", async || ran("umount", &[&path]).then_some(())).await;
    assert!(again.is_ok(), "{again:?}");
    assert!(account.closes());
    assert_eq!(account.routes[0].waiting, done + 1);
}

#[tokio::test]
async fn a_file_that_somebody_else_has_locked_is_waited_for() {
    let home = Home::on_sqlite();
    let store = home.open(Opener::Bridge);
    let other = rusqlite::Connection::open(home.folder.0.join("packhorse.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let task = tokio::spawn(async move { claims(&store, "a").await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!task.is_finished());
    other.execute_batch("ROLLBACK").unwrap();
    assert!(matches!(task.await.unwrap().unwrap()[..], [Place::Go(_)]));
}

#[tokio::test]
async fn a_folder_in_which_nothing_can_be_written_and_a_second_bridge_are_told() {
    let error = Store::open(std::path::Path::new("/proc/packhorse/packhorse.db"), 1, Opener::Bridge);
    let error = error.err().unwrap();
    assert_eq!(error.code, Code::StoreUnavailable);
    assert!(error.what.contains("/proc/packhorse"), "{error}");
    let home = Home::on_sqlite();
    let _first = home.open(Opener::Bridge);
    let second = Store::of(&home.config(), Opener::Bridge).err().unwrap();
    assert!(second.what.contains("another bridge runs on this store"), "{second}");
}

#[tokio::test]
async fn a_store_of_a_newer_version_is_left_as_it_is() {
    let home = Home::on_sqlite();
    drop(home.open(Opener::Bridge));
    let file = rusqlite::Connection::open(home.folder.0.join("packhorse.db")).unwrap();
    file.pragma_update(None, "user_version", 99).unwrap();
    let on_server = Home::on_postgres().await;
    drop(on_server.open(Opener::Bridge));
    let database = on_server.database.as_ref().unwrap();
    database.sql("UPDATE packhorse_example.meta SET value = '99' WHERE name = 'version'").await;
    for home in [&home, &on_server] {
        let refused = until("it is refused", async || Store::of(&home.config(), Opener::Bridge).err()).await;
        assert_eq!(refused.code, Code::StoreNewer, "{refused}");
        assert!(refused.what.contains("version 99"), "{refused}");
    }
    assert_eq!(database.texts("SELECT value FROM packhorse_example.meta WHERE name = 'run'").await, ["1"]);
}

#[tokio::test]
async fn a_server_that_is_killed_is_an_error_and_when_it_is_back_the_same_run_goes_on() {
    let home = Home { folder: Folder::new(), database: Some(Database::alone().await), through: None };
    let store = home.open(Opener::Bridge);
    assert!(matches!(claims(&store, "a").await.unwrap()[..], [Place::Go(_)]));
    home.database.as_ref().unwrap().kill().await;
    let error = claims(&store, "b").await.unwrap_err();
    assert_eq!(error.code, Code::StoreUnavailable, "{error}");
    home.database.as_ref().unwrap().again().await;
    until("it is back", async || claims(&store, "c").await.ok()).await;
    assert!(store.lives(store.run()).await.unwrap());
    assert_eq!(claims(&store, "a").await.unwrap(), [Place::Busy]);
    assert!(store.account(Asked::default()).await.unwrap().closes());
}

#[tokio::test]
async fn a_server_that_may_only_be_read_is_told_so_and_the_one_that_takes_over_is_found() {
    let home = Home::on_postgres().await;
    let database = home.database.as_ref().unwrap();
    let store = home.open(Opener::Bridge);
    claims(&store, "a").await.unwrap();
    // As after a failover: whoever connects from here on may only read.
    database.sql(&format!("ALTER DATABASE {} SET default_transaction_read_only = on", database.name)).await;
    let end = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}' AND application_name LIKE 'packhorse %'",
        database.name
    );
    assert!(!database.texts(&end).await.is_empty());
    let error = until("it says so", async || {
        claims(&store, "b").await.err().filter(|error| error.what.contains("25006"))
    })
    .await;
    assert!(error.what.contains("may only be read"), "{error}");
    let mut refused = home.config();
    refused.path = home.folder.0.join("other.db");
    let opened = Store::of(&refused, Opener::Bridge).err().unwrap();
    assert!(opened.what.contains("25006"), "{opened}");
    let client = database.client("postgres").await;
    client
        .batch_execute(&format!("ALTER DATABASE {} RESET default_transaction_read_only", database.name))
        .await
        .unwrap();
    until("it may be written again", async || claims(&store, "c").await.ok()).await;
    assert_eq!(state(&store, "b").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_cut_within_a_transaction_leaves_nothing_half() {
    let (home, proxy) = behind_a_proxy(Database::new().await).await;
    let store = home.open(Opener::Bridge);
    claims(&store, "a").await.unwrap();
    // Another bridge writes: ours waits for it, in its transaction.
    let other = home.database.as_ref().unwrap().client(&home.database.as_ref().unwrap().name).await;
    other
        .batch_execute("BEGIN; LOCK TABLE packhorse_example.journal IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    let waiting = store.clone();
    let task = tokio::spawn(async move { claims(&waiting, "b").await });
    until("it waits", async || {
        let waits = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name LIKE 'packhorse %'";
        (!home.database.as_ref().unwrap().texts(waits).await.is_empty()).then_some(())
    })
    .await;
    proxy.cut();
    let error = task.await.unwrap().unwrap_err();
    assert_eq!(error.code, Code::StoreUnavailable, "{error}");
    other.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(until("it is back", async || claims(&store, "b").await.ok()).await.len(), 1);
    let account = until("the account", async || store.account(Asked::default()).await.ok()).await;
    assert!(account.closes());
    assert_eq!(account.routes[0].taken, 2);
}

/// The bridge lives on, and its message comes again: that is no copy of one that is under way.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_given_back_since_its_outcome_could_not_be_written_is_in_doubt_when_it_comes_again() {
    let (home, proxy) = behind_a_proxy(Database::new().await).await;
    let store = home.open(Opener::Bridge);
    let route = store.route("pay.post").await.unwrap();
    for id in ["a", "b"] {
        claims(&store, id).await.unwrap();
    }
    proxy.refuse(true);
    proxy.cut();
    let done = |id: &str| vec![(claim(id).key, 0, Record::Delivered { opens: None })];
    let error = store.record(route, 6, None, done("a")).await.unwrap_err();
    assert_eq!(error.code, Code::StoreUnavailable, "{error}");
    proxy.refuse(false);
    let places = until("it is back", async || claims(&store, "a").await.ok()).await;
    assert!(matches!(&places[..], [Place::Go(went)] if went.doubt), "{places:?}");
    assert_eq!(claims(&store, "a").await.unwrap(), [Place::Busy], "now it is under way");
    assert_eq!(claims(&store, "b").await.unwrap(), [Place::Busy], "the other has been all the time");
    store.record(route, 7, None, done("a")).await.unwrap();
    assert_eq!(claims(&store, "a").await.unwrap(), [Place::Done]);
}

/// A commit at the server takes a moment, in which the test can do something to it.
async fn slow_commits(home: &Home) {
    let sql = "CREATE FUNCTION packhorse_example.late() RETURNS trigger LANGUAGE plpgsql AS
                 'BEGIN PERFORM pg_sleep(3); RETURN NULL; END';
               CREATE CONSTRAINT TRIGGER late AFTER INSERT ON packhorse_example.journal
                 DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION packhorse_example.late()";
    home.database.as_ref().unwrap().sql(sql).await;
}

async fn is_committing(home: &Home) {
    until("it commits", async || {
        let commits = "SELECT pid FROM pg_stat_activity WHERE query = 'COMMIT' AND state = 'active'";
        (!home.database.as_ref().unwrap().texts(commits).await.is_empty()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_is_lost_is_asked_about_and_counts_as_what_it_was() {
    let (home, proxy) = behind_a_proxy(Database::new().await).await;
    let store = home.open(Opener::Bridge);
    let route = store.route("pay.post").await.unwrap();
    slow_commits(&home).await;
    // The server commits, and its answer never comes.
    let waiting = store.clone();
    let task = tokio::spawn(async move { waiting.claim(route, 5, vec![claim("a")]).await });
    is_committing(&home).await;
    proxy.stall(Way::Down);
    let database = home.database.as_ref().unwrap();
    until("it has committed", async || {
        let rows = database.texts("SELECT state FROM packhorse_example.journal").await;
        (!rows.is_empty()).then_some(())
    })
    .await;
    assert!(!task.is_finished(), "nobody is told anything yet");
    proxy.cut();
    proxy.open();
    assert!(matches!(task.await.unwrap().unwrap()[..], [Place::Go(_)]));
    // The server does not commit, since it ends the connection.
    let waiting = store.clone();
    let task = tokio::spawn(async move { waiting.claim(route, 5, vec![claim("b")]).await });
    let end =
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'COMMIT' AND state = 'active'";
    until("it commits, and is ended", async || (!database.texts(end).await.is_empty()).then_some(())).await;
    let error = task.await.unwrap().unwrap_err();
    assert_eq!(error.code, Code::StoreUnavailable, "{error}");
    assert_eq!(state(&store, "a").await, Some(State::Claimed));
    assert_eq!(state(&store, "b").await, None);
    assert!(
        matches!(claims(&store, "b").await.unwrap()[..], [Place::Go(_)]),
        "it was given back, and comes again"
    );
}

#[tokio::test]
async fn a_torn_copy_is_told_by_verify_and_a_whole_store_is_whole() {
    let site = Site::new("[store]\npath = \"store.db\"\n").await;
    let path = site.folder.0.join("store.db");
    let store = Store::open(&path, 1 << 20, Opener::Bridge).unwrap();
    for n in 0..400 {
        claims(&store, &format!("{n}{}", "x".repeat(300))).await.unwrap();
    }
    let (code, _, err) = site.command(&["store", "verify"]).await;
    assert_eq!(code, 0, "{err}");
    drop(store);
    // All in the one file, and then a copy of which the second half had not been written yet.
    let file = rusqlite::Connection::open(&path).unwrap();
    file.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    drop(file);
    let bytes = std::fs::read(&path).unwrap();
    let half = bytes.len() / 2 / 4_096 * 4_096;
    let mut torn = bytes.clone();
    torn[half..].fill(0);
    std::fs::write(&path, &torn).unwrap();
    let (code, _, err) = site.command(&["store", "verify"]).await;
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("PH4006"), "{err}");
    std::fs::write(&path, &bytes[..half]).unwrap();
    let (code, _, err) = site.command(&["store", "verify"]).await;
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("PH4006"), "{err}");
    // And one that contradicts itself, byte for byte whole.
    std::fs::write(&path, &bytes).unwrap();
    let file = rusqlite::Connection::open(&path).unwrap();
    file.execute_batch("UPDATE route SET parked = 3; UPDATE intake SET messages = messages + 1").unwrap();
    drop(file);
    let (code, _, err) = site.command(&["store", "verify"]).await;
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("parked messages that are not as many as were counted (3)"), "{err}");
}
