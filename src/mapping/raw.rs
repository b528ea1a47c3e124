//! A mapping file exactly as written. The doc comments here are the reference and the editor's help: one home per key.
//!
//! Nothing is checked here beyond the types; [`super::compile`] says what it means.

use crate::format::Format;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A mapping: the table that translates between one type of event and one document of a system, in both directions.
/// Stands at `mappings/<system>/<document>.toml`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MappingFile {
    /// The version of this file format: 1.
    pub version: u32,
    /// One sentence: what the document is and where the system's makers describe it.
    pub about: String,
    /// The type of the event, with its version: `payment.requested.v1`. Its schema stands in `mappings/events/`.
    pub event: String,
    /// The direction, if the mapping works in one only.
    pub only: Option<Direction>,
    /// How the document is written.
    pub document: DocumentKeys,
    /// The table: one row a field, in the order of the document.
    pub fields: Vec<RowKeys>,
    /// Parts of the document that nobody maps and that are known to be there. What is neither mapped nor named here is
    /// reported as drift when it first occurs.
    #[serde(default)]
    pub ignore: Vec<String>,
}

/// The document's side.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DocumentKeys {
    /// The format.
    pub format: Format,
    /// The root element (XML and SOAP; in SOAP the element inside the body), with its prefix: `s:scpSimpleInvokeRequest`.
    pub root: Option<String>,
    /// The namespaces by prefix (XML and SOAP). The empty prefix is the default namespace.
    #[serde(default)]
    pub namespaces: BTreeMap<String, String>,
    /// The layout of the record (CSV, fixed width; JSON and XML where the documents come from files of records), by its
    /// name in `mappings/layouts/`.
    pub layout: Option<String>,
    /// The character encoding to write in, if it is not UTF-8: `windows-1252`.
    pub encoding: Option<String>,
}

/// A direction of translation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// From the event to the system's document.
    ToDocument,
    /// From the system's document to the event.
    ToEvent,
}

