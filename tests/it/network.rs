//! What the network between bridge and broker can do: cut, stall, close half, be slow, in the middle of a run of messages.
//! Every posting is made once, every reply is told, and the account closes. The broker is real; the network is a proxy of
//! our own.

use crate::{
    payments::{Ledger, QUEUE, ROUTE, ledger, paid_as},
    proxy::{Proxy, Way},
    support::{event, until},
};
use packhorse::bridge::Bridge;
use std::{collections::BTreeSet, sync::Arc};

/// Events of one run.
const RUN: usize = 60;

/// A ledger whose bridge reaches its broker through a proxy.
struct Line {
    ledger: Ledger,
    proxy: Arc<Proxy>,
    bridge: Bridge,
    said: usize,
}

impl Line {
    async fn new() -> Line {
        let ledger = ledger().await;
        let site = &ledger.site;
        let address = site.vhost.address();
        let (_, server) = address.split_once("://").unwrap();
        let (server, vhost) = server.split_once('/').unwrap();
        let proxy = Proxy::to(server.parse().unwrap()).await;
        let more =
            format!("[adapters.localgov-ims]\nsettings = {{ base_url = \"{}\" }}\n", ledger.server.url);
        site.settings(&format!("amqp://{}/{vhost}", proxy.address), &more);
        // So that silence is noticed within a test.
        site.edit("packhorse.toml", "[broker]", "[broker]\nheartbeat = \"2s\"");
        let bridge = site.start().await;
        Line { ledger, proxy, bridge, said: 0 }
    }

    /// Says a run of payments; returns when the first of them are posted and most are not.
    async fn run(&mut self) {
        let events: Vec<(String, Vec<u8>)> = (self.said..self.said + RUN)
            .map(|number| event("payment.succeeded.v1", &format!("event-{number}"), &paid_as(number)))
            .collect();
        self.ledger.site.vhost.publish_many(QUEUE, &events).await;
        let begun = self.said + 5;
        self.said += RUN;
        until("the run has begun", async || (self.ledger.ims.rows().len() >= begun).then_some(())).await;
        assert!(
            self.ledger.ims.rows().len() < self.said,
            "the run was over before anything could happen to it"
        );
    }

    /// Every posting of all runs is made once, and the platform knows of each.
    async fn all_is_posted_once(&self) {
        let rows = || self.ledger.ims.rows();
        until("all rows", async || (rows().len() >= self.said).then_some(())).await;
        until("the account says so", async || {
            (self.ledger.site.account(ROUTE).await["delivered"] == self.said).then_some(())
        })
        .await;
        let references: BTreeSet<String> =
            rows().iter().map(|row| row["PspReference"].as_str().unwrap().to_owned()).collect();
        assert_eq!((rows().len(), references.len()), (self.said, self.said), "posted once each");
        let told = self.ledger.site.vhost.peek("platform").await;
        let told: BTreeSet<String> =
            told.iter().map(|event| event.json()["id"].as_str().unwrap().to_owned()).collect();
        assert_eq!(told.len(), self.said);
    }

    async fn end(self) {
        assert!(self.bridge.stop().await);
        let account = self.ledger.site.account(ROUTE).await;
        // What came again because its acknowledgement was lost is a duplicate, and counted as one.
        let count = |name: &str| account[name].as_u64().unwrap();
        assert_eq!(count("delivered"), self.said as u64);
        assert_eq!(count("taken"), count("delivered") + count("duplicate"), "{account}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_cut_in_the_middle_of_a_run_loses_nothing_and_posts_nothing_twice() {
    let mut line = Line::new().await;
    for _ in 0..3 {
        line.run().await;
        line.proxy.cut();
        line.all_is_posted_once().await;
    }
    // Also when nobody is let through for a while.
    line.run().await;
    line.proxy.refuse(true);
    let came = line.proxy.came();
    line.proxy.cut();
    line.proxy.comes_again(came + 2).await;
    line.proxy.refuse(false);
    line.all_is_posted_once().await;
    line.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_stalls_in_either_direction_is_given_up_and_made_anew_and_posts_nothing_twice() {
    for way in [Way::Up, Way::Down] {
        let mut line = Line::new().await;
        line.run().await;
        let came = line.proxy.came();
        line.proxy.stall(way);
        // Found out by the heartbeat, on one side or the other; what is made anew stalls as well.
        line.proxy.comes_again(came).await;
        line.proxy.open();
        line.all_is_posted_once().await;
        line.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_closed_in_one_direction_is_made_anew_and_posts_nothing_twice() {
    for way in [Way::Up, Way::Down] {
        let mut line = Line::new().await;
        line.run().await;
        let came = line.proxy.came();
        line.proxy.half_close(way);
        line.proxy.comes_again(came).await;
        line.all_is_posted_once().await;
        line.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_connection_only_takes_longer() {
    let mut line = Line::new().await;
    for way in [Way::Up, Way::Down] {
        line.proxy.slow(way, 400);
        line.run().await;
        let before = line.proxy.bytes(way);
        line.all_is_posted_once().await;
        assert!(line.proxy.bytes(way) > before);
        line.proxy.open();
    }
    line.end().await;
}
