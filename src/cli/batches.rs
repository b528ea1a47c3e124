//! `packhorse batches`.

use super::moment;
use crate::{
    ops::{Actor, Refused, batches},
    store::{BatchFileState, BatchState, Store},
};
use clap::{Args, Subcommand};
use serde_json::json;
use std::path::Path;

/// Look at batches that are written to files, or seal one now.
#[derive(Debug, Subcommand)]
pub enum Batches {
    /// List them: what each is at, what it holds, until when it waits, and why one that cannot be written waits.
    List(List),
    /// Show one, with its files.
    Show(Show),
    /// Seal an open batch now, before its cut-off.
    Seal(Seal),
    /// Say of a batch of which nobody knows whether the system has had its file.
    ///
    /// A file that may have been put into the system before a crash, and is not there any more, is not put a second time.
    Settle(Settle),
}

/// List them.
#[derive(Debug, Args)]
pub struct List {
    /// At most so many.
    #[arg(long, default_value_t = 50)]
    limit: u32,
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
}

/// Show one.
#[derive(Debug, Args)]
pub struct Show {
    /// Its number, as `list` shows it.
    number: i64,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

/// Seal one.
#[derive(Debug, Args)]
pub struct Seal {
    /// Its number, as `list` shows it.
    number: i64,
    /// Your name, for the audit trail.
    #[arg(long, value_parser = super::dead_letters::some_text)]
    by: String,
    /// Why it does not wait for its cut-off.
    #[arg(long, value_parser = super::dead_letters::some_text)]
    reason: String,
}

/// Say what you have seen in the system.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("seen").required(true)))]
pub struct Settle {
    /// Its number, as `list` shows it.
    number: i64,
    /// The system has had the file: it is not put again.
    #[arg(long, group = "seen")]
    received: bool,
    /// The system has not had the file: it is put now.
    #[arg(long, group = "seen")]
    not_received: bool,
    /// Your name, for the audit trail.
    #[arg(long, value_parser = super::dead_letters::some_text)]
    by: String,
    /// What you have seen.
    #[arg(long, value_parser = super::dead_letters::some_text)]
    reason: String,
}

impl Batches {
    /// Runs it.
    pub fn run(&self, path: &Path) -> u8 {
        super::on_store(path, async |_, store| self.go(store).await)
    }

    async fn go(&self, store: &Store) -> Result<u8, Refused> {
        match self {
            Batches::List(list) => {
                let found = store.batches(list.limit).await?;
                match list.json {
                    true => found.iter().for_each(|batch| println!("{}", object(batch))),
                    false => super::table(
                        &["number", "batch", "stage", "items", "sum", "serial", "day", "waits until", "why"],
                        &found.iter().map(row).collect::<Vec<_>>(),
                    ),
                }
            }
            Batches::Show(show) => {
                let (batch, files) = batches::show(store, show.number).await?;
                match show.json {
                    true => {
                        let files: Vec<serde_json::Value> = files.iter().map(file_object).collect();
                        println!("{}", json!({ "batch": object(&batch), "files": files }));
                    }
                    false => print(&batch, &files),
                }
            }
            Batches::Seal(seal) => {
                let actor = Actor { who: seal.by.clone(), reason: seal.reason.clone() };
                batches::seal(store, seal.number, &actor).await?;
                println!("batch {} is sealed as soon as the bridge looks at it", seal.number);
            }
            Batches::Settle(settle) => {
                let actor = Actor { who: settle.by.clone(), reason: settle.reason.clone() };
                let seen = if settle.received { batches::Seen::Received } else { batches::Seen::NotReceived };
                batches::settle(store, settle.number, seen, &actor).await?;
                match seen {
                    batches::Seen::Received => println!("batch {} counts as received", settle.number),
                    batches::Seen::NotReceived => println!("batch {} is put again", settle.number),
                }
            }
        }
        Ok(0)
    }
}

/// A batch as one object.
fn object(batch: &BatchState) -> serde_json::Value {
    json!({ "schema": "packhorse.batch/v1", "number": batch.n, "batch": batch.feed, "day_wanted": batch.per,
            "stage": batch.life.stage.as_str(), "items": batch.life.items, "sum": batch.sum, "serial": batch.serial,
            "processing_date": batch.processing, "opened_at": moment(batch.opened_at),
            "cut_off": batch.life.cut_off.map(moment), "seal_asked": batch.life.asked,
            "sealed_at": batch.sealed_at.map(moment), "sealed_by": batch.sealed_by, "failed": batch.failed,
            "retry_at": batch.life.retry_at.map(moment), "code": batch.code, "why": batch.why,
            "sent_at": batch.sent_at.map(moment) })
}

fn file_object(file: &BatchFileState) -> serde_json::Value {
    let digest: String = file.digest.iter().map(|byte| format!("{byte:02x}")).collect();
    json!({ "file": file.file, "name": file.name, "sha256": digest, "size": file.size, "put_at": file.put_at.map(moment) })
}

fn row(batch: &BatchState) -> Vec<String> {
    let waits = batch.life.retry_at.or(if batch.sealed_at.is_none() { batch.life.cut_off } else { None });
    vec![
        batch.n.to_string(),
        batch.feed.clone(),
        batch.life.stage.as_str().to_owned(),
        batch.life.items.to_string(),
        batch.sum.to_string(),
        batch.serial.map(|serial| serial.to_string()).unwrap_or_default(),
        batch.processing.clone().unwrap_or_else(|| batch.per.clone()),
        waits.map(moment).unwrap_or_default(),
        match (&batch.code, &batch.why) {
            (Some(code), Some(why)) => format!("{code} {why}"),
            (Some(_), None) | (None, _) => String::new(),
        },
    ]
}

fn print(batch: &BatchState, files: &[BatchFileState]) {
    let line = |name: &str, value: String| {
        if !value.is_empty() {
            println!("{name:<16} {value}");
        }
    };
    line("number", batch.n.to_string());
    line("batch", batch.feed.clone());
    line("stage", batch.life.stage.as_str().to_owned());
    line("items", batch.life.items.to_string());
    line("sum", batch.sum.to_string());
    line("opened", moment(batch.opened_at));
    line("cut-off", batch.life.cut_off.map(moment).unwrap_or_default());
    line("sealed", batch.sealed_at.map(moment).unwrap_or_default());
    line("sealed by", batch.sealed_by.clone().unwrap_or_default());
    line("serial", batch.serial.map(|serial| serial.to_string()).unwrap_or_default());
    line("processing day", batch.processing.clone().unwrap_or_else(|| batch.per.clone()));
    line("sent", batch.sent_at.map(moment).unwrap_or_default());
    if let (Some(code), Some(why)) = (&batch.code, &batch.why) {
        line("waits because", format!("{code} {why}"));
        line("tried again", batch.life.retry_at.map(moment).unwrap_or_default());
    }
    for file in files {
        let put = file.put_at.map_or_else(
            || "not yet in the system".to_owned(),
            |at| format!("in the system since {}", moment(at)),
        );
        line("file", format!("{} ({} bytes), {put}", file.name, file.size));
    }
}
