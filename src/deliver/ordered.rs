//! An ordered route: messages of one subject are sent one after the other, whatever becomes of each; those of other
//! subjects go on beside them.
//!
//! A window is carried in waves of which each holds at most one message of a subject, and each wave is closed (published,
//! recorded) before the next begins. What cannot be sent yet is parked: committed to the store, then acknowledged. A
//! message that can be brought to no end is left with the broker together with all that came after it of its subject: the
//! lane is left, and everything comes again in the order of the queue.

use super::{Deliverer, Letter, Outcome, claims::claim, millis, now};
use crate::{
    broker::{Delivery, Message, Properties, Published, Settle},
    code::Code,
    config::plan::{Action, Ordered},
    event::{Event, Key},
    letter,
    order::{Admit, Ended, Sequence, Subject},
    retry::Delays,
    store::{Claim, Due, Kept, Parking, Record, StoreError},
};
use jiff::Timestamp;
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};
use tracing::{error, warn};

/// Messages of the lot that are given back in one go.
const GIVEN_BACK: u32 = 256;
/// For how long a strand takes a rest when the store fails.
const REST: Duration = Duration::from_secs(1);
/// How long something waits that could be brought to no end.
const PUT_OFF: Duration = Duration::from_secs(5);

impl Deliverer {
    /// Gives what waits in the lot of a route that keeps no order any more back to its queue: there nobody would look.
    pub(super) async fn empty_lot(self: Arc<Self>) {
        let mut delays = Delays::new(Duration::from_secs(1), Duration::from_secs(30));
        while !self.stop.is_cancelled() {
            match self.some_of_lot_given_back().await {
                Ok(0) => return,
                Ok(count) => {
                    warn!(
                        route = self.route.id,
                        messages = count,
                        "the route keeps no order any more: what waited for it is given back to its queue"
                    );
                    continue;
                }
                Err(error) => {
                    error!(route = self.route.id, code = %error.code, "the parking lot cannot be emptied: {}", error.what);
                }
            }
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(delays.delay()) => {}
            }
        }
    }

    async fn some_of_lot_given_back(&self) -> Result<usize, StoreError> {
        let parked = self.store.parked_first(self.number, GIVEN_BACK).await?;
        let message = |due: &Due| Message {
            exchange: self.names.back(),
            routing_key: self.route.queue.clone(),
            properties: letter::with_origin(
                Properties::of_text(&due.kept.properties).unwrap_or_default(),
                (&due.kept.exchange, &due.kept.routing_key),
            ),
            body: due.kept.body.clone(),
        };
        let messages: Vec<Message> = parked.iter().map(message).collect();
        let results = self.publish(&messages).await.unwrap_or_default();
        let confirmed = parked.iter().zip(&results).filter(|(_, result)| **result == Published::Confirmed);
        let keys: Vec<Key> = confirmed.map(|(due, _)| due.key).collect();
        let count = keys.len();
        if count == 0 && !parked.is_empty() {
            let what = "the broker does not take what is in it".to_owned();
            return Err(StoreError { code: Code::PublishRefused, what });
        }
        crate::kill::point("order.emptied");
        self.store.past(self.number, keys, now()).await?;
        Ok(count)
    }

    /// How many messages a strand claims at once that sends so many at once: where a repeat does harm, no more than these.
    fn wave(&self, at_once: usize) -> usize {
        match self.route.plan.action {
            Action::Publish(_) | Action::Batch(_) => usize::MAX,
            Action::Request(_) | Action::Statement(_) | Action::Write(_) => at_once,
        }
    }

    /// Tries what is due in the lot: of each subject its first. Whether all of it could be noted.
    pub(super) async fn try_due(&self, due: Vec<Due>, at_once: usize) -> bool {
        let letters: Vec<Letter> = due
            .into_iter()
            .map(|due| {
                let Kept { exchange, routing_key, properties, body } = due.kept;
                let properties = Properties::of_text(&properties).unwrap_or_default();
                let letter = self.read(Delivery::kept(properties, body, exchange, routing_key));
                Letter { key: due.key, ..letter }
            })
            .collect();
        let all: Vec<usize> = (0..letters.len()).collect();
        for wave in all.chunks(self.wave(at_once).min(all.len().max(1))) {
            if self.stop.is_cancelled() {
                return true;
            }
            let outcomes = self.bring(&letters, wave, at_once).await;
            let (mut put_off, mut past) = (Vec::new(), Vec::new());
            for (outcome, settle) in self.close(&letters, outcomes).await {
                let Some(letter) = letters.get(outcome.at) else { continue };
                match (settle, &outcome.record) {
                    (Settle::GiveBack | Settle::Reject, _) => put_off.push(letter.key),
                    // Somebody else has brought it to its end.
                    (Settle::Ack, None) => past.push(letter.key),
                    (Settle::Ack, Some(_)) => {}
                }
            }
            if let Err(error) = self.tidy_lot(put_off, past).await {
                error!(route = self.route.id, code = %error.code, "the parking lot cannot be written: {}", error.what);
                return false;
            }
            crate::kill::point("order.tried");
        }
        true
    }

    async fn tidy_lot(&self, put_off: Vec<Key>, past: Vec<Key>) -> Result<(), StoreError> {
        if !put_off.is_empty() {
            self.store.put_off(self.number, put_off, now() + millis(PUT_OFF)).await?;
        }
        if !past.is_empty() {
            self.store.past(self.number, past, now()).await?;
        }
        Ok(())
    }

    /// Carries a window to its end, wave by wave, so many messages at once; `in_lot` says of which subjects anything may be in the
    /// lot, if that is known. What is not acknowledged must come again in its order. And which of these subjects are in the lot now.
    pub(super) async fn carry_in_order(
        &self,
        ordered: Ordered,
        letters: Vec<Letter>,
        at_once: usize,
        in_lot: Option<&BTreeSet<[u8; 32]>>,
    ) -> (Vec<(Delivery, Settle)>, Vec<[u8; 32]>) {
        let mut settles = vec![Settle::GiveBack; letters.len()];
        let mut waits = Vec::new();
        match self.look_at_lot(&letters, in_lot).await {
            Ok(lot) => {
                let mut window = Window {
                    letters: &letters,
                    ordered,
                    at_once,
                    lot,
                    stuck: HashSet::new(),
                    settles: &mut settles,
                };
                let mut left: Vec<usize> = (0..letters.len()).collect();
                while !left.is_empty() && !self.stop.is_cancelled() {
                    left = self.round(&mut window, left).await;
                }
                let stands = window.lot.sequences.iter().filter(|(_, sequence)| !sequence.is_free());
                waits = stands.map(|(digest, _)| *digest).collect();
            }
            Err(error) => {
                error!(route = self.route.id, code = %error.code, "the parking lot cannot be read, messages are left with the broker: {}", error.what);
                tokio::time::sleep(REST).await;
            }
        }
        let settled = letters.into_iter().zip(settles).map(|(letter, settle)| (letter.delivery, settle));
        (settled.collect(), waits)
    }

    async fn look_at_lot(
        &self,
        letters: &[Letter],
        in_lot: Option<&BTreeSet<[u8; 32]>>,
    ) -> Result<WindowLot, StoreError> {
        let mut lot = WindowLot { sequences: HashMap::new(), parked: HashSet::new(), bytes: None };
        let may_wait = |subject: &&Subject| in_lot.is_none_or(|in_lot| in_lot.contains(&subject.digest));
        let about: Vec<(&Subject, Key)> = letters
            .iter()
            .filter_map(|letter| Some((letter.subject.as_ref().filter(may_wait)?, letter.key)))
            .collect();
        if about.is_empty() {
            return Ok(lot);
        }
        let asked = about.iter().map(|(subject, key)| (subject.digest, *key)).collect();
        let (stands, bytes) = self.store.stands(self.number, asked).await?;
        lot.bytes = Some(bytes);
        for ((subject, key), stands) in about.into_iter().zip(stands) {
            if stands.is_parked {
                lot.parked.insert(key);
            }
            lot.sequences.insert(subject.digest, stands.sequence);
        }
        Ok(lot)
    }

    /// How many bytes are held, which matters as soon as something is to be parked. Nothing: it cannot be seen, and all is left with
    /// the broker.
    async fn held_bytes(&self, lot: &mut WindowLot) -> Option<u64> {
        if lot.bytes.is_none() && lot.sequences.values().any(|sequence| !sequence.is_free()) {
            match self.store.stands(self.number, Vec::new()).await {
                Ok((_, bytes)) => lot.bytes = Some(bytes),
                Err(error) => {
                    error!(route = self.route.id, code = %error.code, "the parking lot cannot be read, messages are left with the broker: {}", error.what);
                    return None;
                }
            }
        }
        Some(lot.bytes.unwrap_or(0))
    }

    /// Sends at most one message of each subject, parks what must wait; what is left for the next round.
    async fn round(&self, window: &mut Window<'_>, left: Vec<usize>) -> Vec<usize> {
        let (mut wave, mut parks, mut known, mut later) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut seen: HashSet<[u8; 32]> = HashSet::new();
        let Some(mut held) = self.held_bytes(&mut window.lot).await else { return Vec::new() };
        for at in left {
            let Some(letter) = window.letters.get(at) else { continue };
            let Some(subject) = letter.subject.as_ref().filter(|_| self.is_mine(letter)) else {
                wave.push(at);
                continue;
            };
            if window.stuck.contains(&subject.digest) {
                continue;
            }
            if seen.contains(&subject.digest) || wave.len() >= self.wave(window.at_once) {
                seen.insert(subject.digest);
                later.push(at);
                continue;
            }
            let sequence = window.lot.sequences.entry(subject.digest).or_default();
            match sequence.admit(letter.key, window.lot.parked.contains(&letter.key)) {
                Admit::Known => known.push(at),
                Admit::Send | Admit::SendFirst => {
                    seen.insert(subject.digest);
                    wave.push(at);
                }
                Admit::Park => {
                    let bytes = held + letter.delivery.body.len() as u64;
                    if sequence.parked >= window.ordered.most || bytes > window.ordered.most_bytes {
                        error!(route = self.route.id, subject = subject.short(), code = %Code::HeldFull,
                               "the route takes no more from its queue: {} messages of this subject and {} bytes in all are held",
                               sequence.parked, held);
                        window.stuck.insert(subject.digest);
                        continue;
                    }
                    held = bytes;
                    sequence.park();
                    parks.push(at);
                }
            }
        }
        window.lot.bytes = window.lot.bytes.map(|_| held);
        self.park(window, parks, known).await;
        let outcomes = self.bring(window.letters, &wave, window.at_once).await;
        for (outcome, settle) in self.close(window.letters, outcomes).await {
            window.ended(&outcome, settle);
        }
        later
    }

    /// Parks messages behind others of their subject, and notes copies of those that are parked.
    async fn park(&self, window: &mut Window<'_>, parks: Vec<usize>, known: Vec<usize>) {
        let records: Vec<(Claim, Record)> = parks
            .iter()
            .filter_map(|at| window.letters.get(*at))
            .filter_map(|letter| {
                let parking = Parking {
                    subject: letter.subject.clone()?,
                    first: false,
                    attempt: letter.past.attempt,
                    due_at: None,
                    failed_at: None,
                    doubt: None,
                    kept: kept(letter, letter.delivery.properties.to_text()),
                };
                Some((claim(letter), Record::Parked(Box::new(parking))))
            })
            .collect();
        // An attempt that no message has: the journal counts a copy, and nothing else.
        let copies: Vec<Claim> = known
            .iter()
            .filter_map(|at| window.letters.get(*at))
            .map(|letter| Claim { attempt: 0, ..claim(letter) })
            .collect();
        let result = async {
            if !records.is_empty() {
                self.store.claim_and_record(self.number, now(), None, records).await?;
            }
            if !copies.is_empty() {
                self.store.claim(self.number, now(), copies).await?;
            }
            Ok::<(), StoreError>(())
        };
        match result.await {
            Ok(()) => {
                if !parks.is_empty() {
                    crate::kill::point("order.parked");
                }
                self.metrics.count(&self.route.id, "held", parks.len() as u64);
                for at in parks.into_iter().chain(known) {
                    if let Some(settle) = window.settles.get_mut(at) {
                        *settle = Settle::Ack;
                    }
                }
            }
            Err(error) => {
                error!(route = self.route.id, code = %error.code, "messages cannot be parked and are left with the broker: {}", error.what);
                let stuck =
                    parks.iter().filter_map(|at| Some(window.letters.get(*at)?.subject.as_ref()?.digest));
                window.stuck.extend(stuck);
            }
        }
    }

    /// What an event is about.
    pub(super) fn subject(&self, event: &Event) -> Option<Subject> {
        let named = self.route.plan.event.subject_of(&event.data);
        Subject::of(named.as_deref().or(event.subject.as_deref())?)
    }

    /// On an ordered route: the record of a message that waits for its next attempt in the lot.
    pub(super) fn parked(
        &self,
        letter: &Letter,
        attempt: u32,
        wait: Duration,
        first_failed: Timestamp,
        doubt: bool,
    ) -> Option<Record> {
        let subject = self.route.plan.order.and(letter.subject.clone())?;
        let properties =
            letter::for_retry(&letter.delivery.properties, letter.origin(), attempt, first_failed);
        Some(Record::Parked(Box::new(Parking {
            subject,
            first: true,
            attempt,
            due_at: Some(now() + millis(wait)),
            failed_at: Some(first_failed.as_millisecond()),
            doubt: Some(doubt),
            kept: kept(letter, properties.to_text()),
        })))
    }

    /// The subject whose messages wait when this one is given up.
    pub(super) fn holds(&self, letter: &Letter) -> Option<Subject> {
        self.route.plan.order.filter(|ordered| ordered.holds).and(letter.subject.clone())
    }
}

