//! The account: it closes at any moment and says where everything is; a difference that somebody makes by hand is seen, and
//! named.

use crate::{
    ordered::{Cases, ROUTE},
    support::{Site, until},
};
use packhorse::event::Key;
use serde_json::{Value, json};

const QUEUE: &str = "packhorse.cases.post";
const HOUR: i64 = 3_600_000;

/// Cases whose route keeps no order.
async fn unordered() -> Cases {
    let cases = Cases::new("").await;
    cases.site.edit("adapters/cases.toml", "order = \"subject\"\n", "");
    cases
}

fn key(id: &str) -> Key {
    Key::of("urn:platform:cases", id)
}

/// What somebody does to the store behind the program's back.
fn by_hand(site: &Site, sql: &str, given: impl rusqlite::Params) {
    let store = rusqlite::Connection::open(site.folder.0.join("var/packhorse.db")).unwrap();
    store.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
    assert!(store.execute(sql, given).unwrap() > 0, "{sql} does nothing");
}

/// The line of the route, whether it closes or not, and the exit code.
async fn line(site: &Site, more: &[&str]) -> (i32, Value) {
    let (code, out, err) = site.command(&[&["account", "--json", "--route", ROUTE], more].concat()).await;
    (code, serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{err}")))
}

async fn until_line(site: &Site, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
    until(what, async || {
        let line = site.account(ROUTE).await;
        fits(&line).then_some(line)
    })
    .await
}

#[tokio::test]
async fn rows_that_are_gone_or_do_not_belong_are_seen_in_their_hour_and_named() {
    let cases = unordered().await;
    let bridge = cases.site.start().await;
    cases.say(&[("A", 1), ("B", 1), ("C", 1), ("A", 1)]).await;
    until_line(&cases.site, "three and a copy", |line| line["taken"] == 4).await;
    assert!(bridge.stop().await);
    let (code, whole) = line(&cases.site, &[]).await;
    assert_eq!((code, &whole["delivered"], &whole["duplicate"]), (0, &json!(3), &json!(1)), "{whole}");
    // A row of which nothing else is left: the count of its hour knows how its key begins.
    by_hand(&cases.site, "DELETE FROM journal WHERE id = 'B-1'", []);
    let (code, lost) = line(&cases.site, &[]).await;
    assert_eq!((code, &lost["difference"]), (1, &json!(1)), "{lost}");
    let astray = &lost["astray"][0];
    assert_eq!((&astray["what"], &astray["messages"]), (&json!("missing"), &json!(1)), "{lost}");
    let begins = astray["named"][0]["key"].as_str().unwrap();
    assert!(begins.len() == 16 && key("B-1").to_string().starts_with(begins), "{astray}");
    let (code, out, err) = cases.site.command(&["account", "--offline"]).await;
    assert!(code == 1 && out.contains(begins) && err.contains("PH5003"), "{out}{err}");
    // Another hour has nothing to do with it.
    let (_, of_hour) = line(&cases.site, &["--since", "1h"]).await;
    assert_eq!(of_hour["taken"], 4);
    // A row that somebody has moved is one too few there and one too many here, though the sum is the same.
    by_hand(&cases.site, "UPDATE journal SET taken_at = taken_at - 7200000 WHERE id = 'C-1'", []);
    let (_, moved) = line(&cases.site, &[]).await;
    assert_eq!(moved["difference"], 1);
    let surplus =
        moved["astray"].as_array().unwrap().iter().find(|astray| astray["what"] == "surplus").unwrap();
    assert_eq!((&surplus["named"][0]["id"], &surplus["messages"]), (&json!("C-1"), &json!(1)), "{moved}");
    assert_eq!(surplus["named"][0]["key"], json!(key("C-1").to_string()));
}

#[tokio::test]
async fn a_letter_that_is_purged_is_named_and_one_that_is_replayed_or_discarded_is_not_missed() {
    let cases = unordered().await;
    for (subject, number) in [("A", 1), ("A", 2), ("B", 1), ("C", 1)] {
        cases.wish(subject, number, &[400, 201]);
    }
    let bridge = cases.site.start().await;
    cases.say(&[("A", 1), ("A", 2), ("B", 1), ("C", 1), ("D", 1)]).await;
    until_line(&cases.site, "four dead letters", |line| line["dead"] == 4 && line["delivered"] == 1).await;
    assert!(bridge.stop().await);
    let name = |id: &str| key(id).to_string();
    cases
        .site
        .good(&["dead-letters", "discard", &name("B-1"), "--by", "A Clerk", "--reason", "sent by mistake"])
        .await;
    // Nobody takes it: its message is on its way back for as long as the bridge is away.
    cases.site.good(&["dead-letters", "replay", &name("C-1"), "--by", "A Clerk", "--reason", "mended"]).await;
    let (code, out, err) = cases.site.command(&["account"]).await;
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("dead-letter queue: 2 letters, 2 by the journal"), "{out}");
    assert!(out.contains("1 message back in the route's queue"), "{out}");
    assert!(
        out.contains("1 message discarded by A Clerk, last at") && out.contains("sent by mistake"),
        "{out}"
    );
    let (_, before) = line(&cases.site, &[]).await;
    let by = &before["discarded_by"][0];
    assert_eq!((&by["by"], &by["messages"]), (&json!("A Clerk"), &json!(1)), "{before}");
    // Somebody empties the queue with another tool.
    cases.site.vhost.call("DELETE", "queues/packhorse.dead/contents", Value::Null).await;
    let (code, lost) = line(&cases.site, &[]).await;
    assert_eq!((code, &lost["difference"]), (1, &json!(0)), "{lost}");
    let astray = &lost["astray"][0];
    assert_eq!((&astray["what"], &astray["messages"]), (&json!("letter-gone"), &json!(2)), "{lost}");
    let mut ids: Vec<&str> =
        astray["named"].as_array().unwrap().iter().map(|named| named["id"].as_str().unwrap()).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["A-1", "A-2"]);
    // Without the broker nothing can be said of it.
    assert_eq!(line(&cases.site, &["--offline"]).await.0, 0);
    // What was replayed is done when the bridge is back, and not missed then either.
    let bridge = cases.site.start().await;
    let (_, line) = until("the replayed one is delivered", async || {
        let found = line(&cases.site, &[]).await;
        (found.1["delivered"] == 2).then_some(found)
    })
    .await;
    assert_eq!((&line["dead"], &line["astray"][0]["messages"]), (&json!(2), &json!(2)), "{line}");
    assert!(bridge.stop().await);
}

