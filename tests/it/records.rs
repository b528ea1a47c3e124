//! Files of records: split to the byte, read by layouts, written by layouts, and every bad file told apart.

use packhorse::{
    code::Code,
    format::{
        Format, FormatError, Layout, Limits, Style,
        layout::{compile, raw::LayoutFile},
        records::{Piece, Point, RecordLimits, Records, Summary, only},
    },
    mapping::generate::Random,
    tree::{Name, Tree},
};
use std::{
    io::{BufRead, BufReader},
    sync::Arc,
};

fn layout(text: &str) -> Arc<Layout> {
    let file: LayoutFile = toml::from_str(&format!("version = 1\nabout = \"a test\"\n{text}")).unwrap();
    let (layout, problems) = compile("test", String::new(), &file);
    Arc::new(layout.unwrap_or_else(|| panic!("{problems:?}")))
}

struct Split {
    pieces: Vec<(Piece, Vec<u8>)>,
    points: Vec<Point>,
    end: Result<Summary, FormatError>,
}

fn split(layout: &Arc<Layout>, file: &[u8], buffer: usize) -> Split {
    split_from(layout, BufReader::with_capacity(buffer, file))
}

fn split_from(layout: &Arc<Layout>, reader: impl BufRead) -> Split {
    let limits = RecordLimits::default();
    let (mut pieces, mut points) = (Vec::new(), Vec::new());
    let mut records = match Records::new(layout.format(), Some(layout.clone()), reader, limits) {
        Ok(records) => records,
        Err(error) => return Split { pieces, points, end: Err(error) },
    };
    loop {
        points.push(records.point());
        match records.next() {
            Ok(Some(piece)) => {
                let document = records.frame().wrap(&piece.bytes);
                pieces.push((piece, document));
            }
            Ok(None) => return Split { pieces, points, end: records.finish() },
            Err(error) => return Split { pieces, points, end: Err(error) },
        }
    }
}

fn trees(layout: &Arc<Layout>, file: &[u8]) -> Vec<Tree> {
    let split = split(layout, file, 8192);
    split.end.unwrap();
    let read =
        |document: &Vec<u8>| layout.format().read(document, None, Some(layout), &Limits::default()).unwrap();
    split.pieces.iter().map(|(_, document)| read(document)).collect()
}

fn text(tree: &Tree, path: &[&str]) -> String {
    tree.at(path).and_then(Tree::as_text).unwrap_or_default().to_owned()
}

const DETAILS: &str = r#"
[fixed]
line_end = "lf"
[[records]]
name = "header"
role = "header"
when = { at = 1, is = ["H"] }
width = 10
fields = [ { name = "serial", from = 2, to = 5, align = "right", fill = "0" } ]
[[records]]
name = "detail"
when = { at = 1, is = ["D"] }
width = 10
fields = [ { name = "who", from = 2, to = 5 }, { name = "amount", from = 6, to = 10, align = "right", fill = "0" } ]
[[records]]
name = "note"
role = "child"
when = { at = 1, is = ["N"] }
width = 10
fields = [ { name = "text", from = 2, to = 10 } ]
[[records]]
name = "trailer"
role = "trailer"
when = { at = 1, is = ["T"] }
width = 10
fields = [ { name = "count", from = 2, to = 5, align = "right", fill = "0" }, { name = "sum", from = 6, to = 10, align = "right", fill = "0" } ]
[[totals]]
what = "number of details"
count = ["detail"]
equals = "trailer.count"
[[totals]]
what = "sum of the amounts"
sum = "detail.amount"
equals = "trailer.sum"
"#;

#[test]
fn a_csv_row_is_a_document_with_its_header() {
    let layout = layout("[csv]\ncolumns = [\"a\", \"b\"]\noptional = [\"c\"]");
    let file = b"\xef\xbb\xbfb,a\r\n1,\"x, \"\"y\"\"\r\nz\"\r\n\r\n2,\r\n";
    let split = split(&layout, file, 3);
    let documents: Vec<&[u8]> = split.pieces.iter().map(|(_, document)| document.as_slice()).collect();
    assert_eq!(documents, [&b"b,a\r\n1,\"x, \"\"y\"\"\r\nz\"\r\n"[..], b"b,a\r\n2,\r\n"]);
    let lines: Vec<(u64, u64)> = split.pieces.iter().map(|(piece, _)| (piece.number, piece.line)).collect();
    assert_eq!(lines, [(1, 2), (2, 5)]);
    assert_eq!(split.end, Ok(Summary { records: 2, bad: 0, unchecked: vec![] }));
    let trees = trees(&layout, file);
    assert_eq!(text(&trees[0], &["a"]), "x, \"y\"\r\nz");
    assert_eq!(text(&trees[1], &["b"]), "2");
}

