//! System to platform: the whole way of one update.
//!
//! Two halves joined by the spool. A source ([`source`]) takes in: it is told "thank you" only when what it brought is on
//! disk. The forward half ([`Collector::forward`]) takes what is due, fetches the truth where a notice is only a wake-up,
//! makes events of it, publishes them, and finishes the spool's rows only when the broker has confirmed. The broker may
//! be away for a week; taking in goes on until the spool is full, and then says so.

mod about;
mod ask;
mod difference;
mod extract;
mod gate;
mod pickup;
mod query;
mod sequence;
mod sort;
mod source;
mod split;
mod view;

use crate::{
    broker::{Message, Properties, Published, Publisher, topology::Names},
    code::Code,
    config::{CollectRoute, plan::Source},
    emit::{self, Emitted, Ground, Opened, Outgoing},
    event::{self, Accept, Key},
    format::Limits,
    keeper::Keeper,
    letter::{self, Reason, Stage},
    origin::Origin,
    retry::Delays,
    store::{Finish, NewItem, RouteNumber, State, Store, StoreError, Waiting},
    system::{System, answer::charset_of, classify, sign},
    telemetry::{Metrics, RouteLabel},
    template::{Scope, Texts},
    tree::Tree,
    verdict::{self, Failure, Tried, Verdict},
};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use jiff::Timestamp;
use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, warn};

/// How many documents are taken from the spool at once.
const BATCH: u32 = 128;
/// How long the spool is left alone at most: a person's command may have put something into it.
const LOOK: Duration = Duration::from_secs(1);

/// One route from a system, ready to run.
#[derive(Clone)]
pub struct Collector {
    /// The route.
    pub route: Arc<CollectRoute>,
    /// Its number in the store.
    pub number: RouteNumber,
    /// The numbers of the routes of the same adapter that ask, for opened items: number, first wait.
    pub asking: HashMap<String, (RouteNumber, Duration)>,
    /// The system.
    pub system: Arc<System>,
    /// The store.
    pub store: Store,
    /// The publisher to the platform's broker.
    pub publisher: Publisher,
    /// The names of our exchanges.
    pub names: Names,
    /// The event schemas, for events that are passed on as they are.
    pub schemas: Arc<HashMap<String, Arc<crate::event::schema::EventSchema>>>,
    /// The folder for our copies of files.
    pub files: PathBuf,
    /// The council's code.
    pub council: String,
    /// The keeper of its gate.
    pub keeper: Arc<Keeper>,
    /// Metrics.
    pub metrics: Metrics,
    /// Ends the route.
    pub stop: CancellationToken,
    /// Rung when something has been taken in.
    pub bell: Arc<Notify>,
}

/// What a document came to.
enum Through {
    /// Its events are to be published.
    Events { emitted: Emitted },
    /// It is tried again later.
    Later { failure: Failure, wait: Duration, failed_at: i64 },
    /// It is given up.
    Dead { failure: Failure, code: Code },
}

impl Through {
    fn events(&self) -> Option<&Emitted> {
        match self {
            Through::Events { emitted } => Some(emitted),
            Through::Later { .. } | Through::Dead { .. } => None,
        }
    }
}

impl Collector {
    /// Starts the route's tasks.
    pub fn start(self: Arc<Self>, tasks: &TaskTracker) {
        tasks.spawn(self.clone().telling());
        match &self.route.plan.source {
            Source::Ask(_) => {
                tasks.spawn(self.clone().asking());
            }
            Source::Receive(_) => {
                tasks.spawn(self.clone().forward());
            }
            Source::Poll(_) => {
                tasks.spawn(self.clone().forward());
                tasks.spawn(self.clone().polling());
            }
            Source::Consume(_) => {
                tasks.spawn(self.clone().forward());
                tasks.spawn(self.clone().consuming());
            }
            Source::Pickup(_) => {
                tasks.spawn(self.clone().forward());
                tasks.spawn(self.clone().picking_up());
            }
            Source::Query(_) => {
                tasks.spawn(self.clone().forward());
                match self.route.plan.compare {
                    None => tasks.spawn(self.clone().querying()),
                    Some(_) => tasks.spawn(self.clone().viewing()),
                };
            }
        }
    }

