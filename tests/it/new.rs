//! `packhorse new`: a sample becomes an adapter that `check` accepts and a case that passes, and says what is a guess; what
//! is no sample is refused, and nothing that is there is overwritten.

use crate::support::Site;
use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// A project with the events of this repository and nothing else.
struct Fresh(PathBuf);

impl Fresh {
    fn new(name: &str) -> Fresh {
        let folder = std::env::temp_dir().join(format!("packhorse-new-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        let events = folder.join("mappings/events");
        std::fs::create_dir_all(&events).unwrap();
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("mappings/events");
        for entry in std::fs::read_dir(own).unwrap().flatten() {
            std::fs::copy(entry.path(), events.join(entry.file_name())).unwrap();
        }
        Fresh(folder)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_packhorse")).args(arguments).current_dir(&self.0).output().unwrap()
    }

    fn make(&self, name: &str, sample: &str, bytes: impl AsRef<[u8]>, event: &str) -> Output {
        std::fs::write(self.0.join(sample), bytes).unwrap();
        self.run(&["new", name, "--from", sample, "--event", event])
    }

    fn text(&self, path: &str) -> String {
        std::fs::read_to_string(self.0.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Makes it, and has `check` and `test` accept it; what `new` printed.
    fn made(&self, name: &str, sample: &str, bytes: impl AsRef<[u8]>, event: &str) -> String {
        let new = self.make(name, sample, bytes, event);
        assert!(new.status.success(), "{}", err(&new));
        let check = self.run(&["check"]);
        assert!(check.status.success(), "{}", out(&check));
        assert!(out(&check).contains("PH0314"), "check says nothing of guesses: {}", out(&check));
        let test = self.run(&["test"]);
        assert!(test.status.success(), "{}{}", out(&test), err(&test));
        out(&new)
    }

    /// Tries it and has it refused with this code; what was said.
    fn refused(&self, name: &str, sample: &str, bytes: impl AsRef<[u8]>, code: &str) -> String {
        let new = self.make(name, sample, bytes, "reconciliation.line.v1");
        assert!(!new.status.success(), "{}", out(&new));
        assert!(err(&new).contains(code), "{}", err(&new));
        assert!(!self.0.join(format!("adapters/{name}.toml")).exists());
        err(&new)
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

const BANK: &str = "Provider Ref,Kind,Reference,Gross Amount,Fee,Captured Date,Settled On,Fund,Ward\n\
    r5m9u3g7y1c4o8s2w6a0e5k9q3,payment,GW-2026-008340,62.50,1.14,23/11/2026,25/11/2026,garden-waste,North\n\
    q7c1x9v4m0t8b2n6k3f5h7j1s4,payment,\"GW-2026,8341\",10.00,1.14,24/11/2026,26/11/2026,,South\n";

#[test]
fn a_csv_file_becomes_an_adapter_whose_guesses_say_what_they_saw() {
    let fresh = Fresh::new("csv");
    let said = fresh.made("bank", "bank.csv", BANK, "reconciliation.line.v1");
    for part in ["wrote adapters/bank.toml", "mappings/bank/reconciliation-line.cases.toml", "all 2 records"]
    {
        assert!(said.contains(part), "{said}");
    }
    let mapping = fresh.text("mappings/bank/reconciliation-line.toml");
    for part in [
        r#"event = "gross", document = "'Gross Amount'", money = "pounds""#,
        r#"event = "captured_on", document = "'Captured Date'", date = "%d/%m/%Y""#,
        r#"event = "currency", constant = "GBP" }"#,
        r#"event = "provider", constant = "bank", guess"#,
        r#""Ward""#,
    ] {
        assert!(mapping.contains(part), "no {part} in {mapping}");
    }
    assert!(fresh.text("adapters/bank.toml").contains("pattern = \"*.csv\""));
    assert!(!fresh.0.join("mappings/layouts").exists(), "a plain file needs no layout");
}

#[test]
fn another_dialect_gets_a_layout_and_a_file_without_names_numbered_columns() {
    let fresh = Fresh::new("dialects");
    let semicolons = BANK.replace(',', ";").replace("GW-2026;8341", "Caf\u{e9}");
    let latin: Vec<u8> = semicolons.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
    let said = fresh.made("old", "old.csv", latin, "reconciliation.line.v1");
    assert!(said.contains("windows-1252"), "{said}");
    let layout = fresh.text("mappings/layouts/old.toml");
    assert!(
        layout.contains("delimiter = \";\"") && layout.contains("encoding = \"windows-1252\""),
        "{layout}"
    );
    let bare: String = BANK.lines().skip(1).map(|line| format!("{line}\n")).collect();
    fresh.made("bare", "bare.csv", bare, "reconciliation.line.v1");
    let layout = fresh.text("mappings/layouts/bare.toml");
    assert!(layout.contains("header_rows = 0") && layout.contains("column_9"), "{layout}");
}

#[test]
fn a_json_document_with_a_list_becomes_rows_in_a_group() {
    let fresh = Fresh::new("json");
    let sample = r#"{"providerReference": "q7c1x9v4m0t8b2n6k3f5h7j1s4", "ref": "771234561", "amount": 14212,
        "totalAmount": 14212, "paidAt": "2026-11-23T10:05:12+00:00", "payer": {"name": "R Sample"},
        "items": [{"id": "1", "amount": 14000, "fund": "council-tax"}, {"id": "2", "amount": 212, "fund": "costs"}],
        "extra": {"x": 1}}"#;
    fresh.made("pay", "pay.json", sample, "payment.succeeded.v1");
    let mapping = fresh.text("mappings/pay/payment-succeeded.toml");
    for part in [
        r#"event = "lines[]", document = "items[]""#,
        r#"event = "line_id", document = "id""#,
        r#"event = "payer.name", document = "payer/name""#,
        r#"event = "account", constant = "#,
        r#""extra""#,
    ] {
        assert!(mapping.contains(part), "no {part} in {mapping}");
    }
    let lines = "{\"provider_ref\": \"A1\", \"gross\": 100, \"kind\": \"refund\"}\n{\"provider_ref\": \"A2\", \"gross\": 200, \"kind\": \"payment\"}\n";
    let said = fresh.made("lines", "lines.jsonl", lines, "reconciliation.line.v1");
    assert!(said.contains("all 2 records"), "{said}");
    assert!(fresh.text("mappings/layouts/lines.toml").contains("[lines]"));
}

#[test]
fn an_xml_file_of_many_records_is_split_by_a_layout_and_one_document_is_not() {
    let fresh = Fresh::new("xml");
    let sample = r#"<?xml version="1.0"?>
<Payments xmlns="urn:x"><Header><Run>17</Run></Header>
<Payment><ProviderReference>AB12</ProviderReference><Reference>77</Reference><Amount Ccy="GBP">12.00</Amount><TotalAmount>12.00</TotalAmount><PaidAt>2026-11-23T10:00:00</PaidAt></Payment>
<Payment><ProviderReference>AB13</ProviderReference><Reference>78</Reference><Amount Ccy="GBP">13.00</Amount><TotalAmount>13.00</TotalAmount><PaidAt>2026-11-23T11:00:00</PaidAt></Payment>
</Payments>"#;
    let said = fresh.made("many", "many.xml", sample, "payment.succeeded.v1");
    assert!(said.contains("all 2 records"), "{said}");
    let layout = fresh.text("mappings/layouts/many.toml");
    assert!(
        layout.contains("record = \"Payments/Payment\"") && layout.contains("keep = [\"Payments/Header\"]"),
        "{layout}"
    );
    let mapping = fresh.text("mappings/many/payment-succeeded.toml");
    for part in [r#"namespaces = { "" = "urn:x" }"#, r#"document = "Payment/TotalAmount""#, r#""Header""#] {
        assert!(mapping.contains(part), "no {part} in {mapping}");
    }
    let one = r#"<p:Payment xmlns:p="urn:y" id="7"><p:ProviderReference>AB12</p:ProviderReference><p:Reference>77</p:Reference>
        <p:Amount>12.00</p:Amount><p:TotalAmount>12.00</p:TotalAmount><p:PaidAt>2026-11-23T10:00:00Z</p:PaidAt>
        <p:Payer><p:Name>R Sample</p:Name></p:Payer></p:Payment>"#;
    fresh.made("one", "one.xml", one, "payment.succeeded.v1");
    let mapping = fresh.text("mappings/one/payment-succeeded.toml");
    for part in [r#"root = "p:Payment""#, r#"event = "payer.name", document = "p:Payer/p:Name""#, r#""@id""#]
    {
        assert!(mapping.contains(part), "no {part} in {mapping}");
    }
    assert!(fresh.text("adapters/one.toml").contains("receive = "), "one document comes by a call");
}

#[test]
fn amounts_of_a_list_that_the_sample_lacks_add_up_to_the_total_that_it_has() {
    let fresh = Fresh::new("sums");
    let sample =
        "ProviderReference,Reference,Amount,TotalAmount,PaidAt\nAB12,77,12.00,12.00,23/11/2026 10:00:00\n";
    fresh.made("till", "till.csv", sample, "payment.succeeded.v1");
    let mapping = fresh.text("mappings/till/payment-succeeded.toml");
    assert!(mapping.contains("the whole `total_amount` in one entry"), "{mapping}");
    assert!(mapping.contains("zone = \"Europe/London\""), "{mapping}");
}

#[test]
fn a_table_becomes_a_query_with_a_cursor_or_a_comparison() {
    let fresh = Fresh::new("sql");
    let columns =
        "provider_reference varchar(40) PRIMARY KEY, kind varchar(10), gross numeric(10,2), settled_on date";
    let by_moment = format!("CREATE TABLE settlement ({columns}, updated_at timestamp with time zone);");
    fresh.made("moment", "moment.sql", by_moment, "reconciliation.line.v1");
    let adapter = fresh.text("adapters/moment.toml");
    assert!(adapter.contains("cursor = { column = \"updated_at\""), "{adapter}");
    assert!(fresh.text("adapters/moment/rows.sql").contains("ORDER BY updated_at"));
    fresh.made(
        "whole",
        "whole.sql",
        format!("CREATE TABLE settlement ({columns});"),
        "reconciliation.line.v1",
    );
    assert!(fresh.text("adapters/whole.toml").contains("compare = { key = [\"provider_reference\"] }"));
    let server = "CREATE TABLE [dbo].[Settlement] ([ProviderReference] nvarchar(40), [Gross] money)";
    fresh.made("server", "server.sql", server, "reconciliation.line.v1");
    assert!(fresh.text("adapters/server.toml").contains("database = \"odbc\""));
}

#[test]
fn every_event_of_this_repository_can_be_drafted_from_its_own_example() {
    let fresh = Fresh::new("all");
    let mut number = 0;
    for entry in std::fs::read_dir(fresh.0.join("mappings/events")).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        let Some(event) = name.strip_suffix(".example.json") else { continue };
        let example: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(entry.path()).unwrap()).unwrap();
        number += 1;
        let new =
            fresh.make(&format!("a{number}"), &format!("a{number}.json"), example["data"].to_string(), event);
        assert!(new.status.success(), "{event}: {}", err(&new));
    }
    let check = fresh.run(&["check"]);
    assert!(check.status.success(), "{}", out(&check));
    let test = fresh.run(&["test"]);
    assert!(test.status.success(), "{}{}", out(&test), err(&test));
}

#[test]
fn what_is_no_sample_is_refused_and_nothing_is_written() {
    let fresh = Fresh::new("refused");
    for (sample, bytes, code, reason) in [
        ("cut.xml", b"<a><b>1</b>".as_slice(), "PH1102", "line"),
        ("cut.json", b"{\"a\": ".as_slice(), "PH1101", "line"),
        ("empty.csv", b"".as_slice(), "PH0316", "empty"),
        ("zipped.csv", b"PK\x03\x04\x14\x00".as_slice(), "PH0316", "zip"),
        ("header.csv", b"REF,AMOUNT\r\n".as_slice(), "PH0316", "no row"),
        ("quote.csv", b"REF,AMOUNT\r\n\"A1,12\r\n".as_slice(), "PH11", "quote"),
        ("list.json", b"[{\"a\": 1}]".as_slice(), "PH0316", "list"),
        ("cut.sql", b"CREATE TABLE a (b int".as_slice(), "PH0316", "cut off"),
        ("sample.docx", b"x".as_slice(), "PH0316", ".csv"),
    ] {
        let said = fresh.refused("bad", sample, bytes, code);
        assert!(said.contains(reason), "{sample}: {said}");
    }
    let unknown = fresh.make("bad", "bank.csv", BANK, "reconciliation.lime.v1");
    assert_eq!(unknown.status.code(), Some(78));
    assert!(err(&unknown).contains("did you mean `reconciliation.line.v1`?"), "{}", err(&unknown));
    assert_eq!(fresh.make("Bad Name", "bank.csv", BANK, "reconciliation.line.v1").status.code(), Some(2));
    assert!(!fresh.0.join("adapters").exists());
}

#[test]
fn a_name_that_is_taken_is_refused_and_the_file_stays_as_it_is() {
    let fresh = Fresh::new("taken");
    fresh.made("bank", "bank.csv", BANK, "reconciliation.line.v1");
    let before = fresh.text("mappings/bank/reconciliation-line.toml");
    let other = BANK.replace("Kind", "Sort");
    let again = fresh.make("bank", "bank.csv", other, "reconciliation.line.v1");
    assert_eq!(again.status.code(), Some(73));
    assert!(err(&again).contains("PH0315") && err(&again).contains("adapters/bank.toml"), "{}", err(&again));
    assert_eq!(fresh.text("mappings/bank/reconciliation-line.toml"), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drafted_adapter_runs_and_the_records_of_a_file_arrive_as_events() {
    let keys = "settings = { folder = \"$FOLDER/out\" }\nroutes = { records = { every = \"1s\" } }\n";
    let site = Site::new(&format!("[adapters.drafted]\n{keys}")).await;
    let sample = site.folder.write("sample.csv", BANK);
    let sample = sample.to_string_lossy();
    site.good(&["new", "drafted", "--from", &sample, "--event", "reconciliation.line.v1"]).await;
    site.edit("adapters/drafted.toml", "complete = \"30s\"", "complete = \"100ms\"");
    let bridge = site.start().await;
    site.folder.write("out/night.csv", BANK);
    let events = site.vhost.until("platform", 2).await;
    let mut said: Vec<(String, i64)> = events
        .iter()
        .map(|event| {
            let data = event.json()["data"].clone();
            (data["reference"].as_str().unwrap().to_owned(), data["gross"].as_i64().unwrap())
        })
        .collect();
    said.sort();
    assert_eq!(said, [("GW-2026,8341".to_owned(), 1000), ("GW-2026-008340".to_owned(), 6250)]);
    bridge.stop().await;
}
