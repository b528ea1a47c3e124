//! The journal: one row per message and route, and the claims that keep a message from being sent twice.

use super::{
    Joining, Parking, RouteNumber, Store, StoreError,
    intake::Intakes,
    items::NewItem,
    left::cut,
    parked::{hold, is_empty, let_go},
    sql::{self, Tx, params},
};
use crate::{code::Code, event::Key, order::Subject};

/// How a message stands on a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Under way.
    Claimed,
    /// Waiting for its next attempt.
    Waiting,
    /// Done by the system; its reply is not yet published.
    Answered,
    /// Done.
    Delivered,
    /// Given up, in the dead-letter queue.
    Dead,
    /// Discarded by a person.
    Discarded,
    /// The event it asks for was published before.
    Duplicate,
    /// It asks for no event.
    Nothing,
    /// It has joined a batch that is not yet sent.
    Batched,
}

impl State {
    /// All of them.
    pub const ALL: [State; 9] = [
        State::Claimed,
        State::Waiting,
        State::Answered,
        State::Delivered,
        State::Dead,
        State::Discarded,
        State::Duplicate,
        State::Nothing,
        State::Batched,
    ];

    pub(super) fn number(self) -> i64 {
        match self {
            State::Claimed => 1,
            State::Waiting => 2,
            State::Answered => 3,
            State::Delivered => 4,
            State::Dead => 5,
            State::Discarded => 6,
            State::Duplicate => 7,
            State::Nothing => 8,
            State::Batched => 9,
        }
    }

    /// Whether nothing more is done with it, by itself or by a person.
    pub fn is_end(self) -> bool {
        match self {
            State::Delivered | State::Discarded | State::Duplicate | State::Nothing => true,
            State::Claimed | State::Waiting | State::Answered | State::Dead | State::Batched => false,
        }
    }

    pub(super) fn of(number: i64) -> Option<State> {
        State::ALL.into_iter().find(|state| state.number() == number)
    }
}

/// A message, or a part of one, about to be handled.
#[derive(Debug, Clone)]
pub struct Claim {
    /// What makes it the same as another.
    pub key: Key,
    /// 0 for the message itself, from 1 for its parts.
    pub part: u32,
    /// Its source and id, for people.
    pub source: String,
    /// Its id, for people.
    pub id: String,
    /// The number of the attempt that its copy is for, from 1.
    pub attempt: u32,
    /// How often people have replayed it.
    pub replay: u32,
    /// Whether a person has said, with this replay, that the request in doubt was not carried out.
    pub settled: bool,
}

/// What a system answered, as far as a reply is made of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The content type.
    pub content_type: Option<String>,
    /// The body.
    pub body: Vec<u8>,
}

/// What the journal says to a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// It is ours to handle.
    Go(Went),
    /// It has been done or discarded before: a duplicate.
    Done,
    /// It was given up before and lies in the dead-letter queue: a duplicate.
    Buried(GivenUp),
    /// A newer copy of it is under way or waits.
    Stale,
    /// Another copy is being handled at this moment.
    Busy,
    /// The system has done it; what is left is to publish the reply made of its answer.
    Reply { answer: Answer, kept: Option<String> },
}

/// Why something was given up before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenUp {
    /// The code, if this program knows it.
    pub code: Option<Code>,
    /// Whether a request may have been carried out.
    pub doubt: bool,
    /// The reason of a part; the reason of a whole message stands in its dead letter.
    pub why: Option<Why>,
}

/// The reason for which a part was given up, kept until the dead letter of the whole is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    /// The stage, as printed.
    pub stage: String,
    /// The field.
    pub field: String,
    /// What happened, without values of the message.
    pub what: String,
}

/// What went before.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Went {
    /// Whether an earlier request may have been carried out.
    pub doubt: bool,
    /// When the last request was sent.
    pub sent_at: Option<i64>,
    /// When the first attempt failed.
    pub failed_at: Option<i64>,
    /// What was read before the first attempt.
    pub kept: Option<String>,
    /// When this claim was committed, where one was.
    pub claimed_at: Option<i64>,
}

