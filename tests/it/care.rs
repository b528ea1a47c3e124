//! Children's returns: every row of SSDA903's tables and every child of the CIN census becomes an event, and a return that is
//! built from the events is found clean by validators that nobody here wrote, its rows counted.

use crate::{
    judges::judges,
    support::{Folder, root},
};
use packhorse::{
    config::Project,
    event::Event,
    format::{
        Format, Layout, Limits, parse_json,
        records::{RecordLimits, Records},
    },
    mapping::{Context, Mapping},
    tree::Tree,
};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    io::Cursor,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The tables by the names of our files, with the names that the validator has for them.
const TABLES: [(&str, &str); 12] = [
    ("header", "Header"),
    ("episodes", "Episodes"),
    ("uasc", "UASC"),
    ("reviews", "Reviews"),
    ("oc2", "OC2"),
    ("oc3", "OC3"),
    ("ad1", "AD1"),
    ("placed-adoption", "PlacedAdoption"),
    ("previous-permanence", "PrevPerm"),
    ("missing", "Missing"),
    ("social-worker", "SWEpisodes"),
    ("dolo", "DoLo"),
];

fn project() -> Project {
    Project::load(&root().join("packhorse.toml"))
}

/// The documents of a file's records.
fn documents(layout: &Arc<Layout>, file: &[u8]) -> Vec<Tree> {
    let limits = RecordLimits::default();
    let mut records = Records::new(layout.format(), Some(layout.clone()), Cursor::new(file), limits).unwrap();
    let mut documents = Vec::new();
    while let Some(piece) = records.next().unwrap() {
        assert_eq!(piece.wrong, None, "line {}", piece.line);
        let document = records.frame().wrap(&piece.bytes);
        documents.push(layout.format().read(&document, None, Some(layout), &Limits::default()).unwrap());
    }
    records.finish().unwrap();
    documents
}

