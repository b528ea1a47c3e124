//! XML 1.0 with namespaces: what quick-xml reads, made strict, and a writer.
//!
//! quick-xml is a fast tokeniser that leaves much of well-formedness to its caller: one root, characters, names,
//! where a declaration may stand, depth and sizes. Those checks are here. DTDs and entities other than the five
//! predefined ones are refused on principle: no system we know needs them, and every known XML attack does.
//!
//! What the tree does not keep: comments, processing instructions, white space between elements, the place of text
//! within mixed content (all text of an element is joined).

use super::{FormatError, Limits, Style, layout::Xml};
use crate::{
    code::Code,
    tree::{Name, Record, TEXT, Tree},
};
use compact_str::{CompactString, format_compact};
use memchr::memchr;
use quick_xml::{
    NsReader,
    escape::resolve_predefined_entity,
    events::{BytesDecl, BytesStart, Event},
    name::ResolveResult,
};
use std::{fmt::Write as _, sync::Arc};

const SCHEMA_INSTANCE: &str = "http://www.w3.org/2001/XMLSchema-instance";
const XML_SPACE: &str = "http://www.w3.org/XML/1998/namespace";

/// Reads one XML document into a record with one entry, the root element.
pub fn parse(text: &str, limits: &Limits) -> Result<Tree, FormatError> {
    parse_by(text, None, limits)
}

/// Reads one XML document; with a layout, in its namespaces only.
pub fn parse_by(text: &str, layout: Option<&Xml>, limits: &Limits) -> Result<Tree, FormatError> {
    let mut reader = NsReader::from_str(text);
    reader.config_mut().enable_all_checks(true);
    reader.resolver_mut().set_max_namespace_bindings(limits.namespaces);
    let mut builder =
        Builder { text, limits, layout, open: Vec::new(), root: None, values: 0, spaces: Vec::new() };
    if let Some((at, c)) = not_allowed(text) {
        return Err(builder.error(at, format!("the character U+{:04X} is not allowed in XML", c as u32)));
    }
    loop {
        let at = reader.buffer_position() as usize;
        let event = match reader.read_event() {
            Ok(event) => event,
            Err(error) => {
                let at = usize::try_from(reader.error_position()).unwrap_or(at);
                return Err(builder.error(at, error.to_string()));
            }
        };
        match event {
            Event::Start(start) => builder.open(&reader, &start, at)?,
            Event::Empty(start) => {
                builder.open(&reader, &start, at)?;
                builder.close();
            }
            // Its name is that of the start: the reader has compared them.
            Event::End(_) => builder.close(),
            Event::Text(content) => {
                if memchr(b']', content.as_bytes()).is_some() && content.contains("]]>") {
                    return Err(builder.error(at, "`]]>` stands in text"));
                }
                builder.append(&content.xml10_content(), at, false)?;
            }
            Event::CData(content) => builder.append(&content.xml10_content(), at, true)?,
            Event::GeneralRef(reference) => {
                let c = match reference.resolve_char_ref() {
                    Ok(Some(c)) if is_char(c) && !reference.starts_with("#X") => c.to_string(),
                    Ok(None) => match resolve_predefined_entity(&reference.xml10_content()) {
                        Some(text) => text.to_owned(),
                        None => {
                            return Err(FormatError::at(
                                Code::EntityRefused,
                                "an entity is used that XML does not predefine; entities are refused",
                                text.as_bytes(),
                                at,
                            ));
                        }
                    },
                    Ok(Some(_)) | Err(_) => {
                        return Err(builder.error(at, "a character reference names no XML character"));
                    }
                };
                builder.append(&c, at, true)?;
            }
            Event::Decl(declaration) => {
                if at != 0 {
                    return Err(builder.error(at, "the XML declaration does not stand at the very beginning"));
                }
                check_declaration(&declaration).map_err(|what| builder.error(at, what))?;
            }
            Event::PI(instruction) => {
                let target = instruction.target();
                check_name(target, false).map_err(|what| builder.error(at, what))?;
                if target.eq_ignore_ascii_case("xml") {
                    return Err(builder.error(at, "a processing instruction may not be called `xml`"));
                }
                let rest = instruction.content();
                if !rest.is_empty() && !rest.starts_with([' ', '\t', '\r', '\n']) {
                    return Err(
                        builder.error(at, "white space is missing after a processing instruction's name")
                    );
                }
            }
            Event::Comment(comment) => {
                if comment.ends_with('-') {
                    return Err(builder.error(at, "a comment ends with `--->`"));
                }
            }
            Event::DocType(_) => {
                return Err(FormatError::at(
                    Code::DtdRefused,
                    "the document brings a document type definition (DTD); those are refused",
                    text.as_bytes(),
                    at,
                ));
            }
            Event::Eof => return builder.finish(at),
        }
    }
}

