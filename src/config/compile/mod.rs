//! From an adapter file as written to a [`plan::Adapter`], with everything that is wrong with it.

mod batch;
mod files;
mod hours;
mod pickup;
mod request;
mod route;
mod sql;

pub use hours::{Calendars, hours};

use super::{
    plan::{self, *},
    raw::{adapter::*, pickup::*},
    statement::Statement,
    units,
};
use crate::{
    code::Code,
    event::{Accept, schema::EventSchema},
    format::{Format, Layout, Namespaces},
    mapping::{
        Condition, Mapping, impossible, names_under,
        path::Path,
        raw::{ConditionKeys, Direction},
        {bad_path, bad_template},
    },
    problem::Problem,
    template::{Escape, Template},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

/// The delays of the retry tiers, shortest first. One queue each serves all routes.
pub const TIERS: [(&str, Duration); 6] = [
    ("5s", Duration::from_secs(5)),
    ("30s", Duration::from_secs(30)),
    ("2m", Duration::from_secs(120)),
    ("10m", Duration::from_secs(600)),
    ("1h", Duration::from_secs(3_600)),
    ("6h", Duration::from_secs(21_600)),
];

/// The value that routes have which give a batch the `date` of their items.
pub const PROCESSING_DATE: &str = "processing_date";

/// What an adapter is compiled with.
pub struct With<'a> {
    /// The mappings by name.
    pub mappings: &'a BTreeMap<String, Arc<Mapping>>,
    /// The names of mappings that are there but broken: their problems are told elsewhere.
    pub broken: &'a BTreeSet<String>,
    /// The event schemas by type.
    pub schemas: &'a BTreeMap<String, Arc<EventSchema>>,
    /// The calendars by name.
    pub calendars: &'a BTreeMap<String, Arc<crate::batch::Calendar>>,
    /// The layouts by name.
    pub layouts: &'a BTreeMap<String, Arc<Layout>>,
    /// The names of layouts that are there but broken: their problems are told elsewhere.
    pub broken_layouts: &'a BTreeSet<String>,
    /// The statements in the adapter's folder, by their files' names; `None` if its problems are told elsewhere.
    pub statements: &'a BTreeMap<String, Option<Arc<Statement>>>,
    /// The digest of the file.
    pub digest: String,
}

/// Compiles an adapter. With an error there is none.
pub fn compile(name: &str, file: &AdapterFile, with: With<'_>) -> (Option<plan::Adapter>, Vec<Problem>) {
    let namespaces: Namespaces = file.namespaces.iter().map(|(p, u)| (p.as_str(), u.as_str())).collect();
    let mut compiler = Compiler { file, with, namespaces, batches: BTreeMap::new(), problems: Vec::new() };
    let adapter = compiler.adapter(name);
    let problems = compiler.problems;
    let broken = problems.iter().any(|problem| problem.severity == crate::problem::Severity::Error);
    (adapter.filter(|_| !broken), problems)
}

struct Compiler<'a> {
    file: &'a AdapterFile,
    with: With<'a>,
    namespaces: Namespaces,
    batches: BTreeMap<String, Arc<super::batch::Batch>>,
    problems: Vec<Problem>,
}

/// Things with names, in an order that matters.
type Named<T> = Vec<(String, T)>;

/// Keys that lead to a place.
type At<'k> = &'k [String];

fn under(at: At<'_>, keys: &[&str]) -> Vec<String> {
    at.iter().cloned().chain(keys.iter().map(|key| (*key).to_owned())).collect()
}

