//! A lane: one consumer on one channel, from which deliveries are taken in windows and settled by the same hand.
//!
//! The broker keeps back what is not yet settled (prefetch), so a lane never holds more than twice its window. An ended
//! consumer, a dead channel and an acknowledgement that did not count are all the same: the lane is lost, and what it
//! held comes again.

use super::{BrokerError, Link, link::Live, message::Properties};
use crate::code::Code;
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use lapin::{
    Acker, Channel, Consumer,
    options::{
        BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicGetOptions, BasicNackOptions,
        BasicQosOptions, BasicRejectOptions,
    },
    types::{FieldTable, ShortString},
};
use std::{collections::VecDeque, time::Duration};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// A message as delivered.
#[derive(Debug)]
pub struct Delivery {
    /// The properties.
    pub properties: Properties,
    /// The body, byte for byte.
    pub body: Bytes,
    /// The exchange it was last published to.
    pub exchange: String,
    /// The routing key it was last published with.
    pub routing_key: String,
    /// Whether the broker has delivered it before.
    pub redelivered: bool,
    /// Its number on its channel: they grow.
    tag: u64,
    /// Nothing for one that came from our own store: there is nobody to tell.
    acker: Option<Acker>,
}

/// How a delivery is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settle {
    /// It is done with, wherever it is now: the broker may forget it.
    Ack,
    /// Given back unprocessed.
    GiveBack,
    /// It failed and must not come again: the broker dead-letters it. The net below our own dead-lettering.
    Reject,
}

/// One consumer.
pub struct Lane {
    channel: Channel,
    consumer: Consumer,
    live: Live,
    tag: String,
    window: usize,
}

/// Messages that the consumer of an ordered queue is given ahead. Another number must not be smaller: see [`InOrder::open`].
const IN_ORDER: u16 = 2_048;

impl Lane {
    /// Begins to consume a queue; `None` when we are stopping. While the broker is away it waits for it, which does not
    /// hold up a stop.
    ///
    /// # Errors
    /// What the broker or the network says.
    pub async fn open(
        link: &Link,
        queue: &str,
        window: usize,
        tag: &str,
        stop: &CancellationToken,
    ) -> Result<Option<Lane>, BrokerError> {
        let prefetch = u16::try_from(window.saturating_mul(2)).unwrap_or(u16::MAX).max(1);
        // One message at a time means one: nothing is held back for a slow system.
        let prefetch = if window == 1 { 1 } else { prefetch };
        Lane::begin(link, queue, window, prefetch, tag, stop).await
    }

    async fn begin(
        link: &Link,
        queue: &str,
        window: usize,
        prefetch: u16,
        tag: &str,
        stop: &CancellationToken,
    ) -> Result<Option<Lane>, BrokerError> {
        let begin = async {
            let Some(live) = link.live().await else { return Ok(None) };
            let channel = live.channel().await?;
            let begin = async {
                channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
                channel
                    .basic_consume(
                        name(queue),
                        name(tag),
                        BasicConsumeOptions::default(),
                        FieldTable::default(),
                    )
                    .await
            };
            let consumer = live.call(&format!("consuming {queue}"), begin).await?;
            Ok(Some(Lane { channel, consumer, live, tag: tag.to_owned(), window }))
        };
        tokio::select! {
            () = stop.cancelled() => Ok(None),
            begun = begin => begun,
        }
    }

    /// The next deliveries: waits for one, then takes what else is there, up to the window.
    ///
    /// # Errors
    /// The lane is lost.
    pub async fn take(&mut self) -> Result<Vec<Delivery>, BrokerError> {
        let mut taken = Vec::new();
        let first = tokio::select! {
            () = self.live.dead.cancelled() => return Err(BrokerError::new(Code::BrokerUnreachable, "the connection has ended")),
            first = self.consumer.next() => first,
        };
        taken.push(delivery(first)?);
        while taken.len() < self.window {
            match self.consumer.next().now_or_never() {
                Some(next) => taken.push(delivery(next)?),
                None => break,
            }
        }
        Ok(taken)
    }

