//! `packhorse.toml` as written: one council's bridge.

use crate::mapping::raw::ConditionKeys;
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;

/// The settings of one council's bridge: `packhorse.toml`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BridgeFile {
    /// The version of this file format: 1.
    pub version: u32,
    /// The council's code on the platform: the last part of routing keys. Small letters, digits and hyphens.
    pub council: String,
    /// What the `source` of the bridge's events begins with; the adapter's name is added. Default: `urn:packhorse:<council>`.
    pub source: Option<String>,
    /// The folder with the adapters, relative to this file. Default: `adapters`.
    pub adapters_folder: Option<String>,
    /// The folder with the mappings, event schemas and code lists, relative to this file. Default: `mappings`.
    pub mappings_folder: Option<String>,
    /// A folder with the council's own code lists, relative to this file. A list here counts before one of the same name
    /// in `mappings/codes/`.
    pub codes_folder: Option<String>,
    /// The platform's broker.
    pub broker: BrokerKeys,
    /// The store: spool, journal, account.
    #[serde(default)]
    pub store: StoreKeys,
    /// Where requests of systems are received (webhooks and the like).
    pub receiver: Option<ReceiverKeys>,
    /// Where health, readiness and metrics are answered.
    #[serde(default)]
    pub admin: AdminKeys,
    /// How long `run` goes on with what it has begun after SIGTERM, before it gives the rest back. Default: `20s`.
    pub drain: Option<String>,
    /// The adapters that this bridge runs, by the names under which it knows them.
    #[serde(default)]
    pub adapters: BTreeMap<String, AdapterUse>,
}

/// How the broker is reached.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BrokerKeys {
    /// One or more addresses of one cluster, tried in turn: `amqps://broker.example.gov.uk:5671/vhost`. Without user and
    /// password. In the vhost's name `/` is written `%2f`.
    pub addresses: Vec<String>,
    /// The user. Without user and password, but with a certificate under `tls`, the certificate is the login (EXTERNAL).
    pub username: Option<String>,
    /// The password, as a reference: `env:NAME`, `file:/path` or `cred:name`.
    pub password: Option<String>,
    /// TLS beyond what the addresses say.
    pub tls: Option<TlsKeys>,
    /// Send the password over an unencrypted connection to another machine. Say it twice, here and by the address
    /// beginning `amqp://`, or it is refused.
    #[serde(default)]
    pub allow_unencrypted_login: bool,
    /// The management interface, with which `topology verify` and `doctor` see effective queue arguments and policies:
    /// `https://broker.example.gov.uk:15671`.
    pub management: Option<String>,
    /// Declare queues and exchanges at the start. Without it they must be there: `packhorse topology export` makes a
    /// definitions file for the broker's administrator. Default: true.
    pub declare: Option<bool>,
    /// Also declare the platform's two exchanges if they are missing, which are the platform's to declare. For trying out.
    #[serde(default)]
    pub declare_platform: bool,
    /// The prefix of the bridge's own queues and exchanges. Default: `packhorse`.
    pub prefix: Option<String>,
    /// How long a connection may be silent before it counts as broken. Default: `15s`.
    pub heartbeat: Option<String>,
}

/// Certificates.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsKeys {
    /// A PEM file with the authorities to trust, beside the machine's own.
    pub ca: Option<String>,
    /// A PEM file with our certificate, for mutual TLS.
    pub certificate: Option<String>,
    /// A PEM file with the key of our certificate (PKCS#8), as a reference: `file:/path` or `cred:name`.
    pub key: Option<String>,
}

/// The store: a file of the bridge's own, or a PostgreSQL that several bridges share.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StoreKeys {
    /// The file, relative to `packhorse.toml`. Default: `var/packhorse.db`. Files that are under way lie beside it, also when the
    /// store is on a server.
    pub path: Option<String>,
    /// A PostgreSQL in place of the file: `postgres://user@db.example.gov.uk/packhorse`, without password. Several hosts of one
    /// cluster are named with commas: the one that may be written is found.
    pub url: Option<String>,
    /// The password there, as a reference: `env:NAME`, `file:/path` or `cred:name`.
    pub password: Option<String>,
    /// The schema of this council's store there, so that several councils may share a database. Default: `packhorse_<council>`, with
    /// `_` for `-`.
    pub schema: Option<String>,
    /// Certificates for the connection there. Another machine is always reached over TLS.
    pub tls: Option<TlsKeys>,
    /// Go to a server on another machine unencrypted.
    #[serde(default)]
    pub allow_unencrypted_login: bool,
    /// How much may wait in the spool before sources are told "not now". Default: `1 GiB`.
    pub spool_limit: Option<String>,
    /// How long it is remembered what has been done, so that it is not done twice. Default: `90d`.
    pub keep: Option<String>,
}

