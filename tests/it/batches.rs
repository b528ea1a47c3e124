//! Events are collected into batches and become files, whatever happens on the way: on a real RabbitMQ, with the adapters
//! and mappings of this repository, into a folder of this machine. The files are read again by a reader of the test's own.

use crate::{
    bacs::{bacs_day, read, read_wide},
    support::{Site, example, until},
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, path::PathBuf};

const COLLECTIONS: &str = "direct-debit.collection.requested.v1";
const CREDITS: &str = "direct-credit.requested.v1";
const INSTRUCTIONS: &str = "direct-debit.instruction.requested.v1";
const ROUTE: &str = "bacs-standard-18.collections";
const QUEUE: &str = "packhorse.bacs-standard-18.collections";

/// A council that sends to Bacs.
pub struct Council {
    pub site: Site,
}

impl Council {
    pub async fn new() -> Council {
        let settings = "[store]\npath = \"var/packhorse.db\"\n\n[adapters.bacs-standard-18]\nsettings = { folder = \"$FOLDER/out\", service_user_number = \"123456\", \
            service_user_name = \"EXAMPLE COUNCIL\", sort_code = \"601613\", account = \"87654321\", account_name = \"EXAMPLE COUNCIL\" }\n";
        let site = Site::new(settings).await;
        std::fs::create_dir_all(site.folder.0.join("out")).unwrap();
        Council { site }
    }

    /// The bridge has no cut-off today: only a person, the count or the sum seals.
    fn without_cut_off(&self) {
        self.site.edit("adapters/bacs-standard-18.toml", "cut_off = [\"16:00\"]", "cut_off = []");
    }

    fn out(&self) -> PathBuf {
        self.site.folder.0.join("out")
    }

    /// The files in the system's folder, by name.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let entries = std::fs::read_dir(self.out()).into_iter().flatten().flatten();
        let file = |entry: std::fs::DirEntry| {
            Some((entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).ok()?))
        };
        entries.filter_map(file).filter(|(name, _)| !name.starts_with('.')).collect()
    }

    pub async fn batches(&self) -> Vec<Value> {
        let out = self.site.good(&["batches", "list", "--json"]).await;
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The only batch, when this holds of it.
    pub async fn batch(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        until(what, async || self.batches().await.into_iter().find(|batch| holds(batch))).await
    }

    async fn at(&self, stage: &str) -> Value {
        self.batch(&format!("a batch is {stage}"), |batch| batch["stage"] == stage).await
    }

    pub async fn holds(&self, items: i64) -> Value {
        self.batch(&format!("{items} items in an open batch"), |batch| {
            batch["stage"] == "open" && batch["items"] == items
        })
        .await
    }

    pub async fn seal(&self) {
        let batch = self.at("open").await;
        let number = batch["number"].to_string();
        self.site.good(&["batches", "seal", &number, "--by", "A Tester", "--reason", "a test"]).await;
    }

    pub async fn collect(&self, from: u32, to: u32) {
        let events: Vec<(String, Vec<u8>)> = (from..to)
            .map(|number| {
                let data = collection(number, &format!("CT{number:010}"));
                (format!("event-{number}"), event(COLLECTIONS, number, &data))
            })
            .collect();
        self.site.vhost.publish_many(QUEUE, &events).await;
    }
}

fn event(event_type: &str, number: u32, data: &Value) -> Vec<u8> {
    json!({ "specversion": "1.0", "id": format!("event-{number}"), "source": "urn:platform:payments", "type": event_type,
            "time": "2026-11-23T09:41:06.884Z", "datacontenttype": "application/json", "data": data })
    .to_string()
    .into_bytes()
}

fn collection(number: u32, reference: &str) -> Value {
    let mut data = example(COLLECTIONS);
    data["reference"] = json!(reference);
    data["amount"] = json!(100 + number);
    // Long ago: the next possible day is taken, the same for all.
    data["collect_on"] = json!("2026-01-05");
    data
}

