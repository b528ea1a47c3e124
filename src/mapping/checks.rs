//! Identifiers with rules of their own: what is accepted, and how it is written. Sources stand with each.

use super::raw::Check;
use std::collections::HashMap;

/// The identifier in its one spelling, or what is wrong with it (without the value).
pub fn normalise(check: Check, text: &str) -> Result<String, String> {
    match check {
        Check::NhsNumber => nhs_number(text),
        Check::Uprn => uprn(text),
        Check::Nino => nino(text),
        Check::NinoDwp => nino_dwp(text),
        Check::Upn => upn(text),
        Check::Gss => gss(text),
        Check::Postcode => postcode(text),
        Check::BacsReference => bacs_reference(text),
    }
}

/// What a service user may call an instruction or a collection (The Access Group: Bacs Standard 18 Payment File, Generation
/// Requirements). The shape is that of the file; letters of either case are taken, for the file has capitals only.
fn bacs_reference(text: &str) -> Result<String, String> {
    let reference = text.trim().to_ascii_uppercase();
    let allowed = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || ". -/&".contains(c);
    if let Some(other) = reference.chars().find(|c| !allowed(*c)) {
        // Which character it is says nothing of the rest.
        return Err(format!("a Bacs reference has no `{}`", other.escape_default()));
    }
    let significant = || reference.chars().filter(char::is_ascii_alphanumeric);
    if significant().count() < 6 || reference.len() > 18 {
        return Err("a Bacs reference has 6 to 18 characters that count".to_owned());
    }
    let first = significant().next();
    if !reference.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err("a Bacs reference begins with a letter or digit".to_owned());
    }
    if significant().all(|c| Some(c) == first) {
        return Err("a Bacs reference is not one character again and again".to_owned());
    }
    match ["DDIC", "CONTRA"].iter().find(|own| reference.starts_with(**own)) {
        Some(own) => Err(format!("references that begin with {own} are Bacs's own")),
        None => Ok(reference),
    }
}

/// Ten digits, the last by weights 10 to 2, modulus 11; a remainder that asks for 10 is never issued. Ranges: 0100000000
/// to 3999999999 Scotland and Northern Ireland, 4 to 499… and 6 to 799… England, Wales and Isle of Man, 9… test data
/// (NHS Data Dictionary; uk-fci/nhs-number).
fn nhs_number(text: &str) -> Result<String, String> {
    let digits: String = text.chars().filter(|c| !matches!(c, ' ' | '-')).collect();
    let numbers: Vec<u32> = digits.chars().filter_map(|c| c.to_digit(10)).collect();
    let (Some((check, body)), 10) = (numbers.split_last(), digits.chars().count()) else {
        return Err("an NHS number has ten digits".to_owned());
    };
    if body.len() != 9 {
        return Err("an NHS number has ten digits".to_owned());
    }
    let sum: u32 = body.iter().zip((2..=10).rev()).map(|(digit, weight)| digit * weight).sum();
    let expected = match 11 - sum % 11 {
        11 => 0,
        other => other,
    };
    if expected != *check {
        return Err("the check digit of the NHS number is wrong".to_owned());
    }
    match digits.get(..2) {
        Some("00") => Err("NHS numbers beginning 00 are not issued".to_owned()),
        _ if body.iter().all(|digit| digit == check) => {
            Err("an NHS number of ten equal digits is not issued".to_owned())
        }
        _ if matches!(body.first(), Some(5)) => Err("NHS numbers beginning 5 are not issued".to_owned()),
        _ => Ok(digits),
    }
}

/// 1 to 12 digits, not zero, no check digit; leading zeros mean nothing (GeoPlace).
fn uprn(text: &str) -> Result<String, String> {
    let digits = text.trim();
    if digits.is_empty() || digits.len() > 12 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err("a UPRN has 1 to 12 digits".to_owned());
    }
    match digits.trim_start_matches('0') {
        "" => Err("a UPRN is not zero".to_owned()),
        digits => Ok(digits.to_owned()),
    }
}

