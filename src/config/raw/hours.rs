//! Keys of what a system bears: when it is open, and how it is left alone when it is away.

use super::batch::Weekday;
use schemars::JsonSchema;
use serde::Deserialize;

/// When a system is open. Outside its hours nothing is sent to it and nothing asked: messages wait in their queues.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HoursKeys {
    /// The times at which it is open.
    pub open: Vec<SpanKeys>,
    /// Days on which it does not open: a calendar, `mappings/calendars/<name>.toml`.
    pub holidays: Option<String>,
    /// The zone of these times. Default: `Europe/London`.
    pub zone: Option<String>,
}

/// A time of day at which a system is open.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SpanKeys {
    /// The days of the week on which it begins: `["mon", "tue"]`. Default: Monday to Friday.
    pub days: Option<Vec<Weekday>>,
    /// When it begins: `07:00`.
    pub from: String,
    /// When it ends: `19:00`; `24:00` for the end of the day. An end that is earlier than `from` is one of the next day.
    pub to: String,
}

/// How a system that is away is left alone. The pauses of a route grow from `first` to `most`, each twice as long as the
/// one before; after each, one message is tried.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WhenAwayKeys {
    /// The first pause. Default: `5s`.
    pub first: Option<String>,
    /// The longest. Default: `5m`.
    pub most: Option<String>,
}
