//! What is written about Packhorse is true: the generated reference is fresh, every code has its page, every event schema
//! its example, and the commands in the README exist.

use clap::CommandFactory as _;
use packhorse::{
    cli::{Cli, docs},
    code::Code,
    config::Project,
};
use std::{collections::BTreeSet, path::PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_generated_reference_is_fresh() {
    let stale: Vec<String> = docs::reference()
        .into_iter()
        .filter(|(name, text)| {
            std::fs::read_to_string(root().join("docs").join(name)).ok().as_deref() != Some(text)
        })
        .map(|(name, _)| name)
        .collect();
    assert!(stale.is_empty(), "stale: {stale:?}; renew with `cargo run -- docs --write docs`");
}

#[test]
fn the_catalogue_is_fresh() {
    let project = Project::load(&root().join("packhorse.toml"));
    let written = std::fs::read_to_string(root().join("docs/catalogue.md")).unwrap_or_default();
    assert!(
        written == packhorse::catalogue::markdown(&project),
        "stale: docs/catalogue.md; renew with `cargo run -- catalogue > docs/catalogue.md`"
    );
}

#[test]
fn every_code_has_a_page_with_a_remedy_and_every_page_a_code() {
    let pages = std::fs::read_to_string(root().join("docs/reference/codes.md")).unwrap();
    let heads: Vec<&str> = pages.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    let codes: Vec<String> = Code::ALL.iter().map(|code| format!("{code} {}", code.title())).collect();
    assert_eq!(heads, codes.iter().map(String::as_str).collect::<Vec<_>>());
    for code in Code::ALL {
        assert!(code.page().len() > 80, "{code} has no page");
        assert!(!code.remedy().is_empty(), "the page of {code} does not say what to do");
    }
    let distinct: BTreeSet<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    assert_eq!(distinct.len(), Code::ALL.len(), "a code is given twice");
}

#[test]
fn every_code_is_used_somewhere_in_the_source() {
    fn texts(folder: PathBuf) -> String {
        let mut text = String::new();
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            match entry.path() {
                path if path.is_dir() => text.push_str(&texts(path)),
                path if path.ends_with("code.rs") => {}
                path => text.push_str(&std::fs::read_to_string(path).unwrap_or_default()),
            }
        }
        text
    }
    let source = texts(root().join("src"));
    let unused: Vec<String> = Code::ALL
        .iter()
        .filter(|code| !source.contains(&format!("Code::{code:?}")))
        .map(|code| format!("{code} {code:?}"))
        .collect();
    assert!(unused.is_empty(), "codes that nothing raises: {unused:?}");
}

#[test]
fn the_adapters_and_mappings_of_the_tree_are_without_a_problem() {
    let project = Project::load(&root().join("packhorse.toml"));
    let problems: Vec<String> = project
        .diagnostics
        .iter()
        .map(|d| {
            format!("{}:{}:{}: {} {}", d.path.display(), d.line, d.column, d.problem.code, d.problem.what)
        })
        .collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(project.config.is_some());
}

/// The text of every file below a folder.
fn texts(folder: PathBuf) -> String {
    let entries = std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path());
    let text = |path: PathBuf| match path.is_dir() {
        true => texts(path),
        false => std::fs::read_to_string(path).unwrap_or_default(),
    };
    entries.map(text).collect()
}

#[test]
fn every_test_that_the_promises_name_exists() {
    let promises = std::fs::read_to_string(root().join("docs/promises.md")).unwrap();
    let is_name =
        |word: &&str| word.matches('_').count() > 3 && word.chars().all(|c| c == '_' || c.is_alphanumeric());
    let names: BTreeSet<&str> = promises.split('`').skip(1).step_by(2).filter(is_name).collect();
    assert!(names.len() > 15, "{names:?}");
    let tests = texts(root().join("tests/it")) + &texts(root().join("src"));
    let missing: Vec<&&str> = names.iter().filter(|name| !tests.contains(&format!("fn {name}("))).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_command_that_a_document_shows_exists() {
    let command = Cli::command();
    let names: BTreeSet<&str> = command.get_subcommands().map(|inner| inner.get_name()).collect();
    let mut wrong = Vec::new();
    for file in [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "docs/promises.md",
        "docs/reference/codes.md",
        "docs/reference/topology.md",
    ] {
        let text = std::fs::read_to_string(root().join(file)).unwrap();
        for (at, _) in text.match_indices("`packhorse ") {
            let rest = &text[at + "`packhorse ".len()..];
            let word: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '-').collect();
            if !word.is_empty() && !word.starts_with('-') && !names.contains(word.as_str()) {
                wrong.push(format!("{file}: `packhorse {word}`"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
