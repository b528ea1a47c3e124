//! Computed text: minijinja with fuel, strict about undefined names, without loader. The only escape hatch of adapters
//! and mappings; everything else in them is a table.
//!
//! A template sees a [`Scope`] and nothing else: no clock, no file, no environment. Secrets are never in it.

use crate::{event::Event, tree::Tree};
use jiff::{Timestamp, tz::TimeZone};
use minijinja::{Environment, ErrorKind, UndefinedBehavior, value::Value};
use rust_decimal::{Decimal, RoundingStrategy};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, OnceLock},
};

/// Steps one template may take before it is stopped.
const FUEL: u64 = 20_000;
/// Bytes one template may write at most.
const LONGEST: usize = 1 << 20;

/// Names and their texts, as settings and computed values are.
pub type Texts = BTreeMap<String, String>;

/// What a template can see.
#[derive(Debug, Default)]
pub struct Scope<'a> {
    /// `event`: the event with its attributes and, as `event.data`, its data.
    pub event: Option<&'a Event>,
    /// `document`: what the system sent or answered.
    pub document: Option<&'a Tree>,
    /// `cause`: what was kept from what caused this.
    pub cause: Option<&'a Tree>,
    /// `item`: the entry of the group that a row stands in.
    pub item: Option<&'a Tree>,
    /// `settings`: the adapter's settings, without the secret ones.
    pub settings: Option<&'a Texts>,
    /// `values`: what the adapter computed before.
    pub values: Option<&'a Texts>,
    /// `now`, as RFC 3339 in UTC.
    pub now: Timestamp,
    /// `nonce`: 32 hexadecimal digits that no other request has.
    pub nonce: &'a str,
    /// Further names, such as `cursor` and `page`.
    pub more: Vec<(&'static str, Tree)>,
    /// What minijinja sees of each of [`NAMES`], made at its first use. Leave it to `Default`.
    #[doc(hidden)]
    pub built: [OnceLock<Value>; NAMES.len()],
}

/// The names a template may use at its top.
pub const NAMES: &[&str] = &[
    "event", "document", "cause", "item", "settings", "values", "now", "nonce", "cursor", "page", "batch",
    "file", "group", "groups",
];

/// How what a template inserts is escaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Escape {
    /// Not at all: headers, document text.
    None,
    /// Percent-encoded, so that a value stays within its part of a URL.
    Url,
}

/// A compiled template, or a text without any.
#[derive(Debug, Clone)]
pub struct Template {
    source: String,
    compiled: Option<Arc<Environment<'static>>>,
    /// Which of [`NAMES`] it uses, a bit each: nothing else is made ready for it.
    uses: u16,
}

/// Why a template cannot be compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadTemplate {
    /// What is wrong.
    pub what: String,
    /// The part of the text, in bytes, if known.
    pub part: Option<std::ops::Range<usize>>,
}

/// Why a template could not be rendered. Holds no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateFailed(pub String);

impl fmt::Display for TemplateFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Template {
    /// Compiles a template.
    ///
    /// # Errors
    /// Syntax, and names that no scope has.
    pub fn compile(source: &str, escape: Escape) -> Result<Template, BadTemplate> {
        if !source.contains("{{") && !source.contains("{%") && !source.contains("{#") {
            return Ok(Template { source: source.to_owned(), compiled: None, uses: 0 });
        }
        let mut environment = environment(escape);
        let bad = |error: &minijinja::Error| BadTemplate {
            what: error.detail().map_or_else(|| error.kind().to_string(), str::to_owned),
            part: None,
        };
        environment.add_template_owned("t", source.to_owned()).map_err(|error| bad(&error))?;
        let names = environment.get_template("t").map_err(|error| bad(&error))?.undeclared_variables(false);
        let known: BTreeSet<String> = environment.globals().map(|(name, _)| name.to_owned()).collect();
        if let Some(unknown) =
            names.iter().find(|name| !NAMES.contains(&name.as_str()) && !known.contains(*name))
        {
            let part = source.find(unknown.as_str()).map(|at| at..at + unknown.len());
            return Err(BadTemplate { what: format!("a template knows no `{unknown}`"), part });
        }
        // By the text, not by what the parser says of it, which passes over names in slices: one too many costs little.
        let uses = NAMES.iter().enumerate().filter(|(_, name)| source.contains(*name));
        let uses = uses.fold(0, |uses, (at, _)| uses | 1 << at);
        Ok(Template { source: source.to_owned(), compiled: Some(Arc::new(environment)), uses })
    }

