//! What a sample's values say about how they are written: which conversion makes them what the event's schema wants, or
//! that none does. Every conversion proposed here takes every value of the sample.

use crate::{
    event::schema::{Field, Kind},
    mapping::{
        checks,
        convert::{Beside, Conversion},
        dates::{DateForm, TimeForm},
        raw::{BooleanKeys, Check, Money, RowKeys, TextKeys, TimeKeys},
    },
    tree::Tree,
};
use jiff::tz::TimeZone;
use std::collections::BTreeSet;

/// How values go over.
#[derive(Debug, Clone, Default)]
pub struct Way {
    /// The row with its conversion, otherwise empty.
    pub row: RowKeys,
    /// What about the values led to it; empty where they say nothing.
    pub why: String,
    /// Pairs of a code list that has to be written: the platform's word, the system's code.
    pub codes: Vec<(String, String)>,
}

/// Patterns of dates, the likeliest first.
const DATES: [(&str, &str); 11] = [
    ("%Y-%m-%d", "years first"),
    ("%d/%m/%Y", "day, month, year"),
    ("%d-%m-%Y", "day, month, year"),
    ("%d.%m.%Y", "day, month, year"),
    ("%Y%m%d", "eight digits, years first"),
    ("%d%m%Y", "eight digits, days first"),
    ("%d/%m/%y", "a year of two digits, which says no century"),
    ("%d-%b-%Y", "months in letters"),
    ("%d %b %Y", "months in letters"),
    ("%d %B %Y", "months in letters"),
    ("%m/%d/%Y", "months first: some day is above 12"),
];

/// Patterns of moments.
const MOMENTS: [&str; 6] = [
    "%d/%m/%Y %H:%M:%S",
    "%d/%m/%Y %H:%M",
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%d %H:%M",
    "%Y%m%d%H%M%S",
    "%d-%b-%Y %H:%M:%S",
];

/// The words for true and false, true first.
const WORDS: [(&str, &str); 12] = [
    ("Y", "N"),
    ("y", "n"),
    ("Yes", "No"),
    ("yes", "no"),
    ("YES", "NO"),
    ("true", "false"),
    ("True", "False"),
    ("TRUE", "FALSE"),
    ("T", "F"),
    ("1", "0"),
    ("-1", "0"),
    ("on", "off"),
];

/// The way from these values (of one place, in all records) to this field; `Err` says in words why there is none.
///
/// # Errors
/// What the values are that the field cannot be.
pub fn way(field: &Field, values: &[String]) -> Result<Way, String> {
    let given: Vec<&str> =
        values.iter().map(|value| value.trim()).filter(|value| !value.is_empty()).collect();
    let every = |test: &dyn Fn(&str) -> bool| given.iter().all(|value| test(value));
    if let Some(listed) = &field.values {
        return words_of_a_list(listed, field, &given);
    }
    match (field.kind, field.format.as_deref()) {
        (Kind::Text, Some("date")) => date(&given),
        (Kind::Text, Some("date-time")) => moment(&given),
        (Kind::Text, _) => Ok(text(field, values, &given)),
        (Kind::Integer, _) if is_money(field) => money(&given),
        (Kind::Integer, _) => match every(&|value| value.parse::<i64>().is_ok()) {
            true => Ok(Way { why: seen(&given, "whole numbers"), ..Way::default() }),
            false => Err("its values are no whole numbers".to_owned()),
        },
        (Kind::Number, _) => match every(&|value| rust_decimal::Decimal::from_str_exact(value).is_ok()) {
            true => Ok(Way { why: seen(&given, "numbers"), ..Way::default() }),
            false => Err("its values are no numbers".to_owned()),
        },
        (Kind::Boolean, _) => boolean(&given),
        (Kind::List, _) if field.items.as_ref().is_some_and(|items| items.kind == Kind::Text) => {
            let join =
                [", ", "; ", ",", ";", "|"].into_iter().find(|join| given.iter().any(|v| v.contains(join)));
            let join = join.unwrap_or(", ");
            let row = RowKeys {
                text: Some(TextKeys { join: Some(join.to_owned()), ..TextKeys::default() }),
                ..RowKeys::default()
            };
            Ok(Way { row, why: format!("several texts in one, parted by `{join}`"), ..Way::default() })
        }
        (Kind::Any, _) => Ok(Way::default()),
        (Kind::List | Kind::Record, _) => Err("the event wants a group of fields".to_owned()),
    }
}

