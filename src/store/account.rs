//! The account: taken in = delivered + waiting + dead + duplicate + discarded + nothing to publish, per route. The left
//! side is counted when messages come in, by the hour; the right side from the rows: they agree, or something is wrong, and then
//! it is said of which hour and, as far as anything still knows, of which messages.

use super::{
    FileState, State, Store, StoreError,
    intake::{FORGOTTEN, HOUR, Sums, hour},
    prune::pruned_before,
    sql::{self, Row, Tx, params},
};
use crate::event::Key;
use std::collections::{BTreeMap, HashMap};

/// How many messages of one kind are named.
const NAMED: i64 = 20;
/// How many rows of the journal are grouped at once, about.
const PORTION: i64 = 200_000;
/// Into how many pieces an hour is divided at most.
const PIECES: i64 = 1_000;

/// What an account is drawn up of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// Only of this route.
    pub route: Option<String>,
    /// Only of what was taken in since then: from the beginning of that hour.
    pub since: Option<i64>,
    /// The routes from systems: what waits there waits in the spool.
    pub collects: Vec<String>,
    /// The moment.
    pub now: i64,
}

/// The account of all routes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Account {
    /// One line per route, sorted by name.
    pub routes: Vec<RouteAccount>,
    /// The beginning of the first hour of which it is.
    pub since: Option<i64>,
    /// What was taken in before this moment and has come to its end may be remembered as a sum only.
    pub remembers: Option<i64>,
}

/// The account of one route.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RouteAccount {
    /// The route.
    pub route: String,
    /// Taken in, counted at intake.
    pub taken: i64,
    /// Done.
    pub delivered: i64,
    /// Waiting for an attempt, under way, or in a batch that is not yet sent.
    pub waiting: i64,
    /// Of those, in a batch.
    pub batched: i64,
    /// Of those waiting, behind another of their subject or for its next attempt, in the store.
    pub parked: i64,
    /// Where they wait, and until when.
    pub waits: Vec<Waits>,
    /// Given up, in the dead-letter queue.
    pub dead: i64,
    /// Seen before.
    pub duplicate: i64,
    /// Discarded by a person.
    pub discarded: i64,
    /// By whom, as far as the journal remembers them.
    pub discarded_by: Vec<DiscardedBy>,
    /// Asked for no event.
    pub nothing: i64,
    /// Of all these, how many are remembered only as a sum.
    pub pruned: i64,
    /// When the next waiting one is due, in milliseconds since 1970.
    pub next_due: Option<i64>,
    /// Open items to be asked about.
    pub open_items: i64,
    /// The files that its records came in.
    pub files: FileAccount,
    /// What does not agree.
    pub astray: Vec<Astray>,
}

/// Where messages of a route wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waits {
    /// Where.
    pub at: At,
    /// How many.
    pub messages: i64,
    /// When the first of them is due.
    pub next: Option<i64>,
    /// When the last of them is due.
    pub last: Option<i64>,
}

/// A place where messages wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum At {
    /// With the bridge: being sent.
    UnderWay,
    /// With the bridge: done by the system, the reply is not yet published.
    Reply,
    /// In the retry queues.
    Retry,
    /// Back in the route's own queue.
    Queue,
    /// In the parking lot: for the next attempt of their subject's first.
    Lot,
    /// In the parking lot: for a person, who replays or discards the dead letter before them, or releases them.
    Held,
    /// In the spool.
    Spool,
    /// In this batch.
    Batch(i64),
}

/// Who has discarded messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscardedBy {
    /// The name; nothing if the audit trail has none.
    pub who: Option<String>,
    /// How many.
    pub messages: i64,
    /// The last reason given.
    pub reason: String,
    /// When the last of them was discarded.
    pub last: Option<i64>,
}

/// Something of which the two sides, or two places, do not agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Astray {
    /// What.
    pub what: Wrong,
    /// How many messages or copies.
    pub messages: i64,
    /// Some of them.
    pub named: Vec<Named>,
}

