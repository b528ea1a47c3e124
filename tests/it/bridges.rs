//! Several bridges of one council on a PostgreSQL that they share: what is done side by side, what one does at a time, and
//! what becomes of the work of one that is killed.

use crate::{
    batches::Council,
    broker::with_a_broker_that_minds,
    databases::Database,
    nightly::Nightly,
    ordered::{self, Cases},
    payments::{self, ledger, paid_as},
    proxy::{Proxy, Way},
    standins::http::Fault,
    support::{Broker, Folder, Running, Site, Vhost, copy, event, until, until_within},
};
use serde_json::{Value, json};
use std::{collections::BTreeSet, time::Duration};

/// Longer than any test should take; bridges that were killed are asked about first.
const LONG: Duration = Duration::from_secs(180);

/// Puts a site's store on a server.
async fn share(site: &Site) -> Database {
    let database = Database::new().await;
    share_on(site, &database);
    database
}

/// The same on this one.
pub fn share_on(site: &Site, database: &Database) {
    use std::os::unix::fs::PermissionsExt as _;
    let path = site.folder.write("secrets/store", &database.password);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let settings = format!(
        "[store]\nurl = \"postgres://{}@{}/{}\"\npassword = \"file:{}\"\n\n[admin]",
        database.user,
        database.address,
        database.name,
        path.display()
    );
    site.edit("packhorse.toml", "[admin]", &settings);
}

/// A machine of its own: the same files in another folder.
pub fn elsewhere(site: &Site) -> Folder {
    let folder = Folder::new();
    for part in ["adapters", "mappings"] {
        copy(&site.folder.0.join(part), &folder.0.join(part));
    }
    std::fs::copy(site.folder.0.join("packhorse.toml"), folder.0.join("packhorse.toml")).unwrap();
    folder
}

fn log(folder: &Folder, name: &str) -> String {
    std::fs::read_to_string(folder.0.join(name)).unwrap_or_default()
}

/// How many bridges have had a part in what the journal holds.
async fn took_part(database: &Database) -> usize {
    let runs = database.texts("SELECT DISTINCT run FROM packhorse_example.journal").await;
    runs.len()
}

