//! Connections of every kind, against real sockets and the real RabbitMQ: mutual TLS, OAuth 2.0, proxies, rates, the
//! receiver's logins; and in its part `amqp` the broker's.

mod amqp;

use crate::{
    standins::http::{Answer, Request, Server},
    support::{Broker, Running, Site, crypto, example, until},
};
use rustls::{RootCertStore, ServerConfig, pki_types::CertificateDer, server::WebPkiClientVerifier};
use serde_json::json;
use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

const QUEUE: &str = "packhorse.ledger.post";

/// An authority of a test's own.
struct Authority(rcgen::CertifiedIssuer<'static, rcgen::KeyPair>);

/// A certificate with its key.
struct Certificate {
    pem: String,
    key: String,
    der: CertificateDer<'static>,
    key_der: Vec<u8>,
}

impl Authority {
    fn new() -> Authority {
        crypto();
        let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        Authority(rcgen::CertifiedIssuer::self_signed(parameters, key).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for this name, of a person or a host, that is valid for so many days from now.
    fn issue_for(&self, name: &str, days: i64) -> Certificate {
        let mut parameters = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        parameters.distinguished_name.push(rcgen::DnType::CommonName, name);
        let day = |days: i64| {
            let date = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
            let date = date.saturating_add(jiff::Span::new().days(days));
            rcgen::date_time_ymd(i32::from(date.year()), date.month() as u8, date.day() as u8)
        };
        (parameters.not_before, parameters.not_after) = (day(-400), day(days));
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = parameters.signed_by(&key, &self.0).unwrap();
        Certificate {
            pem: certificate.pem(),
            key: key.serialize_pem(),
            der: certificate.der().clone(),
            key_der: key.serialize_der(),
        }
    }

    fn issue(&self, name: &str) -> Certificate {
        self.issue_for(name, 400)
    }

    /// A server's side with this certificate, which demands one of this authority from its clients.
    fn demanding(&self, own: &Certificate) -> Arc<ServerConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
        let builder = ServerConfig::builder().with_client_cert_verifier(verifier);
        let key = own.key_der.clone().try_into().unwrap();
        Arc::new(builder.with_single_cert(vec![own.der.clone()], key).unwrap())
    }

    /// A server's side with this certificate.
    fn serving(own: &Certificate) -> Arc<ServerConfig> {
        let key = own.key_der.clone().try_into().unwrap();
        let builder = ServerConfig::builder().with_no_client_auth();
        Arc::new(builder.with_single_cert(vec![own.der.clone()], key).unwrap())
    }
}

/// A project with an adapter of the test's own, `ledger`, to which every payment is posted as the event it is. `http` is
/// what stands in its table `[http]`, `rest` what comes behind; both may use the secret setting `key`.
async fn ledger(base_url: &str, http: &str, rest: &str) -> Site {
    ledger_on(Broker::shared(), base_url, http, rest).await
}

async fn ledger_on(broker: Broker, base_url: &str, http: &str, rest: &str) -> Site {
    let site = Site::on(broker, &uses_ledger(base_url)).await;
    site.folder.write("secrets/key", "the-key-of-the-ledger\n");
    let folder = site.folder.0.display().to_string();
    site.folder.write(
        "adapters/ledger.toml",
        format!(
            "version = 1\ntitle = \"A ledger\"\nabout = \"A stand-in of the tests\"\n\
             [settings.base_url]\nabout = \"Where it is\"\n[settings.key]\nabout = \"Its key\"\nsecret = true\n\
             [http]\nbase_url = \"{{{{ settings.base_url }}}}\"\n{http}\n{rest}"
        )
        .replace("$FOLDER", &folder),
    );
    site
}

fn uses_ledger(base_url: &str) -> String {
    format!(
        "[adapters.ledger]\nsettings = {{ base_url = \"{base_url}\", key = \"file:$FOLDER/secrets/key\" }}\n"
    )
}

const POST: &str = "[deliver.post]\nabout = \"Posts every payment.\"\nevent = \"payment.succeeded.v1\"\n\
                    request = { method = \"POST\", path = \"/payments\" }\n";

/// A server that takes everything.
async fn taking(tls: Option<Arc<ServerConfig>>) -> Server {
    let handler = |_: &Request| Answer::empty(201);
    Server::start_at(Arc::new(handler), ([127, 0, 0, 1], 0).into(), tls).await.unwrap()
}

async fn pay(site: &Site, number: u32) {
    let mut data = example("payment.succeeded.v1");
    data["payment_id"] = json!(format!("payment-{number}"));
    site.vhost.say("payment.succeeded.v1", &format!("event-{number}"), &data).await;
}

fn log(site: &Site) -> String {
    std::fs::read_to_string(site.folder.0.join("log")).unwrap_or_default()
}

async fn logged(site: &Site, parts: &[&str]) {
    until(&format!("{parts:?} in one line of the log"), async || {
        let log = log(site);
        log.lines().any(|line| parts.iter().all(|part| line.contains(part))).then_some(())
    })
    .await;
}

/// What `doctor` says: that something is wrong, and all of these in one text.
async fn doctor_tells(site: &Site, parts: &[&str]) {
    let (code, out, err) = site.command(&["doctor"]).await;
    let said = format!("{out}{err}");
    assert_eq!(code, 1, "{said}");
    for part in parts {
        assert!(said.contains(part), "{part:?} is not in {said}");
    }
}

async fn ends_well(site: &Site, running: Running, delivered: u32) {
    site.vhost.drained(QUEUE).await;
    // One that was refused on the way may wait in a retry tier.
    until("all is delivered", async || {
        (site.account("ledger.post").await["delivered"] == delivered).then_some(())
    })
    .await;
    assert_eq!(running.terminate().await, 0, "{}", log(site));
}

/// A port at which nobody listens.
async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn a_system_that_demands_a_client_certificate_gets_it_and_without_the_right_one_messages_wait() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let server = taking(Some(authority.demanding(&authority.issue("localhost")))).await;
    for identity in [Some(authority.issue("bridge")), Some(stranger.issue("bridge")), None] {
        let before = server.requests("POST", "/payments").len();
        let right = before == 0;
        let keys = match &identity {
            Some(_) => ", certificate = \"$FOLDER/own.pem\", key = \"file:$FOLDER/own.key\"",
            None => "",
        };
        let site = ledger(&server.url, &format!("tls = {{ ca = \"$FOLDER/ca.pem\"{keys} }}"), POST).await;
        site.folder.write("ca.pem", authority.pem());
        if let Some(own) = &identity {
            site.folder.write("own.pem", &own.pem);
            site.folder.write("own.key", &own.key);
        }
        let running = site.run().await;
        pay(&site, 1).await;
        if right {
            server.until("POST", "/payments", 1).await;
            site.good(&["doctor"]).await;
            ends_well(&site, running, 1).await;
        } else {
            logged(&site, &["PH2008", "ledger.post", "client certificate"]).await;
            until("it waits", async || (site.vhost.depth("packhorse.retry.5s").await == 1).then_some(()))
                .await;
            doctor_tells(&site, &["PH2008", "client certificate"]).await;
            assert_eq!(running.terminate().await, 0);
            assert_eq!(server.requests("POST", "/payments").len(), before);
            assert_eq!(site.account("ledger.post").await["waiting"], 1);
        }
    }
}

#[tokio::test]
async fn a_certificate_without_its_key_is_told_and_not_left_out() {
    let authority = Authority::new();
    let server = taking(Some(Authority::serving(&authority.issue("localhost")))).await;
    let tls = "tls = { ca = \"$FOLDER/ca.pem\", certificate = \"$FOLDER/ca.pem\" }";
    let site = ledger(&server.url, tls, POST).await;
    site.folder.write("ca.pem", authority.pem());
    let (code, out, err) = site.command(&["run"]).await;
    assert!(code != 0 && err.contains("PH2008") && err.contains("its key"), "{code} {out}{err}");
    // The same of the broker's is a matter of the files alone.
    site.edit("packhorse.toml", "[admin]", "[broker.tls]\ncertificate = \"ca.pem\"\n\n[admin]");
    let (code, out, err) = site.command(&["check"]).await;
    assert!(
        code == 1 && format!("{out}{err}").contains("takes `certificate` and `key`"),
        "{code} {out}{err}"
    );
}

/// A login server that gives numbered tokens to whoever has the right secret: in the header, as RFC 6749 s.2.3.1 wants it,
/// or below `/form` in the body, and nowhere else.
async fn token_server(given: Arc<AtomicU32>, answer: &'static str) -> Server {
    let handler = move |request: &Request| {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        let mut form = request.form();
        form.sort();
        let mut wanted = vec![("grant_type", "client_credentials"), ("scope", "payments:write")];
        let by_form = request.path.starts_with("/form/");
        if by_form {
            wanted.extend([("client_id", "the bridge"), ("client_secret", "the-key-of-the-ledger")]);
            wanted.sort_unstable();
        }
        let form: Vec<(&str, &str)> =
            form.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let login = format!("Basic {}", STANDARD.encode("the%20bridge:the-key-of-the-ledger"));
        match form == wanted && by_form != (request.header("authorization") == Some(&login)) {
            true => {
                let number = given.fetch_add(1, Ordering::SeqCst) + 1;
                Answer::of(200, "application/json", answer.replace("$N", &number.to_string()))
            }
            false => {
                Answer::json(401, &json!({ "error": "invalid_client", "error_description": "Mrs Smith" }))
            }
        }
    };
    Server::start(Arc::new(handler), 0).await.unwrap()
}

fn oauth2(tokens: &str) -> String {
    format!(
        "[http.login]\noauth2 = {{ token_url = \"{tokens}/token\", client_id = \"the bridge\", client_secret = \"key\", scope = \"payments:write\" }}\n{POST}"
    )
}

/// A system that takes requests with this token only.
async fn for_token(valid: Arc<AtomicU32>) -> Server {
    let handler = move |request: &Request| {
        let wanted = format!("Bearer token-{}", valid.load(Ordering::SeqCst));
        Answer::empty(if request.header("authorization") == Some(&wanted) { 201 } else { 401 })
    };
    Server::start(Arc::new(handler), 0).await.unwrap()
}

const TOKEN: &str = r#"{"access_token":"token-$N","token_type":"Bearer","expires_in":3600}"#;

#[tokio::test]
async fn a_token_serves_many_messages_and_is_renewed_when_it_is_taken_back() {
    let (given, valid) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(1)));
    let (tokens, server) = (token_server(given.clone(), TOKEN).await, for_token(valid.clone()).await);
    let site = ledger(&server.url, "", &oauth2(&tokens.url)).await;
    site.edit("packhorse.toml", "[adapters.ledger]", "[adapters.ledger]\nroutes.post.concurrency = 5");
    let running = site.run().await;
    for number in 0..20 {
        pay(&site, number).await;
    }
    server.until("POST", "/payments", 20).await;
    assert_eq!(given.load(Ordering::SeqCst), 1);
    // Taken back early: refused once by each of those under way, asked for anew once, and nothing is lost.
    valid.store(2, Ordering::SeqCst);
    for number in 20..40 {
        pay(&site, number).await;
    }
    ends_well(&site, running, 40).await;
    assert_eq!(given.load(Ordering::SeqCst), 2);
    let log = log(&site);
    assert!(!log.contains("the-key-of-the-ledger") && !log.contains("token-"), "{log}");
}

