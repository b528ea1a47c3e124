//! Batches: what has joined them, how they stand, what is remembered of what was sent.

use super::{
    NewItem, RouteNumber, Store, StoreError,
    sql::{self, Param as _, Row, Tx, Value, params},
};
use crate::{
    batch::{Life, SealedBy, Size, Stage, next_serial},
    event::Key,
};

/// An event that joins a batch.
#[derive(Debug, Clone)]
pub struct Joining {
    /// The batch's feed.
    pub feed: String,
    /// What keeps it apart from other batches of the feed.
    pub per: String,
    /// When a batch that is opened for it is sealed at the latest.
    pub cut_off: Option<i64>,
    /// How much a batch holds.
    pub size: Size,
    /// The file.
    pub file: String,
    /// What brings it together with others, as JSON.
    pub group: String,
    /// Where it stands in the file.
    pub sort: String,
    /// Its amount.
    pub amount: i64,
    /// What it says.
    pub says: Says,
    /// What is remembered of it, as JSON.
    pub kept: Option<String>,
}

/// What an item of a batch says.
#[derive(Debug, Clone)]
pub enum Says {
    /// A record.
    Record(Vec<u8>),
    /// The row of a complete return is this from now on.
    Row { key: String, record: Vec<u8> },
    /// The row of a complete return is no longer there.
    NoRow { key: String },
}

/// A batch as the store has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchState {
    /// Its number in the store.
    pub n: i64,
    /// Whose it is.
    pub feed: String,
    /// What keeps it apart.
    pub per: String,
    /// What is done next depends on this.
    pub life: Life,
    /// The sum of its items.
    pub sum: i64,
    /// When it was opened.
    pub opened_at: i64,
    /// When it was sealed.
    pub sealed_at: Option<i64>,
    /// By what.
    pub sealed_by: Option<String>,
    /// Its serial number.
    pub serial: Option<i64>,
    /// The day on which it is processed.
    pub processing: Option<String>,
    /// Failures since it last got on.
    pub failed: u32,
    /// The code of the last one.
    pub code: Option<String>,
    /// Why.
    pub why: Option<String>,
    /// When it was sent.
    pub sent_at: Option<i64>,
}

/// A file of a rendered batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchFileState {
    /// Which.
    pub file: String,
    /// Its name in the system.
    pub name: String,
    /// Its digest.
    pub digest: [u8; 32],
    /// Its bytes.
    pub size: i64,
    /// When it began to be put into the system, and nothing is known of how that ended.
    pub claimed_at: Option<i64>,
    /// When it was put into the system.
    pub put_at: Option<i64>,
}

/// What a group of a file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupTotal {
    /// The file.
    pub file: String,
    /// The group, as JSON.
    pub group: String,
    /// How many.
    pub count: i64,
    /// Their sum.
    pub sum: i64,
}

/// A record of a batch, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// What the next look begins after.
    pub after: After,
    /// The group, as JSON.
    pub group: String,
    /// As it stands in the file.
    pub record: Vec<u8>,
}

/// How far a file's records have been read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct After {
    sort: String,
    n: i64,
    key: String,
}

/// An item that is about to be marked as delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToMark {
    /// Its number in the store.
    pub n: i64,
    /// Its route.
    pub route: RouteNumber,
    /// Its message.
    pub key: Key,
    /// What is remembered, as JSON.
    pub kept: Option<String>,
}

/// What the store knows of what a report is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known {
    /// It was sent; this was kept of it, as JSON.
    Sent(String),
    /// Not yet: a batch of the route is on its way.
    OnItsWay,
    /// It was never sent, or so long ago that it is forgotten.
    Unknown,
}

const COLUMNS: &str =
    "n, feed, per, stage, items, sum, opened_at, cut_off, asked, sealed_at, sealed_by, serial, processing,
    failed, retry_at, code, why, sent_at";

