//! Connections to the broker: AMQP over TLS, several addresses, silent ones; and whether `doctor` tells the truth of it
//! and of everything else that is connected to.

use super::*;
use crate::{payments::paid_as, standins::ims::Ims, support::Node};
use std::collections::BTreeSet;
use tokio::sync::watch;

/// A node of RabbitMQ that speaks TLS, to clients with a certificate of the authority only; and the port.
async fn node_over_tls(authority: &Authority) -> (Node, u16) {
    let folder = crate::support::Folder::new();
    let own = authority.issue("localhost");
    let port = nobody().await.port();
    let (ca, certificate, key) = (
        folder.write("ca.pem", authority.pem()),
        folder.write("own.pem", &own.pem),
        folder.write("own.key", &own.key),
    );
    let configuration = format!(
        "listeners.ssl.1 = 127.0.0.1:{port}\nssl_options.cacertfile = {}\nssl_options.certfile = {}\nssl_options.keyfile = {}\n\
         ssl_options.verify = verify_peer\nssl_options.fail_if_no_peer_cert = true\n\
         auth_mechanisms.1 = PLAIN\nauth_mechanisms.2 = EXTERNAL\nssl_cert_login_from = common_name\n",
        ca.display(),
        certificate.display(),
        key.display()
    );
    let plugins = ["rabbitmq_management", "rabbitmq_auth_mechanism_ssl"];
    (Node::configured(&plugins, folder, &configuration).await, port)
}

#[tokio::test]
async fn the_broker_is_spoken_to_over_tls_and_shown_our_certificate() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let (node, port) = node_over_tls(&authority).await;
    let server = taking(None).await;
    let own = authority.issue("bridge");
    let with = async |host: &str, tls: &str| {
        let site = ledger_on(node.broker.clone(), &server.url, "", POST).await;
        let address = site.vhost.address();
        site.edit("packhorse.toml", &address, &format!("amqps://{host}:{port}/{}", site.vhost.name));
        site.edit("packhorse.toml", "[admin]", &format!("[broker.tls]\n{tls}\n[admin]"));
        site.folder.write("ca.pem", authority.pem());
        site.folder.write("own.pem", &own.pem);
        site.folder.write("own.key", &own.key);
        site
    };
    const OURS: &str = "certificate = \"own.pem\"\nkey = \"file:own.key\"\n";
    let whole = format!("ca = \"ca.pem\"\n{OURS}");
    // With the password.
    let site = with("localhost", &whole).await;
    let running = site.run().await;
    pay(&site, 1).await;
    server.until("POST", "/payments", 1).await;
    site.good(&["doctor"]).await;
    ends_well(&site, running, 1).await;
    // With the certificate alone.
    let site = with("localhost", &whole).await;
    node.ctl(&["add_user", "bridge", "never-used"]).await;
    node.ctl(&["clear_password", "bridge"]).await;
    node.ctl(&["set_permissions", "-p", &site.vhost.name, "bridge", ".*", ".*", ".*"]).await;
    let text = std::fs::read_to_string(site.folder.0.join("packhorse.toml")).unwrap();
    let kept: Vec<&str> =
        text.lines().filter(|line| !line.starts_with("username") && !line.starts_with("password")).collect();
    site.folder.write("packhorse.toml", kept.join("\n"));
    let running = site.run().await;
    pay(&site, 2).await;
    server.until("POST", "/payments", 2).await;
    ends_well(&site, running, 1).await;
    // Without what it takes.
    let foreign = stranger.issue("bridge");
    let cases = [
        (with("localhost", OURS).await, None, "UnknownIssuer"),
        (with("localhost", "ca = \"ca.pem\"").await, None, "certificate"),
        (with("localhost", &whole).await, Some(foreign), "certificate"),
        (with("127.0.0.1", &whole).await, None, "not valid for name"),
    ];
    let told = cases.iter().map(async |(site, other, wanted)| {
        if let Some(other) = other {
            site.folder.write("own.pem", &other.pem);
            site.folder.write("own.key", &other.key);
        }
        let (code, out, err) = site.command(&["run"]).await;
        assert!(code == 69 && err.contains("PH2008") && err.contains(wanted), "{wanted}: {code} {out}{err}");
        doctor_tells(site, &["PH2008", wanted]).await;
    });
    futures_util::future::join_all(told).await;
}

