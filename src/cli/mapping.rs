//! `packhorse try` and `packhorse test`.

use super::{check, exit, render};
use crate::{
    code::Code,
    config::Project,
    format::{Limits, write_json_pretty},
    mapping::{Context, Failures, Mapping, Trace, cases, generate, laws, raw::Direction},
    tree::Tree,
};
use clap::{Args, ValueEnum};
use jiff::Timestamp;
use serde_json::json;
use std::{
    collections::BTreeMap,
    io::{IsTerminal as _, Read as _},
    path::{Path, PathBuf},
};

/// Where a sample is mapped to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum To {
    /// From an event to the system's document.
    Document,
    /// From the system's document to an event.
    Event,
}

/// Map one sample and print the result.
#[derive(Debug, Args)]
pub struct Try {
    /// The mapping: `<system>/<document>`.
    mapping: String,
    /// The direction.
    #[arg(long, value_enum)]
    to: To,
    /// Also say for each value which row made it, and from what.
    #[arg(long)]
    explain: bool,
    /// A setting of the adapter: `name=value`.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    settings: Vec<String>,
    /// A value that the adapter would compute: `name=value`.
    #[arg(long = "value", value_name = "NAME=VALUE")]
    values: Vec<String>,
    /// What caused it, as JSON: what rows with `cause` read.
    #[arg(long)]
    cause: Option<String>,
    /// The sample; standard input if not given.
    sample: Option<PathBuf>,
}

impl Try {
    /// Runs it.
    pub fn run(&self, config: &Path) -> u8 {
        let project = Project::load(config);
        let Some(mapping) = mapping_named(&project, &self.mapping) else { return exit::CONFIG };
        let text = match self.sample() {
            Ok(text) => text,
            Err(what) => {
                super::complain(Code::CannotReadFile, &what);
                return exit::DATA;
            }
        };
        let (settings, values) = (pairs(&self.settings), pairs(&self.values));
        let cause =
            self.cause.as_deref().and_then(|text| crate::format::parse_json(text, &Limits::default()).ok());
        let trace = Trace::default();
        let context = Context {
            settings: &settings,
            values: &values,
            cause: cause.as_ref(),
            now: Timestamp::now(),
            trace: Some(&trace),
        };
        let result = match self.to {
            To::Document => to_document(mapping, &text, context),
            To::Event => to_event(mapping, &text, context),
        };
        if self.explain {
            explain(mapping, &trace);
        }
        match result {
            Ok(()) => 0,
            Err(code) => code,
        }
    }

    fn sample(&self) -> Result<Vec<u8>, String> {
        match &self.sample {
            Some(path) => {
                std::fs::read(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))
            }
            None => {
                if std::io::stdin().is_terminal() {
                    anstream::eprintln!("reading the sample from standard input …");
                }
                let mut text = Vec::new();
                std::io::stdin()
                    .read_to_end(&mut text)
                    .map_err(|error| format!("standard input cannot be read: {error}"))?;
                Ok(text)
            }
        }
    }
}

fn mapping_named<'p>(project: &'p Project, name: &str) -> Option<&'p Mapping> {
    let name = name.trim_start_matches("mappings/").trim_end_matches(".toml");
    if let Some(mapping) = project.mappings.get(name) {
        return Some(mapping);
    }
    if project.has_errors() {
        anstream::eprint!("{}", render::diagnostics(project, render::Show::Errors));
    }
    let known = project.mappings.keys().map(String::as_str);
    let help = match crate::problem::closest(name, known) {
        Some(close) => format!("; did you mean `{close}`?"),
        None => String::new(),
    };
    super::complain(Code::UnknownName, &format!("there is no usable mapping `{name}`{help}"));
    None
}

