//! Formats, judged by their standards: what RFC 8259 allows is read, everything else is refused with its place; documents
//! beyond a limit cost nothing; what is written is read again as it was.

use packhorse::{
    code::Code,
    format::{Format, Limits, Namespaces, Style, fault, parse_json, write_json},
    tree::{Name, Record, TEXT, Tree},
};

fn json(text: &str) -> Result<Tree, Code> {
    parse_json(text, &Limits::default()).map_err(|error| error.code)
}

fn xml(bytes: &[u8]) -> Result<Tree, Code> {
    Format::Xml.decode(bytes, None, &Limits::default()).map_err(|error| error.code)
}

#[test]
fn what_rfc_8259_allows_is_read() {
    // Section by section: 2 structure, 3 values, 4 objects, 5 arrays, 6 numbers, 7 strings.
    for text in [
        "null",
        " true ",
        "false\n",
        "\t\"x\"\r\n",
        "0",
        "-0",
        "-0.0",
        "1e5",
        "1E+5",
        "1.5e-9",
        "123456789012345678901234567890",
        "{}",
        "[]",
        "[1,2]",
        "[ 1 , 2 ]",
        "{\"a\":1}",
        "{ \"a\" : [ { \"b\" : null } ] }",
        "{\"\":0}",
        "[[],[[]]]",
        "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"",
        "\"\\u0000\"",
        "\"\\u00e9\\u0041\"",
        "\"\\ud83d\\ude00\"",
        "\"\\uD834\\uDD1E\"",
        "\"é😀\"",
        "\"\u{7f}\"",
        "{\"a\":\"b\",\"c\":\"d\"}",
        "[1,null,true,false,\"x\",{}]",
    ] {
        assert!(json(text).is_ok(), "refused: {text}");
    }
    // Section 8.1 lets a reader pass over a byte-order mark; we do.
    assert_eq!(json("\u{feff}{}"), json("{}"));
}

#[test]
fn what_rfc_8259_does_not_allow_is_refused_with_its_place() {
    for text in [
        "",
        " ",
        "nul",
        "True",
        "undefined",
        "NaN",
        "Infinity",
        "-",
        "+1",
        "01",
        "-01",
        "1.",
        ".5",
        "1e",
        "1e+",
        "0x10",
        "1_000",
        "--1",
        "[",
        "]",
        "[1",
        "[1,",
        "[1,]",
        "[,1]",
        "[1 2]",
        "[1,,2]",
        "{",
        "}",
        "{\"a\"",
        "{\"a\":",
        "{\"a\":1",
        "{\"a\":1,",
        "{\"a\":1,}",
        "{a:1}",
        "{'a':1}",
        "{\"a\" 1}",
        "{\"a\":1 \"b\":2}",
        "{1:1}",
        "{\"a\":1}}",
        "\"",
        "\"a",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u12g4\"",
        "\"\\\"",
        "'a'",
        "\"a\nb\"",
        "\"a\tb\"",
        "\"a\u{0}b\"",
        "\"\u{1f}\"",
        "1 2",
        "{} []",
        "// x\n1",
        "/* x */ 1",
        "[1]x",
        "\u{a0}1",
        "\u{feff}\u{feff}1",
        "\u{c}1",
        "[\"a\",\n4\n,1,",
        "{\"a\":\"b\"}#",
    ] {
        let error = parse_json(text, &Limits::default()).expect_err(text);
        assert_eq!(error.code, Code::MalformedJson, "{text}: {error}");
        let place = error.at.expect("a place");
        assert!(place.line >= 1 && place.column >= 1);
    }
    let error = parse_json("{\n  \"a\": 1,\n  \"b\": tru\n}", &Limits::default()).unwrap_err();
    assert_eq!((error.at.unwrap().line, error.at.unwrap().column), (3, 8));
}

