//! `packhorse account`.

use super::{exit, moment};
use crate::{
    batch::Stage,
    code::Code,
    config::{Config, units},
    ops::{
        Refused,
        account::{self, Broker, Proof, Queues},
    },
    store::{Astray, At, DiscardedBy, FileAccount, Named, RouteAccount, Store, Waits, Wrong},
};
use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::path::Path;

/// Prove that nothing is lost.
#[derive(Debug, Args)]
pub struct Account {
    /// Only this route.
    #[arg(long)]
    route: Option<String>,
    /// Only what was taken in since then, with the copies of it that have come: `2h`, `7d`, `2026-11-24`, `2026-11-24T14:00:00Z`.
    /// It begins with the full hour; all times are UTC.
    #[arg(long, value_parser = moment_of)]
    since: Option<i64>,
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
    /// Do not compare with the broker's queues.
    #[arg(long)]
    offline: bool,
}

/// A moment, or how long ago it was.
fn moment_of(text: &str) -> Result<i64, String> {
    let now = Timestamp::now();
    let found = match units::duration(text) {
        Some(ago) => now.checked_sub(ago).ok(),
        None => text.parse::<Timestamp>().ok().or_else(|| {
            let date: jiff::civil::Date = text.parse().ok()?;
            Some(date.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
        }),
    };
    let found = found.ok_or("neither a time ago (`2h`), nor a date, nor a moment with its zone")?;
    match found > now {
        true => Err("it is not yet then".to_owned()),
        false => Ok(found.as_millisecond()),
    }
}

impl Account {
    /// Runs it.
    pub fn run(&self, path: &Path) -> u8 {
        super::on_store(path, async |config, store| self.draw_up(config, store).await)
    }

    async fn draw_up(&self, config: &Config, store: &Store) -> Result<u8, Refused> {
        let broker = if self.offline { Broker::LeaveOut } else { Broker::Ask };
        let proof = account::draw_up(config, store, self.route.clone(), self.since, broker).await?;
        match self.json {
            true => proof.account.routes.iter().for_each(|line| println!("{}", object(line, &proof))),
            false => self.print(&proof),
        }
        if proof.account.closes() {
            return Ok(0);
        }
        let wrong: Vec<&str> = proof
            .account
            .routes
            .iter()
            .filter(|line| !line.closes())
            .map(|line| line.route.as_str())
            .collect();
        super::complain(
            Code::AccountDiffers,
            &format!("what was taken in is not what is accounted for: {}", wrong.join(", ")),
        );
        Ok(exit::FOUND)
    }

    fn print(&self, proof: &Proof) {
        let lines = &proof.account.routes;
        if let Some(since) = proof.account.since {
            println!("what was taken in since {}", moment(since));
        }
        let mut rows: Vec<Vec<String>> = lines.iter().map(row).collect();
        if lines.len() > 1 {
            rows.push(row(&sum(lines)));
        }
        let head = [
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
        ];
        super::table(&head, &rows);
        let files: Vec<Vec<String>> =
            lines.iter().filter(|line| line.files.taken > 0).map(file_row).collect();
        if !files.is_empty() {
            let head = ["route", "files", "= read", "+ under way", "+ refused", "+ held", "again", "records"];
            super::table(&head, &files);
        }
        for line in lines {
            line.waits.iter().for_each(|waits| println!("{}: {}", line.route, waits_in_words(waits)));
            line.discarded_by.iter().for_each(|by| println!("{}: {}", line.route, discards_in_words(by)));
        }
        for batch in proof.batches.iter().filter(|batch| batch.life.stage < Stage::Sent) {
            let until = match batch.life.stage {
                Stage::Open => match batch.life.cut_off {
                    Some(at) => format!("open until {}", moment(at)),
                    None => "open until it is full or sealed by a person".to_owned(),
                },
                stage => stage.as_str().to_owned(),
            };
            println!("batch {} of {}: {} items, {until}", batch.n, batch.feed, batch.life.items);
        }
        self.print_what_is_forgotten(proof);
        match &proof.broker {
            None => {}
            Some(Err(error)) => println!("the broker could not be asked: {}", error.what),
            Some(Ok(queues)) => println!("{}", queues_in_words(queues)),
        }
        match lines.iter().filter(|line| !line.closes()).count() {
            0 => println!("every line closes"),
            1 => println!("1 line does not close"),
            wrong => println!("{wrong} lines do not close"),
        }
        for line in lines {
            for astray in &line.astray {
                println!("{}: {}", line.route, in_words(astray));
                astray.named.iter().for_each(|named| println!("  {}", name_in_words(named)));
                let more = astray.messages - astray.named.len() as i64;
                if more > 0 && !astray.named.is_empty() {
                    println!("  and {more} more");
                }
            }
        }
    }

    /// A sum that is made of rows which are no longer there says so.
    fn print_what_is_forgotten(&self, proof: &Proof) {
        let Some(remembers) = proof.account.remembers else { return };
        match proof.account.since {
            Some(since) if since < remembers => println!(
                "what was taken in before {} and has come to its end is no longer remembered one by one and not in these lines",
                moment(remembers)
            ),
            Some(_) => {}
            None => {
                let pruned: i64 = proof.account.routes.iter().map(|line| line.pruned).sum();
                if pruned > 0 {
                    println!(
                        "{pruned} of these, taken in before {}, are remembered as a sum only",
                        moment(remembers)
                    );
                }
            }
        }
    }
}

fn messages(count: i64) -> String {
    if count == 1 { "1 message".to_owned() } else { format!("{count} messages") }
}

fn place(at: At) -> &'static str {
    match at {
        At::UnderWay => "under-way",
        At::Reply => "reply",
        At::Retry => "retry-queue",
        At::Queue => "queue",
        At::Lot => "parking-lot",
        At::Held => "held",
        At::Spool => "spool",
        At::Batch(_) => "batch",
    }
}

