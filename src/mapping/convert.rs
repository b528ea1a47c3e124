//! Conversions: how one value goes over from event to document and back. Named, typed, documented, each with its errors.

use super::{
    checks,
    codes::{CodeList, Found},
    dates::{DateForm, TimeForm, moment},
    raw::{Case, Check, Money, Side, TextKeys},
};
use crate::{code::Code, event::schema::Kind, tree::Tree};
use jiff::{Timestamp, civil, tz::TimeZone};
use rust_decimal::Decimal;
use std::{borrow::Cow, collections::HashMap, sync::Arc};

/// How a value goes over.
#[derive(Debug, Clone)]
pub enum Conversion {
    /// Text with its rules.
    Text(TextKeys),
    /// A whole number within bounds.
    Integer { min: Option<i64>, max: Option<i64> },
    /// An exact decimal number.
    Decimal { places: Option<u32> },
    /// Pence in the event.
    Money(Money),
    /// A date, in the document's spelling.
    Date(DateForm),
    /// A moment, written like this; the zone is for what does not say its own.
    Time { form: TimeForm, zone: TimeZone },
    /// Two words.
    Boolean { yes: String, no: String },
    /// A code list.
    Codes(Arc<CodeList>),
    /// An identifier with rules.
    Check(Check),
    /// An account reference, by the rules of its fund, or by one rule for all.
    Account { rules: Arc<CodeList>, rule: Option<String> },
    /// The fund whose rules an account reference keeps.
    FundOf { rules: Arc<CodeList> },
    /// A subtree as it is (kept values, free-form groups).
    AsIs,
}

/// What stands beside a value and decides about it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Beside<'a> {
    /// The fund of an account reference.
    pub fund: Option<&'a str>,
    /// The day for which a code must be valid.
    pub day: Option<civil::Date>,
}

/// Why a value was refused. Never holds the value itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The code.
    pub code: Code,
    /// What is wrong with the value.
    pub what: String,
}

/// Refuses a value for this reason.
pub(super) fn refuse<T>(what: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { code: Code::ValueRefused, what: what.into() })
}

/// Every conversion: its key in a row, what it does, what it refuses. The reference is made from this.
pub const CONVERSIONS: &[(&str, &str, &str)] = &[
    (
        "text",
        "text as it is; `max`, `min`, `cut`, `trim`, `case`, `pad`, `refuse`, `keep_empty`, `join`",
        "PH1203 too long; PH1202 too short, or with a character the system refuses",
    ),
    ("integer", "a whole number; a JSON number in JSON", "PH1202 not a whole number, or out of bounds"),
    (
        "decimal",
        "an exact decimal number; text in the event, a JSON number in JSON; trailing zeros mean nothing",
        "PH1202 not a decimal number, or too many places",
    ),
    (
        "money",
        "whole pence in the event; `pence` or `pounds` in the document",
        "PH1202 not an amount, or fractions of a penny",
    ),
    (
        "date",
        "`YYYY-MM-DD` in the event; in the document a strftime pattern, `iso8601` (reading: with or without a time), `bYYDDD` or `YYDDD`; `shift_days`, `pivot`",
        "PH1202 not a date of that pattern, or one that it cannot hold; 0001-01-01",
    ),
    (
        "time",
        "RFC 3339 in UTC in the event; `rfc3339`, `iso8601` or a pattern, and a zone, in the document",
        "PH1202 not a moment of that pattern, or one that summer time leaves out; 0001-01-01",
    ),
    ("boolean", "true or false in the event; two words in the document", "PH1202 another word"),
    (
        "codes",
        "the platform's word in the event, the system's code in the document, by a code list; `codes_at`",
        "PH1204 not in the code list; PH1211 not valid on that day",
    ),
    ("check", "an identifier, written in its one spelling", "PH1205 wrong shape or check digit"),
    (
        "account",
        "an account reference, checked by the rules of its fund or by one rule",
        "PH1205 wrong shape or check digit; a fund without a rule is not checked",
    ),
    (
        "fund_of",
        "the fund in the event whose rules an account reference in the document keeps; to the event only",
        "nothing: where no fund's rules fit, `default` counts",
    ),
];

