//! The command line: one file a family of commands. Prints and exit codes; no logic.
//!
//! Exit codes are a contract: 0 all is well; 1 problems were found; 2 the command itself is wrong; 65 bad input; 69 the
//! broker or a system cannot be reached; 73 the store cannot be written; 78 the settings are wrong; 130 interrupted.
//! Data goes to standard output, everything else to standard error.

mod account;
mod batches;
mod check;
mod dead_letters;
pub mod docs;
mod doctor;
mod files;
mod held;
mod mapping;
mod new;
mod render;
mod routes;
mod run;
mod store;
mod topology;

use crate::{
    code::Code,
    config::{Config, Project},
    ops::Refused,
    store::{Opener, Store},
    telemetry::{self, LogFormat},
};
use clap::{Parser, Subcommand, ValueHint};
use std::{path::PathBuf, process::ExitCode};

/// Exit codes, by name.
pub mod exit {
    /// Problems were found.
    pub const FOUND: u8 = 1;
    /// Bad input.
    pub const DATA: u8 = 65;
    /// The broker or a system cannot be reached.
    pub const UNAVAILABLE: u8 = 69;
    /// The store cannot be written.
    pub const STORE: u8 = 73;
    /// The settings are wrong.
    pub const CONFIG: u8 = 78;
    /// Whoever read our output has gone: as a shell shows a program ended by SIGPIPE.
    pub const NOBODY_READS: u8 = 141;
}

/// Joins a council's existing systems to the national platform over AMQP queues.
#[derive(Debug, Parser)]
#[command(name = "packhorse", version, about, max_term_width = 100)]
pub struct Cli {
    /// The bridge's settings.
    #[arg(short, long, global = true, default_value = "packhorse.toml", env = "PACKHORSE_CONFIG", value_hint = ValueHint::FilePath)]
    pub config: PathBuf,

    /// How logs are written.
    #[arg(long, global = true, value_enum, default_value = "json", env = "PACKHORSE_LOG")]
    pub log: LogFormat,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the bridge until SIGTERM or Ctrl-C.
    ///
    /// It checks everything first and does not start with an error. On SIGTERM it takes nothing more, goes on with what
    /// has begun for as long as `drain` says, gives the rest back to the broker and exits with 0.
    Run,
    /// Find every problem in settings, adapters, mappings, schemas, code lists and cases.
    ///
    /// Without the network, unless `--live`. Exits with 1 if there is an error.
    Check(check::Check),
    /// Write a first adapter, mapping and case from a real file of a system.
    ///
    /// Nothing that is there is overwritten. Every row that was guessed says so: `check` repeats it until a person has
    /// looked and taken the guess out.
    New(new::New),
    /// Map one sample and print the result.
    Try(mapping::Try),
    /// Run the cases and the laws of all mappings, or of those named.
    Test(mapping::Test),
    /// Show, verify, make or export the queues and exchanges that the bridge needs.
    #[command(subcommand)]
    Topology(topology::Topology),
    /// Look at dead letters, replay them or discard them.
    #[command(subcommand)]
    DeadLetters(dead_letters::DeadLetters),
    /// Look at what waits in its order behind a message that failed, and let it go on.
    #[command(subcommand)]
    Held(held::Held),
    /// Look at batches that are written to files, or seal one now.
    #[command(subcommand)]
    Batches(batches::Batches),
    /// Taken in = delivered + waiting + dead + duplicate + discarded + nothing to publish: prove it, per route.
    ///
    /// Exits with 1 if a line does not close.
    Account(account::Account),
    /// Look after the store: move it to a server, back it up, see whether it is whole.
    #[command(subcommand)]
    Store(store::StoreCommand),
    /// How every route stands: open, closed until when, paused by whom, away and tried next when.
    Routes(routes::Routes),
    /// Pause a route for planned work: nothing is sent, nothing looked for; what waits stays where it is.
    ///
    /// It holds until `resume`, also over restarts. A bridge that runs stops within a second.
    Pause(routes::Pause),
    /// Let a paused route go on.
    Resume(routes::Resume),
    /// Look at the files that were picked up.
    #[command(subcommand)]
    Files(files::Files),
    /// Look at extracts that wait for a person, and decide on them.
    #[command(subcommand)]
    Extracts(files::Extracts),
    /// Is everything reachable, trusted, permitted and in date?
    Doctor(doctor::Doctor),
    /// Say what a code means and what to do about it.
    Explain(docs::Explain),
    /// Say what is connected: every adapter, its routes, events and settings, what it promises and what is uncertain.
    Catalogue(docs::Catalogue),
    /// Print the AsyncAPI 3 document of all events that go in and out.
    Asyncapi,
    /// Print or write the generated reference: keys, conversions, commands, metrics, JSON Schemas for editors.
    #[command(hide = true)]
    Docs(docs::Docs),
}