#[test]
fn a_fixed_record_comes_with_its_header_and_its_children() {
    let layout = layout(DETAILS);
    let file = b"H0007     \nDann 00012\nNone      \nNtwo      \nDbob 00030\nT000200042\n";
    let trees = trees(&layout, file);
    assert_eq!(trees.len(), 2);
    assert_eq!(text(&trees[0], &["header", "serial"]), "7");
    assert_eq!(text(&trees[0], &["who"]), "ann");
    assert_eq!(text(&trees[1], &["amount"]), "30");
    let notes = trees[0].as_record().unwrap().entries().iter().filter(|(name, _)| name.local == "note");
    assert_eq!(notes.count(), 2);
    let written =
        Format::Fixed.encode(&trees[0], &Style { layout: Some(layout.clone()), ..Style::default() }).unwrap();
    assert_eq!(String::from_utf8(written).unwrap(), "H0007     \nDann 00012\nNone      \nNtwo      \n");
}

#[test]
fn a_trailer_that_contradicts_is_told_with_both_numbers() {
    let layout = layout(DETAILS);
    let error = split(&layout, b"H0007     \nDann 00012\nT000200012\n", 9).end.unwrap_err();
    assert_eq!(error.code, Code::TotalsDiffer);
    assert!(error.what.contains("states 2") && error.what.contains("give 1"), "{error}");
    let error = split(&layout, b"H0007     \nDann 00012\n", 9).end.unwrap_err();
    assert_eq!(error.code, Code::FileCutOff);
}

#[test]
fn reading_goes_on_at_every_record_as_if_it_had_never_stopped() {
    let details =
        (layout(DETAILS), &b"H0007     \nDann 00012\nNone      \nNtwo      \nDbob 00030\nT000200042\n"[..]);
    let csv = (layout("[csv]\n"), &b"b,a\r\n1,\"x\r\ny\"\r\n\r\n2,3\r\n4\r\n5,6"[..]);
    let statement = statement("120.25");
    let xml = (layout(STATEMENT), statement.as_bytes());
    for (layout, file) in [details, csv, xml] {
        let whole = split(&layout, file, 7);
        for (index, point) in whole.points.iter().enumerate() {
            let kept = serde_json::to_string(point).unwrap();
            let point: Point = serde_json::from_str(&kept).unwrap();
            let rest = &file[usize::try_from(point.offset).unwrap()..];
            let limits = RecordLimits::default();
            let mut records =
                Records::resume(layout.format(), Some(layout.clone()), rest, limits, point).unwrap();
            for (piece, document) in whole.pieces.iter().skip(index) {
                let again = records.next().unwrap().unwrap();
                assert_eq!(&again, piece);
                assert_eq!(&records.frame().wrap(&again.bytes), document);
            }
            assert_eq!(records.next().unwrap(), None);
            assert_eq!(records.finish(), whole.end);
        }
    }
}

#[test]
fn a_row_that_is_gone_is_told_by_its_key_alone() {
    let layout = layout("[csv]\n");
    let mut records =
        Records::new(Format::Csv, Some(layout.clone()), &b"a,b\n1,2\n"[..], RecordLimits::default()).unwrap();
    records.next().unwrap();
    let document = only(Format::Csv, Some(&layout), records.frame(), &[("b".into(), "7".into())]).unwrap();
    assert_eq!(document, b"a,b\n,7\r\n");
}

const STATEMENT: &str = r#"
[xml]
namespaces = { "" = "urn:example:statement.08" }
accept = ["urn:example:statement.02"]
record = "Document/Report/Stmt/Ntry"
keep = ["Document/Report/GrpHdr/MsgId", "Document/Report/Stmt/Id", "Document/Report/Stmt/Bal"]
[[totals]]
what = "closing balance"
sum = "Document/Report/Stmt/Ntry/Amt"
minus_when = { field = "Ind", is = ["DBIT"] }
start = "Document/Report/Stmt/Bal/Amt"
start_when = { field = "Tp/Cd", is = ["OPBD"] }
equals = "Document/Report/Stmt/Bal/Amt"
equals_when = { field = "Tp/Cd", is = ["CLBD"] }
[[totals]]
what = "number of entries"
count = ["record"]
equals = "Document/Report/Stmt/Count"
"#;