/// The identifier that all of these values are, by shape and check digit, if there is a check digit: only that is proof.
pub fn proven(values: &[String]) -> Option<Check> {
    let given: BTreeSet<&str> =
        values.iter().map(|value| value.trim()).filter(|value| !value.is_empty()).collect();
    let all = |check| !given.is_empty() && given.iter().all(|value| checks::normalise(check, value).is_ok());
    [Check::NhsNumber, Check::Nino].into_iter().find(|check| all(*check))
}

/// Whether the field holds pence: its schema says so.
fn is_money(field: &Field) -> bool {
    field.description.to_lowercase().contains("pence")
        || super::names::words(&field.name).iter().any(|word| {
            matches!(
                word.as_str(),
                "amount" | "gross" | "net" | "fee" | "balance" | "price" | "charge" | "cost" | "rent"
            )
        })
}

fn seen(given: &[&str], what: &str) -> String {
    match given.is_empty() {
        true => "the sample has no value there".to_owned(),
        false => format!("its values are {what}"),
    }
}

fn date(given: &[&str]) -> Result<Way, String> {
    let fits = |pattern: &str| {
        let conversion = Conversion::Date(DateForm::plain(pattern));
        given.iter().all(|value| {
            let year = |text: &str| text.get(..4).and_then(|year| year.parse::<i32>().ok());
            match conversion.to_event(&Tree::text(*value), Kind::Text, Beside::default()) {
                Ok(Some(tree)) => {
                    tree.as_text().and_then(year).is_some_and(|year| (1850..2200).contains(&year))
                }
                Ok(None) | Err(_) => false,
            }
        })
    };
    let mut fitting = DATES.iter().filter(|(pattern, _)| fits(pattern));
    let Some((pattern, words)) = fitting.next() else {
        return Err("its values are no dates in any usual spelling".to_owned());
    };
    let why = match fitting.next() {
        _ if given.is_empty() => {
            "the sample has no value there: the pattern of the date is anybody's guess".to_owned()
        }
        Some((other, _)) => format!("its values are dates ({words}), and could as well be `{other}`"),
        None => format!("its values are dates ({words})"),
    };
    Ok(Way {
        row: RowKeys { date: Some((*pattern).to_owned()), ..RowKeys::default() },
        why,
        ..Way::default()
    })
}

fn moment(given: &[&str]) -> Result<Way, String> {
    let fits = |form: &str| {
        let conversion = Conversion::Time { form: TimeForm::of(form), zone: TimeZone::UTC };
        given.iter().all(|value| {
            matches!(conversion.to_event(&Tree::text(*value), Kind::Text, Beside::default()), Ok(Some(_)))
        })
    };
    let Some(form) = ["rfc3339", "iso8601"].into_iter().chain(MOMENTS).find(|form| fits(form)) else {
        return Err("its values are no moments in any usual spelling".to_owned());
    };
    let zone = (form != "rfc3339").then(|| "Europe/London".to_owned());
    let why = match (given.is_empty(), &zone) {
        (true, _) => "the sample has no value there: its pattern is anybody's guess".to_owned(),
        (false, None) => "its values are moments with their offset".to_owned(),
        (false, Some(_)) => {
            "its values are moments that do not say their zone: taken for London's".to_owned()
        }
    };
    let time = Some(TimeKeys { pattern: form.to_owned(), zone });
    Ok(Way { row: RowKeys { time, ..RowKeys::default() }, why, ..Way::default() })
}

