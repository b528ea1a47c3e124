//! How an extract differs from what the last one said: both in the order of their keys, walked side by side.

use super::sort::{Sorted, Sorter};
use serde::{Deserialize, Serialize};
use std::{cmp::Ordering, io, path::Path};

/// A row of an extract: where it stands, and what it says as a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Row {
    /// Hash of its key.
    pub key: [u8; 16],
    /// Hash of what it says.
    pub hash: [u8; 16],
    /// Its number in the file.
    pub number: u64,
    /// Where it begins in the file.
    pub offset: u64,
    /// Its bytes there.
    pub length: u32,
    /// What it is, compared with the last extract.
    pub is: Is,
}

/// What a row is, compared with the last extract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Is {
    /// A row whose key the last one did not have.
    #[default]
    New,
    /// A row that said something else in the last one.
    Changed,
    /// No record of its layout, or one without a key: nothing can be said of its key then.
    Wrong,
}

/// A row as it is sorted.
pub(super) const SIZE: usize = 61;

impl Row {
    /// As an entry that is sorted by its rank, then by key, then by number.
    pub fn entry(&self, rank: u64) -> [u8; SIZE] {
        let is = match self.is {
            Is::New => 0,
            Is::Changed => 1,
            Is::Wrong => 2,
        };
        let parts: [&[u8]; 7] = [
            &rank.to_be_bytes(),
            &self.key,
            &self.number.to_be_bytes(),
            &self.hash,
            &self.offset.to_be_bytes(),
            &self.length.to_be_bytes(),
            &[is],
        ];
        let mut entry = [0; SIZE];
        entry.iter_mut().zip(parts.into_iter().flatten()).for_each(|(to, from)| *to = *from);
        entry
    }

    /// The row of an entry.
    pub fn of(entry: &[u8; SIZE]) -> Row {
        let mut rest = entry.as_slice();
        let _rank: [u8; 8] = part(&mut rest);
        Row {
            key: part(&mut rest),
            number: u64::from_be_bytes(part(&mut rest)),
            hash: part(&mut rest),
            offset: u64::from_be_bytes(part(&mut rest)),
            length: u32::from_be_bytes(part(&mut rest)),
            is: match part(&mut rest) {
                [0] => Is::New,
                [1] => Is::Changed,
                [_] => Is::Wrong,
            },
        }
    }
}

fn part<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    let mut part = [0; N];
    if let Some((first, behind)) = rest.split_at_checked(N) {
        part.copy_from_slice(first);
        *rest = behind;
    }
    part
}

/// How an extract differs from the last one, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Difference {
    /// Rows of the last one.
    pub before: u64,
    /// Rows of this one.
    pub now: u64,
    /// Rows whose key the last one did not have.
    pub created: u64,
    /// Rows that say something else than in the last one.
    pub changed: u64,
    /// Rows of the last one whose key this one does not have.
    pub removed: u64,
    /// Rows that are none of the layout, or have no key.
    pub wrong: u64,
}

/// In which order news are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// In that of the file.
    File,
    /// In that of the keys: as they are written fastest.
    Key,
}

/// Walks along the rows of an extract and what the last one said.
pub(super) struct Walk {
    rows: Sorted<SIZE>,
    order: Order,
    last: Option<Row>,
    /// The first row whose key a row before it had, and the number of that one.
    pub twice: Option<(u64, u64)>,
    /// The difference, as far as the walk has come.
    pub difference: Difference,
    /// Rows that are new, changed or wrong.
    pub news: Sorter<SIZE>,
    /// Keys that are gone.
    pub gone: Sorter<16>,
}

impl Walk {
    /// Begins at the first key.
    pub fn new(rows: Sorted<SIZE>, order: Order) -> Walk {
        let (news, gone) = (Sorter::new(), Sorter::new());
        Walk { rows, order, last: None, twice: None, difference: Difference::default(), news, gone }
    }

    /// Walks past the next keys and hashes of the last extract; behind its end also past what the extract has beyond.
    ///
    /// # Errors
    /// What does not fit into memory cannot be written or read.
    pub fn past(&mut self, said: &[([u8; 16], [u8; 16])], is_end: bool, folder: &Path) -> io::Result<()> {
        for (key, hash) in said {
            self.difference.before += 1;
            loop {
                match self.rows.peek().map(|entry| Row::of(entry).key.cmp(key)) {
                    Some(Ordering::Less) => self.row(None, folder)?,
                    Some(Ordering::Equal) => {
                        self.row(Some(hash), folder)?;
                        break;
                    }
                    Some(Ordering::Greater) | None => {
                        self.difference.removed += 1;
                        self.gone.push(*key, folder)?;
                        break;
                    }
                }
            }
        }
        while is_end && self.rows.peek().is_some() {
            self.row(None, folder)?;
        }
        Ok(())
    }