/// What became of a claim.
#[derive(Debug, Clone)]
pub enum Record {
    /// The system has done it; a reply is still to be published.
    Answered { answer: Answer, opens: Option<NewItem> },
    /// It is done.
    Delivered { opens: Option<NewItem> },
    /// It waits for its next attempt.
    Waiting { attempt: u32, due_at: i64, failed_at: i64, doubt: bool },
    /// It was not begun and has been given back.
    GivenBack,
    /// It was given up; on an ordered route it may hold the others of its subject.
    Dead { code: &'static str, doubt: bool, why: Option<Why>, holds: Option<Subject> },
    /// It was discarded by a person.
    Discarded,
    /// It joins a batch.
    Batched(Box<Joining>),
    /// It waits in the parking lot of its route.
    Parked(Box<Parking>),
}

impl Store {
    /// Claims messages of a route, all in one commit, in order.
    ///
    /// # Errors
    /// The store failed; nothing was claimed.
    pub async fn claim(
        &self,
        route: RouteNumber,
        now: i64,
        claims: Vec<Claim>,
    ) -> Result<Vec<Place>, StoreError> {
        let run = self.run();
        let left = self.inner.left.of(route, &claims);
        let again = left.clone();
        let places = self.write("claiming messages", move |tx| {
            cut(tx, route, run, &again)?;
            let mut counted = Intakes::default();
            let new = insert_claimed(tx, route, run, now, &claims)?;
            let places: sql::Result<Vec<Place>> = claims
                .iter()
                .zip(new)
                .map(|(claim, new)| match new {
                    true => {
                        counted.claimed(claim, now);
                        Ok(Place::Go(Went { claimed_at: Some(now), ..Went::default() }))
                    }
                    false => place(tx, route, run, now, claim, &mut counted).map(|place| match place {
                        Place::Go(went) => Place::Go(Went { claimed_at: Some(now), ..went }),
                        place => place,
                    }),
                })
                .collect();
            counted.write(tx, route)?;
            places
        });
        let places = places.await?;
        self.inner.left.forget(route, &left);
        Ok(places)
    }

    /// Looks how messages of a route stand, and claims nothing: for those that may be sent again without harm, whose one
    /// commit is [`Store::claim_and_record`].
    ///
    /// # Errors
    /// The store failed.
    pub async fn look(&self, route: RouteNumber, claims: Vec<Claim>) -> Result<Vec<Place>, StoreError> {
        let run = self.run();
        self.write("looking messages up", move |tx| {
            claims
                .iter()
                .map(|claim| {
                    let Some(row) = row_of(tx, route, claim)? else { return Ok(Place::Go(Went::default())) };
                    let lives = row.lives(tx, run)?;
                    Ok(row.place(claim, lives))
                })
                .collect()
        })
        .await
    }

    /// Claims messages that were only looked up, and records what became of them, all in one commit.
    ///
    /// # Errors
    /// The store failed; nothing was recorded.
    pub async fn claim_and_record(
        &self,
        route: RouteNumber,
        now: i64,
        mapping: Option<String>,
        records: Vec<(Claim, Record)>,
    ) -> Result<(), StoreError> {
        let run = self.run();
        self.write("recording outcomes", move |tx| {
            let mut counted = Intakes::default();
            let is_done = |(claim, record): &&(Claim, Record)| {
                claim.part == 0 && matches!(record, Record::Delivered { opens: None })
            };
            let (done, other): (Vec<_>, Vec<_>) = records.iter().partition(is_done);
            let new = insert_delivered(tx, route, run, now, mapping.as_deref(), &done)?;
            let mut known = Vec::new();
            for (record, new) in done.into_iter().zip(new) {
                match new {
                    true => counted.claimed(&record.0, now),
                    false => known.push(record),
                }
            }
            for (claim, record) in known.into_iter().chain(other) {
                let new = insert_claimed(tx, route, run, now, std::slice::from_ref(claim))?.contains(&true);
                if new {
                    counted.claimed(claim, now);
                }
                // Else somebody has settled it in the meantime.
                if new
                    || matches!(
                        place(tx, route, run, now, claim, &mut counted)?,
                        Place::Go(_) | Place::Reply { .. }
                    )
                {
                    write(tx, route, now, mapping.as_deref(), claim.key, claim.part, record)?;
                }
            }
            counted.write(tx, route)
        })
        .await
    }

