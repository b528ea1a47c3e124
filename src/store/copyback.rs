//! Copying back: what a commit has written stands in the log of the file, and is copied into the file itself from time to time. A
//! thread does it beside the one that writes, which would wait for the disk meanwhile, longest where the journal is large and what
//! it writes lies all over the file (docs/decisions/0019-the-log-is-copied-back-beside-the-writer.md).
//!
//! The log begins anew only when all of it is in the file and nobody reads it. While commits follow each other the thread never
//! gets there, so what was written since its last turn the writer copies back itself, once the log is long.

use super::{StoreError, sql};
use rusqlite::{Connection, hooks::Wal};
use std::{
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
};

/// In pages of the log, of 4 KiB.
#[derive(Clone, Copy)]
pub struct Limits {
    /// After how many more the thread has another turn.
    turn: i32,
    /// From how many on the writer brings the log to its end, if the thread is not at it.
    long: i32,
    /// From how many on it waits for the thread: the disk is slower than those who write to it.
    too_long: i32,
}

/// 16, 64 and 256 MiB.
pub const LIMITS: Limits = Limits { turn: 4_096, long: 16_384, too_long: 65_536 };

/// The thread. Dropped, it ends it and waits for that.
pub struct CopyBack {
    wake: SyncSender<Word>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread is told.
enum Word {
    Turn,
    End,
}

impl CopyBack {
    /// Starts the thread for a file that this connection writes.
    pub fn start(writer: &mut Connection, path: &Path, limits: Limits) -> sql::Result<CopyBack> {
        let connection = Connection::open(path)?;
        let turn = Arc::new(Mutex::new(()));
        let (wake, woken) = sync_channel(1);
        writer.wal_hook(Some(after_commit(limits, turn.clone(), wake.clone())))?;
        let thread = thread::Builder::new()
            .name("copy-back".to_owned())
            .spawn(move || turns(&connection, &turn, &woken))
            .map_err(|error| sql::Error::Lost(format!("a thread of the store cannot be started: {error}")))?;
        Ok(CopyBack { wake, thread: Some(thread) })
    }
}

impl Drop for CopyBack {
    fn drop(&mut self) {
        if let (Ok(()), Some(thread)) = (self.wake.send(Word::End), self.thread.take()) {
            let _ = thread.join();
        }
    }
}

fn turns(connection: &Connection, turn: &Mutex<()>, woken: &Receiver<Word>) {
    while let Ok(Word::Turn) = woken.recv() {
        let _mine = turn.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())) {
            tell(error);
        }
    }
}

/// What the writer does when it has committed. It never fails: what is committed is committed, and stays in the log.
fn after_commit(
    limits: Limits,
    turn: Arc<Mutex<()>>,
    wake: SyncSender<Word>,
) -> impl FnMut(&mut Wal, i32) -> rusqlite::Result<()> + Send {
    let mut woken_at = 0;
    move |log, pages| {
        // The log has begun anew.
        if pages < woken_at {
            woken_at = 0;
        }
        if pages >= limits.long {
            let too_long = pages >= limits.too_long;
            let _after_it = too_long.then(|| turn.lock().unwrap_or_else(PoisonError::into_inner));
            if let Err(error) = log.checkpoint() {
                tell(error);
            }
        } else if pages - woken_at >= limits.turn {
            match wake.try_send(Word::Turn) {
                Ok(()) | Err(TrySendError::Full(_)) => woken_at = pages,
                Err(TrySendError::Disconnected(_)) => {}
            }
        }
        Ok(())
    }
}

fn tell(error: rusqlite::Error) {
    // Somebody else who copies back is no fault: another process, or the thread where the writer does not wait for it.
    if error.sqlite_error_code() != Some(rusqlite::ErrorCode::DatabaseBusy) {
        let error = StoreError::of("copying the log of the store into its file", &error.into());
        tracing::warn!(code = %error.code, "{}. Nothing is lost: what is committed stays in the log, which grows", error.what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Limits = Limits { turn: 16, long: 64, too_long: 256 };

    fn file(folder: &tempfile::TempDir) -> (Connection, CopyBack) {
        let path = folder.path().join("store.db");
        let mut writer = Connection::open(&path).unwrap();
        writer.pragma_update(None, "journal_mode", "WAL").unwrap();
        writer.execute_batch("CREATE TABLE t (n INTEGER PRIMARY KEY, b BLOB)").unwrap();
        let copy_back = CopyBack::start(&mut writer, &path, SMALL).unwrap();
        (writer, copy_back)
    }

    /// Commits of some four pages each; how many pages the log had at most.
    fn write(writer: &Connection, folder: &tempfile::TempDir, commits: u32) -> u64 {
        let log = folder.path().join("store.db-wal");
        let most = (0..commits).map(|_| {
            writer.execute("INSERT INTO t (b) VALUES (zeroblob(8000))", []).unwrap();
            std::fs::metadata(&log).unwrap().len() / (4_096 + 24)
        });
        most.max().unwrap()
    }

    fn rows(folder: &tempfile::TempDir) -> i64 {
        let file = Connection::open(folder.path().join("store.db")).unwrap();
        file.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn the_log_of_a_file_that_is_written_without_a_pause_stays_short() {
        let folder = tempfile::tempdir().unwrap();
        let (writer, copy_back) = file(&folder);
        let most = write(&writer, &folder, 2_000);
        assert!(most < 256 + 16, "{most} pages");
        assert_eq!(rows(&folder), 2_000);
        drop(writer);
        drop(copy_back);
        assert!(!folder.path().join("store.db-wal").exists(), "whoever goes last has copied all of it back");
        assert_eq!(rows(&folder), 2_000);
    }

    #[test]
    fn somebody_who_reads_for_long_holds_up_the_log_and_not_who_writes() {
        let folder = tempfile::tempdir().unwrap();
        let (writer, _copy_back) = file(&folder);
        write(&writer, &folder, 10);
        let reader = Connection::open(folder.path().join("store.db")).unwrap();
        reader.execute_batch("BEGIN").unwrap();
        let count = || reader.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(count(), 10);
        let most = write(&writer, &folder, 500);
        assert!(most > 500, "{most} pages");
        assert_eq!(count(), 10, "as it was at that moment");
        reader.execute_batch("COMMIT").unwrap();
        // All of it can be copied back now, and the log begins anew: it grows no further.
        let later = write(&writer, &folder, 500);
        assert!(later < most + 16, "{later} pages, {most} before");
        assert_eq!(rows(&folder), 1_010);
    }
}
