//! What an operator can do: look at dead letters, replay them, discard them. Every act that changes something leaves an
//! audit line, and every order of statements is such that a crash in the middle loses nothing: what is published is
//! confirmed, what is stored is committed, and only then a letter leaves the queue.

pub mod account;
pub mod batches;
pub mod held;
pub mod routes;

use crate::{
    broker::{
        BrokerError, Delivery, Link, Message, Published, Publisher, Settle, lane::Browser,
        link::first_contact, topology::Names,
    },
    code::Code,
    config::{CollectRoute, Config, DeliverRoute, plan::Source, raw::adapter::Repeat},
    emit::{self, Ground},
    event::{self, Event, Key},
    format::Limits,
    letter::{self, DeadLetter},
    mapping::Context,
    origin::Origin,
    store::{Decision, Intake, Record, State, Store, Taken},
    template::Texts,
    tree::Tree,
    verdict::Failure,
};
use jiff::Timestamp;
use std::{fmt, sync::Arc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Why an act could not be carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The code.
    pub code: Code,
    /// What is wrong, what it means, what to do.
    pub what: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.what)
    }
}

impl From<BrokerError> for Refused {
    fn from(error: BrokerError) -> Refused {
        Refused { code: error.code, what: error.what }
    }
}

impl From<crate::store::StoreError> for Refused {
    fn from(error: crate::store::StoreError) -> Refused {
        Refused { code: error.code, what: error.what }
    }
}

fn refused<T>(code: Code, what: impl Into<String>) -> Result<T, Refused> {
    Err(Refused { code, what: what.into() })
}

/// Which dead letters are meant. Everything that is given must fit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Which {
    /// Their names, or how those begin.
    pub names: Vec<String>,
    /// Their code.
    pub code: Option<String>,
    /// Their route.
    pub route: Option<String>,
}

impl Which {
    /// Whether this letter is meant.
    pub fn fits(&self, letter: &DeadLetter) -> bool {
        let whole = if letter.key.is_empty() { &letter.sha256 } else { &letter.key };
        let named = self.names.is_empty() || self.names.iter().any(|name| whole.starts_with(name.as_str()));
        let code = self.code.as_ref().is_none_or(|code| letter.code.eq_ignore_ascii_case(code));
        let route = self.route.as_ref().is_none_or(|route| letter.route == *route);
        named && code && route
    }
}

/// Who acts, and why.
#[derive(Debug, Clone)]
pub struct Actor {
    /// The name.
    pub who: String,
    /// The reason.
    pub reason: String,
}

/// A person's word on an extract that waits; the bridge acts on it. Whether one of this number waits.
///
/// # Errors
/// The store failed.
pub async fn decide_extract(
    store: &Store,
    number: i64,
    decision: Decision,
    actor: &Actor,
) -> Result<bool, crate::store::StoreError> {
    let now = Timestamp::now().as_millisecond();
    store.decide_file(number, now, decision, actor.who.clone(), actor.reason.clone()).await
}

/// What became of a letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// The letter.
    pub letter: DeadLetter,
    /// Why nothing was done with it; absent if it was.
    pub refused: Option<Refused>,
}

