//! Files that were taken from a system: what they are, how far they have been read, and what a person decided of them.
//! The point up to which a file has been read moves in the same commit as the records that were taken in.

use super::{
    Intake, RouteNumber, Store, StoreError, Taken,
    spool::take_all,
    sql::{self, Row, Tx, Value, params},
};

/// How a file stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileState {
    /// It is on our disk, whole; it has not been read to its end.
    Taken,
    /// It has been read through once, and its records are being taken in.
    Reading,
    /// All its records are taken in.
    Done,
    /// It is refused as a whole: nothing of it counts.
    Refused,
    /// It waits for a person's word.
    Held,
    /// A person has accepted it: its records are being taken in.
    Accepted,
}

impl FileState {
    /// As it stands in the store.
    pub fn number(self) -> i64 {
        match self {
            FileState::Taken => 1,
            FileState::Reading => 2,
            FileState::Done => 3,
            FileState::Refused => 4,
            FileState::Held => 5,
            FileState::Accepted => 6,
        }
    }

    /// For people.
    pub fn as_str(self) -> &'static str {
        match self {
            FileState::Taken => "taken",
            FileState::Reading => "reading",
            FileState::Done => "done",
            FileState::Refused => "refused",
            FileState::Held => "held",
            FileState::Accepted => "accepted",
        }
    }

    /// Whether there is something to be done with it without a person.
    pub fn is_open(self) -> bool {
        match self {
            FileState::Taken | FileState::Reading | FileState::Accepted => true,
            FileState::Done | FileState::Refused | FileState::Held => false,
        }
    }

    pub(super) fn of(number: i64) -> FileState {
        match number {
            2 => FileState::Reading,
            3 => FileState::Done,
            4 => FileState::Refused,
            5 => FileState::Held,
            6 => FileState::Accepted,
            _ => FileState::Taken,
        }
    }
}

/// A file that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakenFile {
    /// Its number, which never changes.
    pub n: i64,
    /// The route.
    pub route: RouteNumber,
    /// The route's name.
    pub route_name: String,
    /// Its name in the system.
    pub name: String,
    /// SHA-256 of its bytes.
    pub digest: [u8; 32],
    /// Its bytes.
    pub size: u64,
    /// When the system last changed it, in milliseconds since 1970, if it says.
    pub modified: Option<i64>,
    /// What says its place among the files of its route, if anything does.
    pub sequence: Option<String>,
    /// How it stands.
    pub state: FileState,
    /// Whether the source has been told: the file there is archived, kept apart or deleted.
    pub told: bool,
    /// When it was taken, in milliseconds since 1970.
    pub taken_at: i64,
    /// When it came to its end.
    pub done_at: Option<i64>,
    /// Where reading goes on.
    pub point: Option<String>,
    /// Records taken in.
    pub records: u64,
    /// Records among them that are no records of its layout.
    pub bad: u64,
    /// How often the same bytes came again.
    pub duplicates: u64,
    /// The code of why it is refused or held.
    pub code: Option<String>,
    /// Why, in a sentence.
    pub why: Option<String>,
    /// Who decided.
    pub who: Option<String>,
    /// Their reason.
    pub reason: Option<String>,
}

/// A file to be taken.
#[derive(Debug, Clone)]
pub struct NewFile {
    /// Its name in the system.
    pub name: String,
    /// SHA-256 of its bytes.
    pub digest: [u8; 32],
    /// Its bytes.
    pub size: u64,
    /// When the system last changed it.
    pub modified: Option<i64>,
}

/// What became of a file to be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Took {
    /// It is new, under this number.
    New(i64),
    /// The very bytes were taken before.
    Known(Box<TakenFile>),
}

/// Which earlier files make the same bytes a duplicate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SameAs {
    /// Any: the records of the file are said once.
    Any,
    /// The one before: an extract that says again what an older one said is news.
    Last,
}

/// The point of an extract that a person has taken as the baseline.
pub const BASELINE: &str = "baseline";

