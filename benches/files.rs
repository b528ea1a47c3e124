//! Files of records: how fast they are split, read and mapped, beside the bare parsers and a script.
//!
//! `cargo bench --bench files -- [ROWS] [XML MEGABYTES]`, a million and 500 unless said. Everything is told as a ratio of
//! what the bare parser takes over the same file in the same run, with the most memory that the process ever held.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use packhorse::{
    config::Project,
    format::{
        Format, Limits,
        records::{RecordLimits, Records},
        write_json,
    },
    mapping::Context,
};
use std::{
    fs::File,
    io::{BufReader, BufWriter, Write as _},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

/// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const LAYOUT: &str = r#"
version = 1
about = "Ten columns as a nightly extract has them."
[csv]
columns = ["ID", "SURNAME", "FORENAME", "DOB", "NHS", "POSTCODE", "STATUS", "STARTED", "AMOUNT", "NOTE"]
"#;

const STATEMENT: &str = r#"
version = 1
about = "The shape of a bank statement."
[xml]
namespaces = { "" = "urn:iso:std:iso:20022:tech:xsd:camt.053.001.08" }
record = "Document/BkToCstmrStmt/Stmt/Ntry"
keep = ["Document/BkToCstmrStmt/GrpHdr", "Document/BkToCstmrStmt/Stmt/Id"]
"#;

const SCHEMA: &str = r#"{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "$id": "https://packhorse.example/events/person.changed.v1.schema.json",
  "title": "Person", "description": "For the benchmark.", "x-event-type": "person.changed.v1", "x-subject": ["id"],
  "type": "object", "required": ["id", "name", "born", "pence"],
  "properties": {
    "id": {"type": "string", "description": "a", "maxLength": 20},
    "name": {"type": "object", "description": "a", "required": ["last"], "properties": {
      "last": {"type": "string", "description": "a", "maxLength": 80}, "first": {"type": "string", "description": "a", "maxLength": 80}}},
    "born": {"type": "string", "format": "date", "description": "a", "maxLength": 10},
    "postcode": {"type": "string", "description": "a", "maxLength": 10},
    "started": {"type": "string", "format": "date", "description": "a", "maxLength": 10},
    "pence": {"type": "integer", "description": "a", "x-unit": "pence"},
    "note": {"type": "string", "description": "a", "maxLength": 200}
  }
}"#;

const EXAMPLE: &str = r#"{"data": {"id": "1", "name": {"last": "x"}, "born": "2010-01-31", "pence": 1}}"#;

const MAPPING: &str = r#"
version = 1
about = "A person as an event."
event = "person.changed.v1"
only = "to-event"
document = { format = "csv", layout = "people" }
ignore = ["NHS", "STATUS"]
fields = [
  { event = "id", document = "ID" },
  { event = "name.last", document = "SURNAME" },
  { event = "name.first", document = "FORENAME" },
  { event = "born", document = "DOB", date = "%d/%m/%Y" },
  { event = "postcode", document = "POSTCODE" },
  { event = "started", document = "STARTED", date = "%d/%m/%Y" },
  { event = "pence", document = "AMOUNT", money = "pounds" },
  { event = "note", document = "NOTE" },
]
"#;

/// What an officer would write instead.
const SCRIPT: &str = r#"
import csv, json, sys, datetime, decimal
def day(text):
    return datetime.datetime.strptime(text, "%d/%m/%Y").date().isoformat()
out = 0
with open(sys.argv[1], newline="", encoding="utf-8") as file:
    for row in csv.DictReader(file):
        event = {"id": row["ID"], "name": {"last": row["SURNAME"], "first": row["FORENAME"]}, "born": day(row["DOB"]),
                 "postcode": row["POSTCODE"], "started": day(row["STARTED"]),
                 "pence": int(decimal.Decimal(row["AMOUNT"]) * 100)}
        if row["NOTE"]:
            event["note"] = row["NOTE"]
        out += len(json.dumps(event))
print(out)
"#;

