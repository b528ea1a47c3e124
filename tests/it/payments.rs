//! A payment becomes a posting in the council's income system, once, whatever happens on the way: on a real RabbitMQ,
//! with the adapters and mappings of this repository, against a stand-in for LocalGovIMS over real sockets.

use crate::{
    standins::{
        http::{Fault, Server},
        ims::Ims,
    },
    store::versions::BACK_TO_SIX,
    support::{Seen, Site, example, until},
};
use serde_json::{Value, json};
use std::sync::Arc;

/// A council with LocalGovIMS, and a bridge that posts to it.
pub struct Ledger {
    pub ims: Arc<Ims>,
    pub server: Server,
    pub site: Site,
}

pub async fn ledger() -> Ledger {
    let ims = Arc::new(Ims::default());
    let server = Server::start(ims.clone(), 0).await.unwrap();
    let settings = format!("[adapters.localgov-ims]\nsettings = {{ base_url = \"{}\" }}\n", server.url);
    Ledger { ims, server, site: Site::new(&settings).await }
}

pub const ROUTE: &str = "localgov-ims.post";
pub const QUEUE: &str = "packhorse.localgov-ims.post";
pub const PATH: &str = "/api/ProcessedTransactions";

/// A payment of one line that succeeded.
pub fn paid() -> Value {
    let mut data = example("payment.succeeded.v1");
    data["amount"] = json!(6250);
    data["total_amount"] = json!(6250);
    data["lines"] = json!([{ "line_id": "1", "description": "Council tax", "amount": 6250, "fund": "council-tax", "account": "771234561" }]);
    data
}

/// The same, as one of many payments: what a probe finds of one is not of another.
pub fn paid_as(number: usize) -> Value {
    let mut data = paid();
    data["payment_id"] = json!(format!("payment-{number}"));
    data["provider_reference"] = json!(format!("reference-{number}"));
    data
}

impl Ledger {
    /// One payment, `id`, that must end as one row, told to the platform once.
    async fn one_row(&self, id: &str) -> Value {
        self.site.vhost.say("payment.succeeded.v1", id, &paid()).await;
        self.told(1).await;
        let rows = self.ims.rows();
        assert_eq!(rows.len(), 1, "{rows:?}");
        rows[0].clone()
    }

    /// So many postings were told to the platform, and nothing is left to do.
    pub async fn told(&self, count: usize) -> Vec<Seen> {
        let told = self.site.vhost.until("platform", count).await;
        self.site.vhost.drained(QUEUE).await;
        assert_eq!(told.len(), count);
        assert!(told.iter().all(|event| event.routing_key == "payment.posted.v1.example"));
        told
    }

    /// Where the bridge keeps its journal.
    pub fn store(&self) -> std::path::PathBuf {
        let path = self.site.project().config.unwrap().store.path;
        self.site.folder.0.join(path)
    }

    pub fn sent(&self) -> usize {
        self.server.requests("POST", PATH).len()
    }
}

#[tokio::test]
async fn each_line_of_a_payment_becomes_one_posting_and_the_platform_is_told_of_each() {
    let ledger = ledger().await;
    let bridge = ledger.site.start().await;
    ledger.site.vhost.say("payment.succeeded.v1", "event-1", &example("payment.succeeded.v1")).await;
    let told = ledger.told(3).await;
    let rows = ledger.ims.rows();
    assert_eq!(rows.len(), 3);
    let amounts: Vec<f64> = rows.iter().map(|row| row["Amount"].as_f64().unwrap()).collect();
    assert_eq!(amounts, [62.50, 38.00, 2.50]);
    let funds: Vec<&str> = rows.iter().map(|row| row["FundCode"].as_str().unwrap()).collect();
    assert_eq!(funds, ["21", "13", "40"]);
    for event in told {
        assert_eq!(event.properties["content_type"], "application/cloudevents+json");
        assert_eq!(event.json()["causationid"], "event-1");
        assert_eq!(event.json()["data"]["payment_id"], "0b9f4c52-7d1e-4e0a-9a63-5c2f18d7e4b0");
    }
    assert!(bridge.stop().await);
    let account = ledger.site.account(ROUTE).await;
    assert_eq!((&account["taken"], &account["delivered"]), (&json!(1), &json!(1)));
}

