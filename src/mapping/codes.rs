//! Code lists: which word of the platform means which code of a system. CSV files in `mappings/codes/`, or in a
//! council's own folder, which counts first.

use jiff::civil::Date;
use std::collections::HashMap;

/// A code list.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CodeList {
    /// Its name: the file's, without `.csv`.
    pub name: String,
    to_system: HashMap<String, Vec<Entry>>,
    to_platform: HashMap<String, Vec<Entry>>,
    /// The platform's words, in the order of the file.
    pub platform: Vec<String>,
    /// The columns as they stand, for lists with a meaning of their own (such as rules for accounts).
    pub rows: Vec<HashMap<String, String>>,
}

/// One counterpart of a word or code, with the days on which it is valid.
#[derive(Debug, Clone, PartialEq)]
struct Entry {
    to: String,
    from: Option<Date>,
    until: Option<Date>,
}

/// What a code list says of a word or code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found<'a> {
    /// Its counterpart.
    Code(&'a str),
    /// The list does not have it.
    Unknown,
    /// It was withdrawn; its last day.
    Withdrawn(Date),
    /// It is not valid yet; its first day.
    NotYet(Date),
}

/// Something wrong in a code list, with its line counted from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadCodeList {
    /// The line.
    pub line: usize,
    /// What is wrong.
    pub what: String,
}

impl CodeList {
    /// Reads a code list. The first line names the columns: `platform`, `system`, and perhaps `only` (`to-document` or
    /// `to-event`), `from` and `until` (the first and the last day on which the row is valid) and `note`. Where a word
    /// stands in several rows that are valid on the same day the first counts; a later one must say `only`.
    ///
    /// Beside the list comes every contradiction with its line: what can be read of it is there all the same, so that
    /// a mistake in one row is told once and not again by every mapping that uses the list.
    pub fn parse(name: &str, text: &str) -> (CodeList, Vec<BadCodeList>) {
        let mut list = CodeList { name: name.to_owned(), ..CodeList::default() };
        let mut problems = Vec::new();
        let mut reader = csv::ReaderBuilder::new()
            .comment(Some(b'#'))
            .flexible(true)
            .trim(csv::Trim::All)
            .from_reader(text.strip_prefix('\u{feff}').unwrap_or(text).as_bytes());
        let columns: Vec<String> = match reader.headers() {
            Ok(head) => head.iter().map(str::to_owned).collect(),
            Err(error) => return (list, vec![BadCodeList { line: 1, what: error.to_string() }]),
        };
        for record in reader.records() {
            let record = match record {
                Ok(record) => record,
                Err(error) => {
                    let line = error.position().map_or(1, |position| position.line() as usize);
                    problems.push(BadCodeList { line, what: error.to_string() });
                    continue;
                }
            };
            let line = record.position().map_or(1, |position| position.line() as usize);
            let mut bad = |what: String| problems.push(BadCodeList { line, what });
            if record.len() != columns.len() {
                bad(format!("{} cells, but {} columns are named", record.len(), columns.len()));
                continue;
            }
            let row: HashMap<String, String> =
                columns.iter().cloned().zip(record.iter().map(str::to_owned)).collect();
            if let (Some(platform), Some(system)) = (row.get("platform"), row.get("system")) {
                let only = row.get("only").map_or("", String::as_str);
                if !matches!(only, "" | "to-document" | "to-event") {
                    bad(format!("`only` is `{only}`; it can be to-document, to-event or empty"));
                }
                let mut day = |name: &str| match row.get(name).map(String::as_str) {
                    None | Some("") => None,
                    Some(text) => match text.parse::<Date>() {
                        Ok(day) => Some(day),
                        Err(_) => {
                            bad(format!("`{name}` is `{text}`; it is a date YYYY-MM-DD or empty"));
                            None
                        }
                    },
                };
                let (from, until) = (day("from"), day("until"));
                if from.zip(until).is_some_and(|(from, until)| from > until) {
                    bad("`until` lies before `from`: the row would never be valid".to_owned());
                }
                let entry = |to: &String| Entry { to: to.clone(), from, until };
                if only != "to-event" && !enter(&mut list.to_system, platform, entry(system)) {
                    bad(format!(
                        "`{platform}` stands in an earlier row already; this row needs only = to-event"
                    ));
                }
                if only != "to-document" && !enter(&mut list.to_platform, system, entry(platform)) {
                    bad(format!(
                        "the code `{system}` stands in an earlier row already; this row needs only = to-document"
                    ));
                }
                if !list.platform.contains(platform) {
                    list.platform.push(platform.clone());
                }
            }
            list.rows.push(row);
        }
        (list, problems)
    }

