//! A cluster of three nodes with quorum queues, and a bridge that knows all of their addresses: a follower is killed, the
//! leader of the route's queue is killed, a node stands still, a node is cut off from the others. The platform goes on to speak
//! all the while; every payment is posted once, every case keeps its order, and the bridge goes on by itself, soon.

use crate::{
    broker::paid,
    nodes::Cluster,
    ordered::{self, Cases},
    payments,
    standins::{http::Server, ims::Ims},
    support::{PATIENCE, Running, until_within},
};
use lapin::{BasicProperties, options};
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

const EVENT: &str = "payment.succeeded.v1";
/// Within this the bridge goes on, whatever befalls a node. Most of it is for the machine that the tests run on: by itself it takes
/// as long as RabbitMQ takes to choose another leader, some seconds, and a reconnection.
const SOON: Duration = Duration::from_secs(120);
/// As many subjects as the payments are of.
const SUBJECTS: u32 = 5;

/// What befalls a node.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Killed,
    StandsStill,
    CutOff,
}

/// The platform, which says one payment after the other, and each again under its id until it is confirmed.
struct Platform {
    confirmed: Arc<AtomicU32>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Platform {
    /// Goes on with the payment of this number, at this address.
    fn speaks(address: String, first: u32) -> Platform {
        let confirmed = Arc::new(AtomicU32::new(first));
        let stop = CancellationToken::new();
        let (count, stopped) = (confirmed.clone(), stop.clone());
        let task = tokio::spawn(async move {
            let mut pace = tokio::time::interval(Duration::from_millis(100));
            let mut channel = None;
            while !stopped.is_cancelled() {
                pace.tick().await;
                if let Some((_, open)) = &channel
                    && confirmed_one(open, count.load(Ordering::Acquire)).await.is_some()
                {
                    count.fetch_add(1, Ordering::AcqRel);
                } else {
                    channel = opened(&address).await;
                }
            }
        });
        Platform { confirmed, stop, task }
    }

    fn said(&self) -> u32 {
        self.confirmed.load(Ordering::Acquire)
    }

    /// Ends; how many it has said.
    async fn ends(self) -> u32 {
        self.stop.cancel();
        self.task.await.unwrap();
        self.confirmed.load(Ordering::Acquire)
    }
}

async fn opened(address: &str) -> Option<(lapin::Connection, lapin::Channel)> {
    let connection =
        lapin::Connection::connect(address, lapin::ConnectionProperties::default()).await.ok()?;
    let channel = connection.create_channel().await.ok()?;
    channel.confirm_select(options::ConfirmSelectOptions::default()).await.ok()?;
    Some((connection, channel))
}

/// Says a payment; whether it was confirmed and found its queues.
async fn confirmed_one(channel: &lapin::Channel, number: u32) -> Option<()> {
    let mut data = paid(number);
    data["payment_id"] = json!(format!("case-{}", number % SUBJECTS));
    data["provider_reference"] = json!(format!("step-{number}"));
    let id = format!("event-{number}");
    let event = json!({ "specversion": "1.0", "id": id, "source": "urn:platform:payments", "type": EVENT,
        "time": "2026-11-24T09:41:06Z", "datacontenttype": "application/json", "data": data });
    let properties = BasicProperties::default()
        .with_delivery_mode(2)
        .with_message_id(id.into())
        .with_content_type("application/cloudevents+json".into());
    let options = options::BasicPublishOptions { mandatory: true, ..Default::default() };
    let key = format!("{EVENT}.example");
    let body = event.to_string();
    let publish =
        channel.basic_publish("platform.events".into(), key.into(), options, body.as_bytes(), properties);
    match publish.await.ok()?.await.ok()? {
        lapin::Confirmation::Ack(None) => Some(()),
        lapin::Confirmation::Ack(Some(_)) => panic!("nobody takes {EVENT}"),
        lapin::Confirmation::Nack(_) | lapin::Confirmation::NotRequested => None,
    }
}

/// A council whose bridge reaches its broker at three nodes: each payment goes to its ledger, in any order, and to its
/// cases, in the order of each.
struct Council {
    cluster: Cluster,
    ims: Arc<Ims>,
    _server: Server,
    cases: Cases,
    bridge: Running,
    said: u32,
}

impl Council {
    async fn new() -> Council {
        let cluster = Cluster::start(3).await;
        let ims = Arc::new(Ims::default());
        let server = Server::start(ims.clone(), 0).await.unwrap();
        let ledger = format!("[adapters.localgov-ims]\nsettings = {{ base_url = \"{}\" }}\n", server.url);
        let cases = Cases::on(cluster.nodes[0].clone(), &ledger, "").await;
        cluster.spread(&cases.site);
        // So that silence is noticed within a test.
        cases.site.edit("packhorse.toml", "[broker]", "[broker]\nheartbeat = \"2s\"");
        let bridge = cases.site.run().await;
        cluster.whole(&cases.site.vhost.name).await;
        // What `Node::kill` says of queues that are young.
        tokio::time::sleep(Duration::from_secs(5)).await;
        Council { cluster, ims, _server: server, cases, bridge, said: 0 }
    }

    async fn leader(&self) -> usize {
        self.cluster.leader(&self.cases.site.vhost.name, payments::QUEUE, self.seen_from()).await
    }

