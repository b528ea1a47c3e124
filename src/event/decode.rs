//! Reading events as they arrive over AMQP 0-9-1, for which no official binding exists.
//!
//! The rule, in order: a batch is refused; `application/cloudevents+json` is structured; headers with the event
//! attributes under one known prefix are binary (`ce-` of the RabbitMQ binding and the Python SDK, `cloudEvents_` and
//! `cloudEvents:` of AMQP 1.0, `ce_` of Spring); bare names (Knative) and untyped JSON (Dapr) only where the route says
//! so. Anything else is not an event, and says what it looks like.

use super::Event;
use crate::{
    code::Code,
    format::{Format, Limits},
    tree::Tree,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use std::io::Read as _;

/// A message as it arrived, without anything of the AMQP library in it.
#[derive(Debug, Clone, Default)]
pub struct Arrived<'a> {
    /// The property `content_type`.
    pub content_type: Option<&'a str>,
    /// The property `content_encoding`.
    pub content_encoding: Option<&'a str>,
    /// The property `message_id`.
    pub message_id: Option<&'a str>,
    /// The property `type`.
    pub message_type: Option<&'a str>,
    /// The headers.
    pub headers: Vec<(&'a str, HeaderValue)>,
    /// The body.
    pub body: &'a [u8],
}

/// A header's value, in the types that RabbitMQ carries.
#[derive(Debug, Clone, PartialEq)]
pub enum HeaderValue {
    /// A long string that is UTF-8.
    Text(String),
    /// Bytes, or a long string that is not UTF-8.
    Bytes(Vec<u8>),
    /// A truth value.
    Boolean(bool),
    /// A whole number of any width.
    Integer(i64),
    /// A floating-point number.
    Float(f64),
    /// Seconds since 1970.
    Timestamp(u64),
    /// Nothing.
    Void,
    /// A list, a table or a decimal: no attribute can be made of it.
    Other,
}

/// Forms that are accepted only where a route says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Accept {
    /// Attributes in headers without a prefix (Knative's RabbitMQ broker).
    pub bare_headers: bool,
    /// A structured event under another content type (Dapr: `text/plain`).
    pub untyped_json: bool,
}

/// Why a message is not a usable event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadEvent {
    /// The code.
    pub code: Code,
    /// Which attribute or header, if one is at fault.
    pub field: String,
    /// What is wrong, without values.
    pub what: String,
}

fn bad<T>(code: Code, field: &str, what: impl Into<String>) -> Result<T, BadEvent> {
    Err(BadEvent { code, field: field.to_owned(), what: what.into() })
}

/// Prefixes of event attributes in headers, in the order in which they are looked for.
const PREFIXES: [&str; 4] = ["cloudevents_", "cloudevents:", "ce-", "ce_"];

/// Reads an event. Its data is not yet checked against a schema.
///
/// # Errors
/// What is wrong with the message.
pub fn decode(arrived: &Arrived<'_>, accept: Accept, limits: &Limits) -> Result<Event, BadEvent> {
    let unpacked;
    let body = match unpack(arrived, limits)? {
        None => arrived.body,
        Some(bytes) => {
            unpacked = bytes;
            &unpacked
        }
    };
    let media_type = arrived.content_type.map(media_type).unwrap_or_default();
    if media_type == "application/cloudevents-batch+json" {
        return bad(
            Code::BatchRefused,
            "content_type",
            "a batch of events in one message: no AMQP binding defines that",
        );
    }
    if let Some(suffix) = media_type.strip_prefix("application/cloudevents") {
        return match suffix {
            "+json" => structured(body, limits),
            _ => bad(
                Code::EventFormatUnknown,
                "content_type",
                format!("events in the format `{suffix}` are not read here"),
            ),
        };
    }
    let attributes = binary_attributes(arrived)?;
    if !attributes.is_empty() {
        return binary(arrived, attributes, body, limits);
    }
    if accept.bare_headers && arrived.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("specversion"))
    {
        let bare: Result<Vec<_>, _> = arrived
            .headers
            .iter()
            .filter(|(name, _)| !name.starts_with("x-") && is_name(name) && !name.starts_with("trace"))
            .filter_map(|(name, value)| attribute(name, name, value).transpose())
            .collect();
        return binary(arrived, bare?, body, limits);
    }
    if accept.untyped_json && matches!(media_type.as_str(), "" | "text/plain" | "application/json") {
        return structured(body, limits);
    }
    not_an_event(arrived, &media_type)
}

