//! A store of a version before: carried over whole, or left as it was.

use super::Home;
use crate::support::{Site, until};
use packhorse::{
    code::Code,
    event::Key,
    store::{Account, Asked, Claim, Opener, Record, Store},
};
use rusqlite::{Connection, types::Value};
use std::{
    path::Path,
    time::{Duration, Instant},
};

/// The journal as version 6 had it: in the order of its keys.
pub const BACK_TO_SIX: &str = "
    ALTER TABLE journal RENAME TO newer;
    DROP INDEX journal_waiting; DROP INDEX journal_given_up; DROP INDEX journal_by_age_of_route;
    CREATE TABLE journal (
        route     INTEGER NOT NULL REFERENCES route (n),
        key       BLOB    NOT NULL,
        part      INTEGER NOT NULL,
        state     INTEGER NOT NULL,
        attempt   INTEGER NOT NULL,
        replay    INTEGER NOT NULL,
        doubt     INTEGER NOT NULL,
        run       INTEGER NOT NULL,
        duplicates INTEGER NOT NULL DEFAULT 0,
        source    TEXT NOT NULL,
        id        TEXT NOT NULL,
        taken_at  INTEGER NOT NULL,
        sent_at   INTEGER,
        failed_at INTEGER,
        due_at    INTEGER,
        done_at   INTEGER,
        kept      TEXT,
        answer    BLOB,
        code      TEXT,
        why       TEXT,
        mapping   TEXT,
        PRIMARY KEY (route, key, part)
    ) STRICT, WITHOUT ROWID;
    INSERT INTO journal SELECT * FROM newer;
    DROP TABLE newer;
    CREATE INDEX journal_by_age ON journal (taken_at);
    CREATE INDEX journal_waiting ON journal (route, taken_at) WHERE state = 2;
    CREATE INDEX journal_given_up ON journal (state, route) WHERE state = 5 OR state = 6;
    PRAGMA user_version = 6;";

fn claim(id: &str) -> Claim {
    let source = "urn:test".to_owned();
    Claim { key: Key::of(&source, id), part: 0, id: id.into(), source, attempt: 1, replay: 0, settled: false }
}

/// So many messages that are done, in windows, as they come.
async fn done(store: &Store, name: &str, windows: i64, each: usize) {
    let route = store.route(name).await.unwrap();
    for window in 0..windows {
        let claims: Vec<Claim> = (0..each).map(|n| claim(&format!("{name} {window} {n}"))).collect();
        let records = claims.iter().map(|claim| (claim.key, 0, Record::Delivered { opens: None })).collect();
        store.claim(route, window * 60_000, claims).await.unwrap();
        store.record(route, window * 60_000, Some("m".repeat(64)), records).await.unwrap();
    }
}

/// A store on a file with something in each column, and what its account says.
async fn filled(path: &Path, windows: i64) -> Account {
    let store = Store::open(path, 1 << 30, Opener::Bridge).unwrap();
    done(&store, "a.post", windows, 200).await;
    done(&store, "b.post", 3, 200).await;
    drop(store);
    let file = Connection::open(path).unwrap();
    // One in each state; parts; copies; all that may be known of a message.
    file.execute_batch(
        "UPDATE journal SET state = 1 + abs(random() % 8), attempt = 3, replay = 2, doubt = 1, failed_at = 7, due_at = 8,
           kept = 'kept', answer = x'00ff', code = 'PH2002', why = 'why', duplicates = 1 WHERE rowid % 5 = 0;
         INSERT INTO journal (route, key, part, state, attempt, replay, doubt, run, source, id, taken_at)
           SELECT route, key, 1, 2, 1, 0, 0, 1, '', id, taken_at FROM journal WHERE rowid % 7 = 0;
         UPDATE intake SET copies = (SELECT sum(duplicates) FROM journal j WHERE j.route = intake.route
           AND j.taken_at / 3600000 = intake.hour)",
    )
    .unwrap();
    drop(file);
    let store = Store::open(path, 1 << 30, Opener::Command).unwrap();
    let account = store.account(Asked::default()).await.unwrap();
    assert!(account.routes.iter().all(|line| line.difference() == 0 && line.taken > 600), "{account:#?}");
    account
}