#[tokio::test]
async fn a_credit_becomes_the_submission_that_the_specification_prints() {
    let council = Council::new().await;
    council.without_cut_off();
    let bridge = council.site.start().await;
    let mut data = example(CREDITS);
    data["pay_on"] = json!("2026-01-05");
    council.site.vhost.say(CREDITS, "event-1", &data).await;
    let open = council.holds(1).await;
    assert_eq!(open["sum"], 6250);
    // In custody and not delivered; the account says so.
    let line = council.site.account("bacs-standard-18.credits").await;
    assert_eq!((&line["waiting"], &line["batched"], &line["delivered"]), (&json!(1), &json!(1), &json!(0)));
    council.seal().await;
    let sent = council.at("sent").await;
    let files = council.files();
    assert_eq!(files.keys().collect::<Vec<_>>(), ["BACS000001.txt"]);
    let sealed: jiff::Timestamp = sent["sealed_at"].as_str().unwrap().parse().unwrap();
    let zone = jiff::tz::TimeZone::get("Europe/London").unwrap();
    let created = bacs_day(&sealed.to_zoned(zone).date().to_string());
    let processed: jiff::civil::Date = sent["processing_date"].as_str().unwrap().parse().unwrap();
    let expires = bacs_day(&processed.checked_add(jiff::Span::new().days(12)).unwrap().to_string());
    let processing = bacs_day(&processed.to_string());
    let pad = |text: &str| format!("{text:<80}\r\n");
    let expected = [
        "VOL1000001                               123456                                1\r\n".to_owned(),
        pad(&format!("HDR1A123456S   12345600000100010001      {created}{expires} 000000")),
        pad("HDR2F0200000100                                   00"),
        pad(&format!("UHL1{processing}999999    000000001 DAILY  001")),
        "2045121234567809960161387654321    00000006250EXAMPLE COUNCIL   REFUND GW004417   A RESIDENT        \r\n".to_owned(),
        "6016138765432101760161387654321    00000006250EXAMPLE COUNCIL   CONTRA            EXAMPLE COUNCIL   \r\n".to_owned(),
        pad(&format!("EOF1A123456S   12345600000100010001      {created}{expires} 000000")),
        pad("EOF2F0200000100                                   00"),
        pad("UTL10000000006250000000000625000000010000001"),
    ]
    .concat();
    assert_eq!(String::from_utf8(files["BACS000001.txt"].clone()).unwrap(), expected);
    assert_eq!(read(expected.as_bytes()).references, ["REFUND GW004417"]);
    assert!(bridge.stop().await);
    let line = council.site.account("bacs-standard-18.credits").await;
    assert_eq!((&line["waiting"], &line["delivered"]), (&json!(0), &json!(1)));
}

#[tokio::test]
async fn debits_credits_and_instructions_share_a_submission_whose_totals_an_independent_reader_confirms() {
    let council = Council::new().await;
    council.without_cut_off();
    let bridge = council.site.start().await;
    for (number, transaction) in ["first", "regular", "re-presented", "final"].into_iter().enumerate() {
        let number = u32::try_from(number).unwrap();
        let mut data = collection(number, &format!("CT{number:010}"));
        data["transaction"] = json!(transaction);
        council.site.vhost.say(COLLECTIONS, &format!("collection-{number}"), &data).await;
    }
    let mut credit = example(CREDITS);
    credit["pay_on"] = json!("2026-01-05");
    council.site.vhost.say(CREDITS, "credit-1", &credit).await;
    for action in ["new", "cancel"] {
        let mut data = example(INSTRUCTIONS);
        data["action"] = json!(action);
        council.site.vhost.say(INSTRUCTIONS, action, &data).await;
    }
    council.holds(7).await;
    council.seal().await;
    council.at("sent").await;
    let submission = read(&council.files()["BACS000001.txt"]);
    assert_eq!(submission.references.len(), 7);
    let contras: Vec<&String> = submission.lines.iter().filter(|line| line.contains("CONTRA  ")).collect();
    assert_eq!(contras.len(), 2, "one for each direction, none for instructions");
    assert!(bridge.stop().await);
}

#[tokio::test]
async fn an_event_that_cannot_be_rendered_is_a_dead_letter_and_no_hole_in_a_file() {
    let council = Council::new().await;
    council.without_cut_off();
    let bridge = council.site.start().await;
    council.site.vhost.say(COLLECTIONS, "event-bad", &collection(1, "AAAAAAAA")).await;
    council.site.vhost.say(COLLECTIONS, "event-good", &collection(2, "CT0000000002")).await;
    let dead = council.site.dead(1).await;
    assert_eq!(dead[0].header("packhorse_code"), "PH1205");
    council.holds(1).await;
    council.seal().await;
    council.at("sent").await;
    assert_eq!(read(&council.files()["BACS000001.txt"]).references, ["CT0000000002"]);
    assert!(bridge.stop().await);
    let line = council.site.account(ROUTE).await;
    assert_eq!((&line["delivered"], &line["dead"]), (&json!(1), &json!(1)));
}