impl<'a> Compiler<'a> {
    fn problem(&mut self, problem: Problem) {
        self.problems.push(problem);
    }
    fn adapter(&mut self, name: &str) -> Option<plan::Adapter> {
        let file = self.file;
        let system = self.system()?;
        let (values, body_signs) = self.computed();
        let verify = file
            .verify
            .iter()
            .filter_map(|(name, keys)| Some((name.clone(), self.verify(name, keys)?)))
            .collect();
        let mut rates = BTreeMap::new();
        for (name, text) in &file.rates {
            match units::rate(text) {
                Some(rate) => {
                    rates.insert(name.clone(), rate);
                }
                None => self.problem(
                    Problem::error(Code::BadDuration, &["rates", name], "this is not a rate")
                        .help("for example `15/s` or `100/m`"),
                ),
            }
        }
        self.batches = self.batches();
        let bears = self.bears();
        let deliver =
            file.deliver.iter().filter_map(|(name, keys)| self.deliver(name, keys).map(Arc::new)).collect();
        let collect =
            file.collect.iter().filter_map(|(name, keys)| self.collect(name, keys).map(Arc::new)).collect();
        Some(plan::Adapter {
            name: name.to_owned(),
            title: file.title.clone(),
            about: file.about.clone(),
            judged_by: file.judged_by.clone(),
            uncertain: file.uncertain.clone(),
            settings: file.settings.clone(),
            system,
            values,
            body_signs,
            verify,
            rates,
            bears,
            batches: self.batches.values().cloned().collect(),
            deliver,
            collect,
            digest: self.with.digest.clone(),
        })
    }
    /// What the system bears.
    fn bears(&mut self) -> Bears {
        let file = self.file;
        let at = ["when_away".to_owned()];
        let (first, most) =
            file.when_away.as_ref().map_or((None, None), |keys| (keys.first.clone(), keys.most.clone()));
        let calls = matches!(self.kind(), SystemPlanKind::Http | SystemPlanKind::Sql);
        for (key, given) in [("most_at_once", file.most_at_once), ("per_minute", file.per_minute)] {
            if given.is_some() && !calls {
                let what = format!(
                    "calls are counted over HTTP and to databases, and this system is {}",
                    self.kind().in_words()
                );
                self.problem(Problem::error(Code::ExclusiveKeys, &[key], what).on_key());
            }
            if given == Some(0) {
                self.problem(Problem::error(
                    Code::WrongType,
                    &[key],
                    "a system that bears no call is never called",
                ));
            }
        }
        Bears {
            hours: self.hours(file.hours.as_ref(), &[]),
            most_at_once: file.most_at_once,
            per_minute: file.per_minute,
            first_pause: self.duration(&first, "5s", &under(&at, &["first"])),
            longest_pause: self.duration(&most, "5m", &under(&at, &["most"])),
            tell_after: self.duration(&file.tell_after, "1d", &["tell_after".to_owned()]),
        }
    }
    /// The hours that an adapter or a route of it says.
    fn hours(
        &mut self,
        keys: Option<&super::raw::hours::HoursKeys>,
        at: At<'_>,
    ) -> Option<crate::gate::Hours> {
        let (hours, problems) = hours(keys?, self.with.calendars, &under(at, &["hours"]));
        self.problems.extend(problems);
        hours
    }
    /// How the system is reached: exactly one way.
    fn system(&mut self) -> Option<SystemPlan> {
        let file = self.file;
        let given = [
            ("http", file.http.is_some()),
            ("amqp", file.amqp.is_some()),
            ("folder", file.folder.is_some()),
            ("sftp", file.sftp.is_some()),
            ("sql", file.sql.is_some()),
        ];
        let mut given = given.iter().filter(|(_, given)| *given).map(|(key, _)| *key);
        if let (Some(first), Some(second)) = (given.next(), given.next()) {
            let what = format!("`{first}` and `{second}` exclude each other: an adapter is for one system");
            self.problem(Problem::error(Code::ExclusiveKeys, &[second], what).on_key());
            return None;
        }
        if let Some(http) = &file.http {
            return Some(SystemPlan::Http(Box::new(self.http(http)?)));
        }
        if let Some(amqp) = &file.amqp {
            return Some(SystemPlan::Amqp(Box::new(self.amqp(amqp)?)));
        }
        if let Some(folder) = &file.folder {
            return Some(SystemPlan::Files(Box::new(Files::Folder(self.folder(folder)?))));
        }
        if let Some(sftp) = &file.sftp {
            return Some(SystemPlan::Files(Box::new(Files::Sftp(self.sftp(sftp)?))));
        }
        if let Some(sql) = &file.sql {
            return Some(SystemPlan::Sql(Box::new(self.sql(sql)?)));
        }
        let what = "nothing says how the system is reached";
        let help = "add a table `[http]`, `[amqp]`, `[folder]`, `[sftp]` or `[sql]`";
        self.problem(Problem::error(Code::ExclusiveKeys, &["title"], what).help(help));
        None
    }
    /// The layout that a route names.
    fn layout(&mut self, name: Option<&String>, format: Format, at: At<'_>) -> Option<Arc<Layout>> {
        let Some(name) = name else {
            if format == Format::Fixed {
                let what = "what is of fixed width is read by a layout";
                self.problem(
                    Problem::under(Code::MissingKey, at, "format", what).label("`layout` is missing"),
                );
            }
            return None;
        };
        let Some(layout) = self.with.layouts.get(name).cloned() else {
            if !self.with.broken_layouts.contains(name) {
                let known: Vec<&str> = self.with.layouts.keys().map(String::as_str).collect();
                let problem =
                    Problem::under(Code::UnknownName, at, "layout", format!("there is no layout `{name}`"))
                        .label("no such file in mappings/layouts/")
                        .did_you_mean(name, known);
                self.problem(problem);
            }
            return None;
        };
        if layout.format() != format {
            let what = format!("the layout `{name}` is not for this format");
            self.problem(Problem::under(Code::WrongConversion, at, "layout", what));
        }
        Some(layout)
    }
    fn http(&mut self, keys: &HttpKeys) -> Option<Http> {
        let at = ["http".to_owned()];
        let base_url = self.template(&keys.base_url, Escape::None, &under(&at, &["base_url"]));
        let login = keys.login.as_ref().and_then(|login| self.login(login, &under(&at, &["login"])));
        let headers = self.templates(&keys.headers, Escape::None, &under(&at, &["headers"]));
        let proxy =
            keys.proxy.as_ref().and_then(|proxy| self.template(proxy, Escape::None, &under(&at, &["proxy"])));
        Some(Http {
            base_url: base_url?,
            login,
            headers,
            tls: keys.tls.as_ref().map(|tls| self.tls(tls, &under(&at, &["tls"]))),
            proxy,
            error_code: keys
                .error_code
                .as_ref()
                .and_then(|text| self.path(text, &under(&at, &["error_code"]))),
            connect_timeout: self.duration(&keys.connect_timeout, "5s", &under(&at, &["connect_timeout"])),
            timeout: self.duration(&keys.timeout, "30s", &under(&at, &["timeout"])),
            answer_limit: self.size(&keys.answer_limit, 4 << 20, &under(&at, &["answer_limit"])),
        })
    }
    fn amqp(&mut self, keys: &AmqpKeys) -> Option<Amqp> {
        let at = ["amqp".to_owned()];
        if let Some(password) = &keys.password {
            self.secret(password, &under(&at, &["password"]));
        }
        if let Some(setting) = &keys.allow_unencrypted_login {
            self.setting(setting, &under(&at, &["allow_unencrypted_login"]));
        }
        let username =
            keys.username.as_ref().and_then(|u| self.template(u, Escape::None, &under(&at, &["username"])));
        Some(Amqp {
            addresses: self.template(&keys.addresses, Escape::None, &under(&at, &["addresses"]))?,
            username,
            password: keys.password.clone(),
            tls: keys.tls.as_ref().map(|tls| self.tls(tls, &under(&at, &["tls"]))),
            allow_unencrypted_login: keys.allow_unencrypted_login.clone(),
        })
    }
    fn tls(&mut self, keys: &super::raw::bridge::TlsKeys, at: At<'_>) -> Tls {
        let mut part = |text: &Option<String>, key: &str| {
            text.as_ref().and_then(|text| self.template(text, Escape::None, &under(at, &[key])))
        };
        Tls {
            ca: part(&keys.ca, "ca"),
            certificate: part(&keys.certificate, "certificate"),
            key: part(&keys.key, "key"),
        }
    }
    fn login(&mut self, keys: &LoginKeys, at: At<'_>) -> Option<Login> {
        let mut ways = Vec::new();
        if let Some(basic) = &keys.basic {
            let username =
                self.template(&basic.username, Escape::None, &under(at, &["basic", "username"]))?;
            self.secret(&basic.password, &under(at, &["basic", "password"]));
            ways.push(LoginKind::Basic { username, password: basic.password.clone() });
        }
        if let Some(token) = &keys.bearer {
            self.secret(token, &under(at, &["bearer"]));
            ways.push(LoginKind::Bearer { token: token.clone() });
        }
        if let Some(header) = &keys.header {
            let name = self.template(&header.name, Escape::None, &under(at, &["header", "name"]))?;
            self.secret(&header.value, &under(at, &["header", "value"]));
            ways.push(LoginKind::Header { name, value: header.value.clone() });
        }
        if let Some(oauth2) = &keys.oauth2 {
            self.secret(&oauth2.client_secret, &under(at, &["oauth2", "client_secret"]));
            ways.push(LoginKind::Oauth2 {
                token_url: self.template(
                    &oauth2.token_url,
                    Escape::None,
                    &under(at, &["oauth2", "token_url"]),
                )?,
                client_id: self.template(
                    &oauth2.client_id,
                    Escape::None,
                    &under(at, &["oauth2", "client_id"]),
                )?,
                client_secret: oauth2.client_secret.clone(),
                secret_in: oauth2.secret_in,
                scope: oauth2.scope.clone(),
            });
        }
        if let Some(setting) = &keys.when_set {
            self.setting(setting, &under(at, &["when_set"]));
        }
        let mut ways = ways.into_iter();
        match (ways.next(), ways.next()) {
            (Some(how), None) => Some(Login { how, when_set: keys.when_set.clone() }),
            (first, _) => {
                let what = match first {
                    None => "a login says how: `basic`, `bearer`, `header` or `oauth2`",
                    Some(_) => "a login has one way only",
                };
                self.problem(Problem::under(Code::ExclusiveKeys, at, "", what));
                None
            }
        }
    }
    /// A template, all of whose settings and values exist.
    fn template(&mut self, source: &str, escape: Escape, at: At<'_>) -> Option<Template> {
        let template = match Template::compile(source, escape) {
            Ok(template) => template,
            Err(bad) => {
                let (key, before) =
                    at.split_last().map(|(key, before)| (key.as_str(), before)).unwrap_or(("", at));
                self.problem(bad_template(bad, before, key));
                return None;
            }
        };
        for name in names_under(&template, "settings.") {
            self.setting_in(&name, source, at);
        }
        for name in names_under(&template, "values.") {
            let signs = self.file.sign.iter().filter(|(_, sign)| sign.over.is_some()).map(|(name, _)| name);
            let known: Vec<&str> = self.file.values.keys().chain(signs).map(String::as_str).collect();
            let of_batch = name == PROCESSING_DATE && !self.file.batch.is_empty();
            if !of_batch && !known.contains(&name.as_str()) {
                let problem =
                    Problem::under(Code::UnknownName, at, "", format!("no value `{name}` is computed here"))
                        .part(place_in(source, &name))
                        .did_you_mean(&name, known);
                self.problem(problem);
            }
        }
        Some(template)
    }
    fn templates(
        &mut self,
        sources: &BTreeMap<String, String>,
        escape: Escape,
        at: At<'_>,
    ) -> Vec<(String, Template)> {
        let mut found = Vec::new();
        for (name, source) in sources {
            if let Some(template) = self.template(source, escape, &under(at, &[name])) {
                found.push((name.clone(), template));
            }
        }
        found
    }
    /// A setting that a template uses.
    fn setting_in(&mut self, name: &str, source: &str, at: At<'_>) {
        let secret = match self.file.settings.get(name) {
            Some(setting) => setting.secret,
            None => {
                let known: Vec<&str> = self.file.settings.keys().map(String::as_str).collect();
                let problem =
                    Problem::under(Code::UnknownName, at, "", format!("the adapter has no setting `{name}`"))
                        .part(place_in(source, name))
                        .did_you_mean(name, known);
                self.problem(problem);
                return;
            }
        };
        if secret {
            let what = format!("the setting `{name}` is a secret; templates see no secrets");
            self.problem(
                Problem::under(Code::SecretInClear, at, "", what)
                    .part(place_in(source, name))
                    .help("use it in `login` or `sign`"),
            );
        }
    }
    fn setting(&mut self, name: &str, at: At<'_>) {
        if !self.file.settings.contains_key(name) {
            let known: Vec<&str> = self.file.settings.keys().map(String::as_str).collect();
            let problem =
                Problem::under(Code::UnknownName, at, "", format!("the adapter has no setting `{name}`"))
                    .did_you_mean(name, known);
            self.problem(problem);
        }
    }
    fn secret(&mut self, name: &str, at: At<'_>) {
        self.setting(name, at);
        if self.file.settings.get(name).is_some_and(|setting| !setting.secret) {
            let what = format!("the setting `{name}` is used as a secret and must say so");
            self.problem(
                Problem::under(Code::SecretInClear, at, "", what)
                    .help(format!("in [settings.{name}]: secret = true")),
            );
        }
    }
    /// Values and signatures over texts, each behind those it uses; and signatures of bodies.
    fn computed(&mut self) -> (Named<Computed>, Named<Sign>) {
        let mut waiting: Vec<(String, Computed, BTreeSet<String>)> = Vec::new();
        let mut body_signs = Vec::new();
        for (name, source) in &self.file.values {
            if let Some(template) = self.template(source, Escape::None, &["values".to_owned(), name.clone()])
            {
                let uses = names_under(&template, "values.").into_iter().collect();
                waiting.push((name.clone(), Computed::Text(template), uses));
            }
        }
        for (name, keys) in &self.file.sign {
            let at = ["sign".to_owned(), name.clone()];
            self.secret(&keys.key, &under(&at, &["key"]));
            let sign = Sign {
                key: keys.key.clone(),
                key_encoding: keys.key_encoding,
                algorithm: keys.algorithm,
                output: keys.output,
                header: keys.header.clone(),
            };
            match (&keys.over, keys.body, &keys.header) {
                (Some(over), false, _) => {
                    if self.file.values.contains_key(name) {
                        let what = format!("`{name}` is both a value and a signature");
                        self.problem(Problem::under(Code::RowTwice, &at, "", what).on_key());
                    }
                    if let Some(template) = self.template(over, Escape::None, &under(&at, &["over"])) {
                        let uses = names_under(&template, "values.").into_iter().collect();
                        waiting.push((name.clone(), Computed::Signature(sign, template), uses));
                    }
                }
                (None, true, Some(_)) => body_signs.push((name.clone(), sign)),
                (None, true, None) => {
                    let what = "a signature of the body goes into a header: say which";
                    self.problem(Problem::under(Code::MissingKey, &at, "", what).on_key());
                }
                _ => {
                    let what = "a signature says what is signed: `over` a template, or the `body`";
                    self.problem(Problem::under(Code::ExclusiveKeys, &at, "", what).on_key());
                }
            }
        }
        let mut ordered: Vec<(String, Computed)> = Vec::new();
        while !waiting.is_empty() {
            let ready = waiting.iter().position(|(_, _, uses)| {
                uses.iter().all(|used| {
                    ordered.iter().any(|(name, _)| name == used) || !waiting.iter().any(|(n, _, _)| n == used)
                })
            });
            match ready {
                Some(at) => {
                    let (name, computed, _) = waiting.remove(at);
                    ordered.push((name, computed));
                }
                None => {
                    let names: Vec<&str> = waiting.iter().map(|(name, _, _)| name.as_str()).collect();
                    let what = format!("the values {} use each other in a circle", names.join(", "));
                    self.problem(Problem::error(Code::BadTemplate, &["values"], what).on_key());
                    break;
                }
            }
        }
        (ordered, body_signs)
    }
    fn verify(&mut self, name: &str, keys: &VerifyKeys) -> Option<Verify> {
        let at = ["verify".to_owned(), name.to_owned()];
        for (index, key) in keys.keys.iter().enumerate() {
            self.secret(key, &under(&at, &["keys", &index.to_string()]));
        }
        if keys.keys.is_empty() {
            self.problem(Problem::under(
                Code::MissingKey,
                &at,
                "keys",
                "a signature is checked with at least one key",
            ));
        }
        let timestamp = keys.timestamp.as_ref().map(|timestamp| {
            let window = self.duration(&timestamp.window, "5m", &under(&at, &["timestamp", "window"]));
            (timestamp.header.clone(), timestamp.separator.clone().unwrap_or_else(|| ".".to_owned()), window)
        });
        Some(Verify {
            header: keys.header.clone(),
            prefix: keys.prefix.clone().unwrap_or_default(),
            timestamp,
            keys: keys.keys.clone(),
            key_encoding: keys.key_encoding,
            algorithm: keys.algorithm,
            output: keys.output,
        })
    }
    fn duration(&mut self, text: &Option<String>, default: &str, at: At<'_>) -> Duration {
        match units::duration(text.as_deref().unwrap_or(default)) {
            Some(duration) => duration,
            None => {
                self.problem(
                    Problem::under(Code::BadDuration, at, "", "this is not a duration")
                        .help("a whole number and ms, s, m, h or d: `30s`"),
                );
                Duration::ZERO
            }
        }
    }
    fn size(&mut self, text: &Option<String>, default: u64, at: At<'_>) -> u64 {
        match text.as_deref().map(units::size) {
            None => default,
            Some(Some(size)) => size,
            Some(None) => {
                self.problem(
                    Problem::under(Code::BadDuration, at, "", "this is not a size")
                        .help("a whole number and B, KiB, MiB or GiB"),
                );
                default
            }
        }
    }
    fn mapping(&mut self, name: &str, direction: Direction, at: At<'_>) -> Option<Arc<Mapping>> {
        let Some(mapping) = self.with.mappings.get(name) else {
            if !self.with.broken.contains(name) {
                let known: Vec<&str> = self.with.mappings.keys().map(String::as_str).collect();
                let problem =
                    Problem::under(Code::UnknownName, at, "", format!("there is no mapping `{name}`"))
                        .label(format!("mappings/{name}.toml is not there"))
                        .did_you_mean(name, known);
                self.problem(problem);
            }
            return None;
        };
        if !mapping.works(direction) {
            let way = if direction == Direction::ToDocument { "to documents" } else { "to events" };
            self.problem(Problem::under(
                Code::WrongMapping,
                at,
                "",
                format!("the mapping `{name}` does not go {way}"),
            ));
            return None;
        }
        for setting in mapping.settings_used() {
            if !self.file.settings.contains_key(&setting) {
                let what = format!(
                    "the mapping `{name}` uses the setting `{setting}`, which the adapter does not have"
                );
                self.problem(Problem::under(Code::WrongMapping, at, "", what));
            }
        }
        for value in mapping.values_used() {
            let of_batch = value == PROCESSING_DATE && !self.file.batch.is_empty();
            if !of_batch && !self.file.values.contains_key(&value) && !self.file.sign.contains_key(&value) {
                let what = format!(
                    "the mapping `{name}` uses the value `{value}`, which the adapter does not compute"
                );
                self.problem(Problem::under(Code::WrongMapping, at, "", what));
            }
        }
        Some(mapping.clone())
    }
    fn schema(&mut self, event: &str, at: At<'_>) -> Option<Arc<EventSchema>> {
        match self.with.schemas.get(event) {
            Some(schema) => Some(schema.clone()),
            None => {
                let known: Vec<&str> = self.with.schemas.keys().map(String::as_str).collect();
                let problem =
                    Problem::under(Code::UnknownName, at, "", format!("there is no event type `{event}`"))
                        .label(format!("mappings/events/{event}.schema.json is not there"))
                        .did_you_mean(event, known);
                self.problem(problem);
                None
            }
        }
    }
}

