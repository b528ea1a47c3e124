//! Clocks that are wrong, are set forward or back while the program runs, or stood still while the machine slept: nothing is
//! lost, nothing is done twice, and nothing waits an hour that should wait seconds. By real means: the program runs with
//! libfaketime, which `scripts/test` installs, and reads its clock's offset from a file. Its steady clock stays the machine's.

use crate::{
    cards::pay_site,
    ordered::{self, Cases},
    payments::{PATH, QUEUE, ROUTE, ledger},
    standins::http::Fault,
    support::{Running, Site, example, until},
};
use serde_json::json;
use std::time::Duration;

/// The wall clock of a site's program, which a test sets.
struct Clock<'s> {
    site: &'s Site,
    library: String,
    file: String,
}

impl Clock<'_> {
    /// None where there is no libfaketime, and says so.
    fn of(site: &Site) -> Option<Clock<'_>> {
        let library = std::env::var("PACKHORSE_FAKETIME")
            .unwrap_or_else(|_| panic!("PACKHORSE_FAKETIME is not set: run scripts/test"));
        if library == "none" {
            println!("left out: libfaketime cannot be installed here, so that no clock can be set");
            return None;
        }
        let file = site.folder.write("clock", "+0").to_str().unwrap().to_owned();
        Some(Clock { site, library, file })
    }

    /// Sets it so many seconds off the machine's.
    fn set(&self, seconds: i64) {
        // Under another name first: the program reads it at any moment.
        self.site.folder.write("clock.new", format!("{seconds:+}"));
        std::fs::rename(self.site.folder.0.join("clock.new"), &self.file).unwrap();
    }

    async fn run(&self) -> Running {
        self.site
            .run_with(&[
                ("LD_PRELOAD", &self.library),
                ("FAKETIME_TIMESTAMP_FILE", &self.file),
                ("FAKETIME_NO_CACHE", "1"),
                ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
                ("DONT_FAKE_MONOTONIC", "1"),
            ])
            .await
    }
}

const HOUR: i64 = 3_600;

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_forward_before_the_system_shows_a_request_makes_nothing_be_posted_twice() {
    let ledger = ledger().await;
    let Some(clock) = Clock::of(&ledger.site) else { return };
    // That it is not there counts after 25 seconds; it is there after 20, and asked for after five.
    *ledger.ims.lag.lock().unwrap() = Duration::from_secs(20);
    let probe = "[deliver.post.probe]\n";
    ledger.site.edit("adapters/localgov-ims.toml", probe, &format!("{probe}settle = \"25s\"\n"));
    let running = clock.run().await;
    ledger.server.misbehave("POST", PATH, Fault::CutAfter, 1);
    ledger.site.vhost.say("payment.succeeded.v1", "event-1", &crate::payments::paid()).await;
    until("it is sent", async || (!ledger.ims.rows().is_empty()).then_some(())).await;
    clock.set(HOUR);
    until("it is found", async || (ledger.site.account(ROUTE).await["delivered"] == 1).then_some(())).await;
    assert_eq!(ledger.ims.rows().len(), 1, "posted once");
    ledger.site.vhost.drained(QUEUE).await;
    assert_eq!(running.terminate().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_its_turn_for_seconds_does_not_wait_an_hour_when_the_clock_is_set_back() {
    let cases = Cases::new("").await;
    let Some(clock) = Clock::of(&cases.site) else { return };
    let running = clock.run().await;
    // Of A the first fails for a while; of B the system is away for a moment.
    cases.wish("A", 1, &[500]);
    cases.wish("B", 1, &[503, 503, 201]);
    cases.say(&[("A", 1), ("A", 2), ("B", 1), ("B", 2)]).await;
    until("they wait", async || {
        (cases.site.account(ordered::ROUTE).await["parked"].as_u64() > Some(0)).then_some(())
    })
    .await;
    clock.set(-HOUR);
    cases.wish("A", 1, &[201]);
    until("all are through", async || (cases.taken().len() == 4).then_some(())).await;
    // And forward again, over an hour in which nothing happened.
    cases.wish("A", 3, &[500]);
    cases.say(&[("A", 3), ("A", 4)]).await;
    until("they wait", async || {
        (cases.site.account(ordered::ROUTE).await["parked"].as_u64() > Some(0)).then_some(())
    })
    .await;
    clock.set(HOUR);
    cases.wish("A", 3, &[201]);
    until("all are through", async || (cases.taken().len() == 6).then_some(())).await;
    let first = cases.first();
    assert_eq!((&first["A"], &first["B"]), (&vec![1, 2, 3, 4], &vec![1, 2]));
    assert_eq!(running.terminate().await, 0);
    cases.site.good(&["account"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_put_off_by_a_clock_that_was_ahead_does_not_wait_for_that_hour_after_a_restart() {
    let cases = Cases::new("").await;
    let Some(clock) = Clock::of(&cases.site) else { return };
    clock.set(HOUR);
    let running = clock.run().await;
    cases.wish("A", 1, &[500]);
    cases.say(&[("A", 1), ("A", 2)]).await;
    until("they wait", async || (cases.site.account(ordered::ROUTE).await["parked"] == 2).then_some(()))
        .await;
    assert_eq!(running.terminate().await, 0);
    clock.set(0);
    cases.wish("A", 1, &[201]);
    let running = clock.run().await;
    until("all are through", async || (cases.taken().len() == 2).then_some(())).await;
    assert_eq!(cases.first()["A"], [1, 2]);
    assert_eq!(running.terminate().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_item_is_asked_about_in_time_when_the_clock_is_set_back() {
    let world = pay_site(&["refund-status"]).await;
    let site = &world.site;
    let Some(clock) = Clock::of(site) else { return };
    let running = clock.run().await;
    let id = world.made_elsewhere();
    world.pay.payer(&id, "success");
    let mut data = example("refund.requested.v1");
    data["provider_reference"] = json!(id);
    data["amount"] = json!(2000);
    site.vhost.say("refund.requested.v1", "event-1", &data).await;
    until("it is refunded and asked about", async || {
        (site.account("govuk-pay.refund-status").await["open_items"] == 1).then_some(())
    })
    .await;
    clock.set(-HOUR);
    world.pay.change(&id, |payment| "success".clone_into(&mut payment.refunds[0].status));
    site.vhost.until("platform", 1).await;
    assert_eq!(running.terminate().await, 0);
    site.good(&["account"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_slept_for_an_hour_goes_on_where_it_was_and_posts_nothing_twice() {
    let ledger = ledger().await;
    let site = &ledger.site;
    let Some(clock) = Clock::of(site) else { return };
    site.edit("packhorse.toml", "[broker]", "[broker]\nheartbeat = \"2s\"");
    let running = clock.run().await;
    for number in 0..30 {
        let mut data = crate::broker::paid(number);
        data["posting"] = json!("needed");
        site.vhost.say("payment.succeeded.v1", &format!("event-{number}"), &data).await;
        if number == 10 {
            // Asleep: it stands still, the broker gives it up, and the clock has gone on when it wakes.
            running.signal("STOP").await;
            tokio::time::sleep(Duration::from_secs(8)).await;
            clock.set(HOUR);
            running.signal("CONT").await;
        }
    }
    until("all are posted", async || (site.account(ROUTE).await["delivered"] == 30).then_some(())).await;
    assert_eq!(ledger.ims.rows().len(), 30, "each once");
    assert_eq!(running.terminate().await, 0);
    site.good(&["account"]).await;
}
