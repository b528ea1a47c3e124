//! The files of a council's bridge: read as written ([`raw`]), compiled and checked as a whole ([`Project`]), and made
//! into what `run` carries out ([`Config`]).
//!
//! Nothing here touches the network. Every problem of all files is found at once, with its file, line and column.

pub mod batch;
mod bridge;
pub mod compile;
pub mod host_keys;
mod load;
pub mod plan;
mod proof;
pub mod raw;
pub mod schema;
pub mod secrets;
pub mod source;
pub mod statement;
pub mod units;

pub use bridge::receive_path;
pub use compile::{PROCESSING_DATE, TIERS, select};
pub use load::Project;

use crate::{
    event::schema::EventSchema,
    gate,
    mapping::Condition,
    template::{Scope, Template, TemplateFailed, Texts},
};
use plan::Bears;
use secrets::SecretRef;
use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

/// Everything `run` needs to know, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// The council's code: the last part of routing keys.
    pub council: String,
    /// The platform's broker.
    pub broker: Broker,
    /// The prefix of the bridge's queues and exchanges.
    pub prefix: String,
    /// Whether missing queues and exchanges are declared.
    pub declare: bool,
    /// Whether the platform's exchanges are declared too.
    pub declare_platform: bool,
    /// The broker's management interface.
    pub management: Option<String>,
    /// The local store.
    pub store: Store,
    /// Where requests are received.
    pub receiver: Option<Receiver>,
    /// Where health, readiness and metrics are answered.
    pub admin: Option<SocketAddr>,
    /// How long begun work goes on after SIGTERM.
    pub drain: Duration,
    /// The adapters in use.
    pub instances: Vec<Arc<Instance>>,
    /// The routes to systems.
    pub deliver: Vec<Arc<DeliverRoute>>,
    /// The routes from systems.
    pub collect: Vec<Arc<CollectRoute>>,
    /// The event schemas by type.
    pub schemas: Arc<HashMap<String, Arc<EventSchema>>>,
}

/// Something with a gate: a route, or a batch on its way into its system.
#[derive(Debug, Clone)]
pub struct Gated {
    /// `<instance>.<route>`, or `<instance>.<batch>`.
    pub id: String,
    /// The adapter in use.
    pub instance: String,
    /// Which way it goes.
    pub way: Way,
    /// What its gate is made of.
    pub settings: gate::Settings,
    /// When a person is told that something waits.
    pub tell_after: Duration,
}

/// Which way something goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// A route to the system.
    Deliver,
    /// A route from the system.
    Collect,
    /// A batch.
    Batch,
}

impl Config {
    /// The adapters in use and their mappings, with their digests: bridges on one store must read the same.
    pub fn digests(&self) -> BTreeMap<String, String> {
        let of = |instance: &Arc<Instance>| {
            let adapter = &instance.adapter;
            let mappings = adapter.mappings().into_iter();
            let mappings =
                mappings.map(|mapping| (format!("the mapping {}", mapping.name), mapping.digest.clone()));
            std::iter::once((format!("the adapter of {}", instance.name), adapter.digest.clone()))
                .chain(mappings)
                .collect::<Vec<_>>()
        };
        self.instances.iter().flat_map(of).collect()
    }

    /// Everything that has a gate.
    pub fn gated(&self) -> Vec<Gated> {
        let gated = |id: &str, instance: &Instance, way, settings: &gate::Settings, tell_after| Gated {
            id: id.to_owned(),
            instance: instance.name.clone(),
            way,
            settings: settings.clone(),
            tell_after,
        };
        let deliver = self
            .deliver
            .iter()
            .map(|route| gated(&route.id, &route.instance, Way::Deliver, &route.gate, route.tell_after));
        let collect = self
            .collect
            .iter()
            .map(|route| gated(&route.id, &route.instance, Way::Collect, &route.gate, route.tell_after));
        let batches = self.instances.iter().flat_map(|instance| {
            instance.adapter.batches.iter().map(move |batch| {
                let id = instance.feed(&batch.name);
                gated(&id, instance, Way::Batch, &instance.bears.gate(), instance.bears.tell_after)
            })
        });
        deliver.chain(collect).chain(batches).collect()
    }
}

