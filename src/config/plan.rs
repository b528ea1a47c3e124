//! Adapters compiled: every template, path, condition and mapping of an adapter file, ready to be carried out.
//!
//! A plan holds nothing of a council; an [`super::Instance`] is a plan with a council's settings.

use super::{
    raw::{
        adapter::{Algorithm, BodyIs, KeyEncoding, Makes, Meaning, Output, Repeat, SecretIn},
        pickup::Change,
        sql::{CursorKind, DuplicateIs},
    },
    statement::Statement,
};
use crate::{
    event::{Accept, schema::EventSchema},
    format::{Format, Layout, Namespaces},
    gate::{Hours, Settings},
    mapping::{Condition, Mapping, path::Path},
    template::Template,
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// An adapter file, compiled.
#[derive(Debug)]
pub struct Adapter {
    /// The file's name without `.toml`.
    pub name: String,
    /// The system's name, for people.
    pub title: String,
    /// What it is.
    pub about: String,
    /// By whom or what it is judged.
    pub judged_by: Option<String>,
    /// What of it is uncertain.
    pub uncertain: Vec<String>,
    /// Its settings.
    pub settings: BTreeMap<String, super::raw::adapter::SettingKeys>,
    /// How the system is reached.
    pub system: SystemPlan,
    /// The values computed for each request, each after those it uses.
    pub values: Vec<(String, Computed)>,
    /// Signatures of bodies, put into headers.
    pub body_signs: Vec<(String, Sign)>,
    /// Signatures to check, by name.
    pub verify: BTreeMap<String, Verify>,
    /// Rates, by name: so many within a time.
    pub rates: BTreeMap<String, (u32, Duration)>,
    /// What the system bears.
    pub bears: Bears,
    /// Batches that become files.
    pub batches: Vec<Arc<super::batch::Batch>>,
    /// Routes to the system.
    pub deliver: Vec<Arc<Deliver>>,
    /// Routes from the system.
    pub collect: Vec<Arc<Collect>>,
    /// The digest of the file.
    pub digest: String,
}

/// What a system bears, unless the bridge says otherwise.
#[derive(Debug, Clone)]
pub struct Bears {
    /// When it is open; always, if nothing is said.
    pub hours: Option<Hours>,
    /// How many calls at once.
    pub most_at_once: Option<u32>,
    /// How many calls within any minute.
    pub per_minute: Option<u32>,
    /// How long it is left alone when it is found to be away; each further time twice as long.
    pub first_pause: Duration,
    /// But never longer than this.
    pub longest_pause: Duration,
    /// When a person is told that something waits.
    pub tell_after: Duration,
}

impl Bears {
    /// What the gate of something is made of that only the system's own hours shut.
    pub fn gate(&self) -> Settings {
        Settings { hours: self.hours.clone(), first: self.first_pause, most: self.longest_pause }
    }
}

/// How a system is reached.
#[derive(Debug)]
pub enum SystemPlan {
    /// Over HTTP.
    Http(Box<Http>),
    /// It is a broker.
    Amqp(Box<Amqp>),
    /// By files.
    Files(Box<Files>),
    /// It is a database.
    Sql(Box<Sql>),
}

/// A system that is a database.
#[derive(Debug)]
pub struct Sql {
    /// Where it is, and how it is spoken to.
    pub database: Database,
    /// Whether statements may write.
    pub write: bool,
    /// For making a connection.
    pub connect_timeout: Duration,
    /// For a statement, or the next rows of a query.
    pub timeout: Duration,
    /// For waiting for somebody else's lock.
    pub lock_timeout: Duration,
    /// Bytes of a row.
    pub row_limit: u64,
}

/// Where a database is, and how it is spoken to. Secrets are named, not held.
#[derive(Debug)]
pub enum Database {
    /// PostgreSQL.
    Postgres(Box<Postgres>),
    /// By a driver: the connection string, and the password's secret setting.
    Odbc { connection: Template, password: Option<String> },
}

/// Where a PostgreSQL is.
#[derive(Debug)]
pub struct Postgres {
    /// Host and port, or a socket's folder.
    pub address: Template,
    /// The database's name.
    pub name: Template,
    /// The user.
    pub username: Option<Template>,
    /// The password's secret setting.
    pub password: Option<String>,
    /// Certificates.
    pub tls: Option<Tls>,
    /// The setting that must be `yes` to go to another machine unencrypted.
    pub allow_unencrypted_login: Option<String>,
}

/// A system over HTTP.
#[derive(Debug)]
pub struct Http {
    /// What paths are added to.
    pub base_url: Template,
    /// How we show who we are.
    pub login: Option<Login>,
    /// Headers of every request.
    pub headers: Vec<(String, Template)>,
    /// Certificates.
    pub tls: Option<Tls>,
    /// A proxy.
    pub proxy: Option<Template>,
    /// Where the system puts an error code of its own.
    pub error_code: Option<Path>,
    /// For making a connection.
    pub connect_timeout: Duration,
    /// For a whole request.
    pub timeout: Duration,
    /// Bytes of an answer.
    pub answer_limit: u64,
}

/// Certificates; paths are templates of settings.
#[derive(Debug, Clone)]
pub struct Tls {
    /// Authorities to trust.
    pub ca: Option<Template>,
    /// Our certificate.
    pub certificate: Option<Template>,
    /// Its key: a reference.
    pub key: Option<Template>,
}

/// How somebody shows who they are.
#[derive(Debug, Clone)]
pub struct Login {
    /// In which way.
    pub how: LoginKind,
    /// Only if this setting is given.
    pub when_set: Option<String>,
}

/// Ways to show who one is. Secrets are named, not held.
#[derive(Debug, Clone)]
pub enum LoginKind {
    /// User and password.
    Basic { username: Template, password: String },
    /// A token.
    Bearer { token: String },
    /// A header.
    Header { name: Template, value: String },
    /// OAuth 2.0 client credentials.
    Oauth2 {
        token_url: Template,
        client_id: Template,
        client_secret: String,
        secret_in: SecretIn,
        scope: Option<String>,
    },
}

/// A system that is a broker.
#[derive(Debug)]
pub struct Amqp {
    /// Addresses, separated by spaces; empty for the platform's broker.
    pub addresses: Template,
    /// The user.
    pub username: Option<Template>,
    /// The password's secret setting.
    pub password: Option<String>,
    /// Certificates.
    pub tls: Option<Tls>,
    /// The setting that must be `yes` to log in unencrypted.
    pub allow_unencrypted_login: Option<String>,
}

/// A system that is reached by files.
#[derive(Debug)]
pub enum Files {
    /// In a folder of this machine.
    Folder(Folder),
    /// Over SFTP.
    Sftp(Sftp),
}

/// Files in a folder of this machine.
#[derive(Debug)]
pub struct Folder {
    /// The folder.
    pub path: Template,
    /// For a single operation.
    pub timeout: Duration,
    /// For copying a whole file.
    pub transfer_timeout: Duration,
}

/// Files over SFTP.
#[derive(Debug)]
pub struct Sftp {
    /// `host` or `host:port`.
    pub address: Template,
    /// The user.
    pub username: Template,
    /// The private key's secret setting.
    pub key: Option<String>,
    /// The password's secret setting.
    pub password: Option<String>,
    /// Fingerprints of the host keys, separated by spaces.
    pub host_keys: Template,
    /// The folder on the server; that of the login if there is none.
    pub folder: Option<Template>,
    /// For connecting.
    pub connect_timeout: Duration,
    /// For a single answer.
    pub timeout: Duration,
    /// For copying a whole file.
    pub transfer_timeout: Duration,
}

/// A value computed for each request.
#[derive(Debug)]
pub enum Computed {
    /// By a template.
    Text(Template),
    /// A signature over a template's text.
    Signature(Sign, Template),
}

/// A signature that we make.
#[derive(Debug, Clone)]
pub struct Sign {
    /// The secret setting with the key.
    pub key: String,
    /// How the key is written.
    pub key_encoding: KeyEncoding,
    /// The algorithm.
    pub algorithm: Algorithm,
    /// How the signature is written.
    pub output: Output,
    /// The header it goes into.
    pub header: Option<String>,
}

/// A signature that we check.
#[derive(Debug, Clone)]
pub struct Verify {
    /// The header it stands in.
    pub header: String,
    /// What it begins with there.
    pub prefix: String,
    /// A moment signed with the body: header, separator, window.
    pub timestamp: Option<(String, String, Duration)>,
    /// The secret settings with the keys; those that are not set are passed over, one must be.
    pub keys: Vec<String>,
    /// How the keys are written.
    pub key_encoding: KeyEncoding,
    /// The algorithm.
    pub algorithm: Algorithm,
    /// How the signature is written.
    pub output: Output,
}

/// A route to the system.
#[derive(Debug)]
pub struct Deliver {
    /// Its name within the adapter.
    pub name: String,
    /// What it does.
    pub about: String,
    /// The events it takes.
    pub event: Arc<EventSchema>,
    /// Which of them.
    pub select: Vec<Condition>,
    /// When they are sent, where it differs from the system's hours.
    pub hours: Option<Hours>,
    /// One request for each of these.
    pub each: Option<Path>,
    /// What makes the document.
    pub mapping: Option<Arc<Mapping>>,
    /// What sending brings about.
    pub makes: Makes,
    /// What makes a repeat safe; a route that makes nothing is harmless.
    pub repeat: Repeat,
    /// What is sent, and where.
    pub action: Action,
    /// What is asked before the first attempt.
    pub before: Option<Before>,
    /// What answers mean, before the general rules.
    pub answers: Vec<Rule>,
    /// The format of answers.
    pub answer_format: Option<Format>,
    /// The events made of answers.
    pub reply: Vec<Emit>,
    /// What is remembered as open.
    pub opens: Option<Opens>,
    /// How to find out what happened.
    pub probe: Option<Probe>,
    /// How attempts are repeated.
    pub retry: RetryPolicy,
    /// Whether messages of one subject keep their order.
    pub order: Option<Ordered>,
    /// How many messages are under way at once, unless the bridge says otherwise.
    pub concurrency: u32,
    /// How many messages a window holds.
    pub window: u32,
    /// Forms of events that are read beside the usual ones.
    pub accept: Accept,
}

/// How messages of one subject keep their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ordered {
    /// How many of one subject may be held.
    pub most: u64,
    /// How many bytes may be held in all.
    pub most_bytes: u64,
    /// Whether one that is given up holds the others.
    pub holds: bool,
}