fn money(given: &[&str]) -> Result<Way, String> {
    let row = |money| RowKeys { money: Some(money), ..RowKeys::default() };
    let all = |money| {
        let conversion = Conversion::Money(money);
        given
            .iter()
            .all(|value| conversion.to_event(&Tree::text(*value), Kind::Integer, Beside::default()).is_ok())
    };
    let pointed = given.iter().any(|value| value.contains('.'));
    match (given.is_empty(), pointed) {
        (true, _) => Ok(Way {
            row: row(Money::Pounds),
            why: "the sample has no value there: pounds or pence is anybody's guess".to_owned(),
            ..Way::default()
        }),
        (false, true) if all(Money::Pounds) => Ok(Way {
            row: row(Money::Pounds),
            why: "its values have a decimal point: taken for pounds".to_owned(),
            ..Way::default()
        }),
        (false, false) if all(Money::Pence) => Ok(Way {
            row: row(Money::Pence),
            why: "its values are whole numbers: taken for pence, and they could be pounds".to_owned(),
            ..Way::default()
        }),
        _ => Err("its values are no plain amounts".to_owned()),
    }
}

fn boolean(given: &[&str]) -> Result<Way, String> {
    let fits = |(yes, no): &&(&str, &str)| given.iter().all(|value| value == yes || value == no);
    let Some((yes, no)) = WORDS.iter().find(fits) else {
        return Err("its values are not two words for yes and no".to_owned());
    };
    let why = seen(given, &format!("`{yes}` or `{no}`"));
    let row = RowKeys {
        boolean: Some(BooleanKeys { yes: (*yes).to_owned(), no: (*no).to_owned() }),
        ..RowKeys::default()
    };
    Ok(Way { row, why, ..Way::default() })
}

/// Values of a list that the schema has: as they are, or by a code list where each can be told.
fn words_of_a_list(listed: &[serde_json::Value], field: &Field, given: &[&str]) -> Result<Way, String> {
    if field.kind == Kind::Boolean {
        return boolean(given);
    }
    let listed: Vec<&str> = listed.iter().filter_map(serde_json::Value::as_str).collect();
    if given.iter().all(|value| listed.contains(value)) {
        return Ok(Way { why: seen(given, "the words of the event's schema"), ..Way::default() });
    }
    let distinct: BTreeSet<&str> = given.iter().copied().collect();
    let mut codes: Vec<(String, String)> = Vec::new();
    for code in distinct {
        let small = code.to_lowercase();
        let plain = |word: &str| word.to_lowercase().replace(['-', '_'], " ");
        let like: Vec<&&str> = listed
            .iter()
            .filter(|word| plain(word) == small.replace(['-', '_'], " ") || plain(word).starts_with(&small))
            .collect();
        let exact = like.iter().find(|word| plain(word) == small.replace(['-', '_'], " "));
        match (exact, like.as_slice()) {
            (Some(word), _) | (None, [word]) => codes.push(((***word).to_owned(), code.to_owned())),
            _ => {
                return Err(format!(
                    "its value `{code}` is none of the event's words: write a code list for it"
                ));
            }
        }
    }
    let words: BTreeSet<&String> = codes.iter().map(|(word, _)| word).collect();
    if words.len() != codes.len() {
        return Err(
            "its values are not one for each of the event's words: write a code list for it".to_owned()
        );
    }
    Ok(Way {
        why: "its values look like the event's words, by a code list that is a guess as well".to_owned(),
        codes,
        ..Way::default()
    })
}

