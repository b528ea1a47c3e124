//! An adapter file as written: how one kind of system is reached and what is exchanged with it.

use super::sql::{QueryKeys, SqlKeys, StatementKeys};
use crate::{format::Format, mapping::raw::ConditionKeys};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// An adapter: how one kind of system is reached and what is exchanged with it. Stands at `adapters/<name>.toml`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdapterFile {
    /// The version of this file format: 1.
    pub version: u32,
    /// The system's name, for people.
    pub title: String,
    /// What the system is, where its interface is described, what of it is uncertain.
    pub about: String,
    /// By whom or what it is judged that documents and events are right, other than by our own cases.
    pub judged_by: Option<String>,
    /// What of the system is deprecated, uncertain or not public, a point each.
    #[serde(default)]
    pub uncertain: Vec<String>,
    /// What a council has to set.
    #[serde(default)]
    pub settings: BTreeMap<String, SettingKeys>,
    /// The system is reached over HTTP. Exactly one of `http`, `amqp`, `folder`, `sftp` and `sql`.
    pub http: Option<HttpKeys>,
    /// The system is a broker, the council's own or another vhost.
    pub amqp: Option<AmqpKeys>,
    /// The system writes and reads files in a folder of this machine, or one that is mounted on it.
    pub folder: Option<super::files::FolderKeys>,
    /// The system's files are reached over SFTP.
    pub sftp: Option<super::files::SftpKeys>,
    /// The system is a database.
    pub sql: Option<SqlKeys>,
    /// The namespaces, by prefix, of all paths into documents in this file.
    #[serde(default)]
    pub namespaces: BTreeMap<String, String>,
    /// Values computed anew for each request, by templates; one may use another.
    #[serde(default)]
    pub values: BTreeMap<String, String>,
    /// Signatures that this adapter makes.
    #[serde(default)]
    pub sign: BTreeMap<String, SignKeys>,
    /// Signatures that this adapter checks on requests it receives.
    #[serde(default)]
    pub verify: BTreeMap<String, VerifyKeys>,
    /// How often the system may be called, by name: `15/s`, `100/m`. Requests name the rate they count under.
    #[serde(default)]
    pub rates: BTreeMap<String, String>,
    /// When the system is open. Default: always.
    pub hours: Option<super::hours::HoursKeys>,
    /// How many calls the system bears at once, all routes together (HTTP, SQL). Default: as many as its routes make.
    pub most_at_once: Option<u32>,
    /// How many calls it bears within any minute, all routes together (HTTP, SQL). Default: any number.
    pub per_minute: Option<u32>,
    /// How it is left alone when it is away.
    pub when_away: Option<super::hours::WhenAwayKeys>,
    /// When a person is told that a message waits for the system. Default: `1d`.
    pub tell_after: Option<String>,
    /// Batches that are written to files, by name. Routes join them with `[deliver.<route>.batch]`.
    #[serde(default)]
    pub batch: BTreeMap<String, super::batch::BatchKeys>,
    /// Routes from the platform to the system, by name.
    #[serde(default)]
    pub deliver: BTreeMap<String, DeliverKeys>,
    /// Routes from the system to the platform, by name.
    #[serde(default)]
    pub collect: BTreeMap<String, CollectKeys>,
}

/// A setting that a council gives in `packhorse.toml`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SettingKeys {
    /// What it is and where to find it.
    pub about: String,
    /// What counts if it is not given.
    pub default: Option<String>,
    /// It need not be given, and has no default: what uses it goes without.
    #[serde(default)]
    pub optional: bool,
    /// It is a secret: given as a reference, never shown, never seen by a template.
    #[serde(default)]
    pub secret: bool,
    /// An example.
    pub example: Option<String>,
}

/// A system over HTTP.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpKeys {
    /// What every path is added to; a template of `settings`.
    pub base_url: String,
    /// How we show who we are.
    pub login: Option<LoginKeys>,
    /// Headers of every request; templates.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Certificates; the paths are templates of `settings`.
    pub tls: Option<super::bridge::TlsKeys>,
    /// A proxy to go through; a template of `settings`. Empty: none.
    pub proxy: Option<String>,
    /// Where in its answers the system puts an error code of its own: shown with dead letters, so a code and never a text.
    pub error_code: Option<String>,
    /// How long making a connection may take. Default: `5s`.
    pub connect_timeout: Option<String>,
    /// How long a whole request may take. Default: `30s`.
    pub timeout: Option<String>,
    /// How large an answer may be. Default: `4 MiB`.
    pub answer_limit: Option<String>,
}

