//! `packhorse held`.

use super::{exit, moment};
use crate::{
    ops::{Actor, Refused, held},
    store::{HeldSubject, Store},
};
use clap::{Args, Subcommand};
use serde_json::json;
use std::path::Path;

/// Look at what waits in its order behind a message that failed, and let it go on.
#[derive(Debug, Subcommand)]
pub enum Held {
    /// List the subjects whose messages wait, and what each waits for; those that a dead letter holds first.
    List(List),
    /// Show the messages of one subject that wait, in their order.
    Show(Show),
    /// Let the messages of a subject go on that a dead letter holds.
    ///
    /// The dead letter stays one: replayed later, it comes after them. To keep the order, replay it instead: the others follow.
    Release(Release),
}

/// List subjects.
#[derive(Debug, Args)]
pub struct List {
    /// Only those of this route.
    #[arg(long)]
    route: Option<String>,
    /// At most so many.
    #[arg(long, default_value_t = 50)]
    limit: u32,
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
    /// Exit with 1 if any is held by a dead letter.
    #[arg(long)]
    fail_if_any: bool,
}

/// Show one subject.
#[derive(Debug, Args)]
pub struct Show {
    /// The route.
    route: String,
    /// The subject, or its short name, as `list` shows them.
    subject: String,
    /// At most so many.
    #[arg(long, default_value_t = 50)]
    limit: u32,
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
}

/// Release one subject.
#[derive(Debug, Args)]
pub struct Release {
    /// The route.
    route: String,
    /// The subject, or its short name, as `list` shows them.
    subject: String,
    /// Your name, for the audit trail.
    #[arg(long, value_parser = super::dead_letters::some_text)]
    by: String,
    /// Why they may go on without it.
    #[arg(long, value_parser = super::dead_letters::some_text)]
    reason: String,
}

impl Held {
    /// Runs it.
    pub fn run(&self, path: &Path) -> u8 {
        super::on_store(path, async |_, store| self.go(store).await)
    }

    async fn go(&self, store: &Store) -> Result<u8, Refused> {
        match self {
            Held::List(list) => {
                let found = store.held(list.route.clone(), list.limit).await?;
                match list.json {
                    true => found.iter().for_each(|held| println!("{}", object(held))),
                    false => super::table(
                        &["route", "subject", "name", "messages", "since", "waits for"],
                        &found.iter().map(row).collect::<Vec<_>>(),
                    ),
                }
                let any = found.iter().any(|held| held.held_by.is_some());
                return Ok(if any && list.fail_if_any { exit::FOUND } else { 0 });
            }
            Held::Show(show) => {
                let held = held::find(store, &show.route, &show.subject).await?;
                let waiting = store.parked_of(show.route.clone(), held.subject.digest, show.limit).await?;
                if show.json {
                    println!("{}", object(&held));
                    for (key, since, bytes) in &waiting {
                        println!(
                            "{}",
                            json!({ "message": key.to_string(), "since": moment(*since), "bytes": bytes })
                        );
                    }
                } else {
                    println!("{} of {}: {}", held.subject.shown, held.route, waits_for(&held));
                    let rows = waiting.iter().enumerate().map(|(at, (key, since, bytes))| {
                        vec![(at + 1).to_string(), key.to_string(), moment(*since), bytes.to_string()]
                    });
                    super::table(&["place", "message", "since", "bytes"], &rows.collect::<Vec<_>>());
                }
            }
            Held::Release(release) => {
                let actor = Actor { who: release.by.clone(), reason: release.reason.clone() };
                let held = held::release(store, &release.route, &release.subject, &actor).await?;
                println!("{} messages go on in their order", held.messages);
            }
        }
        Ok(0)
    }
}

fn waits_for(held: &HeldSubject) -> String {
    match (&held.held_by, held.due_at) {
        (Some((key, code)), _) => format!("the dead letter {key} ({code})"),
        (None, Some(due)) => format!("the next attempt of its first at {}", moment(due)),
        (None, None) => String::new(),
    }
}

fn row(held: &HeldSubject) -> Vec<String> {
    vec![
        held.route.clone(),
        held.subject.shown.clone(),
        held.subject.short(),
        held.messages.to_string(),
        held.since.map(moment).unwrap_or_default(),
        waits_for(held),
    ]
}

/// A subject as one object.
fn object(held: &HeldSubject) -> serde_json::Value {
    let (by, code) = held.held_by.clone().unzip();
    json!({ "schema": "packhorse.held/v1", "route": held.route, "subject": held.subject.shown, "name": held.subject.short(),
            "messages": held.messages, "since": held.since.map(moment), "next_attempt": held.due_at.map(moment),
            "dead_letter": by.map(|key| key.to_string()), "code": code })
}
