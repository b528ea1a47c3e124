//! Platform to system: the whole way of one event.
//!
//! A lane takes deliveries in windows and carries each window to its end: read, claimed, sent, recorded, and only then
//! acknowledged. Whatever fails, the order of the statements sees to it that the message is in at least one safe place:
//! its queue, a retry tier, the dead-letter queue, or the system. Nothing here ends in an acknowledgement unless one of
//! these has been confirmed or committed.
//!
//! The way in one screen: [`Deliverer::carry`]. One message with all its care: [`attempt::send`].

mod attempt;
mod batch;
mod claims;
mod gate;
mod join;
mod lane;
mod ordered;
mod render;
mod strands;

pub use batch::Batcher;

use crate::{
    broker::{Delivery, Link, Message, Properties, Published, Publisher, Settle, topology::Names},
    code::Code,
    config::{DeliverRoute, plan::Action},
    emit::Outgoing,
    event::{self, Event, Key},
    format::Limits,
    keeper::Keeper,
    letter::{self, Past, Reason, Stage},
    order::Subject,
    store::{Answer, Claim, GivenUp, NewItem, Place, Record, RouteNumber, Store, Went, Why},
    system::System,
    telemetry::{Metrics, Trace},
    verdict::Failure,
};
use attempt::{Done, End, Part};
use claims::{UnderWay, claim};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use jiff::Timestamp;
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, warn};

/// One route to a system, ready to run.
#[derive(Clone)]
pub struct Deliverer {
    /// The route.
    pub route: Arc<DeliverRoute>,
    /// Its number in the store.
    pub number: RouteNumber,
    /// The numbers of the `collect` routes of the same adapter, for opened items: number, first wait.
    pub asking: HashMap<String, (RouteNumber, Duration)>,
    /// The system.
    pub system: Arc<System>,
    /// The store.
    pub store: Store,
    /// The connection to consume on.
    pub link: Link,
    /// The publisher to the platform's broker.
    pub publisher: Publisher,
    /// The names of our exchanges.
    pub names: Names,
    /// The council's code.
    pub council: String,
    /// The keeper of its gate.
    pub keeper: Arc<Keeper>,
    /// Metrics.
    pub metrics: Metrics,
    /// Ends the route.
    pub stop: CancellationToken,
    /// Rung when a queue or exchange is found to be missing.
    pub missing: Arc<Notify>,
    /// What is being sent at this moment of which there may be only one.
    pub one_per: Arc<Mutex<HashSet<String>>>,
    /// What is under way without a claim on disk.
    pub under_way: Arc<Mutex<HashSet<Key>>>,
}

/// A delivery that has been read.
struct Letter {
    delivery: Delivery,
    past: Past,
    key: Key,
    trace: Option<String>,
    event: Result<Event, Failure>,
    /// What it is about, on a route that keeps order; none if it cannot be read that far.
    subject: Option<Subject>,
}

impl Letter {
    fn origin(&self) -> (&str, &str) {
        (&self.delivery.exchange, &self.delivery.routing_key)
    }
}

/// A part that was given up: the message's letter tells of it when its other parts have come to their ends.
struct LostPart {
    stage: Stage,
    code: Code,
    failure: Failure,
    doubt: bool,
}

impl LostPart {
    fn new(part: &Part, stage: Stage, code: Code, failure: Failure, doubt: bool) -> LostPart {
        let field = match failure.field.is_empty() {
            true => part.name.clone(),
            false => format!("{}: {}", part.name, failure.field),
        };
        LostPart { stage, code, failure: Failure { field, ..failure }, doubt }
    }

    /// As an earlier attempt recorded it.
    fn again(part: &Part, before: GivenUp) -> LostPart {
        let code = before.code.unwrap_or(Code::SystemRefuses);
        let (stage, field, what) = match before.why {
            Some(why) => (Stage::parse(&why.stage), why.field, why.what),
            None => {
                (None, part.name.clone(), "it was given up before; the log of that time tells why".to_owned())
            }
        };
        let failure = Failure::refused(code, field, what);
        LostPart { stage: stage.unwrap_or(Stage::Sending), code, failure, doubt: before.doubt }
    }

    fn record(&self) -> Record {
        let (stage, field) = (self.stage.as_str().to_owned(), self.failure.field.clone());
        let what = letter::what_of(self.code, &self.failure);
        let why = Some(Why { stage, field, what });
        Record::Dead { code: self.code.as_str(), doubt: self.doubt, why, holds: None }
    }

