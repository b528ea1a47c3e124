//! Paths: places in an event (`payer.name`, `lines[]`) and in a document (`b:sale/b:items/b:item[]`).

use crate::{
    format::Namespaces,
    tree::{Name, TEXT, Tree},
};
use std::fmt;

/// A place, relative to where one stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Path {
    /// As written.
    text: String,
    steps: Vec<Step>,
}

/// One step down.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The name to go to; empty for the list that one stands on.
    pub name: Name,
    /// Which of those with that name.
    pub which: Which,
}

/// Which of the entries of one name are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The only one.
    One,
    /// Each: `item[]`.
    Each,
    /// Each of those numbered in their names: `line_{n}[]`.
    Numbered,
    /// The nth, counted from 1: `item[2]`.
    Nth(usize),
}

/// Why a text is not a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadPath {
    /// What is wrong.
    pub what: String,
    /// The part of the text that is wrong, as a byte range.
    pub part: std::ops::Range<usize>,
    /// Set if a namespace prefix is not declared.
    pub unknown_prefix: Option<String>,
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Path {
    /// A path in an event: names parted by dots.
    ///
    /// # Errors
    /// An empty name, or brackets that hold nothing sensible.
    pub fn in_event(text: &str) -> Result<Path, BadPath> {
        Path::parse(text, '.', |name, _| Ok(Name::plain(name)))
    }

    /// A path in a document: names parted by slashes, with prefixes where the format has namespaces.
    ///
    /// # Errors
    /// An empty name, an undeclared prefix, or brackets that hold nothing sensible.
    pub fn in_document(text: &str, namespaces: Option<&Namespaces>) -> Result<Path, BadPath> {
        Path::parse(text, '/', |name, part| match namespaces {
            None => Ok(Name::plain(name)),
            Some(namespaces) => spaced(name, namespaces, part),
        })
    }

    fn parse(
        text: &str,
        separator: char,
        name_of: impl Fn(&str, std::ops::Range<usize>) -> Result<Name, BadPath>,
    ) -> Result<Path, BadPath> {
        let mut steps = Vec::new();
        let mut offset = 0;
        for part in split(text, separator) {
            let range = offset..offset + part.len();
            offset = range.end + separator.len_utf8();
            let wrong =
                |what: &str| BadPath { what: what.to_owned(), part: range.clone(), unknown_prefix: None };
            let (name, which) = match part.strip_suffix(']').and_then(|rest| rest.rsplit_once('[')) {
                None => (part, Which::One),
                Some((name, "")) if name.contains("{n}") => (name, Which::Numbered),
                Some((name, "")) => (name, Which::Each),
                Some((name, number)) => match number.parse::<usize>() {
                    Ok(number) if number > 0 => (name, Which::Nth(number)),
                    _ => return Err(wrong("a number from 1 or nothing stands in the brackets")),
                },
            };
            if name.is_empty() && !(steps.is_empty() && which == Which::Each) {
                return Err(wrong("a name is missing here"));
            }
            let name = match name.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')) {
                Some(quoted) => Name::plain(quoted),
                None if name.contains(['[', ']', ' ', '\'']) => {
                    return Err(wrong(
                        "this is not a name; names with odd characters stand in single quotes",
                    ));
                }
                None => name_of(name, range.clone())?,
            };
            steps.push(Step { name, which });
        }
        Ok(Path { text: text.to_owned(), steps })
    }

    /// The steps.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The last step and those before it.
    pub fn split_last(&self) -> Option<(&Step, &[Step])> {
        self.steps.split_last()
    }

    /// Whether the last step means several.
    pub fn is_repeated(&self) -> bool {
        self.steps.last().is_some_and(|step| matches!(step.which, Which::Each | Which::Numbered))
    }

    /// Whether a step before the last, or (for a value) the last, means several.
    pub fn repeats_before_the_end(&self) -> bool {
        self.split_last().is_some_and(|(_, before)| {
            before.iter().any(|step| matches!(step.which, Which::Each | Which::Numbered))
        })
    }

    /// The value at this path. Null counts as nothing; of several, the first.
    pub fn find<'t>(&self, tree: &'t Tree) -> Option<&'t Tree> {
        let found = self.steps.iter().try_fold(tree, |tree, step| step.first(tree))?;
        match found {
            Tree::Null => None,
            found => Some(found),
        }
    }

    /// The value at this path as [`Path::find`] finds it, where each step that means one finds no second.
    ///
    /// # Errors
    /// The name that occurs several times: which of them counts nobody has said. In JSON it cannot be; in XML an element
    /// may be repeated.
    pub fn find_one<'t>(&self, tree: &'t Tree) -> Result<Option<&'t Tree>, &Name> {
        let mut tree = tree;
        for step in &self.steps {
            let found = match (step.which, tree) {
                (Which::One, Tree::Record(record)) if !step.name.local.is_empty() => {
                    let mut found = record.entries().iter().filter(|(name, _)| *name == step.name);
                    let first = found.next().map(|(_, tree)| tree);
                    if first.is_some() && found.next().is_some() {
                        return Err(&step.name);
                    }
                    first
                }
                (Which::One | Which::Each | Which::Nth(_) | Which::Numbered, _) => step.first(tree),
            };
            match found {
                Some(found) => tree = found,
                None => return Ok(None),
            }
        }
        Ok(Some(tree).filter(|found| !matches!(found, Tree::Null)))
    }

    /// All the values at this path, in order: the path may mean several at any step.
    pub fn find_all<'t>(&self, tree: &'t Tree) -> Vec<&'t Tree> {
        let mut found = vec![tree];
        for step in &self.steps {
            found = found.into_iter().flat_map(|tree| step.all(tree)).collect();
        }
        found
    }

    /// The place at this path, made where it is not there yet, to write a single value into. `list` says whether
    /// repeated things are lists here (JSON) or repeated names (XML).
    pub fn place<'t>(&self, tree: &'t mut Tree, list: bool) -> &'t mut Tree {
        self.steps.iter().fold(tree, |tree, step| step.place(tree, list))
    }
}

