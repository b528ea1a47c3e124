//! JSON (RFC 8259), read strictly: what other readers let pass silently is an error with a place here.
//!
//! A parser of our own because the tree must keep the digits of numbers as written, refuse duplicate members and lone
//! surrogates, and say line and column. A leading byte-order mark is passed over (RFC 8259 s.8.1 allows that).

use super::{FormatError, Limits};
use crate::{
    code::Code,
    tree::{Name, Record, Tree},
};
use compact_str::CompactString;
use std::collections::HashSet;

/// From how many members on duplicates are looked for in a hash set instead of one by one.
const MANY_MEMBERS: usize = 24;

/// Reads one JSON text.
///
/// # Errors
/// Anything the grammar does not allow, a duplicate member, a lone surrogate, more than the limits allow.
pub fn parse(text: &str, limits: &Limits) -> Result<Tree, FormatError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut parser = Parser { text, bytes: text.as_bytes(), at: 0, limits, values: 0 };
    parser.skip_space();
    let tree = parser.value(0)?;
    parser.skip_space();
    if parser.at < parser.bytes.len() {
        return Err(parser.error("something stands behind the end of the JSON value"));
    }
    Ok(tree)
}

/// How many members an object has room for from the start.
const USUAL_MEMBERS: usize = 8;

