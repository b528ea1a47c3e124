//! Keeps the gates of the routes: lets tasks pass when the gate allows it, tells the gate how attempts have ended, and
//! tells people and commands how it stands. What follows from what is decided in [`crate::gate`].

use crate::{
    code::Code,
    config::{Gated, Way},
    event::Key,
    gate::{Gate, Pass, Pause, Said, Settings, State, Then, Trip},
    store::{Away, Store},
    telemetry::{Metrics, RouteLabel},
    verdict::{Class, Failure},
};
use jiff::Timestamp;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// How long nobody looks at the clock at most: it may jump.
const LOOK: Duration = Duration::from_secs(1);
/// How often a person is told of the same.
const TELL_AGAIN: Duration = Duration::from_secs(3_600);

/// The keeper of one route's gate.
pub struct Keeper {
    /// The route, or the batch.
    pub route: String,
    /// Which way it goes.
    pub way: Way,
    gate: Mutex<Gate<Key>>,
    settings: Settings,
    tell_after: Duration,
    /// The last failure that shut it.
    why: Mutex<Option<(Code, String)>>,
    /// Since when what waits longest has waited.
    oldest: Mutex<Option<Timestamp>>,
    changed: watch::Sender<()>,
}

/// The right to take messages and send them, until it is dropped.
pub struct Ticket {
    keeper: Arc<Keeper>,
    pass: Pass,
}

impl Keeper {
    /// The keeper of a route or batch.
    pub fn new(gated: Gated) -> Arc<Keeper> {
        Arc::new(Keeper {
            route: gated.id,
            way: gated.way,
            gate: Mutex::new(Gate::new(gated.settings.clone())),
            settings: gated.settings,
            tell_after: gated.tell_after,
            why: Mutex::default(),
            oldest: Mutex::default(),
            changed: watch::Sender::new(()),
        })
    }

    fn gate(&self) -> MutexGuard<'_, Gate<Key>> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How the gate stands.
    pub fn state(&self) -> State {
        self.gate().state(Timestamp::now())
    }

    /// Whether a person has stopped the route.
    pub fn is_paused(&self) -> bool {
        matches!(self.state(), State::Paused(_))
    }

    /// Whether only one message may be sent, to see whether the system is there again.
    pub fn is_probing(&self) -> bool {
        matches!(self.state(), State::Probing(_))
    }

    /// Whether a message may be sent at this moment.
    pub fn may_send(&self) -> bool {
        self.gate().may_send(Timestamp::now())
    }

    /// How long a person does not mind that something waits.
    pub fn tell_after(&self) -> Duration {
        self.tell_after
    }

    /// Waits until it may pass; `None` when we are stopping.
    pub async fn pass(self: &Arc<Self>, stop: &CancellationToken) -> Option<Ticket> {
        let mut changed = self.changed.subscribe();
        loop {
            if stop.is_cancelled() {
                return None;
            }
            changed.borrow_and_update();
            let pass = self.gate().pass(Timestamp::now());
            match pass {
                Pass::All | Pass::One(_) => return Some(Ticket { keeper: self.clone(), pass }),
                Pass::None => {}
            }
            tokio::select! {
                () = stop.cancelled() => return None,
                _ = changed.changed() => {}
                () = tokio::time::sleep(self.wait()) => {}
            }
        }
    }

    /// Waits as long as a person has stopped the route; `false` when we are stopping.
    pub async fn unpaused(&self, stop: &CancellationToken) -> bool {
        let mut changed = self.changed.subscribe();
        loop {
            if stop.is_cancelled() {
                return false;
            }
            changed.borrow_and_update();
            if !self.is_paused() {
                return true;
            }
            tokio::select! {
                () = stop.cancelled() => return false,
                _ = changed.changed() => {}
            }
        }
    }

    /// Until the state may have changed by itself.
    fn wait(&self) -> Duration {
        let now = Timestamp::now();
        let until = match self.gate().state(now) {
            State::Tripped(trip) => Some(trip.until),
            State::Closed { until } => until,
            State::Open | State::Paused(_) | State::Probing(_) => None,
        };
        let until = until.map_or(LOOK, |until| until.duration_since(now).unsigned_abs());
        until.clamp(Duration::from_millis(1), LOOK)
    }