/// An element that is being read.
struct Open {
    name: Name,
    record: Record,
    text: CompactString,
    /// Whether there is text that counts even if it is only white space (from CDATA or a reference).
    solid: bool,
    nil: bool,
}

struct Builder<'a> {
    text: &'a str,
    limits: &'a Limits,
    open: Vec<Open>,
    root: Option<(Name, Tree)>,
    values: usize,
    /// Namespaces seen so far, so that each URI is held once, and as what they are read.
    spaces: Vec<(Arc<str>, Arc<str>)>,
    layout: Option<&'a Xml>,
}

impl Builder<'_> {
    fn error(&self, at: usize, what: impl Into<String>) -> FormatError {
        FormatError::at(Code::MalformedXml, what, self.text.as_bytes(), at)
    }

    fn over(&self, at: usize, what: String) -> FormatError {
        FormatError::at(Code::DocumentTooLarge, what, self.text.as_bytes(), at)
    }

    fn name(&mut self, space: ResolveResult<'_>, local: impl Into<CompactString>) -> Result<Name, String> {
        match space {
            ResolveResult::Unbound => Ok(Name::plain(local)),
            ResolveResult::Unknown(prefix) => Err(format!("the prefix `{prefix}` is not declared")),
            ResolveResult::Bound(space) => {
                let space = match self.spaces.iter().find(|(known, _)| &**known == space.0) {
                    Some((_, read_as)) => read_as.clone(),
                    None => {
                        let read_as = match self.layout {
                            Some(layout) if !matches!(space.0, SCHEMA_INSTANCE | XML_SPACE) => {
                                layout.read_as(space.0).ok_or_else(|| {
                                    format!("the namespace `{}` is not one that the layout knows", space.0)
                                })?
                            }
                            Some(_) | None => Arc::from(space.0),
                        };
                        self.spaces.push((Arc::from(space.0), read_as.clone()));
                        read_as
                    }
                };
                Ok(Name::spaced(space, local))
            }
        }
    }

    fn count(&mut self, at: usize) -> Result<(), FormatError> {
        self.values += 1;
        if self.values > self.limits.values {
            return Err(self.over(at, format!("more than {} values", self.limits.values)));
        }
        Ok(())
    }

    fn open(
        &mut self,
        reader: &NsReader<&[u8]>,
        start: &BytesStart<'_>,
        at: usize,
    ) -> Result<(), FormatError> {
        if self.open.is_empty() && self.root.is_some() {
            return Err(self.error(at, "a second root element begins"));
        }
        if self.open.len() >= self.limits.depth {
            return Err(self.over(at, format!("nested deeper than {} levels", self.limits.depth)));
        }
        self.count(at)?;
        check_name(start.name().0, true).map_err(|what| self.error(at, what))?;
        let (space, local) = reader.resolver().resolve_element(start.name());
        let name = self.name(space, local.as_ref()).map_err(|what| self.error(at, what))?;
        let mut open =
            Open { name, record: Record::new(), text: CompactString::default(), solid: false, nil: false };
        check_attribute_spacing(start.attributes_raw()).map_err(|what| self.error(at, what))?;
        for (index, attribute) in start.attributes().enumerate() {
            let attribute = attribute.map_err(|error| self.error(at, error.to_string()))?;
            if index >= self.limits.attributes {
                return Err(self.over(at, format!("more than {} attributes", self.limits.attributes)));
            }
            check_name(attribute.key.0, true).map_err(|what| self.error(at, what))?;
            if attribute.value.contains('<') {
                return Err(self.error(at, "`<` stands in an attribute's value"));
            }
            let value =
                attribute.normalized_value(quick_xml::XmlVersion::Explicit1_0).map_err(
                    |error| match &error {
                        quick_xml::Error::Escape(quick_xml::escape::EscapeError::UnrecognizedEntity(..)) => {
                            FormatError::at(
                                Code::EntityRefused,
                                "an entity is used that XML does not predefine; entities are refused",
                                self.text.as_bytes(),
                                at,
                            )
                        }
                        _ => self.error(at, error.to_string()),
                    },
                )?;
            if value.len() > self.limits.text {
                return Err(self.over(at, format!("an attribute of more than {} bytes", self.limits.text)));
            }
            if !value.chars().all(is_char) {
                return Err(self.error(at, "a character reference names no XML character"));
            }
            if attribute.key.as_namespace_binding().is_some() {
                check_binding(attribute.key.0, &value).map_err(|what| self.error(at, what))?;
                continue;
            }
            self.count(at)?;
            let (space, local) = reader.resolver().resolve_attribute(attribute.key);
            let name = self
                .name(space, format_compact!("@{}", local.as_ref()))
                .map_err(|what| self.error(at, what))?;
            if name.space.as_deref() == Some(SCHEMA_INSTANCE) && name.local == "@nil" {
                open.nil = matches!(value.trim(), "true" | "1");
                continue;
            }
            if open.record.get(&name).is_some() {
                return Err(self.error(at, "an attribute occurs twice under two prefixes of one namespace"));
            }
            open.record.push(name, Tree::text(value.into_owned()));
        }
        self.open.push(open);
        Ok(())
    }

    fn append(&mut self, text: &str, at: usize, solid: bool) -> Result<(), FormatError> {
        let Some(open) = self.open.last_mut() else {
            if solid || !text.trim_matches([' ', '\t', '\r', '\n']).is_empty() {
                let (at, what) = match text.find(|c: char| !c.is_ascii_whitespace()) {
                    Some(offset) => (at + offset, "text stands outside the root element"),
                    None => (at, "text stands outside the root element"),
                };
                return Err(self.error(at, what));
            }
            return Ok(());
        };
        open.solid |= solid;
        open.text.push_str(text);
        if open.text.len() > self.limits.text {
            return Err(self.over(at, format!("a text of more than {} bytes", self.limits.text)));
        }
        Ok(())
    }

    fn close(&mut self) {
        let Some(mut open) = self.open.pop() else { return };
        let blank = !open.solid && open.text.bytes().all(|b| b.is_ascii_whitespace());
        let tree = if open.nil && open.record.is_empty() {
            Tree::Null
        } else if open.record.is_empty() {
            Tree::text(open.text)
        } else {
            if !blank {
                open.record.push(Name::plain(TEXT), Tree::text(open.text));
            }
            Tree::Record(open.record)
        };
        match self.open.last_mut() {
            Some(parent) => parent.record.push(open.name, tree),
            None => self.root = Some((open.name, tree)),
        }
    }

    fn finish(self, at: usize) -> Result<Tree, FormatError> {
        if let Some(open) = self.open.last() {
            let what = format!("the document ends inside `{}`: it is cut off", open.name.local);
            return Err(self.error(at, what));
        }
        let end = self.text.len();
        match self.root {
            Some(root) => Ok(Tree::Record(Record::from_iter([root]))),
            None => Err(FormatError::at(
                Code::MalformedXml,
                "the document has no root element",
                self.text.as_bytes(),
                end,
            )),
        }
    }
}

