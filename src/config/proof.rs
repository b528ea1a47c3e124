//! Proofs from schemas and selections: that no event can be taken by two routes that both take money or both post it,
//! and that no payment which its vendor posts is posted again.

use super::{Config, DeliverRoute, plan, raw::adapter::Makes};
use crate::{
    code::Code,
    event::schema::{EventSchema, Kind},
    mapping::{Condition, Test},
    problem::Problem,
};
use std::collections::BTreeMap;

/// What is wrong, and under which adapter's name in `packhorse.toml`.
pub fn prove(config: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (index, a) in config.deliver.iter().enumerate() {
        for b in config.deliver.iter().skip(index + 1) {
            let both =
                a.plan.makes == b.plan.makes && matches!(a.plan.makes, Makes::Payment | Makes::Posting);
            if !both || a.plan.event.event_type != b.plan.event.event_type {
                continue;
            }
            if let Some(witness) = meet(&a.plan.event, &a.select, &b.select) {
                let act = if a.plan.makes == Makes::Payment { "take money" } else { "post it" };
                let what = format!("{} and {} could both {act} for one event: {witness}", a.id, b.id);
                problems.push(
                    Problem::error(Code::EventTakenTwice, &["adapters", &b.instance.name], what)
                        .on_key()
                        .label("takes what another route takes")
                        .help("let `select` of one of them exclude it, in the adapter or under `routes` in packhorse.toml"),
                );
            }
        }
    }
    for collect in config.collect.iter().filter(|route| route.plan.already_posted) {
        for emit in &collect.plan.events {
            let plan::EmitAction::Event(mapping) = &emit.action else { continue };
            for post in config.deliver.iter().filter(|route| posts(route, &mapping.schema.event_type)) {
                let constants = mapping.event_constants();
                if !post.select.iter().any(|condition| excluded(condition, &constants)) {
                    let what = format!(
                        "{} would post again what {} collects: its system posts these payments by itself",
                        post.id, collect.id
                    );
                    problems.push(
                        Problem::error(Code::PostedTwice, &["adapters", &post.instance.name], what)
                            .on_key()
                            .label("the money would be counted twice")
                            .help("let the posting route select `posting` is `needed`, and the mapping say `posting` is `done-by-provider`"),
                    );
                }
            }
        }
    }
    problems
}

fn posts(route: &DeliverRoute, event_type: &str) -> bool {
    route.plan.makes == Makes::Posting && route.plan.event.event_type == event_type
}

/// Whether a condition cannot hold for an event with these constants.
fn excluded(condition: &Condition, constants: &[(String, String)]) -> bool {
    let path = condition.path.to_string();
    let Some((_, value)) = constants.iter().find(|(field, _)| *field == path) else { return false };
    match &condition.test {
        Test::Is(values) => !values.contains(value),
        Test::Not(values) => values.contains(value),
        Test::Present(present) => !present,
        Test::BelowZero(wanted) => value.starts_with('-') != *wanted,
    }
}

/// What one field may be, by all conditions on it.
#[derive(Default)]
struct Allowed {
    is: Option<Vec<String>>,
    not: Vec<String>,
    present: Option<bool>,
}

/// An event that meets both lists of conditions, in words; `None` if the schema and the conditions rule it out.
fn meet(schema: &EventSchema, a: &[Condition], b: &[Condition]) -> Option<String> {
    let mut fields: BTreeMap<String, (Allowed, &Condition)> = BTreeMap::new();
    for condition in a.iter().chain(b) {
        let (allowed, _) =
            fields.entry(condition.path.to_string()).or_insert_with(|| (Allowed::default(), condition));
        match &condition.test {
            Test::Is(values) => {
                let kept = match &allowed.is {
                    None => values.clone(),
                    Some(before) => before.iter().filter(|value| values.contains(value)).cloned().collect(),
                };
                allowed.is = Some(kept);
            }
            Test::Not(values) => allowed.not.extend(values.iter().cloned()),
            // It rules out nothing here: an event that both take is then found rather once too often.
            Test::BelowZero(_) => {}
            Test::Present(present) => match allowed.present {
                Some(before) if before != *present => return None,
                _ => allowed.present = Some(*present),
            },
        }
    }
    let mut witness = Vec::new();
    for (path, (allowed, condition)) in &fields {
        let field = schema.field(&condition.path);
        let listed: Option<Vec<String>> = field.and_then(|field| field.values.as_ref()).map(|values| {
            values
                .iter()
                .map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
                .collect()
        });
        let required = field.is_some_and(|field| field.required) && condition.path.steps().len() == 1;
        let possible = |value: &&String| {
            !allowed.not.contains(value) && listed.as_ref().is_none_or(|listed| listed.contains(value))
        };
        let value = match (&allowed.is, &listed) {
            (Some(values), _) => Some(values.iter().find(possible)?.clone()),
            (None, Some(listed)) => listed.iter().find(|value| possible(value)).cloned(),
            (None, None) => Some(
                if field.is_some_and(|field| field.kind == Kind::Text) { "any other text" } else { "any" }
                    .to_owned(),
            ),
        };
        let absent_is_fine = allowed.is.is_none() && allowed.present != Some(true) && !required;
        match value {
            Some(value) if allowed.present != Some(false) => witness.push(format!("`{path}` is `{value}`")),
            _ if absent_is_fine => witness.push(format!("`{path}` is absent")),
            _ => return None,
        }
    }
    Some(match witness.is_empty() {
        true => format!("every {}", schema.event_type),
        false => format!("a {} in which {}", schema.event_type, witness.join(" and ")),
    })
}
