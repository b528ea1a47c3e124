//! Bacs submissions as an independent reader sees them: code of the tests' own, by the positions that the specification prints.
//! And what Bacs says of them: its reports, through a real folder, matched to what was submitted.

use crate::{
    batches::{Council, INSTRUCTIONS},
    support::{Seen, example, until},
};
use serde_json::{Value, json};

/// A submission as an independent reader sees it, by the positions that the specification prints.
#[derive(Debug, Default)]
pub struct Submission {
    pub references: Vec<String>,
    pub lines: Vec<String>,
}

/// Reads a submission with one processing day and adds everything up: what does not agree fails.
pub fn read(bytes: &[u8]) -> Submission {
    read_wide(bytes, 100)
}

pub fn read_wide(bytes: &[u8], width: usize) -> Submission {
    let text = std::str::from_utf8(bytes).unwrap();
    assert!(text.is_ascii() && text.ends_with("\r\n"));
    let allowed = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || ".-/& ".contains(c);
    let lines: Vec<String> = text.split_terminator("\r\n").map(str::to_owned).collect();
    assert!(lines.iter().all(|line| line.chars().all(allowed)), "{text}");
    let at = |line: &str, from: usize, to: usize| line[from - 1..to].to_owned();
    let labels: Vec<&String> = lines.iter().filter(|line| line.len() == 80).collect();
    let names: Vec<String> = labels.iter().map(|line| at(line, 1, 4)).collect();
    assert_eq!(names, ["VOL1", "HDR1", "HDR2", "UHL1", "EOF1", "EOF2", "UTL1"]);
    assert_eq!(labels[1][4..], labels[4][4..], "EOF1 is HDR1");
    assert_eq!(labels[2][4..], labels[5][4..], "EOF2 is HDR2");
    assert_eq!(at(labels[0], 5, 10), at(labels[1], 22, 27), "the serial number stands twice");
    assert_ne!(at(labels[0], 5, 10), "000000");
    let (mut debits, mut credits, mut instructions) = ((0, 0), (0, 0), 0);
    let (mut items, mut contras) = (Vec::new(), Vec::new());
    let own = at(&lines[lines.len() - 4], 1, 14);
    for line in &lines[4..lines.len() - 3] {
        assert_eq!(line.len(), width, "{line:?}");
        let amount: u64 = at(line, 36, 46).parse().unwrap();
        let contra = at(line, 65, 82).trim_end() == "CONTRA";
        assert_eq!(at(line, 15, 15), "0");
        match at(line, 16, 17).as_str() {
            "01" | "17" | "18" | "19" => debits = (debits.0 + 1, debits.1 + amount),
            "99" => credits = (credits.0 + 1, credits.1 + amount),
            "0N" | "0C" | "0S" => {
                assert_eq!(amount, 0);
                instructions += 1;
            }
            code => panic!("no transaction code: {code}"),
        }
        match contra {
            true => {
                assert_eq!(at(line, 1, 14), at(line, 18, 31), "a contra is from our account to our account");
                contras.push(line.clone());
            }
            false => {
                assert!(contras.is_empty(), "contras stand behind all items");
                assert_eq!(at(line, 18, 31), own);
                items.push(at(line, 65, 82).trim_end().to_owned());
            }
        }
    }
    let trailer = labels[6];
    let number = |from, to| at(trailer, from, to).parse::<u64>().unwrap();
    assert_eq!((number(5, 17), number(18, 30)), (debits.1, credits.1), "{text}");
    assert_eq!(debits.1, credits.1, "both sides are equal");
    assert_eq!((number(31, 37), number(38, 44)), (debits.0, credits.0));
    match instructions {
        0 => assert_eq!(at(trailer, 53, 59).trim(), ""),
        count => assert_eq!(number(53, 59), count),
    }
    Submission { references: items, lines }
}

/// A day as Bacs writes it: blank, two digits of the year, the day of the year.
pub fn bacs_day(day: &str) -> String {
    let day: jiff::civil::Date = day.parse().unwrap();
    format!(" {:02}{:03}", day.year() % 100, day.day_of_year())
}