fn statement(closing: &str) -> String {
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<!-- made by a bank -->
<Document xmlns="urn:example:statement.02" xmlns:x="urn:example:statement.08">
 <Report><GrpHdr><MsgId>M&amp;1</MsgId><Other a=">"/></GrpHdr>
  <Stmt><Id>S1</Id><Skip><Ntry>no</Ntry></Skip>
   <Bal><Tp><Cd>OPBD</Cd></Tp><Amt>100.00</Amt><Ind>CRDT</Ind></Bal>
   <Bal><Tp><Cd>CLBD</Cd></Tp><Amt>{closing}</Amt><Ind>CRDT</Ind></Bal>
   <Ntry><Amt Ccy="GBP">20.50</Amt><Ind>CRDT</Ind><Ntry>inner</Ntry></Ntry>
   <Ntry><Amt>0.25</Amt><Ind>DBIT</Ind><T><![CDATA[</Ntry>]]></T></Ntry>
  </Stmt>
  <Stmt><Id>S2</Id>
   <Bal><Tp><Cd>OPBD</Cd></Tp><Amt>1</Amt><Ind>DBIT</Ind></Bal>
   <Bal><Tp><Cd>CLBD</Cd></Tp><Amt>1.00</Amt><Ind>CRDT</Ind></Bal>
   <x:Ntry><Amt>2</Amt><Ind>CRDT</Ind></x:Ntry>
  </Stmt>
 </Report>
</Document>
"#
    )
}

#[test]
fn an_xml_record_is_a_document_with_what_is_kept_before_it() {
    let layout = layout(STATEMENT);
    let split = split(&layout, statement("120.25").as_bytes(), 5);
    let summary = split.end.unwrap();
    assert_eq!((summary.records, summary.bad), (3, 0));
    assert_eq!(summary.unchecked, ["number of entries"]);
    let trees: Vec<Tree> = split
        .pieces
        .iter()
        .map(|(_, document)| Format::Xml.read(document, None, Some(&layout), &Limits::default()).unwrap())
        .collect();
    let space: Arc<str> = Arc::from("urn:example:statement.08");
    let at = |tree: &Tree, path: &[&str]| {
        let mut tree = tree.clone();
        for name in path {
            let name = packhorse::tree::Name::spaced(space.clone(), *name);
            tree = tree.as_record().and_then(|record| record.get(&name)).cloned().unwrap_or_default();
        }
        tree.as_text().unwrap_or_default().to_owned()
    };
    assert_eq!(at(&trees[0], &["Document", "Report", "GrpHdr", "MsgId"]), "M&1");
    assert_eq!(at(&trees[1], &["Document", "Report", "Stmt", "Id"]), "S1");
    assert_eq!(at(&trees[1], &["Document", "Report", "Stmt", "Ntry", "T"]), "</Ntry>");
    assert_eq!(at(&trees[2], &["Document", "Report", "Stmt", "Id"]), "S2");
    assert_eq!(at(&trees[2], &["Document", "Report", "Stmt", "Ntry", "Amt"]), "2");
    let lines: Vec<u64> = split.pieces.iter().map(|(piece, _)| piece.line).collect();
    assert_eq!(lines, [8, 9, 14]);
    for (piece, document) in &split.pieces {
        let offset = usize::try_from(piece.offset).unwrap();
        assert!(statement("120.25").as_bytes()[offset..].starts_with(&piece.bytes));
        assert!(!document.windows(4).any(|part| part == b"Skip"));
    }
}

#[test]
fn opening_and_entries_that_do_not_make_the_closing_balance_are_told() {
    let error = split(&layout(STATEMENT), statement("120.26").as_bytes(), 4096).end.unwrap_err();
    assert_eq!(error.code, Code::TotalsDiffer);
    assert!(error.what.contains("120.26") && error.what.contains("120.25"), "{error}");
}

#[test]
fn an_xml_file_that_is_cut_off_or_another_is_refused() {
    let layout = layout(STATEMENT);
    let whole = statement("120.25");
    let code = |text: &str| split(&layout, text.as_bytes(), 64).end.unwrap_err().code;
    let body = whole.find("<Document").unwrap();
    let root_ends = whole.rfind("</Document>").unwrap();
    for end in body + 1..root_ends + 1 {
        assert_eq!(code(&whole[..end]), Code::FileCutOff, "cut at {end}");
    }
    assert_eq!(code(&whole.replace("statement.02", "invoice.02")), Code::NotText);
    assert_eq!(code("<Other/>"), Code::NotText);
    assert_eq!(code("<!DOCTYPE Document><Document/>"), Code::DtdRefused);
    assert_eq!(code("<?xml version=\"1.0\" encoding=\"UTF-16\"?><Document/>"), Code::WrongEncoding);
    assert_eq!(code(&whole.replace("</Stmt>", "</Stnt>")), Code::MalformedXml);
    assert_eq!(code(&whole.replace("<Ind>CRDT</Ind><Ntry>", "<Ind>CRDT</Int><Ntry>")), Code::MalformedXml);
    assert_eq!(code(&(whole.clone() + "<Document/>")), Code::MalformedXml);
    assert_eq!(code(""), Code::MalformedXml);
}

/// A reader that gives as little as it likes at a time.
struct Dribble<'a> {
    rest: &'a [u8],
    random: Random,
    given: usize,
}