/// How two places do not agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// More was taken in within this hour than the journal has rows for.
    Missing { hour: i64 },
    /// The journal has more rows of this hour than were taken in.
    Surplus { hour: i64 },
    /// The copies of messages of this hour are not as many as were counted.
    Copies { hour: i64 },
    /// What the journal no longer remembers one by one does not add up.
    Pruned,
    /// It waits in the spool, and is not there.
    NotInSpool,
    /// It has joined a batch, and is in none.
    NotInBatch,
    /// It lies in the spool, the parking lot or a batch, and the journal does not have it.
    NotInJournal,
    /// It was given up, and the dead-letter queue does not have it.
    LetterGone,
    /// It should long be back from its retry queue, and its own queue is empty.
    NotBack,
}

/// A message by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// What makes it the same as another; or how that begins.
    pub key: String,
    /// Its id, if it is known.
    pub id: Option<String>,
    /// Its source, if it is known.
    pub source: Option<String>,
    /// When it was taken in, if that is known.
    pub taken_at: Option<i64>,
}

/// The account of a route's files: taken = read + under way + refused + held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FileAccount {
    /// Taken, each for the first time.
    pub taken: i64,
    /// Read to the end.
    pub read: i64,
    /// Being read.
    pub under_way: i64,
    /// Refused as a whole.
    pub refused: i64,
    /// Waiting for a person.
    pub held: i64,
    /// The same bytes again.
    pub duplicate: i64,
    /// Records that were taken in from them.
    pub records: i64,
}

/// A message that was given up, by the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Buried {
    /// Its route.
    pub route: String,
    /// Its name.
    pub named: Named,
    /// When it was given up.
    pub at: i64,
    /// Whether a person has replayed it since, and it is on its way back.
    pub replayed: bool,
}

impl RouteAccount {
    /// Taken in less all that is accounted for: 0, or something is wrong.
    pub fn difference(&self) -> i64 {
        let sum = self.delivered + self.waiting + self.dead + self.duplicate + self.discarded + self.nothing;
        self.taken - sum
    }

    /// Whether its sum closes, and nothing is where it is not said to be.
    pub fn closes(&self) -> bool {
        self.difference() == 0 && self.astray.is_empty()
    }

    fn count(&mut self, state: Option<State>, messages: i64) {
        match state {
            Some(State::Delivered) => self.delivered += messages,
            Some(State::Claimed | State::Waiting | State::Answered) | None => self.waiting += messages,
            Some(State::Batched) => {
                self.waiting += messages;
                self.batched += messages;
            }
            Some(State::Dead) => self.dead += messages,
            Some(State::Discarded) => self.discarded += messages,
            Some(State::Duplicate) => self.duplicate += messages,
            Some(State::Nothing) => self.nothing += messages,
        }
    }
}

impl Account {
    /// Whether every line closes.
    pub fn closes(&self) -> bool {
        self.routes.iter().all(RouteAccount::closes)
    }
}

impl Store {
    /// The account, all from one moment. The bridge goes on writing meanwhile.
    ///
    /// # Errors
    /// The store failed.
    pub async fn account(&self, asked: Asked) -> Result<Account, StoreError> {
        self.read("drawing up the account", move |tx| {
            let since = asked.since.map(|since| hour(since) * HOUR);
            let mut account = Account { routes: Vec::new(), since, remembers: pruned_before(tx)? };
            let discards = discards(tx)?;
            for (route, name) in routes(tx)? {
                if asked.route.as_ref().is_some_and(|only| *only != name) {
                    continue;
                }
                let ground = Ground { tx, route, since, from: since.unwrap_or(0), now: asked.now };
                let collects = asked.collects.contains(&name);
                account.routes.push(ground.line(name, collects, &discards)?);
            }
            Ok(account)
        })
        .await
    }

    /// What was given up, by the journal: what the dead-letter queue must hold, but for what is on its way back.
    ///
    /// # Errors
    /// The store failed.
    pub async fn buried(&self) -> Result<Vec<Buried>, StoreError> {
        self.read("looking for what was given up", |tx| {
            let mut replays: HashMap<String, i64> = HashMap::new();
            tx.all("SELECT about, at FROM audit WHERE what LIKE 'replay%' ORDER BY n", params![], |row| {
                replays.insert(row.get(0)?, row.get(1)?);
                Ok(())
            })?;
            tx.all(
                "SELECT j.key, j.id, j.source, j.taken_at, j.done_at, r.name FROM journal j JOIN route r ON r.n = j.route
                 WHERE j.state = 5 AND j.part = 0",
                params![],
                |row| {
                    let (named, at) = (named(row)?, row.get::<Option<i64>>(4)?.unwrap_or(0));
                    let replayed = replays.get(&named.key).is_some_and(|replay| *replay >= at);
                    Ok(Buried { route: row.get(5)?, named, at, replayed })
                },
            )
        })
        .await
    }