#[tokio::test]
async fn a_batch_is_sealed_by_its_count_and_what_comes_later_goes_into_the_next_with_the_next_serial_number()
{
    let council = Council::new().await;
    council.site.edit("adapters/bacs-standard-18.toml", "cut_off = [\"16:00\"]", "cut_off = []\nmost = 3");
    let bridge = council.site.start().await;
    council.collect(0, 7).await;
    until("two submissions", async || (council.files().len() == 2).then_some(())).await;
    council.holds(1).await;
    let files = council.files();
    let first = read(&files["BACS000001.txt"]).references;
    let second = read(&files["BACS000002.txt"]).references;
    assert_eq!((first.len(), second.len()), (3, 3));
    // The same event again, whether its batch is open or sent, is a duplicate.
    council.collect(0, 1).await;
    council.collect(6, 7).await;
    council.site.vhost.drained(QUEUE).await;
    assert!(bridge.stop().await);
    let line = council.site.account(ROUTE).await;
    assert_eq!((&line["delivered"], &line["batched"], &line["duplicate"]), (&json!(6), &json!(1), &json!(2)));
    assert_eq!(council.files().len(), 2);
}

#[tokio::test]
async fn a_batch_that_cannot_be_put_waits_visibly_and_goes_on_when_the_folder_is_back() {
    let council = Council::new().await;
    council.without_cut_off();
    std::fs::remove_dir(council.out()).unwrap();
    let bridge = council.site.start().await;
    council.collect(0, 2).await;
    council.holds(2).await;
    council.seal().await;
    let waits = council.batch("a batch that waits", |batch| batch["failed"].as_i64() > Some(0)).await;
    assert_eq!((&waits["stage"], &waits["serial"]), (&json!("rendered"), &json!(1)));
    assert_eq!(waits["code"], "PH2202");
    let (_, list, _) = council.site.command(&["batches", "list"]).await;
    assert!(list.contains("PH2202"), "{list}");
    std::fs::create_dir(council.out()).unwrap();
    council.at("sent").await;
    assert_eq!(read(&council.files()["BACS000001.txt"]).references.len(), 2);
    assert!(bridge.stop().await);
}

#[tokio::test]
async fn another_file_of_the_same_name_is_never_replaced_and_the_batch_waits_until_it_is_gone() {
    let council = Council::new().await;
    council.without_cut_off();
    council.site.folder.write("out/BACS000001.txt", "somebody else's");
    let bridge = council.site.start().await;
    council.collect(0, 1).await;
    council.holds(1).await;
    council.seal().await;
    let waits = council.batch("a batch that waits", |batch| batch["failed"].as_i64() > Some(0)).await;
    assert_eq!(waits["code"], "PH2207");
    assert_eq!(council.files()["BACS000001.txt"], b"somebody else's");
    std::fs::remove_file(council.out().join("BACS000001.txt")).unwrap();
    council.at("sent").await;
    assert_eq!(read(&council.files()["BACS000001.txt"]).references, ["CT0000000000"]);
    assert!(bridge.stop().await);
}

#[tokio::test]
async fn only_an_open_batch_is_sealed_by_a_person_whose_name_and_reason_stay_on_record() {
    let council = Council::new().await;
    council.without_cut_off();
    let (code, _, err) = council.site.command(&["batches", "seal", "1", "--by", "A", "--reason", "b"]).await;
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("PH5010"), "{err}");
    let bridge = council.site.start().await;
    council.collect(0, 1).await;
    council.holds(1).await;
    council.seal().await;
    council.at("sent").await;
    let (_, _, err) = council.site.command(&["batches", "seal", "1", "--by", "A", "--reason", "b"]).await;
    assert!(err.contains("PH5010") && err.contains("sent already"), "{err}");
    assert!(bridge.stop().await);
}

/// A file that may have been put before a crash and is not there may have been taken away by its system: a second one
/// would collect the money twice, so it waits for a person's word.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_may_have_been_taken_away_is_not_put_a_second_time() {
    for (word, files) in [("--received", 0), ("--not-received", 1)] {
        let council = Council::new().await;
        council.without_cut_off();
        let bridge = council.site.start().await;
        council.collect(0, 3).await;
        council.holds(3).await;
        // The folder is away: the batch is rendered, and cannot be put.
        std::fs::remove_dir(council.out()).unwrap();
        council.seal().await;
        let batch = council.batch("it waits", |batch| batch["code"] == "PH2202").await;
        bridge.stop().await;
        // What a crash between putting the file and noting it leaves on record, the file having been taken away.
        let store = rusqlite::Connection::open(council.site.folder.0.join("var/packhorse.db")).unwrap();
        assert_eq!(
            store.execute("UPDATE batch_file SET claimed_at = 1 WHERE claimed_at IS NULL", []).unwrap(),
            1
        );
        store.execute("UPDATE batch SET retry_at = NULL", []).unwrap();
        drop(store);
        std::fs::create_dir(council.out()).unwrap();
        let bridge = council.site.start().await;
        let doubt = council.batch("it is in doubt", |batch| batch["code"] == "PH2006").await;
        assert!(doubt["why"].as_str().unwrap().contains("batches settle"), "{doubt}");
        assert!(council.files().is_empty());
        let number = batch["number"].to_string();
        let said = ["--by", "A Tester", "--reason", "seen at the bureau"];
        council.site.good(&[&["batches", "settle", &number, word], &said[..]].concat()).await;
        council.at("sent").await;
        assert_eq!(council.files().len(), files, "{word}");
        assert_eq!(council.site.account(ROUTE).await["delivered"], 3);
        let (code, _, err) =
            council.site.command(&[&["batches", "settle", &number, word], &said[..]].concat()).await;
        assert!(code == 1 && err.contains("PH5010"), "{code} {err}");
        bridge.stop().await;
    }
}