impl std::io::Read for Dribble<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let taken = self.fill_buf()?.len().min(into.len());
        into[..taken].copy_from_slice(&self.rest[..taken]);
        self.consume(taken);
        Ok(taken)
    }
}

impl BufRead for Dribble<'_> {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        if self.given == 0 {
            self.given = self.random.between(1, 7) as usize;
        }
        Ok(&self.rest[..self.given.min(self.rest.len())])
    }

    fn consume(&mut self, amount: usize) {
        self.rest = &self.rest[amount..];
        self.given -= amount;
    }
}

fn split_dribbling(layout: &Arc<Layout>, file: &[u8], seed: u64) -> Split {
    let reader = Dribble { rest: file, random: Random::new(seed), given: 0 };
    split_from(layout, reader)
}

fn samples() -> Vec<(Arc<Layout>, Vec<u8>)> {
    let none = DETAILS.replace("\"lf\"", "\"none\"");
    let fixed = b"H0007     \nDann 00012\nNone      \nNtwo      \nDbob 00030\nT000200042\n".to_vec();
    let run: Vec<u8> = fixed.iter().copied().filter(|b| *b != b'\n').collect();
    vec![
        (layout(DETAILS), fixed),
        (layout(&none), run),
        (layout("[csv]\n"), b"\xef\xbb\xbfb,a\r\n1,\"x\r\n\"\"y\"\r\n\r\n2,3\r\n4\n5,6\r7,8".to_vec()),
        (layout("[lines]"), b"{\"a\":1}\n\n{\"a\":\"\\n\"}\r\n[]".to_vec()),
        (layout(ROWS), b"H|1\nD|a|3\nS|x\nS|y\nD|b|4\nH|2\nD|c|5\nT|3\n".to_vec()),
        (layout(STATEMENT), statement("120.25").into_bytes()),
    ]
}

const ROWS: &str = r#"
[csv]
delimiter = "|"
quote = ""
[[records]]
name = "head"
role = "header"
when = { at = 1, is = ["H"] }
fields = [ { name = "serial", column = 2 } ]
[[records]]
name = "claim"
when = { at = 1, is = ["D"] }
fields = [ { name = "who", column = 2 }, { name = "pence", column = 3 } ]
[[records]]
name = "stay"
role = "child"
when = { at = 1, is = ["S"] }
fields = [ { name = "where", column = 2 } ]
[[records]]
name = "end"
role = "trailer"
when = { at = 1, is = ["T"] }
fields = [ { name = "count", column = 2 } ]
[[totals]]
what = "number of claims"
count = ["claim"]
equals = "end.count"
"#;

#[test]
fn how_the_bytes_come_in_makes_no_difference() {
    for (layout, file) in samples() {
        let whole = split(&layout, &file, 1 << 16);
        assert!(whole.end.is_ok() && whole.pieces.len() > 1, "{:?}", whole.end);
        for seed in 0..40 {
            let again = split_dribbling(&layout, &file, seed);
            assert_eq!(again.pieces, whole.pieces);
            assert_eq!(again.points, whole.points);
            assert_eq!(again.end, whole.end);
        }
    }
}

#[test]
fn a_later_header_stands_before_the_records_behind_it() {
    let layout = layout(ROWS);
    let trees = trees(&layout, b"H|1\nD|a|3\nS|x\nS|y\nD|b|4\nH|2\nD|c|5\nT|3\n");
    let serials: Vec<String> = trees.iter().map(|tree| text(tree, &["head", "serial"])).collect();
    assert_eq!(serials, ["1", "1", "2"]);
    let written =
        Format::Csv.encode(&trees[0], &Style { layout: Some(layout.clone()), ..Style::default() }).unwrap();
    assert_eq!(written, b"H|1\r\nD|a|3\r\nS|x\r\nS|y\r\n");
}

#[test]
fn whatever_is_done_to_a_file_nothing_panics_and_no_byte_of_a_record_is_made_up() {
    let mut random = Random::new(4);
    for (layout, file) in samples() {
        for _ in 0..1_500 {
            let mut bytes = file.clone();
            for _ in 0..random.between(1, 4) {
                let at = random.between(0, bytes.len() as u64 - 1) as usize;
                match random.between(0, 4) {
                    0 => bytes[at] = random.bits() as u8,
                    1 => bytes.truncate(at + 1),
                    2 => bytes.insert(at, b"\"\n\r,<>|\0\xef\xe9&/"[random.between(0, 11) as usize]),
                    3 => drop(bytes.remove(at).max(1)),
                    _ => bytes.extend_from_within(at..),
                }
                if bytes.is_empty() {
                    bytes.push(b'x');
                }
            }
            let split = split(&layout, &bytes, 4096);
            for (piece, document) in &split.pieces {
                let offset = usize::try_from(piece.offset).unwrap();
                assert!(bytes[offset..].starts_with(&piece.bytes[..1]));
                let read = layout.format().read(document, None, Some(&layout), &Limits::default());
                let rows = layout.format() == Format::Csv && layout.records.is_empty();
                assert!(piece.wrong.is_none() || !rows || read.is_err(), "{piece:?} {read:?}");
            }
            if let Some(point) = split.points.last() {
                let rest = &bytes[usize::try_from(point.offset).unwrap().min(bytes.len())..];
                let limits = RecordLimits::default();
                let _ = Records::resume(layout.format(), Some(layout.clone()), rest, limits, point.clone())
                    .and_then(|mut records| records.next());
            }
        }
    }
}

