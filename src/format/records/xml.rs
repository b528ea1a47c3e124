//! Splitting an XML file by a repeated element, in constant memory.
//!
//! Only tags are looked at here, as bytes, so that every encoding that agrees with ASCII works and the place of each
//! record is exact; quick-xml reads strings and cannot begin in the middle. What stands inside a record, an entity or a
//! character that is not allowed, is found when the record is read. DTDs are refused at once.

use super::{Piece, Records, at_line, totals};
use crate::{
    code::Code,
    format::{
        Format, FormatError, Layout, Limits, charset,
        layout::{Shape, Xml},
    },
    tree::Name,
};
use memchr::{memchr, memchr_iter, memchr3, memmem};
use quick_xml::events::BytesStart;
use serde::{Deserialize, Serialize};
use std::io::BufRead;

/// How deep elements may be nested.
const DEPTH: usize = 256;

/// What a point keeps of an XML file: what stands open.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct State {
    #[serde(with = "super::packed")]
    declaration: Vec<u8>,
    levels: Vec<Level>,
    /// Whether the root has been seen.
    begun: bool,
    /// Whether the file has been read to its end.
    ended: bool,
}

/// An element that is open.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Level {
    /// Its name as written.
    #[serde(with = "super::packed")]
    name: Vec<u8>,
    /// Its start tag, if records or kept elements may stand in it.
    #[serde(with = "super::packed")]
    start: Vec<u8>,
    /// The elements in it that are kept.
    #[serde(with = "super::packed")]
    kept: Vec<u8>,
    /// The namespaces that it declares.
    spaces: Vec<(String, String)>,
    on: On,
}

/// Whether an element leads to what is looked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
enum On {
    /// Records stand in it, this far down the record's path.
    Record,
    /// Elements to be kept stand in it.
    Keep,
    /// Nothing that is looked for stands in it.
    #[default]
    Off,
}

/// A tag or something like it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Token {
    kind: Kind,
    length: usize,
    /// Where its name ends and begins, in its own bytes.
    name: (usize, usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Start,
    Empty,
    End,
    /// A comment, a CDATA section, a processing instruction.
    Other,
    Declaration,
    DocType,
}

/// The token at the beginning of these bytes; nothing if it is not all there.
fn token(bytes: &[u8]) -> Option<Token> {
    let other = |length: usize, kind| Token { kind, length, name: (0, 0) };
    let until =
        |from: usize, end: &[u8]| memmem::find(bytes.get(from..)?, end).map(|at| from + at + end.len());
    match bytes.get(1)? {
        b'?' => {
            let length = until(2, b"?>")?;
            let is_declaration =
                bytes.starts_with(b"<?xml") && bytes.get(5).is_some_and(u8::is_ascii_whitespace);
            Some(other(length, if is_declaration { Kind::Declaration } else { Kind::Other }))
        }
        b'!' => match (bytes.get(2)?, bytes.get(3)) {
            (b'-', next) => {
                next?;
                Some(other(until(4, b"-->")?, Kind::Other))
            }
            (b'[', _) => Some(other(until(3, b"]]>")?, Kind::Other)),
            _ => Some(other(2, Kind::DocType)),
        },
        b'/' => {
            let length = memchr(b'>', bytes)? + 1;
            let name = bytes.get(2..length - 1).unwrap_or_default().trim_ascii_end().len();
            Some(Token { kind: Kind::End, length, name: (2, 2 + name) })
        }
        _ => {
            let mut at = 1;
            loop {
                let rest = bytes.get(at..)?;
                let found = memchr3(b'>', b'"', b'\'', rest)?;
                at += found + 1;
                match rest.get(found) {
                    Some(b'>') => break,
                    Some(quote) => at += memchr(*quote, bytes.get(at..)?)? + 1,
                    None => return None,
                }
            }
            let tag = bytes.get(..at).unwrap_or_default();
            let ends = |b: &u8| matches!(b, b' ' | b'\t' | b'\r' | b'\n' | b'/' | b'>');
            let name = tag.iter().position(ends).unwrap_or(tag.len());
            let kind = if tag.ends_with(b"/>") { Kind::Empty } else { Kind::Start };
            Some(Token { kind, length: at, name: (1, name) })
        }
    }
}