#[tokio::test]
async fn a_system_that_is_busy_is_tried_again_later_and_then_gets_it_once() {
    let ledger = ledger().await;
    // The attempt and its two tries at once; then a tier of five seconds.
    ledger.server.misbehave("POST", PATH, Fault::Status(503, None), 3);
    let bridge = ledger.site.start().await;
    ledger.one_row("event-1").await;
    assert_eq!(ledger.sent(), 4);
    assert!(bridge.stop().await);
}

#[tokio::test]
async fn a_system_that_says_when_to_come_back_is_left_alone_until_then() {
    let ledger = ledger().await;
    ledger.server.misbehave("POST", PATH, Fault::Status(429, Some(4)), 1);
    let bridge = ledger.site.start().await;
    let began = std::time::Instant::now();
    ledger.one_row("event-1").await;
    assert_eq!(ledger.sent(), 2, "not tried at once");
    assert!(began.elapsed().as_secs() >= 4);
    assert!(bridge.stop().await);
}

#[tokio::test]
async fn an_answer_that_is_cut_is_settled_by_asking_and_the_row_is_not_posted_twice() {
    for fault in [Fault::CutAfter, Fault::HalfAnswer] {
        let ledger = ledger().await;
        ledger.server.misbehave("POST", PATH, fault, 1);
        let bridge = ledger.site.start().await;
        ledger.one_row("event-1").await;
        assert_eq!(ledger.sent(), 1);
        assert_eq!(ledger.server.requests("GET", PATH).len(), 1);
        assert!(bridge.stop().await);
    }
}

#[tokio::test]
async fn a_request_that_was_cut_before_it_was_carried_out_is_asked_about_and_then_sent_again() {
    let ledger = ledger().await;
    ledger.server.misbehave("POST", PATH, Fault::CutBefore, 1);
    let bridge = ledger.site.start().await;
    ledger.one_row("event-1").await;
    assert_eq!(ledger.sent(), 2);
    assert_eq!(ledger.server.requests("GET", PATH).len(), 1);
    assert!(bridge.stop().await);
}

#[tokio::test]
async fn a_400_without_a_word_is_no_refusal_whether_the_row_was_stored_or_not() {
    let stored = ledger().await;
    *stored.ims.store_and_fail.lock().unwrap() = 1;
    let bridge = stored.site.start().await;
    stored.one_row("event-1").await;
    assert_eq!(stored.sent(), 1);
    assert!(bridge.stop().await);

    let not_stored = ledger().await;
    not_stored.server.misbehave("POST", PATH, Fault::Status(400, None), 1);
    let bridge = not_stored.site.start().await;
    not_stored.one_row("event-1").await;
    assert_eq!(not_stored.sent(), 2);
    assert!(bridge.stop().await);
}

#[tokio::test]
async fn a_refusal_with_a_sentence_is_asked_about_before_it_is_believed() {
    let ledger = ledger().await;
    *ledger.ims.store_and_refuse.lock().unwrap() = 1;
    let bridge = ledger.site.start().await;
    ledger.one_row("event-1").await;
    assert_eq!(ledger.sent(), 1);
    assert!(ledger.site.vhost.peek("packhorse.dead").await.is_empty());
    // One that is really refused is not there, and goes before a person.
    let mut data = paid();
    data["provider_reference"] = json!("another-reference");
    data["lines"][0]["fund"] = json!("business-rates");
    data["lines"][0]["account"] = json!("561234564");
    ledger.site.edit("mappings/codes/fund.csv", "business-rates,24,,", "business-rates,99,,");
    assert!(bridge.stop().await);
    let bridge = ledger.site.start().await;
    ledger.site.vhost.say("payment.succeeded.v1", "event-2", &data).await;
    let dead = ledger.site.dead(1).await;
    let what = (dead[0].header("packhorse_code"), dead[0].header("packhorse_what"));
    assert!(what.0 == "PH2002" && what.1.contains("LocalGovIMS refuses the row"), "{what:?}");
    assert!(bridge.stop().await);
}

