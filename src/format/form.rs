//! Forms: `name=value&name=value`, percent-encoded as the URL Standard says (`application/x-www-form-urlencoded`).

use super::{FormatError, Limits};
use crate::{
    code::Code,
    tree::{Name, Record, Tree},
};

/// Reads the pairs, in order, as a record of texts. A name without `=` has the empty text.
pub fn parse(text: &str, limits: &Limits) -> Result<Tree, FormatError> {
    let mut record = Record::new();
    let mut offset = 0;
    for pair in text.trim_end_matches(['\r', '\n']).split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if !pair.is_empty() {
            if record.entries().len() >= limits.values {
                return Err(FormatError::at(
                    Code::DocumentTooLarge,
                    format!("more than {} values", limits.values),
                    text.as_bytes(),
                    offset,
                ));
            }
            let part = |part| {
                unescape(part)
                    .map_err(|what| FormatError::at(Code::MalformedForm, what, text.as_bytes(), offset))
            };
            record.push(Name::plain(part(name)?), Tree::text(part(value)?));
        }
        offset += pair.len() + 1;
    }
    Ok(Tree::Record(record))
}

fn unescape(part: &str) -> Result<String, &'static str> {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.bytes();
    while let Some(b) = rest.next() {
        bytes.push(match b {
            b'+' => b' ',
            b'%' => {
                let digit = |b: Option<u8>| b.and_then(|b| (b as char).to_digit(16));
                match (digit(rest.next()), digit(rest.next())) {
                    (Some(high), Some(low)) => (high * 16 + low) as u8,
                    _ => return Err("`%` is not followed by two hexadecimal digits"),
                }
            }
            b => b,
        });
    }
    String::from_utf8(bytes).map_err(|_| "a percent-encoded value is not UTF-8")
}

/// Writes the pairs in order.
pub fn write(tree: &Tree) -> Result<String, FormatError> {
    let Tree::Record(record) = tree else {
        return Err(FormatError::nowhere(Code::CannotWrite, "a form holds names and values, nothing else"));
    };
    let mut out = String::new();
    for (name, value) in record.entries() {
        let values: &[Tree] = match value {
            Tree::List(items) => items,
            single => std::slice::from_ref(single),
        };
        for value in values {
            let value = match value {
                Tree::Null => String::new(),
                value => value.to_plain_text().ok_or_else(|| {
                    FormatError::nowhere(
                        Code::CannotWrite,
                        format!("`{}` is {}; a form holds plain values only", name.local, value.kind()),
                    )
                })?,
            };
            if !out.is_empty() {
                out.push('&');
            }
            escape(&name.local, &mut out);
            out.push('=');
            escape(&value, &mut out);
        }
    }
    Ok(out)
}

fn escape(text: &str, out: &mut String) {
    for b in text.bytes() {
        match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'*' | b'-' | b'.' | b'_' => out.push(b as char),
            b' ' => out.push('+'),
            b => out.push_str(&format!("%{b:02X}")),
        }
    }
}