/// How we show who we are. Exactly one.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoginKeys {
    /// User and password (RFC 7617).
    pub basic: Option<BasicKeys>,
    /// A token: the name of a secret setting. `Authorization: Bearer …`.
    pub bearer: Option<String>,
    /// A header with a secret.
    pub header: Option<HeaderLoginKeys>,
    /// OAuth 2.0 client credentials (RFC 6749 s.4.4).
    pub oauth2: Option<Oauth2Keys>,
    /// Login by one of these only if this setting is given.
    pub when_set: Option<String>,
}

/// User and password.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BasicKeys {
    /// The user; a template of `settings`.
    pub username: String,
    /// The password: the name of a secret setting.
    pub password: String,
}

/// A header with a secret.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeaderLoginKeys {
    /// The header; a template of `settings`.
    pub name: String,
    /// Its value: the name of a secret setting.
    pub value: String,
}

/// OAuth 2.0 client credentials.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Oauth2Keys {
    /// Where tokens are given; a template of `settings`.
    pub token_url: String,
    /// The client; a template of `settings`.
    pub client_id: String,
    /// Its secret: the name of a secret setting.
    pub client_secret: String,
    /// How client and secret are shown to the login server. Default: `basic`.
    #[serde(default)]
    pub secret_in: SecretIn,
    /// The scope to ask for.
    pub scope: Option<String>,
}

/// Where an OAuth 2.0 client shows its secret (RFC 6749 s.2.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SecretIn {
    /// In the header, by HTTP Basic: every login server must take that.
    #[default]
    Basic,
    /// In the body, beside the grant: for login servers that take nothing else.
    Form,
}

/// A system that is a broker.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AmqpKeys {
    /// Its addresses, separated by spaces; a template of `settings`. Empty: the platform's broker and vhost.
    pub addresses: String,
    /// The user; a template of `settings`.
    pub username: Option<String>,
    /// The password: the name of a secret setting.
    pub password: Option<String>,
    /// Certificates; the paths are templates of `settings`.
    pub tls: Option<super::bridge::TlsKeys>,
    /// Send the password unencrypted to another machine: the name of a setting that must then be `yes`.
    pub allow_unencrypted_login: Option<String>,
}

/// A signature that we make.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SignKeys {
    /// What is signed: a template. One of `over` and `body`.
    pub over: Option<String>,
    /// The body is signed as sent. One of `over` and `body`.
    #[serde(default)]
    pub body: bool,
    /// The key: the name of a secret setting.
    pub key: String,
    /// How the key is written.
    #[serde(default)]
    pub key_encoding: KeyEncoding,
    /// The algorithm.
    #[serde(default)]
    pub algorithm: Algorithm,
    /// How the signature is written.
    #[serde(default)]
    pub output: Output,
    /// The header it goes into. Otherwise mappings and templates use it as a value of this name; not with `body`.
    pub header: Option<String>,
}

/// A signature that we check.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VerifyKeys {
    /// The header in which the signature stands.
    pub header: String,
    /// What the signature begins with in the header, such as `sha256=`.
    pub prefix: Option<String>,
    /// A moment that is signed together with the body. Without it, the raw body alone is signed.
    pub timestamp: Option<TimestampKeys>,
    /// The keys: names of secret settings, any of which may fit. Two while one is being changed.
    pub keys: Vec<String>,
    /// How the keys are written.
    #[serde(default)]
    pub key_encoding: KeyEncoding,
    /// The algorithm.
    #[serde(default)]
    pub algorithm: Algorithm,
    /// How the signature is written.
    #[serde(default)]
    pub output: Output,
}

/// A moment that is signed with the body, against replays.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TimestampKeys {
    /// The header in which it stands, in seconds since 1970 or RFC 3339.
    pub header: String,
    /// What stands between moment and body in the text that is signed. Default: `.`
    pub separator: Option<String>,
    /// How old or how far ahead it may be. Default: `5m`.
    pub window: Option<String>,
}

