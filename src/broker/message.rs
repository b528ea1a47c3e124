//! Messages and their properties: checked before they reach lapin, because one bad property closes the channel and with
//! it loses the confirms of its neighbours.

use super::BrokerError;
use crate::{
    code::Code,
    event::{Arrived, HeaderValue},
};
use bytes::Bytes;
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable, LongString, ShortString},
};
use serde::{Deserialize, Serialize};

/// The most bytes that all properties together may have: they must fit one frame, of which the smallest allowed is 8 KiB
/// from RabbitMQ 4.1, and 128 KiB is usual.
const MOST_PROPERTIES: usize = 32 << 10;
/// The largest body a broker takes without being told otherwise (RabbitMQ 4.0: 16 MiB).
pub const MOST_BODY: usize = 16 << 20;
/// Names of headers are shortstr in the protocol, and some clients cut them at 128 bytes.
const LONGEST_NAME: usize = 128;

/// Headers that a message must not carry on when it is published again: the broker's own marks, which would make it
/// dropped as a cycle on some versions, and those that route.
const STRIPPED: [&str; 10] = [
    "x-death",
    "x-first-death-exchange",
    "x-first-death-queue",
    "x-first-death-reason",
    "x-last-death-exchange",
    "x-last-death-queue",
    "x-last-death-reason",
    "x-delivery-count",
    "x-acquired-count",
    "x-opt-deaths",
];

/// A message to be published: persistent, mandatory.
#[derive(Debug, Clone)]
pub struct Message {
    /// The exchange.
    pub exchange: String,
    /// The routing key.
    pub routing_key: String,
    /// The properties.
    pub properties: Properties,
    /// The body.
    pub body: Bytes,
}

/// The properties of a message, as far as anybody but the broker needs them.
#[derive(Debug, Clone, Default)]
pub struct Properties(BasicProperties);

/// Properties as they are kept in the store.
#[derive(Serialize, Deserialize)]
struct KeptProperties {
    content_type: Option<String>,
    content_encoding: Option<String>,
    correlation_id: Option<String>,
    message_id: Option<String>,
    timestamp: Option<u64>,
    kind: Option<String>,
    app_id: Option<String>,
    headers: FieldTable,
}

impl Properties {
    /// Of an event in structured form. What does not fit a property is left out: the body still has it.
    pub fn of_event(id: &str, event_type: &str, seconds: Option<u64>, app: &str) -> Properties {
        let mut inner = BasicProperties::default()
            .with_delivery_mode(2)
            .with_content_type(ShortString::from(crate::event::MEDIA_TYPE));
        if let Ok(id) = ShortString::try_new(id) {
            inner = inner.with_message_id(id);
        }
        if let Ok(event_type) = ShortString::try_new(event_type) {
            inner = inner.with_type(event_type);
        }
        if let Ok(app) = ShortString::try_new(app) {
            inner = inner.with_app_id(app);
        }
        if let Some(seconds) = seconds {
            inner = inner.with_timestamp(seconds);
        }
        Properties(inner)
    }

    /// Of a document with this media type.
    pub fn of_document(content_type: &str, message_id: Option<&str>) -> Properties {
        let mut inner = BasicProperties::default().with_delivery_mode(2);
        if let Ok(content_type) = ShortString::try_new(content_type) {
            inner = inner.with_content_type(content_type);
        }
        if let Some(Ok(id)) = message_id.map(ShortString::try_new) {
            inner = inner.with_message_id(id);
        }
        Properties(inner)
    }

    pub(super) fn from_lapin(inner: BasicProperties) -> Properties {
        Properties(inner)
    }

    pub(super) fn into_lapin(self) -> BasicProperties {
        self.0
    }

