//! From what a system said to the events that the platform receives: chosen by the route's rules, made by mappings,
//! checked against schemas, given an identity that stays the same however often the same thing is said.
//!
//! Pure, and used by both ways: by replies to what was delivered, and by what was collected.

use crate::{
    broker::{Message, Properties, topology::UPDATES},
    code::Code,
    config::{
        Instance,
        batch::About,
        plan::{Emit, EmitAction, Opens},
        raw::batch::Unmatched,
        raw::pickup::Change,
    },
    event::{Event, Key},
    mapping::{Condition, Context, Failures},
    template::{Scope, Template},
    tree::{Name, Record, Tree},
    verdict::Failure,
};
use bytes::Bytes;
use jiff::Timestamp;
use std::collections::HashMap;

/// What there is to emit from.
#[derive(Clone, Copy)]
pub struct Ground<'a> {
    /// The adapter in use.
    pub instance: &'a Instance,
    /// The council's code.
    pub council: &'a str,
    /// What the system said.
    pub document: &'a Tree,
    /// What was kept of what caused it.
    pub cause: Option<&'a Tree>,
    /// What has become of a compared record.
    pub change: Option<Change>,
    /// What is known of what it is about.
    pub about: Option<&'a Abouts>,
    /// What caused it, if that was an event.
    pub event: Option<&'a Event>,
    /// What the ids of events begin with where a mapping makes none.
    pub identity: &'a str,
    /// The moment.
    pub now: Timestamp,
    /// The trace context to hand on.
    pub trace: Option<&'a str>,
}

/// What was remembered of what was sent, by its route and key.
pub type Abouts = HashMap<(String, String), Tree>;

/// Something that was sent, by what a report says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The route that sent it.
    pub route: String,
    /// What it is remembered by.
    pub key: String,
    /// What becomes of the report if that is not known.
    pub unmatched: Unmatched,
}

/// An event that is ready to be published.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// Not to be published while this is open: a route that asks, and the key it asks by.
    pub unless_open: Option<(String, String)>,
    /// What makes it the same as another.
    pub key: Key,
    /// Its type.
    pub event_type: String,
    /// The message.
    pub message: Message,
}

/// Something to be remembered as open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// The route that will ask.
    pub route: String,
    /// What it is asked by.
    pub key: String,
    /// What no second one is opened for.
    pub one_per: Option<String>,
    /// What is kept, as JSON.
    pub cause: String,
}

/// What becomes of what a system said.
#[derive(Debug, Default)]
pub struct Emitted {
    /// Events to be published.
    pub events: Vec<Outgoing>,
    /// What is open from here on.
    pub opens: Vec<Opened>,
    /// Ask again later.
    pub wait: bool,
    /// Parts of the document that no row knows, by mapping.
    pub drift: Vec<(String, Vec<String>)>,
}

/// Applies the rules of a route.
///
/// # Errors
/// No rule applies, a rule puts it before a person, or a mapping fails.
pub fn emit(rules: &[Emit], ground: Ground<'_>) -> Result<Emitted, Failure> {
    let mut emitted = Emitted::default();
    let mut applied = false;
    for rule in rules {
        let changed =
            rule.change.is_empty() || ground.change.is_some_and(|change| rule.change.contains(&change));
        if !changed || !hold(&rule.when, ground.document) {
            continue;
        }
        applied = true;
        match &rule.action {
            EmitAction::Ignore(_) => {}
            EmitAction::Wait => emitted.wait = true,
            EmitAction::Dead(why) => return Err(Failure::refused(Code::NoMappingApplies, "", why.clone())),
            EmitAction::Event(mapping) => {
                for (index, part) in parts(rule, ground.document).into_iter().enumerate() {
                    let about = match &rule.about {
                        None => None,
                        Some(about) => {
                            let wanted = wanted(about, part, &ground)?;
                            ground.about.and_then(|known| known.get(&(wanted.route, wanted.key)))
                        }
                    };
                    let both = about.map(|about| with(about, ground.cause));
                    let context = Context {
                        settings: &ground.instance.settings,
                        values: &Default::default(),
                        cause: both.as_ref().or(ground.cause),
                        now: ground.now,
                        trace: None,
                    };
                    let new = mapping.to_event(part, context).map_err(|failures| of_mapping(&failures))?;
                    if !new.drift.is_empty() {
                        emitted.drift.push((mapping.name.clone(), new.drift));
                    }
                    let event_type = mapping.schema.event_type.clone();
                    let id = new.id.unwrap_or_else(|| match index {
                        0 => format!("{}:{event_type}", ground.identity),
                        index => format!("{}:{event_type}:{index}", ground.identity),
                    });
                    let event = Event {
                        id,
                        source: ground.instance.source.clone(),
                        event_type,
                        subject: new.subject,
                        time: Some(new.time.unwrap_or_else(|| ground.now.to_string())),
                        dataschema: Some(mapping.schema.id.clone()),
                        extensions: ground
                            .event
                            .map(|event| ("causationid".to_owned(), event.id.clone()))
                            .into_iter()
                            .collect(),
                        data: new.data,
                    };
                    let mut outgoing = outgoing(&event, ground.council, &ground.instance.name, ground.trace);
                    outgoing.unless_open = rule
                        .unless_open
                        .as_ref()
                        .map(|(route, key)| open_elsewhere(route, key, part, &ground))
                        .transpose()?;
                    emitted.events.push(outgoing);
                }
            }
        }
        if let Some(opens) = &rule.opens {
            emitted.opens.push(open(opens, &ground)?);
        }
        if !rule.also {
            break;
        }
    }
    match applied {
        true => Ok(emitted),
        false => Err(Failure::refused(
            Code::NoMappingApplies,
            "",
            "no rule of the route says what becomes of this",
        )),
    }
}

