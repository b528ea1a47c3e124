//! Children's returns: every row of SSDA903's tables and every child of the CIN census becomes an event, and a return that is
//! built from the events is found clean by validators that nobody here wrote, its rows counted.

use crate::{
    judges::judges,
    support::{Folder, Site, root, until},
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

/// A council whose case system writes extracts, and to which returns are written.
struct Council {
    site: Site,
}

impl Council {
    async fn new(adapter: &str, settings: &str) -> Council {
        let settings =
            format!("[adapters.{adapter}]\nsettings = {{ folder = \"$FOLDER/care\"{settings} }}\n");
        let site = Site::new(&settings).await;
        let file = site.folder.0.join(format!("adapters/{adapter}.toml"));
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, text.replace("complete = \"30s\"", "every = \"200ms\", complete = \"100ms\""))
            .unwrap();
        for folder in ["extracts", "returns"] {
            std::fs::create_dir_all(site.folder.0.join("care").join(folder)).unwrap();
        }
        Council { site }
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.site.folder.0.join("care").join(name)
    }

    /// The case system writes an extract; waits until it has come to its end.
    async fn extracts(&self, name: &str, text: &str) {
        let part = self.folder("extracts").join(format!("{name}.tmp"));
        std::fs::write(&part, text).unwrap();
        std::fs::rename(part, self.folder("extracts").join(name)).unwrap();
        until(&format!("{name} is done"), async || {
            let out = self.site.good(&["files", "list", "--json"]).await;
            let mut lines = out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            lines.find(|file| file["name"] == name && file["state"] == "done")
        })
        .await;
    }

    /// The platform says an event.
    async fn says(&self, event: &Event, id: &str) {
        let data = serde_json::from_str(&packhorse::format::write_json(&event.data)).unwrap();
        self.site.vhost.say(&event.event_type, id, &data).await;
    }

    /// A person seals the return when it holds so many; waits until this file of it is there.
    async fn sealed(&self, items: u64, file: &str) -> String {
        let number = until(&format!("{items} events are in the return"), async || {
            let out = self.site.good(&["batches", "list", "--json"]).await;
            let mut lines = out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            let open = lines.find(|batch| batch["stage"] == "open" && batch["items"] == items)?;
            Some(open["number"].to_string())
        })
        .await;
        let acting = ["--by", "Olu", "--reason", "the return is due"];
        self.site.good(&[&["batches", "seal", &number], &acting[..]].concat()).await;
        let path = self.folder("returns").join(file);
        until(&format!("{file} is written"), async || std::fs::read_to_string(&path).ok()).await
    }
}

/// What a nightly extract says of the children: type, child and change.
fn news(seen: &[crate::support::Seen]) -> Vec<(String, String, String)> {
    let mut news: Vec<_> = seen
        .iter()
        .map(|seen| {
            let event = seen.json();
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            assert_eq!(event["subject"], event["data"]["child_id"], "order is kept by child");
            (text(&event["type"]), text(&event["data"]["child_id"]), text(&event["data"]["change"]))
        })
        .collect();
    news.sort();
    news
}