    /// Settles deliveries of this lane, in the order in which they were taken. If all are acknowledged, one
    /// acknowledgement does for all.
    ///
    /// # Errors
    /// The lane is lost; what was not settled comes again.
    pub async fn settle(&self, settled: Vec<(Delivery, Settle)>) -> Result<(), BrokerError> {
        let all = settled.iter().all(|(_, settle)| *settle == Settle::Ack);
        let calls = async {
            if all
                && settled.len() > 1
                && let Some((last, _)) = settled.last()
            {
                let Some(acker) = &last.acker else { return Ok(true) };
                return acker.ack(BasicAckOptions { multiple: true }).await;
            }
            for (delivery, settle) in &settled {
                if !delivery.settle(*settle).await? {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        counted(self.live.call("acknowledging", calls).await?)
    }

    /// Stops consuming and gives back what has been delivered and not taken.
    pub async fn close(mut self) {
        // A broker that does not listen gives everything back by itself, when it finds us gone.
        let live = self.live.clone();
        let courtesy = async {
            let _ = self.channel.basic_cancel(name(&self.tag), BasicCancelOptions::default()).await;
            while let Some(Some(Ok(delivery))) = self.consumer.next().now_or_never() {
                let _ = delivery.acker.nack(BasicNackOptions { requeue: true, multiple: false }).await;
            }
            let _ = self.channel.close(200, "done".into()).await;
        };
        let _ = live.unless_dead(timeout(COURTESY, courtesy)).await;
    }
}

/// A lane of a queue whose messages must keep their order: what has not come to its end is left with the broker, so that
/// whoever leaves has it come again in its order. Given back one by one it would come behind what was delivered after it.
pub struct InOrder {
    lane: Lane,
    /// What was taken, in the order of the queue, from the first that is still out.
    taken: VecDeque<(u64, Taken)>,
    /// How many are done and not yet acknowledged.
    owed: usize,
}

/// How a message stands that was taken.
enum Taken {
    /// Under way.
    Out,
    /// Done: to be acknowledged.
    Done(Option<Acker>),
    /// Acknowledged.
    Past,
}

impl InOrder {
    /// Begins to consume a queue; as [`Lane::open`]. It is always given the same number of messages ahead, however few are
    /// taken: what a quorum queue gets back it puts behind what it got back before and has not given out yet. As long as each
    /// consumer has room for all that the one before it had, there is nothing of that kind.
    ///
    /// # Errors
    /// What the broker or the network says.
    pub async fn open(
        link: &Link,
        queue: &str,
        window: usize,
        tag: &str,
        stop: &CancellationToken,
    ) -> Result<Option<InOrder>, BrokerError> {
        let lane = Lane::begin(link, queue, window, IN_ORDER, tag, stop).await?;
        Ok(lane.map(|lane| InOrder { lane, taken: VecDeque::new(), owed: 0 }))
    }

    /// The next deliveries: waits for one, then takes what else is there.
    ///
    /// # Errors
    /// The lane is lost.
    pub async fn take(&mut self) -> Result<Vec<Delivery>, BrokerError> {
        let taken = self.lane.take().await?;
        self.taken.extend(taken.iter().map(|delivery| (delivery.tag, Taken::Out)));
        Ok(taken)
    }

    /// A message that was taken has come to its end, and is to be acknowledged.
    pub fn done(&mut self, delivery: Delivery) {
        if let Ok(at) = self.taken.binary_search_by_key(&delivery.tag, |(tag, _)| *tag)
            && let Some((_, taken)) = self.taken.get_mut(at)
        {
            *taken = Taken::Done(delivery.acker);
            self.owed += 1;
        }
    }

    /// Whether something is done and not yet acknowledged.
    pub fn owes(&self) -> bool {
        self.owed > 0
    }

    /// Acknowledges what is done as far as everything before it is done as well, which one acknowledgement does; then, if
    /// `all`, the rest one by one.
    ///
    /// # Errors
    /// The lane is lost; what was not acknowledged comes again.
    pub async fn acknowledge(&mut self, all: bool) -> Result<(), BrokerError> {
        let mut last = None;
        while let Some((_, Taken::Done(_) | Taken::Past)) = self.taken.front() {
            if let Some((_, Taken::Done(acker))) = self.taken.pop_front() {
                self.owed -= 1;
                last = acker;
            }
        }
        let mut ackers = Vec::new();
        if all && self.owed > 0 {
            for (_, taken) in &mut self.taken {
                if let Taken::Done(acker) = taken {
                    ackers.extend(acker.take());
                    *taken = Taken::Past;
                }
            }
            self.owed = 0;
        }
        let calls = async {
            if let Some(last) = last
                && !last.ack(BasicAckOptions { multiple: true }).await?
            {
                return Ok(false);
            }
            for acker in ackers {
                if !acker.ack(BasicAckOptions::default()).await? {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        counted(self.lane.live.call("acknowledging", calls).await?)
    }

    /// Stops consuming; the broker gives everything that is not acknowledged to the next consumer, in the order of the queue.
    pub async fn leave(self) {
        let live = self.lane.live.clone();
        let courtesy = async {
            let _ = self.lane.channel.close(200, "done".into()).await;
        };
        let _ = live.unless_dead(timeout(COURTESY, courtesy)).await;
    }
}

/// For giving back what was not begun.
const COURTESY: Duration = Duration::from_secs(5);

impl Delivery {
    /// A message as it was delivered once, from our own store.
    pub fn kept(properties: Properties, body: Bytes, exchange: String, routing_key: String) -> Delivery {
        Delivery { properties, body, exchange, routing_key, redelivered: true, tag: 0, acker: None }
    }

    /// Settles it; whether that counted.
    async fn settle(&self, settle: Settle) -> lapin::Result<bool> {
        let Some(acker) = &self.acker else { return Ok(true) };
        match settle {
            Settle::Ack => acker.ack(BasicAckOptions::default()).await,
            Settle::GiveBack => acker.nack(BasicNackOptions { requeue: true, multiple: false }).await,
            Settle::Reject => acker.reject(BasicRejectOptions { requeue: false }).await,
        }
    }
}

fn counted(counted: bool) -> Result<(), BrokerError> {
    let what = "an acknowledgement did not count: the channel is stale";
    counted.then_some(()).ok_or_else(|| BrokerError::new(Code::BrokerUnreachable, what))
}

fn delivery(next: Option<lapin::Result<lapin::message::Delivery>>) -> Result<Delivery, BrokerError> {
    match next {
        Some(Ok(delivery)) => Ok(Delivery {
            properties: Properties::from_lapin(delivery.properties),
            body: Bytes::from(delivery.data),
            exchange: delivery.exchange.to_string(),
            routing_key: delivery.routing_key.to_string(),
            redelivered: delivery.redelivered,
            tag: delivery.delivery_tag,
            acker: Some(delivery.acker),
        }),
        Some(Err(error)) => Err(BrokerError::of("consuming", &error)),
        None => {
            let what = "the broker has ended the consumer: its queue was deleted or has moved";
            Err(BrokerError::new(Code::TopologyMissing, what))
        }
    }
}

/// Looks through a queue by taking its messages and giving them back, or acknowledging some: for dead letters.
pub struct Browser {
    channel: Channel,
    live: Live,
    queue: String,
}

impl Browser {
    /// Begins to look through a queue.
    ///
    /// # Errors
    /// What the broker or the network says.
    pub async fn open(link: &Link, queue: &str) -> Result<Browser, BrokerError> {
        let Some(live) = link.live().await else {
            return Err(BrokerError::new(Code::BrokerUnreachable, "we are stopping"));
        };
        Ok(Browser { channel: live.channel().await?, live, queue: queue.to_owned() })
    }

    /// The next message, and how many are behind it; `None` at the end. It stays with us until it is settled or the
    /// browser is dropped, which gives everything back.
    ///
    /// # Errors
    /// What the broker or the network says.
    pub async fn next(&self) -> Result<Option<(Delivery, u32)>, BrokerError> {
        let get = self.channel.basic_get(name(&self.queue), BasicGetOptions::default());
        match self.live.call(&format!("looking through {}", self.queue), get).await? {
            None => Ok(None),
            Some(message) => {
                let behind = message.message_count;
                Ok(Some((delivery(Some(Ok(message.delivery)))?, behind)))
            }
        }
    }

    /// Settles one message.
    ///
    /// # Errors
    /// What the broker or the network says; the message comes again.
    pub async fn settle(&self, delivery: &Delivery, settle: Settle) -> Result<(), BrokerError> {
        counted(self.live.call("acknowledging", delivery.settle(settle)).await?)
    }

    /// Gives everything back that has not been settled.
    pub async fn close(self) {
        let _ = self.live.call("closing a channel", self.channel.close(200, "done".into())).await;
    }
}

fn name(text: &str) -> ShortString {
    ShortString::try_new(text).unwrap_or_default()
}
