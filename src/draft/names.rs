//! Whether two names mean the same: `DateOfBirth`, `DOB` and `birth_date`. Names are cut into words, words that people
//! write in several ways into one; what is shared is weighed. Knows no values.

use std::collections::BTreeSet;

/// Words that say nothing about which field it is.
const FILLING: [&str; 8] = ["of", "the", "a", "an", "and", "in", "for", "to"];

/// Words that alone are no resemblance: half of all fields have one of them.
const COMMON: [&str; 15] = [
    "number",
    "identifier",
    "code",
    "type",
    "name",
    "date",
    "time",
    "line",
    "reference",
    "description",
    "text",
    "status",
    "value",
    "start",
    "end",
];

/// Spellings of the same, one or more words on the left. Only what means the same everywhere; nothing of one system.
const SYNONYMS: &[(&[&str], &[&str])] = &[
    (&["dob"], &["birth", "date"]),
    (&["national", "insurance", "number"], &["nino"]),
    (&["national", "insurance"], &["nino"]),
    (&["ni", "number"], &["nino"]),
    (&["ni", "no"], &["nino"]),
    (&["nhsno"], &["nhs", "number"]),
    (&["unique", "property", "reference", "number"], &["uprn"]),
    (&["unique", "pupil", "number"], &["upn"]),
    (&["surname"], &["family", "name"]),
    (&["last", "name"], &["family", "name"]),
    (&["lastname"], &["family", "name"]),
    (&["forename"], &["given", "name"]),
    (&["first", "name"], &["given", "name"]),
    (&["firstname"], &["given", "name"]),
    (&["post", "code"], &["postcode"]),
    (&["pcode"], &["postcode"]),
    (&["e", "mail"], &["email"]),
    (&["phone"], &["telephone"]),
    (&["tel"], &["telephone"]),
    (&["ref"], &["reference"]),
    (&["refno"], &["reference"]),
    (&["no"], &["number"]),
    (&["num"], &["number"]),
    (&["nr"], &["number"]),
    (&["nbr"], &["number"]),
    (&["id"], &["identifier"]),
    (&["acc"], &["account"]),
    (&["acct"], &["account"]),
    (&["amt"], &["amount"]),
    (&["addr"], &["address"]),
    (&["desc"], &["description"]),
    (&["descr"], &["description"]),
    (&["narrative"], &["description"]),
    (&["dt"], &["date"]),
    (&["ccy"], &["currency"]),
    (&["curr"], &["currency"]),
    (&["txn"], &["transaction"]),
    (&["trans"], &["transaction"]),
    (&["pmt"], &["payment"]),
    (&["paid"], &["payment"]),
    (&["qty"], &["quantity"]),
    (&["commenced"], &["start"]),
    (&["from"], &["start"]),
    (&["until"], &["end"]),
    (&["ceased"], &["end"]),
];

/// The words of a name, in one spelling each.
pub fn words(name: &str) -> BTreeSet<String> {
    let mut plain = split(name);
    // `paid_at` and `settled_on` are dates, as `DatePaid` is.
    if let [_, .., last] = plain.as_mut_slice()
        && matches!(last.as_str(), "on" | "at")
    {
        *last = "date".to_owned();
    }
    let mut found = BTreeSet::new();
    let mut rest = plain.as_slice();
    while let Some((first, after)) = rest.split_first() {
        let fits = |from: &&(&[&str], &[&str])| {
            rest.len() >= from.0.len() && rest.iter().zip(from.0).all(|(a, b)| a == b)
        };
        match SYNONYMS.iter().filter(fits).max_by_key(|(from, _)| from.len()) {
            Some((from, to)) => {
                found.extend(to.iter().map(|word| (*word).to_owned()));
                rest = rest.get(from.len()..).unwrap_or_default();
            }
            None => {
                if !FILLING.contains(&first.as_str()) {
                    found.insert(first.clone());
                }
                rest = after;
            }
        }
    }
    found
}