#[tokio::test]
async fn a_refusal_that_cannot_be_asked_about_at_once_is_asked_about_later_and_not_sent_again_blindly() {
    let ledger = ledger().await;
    *ledger.ims.store_and_refuse.lock().unwrap() = 1;
    ledger.server.misbehave("GET", PATH, Fault::Status(503, None), 1);
    let bridge = ledger.site.start().await;
    ledger.one_row("event-1").await;
    assert_eq!(ledger.sent(), 1);
    assert!(bridge.stop().await);
}

#[tokio::test]
async fn while_the_system_cannot_be_asked_nothing_is_sent_blindly() {
    let ledger = ledger().await;
    ledger.server.misbehave("POST", PATH, Fault::CutAfter, 1);
    ledger.server.misbehave("GET", PATH, Fault::Status(503, None), 1);
    let bridge = ledger.site.start().await;
    ledger.one_row("event-1").await;
    assert_eq!(ledger.sent(), 1);
    assert_eq!(ledger.server.requests("GET", PATH).len(), 2);
    assert!(bridge.stop().await);
}

#[tokio::test]
async fn a_page_for_people_in_place_of_an_answer_is_no_proof_that_anything_was_done() {
    let ledger = ledger().await;
    ledger.server.misbehave("POST", PATH, Fault::HtmlPage, 1);
    let bridge = ledger.site.start().await;
    ledger.one_row("event-1").await;
    assert_eq!(ledger.sent(), 2);
    assert!(bridge.stop().await);
}

#[tokio::test]
async fn a_row_that_the_systems_own_rules_put_elsewhere_is_found_again_and_told_as_it_was_stored() {
    let ledger = ledger().await;
    *ledger.ims.reroute.lock().unwrap() = Some(("23".to_owned(), "SP".to_owned()));
    ledger.server.misbehave("POST", PATH, Fault::CutAfter, 1);
    let bridge = ledger.site.start().await;
    ledger.one_row("event-1").await;
    let told = ledger.told(1).await;
    assert_eq!(told[0].json()["data"]["fund"], "suspense");
    assert!(bridge.stop().await);
}

#[tokio::test]
async fn the_same_event_again_is_a_duplicate_and_counted_as_one() {
    let ledger = ledger().await;
    let bridge = ledger.site.start().await;
    ledger.one_row("event-1").await;
    for _ in 0..3 {
        ledger.site.vhost.say("payment.succeeded.v1", "event-1", &paid()).await;
    }
    ledger.site.vhost.drained(QUEUE).await;
    assert!(bridge.stop().await);
    assert_eq!(ledger.sent(), 1);
    let account = ledger.site.account(ROUTE).await;
    assert_eq!(
        (&account["taken"], &account["delivered"], &account["duplicate"]),
        (&json!(4), &json!(1), &json!(3))
    );
}

#[tokio::test]
async fn what_the_provider_posts_itself_is_not_posted_again() {
    let ledger = ledger().await;
    let bridge = ledger.site.start().await;
    let mut data = paid();
    data["provider"] = json!("capita-scp");
    data["posting"] = json!("done-by-provider");
    ledger.site.vhost.say("payment.succeeded.v1", "event-1", &data).await;
    ledger.site.vhost.drained(QUEUE).await;
    ledger.one_row("event-2").await;
    assert_eq!(ledger.sent(), 1);
    assert!(bridge.stop().await);
}