fn not_an_event(arrived: &Arrived<'_>, media_type: &str) -> Result<Event, BadEvent> {
    let has = |name: &str| arrived.headers.iter().any(|(n, _)| *n == name);
    if has("x-amqp-1.0-app-properties") {
        let what = "an AMQP 1.0 message whose attributes a broker before 3.13 packed into one binary header";
        return bad(Code::AmqpOneMessage, "x-amqp-1.0-app-properties", what);
    }
    if arrived.message_type == Some("amqp-1.0") {
        let what = "an AMQP 1.0 message whose body is a value, not data: the broker hands on its encoding";
        return bad(Code::AmqpOneMessage, "type", what);
    }
    let what = match media_type {
        "" => "the message has no content type and no event attributes in its headers".to_owned(),
        media_type => format!("a message of type `{media_type}` without event attributes in its headers"),
    };
    bad(Code::NotAnEvent, "content_type", what)
}

/// The media type without its parameters, in small letters.
fn media_type(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn unpack(arrived: &Arrived<'_>, limits: &Limits) -> Result<Option<Vec<u8>>, BadEvent> {
    match arrived.content_encoding.unwrap_or_default().to_ascii_lowercase().as_str() {
        // Many clients write the character encoding here, which is not what the property is for.
        "" | "identity" | "utf-8" | "utf8" | "binary" => Ok(None),
        "gzip" => {
            let mut out = Vec::new();
            let most = limits.bytes as u64 + 1;
            match flate2::read::GzDecoder::new(arrived.body).take(most).read_to_end(&mut out) {
                Ok(_) if out.len() as u64 == most => bad(
                    Code::DocumentTooLarge,
                    "content_encoding",
                    format!("unpacked, the body has more than {} bytes", limits.bytes),
                ),
                Ok(_) => Ok(Some(out)),
                Err(_) => bad(
                    Code::ContentEncodingUnknown,
                    "content_encoding",
                    "the body claims to be gzip and is not",
                ),
            }
        }
        _ => bad(
            Code::ContentEncodingUnknown,
            "content_encoding",
            "the body is packed in a way that is not read here",
        ),
    }
}

fn structured(body: &[u8], limits: &Limits) -> Result<Event, BadEvent> {
    let tree = Format::Json.decode(body, None, limits).map_err(|error| BadEvent {
        code: error.code,
        field: "body".to_owned(),
        what: error.to_string(),
    })?;
    let Tree::Record(record) = tree else {
        return bad(Code::NotAnEvent, "body", "the body is JSON, but not an object");
    };
    let mut event = Event::default();
    let mut found = Found::default();
    for (name, value) in record.into_entries() {
        let name = name.local.as_str();
        match (name, &value) {
            ("data", _) => found.data = Some(value),
            // A null member means that the attribute is absent (JSON format s.2.2).
            (_, Tree::Null) => {}
            ("data_base64", Tree::Text(text)) => found.base64 = Some(text.to_string()),
            (_, Tree::Text(text)) => found.put(&mut event, name, text)?,
            (_, Tree::Number(digits)) if !CORE.contains(&name) => found.put(&mut event, name, digits)?,
            (_, Tree::Bool(b)) if !CORE.contains(&name) => found.put(&mut event, name, &b.to_string())?,
            (name, value) => {
                return bad(
                    Code::BadEventAttribute,
                    name,
                    format!("the attribute is {}, which it cannot be", value.kind()),
                );
            }
        }
    }
    let json = found.content_type.as_deref().is_none_or(is_json);
    let data = match (found.data.take(), found.base64.take()) {
        (Some(_), Some(_)) => {
            return bad(Code::BadEventAttribute, "data", "`data` and `data_base64` exclude each other");
        }
        (Some(data), None) => data,
        (None, Some(text)) => match STANDARD.decode(text.trim()) {
            Ok(bytes) if json => from_json(&bytes, limits)?,
            Ok(bytes) => Tree::text(String::from_utf8_lossy(&bytes).into_owned()),
            Err(_) => return bad(Code::BadEventAttribute, "data_base64", "this is not base64"),
        },
        (None, None) => Tree::Null,
    };
    event.data = data;
    found.complete(event)
}

fn from_json(bytes: &[u8], limits: &Limits) -> Result<Tree, BadEvent> {
    let read = Format::Json.decode(bytes, None, limits);
    read.map_err(|error| BadEvent { code: error.code, field: "data".to_owned(), what: error.to_string() })
}

/// Whether a media type says that the data is JSON (JSON format s.3.1).
fn is_json(content_type: &str) -> bool {
    let media_type = media_type(content_type);
    let subtype = media_type.split('/').nth(1).unwrap_or_default();
    subtype == "json" || subtype.ends_with("+json")
}

fn binary_attributes<'a>(arrived: &'a Arrived<'_>) -> Result<Vec<(&'a str, String)>, BadEvent> {
    let mut found: Vec<(&str, String)> = Vec::new();
    for prefix in PREFIXES {
        let starts =
            |name: &str| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
        for (header, value) in arrived.headers.iter().filter(|(name, _)| starts(name)) {
            let name = header.get(prefix.len()..).unwrap_or_default();
            let Some((_, text)) = attribute(header, name, value)? else { continue };
            match found.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)) {
                Some((_, other)) if *other != text => {
                    let what = "the attribute stands under two prefixes with different values";
                    return bad(Code::ContradictingHeaders, header, what);
                }
                Some(_) => {}
                None => found.push((name, text)),
            }
        }
    }
    let version = |(name, _): &(&str, String)| name.eq_ignore_ascii_case("specversion");
    Ok(if found.iter().any(version) { found } else { Vec::new() })
}