impl Conversion {
    /// The conversion of a field for which a row names none: what the event's schema says it is.
    pub fn of_kind(kind: Kind) -> Option<Conversion> {
        match kind {
            Kind::Text => Some(Conversion::Text(TextKeys::default())),
            Kind::Integer => Some(Conversion::Integer { min: None, max: None }),
            Kind::Number => Some(Conversion::Decimal { places: None }),
            Kind::Boolean => Some(Conversion::Boolean { yes: "true".to_owned(), no: "false".to_owned() }),
            Kind::Any => Some(Conversion::AsIs),
            Kind::List | Kind::Record => None,
        }
    }

    /// The key it has in a row.
    pub fn name(&self) -> &'static str {
        match self {
            Conversion::Text(_) => "text",
            Conversion::Integer { .. } => "integer",
            Conversion::Decimal { .. } => "decimal",
            Conversion::Money(_) => "money",
            Conversion::Date(_) => "date",
            Conversion::Time { .. } => "time",
            Conversion::Boolean { .. } => "boolean",
            Conversion::Codes(_) => "codes",
            Conversion::Check(_) => "check",
            Conversion::Account { .. } => "account",
            Conversion::FundOf { .. } => "fund_of",
            Conversion::AsIs => "as it is",
        }
    }

    /// Whether it makes sense for a field of this type.
    pub fn fits(&self, kind: Kind) -> bool {
        match self {
            Conversion::Text(keys) if keys.join.is_some() => kind == Kind::List,
            Conversion::Text(_)
            | Conversion::Date(_)
            | Conversion::Time { .. }
            | Conversion::Codes(_)
            | Conversion::Check(_)
            | Conversion::Account { .. }
            | Conversion::FundOf { .. } => matches!(kind, Kind::Text | Kind::Any),
            Conversion::Integer { .. } | Conversion::Money(_) => matches!(kind, Kind::Integer | Kind::Any),
            Conversion::Decimal { .. } => matches!(kind, Kind::Text | Kind::Number | Kind::Any),
            Conversion::Boolean { .. } => matches!(kind, Kind::Boolean | Kind::Any),
            Conversion::AsIs => true,
        }
    }

    /// The document's value for one of the event's; `None` if it counts as absent. `typed` says whether the document knows numbers and truth values.
    ///
    /// # Errors
    /// What the conversion refuses.
    pub fn to_document(
        &self,
        value: &Tree,
        typed: bool,
        beside: Beside<'_>,
    ) -> Result<Option<Tree>, Refusal> {
        let number = |digits: String| if typed { Tree::number(digits) } else { Tree::text(digits) };
        Ok(Some(match self {
            Conversion::AsIs => value.clone(),
            Conversion::Text(keys) => {
                let text = joined(value, keys)?;
                return Ok(text_out(text, keys)?.map(Tree::text));
            }
            Conversion::Integer { min, max } => number(within(whole(value)?, *min, *max)?.to_string()),
            Conversion::Decimal { places } => {
                number(places_of(decimal(value)?, *places)?.normalize().to_string())
            }
            Conversion::Money(Money::Pence) => number(whole(value)?.to_string()),
            Conversion::Money(Money::Pounds) => number(pounds(whole(value)?)?),
            Conversion::Date(form) => Tree::text(form.to_document(day(text_of(value)?)?)?),
            Conversion::Time { form, zone } => Tree::text(form.to_document(moment(text_of(value)?)?, zone)?),
            Conversion::Boolean { yes, no } => match value {
                Tree::Bool(b) if typed && yes == "true" && no == "false" => Tree::Bool(*b),
                Tree::Bool(true) => Tree::text(yes.clone()),
                Tree::Bool(false) => Tree::text(no.clone()),
                other => return refuse(format!("{} stands where true or false is expected", other.kind())),
            },
            Conversion::Codes(list) => {
                Tree::text(coded(list, list.system(text_of(value)?, beside.day), "the platform's word")?)
            }
            Conversion::Check(check) => Tree::text(checked(*check, text_of(value)?)?),
            Conversion::Account { rules, rule } => {
                Tree::text(account(rules, rule.as_deref().or(beside.fund), text_of(value)?)?)
            }
            Conversion::FundOf { .. } => return refuse("a fund leads to no account reference"),
        }))
    }

    /// The event's value for one of the document's; `None` if it counts as absent. `kind` is the type that the event's
    /// schema gives the field.
    ///
    /// # Errors
    /// What the conversion refuses.
    pub fn to_event(&self, value: &Tree, kind: Kind, beside: Beside<'_>) -> Result<Option<Tree>, Refusal> {
        if let Conversion::AsIs = self {
            return Ok(Some(value.clone()));
        }
        if let Conversion::Text(keys) = self {
            return text_in(plain(value)?, keys);
        }
        let text = plain(value)?.trim();
        if text.is_empty() {
            return Ok(None);
        }
        Ok(Some(match self {
            Conversion::AsIs | Conversion::Text(_) => return Ok(None),
            Conversion::Integer { min, max } => Tree::integer(within(whole(value)?, *min, *max)?),
            Conversion::Decimal { places } => {
                let digits = places_of(decimal(value)?, *places)?.normalize().to_string();
                if kind == Kind::Number { Tree::number(digits) } else { Tree::text(digits) }
            }
            Conversion::Money(Money::Pence) => Tree::integer(whole(value)?),
            Conversion::Money(Money::Pounds) => Tree::integer(pence(decimal(value)?)?),
            Conversion::Date(form) => Tree::shown(form.to_event(text)?),
            Conversion::Time { form, zone } => Tree::shown(form.to_event(text, zone)?),
            Conversion::Boolean { yes, no } => match text {
                text if text == yes => Tree::Bool(true),
                text if text == no => Tree::Bool(false),
                _ => return refuse("this is neither of the two words of the row"),
            },
            Conversion::Codes(list) => {
                Tree::text(coded(list, list.platform(text, beside.day), "the system's code")?)
            }
            Conversion::Check(check) => Tree::text(checked(*check, text)?),
            Conversion::Account { rules, rule } => {
                Tree::text(account(rules, rule.as_deref().or(beside.fund), text)?)
            }
            Conversion::FundOf { rules } => return Ok(fund_of(rules, text).map(Tree::text)),
        }))
    }

    /// Whether a document's value is one of those that mean that there is none. Dates count by their day, however they
    /// are spelt.
    pub fn means_none(&self, none: &[String], value: &Tree) -> bool {
        if none.is_empty() {
            return false;
        }
        let Some(text) = value.plain_text().map(str::trim) else { return false };
        none.iter().any(|word| {
            word.trim() == text
                || match self {
                    Conversion::Date(form) => {
                        matches!((form.read(word.trim()), form.read(text)), (Ok(a), Ok(b)) if a == b)
                    }
                    Conversion::Integer { .. } | Conversion::Decimal { .. } | Conversion::Money(_) => {
                        matches!((word.trim().parse::<Decimal>(), text.parse::<Decimal>()), (Ok(a), Ok(b)) if a == b)
                    }
                    Conversion::Text(_)
                    | Conversion::Time { .. }
                    | Conversion::Boolean { .. }
                    | Conversion::Codes(_)
                    | Conversion::Check(_)
                    | Conversion::Account { .. }
                    | Conversion::FundOf { .. }
                    | Conversion::AsIs => false,
                }
        })
    }

    /// What a document holds where the event has no value, if the row names something for it.
    pub fn none_written(&self, none: &[String], typed: bool) -> Option<Tree> {
        let word = none.first().filter(|word| !word.is_empty())?;
        Some(match self {
            Conversion::Integer { .. } | Conversion::Decimal { .. } | Conversion::Money(_) if typed => {
                Tree::number(word.clone())
            }
            Conversion::Text(_)
            | Conversion::Integer { .. }
            | Conversion::Decimal { .. }
            | Conversion::Money(_)
            | Conversion::Date(_)
            | Conversion::Time { .. }
            | Conversion::Boolean { .. }
            | Conversion::Codes(_)
            | Conversion::Check(_)
            | Conversion::Account { .. }
            | Conversion::FundOf { .. }
            | Conversion::AsIs => Tree::text(word.clone()),
        })
    }

    /// Whether two values of the event mean the same under this conversion: for the laws. A moment in two zones is one
    /// moment, 0.20 is 0.2, a postcode without its space is the same postcode.
    pub fn same(&self, a: &Tree, b: &Tree) -> bool {
        if a == b {
            return true;
        }
        let (Some(a), Some(b)) = (a.to_plain_text(), b.to_plain_text()) else { return false };
        match self {
            Conversion::Time { .. } => {
                matches!((a.parse::<Timestamp>(), b.parse::<Timestamp>()), (Ok(a), Ok(b)) if a == b)
            }
            Conversion::Decimal { .. } | Conversion::Integer { .. } | Conversion::Money(_) => {
                matches!((a.parse::<Decimal>(), b.parse::<Decimal>()), (Ok(a), Ok(b)) if a == b)
            }
            Conversion::Check(check) => {
                matches!((checks::normalise(*check, &a), checks::normalise(*check, &b)), (Ok(a), Ok(b)) if a == b)
            }
            Conversion::Text(keys) => match keys.case {
                Some(_) => a.eq_ignore_ascii_case(&b),
                None => a == b,
            },
            Conversion::Date(_)
            | Conversion::Boolean { .. }
            | Conversion::Codes(_)
            | Conversion::Account { .. }
            | Conversion::FundOf { .. }
            | Conversion::AsIs => a == b,
        }
    }
}

