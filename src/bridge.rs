//! The composition root: opens the store, connects, verifies the topology, starts every route, and stops all of it in
//! order. What runs is decided here and nowhere else.

use crate::{
    broker::{
        Link, Publisher, greet,
        link::{Live, first_contact},
        topology::{Names, Topology},
    },
    code::Code,
    collect::Collector,
    config::{
        CollectRoute, Config, Instance, Way,
        plan::{Action, Source},
    },
    console,
    deliver::{Batcher, Deliverer},
    duty::{Begin, Duty},
    keeper::{self, Keeper},
    listen,
    store::{Opener, RouteNumber, Store, StoreError, Walk},
    system::{System, receiver},
    telemetry::{LinkLabel, Metrics},
};
use jiff::Timestamp;
use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::TcpListener,
    sync::Notify,
    time::{Instant, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, info, warn};

/// How often the journal is pruned.
const PRUNE: Duration = Duration::from_secs(3_600);
/// How often it is measured.
const MEASURE: Duration = Duration::from_secs(5);

/// Why the bridge could not start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CannotStart {
    /// The code.
    pub code: Code,
    /// What is wrong, what it means, what to do.
    pub what: String,
}

impl fmt::Display for CannotStart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.what)
    }
}

impl std::error::Error for CannotStart {}

fn cannot(code: Code, what: impl Into<String>) -> CannotStart {
    CannotStart { code, what: what.into() }
}

/// A bridge that runs.
pub struct Bridge {
    stop: CancellationToken,
    /// Ends what the routes still need while they drain: connections.
    end: CancellationToken,
    routes: TaskTracker,
    links: TaskTracker,
    drain: Duration,
    /// Where the receiver listens, if there is one.
    pub receiver: Option<std::net::SocketAddr>,
    /// Where health and metrics are answered, if anywhere.
    pub admin: Option<std::net::SocketAddr>,
}

