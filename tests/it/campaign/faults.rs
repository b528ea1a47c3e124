//! What can go wrong, one thing after the other.

use super::{chance::Chance, world::World};
use crate::{
    proxy::Way,
    standins::http::{Fault, Server},
};

/// The kinds of faults. Each happens before one happens again: also a short campaign sees most of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Killed,
    Cut,
    Stalled,
    HalfClosed,
    Slow,
    BrokerStopped,
    BrokerKilled,
    MemoryAlarm,
    DiskAlarm,
    FullQueues,
    DeliveryLimit,
    FilesKilled,
    DatabaseKilled,
    Held,
    StoreCut,
    StoreStalled,
}

/// A deck of them.
const DECK: [Kind; 17] = [
    Kind::Killed,
    Kind::Killed,
    Kind::Killed,
    Kind::Killed,
    Kind::Cut,
    Kind::Cut,
    Kind::Stalled,
    Kind::Stalled,
    Kind::HalfClosed,
    Kind::Slow,
    Kind::BrokerStopped,
    Kind::BrokerKilled,
    Kind::MemoryAlarm,
    Kind::DiskAlarm,
    Kind::FullQueues,
    Kind::DeliveryLimit,
    Kind::FilesKilled,
];

/// One server misbehaves in one way for some requests.
fn one(chance: &mut Chance, server: &Server, method: &str, path: &str) -> String {
    let times = 1 + chance.below(4) as u32;
    let fault = match chance.below(7) {
        0 => Fault::CutBefore,
        1 => Fault::CutAfter,
        2 => Fault::HalfAnswer,
        3 => Fault::Status(503, None),
        4 => Fault::Late(std::time::Duration::from_secs(2)),
        5 => Fault::Twice,
        _ => Fault::HtmlPage,
    };
    let told = format!("{fault:?} {times} times");
    server.misbehave(method, path, fault, times);
    told
}

impl World {
    /// The systems misbehave for some requests; how.
    pub fn misbehave(&mut self) -> String {
        let posting = match self.chance.one_in(5) {
            true => {
                let times = 1 + self.chance.below(4) as u32;
                *self.ims.is.store_and_fail.lock().unwrap() += times;
                format!("400 with nothing after storing {times} times")
            }
            false => one(&mut self.chance, &self.ims.server, "POST", "/api"),
        };
        let refunding = one(&mut self.chance, &self.pay.server, "POST", "/v1/payments");
        let asking = match self.chance.one_in(3) {
            true => format!(", asked: {}", one(&mut self.chance, &self.pay.server, "GET", "/v1/payments")),
            false => String::new(),
        };
        let cases = match self.chance.one_in(3) {
            true => format!("; the cases: {}", one(&mut self.chance, &self.cases.server, "POST", "/cases")),
            false => String::new(),
        };
        format!("the ledger: {posting}; Pay: {refunding}{asking}{cases}")
    }

    async fn policy(&self, pattern: &str, definition: &str) {
        let vhost = &self.site().vhost.name;
        let arguments = ["set_policy", "-p", vhost, "a-fault", pattern, definition, "--apply-to", "queues"];
        self.node.ctl(&arguments).await;
    }

    async fn no_policy(&self) {
        self.node.ctl(&["clear_policy", "-p", &self.site().vhost.name, "a-fault"]).await;
    }