    /// The text as written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The dotted names it uses: `event.data.amount`, `settings.site_id`.
    pub fn names(&self) -> BTreeSet<String> {
        let names = self.compiled.as_ref().and_then(|environment| {
            environment.get_template("t").ok().map(|template| template.undeclared_variables(true))
        });
        names.unwrap_or_default().into_iter().collect()
    }

    /// The text it makes in this scope.
    ///
    /// # Errors
    /// A name that is not there, too many steps, too long a result.
    pub fn render(&self, scope: &Scope<'_>) -> Result<String, TemplateFailed> {
        let Some(environment) = &self.compiled else { return Ok(self.source.clone()) };
        let failed = |error: minijinja::Error| {
            TemplateFailed(match error.kind() {
                ErrorKind::UndefinedError => "a name that the template uses has no value here".to_owned(),
                ErrorKind::OutOfFuel => format!("the template was stopped after {FUEL} steps"),
                kind => format!("the template failed: {kind}"),
            })
        };
        let text = environment
            .get_template("t")
            .and_then(|template| template.render(scope.value(self.uses)))
            .map_err(failed)?;
        match text.len() <= LONGEST {
            true => Ok(text),
            false => Err(TemplateFailed(format!("the template wrote more than {LONGEST} bytes"))),
        }
    }
}

impl<'a> Scope<'a> {
    /// The same with other computed values.
    pub fn with_values<'b>(&self, values: &'b Texts) -> Scope<'b>
    where
        'a: 'b,
    {
        Scope { values: Some(values), more: self.more.clone(), built: Default::default(), ..*self }
    }

    /// Those of the names that are used and there, as minijinja sees them.
    fn value(&self, uses: u16) -> Value {
        let named = NAMES.iter().zip(&self.built).enumerate().filter_map(|(at, (name, built))| {
            let value = (uses & 1 << at != 0).then(|| built.get_or_init(|| self.named(name)))?;
            (!value.is_undefined()).then(|| (*name, value.clone()))
        });
        Value::from_pairs(named)
    }

    fn named(&self, name: &str) -> Value {
        let tree = |tree: Option<&Tree>| tree.map_or(Value::UNDEFINED, to_value);
        let texts = |texts: Option<&Texts>| match texts {
            None => Value::UNDEFINED,
            Some(texts) => Value::from_pairs(
                texts.iter().map(|(name, text)| (name.as_str(), Value::from(text.as_str()))),
            ),
        };
        match name {
            "event" => self.event.map_or(Value::UNDEFINED, event_value),
            "document" => tree(self.document),
            "cause" => tree(self.cause),
            "item" => tree(self.item),
            "settings" => texts(self.settings),
            "values" => texts(self.values),
            "now" => Value::from(self.now.to_string()),
            "nonce" => Value::from(self.nonce),
            more => tree(self.more.iter().find(|(name, _)| *name == more).map(|(_, tree)| tree)),
        }
    }
}

fn event_value(event: &Event) -> Value {
    Value::from_pairs([
        ("id", Value::from(event.id.as_str())),
        ("source", Value::from(event.source.as_str())),
        ("type", Value::from(event.event_type.as_str())),
        ("subject", Value::from(event.subject.as_deref())),
        ("time", Value::from(event.time.as_deref())),
        ("data", to_value(&event.data)),
    ])
}

/// A tree as a template sees it. Numbers that are no 64-bit integers are texts: nothing is rounded.
fn to_value(tree: &Tree) -> Value {
    match tree {
        Tree::Null => Value::from(()),
        Tree::Bool(b) => Value::from(*b),
        Tree::Number(digits) => {
            digits.parse::<i64>().map_or_else(|_| Value::from(digits.as_str()), Value::from)
        }
        Tree::Text(text) => Value::from(text.as_str()),
        Tree::List(items) => items.iter().map(to_value).collect(),
        Tree::Record(record) => {
            let mut fields: BTreeMap<String, Value> = BTreeMap::new();
            for (name, tree) in record.entries() {
                fields.entry(name.local.to_string()).or_insert_with(|| to_value(tree));
            }
            Value::from_pairs(fields)
        }
    }
}