fn coded(list: &CodeList, found: Found<'_>, which: &str) -> Result<String, Refusal> {
    let (code, what) = match found {
        Found::Code(code) => return Ok(code.to_owned()),
        Found::Unknown => (Code::UnknownCode, format!("{which} is not in it")),
        Found::Withdrawn(day) => {
            (Code::CodeNotValid, format!("{which} was withdrawn: the last day was {day}"))
        }
        Found::NotYet(day) => (Code::CodeNotValid, format!("{which} is valid from {day} only")),
    };
    Err(Refusal { code, what: format!("code list `{}`: {what}", list.name) })
}

fn day(text: &str) -> Result<civil::Date, Refusal> {
    text.parse().or_else(|_| refuse("this is not a date YYYY-MM-DD"))
}

fn text_of(value: &Tree) -> Result<&str, Refusal> {
    match value.as_text() {
        Some(text) => Ok(text),
        None => refuse(format!("{} stands where text is expected", value.kind())),
    }
}

/// A value as text, however the document writes it.
fn plain(value: &Tree) -> Result<&str, Refusal> {
    match value.plain_text() {
        Some(text) => Ok(text),
        None if matches!(value, Tree::Record(_)) => {
            refuse("a group of fields stands where a plain value is expected")
        }
        None => refuse(format!("{} stands where a plain value is expected", value.kind())),
    }
}

