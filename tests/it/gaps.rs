//! The program dies at every gap between two durable effects, by its name in `packhorse::kill::POINTS`, and is started
//! again. What counts is seen at the far end: the identities that the system and the platform have, each once where money
//! moves, and an account that closes. Only in builds with the feature `kill-points`; `scripts/test` makes one.

use crate::{
    bacs::read,
    batches::Council,
    broker::{paid, with_a_broker_of_the_council, with_a_broker_that_minds},
    cards::pay_site,
    databases::{self, Database},
    nightly::Nightly,
    ordered::{self, Cases},
    payments::{PATH, QUEUE, ROUTE, ledger},
    standins::http::Fault,
    support::{Site, event, example, until},
};
use packhorse::kill::POINTS;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The points at which the bridge dies while it posts payments to a ledger that must be asked before a repeat.
const POSTING: [&str; 9] = [
    "deliver.claimed",
    "deliver.sent",
    "deliver.asked",
    "deliver.answered",
    "deliver.replied",
    "deliver.part",
    "deliver.moved",
    "deliver.recorded",
    "deliver.acknowledged",
];
/// While it refunds payments, guarded by what was read before, and asks what became of them.
const REFUNDING: [&str; 5] =
    ["ask.published", "deliver.claimed", "deliver.kept", "deliver.sent", "deliver.answered"];
/// While it hands events to another broker.
const CROSSING: [&str; 3] = ["deliver.window", "deliver.recorded", "deliver.acknowledged"];
/// While it takes events from another broker.
const COLLECTING: [&str; 4] =
    ["collect.spooled", "collect.acknowledged", "collect.published", "collect.finished"];
/// While it collects events into a batch and writes it.
const BATCHING: [&str; 10] = [
    "deliver.recorded",
    "deliver.acknowledged",
    "batch.sealed",
    "batch.numbered",
    "batch.written",
    "batch.rendered",
    "batch.claimed",
    "batch.put",
    "batch.noted",
    "batch.marked",
];
/// While it keeps the order of each subject, and the first of one fails.
const ORDERING: [&str; 7] = [
    "deliver.claimed",
    "deliver.sent",
    "deliver.recorded",
    "deliver.acknowledged",
    "order.parked",
    "order.tried",
    "deliver.moved",
];
/// While it gives back what waited on a route that keeps no order any more.
const EMPTYING: [&str; 1] = ["order.emptied"];
/// While it is given documents over HTTP, which it answers when they are committed.
const RECEIVING: [&str; 3] = ["collect.spooled", "collect.published", "collect.finished"];
/// While it asks a database what is new: the cursor moves in the commit of the rows.
const QUERYING: [&str; 3] = ["collect.spooled", "collect.published", "collect.finished"];
/// While it compares the whole of a query with the last look.
const VIEWING: [&str; 7] = [
    "view.dumped",
    "files.renamed",
    "files.taken",
    "extract.compared",
    "extract.news",
    "files.ended",
    "collect.published",
];
/// While an operator has dead letters replayed, and discards some.
const REPLAYING: [&str; 2] = ["operator.replayed", "operator.noted"];
const DISCARDING: [&str; 2] = ["operator.discarded", "operator.noted"];
/// While it splits files into records.
const SPLITTING: [&str; 8] = [
    "files.fetched",
    "files.renamed",
    "files.taken",
    "files.records",
    "files.ended",
    "files.told",
    "collect.published",
    "collect.finished",
];
/// While it compares extracts.
const COMPARING: [&str; 5] =
    ["extract.said", "files.taken", "extract.compared", "extract.news", "files.ended"];