fn text(field: &Field, values: &[String], given: &[&str]) -> Way {
    let named = super::names::words(&field.name);
    let has = |words: &[&str]| words.iter().all(|word| named.contains(*word));
    let named = [
        (Check::NhsNumber, has(&["nhs", "number"]), "NHS numbers with the right check digit"),
        (Check::Nino, has(&["nino"]), "NI numbers"),
        (Check::Uprn, has(&["uprn"]), "UPRNs by their shape"),
        (Check::Postcode, has(&["postcode"]), "postcodes"),
    ];
    for (check, _, words) in named.iter().filter(|(_, named, _)| *named) {
        if given.iter().all(|value| checks::normalise(*check, value).is_ok()) {
            let row = RowKeys { check: Some(*check), ..RowKeys::default() };
            return Way { row, why: seen(given, words), ..Way::default() };
        }
    }
    let padded = values.iter().any(|value| value.trim() != value);
    let text = padded.then(|| TextKeys { trim: true, ..TextKeys::default() });
    let why = if padded { "its values are padded with blanks" } else { "" };
    Way { row: RowKeys { text, ..RowKeys::default() }, why: why.to_owned(), ..Way::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::schema::EventSchema;

    fn field(schema: serde_json::Value) -> Field {
        let document = serde_json::json!({
            "$id": "x", "x-event-type": "x.v1", "type": "object", "properties": { "it": schema }
        });
        EventSchema::compile(document).unwrap().root.fields.remove(0)
    }

    fn try_way(schema: serde_json::Value, values: &[&str]) -> Result<Way, String> {
        way(&field(schema), &values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn a_day_above_twelve_tells_days_from_months_and_otherwise_the_guess_says_so() {
        let date = || serde_json::json!({ "type": "string", "format": "date" });
        let pattern = |values: &[&str]| try_way(date(), values).unwrap().row.date.unwrap();
        assert_eq!(pattern(&["2026-11-24"]), "%Y-%m-%d");
        assert_eq!(pattern(&["24/11/2026", "01/02/2026"]), "%d/%m/%Y");
        assert_eq!(pattern(&["02/24/2026"]), "%m/%d/%Y");
        assert_eq!(pattern(&["20261124"]), "%Y%m%d");
        assert_eq!(pattern(&["24112026"]), "%d%m%Y");
        assert!(try_way(date(), &["01/02/2026"]).unwrap().why.contains("%m/%d/%Y"));
        assert!(try_way(date(), &["2026-11-24", "24/11/2026"]).is_err());
    }

    #[test]
    fn a_point_tells_pounds_and_whole_numbers_are_taken_for_pence() {
        let money = || serde_json::json!({ "type": "integer", "description": "In pence." });
        assert_eq!(try_way(money(), &["12.50", "3"]).unwrap().row.money, Some(Money::Pounds));
        assert_eq!(try_way(money(), &["1250"]).unwrap().row.money, Some(Money::Pence));
        assert!(try_way(money(), &["£12.50"]).is_err());
        assert!(try_way(money(), &["1.505"]).is_err());
    }

    #[test]
    fn words_for_yes_and_no_are_known_from_one_of_them() {
        let truth = || serde_json::json!({ "type": "boolean" });
        let words = |values: &[&str]| {
            let words = try_way(truth(), values).unwrap().row.boolean.unwrap();
            (words.yes, words.no)
        };
        assert_eq!(words(&["N"]), ("Y".to_owned(), "N".to_owned()));
        assert_eq!(words(&["1", "0"]), ("1".to_owned(), "0".to_owned()));
        assert!(try_way(truth(), &["perhaps"]).is_err());
    }

    #[test]
    fn a_list_of_words_becomes_a_code_list_only_where_every_value_can_be_told() {
        let list = || serde_json::json!({ "type": "string", "enum": ["male", "female", "not-known"] });
        assert_eq!(try_way(list(), &["M", "F", "M"]).unwrap().codes.len(), 2);
        assert!(try_way(list(), &["male", "female"]).unwrap().codes.is_empty());
        assert_eq!(
            try_way(list(), &["Not Known"]).unwrap().codes,
            [("not-known".to_owned(), "Not Known".to_owned())]
        );
        assert!(try_way(list(), &["1", "2"]).is_err());
    }

    #[test]
    fn identifiers_are_known_by_their_check_digits_whatever_they_are_called() {
        let values = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>();
        assert_eq!(proven(&values(&["943 476 5919", ""])), Some(Check::NhsNumber));
        assert_eq!(proven(&values(&["AB123456C"])), Some(Check::Nino));
        assert_eq!(proven(&values(&["9434765918"])), None);
        assert_eq!(proven(&values(&["", ""])), None);
    }
}