#[tokio::test]
async fn a_login_server_that_wants_the_secret_in_the_body_gets_it_there() {
    let given = Arc::new(AtomicU32::new(0));
    let (tokens, server) =
        (token_server(given.clone(), TOKEN).await, for_token(Arc::new(AtomicU32::new(1))).await);
    let login = oauth2(&format!("{}/form", tokens.url)).replace("scope =", "secret_in = \"form\", scope =");
    let site = ledger(&server.url, "", &login).await;
    let running = site.run().await;
    pay(&site, 1).await;
    ends_well(&site, running, 1).await;
    assert_eq!(given.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_login_server_that_is_away_refuses_or_talks_nonsense_makes_messages_wait_and_is_named() {
    let dead = format!("http://{}", nobody().await);
    let given = Arc::new(AtomicU32::new(0));
    let refusing = token_server(given.clone(), TOKEN).await;
    let broken = token_server(given.clone(), r#"{"access_token":"token\nX: y"}"#).await;
    let empty = token_server(given.clone(), "{}").await;
    let page = token_server(given.clone(), "<html>").await;
    let server = taking(None).await;
    let cases = [
        (dead.as_str(), "right", "no connection"),
        (&refusing.url, "wrong", "it answered 401 (invalid_client)"),
        (&broken.url, "right", "the header authorization cannot hold its value"),
        (&empty.url, "right", "no access_token"),
        (&page.url, "right", "no token from the login server 127.0.0.1"),
    ];
    for (tokens, secret, wanted) in cases {
        let site = ledger(&server.url, "", &oauth2(tokens)).await;
        if secret == "wrong" {
            site.folder.write("secrets/key", "a-wrong-key");
        }
        let running = site.run().await;
        pay(&site, 1).await;
        logged(&site, &["PH2005", wanted]).await;
        until("it waits", async || (site.vhost.depth("packhorse.retry.5s").await == 1).then_some(())).await;
        if !wanted.contains("cannot hold") {
            doctor_tells(&site, &["PH2005", wanted]).await;
        }
        assert_eq!(running.terminate().await, 0);
        let log = log(&site);
        for secret in ["the-key-of-the-ledger", "a-wrong-key", "token\\n", "Mrs Smith"] {
            assert!(!log.contains(secret), "{secret}: {log}");
        }
        assert_eq!(site.account("ledger.post").await["waiting"], 1);
    }
    assert!(server.requests("POST", "/").is_empty());
}

#[tokio::test]
async fn a_token_that_is_to_last_for_ever_is_used_all_the_same() {
    let given = Arc::new(AtomicU32::new(0));
    let tokens =
        token_server(given.clone(), r#"{"access_token":"token-$N","expires_in":18446744073709551615}"#).await;
    let server = for_token(Arc::new(AtomicU32::new(1))).await;
    let site = ledger(&server.url, "", &oauth2(&tokens.url)).await;
    let running = site.run().await;
    pay(&site, 1).await;
    server.until("POST", "/payments", 1).await;
    ends_well(&site, running, 1).await;
}

#[tokio::test]
async fn no_secret_goes_to_another_machine_unencrypted_unless_it_is_said_twice() {
    let check = async |site: &Site| {
        let (code, out, err) = site.command(&["check"]).await;
        (code, format!("{out}{err}"))
    };
    let login = "[http.login]\nbearer = \"key\"\n";
    for (base, more) in [
        ("http://ledger.example", format!("{login}{POST}")),
        ("HTTP://ledger.example", format!("{login}{POST}")),
        ("http://localhost@ledger.example", format!("{login}{POST}")),
        (
            "http://localhost.ledger.example:80/x",
            format!("[http.login]\nwhen_set = \"base_url\"\nbearer = \"key\"\n{POST}"),
        ),
        ("https://ledger.example", oauth2("http://login.example")),
    ] {
        let site = ledger(base, "", &more).await;
        let (code, said) = check(&site).await;
        assert!(code == 1 && said.contains("PH0111"), "{base}: {said}");
        site.edit("packhorse.toml", "[adapters.ledger]", "[adapters.ledger]\nallow_unencrypted_login = true");
        let (code, said) = check(&site).await;
        assert!(code == 0, "{base}: {said}");
    }
    for base in ["https://ledger.example", "http://localhost:80", "http://127.0.0.1", "http://[::1]:80/x"] {
        let site = ledger(base, "", &format!("{login}{POST}")).await;
        let (code, said) = check(&site).await;
        assert!(code == 0, "{base}: {said}");
    }
    let site = ledger("https://ledger.example", "", POST).await;
    let address = site.vhost.address();
    site.edit("packhorse.toml", &address, "amqp://broker.example:5672/x");
    let (code, said) = check(&site).await;
    assert!(code == 1 && said.contains("PH0111"), "{said}");
    site.edit("packhorse.toml", "[broker]", "[broker]\nallow_unencrypted_login = true");
    let (code, said) = check(&site).await;
    assert!(code == 0, "{said}");
}

/// A proxy that knows where the ledger is, whatever it is called; what it was asked for.
async fn proxy(ledger: SocketAddr, willing: bool) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, asked) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
    let log = asked.clone();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let log = log.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.windows(4).any(|window| window == b"\r\n\r\n") {
                    if client.read_buf(&mut head).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                let line = String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned();
                log.lock().unwrap().push(line.clone());
                if !willing {
                    let _ = client.write_all(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n").await;
                    return;
                }
                let mut server = TcpStream::connect(ledger).await.unwrap();
                match line.starts_with("CONNECT ") {
                    true => client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap(),
                    false => server.write_all(&head).await.unwrap(),
                }
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    (address, asked)
}

#[tokio::test]
async fn requests_go_through_the_proxy_that_the_adapter_names_whatever_the_environment_says() {
    let dead = format!("http://{}", nobody().await);
    let environment = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]
        .map(|name| (name, dead.as_str()));
    let environment: Vec<_> = environment.into_iter().chain([("NO_PROXY", "*"), ("no_proxy", "*")]).collect();
    let authority = Authority::new();
    for tls in [None, Some(Authority::serving(&authority.issue("ledger.invalid")))] {
        let server = taking(tls.clone()).await;
        let port: u16 = server.url.rsplit_once(':').unwrap().1.parse().unwrap();
        let (proxy, asked) = proxy(([127, 0, 0, 1], port).into(), true).await;
        let (base, path) = match tls {
            None => ("http://ledger.invalid", "http://ledger.invalid/payments"),
            Some(_) => ("https://ledger.invalid", "/payments"),
        };
        let keys = format!("proxy = \"http://{proxy}\"\ntls = {{ ca = \"$FOLDER/ca.pem\" }}");
        let site = ledger(base, &keys, POST).await;
        site.folder.write("ca.pem", authority.pem());
        let running = site.run_with(&environment).await;
        pay(&site, 1).await;
        server.until("POST", path, 1).await;
        ends_well(&site, running, 1).await;
        let asked = asked.lock().unwrap().clone();
        assert!(asked.iter().all(|line| line.contains("ledger.invalid")) && !asked.is_empty(), "{asked:?}");
    }
    // Without one of the adapter's, none: the environment's is not for us.
    let server = taking(None).await;
    let site = ledger(&server.url, "", POST).await;
    let environment: Vec<_> =
        environment.into_iter().filter(|(name, _)| !name.eq_ignore_ascii_case("no_proxy")).collect();
    let running = site.run_with(&environment).await;
    pay(&site, 1).await;
    server.until("POST", "/payments", 1).await;
    ends_well(&site, running, 1).await;
}

#[tokio::test]
async fn a_proxy_that_does_not_let_us_through_is_named_and_messages_wait() {
    let (refusing, _) = proxy(nobody().await, false).await;
    for proxy in [refusing, nobody().await] {
        let keys = format!("proxy = \"http://user:proxy-password@{proxy}\"");
        let site = ledger("https://ledger.invalid", &keys, POST).await;
        let running = site.run().await;
        pay(&site, 1).await;
        logged(&site, &["PH2001", "through the proxy 127.0.0.1"]).await;
        until("it waits", async || (site.vhost.depth("packhorse.retry.5s").await == 1).then_some(())).await;
        doctor_tells(&site, &["PH2001", "through the proxy 127.0.0.1"]).await;
        assert_eq!(running.terminate().await, 0);
        assert!(!log(&site).contains("proxy-password"), "{}", log(&site));
    }
}

#[tokio::test]
async fn a_rate_is_kept_as_the_system_counts_it() {
    let times: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let seen = times.clone();
    let handler = move |_: &Request| {
        let number = {
            let mut seen = seen.lock().unwrap();
            seen.push(Instant::now());
            seen.len()
        };
        // Some answers take longer than others, and hold up the requests behind them.
        std::thread::sleep(Duration::from_millis([0, 90, 10, 60][number % 4]));
        Answer::empty(201)
    };
    let server = Server::start(Arc::new(handler), 0).await.unwrap();
    let rest =
        format!("[rates]\nfew = \"3/s\"\n{}", POST.replace("\"/payments\"", "\"/payments\", rate = \"few\""));
    let site = ledger(&server.url, "", &rest).await;
    site.edit("packhorse.toml", "[adapters.ledger]", "[adapters.ledger]\nroutes.post.concurrency = 8");
    let running = site.run().await;
    for number in 0..16 {
        pay(&site, number).await;
    }
    server.until("POST", "/payments", 16).await;
    ends_well(&site, running, 16).await;
    let times = times.lock().unwrap();
    for (index, window) in times.windows(4).enumerate() {
        let took = window[3] - window[0];
        assert!(took >= Duration::from_secs(1), "4 requests from number {index} on within {took:?}");
    }
    let all = times[15] - times[0];
    assert!(all < Duration::from_secs(20), "slower than it must be: {all:?}");
}

/// A project whose ledger calls us on three routes, one for each way to log in, over TLS.
async fn called(authority: &Authority, more: &str) -> Site {
    let route = |name: &str, login: &str| {
        format!(
            "[collect.{name}]\nabout = \"Is called.\"\nreceive = {{ login = {{ {login} }}, limit = \"1 KiB\" }}\n\
             format = \"json\"\nevents = [{{ ignore = \"nothing is made of it\" }}]\n"
        )
    };
    let routes = [
        route("basic", "basic = { username = \"caller\", password = \"key\" }"),
        route("bearer", "bearer = \"key\""),
        route("header", "header = { name = \"X-Key\", value = \"key\" }"),
    ];
    let site = ledger("https://ledger.invalid", "", &routes.concat()).await;
    let own = authority.issue("localhost");
    site.folder.write("own.pem", &own.pem);
    site.folder.write("own.key", &own.key);
    let receiver = format!(
        "[receiver]\nlisten = \"127.0.0.1:0\"\n[receiver.tls]\ncertificate = \"own.pem\"\nkey = \"file:own.key\"\n{more}\n[adapters.ledger]"
    );
    site.edit("packhorse.toml", "[adapters.ledger]", &receiver);
    site
}

fn client(authority: &Authority, own: Option<&Certificate>) -> reqwest::Client {
    let trusted = reqwest::Certificate::from_pem(authority.pem().as_bytes()).unwrap();
    let mut builder =
        reqwest::Client::builder().no_proxy().tls_certs_only([trusted]).pool_max_idle_per_host(0);
    if let Some(own) = own {
        let pem = format!("{}\n{}", own.pem, own.key);
        builder = builder.identity(reqwest::Identity::from_pem(pem.as_bytes()).unwrap());
    }
    builder.build().unwrap()
}

/// A JSON text of so many bytes, another one each time.
fn document(size: usize) -> Vec<u8> {
    static NUMBER: AtomicU32 = AtomicU32::new(1);
    let begin = format!("\"{:08}", NUMBER.fetch_add(1, Ordering::Relaxed));
    [begin.as_bytes(), &vec![b'x'; size - 10], b"\""].concat()
}

#[tokio::test]
async fn only_who_logs_in_rightly_is_received_and_nothing_larger_than_the_limit() {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let authority = Authority::new();
    let site = called(&authority, "").await;
    let bridge = site.start().await;
    let base = format!("https://localhost:{}/ledger", bridge.receiver.unwrap().port());
    let client = client(&authority, None);
    let ask = async |route: &str, (name, value): (&str, &str), body: reqwest::Body| {
        let request = client.post(format!("{base}/{route}")).header(name, value).body(body);
        let answer = request.send().await.unwrap_or_else(|error| panic!("{route}: {error:?}"));
        let challenge =
            answer.headers().get("www-authenticate").map(|value| value.to_str().unwrap().to_owned());
        (answer.status().as_u16(), challenge, answer.text().await.unwrap())
    };
    let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
    let right = [
        ("basic", "Authorization", basic("caller:the-key-of-the-ledger")),
        ("bearer", "Authorization", "Bearer the-key-of-the-ledger".to_owned()),
        ("header", "X-Key", "the-key-of-the-ledger".to_owned()),
    ];
    let wrong = [
        ("X-Other", "the-key-of-the-ledger".to_owned()),
        ("Authorization", String::new()),
        ("Authorization", basic("caller:")),
        ("Authorization", basic("caller:the-key-of-the-ledger2")),
        ("Authorization", basic("other:the-key-of-the-ledger")),
        ("Authorization", basic("caller")),
        ("Authorization", "Bearer the-key-of-the-ledge".to_owned()),
        ("Authorization", "Bearer".to_owned()),
        ("Authorization", "the-key-of-the-ledger".to_owned()),
        ("X-Key", String::new()),
        ("X-Key", "The-key-of-the-ledger".to_owned()),
    ];
    for (route, name, value) in &right {
        let login = (*name, value.as_str());
        for size in [10, 1_024] {
            assert_eq!(ask(route, login, document(size).into()).await.0, 200, "{route}");
        }
        for size in [1_025, 8 << 20] {
            let (status, _, text) = ask(route, login, document(size).into()).await;
            assert!(status == 413 && text.contains("PH2105"), "{route}: {status} {text}");
        }
        // Its length not announced.
        let chunks = (0..64).map(|_| Ok::<_, std::io::Error>(document(10_000)));
        let stream = reqwest::Body::wrap_stream(futures_util::stream::iter(chunks));
        assert_eq!(ask(route, login, stream).await.0, 413, "{route}");
        for (name, value) in &wrong {
            let (status, challenge, text) = ask(route, (name, value), document(100).into()).await;
            assert!(status == 401 && text.contains("PH2104"), "{route} {name}: {value}: {status} {text}");
            let wanted = match *route {
                "basic" => Some("Basic realm=\"packhorse\", charset=\"UTF-8\""),
                "bearer" => Some("Bearer"),
                _ => None,
            };
            assert_eq!(challenge.as_deref(), wanted);
        }
        let (status, ..) = ask(route, ("X-Key", "wrong"), document(8 << 20).into()).await;
        assert_eq!(status, 401, "{route}: also when there is much to send");
    }
    assert!(bridge.stop().await);
    for (route, ..) in right {
        let account = site.account(&format!("ledger.{route}")).await;
        assert_eq!(account["taken"], 2, "{account}");
    }
}

#[tokio::test]
async fn a_receiver_that_demands_client_certificates_lets_nobody_else_in() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let site = called(&authority, "ca = \"ca.pem\"").await;
    site.folder.write("ca.pem", authority.pem());
    let port = nobody().await.port();
    site.edit(
        "packhorse.toml",
        "listen = \"127.0.0.1:0\"\n[receiver.tls]",
        &format!("listen = \"127.0.0.1:{port}\"\n[receiver.tls]"),
    );
    let running = site.run().await;
    let url = format!("https://localhost:{port}/ledger/bearer");
    let (own, foreign) = (authority.issue("caller"), stranger.issue("caller"));
    for (identity, wanted) in [(Some(&own), true), (Some(&foreign), false), (None, false)] {
        let request = client(&authority, identity).post(&url).bearer_auth("the-key-of-the-ledger");
        let answer = request.body(document(100)).send().await;
        assert_eq!(answer.is_ok_and(|answer| answer.status() == 200), wanted);
    }
    logged(&site, &["a connection was refused during the TLS handshake", "127.0.0.1"]).await;
    assert_eq!(running.terminate().await, 0);
    assert_eq!(site.account("ledger.bearer").await["taken"], 1);
}

#[tokio::test]
async fn a_route_whose_login_depends_on_a_setting_that_is_not_given_is_not_left_open() {
    let authority = Authority::new();
    let site = called(&authority, "").await;
    let adapter = "adapters/ledger.toml";
    site.edit(
        adapter,
        "login = { bearer = \"key\" }",
        "login = { bearer = \"key\", when_set = \"guarded\" }",
    );
    site.edit(
        adapter,
        "[settings.key]",
        "[settings.guarded]\nabout = \"Whether\"\noptional = true\n[settings.key]",
    );
    let (code, out, err) = site.command(&["check"]).await;
    assert!(code == 1 && format!("{out}{err}").contains("PH2104"), "{out}{err}");
    // Given, and no secret: the login counts.
    site.edit("packhorse.toml", "settings = {", "settings = { guarded = \"yes\",");
    let bridge = site.start().await;
    let url = format!("https://localhost:{}/ledger/bearer", bridge.receiver.unwrap().port());
    let answer = client(&authority, None).post(&url).body(document(100)).send().await.unwrap();
    assert_eq!(answer.status(), 401);
    assert!(bridge.stop().await);
    assert_eq!(site.account("ledger.bearer").await["taken"], 0);
}