fn waits_in_words(waits: &Waits) -> String {
    let count = messages(waits.messages);
    let due = match (waits.next, waits.last) {
        (Some(next), Some(last)) if next < last => {
            format!(", next due {}, last {}", moment(next), moment(last))
        }
        (Some(next), _) => format!(", due {}", moment(next)),
        (None, _) => String::new(),
    };
    match waits.at {
        At::UnderWay => format!("{count} under way"),
        At::Reply => format!("{count} done by the system, to be replied to"),
        At::Retry => format!("{count} in retry queues{due}"),
        At::Queue => format!("{count} back in the route's queue"),
        At::Lot => format!("{count} in the parking lot{due}"),
        At::Held => format!("{count} held by a dead letter, until a person replays, discards or releases"),
        At::Spool => format!("{count} in the spool{due}"),
        At::Batch(n) => format!("{count} in batch {n}"),
    }
}

fn discards_in_words(by: &DiscardedBy) -> String {
    let count = messages(by.messages);
    match &by.who {
        Some(who) => {
            let last = by.last.map(moment).unwrap_or_default();
            format!("{count} discarded by {who}, last at {last}: {}", by.reason)
        }
        None => format!("{count} discarded, and the audit trail does not say by whom"),
    }
}

fn queues_in_words(queues: &Queues) -> String {
    let replayed = match queues.replayed {
        0 => String::new(),
        replayed => format!(" and {replayed} replayed, on their way back"),
    };
    let tiers: Vec<String> = queues.tiers.iter().map(|(wait, depth)| format!("{depth} for {wait}")).collect();
    let tiers = match tiers.is_empty() {
        true => String::new(),
        false => format!("\nretry queues: {}", tiers.join(", ")),
    };
    format!(
        "dead-letter queue: {} letters, {} by the journal{replayed}{tiers}",
        queues.letters, queues.buried
    )
}

fn hour(at: i64) -> String {
    moment(at).chars().take(13).collect::<String>() + "h"
}

pub(super) fn in_words(astray: &Astray) -> String {
    let count = messages(astray.messages);
    match astray.what {
        Wrong::Missing { hour: at } => {
            format!("{count} taken in within {} of which the journal has no row", hour(at))
        }
        Wrong::Surplus { hour: at } => {
            format!("{count} in the journal that were not taken in within {}", hour(at))
        }
        Wrong::Copies { hour: at } => {
            format!("{} copies of messages of {} too many or too few", astray.messages, hour(at))
        }
        Wrong::Pruned => format!("{count} too many or too few among those that are remembered as a sum only"),
        Wrong::NotInSpool => format!("{count} waiting in the spool and not in it"),
        Wrong::NotInBatch => format!("{count} in a batch by the journal, and in none"),
        Wrong::NotInJournal => {
            format!("{count} in the spool, the parking lot or a batch of which the journal has no row")
        }
        Wrong::LetterGone => {
            format!("{count} given up that left the dead-letter queue otherwise than by replay or discard")
        }
        Wrong::NotBack => {
            format!("{count} that should long be back from a retry queue, and the route's queue is empty")
        }
    }
}

