//! Events generated for the laws of a mapping, from the event's schema and from what the mapping's rows accept of it:
//! words of code lists, lengths, largest amounts, accounts with their check digits. The same seed gives the same events.
//!
//! Optional fields come and go, texts use their whole length now and then, numbers touch their bounds, characters that
//! break naive programs (apostrophes, ampersands, accents, a letter outside the basic plane) occur.

use super::{
    Body, EventPlace, Input, Mapping, Row, checks,
    codes::{CodeList, Found},
    convert::Conversion,
    raw::{Check, Direction, Money},
};
use crate::{
    event::schema::{EventSchema, Field, Kind},
    format::Layout,
    tree::{Name, Tree},
};
use regex_syntax::hir::{Class, Hir, HirKind};
use serde_json::Value;
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// A small random number generator (SplitMix64, public domain by Sebastiano Vigna), enough for choosing test values.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The generator of a seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number from `from` to `to`, both included.
    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.bits() % (to.saturating_sub(from).saturating_add(1).max(1))
    }

    /// One chance in so many.
    pub fn one_in(&mut self, chances: u64) -> bool {
        self.bits().is_multiple_of(chances)
    }

    fn pick<'t, T>(&mut self, of: &'t [T]) -> Option<&'t T> {
        of.get(self.bits() as usize % of.len().max(1))
    }
}

/// What a mapping's rows accept of one field, beside what the schema says.
#[derive(Debug, Clone, Default)]
struct Accepts {
    values: Option<Vec<String>>,
    least: u64,
    most: Option<u64>,
    largest: Option<i64>,
    /// Characters that are refused.
    refused: String,
    /// It has to be there though the schema does not ask for it.
    always: bool,
    /// An account: its rules, and which one.
    account: Option<(Arc<CodeList>, Fund)>,
    /// The first and the last year that a date may have.
    years: Option<(u64, u64)>,
}

/// Which rule an account keeps.
#[derive(Debug, Clone)]
enum Fund {
    /// That of the fund in the field beside it.
    Beside(String),
    /// This one.
    Fixed(String),
}

impl Accepts {
    /// Only these values, as far as earlier rows leave one of them.
    fn only(&mut self, values: Vec<String>) {
        let left: Vec<String> = match &self.values {
            None => values,
            Some(before) => before.iter().filter(|value| values.contains(value)).cloned().collect(),
        };
        if !left.is_empty() {
            self.values = Some(left);
        }
    }

    fn at_most(&mut self, most: u64) {
        self.most = Some(self.most.map_or(most, |before| before.min(most)));
    }
}

/// What makes events for a mapping.
pub struct Generator<'m> {
    schema: &'m EventSchema,
    accepts: BTreeMap<String, Accepts>,
    layout: Option<&'m Layout>,
    /// Characters that the document's encoding lacks.
    lacking: String,
}