    /// Whether this is a list of words and codes (and not one of rules).
    pub fn translates(&self) -> bool {
        !self.to_system.is_empty() || !self.to_platform.is_empty()
    }

    /// The system's code for a word of the platform, on a day; without one, whenever it was valid.
    pub fn system(&self, platform: &str, day: Option<Date>) -> Found<'_> {
        found(&self.to_system, platform, day)
    }

    /// The platform's word for a code of the system, on a day; without one, whenever it was valid.
    pub fn platform(&self, system: &str, day: Option<Date>) -> Found<'_> {
        found(&self.to_platform, system, day)
    }

    /// Whether any row is valid on some days only.
    pub fn has_validity(&self) -> bool {
        self.to_system
            .values()
            .chain(self.to_platform.values())
            .flatten()
            .any(|e| e.from.is_some() || e.until.is_some())
    }

    /// The words of the platform that have a code to this day, and the first day on which all of them have one.
    pub fn lasting(&self) -> (Vec<String>, Option<Date>) {
        let mut first: Option<Date> = None;
        let mut words = Vec::new();
        for word in &self.platform {
            let entries = self.to_system.get(word).map(Vec::as_slice).unwrap_or_default();
            if entries.iter().any(|e| e.until.is_none()) {
                first = first.max(entries.iter().map(|e| e.from).min().flatten());
                words.push(word.clone());
            }
        }
        (words, first)
    }
}

/// Enters a counterpart, unless another one is valid on one of the same days.
fn enter(map: &mut HashMap<String, Vec<Entry>>, key: &str, entry: Entry) -> bool {
    let entries = map.entry(key.to_owned()).or_default();
    let before =
        |end: Option<Date>, start: Option<Date>| end.zip(start).is_some_and(|(end, start)| end < start);
    let free = entries.iter().all(|other| before(other.until, entry.from) || before(entry.until, other.from));
    if free {
        entries.push(entry);
    }
    free
}

fn found<'l>(map: &'l HashMap<String, Vec<Entry>>, key: &str, day: Option<Date>) -> Found<'l> {
    let Some(entries) = map.get(key) else { return Found::Unknown };
    let Some(day) = day else {
        return entries.last().map_or(Found::Unknown, |entry| Found::Code(&entry.to));
    };
    let valid =
        |e: &&Entry| e.from.is_none_or(|from| from <= day) && e.until.is_none_or(|until| day <= until);
    if let Some(entry) = entries.iter().find(valid) {
        return Found::Code(&entry.to);
    }
    let ended = entries.iter().filter_map(|e| e.until).filter(|until| *until < day).max();
    let begins = entries.iter().filter_map(|e| e.from).filter(|from| *from > day).min();
    match (ended, begins) {
        (Some(ended), _) => Found::Withdrawn(ended),
        (None, Some(begins)) => Found::NotYet(begins),
        (None, None) => Found::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    #[test]
    fn a_code_counts_on_the_days_on_which_it_is_valid() {
        let text = "platform,system,from,until\nresidential,H5,,2025-03-31\nresidential,K2,2025-04-01,\nsemi,P2,2025-04-01,2026-03-31\n";
        let (list, bad) = CodeList::parse("placement", text);
        assert_eq!(bad, Vec::new());
        assert_eq!(list.system("residential", Some(date(2025, 3, 31))), Found::Code("H5"));
        assert_eq!(list.system("residential", Some(date(2025, 4, 1))), Found::Code("K2"));
        assert_eq!(list.platform("H5", Some(date(2026, 1, 1))), Found::Withdrawn(date(2025, 3, 31)));
        assert_eq!(list.platform("K2", Some(date(2024, 1, 1))), Found::NotYet(date(2025, 4, 1)));
        assert_eq!(list.platform("H5", None), Found::Code("residential"));
        assert_eq!(list.platform("Z9", Some(date(2026, 1, 1))), Found::Unknown);
    }

    #[test]
    fn rows_that_are_valid_on_the_same_day_contradict_each_other() {
        let text = "platform,system,from,until\na,1,,2025-03-31\na,2,2025-03-31,\nb,3,2025-13-01,\nc,4,2026-01-01,2025-01-01\n";
        let (_, bad) = CodeList::parse("x", text);
        assert_eq!(bad.iter().map(|bad| bad.line).collect::<Vec<_>>(), [3, 4, 5]);
    }
}
