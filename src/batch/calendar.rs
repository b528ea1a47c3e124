//! Cut-off times and working days: local time of a zone, days of the week, public holidays from a calendar file.
//!
//! Pure: the moment is passed in. An hour that summer time leaves out is the one after it; of an hour that comes twice the
//! first counts.

use jiff::{
    Timestamp, ToSpan as _,
    civil::{Date, Time, Weekday},
    tz::TimeZone,
};
use std::{collections::BTreeMap, sync::Arc};

/// How far ahead a cut-off is looked for: no calendar closes for longer.
const FURTHEST: usize = 400;

/// The public holidays of some years.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calendar {
    /// Its name: the file's, without `.toml`.
    pub name: String,
    /// The first and the last year that it is complete for.
    pub years: (i16, i16),
    days: BTreeMap<Date, String>,
}

/// Why a calendar cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadCalendar {
    /// The entry, as written.
    pub entry: String,
    /// What is wrong with it.
    pub what: String,
}

impl Calendar {
    /// A calendar of days as `YYYY-MM-DD`, each with its name.
    ///
    /// # Errors
    /// Every entry that is no day, or of a year that the calendar is not for.
    pub fn new(
        name: &str,
        years: (i16, i16),
        days: &BTreeMap<String, String>,
    ) -> Result<Calendar, Vec<BadCalendar>> {
        let (mut found, mut bad) = (BTreeMap::new(), Vec::new());
        for (entry, title) in days {
            match entry.parse::<Date>() {
                Ok(date) if (years.0..=years.1).contains(&date.year()) => {
                    found.insert(date, title.clone());
                }
                Ok(_) => {
                    let what = format!("the calendar says that it is for {} to {}", years.0, years.1);
                    bad.push(BadCalendar { entry: entry.clone(), what });
                }
                Err(_) => {
                    let what = "a day is written YYYY-MM-DD".to_owned();
                    bad.push(BadCalendar { entry: entry.clone(), what });
                }
            }
        }
        match bad.is_empty() {
            true => Ok(Calendar { name: name.to_owned(), years, days: found }),
            false => Err(bad),
        }
    }

    /// The holiday on this day, if there is one.
    pub fn holiday(&self, date: Date) -> Option<&str> {
        self.days.get(&date).map(String::as_str)
    }

    /// Whether it is complete for the year of this day.
    pub fn covers(&self, date: Date) -> bool {
        (self.years.0..=self.years.1).contains(&date.year())
    }
}

/// Days on which something is done: some days of the week, less the holidays.
#[derive(Debug, Clone)]
pub struct Days {
    /// The days of the week.
    pub week: Vec<Weekday>,
    /// The holidays, if they count.
    pub holidays: Option<Arc<Calendar>>,
}

impl Days {
    /// Whether this is one of them.
    pub fn has(&self, date: Date) -> bool {
        let holiday = self.holidays.as_ref().and_then(|calendar| calendar.holiday(date));
        self.week.contains(&date.weekday()) && holiday.is_none()
    }

    /// The first of them on or after this day.
    pub fn on_or_after(&self, date: Date) -> Option<Date> {
        date.series(1.day()).take(FURTHEST).find(|date| self.has(*date))
    }

    /// The so many-th of them after this day; with none, the day itself.
    pub fn after(&self, date: Date, many: u32) -> Option<Date> {
        (0..many).try_fold(date, |date, _| self.on_or_after(date.tomorrow().ok()?))
    }

    /// Whether the holidays are known for the year of this day.
    pub fn knows(&self, date: Date) -> bool {
        self.holidays.as_ref().is_none_or(|calendar| calendar.covers(date))
    }
}

/// When batches are sealed.
#[derive(Debug, Clone)]
pub struct CutOffs {
    /// The times of day; none: there is no cut-off.
    pub times: Vec<Time>,
    /// The zone that they are local times of.
    pub zone: TimeZone,
    /// The days.
    pub days: Days,
}

impl CutOffs {
    /// The first cut-off after a moment.
    pub fn after(&self, moment: Timestamp) -> Option<Timestamp> {
        if self.times.is_empty() {
            return None;
        }
        let today = self.date(moment);
        let days = today.series(1.day()).take(FURTHEST).filter(|date| self.days.has(*date));
        days.filter_map(|date| {
            let moments = self.times.iter().filter_map(|time| {
                let zoned = date.to_datetime(*time).to_zoned(self.zone.clone()).ok()?;
                Some(zoned.timestamp()).filter(|at| *at > moment)
            });
            moments.min()
        })
        .next()
    }