/// An attribute from a header: its canonical text (CloudEvents s.3.1.1), or nothing for void.
fn attribute<'a>(
    header: &str,
    name: &'a str,
    value: &HeaderValue,
) -> Result<Option<(&'a str, String)>, BadEvent> {
    let is_time = matches!(name.to_ascii_lowercase().as_str(), "time" | "expirytime" | "recordedtime");
    let core = CORE.contains(&name.to_ascii_lowercase().as_str());
    let text = match value {
        HeaderValue::Void => return Ok(None),
        HeaderValue::Text(text) => text.clone(),
        HeaderValue::Boolean(b) if !core => b.to_string(),
        HeaderValue::Integer(number) if is_time => {
            // Seconds, or milliseconds as the Python SDK writes them: 10^11 seconds are the year 5138.
            let moment = match number.abs() >= 100_000_000_000 {
                true => Timestamp::from_millisecond(*number),
                false => Timestamp::from_second(*number),
            };
            moment
                .map(|moment| moment.to_string())
                .or_else(|_| bad(Code::BadEventAttribute, header, "this moment is out of range"))?
        }
        HeaderValue::Integer(number) if !core => number.to_string(),
        HeaderValue::Timestamp(seconds) if is_time || !core => i64::try_from(*seconds)
            .ok()
            .and_then(|seconds| Timestamp::from_second(seconds).ok())
            .map(|moment| moment.to_string())
            .map_or_else(|| bad(Code::BadEventAttribute, header, "this moment is out of range"), Ok)?,
        HeaderValue::Bytes(bytes) if !core => STANDARD.encode(bytes),
        HeaderValue::Float(number) if !core => number.to_string(),
        _ => return bad(Code::BadEventAttribute, header, "the header's type cannot hold this attribute"),
    };
    Ok(Some((name, text)))
}

