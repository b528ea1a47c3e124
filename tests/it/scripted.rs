//! What a broker may do that no real one does when it is asked to: confirms that are withheld, late, out of order or hung on
//! another message's return; a consumer that is cancelled, a channel that is closed in the middle of a window, silence. What
//! is unknown is published again under its id, nothing is acknowledged before it is safe, and a lane that is lost reopens.

use crate::{
    payments::{Ledger, PATH, ROUTE, ledger, paid},
    peer::{Heard, Peer, Sent, Wire},
    standins::http::Fault,
    support::{crypto, until},
};
use packhorse::{
    bridge::Bridge,
    broker::{Lane, Link, Message, Properties, Published, Publisher, Settle},
    code::Code,
    config::{Address, Broker, Tls},
};
use serde_json::json;
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// A connection of ours to a peer.
struct Ours {
    peer: Arc<Peer>,
    link: Link,
    stop: CancellationToken,
}

impl Ours {
    async fn with(script: impl FnMut(&Heard, &mut Wire) + Send + 'static) -> Ours {
        crypto();
        let peer = Peer::start(script).await;
        let address = Address {
            tls: false,
            host: "127.0.0.1".to_owned(),
            port: peer.address.port(),
            vhost: "/".to_owned(),
        };
        let broker = Broker {
            addresses: vec![address],
            username: None,
            password: None,
            tls: Tls::default(),
            heartbeat: Duration::from_secs(15),
            allow_unencrypted_login: false,
        };
        let stop = CancellationToken::new();
        let link = Link::start("test", broker, stop.clone(), &TaskTracker::new());
        Ours { peer, link, stop }
    }

    /// A publisher with one channel, as soon as there is a connection.
    async fn publisher(&self) -> Publisher {
        self.link.live().await.unwrap();
        Publisher::new(self.link.clone(), 1)
    }

    async fn lane(&self) -> Lane {
        Lane::open(&self.link, "queue", 8, "lane", &self.stop).await.unwrap().unwrap()
    }
}

fn messages(count: usize) -> Vec<Message> {
    (0..count)
        .map(|number| Message {
            exchange: "exchange".to_owned(),
            routing_key: format!("key-{number}"),
            properties: Properties::of_document("text/plain", Some(&format!("id-{number}"))),
            body: bytes::Bytes::from(format!("body {number}")),
        })
        .collect()
}

fn ids(sent: &[Sent]) -> Vec<String> {
    sent.iter().map(Sent::id).collect()
}

/// Confirms each message by itself, at once.
fn confirms(heard: &Heard, wire: &mut Wire) {
    if let Heard::Published(sent) = heard {
        wire.confirm(sent.channel, sent.tag, false);
    }
}