/// `Char` of XML 1.0 s.2.2.
fn is_char(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}

/// The first character that XML does not allow, and where. Nearly all documents have no byte that could begin one.
fn not_allowed(text: &str) -> Option<(usize, char)> {
    let suspicious = |b: u8| (b < b' ' && !matches!(b, b'\t' | b'\n' | b'\r')) || b == 0xef;
    // Without a branch in the middle of a stretch, so that it is looked at many bytes at once.
    let any = |stretch: &[u8]| stretch.iter().fold(false, |found, b| found | suspicious(*b));
    match text.as_bytes().chunks(1024).any(any) {
        false => None,
        true => text.char_indices().find(|(_, c)| !is_char(*c)),
    }
}

/// `NameStartChar` of XML 1.0 (fifth edition) s.2.3, without the colon.
fn is_name_start(c: char) -> bool {
    matches!(c, 'A'..='Z' | '_' | 'a'..='z' | '\u{c0}'..='\u{d6}' | '\u{d8}'..='\u{f6}' | '\u{f8}'..='\u{2ff}'
        | '\u{370}'..='\u{37d}' | '\u{37f}'..='\u{1fff}' | '\u{200c}'..='\u{200d}' | '\u{2070}'..='\u{218f}'
        | '\u{2c00}'..='\u{2fef}' | '\u{3001}'..='\u{d7ff}' | '\u{f900}'..='\u{fdcf}' | '\u{fdf0}'..='\u{fffd}'
        | '\u{10000}'..='\u{effff}')
}