    /// The end of the message: the first part in doubt, since it wants the most care, or else the first, speaks for all.
    fn end(mut lost: Vec<LostPart>) -> Option<End> {
        let others = lost.len().checked_sub(1)?;
        let speaks = lost.iter().position(|part| part.doubt).unwrap_or(0);
        let LostPart { stage, code, mut failure, doubt } = lost.swap_remove(speaks);
        if others > 0 {
            let fields: Vec<String> =
                lost.iter().map(|part| format!("{} {}", part.code, part.failure.field)).collect();
            failure.what = format!("{} (given up as well: {})", failure.what, fields.join(", "));
        }
        Some(End::Dead { stage, code, failure, doubt })
    }
}

/// What is to be published, recorded and settled for one message.
struct Outcome {
    at: usize,
    publish: Option<Message>,
    record: Option<Record>,
    settle: Settle,
}

impl Deliverer {
    /// Runs the route's lanes until it is stopped.
    pub fn start(self: Arc<Self>, tasks: &TaskTracker) {
        // Two lanes would overtake each other; within its one lane subjects go on side by side.
        let lanes = if self.route.plan.order.is_some() { 1 } else { self.route.concurrency };
        for lane in 0..lanes {
            tasks.spawn(self.clone().lane(lane));
        }
        if self.route.plan.order.is_none() {
            tasks.spawn(self.clone().empty_lot());
        }
        tasks.spawn(self.telling());
    }

    /// Why no message is taken any more: what is not taken waits in the queue, and is not given up. What only joins a batch
    /// is taken all the same.
    fn stopped(&self) -> Option<Failure> {
        match &self.route.plan.action {
            Action::Batch(_) => None,
            Action::Request(_) | Action::Publish(_) | Action::Statement(_) | Action::Write(_) => {
                self.system.stopped()
            }
        }
    }

    fn if_missing(&self, code: Code) {
        if code == Code::TopologyMissing {
            self.missing.notify_one();
        }
    }

    /// Carries a window to its end, and says how each delivery is to be settled, in the order in which they came.
    async fn carry(&self, deliveries: Vec<Delivery>) -> Vec<(Delivery, Settle)> {
        let letters: Vec<Letter> = deliveries.into_iter().map(|delivery| self.read(delivery)).collect();
        let all: Vec<usize> = (0..letters.len()).collect();
        let outcomes = self.bring(&letters, &all, 1).await;
        let settles = self.close(&letters, outcomes).await;
        letters.into_iter().zip(settles).map(|(letter, (_, settle))| (letter.delivery, settle)).collect()
    }

    /// Brings these letters of a window to their systems, so many at once; what has become of them, in their order.
    async fn bring(&self, letters: &[Letter], which: &[usize], at_once: usize) -> Vec<Outcome> {
        let given_back = |at: usize| Outcome { at, publish: None, record: None, settle: Settle::GiveBack };
        let chosen: Vec<(usize, &Letter)> =
            which.iter().filter_map(|at| Some((*at, letters.get(*at)?))).collect();
        let mine: Vec<bool> = chosen.iter().map(|(_, letter)| self.is_mine(letter)).collect();
        let claims = chosen
            .iter()
            .zip(&mine)
            .filter(|(_, mine)| **mine)
            .map(|((_, letter), _)| claim(letter))
            .collect();
        let mut under_way = UnderWay { of: &self.under_way, keys: Vec::new() };
        let said_at = now();
        let places = match self.places(claims, &mut under_way).await {
            Ok(places) => places,
            Err(error) => {
                error!(route = self.route.id, code = %error.code, "nothing can be claimed, messages are given back: {}", error.what);
                tokio::time::sleep(Duration::from_secs(1)).await;
                return which.iter().copied().map(given_back).collect();
            }
        };
        crate::kill::point("deliver.claimed");
        let mut places = places.into_iter();
        let mut outcomes: Vec<Outcome> = Vec::with_capacity(chosen.len());
        let (mut window, mut single) = (Vec::new(), Vec::new());
        for ((at, letter), mine) in chosen.iter().zip(&mine) {
            match (mine, if *mine { places.next() } else { None }) {
                (false, _) => {
                    self.metrics.count(&self.route.id, "passed", 1);
                    outcomes.push(Outcome { at: *at, publish: None, record: None, settle: Settle::Ack });
                }
                (true, Some(place)) => match (&self.route.plan.action, &place) {
                    // Many messages to a broker go in one window; everything else has its care one by one.
                    (Action::Publish(_), Place::Go(went)) if self.can_go_in_window(letter, went) => {
                        window.push((*at, went.clone()));
                    }
                    (Action::Batch(join), Place::Go(went)) => {
                        outcomes.push(self.join(*at, letter, join, went.doubt));
                    }
                    _ => single.push((*at, *letter, place)),
                },
                (true, None) => outcomes.push(given_back(*at)),
            }
        }
        // Not by a closure over borrowed letters: the compiler cannot see that such a future may cross threads.
        let mut under_care = FuturesUnordered::new();
        for (at, letter, place) in single {
            if under_care.len() >= at_once.max(1) {
                outcomes.extend(under_care.next().await);
            }
            under_care.push(self.one(at, letter, place));
        }
        while let Some(outcome) = under_care.next().await {
            outcomes.push(outcome);
        }
        if !window.is_empty() {
            outcomes.extend(self.window(letters, window, said_at).await);
        }
        outcomes.sort_by_key(|outcome| outcome.at);
        outcomes
    }

