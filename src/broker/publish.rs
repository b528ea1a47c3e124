//! Publishing with confirms, in windows, every message mandatory; five different results.
//!
//! AMQP gives a returned message no number, and lapin hangs it on whichever confirm comes next. So a channel carries one
//! window at a time, and when all confirms of the window are in, all its returns are in as well, on one confirm or
//! another: they are matched to their messages by content.

use super::{BrokerError, Link, Message, link::Live, message::Properties};
use crate::{code::Code, retry::Delays};
use bytes::Bytes;
use lapin::{
    Channel, Confirmation,
    message::BasicReturnMessage,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    types::ShortString,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{sync::Mutex, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// How long confirms of one window may take.
const CONFIRMS: Duration = Duration::from_secs(30);
/// How many messages one window has at most.
const WINDOW: usize = 512;

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Published {
    /// The broker has it, safely, in at least one queue.
    Confirmed,
    /// The broker would not take it; another time it may.
    Nacked,
    /// The broker has no queue for it.
    Returned(String),
    /// Nothing was sent: there is no connection, or the broker takes nothing for now. Publish it again.
    NotSent(BrokerError),
    /// Nobody knows: the connection was lost. Publish it again with the same id.
    Unknown(BrokerError),
    /// It cannot be published as it is.
    Refused(BrokerError),
}

/// Publishes over a link, on a few channels.
#[derive(Clone)]
pub struct Publisher {
    link: Link,
    slots: Arc<Vec<Mutex<Option<Slot>>>>,
    next: Arc<AtomicUsize>,
}

struct Slot {
    channel: Channel,
    live: Live,
}

impl Publisher {
    /// A publisher with so many channels.
    pub fn new(link: Link, channels: usize) -> Publisher {
        let slots = (0..channels.max(1)).map(|_| Mutex::new(None)).collect();
        Publisher { link, slots: Arc::new(slots), next: Arc::default() }
    }

    /// The link it publishes over.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// Publishes messages; what became of each, in order.
    pub async fn publish(&self, messages: &[Message]) -> Vec<Published> {
        let mut results = Vec::with_capacity(messages.len());
        for window in messages.chunks(WINDOW) {
            results.extend(self.window(window).await);
        }
        results
    }

    /// Publishes messages until each has been confirmed, returned or refused; `None` if we are stopping before that.
    /// A message may get to the broker twice: consumers know it by its id.
    pub async fn publish_surely(
        &self,
        messages: &[Message],
        stop: &CancellationToken,
    ) -> Option<Vec<Published>> {
        let mut results = self.publish(messages).await;
        let mut delays = Delays::new(Duration::from_millis(100), Duration::from_secs(10));
        loop {
            let open: Vec<usize> = results
                .iter()
                .enumerate()
                .filter(|(_, result)| {
                    matches!(result, Published::Unknown(_) | Published::NotSent(_) | Published::Nacked)
                })
                .map(|(at, _)| at)
                .collect();
            if open.is_empty() {
                return Some(results);
            }
            for at in open.iter().take(1) {
                match results.get(*at) {
                    Some(Published::Unknown(error) | Published::NotSent(error)) => {
                        warn!(code = %error.code, messages = open.len(), "not confirmed by the broker, publishing again: {}", error.what);
                    }
                    Some(Published::Nacked) => {
                        let exchange = messages.get(*at).map_or("", |message| &message.exchange);
                        warn!(code = %Code::PublishRefused, messages = open.len(), exchange, "not taken by the broker, publishing again: a queue behind this exchange is full, or cannot take anything now");
                    }
                    Some(Published::Confirmed | Published::Returned(_) | Published::Refused(_)) | None => {}
                }
            }
            tokio::select! {
                () = stop.cancelled() => return None,
                () = tokio::time::sleep(delays.delay()) => {}
            }
            tokio::select! {
                () = stop.cancelled() => return None,
                live = self.link.live() => { live?; }
            }
            let again: Vec<Message> = open.iter().filter_map(|at| messages.get(*at).cloned()).collect();
            for (at, result) in open.into_iter().zip(self.publish(&again).await) {
                if let Some(slot) = results.get_mut(at) {
                    *slot = result;
                }
            }
        }
    }

    async fn window(&self, messages: &[Message]) -> Vec<Published> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let count = self.slots.len();
        let free = (0..count)
            .filter_map(|at| self.slots.get((turn + at) % count))
            .find_map(|slot| slot.try_lock().ok());
        let mut slot = match free {
            Some(slot) => slot,
            None => match self.slots.get(turn % count) {
                Some(slot) => slot.lock().await,
                None => return Vec::new(),
            },
        };
        if slot
            .as_ref()
            .is_none_or(|slot| slot.live.dead.is_cancelled() || !slot.channel.status().connected())
        {
            *slot = None;
            match self.open().await {
                Ok(new) => *slot = Some(new),
                Err(error) => return messages.iter().map(|_| Published::NotSent(error.clone())).collect(),
            }
        }
        let Some(open) = slot.as_ref() else { return Vec::new() };
        if open.live.is_blocked() {
            let error = blocked();
            return messages.iter().map(|_| Published::NotSent(error.clone())).collect();
        }
        let sending = timeout(CONFIRMS, send(&open.channel, open.live.frame_max(), messages));
        let sent = match open.live.unless_dead(sending).await {
            Ok(sent) => sent,
            Err(error) => {
                *slot = None;
                return messages.iter().map(|_| Published::Unknown(error.clone())).collect();
            }
        };
        match sent {
            Ok(Ok(results)) => {
                // A quorum queue goes on to refuse the channel that it has once refused, also when the limit that it was about
                // has been lifted (seen with 3.10.8): the next try is made on another.
                if results.contains(&Published::Nacked)
                    && let Some(refused) = slot.take()
                {
                    let close = refused.channel.close(200, "done".into());
                    let _ = refused.live.call("closing a channel", close).await;
                }
                results
            }
            Ok(Err(error)) => {
                let error = BrokerError::of("publishing", &error);
                // A channel can fail alone; whether the connection did too, its watcher finds out.
                *slot = None;
                messages.iter().map(|_| Published::Unknown(error.clone())).collect()
            }
            Err(_) => {
                let what = format!("no confirm within {} s", CONFIRMS.as_secs());
                open.live.dead.cancel();
                *slot = None;
                let error = BrokerError::new(Code::BrokerUnreachable, what);
                messages.iter().map(|_| Published::Unknown(error.clone())).collect()
            }
        }
    }

    async fn open(&self) -> Result<Slot, BrokerError> {
        // Not connected is an answer at once: the caller decides how long to wait.
        if !self.link.is_connected() {
            let error = self.link.last_error();
            return Err(error.unwrap_or_else(|| {
                BrokerError::new(Code::BrokerUnreachable, "not yet connected to the broker")
            }));
        }
        let Some(live) = self.link.live().await else {
            return Err(BrokerError::new(Code::BrokerUnreachable, "we are stopping"));
        };
        // Nothing is written to a blocked connection, so that opening a channel would hang, and end it.
        if live.is_blocked() {
            return Err(blocked());
        }
        let channel = live.channel().await?;
        live.call("turning on confirms", channel.confirm_select(ConfirmSelectOptions::default())).await?;
        Ok(Slot { channel, live })
    }
}

fn blocked() -> BrokerError {
    BrokerError::new(Code::BrokerBlocked, "the broker is out of memory or disk and takes no messages")
}

async fn send(channel: &Channel, frame_max: usize, messages: &[Message]) -> lapin::Result<Vec<Published>> {
    let mut results: Vec<Option<Published>> = Vec::with_capacity(messages.len());
    let mut confirms = Vec::with_capacity(messages.len());
    for message in messages {
        if let Err(error) = message.check(frame_max) {
            results.push(Some(Published::Refused(error)));
            continue;
        }
        let confirm = channel
            .basic_publish(
                short(&message.exchange),
                short(&message.routing_key),
                BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() },
                &message.body,
                message.properties.clone().into_lapin(),
            )
            .await?;
        confirms.push((results.len(), confirm));
        results.push(None);
    }
    let mut returned: Vec<BasicReturnMessage> = Vec::new();
    for (at, confirm) in confirms {
        let confirmation = confirm.await?;
        let nacked = confirmation.is_nack();
        if let Confirmation::Ack(Some(back)) | Confirmation::Nack(Some(back)) = confirmation {
            returned.push(back);
        }
        if let Some(slot) = results.get_mut(at) {
            *slot = Some(if nacked { Published::Nacked } else { Published::Confirmed });
        }
    }
    for back in returned {
        let text = format!("{} {}", back.reply_code, back.reply_text);
        for (message, result) in messages.iter().zip(results.iter_mut()) {
            if is_same(message, &back) && matches!(result, Some(Published::Confirmed)) {
                *result = Some(Published::Returned(text.clone()));
            }
        }
    }
    Ok(results.into_iter().map(|result| result.unwrap_or(Published::Nacked)).collect())
}

fn is_same(message: &Message, back: &BasicReturnMessage) -> bool {
    let id = Properties::from_lapin(back.delivery.properties.clone());
    message.exchange == back.delivery.exchange.as_str()
        && message.routing_key == back.delivery.routing_key.as_str()
        && message.properties.message_id() == id.message_id()
        && message.body == Bytes::copy_from_slice(&back.delivery.data)
}

/// A name that has been checked for its length.
fn short(text: &str) -> ShortString {
    ShortString::try_new(text).unwrap_or_default()
}
