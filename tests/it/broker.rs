//! What the broker can do to a bridge: go away, be killed, block, lose a queue, hold a queue that is not as it must be. On
//! a node of each test's own where it is to suffer. Nothing is lost, nothing is done twice, and it goes on by itself.

use crate::{
    proxy::Proxy,
    standins::{
        http::{Fault, Server},
        ims::Ims,
        pay::Pay,
    },
    support::{Broker, Node, Site, event, example, until},
};
use packhorse::bridge::Bridge;
use serde_json::{Value, json};
use std::{collections::BTreeSet, sync::Arc};

const QUEUE: &str = "packhorse.localgov-ims.post";

async fn ims_on(broker: Broker) -> (Arc<Ims>, Server, Site) {
    let ims = Arc::new(Ims::default());
    let server = Server::start(ims.clone(), 0).await.unwrap();
    let settings = format!("[adapters.localgov-ims]\nsettings = {{ base_url = \"{}\" }}\n", server.url);
    let site = Site::on(broker, &settings).await;
    (ims, server, site)
}

async fn pay_on(broker: Broker, more: &str) -> (Arc<Pay>, Server, Site) {
    let pay = Arc::new(Pay::default());
    let server = Server::start(pay.clone(), 0).await.unwrap();
    let quiet: String = ["sweep", "sweep-delayed", "refund-sweep", "settlements"]
        .map(|route| format!("[adapters.govuk-pay.routes.{route}]\nenabled = false\n"))
        .concat();
    let settings = format!(
        "{more}[receiver]\nlisten = \"127.0.0.1:0\"\n\n[adapters.govuk-pay]\n\
         settings = {{ base_url = \"{}\", api_key = \"file:$FOLDER/secrets/pay-key\", signing_secret = \"file:$FOLDER/secrets/pay-signing\" }}\n{quiet}",
        server.url
    );
    let site = Site::on(broker, &settings).await;
    (pay, server, site)
}

/// A payment that was made without the bridge, and its webhook; the status of the answer.
async fn webhook(pay: &Pay, bridge: &Bridge, message: &str) -> u16 {
    let asked = json!({ "amount": 6250, "reference": "GW-2026-004417", "description": "Garden waste", "return_url": "https://forms.example.gov.uk/paid/1",
                        "metadata": { "fund_code": "21", "account": "H4410-R2010" } });
    let id = pay.taken(asked, jiff::Timestamp::now());
    pay.payer(&id, "success");
    let (body, signature) = pay.webhook(&id, "card_payment_succeeded", message);
    let url = format!("http://{}/govuk-pay/notices", bridge.receiver.unwrap());
    let request = reqwest::Client::new()
        .post(url)
        .header("Content-Type", "application/json")
        .header("Pay-Signature", signature);
    request.body(body).send().await.unwrap().status().as_u16()
}

pub fn paid(number: u32) -> Value {
    let mut data = example("payment.succeeded.v1");
    data["payment_id"] = json!(format!("payment-{number}"));
    data["provider_reference"] = json!(format!("reference-{number}"));
    data["amount"] = json!(6250);
    data["total_amount"] = json!(6250);
    data["lines"] = json!([{ "line_id": "1", "description": "Council tax", "amount": 6250, "fund": "council-tax", "account": "771234561" }]);
    data
}