    /// Reads a delivery: its own past, and the event in it.
    fn read(&self, delivery: Delivery) -> Letter {
        let past = Past::of(&delivery.properties);
        let arrived = delivery.properties.arrived(&delivery.body);
        let trace = delivery
            .properties
            .text("traceparent")
            .and_then(|text| Trace::parse(&text))
            .map(|trace| trace.next_hop());
        let event = event::decode(&arrived, self.route.plan.accept, &Limits::default())
            .map_err(|bad| Failure::refused(bad.code, bad.field, bad.what));
        // What breaks its schema is the same event all the same: also when the schema has been mended.
        let key = match &event {
            Ok(event) => event.key(),
            Err(_) => Key::of_bytes(delivery.properties.message_id(), &delivery.body),
        };
        let subject = match self.route.plan.order {
            Some(_) => event.as_ref().ok().and_then(|event| self.subject(event)),
            None => None,
        };
        let event = event.and_then(|event| self.check(event)).and_then(|event| {
            match self.route.plan.order.is_some() && subject.is_none() {
                false => Ok(event),
                true => {
                    let what = "the route keeps the order of each subject, and this event has none";
                    Err(Failure::refused(Code::SubjectMissing, "subject", what))
                }
            }
        });
        Letter { past, key, trace, event, subject, delivery }
    }

    fn check(&self, event: Event) -> Result<Event, Failure> {
        let schema = &self.route.plan.event;
        if event.event_type != schema.event_type {
            let what = match event.event_type.rsplit_once(".v") {
                Some((name, version))
                    if schema.event_type.rsplit_once(".v").is_some_and(|(own, _)| own == name) =>
                {
                    format!(
                        "version {version} of this event is not known here; the route reads {}",
                        schema.event_type
                    )
                }
                _ => format!("the route reads {}, this is another type of event", schema.event_type),
            };
            return Err(Failure::refused(Code::UnknownEventType, "type", what));
        }
        match schema.breaches(&event.data).into_iter().next() {
            None => Ok(event),
            Some(breach) => Err(Failure::refused(Code::EventBreaksSchema, breach.field, breach.what)),
        }
    }

    /// Whether the route takes the event. What cannot be read is the route's: it lies in its queue.
    fn is_mine(&self, letter: &Letter) -> bool {
        letter.event.as_ref().map_or(true, |event| self.route.takes(&event.data))
    }

    /// An event that joins a batch: acknowledged when that is committed.
    fn join(&self, at: usize, letter: &Letter, join: &crate::config::batch::Join, doubt: bool) -> Outcome {
        let joining = match &letter.event {
            Ok(event) => join::joining(self, join, event).map_err(|failure| (Stage::Mapping, failure)),
            Err(failure) => Err((Stage::Event, failure.clone())),
        };
        match joining {
            Ok(joining) => {
                Outcome { at, publish: None, record: Some(self.joined(joining)), settle: Settle::Ack }
            }
            Err((stage, failure)) => self.dead(at, letter, stage, &failure, failure.code, doubt),
        }
    }

    /// Whether nothing but its sending stands between a message and its end. What may have been sent already, and must not be sent
    /// twice, has its care.
    fn can_go_in_window(&self, letter: &Letter, went: &Went) -> bool {
        letter.event.is_ok()
            && (!went.doubt || self.may_repeat())
            && self.route.plan.each.is_none()
            && self.route.plan.before.is_none()
            && self.route.plan.opens.is_none()
    }

