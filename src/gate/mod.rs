//! The gate of a route: whether messages may go through to its system at this moment, and if not, why and until when.
//! Pure: events in, effects out, the clock passed in.
//!
//! ```text
//! paused    a person has stopped it, until a person lets it go on
//! closed    the system is not open at this hour
//! tripped   the system was found to be away: nothing is sent until a moment
//! probing   that moment has come: one message at a time is sent, and the first that gets through opens the gate
//! open      everything else
//! ```
//!
//! What fails because the system is away is not the message's fault, and costs it no attempt. Whether it is the system or
//! the message is told apart by the others: one that fails again after another has got through is judged for itself.

mod hours;

pub use hours::{Door, Hours, Span};

use jiff::Timestamp;
use std::{collections::VecDeque, time::Duration};

/// So many attempts in a row whose outcome is unknown are the system's fault.
const AILING: u32 = 3;
/// A system that asks to be left alone for longer is tried all the same.
const MOST_ASKED: Duration = Duration::from_secs(3_600);
/// So many messages are remembered that failed while the system may have been away.
const SUSPECTS: usize = 256;

/// What a gate is made of.
#[derive(Debug, Clone)]
pub struct Settings {
    /// When the system is open; always, if nothing is said.
    pub hours: Option<Hours>,
    /// How long nothing is sent after it was found to be away; each further time twice as long.
    pub first: Duration,
    /// But never longer than this.
    pub most: Duration,
}

/// What a person has stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// Who.
    pub who: String,
    /// Why.
    pub why: String,
    /// Since when.
    pub since: Timestamp,
}

/// How a gate stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Messages go through.
    Open,
    /// The system is not open at this hour.
    Closed { until: Option<Timestamp> },
    /// A person has stopped it.
    Paused(Pause),
    /// The system is away.
    Tripped(Trip),
    /// One message is tried.
    Probing(Trip),
}

/// A system that was found to be away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trip {
    /// Since when.
    pub since: Timestamp,
    /// When it is tried next.
    pub until: Timestamp,
    /// How often it has been found so, in a row.
    pub times: u32,
    /// How long nothing is sent.
    pub pause: Duration,
}

/// What may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// Messages, as many as the route takes.
    All,
    /// One, by whoever asked first: it must be told how that one ended, or that it will not be sent. Each has its number.
    One(u64),
    /// None.
    None,
}

/// What an attempt says of the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// It is there: it has done what it was asked, or refused it.
    There,
    /// It is away, or asks to be left alone for so long.
    Away(Option<Duration>),
    /// Nobody knows what it has done.
    Unclear,
    /// Nothing: the attempt did not come so far, or failed for a reason of its own.
    Nothing,
}

/// What becomes of a message whose attempt has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Then {
    /// It is judged for itself, as always.
    Judge,
    /// It is not the message's fault: it waits, with as many attempts as it had.
    Spare,
}

/// The gate of one route. `K` names a message.
#[derive(Debug)]
pub struct Gate<K> {
    settings: Settings,
    pause: Option<Pause>,
    trip: Option<Trip>,
    /// How many have been let pass and are not yet back.
    out: u32,
    /// Who has the one message that is tried.
    probe: Option<u64>,
    probes: u64,
    unclear: u32,
    /// How many messages have got through, ever.
    through: u64,
    suspects: VecDeque<(K, u64)>,
}

impl<K: Copy + Eq> Gate<K> {
    /// A gate of which nothing is known: its system counts as being there.
    pub fn new(settings: Settings) -> Gate<K> {
        Gate {
            settings,
            pause: None,
            trip: None,
            out: 0,
            probe: None,
            probes: 0,
            unclear: 0,
            through: 0,
            suspects: VecDeque::new(),
        }
    }

    /// How it stands.
    pub fn state(&self, now: Timestamp) -> State {
        if let Some(pause) = &self.pause {
            return State::Paused(pause.clone());
        }
        if let Some(Door::Closed(until)) = self.settings.hours.as_ref().map(|hours| hours.at(now)) {
            return State::Closed { until };
        }
        match self.trip {
            None => State::Open,
            Some(trip) if self.probe.is_some() || trip.until <= now => State::Probing(trip),
            Some(trip) => State::Tripped(trip),
        }
    }

