//! What lies in the dead letters is whole, says why, and comes back by a person's word without harm: nothing is paid or
//! posted twice by a replay, nothing is lost by a crash in the middle of one, nothing is discarded without a name.

use crate::{
    cards::{scp_site, types, wish},
    ordered::{self, Cases},
    payments::{Ledger, PATH, QUEUE, ROUTE, ledger, paid},
    standins::http::Fault,
    support::{Seen, Site, example, until},
};
use serde_json::{Value, json};

const BY: [&str; 4] = ["--by", "A. Tester", "--reason", "looked"];

/// `dead-letters <act> …` by a named person, which must succeed; its standard output.
async fn act(site: &Site, arguments: &[&str]) -> String {
    site.good(&[&["dead-letters"], arguments, &BY].concat()).await
}

/// The dead letters as `list --json` tells of them.
async fn listed(site: &Site) -> Vec<Value> {
    let out = site.good(&["dead-letters", "list", "--json"]).await;
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Puts a letter into the queue once more, as a replay or a discard leaves it that was killed before it was removed.
async fn left_behind(site: &Site, letter: &Seen) {
    assert!(
        site.vhost.publish("", "packhorse.dead", letter.properties.clone(), &letter.body).await,
        "there is a dead-letter queue"
    );
}

/// Waits until a message waits for its next attempt, its first or its second.
async fn held(site: &Site) {
    until("a message waits", async || {
        let depth = async |tier: &str| site.vhost.depth(&format!("packhorse.retry.{tier}")).await;
        (depth("5s").await + depth("30s").await == 1).then_some(())
    })
    .await;
}

impl Ledger {
    /// A payment that has become one dead letter.
    async fn one_dead(&self, code: &str) -> Seen {
        self.site.vhost.say("payment.succeeded.v1", "event-1", &paid()).await;
        let dead = self.site.dead(1).await;
        assert_eq!((dead.len(), dead[0].header("packhorse_code").as_str()), (1, code));
        dead[0].clone()
    }
}

#[tokio::test]
async fn a_letter_in_doubt_says_so_and_a_plain_replay_of_it_is_refused() {
    let ledger = ledger().await;
    ledger.site.edit("adapters/localgov-ims.toml", "repeat = \"probe\"", "repeat = \"never\"");
    ledger.server.misbehave("POST", PATH, Fault::CutAfter, 1);
    let bridge = ledger.site.start().await;
    let letter = ledger.one_dead("PH2006").await;
    assert_eq!(letter.header("packhorse_in_doubt"), "yes");
    let list = listed(&ledger.site).await;
    assert_eq!((&list[0]["in_doubt"], &list[0]["replays"]), (&json!(true), &json!(0)));
    let name = list[0]["name"].as_str().unwrap();
    assert!(ledger.site.good(&["dead-letters", "list"]).await.contains("in doubt"));
    let shown = ledger.site.good(&["dead-letters", "show", name]).await;
    assert!(shown.contains("in doubt        yes: a request may have been carried out"), "{shown}");
    for way in [&["--dry-run"][..], &[]] {
        let replay = [&["dead-letters", "replay", name], way, &BY].concat();
        let (code, out, _) = ledger.site.command(&replay).await;
        assert_eq!(code, 1, "{out}");
        assert!(out.contains("PH5002") && out.contains("--not-received"), "{out}");
    }
    let after = ledger.site.dead(1).await;
    assert_eq!((after.len(), &after[0].body), (1, &letter.body), "it lies where it lay, whole");
    assert!(bridge.stop().await);
    assert_eq!((ledger.sent(), ledger.ims.rows().len()), (1, 1));
}

#[tokio::test]
async fn a_doubt_that_asking_does_not_settle_goes_before_a_person_in_time_and_its_replay_asks_again() {
    let ledger = ledger().await;
    let probe = "[deliver.post.probe]\n";
    ledger.site.edit("adapters/localgov-ims.toml", probe, &format!("{probe}patience = \"1s\"\n"));
    ledger.server.misbehave("POST", PATH, Fault::CutAfter, 1);
    ledger.server.misbehave("GET", PATH, Fault::Status(500, None), 2);
    let bridge = ledger.site.start().await;
    let letter = ledger.one_dead("PH2011").await;
    assert_eq!(
        (letter.header("packhorse_in_doubt").as_str(), letter.header("packhorse_stage").as_str()),
        ("yes", "asking")
    );
    assert_eq!(ledger.server.requests("GET", PATH).len(), 2, "asked at once, and once more");
    // It was carried out: the replay asks before it sends anything.
    act(&ledger.site, &["replay", "--code", "PH2011"]).await;
    ledger.told(1).await;
    assert!(bridge.stop().await);
    assert_eq!((ledger.sent(), ledger.ims.rows().len()), (1, 1));
    assert_eq!(ledger.site.account(ROUTE).await["delivered"], 1);
}

#[tokio::test]
async fn a_follow_up_that_cannot_be_opened_does_not_make_the_replay_send_again() {
    let world = scp_site().await;
    let (right, wrong) =
        ("scpSimpleInvokeResponse.scpReference }}", "scpSimpleInvokeResponse.saleReference }}");
    world.site.edit("adapters/capita-scp.toml", right, wrong);
    let bridge = world.site.start().await;
    world.site.vhost.say("payment.requested.v1", "event-1", &wish()).await;
    let dead = world.site.dead(1).await;
    assert_eq!(
        (dead[0].header("packhorse_code").as_str(), dead[0].header("packhorse_stage").as_str()),
        ("PH1207", "reply")
    );
    // As long as it is wrong, a replay comes to the same end.
    act(&world.site, &["replay", "--all"]).await;
    until("it is a dead letter again", async || {
        let dead = world.site.vhost.peek("packhorse.dead").await;
        (dead.first()?.header("packhorse_replay") == "1").then_some(())
    })
    .await;
    assert!(bridge.stop().await);
    world.site.edit("adapters/capita-scp.toml", wrong, right);
    let bridge = world.site.start().await;
    act(&world.site, &["replay", "--all"]).await;
    let told = world.site.vhost.until("platform", 1).await;
    assert_eq!(types(&told), ["payment.started.v1.example"]);
    let reference = world.scp.sales.lock().unwrap().keys().next().unwrap().clone();
    world.scp.payer(&reference, "SUCCESS");
    let told = world.site.vhost.until("platform", 2).await;
    assert_eq!(told[1].routing_key, "payment.succeeded.v1.example", "its end is asked about");
    assert!(bridge.stop().await);
    let invoked = world.server.requests("POST", "/scp/scpws");
    let invoked = invoked.iter().filter(|request| request.text().contains("scpSimpleInvokeRequest")).count();
    assert_eq!((invoked, world.scp.sales.lock().unwrap().len()), (1, 1));
}

#[tokio::test]
async fn a_sale_before_a_person_holds_the_next_one_until_its_letter_is_discarded() {
    let world = scp_site().await;
    let bridge = world.site.start().await;
    world.site.vhost.say("payment.requested.v1", "event-1", &wish()).await;
    world.site.vhost.until("platform", 1).await;
    world.scp.sales.lock().unwrap().clear();
    let dead = world.site.dead(1).await;
    assert_eq!(dead[0].header("packhorse_route"), "capita-scp.sales");
    world.site.vhost.say("payment.requested.v1", "event-2", &wish()).await;
    held(&world.site).await;
    assert!(world.scp.sales.lock().unwrap().is_empty(), "nothing is opened meanwhile");
    act(&world.site, &["discard", "--route", "capita-scp.sales"]).await;
    let told = world.site.vhost.until("platform", 2).await;
    assert_eq!(told[1].json()["causationid"], "event-2");
    assert_eq!(world.scp.sales.lock().unwrap().len(), 1);
    assert!(bridge.stop().await);
    let account = world.site.account("capita-scp.sales").await;
    assert_eq!((&account["discarded"], &account["dead"]), (&json!(1), &json!(0)));
}

#[tokio::test]
async fn a_sale_before_a_person_is_asked_about_again_by_a_replay_and_its_end_then_counts() {
    let world = scp_site().await;
    let bridge = world.site.start().await;
    world.site.vhost.say("payment.requested.v1", "event-1", &wish()).await;
    world.site.vhost.until("platform", 1).await;
    let sales = std::mem::take(&mut *world.scp.sales.lock().unwrap());
    let letter = world.site.dead(1).await[0].clone();
    world.site.vhost.say("payment.requested.v1", "event-2", &wish()).await;
    held(&world.site).await;
    // The portal knows it again, and it was paid.
    let reference = sales.keys().next().unwrap().clone();
    *world.scp.sales.lock().unwrap() = sales;
    world.scp.payer(&reference, "SUCCESS");
    act(&world.site, &["replay", "--route", "capita-scp.sales"]).await;
    world.site.good(&["account"]).await;
    let told = world.site.vhost.until("platform", 2).await;
    assert_eq!(told[1].routing_key, "payment.succeeded.v1.example");
    let dead = world.site.dead(1).await;
    assert_eq!(dead[0].header("packhorse_code"), "PH2015", "the second one finds it paid");
    // A letter that was left behind changes nothing of that, whether it is replayed or discarded.
    left_behind(&world.site, &letter).await;
    let again = [&["dead-letters", "replay", "--route", "capita-scp.sales"][..], &BY].concat();
    let (code, out, _) = world.site.command(&again).await;
    assert!(code == 1 && out.contains("PH5002"), "{out}");
    act(&world.site, &["discard", "--route", "capita-scp.sales"]).await;
    world.site.vhost.say("payment.requested.v1", "event-3", &wish()).await;
    let dead = world.site.dead(2).await;
    assert_eq!(dead[1].header("packhorse_code"), "PH2015");
    assert!(bridge.stop().await);
    assert_eq!(world.scp.sales.lock().unwrap().len(), 1);
    let account = world.site.account("capita-scp.sales").await;
    assert_eq!((&account["delivered"], &account["discarded"]), (&json!(1), &json!(0)));
}

#[tokio::test]
async fn the_account_closes_while_what_was_replayed_waits_for_its_route_to_run() {
    let cases = Cases::new("").await;
    let site = &cases.site;
    cases.wish("A", 1, &[422, 201]);
    let bridge = site.start().await;
    cases.say(&[("A", 1), ("A", 2)]).await;
    until("one is dead and one waits", async || {
        let line = site.account(ordered::ROUTE).await;
        (line["dead"] == 1 && line["parked"] == 1).then_some(())
    })
    .await;
    assert!(bridge.stop().await);
    act(site, &["replay", "--route", ordered::ROUTE]).await;
    site.vhost.drained("packhorse.dead").await;
    site.good(&["account"]).await;
    let line = site.account(ordered::ROUTE).await;
    assert_eq!((&line["dead"], &line["waiting"]), (&json!(0), &json!(2)), "{line}");
    let bridge = site.start().await;
    until("both are through", async || (site.account(ordered::ROUTE).await["delivered"] == 2).then_some(()))
        .await;
    assert_eq!(cases.taken(), [("A".to_owned(), 1), ("A".to_owned(), 2)]);
    assert!(bridge.stop().await);
    site.good(&["account"]).await;
}

#[tokio::test]
async fn two_unreadable_messages_with_one_message_id_are_two_letters_and_a_copy_is_a_duplicate() {
    let ledger = ledger().await;
    let bridge = ledger.site.start().await;
    let bodies: [&[u8]; 2] = [b"{\"specversion\": \"1.0\", \xff", b"<html>We are back soon</html>\r\n"];
    for body in [bodies[0], bodies[1], bodies[0]] {
        ledger.site.vhost.say_bytes("payment.succeeded.v1", "event-1", body).await;
    }
    let dead = ledger.site.dead(2).await;
    ledger.site.vhost.drained(QUEUE).await;
    assert!(bridge.stop().await);
    let mut found: Vec<&[u8]> = dead.iter().map(|letter| letter.body.as_slice()).collect();
    found.sort_by_key(|body| body.first() == Some(&b'<'));
    assert_eq!(found, bodies);
    for letter in &dead {
        let digest = ring::digest::digest(&ring::digest::SHA256, &letter.body);
        assert_eq!(letter.header("packhorse_sha256"), packhorse::event::hex(digest.as_ref()));
        assert_eq!(letter.properties["message_id"], "event-1");
    }
    let account = ledger.site.account(ROUTE).await;
    assert_eq!(
        (&account["taken"], &account["dead"], &account["duplicate"]),
        (&json!(3), &json!(2), &json!(1))
    );
}

#[tokio::test]
async fn a_replay_begins_anew_its_attempts_and_its_time() {
    let ledger = ledger().await;
    let (from, to) = ("repeat = \"probe\"", "retry = { at_once = 0, waits = [\"5s\"], give_up = \"4s\" }");
    ledger.site.edit("adapters/localgov-ims.toml", from, &format!("{from}\n{to}"));
    // 408 is said of the one request; of a system that is away no message pays.
    ledger.server.misbehave("POST", PATH, Fault::Status(408, None), 4);
    let bridge = ledger.site.start().await;
    let letter = ledger.one_dead("PH2014").await;
    assert_eq!(letter.header("packhorse_attempt"), "2");
    act(&ledger.site, &["replay", "--all"]).await;
    // Not given up at its first failure, though the very first was long ago: it has two attempts again.
    ledger.server.until("POST", PATH, 4).await;
    ledger.site.dead(1).await;
    let list = listed(&ledger.site).await;
    assert_eq!((&list[0]["attempts"], &list[0]["replays"]), (&json!(2), &json!(1)));
    act(&ledger.site, &["replay", "--all"]).await;
    ledger.told(1).await;
    assert!(bridge.stop().await);
    assert_eq!((ledger.sent(), ledger.ims.rows().len()), (5, 1));
}

#[tokio::test]
async fn what_is_discarded_is_discarded_by_a_named_person_for_a_reason_and_the_account_closes() {
    let ledger = ledger().await;
    let bridge = ledger.site.start().await;
    let broken = b"{\"specversion\": \"1.0\", ";
    ledger.site.vhost.say_bytes("payment.succeeded.v1", "event-1", broken).await;
    let letter = ledger.site.dead(1).await[0].clone();
    assert_eq!(letter.body, broken);
    for without in [
        &["--by", "A. Tester"][..],
        &["--reason", "x"],
        &["--by", " ", "--reason", "x"],
        &["--by", "x", "--reason", ""],
    ] {
        let (code, ..) =
            ledger.site.command(&[&["dead-letters", "discard", "--route", ROUTE], without].concat()).await;
        assert_eq!(code, 2, "{without:?}");
    }
    let out = act(&ledger.site, &["discard", "--route", ROUTE, "--dry-run"]).await;
    assert!(out.contains("1 would be discarded"), "{out}");
    assert_eq!(ledger.site.vhost.depth("packhorse.dead").await, 1);
    act(&ledger.site, &["discard", "--route", ROUTE]).await;
    assert_eq!(ledger.site.vhost.depth("packhorse.dead").await, 0);
    let account = ledger.site.account(ROUTE).await;
    assert_eq!((&account["dead"], &account["discarded"]), (&json!(0), &json!(1)));
    assert!(bridge.stop().await);
    let store = rusqlite::Connection::open(ledger.store()).unwrap();
    let line: (String, String, String, String) = store
        .query_row("SELECT who, what, reason, about FROM audit", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })
        .unwrap();
    assert_eq!((line.0.as_str(), line.1.as_str(), line.2.as_str()), ("A. Tester", "discard", "looked"));
    assert_eq!(line.3, letter.header("packhorse_key"));
}

