//! A scripted AMQP peer, on the codec that lapin itself uses: it greets like a broker, opens what it is asked to open, and
//! then does to publishes and consumers what a script says, also what no broker does on purpose. It keeps no queue.

use crate::support::PATIENCE;
use amq_protocol::{
    frame::{AMQPContentHeader, AMQPFrame, WriteContext, gen_frame, parse_frame},
    protocol::{AMQPClass, BasicProperties, basic, channel, confirm, connection, exchange, queue},
    types::FieldTable,
};
use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
};

/// A message that was published to the peer.
#[derive(Debug, Clone)]
pub struct Sent {
    /// The number of its connection, from 1.
    pub connection: usize,
    pub channel: u16,
    /// Its number on its channel, as confirms name it.
    pub tag: u64,
    pub exchange: String,
    pub routing_key: String,
    pub properties: BasicProperties,
    pub body: Vec<u8>,
}

impl Sent {
    pub fn id(&self) -> String {
        self.properties.message_id().as_ref().map(ToString::to_string).unwrap_or_default()
    }
}

/// What the peer hears.
#[derive(Debug, Clone)]
pub enum Heard {
    /// The protocol's header, on the connection of this number.
    Greeted(usize),
    /// Somebody consumes.
    Consumes {
        connection: usize,
        channel: u16,
        consumer: String,
    },
    Published(Box<Sent>),
    Acknowledged {
        connection: usize,
        channel: u16,
        tag: u64,
    },
    /// Given back unprocessed: `basic.nack`, which a RabbitMQ 4.3 does not count.
    GivenBack,
    /// `basic.reject`: as a RabbitMQ 4.3 counts, the message has failed.
    Rejected,
}

/// What is written to a connection.
#[derive(Default)]
pub struct Wire {
    bytes: Vec<u8>,
    /// Nothing is answered any more, and nothing is heard.
    pub silent: bool,
    /// The connection is closed when this has been written.
    pub close: bool,
}

impl Wire {
    fn frame(&mut self, frame: &AMQPFrame) {
        let context = WriteContext::from(std::mem::take(&mut self.bytes));
        let (bytes, _) = gen_frame(frame)(context).unwrap().into_inner();
        self.bytes = bytes;
    }

    fn method(&mut self, channel: u16, class: AMQPClass) {
        self.frame(&AMQPFrame::Method(channel, class));
    }

    fn content(&mut self, channel: u16, properties: BasicProperties, body: &[u8]) {
        let header = AMQPContentHeader { class_id: 60, body_size: body.len() as u64, properties };
        self.frame(&AMQPFrame::Header(channel, header));
        if !body.is_empty() {
            self.frame(&AMQPFrame::Body(channel, body.to_vec()));
        }
    }

    pub fn confirm(&mut self, channel: u16, tag: u64, multiple: bool) {
        let ack = basic::Ack { delivery_tag: tag, multiple };
        self.method(channel, AMQPClass::Basic(basic::AMQPMethod::Ack(ack)));
    }

    pub fn refuse(&mut self, channel: u16, tag: u64) {
        let nack = basic::Nack { delivery_tag: tag, multiple: false, requeue: false };
        self.method(channel, AMQPClass::Basic(basic::AMQPMethod::Nack(nack)));
    }

    /// Sends a message back, for which there is no queue.
    pub fn back(&mut self, sent: &Sent) {
        let back = basic::Return {
            reply_code: 312,
            reply_text: "NO_ROUTE".into(),
            exchange: sent.exchange.as_str().into(),
            routing_key: sent.routing_key.as_str().into(),
        };
        self.method(sent.channel, AMQPClass::Basic(basic::AMQPMethod::Return(back)));
        self.content(sent.channel, sent.properties.clone(), &sent.body);
    }

