//! The walls of the house: the import table in ARCHITECTURE.md, and rules that no compiler knows.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push((path.clone(), std::fs::read_to_string(&path).unwrap()));
        }
    }
    found.sort();
    found
}

/// The source without its unit tests and comments: rules are about what ships.
fn shipped(text: &str) -> String {
    let text = text.split("#[cfg(test)]").next().unwrap_or_default();
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The module of a file: the first part of its path below `src`.
fn module(path: &Path) -> String {
    let relative = path.strip_prefix(root().join("src")).unwrap();
    let first = relative.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

/// Names that follow `start` at its top level: `crate::a::b`, `use crate::{a::b, c}`.
fn first_names(text: &str, start: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices(start) {
        let rest = &text[at + start.len()..];
        let name = |text: &str| {
            text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>()
        };
        let Some(group) = rest.strip_prefix('{') else {
            found.insert(name(rest));
            continue;
        };
        let (mut depth, mut item) = (0, String::new());
        for c in group.chars() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    found.insert(name(&std::mem::take(&mut item)));
                    continue;
                }
                _ => {}
            }
            item.push(c);
        }
        found.insert(name(&item));
    }
    found.remove("");
    found
}

struct Row {
    ours: BTreeSet<String>,
    world: BTreeSet<String>,
    pure: bool,
}

fn table() -> BTreeMap<String, Row> {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let (_, table) = text.split_once("| module | what it is |").expect("the import table");
    let words = |cell: &str| cell.split_whitespace().map(str::to_owned).collect();
    let mut rows = BTreeMap::new();
    for line in table.lines().skip(2).take_while(|line| line.starts_with('|')) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let row = Row { ours: words(cells[2]), world: words(cells[3]), pure: cells[1].contains("(pure)") };
        rows.insert(cells[0].to_owned(), row);
    }
    rows
}

#[test]
fn modules_use_only_what_the_import_table_allows() {
    let (table, mut wrong) = (table(), Vec::new());
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let (_, dependencies) = manifest.split_once("[dependencies]").unwrap();
    let crates: BTreeSet<String> = dependencies
        .lines()
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split_once('=').map(|(name, _)| name.trim().replace('-', "_")))
        .filter(|name| !name.is_empty() && !name.starts_with('#'))
        .collect();
    for (path, text) in sources(&root().join("src")) {
        let (module, text) = (module(&path), shipped(&text));
        if matches!(module.as_str(), "main" | "lib") {
            continue;
        }
        let Some(row) = table.get(&module) else {
            wrong.push(format!("`{module}` is not in the import table"));
            continue;
        };
        for used in first_names(&text, "crate::").difference(&row.ours).filter(|used| **used != module) {
            if table.contains_key(used) {
                wrong.push(format!("{}: `{module}` may not use `{used}`", path.display()));
            }
        }
        for name in &crates {
            let used = text.contains(&format!("{name}::")) && {
                let start = |before: char| {
                    !(before.is_alphanumeric() || before == '_' || before == ':' || before == '.')
                };
                text.match_indices(&format!("{name}::"))
                    .any(|(at, _)| text[..at].chars().next_back().is_none_or(start))
            };
            // Everybody may name errors and trace; nobody else's library is anybody's.
            if used
                && !row.world.contains(name)
                && !matches!(
                    name.as_str(),
                    "tracing"
                        | "thiserror"
                        | "serde_json"
                        | "jiff"
                        | "schemars"
                        | "serde"
                        | "base64"
                        | "ring"
                        | "bytes"
                        | "rust_decimal"
                        | "encoding_rs"
                )
            {
                wrong.push(format!("{}: `{module}` may not use the library `{name}`", path.display()));
            }
        }
        let clocks = [
            "Timestamp::now(",
            "SystemTime::now(",
            "Instant::now(",
            "std::fs::",
            "std::env::",
            "tokio::",
            "std::net::",
        ];
        for clock in clocks.iter().filter(|clock| row.pure && text.contains(**clock)) {
            wrong.push(format!("{}: `{module}` is pure and uses `{clock}`", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_table_has_no_row_for_what_is_not_there_and_the_two_ways_never_meet() {
    let modules: BTreeSet<String> =
        sources(&root().join("src")).iter().map(|(path, _)| module(path)).collect();
    for (name, row) in table() {
        assert!(modules.contains(&name), "the import table has a row for `{name}`, which is not there");
        assert!(!(name == "deliver" && row.ours.contains("collect")), "deliver must not use collect");
        assert!(!(name == "collect" && row.ours.contains("deliver")), "collect must not use deliver");
    }
}

#[test]
fn every_file_says_first_what_it_is_for_and_few_are_long() {
    let mut wrong = Vec::new();
    let mut sizes = Vec::new();
    for folder in ["src", "tests", "benches"] {
        for (path, text) in sources(&root().join(folder)) {
            if !text.starts_with("//!") {
                wrong.push(format!("{} does not begin with `//!`", path.display()));
            }
            let lines = text.lines().count();
            if lines > 800 {
                wrong.push(format!("{} has {lines} lines", path.display()));
            }
            if folder == "src" {
                sizes.push(lines);
            }
        }
    }
    sizes.sort_unstable();
    assert!(sizes[sizes.len() / 2] <= 300, "the median file of src has {} lines", sizes[sizes.len() / 2]);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_source_names_no_vendor_and_no_council() {
    // Vendors of the adapters in the tree, and councils that the domain's sources speak of.
    let names = [
        "govuk",
        "gov.uk pay",
        "capita",
        "pay360",
        "scp",
        "localgovims",
        "civica",
        "allpay",
        "academy",
        "mosaic",
        "liquidlogic",
        "barnsley",
        "bromley",
        "brent",
        "hackney",
        "stockport",
        "sheffield",
        "birmingham",
        "conwy",
        "dundee",
        "west sussex",
    ];
    let mut wrong = Vec::new();
    for (path, text) in sources(&root().join("src")) {
        // What is told to people in documentation may name an example; what is done may not depend on one.
        let code = shipped(&text).to_lowercase();
        for name in names {
            let found = code.match_indices(name).any(|(at, _)| {
                let before = code[..at].chars().next_back();
                let after = code[at + name.len()..].chars().next();
                !before.is_some_and(char::is_alphanumeric) && !after.is_some_and(char::is_alphanumeric)
            });
            if found {
                wrong.push(format!("{} names `{name}`", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn our_own_enums_are_matched_without_a_default_in_the_ways_of_a_message() {
    // What an attempt means, and what the journal says, must make the compiler list every place when one is added.
    let mut wrong = Vec::new();
    for file in ["src/verdict.rs", "src/deliver.rs", "src/store/journal.rs"] {
        let text = shipped(&std::fs::read_to_string(root().join(file)).unwrap());
        for subject in [
            "match verdict",
            "match state",
            "match place",
            "match record",
            "match failure.class",
            "match end",
        ] {
            for (at, _) in text.match_indices(subject) {
                let body: String = text[at..]
                    .lines()
                    .skip(1)
                    .take_while(|line| !line.starts_with("        }") || line.trim() != "}")
                    .collect();
                if body.contains(" _ =>") {
                    wrong.push(format!("{file}: `{subject}` has a default arm"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