/// The functions that templates have beside minijinja's own, each with what it does.
pub const FILTERS: &[(&str, &str)] = &[
    ("pounds", "whole pence as pounds with two decimals: `{{ 6250 | pounds }}` is `62.50`"),
    (
        "vat_within",
        "the VAT, in whole pence, within a gross amount in pence at a rate: `{{ 1200 | vat_within(\"0.2\") }}` is `200`",
    ),
    ("percent", "a rate as a percentage: `{{ \"0.2\" | percent }}` is `20`"),
    ("epoch", "seconds since 1970 of an RFC 3339 moment"),
    ("strftime", "a moment by a pattern, in UTC or the zone named: `{{ now | strftime(\"%Y%m%d%H%M%S\") }}`"),
    ("day", "a day by a pattern: `{{ \"2026-11-26\" | day(\"%y%j\") }}` is `26330`"),
    (
        "plus_days",
        "a day so many days later, as `YYYY-MM-DD`: `{{ \"2026-12-31\" | plus_days(1) }}` is `2027-01-01`",
    ),
    (
        "capitals",
        "in capitals without accents, with a space for each character that is neither a letter A to Z, a digit nor among those named: `{{ \"Zoë O'Hara\" | capitals(\".-/&\") }}` is `ZOE O HARA`",
    ),
    ("cut", "at most so many characters from the beginning: `{{ text | cut(35) }}`"),
];

/// Whether what a template wrote says no: nothing at all, or `False`, as truth values are written.
pub fn says_no(text: &str) -> bool {
    matches!(text.trim(), "" | "False" | "false")
}

fn environment(escape: Escape) -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    let syntax = minijinja::syntax::SyntaxConfig::builder().keep_trailing_newline(true).build();
    environment.set_syntax(syntax.unwrap_or_default());
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(50);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    if escape == Escape::Url {
        environment.set_formatter(|out, state, value| {
            if value.is_undefined() {
                return minijinja::escape_formatter(out, state, value);
            }
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            out.write_str(&percent_encode(&text)).map_err(minijinja::Error::from)
        });
    }
    environment.add_filter("pounds", |pence: i64| Decimal::new(pence, 2).to_string());
    environment.add_filter("vat_within", vat_within);
    environment.add_filter("percent", percent);
    environment
        .add_filter("epoch", |moment: String| Ok::<_, minijinja::Error>(timestamp(&moment)?.as_second()));
    environment.add_filter("strftime", strftime);
    environment.add_filter("day", |day: String, pattern: String| {
        jiff::fmt::strtime::format(pattern, civil(&day)?).map_err(|_| wrong("not a strftime pattern"))
    });
    environment.add_filter("plus_days", |day: String, days: i64| {
        let later =
            civil(&day)?.checked_add(jiff::Span::new().try_days(days).map_err(|_| wrong("too many days"))?);
        later.map(|day| day.to_string()).map_err(|_| wrong("too many days"))
    });
    environment.add_filter("capitals", |text: String, also: String| capitals(&text, &also));
    environment.add_filter("cut", |text: String, most: usize| text.chars().take(most).collect::<String>());
    environment
}

fn wrong(what: impl Into<std::borrow::Cow<'static, str>>) -> minijinja::Error {
    minijinja::Error::new(ErrorKind::InvalidOperation, what)
}

fn civil(day: &str) -> Result<jiff::civil::Date, minijinja::Error> {
    day.parse().map_err(|_| wrong("not a day, YYYY-MM-DD"))
}