    /// The local day of a moment.
    pub fn date(&self, moment: Timestamp) -> Date {
        moment.to_zoned(self.zone.clone()).date()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::{date, time};

    const WEEK: [Weekday; 5] =
        [Weekday::Monday, Weekday::Tuesday, Weekday::Wednesday, Weekday::Thursday, Weekday::Friday];

    fn holidays() -> Arc<Calendar> {
        let days = [
            ("2026-12-25", "Christmas Day"),
            ("2026-12-28", "Boxing Day"),
            ("2027-01-01", "New Year"),
            ("2027-03-26", "Good Friday"),
            ("2027-03-29", "Easter Monday"),
        ];
        let days = days.into_iter().map(|(day, name)| (day.to_owned(), name.to_owned())).collect();
        Arc::new(Calendar::new("test", (2026, 2027), &days).unwrap())
    }

    fn at(times: &[Time], week: &[Weekday], holidays: Option<Arc<Calendar>>) -> CutOffs {
        let zone = TimeZone::get("Europe/London").unwrap();
        CutOffs { times: times.to_vec(), zone, days: Days { week: week.to_vec(), holidays } }
    }

    fn next(cut_offs: &CutOffs, moment: &str) -> String {
        cut_offs.after(moment.parse().unwrap()).map(|at| at.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_cut_off_is_local_time_in_winter_and_in_summer() {
        let four = at(&[time(16, 0, 0, 0)], &WEEK, Some(holidays()));
        assert_eq!(next(&four, "2026-11-24T15:59:59Z"), "2026-11-24T16:00:00Z");
        assert_eq!(next(&four, "2026-11-24T16:00:00Z"), "2026-11-25T16:00:00Z");
        assert_eq!(next(&four, "2026-07-01T12:00:00Z"), "2026-07-01T15:00:00Z");
        // The Friday before summer time begins on 28 March 2027 is Good Friday, the Monday after it Easter Monday.
        assert_eq!(next(&four, "2027-03-25T16:00:00Z"), "2027-03-30T15:00:00Z");
    }

    #[test]
    fn holidays_and_weekends_are_passed_over() {
        let four = at(&[time(16, 0, 0, 0)], &WEEK, Some(holidays()));
        assert_eq!(next(&four, "2026-12-24T16:30:00Z"), "2026-12-29T16:00:00Z");
        assert_eq!(next(&four, "2026-12-31T16:30:00Z"), "2027-01-04T16:00:00Z");
        let every_day = at(&[time(16, 0, 0, 0)], &WEEK, None);
        assert_eq!(next(&every_day, "2026-12-24T16:30:00Z"), "2026-12-25T16:00:00Z");
    }

    #[test]
    fn midnight_the_hour_that_is_left_out_and_the_hour_that_comes_twice_have_one_cut_off_each() {
        let week: Vec<Weekday> = WEEK.into_iter().chain([Weekday::Saturday, Weekday::Sunday]).collect();
        let midnight = at(&[time(0, 0, 0, 0)], &week, None);
        assert_eq!(next(&midnight, "2026-11-24T12:00:00Z"), "2026-11-25T00:00:00Z");
        // In summer the local midnight is an hour before that of UTC.
        assert_eq!(next(&midnight, "2026-07-01T12:00:00Z"), "2026-07-01T23:00:00Z");
        let half_past_one = at(&[time(1, 30, 0, 0)], &week, None);
        assert_eq!(next(&half_past_one, "2027-03-27T12:00:00Z"), "2027-03-28T01:30:00Z");
        assert_eq!(next(&half_past_one, "2027-03-28T01:30:00Z"), "2027-03-29T00:30:00Z");
        assert_eq!(next(&half_past_one, "2026-10-24T12:00:00Z"), "2026-10-25T00:30:00Z");
        assert_eq!(next(&half_past_one, "2026-10-25T00:30:00Z"), "2026-10-26T01:30:00Z", "not a second time");
    }

    #[test]
    fn the_twenty_ninth_of_february_is_a_day_like_others() {
        let four = at(&[time(9, 0, 0, 0), time(16, 0, 0, 0)], &WEEK, None);
        assert_eq!(next(&four, "2028-02-28T16:00:00Z"), "2028-02-29T09:00:00Z");
        assert_eq!(next(&four, "2028-02-29T16:00:00Z"), "2028-03-01T09:00:00Z");
        assert_eq!(four.days.after(date(2028, 2, 28), 1), Some(date(2028, 2, 29)));
    }

    #[test]
    fn working_days_are_counted_over_holidays() {
        let days = at(&[], &WEEK, Some(holidays())).days;
        assert_eq!(days.after(date(2026, 12, 24), 1), Some(date(2026, 12, 29)));
        assert_eq!(days.after(date(2026, 12, 24), 2), Some(date(2026, 12, 30)));
        assert_eq!(days.after(date(2026, 12, 25), 0), Some(date(2026, 12, 25)));
        assert_eq!(days.on_or_after(date(2026, 12, 26)), Some(date(2026, 12, 29)));
        assert!(days.knows(date(2027, 12, 31)) && !days.knows(date(2028, 1, 1)));
    }

    #[test]
    fn a_calendar_with_a_day_that_is_none_or_of_another_year_is_refused() {
        let days = [("2026-02-30", ""), ("2028-01-01", ""), ("2026-12-25", "Christmas Day")];
        let days = days.into_iter().map(|(day, name)| (day.to_owned(), name.to_owned())).collect();
        let bad = Calendar::new("test", (2026, 2027), &days).unwrap_err();
        assert_eq!(bad.len(), 2);
    }

    #[test]
    fn without_times_or_days_there_is_no_cut_off() {
        assert_eq!(next(&at(&[], &WEEK, None), "2026-11-24T12:00:00Z"), "");
        assert_eq!(next(&at(&[time(16, 0, 0, 0)], &[], None), "2026-11-24T12:00:00Z"), "");
    }
}
