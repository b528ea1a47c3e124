//! A problem in a file that somebody wrote: what is wrong, where in the file by key, and what would be right.
//!
//! Pure checks name the place by keys; `config` turns keys into lines and columns, `cli` prints them.

use crate::code::Code;
use std::ops::Range;

/// How much a problem matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// `run` will not start.
    Error,
    /// Something that is probably not meant, or that an officer should know.
    Warning,
}

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The stable code.
    pub code: Code,
    /// How much it matters.
    pub severity: Severity,
    /// The keys that lead to the place, indices of lists as numbers: `fields`, `3`, `document`.
    pub at: Vec<String>,
    /// Whether the key itself is meant rather than its value.
    pub on_key: bool,
    /// The part of a text value that is meant, in bytes.
    pub part: Option<Range<usize>>,
    /// What is wrong, one line.
    pub what: String,
    /// A few words to stand under the place.
    pub label: String,
    /// What to do.
    pub help: Option<String>,
    /// The text that should stand there instead.
    pub instead: Option<String>,
}

impl Problem {
    /// An error at the value behind these keys.
    pub fn error(code: Code, at: &[&str], what: impl Into<String>) -> Problem {
        Problem {
            code,
            severity: Severity::Error,
            at: at.iter().map(|key| (*key).to_owned()).collect(),
            on_key: false,
            part: None,
            what: what.into(),
            label: String::new(),
            help: None,
            instead: None,
        }
    }

    /// An error at the value behind keys that are at hand as a list, and one key further.
    pub fn under(code: Code, at: &[String], key: &str, what: impl Into<String>) -> Problem {
        let mut problem = Problem::error(code, &[], what);
        problem.at = at.to_vec();
        if !key.is_empty() {
            problem.at.push(key.to_owned());
        }
        problem
    }

    /// The same as a warning.
    #[must_use]
    pub fn warning(mut self) -> Problem {
        self.severity = Severity::Warning;
        self
    }

    /// With words to stand under the place.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Problem {
        self.label = label.into();
        self
    }

    /// With what to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Problem {
        self.help = Some(help.into());
        self
    }

    /// Meaning the key, not its value.
    #[must_use]
    pub fn on_key(mut self) -> Problem {
        self.on_key = true;
        self
    }

    /// Meaning a part of the text.
    #[must_use]
    pub fn part(mut self, part: Option<Range<usize>>) -> Problem {
        self.part = part;
        self
    }

    /// With "did you mean", if one of the known names is close to what was written.
    #[must_use]
    pub fn did_you_mean<'a>(mut self, written: &str, known: impl IntoIterator<Item = &'a str>) -> Problem {
        let mut known: Vec<&str> = known.into_iter().collect();
        known.sort_unstable();
        match closest(written, known.iter().copied()) {
            Some(name) => self.instead = Some(name.to_owned()),
            None if !known.is_empty() && known.len() <= 12 && self.help.is_none() => {
                self.help = Some(format!("there are: {}", known.join(", ")));
            }
            None => {}
        }
        self
    }
}

/// The name closest to what was written, if it is close enough to be meant.
pub fn closest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let most = 1 + written.chars().count() / 4;
    known
        .into_iter()
        .map(|name| (distance(written, name), name))
        .filter(|(distance, _)| *distance <= most)
        .min()
        .map(|(_, name)| name)
}

/// How many insertions, deletions, replacements and swaps of neighbours lead from one to the other.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) =
        (a.to_lowercase().chars().collect(), b.to_lowercase().chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let cell = |cells: &[usize], at: usize| cells.get(at).copied().unwrap_or(usize::MAX / 2);
            let mut best =
                (cell(&last, j + 1) + 1).min(cell(&row, j) + 1).min(cell(&last, j) + usize::from(x != y));
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(y) && b.get(j - 1) == Some(x);
            if swapped {
                best = best.min(cell(&before, j - 1) + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_finds_what_was_meant_and_nonsense_finds_nothing() {
        let known = ["document", "event", "constant", "default"];
        assert_eq!(closest("documnet", known), Some("document"));
        assert_eq!(closest("evnt", known), Some("event"));
        assert_eq!(closest("colour", known), None);
    }
}