    /// An attempt has ended: what it says of the system, and with which failure.
    pub fn ended(&self, key: Key, failure: Option<&Failure>, said: Said) -> Then {
        let now = Timestamp::now();
        let (before, then, after) = {
            let mut gate = self.gate();
            let before = gate.state(now);
            let then = gate.ended(key, said, now);
            (before, then, gate.state(now))
        };
        if before == after {
            return then;
        }
        match (&after, failure) {
            (State::Tripped(trip), Some(failure)) => {
                *self.why.lock().unwrap_or_else(PoisonError::into_inner) =
                    Some((failure.code, failure.what.clone()));
                warn!(route = self.route, code = %Code::SystemAway, times = trip.times, until = %trip.until,
                      "the system is away: nothing is sent until then, and then one message is tried ({} {})", failure.code, failure.what);
            }
            (State::Open, _) if matches!(before, State::Probing(_) | State::Tripped(_)) => {
                info!(route = self.route, "the system is there again, the route goes on");
            }
            _ => {}
        }
        self.changed.send_replace(());
        then
    }

    /// What a person has said of the route.
    fn paused(&self, pause: Option<Pause>) {
        let changes = {
            let mut gate = self.gate();
            let now = Timestamp::now();
            let before = gate.state(now);
            gate.pause(pause.clone());
            before != gate.state(now)
        };
        if !changes {
            return;
        }
        match pause {
            Some(pause) => {
                info!(route = self.route, who = pause.who, reason = pause.why, "the route is paused")
            }
            None => info!(route = self.route, "the route goes on, as a person has said"),
        }
        self.changed.send_replace(());
    }

    /// Since when what waits longest has waited.
    pub fn waits_since(&self, oldest: Option<Timestamp>) {
        *self.oldest.lock().unwrap_or_else(PoisonError::into_inner) = oldest;
    }

    fn away(&self) -> Option<Away> {
        let (probing, trip) = match self.state() {
            State::Tripped(trip) => (false, trip),
            State::Probing(trip) => (true, trip),
            State::Open | State::Closed { .. } | State::Paused(_) => return None,
        };
        let Trip { since, until, times, .. } = trip;
        let why = self.why.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (code, why) = why.unwrap_or((Code::SystemAway, String::new()));
        Some(Away {
            route: self.route.clone(),
            probing,
            since: since.as_millisecond(),
            until: until.as_millisecond(),
            times,
            code: code.as_str().to_owned(),
            why,
        })
    }
}

impl Ticket {
    /// Whether it is for one message only.
    pub fn is_for_one(&self) -> bool {
        matches!(self.pass, Pass::One(_))
    }

    /// Whether it still holds.
    pub fn holds(&self) -> bool {
        self.keeper.gate().holds(self.pass, Timestamp::now())
    }

    /// Waits until it holds no longer.
    pub async fn over(&self) {
        let mut changed = self.keeper.changed.subscribe();
        loop {
            changed.borrow_and_update();
            if !self.holds() {
                return;
            }
            tokio::select! {
                _ = changed.changed() => {}
                () = tokio::time::sleep(self.until()) => {}
            }
        }
    }