impl<'m> Generator<'m> {
    /// For this mapping.
    pub fn new(mapping: &'m Mapping) -> Generator<'m> {
        let layout = mapping.style.layout.as_deref();
        let lacks = |c: &char| layout.is_some_and(|layout| !layout.can_write(*c));
        let lacking: String = PIECES.iter().flat_map(|piece| piece.chars()).filter(lacks).collect();
        let mut generator = Generator { schema: &mapping.schema, accepts: BTreeMap::new(), layout, lacking };
        generator.learn(&mapping.rows, "", "");
        generator
    }

    /// Data that keep the schema, and that the mapping accepts as far as its rows tell.
    pub fn data(&self, random: &mut Random) -> Tree {
        let mut data = self.value(&self.schema.root, "", random);
        self.settle(&mut data);
        data
    }

    fn learn(&mut self, rows: &[Row], prefix: &str, separator: &str) {
        for row in rows.iter().filter(|row| row.goes(Direction::ToDocument)) {
            let path = match &row.event {
                Some(EventPlace::Attribute(_)) => continue,
                Some(EventPlace::Data(path)) => {
                    path.steps().iter().fold(prefix.to_owned(), |path, step| below(&path, &step.name.local))
                }
                None => prefix.to_owned(),
            };
            match &row.body {
                Body::Value { conversion, fund, .. } => {
                    let width = self.width(row);
                    self.learn_years(row, conversion, prefix);
                    let accepts = self.accepts.entry(path).or_default();
                    accepts.refused.push_str(separator);
                    accepts.refused.push_str(&self.lacking);
                    if let Some(width) = width {
                        accepts.at_most(width);
                        let digits = match conversion {
                            Conversion::Money(Money::Pounds) => width.saturating_sub(1),
                            _ => width,
                        };
                        let largest =
                            u32::try_from(digits).ok().and_then(|digits| 10_i64.checked_pow(digits));
                        accepts.largest = largest.map(|largest| largest - 1);
                    }
                    match &row.input {
                        Input::Other => {
                            let sibling = fund.as_ref().and_then(|path| path.steps().last());
                            accepts.learn(row, conversion, sibling.map(|step| step.name.local.as_str()));
                        }
                        // A constant of the event alone is what the event must say.
                        Input::Constant(value) if row.document.is_none() => accepts.only(vec![value.clone()]),
                        Input::Constant(_)
                        | Input::Setting(_)
                        | Input::Value(_)
                        | Input::Cause(_)
                        | Input::Template(_) => {}
                    }
                }
                Body::Group(rows) => {
                    self.learn_most(row, &path);
                    self.learn(rows, &path, separator);
                }
                Body::Packed { separator, rows, .. } => {
                    self.learn_most(row, &path);
                    self.learn(rows, &path, separator);
                }
            }
        }
    }

    /// How wide the field of the document is that a row writes.
    fn width(&self, row: &Row) -> Option<u64> {
        let name = &row.document.as_ref()?.steps().last()?.name.local;
        let places = self.layout?.places()?;
        places
            .iter()
            .filter(|place| place.name == name)
            .filter_map(|place| place.width)
            .min()
            .map(|w| w as u64)
    }

    /// Codes that are valid from some day on want the date that decides about them to be later.
    fn learn_years(&mut self, row: &Row, conversion: &Conversion, prefix: &str) {
        let (Conversion::Codes(list), Some(path)) = (conversion, &row.codes_at) else { return };
        let Some(first) = list.lasting().1.and_then(|first| u64::try_from(first.year()).ok()) else { return };
        let path = path.steps().iter().fold(prefix.to_owned(), |path, step| below(&path, &step.name.local));
        let accepts = self.accepts.entry(path).or_default();
        let before = accepts.years.map_or(2020, |(from, _)| from);
        accepts.years = Some((before.max(first + 1), 2035));
    }

    fn learn_most(&mut self, row: &Row, path: &str) {
        if let Some(most) = row.most {
            self.accepts.entry(path.to_owned()).or_default().at_most(most as u64);
        }
    }

    fn value(&self, field: &Field, path: &str, random: &mut Random) -> Tree {
        let nothing = Accepts::default();
        let accepts = self.accepts.get(path).unwrap_or(&nothing);
        if let Some(value) = listed(field, accepts, random) {
            return value;
        }
        match field.kind {
            Kind::Boolean => Tree::Bool(random.one_in(2)),
            Kind::Integer | Kind::Number => {
                let min = field.bounds.0.unwrap_or(-1_000_000);
                let max =
                    field.bounds.1.unwrap_or(1_000_000).min(accepts.largest.unwrap_or(i64::MAX)).max(min);
                Tree::integer(match random.between(0, 7) {
                    0 => min,
                    1 => max,
                    _ => min
                        .saturating_add((random.bits() % (max.abs_diff(min).max(1))) as i64)
                        .min(min.saturating_add(99_999)),
                })
            }
            Kind::List => {
                let (min, max) = (field.length.0.unwrap_or(0), field.length.1.unwrap_or(4));
                let max = accepts.most.map_or(max, |most| most.min(max)).max(min);
                let count = random.between(min, max.min(min + 3));
                let items = field.items.as_deref();
                Tree::List((0..count).filter_map(|_| Some(self.value(items?, path, random))).collect())
            }
            Kind::Record => self.record(field, path, random),
            Kind::Text => Tree::text(text(field, accepts, random)),
            Kind::Any => Tree::text("x"),
        }
    }

    fn record(&self, field: &Field, path: &str, random: &mut Random) -> Tree {
        let mut entries: Vec<(Name, Tree)> = Vec::new();
        for inner in &field.fields {
            let path = below(path, &inner.name);
            let always = inner.required || self.accepts.get(&path).is_some_and(|accepts| accepts.always);
            if always || !random.one_in(3) {
                entries.push((Name::plain(inner.name.as_str()), self.value(inner, &path, random)));
            }
        }
        if entries.is_empty()
            && let Some(inner) = field.fields.first()
        {
            let value = self.value(inner, &below(path, &inner.name), random);
            entries.push((Name::plain(inner.name.as_str()), value));
        }
        let mut record = Tree::Record(entries.into_iter().collect());
        for inner in &field.fields {
            let accepts = self.accepts.get(&below(path, &inner.name));
            if let Some((rules, by)) = accepts.and_then(|accepts| accepts.account.as_ref())
                && record.at(&[&inner.name]).is_some()
                && let Some(fund) = match by {
                    Fund::Beside(by) => record.at(&[by]).and_then(Tree::as_text),
                    Fund::Fixed(fund) => Some(fund.as_str()),
                }
                && let Some(rule) =
                    rules.rows.iter().find(|row| row.get("fund").is_some_and(|own| own == fund))
                && let Some(account) = account(rule, random)
            {
                record.record_mut().set(&inner.name, Tree::text(account));
            }
        }
        record
    }

    /// Makes totals the sums of their parts, parts no more than their wholes and repeated values different, as `x-sum`,
    /// `x-part-of` and `x-unique` ask.
    fn settle(&self, data: &mut Tree) {
        let schema = self.schema;
        for path in schema.unique_paths() {
            if let [list, field] = path.steps()
                && let Tree::List(items) = data.record_mut().entry(&list.name)
            {
                for (index, item) in items.iter_mut().enumerate() {
                    item.record_mut().set(&field.name.local, Tree::text((index + 1).to_string()));
                }
            }
        }
        // Parts that are each allowed may add up to more than their total may be: all of them are made smaller then.
        for divisor in [1, 100, 100] {
            let mut fits = true;
            for (total, parts) in schema.sum_paths() {
                let mut sum: i128 = 0;
                shrink(data, parts.steps(), divisor, &mut sum);
                *total.place(data, true) = Tree::number(sum.to_string());
                let names =
                    total.steps().iter().fold(String::new(), |path, step| below(&path, &step.name.local));
                let largest = self.accepts.get(&names).and_then(|accepts| accepts.largest);
                fits &= largest.is_none_or(|largest| sum <= i128::from(largest));
            }
            for (part, whole) in schema.part_paths() {
                clamp(data, part.steps(), whole.steps());
            }
            if fits && schema.breaches(data).is_empty() {
                return;
            }
        }
    }
}

impl Accepts {
    /// What one row's conversion takes.
    fn learn(&mut self, row: &Row, conversion: &Conversion, fund: Option<&str>) {
        self.always |= row.required && row.when.is_empty();
        self.largest = match (self.largest, row.max_pence) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        match conversion {
            Conversion::Text(keys) => {
                self.least = self.least.max(keys.min.unwrap_or(0) as u64);
                if let Some(max) = keys.max.filter(|_| !keys.cut && keys.join.is_none()) {
                    self.at_most(max as u64);
                }
                self.refused.push_str(keys.refuse.as_deref().unwrap_or_default());
            }
            Conversion::Integer { max, .. } => self.largest = self.largest.or(*max),
            Conversion::Codes(list) => {
                let known: Vec<String> = list
                    .platform
                    .iter()
                    .filter(|word| matches!(list.system(word, None), Found::Code(_)))
                    .cloned()
                    .collect();
                let (lasting, _) = list.lasting();
                self.only(if lasting.is_empty() { known } else { lasting });
            }
            Conversion::Check(check) => self.only(samples(*check)),
            Conversion::Account { rules, rule } => {
                let fund = rule.clone().map(Fund::Fixed).or(fund.map(|fund| Fund::Beside(fund.to_owned())));
                self.account = fund.map(|fund| (rules.clone(), fund));
            }
            Conversion::Date(form) => {
                let first = form.pivot.map(|pivot| 1900 + u64::try_from(pivot).unwrap_or_default());
                self.years = self.years.or(first.map(|first| (first + 1, first + 98)));
            }
            Conversion::Decimal { .. }
            | Conversion::Money(_)
            | Conversion::Time { .. }
            | Conversion::Boolean { .. }
            | Conversion::FundOf { .. }
            | Conversion::AsIs => {}
        }
    }
}

fn below(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// One of the values that the schema or the mapping lists, if one of them does.
fn listed(field: &Field, accepts: &Accepts, random: &mut Random) -> Option<Tree> {
    let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let accepted = |text: &String| accepts.values.as_ref().is_none_or(|values| values.contains(text));
    match (&field.values, &accepts.values) {
        (None, None) => None,
        (Some(values), _) => {
            let both: Vec<&Value> = values.iter().filter(|value| accepted(&plain(value))).collect();
            let picked = random.pick(&both).copied().or_else(|| random.pick(values));
            picked.map(Tree::from_json)
        }
        (None, Some(values)) => random.pick(values).map(|text| match field.kind {
            Kind::Boolean => Tree::Bool(text == "true"),
            Kind::Integer | Kind::Number => Tree::number(text.clone()),
            Kind::Text | Kind::List | Kind::Record | Kind::Any => Tree::text(text),
        }),
    }
}

/// Identifiers that are made up and keep their rules.
fn samples(check: Check) -> Vec<String> {
    let texts: &[&str] = match check {
        Check::NhsNumber => &["9434765919", "9434765870"],
        Check::Uprn => &["1", "199356", "100023336956"],
        Check::Nino => &["AB123456C", "OA123456A"],
        Check::NinoDwp => &["AB123456C", "QQ123456C", "AB123456"],
        Check::Upn => &["X330123456789", "V204000100001"],
        Check::Gss => &["E09000012", "W06000015", "E08000007"],
        Check::Postcode => &["SK1 3XE", "EC1A 1BB", "N1P 1AA"],
        Check::BacsReference => &["CT0012345678", "RENT/4417-2026", "A1-B2.C3 D4&E5"],
    };
    texts.iter().map(|text| (*text).to_owned()).collect()
}

/// An account by the rule of its fund: the mask filled, the check character found by trying.
fn account(rule: &HashMap<String, String>, random: &mut Random) -> Option<String> {
    let mask = rule.get("mask").filter(|mask| !mask.is_empty())?;
    const CHECKS: &str = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    (0..20).find_map(|_| {
        let filled: String = mask
            .chars()
            .map(|c| match c {
                '#' => char::from(b'0' + random.between(0, 9) as u8),
                '?' => char::from(b'A' + random.between(0, 25) as u8),
                '*' => '7',
                other => other,
            })
            .collect();
        let mut tries = CHECKS.chars().map(|check| filled.replace('@', &check.to_string()));
        tries.find(|account| checks::account(rule, account).is_ok())
    })
}

/// What texts are put together from.
const PIECES: [&str; 16] = [
    "a",
    "Garden",
    " ",
    "7",
    "O'Brien",
    "&",
    "é",
    "Ž",
    "-",
    "<",
    "\"",
    "Council",
    "\u{1F600}",
    "x",
    "0",
    ",",
];

fn text(field: &Field, accepts: &Accepts, random: &mut Random) -> String {
    let min = field.length.0.unwrap_or(0).max(accepts.least) as usize;
    let max = field.length.1.unwrap_or(40).min(accepts.most.unwrap_or(u64::MAX)).max(min as u64) as usize;
    let taken = |text: &str| !text.contains(|c| accepts.refused.contains(c));
    if let Some(pattern) = &field.pattern
        && let Ok(hir) = regex_syntax::parse(pattern)
    {
        let mut out = String::new();
        for _ in 0..20 {
            out.clear();
            matching(&hir, random, &mut out);
            if (min..=max).contains(&out.chars().count()) && taken(&out) {
                return out;
            }
        }
        return out;
    }
    match field.format.as_deref() {
        Some("date-time") => {
            let second = 1_700_000_000 + (random.bits() % 100_000_000) as i64;
            let moment = jiff::Timestamp::from_millisecond(second * 1000 + random.between(0, 999) as i64);
            moment.map(|moment| moment.to_string()).unwrap_or_default()
        }
        Some("date") => {
            let (first, last) = accepts.years.unwrap_or((2020, 2035));
            let year = random.between(first, last);
            format!("{year}-{:02}-{:02}", random.between(1, 12), random.between(1, 28))
        }
        Some("email") => format!("r.{}@example.org", random.between(1, 99_999)),
        Some("uri" | "uri-reference") => format!("https://example.org/{}", random.between(1, 99_999)),
        _ => {
            let length = match random.between(0, 5) {
                0 => max.min(300),
                1 => min.max(1),
                _ => (min.max(1) + random.between(0, 20) as usize).min(max),
            };
            let mut out = String::new();
            while out.chars().count() < length {
                out.push_str(random.pick(&PIECES).copied().unwrap_or("a"));
            }
            let plain = |c: char| if accepts.refused.contains(c) { 'z' } else { c };
            let out: String = out.chars().take(length).map(plain).collect();
            // White space at an end is not kept by every system, and no real value has it.
            let trimmed = out.trim();
            let missing = length - trimmed.chars().count();
            format!("{trimmed}{}", "z".repeat(missing))
        }
    }
}

fn matching(hir: &Hir, random: &mut Random, out: &mut String) {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => {}
        HirKind::Literal(literal) => out.push_str(&String::from_utf8_lossy(&literal.0)),
        HirKind::Class(Class::Unicode(class)) => {
            let ranges = class.ranges();
            if let Some(range) = random.pick(ranges) {
                let (from, to) = (range.start() as u32, (range.end() as u32).min(range.start() as u32 + 200));
                let point = random.between(u64::from(from), u64::from(to)) as u32;
                out.push(char::from_u32(point).unwrap_or(range.start()));
            }
        }
        HirKind::Class(Class::Bytes(class)) => {
            if let Some(range) = random.pick(class.ranges()) {
                out.push(random.between(u64::from(range.start()), u64::from(range.end())) as u8 as char);
            }
        }
        HirKind::Repetition(repetition) => {
            let (min, max) = (repetition.min, repetition.max.unwrap_or(repetition.min + 8));
            let count = match random.between(0, 5) {
                0 => min,
                1 => max.min(min + 60),
                _ => random.between(u64::from(min), u64::from(max.min(min + 12))) as u32,
            };
            (0..count).for_each(|_| matching(&repetition.sub, random, out));
        }
        HirKind::Capture(capture) => matching(&capture.sub, random, out),
        HirKind::Concat(parts) => parts.iter().for_each(|part| matching(part, random, out)),
        HirKind::Alternation(parts) => {
            if let Some(part) = random.pick(parts) {
                matching(part, random, out);
            }
        }
    }
}

/// Divides every amount at a path, and adds them up.
fn shrink(tree: &mut Tree, path: &[super::path::Step], divisor: i128, sum: &mut i128) {
    match (tree, path.split_first()) {
        (Tree::Number(digits), None) => {
            let amount = (digits.parse::<i128>().unwrap_or(0) / divisor).max(1);
            *digits = amount.to_string().into();
            *sum += amount;
        }
        (Tree::List(items), _) => items.iter_mut().for_each(|item| shrink(item, path, divisor, sum)),
        (tree @ Tree::Record(_), Some((step, rest))) => {
            shrink(tree.record_mut().entry(&step.name), rest, divisor, sum)
        }
        _ => {}
    }
}

/// Makes every amount at `part` no more than the one at `whole` beside it.
fn clamp(tree: &mut Tree, part: &[super::path::Step], whole: &[super::path::Step]) {
    match (tree, part.split_first(), whole.split_first()) {
        (Tree::List(items), _, _) => items.iter_mut().for_each(|item| clamp(item, part, whole)),
        (tree @ Tree::Record(_), Some((step, part)), Some((same, whole))) if step == same => {
            clamp(tree.record_mut().entry(&step.name), part, whole);
        }
        (tree @ Tree::Record(_), Some(_), Some(_)) => {
            let names = |path: &[super::path::Step]| -> Vec<String> {
                path.iter().map(|step| step.name.local.to_string()).collect()
            };
            let amount = |names: &[String]| {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                tree.at(&names).and_then(Tree::to_plain_text).and_then(|text| text.parse::<i128>().ok())
            };
            if let (Some(own), Some(most)) = (amount(&names(part)), amount(&names(whole)))
                && own > most
            {
                let place = names(part)
                    .iter()
                    .fold(tree, |tree, name| tree.record_mut().entry(&Name::plain(name.as_str())));
                *place = Tree::number(most.to_string());
            }
        }
        _ => {}
    }
}

/// A value that a field with these listed values, or of this kind, does not have: to show that it is refused.
pub fn foreign(values: &[Value]) -> String {
    let mut text = "none-of-these".to_owned();
    while values.iter().any(|value| value.as_str() == Some(&text)) {
        text.push('-');
    }
    text
}