/// The parts of a document that a rule makes events of.
fn parts<'d>(rule: &Emit, document: &'d Tree) -> Vec<&'d Tree> {
    let parts = match &rule.each {
        None => vec![document],
        Some(path) => path.find_all(document),
    };
    parts.into_iter().filter(|part| hold(&rule.each_when, part)).collect()
}

/// What was kept of what a document is about, and beside it where the document came from.
fn with(about: &Tree, cause: Option<&Tree>) -> Tree {
    let mut kept = about.as_record().cloned().unwrap_or_default();
    for (name, value) in cause.and_then(Tree::as_record).iter().flat_map(|record| record.entries()) {
        if kept.get(name).is_none() {
            kept.push(name.clone(), value.clone());
        }
    }
    Tree::Record(kept)
}

/// What a document is about, as far as the rules that apply to it say so.
///
/// # Errors
/// A template that cannot be rendered.
pub fn abouts(rules: &[Emit], ground: Ground<'_>) -> Result<Vec<Wanted>, Failure> {
    let mut found = Vec::new();
    for rule in rules.iter().filter(|rule| hold(&rule.when, ground.document)) {
        if let Some(about) = &rule.about {
            for part in parts(rule, ground.document) {
                found.push(wanted(about, part, &ground)?);
            }
        }
        if !rule.also {
            break;
        }
    }
    Ok(found)
}

fn wanted(about: &About, part: &Tree, ground: &Ground<'_>) -> Result<Wanted, Failure> {
    let scope = Scope {
        document: Some(part),
        settings: Some(&ground.instance.settings),
        now: ground.now,
        ..Scope::default()
    };
    let key = about
        .key
        .render(&scope)
        .map_err(|failed| Failure::refused(Code::TemplateFailed, "about", failed.0))?;
    let route = match about.route.contains('.') {
        true => about.route.clone(),
        false => format!("{}.{}", ground.instance.name, about.route),
    };
    Ok(Wanted { route, key, unmatched: about.unmatched })
}

fn hold(conditions: &[Condition], document: &Tree) -> bool {
    conditions.iter().all(|condition| condition.test.holds(condition.path.find(document)))
}

/// The message of an event, for the platform's updates.
pub fn outgoing(event: &Event, council: &str, app: &str, trace: Option<&str>) -> Outgoing {
    let seconds =
        event.time.as_deref().and_then(|time| time.parse::<Timestamp>().ok()).map(|time| time.as_second());
    let mut properties = Properties::of_event(
        &event.id,
        &event.event_type,
        seconds.and_then(|seconds| u64::try_from(seconds).ok()),
        app,
    );
    if let Some(trace) = trace {
        properties = properties.with_text("traceparent", trace);
    }
    Outgoing {
        unless_open: None,
        key: event.key(),
        event_type: event.event_type.clone(),
        message: Message {
            exchange: UPDATES.to_owned(),
            routing_key: format!("{}.{council}", event.event_type),
            properties,
            body: Bytes::from(event.to_json()),
        },
    }
}

/// The route and key under which a part of a document may be open already.
fn open_elsewhere(
    route: &str,
    key: &Template,
    part: &Tree,
    ground: &Ground<'_>,
) -> Result<(String, String), Failure> {
    let scope = Scope {
        document: Some(part),
        settings: Some(&ground.instance.settings),
        now: ground.now,
        ..Scope::default()
    };
    let key = key
        .render(&scope)
        .map_err(|failed| Failure::refused(Code::TemplateFailed, "unless_open", failed.0))?;
    Ok((format!("{}.{route}", ground.instance.name), key))
}

/// What is to be remembered as open.
///
/// # Errors
/// A template that cannot be rendered.
pub fn open(opens: &Opens, ground: &Ground<'_>) -> Result<Opened, Failure> {
    let scope = Scope {
        event: ground.event,
        document: Some(ground.document),
        cause: ground.cause,
        settings: Some(&ground.instance.settings),
        now: ground.now,
        ..Scope::default()
    };
    let render = |template: &Template, field: &str| {
        template.render(&scope).map_err(|failed| Failure::refused(Code::TemplateFailed, field, failed.0))
    };
    let mut kept = Record::new();
    for (name, template) in &opens.keep {
        kept.push(Name::plain(name.as_str()), Tree::text(render(template, name)?));
    }
    if let (true, Some(event)) = (opens.keep_event, ground.event) {
        kept.push(Name::plain("event"), event.data.clone());
    }
    Ok(Opened {
        route: format!("{}.{}", ground.instance.name, opens.route),
        key: render(&opens.key, "key")?,
        one_per: opens.one_per.as_ref().map(|template| render(template, "one_per")).transpose()?,
        cause: crate::format::write_json(&Tree::Record(kept)),
    })
}

/// A mapping's failure as a failure of the message: for good, until somebody mends the mapping or the data.
pub fn of_mapping(failures: &Failures) -> Failure {
    let first = failures.all.first();
    let code = first.map_or(Code::ValueRefused, |failure| failure.code);
    let field = first.map(|failure| failure.field.clone()).unwrap_or_default();
    Failure::refused(code, field, failures.to_string())
}