struct Parser<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    limits: &'a Limits,
    values: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn error(&self, what: impl Into<String>) -> FormatError {
        FormatError::at(Code::MalformedJson, what, self.bytes, self.at)
    }

    fn over(&self, what: String) -> FormatError {
        FormatError::at(Code::DocumentTooLarge, what, self.bytes, self.at)
    }

    fn unexpected(&self, wanted: &str) -> FormatError {
        match self.text.get(self.at..).and_then(|rest| rest.chars().next()) {
            None => self.error(format!("the document ends where {wanted} is expected: it is cut off")),
            Some(c) if c.is_control() => {
                self.error(format!("a control character stands where {wanted} is expected"))
            }
            Some(c) => self.error(format!("`{c}` stands where {wanted} is expected")),
        }
    }

    fn value(&mut self, depth: usize) -> Result<Tree, FormatError> {
        self.values += 1;
        if self.values > self.limits.values {
            return Err(self.over(format!("more than {} values", self.limits.values)));
        }
        match self.peek() {
            Some(b'{') => self.object(depth + 1),
            Some(b'[') => self.array(depth + 1),
            Some(b'"') => Ok(Tree::text(self.string()?)),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word("true", Tree::Bool(true)),
            Some(b'f') => self.word("false", Tree::Bool(false)),
            Some(b'n') => self.word("null", Tree::Null),
            _ => Err(self.unexpected("a value")),
        }
    }

    fn word(&mut self, word: &str, tree: Tree) -> Result<Tree, FormatError> {
        if self.bytes.get(self.at..).is_some_and(|rest| rest.starts_with(word.as_bytes())) {
            self.at += word.len();
            return Ok(tree);
        }
        Err(self.unexpected("a value"))
    }

    fn enter(&self, depth: usize) -> Result<(), FormatError> {
        if depth > self.limits.depth {
            return Err(self.over(format!("nested deeper than {} levels", self.limits.depth)));
        }
        Ok(())
    }

    fn array(&mut self, depth: usize) -> Result<Tree, FormatError> {
        self.enter(depth)?;
        self.at += 1;
        self.skip_space();
        let mut items = Vec::new();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Tree::List(items));
        }
        loop {
            self.skip_space();
            items.push(self.value(depth)?);
            self.skip_space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(Tree::List(items));
                }
                _ => return Err(self.unexpected("`,` or `]`")),
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<Tree, FormatError> {
        self.enter(depth)?;
        self.at += 1;
        self.skip_space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Tree::Record(Record::new()));
        }
        let mut record = Record::with_capacity(USUAL_MEMBERS);
        let mut seen: Option<HashSet<CompactString>> = None;
        loop {
            self.skip_space();
            if self.peek() != Some(b'"') {
                return Err(self.unexpected("the name of a member, in double quotes"));
            }
            let start = self.at;
            let name = self.string()?;
            if is_duplicate(&record, &mut seen, &name) {
                self.at = start;
                return Err(FormatError::at(
                    Code::DuplicateMember,
                    format!(
                        "the member `{name}` occurs twice in one object: which of the two counts is undefined"
                    ),
                    self.bytes,
                    start,
                ));
            }
            self.skip_space();
            if self.peek() != Some(b':') {
                return Err(self.unexpected("`:`"));
            }
            self.at += 1;
            self.skip_space();
            let value = self.value(depth)?;
            record.push(Name::plain(name), value);
            self.skip_space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(Tree::Record(record));
                }
                _ => return Err(self.unexpected("`,` or `}`")),
            }
        }
    }

    fn number(&mut self) -> Result<Tree, FormatError> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => {
                self.at += 1;
                if matches!(self.peek(), Some(b'0'..=b'9')) {
                    return Err(self.error("a number may not begin with 0"));
                }
            }
            Some(b'1'..=b'9') => self.digits(),
            _ => return Err(self.unexpected("a digit")),
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.some_digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.some_digits()?;
        }
        let digits = self.text.get(start..self.at).unwrap_or_default();
        if digits.len() > self.limits.text.min(1_000) {
            return Err(self.over("a number of more than 1000 digits".to_owned()));
        }
        Ok(Tree::number(digits))
    }

    fn some_digits(&mut self) -> Result<(), FormatError> {
        if !matches!(self.peek(), Some(b'0'..=b'9')) {
            return Err(self.unexpected("a digit"));
        }
        self.digits();
        Ok(())
    }

    fn digits(&mut self) {
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
    }

    fn string(&mut self) -> Result<CompactString, FormatError> {
        self.at += 1;
        let mut out = CompactString::const_new("");
        loop {
            let start = self.at;
            while self.peek().is_some_and(|b| b != b'"' && b != b'\\' && b >= 0x20) {
                self.at += 1;
            }
            // Only ASCII bytes end the run, so it begins and ends on character boundaries.
            let run = self.text.get(start..self.at).unwrap_or_default();
            if out.len() + run.len() > self.limits.text {
                return Err(self.over(format!("a text of more than {} bytes", self.limits.text)));
            }
            match self.peek() {
                Some(b'"') if out.is_empty() => {
                    self.at += 1;
                    return Ok(CompactString::new(run));
                }
                Some(b'"') => {
                    self.at += 1;
                    out.push_str(run);
                    return Ok(out);
                }
                Some(b'\\') => {
                    out.push_str(run);
                    out.push(self.escape()?);
                }
                Some(_) => return Err(self.error("a control character stands in a text unescaped")),
                None => return Err(self.unexpected("the closing `\"` of a text")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, FormatError> {
        self.at += 1;
        let c = match self.peek() {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode(),
            _ => return Err(self.unexpected("one of `\"\\/bfnrtu` after a backslash")),
        };
        self.at += 1;
        Ok(c)
    }

    fn unicode(&mut self) -> Result<char, FormatError> {
        let start = self.at - 1;
        let lone = |parser: &Self| {
            FormatError::at(
                Code::LoneSurrogate,
                "half of a surrogate pair stands alone: no character is meant by it",
                parser.bytes,
                start,
            )
        };
        let high = self.hex4()?;
        let point = match high {
            0xD800..=0xDBFF => {
                if self.bytes.get(self.at..self.at + 2) != Some(b"\\u") {
                    return Err(lone(self));
                }
                self.at += 1;
                match self.hex4()? {
                    low @ 0xDC00..=0xDFFF => 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00),
                    _ => return Err(lone(self)),
                }
            }
            other => other,
        };
        char::from_u32(point).ok_or_else(|| lone(self))
    }

    /// Reads `uXXXX` and stands behind it.
    fn hex4(&mut self) -> Result<u32, FormatError> {
        self.at += 1;
        let mut value = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|b| (b as char).to_digit(16));
            let Some(digit) = digit else { return Err(self.unexpected("a hexadecimal digit")) };
            value = value * 16 + digit;
            self.at += 1;
        }
        Ok(value)
    }
}