fn kept(letter: &Letter, properties: String) -> Kept {
    let (exchange, routing_key) = letter.origin();
    Kept {
        exchange: exchange.to_owned(),
        routing_key: routing_key.to_owned(),
        properties,
        body: letter.delivery.body.clone(),
    }
}

/// What of the lot concerns a window.
struct WindowLot {
    sequences: HashMap<[u8; 32], Sequence>,
    /// Messages of the window that are parked already.
    parked: HashSet<Key>,
    /// Bytes in the whole lot, if that was asked.
    bytes: Option<u64>,
}

/// A window that is being carried.
struct Window<'w> {
    letters: &'w [Letter],
    ordered: Ordered,
    lot: WindowLot,
    /// How many are sent at once.
    at_once: usize,
    /// Subjects of which nothing more is taken from this window.
    stuck: HashSet<[u8; 32]>,
    settles: &'w mut [Settle],
}

impl Window<'_> {
    fn ended(&mut self, outcome: &Outcome, settle: Settle) {
        if let Some(own) = self.settles.get_mut(outcome.at) {
            *own = settle;
        }
        let Some(letter) = self.letters.get(outcome.at) else { return };
        let Some(subject) = &letter.subject else { return };
        if settle == Settle::GiveBack {
            self.stuck.insert(subject.digest);
            return;
        }
        let ended = match &outcome.record {
            Some(Record::Parked(_)) => Ended::Parked,
            Some(Record::Dead { holds: Some(_), .. }) => Ended::Holds,
            Some(Record::Dead { holds: None, .. }) => Ended::GoesOn,
            Some(
                Record::Answered { .. }
                | Record::Delivered { .. }
                | Record::Waiting { .. }
                | Record::GivenBack
                | Record::Discarded
                | Record::Batched(_),
            ) => Ended::Done,
            None => Ended::Copy,
        };
        self.lot.sequences.entry(subject.digest).or_default().ended(letter.key, ended, false);
    }
}
