//! Sorting more rows than should be held in memory: entries of one size, sorted a run at a time; runs that do not fit are
//! kept in files without a name, and merged when they are read.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    fs::File,
    io::{self, BufRead as _, BufReader, BufWriter, Read as _, Seek as _, Write as _},
    path::Path,
};

/// Bytes of entries in memory: of an extract, a quarter of a million rows.
const MEMORY: usize = 16 << 20;
/// Bytes of each run in memory while runs are merged.
const BUFFER: usize = 1 << 18;

/// Takes entries in. They are compared byte by byte: numbers stand in them with the most significant byte first.
pub(super) struct Sorter<const N: usize> {
    entries: Vec<[u8; N]>,
    most: usize,
    runs: Vec<File>,
}

impl<const N: usize> Sorter<N> {
    pub fn new() -> Sorter<N> {
        Sorter::with_memory(MEMORY)
    }

    fn with_memory(bytes: usize) -> Sorter<N> {
        Sorter { entries: Vec::new(), most: (bytes / N.max(1)).max(1), runs: Vec::new() }
    }

    /// Adds an entry; runs are kept in `folder`.
    ///
    /// # Errors
    /// A run cannot be written.
    pub fn push(&mut self, entry: [u8; N], folder: &Path) -> io::Result<()> {
        if self.entries.len() >= self.most {
            self.entries.sort_unstable();
            let mut run = BufWriter::with_capacity(BUFFER, tempfile::tempfile_in(folder)?);
            for entry in &self.entries {
                run.write_all(entry)?;
            }
            let mut run = run.into_inner().map_err(io::IntoInnerError::into_error)?;
            run.rewind()?;
            self.runs.push(run);
            self.entries.clear();
        }
        self.entries.push(entry);
        Ok(())
    }

    /// All of them, in order.
    ///
    /// # Errors
    /// A run cannot be read.
    pub fn sorted(mut self) -> io::Result<Sorted<N>> {
        self.entries.sort_unstable();
        let runs = self.runs.into_iter().map(|run| BufReader::with_capacity(BUFFER, run)).collect();
        let mut sorted = Sorted { rest: self.entries.into_iter(), runs, heads: BinaryHeap::new() };
        for run in 0..=sorted.runs.len() {
            sorted.advance(run)?;
        }
        Ok(sorted)
    }
}

/// Entries in order.
pub(super) struct Sorted<const N: usize> {
    /// What was still in memory: the last run.
    rest: std::vec::IntoIter<[u8; N]>,
    runs: Vec<BufReader<File>>,
    /// The next entry of each run that has one.
    heads: BinaryHeap<Reverse<([u8; N], usize)>>,
}

impl<const N: usize> Sorted<N> {
    /// The next entry, left where it is.
    pub fn peek(&self) -> Option<&[u8; N]> {
        self.heads.peek().map(|Reverse((entry, _))| entry)
    }

    /// The next entry.
    ///
    /// # Errors
    /// A run cannot be read.
    pub fn next(&mut self) -> io::Result<Option<[u8; N]>> {
        let Some(Reverse((entry, run))) = self.heads.pop() else { return Ok(None) };
        self.advance(run)?;
        Ok(Some(entry))
    }

    fn advance(&mut self, run: usize) -> io::Result<()> {
        let entry = match self.runs.get_mut(run) {
            None => self.rest.next(),
            Some(file) => {
                let mut entry = [0; N];
                match file.fill_buf()?.is_empty() {
                    true => None,
                    false => {
                        file.read_exact(&mut entry)?;
                        Some(entry)
                    }
                }
            }
        };
        self.heads.extend(entry.map(|entry| Reverse((entry, run))));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(entries: &[u32], memory: usize) -> Vec<u32> {
        let mut sorter = Sorter::<4>::with_memory(memory);
        for entry in entries {
            sorter.push(entry.to_be_bytes(), &std::env::temp_dir()).unwrap();
        }
        let mut sorted = sorter.sorted().unwrap();
        let mut found = Vec::new();
        while let Some(entry) = sorted.next().unwrap() {
            found.push(u32::from_be_bytes(entry));
        }
        assert_eq!(sorted.peek(), None);
        found
    }

    #[test]
    fn entries_come_in_order_whether_or_not_they_fit_into_memory() {
        // A full cycle of a linear congruence: every number once, in no order.
        let entries: Vec<u32> = (0..10_000_u32).map(|n| n.wrapping_mul(7_919) % 10_007 / 3).collect();
        let mut expected = entries.clone();
        expected.sort_unstable();
        for memory in [4, 100, 4_096, 39_996, 40_000, 1 << 20] {
            assert_eq!(sorted(&entries, memory.max(400)), expected, "{memory} bytes");
        }
        assert_eq!(sorted(&[], 100), Vec::<u32>::new());
        assert_eq!(sorted(&[7], 1), [7]);
    }
}
