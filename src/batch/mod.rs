//! The life of a batch: what it is at, and what is to be done next. Pure: no clock, no file, no store.
//!
//! ```text
//! open      events join it, until a cut-off, a count, a sum or a person seals it
//! sealed    nothing joins any more; the next event opens another one
//! numbered  it has its serial number and its processing date, once and for good
//! rendered  its files lie in the store's folder, on disk, and their digests are committed
//! placed    each of its files lies in the system under its name
//! sent      every item of it is on record as delivered
//! ```
//!
//! Each step is one commit, and each can be taken again after a crash: what was given once is not given a second time.

mod calendar;

pub use calendar::{BadCalendar, Calendar, CutOffs, Days};

/// What a batch is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Events join it.
    Open,
    /// Nothing joins it any more.
    Sealed,
    /// It has its number and its date.
    Numbered,
    /// Its files are on our disk.
    Rendered,
    /// Its files are in the system.
    Placed,
    /// Its items are on record as delivered.
    Sent,
}

impl Stage {
    /// All of them, in order.
    pub const ALL: [Stage; 6] =
        [Stage::Open, Stage::Sealed, Stage::Numbered, Stage::Rendered, Stage::Placed, Stage::Sent];

    /// As printed.
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Open => "open",
            Stage::Sealed => "sealed",
            Stage::Numbered => "numbered",
            Stage::Rendered => "rendered",
            Stage::Placed => "placed",
            Stage::Sent => "sent",
        }
    }

    /// As the store keeps it, from 1.
    pub fn number(self) -> i64 {
        match self {
            Stage::Open => 1,
            Stage::Sealed => 2,
            Stage::Numbered => 3,
            Stage::Rendered => 4,
            Stage::Placed => 5,
            Stage::Sent => 6,
        }
    }

    /// From how the store keeps it.
    pub fn of(number: i64) -> Option<Stage> {
        Stage::ALL.into_iter().find(|stage| stage.number() == number)
    }
}

/// What sealed a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SealedBy {
    /// Its cut-off came.
    CutOff,
    /// It holds as many items as it may.
    Count,
    /// Its sum is as large as it may be.
    Sum,
    /// A person.
    Person,
}

impl SealedBy {
    /// As printed and kept.
    pub fn as_str(self) -> &'static str {
        match self {
            SealedBy::CutOff => "cut-off",
            SealedBy::Count => "count",
            SealedBy::Sum => "sum",
            SealedBy::Person => "person",
        }
    }
}

/// How much a batch may hold, and how little is not worth a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Fewer wait for the next cut-off.
    pub least: i64,
    /// As many as fit.
    pub most: i64,
    /// The largest sum, if there is one.
    pub most_sum: Option<i64>,
}

impl Size {
    /// Why a further item of this amount does not fit into a batch that holds so much, if it does not. Into an empty batch
    /// everything fits: an item that is larger than the largest sum would otherwise wait for ever.
    pub fn bursts(&self, items: i64, sum: i64, amount: i64) -> Option<SealedBy> {
        if items == 0 {
            return None;
        }
        if items >= self.most {
            return Some(SealedBy::Count);
        }
        let most = self.most_sum?;
        sum.checked_add(amount).is_none_or(|sum| sum > most).then_some(SealedBy::Sum)
    }

    /// Why a batch that holds so much is full, if it is.
    pub fn full(&self, items: i64, sum: i64) -> Option<SealedBy> {
        if items >= self.most {
            return Some(SealedBy::Count);
        }
        self.most_sum.filter(|most| sum >= *most).map(|_| SealedBy::Sum)
    }
}

/// What is known of a batch. Moments are milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// What it is at.
    pub stage: Stage,
    /// How many items it holds.
    pub items: i64,
    /// When it is sealed at the latest, if it has a cut-off.
    pub cut_off: Option<i64>,
    /// Whether a person wants it sealed.
    pub asked: bool,
    /// When what failed is tried again.
    pub retry_at: Option<i64>,
}