    /// Delivers a message with this id.
    pub fn deliver(&mut self, to: (u16, &str), tag: u64, redelivered: bool, id: &str, body: &[u8]) {
        let (channel, consumer) = to;
        let deliver = basic::Deliver {
            consumer_tag: consumer.into(),
            delivery_tag: tag,
            redelivered,
            exchange: "platform.events".into(),
            routing_key: "key".into(),
        };
        self.method(channel, AMQPClass::Basic(basic::AMQPMethod::Deliver(deliver)));
        let properties = BasicProperties::default()
            .with_message_id(id.into())
            .with_content_type("application/cloudevents+json".into());
        self.content(channel, properties, body);
    }

    /// Ends a consumer, as a broker does whose queue is gone, or that waits no longer for an acknowledgement.
    pub fn cancel(&mut self, channel: u16, consumer: &str) {
        let cancel = basic::Cancel { consumer_tag: consumer.into(), nowait: true };
        self.method(channel, AMQPClass::Basic(basic::AMQPMethod::Cancel(cancel)));
    }

    pub fn close_channel(&mut self, channel: u16, code: u16, text: &str) {
        let close = channel::Close { reply_code: code, reply_text: text.into(), class_id: 60, method_id: 80 };
        self.method(channel, AMQPClass::Channel(channel::AMQPMethod::Close(close)));
    }

    pub fn block(&mut self) {
        let blocked = connection::Blocked { reason: "low on memory".into() };
        self.method(0, AMQPClass::Connection(connection::AMQPMethod::Blocked(blocked)));
    }

    pub fn unblock(&mut self) {
        let unblocked = connection::Unblocked {};
        self.method(0, AMQPClass::Connection(connection::AMQPMethod::Unblocked(unblocked)));
    }
}

type Script = Box<dyn FnMut(&Heard, &mut Wire) + Send>;

/// The peer.
pub struct Peer {
    pub address: SocketAddr,
    heard: watch::Sender<Vec<Heard>>,
    script: Mutex<Script>,
    connections: Mutex<Vec<mpsc::Sender<Wire>>>,
}

impl Peer {
    /// Begins to listen; the script is asked about all that is heard.
    pub async fn start(script: impl FnMut(&Heard, &mut Wire) + Send + 'static) -> Arc<Peer> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = Arc::new(Peer {
            address: listener.local_addr().unwrap(),
            heard: watch::Sender::new(Vec::new()),
            script: Mutex::new(Box::new(script)),
            connections: Mutex::default(),
        });
        let this = peer.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (sender, receiver) = mpsc::channel(64);
                let number = {
                    let mut connections = this.connections.lock().unwrap();
                    connections.push(sender);
                    connections.len()
                };
                let this = this.clone();
                tokio::spawn(async move {
                    let _ =
                        Connection { number, ..Connection::default() }.serve(&this, stream, receiver).await;
                });
            }
        });
        peer
    }

    /// Says something on the connection of this number, which begins with 1.
    pub fn says(&self, connection: usize, what: impl FnOnce(&mut Wire)) {
        let mut wire = Wire::default();
        what(&mut wire);
        let _ = self.connections.lock().unwrap()[connection - 1].try_send(wire);
    }

    pub fn heard(&self) -> Vec<Heard> {
        self.heard.borrow().clone()
    }

    pub fn published(&self) -> Vec<Sent> {
        let published = |heard| match heard {
            Heard::Published(sent) => Some(*sent),
            _ => None,
        };
        self.heard().into_iter().filter_map(published).collect()
    }

    pub fn connections(&self) -> usize {
        self.connections.lock().unwrap().len()
    }

    /// Waits until what was heard has this in it.
    pub async fn until<T>(&self, what: &str, look: impl Fn(&[Heard]) -> Option<T>) -> T {
        let mut heard = self.heard.subscribe();
        let wait = heard.wait_for(|heard| look(heard).is_some());
        let came = tokio::time::timeout(PATIENCE, wait).await.is_ok();
        let heard = self.heard();
        look(&heard).filter(|_| came).unwrap_or_else(|| panic!("not heard: {what}: {heard:#?}"))
    }

    fn hear(&self, heard: Heard, wire: &mut Wire) {
        (self.script.lock().unwrap())(&heard, wire);
        self.heard.send_modify(|all| all.push(heard));
    }
}