fn read(row: &Row<'_>) -> sql::Result<BatchState> {
    let life = Life {
        stage: Stage::of(row.get(3)?).unwrap_or(Stage::Sent),
        items: row.get(4)?,
        cut_off: row.get(7)?,
        asked: row.get(8)?,
        retry_at: row.get(14)?,
    };
    Ok(BatchState {
        n: row.get(0)?,
        feed: row.get(1)?,
        per: row.get(2)?,
        life,
        sum: row.get(5)?,
        opened_at: row.get(6)?,
        sealed_at: row.get(9)?,
        sealed_by: row.get(10)?,
        serial: row.get(11)?,
        processing: row.get(12)?,
        failed: row.get(13)?,
        code: row.get(15)?,
        why: row.get(16)?,
        sent_at: row.get(17)?,
    })
}

impl Joining {
    /// Joins: the open batch, or a new one if there is none or it would not fit. In the commit in which the journal says so.
    pub(super) fn join(&self, tx: &Tx<'_>, now: i64, route: RouteNumber, key: &[u8]) -> sql::Result<()> {
        let open: Option<(i64, i64, i64)> = tx.one(
            "SELECT n, items, sum FROM batch WHERE feed = ?1 AND per = ?2 AND stage = 1",
            params![self.feed, self.per],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )?;
        let (batch, items, sum) = match open {
            Some((n, items, sum)) => match self.size.bursts(items, sum, self.amount) {
                None => (n, items, sum),
                Some(by) => {
                    seal(tx, n, now, by)?;
                    (self.open(tx, now)?, 0, 0)
                }
            },
            None => (self.open(tx, now)?, 0, 0),
        };
        let (record, amount) = match &self.says {
            Says::Record(record) => (Some(record), self.amount),
            Says::Row { key, record } => {
                tx.run(
                    "INSERT INTO batch_row (feed, file, key, grp, sort, amount, record) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                     ON CONFLICT (feed, file, key) DO UPDATE SET grp = ?4, sort = ?5, amount = ?6, record = ?7",
                    params![self.feed, self.file, key, self.group, self.sort, self.amount, record],
                )?;
                (None, 0)
            }
            Says::NoRow { key } => {
                tx.run(
                    "DELETE FROM batch_row WHERE feed = ?1 AND file = ?2 AND key = ?3",
                    params![self.feed, self.file, key],
                )?;
                (None, 0)
            }
        };
        tx.run(
            "INSERT INTO batch_item (batch, route, key, file, grp, sort, amount, record, kept)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            params![batch, route.0, key, self.file, self.group, self.sort, amount, record, self.kept],
        )?;
        tx.run("UPDATE batch SET items = items + 1, sum = sum + ?2 WHERE n = ?1", params![batch, amount])?;
        if let Some(by) = self.size.full(items + 1, sum.saturating_add(amount)) {
            seal(tx, batch, now, by)?;
        }
        Ok(())
    }

    fn open(&self, tx: &Tx<'_>, now: i64) -> sql::Result<i64> {
        tx.value(
            "INSERT INTO batch (feed, per, stage, opened_at, cut_off) VALUES (?1, ?2, 1, ?3, ?4) RETURNING n",
            params![self.feed, self.per, now, self.cut_off],
        )
    }
}

fn seal(tx: &Tx<'_>, n: i64, now: i64, by: SealedBy) -> sql::Result<bool> {
    let sealed = tx.run(
        "UPDATE batch SET stage = 2, sealed_at = ?2, sealed_by = ?3 WHERE n = ?1 AND stage = 1",
        params![n, now, by.as_str()],
    )?;
    Ok(sealed == 1)
}