impl Step {
    fn first<'t>(&self, tree: &'t Tree) -> Option<&'t Tree> {
        match self.which {
            Which::One | Which::Each if !self.name.local.is_empty() => {
                let Some(record) = tree.as_record() else { return self.own_text(tree) };
                match record.get(&self.name) {
                    Some(Tree::List(items)) if self.which == Which::Each => items.first(),
                    found => found,
                }
            }
            Which::One | Which::Each | Which::Nth(_) | Which::Numbered => self.all(tree).into_iter().next(),
        }
    }

    /// All the values that this step means, in order.
    pub fn all<'t>(&self, tree: &'t Tree) -> Vec<&'t Tree> {
        if self.name.local.is_empty() {
            return match tree {
                Tree::List(items) => items.iter().collect(),
                _ => Vec::new(),
            };
        }
        let Some(record) = tree.as_record() else { return self.own_text(tree).into_iter().collect() };
        let named = |name: &Name| -> Vec<&'t Tree> {
            let entries = record.entries().iter().filter(|(n, _)| n == name).map(|(_, tree)| tree);
            entries
                .flat_map(|tree| match tree {
                    Tree::List(items) if self.which != Which::One => items.iter().collect::<Vec<_>>(),
                    tree => vec![tree],
                })
                .collect()
        };
        match self.which {
            Which::One => named(&self.name).into_iter().take(1).collect(),
            Which::Each => named(&self.name),
            Which::Nth(number) => named(&self.name).into_iter().nth(number - 1).into_iter().collect(),
            Which::Numbered => (1..=MOST_NUMBERED)
                .map(|number| self.numbered(number))
                .filter_map(|name| record.get(&name))
                .filter(|tree| !matches!(tree, Tree::Null) && tree.as_text() != Some(""))
                .collect(),
        }
    }

    /// `'#text'` of an element that has neither attributes nor children is its text, as it is of one that has.
    fn own_text<'t>(&self, tree: &'t Tree) -> Option<&'t Tree> {
        (self.name.local == TEXT && matches!(tree, Tree::Text(_))).then_some(tree)
    }

    /// The name of the nth of a numbered series.
    pub fn numbered(&self, number: usize) -> Name {
        Name {
            space: self.name.space.clone(),
            local: self.name.local.replace("{n}", &number.to_string()).into(),
        }
    }

    fn place<'t>(&self, tree: &'t mut Tree, list: bool) -> &'t mut Tree {
        let record = tree.record_mut();
        match self.which {
            Which::Nth(number) if list => record.entry(&self.name).nth_mut(number),
            _ => record.entry(&self.name),
        }
    }
}

/// How far a numbered series of names is looked through.
const MOST_NUMBERED: usize = 99;

/// Splits at the separator outside of single quotes.
fn split(text: &str, separator: char) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut quoted) = (0, false);
    for (at, c) in text.char_indices() {
        if c == '\'' {
            quoted = !quoted;
        } else if c == separator && !quoted {
            parts.push(text.get(start..at).unwrap_or_default());
            start = at + c.len_utf8();
        }
    }
    parts.push(text.get(start..).unwrap_or_default());
    parts
}

fn spaced(name: &str, namespaces: &Namespaces, part: std::ops::Range<usize>) -> Result<Name, BadPath> {
    let (attribute, bare) = match name.strip_prefix('@') {
        Some(rest) => ("@", rest),
        None => ("", name),
    };
    match bare.split_once(':') {
        Some((prefix, local)) => match namespaces.uri(prefix) {
            Some(uri) => Ok(Name::spaced(uri.clone(), format!("{attribute}{local}"))),
            None => Err(BadPath {
                what: format!("the prefix `{prefix}` is not declared in `document.namespaces`"),
                part,
                unknown_prefix: Some(prefix.to_owned()),
            }),
        },
        // The default namespace holds for elements, not for attributes (Namespaces in XML s.6.2) and not for text.
        None if attribute.is_empty() && bare != TEXT => match namespaces.uri("") {
            Some(uri) => Ok(Name::spaced(uri.clone(), bare)),
            None => Ok(Name::plain(bare)),
        },
        None => Ok(Name::plain(name)),
    }
}
