//! The machines that bridges run on: one that has its store in a file, or several, each with a folder of its own, that share one
//! on a server, which each of them reaches on its own way.

use super::world::World;
use crate::{
    bridges::{elsewhere, share_on},
    databases::Database,
    proxy::Proxy,
    support::{Folder, Running, Site},
};
use packhorse::kill::POINTS;
use std::sync::Arc;

/// One of them.
pub struct Machine {
    /// Its folder; none: the project's.
    folder: Option<Folder>,
    pub running: Option<Running>,
    /// What stands between it and a store on a server.
    pub store: Option<Arc<Proxy>>,
    /// Where notices are received.
    pub receiver: String,
}

/// Its port stays the same when the program is started again.
pub fn receiver() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

impl Machine {
    /// The only one, in the project's folder.
    pub fn alone(receiver: String) -> Machine {
        Machine { folder: None, running: None, store: None, receiver }
    }

    /// So many, whose store is on this server. The project's own folder is that of the operators.
    pub async fn sharing(count: usize, site: &Site, database: &Database, received_at: &str) -> Vec<Machine> {
        share_on(site, database);
        let mut machines = Vec::new();
        for _ in 0..count {
            let (folder, proxy) = (elsewhere(site), Proxy::to(database.address.parse().unwrap()).await);
            let (path, receiver) = (folder.0.join("packhorse.toml"), receiver());
            let text = std::fs::read_to_string(&path).unwrap();
            let of = |address: &str| format!("@{address}/{}\"", database.name);
            let text = text.replace(&of(&database.address), &of(&proxy.address.to_string()));
            std::fs::write(&path, text.replace(received_at, &receiver)).unwrap();
            machines.push(Machine { folder: Some(folder), running: None, store: Some(proxy), receiver });
        }
        machines
    }

    fn folder<'a>(&'a self, site: &'a Site) -> &'a Folder {
        self.folder.as_ref().unwrap_or(&site.folder)
    }

    /// Whether its bridge has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.running.as_mut().is_some_and(Running::has_ended)
    }

    pub async fn kill(&mut self) {
        if let Some(running) = self.running.take() {
            running.kill().await;
        }
    }
}

impl Drop for Machine {
    /// A campaign that fails shows the end of what its bridge said.
    fn drop(&mut self) {
        if let Some(folder) = self.folder.as_ref().filter(|_| std::thread::panicking()) {
            let log = std::fs::read_to_string(folder.0.join("log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("a bridge's log ends:\n{}", lines[lines.len().saturating_sub(60)..].join("\n"));
        }
    }
}

impl World {
    /// One of the machines by chance: its number, and what people are told of it.
    pub fn one_of_them(&mut self) -> (usize, String) {
        match self.machines.len() {
            1 => (0, "the program".to_owned()),
            count => {
                let at = self.chance.below(count as u64) as usize;
                (at, format!("bridge {}", at + 1))
            }
        }
    }

    /// Starts all, and waits until they run.
    pub async fn run(&mut self) {
        for at in 0..self.machines.len() {
            let machine = &self.machines[at];
            let running = self.site().run_in(machine.folder(self.site()), "log", &[]).await;
            self.machines[at].running = Some(running);
        }
    }

    /// Starts the program of one, now and then so that it dies at a gap by name.
    pub async fn begin(&mut self, at: usize) -> String {
        let to_die = self.chance.one_in(2);
        let reached: Vec<&str> =
            POINTS.iter().map(|point| point.name).filter(|name| is_passed(name)).collect();
        let point = format!("{}:{}", self.chance.of(&reached), 1 + self.chance.below(4));
        let environment = [("PACKHORSE_KILL", point.as_str())];
        let environment: &[(&str, &str)] = if to_die { &environment } else { &[] };
        let machine = &self.machines[at];
        let running = self.site().begin_in(machine.folder(self.site()), "log", environment);
        self.machines[at].running = Some(running);
        if to_die { format!(", to die at {point}") } else { String::new() }
    }

    pub async fn kill_all(&mut self) {
        for machine in &mut self.machines {
            machine.kill().await;
        }
    }
}

/// Whether the bridge of this world passes a gap.
fn is_passed(point: &str) -> bool {
    match point.split_once('.').unwrap() {
        // Of commands, of whole queries, and of routes that have given up their order.
        ("operator" | "view", _) | ("order", "emptied") => false,
        _ => true,
    }
}