#[tokio::test]
async fn a_refusal_is_a_dead_letter_with_its_reason_and_after_the_code_list_is_mended_a_replay_posts_it_once()
{
    let ledger = ledger().await;
    let bridge = ledger.site.start().await;
    let mut data = paid();
    data["lines"][0]["fund"] = json!("cemeteries");
    ledger.site.vhost.say("payment.succeeded.v1", "event-1", &data).await;
    let dead = ledger.site.dead(1).await;
    assert_eq!(dead[0].header("packhorse_code"), "PH1204");
    assert_eq!(dead[0].header("packhorse_stage"), "mapping");
    assert!(dead[0].header("packhorse_field").contains("fund"), "{}", dead[0].header("packhorse_field"));
    assert!(!dead[0].header("packhorse_help").is_empty());
    assert!(
        !dead[0].properties["headers"].to_string().contains("cemeteries"),
        "no value of a message is in a header"
    );
    assert_eq!(dead[0].json()["data"], data, "the letter is whole");
    assert!(bridge.stop().await);
    let account = ledger.site.account(ROUTE).await;
    assert_eq!(account["dead"], 1);
    let list = ledger.site.good(&["dead-letters", "list"]).await;
    assert!(list.contains("PH1204") && list.contains("localgov-ims.post"), "{list}");

    ledger.site.edit("mappings/codes/fund.csv", "planning,32,,", "planning,32,,\ncemeteries,13,to-document,");
    let bridge = ledger.site.start().await;
    let out = ledger
        .site
        .good(&["dead-letters", "replay", "--code", "PH1204", "--by", "tester", "--reason", "fund added"])
        .await;
    assert!(out.contains('1'), "{out}");
    ledger.told(1).await;
    assert_eq!(ledger.ims.rows().len(), 1);
    assert_eq!(ledger.site.vhost.depth("packhorse.dead").await, 0);
    // A second replay finds nothing, and a second copy is a duplicate.
    ledger.site.vhost.say("payment.succeeded.v1", "event-1", &data).await;
    ledger.site.vhost.drained(QUEUE).await;
    assert!(bridge.stop().await);
    assert_eq!(ledger.sent(), 1);
    let account = ledger.site.account(ROUTE).await;
    assert_eq!(
        (&account["taken"], &account["delivered"], &account["dead"]),
        (&json!(2), &json!(1), &json!(0))
    );
}

#[tokio::test]
async fn what_a_person_says_of_a_request_in_doubt_counts_for_that_request_only() {
    let ledger = ledger().await;
    ledger.site.edit("adapters/localgov-ims.toml", "repeat = \"probe\"", "repeat = \"never\"");
    ledger.server.misbehave("POST", PATH, Fault::CutBefore, 1);
    ledger.server.misbehave("POST", PATH, Fault::Status(503, None), 3);
    ledger.server.misbehave("POST", PATH, Fault::CutAfter, 1);
    let bridge = ledger.site.start().await;
    ledger.site.vhost.say("payment.succeeded.v1", "event-1", &paid()).await;
    let dead = ledger.site.dead(1).await;
    assert_eq!(dead[0].header("packhorse_code"), "PH2006");
    let replay = ["dead-letters", "replay", "--code", "PH2006", "--by", "tester", "--reason", "looked"];
    let (_, out, err) = ledger.site.command(&replay).await;
    assert!(format!("{out}{err}").contains("PH5002"), "{out}{err}");
    assert_eq!(ledger.sent(), 1, "nothing is sent while it is in doubt");
    // The person has looked: it was not received. It is busy for a while, then sent, and that answer is cut as well.
    ledger.site.good(&[&replay[..], &["--not-received"]].concat()).await;
    ledger.server.until("POST", PATH, 5).await;
    let dead = ledger.site.dead(1).await;
    assert_eq!(
        (dead[0].header("packhorse_code"), dead[0].header("packhorse_in_doubt")),
        ("PH2006".to_owned(), "yes".to_owned())
    );
    assert!(bridge.stop().await);
    assert_eq!((ledger.sent(), ledger.ims.rows().len()), (5, 1), "the second doubt is not taken for settled");
}

