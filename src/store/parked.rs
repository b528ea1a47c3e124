//! The parking lot of ordered routes: messages that wait behind another of their subject, whole, in their order.

use super::{
    RouteNumber, Store, StoreError,
    sql::{self, Row, Tx, params},
};
use crate::{
    event::Key,
    order::{Sequence, Strand, Subject},
};
use bytes::Bytes;
use std::collections::BTreeSet;

/// Subjects of a strand that are told at most.
const SUBJECTS: u32 = 10_000;

/// A message, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The exchange to which it was published.
    pub exchange: String,
    /// The routing key.
    pub routing_key: String,
    /// Its properties, as text.
    pub properties: String,
    /// Its body, byte for byte.
    pub body: Bytes,
}

/// A message that is parked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parking {
    /// What it is about.
    pub subject: Subject,
    /// Whether it waits in the first place.
    pub first: bool,
    /// The number of its next attempt.
    pub attempt: u32,
    /// When it is tried next; nothing: when those before it are out of the way.
    pub due_at: Option<i64>,
    /// When its first attempt failed.
    pub failed_at: Option<i64>,
    /// Whether a request may have been carried out; nothing: as it was.
    pub doubt: Option<bool>,
    /// The message.
    pub kept: Kept,
}

/// A message in the lot that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// What makes it the same as another.
    pub key: Key,
    /// The message.
    pub kept: Kept,
}

/// A strand's part of the lot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lot {
    /// What is due.
    pub due: Vec<Due>,
    /// When the next message is due; milliseconds since 1970.
    pub next: Option<i64>,
    /// The digests of the subjects of which something waits there or is held, if that was asked for and they are not too many. No
    /// other joins them but by the strand itself: others only let go.
    pub subjects: Option<BTreeSet<[u8; 32]>>,
}

/// How a message and its subject stand.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stands {
    /// How its subject stands.
    pub sequence: Sequence,
    /// Whether the message itself is parked.
    pub is_parked: bool,
}

/// A subject whose messages wait, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldSubject {
    /// The route.
    pub route: String,
    /// What they are about.
    pub subject: Subject,
    /// How many wait.
    pub messages: u64,
    /// Since when the oldest of them waits; milliseconds since 1970.
    pub since: Option<i64>,
    /// When the first of them is tried next.
    pub due_at: Option<i64>,
    /// The message that was given up and holds them, with its code.
    pub held_by: Option<(Key, String)>,
}

impl Store {
    /// How messages and their subjects stand, and how many bytes are parked in all.
    ///
    /// # Errors
    /// The store failed.
    pub async fn stands(
        &self,
        route: RouteNumber,
        messages: Vec<([u8; 32], Key)>,
    ) -> Result<(Vec<Stands>, u64), StoreError> {
        self.write("looking into the parking lot", move |tx| {
            let of_route = "SELECT parked, parked_bytes FROM route WHERE n = ?1";
            let lot: Option<(i64, i64)> =
                tx.one(of_route, params![route.0], |row| Ok((row.get(0)?, row.get(1)?)))?;
            let (parked, bytes) = lot.unwrap_or_default();
            let held = "SELECT key FROM held WHERE route = ?1 AND subject = ?2";
            // Places are given out one by one: the first and the last tell how many there are, or were.
            let count = "SELECT (SELECT max(place) FROM parked WHERE route = ?1 AND subject = ?2)
                      - (SELECT min(place) FROM parked WHERE route = ?1 AND subject = ?2) + 1";
            let own = "SELECT 1 FROM parked WHERE route = ?1 AND key = ?2";
            let stands = messages.iter().map(|(subject, key)| {
                let held_by = tx.find(held, params![route.0, subject])?.map(Key);
                if parked == 0 {
                    return Ok(Stands { sequence: Sequence { held_by, parked: 0 }, is_parked: false });
                }
                let behind: Option<i64> = tx.value(count, params![route.0, subject])?;
                let parked = u64::try_from(behind.unwrap_or(0)).unwrap_or(0);
                let is_parked = parked > 0 && tx.exists(own, params![route.0, key.0])?;
                Ok(Stands { sequence: Sequence { held_by, parked }, is_parked })
            });
            Ok((stands.collect::<sql::Result<_>>()?, u64::try_from(bytes).unwrap_or(0)))
        })
        .await
    }

