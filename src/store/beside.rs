//! What is known of a store without it: the last run of a bridge that was on it, in a file beside. By this a store is known that is an
//! older copy of itself; and a file that was left when its settings began to name a server.

use super::{StoreError, database::Location, schema::Opened, sql::params, sqlite::Sqlite};
use crate::code::Code;
use std::path::{Path, PathBuf};

/// The folder and name of a store.
pub struct Beside<'a> {
    path: &'a Path,
    noted: PathBuf,
}

impl Beside<'_> {
    /// Beside the store at this path.
    pub fn of(path: &Path) -> Beside<'_> {
        Beside { path, noted: path.with_extension("run") }
    }

    /// The last run that is noted; 0 if none is.
    pub fn last_run(&self) -> i64 {
        std::fs::read_to_string(&self.noted).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    }

    /// Notes a run that has begun, and tells whoever looks after the bridge if the store knows less than was noted.
    pub fn note(&self, location: &Location, opened: &Opened) {
        if let Some(known) = opened.restored {
            tracing::error!(
                code = %Code::StoreRestored,
                known,
                noted = opened.run - 1,
                "{location} is an older copy of itself: of what was done since, it knows nothing"
            );
        }
        let text = opened.run.to_string();
        let new = self.noted.with_extension("run.new");
        let folder = self.noted.parent().filter(|folder| !folder.as_os_str().is_empty());
        // Beside a store on a server nothing else has made it yet.
        let made = folder.map_or(Ok(()), std::fs::create_dir_all);
        let noted =
            made.and_then(|()| std::fs::write(&new, text)).and_then(|()| std::fs::rename(&new, &self.noted));
        if let Err(error) = noted {
            tracing::warn!(
                code = %Code::StoreUnavailable,
                "{} cannot be written; an older copy of the store would not be known as one: {error}",
                self.noted.display()
            );
        }
    }

    /// For a store on a server: whether the file that it had before was moved there. One that was not knows what the server does not.
    pub fn nothing_left(&self, location: &Location) -> Result<(), StoreError> {
        match location {
            Location::File(_) => return Ok(()),
            Location::Server(_) if !self.path.exists() => return Ok(()),
            Location::Server(_) => {}
        }
        let moved = Sqlite::look(self.path).and_then(|mut file| {
            file.moment(|tx| tx.exists("SELECT 1 FROM meta WHERE name = 'moved to'", params![]))
        });
        match moved {
            Ok(true) => Ok(()),
            Ok(false) => Err(StoreError {
                code: Code::StoreMoved,
                what: format!(
                    "the store is to be at {location}, and {} was not moved there: `packhorse store migrate` moves it",
                    self.path.display()
                ),
            }),
            Err(error) => Err(StoreError::of(&format!("looking into {}", self.path.display()), &error)),
        }
    }
}