/// Capital letters without accents, as far as Latin letters have a plain form; what has none becomes a space.
fn capitals(text: &str, also: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            'À'..='Å' | 'à'..='å' | 'Ā'..='ą' => out.push('A'),
            'Æ' | 'æ' => out.push_str("AE"),
            'Ç' | 'ç' | 'Ć'..='č' => out.push('C'),
            'Ð' | 'ð' | 'Ď'..='đ' => out.push('D'),
            'È'..='Ë' | 'è'..='ë' | 'Ē'..='ě' => out.push('E'),
            'Ĝ'..='ģ' => out.push('G'),
            'Ĥ'..='ħ' => out.push('H'),
            'Ì'..='Ï' | 'ì'..='ï' | 'Ĩ'..='ı' => out.push('I'),
            'Ĵ' | 'ĵ' => out.push('J'),
            'Ķ'..='ĸ' => out.push('K'),
            'Ĺ'..='ł' => out.push('L'),
            'Ñ' | 'ñ' | 'Ń'..='ŉ' => out.push('N'),
            'Ò'..='Ö' | 'Ø' | 'ò'..='ö' | 'ø' | 'Ō'..='ő' => out.push('O'),
            'Œ' | 'œ' => out.push_str("OE"),
            'Ŕ'..='ř' => out.push('R'),
            'Ś'..='š' | 'Ș' | 'ș' => out.push('S'),
            'ß' => out.push_str("SS"),
            'Þ' | 'þ' => out.push_str("TH"),
            'Ţ'..='ŧ' | 'Ț' | 'ț' => out.push('T'),
            'Ù'..='Ü' | 'ù'..='ü' | 'Ũ'..='ų' => out.push('U'),
            'Ŵ' | 'ŵ' | 'Ẁ'..='ẅ' => out.push('W'),
            'Ý' | 'ý' | 'ÿ' | 'Ŷ'..='Ÿ' | 'Ỳ' | 'ỳ' => out.push('Y'),
            'Ź'..='ž' => out.push('Z'),
            // A combining accent goes with the letter before it.
            '\u{300}'..='\u{36f}' => {}
            c if c.is_ascii_alphanumeric() => out.push(c.to_ascii_uppercase()),
            c if also.contains(c) => out.push(c),
            _ => out.push(' '),
        }
    }
    out
}

fn timestamp(moment: &str) -> Result<Timestamp, minijinja::Error> {
    moment.parse().map_err(|_| wrong("not an RFC 3339 moment"))
}

fn strftime(moment: String, pattern: String, zone: Option<String>) -> Result<String, minijinja::Error> {
    let zone = match zone {
        Some(name) => TimeZone::get(&name).map_err(|_| wrong("no such time zone"))?,
        None => TimeZone::UTC,
    };
    jiff::fmt::strtime::format(pattern, &timestamp(&moment)?.to_zoned(zone))
        .map_err(|_| wrong("not a strftime pattern"))
}

fn percent(rate: String) -> Result<String, minijinja::Error> {
    let rate: Decimal = rate.parse().map_err(|_| wrong("the rate is not a decimal number"))?;
    Ok((rate * Decimal::ONE_HUNDRED).normalize().to_string())
}

/// gross − gross / (1 + rate), to the nearest penny, halves up (the VAT inside a gross amount).
fn vat_within(gross: i64, rate: String) -> Result<i64, minijinja::Error> {
    let rate: Decimal = rate.parse().map_err(|_| wrong("the VAT rate is not a decimal number"))?;
    let net = Decimal::from(gross)
        .checked_div(Decimal::ONE + rate)
        .ok_or_else(|| wrong("the VAT rate is out of range"))?;
    let vat = (Decimal::from(gross) - net).round_dp_with_strategy(0, RoundingStrategy::MidpointAwayFromZero);
    i64::try_from(vat).map_err(|_| wrong("the amount is out of range"))
}

/// Percent-encodes everything but unreserved characters (RFC 3986 s.2.3).
pub fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for b in text.bytes() {
        match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(b as char),
            b => out.push_str(&format!("%{b:02X}")),
        }
    }
    out
}

/// What was percent-encoded; nothing if a `%` is not followed by two hexadecimal digits or the bytes are not UTF-8.
pub fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(b) = rest.next() {
        let digit = |b: Option<u8>| b.and_then(|b| (b as char).to_digit(16));
        bytes.push(match b {
            b'%' => (digit(rest.next())? * 16 + digit(rest.next())?) as u8,
            b => b,
        });
    }
    String::from_utf8(bytes).ok()
}
