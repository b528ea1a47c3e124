//! From `packhorse.toml` and the adapters it uses to a [`Config`], with everything that is wrong.

mod bears;
mod store;

use super::{
    Address, Broker, CollectRoute, Config, DeliverRoute, Instance, Receiver, Tls,
    compile::{Calendars, is_name, select},
    host_keys, plan,
    raw::bridge::{AdapterUse, BridgeFile, RouteUse, SftpUse, TlsKeys},
    secrets::SecretRef,
    units,
};
use crate::{
    code::Code,
    event::schema::EventSchema,
    problem::Problem,
    template::{Escape, Template, Texts},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::Duration,
};

/// What a bridge is made of beside its own file.
pub struct With<'a> {
    /// The folder of `packhorse.toml`.
    pub folder: &'a Path,
    /// The adapters by name.
    pub adapters: &'a BTreeMap<String, Arc<plan::Adapter>>,
    /// Adapters that are there but broken: their problems are told elsewhere.
    pub broken: &'a BTreeSet<String>,
    /// The event schemas by type.
    pub schemas: &'a BTreeMap<String, Arc<EventSchema>>,
    /// The calendars by name.
    pub calendars: &'a Calendars,
}

/// Makes the configuration. With an error there is none.
pub fn build(file: &BridgeFile, with: &With<'_>) -> (Option<Config>, Vec<Problem>) {
    let mut builder = Builder { file, with, problems: Vec::new() };
    let config = builder.config();
    let problems = builder.problems;
    let broken = problems.iter().any(|problem| problem.severity == crate::problem::Severity::Error);
    (config.filter(|_| !broken), problems)
}

struct Builder<'a> {
    file: &'a BridgeFile,
    with: &'a With<'a>,
    problems: Vec<Problem>,
}

