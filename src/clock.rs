//! The time that waits are counted by. The wall clock may be set: forward, and what was to wait for a minute is due at
//! once, what was to be settled counts as settled; back, and what was to wait for seconds waits for an hour. This time never
//! goes back while the program runs, and knows how much of it was only skipped. It is not for people, opening hours or
//! cut-offs, which go by the wall clock.

use jiff::Timestamp;
use std::{
    collections::VecDeque,
    sync::{Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

/// The wall clock may be so far ahead without having been set: it is put right little by little.
const DRIFT: i64 = 1_000;
/// How many settings of the clock are remembered.
const MOST: usize = 1_000;

/// A time in milliseconds, made of two clocks.
#[derive(Debug)]
struct Time {
    /// What the steady clock's beginning is in this time.
    began: i64,
    /// When the wall clock was set forward, and by how much.
    skips: VecDeque<(i64, i64)>,
}

impl Time {
    /// Now, by the wall clock and the steady one.
    fn now(&mut self, wall: i64, steady: i64) -> i64 {
        let own = self.began.saturating_add(steady);
        let ahead = wall.saturating_sub(own);
        if ahead <= DRIFT {
            return own;
        }
        self.skips.push_back((own, ahead));
        if self.skips.len() > MOST {
            self.skips.pop_front();
        }
        self.began = self.began.saturating_add(ahead);
        wall
    }

    /// How long ago that was, as far as it was lived through.
    fn since(&self, then: i64, now: i64) -> i64 {
        let skipped: i64 = self.skips.iter().filter(|(at, _)| *at >= then).map(|(_, by)| by).sum();
        now.saturating_sub(then).saturating_sub(skipped).max(0)
    }
}

fn with<T>(act: impl FnOnce(&mut Time, i64) -> T) -> T {
    static TIME: OnceLock<(Instant, Mutex<Time>)> = OnceLock::new();
    let wall = Timestamp::now().as_millisecond();
    let (beginning, time) =
        TIME.get_or_init(|| (Instant::now(), Mutex::new(Time { began: wall, skips: VecDeque::new() })));
    let steady = i64::try_from(beginning.elapsed().as_millis()).unwrap_or(i64::MAX);
    // Whoever panicked with it left it as it was: every change is one statement.
    let mut time = time.lock().unwrap_or_else(PoisonError::into_inner);
    let now = time.now(wall, steady);
    act(&mut time, now)
}

/// Now, in milliseconds since 1970: never earlier than it was before in this run of the program.
pub fn now() -> i64 {
    with(|_, now| now)
}

/// How long ago a moment of [`now`] was. What of it the clock was only set forward by does not count, as far as this run of
/// the program has seen it.
pub fn since(then: i64) -> Duration {
    with(|time, now| Duration::from_millis(u64::try_from(time.since(then, now)).unwrap_or(0)))
}

/// Puts this time where another run of the program came to, if that is later: the clock was ahead there, or has been set
/// back since, and what was put off then would wait for that long.
pub fn not_before(moment: i64) {
    with(|time, now| time.began = time.began.saturating_add(moment.saturating_sub(now).max(0)));
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    fn time() -> Time {
        Time { began: HOUR, skips: VecDeque::new() }
    }

    #[test]
    fn a_clock_that_is_set_back_changes_nothing() {
        let mut time = time();
        assert_eq!(time.now(HOUR, 0), HOUR);
        assert_eq!(time.now(5, 5), HOUR + 5);
        assert_eq!(time.now(0, 6), HOUR + 6);
        // And forward again to where it was.
        assert_eq!(time.now(HOUR + 7, 7), HOUR + 7);
        assert_eq!(time.since(HOUR, HOUR + 7), 7);
    }

    #[test]
    fn a_clock_that_is_set_forward_is_followed_and_what_was_skipped_is_not_waited_for() {
        let mut time = time();
        let sent = time.now(HOUR, 0);
        assert_eq!(time.now(2 * HOUR + 10, 10), 2 * HOUR + 10);
        assert_eq!(time.since(sent, 2 * HOUR + 10), 10);
        let again = time.now(2 * HOUR + 20, 20);
        assert_eq!(time.now(3 * HOUR + 30, 30), 3 * HOUR + 30);
        assert_eq!((time.since(sent, 3 * HOUR + 30), time.since(again, 3 * HOUR + 30)), (30, 10));
        // What came from elsewhere, and is later than now, was just now.
        assert_eq!(time.since(9 * HOUR, 3 * HOUR + 30), 0);
    }

    #[test]
    fn a_clock_that_is_put_right_little_by_little_skips_nothing() {
        let mut time = time();
        for step in 0..1_000 {
            time.now(HOUR + step * 1_001, step * 1_000);
        }
        assert!(time.skips.is_empty());
    }

    #[test]
    fn only_so_many_settings_are_remembered() {
        let mut time = time();
        for step in 1..=2_000 {
            time.now(HOUR + step * HOUR, 0);
        }
        assert_eq!(time.skips.len(), MOST);
    }
}