/// Something that accepts connections and never says a word.
async fn silence() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            kept.push(stream);
        }
    });
    address
}

#[tokio::test]
async fn an_address_that_is_dead_or_silent_is_passed_over_for_the_next() {
    let server = taking(None).await;
    let with = async |first: SocketAddr| {
        let site = ledger(&server.url, "", POST).await;
        let name = &site.vhost.name;
        let both = format!("amqp://{first}/{name}\", \"{}", site.vhost.address());
        site.settings(&both, &uses_ledger(&server.url));
        site
    };
    let sites = [(with(nobody().await).await, "refused"), (with(silence().await).await, "no answer within")];
    let tried = sites.iter().map(async |(site, wanted)| {
        site.good(&["topology", "apply"]).await;
        let running = site.run().await;
        pay(site, 1).await;
        ends_well(site, running, 1).await;
        doctor_tells(site, &["PH3001", wanted, "ok     broker login"]).await;
        site.good(&["dead-letters", "list"]).await;
    });
    futures_util::future::join_all(tried).await;
}

#[tokio::test]
async fn a_bridge_that_waits_for_its_broker_can_be_stopped_at_once() {
    let server = taking(None).await;
    for address in [nobody().await, silence().await] {
        let site = ledger(&server.url, "", POST).await;
        site.settings(&format!("amqp://{address}/x"), &uses_ledger(&server.url));
        site.edit("packhorse.toml", "version = 1", "version = 1\ndrain = \"1h\"");
        let bridge = site.start().await;
        let stopped = tokio::time::timeout(crate::support::PATIENCE, bridge.stop()).await;
        assert_eq!(stopped, Ok(true));
    }
}

/// A line to the broker that can fall silent: it then stays open, and nothing comes through.
async fn line(broker: SocketAddr) -> (SocketAddr, watch::Sender<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, silent) = (listener.local_addr().unwrap(), watch::Sender::new(false));
    let told = silent.clone();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut told = told.subscribe();
            tokio::spawn(async move {
                let mut server = TcpStream::connect(broker).await.unwrap();
                let ended = tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut client, &mut server) => true,
                    _ = told.wait_for(|silent| *silent) => false,
                };
                if !ended {
                    std::future::pending::<()>().await;
                }
            });
        }
    });
    (address, silent)
}

#[tokio::test]
async fn a_broker_that_falls_silent_is_left_for_the_next_and_nothing_is_lost_or_posted_twice() {
    let ims = Arc::new(Ims::default());
    let server = Server::start(ims.clone(), 0).await.unwrap();
    let settings = format!("[adapters.localgov-ims]\nsettings = {{ base_url = \"{}\" }}\n", server.url);
    let site = Site::new(&settings).await;
    let direct = site.vhost.address();
    let broker: SocketAddr =
        direct.strip_prefix("amqp://").unwrap().split('/').next().unwrap().parse().unwrap();
    let (line, silent) = line(broker).await;
    site.settings(&format!("amqp://{line}/{}\", \"{direct}", site.vhost.name), &settings);
    site.edit("packhorse.toml", "[broker]", "[broker]\nheartbeat = \"1s\"");
    let running = site.run().await;
    let count = 40;
    for number in 0..count {
        site.vhost.say("payment.succeeded.v1", &format!("event-{number}"), &paid_as(number)).await;
        if number == count / 2 {
            server.until("POST", "/api", 1).await;
            silent.send_replace(true);
        }
    }
    until("every row", async || (ims.rows().len() >= count).then_some(())).await;
    until("every event", async || {
        let told: BTreeSet<String> =
            site.vhost.peek("platform").await.iter().map(|event| event.json()["id"].to_string()).collect();
        (told.len() >= count).then_some(())
    })
    .await;
    site.vhost.drained("packhorse.localgov-ims.post").await;
    assert_eq!(running.terminate().await, 0, "{}", log(&site));
    let references: BTreeSet<String> = ims.rows().iter().map(|row| row["PspReference"].to_string()).collect();
    assert_eq!((ims.rows().len(), references.len()), (count, count));
    assert_eq!(site.account("localgov-ims.post").await["delivered"], json!(count));
    let log = log(&site);
    assert!(log.contains("PH3001") && log.contains("silent for two heartbeats"), "{log}");
}