    /// What may pass now. Whoever is let pass says so when it has come back: [`Gate::returned`].
    pub fn pass(&mut self, now: Timestamp) -> Pass {
        self.keep_time(now);
        match self.state(now) {
            State::Open => {
                self.out += 1;
                Pass::All
            }
            // Not before all that were under way are back: what ends from here on is the one that is tried.
            State::Probing(_) if self.probe.is_none() && self.out == 0 => {
                self.probes += 1;
                self.probe = Some(self.probes);
                Pass::One(self.probes)
            }
            State::Probing(_) | State::Closed { .. } | State::Paused(_) | State::Tripped(_) => Pass::None,
        }
    }

    /// Whether what was let pass may still go on.
    pub fn holds(&self, pass: Pass, now: Timestamp) -> bool {
        match (pass, self.state(now)) {
            (Pass::All, State::Open) => true,
            (Pass::One(number), State::Probing(_)) => self.probe == Some(number),
            (Pass::All | Pass::One(_) | Pass::None, _) => false,
        }
    }

    /// A clock that was set back must not make a pause longer than it was meant to be.
    fn keep_time(&mut self, now: Timestamp) {
        if let Some(trip) = &mut self.trip {
            trip.until = trip.until.min(later(now, trip.pause));
            trip.since = trip.since.min(now);
        }
    }

    /// Whether a message may be sent at this moment by somebody who was let pass.
    pub fn may_send(&self, now: Timestamp) -> bool {
        match self.state(now) {
            State::Open => true,
            State::Probing(_) => self.probe.is_some(),
            State::Closed { .. } | State::Paused(_) | State::Tripped(_) => false,
        }
    }

    /// An attempt at a message has ended.
    pub fn ended(&mut self, key: K, said: Said, now: Timestamp) -> Then {
        match said {
            Said::There => {
                self.through += 1;
                self.unclear = 0;
                self.trip = None;
                self.probe = None;
                Then::Judge
            }
            Said::Nothing => Then::Judge,
            Said::Unclear => {
                self.unclear = self.unclear.saturating_add(1);
                if self.trip.is_some() || self.unclear >= AILING {
                    self.trips(None, now);
                }
                Then::Judge
            }
            Said::Away(asked) => {
                let through = self.through;
                let own_fault = match self.suspects.iter_mut().find(|(suspect, _)| *suspect == key) {
                    // Others have got through since it failed.
                    Some((_, before)) => std::mem::replace(before, through) < through,
                    None => {
                        if self.suspects.len() >= SUSPECTS {
                            self.suspects.pop_front();
                        }
                        self.suspects.push_back((key, through));
                        false
                    }
                };
                // One whose own fault it is says nothing of the system; only as the one that is tried it has used up its turn.
                if !own_fault || self.trip.is_some() {
                    self.trips(asked, now);
                }
                if own_fault { Then::Judge } else { Then::Spare }
            }
        }
    }

    /// Whoever was let pass sends nothing more.
    pub fn returned(&mut self, pass: Pass) {
        match pass {
            Pass::All => self.out = self.out.saturating_sub(1),
            Pass::One(number) if self.probe == Some(number) => self.probe = None,
            Pass::One(_) | Pass::None => {}
        }
    }

    fn trips(&mut self, asked: Option<Duration>, now: Timestamp) {
        // While it is shut, only the one that is tried says something new: others were under way before.
        if self.trip.is_some() && self.probe.is_none() {
            return;
        }
        let (since, times) = self.trip.map_or((now, 1), |trip| (trip.since, trip.times.saturating_add(1)));
        let doubled = self.settings.first.saturating_mul(1 << (times - 1).min(16));
        let pause = doubled.min(self.settings.most.max(self.settings.first));
        let pause = pause.max(asked.unwrap_or_default().min(MOST_ASKED));
        self.trip = Some(Trip { since, until: later(now, pause), times, pause });
        self.probe = None;
        self.unclear = 0;
    }

    /// A person stops it, or somebody has read that one did.
    pub fn pause(&mut self, pause: Option<Pause>) {
        self.pause = pause;
    }
}

