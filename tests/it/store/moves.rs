//! From a file to a server with everything, and back as a backup.

use super::Home;
use crate::{
    payments::{ROUTE, ledger, paid},
    support::{Site, until},
};
use packhorse::{
    bridge::Bridge,
    code::Code,
    store::{Opener, Store},
};
use serde_json::json;

fn add_server(site: &Site) {
    let text = std::fs::read_to_string(site.folder.0.join("packhorse.toml")).unwrap();
    site.folder.write("packhorse.toml", text + &site.store_on_postgres());
}

async fn start_is_refused(site: &Site) -> packhorse::bridge::CannotStart {
    match Bridge::start(site.project().config.unwrap()).await {
        Ok(_) => panic!("it must not start"),
        Err(cannot) => cannot,
    }
}

#[tokio::test]
async fn a_store_that_is_moved_to_a_server_keeps_everything_and_its_file_is_left_for_good() {
    let ledger = ledger().await;
    let site = &ledger.site;
    let bridge = site.start().await;
    site.vhost.say("payment.succeeded.v1", "event-1", &paid()).await;
    ledger.told(1).await;
    let before = std::fs::read_to_string(site.folder.0.join("packhorse.toml")).unwrap();
    add_server(site);
    let (code, _, err) = site.command(&["store", "migrate"]).await;
    assert_eq!(code, 1, "a bridge runs on it: {err}");
    assert!(err.contains("PH4007"), "{err}");
    assert!(bridge.stop().await);
    let cannot = start_is_refused(site).await;
    assert_eq!(cannot.code, Code::StoreMoved, "{}", cannot.what);
    let out = site.good(&["store", "migrate", "--json"]).await;
    assert!(out.lines().any(|line| line.contains("\"journal\"") && !line.contains("\"rows\":0")), "{out}");
    // There is nothing to move any more, and the server has a store.
    let (code, _, err) = site.command(&["store", "migrate"]).await;
    assert!(code != 0 && err.contains("PH4005"), "{code}: {err}");
    assert_eq!(site.account(ROUTE).await["delivered"], json!(1));
    site.good(&["store", "verify"]).await;
    let bridge = site.start().await;
    // What was paid is known, and what is new is paid.
    site.vhost.say("payment.succeeded.v1", "event-1", &paid()).await;
    site.vhost.say("payment.succeeded.v1", "event-2", &paid()).await;
    ledger.told(2).await;
    until("the copy is counted", async || (site.account(ROUTE).await["duplicate"] == json!(1)).then_some(()))
        .await;
    assert_eq!(ledger.ims.rows().len(), 2);
    // A backup while it runs is a store of its own.
    site.good(&["store", "backup", "backup.db"]).await;
    let (code, _, err) = site.command(&["store", "backup", "backup.db"]).await;
    assert!(code == 1 && err.contains("is there already"), "{code}: {err}");
    assert!(bridge.stop().await);
    let backup = Store::open(&site.folder.0.join("backup.db"), 1 << 20, Opener::Command).unwrap();
    let account = backup.account().await.unwrap();
    assert!(account.closes());
    let line = account.routes.iter().find(|line| line.route == ROUTE).unwrap();
    assert_eq!((line.delivered, line.duplicate), (2, 1));
    // Whoever puts the old settings back is told.
    site.folder.write("packhorse.toml", before);
    let cannot = start_is_refused(site).await;
    assert_eq!(cannot.code, Code::StoreMoved, "{}", cannot.what);
    assert!(cannot.what.contains("postgres://"), "{}", cannot.what);
}

#[tokio::test]
async fn a_server_that_holds_another_store_is_left_as_it_is() {
    let (from, to) = (Home::on_sqlite(), Home::on_postgres().await);
    let ours = from.open(Opener::Bridge);
    ours.route("pay.post").await.unwrap();
    let theirs = to.open(Opener::Bridge);
    theirs.route("other.route").await.unwrap();
    drop((ours, theirs));
    let (path, target) = (from.config().path, to.config());
    let moving = move || {
        let (path, target) = (path.clone(), target.clone());
        tokio::task::spawn_blocking(move || {
            std::thread::spawn(move || packhorse::store::migrate(&path, &target)).join().unwrap()
        })
    };
    let error = until("the bridge is gone", async || {
        moving().await.unwrap().err().filter(|error| error.what.contains("nothing was moved"))
    })
    .await;
    assert_eq!(error.code, Code::StoreTaken, "{error}");
    assert_eq!(from.open(Opener::Bridge).account().await.unwrap().routes.len(), 1, "it is ours still");
    let database = to.database.as_ref().unwrap();
    assert_eq!(database.texts("SELECT name FROM packhorse_example.route").await, ["other.route"]);
}

#[tokio::test]
async fn a_backup_of_a_file_that_is_put_back_is_known_as_older_than_what_ran() {
    let home = Home::on_sqlite();
    drop(home.open(Opener::Bridge));
    let path = home.config().path;
    let config = home.config();
    let backup = home.folder.0.join("backup.db");
    let file = backup.clone();
    std::thread::spawn(move || packhorse::store::backup(&config, &file)).join().unwrap().unwrap();
    for run in [2, 3] {
        let store = until("the next run", async || Store::of(&home.config(), Opener::Bridge).ok()).await;
        assert_eq!(store.run(), run);
    }
    for ending in ["db-wal", "db-shm"] {
        let _ = std::fs::remove_file(path.with_extension(ending));
    }
    std::fs::copy(&backup, &path).unwrap();
    // The runs since then are not given out again: what they had under way is not taken for this one's.
    let store = until("the next run", async || Store::of(&home.config(), Opener::Bridge).ok()).await;
    assert_eq!(store.run(), 4);
}
