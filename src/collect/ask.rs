//! Asking about open items until they are settled. Asking only reads, so it may be repeated at any time; an item is
//! settled only when the broker has confirmed the event in which it ended.

use super::{Call, Collector, Given, Stopped, millis, now};
use crate::{
    broker::Properties,
    code::Code,
    config::plan::{Ask, Source},
    emit::{self, Emitted},
    event::Key,
    format::{Limits, parse_json},
    retry::Delays,
    store::{BEFORE_A_PERSON, Item, State},
    system::{Heard, System, classify, sign},
    template::Texts,
    tree::{Name, Record, Tree},
    verdict::{Class, Failure},
};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use std::{sync::Arc, time::Duration};
use tracing::{error, warn};

/// How many items are asked about in one round.
const ROUND: u32 = 64;

impl Collector {
    /// Asks about what is due until it is stopped.
    pub(super) async fn asking(self: Arc<Self>) {
        let Source::Ask(ask) = &self.route.plan.source else { return };
        let mut delays = Delays::new(Duration::from_millis(200), Duration::from_secs(15));
        while let Some(_ticket) = self.keeper.pass(&self.stop).await {
            let due = match self.store.due_items(self.number, now(), ROUND).await {
                Ok(due) => due,
                Err(error) => {
                    error!(route = self.route.id, code = %error.code, "open items cannot be read: {}", error.what);
                    self.pause(delays.delay()).await;
                    continue;
                }
            };
            delays.reset();
            if let Ok(count) = self.store.open_items(self.number).await {
                self.open_items(count);
            }
            if due.is_empty() {
                self.pause(Duration::from_millis(500)).await;
                continue;
            }
            let (this, at_once) = (&*self, self.route.concurrency as usize);
            stream::iter(due)
                .for_each_concurrent(at_once, |item| async move {
                    if let Err(Stopped::Store) = this.about(ask, &item).await {
                        this.pause(Duration::from_secs(1)).await;
                    }
                })
                .await;
        }
    }

    /// One question about one item.
    async fn about(&self, ask: &Ask, item: &Item) -> Result<(), Stopped> {
        let cause = parse_json(&item.cause, &Limits::default()).unwrap_or_default();
        let (heard, result) = self.question(ask, item, &cause).await;
        let old = Duration::from_millis(u64::try_from(now() - item.opened_at).unwrap_or(0)) >= ask.give_up;
        match result {
            Ok(emitted) if !emitted.wait => self.settle(item, emitted).await,
            Ok(_) if old => {
                let what = "still open in the system after the time the adapter gives it; nobody asks about it any more";
                self.bury(item, heard, &Failure::not_done(Code::StillOpen, what)).await
            }
            Ok(_) => self.again(item, 0).await,
            Err(failure) if failure.class == Class::Refused || old => self.bury(item, heard, &failure).await,
            Err(failure) => {
                warn!(route = self.route.id, code = %failure.code, "an open item could not be asked about: {}", failure.what);
                self.again(item, item.failed + 1).await
            }
        }
    }

    async fn question(
        &self,
        ask: &Ask,
        item: &Item,
        cause: &Tree,
    ) -> (Option<Heard>, Result<Emitted, Failure>) {
        let System::Http(system) = &*self.system else {
            let failure = Failure::refused(Code::ExclusiveKeys, "ask", "only systems over HTTP are asked");
            return (None, Err(failure));
        };
        let this = Tree::Record(Record::from_iter([(Name::plain("key"), Tree::text(&item.key))]));
        let call = Call { cause: Some(cause), item: Some(&this), ..self.call() };
        let instance = &self.route.instance;
        let values = match sign::values(instance, &call.scope(&Texts::new())) {
            Ok(values) => values,
            Err(failure) => return (None, Err(failure)),
        };
        let scope = call.scope(&values);
        let body = match &ask.request.mapping {
            None => None,
            Some(mapping) => {
                // A question is made of the event that opened the item, where that was kept, and of the item's key.
                let data = cause.at(&["event"]).cloned().unwrap_or_default();
                let event = crate::event::Event { id: item.key.clone(), data, ..Default::default() };
                let context = crate::mapping::Context {
                    settings: &instance.settings,
                    values: &values,
                    cause: Some(&with_item(cause, &this)),
                    now: call.now,
                    trace: None,
                };
                let document = match mapping.to_document(&event, context) {
                    Ok(document) => document,
                    Err(failures) => return (None, Err(emit::of_mapping(&failures))),
                };
                match mapping.format.encode(&document, &mapping.style) {
                    Ok(bytes) => Some(crate::system::Body {
                        bytes: Bytes::from(bytes),
                        content_type: format!("{}; charset=utf-8", mapping.format.media_type()),
                    }),
                    Err(error) => return (None, Err(Failure::refused(error.code, "", error.what))),
                }
            }
        };
        let began = std::time::Instant::now();
        // A question only reads, whatever the method by which it is asked.
        let heard = system
            .call(&ask.request, &scope, body, None)
            .await
            .map(|heard| Heard { reads_only: true, ..heard });
        self.metrics.request(&self.route.id, began.elapsed());
        let heard = match heard {
            Ok(heard) => heard,
            Err(failure) => return (None, Err(Failure { class: no_doubt(failure.class), ..failure })),
        };
        let result =
            classify(&heard, &ask.answers, Some(self.route.plan.format), system.error_code(), &scope)
                .map_err(|failure| Failure { class: no_doubt(failure.class), ..failure })
                .and_then(|said| {
                    let document = said.document.unwrap_or_default();
                    emit::emit(&self.route.plan.events, self.ground(&document, Some(cause), &item.key))
                });
        (Some(heard), result)
    }