/// Says something when so many messages of a window are there, once; afterwards confirms.
fn when(
    count: usize,
    mut says: impl FnMut(&[Sent], &mut Wire) + Send,
) -> impl FnMut(&Heard, &mut Wire) + Send {
    let mut window: Vec<Sent> = Vec::new();
    let mut said = false;
    move |heard, wire| match heard {
        Heard::Published(sent) if !said => {
            window.push((**sent).clone());
            if window.len() == count {
                said = true;
                says(&window, wire);
            }
        }
        heard => confirms(heard, wire),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_says_nothing_or_hangs_up_in_the_greeting_is_given_up_and_the_next_try_counts() {
    let ours = Ours::with(|heard, wire| match heard {
        Heard::Greeted(1) => wire.silent = true,
        Heard::Greeted(2) => wire.close = true,
        _ => {}
    })
    .await;
    let began = std::time::Instant::now();
    let error = until("it is given up", async || ours.link.last_error()).await;
    assert_eq!(error.code, Code::BrokerUnreachable);
    assert!(error.what.contains("does not speak AMQP"), "{}", error.what);
    assert!(began.elapsed() < Duration::from_secs(20));
    ours.link.live().await.unwrap();
    assert_eq!(ours.peer.connections(), 3);
    ours.stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_return_that_hangs_on_another_confirm_is_told_of_its_own_message() {
    for order in [[1, 3, 2], [3, 2, 1], [2, 1, 3]] {
        let ours = Ours::with(when(3, move |window, wire| {
            wire.back(&window[1]);
            for tag in order {
                wire.confirm(window[0].channel, tag, false);
            }
        }))
        .await;
        let published = ours.publisher().await.publish(&messages(3)).await;
        assert_eq!(published[0], Published::Confirmed, "{order:?}");
        assert!(
            matches!(&published[1], Published::Returned(text) if text.contains("NO_ROUTE")),
            "{published:?}"
        );
        assert_eq!(published[2], Published::Confirmed, "{order:?}");
        ours.stop.cancel();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn confirms_for_many_and_out_of_order_count_for_those_they_name() {
    let ours = Ours::with(when(6, |window, wire| {
        let channel = window[0].channel;
        wire.confirm(channel, 5, false);
        wire.refuse(channel, 2);
        wire.confirm(channel, 4, true);
        wire.confirm(channel, 6, false);
    }))
    .await;
    let published = ours.publisher().await.publish(&messages(6)).await;
    let nacked: Vec<usize> = (0..6).filter(|at| published[*at] == Published::Nacked).collect();
    assert_eq!(nacked, [1], "{published:?}");
    assert!(published.iter().enumerate().all(|(at, result)| at == 1 || *result == Published::Confirmed));
    ours.stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_confirmed_when_the_connection_ends_is_published_again_under_its_id() {
    let ours = Ours::with(when(4, |window, wire| {
        wire.confirm(window[0].channel, 1, false);
        wire.close = true;
    }))
    .await;
    let publisher = ours.publisher().await;
    let results = publisher.publish_surely(&messages(4), &ours.stop).await.unwrap();
    assert!(results.iter().all(|result| *result == Published::Confirmed), "{results:?}");
    let sent = ids(&ours.peer.published());
    for number in 1..4 {
        let id = format!("id-{number}");
        assert!(sent.iter().filter(|own| **own == id).count() >= 2, "{id} of {sent:?}");
    }
    assert_eq!(ours.peer.connections(), 2);
    ours.stop.cancel();
}

/// Takes as long as a window of confirms may take.
#[tokio::test(flavor = "multi_thread")]
async fn a_confirm_that_is_withheld_is_waited_for_so_long_and_then_its_message_is_published_again() {
    let ours = Ours::with(when(3, |window, wire| wire.confirm(window[0].channel, 2, true))).await;
    let publisher = ours.publisher().await;
    let results = publisher.publish_surely(&messages(3), &ours.stop).await.unwrap();
    assert!(results.iter().all(|result| *result == Published::Confirmed), "{results:?}");
    let sent = ids(&ours.peer.published());
    assert!(sent.iter().filter(|id| *id == "id-2").count() == 2, "{sent:?}");
    assert_eq!(ours.peer.connections(), 2, "a broker that does not confirm is left");
    ours.stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_is_closed_in_the_middle_of_a_window_fails_alone_and_its_window_is_published_again() {
    let ours = Ours::with(when(4, |window, wire| {
        wire.confirm(window[0].channel, 1, false);
        wire.close_channel(window[0].channel, 406, "PRECONDITION_FAILED");
    }))
    .await;
    let publisher = ours.publisher().await;
    let first = publisher.publish(&messages(4)).await;
    assert!(
        first
            .iter()
            .all(|result| matches!(result, Published::Unknown(error) if error.code == Code::TopologyDiffers)),
        "nobody knows which of them the broker has: {first:?}"
    );
    let results = publisher.publish_surely(&messages(4), &ours.stop).await.unwrap();
    assert!(results.iter().all(|result| *result == Published::Confirmed), "{results:?}");
    assert_eq!(ours.peer.connections(), 1, "the connection is not to blame");
    ours.stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_connection_takes_nothing_and_goes_on_when_it_is_unblocked() {
    let ours = Ours::with(confirms).await;
    let publisher = ours.publisher().await;
    ours.peer.says(1, Wire::block);
    until("it is blocked", async || ours.link.is_blocked().then_some(())).await;
    let blocked = publisher.publish(&messages(2)).await;
    assert!(
        blocked
            .iter()
            .all(|result| matches!(result, Published::NotSent(error) if error.code == Code::BrokerBlocked)),
        "{blocked:?}"
    );
    assert!(ours.peer.published().is_empty(), "nothing is handed to a broker that takes nothing");
    let (again, stop) = (publisher.clone(), ours.stop.clone());
    let waiting = tokio::spawn(async move { again.publish_surely(&messages(2), &stop).await });
    ours.peer.says(1, Wire::unblock);
    let results = waiting.await.unwrap().unwrap();
    assert!(results.iter().all(|result| *result == Published::Confirmed), "{results:?}");
    ours.stop.cancel();
}

/// Also what a RabbitMQ 4.3 does when an acknowledgement takes too long: it cancels the consumer, and the message goes to
/// another one, or comes again. The channel stays; a late acknowledgement of it is an error of the channel.
#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_the_broker_cancels_is_a_lane_lost_and_what_it_held_comes_again() {
    let count = Arc::new(AtomicUsize::new(0));
    let ours = Ours::with(move |heard, wire| match heard {
        Heard::Consumes { channel, consumer, .. } => {
            let again = count.fetch_add(1, Ordering::SeqCst) > 0;
            wire.deliver((*channel, consumer), 1, again, "id-1", b"one");
        }
        Heard::Acknowledged { channel, tag, .. } if *channel == 1 => {
            wire.close_channel(*channel, 406, &format!("PRECONDITION_FAILED - unknown delivery tag {tag}"));
        }
        _ => {}
    })
    .await;
    let mut lane = ours.lane().await;
    let taken = lane.take().await.unwrap();
    assert!(!taken[0].redelivered);
    let consumes = |heard: &[Heard]| match heard.iter().find(|one| matches!(one, Heard::Consumes { .. })) {
        Some(Heard::Consumes { channel, consumer, .. }) => Some((*channel, consumer.clone())),
        _ => None,
    };
    let (channel, consumer) = ours.peer.until("a consumer", consumes).await;
    ours.peer.says(1, |wire| wire.cancel(channel, &consumer));
    let lost = lane.take().await.unwrap_err();
    assert_eq!(lost.code, Code::TopologyMissing, "{lost}");
    // Whether the late acknowledgement counts is not known: the message comes again, and its journal row knows it.
    let _ = lane.settle(vec![(taken.into_iter().next().unwrap(), Settle::Ack)]).await;
    let mut lane = ours.lane().await;
    let again = lane.take().await.unwrap();
    assert!(again[0].redelivered && again[0].properties.message_id() == Some("id-1"));
    lane.settle(again.into_iter().map(|delivery| (delivery, Settle::Ack)).collect()).await.unwrap();
    assert_eq!(ours.peer.connections(), 1);
    ours.stop.cancel();
}

/// A payment that succeeded, as the platform says it.
fn event() -> String {
    json!({ "specversion": "1.0", "id": "event-1", "source": "urn:platform:payments", "type": "payment.succeeded.v1", "data": paid() })
        .to_string()
}

/// A whole bridge to the ledger, with the peer for its broker.
async fn bridge_to(peer: &Peer) -> (Ledger, Bridge) {
    bridge_between(peer, ledger().await).await
}

async fn bridge_between(peer: &Peer, ledger: Ledger) -> (Ledger, Bridge) {
    let more = format!("[adapters.localgov-ims]\nsettings = {{ base_url = \"{}\" }}\n", ledger.server.url);
    ledger.site.settings(&format!("amqp://{}/scripted", peer.address), &more);
    ledger.site.edit("packhorse.toml", "[broker]", "[broker]\ndeclare = false");
    let bridge = ledger.site.start().await;
    (ledger, bridge)
}

/// What a RabbitMQ 4.3 does when an acknowledgement takes too long: it cancels the consumer and gives the message to another
/// one, while the request is still under way; it counts rejects, and nothing else. A late acknowledgement closes the channel.
#[tokio::test(flavor = "multi_thread")]
async fn what_takes_longer_than_the_broker_waits_comes_again_elsewhere_is_never_rejected_and_is_posted_once()
{
    /// Who consumes from the route, and how many messages each was given.
    #[derive(Default)]
    struct Broker {
        consumers: Vec<(usize, u16, String)>,
        tags: Vec<u64>,
    }
    impl Broker {
        fn deliver(&mut self, to: usize, redelivered: bool, wire: &mut Wire, body: &str) {
            let (_, channel, consumer) = &self.consumers[to];
            self.tags[to] += 1;
            wire.deliver((*channel, consumer), self.tags[to], redelivered, "event-1", body.as_bytes());
        }
    }
    let broker: Arc<Mutex<Broker>> = Arc::default();
    let (here, body) = (broker.clone(), event());
    let peer = Peer::start(move |heard, wire| {
        let mut broker = here.lock().unwrap();
        match heard {
            Heard::Consumes { connection, channel, consumer } if consumer.starts_with(ROUTE) => {
                broker.consumers.push((*connection, *channel, consumer.clone()));
                broker.tags.push(0);
                if broker.consumers.len() == 1 {
                    broker.deliver(0, false, wire, &body);
                }
            }
            Heard::Published(sent) => wire.confirm(sent.channel, sent.tag, false),
            Heard::Acknowledged { connection, channel, tag }
                if (broker.consumers[0].0, broker.consumers[0].1) == (*connection, *channel) =>
            {
                wire.close_channel(
                    *channel,
                    406,
                    &format!("PRECONDITION_FAILED - unknown delivery tag {tag}"),
                );
            }
            _ => {}
        }
    })
    .await;
    let slow = ledger().await;
    slow.server.misbehave("POST", PATH, Fault::Late(Duration::from_secs(4)), 1);
    // Two lanes, so that there is another consumer.
    slow.site.edit("adapters/localgov-ims.toml", "[deliver.post]\n", "[deliver.post]\nconcurrency = 2\n");
    let (slow, bridge) = bridge_between(&peer, slow).await;
    until("the request is under way", async || (!slow.ims.rows().is_empty()).then_some(())).await;
    let others = until("others consume", async || {
        let consumers = broker.lock().unwrap().consumers.clone();
        (consumers.len() > 1).then_some(consumers)
    })
    .await;
    let (connection, channel, consumer) = &others[0];
    peer.says(*connection, |wire| {
        wire.cancel(*channel, consumer);
        broker.lock().unwrap().deliver(1, true, wire, &event());
    });
    let other = (others[1].0, others[1].1);
    let acknowledged = |heard: &[Heard]| {
        let by_the_other = |one: &Heard| matches!(one, Heard::Acknowledged { connection, channel, .. } if (*connection, *channel) == other);
        heard.iter().any(by_the_other).then_some(())
    };
    peer.until("the copy is acknowledged by the other", acknowledged).await;
    let heard = peer.heard();
    let at = |wanted: fn(&Heard) -> bool| heard.iter().position(wanted).unwrap();
    let told = at(|one| matches!(one, Heard::Published(_)));
    assert!(
        told < at(|one| matches!(one, Heard::Acknowledged { .. })),
        "nothing is acknowledged that is not done"
    );
    assert!(!heard.iter().any(|one| matches!(one, Heard::Rejected)), "{heard:?}");
    // The lane that was lost is opened again.
    let lanes = |heard: &[Heard]| {
        heard
            .iter()
            .filter(|one| matches!(one, Heard::Consumes { consumer, .. } if consumer.starts_with(ROUTE)))
            .count()
    };
    let before = others.len();
    peer.until("it consumes again", |heard| (lanes(heard) > before).then_some(())).await;
    // What came while the request was under way may have been put off to a retry queue; it is then known.
    let told: Vec<Sent> =
        peer.published().into_iter().filter(|sent| sent.exchange == "platform.updates").collect();
    assert_eq!((slow.ims.rows().len(), told.len()), (1, 1), "posted once, told once");
    assert!(bridge.stop().await);
    let account = slow.site.account(ROUTE).await;
    assert_eq!((&account["delivered"], &account["waiting"]), (&json!(1), &json!(0)), "{account}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_that_the_broker_refuses_or_has_no_queue_for_is_published_again_before_its_message_is_acknowledged()
 {
    let (body, mut published, mut to) = (event(), 0, None::<(u16, String)>);
    let peer = Peer::start(move |heard, wire| match heard {
        Heard::Consumes { channel, consumer, .. } if consumer.starts_with(ROUTE) && to.is_none() => {
            to = Some((*channel, consumer.clone()));
            wire.deliver((*channel, consumer), 1, false, "event-1", body.as_bytes());
        }
        Heard::GivenBack => {
            let (channel, consumer) = to.as_ref().unwrap();
            wire.deliver((*channel, consumer), 2, true, "event-1", body.as_bytes());
        }
        Heard::Published(sent) => {
            published += 1;
            match published {
                1 => wire.refuse(sent.channel, sent.tag),
                2 => {
                    wire.back(sent);
                    wire.confirm(sent.channel, sent.tag, false);
                }
                _ => wire.confirm(sent.channel, sent.tag, false),
            }
        }
        _ => {}
    })
    .await;
    let (ledger, bridge) = bridge_to(&peer).await;
    let acknowledged = |heard: &[Heard]| {
        let at = heard.iter().position(|one| matches!(one, Heard::Acknowledged { .. }))?;
        Some(heard.iter().take(at).filter(|one| matches!(one, Heard::Published(_))).count())
    };
    let before = peer.until("it is acknowledged", acknowledged).await;
    let ids: std::collections::BTreeSet<String> = ids(&peer.published()).into_iter().collect();
    assert_eq!((before, ids.len()), (3, 1), "published three times under one id, then acknowledged");
    assert_eq!(ledger.ims.rows().len(), 1, "posted once");
    assert!(bridge.stop().await);
}

/// The whole bridge on the peer: what it posts, publishes and acknowledges, in which order.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_acknowledged_before_its_reply_is_confirmed_and_a_copy_with_or_without_the_flag_is_a_duplicate()
 {
    let consumers: Arc<Mutex<Option<(usize, u16, String)>>> = Arc::default();
    let (here, body) = (consumers.clone(), event());
    let text = body.clone();
    let peer = Peer::start(move |heard, wire| match heard {
        // One lane gets the event; the others wait.
        Heard::Consumes { connection, channel, consumer } if consumer.starts_with(ROUTE) => {
            let mut first = here.lock().unwrap();
            if first.is_none() {
                *first = Some((*connection, *channel, consumer.clone()));
                wire.deliver((*channel, consumer), 1, false, "event-1", text.as_bytes());
            }
        }
        _ => {}
    })
    .await;
    let (ledger, bridge) = bridge_to(&peer).await;
    let reply = |heard: &[Heard]| {
        heard.iter().find_map(|one| match one {
            Heard::Published(sent) => Some(sent.clone()),
            _ => None,
        })
    };
    let reply = peer.until("the reply", reply).await;
    assert_eq!(reply.exchange, "platform.updates");
    assert_eq!(ledger.ims.rows().len(), 1, "the system has done it");
    let settled = |heard: &[Heard]| {
        let settled =
            |one: &&Heard| matches!(one, Heard::Acknowledged { .. } | Heard::GivenBack | Heard::Rejected);
        heard.iter().filter(settled).count()
    };
    assert_eq!(settled(&peer.heard()), 0, "and still nothing is acknowledged");
    peer.says(reply.connection, |wire| wire.confirm(reply.channel, reply.tag, false));
    peer.until("it is acknowledged", |heard| (settled(heard) == 1).then_some(())).await;
    let (connection, channel, consumer) = consumers.lock().unwrap().clone().unwrap();
    for (tag, redelivered) in [(2, false), (3, true)] {
        peer.says(connection, |wire| {
            wire.deliver((channel, &consumer), tag, redelivered, "event-1", body.as_bytes());
        });
        peer.until("the copy is settled", |heard| (settled(heard) == tag as usize).then_some(())).await;
    }
    assert_eq!(ledger.ims.rows().len(), 1, "posted once");
    assert_eq!(peer.published().len(), 1, "told once");
    assert!(bridge.stop().await);
    let account = ledger.site.account(ROUTE).await;
    assert_eq!((&account["delivered"], &account["duplicate"]), (&json!(1), &json!(2)), "{account}");
}