fn malformed(what: impl Into<String>) -> FormatError {
    FormatError::nowhere(Code::MalformedXml, what)
}

/// A tag as text; in an encoding other than UTF-8 its names are ASCII all the same.
fn lossless(tag: &[u8]) -> String {
    match std::str::from_utf8(tag) {
        Ok(text) => text.to_owned(),
        Err(_) => tag.iter().map(|b| char::from(*b)).collect(),
    }
}

impl Level {
    /// Reads a start tag: the namespaces that it declares.
    fn of(tag: &[u8], token: Token) -> Result<Level, FormatError> {
        let name = tag.get(token.name.0..token.name.1).unwrap_or_default().to_vec();
        let text = lossless(tag);
        let content = text.trim_start_matches('<').trim_end_matches('>').trim_end_matches('/');
        let mut spaces = Vec::new();
        if content.contains("xmlns") {
            let length = content.find([' ', '\t', '\r', '\n']).unwrap_or(content.len());
            for attribute in BytesStart::from_content(content, length).attributes() {
                let attribute = attribute.map_err(|error| malformed(error.to_string()))?;
                let key = attribute.key.0;
                let prefix = key.strip_prefix("xmlns:").or_else(|| (key == "xmlns").then_some(""));
                if let Some(prefix) = prefix {
                    let value = attribute
                        .normalized_value(quick_xml::XmlVersion::Explicit1_0)
                        .map_err(|error| malformed(error.to_string()))?;
                    spaces.push((prefix.to_owned(), value.into_owned()));
                }
            }
        }
        Ok(Level { name, spaces, ..Level::default() })
    }
}

impl State {
    /// The name of an element with its namespace, as the layout reads it.
    fn resolve(&self, level: &Level, xml: &Xml) -> Result<Name, FormatError> {
        let name = lossless(&level.name);
        let (prefix, local) = name.split_once(':').unwrap_or(("", &name));
        let mut declared =
            self.levels.iter().chain([level]).rev().flat_map(|level| level.spaces.iter().rev());
        match declared.find(|(known, _)| known == prefix).map(|(_, uri)| uri.as_str()) {
            None if prefix.is_empty() => Ok(Name::plain(local)),
            None => Err(malformed(format!("the prefix `{prefix}` is not declared"))),
            Some("") => Ok(Name::plain(local)),
            Some(uri) => match xml.read_as(uri) {
                Some(uri) => Ok(Name::spaced(uri, local)),
                None => {
                    let what =
                        format!("`{local}` is in the namespace `{uri}`, which the layout does not know");
                    Err(FormatError::nowhere(Code::NotText, what))
                }
            },
        }
    }

    /// The names of what stands open, as far as it leads anywhere.
    fn path(&self, xml: &Xml) -> Result<Vec<Name>, FormatError> {
        let mut above = State::default();
        let mut path = Vec::with_capacity(self.levels.len() + 1);
        for level in &self.levels {
            path.push(above.resolve(level, xml)?);
            above.levels.push(Level { spaces: level.spaces.clone(), ..Level::default() });
        }
        Ok(path)
    }
}

/// The splitter of XML.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    state: State,
    /// The path of what stands open, while all of it leads somewhere.
    path: Vec<Name>,
    /// Whether the frame has to be made anew.
    stale: bool,
}

impl Splitter {
    pub fn resume(layout: &Layout, state: State) -> Result<Option<Splitter>, FormatError> {
        match &layout.shape {
            Shape::Xml(xml) => {
                let path = state.path(xml)?;
                Ok(Some(Splitter { state, path, stale: true }))
            }
            Shape::Csv(_) | Shape::Fixed(_) | Shape::Lines => Ok(None),
        }
    }

    pub fn state(&self) -> State {
        self.state.clone()
    }

    /// Whether the file ended as it must.
    pub fn finish(&self) -> Result<(), FormatError> {
        match self.state.ended {
            true => Ok(()),
            false => Err(FormatError::nowhere(Code::FileCutOff, "the file has not been read to its end")),
        }
    }

