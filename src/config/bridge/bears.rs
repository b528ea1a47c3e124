//! What a system bears: the bridge's own word, or else the adapter's.

use super::Builder;
use crate::{
    code::Code,
    config::{
        compile, plan,
        raw::{
            bridge::{AdapterUse, RouteUse},
            hours::HoursKeys,
        },
    },
    gate::{Hours, Settings},
    problem::Problem,
};
use std::time::Duration;

/// The hours that a route itself says.
pub(super) enum Own<'a> {
    /// Of one that calls its system: if it says none, the system's count.
    Of(Option<&'a Hours>),
    /// Of one whose events join a batch: that calls nobody, and the batch waits for the system's hours.
    Joins(Option<&'a Hours>),
}

impl Builder<'_> {
    /// What an adapter in use bears.
    pub(super) fn bears(&mut self, name: &str, keys: &AdapterUse, adapter: &plan::Adapter) -> plan::Bears {
        let own = &adapter.bears;
        let calls = matches!(adapter.system, plan::SystemPlan::Http(_) | plan::SystemPlan::Sql(_));
        for (key, given) in [("most_at_once", keys.most_at_once), ("per_minute", keys.per_minute)] {
            let at = ["adapters", name, key];
            if given.is_some() && !calls {
                let what = "calls are counted over HTTP and to databases, and this system is neither";
                self.problems.push(Problem::error(Code::ExclusiveKeys, &at, what).on_key());
            }
            if given == Some(0) {
                let what = "a system that bears no call is never called";
                self.error(Code::WrongType, &at, what, "to stop its routes, `packhorse pause`");
            }
        }
        let at = |key| ["adapters", name, "when_away", key];
        let away = keys.when_away.as_ref();
        let mut pause = |key, text: Option<&String>, own: Duration| match text {
            None => own,
            Some(_) => self.duration(&text.cloned(), "5s", &at(key)),
        };
        let first_pause = pause("first", away.and_then(|away| away.first.as_ref()), own.first_pause);
        let longest_pause = pause("most", away.and_then(|away| away.most.as_ref()), own.longest_pause);
        plan::Bears {
            hours: self.hours(keys.hours.as_ref(), &["adapters", name]).or_else(|| own.hours.clone()),
            most_at_once: keys.most_at_once.or(own.most_at_once),
            per_minute: keys.per_minute.or(own.per_minute),
            first_pause: first_pause.max(Duration::from_millis(100)),
            longest_pause: longest_pause.max(first_pause),
            tell_after: match &keys.tell_after {
                None => own.tell_after,
                text => self.duration(text, "1d", &["adapters", name, "tell_after"]),
            },
        }
    }

    /// What the gate of a route is made of, and when a person is told that something waits.
    pub(super) fn gate(
        &mut self,
        at: (&str, &str),
        own: Own<'_>,
        over: Option<&RouteUse>,
        bears: &plan::Bears,
    ) -> (Settings, Duration) {
        let (name, route) = at;
        let said = over.and_then(|over| over.hours.as_ref());
        let said = self.hours(said, &["adapters", name, "routes", route]);
        let hours = match own {
            Own::Of(own) => said.or_else(|| own.cloned()).or_else(|| bears.hours.clone()),
            Own::Joins(own) => said.or_else(|| own.cloned()),
        };
        let settings = Settings { hours, first: bears.first_pause, most: bears.longest_pause };
        let tell_after = match over.and_then(|over| over.tell_after.as_ref()) {
            None => bears.tell_after,
            text => self.duration(&text.cloned(), "1d", &["adapters", name, "routes", route, "tell_after"]),
        };
        (settings, tell_after)
    }

    fn hours(&mut self, keys: Option<&HoursKeys>, at: &[&str]) -> Option<Hours> {
        let at: Vec<String> = at.iter().copied().chain(["hours"]).map(str::to_owned).collect();
        let (hours, problems) = compile::hours(keys?, self.with.calendars, &at);
        self.problems.extend(problems);
        hours
    }
}

/// How many messages a window holds, so that none of them waits for its call for longer than a minute or two.
pub(super) fn window(plan: &plan::Deliver, concurrency: u32, bears: &plan::Bears) -> u32 {
    match bears.per_minute {
        None => plan.window,
        Some(calls) => plan.window.min(calls / concurrency.max(1)).max(1),
    }
}
