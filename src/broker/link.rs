//! A supervised connection: made, watched, made anew. A whole new session after any fault, never lapin's own recovery,
//! because what was confirmed and what was not must be known to the message.

use super::{BrokerError, greet, sentence};
use crate::{
    code::Code,
    config::{Address, Broker},
    retry::Delays,
};
use futures_util::StreamExt as _;
use lapin::{
    AsyncTcpStream, Channel, Connection, ConnectionProperties, Event,
    tcp::{OwnedIdentity, OwnedTLSConfig},
    uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo, SASLMechanism},
};
use secrecy::{ExposeSecret as _, SecretString};
use std::{
    os::fd::AsFd as _,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::{sync::watch, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

/// For making the TCP connection.
const TCP: Duration = Duration::from_secs(5);
/// For TCP, TLS and the whole AMQP handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// For the first connection: every address has had its chance by then.
pub fn first_contact(broker: &Broker) -> Duration {
    (HANDSHAKE + Duration::from_secs(2)) * u32::try_from(broker.addresses.len()).unwrap_or(1).max(1)
}
/// For opening a channel and for single calls on it.
const CALL: Duration = Duration::from_secs(15);

/// A connection that is there, while it is.
#[derive(Clone)]
pub struct Live {
    connection: Arc<Connection>,
    /// Ends when the connection does, or when somebody found it broken.
    pub dead: CancellationToken,
    blocked: watch::Receiver<bool>,
    address: Address,
}

/// A supervised connection.
#[derive(Clone)]
pub struct Link {
    state: watch::Receiver<State>,
    stop: CancellationToken,
}

/// How a link stands.
#[derive(Clone, Default)]
struct State {
    live: Option<Live>,
    last_error: Option<BrokerError>,
}

impl Link {
    /// Starts a connection of this name and keeps it up until `stop`.
    pub fn start(name: &str, broker: Broker, stop: CancellationToken, tasks: &TaskTracker) -> Link {
        let (sender, state) = watch::channel(State::default());
        tasks.spawn(supervise(name.to_owned(), broker, stop.clone(), sender));
        Link { state, stop }
    }

    /// The connection, as soon as there is one; `None` when we are stopping.
    pub async fn live(&self) -> Option<Live> {
        let mut state = self.state.clone();
        loop {
            if let Some(live) =
                state.borrow_and_update().live.clone().filter(|live| !live.dead.is_cancelled())
            {
                return Some(live);
            }
            tokio::select! {
                () = self.stop.cancelled() => return None,
                changed = state.changed() => changed.ok()?,
            }
        }
    }

    /// Whether it is connected now.
    pub fn is_connected(&self) -> bool {
        self.state.borrow().live.as_ref().is_some_and(|live| !live.dead.is_cancelled())
    }

    /// Whether the broker has blocked it, being out of memory or disk.
    pub fn is_blocked(&self) -> bool {
        self.state.borrow().live.as_ref().is_some_and(|live| *live.blocked.borrow())
    }

    /// Why it is not connected.
    pub fn last_error(&self) -> Option<BrokerError> {
        self.state.borrow().last_error.clone()
    }
}

impl Live {
    /// A new channel.
    ///
    /// # Errors
    /// What the broker or the network says; the connection counts as dead then.
    pub async fn channel(&self) -> Result<Channel, BrokerError> {
        let channel = self.call("opening a channel", self.connection.create_channel()).await;
        channel.inspect_err(|_| self.dead.cancel())
    }

    /// Makes one call of the broker. A connection on which none comes back in time counts as dead.
    ///
    /// # Errors
    /// What the broker or the network says, or that there was no answer.
    pub async fn call<T>(
        &self,
        doing: &str,
        call: impl Future<Output = lapin::Result<T>>,
    ) -> Result<T, BrokerError> {
        match self.unless_dead(timeout(CALL, call)).await? {
            Ok(done) => done.map_err(|error| BrokerError::of(doing, &error)),
            Err(_) => {
                self.dead.cancel();
                let what = format!("{doing}: no answer within {} s", CALL.as_secs());
                Err(BrokerError::new(Code::BrokerUnreachable, what))
            }
        }
    }

    /// Waits for something no longer than the connection lives: a call that is made while it ends is never answered.
    ///
    /// # Errors
    /// The connection has ended.
    pub async fn unless_dead<T>(&self, call: impl Future<Output = T>) -> Result<T, BrokerError> {
        tokio::select! {
            biased;
            done = call => Ok(done),
            () = self.dead.cancelled() => Err(BrokerError::new(Code::BrokerUnreachable, "the connection has ended")),
        }
    }

    /// The most bytes one frame holds: all properties of a message must fit into one.
    pub fn frame_max(&self) -> usize {
        self.connection.configuration().frame_max() as usize
    }

    /// The address it is connected to, without credentials.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Whether the broker has blocked it.
    pub fn is_blocked(&self) -> bool {
        *self.blocked.borrow()
    }
}

async fn supervise(name: String, broker: Broker, stop: CancellationToken, sender: watch::Sender<State>) {
    let mut delays = Delays::new(Duration::from_millis(200), Duration::from_secs(15));
    let mut turn = 0;
    while !stop.is_cancelled() {
        let address = broker.addresses.get(turn % broker.addresses.len().max(1));
        let Some(address) = address else { return };
        turn += 1;
        let began = Instant::now();
        let connected = tokio::select! {
            () = stop.cancelled() => return,
            connected = connect(&name, &broker, address) => connected,
        };
        let error = match connected {
            Ok(connection) => {
                info!(link = name, address = %address, "connected to the broker");
                let error = watch_over(connection, address, &stop, &sender).await;
                if stop.is_cancelled() {
                    return;
                }
                warn!(link = name, address = %address, code = %error.code, "the connection to the broker has ended: {}", error.what);
                error
            }
            Err(error) => {
                warn!(link = name, address = %address, code = %error.code, "no connection to the broker: {}", error.what);
                error
            }
        };
        let _ = sender.send(State { live: None, last_error: Some(error) });
        if began.elapsed() > Duration::from_secs(30) {
            delays.reset();
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(delays.delay()) => {}
        }
    }
}

/// Publishes the connection and waits for its end.
async fn watch_over(
    connection: Connection,
    address: &Address,
    stop: &CancellationToken,
    sender: &watch::Sender<State>,
) -> BrokerError {
    // One listener only: lapin's events are shared out among listeners, not copied to each.
    let mut events = Box::pin(connection.events_listener());
    let (blocked, receiver) = watch::channel(false);
    let live = Live {
        connection: Arc::new(connection),
        dead: CancellationToken::new(),
        blocked: receiver,
        address: address.clone(),
    };
    let _ = sender.send(State { live: Some(live.clone()), last_error: None });
    let mut pulse = tokio::time::interval(Duration::from_secs(1));
    let error = loop {
        tokio::select! {
            () = stop.cancelled() => break BrokerError::new(Code::BrokerUnreachable, "stopped"),
            () = live.dead.cancelled() => break BrokerError::new(Code::BrokerUnreachable, "found broken by a user of it"),
            event = events.next() => match event {
                Some(Event::ConnectionBlocked(reason)) => {
                    warn!(code = %Code::BrokerBlocked, "the broker takes no messages: {reason}");
                    let _ = blocked.send(true);
                }
                Some(Event::ConnectionUnblocked) => {
                    info!("the broker takes messages again");
                    let _ = blocked.send(false);
                }
                // A channel's own error (a queue that is missing, or is not as it must be) leaves the connection as it is.
                Some(Event::Error(error)) if is_of_a_channel(&error) => {}
                Some(Event::Error(error)) => break BrokerError::of("the connection", &error),
                Some(_) => {}
                None => break BrokerError::new(Code::BrokerUnreachable, "the connection has ended"),
            },
            _ = pulse.tick() => {
                if !live.connection.status().connected() {
                    break BrokerError::new(Code::BrokerUnreachable, "the connection has ended");
                }
            }
        }
    };
    live.dead.cancel();
    // Closing is courtesy; a broken connection cannot do it, and lapin then says so in several ways.
    let _ = timeout(Duration::from_secs(2), live.connection.close(200, "bye".into())).await;
    error
}

/// Connects once, within bounds, leaving nothing behind when it fails.
///
/// # Errors
/// What the network, TLS or the broker says, in words.
pub async fn connect(name: &str, broker: &Broker, address: &Address) -> Result<Connection, BrokerError> {
    let password = match &broker.password {
        None => SecretString::from("guest".to_owned()),
        Some(reference) => reference.resolve().map_err(|no| BrokerError::new(no.code, no.what))?,
    };
    let tls = Arc::new(tls_config(broker)?);
    // Neither user nor password, but a certificate: that is the login.
    let by_certificate = address.tls
        && broker.tls.certificate.is_some()
        && broker.username.is_none()
        && broker.password.is_none();
    let uri = AMQPUri {
        scheme: if address.tls { AMQPScheme::AMQPS } else { AMQPScheme::AMQP },
        authority: AMQPAuthority {
            userinfo: AMQPUserInfo {
                username: broker.username.clone().unwrap_or_else(|| "guest".to_owned()),
                password: password.expose_secret().to_owned(),
            },
            host: address.host.clone(),
            port: address.port,
        },
        vhost: address.vhost.clone(),
        query: AMQPQueryString {
            heartbeat: Some(broker.heartbeat.as_secs().clamp(1, 3_600) as u16),
            auth_mechanism: by_certificate.then_some(SASLMechanism::External),
            ..AMQPQueryString::default()
        },
    };
    let properties = ConnectionProperties::default().with_connection_name(format!("packhorse {name}").into());
    // A peer that accepts and then says nothing would keep lapin's thread and socket for ever: on giving up, the socket is
    // shut down from outside, which ends both.
    let kept: Arc<Mutex<Option<socket2::Socket>>> = Arc::default();
    let keep = kept.clone();
    let runtime = lapin::runtime::default_runtime().map_err(|error| BrokerError::of("starting", &error))?;
    let stream = async move |uri: AMQPUri, runtime| {
        let stream = tcp(&uri, &runtime, &keep).await?;
        match uri.scheme {
            AMQPScheme::AMQP => Ok(stream),
            AMQPScheme::AMQPS => Ok(stream.into_tls(&uri.authority.host, (*tls).as_ref()).await?),
        }
    };
    let handshake = Connection::connector(uri, runtime, stream, properties);
    match timeout(HANDSHAKE, handshake).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => {
            let told = explain(address, &error);
            if !address.tls || told.code != Code::BrokerUnreachable {
                return Err(told);
            }
            // In TLS 1.3 a broker that refuses our certificate does so after the handshake, and lapin then mostly sees a
            // connection that was reset.
            match greet(broker, address).await {
                Err(better) if better.code == Code::TlsFailed => Err(better),
                Err(_) | Ok(_) => Err(told),
            }
        }
        Err(_) => {
            if let Ok(mut socket) = kept.lock()
                && let Some(socket) = socket.take()
            {
                let _ = socket.shutdown(std::net::Shutdown::Both);
            }
            let what = format!(
                "{address} accepts connections but does not speak AMQP within {} s",
                HANDSHAKE.as_secs()
            );
            Err(BrokerError::new(Code::BrokerUnreachable, what))
        }
    }
}

/// Closes a connection, with courtesy.
pub async fn close(connection: Connection) {
    let _ = timeout(Duration::from_secs(2), connection.close(200, "bye".into())).await;
}

type Runtime = async_rs::Runtime<async_rs::Tokio>;

async fn tcp(
    uri: &AMQPUri,
    runtime: &Runtime,
    keep: &Mutex<Option<socket2::Socket>>,
) -> lapin::Result<AsyncTcpStream<<async_rs::Tokio as async_rs::traits::Reactor>::TcpStream>> {
    let mut last = std::io::Error::from(std::io::ErrorKind::AddrNotAvailable);
    for address in tokio::net::lookup_host((uri.authority.host.as_str(), uri.authority.port)).await? {
        match timeout(TCP, AsyncTcpStream::connect(runtime, address)).await {
            Ok(Ok(stream)) => {
                if let AsyncTcpStream::Plain(plain) = &stream {
                    let socket = socket2::Socket::from(plain.get_ref().as_fd().try_clone_to_owned()?);
                    socket.set_tcp_nodelay(true)?;
                    if let Ok(mut keep) = keep.lock() {
                        *keep = Some(socket);
                    }
                }
                return Ok(stream);
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = std::io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last.into())
}

fn tls_config(broker: &Broker) -> Result<OwnedTLSConfig, BrokerError> {
    let read = |path: &std::path::Path| {
        std::fs::read_to_string(path).map_err(|error| {
            BrokerError::new(
                Code::TlsFailed,
                format!("the certificate file {} cannot be read: {error}", path.display()),
            )
        })
    };
    let identity = match (&broker.tls.certificate, &broker.tls.key) {
        (Some(certificate), Some(key)) => {
            let key = key.resolve().map_err(|no| BrokerError::new(no.code, no.what))?;
            Some(OwnedIdentity::PKCS8 {
                pem: read(certificate)?.into_bytes(),
                key: key.expose_secret().as_bytes().to_vec(),
            })
        }
        _ => None,
    };
    Ok(OwnedTLSConfig { identity, cert_chain: broker.tls.ca.as_deref().map(read).transpose()? })
}

fn explain(address: &Address, error: &lapin::Error) -> BrokerError {
    let text = sentence(error);
    let lower = text.to_lowercase();
    if let lapin::ErrorKind::ProtocolError(protocol) = error.kind() {
        return match protocol.get_id() {
            403 => BrokerError::new(
                Code::BrokerLoginRefused,
                format!(
                    "{address} refuses our login: check `username`, `password` and that the user exists ({text})"
                ),
            ),
            530 => BrokerError::new(
                Code::BrokerLoginRefused,
                format!(
                    "{address} does not let this user into the vhost, or the vhost does not exist ({text})"
                ),
            ),
            _ => BrokerError::new(Code::BrokerUnreachable, format!("{address}: {text}")),
        };
    }
    if lower.contains("certificate")
        || lower.contains("tls")
        || lower.contains("handshake")
        || lower.contains("invalid peer")
    {
        return BrokerError::new(Code::TlsFailed, format!("{address}: TLS failed: {text}"));
    }
    BrokerError::new(Code::BrokerUnreachable, format!("{address}: {text}"))
}

/// Whether an error closes a channel only: AMQP 0-9-1 calls those soft (s.1.1 of the specification's constants).
fn is_of_a_channel(error: &lapin::Error) -> bool {
    matches!(error.kind(), lapin::ErrorKind::ProtocolError(error)
        if matches!(error.kind(), lapin::protocol::AMQPErrorKind::Soft(_)))
}
