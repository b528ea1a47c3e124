//! A stretch of the file in memory, and where in the file it stands.

use crate::{code::Code, format::FormatError};
use std::io::BufRead;

/// How much is asked for at a time.
const CHUNK: usize = 1 << 18;

/// The bytes that have been read and not yet been consumed.
#[derive(Debug)]
pub(super) struct Window<R> {
    reader: R,
    held: Vec<u8>,
    from: usize,
    offset: u64,
    ended: bool,
}

impl<R: BufRead> Window<R> {
    pub fn new(reader: R, offset: u64) -> Window<R> {
        Window { reader, held: Vec::new(), from: 0, offset, ended: false }
    }

    /// What is in memory.
    pub fn bytes(&self) -> &[u8] {
        self.held.get(self.from..).unwrap_or_default()
    }

    /// The byte of the file at which it begins.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether nothing comes behind it.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// Reads on.
    pub fn more(&mut self) -> Result<(), FormatError> {
        if self.from > 0 {
            self.held.drain(..self.from);
            self.from = 0;
        }
        // At least as much again as is held, so that a long record is not gone through once a chunk.
        let wanted = self.held.len() + CHUNK.max(self.held.len());
        while self.held.len() < wanted {
            let chunk = match self.reader.fill_buf() {
                Ok(chunk) => chunk,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    let what = format!("the file cannot be read on: {error}");
                    return Err(FormatError::nowhere(Code::CannotReadFile, what));
                }
            };
            if chunk.is_empty() {
                self.ended = true;
                return Ok(());
            }
            let taken = chunk.len().min(wanted - self.held.len());
            self.held.extend_from_slice(chunk.get(..taken).unwrap_or_default());
            self.reader.consume(taken);
        }
        Ok(())
    }

    /// Leaves so many bytes behind.
    pub fn consume(&mut self, bytes: usize) {
        self.from = (self.from + bytes).min(self.held.len());
        self.offset += bytes as u64;
    }
}