/// `kill -9` at each gap of a batch's life: afterwards the same bytes lie under the same name, and every event is delivered
/// once.
#[tokio::test]
async fn killed_at_any_gap_the_same_bytes_come_under_the_same_name() {
    let council = Council::new().await;
    council.without_cut_off();
    let own = council.site.folder.0.join("var/packhorse.files/batches");
    // Joined and acknowledged, and nothing further.
    let bridge = council.site.run().await;
    council.collect(0, 50).await;
    council.holds(50).await;
    bridge.kill().await;
    // Sealed and numbered, but not rendered: a file stands where the folder must be.
    std::fs::create_dir_all(own.parent().unwrap()).unwrap();
    std::fs::write(&own, "in the way").unwrap();
    let bridge = council.site.run().await;
    council.holds(50).await;
    council.seal().await;
    let numbered =
        council.batch("a batch that is numbered and waits", |batch| batch["failed"].as_i64() > Some(0)).await;
    assert_eq!((&numbered["stage"], &numbered["serial"]), (&json!("numbered"), &json!(1)));
    bridge.kill().await;
    std::fs::remove_file(&own).unwrap();
    // Rendered, but not put: the folder of the system is away.
    std::fs::remove_dir(council.out()).unwrap();
    let bridge = council.site.run().await;
    let rendered = council
        .batch("a batch that is rendered and waits", |batch| {
            batch["stage"] == "rendered" && batch["failed"].as_i64() > Some(0)
        })
        .await;
    bridge.kill().await;
    assert_eq!(rendered["serial"], 1);
    let bytes = std::fs::read(own.join("1/submission")).unwrap();
    // Put, but not marked: the file is in the system, and nobody has written down that it is.
    std::fs::create_dir(council.out()).unwrap();
    std::fs::write(council.out().join("BACS000001.txt"), &bytes).unwrap();
    let bridge = council.site.run().await;
    let sent = council.at("sent").await;
    assert_eq!(sent["sealed_at"], numbered["sealed_at"]);
    assert_eq!(bridge.terminate().await, 0);
    let files = council.files();
    assert_eq!(files.len(), 1);
    assert_eq!(files["BACS000001.txt"], bytes, "the same bytes");
    let mut references = read(&bytes).references;
    references.sort();
    let expected: Vec<String> = (0..50).map(|number| format!("CT{number:010}")).collect();
    assert_eq!(references, expected);
    let line = council.site.account(ROUTE).await;
    assert_eq!((&line["taken"], &line["delivered"]), (&json!(50), &json!(50)));
    assert!(!own.join("1").exists(), "our own copies go when the batch is sent");
}

#[tokio::test]
async fn what_was_rendered_and_is_gone_from_our_disk_is_rendered_again_to_the_same_bytes() {
    let council = Council::new().await;
    council.without_cut_off();
    std::fs::remove_dir(council.out()).unwrap();
    let bridge = council.site.run().await;
    council.collect(0, 20).await;
    council.holds(20).await;
    council.seal().await;
    council.at("rendered").await;
    bridge.kill().await;
    let own = council.site.folder.0.join("var/packhorse.files/batches/1");
    let bytes = std::fs::read(own.join("submission")).unwrap();
    std::fs::remove_dir_all(&own).unwrap();
    std::fs::create_dir(council.out()).unwrap();
    let bridge = council.site.run().await;
    council.at("sent").await;
    assert_eq!(council.files()["BACS000001.txt"], bytes);
    assert_eq!(bridge.terminate().await, 0);
}