#[tokio::test]
async fn where_messages_wait_and_until_when_is_said_and_what_waits_nowhere_is_named() {
    let cases = unordered().await;
    cases.site.edit("adapters/cases.toml", "waits = [\"5s\"]", "waits = [\"1h\"]");
    cases.wish("A", 1, &[500]);
    let bridge = cases.site.start().await;
    cases.say(&[("A", 1), ("B", 1)]).await;
    let waits = until_line(&cases.site, "one waits", |line| line["waits"][0]["where"] == "retry-queue").await;
    let due: jiff::Timestamp = waits["waits"][0]["next_due"].as_str().unwrap().parse().unwrap();
    let wait = due.duration_since(jiff::Timestamp::now()).as_secs();
    assert!((3_000..=3_600).contains(&wait), "{waits}");
    assert_eq!((&waits["waits"][0]["messages"], &waits["waiting"]), (&json!(1), &json!(1)), "{waits}");
    let out = cases.site.good(&["account"]).await;
    assert!(
        out.contains("1 message in retry queues, due ") && out.contains("retry queues: 1 for 1h"),
        "{out}"
    );
    assert!(bridge.stop().await);
    // The retry queue is emptied by somebody, and an hour passes.
    cases.site.vhost.call("DELETE", "queues/packhorse.retry.1h/contents", Value::Null).await;
    by_hand(&cases.site, "UPDATE journal SET due_at = due_at - 7200000 WHERE id = 'A-1'", []);
    let (code, lost) = line(&cases.site, &[]).await;
    assert_eq!((code, &lost["astray"][0]["what"]), (1, &json!("not-back")), "{lost}");
    assert_eq!(lost["astray"][0]["named"][0]["id"], "A-1");
    // It is in its queue, late as it is: nothing is wrong, nobody has taken it yet.
    cases.say(&[("A", 1)]).await;
    until("the copy is there", async || (cases.site.vhost.depth(QUEUE).await == 1).then_some(())).await;
    assert_eq!(line(&cases.site, &[]).await.0, 0);
}