#[test]
fn rows_have_the_cells_that_the_csv_crate_finds() {
    let mut random = Random::new(11);
    let layout = layout("[csv]\nheader_rows = 1\n");
    let mut compared = 0;
    for _ in 0..20_000 {
        let mut file = String::from("a,b\n");
        for _ in 0..random.between(1, 30) {
            let pieces = ["a", ",", "\"", "\n", "\r\n", "é", "\"\"", " ", "b,c\n", "\"x\",", "\r"];
            file.push_str(pieces[random.between(0, pieces.len() as u64 - 1) as usize]);
        }
        let split = split(&layout, file.as_bytes(), 16);
        if split.end.is_err() || split.pieces.iter().any(|(piece, _)| piece.wrong.is_some()) {
            continue;
        }
        let mut theirs = csv::ReaderBuilder::new().flexible(true).from_reader(file.as_bytes());
        let theirs: Vec<Vec<String>> = theirs
            .records()
            .map(|row| row.unwrap().iter().map(str::to_owned).collect::<Vec<String>>())
            .collect();
        let ours: Vec<Vec<String>> = split
            .pieces
            .iter()
            .map(|(_, document)| {
                let tree = Format::Csv.decode(document, None, &Limits::default()).unwrap();
                let entries = tree.as_record().unwrap().entries();
                entries.iter().map(|(_, cell)| cell.as_text().unwrap().to_owned()).collect()
            })
            .collect();
        assert_eq!(ours, theirs, "{file:?}");
        compared += ours.len();
    }
    assert!(compared > 500, "only {compared} rows compared");
}

fn first_error(layout: &str, file: &[u8]) -> FormatError {
    split(&self::layout(layout), file, 4096).end.unwrap_err()
}

/// What is wrong with each record: its line and code.
fn wrongs(layout: &str, file: &[u8]) -> Vec<(u64, Option<Code>)> {
    let split = split(&self::layout(layout), file, 4096);
    split.end.unwrap();
    split.pieces.into_iter().map(|(piece, _)| (piece.line, piece.wrong.map(|error| error.code))).collect()
}

#[test]
fn a_file_of_another_kind_is_told_for_what_it_is() {
    let archive: [&[u8]; 6] = [
        b"PK\x03\x04...",
        b"\x1f\x8b\x08",
        b"%PDF-1.7",
        b"\xd0\xcf\x11\xe0",
        b"<!DOCTYPE html><html>",
        b"\n<HTML>",
    ];
    for file in archive {
        assert_eq!(first_error("[csv]", file).code, Code::NotText);
    }
}

#[test]
fn another_encoding_than_the_layouts_is_an_error() {
    assert_eq!(first_error("[csv]", b"\xff\xfea\0,\0b\0").code, Code::WrongEncoding);
    assert_eq!(first_error("[csv]", b"a\0,\0b\0\n\0").code, Code::WrongEncoding);
    assert_eq!(
        first_error("encoding = \"windows-1252\"\n[csv]", b"\xef\xbb\xbfa,b\n").code,
        Code::WrongEncoding
    );
    let split = split(&layout("[csv]"), b"a,b\ncaf\xe9,2\n1,2\n", 4096);
    let read = |document: &Vec<u8>| Format::Csv.decode(document, None, &Limits::default());
    assert_eq!(read(&split.pieces[0].1).unwrap_err().code, Code::WrongEncoding);
    assert!(read(&split.pieces[1].1).is_ok());
    let trees = trees(&layout("encoding = \"windows-1252\"\n[csv]"), b"a,b\ncaf\xe9,\x80\n");
    assert_eq!((text(&trees[0], &["a"]), text(&trees[0], &["b"])), ("café".into(), "€".into()));
}

#[test]
fn a_byte_order_mark_in_the_middle_is_an_error() {
    assert_eq!(first_error("[csv]", b"a,b\n1,2\n\xef\xbb\xbfa,b\n3,4\n").code, Code::WrongEncoding);
    assert_eq!(wrongs("[csv]", b"a,b\n1,\xef\xbb\xbf2\n3,4\n"), [(2, Some(Code::WrongRecord)), (3, None)]);
}

