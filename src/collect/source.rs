//! Where documents come from: requests that are received, polls, and queues. All of them end in the spool.

use super::{Call, Collector, now};
use crate::{
    broker::{Lane, Settle},
    code::Code,
    config::plan::{Consume, Poll, Progress, Source},
    event::{Key, hex},
    keeper::Ticket,
    retry::Delays,
    store::{Intake, Taken},
    system::{
        System, classify,
        receiver::{Received, Stored},
        sign,
    },
    telemetry::Metrics,
    template::{Scope, Texts},
    tree::{Name, Record, Tree},
    verdict::Failure,
};
use jiff::{Timestamp, tz::TimeZone};
use std::{sync::Arc, time::Duration};
use tracing::{error, warn};

/// How many pages of one poll are read at most: a link that leads in circles must end.
const MOST_PAGES: u32 = 10_000;
/// How many deliveries of a queue are taken in at once.
const WINDOW: usize = 256;

impl Collector {
    /// Takes in a document that was received.
    pub async fn received(self: Arc<Self>, received: Received) -> Stored {
        if self.keeper.is_paused() {
            return Stored::NotNow;
        }
        let intake = self.intake(received.body.to_vec(), received.content_type);
        match self.take_in(vec![intake], None).await {
            Ok(()) => Stored::Yes,
            Err(_) => Stored::NotNow,
        }
    }

    /// A document with its identity: what the route's `key` makes of it, or else its bytes.
    pub(super) fn intake(&self, body: Vec<u8>, content_type: Option<String>) -> Intake {
        let named = self.route.plan.key.as_ref().and_then(|template| {
            let document = self.read(&body, content_type.as_deref()).ok()?;
            let scope = Scope {
                document: Some(&document),
                settings: Some(&self.route.instance.settings),
                ..Scope::default()
            };
            template.render(&scope).ok().filter(|key| !key.trim().is_empty())
        });
        let id = named.unwrap_or_else(|| {
            let digest = hex(ring::digest::digest(&ring::digest::SHA256, &body).as_ref());
            format!("sha256:{digest}")
        });
        Intake { key: Key::of(&self.route.id, &id), id, replay: 0, content_type, body }
    }

    /// Puts documents on disk, and the cursor with them.
    pub(super) async fn take_in(&self, intakes: Vec<Intake>, cursor: Option<String>) -> Result<(), Failure> {
        match self.store.take_in(self.number, now(), intakes, cursor).await {
            Ok(Taken::Stored(new)) => {
                self.count_taken(&new);
                crate::kill::point("collect.spooled");
                Ok(())
            }
            Ok(Taken::Full) => {
                let full = self.store.full();
                warn!(route = self.route.id, code = %full.code, "nothing is taken in: {}", full.what);
                Err(Failure::not_done(Code::SpoolFull, full.what))
            }
            Err(error) => {
                error!(route = self.route.id, code = %error.code, "nothing is taken in: {}", error.what);
                Err(Failure::not_done(error.code, error.what))
            }
        }
    }

    /// Counts what was taken in, by whether it is new, and has it forwarded.
    pub(super) fn count_taken(&self, new: &[bool]) {
        let fresh = new.iter().filter(|new| **new).count();
        for _ in 0..fresh {
            Metrics::inc(&self.metrics.taken_in, &self.route.id);
        }
        if new.len() > fresh {
            self.metrics.count(&self.route.id, "duplicate", (new.len() - fresh) as u64);
        }
        self.metrics.spool_bytes.set(i64::try_from(self.store.spool_bytes()).unwrap_or(i64::MAX));
        self.bell.notify_one();
    }

    /// Looks from time to time what is new.
    pub(super) async fn polling(self: Arc<Self>) {
        let Source::Poll(poll) = &self.route.plan.source else { return };
        let every = self.route.pace.first().copied().unwrap_or(poll.every);
        let mut delays = Delays::new(Duration::from_secs(1), every.max(Duration::from_secs(60)));
        while let Some(_ticket) = self.keeper.pass(&self.stop).await {
            let pause = match self.look(poll).await {
                Ok(()) => {
                    delays.reset();
                    every
                }
                Err(failure) => {
                    warn!(route = self.route.id, code = %failure.code, "nothing could be looked up: {}", failure.what);
                    delays.delay().max(failure.retry_after.unwrap_or_default())
                }
            };
            self.pause(pause).await;
        }
    }