    /// As they may go out again on another publish: the broker's marks, routing headers, and what is bound to the first
    /// connection (user, reply address, priority, expiration) are taken off.
    #[must_use]
    pub fn again(&self) -> Properties {
        let old = &self.0;
        let mut inner = BasicProperties::default().with_delivery_mode(2);
        if let Some(value) = old.content_type() {
            inner = inner.with_content_type(value.clone());
        }
        if let Some(value) = old.content_encoding() {
            inner = inner.with_content_encoding(value.clone());
        }
        if let Some(value) = old.correlation_id() {
            inner = inner.with_correlation_id(value.clone());
        }
        if let Some(value) = old.message_id() {
            inner = inner.with_message_id(value.clone());
        }
        if let Some(value) = old.timestamp() {
            inner = inner.with_timestamp(*value);
        }
        if let Some(value) = old.kind() {
            inner = inner.with_type(value.clone());
        }
        if let Some(value) = old.app_id() {
            inner = inner.with_app_id(value.clone());
        }
        let mut headers = FieldTable::default();
        for (name, value) in old.headers().iter().flat_map(|table| table.inner()) {
            if !STRIPPED.contains(&name.as_str()) && !matches!(name.as_str(), "CC" | "BCC") {
                headers.insert(name.clone(), value.clone());
            }
        }
        Properties(inner.with_headers(headers))
    }

    /// As text, to be kept: what [`Properties::again`] keeps, each value with its type.
    pub fn to_text(&self) -> String {
        let own = self.again().0;
        let text = |value: &Option<ShortString>| value.as_ref().map(ShortString::to_string);
        let kept = KeptProperties {
            content_type: text(own.content_type()),
            content_encoding: text(own.content_encoding()),
            correlation_id: text(own.correlation_id()),
            message_id: text(own.message_id()),
            timestamp: *own.timestamp(),
            kind: text(own.kind()),
            app_id: text(own.app_id()),
            headers: own.headers().clone().unwrap_or_default(),
        };
        serde_json::to_string(&kept).unwrap_or_default()
    }

    /// The properties that were kept as text; nothing if it is none of ours.
    pub fn of_text(text: &str) -> Option<Properties> {
        let kept: KeptProperties = serde_json::from_str(text).ok()?;
        let mut inner = BasicProperties::default().with_delivery_mode(2).with_headers(kept.headers);
        let short = |value: Option<String>| value.and_then(|value| ShortString::try_new(value).ok());
        if let Some(value) = short(kept.content_type) {
            inner = inner.with_content_type(value);
        }
        if let Some(value) = short(kept.content_encoding) {
            inner = inner.with_content_encoding(value);
        }
        if let Some(value) = short(kept.correlation_id) {
            inner = inner.with_correlation_id(value);
        }
        if let Some(value) = short(kept.message_id) {
            inner = inner.with_message_id(value);
        }
        if let Some(value) = kept.timestamp {
            inner = inner.with_timestamp(value);
        }
        if let Some(value) = short(kept.kind) {
            inner = inner.with_type(value);
        }
        if let Some(value) = short(kept.app_id) {
            inner = inner.with_app_id(value);
        }
        Some(Properties(inner))
    }

    /// With a text header; one whose name or text cannot be a header is left out.
    #[must_use]
    pub fn with_text(self, name: &str, text: &str) -> Properties {
        self.with(name, AMQPValue::LongString(LongString::from(text)))
    }

    /// With a whole number as header.
    #[must_use]
    pub fn with_number(self, name: &str, number: i64) -> Properties {
        self.with(name, AMQPValue::LongLongInt(number))
    }

    fn with(self, name: &str, value: AMQPValue) -> Properties {
        let Ok(name) = ShortString::try_new(name) else { return self };
        let mut headers = self.0.headers().clone().unwrap_or_default();
        headers.insert(name, value);
        Properties(self.0.with_headers(headers))
    }

    /// Without the headers whose names begin so.
    #[must_use]
    pub fn without(self, prefix: &str) -> Properties {
        let mut headers = FieldTable::default();
        for (name, value) in self.0.headers().iter().flat_map(|table| table.inner()) {
            if !name.as_str().starts_with(prefix) {
                headers.insert(name.clone(), value.clone());
            }
        }
        Properties(self.0.with_headers(headers))
    }