/// The HTTP receiver.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReceiverKeys {
    /// The address to listen at: `127.0.0.1:8080`.
    pub listen: String,
    /// TLS: our certificate and key; with `ca`, only clients with a certificate of that authority are let in.
    pub tls: Option<TlsKeys>,
    /// How many requests may be under way at once; more are told 503. Default: 256.
    pub most_at_once: Option<u32>,
}

/// Health, readiness and metrics.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdminKeys {
    /// The address to listen at. Default: `127.0.0.1:9464`. `off` for none.
    pub listen: Option<String>,
}

/// An adapter in use.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdapterUse {
    /// The adapter's file in the adapters' folder, without `.toml`. Default: the name under which it is used here.
    pub adapter: Option<String>,
    /// The settings that the adapter asks for. Secret ones are references: `env:NAME`, `file:/path` or `cred:name`.
    #[serde(default)]
    #[schemars(schema_with = "setting_values")]
    pub settings: BTreeMap<String, toml::Value>,
    /// Send keys and passwords to the system over `http://` to another machine. Say it twice, here and by the address, or
    /// it is refused.
    #[serde(default)]
    pub allow_unencrypted_login: bool,
    /// When the system is open, instead of what the adapter says.
    pub hours: Option<super::hours::HoursKeys>,
    /// How many calls the system bears at once, instead of what the adapter says.
    pub most_at_once: Option<u32>,
    /// How many calls it bears within any minute, instead of what the adapter says.
    pub per_minute: Option<u32>,
    /// How it is left alone when it is away, instead of what the adapter says.
    pub when_away: Option<super::hours::WhenAwayKeys>,
    /// When a person is told that a message waits for the system, instead of what the adapter says.
    pub tell_after: Option<String>,
    /// The files of an adapter with `[folder]` lie on this SFTP server; its folder is then one of the server's.
    pub sftp: Option<SftpUse>,
    /// What this bridge does otherwise with single routes.
    #[serde(default)]
    pub routes: BTreeMap<String, RouteUse>,
}

/// An SFTP server on which the files of an adapter lie.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SftpUse {
    /// `host` or `host:port`.
    pub address: String,
    /// The user.
    pub username: String,
    /// The private key, ed25519 or ECDSA: a reference, `file:/path` for example. One of `key` and `password`, or both.
    pub key: Option<String>,
    /// The password: a reference.
    pub password: Option<String>,
    /// The SHA-256 fingerprints of its host keys, as `ssh-keygen -lf` prints them: `SHA256:…`. Several while one is being changed.
    pub host_keys: Vec<String>,
}

/// What a bridge does otherwise with a route.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteUse {
    /// Whether the route runs. Default: true.
    pub enabled: Option<bool>,
    /// Which events the route takes, beside what the adapter says itself.
    #[serde(default)]
    pub select: Vec<ConditionKeys>,
    /// When the system is open to this route, instead of what the adapter says.
    pub hours: Option<super::hours::HoursKeys>,
    /// When a person is told that a message waits, instead of what the adapter says.
    pub tell_after: Option<String>,
    /// How many messages may be under way at once.
    pub concurrency: Option<u32>,
    /// For a route that polls: how often it looks, instead of what the adapter says.
    pub every: Option<String>,
    /// For a route that asks: how long it waits between questions, instead of what the adapter says; the last is repeated.
    pub waits: Option<Vec<String>>,
}

/// Settings are written as text, whole number or truth value; adapters see them as text.
fn setting_values(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "object", "additionalProperties": { "type": ["string", "integer", "boolean"] } })
}
