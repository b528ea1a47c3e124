//! When a system is open: spans of local time on days of the week, less the holidays.
//!
//! Pure: the moment is passed in. A span belongs to the day on which it begins, also where it ends after midnight. A time
//! that summer time leaves out is the one after it; of a time that comes twice the first counts.

use crate::batch::Calendar;
use jiff::{
    Timestamp, ToSpan as _,
    civil::{Date, Time, Weekday},
    tz::TimeZone,
};
use std::sync::Arc;

/// How many days ahead are looked at: no calendar closes for longer.
const FURTHEST: usize = 400;
/// For so many days spans without a gap are followed; what is open for longer is open for good, as far as anybody asks.
const FOLLOWED: usize = 8;

/// A span of the day on which a system is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// The days of the week on which it begins.
    pub week: Vec<Weekday>,
    /// When it begins.
    pub from: Time,
    /// When it ends; midnight at the end of the day if nothing. Not after `from`: on the next day.
    pub to: Option<Time>,
}

/// The hours of a system.
#[derive(Debug, Clone)]
pub struct Hours {
    /// When it is open.
    pub spans: Vec<Span>,
    /// The zone that these are local times of.
    pub zone: TimeZone,
    /// Days on which nothing begins.
    pub holidays: Option<Arc<Calendar>>,
}

/// Whether a system is open, and until when that holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// It is; for more than a week if nothing is said.
    Open(Option<Timestamp>),
    /// It is not; no opening is in sight if nothing is said.
    Closed(Option<Timestamp>),
}

impl Span {
    /// From the beginning of the week on which minutes it is open: one pair for each of its days.
    fn minutes(&self) -> impl Iterator<Item = (i32, i32)> + '_ {
        let minute = |time: Time| i32::from(time.hour()) * 60 + i32::from(time.minute());
        let from = minute(self.from);
        let to = match self.to.map(minute) {
            None => 24 * 60,
            Some(to) if to > from => to,
            Some(to) => to + 24 * 60,
        };
        self.week.iter().map(move |day| {
            let day = i32::from(day.to_monday_zero_offset()) * 24 * 60;
            (day + from, day + to)
        })
    }
}

impl Hours {
    /// Two spans that are open at the same time, by their places: such hours say something twice, or by mistake.
    pub fn overlap(&self) -> Option<(usize, usize)> {
        const WEEK: i32 = 7 * 24 * 60;
        let all: Vec<(usize, (i32, i32))> = self
            .spans
            .iter()
            .enumerate()
            .flat_map(|(at, span)| span.minutes().map(move |minutes| (at, minutes)))
            .collect();
        let meet = |a: (i32, i32), b: (i32, i32)| a.0 < b.1 && b.0 < a.1;
        for (place, (at, one)) in all.iter().enumerate() {
            for (other_at, other) in all.iter().skip(place + 1) {
                let turned = |by: i32| (other.0 + by, other.1 + by);
                if [0, WEEK, -WEEK].into_iter().any(|by| meet(*one, turned(by))) {
                    return Some((*at, *other_at));
                }
            }
        }
        None
    }

    /// Whether it is open at this moment.
    pub fn at(&self, now: Timestamp) -> Door {
        let today = now.to_zoned(self.zone.clone()).date();
        let Ok(first) = today.checked_sub(2.days()) else { return Door::Closed(None) };
        let mut open_until: Option<Timestamp> = None;
        for (number, date) in first.series(1.day()).take(FURTHEST).enumerate() {
            if open_until.is_some() && number > FOLLOWED + 2 {
                return Door::Open(None);
            }
            let mut spans: Vec<(Timestamp, Timestamp)> = self.on(date).collect();
            spans.sort_unstable();
            for (from, to) in spans {
                match open_until {
                    // Nothing that follows it without a gap.
                    Some(until) if from > until => return Door::Open(Some(until)),
                    Some(until) => open_until = Some(until.max(to)),
                    None if to <= now => {}
                    None if from > now => return Door::Closed(Some(from)),
                    None => open_until = Some(to),
                }
            }
        }
        match open_until {
            Some(until) => Door::Open(Some(until)),
            None => Door::Closed(None),
        }
    }

    /// Whether the holidays are known for the year of this moment.
    pub fn knows(&self, now: Timestamp) -> bool {
        let date = now.to_zoned(self.zone.clone()).date();
        self.holidays.as_ref().is_none_or(|calendar| calendar.covers(date))
    }

