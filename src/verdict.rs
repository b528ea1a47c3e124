//! What an attempt means, and what is done about it: a closed set of outcomes, and the one function that judges.
//!
//! Pure: the clock is passed in. A failure says whether the request may have been carried out; what follows from that
//! depends on what the route says makes a repeat safe.

use crate::{
    code::Code,
    config::{plan::RetryPolicy, raw::adapter::Repeat},
};
use std::time::Duration;

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The code.
    pub code: Code,
    /// What it means for the request.
    pub class: Class,
    /// What happened, for a person; without values of the message.
    pub what: String,
    /// The field, rule or attribute at fault.
    pub field: String,
    /// How long the system asks to be left alone.
    pub retry_after: Option<Duration>,
}

/// What a failure means for the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// It was not carried out, and trying again may help.
    NotDone,
    /// It was not carried out, and nothing else will be for now: the system is away, or asks to be left alone.
    Away,
    /// It may have been carried out.
    Unknown,
    /// It was not carried out, and trying again will not help.
    Refused,
    /// The system's own lock refused it.
    Guarded,
}

impl Failure {
    /// A failure after which trying again may help.
    pub fn not_done(code: Code, what: impl Into<String>) -> Failure {
        Failure { code, class: Class::NotDone, what: what.into(), field: String::new(), retry_after: None }
    }

    /// A failure after which the system is left alone for a while, whatever the message.
    pub fn away(code: Code, what: impl Into<String>) -> Failure {
        Failure { class: Class::Away, ..Failure::not_done(code, what) }
    }

    /// The same, of this field.
    #[must_use]
    pub fn in_field(self, field: impl Into<String>) -> Failure {
        Failure { field: field.into(), ..self }
    }

    /// A failure after which nobody knows.
    pub fn unknown(what: impl Into<String>) -> Failure {
        Failure {
            code: Code::OutcomeUnknown,
            class: Class::Unknown,
            what: what.into(),
            field: String::new(),
            retry_after: None,
        }
    }

    /// A failure for good.
    pub fn refused(code: Code, field: impl Into<String>, what: impl Into<String>) -> Failure {
        Failure { code, class: Class::Refused, what: what.into(), field: field.into(), retry_after: None }
    }
}

/// What has been tried before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tried {
    /// The number of this attempt in the life of the message, from 1. Trying at once counts as one attempt.
    pub attempt: u32,
    /// How often it has been tried at once within this attempt.
    pub at_once: u32,
    /// How long ago the first attempt failed.
    pub failing_for: Duration,
    /// Whether an earlier request of this message may have been carried out.
    pub doubt: bool,
}

/// What is done next.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// Try again in a moment, within this attempt.
    AtOnce,
    /// Wait so long, then try again.
    Later(Duration),
    /// Find out first what happened, then go on.
    Ask,
    /// Read anew what the lock guards, then try again: nothing has been done.
    ReadAnew,
    /// Give it up, for this reason.
    Dead(Code),
}

/// Judges a failure.
pub fn judge(
    failure: &Failure,
    tried: Tried,
    policy: &RetryPolicy,
    repeat: Repeat,
    can_ask: bool,
) -> Verdict {
    // A lock that refuses a second try says that something was done: ours, if an earlier one is in doubt.
    if failure.class == Class::Guarded {
        return match (tried.doubt, can_ask) {
            (false, _) if tried.at_once < policy.at_once.max(1) => Verdict::ReadAnew,
            (false, _) => again(failure, tried, policy),
            (true, true) => Verdict::Ask,
            (true, false) => Verdict::Dead(Code::GuardRefused),
        };
    }
    let unknown = failure.class == Class::Unknown;
    // Refused for good: but if an earlier request may have been carried out, this refusal does not settle that one.
    if failure.class == Class::Refused {
        // Systems have been seen to refuse what they had just stored: where asking is possible, it costs one look.
        let said_no = repeat == Repeat::Probe && can_ask && failure.code == Code::SystemRefuses;
        let settled =
            !said_no && (!tried.doubt || matches!(repeat, Repeat::Key | Repeat::Harmless | Repeat::Guard));
        return match (settled, can_ask) {
            (true, _) => Verdict::Dead(failure.code),
            (false, true) => Verdict::Ask,
            (false, false) => Verdict::Dead(Code::OutcomeUnknown),
        };
    }
    if unknown || tried.doubt {
        match repeat {
            Repeat::Key | Repeat::Harmless | Repeat::Guard => {}
            Repeat::Probe => return Verdict::Ask,
            Repeat::Never => return Verdict::Dead(Code::OutcomeUnknown),
        }
    }
    again(failure, tried, policy)
}

fn again(failure: &Failure, tried: Tried, policy: &RetryPolicy) -> Verdict {
    let asked_to_wait = failure.retry_after.unwrap_or_default();
    if tried.at_once < policy.at_once && asked_to_wait <= Duration::from_secs(2) {
        return Verdict::AtOnce;
    }
    if tried.failing_for >= policy.give_up {
        return Verdict::Dead(Code::RetriesExhausted);
    }
    Verdict::Later(wait(tried.attempt, policy).max(tier(asked_to_wait, policy)))
}

