//! Values generated from an event schema, for the laws: the same seed gives the same values.
//!
//! Optional fields come and go, texts use their whole length now and then, numbers touch their bounds, characters that
//! break naive programs (apostrophes, ampersands, accents, a letter outside the basic plane) occur.

use crate::{
    event::schema::{EventSchema, Field, Kind},
    tree::{Name, Tree},
};
use regex_syntax::hir::{Class, Hir, HirKind};
use serde_json::Value;

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

/// Data that keeps the schema.
pub fn data(schema: &EventSchema, random: &mut Random) -> Tree {
    let mut data = value(&schema.root, random);
    schema.settle(&mut data);
    data
}

fn value(field: &Field, random: &mut Random) -> Tree {
    if let Some(values) = &field.values {
        return random.pick(values).map(Tree::from_json).unwrap_or_default();
    }
    match field.kind {
        Kind::Boolean => Tree::Bool(random.one_in(2)),
        Kind::Integer | Kind::Number => {
            let (min, max) = (field.bounds.0.unwrap_or(-1_000_000), field.bounds.1.unwrap_or(1_000_000));
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
            let count = random.between(min, max.min(min + 3));
            let items = field.items.as_deref();
            Tree::List((0..count).filter_map(|_| items.map(|items| value(items, random))).collect())
        }
        Kind::Record => {
            let mut entries: Vec<(Name, Tree)> = Vec::new();
            for inner in &field.fields {
                if inner.required || !random.one_in(3) {
                    entries.push((Name::plain(inner.name.as_str()), value(inner, random)));
                }
            }
            if entries.is_empty() {
                let first = field.fields.first();
                entries.extend(first.map(|inner| (Name::plain(inner.name.as_str()), value(inner, random))));
            }
            Tree::Record(entries.into_iter().collect())
        }
        Kind::Text => Tree::Text(text(field, random)),
        Kind::Any => Tree::text("x"),
    }
}

fn text(field: &Field, random: &mut Random) -> String {
    let (min, max) = (field.length.0.unwrap_or(0) as usize, field.length.1.unwrap_or(40) as usize);
    if let Some(pattern) = &field.pattern
        && let Ok(hir) = regex_syntax::parse(pattern)
    {
        let mut out = String::new();
        for _ in 0..20 {
            out.clear();
            matching(&hir, random, &mut out);
            if (min..=max).contains(&out.chars().count()) {
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
        Some("date") => format!(
            "20{:02}-{:02}-{:02}",
            random.between(20, 35),
            random.between(1, 12),
            random.between(1, 28)
        ),
        Some("email") => format!("r.{}@example.org", random.between(1, 99_999)),
        Some("uri" | "uri-reference") => format!("https://example.org/{}", random.between(1, 99_999)),
        _ => {
            const PIECES: &[&str] = &[
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
            let length = match random.between(0, 5) {
                0 => max.min(300),
                1 => min.max(1),
                _ => (min.max(1) + random.between(0, 20) as usize).min(max),
            };
            let mut out = String::new();
            while out.chars().count() < length {
                out.push_str(random.pick(PIECES).copied().unwrap_or("a"));
            }
            let out: String = out.chars().take(length).collect();
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

impl EventSchema {
    /// Makes totals the sums of their parts and repeated values different, as `x-sum` and `x-unique` ask.
    fn settle(&self, data: &mut Tree) {
        for path in self.unique_paths() {
            if let [list, field] = path.steps()
                && let Tree::List(items) = data.record_mut().entry(&list.name)
            {
                for (index, item) in items.iter_mut().enumerate() {
                    item.record_mut().set(&field.name.local, Tree::Text((index + 1).to_string()));
                }
            }
        }
        // Parts that are each allowed may add up to more than their total may be: all of them are made smaller then.
        for divisor in [1, 100, 100] {
            for (total, parts) in self.sum_paths() {
                let mut sum: i128 = 0;
                shrink(data, parts.steps(), divisor, &mut sum);
                *total.place(data, true) = Tree::Number(sum.to_string());
            }
            if self.breaches(data).is_empty() {
                return;
            }
        }
    }
}

/// Divides every amount at a path, and adds them up.
fn shrink(tree: &mut Tree, path: &[super::path::Step], divisor: i128, sum: &mut i128) {
    match (tree, path.split_first()) {
        (Tree::Number(digits), None) => {
            let amount = (digits.parse::<i128>().unwrap_or(0) / divisor).max(1);
            *digits = amount.to_string();
            *sum += amount;
        }
        (Tree::List(items), _) => items.iter_mut().for_each(|item| shrink(item, path, divisor, sum)),
        (tree @ Tree::Record(_), Some((step, rest))) => {
            shrink(tree.record_mut().entry(&step.name), rest, divisor, sum)
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