#[test]
fn a_quote_that_never_closes_is_told_at_the_line_where_it_opened() {
    let error = first_error("[csv]", b"a,b\n1,2\n3,\"4\n5,6\n7,8\n");
    assert_eq!(
        (error.code, error.at.map(|place| (place.line, place.column))),
        (Code::MalformedCsv, Some((3, 3)))
    );
    let long = [&b"a,b\n1,\"2\n"[..], &b"3,4\n".repeat(400_000)].concat();
    assert_eq!(first_error("[csv]", &long).code, Code::MalformedCsv);
}

#[test]
fn a_ragged_row_is_one_wrong_record_and_the_others_go_on() {
    let file = b"a,b\n1,2\n1\n\n1,2,3\n\"x\"y,2\n1,2\x00\n3,4";
    let wrong = Some(Code::WrongRecord);
    assert_eq!(wrongs("[csv]", file), [(2, None), (3, wrong), (5, wrong), (6, wrong), (7, wrong), (8, None)]);
    let wide = [&b"a,b\n"[..], &b"1,".repeat(10_000), b"\n1,2\n"].concat();
    assert_eq!(wrongs("[csv]", &wide), [(2, wrong), (3, None)]);
    let names: Vec<String> = (0..10_000).map(|number| format!("c{number}")).collect();
    assert_eq!(first_error("[csv]", (names.join(",") + "\n1\n").as_bytes()).code, Code::DocumentTooLarge);
    let long = [&b"a,b\n1,"[..], &b"x".repeat(2 << 20), b"\n"].concat();
    assert_eq!(first_error("[csv]", &long).code, Code::DocumentTooLarge);
}

#[test]
fn a_file_with_only_its_header_has_no_records_and_an_empty_one_no_header() {
    assert_eq!(wrongs("[csv]", b"a,b\r\n"), []);
    assert_eq!(wrongs("[csv]", b"a,b"), []);
    assert_eq!(first_error("[csv]", b"").code, Code::MalformedCsv);
    assert_eq!(wrongs("[csv]\nheader_rows = 0\ncolumns = [\"a\"]", b""), []);
}

#[test]
fn a_column_that_was_renamed_is_missed_and_one_that_is_there_twice_refused() {
    let error = first_error("[csv]\ncolumns = [\"CHILD\", \"DOB\"]", b"CHILD,BIRTH\n1,2\n");
    assert_eq!(error.code, Code::ColumnsDiffer);
    assert!(error.what.contains("`DOB`"), "{error}");
    assert_eq!(first_error("[csv]", b"a,a\n1,2\n").code, Code::ColumnsDiffer);
}

#[test]
fn columns_may_be_named_by_one_of_several_header_rows_or_by_the_layout() {
    let file = b"CORE 2026,\nid,name\n1,2\n7,x\n";
    let by_row = trees(&layout("[csv]\nheader_rows = 3\nnames_row = 2"), file);
    assert_eq!(text(&by_row[0], &["name"]), "x");
    let by_layout =
        trees(&layout("[csv]\nheader_rows = 3\nnames = \"layout\"\ncolumns = [\"one\", \"two\"]"), file);
    assert_eq!(text(&by_layout[0], &["one"]), "7");
}

#[test]
fn a_line_of_the_wrong_width_or_of_no_known_kind_is_one_wrong_record() {
    let wrong = Some(Code::WrongRecord);
    let file = b"H0007     \nDann 00012\nDbob 0003\nNnote     \nXxxx      \nDcid 00001\nT000300013\n";
    let layout = layout(DETAILS);
    let split = split(&layout, file, 4096);
    let found: Vec<(u64, Option<Code>)> = split
        .pieces
        .iter()
        .map(|(piece, _)| (piece.line, piece.wrong.as_ref().map(|error| error.code)))
        .collect();
    assert_eq!(found, [(2, None), (3, wrong), (5, wrong), (6, None)]);
    assert!(split.pieces[1].0.bytes.ends_with(b"Nnote     \n"));
    // A sum with a wrong record in it cannot be checked; the count can.
    assert_eq!(split.end.unwrap().unchecked, ["sum of the amounts"]);
    let orphan = self::split(&layout, b"H0007     \nNnote     \nT000000000\n", 4096);
    assert_eq!(orphan.pieces[0].0.wrong.as_ref().map(|error| error.code), wrong);
    assert_eq!(self::split(&layout, b"H007     \n", 4096).end.unwrap_err().code, Code::WrongRecord);
}