/// One row of the table. It names a field of the event, a place in the document, or both, and how values go over.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RowKeys {
    /// The field of the event's data: `payer.name`, `lines[]` for a repeated group, `lines[1]` for its first. With a
    /// dollar an attribute of the event itself: `$id`, `$subject`, `$time`, `$source`, `$type`.
    pub event: Option<String>,
    /// The place in the document: `b:routing/b:returnUrl`, `@currency` for an attribute, `items/item[]` for a repeated
    /// group, `line_{n}[]` for fields that are numbered in their names.
    pub document: Option<String>,

    /// A fixed value, instead of one from the other side.
    pub constant: Option<String>,
    /// The adapter's setting of this name, instead of a value from the other side.
    pub setting: Option<String>,
    /// The value of this name computed by the adapter (`[values]`, `[sign]`), instead of one from the other side.
    pub value: Option<String>,
    /// What was kept from what caused this: a field of the event that asked for it, or a value that was kept when an
    /// item was opened.
    pub cause: Option<String>,
    /// A text computed by a minijinja template from `event`, `document`, `settings`, `values`, `cause` and `now`.
    pub template: Option<String>,
    /// What counts if the source has nothing here, in the event's terms.
    pub default: Option<String>,
    /// Whether a missing value is an error. Fields that the event's schema requires are required anyway.
    #[serde(default)]
    pub required: bool,
    /// The direction, if the row holds in one only.
    pub only: Option<Direction>,
    /// The row counts only if all of these hold.
    #[serde(default)]
    pub when: Vec<ConditionKeys>,
    /// That this row loses something, and what: it is left out of the laws.
    pub lossy: Option<String>,

    /// That this row was guessed, and from what: `packhorse new` writes it, `check` repeats it until a person has looked and
    /// taken it out. It changes nothing in what the row does.
    pub guess: Option<String>,

    /// The value is text; its length and spelling.
    pub text: Option<TextKeys>,
    /// The value is a whole number.
    pub integer: Option<RangeKeys>,
    /// The value is a decimal number, exact, never a float; text in the event.
    pub decimal: Option<DecimalKeys>,
    /// The value is an amount: whole pence in the event, pence or pounds in the document.
    pub money: Option<Money>,
    /// With `money`: the largest amount that the system takes, in pence.
    pub max_pence: Option<i64>,
    /// The value is a date: `YYYY-MM-DD` in the event, written in the document by this strftime pattern: `%d/%m/%Y`.
    /// `iso8601` is written `YYYY-MM-DD` and read with or without a time behind it, as databases give dates; `bYYDDD` and
    /// `YYDDD` are Bacs's year and day of the year. Patterns parted by `|` are all read, and the first is written.
    pub date: Option<String>,
    /// With `date`: the event's date is so many days later than the document's. `1` for an end that the document gives as
    /// the last day and the event as the day after; `-1` for the other way round.
    pub shift_days: Option<i32>,
    /// With `date` and a two-digit year: years from this one on (1 to 100) are 19xx, those before it 20xx. Without it 69
    /// to 99 are 19xx.
    pub pivot: Option<i16>,
    /// What the document holds where there is no value: `["2099-12-31"]`, `["-1"]`. Read as absent; the first of them is
    /// written where the event has none, unless it is empty. A value of the event that would be read so is refused.
    #[serde(default)]
    pub none: Vec<String>,
    /// The value is a moment: RFC 3339 in the event, written in the document as stated.
    pub time: Option<TimeKeys>,
    /// The value is true or false in the event, two words in the document.
    pub boolean: Option<BooleanKeys>,
    /// The value is translated by the code list of this name in `mappings/codes/`.
    pub codes: Option<String>,
    /// With `codes`: the event's field, in a row above, that says on which day the code must be valid. Otherwise it is
    /// the day, in London, on which the message is mapped. Only for lists with columns `from` and `until`.
    pub codes_at: Option<String>,
    /// The value must have the right shape and check digit.
    pub check: Option<Check>,
    /// The value is an account reference, checked by the rules of this code list: by those of the fund named beside it, or
    /// by the one named here.
    pub account: Option<AccountKeys>,
    /// The value is an account reference, and becomes the fund whose rules in this code list it keeps, the first that
    /// fits; `default` where none does. To the event only.
    pub fund_of: Option<String>,
    /// In JSON, write a number or truth value as text.
    #[serde(default)]
    pub quoted: bool,
    /// The amounts at this path of the event must add up to this row's value.
    pub sum: Option<String>,

    /// The rows of a group, relative to it.
    #[serde(default)]
    pub fields: Vec<RowKeys>,
    /// The group is one text with its fields parted by this character; `document` in its rows is their position: `1`.
    pub packed: Option<String>,
    /// With `packed`: the whole text has at most so many characters. A text in it that may be cut (`cut`) makes room.
    pub packed_max: Option<usize>,
    /// With `fields`: the document holds at most so many of the group; an event with more is refused.
    pub most: Option<usize>,
}

/// A condition on a field. One of `event` and `document` says where; then `is`, `not` or `present`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConditionKeys {
    /// A field of the event's data.
    pub event: Option<String>,
    /// A place in the document.
    pub document: Option<String>,
    /// The value is one of these.
    pub is: Option<Vec<String>>,
    /// The value is none of these, or absent.
    pub not: Option<Vec<String>>,
    /// The value is there, or is not there. Null and empty text count as absent.
    pub present: Option<bool>,
    /// The value is a number below zero, or is none.
    pub below_zero: Option<bool>,
}

/// Rules for text.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TextKeys {
    /// At most so many characters.
    pub max: Option<usize>,
    /// At least so many characters.
    pub min: Option<usize>,
    /// Cut a longer text at `max`, instead of refusing it. Say in `lossy` why that is right.
    #[serde(default)]
    pub cut: bool,
    /// Take white space off both ends when reading the document.
    #[serde(default)]
    pub trim: bool,
    /// Write the document in capitals or small letters.
    pub case: Option<Case>,
    /// Pad to this width when writing the document, take the padding off when reading it.
    pub pad: Option<PadKeys>,
    /// Characters that the system refuses; a text with one of them is refused with a clear error here.
    pub refuse: Option<String>,
    /// Keep an empty text as a value of its own. Otherwise empty means absent, in both directions.
    #[serde(default)]
    pub keep_empty: bool,
    /// The texts of a list in the event, joined by this in the document.
    pub join: Option<String>,
}