/// How a key is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum KeyEncoding {
    /// Its text is the key, as UTF-8.
    #[default]
    Text,
    /// Base64.
    Base64,
    /// Hexadecimal digits.
    Hex,
}

/// An algorithm for signatures.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// HMAC with SHA-256.
    #[default]
    HmacSha256,
    /// HMAC with SHA-512.
    HmacSha512,
    /// HMAC with SHA-1, for systems that know no other.
    HmacSha1,
}

/// How a signature is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Output {
    /// Small hexadecimal digits.
    #[default]
    Hex,
    /// Base64 with padding.
    Base64,
}

/// A route from the platform to the system.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeliverKeys {
    /// What it does, in a sentence.
    pub about: String,
    /// The type of the events it takes.
    pub event: String,
    /// Which of them: all conditions hold. Others are none of this route's business.
    #[serde(default)]
    pub select: Vec<ConditionKeys>,
    /// When its events are sent, where that differs from the system's own `hours`.
    pub hours: Option<super::hours::HoursKeys>,
    /// One request for each of these parts of the event, in order: `lines[]`. Each part is sent once, whatever becomes of
    /// the others; the mapping sees the event with that one part.
    pub each: Option<String>,
    /// The mapping that makes the document: `<system>/<document>`. Without one the event itself is sent.
    pub mapping: Option<String>,
    /// What sending brings about in the system.
    #[serde(default)]
    pub makes: Makes,
    /// What makes it safe to send the same again. Wanted wherever something is made.
    pub repeat: Option<Repeat>,
    /// The request (HTTP).
    pub request: Option<RequestKeys>,
    /// Where the message is published (AMQP).
    pub publish: Option<PublishKeys>,
    /// The statement that writes it (SQL).
    pub statement: Option<StatementKeys>,
    /// The batch that events join, to be written to a file together (files).
    pub batch: Option<super::batch::JoinKeys>,
    /// The file that is written for each event (files).
    pub write: Option<super::batch::WriteKeys>,
    /// A request made before the first attempt, some of whose answer is kept and used in every attempt.
    pub before: Option<BeforeKeys>,
    /// What answers mean, before the rules that hold for all systems. The first rule that fits counts.
    #[serde(default)]
    pub answers: Vec<AnswerKeys>,
    /// The format of answers. Needed where rules, replies or opened items look into them.
    pub answer_format: Option<Format>,
    /// The events made of an answer that means delivered.
    #[serde(default)]
    pub reply: Vec<EmitKeys>,
    /// What is remembered as open once it is delivered, for a `collect` route with `ask` to follow up.
    pub opens: Option<OpensKeys>,
    /// How to find out whether an earlier attempt was carried out.
    pub probe: Option<ProbeKeys>,
    /// How attempts are repeated.
    #[serde(default)]
    pub retry: RetryKeys,
    /// Keep messages of one subject in their order, through failures, dead letters, replays and restarts; those of other subjects
    /// go on. The subject is the field that the event's schema names by `x-subject`.
    pub order: Option<Order>,
    /// What is held behind a message that waits or was given up, on a route with `order`.
    pub held: Option<HeldKeys>,
    /// How many messages may be under way at once. Default: 1 over HTTP, since most systems want to be spared; over AMQP
    /// 4 windows.
    pub concurrency: Option<u32>,
    /// How many messages a window holds (AMQP). Default: 256.
    pub window: Option<u32>,
    /// Forms of events that are read beside the usual ones.
    #[serde(default)]
    pub accept: Vec<AcceptForm>,
}

/// What messages are kept in order by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// By what they are about.
    Subject,
}

/// What is held behind a message that waits or was given up.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeldKeys {
    /// How many messages of one subject may be held. Beyond that the route takes no more from its queue. Default: 10,000.
    pub most: Option<u32>,
    /// How many bytes may be held in all. Default: `256 MiB`.
    pub most_bytes: Option<String>,
    /// What the others of its subject do when a message is given up. Default: `wait`.
    #[serde(default)]
    pub when_dead: WhenDead,
}

/// What the others of its subject do when a message is given up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WhenDead {
    /// They wait until it has been replayed or discarded, or a person releases them.
    #[default]
    Wait,
    /// They go on without it.
    GoOn,
}

