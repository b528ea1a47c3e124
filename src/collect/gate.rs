//! What a collect route does with its gate: it says how old what waits is. Whether it may look is asked where it looks.

use super::Collector;
use jiff::Timestamp;
use std::{sync::Arc, time::Duration};
use tracing::warn;

/// How often it is looked at what waits.
const LOOK: Duration = Duration::from_secs(60);

impl Collector {
    /// Says from time to time how old what waits longest is, until it is stopped.
    pub(super) async fn telling(self: Arc<Self>) {
        let every = LOOK.min(self.keeper.tell_after() / 4).max(Duration::from_millis(250));
        while !self.stop.is_cancelled() {
            self.pause(every).await;
            match self.store.oldest_waiting(self.number).await {
                Ok(waiting) => {
                    self.keeper.waits_since(waiting.and_then(|at| Timestamp::from_millisecond(at).ok()));
                }
                Err(error) => {
                    warn!(route = self.route.id, code = %error.code, "it cannot be seen what waits: {}", error.what);
                }
            }
        }
    }

    /// Whether what is taken in may be forwarded: what is fetched for it is a call of the system, and must wait for its
    /// hours; otherwise only a person's pause holds it up. `false` when we are stopping.
    pub(super) async fn may_forward(&self) -> bool {
        match self.route.plan.fetch.is_empty() {
            true => self.keeper.unpaused(&self.stop).await,
            false => self.keeper.pass(&self.stop).await.is_some(),
        }
    }
}