impl Bridge {
    /// Starts everything that a configuration says.
    ///
    /// # Errors
    /// What would lose messages, or cannot work at all: a store that cannot be opened, a broker that is too old, queues
    /// that are not as they must be, an address that is taken. A broker that is away is no error: the bridge waits.
    pub async fn start(config: Config) -> Result<Bridge, CannotStart> {
        let store =
            Store::of(&config.store, Opener::Bridge).map_err(|error| cannot(error.code, error.what))?;
        alike(&config, &store).await?;
        let (stop, end) = (CancellationToken::new(), CancellationToken::new());
        let (routes, links) = (TaskTracker::new(), TaskTracker::new());
        let metrics = Metrics::default();
        let consume = Link::start("consume", config.broker.clone(), end.clone(), &links);
        let publish = Link::start("publish", config.broker.clone(), end.clone(), &links);
        let publisher = Publisher::new(publish.clone(), 4);
        verify(&config, &consume).await?;
        let mut systems: HashMap<String, Arc<System>> = HashMap::new();
        for instance in &config.instances {
            let system = System::open(instance, &config, (&consume, &publisher), &end, &links)
                .map_err(|failure| cannot(failure.code, failure.what))?;
            systems.insert(instance.name.clone(), Arc::new(system));
        }
        let latest = store.latest().await.map_err(|error| cannot(error.code, error.what))?;
        latest.into_iter().for_each(crate::clock::not_before);
        let asking = numbers(&config, &store).await?;
        let names = Names::new(&config.prefix);
        let missing = Arc::new(Notify::new());
        let keepers = keepers(&config, &store).await?;
        let keeper = |way: Way, id: &str| {
            keepers.iter().find(|keeper| keeper.way == way && keeper.route == id).cloned()
        };
        let mut duties: BTreeMap<String, Vec<Begin>> = BTreeMap::new();
        let mut one_at_a_time = |instance: &Instance, way: &str, what: &str, begin: Begin| {
            // What is counted against a limit is counted in one place.
            let name = match instance.is_limited() {
                true => format!("system {}", instance.name),
                false => format!("{way} {what}"),
            };
            duties.entry(name).or_default().push(begin);
        };
        let mut called = Vec::new();
        for route in &config.collect {
            let Some(system) = systems.get(&route.instance.name) else { continue };
            let Some(keeper) = keeper(Way::Collect, &route.id) else { continue };
            let collector = Arc::new(Collector {
                route: route.clone(),
                number: number(&store, &route.id).await?,
                asking: of_instance(&asking, &route.instance.name),
                system: system.clone(),
                store: store.clone(),
                publisher: publisher.clone(),
                names: names.clone(),
                schemas: config.schemas.clone(),
                files: config.store.files(),
                council: config.council.clone(),
                keeper,
                metrics: metrics.clone(),
                stop: stop.clone(),
                bell: Arc::new(Notify::new()),
            });
            if let Source::Receive(_) = &route.plan.source {
                let taker = collector.clone();
                let take: receiver::Take = Arc::new(move |received| {
                    let taker = taker.clone();
                    Box::pin(async move { taker.received(received).await })
                });
                called.push(receiver::Called { route: route.clone(), take });
            }
            let led = collector.clone();
            let begin: Begin = Box::new(move |store, stop, tasks| {
                Arc::new(Collector { store, stop, ..(*led).clone() }).start(tasks);
            });
            one_at_a_time(&route.instance, "collect", &route.id, begin);
        }
        for route in &config.deliver {
            let Some(system) = systems.get(&route.instance.name) else { continue };
            let Some(keeper) = keeper(Way::Deliver, &route.id) else { continue };
            let one_bridge = route.plan.order.is_some()
                || route.plan.opens.as_ref().is_some_and(|opens| opens.one_per.is_some())
                || route.instance.is_limited();
            let deliverer = Arc::new(Deliverer {
                route: route.clone(),
                number: number(&store, &route.id).await?,
                asking: of_instance(&asking, &route.instance.name),
                system: system.clone(),
                store: store.clone(),
                link: consume.clone(),
                publisher: publisher.clone(),
                names: names.clone(),
                council: config.council.clone(),
                keeper,
                metrics: metrics.clone(),
                stop: stop.clone(),
                missing: missing.clone(),
                one_per: Arc::default(),
                under_way: Arc::default(),
            });
            match one_bridge {
                false => deliverer.start(&routes),
                true => {
                    let begin: Begin = Box::new(move |store, stop, tasks| {
                        Arc::new(Deliverer { store, stop, ..(*deliverer).clone() }).start(tasks);
                    });
                    one_at_a_time(&route.instance, "deliver", &route.id, begin);
                }
            }
        }
        for batcher in batchers(&config, &store, &systems, (&keepers, &metrics), &stop).await? {
            let led = batcher.clone();
            let begin: Begin = Box::new(move |store, stop, tasks| {
                Arc::new(Batcher { store, stop, ..(*led).clone() }).start(tasks);
            });
            one_at_a_time(&batcher.instance, "batch", &batcher.feed(), begin);
        }
        for (name, work) in duties {
            routes.spawn(Duty { name, store: store.clone(), stop: stop.clone(), work }.serve());
        }
        let receiver = match &config.receiver {
            None => None,
            Some(settings) => {
                let tls = match &settings.tls {
                    None => None,
                    Some(tls) => Some(Arc::new(server_tls(tls)?)),
                };
                let router = receiver::router(called, settings.most_at_once, metrics.clone());
                Some(listen_at(settings.listen, tls, router, &stop, &routes).await?)
            }
        };
        links.spawn(mend(config.clone(), consume.clone(), missing, end.clone()));
        let view = console::View {
            links: vec![("consume".to_owned(), consume), ("publish".to_owned(), publish)],
            metrics: metrics.clone(),
            store: store.clone(),
        };
        let admin = match config.admin {
            None => None,
            Some(address) => {
                Some(listen_at(address, None, console::router(view.clone()), &end, &links).await?)
            }
        };
        links.spawn(watch(view, end.clone()));
        routes.spawn(keeper::watch(keepers, store.clone(), metrics.clone(), stop.clone()));
        routes.spawn(prune(store, config.store.keep, metrics.clone(), stop.clone()));
        info!(
            council = config.council,
            deliver = config.deliver.len(),
            collect = config.collect.len(),
            "the bridge runs"
        );
        Ok(Bridge { stop, end, routes, links, drain: config.drain, receiver, admin })
    }

    /// Stops: takes nothing more, goes on with what has begun until the deadline, gives the rest back. Whether everything
    /// came to its end in time.
    pub async fn stop(self) -> bool {
        info!("stopping: nothing more is taken, what has begun goes on for at most {:?}", self.drain);
        self.stop.cancel();
        self.routes.close();
        let drained = timeout(self.drain, self.routes.wait()).await.is_ok();
        if !drained {
            warn!(
                "not everything came to its end in time; what was cut off is asked about or sent again at the next start"
            );
        }
        self.end.cancel();
        self.links.close();
        let _ = timeout(Duration::from_secs(5), self.links.wait()).await;
        drained
    }
}

