//! Dates and moments as documents write them: patterns, two-digit years, Bacs's day of the year, ends that mean the day
//! before, local times. Knows nothing of rows; says what is wrong without the value.

use super::convert::{Refusal, refuse};
use jiff::{Span, Timestamp, civil, fmt::strtime, tz::TimeZone};

/// How a document writes a date.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DateForm {
    /// In which spelling.
    pub spelling: Spelling,
    /// How many days the event's date lies behind the document's.
    pub shift_days: i32,
    /// The first two-digit year that belongs to the twentieth century.
    pub pivot: Option<i16>,
}

/// The spelling of a date.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spelling {
    /// `YYYY-MM-DD`; reading, also with a time behind it. With an offset the day is London's.
    Iso8601,
    /// By strftime patterns: written by the first, read by whichever fits.
    Patterns(Vec<String>),
}

impl Spelling {
    /// As a row names it: `iso8601`, the two names that Bacs's specifications use, or patterns parted by `|`.
    pub fn of(text: &str) -> Spelling {
        match text {
            "iso8601" => Spelling::Iso8601,
            "bYYDDD" => Spelling::Patterns(vec![" %y%j".to_owned()]),
            "YYDDD" => Spelling::Patterns(vec!["%y%j".to_owned()]),
            patterns => Spelling::Patterns(patterns.split('|').map(str::to_owned).collect()),
        }
    }

    /// Whether years have two digits.
    pub fn short_years(&self) -> bool {
        match self {
            Spelling::Iso8601 => false,
            Spelling::Patterns(patterns) => patterns.iter().any(|pattern| pattern.contains("%y")),
        }
    }
}

impl DateForm {
    /// A date in this spelling and nothing else.
    pub fn plain(text: &str) -> DateForm {
        DateForm { spelling: Spelling::of(text), shift_days: 0, pivot: None }
    }

    /// The event's date for the document's text.
    ///
    /// # Errors
    /// It is no date of this spelling, or the date that a program writes for none.
    pub fn to_event(&self, text: &str) -> Result<civil::Date, Refusal> {
        let date = self.read(text)?;
        if date.year() <= 1 {
            return refuse(
                "0001-01-01 is what a program writes that has no date: say so with `none` in the row if that is meant",
            );
        }
        self.shifted(date, self.shift_days)
    }

    /// The document's text for an event's date. What would be read back as another date is refused.
    ///
    /// # Errors
    /// The spelling cannot hold the date.
    pub fn to_document(&self, date: civil::Date) -> Result<String, Refusal> {
        let date = self.shifted(date, -self.shift_days)?;
        let text = match &self.spelling {
            Spelling::Iso8601 => date.to_string(),
            Spelling::Patterns(patterns) => {
                strtime::format(patterns.first().map_or("", String::as_str), date)
                    .or_else(|_| refuse("the date cannot be written by this pattern"))?
            }
        };
        match self.read(text.trim()) {
            Ok(back) if back == date => Ok(text),
            _ if self.spelling.short_years() => refuse(
                "the date lies outside the hundred years that this pattern with its two-digit year can hold",
            ),
            _ => refuse("the date cannot be written by this pattern"),
        }
    }

    /// The date that the document means by a text, before it is shifted.
    ///
    /// # Errors
    /// It is no date of this spelling.
    pub fn read(&self, text: &str) -> Result<civil::Date, Refusal> {
        match &self.spelling {
            Spelling::Iso8601 => match (text.parse::<Timestamp>(), text.parse::<civil::DateTime>()) {
                (Ok(moment), _) => Ok(london().to_datetime(moment).date()),
                (Err(_), Ok(local)) => Ok(local.date()),
                (Err(_), Err(_)) => refuse("this is not a date YYYY-MM-DD, with or without a time"),
            },
            Spelling::Patterns(patterns) => {
                let read = patterns.iter().find_map(|pattern| civil::Date::strptime(pattern, text).ok());
                let Some(date) = read else { return refuse("this is not a date of the row's pattern") };
                let Some(pivot) = self.pivot else { return Ok(date) };
                let two = date.year().rem_euclid(100);
                let year = if two >= pivot { 1900 + two } else { 2000 + two };
                date.with().year(year).build().or_else(|_| refuse("there is no such day in that year"))
            }
        }
    }

    fn shifted(&self, date: civil::Date, days: i32) -> Result<civil::Date, Refusal> {
        match days {
            0 => Ok(date),
            days => date.checked_add(Span::new().days(days)).or_else(|_| refuse("this date is out of range")),
        }
    }
}

/// The zone of councils and their systems: what a local date or time without a zone means.
pub fn london() -> TimeZone {
    TimeZone::get("Europe/London").unwrap_or(TimeZone::UTC)
}

/// How a document writes a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TimeForm {
    /// RFC 3339: always with an offset.
    Rfc3339,
    /// ISO 8601 as `xs:dateTime` has it: with an offset, or without one in the row's zone.
    Iso8601,
    /// By a strftime pattern.
    Pattern(String),
}

impl TimeForm {
    /// As a row names it.
    pub fn of(text: &str) -> TimeForm {
        match text {
            "rfc3339" => TimeForm::Rfc3339,
            "iso8601" => TimeForm::Iso8601,
            pattern => TimeForm::Pattern(pattern.to_owned()),
        }
    }

    /// The document's text for a moment.
    ///
    /// # Errors
    /// The pattern cannot hold it.
    pub fn to_document(&self, moment: Timestamp, zone: &TimeZone) -> Result<String, Refusal> {
        let pattern = match self {
            TimeForm::Rfc3339 => return Ok(moment.to_string()),
            TimeForm::Iso8601 => "%Y-%m-%dT%H:%M:%S%.f%:z",
            TimeForm::Pattern(pattern) => pattern,
        };
        strtime::format(pattern, &moment.to_zoned(zone.clone()))
            .or_else(|_| refuse("the moment cannot be written by this pattern"))
    }

