//! What a deliver route does with its gate: asks it before each message, tells it how each attempt has ended, and says
//! how old what waits is.

use super::{
    Deliverer, Letter,
    attempt::{self, Costs, Done, End},
};
use crate::{
    broker::{Delivery, Settle, lane::Browser},
    event::Event,
    gate::{Said, State, Then},
    keeper::says,
    store::{Record, Went},
    verdict,
};
use jiff::Timestamp;
use std::{sync::Arc, time::Duration};
use tracing::warn;

/// How often it is looked at what waits.
const LOOK: Duration = Duration::from_secs(60);

impl Deliverer {
    /// Sends one message or part, if the gate lets it, and tells the gate how that ended.
    pub(super) async fn send(
        &self,
        letter: &Letter,
        event: &Event,
        part: u32,
        went: Went,
    ) -> Result<Done, End> {
        if !self.keeper.may_send() {
            // The whole is given back by whoever asked; a part has a claim of its own.
            if part > 0 {
                self.record(letter, part, Record::GivenBack).await?;
            }
            return Err(End::GiveBack);
        }
        match attempt::send(self, letter, event, part, went).await {
            Ok(done) => {
                self.got_through(letter);
                Ok(done)
            }
            Err(end) => Err(self.weigh(letter, end)),
        }
    }

    pub(super) fn got_through(&self, letter: &Letter) {
        // That it has got through makes nothing of it dearer or cheaper.
        let (Then::Judge | Then::Spare) = self.keeper.ended(letter.key, None, Said::There);
    }

    /// Tells the gate how an attempt has failed. What fails because the system is away costs the message nothing: it waits,
    /// and is not given up, however long that is.
    pub(super) fn weigh(&self, letter: &Letter, end: End) -> End {
        let failure = match &end {
            End::GiveBack => return end,
            End::Later { failure, .. } | End::Dead { failure, .. } => failure,
        };
        match self.keeper.ended(letter.key, Some(failure), says(failure)) {
            Then::Judge => end,
            Then::Spare => self.spared(letter, end),
        }
    }

    fn spared(&self, letter: &Letter, end: End) -> End {
        let (failure, doubt, first_failed) = match end {
            End::GiveBack => return End::GiveBack,
            End::Later { failure, doubt, first_failed, .. } => (failure, doubt, first_failed),
            End::Dead { failure, doubt, .. } => (failure, doubt, Timestamp::now()),
        };
        // Nothing that was its own fault has failed yet, so the time in which it may fail has not begun.
        let first_failed = if letter.past.attempt > 1 { first_failed } else { Timestamp::now() };
        let wait = verdict::wait(1, &self.route.plan.retry);
        End::Later { failure, wait, doubt, first_failed, costs: Costs::Nothing }
    }

    /// Says from time to time how old what waits longest is, until it is stopped.
    pub(super) async fn telling(self: Arc<Self>) {
        let every = LOOK.min(self.keeper.tell_after() / 4).max(Duration::from_millis(250));
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(every) => {}
            }
            let waiting = match self.store.oldest_waiting(self.number).await {
                Ok(waiting) => waiting.and_then(|at| Timestamp::from_millisecond(at).ok()),
                Err(error) => {
                    warn!(route = self.route.id, code = %error.code, "it cannot be seen what waits: {}", error.what);
                    continue;
                }
            };
            let queued = match self.keeper.state() {
                // What is there is taken.
                State::Open | State::Probing(_) => None,
                // A look takes a message out for a moment, and gives it back behind others: that would break the order.
                State::Closed { .. } | State::Paused(_) | State::Tripped(_)
                    if self.route.plan.order.is_some() =>
                {
                    None
                }
                State::Closed { .. } | State::Paused(_) | State::Tripped(_) => tokio::select! {
                    () = self.stop.cancelled() => return,
                    head = self.head() => head,
                },
            };
            self.keeper.waits_since([waiting, queued].into_iter().flatten().min());
        }
    }

    /// Since when the first message of the queue has been on its way, as its sender says. It is looked at and given back.
    async fn head(&self) -> Option<Timestamp> {
        let browser = Browser::open(&self.link, &self.route.queue).await.ok()?;
        let delivery: Option<Delivery> = match browser.next().await {
            Ok(found) => found.map(|(delivery, _)| delivery),
            Err(error) => {
                warn!(route = self.route.id, code = %error.code, "it cannot be seen what waits: {}", error.what);
                None
            }
        };
        let mut since = None;
        if let Some(delivery) = delivery {
            since = self.sent_at(&delivery);
            let _ = browser.settle(&delivery, Settle::GiveBack).await;
        }
        browser.close().await;
        since
    }

    fn sent_at(&self, delivery: &Delivery) -> Option<Timestamp> {
        let arrived = delivery.properties.arrived(&delivery.body);
        let limits = crate::format::Limits::default();
        let event = crate::event::decode(&arrived, self.route.plan.accept, &limits).ok()?;
        event.time?.parse().ok()
    }
}
