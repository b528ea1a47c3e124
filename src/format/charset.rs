//! Character encodings: which one the bytes are in, decoding them, and writing another than UTF-8.
//!
//! Bytes are decoded whole before they are parsed. Labels follow the WHATWG Encoding Standard, in which `iso-8859-1`
//! and `us-ascii` mean windows-1252, as they do in practice.

use super::FormatError;
use crate::code::Code;
use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE};
use std::borrow::Cow;

/// Finds the encoding that a document itself declares.
pub type Declaration = fn(&[u8]) -> Result<Option<&'static Encoding>, FormatError>;

/// Decodes a document: byte-order mark, then what the transport said, then the document's own declaration, then UTF-8.
///
/// # Errors
/// An encoding nobody knows, or bytes that are not valid in the encoding, with the place of the first.
pub fn decode<'a>(
    bytes: &'a [u8],
    transport: Option<&str>,
    declaration: Option<Declaration>,
) -> Result<Cow<'a, str>, FormatError> {
    let (encoding, body) = match Encoding::for_bom(bytes) {
        Some((encoding, length)) => (encoding, bytes.get(length..).unwrap_or_default()),
        None => (declared(bytes, transport, declaration)?, bytes),
    };
    let text = decode_as(encoding, body)?;
    if let (Some(find), None) = (declaration, transport) {
        let declared = find(text.as_bytes())?.unwrap_or(encoding);
        if declared != encoding && !(is_utf_16(declared) && is_utf_16(encoding)) {
            return Err(FormatError::nowhere(
                Code::WrongEncoding,
                format!("the document declares {} but is in {}", declared.name(), encoding.name()),
            ));
        }
    }
    Ok(text)
}

fn is_utf_16(encoding: &Encoding) -> bool {
    encoding == UTF_16LE || encoding == UTF_16BE
}

pub(super) fn decode_as<'a>(
    encoding: &'static Encoding,
    body: &'a [u8],
) -> Result<Cow<'a, str>, FormatError> {
    if encoding == UTF_8 {
        return match std::str::from_utf8(body) {
            Ok(text) => Ok(Cow::Borrowed(text)),
            Err(error) => Err(FormatError::at(
                Code::WrongEncoding,
                "these bytes are not UTF-8; if the document is in another encoding, it must say so",
                body,
                error.valid_up_to(),
            )),
        };
    }
    encoding.decode_without_bom_handling_and_without_replacement(body).ok_or_else(|| {
        FormatError::nowhere(Code::WrongEncoding, format!("the bytes are not valid {}", encoding.name()))
    })
}

fn declared(
    bytes: &[u8],
    transport: Option<&str>,
    declaration: Option<Declaration>,
) -> Result<&'static Encoding, FormatError> {
    if let Some(label) = transport {
        return by_label(label);
    }
    match declaration {
        // A declaration that can be read byte by byte is not in UTF-16; that it says so is found out when it is read.
        Some(find) if bytes.starts_with(b"<?xml") => {
            Ok(find(bytes)?.filter(|encoding| !is_utf_16(encoding)).unwrap_or(UTF_8))
        }
        Some(find) => Ok(find(bytes)?.unwrap_or(UTF_8)),
        None => Ok(UTF_8),
    }
}

/// The encoding of a label such as `windows-1252`.
///
/// # Errors
/// A label that the Encoding Standard does not list.
pub fn by_label(label: &str) -> Result<&'static Encoding, FormatError> {
    Encoding::for_label(label.as_bytes())
        .ok_or_else(|| FormatError::nowhere(Code::WrongEncoding, format!("no encoding is called `{label}`")))
}

/// The encoding in an XML declaration: `<?xml version="1.0" encoding="…"?>`, or UTF-16 by its first bytes.
///
/// # Errors
/// An encoding nobody knows.
pub fn xml_declaration(bytes: &[u8]) -> Result<Option<&'static Encoding>, FormatError> {
    if bytes.starts_with(b"<\0?\0") {
        return Ok(Some(UTF_16LE));
    }
    if bytes.starts_with(b"\0<\0?") {
        return Ok(Some(UTF_16BE));
    }
    let head = bytes.get(..bytes.len().min(1024)).unwrap_or_default();
    let Some(rest) = head.strip_prefix(b"<?xml") else { return Ok(None) };
    let Some(end) = rest.windows(2).position(|pair| pair == b"?>") else { return Ok(None) };
    let Ok(declaration) = std::str::from_utf8(rest.get(..end).unwrap_or_default()) else { return Ok(None) };
    let Some((_, value)) = declaration.split_once("encoding") else { return Ok(None) };
    let Some(value) = value.trim_start().strip_prefix('=') else { return Ok(None) };
    let value = value.trim_start();
    let Some(quote) = value.chars().next().filter(|c| matches!(c, '"' | '\'')) else { return Ok(None) };
    match value.get(1..).and_then(|rest| rest.split(quote).next()) {
        Some(label) => by_label(label).map(Some),
        None => Ok(None),
    }
}

/// Writes text in an encoding. Nothing is replaced: a character that the encoding lacks is an error.
///
/// # Errors
/// The first character that cannot be written, by its code point, and its place.
pub fn encode(text: String, encoding: Option<&'static Encoding>) -> Result<Vec<u8>, FormatError> {
    let Some(encoding) = encoding.filter(|encoding| *encoding != UTF_8) else { return Ok(text.into_bytes()) };
    let mut encoder = encoding.new_encoder();
    let mut out = Vec::with_capacity(text.len() + 8);
    let mut read = 0;
    loop {
        let rest = text.get(read..).unwrap_or_default();
        out.reserve(rest.len() + 16);
        let (result, taken) = encoder.encode_from_utf8_to_vec_without_replacement(rest, &mut out, true);
        read += taken;
        match result {
            encoding_rs::EncoderResult::InputEmpty => return Ok(out),
            encoding_rs::EncoderResult::OutputFull => {}
            encoding_rs::EncoderResult::Unmappable(c) => {
                return Err(FormatError::at(
                    Code::CannotWrite,
                    format!("the character U+{:04X} does not exist in {}", c as u32, encoding.name()),
                    text.as_bytes(),
                    read.saturating_sub(c.len_utf8()),
                ));
            }
        }
    }
}
