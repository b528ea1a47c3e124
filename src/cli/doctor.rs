//! `packhorse doctor`: is everything reachable, trusted, permitted and in date?

use super::{exit, topology};
use crate::{
    broker::{greet, topology::Topology},
    code::Code,
    config::{
        Config,
        plan::{Database, PickupThen, Source, SystemPlan},
        secrets::SecretRef,
    },
    store::{Opener, Store},
    system::{AmqpSystem, FileSystem, HttpSystem, SqlSystem, files::Need, management},
};
use clap::Args;
use jiff::Timestamp;
use std::path::Path;
use x509_parser::pem::Pem;

/// Examine everything that `run` will need.
#[derive(Debug, Args)]
pub struct Doctor {
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
}

/// How far clocks may differ before somebody is told.
const CLOCK: i64 = 30;
/// How long before its end a certificate is told of.
const SOON: i64 = 30 * 86_400;

type Line = (String, Option<String>);

impl Doctor {
    /// Runs it.
    pub fn run(&self, path: &Path) -> u8 {
        match super::configuration(path) {
            Ok((_, config)) => examine(&config, self.json),
            Err(code) => code,
        }
    }
}

/// Examines everything; exit code 1 if anything is wrong.
pub fn examine(config: &Config, as_lines: bool) -> u8 {
    let examined = super::block_on(async {
        let mut lines = secrets(config);
        lines.extend(certificates(config));
        lines.push(store(config));
        lines.extend(broker(config).await);
        lines.extend(systems(config).await);
        lines
    });
    match examined {
        Ok(lines) => topology::tell(lines, as_lines),
        Err(_) => exit::UNAVAILABLE,
    }
}

fn secrets(config: &Config) -> Vec<Line> {
    let mut wanted: Vec<(String, SecretRef)> = Vec::new();
    wanted.extend(config.broker.password.clone().map(|reference| ("broker".to_owned(), reference)));
    wanted.extend(config.broker.tls.key.clone().map(|reference| ("broker TLS key".to_owned(), reference)));
    let receiver = config.receiver.as_ref().and_then(|receiver| receiver.tls.as_ref()?.key.clone());
    wanted.extend(receiver.map(|reference| ("receiver TLS key".to_owned(), reference)));
    for instance in &config.instances {
        wanted.extend(
            instance
                .secrets
                .iter()
                .map(|(name, reference)| (format!("{} {name}", instance.name), reference.clone())),
        );
    }
    wanted
        .into_iter()
        .map(|(name, reference)| {
            let error = reference.resolve().err().map(|no| format!("{}: {}", no.code, no.what));
            (format!("secret {name} ({reference})"), error)
        })
        .collect()
}

/// Every certificate file that the settings name, by its dates.
fn certificates(config: &Config) -> Vec<Line> {
    let mut files = vec![config.broker.tls.ca.clone(), config.broker.tls.certificate.clone()];
    if let Some(tls) = config.receiver.as_ref().and_then(|receiver| receiver.tls.as_ref()) {
        files.extend([tls.ca.clone(), tls.certificate.clone()]);
    }
    for instance in &config.instances {
        let tls = match &instance.adapter.system {
            SystemPlan::Http(http) => http.tls.as_ref(),
            SystemPlan::Amqp(amqp) => amqp.tls.as_ref(),
            SystemPlan::Files(_) => None,
            SystemPlan::Sql(sql) => match &sql.database {
                Database::Postgres(postgres) => postgres.tls.as_ref(),
                Database::Odbc { .. } => None,
            },
        };
        for template in tls.into_iter().flat_map(|tls| [&tls.ca, &tls.certificate]).flatten() {
            files.push(instance.render(template).ok().filter(|path| !path.is_empty()).map(Into::into));
        }
    }
    let mut files: Vec<_> = files.into_iter().flatten().collect();
    files.sort();
    files.dedup();
    files
        .into_iter()
        .map(|path| {
            let error = match std::fs::read(&path) {
                Err(error) => Some(format!("{}: {error}", Code::TlsFailed)),
                Ok(bytes) => dates(&bytes),
            };
            (format!("certificate {}", path.display()), error)
        })
        .collect()
}

fn dates(pem: &[u8]) -> Option<String> {
    let now = Timestamp::now().as_second();
    let mut any = false;
    for block in Pem::iter_from_buffer(pem).flatten() {
        let Ok(certificate) = block.parse_x509() else { continue };
        any = true;
        let validity = certificate.validity();
        let (from, to) = (validity.not_before.timestamp(), validity.not_after.timestamp());
        let day = |second: i64| Timestamp::from_second(second).map(|at| at.to_string()).unwrap_or_default();
        if now < from {
            return Some(format!("{}: valid only from {}", Code::TlsFailed, day(from)));
        }
        if now > to {
            return Some(format!("{}: expired at {}", Code::TlsFailed, day(to)));
        }
        if to - now < SOON {
            return Some(format!(
                "{}: expires at {}, in {} days",
                Code::TlsFailed,
                day(to),
                (to - now) / 86_400
            ));
        }
    }
    (!any).then(|| format!("{}: the file holds no certificate", Code::TlsFailed))
}