/// The next records behind a place, in two steps: first those that sort alike, then those that sort behind. Each is answered by
/// the index from that place on; by both at once it would be walked from the start for every portion.
fn portion(
    tx: &Tx<'_>,
    steps: [&str; 2],
    [of, file, sort, at]: [Value<'_>; 4],
    most: u32,
    placed: fn(&Row<'_>) -> sql::Result<Placed>,
) -> sql::Result<Vec<Placed>> {
    let mut found: Vec<Placed> = Vec::new();
    for sql in steps {
        let left = i64::from(most) - found.len() as i64;
        found.extend(tx.all(sql, &[of, file, sort, at, Value::Int(left)], placed)?);
    }
    Ok(found)
}

impl Store {
    /// The batches of a feed that are not yet sent, oldest first.
    ///
    /// # Errors
    /// The store failed.
    pub async fn batches_under_way(&self, feed: String) -> Result<Vec<BatchState>, StoreError> {
        self.write("looking at batches", move |tx| {
            let sql = format!("SELECT {COLUMNS} FROM batch WHERE feed = ?1 AND stage < 6 ORDER BY n");
            tx.all(&sql, params![feed], read)
        })
        .await
    }

    /// Batches of all feeds, those under way first, then the latest that were sent.
    ///
    /// # Errors
    /// The store failed.
    pub async fn batches(&self, most: u32) -> Result<Vec<BatchState>, StoreError> {
        self.write("looking at batches", move |tx| {
            let sql = format!(
                "SELECT {COLUMNS} FROM batch ORDER BY stage = 6, CASE stage WHEN 6 THEN -n ELSE n END LIMIT ?1"
            );
            tx.all(&sql, params![most], read)
        })
        .await
    }

    /// A batch, with its files.
    ///
    /// # Errors
    /// The store failed.
    pub async fn batch(&self, n: i64) -> Result<Option<(BatchState, Vec<BatchFileState>)>, StoreError> {
        self.write("looking at a batch", move |tx| {
            let sql = format!("SELECT {COLUMNS} FROM batch WHERE n = ?1");
            let Some(state) = tx.one(&sql, params![n], read)? else {
                return Ok(None);
            };
            Ok(Some((state, files(tx, n)?)))
        })
        .await
    }

    /// Seals an open batch; whether it was open.
    ///
    /// # Errors
    /// The store failed.
    pub async fn seal_batch(&self, n: i64, now: i64, by: SealedBy) -> Result<bool, StoreError> {
        self.write("sealing a batch", move |tx| seal(tx, n, now, by)).await
    }

    /// Notes that a person wants an open batch sealed, with the line of the audit trail, in one commit; whether it is open.
    ///
    /// # Errors
    /// The store failed.
    pub async fn ask_to_seal(
        &self,
        n: i64,
        now: i64,
        who: String,
        reason: String,
    ) -> Result<bool, StoreError> {
        self.write("asking for a batch to be sealed", move |tx| {
            let open = tx.run("UPDATE batch SET asked = 1 WHERE n = ?1 AND stage = 1", params![n])? == 1;
            if open {
                tx.run(
                    "INSERT INTO audit (at, who, what, reason, about) VALUES (?1, ?2, 'seal batch', ?3, ?4)",
                    params![now, who, reason, n.to_string()],
                )?;
            }
            Ok(open)
        })
        .await
    }

    /// Moves the cut-off of an open batch.
    ///
    /// # Errors
    /// The store failed.
    pub async fn postpone_batch(&self, n: i64, cut_off: Option<i64>) -> Result<(), StoreError> {
        self.write("postponing a batch", move |tx| {
            tx.run("UPDATE batch SET cut_off = ?2 WHERE n = ?1 AND stage = 1", params![n, cut_off])?;
            Ok(())
        })
        .await
    }

    /// Gives a sealed batch its serial number and its day, once.
    ///
    /// # Errors
    /// The store failed.
    pub async fn number_batch(
        &self,
        n: i64,
        (first, last): (i64, i64),
        processing: String,
    ) -> Result<(), StoreError> {
        self.write("numbering a batch", move |tx| {
            let feed: Option<String> = tx.find(
                "SELECT feed FROM batch WHERE n = ?1 AND stage = 2",
                params![n],
            )?;
            let Some(feed) = feed else { return Ok(()) };
            let before: Option<i64> = tx.find("SELECT last FROM batch_serial WHERE feed = ?1", params![feed])?;
            let serial = next_serial(before, first, last);
            tx.run(
                "INSERT INTO batch_serial (feed, last) VALUES (?1, ?2) ON CONFLICT (feed) DO UPDATE SET last = ?2",
                params![feed, serial],
            )?;
            tx.run(
                "UPDATE batch SET stage = 3, serial = ?2, processing = ?3, failed = 0, retry_at = NULL, code = NULL, why = NULL
                 WHERE n = ?1",
                params![n, serial, processing],
            )?;
            Ok(())
        })
        .await
    }

    /// What the groups of a batch hold, by file, in the order in which they began.
    ///
    /// # Errors
    /// The store failed.
    pub async fn batch_totals(&self, n: i64) -> Result<Vec<GroupTotal>, StoreError> {
        self.write("adding up a batch", move |tx| {
            tx.all(
                "SELECT file, grp, count(*), CAST(sum(amount) AS BIGINT) FROM batch_item WHERE batch = ?1 AND record IS NOT NULL
                 GROUP BY file, grp ORDER BY file, min(n)",
                params![n],
                total,
            )
        })
        .await
    }

    /// What the groups of a complete return hold, by file.
    ///
    /// # Errors
    /// The store failed.
    pub async fn return_totals(&self, feed: String) -> Result<Vec<GroupTotal>, StoreError> {
        self.write("adding up a return", move |tx| {
            tx.all(
                "SELECT file, grp, count(*), CAST(sum(amount) AS BIGINT) FROM batch_row WHERE feed = ?1
                 GROUP BY file, grp ORDER BY file, min(sort)",
                params![feed],
                total,
            )
        })
        .await
    }

    /// Records of a file of a batch, in their order, a portion at a time.
    ///
    /// # Errors
    /// The store failed.
    pub async fn batch_records(
        &self,
        n: i64,
        file: String,
        after: After,
        most: u32,
    ) -> Result<Vec<Placed>, StoreError> {
        self.write("reading a batch", move |tx| {
            let same = "SELECT n, sort, grp, record FROM batch_item
                 WHERE batch = ?1 AND file = ?2 AND sort = ?3 AND n > ?4 AND record IS NOT NULL ORDER BY n LIMIT ?5";
            let behind = "SELECT n, sort, grp, record FROM batch_item
                 WHERE batch = ?1 AND file = ?2 AND sort > ?3 AND ?4 IS NOT NULL AND record IS NOT NULL
                 ORDER BY sort, n LIMIT ?5";
            portion(tx, [same, behind], [n.value(), file.value(), after.sort.value(), after.n.value()], most, |row| {
                let after = After { n: row.get(0)?, sort: row.get(1)?, key: String::new() };
                Ok(Placed { after, group: row.get(2)?, record: row.get(3)? })
            })
        })
        .await
    }

    /// Rows of a file of a complete return, in their order, a portion at a time.
    ///
    /// # Errors
    /// The store failed.
    pub async fn return_rows(
        &self,
        feed: String,
        file: String,
        after: After,
        most: u32,
    ) -> Result<Vec<Placed>, StoreError> {
        self.write("reading a return", move |tx| {
            let same = "SELECT key, sort, grp, record FROM batch_row
                 WHERE feed = ?1 AND file = ?2 AND sort = ?3 AND key > ?4 ORDER BY key LIMIT ?5";
            let behind = "SELECT key, sort, grp, record FROM batch_row
                 WHERE feed = ?1 AND file = ?2 AND sort > ?3 AND ?4 IS NOT NULL ORDER BY sort, key LIMIT ?5";
            portion(
                tx,
                [same, behind],
                [feed.value(), file.value(), after.sort.value(), after.key.value()],
                most,
                |row| {
                    let after = After { n: 0, key: row.get(0)?, sort: row.get(1)? };
                    Ok(Placed { after, group: row.get(2)?, record: row.get(3)? })
                },
            )
        })
        .await
    }

    /// The files of a batch lie on our disk: from here on these bytes and names hold.
    ///
    /// # Errors
    /// The store failed.
    pub async fn batch_rendered(&self, n: i64, files: Vec<BatchFileState>) -> Result<(), StoreError> {
        self.write("noting a rendered batch", move |tx| {
            let stage = "UPDATE batch SET stage = 4, failed = 0, retry_at = NULL, code = NULL, why = NULL WHERE n = ?1 AND stage = 3";
            if tx.run(stage, params![n])? == 0 {
                return Ok(());
            }
            for file in &files {
                tx.run(
                    "INSERT INTO batch_file (batch, file, name, digest, size) VALUES (?1, ?2, ?3, ?4, ?5)",
                    params![n, file.file, file.name, file.digest, file.size],
                )?;
            }
            Ok(())
        })
        .await
    }

    /// The rendered files of a batch are gone from our disk before all lay in the system: they are rendered again, which
    /// gives the same bytes.
    ///
    /// # Errors
    /// The store failed.
    pub async fn render_again(&self, n: i64) -> Result<(), StoreError> {
        self.write("rendering a batch again", move |tx| {
            if tx.run("UPDATE batch SET stage = 3 WHERE n = ?1 AND stage = 4", params![n])? == 1 {
                tx.run("DELETE FROM batch_file WHERE batch = ?1", params![n])?;
            }
            Ok(())
        })
        .await
    }

    /// A file of a batch is about to be put into the system, or certainly was not.
    ///
    /// # Errors
    /// The store failed.
    pub async fn claim_batch_file(&self, n: i64, file: String, at: Option<i64>) -> Result<(), StoreError> {
        self.write("claiming a file of a batch", move |tx| {
            let sql = "UPDATE batch_file SET claimed_at = ?3 WHERE batch = ?1 AND file = ?2";
            tx.run(sql, params![n, file, at])?;
            Ok(())
        })
        .await
    }

    /// A person's word on the files of a batch of which nobody knows whether they were received, with the line of the audit
    /// trail, in one commit; whether there was such a file.
    ///
    /// # Errors
    /// The store failed.
    pub async fn settle_batch(
        &self,
        n: i64,
        now: i64,
        received: bool,
        who: String,
        reason: String,
    ) -> Result<bool, StoreError> {
        self.write("settling a batch", move |tx| {
            let put_at = received.then_some(now);
            let settled = tx.run(
                "UPDATE batch_file SET claimed_at = NULL, put_at = ?2 WHERE batch = ?1 AND claimed_at IS NOT NULL AND put_at IS NULL
                 AND EXISTS (SELECT 1 FROM batch WHERE n = ?1 AND stage = 4 AND code = ?3)",
                params![n, put_at, crate::code::Code::OutcomeUnknown.as_str()],
            )?;
            if settled > 0 {
                tx.run("UPDATE batch SET retry_at = NULL, failed = 0 WHERE n = ?1", params![n])?;
                let what = if received { "batch received" } else { "batch not received" };
                tx.run(
                    "INSERT INTO audit (at, who, what, reason, about) VALUES (?1, ?2, ?3, ?4, ?5)",
                    params![now, who, what, reason, n.to_string()],
                )?;
            }
            Ok(settled > 0)
        })
        .await
    }

    /// A file of a batch lies in the system; with the last of them, the batch does.
    ///
    /// # Errors
    /// The store failed.
    pub async fn batch_file_put(&self, n: i64, file: Option<String>, now: i64) -> Result<(), StoreError> {
        self.write("noting a file of a batch", move |tx| {
            if let Some(file) = file {
                tx.run(
                    "UPDATE batch_file SET put_at = ?3 WHERE batch = ?1 AND file = ?2",
                    params![n, file, now],
                )?;
            }
            tx.run(
                "UPDATE batch SET stage = 5, failed = 0, retry_at = NULL, code = NULL, why = NULL
                 WHERE n = ?1 AND stage = 4 AND NOT EXISTS (SELECT 1 FROM batch_file WHERE batch = ?1 AND put_at IS NULL)",
                params![n],
            )?;
            Ok(())
        })
        .await
    }

    /// A step of a batch failed and is tried again then.
    ///
    /// # Errors
    /// The store failed.
    pub async fn batch_failed(
        &self,
        n: i64,
        retry_at: i64,
        code: &'static str,
        why: String,
    ) -> Result<(), StoreError> {
        self.write("noting that a batch failed", move |tx| {
            tx.run(
                "UPDATE batch SET failed = failed + 1, retry_at = ?2, code = ?3, why = ?4 WHERE n = ?1",
                params![n, retry_at, code, why],
            )?;
            Ok(())
        })
        .await
    }

    /// Items of a placed batch that are not yet marked, a portion.
    ///
    /// # Errors
    /// The store failed.
    pub async fn batch_to_mark(&self, n: i64, most: u32) -> Result<Vec<ToMark>, StoreError> {
        self.write("reading a batch", move |tx| {
            tx.all(
                "SELECT n, route, key, kept FROM batch_item WHERE batch = ?1 ORDER BY file, sort, n LIMIT ?2",
                params![n, most],
                |row| {
                    Ok(ToMark {
                        n: row.get(0)?,
                        route: RouteNumber(row.get(1)?),
                        key: Key(row.get(2)?),
                        kept: row.get(3)?,
                    })
                },
            )
        })
        .await
    }

    /// Items of a placed batch are on record as delivered, what is remembered of them is remembered, and with the last of
    /// them the batch is sent: a portion in one commit, so that a large batch does not hold up the store.
    ///
    /// # Errors
    /// The store failed.
    pub async fn mark_batch(
        &self,
        n: i64,
        now: i64,
        items: Vec<(ToMark, Option<NewItem>)>,
    ) -> Result<(), StoreError> {
        self.write("marking a batch", move |tx| {
            for (item, remembered) in &items {
                tx.run("DELETE FROM batch_item WHERE n = ?1", params![item.n])?;
                tx.run(
                    "UPDATE journal SET state = 4, done_at = ?3 WHERE route = ?1 AND key = ?2 AND part = 0 AND state = 9",
                    params![item.route.0, item.key.0, now],
                )?;
                if let Some(remembered) = remembered {
                    remembered.remember(tx, now)?;
                }
            }
            tx.run(
                "UPDATE batch SET stage = 6, sent_at = ?2, failed = 0, retry_at = NULL, code = NULL, why = NULL
                 WHERE n = ?1 AND stage = 5 AND NOT EXISTS (SELECT 1 FROM batch_item WHERE batch = ?1)",
                params![n, now],
            )?;
            Ok(())
        })
        .await
    }

    /// What is known of what a report is about.
    ///
    /// # Errors
    /// The store failed.
    pub async fn about(&self, route: RouteNumber, key: String) -> Result<Known, StoreError> {
        self.write("looking for what a report is about", move |tx| {
            let cause: Option<String> = tx.find(
                "SELECT cause FROM item WHERE route = ?1 AND key = ?2",
                params![route.0, key],
            )?;
            if let Some(cause) = cause {
                return Ok(Known::Sent(cause));
            }
            let on_its_way: bool = tx.value(
                "SELECT EXISTS (SELECT 1 FROM batch WHERE stage BETWEEN 2 AND 5
                       AND EXISTS (SELECT 1 FROM batch_item WHERE batch_item.batch = batch.n AND route = ?1))",
                params![route.0],
            )?;
            Ok(if on_its_way { Known::OnItsWay } else { Known::Unknown })
        })
        .await
    }
}

fn total(row: &Row<'_>) -> sql::Result<GroupTotal> {
    Ok(GroupTotal { file: row.get(0)?, group: row.get(1)?, count: row.get(2)?, sum: row.get(3)? })
}

fn files(tx: &Tx<'_>, n: i64) -> sql::Result<Vec<BatchFileState>> {
    tx.all(
        "SELECT file, name, digest, size, claimed_at, put_at FROM batch_file WHERE batch = ?1 ORDER BY file",
        params![n],
        |row| {
            Ok(BatchFileState {
                file: row.get(0)?,
                name: row.get(1)?,
                digest: row.get(2)?,
                size: row.get(3)?,
                claimed_at: row.get(4)?,
                put_at: row.get(5)?,
            })
        },
    )
}

/// Forgets batches that were sent before, a few at a time.
pub(super) fn prune(tx: &Tx<'_>, before: i64) -> sql::Result<()> {
    let old = "SELECT n FROM batch WHERE stage = 6 AND sent_at < ?1 ORDER BY n LIMIT 100";
    tx.run(&format!("DELETE FROM batch_file WHERE batch IN ({old})"), params![before])?;
    tx.run(&format!("DELETE FROM batch WHERE n IN ({old})"), params![before])?;
    Ok(())
}
