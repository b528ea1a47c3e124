//! `packhorse routes`, `packhorse pause` and `packhorse resume`.

use super::moment;
use crate::{
    config::Way,
    ops::{
        Actor,
        routes::{self, RouteState, Stands},
    },
};
use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::path::Path;

/// Show how every route stands.
#[derive(Debug, Args)]
pub struct Routes {
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
}

/// Pause a route.
#[derive(Debug, Args)]
pub struct Pause {
    /// The route, `<adapter>.<route>`, or an adapter for all its routes.
    route: String,
    #[command(flatten)]
    acting: Acting,
}

/// Let a route go on.
#[derive(Debug, Args)]
pub struct Resume {
    /// The route, `<adapter>.<route>`, or an adapter for all its routes.
    route: String,
    #[command(flatten)]
    acting: Acting,
}

/// Who acts, and why.
#[derive(Debug, Args)]
struct Acting {
    /// Your name, for the audit trail. Default: the name you are logged in with.
    #[arg(long)]
    by: Option<String>,
    /// Why, for the audit trail and for everybody who looks at the route.
    #[arg(long, value_parser = super::dead_letters::some_text)]
    reason: String,
}

impl Acting {
    fn actor(&self) -> Actor {
        Actor { who: self.by.clone().unwrap_or_else(super::logged_in), reason: self.reason.clone() }
    }
}

impl Routes {
    /// Runs it.
    pub fn run(&self, path: &Path) -> u8 {
        super::on_store(path, async |config, store| {
            let now = Timestamp::now();
            let all = routes::list(config, store, now).await?;
            match self.json {
                true => all.iter().for_each(|state| println!("{}", object(state))),
                false => {
                    let rows: Vec<Vec<String>> = all.iter().map(row).collect();
                    super::table(&["route", "way", "state", "until", "waits since", "why"], &rows);
                }
            }
            Ok(0)
        })
    }
}

impl Pause {
    /// Runs it.
    pub fn run(&self, path: &Path) -> u8 {
        super::on_store(path, async |config, store| {
            for route in routes::pause(config, store, &self.route, &self.acting.actor()).await? {
                println!("{route} is paused");
            }
            Ok(0)
        })
    }
}

impl Resume {
    /// Runs it.
    pub fn run(&self, path: &Path) -> u8 {
        super::on_store(path, async |config, store| {
            for route in routes::resume(config, store, &self.route, &self.acting.actor()).await? {
                println!("{route} goes on");
            }
            Ok(0)
        })
    }
}

/// A route as one object.
fn object(state: &RouteState) -> Value {
    let mut object = json!({ "schema": "packhorse.route/v1", "route": state.route,
        "way": way(state), "state": name(&state.stands), "oldest_waiting": state.oldest.map(moment) });
    let more = match &state.stands {
        Stands::Open => json!({}),
        Stands::Closed(until) => json!({ "until": until.map(|at| moment(at.as_millisecond())) }),
        Stands::Paused(pause) => {
            json!({ "since": moment(pause.since.as_millisecond()), "by": pause.who, "why": pause.why })
        }
        Stands::Away(away) => {
            json!({ "since": moment(away.since), "next_try": moment(away.until), "times": away.times,
            "code": away.code, "why": away.why })
        }
    };
    if let (Value::Object(object), Value::Object(more)) = (&mut object, more) {
        object.extend(more);
    }
    object
}

fn way(state: &RouteState) -> &'static str {
    match state.way {
        Way::Deliver => "to the system",
        Way::Collect => "from the system",
        Way::Batch => "batch to the system",
    }
}

fn name(stands: &Stands) -> &'static str {
    match stands {
        Stands::Open => "open",
        Stands::Closed(_) => "closed",
        Stands::Paused(_) => "paused",
        Stands::Away(away) if away.probing => "probing",
        Stands::Away(_) => "away",
    }
}

fn row(state: &RouteState) -> Vec<String> {
    let (until, why) = match &state.stands {
        Stands::Open => (String::new(), String::new()),
        Stands::Closed(until) => {
            (until.map(|at| moment(at.as_millisecond())).unwrap_or_default(), "outside its hours".to_owned())
        }
        Stands::Paused(pause) => {
            let since = moment(pause.since.as_millisecond());
            (String::new(), format!("by {} since {since}: {}", pause.who, pause.why))
        }
        Stands::Away(away) => {
            let why = format!(
                "since {}, next try at {}: {} {}",
                moment(away.since),
                moment(away.until),
                away.code,
                away.why
            );
            (moment(away.until), why)
        }
    };
    let oldest = state.oldest.map(moment).unwrap_or_default();
    vec![state.route.clone(), way(state).to_owned(), name(&state.stands).to_owned(), until, oldest, why]
}