#[tokio::test]
async fn what_stands_in_the_parking_lot_is_said_and_what_the_journal_does_not_have_of_it_is_named() {
    let cases = Cases::new("").await;
    cases.wish("A", 1, &[400]);
    cases.wish("B", 1, &[500]);
    cases.site.edit("adapters/cases.toml", "waits = [\"5s\"]", "waits = [\"1h\"]");
    let bridge = cases.site.start().await;
    cases.say(&[("A", 1), ("A", 2), ("A", 3), ("B", 1), ("B", 2)]).await;
    let found = until_line(&cases.site, "four wait", |line| line["waiting"] == 4).await;
    assert!(bridge.stop().await);
    let places: Vec<(&Value, &Value)> = found["waits"]
        .as_array()
        .unwrap()
        .iter()
        .map(|waits| (&waits["where"], &waits["messages"]))
        .collect();
    assert_eq!(places, [(&json!("parking-lot"), &json!(2)), (&json!("held"), &json!(2))], "{found}");
    by_hand(&cases.site, "DELETE FROM journal WHERE id = 'A-3'", []);
    let (code, lost) = line(&cases.site, &[]).await;
    assert_eq!((code, &lost["difference"]), (1, &json!(1)), "{lost}");
    let stray = lost["astray"].as_array().unwrap().iter().find(|astray| astray["what"] == "not-in-journal");
    assert_eq!(stray.unwrap()["named"][0]["key"], json!(key("A-3").to_string()), "{lost}");
}

