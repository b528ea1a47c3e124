//! CORE lettings: what is put into a file for the service, read again by a reader of the test's own after the service's rules;
//! the errors that come back lead to their lettings; after a part success only those that failed go again.

use crate::support::{Site, example, until};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const ASK: &str = "letting.return.requested.v1";

/// A row as the service reads it: cells by the number of their field.
type Letting = BTreeMap<u32, String>;

/// Reads a file as the service's parser does: the row whose first cell says "Field number" names the columns.
fn read(text: &str) -> Vec<Letting> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
    let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    let head = rows
        .iter()
        .position(|row| row[0].to_lowercase().contains("field number"))
        .expect("the row of numbers");
    let numbers: Vec<Option<u32>> = rows[head].iter().map(|cell| cell.parse().ok()).collect();
    assert_eq!(numbers.iter().flatten().count(), 147, "the service counts the fields");
    assert_eq!(head, 7, "the first letting stands in row 9 of the sheet");
    let letting = |row: &csv::StringRecord| {
        assert_eq!((row.len(), &row[0]), (148, ""));
        numbers
            .iter()
            .zip(row.iter())
            .filter_map(|(number, cell)| Some((number.as_ref().copied()?, cell.to_owned())))
            .collect()
    };
    rows[head + 1..].iter().map(letting).collect()
}

/// What the service holds two rows of a file against each other by.
fn alike(letting: &Letting) -> Vec<String> {
    let mut key: Vec<String> =
        [1, 8, 9, 10, 13, 18, 19, 23, 24, 41, 42, 47].iter().map(|number| letting[number].clone()).collect();
    let charges: Vec<f64> = (142..=145).filter_map(|number| letting[&number].parse().ok()).collect();
    key.push(if charges.len() == 4 { format!("{:.2}", charges.iter().sum::<f64>()) } else { String::new() });
    key
}

/// A council whose folder somebody uploads from.
struct Landlord {
    site: Site,
}

impl Landlord {
    async fn new() -> Landlord {
        let site = Site::new("[adapters.core-lettings]\nsettings = { folder = \"$FOLDER/core\" }\n").await;
        site.edit("adapters/core-lettings.toml", "cut_off = [\"17:00\"]", "cut_off = []");
        site.edit(
            "adapters/core-lettings.toml",
            "every = \"1m\", complete = \"30s\"",
            "every = \"200ms\", complete = \"100ms\"",
        );
        for folder in ["core/returns", "core/errors"] {
            std::fs::create_dir_all(site.folder.0.join(folder)).unwrap();
        }
        Landlord { site }
    }

    async fn asks(&self, id: &str, tenant: &str) -> Value {
        let mut data = example(ASK);
        data["tenant_code"] = json!(tenant);
        self.site.vhost.say(ASK, id, &data).await;
        data
    }

    /// Seals the open batch when it holds so many, and reads the file that it becomes.
    async fn file(&self, items: i64, serial: u32) -> Vec<Letting> {
        let number = until("an open batch", async || {
            let out = self.site.good(&["batches", "list", "--json"]).await;
            let batches = out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            batches.into_iter().find(|batch| batch["stage"] == "open" && batch["items"] == items)
        })
        .await["number"]
            .to_string();
        self.site.good(&["batches", "seal", &number, "--by", "A Tester", "--reason", "a test"]).await;
        let path = self.site.folder.0.join(format!("core/returns/core-lettings-2026-{serial}.csv"));
        let text = until("the file", async || std::fs::read_to_string(&path).ok()).await;
        read(&text)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_holds_what_has_joined_and_after_a_part_success_only_what_failed_goes_again() {
    let landlord = Landlord::new().await;
    let bridge = landlord.site.start().await;
    for number in 1..=3 {
        landlord.asks(&format!("ask-{number}"), &format!("T-{number}")).await;
    }
    let lettings = landlord.file(3, 1).await;
    assert_eq!(
        lettings.iter().map(|letting| letting[&13].clone()).collect::<Vec<_>>(),
        ["T-1", "T-2", "T-3"]
    );
    let keys: std::collections::BTreeSet<Vec<String>> = lettings.iter().map(alike).collect();
    assert_eq!(keys.len(), 3, "none is a duplicate of another to the service");
    // Two were taken; the second is refused by its row, and leads back to the event that asked for it.
    let reference = lettings[1][&14].clone();
    let report = format!(
        "row,cell,field,error,category,tenant_code,property_ref\n10,L10,field_11,Enter a valid value for rent type,,T-2,{reference}\n"
    );
    landlord.site.folder.write("core/errors/errors.csv", report);
    let events = landlord.site.vhost.until("platform", 1).await;
    let data = events[0].json()["data"].clone();
    assert_eq!(
        (&data["about"], &data["row"], &data["cell"], &data["field"]),
        (&json!("ask-2"), &json!(10), &json!("L10"), &json!(11))
    );
    // The platform asks again for that one only: the next file holds nothing that the service has.
    landlord.asks("ask-2-again", "T-2").await;
    let again = landlord.file(1, 2).await;
    assert_eq!(again.iter().map(|letting| letting[&13].clone()).collect::<Vec<_>>(), ["T-2"]);
    bridge.stop().await;
}