fn event_of(mapping: &Mapping, document: &Tree) -> Event {
    let (settings, values) = (BTreeMap::new(), BTreeMap::new());
    let cause = parse_json(r#"{"change": "created"}"#, &Limits::default()).unwrap();
    let now = "2026-04-20T05:00:00Z".parse().unwrap();
    let context = Context { settings: &settings, values: &values, cause: Some(&cause), now, trace: None };
    let new = mapping.to_event(document, context).unwrap();
    assert_eq!(new.drift, Vec::<String>::new());
    Event {
        id: "1".to_owned(),
        source: "urn:packhorse:test".to_owned(),
        event_type: mapping.schema.event_type.clone(),
        subject: new.subject,
        data: new.data,
        ..Event::default()
    }
}

fn record_of(mapping: &Mapping, layout: &Layout, event: &Event) -> Vec<u8> {
    let (settings, values) = (BTreeMap::new(), BTreeMap::new());
    let now = "2026-04-20T05:00:00Z".parse().unwrap();
    let context = Context { settings: &settings, values: &values, cause: None, now, trace: None };
    layout.write_record("", &mapping.to_document(event, context).unwrap()).unwrap()
}

/// There and back: the events of a file, and the records of a file made of them.
fn through(mapping: &str, layout: &str, file: &Path) -> (Vec<Event>, Vec<Vec<u8>>) {
    let project = project();
    let (mapping, layout) = (&project.mappings[mapping], &project.layouts[layout]);
    let events: Vec<Event> = documents(layout, &std::fs::read(file).unwrap())
        .iter()
        .map(|document| event_of(mapping, document))
        .collect();
    let records = events.iter().map(|event| record_of(mapping, layout, event)).collect();
    (events, records)
}

fn given(path: &str) -> PathBuf {
    root().join("tests/judges").join(path)
}

/// What a judge of care returns says, and its exit status.
fn judged(folder: &Path, script: &str, arguments: &[&str]) -> (i32, Value) {
    let output = std::process::Command::new(folder.join("care/bin/python"))
        .arg(given(script))
        .args(arguments)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let verdict = serde_json::from_str(&said)
        .unwrap_or_else(|error| panic!("{error}: {said}{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().unwrap(), verdict)
}

#[test]
fn every_row_of_a_return_becomes_an_event_and_the_events_the_same_rows_again() {
    let project = project();
    for (table, _) in TABLES {
        let file = given(&format!("ssda903/2026/{table}.csv"));
        let name = format!("ssda903-{table}");
        let (events, records) = through(&format!("ssda903/{table}"), &name, &file);
        let mut again = project.layouts[&name].write_head();
        records.iter().for_each(|record| again.extend(record));
        let text = std::fs::read_to_string(&file).unwrap();
        assert_eq!(String::from_utf8(again).unwrap().replace("\r\n", "\n"), text, "{table}");
        assert_eq!(events.len(), text.lines().count() - 1, "{table}");
        for (event, row) in events.iter().zip(text.lines().skip(1)) {
            assert_eq!(event.subject.as_deref(), row.split(',').next(), "{table}: the subject is the child");
        }
    }
}

#[test]
fn a_return_built_from_events_is_clean_to_the_validator_and_no_table_is_missing() {
    let Some(judges) = judges("csc-validator-be-903") else { return };
    let project = project();
    let folder = Folder::new();
    let mut counted = BTreeMap::new();
    for (table, name) in TABLES {
        let layout = format!("ssda903-{table}");
        let file = given(&format!("ssda903/2026/{table}.csv"));
        let (events, records) = through(&format!("ssda903/{table}"), &layout, &file);
        let mut written = project.layouts[&layout].write_head();
        records.iter().for_each(|record| written.extend(record));
        std::fs::write(folder.0.join(format!("{table}.csv")), written).unwrap();
        counted.insert(name.to_owned(), events.len());
    }
    let path = folder.0.to_str().unwrap();
    let (status, verdict) = judged(&judges, "ssda903.py", &["2026", "E08000025", path]);
    assert_eq!(verdict["issues"], serde_json::json!([]));
    assert_eq!(status, 0, "{verdict}");
    let rows: BTreeMap<String, usize> = serde_json::from_value(verdict["tables"].clone()).unwrap();
    assert_eq!(rows, counted, "an empty return is clean as well");
    assert!(verdict["ran"].as_u64().unwrap() >= 270, "rules that ran: {}", verdict["ran"]);

    // The same judge does find what is wrong: an episode that begins a day after the one before ended.
    let episodes = folder.0.join("episodes.csv");
    let text = std::fs::read_to_string(&episodes).unwrap();
    std::fs::write(&episodes, text.replace("CH000417,03/10/2025,P", "CH000417,04/10/2025,P")).unwrap();
    let (status, verdict) = judged(&judges, "ssda903.py", &["2026", "E08000025", path]);
    assert_eq!(status, 1, "{verdict}");
}

#[test]
fn the_xml_form_of_a_child_is_clean_to_the_validator_as_its_tables_are() {
    let Some(judges) = judges("csc-validator-be-903") else { return };
    let (events, records) = through("ssda903/child", "ssda903-child", &given("ssda903/2026-xml/return.xml"));
    assert_eq!(events.len(), 2);
    let folder = Folder::new();
    let mut written = b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<EXPSSDA903>\n".to_vec();
    records.iter().for_each(|record| written.extend(record));
    written.extend(b"</EXPSSDA903>\n");
    std::fs::write(folder.0.join("return.xml"), written).unwrap();
    let path = folder.0.to_str().unwrap();
    let (status, verdict) = judged(&judges, "ssda903.py", &["2026", "E08000025", path]);
    assert_eq!(verdict["issues"], serde_json::json!([]));
    assert_eq!(status, 0, "{verdict}");
    for (table, rows) in
        [("Header", 2), ("Episodes", 3), ("Reviews", 6), ("PrevPerm", 2), ("UASC", 1), ("Missing", 1)]
    {
        assert_eq!(verdict["tables"][table], rows, "{table}");
    }
}

#[test]
fn a_census_built_from_events_is_clean_to_the_validator_and_in_the_order_of_the_schema() {
    let Some(judges) = judges("csc-validator-be-cin") else { return };
    let file = given("cin/2026/return.xml");
    let (events, records) = through("cin-census/child", "cin-census", &file);
    let text = std::fs::read_to_string(&file).unwrap();
    let (before, _) = text.split_once("<Child>").unwrap();
    let mut written = before.to_owned();
    records.iter().for_each(|record| written.push_str(std::str::from_utf8(record).unwrap()));
    written.push_str("</Children></Message>\n");
    let folder = Folder::new();
    let path = folder.0.join("return.xml");
    std::fs::write(&path, &written).unwrap();
    let schema = given("cin-census-2026.xsd");
    let arguments = ["2026", path.to_str().unwrap(), schema.to_str().unwrap()];
    let (status, verdict) = judged(&judges, "cin.py", &arguments);
    assert_eq!(verdict["schema"], serde_json::json!([]));
    assert_eq!(verdict["issues"], serde_json::json!([]));
    assert_eq!(status, 0, "{verdict}");
    let count = |list: &dyn Fn(&Tree) -> usize| events.iter().map(|event| list(&event.data)).sum::<usize>();
    let of = |tree: &Tree, name: &str| match tree.at(&[name]) {
        Some(Tree::List(items)) => items.clone(),
        _ => Vec::new(),
    };
    let within = |data: &Tree, name: &str| of(data, "referrals").iter().map(|r| of(r, name).len()).sum();
    let tables = &verdict["tables"];
    assert_eq!(tables["ChildIdentifiers"], events.len());
    assert_eq!(tables["CINdetails"], count(&|data| of(data, "referrals").len()));
    assert_eq!(tables["Disabilities"], count(&|data| of(data, "disabilities").len()));
    for (table, name) in [
        ("Assessments", "assessments"),
        ("CINplanDates", "plans"),
        ("Section47", "section47"),
        ("ChildProtectionPlans", "protection_plans"),
    ] {
        assert_eq!(tables[table], count(&|data| within(data, name)), "{table}");
        assert_ne!(tables[table], 0, "{table}");
    }

    // Both judges find what is wrong, each its own.
    let wrong = written.replace("<ReferralNFA>0", "<ReferralNFA>false").replace("<Sex>F", "<Sex>X");
    std::fs::write(&path, wrong).unwrap();
    let (status, verdict) = judged(&judges, "cin.py", &arguments);
    assert_eq!(status, 1);
    assert!(!verdict["schema"].as_array().unwrap().is_empty());
    assert!(verdict["issues"].as_array().unwrap().iter().any(|issue| issue["rule_code"] == "4180"));
}

#[test]
fn a_child_that_is_gone_is_told_by_its_number_in_xml_as_well() {
    let project = project();
    let layout = &project.layouts["cin-census"];
    let file = std::fs::read(given("cin/2026/return.xml")).unwrap();
    let mut records =
        Records::new(Format::Xml, Some(layout.clone()), Cursor::new(&file[..]), RecordLimits::default())
            .unwrap();
    records.next().unwrap();
    let key = "Message/Children/Child/ChildIdentifiers/LAchildID".to_owned();
    let gone = packhorse::format::records::only(
        Format::Xml,
        Some(layout),
        records.frame(),
        &[(key, "CN0004417".to_owned())],
    )
    .unwrap();
    let tree = Format::Xml.read(&gone, None, Some(layout), &Limits::default()).unwrap();
    let event = event_of(&project.mappings["cin-census/child"], &tree);
    assert_eq!(event.subject.as_deref(), Some("CN0004417"));
    assert_eq!(event.data.as_record().unwrap().entries().len(), 2, "the child's number and the change");
}