/// Padding.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PadKeys {
    /// How many characters wide.
    pub width: usize,
    /// The character to pad with.
    pub with: char,
    /// On which side.
    pub side: Side,
}

/// A side of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// Before the text.
    Left,
    /// Behind the text.
    Right,
}

/// Capitals or small letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Case {
    /// CAPITALS.
    Upper,
    /// small letters.
    Lower,
}

/// Bounds of a whole number.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RangeKeys {
    /// The smallest value allowed.
    pub min: Option<i64>,
    /// The largest value allowed.
    pub max: Option<i64>,
}

/// Rules for a decimal number.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DecimalKeys {
    /// At most so many digits behind the point.
    pub places: Option<u32>,
}

/// How a document writes money.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Money {
    /// Whole pence: 6250.
    Pence,
    /// Pounds with two decimals: 62.50.
    Pounds,
}

/// How a document writes a moment.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TimeKeys {
    /// The strftime pattern: `%Y-%m-%dT%H:%M:%S`. `rfc3339` for RFC 3339 with an offset.
    /// `iso8601` for a moment as `xs:dateTime` has it: by its own offset where it brings one, in `zone` where not.
    pub pattern: String,
    /// The time zone that the pattern is in, if it does not say; `Europe/London` unless stated. In the hour that occurs twice in
    /// autumn the first is meant.
    pub zone: Option<String>,
}

/// The words of a document for true and false.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BooleanKeys {
    /// The word for true.
    pub yes: String,
    /// The word for false.
    pub no: String,
}

/// Identifiers that can be checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// NHS number: ten digits, the last by modulus 11; ranges that are not patients are refused.
    NhsNumber,
    /// Unique property reference number: 1 to 12 digits.
    Uprn,
    /// National Insurance number, as HMRC checks it.
    Nino,
    /// National Insurance number as DWP's interface to councils takes it: without its last letter too, and with Q.
    NinoDwp,
    /// Unique pupil number: a check letter and twelve digits, the last of which may be a letter (temporary numbers).
    Upn,
    /// Code of a council by the Office for National Statistics, nine characters: `E09000012`.
    Gss,
    /// UK postcode, written as `AA9A 9AA`.
    Postcode,
    /// The reference of a Direct Debit in a Bacs file, in capitals: 6 to 18 letters, digits, full stops, hyphens, slashes,
    /// ampersands and spaces, the first a letter or digit, not all the same; `DDIC` and `CONTRA` are Bacs's own.
    BacsReference,
}

/// How an account reference is checked.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AccountKeys {
    /// The code list with the rules, in `mappings/codes/`.
    pub rules: String,
    /// The field of the same group of the event that names the fund.
    pub by: Option<String>,
    /// The fund of which the rule counts for every value of this row, instead of `by`: `housing-benefit`.
    pub rule: Option<String>,
}

/// The cases of a mapping: what goes in, what must come out. Stands beside it as `<document>.cases.toml`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CasesFile {
    /// The version of this file format: 1.
    pub version: u32,
    /// The cases.
    #[serde(default, rename = "case")]
    pub cases: Vec<CaseKeys>,
}

/// One case.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CaseKeys {
    /// What it shows, as a sentence.
    pub name: String,
    /// The direction; both unless stated, as far as the mapping allows.
    pub only: Option<Direction>,
    /// The event's data as JSON; attributes with a dollar beside it: `{"$id": "…"}`.
    pub event: Option<String>,
    /// A file with the event, beside this one.
    pub event_file: Option<String>,
    /// The document.
    pub document: Option<String>,
    /// A file with the document, beside this one.
    pub document_file: Option<String>,
    /// The adapter's settings that the mapping uses.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
    /// Values that the adapter would compute.
    #[serde(default)]
    pub values: BTreeMap<String, String>,
    /// What caused this, as JSON: what the rows with `cause` read.
    pub cause: Option<String>,
    /// The moment at which it happens, RFC 3339.
    pub now: Option<String>,
    /// The code of the error it must end in.
    pub fails: Option<String>,
}