#[test]
fn half_a_character_and_a_member_that_occurs_twice_have_codes_of_their_own() {
    for text in ["\"\\ud800\"", "\"\\udc00\"", "\"\\ud800\\u0041\"", "\"\\ud800x\"", "\"\\ud83d\\ud83d\""] {
        assert_eq!(json(text), Err(Code::LoneSurrogate), "{text}");
    }
    assert_eq!(json("{\"a\":1,\"a\":1}"), Err(Code::DuplicateMember));
    assert_eq!(json("{\"a\":{\"b\":1,\"c\":2,\"b\":3}}"), Err(Code::DuplicateMember));
    let many: String = (0..100).map(|n| format!("\"k{n}\":0,")).collect();
    assert_eq!(json(&format!("{{{many}\"k99\":1}}")), Err(Code::DuplicateMember));
    assert!(json(&format!("{{{many}\"k100\":1}}")).is_ok());
}

#[test]
fn digits_of_numbers_survive_as_written() {
    for number in ["10000000000000000999", "1.000000000000000005", "-0.0", "1E400", "62.50"] {
        assert_eq!(write_json(&json(&format!("[{number}]")).unwrap()), format!("[{number}]"));
    }
}

#[test]
fn bombs_of_depth_and_size_are_refused_before_they_cost_anything() {
    let limits =
        Limits { bytes: 1 << 20, depth: 64, values: 1_000, text: 1_000, attributes: 8, namespaces: 8 };
    let json = |text: &str| Format::Json.decode(text.as_bytes(), None, &limits).unwrap_err().code;
    let xml = |text: &str| Format::Xml.decode(text.as_bytes(), None, &limits).unwrap_err().code;
    assert_eq!(json(&"[".repeat(100_000)), Code::DocumentTooLarge);
    assert_eq!(json(&"{\"a\":".repeat(100_000)), Code::DocumentTooLarge);
    assert_eq!(json(&format!("[{}1]", "1,".repeat(2_000))), Code::DocumentTooLarge);
    assert_eq!(json(&format!("\"{}\"", "x".repeat(2_000))), Code::DocumentTooLarge);
    assert_eq!(json(&" ".repeat(2 << 20)), Code::DocumentTooLarge);
    assert_eq!(xml(&"<a>".repeat(100_000)), Code::DocumentTooLarge);
    assert_eq!(xml(&format!("<a>{}</a>", "<b/>".repeat(2_000))), Code::DocumentTooLarge);
    assert_eq!(xml(&format!("<a>{}</a>", "x".repeat(2_000))), Code::DocumentTooLarge);
    let attributes: String = (0..20).map(|n| format!(" a{n}=\"1\"")).collect();
    assert_eq!(xml(&format!("<a{attributes}/>")), Code::DocumentTooLarge);
    let spaces: String = (0..20).map(|n| format!(" xmlns:n{n}=\"u{n}\"")).collect();
    assert!(Format::Xml.decode(format!("<a{spaces}/>").as_bytes(), None, &limits).is_err());
}

#[test]
fn dtds_and_entities_are_refused_whatever_they_would_do() {
    let bomb = "<?xml version=\"1.0\"?><!DOCTYPE l [<!ENTITY a \"ha\"><!ENTITY b \"&a;&a;&a;\">]><l>&b;</l>";
    assert_eq!(xml(bomb.as_bytes()), Err(Code::DtdRefused));
    let file = "<!DOCTYPE l [<!ENTITY a SYSTEM \"file:///etc/passwd\">]><l>&a;</l>";
    assert_eq!(xml(file.as_bytes()), Err(Code::DtdRefused));
    assert_eq!(xml(b"<l>&nbsp;</l>"), Err(Code::EntityRefused));
    assert_eq!(xml(b"<l a=\"&nbsp;\"/>"), Err(Code::EntityRefused));
    assert_eq!(
        xml(b"<l>&lt;&amp;&#65;&#x42;</l>"),
        Ok(Tree::Record(Record::from_iter([(Name::plain("l"), Tree::text("<&AB"))])))
    );
}