    /// The moment that a document's text means.
    ///
    /// # Errors
    /// It is no moment of this form, or what a program writes that has none.
    pub fn to_event(&self, text: &str, zone: &TimeZone) -> Result<Timestamp, Refusal> {
        let read = match self {
            TimeForm::Rfc3339 => moment(text),
            TimeForm::Iso8601 => {
                text.parse::<Timestamp>().or_else(|_| read_moment("%Y-%m-%dT%H:%M:%S%.f", zone, text))
            }
            TimeForm::Pattern(pattern) => read_moment(pattern, zone, text),
        }?;
        match read.to_zoned(TimeZone::UTC).year() {
            ..=1 => refuse(
                "0001-01-01 is what a program writes that has no moment: say so with `none` in the row if that is meant",
            ),
            _ => Ok(read),
        }
    }
}

/// An RFC 3339 moment.
///
/// # Errors
/// It is none.
pub fn moment(text: &str) -> Result<Timestamp, Refusal> {
    text.parse().or_else(|_| refuse("this is not an RFC 3339 moment"))
}

fn read_moment(pattern: &str, zone: &TimeZone, text: &str) -> Result<Timestamp, Refusal> {
    let Ok(broken) = strtime::parse(pattern, text) else {
        return refuse("this is not a moment of the row's pattern");
    };
    if broken.offset().is_some() {
        return broken.to_timestamp().or_else(|_| refuse("this moment is out of range"));
    }
    let civil = broken.to_datetime().or_else(|_| refuse("this moment lacks a date or a time"))?;
    let ambiguous = zone.to_ambiguous_timestamp(civil);
    if let jiff::tz::AmbiguousOffset::Gap { .. } = ambiguous.offset() {
        return refuse("this local time does not exist: summer time begins in that hour");
    }
    ambiguous.earlier().or_else(|_| refuse("this moment is out of range"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    fn form(spelling: &str, shift_days: i32, pivot: Option<i16>) -> DateForm {
        DateForm { spelling: Spelling::of(spelling), shift_days, pivot }
    }

    #[test]
    fn bacs_counts_the_days_of_a_year() {
        let bacs = form("bYYDDD", 0, None);
        assert_eq!(bacs.to_document(date(2026, 11, 24)).unwrap(), " 26328");
        assert_eq!(bacs.to_event("26328").unwrap(), date(2026, 11, 24));
        assert_eq!(bacs.to_event(" 26328").unwrap(), date(2026, 11, 24));
        assert_eq!(form("YYDDD", 0, None).to_event("24366").unwrap(), date(2024, 12, 31));
        assert!(form("YYDDD", 0, None).to_event("26366").is_err(), "2026 has 365 days");
        assert!(form("YYDDD", 0, None).to_event("00000").is_err());
    }

    #[test]
    fn a_pivot_says_which_century_a_two_digit_year_belongs_to() {
        let birth = form("%d/%m/%y", 0, Some(27));
        assert_eq!(birth.to_event("14/03/51").unwrap(), date(1951, 3, 14));
        assert_eq!(birth.to_event("14/03/26").unwrap(), date(2026, 3, 14));
        assert_eq!(birth.to_event("14/03/27").unwrap(), date(1927, 3, 14));
        assert_eq!(birth.to_event("29/02/00").unwrap(), date(2000, 2, 29));
        assert_eq!(birth.to_document(date(1951, 3, 14)).unwrap(), "14/03/51");
        assert!(birth.to_document(date(1926, 3, 14)).is_err(), "it would come back as 2026");
        assert!(form("%d/%m/%y", 0, None).to_document(date(1951, 3, 14)).is_err());
    }

    #[test]
    fn an_end_that_means_the_day_before_comes_out_as_the_day_after_and_goes_back() {
        let end = form("iso8601", 1, None);
        assert_eq!(end.to_event("2026-02-28").unwrap(), date(2026, 3, 1));
        assert_eq!(end.to_document(date(2026, 3, 1)).unwrap(), "2026-02-28");
    }

    #[test]
    fn a_date_as_text_is_read_with_or_without_its_midnight() {
        let iso = form("iso8601", 0, None);
        for text in
            ["2099-12-31", "2099-12-31 00:00:00.0000000", "2099-12-31T00:00:00", "2099-12-31T00:00:00.000Z"]
        {
            assert_eq!(iso.to_event(text).unwrap(), date(2099, 12, 31), "{text}");
        }
        assert_eq!(iso.to_event("2026-06-30T23:00:00Z").unwrap(), date(2026, 7, 1), "London's day");
        assert!(iso.to_event("31/12/2099").is_err());
    }

    #[test]
    fn a_date_may_have_two_spellings_and_is_written_in_the_first() {
        let form = form("%d-%m-%Y|%d/%m/%Y", 0, None);
        assert_eq!(form.to_event("14-03-1951").unwrap(), date(1951, 3, 14));
        assert_eq!(form.to_event("14/03/1951").unwrap(), date(1951, 3, 14));
        assert_eq!(form.to_document(date(1951, 3, 14)).unwrap(), "14-03-1951");
    }

    #[test]
    fn the_first_of_january_of_the_year_one_is_refused() {
        assert!(form("iso8601", 0, None).to_event("0001-01-01 00:00:00").is_err());
        assert!(form("%d/%m/%Y", 0, None).to_event("01/01/0001").is_err());
        assert!(TimeForm::Iso8601.to_event("0001-01-01T00:00:00", &london()).is_err());
        assert!(TimeForm::Rfc3339.to_event("0001-01-01T00:00:00Z", &london()).is_err());
    }
}