/// What Bacs says of the instructions, with whatever else stands in the file.
fn advices(lines: &[&str], more: &str) -> String {
    let lines: String = lines.iter().map(|line| format!("<MessagingAdvice {line}/>")).collect();
    format!(
        "<?xml version=\"1.0\" encoding=\"ISO-8859-1\"?>\n<BACSDocument><Data><MessagingAdvices><MessagingHeader user-number=\"123456\"/>{lines}</MessagingAdvices></Data></BACSDocument>{more}"
    )
}

/// One line about an instruction.
fn advice(record: &str, reference: &str, reason: &str) -> String {
    format!(
        "record-type=\"{record}\" reference=\"{reference}\" reason-code=\"{reason}\" payer-name=\"A RESIDENT\" payer-sort-code=\"204512\" payer-account-number=\"12345678\" effective-date=\"2026-11-25\""
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_in_a_folder_are_matched_to_what_was_submitted_also_twice_and_also_too_early() {
    let council = Council::new().await;
    council.without_cut_off();
    let path = council.site.folder.0.join("adapters/bacs-reports.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let (slow, fast) = (r#"every = "1m", complete = "30s""#, r#"every = "200ms", complete = "100ms""#);
    assert_eq!(text.matches(slow).count(), 5);
    std::fs::write(&path, text.replace(slow, fast)).unwrap();
    let path = council.site.folder.0.join("packhorse.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    // The folder is told from the one in which packhorse.toml stands.
    std::fs::write(&path, text + "\n[adapters.bacs-reports]\nsettings = { folder = \"in\" }\n").unwrap();
    let folder = council.site.folder.0.join("in");
    std::fs::create_dir(&folder).unwrap();
    let comes = |name: &str, text: &str| {
        std::fs::write(folder.join("part"), text).unwrap();
        std::fs::rename(folder.join("part"), folder.join(name)).unwrap();
    };
    let archived = async |name: &str| {
        until(&format!("{name} is archived"), async || folder.join("done").join(name).exists().then_some(()))
            .await;
    };
    // Two instructions and a collection are rendered, and cannot be put yet.
    std::fs::remove_dir(council.out()).unwrap();
    let bridge = council.site.start().await;
    let ids = ["first-instruction", "second-instruction"];
    for (number, id) in ids.into_iter().enumerate() {
        let mut data = example(INSTRUCTIONS);
        data["reference"] = json!(format!("CT000000000{number}"));
        data["instruction_id"] = json!(id);
        council.site.vhost.say(INSTRUCTIONS, id, &data).await;
    }
    council.holds(2).await;
    council.seal().await;
    council.at("rendered").await;
    // Reports overtake the batch: they wait, and nothing is told.
    let (cancelled, returned) = (advice("A", "CT0000000000      ", "1"), advice("N", "CT0000000001", "5"));
    let file = "record-type=\"V\" file-type=\"LIVE\" vol-serial-number=\"000001\" originator-file-number=\"001\" accepted-ddi=\"1\" rejected-ddi=\"0\"";
    comes("ADDACS-1.xml", &advices(&[&cancelled], ""));
    comes("auddis-1.xml", &advices(&[file, &returned], ""));
    for route in ["advices", "instructions"] {
        until("the report waits", async || {
            let line = council.site.account(&format!("bacs-reports.{route}")).await;
            (line["waiting"] == 1 && !line["next_due"].is_null()).then_some(())
        })
        .await;
    }
    // What is about a file and about no item of it needs not wait.
    let told = council.site.vhost.until("platform", 1).await;
    assert_eq!(told[0].json()["type"], "direct-debit.file.reported.v1");
    assert_eq!(told[0].json()["data"]["serial"], "000001");
    std::fs::create_dir(council.out()).unwrap();
    council.at("sent").await;
    let told = council.site.vhost.until("platform", 3).await;
    let data = |told: &[Seen], event_type: &str| -> Vec<Value> {
        let events = told.iter().map(Seen::json).filter(|event| event["type"] == event_type);
        events.map(|event| event["data"].clone()).collect()
    };
    let about = |told: &[Seen], event_type: &str| {
        let data = data(told, event_type);
        assert_eq!(data.len(), 1, "{event_type}");
        (data[0]["instruction_id"].clone(), data[0]["reference"].clone())
    };
    assert_eq!(about(&told, "direct-debit.instruction.cancelled.v1"), (json!(ids[0]), json!("CT0000000000")));
    assert_eq!(about(&told, "direct-debit.instruction.returned.v1"), (json!(ids[1]), json!("CT0000000001")));
    // The same reports again: the very bytes under another name, and the same lines in other bytes. Nothing is told again.
    comes("ADDACS-2.xml", &advices(&[&cancelled], ""));
    comes("ADDACS-3.xml", &advices(&[&cancelled], "\n"));
    comes("AUDDIS-2.xml", &advices(&[file, &returned], "\n"));
    for name in ["ADDACS-2.xml", "ADDACS-3.xml", "AUDDIS-2.xml"] {
        archived(name).await;
    }
    // About an instruction that was never submitted from here: told without its original. A reason that there is not: a person looks.
    comes(
        "ADDACS-4.xml",
        &advices(&[&advice("A", "RE0000000009", "B"), &advice("A", "RE0000000009", "Z")], ""),
    );
    council.site.dead(1).await;
    // The input report and the claims of payers name no item of ours by a key that a submission knows.
    comes(
        "INPUT-1.xml",
        "<BACSDocument><Data><InputReport><Header><ProcessingDate date=\"2026-11-24\"/></Header><Submission><SubmissionInformation volumeSerialNumber=\"000001\"/><UserFile><InputUserFile><UserFileInformation userNumber=\"123456\" userFileNumber=\"001\"/><Errors><Error><ErrorItem reference=\"CT0000000001\" valueOf=\"0.00\"/><ErrorMessage type=\"REJECTED\"/></Error></Errors></InputUserFile></UserFile></Submission></InputReport></Data></BACSDocument>",
    );
    let claims = |total: &str| {
        format!(
            "<VocaDocument><Data><Document><ServiceUserNumber>123456</ServiceUserNumber><NewAdvices><DateOfDebit>2026-12-08</DateOfDebit><TotalValueOfDebits>{total}</TotalValueOfDebits><DDICAdvice><ReasonCode>2</ReasonCode><ReasonCodeMeaning>NO NOTICE</ReasonCodeMeaning><SUReference>CT0000000000</SUReference><PayingBankReference>IC0012345</PayingBankReference><TotalAmount>145.00</TotalAmount></DDICAdvice></NewAdvices></Document></Data></VocaDocument>"
        )
    };
    comes("DDIC-1.xml", &claims("145.00"));
    let told = council.site.vhost.until("platform", 6).await;
    let unknown = data(&told, "direct-debit.instruction.cancelled.v1");
    let unknown = unknown.iter().find(|data| data["reference"] == "RE0000000009").unwrap();
    assert!(unknown.get("instruction_id").is_none(), "{unknown}");
    assert_eq!(data(&told, "bacs.file.reported.v1")[0]["items"][0]["outcome"], "rejected");
    assert_eq!(data(&told, "direct-debit.claimed.v1")[0]["amount"], 14_500);
    // Totals that contradict refuse the file.
    comes("DDIC-2.xml", &claims("146.00"));
    until("it is kept apart", async || folder.join("failed/DDIC-2.xml.reason.txt").exists().then_some(()))
        .await;
    assert!(bridge.stop().await);
    assert_eq!(council.site.vhost.until("platform", 6).await.len(), 6, "nothing is told twice");
    for (route, delivered, duplicate, dead) in
        [("advices", 2, 1, 1), ("instructions", 2, 2, 0), ("submissions", 1, 0, 0), ("claims", 1, 0, 0)]
    {
        let line = council.site.account(&format!("bacs-reports.{route}")).await;
        let counts = (&line["delivered"], &line["duplicate"], &line["dead"]);
        assert_eq!(counts, (&json!(delivered), &json!(duplicate), &json!(dead)), "{line}");
    }
}