/// What a deliver route sends.
#[derive(Debug)]
pub enum Action {
    /// A request.
    Request(Request),
    /// A message.
    Publish(Publish),
    /// A statement.
    Statement(Write),
    /// Nothing yet: it joins a batch.
    Batch(Box<super::batch::Join>),
    /// A file of its own.
    Write(super::batch::WriteFile),
}

/// A statement that writes a document.
#[derive(Debug)]
pub struct Write {
    /// The statement.
    pub statement: Arc<Statement>,
    /// How many rows it must change.
    pub expect_rows: Option<u64>,
    /// What it means that such a row is there already.
    pub duplicate: DuplicateIs,
    /// By which constraints; by any if empty.
    pub constraints: Vec<String>,
}

/// A request over HTTP.
#[derive(Debug, Clone)]
pub struct Request {
    /// The method.
    pub method: String,
    /// The path.
    pub path: Template,
    /// The query.
    pub query: Vec<(String, Template)>,
    /// Headers.
    pub headers: Vec<(String, Template)>,
    /// What makes the body, where it is not the route's own mapping.
    pub mapping: Option<Arc<Mapping>>,
    /// The rate it counts under.
    pub rate: Option<String>,
}

/// Where a message is published.
#[derive(Debug)]
pub struct Publish {
    /// The exchange.
    pub exchange: Template,
    /// The routing key.
    pub routing_key: Template,
    /// Headers.
    pub headers: Vec<(String, Template)>,
}

