//! The broker: the only user of lapin. Supervised connections, lanes of deliveries, windows of confirmed publishes,
//! topology. Knows no event, no system, no store.
//!
//! Facts that shaped it, each measured: a returned message is attached to the wrong confirm when several are in flight
//! (matched by content here, [`publish`]); a connect to a silent peer never ends (bounded in [`link`]); a consumer whose
//! queue is deleted just ends ([`lane`]); an acknowledgement on a dead channel says `Ok(false)`; a blocked connection
//! hangs acknowledgements too, so publishing and consuming have a connection each.

mod greeting;
pub mod lane;
pub mod link;
pub mod message;
pub mod publish;
pub mod topology;

pub use greeting::{Greeting, greet};
pub use lane::{Delivery, InOrder, Lane, Settle};
pub use link::Link;
pub use message::{Message, Properties};
pub use publish::{Published, Publisher};

use crate::code::Code;
use std::fmt;

/// What went wrong with the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerError {
    /// The code.
    pub code: Code,
    /// What happened, what it means, what to do.
    pub what: String,
}

impl fmt::Display for BrokerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.what)
    }
}

impl std::error::Error for BrokerError {}

impl BrokerError {
    pub(crate) fn new(code: Code, what: impl Into<String>) -> BrokerError {
        BrokerError { code, what: what.into() }
    }

    /// What a lapin error means.
    pub(crate) fn of(doing: &str, error: &lapin::Error) -> BrokerError {
        let code = match error.kind() {
            lapin::ErrorKind::ProtocolError(error) => match error.get_id() {
                403 => Code::NoPermission,
                404 => Code::TopologyMissing,
                405 | 406 => Code::TopologyDiffers,
                530 => Code::BrokerLoginRefused,
                _ => Code::BrokerUnreachable,
            },
            _ => Code::BrokerUnreachable,
        };
        BrokerError::new(code, format!("{doing}: {}", sentence(error)))
    }
}

/// A lapin error in words, without its debug ornaments.
pub(crate) fn sentence(error: &lapin::Error) -> String {
    match error.kind() {
        lapin::ErrorKind::ProtocolError(error) => {
            format!("the broker says {} {}", error.get_id(), error.get_message())
        }
        lapin::ErrorKind::MissingHeartbeatError => "the broker has been silent for two heartbeats".to_owned(),
        lapin::ErrorKind::IOError(error) => error.to_string(),
        other => format!("{other:?}"),
    }
}