    /// One look: every page of what is new.
    async fn look(&self, poll: &Poll) -> Result<(), Failure> {
        let System::Http(system) = &*self.system else {
            return Err(Failure::refused(Code::ExclusiveKeys, "poll", "only systems over HTTP are polled"));
        };
        let stored = self
            .store
            .cursor(self.number)
            .await
            .map_err(|error| Failure::not_done(error.code, error.what))?;
        let mut look = Look::begin(&poll.progress, stored, Timestamp::now());
        let mut link: Option<String> = None;
        for page in 1..=MOST_PAGES {
            let call = Call {
                more: vec![("cursor", look.cursor()), ("page", Tree::integer(i64::from(page)))],
                ..self.call()
            };
            let values = sign::values(&self.route.instance, &call.scope(&Texts::new()))?;
            let scope = call.scope(&values);
            let began = std::time::Instant::now();
            let heard = match &link {
                None => system.call(&poll.request, &scope, None, None).await,
                Some(link) => system.call_link(&poll.request, link, &scope).await,
            };
            self.metrics.request(&self.route.id, began.elapsed());
            let said =
                classify(&heard?, &poll.answers, Some(self.route.plan.format), system.error_code(), &scope)?;
            let document = match said.meaning {
                crate::config::raw::adapter::Meaning::Absent => Tree::Null,
                _ => said.document.unwrap_or_default(),
            };
            let entries = poll.split.find_all(&document);
            for entry in &entries {
                look.saw(entry);
            }
            let mut intakes = Vec::with_capacity(entries.len());
            for entry in &entries {
                let body = self
                    .route
                    .plan
                    .format
                    .encode(&whole(entry, poll), &crate::format::Style::default())
                    .map_err(|error| Failure::refused(error.code, "split", error.what))?;
                intakes.push(self.intake(body, Some(self.route.plan.format.media_type().to_owned())));
            }
            link = poll
                .next
                .as_ref()
                .and_then(|path| path.find(&document)?.to_plain_text())
                .filter(|link| !link.is_empty());
            let last = link.is_none() && (!poll.pages || entries.is_empty());
            // The cursor moves in the same commit as the last page: a crash before that looks again, and finds duplicates.
            self.take_in(intakes, last.then(|| look.end()).flatten()).await?;
            if last || self.stop.is_cancelled() {
                return Ok(());
            }
        }
        Err(Failure::refused(
            Code::AnswerTooLarge,
            "next",
            format!("more than {MOST_PAGES} pages: the links may lead in circles"),
        ))
    }

    /// Consumes a queue of the system's broker.
    pub(super) async fn consuming(self: Arc<Self>) {
        let (Source::Consume(consume), System::Amqp(system)) = (&self.route.plan.source, &*self.system)
        else {
            return;
        };
        let queue = match self.route.instance.render(&consume.queue) {
            Ok(queue) => queue,
            Err(failed) => {
                error!(route = self.route.id, code = %Code::TemplateFailed, "the queue's name cannot be made: {failed}");
                return;
            }
        };
        let mut delays = Delays::new(Duration::from_millis(200), Duration::from_secs(15));
        while let Some(ticket) = self.keeper.pass(&self.stop).await {
            match Lane::open(&system.link, &queue, WINDOW, &self.route.id, &self.stop).await {
                Ok(None) => return,
                Ok(Some(lane)) => {
                    delays.reset();
                    self.drain(lane, consume, &ticket).await;
                }
                Err(error) => {
                    warn!(route = self.route.id, code = %error.code, "cannot consume: {}", error.what)
                }
            }
            self.pause(delays.delay()).await;
        }
    }

