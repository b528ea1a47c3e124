//! `packhorse files` and `packhorse extracts`.

use super::{dead_letters::some_text, exit, moment};
use crate::{
    code::Code,
    config::Config,
    event::hex,
    ops::{Actor, decide_extract},
    store::{Decision, FileState, Opener, Store, StoreError, TakenFile},
};
use clap::{Args, Subcommand};
use serde_json::json;
use std::path::Path;

/// Look at the files that were picked up.
#[derive(Debug, Subcommand)]
pub enum Files {
    /// List them, newest first: how far each has been read, and why one is refused or waits.
    List(List),
}

/// Look at extracts and other files that wait for a person, and decide on them.
#[derive(Debug, Subcommand)]
pub enum Extracts {
    /// List those that wait, and why.
    List(ListHeld),
    /// It is right: what it says is new, changed or gone is taken in.
    Accept(Accept),
    /// It is broken: nothing of it counts, and the next one is compared with the one before it.
    Reject(Reject),
}

/// List files.
#[derive(Debug, Args)]
pub struct List {
    /// Only those of this route.
    #[arg(long)]
    route: Option<String>,
    /// Only those that are refused.
    #[arg(long)]
    refused: bool,
    /// At most so many.
    #[arg(long, default_value_t = 50)]
    limit: u32,
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
}

/// List extracts that wait.
#[derive(Debug, Args)]
pub struct ListHeld {
    /// Only those of this route.
    #[arg(long)]
    route: Option<String>,
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
    /// Exit with 1 if there are any.
    #[arg(long)]
    fail_if_any: bool,
}

/// Accept one.
#[derive(Debug, Args)]
pub struct Accept {
    /// Its number, as `list` shows it.
    number: i64,
    /// What it says is where the next one starts from: nothing of it is news. After a change of the key, or of the system.
    #[arg(long)]
    as_baseline: bool,
    #[command(flatten)]
    acting: ActingSurely,
}

/// Reject one.
#[derive(Debug, Args)]
pub struct Reject {
    /// Its number, as `list` shows it.
    number: i64,
    #[command(flatten)]
    acting: ActingSurely,
}

/// Who acts; no name is guessed.
#[derive(Debug, Clone, Args)]
struct ActingSurely {
    /// Your name, for the audit trail.
    #[arg(long, value_parser = some_text)]
    by: String,
    /// Why.
    #[arg(long, value_parser = some_text)]
    reason: String,
}

impl Files {
    /// Runs it.
    pub fn run(&self, path: &Path) -> u8 {
        let Files::List(list) = self;
        let state = list.refused.then_some(FileState::Refused);
        match listed(path, list.route.clone(), state, list.limit) {
            Ok(files) => {
                print(&files, list.json);
                0
            }
            Err(code) => code,
        }
    }
}

impl Extracts {
    /// Runs it.
    pub fn run(&self, path: &Path) -> u8 {
        match self {
            Extracts::List(list) => match listed(path, list.route.clone(), Some(FileState::Held), u32::MAX) {
                Ok(files) => {
                    print(&files, list.json);
                    if list.fail_if_any && !files.is_empty() { exit::FOUND } else { 0 }
                }
                Err(code) => code,
            },
            Extracts::Accept(accept) => {
                let decision = if accept.as_baseline { Decision::Baseline } else { Decision::Accept };
                decide(path, accept.number, decision, &accept.acting)
            }
            Extracts::Reject(reject) => decide(path, reject.number, Decision::Reject, &reject.acting),
        }
    }
}

fn with_store<T>(path: &Path, act: impl AsyncFnOnce(Store) -> Result<T, StoreError>) -> Result<T, u8> {
    let (_, config): (_, Config) = super::configuration(path)?;
    let done = super::block_on(async { act(Store::of(&config.store, Opener::Command)?).await })?;
    done.map_err(|error| {
        super::complain(error.code, &error.what);
        exit::STORE
    })
}

fn listed(
    path: &Path,
    route: Option<String>,
    state: Option<FileState>,
    most: u32,
) -> Result<Vec<TakenFile>, u8> {
    with_store(path, async |store| store.files(route, state, most).await)
}

fn decide(path: &Path, number: i64, decision: Decision, acting: &ActingSurely) -> u8 {
    let actor = Actor { who: acting.by.clone(), reason: acting.reason.clone() };
    match with_store(path, async |store| decide_extract(&store, number, decision, &actor).await) {
        Ok(true) => {
            match decision {
                Decision::Accept => println!("extract {number} is accepted: the bridge takes its news in"),
                Decision::Baseline => println!("extract {number} is the new baseline"),
                Decision::Reject => println!("extract {number} is rejected: nothing of it counts"),
            }
            0
        }
        Ok(false) => {
            super::complain(Code::NotHeld, &format!("extract {number} does not wait for a person"));
            exit::FOUND
        }
        Err(code) => code,
    }
}

fn print(files: &[TakenFile], as_json: bool) {
    if as_json {
        for file in files {
            println!(
                "{}",
                json!({ "schema": "packhorse.file/v1", "number": file.n, "route": file.route_name, "name": file.name,
                        "sha256": hex(&file.digest), "size": file.size, "state": file.state.as_str(),
                        "taken_at": moment(file.taken_at), "done_at": file.done_at.map(moment),
                        "records": file.records, "bad": file.bad, "duplicates": file.duplicates,
                        "code": file.code, "why": file.why, "by": file.who, "reason": file.reason })
            );
        }
        return;
    }
    let rows: Vec<Vec<String>> = files
        .iter()
        .map(|file| {
            let why = match (&file.code, &file.why) {
                (Some(code), Some(why)) => format!("{code} {why}"),
                (None, Some(why)) => why.clone(),
                (Some(code), None) => code.clone(),
                (None, None) => String::new(),
            };
            vec![
                file.n.to_string(),
                file.route_name.clone(),
                file.name.clone(),
                file.state.as_str().to_owned(),
                moment(file.taken_at),
                file.records.to_string(),
                file.bad.to_string(),
                file.duplicates.to_string(),
                why,
            ]
        })
        .collect();
    super::table(&["number", "route", "file", "state", "taken", "records", "bad", "again", "why"], &rows);
}