/// All rows of the journal, by key.
fn rows(file: &Connection) -> Vec<Vec<Value>> {
    let sql = "SELECT route, key, part, state, attempt, replay, doubt, run, duplicates, source, id, taken_at, sent_at, failed_at,
                 due_at, done_at, kept, answer, code, why, mapping FROM journal ORDER BY route, key, part";
    let mut statement = file.prepare(sql).unwrap();
    let row = |row: &rusqlite::Row<'_>| (0..21).map(|at| row.get(at)).collect::<Result<Vec<Value>, _>>();
    statement.query_map([], row).unwrap().map(Result::unwrap).collect()
}

fn texts(file: &Connection, sql: &str) -> Vec<String> {
    file.prepare(sql).unwrap().query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

const TABLES: &str =
    "SELECT type || ' ' || name || ' ' || tbl_name || ' ' || coalesce(sql, '') FROM sqlite_schema
    WHERE tbl_name = 'journal' ORDER BY 1";

fn is_like_new(file: &Connection) {
    let home = Home::on_sqlite();
    drop(home.open(Opener::Command));
    let new = Connection::open(home.config().path).unwrap();
    assert_eq!(texts(file, TABLES), texts(&new, TABLES));
    assert_eq!(texts(file, "PRAGMA integrity_check"), ["ok"]);
    let behind = "SELECT count(*) || '' FROM journal a JOIN journal b ON b.rowid = a.rowid + 1 WHERE b.taken_at < a.taken_at";
    assert_eq!(texts(file, behind), ["0"], "rows lie in the order of their intake");
}

#[tokio::test]
async fn the_journal_of_version_6_is_carried_over_whole_into_the_order_of_intake() {
    let home = Home::on_sqlite();
    let path = home.config().path;
    let before = filled(&path, 20).await;
    let file = Connection::open(&path).unwrap();
    file.execute_batch(BACK_TO_SIX).unwrap();
    let known = rows(&file);
    assert!(known.len() > 5_000, "{}", known.len());
    let store = until("the last one is gone", async || Store::of(&home.config(), Opener::Bridge).ok()).await;
    assert_eq!(store.account(Asked::default()).await.unwrap(), before);
    assert!(rows(&file) == known, "every column of every row is as it was");
    is_like_new(&file);
    assert_eq!(texts(&file, "SELECT name FROM sqlite_schema WHERE name LIKE '%before%'"), [""; 0]);
}

#[tokio::test]
async fn a_store_that_cannot_be_carried_over_is_left_as_it_was() {
    let home = Home::on_sqlite();
    let path = home.config().path;
    let before = filled(&path, 5).await;
    let file = Connection::open(&path).unwrap();
    // The very last row is one that does not go over.
    let loose = BACK_TO_SIX.replace("STRICT, WITHOUT ROWID", "WITHOUT ROWID");
    file.execute_batch(&loose).unwrap();
    let spoil = "UPDATE journal SET run = 'spoilt' WHERE (taken_at, route, key, part) =
        (SELECT taken_at, route, key, part FROM journal ORDER BY 1 DESC, 2 DESC, 3 DESC, 4 DESC LIMIT 1)";
    assert_eq!(file.execute(spoil, []).unwrap(), 1);
    let (known, tables) = (rows(&file), texts(&file, TABLES));
    for opener in [Opener::Command, Opener::Bridge] {
        let error = Store::of(&home.config(), opener).err().unwrap();
        assert_eq!(error.code, Code::StoreUnavailable, "{error}");
        assert!(rows(&file) == known && texts(&file, TABLES) == tables, "nothing has changed");
    }
    file.execute("UPDATE journal SET run = 1 WHERE run = 'spoilt'", []).unwrap();
    let store = until("it is let go", async || Store::of(&home.config(), Opener::Bridge).ok()).await;
    assert_eq!(store.account(Asked::default()).await.unwrap(), before);
    is_like_new(&file);
}

#[tokio::test]
async fn a_bridge_that_is_killed_while_it_carries_the_journal_over_does_so_at_its_next_start() {
    let site = Site::new("").await;
    let path = site.folder.0.join("var/packhorse.db");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let before = filled(&path, 200).await;
    let file = Connection::open(&path).unwrap();
    file.execute_batch(BACK_TO_SIX).unwrap();
    file.execute_batch("PRAGMA journal_mode = WAL; PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    let known = rows(&file);
    // It is in the middle of it while nobody else may write.
    file.busy_timeout(Duration::ZERO).unwrap();
    let running = site.begin(&[]);
    let began = Instant::now();
    while file.execute_batch("BEGIN IMMEDIATE; ROLLBACK").is_ok() {
        assert!(began.elapsed() < Duration::from_secs(60), "it has not begun");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    running.kill().await;
    assert_eq!(texts(&file, "SELECT user_version || '' FROM pragma_user_version()"), ["6"]);
    assert!(rows(&file) == known, "nothing has changed");
    let store = Store::open(&path, 1 << 30, Opener::Bridge).unwrap();
    assert_eq!(store.account(Asked::default()).await.unwrap(), before);
    assert!(rows(&file) == known, "every column of every row is as it was");
    is_like_new(&file);
}

#[tokio::test]
async fn a_store_of_version_6_on_a_server_has_its_index_made_anew() {
    let (home, new) = (Home::on_postgres().await, Home::on_postgres().await);
    let store = home.open(Opener::Bridge);
    done(&store, "a.post", 3, 100).await;
    let before = store.account(Asked::default()).await.unwrap();
    drop((store, new.open(Opener::Command)));
    let database = home.database.as_ref().unwrap();
    database.sql("DROP INDEX packhorse_example.journal_by_age_of_route").await;
    database.sql("CREATE INDEX journal_by_age ON packhorse_example.journal (taken_at)").await;
    database.sql("UPDATE packhorse_example.meta SET value = '6' WHERE name = 'version'").await;
    let store = until("the last one is gone", async || Store::of(&home.config(), Opener::Bridge).ok()).await;
    assert_eq!(store.account(Asked::default()).await.unwrap(), before);
    let indexes = "SELECT indexdef FROM pg_indexes WHERE schemaname = 'packhorse_example' ORDER BY indexdef";
    assert_eq!(database.texts(indexes).await, new.database.as_ref().unwrap().texts(indexes).await);
}

#[tokio::test]
async fn however_large_the_journal_is_what_a_window_writes_lies_together() {
    let home = Home::on_sqlite();
    let store = home.open(Opener::Bridge);
    done(&store, "a.post", 100, 256).await;
    let route = store.route("a.post").await.unwrap();
    let file = Connection::open(home.config().path).unwrap();
    let wal = home.config().path.with_extension("db-wal");
    // Pages that stand behind the file, each with a header of 24 bytes.
    let mut pages = 0;
    let mut written = || {
        let now = std::fs::metadata(&wal).unwrap().len().saturating_sub(32) / (4_096 + 24);
        std::mem::replace(&mut pages, now).abs_diff(now)
    };
    file.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    written();
    let claims: Vec<Claim> = (0..256).map(|n| claim(&format!("next {n}"))).collect();
    let records = claims.iter().map(|claim| (claim.key, 0, Record::Delivered { opens: None })).collect();
    store.claim(route, 6_000_000, claims).await.unwrap();
    let claimed = written();
    store.record(route, 6_000_000, Some("m".repeat(64)), records).await.unwrap();
    let recorded = written();
    // By their keys they lie on about as many pages as they are.
    assert!(claimed < 256 + 40 && recorded < 40, "{claimed} pages claimed, {recorded} recorded");
}