fn decimal(value: &Tree) -> Result<Decimal, Refusal> {
    let text = plain(value)?.trim();
    let parsed = Decimal::from_str_exact(text).or_else(|error| match text.contains(['e', 'E']) {
        true => Decimal::from_scientific(text),
        false => Err(error),
    });
    parsed.or_else(|_| refuse("this is not a decimal number of at most 28 digits"))
}

fn whole(value: &Tree) -> Result<i64, Refusal> {
    let text = plain(value)?;
    if let Ok(number) = text.trim().parse::<i64>() {
        return Ok(number);
    }
    let number = decimal(value).or_else(|_| refuse("this is not a whole number"))?;
    if !number.fract().is_zero() {
        return refuse("this is not a whole number");
    }
    i64::try_from(number).or_else(|_| refuse("this number is out of range"))
}

fn within(number: i64, min: Option<i64>, max: Option<i64>) -> Result<i64, Refusal> {
    match (min, max) {
        (Some(min), _) if number < min => refuse(format!("the number is smaller than {min}")),
        (_, Some(max)) if number > max => refuse(format!("the number is larger than {max}")),
        _ => Ok(number),
    }
}

fn places_of(number: Decimal, places: Option<u32>) -> Result<Decimal, Refusal> {
    match places {
        Some(places) if number.normalize().scale() > places => {
            refuse(format!("the number has more than {places} digits behind the point"))
        }
        _ => Ok(number),
    }
}

fn pounds(pence: i64) -> Result<String, Refusal> {
    Ok(Decimal::new(pence, 2).to_string())
}

