//! Files that are picked up: split into records or compared as whole extracts, through a real folder and a real RabbitMQ.
//! Every record is an event, a duplicate or a dead letter, whatever is killed on the way.

use crate::{
    nightly::Nightly,
    support::{Seen, until},
};
use std::{fmt::Write as _, os::unix::fs::PermissionsExt as _, path::PathBuf, time::Duration};

fn extract(rows: &[(&str, &str, &str)]) -> String {
    let mut text = "CHILD,NAME,DOB\r\n".to_owned();
    for (child, name, born) in rows {
        let _ = write!(text, "{child},{name},{born}\r\n");
    }
    text
}

/// What events say, by child: change and name.
fn said(events: &[Seen]) -> Vec<(String, String, String)> {
    let mut said: Vec<_> = events
        .iter()
        .map(|event| {
            let data = event.json()["data"].clone();
            let text = |key: &str| data[key].as_str().unwrap_or_default().to_owned();
            (text("child"), text("change"), text("name"))
        })
        .collect();
    said.sort();
    said
}

fn three<'a>(child: &'a str, change: &'a str, name: &'a str) -> (String, String, String) {
    (child.to_owned(), change.to_owned(), name.to_owned())
}

const FIVE: [(&str, &str, &str); 5] = [
    ("c1", "Amal", "01/02/2015"),
    ("c2", "Ben", "29/02/2016"),
    ("c3", "Cai", "03/04/2017"),
    ("c4", "Dee", "04/05/2018"),
    ("c5", "Ela", "05/06/2019"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_first_extract_is_a_baseline_and_the_next_says_what_is_new_changed_and_gone() {
    let nightly = Nightly::new().await;
    let bridge = nightly.site.start().await;
    nightly.writes("children-1.csv", extract(&FIVE));
    assert_eq!(nightly.file("children-1.csv", "done").await["why"], "the baseline: 5 rows");
    let mut rows = FIVE.to_vec();
    rows[1].1 = "Benjamin";
    rows.remove(4);
    rows.push(("c6", "Fay", "06/07/2020"));
    nightly.writes("children-2.csv", extract(&rows));
    let events = nightly.site.vhost.until("platform", 3).await;
    assert_eq!(
        said(&events),
        [three("c2", "changed", "Benjamin"), three("c5", "removed", ""), three("c6", "created", "Fay")]
    );
    nightly.file("children-2.csv", "done").await;
    until("both are archived", async || nightly.path("done/children-2.csv").exists().then_some(())).await;
    assert!(nightly.path("done/children-1.csv").exists());
    // The same again says nothing.
    nightly.writes("children-3.csv", extract(&rows));
    until("it is archived", async || nightly.path("done/children-3.csv").exists().then_some(())).await;
    let line = nightly.site.account("nightly.children").await;
    assert_eq!((line["taken"].as_i64(), line["delivered"].as_i64()), (Some(3), Some(3)));
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extract_that_lost_too_much_waits_for_a_person_and_a_rejected_one_says_nothing() {
    let nightly = Nightly::new().await;
    let bridge = nightly.site.start().await;
    nightly.writes("children-1.csv", extract(&FIVE));
    nightly.file("children-1.csv", "done").await;
    nightly.writes("children-2.csv", extract(&FIVE[..3]));
    let held = nightly.file("children-2.csv", "held").await;
    assert_eq!(held["code"], "PH2304");
    assert!(held["why"].as_str().unwrap().contains("2 of 5 rows would be gone (40 %)"), "{held}");
    let number = nightly.held().await;
    let acting = ["--by", "Olu", "--reason", "the export was cut"];
    nightly.site.good(&[&["extracts", "reject", &number], &acting[..]].concat()).await;
    let (code, _, err) =
        nightly.site.command(&[&["extracts", "accept", &number], &acting[..]].concat()).await;
    assert!(code == 1 && err.contains("PH5006"), "{code} {err}");
    // The next one is compared with the one before it.
    nightly.writes("children-3.csv", extract(&FIVE[..4]));
    let events = nightly.site.vhost.until("platform", 1).await;
    assert_eq!(said(&events), [three("c5", "removed", "")]);
    // One with a header only waits as well; accepted, everything is gone.
    nightly.writes("children-4.csv", extract(&[]));
    nightly.file("children-4.csv", "held").await;
    let number = nightly.held().await;
    nightly.site.good(&[&["extracts", "accept", &number], &acting[..]].concat()).await;
    nightly.site.vhost.until("platform", 5).await;
    nightly.file("children-4.csv", "done").await;
    assert_eq!(nightly.site.account("nightly.children").await["delivered"], 5);
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_extract_that_is_right_takes_the_place_of_one_that_waits() {
    let nightly = Nightly::new().await;
    let bridge = nightly.site.start().await;
    nightly.writes("children-1.csv", extract(&FIVE));
    nightly.file("children-1.csv", "done").await;
    nightly.writes("children-2.csv", extract(&FIVE[..1]));
    nightly.file("children-2.csv", "held").await;
    nightly.writes("children-3.csv", extract(&FIVE[..4]));
    nightly.file("children-3.csv", "done").await;
    assert_eq!(nightly.file("children-2.csv", "refused").await["code"], "PH2305");
    assert_eq!(said(&nightly.site.vhost.until("platform", 1).await), [three("c5", "removed", "")]);
    bridge.stop().await;
}

/// A file of rows with a header that has a serial number.
fn numbered(serial: &str, rows: &[(&str, &str, &str)]) -> String {
    let mut text = format!("H,{serial}\r\n");
    for (child, name, born) in rows {
        let _ = write!(text, "D,{child},{name},{born}\r\n");
    }
    text
}

const NUMBERED: &str = r#"version = 1
about = "For tests."
[csv]
header_rows = 0
[[records]]
name = "header"
role = "header"
when = { at = 1, is = ["H"] }
fields = [{ name = "serial", column = 2 }]
[[records]]
name = "child"
when = { at = 1, is = ["D"] }
fields = [{ name = "CHILD", column = 2 }, { name = "NAME", column = 3 }, { name = "DOB", column = 4 }]
"#;

#[tokio::test(flavor = "multi_thread")]
async fn two_extracts_in_the_wrong_order_are_told_by_their_names_and_the_older_one_waits() {
    let nightly = Nightly::new().await;
    nightly.site.edit(
        "adapters/nightly.toml",
        "pattern = \"children*.csv\",",
        "pattern = \"children*.csv\", sequence = \"name\",",
    );
    let bridge = nightly.site.start().await;
    nightly.writes("children-9.csv", extract(&FIVE));
    nightly.file("children-9.csv", "done").await;
    let mut later = FIVE.to_vec();
    later[0].1 = "Amalia";
    nightly.writes("children-11.csv", extract(&later));
    nightly.file("children-11.csv", "done").await;
    nightly.site.vhost.until("platform", 1).await;
    // The one between them comes last, and with the latest time.
    let mut between = FIVE.to_vec();
    between[0].1 = "Amal A.";
    nightly.writes("children-10.csv", extract(&between));
    let held = nightly.file("children-10.csv", "held").await;
    assert_eq!(held["code"], "PH2302");
    let why = held["why"].as_str().unwrap();
    assert!(why.contains("`children-10.csv`") && why.contains("`children-11.csv`"), "{why}");
    // The next one goes on, and takes its place.
    later[1].1 = "Benjamin";
    nightly.writes("children-12.csv", extract(&later));
    nightly.file("children-12.csv", "done").await;
    assert_eq!(nightly.file("children-10.csv", "refused").await["code"], "PH2305");
    let events = nightly.site.vhost.until("platform", 2).await;
    assert_eq!(said(&events), [three("c1", "changed", "Amalia"), three("c2", "changed", "Benjamin")]);
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_files_in_the_wrong_order_are_told_by_the_serial_number_of_their_header_and_none_is_lost() {
    let nightly = Nightly::new().await;
    nightly.site.folder.write("mappings/layouts/test-children.toml", NUMBERED);
    nightly.site.edit(
        "adapters/nightly.toml",
        "pattern = \"rows*.csv\",",
        "pattern = \"rows*.csv\", sequence = \"header/serial\",",
    );
    let bridge = nightly.site.start().await;
    nightly.writes("rows-a.csv", numbered("000009", &FIVE[..1]));
    nightly.file("rows-a.csv", "done").await;
    nightly.writes("rows-b.csv", numbered("000011", &FIVE[1..2]));
    nightly.file("rows-b.csv", "done").await;
    nightly.writes("rows-c.csv", numbered("000010", &FIVE[2..3]));
    nightly.writes("rows-d.csv", numbered("11", &FIVE[4..]));
    nightly.writes("rows-e.csv", numbered(" ", &FIVE[4..]));
    for (name, why) in
        [("rows-c.csv", "it is `000010`"), ("rows-d.csv", "`11`"), ("rows-e.csv", "header/serial")]
    {
        let held = nightly.file(name, "held").await;
        assert_eq!(held["code"], "PH2302", "{held}");
        assert!(held["why"].as_str().unwrap().contains(why), "{held}");
    }
    // What comes after them goes on.
    nightly.writes("rows-f.csv", numbered("000012", &FIVE[3..4]));
    nightly.file("rows-f.csv", "done").await;
    nightly.site.vhost.until("platform", 3).await;
    // A person takes the late one in, and the ones that say nothing new of it out.
    let out = nightly.site.good(&["extracts", "list", "--json"]).await;
    let held: Vec<serde_json::Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let number = |name: &str| held.iter().find(|file| file["name"] == name).unwrap()["number"].to_string();
    let acting = ["--by", "Olu", "--reason", "looked at it"];
    nightly.site.good(&[&["extracts", "accept", &number("rows-c.csv")], &acting[..]].concat()).await;
    nightly.site.good(&[&["extracts", "reject", &number("rows-d.csv")], &acting[..]].concat()).await;
    nightly
        .site
        .good(&[&["extracts", "accept", &number("rows-e.csv"), "--as-baseline"], &acting[..]].concat())
        .await;
    nightly.file("rows-c.csv", "done").await;
    assert_eq!(nightly.file("rows-e.csv", "done").await["records"], 0);
    let events = nightly.site.vhost.until("platform", 4).await;
    let mut children: Vec<String> = said(&events).into_iter().map(|(child, _, _)| child).collect();
    children.sort();
    assert_eq!(children, ["c1", "c2", "c3", "c4"]);
    let line = nightly.site.account("nightly.rows").await;
    assert_eq!((line["taken"].as_i64(), line["delivered"].as_i64()), (Some(4), Some(4)));
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_row_of_an_extract_is_one_dead_letter_and_nothing_is_said_to_be_gone() {
    let nightly = Nightly::new().await;
    nightly.site.edit(
        "adapters/nightly.toml",
        "key = [\"CHILD\"]",
        "key = [\"CHILD\"], most_removed = \"50%\"",
    );
    let bridge = nightly.site.start().await;
    nightly.writes("children-1.csv", extract(&FIVE));
    nightly.file("children-1.csv", "done").await;
    // Row 4 lacks a cell; c5 is missing; c1 has changed.
    let text = extract(&[("c1", "Amalia", "01/02/2015"), FIVE[1], FIVE[2]]) + "c4,Dee\r\n";
    nightly.writes("children-2.csv", text);
    let done = nightly.file("children-2.csv", "done").await;
    assert!(done["why"].as_str().unwrap().contains("1 rows are no records"), "{done}");
    let letters = nightly.site.dead(1).await;
    assert_eq!(String::from_utf8_lossy(&letters[0].body), "CHILD,NAME,DOB\r\nc4,Dee\r\n");
    assert_eq!(said(&nightly.site.vhost.until("platform", 1).await), [three("c1", "changed", "Amalia")]);
    let line = nightly.site.account("nightly.children").await;
    assert_eq!((line["taken"].as_i64(), line["dead"].as_i64()), (Some(2), Some(1)));
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_stands_twice_refuses_the_extract_and_keeps_it_apart_with_its_reason() {
    let nightly = Nightly::new().await;
    let bridge = nightly.site.start().await;
    nightly.writes("children-1.csv", extract(&[FIVE[0], FIVE[1], FIVE[0]]));
    let refused = nightly.file("children-1.csv", "refused").await;
    assert_eq!(refused["code"], "PH2303");
    assert!(refused["why"].as_str().unwrap().starts_with("rows 1 and 3 have the same key"), "{refused}");
    let reason = nightly.path("failed/children-1.csv.reason.txt");
    until("its reason is beside it", async || {
        let moved =
            nightly.path("failed/children-1.csv").exists() && !nightly.path("children-1.csv").exists();
        moved.then(|| std::fs::read_to_string(&reason).ok()).flatten().filter(|text| text.contains("PH2303"))
    })
    .await;
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_row_of_a_file_is_one_dead_letter_and_mended_it_goes_through() {
    let nightly = Nightly::new().await;
    let bridge = nightly.site.start().await;
    nightly.writes("rows-1.csv", extract(&[FIVE[0], ("c2", "Ben", "30/02/2016"), FIVE[2]]));
    nightly.site.vhost.until("platform", 2).await;
    let letters = nightly.site.dead(1).await;
    assert_eq!(String::from_utf8_lossy(&letters[0].body), "CHILD,NAME,DOB\r\nc2,Ben,30/02/2016\r\n");
    let content_type = letters[0].properties["content_type"].as_str().unwrap();
    assert!(content_type.contains("file=rows-1.csv") && content_type.contains("row=2"), "{content_type}");
    let line = nightly.site.account("nightly.rows").await;
    assert_eq!(
        (line["taken"].as_i64(), line["delivered"].as_i64(), line["dead"].as_i64()),
        (Some(3), Some(2), Some(1))
    );
    // The officer mends the mapping, and the letter goes through as it is.
    nightly.site.edit(
        "mappings/test/row.toml",
        "date = \"%d/%m/%Y\"",
        "only = \"to-event\", text = { max = 10 }",
    );
    nightly.site.edit("mappings/events/test.child.v1.schema.json", ", \"format\": \"date\"", "");
    bridge.stop().await;
    let bridge = nightly.site.start().await;
    nightly.site.good(&["dead-letters", "replay", "--all", "--reason", "mended", "--by", "Olu"]).await;
    nightly.site.vhost.until("platform", 3).await;
    assert_eq!(nightly.site.account("nightly.rows").await["delivered"], 3);
    bridge.stop().await;
}

/// As SQL Server and Windows tools export them.
fn in_utf_16(text: &str, of: fn(u16) -> [u8; 2]) -> Vec<u8> {
    text.encode_utf16().flat_map(of).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn files_in_utf_16_say_what_they_say_in_utf_8_and_stay_as_they_came() {
    let nightly = Nightly::new().await;
    let bridge = nightly.site.start().await;
    let mut rows = FIVE.to_vec();
    rows[1].1 = "Zoë Łucja";
    let marked = |rows: &[_], of| in_utf_16(&format!("\u{feff}{}", extract(rows)), of);
    // A compared extract: the encoding makes no change.
    nightly.writes("children-1.csv", extract(&FIVE));
    nightly.file("children-1.csv", "done").await;
    let original = marked(&rows, u16::to_le_bytes);
    nightly.writes("children-2.csv", &original);
    let events = nightly.site.vhost.until("platform", 1).await;
    assert_eq!(said(&events), [three("c2", "changed", "Zoë Łucja")]);
    nightly.file("children-2.csv", "done").await;
    until("it is archived", async || nightly.path("done/children-2.csv").exists().then_some(())).await;
    assert_eq!(std::fs::read(nightly.path("done/children-2.csv")).unwrap(), original);
    // A file of rows, the other way round, with a bad one, whose letter is text that can be read.
    rows[2].2 = "30/02/2016";
    nightly.writes("rows-1.csv", marked(&rows[1..3], u16::to_be_bytes));
    let letters = nightly.site.dead(1).await;
    assert!(String::from_utf8_lossy(&letters[0].body).contains(",30/02/2016"), "{:?}", letters[0].body);
    assert_eq!(nightly.file("rows-1.csv", "done").await["records"], 2);
    // Cut within a character, and without its mark: refused, with what to do.
    nightly.writes("rows-2.csv", &original[..original.len() - 1]);
    nightly.writes("rows-3.csv", &original[2..]);
    for (name, why) in [("rows-2.csv", "no character"), ("rows-3.csv", "nor its layout says so")] {
        let refused = nightly.file(name, "refused").await;
        assert_eq!(refused["code"], "PH1105");
        assert!(refused["why"].as_str().unwrap().contains(why), "{refused}");
    }
    bridge.stop().await;
    // Without a mark it is read where its layout says so.
    nightly.site.edit("mappings/layouts/test-children.toml", "[csv]", "encoding = \"utf-16\"\n[csv]");
    let bridge = nightly.site.start().await;
    nightly.writes("rows-4.csv", in_utf_16(&extract(&rows[..2]), u16::to_le_bytes));
    assert_eq!(nightly.file("rows-4.csv", "done").await["records"], 2);
    bridge.stop().await;
    let kept = std::fs::read_dir(nightly.site.folder.0.join("var/packhorse.files")).unwrap();
    assert_eq!(kept.count(), 0, "copies are left behind");
}

/// Properties of a message hold 255 bytes, and a file's name has as many.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_with_the_longest_of_names_gives_events_and_dead_letters_all_the_same() {
    let nightly = Nightly::new().await;
    let bridge = nightly.site.start().await;
    let name = format!("rows-{} {}.csv", "ü".repeat(100), "x".repeat(36));
    assert_eq!(name.len(), 246);
    nightly.writes(&name, extract(&[FIVE[0], ("c2", "Ben", "30/02/2016")]));
    nightly.site.vhost.until("platform", 1).await;
    nightly.site.dead(1).await;
    assert_eq!(nightly.file(&name, "done").await["records"], 2);
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_file_under_a_new_name_is_a_duplicate() {
    let nightly = Nightly::new().await;
    let bridge = nightly.site.start().await;
    nightly.writes("rows-1.csv", extract(&FIVE[..2]));
    nightly.file("rows-1.csv", "done").await;
    nightly.writes("rows-2.csv", extract(&FIVE[..2]));
    until("it is archived", async || nightly.path("done/rows-2.csv").exists().then_some(())).await;
    assert_eq!(nightly.file("rows-1.csv", "done").await["duplicates"], 1);
    assert_eq!(nightly.site.vhost.until("platform", 2).await.len(), 2);
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_still_grows_is_left_until_it_is_still() {
    let nightly = Nightly::new().await;
    nightly.site.edit(
        "adapters/nightly.toml",
        "pattern = \"rows*.csv\", every = \"200ms\", complete = \"100ms\"",
        "pattern = \"rows*.csv\", every = \"100ms\", complete = \"3s\"",
    );
    let bridge = nightly.site.start().await;
    let path = nightly.path("rows-1.csv");
    let text = extract(&FIVE);
    // Slowly, but never so that it would be still for as long as it must be.
    for end in [20, 40, 60, 80, text.len()] {
        std::fs::write(&path, &text[..end]).unwrap();
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
    assert_eq!(nightly.file("rows-1.csv", "done").await["records"], 5);
    let line = nightly.site.account("nightly.rows").await;
    assert_eq!(
        (line["taken"].as_i64(), line["files"]["taken"].as_i64()),
        (Some(5), Some(1)),
        "taken before it was whole"
    );
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_csv_is_refused_whole_and_the_next_file_goes_on() {
    let nightly = Nightly::new().await;
    let bridge = nightly.site.start().await;
    nightly.writes("rows-1.csv", b"PK\x03\x04\x14\x00\x00\x00\x08\x00zip zip zip");
    nightly.writes("rows-2.csv", "CHILD,NAME,DOB\r\nc1,\"Amal,01/02/2015\r\nc2,Ben,29/02/2016\r\n");
    nightly.writes("rows-3.csv", "CHILD,GIVEN NAME,DOB\r\nc1,Amal,01/02/2015\r\n");
    nightly.writes("rows-4.csv", extract(&FIVE));
    nightly.file("rows-4.csv", "done").await;
    for name in ["rows-1.csv", "rows-2.csv", "rows-3.csv"] {
        let refused = nightly.file(name, "refused").await;
        assert!(refused["code"].as_str().unwrap().starts_with("PH11"), "{refused}");
        until("it is kept apart", async || nightly.path(&format!("failed/{name}")).exists().then_some(()))
            .await;
    }
    assert!(nightly.file("rows-3.csv", "refused").await["why"].as_str().unwrap().contains("NAME"));
    nightly.site.vhost.until("platform", 5).await;
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_files_of_any_adapter_may_lie_on_an_sftp_server_of_which_only_the_bridge_knows() {
    let nightly = Nightly::new().await;
    let says =
        |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run scripts/test"));
    let folder = format!("extracts-{}", std::process::id());
    let files = PathBuf::from(says("SFTP_FILES")).join(&folder);
    std::fs::create_dir(&files).unwrap();
    std::fs::set_permissions(&files, std::fs::Permissions::from_mode(0o777)).unwrap();
    let reached = |host_keys: &str| {
        let (address, user, key) = (says("SFTP_ADDRESS"), says("SFTP_USER"), says("SFTP_KEY"));
        let reached = format!(
            "[adapters.nightly]\nsettings = {{ folder = \"{folder}\" }}\n[adapters.nightly.sftp]\naddress = \"{address}\"\n\
             username = \"{user}\"\nkey = \"file:{key}\"\nhost_keys = [{host_keys}]\n"
        );
        nightly.site.settings(&nightly.site.vhost.address(), &reached);
    };
    reached("");
    let (code, out, _) = nightly.site.command(&["check"]).await;
    assert!(code == 1 && out.contains("PH0117"), "{code} {out}");
    reached(&format!("\"{}\"", says("SFTP_HOST_KEY")));
    let bridge = nightly.site.start().await;
    std::fs::write(files.join("rows-1.csv.tmp"), extract(&FIVE)).unwrap();
    std::fs::rename(files.join("rows-1.csv.tmp"), files.join("rows-1.csv")).unwrap();
    nightly.file("rows-1.csv", "done").await;
    nightly.site.vhost.until("platform", 5).await;
    until("it is archived there", async || files.join("done/rows-1.csv").exists().then_some(())).await;
    bridge.stop().await;
}
