//! What `check` says of statements, without a database.

use super::{CHANGES, FILES, HEAD, READ};
use crate::support::Folder;
use packhorse::config::Project;

/// The codes and sentences about an adapter with these statements, warnings included.
fn told(adapter: &str, statements: &[(&str, &str)]) -> Vec<String> {
    let folder = Folder::new();
    for (name, text) in FILES {
        folder.write(&format!("mappings/{name}"), text);
    }
    folder.write("adapters/records.toml", adapter);
    for (name, text) in statements {
        folder.write(&format!("adapters/records/{name}"), text);
    }
    let project = Project::load(&folder.0.join("packhorse.toml"));
    let told =
        project.diagnostics.iter().map(|found| format!("{} {}", found.problem.code, found.problem.what));
    // Not what these tests are about: mappings without cases, and the one that this adapter does not use.
    told.filter(|text| !text.starts_with("PH0311") && !text.starts_with("PH0115 no adapter")).collect()
}

fn reading(query: &str) -> Vec<String> {
    told(&format!("{HEAD}{READ}"), &[("changes.sql", query)])
}

const WRITE: &str = "[deliver.write]\nabout = \"Writes.\"\nevent = \"record.wanted.v1\"\nmapping = \"records/row\"\nmakes = \"record\"\nrepeat = \"key\"\nstatement = { file = \"write.sql\" }\n";

#[test]
fn an_adapter_that_is_right_is_told_nothing() {
    assert_eq!(reading(CHANGES), Vec::<String>::new());
}

#[test]
fn a_parameter_that_nothing_gives_and_a_value_that_nothing_takes_are_named() {
    let found =
        reading("SELECT id, changed FROM record WHERE changed >= :cursor AND kind = :kind ORDER BY changed");
    assert!(found.len() == 1 && found[0].contains("PH0231") && found[0].contains(":kind"), "{found:?}");
    let adapter = format!("{HEAD}{}", READ.replace("every =", "parameters = { kind = \"x\" }\nevery ="));
    let found = told(&adapter, &[("changes.sql", CHANGES)]);
    assert!(found.len() == 1 && found[0].contains("PH0232") && found[0].contains(":kind"), "{found:?}");
    let adapter = format!("{HEAD}write = true\n{WRITE}");
    let found = told(&adapter, &[("write.sql", "INSERT INTO record VALUES (:id, :nam, :amount)")]);
    assert!(found.iter().any(|text| text.contains("PH0231") && text.contains(":nam")), "{found:?}");
    assert!(found.iter().any(|text| text.contains("PH0232") && text.contains("`name`")), "{found:?}");
}

#[test]
fn a_file_that_is_empty_or_holds_two_statements_or_is_not_there_is_told() {
    assert!(reading("-- later\n")[0].contains("PH0230 there is no statement"));
    assert!(reading(&format!("{CHANGES} DELETE FROM record"))[0].contains("PH0230 more than one statement"));
    let found = told(&format!("{HEAD}{READ}"), &[("change.sql", CHANGES)]);
    assert!(found[0].contains("PH0106") && found[0].contains("changes.sql"), "{found:?}");
    let found = told(&format!("{HEAD}{READ}"), &[("changes.sql", CHANGES), ("old.sql", CHANGES)]);
    assert!(found.len() == 1 && found[0].contains("PH0115 no route"), "{found:?}");
}

#[test]
fn a_cursor_that_could_pass_rows_over_is_told() {
    let found = reading("SELECT id, changed FROM record WHERE changed >= :cursor");
    assert!(found.len() == 1 && found[0].contains("PH0234"), "{found:?}");
    let found = reading("SELECT id, changed FROM record ORDER BY changed");
    assert!(found.len() == 1 && found[0].contains("PH0232") && found[0].contains("no effect"), "{found:?}");
    let adapter = format!("{HEAD}{}", READ.replace("format =", "key = \"{{ document.id }}\"\nformat ="));
    let found = told(&adapter, &[("changes.sql", CHANGES)]);
    assert!(
        found.len() == 1 && found[0].contains("PH0234") && found[0].contains("changes again"),
        "{found:?}"
    );
}

#[test]
fn an_adapter_reads_only_unless_it_says_that_it_writes() {
    let insert = [("write.sql", "INSERT INTO record VALUES (:id, :name, :amount)")];
    let found = told(&format!("{HEAD}{WRITE}"), &insert);
    assert!(found.len() == 1 && found[0].contains("PH0233"), "{found:?}");
    assert_eq!(told(&format!("{HEAD}write = true\n{WRITE}"), &insert), Vec::<String>::new());
    let found = reading("DELETE FROM record WHERE changed >= :cursor RETURNING id, changed -- ORDER BY\n");
    assert!(found.iter().any(|text| text.contains("PH0233")), "{found:?}");
}