    /// The node from which the test looks, which nothing befalls.
    fn seen_from(&self) -> usize {
        let address = self.cases.site.vhost.address();
        self.cluster.nodes.iter().position(|node| address.starts_with(&node.address)).unwrap()
    }

    /// The nodes to which the bridge is connected.
    async fn bridged(&self) -> Vec<usize> {
        self.cluster.connected(&self.cases.site.vhost.name, self.seen_from()).await
    }

    /// A node on which the leader is not and, if there is such a one, to which the bridge is not connected.
    async fn bystander(&self) -> usize {
        let (leader, bridged) = (self.leader().await, self.bridged().await);
        let others = || (0..self.cluster.nodes.len()).filter(|node| *node != leader);
        others().find(|node| !bridged.contains(node)).or_else(|| others().next()).unwrap()
    }

    fn posted(&self) -> usize {
        self.ims.rows().len()
    }

    fn given(&self) -> usize {
        self.cases.first().values().map(Vec::len).sum()
    }

    /// Waits until both systems have so many of them.
    async fn goes_on(&self, count: u32, what: &str) {
        let count = count as usize;
        until_within(SOON, &format!("{what}: {count} payments in both systems"), async || {
            (self.posted() >= count && self.given() >= count).then_some(())
        })
        .await;
    }

    /// Something befalls a node in the middle of a stream of payments, and is mended; the bridge goes on meanwhile.
    async fn suffers(&mut self, fault: Fault, node: usize) {
        let away = (node + 1) % self.cluster.nodes.len();
        let looks_on = self.cluster.nodes[away].clone();
        self.cases.site.vhost.seen_from(&looks_on);
        let platform = Platform::speaks(self.cases.site.vhost.address_with_login(), self.said);
        self.goes_on(self.said + 10, "before").await;
        match fault {
            Fault::Killed => self.cluster.kill(node).await,
            Fault::StandsStill => self.cluster.pause(node).await,
            Fault::CutOff => self.cluster.part(node).await,
        }
        let began = Instant::now();
        // What was said before it, and what is said while it lasts.
        self.goes_on(platform.said() + 20, &format!("{fault:?}")).await;
        let took = began.elapsed();
        match fault {
            Fault::Killed => self.cluster.again(node).await,
            Fault::StandsStill => self.cluster.resume(node).await,
            Fault::CutOff => self.cluster.heal(node).await,
        }
        self.goes_on(platform.said() + 20, &format!("{fault:?}, mended")).await;
        self.said = platform.ends().await;
        println!("node {node} {fault:?}: 20 more after {took:?}; {} said by now", self.said);
        self.goes_on(self.said, &format!("{fault:?}, all")).await;
        self.all_of_it_once().await;
        self.cluster.whole(&self.cases.site.vhost.name).await;
    }

    /// Every payment is posted once, given to its case once and in order, and the account says so.
    async fn all_of_it_once(&self) {
        let wanted: BTreeSet<String> = (0..self.said).map(|number| format!("step-{number}")).collect();
        let rows: Vec<String> =
            self.ims.rows().iter().map(|row| row["PspReference"].as_str().unwrap().to_owned()).collect();
        assert_eq!(rows.iter().cloned().collect::<BTreeSet<_>>(), wanted);
        assert_eq!(rows.len(), wanted.len(), "posted twice");
        let mut cases: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for number in 0..self.said {
            cases.entry(format!("case-{}", number % SUBJECTS)).or_default().push(number);
        }
        assert_eq!(self.cases.all(), cases, "each case has its own, once and in their order");
        for route in [payments::ROUTE, ordered::ROUTE] {
            until_within(PATIENCE, &format!("the account of {route} says so"), async || {
                (self.cases.site.account(route).await["delivered"] == self.said).then_some(())
            })
            .await;
        }
    }

    /// The bridge is stopped as an operator stops it; the platform has been told of each posting.
    async fn ends(self) {
        let site = &self.cases.site;
        for queue in [payments::QUEUE, ordered::QUEUE] {
            site.vhost.drained(queue).await;
        }
        assert_eq!(self.bridge.terminate().await, 0);
        for route in [payments::ROUTE, ordered::ROUTE] {
            let account = site.account(route).await;
            // A copy that came again after its acknowledgement was lost, or that the platform said again, is counted as one.
            assert_eq!(
                (&account["delivered"], &account["waiting"], &account["dead"]),
                (&json!(self.said), &json!(0), &json!(0)),
                "{account}"
            );
        }
        let told: BTreeSet<String> = site.vhost.everything("platform").await.into_iter().collect();
        assert_eq!(told.len(), self.said as usize, "the platform is told of each posting");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_befalls_a_node_of_a_cluster_payments_go_on_and_none_is_lost_or_made_twice_or_overtaken() {
    let mut council = Council::new().await;
    let follower = council.bystander().await;
    council.suffers(Fault::Killed, follower).await;
    for fault in [Fault::Killed, Fault::StandsStill] {
        let leader = council.leader().await;
        council.suffers(fault, leader).await;
    }
    let bridged = council.bridged().await[0];
    council.suffers(Fault::CutOff, bridged).await;
    council.ends().await;
}