/// `NameChar` of XML 1.0 s.2.3, without the colon.
fn is_name_char(c: char) -> bool {
    is_name_start(c)
        || matches!(c, '-' | '.' | '0'..='9' | '\u{b7}' | '\u{300}'..='\u{36f}' | '\u{203f}'..='\u{2040}')
}

/// Whether this is a name in XML with namespaces: `local` or, if allowed, `prefix:local`.
pub fn check_name(name: &str, may_have_prefix: bool) -> Result<(), String> {
    let mut bytes = name.bytes();
    if bytes.next().is_some_and(|b| b.is_ascii_alphabetic()) && bytes.all(|b| b.is_ascii_alphanumeric()) {
        return Ok(());
    }
    let mut parts = name.split(':');
    let well_formed = |part: &str| {
        let mut chars = part.chars();
        chars.next().is_some_and(is_name_start) && chars.all(is_name_char)
    };
    let first = parts.next().is_some_and(well_formed);
    let second = parts.next().is_none_or(|part| may_have_prefix && well_formed(part));
    match first && second && parts.next().is_none() {
        true => Ok(()),
        false => Err("this is not an XML name".to_owned()),
    }
}

/// Attributes must be parted by white space: `<a x="1"y="2">` is not well-formed.
fn check_attribute_spacing(raw: &str) -> Result<(), &'static str> {
    let mut quote = None;
    let mut closed = false;
    for c in raw.chars() {
        match quote {
            Some(open) if c == open => (quote, closed) = (None, true),
            Some(_) => {}
            None if closed && !matches!(c, ' ' | '\t' | '\r' | '\n' | '/') => {
                return Err("white space is missing between two attributes");
            }
            None => {
                closed = false;
                if matches!(c, '"' | '\'') {
                    quote = Some(c);
                }
            }
        }
    }
    Ok(())
}

/// The rules for declaring prefixes (Namespaces in XML 1.0 s.3 and s.5).
fn check_binding(key: &str, uri: &str) -> Result<(), &'static str> {
    let prefix = key.strip_prefix("xmlns:");
    match prefix {
        Some("xml") if uri != XML_SPACE => Err("the prefix `xml` is bound to another namespace"),
        Some("xmlns") => Err("the prefix `xmlns` is declared"),
        Some(_) if uri.is_empty() => Err("a prefix is bound to the empty namespace"),
        _ => Ok(()),
    }
}

