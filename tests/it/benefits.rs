//! Benefits: extracts of claims (SHBE) from a generator of the test's own, with faulty rows, and Academy's tables as its one public
//! description has them, in a real PostgreSQL. Every claim that is new, changed or gone is told once; a bad row is one dead letter.

use crate::{
    databases::{CHANGES, Database, HEAD, READ},
    support::{Seen, Site, copy, root, until},
};
use serde_json::Value;
use std::path::PathBuf;

/// Changes all occurrences in a file of a project.
pub fn everywhere(site: &Site, name: &str, from: &str, to: &str) {
    let path = site.folder.0.join(name);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{name} does not hold {from:?}");
    std::fs::write(path, text.replace(from, to)).unwrap();
}

/// Waits until a file or a look of a route has come to this end.
pub async fn ended(site: &Site, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    until(what, async || {
        let out = site.good(&["files", "list", "--json"]).await;
        out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).find(|file| holds(file))
    })
    .await
}

/// The types of events and one of their fields, sorted.
pub fn told(events: &[Seen], field: &str) -> Vec<(String, String)> {
    let mut told: Vec<(String, String)> = events
        .iter()
        .map(|event| {
            let event = event.json();
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            (text(&event["type"]), text(&event["data"][field]))
        })
        .collect();
    told.sort();
    told
}

/// What became of which claim.
fn claims(events: &[Seen]) -> Vec<(String, String)> {
    let mut claims: Vec<(String, String)> = events
        .iter()
        .map(Seen::json)
        .filter(|event| event["type"] == "benefit.claim.changed.v1")
        .map(|event| {
            let text = |key: &str| event["data"][key].as_str().unwrap_or_default().to_owned();
            (text("change"), text("claim_reference"))
        })
        .collect();
    claims.sort();
    claims
}

fn pair(change: &str, reference: &str) -> (String, String) {
    (change.to_owned(), reference.to_owned())
}

/// Makes extracts of claims as the public description has them.
struct Generator {
    delimiter: &'static str,
}

impl Generator {
    /// The cells of a claim; fields are set by their numbers.
    fn cells(number: u32, set: &[(usize, &str)]) -> Vec<String> {
        let mut cells = vec![String::new(); 341];
        let reference = format!("{number:08}");
        // A NI number that may be issued, another for each claim.
        let nino = format!("AB{number:06}C");
        let usual = [
            (1, "D"),
            (2, reference.as_str()),
            (3, reference.as_str()),
            (4, nino.as_str()),
            (6, "SAMPLE"),
            (7, "JOAN"),
            (8, "14-03-1951"),
            (9, "4"),
            (10, "14 LARCH COURT"),
            (11, "EX1 4ZZ"),
            (33, "1"),
            (43, "9850"),
            (45, "2"),
        ];
        for (field, text) in usual.iter().chain(set) {
            cells[field - 1] = (*text).to_owned();
        }
        cells
    }

    fn claim(&self, number: u32, set: &[(usize, &str)]) -> String {
        Generator::cells(number, set).join(self.delimiter)
    }

    /// A non-dependant of a claim.
    fn person(&self, number: u32) -> String {
        let mut cells = vec![String::new(); 341];
        let reference = format!("{number:08}");
        for (field, text) in [
            (1, "S"),
            (2, &*reference),
            (3, &*reference),
            (16, "7"),
            (308, "2"),
            (313, "SAMPLE"),
            (314, "TOM"),
            (315, "02-09-1989"),
        ] {
            cells[field - 1] = text.to_owned();
        }
        cells.join(self.delimiter)
    }

    /// A claim whose address holds the delimiter; every cell behind it stands in the next column.
    fn shifted(&self, number: u32, cut: bool) -> String {
        let mut cells = Generator::cells(number, &[]);
        cells.insert(10, "EXAMPLETON".to_owned());
        if cut {
            cells.pop();
        }
        cells.join(self.delimiter)
    }

    /// A whole file: a header, the claims, a trailer.
    fn file(&self, lines: &[String]) -> String {
        let head = ["HDR", "EXAMPLE", "31-10-2026"].join(self.delimiter);
        let foot = ["TRL", &lines.len().to_string()].join(self.delimiter);
        format!("{head}\r\n{}\r\n{foot}\r\n", lines.join("\r\n"))
    }
}

