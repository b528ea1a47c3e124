//! A large file through the whole program, in at one end and out at the other, while it is killed again and again: what was read
//! stands in what was written, each row once, and the account closes.
//!
//! `PACKHORSE_ROWS` says how many rows; CONTRIBUTING.md has the command for a million.

use crate::{
    nightly::Nightly,
    support::{PATIENCE, until_within},
};
use std::{fmt::Write as _, time::Duration};

/// The rows' way back: the events that were made of them are written to files again.
const BACK: &str = r#"
[batch.back]
about = "What came in goes out again."
most = $MOST
[batch.back.files.rows]
name = "back-{{ '%02d' | format(batch.serial) }}.csv"
layout = "test-children"
[deliver.back]
about = "What came in goes out again."
event = "test.child.v1"
mapping = "test/back"
makes = "record"
repeat = "key"
batch = { into = "back" }
"#;

const MAPPING: &str = r#"version = 1
about = "For tests."
event = "test.child.v1"
only = "to-document"
document = { format = "csv", layout = "test-children" }
fields = [
  { event = "child", document = "CHILD" },
  { event = "name", document = "NAME" },
  { event = "born", document = "DOB", date = "%d/%m/%Y" },
]
"#;

fn row(number: usize) -> String {
    format!("c{number},\"Name, {number}\",01/02/2015\r\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_that_is_killed_while_it_reads_and_while_it_writes_loses_no_row_and_doubles_none() {
    let rows: usize = match std::env::var("PACKHORSE_ROWS") {
        Ok(text) => text.parse().expect("PACKHORSE_ROWS is a number of rows"),
        Err(_) => 20_000,
    };
    assert!(
        rows >= 100 && rows.is_multiple_of(10),
        "PACKHORSE_ROWS is a multiple of ten, and a hundred at least"
    );
    let patience = PATIENCE + Duration::from_millis(rows as u64 * 5);
    let nightly = Nightly::new().await;
    let adapter = nightly.site.folder.0.join("adapters/nightly.toml");
    let text = std::fs::read_to_string(&adapter).unwrap();
    std::fs::write(&adapter, text + &BACK.replace("$MOST", &(rows / 10).to_string())).unwrap();
    nightly.site.folder.write("mappings/test/back.toml", MAPPING);
    let mut running = nightly.site.run().await;
    // What the platform is told comes back at once as what it says.
    nightly.site.vhost.bind("platform.updates", "packhorse.nightly.back", "#").await;
    let mut text = "CHILD,NAME,DOB\r\n".to_owned();
    for number in 0..rows {
        let _ = write!(text, "{}", row(number));
    }
    nightly.writes("rows-1.csv", &text);
    for share in 1..=3 {
        let wanted = (rows * share / 5) as u64;
        until_within(patience, "some of it has arrived", async || {
            (nightly.site.vhost.depth("platform").await >= wanted).then_some(())
        })
        .await;
        running.kill().await;
        running = nightly.site.run().await;
    }
    let written = || -> Vec<String> {
        let entries = std::fs::read_dir(nightly.path("")).unwrap().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| name.starts_with("back-")).collect()
    };
    for files in [3, 5, 7, 9] {
        until_within(patience, "some of it is written", async || (written().len() >= files).then_some(()))
            .await;
        running.kill().await;
        running = nightly.site.run().await;
    }
    nightly.file_within("rows-1.csv", "done", patience).await;
    until_within(patience, "all is delivered, both ways", async || {
        let (read, wrote) =
            (nightly.site.account("nightly.rows").await, nightly.site.account("nightly.back").await);
        (read["delivered"] == rows && read["taken"] == rows && wrote["delivered"] == rows).then_some(())
    })
    .await;
    assert_eq!(running.terminate().await, 0);
    let mut files = written();
    files.sort();
    let expected: Vec<String> = (1..=10).map(|serial| format!("back-{serial:02}.csv")).collect();
    assert_eq!(files, expected);
    let mut seen = vec![0_u8; rows];
    for name in files {
        let text = std::fs::read_to_string(nightly.path(&name)).unwrap();
        let mut lines = text.split_inclusive("\r\n");
        assert_eq!(lines.next(), Some("CHILD,NAME,DOB\r\n"));
        for line in lines {
            let number: usize = line[1..line.find(',').unwrap()].parse().unwrap();
            assert_eq!(line, row(number));
            seen[number] += 1;
        }
    }
    assert!(seen.iter().all(|times| *times == 1), "a row is lost, or stands twice");
    let mut ids = nightly.site.vhost.everything("platform").await;
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), rows);
}