    async fn drain(&self, mut lane: Lane, consume: &Consume, ticket: &Ticket) {
        loop {
            let taken = tokio::select! {
                biased;
                () = self.stop.cancelled() => return lane.close().await,
                () = ticket.over() => return lane.close().await,
                taken = lane.take() => taken,
            };
            let deliveries = match taken {
                Ok(deliveries) => deliveries,
                Err(error) => {
                    if !self.stop.is_cancelled() {
                        warn!(route = self.route.id, code = %error.code, "the lane is lost: {}", error.what);
                    }
                    return;
                }
            };
            let intakes = deliveries
                .iter()
                .map(|delivery| {
                    let content_type = delivery.properties.content_type().map(str::to_owned);
                    // An event's own identity, a message's id, or the bytes: a redelivery is known by it.
                    let mut intake = self.intake(delivery.body.to_vec(), content_type);
                    if self.route.plan.key.is_none()
                        && let Some(id) = delivery.properties.message_id().filter(|_| !consume.events)
                    {
                        intake.id = id.to_owned();
                        intake.key = Key::of(&self.route.id, id);
                    }
                    intake
                })
                .collect();
            let settle = match self.take_in(intakes, None).await {
                Ok(()) => Settle::Ack,
                Err(_) => {
                    self.pause(Duration::from_secs(5)).await;
                    Settle::GiveBack
                }
            };
            let settled = deliveries.into_iter().map(|delivery| (delivery, settle)).collect();
            if let Err(error) = lane.settle(settled).await {
                warn!(route = self.route.id, code = %error.code, "the lane is lost: {}", error.what);
                return;
            }
            crate::kill::point("collect.acknowledged");
        }
    }
}

/// An entry of a list as a document of its own: in XML it keeps its element.
fn whole(entry: &Tree, poll: &Poll) -> Tree {
    match poll.split.split_last() {
        Some((step, _)) if step.name.space.is_some() => {
            Tree::Record(Record::from_iter([(step.name.clone(), entry.clone())]))
        }
        _ => entry.clone(),
    }
}

/// How far one look reaches.
enum Look<'p> {
    All,
    Window { from: Timestamp, to: Timestamp, pattern: Option<&'p str> },
    Cursor { path: &'p crate::mapping::path::Path, last: String },
}

impl<'p> Look<'p> {
    fn begin(progress: &'p Progress, stored: Option<String>, now: Timestamp) -> Look<'p> {
        let back = |from: Timestamp, by: Duration| from.checked_sub(by).unwrap_or(from);
        match progress {
            Progress::All => Look::All,
            Progress::Window { lag, overlap, first, pattern } => {
                let to = back(now, *lag);
                let from = match stored.and_then(|text| text.parse::<Timestamp>().ok()) {
                    Some(before) => back(before, *overlap),
                    None => back(to, *first),
                };
                Look::Window { from: from.min(to), to, pattern: pattern.as_deref() }
            }
            Progress::Cursor { path, first } => {
                Look::Cursor { path, last: stored.unwrap_or_else(|| first.clone()) }
            }
        }
    }

    /// What templates see as `cursor`.
    fn cursor(&self) -> Tree {
        let text = |name: &str, value: String| (Name::plain(name), Tree::text(value));
        Tree::Record(match self {
            Look::All => Record::new(),
            Look::Window { from, to, pattern } => Record::from_iter([
                text("from", written(*from, *pattern)),
                text("to", written(*to, *pattern)),
            ]),
            Look::Cursor { last, .. } => Record::from_iter([text("last", last.clone())]),
        })
    }

    fn saw(&mut self, entry: &Tree) {
        if let Look::Cursor { path, last } = self
            && let Some(value) = path.find(entry).and_then(Tree::to_plain_text)
            && later(&value, last)
        {
            *last = value;
        }
    }

    /// Where the next look begins.
    fn end(&self) -> Option<String> {
        match self {
            Look::All => None,
            Look::Window { to, .. } => Some(to.to_string()),
            Look::Cursor { last, .. } => Some(last.clone()),
        }
    }
}

/// Whether a cursor's value is behind another: as numbers if both are, else as texts.
fn later(value: &str, than: &str) -> bool {
    match (value.parse::<i64>(), than.parse::<i64>()) {
        (Ok(a), Ok(b)) => a > b,
        _ => value > than,
    }
}

fn written(moment: Timestamp, pattern: Option<&str>) -> String {
    let pattern = pattern.unwrap_or("%Y-%m-%dT%H:%M:%SZ");
    jiff::fmt::strtime::format(pattern, &moment.to_zoned(TimeZone::UTC))
        .unwrap_or_else(|_| moment.to_string())
}