/// How a broker is reached.
#[derive(Debug, Clone)]
pub struct Broker {
    /// Addresses of one cluster.
    pub addresses: Vec<Address>,
    /// The user; `guest` if none is said.
    pub username: Option<String>,
    /// The password.
    pub password: Option<SecretRef>,
    /// Certificates.
    pub tls: Tls,
    /// How long a connection may be silent.
    pub heartbeat: Duration,
    /// Whether the password may go to another machine unencrypted.
    pub allow_unencrypted_login: bool,
}

/// Certificates: files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// Authorities to trust.
    pub ca: Option<PathBuf>,
    /// Our certificate.
    pub certificate: Option<PathBuf>,
    /// Its key.
    pub key: Option<SecretRef>,
}

/// An address of a broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Whether over TLS.
    pub tls: bool,
    /// The host.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The virtual host.
    pub vhost: String,
}

/// The store.
#[derive(Debug, Clone)]
pub struct Store {
    /// The file; for a store on a server, where files that are under way lie beside.
    pub path: PathBuf,
    /// The server, if it is on one.
    pub server: Option<Arc<StoreServer>>,
    /// Bytes that may wait in the spool.
    pub spool_limit: u64,
    /// How long it is remembered what has been done.
    pub keep: Duration,
}

impl Store {
    /// The folder beside it for files that are under way: copies of what was taken, batches to be written.
    pub fn files(&self) -> PathBuf {
        self.path.with_extension("files")
    }

    /// Where it is, for people.
    pub fn place(&self) -> String {
        self.server.as_ref().map_or_else(|| self.path.display().to_string(), |server| server.to_string())
    }
}

/// A PostgreSQL with a store on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreServer {
    /// Hosts of one cluster, with their ports.
    pub hosts: Vec<(String, u16)>,
    /// The database.
    pub database: String,
    /// The schema within it.
    pub schema: String,
    /// The user.
    pub username: Option<String>,
    /// The password.
    pub password: Option<SecretRef>,
    /// Certificates; nothing means that the connection is not encrypted.
    pub tls: Option<Tls>,
}

impl std::fmt::Display for StoreServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let hosts: Vec<String> = self.hosts.iter().map(|(host, port)| format!("{host}:{port}")).collect();
        write!(f, "postgres://{}/{} (schema {})", hosts.join(","), self.database, self.schema)
    }
}

/// The HTTP receiver.
#[derive(Debug, Clone)]
pub struct Receiver {
    /// Where it listens.
    pub listen: SocketAddr,
    /// TLS, if any.
    pub tls: Option<Tls>,
    /// Requests under way at once.
    pub most_at_once: usize,
}

/// An adapter with a council's settings.
#[derive(Debug)]
pub struct Instance {
    /// The name under which the bridge knows it.
    pub name: String,
    /// The adapter.
    pub adapter: Arc<plan::Adapter>,
    /// Its settings; secret ones are not among them.
    pub settings: Texts,
    /// Where its secrets are to be had.
    pub secrets: BTreeMap<String, SecretRef>,
    /// The `source` of its events.
    pub source: String,
    /// What the system bears: what the bridge says, or else the adapter.
    pub bears: Bears,
    /// How its files are reached, if the bridge says so in place of the adapter.
    pub reached: Option<plan::Files>,
    /// The folder of `packhorse.toml`: where relative paths begin.
    pub folder: PathBuf,
}

/// A route to a system.
#[derive(Debug)]
pub struct DeliverRoute {
    /// `<instance>.<route>`
    pub id: String,
    /// Its queue.
    pub queue: String,
    /// The adapter in use.
    pub instance: Arc<Instance>,
    /// What it does.
    pub plan: Arc<plan::Deliver>,
    /// Which events it takes: what the adapter says and what the bridge adds.
    pub select: Vec<Condition>,
    /// Messages under way at once.
    pub concurrency: u32,
    /// How many messages a window holds.
    pub window: u32,
    /// What its gate is made of.
    pub gate: gate::Settings,
    /// When a person is told that a message waits.
    pub tell_after: Duration,
}

