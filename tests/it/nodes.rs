//! Several nodes of RabbitMQ as one cluster, each of which can be killed, held still, cut off and brought back.

use crate::support::{Broker, Folder, PATIENCE, Site, printed, root, script, until_within};
use serde_json::{Value, json};
use std::time::Duration;

/// Nodes of RabbitMQ that are one cluster, each to be killed, held still, cut off from the others and brought back. One cluster at a
/// time: three nodes are much for a small machine.
pub struct Cluster {
    folder: Folder,
    pub nodes: Vec<Broker>,
    /// What RabbitMQ calls them.
    names: Vec<String>,
    _alone: tokio::sync::MutexGuard<'static, ()>,
}

impl Cluster {
    pub async fn start(count: usize) -> Cluster {
        static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
        let alone = ALONE.lock().await;
        let folder = Folder::new();
        let path = folder.0.join("cluster");
        let count = count.to_string();
        // From here on something runs: whatever comes, it is stopped.
        let mut cluster = Cluster { folder, nodes: Vec::new(), names: Vec::new(), _alone: alone };
        script(&["cluster", path.to_str().unwrap(), &count, "rabbitmq_management"]).await;
        for number in 1..=count.parse().unwrap() {
            let settings = std::fs::read_to_string(path.join(format!("{number}/settings"))).unwrap();
            cluster.nodes.push(Broker::printed(&settings));
            cluster.names.push(printed(&settings, "BROKER_NODE"));
        }
        cluster
    }

    /// Gives a site, which is on the first node, the addresses of all.
    pub fn spread(&self, site: &Site) {
        let name = &site.vhost.name;
        let all: Vec<String> = self.nodes.iter().map(|node| format!("\"{}/{name}\"", node.address)).collect();
        site.edit("packhorse.toml", &format!("\"{}\"", site.vhost.address()), &all.join(", "));
    }

    async fn on(&self, command: &str, node: usize) {
        let path = self.folder.0.join(format!("cluster/{}", node + 1));
        script(&[command, path.to_str().unwrap()]).await;
    }

    /// `kill -9`, at once; see [`crate::support::Node::kill`] for what a queue that was declared just now makes of it.
    pub async fn kill(&self, node: usize) {
        self.on("kill", node).await;
    }

    pub async fn again(&self, node: usize) {
        self.on("again", node).await;
    }

    /// The node stands still; its connections stay open, and nobody is told.
    pub async fn pause(&self, node: usize) {
        self.on("pause", node).await;
    }

    /// The node goes on. It may find the others again before it has noticed that they took it for gone (seen with 3.10.8, on a busy
    /// machine); RabbitMQ then shows a partition, and its app has to be restarted by a person.
    pub async fn resume(&self, node: usize) {
        self.on("resume", node).await;
        let other = (node + 1) % self.nodes.len();
        let name = &self.names[node];
        let parted = |own: &Value| own["partitions"].as_array().is_some_and(|list| !list.is_empty());
        let stranded = until_within(PATIENCE * 2, "the node is back, or shows a partition", async || {
            let of = |nodes: &Value| nodes.as_array()?.iter().find(|own| own["name"] == json!(name)).cloned();
            let own = self.ask(node, "nodes").await.and_then(|nodes| of(&nodes));
            if own.as_ref().is_some_and(parted) {
                return Some(true);
            }
            let seen = self.ask(other, "nodes").await.and_then(|nodes| of(&nodes))?;
            (own.is_some() && seen["running"] == true && !parted(&seen)).then_some(false)
        })
        .await;
        if stranded {
            println!("RabbitMQ shows a partition, and the app of its node is restarted");
            self.ctl(node, &["stop_app"]).await;
            self.ctl(node, &["start_app"]).await;
        }
    }

    pub async fn ctl(&self, node: usize, arguments: &[&str]) -> String {
        let path = self.folder.0.join(format!("cluster/{}", node + 1));
        script(&[&["ctl", path.to_str().unwrap()], arguments].concat()).await
    }

    /// The node and the others do not find each other any more; clients find them all.
    pub async fn part(&self, node: usize) {
        self.on("part", node).await;
    }

    pub async fn heal(&self, node: usize) {
        self.on("heal", node).await;
    }

    /// A call to the management interface of a node, if it answers.
    async fn ask(&self, node: usize, path: &str) -> Option<Value> {
        let broker = &self.nodes[node];
        let url = format!("{}/api/{path}", broker.management);
        let request = reqwest::Client::new().get(url).basic_auth(&broker.user, Some(&broker.password));
        let answer = request.timeout(Duration::from_secs(5)).send().await.ok()?;
        serde_json::from_str(&answer.text().await.ok()?).ok()
    }

    /// On which node the leader of a queue is, as seen from another one.
    pub async fn leader(&self, vhost: &str, queue: &str, seen_from: usize) -> usize {
        until_within(PATIENCE * 2, &format!("a leader of {queue}"), async || {
            let queue = self.ask(seen_from, &format!("queues/{vhost}/{queue}")).await?;
            self.names.iter().position(|name| queue["leader"] == json!(name))
        })
        .await
    }

    /// To which nodes the clients of a vhost are connected, as seen from one of them.
    pub async fn connected(&self, vhost: &str, seen_from: usize) -> Vec<usize> {
        until_within(PATIENCE, "the broker shows a connection", async || {
            let list = self.ask(seen_from, &format!("vhosts/{vhost}/connections")).await?;
            let of =
                |connection: &Value| self.names.iter().position(|name| connection["node"] == json!(name));
            let nodes: Vec<usize> = list.as_array()?.iter().filter_map(of).collect();
            (!nodes.is_empty()).then_some(nodes)
        })
        .await
    }

    /// Waits until all nodes are one cluster again, and every quorum queue of the vhost has all its members and a leader.
    pub async fn whole(&self, vhost: &str) {
        for node in 0..self.nodes.len() {
            until_within(PATIENCE * 2, &format!("node {node} sees a whole cluster"), async || {
                let nodes = self.ask(node, "nodes").await?;
                let nodes = nodes.as_array()?;
                let well = |node: &Value| node["running"] == true && node["partitions"] == json!([]);
                (nodes.len() == self.nodes.len() && nodes.iter().all(well)).then_some(())
            })
            .await;
        }
        until_within(PATIENCE * 2, "every queue has all its members", async || {
            let queues = self.ask(0, &format!("queues/{vhost}")).await?;
            let well = |queue: &Value| {
                queue["online"].as_array().is_some_and(|online| online.len() == self.nodes.len())
                    && queue["leader"].as_str().is_some_and(|leader| !leader.is_empty())
            };
            queues.as_array()?.iter().all(well).then_some(())
        })
        .await;
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let path = self.folder.0.join("cluster");
        let _ = std::process::Command::new(root().join("scripts/broker")).arg("stop").arg(path).status();
    }
}