fn pairs(texts: &[String]) -> BTreeMap<String, String> {
    texts
        .iter()
        .filter_map(|text| text.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn to_document(mapping: &Mapping, text: &[u8], context: Context<'_>) -> Result<(), u8> {
    let event = std::str::from_utf8(text)
        .map_err(|_| "the sample is not UTF-8".to_owned())
        .and_then(|text| cases::event_of(text, &mapping.schema.event_type))
        .map_err(|what| {
            super::complain(Code::NotAnEvent, &what);
            exit::DATA
        })?;
    let breaches = mapping.schema.breaches(&event.data);
    if let Some(breach) = breaches.first() {
        super::complain(Code::EventBreaksSchema, &format!("`{}`: {}", breach.field, breach.what));
        return Err(exit::DATA);
    }
    let document = mapping.to_document(&event, context).map_err(|failures| failed(mapping, &failures))?;
    let bytes = mapping.format.encode(&document, &mapping.style).map_err(|error| {
        super::complain(error.code, &error.to_string());
        exit::DATA
    })?;
    println!("{}", String::from_utf8_lossy(&bytes));
    Ok(())
}

fn to_event(mapping: &Mapping, text: &[u8], context: Context<'_>) -> Result<(), u8> {
    let document = mapping.read(text).map_err(|error| {
        super::complain(error.code, &error.to_string());
        exit::DATA
    })?;
    let event = mapping.to_event(&document, context).map_err(|failures| failed(mapping, &failures))?;
    let whole = crate::event::Event {
        id: event.id.unwrap_or_else(|| "(made by the route)".to_owned()),
        source: "(made by the route)".to_owned(),
        event_type: mapping.schema.event_type.clone(),
        subject: event.subject,
        time: event.time,
        dataschema: Some(mapping.schema.id.clone()),
        extensions: Vec::new(),
        data: event.data,
    };
    println!("{}", write_json_pretty(&whole.to_tree()));
    for part in event.drift {
        anstream::eprintln!("note: no row of the mapping knows `{part}`");
    }
    Ok(())
}

fn failed(mapping: &Mapping, failures: &Failures) -> u8 {
    for failure in &failures.all {
        let place = match failure.line {
            0 => format!("mappings/{}.toml", mapping.name),
            line => format!("mappings/{}.toml:{line}", mapping.name),
        };
        anstream::eprintln!("error[{}]: {place} `{}`: {}", failure.code, failure.field, failure.what);
        if let Some(value) = &failure.value {
            anstream::eprintln!("  = the value is {value:?}");
        }
        anstream::eprintln!("  = help: {}", failure.code.remedy());
    }
    exit::DATA
}

fn explain(mapping: &Mapping, trace: &Trace) {
    anstream::eprintln!();
    for step in trace.0.borrow().iter() {
        let show = |tree: &Tree| crate::format::write_json(tree);
        anstream::eprintln!(
            "mappings/{}.toml:{}  {} <-> {}  by {}: {} <-> {}",
            mapping.name,
            step.line,
            dash(&step.event),
            dash(&step.document),
            step.how,
            show(&step.event_value),
            show(&step.document_value),
        );
    }
}

fn dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

/// Run the cases and the laws of all mappings, or of those named.
#[derive(Debug, Args)]
pub struct Test {
    /// Mappings: `<system>/<document>`. All unless given.
    mappings: Vec<String>,
    /// How many events are generated for each mapping to check the laws on.
    #[arg(long, default_value_t = 200)]
    generated: u32,
    /// What the generated values begin with.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print one JSON object a line instead of text.
    #[arg(long)]
    json: bool,
}

/// What a mapping's test came to.
#[derive(Default)]
struct Count {
    cases: u32,
    laws: u32,
    /// Generated events that got through the mapping, and those that it refused.
    passed: u32,
    refused: u32,
    reasons: BTreeMap<String, u32>,
    wrong: Vec<String>,
}

impl Count {
    fn generated(&self) -> u32 {
        self.passed + self.refused
    }

    /// What is said if the laws have hardly been tried.
    fn warning(&self) -> Option<String> {
        let hardly = self.passed.saturating_mul(2) < self.generated();
        hardly.then(|| {
            "fewer than half of the generated events got through: the laws have hardly been tried".to_owned()
        })
    }
}

impl Test {
    /// Runs it.
    pub fn run(&self, config: &Path) -> u8 {
        let project = Project::load(config);
        if project.has_errors() {
            anstream::eprint!("{}", render::diagnostics(&project, render::Show::Errors));
            return exit::FOUND;
        }
        let mut total = Count::default();
        let mut tested = 0;
        for (name, mapping) in &project.mappings {
            if !self.mappings.is_empty() && !self.mappings.contains(name) {
                continue;
            }
            tested += 1;
            let mut count = Count::default();
            let settings = self.cases(&project, name, mapping, &mut count);
            self.laws(mapping, &settings, &mut count);
            self.tell(name, &count);
            total.cases += count.cases;
            total.laws += count.laws;
            total.wrong.extend(count.wrong);
        }
        if tested == 0 {
            super::complain(Code::UnknownName, "no mapping of that name");
            return exit::CONFIG;
        }
        if !self.json {
            println!(
                "{tested} mappings, {} cases, {} laws; {} wrong",
                total.cases,
                total.laws,
                total.wrong.len()
            );
        }
        if total.wrong.is_empty() { 0 } else { exit::FOUND }
    }

    /// Runs the cases; gives the settings of the first, for the generated values.
    fn cases(&self, project: &Project, name: &str, mapping: &Mapping, count: &mut Count) -> Given {
        let mut given = Given::default();
        let Some((path, file)) = project.cases.get(name) else { return given };
        for case in &file.cases {
            let outcomes = match check::texts(project, path, case) {
                Ok(texts) => cases::run(mapping, case, &texts),
                Err(what) => vec![cases::Outcome { what: "files".to_owned(), wrong: Some(what) }],
            };
            if case.fails.is_none() && given.settings.is_empty() && given.values.is_empty() {
                given.settings = case.settings.clone();
                given.values = case.values.clone();
                given.cause = case
                    .cause
                    .as_deref()
                    .and_then(|text| crate::format::parse_json(text, &Limits::default()).ok());
            }
            for outcome in outcomes {
                match outcome.what.starts_with("law") {
                    true => count.laws += 1,
                    false => count.cases += 1,
                }
                if let Some(wrong) = outcome.wrong {
                    let code =
                        if outcome.what.starts_with("law") { Code::LawBroken } else { Code::CaseFailed };
                    count.wrong.push(format!(
                        "{code} {}: case \"{}\", {}:\n{wrong}",
                        path.display(),
                        case.name,
                        outcome.what
                    ));
                }
            }
        }
        given
    }

    fn laws(&self, mapping: &Mapping, given: &Given, count: &mut Count) {
        if !mapping.works(Direction::ToDocument) {
            return;
        }
        let (mut random, generator) = (generate::Random::new(self.seed), generate::Generator::new(mapping));
        let context = Context {
            settings: &given.settings,
            values: &given.values,
            cause: given.cause.as_ref(),
            // Codes that are valid for a time are those of today.
            now: Timestamp::now(),
            trace: None,
        };
        for number in 0..self.generated {
            let event = crate::event::Event {
                id: format!("generated-{number}"),
                source: "urn:generated".to_owned(),
                event_type: mapping.schema.event_type.clone(),
                data: generator.data(&mut random),
                ..Default::default()
            };
            let breaches = mapping.schema.breaches(&event.data);
            if let Some(breach) = breaches.first() {
                count.wrong.push(format!(
                    "generated data breaks its own schema: `{}`: {}",
                    breach.field, breach.what
                ));
                return;
            }
            match laws::of_event(mapping, &event, context) {
                laws::Law::Kept(_) => count.passed += 1,
                laws::Law::Refused(failures) => {
                    count.refused += 1;
                    if let Some(first) = failures.first() {
                        *count
                            .reasons
                            .entry(format!("{} `{}`: {}", first.code, first.field, first.what))
                            .or_default() += 1;
                    }
                    continue;
                }
                laws::Law::Broken(broken) => {
                    for broken in broken {
                        count.wrong.push(format!(
                            "{} mappings/{}.toml:{} `{}`: {} (generated event {number}, seed {})",
                            Code::LawBroken,
                            mapping.name,
                            broken.line,
                            broken.field,
                            broken.what,
                            self.seed
                        ));
                    }
                    return;
                }
            }
        }
        count.laws += count.passed;
    }

    fn tell(&self, name: &str, count: &Count) {
        if self.json {
            println!(
                "{}",
                json!({ "schema": "packhorse.test/v1", "mapping": name, "cases": count.cases, "laws": count.laws,
                        "generated": count.generated(), "passed": count.passed, "refused": count.refused,
                        "reasons": count.reasons, "wrong": count.wrong, "warning": count.warning().map(|_| Code::MostlyRefused.as_str()) })
            );
            return;
        }
        let generated = match count.generated() {
            0 => String::new(),
            all => format!("; {} of {all} generated events got through", count.passed),
        };
        println!("{name}: {} cases, {} laws{generated}", count.cases, count.laws);
        if let Some(warning) = count.warning() {
            println!("  warning[{}]: {warning}", Code::MostlyRefused);
        }
        for (reason, times) in &count.reasons {
            println!("  refused {times} times: {reason}");
        }
        for wrong in &count.wrong {
            println!("  WRONG {}", wrong.replace('\n', "\n        "));
        }
    }
}

#[derive(Default)]
struct Given {
    settings: BTreeMap<String, String>,
    values: BTreeMap<String, String>,
    cause: Option<Tree>,
}