/// Forms of events that are accepted only where a route says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AcceptForm {
    /// Event attributes in headers without prefix, as Knative's RabbitMQ broker writes them.
    BareHeaders,
    /// A structured event under the content type `text/plain` or `application/json`, as Dapr writes it.
    UntypedJson,
}

/// What sending brings about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Makes {
    /// Nothing that lasts, or nothing that matters twice.
    #[default]
    Nothing,
    /// A payment, or a step of one: money may move.
    Payment,
    /// A posting: income is written to an account.
    Posting,
    /// A record.
    Record,
}

/// What makes it safe to send the same again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Repeat {
    /// The system honours a key of ours and does the same once.
    Key,
    /// The system's own lock refuses a second try, with an answer that a rule calls `guarded`.
    Guard,
    /// Ask first, by the probe; also before a refusal is believed, since systems have been seen to refuse what they had stored.
    Probe,
    /// A repeat has no effect until something else happens.
    Harmless,
    /// Nothing does: an attempt whose outcome is unknown goes before a person.
    Never,
}

/// A request over HTTP. Everything but the method is a template.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RequestKeys {
    /// The method: `GET`, `POST`, `PUT`, `PATCH`, `DELETE`.
    pub method: String,
    /// The path, added to `base_url`; what is inserted is percent-encoded. Or a whole URL of the same origin.
    pub path: String,
    /// Parameters of the query. One whose text is empty is left out.
    #[serde(default)]
    pub query: BTreeMap<String, String>,
    /// Headers.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The mapping that makes the body, where it is not the route's own.
    pub mapping: Option<String>,
    /// The rate it counts under.
    pub rate: Option<String>,
}

/// Where a message is published.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PublishKeys {
    /// The exchange; a template. Empty: the default exchange, by which a queue is reached under its own name.
    pub exchange: String,
    /// The routing key; a template.
    pub routing_key: String,
    /// Headers; templates.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
}

/// A request before the first attempt.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BeforeKeys {
    /// The request.
    pub request: RequestKeys,
    /// What answers mean, before the general rules.
    #[serde(default)]
    pub answers: Vec<AnswerKeys>,
    /// What is kept: names, and where in the answer they stand. Mappings read them with `cause`, templates as `cause.…`.
    pub keep: BTreeMap<String, String>,
}

/// What an answer means. All conditions hold; the first rule that fits counts.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AnswerKeys {
    /// The HTTP statuses: `404`, `5xx`. Any unless stated.
    #[serde(default)]
    pub status: Vec<String>,
    /// What stands in the answer.
    #[serde(default, rename = "where")]
    pub conditions: Vec<AnswerConditionKeys>,
    /// The conditions are about the entries of this list; the rule fits if one of them meets all: `rows[]`, or `[]` if the
    /// answer itself is a list.
    pub any: Option<String>,
    /// Whether there is a body at all.
    pub body: Option<BodyIs>,
    /// The SOAP fault code, without prefix. `*` for any.
    pub fault: Option<String>,
    /// What it means.
    pub then: Meaning,
    /// A sentence for the person who reads the dead letter.
    pub why: Option<String>,
}

/// A condition on an answer.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AnswerConditionKeys {
    /// The place in the answer.
    pub document: String,
    /// The value is one of these texts, which may be templates.
    pub is: Option<Vec<String>>,
    /// The value is none of these texts, or absent.
    pub not: Option<Vec<String>>,
    /// The value is there, or is not.
    pub present: Option<bool>,
}

/// Whether an answer has a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BodyIs {
    /// There is none.
    Empty,
    /// There is one.
    Present,
}

/// What an answer means.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Meaning {
    /// It was carried out.
    Delivered,
    /// It was not carried out; try again later.
    Retry,
    /// It was not carried out and never will be: a person must look.
    #[default]
    Dead,
    /// Nobody knows whether it was carried out.
    Unknown,
    /// The system's own lock refused it: something has changed since we looked.
    Guarded,
    /// To a probe: there is no such thing in the system.
    Absent,
}

