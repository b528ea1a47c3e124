//! Growing, jittered delays within one process: reconnecting, trying again at once. The only module that names `backoff`.
//!
//! `backoff` is unmaintained (RUSTSEC-2025-0012) and used because it was asked for, as a calculator of delays and nothing
//! else; see `docs/decisions/0001-backoff.md`. Waits that must survive a restart do not come from here.

use backoff::{ExponentialBackoff, ExponentialBackoffBuilder, backoff::Backoff as _};
use std::time::Duration;

/// A series of growing delays.
#[derive(Debug)]
pub struct Delays {
    inner: ExponentialBackoff,
    most: Duration,
}

impl Delays {
    /// From `first`, about doubling, never more than `most`, for ever.
    pub fn new(first: Duration, most: Duration) -> Delays {
        let inner = ExponentialBackoffBuilder::new()
            .with_initial_interval(first)
            .with_multiplier(2.0)
            .with_randomization_factor(0.3)
            .with_max_interval(most)
            .with_max_elapsed_time(None)
            .build();
        Delays { inner, most }
    }

    /// The next delay. `backoff` puts jitter on top of its cap; here the cap holds.
    pub fn delay(&mut self) -> Duration {
        self.inner.next_backoff().unwrap_or(self.most).min(self.most)
    }

    /// Begins anew with the first delay.
    pub fn reset(&mut self) {
        self.inner.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_their_cap_and_never_beyond() {
        let mut delays = Delays::new(Duration::from_millis(100), Duration::from_secs(5));
        let first = delays.delay();
        assert!(first >= Duration::from_millis(70) && first <= Duration::from_millis(130), "{first:?}");
        let later: Vec<Duration> = (0..50).map(|_| delays.delay()).collect();
        assert!(later.iter().all(|delay| *delay <= Duration::from_secs(5)));
        assert!(later.last().is_some_and(|delay| *delay >= Duration::from_secs(3)));
        delays.reset();
        assert!(delays.delay() <= Duration::from_millis(130));
    }
}
