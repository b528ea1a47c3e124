//! A TCP proxy of our own that misbehaves when it is told to, in one direction or in both: cuts, stalls, is slow, closes
//! half. It knows nothing of what is spoken through it.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

/// How bytes of one direction go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Open,
    /// Nothing moves, nobody is told.
    Stalled,
    /// So many bytes every ten milliseconds.
    Slow(usize),
}

struct Direction {
    flow: watch::Sender<Flow>,
    /// Counts how often the connections of the moment were closed in this direction.
    ends: watch::Sender<u64>,
    bytes: Arc<AtomicU64>,
}

impl Direction {
    fn new() -> Direction {
        Direction { flow: watch::Sender::new(Flow::Open), ends: watch::Sender::new(0), bytes: Arc::default() }
    }

    fn pipe(&self, from: OwnedReadHalf, to: OwnedWriteHalf) -> impl Future<Output = ()> + use<> {
        pipe(from, to, self.flow.subscribe(), self.ends.subscribe(), self.bytes.clone())
    }
}

/// A proxy that runs until it is dropped.
pub struct Proxy {
    pub address: SocketAddr,
    up: Direction,
    down: Direction,
    /// Counts how often all connections were cut.
    cuts: watch::Sender<u64>,
    refuses: AtomicBool,
    came: watch::Sender<u64>,
}

impl Proxy {
    /// Begins to pass on what comes to a port of the kernel's choice.
    pub async fn to(server: SocketAddr) -> Arc<Proxy> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Arc::new(Proxy {
            address: listener.local_addr().unwrap(),
            up: Direction::new(),
            down: Direction::new(),
            cuts: watch::Sender::new(0),
            refuses: AtomicBool::new(false),
            came: watch::Sender::new(0),
        });
        let weak = Arc::downgrade(&proxy);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Some(proxy) = weak.upgrade() else { return };
                proxy.came.send_modify(|count| *count += 1);
                if proxy.refuses.load(Ordering::Relaxed) {
                    continue;
                }
                let Ok(server) = TcpStream::connect(server).await else { continue };
                let _ = (client.set_nodelay(true), server.set_nodelay(true));
                let mut cuts = proxy.cuts.subscribe();
                let ((from_client, to_client), (from_server, to_server)) =
                    (client.into_split(), server.into_split());
                let up = proxy.up.pipe(from_client, to_server);
                let down = proxy.down.pipe(from_server, to_client);
                tokio::spawn(async move {
                    tokio::select! {
                        _ = cuts.changed() => {}
                        _ = async { tokio::join!(up, down) } => {}
                    }
                });
            }
        });
        proxy
    }

    fn of(&self, way: Way) -> &Direction {
        match way {
            Way::Up => &self.up,
            Way::Down => &self.down,
        }
    }

    /// Cuts every connection of the moment.
    pub fn cut(&self) {
        self.cuts.send_modify(|count| *count += 1);
    }

    /// Lets nobody through any more, or again; connections of the moment stay.
    pub fn refuse(&self, refuses: bool) {
        self.refuses.store(refuses, Ordering::Relaxed);
    }

    /// Nothing moves this way until it is opened: also on connections that are made meanwhile.
    pub fn stall(&self, way: Way) {
        self.of(way).flow.send_replace(Flow::Stalled);
    }

    /// So many bytes move this way every ten milliseconds.
    pub fn slow(&self, way: Way, bytes: usize) {
        self.of(way).flow.send_replace(Flow::Slow(bytes.max(1)));
    }

    /// Everything flows again.
    pub fn open(&self) {
        self.up.flow.send_replace(Flow::Open);
        self.down.flow.send_replace(Flow::Open);
    }

    /// Closes the connections of the moment in one direction; in the other they go on.
    pub fn half_close(&self, way: Way) {
        self.of(way).ends.send_modify(|count| *count += 1);
    }

    /// Waits until somebody has come since so many had.
    pub async fn comes_again(&self, before: u64) {
        let mut came = self.came.subscribe();
        let wait = tokio::time::timeout(crate::support::PATIENCE, came.wait_for(|count| *count > before));
        assert!(wait.await.is_ok(), "nobody came again");
    }

    /// How many have come.
    pub fn came(&self) -> u64 {
        *self.came.borrow()
    }

    /// How many bytes have gone this way.
    pub fn bytes(&self, way: Way) -> u64 {
        self.of(way).bytes.load(Ordering::Relaxed)
    }
}

/// Passes bytes on in one direction. Its end closes that direction: the reader at the other side sees the end.
async fn pipe(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut flow: watch::Receiver<Flow>,
    mut ends: watch::Receiver<u64>,
    bytes: Arc<AtomicU64>,
) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let now = *flow.borrow_and_update();
        let most = match now {
            Flow::Open => buffer.len(),
            Flow::Slow(most) => most.min(buffer.len()),
            Flow::Stalled => {
                tokio::select! {
                    changed = flow.changed() => if changed.is_err() { return },
                    _ = ends.changed() => break,
                }
                continue;
            }
        };
        let read = tokio::select! {
            changed = flow.changed() => match changed { Ok(()) => continue, Err(_) => return },
            _ = ends.changed() => break,
            read = from.read(&mut buffer[..most]) => read.unwrap_or(0),
        };
        if read == 0 || to.write_all(&buffer[..read]).await.is_err() {
            break;
        }
        bytes.fetch_add(read as u64, Ordering::Relaxed);
        if let Flow::Slow(_) = now {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    let _ = to.shutdown().await;
}
