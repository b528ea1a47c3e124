//! From an adapter file as written to a [`plan::Adapter`], with everything that is wrong with it.

use super::{
    plan::{self, *},
    raw::adapter::*,
    units,
};
use crate::{
    code::Code,
    event::{Accept, schema::EventSchema},
    format::Namespaces,
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

/// What an adapter is compiled with.
pub struct With<'a> {
    /// The mappings by name.
    pub mappings: &'a BTreeMap<String, Arc<Mapping>>,
    /// The names of mappings that are there but broken: their problems are told elsewhere.
    pub broken: &'a BTreeSet<String>,
    /// The event schemas by type.
    pub schemas: &'a BTreeMap<String, Arc<EventSchema>>,
    /// The digest of the file.
    pub digest: String,
}

/// Compiles an adapter. With an error there is none.
pub fn compile(name: &str, file: &AdapterFile, with: With<'_>) -> (Option<plan::Adapter>, Vec<Problem>) {
    let namespaces: Namespaces = file.namespaces.iter().map(|(p, u)| (p.as_str(), u.as_str())).collect();
    let mut compiler = Compiler { file, with, namespaces, problems: Vec::new() };
    let adapter = compiler.adapter(name);
    let problems = compiler.problems;
    let broken = problems.iter().any(|problem| problem.severity == crate::problem::Severity::Error);
    (adapter.filter(|_| !broken), problems)
}