#[tokio::test]
async fn a_period_is_what_was_taken_in_since_then_with_its_copies_and_says_what_is_forgotten_of_it() {
    let cases = unordered().await;
    cases.site.edit("packhorse.toml", "[admin]", "[store]\nkeep = \"40d\"\n[admin]");
    let bridge = cases.site.start().await;
    cases.say(&[("A", 1), ("A", 2), ("B", 1)]).await;
    until_line(&cases.site, "three", |line| line["delivered"] == 3).await;
    assert!(bridge.stop().await);
    // Three days pass.
    by_hand(&cases.site, "UPDATE journal SET taken_at = taken_at - ?1", [72 * HOUR]);
    by_hand(&cases.site, "UPDATE intake SET hour = hour - 72", []);
    let bridge = cases.site.start().await;
    cases.say(&[("C", 1), ("A", 1)]).await;
    until_line(&cases.site, "another, and a copy", |line| line["taken"] == 5).await;
    let (code, since) = line(&cases.site, &["--since", "2h"]).await;
    // The copy counts with its first, which is not of these hours.
    assert_eq!((code, &since["taken"], &since["delivered"]), (0, &json!(1), &json!(1)), "{since}");
    let (code, since) = line(&cases.site, &["--since", "4d"]).await;
    assert_eq!((code, &since["taken"], &since["duplicate"]), (0, &json!(5), &json!(1)), "{since}");
    assert_eq!(since["remembers_since"], Value::Null);
    assert!(bridge.stop().await);
    // The journal forgets what is older than forty days.
    by_hand(
        &cases.site,
        "UPDATE journal SET taken_at = taken_at - ?1 WHERE id LIKE 'A%' OR id LIKE 'B%'",
        [40 * 24 * HOUR],
    );
    by_hand(&cases.site, "UPDATE intake SET hour = hour - 960 WHERE messages = 3", []);
    let bridge = cases.site.start().await;
    let whole = until_line(&cases.site, "three are pruned", |line| line["pruned"] == 4).await;
    assert_eq!(
        (&whole["taken"], &whole["delivered"], &whole["duplicate"]),
        (&json!(5), &json!(4), &json!(1)),
        "{whole}"
    );
    let (code, since) = line(&cases.site, &["--since", "60d"]).await;
    assert_eq!((code, &since["taken"]), (0, &json!(1)), "{since}");
    assert!(since["remembers_since"].is_string(), "{since}");
    let out = cases.site.good(&["account", "--since", "60d"]).await;
    assert!(out.contains("is no longer remembered one by one and not in these lines"), "{out}");
    assert!(bridge.stop().await);
    let (code, _, err) = cases.site.command(&["account", "--since", "soon"]).await;
    assert!(code == 2 && err.contains("neither a time ago"), "{err}");
    let (code, _, err) = cases.site.command(&["account", "--route", "cases.pots"]).await;
    assert!(code == 1 && err.contains("did you mean `cases.post`"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_closes_at_any_moment_while_messages_are_given_up_replayed_and_discarded() {
    const SUBJECTS: u32 = 60;
    let cases = unordered().await;
    let name = |number: u32| format!("S{number}");
    for number in 0..SUBJECTS {
        match number % 4 {
            0 if number == 0 => cases.wish(&name(number), 1, &[400]),
            0 => cases.wish(&name(number), 1, &[400, 201]),
            1 => cases.wish(&name(number), 1, &[500, 400, 201]),
            _ => {}
        }
    }
    let running = cases.site.run().await;
    let messages: Vec<(String, u32)> = (0..SUBJECTS).map(|number| (name(number), 1)).collect();
    let messages: Vec<(&str, u32)> = messages.iter().map(|(name, number)| (name.as_str(), *number)).collect();
    // While it is asked again and again, letters come, go back and are discarded, and the bridge dies in between.
    let asking = async {
        let mut asked = 0;
        loop {
            let line = cases.site.account(ROUTE).await;
            asked += 1;
            let ended = line["delivered"].as_u64().unwrap() + line["discarded"].as_u64().unwrap();
            if ended == u64::from(SUBJECTS) {
                return asked;
            }
        }
    };
    let acting = async {
        for part in messages.chunks(20) {
            cases.say(part).await;
        }
        let acting = ["--by", "A Clerk", "--reason", "a test"];
        let replay = [&["dead-letters", "replay", "--all"][..], &acting].concat();
        until("a letter is replayed", async || (cases.site.command(&replay).await.0 == 0).then_some(()))
            .await;
        running.kill().await;
        let running = cases.site.run().await;
        let hopeless = key("S0-1").to_string();
        until("the hopeless one is given up again, and discarded", async || {
            let discard = [&["dead-letters", "discard", &hopeless][..], &acting].concat();
            (cases.site.command(&discard).await.0 == 0).then_some(())
        })
        .await;
        until("every letter is replayed", async || {
            // There may be none at this moment.
            let _ = cases.site.command(&replay).await;
            let line = cases.site.account(ROUTE).await;
            (line["waiting"] == 0 && line["dead"] == 0 && line["taken"].as_u64() >= Some(u64::from(SUBJECTS)))
                .then_some(())
        })
        .await;
        running
    };
    let (asked, running) = tokio::join!(asking, acting);
    assert!(asked > 3, "it was asked {asked} times only");
    assert_eq!(running.terminate().await, 0);
    cases.site.account(ROUTE).await;
}