/// What becomes of what a system said.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EmitKeys {
    /// When this holds; the first that fits counts. Conditions on the document.
    #[serde(default)]
    pub when: Vec<ConditionKeys>,
    /// With `compare`: when one of these has become of the record. Mappings read it with `cause = "change"`.
    #[serde(default)]
    pub change: Vec<super::pickup::Change>,
    /// The mapping that makes the event.
    pub mapping: Option<String>,
    /// One event for each of these parts of the document: `_embedded/refunds[]`.
    pub each: Option<String>,
    /// Only those of the parts for which this holds; the others ask for no event. Conditions on the part.
    #[serde(default)]
    pub each_when: Vec<ConditionKeys>,
    /// No event for what is open on a route of this adapter that asks: that route tells its end, and knows more of it.
    pub unless_open: Option<UnlessOpenKeys>,
    /// Nothing is published, and why that is right.
    pub ignore: Option<String>,
    /// Nothing is published yet: ask again (`ask` only).
    #[serde(default)]
    pub wait: bool,
    /// A person must look, and why.
    pub dead: Option<String>,
    /// What is remembered as open from here on, for a `collect` route with `ask`.
    pub opens: Option<OpensKeys>,
    /// What was sent in a batch that this is about: mappings read what was remembered of it with `cause`.
    pub about: Option<super::batch::AboutKeys>,
    /// Look on: the rules after this one count as well.
    #[serde(default)]
    pub also: bool,
}

/// Something that may be open already.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UnlessOpenKeys {
    /// The `collect` route of this adapter that asks.
    pub route: String,
    /// What it would be asked by: a template of `document`, which is the part that `each` names.
    pub key: String,
}

/// Something that is open in the system and has to be asked about until it is settled.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OpensKeys {
    /// The `collect` route of this adapter that asks.
    pub route: String,
    /// What it is asked by: a template of `document` (the answer) and `event`.
    pub key: String,
    /// What no second one may be opened for while this one is open: a template. A further event with the same is held
    /// until this one is settled.
    pub one_per: Option<String>,
    /// Types of events after which none is opened again for the same: `payment.succeeded.v1`.
    #[serde(default)]
    pub not_after: Vec<String>,
    /// What is kept: names and templates.
    #[serde(default)]
    pub keep: BTreeMap<String, String>,
    /// Keep the event's data as well, under `event`.
    #[serde(default)]
    pub keep_event: bool,
}

/// How to find out whether an earlier attempt was carried out.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProbeKeys {
    /// The request. One of `request` and `statement`.
    pub request: Option<RequestKeys>,
    /// The file with a query, in the adapter's folder (SQL): if it finds a row, the document was written. Its parameters are
    /// the document's fields. One of `request` and `statement`.
    pub statement: Option<String>,
    /// What answers to the request mean: `delivered`, `absent`, `unknown`, `retry` or `dead`. The first that fits counts; what
    /// none fits is unknown.
    #[serde(default)]
    pub answers: Vec<AnswerKeys>,
    /// The format of the answer to the request.
    pub format: Option<Format>,
    /// How long after the attempt "there is no such thing" is not yet to be believed. Default: `0s`.
    pub settle: Option<String>,
    /// How long asking may fail, or answer what no rule explains, before the message becomes a dead letter in doubt and a
    /// person looks in the system. Counted from the request in doubt. Default: `1h`.
    pub patience: Option<String>,
}

/// How attempts are repeated.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RetryKeys {
    /// How often it is tried again at once, within the first seconds, before the message waits in a retry queue. Default: 2.
    pub at_once: Option<u32>,
    /// How long it waits between further attempts, from the tiers `5s`, `30s`, `2m`, `10m`, `1h`, `6h`; the last is
    /// repeated. Default: all of them.
    pub waits: Option<Vec<String>>,
    /// How long after the first failure it is given up and becomes a dead letter. Default: `3d`.
    pub give_up: Option<String>,
}