/// A route from a system.
#[derive(Debug)]
pub struct CollectRoute {
    /// `<instance>.<route>`
    pub id: String,
    /// The adapter in use.
    pub instance: Arc<Instance>,
    /// What it does.
    pub plan: Arc<plan::Collect>,
    /// Documents under way at once.
    pub concurrency: u32,
    /// What its gate is made of.
    pub gate: gate::Settings,
    /// When a person is told that a document waits.
    pub tell_after: Duration,
    /// How long it waits between looks (a poll: always the same) or questions (the last is repeated); else empty.
    pub pace: Vec<Duration>,
}

impl DeliverRoute {
    /// Whether the route takes an event with this data.
    pub fn takes(&self, data: &crate::tree::Tree) -> bool {
        self.select.iter().all(|condition| condition.test.holds(condition.path.find(data)))
    }
}

impl Instance {
    /// Whether it is counted how often or how many at once the system is called.
    pub fn is_limited(&self) -> bool {
        let Bears { most_at_once, per_minute, .. } = &self.bears;
        most_at_once.is_some() || per_minute.is_some() || !self.adapter.rates.is_empty()
    }

    /// How its files are reached.
    pub fn files<'a>(&'a self, by_adapter: &'a plan::Files) -> &'a plan::Files {
        self.reached.as_ref().unwrap_or(by_adapter)
    }

    /// A path of this machine as it is written: a relative one begins at the folder of `packhorse.toml`.
    pub fn path(&self, text: &str) -> PathBuf {
        self.folder.join(text)
    }

    /// A reference to a secret as it is written, a relative path of which begins there as well.
    pub fn reference(&self, text: &str) -> Option<SecretRef> {
        match SecretRef::parse(text)? {
            SecretRef::File(path) => Some(SecretRef::File(self.folder.join(path))),
            other @ (SecretRef::Environment(_) | SecretRef::Credential(_)) => Some(other),
        }
    }

    /// The name of a batch among all batches.
    pub fn feed(&self, batch: &str) -> String {
        format!("{}.{batch}", self.name)
    }

    /// Whether a login is used: always, or if the setting is given on which it depends.
    pub fn uses(&self, login: &plan::Login) -> bool {
        login.when_set.as_ref().is_none_or(|setting| {
            self.secrets.contains_key(setting)
                || self.settings.get(setting).is_some_and(|text| !text.is_empty())
        })
    }

    /// The text of a template that sees only the settings.
    ///
    /// # Errors
    /// What went wrong with it.
    pub fn render(&self, template: &Template) -> Result<String, TemplateFailed> {
        template.render(&Scope { settings: Some(&self.settings), ..Scope::default() })
    }
}

impl Address {
    /// Reads `amqp[s]://host[:port][/vhost]`.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(text: &str) -> Result<Address, String> {
        let (scheme, rest) =
            text.split_once("://").ok_or("an address begins with `amqp://` or `amqps://`")?;
        let tls = match scheme {
            "amqp" => false,
            "amqps" => true,
            _ => return Err("an address begins with `amqp://` or `amqps://`".to_owned()),
        };
        if rest.contains('@') {
            return Err(
                "user and password do not stand in the address; use `username` and `password`".to_owned()
            );
        }
        let (authority, vhost) = rest.split_once('/').unwrap_or((rest, ""));
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (host, port) =
                    rest.split_once(']').ok_or("the bracket of the IPv6 address is not closed")?;
                (host, port.strip_prefix(':'))
            }
            None => match authority.rsplit_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        if host.is_empty() {
            return Err("the address has no host".to_owned());
        }
        let port = match port {
            None if tls => 5671,
            None => 5672,
            Some(port) => port.parse().map_err(|_| "the port is not a number from 1 to 65535".to_owned())?,
        };
        let vhost = if vhost.is_empty() {
            "/".to_owned()
        } else {
            crate::template::percent_decode(vhost).ok_or("`%` in the vhost's name is not followed by two hexadecimal digits, or what it makes is not UTF-8")?
        };
        Ok(Address { tls, host: host.to_owned(), port, vhost })
    }

    /// Whether it is this machine.
    pub fn is_local(&self) -> bool {
        self.host == "localhost"
            || self.host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.tls { "amqps" } else { "amqp" };
        write!(f, "{scheme}://{}:{}/{}", self.host, self.port, crate::template::percent_encode(&self.vhost))
    }
}