fn store(config: &Config) -> Line {
    let opened = Store::of(&config.store, Opener::Command);
    let error = opened.err().map(|error| error.to_string());
    (format!("store {}", config.store.place()), error)
}

async fn broker(config: &Config) -> Vec<Line> {
    let mut lines = Vec::new();
    for address in &config.broker.addresses {
        let (subject, error) = match greet(&config.broker, address).await {
            Ok(greeting) => {
                let old = greeting.is_too_old();
                let error = old.then(|| {
                    format!("{}: at-least-once dead-lettering needs RabbitMQ 3.10", Code::BrokerTooOld)
                });
                (format!("broker {address}: {} {}", greeting.product, greeting.version), error)
            }
            Err(error) => (format!("broker {address}"), Some(error.to_string())),
        };
        lines.push((subject, error));
    }
    let wanted = Topology::of(config);
    let examined = topology::with_link(config, async |link| {
        let mut findings = wanted.verify(link, config.declare).await?;
        findings.extend(wanted.permissions(link).await?);
        Ok(findings)
    });
    match examined.await {
        Err(error) => lines.push(("broker login".to_owned(), Some(error.to_string()))),
        Ok(findings) => {
            lines.push(("broker login".to_owned(), None));
            lines.extend(
                findings
                    .into_iter()
                    .map(|finding| (finding.subject, finding.error.map(|error| error.to_string()))),
            );
        }
    }
    match management::effective(config, &wanted).await {
        None => {}
        Some(Ok(found)) => lines.extend(found),
        Some(Err(failure)) => lines
            .push(("management interface".to_owned(), Some(format!("{}: {}", failure.code, failure.what)))),
    }
    lines
}

/// What the routes of an instance do with its files.
fn needed(config: &Config, instance: &str) -> Need {
    let delivers = config.deliver.iter().any(|route| route.instance.name == instance);
    let moves = config.collect.iter().filter(|route| route.instance.name == instance).any(|route| {
        matches!(&route.plan.source, Source::Pickup(pickup) if !matches!(pickup.then, PickupThen::Leave))
    });
    match delivers || moves {
        true => Need::Write,
        false => Need::Read,
    }
}

async fn systems(config: &Config) -> Vec<Line> {
    let mut lines = Vec::new();
    for instance in &config.instances {
        match &instance.adapter.system {
            SystemPlan::Http(plan) => {
                let subject = format!("system {}", instance.name);
                let reached = match HttpSystem::open(instance.clone(), plan) {
                    Ok(system) => system.reach().await,
                    Err(failure) => Err(failure),
                };
                match reached {
                    Err(failure) => {
                        lines.push((subject, Some(format!("{}: {}", failure.code, failure.what))))
                    }
                    Ok(reached) => {
                        lines.push((format!("{subject}: answers {}", reached.status), None));
                        if let Some(skew) = reached.clock_ahead.filter(|skew| skew.abs() > CLOCK) {
                            let what = format!(
                                "{}: its clock and ours differ by {} s",
                                Code::ClockWrong,
                                skew.abs()
                            );
                            lines.push((format!("clock of {}", instance.name), Some(what)));
                        }
                    }
                }
            }
            SystemPlan::Amqp(plan) => {
                let subject = format!("system {}", instance.name);
                let error = match AmqpSystem::try_out(instance, plan, config).await {
                    Ok(()) => None,
                    Err(failure) => Some(format!("{}: {}", failure.code, failure.what)),
                };
                lines.push((subject, error));
            }
            SystemPlan::Files(plan) => {
                let subject = format!("system {}", instance.name);
                let checked = match FileSystem::open(instance, instance.files(plan)) {
                    Ok(system) => system.check(needed(config, &instance.name)).await,
                    Err(failure) => Err(failure),
                };
                lines.push(match checked {
                    Ok(what) => (format!("{subject}: {what}"), None),
                    Err(failure) => (subject, Some(format!("{}: {}", failure.code, failure.what))),
                });
            }
            SystemPlan::Sql(plan) => match SqlSystem::open(instance.clone(), plan) {
                Err(failure) => lines.push((
                    format!("system {}", instance.name),
                    Some(format!("{}: {}", failure.code, failure.what)),
                )),
                Ok(system) => lines.extend(system.examine().await.into_iter().map(|(subject, wrong)| {
                    (subject, wrong.map(|failure| format!("{}: {}", failure.code, failure.what)))
                })),
            },
        }
    }
    lines
}