    /// Keeps what was read before the first attempt, before anything is sent.
    ///
    /// # Errors
    /// The store failed.
    pub async fn keep(
        &self,
        route: RouteNumber,
        key: Key,
        part: u32,
        kept: String,
    ) -> Result<(), StoreError> {
        self.write("keeping what was read", move |tx| {
            tx.run(
                "UPDATE journal SET kept = ?4 WHERE route = ?1 AND key = ?2 AND part = ?3",
                params![route.0, key.0, part, kept],
            )?;
            Ok(())
        })
        .await
    }

    /// Notes that a request is about to be sent again, so that a probe knows how long ago; whether its message is ours still, and
    /// no other bridge has taken it over.
    ///
    /// # Errors
    /// The store failed.
    pub async fn sending(
        &self,
        route: RouteNumber,
        key: Key,
        part: u32,
        now: i64,
    ) -> Result<bool, StoreError> {
        let run = self.run();
        self.write("noting an attempt", move |tx| {
            let noted = tx.run(
                "UPDATE journal SET sent_at = ?4, doubt = 1 WHERE route = ?1 AND key = ?2 AND part = ?3 AND run = ?5",
                params![route.0, key.0, part, now, run],
            )?;
            Ok(noted == 1)
        })
        .await
    }

    /// Records what became of claims, all in one commit. `mapping` is the digest that handled them.
    ///
    /// # Errors
    /// The store failed; nothing was recorded.
    pub async fn record(
        &self,
        route: RouteNumber,
        now: i64,
        mapping: Option<String>,
        records: Vec<(Key, u32, Record)>,
    ) -> Result<(), StoreError> {
        let run = self.run();
        let claims: Vec<(Key, u32)> = records.iter().map(|(key, part, _)| (*key, *part)).collect();
        let recorded = self.write("recording outcomes", move |tx| {
            let is_done =
                |(_, _, record): &&(Key, u32, Record)| matches!(record, Record::Delivered { opens: None });
            let (done, other): (Vec<_>, Vec<_>) = records.iter().partition(is_done);
            let done: Vec<(Key, u32)> = done.into_iter().map(|(key, part, _)| (*key, *part)).collect();
            delivered(tx, route, now, mapping.as_deref(), &done)?;
            other.into_iter().try_for_each(|(key, part, record)| {
                match tx.is_shared() && was_taken_over(tx, route, run, *key, *part, record)? {
                    true => Ok(()),
                    false => write(tx, route, now, mapping.as_deref(), *key, *part, record),
                }
            })
        });
        recorded.await.inspect_err(|_| self.inner.left.add(route, claims.into_iter()))
    }

    /// How a message stands, and its doubt, for a person's command.
    ///
    /// # Errors
    /// The store failed.
    pub async fn state(&self, route: RouteNumber, key: Key) -> Result<Option<(State, bool)>, StoreError> {
        self.write("looking up a message", move |tx| {
            let found: Option<(i64, bool)> = tx.one(
                "SELECT state, doubt FROM journal WHERE route = ?1 AND key = ?2 AND part = 0",
                params![route.0, key.0],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )?;
            Ok(found.and_then(|(state, doubt)| Some((State::of(state)?, doubt))))
        })
        .await
    }

    /// How often people have replayed a message.
    ///
    /// # Errors
    /// The store failed.
    pub async fn replays(&self, route: RouteNumber, key: Key) -> Result<u32, StoreError> {
        self.write("looking up a message", move |tx| {
            let found = tx.find(
                "SELECT replay FROM journal WHERE route = ?1 AND key = ?2 AND part = 0",
                params![route.0, key.0],
            )?;
            Ok(found.unwrap_or(0))
        })
        .await
    }
}

struct Row {
    state: Option<State>,
    attempt: u32,
    replay: u32,
    run: i64,
    went: Went,
    answer: Option<Vec<u8>>,
    code: Option<String>,
    why: Option<String>,
    taken_at: i64,
}

impl Row {
    /// Whether the run that has it lives: ours, or that of another bridge.
    fn lives(&self, tx: &Tx<'_>, run: i64) -> sql::Result<bool> {
        match self.state {
            Some(State::Claimed) if self.run == run => Ok(run != 0),
            Some(State::Claimed) => tx.lives(self.run),
            Some(_) | None => Ok(false),
        }
    }