    /// The text of a header.
    pub fn text(&self, name: &str) -> Option<String> {
        match self.0.headers().as_ref()?.inner().get(name)? {
            AMQPValue::LongString(text) => Some(String::from_utf8_lossy(text.as_bytes()).into_owned()),
            AMQPValue::ShortString(text) => Some(text.to_string()),
            _ => None,
        }
    }

    /// The number of a header, of whatever width.
    pub fn number(&self, name: &str) -> Option<i64> {
        match header_value(self.0.headers().as_ref()?.inner().get(name)?) {
            HeaderValue::Integer(number) => Some(number),
            _ => None,
        }
    }

    /// The property `message_id`.
    pub fn message_id(&self) -> Option<&str> {
        self.0.message_id().as_ref().map(ShortString::as_str)
    }

    /// The property `content_type`.
    pub fn content_type(&self) -> Option<&str> {
        self.0.content_type().as_ref().map(ShortString::as_str)
    }

    /// The queue and reason of the broker's own dead-lettering, if this message went through it: the newest `x-death`.
    pub fn broker_death(&self) -> Option<(String, String)> {
        let AMQPValue::FieldArray(deaths) = self.0.headers().as_ref()?.inner().get("x-death")? else {
            return None;
        };
        let AMQPValue::FieldTable(death) = deaths.as_slice().first()? else { return None };
        let text = |name: &str| match death.inner().get(name) {
            Some(AMQPValue::LongString(text)) => String::from_utf8_lossy(text.as_bytes()).into_owned(),
            _ => String::new(),
        };
        Some((text("queue"), text("reason")))
    }

    /// All headers as printed for people.
    pub fn headers_for_people(&self) -> Vec<(String, String)> {
        let headers = self.0.headers().iter().flat_map(|table| table.inner());
        headers
            .map(|(name, value)| {
                let text = match header_value(value) {
                    HeaderValue::Text(text) => text,
                    HeaderValue::Integer(number) => number.to_string(),
                    HeaderValue::Boolean(b) => b.to_string(),
                    HeaderValue::Float(number) => number.to_string(),
                    HeaderValue::Timestamp(seconds) => format!("{seconds} s"),
                    HeaderValue::Bytes(bytes) => format!("{} bytes", bytes.len()),
                    HeaderValue::Void => String::new(),
                    HeaderValue::Other => format!("{value:?}"),
                };
                (name.to_string(), text)
            })
            .collect()
    }

    /// The message as an event is read from it.
    pub fn arrived<'a>(&'a self, body: &'a [u8]) -> Arrived<'a> {
        let headers = self.0.headers().iter().flat_map(|table| table.inner());
        Arrived {
            content_type: self.content_type(),
            content_encoding: self.0.content_encoding().as_ref().map(ShortString::as_str),
            message_id: self.message_id(),
            message_type: self.0.kind().as_ref().map(ShortString::as_str),
            headers: headers.map(|(name, value)| (name.as_str(), header_value(value))).collect(),
            body,
        }
    }
}