/// What is asked before the first attempt.
#[derive(Debug)]
pub struct Before {
    /// The request.
    pub request: Request,
    /// What answers mean.
    pub answers: Vec<Rule>,
    /// What is kept.
    pub keep: Vec<(String, Path)>,
}

/// What an answer means, if it fits.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Statuses from and to; any if empty.
    pub statuses: Vec<(u16, u16)>,
    /// What stands in the answer.
    pub conditions: Vec<AnswerCondition>,
    /// The list whose entries the conditions are about.
    pub any: Option<Path>,
    /// Whether there is a body.
    pub body: Option<BodyIs>,
    /// The SOAP fault code; `*` for any.
    pub fault: Option<String>,
    /// What it means.
    pub then: Meaning,
    /// A sentence for people.
    pub why: Option<String>,
}

/// A condition on an answer.
#[derive(Debug, Clone)]
pub struct AnswerCondition {
    /// Where.
    pub path: Path,
    /// What must hold.
    pub test: AnswerTest,
}

/// What a condition on an answer asks.
#[derive(Debug, Clone)]
pub enum AnswerTest {
    /// One of these texts.
    Is(Vec<Template>),
    /// None of these texts, or absent.
    Not(Vec<Template>),
    /// Present, or absent.
    Present(bool),
}