/// The hands of an operator: a connection, the store, the configuration.
pub struct Desk {
    config: Config,
    store: Store,
    link: Link,
    publisher: Publisher,
    names: Names,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Desk {
    /// Connects to the broker and opens the store beside the bridge, which may be running.
    ///
    /// # Errors
    /// One of them cannot be had.
    pub async fn open(config: Config, store: Store) -> Result<Desk, Refused> {
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let link = Link::start("operator", config.broker.clone(), stop.clone(), &tasks);
        let publish = Link::start("operator publish", config.broker.clone(), stop.clone(), &tasks);
        let both = async { (link.live().await, publish.live().await) };
        let patience = first_contact(&config.broker);
        if tokio::time::timeout(patience, both).await.is_err() {
            let error = link.last_error().or(publish.last_error());
            stop.cancel();
            return match error {
                Some(error) => Err(error.into()),
                None => refused(
                    Code::BrokerUnreachable,
                    format!("no connection to the broker within {} s", patience.as_secs()),
                ),
            };
        }
        let names = Names::new(&config.prefix);
        Ok(Desk { config, store, link, publisher: Publisher::new(publish, 1), names, stop, tasks })
    }

    /// Closes the connections.
    pub async fn close(self) {
        self.stop.cancel();
        self.tasks.close();
        let _ = tokio::time::timeout(std::time::Duration::from_secs(5), self.tasks.wait()).await;
    }

    /// How many letters there are in all.
    ///
    /// # Errors
    /// The broker failed, or has no dead-letter queue.
    pub async fn count(&self) -> Result<u32, Refused> {
        let Some(live) = self.link.live().await else {
            return refused(Code::BrokerUnreachable, "we are stopping");
        };
        match crate::broker::topology::Topology::depth(&live, &self.names.dead()).await? {
            Some(count) => Ok(count),
            None => refused(Code::TopologyMissing, format!("there is no queue {}", self.names.dead())),
        }
    }

    /// Looks through the dead-letter queue; everything stays in it. At most so many that fit.
    ///
    /// # Errors
    /// The broker failed.
    pub async fn look(&self, which: &Which, most: usize) -> Result<Vec<(DeadLetter, Delivery)>, Refused> {
        let browser = Browser::open(&self.link, &self.names.dead()).await?;
        let mut found = Vec::new();
        let mut left = self.count().await?;
        // Those that come to the queue meanwhile are for the next look.
        while left > 0 && found.len() < most {
            let Some((delivery, _)) = browser.next().await? else { break };
            left -= 1;
            let letter = DeadLetter::of(&delivery.properties, &delivery.body);
            if which.fits(&letter) {
                found.push((letter, delivery));
            }
        }
        browser.close().await;
        Ok(found)
    }

    /// Replays letters: each is made ready for another try and given back to its route, safely, before it leaves the
    /// queue. With `dry`, nothing is done: only whether today's mapping would take it. `settled` is a person's word that
    /// a request in doubt was not carried out.
    ///
    /// # Errors
    /// The broker or the store failed; what was done is done, the rest is as it was.
    pub async fn replay(
        &self,
        which: &Which,
        dry: bool,
        settled: bool,
        actor: &Actor,
    ) -> Result<Vec<Done>, Refused> {
        self.act(which, async |browser: &Browser, letter: &DeadLetter, delivery: &Delivery| {
            self.would_pass(letter, delivery, settled)?;
            self.is_remembered(letter, delivery, settled).await?;
            if dry {
                return Ok(());
            }
            let replay = self.next_replay(letter).await?;
            self.give_back(letter, delivery, replay, settled).await?;
            crate::kill::point("operator.replayed");
            self.waits_again(letter, delivery, replay).await?;
            let what = if settled { "replay, not received" } else { "replay" };
            let now = Timestamp::now().as_millisecond();
            self.store.audit(now, &actor.who, what, &actor.reason, &letter.key).await?;
            crate::kill::point("operator.noted");
            browser.settle(delivery, Settle::Ack).await?;
            Ok(())
        })
        .await
    }

    /// Discards letters for good: the journal says who and why before they leave the queue.
    ///
    /// # Errors
    /// The broker or the store failed; what was done is done, the rest is as it was.
    pub async fn discard(&self, which: &Which, dry: bool, actor: &Actor) -> Result<Vec<Done>, Refused> {
        self.act(which, async |browser: &Browser, letter: &DeadLetter, delivery: &Delivery| {
            if dry {
                return Ok(());
            }
            let now = Timestamp::now().as_millisecond();
            if let Some(key) = key_of(letter) {
                let route = self.store.route(&letter.route).await?;
                self.store.record(route, now, None, vec![(key, 0, Record::Discarded)]).await?;
            }
            if !letter.item.is_empty() {
                let route = self.store.route(&letter.route).await?;
                self.store.let_go(route, letter.item.clone()).await?;
            }
            crate::kill::point("operator.discarded");
            let about = if letter.key.is_empty() { &letter.sha256 } else { &letter.key };
            self.store.audit(now, &actor.who, "discard", &actor.reason, about).await?;
            crate::kill::point("operator.noted");
            browser.settle(delivery, Settle::Ack).await?;
            Ok(())
        })
        .await
    }

    /// Goes once through the queue as it is now and does something with each letter that fits.
    async fn act(
        &self,
        which: &Which,
        act: impl AsyncFn(&Browser, &DeadLetter, &Delivery) -> Result<(), Refused>,
    ) -> Result<Vec<Done>, Refused> {
        let browser = Browser::open(&self.link, &self.names.dead()).await?;
        let mut done = Vec::new();
        let mut left = self.count().await?;
        while left > 0 {
            let Some((delivery, _)) = browser.next().await? else { break };
            left -= 1;
            let letter = DeadLetter::of(&delivery.properties, &delivery.body);
            if !which.fits(&letter) {
                continue;
            }
            let refused = act(&browser, &letter, &delivery).await.err();
            // A broker or store that fails ends it; a letter that is refused does not hold up the others.
            if let Some(refused) = refused.as_ref().filter(|refused| is_infrastructure(refused.code)) {
                return Err(refused.clone());
            }
            done.push(Done { letter, refused });
        }
        browser.close().await;
        Ok(done)
    }

    fn deliver_route(&self, letter: &DeadLetter, delivery: &Delivery) -> Option<Arc<DeliverRoute>> {
        // A letter that the broker itself put there has no mark of ours: the queue it died in, or was on its way to.
        let by_queue = delivery.properties.broker_death().map(|(queue, _)| queue);
        let fits = |route: &&Arc<DeliverRoute>| {
            route.id == letter.route
                || letter.route.is_empty()
                    && (by_queue.as_deref() == Some(&route.queue) || delivery.routing_key == route.queue)
        };
        self.config.deliver.iter().find(fits).cloned()
    }

    fn collect_route(&self, letter: &DeadLetter) -> Option<Arc<CollectRoute>> {
        self.config.collect.iter().find(|route| route.id == letter.route).cloned()
    }

    /// Whether the letter would get through reading and mapping as the files are now, and may be replayed at all.
    fn would_pass(&self, letter: &DeadLetter, delivery: &Delivery, settled: bool) -> Result<(), Refused> {
        if let Some(route) = self.deliver_route(letter, delivery) {
            if letter.doubt
                && !settled
                && !matches!(route.plan.repeat, Repeat::Probe | Repeat::Key | Repeat::Harmless)
            {
                return refused(
                    Code::NotReplayable,
                    "the request may have been carried out, and the system cannot be asked: look there first, then replay with --not-received, or discard",
                );
            }
            return deliver_would_pass(&route, delivery);
        }
        if let Some(route) = self.collect_route(letter) {
            return collect_would_pass(&self.config, &route, letter, delivery);
        }
        refused(
            Code::NotReplayable,
            format!("no route `{}` is in the settings: there is nowhere to replay it to", letter.route),
        )
    }

    /// A letter may be left of a message that was done all the same. The journal knows that, for as long as it remembers; what it
    /// does not know is sent again only where that is harmless, or on a person's word.
    async fn is_remembered(
        &self,
        letter: &DeadLetter,
        delivery: &Delivery,
        settled: bool,
    ) -> Result<(), Refused> {
        let Some(route) = self.deliver_route(letter, delivery) else { return Ok(()) };
        let harmless = matches!(route.plan.repeat, Repeat::Probe | Repeat::Key | Repeat::Harmless);
        // What the broker itself gave up carries no name of ours, and has not been sent by us.
        if settled || harmless || letter.key.is_empty() || self.journal(letter).await?.is_some() {
            return Ok(());
        }
        refused(
            Code::NotReplayable,
            "the journal does not know this message, or no longer: nobody remembers whether it has been done since. Look in the system first, then replay with --not-received, or discard",
        )
    }

    /// The number of a letter's next replay. Another copy of it may have been replayed since, so that the letter's own count
    /// is behind: then it would be taken for that one's duplicate, and be gone.
    async fn next_replay(&self, letter: &DeadLetter) -> Result<u32, Refused> {
        let known = match key_of(letter) {
            Some(key) => self.store.replays(self.store.route(&letter.route).await?, key).await?,
            None => 0,
        };
        Ok(letter.replay.max(known) + 1)
    }

    /// What lies in its route's queue again is no dead letter any more: the account says so before it leaves the letters.
    async fn waits_again(
        &self,
        letter: &DeadLetter,
        delivery: &Delivery,
        replay: u32,
    ) -> Result<(), Refused> {
        let Some((route, key)) = self.deliver_route(letter, delivery).zip(key_of(letter)) else {
            return Ok(());
        };
        let (number, now) = (self.store.route(&route.id).await?, Timestamp::now().as_millisecond());
        Ok(self.store.replayed(number, key, replay, now).await?)
    }

    async fn give_back(
        &self,
        letter: &DeadLetter,
        delivery: &Delivery,
        replay: u32,
        settled: bool,
    ) -> Result<(), Refused> {
        if let Some(route) = self.deliver_route(letter, delivery) {
            let message = Message {
                exchange: self.names.back(),
                routing_key: route.queue.clone(),
                properties: letter::for_replay(&delivery.properties, replay, settled),
                body: delivery.body.clone(),
            };
            let results = self.publisher.publish_surely(&[message], &self.stop).await.unwrap_or_default();
            return match results.into_iter().next() {
                Some(Published::Confirmed) => Ok(()),
                Some(Published::Returned(_)) => refused(
                    Code::TopologyMissing,
                    format!("the queue {} is not there: is the route running?", route.queue),
                ),
                Some(Published::Refused(error)) => Err(error.into()),
                Some(Published::Nacked | Published::NotSent(_) | Published::Unknown(_)) | None => {
                    refused(Code::BrokerUnreachable, "the broker did not confirm")
                }
            };
        }
        let now = Timestamp::now().as_millisecond();
        let number = self.store.route(&letter.route).await?;
        if !letter.item.is_empty() {
            return match self.store.ask_now(number, letter.item.clone(), key_of(letter), now).await? {
                true => Ok(()),
                false => refused(
                    Code::NotReplayable,
                    "the item that this letter is about is not in the store, or has come to its end meanwhile: discard the letter",
                ),
            };
        }
        let Some(key) = key_of(letter) else {
            return refused(Code::NotReplayable, "the letter does not say which document it is");
        };
        let intake = Intake {
            key,
            id: letter.id.clone(),
            replay,
            content_type: delivery.properties.content_type().map(str::to_owned),
            body: delivery.body.to_vec(),
        };
        match self.store.take_in(number, now, vec![intake], None).await? {
            Taken::Stored(_) => Ok(()),
            Taken::Full => Err(self.store.full().into()),
        }
    }

    /// How the journal has a letter's message.
    ///
    /// # Errors
    /// The store failed.
    pub async fn journal(&self, letter: &DeadLetter) -> Result<Option<(State, bool)>, Refused> {
        let Some(key) = key_of(letter) else { return Ok(None) };
        let route = self.store.route(&letter.route).await?;
        Ok(self.store.state(route, key).await?)
    }

    /// Notes that somebody looked at a body.
    ///
    /// # Errors
    /// The store failed.
    pub async fn opened(&self, letter: &DeadLetter, actor: &Actor) -> Result<(), Refused> {
        let about = if letter.key.is_empty() { &letter.sha256 } else { &letter.key };
        let now = Timestamp::now().as_millisecond();
        Ok(self.store.audit(now, &actor.who, "open body", &actor.reason, about).await?)
    }
}

fn is_infrastructure(code: Code) -> bool {
    matches!(
        code,
        Code::BrokerUnreachable
            | Code::BrokerLoginRefused
            | Code::StoreUnavailable
            | Code::StoreFull
            | Code::BrokerBlocked
    )
}

fn key_of(letter: &DeadLetter) -> Option<Key> {
    let mut key = [0; 32];
    if letter.key.len() != 64 {
        return None;
    }
    for (at, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(letter.key.get(at * 2..at * 2 + 2)?, 16).ok()?;
    }
    Some(Key(key))
}

fn of_failure(failure: Failure) -> Refused {
    Refused { code: failure.code, what: format!("it would fail again: {}", failure.what) }
}

fn deliver_would_pass(route: &DeliverRoute, delivery: &Delivery) -> Result<(), Refused> {
    let arrived = delivery.properties.arrived(&delivery.body);
    let event = event::decode(&arrived, route.plan.accept, &Limits::default())
        .map_err(|bad| Refused { code: bad.code, what: format!("it would fail again: {}", bad.what) })?;
    if event.event_type != route.plan.event.event_type {
        let what = format!("it would fail again: the route reads {}", route.plan.event.event_type);
        return refused(Code::UnknownEventType, what);
    }
    if let Some(breach) = route.plan.event.breaches(&event.data).into_iter().next() {
        return refused(
            Code::EventBreaksSchema,
            format!("it would fail again: `{}`: {}", breach.field, breach.what),
        );
    }
    let Some(mapping) = &route.plan.mapping else { return Ok(()) };
    // What is read before the first attempt, and what is computed from it, is not known here: only what needs neither
    // is tried out.
    let values: Texts = mapping.values_used().into_iter().map(|name| (name, "0".to_owned())).collect();
    let whole = |event: &Event| {
        let context = Context {
            settings: &route.instance.settings,
            values: &values,
            cause: None,
            now: Timestamp::now(),
            trace: None,
        };
        mapping.to_document(event, context)
    };
    let needs_cause = route.plan.before.is_some();
    let parts: Vec<Event> = match &route.plan.each {
        None => vec![event],
        Some(each) => crate::deliver::parts_of(&event, each),
    };
    for part in parts {
        match whole(&part) {
            Ok(_) => {}
            Err(failures)
                if needs_cause && failures.all.iter().all(|failure| failure.code == Code::ValueMissing) => {}
            Err(failures) => return Err(of_failure(emit::of_mapping(&failures))),
        }
    }
    Ok(())
}

fn collect_would_pass(
    config: &Config,
    route: &CollectRoute,
    letter: &DeadLetter,
    delivery: &Delivery,
) -> Result<(), Refused> {
    // What is fetched or asked for is not here: only what came as it is can be tried out.
    let fetched = !route.plan.fetch.is_empty() || matches!(route.plan.source, Source::Ask(_));
    let passes_on = matches!(&route.plan.source, Source::Consume(consume) if consume.events);
    // What was remembered of what was sent is looked up when it comes to it.
    let matched = route.plan.events.iter().any(|rule| rule.about.is_some());
    if fetched || passes_on || matched {
        return Ok(());
    }
    let content_type = delivery.properties.content_type();
    let charset = content_type.and_then(crate::system::answer::charset_of);
    let origin = content_type.and_then(Origin::of);
    let cause = origin.as_ref().map(Origin::tree);
    let document: Tree = route
        .plan
        .format
        .read(&delivery.body, charset.as_deref(), route.plan.layout.as_deref(), &Limits::default())
        .map_err(|error| Refused { code: error.code, what: format!("it would fail again: {error}") })?;
    let ground = Ground {
        instance: &route.instance,
        council: &config.council,
        document: &document,
        cause: cause.as_ref(),
        change: origin.and_then(|origin| origin.change),
        about: None,
        event: None,
        identity: &letter.id,
        now: Timestamp::now(),
        trace: None,
    };
    emit::emit(&route.plan.events, ground).map(|_| ()).map_err(of_failure)
}
