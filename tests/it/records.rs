//! Files of records: split to the byte, read by layouts, written by layouts, and every bad file told apart.

use packhorse::{
    code::Code,
    format::{
        Format, FormatError, Layout, Limits,
        layout::{compile, raw::LayoutFile},
        records::{Piece, Point, RecordLimits, Records, Summary, only},
    },
    tree::Tree,
};
use std::{io::BufReader, sync::Arc};

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
    let limits = RecordLimits::default();
    let reader = BufReader::with_capacity(buffer, file);
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
    let written = Format::Fixed
        .encode(&trees[0], &packhorse::format::Style { layout: Some(layout.clone()), ..Default::default() })
        .unwrap();
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