    /// What the journal says to a claim of a message that it knows.
    fn place(mut self, claim: &Claim, lives: bool) -> Place {
        let replayed = claim.replay > self.replay;
        // A person's replay begins anew; what that person has said counts for this claim only, not for what happens later.
        if replayed {
            self.went.failed_at = None;
            self.went.doubt &= !claim.settled;
        }
        match self.state {
            Some(State::Claimed) if lives => Place::Busy,
            // A run was cut here: whether its request went out, nobody knows.
            Some(State::Claimed) => Place::Go(Went { doubt: true, ..self.went }),
            // Whoever has the message has its parts: one that waits is never done, whichever copy of the message has come.
            Some(State::Waiting) if replayed || claim.part > 0 || claim.attempt >= self.attempt => {
                Place::Go(self.went)
            }
            Some(State::Waiting) => Place::Stale,
            Some(State::Answered) => reply(self),
            Some(State::Dead) if replayed => match self.answer {
                Some(_) => reply(self),
                None => Place::Go(self.went),
            },
            Some(State::Dead) => Place::Buried(GivenUp {
                code: self.code.as_deref().and_then(Code::parse),
                doubt: self.went.doubt,
                why: self.why.as_deref().and_then(Why::of_column),
            }),
            // What has joined a batch is in our custody: its batch sends it, whatever happens.
            Some(
                State::Delivered | State::Discarded | State::Duplicate | State::Nothing | State::Batched,
            )
            | None => Place::Done,
        }
    }
}

fn row_of(tx: &Tx<'_>, route: RouteNumber, claim: &Claim) -> sql::Result<Option<Row>> {
    tx.one(
        "SELECT state, attempt, replay, run, doubt, sent_at, failed_at, kept, answer, code, why, taken_at
         FROM journal WHERE route = ?1 AND key = ?2 AND part = ?3",
        params![route.0, claim.key.0, claim.part],
        |row| {
            Ok(Row {
                state: State::of(row.get(0)?),
                attempt: row.get(1)?,
                replay: row.get(2)?,
                run: row.get(3)?,
                went: Went {
                    doubt: row.get(4)?,
                    sent_at: row.get(5)?,
                    failed_at: row.get(6)?,
                    kept: row.get(7)?,
                    claimed_at: None,
                },
                answer: row.get(8)?,
                code: row.get(9)?,
                why: row.get(10)?,
                taken_at: row.get(11)?,
            })
        },
    )
}

/// Writes the rows of messages that are new and already delivered; which were new.
fn insert_delivered(
    tx: &Tx<'_>,
    route: RouteNumber,
    run: i64,
    now: i64,
    mapping: Option<&str>,
    done: &[&(Claim, Record)],
) -> sql::Result<Vec<bool>> {
    let rows: Vec<_> = done
        .iter()
        .map(|(claim, _)| {
            *params![
                route.0,
                claim.key.0,
                claim.attempt,
                claim.replay,
                run,
                claim.source,
                claim.id,
                now,
                mapping
            ]
        })
        .collect();
    let inserted = tx.each(
        "INSERT INTO journal (route, key, part, state, attempt, replay, doubt, run, source, id, taken_at, sent_at,
           done_at, mapping)
         VALUES (?1, ?2, 0, 4, ?3, ?4, 0, ?5, ?6, ?7, ?8, ?8, ?8, ?9) ON CONFLICT DO NOTHING",
        &rows,
    )?;
    Ok(inserted.into_iter().map(|inserted| inserted == 1).collect())
}

/// Writes the rows of messages that are new and claimed; which were new.
fn insert_claimed(
    tx: &Tx<'_>,
    route: RouteNumber,
    run: i64,
    now: i64,
    claims: &[Claim],
) -> sql::Result<Vec<bool>> {
    let rows: Vec<_> = claims
        .iter()
        .map(|claim| {
            *params![
                route.0,
                claim.key.0,
                claim.part,
                claim.attempt,
                claim.replay,
                run,
                claim.source,
                claim.id,
                now
            ]
        })
        .collect();
    let inserted = tx.each(
        "INSERT INTO journal (route, key, part, state, attempt, replay, doubt, run, source, id, taken_at, sent_at)
         VALUES (?1, ?2, ?3, 1, ?4, ?5, 0, ?6, ?7, ?8, ?9, ?9) ON CONFLICT DO NOTHING",
        &rows,
    )?;
    Ok(inserted.into_iter().map(|inserted| inserted == 1).collect())
}