/// Payments by number, as events.
fn numbered(numbers: std::ops::Range<usize>) -> Vec<(String, Vec<u8>)> {
    numbers.map(|n| event("payment.succeeded.v1", &format!("event-{n}"), &paid_as(n))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_bridges_share_a_queue_and_when_one_is_killed_every_payment_is_posted_once() {
    const COUNT: usize = 60;
    let ledger = ledger().await;
    let database = share(&ledger.site).await;
    let first = ledger.site.run_as("log", &[]).await;
    let second = ledger.site.run_as("log-second", &[]).await;
    let payments = numbered(0..COUNT);
    ledger.site.vhost.publish_many(payments::QUEUE, &payments).await;
    until("the system has some", async || (ledger.ims.rows().len() > COUNT / 4).then_some(())).await;
    first.kill().await;
    let line = until_within(LONG, "all is delivered", async || {
        let line = ledger.site.account(payments::ROUTE).await;
        (line["delivered"] == COUNT).then_some(line)
    })
    .await;
    // What was done and not yet acknowledged has come again, as a duplicate.
    let taken = json!(COUNT as u64 + line["duplicate"].as_u64().unwrap());
    assert_eq!((&line["taken"], &line["dead"]), (&taken, &json!(0)), "{line}");
    let rows = ledger.ims.rows();
    let references: BTreeSet<&str> = rows.iter().map(|row| row["Reference"].as_str().unwrap_or("")).collect();
    assert_eq!((rows.len(), references.len()), (COUNT, COUNT), "each once");
    assert_eq!(took_part(&database).await, 2, "both had a part in it");
    assert_eq!(second.terminate().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bridge_leads_an_ordered_route_and_when_it_is_killed_another_goes_on_in_the_same_order() {
    let cases = Cases::new("").await;
    let _database = share(&cases.site).await;
    let first = cases.site.run_as("log", &[]).await;
    let second = cases.site.run_as("log-second", &[]).await;
    until("one stands by", async || stands_by(&cases.site).then_some(())).await;
    let all: Vec<(&str, u32)> =
        (1..=20).flat_map(|number| ["A", "B", "C", "D"].map(|subject| (subject, number))).collect();
    // What fails waits in the parking lot, which the other bridge must find.
    cases.wish("A", 3, &[500, 201]);
    cases.say(&all).await;
    until("the system has some", async || {
        (cases.first().values().map(Vec::len).sum::<usize>() > 10).then_some(())
    })
    .await;
    let leads = !log(&cases.site.folder, "log").contains("another bridge leads");
    let (leader, other) = if leads { (first, second) } else { (second, first) };
    leader.kill().await;
    until_within(LONG, "all is delivered", async || {
        (cases.site.account(ordered::ROUTE).await["delivered"] == 80).then_some(())
    })
    .await;
    for (subject, numbers) in cases.first() {
        assert_eq!(numbers, (1..=20).collect::<Vec<u32>>(), "{subject}");
    }
    assert_eq!(other.terminate().await, 0);
}

fn stands_by(site: &Site) -> bool {
    ["log", "log-second"].iter().any(|name| log(&site.folder, name).contains("another bridge leads"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_a_killed_bridge_had_begun_is_read_on_by_another_on_another_machine() {
    const ROWS: usize = 3_000;
    let nightly = Nightly::new().await;
    let _database = share(&nightly.site).await;
    let other_folder = elsewhere(&nightly.site);
    let first = nightly.site.run_as("log", &[]).await;
    until("it leads", async || nightly.path("").exists().then_some(())).await;
    let second = nightly.site.run_in(&other_folder, "log", &[]).await;
    let rows: String = (0..ROWS).map(|n| format!("c{n},Name{n},01/02/2015\r\n")).collect();
    nightly.writes("rows-1.csv", format!("CHILD,NAME,DOB\r\n{rows}"));
    until_within(LONG, "some rows are events", async || {
        (nightly.site.vhost.depth("platform").await > 200).then_some(())
    })
    .await;
    let leads = !log(&nightly.site.folder, "log").contains("another bridge leads");
    assert!(leads, "the first to start leads");
    first.kill().await;
    until_within(LONG, "all rows are events", async || {
        (nightly.site.account("nightly.rows").await["delivered"] == ROWS).then_some(())
    })
    .await;
    let ids = nightly.site.vhost.everything("platform").await;
    let different: BTreeSet<&String> = ids.iter().collect();
    assert_eq!(different.len(), ROWS, "each row is an event, {} messages in all", ids.len());
    let file = nightly.file("rows-1.csv", "done").await;
    assert_eq!((&file["records"], &file["bad"]), (&json!(ROWS), &json!(0)), "{file}");
    until("it is archived", async || nightly.path("done/rows-1.csv").exists().then_some(())).await;
    assert_eq!(second.terminate().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_with_other_mappings_does_not_start_beside_one_that_runs_and_says_what_differs() {
    let nightly = Nightly::new().await;
    let _database = share(&nightly.site).await;
    let first = nightly.site.run_as("log", &[]).await;
    let other = elsewhere(&nightly.site);
    let path = other.0.join("mappings/test/row.toml");
    let text = std::fs::read_to_string(&path).unwrap().replace("\"created\"", "\"changed\"");
    std::fs::write(&path, text).unwrap();
    let (code, text) = ends(nightly.site.begin_in(&other, "log", &[]), &other).await;
    assert_ne!(code, 0);
    assert!(text.contains("PH4008") && text.contains("the mapping test/row"), "{text}");
    assert!(!text.contains("test/child"), "only what differs is named: {text}");
    // When the other one has ended it starts.
    assert_eq!(first.terminate().await, 0);
    let second = nightly.site.run_in(&other, "log", &[]).await;
    assert_eq!(second.terminate().await, 0);
}

async fn ends(mut running: Running, folder: &Folder) -> (i32, String) {
    let code = until("it ends", async || running.ended()).await;
    (code, log(folder, "log"))
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_database_is_killed_and_comes_back_the_bridges_go_on_and_nothing_is_done_twice() {
    let cases = Cases::new("").await;
    let database = Database::alone().await;
    share_on(&cases.site, &database);
    let first = cases.site.run_as("log", &[]).await;
    let second = cases.site.run_as("log-second", &[]).await;
    let half: Vec<(&str, u32)> = (1..=10).flat_map(|number| [("A", number), ("B", number)]).collect();
    cases.say(&half).await;
    until("the system has some", async || (!cases.first().is_empty()).then_some(())).await;
    database.kill().await;
    let rest: Vec<(&str, u32)> = (11..=20).flat_map(|number| [("A", number), ("B", number)]).collect();
    cases.say(&rest).await;
    database.again().await;
    until_within(LONG, "all is delivered", async || {
        let (code, out, _) = cases.site.command(&["account", "--json"]).await;
        let line = out.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut line = line.filter(|line| line["route"] == ordered::ROUTE);
        (code == 0 && line.next().is_some_and(|line| line["delivered"] == 40)).then_some(())
    })
    .await;
    for (subject, numbers) in cases.first() {
        assert_eq!(numbers, (1..=20).collect::<Vec<u32>>(), "{subject}");
    }
    assert_eq!(first.terminate().await, 0);
    assert_eq!(second.terminate().await, 0);
}

/// Until a log says something so often.
async fn says(folder: &Folder, name: &str, what: &str, times: usize) {
    until_within(LONG, &format!("{name} says {times} times: {what}"), async || {
        (log(folder, name).matches(what).count() >= times).then_some(())
    })
    .await;
}

/// The broker notices soon that nothing comes from a consumer any more.
fn with_short_heartbeats(site: &Site) {
    site.edit("packhorse.toml", "[broker]", "[broker]\nheartbeat = \"3s\"");
}

/// How many bridges the database knows to live, while nobody writes.
async fn held(database: &Database) -> usize {
    let locks = "SELECT DISTINCT pid FROM pg_locks WHERE locktype = 'advisory' AND granted
                   AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    database.texts(locks).await.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_held_still_is_taken_over_and_when_it_goes_on_it_sends_nothing_and_stands_by() {
    let cases = Cases::new("").await;
    with_short_heartbeats(&cases.site);
    let _database = share(&cases.site).await;
    let first = cases.site.run_as("log", &[]).await;
    let second = cases.site.run_as("log-second", &[]).await;
    until("one stands by", async || stands_by(&cases.site).then_some(())).await;
    let leads = !log(&cases.site.folder, "log").contains("another bridge leads");
    let (leader, other, names) =
        if leads { (first, second, ["log", "log-second"]) } else { (second, first, ["log-second", "log"]) };
    let say = async |from: u32, to: u32| {
        let all: Vec<(&str, u32)> =
            (from..=to).flat_map(|number| ["A", "B", "C", "D"].map(|subject| (subject, number))).collect();
        cases.say(&all).await;
    };
    let delivered = async |count: usize| {
        until_within(LONG, "all is delivered", async || {
            (cases.site.account(ordered::ROUTE).await["delivered"] == count).then_some(())
        })
        .await;
    };
    // What fails waits in the parking lot, which the other bridge must find.
    cases.wish("A", 3, &[500, 201]);
    say(1, 100).await;
    until("the system has some", async || (cases.taken().len() > 30).then_some(())).await;
    leader.signal("STOP").await;
    let before = cases.taken().len();
    assert!(before < 400, "it is held still in the middle of its work");
    delivered(400).await;
    // What was under way comes again, once.
    let taken = cases.taken().len();
    assert!(taken <= 400 + 4, "{taken}");
    leader.signal("CONT").await;
    says(&cases.site.folder, names[0], "this bridge leads no more", 1).await;
    says(&cases.site.folder, names[0], "another bridge leads, this one stands by", 1).await;
    say(101, 120).await;
    delivered(480).await;
    assert!(cases.taken().len() <= taken + 80 + 1, "no more than what it was about to send when it was held");
    for (subject, numbers) in cases.first() {
        assert_eq!(numbers, (1..=120).collect::<Vec<u32>>(), "{subject}");
    }
    // The other way round: it takes over again.
    other.signal("STOP").await;
    say(121, 130).await;
    delivered(520).await;
    says(&cases.site.folder, names[0], "this bridge leads from now on", 1).await;
    other.signal("CONT").await;
    says(&cases.site.folder, names[1], "another bridge leads, this one stands by", 1).await;
    for (subject, numbers) in cases.first() {
        assert_eq!(numbers, (1..=130).collect::<Vec<u32>>(), "{subject}");
    }
    assert_eq!(leader.terminate().await, 0);
    assert_eq!(other.terminate().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_bridge_held_still_had_claimed_comes_to_another_and_when_it_goes_on_nothing_is_posted_twice() {
    const COUNT: usize = 60;
    let ledger = ledger().await;
    with_short_heartbeats(&ledger.site);
    let database = share(&ledger.site).await;
    let first = ledger.site.run_as("log", &[]).await;
    let payments = numbered(0..COUNT);
    ledger.server.misbehave("POST", payments::PATH, Fault::Late(Duration::from_millis(200)), 10);
    ledger.site.vhost.publish_many(payments::QUEUE, &payments).await;
    until("the system has some", async || (ledger.ims.rows().len() > 5).then_some(())).await;
    // What is refused for now is sent again after a moment, in the same attempt: there it is held.
    until("it is held in the middle of its work", async || {
        ledger.server.misbehave("POST", payments::PATH, Fault::Status(503, None), 10_000);
        let sent = ledger.sent();
        until("it tries", async || (ledger.sent() > sent).then_some(())).await;
        first.signal("STOP").await;
        ledger.server.behave();
        let claimed = "SELECT id FROM packhorse_example.journal WHERE state = 1";
        if database.texts(claimed).await.is_empty() {
            first.signal("CONT").await;
            return None;
        }
        Some(())
    })
    .await;
    assert!(ledger.ims.rows().len() < COUNT, "some are left");
    let second = ledger.site.run_as("log-second", &[]).await;
    let line = until_within(LONG, "all is delivered", async || {
        let line = ledger.site.account(payments::ROUTE).await;
        (line["delivered"] == COUNT).then_some(line)
    })
    .await;
    assert_eq!((&line["dead"], &line["waiting"]), (&json!(0), &json!(0)), "{line}");
    assert_eq!(ledger.ims.rows().len(), COUNT, "each once, while one is held still");
    assert_eq!(held(&database).await, 1, "the server has given it up");
    first.signal("CONT").await;
    until("it is back", async || (held(&database).await == 2).then_some(())).await;
    // What it had is given back, and comes as a duplicate; it takes part again.
    let more = numbered(COUNT..COUNT + 20);
    ledger.site.vhost.publish_many(payments::QUEUE, &more).await;
    until_within(LONG, "all is delivered", async || {
        let line = ledger.site.account(payments::ROUTE).await;
        (line["delivered"] == COUNT + 20).then_some(())
    })
    .await;
    ledger.site.vhost.drained(payments::QUEUE).await;
    assert_eq!(first.terminate().await, 0);
    assert_eq!(second.terminate().await, 0);
    let rows = ledger.ims.rows();
    let references: BTreeSet<&str> = rows.iter().map(|row| row["PspReference"].as_str().unwrap()).collect();
    assert_eq!((rows.len(), references.len()), (COUNT + 20, COUNT + 20), "each once");
    assert_eq!(took_part(&database).await, 2, "both had a part in it");
}

/// A machine that reaches a server, where it is named with this behind its address, through a proxy: the folder of that machine,
/// and what stands between.
async fn through_a_proxy(site: &Site, server: &str, behind: &str) -> (Folder, std::sync::Arc<Proxy>) {
    let proxy = Proxy::to(server.parse().unwrap()).await;
    let folder = elsewhere(site);
    let path = folder.0.join("packhorse.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let (direct, through) = (format!("{server}{behind}"), format!("{}{behind}", proxy.address));
    assert!(text.contains(&direct), "{direct} is in {text}");
    std::fs::write(&path, text.replace(&direct, &through)).unwrap();
    (folder, proxy)
}

/// How the leader and its store part.
#[derive(Debug, Clone, Copy)]
enum Parted {
    Cut,
    Stalled(Way),
}

/// One that leads loses sight of the store, and of nothing else.
async fn a_leader_without_its_store(parted: Parted) {
    let cases = Cases::new("").await;
    let database = share(&cases.site).await;
    let (folder, proxy) = through_a_proxy(&cases.site, &database.address, "").await;
    let first = cases.site.run_in(&folder, "log", &[]).await;
    let all: Vec<(&str, u32)> =
        (1..=60).flat_map(|number| ["A", "B", "C", "D"].map(|subject| (subject, number))).collect();
    cases.wish("A", 3, &[500, 201]);
    cases.say(&all).await;
    until("the system has some", async || (cases.taken().len() > 10).then_some(())).await;
    let second = cases.site.run_as("log", &[]).await;
    says(&cases.site.folder, "log", "another bridge leads, this one stands by", 1).await;
    match parted {
        Parted::Cut => {
            proxy.refuse(true);
            proxy.cut();
        }
        Parted::Stalled(way) => proxy.stall(way),
    }
    let delivered = async |count: usize| {
        until_within(LONG, "all is delivered", async || {
            (cases.site.account(ordered::ROUTE).await["delivered"] == count).then_some(())
        })
        .await;
    };
    // More than the first could have had in hand.
    let more: Vec<(&str, u32)> =
        (61..=200).flat_map(|number| ["A", "B", "C", "D"].map(|subject| (subject, number))).collect();
    cases.say(&more).await;
    delivered(800).await;
    says(&folder, "log", "this bridge leads no more", 1).await;
    says(&folder, "log", "code=PH4001", 1).await;
    proxy.refuse(false);
    proxy.open();
    says(&folder, "log", "another bridge leads, this one stands by", 1).await;
    assert_eq!(second.terminate().await, 0);
    cases.say(&[("A", 201), ("B", 201)]).await;
    delivered(802).await;
    for (subject, numbers) in cases.first() {
        let last = if ["A", "B"].contains(&subject.as_str()) { 201 } else { 200 };
        assert_eq!(numbers, (1..=last).collect::<Vec<u32>>(), "{subject}");
    }
    assert_eq!(first.terminate().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_cut_off_from_the_store_alone_leaves_its_queue_to_another() {
    a_leader_without_its_store(Parted::Cut).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_store_answers_nothing_leaves_its_queue_to_another() {
    a_leader_without_its_store(Parted::Stalled(Way::Down)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_store_hears_nothing_leaves_its_queue_to_another() {
    a_leader_without_its_store(Parted::Stalled(Way::Up)).await;
}

/// The only bridge, and its store stalls in the middle of its work, or of a commit.
async fn the_store_stalls(way: Way) {
    const COUNT: usize = 40;
    let ledger = ledger().await;
    let database = share(&ledger.site).await;
    let (folder, proxy) = through_a_proxy(&ledger.site, &database.address, "").await;
    let bridge = ledger.site.run_in(&folder, "log", &[]).await;
    // Slow is not stalled.
    proxy.slow(way, 400);
    ledger.site.vhost.publish_many(payments::QUEUE, &numbered(0..COUNT / 2)).await;
    until("the system has some", async || (ledger.ims.rows().len() > COUNT / 4).then_some(())).await;
    proxy.open();
    ledger.site.vhost.publish_many(payments::QUEUE, &numbered(COUNT / 2..COUNT)).await;
    let committing = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'COMMIT%' AND state = 'active'";
    match way {
        Way::Up => {}
        Way::Down => {
            // A commit takes a moment, so that it can be met.
            let late = "CREATE FUNCTION packhorse_example.late() RETURNS trigger LANGUAGE plpgsql AS
                          'BEGIN PERFORM pg_sleep(1); RETURN NULL; END';
                        CREATE CONSTRAINT TRIGGER late AFTER UPDATE ON packhorse_example.journal
                          DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION packhorse_example.late()";
            database.sql(late).await;
            until("it commits", async || (!database.texts(committing).await.is_empty()).then_some(())).await;
        }
    }
    proxy.stall(way);
    assert!(ledger.ims.rows().len() < COUNT, "it stalls in the middle");
    says(&folder, "log", "did not answer", 1).await;
    assert!(log(&folder, "log").contains("PH4001"));
    if way == Way::Down {
        database.sql("DROP TRIGGER late ON packhorse_example.journal").await;
    }
    proxy.open();
    until_within(LONG, "all is delivered", async || {
        (ledger.site.account(payments::ROUTE).await["delivered"] == COUNT).then_some(())
    })
    .await;
    ledger.site.vhost.drained(payments::QUEUE).await;
    assert_eq!(bridge.terminate().await, 0);
    let rows = ledger.ims.rows();
    let references: BTreeSet<&str> = rows.iter().map(|row| row["PspReference"].as_str().unwrap()).collect();
    assert_eq!((rows.len(), references.len()), (COUNT, COUNT), "each once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_stalls_before_it_answers_a_commit_is_given_up_and_nothing_is_lost_or_posted_twice() {
    the_store_stalls(Way::Down).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_hears_nothing_for_a_while_is_given_up_and_nothing_is_lost_or_posted_twice() {
    the_store_stalls(Way::Up).await;
}

/// Two bridges to a broker of the council, of which the first is held still behind its first claims, and has lost the platform's
/// broker alone; and the second has gone on. How many messages are there then, of twenty.
async fn held_still_before_it_publishes(keys: &str) -> (Vhost, Site, Database, Folder, [Running; 2], u64) {
    // One thing after the other: what is already on its way to the socket leaves it when the bridge goes on.
    let (council, site) = with_a_broker_that_minds(&format!("{keys}\nconcurrency = 1")).await;
    let database = share(&site).await;
    site.good(&["topology", "apply"]).await;
    // Of the broker only the platform's part: the council's is another vhost of it.
    let broker = Broker::shared().address;
    let broker = broker.trim_start_matches("amqp://");
    let (folder, proxy) = through_a_proxy(&site, broker, &format!("/{}\"", site.vhost.name)).await;
    let first = site.run_in(&folder, "log", &[("PACKHORSE_STILL", "deliver.claimed")]).await;
    let messages: Vec<_> =
        (1..=10).flat_map(|number| ["A", "B"].map(|subject| ordered::message(subject, number))).collect();
    site.vhost.publish_many("packhorse.council-broker.payments", &messages).await;
    says(&folder, "log", "stands still at deliver.claimed", 1).await;
    proxy.cut();
    let second = site.run_as("log-second", &[]).await;
    let sent = until_within(LONG, "the other has gone on, and nothing waits", async || {
        let line = site.account("council-broker.payments").await;
        let ended = line["delivered"].as_u64()? + line["dead"].as_u64()?;
        (ended == 20).then(|| line["delivered"].as_u64()).flatten()
    })
    .await;
    assert_eq!(council.depth("payments.succeeded").await, sent);
    (council, site, database, folder, [first, second], sent)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_bridge_held_still_had_claimed_for_a_broker_is_not_published_when_it_goes_on() {
    let (council, site, database, folder, [first, second], sent) =
        held_still_before_it_publishes("repeat = \"never\"").await;
    // Whether it was sent nobody knows: it is before a person.
    let dead = site.dead(20 - sent as usize).await;
    assert!(!dead.is_empty());
    first.signal("CONT").await;
    // It hears whose they are or, where its connection to the store is found dead first, that nobody can say.
    let gives_back = ["another has taken the message over", "the store failed, messages are given back"];
    until("it gives them back", async || {
        let log = log(&folder, "log");
        gives_back.iter().any(|what| log.contains(what)).then_some(())
    })
    .await;
    until("it is back", async || (held(&database).await == 2).then_some(())).await;
    assert_eq!(first.terminate().await, 0);
    assert_eq!(second.terminate().await, 0);
    assert_eq!(council.depth("payments.succeeded").await, sent, "no more than there was");
    let line = site.account("council-broker.payments").await;
    assert_eq!((&line["delivered"], &line["dead"]), (&json!(sent), &json!(dead.len())), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_held_still_before_it_publishes_leaves_the_order_of_a_broker_alone_when_it_goes_on() {
    let (council, _site, _database, folder, [first, second], sent) =
        held_still_before_it_publishes("repeat = \"harmless\"\norder = \"subject\"").await;
    assert_eq!(sent, 20);
    first.signal("CONT").await;
    says(&folder, "log", "another bridge leads, this one stands by", 1).await;
    assert_eq!(first.terminate().await, 0);
    assert_eq!(second.terminate().await, 0);
    let there = council.depth("payments.succeeded").await;
    assert_eq!(there, 20, "an old message again behind newer ones would have overtaken them");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_held_still_before_it_puts_a_batchs_file_does_not_put_it_when_it_goes_on() {
    let council = Council::new().await;
    let site = &council.site;
    site.edit("adapters/bacs-standard-18.toml", "cut_off = [\"16:00\"]", "cut_off = []\nmost = 3");
    site.edit("packhorse.toml", "[store]\npath = \"var/packhorse.db\"\n", "");
    with_short_heartbeats(site);
    let _database = share(site).await;
    site.good(&["topology", "apply"]).await;
    let first = site.run_as("log", &[("PACKHORSE_STILL", "batch.claimed")]).await;
    council.collect(0, 3).await;
    says(&site.folder, "log", "stands still at batch.claimed", 1).await;
    let second = site.run_as("log-second", &[]).await;
    let doubt = until_within(LONG, "another leads, and puts it before a person", async || {
        council.batches().await.into_iter().find(|batch| batch["code"] == "PH2006")
    })
    .await;
    assert!(council.files().is_empty());
    let number = doubt["number"].to_string();
    let word = ["--not-received", "--by", "A Tester", "--reason", "the folder is empty"];
    site.good(&[&["batches", "settle", &number], &word[..]].concat()).await;
    council.at("sent").await;
    assert_eq!(council.files().len(), 1);
    // The bureau takes it away.
    for name in council.files().keys() {
        std::fs::remove_file(council.out().join(name)).unwrap();
    }
    first.signal("CONT").await;
    let stands_by = "another bridge leads, this one stands by duty=\"batch bacs-standard-18.submission\"";
    says(&site.folder, "log", stands_by, 1).await;
    assert_eq!(first.terminate().await, 0);
    assert_eq!(second.terminate().await, 0);
    assert!(council.files().is_empty(), "a second file would collect the money twice");
}