/// Killed at moments that nobody has chosen, while events come in and batches go out by count.
#[tokio::test]
async fn killed_again_and_again_every_collection_stands_in_exactly_one_submission() {
    let council = Council::new().await;
    council.site.edit("adapters/bacs-standard-18.toml", "cut_off = [\"16:00\"]", "cut_off = []\nmost = 400");
    let bridge = council.site.run().await;
    council.collect(0, 4_000).await;
    bridge.kill().await;
    for pause in [40, 170, 300, 90, 600, 250] {
        let bridge = council.site.run().await;
        tokio::time::sleep(std::time::Duration::from_millis(pause)).await;
        bridge.kill().await;
    }
    let bridge = council.site.run().await;
    until("ten submissions, all sent", async || {
        let sent = council.batches().await.iter().filter(|batch| batch["stage"] == "sent").count();
        (sent == 10).then_some(())
    })
    .await;
    assert_eq!(bridge.terminate().await, 0);
    let mut references: Vec<String> =
        council.files().values().flat_map(|bytes| read(bytes).references).collect();
    references.sort();
    let expected: Vec<String> = (0..4_000).map(|number| format!("CT{number:010}")).collect();
    assert!(references == expected, "{} of 4000", references.len());
    let line = council.site.account(ROUTE).await;
    assert_eq!((&line["delivered"], &line["waiting"]), (&json!(4_000), &json!(0)));
}

#[tokio::test]
async fn collections_of_several_days_share_a_submission_with_a_contra_for_each_day() {
    let settings = "[store]\npath = \"var/packhorse.db\"\n\n[adapters.bacs-standard-18-multi]\nsettings = { folder = \"$FOLDER/out\", service_user_number = \"123456\", \
        service_user_name = \"EXAMPLE COUNCIL\", sort_code = \"601613\", account = \"87654321\", account_name = \"EXAMPLE COUNCIL\" }\n";
    let site = Site::new(settings).await;
    std::fs::create_dir_all(site.folder.0.join("out")).unwrap();
    let council = Council { site };
    council.site.edit("adapters/bacs-standard-18-multi.toml", "cut_off = [\"16:00\"]", "cut_off = []");
    let bridge = council.site.start().await;
    // Christmas Day 2026 is a Friday, Boxing Day is kept on Monday the 28th: both move to the 29th. Others are as asked for.
    let days = [
        ("2026-12-24", "2026-12-24"),
        ("2026-12-25", "2026-12-29"),
        ("2026-12-28", "2026-12-29"),
        ("2027-03-26", "2027-03-30"),
    ];
    for (number, (wanted, _)) in days.iter().enumerate() {
        let number = u32::try_from(number).unwrap();
        let mut data = collection(number, &format!("CT{number:010}"));
        data["collect_on"] = json!(wanted);
        council.site.vhost.say(COLLECTIONS, &format!("event-{number}"), &data).await;
    }
    council.holds(4).await;
    council.seal().await;
    council.at("sent").await;
    let submission = read_wide(&council.files()["BACS000001.txt"], 106);
    let day_of = |line: &String| line[100..106].to_owned();
    let (items, contras): (Vec<&String>, Vec<&String>) =
        submission.lines[4..submission.lines.len() - 3].iter().partition(|line| !line.contains("CONTRA  "));
    let expected: Vec<String> = days.iter().map(|(_, day)| bacs_day(day)).collect();
    let mut found: Vec<(String, String)> =
        items.iter().map(|line| (line[64..82].trim().to_owned(), day_of(line))).collect();
    found.sort();
    assert_eq!(found.into_iter().map(|(_, day)| day).collect::<Vec<_>>(), expected);
    assert_eq!(contras.len(), 3, "one for each day");
    let amount = |line: &String| line[35..46].parse::<u32>().unwrap();
    let of_day = |day: &str, lines: &[&String]| -> u32 {
        lines.iter().filter(|line| day_of(line) == bacs_day(day)).map(|line| amount(line)).sum()
    };
    for day in ["2026-12-24", "2026-12-29", "2027-03-30"] {
        assert_eq!(of_day(day, &items), of_day(day, &contras), "{day}");
    }
    assert!(submission.lines[2].starts_with("HDR2F0200000106"));
    assert!(submission.lines[3][28..].starts_with("4 MULTI  001"));
    assert!(bridge.stop().await);
}

const REPORTS: &str = r#"
version = 1
title = "Reports"
about = "Reports about what was sent to Bacs, for a test."
[settings.folder]
about = "A folder"
[settings.key]
about = "Who may call"
secret = true
[folder]
path = "{{ settings.folder }}"
[collect.returned]
about = "Reports."
format = "json"
receive = { login = { header = { name = "X-Key", value = "key" } } }
retry = { waits = ["5s"] }
events = [{ mapping = "reports/returned", each = "items[]", about = { route = "bacs-standard-18.collections", key = "{{ document.reference | trim }}@{{ document.day }}" } }]
"#;

const RETURNED: &str = r#"
version = 1
about = "A report, for a test."
event = "test.returned.v1"
only = "to-event"
document = { format = "json" }
fields = [
  { event = "$id", template = "{{ document.reference | trim }}:{{ document.day }}" },
  { event = "reference", document = "reference", text = { trim = true } },
  { event = "collection_id", cause = "collection_id" },
  { document = "day", event = "day" },
]
"#;