struct Compiler<'a> {
    file: &'a AdapterFile,
    with: With<'a>,
    namespaces: Namespaces,
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
        let system = match (&file.http, &file.amqp) {
            (Some(http), None) => SystemPlan::Http(self.http(http)?),
            (None, Some(amqp)) => SystemPlan::Amqp(self.amqp(amqp)?),
            (None, None) => {
                let what = "nothing says how the system is reached";
                self.problem(Problem::error(Code::ExclusiveKeys, &["title"], what).help("add a table `[http]` or `[amqp]`"));
                return None;
            }
            (Some(_), Some(_)) => {
                let what = "`http` and `amqp` exclude each other: an adapter is for one system";
                self.problem(Problem::error(Code::ExclusiveKeys, &["amqp"], what).on_key());
                return None;
            }
        };
        let (values, body_signs) = self.computed();
        let verify = file.verify.iter().filter_map(|(name, keys)| Some((name.clone(), self.verify(name, keys)?))).collect();
        let mut rates = BTreeMap::new();
        for (name, text) in &file.rates {
            match units::rate(text) {
                Some(rate) => {
                    rates.insert(name.clone(), rate);
                }
                None => self.problem(
                    Problem::error(Code::BadDuration, &["rates", name], "this is not a rate").help("for example `15/s` or `100/m`"),
                ),
            }
        }
        let deliver = file.deliver.iter().filter_map(|(name, keys)| self.deliver(name, keys).map(Arc::new)).collect();
        let collect = file.collect.iter().filter_map(|(name, keys)| self.collect(name, keys).map(Arc::new)).collect();
        Some(plan::Adapter {
            name: name.to_owned(),
            title: file.title.clone(),
            about: file.about.clone(),
            settings: file.settings.clone(),
            system,
            values,
            body_signs,
            verify,
            rates,
            deliver,
            collect,
            digest: self.with.digest.clone(),
        })
    }

    fn http(&mut self, keys: &HttpKeys) -> Option<Http> {
        let at = ["http".to_owned()];
        let base_url = self.template(&keys.base_url, Escape::None, &under(&at, &["base_url"]));
        let login = keys.login.as_ref().and_then(|login| self.login(login, &under(&at, &["login"])));
        let headers = self.templates(&keys.headers, Escape::None, &under(&at, &["headers"]));
        let proxy = keys.proxy.as_ref().and_then(|proxy| self.template(proxy, Escape::None, &under(&at, &["proxy"])));
        Some(Http {
            base_url: base_url?,
            login,
            headers,
            tls: keys.tls.as_ref().map(|tls| self.tls(tls, &under(&at, &["tls"]))),
            proxy,
            error_code: keys.error_code.as_ref().and_then(|text| self.path(text, &under(&at, &["error_code"]))),
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
        let username = keys.username.as_ref().and_then(|u| self.template(u, Escape::None, &under(&at, &["username"])));
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
        Tls { ca: part(&keys.ca, "ca"), certificate: part(&keys.certificate, "certificate"), key: part(&keys.key, "key") }
    }

    fn login(&mut self, keys: &LoginKeys, at: At<'_>) -> Option<Login> {
        let mut ways = Vec::new();
        if let Some(basic) = &keys.basic {
            let username = self.template(&basic.username, Escape::None, &under(at, &["basic", "username"]))?;
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
                token_url: self.template(&oauth2.token_url, Escape::None, &under(at, &["oauth2", "token_url"]))?,
                client_id: self.template(&oauth2.client_id, Escape::None, &under(at, &["oauth2", "client_id"]))?,
                client_secret: oauth2.client_secret.clone(),
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
                let (key, before) = at.split_last().map(|(key, before)| (key.as_str(), before)).unwrap_or(("", at));
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
            if !known.contains(&name.as_str()) {
                let problem = Problem::under(Code::UnknownName, at, "", format!("no value `{name}` is computed here"))
                    .part(place_in(source, &name))
                    .did_you_mean(&name, known);
                self.problem(problem);
            }
        }
        Some(template)
    }

    fn templates(&mut self, sources: &BTreeMap<String, String>, escape: Escape, at: At<'_>) -> Vec<(String, Template)> {
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
                let problem = Problem::under(Code::UnknownName, at, "", format!("the adapter has no setting `{name}`"))
                    .part(place_in(source, name))
                    .did_you_mean(name, known);
                self.problem(problem);
                return;
            }
        };
        if secret {
            let what = format!("the setting `{name}` is a secret; templates see no secrets");
            self.problem(Problem::under(Code::SecretInClear, at, "", what).part(place_in(source, name)).help("use it in `login` or `sign`"));
        }
    }

    fn setting(&mut self, name: &str, at: At<'_>) {
        if !self.file.settings.contains_key(name) {
            let known: Vec<&str> = self.file.settings.keys().map(String::as_str).collect();
            let problem = Problem::under(Code::UnknownName, at, "", format!("the adapter has no setting `{name}`"))
                .did_you_mean(name, known);
            self.problem(problem);
        }
    }

    fn secret(&mut self, name: &str, at: At<'_>) {
        self.setting(name, at);
        if self.file.settings.get(name).is_some_and(|setting| !setting.secret) {
            let what = format!("the setting `{name}` is used as a secret and must say so");
            self.problem(Problem::under(Code::SecretInClear, at, "", what).help(format!("in [settings.{name}]: secret = true")));
        }
    }

    /// Values and signatures over texts, each behind those it uses; and signatures of bodies.
    fn computed(&mut self) -> (Named<Computed>, Named<Sign>) {
        let mut waiting: Vec<(String, Computed, BTreeSet<String>)> = Vec::new();
        let mut body_signs = Vec::new();
        for (name, source) in &self.file.values {
            if let Some(template) = self.template(source, Escape::None, &["values".to_owned(), name.clone()]) {
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
                uses.iter().all(|used| ordered.iter().any(|(name, _)| name == used) || !waiting.iter().any(|(n, _, _)| n == used))
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
            self.problem(Problem::under(Code::MissingKey, &at, "keys", "a signature is checked with at least one key"));
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
                    Problem::under(Code::BadDuration, at, "", "this is not a duration").help("a whole number and ms, s, m, h or d: `30s`"),
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
                self.problem(Problem::under(Code::BadDuration, at, "", "this is not a size").help("a whole number and B, KiB, MiB or GiB"));
                default
            }
        }
    }

    fn mapping(&mut self, name: &str, direction: Direction, at: At<'_>) -> Option<Arc<Mapping>> {
        let Some(mapping) = self.with.mappings.get(name) else {
            if !self.with.broken.contains(name) {
                let known: Vec<&str> = self.with.mappings.keys().map(String::as_str).collect();
                let problem = Problem::under(Code::UnknownName, at, "", format!("there is no mapping `{name}`"))
                    .label(format!("mappings/{name}.toml is not there"))
                    .did_you_mean(name, known);
                self.problem(problem);
            }
            return None;
        };
        if !mapping.works(direction) {
            let way = if direction == Direction::ToDocument { "to documents" } else { "to events" };
            self.problem(Problem::under(Code::WrongMapping, at, "", format!("the mapping `{name}` does not go {way}")));
            return None;
        }
        for setting in mapping.settings_used() {
            if !self.file.settings.contains_key(&setting) {
                let what = format!("the mapping `{name}` uses the setting `{setting}`, which the adapter does not have");
                self.problem(Problem::under(Code::WrongMapping, at, "", what));
            }
        }
        for value in mapping.values_used() {
            if !self.file.values.contains_key(&value) && !self.file.sign.contains_key(&value) {
                let what = format!("the mapping `{name}` uses the value `{value}`, which the adapter does not compute");
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
                let problem = Problem::under(Code::UnknownName, at, "", format!("there is no event type `{event}`"))
                    .label(format!("mappings/events/{event}.schema.json is not there"))
                    .did_you_mean(event, known);
                self.problem(problem);
                None
            }
        }
    }

    /// Conditions on events of a type.
    pub(super) fn select(&mut self, keys: &[ConditionKeys], schema: &EventSchema, at: At<'_>) -> Vec<Condition> {
        let (conditions, problems) = select(keys, schema, at);
        self.problems.extend(problems);
        conditions
    }

    fn document_conditions(&mut self, keys: &[ConditionKeys], at: At<'_>) -> Vec<Condition> {
        let mut found = Vec::new();
        for (index, keys) in keys.iter().enumerate() {
            let at = under(at, &[&index.to_string()]);
            match Condition::compile(keys, Some(&self.namespaces), &at) {
                Ok(condition) if condition.on == Direction::ToEvent => found.push(condition),
                Ok(_) => self.problem(Problem::under(Code::ExclusiveKeys, &at, "event", "a condition here is on the document").on_key()),
                Err(problem) => self.problem(problem),
            }
        }
        found
    }

    fn path(&mut self, text: &str, at: At<'_>) -> Option<Path> {
        match Path::in_document(text, Some(&self.namespaces)) {
            Ok(path) => Some(path),
            Err(bad) => {
                let (key, before) = at.split_last().map(|(key, before)| (key.as_str(), before)).unwrap_or(("", at));
                self.problem(bad_path(bad, before, key, text));
                None
            }
        }
    }

    fn request(&mut self, keys: &RequestKeys, at: At<'_>) -> Option<Request> {
        const METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];
        if !METHODS.contains(&keys.method.as_str()) {
            let problem = Problem::under(Code::UnknownName, at, "method", format!("`{}` is not a method", keys.method))
                .did_you_mean(&keys.method, METHODS);
            self.problem(problem);
        }
        if let SystemPlanKind::Amqp = self.kind() {
            let what = "a request goes over HTTP, and this system is a broker";
            self.problem(Problem::under(Code::ExclusiveKeys, at, "", what).on_key());
        }
        let path = self.template(&keys.path, Escape::Url, &under(at, &["path"]));
        let query = self.templates(&keys.query, Escape::None, &under(at, &["query"]));
        let headers = self.templates(&keys.headers, Escape::None, &under(at, &["headers"]));
        let mapping =
            keys.mapping.as_ref().and_then(|name| self.mapping(name, Direction::ToDocument, &under(at, &["mapping"])));
        if let Some(rate) = &keys.rate
            && !self.file.rates.contains_key(rate)
        {
            let known: Vec<&str> = self.file.rates.keys().map(String::as_str).collect();
            let problem = Problem::under(Code::UnknownName, at, "rate", format!("there is no rate `{rate}`")).did_you_mean(rate, known);
            self.problem(problem);
        }
        Some(Request { method: keys.method.clone(), path: path?, query, headers, mapping, rate: keys.rate.clone() })
    }

    fn kind(&self) -> SystemPlanKind {
        if self.file.amqp.is_some() { SystemPlanKind::Amqp } else { SystemPlanKind::Http }
    }

    fn rules(&mut self, keys: &[AnswerKeys], at: At<'_>) -> Vec<Rule> {
        let mut rules = Vec::new();
        for (index, keys) in keys.iter().enumerate() {
            let at = under(at, &[&index.to_string()]);
            let mut statuses = Vec::new();
            for (index, text) in keys.status.iter().enumerate() {
                match status(text) {
                    Some(range) => statuses.push(range),
                    None => self.problem(
                        Problem::under(Code::WrongType, &under(&at, &["status"]), &index.to_string(), "this is not an HTTP status")
                            .help("three digits, or a class: `404`, `5xx`"),
                    ),
                }
            }
            let conditions = keys.conditions.iter().enumerate().filter_map(|(index, keys)| {
                self.answer_condition(keys, &under(&at, &["where", &index.to_string()]))
            });
            let conditions = conditions.collect();
            let any = keys.any.as_ref().and_then(|text| self.path(text, &under(&at, &["any"])));
            rules.push(Rule {
                statuses,
                conditions,
                any,
                body: keys.body,
                fault: keys.fault.clone(),
                then: keys.then,
                why: keys.why.clone(),
            });
        }
        for (index, rule) in rules.iter().enumerate() {
            let catches_all = rules.iter().take(index).position(|earlier| {
                earlier.statuses.is_empty() && earlier.conditions.is_empty() && earlier.body.is_none() && earlier.fault.is_none()
            });
            if catches_all.is_some() {
                let _ = rule;
                self.problem(
                    Problem::under(Code::UnreachableAnswer, at, &index.to_string(), "this rule is never reached")
                        .label("an earlier rule fits every answer"),
                );
            }
        }
        rules
    }

    fn answer_condition(&mut self, keys: &AnswerConditionKeys, at: At<'_>) -> Option<AnswerCondition> {
        let path = self.path(&keys.document, &under(at, &["document"]))?;
        let mut texts = |texts: &[String], key: &str| -> Vec<Template> {
            let compiled = texts.iter().enumerate().filter_map(|(index, text)| {
                self.template(text, Escape::None, &under(at, &[key, &index.to_string()]))
            });
            compiled.collect()
        };
        let test = match (&keys.is, &keys.not, keys.present) {
            (Some(is), None, None) => AnswerTest::Is(texts(is, "is")),
            (None, Some(not), None) => AnswerTest::Not(texts(not, "not")),
            (None, None, Some(present)) => AnswerTest::Present(present),
            _ => {
                let what = "a condition asks exactly one thing: `is`, `not` or `present`";
                self.problem(Problem::under(Code::ExclusiveKeys, at, "", what));
                return None;
            }
        };
        Some(AnswerCondition { path, test })
    }

    fn emits(&mut self, keys: &[EmitKeys], at: At<'_>, ask: bool) -> Vec<Emit> {
        let mut emits = Vec::new();
        for (index, keys) in keys.iter().enumerate() {
            let at = under(at, &[&index.to_string()]);
            let when = self.document_conditions(&keys.when, &under(&at, &["when"]));
            let given = [keys.mapping.is_some(), keys.ignore.is_some(), keys.wait, keys.dead.is_some()];
            let action = match keys {
                _ if given.iter().filter(|given| **given).count() != 1 => {
                    let what = "a rule does exactly one thing: `mapping`, `ignore`, `wait` or `dead`";
                    self.problem(Problem::under(Code::ExclusiveKeys, &at, "", what).label("exactly one of the four"));
                    continue;
                }
                EmitKeys { mapping: Some(name), .. } => {
                    match self.mapping(name, Direction::ToEvent, &under(&at, &["mapping"])) {
                        Some(mapping) => EmitAction::Event(mapping),
                        None => continue,
                    }
                }
                EmitKeys { ignore: Some(why), .. } => EmitAction::Ignore(why.clone()),
                EmitKeys { dead: Some(why), .. } => EmitAction::Dead(why.clone()),
                _ => {
                    if !ask {
                        let what = "`wait` is for routes that ask again (`ask`)";
                        self.problem(Problem::under(Code::ExclusiveKeys, &at, "wait", what).on_key());
                    }
                    EmitAction::Wait
                }
            };
            let each = keys.each.as_ref().and_then(|text| self.path(text, &under(&at, &["each"])));
            let opens = keys.opens.as_ref().and_then(|opens| self.opens(opens, &under(&at, &["opens"])));
            emits.push(Emit { when, action, each, opens, also: keys.also });
        }
        emits
    }

    fn opens(&mut self, keys: &OpensKeys, at: At<'_>) -> Option<Opens> {
        if self.file.collect.get(&keys.route).is_none_or(|route| route.ask.is_none()) {
            let known: Vec<&str> =
                self.file.collect.iter().filter(|(_, route)| route.ask.is_some()).map(|(name, _)| name.as_str()).collect();
            let what = format!("the adapter has no `collect` route `{}` that asks", keys.route);
            let problem = Problem::under(Code::UnknownName, at, "route", what).did_you_mean(&keys.route, known);
            self.problem(problem);
        }
        let one_per = keys.one_per.as_ref().and_then(|text| self.template(text, Escape::None, &under(at, &["one_per"])));
        let keep = self.templates(&keys.keep, Escape::None, &under(at, &["keep"]));
        let key = self.template(&keys.key, Escape::None, &under(at, &["key"]))?;
        for (index, event) in keys.not_after.iter().enumerate() {
            self.schema(event, &under(at, &["not_after", &index.to_string()]));
        }
        let (route, not_after) = (keys.route.clone(), keys.not_after.clone());
        Some(Opens { route, key, one_per, not_after, keep, keep_event: keys.keep_event })
    }

    fn retry(&mut self, keys: &RetryKeys, at: At<'_>) -> RetryPolicy {
        let waits = match &keys.waits {
            None => TIERS.iter().map(|(_, delay)| *delay).collect(),
            Some(texts) => {
                let mut waits = Vec::new();
                for (index, text) in texts.iter().enumerate() {
                    match TIERS.iter().find(|(name, _)| name == text) {
                        Some((_, delay)) => waits.push(*delay),
                        None => {
                            let what = format!("there is no retry tier of `{text}`");
                            let problem = Problem::under(Code::UnknownName, &under(at, &["waits"]), &index.to_string(), what)
                                .did_you_mean(text, TIERS.iter().map(|(name, _)| *name));
                            self.problem(problem);
                        }
                    }
                }
                waits
            }
        };
        if waits.is_empty() {
            self.problem(Problem::under(Code::WrongType, at, "waits", "a route waits at least once before it gives up"));
        }
        RetryPolicy {
            at_once: keys.at_once.unwrap_or(2),
            waits,
            give_up: self.duration(&keys.give_up, "3d", &under(at, &["give_up"])),
        }
    }

    fn waits(&mut self, texts: &[String], at: At<'_>) -> Vec<Duration> {
        let waits: Vec<Duration> = texts
            .iter()
            .enumerate()
            .map(|(index, text)| self.duration(&Some(text.clone()), "1m", &under(at, &[&index.to_string()])))
            .collect();
        if waits.is_empty() {
            self.problem(Problem::under(Code::WrongType, at, "", "at least one wait"));
        }
        waits
    }

    fn deliver(&mut self, name: &str, keys: &DeliverKeys) -> Option<Deliver> {
        let at = ["deliver".to_owned(), name.to_owned()];
        self.route_name(name, &at);
        let event = self.schema(&keys.event, &under(&at, &["event"]));
        let select = event.as_ref().map(|schema| self.select(&keys.select, schema, &under(&at, &["select"])));
        let mapping =
            keys.mapping.as_ref().and_then(|name| self.mapping(name, Direction::ToDocument, &under(&at, &["mapping"])));
        if let Some(mapping) = &mapping
            && mapping.schema.event_type != keys.event
        {
            let what = format!("the mapping is for {}, the route takes {}", mapping.schema.event_type, keys.event);
            self.problem(Problem::under(Code::WrongMapping, &at, "mapping", what));
        }
        let each = keys.each.as_ref().and_then(|text| match Path::in_event(text) {
            Ok(path) if path.is_repeated() && path.steps().len() == 1 => Some(path),
            Ok(_) => {
                self.problem(Problem::under(Code::BadPath, &at, "each", "`each` names a list of the event: `lines[]`"));
                None
            }
            Err(bad) => {
                self.problem(bad_path(bad, &at, "each", text));
                None
            }
        });
        let action = match (&keys.request, &keys.publish) {
            (Some(request), None) => Action::Request(self.request(request, &under(&at, &["request"]))?),
            (None, Some(publish)) => Action::Publish(self.publish(publish, &under(&at, &["publish"]))?),
            _ => {
                let what = "a deliver route sends exactly one of `request` (HTTP) and `publish` (AMQP)";
                self.problem(Problem::under(Code::ExclusiveKeys, &at, "", what).on_key());
                return None;
            }
        };
        let before = keys.before.as_ref().and_then(|before| self.before(before, &under(&at, &["before"])));
        let answers = self.rules(&keys.answers, &under(&at, &["answers"]));
        let reply = self.emits(&keys.reply, &under(&at, &["reply"]), false);
        let opens = keys.opens.as_ref().and_then(|opens| self.opens(opens, &under(&at, &["opens"])));
        if keys.answer_format.is_none()
            && (!reply.is_empty() || opens.is_some() || answers.iter().any(|rule| !rule.conditions.is_empty() || rule.fault.is_some()))
        {
            let what = "rules, replies or opened items look into the answer: say its `answer_format`";
            self.problem(Problem::under(Code::MissingKey, &at, "", what).on_key().label("`answer_format` is missing"));
        }
        let probe = keys.probe.as_ref().and_then(|probe| self.probe(probe, &under(&at, &["probe"])));
        let repeat = self.repeat(keys, &at, &answers, probe.is_some());
        let retry = self.retry(&keys.retry, &under(&at, &["retry"]));
        let amqp = matches!(action, Action::Publish(_));
        Some(Deliver {
            name: name.to_owned(),
            about: keys.about.clone(),
            event: event?,
            select: select.unwrap_or_default(),
            each,
            mapping,
            makes: keys.makes,
            repeat,
            action,
            before,
            answers,
            answer_format: keys.answer_format,
            reply,
            opens,
            probe,
            retry,
            concurrency: keys.concurrency.unwrap_or(if amqp { 2 } else { 1 }).max(1),
            window: keys.window.unwrap_or(if amqp { 256 } else { 1 }).clamp(1, 4096),
            accept: Accept {
                bare_headers: keys.accept.contains(&AcceptForm::BareHeaders),
                untyped_json: keys.accept.contains(&AcceptForm::UntypedJson),
            },
        })
    }

    fn route_name(&mut self, name: &str, at: At<'_>) {
        if !is_name(name) {
            let what = "a route's name has small letters, digits and hyphens only: it becomes part of a queue's name";
            self.problem(Problem::under(Code::WrongType, at, "", what).on_key());
        }
    }

    /// What makes a repeat safe must be said wherever something is made, and must have what it needs.
    fn repeat(&mut self, keys: &DeliverKeys, at: At<'_>, answers: &[Rule], probe: bool) -> Repeat {
        let Some(repeat) = keys.repeat else {
            if keys.makes != Makes::Nothing {
                let what = "this route makes something, and nothing says what makes it safe to send it twice";
                self.problem(
                    Problem::under(Code::NoRepeat, at, "makes", what).label("`repeat` is missing").help(
                        "`key`: the system honours a key of ours; `guard`: its own lock refuses a second try; `probe`: ask first; \
                         `harmless`: a repeat has no effect yet; `never`: an unknown outcome goes before a person",
                    ),
                );
            }
            return Repeat::Harmless;
        };
        match repeat {
            Repeat::Probe if !probe => {
                let what = "to ask first, there must be something to ask: the route has no `probe`";
                self.problem(Problem::under(Code::NoProbe, at, "repeat", what).help("add `[deliver.<route>.probe]`, or say `never`"));
            }
            Repeat::Guard => {
                if !answers.iter().any(|rule| rule.then == Meaning::Guarded) {
                    let what = "the system's lock refuses a second try, but no rule says which answer that is";
                    self.problem(
                        Problem::under(Code::GuardIncomplete, at, "repeat", what).help("add a rule with `then = \"guarded\"` to `answers`"),
                    );
                }
                if keys.before.is_none() {
                    let what = "a lock guards only what was read before the first try: the route has no `before`";
                    self.problem(Problem::under(Code::GuardIncomplete, at, "repeat", what));
                }
            }
            Repeat::Key | Repeat::Probe | Repeat::Harmless | Repeat::Never => {}
        }
        repeat
    }

    fn publish(&mut self, keys: &PublishKeys, at: At<'_>) -> Option<Publish> {
        if let SystemPlanKind::Http = self.kind() {
            let what = "a message is published to a broker, and this system is reached over HTTP";
            self.problem(Problem::under(Code::ExclusiveKeys, at, "", what).on_key());
        }
        let exchange = self.template(&keys.exchange, Escape::None, &under(at, &["exchange"]));
        let routing_key = self.template(&keys.routing_key, Escape::None, &under(at, &["routing_key"]));
        let headers = self.templates(&keys.headers, Escape::None, &under(at, &["headers"]));
        Some(Publish { exchange: exchange?, routing_key: routing_key?, headers })
    }

    fn before(&mut self, keys: &BeforeKeys, at: At<'_>) -> Option<Before> {
        let request = self.request(&keys.request, &under(at, &["request"]))?;
        let answers = self.rules(&keys.answers, &under(at, &["answers"]));
        let mut keep = Vec::new();
        for (name, text) in &keys.keep {
            if let Some(path) = self.path(text, &under(at, &["keep", name])) {
                keep.push((name.clone(), path));
            }
        }
        Some(Before { request, answers, keep })
    }

    fn probe(&mut self, keys: &ProbeKeys, at: At<'_>) -> Option<Probe> {
        let request = self.request(&keys.request, &under(at, &["request"]))?;
        let answers = self.rules(&keys.answers, &under(at, &["answers"]));
        let says = |meaning| answers.iter().any(|rule| rule.then == meaning);
        if !says(Meaning::Delivered) || !says(Meaning::Absent) {
            let what = "a probe tells which answer means `delivered` and which means `absent`";
            self.problem(Problem::under(Code::NoProbe, at, "answers", what));
        }
        let settle = self.duration(&keys.settle, "0s", &under(at, &["settle"]));
        Some(Probe { request, answers, format: keys.format, settle })
    }

    fn collect(&mut self, name: &str, keys: &CollectKeys) -> Option<Collect> {
        let at = ["collect".to_owned(), name.to_owned()];
        self.route_name(name, &at);
        let given = [keys.receive.is_some(), keys.poll.is_some(), keys.ask.is_some(), keys.consume.is_some()];
        if given.iter().filter(|given| **given).count() != 1 {
            let what = "a collect route says exactly once how documents come: `receive`, `poll`, `ask` or `consume`";
            self.problem(Problem::under(Code::ExclusiveKeys, &at, "", what).on_key());
            return None;
        }
        let source = match keys {
            CollectKeys { receive: Some(receive), .. } => self.receive(receive, &under(&at, &["receive"])),
            CollectKeys { poll: Some(poll), .. } => self.poll(poll, &under(&at, &["poll"])),
            CollectKeys { ask: Some(ask), .. } => self.ask(ask, &under(&at, &["ask"])),
            CollectKeys { consume: Some(consume), .. } => self.consume(consume, &under(&at, &["consume"])),
            _ => None,
        };
        let key = keys.key.as_ref().and_then(|text| self.template(text, Escape::None, &under(&at, &["key"])));
        let mut fetch = Vec::new();
        for (index, fetch_keys) in keys.fetch.iter().enumerate() {
            let at = under(&at, &["fetch", &index.to_string()]);
            let when = self.document_conditions(&fetch_keys.when, &under(&at, &["when"]));
            let answers = self.rules(&fetch_keys.answers, &under(&at, &["answers"]));
            if let Some(request) = self.request(&fetch_keys.request, &under(&at, &["request"])) {
                fetch.push(Fetch { when, request, answers, format: fetch_keys.format.unwrap_or(keys.format) });
            }
        }
        let events = self.emits(&keys.events, &under(&at, &["events"]), keys.ask.is_some());
        let passes_on = keys.consume.as_ref().is_some_and(|consume| consume.events);
        if events.is_empty() && keys.events.is_empty() && !passes_on {
            let what = "nothing says what becomes of what is collected";
            self.problem(Problem::under(Code::MissingKey, &at, "events", what));
        }
        let retry = self.retry(&keys.retry, &under(&at, &["retry"]));
        Some(Collect {
            name: name.to_owned(),
            about: keys.about.clone(),
            source: source?,
            format: keys.format,
            key,
            fetch,
            events,
            already_posted: keys.already_posted,
            retry,
            concurrency: keys.concurrency.unwrap_or(4).max(1),
            namespaces: self.namespaces.clone(),
        })
    }

    fn receive(&mut self, keys: &ReceiveKeys, at: At<'_>) -> Option<Source> {
        if let Some(name) = &keys.verify
            && !self.file.verify.contains_key(name)
        {
            let known: Vec<&str> = self.file.verify.keys().map(String::as_str).collect();
            let problem =
                Problem::under(Code::UnknownName, at, "verify", format!("there is no `[verify.{name}]`")).did_you_mean(name, known);
            self.problem(problem);
        }
        let login = keys.login.as_ref().and_then(|login| self.login(login, &under(at, &["login"])));
        if let Some(Login { how: LoginKind::Oauth2 { .. }, .. }) = &login {
            let what = "a receiver checks `basic`, `bearer` or `header`; it gives out no tokens";
            self.problem(Problem::under(Code::ExclusiveKeys, at, "login", what));
        }
        if keys.verify.is_none() && keys.login.is_none() {
            let what = "anybody could call this route: it checks neither a signature nor a login";
            self.problem(Problem::under(Code::NotAuthenticated, at, "", what).on_key().help("add `verify` or `login`"));
        }
        if keys.path.as_ref().is_some_and(|path| !path.starts_with('/')) {
            self.problem(Problem::under(Code::BadPath, at, "path", "a path begins with `/`"));
        }
        Some(Source::Receive(Receive {
            path: keys.path.clone(),
            method: keys.method.clone().unwrap_or_else(|| "POST".to_owned()),
            verify: keys.verify.clone(),
            login,
            limit: self.size(&keys.limit, 1 << 20, &under(at, &["limit"])),
        }))
    }

    fn poll(&mut self, keys: &PollKeys, at: At<'_>) -> Option<Source> {
        let every = self.duration(&Some(keys.every.clone()), "1m", &under(at, &["every"]));
        let answers = self.rules(&keys.answers, &under(at, &["answers"]));
        let split = self.path(&keys.split, &under(at, &["split"]));
        let next = keys.next.as_ref().and_then(|text| self.path(text, &under(at, &["next"])));
        if keys.next.is_some() && keys.pages {
            let what = "`next` and `pages` exclude each other: pages are linked or numbered";
            self.problem(Problem::under(Code::ExclusiveKeys, at, "pages", what).on_key());
        }
        let progress = match (&keys.window, &keys.cursor) {
            (None, None) => Progress::All,
            (Some(window), None) => {
                let at = under(at, &["window"]);
                Progress::Window {
                    lag: self.duration(&window.lag, "0s", &under(&at, &["lag"])),
                    overlap: self.duration(&window.overlap, "0s", &under(&at, &["overlap"])),
                    first: self.duration(&window.first, "1d", &under(&at, &["first"])),
                    pattern: window.pattern.clone(),
                }
            }
            (None, Some(cursor)) => Progress::Cursor {
                path: self.path(&cursor.document, &under(at, &["cursor", "document"]))?,
                first: cursor.first.clone(),
            },
            (Some(_), Some(_)) => {
                let what = "`window` and `cursor` exclude each other";
                self.problem(Problem::under(Code::ExclusiveKeys, at, "cursor", what).on_key());
                return None;
            }
        };
        let request = self.request(&keys.request, &under(at, &["request"]))?;
        Some(Source::Poll(Poll { every, request, answers, split: split?, next, pages: keys.pages, progress }))
    }

    fn ask(&mut self, keys: &AskKeys, at: At<'_>) -> Option<Source> {
        let waits = self.waits(&keys.waits, &under(at, &["waits"]));
        let give_up = self.duration(&Some(keys.give_up.clone()), "1d", &under(at, &["give_up"]));
        let answers = self.rules(&keys.answers, &under(at, &["answers"]));
        let request = self.request(&keys.request, &under(at, &["request"]))?;
        Some(Source::Ask(Ask { waits, give_up, request, answers }))
    }

    fn consume(&mut self, keys: &ConsumeKeys, at: At<'_>) -> Option<Source> {
        if let SystemPlanKind::Http = self.kind() {
            let what = "a queue is consumed from a broker, and this system is reached over HTTP";
            self.problem(Problem::under(Code::ExclusiveKeys, at, "", what).on_key());
        }
        let queue = self.template(&keys.queue, Escape::None, &under(at, &["queue"]))?;
        Some(Source::Consume(Consume { queue, events: keys.events }))
    }
}

enum SystemPlanKind {
    Http,
    Amqp,
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