#[tokio::test]
async fn a_line_given_up_in_an_earlier_attempt_keeps_its_own_code_and_field_in_the_letter() {
    let ledger = ledger().await;
    // The first line fails for good, the second is busy: the message comes again, and the third is posted.
    ledger.server.misbehave("POST", PATH, Fault::Status(408, None), 3);
    let bridge = ledger.site.start().await;
    let mut data = example("payment.succeeded.v1");
    data["lines"][0]["fund"] = json!("cemeteries");
    ledger.site.vhost.say("payment.succeeded.v1", "event-1", &data).await;
    let dead = ledger.site.dead(1).await;
    let marks =
        ["code", "stage", "field", "in_doubt"].map(|name| dead[0].header(&format!("packhorse_{name}")));
    assert_eq!((marks[0].as_str(), marks[1].as_str(), marks[3].as_str()), ("PH1204", "mapping", "null"));
    assert!(marks[2].starts_with("lines[1]: lines[1].fund"), "{marks:?}");
    assert!(
        dead[0].header("packhorse_what").contains("code list `fund`"),
        "{}",
        dead[0].header("packhorse_what")
    );
    assert_eq!(dead[0].header("packhorse_attempt"), "2");
    assert_eq!(ledger.ims.rows().len(), 2);
    assert!(bridge.stop().await);
}

#[tokio::test]
async fn of_several_lines_given_up_the_one_in_doubt_speaks_and_the_others_are_named() {
    let ledger = ledger().await;
    ledger.site.edit("adapters/localgov-ims.toml", "repeat = \"probe\"", "repeat = \"never\"");
    ledger.server.misbehave("POST", PATH, Fault::CutAfter, 1);
    let bridge = ledger.site.start().await;
    let mut data = example("payment.succeeded.v1");
    data["lines"][0]["fund"] = json!("cemeteries");
    ledger.site.vhost.say("payment.succeeded.v1", "event-1", &data).await;
    let dead = ledger.site.dead(1).await;
    let marks = ["code", "field", "in_doubt"].map(|name| dead[0].header(&format!("packhorse_{name}")));
    assert_eq!((marks[0].as_str(), marks[1].as_str(), marks[2].as_str()), ("PH2006", "lines[2]", "yes"));
    assert!(
        dead[0].header("packhorse_what").contains("PH1204 lines[1]"),
        "{}",
        dead[0].header("packhorse_what")
    );
    assert!(bridge.stop().await);
    assert_eq!(ledger.ims.rows().len(), 2, "the doubtful one was stored, and the third");
}