fn told(event_type: &str, child: &str, change: &str) -> (String, String, String) {
    (event_type.to_owned(), child.to_owned(), change.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nightly_extract_with_three_changed_children_arrives_as_three_events() {
    let council = Council::new("ssda903", "").await;
    let bridge = council.site.start().await;
    let header = std::fs::read_to_string(given("ssda903/2026/header.csv")).unwrap();
    let episodes = std::fs::read_to_string(given("ssda903/2026/episodes.csv")).unwrap();
    council.extracts("header_2026-04-20.csv", &header).await;
    council.extracts("episodes_2026-04-20.csv", &episodes).await;
    let tonight = header
        .replace("M,20/01/2009,OOTH,UN3", "M,20/01/2009,OOTH,UN5")
        .replace("CH000417,F,14/09/2011,MWBC", "CH000417,F,14/09/2011,MOTH")
        + "CH000701,M,03/02/2020,WBRI,UN1,,\n";
    council.extracts("header_2026-04-21.csv", &tonight).await;
    let children = "looked-after.child.changed.v1";
    let seen = council.site.vhost.until("platform", 3).await;
    let expected = [
        told(children, "CH000417", "changed"),
        told(children, "CH000552", "changed"),
        told(children, "CH000701", "created"),
    ];
    assert_eq!(news(&seen), expected);
    // An episode ends and the next one begins on the same day; another was entered by mistake and is gone.
    let tonight = episodes
        .replace("CH000552,05/05/2025,S,V2,N8,K2,PR4,,,,,B2 4QA,SC123458", "CH000552,05/05/2025,S,V2,N8,K2,PR4,20/04/2026,X1,CARPL,,B2 4QA,SC123458\nCH000552,20/04/2026,P,V2,N8,K3,PR4,,,,,B3 3HJ,")
        .replace("CH000650,20/01/2025,L,E1,N1,U5,PR4,09/06/2025,X1,CARPL,B1 1BB,B2 4QA,SC123456\n", "");
    council.extracts("episodes_2026-04-21.csv", &tonight).await;
    let episode = "looked-after.episode.changed.v1";
    let seen = council.site.vhost.until("platform", 6).await;
    let expected = [
        told(episode, "CH000552", "changed"),
        told(episode, "CH000552", "created"),
        told(episode, "CH000650", "removed"),
    ];
    assert_eq!(news(&seen)[3..], expected);
    let gone =
        seen.iter().map(|seen| seen.json()).find(|event| event["data"]["change"] == "removed").unwrap();
    let only = serde_json::json!({ "child_id": "CH000650", "change": "removed", "start_date": "2025-01-20" });
    assert_eq!(gone["data"], only, "of what is gone nothing is told but which it was");
    for route in ["header", "episodes"] {
        let line = council.site.account(&format!("ssda903.{route}")).await;
        assert_eq!(line["delivered"], 3, "{line}");
    }
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_with_a_withdrawn_code_is_one_dead_letter_and_the_other_rows_arrive() {
    let council = Council::new("ssda903", "").await;
    let bridge = council.site.start().await;
    let episodes = std::fs::read_to_string(given("ssda903/2026/episodes.csv")).unwrap();
    council.extracts("episodes-1.csv", &episodes).await;
    let tonight = episodes
        + "CH000417,01/05/2026,P,C2,N1,Z1,,,,,B1 1BB,B2 4QA,\nCH000552,01/05/2026,P,V2,N8,Z12,,,,,,B2 4QA,\n";
    council.extracts("episodes-2.csv", &tonight).await;
    let letters = council.site.dead(1).await;
    assert_eq!(letters[0].header("packhorse_code"), "PH1211");
    let seen = council.site.vhost.until("platform", 1).await;
    assert_eq!(news(&seen), [told("looked-after.episode.changed.v1", "CH000552", "created")]);
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_census_extract_tells_a_changed_and_a_removed_child() {
    let council = Council::new("cin-census", ", council = \"330\", year = \"2026\"").await;
    council.site.edit(
        "adapters/cin-census.toml",
        "Child/ChildIdentifiers/LAchildID\"] }",
        "Child/ChildIdentifiers/LAchildID\"], most_removed = \"50%\" }",
    );
    let bridge = council.site.start().await;
    let message = std::fs::read_to_string(given("cin/2026/return.xml")).unwrap();
    council.extracts("cin-1.xml", &message).await;
    let (before, last) = message.rsplit_once("<Child>").unwrap();
    let (_, after) = last.split_once("</Child>").unwrap();
    let tonight = format!("{before}{after}").replace("<Ethnicity>AIND", "<Ethnicity>AOTH");
    council.extracts("cin-2.xml", &tonight).await;
    let seen = council.site.vhost.until("platform", 2).await;
    let record = "child-in-need.record.changed.v1";
    assert_eq!(news(&seen), [told(record, "CN0005120", "changed"), told(record, "CN0007450", "removed")]);
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_return_has_every_table_and_its_rows_are_the_events_less_those_removed() {
    let council = Council::new("ssda903", "").await;
    let bridge = council.site.start().await;
    let (mut counted, mut said) = (BTreeMap::new(), 0);
    for (table, name) in TABLES {
        let file = given(&format!("ssda903/2026/{table}.csv"));
        let (events, _) = through(&format!("ssda903/{table}"), &format!("ssda903-{table}"), &file);
        for event in &events {
            said += 1;
            council.says(event, &format!("{table}-{said}")).await;
        }
        counted.insert(name.to_owned(), events.len());
    }
    // One that was entered by mistake comes and goes: a route keeps both in order.
    let wrong = |change: &str| {
        let data = format!(r#"{{"child_id": "CH000417", "change": "{change}", "start_date": "2025-12-24"}}"#);
        let data = parse_json(&data, &Limits::default()).unwrap();
        let event_type = "looked-after.absence.changed.v1".to_owned();
        Event { event_type, data, ..Event::default() }
    };
    council.says(&wrong("created"), "wrong").await;
    council.says(&wrong("removed"), "right").await;
    let header = council.sealed(said + 2, "header-000001.csv").await;
    assert!(header.starts_with("CHILD,SEX,DOB,ETHNIC,UPN,MOTHER,MC_DOB\r\n"), "{header}");
    let names: Vec<String> = until("twelve files are there", async || {
        let files = std::fs::read_dir(council.folder("returns")).unwrap().flatten();
        let names: Vec<String> = files.map(|file| file.file_name().into_string().unwrap()).collect();
        (names.len() == 12).then_some(names)
    })
    .await;
    assert!(names.iter().all(|name| name.ends_with("-000001.csv")), "{names:?}");
    if let Some(judges) = judges("csc-validator-be-903") {
        let returns = council.folder("returns");
        let (status, verdict) =
            judged(&judges, "ssda903.py", &["2026", "E08000025", returns.to_str().unwrap()]);
        assert_eq!(verdict["issues"], serde_json::json!([]));
        assert_eq!(status, 0, "{verdict}");
        let rows: BTreeMap<String, usize> = serde_json::from_value(verdict["tables"].clone()).unwrap();
        assert_eq!(rows, counted);
    }
    // The next return holds the same, and what has changed since.
    council.says(&wrong("created"), "after-all").await;
    council.sealed(1, "missing-000002.csv").await;
    let missing = std::fs::read_to_string(council.folder("returns").join("missing-000002.csv")).unwrap();
    assert_eq!(missing.lines().count() - 1, counted["Missing"] + 1, "{missing}");
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_census_is_one_message_that_both_judges_accept() {
    let council = Council::new("cin-census", ", council = \"330\", year = \"2026\"").await;
    let bridge = council.site.start().await;
    let (events, _) = through("cin-census/child", "cin-census", &given("cin/2026/return.xml"));
    for (number, event) in events.iter().enumerate() {
        council.says(event, &format!("child-{number}")).await;
    }
    let message = council.sealed(events.len() as u64, "cin-330-000001.xml").await;
    assert_eq!(message.matches("<Child>").count(), events.len(), "{message}");
    bridge.stop().await;
    let Some(judges) = judges("csc-validator-be-cin") else { return };
    let path = council.folder("returns").join("cin-330-000001.xml");
    let schema = given("cin-census-2026.xsd");
    let arguments = ["2026", path.to_str().unwrap(), schema.to_str().unwrap()];
    let (status, verdict) = judged(&judges, "cin.py", &arguments);
    assert_eq!((status, &verdict["schema"]), (0, &serde_json::json!([])), "{verdict}");
    assert_eq!(verdict["tables"]["ChildIdentifiers"], events.len());
}