#[test]
fn the_encoding_is_found_out_and_believed_in_the_order_of_the_standards() {
    let text = "<?xml version=\"1.0\" encoding=\"windows-1252\"?><a>caf\u{e9} \u{2013} \u{a3}5</a>";
    let (bytes, _, lossy) = encoding_rs::WINDOWS_1252.encode(text);
    assert!(!lossy);
    let expected = Tree::text("café – £5");
    let inside = |tree: Tree| tree.as_record().unwrap().entries()[0].1.clone();
    assert_eq!(inside(xml(&bytes).unwrap()), expected);
    // What the transport says counts more than the declaration.
    let utf8 = Format::Xml.decode(text.as_bytes(), Some("utf-8"), &Limits::default()).unwrap();
    assert_eq!(inside(utf8), expected);
    let utf16: Vec<u8> =
        [0xFEFF].into_iter().chain("<a>é</a>".encode_utf16()).flat_map(u16::to_le_bytes).collect();
    assert_eq!(inside(xml(&utf16).unwrap()), Tree::text("é"));
    assert_eq!(xml(b"<a>\xe9</a>"), Err(Code::WrongEncoding));
    assert_eq!(xml(b"<?xml version='1.0' encoding='klingon'?><a/>"), Err(Code::WrongEncoding));
    let json = Format::Json.decode(b"\"\xe9\"", None, &Limits::default()).unwrap_err();
    assert_eq!(json.code, Code::WrongEncoding);
    assert_eq!(
        Format::Json.decode(b"\"\xe9\"", Some("iso-8859-1"), &Limits::default()).unwrap(),
        Tree::text("é")
    );
}

#[test]
fn an_encoding_that_lacks_a_character_refuses_it_and_replaces_nothing() {
    let style = Style { charset: Some(encoding_rs::WINDOWS_1252), ..Style::default() };
    let document = |text: &str| Tree::Record(Record::from_iter([(Name::plain("a"), Tree::text(text))]));
    let bytes = Format::Xml.encode(&document("café – £5"), &style).unwrap();
    assert_eq!(xml(&bytes).unwrap(), document("café – £5"));
    let error = Format::Xml.encode(&document("Ž 日"), &style).unwrap_err();
    assert_eq!(error.code, Code::CannotWrite);
    assert!(error.what.contains("U+65E5"), "{error}");
}

#[test]
fn xml_keeps_what_counts_and_says_it_again() {
    let source = "<?xml version=\"1.0\"?>\n<o xmlns=\"urn:o\" xmlns:p=\"urn:p\" id=\"7\">\n  <p:a>1</p:a><p:a>2</p:a><b p:x=\"y\"> t </b>\n  <c><![CDATA[<raw> & ]]></c><d/><e xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" xsi:nil=\"true\"/></o>";
    let tree = xml(source.as_bytes()).unwrap();
    let root = tree.as_record().unwrap().entries()[0].1.as_record().unwrap();
    let texts: Vec<(String, Option<String>)> =
        root.entries().iter().map(|(name, tree)| (name.to_string(), tree.to_plain_text())).collect();
    let expected = [
        ("@id", Some("7")),
        ("{urn:p}a", Some("1")),
        ("{urn:p}a", Some("2")),
        ("{urn:o}b", Some(" t ")),
        ("{urn:o}c", Some("<raw> & ")),
        ("{urn:o}d", Some("")),
        ("{urn:o}e", None),
    ];
    assert_eq!(texts, expected.map(|(name, text)| (name.to_owned(), text.map(str::to_owned))).to_vec());
    assert_eq!(root.get_local("b").unwrap().as_record().unwrap().get_plain(TEXT), Some(&Tree::text(" t ")));
    let style =
        Style { namespaces: Namespaces::from_iter([("", "urn:o"), ("q", "urn:p")]), ..Style::default() };
    let again = Format::Xml.encode(&tree, &style).unwrap();
    assert_eq!(xml(&again).unwrap(), tree, "{}", String::from_utf8_lossy(&again));
}

#[test]
fn what_xml_cannot_hold_is_refused_in_writing() {
    let write = |name: &str, text: &str| {
        Format::Xml.encode(
            &Tree::Record(Record::from_iter([(Name::plain(name), Tree::text(text))])),
            &Style::default(),
        )
    };
    assert_eq!(write("a", "x\u{0}y").unwrap_err().code, Code::CannotWrite);
    assert_eq!(write("a", "x\u{b}y").unwrap_err().code, Code::CannotWrite);
    assert_eq!(write("not a name", "x").unwrap_err().code, Code::CannotWrite);
    let text = "]]> & < \r\n\t \" ' \u{1F600}";
    let bytes = write("a", text).unwrap();
    assert_eq!(xml(&bytes).unwrap().as_record().unwrap().entries()[0].1, Tree::text(text));
}