    /// Messages of a route that wait for an attempt which was due before, and do not wait in the store: how many, and some of
    /// them.
    ///
    /// # Errors
    /// The store failed.
    pub async fn overdue(&self, route: String, before: i64) -> Result<(i64, Vec<Named>), StoreError> {
        self.read("looking for what is overdue", move |tx| {
            let n: Option<i64> = tx.find("SELECT n FROM route WHERE name = ?1", params![route])?;
            let Some(n) = n else { return Ok((0, Vec::new())) };
            let which = "journal j WHERE j.route = ?1 AND j.state = 2 AND j.part = 0 AND j.due_at < ?2
                AND NOT EXISTS (SELECT 1 FROM parked p WHERE p.route = j.route AND p.key = j.key)";
            let all = tx.value(&format!("SELECT count(*) FROM {which}"), params![n, before])?;
            let some = format!(
                "SELECT j.key, j.id, j.source, j.taken_at FROM {which} ORDER BY j.due_at LIMIT {NAMED}"
            );
            Ok((all, tx.all(&some, params![n, before], named)?))
        })
        .await
    }
}

fn routes(tx: &Tx<'_>) -> sql::Result<Vec<(i64, String)>> {
    tx.all("SELECT n, name FROM route ORDER BY name", params![], |row| Ok((row.get(0)?, row.get(1)?)))
}

/// Who has discarded what, why and when, by the key of the message.
type Discards = HashMap<String, (String, String, i64)>;

fn discards(tx: &Tx<'_>) -> sql::Result<Discards> {
    let mut discards = Discards::new();
    tx.all("SELECT about, who, reason, at FROM audit WHERE what = 'discard' ORDER BY n", params![], |row| {
        discards.insert(row.get(0)?, (row.get(1)?, row.get(2)?, row.get(3)?));
        Ok(())
    })?;
    Ok(discards)
}

fn key_of(row: &Row<'_>, at: usize) -> sql::Result<String> {
    Ok(Key(row.get(at)?).to_string())
}

/// A row of key, id, source, when it was taken in.
fn named(row: &Row<'_>) -> sql::Result<Named> {
    let text = |at: usize| row.get::<Option<String>>(at);
    Ok(Named {
        key: key_of(row, 0)?,
        id: text(1)?,
        source: text(2)?.filter(|source| !source.is_empty()),
        taken_at: row.get(3)?,
    })
}

fn wait(line: &mut RouteAccount, waits: Waits) {
    if waits.messages > 0 {
        line.waits.push(waits);
    }
}

/// One route, at one moment.
struct Ground<'a> {
    tx: &'a Tx<'a>,
    route: i64,
    since: Option<i64>,
    /// The same, or the beginning of time.
    from: i64,
    now: i64,
}

