//! What must add up: exact decimals, checked where the total is stated and at the end of the file.

use super::at_line;
use crate::{
    code::Code,
    format::{
        FormatError, Layout,
        layout::{Role, Source, Sum, Total},
    },
};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

/// One total under way.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Running {
    /// What has been added up, with where it started.
    sum: Decimal,
    /// What a header stated before its records.
    stated: Option<Decimal>,
    /// Whether a total was stated at all.
    checked: bool,
    /// Whether a record that counts could not be read.
    unsure: bool,
}

/// All totals of a file.
#[derive(Debug)]
pub(super) struct Totals {
    running: Vec<Running>,
    /// The first that differs: told at the end, when all records are known.
    differs: Option<FormatError>,
}

impl Totals {
    pub fn resume(layout: &Layout, running: Vec<Running>) -> Totals {
        let running = match running.len() == layout.totals.len() {
            true => running,
            false => vec![Running::default(); layout.totals.len()],
        };
        Totals { running, differs: None }
    }

    pub fn state(&self) -> Vec<Running> {
        self.running.clone()
    }

    /// Takes in a line of a kind. `field` gives the text of its fields; nothing if the line is wrong.
    pub fn line(&mut self, layout: &Layout, kind: usize, line: u64, field: &dyn Fn(usize) -> Option<String>) {
        let role = layout.records.get(kind).map(|record| record.role);
        for (total, running) in layout.totals.iter().zip(&mut self.running) {
            let number = |place: usize| field(place).and_then(|text| decimal(&text));
            match &total.of {
                Sum::Count(kinds) if kinds.contains(&kind) => running.sum += Decimal::ONE,
                Sum::Field { amount: Source::Field(record, place), minus } if *record == kind => {
                    let negative = minus.as_ref().is_some_and(|(source, texts)| match source {
                        Source::Field(_, place) => {
                            field(*place).is_some_and(|text| texts.iter().any(|known| *known == text))
                        }
                        Source::Path(_) => false,
                    });
                    match number(*place) {
                        Some(amount) if negative => running.add(-amount),
                        Some(amount) => running.add(amount),
                        None if field(*place).as_deref() == Some("") => {}
                        None => running.unsure = true,
                    }
                }
                Sum::Count(_) | Sum::Field { .. } => {}
            }
            let here = |source: &Source| match source {
                Source::Field(record, place) if *record == kind => Some(*place),
                Source::Field(..) | Source::Path(_) => None,
            };
            if let Some(place) = total.start.as_ref().and_then(here) {
                match number(place) {
                    Some(start) => running.add(start),
                    None => running.unsure = true,
                }
            }
            if let Some(place) = here(&total.equals) {
                let wrong = match (number(place), role) {
                    (None, _) => Some(unreadable(total, line)),
                    (Some(stated), Some(Role::Header)) => {
                        let before = running.stated.replace(stated);
                        before.and_then(|before| running.check(total, before, line))
                    }
                    (Some(stated), _) => running.check(total, stated, line),
                };
                self.differs = self.differs.take().or(wrong);
            }
        }
    }

    /// At the end of the file; gives the totals that could not be checked.
    pub fn finish(mut self, layout: &Layout) -> Result<Vec<String>, FormatError> {
        let mut unchecked = Vec::new();
        for (total, running) in layout.totals.iter().zip(&mut self.running) {
            let unsure = running.unsure;
            let wrong = match running.stated.take() {
                Some(stated) => running.check(total, stated, 0),
                None if !running.checked => {
                    let what = format!("the file ends, and nothing states its {}: it is cut off", total.what);
                    Some(FormatError::nowhere(Code::FileCutOff, what))
                }
                None => None,
            };
            if unsure {
                unchecked.push(total.what.clone());
            }
            self.differs = self.differs.take().or(wrong);
        }
        match self.differs {
            Some(error) => Err(error),
            None => Ok(unchecked),
        }
    }
}

impl Running {
    fn add(&mut self, amount: Decimal) {
        match self.sum.checked_add(amount) {
            Some(sum) => self.sum = sum,
            None => self.unsure = true,
        }
    }

    /// Compares with what is stated, and begins anew.
    fn check(&mut self, total: &Total, stated: Decimal, line: u64) -> Option<FormatError> {
        let sum = std::mem::take(&mut self.sum);
        self.checked = true;
        if self.unsure || sum == stated {
            return None;
        }
        let what = format!("{}: the file states {stated}, its records give {sum}", total.what);
        let error = FormatError::nowhere(Code::TotalsDiffer, what);
        Some(if line > 0 { at_line(error, line) } else { error })
    }
}

fn unreadable(total: &Total, line: u64) -> FormatError {
    let what = format!("{}: what the file states is no number", total.what);
    at_line(FormatError::nowhere(Code::TotalsDiffer, what), line)
}

/// A number as files write it: digits, perhaps a sign and a point; no commas, no exponent.
pub(super) fn decimal(text: &str) -> Option<Decimal> {
    let text = text.trim();
    let bare = text.strip_prefix(['-', '+']).unwrap_or(text);
    let plain =
        bare.bytes().all(|b| b.is_ascii_digit() || b == b'.') && bare.bytes().any(|b| b.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}
