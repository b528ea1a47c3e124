//! `packhorse account`.

use super::{exit, moment};
use crate::{
    batch::Stage,
    broker::{
        Link,
        topology::{Names, Topology},
    },
    code::Code,
    config::Config,
    store::{FileAccount, Opener, RouteAccount, Store},
};
use clap::Args;
use serde_json::json;
use std::{path::Path, time::Duration};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How many batches are looked at.
const BATCHES: u32 = 200;

/// Prove that nothing is lost.
#[derive(Debug, Args)]
pub struct Account {
    /// Only this route.
    #[arg(long)]
    route: Option<String>,
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
    /// Do not compare with the broker's dead-letter queue.
    #[arg(long)]
    offline: bool,
}

impl Account {
    /// Runs it.
    pub fn run(&self, path: &Path) -> u8 {
        let config = match super::configuration(path) {
            Ok((_, config)) => config,
            Err(code) => return code,
        };
        super::block_on(self.draw_up(&config)).unwrap_or_else(|code| code)
    }

    async fn draw_up(&self, config: &Config) -> u8 {
        let opened = Store::of(&config.store, Opener::Command);
        let account = match opened {
            Ok(store) => match store.account().await {
                Ok(account) => store.batches(BATCHES).await.map(|batches| (account, batches)),
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        let (account, batches) = match account {
            Ok(found) => found,
            Err(error) => {
                super::complain(error.code, &error.what);
                return exit::STORE;
            }
        };
        let lines: Vec<&RouteAccount> = account
            .routes
            .iter()
            .filter(|line| self.route.as_ref().is_none_or(|route| line.route == *route))
            .collect();
        let wrong = lines.iter().filter(|line| line.difference() != 0).count();
        let dead: i64 = account.routes.iter().map(|line| line.dead).sum();
        let queued = if self.offline { None } else { dead_queue(config).await };
        if self.json {
            for line in &lines {
                println!(
                    "{}",
                    json!({ "schema": "packhorse.account/v1", "route": line.route, "taken": line.taken,
                            "delivered": line.delivered, "waiting": line.waiting, "batched": line.batched, "parked": line.parked, "next_due": line.next_due.map(moment),
                            "dead": line.dead, "duplicate": line.duplicate, "discarded": line.discarded,
                            "nothing": line.nothing, "files": files(line), "open_items": line.open_items, "difference": line.difference() })
                );
            }
        } else {
            let mut rows: Vec<Vec<String>> = lines.iter().map(|line| row(&line.route, line)).collect();
            if lines.len() > 1 {
                rows.push(row("all", &sum(&lines)));
            }
            super::table(
                &[
                    "route",
                    "taken in",
                    "= delivered",
                    "+ waiting",
                    "+ dead",
                    "+ duplicate",
                    "+ discarded",
                    "+ nothing",
                    "next due",
                    "open",
                ],
                &rows,
            );
            let files: Vec<Vec<String>> =
                lines.iter().filter(|line| line.files.taken > 0).map(|line| file_row(line)).collect();
            if !files.is_empty() {
                let head =
                    ["route", "files", "= read", "+ under way", "+ refused", "+ held", "again", "records"];
                super::table(&head, &files);
            }
            for batch in batches.iter().filter(|batch| batch.life.stage < Stage::Sent) {
                let until = match batch.life.stage {
                    Stage::Open => match batch.life.cut_off {
                        Some(at) => format!("open until {}", moment(at)),
                        None => "open until it is full or sealed by a person".to_owned(),
                    },
                    stage => stage.as_str().to_owned(),
                };
                println!("batch {} of {}: {} items, {until}", batch.n, batch.feed, batch.life.items);
            }
            match wrong {
                0 => println!("every line closes"),
                wrong => println!("{wrong} lines do not close"),
            }
            if let Some(queued) = queued {
                println!("dead-letter queue: {queued} letters, {dead} by the journal");
            }
        }
        // More letters than the journal has are the broker's own; fewer are letters that went elsewhere than through here.
        let missing = queued.is_some_and(|queued| i64::from(queued) < dead);
        if missing {
            super::complain(
                Code::AccountDiffers,
                "letters have left the dead-letter queue otherwise than by replay or discard",
            );
        }
        if wrong > 0 {
            super::complain(Code::AccountDiffers, "what was taken in is not what is accounted for");
        }
        if wrong > 0 || missing { exit::FOUND } else { 0 }
    }
}

/// How many letters are in the dead-letter queue, if the broker can be asked.
async fn dead_queue(config: &Config) -> Option<u32> {
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let link = Link::start("account", config.broker.clone(), stop.clone(), &tasks);
    let depth = async {
        let live = link.live().await?;
        Topology::depth(&live, &Names::new(&config.prefix).dead()).await.ok()?
    };
    let found = tokio::time::timeout(Duration::from_secs(5), depth).await.ok().flatten();
    stop.cancel();
    tasks.close();
    let _ = tokio::time::timeout(Duration::from_secs(3), tasks.wait()).await;
    found
}

fn row(name: &str, line: &RouteAccount) -> Vec<String> {
    let numbers =
        [line.taken, line.delivered, line.waiting, line.dead, line.duplicate, line.discarded, line.nothing];
    let mut row = vec![name.to_owned()];
    row.extend(numbers.iter().map(i64::to_string));
    row.push(line.next_due.map(moment).unwrap_or_default());
    row.push(if line.open_items == 0 { String::new() } else { line.open_items.to_string() });
    row
}

fn files(line: &RouteAccount) -> serde_json::Value {
    let files = &line.files;
    json!({ "taken": files.taken, "read": files.read, "under_way": files.under_way, "refused": files.refused,
            "held": files.held, "duplicate": files.duplicate, "records": files.records })
}

fn file_row(line: &RouteAccount) -> Vec<String> {
    let files = &line.files;
    let numbers =
        [files.taken, files.read, files.under_way, files.refused, files.held, files.duplicate, files.records];
    std::iter::once(line.route.clone()).chain(numbers.iter().map(i64::to_string)).collect()
}

fn sum(lines: &[&RouteAccount]) -> RouteAccount {
    let add = |of: fn(&RouteAccount) -> i64| lines.iter().map(|line| of(line)).sum();
    RouteAccount {
        route: "all".to_owned(),
        taken: add(|line| line.taken),
        delivered: add(|line| line.delivered),
        waiting: add(|line| line.waiting),
        batched: add(|line| line.batched),
        parked: add(|line| line.parked),
        dead: add(|line| line.dead),
        duplicate: add(|line| line.duplicate),
        discarded: add(|line| line.discarded),
        nothing: add(|line| line.nothing),
        next_due: lines.iter().filter_map(|line| line.next_due).min(),
        open_items: add(|line| line.open_items),
        files: FileAccount::default(),
    }
}