/// What becomes of what a system said.
#[derive(Debug)]
pub struct Emit {
    /// When.
    pub when: Vec<Condition>,
    /// When one of these has become of a compared record; always if empty.
    pub change: Vec<Change>,
    /// What.
    pub action: EmitAction,
    /// For each of these parts of the document.
    pub each: Option<Path>,
    /// Only those parts for which this holds.
    pub each_when: Vec<Condition>,
    /// Not for what is open on this route under this key.
    pub unless_open: Option<(String, Template)>,
    /// What is remembered as open.
    pub opens: Option<Opens>,
    /// What was sent that this is about.
    pub about: Option<super::batch::About>,
    /// Whether the rules after it count as well.
    pub also: bool,
}

/// What is done with a document.
#[derive(Debug)]
pub enum EmitAction {
    /// An event is published.
    Event(Arc<Mapping>),
    /// Nothing, for this reason.
    Ignore(String),
    /// Nothing yet.
    Wait,
    /// It goes before a person, for this reason.
    Dead(String),
}

/// What is remembered as open.
#[derive(Debug)]
pub struct Opens {
    /// The route that asks.
    pub route: String,
    /// What it is asked by.
    pub key: Template,
    /// What no second one is opened for.
    pub one_per: Option<Template>,
    /// Outcomes after which none is opened again.
    pub not_after: Vec<String>,
    /// What is kept.
    pub keep: Vec<(String, Template)>,
    /// Whether the event's data is kept as well.
    pub keep_event: bool,
}

/// How to find out what happened.
#[derive(Debug)]
pub struct Probe {
    /// What is asked.
    pub question: Question,
    /// How long "absent" is not to be believed.
    pub settle: Duration,
    /// How long it may stay unclear before a person is told.
    pub patience: Duration,
}

/// What a probe asks.
#[derive(Debug)]
pub enum Question {
    /// A request; what answers mean, and their format.
    Request { request: Request, answers: Vec<Rule>, format: Format },
    /// A query: a row means that it was done.
    Statement(Arc<Statement>),
}

impl Question {
    /// The request, if it is one.
    pub fn request(&self) -> Option<&Request> {
        match self {
            Question::Request { request, .. } => Some(request),
            Question::Statement(_) => None,
        }
    }
}

/// How attempts are repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How often at once.
    pub at_once: u32,
    /// How long between further attempts; the last is repeated.
    pub waits: Vec<Duration>,
    /// How long after the first failure it is given up.
    pub give_up: Duration,
}

/// A route from the system.
#[derive(Debug)]
pub struct Collect {
    /// Its name within the adapter.
    pub name: String,
    /// What it does.
    pub about: String,
    /// How it comes.
    pub source: Source,
    /// When it is looked for, where it differs from the system's hours.
    pub hours: Option<Hours>,
    /// Its format.
    pub format: Format,
    /// How its records are built.
    pub layout: Option<Arc<Layout>>,
    /// What makes two the same.
    pub key: Option<Template>,
    /// What comes is a whole extract, compared with the last one.
    pub compare: Option<Compare>,
    /// How the truth is fetched.
    pub fetch: Vec<Fetch>,
    /// What becomes of it.
    pub events: Vec<Emit>,
    /// Whether the system itself posts these payments.
    pub already_posted: bool,
    /// How attempts are repeated.
    pub retry: RetryPolicy,
    /// How many are under way at once, unless the bridge says otherwise.
    pub concurrency: u32,
    /// The namespaces of its paths.
    pub namespaces: Namespaces,
}

/// How a document comes.
#[derive(Debug)]
pub enum Source {
    /// The system calls us.
    Receive(Receive),
    /// We look what is new.
    Poll(Poll),
    /// We ask about open items.
    Ask(Ask),
    /// We consume a queue.
    Consume(Consume),
    /// We pick up files.
    Pickup(Pickup),
    /// We ask a database.
    Query(Query),
}

/// We ask a database.
#[derive(Debug)]
pub struct Query {
    /// The query.
    pub statement: Arc<Statement>,
    /// How often.
    pub every: Duration,
    /// From where on.
    pub cursor: Option<QueryCursor>,
    /// Values of other parameters.
    pub parameters: Vec<(String, Template)>,
    /// Rows of one look.
    pub limit: u64,
}