fn header_value(value: &AMQPValue) -> HeaderValue {
    match value {
        AMQPValue::LongString(text) => match std::str::from_utf8(text.as_bytes()) {
            Ok(text) => HeaderValue::Text(text.to_owned()),
            Err(_) => HeaderValue::Bytes(text.as_bytes().to_vec()),
        },
        AMQPValue::ShortString(text) => HeaderValue::Text(text.to_string()),
        AMQPValue::Boolean(b) => HeaderValue::Boolean(*b),
        AMQPValue::ShortShortInt(number) => HeaderValue::Integer(i64::from(*number)),
        AMQPValue::ShortShortUInt(number) => HeaderValue::Integer(i64::from(*number)),
        AMQPValue::ShortInt(number) => HeaderValue::Integer(i64::from(*number)),
        AMQPValue::ShortUInt(number) => HeaderValue::Integer(i64::from(*number)),
        AMQPValue::LongInt(number) => HeaderValue::Integer(i64::from(*number)),
        AMQPValue::LongUInt(number) => HeaderValue::Integer(i64::from(*number)),
        AMQPValue::LongLongInt(number) => HeaderValue::Integer(*number),
        AMQPValue::Float(number) => HeaderValue::Float(f64::from(*number)),
        AMQPValue::Double(number) => HeaderValue::Float(*number),
        AMQPValue::Timestamp(seconds) => HeaderValue::Timestamp(*seconds),
        AMQPValue::ByteArray(bytes) => HeaderValue::Bytes(bytes.as_slice().to_vec()),
        AMQPValue::Void => HeaderValue::Void,
        AMQPValue::DecimalValue(_) | AMQPValue::FieldArray(_) | AMQPValue::FieldTable(_) => {
            HeaderValue::Other
        }
    }
}

impl Message {
    /// Whether the broker can take it: names and texts short enough, properties that fit a frame, a body it allows.
    ///
    /// # Errors
    /// What is wrong with it. It would have closed the channel, and lost the confirms of its neighbours.
    pub fn check(&self, frame_max: usize) -> Result<(), BrokerError> {
        let no = |what: String| Err(BrokerError::new(Code::MessageUnpublishable, what));
        for (name, text) in [("exchange", &self.exchange), ("routing key", &self.routing_key)] {
            if text.len() > 255 || text.contains('\0') {
                return no(format!("the {name} has more than 255 bytes or holds NUL"));
            }
        }
        if self.body.len() > MOST_BODY {
            return no(format!("the body has {} bytes; a broker takes {MOST_BODY}", self.body.len()));
        }
        let mut size = 64;
        for (name, value) in self.properties.0.headers().iter().flat_map(|table| table.inner()) {
            if name.as_str().len() > LONGEST_NAME {
                return no(format!(
                    "a header's name has {} bytes; {LONGEST_NAME} are safe",
                    name.as_str().len()
                ));
            }
            size += name.as_str().len() + 1 + size_of_value(value);
        }
        let most = MOST_PROPERTIES.min(frame_max.saturating_sub(256));
        if size > most {
            return no(format!("the headers have {size} bytes; they must fit one frame ({most})"));
        }
        Ok(())
    }
}

/// About how many bytes a value takes on the wire, never too few.
fn size_of_value(value: &AMQPValue) -> usize {
    match value {
        AMQPValue::LongString(text) => 5 + text.len(),
        AMQPValue::ByteArray(bytes) => 5 + bytes.len(),
        AMQPValue::FieldArray(items) => 5 + items.as_slice().iter().map(size_of_value).sum::<usize>(),
        AMQPValue::FieldTable(table) => {
            5 + table
                .inner()
                .iter()
                .map(|(name, value)| name.as_str().len() + 1 + size_of_value(value))
                .sum::<usize>()
        }
        AMQPValue::ShortString(text) => 5 + text.as_str().len(),
        _ => 9,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_that_are_kept_as_text_come_out_as_they_were() {
        let mut table = FieldTable::default();
        table.insert("bytes".into(), AMQPValue::ByteArray(vec![0, 255, 7].into()));
        table.insert("text".into(), AMQPValue::LongString("grün \u{0}".into()));
        table.insert("odd".into(), AMQPValue::LongString(vec![0xff, 0xfe].into()));
        table.insert("number".into(), AMQPValue::ShortShortUInt(200));
        table.insert("moment".into(), AMQPValue::Timestamp(1_790_000_000));
        let inner = BasicProperties::default()
            .with_content_type("application/cloudevents+json".into())
            .with_message_id("event-1".into())
            .with_timestamp(1_790_000_000)
            .with_headers(table);
        let properties = Properties(inner).again();
        let back = Properties::of_text(&properties.to_text()).unwrap();
        assert_eq!(back.0, properties.0);
        assert!(Properties::of_text("{}").is_none());
    }
}