    /// Takes what is due from the spool to its end, until it is stopped.
    async fn forward(self: Arc<Self>) {
        let mut delays = Delays::new(Duration::from_millis(200), Duration::from_secs(15));
        while self.may_forward().await {
            let due = match self.store.due(self.number, now(), BATCH).await {
                Ok(due) => due,
                Err(error) => {
                    error!(route = self.route.id, code = %error.code, "the spool cannot be read: {}", error.what);
                    self.pause(delays.delay()).await;
                    continue;
                }
            };
            if due.is_empty() {
                tokio::select! {
                    () = self.stop.cancelled() => return,
                    () = self.bell.notified() => {}
                    () = tokio::time::sleep(LOOK) => {}
                }
                continue;
            }
            match self.batch(due).await {
                Ok(()) => delays.reset(),
                Err(Stopped::Stopping) => return,
                Err(Stopped::Store) => self.pause(delays.delay()).await,
            }
        }
    }

    async fn pause(&self, delay: Duration) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = tokio::time::sleep(delay) => {}
        }
    }

    /// Makes events of documents, publishes them all, finishes them all.
    async fn batch(&self, due: Vec<Waiting>) -> Result<(), Stopped> {
        let at_once = self.route.concurrency as usize;
        let came: Vec<(Waiting, Through)> = stream::iter(due)
            .map(|waiting| async {
                let through = self.through(&waiting).await;
                (waiting, through)
            })
            .buffered(at_once)
            .collect()
            .await;
        // Looked up for all at once: each look waits for whatever the store is writing.
        let mut known = self.published_of(came.iter().filter_map(|(_, through)| through.events())).await?;
        let mut messages: Vec<Message> = Vec::new();
        let mut finished: Vec<(i64, Key, Finish)> = Vec::new();
        for (waiting, through) in came {
            let finish = match through {
                Through::Events { emitted } => self.events(emitted, &mut known, &mut messages).await?,
                Through::Later { failure, wait, failed_at } => {
                    self.metrics.count(&self.route.id, "later", 1);
                    warn!(route = self.route.id, message = %waiting.key, attempt = waiting.attempt, code = %failure.code,
                          wait = crate::config::units::in_words(wait), "not collected, tried again later: {}", failure.what);
                    Finish::Later { due_at: now() + millis(wait), failed_at }
                }
                Through::Dead { failure, code } => {
                    messages.push(self.dead(&waiting, &failure, code));
                    Finish::Dead { code: code.as_str() }
                }
            };
            finished.push((waiting.n, waiting.key, finish));
        }
        self.publish(&messages).await?;
        crate::kill::point("collect.published");
        let delivered = finished
            .iter()
            .filter(|(_, _, finish)| matches!(finish, Finish::Through { state: State::Delivered, .. }))
            .count();
        self.store.finish(self.number, now(), finished).await.map_err(|error| {
            error!(route = self.route.id, code = %error.code, "what was published cannot be recorded, it will be published again: {}", error.what);
            Stopped::Store
        })?;
        crate::kill::point("collect.finished");
        if delivered > 0 {
            self.metrics.count(&self.route.id, "delivered", delivered as u64);
        }
        self.metrics.spool_bytes.set(i64::try_from(self.store.spool_bytes()).unwrap_or(i64::MAX));
        Ok(())
    }

    /// Events that have not been published before go out; a document that brings only known ones is a duplicate.
    async fn events(
        &self,
        emitted: Emitted,
        known: &mut HashSet<Key>,
        messages: &mut Vec<Message>,
    ) -> Result<Finish, Stopped> {
        let (state, published, opens) = self.news_of(emitted, known, messages).await?;
        match state {
            State::Nothing => self.metrics.count(&self.route.id, "nothing", 1),
            State::Duplicate => self.metrics.count(&self.route.id, "duplicate", 1),
            _ => {}
        }
        Ok(Finish::Through { state, published, opens })
    }

    /// The events that are not known yet, to be published; what that makes of their document, their keys, what they open.
    async fn news_of(
        &self,
        emitted: Emitted,
        known: &mut HashSet<Key>,
        messages: &mut Vec<Message>,
    ) -> Result<(State, Vec<Key>, Vec<NewItem>), Stopped> {
        self.drift(&emitted);
        let opens = self.items(emitted.opens);
        let (mut published, mut before) = (Vec::new(), 0);
        for event in emitted.events {
            if self.is_open(&event).await? {
                continue;
            }
            match known.insert(event.key) {
                true => {
                    published.push(event.key);
                    messages.push(event.message);
                }
                false => before += 1,
            }
        }
        let state = match (published.is_empty(), before) {
            (true, 0) => State::Nothing,
            (true, _) => State::Duplicate,
            (false, _) => State::Delivered,
        };
        Ok((state, published, opens))
    }

    /// Whether something is still open in the system whose end will tell what this event says.
    async fn is_open(&self, event: &Outgoing) -> Result<bool, Stopped> {
        let asked = event.unless_open.as_ref();
        let asked = asked.and_then(|(route, key)| Some((self.asking.get(route)?.0, key.clone())));
        match asked {
            None => Ok(false),
            Some((route, key)) => {
                self.store.is_open(route, key).await.map_err(|error| self.stopped_by(&error))
            }
        }
    }

    /// Those of these events that were published before.
    async fn published_of(&self, emitted: impl Iterator<Item = &Emitted>) -> Result<HashSet<Key>, Stopped> {
        let keys: Vec<Key> = emitted.flat_map(|emitted| &emitted.events).map(|event| event.key).collect();
        let before = match keys.is_empty() {
            true => Vec::new(),
            false => {
                self.store.published_before(keys.clone()).await.map_err(|error| self.stopped_by(&error))?
            }
        };
        Ok(keys.into_iter().zip(before).filter(|(_, before)| *before).map(|(key, _)| key).collect())
    }

    fn stopped_by(&self, error: &StoreError) -> Stopped {
        error!(route = self.route.id, code = %error.code, "the store failed: {}", error.what);
        Stopped::Store
    }

    fn drift(&self, emitted: &Emitted) {
        for (mapping, parts) in &emitted.drift {
            let label = crate::telemetry::MappingLabel { mapping: mapping.clone() };
            let counter = self.metrics.drift.get_or_create_owned(&label);
            // The first time it is told; after that it is counted.
            if counter.inc() == 0 {
                warn!(
                    route = self.route.id,
                    mapping,
                    parts = parts.join(", "),
                    "the system sends something that no row of the mapping knows"
                );
            }
        }
    }

    fn items(&self, opened: Vec<Opened>) -> Vec<NewItem> {
        let item = |opened: Opened| {
            let (route, first_wait) = self.asking.get(&opened.route)?;
            Some(NewItem {
                route: *route,
                key: opened.key,
                one_per: opened.one_per,
                cause: opened.cause,
                due_at: now() + millis(*first_wait),
            })
        };
        opened.into_iter().filter_map(item).collect()
    }

    /// Publishes until every message is confirmed. One that has no queue, or is refused, holds the route up, loudly: the
    /// spool keeps it.
    async fn publish(&self, messages: &[Message]) -> Result<(), Stopped> {
        let mut open: Vec<Message> = messages.to_vec();
        let mut delays = Delays::new(Duration::from_secs(1), Duration::from_secs(30));
        while !open.is_empty() {
            let results = self.publisher.publish_surely(&open, &self.stop).await.ok_or(Stopped::Stopping)?;
            let mut again = Vec::new();
            for (message, result) in open.into_iter().zip(results) {
                let (code, what) = match result {
                    Published::Confirmed => continue,
                    Published::Returned(text) => (Code::PublishReturned, text),
                    Published::Refused(error) => (error.code, error.what),
                    Published::Nacked => (Code::PublishRefused, "not taken".to_owned()),
                    Published::NotSent(error) | Published::Unknown(error) => (error.code, error.what),
                };
                error!(route = self.route.id, code = %code, exchange = message.exchange, routing_key = message.routing_key,
                       "an update cannot be published and waits: {what}");
                again.push(message);
            }
            open = again;
            if !open.is_empty() {
                self.pause(delays.delay()).await;
                if self.stop.is_cancelled() {
                    return Err(Stopped::Stopping);
                }
            }
        }
        Ok(())
    }

    /// From a document as it came to the events that are made of it.
    async fn through(&self, waiting: &Waiting) -> Through {
        let result = match &self.route.plan.source {
            Source::Consume(consume) if consume.events => self.pass_on(waiting),
            _ => self.made_of(waiting).await,
        };
        let failure = match result {
            Ok(emitted) => return Through::Events { emitted },
            Err(failure) => failure,
        };
        let failed_at = waiting.failed_at.unwrap_or_else(now);
        let tried = Tried {
            attempt: waiting.attempt,
            at_once: self.route.plan.retry.at_once,
            failing_for: Duration::from_millis(u64::try_from(now() - failed_at).unwrap_or(0)),
            doubt: false,
        };
        // Fetching only reads: a repeat is harmless.
        let repeat = crate::config::raw::adapter::Repeat::Harmless;
        match verdict::judge(&failure, tried, &self.route.plan.retry, repeat, false) {
            Verdict::Dead(code) => Through::Dead { failure, code },
            Verdict::Later(wait) => Through::Later { failure, wait, failed_at },
            Verdict::AtOnce | Verdict::Ask | Verdict::ReadAnew => Through::Later {
                wait: verdict::wait(waiting.attempt, &self.route.plan.retry),
                failure,
                failed_at,
            },
        }
    }

    /// The messages are events already: checked, and passed on as they are.
    fn pass_on(&self, waiting: &Waiting) -> Result<Emitted, Failure> {
        let arrived = event::Arrived {
            content_type: waiting.content_type.as_deref(),
            body: &waiting.body,
            ..event::Arrived::default()
        };
        let event = event::decode(&arrived, Accept::default(), &Limits::default())
            .map_err(|bad| Failure::refused(bad.code, bad.field, bad.what))?;
        let Some(schema) = self.schemas.get(&event.event_type) else {
            let what = "no schema here is for events of this type";
            return Err(Failure::refused(Code::UnknownEventType, "type", what));
        };
        if let Some(breach) = schema.breaches(&event.data).into_iter().next() {
            return Err(Failure::refused(Code::EventBreaksSchema, breach.field, breach.what));
        }
        let outgoing = emit::outgoing(&event, &self.council, &self.route.instance.name, None);
        Ok(Emitted { events: vec![outgoing], ..Emitted::default() })
    }

    async fn made_of(&self, waiting: &Waiting) -> Result<Emitted, Failure> {
        let mut document = self.read(&waiting.body, waiting.content_type.as_deref())?;
        let fetch = self.route.plan.fetch.iter().find(|fetch| {
            fetch.when.iter().all(|condition| condition.test.holds(condition.path.find(&document)))
        });
        if let (Some(fetch), System::Http(system)) = (fetch, &*self.system) {
            let call = Call { document: Some(&document), ..self.call() };
            let values = sign::values(&self.route.instance, &call.scope(&Texts::new()))?;
            let scope = call.scope(&values);
            let began = std::time::Instant::now();
            let heard = system.call(&fetch.request, &scope, None, None).await;
            self.metrics.request(&self.route.id, began.elapsed());
            let said = classify(&heard?, &fetch.answers, Some(fetch.format), system.error_code(), &scope)?;
            let Some(fetched) = said.document else {
                return Err(Failure::not_done(Code::AnswerUnreadable, "what was fetched is empty"));
            };
            document = fetched;
        }
        let origin = waiting.content_type.as_deref().and_then(Origin::of);
        let cause = origin.as_ref().map(Origin::tree);
        let ground = Ground {
            change: origin.and_then(|origin| origin.change),
            ..self.ground(&document, cause.as_ref(), &waiting.id)
        };
        let about = self.sent_before(ground).await?;
        emit::emit(&self.route.plan.events, Ground { about: Some(&about), ..ground })
    }

    fn read(&self, body: &[u8], content_type: Option<&str>) -> Result<Tree, Failure> {
        let charset = content_type.and_then(charset_of);
        let plan = &self.route.plan;
        plan.format
            .read(body, charset.as_deref(), plan.layout.as_deref(), &Limits::default())
            .map_err(|error| Failure::refused(error.code, "document", error.to_string()))
    }

    fn ground<'a>(&'a self, document: &'a Tree, cause: Option<&'a Tree>, identity: &'a str) -> Ground<'a> {
        Ground {
            instance: &self.route.instance,
            council: &self.council,
            document,
            cause,
            change: None,
            about: None,
            event: None,
            identity,
            now: Timestamp::now(),
            trace: None,
        }
    }

    fn call(&self) -> Call<'_> {
        Call {
            collector: self,
            document: None,
            cause: None,
            item: None,
            more: Vec::new(),
            now: Timestamp::now(),
            nonce: crate::telemetry::nonce(),
        }
    }

    fn dead(&self, waiting: &Waiting, failure: &Failure, code: Code) -> Message {
        self.metrics.dead(&self.route.id, code.as_str());
        warn!(route = self.route.id, message = %waiting.key, code = %code, field = failure.field,
              "given up, a dead letter now: {}", failure.what);
        let content_type = waiting.content_type.as_deref().unwrap_or(self.route.plan.format.media_type());
        let properties = Properties::of_document(content_type, None);
        self.dead_letter(
            properties,
            Bytes::from(waiting.body.clone()),
            failure,
            code,
            &Given {
                key: waiting.key.to_string(),
                id: &waiting.id,
                attempts: waiting.attempt,
                replay: waiting.replay,
                item: None,
            },
        )
    }

    fn dead_letter(
        &self,
        properties: Properties,
        body: Bytes,
        failure: &Failure,
        code: Code,
        given: &Given<'_>,
    ) -> Message {
        let reason = Reason {
            route: &self.route.id,
            key: given.key.clone(),
            event: Some((&self.route.instance.source, given.id, "")),
            failure,
            code,
            stage: Stage::Collecting,
            attempts: given.attempts,
            mapping: None,
            doubt: false,
            item: given.item,
            now: Timestamp::now(),
        };
        let properties = letter::with_replay(properties, given.replay);
        Message {
            exchange: self.names.dead(),
            routing_key: self.route.id.clone(),
            properties: letter::for_dead(properties, ("", &self.route.id), &body, &reason),
            body,
        }
    }

    fn open_items(&self, count: u32) {
        let label = RouteLabel { route: self.route.id.clone() };
        self.metrics.open_items.get_or_create_owned(&label).set(i64::from(count));
    }
}

/// What a dead letter is of.
struct Given<'a> {
    key: String,
    id: &'a str,
    attempts: u32,
    replay: u32,
    item: Option<&'a str>,
}

/// Why a batch was not finished.
enum Stopped {
    /// We are stopping.
    Stopping,
    /// The store failed.
    Store,
}

/// What the templates of one request see.
struct Call<'a> {
    collector: &'a Collector,
    document: Option<&'a Tree>,
    cause: Option<&'a Tree>,
    item: Option<&'a Tree>,
    more: Vec<(&'static str, Tree)>,
    now: Timestamp,
    nonce: String,
}

impl Call<'_> {
    fn scope<'s>(&'s self, values: &'s Texts) -> Scope<'s> {
        Scope {
            document: self.document,
            cause: self.cause,
            item: self.item,
            settings: Some(&self.collector.route.instance.settings),
            values: Some(values),
            now: self.now,
            nonce: &self.nonce,
            more: self.more.clone(),
            ..Scope::default()
        }
    }
}

fn now() -> i64 {
    crate::clock::now()
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