impl Builder<'_> {
    fn error(&mut self, code: Code, at: &[&str], what: impl Into<String>, help: &str) {
        let problem = Problem::error(code, at, what);
        self.problems.push(if help.is_empty() { problem } else { problem.help(help) });
    }

    fn config(&mut self) -> Option<Config> {
        let file = self.file;
        if !is_name(&file.council) {
            let what =
                "the council's code has small letters, digits and hyphens only: it is a part of routing keys";
            self.error(Code::WrongType, &["council"], what, "");
        }
        let broker = self.broker();
        let store = self.store();
        let receiver = file.receiver.as_ref().and_then(|keys| {
            let listen = self.listen(&keys.listen, &["receiver", "listen"])?;
            let tls = keys.tls.as_ref().map(|tls| self.tls(tls, &["receiver", "tls"]));
            if tls.as_ref().is_some_and(|tls| tls.certificate.is_none() || tls.key.is_none()) {
                self.error(
                    Code::MissingKey,
                    &["receiver", "tls"],
                    "to answer over TLS takes `certificate` and `key`",
                    "",
                );
            }
            Some(Receiver { listen, tls, most_at_once: keys.most_at_once.unwrap_or(256) as usize })
        });
        let admin = match file.admin.listen.as_deref() {
            Some("off") => None,
            listen => self.listen(listen.unwrap_or("127.0.0.1:9464"), &["admin", "listen"]),
        };
        let drain = self.duration(&file.drain, "20s", &["drain"]);
        let prefix = file.broker.prefix.clone().unwrap_or_else(|| "packhorse".to_owned());
        if !is_name(&prefix) {
            self.error(
                Code::WrongType,
                &["broker", "prefix"],
                "the prefix has small letters, digits and hyphens only",
                "",
            );
        }
        let mut config = Config {
            council: file.council.clone(),
            broker: broker?,
            prefix,
            declare: file.broker.declare.unwrap_or(true),
            declare_platform: file.broker.declare_platform,
            management: file.broker.management.clone(),
            store,
            receiver,
            admin,
            drain,
            instances: Vec::new(),
            deliver: Vec::new(),
            collect: Vec::new(),
            schemas: Arc::new(
                self.with.schemas.iter().map(|(k, v)| (k.clone(), v.clone())).collect::<HashMap<_, _>>(),
            ),
        };
        for (name, adapter_use) in &file.adapters {
            self.instance(name, adapter_use, &mut config);
        }
        self.paths(&config);
        Some(config)
    }

    fn broker(&mut self) -> Option<Broker> {
        let keys = &self.file.broker;
        let mut addresses = Vec::new();
        for (index, text) in keys.addresses.iter().enumerate() {
            match Address::parse(text) {
                Ok(address) => {
                    let login = keys.password.is_some();
                    if !address.tls && !address.is_local() && login && !keys.allow_unencrypted_login {
                        let what = "the password would go to another machine unencrypted";
                        self.error(
                            Code::PlainCredentials,
                            &["broker", "addresses", &index.to_string()],
                            what,
                            "use `amqps://`; or, if the network is trusted, say it twice: allow_unencrypted_login = true",
                        );
                    }
                    addresses.push(address);
                }
                Err(what) => self.error(
                    Code::BadAddress,
                    &["broker", "addresses", &index.to_string()],
                    what,
                    "for example `amqps://broker.example.gov.uk:5671/vhost`",
                ),
            }
        }
        if keys.addresses.is_empty() {
            self.error(Code::MissingKey, &["broker", "addresses"], "a broker has at least one address", "");
        }
        let password = keys.password.as_ref().and_then(|text| self.secret(text, &["broker", "password"]));
        let tls = keys.tls.as_ref().map(|tls| self.tls(tls, &["broker", "tls"])).unwrap_or_default();
        if keys.tls.as_ref().is_some_and(|tls| tls.certificate.is_some() != tls.key.is_some()) {
            let what = "to show a certificate takes `certificate` and `key`";
            self.error(Code::MissingKey, &["broker", "tls"], what, "");
        }
        let heartbeat = self.duration(&keys.heartbeat, "15s", &["broker", "heartbeat"]);
        if heartbeat.as_secs() == 0 {
            self.error(Code::BadDuration, &["broker", "heartbeat"], "a heartbeat is at least one second", "");
        }
        (!addresses.is_empty()).then_some(Broker {
            addresses,
            username: keys.username.clone(),
            password,
            tls,
            heartbeat,
            allow_unencrypted_login: keys.allow_unencrypted_login,
        })
    }

    fn tls(&mut self, keys: &TlsKeys, at: &[&str]) -> Tls {
        let path = |text: &Option<String>| text.as_ref().map(|text| self.with.folder.join(text));
        let (ca, certificate) = (path(&keys.ca), path(&keys.certificate));
        let key = keys.key.as_ref().and_then(|text| {
            let mut at = at.to_vec();
            at.push("key");
            self.secret(text, &at)
        });
        Tls { ca, certificate, key }
    }

    fn secret(&mut self, text: &str, at: &[&str]) -> Option<SecretRef> {
        let secret = SecretRef::parse(text);
        match &secret {
            None => {
                let problem = Problem::error(Code::SecretInClear, at, "a secret does not stand in a file")
                    .label("a reference is wanted here")
                    .help("`env:NAME`, `file:/path` or `cred:name`; if this was a real secret, change it");
                self.problems.push(problem);
            }
            Some(SecretRef::File(path)) if path.is_relative() => {
                return Some(SecretRef::File(self.with.folder.join(path)));
            }
            Some(_) => {}
        }
        secret
    }

    fn listen(&mut self, text: &str, at: &[&str]) -> Option<SocketAddr> {
        let address = text.parse();
        if address.is_err() {
            self.error(
                Code::BadAddress,
                at,
                "this is not an address to listen at",
                "an IP address and a port: `127.0.0.1:8080`",
            );
        }
        address.ok()
    }

    fn duration(&mut self, text: &Option<String>, default: &str, at: &[&str]) -> Duration {
        let duration = units::duration(text.as_deref().unwrap_or(default));
        if duration.is_none() {
            self.error(
                Code::BadDuration,
                at,
                "this is not a duration",
                "a whole number and ms, s, m, h or d: `30s`",
            );
        }
        duration.unwrap_or_default()
    }

    fn size(&mut self, text: &Option<String>, default: u64, at: &[&str]) -> u64 {
        let size = text.as_deref().map_or(Some(default), units::size);
        if size.is_none() {
            self.error(Code::BadDuration, at, "this is not a size", "a whole number and B, KiB, MiB or GiB");
        }
        size.unwrap_or(default)
    }

    fn instance(&mut self, name: &str, keys: &AdapterUse, config: &mut Config) {
        let file_name = keys.adapter.as_deref().unwrap_or(name);
        if !is_name(name) {
            let what =
                "the name has small letters, digits and hyphens only: it becomes part of queues' names";
            self.problems.push(Problem::error(Code::WrongType, &["adapters", name], what).on_key());
        }
        let Some(adapter) = self.with.adapters.get(file_name) else {
            if !self.with.broken.contains(file_name) {
                let known: Vec<&str> = self.with.adapters.keys().map(String::as_str).collect();
                let what = format!("there is no adapter `{file_name}`");
                let at: &[&str] =
                    if keys.adapter.is_some() { &["adapters", name, "adapter"] } else { &["adapters", name] };
                let mut problem = Problem::error(Code::UnknownName, at, what).did_you_mean(file_name, known);
                problem.on_key = keys.adapter.is_none();
                self.problems.push(problem);
            }
            return;
        };
        let (settings, mut secrets) = self.settings(name, keys, adapter);
        let reached = keys.sftp.as_ref().and_then(|sftp| self.over_sftp(name, sftp, adapter, &mut secrets));
        let bears = self.bears(name, keys, adapter);
        let prefix = self.file.source.clone().unwrap_or_else(|| format!("urn:packhorse:{}", config.council));
        let instance = Arc::new(Instance {
            name: name.to_owned(),
            adapter: adapter.clone(),
            settings,
            secrets,
            source: format!("{prefix}:{name}"),
            bears: bears.clone(),
            reached,
            folder: self.with.folder.to_owned(),
        });
        self.unencrypted(name, keys, &instance);
        self.sftp(name, &instance);
        for route in keys.routes.keys() {
            let known: Vec<&str> = adapter
                .deliver
                .iter()
                .map(|route| route.name.as_str())
                .chain(adapter.collect.iter().map(|route| route.name.as_str()))
                .collect();
            if !known.contains(&route.as_str()) {
                let what = format!("the adapter `{file_name}` has no route `{route}`");
                let problem = Problem::error(Code::UnknownName, &["adapters", name, "routes", route], what)
                    .on_key()
                    .did_you_mean(route, known);
                self.problems.push(problem);
            }
        }
        for plan in &adapter.deliver {
            let over = keys.routes.get(&plan.name);
            if over.is_some_and(|over| over.enabled == Some(false)) {
                continue;
            }
            self.opened(name, keys, &plan.name, plan.opens.iter().chain(opened_by(&plan.reply)));
            let at = ["adapters", name, "routes", &plan.name, "select"].map(str::to_owned);
            let (more, problems) = select(over.map_or(&[], |over| &over.select), &plan.event, &at);
            self.problems.extend(problems);
            let own = match &plan.action {
                plan::Action::Batch(_) => bears::Own::Joins(plan.hours.as_ref()),
                plan::Action::Request(_)
                | plan::Action::Publish(_)
                | plan::Action::Statement(_)
                | plan::Action::Write(_) => bears::Own::Of(plan.hours.as_ref()),
            };
            let (gate, tell_after) = self.gate((name, &plan.name), own, over, &bears);
            let concurrency = over.and_then(|over| over.concurrency).unwrap_or(plan.concurrency).max(1);
            config.deliver.push(Arc::new(DeliverRoute {
                id: format!("{name}.{}", plan.name),
                queue: format!("{}.{name}.{}", config.prefix, plan.name),
                instance: instance.clone(),
                plan: plan.clone(),
                select: plan.select.iter().cloned().chain(more).collect(),
                concurrency,
                window: bears::window(plan, concurrency, &bears),
                gate,
                tell_after,
            }));
        }
        for plan in &adapter.collect {
            let over = keys.routes.get(&plan.name);
            if over.is_some_and(|over| over.enabled == Some(false)) {
                continue;
            }
            if matches!(plan.source, plan::Source::Receive(_)) && self.file.receiver.is_none() {
                let what = format!(
                    "the route `{}` is called by its system, and no `[receiver]` says where",
                    plan.name
                );
                self.problems.push(Problem::error(Code::MissingKey, &["adapters", name], what).on_key());
            }
            self.opened(name, keys, &plan.name, opened_by(&plan.events));
            if let plan::Source::Receive(receive) = &plan.source
                && receive.verify.is_none()
                && let Some(login) = receive.login.as_ref().filter(|login| !instance.uses(login))
            {
                let what = format!(
                    "anybody could call the route `{}`: its login counts only with the setting `{}`, which is not given",
                    plan.name,
                    login.when_set.as_deref().unwrap_or_default()
                );
                self.problems
                    .push(Problem::error(Code::NotAuthenticated, &["adapters", name], what).on_key());
            }
            let pace = self.pace(name, plan, over);
            let (gate, tell_after) =
                self.gate((name, &plan.name), bears::Own::Of(plan.hours.as_ref()), over, &bears);
            config.collect.push(Arc::new(CollectRoute {
                pace,
                id: format!("{name}.{}", plan.name),
                instance: instance.clone(),
                plan: plan.clone(),
                concurrency: over.and_then(|over| over.concurrency).unwrap_or(plan.concurrency).max(1),
                gate,
                tell_after,
            }));
        }
        config.instances.push(instance);
    }

    /// What a route leaves open, another must ask about.
    fn opened<'o>(
        &mut self,
        name: &str,
        keys: &AdapterUse,
        route: &str,
        opens: impl Iterator<Item = &'o plan::Opens>,
    ) {
        for opens in opens.map(|opens| opens.route.as_str()) {
            if keys.routes.get(opens).is_some_and(|over| over.enabled == Some(false)) {
                let what = format!(
                    "the route `{route}` leaves it to `{opens}` to ask how it ends, which is not enabled"
                );
                self.error(
                    Code::ExclusiveKeys,
                    &["adapters", name, "routes", opens, "enabled"],
                    what,
                    "enable both, or neither",
                );
            }
        }
    }

    /// No key or password goes to another machine unencrypted, unless that is said.
    fn unencrypted(&mut self, name: &str, keys: &AdapterUse, instance: &Instance) {
        let plan::SystemPlan::Http(http) = &instance.adapter.system else { return };
        let Some(login) = &http.login else { return };
        if keys.allow_unencrypted_login || !instance.uses(login) {
            return;
        }
        // With OAuth 2.0 the secret goes to the login server, and the token to the system.
        let token_url = match &login.how {
            plan::LoginKind::Oauth2 { token_url, .. } => Some(token_url),
            plan::LoginKind::Basic { .. }
            | plan::LoginKind::Bearer { .. }
            | plan::LoginKind::Header { .. } => None,
        };
        for address in [Some(&http.base_url), token_url].into_iter().flatten() {
            let Ok(address) = instance.render(address) else { continue };
            let Some(host) = elsewhere_unencrypted(&address) else { continue };
            let what = format!("the login would go to {host} unencrypted");
            let at: &[&str] = &["adapters", name, "settings"];
            let help =
                "use `https://`; or, if the network is trusted, say it twice: allow_unencrypted_login = true";
            self.error(Code::PlainCredentials, at, what, help);
        }
    }

    /// The files of an adapter that has a folder lie on an SFTP server.
    fn over_sftp(
        &mut self,
        name: &str,
        keys: &SftpUse,
        adapter: &plan::Adapter,
        secrets: &mut BTreeMap<String, SecretRef>,
    ) -> Option<plan::Files> {
        let folder = match &adapter.system {
            plan::SystemPlan::Files(files) => match &**files {
                plan::Files::Folder(folder) => Some(folder),
                plan::Files::Sftp(_) => None,
            },
            plan::SystemPlan::Http(_) | plan::SystemPlan::Amqp(_) | plan::SystemPlan::Sql(_) => None,
        };
        let Some(folder) = folder else {
            let what = "only the files of an adapter with `[folder]` can lie on a server instead";
            self.problems
                .push(Problem::error(Code::ExclusiveKeys, &["adapters", name, "sftp"], what).on_key());
            return None;
        };
        // Beside the adapter's own secrets, under names that none of these can have.
        let mut secret = |key: &str, text: &Option<String>| {
            let reference = self.secret(text.as_ref()?, &["adapters", name, "sftp", key])?;
            let own = format!("[sftp] {key}");
            secrets.insert(own.clone(), reference);
            Some(own)
        };
        let (key, password) = (secret("key", &keys.key), secret("password", &keys.password));
        let host_keys = keys.host_keys.join(" ");
        let mut literal = |key: &str, text: &str| match text.contains('{') {
            false => Template::compile(text, Escape::None).ok(),
            true => {
                let what = "this is no template: what stands here is the bridge's own";
                self.error(Code::BadTemplate, &["adapters", name, "sftp", key], what, "");
                None
            }
        };
        let (address, username) = (literal("address", &keys.address), literal("username", &keys.username));
        let host_keys = literal("host_keys", &host_keys);
        Some(plan::Files::Sftp(plan::Sftp {
            address: address?,
            username: username?,
            key,
            password,
            host_keys: host_keys?,
            folder: Some(folder.path.clone()),
            connect_timeout: Duration::from_secs(10),
            timeout: folder.timeout,
            transfer_timeout: folder.transfer_timeout,
        }))
    }

    /// An SFTP server has an address, pinned host keys and a login.
    fn sftp(&mut self, name: &str, instance: &Instance) {
        let plan::SystemPlan::Files(files) = &instance.adapter.system else { return };
        let plan::Files::Sftp(sftp) = instance.files(files) else { return };
        let at: &[&str] = &["adapters", name, "settings"];
        if let Some(Err(what)) = instance.render(&sftp.address).ok().map(|text| host_keys::host(&text)) {
            self.error(Code::BadAddress, at, what, "for example `files.example.gov.uk:22`");
        }
        if let Some(Err(what)) =
            instance.render(&sftp.host_keys).ok().map(|text| host_keys::fingerprints(&text))
        {
            let help = "ask those who run the server what `ssh-keygen -lf` prints there for its host key";
            self.error(Code::BadFingerprint, at, what, help);
        }
        if ![&sftp.key, &sftp.password].into_iter().flatten().any(|name| instance.secrets.contains_key(name))
        {
            let what = "nothing says how we log in: neither the key nor the password is given".to_owned();
            self.error(Code::MissingSetting, at, what, "give one of them, as a reference to a secret");
        }
    }

    /// The pace of a route that polls or asks: the bridge's own, or the adapter's.
    fn pace(&mut self, name: &str, plan: &plan::Collect, over: Option<&RouteUse>) -> Vec<Duration> {
        let at = |key| ["adapters", name, "routes", plan.name.as_str(), key];
        let (every, waits) = over.map_or((None, None), |over| {
            (over.every.as_ref(), over.waits.as_deref().filter(|own| !own.is_empty()))
        });
        let (own, misplaced) = match &plan.source {
            plan::Source::Poll(poll) => {
                let own = every.map(|_| vec![self.duration(&every.cloned(), "1m", &at("every"))]);
                (own.unwrap_or_else(|| vec![poll.every]), waits.map(|_| "waits"))
            }
            plan::Source::Query(query) => {
                let own = every.map(|_| vec![self.duration(&every.cloned(), "1m", &at("every"))]);
                (own.unwrap_or_else(|| vec![query.every]), waits.map(|_| "waits"))
            }
            plan::Source::Ask(ask) => {
                let own = waits.map(|waits| {
                    waits.iter().map(|wait| self.duration(&Some(wait.clone()), "1m", &at("waits"))).collect()
                });
                (own.unwrap_or_else(|| ask.waits.clone()), every.map(|_| "every"))
            }
            plan::Source::Pickup(pickup) => {
                let own = every.map(|_| vec![self.duration(&every.cloned(), "1m", &at("every"))]);
                (own.unwrap_or_else(|| vec![pickup.every]), waits.map(|_| "waits"))
            }
            plan::Source::Receive(_) | plan::Source::Consume(_) => {
                (Vec::new(), every.map(|_| "every").or(waits.map(|_| "waits")))
            }
        };
        if let Some(key) = misplaced {
            let what = "`every` is for routes that poll, query or pick up, `waits` for routes that ask";
            self.error(Code::ExclusiveKeys, &at(key), what, "");
        }
        own
    }

    fn settings(
        &mut self,
        name: &str,
        keys: &AdapterUse,
        adapter: &plan::Adapter,
    ) -> (Texts, BTreeMap<String, SecretRef>) {
        let (mut settings, mut secrets) = (Texts::new(), BTreeMap::new());
        for (setting, value) in &keys.settings {
            let at = ["adapters", name, "settings", setting.as_str()];
            let text = match value {
                toml::Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            match adapter.settings.get(setting) {
                None => {
                    let known: Vec<&str> = adapter.settings.keys().map(String::as_str).collect();
                    let what = format!("the adapter `{}` has no setting `{setting}`", adapter.name);
                    self.problems.push(
                        Problem::error(Code::UnknownSetting, &at, what).on_key().did_you_mean(setting, known),
                    );
                }
                Some(keys) if keys.secret => {
                    if let Some(secret) = self.secret(&text, &at) {
                        secrets.insert(setting.clone(), secret);
                    }
                }
                Some(_) => {
                    settings.insert(setting.clone(), text);
                }
            }
        }
        for (setting, about) in &adapter.settings {
            if keys.settings.contains_key(setting) {
                continue;
            }
            match &about.default {
                Some(default) if !about.secret => {
                    settings.insert(setting.clone(), default.clone());
                }
                _ if about.optional => {
                    if !about.secret {
                        settings.insert(setting.clone(), String::new());
                    }
                }
                _ => {
                    let what = format!("the adapter `{}` needs the setting `{setting}`", adapter.name);
                    let at: &[&str] = if keys.settings.is_empty() {
                        &["adapters", name]
                    } else {
                        &["adapters", name, "settings"]
                    };
                    self.problems.push(
                        Problem::error(Code::MissingSetting, at, what)
                            .on_key()
                            .label(format!("`{setting}` is missing"))
                            .help(about.about.clone()),
                    );
                }
            }
        }
        (settings, secrets)
    }

    /// No two routes are called at the same path.
    fn paths(&mut self, config: &Config) {
        let mut seen: HashMap<String, String> = HashMap::new();
        for route in &config.collect {
            let plan::Source::Receive(receive) = &route.plan.source else { continue };
            let path = receive_path(route, receive);
            if let Some(other) = seen.insert(format!("{} {path}", receive.method), route.id.clone()) {
                let what = format!("{other} and {} are both called at {path}", route.id);
                self.problems
                    .push(Problem::error(Code::RowTwice, &["adapters", &route.instance.name], what).on_key());
            }
        }
    }
}

/// The host of an address that is another machine's and is spoken to unencrypted.
fn elsewhere_unencrypted(address: &str) -> Option<&str> {
    let (scheme, rest) = address.trim_start().split_once("://")?;
    if !scheme.eq_ignore_ascii_case("http") {
        return None;
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = match authority.strip_prefix('[') {
        Some(six) => six.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    let local = host.eq_ignore_ascii_case("localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    (!local).then_some(host)
}

/// The path at which a route is called.
pub fn receive_path(route: &CollectRoute, receive: &plan::Receive) -> String {
    match &receive.path {
        Some(path) => path.clone(),
        None => format!("/{}/{}", route.instance.name, route.plan.name),
    }
}

/// What the rules of a route leave open.
fn opened_by(rules: &[plan::Emit]) -> impl Iterator<Item = &plan::Opens> {
    rules.iter().filter_map(|rule| rule.opens.as_ref())
}