fn main() {
    let numbers: Vec<usize> = std::env::args().filter_map(|text| text.parse().ok()).collect();
    let rows = numbers.first().copied().unwrap_or(1_000_000);
    let megabytes = numbers.get(1).copied().unwrap_or(500);
    let folder = std::env::temp_dir().join(format!("packhorse-files-{}", std::process::id()));
    let project = prepare(&folder);
    csv_rows(&folder, &project, rows);
    statement(&folder, &project, megabytes);
    std::fs::remove_dir_all(&folder).unwrap();
}

fn prepare(folder: &Path) -> Project {
    for part in ["mappings/events", "mappings/layouts", "mappings/people"] {
        std::fs::create_dir_all(folder.join(part)).unwrap();
    }
    for (name, text) in [
        ("mappings/layouts/people.toml", LAYOUT),
        ("mappings/layouts/statement.toml", STATEMENT),
        ("mappings/events/person.changed.v1.schema.json", SCHEMA),
        ("mappings/events/person.changed.v1.example.json", EXAMPLE),
        ("mappings/people/person.toml", MAPPING),
        ("script.py", SCRIPT),
    ] {
        std::fs::write(folder.join(name), text).unwrap();
    }
    let project = Project::load(&folder.join("packhorse.toml"));
    assert!(!project.has_errors(), "{:?}", project.diagnostics);
    project
}

fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let began = Instant::now();
    let made = work();
    (began.elapsed(), made)
}

fn tell(what: &str, took: Duration, bytes: u64, bare: Duration) {
    let speed = bytes as f64 / 1e6 / took.as_secs_f64();
    let ratio = took.as_secs_f64() / bare.as_secs_f64();
    println!(
        "  {what:<46} {:>8.2} s {speed:>9.1} MB/s {ratio:>7.2} x the bare parser, peak {}",
        took.as_secs_f64(),
        peak()
    );
}

/// The most memory that this process ever held.
fn peak() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("unknown");
    line.trim().to_owned()
}

fn open(path: &Path) -> BufReader<File> {
    BufReader::with_capacity(1 << 18, File::open(path).unwrap())
}

fn csv_rows(folder: &Path, project: &Project, rows: usize) {
    let path = folder.join("people.csv");
    let mut file = BufWriter::new(File::create(&path).unwrap());
    file.write_all(b"ID,SURNAME,FORENAME,DOB,NHS,POSTCODE,STATUS,STARTED,AMOUNT,NOTE\r\n").unwrap();
    for n in 0..rows {
        let note = if n % 10 == 0 { "\"asked, \"\"twice\"\", and waited\"" } else { "" };
        let (day, month) = (n % 28 + 1, n % 12 + 1);
        write!(
            file,
            "{n},Surname{},Forename{},{day:02}/{month:02}/20{:02},9434765919,CV1 {}AB,OPEN,{day:02}/{month:02}/2026,{}.{:02},{note}\r\n",
            n % 5_000, n % 300, n % 20, n % 9, n % 900, n % 100,
        )
        .unwrap();
    }
    file.into_inner().unwrap();
    let bytes = std::fs::metadata(&path).unwrap().len();
    println!("{rows} rows of CSV, {} MB", bytes / 1_000_000);
    let (bare, count) = timed(|| {
        let (mut reader, mut record, mut count) =
            (csv::Reader::from_reader(open(&path)), csv::ByteRecord::new(), 0);
        while reader.read_byte_record(&mut record).unwrap() {
            count += 1;
        }
        count
    });
    assert_eq!(count, rows);
    tell("the csv crate alone", bare, bytes, bare);
    let layout = project.layouts["people"].clone();
    let begin =
        || Records::new(Format::Csv, Some(layout.clone()), open(&path), RecordLimits::default()).unwrap();
    let (took, _) = timed(|| {
        let mut records = begin();
        while records.next().unwrap().is_some() {}
        assert_eq!(records.finish().unwrap().records, rows as u64);
    });
    tell("split into records", took, bytes, bare);
    let (took, _) = timed(|| {
        let mut records = begin();
        while let Some(piece) = records.next().unwrap() {
            std::hint::black_box(records.read(&piece, &Limits::default()).unwrap());
        }
    });
    tell("split and read to trees", took, bytes, bare);
    let mapping: Arc<_> = project.mappings["people/person"].clone();
    let texts = Default::default();
    let context =
        Context { settings: &texts, values: &texts, cause: None, now: Default::default(), trace: None };
    let (ours, made) = timed(|| {
        let (mut records, mut made) = (begin(), 0);
        while let Some(piece) = records.next().unwrap() {
            let tree = records.read(&piece, &Limits::default()).unwrap();
            made += write_json(&mapping.to_event(&tree, context).unwrap().data).len();
        }
        made
    });
    tell("split, read, mapped, checked, written as JSON", ours, bytes, bare);
    let (script, output) = timed(|| {
        std::process::Command::new("python3").arg(folder.join("script.py")).arg(&path).output().unwrap()
    });
    assert!(made > 0 && output.status.success());
    tell("the same by a Python script", script, bytes, bare);
    println!("  the script takes {:.1} times as long", script.as_secs_f64() / ours.as_secs_f64());
    std::fs::remove_file(&path).unwrap();
}