/// `XMLDecl` of XML 1.0 s.2.8: version, then perhaps encoding, then perhaps standalone, and nothing else.
fn check_declaration(declaration: &BytesDecl<'_>) -> Result<(), String> {
    let content = declaration.strip_prefix("xml").unwrap_or(declaration);
    check_attribute_spacing(content)?;
    let start = BytesStart::from_content(format!("xml{content}"), 3);
    let mut stage = 0;
    for attribute in start.attributes() {
        let attribute = attribute.map_err(|error| error.to_string())?;
        let value = &*attribute.value;
        let (place, fine) = match attribute.key.0 {
            "version" => (
                1,
                value
                    .strip_prefix("1.")
                    .is_some_and(|minor| !minor.is_empty() && minor.bytes().all(|b| b.is_ascii_digit())),
            ),
            "encoding" => (2, is_encoding_name(value)),
            "standalone" => (3, matches!(value, "yes" | "no")),
            _ => {
                return Err(
                    "the XML declaration holds something else than version, encoding and standalone".into()
                );
            }
        };
        if !fine {
            return Err("a value in the XML declaration is not allowed there".into());
        }
        if place <= stage || (stage == 0 && place != 1) {
            return Err("the parts of the XML declaration stand in the wrong order".into());
        }
        stage = place;
    }
    match stage {
        0 => Err("the XML declaration has no version".into()),
        _ => Ok(()),
    }
}

fn is_encoding_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// Writes a document with its declaration.
pub fn write(tree: &Tree, style: &Style) -> Result<String, FormatError> {
    write_in(tree, style, None)
}

/// Writes a document; inside the body of an envelope if its namespace is given.
pub fn write_in(tree: &Tree, style: &Style, envelope: Option<&str>) -> Result<String, FormatError> {
    let root = match tree {
        Tree::Record(record) => match record.entries() {
            [(name, tree)] if !name.is_attribute() => Some((name, tree)),
            _ => None,
        },
        _ => None,
    };
    let Some((name, tree)) = root else {
        return Err(FormatError::nowhere(Code::CannotWrite, "an XML document has exactly one root element"));
    };
    let mut out = String::with_capacity(1024);
    let encoding = style.charset.map_or("UTF-8", encoding_rs::Encoding::name);
    let _ = writeln!(out, "<?xml version=\"1.0\" encoding=\"{encoding}\"?>");
    if let Some(space) = envelope {
        let _ = write!(out, "<soap:Envelope xmlns:soap=\"{space}\"><soap:Body>");
    }
    let mut writer = Writer { out, style, extra: Vec::new() };
    writer.element(name, tree, true)?;
    let mut out = writer.out;
    if envelope.is_some() {
        out.push_str("</soap:Body></soap:Envelope>");
    }
    Ok(out)
}

struct Writer<'a> {
    out: String,
    style: &'a Style,
    /// Namespaces that the style does not declare, with the prefixes made up for them.
    extra: Vec<(String, Arc<str>)>,
}

