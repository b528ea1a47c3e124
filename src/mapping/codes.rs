//! Code lists: which word of the platform means which code of a system. CSV files in `mappings/codes/`, or in a
//! council's own folder, which counts first.

use std::collections::HashMap;

/// A code list.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CodeList {
    /// Its name: the file's, without `.csv`.
    pub name: String,
    to_system: HashMap<String, String>,
    to_platform: HashMap<String, String>,
    /// The platform's words, in the order of the file.
    pub platform: Vec<String>,
    /// The columns as they stand, for lists with a meaning of their own (such as rules for accounts).
    pub rows: Vec<HashMap<String, String>>,
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
    /// `to-event`) and `note`. Where a word stands in several rows the first counts; a later one must say `only`.
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
                if only != "to-event" {
                    if list.to_system.contains_key(platform) {
                        bad(format!(
                            "`{platform}` stands in an earlier row already; this row needs only = to-event"
                        ));
                    } else {
                        list.to_system.insert(platform.clone(), system.clone());
                    }
                }
                if only != "to-document" {
                    if list.to_platform.contains_key(system) {
                        bad(format!(
                            "the code `{system}` stands in an earlier row already; this row needs only = to-document"
                        ));
                    } else {
                        list.to_platform.insert(system.clone(), platform.clone());
                    }
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

    /// The system's code for a word of the platform.
    pub fn system(&self, platform: &str) -> Option<&str> {
        self.to_system.get(platform).map(String::as_str)
    }

    /// The platform's word for a code of the system.
    pub fn platform(&self, system: &str) -> Option<&str> {
        self.to_platform.get(system).map(String::as_str)
    }
}