/// Two letters, six digits, a letter A to D; the letters and pairs that HMRC never issues are refused (hmrc/domain).
fn nino(text: &str) -> Result<String, String> {
    let nino: String = text.chars().filter(|c| *c != ' ').map(|c| c.to_ascii_uppercase()).collect();
    let bytes = nino.as_bytes();
    let [first, second, digits @ .., suffix] = bytes else {
        return Err("a NI number has nine characters".to_owned());
    };
    if digits.len() != 6 || !digits.iter().all(u8::is_ascii_digit) || !matches!(suffix, b'A'..=b'D') {
        return Err("a NI number is two letters, six digits and a letter from A to D".to_owned());
    }
    let barred = ["BG", "GB", "NK", "KN", "TN", "NT", "ZZ"];
    let prefix = nino.get(..2).unwrap_or_default();
    if !first.is_ascii_uppercase()
        || !second.is_ascii_uppercase()
        || b"DFIQUV".contains(first)
        || b"DFIOQUV".contains(second)
        || barred.contains(&prefix)
    {
        return Err("NI numbers with these first two letters are not issued".to_owned());
    }
    Ok(nino)
}

/// As DWP's own interface to councils takes it: the suffix may be missing, Q is allowed
/// (dwp/housing-benefit-service-stub).
fn nino_dwp(text: &str) -> Result<String, String> {
    let nino: String = text.chars().filter(|c| *c != ' ').map(|c| c.to_ascii_uppercase()).collect();
    let wrong = || Err("a NI number is two letters, six digits and perhaps a letter from A to D".to_owned());
    let [first, second, rest @ ..] = nino.as_bytes() else { return wrong() };
    let (digits, suffix) = rest.split_at(rest.len().min(6));
    if digits.len() != 6
        || !digits.iter().all(u8::is_ascii_digit)
        || !matches!(suffix, [] | [b'A'..=b'D'])
        || !first.is_ascii_uppercase()
        || !second.is_ascii_uppercase()
    {
        return wrong();
    }
    let barred = ["BG", "GB", "NK", "KN", "TN", "NT", "ZZ"];
    if b"DFIUV".contains(first)
        || b"DFIOUV".contains(second)
        || barred.contains(&nino.get(..2).unwrap_or_default())
    {
        return Err("NI numbers with these first two letters are not issued".to_owned());
    }
    Ok(nino)
}

/// The letters of pupil numbers: no I, O, S. Their place is their value.
const UPN_LETTERS: &[u8] = b"ABCDEFGHJKLMNPQRTUVWXYZ";

/// A check letter, then twelve digits, or eleven and a letter (temporary): weights 2 to 13, modulus 23 (DfE, as the
/// census's rules 1510 to 1550 have it). Not whether the council number in it exists.
fn upn(text: &str) -> Result<String, String> {
    let upn = text.trim().to_ascii_uppercase();
    let [check, body @ ..] = upn.as_bytes() else {
        return Err("a UPN has thirteen characters".to_owned());
    };
    if body.len() != 12 {
        return Err("a UPN has thirteen characters".to_owned());
    }
    let value = |(index, byte): (usize, &u8)| match byte {
        b'0'..=b'9' => Some(usize::from(byte - b'0')),
        letter if index == 11 => UPN_LETTERS.iter().position(|known| known == letter),
        _ => None,
    };
    let values: Option<Vec<usize>> = body.iter().enumerate().map(value).collect();
    let Some(values) = values else {
        return Err("a UPN is a letter and twelve digits, or a letter, eleven digits and a letter".to_owned());
    };
    let sum: usize = values.iter().zip(2..).map(|(value, weight)| value * weight).sum();
    match UPN_LETTERS.get(sum % 23) {
        Some(letter) if letter == check => Ok(upn),
        _ => Err("the check letter of the UPN is wrong".to_owned()),
    }
}

/// A council's code of the Office for National Statistics: `^(E0[6-9]|E10|W06|S12|N09)[0-9]{6}$`. It names a boundary,
/// and has no check digit.
fn gss(text: &str) -> Result<String, String> {
    let code = text.trim();
    let council =
        matches!(code.get(..3), Some("E06" | "E07" | "E08" | "E09" | "E10" | "W06" | "S12" | "N09"));
    match council && code.len() == 9 && code.bytes().skip(3).all(|b| b.is_ascii_digit()) {
        true => Ok(code.to_owned()),
        false => Err("this is not the nine-character code of a council".to_owned()),
    }
}