    /// Looks into a strand's part of the lot: which messages are due, the longest due first and of each subject its first, so many at
    /// most; when the next will be; and, if `subjects`, of whom there is anything.
    ///
    /// # Errors
    /// The store failed.
    pub async fn lot(
        &self,
        route: RouteNumber,
        strand: Strand,
        now: i64,
        most: u32,
        subjects: bool,
    ) -> Result<Lot, StoreError> {
        self.write("looking into the parking lot", move |tx| {
            let (from, to) = strand.digests();
            let of_strand = params![route.0, from, to];
            let due = tx.all(
                "SELECT key, exchange, routing_key, properties, body FROM parked
                 WHERE route = ?1 AND subject >= ?2 AND subject < ?3 AND due_at <= ?4 ORDER BY due_at LIMIT ?5",
                params![route.0, from, to, now, most],
                due_of,
            )?;
            // By the index of what is due: with `IS NOT NULL` every message of the strand that only waits is looked at.
            let next = tx.find(
                "SELECT due_at FROM parked WHERE route = ?1 AND subject >= ?2 AND subject < ?3 AND due_at > 0
                 ORDER BY due_at LIMIT 1",
                of_strand,
            )?;
            let subjects = match subjects {
                false => None,
                true => {
                    let found: Vec<[u8; 32]> = tx.all(
                        "SELECT subject FROM parked WHERE route = ?1 AND subject >= ?2 AND subject < ?3
                         UNION SELECT subject FROM held WHERE route = ?1 AND subject >= ?2 AND subject < ?3 LIMIT ?4",
                        params![route.0, from, to, SUBJECTS + 1],
                        |row| row.get(0),
                    )?;
                    (found.len() <= SUBJECTS as usize).then(|| found.into_iter().collect())
                }
            };
            Ok(Lot { due, next, subjects })
        })
        .await
    }

    /// Puts off messages of the lot that could not be brought to an end, until then.
    ///
    /// # Errors
    /// The store failed.
    pub async fn put_off(&self, route: RouteNumber, keys: Vec<Key>, until: i64) -> Result<(), StoreError> {
        self.write("putting parked messages off", move |tx| {
            let sql = "UPDATE parked SET due_at = ?3 WHERE route = ?1 AND key = ?2 AND due_at IS NOT NULL";
            keys.iter().try_for_each(|key| tx.run(sql, params![route.0, key.0, until]).map(|_| ()))
        })
        .await
    }

    /// Takes messages out of the lot that have come to their end elsewhere; those behind them go on.
    ///
    /// # Errors
    /// The store failed.
    pub async fn past(&self, route: RouteNumber, keys: Vec<Key>, now: i64) -> Result<(), StoreError> {
        self.write("taking messages out of the parking lot", move |tx| {
            keys.iter().try_for_each(|key| let_go(tx, route, &key.0, now))
        })
        .await
    }

    /// The first messages in the lot, due or not, each subject's in its order: of a route that keeps no order any more.
    ///
    /// # Errors
    /// The store failed.
    pub async fn parked_first(&self, route: RouteNumber, most: u32) -> Result<Vec<Due>, StoreError> {
        self.write("looking into the parking lot", move |tx| {
            tx.run("DELETE FROM held WHERE route = ?1", params![route.0])?;
            tx.all(
                "SELECT key, exchange, routing_key, properties, body FROM parked
                 WHERE route = ?1 ORDER BY subject, place LIMIT ?2",
                params![route.0, most],
                due_of,
            )
        })
        .await
    }