#[test]
fn soap_gives_the_element_in_the_body_and_knows_faults_of_both_versions() {
    let one = br#"<e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/"><e:Header><h/></e:Header><e:Body><r xmlns="u">1</r></e:Body></e:Envelope>"#;
    let tree = Format::Soap11.decode(one, None, &Limits::default()).unwrap();
    assert_eq!(tree.as_record().unwrap().entries()[0].0.to_string(), "{u}r");
    assert_eq!(fault(&tree), None);
    let fault_11 = br#"<e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/"><e:Body><e:Fault><faultcode>e:Client</faultcode><faultstring xml:lang="en">no</faultstring></e:Fault></e:Body></e:Envelope>"#;
    let found = fault(&Format::Soap11.decode(fault_11, None, &Limits::default()).unwrap()).unwrap();
    assert_eq!((found.code.as_str(), found.reason.as_str()), ("Client", "no"));
    let fault_12 = br#"<e:Envelope xmlns:e="http://www.w3.org/2003/05/soap-envelope"><e:Body><e:Fault><e:Code><e:Value>e:Receiver</e:Value></e:Code><e:Reason><e:Text xml:lang="en">down</e:Text></e:Reason></e:Fault></e:Body></e:Envelope>"#;
    let found = fault(&Format::Soap12.decode(fault_12, None, &Limits::default()).unwrap()).unwrap();
    assert_eq!((found.code.as_str(), found.reason.as_str()), ("Receiver", "down"));
    for (wrong, bytes) in [
        ("no envelope", &b"<a/>"[..]),
        ("another namespace", b"<Envelope><Body/></Envelope>"),
        ("no body", br#"<e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/"/>"#),
        ("an empty body", br#"<e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/"><e:Body> </e:Body></e:Envelope>"#),
    ] {
        assert_eq!(Format::Soap11.decode(bytes, None, &Limits::default()).unwrap_err().code, Code::NotSoap, "{wrong}");
    }
}

#[test]
fn forms_are_read_and_written_as_browsers_do() {
    let tree = Format::Form.decode(b"a=1+2&b=%C3%A9%26&a=x&empty=&flag", None, &Limits::default()).unwrap();
    let pairs: Vec<(&str, &str)> = tree
        .as_record()
        .unwrap()
        .entries()
        .iter()
        .map(|(name, tree)| (name.local.as_str(), tree.as_text().unwrap()))
        .collect();
    assert_eq!(pairs, [("a", "1 2"), ("b", "é&"), ("a", "x"), ("empty", ""), ("flag", "")]);
    let again = Format::Form.encode(&tree, &Style::default()).unwrap();
    assert_eq!(String::from_utf8(again).unwrap(), "a=1+2&b=%C3%A9%26&a=x&empty=&flag=");
    for wrong in [&b"a=%"[..], b"a=%4", b"a=%zz", b"a=%ff"] {
        assert_eq!(
            Format::Form.decode(wrong, None, &Limits::default()).unwrap_err().code,
            Code::MalformedForm
        );
    }
}

#[test]
fn trees_of_every_shape_come_back_from_json_as_they_went() {
    let mut random = packhorse::mapping::generate::Random::new(7);
    for _ in 0..2_000 {
        let tree = shape(&mut random, 0);
        assert_eq!(json(&write_json(&tree)).unwrap(), tree);
    }
}

fn shape(random: &mut packhorse::mapping::generate::Random, depth: u32) -> Tree {
    let text = |random: &mut packhorse::mapping::generate::Random| -> String {
        (0..random.between(0, 6))
            .map(|_| char::from_u32(random.between(0, 0x11_0000) as u32).unwrap_or('\u{0}'))
            .collect()
    };
    match random.between(0, if depth < 5 { 6 } else { 4 }) {
        0 => Tree::Null,
        1 => Tree::Bool(random.one_in(2)),
        2 => Tree::integer(random.bits() as i64),
        3 => Tree::number(format!(
            "{}.{}e{}",
            random.between(0, 99),
            random.between(0, 99),
            random.between(0, 20)
        )),
        4 => Tree::text(text(random)),
        5 => Tree::List((0..random.between(0, 4)).map(|_| shape(random, depth + 1)).collect()),
        _ => {
            let mut record = Record::new();
            for n in 0..random.between(0, 5) {
                let name = format!("{n}{}", text(random));
                record.set(&name, shape(random, depth + 1));
            }
            Tree::Record(record)
        }
    }
}

#[test]
fn no_bytes_whatever_make_a_reader_panic() {
    let seeds: [&[u8]; 5] = [
        br#"{"a":[1,2.5e3,"x\u00e9\ud83d\ude00",null,true],"b":{"c":""}}"#,
        br#"<?xml version="1.0" encoding="utf-8"?><a xmlns:p="u" p:b="c">t<p:d/><![CDATA[x]]>&amp;&#65;</a>"#,
        br#"<e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/"><e:Body><r/></e:Body></e:Envelope>"#,
        b"a=1&b=%20+c",
        b"\xff\xfe<\0a\0/\0>\0",
    ];
    let formats = [Format::Json, Format::Xml, Format::Soap11, Format::Soap12, Format::Form];
    let mut random = packhorse::mapping::generate::Random::new(11);
    for round in 0..20_000 {
        let mut bytes = seeds[round % seeds.len()].to_vec();
        for _ in 0..random.between(1, 6) {
            let at = random.between(0, bytes.len().saturating_sub(1) as u64) as usize;
            match random.between(0, 3) {
                0 => bytes[at] = random.bits() as u8,
                1 => bytes.truncate(at),
                2 => bytes.insert(at, random.bits() as u8),
                _ => {
                    let piece = bytes[at..].to_vec();
                    bytes.extend(piece);
                }
            }
            if bytes.is_empty() {
                break;
            }
        }
        for format in formats {
            if let Ok(tree) = format.decode(&bytes, None, &Limits::default()) {
                let _ = format.encode(&tree, &Style::default());
            }
        }
    }
}

/// `packhorse test --json` of a project: what it says of each mapping, and how it ends.
fn tested(folder: &std::path::Path, more: &[&str]) -> (Vec<serde_json::Value>, Option<i32>) {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_packhorse"))
        .current_dir(folder)
        .args([&["test", "--json"], more].concat())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    (text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), output.status.code())
}

#[test]
fn every_mapping_keeps_its_laws_on_most_events_that_a_seed_makes() {
    let root = crate::support::root();
    for seed in ["1", "20261123"] {
        let (mappings, ended) = tested(&root, &["--seed", seed]);
        assert_eq!(ended, Some(0), "{mappings:?}");
        for mapping in mappings {
            let (generated, passed) = (mapping["generated"].as_u64(), mapping["passed"].as_u64());
            assert!(passed.unwrap() * 2 >= generated.unwrap(), "{mapping}");
            assert!(mapping["warning"].is_null(), "{mapping}");
        }
    }
    let again = || tested(&root, &["--seed", "7", "capita-scp/invoke"]).0;
    assert_eq!(again(), again(), "the same seed makes the same events");
}

#[test]
fn a_mapping_that_refuses_most_of_what_is_generated_is_warned_about() {
    let work = crate::support::Folder::new();
    for part in ["adapters", "mappings"] {
        crate::support::copy(&crate::support::root().join(part), &work.0.join(part));
    }
    work.write("packhorse.toml", std::fs::read(crate::support::root().join("packhorse.toml")).unwrap());
    // Without a case nobody says what the adapter would compute.
    std::fs::remove_file(work.0.join("mappings/localgov-ims/posting.cases.toml")).unwrap();
    let (mappings, ended) = tested(&work.0, &["localgov-ims/posting"]);
    assert_eq!((mappings[0]["warning"].as_str(), mappings[0]["passed"].as_u64()), (Some("PH0312"), Some(0)));
    assert_eq!(ended, Some(0));
}
