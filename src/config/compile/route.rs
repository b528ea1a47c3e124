//! Compiling routes, to the system and from it.

use super::*;

impl Compiler<'_> {
    /// Conditions on events of a type.
    pub(super) fn select(
        &mut self,
        keys: &[ConditionKeys],
        schema: &EventSchema,
        at: At<'_>,
    ) -> Vec<Condition> {
        let (conditions, problems) = select(keys, schema, at);
        self.problems.extend(problems);
        conditions
    }
    pub(super) fn retry(&mut self, keys: &RetryKeys, at: At<'_>) -> RetryPolicy {
        let waits = match &keys.waits {
            None => TIERS.iter().map(|(_, delay)| *delay).collect(),
            Some(texts) => {
                let mut waits = Vec::new();
                for (index, text) in texts.iter().enumerate() {
                    match TIERS.iter().find(|(name, _)| name == text) {
                        Some((_, delay)) => waits.push(*delay),
                        None => {
                            let what = format!("there is no retry tier of `{text}`");
                            let problem = Problem::under(
                                Code::UnknownName,
                                &under(at, &["waits"]),
                                &index.to_string(),
                                what,
                            )
                            .did_you_mean(text, TIERS.iter().map(|(name, _)| *name));
                            self.problem(problem);
                        }
                    }
                }
                waits
            }
        };
        if waits.is_empty() {
            self.problem(Problem::under(
                Code::WrongType,
                at,
                "waits",
                "a route waits at least once before it gives up",
            ));
        }
        RetryPolicy {
            at_once: keys.at_once.unwrap_or(2),
            waits,
            give_up: self.duration(&keys.give_up, "3d", &under(at, &["give_up"])),
        }
    }
    pub(super) fn waits(&mut self, texts: &[String], at: At<'_>) -> Vec<Duration> {
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
    pub(super) fn deliver(&mut self, name: &str, keys: &DeliverKeys) -> Option<Deliver> {
        let at = ["deliver".to_owned(), name.to_owned()];
        self.route_name(name, &at);
        let event = self.schema(&keys.event, &under(&at, &["event"]));
        let select = event.as_ref().map(|schema| self.select(&keys.select, schema, &under(&at, &["select"])));
        let mapping = keys
            .mapping
            .as_ref()
            .and_then(|name| self.mapping(name, Direction::ToDocument, &under(&at, &["mapping"])));
        if let Some(mapping) = &mapping
            && mapping.schema.event_type != keys.event
        {
            let what =
                format!("the mapping is for {}, the route takes {}", mapping.schema.event_type, keys.event);
            self.problem(Problem::under(Code::WrongMapping, &at, "mapping", what));
        }
        let each = keys.each.as_ref().and_then(|text| match Path::in_event(text) {
            Ok(path) if path.is_repeated() && path.steps().len() == 1 => Some(path),
            Ok(_) => {
                self.problem(Problem::under(
                    Code::BadPath,
                    &at,
                    "each",
                    "`each` names a list of the event: `lines[]`",
                ));
                None
            }
            Err(bad) => {
                self.problem(bad_path(bad, &at, "each", text));
                None
            }
        });
        // What is wrong with it does not keep the rest of the route from being looked at.
        let given = [
            keys.request.is_some(),
            keys.publish.is_some(),
            keys.statement.is_some(),
            keys.batch.is_some(),
            keys.write.is_some(),
        ];
        let action = match keys {
            _ if given.iter().filter(|given| **given).count() != 1 => {
                let what = "a deliver route sends exactly one of `request` (HTTP), `publish` (AMQP), `statement` (SQL), `batch` and `write` (files)";
                self.problem(Problem::under(Code::ExclusiveKeys, &at, "", what).on_key());
                None
            }
            DeliverKeys { request: Some(request), .. } => {
                self.request(request, &under(&at, &["request"])).map(Action::Request)
            }
            DeliverKeys { publish: Some(publish), .. } => {
                self.publish(publish, &under(&at, &["publish"])).map(Action::Publish)
            }
            DeliverKeys { statement: Some(statement), .. } => {
                self.write(statement, keys, mapping.as_ref(), &at).map(Action::Statement)
            }
            DeliverKeys { batch: Some(join), .. } => {
                self.join(join, &under(&at, &["batch"])).map(|join| Action::Batch(Box::new(join)))
            }
            DeliverKeys { write: Some(write), .. } => {
                self.write_file(write, &under(&at, &["write"])).map(Action::Write)
            }
            _ => None,
        };
        let before = keys.before.as_ref().and_then(|before| self.before(before, &under(&at, &["before"])));
        let answers = self.rules(&keys.answers, &under(&at, &["answers"]));
        let reply = self.emits(&keys.reply, &under(&at, &["reply"]), false);
        // What is sent leaves something open whatever the answer says: a rule for the answer cannot.
        for (index, rule) in keys.reply.iter().enumerate() {
            for (key, given) in [("opens", rule.opens.is_some()), ("unless_open", rule.unless_open.is_some())]
            {
                if given {
                    let what = format!(
                        "`{key}` is for rules of `collect` routes; what a delivery leaves open stands in `opens` of the route itself"
                    );
                    let at = under(&at, &["reply", &index.to_string()]);
                    self.problem(Problem::under(Code::ExclusiveKeys, &at, key, what).on_key());
                }
            }
        }
        let opens = keys.opens.as_ref().and_then(|opens| self.opens(opens, &under(&at, &["opens"])));
        // A statement answers with its rows, as JSON.
        let answer_format = keys.answer_format.or(keys.statement.as_ref().map(|_| Format::Json));
        if answer_format.is_none()
            && (!reply.is_empty()
                || opens.is_some()
                || answers.iter().any(|rule| !rule.conditions.is_empty() || rule.fault.is_some()))
        {
            let what = "rules, replies or opened items look into the answer: say its `answer_format`";
            self.problem(
                Problem::under(Code::MissingKey, &at, "", what).on_key().label("`answer_format` is missing"),
            );
        }
        let probe = keys
            .probe
            .as_ref()
            .and_then(|probe| self.probe(probe, &under(&at, &["probe"]), mapping.as_ref()));
        let repeat = self.repeat(keys, &at, &answers, probe.is_some());
        let retry = self.retry(&keys.retry, &under(&at, &["retry"]));
        let amqp = keys.publish.is_some();
        let files = keys.batch.is_some() || keys.write.is_some();
        let only_removes = keys.batch.as_ref().is_some_and(|join| join.removes.as_deref() == Some("true"));
        if files && keys.mapping.is_none() && !only_removes {
            let what = "what is written to a file is made by a mapping";
            self.problem(Problem::under(Code::MissingKey, &at, "mapping", what));
        }
        if amqp || files {
            // Nothing answers there: what looks into an answer, or asks, has nothing to look into.
            let given = [
                ("each", keys.each.is_some()),
                ("before", keys.before.is_some()),
                ("answers", !keys.answers.is_empty()),
                ("reply", !keys.reply.is_empty()),
                ("opens", keys.opens.is_some()),
                ("probe", keys.probe.is_some()),
            ];
            for (key, _) in given.iter().filter(|(_, given)| *given) {
                let what = format!(
                    "`{key}` is for routes that send a `request`; a broker or a file gives no answer"
                );
                self.problem(Problem::under(Code::ExclusiveKeys, &at, key, what).on_key());
            }
        }
        let order = self.order(keys, event.as_deref(), &at);
        // A wave of an ordered route takes one message of each subject: it must see some.
        let many = amqp || keys.batch.is_some() || order.is_some();
        Some(Deliver {
            name: name.to_owned(),
            about: keys.about.clone(),
            order,
            event: event?,
            select: select.unwrap_or_default(),
            hours: self.hours(keys.hours.as_ref(), &at),
            each,
            mapping,
            makes: keys.makes,
            repeat,
            action: action?,
            before,
            answers,
            answer_format,
            reply,
            opens,
            probe,
            retry,
            concurrency: keys.concurrency.unwrap_or(if amqp { 4 } else { 1 }).max(1),
            window: keys.window.unwrap_or(if many { 256 } else { 1 }).clamp(1, 4096),
            accept: Accept {
                bare_headers: keys.accept.contains(&AcceptForm::BareHeaders),
                untyped_json: keys.accept.contains(&AcceptForm::UntypedJson),
            },
        })
    }
    /// How messages keep their order, which their events must give a subject.
    fn order(&mut self, keys: &DeliverKeys, event: Option<&EventSchema>, at: At<'_>) -> Option<Ordered> {
        let held = keys.held.clone().unwrap_or_default();
        let Some(Order::Subject) = keys.order else {
            if keys.held.is_some() {
                let what = "nothing is held on a route that keeps no order: say `order = \"subject\"` too";
                self.problem(Problem::under(Code::MissingKey, at, "held", what).on_key());
            }
            return None;
        };
        if let Some(schema) = event.filter(|schema| schema.subject.is_empty()) {
            let what = format!(
                "the messages of one subject are to keep their order, and {} has none",
                schema.event_type
            );
            self.problem(
                Problem::under(Code::NoSubject, at, "order", what)
                    .help("name the field that says what an event is about in its schema: `\"x-subject\": [\"case_id\"]`"),
            );
        }
        let most_bytes = match held.most_bytes.as_deref().map(|text| (text, crate::config::units::size(text)))
        {
            None => 256 << 20,
            Some((_, Some(bytes))) => bytes,
            Some((text, None)) => {
                let what = format!("`{text}` is not a size: `256 MiB`");
                self.problem(Problem::under(Code::BadDuration, &under(at, &["held"]), "most_bytes", what));
                return None;
            }
        };
        let most = u64::from(held.most.unwrap_or(10_000));
        Some(Ordered { most, most_bytes, holds: held.when_dead == WhenDead::Wait })
    }
    pub(super) fn route_name(&mut self, name: &str, at: At<'_>) {
        if !is_name(name) {
            let what = "a route's name has small letters, digits and hyphens only: it becomes part of a queue's name";
            self.problem(Problem::under(Code::WrongType, at, "", what).on_key());
        }
    }
    /// What makes a repeat safe must be said wherever something is made, and must have what it needs.
    pub(super) fn repeat(&mut self, keys: &DeliverKeys, at: At<'_>, answers: &[Rule], probe: bool) -> Repeat {
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
                self.problem(
                    Problem::under(Code::NoProbe, at, "repeat", what)
                        .help("add `[deliver.<route>.probe]`, or say `never`"),
                );
            }
            Repeat::Guard => {
                if !answers.iter().any(|rule| rule.then == Meaning::Guarded) {
                    let what =
                        "the system's lock refuses a second try, but no rule says which answer that is";
                    self.problem(
                        Problem::under(Code::GuardIncomplete, at, "repeat", what)
                            .help("add a rule with `then = \"guarded\"` to `answers`"),
                    );
                }
                if keys.before.is_none() {
                    let what =
                        "a lock guards only what was read before the first try: the route has no `before`";
                    self.problem(Problem::under(Code::GuardIncomplete, at, "repeat", what));
                }
            }
            Repeat::Key | Repeat::Probe | Repeat::Harmless | Repeat::Never => {}
        }
        repeat
    }
    pub(super) fn collect(&mut self, name: &str, keys: &CollectKeys) -> Option<Collect> {
        let at = ["collect".to_owned(), name.to_owned()];
        self.route_name(name, &at);
        let given = [
            keys.receive.is_some(),
            keys.poll.is_some(),
            keys.ask.is_some(),
            keys.consume.is_some(),
            keys.pickup.is_some(),
            keys.query.is_some(),
        ];
        if given.iter().filter(|given| **given).count() != 1 {
            let what = "a collect route says exactly once how documents come: `receive`, `poll`, `ask`, `consume`, `pickup` or `query`";
            self.problem(Problem::under(Code::ExclusiveKeys, &at, "", what).on_key());
            return None;
        }
        let source = match keys {
            CollectKeys { receive: Some(receive), .. } => self.receive(receive, &under(&at, &["receive"])),
            CollectKeys { poll: Some(poll), .. } => self.poll(poll, &under(&at, &["poll"])),
            CollectKeys { ask: Some(ask), .. } => self.ask(ask, &under(&at, &["ask"])),
            CollectKeys { consume: Some(consume), .. } => self.consume(consume, &under(&at, &["consume"])),
            CollectKeys { pickup: Some(pickup), .. } => self.pickup(pickup, &at),
            CollectKeys { query: Some(query), .. } => self.query(query, keys, &at),
            _ => None,
        };
        let key = keys.key.as_ref().and_then(|text| self.template(text, Escape::None, &under(&at, &["key"])));
        let compare = keys.compare.as_ref().map(|compare| self.compare(compare, keys, &at));
        let mut fetch = Vec::new();
        for (index, fetch_keys) in keys.fetch.iter().enumerate() {
            let at = under(&at, &["fetch", &index.to_string()]);
            let when = self.document_conditions(&fetch_keys.when, &under(&at, &["when"]));
            let answers = self.rules(&fetch_keys.answers, &under(&at, &["answers"]));
            if let Some(request) = self.request(&fetch_keys.request, &under(&at, &["request"])) {
                fetch.push(Fetch {
                    when,
                    request,
                    answers,
                    format: fetch_keys.format.unwrap_or(keys.format),
                });
            }
        }
        let events = self.emits(&keys.events, &under(&at, &["events"]), keys.ask.is_some());
        self.changes(keys, &at);
        let passes_on = keys.consume.as_ref().is_some_and(|consume| consume.events);
        if events.is_empty() && keys.events.is_empty() && !passes_on {
            let what = "nothing says what becomes of what is collected";
            self.problem(Problem::under(Code::MissingKey, &at, "events", what));
        }
        let retry = self.retry(&keys.retry, &under(&at, &["retry"]));
        let layout = self.layout(keys.layout.as_ref(), keys.format, &at);
        let hours = self.hours(keys.hours.as_ref(), &at);
        Some(Collect {
            name: name.to_owned(),
            about: keys.about.clone(),
            source: source?,
            hours,
            format: keys.format,
            layout,
            key,
            compare,
            fetch,
            events,
            already_posted: keys.already_posted,
            retry,
            concurrency: keys.concurrency.unwrap_or(4).max(1),
            namespaces: self.namespaces.clone(),
        })
    }
    pub(super) fn receive(&mut self, keys: &ReceiveKeys, at: At<'_>) -> Option<Source> {
        if let Some(name) = &keys.verify
            && !self.file.verify.contains_key(name)
        {
            let known: Vec<&str> = self.file.verify.keys().map(String::as_str).collect();
            let problem =
                Problem::under(Code::UnknownName, at, "verify", format!("there is no `[verify.{name}]`"))
                    .did_you_mean(name, known);
            self.problem(problem);
        }
        let login = keys.login.as_ref().and_then(|login| self.login(login, &under(at, &["login"])));
        if let Some(Login { how: LoginKind::Oauth2 { .. }, .. }) = &login {
            let what = "a receiver checks `basic`, `bearer` or `header`; it gives out no tokens";
            self.problem(Problem::under(Code::ExclusiveKeys, at, "login", what));
        }
        if keys.verify.is_none() && keys.login.is_none() {
            let what = "anybody could call this route: it checks neither a signature nor a login";
            self.problem(
                Problem::under(Code::NotAuthenticated, at, "", what).on_key().help("add `verify` or `login`"),
            );
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
    pub(super) fn poll(&mut self, keys: &PollKeys, at: At<'_>) -> Option<Source> {
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
    pub(super) fn ask(&mut self, keys: &AskKeys, at: At<'_>) -> Option<Source> {
        let waits = self.waits(&keys.waits, &under(at, &["waits"]));
        let give_up = self.duration(&Some(keys.give_up.clone()), "1d", &under(at, &["give_up"]));
        let answers = self.rules(&keys.answers, &under(at, &["answers"]));
        let request = self.request(&keys.request, &under(at, &["request"]))?;
        Some(Source::Ask(Ask { waits, give_up, request, answers }))
    }
    pub(super) fn consume(&mut self, keys: &ConsumeKeys, at: At<'_>) -> Option<Source> {
        if self.kind() != SystemPlanKind::Amqp {
            let what =
                format!("a queue is consumed from a broker, and this system is {}", self.kind().in_words());
            self.problem(Problem::under(Code::ExclusiveKeys, at, "", what).on_key());
        }
        let queue = self.template(&keys.queue, Escape::None, &under(at, &["queue"]))?;
        Some(Source::Consume(Consume { queue, events: keys.events }))
    }
}