/// Bridges on one store read the same adapters and mappings, or what a message comes to would be a matter of chance.
async fn alike(config: &Config, store: &Store) -> Result<(), CannotStart> {
    let differ = store.reads(config.digests()).await.map_err(|error| cannot(error.code, error.what))?;
    match differ.is_empty() {
        true => Ok(()),
        false => {
            let what = format!(
                "another bridge that runs on this store reads other files than this one: {}",
                differ.join(", ")
            );
            Err(cannot(Code::BridgesDiffer, what))
        }
    }
}

/// The keepers of all routes' gates, which know what persons have stopped.
async fn keepers(config: &Config, store: &Store) -> Result<Vec<Arc<Keeper>>, CannotStart> {
    let keepers: Vec<Arc<Keeper>> = config.gated().into_iter().map(Keeper::new).collect();
    keeper::begin(&keepers, store).await.map_err(|error| cannot(error.code, error.what))?;
    Ok(keepers)
}

/// Queues and exchanges are as they must be, or the bridge does not start. A broker that is away is waited for later.
async fn verify(config: &Config, link: &Link) -> Result<(), CannotStart> {
    // Without having seen the broker by then, the bridge starts and waits for it.
    let Ok(live) = timeout(first_contact(&config.broker), link.live()).await else {
        let Some(error) = link.last_error() else { return Ok(()) };
        if matches!(error.code, Code::BrokerLoginRefused | Code::SecretUnavailable | Code::TlsFailed) {
            return Err(cannot(error.code, error.what));
        }
        warn!(code = %error.code, "the broker is not there yet; the bridge starts and waits for it: {}", error.what);
        return Ok(());
    };
    if let Some(address) = live.as_ref().map(Live::address)
        && let Ok(greeting) = greet(&config.broker, address).await
    {
        info!(product = greeting.product, version = greeting.version, "the broker says what it is");
        if greeting.is_too_old() {
            let what = format!(
                "{address} is RabbitMQ {}; at-least-once dead-lettering needs 3.10 or later",
                greeting.version
            );
            return Err(cannot(Code::BrokerTooOld, what));
        }
    }
    let findings = Topology::of(config)
        .apply(link, config.declare, config.declare_platform)
        .await
        .map_err(|error| cannot(error.code, error.what))?;
    let wrong: Vec<String> = findings
        .iter()
        .filter_map(|finding| finding.error.as_ref())
        .map(|error| format!("  {error}"))
        .collect();
    match findings.iter().find_map(|finding| finding.error.as_ref()) {
        None => Ok(()),
        Some(first) => Err(cannot(
            first.code,
            format!(
                "{} of {} queues and exchanges are not as they must be; messages could be lost:\n{}",
                wrong.len(),
                findings.len(),
                wrong.join("\n")
            ),
        )),
    }
}

