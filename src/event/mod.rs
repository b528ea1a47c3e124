//! Events: CloudEvents 1.0 whose data keeps a versioned schema.
//!
//! Pure. [`decode`] reads the forms in which events arrive over AMQP 0-9-1; [`Event::to_json`] writes the one form in
//! which they leave: structured JSON. What an event is about, and what makes two of them the same, is decided here.

mod decode;
mod instance;
pub mod schema;

pub use decode::{Accept, Arrived, BadEvent, HeaderValue, decode};

use crate::tree::{Name, Record, Tree};
use std::fmt;

/// The media type of an event in structured JSON form (CloudEvents JSON format s.3).
pub const MEDIA_TYPE: &str = "application/cloudevents+json";

/// One event.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Event {
    /// Unique together with `source`; never empty.
    pub id: String,
    /// Who says so: a URI reference; never empty.
    pub source: String,
    /// What happened, with the version of its schema: `payment.succeeded.v1`.
    pub event_type: String,
    /// What it is about: a payment, a case. Events of one subject have an order.
    pub subject: Option<String>,
    /// When it happened, RFC 3339.
    pub time: Option<String>,
    /// The schema that its data keeps, as a URI.
    pub dataschema: Option<String>,
    /// Extension attributes as canonical texts (`traceparent`, `correlationid` …).
    pub extensions: Vec<(String, String)>,
    /// The data.
    pub data: Tree,
}

/// What makes two events the same: the digest of source and id (CloudEvents s.3.1: the pair, never the id alone).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(pub [u8; 32]);

impl Key {
    /// The key of a pair of texts.
    pub fn of(source: &str, id: &str) -> Key {
        let mut context = ring::digest::Context::new(&ring::digest::SHA256);
        context.update(&(source.len() as u64).to_be_bytes());
        context.update(source.as_bytes());
        context.update(id.as_bytes());
        let mut key = [0; 32];
        key.copy_from_slice(context.finish().as_ref());
        Key(key)
    }

    /// The key of a message that cannot be read as an event: the same again when the same bytes come again.
    pub fn of_bytes(message_id: Option<&str>, body: &[u8]) -> Key {
        // Two different messages under one id are two: neither may pass for a copy of the other.
        let digest = hex(ring::digest::digest(&ring::digest::SHA256, body).as_ref());
        match message_id {
            Some(id) => Key::of("message", &format!("{digest} {id}")),
            None => Key::of("body", &digest),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

/// Bytes as small hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

impl Event {
    /// What makes it the same as another.
    pub fn key(&self) -> Key {
        Key::of(&self.source, &self.id)
    }

    /// The attribute of this name, whether core or extension.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        match name {
            "id" => Some(&self.id),
            "source" => Some(&self.source),
            "type" => Some(&self.event_type),
            "subject" => self.subject.as_deref(),
            "time" => self.time.as_deref(),
            "dataschema" => self.dataschema.as_deref(),
            name => self.extensions.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str()),
        }
    }

    /// The event as a tree in the shape of the JSON format.
    pub fn to_tree(&self) -> Tree {
        let mut record = Record::new();
        let mut put = |name: &str, value: &str| record.push(Name::plain(name), Tree::text(value));
        put("specversion", "1.0");
        put("id", &self.id);
        put("source", &self.source);
        put("type", &self.event_type);
        for (name, value) in [("subject", &self.subject), ("time", &self.time)] {
            if let Some(value) = value {
                put(name, value);
            }
        }
        for (name, value) in &self.extensions {
            put(name, value);
        }
        put("datacontenttype", "application/json");
        if let Some(schema) = &self.dataschema {
            put("dataschema", schema);
        }
        record.push(Name::plain("data"), self.data.clone());
        Tree::Record(record)
    }

    /// The event in structured JSON form.
    pub fn to_json(&self) -> String {
        crate::format::write_json(&self.to_tree())
    }
}
