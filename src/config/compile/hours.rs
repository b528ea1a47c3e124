//! Compiling times of day, days and calendars: the hours of systems, and what they share with the cut-offs of batches.

use super::{At, under};
use crate::{
    batch::Calendar,
    code::Code,
    config::raw::{batch::Weekday, hours::HoursKeys},
    gate::{Hours, Span},
    problem::Problem,
};
use jiff::{civil, tz::TimeZone};
use std::{collections::BTreeMap, sync::Arc};

/// The calendars of a project, by name.
pub type Calendars = BTreeMap<String, Arc<Calendar>>;

/// The hours of a system, and what is wrong with them.
pub fn hours(keys: &HoursKeys, calendars: &Calendars, at: At<'_>) -> (Option<Hours>, Vec<Problem>) {
    let mut problems = Vec::new();
    let mut spans = Vec::new();
    for (index, keys) in keys.open.iter().enumerate() {
        let at = under(at, &["open", &index.to_string()]);
        let from = time(&keys.from).map_err(|what| Problem::under(Code::WrongType, &at, "from", what));
        let to = match keys.to.as_str() {
            "24:00" => Ok(None),
            text => time(text).map(Some).map_err(|what| Problem::under(Code::WrongType, &at, "to", what)),
        };
        let week = week(keys.days.as_deref());
        if week.is_empty() {
            let what = "there must be a day on which it opens";
            problems.push(Problem::under(Code::NeverOpen, &at, "days", what));
        }
        match (from, to) {
            (Ok(from), Ok(Some(to))) if from == to => {
                let what = "a time that ends when it begins is never open";
                let help = "for the whole day: from = \"00:00\", to = \"24:00\"";
                problems.push(Problem::under(Code::NeverOpen, &at, "to", what).help(help));
            }
            (Ok(from), Ok(to)) => spans.push(Span { week, from, to }),
            (from, to) => {
                let wrong = [from.err(), to.err()].into_iter().flatten();
                problems.extend(wrong.map(|problem| problem.help("hours and minutes: `16:00`")));
            }
        }
    }
    if keys.open.is_empty() {
        let what = "hours without a time at which it is open: nothing would ever be sent";
        problems.push(
            Problem::under(Code::NeverOpen, at, "open", what)
                .help("to stop a route, `packhorse pause`, or `enabled = false` for the route"),
        );
    }
    let zone = zone(keys.zone.as_deref()).map_err(|what| Problem::under(Code::UnknownName, at, "zone", what));
    let holidays = holidays(keys.holidays.as_deref(), calendars, at);
    match (zone, holidays) {
        (Ok(zone), Ok(holidays)) => {
            let hours = Hours { spans, zone, holidays };
            if let Some((one, other)) = hours.overlap() {
                let what = match one == other {
                    true => "this time meets itself: a day is there twice".to_owned(),
                    false => format!(
                        "the times {} and {} meet: it is said twice that it is open",
                        one + 1,
                        other + 1
                    ),
                };
                problems.push(Problem::under(Code::NeverOpen, at, "open", what));
            }
            (problems.is_empty().then_some(hours), problems)
        }
        (zone, holidays) => {
            problems.extend([zone.err(), holidays.err()].into_iter().flatten());
            (None, problems)
        }
    }
}

/// A time of day.
pub(super) fn time(text: &str) -> Result<civil::Time, &'static str> {
    civil::Time::strptime("%H:%M", text).map_err(|_| "this is not a time of day")
}

/// A zone; London's if none is said.
pub(super) fn zone(name: Option<&str>) -> Result<TimeZone, String> {
    let name = name.unwrap_or("Europe/London");
    TimeZone::get(name).map_err(|_| format!("there is no time zone `{name}`"))
}

/// Days of the week; Monday to Friday if none are said.
pub(super) fn week(days: Option<&[Weekday]>) -> Vec<civil::Weekday> {
    const USUAL: [Weekday; 5] = [Weekday::Mon, Weekday::Tue, Weekday::Wed, Weekday::Thu, Weekday::Fri];
    days.unwrap_or(&USUAL).iter().map(|day| weekday(*day)).collect()
}

/// A calendar, by its name.
pub(super) fn holidays(
    name: Option<&str>,
    calendars: &Calendars,
    at: At<'_>,
) -> Result<Option<Arc<Calendar>>, Problem> {
    let Some(name) = name else { return Ok(None) };
    match calendars.get(name) {
        Some(calendar) => Ok(Some(calendar.clone())),
        None => {
            let known: Vec<&str> = calendars.keys().map(String::as_str).collect();
            let what = format!("there is no calendar `{name}`");
            Err(Problem::under(Code::UnknownName, at, "holidays", what)
                .label(format!("mappings/calendars/{name}.toml is not there"))
                .did_you_mean(name, known))
        }
    }
}

fn weekday(day: Weekday) -> civil::Weekday {
    match day {
        Weekday::Mon => civil::Weekday::Monday,
        Weekday::Tue => civil::Weekday::Tuesday,
        Weekday::Wed => civil::Weekday::Wednesday,
        Weekday::Thu => civil::Weekday::Thursday,
        Weekday::Fri => civil::Weekday::Friday,
        Weekday::Sat => civil::Weekday::Saturday,
        Weekday::Sun => civil::Weekday::Sunday,
    }
}