/// Declares again what somebody has deleted while the bridge runs, whenever a route finds it missing; also what could not
/// be declared at the start because the broker was away.
async fn mend(config: Config, link: Link, missing: Arc<Notify>, end: CancellationToken) {
    loop {
        tokio::select! {
            () = end.cancelled() => return,
            () = missing.notified() => {}
        }
        match Topology::of(&config).apply(&link, config.declare, config.declare_platform).await {
            Ok(findings) => {
                for finding in findings {
                    if let Some(error) = &finding.error {
                        error!(code = %error.code, "{} is not as it must be: {}", finding.subject, error.what);
                    }
                }
            }
            Err(error) => warn!(code = %error.code, "the topology cannot be looked at: {}", error.what),
        }
        // Not more often than a person could delete something.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn number(store: &Store, route: &str) -> Result<RouteNumber, CannotStart> {
    store.route(route).await.map_err(|error| cannot(error.code, error.what))
}

/// The batches that some route feeds.
async fn batchers(
    config: &Config,
    store: &Store,
    systems: &HashMap<String, Arc<System>>,
    (keepers, metrics): (&[Arc<Keeper>], &Metrics),
    stop: &CancellationToken,
) -> Result<Vec<Arc<Batcher>>, CannotStart> {
    let mut found = Vec::new();
    for instance in &config.instances {
        let Some(system) = systems.get(&instance.name) else { continue };
        for batch in &instance.adapter.batches {
            let feed = instance.feed(&batch.name);
            let is_its = |keeper: &&Arc<Keeper>| keeper.way == Way::Batch && keeper.route == feed;
            let Some(keeper) = keepers.iter().find(is_its) else { continue };
            let mut routes = HashMap::new();
            for route in config.deliver.iter().filter(|route| route.instance.name == instance.name) {
                if let Action::Batch(join) = &route.plan.action
                    && join.batch.name == batch.name
                {
                    routes.insert(number(store, &route.id).await?, route.clone());
                }
            }
            // Also without routes: what an earlier configuration has batched still goes its way.
            found.push(Arc::new(Batcher {
                instance: instance.clone(),
                batch: batch.clone(),
                routes,
                system: system.clone(),
                store: store.clone(),
                keeper: keeper.clone(),
                metrics: metrics.clone(),
                stop: stop.clone(),
            }));
        }
    }
    Ok(found)
}

/// The routes that ask: id, number, first wait.
async fn numbers(
    config: &Config,
    store: &Store,
) -> Result<Vec<(Arc<CollectRoute>, RouteNumber, Duration)>, CannotStart> {
    let mut found = Vec::new();
    for route in &config.collect {
        if let Source::Ask(_) = &route.plan.source {
            let first = route.pace.first().copied().unwrap_or(Duration::from_secs(60));
            found.push((route.clone(), number(store, &route.id).await?, first));
        }
    }
    Ok(found)
}

fn of_instance(
    asking: &[(Arc<CollectRoute>, RouteNumber, Duration)],
    instance: &str,
) -> HashMap<String, (RouteNumber, Duration)> {
    asking
        .iter()
        .filter(|(route, ..)| route.instance.name == instance)
        .map(|(route, number, first)| (route.id.clone(), (*number, *first)))
        .collect()
}

fn server_tls(tls: &crate::config::Tls) -> Result<rustls::ServerConfig, CannotStart> {
    let (Some(certificate), Some(key)) = (&tls.certificate, &tls.key) else {
        return Err(cannot(Code::TlsFailed, "the receiver's TLS needs `certificate` and `key`"));
    };
    let key = key.resolve().map_err(|no| cannot(no.code, no.what))?;
    crate::tls::server((certificate.clone(), key), tls.ca.as_deref())
        .map_err(|what| cannot(Code::TlsFailed, what))
}

async fn listen_at(
    address: std::net::SocketAddr,
    tls: Option<Arc<rustls::ServerConfig>>,
    router: axum::Router,
    stop: &CancellationToken,
    tasks: &TaskTracker,
) -> Result<std::net::SocketAddr, CannotStart> {
    let taken =
        |error: std::io::Error| cannot(Code::BadAddress, format!("cannot listen at {address}: {error}"));
    let listener = TcpListener::bind(address).await.map_err(taken)?;
    let local = listener.local_addr().map_err(taken)?;
    tasks.spawn(listen::serve(listener, tls, router, stop.clone(), tasks.clone()));
    Ok(local)
}

/// Keeps the gauges of the connections true.
async fn watch(view: console::View, end: CancellationToken) {
    while !end.is_cancelled() {
        for (name, link) in &view.links {
            let label = LinkLabel { link: name.clone() };
            view.metrics.connected.get_or_create_owned(&label).set(i64::from(link.is_connected()));
            view.metrics.blocked.get_or_create_owned(&label).set(i64::from(link.is_blocked()));
        }
        tokio::select! {
            () = end.cancelled() => return,
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    }
}

/// Forgets what need no longer be remembered, a little at a time, and says how large the journal is.
async fn prune(store: Store, keep: Duration, metrics: Metrics, stop: CancellationToken) {
    let mut next = Instant::now();
    while !stop.is_cancelled() {
        if next <= Instant::now() {
            if let Err(error) = forget(&store, keep, &stop).await {
                error!(code = %error.code, "the journal cannot be pruned: {}", error.what);
            }
            next = Instant::now() + PRUNE;
        }
        match store.size().await {
            Ok(size) => {
                let age = size.oldest.map_or(0, |at| (Timestamp::now().as_millisecond() - at) / 1_000);
                metrics.journal(size.messages, size.bytes, age.max(0));
            }
            Err(error) => warn!(code = %error.code, "the journal cannot be measured: {}", error.what),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(MEASURE) => {}
        }
    }
}

/// One walk through what is older than that. Between two steps others have the store for four times as long as the step took.
async fn forget(store: &Store, keep: Duration, stop: &CancellationToken) -> Result<(), StoreError> {
    let before = Timestamp::now().as_millisecond() - i64::try_from(keep.as_millis()).unwrap_or(i64::MAX);
    let mut walk = Some(Walk::default());
    while let Some(from) = walk {
        let began = Instant::now();
        walk = store.prune(before, from).await?.1;
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(began.elapsed() * 4) => {}
        }
    }
    Ok(())
}