fn is_duplicate(record: &Record, seen: &mut Option<HashSet<CompactString>>, name: &str) -> bool {
    if record.entries().len() < MANY_MEMBERS {
        return record.get_plain(name).is_some();
    }
    let seen =
        seen.get_or_insert_with(|| record.entries().iter().map(|(name, _)| name.local.clone()).collect());
    !seen.insert(name.into())
}

/// Writes compact JSON. Repeated names of a record become one member with a list; namespaces are left out.
pub fn write(tree: &Tree) -> String {
    let mut out = String::with_capacity(256);
    Writer { out: &mut out, indent: None }.value(tree, 0);
    out
}

/// Writes JSON for people: one member a line.
pub fn write_pretty(tree: &Tree) -> String {
    let mut out = String::new();
    Writer { out: &mut out, indent: Some("  ") }.value(tree, 0);
    out
}

struct Writer<'a> {
    out: &'a mut String,
    indent: Option<&'static str>,
}

impl Writer<'_> {
    fn value(&mut self, tree: &Tree, depth: usize) {
        match tree {
            Tree::Null => self.out.push_str("null"),
            Tree::Bool(true) => self.out.push_str("true"),
            Tree::Bool(false) => self.out.push_str("false"),
            Tree::Number(digits) => self.out.push_str(digits),
            Tree::Text(text) => self.string(text),
            Tree::List(items) => self.list(items.iter(), depth),
            Tree::Record(record) => self.record(record, depth),
        }
    }

    fn list<'t>(&mut self, items: impl Iterator<Item = &'t Tree>, depth: usize) {
        self.out.push('[');
        let mut any = false;
        for item in items {
            if std::mem::replace(&mut any, true) {
                self.out.push(',');
            }
            self.line(depth + 1);
            self.value(item, depth + 1);
        }
        if any {
            self.line(depth);
        }
        self.out.push(']');
    }

    fn record(&mut self, record: &Record, depth: usize) {
        let entries = record.entries();
        let distinct = all_different(entries);
        self.out.push('{');
        let mut any = false;
        for (at, (name, tree)) in entries.iter().enumerate() {
            if !distinct && entries.iter().take(at).any(|(earlier, _)| earlier.local == name.local) {
                continue;
            }
            if std::mem::replace(&mut any, true) {
                self.out.push(',');
            }
            self.line(depth + 1);
            self.string(&name.local);
            self.out.push(':');
            if self.indent.is_some() {
                self.out.push(' ');
            }
            let same: Vec<&Tree> = match distinct {
                true => Vec::new(),
                false => entries.iter().filter(|(n, _)| n.local == name.local).map(|(_, t)| t).collect(),
            };
            match same.len() {
                0 | 1 => self.value(tree, depth + 1),
                _ => self.list(same.into_iter(), depth + 1),
            }
        }
        if any {
            self.line(depth);
        }
        self.out.push('}');
    }

    fn line(&mut self, depth: usize) {
        if let Some(indent) = self.indent {
            self.out.push('\n');
            for _ in 0..depth {
                self.out.push_str(indent);
            }
        }
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        let mut from = 0;
        for (at, b) in text.bytes().enumerate() {
            let escape = match b {
                b'"' => "\\\"",
                b'\\' => "\\\\",
                b'\n' => "\\n",
                b'\r' => "\\r",
                b'\t' => "\\t",
                0..=0x1F => "",
                _ => continue,
            };
            self.out.push_str(text.get(from..at).unwrap_or_default());
            match escape {
                "" => self.out.push_str(&format!("\\u{b:04x}")),
                escape => self.out.push_str(escape),
            }
            from = at + 1;
        }
        self.out.push_str(text.get(from..).unwrap_or_default());
        self.out.push('"');
    }
}

/// Whether no local name occurs twice.
fn all_different(entries: &[(Name, Tree)]) -> bool {
    if entries.len() < MANY_MEMBERS {
        return entries
            .iter()
            .enumerate()
            .all(|(at, (name, _))| entries.iter().take(at).all(|(n, _)| n.local != name.local));
    }
    let mut seen = HashSet::with_capacity(entries.len());
    entries.iter().all(|(name, _)| seen.insert(name.local.as_str()))
}
