//! The account, drawn up from the store and held against what the broker has: letters in the dead-letter queue, messages in
//! the retry queues and in the routes' own.

use super::Refused;
use crate::{
    broker::{
        BrokerError, Link,
        lane::Browser,
        link::Live,
        topology::{Names, Topology},
    },
    code::Code,
    config::{Config, TIERS},
    letter::DeadLetter,
    problem::closest,
    store::{Account, Asked, Astray, At, BatchState, Buried, Named, RouteAccount, Store, Wrong},
};
use jiff::Timestamp;
use std::{collections::HashSet, time::Duration};
use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How many batches are looked at.
const BATCHES: u32 = 200;
/// How many letters are named.
const NAMED: usize = 20;
/// How often it is looked before it is said that letters are gone: somebody who looks through them holds them for a moment.
const LOOKS: u32 = 3;
/// How long a message may be overdue before it must be somewhere: longer than a broker leaves one unacknowledged.
const OVERDUE: Duration = Duration::from_secs(1_800);
/// How long the broker is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whether the broker is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broker {
    /// It is.
    Ask,
    /// It is not.
    LeaveOut,
}

/// The account, with what was found beside it.
#[derive(Debug, Clone)]
pub struct Proof {
    /// The account; what the broker does not have stands with its route.
    pub account: Account,
    /// Batches that are not yet sent, and the last that were.
    pub batches: Vec<BatchState>,
    /// What the broker has; why it could not be asked; nothing, if it was not to be asked.
    pub broker: Option<Result<Queues, BrokerError>>,
}

/// What the broker has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Queues {
    /// Letters in the dead-letter queue.
    pub letters: u32,
    /// Letters that must be there, by the journal.
    pub buried: usize,
    /// Letters that a person has replayed, and whose messages are on their way back.
    pub replayed: usize,
    /// Messages in each retry queue that holds any: its wait, how many.
    pub tiers: Vec<(&'static str, u32)>,
}

/// Draws the account up.
///
/// # Errors
/// The store failed.
pub async fn draw_up(
    config: &Config,
    store: &Store,
    route: Option<String>,
    since: Option<i64>,
    broker: Broker,
) -> Result<Proof, Refused> {
    let collects = config.collect.iter().map(|route| route.id.clone()).collect();
    let asked = Asked { route: route.clone(), since, collects, now: now() };
    let mut account = store.account(asked).await?;
    if let (Some(route), true) = (route, account.routes.is_empty()) {
        account.routes.push(nothing_yet(config, route)?);
    }
    let mut proof = Proof { account, batches: store.batches(BATCHES).await?, broker: None };
    if broker == Broker::Ask {
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let link = Link::start("account", config.broker.clone(), stop.clone(), &tasks);
        proof.broker = Some(compare(config, store, &link, &mut proof.account).await?);
        stop.cancel();
        tasks.close();
        let _ = timeout(Duration::from_secs(3), tasks.wait()).await;
    }
    Ok(proof)
}

/// The line of a route for which nothing has been taken in, if there is such a route.
fn nothing_yet(config: &Config, route: String) -> Result<RouteAccount, Refused> {
    let deliver = config.deliver.iter().map(|route| route.id.as_str());
    let known: Vec<&str> = deliver.chain(config.collect.iter().map(|route| route.id.as_str())).collect();
    if known.contains(&route.as_str()) {
        return Ok(RouteAccount { route, ..RouteAccount::default() });
    }
    let mut what =
        format!("there is no route `{route}` in these settings, and nothing was ever taken in for one");
    if let Some(close) = closest(&route, known) {
        what = format!("{what}; did you mean `{close}`?");
    }
    Err(Refused { code: Code::NoSuchRoute, what })
}

fn now() -> i64 {
    Timestamp::now().as_millisecond()
}