const RETURNED_SCHEMA: &str = r#"{
  "$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "https://packhorse.example/events/test.returned.v1.schema.json",
  "title": "t", "description": "t", "x-event-type": "test.returned.v1", "x-subject": ["reference"], "type": "object", "required": ["reference", "collection_id", "day"],
  "properties": { "reference": { "description": "r", "type": "string", "minLength": 1, "maxLength": 18 },
                  "collection_id": { "description": "c", "type": "string", "minLength": 1, "maxLength": 36 },
                  "day": { "description": "d", "type": "string", "minLength": 1, "maxLength": 10 } } }"#;

async fn report(address: std::net::SocketAddr, body: String) {
    let request = reqwest::Client::new()
        .post(format!("http://{address}/reports/returned"))
        .header("X-Key", crate::standins::pay::API_KEY)
        .header("content-type", "application/json");
    let answer = request.body(body).send().await.unwrap();
    assert!(answer.status().is_success(), "{}", answer.status());
}

#[tokio::test]
async fn a_report_is_matched_to_its_item_also_twice_and_also_before_its_batch_is_known_to_be_sent() {
    let council = Council::new().await;
    council.without_cut_off();
    council.site.folder.write("adapters/reports.toml", REPORTS);
    council.site.folder.write("mappings/reports/returned.toml", RETURNED);
    council.site.folder.write("mappings/events/test.returned.v1.schema.json", RETURNED_SCHEMA);
    let more = "\n[receiver]\nlisten = \"127.0.0.1:0\"\n\n[adapters.reports]\nsettings = { folder = \"$FOLDER/in\", key = \"file:$FOLDER/secrets/pay-key\" }\n";
    let path = council.site.folder.0.join("packhorse.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text + &more.replace("$FOLDER", &council.site.folder.0.display().to_string()))
        .unwrap();
    std::fs::remove_dir(council.out()).unwrap();
    let bridge = council.site.start().await;
    let address = bridge.receiver.unwrap();
    council.collect(0, 3).await;
    council.holds(3).await;
    council.seal().await;
    let rendered = council.at("rendered").await;
    let day = rendered["processing_date"].as_str().unwrap().to_owned();
    // Early: the batch is sealed, and not yet known to be sent.
    report(address, format!("{{\"items\":[{{\"reference\":\"CT0000000001      \",\"day\":\"{day}\"}}]}}"))
        .await;
    until("the report waits", async || {
        let line = council.site.account("reports.returned").await;
        (line["waiting"] == 1 && !line["next_due"].is_null()).then_some(())
    })
    .await;
    assert_eq!(council.site.vhost.peek("platform").await.len(), 0);
    std::fs::create_dir(council.out()).unwrap();
    council.at("sent").await;
    let told = council.site.vhost.until("platform", 1).await;
    assert_eq!(told[0].json()["data"]["collection_id"], example(COLLECTIONS)["collection_id"]);
    assert_eq!(told[0].json()["data"]["reference"], "CT0000000001");
    // The same in another file, with another item that is new: only that one is told.
    report(address, format!("{{\"items\":[{{\"reference\":\"CT0000000001\",\"day\":\"{day}\"}},{{\"reference\":\"CT0000000002\",\"day\":\"{day}\"}}]}}")).await;
    let told = council.site.vhost.until("platform", 2).await;
    assert_eq!(told.len(), 2);
    // About something that was never sent: before a person, with a code of its own.
    report(address, format!("{{\"items\":[{{\"reference\":\"CT9999999999\",\"day\":\"{day}\"}}]}}")).await;
    let dead = council.site.dead(1).await;
    assert_eq!(dead[0].header("packhorse_code"), "PH1213");
    assert!(bridge.stop().await);
    assert_eq!(council.site.account("reports.returned").await["dead"], 1);
}

const RETURN: &str = r#"
version = 1
title = "A return"
about = "A complete return of two tables and a nested document, for a test."
[settings.folder]
about = "A folder"
[folder]
path = "{{ settings.folder }}"
[batch.return]
about = "The return."
keep = "latest"
[batch.return.files.children]
name = "children-{{ batch.serial }}.csv"
layout = "children"
[batch.return.files.missing]
name = "missing-{{ batch.serial }}.csv"
layout = "missing"
[batch.return.files.nested]
name = "nested-{{ batch.serial }}.xml"
groups = ["child"]
head = [{ text = "<Message count=\"{{ file.count }}\">\n" }]
foot = [{ text = "</Message>\n" }]
[batch.return.files.nested.around.child]
head = [{ text = "<Child id=\"{{ group.child }}\">\n" }]
foot = [{ text = "</Child>\n" }]
[deliver.children]
about = "Children."
event = "test.child.v1"
mapping = "return/child"
batch = { into = "return", file = "children", key = "{{ event.data.child }}", order = "{{ event.data.child }}" }
[deliver.gone]
about = "Children who left."
event = "test.gone.v1"
batch = { into = "return", file = "children", key = "{{ event.data.child }}", removes = "true" }
[deliver.nested]
about = "Children again."
event = "test.child.v1"
mapping = "return/nested"
batch = { into = "return", file = "nested", key = "{{ event.data.child }}", group = { child = "{{ event.data.child }}" }, place = 1 }
[deliver.visits]
about = "Visits."
event = "test.visit.v1"
mapping = "return/visit"
batch = { into = "return", file = "nested", key = "{{ event.data.child }}/{{ event.data.day }}", group = { child = "{{ event.data.child }}" }, place = 2, order = "{{ event.data.day }}" }
[deliver.missing]
about = "Missing."
event = "test.missing.v1"
mapping = "return/missing"
batch = { into = "return", file = "missing", key = "{{ event.data.child }}" }
"#;

fn schema(name: &str, fields: &[&str]) -> String {
    let properties: serde_json::Map<String, Value> = fields
        .iter()
        .map(|field| {
            (
                (*field).to_owned(),
                json!({ "description": "d", "type": "string", "minLength": 1, "maxLength": 40 }),
            )
        })
        .collect();
    json!({ "$schema": "https://json-schema.org/draft/2020-12/schema", "$id": format!("https://packhorse.example/events/{name}.schema.json"),
            "title": "t", "description": "d", "x-event-type": name, "x-subject": ["child"], "type": "object", "required": fields, "properties": properties })
    .to_string()
}

#[tokio::test]
async fn a_complete_return_holds_the_latest_of_each_key_in_several_files_and_stays_for_the_next() {
    let site = Site::new("[store]\npath = \"var/packhorse.db\"\n\n[adapters.return]\nsettings = { folder = \"$FOLDER/out\" }\n").await;
    std::fs::create_dir_all(site.folder.0.join("out")).unwrap();
    site.folder.write("adapters/return.toml", RETURN);
    for (name, fields) in [
        ("test.child.v1", vec!["child", "born"]),
        ("test.gone.v1", vec!["child"]),
        ("test.visit.v1", vec!["child", "day"]),
        ("test.missing.v1", vec!["child", "day"]),
    ] {
        site.folder.write(&format!("mappings/events/{name}.schema.json"), schema(name, &fields));
    }
    let layout = |columns: &str| format!("version = 1\nabout = \"a table\"\n[csv]\ncolumns = [{columns}]\n");
    site.folder.write("mappings/layouts/children.toml", layout("\"CHILD\", \"DOB\""));
    site.folder.write("mappings/layouts/missing.toml", layout("\"CHILD\", \"MIS_START\""));
    let mapping = |event: &str, document: &str, fields: &str| {
        format!(
            "version = 1\nabout = \"a mapping\"\nevent = \"{event}\"\nonly = \"to-document\"\ndocument = {{ {document} }}\nfields = [\n{fields}\n]\n"
        )
    };
    let dob = "{ event = \"child\", document = \"CHILD\" },\n{ event = \"born\", document = \"DOB\", date = \"%d/%m/%Y\" },";
    site.folder.write(
        "mappings/return/child.toml",
        mapping("test.child.v1", "format = \"csv\", layout = \"children\"", dob),
    );
    let missing =
        "{ event = \"child\", document = \"CHILD\" },\n{ event = \"day\", document = \"MIS_START\" },";
    site.folder.write(
        "mappings/return/missing.toml",
        mapping("test.missing.v1", "format = \"csv\", layout = \"missing\"", missing),
    );
    let born = "{ event = \"born\", document = \"Born\" },";
    site.folder.write(
        "mappings/return/nested.toml",
        mapping("test.child.v1", "format = \"xml\", root = \"Identifiers\"", born),
    );
    let day = "{ event = \"day\", document = \"Day\" },";
    site.folder.write(
        "mappings/return/visit.toml",
        mapping("test.visit.v1", "format = \"xml\", root = \"Visit\"", day),
    );
    let council = Council { site };
    let bridge = council.site.start().await;
    let say =
        async |event_type: &str, id: &str, data: Value| council.site.vhost.say(event_type, id, &data).await;
    say("test.visit.v1", "1", json!({ "child": "B", "day": "2026-05-02" })).await;
    say("test.visit.v1", "2", json!({ "child": "B", "day": "2026-05-01" })).await;
    say("test.child.v1", "3", json!({ "child": "B", "born": "2010-02-28" })).await;
    say("test.child.v1", "4", json!({ "child": "A", "born": "2012-02-28" })).await;
    say("test.child.v1", "5", json!({ "child": "C", "born": "2011-01-01" })).await;
    // Each child stands in two files.
    council.holds(8).await;
    say("test.child.v1", "6", json!({ "child": "A", "born": "2012-02-29" })).await;
    say("test.gone.v1", "7", json!({ "child": "C" })).await;
    council.holds(11).await;
    council.seal().await;
    council.at("sent").await;
    let files = council.files();
    let text = |name: &str| String::from_utf8(files[name].clone()).unwrap();
    assert_eq!(text("children-1.csv"), "CHILD,DOB\r\nA,29/02/2012\r\nB,28/02/2010\r\n");
    assert_eq!(text("missing-1.csv"), "CHILD,MIS_START\r\n", "given also without rows");
    let nested = "<Message count=\"5\">\n<Child id=\"A\">\n<Identifiers><Born>2012-02-29</Born></Identifiers>\n</Child>\n\
        <Child id=\"B\">\n<Identifiers><Born>2010-02-28</Born></Identifiers>\n<Visit><Day>2026-05-01</Day></Visit>\n<Visit><Day>2026-05-02</Day></Visit>\n</Child>\n\
        <Child id=\"C\">\n<Identifiers><Born>2011-01-01</Born></Identifiers>\n</Child>\n</Message>\n";
    assert_eq!(text("nested-1.xml"), nested);
    // What was returned stays for the next return.
    say("test.missing.v1", "8", json!({ "child": "B", "day": "2026-06-01" })).await;
    council.holds(1).await;
    council.seal().await;
    until("the second return", async || council.files().contains_key("nested-2.xml").then_some(())).await;
    until("both are sent", async || {
        council.batches().await.iter().all(|batch| batch["stage"] == "sent").then_some(())
    })
    .await;
    let files = council.files();
    assert_eq!(files["children-2.csv"], files["children-1.csv"]);
    assert_eq!(files["missing-2.csv"], b"CHILD,MIS_START\r\nB,2026-06-01\r\n");
    assert!(bridge.stop().await);
    assert_eq!(council.site.account("return.visits").await["delivered"], 2);
}

#[tokio::test]
async fn a_route_that_writes_writes_one_file_for_each_event_and_a_repeat_writes_none() {
    let site = Site::new("[store]\npath = \"var/packhorse.db\"\n\n[adapters.single]\nsettings = { folder = \"$FOLDER/out\" }\n").await;
    let adapter = "version = 1\ntitle = \"Single\"\nabout = \"a file an event\"\n[settings.folder]\nabout = \"f\"\n[folder]\npath = \"{{ settings.folder }}\"\n\
        [deliver.one]\nabout = \"o\"\nevent = \"test.child.v1\"\nmapping = \"single/child\"\nmakes = \"record\"\nrepeat = \"key\"\n\
        [deliver.one.write]\nname = \"{{ event.id }}.json\"\n";
    site.folder.write("adapters/single.toml", adapter);
    site.folder
        .write("mappings/events/test.child.v1.schema.json", schema("test.child.v1", &["child", "born"]));
    let mapping = "version = 1\nabout = \"m\"\nevent = \"test.child.v1\"\ndocument = { format = \"json\" }\nfields = [{ event = \"child\", document = \"id\" }, { event = \"born\", document = \"born\" }]\n";
    site.folder.write("mappings/single/child.toml", mapping);
    let council = Council { site };
    let bridge = council.site.start().await;
    let data = json!({ "child": "A", "born": "2012-02-29" });
    // The folder is missing: it waits.
    council.site.vhost.say("test.child.v1", "event-1", &data).await;
    until("it waits", async || {
        let line = council.site.account("single.one").await;
        (line["waiting"] == 1 && !line["next_due"].is_null()).then_some(())
    })
    .await;
    // What an attempt wrote that was cut before it could be recorded.
    std::fs::create_dir_all(council.out()).unwrap();
    std::fs::write(council.out().join("event-1.json"), "{\"id\":\"A\",\"born\":\"2012-02-29\"}").unwrap();
    council.site.vhost.say("test.child.v1", "event-2", &data).await;
    until("both are delivered", async || {
        (council.site.account("single.one").await["delivered"] == 2).then_some(())
    })
    .await;
    let files = council.files();
    assert_eq!(files.keys().collect::<Vec<_>>(), ["event-1.json", "event-2.json"]);
    assert_eq!(files["event-1.json"], files["event-2.json"]);
    assert!(bridge.stop().await);
}