/// What the journal says to a claim of a message that is not new.
fn place(
    tx: &Tx<'_>,
    route: RouteNumber,
    run: i64,
    now: i64,
    claim: &Claim,
    counted: &mut Intakes,
) -> sql::Result<Place> {
    let Some(row) = row_of(tx, route, claim)? else { return Ok(Place::Done) };
    let taken_at = row.taken_at;
    let lives = row.lives(tx, run)?;
    let place = row.place(claim, lives);
    match &place {
        Place::Go(went) => {
            tx.run(
                "UPDATE journal SET state = 1, attempt = ?4, run = ?6, doubt = ?7, due_at = NULL,
                   replay = CASE WHEN replay > ?5 THEN replay ELSE ?5 END,
                   sent_at = CASE WHEN ?7 = 1 THEN sent_at ELSE ?8 END, failed_at = ?9
                 WHERE route = ?1 AND key = ?2 AND part = ?3",
                params![
                    route.0,
                    claim.key.0,
                    claim.part,
                    claim.attempt,
                    claim.replay,
                    run,
                    went.doubt,
                    now,
                    went.failed_at
                ],
            )?;
        }
        Place::Reply { .. } => {
            tx.run(
                "UPDATE journal SET state = 3, run = ?5, replay = CASE WHEN replay > ?4 THEN replay ELSE ?4 END
                 WHERE route = ?1 AND key = ?2 AND part = ?3",
                params![route.0, claim.key.0, claim.part, claim.replay, run],
            )?;
        }
        Place::Done | Place::Buried(_) | Place::Stale if claim.part == 0 => {
            counted.again(taken_at);
            tx.run(
                "UPDATE journal SET duplicates = duplicates + 1 WHERE route = ?1 AND key = ?2 AND part = 0",
                params![route.0, claim.key.0],
            )?;
        }
        Place::Done | Place::Buried(_) | Place::Stale | Place::Busy => {}
    }
    Ok(place)
}

/// Whether another bridge has claimed it since, because it took ours for dead: what has become of it, that one says. Only what
/// the system has done stays true whoever says it.
fn was_taken_over(
    tx: &Tx<'_>,
    route: RouteNumber,
    run: i64,
    key: Key,
    part: u32,
    record: &Record,
) -> sql::Result<bool> {
    match record {
        Record::Answered { .. } | Record::Delivered { .. } | Record::Discarded => Ok(false),
        Record::Waiting { .. }
        | Record::GivenBack
        | Record::Dead { .. }
        | Record::Batched(_)
        | Record::Parked(_) => tx.exists(
            "SELECT 1 FROM journal WHERE route = ?1 AND key = ?2 AND part = ?3 AND run <> ?4",
            params![route.0, key.0, part, run],
        ),
    }
}

fn reply(row: Row) -> Place {
    let bytes = row.answer.unwrap_or_default();
    let text = |part: &[u8]| String::from_utf8_lossy(part).into_owned();
    let mut parts = bytes.splitn(2, |b| *b == 0);
    let content_type = parts.next().map(text).filter(|text| !text.is_empty());
    let answer = Answer { content_type, body: parts.next().unwrap_or_default().to_vec() };
    Place::Reply { answer, kept: row.went.kept }
}

impl Why {
    /// As one column, a line each; the last may have several.
    fn to_column(&self) -> String {
        format!("{}\n{}\n{}", self.stage, self.field.replace('\n', " "), self.what)
    }

    fn of_column(text: &str) -> Option<Why> {
        let mut lines = text.splitn(3, '\n').map(str::to_owned);
        Some(Why { stage: lines.next()?, field: lines.next()?, what: lines.next()? })
    }
}

impl Answer {
    /// As one column: the content type, NUL, the body.
    fn to_column(&self) -> Vec<u8> {
        let mut column = self.content_type.clone().unwrap_or_default().into_bytes();
        column.push(0);
        column.extend_from_slice(&self.body);
        column
    }
}