/// A council that puts its extract into a folder.
struct Council {
    site: Site,
}

impl Council {
    async fn new() -> Council {
        let site = Site::new("[adapters.shbe]\nsettings = { folder = \"$FOLDER/extracts\" }\n").await;
        everywhere(
            &site,
            "adapters/shbe.toml",
            "every = \"5m\", complete = \"1m\"",
            "every = \"200ms\", complete = \"100ms\"",
        );
        std::fs::create_dir_all(site.folder.0.join("extracts")).unwrap();
        Council { site }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.site.folder.0.join("extracts").join(name)
    }

    /// Puts an extract there and waits until it is read.
    async fn puts(&self, name: &str, text: String) -> Value {
        let part = self.path(&format!("{name}.tmp"));
        std::fs::write(&part, text).unwrap();
        std::fs::rename(part, self.path(name)).unwrap();
        ended(&self.site, &format!("{name} is read"), |file| file["name"] == name && file["state"] == "done")
            .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_that_are_new_changed_or_gone_are_told_from_extracts_with_either_separator() {
    for (delimiter, ending) in [("|", "shbe"), (",", "csv")] {
        let council = Council::new().await;
        let bridge = council.site.start().await;
        let generator = Generator { delimiter };
        let mut lines: Vec<String> = (1..=10).map(|number| generator.claim(number, &[])).collect();
        lines.insert(1, generator.person(1));
        council.puts(&format!("september.{ending}"), generator.file(&lines)).await;
        // Claim 1 loses its non-dependant, 2 is suspended, 10 is gone, 11 is new.
        lines.remove(1);
        lines[1] = generator.claim(2, &[(33, "2")]);
        lines[9] = generator.claim(11, &[]);
        council.puts(&format!("october.{ending}"), generator.file(&lines)).await;
        let events = council.site.vhost.until("platform", 4).await;
        assert_eq!(
            claims(&events),
            [
                pair("changed", "00000001"),
                pair("changed", "00000002"),
                pair("created", "00000011"),
                pair("removed", "00000010"),
            ]
        );
        let suspended =
            events.iter().find(|event| event.json()["data"]["claim_reference"] == "00000002").unwrap();
        assert_eq!(suspended.json()["data"]["status"], "suspended");
        assert_eq!(council.site.vhost.peek("packhorse.dead").await.len(), 0);
        bridge.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shifted_row_is_one_dead_letter_and_no_claim_is_said_to_be_gone_for_it() {
    let council = Council::new().await;
    let bridge = council.site.start().await;
    let generator = Generator { delimiter: "," };
    let mut lines: Vec<String> = (1..=10).map(|number| generator.claim(number, &[])).collect();
    council.puts("september.csv", generator.file(&lines)).await;
    // One with a cell too many; one that was cut at its end, so that only its columns betray it.
    lines[2] = generator.shifted(3, false);
    lines[3] = generator.shifted(4, true);
    council.puts("october.csv", generator.file(&lines)).await;
    let letters = council.site.dead(2).await;
    assert_eq!(letters.len(), 2);
    assert_eq!(council.site.vhost.peek("platform").await.len(), 0, "neither was told, and nothing is gone");
    let mut codes: Vec<String> = letters.iter().map(|letter| letter.header("packhorse_code")).collect();
    codes.sort();
    assert_eq!(codes, ["PH1113", "PH1205"]);
    bridge.stop().await;
}

/// Academy's tables as LBHackney-IT/academy-resident-information-api has them, with the columns that are read.
const ACADEMY: &str = "
CREATE SCHEMA dbo;
CREATE TABLE dbo.hbclaim (claim_id int, check_digit varchar(1), status_ind int, nino varchar(10), application_date timestamp,
  applic_recvd_date timestamp, review_date timestamp, cancel_date timestamp, hb_end_reason varchar(3), susp_reason_code varchar(3), hb_claim_source varchar(2));
CREATE TABLE dbo.hbhousehold (claim_id int, house_id smallint, from_date timestamp, to_date varchar(37), addr1 varchar(35), addr2 varchar(35),
  addr3 varchar(32), addr4 varchar(32), post_code varchar(10), uprn varchar(12));
CREATE TABLE dbo.hbmember (claim_id int, house_id smallint, member_id smallint, person_ref int, type smallint, title varchar(4), forename varchar(32),
  surname varchar(32), birth_date varchar(37), gender smallint, nino varchar(10), deceased_date timestamp);
CREATE TABLE dbo.ctaccount (account_ref int, account_cd varchar(1), lead_liab_title varchar(8), lead_liab_forename varchar(32), lead_liab_middlename varchar(32),
  lead_liab_surname varchar(32), lead_liab_name varchar(32), lead_liab_pos smallint, paymeth_code varchar(5), for_addr1 varchar(32), for_addr2 varchar(32),
  for_addr3 varchar(32), for_addr4 varchar(32), for_postcode varchar(8));
CREATE TABLE dbo.ctoccupation (account_ref int, property_ref varchar(18), occupation_date timestamp, vacation_date timestamp, live_ind smallint);
CREATE TABLE dbo.ctproperty (property_ref varchar(18), addr1 varchar(35), addr2 varchar(35), addr3 varchar(32), addr4 varchar(32), postcode varchar(8),
  uprn varchar(12), band_010493 varchar(1));
INSERT INTO dbo.hbclaim SELECT 5012340 + n, 'X', 1, 'AB12345' || n || 'C ', '2026-03-30', '2026-04-01', '2099-12-31', NULL, '', NULL, '2' FROM generate_series(0, 9) n;
INSERT INTO dbo.hbhousehold SELECT 5012340 + n, 1, '2026-04-06', '2099-12-31 00:00:00.0000000', '14 Larch Court', '', 'Exampleton', NULL, 'EX1 4ZZ', '000100062410' FROM generate_series(0, 9) n;
INSERT INTO dbo.hbmember SELECT 5012340 + n, 1, 1, 1, 1, 'MRS', 'Joan', 'Sample', '1951-03-14 00:00:00.0000000', 2, 'AB12345' || n || 'C', NULL FROM generate_series(0, 9) n;
INSERT INTO dbo.ctproperty VALUES ('10001234', '14 Larch Court', 'Exampleton', NULL, NULL, 'EX1 4ZZ', '100062410143', 'C');
INSERT INTO dbo.ctaccount SELECT 12345670 + n, 'X', 'MRS', 'Joan', NULL, 'Sample', 'SAMPLE J', 4, 'DD01', NULL, NULL, NULL, NULL, NULL FROM generate_series(0, 9) n;
INSERT INTO dbo.ctoccupation SELECT 12345670 + n, '10001234', '2026-04-06', '2099-12-31', 1 FROM generate_series(0, 9) n;
";

/// A project that reads a database by an adapter of this repository, often.
pub async fn reading(database: &Database, name: &str) -> Site {
    let site = copied(database).await;
    everywhere(&site, &format!("adapters/{name}.toml"), "every = \"1h\"", "every = \"200ms\"");
    // The database is on this machine: there is no line to listen to.
    everywhere(&site, &format!("adapters/{name}.toml"), "tls = { ca = \"{{ settings.ca }}\" }\n", "");
    let settings = database.settings("reader").replace("[adapters.records]", &format!("[adapters.{name}]"));
    site.settings(&site.vhost.address(), &settings.replace("user =", "username ="));
    site
}

/// A project with this repository's own adapters and mappings, which may look at a database.
pub async fn copied(database: &Database) -> Site {
    let site = database.site(&format!("{HEAD}{READ}"), &[("changes.sql", CHANGES)]).await;
    // That one holds the tests' own files only; here it is this repository's that are tried.
    for folder in ["adapters", "mappings"] {
        copy(&root().join(folder), &site.folder.0.join(folder));
    }
    site
}

/// Waits until every route's first look, the baseline, is done.
pub async fn baselines(site: &Site, statements: &[&str]) {
    for statement in statements {
        let done = ended(site, &format!("the baseline of {statement}"), |file| {
            file["state"] == "done" && file["name"].as_str().unwrap_or_default().starts_with(statement)
        })
        .await;
        assert!(done["why"].as_str().unwrap_or_default().starts_with("the baseline"), "{done}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_in_academys_tables_is_told_once_and_the_first_look_says_nothing() {
    let database = Database::new().await;
    database.sql(ACADEMY).await;
    let reader = database.role("reader");
    database
        .sql(&format!(
            "GRANT USAGE ON SCHEMA dbo TO {reader}; GRANT SELECT ON ALL TABLES IN SCHEMA dbo TO {reader}"
        ))
        .await;
    let site = reading(&database, "academy").await;
    let bridge = site.start().await;
    baselines(&site, &["claims.sql", "households.sql", "members.sql", "accounts.sql"]).await;
    assert_eq!(site.vhost.peek("platform").await.len(), 0);
    database
        .sql(
            "INSERT INTO dbo.hbclaim VALUES (5019999, 'K', 1, 'OA123456A', '2026-11-20', '2026-11-21', NULL, NULL, NULL, NULL, '2');
             UPDATE dbo.hbclaim SET status_ind = 3, cancel_date = '2026-11-01' WHERE claim_id = 5012341;
             UPDATE dbo.hbhousehold SET to_date = '2026-11-01 00:00:00.0000000' WHERE claim_id = 5012342;
             UPDATE dbo.ctoccupation SET vacation_date = '2026-10-31' WHERE account_ref = 12345673;",
        )
        .await;
    // The end of a household is told of the household and of the person in it.
    let events = site.vhost.until("platform", 5).await;
    assert_eq!(claims(&events), [pair("changed", "5012341X"), pair("created", "5019999K")]);
    let of = |kind: &str, reference: &str| {
        let found = events.iter().map(Seen::json).find(|event| {
            event["type"] == kind
                && [&event["data"]["claim_reference"], &event["data"]["account_reference"]]
                    .contains(&&Value::from(reference))
        });
        found.unwrap_or_else(|| panic!("no {kind} of {reference}"))["data"].clone()
    };
    assert_eq!(of("benefit.claim.changed.v1", "5012341X")["ended_on"], "2026-11-01");
    assert_eq!(of("benefit.household.changed.v1", "5012342X")["until"], "2026-11-01");
    assert_eq!(of("benefit.member.changed.v1", "5012342X")["until"], "2026-11-01");
    assert_eq!(of("council-tax.account.changed.v1", "12345673X")["occupied_until"], "2026-10-31");
    // With a claim its household and its people go.
    database.sql("DELETE FROM dbo.hbclaim WHERE claim_id = 5012345").await;
    let events = site.vhost.until("platform", 8).await;
    assert!(claims(&events).contains(&pair("removed", "5012345X")));
    // A number without its check character is no number that people quote.
    database.sql("UPDATE dbo.hbclaim SET check_digit = NULL WHERE claim_id = 5012346").await;
    let letters = site.dead(1).await;
    assert_eq!(letters[0].header("packhorse_code"), "PH1205");
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_suddenly_empty_waits_for_a_person_and_one_that_cannot_be_read_says_nothing() {
    let database = Database::new().await;
    database.sql(ACADEMY).await;
    let reader = database.role("reader");
    database
        .sql(&format!(
            "GRANT USAGE ON SCHEMA dbo TO {reader}; GRANT SELECT ON ALL TABLES IN SCHEMA dbo TO {reader}"
        ))
        .await;
    let site = reading(&database, "academy").await;
    let bridge = site.start().await;
    baselines(&site, &["claims.sql", "accounts.sql"]).await;
    database.sql(&format!("REVOKE SELECT ON dbo.ctaccount FROM {reader}; DELETE FROM dbo.hbclaim")).await;
    let held = ended(&site, "the empty table waits", |file| {
        file["state"] == "held" && file["route"] == "academy.claims"
    })
    .await;
    assert_eq!(held["code"], "PH2304");
    assert_eq!(site.vhost.peek("platform").await.len(), 0);
    bridge.stop().await;
}

/// What has been tried in PostgreSQL is what SQL Server is given, word for word.
#[test]
fn academys_queries_are_the_same_for_both_databases() {
    for name in ["claims", "accounts", "households", "members"] {
        let text = |adapter: &str| {
            std::fs::read_to_string(root().join(format!("adapters/{adapter}/{name}.sql"))).unwrap()
        };
        assert_eq!(text("academy"), text("academy-sql-server"), "{name}.sql");
    }
}
