//! Compiling values and checking what a mapping promises: conversions that fit, fields that are filled, codes that are
//! covered, rows that say their direction.

use super::*;
use crate::mapping::codes::Found;

impl Compiler<'_> {
    /// Two rows without conditions that fill the same field in the same direction.
    /// Two rows that fill the same place whatever is mapped: which of them counts would be chance.
    pub(super) fn twice(&mut self, earlier: &[Row], row: &Row, at: &[String]) {
        let group = matches!(row.body, Body::Group(_) | Body::Packed { .. });
        for (key, direction) in [("event", Direction::ToEvent), ("document", Direction::ToDocument)] {
            let place = |row: &Row| match direction {
                Direction::ToEvent => row.event.as_ref().and_then(EventPlace::path).cloned(),
                Direction::ToDocument => row.document.clone(),
            };
            let Some(path) = place(row).filter(|path| !(path.is_repeated() && group)) else { continue };
            let fills = |row: &Row| row.when.is_empty() && row.goes(direction);
            let same = earlier.iter().find(|other| fills(other) && place(other).as_ref() == Some(&path));
            if let Some(other) =
                same.filter(|_| fills(row) && self.file.only.is_none_or(|only| only == direction))
            {
                let what = format!("`{path}` is filled twice");
                let problem = Problem::under(Code::RowTwice, at, key, what)
                    .label(format!("line {} fills it already", other.line))
                    .help("give each row a condition, or let one of them go in one direction only");
                self.problem(problem);
            }
        }
    }
    pub(super) fn value(
        &mut self,
        keys: &RowKeys,
        at: &[String],
        event: Option<&EventPlace>,
        field: Option<&Field>,
        group: &Group<'_>,
    ) -> Option<Body> {
        let given: Vec<&str> =
            conversion_keys(keys).into_iter().filter(|(_, given)| *given).map(|(key, _)| key).collect();
        if let [first, second, ..] = given.as_slice() {
            let what = format!("`{first}` and `{second}` exclude each other: a row has one conversion");
            self.problem(Problem::under(Code::ExclusiveKeys, at, second, what).on_key());
            return None;
        }
        let kind = match (event, field) {
            (_, Some(field)) => field.kind,
            _ => Kind::Any,
        };
        let (conversion, fund) = self.conversion(keys, at, kind, group)?;
        if let Some(key) = given.first()
            && field.is_some()
            && !conversion.fits(kind)
        {
            let what = format!(
                "`{key}` does not fit: the event's schema says that this field is {}",
                kind_in_words(kind)
            );
            self.problem(
                Problem::under(Code::WrongConversion, at, key, what).on_key().label("does not fit the field"),
            );
            return None;
        }
        if let (Conversion::Codes(list), Some(field)) = (&conversion, field) {
            self.code_coverage(list, field, keys, at);
        }
        Some(Body::Value { conversion, kind, fund })
    }
    pub(super) fn conversion(
        &mut self,
        keys: &RowKeys,
        at: &[String],
        kind: Kind,
        group: &Group<'_>,
    ) -> Option<(Conversion, Option<Path>)> {
        let plain = |conversion| Some((conversion, None));
        match keys {
            RowKeys { text: Some(text), .. } => plain(Conversion::Text(text.clone())),
            RowKeys { integer: Some(range), .. } => {
                plain(Conversion::Integer { min: range.min, max: range.max })
            }
            RowKeys { decimal: Some(decimal), .. } => plain(Conversion::Decimal { places: decimal.places }),
            RowKeys { money: Some(money), .. } => plain(Conversion::Money(*money)),
            RowKeys { date: Some(pattern), .. } => {
                let day = jiff::civil::date(2026, 11, 23);
                let form = DateForm::plain(pattern);
                if form.to_document(day).is_err() {
                    let what = "this strftime pattern does not say which day is meant";
                    self.problem(
                        Problem::under(Code::WrongConversion, at, "date", what)
                            .help("for 23/11/2026: `%d/%m/%Y`"),
                    );
                    return None;
                }
                if let Some(pivot) = keys.pivot
                    && !(form.spelling.short_years() && (1..=100).contains(&pivot))
                {
                    let what = "`pivot` is a year from 1 to 100, for a pattern with a two-digit year (`%y`)";
                    self.problem(Problem::under(Code::WrongConversion, at, "pivot", what));
                    return None;
                }
                let shift_days = keys.shift_days.unwrap_or_default();
                plain(Conversion::Date(DateForm { shift_days, pivot: keys.pivot, ..form }))
            }
            RowKeys { time: Some(time), .. } => {
                let mut under = at.to_vec();
                under.push("time".to_owned());
                let zone = match time.zone.as_deref().map(TimeZone::get) {
                    None => london(),
                    Some(Ok(zone)) => zone,
                    Some(Err(_)) => {
                        let what = "there is no such time zone";
                        self.problem(
                            Problem::under(Code::UnknownName, &under, "zone", what)
                                .help("for example `Europe/London`"),
                        );
                        return None;
                    }
                };
                let form = TimeForm::of(&time.pattern);
                if let TimeForm::Pattern(pattern) = &form
                    && jiff::fmt::strtime::format(pattern, &jiff::Zoned::default()).is_err()
                {
                    let what = "this is not a strftime pattern";
                    self.problem(Problem::under(Code::WrongConversion, &under, "pattern", what));
                    return None;
                }
                plain(Conversion::Time { form, zone })
            }
            RowKeys { boolean: Some(words), .. } => {
                plain(Conversion::Boolean { yes: words.yes.clone(), no: words.no.clone() })
            }
            RowKeys { codes: Some(name), .. } => {
                plain(Conversion::Codes(self.code_list(name, at, "codes", true)?))
            }
            RowKeys { check: Some(check), .. } => plain(Conversion::Check(*check)),
            RowKeys { account: Some(account), .. } => {
                let mut under = at.to_vec();
                under.push("account".to_owned());
                let rules = self.code_list(&account.rules, &under, "rules", false)?;
                let by = match (&account.by, &account.rule) {
                    (Some(by), None) => by,
                    (None, Some(rule)) => {
                        let funds: Vec<&str> =
                            rules.rows.iter().filter_map(|row| row.get("fund")).map(String::as_str).collect();
                        if !funds.contains(&rule.as_str()) {
                            let what = format!("`{}` has no rule for `{rule}`", rules.name);
                            let problem = Problem::under(Code::UnknownName, &under, "rule", what);
                            self.problem(problem.did_you_mean(rule, funds));
                            return None;
                        }
                        return plain(Conversion::Account { rules, rule: Some(rule.clone()) });
                    }
                    (Some(_), Some(_)) | (None, None) => {
                        let what =
                            "either a field names the fund (`by`), or one rule counts for all (`rule`)";
                        self.problem(Problem::under(Code::ExclusiveKeys, at, "account", what));
                        return None;
                    }
                };
                let fund = match Path::in_event(by) {
                    Ok(path) if group.field.at(&path).is_some() => path,
                    Ok(path) => {
                        self.unknown_field(&path, &under, "by", group.field);
                        return None;
                    }
                    Err(bad) => {
                        self.problem(bad_path(bad, &under, "by", by));
                        return None;
                    }
                };
                Some((Conversion::Account { rules, rule: None }, Some(fund)))
            }
            RowKeys { fund_of: Some(rules), .. } => {
                if keys.only.or(self.file.only) != Some(Direction::ToEvent) {
                    let what = "an account reference leads to its fund, but a fund to no account";
                    self.problem(
                        Problem::under(Code::WrongConversion, at, "fund_of", what)
                            .on_key()
                            .help("say `only = \"to-event\"`"),
                    );
                    return None;
                }
                plain(Conversion::FundOf { rules: self.code_list(rules, at, "fund_of", false)? })
            }
            _ => match Conversion::of_kind(kind) {
                Some(conversion) => plain(conversion),
                // What was kept of a cause is in the event's terms already: lists and groups come as they are.
                None if keys.cause.is_some() => plain(Conversion::AsIs),
                None => {
                    let what = format!(
                        "this field is {} in the event's schema: say how it goes over",
                        kind_in_words(kind)
                    );
                    self.problem(
                        Problem::under(Code::WrongConversion, at, "event", what)
                            .help("a group and a list of groups have `fields`; a list of texts can be joined by `text = { join = \", \" }`"),
                    );
                    None
                }
            },
        }
    }
    pub(super) fn code_list(
        &mut self,
        name: &str,
        at: &[String],
        key: &str,
        translates: bool,
    ) -> Option<Arc<CodeList>> {
        match self.with.codes.get(name) {
            Some(list) if list.translates() == translates => Some(list.clone()),
            Some(_) => {
                let columns = if translates { "`platform` and `system`" } else { "rules" };
                let what = format!("the code list `{name}` has no {columns}");
                self.problem(Problem::under(Code::BadCodeList, at, key, what));
                None
            }
            None => {
                let known: Vec<&str> = self.with.codes.keys().map(String::as_str).collect();
                let problem =
                    Problem::under(Code::UnknownName, at, key, format!("there is no code list `{name}`"))
                        .label("no such file in mappings/codes/")
                        .did_you_mean(name, known);
                self.problem(problem);
                None
            }
        }
    }
    /// Every value that the schema lists has a counterpart, and the list leads to no value that the schema lacks.
    pub(super) fn code_coverage(&mut self, list: &CodeList, field: &Field, keys: &RowKeys, at: &[String]) {
        let Some(values) = &field.values else { return };
        let values: Vec<&str> = values.iter().filter_map(|value| value.as_str()).collect();
        let goes = |direction| {
            keys.only.is_none_or(|only| only == direction)
                && self.file.only.is_none_or(|only| only == direction)
        };
        let missing: Vec<&str> =
            values.iter().copied().filter(|value| list.system(value, None) == Found::Unknown).collect();
        let mut found = Vec::new();
        if goes(Direction::ToDocument) && !missing.is_empty() {
            found.push(format!("the code list `{}` has no code for {}", list.name, quoted(&missing)));
        }
        let foreign: Vec<&str> =
            list.platform.iter().map(String::as_str).filter(|word| !values.contains(word)).collect();
        if !foreign.is_empty() {
            found.push(format!(
                "the code list `{}` has {}, which the event's schema does not allow",
                list.name,
                quoted(&foreign)
            ));
        }
        for what in found {
            self.problem(
                Problem::under(Code::CodeNotCovered, at, "codes", what).label("does not cover the schema"),
            );
        }
    }
    pub(super) fn direction(
        &mut self,
        keys: &RowKeys,
        at: &[String],
        event: Option<&EventPlace>,
        document: Option<&Path>,
        input: &Input,
        is_group: bool,
    ) -> Option<Direction> {
        let computed = !matches!(input, Input::Other);
        if computed && is_group {
            let what = "a group has no source of its own; its rows have";
            self.problem(Problem::under(Code::ExclusiveKeys, at, "fields", what).on_key());
        }
        let natural =
            match (event.is_some() || keys.event.is_some(), document.is_some() || keys.document.is_some()) {
                // A constant beside a field of the event is written into the event, and demanded of it the other way.
                (true, false) if matches!(input, Input::Constant(_)) => None,
                (true, false) if is_group => None,
                (false, true) if is_group => None,
                (true, false) => Some(Direction::ToEvent),
                (false, true) => Some(Direction::ToDocument),
                _ => None,
            };
        if !computed && !is_group && natural.is_some() {
            let key = if keys.event.is_some() { "event" } else { "document" };
            let what = "this row has no source: it names one side only, and no `constant`, `setting`, `value`, `cause` or `template`";
            self.problem(
                Problem::under(Code::MissingKey, at, key, what).label("where does the value come from?"),
            );
        }
        if computed && event.is_some() && document.is_some() && keys.only.is_none() {
            let what = "a computed value goes one way: say which with `only`, or leave out the side that is not filled";
            self.problem(Problem::under(Code::OneWayRow, at, "", what).label("`only` is missing"));
        }
        if let (Some(EventPlace::Attribute(attribute)), true) =
            (event, keys.only != Some(Direction::ToDocument) && natural != Some(Direction::ToDocument))
            && matches!(attribute, Attribute::Source | Attribute::Type)
            && self.file.only != Some(Direction::ToDocument)
        {
            let what =
                format!("`{}` is made by the route; a row can read it, not fill it", attribute.as_str());
            self.problem(
                Problem::under(Code::OneWayRow, at, "event", what).help("add `only = \"to-document\"`"),
            );
        }
        match (keys.only, natural) {
            (Some(only), Some(natural)) if only != natural => {
                let what = "this row can only go the other way: it names one side only";
                self.problem(Problem::under(Code::OneWayRow, at, "only", what));
                Some(natural)
            }
            (only, natural) => only.or(natural),
        }
    }
    pub(super) fn conditions(&mut self, keys: &RowKeys, at: &[String], group: &Group<'_>) -> Vec<Condition> {
        let mut found = Vec::new();
        for (index, keys) in keys.when.iter().enumerate() {
            let mut under = at.to_vec();
            under.extend(["when".to_owned(), index.to_string()]);
            let namespaces = self.file.document.format.is_xml().then(|| self.namespaces.clone());
            match Condition::compile(keys, namespaces.as_ref(), &under) {
                Err(problem) => self.problem(problem),
                Ok(mut condition) => {
                    if condition.on == Direction::ToDocument {
                        let schema = self.with.schema.clone();
                        let here = group.field.at(&condition.path);
                        condition.from_top = here.is_none();
                        match here.or_else(|| schema.root.at(&condition.path)) {
                            None => self.unknown_field(&condition.path, &under, "event", group.field),
                            Some(field) => self.problems.extend(impossible(&condition.test, field, &under)),
                        }
                    }
                    found.push(condition);
                }
            }
        }
        found
    }
    /// The field that says on which day a code must be valid: a row above fills it, so that it is there when it is needed.
    pub(super) fn codes_at(
        &mut self,
        text: &str,
        at: &[String],
        group: &Group<'_>,
        above: &[Row],
    ) -> Option<Path> {
        let path = match Path::in_event(text) {
            Ok(path) => path,
            Err(bad) => {
                self.problem(bad_path(bad, at, "codes_at", text));
                return None;
            }
        };
        if group.field.at(&path).is_none() {
            self.unknown_field(&path, at, "codes_at", group.field);
            return None;
        }
        let fills = |row: &Row| row.event.as_ref().and_then(EventPlace::path) == Some(&path);
        if self.file.only != Some(Direction::ToDocument) && !above.iter().any(fills) {
            let what = format!("no row above fills `{path}`");
            self.problem(
                Problem::under(Code::UnknownEventField, at, "codes_at", what)
                    .help("rows are carried out in their order: put the date's row first"),
            );
        }
        Some(path)
    }
    pub(super) fn sum(&mut self, text: &str, at: &[String]) -> Option<Path> {
        match Path::in_event(text) {
            Ok(path) if self.with.schema.root.at(&path).is_some_and(|field| field.kind == Kind::Integer) => {
                Some(path)
            }
            Ok(_) => {
                let what = "these are no amounts in the event's schema";
                self.problem(Problem::under(Code::UnknownEventField, at, "sum", what));
                None
            }
            Err(bad) => {
                self.problem(bad_path(bad, at, "sum", text));
                None
            }
        }
    }
    /// Every field that the event's schema requires is filled by some row.
    pub(super) fn coverage(&mut self, rows: &[Row], group: &Field, prefix: &str) {
        if self.file.only == Some(Direction::ToDocument) {
            return;
        }
        for field in group.fields.iter().filter(|field| field.required) {
            let path = format!("{prefix}{}", field.name);
            let fills = |row: &&Row| {
                row.goes(Direction::ToEvent)
                    && matches!(&row.event, Some(EventPlace::Data(p)) if p.steps().first().is_some_and(|s| s.name.local == field.name))
            };
            let filling: Vec<&Row> = rows.iter().filter(fills).collect();
            // A group row without an event side holds rows for the group around it.
            let deeper: Vec<&Row> = rows.iter().filter(|row| row.event.is_none()).collect();
            let through = deeper
                .iter()
                .any(|row| matches!(&row.body, Body::Group(rows) if rows.iter().any(|row| fills(&row))));
            if filling.is_empty() && !through {
                let what = format!("nothing fills `{path}`, which {} requires", self.with.schema.event_type);
                self.problem(
                    Problem::error(Code::RequiredFieldNotFilled, &["fields"], what)
                        .on_key()
                        .label(format!("no row for `{path}`"))
                        .help("add a row for it, or say `only = \"to-document\"` for the whole mapping"),
                );
            }
            for row in filling {
                if let (Body::Group(rows) | Body::Packed { rows, .. }, Some(inner)) =
                    (&row.body, field.items.as_deref().or(Some(field)))
                {
                    self.coverage(
                        rows,
                        inner,
                        &format!("{path}{}", if field.items.is_some() { "[]." } else { "." }),
                    );
                }
            }
        }
    }
}