/// A route from the system to the platform. Exactly one of `receive`, `poll`, `ask`, `consume`, `pickup` and `query` says how
/// it comes.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CollectKeys {
    /// What it does, in a sentence.
    pub about: String,
    /// The system calls us.
    pub receive: Option<ReceiveKeys>,
    /// We look from time to time what is new.
    pub poll: Option<PollKeys>,
    /// We ask about each open item until it is settled.
    pub ask: Option<AskKeys>,
    /// We consume a queue.
    pub consume: Option<ConsumeKeys>,
    /// We pick up files.
    pub pickup: Option<super::pickup::PickupKeys>,
    /// When it is looked for, where that differs from the system's own `hours`.
    pub hours: Option<super::hours::HoursKeys>,
    /// What we pick up is a whole extract, or what a query gives is everything there is, and it is compared with the last one.
    pub compare: Option<super::pickup::CompareKeys>,
    /// We ask a database from time to time.
    pub query: Option<QueryKeys>,
    /// The format of what comes.
    pub format: Format,
    /// The layout of what comes, by its name in `mappings/layouts/`: how a file is split into records.
    pub layout: Option<String>,
    /// What makes two of them the same: a template of `document`. Without it, the bytes.
    pub key: Option<String>,
    /// What comes is only a wake-up: the truth is fetched by this request, and its answer is the document.
    #[serde(default)]
    pub fetch: Vec<FetchKeys>,
    /// What becomes of the document. The first rule that fits counts.
    pub events: Vec<EmitKeys>,
    /// The system writes these payments to the council's income system by a route of its own: an event that this route
    /// makes must never be posted by another. `check` proves it.
    #[serde(default)]
    pub already_posted: bool,
    /// How attempts are repeated.
    #[serde(default)]
    pub retry: RetryKeys,
    /// How many messages may be under way at once. Default: 4.
    pub concurrency: Option<u32>,
}

/// The system calls us.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReceiveKeys {
    /// The path at which we are called. Default: `/<adapter>/<route>`.
    pub path: Option<String>,
    /// The method. Default: `POST`.
    pub method: Option<String>,
    /// The signature to check: a name under `[verify]`. Without one, or `login`, anybody could call.
    pub verify: Option<String>,
    /// Who may call.
    pub login: Option<LoginKeys>,
    /// How large a request may be. Default: `1 MiB`.
    pub limit: Option<String>,
}

/// We look from time to time what is new.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PollKeys {
    /// How often.
    pub every: String,
    /// The request; templates see `cursor.from`, `cursor.to`, `cursor.last` and `page`.
    pub request: RequestKeys,
    /// What answers mean, before the general rules. `absent`: there is nothing (more).
    #[serde(default)]
    pub answers: Vec<AnswerKeys>,
    /// The entries of the answer: `results[]`.
    pub split: String,
    /// Where in the answer the link to the next page stands.
    pub next: Option<String>,
    /// Pages are numbered from 1 in `page`, until one is empty.
    #[serde(default)]
    pub pages: bool,
    /// Look through time, a window after the other.
    pub window: Option<WindowKeys>,
    /// Look from the last value of this place in the entries on.
    pub cursor: Option<CursorKeys>,
}

/// A window of time.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WindowKeys {
    /// How far behind the present the window ends: when everything before is settled.
    pub lag: Option<String>,
    /// How far the window reaches back into the one before, for late comers.
    pub overlap: Option<String>,
    /// How far the very first window reaches back.
    pub first: Option<String>,
    /// How `cursor.from` and `cursor.to` are written. Default: RFC 3339 in whole seconds; `%Y-%m-%d` for days.
    pub pattern: Option<String>,
}

/// A value that rises from entry to entry.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CursorKeys {
    /// Where it stands in an entry.
    pub document: String,
    /// What it begins with.
    pub first: String,
}

/// We ask about open items.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AskKeys {
    /// When it is asked after it was opened, and then again; the last is repeated: `["15s", "1m", "5m"]`.
    pub waits: Vec<String>,
    /// When a person is told that it is still open.
    pub give_up: String,
    /// The request; templates see `item.key` and `cause.…`.
    pub request: RequestKeys,
    /// What answers mean, before the general rules.
    #[serde(default)]
    pub answers: Vec<AnswerKeys>,
}

/// We consume a queue.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConsumeKeys {
    /// The queue; a template of `settings`.
    pub queue: String,
    /// The messages are events already: they are checked and passed on as they are.
    #[serde(default)]
    pub events: bool,
}

/// A request for the truth.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FetchKeys {
    /// When this is fetched; the first that fits counts. Conditions on the document.
    #[serde(default)]
    pub when: Vec<ConditionKeys>,
    /// The request; templates see `document`.
    pub request: RequestKeys,
    /// What answers mean, before the general rules.
    #[serde(default)]
    pub answers: Vec<AnswerKeys>,
    /// The format of the answer, if not that of the document.
    pub format: Option<Format>,
}