fn later(now: Timestamp, by: Duration) -> Timestamp {
    now.checked_add(by).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_secs(5);
    const MOST: Duration = Duration::from_secs(300);

    fn gate() -> Gate<u32> {
        Gate::new(Settings { hours: None, first: FIRST, most: MOST })
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    #[test]
    fn a_system_that_is_away_costs_no_attempt_and_is_tried_with_one_message_after_growing_pauses() {
        let mut gate = gate();
        assert_eq!(gate.pass(at(0)), Pass::All);
        assert_eq!(gate.ended(1, Said::Away(None), at(0)), Then::Spare);
        // What was under way with it is spared as well, and makes the pause no longer.
        assert_eq!(gate.ended(2, Said::Away(None), at(1)), Then::Spare);
        assert_eq!(gate.pass(at(5)), Pass::None, "not all are back");
        gate.returned(Pass::All);
        let mut now = 0;
        for (times, pause) in [5, 10, 20, 40, 80, 160, 300, 300].into_iter().enumerate() {
            assert_eq!(gate.pass(at(now + pause - 1)), Pass::None, "{pause}");
            now += pause;
            assert!(matches!(gate.state(at(now)), State::Probing(_)));
            let one = gate.pass(at(now));
            assert!(matches!(one, Pass::One(_)), "{one:?}");
            assert_eq!(gate.pass(at(now)), Pass::None, "only one at a time");
            assert_eq!(gate.ended(1, Said::Away(None), at(now)), Then::Spare);
            let State::Tripped(trip) = gate.state(at(now)) else { panic!() };
            assert_eq!((trip.since, trip.times as usize), (at(0), times + 2));
        }
        assert!(matches!(gate.pass(at(now + 300)), Pass::One(_)));
        assert_eq!(gate.ended(1, Said::There, at(now + 300)), Then::Judge);
        assert_eq!((gate.pass(at(now + 300)), gate.state(at(now + 300))), (Pass::All, State::Open));
    }

    #[test]
    fn a_message_that_fails_again_after_others_got_through_is_judged_for_itself() {
        let mut gate = gate();
        assert_eq!(gate.ended(1, Said::Away(None), at(0)), Then::Spare);
        assert!(matches!(gate.pass(at(5)), Pass::One(_)));
        assert_eq!(gate.ended(2, Said::There, at(5)), Then::Judge);
        assert_eq!(gate.ended(1, Said::Away(None), at(6)), Then::Judge);
        assert_eq!(gate.state(at(6)), State::Open, "and does not hold up the others");
        assert_eq!(gate.ended(3, Said::Away(None), at(7)), Then::Spare);
        assert!(matches!(gate.state(at(7)), State::Tripped(_)));
    }

    #[test]
    fn what_is_unclear_is_the_systems_fault_only_when_it_comes_in_a_row() {
        let mut gate = gate();
        for said in [Said::Unclear, Said::Unclear, Said::There, Said::Unclear, Said::Unclear, Said::Nothing] {
            assert_eq!(gate.ended(1, said, at(0)), Then::Judge);
            assert_eq!(gate.state(at(0)), State::Open);
        }
        assert_eq!(gate.ended(1, Said::Unclear, at(0)), Then::Judge);
        assert!(matches!(gate.state(at(0)), State::Tripped(_)));
        assert!(matches!(gate.pass(at(5)), Pass::One(_)));
        assert_eq!(gate.ended(1, Said::Unclear, at(5)), Then::Judge);
        assert!(matches!(gate.state(at(5)), State::Tripped(Trip { times: 2, .. })));
    }

    #[test]
    fn a_system_is_left_alone_for_as_long_as_it_asks_but_not_for_ever() {
        for (asked, pause) in [(2, 5), (40, 40), (900, 900), (1_000_000, 3_600)] {
            let mut gate = gate();
            let asked = Some(Duration::from_secs(asked));
            assert_eq!(gate.ended(1, Said::Away(asked), at(0)), Then::Spare);
            assert_eq!(gate.pass(at(pause - 1)), Pass::None);
            assert!(matches!(gate.pass(at(pause)), Pass::One(_)));
        }
    }

    #[test]
    fn one_that_will_not_be_sent_leaves_its_turn_to_another() {
        let mut gate = gate();
        assert_eq!(gate.ended(1, Said::Away(None), at(0)), Then::Spare);
        let first = gate.pass(at(5));
        gate.returned(first);
        let second = gate.pass(at(5));
        assert!(matches!(second, Pass::One(_)) && second != first);
        gate.returned(first);
        assert_eq!(gate.pass(at(5)), Pass::None, "the second has its turn still");
    }

    #[test]
    fn a_person_comes_before_the_hours_and_the_hours_before_the_system() {
        let span = Span { week: Vec::new(), from: jiff::civil::time(7, 0, 0, 0), to: None };
        let hours = Hours { spans: vec![span], zone: jiff::tz::TimeZone::UTC, holidays: None };
        let mut gate: Gate<u32> = Gate::new(Settings { hours: Some(hours), first: FIRST, most: MOST });
        assert_eq!(gate.state(at(0)), State::Closed { until: None });
        let pause = Pause { who: "Olu".to_owned(), why: "upgrade".to_owned(), since: at(0) };
        gate.pause(Some(pause.clone()));
        assert_eq!((gate.state(at(9)), gate.pass(at(9))), (State::Paused(pause), Pass::None));
        gate.pause(None);
        gate.settings.hours = None;
        assert_eq!(gate.state(at(9)), State::Open);
    }

    #[test]
    fn a_clock_that_jumps_neither_burns_an_attempt_nor_shuts_the_gate_for_longer_than_its_pause() {
        let mut gate = gate();
        assert_eq!(gate.ended(1, Said::Away(None), at(100_000)), Then::Spare);
        // A day back: the pause begins anew, and no more.
        assert_eq!(gate.pass(at(0)), Pass::None);
        assert!(matches!(gate.pass(at(5)), Pass::One(_)));
        let mut forward = self::gate();
        assert_eq!(forward.ended(1, Said::Away(None), at(0)), Then::Spare);
        assert!(matches!(forward.pass(at(100_000)), Pass::One(_)));
    }

    /// Everything that can happen to a gate, in any order: what must hold always.
    #[test]
    fn whatever_happens_in_whatever_order_one_is_tried_at_a_time_nothing_is_burnt_and_no_pause_is_for_ever() {
        let mut random = 0x2545_f491_4f6c_dd1d_u64;
        let mut next = |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        for _ in 0..300 {
            let mut gate = gate();
            let (mut now, mut through) = (500_000_i64, 0_u64);
            let mut failed: std::collections::HashMap<u32, u64> = std::collections::HashMap::new();
            let mut out: Vec<Pass> = Vec::new();
            let mut paused = false;
            for _ in 0..200 {
                match next(12) {
                    0..=3 => match gate.pass(at(now)) {
                        Pass::None => {}
                        pass => {
                            assert!(!paused);
                            let live = |out: &&Pass| **out == Pass::All || gate.holds(**out, at(now));
                            let others = out.iter().filter(live).count();
                            assert!(!matches!(pass, Pass::One(_)) || others == 0, "not one at a time");
                            out.push(pass);
                        }
                    },
                    4..=8 if !out.is_empty() => {
                        let pass = out.swap_remove(usize::try_from(next(out.len() as u64)).unwrap());
                        let key = u32::try_from(next(8)).unwrap();
                        let said = [Said::There, Said::Away(None), Said::Unclear, Said::Nothing];
                        let said = said[usize::try_from(next(4)).unwrap()];
                        let then = gate.ended(key, said, at(now));
                        match said {
                            Said::There => through += 1,
                            Said::Away(_) => {
                                let own = failed.insert(key, through).is_some_and(|before| before < through);
                                assert_eq!(then, if own { Then::Judge } else { Then::Spare });
                            }
                            Said::Unclear | Said::Nothing => assert_eq!(then, Then::Judge),
                        }
                        gate.returned(pass);
                    }
                    9 => {
                        paused = !paused;
                        let pause = Pause { who: String::new(), why: String::new(), since: at(now) };
                        gate.pause(paused.then_some(pause));
                    }
                    10 => now += i64::try_from(next(400)).unwrap(),
                    _ => now += i64::try_from(next(40_000)).unwrap() - 20_000,
                }
            }
            // However it stands: without a person's pause it is open or tried within the longest pause.
            gate.pause(None);
            out.drain(..).for_each(|pass| gate.returned(pass));
            let _ = gate.pass(at(now)) == Pass::None || gate.probe.take().is_some();
            assert_ne!(gate.pass(at(now + 300)), Pass::None);
        }
    }
}