    /// The subjects of a route, or of all, whose messages wait; those that a dead letter holds first.
    ///
    /// # Errors
    /// The store failed.
    pub async fn held(&self, route: Option<String>, most: u32) -> Result<Vec<HeldSubject>, StoreError> {
        self.write("looking into the parking lot", move |tx| {
            tx.all(
                "SELECT r.name, s.subject, coalesce(h.shown, max(p.shown)), count(p.key), min(p.parked_at),
                   min(p.due_at), h.key, h.code
                 FROM (SELECT route, subject FROM held UNION SELECT route, subject FROM parked) s
                 JOIN route r ON r.n = s.route
                 LEFT JOIN held h ON h.route = s.route AND h.subject = s.subject
                 LEFT JOIN parked p ON p.route = s.route AND p.subject = s.subject
                 WHERE ?1 IS NULL OR r.name = ?1
                 GROUP BY s.route, s.subject, r.name, h.shown, h.key, h.code
                 ORDER BY h.key IS NULL, count(p.key) DESC, 3 LIMIT ?2",
                params![route, most],
                |row| {
                    let mut digest = [0; 32];
                    let bytes: Vec<u8> = row.get(1)?;
                    digest.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
                    let held_by = match row.get::<Option<String>>(7)? {
                        Some(code) => Some((key_of(row, 6)?, code)),
                        None => None,
                    };
                    Ok(HeldSubject {
                        route: row.get(0)?,
                        subject: Subject { digest, shown: row.get(2)? },
                        messages: u64::try_from(row.get::<i64>(3)?).unwrap_or(0),
                        since: row.get(4)?,
                        due_at: row.get(5)?,
                        held_by,
                    })
                },
            )
        })
        .await
    }

    /// The messages of a subject that wait, in their order: key, since when, size.
    ///
    /// # Errors
    /// The store failed.
    pub async fn parked_of(
        &self,
        route: String,
        subject: [u8; 32],
        most: u32,
    ) -> Result<Vec<(Key, i64, u64)>, StoreError> {
        self.write("looking into the parking lot", move |tx| {
            tx.all(
                "SELECT p.key, p.parked_at, length(p.body) FROM parked p JOIN route r ON r.n = p.route
                 WHERE r.name = ?1 AND p.subject = ?2 ORDER BY p.place LIMIT ?3",
                params![route, subject, most],
                |row| Ok((key_of(row, 0)?, row.get(1)?, u64::try_from(row.get::<i64>(2)?).unwrap_or(0))),
            )
        })
        .await
    }

    /// Lets the messages of a subject go on that one which was given up has held. Whether it held any; who and why is
    /// written down in the same commit.
    ///
    /// # Errors
    /// The store failed.
    pub async fn release(
        &self,
        route: RouteNumber,
        subject: [u8; 32],
        now: i64,
        who: String,
        reason: String,
    ) -> Result<bool, StoreError> {
        self.write("releasing a subject", move |tx| {
            let held: Option<Key> = tx.one(
                "SELECT key FROM held WHERE route = ?1 AND subject = ?2",
                params![route.0, subject],
                |row| key_of(row, 0),
            )?;
            let Some(key) = held else { return Ok(false) };
            let_go(tx, route, &key.0, now)?;
            tx.run(
                "INSERT INTO audit (at, who, what, reason, about) VALUES (?1, ?2, 'release', ?3, ?4)",
                params![now, who, reason, key.to_string()],
            )?;
            Ok(true)
        })
        .await
    }
}

fn due_of(row: &Row<'_>) -> sql::Result<Due> {
    let body: Vec<u8> = row.get(4)?;
    let kept =
        Kept { exchange: row.get(1)?, routing_key: row.get(2)?, properties: row.get(3)?, body: body.into() };
    Ok(Due { key: key_of(row, 0)?, kept })
}

fn key_of(row: &Row<'_>, at: usize) -> sql::Result<Key> {
    let mut key = [0; 32];
    let bytes: Vec<u8> = row.get(at)?;
    key.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    Ok(Key(key))
}

