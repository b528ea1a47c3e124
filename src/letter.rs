//! The marks that a message carries between attempts and into the dead-letter queue, and how they are read again.
//!
//! Header names have letters, digits and underscores only, as AMQP 0-9-1 s.4.2.5.5 asks; the reason holds codes, fields
//! and sentences of ours, never a value of the message; all of it fits a frame.

use crate::{broker::Properties, code::Code, verdict::Failure};
use jiff::Timestamp;

/// What all our headers begin with.
pub const PREFIX: &str = "packhorse_";
const ATTEMPT: &str = "packhorse_attempt";
const FIRST_FAILED: &str = "packhorse_first_failed";
const REPLAY: &str = "packhorse_replay";
const EXCHANGE: &str = "packhorse_exchange";
const ROUTING_KEY: &str = "packhorse_routing_key";
const ROUTE: &str = "packhorse_route";
const KEY: &str = "packhorse_key";
const EVENT_ID: &str = "packhorse_event_id";
const EVENT_SOURCE: &str = "packhorse_event_source";
const EVENT_TYPE: &str = "packhorse_event_type";
const CODE: &str = "packhorse_code";
const STAGE: &str = "packhorse_stage";
const FIELD: &str = "packhorse_field";
const WHAT: &str = "packhorse_what";
const HELP: &str = "packhorse_help";
const FAILED_AT: &str = "packhorse_failed_at";
const MAPPING: &str = "packhorse_mapping";
const DOUBT: &str = "packhorse_in_doubt";
const SETTLED: &str = "packhorse_settled";
const ITEM: &str = "packhorse_item";
const SHA256: &str = "packhorse_sha256";

/// How long texts of ours may be in headers.
const LONGEST: usize = 1_000;

/// What a message carries of its own past.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Past {
    /// The number of the attempt that it comes for, from 1.
    pub attempt: u32,
    /// When the first attempt failed.
    pub first_failed: Option<Timestamp>,
    /// How often people have replayed it.
    pub replay: u32,
    /// Whether a person has said that the request in doubt was not carried out.
    pub settled: bool,
}

impl Past {
    /// Reads it from a message; a fresh one has none.
    pub fn of(properties: &Properties) -> Past {
        let number = |name: &str| properties.number(name).and_then(|number| u32::try_from(number).ok());
        Past {
            attempt: number(ATTEMPT).unwrap_or(1).max(1),
            first_failed: properties.text(FIRST_FAILED).and_then(|text| text.parse().ok()),
            replay: number(REPLAY).unwrap_or(0),
            settled: properties.text(SETTLED).is_some(),
        }
    }
}

/// The stage at which a message was given up, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Reading the event.
    Event,
    /// Making the document.
    Mapping,
    /// Sending it.
    Sending,
    /// Finding out whether it was carried out.
    Asking,
    /// Making the reply of the answer.
    Reply,
    /// Reading or fetching what was collected.
    Collecting,
}

impl Stage {
    /// All of them.
    pub const ALL: [Stage; 6] =
        [Stage::Event, Stage::Mapping, Stage::Sending, Stage::Asking, Stage::Reply, Stage::Collecting];

    /// The one printed like this.
    pub fn parse(text: &str) -> Option<Stage> {
        Stage::ALL.into_iter().find(|stage| stage.as_str() == text)
    }

    /// As printed.
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Event => "event",
            Stage::Mapping => "mapping",
            Stage::Sending => "sending",
            Stage::Asking => "asking",
            Stage::Reply => "reply",
            Stage::Collecting => "collecting",
        }
    }
}

/// Marks a message for its next attempt.
pub fn for_retry(
    properties: &Properties,
    origin: (&str, &str),
    attempt: u32,
    first_failed: Timestamp,
) -> Properties {
    with_origin(properties.again(), origin)
        .with_number(ATTEMPT, i64::from(attempt))
        .with_text(FIRST_FAILED, &first_failed.to_string())
}

/// With its own number of replays.
pub fn with_replay(properties: Properties, replay: u32) -> Properties {
    if replay == 0 { properties } else { properties.with_number(REPLAY, i64::from(replay)) }
}

/// Keeps where a message was published first: the exchange and key of later publishes are our own.
pub fn with_origin(properties: Properties, (exchange, routing_key): (&str, &str)) -> Properties {
    match properties.text(ROUTING_KEY) {
        Some(_) => properties,
        None => properties.with_text(EXCHANGE, exchange).with_text(ROUTING_KEY, routing_key),
    }
}

/// Why and where a message was given up.
#[derive(Debug, Clone)]
pub struct Reason<'a> {
    /// The route.
    pub route: &'a str,
    /// What makes the message the same as another.
    pub key: String,
    /// Its source, id and type, if it could be read.
    pub event: Option<(&'a str, &'a str, &'a str)>,
    /// The failure.
    pub failure: &'a Failure,
    /// The code under which it was given up, if that says more than the failure's own.
    pub code: Code,
    /// At which stage.
    pub stage: Stage,
    /// How many attempts there were.
    pub attempts: u32,
    /// The digest of the mapping.
    pub mapping: Option<&'a str>,
    /// Whether a request may have been carried out.
    pub doubt: bool,
    /// The key of the open item it is about.
    pub item: Option<&'a str>,
    /// The moment.
    pub now: Timestamp,
}