    fn frame(&self) -> super::Frame {
        let mut frame = super::Frame { before: self.state.declaration.clone(), after: Vec::new() };
        for level in &self.state.levels {
            frame.before.extend_from_slice(&level.start);
            frame.before.extend_from_slice(&level.kept);
        }
        for level in self.state.levels.iter().rev() {
            frame.after.extend_from_slice(b"</");
            frame.after.extend_from_slice(&level.name);
            frame.after.push(b'>');
        }
        frame
    }
}

impl Xml {
    /// The namespace as which one in a file is read; nothing if the layout does not know it.
    pub(in crate::format) fn read_as(&self, uri: &str) -> Option<std::sync::Arc<str>> {
        match self.namespaces.iter().find(|(_, known)| &***known == uri) {
            Some((_, known)) => Some(known.clone()),
            None if self.accept.iter().any(|known| &**known == uri) => self.namespaces.uri("").cloned(),
            None => None,
        }
    }
}

impl<R: BufRead> Records<R> {
    /// The next record element.
    pub(super) fn next_element(&mut self) -> Result<Option<Piece>, FormatError> {
        let layout = self.layout.clone();
        let Shape::Xml(xml) = &layout.shape else { return Ok(None) };
        let Some(mut splitter) = self.xml.take() else { return Ok(None) };
        let found = self.walk(xml, &mut splitter);
        self.xml = Some(splitter);
        found.map_err(|error| if error.at.is_none() { at_line(error, self.line) } else { error })
    }

    fn walk(&mut self, xml: &Xml, splitter: &mut Splitter) -> Result<Option<Piece>, FormatError> {
        loop {
            if !self.seek_tag(splitter)? {
                return Ok(None);
            }
            let token = self.token(0)?;
            let tag = self.window.bytes().get(..token.length).unwrap_or_default();
            match token.kind {
                Kind::Other => self.pass(token.length),
                Kind::Declaration => {
                    if splitter.state.begun {
                        return Err(malformed("the XML declaration does not stand at the very beginning"));
                    }
                    check_encoding(tag)?;
                    splitter.state.declaration = tag.to_vec();
                    self.pass(token.length);
                }
                Kind::DocType => {
                    let what = "the document brings a document type definition (DTD); those are refused";
                    return Err(FormatError::nowhere(Code::DtdRefused, what));
                }
                Kind::End => {
                    let name = tag.get(token.name.0..token.name.1).unwrap_or_default();
                    let level = splitter.state.levels.pop();
                    let Some(level) = level.filter(|level| level.name == name) else {
                        return Err(malformed(format!(
                            "`</{}>` closes nothing that is open",
                            lossless(name)
                        )));
                    };
                    let tag = tag.to_vec();
                    self.close(xml, splitter, level, &tag)?;
                    self.pass(token.length);
                }
                Kind::Start | Kind::Empty => {
                    if let Some(piece) = self.open(xml, splitter, token)? {
                        return Ok(Some(piece));
                    }
                }
            }
        }
    }

    fn open(
        &mut self,
        xml: &Xml,
        splitter: &mut Splitter,
        token: Token,
    ) -> Result<Option<Piece>, FormatError> {
        let state = &mut splitter.state;
        if state.levels.is_empty() && state.begun {
            return Err(malformed("a second root element begins"));
        }
        if state.levels.len() >= DEPTH {
            let what = format!("nested deeper than {DEPTH} levels");
            return Err(FormatError::nowhere(Code::DocumentTooLarge, what));
        }
        let tag = self.window.bytes().get(..token.length).unwrap_or_default();
        let above = state.levels.last().map(|level| level.on);
        if above == Some(On::Off) {
            let name = tag.get(token.name.0..token.name.1).unwrap_or_default().to_vec();
            if token.kind == Kind::Start {
                state.levels.push(Level { name, ..Level::default() });
            }
            self.pass(token.length);
            return Ok(None);
        }
        let mut level = Level::of(tag, token)?;
        let name = state.resolve(&level, xml)?;
        if !state.begun && Some(&name) != xml.record.first() {
            let wanted = xml.record.first().map(Name::to_string).unwrap_or_default();
            let what = format!("the root element is `{name}`, and the layout is for `{wanted}`");
            return Err(FormatError::nowhere(Code::NotText, what));
        }
        state.begun = true;
        splitter.path.push(name);
        let path = &splitter.path;
        if *path == xml.record {
            splitter.path.pop();
            return self.record(splitter, token).map(Some);
        }
        if xml.keep.contains(path) {
            splitter.path.pop();
            let length = self.element(token)?;
            let bytes = self.window.bytes().get(..length).unwrap_or_default();
            if let Some(parent) = splitter.state.levels.last_mut() {
                parent.kept.extend_from_slice(bytes);
                if parent.kept.len() > self.limits.head {
                    let what =
                        format!("what is kept before the records has more than {} bytes", self.limits.head);
                    return Err(FormatError::nowhere(Code::DocumentTooLarge, what));
                }
            }
            splitter.stale = true;
            self.pass(length);
            return Ok(None);
        }
        level.on = if xml.record.starts_with(path) {
            On::Record
        } else if xml.keep.iter().any(|keep| keep.starts_with(path)) {
            On::Keep
        } else {
            On::Off
        };
        if level.on != On::Off {
            level.start = tag.to_vec();
        } else {
            splitter.path.pop();
        }
        splitter.stale |= level.on == On::Record;
        match token.kind {
            Kind::Start => splitter.state.levels.push(level),
            Kind::Empty | Kind::End | Kind::Other | Kind::Declaration | Kind::DocType => {
                if level.on != On::Off {
                    splitter.path.pop();
                }
            }
        }
        self.pass(token.length);
        Ok(None)
    }

