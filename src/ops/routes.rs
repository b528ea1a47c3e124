//! What an operator can do with routes: see how they stand, pause them and let them go on.

use super::{Actor, Refused, refused};
use crate::{
    code::Code,
    config::{Config, Gated, Way},
    gate::{Door, Pause},
    problem::closest,
    store::{Away, Store},
};
use jiff::Timestamp;

/// How a route stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteState {
    /// `<instance>.<route>`
    pub route: String,
    /// Which way it goes.
    pub way: Way,
    /// How it stands.
    pub stands: Stands,
    /// Since when what waits longest has waited.
    pub oldest: Option<i64>,
}

/// How a route stands, with its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stands {
    /// Messages go through.
    Open,
    /// Its system is closed at this hour.
    Closed(Option<Timestamp>),
    /// A person has paused it.
    Paused(Pause),
    /// Its system is away.
    Away(Away),
}

/// How all routes stand: what the settings and persons say, and what the bridge has last found.
///
/// # Errors
/// The store failed.
pub async fn list(config: &Config, store: &Store, now: Timestamp) -> Result<Vec<RouteState>, Refused> {
    let gates = store.gates().await?;
    let state = |gated: Gated| {
        let pause = gates.pauses.iter().find(|(paused, _)| *paused == gated.id);
        let is_it = |away: &&Away| gated.way == Way::Deliver && away.route == gated.id;
        let away = gates.away.iter().find(is_it);
        let stands = match (pause, gated.settings.hours.as_ref().map(|hours| hours.at(now)), away) {
            (Some((_, pause)), _, _) => Stands::Paused(pause.clone()),
            (None, Some(Door::Closed(until)), _) => Stands::Closed(until),
            (None, Some(Door::Open(_)) | None, Some(away)) => Stands::Away(away.clone()),
            (None, Some(Door::Open(_)) | None, None) => Stands::Open,
        };
        let oldest = gates.oldest.iter().find(|(old, _)| *old == gated.id).map(|(_, since)| *since);
        RouteState { route: gated.id, way: gated.way, stands, oldest }
    };
    let mut all: Vec<RouteState> = config.gated().into_iter().map(state).collect();
    all.sort_by(|a, b| a.route.cmp(&b.route));
    Ok(all)
}

/// Pauses a route, or all routes of an adapter in use. The bridge stops them within a second, or does not begin with them.
/// Gives the routes that are paused from now on.
///
/// # Errors
/// There is no such route, or each is paused already; the store failed.
pub async fn pause(
    config: &Config,
    store: &Store,
    name: &str,
    actor: &Actor,
) -> Result<Vec<String>, Refused> {
    let now = Timestamp::now().as_millisecond();
    let (mut done, mut before) = (Vec::new(), None);
    for route in named(config, name)? {
        match store.pause(&route, now, &actor.who, &actor.reason).await? {
            None => done.push(route),
            Some(pause) => before = Some((route, pause)),
        }
    }
    match before {
        Some((route, pause)) if done.is_empty() => refused(
            Code::NotPaused,
            format!("{route} is paused already, by {} since {}: {}", pause.who, pause.since, pause.why),
        ),
        _ => Ok(done),
    }
}

/// Lets a route go on, or all routes of an adapter in use that are paused. Gives those that go on.
///
/// # Errors
/// There is no such route, or none of them is paused; the store failed.
pub async fn resume(
    config: &Config,
    store: &Store,
    name: &str,
    actor: &Actor,
) -> Result<Vec<String>, Refused> {
    let now = Timestamp::now().as_millisecond();
    let paused: Vec<String> = store.pauses().await?.into_iter().map(|(route, _)| route).collect();
    // One that is no longer in the settings may be resumed all the same: it is paused when it comes back.
    let routes = match paused.iter().any(|route| route == name) {
        true => vec![name.to_owned()],
        false => named(config, name)?,
    };
    let mut done = Vec::new();
    for route in routes {
        if store.resume(&route, now, &actor.who, &actor.reason).await? {
            done.push(route);
        }
    }
    match done.is_empty() {
        true => refused(Code::NotPaused, format!("{name} is not paused")),
        false => Ok(done),
    }
}

/// The routes that a name means: one, or all of an adapter in use.
fn named(config: &Config, name: &str) -> Result<Vec<String>, Refused> {
    let all = config.gated();
    let mut found: Vec<String> = all
        .iter()
        .filter(|gated| gated.id == name || gated.instance == name)
        .map(|gated| gated.id.clone())
        .collect();
    found.dedup();
    if !found.is_empty() {
        return Ok(found);
    }
    let mut what = format!("there is no route or adapter `{name}` in these settings");
    if let Some(close) = closest(name, all.iter().map(|gated| gated.id.as_str())) {
        what = format!("{what}; did you mean `{close}`?");
    }
    refused(Code::NoSuchRoute, what)
}