/// One connection: what of a message has come so far, by channel.
#[derive(Default)]
struct Connection {
    number: usize,
    coming: HashMap<u16, (Sent, u64)>,
    tags: HashMap<u16, u64>,
}

impl Connection {
    async fn serve(
        mut self,
        peer: &Peer,
        mut stream: TcpStream,
        mut says: mpsc::Receiver<Wire>,
    ) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        let (mut buffer, mut wire) = (Vec::new(), Wire::default());
        loop {
            while let Some((rest, frame)) =
                parse_frame(buffer.as_slice()).ok().map(|(rest, frame)| (rest.len(), frame))
            {
                let used = buffer.len() - rest;
                buffer.drain(..used);
                if !wire.silent {
                    self.on(peer, frame, &mut wire);
                }
            }
            stream.write_all(&std::mem::take(&mut wire.bytes)).await?;
            if wire.close {
                return stream.shutdown().await;
            }
            tokio::select! {
                read = stream.read_buf(&mut buffer) => if read? == 0 { return Ok(()) },
                Some(more) = says.recv() => {
                    wire.bytes.extend(more.bytes);
                    wire.close |= more.close;
                    wire.silent |= more.silent;
                }
            }
        }
    }

    fn on(&mut self, peer: &Peer, frame: AMQPFrame, wire: &mut Wire) {
        match frame {
            AMQPFrame::ProtocolHeader(_) => {
                peer.hear(Heard::Greeted(self.number), wire);
                if wire.silent {
                    return;
                }
                let start = connection::Start {
                    version_major: 0,
                    version_minor: 9,
                    server_properties: capabilities(),
                    mechanisms: "PLAIN".into(),
                    locales: "en_US".into(),
                };
                wire.method(0, AMQPClass::Connection(connection::AMQPMethod::Start(start)));
            }
            AMQPFrame::Method(channel, class) => self.method(peer, channel, class, wire),
            AMQPFrame::Header(channel, header) => {
                if let Some((sent, left)) = self.coming.get_mut(&channel) {
                    (sent.properties, *left) = (header.properties, header.body_size);
                }
                self.whole(peer, channel, wire);
            }
            AMQPFrame::Body(channel, bytes) => {
                if let Some((sent, left)) = self.coming.get_mut(&channel) {
                    *left -= bytes.len() as u64;
                    sent.body.extend(bytes);
                }
                self.whole(peer, channel, wire);
            }
            AMQPFrame::Heartbeat => wire.frame(&AMQPFrame::Heartbeat),
            AMQPFrame::InvalidHeartbeat(_) => {}
        }
    }

    /// A message is heard of when it is whole.
    fn whole(&mut self, peer: &Peer, channel: u16, wire: &mut Wire) {
        if self.coming.get(&channel).is_some_and(|(_, left)| *left == 0)
            && let Some((sent, _)) = self.coming.remove(&channel)
        {
            peer.hear(Heard::Published(Box::new(sent)), wire);
        }
    }

    fn method(&mut self, peer: &Peer, channel: u16, class: AMQPClass, wire: &mut Wire) {
        use AMQPClass as Class;
        match class {
            Class::Connection(connection::AMQPMethod::StartOk(_)) => {
                let tune = connection::Tune { channel_max: 2_047, frame_max: 131_072, heartbeat: 60 };
                wire.method(0, Class::Connection(connection::AMQPMethod::Tune(tune)));
            }
            Class::Connection(connection::AMQPMethod::Open(_)) => {
                wire.method(0, Class::Connection(connection::AMQPMethod::OpenOk(connection::OpenOk {})));
            }
            Class::Connection(connection::AMQPMethod::Close(_)) => {
                wire.method(0, Class::Connection(connection::AMQPMethod::CloseOk(connection::CloseOk {})));
                wire.close = true;
            }
            Class::Channel(channel::AMQPMethod::Open(_)) => {
                self.tags.insert(channel, 0);
                wire.method(channel, Class::Channel(channel::AMQPMethod::OpenOk(channel::OpenOk {})));
            }
            Class::Channel(channel::AMQPMethod::Close(_)) => {
                wire.method(channel, Class::Channel(channel::AMQPMethod::CloseOk(channel::CloseOk {})));
            }
            Class::Confirm(confirm::AMQPMethod::Select(_)) => {
                wire.method(channel, Class::Confirm(confirm::AMQPMethod::SelectOk(confirm::SelectOk {})));
            }
            Class::Exchange(exchange::AMQPMethod::Declare(_)) => {
                wire.method(
                    channel,
                    Class::Exchange(exchange::AMQPMethod::DeclareOk(exchange::DeclareOk {})),
                );
            }
            Class::Queue(queue::AMQPMethod::Declare(declare)) => {
                let ok = queue::DeclareOk { queue: declare.queue, message_count: 0, consumer_count: 0 };
                wire.method(channel, Class::Queue(queue::AMQPMethod::DeclareOk(ok)));
            }
            Class::Queue(queue::AMQPMethod::Bind(_)) => {
                wire.method(channel, Class::Queue(queue::AMQPMethod::BindOk(queue::BindOk {})));
            }
            Class::Exchange(exchange::AMQPMethod::Bind(_)) => {
                wire.method(channel, Class::Exchange(exchange::AMQPMethod::BindOk(exchange::BindOk {})));
            }
            Class::Basic(basic::AMQPMethod::Qos(_)) => {
                wire.method(channel, Class::Basic(basic::AMQPMethod::QosOk(basic::QosOk {})));
            }
            Class::Basic(basic::AMQPMethod::Consume(consume)) => {
                let ok = basic::ConsumeOk { consumer_tag: consume.consumer_tag.clone() };
                wire.method(channel, Class::Basic(basic::AMQPMethod::ConsumeOk(ok)));
                let consumer = consume.consumer_tag.to_string();
                peer.hear(Heard::Consumes { connection: self.number, channel, consumer }, wire);
            }
            Class::Basic(basic::AMQPMethod::Cancel(cancel)) => {
                let ok = basic::CancelOk { consumer_tag: cancel.consumer_tag };
                wire.method(channel, Class::Basic(basic::AMQPMethod::CancelOk(ok)));
            }
            Class::Basic(basic::AMQPMethod::Publish(publish)) => {
                let tag = self.tags.entry(channel).or_default();
                *tag += 1;
                let sent = Sent {
                    connection: self.number,
                    channel,
                    tag: *tag,
                    exchange: publish.exchange.to_string(),
                    routing_key: publish.routing_key.to_string(),
                    properties: BasicProperties::default(),
                    body: Vec::new(),
                };
                // Until its header has come, it is not whole.
                self.coming.insert(channel, (sent, u64::MAX));
            }
            Class::Basic(basic::AMQPMethod::Ack(ack)) => {
                let (connection, tag) = (self.number, ack.delivery_tag);
                peer.hear(Heard::Acknowledged { connection, channel, tag }, wire);
            }
            Class::Basic(basic::AMQPMethod::Nack(nack)) => {
                assert!(nack.requeue && !nack.multiple, "a broker would drop it");
                peer.hear(Heard::GivenBack, wire);
            }
            Class::Basic(basic::AMQPMethod::Reject(_)) => peer.hear(Heard::Rejected, wire),
            _ => {}
        }
    }
}

/// What a RabbitMQ says of itself, as far as it counts here.
fn capabilities() -> FieldTable {
    use amq_protocol::types::AMQPValue;
    let mut able = FieldTable::default();
    for name in ["publisher_confirms", "consumer_cancel_notify", "basic.nack", "connection.blocked"] {
        able.insert(name.into(), AMQPValue::Boolean(true));
    }
    let mut properties = FieldTable::default();
    properties.insert("product".into(), AMQPValue::LongString("RabbitMQ".into()));
    properties.insert("version".into(), AMQPValue::LongString("4.3.0".into()));
    properties.insert("capabilities".into(), AMQPValue::FieldTable(able));
    properties
}