fn write(
    tx: &Tx<'_>,
    route: RouteNumber,
    now: i64,
    mapping: Option<&str>,
    key: Key,
    part: u32,
    record: &Record,
) -> sql::Result<()> {
    let key = key.0;
    match record {
        Record::Answered { answer, opens } => {
            tx.run(
                "UPDATE journal SET state = 3, answer = ?4, doubt = 0, mapping = ?5 WHERE route = ?1 AND key = ?2 AND part = ?3",
                params![route.0, key, part, answer.to_column(), mapping],
            )?;
            if let Some(item) = opens {
                item.open(tx, now)?;
            }
        }
        Record::Delivered { opens } => {
            delivered(tx, route, now, mapping, &[(Key(key), part)])?;
            if let Some(item) = opens {
                item.open(tx, now)?;
            }
        }
        Record::Waiting { attempt, due_at, failed_at, doubt } => {
            tx.run(
                "UPDATE journal SET state = 2, attempt = ?4, due_at = ?5, failed_at = coalesce(failed_at, ?6),
                   doubt = ?7, mapping = ?8
                 WHERE route = ?1 AND key = ?2 AND part = ?3",
                params![route.0, key, part, attempt, due_at, failed_at, doubt, mapping],
            )?;
        }
        Record::GivenBack => {
            tx.run(
                "UPDATE journal SET state = 2, due_at = ?4 WHERE route = ?1 AND key = ?2 AND part = ?3 AND state = 1",
                params![route.0, key, part, now],
            )?;
        }
        Record::Parked(parking) => {
            tx.run(
                "UPDATE journal SET state = 2, attempt = ?4, due_at = ?5, failed_at = coalesce(failed_at, ?6),
                   doubt = coalesce(?7, doubt), mapping = ?8
                 WHERE route = ?1 AND key = ?2 AND part = ?3",
                params![route.0, key, part, parking.attempt, parking.due_at, parking.failed_at, parking.doubt, mapping],
            )?;
            parking.write(tx, route, now, &key)?;
        }
        Record::Dead { code, doubt, why, holds } => {
            tx.run(
                "UPDATE journal SET state = 5, code = ?4, doubt = ?5, done_at = ?6, due_at = NULL, mapping = ?7, why = ?8
                 WHERE route = ?1 AND key = ?2 AND part = ?3",
                params![route.0, key, part, code, doubt, now, mapping, why.as_ref().map(Why::to_column)],
            )?;
            match holds {
                Some(subject) => hold(tx, route, &key, subject, code, now)?,
                None => out_of_the_way(tx, route, part, &key, now)?,
            }
        }
        Record::Batched(joining) => {
            tx.run(
                "UPDATE journal SET state = 9, doubt = 0, due_at = NULL, mapping = ?4 WHERE route = ?1 AND key = ?2 AND part = ?3",
                params![route.0, key, part, mapping],
            )?;
            joining.join(tx, now, route, &key)?;
            out_of_the_way(tx, route, part, &key, now)?;
        }
        Record::Discarded => {
            // Only what is given up: the letter may be left from a replay that was cut, and its message done meanwhile.
            let discarded = tx.run(
                "UPDATE journal SET state = 6, done_at = ?4, answer = NULL
                 WHERE route = ?1 AND key = ?2 AND part = ?3 AND state = 5",
                params![route.0, key, part, now],
            )?;
            if discarded > 0 {
                out_of_the_way(tx, route, part, &key, now)?;
            }
        }
    }
    Ok(())
}

/// These messages, or parts, were delivered.
fn delivered(
    tx: &Tx<'_>,
    route: RouteNumber,
    now: i64,
    mapping: Option<&str>,
    done: &[(Key, u32)],
) -> sql::Result<()> {
    let rows: Vec<_> = done.iter().map(|done| *params![route.0, done.0.0, done.1, now, mapping]).collect();
    tx.each(
        "UPDATE journal SET state = 4, doubt = 0, answer = NULL, kept = NULL, done_at = ?4, due_at = NULL, mapping = ?5
         WHERE route = ?1 AND key = ?2 AND part = ?3",
        &rows,
    )?;
    match done.is_empty() || is_empty(tx, route)? {
        true => Ok(()),
        false => done.iter().try_for_each(|(key, part)| out_of_the_way(tx, route, *part, &key.0, now)),
    }
}

/// A message has come to an end: on an ordered route those behind it go on.
fn out_of_the_way(tx: &Tx<'_>, route: RouteNumber, part: u32, key: &[u8; 32], now: i64) -> sql::Result<()> {
    match part {
        0 => let_go(tx, route, key, now),
        _ => Ok(()),
    }
}
