//! Operators at work while everything else happens: they pause and resume routes, replay, discard and release, and draw up
//! the account, which closes whenever it is drawn up.

use super::{BANK, CASES, CROSS, EXTRACTS, POST, QUERY, REFUND, ROWS, UPDATES, chance::Chance, world::World};
use crate::nightly::Nightly;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const BY: [&str; 4] = ["--by", "An Operator", "--reason", "the campaign"];

/// What they did, and what they saw that must not be.
#[derive(Default)]
pub struct Acts {
    /// How often a command was given, and how often it said yes.
    counts: BTreeMap<&'static str, (u32, u32)>,
    pub wrong: Vec<String>,
    /// Subjects that were let past a dead letter.
    pub released: BTreeSet<String>,
    /// Events that were discarded, or may have been.
    pub discarded: BTreeSet<String>,
}

impl Acts {
    pub fn told(&self) -> String {
        let one = |(name, (given, yes)): (&&str, &(u32, u32))| format!("{name} {yes} of {given}");
        self.counts.iter().map(one).collect::<Vec<_>>().join(", ")
    }
}

pub struct Operators {
    task: JoinHandle<Acts>,
    stop: CancellationToken,
}

impl Operators {
    pub fn start(world: &World, seed: u64) -> Operators {
        let stop = CancellationToken::new();
        let operator = Operator {
            nightly: world.nightly.clone(),
            chance: Chance::of_seed(seed ^ 0x5EED),
            paused: Vec::new(),
            acts: Acts::default(),
            has_database: world.database.is_some(),
            is_shared: world.is_shared(),
        };
        let task = tokio::spawn(operator.work(stop.clone()));
        Operators { task, stop }
    }

    /// They go home, and leave nothing paused.
    pub async fn stop(self) -> Acts {
        self.stop.cancel();
        self.task.await.unwrap()
    }
}

struct Operator {
    nightly: Arc<Nightly>,
    chance: Chance,
    paused: Vec<&'static str>,
    acts: Acts,
    has_database: bool,
    is_shared: bool,
}

impl Operator {
    async fn work(mut self, stop: CancellationToken) -> Acts {
        while !stop.is_cancelled() {
            self.chance.pause(600).await;
            match self.chance.below(12) {
                0..5 => self.account().await,
                5..7 => self.pause_or_resume().await,
                7..9 => self.replay().await,
                9 => self.release().await,
                10 => self.discard().await,
                _ => {
                    let lists: [&[&str]; 4] = [
                        &["held", "list"],
                        &["batches", "list"],
                        &["files", "list"],
                        &["dead-letters", "list"],
                    ];
                    let list = *self.chance.of(&lists);
                    self.does("look", list, &[]).await;
                }
            }
        }
        for route in std::mem::take(&mut self.paused) {
            self.does("resume", &["resume", route], &BY).await;
        }
        self.acts
    }

    fn route(&mut self) -> &'static str {
        let mut routes = vec![CASES, POST, CROSS, BANK, REFUND, ROWS, EXTRACTS, UPDATES];
        routes.extend(self.has_database.then_some(QUERY));
        self.chance.of::<&str>(&routes)
    }

    /// A command; what it prints. That it fails is its right while the broker is away; that it dies is not.
    async fn does(&mut self, name: &'static str, arguments: &[&str], more: &[&str]) -> (i32, String) {
        let (code, out, err) = self.nightly.site.command(&[arguments, more].concat()).await;
        let count = self.acts.counts.entry(name).or_default();
        count.0 += 1;
        count.1 += u32::from(code == 0);
        if code == 101 || code < 0 {
            self.acts.wrong.push(format!("`packhorse {}` died: {code} {err}", arguments.join(" ")));
        }
        (code, out + &err)
    }

    async fn account(&mut self) {
        let (code, told) = self.does("account", &["account", "--json"], &[]).await;
        // While the server of the store is away nobody can say.
        let is_away = self.is_shared && told.contains("PH4001");
        if code != 0 && !is_away {
            println!("        the account did not close while it ran: {told}");
            self.acts.wrong.push(format!("the account did not close while it ran: {told}"));
        }
    }

    async fn pause_or_resume(&mut self) {
        if self.paused.len() > 1 || (!self.paused.is_empty() && self.chance.one_in(2)) {
            let route = self.paused.remove(0);
            self.does("resume", &["resume", route], &BY).await;
        } else {
            let route = self.route();
            if !self.paused.contains(&route) {
                self.paused.push(route);
                self.does("pause", &["pause", route], &BY).await;
            }
        }
    }

    async fn lines(&mut self, arguments: &[&str]) -> Vec<Value> {
        let (_, out) = self.does("look", arguments, &["--json"]).await;
        out.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Replays what lies in the dead letters of one route.
    async fn replay(&mut self) {
        let letters = self.lines(&["dead-letters", "list"]).await;
        let routes: BTreeSet<&str> = letters.iter().filter_map(|letter| letter["route"].as_str()).collect();
        let routes: Vec<&str> = routes.into_iter().filter(|route| !route.is_empty()).collect();
        if routes.is_empty() {
            return;
        }
        let route = (*self.chance.of(&routes)).to_owned();
        self.does("replay", &["dead-letters", "replay", "--route", &route], &BY).await;
    }

    /// Lets the messages of one subject go past a dead letter.
    async fn release(&mut self) {
        let held = self.lines(&["held", "list", "--route", CASES]).await;
        let Some(held) = held.iter().find(|held| !held["dead_letter"].is_null()) else { return };
        let subject = held["subject"].as_str().unwrap().to_owned();
        self.acts.released.insert(subject.clone());
        self.does("release", &["held", "release", CASES, &subject], &BY).await;
    }

    /// Discards a dead letter where no money is.
    async fn discard(&mut self) {
        let letters = self.lines(&["dead-letters", "list", "--route", CROSS]).await;
        let Some(letter) = letters.first() else { return };
        let (key, id) = (letter["key"].as_str().unwrap(), letter["event"]["id"].as_str().unwrap());
        self.acts.discarded.insert(id.to_owned());
        self.does("discard", &["dead-letters", "discard", key], &BY).await;
    }
}
