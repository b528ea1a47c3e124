//! The course of one attempt at one request: whether it is sent, asked about, tried at once, put off or given up. Events in,
//! what is next out, the clock passed in; whoever sends and asks only carries it out.
//!
//! What it keeps: a request of which nobody knows whether it was carried out is not sent again before that is known, unless the
//! route says what makes a repeat safe.

use crate::{
    code::Code,
    config::{plan::RetryPolicy, raw::adapter::Repeat},
    verdict::{self, Class, Failure, Tried, Verdict},
};
use std::time::Duration;

const NOBODY_TO_ASK: &str = "an earlier request may have been carried out, and there is no way to ask";
/// For how many milliseconds a claim stands for the moment of sending.
const NOTED: i64 = 1_000;

/// What a route says of its attempts.
#[derive(Debug, Clone)]
pub struct Rules<'a> {
    /// What makes a repeat safe.
    pub repeat: Repeat,
    /// How it can be asked whether a request was carried out, if it can.
    pub question: Option<Question>,
    /// How attempts are repeated.
    pub retry: &'a RetryPolicy,
}

/// How a system's answer to the question is to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// For how long after a request "absent" is not to be believed.
    pub settle: Duration,
    /// For how long it may stay unclear.
    pub patience: Duration,
}

/// How an attempt stands. Times are milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Course {
    /// The number of the attempt in the life of the message, from 1.
    pub attempt: u32,
    /// Whether an earlier request may have been carried out.
    pub doubt: bool,
    /// When the last request was sent of which nobody knows.
    pub sent_at: Option<i64>,
    /// When the first attempt failed; this moment if none did.
    pub first_failed: i64,
    /// When the claim to send it was committed, until it is sent for the first time.
    claimed_at: Option<i64>,
    /// How often it has been tried at once.
    at_once: u32,
    /// The failure that was the reason to ask.
    why: Option<Failure>,
}

/// What is next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// The request is sent; again after a moment, and `anew` with what was read for it read once more.
    Send { again: bool, anew: bool },
    /// It is asked whether the request was carried out.
    Ask,
    /// Nothing more in this attempt.
    End(Ending),
}

/// How an attempt ends that has not brought it about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// It is tried again after this time.
    Later { failure: Failure, wait: Duration },
    /// It is given up, while it was sent or while it was asked about.
    Dead { code: Code, failure: Failure, asking: bool },
}

impl Course {
    /// An attempt that begins, after a claim that was committed at this time.
    pub fn new(
        attempt: u32,
        doubt: bool,
        sent_at: Option<i64>,
        first_failed: i64,
        claimed_at: Option<i64>,
    ) -> Course {
        // A claim of what is in doubt keeps the moment of the request that is.
        let claimed_at = claimed_at.filter(|_| !doubt);
        Course { attempt, doubt, sent_at, first_failed, claimed_at, at_once: 0, why: None }
    }

    /// It is about to be sent: whether that has to be noted, on disk, before. What the system's answer to a question means depends
    /// on when the request was sent; the claim stands for that only once, and if it was committed just now: not where others of its
    /// window had their turn first.
    pub fn sends(&mut self, now: i64, rules: &Rules<'_>) -> bool {
        let fresh = self.claimed_at.take().is_some_and(|claimed| (0..NOTED).contains(&(now - claimed)));
        rules.question.is_some() && !fresh
    }

    /// What comes first: a request of which nobody knows is asked about before anything is sent.
    pub fn begin(&self, rules: &Rules<'_>) -> Next {
        match (self.doubt, rules.repeat) {
            (true, Repeat::Probe) if rules.question.is_some() => Next::Ask,
            (true, Repeat::Probe | Repeat::Never) => {
                // Nothing is sent, so it says nothing of the system.
                let failure = Failure::refused(Code::OutcomeUnknown, "", NOBODY_TO_ASK);
                Next::End(Ending::Dead { code: failure.code, failure, asking: false })
            }
            (true, Repeat::Key | Repeat::Guard | Repeat::Harmless) | (false, _) => {
                Next::Send { again: false, anew: false }
            }
        }
    }