/// Which way a system is reached, before everything about it is known to be right.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SystemPlanKind {
    Http,
    Amqp,
    Files,
    Sql,
}

impl SystemPlanKind {
    /// The end of a sentence that begins with `this system is`.
    fn in_words(self) -> &'static str {
        match self {
            SystemPlanKind::Http => "reached over HTTP",
            SystemPlanKind::Amqp => "a broker",
            SystemPlanKind::Files => "reached by files",
            SystemPlanKind::Sql => "a database",
        }
    }
}

/// Conditions on events of a type, and what is wrong with them.
pub fn select(keys: &[ConditionKeys], schema: &EventSchema, at: At<'_>) -> (Vec<Condition>, Vec<Problem>) {
    let (mut found, mut problems) = (Vec::new(), Vec::new());
    for (index, keys) in keys.iter().enumerate() {
        let at = under(at, &[&index.to_string()]);
        match Condition::compile(keys, None, &at) {
            Ok(condition) if condition.on == Direction::ToDocument => {
                match schema.field(&condition.path) {
                    Some(field) => problems.extend(impossible(&condition.test, field, &at)),
                    None => {
                        let known: Vec<&str> = schema.root.fields.iter().map(|f| f.name.as_str()).collect();
                        let written = condition.path.to_string();
                        let what = format!("{} has no field `{written}`", schema.event_type);
                        problems.push(
                            Problem::under(Code::UnknownEventField, &at, "event", what)
                                .label("not in the schema")
                                .did_you_mean(&written, known),
                        );
                    }
                }
                found.push(condition);
            }
            Ok(_) => {
                let what = "a route selects by fields of the event";
                problems.push(Problem::under(Code::ExclusiveKeys, &at, "document", what).on_key());
            }
            Err(problem) => problems.push(problem),
        }
    }
    (found, problems)
}

/// Whether this can be part of a queue's name: small letters, digits, hyphens, beginning with a letter.
pub fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.len() <= 60
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn place_in(source: &str, name: &str) -> Option<std::ops::Range<usize>> {
    source.find(name).map(|at| at..at + name.len())
}

fn status(text: &str) -> Option<(u16, u16)> {
    if let Some(class) = text.strip_suffix("xx") {
        let class: u16 = class.parse().ok().filter(|class| (1..=5).contains(class))?;
        return Some((class * 100, class * 100 + 99));
    }
    let status: u16 = text.parse().ok().filter(|status| (100..=599).contains(status))?;
    Some((status, status))
}