    fn close(
        &mut self,
        xml: &Xml,
        splitter: &mut Splitter,
        level: Level,
        tag: &[u8],
    ) -> Result<(), FormatError> {
        match level.on {
            On::Off => return Ok(()),
            On::Keep => {
                if let (Some(parent), false) = (splitter.state.levels.last_mut(), level.kept.is_empty()) {
                    for part in [&level.start, &level.kept, &tag.to_vec()] {
                        parent.kept.extend_from_slice(part);
                    }
                    splitter.stale = true;
                }
            }
            On::Record => {
                splitter.stale = true;
                if splitter.path.len() + 1 == xml.record.len() && !self.layout.totals.is_empty() {
                    splitter.state.levels.push(level);
                    let frame = splitter.frame();
                    splitter.state.levels.pop();
                    let document = frame.wrap(b"");
                    let tree = Format::Xml.read(&document, None, Some(&self.layout), &Limits::default())?;
                    self.totals.group(&self.layout, &tree, self.line);
                }
            }
        }
        splitter.path.pop();
        Ok(())
    }

    fn record(&mut self, splitter: &mut Splitter, token: Token) -> Result<Piece, FormatError> {
        let length = self.element(token)?;
        if std::mem::take(&mut splitter.stale) {
            self.frame = splitter.frame();
            if self.frame.before.len() > self.limits.head {
                let what = format!("what stands before the records has more than {} bytes", self.limits.head);
                return Err(FormatError::nowhere(Code::DocumentTooLarge, what));
            }
        }
        let bytes = self.window.bytes().get(..length).unwrap_or_default().to_vec();
        let mut piece = Piece {
            number: self.number + 1,
            line: self.line,
            offset: self.window.offset(),
            bytes,
            wrong: None,
        };
        if !self.layout.totals.is_empty() {
            let document = self.frame.wrap(&piece.bytes);
            match Format::Xml.read(&document, None, Some(&self.layout), &Limits::default()) {
                Ok(tree) => self.totals.record(&self.layout, &tree),
                Err(error) => {
                    self.totals.doubt();
                    piece.wrong = Some(at_line(error, self.line));
                }
            }
        }
        self.pass(length);
        Ok(piece)
    }

    /// Leaves bytes behind and counts their lines.
    fn pass(&mut self, length: usize) {
        let bytes = self.window.bytes().get(..length).unwrap_or_default();
        self.line += memchr_iter(b'\n', bytes).count() as u64;
        self.window.consume(length);
    }