/// The six shapes of outward codes and `9AA` inward, position rules included; and GIR 0AA. Not whether it exists.
fn postcode(text: &str) -> Result<String, String> {
    let bare: String = text.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_ascii_uppercase()).collect();
    let wrong = || Err("this has not the shape of a UK postcode".to_owned());
    if !bare.is_ascii() || bare.len() < 5 || bare.len() > 7 {
        return wrong();
    }
    let (outward, inward) = bare.split_at(bare.len() - 3);
    if bare != "GIR0AA" {
        let shape: String = outward.chars().map(|c| if c.is_ascii_digit() { '9' } else { 'A' }).collect();
        let letters = |part: &str, barred: &str| !part.chars().any(|c| barred.contains(c));
        let inward_fits = inward.starts_with(|c: char| c.is_ascii_digit())
            && inward.chars().skip(1).all(|c| c.is_ascii_uppercase())
            && letters(inward, "CIKMOV");
        let outward_fits = matches!(shape.as_str(), "A9" | "A99" | "AA9" | "AA99" | "A9A" | "AA9A")
            && outward.chars().all(|c| c.is_ascii_alphanumeric())
            && letters(outward.get(..1).unwrap_or_default(), "QVX")
            && (!shape.starts_with("AA") || letters(outward.get(1..2).unwrap_or_default(), "IJZ"));
        if !inward_fits || !outward_fits {
            return wrong();
        }
    }
    Ok(format!("{outward} {inward}"))
}