/// The ids of the distinct events that the platform has.
async fn told(site: &Site) -> BTreeSet<String> {
    let events = site.vhost.peek("platform").await;
    events.iter().map(|event| event.json()["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_broker_that_is_killed_and_comes_again_loses_nothing_and_makes_nothing_be_posted_twice() {
    let node = Node::start().await;
    let (ims, _server, site) = ims_on(node.broker.clone()).await;
    let bridge = site.start().await;
    for number in 0..40 {
        site.vhost.say("payment.succeeded.v1", &format!("event-{number}"), &paid(number)).await;
        if number == 20 {
            node.kill().await;
            node.again().await;
        }
    }
    until("40 rows", async || (ims.rows().len() >= 40).then_some(())).await;
    until("40 events", async || (told(&site).await.len() >= 40).then_some(())).await;
    site.vhost.drained(QUEUE).await;
    assert!(bridge.stop().await);
    let references: BTreeSet<String> =
        ims.rows().iter().map(|row| row["PspReference"].as_str().unwrap().to_owned()).collect();
    assert_eq!((ims.rows().len(), references.len()), (40, 40));
    assert_eq!(site.account("localgov-ims.post").await["delivered"], 40);
}

/// So many rows, each of another payment; the platform is told of each; nothing is left.
async fn each_is_posted_once(ims: &Ims, site: &Site, count: usize) {
    until("all rows", async || (ims.rows().len() >= count).then_some(())).await;
    until("all are told", async || (told(site).await.len() >= count).then_some(())).await;
    until("the account says so", async || {
        (site.account("localgov-ims.post").await["delivered"] == count).then_some(())
    })
    .await;
    let references: BTreeSet<String> =
        ims.rows().iter().map(|row| row["PspReference"].as_str().unwrap().to_owned()).collect();
    assert_eq!((ims.rows().len(), references.len()), (count, count));
}

#[tokio::test]
async fn a_broker_whose_app_is_stopped_and_started_again_is_found_again_and_nothing_is_lost_or_posted_twice()
{
    let node = Node::start().await;
    let (ims, _server, site) = ims_on(node.broker.clone()).await;
    let bridge = site.start().await;
    for number in 0..30 {
        site.vhost.say("payment.succeeded.v1", &format!("event-{number}"), &paid(number)).await;
    }
    node.ctl(&["stop_app"]).await;
    node.ctl(&["start_app"]).await;
    node.answers().await;
    for number in 30..40 {
        site.vhost.say("payment.succeeded.v1", &format!("event-{number}"), &paid(number)).await;
    }
    each_is_posted_once(&ims, &site, 40).await;
    assert!(bridge.stop().await);
}

#[tokio::test]
async fn while_the_broker_is_out_of_disk_what_is_posted_waits_for_its_reply_also_through_a_crash_and_is_not_posted_again()
 {
    let node = Node::start().await;
    let (ims, _server, site) = ims_on(node.broker.clone()).await;
    site.good(&["topology", "apply"]).await;
    for number in 0..10 {
        site.vhost.say("payment.succeeded.v1", &format!("event-{number}"), &paid(number)).await;
    }
    node.ctl(&["set_disk_free_limit", "900000GB"]).await;
    for _ in 0..2 {
        let bridge = site.run().await;
        until("a row that nobody is told of", async || {
            let waits = site.account("localgov-ims.post").await["waiting"].as_u64()? > 0;
            (waits && !ims.rows().is_empty()).then_some(())
        })
        .await;
        until("the bridge says that the broker takes nothing", async || {
            let log = std::fs::read_to_string(site.folder.0.join("log")).unwrap();
            log.contains("PH3007").then_some(())
        })
        .await;
        assert!(told(&site).await.is_empty());
        bridge.kill().await;
    }
    let bridge = site.start().await;
    node.ctl(&["set_disk_free_limit", "50MB"]).await;
    each_is_posted_once(&ims, &site, 10).await;
    assert!(bridge.stop().await);
}

#[tokio::test]
async fn a_message_that_is_given_back_beyond_the_limit_is_a_dead_letter_of_the_broker_and_replayed_it_is_posted_once()
 {
    let (ims, server, site) = ims_on(Broker::shared()).await;
    site.good(&["topology", "apply"]).await;
    // Somebody's policy; the lower limit counts.
    let policy = json!({ "pattern": "^packhorse\\.localgov", "definition": { "delivery-limit": 2 }, "apply-to": "queues" });
    site.vhost.call("PUT", "policies/narrow", policy).await;
    site.vhost.say("payment.succeeded.v1", "event-1", &paid(1)).await;
    // A bridge that dies of this message, again and again, before the system has done anything.
    server.misbehave("POST", "/api", Fault::Hang, 3);
    for number in 1..=3 {
        let bridge = site.run().await;
        server.until("POST", "/api", number).await;
        bridge.kill().await;
    }
    assert_eq!(site.dead(1).await[0].json()["data"], paid(1));
    let bridge = site.start().await;
    let list = site.good(&["dead-letters", "list"]).await;
    assert!(list.contains("PH3010"), "{list}");
    site.account("localgov-ims.post").await;
    site.good(&["dead-letters", "replay", "--code", "PH3010", "--by", "tester", "--reason", "seen to"]).await;
    each_is_posted_once(&ims, &site, 1).await;
    assert!(bridge.stop().await);
}

#[tokio::test]
async fn a_policy_that_leaves_the_dead_letters_no_room_holds_them_up_and_loses_none_and_it_is_told() {
    let (_ims, _server, site) = ims_on(Broker::shared()).await;
    let management = format!("[broker]\nmanagement = \"{}\"", Broker::shared().management);
    site.edit("packhorse.toml", "[broker]", &management);
    let bridge = site.run().await;
    site.good(&["topology", "verify"]).await;
    let policy =
        json!({ "pattern": "^packhorse\\.dead$", "definition": { "max-length": 1 }, "apply-to": "queues" });
    site.vhost.call("PUT", "policies/narrow", policy).await;
    until("verify tells of it", async || {
        let (code, out, err) = site.command(&["topology", "verify"]).await;
        (code != 0 && format!("{out}{err}").contains("max-length = 1")).then_some(())
    })
    .await;
    let mut broken = paid(1);
    broken["amount"] = json!("a lot");
    for number in 0..10 {
        site.vhost.say("payment.succeeded.v1", &format!("event-{number}"), &broken).await;
    }
    until("the bridge says that the broker does not take them", async || {
        let log = std::fs::read_to_string(site.folder.0.join("log")).unwrap();
        log.contains("PH3006").then_some(())
    })
    .await;
    assert!(site.vhost.depth("packhorse.dead").await < 10);
    site.account("localgov-ims.post").await;
    site.vhost.call("DELETE", "policies/narrow", Value::Null).await;
    let ids: BTreeSet<String> =
        site.dead(10).await.iter().map(|letter| letter.properties["message_id"].to_string()).collect();
    assert_eq!(ids.len(), 10, "{ids:?}");
    until("the account says so", async || {
        (site.account("localgov-ims.post").await["dead"] == 10).then_some(())
    })
    .await;
    assert_eq!(bridge.terminate().await, 0);
}

#[tokio::test]
async fn while_the_broker_is_away_webhooks_are_thanked_and_published_when_it_is_back() {
    let node = Node::start().await;
    let (pay, _server, site) = pay_on(node.broker.clone(), "").await;
    let running = site.start().await;
    node.kill().await;
    for number in 0..3 {
        assert_eq!(webhook(&pay, &running, &format!("message-{number}")).await, 200);
    }
    // Also across a restart of the bridge, which begins while the broker is away.
    assert!(running.stop().await);
    let running = site.start().await;
    assert_eq!(webhook(&pay, &running, "message-3").await, 200);
    node.again().await;
    until("4 events", async || (told(&site).await.len() >= 4).then_some(())).await;
    assert!(running.stop().await);
    let account = site.account("govuk-pay.notices").await;
    assert_eq!((&account["taken"], &account["delivered"]), (&json!(4), &json!(4)));
}

#[tokio::test]
async fn a_broker_that_blocks_publishers_is_waited_for() {
    let node = Node::start().await;
    let (pay, _server, site) = pay_on(node.broker.clone(), "").await;
    let running = site.start().await;
    node.ctl(&["set_vm_memory_high_watermark", "absolute", "1"]).await;
    assert_eq!(webhook(&pay, &running, "message-1").await, 200);
    let metrics = format!("http://{}/metrics", running.admin.unwrap());
    until("the metric says blocked", async || {
        let text = reqwest::get(&metrics).await.ok()?.text().await.ok()?;
        text.lines()
            .any(|line| line.starts_with("packhorse_broker_blocked") && line.ends_with(" 1"))
            .then_some(())
    })
    .await;
    assert_eq!(webhook(&pay, &running, "message-2").await, 200);
    node.ctl(&["set_vm_memory_high_watermark", "absolute", "2GB"]).await;
    until("2 events", async || (told(&site).await.len() >= 2).then_some(())).await;
    assert!(running.stop().await);
}

#[tokio::test]
async fn a_spool_that_is_full_says_so_and_takes_in_again_when_there_is_room() {
    let (pay, _server, site) = pay_on(Broker::shared(), "[store]\nspool_limit = \"4 KiB\"\n\n").await;
    // Nobody listens at the platform: what is published comes back, and stays in the spool.
    site.vhost.call("DELETE", "queues/platform", Value::Null).await;
    let running = site.start().await;
    let mut answers = Vec::new();
    for number in 0..8 {
        answers.push(webhook(&pay, &running, &format!("message-{number}")).await);
    }
    let taken = answers.iter().filter(|status| **status == 200).count();
    assert!(taken >= 2 && answers.contains(&503), "{answers:?}");
    site.vhost.platform().await;
    until("what was taken in", async || (told(&site).await.len() >= taken).then_some(())).await;
    until("room", async || (webhook(&pay, &running, "message-9").await == 200).then_some(())).await;
    assert!(running.stop().await);
    let account = site.account("govuk-pay.notices").await;
    assert_eq!(account["waiting"], 0, "{account}");
}

#[tokio::test]
async fn a_queue_that_somebody_deletes_is_made_again_and_served() {
    let (ims, _server, site) = ims_on(Broker::shared()).await;
    let bridge = site.start().await;
    site.vhost.say("payment.succeeded.v1", "event-1", &paid(1)).await;
    site.vhost.until("platform", 1).await;
    site.vhost.call("DELETE", &format!("queues/{QUEUE}"), Value::Null).await;
    until("the queue", async || site.vhost.call("GET", &format!("queues/{QUEUE}"), Value::Null).await).await;
    until("its binding", async || {
        let bindings = site.vhost.call("GET", &format!("queues/{QUEUE}/bindings"), Value::Null).await?;
        bindings.as_array()?.iter().any(|binding| binding["source"] == "platform.events").then_some(())
    })
    .await;
    site.vhost.say("payment.succeeded.v1", "event-2", &paid(2)).await;
    site.vhost.until("platform", 2).await;
    assert_eq!(ims.rows().len(), 2);
    assert!(bridge.stop().await);
}

#[tokio::test]
async fn with_a_queue_that_is_not_as_it_must_be_the_bridge_does_not_start_and_says_what_to_do() {
    let (_ims, _server, site) = ims_on(Broker::shared()).await;
    let classic = json!({ "durable": true, "arguments": { "x-queue-type": "classic" } });
    site.vhost.call("PUT", &format!("queues/{QUEUE}"), classic).await;
    let (code, _, err) = site.command(&["run"]).await;
    assert_eq!(code, 78, "{err}");
    assert!(err.contains("PH3003") && err.contains(QUEUE) && err.contains("topology"), "{err}");
    let (code, out, err) = site.command(&["topology", "verify"]).await;
    assert_ne!(code, 0);
    assert!(out.contains(QUEUE) || err.contains(QUEUE), "{out}{err}");
}

#[tokio::test]
async fn a_wrong_password_is_told_at_once_and_never_shown() {
    let (_ims, _server, site) = ims_on(Broker::shared()).await;
    site.folder.write("secrets/broker", "guessed-wrongly");
    for command in [&["run"][..], &["doctor"], &["dead-letters", "list"], &["topology", "verify"]] {
        let (code, out, err) = site.command(command).await;
        assert_ne!(code, 0, "{command:?}: {out}{err}");
        assert!(format!("{out}{err}").contains("PH3002"), "{command:?}: {out}{err}");
        assert!(!format!("{out}{err}").contains("guessed-wrongly"), "{command:?}");
    }
}

#[tokio::test]
async fn a_message_of_a_route_that_is_gone_ends_in_the_dead_letters_and_not_nowhere() {
    let (_ims, server, site) = ims_on(Broker::shared()).await;
    server.misbehave("POST", "/api", Fault::Status(503, None), 3);
    let bridge = site.start().await;
    site.vhost.say("payment.succeeded.v1", "event-1", &paid(1)).await;
    server.until("POST", "/api", 3).await;
    until("the message waits", async || (site.vhost.depth("packhorse.retry.5s").await == 1).then_some(()))
        .await;
    assert!(bridge.stop().await);
    site.vhost.call("DELETE", &format!("queues/{QUEUE}"), Value::Null).await;
    let dead = site.dead(1).await;
    assert_eq!(dead[0].json()["data"], paid(1));
    // The bridge comes again with the route, and the letter can be replayed.
    let bridge = site.start().await;
    let list = site.good(&["dead-letters", "list"]).await;
    assert!(list.contains("PH3010"), "{list}");
    site.good(&["dead-letters", "replay", "--code", "PH3010", "--by", "tester", "--reason", "route is back"])
        .await;
    site.vhost.until("platform", 1).await;
    assert!(bridge.stop().await);
    site.account("localgov-ims.post").await;
}

#[tokio::test]
async fn the_topology_that_the_commands_make_is_the_one_that_the_bridge_wants() {
    let (_ims, _server, site) = ims_on(Broker::shared()).await;
    let (code, ..) = site.command(&["topology", "verify"]).await;
    assert_ne!(code, 0, "nothing is there yet");
    site.good(&["topology", "apply"]).await;
    site.good(&["topology", "verify"]).await;
    let definitions: Value = serde_json::from_str(&site.good(&["topology", "export"]).await).unwrap();
    let queues: Vec<&str> = definitions["queues"]
        .as_array()
        .unwrap()
        .iter()
        .map(|queue| queue["name"].as_str().unwrap())
        .collect();
    assert!(queues.contains(&QUEUE) && queues.contains(&"packhorse.dead"), "{queues:?}");
    // A bridge that may declare nothing is content with it.
    site.edit("packhorse.toml", "[broker]", "[broker]\ndeclare = false");
    assert!(site.start().await.stop().await);
}

/// The council's own broker is another vhost, with a queue for each way.
pub async fn with_a_broker_of_the_council() -> (crate::support::Vhost, Site) {
    let council = crate::support::Vhost::new(Broker::shared()).await;
    council.queue("payments.succeeded").await;
    council.queue("platform.outbox").await;
    let user = Broker::shared().user;
    let site = Site::new(&format!(
        "[adapters.council-broker]\nsettings = {{ addresses = \"{}\", username = \"{user}\", password = \"file:$FOLDER/secrets/broker\", payments_queue = \"payments.succeeded\", updates_queue = \"platform.outbox\" }}\n",
        council.address()
    ))
    .await;
    (council, site)
}

/// The same, where other keys say what makes a repeat safe.
pub async fn with_a_broker_that_minds(keys: &str) -> (crate::support::Vhost, Site) {
    let (council, site) = with_a_broker_of_the_council().await;
    site.edit("adapters/council-broker.toml", "repeat = \"key\"", keys);
    (council, site)
}

/// Events go there and come from there as they are.
#[tokio::test]
async fn events_cross_between_two_brokers_both_ways_once_each() {
    let (council, site) = with_a_broker_of_the_council().await;
    let bridge = site.start().await;
    for number in 0..50 {
        site.vhost.say("payment.succeeded.v1", &format!("event-{number}"), &paid(number)).await;
    }
    site.vhost.say("payment.succeeded.v1", "event-7", &paid(7)).await;
    let there = council.until("payments.succeeded", 50).await;
    assert_eq!(there.len(), 50);
    assert!(there.iter().all(|event| event.properties["message_id"] == event.json()["id"]));
    // The other way: one good event twice, one that breaks its schema, one that is nothing.
    let event = json!({ "specversion": "1.0", "id": "posted-1", "source": "urn:council:ledger", "type": "payment.posted.v1", "data": example("payment.posted.v1") });
    let mut broken = event.clone();
    broken["id"] = json!("posted-2");
    broken["data"]["amount"] = json!("a lot");
    let kind = json!({ "content_type": "application/cloudevents+json", "delivery_mode": 2 });
    for body in [event.to_string(), event.to_string(), broken.to_string(), "nothing".to_owned()] {
        council.publish("", "platform.outbox", kind.clone(), body.as_bytes()).await;
    }
    let told = site.vhost.until("platform", 1).await;
    assert_eq!((told.len(), told[0].routing_key.as_str()), (1, "payment.posted.v1.example"));
    let dead = site.dead(2).await;
    let codes: BTreeSet<String> = dead.iter().map(|letter| letter.header("packhorse_code")).collect();
    assert!(codes.contains("PH1005"), "{codes:?}");
    assert!(dead.iter().any(|letter| letter.body == b"nothing"));
    site.vhost.drained("packhorse.council-broker.payments").await;
    assert!(bridge.stop().await);
    assert_eq!(council.until("payments.succeeded", 50).await.len(), 50);
    let account = site.account("council-broker.payments").await;
    assert_eq!((&account["delivered"], &account["duplicate"]), (&json!(50), &json!(1)));
    let account = site.account("council-broker.updates").await;
    assert_eq!(
        (&account["taken"], &account["delivered"], &account["duplicate"], &account["dead"]),
        (&json!(4), &json!(1), &json!(1), &json!(2))
    );
}

/// Nothing was sent, so nobody has to wonder.
#[tokio::test]
async fn while_the_councils_broker_is_away_what_must_not_be_repeated_waits_and_no_person_is_asked_about_it() {
    const COUNT: usize = 20;
    let (council, site) = with_a_broker_that_minds("repeat = \"never\"").await;
    let direct = council.address();
    let (broker, vhost) = direct.strip_prefix("amqp://").unwrap().split_once('/').unwrap();
    let proxy = Proxy::to(broker.parse().unwrap()).await;
    site.edit("packhorse.toml", &direct, &format!("amqp://{}/{vhost}", proxy.address));
    proxy.refuse(true);
    let running = site.run().await;
    let events: Vec<_> = (0..COUNT)
        .map(|number| event("payment.succeeded.v1", &format!("event-{number}"), &paid(number as u32)))
        .collect();
    site.vhost.publish_many("packhorse.council-broker.payments", &events).await;
    let log = || std::fs::read_to_string(site.folder.0.join("log")).unwrap();
    until("it is found to be away", async || log().contains("the system is away").then_some(())).await;
    proxy.refuse(false);
    until("all are there", async || {
        (site.account("council-broker.payments").await["delivered"] == COUNT).then_some(())
    })
    .await;
    assert_eq!(running.terminate().await, 0);
    let ids: BTreeSet<String> = council.everything("payments.succeeded").await.into_iter().collect();
    assert_eq!(ids.len(), COUNT);
    assert!(!log().contains("a dead letter now"), "{}", log());
}

/// What may be sent again is not claimed on disk before it is sent: a crash may repeat the last windows, under their ids.
#[tokio::test]
async fn a_crash_in_the_middle_of_a_stream_between_brokers_loses_nothing_and_the_account_closes() {
    const COUNT: usize = 3_000;
    let (council, site) = with_a_broker_of_the_council().await;
    site.good(&["topology", "apply"]).await;
    let queue = "packhorse.council-broker.payments";
    let bodies: Vec<(String, Vec<u8>)> = (0..COUNT)
        .map(|number| event("payment.succeeded.v1", &format!("event-{number}"), &paid(number as u32)))
        .collect();
    site.vhost.publish_many(queue, &bodies).await;
    let running = site.run().await;
    until("some have crossed", async || (council.depth("payments.succeeded").await > 200).then_some(()))
        .await;
    running.kill().await;
    let crossed = council.depth("payments.succeeded").await;
    assert!(crossed < COUNT as u64, "the crash came too late to show anything");
    let bridge = site.start().await;
    until("all are recorded", async || {
        (site.account("council-broker.payments").await["delivered"] == COUNT).then_some(())
    })
    .await;
    assert!(bridge.stop().await);
    let there = council.everything("payments.succeeded").await;
    let ids: BTreeSet<&str> = there.iter().map(String::as_str).collect();
    assert_eq!(ids.len(), COUNT);
    // At most what was under way: four lanes with a window each.
    assert!(there.len() - COUNT <= 4 * 256, "{} were sent again", there.len() - COUNT);
    let account = site.account("council-broker.payments").await;
    assert_eq!((&account["delivered"], &account["waiting"]), (&json!(COUNT), &json!(0)), "{account}");
}
