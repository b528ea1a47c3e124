//! Files in UTF-16, as SQL Server and Windows tools export them. Records are split by bytes, which takes an encoding in
//! which a line end is one byte: such a file is made UTF-8 first, as a whole and in constant memory.

use super::{FormatError, Layout, charset};
use crate::code::Code;
use encoding_rs::{DecoderResult, Encoding, UTF_8, UTF_16BE, UTF_16LE};
use std::io::{self, Read, Write};

/// How many bytes are read at a time; an XML declaration stands within the first.
const CHUNK: usize = 1 << 16;

/// Why a file cannot be made UTF-8.
#[derive(Debug)]
pub enum NotNarrowed {
    /// What it is read from failed.
    Read(io::Error),
    /// What it is written to failed.
    Write(io::Error),
    /// It is not in its encoding.
    Format(FormatError),
}

/// Whether a file must be made UTF-8 before it is split, and from what: its byte-order mark says so, or its layout, or
/// the first letters of an XML declaration. `head` is its beginning, some hundred bytes of it.
///
/// # Errors
/// A byte-order mark that contradicts the layout.
pub fn of_file(head: &[u8], layout: Option<&Layout>) -> Result<Option<&'static Encoding>, FormatError> {
    let said = layout.and_then(|layout| layout.wide);
    let marked = Encoding::for_bom(head).map(|(encoding, _)| encoding);
    let contradicts = |mark: &'static Encoding, says: &'static Encoding| {
        let what =
            format!("the file begins with the mark of {}, and its layout says {}", mark.name(), says.name());
        Err(FormatError::nowhere(Code::WrongEncoding, what))
    };
    let utf_16 = |encoding: &'static Encoding| encoding == UTF_16LE || encoding == UTF_16BE;
    match (marked, said, layout.map_or(UTF_8, |layout| layout.encoding)) {
        (Some(mark), Some(said), _) if mark != said && !(utf_16(mark) && utf_16(said)) => {
            contradicts(mark, said)
        }
        (Some(mark), None, says) if mark != UTF_8 && says != UTF_8 => contradicts(mark, says),
        (Some(mark), _, _) => Ok(Some(mark).filter(|mark| *mark != UTF_8)),
        (None, Some(said), _) => Ok(Some(said)),
        (None, None, _) if head.starts_with(b"<\0?\0") || head.starts_with(b"\0<\0?") => {
            charset::xml_declaration(head)
        }
        (None, None, _) => Ok(None),
    }
}

/// Writes a file anew in UTF-8, without its byte-order mark. An XML declaration says so afterwards.
///
/// # Errors
/// Half a character, half a pair of surrogates; a failure to read or write.
pub fn narrow(
    mut from: impl Read,
    mut to: impl Write,
    encoding: &'static Encoding,
) -> Result<(), NotNarrowed> {
    let mut decoder = encoding.new_decoder_with_bom_removal();
    let (mut bytes, mut text) = (vec![0; CHUNK], vec![0; CHUNK * 3]);
    let (mut before, mut first) = (0_u64, true);
    loop {
        let length = fill(&mut from, &mut bytes).map_err(NotNarrowed::Read)?;
        let last = length < bytes.len();
        let mut taken = 0;
        loop {
            let rest = bytes.get(taken..length).unwrap_or_default();
            let (result, read, written) = decoder.decode_to_utf8_without_replacement(rest, &mut text, last);
            taken += read;
            let written = text.get(..written).unwrap_or_default();
            match std::mem::take(&mut first) {
                true => to.write_all(&declared_as_utf_8(written)),
                false => to.write_all(written),
            }
            .map_err(NotNarrowed::Write)?;
            match result {
                DecoderResult::InputEmpty => break,
                DecoderResult::OutputFull => {}
                DecoderResult::Malformed(..) => {
                    let what = format!(
                        "the file is not {} throughout: what stands before byte {} is no character",
                        encoding.name(),
                        before + taken as u64 + 1
                    );
                    return Err(NotNarrowed::Format(FormatError::nowhere(Code::WrongEncoding, what)));
                }
            }
        }
        before += length as u64;
        if last {
            return to.flush().map_err(NotNarrowed::Write);
        }
    }
}

/// Reads until the buffer is full or nothing comes any more.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match from.read(rest) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// The beginning of a document, whose XML declaration, if it has one, names no encoding but UTF-8.
fn declared_as_utf_8(text: &[u8]) -> Vec<u8> {
    let end = text.windows(2).position(|pair| pair == b"?>").filter(|_| text.starts_with(b"<?xml"));
    let Some((declaration, rest)) = end.and_then(|end| text.split_at_checked(end)) else {
        return text.to_vec();
    };
    let text = String::from_utf8_lossy(declaration);
    let replaced = text.split_once("encoding").and_then(|(before, value)| {
        let quote = value.chars().find(|c| matches!(c, '"' | '\''))?;
        let after = value.splitn(3, quote).nth(2)?;
        Some(format!("{before}encoding={quote}UTF-8{quote}{after}"))
    });
    [replaced.as_deref().unwrap_or(&text).as_bytes(), rest].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wide(text: &str, of: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(of).collect()
    }

    fn narrowed(bytes: &[u8], encoding: &'static Encoding) -> Result<String, String> {
        let mut out = Vec::new();
        match narrow(bytes, &mut out, encoding) {
            Ok(()) => Ok(String::from_utf8(out).unwrap()),
            Err(NotNarrowed::Format(error)) => Err(error.what),
            Err(NotNarrowed::Read(error) | NotNarrowed::Write(error)) => panic!("{error}"),
        }
    }

    #[test]
    fn a_file_in_utf_16_is_the_same_text_in_utf_8_across_the_borders_of_chunks() {
        // Pairs of surrogates stand across every border, by the odd letter at the beginning.
        let text = format!("x{}", "é𐐷\r\n".repeat(CHUNK / 3));
        for (encoding, of) in
            [(UTF_16LE, u16::to_le_bytes as fn(u16) -> [u8; 2]), (UTF_16BE, u16::to_be_bytes)]
        {
            assert_eq!(narrowed(&wide(&text, of), encoding).unwrap(), text);
            assert_eq!(narrowed(&wide(&format!("\u{feff}{text}"), of), encoding).unwrap(), text);
        }
        assert_eq!(narrowed(b"", UTF_16LE).unwrap(), "");
    }

    #[test]
    fn half_a_character_is_refused_with_its_place() {
        let mut cut = wide("abc", u16::to_le_bytes);
        cut.pop();
        assert!(narrowed(&cut, UTF_16LE).unwrap_err().contains("before byte 6"));
        let lone = [wide("ab", u16::to_le_bytes), vec![0x37, 0xd8], wide("c", u16::to_le_bytes)].concat();
        assert!(narrowed(&lone, UTF_16LE).unwrap_err().contains("no character"));
    }

    #[test]
    fn an_xml_declaration_says_utf_8_afterwards() {
        for (before, after) in [
            ("<?xml version='1.0' encoding='UTF-16'?><a/>", "<?xml version='1.0' encoding='UTF-8'?><a/>"),
            (
                "<?xml version=\"1.0\" encoding = \"utf-16\" standalone=\"yes\"?><a/>",
                "<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"yes\"?><a/>",
            ),
            ("<?xml version='1.0'?><a encoding='x'/>", "<?xml version='1.0'?><a encoding='x'/>"),
            ("<a encoding='UTF-16'/>", "<a encoding='UTF-16'/>"),
        ] {
            assert_eq!(narrowed(&wide(before, u16::to_le_bytes), UTF_16LE).unwrap(), after);
        }
    }
}