/// Runs the command line.
pub fn main() -> ExitCode {
    end_quietly_when_nobody_reads();
    let cli = Cli::parse();
    // A command says itself what went wrong; the log is the bridge's.
    let usual = if matches!(cli.command, Command::Run) { "warn,packhorse=info" } else { "error" };
    // What these libraries log, we say in our own words.
    let usual = format!("{usual},lapin=off,rustls_platform_verifier=off");
    telemetry::logging(cli.log, &usual);
    crate::tls::install();
    let code = match &cli.command {
        Command::Run => run::run(&cli.config),
        Command::Check(check) => check.run(&cli.config),
        Command::New(new) => new.run(&cli.config),
        Command::Try(this) => this.run(&cli.config),
        Command::Test(test) => test.run(&cli.config),
        Command::Topology(topology) => topology.run(&cli.config),
        Command::DeadLetters(command) => command.run(&cli.config),
        Command::Held(command) => command.run(&cli.config),
        Command::Batches(command) => command.run(&cli.config),
        Command::Account(account) => account.run(&cli.config),
        Command::Store(command) => command.run(&cli.config),
        Command::Routes(routes) => routes.run(&cli.config),
        Command::Pause(pause) => pause.run(&cli.config),
        Command::Resume(resume) => resume.run(&cli.config),
        Command::Files(files) => files.run(&cli.config),
        Command::Extracts(extracts) => extracts.run(&cli.config),
        Command::Doctor(doctor) => doctor.run(&cli.config),
        Command::Explain(explain) => explain.run(),
        Command::Catalogue(catalogue) => catalogue.run(&cli.config),
        Command::Asyncapi => docs::asyncapi(&cli.config),
        Command::Docs(docs) => docs.run(),
    };
    ExitCode::from(code)
}

/// `packhorse … | head` ends when `head` does, without a word, as other commands do.
fn end_quietly_when_nobody_reads() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let text = panic.payload().downcast_ref::<String>().map_or("", String::as_str);
        if text.starts_with("failed printing to std") && text.contains("Broken pipe") {
            std::process::exit(i32::from(exit::NOBODY_READS));
        }
        usual(panic);
    }));
}

/// The runtime of commands that use the network.
fn block_on<T>(future: impl Future<Output = T>) -> Result<T, u8> {
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => Ok(runtime.block_on(future)),
        Err(error) => {
            anstream::eprintln!("error: the runtime cannot be started: {error}");
            Err(exit::UNAVAILABLE)
        }
    }
}

/// Does something with the store of a bridge, beside it: the exit code is its own, or that of what was refused.
fn on_store(path: &std::path::Path, act: impl AsyncFnOnce(&Config, &Store) -> Result<u8, Refused>) -> u8 {
    let config = match configuration(path) {
        Ok((_, config)) => config,
        Err(code) => return code,
    };
    let done = block_on(async {
        let store = Store::of(&config.store, Opener::Command)?;
        act(&config, &store).await
    });
    match done {
        Ok(Ok(code)) => code,
        Ok(Err(refused)) => {
            complain(refused.code, &refused.what);
            match refused.code {
                Code::NothingHeld | Code::NoSuchBatch | Code::NoSuchRoute | Code::NotPaused => exit::FOUND,
                _ => exit::STORE,
            }
        }
        Err(code) => code,
    }
}

/// The checked configuration, or everything that is wrong on standard error.
fn configuration(path: &std::path::Path) -> Result<(Project, Config), u8> {
    if !path.exists() {
        complain(
            Code::CannotReadFile,
            &format!("{} does not exist; say which settings with --config", path.display()),
        );
        return Err(exit::CONFIG);
    }
    let project = Project::load(path);
    let Some(config) = project.config.clone() else {
        anstream::eprint!("{}", render::diagnostics(&project, render::Show::Errors));
        return Err(exit::CONFIG);
    };
    Ok((project, config))
}

/// One error on standard error, in the manner of the diagnostics.
fn complain(code: Code, what: &str) {
    anstream::eprintln!("error[{code}]: {what}");
    if !code.remedy().is_empty() {
        anstream::eprintln!("  = help: {}", code.remedy());
    }
}

/// Who is logged in, as far as the machine says.
fn logged_in() -> String {
    let name = ["SUDO_USER", "USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok());
    name.unwrap_or_else(|| "unknown".to_owned())
}

/// A moment, in whole seconds.
fn moment(millis: i64) -> String {
    jiff::Timestamp::from_millisecond(millis)
        .map(|moment| moment.to_string().chars().take(19).collect::<String>() + "Z")
        .unwrap_or_default()
}

/// A table on standard output: columns as wide as their widest cell, the last as wide as it is.
fn table(head: &[&str], rows: &[Vec<String>]) {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(head.get(column).map(|cell| cell.chars().count())).max().unwrap_or(0)
    };
    let print = |cells: Vec<&str>| {
        let last = cells.len().saturating_sub(1);
        let line: Vec<String> = cells
            .iter()
            .enumerate()
            .map(
                |(column, cell)| {
                    if column == last { (*cell).to_owned() } else { format!("{cell:<0$}", width(column)) }
                },
            )
            .collect();
        println!("{}", line.join("  ").trim_end());
    };
    print(head.to_vec());
    rows.iter().for_each(|row| print(row.iter().map(String::as_str).collect()));
}