    /// The request failed. `once` says that it may be sent only this one time: the system is away, and this is the message that
    /// looks whether it is back.
    pub fn failed(&mut self, failure: Failure, once: bool, now: i64, rules: &Rules<'_>) -> Next {
        let unknown = failure.class == Class::Unknown;
        // Systems have been seen to refuse what they had stored.
        if unknown || failure.class == Class::Refused {
            self.sent_at = Some(now);
        }
        let tried = Tried {
            attempt: self.attempt,
            at_once: self.at_once,
            failing_for: self.failing_for(now),
            doubt: self.doubt,
        };
        let verdict = verdict::judge(&failure, tried, rules.retry, rules.repeat, rules.question.is_some());
        self.doubt |= unknown;
        match verdict {
            Verdict::AtOnce if once => Next::End(self.later(failure, now, rules)),
            Verdict::AtOnce => self.at_once(false),
            Verdict::ReadAnew => self.at_once(true),
            Verdict::Ask if rules.question.is_some() => {
                // Until the system has answered nobody knows, also when the attempt ends before that.
                self.doubt = true;
                self.why = Some(failure);
                Next::Ask
            }
            Verdict::Ask => {
                self.doubt = true;
                let failure = Failure::unknown(NOBODY_TO_ASK);
                Next::End(Ending::Dead { code: failure.code, failure, asking: true })
            }
            Verdict::Later(wait) => Next::End(Ending::Later { failure, wait }),
            Verdict::Dead(code) => {
                self.doubt |= code == Code::OutcomeUnknown;
                Next::End(Ending::Dead { code, failure, asking: false })
            }
        }
    }

    /// The system was asked, and it was not carried out. `Next::Send` only when that is to be believed: then nothing is in doubt.
    pub fn absent(&mut self, now: i64, rules: &Rules<'_>) -> Next {
        let settle = rules.question.map(|question| question.settle).unwrap_or_default();
        let ago = since(self.sent_at.unwrap_or(0), now);
        if let Some(early) = settle.checked_sub(ago).filter(|early| !early.is_zero()) {
            self.doubt = true;
            // What was refused is not sent again; but whoever looks at it must know that it may be there.
            if let Some(failure) = self.why.take_if(|failure| failure.class == Class::Refused) {
                return Next::End(Ending::Dead { code: failure.code, failure, asking: true });
            }
            let what = format!(
                "the system does not show the request yet; that counts only after {}",
                crate::config::units::in_words(settle)
            );
            let waits = &rules.retry.waits;
            let long = waits.iter().copied().filter(|wait| *wait >= early).min();
            let wait = long.or(waits.iter().copied().max()).unwrap_or(early);
            return Next::End(Ending::Later { failure: Failure::not_done(Code::ProbeUnclear, what), wait });
        }
        self.doubt = false;
        let Some(failure) = self.why.take() else { return Next::Send { again: false, anew: false } };
        // What failed is settled as not done.
        match failure.class {
            Class::Refused => Next::End(Ending::Dead { code: failure.code, failure, asking: false }),
            Class::NotDone | Class::Away | Class::Unknown | Class::Guarded
                if self.at_once < rules.retry.at_once =>
            {
                self.at_once(false)
            }
            Class::NotDone | Class::Away | Class::Unknown | Class::Guarded => {
                Next::End(self.later(failure, now, rules))
            }
        }
    }

    /// The question was not answered. It is asked again, but only for so long; of a system that is away nobody expects an answer,
    /// and that costs no patience.
    pub fn unanswered(&mut self, failure: Failure, now: i64, rules: &Rules<'_>) -> Next {
        let what =
            format!("whether an earlier request was carried out could not be found out: {}", failure.what);
        if failure.class == Class::Away {
            return Next::End(self.later(Failure { code: Code::ProbeUnclear, what, ..failure }, now, rules));
        }
        self.doubt = true;
        let failure = Failure { code: Code::ProbeUnclear, class: Class::Unknown, what, ..failure };
        let patience = rules.question.map(|question| question.patience).unwrap_or_default();
        let unclear_for = since(self.sent_at.unwrap_or(0).max(self.first_failed), now);
        let Some(left) = patience.checked_sub(unclear_for).filter(|left| !left.is_zero()) else {
            return Next::End(Ending::Dead { code: failure.code, failure, asking: true });
        };
        Next::End(match self.later(failure, now, rules) {
            // The last question falls within the time, as far as there is a wait that is short enough.
            Ending::Later { failure, wait } => {
                let waits = &rules.retry.waits;
                let fits = waits.iter().copied().filter(|shorter| *shorter <= wait.min(left)).max();
                let wait = fits.or(waits.iter().copied().min()).unwrap_or(wait);
                Ending::Later { failure, wait }
            }
            dead @ Ending::Dead { .. } => dead,
        })
    }

    /// It is put off, unless it has failed for too long.
    pub fn later(&self, failure: Failure, now: i64, rules: &Rules<'_>) -> Ending {
        if self.failing_for(now) >= rules.retry.give_up {
            return Ending::Dead { code: Code::RetriesExhausted, failure, asking: true };
        }
        Ending::Later { failure, wait: verdict::wait(self.attempt, rules.retry) }
    }

    fn at_once(&mut self, anew: bool) -> Next {
        self.at_once += 1;
        Next::Send { again: true, anew }
    }

    fn failing_for(&self, now: i64) -> Duration {
        since(self.first_failed, now)
    }
}

/// How long ago that is; nothing if it is in the future, as after a clock was put back.
fn since(then: i64, now: i64) -> Duration {
    Duration::from_millis(u64::try_from(now.saturating_sub(then)).unwrap_or(0))
}