/// A column whose values rise.
#[derive(Debug)]
pub struct QueryCursor {
    /// The column.
    pub column: String,
    /// What it begins with.
    pub first: String,
    /// How far back each look reaches.
    pub overlap: Back,
    /// What its values are.
    pub kind: CursorKind,
}

/// How far back a look reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Back {
    /// Not at all.
    None,
    /// By a time.
    Time(Duration),
    /// By a number.
    Number(u32),
}

/// The system calls us.
#[derive(Debug)]
pub struct Receive {
    /// At this path; `None` is `/<instance>/<route>`.
    pub path: Option<String>,
    /// With this method.
    pub method: String,
    /// With this signature.
    pub verify: Option<String>,
    /// As somebody.
    pub login: Option<Login>,
    /// With at most so many bytes.
    pub limit: u64,
}

/// We look what is new.
#[derive(Debug)]
pub struct Poll {
    /// How often.
    pub every: Duration,
    /// The request.
    pub request: Request,
    /// What answers mean.
    pub answers: Vec<Rule>,
    /// The entries.
    pub split: Path,
    /// Where the link to the next page stands.
    pub next: Option<Path>,
    /// Whether pages are numbered.
    pub pages: bool,
    /// What has been looked through.
    pub progress: Progress,
}

/// How a poll knows what is new.
#[derive(Debug)]
pub enum Progress {
    /// It does not: all of it each time, known ones are duplicates.
    All,
    /// A window of time after the other: lag, overlap, first, pattern.
    Window { lag: Duration, overlap: Duration, first: Duration, pattern: Option<String> },
    /// From the last value of this place on.
    Cursor { path: Path, first: String },
}

/// We ask about open items.
#[derive(Debug)]
pub struct Ask {
    /// How long between asking; the last is repeated.
    pub waits: Vec<Duration>,
    /// When a person is told.
    pub give_up: Duration,
    /// The request.
    pub request: Request,
    /// What answers mean.
    pub answers: Vec<Rule>,
}

/// We consume a queue.
#[derive(Debug)]
pub struct Consume {
    /// The queue.
    pub queue: Template,
    /// Whether the messages are events already.
    pub events: bool,
}

/// How the truth is fetched.
#[derive(Debug)]
pub struct Fetch {
    /// When.
    pub when: Vec<Condition>,
    /// The request.
    pub request: Request,
    /// What answers mean.
    pub answers: Vec<Rule>,
    /// The format of the answer.
    pub format: Format,
}

/// We pick up files.
#[derive(Debug)]
pub struct Pickup {
    /// The folder, below the system's own.
    pub folder: Template,
    /// Which files.
    pub pattern: Template,
    /// Whether capital and small letters count the same.
    pub ignore_case: bool,
    /// How often.
    pub every: Duration,
    /// When a file is complete.
    pub complete: Complete,
    /// What says the order of files.
    pub sequence: Option<Sequence>,
    /// What becomes of it in the system.
    pub then: PickupThen,
    /// The folder for refused ones.
    pub failed: Template,
    /// Bytes of a file.
    pub limit: u64,
}

/// What says the order of files.
#[derive(Debug)]
pub enum Sequence {
    /// Their names.
    Name,
    /// A value in the document of a record: of what stands before it, as a rule.
    At(Path),
}

/// When a file is complete.
#[derive(Debug)]
pub enum Complete {
    /// When it has not changed for so long.
    Still(Duration),
    /// When a file of this name, with `{name}` for its own, is there.
    Marker(String),
}

/// What becomes of a file in the system when we have it.
#[derive(Debug)]
pub enum PickupThen {
    /// It is moved into this folder.
    Archive(Template),
    /// It stays.
    Leave,
    /// It is deleted.
    Delete,
}

/// An extract is compared with the last one.
#[derive(Debug)]
pub struct Compare {
    /// What says which record it is.
    pub key: Vec<Path>,
    /// What is no news.
    pub ignore: Vec<Path>,
    /// The share of the last one's rows that may be missing, in hundredths of a per cent.
    pub most_removed: u32,
    /// The share of rows that may say something else, in hundredths of a per cent.
    pub most_changed: u32,
    /// Whether the first one is news.
    pub first_is_news: bool,
}