/// Holds the account against what the broker has. A broker that cannot be asked is told of, and is no difference.
async fn compare(
    config: &Config,
    store: &Store,
    link: &Link,
    account: &mut Account,
) -> Result<Result<Queues, BrokerError>, Refused> {
    let Ok(Some(live)) = timeout(PATIENCE, link.live()).await else {
        let what = format!("no connection to the broker within {} s", PATIENCE.as_secs());
        let away = || BrokerError::new(Code::BrokerUnreachable, what);
        return Ok(Err(link.last_error().unwrap_or_else(away)));
    };
    let names = Names::new(&config.prefix);
    let mut queues = Queues::default();
    for (name, delay) in TIERS {
        match Topology::depth(&live, &names.tier(delay)).await {
            Ok(None | Some(0)) => {}
            Ok(Some(depth)) => queues.tiers.push((name, depth)),
            Err(error) => return Ok(Err(error)),
        }
    }
    match letters(store, link, &live, &names.dead(), &mut queues).await? {
        Ok(gone) => lost_letters(account, &gone),
        Err(error) => return Ok(Err(error)),
    }
    if let Err(error) = not_back(config, store, &live, account).await? {
        return Ok(Err(error));
    }
    Ok(Ok(queues))
}

/// The letters that must be in the dead-letter queue and are not. What is said to be missing was given up before it was looked,
/// was not to be seen in any look, and is still given up by the journal after the last.
async fn letters(
    store: &Store,
    link: &Link,
    live: &Live,
    queue: &str,
    queues: &mut Queues,
) -> Result<Result<Vec<Buried>, BrokerError>, Refused> {
    let mut seen: HashSet<String> = HashSet::new();
    let began = now();
    for look in 1..=LOOKS {
        let buried = store.buried().await?;
        queues.replayed = buried.iter().filter(|letter| letter.replayed).count();
        queues.buried = buried.len() - queues.replayed;
        let depth = match Topology::depth(live, queue).await {
            Ok(depth) => depth.unwrap_or(0),
            Err(error) => return Ok(Err(error)),
        };
        queues.letters = depth;
        if depth as usize >= queues.buried {
            return Ok(Ok(Vec::new()));
        }
        match keys(link, queue, depth).await {
            Ok(keys) => seen.extend(keys),
            Err(error) => return Ok(Err(error)),
        }
        let is_gone =
            |letter: &Buried| !letter.replayed && letter.at < began && !seen.contains(&letter.named.key);
        let gone: Vec<Buried> = store.buried().await?.into_iter().filter(is_gone).collect();
        if gone.is_empty() || look == LOOKS {
            return Ok(Ok(gone));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Ok(Ok(Vec::new()))
}

/// The keys of the letters in the queue; they stay where they are.
async fn keys(link: &Link, queue: &str, depth: u32) -> Result<Vec<String>, BrokerError> {
    if depth == 0 {
        return Ok(Vec::new());
    }
    let browser = Browser::open(link, queue).await?;
    let mut keys = Vec::new();
    for _ in 0..depth {
        let Some((delivery, _)) = browser.next().await? else { break };
        keys.push(DeadLetter::of(&delivery.properties, &delivery.body).key);
    }
    browser.close().await;
    Ok(keys)
}

fn lost_letters(account: &mut Account, gone: &[Buried]) {
    let since = account.since.unwrap_or(0);
    for line in &mut account.routes {
        let is_its = |letter: &&Buried| {
            letter.route == line.route && letter.named.taken_at.is_none_or(|at| at >= since)
        };
        let named: Vec<Named> = gone.iter().filter(is_its).map(|letter| letter.named.clone()).collect();
        if !named.is_empty() {
            let messages = named.len() as i64;
            let named = named.into_iter().take(NAMED).collect();
            line.astray.push(Astray { what: Wrong::LetterGone, messages, named });
        }
    }
}

/// What should long be back from its retry queue is in its route's own queue, or with the bridge for some minutes; if it is
/// neither, it is gone.
async fn not_back(
    config: &Config,
    store: &Store,
    live: &Live,
    account: &mut Account,
) -> Result<Result<(), BrokerError>, Refused> {
    let before = now() - OVERDUE.as_millis() as i64;
    for line in &mut account.routes {
        let waits = line.waits.iter().any(|waits| waits.at == At::Queue);
        let Some(route) = config.deliver.iter().find(|route| waits && route.id == line.route) else {
            continue;
        };
        let (messages, named) = store.overdue(line.route.clone(), before).await?;
        if messages == 0 {
            continue;
        }
        match Topology::depth(live, &route.queue).await {
            // Its queue is not there at all: that is told elsewhere, and nothing can be said of its messages.
            Ok(None) => {}
            Ok(Some(0)) => line.astray.push(Astray { what: Wrong::NotBack, messages, named }),
            Ok(Some(_)) => {}
            Err(error) => return Ok(Err(error)),
        }
    }
    Ok(Ok(()))
}