fn binary(
    arrived: &Arrived<'_>,
    attributes: Vec<(&str, String)>,
    body: &[u8],
    limits: &Limits,
) -> Result<Event, BadEvent> {
    let mut event = Event::default();
    let mut found = Found::default();
    for (name, text) in attributes {
        found.put(&mut event, &name.to_ascii_lowercase(), &text)?;
    }
    match (&found.content_type, arrived.content_type.filter(|text| !text.is_empty())) {
        (Some(a), Some(b)) if media_type(a) != media_type(b) => {
            let what = "the content type in the headers differs from the message's";
            return bad(Code::ContradictingHeaders, "datacontenttype", what);
        }
        (_, Some(property)) => found.content_type = Some(property.to_owned()),
        (_, None) => {}
    }
    event.data = match &found.content_type {
        _ if body.is_empty() => Tree::Null,
        Some(content_type) if !is_json(content_type) => {
            Tree::text(String::from_utf8_lossy(body).into_owned())
        }
        _ => from_json(body, limits)?,
    };
    found.complete(event)
}

/// How many bytes an attribute that identifies an event may have: a property or header of AMQP holds no more in one piece
/// (short string, AMQP 0-9-1 s.4.2.5.3).
const LONGEST: usize = 255;

/// The core attributes. Their values are texts in every format.
const CORE: [&str; 8] =
    ["specversion", "id", "source", "type", "subject", "time", "dataschema", "datacontenttype"];

/// What has been found of an event.
#[derive(Default)]
struct Found {
    version: bool,
    content_type: Option<String>,
    data: Option<Tree>,
    base64: Option<String>,
}

impl Found {
    fn put(&mut self, event: &mut Event, name: &str, text: &str) -> Result<(), BadEvent> {
        if text.chars().any(|c| c.is_control()) {
            return bad(
                Code::BadEventAttribute,
                name,
                "an attribute holds no control characters (line breaks, NUL)",
            );
        }
        match name {
            "specversion" if text == "1.0" => self.version = true,
            "specversion" => return bad(Code::BadEventAttribute, name, "only CloudEvents 1.0 is read"),
            "id" => event.id = text.to_owned(),
            "source" => event.source = text.to_owned(),
            "type" => event.event_type = text.to_owned(),
            "subject" if text.is_empty() => {
                return bad(Code::BadEventAttribute, name, "a subject that is there is not empty");
            }
            "subject" => event.subject = Some(text.to_owned()),
            "time" => match text.parse::<Timestamp>() {
                Ok(_) => event.time = Some(text.to_owned()),
                Err(_) => {
                    return bad(Code::BadEventAttribute, name, "the time is not RFC 3339 with an offset");
                }
            },
            "dataschema" => event.dataschema = Some(text.to_owned()),
            "datacontenttype" => self.content_type = Some(text.to_owned()),
            name if !is_name(name) => {
                let what = "an attribute's name has only small letters and digits (CloudEvents s.3.1)";
                return bad(Code::BadEventAttribute, name, what);
            }
            name => event.extensions.push((name.to_owned(), text.to_owned())),
        }
        Ok(())
    }

    fn complete(self, event: Event) -> Result<Event, BadEvent> {
        if !self.version {
            return bad(Code::EventAttributeMissing, "specversion", "every event says `specversion`: 1.0");
        }
        for (name, value) in [("id", &event.id), ("source", &event.source), ("type", &event.event_type)] {
            if value.is_empty() {
                return bad(
                    Code::EventAttributeMissing,
                    name,
                    format!("the event has no `{name}`, or an empty one"),
                );
            }
            if value.len() > LONGEST || value.contains(char::is_control) {
                let what = format!("the `{name}` has control characters or more than {LONGEST} bytes");
                return bad(Code::BadEventAttribute, name, what);
            }
        }
        Ok(event)
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}