#[test]
fn every_kill_point_is_died_at_by_a_test() {
    let all: [&[&str]; 14] = [
        &POSTING,
        &REFUNDING,
        &CROSSING,
        &COLLECTING,
        &BATCHING,
        &ORDERING,
        &EMPTYING,
        &RECEIVING,
        &QUERYING,
        &VIEWING,
        &REPLAYING,
        &DISCARDING,
        &SPLITTING,
        &COMPARING,
    ];
    let died: BTreeSet<&str> = all.concat().into_iter().collect();
    let named: BTreeSet<&str> = POINTS.iter().map(|point| point.name).collect();
    assert_eq!(died, named);
    assert_eq!(named.len(), POINTS.len(), "a point is named twice");
    assert!(POINTS.iter().all(|point| !point.leaves.is_empty()));
}

/// Runs the program until it dies at a point; fails if it never gets there.
async fn dies(site: &Site, point: &str) {
    dies_after(site, point, async || ()).await;
}

/// The same, with something that happens while it runs.
async fn dies_after(site: &Site, point: &str, meanwhile: impl AsyncFnOnce()) {
    let mut running = site.begin(&[("PACKHORSE_KILL", point)]);
    meanwhile().await;
    until(&format!("it dies at {point}"), async || running.has_ended().then_some(())).await;
    let log = std::fs::read_to_string(site.folder.0.join("log")).unwrap();
    let (name, _) = point.split_once(':').unwrap_or((point, "1"));
    assert!(log.contains(&format!("killed at {name}\n")), "{point}: {log}");
}

/// Runs it until the route has delivered so many, and stops it; nothing is left and every sum closes.
async fn delivers(site: &Site, route: &str, count: usize) {
    let running = site.run().await;
    until(&format!("{count} delivered by {route}"), async || {
        (site.account(route).await["delivered"] == count).then_some(())
    })
    .await;
    assert_eq!(running.terminate().await, 0);
    let account = site.account(route).await;
    assert_eq!((&account["delivered"], &account["waiting"]), (&json!(count), &json!(0)), "{account}");
}