#[tokio::test]
async fn a_line_that_is_refused_does_not_hold_up_the_others_and_its_replay_posts_only_that_line() {
    let ledger = ledger().await;
    let bridge = ledger.site.start().await;
    let mut data = example("payment.succeeded.v1");
    data["lines"][1]["fund"] = json!("cemeteries");
    ledger.site.vhost.say("payment.succeeded.v1", "event-1", &data).await;
    let dead = ledger.site.dead(1).await;
    assert!(
        dead[0].header("packhorse_field").starts_with("lines[2]"),
        "{}",
        dead[0].header("packhorse_field")
    );
    assert_eq!(ledger.ims.rows().len(), 2);
    assert!(bridge.stop().await);
    ledger.site.edit("mappings/codes/fund.csv", "planning,32,,", "planning,32,,\ncemeteries,13,to-document,");
    let bridge = ledger.site.start().await;
    ledger
        .site
        .good(&["dead-letters", "replay", "--code", "PH1204", "--by", "tester", "--reason", "fund added"])
        .await;
    ledger.told(3).await;
    let accounts: Vec<Value> = ledger.ims.rows().iter().map(|row| row["Amount"].clone()).collect();
    assert_eq!(accounts, [json!(62.5), json!(2.5), json!(38.0)]);
    assert!(bridge.stop().await);
    ledger.site.account(ROUTE).await;
}

#[tokio::test]
async fn a_crash_between_sending_and_recording_posts_nothing_twice() {
    let ledger = ledger().await;
    ledger.server.misbehave("POST", PATH, Fault::HangAfter, 1);
    let running = ledger.site.run().await;
    ledger.site.vhost.say("payment.succeeded.v1", "event-1", &paid()).await;
    ledger.server.until("POST", PATH, 1).await;
    assert_eq!(ledger.ims.rows().len(), 1);
    running.kill().await;
    let running = ledger.site.run().await;
    ledger.told(1).await;
    assert_eq!(ledger.ims.rows().len(), 1);
    assert_eq!(ledger.sent(), 1);
    assert_eq!(running.terminate().await, 0);
    let account = ledger.site.account(ROUTE).await;
    assert_eq!((&account["taken"], &account["delivered"]), (&json!(1), &json!(1)));
}

#[tokio::test]
async fn a_crash_before_the_request_is_carried_out_loses_nothing() {
    let ledger = ledger().await;
    ledger.server.misbehave("POST", PATH, Fault::Hang, 1);
    let running = ledger.site.run().await;
    ledger.site.vhost.say("payment.succeeded.v1", "event-1", &paid()).await;
    ledger.server.until("POST", PATH, 1).await;
    running.kill().await;
    let running = ledger.site.run().await;
    ledger.told(1).await;
    assert_eq!(ledger.ims.rows().len(), 1);
    assert_eq!(ledger.sent(), 2);
    assert_eq!(running.terminate().await, 0);
}

#[tokio::test]
async fn a_stop_while_a_request_is_under_way_waits_for_its_answer() {
    let ledger = ledger().await;
    let running = ledger.site.run().await;
    for number in 0..20 {
        ledger.site.vhost.say("payment.succeeded.v1", &format!("event-{number}"), &paid_as(number)).await;
    }
    ledger.server.until("POST", PATH, 3).await;
    assert_eq!(running.terminate().await, 0);
    // What was not begun is in its queue, what was begun is done; nothing is between the two.
    let left = ledger.site.vhost.depth(QUEUE).await;
    assert_eq!(ledger.ims.rows().len() as u64 + left, 20);
    let running = ledger.site.run().await;
    ledger.told(20).await;
    assert_eq!(ledger.ims.rows().len(), 20);
    assert_eq!(running.terminate().await, 0);
}

