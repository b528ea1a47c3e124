//! Rows of a query as documents: every value by its text as the database writes it, so that no digit passes through a float.

use crate::{
    code::Code,
    tree::{Name, Record, Tree},
    verdict::Failure,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};

/// How many rows a batch holds at most.
pub const BATCH_ROWS: usize = 500;
/// How many bytes a batch holds at most, unless a single row is larger.
pub const BATCH_BYTES: usize = 1 << 20;

/// A column of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// What its values become.
    pub kind: Kind,
    /// The database's own name of its type, for people.
    pub type_name: String,
}

/// What the values of a column become in a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A number with its exact digits.
    Number,
    /// `true` or `false`.
    Truth,
    /// A date, `2026-11-24`: text.
    Date,
    /// Date and time of no zone, `2026-11-24T09:41:06.5`: text.
    Local,
    /// A moment, `2026-11-24T09:41:06.5Z`: text.
    Moment,
    /// Bytes, as base64: text.
    Bytes,
    /// Text, as it is. Everything else as the database writes it.
    Text,
}

impl Kind {
    /// A stable name, to remember it by.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Number => "number",
            Kind::Truth => "boolean",
            Kind::Date => "date",
            Kind::Local => "date and time",
            Kind::Moment => "moment",
            Kind::Bytes => "bytes",
            Kind::Text => "text",
        }
    }

    /// A value from the text that the database writes for it.
    pub fn value(self, text: &str) -> Tree {
        match self {
            Kind::Number => number(text).map_or_else(|| Tree::text(text), Tree::number),
            Kind::Truth => match text {
                "t" | "true" | "1" | "-1" => Tree::Bool(true),
                "f" | "false" | "0" => Tree::Bool(false),
                other => Tree::text(other),
            },
            Kind::Local => Tree::text(with_t(text)),
            Kind::Moment => Tree::text(zoned(with_t(text))),
            Kind::Bytes => match text.strip_prefix("\\x").and_then(unhex) {
                Some(bytes) => Tree::text(STANDARD.encode(bytes)),
                None => Tree::text(text),
            },
            Kind::Date | Kind::Text => Tree::text(text),
        }
    }
}

/// Rows of one query that came together.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The columns, in order.
    pub columns: Vec<Column>,
    /// The rows: a value for each column.
    pub rows: Vec<Vec<Tree>>,
}

impl Batch {
    /// Each row as a document.
    pub fn documents(self) -> Vec<Tree> {
        let names: Vec<Name> = self.columns.iter().map(|column| Name::plain(column.name.as_str())).collect();
        let document = |row: Vec<Tree>| Tree::Record(names.iter().cloned().zip(row).collect::<Record>());
        self.rows.into_iter().map(document).collect()
    }
}

/// Columns of the same name could not be told apart in a document.
///
/// # Errors
/// Names the first such column.
pub fn distinct(columns: &[Column], file: &str) -> Result<(), Failure> {
    let twice = columns
        .iter()
        .enumerate()
        .find(|(index, column)| columns.iter().take(*index).any(|earlier| earlier.name == column.name));
    match twice {
        None => Ok(()),
        Some((_, column)) => {
            let what = format!("`{file}` has two columns `{}`: give one another name with AS", column.name);
            Err(Failure { field: column.name.clone(), ..Failure::not_done(Code::StatementWrong, what) })
        }
    }
}

/// A row that is too large to be taken in.
pub fn too_large(file: &str, number: u64, bytes: usize, limit: u64) -> Failure {
    let what = format!("row {number} of `{file}` has {bytes} bytes; a row may have {limit} (`row_limit`)");
    Failure::not_done(Code::AnswerTooLarge, what)
}

/// The text of a number if it is one in JSON's grammar; drivers leave the zero before the point out.
fn number(text: &str) -> Option<String> {
    let text = text.trim();
    let (sign, rest) = text.strip_prefix('-').map_or(("", text), |rest| ("-", rest));
    let (mantissa, exponent) = match rest.find(['e', 'E']) {
        Some(at) => (rest.get(..at)?, Some(rest.get(at + 1..)?)),
        None => (rest, None),
    };
    let (whole, part) = mantissa.split_once('.').map_or((mantissa, None), |(a, b)| (a, Some(b)));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !part.is_none_or(digits) || whole.is_empty() && part.is_none_or(str::is_empty) {
        return None;
    }
    let whole = match whole.trim_start_matches('0') {
        "" => "0",
        trimmed => trimmed,
    };
    let mut written = format!("{sign}{whole}");
    if let Some(part) = part.filter(|part| !part.is_empty()) {
        written.push('.');
        written.push_str(part);
    }
    if let Some(exponent) = exponent {
        let unsigned = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        if unsigned.is_empty() || !digits(unsigned) {
            return None;
        }
        written.push('e');
        written.push_str(exponent);
    }
    Some(written)
}

/// `2026-11-24 09:41:06` with a `T`; anything else (`infinity`, years before Christ) as it is.
fn with_t(text: &str) -> String {
    let bytes = text.as_bytes();
    let dated = bytes.get(..10).is_some_and(|date| {
        date.iter()
            .enumerate()
            .all(|(at, b)| if at == 4 || at == 7 { *b == b'-' } else { b.is_ascii_digit() })
    });
    match dated && bytes.get(10) == Some(&b' ') && !text.ends_with("BC") {
        true => text.replacen(' ', "T", 1),
        false => text.to_owned(),
    }
}

/// The zone in the form of ISO 8601: `Z`, or hours and minutes.
fn zoned(text: String) -> String {
    let Some(at) = text.rfind(['+', '-']).filter(|at| *at > 10 && text.contains('T')) else { return text };
    let (moment, zone) = text.split_at(at);
    match zone {
        "+00" | "+00:00" => format!("{moment}Z"),
        zone if zone.len() == 3 => format!("{moment}{zone}:00"),
        _ => text,
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).map(|digit| digit as u8)).collect();
    let digits = digits.filter(|digits| digits.len().is_multiple_of(2))?;
    Some(digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_keeps_every_digit_and_becomes_what_json_can_hold() {
        let number = |text| Kind::Number.value(text);
        assert_eq!(number("12345678901234567890.1200"), Tree::number("12345678901234567890.1200"));
        assert_eq!(number("-.5"), Tree::number("-0.5"));
        assert_eq!(number("007"), Tree::number("7"));
        assert_eq!(number("1e+20"), Tree::number("1e+20"));
        for text in ["NaN", "Infinity", "", "-", ".", "1e", "1,5", "£1.20"] {
            assert_eq!(number(text), Tree::text(text));
        }
        assert_eq!(Kind::Truth.value("t"), Tree::Bool(true));
        assert_eq!(Kind::Bytes.value("\\x00ff"), Tree::text("AP8="));
        assert_eq!(Kind::Text.value("ab  "), Tree::text("ab  "));
    }

    #[test]
    fn a_moment_is_written_as_iso_8601_and_what_is_none_stays_as_it_is() {
        let moment = |text| Kind::Moment.value(text).to_plain_text().unwrap();
        assert_eq!(moment("2026-11-24 09:41:06.884+00"), "2026-11-24T09:41:06.884Z");
        assert_eq!(moment("2026-11-24 09:41:06+05:30"), "2026-11-24T09:41:06+05:30");
        assert_eq!(moment("infinity"), "infinity");
        assert_eq!(Kind::Local.value("0001-01-01 00:00:00"), Tree::text("0001-01-01T00:00:00"));
        assert_eq!(Kind::Local.value("0044-03-15 00:00:00 BC"), Tree::text("0044-03-15 00:00:00 BC"));
    }
}