    /// Something happens; what.
    pub async fn fault(&mut self) -> String {
        if self.deck.is_empty() {
            self.deck = DECK.to_vec();
            self.deck.push(Kind::DatabaseKilled);
            if self.is_shared() {
                self.deck.extend([Kind::Held, Kind::StoreCut, Kind::StoreStalled]);
            }
            let there = |kind: &Kind| match kind {
                Kind::FilesKilled => self.remote.is_some(),
                Kind::DatabaseKilled => self.database.is_some(),
                _ => true,
            };
            self.deck.retain(there);
            self.chance.shuffle(&mut self.deck);
            if self.is_shared() {
                // What only several bridges bear is seen by the shortest campaign.
                self.deck.push(Kind::Held);
            }
        }
        let way = *self.chance.of(&[Way::Up, Way::Down]);
        match self.deck.pop().unwrap() {
            Kind::Killed => {
                let (at, name) = self.one_of_them();
                self.machines[at].kill().await;
                let how = self.begin(at).await;
                format!("{name} is killed and started{how}")
            }
            Kind::Held => {
                let (at, name) = self.one_of_them();
                if let Some(running) = &self.machines[at].running {
                    running.signal("STOP").await;
                }
                self.load().await;
                // Longer than the server waits, most of the time.
                self.chance.pause(25_000).await;
                if let Some(running) = &self.machines[at].running {
                    running.signal("CONT").await;
                }
                format!("{name} was held still")
            }
            Kind::StoreCut => {
                let (at, name) = self.one_of_them();
                let proxy = self.machines[at].store.clone().unwrap();
                proxy.refuse(true);
                proxy.cut();
                self.chance.pause(6_000).await;
                proxy.refuse(false);
                format!("{name} was cut off from the store")
            }
            Kind::StoreStalled => {
                let (at, name) = self.one_of_them();
                let proxy = self.machines[at].store.clone().unwrap();
                proxy.stall(way);
                self.load().await;
                self.chance.pause(20_000).await;
                proxy.open();
                format!("the store of {name} stalled, {way:?}")
            }
            Kind::Cut => {
                self.proxy.cut();
                "every connection to the broker is cut".to_owned()
            }
            Kind::Stalled => {
                self.proxy.stall(way);
                self.chance.pause(8_000).await;
                self.proxy.open();
                format!("the network stalled, {way:?}")
            }
            Kind::HalfClosed => {
                self.proxy.half_close(way);
                format!("connections are closed in one direction, {way:?}")
            }
            Kind::Slow => {
                self.proxy.slow(way, 2_000);
                self.chance.pause(3_000).await;
                self.proxy.open();
                format!("the network was slow, {way:?}")
            }
            Kind::BrokerStopped => {
                self.node.ctl(&["stop_app"]).await;
                self.chance.pause(2_000).await;
                self.node.ctl(&["start_app"]).await;
                "the broker stopped and started".to_owned()
            }
            Kind::BrokerKilled => {
                self.node.kill().await;
                self.node.again().await;
                "the broker was killed and started".to_owned()
            }
            Kind::MemoryAlarm => {
                self.node.ctl(&["set_vm_memory_high_watermark", "absolute", "1"]).await;
                self.chance.pause(4_000).await;
                self.node.ctl(&["set_vm_memory_high_watermark", "absolute", "1GB"]).await;
                "the broker was short of memory".to_owned()
            }
            Kind::DiskAlarm => {
                self.node.ctl(&["set_disk_free_limit", "1000000GB"]).await;
                self.chance.pause(4_000).await;
                self.node.ctl(&["set_disk_free_limit", "50MB"]).await;
                "the broker was short of disk".to_owned()
            }
            Kind::FullQueues => {
                // Nothing more can be put off or given up: the broker refuses it.
                self.policy(r"^packhorse\.(retry|dead)", r#"{"max-length":1}"#).await;
                self.chance.pause(4_000).await;
                self.no_policy().await;
                "a policy let the queues of retries and dead letters take no more".to_owned()
            }
            Kind::DeliveryLimit => {
                // What comes again is given up by the broker itself.
                let queues = r"^packhorse\.(localgov-ims|council-broker|council-bank|govuk-pay)\.";
                self.policy(queues, r#"{"delivery-limit":1}"#).await;
                for _ in 0..3 {
                    self.chance.pause(700).await;
                    self.proxy.cut();
                }
                self.no_policy().await;
                "a policy let queues give up what comes again twice, and connections were cut".to_owned()
            }
            Kind::FilesKilled => {
                let remote = self.remote.as_ref().unwrap();
                remote.server.does("kill");
                self.chance.pause(1_500).await;
                remote.server.does("again");
                "the SFTP server was killed and started".to_owned()
            }
            Kind::DatabaseKilled => {
                let database = self.database.as_ref().unwrap();
                database.kill().await;
                self.chance.pause(1_500).await;
                database.again().await;
                "the database was killed and started".to_owned()
            }
        }
    }
}