/// Checks an account reference by a row of a council's rules. The columns are those in which income systems keep them
/// (LocalGovIMS: CheckDigitConfiguration, AccountReferenceValidator): `min` and `max` length; `mask` (`#` digit, `?`
/// letter, `@` check character, `*` anything, others themselves); `replace` (`BJ=05`: letters turned into digits before
/// weighing); `weights`, space-separated; `modulus`; `subtract` (`yes`: modulus minus remainder); `results` (`10=A`:
/// results with a character of their own).
pub fn account(rule: &HashMap<String, String>, text: &str) -> Result<(), String> {
    let column = |name: &str| rule.get(name).map(String::as_str).filter(|value| !value.is_empty());
    let number = |name: &str| column(name).and_then(|value| value.parse::<usize>().ok());
    let length = text.chars().count();
    if number("min").is_some_and(|min| length < min) || number("max").is_some_and(|max| length > max) {
        return Err("the account reference has the wrong length for its fund".to_owned());
    }
    if let Some(mask) = column("mask") {
        let fits = |(m, c): (char, char)| match m {
            '#' => c.is_ascii_digit(),
            '?' => c.is_ascii_alphabetic(),
            '@' => c.is_ascii_alphanumeric(),
            '*' => true,
            other => other == c,
        };
        if mask.chars().count() != length || !mask.chars().zip(text.chars()).all(fits) {
            return Err("the account reference has not the shape of its fund".to_owned());
        }
    }
    let (Some(weights), Some(modulus)) = (column("weights"), number("modulus")) else { return Ok(()) };
    let mut weighed = text.to_owned();
    if let Some((from, to)) = column("replace").and_then(|replace| replace.split_once('=')) {
        weighed = match weighed.strip_prefix(from) {
            Some(rest) => format!("{to}{rest}"),
            None => return Err("the account reference does not begin as those of its fund do".to_owned()),
        };
    }
    let weights: Vec<usize> = weights.split_whitespace().filter_map(|weight| weight.parse().ok()).collect();
    let Some((at, given)) = weighed.char_indices().next_back() else {
        return Err("the account reference is empty".to_owned());
    };
    let digits: Option<Vec<usize>> =
        weighed.get(..at).unwrap_or_default().chars().map(|c| c.to_digit(10).map(|d| d as usize)).collect();
    let Some(digits) = digits else {
        return Err("the account reference holds other characters than digits".to_owned());
    };
    if weights.len() < digits.len() || modulus == 0 {
        return Err("the account reference is longer than its fund's check digit rule".to_owned());
    }
    let remainder =
        digits.iter().zip(&weights).map(|(digit, weight)| digit * weight).sum::<usize>() % modulus;
    let result = if column("subtract") == Some("yes") { modulus - remainder } else { remainder };
    let special = column("results")
        .and_then(|results| {
            results
                .split_whitespace()
                .filter_map(|pair| pair.split_once('='))
                .find(|(r, _)| *r == result.to_string())
        })
        .map(|(_, character)| character.to_owned());
    let expected = special.unwrap_or_else(|| result.to_string());
    match expected == given.to_string() {
        true => Ok(()),
        false => Err("the check digit of the account reference is wrong".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worked_examples_of_identifiers_come_out_as_published() {
        let ok = |check, text: &str| normalise(check, text).unwrap();
        assert_eq!(ok(Check::NhsNumber, "943 476 5919"), "9434765919");
        assert_eq!(ok(Check::NhsNumber, "9434765870"), "9434765870");
        assert_eq!(ok(Check::Uprn, "000000199356"), "199356");
        assert_eq!(ok(Check::Nino, "ab 12 34 56 c"), "AB123456C");
        assert_eq!(ok(Check::Nino, "OA123456A"), "OA123456A");
        assert_eq!(ok(Check::NinoDwp, "QQ 12 34 56 C"), "QQ123456C");
        assert_eq!(ok(Check::NinoDwp, "ab123456"), "AB123456");
        assert_eq!(ok(Check::Upn, "X330123456789"), "X330123456789");
        assert_eq!(ok(Check::Gss, "E09000012"), "E09000012");
        for (given, written) in
            [("sk13xe", "SK1 3XE"), ("EC1A1BB", "EC1A 1BB"), ("N1P 1AA", "N1P 1AA"), ("gir0aa", "GIR 0AA")]
        {
            assert_eq!(ok(Check::Postcode, given), written);
        }
        for (check, text) in [
            (Check::NhsNumber, "9434765918"),
            (Check::NhsNumber, "0000000000"),
            (Check::NhsNumber, "1111111111"),
            (Check::NhsNumber, "943476591"),
            (Check::Uprn, "0"),
            (Check::Uprn, "1000624101430"),
            (Check::Uprn, "10006241014X"),
            (Check::Nino, "QQ123456C"),
            (Check::Nino, "AB123456"),
            (Check::Nino, "BG123456A"),
            (Check::Nino, "AO123456A"),
            (Check::Nino, "AB123456E"),
            (Check::NhsNumber, "9990000001"),
            (Check::Nino, "DA123456A"),
            (Check::NinoDwp, "AO123456A"),
            (Check::NinoDwp, "BG123456A"),
            (Check::NinoDwp, "DA123456A"),
            (Check::NinoDwp, "AB123456E"),
            (Check::NinoDwp, "AB12345"),
            (Check::Upn, "A330123456789"),
            (Check::Upn, "X33012345678"),
            (Check::Upn, "UN1"),
            (Check::Gss, "E47000001"),
            (Check::Gss, "E0900001"),
            (Check::Postcode, "QA1 1AA"),
            (Check::Postcode, "SK1 3XC"),
            (Check::Postcode, "LS2 OJT"),
            (Check::Postcode, "AB12"),
        ] {
            assert!(normalise(check, text).is_err(), "{text} was accepted");
        }
    }

    #[test]
    fn worked_examples_of_account_references_come_out_as_published() {
        let rule =
            |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let council_tax: HashMap<String, String> = rule(&[
            ("weights", "3 7 1 3 7 1 3 7 0"),
            ("modulus", "10"),
            ("subtract", "yes"),
            ("results", "10=0"),
            ("mask", "########@"),
        ]);
        assert_eq!(account(&council_tax, "771234561"), Ok(()));
        assert!(account(&council_tax, "771234562").is_err());
        assert!(account(&council_tax, "77123456").is_err());
        let parking: HashMap<String, String> = rule(&[
            ("weights", "9 8 7 6 5 4 3 2 1 0"),
            ("modulus", "11"),
            ("replace", "BJ=05"),
            ("results", "10=A"),
            ("mask", "BJ#######@"),
        ]);
        assert_eq!(account(&parking, "BJ12345673"), Ok(()));
        assert!(account(&parking, "BJ12345674").is_err());
    }
}
