//! A fetched file on this machine: under `<path>.part` until it is whole, counted, digested and flushed.

use super::{Fetched, failure};
use crate::{code::Code, verdict::Failure};
use ring::digest::{Context, SHA256};
use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// A file that comes in; what there is of it is deleted unless it is finished.
pub struct Incoming {
    file: File,
    part: PathBuf,
    to: PathBuf,
    context: Context,
    size: u64,
    limit: u64,
}

impl Incoming {
    /// A new one, which only we may read. What a crash has left goes.
    ///
    /// # Errors
    /// Our own disk.
    pub fn create(to: &Path, limit: u64) -> Result<Incoming, Failure> {
        let mut part = OsString::from(to);
        part.push(".part");
        let part = PathBuf::from(part);
        match fs::remove_file(&part) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failure::local(&part, &error)),
            Ok(()) | Err(_) => {}
        }
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&part)
            .map_err(|error| failure::local(&part, &error))?;
        Ok(Incoming { file, part, to: to.to_owned(), context: Context::new(&SHA256), size: 0, limit })
    }

    /// How many bytes there are.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// More of it.
    ///
    /// # Errors
    /// More than allowed, or our own disk.
    pub fn write(&mut self, bytes: &[u8], what: &str) -> Result<(), Failure> {
        let size = self.size + bytes.len() as u64;
        if size > self.limit {
            let what = format!("{what} has more than the {} bytes that are allowed", self.limit);
            return Err(Failure::refused(Code::FileTooLarge, "", what));
        }
        self.file.write_all(bytes).map_err(|error| failure::local(&self.part, &error))?;
        self.context.update(bytes);
        self.size = size;
        Ok(())
    }

    /// It is whole: flushed, under its name, and that flushed too.
    ///
    /// # Errors
    /// Our own disk.
    pub fn finish(self) -> Result<Fetched, Failure> {
        let failed = |error| failure::local(&self.to, &error);
        self.file.sync_all().map_err(failed)?;
        fs::rename(&self.part, &self.to).map_err(failed)?;
        if let Some(folder) = self.to.parent() {
            let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(self.context.clone().finish().as_ref());
        Ok(Fetched { size: self.size, digest })
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // After the rename nothing is there any more.
        let _ = fs::remove_file(&self.part);
    }
}