/// What is to be done with a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing until then, or until something is said.
    Wait(Option<i64>),
    /// It is sealed.
    Seal(SealedBy),
    /// It holds too little: it waits for the next cut-off.
    Postpone,
    /// It gets its number and its date.
    Number,
    /// Its files are written.
    Render,
    /// They are put into the system.
    Put,
    /// Its items are put on record as delivered.
    Mark,
    /// Nothing: it has come to its end.
    Done,
}

impl Life {
    /// What is to be done now.
    pub fn next(&self, size: &Size, now: i64) -> Step {
        if let Some(at) = self.retry_at.filter(|at| *at > now) {
            return Step::Wait(Some(at));
        }
        match self.stage {
            Stage::Open if self.asked => Step::Seal(SealedBy::Person),
            Stage::Open => match self.cut_off {
                Some(at) if at <= now && self.items < size.least => Step::Postpone,
                Some(at) if at <= now => Step::Seal(SealedBy::CutOff),
                other => Step::Wait(other),
            },
            Stage::Sealed => Step::Number,
            Stage::Numbered => Step::Render,
            Stage::Rendered => Step::Put,
            Stage::Placed => Step::Mark,
            Stage::Sent => Step::Done,
        }
    }
}

/// The serial number after this one: from `first` to `last`, then from the beginning.
pub fn next_serial(before: Option<i64>, first: i64, last: i64) -> i64 {
    match before {
        Some(before) if before >= first && before < last => before + 1,
        Some(_) | None => first,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size { least: 2, most: 3, most_sum: Some(1_000) };

    fn open(items: i64, cut_off: Option<i64>) -> Life {
        Life { stage: Stage::Open, items, cut_off, asked: false, retry_at: None }
    }

    #[test]
    fn an_open_batch_waits_for_its_cut_off_and_with_too_little_for_the_next() {
        assert_eq!(open(2, Some(100)).next(&SIZE, 99), Step::Wait(Some(100)));
        assert_eq!(open(2, Some(100)).next(&SIZE, 100), Step::Seal(SealedBy::CutOff));
        assert_eq!(open(1, Some(100)).next(&SIZE, 100), Step::Postpone);
        assert_eq!(open(1, None).next(&SIZE, 100), Step::Wait(None));
        // A person's word counts whatever it holds, and at once.
        let asked = Life { asked: true, ..open(1, Some(100)) };
        assert_eq!(asked.next(&SIZE, 1), Step::Seal(SealedBy::Person));
    }

    #[test]
    fn after_it_is_sealed_every_stage_has_one_next_step_and_a_failure_only_delays_it() {
        let steps = [Step::Number, Step::Render, Step::Put, Step::Mark, Step::Done];
        for (stage, step) in Stage::ALL.into_iter().skip(1).zip(steps) {
            let life = Life { stage, ..open(1, Some(100)) };
            assert_eq!(life.next(&SIZE, 0), step);
            let failed = Life { retry_at: Some(50), ..life };
            assert_eq!(failed.next(&SIZE, 49), Step::Wait(Some(50)));
            assert_eq!(failed.next(&SIZE, 50), step);
        }
    }

    #[test]
    fn a_batch_is_full_by_count_or_by_sum_and_what_does_not_fit_goes_into_the_next() {
        assert_eq!(SIZE.full(3, 0), Some(SealedBy::Count));
        assert_eq!(SIZE.full(1, 1_000), Some(SealedBy::Sum));
        assert_eq!(SIZE.full(2, 999), None);
        assert_eq!(SIZE.bursts(2, 900, 101), Some(SealedBy::Sum));
        assert_eq!(SIZE.bursts(2, 900, 100), None);
        assert_eq!(SIZE.bursts(3, 0, 0), Some(SealedBy::Count));
        assert_eq!(SIZE.bursts(0, 0, 5_000), None, "one too large for any batch has one of its own");
        assert_eq!(SIZE.bursts(1, i64::MAX, 1), Some(SealedBy::Sum));
    }

    #[test]
    fn serial_numbers_begin_anew_after_the_last() {
        assert_eq!(next_serial(None, 1, 999_999), 1);
        assert_eq!(next_serial(Some(7), 1, 999_999), 8);
        assert_eq!(next_serial(Some(999_999), 1, 999_999), 1);
        // The setting was changed: what lies outside begins anew as well.
        assert_eq!(next_serial(Some(5), 100, 200), 100);
    }
}