#[tokio::test]
async fn a_cut_connection_to_the_broker_posts_nothing_twice_and_loses_nothing() {
    let ledger = ledger().await;
    let bridge = ledger.site.start().await;
    for number in 0..30 {
        ledger.site.vhost.say("payment.succeeded.v1", &format!("event-{number}"), &paid_as(number)).await;
        if number % 10 == 5 {
            ledger.site.vhost.cut().await;
        }
    }
    until("30 rows", async || (ledger.ims.rows().len() >= 30).then_some(())).await;
    until("30 events", async || (ledger.site.vhost.peek("platform").await.len() >= 30).then_some(())).await;
    ledger.site.vhost.drained(QUEUE).await;
    assert_eq!(ledger.ims.rows().len(), 30);
    assert!(bridge.stop().await);
    let account = ledger.site.account(ROUTE).await;
    assert_eq!(account["delivered"], 30);
}

#[tokio::test]
async fn a_store_of_the_version_before_is_taken_over_with_all_it_knows() {
    let ledger = ledger().await;
    let bridge = ledger.site.start().await;
    ledger.one_row("event-1").await;
    assert!(bridge.stop().await);
    let store = rusqlite::Connection::open(ledger.store()).unwrap();
    // As version 1 had it: without why parts were given up, without files, batches, gates and a parking lot, and with one count of
    // what was taken in, and the journal in the order of its keys.
    let since = "DROP INDEX journal_waiting; DROP TABLE pause; DROP TABLE gate; DROP TABLE oldest; DROP TABLE parked; DROP TABLE held;
        ALTER TABLE route DROP COLUMN parked; ALTER TABLE route DROP COLUMN parked_bytes;
        ALTER TABLE route ADD COLUMN taken INTEGER NOT NULL DEFAULT 0;
        UPDATE route SET taken = coalesce((SELECT sum(messages + copies) FROM intake WHERE route = n), 0);
        DROP TABLE intake; DROP INDEX journal_given_up; DROP INDEX item_by_age;";
    store.execute_batch(BACK_TO_SIX).unwrap();
    store.execute_batch(since).unwrap();
    for table in ["batch_file", "batch_item", "batch_row", "batch_serial", "batch", "extract_row", "file"] {
        store.execute_batch(&format!("DROP TABLE {table}")).unwrap();
    }
    store.execute_batch("ALTER TABLE journal DROP COLUMN why; PRAGMA user_version = 1;").unwrap();
    drop(store);
    let bridge = ledger.site.start().await;
    ledger.site.vhost.say("payment.succeeded.v1", "event-1", &paid()).await;
    ledger.site.vhost.drained(QUEUE).await;
    assert!(bridge.stop().await);
    assert_eq!((ledger.sent(), &ledger.site.account(ROUTE).await["duplicate"]), (1, &json!(1)));
    // As version 4 had it: files had no place among the others.
    let store = rusqlite::Connection::open(ledger.store()).unwrap();
    store.execute_batch(BACK_TO_SIX).unwrap();
    store.execute_batch(since).unwrap();
    store.execute_batch("ALTER TABLE file DROP COLUMN sequence; PRAGMA user_version = 4;").unwrap();
    drop(store);
    ledger.site.good(&["files", "list"]).await;
    // What was counted in one number is counted by the hour, and closes.
    let line = ledger.site.account(ROUTE).await;
    assert_eq!(
        (&line["taken"], &line["duplicate"], &line["astray"]),
        (&json!(2), &json!(1), &json!([])),
        "{line}"
    );
}

#[tokio::test]
async fn a_bridge_that_waits_for_its_broker_stops_when_it_is_told_to() {
    let ledger = ledger().await;
    // Nobody listens there: its lanes wait until somebody does.
    let more = format!("[adapters.localgov-ims]\nsettings = {{ base_url = \"{}\" }}\n", ledger.server.url);
    ledger.site.settings("amqp://127.0.0.1:1/nowhere", &more);
    let bridge = ledger.site.start().await;
    assert!(bridge.stop().await, "what waits is not taken for something under way");
}
