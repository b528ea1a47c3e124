//! How often and how many at once a system is called. Whoever calls waits for its turn; turns are taken in the order in
//! which they are asked for.

use crate::config::plan::Bears;
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::Duration,
};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::Instant,
};

/// More calls at once than any system is given.
const MOST_AT_ONCE: u32 = 65_536;

/// What a system bears: all routes together, and single kinds of requests.
pub struct Pace {
    at_once: Option<Semaphore>,
    per_minute: Option<Limiter>,
    rates: HashMap<String, Limiter>,
}

/// The right to make one call, until it is answered.
pub struct Call<'a> {
    _permit: Option<SemaphorePermit<'a>>,
    _turns: [Option<Turn<'a>>; 2],
}

impl Pace {
    /// The pace of a system that bears this.
    pub fn new(bears: &Bears, rates: &BTreeMap<String, (u32, Duration)>) -> Pace {
        let at_once = bears.most_at_once.map(|most| Semaphore::new(most.min(MOST_AT_ONCE) as usize));
        let per_minute = bears.per_minute.map(|count| Limiter::new(count, Duration::from_secs(60)));
        let rates = rates.iter().map(|(name, (count, per))| (name.clone(), Limiter::new(*count, *per)));
        Pace { at_once, per_minute, rates: rates.collect() }
    }

    /// Waits until a call may be made, which counts under this rate as well.
    pub async fn call(&self, rate: Option<&str>) -> Call<'_> {
        // First the turn: who waits for a minute keeps no place from others.
        let mut turns = [None, None];
        let limiters = [rate.and_then(|rate| self.rates.get(rate)), self.per_minute.as_ref()];
        for (turn, limiter) in turns.iter_mut().zip(limiters) {
            if let Some(limiter) = limiter {
                *turn = limiter.turn().await;
            }
        }
        let permit = match &self.at_once {
            Some(room) => room.acquire().await.ok(),
            None => None,
        };
        Call { _permit: permit, _turns: turns }
    }
}

/// So many within any stretch of time, as the other side counts: each turn is free again so long after its request was
/// answered, since only then it is sure that the request had arrived.
pub struct Limiter {
    per: Duration,
    turns: Semaphore,
    /// When the turns that nobody has are free, the earliest first.
    free: std::sync::Mutex<VecDeque<Instant>>,
}

/// A request's turn, until it is answered.
pub struct Turn<'a> {
    limiter: &'a Limiter,
    _permit: SemaphorePermit<'a>,
}

impl Limiter {
    /// So many within any such time.
    pub fn new(count: u32, per: Duration) -> Limiter {
        let free = std::iter::repeat_n(Instant::now(), count as usize).collect();
        Limiter { per, turns: Semaphore::new(count as usize), free: std::sync::Mutex::new(free) }
    }

    /// Waits for a turn; they are taken in the order in which they are asked for.
    pub async fn turn(&self) -> Option<Turn<'_>> {
        let permit = self.turns.acquire().await.ok()?;
        let at = self.free.lock().ok()?.pop_front();
        let turn = Turn { limiter: self, _permit: permit };
        tokio::time::sleep_until(at?).await;
        Some(turn)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Ok(mut free) = self.limiter.free.lock() {
            free.push_back(Instant::now() + self.limiter.per);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_kept_over_every_window() {
        let limiter = Limiter::new(3, Duration::from_secs(1));
        let began = Instant::now();
        let mut times = Vec::new();
        for _ in 0..10 {
            let turn = limiter.turn().await;
            times.push(began.elapsed());
            drop(turn);
        }
        for window in times.windows(4) {
            assert!(window[3] - window[0] >= Duration::from_secs(1), "{times:?}");
        }
        assert!(times[9] < Duration::from_millis(3_100));
    }

    #[tokio::test(start_paused = true)]
    async fn a_system_is_called_by_no_more_at_once_than_it_bears() {
        let bears = Bears {
            hours: None,
            most_at_once: Some(2),
            per_minute: Some(4),
            first_pause: Duration::ZERO,
            longest_pause: Duration::ZERO,
            tell_after: Duration::ZERO,
        };
        let pace = Pace::new(&bears, &BTreeMap::new());
        let (one, _two) = (pace.call(None).await, pace.call(None).await);
        let soon = Duration::from_secs(5);
        assert!(tokio::time::timeout(soon, pace.call(None)).await.is_err());
        drop(one);
        drop(tokio::time::timeout(soon, pace.call(None)).await.unwrap());
        let began = Instant::now();
        for _ in 0..2 {
            drop(pace.call(None).await);
        }
        assert!(began.elapsed() >= Duration::from_secs(50), "{:?}", began.elapsed());
    }
}