fn statement(folder: &Path, project: &Project, megabytes: usize) {
    let path = folder.join("statement.xml");
    let mut file = BufWriter::new(File::create(&path).unwrap());
    let head = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Document xmlns=\"urn:iso:std:iso:20022:tech:xsd:camt.053.001.08\">\
                <BkToCstmrStmt><GrpHdr><MsgId>M1</MsgId></GrpHdr><Stmt><Id>S1</Id>\n";
    file.write_all(head.as_bytes()).unwrap();
    let (mut written, mut entries) = (0, 0_u64);
    while written < megabytes * 1_000_000 {
        let entry = format!(
            "<Ntry><NtryRef>{entries}</NtryRef><Amt Ccy=\"GBP\">{}.{:02}</Amt><CdtDbtInd>CRDT</CdtDbtInd><Sts><Cd>BOOK</Cd></Sts>\
             <BookgDt><Dt>2026-11-20</Dt></BookgDt><ValDt><Dt>2026-11-20</Dt></ValDt><AcctSvcrRef>REF{entries:012}</AcctSvcrRef>\
             <BkTxCd><Prtry><Cd>FPI</Cd></Prtry></BkTxCd><NtryDtls><TxDtls><Refs><EndToEndId>CT {entries:08}</EndToEndId></Refs>\
             <RltdPties><Dbtr><Pty><Nm>A Payer &amp; Sons</Nm></Pty></Dbtr></RltdPties><RmtInf><Ustrd>COUNCIL TAX</Ustrd></RmtInf>\
             </TxDtls></NtryDtls></Ntry>\n",
            entries % 900,
            entries % 100,
        );
        file.write_all(entry.as_bytes()).unwrap();
        written += entry.len();
        entries += 1;
    }
    file.write_all(b"</Stmt></BkToCstmrStmt></Document>\n").unwrap();
    file.into_inner().unwrap();
    let bytes = std::fs::metadata(&path).unwrap().len();
    println!("{entries} entries of a statement, {} MB", bytes / 1_000_000);
    let (bare, _) = timed(|| {
        let (mut reader, mut buffer) = (quick_xml::Reader::from_reader(open(&path)), Vec::new());
        loop {
            buffer.clear();
            if let quick_xml::events::Event::Eof = reader.read_event_into(&mut buffer).unwrap() {
                break;
            }
        }
    });
    tell("quick-xml alone", bare, bytes, bare);
    let layout = project.layouts["statement"].clone();
    let begin =
        || Records::new(Format::Xml, Some(layout.clone()), open(&path), RecordLimits::default()).unwrap();
    let (took, _) = timed(|| {
        let mut records = begin();
        while records.next().unwrap().is_some() {}
        assert_eq!(records.finish().unwrap().records, entries);
    });
    tell("split into records", took, bytes, bare);
    let (took, _) = timed(|| {
        let mut records = begin();
        while let Some(piece) = records.next().unwrap() {
            std::hint::black_box(records.read(&piece, &Limits::default()).unwrap());
        }
    });
    tell("split and read to trees", took, bytes, bare);
    std::fs::remove_file(&path).unwrap();
}
