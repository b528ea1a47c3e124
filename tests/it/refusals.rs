//! Bad input of every kind ends in a clear error with its code, the message whole where there is one, and disturbs nothing
//! else: events, answers, certificates, settings.

use crate::{
    standins::{
        http::{Answer, Fault, Request, Server},
        ims::Ims,
    },
    support::{Site, copy, crypto, example, root, until},
};
use serde_json::{Value, json};
use std::sync::Arc;

const QUEUE: &str = "packhorse.localgov-ims.post";
const STRUCTURED: &str = "application/cloudevents+json";

async fn site_for(url: &str, more: &str) -> Site {
    Site::new(&format!("[adapters.localgov-ims]\nsettings = {{ base_url = \"{url}\"{more} }}\n")).await
}

fn paid() -> Value {
    let mut data = example("payment.succeeded.v1");
    data["amount"] = json!(6250);
    data["total_amount"] = json!(6250);
    data["lines"] = json!([{ "line_id": "1", "description": "Council tax", "amount": 6250, "fund": "council-tax", "account": "771234561" }]);
    data
}

fn event(id: &str, data: &Value) -> Value {
    json!({ "specversion": "1.0", "id": id, "source": "urn:platform:payments", "type": "payment.succeeded.v1",
            "datacontenttype": "application/json", "data": data })
}

/// An event with one thing changed.
fn but(id: &str, change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut whole = event(id, &paid());
    change(&mut whole);
    whole.to_string().into_bytes()
}