impl Ground<'_> {
    fn line(&self, name: String, collects: bool, discards: &Discards) -> sql::Result<RouteAccount> {
        let mut line = RouteAccount { route: name, ..RouteAccount::default() };
        let taken = self.taken()?;
        line.taken = taken.values().map(|sums| sums.messages + sums.copies).sum();
        let rows = self.rows(&mut line, &taken)?;
        self.compare(&taken, &rows, &mut line)?;
        self.waits(collects, &mut line)?;
        line.waits.sort_by_key(|waits| waits.at);
        line.next_due = line
            .waits
            .iter()
            .filter(|waits| !matches!(waits.at, At::Batch(_)))
            .filter_map(|waits| waits.next)
            .min();
        line.discarded_by = self.discarded(discards)?;
        line.open_items = self.tx.value(
            "SELECT count(*) FROM item WHERE route = ?1 AND settled_at IS NULL AND opened_at >= ?2",
            params![self.route, self.from],
        )?;
        line.files = self.files()?;
        Ok(line)
    }

    /// What was taken in, by the hour.
    fn taken(&self) -> sql::Result<BTreeMap<i64, Sums>> {
        let rows = self.tx.all(
            "SELECT hour, messages, copies, high, low FROM intake WHERE route = ?1 AND hour >= ?2",
            params![self.route, self.since.map_or(FORGOTTEN, hour)],
            |row| {
                let sums =
                    Sums { messages: row.get(1)?, copies: row.get(2)?, high: row.get(3)?, low: row.get(4)? };
                Ok((row.get(0)?, sums))
            },
        )?;
        Ok(rows.into_iter().collect())
    }

    /// Moments between which about a portion of what was taken in lies, from the first on that counts.
    fn moments(&self, taken: &BTreeMap<i64, Sums>) -> Vec<i64> {
        let (mut moments, mut about) = (vec![self.from], 0);
        for (hour, sums) in taken.iter().filter(|(hour, _)| **hour != FORGOTTEN) {
            about += sums.messages;
            if about >= PORTION {
                let pieces = (about / PORTION).min(PIECES);
                moments.extend((1..=pieces).map(|piece| hour * HOUR + HOUR * piece / pieces));
                about = 0;
            }
        }
        moments.push(i64::MAX);
        moments
    }

    /// What the journal has, by the hour: messages and copies. A portion at a time, as the rows lie, so that a journal of any size
    /// is grouped in little memory.
    fn rows(
        &self,
        line: &mut RouteAccount,
        taken: &BTreeMap<i64, Sums>,
    ) -> sql::Result<BTreeMap<i64, (i64, i64)>> {
        let mut by_hour: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
        let (mut under_way, mut replies) = (0, 0);
        let group = "SELECT taken_at / 3600000, state, count(*), CAST(sum(duplicates) AS BIGINT) FROM journal
             WHERE route = ?1 AND taken_at >= ?2 AND taken_at < ?3 AND part = 0 GROUP BY 1, 2";
        let moments = self.moments(taken);
        for (first, end) in moments.iter().zip(moments.iter().skip(1)) {
            let within = params![self.route, first, end];
            self.tx.all(group, within, |row| {
                let (hour, messages, copies): (i64, i64, i64) = (row.get(0)?, row.get(2)?, row.get(3)?);
                let counts = by_hour.entry(hour).or_default();
                *counts = (counts.0 + messages, counts.1 + copies);
                let state = State::of(row.get(1)?);
                line.count(state, messages);
                line.duplicate += copies;
                match state {
                    Some(State::Claimed) => under_way += messages,
                    Some(State::Answered) => replies += messages,
                    Some(
                        State::Waiting
                        | State::Delivered
                        | State::Dead
                        | State::Discarded
                        | State::Duplicate
                        | State::Nothing
                        | State::Batched,
                    )
                    | None => {}
                }
                Ok(())
            })?;
        }
        for (at, messages) in [(At::UnderWay, under_way), (At::Reply, replies)] {
            wait(line, Waits { at, messages, next: None, last: None });
        }
        Ok(by_hour)
    }

    /// Compares what was taken in with what the journal has, hour by hour.
    fn compare(
        &self,
        taken: &BTreeMap<i64, Sums>,
        rows: &BTreeMap<i64, (i64, i64)>,
        line: &mut RouteAccount,
    ) -> sql::Result<()> {
        if self.since.is_none() {
            let pruned = "SELECT state, messages, duplicates FROM pruned WHERE route = ?1";
            self.tx.all(pruned, params![self.route], |row| {
                let (messages, copies): (i64, i64) = (row.get(1)?, row.get(2)?);
                line.count(State::of(row.get(0)?), messages);
                line.duplicate += copies;
                line.pruned += messages + copies;
                Ok(())
            })?;
            let moved = taken.get(&FORGOTTEN).copied().unwrap_or_default();
            let differ = moved.messages + moved.copies - line.pruned;
            if differ != 0 {
                line.astray.push(Astray { what: Wrong::Pruned, messages: differ.abs(), named: Vec::new() });
            }
        }
        let hours: std::collections::BTreeSet<i64> =
            taken.keys().chain(rows.keys()).copied().filter(|hour| *hour != FORGOTTEN).collect();
        for hour in hours {
            let taken = taken.get(&hour).copied().unwrap_or_default();
            let (messages, copies) = rows.get(&hour).copied().unwrap_or_default();
            let at = hour * HOUR;
            if taken.messages != messages {
                let differ = taken.messages - messages;
                let what = if differ > 0 { Wrong::Missing { hour: at } } else { Wrong::Surplus { hour: at } };
                let named = self.of_hour(taken, at)?;
                line.astray.push(Astray { what, messages: differ.abs(), named });
            }
            if taken.copies != copies {
                let messages = (taken.copies - copies).abs();
                line.astray.push(Astray { what: Wrong::Copies { hour: at }, messages, named: Vec::new() });
            }
        }
        Ok(())
    }

    /// Which message of an hour is missing, or one too many, if it is one: the sums of the keys tell it.
    fn of_hour(&self, taken: Sums, at: i64) -> sql::Result<Vec<Named>> {
        let which = "FROM journal WHERE route = ?1 AND part = 0 AND taken_at >= ?2 AND taken_at < ?3";
        let end = at + HOUR;
        let within = params![self.route, at, end];
        let mut found = Sums::default();
        self.tx.all(&format!("SELECT key {which}"), within, |row| {
            found.add(&row.get(0)?);
            Ok(())
        })?;
        if let Some(key) = taken.less(found).key() {
            return Ok(vec![Named { key, id: None, source: None, taken_at: None }]);
        }
        let Some(surplus) = found.less(taken).key() else { return Ok(Vec::new()) };
        let mut named_so = Vec::new();
        self.tx.all(&format!("SELECT key, id, source, taken_at {which}"), within, |row| {
            if key_of(row, 0)?.starts_with(&surplus) {
                named_so.push(named(row)?);
            }
            Ok(())
        })?;
        Ok(named_so)
    }

    /// Where messages wait, and what waits nowhere.
    fn waits(&self, collects: bool, line: &mut RouteAccount) -> sql::Result<()> {
        let Ground { route, from, now, .. } = self;
        let of_journal = format!("j.route = {route} AND j.part = 0 AND j.taken_at >= {from} AND j.state");
        // Where few stand, it is looked from there into the journal, and not the other way round: hence the order and the signs.
        let from_here = |place: &str| {
            format!(
                "{place} p CROSS JOIN journal j WHERE p.route = {route} AND j.route = p.route AND j.key = p.key
                   AND j.part = 0 AND +j.taken_at >= {from} AND +j.state = 2"
            )
        };
        let parked = from_here("parked");
        let is_held = "EXISTS (SELECT 1 FROM held h WHERE h.route = p.route AND h.subject = p.subject)";
        let lot = self.stands(At::Lot, "p.due_at", &format!("{parked} AND NOT {is_held}"))?;
        let held = self.stands(At::Held, "p.due_at", &format!("{parked} AND {is_held}"))?;
        line.parked = lot.messages + held.messages;
        wait(line, lot);
        wait(line, held);
        let elsewhere = format!(
            "journal j WHERE {of_journal} = 2 AND NOT EXISTS (SELECT 1 FROM parked p WHERE p.route = j.route AND p.key = j.key)"
        );
        if collects {
            let spool = self.stands(At::Spool, "p.due_at", &from_here("spool"))?;
            wait(line, spool);
            if self.stands(At::Spool, "j.due_at", &elsewhere)?.messages != spool.messages {
                let lost =
                    format!("{elsewhere} AND j.key NOT IN (SELECT key FROM spool WHERE route = {route})");
                self.astray(line, Wrong::NotInSpool, &lost)?;
            }
        } else {
            wait(line, self.stands(At::Retry, "j.due_at", &format!("{elsewhere} AND j.due_at > {now}"))?);
            let back = format!("{elsewhere} AND (j.due_at IS NULL OR j.due_at <= {now})");
            wait(line, Waits { next: None, last: None, ..self.stands(At::Queue, "j.due_at", &back)? });
        }
        if self.batches(line)? != line.batched {
            let lost = format!(
                "journal j WHERE {of_journal} = 9 AND j.key NOT IN (SELECT key FROM batch_item WHERE route = {route})"
            );
            self.astray(line, Wrong::NotInBatch, &lost)?;
        }
        for place in ["spool", "parked", "batch_item"] {
            let rowless = format!(
                "(SELECT s.key, CAST(NULL AS TEXT) AS id, CAST(NULL AS TEXT) AS source, CAST(NULL AS BIGINT) AS taken_at
                  FROM {place} s WHERE s.route = {route} AND NOT EXISTS
                    (SELECT 1 FROM journal n WHERE n.route = s.route AND n.key = s.key AND n.part = 0)) j"
            );
            self.astray(line, Wrong::NotInJournal, &rowless)?;
        }
        Ok(())
    }

    fn stands(&self, at: At, due: &str, which: &str) -> sql::Result<Waits> {
        let sql = format!("SELECT count(*), min({due}), max({due}) FROM {which}");
        let found = self.tx.one(&sql, params![], |row| {
            Ok(Waits { at, messages: row.get(0)?, next: row.get(1)?, last: row.get(2)? })
        })?;
        Ok(found.unwrap_or(Waits { at, messages: 0, next: None, last: None }))
    }

    /// The batches in which messages wait; how many these are in all.
    fn batches(&self, line: &mut RouteAccount) -> sql::Result<i64> {
        let batches = self.tx.all(
            "SELECT b.n, b.cut_off, count(DISTINCT i.key) FROM batch_item i JOIN batch b ON b.n = i.batch
             CROSS JOIN journal j WHERE j.route = i.route AND j.key = i.key AND j.part = 0
               AND i.route = ?1 AND +j.taken_at >= ?2 AND j.state = 9 GROUP BY b.n, b.cut_off ORDER BY b.n",
            params![self.route, self.from],
            |row| {
                let cut_off = row.get(1)?;
                Ok(Waits { at: At::Batch(row.get(0)?), messages: row.get(2)?, next: cut_off, last: cut_off })
            },
        )?;
        let found = batches.iter().map(|waits| waits.messages).sum();
        batches.into_iter().for_each(|waits| wait(line, waits));
        Ok(found)
    }

    /// Names what does not agree, if anything does.
    fn astray(&self, line: &mut RouteAccount, what: Wrong, which: &str) -> sql::Result<()> {
        let count = format!("SELECT count(*) FROM {which}");
        let messages: i64 = self.tx.value(&count, params![])?;
        if messages > 0 {
            let some = format!("SELECT j.key, j.id, j.source, j.taken_at FROM {which} LIMIT {NAMED}");
            let named = self.tx.all(&some, params![], named)?;
            line.astray.push(Astray { what, messages, named });
        }
        Ok(())
    }

    fn discarded(&self, discards: &Discards) -> sql::Result<Vec<DiscardedBy>> {
        let mut by: Vec<DiscardedBy> = Vec::new();
        let discarded =
            "SELECT key FROM journal WHERE +route = ?1 AND state = 6 AND part = 0 AND taken_at >= ?2";
        self.tx.all(discarded, params![self.route, self.from], |row| {
            let act = discards.get(&key_of(row, 0)?);
            let who = act.map(|(who, ..)| who.clone());
            let index = by.iter().position(|by| by.who == who).unwrap_or_else(|| {
                by.push(DiscardedBy { who, messages: 0, reason: String::new(), last: None });
                by.len() - 1
            });
            let Some(entry) = by.get_mut(index) else { return Ok(()) };
            entry.messages += 1;
            if let Some((_, reason, at)) = act
                && entry.last.is_none_or(|last| last <= *at)
            {
                (entry.last, entry.reason) = (Some(*at), reason.clone());
            }
            Ok(())
        })?;
        by.sort_by(|a, b| (b.messages, &a.who).cmp(&(a.messages, &b.who)));
        Ok(by)
    }

    fn files(&self) -> sql::Result<FileAccount> {
        let mut files = FileAccount::default();
        self.tx.all(
            "SELECT state, count(*), CAST(sum(records) AS BIGINT), CAST(sum(duplicates) AS BIGINT) FROM file
             WHERE route = ?1 AND taken_at >= ?2 GROUP BY state",
            params![self.route, self.from],
            |row| {
                let number: i64 = row.get(1)?;
                files.taken += number;
                files.records += row.get::<i64>(2)?;
                files.duplicate += row.get::<i64>(3)?;
                match FileState::of(row.get(0)?) {
                    FileState::Done => files.read += number,
                    FileState::Taken | FileState::Reading | FileState::Accepted => files.under_way += number,
                    FileState::Refused => files.refused += number,
                    FileState::Held => files.held += number,
                }
                Ok(())
            },
        )?;
        Ok(files)
    }
}
