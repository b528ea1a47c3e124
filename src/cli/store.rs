//! `packhorse store`.

use super::exit;
use crate::{
    code::Code,
    config::Config,
    store::{self, Asked, Copied, Opener, Store, StoreError},
};
use clap::{Args, Subcommand, ValueHint};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Look after the store: move it to a server, back it up, see whether it is whole.
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Move the store from its file to the PostgreSQL that `[store] url` names: everything, or nothing.
    ///
    /// Stop the bridge and write `url` under `[store]` first; `path` stays. Everything is copied in one transaction, read back and
    /// compared, and the file is marked as moved, so that no bridge starts on it by mistake. A server that holds a store already is
    /// left as it is.
    Migrate(Migrate),
    /// Write the whole store, as it is at one moment, to a file of SQLite. Bridges go on meanwhile.
    ///
    /// The file may take the place of the store. Read `docs/store.md` first: what happened since the backup is not known to it.
    Backup(Backup),
    /// Is the store whole, without contradictions, and does its account close?
    ///
    /// Bridges go on meanwhile. Exits with 1 if anything is wrong.
    Verify(Verify),
}

/// Move a store.
#[derive(Debug, Args)]
pub struct Migrate {
    /// The file to move, if it is not that of `[store] path`.
    #[arg(long, value_hint = ValueHint::FilePath)]
    from: Option<PathBuf>,
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
}

/// Back a store up.
#[derive(Debug, Args)]
pub struct Backup {
    /// The file to write; it must not be there yet.
    #[arg(value_hint = ValueHint::FilePath)]
    file: PathBuf,
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
}

/// Verify a store.
#[derive(Debug, Args)]
pub struct Verify {
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
}

impl StoreCommand {
    /// Runs it.
    pub fn run(&self, path: &Path) -> u8 {
        let config = match super::configuration(path) {
            Ok((_, config)) => config,
            Err(code) => return code,
        };
        let done = match self {
            StoreCommand::Migrate(migrate) => migrate.go(&config),
            StoreCommand::Backup(backup) => {
                store::backup(&config.store, &backup.file).map(|copied| print(&copied, backup.json))
            }
            StoreCommand::Verify(verify) => verify.go(&config),
        };
        done.unwrap_or_else(|error| refused(&error))
    }
}

fn refused(error: &StoreError) -> u8 {
    super::complain(error.code, &error.what);
    match error.code {
        Code::StoreTaken | Code::StoreDamaged => exit::FOUND,
        _ => exit::STORE,
    }
}

impl Migrate {
    fn go(&self, config: &Config) -> Result<u8, StoreError> {
        if config.store.server.is_none() {
            super::complain(
                Code::MissingKey,
                "`[store] url` does not say where to: `url = \"postgres://user@host/database\"`",
            );
            return Ok(exit::CONFIG);
        }
        let from = self.from.as_deref().unwrap_or(&config.store.path);
        let copied = store::migrate(from, &config.store)?;
        let code = print(&copied, self.json);
        anstream::eprintln!(
            "{} was moved to {} and is marked as moved",
            from.display(),
            config.store.place()
        );
        Ok(code)
    }
}

impl Verify {
    fn go(&self, config: &Config) -> Result<u8, StoreError> {
        let mut wrong = store::verify(&config.store)?;
        if wrong.is_empty() {
            let account = super::block_on(async {
                let store = Store::of(&config.store, Opener::Command)?;
                let collects = config.collect.iter().map(|route| route.id.clone()).collect();
                store.account(Asked { collects, ..Asked::default() }).await
            });
            match account {
                Ok(account) => {
                    let account = account?;
                    for line in &account.routes {
                        if line.difference() != 0 {
                            wrong.push(format!(
                                "{}: the account differs by {}",
                                line.route,
                                line.difference()
                            ));
                        }
                        let astray = line.astray.iter().map(super::account::in_words);
                        wrong.extend(astray.map(|what| format!("{}: {what}", line.route)));
                    }
                }
                Err(code) => return Ok(code),
            }
        }
        for line in &wrong {
            match self.json {
                true => println!(
                    "{}",
                    json!({ "schema": "packhorse.store.wrong/v1", "code": Code::StoreDamaged.as_str(), "what": line })
                ),
                false => super::complain(Code::StoreDamaged, line),
            }
        }
        if wrong.is_empty() {
            anstream::eprintln!("{} is whole", config.store.place());
        }
        Ok(if wrong.is_empty() { 0 } else { exit::FOUND })
    }
}

fn print(copied: &[Copied], json: bool) -> u8 {
    match json {
        true => copied.iter().for_each(|one| {
            println!(
                "{}",
                json!({ "schema": "packhorse.store.copied/v1", "table": one.table, "rows": one.rows })
            );
        }),
        false => {
            let rows: Vec<_> =
                copied.iter().map(|one| vec![one.table.clone(), one.rows.to_string()]).collect();
            super::table(&["table", "rows"], &rows);
        }
    }
    0
}
