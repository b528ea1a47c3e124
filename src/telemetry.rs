//! Logs, metrics and trace context: names in one place, ids and never bodies.
//!
//! Log levels: error = something is lost or a person must act; warn = it recovers by itself; info = the life of the
//! bridge. Normal traffic is silent.

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

/// The label of a route.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RouteLabel {
    /// `<instance>.<route>`
    pub route: String,
}

/// The labels of an outcome.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabel {
    /// `<instance>.<route>`
    pub route: String,
    /// What became of the message.
    pub outcome: &'static str,
}

/// The labels of a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CodeLabel {
    /// `<instance>.<route>`
    pub route: String,
    /// The code of the failure.
    pub code: &'static str,
}

/// The label of a mapping.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct MappingLabel {
    /// `<system>/<document>`
    pub mapping: String,
}

/// The labels of a route's state.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StateLabel {
    /// `<instance>.<route>`
    pub route: String,
    /// What its gate is.
    pub state: &'static str,
}

/// The label of a connection to a broker.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct LinkLabel {
    /// `consume`, `publish`, or an adapter's name.
    pub link: String,
}

/// Every metric, for the reference: name, type, labels, meaning.
pub const METRICS: &[(&str, &str, &str, &str)] = &[
    (
        "packhorse_messages_total",
        "counter",
        "route, outcome",
        "messages handled: delivered, duplicate, later, dead, passed (not selected), nothing (asks for no event)",
    ),
    (
        "packhorse_dead_letters_total",
        "counter",
        "route, code",
        "messages given up, by the code of the failure",
    ),
    ("packhorse_taken_in_total", "counter", "route", "documents taken into the spool"),
    (
        "packhorse_refused_total",
        "counter",
        "route",
        "requests to the receiver that were refused: signature, login, size, no room",
    ),
    (
        "packhorse_in_doubt_total",
        "counter",
        "route",
        "attempts after which nobody knew whether the request was carried out",
    ),
    ("packhorse_request_seconds", "histogram", "route", "how long requests to systems took"),
    ("packhorse_drift_total", "counter", "mapping", "documents with parts that no row of the mapping knows"),
    ("packhorse_spool_bytes", "gauge", "", "bytes that wait in the spool"),
    (
        "packhorse_journal_messages",
        "gauge",
        "",
        "messages that the journal remembers one by one, so that none is done twice",
    ),
    (
        "packhorse_journal_oldest_seconds",
        "gauge",
        "",
        "how long ago the oldest of them was taken in; much more than `[store] keep`: dead letters wait for a person, or pruning does not keep up",
    ),
    ("packhorse_store_bytes", "gauge", "", "bytes of the store on disk"),
    ("packhorse_open_items", "gauge", "route", "items that are open in a system and asked about"),
    (
        "packhorse_route_state",
        "gauge",
        "route, state",
        "1 for the state the route is in: open, closed (outside its hours), paused (by a person), away, probing",
    ),
    (
        "packhorse_oldest_waiting_seconds",
        "gauge",
        "route",
        "how long what waits longest has waited; 0 if nothing does",
    ),
    ("packhorse_broker_connected", "gauge", "link", "1 while the connection to the broker is up"),
    ("packhorse_broker_blocked", "gauge", "link", "1 while the broker takes no messages"),
];

