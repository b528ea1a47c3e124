//! `packhorse run`.

use super::exit;
use crate::{bridge::Bridge, code::Code};
use std::path::Path;
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

/// Runs the bridge until SIGTERM or Ctrl-C.
pub fn run(path: &Path) -> u8 {
    let (_, config) = match super::configuration(path) {
        Ok(found) => found,
        Err(code) => return code,
    };
    let ran = super::block_on(async {
        let bridge = match Bridge::start(config).await {
            Ok(bridge) => bridge,
            Err(error) => {
                super::complain(error.code, &error.what);
                return match error.code {
                    Code::StoreUnavailable
                    | Code::StoreFull
                    | Code::StoreNewer
                    | Code::StoreMoved
                    | Code::StoreDamaged => exit::STORE,
                    Code::BrokerUnreachable | Code::BrokerLoginRefused | Code::TlsFailed => exit::UNAVAILABLE,
                    _ => exit::CONFIG,
                };
            }
        };
        let (Ok(mut terminate), Ok(mut interrupt)) =
            (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
        else {
            super::complain(Code::StoreUnavailable, "signals cannot be listened to");
            return exit::CONFIG;
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        bridge.stop().await;
        info!("stopped");
        0
    });
    ran.unwrap_or_else(|code| code)
}
