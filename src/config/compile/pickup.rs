//! Compiling what an adapter says of files that are picked up.

use super::*;

impl Compiler<'_> {
    pub(super) fn pickup(&mut self, keys: &PickupKeys, at: At<'_>) -> Option<Source> {
        let own = under(at, &["pickup"]);
        let mut folder = |text: &Option<String>, default: &str, key: &str| {
            let text = text.clone().unwrap_or_else(|| default.to_owned());
            self.template(&text, Escape::None, &under(&own, &[key]))
        };
        let (base, failed) = (folder(&keys.folder, "", "folder"), folder(&keys.failed, "failed", "failed"));
        let then = match keys.then {
            Then::Archive => folder(&keys.archive, "done", "archive").map(PickupThen::Archive),
            Then::Leave => Some(PickupThen::Leave),
            Then::Delete => Some(PickupThen::Delete),
        };
        if keys.archive.is_some() && keys.then != Then::Archive {
            let what = "`archive` is for files that are archived, and `then` says otherwise";
            self.problem(Problem::under(Code::ExclusiveKeys, &own, "archive", what).on_key());
        }
        let complete = match (&keys.complete, &keys.done) {
            (still, None) => Complete::Still(self.duration(still, "10s", &under(&own, &["complete"]))),
            (None, Some(marker)) => {
                if !marker.contains("{name}") || marker == "{name}" {
                    let what = "a marker's name holds the file's own, `{name}`, and something else";
                    self.problem(Problem::under(Code::WrongType, &own, "done", what));
                }
                Complete::Marker(marker.clone())
            }
            (Some(_), Some(_)) => {
                let what = "`complete` and `done` exclude each other: a file is complete in one way";
                self.problem(Problem::under(Code::ExclusiveKeys, &own, "done", what).on_key());
                return None;
            }
        };
        let pattern = self.template(&keys.pattern, Escape::None, &under(&own, &["pattern"]));
        let sequence = keys.sequence.as_deref().and_then(|text| match text {
            "name" => Some(Sequence::Name),
            path => self.path(path, &under(&own, &["sequence"])).map(Sequence::At),
        });
        Some(Source::Pickup(Pickup {
            folder: base?,
            pattern: pattern?,
            ignore_case: keys.ignore_case,
            every: self.duration(&keys.every, "1m", &under(&own, &["every"])),
            complete,
            sequence,
            then: then?,
            failed: failed?,
            limit: self.size(&keys.limit, 1 << 30, &under(&own, &["limit"])),
        }))
    }
    pub(super) fn compare(&mut self, keys: &CompareKeys, route: &CollectKeys, at: At<'_>) -> Compare {
        let own = under(at, &["compare"]);
        if route.key.is_some() {
            let what = "`key` and `compare` exclude each other: a compared record is known by `compare.key`";
            self.problem(Problem::under(Code::ExclusiveKeys, at, "key", what).on_key());
        }
        let mut paths = |texts: &[String], key: &str| -> Vec<Path> {
            let mut found = Vec::new();
            for (index, text) in texts.iter().enumerate() {
                found.extend(self.path(text, &under(&own, &[key, &index.to_string()])));
            }
            found
        };
        let (key, ignore) = (paths(&keys.key, "key"), paths(&keys.ignore, "ignore"));
        if keys.key.is_empty() {
            let what = "without a key no two rows can be compared";
            self.problem(Problem::under(Code::MissingKey, &own, "key", what));
        }
        let mut share =
            |text: &Option<String>, default: u32, key: &str| match text.as_deref().map(units::share) {
                None => default,
                Some(Some(share)) => share,
                Some(None) => {
                    let problem = Problem::under(Code::BadDuration, &own, key, "this is not a share")
                        .help("for example `20%`");
                    self.problem(problem);
                    default
                }
            };
        let (most_removed, most_changed) = (
            share(&keys.most_removed, 2_000, "most_removed"),
            share(&keys.most_changed, 6_000, "most_changed"),
        );
        Compare { key, ignore, most_removed, most_changed, first_is_news: keys.first_is_news }
    }
    /// What rules say of changes fits what the route does.
    pub(super) fn changes(&mut self, keys: &CollectKeys, at: At<'_>) {
        if keys.compare.is_some() && keys.pickup.is_none() && keys.query.is_none() {
            let what = "only files that are picked up and queries are compared";
            self.problem(Problem::under(Code::ExclusiveKeys, at, "compare", what).on_key());
        }
        for (index, rule) in keys.events.iter().enumerate() {
            if !rule.change.is_empty() && keys.compare.is_none() {
                let at = under(at, &["events", &index.to_string()]);
                let what = "a record has changed only where extracts are compared (`compare`)";
                self.problem(Problem::under(Code::ExclusiveKeys, &at, "change", what).on_key());
            }
        }
        if keys.compare.is_some() {
            for change in [Change::Created, Change::Changed, Change::Removed] {
                let known =
                    keys.events.iter().any(|rule| rule.change.is_empty() || rule.change.contains(&change));
                if !known {
                    let what = format!("no rule says what becomes of a record that is {}", change.as_str());
                    let help = format!(
                        "a rule with change = [\"{0}\"] and a mapping, or with `ignore` and why",
                        change.as_str()
                    );
                    self.problem(Problem::under(Code::MissingKey, at, "events", what).help(help));
                }
            }
        }
    }
}