const COLUMNS: &str = "f.n, f.route, r.name, f.name, f.digest, f.size, f.modified, f.state, f.told, f.taken_at, f.done_at, \
     f.point, f.records, f.bad, f.duplicates, f.code, f.why, f.who, f.reason, f.sequence";

fn file(row: &Row<'_>) -> sql::Result<TakenFile> {
    let count = |at: usize| row.get::<i64>(at).map(|number| u64::try_from(number).unwrap_or(0));
    let mut digest = [0; 32];
    let bytes: Vec<u8> = row.get(4)?;
    digest.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    Ok(TakenFile {
        n: row.get(0)?,
        route: RouteNumber(row.get(1)?),
        route_name: row.get(2)?,
        name: row.get(3)?,
        digest,
        size: count(5)?,
        modified: row.get(6)?,
        state: FileState::of(row.get(7)?),
        told: row.get(8)?,
        taken_at: row.get(9)?,
        done_at: row.get(10)?,
        point: row.get(11)?,
        records: count(12)?,
        bad: count(13)?,
        duplicates: count(14)?,
        code: row.get(15)?,
        why: row.get(16)?,
        who: row.get(17)?,
        reason: row.get(18)?,
        sequence: row.get(19)?,
    })
}

fn find(tx: &Tx<'_>, which: &str, parameters: &[Value<'_>]) -> sql::Result<Option<TakenFile>> {
    tx.one(
        &format!("SELECT {COLUMNS} FROM file f JOIN route r ON r.n = f.route WHERE {which}"),
        parameters,
        file,
    )
}

impl Store {
    /// Writes down that a file is on our disk. The same bytes as before are a duplicate, and counted.
    ///
    /// # Errors
    /// The store failed.
    pub async fn take_file(
        &self,
        route: RouteNumber,
        now: i64,
        same: SameAs,
        new: NewFile,
    ) -> Result<Took, StoreError> {
        self.write("taking a file", move |tx| {
            let known = match same {
                SameAs::Any => find(
                    tx,
                    "f.route = ?1 AND f.digest = ?2 ORDER BY f.n DESC LIMIT 1",
                    params![route.0, new.digest],
                )?,
                SameAs::Last => find(tx, "f.route = ?1 ORDER BY f.n DESC LIMIT 1", params![route.0])?
                    .filter(|file| file.digest == new.digest),
            };
            if let Some(known) = known {
                // Before the source was told, it is the same file and no second one.
                if known.told || known.name != new.name {
                    tx.run("UPDATE file SET duplicates = duplicates + 1 WHERE n = ?1", params![known.n])?;
                }
                return Ok(Took::Known(Box::new(known)));
            }
            let n = tx.value(
                "INSERT INTO file (route, name, digest, size, modified, state, told, taken_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, 1, 0, ?6) RETURNING n",
                params![route.0, new.name, new.digest, new.size as i64, new.modified, now],
            )?;
            Ok(Took::New(n))
        })
        .await
    }

    /// One file.
    ///
    /// # Errors
    /// The store failed.
    pub async fn file(&self, n: i64) -> Result<Option<TakenFile>, StoreError> {
        self.write("looking for a file", move |tx| find(tx, "f.n = ?1", params![n])).await
    }

    /// The newest file of a route under a name.
    ///
    /// # Errors
    /// The store failed.
    pub async fn file_named(
        &self,
        route: RouteNumber,
        name: String,
    ) -> Result<Option<TakenFile>, StoreError> {
        self.write("looking for a file", move |tx| {
            find(tx, "f.route = ?1 AND f.name = ?2 ORDER BY f.n DESC LIMIT 1", params![route.0, name])
        })
        .await
    }

    /// Files of a route with which something is to be done, oldest first: to be read on, or the source to be told.
    ///
    /// # Errors
    /// The store failed.
    pub async fn open_files(&self, route: RouteNumber) -> Result<Vec<TakenFile>, StoreError> {
        self.write("looking for files", move |tx| {
            tx.all(
                &format!(
                    "SELECT {COLUMNS} FROM file f JOIN route r ON r.n = f.route
                 WHERE f.route = ?1 AND (f.state IN (1, 2, 6) OR f.told = 0) ORDER BY f.n"
                ),
                params![route.0],
                file,
            )
        })
        .await
    }