    /// Goes to the next tag; none at the end of the file.
    fn seek_tag(&mut self, splitter: &mut Splitter) -> Result<bool, FormatError> {
        loop {
            let bytes = self.window.bytes();
            let found = memchr(b'<', bytes);
            let text = bytes.get(..found.unwrap_or(bytes.len())).unwrap_or_default();
            if splitter.state.levels.is_empty() && !text.iter().all(u8::is_ascii_whitespace) {
                return Err(malformed("text stands outside the root element"));
            }
            let length = text.len();
            self.pass(length);
            if found.is_some() {
                return Ok(true);
            }
            if self.window.ended() {
                return match (splitter.state.levels.last(), splitter.state.begun) {
                    (Some(level), _) => {
                        let what = format!("the file ends inside `{}`: it is cut off", lossless(&level.name));
                        Err(FormatError::nowhere(Code::FileCutOff, what))
                    }
                    (None, false) => Err(malformed("the file has no root element")),
                    (None, true) => {
                        splitter.state.ended = true;
                        Ok(false)
                    }
                };
            }
            self.window.more()?;
        }
    }

    /// The token at this place in the window, whole.
    fn token(&mut self, at: usize) -> Result<Token, FormatError> {
        loop {
            let bytes = self.window.bytes();
            if let Some(token) = token(bytes.get(at..).unwrap_or_default()) {
                return Ok(token);
            }
            if self.window.ended() {
                let what = "the file ends inside a tag: it is cut off";
                return Err(FormatError::nowhere(Code::FileCutOff, what));
            }
            self.within(bytes.len())?;
            self.window.more()?;
        }
    }

    fn within(&self, length: usize) -> Result<(), FormatError> {
        match length > self.limits.bytes {
            true => {
                let what = format!("a record has more than {} bytes", self.limits.bytes);
                Err(FormatError::nowhere(Code::DocumentTooLarge, what))
            }
            false => Ok(()),
        }
    }

    /// The length of the element that begins the window.
    fn element(&mut self, start: Token) -> Result<usize, FormatError> {
        if start.kind == Kind::Empty {
            return Ok(start.length);
        }
        let mut open = vec![start.name];
        let mut at = start.length;
        loop {
            let bytes = self.window.bytes();
            let Some(found) = memchr(b'<', bytes.get(at..).unwrap_or_default()) else {
                if self.window.ended() {
                    let what = "the file ends inside a record: it is cut off";
                    return Err(FormatError::nowhere(Code::FileCutOff, what));
                }
                at = bytes.len();
                self.within(at)?;
                self.window.more()?;
                continue;
            };
            at += found;
            let token = self.token(at)?;
            let name = (at + token.name.0, at + token.name.1);
            match token.kind {
                Kind::Other | Kind::Empty => {}
                Kind::Declaration | Kind::DocType => {
                    return Err(malformed("a declaration stands inside an element"));
                }
                Kind::Start => {
                    open.push(name);
                    if open.len() > DEPTH {
                        let what = format!("nested deeper than {DEPTH} levels");
                        return Err(FormatError::nowhere(Code::DocumentTooLarge, what));
                    }
                }
                Kind::End => {
                    let bytes = self.window.bytes();
                    let text = |(from, to): (usize, usize)| bytes.get(from..to).unwrap_or_default();
                    match open.pop() {
                        Some(opened) if text(opened) == text(name) => {}
                        Some(_) | None => {
                            let what = format!(
                                "`</{}>` closes another element than the last one opened",
                                lossless(text(name))
                            );
                            return Err(malformed(what));
                        }
                    }
                    if open.is_empty() {
                        self.within(at + token.length)?;
                        return Ok(at + token.length);
                    }
                }
            }
            at += token.length;
            self.within(at)?;
        }
    }
}

/// Refuses encodings in which `<` is not one byte.
fn check_encoding(declaration: &[u8]) -> Result<(), FormatError> {
    match charset::xml_declaration(declaration)? {
        Some(encoding) if !encoding.is_ascii_compatible() => {
            let what = format!("the file says it is in {}, which is not split into records", encoding.name());
            Err(FormatError::nowhere(Code::WrongEncoding, what))
        }
        Some(_) | None => Ok(()),
    }
}

impl totals::Totals {
    /// Adds up a record of an XML file.
    fn record(&mut self, layout: &Layout, tree: &crate::tree::Tree) {
        self.of_xml(layout, tree, totals::Part::Record, 0);
    }

    /// Checks what stands around the records of a group, when it ends.
    fn group(&mut self, layout: &Layout, tree: &crate::tree::Tree, line: u64) {
        self.of_xml(layout, tree, totals::Part::Group, line);
    }
}
