//! What must add up: exact decimals, checked where the total is stated and at the end of the file.

use super::at_line;
use crate::{
    code::Code,
    format::{
        FormatError, Layout,
        layout::{Amount, Beside, Role, Shape, Source, Sum, Total},
    },
    tree::{Name, Tree},
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
    /// Whether that was so in an earlier group of records.
    #[serde(default)]
    doubted: bool,
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
                Sum::Field { amount: Amount { at: Source::Field(record, place), .. }, minus }
                    if *record == kind =>
                {
                    let negative = minus.as_ref().is_some_and(|minus| {
                        let text = |source: &Source| match source {
                            Source::Field(_, place) => field(*place),
                            Source::Path(_) => None,
                        };
                        minus.at.iter().filter_map(text).any(|text| minus.is.contains(&text))
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
            if let Some(place) = total.start.as_ref().and_then(|start| here(&start.at)) {
                match number(place) {
                    Some(start) => running.add(start),
                    None => running.unsure = true,
                }
            }
            if let Some(place) = here(&total.equals.at) {
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

    /// A record that counts could not be read.
    pub fn doubt(&mut self) {
        self.running.iter_mut().for_each(|running| running.unsure = true);
    }

    /// Takes in a part of an XML file: a record, or what stands around the records when their group ends.
    pub fn of_xml(&mut self, layout: &Layout, tree: &Tree, part: Part, line: u64) {
        for (total, running) in layout.totals.iter().zip(&mut self.running) {
            let minus = match &total.of {
                Sum::Field { minus, .. } => minus.as_ref(),
                Sum::Count(_) => None,
            };
            match part {
                Part::Record => match &total.of {
                    Sum::Count(_) => running.add(Decimal::ONE),
                    Sum::Field { amount, .. } => match amounts(tree, amount, minus) {
                        Some(found) => found.into_iter().for_each(|amount| running.add(amount)),
                        None => running.unsure = true,
                    },
                },
                Part::Group => {
                    let start =
                        total.start.as_ref().map_or(Some(Vec::new()), |start| amounts(tree, start, minus));
                    // Where it is told twice (today's opening is yesterday's closing), it counts once.
                    if let Some(amount) = start.iter().flatten().next() {
                        running.add(*amount);
                    }
                    let stated = amounts(tree, &total.equals, minus);
                    let missing = total.start.is_some() && start.as_ref().is_none_or(Vec::is_empty);
                    let wrong = match stated.as_deref() {
                        None => Some(unreadable(total, line)),
                        Some([stated, ..]) if !missing => running.check(total, *stated, line),
                        // Not every message states every total.
                        Some(_) => {
                            running.sum = Decimal::ZERO;
                            running.checked = true;
                            running.unsure = true;
                            None
                        }
                    };
                    // The next group is sure again.
                    running.doubted |= std::mem::take(&mut running.unsure);
                    self.differs = self.differs.take().or(wrong);
                }
            }
        }
    }

    /// At the end of the file; gives the totals that could not be checked.
    pub fn finish(mut self, layout: &Layout) -> Result<Vec<String>, FormatError> {
        let mut unchecked = Vec::new();
        for (total, running) in layout.totals.iter().zip(&mut self.running) {
            let unsure = running.unsure || running.doubted;
            let wrong = match running.stated.take() {
                Some(stated) => running.check(total, stated, 0),
                None if !running.checked && !matches!(layout.shape, Shape::Xml(_)) => {
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

/// A part of an XML file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// One record, with what stands before it.
    Record,
    /// What stands around the records.
    Group,
}

/// The amounts at a path that count, negative where the field beside them says so; nothing if one is no number.
fn amounts(tree: &Tree, amount: &Amount, minus: Option<&Beside>) -> Option<Vec<Decimal>> {
    let Source::Path(path) = &amount.at else { return Some(Vec::new()) };
    let Some((last, before)) = path.split_last() else { return Some(Vec::new()) };
    let mut found = Vec::new();
    for parent in all(tree, before) {
        let told = |source: &Source, is: &[String]| match source {
            Source::Path(path) => {
                let text = all(parent, path).first().and_then(|tree| tree.as_text());
                text.is_some_and(|text| is.iter().any(|known| known == text.trim()))
            }
            Source::Field(..) => false,
        };
        let beside = |beside: &Beside| beside.at.iter().any(|source| told(source, &beside.is));
        if amount.when.as_ref().is_none_or(beside) {
            for tree in all(parent, std::slice::from_ref(last)) {
                let number = decimal(tree.as_text()?)?;
                found.push(if minus.is_some_and(beside) { -number } else { number });
            }
        }
    }
    Some(found)
}

/// Everything at a path of names.
fn all<'t>(tree: &'t Tree, path: &[Name]) -> Vec<&'t Tree> {
    path.iter().fold(vec![tree], |trees, name| {
        let inside = trees.into_iter().filter_map(Tree::as_record).flat_map(|record| record.entries());
        inside.filter(|(known, _)| known == name).map(|(_, tree)| tree).collect()
    })
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