    fn row(&mut self, said: Option<&[u8; 16]>, folder: &Path) -> io::Result<()> {
        let Some(mut row) = self.rows.next()?.as_ref().map(Row::of) else { return Ok(()) };
        if let Some(last) = self.last.filter(|last| last.key == row.key) {
            // Of several such rows the one that comes first in the file is told.
            if self.twice.is_none_or(|(_, second)| row.number < second) {
                self.twice = Some((last.number, row.number));
            }
        }
        self.last = Some(row);
        if row.is == Is::Wrong {
            self.difference.wrong += 1;
        } else {
            self.difference.now += 1;
            match said {
                None => self.difference.created += 1,
                Some(hash) if *hash == row.hash => return Ok(()),
                Some(_) => {
                    self.difference.changed += 1;
                    row.is = Is::Changed;
                }
            }
        }
        let rank = match self.order {
            Order::File => row.number,
            Order::Key => 0,
        };
        self.news.push(row.entry(rank), folder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn key(n: u64) -> [u8; 16] {
        u128::from(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_le_bytes()
    }

    fn walk(rows: &[(u64, u64)], said: &BTreeMap<[u8; 16], [u8; 16]>, chunk: usize) -> Walk {
        let folder = std::env::temp_dir();
        let mut sorter = Sorter::new();
        for (number, (k, says)) in (1..).zip(rows) {
            let is = if *says == 0 { Is::Wrong } else { Is::New };
            let row = Row { key: key(*k), hash: key(*says), number, offset: number * 7, length: 7, is };
            assert_eq!(Row::of(&row.entry(number)), row);
            sorter.push(row.entry(0), &folder).unwrap();
        }
        let mut walk = Walk::new(sorter.sorted().unwrap(), Order::File);
        let said: Vec<_> = said.iter().map(|(key, hash)| (*key, *hash)).collect();
        for chunk in said.chunks(chunk) {
            walk.past(chunk, false, &folder).unwrap();
        }
        walk.past(&[], true, &folder).unwrap();
        walk
    }

    #[test]
    fn news_are_what_a_comparison_of_sets_finds_in_the_order_of_the_file() {
        let said: BTreeMap<_, _> = (0..500).map(|n| (key(n), key(n + 1))).collect();
        // Rows 100 to 499 and 100 new ones; every seventh says something else.
        let rows: Vec<(u64, u64)> =
            (100..600).map(|n| (n, if n % 7 == 0 { 9_999 } else { n + 1 })).rev().collect();
        for chunk in [1, 64, 1_000] {
            let walk = walk(&rows, &said, chunk);
            assert_eq!(walk.twice, None);
            let changed = (100..500).filter(|n| n % 7 == 0).count() as u64;
            let expected =
                Difference { before: 500, now: 500, created: 100, changed, removed: 100, wrong: 0 };
            assert_eq!(walk.difference, expected);
            let (mut news, mut numbers) = (walk.news.sorted().unwrap(), Vec::new());
            while let Some(entry) = news.next().unwrap() {
                numbers.push(Row::of(&entry).number);
            }
            assert_eq!(numbers.len() as u64, 100 + changed);
            assert!(numbers.is_sorted(), "in the order of the file");
            let (mut gone, mut keys) = (walk.gone.sorted().unwrap(), BTreeSet::new());
            while let Some(key) = gone.next().unwrap() {
                keys.insert(key);
            }
            assert_eq!(keys, (0..100).map(key).collect());
        }
    }

    #[test]
    fn a_key_that_stands_twice_is_told_by_the_numbers_of_the_first_two_rows() {
        let walk = walk(&[(1, 5), (2, 5), (3, 5), (2, 6), (1, 5), (2, 5)], &BTreeMap::new(), 1);
        assert_eq!(walk.twice, Some((2, 4)));
    }

    #[test]
    fn a_row_that_is_wrong_is_news_and_counts_for_no_key() {
        let walk = walk(&[(1, 2), (9, 0)], &BTreeMap::from([(key(1), key(2))]), 1);
        assert_eq!(walk.difference, Difference { before: 1, now: 1, wrong: 1, ..Difference::default() });
    }
}
