//! `packhorse topology`.

use super::exit;
use crate::{
    broker::{
        BrokerError, Link,
        link::first_contact,
        topology::{Argument, Topology as Wanted},
    },
    config::Config,
    system::management,
};
use clap::{Args, Subcommand};
use serde_json::json;
use std::{path::Path, time::Duration};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Show, verify, make or export the queues and exchanges that the bridge needs.
#[derive(Debug, Subcommand)]
pub enum Topology {
    /// Print what there must be, and what for. Without the network.
    Print(Json),
    /// Compare the broker with what there must be: existence, arguments and, with `broker.management` set, what policies
    /// make of them. Changes nothing.
    Verify(Json),
    /// Make what is missing. What is there and differs is left as it is and told.
    Apply(Json),
    /// Print a definitions file for a broker administrator, with least permissions for a user.
    Export(Export),
}

/// How to print.
#[derive(Debug, Args)]
pub struct Json {
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
}

/// What to export.
#[derive(Debug, Args)]
pub struct Export {
    /// The user under which the bridge will log in.
    #[arg(long)]
    user: Option<String>,
}

impl Topology {
    /// Runs it.
    pub fn run(&self, path: &Path) -> u8 {
        let config = match super::configuration(path) {
            Ok((_, config)) => config,
            Err(code) => return code,
        };
        let wanted = Wanted::of(&config);
        match self {
            Topology::Print(how) => print(&wanted, how.json),
            Topology::Export(export) => {
                let vhost = config.broker.addresses.first().map_or("/", |address| address.vhost.as_str());
                let user = export.user.as_deref().or(config.broker.username.as_deref());
                let definitions = wanted.definitions(vhost, user, &config.prefix);
                println!("{}", serde_json::to_string_pretty(&definitions).unwrap_or_default());
                0
            }
            Topology::Verify(how) => {
                super::block_on(verify(&config, &wanted, how.json)).unwrap_or_else(|code| code)
            }
            Topology::Apply(how) => {
                super::block_on(apply(&config, &wanted, how.json)).unwrap_or_else(|code| code)
            }
        }
    }
}

fn print(wanted: &Wanted, as_lines: bool) -> u8 {
    if as_lines {
        for exchange in &wanted.exchanges {
            println!(
                "{}",
                json!({ "schema": "packhorse.exchange/v1", "name": exchange.name, "type": exchange.kind,
                                   "alternate": exchange.alternate, "platform": exchange.platform })
            );
        }
        for queue in &wanted.queues {
            let arguments: serde_json::Map<_, _> = queue
                .arguments
                .iter()
                .map(|(name, argument)| ((*name).to_owned(), value(argument)))
                .collect();
            println!(
                "{}",
                json!({ "schema": "packhorse.queue/v1", "name": queue.name, "arguments": arguments, "about": queue.about })
            );
        }
        for binding in &wanted.bindings {
            println!(
                "{}",
                json!({ "schema": "packhorse.binding/v1", "exchange": binding.exchange, "queue": binding.queue, "key": binding.key })
            );
        }
        return 0;
    }
    let rows: Vec<Vec<String>> = wanted
        .exchanges
        .iter()
        .map(|exchange| {
            let about = match (&exchange.alternate, exchange.platform) {
                (_, true) => "the platform's".to_owned(),
                (Some(alternate), _) => format!("what it cannot route goes to {alternate}"),
                (None, _) => String::new(),
            };
            vec![exchange.name.clone(), exchange.kind.to_owned(), about]
        })
        .collect();
    super::table(&["exchange", "type", ""], &rows);
    println!();
    let rows: Vec<Vec<String>> =
        wanted.queues.iter().map(|queue| vec![queue.name.clone(), queue.about.clone()]).collect();
    super::table(&["queue", "for"], &rows);
    println!();
    let rows: Vec<Vec<String>> = wanted
        .bindings
        .iter()
        .map(|binding| vec![binding.exchange.clone(), binding.queue.clone(), binding.key.clone()])
        .collect();
    super::table(&["from", "to", "by key"], &rows);
    0
}

fn value(argument: &Argument) -> serde_json::Value {
    match argument {
        Argument::Text(text) => text.clone().into(),
        Argument::Number(number) => (*number).into(),
        Argument::True => true.into(),
    }
}

async fn apply(config: &Config, wanted: &Wanted, as_lines: bool) -> u8 {
    with_link(config, async |link| wanted.apply(link, true, config.declare_platform).await).await.map_or_else(
        |error| {
            super::complain(error.code, &error.what);
            exit::UNAVAILABLE
        },
        |findings| {
            tell(
                findings
                    .into_iter()
                    .map(|finding| (finding.subject, finding.error.map(|error| error.to_string())))
                    .collect(),
                as_lines,
            )
        },
    )
}

async fn verify(config: &Config, wanted: &Wanted, as_lines: bool) -> u8 {
    let findings = match with_link(config, async |link| wanted.verify(link, config.declare).await).await {
        Ok(findings) => findings,
        Err(error) => {
            super::complain(error.code, &error.what);
            return exit::UNAVAILABLE;
        }
    };
    let mut lines: Vec<(String, Option<String>)> = findings
        .into_iter()
        .map(|finding| (finding.subject, finding.error.map(|error| error.to_string())))
        .collect();
    match management::effective(config, wanted).await {
        None => anstream::eprintln!("note: `broker.management` is not set: policies are not seen"),
        Some(Ok(found)) => lines.extend(found),
        Some(Err(failure)) => lines
            .push(("management interface".to_owned(), Some(format!("{}: {}", failure.code, failure.what)))),
    }
    tell(lines, as_lines)
}

/// Prints what was found; gives the exit code.
pub(super) fn tell(lines: Vec<(String, Option<String>)>, as_lines: bool) -> u8 {
    let wrong = lines.iter().filter(|(_, error)| error.is_some()).count();
    for (subject, error) in &lines {
        match (as_lines, error) {
            (true, error) => println!(
                "{}",
                json!({ "schema": "packhorse.finding/v1", "subject": subject, "ok": error.is_none(), "error": error })
            ),
            (false, None) => println!("ok     {subject}"),
            (false, Some(error)) => println!("WRONG  {subject}\n       {error}"),
        }
    }
    if !as_lines {
        println!("{} ok, {wrong} wrong", lines.len() - wrong);
    }
    if wrong == 0 { 0 } else { exit::FOUND }
}

/// Does something with a connection to the platform's broker.
pub(super) async fn with_link<T>(
    config: &Config,
    act: impl AsyncFnOnce(&Link) -> Result<T, BrokerError>,
) -> Result<T, BrokerError> {
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let link = Link::start("command", config.broker.clone(), stop.clone(), &tasks);
    let patience = first_contact(&config.broker);
    let result = match tokio::time::timeout(patience, link.live()).await {
        Ok(Some(_)) => act(&link).await,
        _ => Err(link.last_error().unwrap_or(BrokerError {
            code: crate::code::Code::BrokerUnreachable,
            what: format!("no connection to the broker within {} s", patience.as_secs()),
        })),
    };
    stop.cancel();
    tasks.close();
    let _ = tokio::time::timeout(Duration::from_secs(3), tasks.wait()).await;
    result
}