    async fn again(&self, item: &Item, failed: u32) -> Result<(), Stopped> {
        let index = item.asked as usize + 1;
        let wait =
            self.route.pace.get(index).or(self.route.pace.last()).copied().unwrap_or(Duration::from_secs(60));
        self.store.asked(item.n, now() + millis(wait), failed, false).await.map_err(|error| {
            error!(route = self.route.id, code = %error.code, "an answer cannot be noted: {}", error.what);
            Stopped::Store
        })
    }

    /// The item has come to its end: the events are published and confirmed, then it is closed.
    async fn settle(&self, item: &Item, emitted: Emitted) -> Result<(), Stopped> {
        let outcome = emitted.events.last().map(|event| event.event_type.clone()).unwrap_or_default();
        let mut known = self.published_of(std::iter::once(&emitted)).await?;
        let mut messages = Vec::new();
        let (state, published, opens) = self.news_of(emitted, &mut known, &mut messages).await?;
        self.publish(&messages).await?;
        crate::kill::point("ask.published");
        let settled = crate::store::Settled {
            n: item.n,
            key: Key::of(&self.route.id, &item.key),
            id: item.key.clone(),
            state,
            outcome,
            published,
            opens,
            code: None,
        };
        self.store.settle_item(self.number, now(), settled).await.map_err(|error| {
            error!(route = self.route.id, code = %error.code, "an item cannot be settled, it will be asked about again: {}", error.what);
            Stopped::Store
        })?;
        self.metrics.count(&self.route.id, "delivered", 1);
        Ok(())
    }

    /// The answer goes before a person, whole; the item waits for that person, who can have it asked about again.
    async fn bury(&self, item: &Item, heard: Option<Heard>, failure: &Failure) -> Result<(), Stopped> {
        self.metrics.dead(&self.route.id, failure.code.as_str());
        warn!(route = self.route.id, code = %failure.code, "an open item goes before a person: {}", failure.what);
        let content_type = heard.as_ref().and_then(|heard| heard.content_type.clone());
        let body = heard.map(|heard| heard.body).unwrap_or_default();
        let key = Key::of(&self.route.id, &item.key);
        let properties = Properties::of_document(
            content_type.as_deref().unwrap_or(self.route.plan.format.media_type()),
            None,
        );
        let given = Given {
            key: key.to_string(),
            id: &item.key,
            attempts: item.asked + 1,
            replay: 0,
            item: Some(&item.key),
        };
        let message = self.dead_letter(properties, body, failure, failure.code, &given);
        self.publish(&[message]).await?;
        crate::kill::point("ask.published");
        let settled = crate::store::Settled {
            n: item.n,
            key,
            id: item.key.clone(),
            state: State::Dead,
            outcome: BEFORE_A_PERSON.to_owned(),
            published: Vec::new(),
            opens: Vec::new(),
            code: Some(failure.code.as_str()),
        };
        self.store.settle_item(self.number, now(), settled).await.map_err(|_| Stopped::Store)
    }
}

/// What was kept, with the item itself beside it, for mappings of questions.
fn with_item(cause: &Tree, item: &Tree) -> Tree {
    let mut record = cause.as_record().cloned().unwrap_or_default();
    record.set("item", item.clone());
    Tree::Record(record)
}

/// To a question there is no doubt: it is asked again.
fn no_doubt(class: Class) -> Class {
    match class {
        Class::Unknown | Class::NotDone | Class::Away => Class::NotDone,
        Class::Refused | Class::Guarded => Class::Refused,
    }
}