impl Parking {
    /// Parks it, or, if it stands there, has it wait for its next attempt.
    pub(super) fn write(&self, tx: &Tx<'_>, route: RouteNumber, now: i64, key: &[u8; 32]) -> sql::Result<()> {
        let waits = tx.run(
            "UPDATE parked SET due_at = ?3, properties = ?4 WHERE route = ?1 AND key = ?2",
            params![route.0, key, self.due_at, self.kept.properties],
        )?;
        if waits == 0 {
            let place = match self.first {
                true => "SELECT coalesce(min(place) - 1, 0) FROM parked WHERE route = ?1 AND subject = ?2",
                false => "SELECT coalesce(max(place) + 1, 0) FROM parked WHERE route = ?1 AND subject = ?2",
            };
            let place: i64 = tx.value(place, params![route.0, self.subject.digest])?;
            tx.run(
                "INSERT INTO parked (route, subject, shown, place, key, exchange, routing_key, properties, body, parked_at, due_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
                params![
                route.0,
                self.subject.digest,
                self.subject.shown,
                place,
                key,
                self.kept.exchange,
                self.kept.routing_key,
                self.kept.properties,
                &self.kept.body[..],
                now,
                self.due_at
            ],
            )?;
            count(tx, route, 1, self.kept.body.len() as i64)?;
            // What it was to wait for may have been let go by a person since that was looked up.
            wake(tx, route, &self.subject.digest, now)?;
        }
        // What was given up and came again is in its place now, and no longer holds the others by being given up.
        if self.first {
            tx.run("DELETE FROM held WHERE route = ?1 AND key = ?2", params![route.0, key])?;
        }
        Ok(())
    }
}

fn count(tx: &Tx<'_>, route: RouteNumber, messages: i64, bytes: i64) -> sql::Result<()> {
    tx.run(
        "UPDATE route SET parked = parked + ?2, parked_bytes = parked_bytes + ?3 WHERE n = ?1",
        params![route.0, messages, bytes],
    )?;
    Ok(())
}

/// Takes a message out of the lot, if it stands there. Its subject, if it did.
fn take_out(tx: &Tx<'_>, route: RouteNumber, key: &[u8; 32]) -> sql::Result<Option<Vec<u8>>> {
    let gone: Option<(Vec<u8>, i64)> = tx.one(
        "DELETE FROM parked WHERE route = ?1 AND key = ?2 RETURNING subject, length(body)",
        params![route.0, key],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    let Some((subject, bytes)) = gone else { return Ok(None) };
    count(tx, route, -1, -bytes)?;
    Ok(Some(subject))
}

/// Whether no message of a route waits in the lot, and none holds others.
pub(super) fn is_empty(tx: &Tx<'_>, route: RouteNumber) -> sql::Result<bool> {
    let any = "SELECT 1 WHERE EXISTS (SELECT 1 FROM parked WHERE route = ?1) OR EXISTS (SELECT 1 FROM held WHERE route = ?1)";
    Ok(!tx.exists(any, params![route.0])?)
}

/// The message is out of the way: the next of its subject is due.
pub(super) fn let_go(tx: &Tx<'_>, route: RouteNumber, key: &[u8; 32], now: i64) -> sql::Result<()> {
    let concerned = "SELECT 1 WHERE EXISTS (SELECT 1 FROM parked WHERE route = ?1 AND key = ?2)
                            OR EXISTS (SELECT 1 FROM held WHERE route = ?1 AND key = ?2)";
    if !tx.exists(concerned, params![route.0, key])? {
        return Ok(());
    }
    let parked = take_out(tx, route, key)?;
    let held: Option<Vec<u8>> =
        tx.find("DELETE FROM held WHERE route = ?1 AND key = ?2 RETURNING subject", params![route.0, key])?;
    match parked.or(held) {
        Some(subject) => wake(tx, route, &subject, now),
        None => Ok(()),
    }
}

/// The first message of a subject that waits for nothing any more is due.
fn wake(tx: &Tx<'_>, route: RouteNumber, subject: &[u8], now: i64) -> sql::Result<()> {
    tx.run(
        "UPDATE parked SET due_at = ?3 WHERE route = ?1 AND subject = ?2 AND due_at IS NULL
           AND place = (SELECT min(place) FROM parked WHERE route = ?1 AND subject = ?2)
           AND NOT EXISTS (SELECT 1 FROM held WHERE route = ?1 AND subject = ?2)",
        params![route.0, subject, now],
    )?;
    Ok(())
}

/// The message was given up, and holds the others of its subject.
pub(super) fn hold(
    tx: &Tx<'_>,
    route: RouteNumber,
    key: &[u8; 32],
    subject: &Subject,
    code: &str,
    now: i64,
) -> sql::Result<()> {
    take_out(tx, route, key)?;
    tx.run(
        "INSERT INTO held (route, subject, shown, key, code, since) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (route, subject) DO UPDATE SET key = excluded.key, code = excluded.code",
        params![route.0, subject.digest, subject.shown, key, code, now],
    )?;
    Ok(())
}