fn what(wrong: Wrong) -> &'static str {
    match wrong {
        Wrong::Missing { .. } => "missing",
        Wrong::Surplus { .. } => "surplus",
        Wrong::Copies { .. } => "copies",
        Wrong::Pruned => "pruned",
        Wrong::NotInSpool => "not-in-spool",
        Wrong::NotInBatch => "not-in-batch",
        Wrong::NotInJournal => "not-in-journal",
        Wrong::LetterGone => "letter-gone",
        Wrong::NotBack => "not-back",
    }
}

fn name_in_words(named: &Named) -> String {
    let id = named.id.as_ref().map(|id| format!("  id {id}")).unwrap_or_default();
    let source = named.source.as_ref().map(|source| format!("  source {source}")).unwrap_or_default();
    let taken = named.taken_at.map(|at| format!("  taken in {}", moment(at))).unwrap_or_default();
    format!("{}{id}{source}{taken}", named.key)
}

fn object(line: &RouteAccount, proof: &Proof) -> Value {
    let waits = |waits: &Waits| {
        let batch = if let At::Batch(n) = waits.at { Some(n) } else { None };
        json!({ "where": place(waits.at), "batch": batch, "messages": waits.messages,
                "next_due": waits.next.map(moment), "last_due": waits.last.map(moment) })
    };
    let by = |by: &DiscardedBy| json!({ "by": by.who, "messages": by.messages, "reason": by.reason, "last": by.last.map(moment) });
    let named = |named: &Named| json!({ "key": named.key, "id": named.id, "source": named.source, "taken_at": named.taken_at.map(moment) });
    let astray = |astray: &Astray| {
        let hour = match astray.what {
            Wrong::Missing { hour } | Wrong::Surplus { hour } | Wrong::Copies { hour } => Some(moment(hour)),
            Wrong::Pruned
            | Wrong::NotInSpool
            | Wrong::NotInBatch
            | Wrong::NotInJournal
            | Wrong::LetterGone
            | Wrong::NotBack => None,
        };
        json!({ "what": what(astray.what), "hour": hour, "messages": astray.messages,
                "named": astray.named.iter().map(named).collect::<Vec<_>>() })
    };
    let remembers = proof.account.remembers.filter(|at| proof.account.since.is_none_or(|since| since < *at));
    json!({ "schema": "packhorse.account/v1", "route": line.route, "since": proof.account.since.map(moment),
            "remembers_since": remembers.map(moment), "taken": line.taken, "delivered": line.delivered,
            "waiting": line.waiting, "batched": line.batched, "parked": line.parked, "next_due": line.next_due.map(moment),
            "waits": line.waits.iter().map(waits).collect::<Vec<_>>(),
            "dead": line.dead, "duplicate": line.duplicate, "discarded": line.discarded,
            "discarded_by": line.discarded_by.iter().map(by).collect::<Vec<_>>(),
            "nothing": line.nothing, "pruned": line.pruned, "files": files(line), "open_items": line.open_items,
            "difference": line.difference(), "astray": line.astray.iter().map(astray).collect::<Vec<_>>() })
}

fn row(line: &RouteAccount) -> Vec<String> {
    let numbers =
        [line.taken, line.delivered, line.waiting, line.dead, line.duplicate, line.discarded, line.nothing];
    let mut row = vec![line.route.clone()];
    row.extend(numbers.iter().map(i64::to_string));
    row.push(line.next_due.map(moment).unwrap_or_default());
    row.push(if line.open_items == 0 { String::new() } else { line.open_items.to_string() });
    row
}

fn files(line: &RouteAccount) -> Value {
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

fn sum(lines: &[RouteAccount]) -> RouteAccount {
    let add = |of: fn(&RouteAccount) -> i64| lines.iter().map(of).sum();
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
        ..RouteAccount::default()
    }
}