#[test]
fn records_without_line_ends_follow_each_other_by_their_width() {
    let none = DETAILS.replace("\"lf\"", "\"none\"");
    let file = b"H0007     Dann 00012Dbob 00030T000200042";
    assert_eq!(trees(&layout(&none), file).len(), 2);
    assert_eq!(trees(&layout(&none), &[&file[..], b"\r\n\x1a"].concat()).len(), 2);
    assert_eq!(first_error(&none, &file[..37]).code, Code::FileCutOff);
}

const NAMES: &str = r#"
[fixed]
unit = "UNIT"
line_end = "lf"
[[records]]
name = "person"
fields = [ { name = "name", from = 1, to = 5 }, { name = "number", from = 6, to = 8, align = "right", fill = "0" }, { name = "kind", from = 9, to = 10, value = "99" } ]
"#;

#[test]
fn positions_count_bytes_or_characters_as_the_layout_says() {
    let characters = layout(&NAMES.replace("UNIT", "characters"));
    let tree = &trees(&characters, "Zoë  00799\n".as_bytes())[0];
    assert_eq!((text(tree, &["name"]), text(tree, &["number"])), ("Zoë".into(), "7".into()));
    let bytes = layout(&NAMES.replace("UNIT", "bytes"));
    let tree = &trees(&bytes, "Zoë 00799\n".as_bytes())[0];
    assert_eq!((text(tree, &["name"]), text(tree, &["number"])), ("Zoë".into(), "7".into()));
    let wrong = split(&bytes, "Zoë  00799\n".as_bytes(), 64).pieces.remove(0).0.wrong;
    assert_eq!(wrong.map(|error| error.code), Some(Code::WrongRecord));
    let latin = layout(&format!("encoding = \"windows-1252\"\n{}", NAMES.replace("UNIT", "bytes")));
    assert_eq!(text(&trees(&latin, b"Zo\xeb  00799\n")[0], &["name"]), "Zoë");
    let other = Format::Fixed.read(b"Zoe  00798\n", None, Some(&latin), &Limits::default());
    assert_eq!(other.unwrap_err().code, Code::WrongRecord);
}

fn record(fields: &[(&str, &str)]) -> Tree {
    Tree::Record(fields.iter().map(|(name, text)| (Name::plain(*name), Tree::text(*text))).collect())
}

#[test]
fn what_does_not_fit_or_cannot_be_written_is_refused() {
    let latin = layout(&format!("encoding = \"windows-1252\"\n{}", NAMES.replace("UNIT", "bytes")));
    let code = |layout: &Layout, fields| layout.write_record("", &record(fields)).unwrap_err().code;
    assert_eq!(
        latin.write_record("", &record(&[("name", "Zoë"), ("number", "7")])).unwrap(),
        b"Zo\xeb  00799\n"
    );
    assert_eq!(code(&latin, &[("name", "Zoë-Mae")]), Code::TextTooLong);
    assert_eq!(code(&latin, &[("name", "日")]), Code::CannotWrite);
    assert_eq!(code(&latin, &[("name", "a\nb")]), Code::CannotWrite);
    assert_eq!(code(&latin, &[("nmae", "a")]), Code::CannotWrite);
    assert_eq!(code(&latin, &[("kind", "98")]), Code::CannotWrite);
    let bare = layout("[csv]\ncolumns = [\"a\", \"b\"]\nwrite = { quote = \"never\" }");
    assert_eq!(code(&bare, &[("a", "x,y")]), Code::CannotWrite);
    assert_eq!(code(&bare, &[("c", "x")]), Code::CannotWrite);
    let always = layout(
        "[csv]\ncolumns = [\"a\", \"b\"]\nwrite = { quote = \"always\", line_end = \"lf\", bom = true }",
    );
    assert_eq!(always.write_head(), b"\xef\xbb\xbf\"a\",\"b\"\n");
    assert_eq!(always.write_record("", &record(&[("b", "1\"")])).unwrap(), b"\"\",\"1\"\"\"\n");
}

#[test]
fn what_is_written_is_read_again_as_it_was() {
    let mut random = Random::new(29);
    let csv = layout("[csv]\ncolumns = [\"a\", \"b\", \"c d\"]\n");
    let fixed = layout(&NAMES.replace("UNIT", "characters"));
    let pieces = ["x", ",", "\"", "\r\n", "\n", " ", "é", "0", "日", "'", ";"];
    for _ in 0..500 {
        let mut make = |most: u64| -> String {
            let count = random.between(0, most);
            (0..count).map(|_| pieces[random.between(0, 10) as usize]).collect()
        };
        let tree = record(&[("a", &make(6)), ("b", &make(6)), ("c d", &make(6))]);
        let file = [csv.write_head(), csv.write_record("", &tree).unwrap()].concat();
        assert_eq!(trees(&csv, &file), [tree]);
        let name: String = make(5).replace(['\r', '\n'], "").trim_end().chars().take(5).collect();
        let tree = record(&[("name", name.trim_end()), ("number", "12"), ("kind", "99")]);
        let line = fixed.write_record("person", &tree).unwrap();
        if !name.trim().is_empty() {
            assert_eq!(trees(&fixed, &line), [tree]);
        }
    }
}