fn pence(pounds: Decimal) -> Result<i64, Refusal> {
    let pence = pounds.checked_mul(Decimal::ONE_HUNDRED);
    let Some(pence) = pence.filter(|pence| pence.fract().is_zero()) else {
        return refuse("the amount has fractions of a penny, or is out of range");
    };
    i64::try_from(pence).or_else(|_| refuse("the amount is out of range"))
}

fn checked(check: Check, text: &str) -> Result<String, Refusal> {
    checks::normalise(check, text).map_err(|what| Refusal { code: Code::CheckDigitWrong, what })
}

fn account(rules: &CodeList, fund: Option<&str>, text: &str) -> Result<String, Refusal> {
    let rule: Option<&HashMap<String, String>> =
        fund.and_then(|fund| rules.rows.iter().find(|row| row.get("fund").is_some_and(|f| f == fund)));
    match rule.map(|rule| checks::account(rule, text)) {
        Some(Err(what)) => Err(Refusal { code: Code::CheckDigitWrong, what }),
        Some(Ok(())) | None => Ok(text.to_owned()),
    }
}

/// The first fund whose rules the account reference keeps.
fn fund_of(rules: &CodeList, text: &str) -> Option<String> {
    let row = rules.rows.iter().find(|row| checks::account(row, text).is_ok())?;
    row.get("fund").cloned()
}

fn joined(value: &Tree, keys: &TextKeys) -> Result<String, Refusal> {
    match (&keys.join, value) {
        (Some(separator), Tree::List(items)) => {
            let parts: Vec<&str> = items.iter().map(text_of).collect::<Result<_, _>>()?;
            match parts.iter().any(|part| part.contains(separator.as_str())) {
                true => refuse("one of the texts holds the separator with which they are to be joined"),
                false => Ok(parts.join(separator)),
            }
        }
        (None, Tree::Number(digits)) => Ok(digits.to_string()),
        _ => Ok(text_of(value)?.to_owned()),
    }
}

fn text_out(text: String, keys: &TextKeys) -> Result<Option<String>, Refusal> {
    if text.is_empty() && !keys.keep_empty {
        return Ok(None);
    }
    let mut text = match keys.case {
        Some(Case::Upper) => text.to_uppercase(),
        Some(Case::Lower) => text.to_lowercase(),
        None => text,
    };
    if let Some(refused) =
        keys.refuse.as_ref().and_then(|refused| text.chars().find(|c| refused.contains(*c)))
    {
        return refuse(format!("the system refuses the character `{refused}`"));
    }
    text = bounded(&text, keys)?.into_owned();
    if let Some(pad) = &keys.pad {
        let missing: String =
            std::iter::repeat_n(pad.with, pad.width.saturating_sub(text.chars().count())).collect();
        text = match pad.side {
            Side::Left => missing + &text,
            Side::Right => text + &missing,
        };
    }
    Ok(Some(text))
}

/// A text of the right length, cut to it where that is allowed.
fn bounded<'t>(text: &'t str, keys: &TextKeys) -> Result<Cow<'t, str>, Refusal> {
    let length = text.chars().count();
    let what = |wanted: String| format!("the text has {length} characters; {wanted}");
    if let Some(min) = keys.min.filter(|min| length < *min) {
        return refuse(what(format!("at least {min} are wanted")));
    }
    match keys.max.filter(|max| length > *max) {
        None => Ok(Cow::Borrowed(text)),
        Some(max) if keys.cut => {
            Ok(Cow::Owned(text.chars().take(max).collect::<String>().trim_end().to_owned()))
        }
        Some(max) => Err(Refusal { code: Code::TextTooLong, what: what(format!("at most {max} fit")) }),
    }
}

fn text_in(text: &str, keys: &TextKeys) -> Result<Option<Tree>, Refusal> {
    let mut text = if keys.trim { text.trim() } else { text };
    if let Some(pad) = &keys.pad {
        text = match pad.side {
            Side::Left => text.trim_start_matches(pad.with),
            Side::Right => text.trim_end_matches(pad.with),
        };
    }
    if text.is_empty() && !keys.keep_empty {
        return Ok(None);
    }
    Ok(Some(match &keys.join {
        Some(separator) => Tree::List(text.split(separator.as_str()).map(Tree::text).collect()),
        None => Tree::text(bounded(text, keys)?),
    }))
}
