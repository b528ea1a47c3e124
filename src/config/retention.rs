//! How long the journal must remember a message: as long as a copy of it can still come. Whatever is forgotten sooner could be
//! done a second time.

use super::{Config, plan::Source, units};
use std::time::Duration;

const DAY: Duration = Duration::from_secs(86_400);
/// How long it remembers at least, unless the settings say otherwise.
const USUAL: Duration = Duration::from_secs(90 * 86_400);

/// How long a message can be under way, at the longest, and on which route.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Longest {
    /// How long.
    pub time: Duration,
    /// The route.
    pub route: String,
}

/// What the memory must span.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Span {
    /// In retry queues: until it is given up, and the last wait.
    pub tiers: Longest,
    /// As a dead letter.
    pub dead_letters: Duration,
    /// In the spool, or asked about in a system.
    pub spool: Longest,
}

impl Span {
    /// Of this configuration.
    pub fn of(config: &Config) -> Span {
        let longest = |waits: &[Duration], give_up: Duration| {
            give_up.saturating_add(waits.iter().max().copied().unwrap_or_default())
        };
        let mut span = Span { dead_letters: config.store.dead_letters, ..Span::default() };
        for route in &config.deliver {
            let retry = &route.plan.retry;
            span.tiers.at_least(longest(&retry.waits, retry.give_up), &route.id);
        }
        for route in &config.collect {
            let retry = &route.plan.retry;
            span.spool.at_least(longest(&retry.waits, retry.give_up), &route.id);
            if let Source::Ask(ask) = &route.plan.source {
                span.spool.at_least(longest(&route.pace, ask.give_up), &route.id);
            }
        }
        span
    }

    /// All of it, one after the other.
    pub fn total(&self) -> Duration {
        self.tiers.time.saturating_add(self.dead_letters).saturating_add(self.spool.time)
    }

    /// How long it is remembered if the settings do not say.
    pub fn usual(&self) -> Duration {
        USUAL.max(self.total())
    }

    /// Why a memory of this length is too short, and what to do; nothing if it is not.
    pub fn too_short(&self, keep: Duration) -> Option<(String, String)> {
        let total = self.total();
        if keep >= total {
            return None;
        }
        let mut parts = Vec::new();
        if !self.tiers.route.is_empty() {
            parts.push(format!(
                "{} in retry queues ({})",
                units::in_words(self.tiers.time),
                self.tiers.route
            ));
        }
        parts.push(format!("{} as a dead letter", units::in_words(self.dead_letters)));
        if !self.spool.route.is_empty() {
            let time = units::in_words(self.spool.time);
            parts.push(format!("{time} in the spool or asked about ({})", self.spool.route));
        }
        let what = format!(
            "what has been done is forgotten after {}, and a copy can come back after {}: {}",
            units::in_words(keep),
            units::in_words(total),
            parts.join(" + ")
        );
        let days = total.as_secs().div_ceil(DAY.as_secs());
        let help = format!(
            "say `keep = \"{days}d\"` or more; or shorten `dead_letters` under [store], or what the route says of `give_up`"
        );
        Some((what, help))
    }
}

impl Longest {
    fn at_least(&mut self, time: Duration, route: &str) {
        if time > self.time {
            *self = Longest { time, route: route.to_owned() };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_spans_retries_a_dead_letter_and_the_spool_one_after_the_other() {
        let longest = |hours: u64, route: &str| Longest {
            time: Duration::from_secs(hours * 3_600),
            route: route.to_owned(),
        };
        let span =
            Span { tiers: longest(78, "a.post"), dead_letters: 30 * DAY, spool: longest(24, "b.notices") };
        assert_eq!(span.total(), Duration::from_secs((78 + 720 + 24) * 3_600));
        assert_eq!(span.too_short(span.total()), None);
        let (what, help) = span.too_short(20 * DAY).unwrap();
        assert_eq!(
            what,
            "what has been done is forgotten after 20d, and a copy can come back after 822h: 78h in retry queues (a.post) + 30d as a dead letter + 1d in the spool or asked about (b.notices)"
        );
        assert!(help.contains("keep = \"35d\""), "{help}");
        assert_eq!(
            (span.usual(), Span { dead_letters: 100 * DAY, ..span }.usual()),
            (90 * DAY, Duration::from_secs((78 + 2_400 + 24) * 3_600))
        );
    }
}