/// How long to wait after this attempt.
pub fn wait(attempt: u32, policy: &RetryPolicy) -> Duration {
    let index = (attempt.max(1) - 1) as usize;
    policy.waits.get(index).or(policy.waits.last()).copied().unwrap_or(Duration::from_secs(30))
}

/// The shortest of the route's waits that is at least so long; the longest if none is.
fn tier(asked: Duration, policy: &RetryPolicy) -> Duration {
    policy
        .waits
        .iter()
        .copied()
        .filter(|wait| *wait >= asked)
        .min()
        .or(policy.waits.iter().copied().max())
        .unwrap_or(asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: fn() -> RetryPolicy = || RetryPolicy {
        at_once: 1,
        waits: [5, 30, 120].map(Duration::from_secs).to_vec(),
        give_up: Duration::from_secs(3_600),
    };

    fn tried(attempt: u32, at_once: u32) -> Tried {
        Tried { attempt, at_once, failing_for: Duration::ZERO, doubt: false }
    }

    #[test]
    fn an_unknown_outcome_is_never_sent_again_blindly_unless_a_repeat_is_safe() {
        let failure = Failure::unknown("the answer was cut");
        let doubt = Tried { doubt: true, ..tried(2, 0) };
        for tried in [tried(1, 0), doubt] {
            assert_eq!(judge(&failure, tried, &POLICY(), Repeat::Probe, true), Verdict::Ask);
            assert_eq!(
                judge(&failure, tried, &POLICY(), Repeat::Never, false),
                Verdict::Dead(Code::OutcomeUnknown)
            );
            assert_eq!(judge(&failure, tried, &POLICY(), Repeat::Key, false), Verdict::AtOnce);
        }
        // Also when the next failure is one after which nothing was done: the earlier request is still in doubt.
        let busy = Failure::not_done(Code::SystemBusy, "503");
        assert_eq!(judge(&busy, doubt, &POLICY(), Repeat::Never, false), Verdict::Dead(Code::OutcomeUnknown));
        assert_eq!(judge(&busy, doubt, &POLICY(), Repeat::Probe, true), Verdict::Ask);
    }

    #[test]
    fn a_refusal_after_a_doubtful_request_does_not_settle_that_request() {
        let refused = Failure::refused(Code::SystemRefuses, "", "400");
        let doubt = Tried { doubt: true, ..tried(2, 0) };
        // Where asking is possible even a plain refusal is asked about: it may have been carried out all the same.
        assert_eq!(judge(&refused, tried(1, 0), &POLICY(), Repeat::Probe, true), Verdict::Ask);
        assert_eq!(
            judge(&refused, tried(1, 0), &POLICY(), Repeat::Never, false),
            Verdict::Dead(Code::SystemRefuses)
        );
        assert_eq!(judge(&refused, doubt, &POLICY(), Repeat::Probe, true), Verdict::Ask);
        assert_eq!(
            judge(&refused, doubt, &POLICY(), Repeat::Never, false),
            Verdict::Dead(Code::OutcomeUnknown)
        );
    }

    #[test]
    fn a_lock_that_refuses_means_ours_only_if_an_earlier_try_is_in_doubt() {
        let guarded = Failure { class: Class::Guarded, ..Failure::refused(Code::GuardRefused, "", "412") };
        assert_eq!(judge(&guarded, tried(1, 0), &POLICY(), Repeat::Guard, true), Verdict::ReadAnew);
        let doubt = Tried { doubt: true, ..tried(2, 0) };
        assert_eq!(judge(&guarded, doubt, &POLICY(), Repeat::Guard, true), Verdict::Ask);
        assert_eq!(
            judge(&guarded, doubt, &POLICY(), Repeat::Guard, false),
            Verdict::Dead(Code::GuardRefused)
        );
    }

    #[test]
    fn waits_grow_by_tier_and_obey_what_the_system_asks() {
        let busy = Failure::not_done(Code::SystemBusy, "503");
        assert_eq!(judge(&busy, tried(1, 0), &POLICY(), Repeat::Never, false), Verdict::AtOnce);
        assert_eq!(
            judge(&busy, tried(1, 1), &POLICY(), Repeat::Never, false),
            Verdict::Later(Duration::from_secs(5))
        );
        assert_eq!(
            judge(&busy, tried(9, 1), &POLICY(), Repeat::Never, false),
            Verdict::Later(Duration::from_secs(120))
        );
        let asked = Failure { retry_after: Some(Duration::from_secs(20)), ..busy.clone() };
        assert_eq!(
            judge(&asked, tried(1, 0), &POLICY(), Repeat::Never, false),
            Verdict::Later(Duration::from_secs(30))
        );
        let long = Tried { failing_for: Duration::from_secs(4_000), ..tried(9, 1) };
        assert_eq!(
            judge(&busy, long, &POLICY(), Repeat::Never, false),
            Verdict::Dead(Code::RetriesExhausted)
        );
    }
}