/// A name at its capitals, digits and signs, in small letters. `NHSNumber` is two words, `line2` as well.
fn split(name: &str) -> Vec<String> {
    let characters: Vec<char> = name.chars().collect();
    let mut found: Vec<String> = Vec::new();
    let mut word = String::new();
    for (at, c) in characters.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|at| characters.get(at));
        let after = characters.get(at + 1);
        let begins = before.is_some_and(|before| {
            (c.is_uppercase() && before.is_lowercase())
                || (c.is_uppercase() && before.is_uppercase() && after.is_some_and(|c| c.is_lowercase()))
                || (c.is_ascii_digit() != before.is_ascii_digit())
        });
        if (begins || !c.is_alphanumeric()) && !word.is_empty() {
            found.push(std::mem::take(&mut word));
        }
        if c.is_alphanumeric() {
            word.extend(c.to_lowercase());
        }
    }
    if !word.is_empty() {
        found.push(word);
    }
    found
}

/// How much a place of the sample looks like a field of the event, from 0 to 100; below [`ENOUGH`] not at all. Both are
/// names from the outermost to the innermost; the innermost counts most.
pub fn likeness(field: &[String], place: &[String]) -> u32 {
    let own = |path: &[String]| path.last().map(|name| words(name)).unwrap_or_default();
    let all = |path: &[String]| -> BTreeSet<String> { path.iter().flat_map(|name| words(name)).collect() };
    let (a, b, all_a, all_b) = (own(field), own(place), all(field), all(place));
    let pairs =
        [(shared(&a, &b), 0), (shared(&all_a, &all_b), 0), (shared(&a, &all_b), 5), (shared(&all_a, &b), 5)];
    let best = pairs.iter().map(|(likeness, less)| likeness.saturating_sub(*less)).max().unwrap_or(0);
    // Where the innermost names agree, the outer ones tell twins apart: `payer/name` and `payee/name`.
    if best >= ENOUGH { best * 9 / 10 + shared(&all_a, &all_b) / 10 } else { best }
}

/// From this likeness on, a resemblance is worth a guess.
pub const ENOUGH: u32 = 50;

/// The share of words that two names have in common, in hundredths.
fn shared(a: &BTreeSet<String>, b: &BTreeSet<String>) -> u32 {
    if a.is_empty() || b.is_empty() {
        return 0;
    }
    if a == b {
        return 100;
    }
    let same = |x: &str, y: &str| {
        // An abbreviation: `trans` for `transaction`.
        x == y || (x.len() >= 3 && y.starts_with(x)) || (y.len() >= 3 && x.starts_with(y))
    };
    let common: Vec<&String> = a.iter().filter(|x| b.iter().any(|y| same(x, y))).collect();
    if common.iter().all(|word| COMMON.contains(&word.as_str())) {
        return 0;
    }
    let hits = u32::try_from(common.len()).unwrap_or(u32::MAX);
    let most = u32::try_from(a.len() + b.len()).unwrap_or(u32::MAX).saturating_sub(hits);
    // One under equality: the same words are better than an abbreviation of them.
    (hits.saturating_mul(100) / most.max(1)).min(99)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn like(field: &str, place: &str) -> u32 {
        let path = |text: &str| text.split('.').map(str::to_owned).collect::<Vec<_>>();
        likeness(&path(field), &path(place))
    }

    #[test]
    fn spellings_of_the_same_name_are_the_same() {
        for (field, place) in [
            ("birth_date", "DOB"),
            ("date_of_birth", "Date of Birth"),
            ("nhs_number", "NHSNumber"),
            ("nhs_number", "NHS_NO"),
            ("nino", "National Insurance Number"),
            ("nino", "NI No"),
            ("reference", "Ref"),
            ("payer.name", "Payer.Name"),
            ("address.postcode", "PostCode"),
            ("family_name", "Surname"),
            ("lines.amount", "AMT"),
            ("uprn", "UPRN"),
            ("captured_on", "Captured Date"),
            ("paid_at", "DatePaid"),
        ] {
            assert!(like(field, place) >= 85, "{field} and {place}: {}", like(field, place));
        }
    }

    #[test]
    fn a_common_word_alone_is_no_resemblance() {
        for (field, place) in [
            ("provider_reference", "House Number"),
            ("account_number", "Sort code number"),
            ("start_date", "Date printed"),
            ("payer.name", "Street name"),
            ("amount", "Ward"),
        ] {
            assert!(like(field, place) < ENOUGH, "{field} and {place}: {}", like(field, place));
        }
    }

    #[test]
    fn outer_names_tell_twins_apart() {
        assert!(like("payer.name", "Payer.Name") > like("payer.name", "Payee.Name"));
    }
}
