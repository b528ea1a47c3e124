//! Money that comes in files: bank statements, counters' payments, deductions, Bacs' reports, through a real folder and a real
//! RabbitMQ. What does not add up counts not at all and is kept; what adds up is told item by item, and nothing of it is lost.

use crate::{
    standins::bank::{Statement, Told, told},
    support::{Seen, Site, until},
};
use packhorse::{
    config::Project,
    format::{
        Format,
        records::{RecordLimits, Records},
    },
};
use serde_json::Value;
use std::{
    io::{BufReader, Write as _},
    path::PathBuf,
};

/// A council whose files come into one folder for each adapter.
struct Files {
    site: Site,
    adapter: &'static str,
}

impl Files {
    async fn of(adapter: &'static str) -> Files {
        let site =
            Site::new(&format!("[adapters.{adapter}]\nsettings = {{ folder = \"$FOLDER/in\" }}\n")).await;
        let path = site.folder.0.join(format!("adapters/{adapter}.toml"));
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(r#"every = "1m", complete = "30s""#));
        std::fs::write(
            path,
            text.replace(r#"every = "1m", complete = "30s""#, r#"every = "200ms", complete = "100ms""#),
        )
        .unwrap();
        std::fs::create_dir_all(site.folder.0.join("in")).unwrap();
        Files { site, adapter }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.site.folder.0.join("in").join(name)
    }

    /// The file comes, as careful senders do it: under another name first.
    fn comes(&self, name: &str, text: impl AsRef<[u8]>) {
        let part = self.site.folder.0.join("part");
        std::fs::write(&part, text).unwrap();
        std::fs::rename(part, self.path(name)).unwrap();
    }

    /// Waits until a file has come to this end.
    async fn is(&self, name: &str, state: &str) -> Value {
        until(&format!("{name} is {state}"), async || {
            let out = self.site.good(&["files", "list", "--json"]).await;
            let lines = out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            lines.into_iter().find(|file| file["name"] == name && file["state"] == state)
        })
        .await
    }

    /// Waits until a file stands refused in the system, with its reason; gives the reason.
    async fn refused(&self, name: &str) -> String {
        self.is(name, "refused").await;
        until("it is among the failed ones", async || {
            let reason = std::fs::read_to_string(self.path(&format!("failed/{name}.reason.txt"))).ok()?;
            self.path(&format!("failed/{name}")).exists().then_some(reason)
        })
        .await
    }

    fn route(&self, route: &str) -> String {
        format!("{}.{route}", self.adapter)
    }
}

fn data(events: &[Seen], event_type: &str) -> Vec<Value> {
    let events = events.iter().map(Seen::json).filter(|event| event["type"] == event_type);
    events.map(|event| event["data"].clone()).collect()
}

/// What events say came in and went out by booked entries.
fn booked(entries: &[Value]) -> i64 {
    let booked = entries.iter().filter(|entry| entry["status"] == "booked");
    booked
        .map(|entry| match entry["direction"].as_str().unwrap() {
            "debit" => -entry["amount"].as_i64().unwrap(),
            _ => entry["amount"].as_i64().unwrap(),
        })
        .sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_entry_of_a_statement_is_an_event_in_both_versions_and_they_make_the_closing_balance() {
    let bank = Files::of("bank-statements").await;
    let bridge = bank.site.start().await;
    for (version, count) in [("08", 40), ("02", 80)] {
        let statement =
            Statement { id: format!("2026{version}"), version, entries: 40, ..Statement::default() };
        bank.comes(&format!("{version}.xml"), statement.text());
        let all = bank.site.vhost.until("platform", count).await;
        let entries: Vec<Value> = data(&all, "reconciliation.entry.v1")
            .into_iter()
            .filter(|entry| entry["statement"] == format!("2026{version}"))
            .collect();
        let told = told(statement.text().as_bytes());
        assert_eq!((entries.len() as u64, booked(&entries)), (told.entries, told.booked));
        assert_eq!(told.opening + booked(&entries), told.closing);
        // Three of them are pending: they are told, and in no balance.
        assert_eq!(entries.iter().filter(|entry| entry["status"] == "pending").count(), 3);
        assert!(entries.iter().all(|entry| entry["transactions"][0]["payer"]["name"] == "A RESIDENT"));
    }
    bank.site.account(&bank.route("entries")).await;
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_does_not_add_up_is_refused_whole_and_kept() {
    let bank = Files::of("bank-statements").await;
    let bridge = bank.site.start().await;
    bank.comes("wrong.xml", Statement { mistake: 1, ..Statement::default() }.text());
    let reason = bank.refused("wrong.xml").await;
    assert!(reason.contains("closing balance"), "{reason}");
    // The next one goes through: nothing of the first was told.
    bank.comes("right.xml", Statement { id: "2".to_owned(), ..Statement::default() }.text());
    let events = bank.site.vhost.until("platform", 10).await;
    assert!(data(&events, "reconciliation.entry.v1").iter().all(|entry| entry["statement"] == "2"));
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_is_cut_off_is_refused_whole_and_kept() {
    let bank = Files::of("bank-statements").await;
    let bridge = bank.site.start().await;
    let text = Statement::default().text();
    for (name, length) in [("in-an-entry.xml", text.len() * 2 / 3), ("before-its-end.xml", text.len() - 20)] {
        bank.comes(name, &text[..length]);
        bank.refused(name).await;
    }
    assert_eq!(bank.site.vhost.depth("platform").await, 0);
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_statement_under_a_new_name_or_sent_once_more_counts_nothing_twice() {
    let bank = Files::of("bank-statements").await;
    let bridge = bank.site.start().await;
    let text = Statement::default().text();
    bank.comes("monday.xml", &text);
    bank.site.vhost.until("platform", 10).await;
    bank.is("monday.xml", "done").await;
    bank.comes("monday-again.xml", &text);
    // Other bytes, the same statement: a duplicate of it, made an hour later.
    let copy =
        text.replace("<Acct>", "<CpyDplctInd>DUPL</CpyDplctInd><Acct>").replace("06:10:00", "07:10:00");
    bank.comes("monday-copy.xml", copy);
    bank.is("monday-copy.xml", "done").await;
    bank.comes("tuesday.xml", Statement { id: "2".to_owned(), entries: 1, ..Statement::default() }.text());
    bank.is("tuesday.xml", "done").await;
    let events = bank.site.vhost.until("platform", 11).await;
    assert_eq!(data(&events, "reconciliation.entry.v1").len(), 11);
    bank.site.account(&bank.route("entries")).await;
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_nobody_can_read_is_one_dead_letter_and_the_rest_goes_on() {
    let bank = Files::of("bank-statements").await;
    let bridge = bank.site.start().await;
    // The eleventh is pending, so the balance does not know it.
    let statement = Statement { entries: 12, ..Statement::default() };
    let text = statement.text();
    let pending = text.lines().find(|line| line.contains("PDNG")).unwrap();
    bank.comes("euro.xml", text.replace(pending, &pending.replace("\"GBP\"", "\"EUR\"")));
    bank.site.vhost.until("platform", 11).await;
    let dead = bank.site.dead(1).await;
    assert!(String::from_utf8_lossy(&dead[0].body).contains("\"EUR\""), "the record is whole in its letter");
    bank.site.account(&bank.route("entries")).await;
    bridge.stop().await;
}

fn payment(account: &str, amount: &str, channel: &str) -> String {
    format!("{:<7}{account:<16}{amount:>9}{channel}23/11/2026\r\n", "0004417")
}

fn totals(amount: &str, count: usize) -> String {
    format!("\r\n{:<34}{amount:>17}\r\n{:<40}{count:>17}\r\n", "Total Amount", "Total Transactions")
}

#[tokio::test(flavor = "multi_thread")]
async fn payments_over_a_counter_are_postings_and_what_is_taken_back_is_one_too() {
    let allpay = Files::of("allpay").await;
    let bridge = allpay.site.start().await;
    let lines = [
        payment("771234561", "168.33", "T"),
        payment("771234561", "168.33", "T"),
        payment("BERN60123456782", "85.00", "P"),
        payment("HELLO", "20.00", "Z"),
        payment("771234561", "-25.00", "Q"),
    ]
    .concat();
    allpay.comes("be1.txt", format!("{lines}{}", totals("416.66", 5)));
    let events = allpay.site.vhost.until("platform", 5).await;
    let (paid, back) = (data(&events, "payment.succeeded.v1"), data(&events, "payment.reversed.v1"));
    let sum =
        |events: &[Value]| events.iter().map(|event| event["total_amount"].as_i64().unwrap()).sum::<i64>();
    assert_eq!((sum(&paid), sum(&back)), (44_166, 2_500));
    let suspense = paid.iter().filter(|event| event["lines"][0]["fund"] == "suspense").count();
    assert_eq!(suspense, 1, "what fits no fund is in suspense, and not dropped");
    // Two payments that are alike have references of their own.
    let mut references: Vec<&str> =
        paid.iter().map(|event| event["provider_reference"].as_str().unwrap()).collect();
    references.sort_unstable();
    references.dedup();
    assert_eq!(references.len(), 4);
    // The totals contradict.
    for (name, amount, count) in [("be2.txt", "416.67", 5), ("be3.txt", "416.66", 6)] {
        allpay.comes(name, format!("{lines}{}", totals(amount, count)));
        allpay.refused(name).await;
    }
    allpay.comes("be4.txt", &lines);
    let reason = allpay.refused("be4.txt").await;
    assert!(reason.contains("cut off"), "{reason}");
    allpay.site.account(&allpay.route("payments")).await;
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deductions_from_benefit_are_postings_and_a_file_that_comes_again_posts_nothing_again() {
    let dwp = Files::of("dwp-deductions").await;
    let bridge = dwp.site.start().await;
    let row = |account: &str, pence: &str, sign: &str| {
        format!("1,2,3,4,5,{account},7,8,9,10,20/11/2026,{pence},{sign}\r\n")
    };
    let head = "A,B,C,D,E,F,G,H,I,J,K,L,M\r\n";
    let file = format!(
        "{head}{}{}{}{}",
        row("77 1234561", "325", ""),
        row("771234561", "325", "-"),
        row("12345", "400", ""),
        row("771234561", "3.25", "")
    );
    dwp.comes("DWP CT 1.csv", &file);
    let events = dwp.site.vhost.until("platform", 3).await;
    assert_eq!(data(&events, "payment.succeeded.v1").len(), 2);
    assert_eq!(data(&events, "payment.reversed.v1")[0]["total_amount"], 325);
    dwp.site.dead(1).await;
    dwp.comes("DWP CT 2.csv", &file);
    dwp.comes("DWP CT 3.csv", format!("{head}{}", row("771234561", "1", "")));
    dwp.is("DWP CT 3.csv", "done").await;
    assert_eq!(dwp.site.vhost.until("platform", 4).await.len(), 4);
    dwp.site.account(&dwp.route("deductions")).await;
    bridge.stop().await;
}

fn arudd(items: &[(&str, &str)], count: usize, sum: &str) -> String {
    let items: String = items
        .iter()
        .map(|(reference, amount)| {
            format!(
                "<ReturnedDebitItem ref=\"{reference}\" transCode=\"17\" returnCode=\"1012\" returnDescription=\"INSTRUCTION CANCELLED\" originalProcessingDate=\"2026-11-20\" valueOf=\"{amount}\" currency=\"GBP\"><PayerAccount number=\"12345678\" ref=\"{reference}\" name=\"A RESIDENT\" sortCode=\"20-45-12\"/></ReturnedDebitItem>"
            )
        })
        .collect();
    format!(
        "<OriginatingAccountRecord><OriginatingAccount name=\"EXAMPLE COUNCIL\" number=\"87654321\" sortCode=\"60-16-13\" type=\"0\"/>{items}<Totals numberOf=\"{count}\" valueOf=\"{sum}\" currency=\"GBP\"/></OriginatingAccountRecord>"
    )
}

fn report(accounts: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"ISO-8859-1\"?>\n<BACSDocument xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" xsi:noNamespaceSchemaLocation=\"newbacs-advices.xsd\"><Data><ARUDD><Header reportType=\"REFT1019\" adviceNumber=\"000\" currentProcessingDate=\"2026-11-24\"/><AddresseeInformation name=\"EXAMPLE COUNCIL\"/><ServiceLicenseInformation userName=\"EXAMPLE COUNCIL\" userNumber=\"123456\"/><Advice><OriginatingAccountRecords>{accounts}</OriginatingAccountRecords></Advice></ARUDD></Data><SignatureMethod>Vanilla</SignatureMethod><Signature/></BACSDocument>"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn unpaid_debits_are_told_one_by_one_whether_there_is_one_or_there_are_several_accounts() {
    let bacs = Files::of("bacs-reports").await;
    let bridge = bacs.site.start().await;
    let first = arudd(&[("CT0012345678", "145.00"), ("CT0012345679      ", "65.00")], 2, "210.00");
    let second = arudd(&[("RE0012345680", "0.01")], 1, "0.01");
    bacs.comes("ARUDD-1.xml", report(&format!("{first}{second}")));
    let events = bacs.site.vhost.until("platform", 3).await;
    let mut told: Vec<(String, i64)> = data(&events, "direct-debit.returned.v1")
        .iter()
        .map(|data| (data["reference"].as_str().unwrap().to_owned(), data["amount"].as_i64().unwrap()))
        .collect();
    told.sort();
    let expected = [("CT0012345678", 14_500), ("CT0012345679", 6_500), ("RE0012345680", 1)];
    assert_eq!(told, expected.map(|(reference, pence)| (reference.to_owned(), pence)));
    bacs.comes("ARUDD-2.xml", report(&arudd(&[("CT0012345678", "145.00")], 1, "146.00")));
    let reason = bacs.refused("ARUDD-2.xml").await;
    assert!(reason.contains("amount of the returned items"), "{reason}");
    bacs.site.account(&bacs.route("returned")).await;
    bridge.stop().await;
}

/// A statement with these balances and entries: amounts in pounds, `-` before what went out.
fn small(balances: &[(&str, &str)], entries: &[(&str, &str)]) -> String {
    let signed = |amount: &str| match amount.strip_prefix('-') {
        Some(amount) => format!("<Amt Ccy=\"GBP\">{amount}</Amt><CdtDbtInd>DBIT</CdtDbtInd>"),
        None => format!("<Amt Ccy=\"GBP\">{amount}</Amt><CdtDbtInd>CRDT</CdtDbtInd>"),
    };
    let balance = |(code, amount): &(&str, &str)| {
        format!("<Bal><Tp><CdOrPrtry><Cd>{code}</Cd></CdOrPrtry></Tp>{}</Bal>", signed(amount))
    };
    let entry =
        |(status, amount): &(&str, &str)| format!("<Ntry>{}<Sts>{status}</Sts></Ntry>", signed(amount));
    let balances: String = balances.iter().map(balance).collect();
    let entries: String = entries.iter().map(entry).collect();
    format!("<Stmt><Id>1</Id>{balances}{entries}</Stmt>")
}

/// What becomes of a file of these statements.
fn adds_up(version: &str, statements: &[String]) -> Result<u64, String> {
    let project = Project::load(&crate::support::root().join("packhorse.toml"));
    let layout = project.layouts.get("camt053").unwrap().clone();
    let file = format!(
        "<Document xmlns=\"urn:iso:std:iso:20022:tech:xsd:camt.053.001.{version}\"><BkToCstmrStmt>{}</BkToCstmrStmt></Document>",
        statements.concat()
    );
    let mut records =
        Records::new(Format::Xml, Some(layout), file.as_bytes(), RecordLimits::default()).unwrap();
    while records.next().unwrap().is_some() {}
    records.finish().map(|summary| summary.records).map_err(|error| error.to_string())
}

#[test]
fn each_statement_of_a_file_adds_up_by_itself_as_far_as_it_tells_its_balances() {
    let booked = [("<Cd>BOOK</Cd>", "20.50"), ("<Cd>BOOK</Cd>", "-8.01"), ("<Cd>PDNG</Cd>", "1000.00")];
    let good = small(&[("OPBD", "-10.00"), ("CLBD", "2.49"), ("CLAV", "77.00")], &booked);
    let none = small(&[("OPBD", "5.00"), ("CLBD", "5.00")], &[]);
    // Today's opening is yesterday's closing: told twice, it counts once.
    let twice = small(&[("PRCD", "-10.00"), ("OPBD", "-10.00"), ("CLBD", "2.49")], &booked);
    // A page in the middle tells neither.
    let page = small(&[("ITBD", "1.00")], &booked);
    let wrong = small(&[("OPBD", "-10.00"), ("CLBD", "2.50")], &booked);
    for statements in [vec![&good], vec![&none, &good, &twice], vec![&page], vec![&good, &page, &none]] {
        let statements: Vec<String> = statements.into_iter().cloned().collect();
        assert!(adds_up("08", &statements).is_ok(), "{statements:?}");
    }
    for before in [&good, &none, &page] {
        let why = adds_up("08", &[before.clone(), wrong.clone()]).unwrap_err();
        assert!(why.contains("2.50") && why.contains("2.49"), "{why}");
    }
    // Two statements that are wrong by as much in both directions are two that are wrong.
    let other = small(&[("OPBD", "-10.00"), ("CLBD", "2.48")], &booked);
    assert!(adds_up("08", &[wrong.clone(), other]).is_err());
    let old: Vec<String> = [good, none]
        .iter()
        .map(|text| text.replace("<Cd>BOOK</Cd>", "BOOK").replace("<Cd>PDNG</Cd>", "PDNG"))
        .collect();
    assert_eq!(adds_up("02", &old), Ok(3));
}

/// As many entries as `PACKHORSE_TEST_ENTRIES` says, written to disk by a bank and read entry by entry.
#[test]
fn a_long_statement_is_read_entry_by_entry_and_adds_up_as_another_reader_says() {
    let entries = std::env::var("PACKHORSE_TEST_ENTRIES").map_or(20_000, |text| text.parse().unwrap());
    let folder = crate::support::Folder::new();
    let path = folder.0.join("long.xml");
    let statement = Statement { entries, ..Statement::default() };
    let mut file = std::io::BufWriter::new(std::fs::File::create(&path).unwrap());
    statement.write(&mut file).unwrap();
    file.flush().unwrap();
    let open = || BufReader::new(std::fs::File::open(&path).unwrap());
    let project = Project::load(&crate::support::root().join("packhorse.toml"));
    let layout = project.layouts.get("camt053").unwrap().clone();
    let read = |path: &PathBuf| {
        let reader = BufReader::new(std::fs::File::open(path).unwrap());
        let mut records =
            Records::new(Format::Xml, Some(layout.clone()), reader, RecordLimits::default()).unwrap();
        let mut count = 0;
        while let Some(piece) = records.next().unwrap() {
            assert!(piece.wrong.is_none() && piece.bytes.len() < 4_096);
            count += 1;
        }
        (count, records.finish())
    };
    let Told { entries: counted, booked, opening, closing } = told(open());
    assert_eq!(opening + booked, closing);
    let (count, summary) = read(&path);
    assert_eq!((count, summary.unwrap().records), (counted, counted));
    // A penny too much in the closing balance, and the whole file counts not at all.
    let mut file = std::io::BufWriter::new(std::fs::File::create(&path).unwrap());
    Statement { mistake: 1, ..statement }.write(&mut file).unwrap();
    file.flush().unwrap();
    assert!(read(&path).1.is_err());
}