    /// The last files, newest first: of one route, or of all; in one state, or in any.
    ///
    /// # Errors
    /// The store failed.
    pub async fn files(
        &self,
        route: Option<String>,
        state: Option<FileState>,
        most: u32,
    ) -> Result<Vec<TakenFile>, StoreError> {
        self.write("listing files", move |tx| {
            tx.all(
                &format!(
                "SELECT {COLUMNS} FROM file f JOIN route r ON r.n = f.route
                 WHERE (?1 IS NULL OR r.name = ?1) AND (?2 IS NULL OR f.state = ?2) ORDER BY f.n DESC LIMIT ?3"
            ),
                params![route, state.map(FileState::number), most],
                file,
            )
        })
        .await
    }

    /// What says a file's place among the files of its route.
    ///
    /// # Errors
    /// The store failed.
    pub async fn place_file(&self, n: i64, sequence: String) -> Result<(), StoreError> {
        self.write("placing a file", move |tx| {
            tx.run("UPDATE file SET sequence = ?2 WHERE n = ?1", params![n, sequence])?;
            Ok(())
        })
        .await
    }

    /// The file has been read through: its records are taken in from here on.
    ///
    /// # Errors
    /// The store failed.
    pub async fn begin_file(&self, n: i64, point: Option<String>) -> Result<(), StoreError> {
        self.write("beginning a file", move |tx| {
            tx.run(
                "UPDATE file SET state = CASE state WHEN 6 THEN 6 ELSE 2 END, point = ?2 WHERE n = ?1",
                params![n, point],
            )?;
            Ok(())
        })
        .await
    }

    /// Takes records of a file in and moves its point, in one commit. Full means that nothing was taken.
    ///
    /// # Errors
    /// The store failed; nothing was taken.
    pub async fn take_records(
        &self,
        route: RouteNumber,
        now: i64,
        intakes: Vec<Intake>,
        progress: Progress,
    ) -> Result<Taken, StoreError> {
        let bytes: u64 = intakes.iter().map(|intake| intake.body.len() as u64).sum();
        if bytes > 0 && !self.has_room(bytes) && !self.has_room_now(bytes).await? {
            return Ok(Taken::Full);
        }
        let run = self.run();
        let (new, stored) = self
            .write("taking records in", move |tx| {
                let taken = take_all(tx, route, run, now, &intakes)?;
                progress.write(tx, route, intakes.len())?;
                Ok(taken)
            })
            .await?;
        self.spooled(stored);
        Ok(Taken::Stored(new))
    }

    /// The file has come to its end.
    ///
    /// # Errors
    /// The store failed.
    pub async fn end_file(&self, n: i64, now: i64, end: FileEnd) -> Result<(), StoreError> {
        self.write("ending a file", move |tx| {
            let (state, code, why) = match end {
                FileEnd::Done { why } => (FileState::Done, None, why),
                FileEnd::Refused { code, why } => (FileState::Refused, Some(code), Some(why)),
                FileEnd::Held { code, why } => (FileState::Held, Some(code), Some(why)),
            };
            tx.run(
                "UPDATE file SET state = ?2, done_at = ?3, point = NULL, code = ?4, why = coalesce(?5, why) WHERE n = ?1",
                params![n, state.number(), now, code, why],
            )?;
            Ok(())
        })
        .await
    }

    /// The source has been told: nothing is left to be done there.
    ///
    /// # Errors
    /// The store failed.
    pub async fn file_told(&self, n: i64) -> Result<(), StoreError> {
        self.write("telling a source", move |tx| {
            tx.run("UPDATE file SET told = 1 WHERE n = ?1", params![n])?;
            Ok(())
        })
        .await
    }