/// All metrics of a process.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    /// `packhorse_messages_total`
    pub messages: Family<OutcomeLabel, Counter>,
    /// `packhorse_dead_letters_total`
    pub dead_letters: Family<CodeLabel, Counter>,
    /// `packhorse_taken_in_total`
    pub taken_in: Family<RouteLabel, Counter>,
    /// `packhorse_refused_total`
    pub refused: Family<RouteLabel, Counter>,
    /// `packhorse_in_doubt_total`
    pub in_doubt: Family<RouteLabel, Counter>,
    /// `packhorse_request_seconds`
    pub requests: Family<RouteLabel, Histogram, fn() -> Histogram>,
    /// `packhorse_drift_total`
    pub drift: Family<MappingLabel, Counter>,
    /// `packhorse_spool_bytes`
    pub spool_bytes: Gauge<i64>,
    /// `packhorse_journal_messages`
    pub journal_messages: Gauge<i64>,
    /// `packhorse_journal_oldest_seconds`
    pub journal_oldest: Gauge<i64>,
    /// `packhorse_store_bytes`
    pub store_bytes: Gauge<i64>,
    /// `packhorse_open_items`
    pub open_items: Family<RouteLabel, Gauge>,
    /// `packhorse_route_state`
    pub states: Family<StateLabel, Gauge>,
    /// `packhorse_oldest_waiting_seconds`
    pub oldest: Family<RouteLabel, Gauge>,
    /// `packhorse_broker_connected`
    pub connected: Family<LinkLabel, Gauge>,
    /// `packhorse_broker_blocked`
    pub blocked: Family<LinkLabel, Gauge>,
}

impl Default for Metrics {
    fn default() -> Metrics {
        let mut registry = Registry::with_prefix("packhorse");
        let help = |name: &str| {
            let found = METRICS
                .iter()
                .find(|(full, ..)| full.trim_start_matches("packhorse_").trim_end_matches("_total") == name);
            found.map_or("", |(_, _, _, about)| *about)
        };
        macro_rules! register {
            ($name:literal) => {{
                let metric = Family::default();
                registry.register($name, help($name), metric.clone());
                metric
            }};
        }
        let histogram: fn() -> Histogram = || Histogram::new([0.005, 0.02, 0.1, 0.5, 1.0, 3.0, 10.0, 30.0]);
        let requests = Family::new_with_constructor(histogram);
        registry.register_with_unit("request", help("request_seconds"), Unit::Seconds, requests.clone());
        let mut gauge = |name: &str| {
            let gauge = Gauge::<i64>::default();
            registry.register(name, help(name), gauge.clone());
            gauge
        };
        let (spool_bytes, store_bytes) = (gauge("spool_bytes"), gauge("store_bytes"));
        let (journal_messages, journal_oldest) = (gauge("journal_messages"), gauge("journal_oldest_seconds"));
        Metrics {
            messages: register!("messages"),
            dead_letters: register!("dead_letters"),
            taken_in: register!("taken_in"),
            refused: register!("refused"),
            in_doubt: register!("in_doubt"),
            requests,
            drift: register!("drift"),
            spool_bytes,
            journal_messages,
            journal_oldest,
            store_bytes,
            open_items: register!("open_items"),
            states: register!("route_state"),
            oldest: register!("oldest_waiting_seconds"),
            connected: register!("broker_connected"),
            blocked: register!("broker_blocked"),
            registry: Arc::new(registry),
        }
    }
}

impl Metrics {
    /// All of them in OpenMetrics text form.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing into a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    /// Counts what became of messages of a route.
    pub fn count(&self, route: &str, outcome: &'static str, messages: u64) {
        let label = OutcomeLabel { route: route.to_owned(), outcome };
        self.messages.get_or_create_owned(&label).inc_by(messages);
    }

    /// Counts a dead letter.
    pub fn dead(&self, route: &str, code: &'static str) {
        self.dead_letters.get_or_create_owned(&CodeLabel { route: route.to_owned(), code }).inc();
        self.count(route, "dead", 1);
    }

    /// Notes how long a request took.
    pub fn request(&self, route: &str, took: Duration) {
        self.requests
            .get_or_create_owned(&RouteLabel { route: route.to_owned() })
            .observe(took.as_secs_f64());
    }

    /// Notes how large the journal and its store are, and how many seconds ago its oldest message was taken in.
    pub fn journal(&self, messages: i64, bytes: i64, oldest: i64) {
        self.journal_messages.set(messages);
        self.store_bytes.set(bytes);
        self.journal_oldest.set(oldest);
    }

