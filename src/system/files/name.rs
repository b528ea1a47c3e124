//! Names of files and folders of a system: which are used, and how the others are shown. Pure.

use crate::{code::Code, verdict::Failure};

/// The longest name, in bytes: with `.` before and `.part` behind it is still one that file systems take.
const LONGEST: usize = 255 - 6;

/// Whether this is used as the name of a file: one part of a path and nothing else, without characters that would let it
/// pass for another, or break a line of a list.
pub fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= LONGEST && name != "." && name != ".." && name.chars().all(is_fine)
}

fn is_fine(c: char) -> bool {
    // A backslash parts folders on some servers; the replacement character stands for bytes that are no text, so the name
    // would mean another file; line and paragraph separators and marks of writing direction make a list say what is not.
    !c.is_control()
        && !matches!(
            c,
            '/' | '\\'
                | '\u{fffd}'
                | '\u{2028}'
                | '\u{2029}'
                | '\u{200e}'
                | '\u{200f}'
                | '\u{202a}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}'
                | '\u{feff}'
        )
}

/// A name as people may see it: in quotation marks, everything doubtful escaped, cut to a length.
pub fn shown(name: &str) -> String {
    let mut text = String::from("\"");
    for c in name.chars().take(60) {
        match is_fine(c) || c == '/' {
            true => text.push(c),
            false => text.extend(c.escape_default()),
        }
    }
    text.push_str(if name.chars().nth(60).is_some() { "...\"" } else { "\"" });
    text
}

/// A file's name, or why it is none.
///
/// # Errors
/// It is not used.
pub fn file(name: &str) -> Result<(), Failure> {
    match is_name(name) {
        true => Ok(()),
        false => Err(bad(name, "a file")),
    }
}

/// A folder below the system's own, without empty parts; empty for the system's own.
///
/// # Errors
/// It leads out of the system's own, or has parts that are no names.
pub fn folder(folder: &str) -> Result<String, Failure> {
    let mut parts = Vec::new();
    for part in folder.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if !is_name(part) {
            return Err(bad(folder, "a folder"));
        }
        parts.push(part);
    }
    if folder.starts_with('/') {
        return Err(bad(folder, "a folder below the system's own"));
    }
    Ok(parts.join("/"))
}

fn bad(name: &str, of: &str) -> Failure {
    let what = format!("{} is not used as the name of {of}", shown(name));
    Failure::refused(Code::BadFileName, "", what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_part_of_a_path_and_nothing_else() {
        for good in ["ssda903.csv", ".hidden", "a b (2).xml", "Müller.txt", "..a", "a..", "-rf", "a'b\"c"] {
            assert!(is_name(good), "{good}");
        }
        let long = "x".repeat(250);
        let bad = [
            "",
            ".",
            "..",
            "a/b",
            "/a",
            "../a",
            "a\\b",
            "a\nb",
            "a\r",
            "a\0b",
            "\u{1b}[31m",
            "a\u{85}",
            "a\u{2028}b",
            "a\u{202e}txt.exe",
            "a\u{fffd}",
            &long,
        ];
        for bad in bad {
            assert!(!is_name(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_folder_never_leads_out_of_the_systems_own() {
        for (written, meant) in [("", ""), ("out", "out"), ("out/", "out"), ("./out//today", "out/today")] {
            assert_eq!(folder(written).unwrap(), meant);
        }
        for bad in ["..", "out/..", "out/../../etc", "/etc", "a\nb", "a\\..\\b"] {
            assert_eq!(folder(bad).unwrap_err().code, Code::BadFileName, "{bad:?}");
        }
    }

    #[test]
    fn what_is_shown_of_a_name_is_one_line_of_plain_text() {
        assert_eq!(shown("a\nb\u{202e}c"), "\"a\\nb\\u{202e}c\"");
        assert_eq!(shown("../x"), "\"../x\"");
        assert!(shown(&"y".repeat(400)).len() < 80);
    }
}