    /// Whether a route has a file that came to its end: an extract has something to be compared with.
    ///
    /// # Errors
    /// The store failed.
    pub async fn last_done(&self, route: RouteNumber) -> Result<Option<TakenFile>, StoreError> {
        self.write("looking for a file", move |tx| {
            find(tx, "f.route = ?1 AND f.state = 3 ORDER BY f.n DESC LIMIT 1", params![route.0])
        })
        .await
    }

    /// Refuses the extracts of a route that are held and older than this one: a newer one says what counts.
    ///
    /// # Errors
    /// The store failed.
    pub async fn supersede(
        &self,
        route: RouteNumber,
        n: i64,
        now: i64,
        code: String,
    ) -> Result<(), StoreError> {
        self.write("superseding held extracts", move |tx| {
            tx.run(
                "UPDATE file SET state = 4, done_at = ?3, code = ?4, why = 'extract ' || ?2 || ', which is newer, counts in its place'
                 WHERE route = ?1 AND n < ?2 AND state = 5",
                params![route.0, n, now, code],
            )?;
            Ok(())
        })
        .await
    }

    /// Whether nothing needs the bytes of this digest any more.
    ///
    /// # Errors
    /// The store failed.
    pub async fn may_forget(&self, digest: [u8; 32]) -> Result<bool, StoreError> {
        self.write("looking for a file", move |tx| {
            let needed = tx.exists(
                "SELECT 1 FROM file WHERE digest = ?1 AND (state IN (1, 2, 5, 6) OR told = 0)",
                params![digest],
            )?;
            Ok(!needed)
        })
        .await
    }

    /// A person's word on a held file. Whether it was held.
    ///
    /// # Errors
    /// The store failed.
    pub async fn decide_file(
        &self,
        n: i64,
        now: i64,
        accept: Decision,
        who: String,
        reason: String,
    ) -> Result<bool, StoreError> {
        self.write("deciding on a file", move |tx| {
            let (state, what) = match accept {
                Decision::Accept => (FileState::Accepted, "accept extract"),
                Decision::Baseline => (FileState::Accepted, "accept extract as baseline"),
                Decision::Reject => (FileState::Refused, "reject extract"),
            };
            let point = (accept == Decision::Baseline).then_some(BASELINE);
            let changed = tx.run(
                "UPDATE file SET state = ?2, who = ?3, reason = ?4, done_at = ?5, point = ?6 WHERE n = ?1 AND state = 5",
                params![n, state.number(), who, reason, now, point],
            )?;
            if changed > 0 {
                tx.run(
                    "INSERT INTO audit (at, who, what, reason, about) VALUES (?1, ?2, ?3, ?4, ?5)",
                    params![now, who, what, reason, format!("file {n}")],
                )?;
            }
            Ok(changed > 0)
        })
        .await
    }
}

/// What a person says of a held file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It is right: its changes count.
    Accept,
    /// It is right, and what it says is where the next one starts from: its changes are no news.
    Baseline,
    /// It is broken: nothing of it counts.
    Reject,
}

/// How a file ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileEnd {
    /// All its records are taken in; perhaps with something a person should know.
    Done { why: Option<String> },
    /// Nothing of it counts.
    Refused { code: String, why: String },
    /// A person must look first.
    Held { code: String, why: String },
}

/// How far a file has been read, with what was taken in.
#[derive(Debug, Clone)]
pub struct Progress {
    /// The file.
    pub file: i64,
    /// Where reading goes on.
    pub point: String,
    /// Records among those taken in that are none of the layout.
    pub bad: u64,
    /// What the extract that is compared says of its keys from here on.
    pub compared: super::extracts::Compared,
}

impl Progress {
    fn write(&self, tx: &Tx<'_>, route: RouteNumber, records: usize) -> sql::Result<()> {
        tx.run(
            "UPDATE file SET point = ?2, records = records + ?3, bad = bad + ?4 WHERE n = ?1",
            params![self.file, self.point, records as i64, self.bad as i64],
        )?;
        self.compared.write(tx, route)
    }
}