    /// Notes how a route's gate stands.
    pub fn route_state(&self, route: &str, state: &'static str) {
        for other in ["open", "closed", "paused", "away", "probing"] {
            let label = StateLabel { route: route.to_owned(), state: other };
            self.states.get_or_create_owned(&label).set(i64::from(other == state));
        }
    }

    /// Counts in a family with a route's label.
    pub fn inc(family: &Family<RouteLabel, Counter>, route: &str) {
        family.get_or_create_owned(&RouteLabel { route: route.to_owned() }).inc();
    }
}

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Turns logging on, to stderr, as `RUST_LOG` says (default: `info`, and only warnings from libraries).
pub fn logging(format: LogFormat, usual: &str) {
    use tracing_subscriber::{EnvFilter, fmt};
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(usual));
    let builder = fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // A second initialisation, as in tests, is no fault.
    let _ = match format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => builder.with_ansi(false).try_init(),
    };
}

/// A trace context (W3C Trace Context s.3.2), handed on from hop to hop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    trace: String,
    flags: String,
}

impl Trace {
    /// The context in a `traceparent` header, if it is one.
    pub fn parse(header: &str) -> Option<Trace> {
        let mut parts = header.trim().split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let hex = |text: &str, length: usize| {
            text.len() == length && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        let zero = |text: &str| text.bytes().all(|b| b == b'0');
        let fine = hex(version, 2)
            && version != "ff"
            && hex(trace, 32)
            && !zero(trace)
            && hex(span, 16)
            && !zero(span)
            && hex(flags, 2);
        fine.then(|| Trace { trace: trace.to_owned(), flags: flags.to_owned() })
    }

    /// The header for the next hop.
    pub fn next_hop(&self) -> String {
        let span: String = nonce().chars().take(16).collect();
        format!("00-{}-{span}-{}", self.trace, self.flags)
    }
}

/// 32 hexadecimal digits that nobody has used before.
pub fn nonce() -> String {
    use ring::rand::{SecureRandom as _, SystemRandom};
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let mut bytes = [0; 16];
    if SystemRandom::new().fill(&mut bytes).is_err() {
        // Without the system's randomness still different from all others of this process.
        let count = COUNTER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        bytes.iter_mut().zip(count.to_be_bytes()).for_each(|(to, from)| *to = from);
    }
    crate::event::hex(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trace_context_is_handed_on_and_nonsense_is_not() {
        let header = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let next = Trace::parse(header).unwrap().next_hop();
        assert!(next.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-") && next.ends_with("-01"), "{next}");
        assert_ne!(next, header);
        for bad in [
            "",
            "00-0-0-00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        ] {
            assert_eq!(Trace::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn every_metric_of_the_reference_is_there() {
        let metrics = Metrics::default();
        metrics.count("r", "delivered", 1);
        metrics.dead("r", "PH1");
        metrics.request("r", Duration::from_millis(5));
        for family in [&metrics.taken_in, &metrics.refused, &metrics.in_doubt] {
            Metrics::inc(family, "r");
        }
        metrics.drift.get_or_create_owned(&MappingLabel { mapping: "m".into() }).inc();
        metrics.open_items.get_or_create_owned(&RouteLabel { route: "r".into() }).set(1);
        metrics.route_state("r", "open");
        metrics.oldest.get_or_create_owned(&RouteLabel { route: "r".into() }).set(1);
        metrics.connected.get_or_create_owned(&LinkLabel { link: "l".into() }).set(1);
        metrics.blocked.get_or_create_owned(&LinkLabel { link: "l".into() }).set(0);
        let text = metrics.encode();
        for (name, _, _, about) in METRICS {
            assert!(text.contains(name), "{name} is not in\n{text}");
            assert!(text.contains(about), "no help for {name}");
        }
    }
}