/// A mapping in both directions beside a layout, as a project of its own.
fn project(format: &str, layout: &str, document: &str) -> crate::support::Folder {
    let folder = crate::support::Folder::new();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    for part in ["mappings/events", "mappings/layouts", "mappings/demo"] {
        std::fs::create_dir_all(folder.0.join(part)).unwrap();
    }
    for file in ["payment.cancelled.v1.schema.json", "payment.cancelled.v1.example.json"] {
        let file = std::path::Path::new("mappings/events").join(file);
        std::fs::copy(root.join(&file), folder.0.join(&file)).unwrap();
    }
    let mapping = format!(
        r#"
version = 1
about = "A cancelled payment as a record."
event = "payment.cancelled.v1"
document = {{ format = "{format}", layout = "demo" }}
fields = [
  {{ event = "payment_id", document = "payment" }},
  {{ event = "provider", document = "provider" }},
  {{ event = "provider_reference", document = "their reference" }},
  {{ event = "reference", document = "reference", text = {{ max = 30 }} }},
  {{ event = "amount", document = "amount", money = "pence" }},
  {{ event = "currency", constant = "GBP" }},
  {{ event = "cancelled_by", document = "by" }},
  {{ event = "cancelled_at", document = "at", time = {{ pattern = "rfc3339" }} }},
]
"#
    )
    .replace("\"their reference\"", "\"'their reference'\"");
    let event = r#"{"provider":"govuk-pay","provider_reference":"m2h6","reference":"Café 7","amount":7000,"currency":"GBP","cancelled_by":"service","cancelled_at":"2026-11-25T08:30:11Z"}"#;
    let cases = format!(
        "version = 1\n[[case]]\nname = \"a cancelled payment\"\nevent = '{event}'\ndocument = \"\"\"\n{document}\"\"\"\n"
    );
    let layout = format!("version = 1\nabout = \"A layout for the test.\"\n{layout}");
    std::fs::write(folder.0.join("mappings/layouts/demo.toml"), layout).unwrap();
    std::fs::write(folder.0.join("mappings/demo/cancelled.toml"), mapping).unwrap();
    std::fs::write(folder.0.join("mappings/demo/cancelled.cases.toml"), cases).unwrap();
    folder
}

fn tested(folder: &crate::support::Folder) -> (bool, String) {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_packhorse"))
        .current_dir(&folder.0)
        .env("NO_COLOR", "1")
        .arg("test")
        .output()
        .unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

const RUN: &str = r#"
encoding = "windows-1252"
[fixed]
[[records]]
name = "item"
fields = [
  { name = "kind", from = 1, to = 1, value = "C" },
  { name = "payment", from = 2, to = 37 },
  { name = "provider", from = 38, to = 77 },
  { name = "their reference", from = 78, to = 177 },
  { name = "reference", from = 178, to = 207 },
  { name = "amount", from = 208, to = 217, align = "right", fill = "0" },
  { name = "by", from = 218, to = 224 },
  { name = "at", from = 225, to = 259 },
]
"#;

#[test]
fn mappings_of_csv_and_of_fixed_width_keep_their_laws_through_the_bytes() {
    let csv = "encoding = \"windows-1252\"\n[csv]\ncolumns = [\"payment\", \"provider\", \"their reference\", \"reference\", \"amount\", \"by\", \"at\"]\n";
    let row = "payment,provider,their reference,reference,amount,by,at\n,govuk-pay,m2h6,Café 7,7000,service,2026-11-25T08:30:11Z\n";
    let (fine, text) = tested(&project("csv", csv, row));
    assert!(fine && text.contains("0 wrong"), "{text}");
    let line = format!(
        "C{:36}{:40}{:100}{:30}{:0>10}{:7}{:35}\n",
        "", "govuk-pay", "m2h6", "Café 7", "7000", "service", "2026-11-25T08:30:11Z"
    );
    let (fine, text) = tested(&project("fixed", RUN, &line));
    assert!(fine && text.contains("0 wrong"), "{text}");
    // An identifier that is filled with zeros loses its own: the laws find it.
    let filled = RUN.replace("from = 178, to = 207", "from = 178, to = 207, align = \"right\", fill = \"z\"");
    let (fine, text) = tested(&project(
        "fixed",
        &filled,
        &line.replace(&format!("{:30}", "Café 7"), &format!("{:z>30}", "Café 7")),
    ));
    assert!(!fine && text.contains("PH0309"), "{text}");
}