impl Writer<'_> {
    fn element(&mut self, name: &Name, tree: &Tree, root: bool) -> Result<(), FormatError> {
        if let Tree::List(items) = tree {
            for item in items {
                self.element(name, item, root)?;
            }
            return Ok(());
        }
        let known = self.extra.len();
        let tag = self.tag(name)?;
        self.out.push('<');
        self.out.push_str(&tag);
        if root {
            for (prefix, uri) in self.style.namespaces.iter() {
                self.out.push_str(if prefix.is_empty() { " xmlns" } else { " xmlns:" });
                self.out.push_str(prefix);
                self.value_attribute(uri)?;
            }
        }
        let record = tree.as_record();
        let mut attributes = String::new();
        for (name, value) in record.map(Record::entries).unwrap_or_default() {
            if !name.is_attribute() {
                continue;
            }
            let tag = self.tag(name)?;
            let value =
                value.to_plain_text().ok_or_else(|| cannot(name, "an attribute holds a plain value"))?;
            attributes.push(' ');
            attributes.push_str(&tag);
            attributes.push_str("=\"");
            escape(&value, true, &mut attributes).map_err(|what| cannot(name, &what))?;
            attributes.push('"');
        }
        for (prefix, uri) in self.extra.iter().skip(known) {
            let _ = write!(self.out, " xmlns:{prefix}=\"");
            escape(uri, true, &mut self.out).map_err(|what| cannot(name, &what))?;
            self.out.push('"');
        }
        self.out.push_str(&attributes);
        if self.content(name, tree)? == Content::Some {
            self.out.push_str("</");
            self.out.push_str(&tag);
            self.out.push('>');
        }
        self.extra.truncate(known);
        Ok(())
    }

    fn value_attribute(&mut self, value: &str) -> Result<(), FormatError> {
        self.out.push_str("=\"");
        escape(value, true, &mut self.out).map_err(|what| FormatError::nowhere(Code::CannotWrite, what))?;
        self.out.push('"');
        Ok(())
    }

    /// Ends the start tag and writes what is inside; an element without content becomes `<a/>` and is closed.
    fn content(&mut self, name: &Name, tree: &Tree) -> Result<Content, FormatError> {
        match tree {
            Tree::Null => {
                let _ = write!(self.out, " xmlns:xsi=\"{SCHEMA_INSTANCE}\" xsi:nil=\"true\"/>");
                return Ok(Content::None);
            }
            Tree::Text(text) if text.is_empty() => {
                self.out.push_str("/>");
                return Ok(Content::None);
            }
            Tree::Text(text) | Tree::Number(text) => {
                self.out.push('>');
                escape(text, false, &mut self.out).map_err(|what| cannot(name, &what))?;
            }
            Tree::Bool(b) => {
                let _ = write!(self.out, ">{b}");
            }
            Tree::Record(record) => {
                let mut inside = record.entries().iter().filter(|(name, _)| !name.is_attribute()).peekable();
                if inside.peek().is_none() {
                    self.out.push_str("/>");
                    return Ok(Content::None);
                }
                self.out.push('>');
                for (child, tree) in inside {
                    match child.local.as_str() {
                        TEXT => {
                            let text = tree.to_plain_text().unwrap_or_default();
                            escape(&text, false, &mut self.out).map_err(|what| cannot(name, &what))?;
                        }
                        _ => self.element(child, tree, false)?,
                    }
                }
            }
            Tree::List(_) => return Err(cannot(name, "a list stands directly in a list")),
        }
        Ok(Content::Some)
    }

    /// The name as written, with a prefix if it is in a namespace. The default namespace does not hold for attributes.
    fn tag(&mut self, name: &Name) -> Result<String, FormatError> {
        let attribute = name.local.strip_prefix('@');
        let local = attribute.unwrap_or(&name.local);
        check_name(local, false).map_err(|_| cannot(name, "this is not an XML name"))?;
        let Some(space) = &name.space else { return Ok(local.to_owned()) };
        if &**space == XML_SPACE {
            return Ok(format!("xml:{local}"));
        }
        let declared = self.style.namespaces.prefix(space).filter(|p| attribute.is_none() || !p.is_empty());
        let declared = declared.map(str::to_owned);
        let prefix =
            declared.or_else(|| self.extra.iter().find(|(_, uri)| uri == space).map(|(p, _)| p.clone()));
        let prefix = prefix.unwrap_or_else(|| {
            let made = format!("ns{}", self.extra.len() + 1);
            self.extra.push((made.clone(), space.clone()));
            made
        });
        Ok(if prefix.is_empty() { local.to_owned() } else { format!("{prefix}:{local}") })
    }
}

/// Whether an element was left open for its end tag.
#[derive(PartialEq)]
enum Content {
    Some,
    None,
}

fn cannot(name: &Name, what: &str) -> FormatError {
    FormatError::nowhere(Code::CannotWrite, format!("`{}` cannot be written: {what}", name.local))
}

fn escape(text: &str, attribute: bool, out: &mut String) -> Result<(), String> {
    let mut from = 0;
    for (at, c) in text.char_indices() {
        let entity = match c {
            '&' => "&amp;",
            '<' => "&lt;",
            '>' => "&gt;",
            '\r' => "&#13;",
            '"' if attribute => "&quot;",
            '\n' if attribute => "&#10;",
            '\t' if attribute => "&#9;",
            c if is_char(c) => continue,
            c => return Err(format!("the character U+{:04X} is not allowed in XML", c as u32)),
        };
        out.push_str(text.get(from..at).unwrap_or_default());
        out.push_str(entity);
        from = at + c.len_utf8();
    }
    out.push_str(text.get(from..).unwrap_or_default());
    Ok(())
}