#[tokio::test]
async fn doctor_and_a_live_check_tell_what_is_wrong_with_the_broker() {
    let server = taking(None).await;
    let site = ledger(&server.url, "", POST).await;
    let address = site.vhost.address();
    site.good(&["topology", "apply"]).await;
    site.good(&["doctor"]).await;
    site.good(&["check", "--live"]).await;
    let user = Broker::shared().user;
    let permit = async |configure: &str, write: &str, read: &str| {
        let permissions = json!({ "configure": configure, "write": write, "read": read });
        site.vhost.call("PUT", &format!("permissions/{user}"), permissions).await;
    };
    // Least permissions are enough for a bridge that declares nothing, and not for one that does.
    let own = "^packhorse\\.";
    permit("^$", &format!("{own}|^platform\\.updates$"), own).await;
    doctor_tells(&site, &["PH3009", "packhorse.ledger.post"]).await;
    site.edit("packhorse.toml", "[broker]", "[broker]\ndeclare = false");
    site.good(&["doctor"]).await;
    permit("^$", own, own).await;
    doctor_tells(&site, &["PH3009", "platform.updates"]).await;
    permit("^$", &format!("{own}|^platform\\.updates$"), "^$").await;
    doctor_tells(&site, &["PH3009", "packhorse.ledger.post"]).await;
    let said = site.command(&["check", "--live"]).await;
    assert!(said.0 == 1 && said.1.contains("PH3009"), "{said:?}");
    site.vhost.call("DELETE", &format!("permissions/{user}"), json!(null)).await;
    doctor_tells(&site, &["PH3002", "vhost"]).await;
    site.edit("packhorse.toml", &address, &format!("{address}-of-nobody"));
    doctor_tells(&site, &["PH3002", "vhost"]).await;
    site.edit("packhorse.toml", &address, &format!("amqp://{}/x", nobody().await));
    doctor_tells(&site, &["PH3001", "refused"]).await;
    permit(".*", ".*", ".*").await;
}

#[tokio::test]
async fn doctor_tells_of_certificates_that_end_of_systems_out_of_reach_and_of_wrong_clocks() {
    let authority = Authority::new();
    let ahead = |_: &Request| {
        let moment = jiff::Timestamp::now() + jiff::SignedDuration::from_mins(3);
        Answer::empty(404).with("Date", &moment.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string())
    };
    let own = authority.issue("localhost");
    let server =
        Server::start_at(Arc::new(ahead), ([127, 0, 0, 1], 0).into(), Some(Authority::serving(&own)))
            .await
            .unwrap();
    let tls = "tls = { ca = \"$FOLDER/ca.pem\", certificate = \"$FOLDER/own.pem\", key = \"file:$FOLDER/own.key\" }";
    let site = ledger(&server.url, tls, POST).await;
    site.good(&["topology", "apply"]).await;
    site.folder.write("ca.pem", authority.pem());
    let identity = |days: i64| {
        let own = authority.issue_for("bridge", days);
        site.folder.write("own.pem", &own.pem);
        site.folder.write("own.key", &own.key);
    };
    identity(10);
    doctor_tells(&site, &["PH2008", "own.pem", "expires at", "PH5005", "differ by"]).await;
    identity(-2);
    doctor_tells(&site, &["PH2008", "own.pem", "expired at"]).await;
    identity(400);
    let (_, out, _) = site.command(&["check", "--live"]).await;
    assert!(out.contains("PH5005") && !out.contains("PH2008"), "{out}");
    site.folder.write("own.key", &authority.issue("another").key);
    doctor_tells(&site, &["PH2008", "own.pem"]).await;
    std::fs::remove_file(site.folder.0.join("own.key")).unwrap();
    doctor_tells(&site, &["PH0110", "own.key"]).await;
    site.edit("adapters/ledger.toml", "{{ settings.base_url }}", &format!("http://{}", nobody().await));
    site.edit("adapters/ledger.toml", &tls.replace("$FOLDER", &site.folder.0.display().to_string()), "");
    doctor_tells(&site, &["PH2001", "refused"]).await;
}