/// The distinct ids of the events that the platform has.
async fn told(site: &Site) -> BTreeSet<String> {
    let events = site.vhost.peek("platform").await;
    events.iter().map(|event| event.json()["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_gap_of_a_posting_no_line_is_posted_twice_and_none_is_lost() {
    let ledger = ledger().await;
    let site = &ledger.site;
    site.good(&["topology", "apply"]).await;
    let lines = example("payment.succeeded.v1")["lines"].as_array().unwrap().len();
    for (number, point) in POSTING.iter().enumerate() {
        match *point {
            "deliver.asked" => ledger.server.misbehave("POST", PATH, Fault::CutBefore, 1),
            "deliver.moved" => ledger.server.misbehave("POST", PATH, Fault::Status(503, None), 3),
            _ => {}
        }
        let mut data = example("payment.succeeded.v1");
        data["payment_id"] = json!(format!("payment-{number}"));
        data["provider_reference"] = json!(format!("reference-{number}"));
        let said = event("payment.succeeded.v1", &format!("event-{number}"), &data);
        site.vhost.publish_many(QUEUE, &[said]).await;
        dies(site, point).await;
        delivers(site, ROUTE, number + 1).await;
        let rows = ledger.ims.rows();
        let distinct: BTreeSet<String> =
            rows.iter().map(|row| format!("{} {}", row["PspReference"], row["Narrative"])).collect();
        let expected = lines * (number + 1);
        assert_eq!((rows.len(), distinct.len()), (expected, expected), "{point}: each line is posted once");
        assert_eq!(told(site).await.len(), expected, "{point}: each posting is told");
    }
    assert_eq!(site.vhost.depth(QUEUE).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_gap_of_a_refund_it_is_made_once() {
    let world = pay_site(&["refund-status"]).await;
    let site = &world.site;
    site.good(&["topology", "apply"]).await;
    for (number, point) in REFUNDING.iter().enumerate() {
        let id = world.made_elsewhere();
        world.pay.payer(&id, "success");
        let mut data = example("refund.requested.v1");
        data["provider_reference"] = json!(id);
        data["refund_id"] = json!(format!("refund-{number}"));
        data["amount"] = json!(2000);
        let said = event("refund.requested.v1", &format!("event-{number}"), &data);
        site.vhost.publish_many("packhorse.govuk-pay.refund", &[said]).await;
        let refunds = || {
            let payments = world.pay.payments();
            payments.into_iter().find(|payment| payment.id == id).unwrap().refunds
        };
        dies_after(site, point, async || {
            if *point == "ask.published" {
                until("the refund", async || (!refunds().is_empty()).then_some(())).await;
                world.pay.change(&id, |payment| "success".clone_into(&mut payment.refunds[0].status));
            }
        })
        .await;
        delivers(site, "govuk-pay.refund", number + 1).await;
        assert_eq!(refunds().len(), 1, "{point}: refunded once");
        if *point == "ask.published" {
            delivers(site, "govuk-pay.refund-status", 1).await;
            assert_eq!(told(site).await.len(), 1, "its end is told, under one id");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_gap_between_two_brokers_every_event_arrives_both_ways() {
    let (council, site) = with_a_broker_of_the_council().await;
    site.good(&["topology", "apply"]).await;
    let kind = "payment.succeeded.v1";
    for (number, point) in CROSSING.iter().enumerate() {
        let first = number * 20;
        let events: Vec<_> = (first..first + 20)
            .map(|number| event(kind, &format!("event-{number}"), &paid(number as u32)))
            .collect();
        site.vhost.publish_many("packhorse.council-broker.payments", &events).await;
        dies(&site, point).await;
        delivers(&site, "council-broker.payments", first + 20).await;
    }
    let ids: BTreeSet<String> = council.everything("payments.succeeded").await.into_iter().collect();
    let expected: BTreeSet<String> =
        (0..CROSSING.len() * 20).map(|number| format!("event-{number}")).collect();
    assert_eq!(ids, expected);
    let posted = example("payment.posted.v1");
    for (number, point) in COLLECTING.iter().enumerate() {
        let first = number * 20;
        let events: Vec<_> = (first..first + 20)
            .map(|number| event("payment.posted.v1", &format!("posted-{number}"), &posted))
            .collect();
        council.publish_many("platform.outbox", &events).await;
        dies(&site, point).await;
        delivers(&site, "council-broker.updates", first + 20).await;
    }
    let told: BTreeSet<String> = site.vhost.everything("platform").await.into_iter().collect();
    let expected: BTreeSet<String> =
        (0..COLLECTING.len() * 20).map(|number| format!("posted-{number}")).collect();
    assert_eq!(told, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_around_a_window_that_must_not_be_repeated_none_of_it_is_published_twice_and_a_person_is_told()
{
    let (council, site) = with_a_broker_that_minds("repeat = \"never\"\nconcurrency = 1").await;
    site.good(&["topology", "apply"]).await;
    let (mut before, mut sent) = (0, Vec::new());
    for (number, point) in ["deliver.claimed", "deliver.window"].into_iter().enumerate() {
        let messages: Vec<_> = (0..20).map(|n| ordered::message(&format!("round-{number}-{n}"), 1)).collect();
        site.vhost.publish_many("packhorse.council-broker.payments", &messages).await;
        dies(&site, point).await;
        let running = site.run().await;
        let (delivered, dead) = until("all has come to its end", async || {
            let line = site.account("council-broker.payments").await;
            let ended = (line["delivered"].as_u64()?, line["dead"].as_u64()?);
            (ended.0 + ended.1 == (number as u64 + 1) * 20).then_some(ended)
        })
        .await;
        assert_eq!(running.terminate().await, 0);
        sent.extend(council.everything("payments.succeeded").await);
        let distinct: BTreeSet<&String> = sent.iter().collect();
        assert_eq!(sent.len(), distinct.len(), "{point}: none is there twice");
        let letters = site.dead(dead as usize).await;
        assert!(letters.len() > before, "{point}: what was under way is before a person");
        assert!(letters.iter().all(|letter| letter.header("packhorse_code") == "PH2006"), "{point}");
        assert!(delivered <= sent.len() as u64 && sent.len() as u64 <= delivered + dead, "{point}");
        before = letters.len();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_gap_of_a_batch_every_collection_stands_in_exactly_one_submission() {
    let council = Council::new().await;
    let site = &council.site;
    site.edit("adapters/bacs-standard-18.toml", "cut_off = [\"16:00\"]", "cut_off = []\nmost = 3");
    site.good(&["topology", "apply"]).await;
    for (number, point) in BATCHING.iter().enumerate() {
        let first = u32::try_from(number * 3).unwrap();
        if *point == "batch.sealed" {
            // By its count it is sealed in one commit with the last that joins: only a person or a cut-off seals by itself.
            site.edit("adapters/bacs-standard-18.toml", "most = 3", "most = 4");
            council.collect(first, first + 3).await;
            dies_after(site, point, async || {
                council.holds(3).await;
                council.seal().await;
            })
            .await;
            site.edit("adapters/bacs-standard-18.toml", "most = 4", "most = 3");
        } else {
            council.collect(first, first + 3).await;
            dies(site, point).await;
        }
        let running = site.run().await;
        if *point == "batch.claimed" {
            // Whether the file was put, the folder cannot tell: it may have been taken away. A person looks.
            let doubt = council.batch("it is in doubt", |batch| batch["code"] == "PH2006").await;
            let number = doubt["number"].to_string();
            let said = ["--not-received", "--by", "A Tester", "--reason", "seen at the bureau"];
            site.good(&[&["batches", "settle", &number], &said[..]].concat()).await;
        }
        until(&format!("{} sent", number + 1), async || {
            let batches = council.batches().await;
            (batches.iter().filter(|batch| batch["stage"] == "sent").count() == number + 1).then_some(())
        })
        .await;
        assert_eq!(running.terminate().await, 0);
        let line = site.account("bacs-standard-18.collections").await;
        assert_eq!((&line["delivered"], &line["waiting"]), (&json!(3 * (number + 1)), &json!(0)), "{point}");
        let files = council.files();
        assert_eq!(files.len(), number + 1, "{point}: no number is used twice or left out");
        let mut references: Vec<String> = files.values().flat_map(|bytes| read(bytes).references).collect();
        references.sort();
        let expected: Vec<String> = (0..first + 3).map(|number| format!("CT{number:010}")).collect();
        assert_eq!(references, expected, "{point}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_gap_of_a_file_every_record_arrives_and_the_file_is_put_away() {
    let nightly = Nightly::new().await;
    let site = &nightly.site;
    for (number, point) in SPLITTING.iter().enumerate() {
        let name = format!("rows-{number}.csv");
        let rows: String = (0..20).map(|row| format!("c{number}-{row},Name,01/02/2015\r\n")).collect();
        nightly.writes(&name, format!("CHILD,NAME,DOB\r\n{rows}"));
        dies(site, point).await;
        delivers(site, "nightly.rows", 20 * (number + 1)).await;
        let running = site.run().await;
        until("it is put away", async || nightly.path(&format!("done/{name}")).exists().then_some(())).await;
        assert_eq!(running.terminate().await, 0);
    }
    let ids: BTreeSet<String> = site.vhost.everything("platform").await.into_iter().collect();
    assert_eq!(ids.len(), 20 * SPLITTING.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_gap_of_an_extract_what_has_changed_is_told_and_nothing_else() {
    let nightly = Nightly::new().await;
    let site = &nightly.site;
    let extract = |night: usize| {
        // Every night one child has another name; one comes and one is gone.
        let rows: String = (night..night + 10)
            .map(|row| format!("c{row},Name {},01/02/2015\r\n", (row == 5) as usize * night))
            .collect();
        format!("CHILD,NAME,DOB\r\n{rows}")
    };
    let mut expected = 0;
    for (night, point) in COMPARING.iter().enumerate() {
        let name = format!("children-{night}.csv");
        nightly.writes(&name, extract(night));
        dies(site, point).await;
        let running = site.run().await;
        nightly.file(&name, "done").await;
        assert_eq!(running.terminate().await, 0);
        if night > 0 {
            // One is new, one is gone, one has changed; the first is where the comparing starts from.
            expected += 3;
            delivers(site, "nightly.children", expected).await;
        }
    }
    let events = site.vhost.peek("platform").await;
    let said: BTreeSet<String> = events
        .iter()
        .map(|event| {
            let data = event.json()["data"].clone();
            format!("{} {} {}", data["child"], data["change"], data["name"])
        })
        .collect();
    assert_eq!(said.len(), expected, "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_gap_of_an_ordered_route_every_subject_keeps_its_order() {
    let cases = Cases::new("").await;
    cases.site.good(&["topology", "apply"]).await;
    let by = ["--by", "A Tester", "--reason", "mended"];
    for (round, point) in (0_u32..).zip(ORDERING) {
        // Of A the first fails once, of C the first is refused until it is replayed, B is well.
        let (one, two, three) = (3 * round + 1, 3 * round + 2, 3 * round + 3);
        cases.wish("A", one, &[500, 201]);
        if point == "deliver.moved" {
            cases.wish("C", one, &[422, 201]);
        }
        let all =
            [one, two, three].into_iter().flat_map(|number| [("A", number), ("B", number), ("C", number)]);
        cases.say(&all.collect::<Vec<_>>()).await;
        dies(&cases.site, point).await;
        let running = cases.site.run().await;
        let done = 9 * (round + 1);
        until(&format!("{done} delivered"), async || {
            let line = cases.site.account(ordered::ROUTE).await;
            if line["dead"].as_u64() > Some(0) {
                cases
                    .site
                    .good(&[&["dead-letters", "replay", "--route", ordered::ROUTE], &by[..]].concat())
                    .await;
            }
            (line["delivered"] == done && line["dead"] == 0).then_some(())
        })
        .await;
        assert_eq!(running.terminate().await, 0);
        for (subject, numbers) in cases.first() {
            assert_eq!(numbers, (1..=three).collect::<Vec<u32>>(), "{point}: {subject}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_a_dead_letter_is_acknowledged_it_goes_on_holding_what_came_after_it() {
    let cases = Cases::new("").await;
    cases.site.good(&["topology", "apply"]).await;
    cases.wish("A", 1, &[422, 201]);
    cases.say(&[("A", 1), ("A", 2), ("B", 1)]).await;
    dies(&cases.site, "deliver.recorded").await;
    // All three come again, in one window; B is the last of them.
    let running = cases.site.run().await;
    until("B is taken", async || cases.all().contains_key("B").then_some(())).await;
    assert_eq!(cases.taken(), [("B".to_owned(), 1)], "what is dead still holds");
    let replay =
        ["dead-letters", "replay", "--route", ordered::ROUTE, "--by", "A Tester", "--reason", "mended"];
    cases.site.good(&replay).await;
    until("all are delivered", async || {
        (cases.site.account(ordered::ROUTE).await["delivered"] == 3).then_some(())
    })
    .await;
    assert_eq!(cases.all()["A"], [1, 2]);
    assert_eq!(running.terminate().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_it_gives_back_what_waited_for_its_order_everything_arrives() {
    let cases = Cases::new("").await;
    let site = &cases.site;
    // Of A the first is refused and holds the others; of B the first fails, and is tried again later.
    cases.wish("A", 1, &[422]);
    cases.wish("B", 1, &[500, 500, 201]);
    let running = site.run().await;
    cases.say(&[("A", 1), ("A", 2), ("B", 1), ("A", 3), ("B", 2)]).await;
    until("all but the letter wait", async || {
        (site.account(ordered::ROUTE).await["parked"] == 4).then_some(())
    })
    .await;
    assert_eq!(running.terminate().await, 0);
    // The route gives its order up. A queue cannot give up its single consumer: it is made anew.
    cases.wish("B", 1, &[201]);
    site.edit("adapters/cases.toml", "order = \"subject\"\n", "");
    site.vhost.call("DELETE", &format!("queues/{}", ordered::QUEUE), Value::Null).await;
    dies(site, EMPTYING[0]).await;
    delivers(site, ordered::ROUTE, 4).await;
    let first = cases.first();
    let taken = |subject: &str| first[subject].iter().copied().collect::<BTreeSet<u32>>();
    assert_eq!((taken("A"), taken("B")), (BTreeSet::from([2, 3]), BTreeSet::from([1, 2])));
    site.good(&["account"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_gap_of_what_is_received_each_notice_is_told_once_it_has_been_thanked_for() {
    let world = pay_site(&[]).await;
    let site = &world.site;
    // Its port stays the same when it is started again.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let listen = "[receiver]\nlisten = \"127.0.0.1:0\"";
    site.edit("packhorse.toml", listen, &format!("[receiver]\nlisten = \"{port}\""));
    let mut paid = BTreeSet::new();
    for point in RECEIVING {
        let notices: Vec<_> = (0..5)
            .map(|_| {
                let id = world.made_elsewhere();
                world.pay.payer(&id, "success");
                let message = world.pay.webhook(&id, "card_payment_succeeded", &format!("message-of-{id}"));
                paid.insert(id);
                message
            })
            .collect();
        // Each is sent until it is thanked for: by the program that dies, or by the one after it.
        let thanked = async {
            for (body, signature) in notices {
                until("it is thanked for", async || {
                    let request = reqwest::Client::new()
                        .post(format!("http://{port}/govuk-pay/notices"))
                        .header("Content-Type", "application/json")
                        .header("Pay-Signature", &signature)
                        .body(body.clone());
                    request.send().await.ok().filter(|answer| answer.status().is_success()).map(drop)
                })
                .await;
            }
        };
        let again = async {
            dies(site, point).await;
            site.run().await
        };
        let ((), running) = tokio::join!(thanked, again);
        until(&format!("{point}: all are told"), async || {
            (site.account("govuk-pay.notices").await["delivered"] == paid.len()).then_some(())
        })
        .await;
        assert_eq!(running.terminate().await, 0);
    }
    let events = site.vhost.bodies("platform").await;
    let ids: BTreeSet<&String> = events.iter().map(|(id, _)| id).collect();
    let told = events.iter().map(|(_, body)| {
        let event: Value = serde_json::from_slice(body).unwrap();
        event["data"]["provider_reference"].as_str().unwrap().to_owned()
    });
    assert_eq!(told.collect::<BTreeSet<String>>(), paid);
    assert_eq!(ids.len(), paid.len(), "a payment was told under two ids");
}

/// The names in the events about records, and how many ids they have.
async fn names(site: &Site) -> (BTreeSet<String>, usize) {
    let events = site.vhost.bodies("platform").await;
    let ids: BTreeSet<&String> = events.iter().map(|(id, _)| id).collect();
    let name = |(_, body): &(String, Vec<u8>)| {
        let event: Value = serde_json::from_slice(body).unwrap();
        event["data"]["name"].as_str().unwrap().to_owned()
    };
    (events.iter().map(name).collect(), ids.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_gap_of_a_query_no_row_is_passed_over_and_none_is_told_under_two_ids() {
    let database = Database::new().await;
    database.table().await;
    let site = database.reading().await;
    let (mut expected, mut from) = (BTreeSet::new(), 1);
    // At the first passing nothing was known yet; at the second the cursor stands among the rows.
    for point in QUERYING.iter().flat_map(|point| [format!("{point}:1"), format!("{point}:2")]) {
        let to = from + 1_999;
        database
            .sql(&format!(
                "INSERT INTO record SELECT n, 'r' || n, n, '2026-11-24 09:00:00+00'::timestamptz + n * interval '1 second' \
                 FROM generate_series({from}, {to}) n"
            ))
            .await;
        expected.extend((from..=to).map(|number| format!("r{number}")));
        from = to + 1;
        dies(&site, &point).await;
        delivers(&site, databases::QUERY, expected.len()).await;
    }
    let (told, ids) = names(&site).await;
    assert_eq!((told, ids), (expected.clone(), expected.len()));
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_gap_of_a_compared_query_what_has_changed_is_told_and_nothing_else() {
    let database = Database::new().await;
    database.table().await;
    let adapter = format!("{}{}", databases::HEAD, databases::COMPARED);
    let site = database.site(&adapter, &[("changes.sql", "SELECT * FROM record")]).await;
    site.settings(&site.vhost.address(), &database.settings("reader"));
    let moment = "'2026-11-24 09:00:00+00'";
    database
        .sql(&format!("INSERT INTO record SELECT n, 'r' || n, n, {moment} FROM generate_series(1, 20) n"))
        .await;
    let mut expected: BTreeSet<String> = (1..=20).map(|number| format!("r{number}")).collect();
    delivers(&site, databases::QUERY, expected.len()).await;
    for (round, point) in (1..).zip(VIEWING) {
        // One has changed and one is new; a program that was killed looks anew.
        let new = 20 + round;
        database
            .sql(&format!(
                "UPDATE record SET name = 'changed {round}', changed = now() WHERE id = {round}; \
                 INSERT INTO record VALUES ({new}, 'r{new}', {new}, {moment})"
            ))
            .await;
        expected.extend([format!("changed {round}"), format!("r{new}")]);
        dies(&site, point).await;
        delivers(&site, databases::QUERY, expected.len()).await;
    }
    let (told, ids) = names(&site).await;
    assert_eq!((told, ids), (expected.clone(), expected.len()));
}

/// Runs a command until it dies at a point.
async fn dies_at_work(site: &Site, point: &str, arguments: &[&str]) {
    let (code, out, err) = site.command_with(&[("PACKHORSE_KILL", point)], arguments).await;
    assert!(code < 0 && err.contains(&format!("killed at {point}")), "{point}: {code} {out}{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_gap_of_a_replay_or_discard_every_message_comes_to_one_end_and_the_account_closes() {
    let cases = Cases::new("").await;
    let site = &cases.site;
    let by = ["--route", ordered::ROUTE, "--by", "A Tester", "--reason", "looked"];
    let running = site.run().await;
    let is_dead = async |count: u32| {
        until("it is dead", async || (site.account(ordered::ROUTE).await["dead"] == count).then_some(()))
            .await;
    };
    let replay = [&["dead-letters", "replay"], &by[..]].concat();
    for (number, point) in (1..).zip(REPLAYING) {
        cases.wish("A", number, &[422, 201]);
        cases.say(&[("A", number)]).await;
        is_dead(1).await;
        dies_at_work(site, point, &replay).await;
        site.good(&["account"]).await;
        until("it has got through", async || {
            (site.account(ordered::ROUTE).await["delivered"] == number).then_some(())
        })
        .await;
        // The letter is still there: whoever replays it again does no harm.
        site.good(&replay).await;
        site.vhost.drained("packhorse.dead").await;
        site.vhost.drained(ordered::QUEUE).await;
        site.good(&["account"]).await;
    }
    assert_eq!(cases.taken(), [("A".to_owned(), 1), ("A".to_owned(), 2)]);
    let discard = [&["dead-letters", "discard"], &by[..]].concat();
    for (number, point) in (1..).zip(DISCARDING) {
        cases.wish("B", number, &[422]);
        cases.say(&[("B", number)]).await;
        is_dead(1).await;
        dies_at_work(site, point, &discard).await;
        site.good(&["account"]).await;
        site.good(&discard).await;
        site.vhost.drained("packhorse.dead").await;
        let line = site.account(ordered::ROUTE).await;
        assert_eq!((&line["discarded"], &line["dead"]), (&json!(number), &json!(0)), "{point}: {line}");
    }
    assert_eq!(running.terminate().await, 0);
    site.good(&["account"]).await;
    assert_eq!(cases.taken().len(), 2, "nothing was sent twice, and nothing that was discarded");
}