    /// Until the system closes, but no longer than nobody looks at the clock.
    fn until(&self) -> Duration {
        let now = Timestamp::now();
        match self.keeper.settings.hours.as_ref().map(|hours| hours.at(now)) {
            Some(crate::gate::Door::Open(Some(until))) => {
                until.duration_since(now).unsigned_abs().clamp(Duration::from_millis(1), LOOK)
            }
            Some(crate::gate::Door::Open(None) | crate::gate::Door::Closed(_)) | None => LOOK,
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.keeper.gate().returned(self.pass);
        self.keeper.changed.send_replace(());
    }
}

/// What a failure says of the system.
pub fn says(failure: &Failure) -> Said {
    match failure.class {
        Class::Away => Said::Away(failure.retry_after),
        Class::Unknown => Said::Unclear,
        // It has answered.
        Class::Guarded => Said::There,
        Class::Refused if matches!(failure.code, Code::SystemRefuses | Code::StatementRefused) => Said::There,
        Class::NotDone | Class::Refused => Said::Nothing,
    }
}

/// Reads what persons have said, before anything is sent.
///
/// # Errors
/// The store failed.
pub async fn begin(keepers: &[Arc<Keeper>], store: &Store) -> Result<(), crate::store::StoreError> {
    let pauses: HashMap<String, Pause> = store.pauses().await?.into_iter().collect();
    keepers.iter().for_each(|keeper| keeper.paused(pauses.get(&keeper.route).cloned()));
    store.write_gates(Vec::new(), Vec::new()).await
}

/// Looks every second what persons have said, and tells how the gates stand.
pub async fn watch(keepers: Vec<Arc<Keeper>>, store: Store, metrics: Metrics, stop: CancellationToken) {
    let mut written = (Vec::new(), Vec::new());
    let mut told: HashMap<String, Timestamp> = HashMap::new();
    while !stop.is_cancelled() {
        match store.pauses().await {
            Ok(pauses) => {
                let pauses: HashMap<String, Pause> = pauses.into_iter().collect();
                keepers.iter().for_each(|keeper| keeper.paused(pauses.get(&keeper.route).cloned()));
            }
            Err(error) => warn!(code = %error.code, "pauses cannot be read: {}", error.what),
        }
        let now = Timestamp::now();
        for keeper in &keepers {
            show(keeper, &metrics);
            tell(keeper, now, &mut told);
            knows(keeper, now, &mut told);
        }
        let oldest = |keeper: &Arc<Keeper>| {
            let oldest = *keeper.oldest.lock().unwrap_or_else(PoisonError::into_inner);
            Some((keeper.route.clone(), oldest?.as_millisecond()))
        };
        let stands: (Vec<Away>, Vec<(String, i64)>) = (
            keepers.iter().filter_map(|keeper| keeper.away()).collect(),
            keepers.iter().filter_map(oldest).collect(),
        );
        if stands != written {
            match store.write_gates(stands.0.clone(), stands.1.clone()).await {
                Ok(()) => written = stands,
                Err(error) => {
                    warn!(code = %error.code, "how the routes stand cannot be written: {}", error.what)
                }
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

fn show(keeper: &Keeper, metrics: &Metrics) {
    let state = match keeper.state() {
        State::Open => "open",
        State::Closed { .. } => "closed",
        State::Paused(_) => "paused",
        State::Tripped(_) => "away",
        State::Probing(_) => "probing",
    };
    metrics.route_state(&keeper.route, state);
    let oldest = *keeper.oldest.lock().unwrap_or_else(PoisonError::into_inner);
    let age = oldest.map_or(0, |since| Timestamp::now().duration_since(since).as_secs().max(0));
    metrics.oldest.get_or_create_owned(&RouteLabel { route: keeper.route.clone() }).set(age);
}

/// A person is told that something waits for too long: at once, and then every hour.
fn tell(keeper: &Keeper, now: Timestamp, told: &mut HashMap<String, Timestamp>) {
    let oldest = *keeper.oldest.lock().unwrap_or_else(PoisonError::into_inner);
    let since = oldest.filter(|since| {
        Duration::try_from(now.duration_since(*since)).is_ok_and(|age| age >= keeper.tell_after)
    });
    let Some(since) = since else {
        told.remove(&keeper.route);
        return;
    };
    if due(told, &keeper.route, now, TELL_AGAIN) {
        let state = match keeper.state() {
            State::Open => "the route is open".to_owned(),
            State::Closed { until: Some(until) } => format!("the system is closed until {until}"),
            State::Closed { until: None } => "the system is closed".to_owned(),
            State::Paused(pause) => format!("the route was paused by {}: {}", pause.who, pause.why),
            State::Tripped(trip) | State::Probing(trip) => {
                format!("the system is away since {} and tried next at {}", trip.since, trip.until)
            }
        };
        error!(route = keeper.route, code = %Code::WaitsTooLong, since = %since,
               "something waits for longer than it may (`tell_after`); {state}");
    }
}

/// A calendar that is not for this year is told of once a day.
fn knows(keeper: &Keeper, now: Timestamp, told: &mut HashMap<String, Timestamp>) {
    let knows = keeper.settings.hours.as_ref().is_none_or(|hours| hours.knows(now));
    if !knows && due(told, &format!("{} calendar", keeper.route), now, Duration::from_secs(86_400)) {
        warn!(
            route = keeper.route,
            "the calendar of holidays is not for this year: the system counts as open on them"
        );
    }
}

fn due(told: &mut HashMap<String, Timestamp>, what: &str, now: Timestamp, every: Duration) -> bool {
    let due = told.get(what).is_none_or(|last| now.duration_since(*last).unsigned_abs() >= every);
    if due {
        told.insert(what.to_owned(), now);
    }
    due
}