    /// One message that is not part of a window.
    async fn one(&self, at: usize, letter: &Letter, place: Place) -> Outcome {
        let acked = |outcome: &'static str| {
            self.metrics.count(&self.route.id, outcome, 1);
            Outcome { at, publish: None, record: None, settle: Settle::Ack }
        };
        match (place, &letter.event) {
            (Place::Done | Place::Buried(_) | Place::Stale, _) => acked("duplicate"),
            // Another copy is under way, here or in another bridge: this one looks again in a while.
            (Place::Busy, _) if self.route.plan.order.is_some() => {
                Outcome { at, publish: None, record: None, settle: Settle::GiveBack }
            }
            (Place::Busy, _) => Outcome {
                at,
                publish: Some(self.tier(
                    letter,
                    Duration::from_secs(5),
                    letter.past.attempt,
                    first_failed(letter),
                )),
                record: None,
                settle: Settle::Ack,
            },
            (Place::Go(went), Err(failure)) => {
                self.dead(at, letter, Stage::Event, failure, failure.code, went.doubt)
            }
            (Place::Go(went), Ok(event)) => match self.message(letter, event, went).await {
                Ok(()) => Outcome {
                    at,
                    publish: None,
                    record: Some(Record::Delivered { opens: None }),
                    settle: Settle::Ack,
                },
                Err(end) => self.ended(at, letter, end),
            },
            (Place::Reply { answer, kept }, Ok(event)) => {
                match self.reply_again(letter, event, &answer, kept.as_deref(), 0).await {
                    Ok(opens) => Outcome {
                        at,
                        publish: None,
                        record: Some(Record::Delivered { opens }),
                        settle: Settle::Ack,
                    },
                    Err(End::GiveBack) => {
                        Outcome { at, publish: None, record: None, settle: Settle::GiveBack }
                    }
                    Err(end) => self.ended(at, letter, end),
                }
            }
            (Place::Reply { .. }, Err(failure)) => {
                self.dead(at, letter, Stage::Event, failure, failure.code, false)
            }
        }
    }

    /// A message, whole or part by part. Parts that were done are never done again.
    async fn message(&self, letter: &Letter, event: &Event, went: Went) -> Result<(), End> {
        let Some(each) = &self.route.plan.each else {
            let done = self.send(letter, event, 0, went).await?;
            return self.delivered(letter, 0, done).await;
        };
        let mut given_up: Vec<LostPart> = Vec::new();
        for part in attempt::parts(event, each) {
            let claim = Claim { part: part.number, ..claim(letter) };
            let place = self
                .store
                .claim(self.number, now(), vec![claim])
                .await
                .map_err(|error| End::store(&error))?;
            let result = match place.into_iter().next() {
                Some(Place::Go(went)) => self.part(letter, &part, went).await,
                Some(Place::Reply { answer, kept }) => {
                    match self.reply_again(letter, &part.event, &answer, kept.as_deref(), part.number).await {
                        Ok(opens) => self.record(letter, part.number, Record::Delivered { opens }).await,
                        Err(end) => Err(end),
                    }
                }
                // An earlier attempt gave it up, and another part kept the message from being a dead letter until now.
                Some(Place::Buried(before)) => {
                    given_up.push(LostPart::again(&part, before));
                    Ok(())
                }
                Some(Place::Done | Place::Stale) => Ok(()),
                Some(Place::Busy) | None => Err(End::GiveBack),
            };
            match result {
                Ok(()) => {}
                // One part that is refused for good does not hold up the others.
                Err(End::Dead { stage, code, failure, doubt }) => {
                    let lost = LostPart::new(&part, stage, code, failure, doubt);
                    self.record(letter, part.number, lost.record()).await?;
                    given_up.push(lost);
                }
                Err(end) => {
                    if let End::Later { failure: _, wait, doubt, first_failed, costs } = &end {
                        let later = Record::Waiting {
                            attempt: letter.past.attempt + costs.attempts(),
                            due_at: now() + millis(*wait),
                            failed_at: first_failed.as_millisecond(),
                            doubt: *doubt,
                        };
                        self.record(letter, part.number, later).await?;
                    }
                    return Err(end);
                }
            }
        }
        LostPart::end(given_up).map_or(Ok(()), Err)
    }

    async fn part(&self, letter: &Letter, part: &Part, went: Went) -> Result<(), End> {
        let done = self.send(letter, &part.event, part.number, went).await?;
        self.delivered(letter, part.number, done).await?;
        self.record(letter, part.number, Record::Delivered { opens: None }).await?;
        crate::kill::point("deliver.part");
        Ok(())
    }

    async fn record(&self, letter: &Letter, part: u32, record: Record) -> Result<(), End> {
        let mapping = self.digest();
        let records = vec![(letter.key, part, record)];
        self.store.record(self.number, now(), mapping, records).await.map_err(|error| End::store(&error))
    }

    /// The system has done it: first that is recorded, with the answer, so that it is never done again; then the reply
    /// made of the answer is published and confirmed.
    async fn delivered(&self, letter: &Letter, part: u32, done: Done) -> Result<(), End> {
        let opens = match done.opens {
            Ok(opened) => opened.map(|opened| self.item(opened)).transpose(),
            Err(failure) => Err(End::Dead { stage: Stage::Reply, code: failure.code, failure, doubt: false }),
        };
        if matches!(opens, Ok(None)) && done.reply.as_ref().is_ok_and(Vec::is_empty) {
            return Ok(());
        }
        // Whatever is wrong with what follows: it is on record that the system has done it.
        let (opens, wrong) = match opens {
            Ok(item) => (item, None),
            Err(end) => (None, Some(end)),
        };
        self.record(letter, part, Record::Answered { answer: done.answer, opens }).await?;
        crate::kill::point("deliver.answered");
        if let Some(end) = wrong {
            return Err(end);
        }
        self.reply(done.reply).await.inspect(|()| crate::kill::point("deliver.replied"))
    }

    /// Publishes a reply whose answer is on record, after a crash or a replay; what is open from there on.
    async fn reply_again(
        &self,
        letter: &Letter,
        event: &Event,
        answer: &Answer,
        kept: Option<&str>,
        part: u32,
    ) -> Result<Option<NewItem>, End> {
        let dead =
            |failure: Failure| End::Dead { stage: Stage::Reply, code: failure.code, failure, doubt: false };
        let (events, opened) =
            attempt::reply_of(self, event, letter.trace.as_deref(), answer, kept, part).map_err(dead)?;
        let item = opened.map(|opened| self.item(opened)).transpose()?;
        self.reply(Ok(events)).await.map(|()| item)
    }

    async fn reply(&self, reply: Result<Vec<Outgoing>, Failure>) -> Result<(), End> {
        match reply {
            Err(failure) => Err(End::Dead { stage: Stage::Reply, code: failure.code, failure, doubt: false }),
            Ok(events) => match self.publish_events(events).await {
                true => Ok(()),
                false => Err(End::GiveBack),
            },
        }
    }

    fn item(&self, opened: crate::emit::Opened) -> Result<NewItem, End> {
        let Some((route, first_wait)) = self.asking.get(&opened.route) else {
            let what = format!("the route {} that would ask is not running", opened.route);
            let failure = Failure::refused(Code::UnknownName, "opens", what);
            return Err(End::Dead { stage: Stage::Reply, code: failure.code, failure, doubt: false });
        };
        Ok(NewItem {
            route: *route,
            key: opened.key,
            one_per: opened.one_per,
            cause: opened.cause,
            due_at: now() + millis(*first_wait),
        })
    }

    /// Publishes events to the platform and waits until they are confirmed; whether they are.
    async fn publish_events(&self, events: Vec<Outgoing>) -> bool {
        let messages: Vec<Message> = events.into_iter().map(|event| event.message).collect();
        self.publish(&messages)
            .await
            .is_some_and(|results| results.iter().all(|result| *result == Published::Confirmed))
    }

    /// Publishes messages surely; a message that comes back or is refused is told to a person.
    async fn publish(&self, messages: &[Message]) -> Option<Vec<Published>> {
        let results = self.publisher.publish_surely(messages, &self.stop).await?;
        for (message, result) in messages.iter().zip(&results) {
            let (code, what) = match result {
                Published::Returned(text) => (Code::PublishReturned, text.clone()),
                Published::Refused(error) => (error.code, error.what.clone()),
                Published::Confirmed | Published::Nacked | Published::NotSent(_) | Published::Unknown(_) => {
                    continue;
                }
            };
            self.if_missing(code);
            error!(route = self.route.id, code = %code, exchange = message.exchange, routing_key = message.routing_key,
                   "a message cannot be put where it belongs and is given back to its queue: {what}");
        }
        Some(results)
    }

    /// Documents for a broker, published in one window.
    async fn window(&self, letters: &[Letter], window: Vec<(usize, Went)>, said_at: i64) -> Vec<Outcome> {
        let given_back = |at: usize| {
            let record = Some(Record::GivenBack);
            Outcome { at, publish: None, record, settle: Settle::GiveBack }
        };
        if !self.keeper.may_send() {
            return window.into_iter().map(|(at, _)| given_back(at)).collect();
        }
        let lost = match self.lost_of(letters, &window, said_at).await {
            Ok(lost) => lost,
            Err(error) => {
                error!(route = self.route.id, code = %error.code, "the store failed, messages are given back: {}", error.what);
                return window.into_iter().map(|(at, _)| given_back(at)).collect();
            }
        };
        let mut outcomes = Vec::with_capacity(window.len());
        let mut messages = Vec::with_capacity(window.len());
        let mut sent = Vec::with_capacity(window.len());
        for (at, went) in window {
            let Some((letter, Ok(event))) = letters.get(at).map(|letter| (letter, &letter.event)) else {
                continue;
            };
            if lost.contains(&at) {
                outcomes.push(self.ended(at, letter, self.taken_over(letter)));
                continue;
            }
            match attempt::document_for_broker(self, letter, event) {
                Ok(message) => {
                    messages.push(message);
                    sent.push((at, went));
                }
                Err(failure) => {
                    outcomes.push(self.dead(at, letter, Stage::Mapping, &failure, failure.code, went.doubt))
                }
            }
        }
        let System::Amqp(system) = &*self.system else { return outcomes };
        let results = system.send(&messages).await;
        crate::kill::point("deliver.window");
        for ((at, went), result) in sent.into_iter().zip(results) {
            let Some(letter) = letters.get(at) else { continue };
            outcomes.push(match result {
                Ok(()) => {
                    self.got_through(letter);
                    Outcome {
                        at,
                        publish: None,
                        record: Some(Record::Delivered { opens: None }),
                        settle: Settle::Ack,
                    }
                }
                Err(failure) => {
                    self.ended(at, letter, self.weigh(letter, attempt::end_of(self, letter, &went, failure)))
                }
            });
        }
        outcomes
    }

    /// A message that did not get through.
    fn ended(&self, at: usize, letter: &Letter, end: End) -> Outcome {
        match end {
            End::GiveBack => {
                Outcome { at, publish: None, record: Some(Record::GivenBack), settle: Settle::GiveBack }
            }
            End::Later { failure, wait, doubt, first_failed, costs } => {
                self.metrics.count(&self.route.id, "later", 1);
                warn!(route = self.route.id, message = %letter.key, attempt = letter.past.attempt, code = %failure.code,
                      wait = crate::config::units::in_words(wait), "not delivered, tried again later: {}", failure.what);
                let attempt = letter.past.attempt + costs.attempts();
                if let Some(record) = self.parked(letter, attempt, wait, first_failed, doubt) {
                    return Outcome { at, publish: None, record: Some(record), settle: Settle::Ack };
                }
                Outcome {
                    at,
                    publish: Some(self.tier(letter, wait, attempt, first_failed)),
                    record: Some(Record::Waiting {
                        attempt,
                        due_at: now() + millis(wait),
                        failed_at: first_failed.as_millisecond(),
                        doubt,
                    }),
                    settle: Settle::Ack,
                }
            }
            End::Dead { stage, code, failure, doubt } => self.dead(at, letter, stage, &failure, code, doubt),
        }
    }

    fn tier(&self, letter: &Letter, wait: Duration, attempt: u32, first_failed: Timestamp) -> Message {
        Message {
            exchange: self.names.tier(wait),
            routing_key: self.route.queue.clone(),
            properties: letter::for_retry(
                &letter.delivery.properties,
                letter.origin(),
                attempt,
                first_failed,
            ),
            body: letter.delivery.body.clone(),
        }
    }

    fn dead(
        &self,
        at: usize,
        letter: &Letter,
        stage: Stage,
        failure: &Failure,
        code: Code,
        doubt: bool,
    ) -> Outcome {
        self.metrics.dead(&self.route.id, code.as_str());
        warn!(route = self.route.id, message = %letter.key, code = %code, stage = stage.as_str(), field = failure.field,
              "given up, a dead letter now: {}", failure.what);
        let event = letter.event.as_ref().ok();
        let mapping = self.digest();
        let reason = Reason {
            route: &self.route.id,
            key: letter.key.to_string(),
            event: event.map(|event| (event.source.as_str(), event.id.as_str(), event.event_type.as_str())),
            failure,
            code,
            stage,
            attempts: letter.past.attempt,
            mapping: mapping.as_deref(),
            doubt,
            item: None,
            now: Timestamp::now(),
        };
        let again: Properties = letter.delivery.properties.again();
        Outcome {
            at,
            publish: Some(Message {
                exchange: self.names.dead(),
                routing_key: self.route.queue.clone(),
                properties: letter::for_dead(again, letter.origin(), &letter.delivery.body, &reason),
                body: letter.delivery.body.clone(),
            }),
            record: Some(Record::Dead { code: code.as_str(), doubt, why: None, holds: self.holds(letter) }),
            settle: Settle::Ack,
        }
    }

    /// Publishes what is to be published, then records, then says how each is settled: only what is safe is acknowledged.
    async fn close(&self, letters: &[Letter], outcomes: Vec<Outcome>) -> Vec<(Outcome, Settle)> {
        let to_publish: Vec<(usize, Message)> = outcomes
            .iter()
            .enumerate()
            .filter_map(|(at, outcome)| outcome.publish.clone().map(|message| (at, message)))
            .collect();
        let mut outcomes = outcomes;
        if !to_publish.is_empty() {
            let messages: Vec<Message> = to_publish.iter().map(|(_, message)| message.clone()).collect();
            let results = self.publish(&messages).await;
            crate::kill::point("deliver.moved");
            let stopping = results.is_none();
            let results = results.unwrap_or_default();
            let mut results = results.iter();
            for (at, _) in &to_publish {
                let confirmed = results.next() == Some(&Published::Confirmed);
                if let Some(outcome) = outcomes.get_mut(*at).filter(|_| !confirmed) {
                    // Not safe elsewhere: it stays in its queue, as it was.
                    outcome.settle = Settle::GiveBack;
                    outcome.record = match outcome.record.take() {
                        Some(Record::Dead { doubt, .. } | Record::Waiting { doubt, .. }) => {
                            let letter = letters.get(outcome.at);
                            Some(Record::Waiting {
                                attempt: letter.map_or(1, |letter| letter.past.attempt),
                                due_at: now(),
                                failed_at: now(),
                                doubt,
                            })
                        }
                        other => other,
                    };
                }
            }
            if !stopping && outcomes.iter().any(|outcome| outcome.settle == Settle::GiveBack) {
                tokio::time::sleep(Duration::from_secs(5)).await;
            }
        }
        let delivered = outcomes
            .iter()
            .filter(|outcome| matches!(outcome.record, Some(Record::Delivered { .. })))
            .count();
        let records: Vec<(&Letter, Record)> = outcomes
            .iter()
            .filter_map(|outcome| Some((letters.get(outcome.at)?, outcome.record.clone()?)))
            .collect();
        if let Err(error) = self.record_all(records).await {
            error!(route = self.route.id, code = %error.code, "outcomes cannot be recorded, messages are given back: {}", error.what);
            tokio::time::sleep(Duration::from_secs(1)).await;
            return outcomes.into_iter().map(|outcome| (outcome, Settle::GiveBack)).collect();
        }
        crate::kill::point("deliver.recorded");
        if delivered > 0 {
            self.metrics.count(&self.route.id, "delivered", delivered as u64);
        }
        outcomes
            .into_iter()
            .map(|outcome| (outcome.settle, outcome))
            .map(|(settle, outcome)| (outcome, settle))
            .collect()
    }

    fn digest(&self) -> Option<String> {
        self.route.plan.mapping.as_ref().map(|mapping| mapping.digest.chars().take(16).collect())
    }
}

fn first_failed(letter: &Letter) -> Timestamp {
    letter.past.first_failed.unwrap_or_else(Timestamp::now)
}

fn now() -> i64 {
    crate::clock::now()
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// The parts of an event that a route sends one by one, each as the event with that part alone.
pub fn parts_of(event: &Event, each: &crate::mapping::path::Path) -> Vec<Event> {
    attempt::parts(event, each).into_iter().map(|part| part.event).collect()
}