/// What happened, where the code under which something is given up says more than the failure's own.
pub fn what_of(code: Code, failure: &Failure) -> String {
    match code == failure.code {
        true => failure.what.clone(),
        false => format!("{}; last: {} {}", code.title(), failure.code, failure.what),
    }
}

/// Marks a message as a dead letter, with the reason that a person reads.
pub fn for_dead(
    properties: Properties,
    origin: (&str, &str),
    body: &[u8],
    reason: &Reason<'_>,
) -> Properties {
    let digest = crate::event::hex(ring::digest::digest(&ring::digest::SHA256, body).as_ref());
    let what = what_of(reason.code, reason.failure);
    let mut marked = with_origin(properties, origin)
        .without(SETTLED)
        .with_text(ROUTE, reason.route)
        .with_text(KEY, &reason.key)
        .with_text(CODE, reason.code.as_str())
        .with_text(STAGE, reason.stage.as_str())
        .with_text(WHAT, &cut(&what))
        .with_text(HELP, &cut(reason.code.remedy()))
        .with_text(FAILED_AT, &reason.now.to_string())
        .with_number(ATTEMPT, i64::from(reason.attempts))
        .with_text(SHA256, &digest);
    if !reason.failure.field.is_empty() {
        marked = marked.with_text(FIELD, &cut(&reason.failure.field));
    }
    if let Some((source, id, event_type)) = reason.event {
        marked = marked
            .with_text(EVENT_SOURCE, &cut(source))
            .with_text(EVENT_ID, &cut(id))
            .with_text(EVENT_TYPE, &cut(event_type));
    }
    if let Some(mapping) = reason.mapping {
        marked = marked.with_text(MAPPING, mapping);
    }
    if let Some(item) = reason.item {
        marked = marked.with_text(ITEM, &cut(item));
    }
    if reason.doubt {
        marked = marked.with_text(DOUBT, "yes");
    }
    marked
}

/// Marks a dead letter for being handled once more: its reason is taken off, its own number goes up.
pub fn for_replay(properties: &Properties, replay: u32, settled: bool) -> Properties {
    let again = properties.again();
    let (exchange, key) = (again.text(EXCHANGE), again.text(ROUTING_KEY));
    let mut marked = again.without(PREFIX).with_number(REPLAY, i64::from(replay));
    if let (Some(exchange), Some(key)) = (exchange, key) {
        marked = marked.with_text(EXCHANGE, &exchange).with_text(ROUTING_KEY, &key);
    }
    match settled {
        true => marked.with_text(SETTLED, "not-received"),
        false => marked,
    }
}

/// A dead letter as a person sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeadLetter {
    /// What it is called: the beginning of its key.
    pub name: String,
    /// What makes it the same as another; empty if the broker itself gave it up.
    pub key: String,
    /// The route.
    pub route: String,
    /// The code.
    pub code: String,
    /// The stage.
    pub stage: String,
    /// The field.
    pub field: String,
    /// What happened.
    pub what: String,
    /// What to do.
    pub help: String,
    /// When it was given up.
    pub failed_at: String,
    /// After how many attempts.
    pub attempts: u32,
    /// The event's source.
    pub source: String,
    /// The event's id.
    pub id: String,
    /// The event's type.
    pub event_type: String,
    /// The mapping's digest.
    pub mapping: String,
    /// Whether a request may have been carried out.
    pub doubt: bool,
    /// The open item it is about.
    pub item: String,
    /// How often it has been replayed.
    pub replay: u32,
    /// The digest of the body.
    pub sha256: String,
}

impl DeadLetter {
    /// Reads the marks of a message in the dead-letter queue.
    pub fn of(properties: &Properties, body: &[u8]) -> DeadLetter {
        let text = |name: &str| properties.text(name).unwrap_or_default();
        let sha256 = crate::event::hex(ring::digest::digest(&ring::digest::SHA256, body).as_ref());
        let mut letter = DeadLetter {
            key: text(KEY),
            route: text(ROUTE),
            code: text(CODE),
            stage: text(STAGE),
            field: text(FIELD),
            what: text(WHAT),
            help: text(HELP),
            failed_at: text(FAILED_AT),
            attempts: Past::of(properties).attempt,
            source: text(EVENT_SOURCE),
            id: text(EVENT_ID),
            event_type: text(EVENT_TYPE),
            mapping: text(MAPPING),
            doubt: properties.text(DOUBT).is_some(),
            item: text(ITEM),
            replay: Past::of(properties).replay,
            name: String::new(),
            sha256,
        };
        if letter.code.is_empty() {
            let (queue, reason) = properties.broker_death().unwrap_or_default();
            letter.code = Code::BrokerDeadLettered.as_str().to_owned();
            letter.what = match queue.is_empty() {
                true => "the broker put this message here; it says nothing of why".to_owned(),
                false => format!("the broker gave this message up in {queue}: {reason}"),
            };
            letter.help = Code::BrokerDeadLettered.remedy().to_owned();
            letter.id = properties.message_id().unwrap_or_default().to_owned();
        }
        let name = if letter.key.is_empty() { &letter.sha256 } else { &letter.key };
        letter.name = name.chars().take(10).collect();
        letter
    }
}

fn cut(text: &str) -> String {
    match text.len() <= LONGEST {
        true => text.to_owned(),
        false => {
            let end = (0..=LONGEST - 3).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            format!("{}…", text.get(..end).unwrap_or_default())
        }
    }
}