    /// The spans that begin on a day.
    fn on(&self, date: Date) -> impl Iterator<Item = (Timestamp, Timestamp)> + '_ {
        let holiday = self.holidays.as_ref().is_some_and(|calendar| calendar.holiday(date).is_some());
        let moment = |date: Date, time: Time| {
            Some(date.to_datetime(time).to_zoned(self.zone.clone()).ok()?.timestamp())
        };
        let today = move |span: &&Span| !holiday && span.week.contains(&date.weekday());
        self.spans.iter().filter(today).filter_map(move |span| {
            let from = moment(date, span.from)?;
            let to = match span.to {
                Some(to) if to > span.from => moment(date, to)?,
                Some(to) => moment(date.tomorrow().ok()?, to)?,
                None => moment(date.tomorrow().ok()?, Time::midnight())?,
            };
            (to > from).then_some((from, to))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::time;
    use std::collections::BTreeMap;

    const WEEK: [Weekday; 5] =
        [Weekday::Monday, Weekday::Tuesday, Weekday::Wednesday, Weekday::Thursday, Weekday::Friday];

    fn all() -> Vec<Weekday> {
        WEEK.into_iter().chain([Weekday::Saturday, Weekday::Sunday]).collect()
    }

    fn span(week: &[Weekday], from: (i8, i8), to: (i8, i8)) -> Span {
        let to = (to != (24, 0)).then(|| time(to.0, to.1, 0, 0));
        Span { week: week.to_vec(), from: time(from.0, from.1, 0, 0), to }
    }

    fn hours(spans: Vec<Span>) -> Hours {
        let days = BTreeMap::from([("2026-12-25".to_owned(), "Christmas Day".to_owned())]);
        let calendar = Arc::new(Calendar::new("test", (2026, 2027), &days).unwrap());
        Hours { spans, zone: TimeZone::get("Europe/London").unwrap(), holidays: Some(calendar) }
    }

    fn says(hours: &Hours, moment: &str) -> String {
        match hours.at(moment.parse().unwrap()) {
            Door::Open(until) => format!("open {}", until.map(|at| at.to_string()).unwrap_or_default()),
            Door::Closed(until) => format!("closed {}", until.map(|at| at.to_string()).unwrap_or_default()),
        }
    }

    #[test]
    fn office_hours_are_local_time_and_pass_over_weekends_and_holidays() {
        let office = hours(vec![span(&WEEK, (7, 0), (19, 0))]);
        assert_eq!(says(&office, "2026-11-24T06:59:59Z"), "closed 2026-11-24T07:00:00Z");
        assert_eq!(says(&office, "2026-11-24T07:00:00Z"), "open 2026-11-24T19:00:00Z");
        assert_eq!(says(&office, "2026-11-24T19:00:00Z"), "closed 2026-11-25T07:00:00Z");
        assert_eq!(says(&office, "2026-07-01T06:00:00Z"), "open 2026-07-01T18:00:00Z");
        assert_eq!(says(&office, "2026-11-27T20:00:00Z"), "closed 2026-11-30T07:00:00Z");
        // Christmas Day is a Friday in 2026.
        assert_eq!(says(&office, "2026-12-24T20:00:00Z"), "closed 2026-12-28T07:00:00Z");
    }

    #[test]
    fn a_span_over_midnight_belongs_to_the_day_on_which_it_begins() {
        let nightly = hours(vec![span(&all(), (3, 0), (1, 0))]);
        assert_eq!(says(&nightly, "2026-11-24T00:59:00Z"), "open 2026-11-24T01:00:00Z");
        assert_eq!(says(&nightly, "2026-11-24T02:00:00Z"), "closed 2026-11-24T03:00:00Z");
        assert_eq!(says(&nightly, "2026-11-24T23:59:00Z"), "open 2026-11-25T01:00:00Z");
        let friday = hours(vec![span(&[Weekday::Thursday], (20, 0), (6, 0))]);
        // The night before the holiday goes on into its morning.
        assert_eq!(says(&friday, "2026-12-25T05:00:00Z"), "open 2026-12-25T06:00:00Z");
    }

    #[test]
    fn spans_without_a_gap_are_one_and_a_system_without_one_is_never_closed() {
        let two = hours(vec![span(&WEEK, (7, 0), (12, 0)), span(&WEEK, (12, 0), (19, 0))]);
        assert_eq!(says(&two, "2026-11-24T08:00:00Z"), "open 2026-11-24T19:00:00Z");
        let always = Hours { holidays: None, ..hours(vec![span(&all(), (0, 0), (24, 0))]) };
        assert_eq!(says(&always, "2026-11-24T08:00:00Z"), "open ");
        assert_eq!(says(&hours(Vec::new()), "2026-11-24T08:00:00Z"), "closed ");
    }

    #[test]
    fn summer_time_makes_no_hour_twice_and_loses_none() {
        let night = hours(vec![span(&all(), (1, 30), (5, 0))]);
        // 01:30 is left out on 28 March 2027: the hour after it counts.
        assert_eq!(says(&night, "2027-03-28T00:45:00Z"), "closed 2027-03-28T01:30:00Z");
        assert_eq!(says(&night, "2027-03-28T02:00:00Z"), "open 2027-03-28T04:00:00Z");
        // It comes twice on 25 October 2026: the first counts, and it is not closed in between.
        assert_eq!(says(&night, "2026-10-25T00:30:00Z"), "open 2026-10-25T05:00:00Z");
        let early = hours(vec![span(&all(), (22, 0), (1, 30))]);
        assert_eq!(says(&early, "2026-10-25T00:29:00Z"), "open 2026-10-25T00:30:00Z");
        assert_eq!(says(&early, "2026-10-25T01:15:00Z"), "closed 2026-10-25T22:00:00Z", "not a second time");
    }

    #[test]
    fn spans_that_overlap_are_found_also_over_midnight_and_the_end_of_the_week() {
        let found = |spans: Vec<Span>| hours(spans).overlap();
        assert_eq!(found(vec![span(&WEEK, (7, 0), (12, 0)), span(&WEEK, (12, 0), (19, 0))]), None);
        assert_eq!(found(vec![span(&WEEK, (7, 0), (12, 0)), span(&WEEK, (11, 0), (19, 0))]), Some((0, 1)));
        let sunday = span(&[Weekday::Sunday], (20, 0), (8, 0));
        assert_eq!(found(vec![sunday.clone(), span(&[Weekday::Monday], (7, 0), (9, 0))]), Some((0, 1)));
        assert_eq!(found(vec![sunday, span(&[Weekday::Monday], (8, 0), (9, 0))]), None);
        assert_eq!(found(vec![span(&[Weekday::Monday, Weekday::Monday], (8, 0), (9, 0))]), Some((0, 0)));
    }

    #[test]
    fn the_years_of_the_calendar_are_known() {
        let office = hours(vec![span(&WEEK, (7, 0), (19, 0))]);
        assert!(office.knows("2027-06-01T12:00:00Z".parse().unwrap()));
        assert!(!office.knows("2028-06-01T12:00:00Z".parse().unwrap()));
    }
}