#[tokio::test]
async fn no_bad_event_is_sent_or_lost_or_disturbs_the_next() {
    let ims = Arc::new(Ims::default());
    let server = Server::start(ims.clone(), 0).await.unwrap();
    let site = site_for(&server.url, "").await;
    let bridge = site.start().await;
    let good = event("x", &paid()).to_string();
    let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut gzip, &vec![b' '; 64 << 20]).unwrap();
    let bomb = gzip.finish().unwrap();
    let bad: Vec<(&str, Value, Vec<u8>)> = vec![
        ("PH1101", json!({ "content_type": STRUCTURED }), b"{\"specversion\": \"1.0\",".to_vec()),
        (
            "PH1101",
            json!({ "content_type": STRUCTURED }),
            b"<html><body>We are back soon</body></html>".to_vec(),
        ),
        ("PH1105", json!({ "content_type": STRUCTURED }), [good.as_bytes(), b"\xff\xfe"].concat()),
        ("PH1104", json!({ "content_type": STRUCTURED }), deep.into_bytes()),
        (
            "PH1108",
            json!({ "content_type": STRUCTURED }),
            good.replacen("{\"data\"", "{\"id\":\"y\",\"data\"", 1)
                .replace("{\"amount\":6250,", "{\"amount\":1,\"amount\":6250,")
                .into_bytes(),
        ),
        (
            "PH1109",
            json!({ "content_type": STRUCTURED }),
            good.replace("Council tax", "Council \\ud83d tax").into_bytes(),
        ),
        (
            "PH1101",
            json!({ "content_type": STRUCTURED }),
            good.replace("Council tax", "Council \0 tax").into_bytes(),
        ),
        (
            "PH1005",
            json!({ "content_type": STRUCTURED }),
            good.replace("Council tax", "Council \\u0000 tax").into_bytes(),
        ),
        (
            "PH1002",
            json!({ "content_type": STRUCTURED }),
            but("x", |event| drop(event.as_object_mut().unwrap().remove("id"))),
        ),
        ("PH1003", json!({ "content_type": STRUCTURED }), but(&"i".repeat(10_000), |_| {})),
        (
            "PH1004",
            json!({ "content_type": STRUCTURED }),
            but("a", |event| event["type"] = json!("payment.refused.v1")),
        ),
        (
            "PH1004",
            json!({ "content_type": STRUCTURED }),
            but("b", |event| event["type"] = json!("payment.succeeded.v9")),
        ),
        (
            "PH1005",
            json!({ "content_type": STRUCTURED }),
            but("c", |event| event["data"]["amount"] = json!("6250")),
        ),
        (
            "PH1005",
            json!({ "content_type": STRUCTURED }),
            but("d", |event| drop(event["data"].as_object_mut().unwrap().remove("provider_reference"))),
        ),
        (
            "PH1005",
            json!({ "content_type": STRUCTURED }),
            but("e", |event| event["data"]["total_amount"] = json!(6251)),
        ),
        (
            "PH1006",
            json!({ "content_type": "application/cloudevents-batch+json" }),
            format!("[{good}]").into_bytes(),
        ),
        ("PH1007", json!({ "content_type": "application/cloudevents+avro" }), b"\x00\x01\x02".to_vec()),
        ("PH1001", json!({ "content_type": "application/xml" }), b"<event/>".to_vec()),
        ("PH1001", json!({}), b"\x03\x04\x05".to_vec()),
        (
            "PH1010",
            json!({ "content_type": STRUCTURED, "content_encoding": "br" }),
            good.clone().into_bytes(),
        ),
        ("PH1104", json!({ "content_type": STRUCTURED, "content_encoding": "gzip" }), bomb),
        (
            "PH1204",
            json!({ "content_type": STRUCTURED }),
            but("f", |event| event["data"]["lines"][0]["fund"] = json!("cemeteries")),
        ),
        (
            "PH1205",
            json!({ "content_type": STRUCTURED }),
            but("g", |event| event["data"]["lines"][0]["account"] = json!("771234571")),
        ),
    ];
    for (_, properties, body) in &bad {
        let mut properties = properties.clone();
        properties["delivery_mode"] = json!(2);
        assert!(site.vhost.publish("", QUEUE, properties, body).await);
    }
    // A field that nobody knows is no fault: v1 is open.
    let whole = but("good", |event| event["data"]["colour"] = json!("blue"));
    site.vhost.publish("", QUEUE, json!({ "content_type": STRUCTURED, "delivery_mode": 2 }), &whole).await;
    site.vhost.until("platform", 1).await;
    let dead = site.dead(bad.len()).await;
    assert_eq!(dead.len(), bad.len());
    let mut wrong = Vec::new();
    for (letter, (code, _, body)) in dead.iter().zip(&bad) {
        assert_eq!(&letter.body, body, "whole, byte for byte");
        if letter.header("packhorse_code") != *code {
            let text: String = String::from_utf8_lossy(body).chars().take(60).collect();
            let (got, what) = (letter.header("packhorse_code"), letter.header("packhorse_what"));
            wrong.push(format!("{code} wanted, {got} {what}: {text}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(ims.rows().len(), 1);
    assert!(bridge.stop().await);
    let account = site.account("localgov-ims.post").await;
    assert_eq!((&account["dead"], &account["delivered"]), (&json!(bad.len()), &json!(1)));
    // Every one of them can be looked at and discarded, and the account still closes.
    let list = site.good(&["dead-letters", "list", "--limit", "100"]).await;
    assert!(list.contains(&format!("{} shown of {}", bad.len(), bad.len())), "{list}");
    site.good(&[
        "dead-letters",
        "discard",
        "--route",
        "localgov-ims.post",
        "--by",
        "tester",
        "--reason",
        "a test",
    ])
    .await;
    assert_eq!(site.vhost.depth("packhorse.dead").await, 0);
    assert_eq!(site.account("localgov-ims.post").await["discarded"], json!(bad.len()));
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_a_flood_is_not_read() {
    let ims = Arc::new(Ims::default());
    let server = Server::start(ims.clone(), 0).await.unwrap();
    server.misbehave("POST", "/api", Fault::Redirect, 1);
    let site = site_for(&server.url, "").await;
    let bridge = site.start().await;
    site.vhost.say("payment.succeeded.v1", "event-1", &paid()).await;
    let dead = site.dead(1).await;
    assert_eq!(dead[0].header("packhorse_code"), "PH2009");
    assert!(
        server.requests("GET", "/elsewhere").is_empty() && server.requests("POST", "/elsewhere").is_empty()
    );
    // More than the adapter lets an answer be: nobody knows what it said, so it is asked.
    server.misbehave("POST", "/api", Fault::Flood(40 << 20), 1);
    let mut data = paid();
    data["provider_reference"] = json!("another-reference");
    site.vhost.say("payment.succeeded.v1", "event-2", &data).await;
    site.vhost.until("platform", 1).await;
    assert_eq!(ims.rows().len(), 1);
    assert_eq!(server.requests("GET", "/api").len(), 1);
    assert!(bridge.stop().await);
}

#[tokio::test]
async fn a_system_that_never_answers_is_given_up_waiting_for_and_asked() {
    let ims = Arc::new(Ims::default());
    let server = Server::start(ims.clone(), 0).await.unwrap();
    server.misbehave("POST", "/api", Fault::HangAfter, 1);
    let site = site_for(&server.url, "").await;
    site.edit("adapters/localgov-ims.toml", "timeout = \"30s\"", "timeout = \"1s\"");
    let bridge = site.start().await;
    site.vhost.say("payment.succeeded.v1", "event-1", &paid()).await;
    site.vhost.until("platform", 1).await;
    assert_eq!((ims.rows().len(), server.requests("POST", "/api").len()), (1, 1));
    assert!(bridge.stop().await);
}

/// An authority, and a certificate of it for `localhost` that holds from and until these years.
fn certificate(from: i32, until: i32) -> (String, Arc<rustls::ServerConfig>) {
    crypto();
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = rcgen::CertifiedIssuer::self_signed(authority, authority_key).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut own = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    own.not_before = rcgen::date_time_ymd(from, 1, 1);
    own.not_after = rcgen::date_time_ymd(until, 1, 1);
    let own = own.signed_by(&key, &authority).unwrap();
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![own.der().clone()], key.serialize_der().try_into().unwrap())
        .unwrap();
    (authority.pem(), Arc::new(config))
}

#[tokio::test]
async fn a_certificate_that_expired_or_is_not_trusted_stops_nothing_but_its_route_and_is_told() {
    for (from, until_year, trusted, wanted) in
        [(2020, 2021, true, false), (2020, 2040, false, false), (2020, 2040, true, true)]
    {
        let (authority, tls) = certificate(from, until_year);
        let ims = Arc::new(Ims::default());
        let server = Server::start_at(ims.clone(), ([127, 0, 0, 1], 0).into(), Some(tls)).await.unwrap();
        let site = site_for(&server.url, "").await;
        let path = site.folder.write("authority.pem", authority);
        if trusted {
            site.edit(
                "packhorse.toml",
                "settings = { base_url",
                &format!("settings = {{ ca = \"{}\", base_url", path.display()),
            );
        }
        let bridge = site.start().await;
        site.vhost.say("payment.succeeded.v1", "event-1", &paid()).await;
        if wanted {
            site.vhost.until("platform", 1).await;
        } else {
            until("the message waits for a better certificate", async || {
                (site.vhost.depth("packhorse.retry.5s").await == 1).then_some(())
            })
            .await;
            let (code, out, err) = site.command(&["doctor"]).await;
            assert_ne!(code, 0);
            assert!(format!("{out}{err}").contains("PH2008"), "{out}{err}");
        }
        assert_eq!(ims.rows().len(), usize::from(wanted));
        assert!(bridge.stop().await);
    }
}

#[tokio::test]
async fn a_login_that_is_refused_waits_for_a_better_one() {
    let refusing = |request: &Request| match request.header("authorization") {
        Some("Basic Z2F0ZTpuZXc=") => Answer::empty(404),
        _ => Answer::empty(401),
    };
    let server = Server::start(Arc::new(refusing), 0).await.unwrap();
    let site = site_for(
        &server.url,
        ", gateway_user = \"gate\", gateway_password = \"file:$FOLDER/secrets/broker\"",
    )
    .await;
    let bridge = site.start().await;
    site.vhost.say("payment.succeeded.v1", "event-1", &paid()).await;
    server.until("POST", "/api", 1).await;
    until("the message waits", async || (site.vhost.depth("packhorse.retry.5s").await == 1).then_some(()))
        .await;
    assert!(bridge.stop().await);
    let account = site.account("localgov-ims.post").await;
    assert_eq!((&account["waiting"], &account["dead"]), (&json!(1), &json!(0)));
}

/// Each folder below `tests/golden` is a project with something wrong; `packhorse check` says exactly this of it.
#[test]
fn what_is_wrong_in_the_files_is_told_with_its_place_and_a_remedy() {
    let goldens = root().join("tests/golden");
    let mut wrong = Vec::new();
    let mut folders: Vec<_> =
        std::fs::read_dir(&goldens).unwrap().flatten().map(|entry| entry.path()).collect();
    folders.sort();
    assert!(folders.len() >= 8, "{folders:?}");
    for folder in folders {
        let work = crate::support::Folder::new();
        for part in ["adapters", "mappings"] {
            copy(&root().join(part), &work.0.join(part));
        }
        copy(&folder, &work.0);
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_packhorse"))
            .current_dir(&work.0)
            .env("NO_COLOR", "1")
            .arg("check")
            .output()
            .unwrap();
        let made =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        let path = folder.join("expected.txt");
        if std::env::var_os("PACKHORSE_RENEW_GOLDENS").is_some() {
            std::fs::write(&path, &made).unwrap();
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        if made != expected || output.status.code() != Some(1) {
            wrong.push(format!("{} (exit {:?}):\n{made}", folder.display(), output.status.code()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
