//! What has been done is remembered for as long as it could come back, then forgotten little by little: the store alone, and
//! the program.

use crate::{
    ordered::{Cases, ROUTE},
    support::{Folder, until},
};
use packhorse::{
    event::Key,
    store::{Asked, Claim, Opener, Place, Record, Store, Walk},
};
use rusqlite::params;
use serde_json::json;
use std::time::Duration;

const DAY: i64 = 86_400_000;

fn now() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

fn claim(id: &str) -> Claim {
    Claim {
        key: Key::of("urn:test", id),
        part: 0,
        source: "urn:test".to_owned(),
        id: id.to_owned(),
        attempt: 1,
        replay: 0,
        settled: false,
    }
}

/// Messages of a hundred days ago, each with a part that was delivered; all in one moment, as the records of a file are.
fn old(store: &rusqlite::Connection, route: i64, name: &str, count: u32, state: i64) {
    let at = now() - 100 * DAY;
    let tx = store.unchecked_transaction().unwrap();
    let (mut high, mut low) = (0, 0);
    for n in 0..count {
        let key = Key::of("urn:test", &format!("{name}-{n}")).0;
        for (part, state) in [(0, state), (1, 4)] {
            tx.prepare_cached(
                "INSERT INTO journal (route, key, part, state, attempt, replay, doubt, run, source, id, taken_at)
                 VALUES (?1, ?2, ?3, ?4, 1, 0, 0, 1, '', ?5, ?6)",
            )
            .unwrap()
            .execute(params![route, key, part, state, format!("{name}-{n}"), at])
            .unwrap();
        }
        let published = "INSERT INTO published (key, at) VALUES (?1, ?2)";
        tx.prepare_cached(published).unwrap().execute(params![key, at]).unwrap();
        high += i64::from(u32::from_be_bytes(key[..4].try_into().unwrap()));
        low += i64::from(u32::from_be_bytes(key[4..8].try_into().unwrap()));
    }
    tx.execute(
        "INSERT INTO intake (route, hour, messages, copies, high, low) VALUES (?1, ?2, ?3, 0, ?4, ?5)
         ON CONFLICT DO UPDATE SET messages = messages + ?3, high = high + ?4, low = low + ?5",
        params![route, at / 3_600_000, count, high, low],
    )
    .unwrap();
    tx.commit().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_forgotten_goes_little_by_little_with_its_parts_and_never_before_its_time() {
    let folder = Folder::new();
    let path = folder.0.join("packhorse.db");
    let store = Store::open(&path, 1 << 30, Opener::Bridge).unwrap();
    let route = store.route("test.post").await.unwrap();
    let sql = rusqlite::Connection::open(&path).unwrap();
    sql.busy_timeout(Duration::from_secs(10)).unwrap();
    let number: i64 = sql.query_row("SELECT n FROM route", [], |row| row.get(0)).unwrap();
    // More of them wait for a person than one step looks at: pruning goes past them.
    for (name, count, state) in
        [("dead", 1_000, 5), ("waiting", 300, 2), ("done", 8_000, 4), ("nothing", 200, 8)]
    {
        old(&sql, number, name, count, state);
    }
    let young: Vec<Claim> = (0..50).map(|n| claim(&format!("young-{n}"))).collect();
    store.claim(route, now(), young.clone()).await.unwrap();
    let done = Record::Delivered { opens: None };
    let records = young.iter().map(|claim| (claim.key, 0, done.clone())).collect();
    store.record(route, now(), None, records).await.unwrap();
    let size = store.size().await.unwrap();
    assert_eq!((size.messages, size.oldest.map(|at| (now() - at) / DAY)), (9_550, Some(100)));
    assert!(size.bytes > 1 << 20, "{size:?}");
    // Somebody works all the time.
    let (working, stop) = (store.clone(), tokio_util::sync::CancellationToken::new());
    let ended = stop.clone();
    let work = tokio::spawn(async move {
        let mut claimed = 0;
        while !ended.is_cancelled() {
            let one = claim(&format!("meanwhile-{claimed}"));
            let key = one.key;
            let places = working.claim(route, now(), vec![one]).await.unwrap();
            assert!(matches!(places[..], [Place::Go(_)]));
            working
                .record(route, now(), None, vec![(key, 0, Record::Delivered { opens: None })])
                .await
                .unwrap();
            claimed += 1;
        }
        claimed
    });
    let (mut steps, mut gone, mut walk) = (0, 0, Some(Walk::default()));
    while let Some(from) = walk {
        let (rows, next) = store.prune(now() - 90 * DAY, from).await.unwrap();
        assert!(rows <= 500, "{rows} rows in one step");
        (steps, gone, walk) = (steps + 1, gone + rows, next);
    }
    stop.cancel();
    let claimed: i64 = work.await.unwrap();
    assert!(claimed >= steps / 4, "{claimed} messages within {steps} steps");
    // Each with its part, and what was published.
    assert_eq!(gone, 2 * 8_200 + 9_500, "in {steps} steps");
    let count = |what: &str| {
        sql.query_row(&format!("SELECT count(*) FROM {what}"), [], |row| row.get::<_, i64>(0)).unwrap()
    };
    assert_eq!(count("journal WHERE state IN (2, 5) AND part = 0"), 1_300);
    assert_eq!(
        count("journal WHERE part = 1"),
        1_300,
        "a part is known as long as its message may be replayed"
    );
    assert_eq!(count("published"), 0);
    let account = store.account(Asked { now: now(), ..Asked::default() }).await.unwrap();
    let line = &account.routes[0];
    assert!(line.closes(), "{line:?}");
    assert_eq!((line.taken, line.pruned, line.dead, line.nothing), (9_550 + claimed, 8_200, 1_000, 200));
    assert_eq!(line.delivered, 8_050 + claimed);
    assert_eq!(store.size().await.unwrap().messages, 1_350 + claimed);
    // Again: there is nothing more, however much is left that waits.
    let mut walk = Some(Walk::default());
    while let Some(from) = walk {
        let (rows, next) = store.prune(now() - 90 * DAY, from).await.unwrap();
        assert_eq!(rows, 0);
        walk = next;
    }
}

#[tokio::test]
async fn a_letter_of_which_the_journal_knows_nothing_is_replayed_only_on_a_persons_word() {
    let cases = Cases::new("makes = \"record\"\nrepeat = \"never\"\n").await;
    cases.site.edit("adapters/cases.toml", "order = \"subject\"\n", "");
    cases.wish("A", 1, &[400, 201]);
    let bridge = cases.site.start().await;
    cases.say(&[("A", 1)]).await;
    cases.site.dead(1).await;
    assert!(bridge.stop().await);
    // The message was done by another copy, longer ago than the journal remembers.
    let store = rusqlite::Connection::open(cases.site.folder.0.join("var/packhorse.db")).unwrap();
    store.execute_batch("DELETE FROM journal; DELETE FROM intake").unwrap();
    drop(store);
    let bridge = cases.site.start().await;
    let by = ["--by", "A Clerk", "--reason", "mended"];
    let replay = [&["dead-letters", "replay", "--all"][..], &by].concat();
    let (code, out, err) = cases.site.command(&replay).await;
    assert!(code == 1 && format!("{out}{err}").contains("nobody remembers"), "{out}{err}");
    assert_eq!(cases.site.vhost.depth("packhorse.dead").await, 1, "it stays where it was");
    cases.site.good(&[&replay[..], &["--not-received"]].concat()).await;
    until("it is delivered", async || {
        let line = cases.site.account(ROUTE).await;
        (line["delivered"] == 1 && line["taken"] == 1).then_some(())
    })
    .await;
    assert!(bridge.stop().await);
}

#[tokio::test]
async fn how_large_the_journal_is_can_be_watched_and_the_memory_is_as_long_as_a_message_may_take() {
    let cases = Cases::new("").await;
    let usual = cases.site.project().config.unwrap().store.keep;
    assert_eq!(usual, Duration::from_secs(90 * 86_400));
    // A letter may lie for half a year: so long it is remembered, without a word of `keep`.
    cases.site.edit("packhorse.toml", "[admin]", "[store]\ndead_letters = \"180d\"\n[admin]");
    let config = cases.site.project().config.unwrap();
    assert_eq!(config.store.keep, Duration::from_secs((180 + 3) * 86_400 + 5));
    let bridge = cases.site.start().await;
    cases.say(&[("A", 1), ("B", 1)]).await;
    until("both", async || (cases.site.account(ROUTE).await["delivered"] == 2).then_some(())).await;
    let url = format!("http://{}/metrics", bridge.admin.unwrap());
    let text = until("it is measured", async || {
        let text = reqwest::get(&url).await.unwrap().text().await.unwrap();
        text.contains("packhorse_journal_messages 2\n").then_some(text)
    })
    .await;
    let value = |name: &str| -> i64 {
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} "))).unwrap();
        line.parse().unwrap()
    };
    assert!(value("packhorse_store_bytes") > 100_000, "{text}");
    assert!((0..60).contains(&value("packhorse_journal_oldest_seconds")), "{text}");
    assert!(bridge.stop().await);
    assert_eq!(cases.site.account(ROUTE).await["difference"], json!(0));
}
