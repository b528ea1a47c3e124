//! Compiling what requests and answers have in common: requests, rules for answers, what is made of them.

use super::*;

impl Compiler<'_> {
    pub(super) fn document_conditions(&mut self, keys: &[ConditionKeys], at: At<'_>) -> Vec<Condition> {
        let mut found = Vec::new();
        for (index, keys) in keys.iter().enumerate() {
            let at = under(at, &[&index.to_string()]);
            match Condition::compile(keys, Some(&self.namespaces), &at) {
                Ok(condition) if condition.on == Direction::ToEvent => found.push(condition),
                Ok(_) => self.problem(
                    Problem::under(Code::ExclusiveKeys, &at, "event", "a condition here is on the document")
                        .on_key(),
                ),
                Err(problem) => self.problem(problem),
            }
        }
        found
    }
    pub(super) fn path(&mut self, text: &str, at: At<'_>) -> Option<Path> {
        match Path::in_document(text, Some(&self.namespaces)) {
            Ok(path) => Some(path),
            Err(bad) => {
                let (key, before) =
                    at.split_last().map(|(key, before)| (key.as_str(), before)).unwrap_or(("", at));
                self.problem(bad_path(bad, before, key, text));
                None
            }
        }
    }
    pub(super) fn request(&mut self, keys: &RequestKeys, at: At<'_>) -> Option<Request> {
        const METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];
        if !METHODS.contains(&keys.method.as_str()) {
            let problem =
                Problem::under(Code::UnknownName, at, "method", format!("`{}` is not a method", keys.method))
                    .did_you_mean(&keys.method, METHODS);
            self.problem(problem);
        }
        if self.kind() != SystemPlanKind::Http {
            let what = format!("a request goes over HTTP, and this system is {}", self.kind().in_words());
            self.problem(Problem::under(Code::ExclusiveKeys, at, "", what).on_key());
        }
        let path = self.template(&keys.path, Escape::Url, &under(at, &["path"]));
        let query = self.templates(&keys.query, Escape::None, &under(at, &["query"]));
        let headers = self.templates(&keys.headers, Escape::None, &under(at, &["headers"]));
        let mapping = keys
            .mapping
            .as_ref()
            .and_then(|name| self.mapping(name, Direction::ToDocument, &under(at, &["mapping"])));
        if let Some(rate) = &keys.rate
            && !self.file.rates.contains_key(rate)
        {
            let known: Vec<&str> = self.file.rates.keys().map(String::as_str).collect();
            let problem = Problem::under(Code::UnknownName, at, "rate", format!("there is no rate `{rate}`"))
                .did_you_mean(rate, known);
            self.problem(problem);
        }
        Some(Request {
            method: keys.method.clone(),
            path: path?,
            query,
            headers,
            mapping,
            rate: keys.rate.clone(),
        })
    }
    pub(super) fn kind(&self) -> SystemPlanKind {
        let file = self.file;
        match (file.amqp.is_some(), file.folder.is_some() || file.sftp.is_some(), file.sql.is_some()) {
            (true, ..) => SystemPlanKind::Amqp,
            (_, true, _) => SystemPlanKind::Files,
            (.., true) => SystemPlanKind::Sql,
            _ => SystemPlanKind::Http,
        }
    }
    pub(super) fn rules(&mut self, keys: &[AnswerKeys], at: At<'_>) -> Vec<Rule> {
        let mut rules = Vec::new();
        for (index, keys) in keys.iter().enumerate() {
            let at = under(at, &[&index.to_string()]);
            let mut statuses = Vec::new();
            for (index, text) in keys.status.iter().enumerate() {
                match status(text) {
                    Some(range) => statuses.push(range),
                    None => self.problem(
                        Problem::under(
                            Code::WrongType,
                            &under(&at, &["status"]),
                            &index.to_string(),
                            "this is not an HTTP status",
                        )
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
            if let Some(earlier) = rules.iter().take(index).position(|earlier| takes_all_of(earlier, rule)) {
                let label = format!("rule {} fits every answer that this one is for", earlier + 1);
                self.problem(
                    Problem::under(
                        Code::UnreachableAnswer,
                        at,
                        &index.to_string(),
                        "this rule is never reached",
                    )
                    .label(label),
                );
            }
        }
        rules
    }
    pub(super) fn answer_condition(
        &mut self,
        keys: &AnswerConditionKeys,
        at: At<'_>,
    ) -> Option<AnswerCondition> {
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
    pub(super) fn emits(&mut self, keys: &[EmitKeys], at: At<'_>, ask: bool) -> Vec<Emit> {
        let mut emits = Vec::new();
        for (index, keys) in keys.iter().enumerate() {
            let at = under(at, &[&index.to_string()]);
            let when = self.document_conditions(&keys.when, &under(&at, &["when"]));
            let given = [keys.mapping.is_some(), keys.ignore.is_some(), keys.wait, keys.dead.is_some()];
            let action = match keys {
                _ if given.iter().filter(|given| **given).count() != 1 => {
                    let what = "a rule does exactly one thing: `mapping`, `ignore`, `wait` or `dead`";
                    self.problem(
                        Problem::under(Code::ExclusiveKeys, &at, "", what).label("exactly one of the four"),
                    );
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
            let each_when = self.document_conditions(&keys.each_when, &under(&at, &["each_when"]));
            if !keys.each_when.is_empty() && keys.each.is_none() {
                let what = "`each_when` chooses among the parts that `each` names";
                self.problem(Problem::under(Code::ExclusiveKeys, &at, "each_when", what).on_key());
            }
            let unless_open = keys.unless_open.as_ref().and_then(|keys| {
                let at = under(&at, &["unless_open"]);
                self.asks(&keys.route, &at);
                let key = self.template(&keys.key, Escape::None, &under(&at, &["key"]))?;
                Some((keys.route.clone(), key))
            });
            let change = keys.change.clone();
            let about = keys.about.as_ref().and_then(|about| self.about(about, &under(&at, &["about"])));
            emits.push(Emit {
                when,
                change,
                action,
                each,
                each_when,
                unless_open,
                opens,
                about,
                also: keys.also,
            });
        }
        emits
    }
    /// The adapter must have a route of this name that asks.
    fn asks(&mut self, route_name: &str, at: At<'_>) {
        if self.file.collect.get(route_name).is_none_or(|route| route.ask.is_none()) {
            let known: Vec<&str> = self
                .file
                .collect
                .iter()
                .filter(|(_, route)| route.ask.is_some())
                .map(|(name, _)| name.as_str())
                .collect();
            let what = format!("the adapter has no `collect` route `{}` that asks", route_name);
            let problem =
                Problem::under(Code::UnknownName, at, "route", what).did_you_mean(route_name, known);
            self.problem(problem);
        }
    }
    pub(super) fn opens(&mut self, keys: &OpensKeys, at: At<'_>) -> Option<Opens> {
        self.asks(&keys.route, at);
        let one_per = keys
            .one_per
            .as_ref()
            .and_then(|text| self.template(text, Escape::None, &under(at, &["one_per"])));
        let keep = self.templates(&keys.keep, Escape::None, &under(at, &["keep"]));
        let key = self.template(&keys.key, Escape::None, &under(at, &["key"]))?;
        for (index, event) in keys.not_after.iter().enumerate() {
            self.schema(event, &under(at, &["not_after", &index.to_string()]));
        }
        let (route, not_after) = (keys.route.clone(), keys.not_after.clone());
        Some(Opens { route, key, one_per, not_after, keep, keep_event: keys.keep_event })
    }
    pub(super) fn publish(&mut self, keys: &PublishKeys, at: At<'_>) -> Option<Publish> {
        if self.kind() != SystemPlanKind::Amqp {
            let what =
                format!("a message is published to a broker, and this system is {}", self.kind().in_words());
            self.problem(Problem::under(Code::ExclusiveKeys, at, "", what).on_key());
        }
        let exchange = self.template(&keys.exchange, Escape::None, &under(at, &["exchange"]));
        let routing_key = self.template(&keys.routing_key, Escape::None, &under(at, &["routing_key"]));
        let headers = self.templates(&keys.headers, Escape::None, &under(at, &["headers"]));
        Some(Publish { exchange: exchange?, routing_key: routing_key?, headers })
    }
    pub(super) fn before(&mut self, keys: &BeforeKeys, at: At<'_>) -> Option<Before> {
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
    pub(super) fn probe(
        &mut self,
        keys: &ProbeKeys,
        at: At<'_>,
        mapping: Option<&Arc<Mapping>>,
    ) -> Option<Probe> {
        let settle = self.duration(&keys.settle, "0s", &under(at, &["settle"]));
        let patience = self.duration(&keys.patience, "1h", &under(at, &["patience"]));
        let question = match (&keys.request, &keys.statement) {
            (Some(request), None) => self.request_question(request, keys, at)?,
            (None, Some(file)) => self.query_question(file, keys, at, mapping)?,
            (None, None) | (Some(_), Some(_)) => {
                let what = "a probe asks exactly one thing: a `request` (HTTP) or a `statement` (SQL)";
                self.problem(Problem::under(Code::ExclusiveKeys, at, "", what).on_key());
                return None;
            }
        };
        Some(Probe { question, settle, patience })
    }
    fn request_question(&mut self, request: &RequestKeys, keys: &ProbeKeys, at: At<'_>) -> Option<Question> {
        let request = self.request(request, &under(at, &["request"]))?;
        let answers = self.rules(&keys.answers, &under(at, &["answers"]));
        let says = |meaning| answers.iter().any(|rule| rule.then == meaning);
        if !says(Meaning::Delivered) || !says(Meaning::Absent) {
            let what = "a probe tells which answer means `delivered` and which means `absent`";
            self.problem(Problem::under(Code::NoProbe, at, "answers", what));
        }
        let Some(format) = keys.format else {
            let what = "what the request asks is read from its answer: say the `format`";
            self.problem(Problem::under(Code::MissingKey, at, "", what).on_key());
            return None;
        };
        Some(Question::Request { request, answers, format })
    }
}

/// Whether an earlier rule fits every answer that a later one fits: it looks at nothing but the status, and its statuses
/// hold all of the later one's. A rule with `any` looks for an entry, which may not be there.
fn takes_all_of(earlier: &Rule, later: &Rule) -> bool {
    let only_status = earlier.conditions.is_empty()
        && earlier.any.is_none()
        && earlier.body.is_none()
        && earlier.fault.is_none();
    let within = |(from, to): &(u16, u16)| earlier.statuses.iter().any(|(a, b)| a <= from && to <= b);
    only_status
        && (earlier.statuses.is_empty() || !later.statuses.is_empty() && later.statuses.iter().all(within))
}
