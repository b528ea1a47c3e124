//! How fast, beside a named reference, in one run on one machine. Prints ratios; the absolute numbers are this machine's.
//!
//!   cargo bench --bench throughput                     everything but the soak
//!   cargo bench --bench throughput -- amqp [COUNT]     AMQP to AMQP, translated, beside a bare forwarder and RabbitMQ's Shovel
//!   cargo bench --bench throughput -- http [COUNT]     AMQP to HTTP, beside a bare loop of lapin and reqwest
//!   cargo bench --bench throughput -- mapping [COUNT]  mapping alone, beside jq and xsltproc on the same documents
//!   cargo bench --bench throughput -- soak [COUNT]     the memory of a bridge over a backlog, a million unless said
//!   cargo bench --bench throughput -- load AMQP_URL QUEUE COUNT    fills a queue with events: the generator of the above
//!
//! Starts a RabbitMQ node of its own (`scripts/broker`). Queues are quorum queues; messages are persistent, published mandatory
//! and with confirms; the bridge's journal is on. Every contender has the same messages, window and broker.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, dead_code)]

#[path = "../tests/standins/mod.rs"]
mod standins;
#[path = "../tests/it/support.rs"]
mod support;

/// The program's own allocator: src/main.rs.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

use futures_util::{FutureExt as _, StreamExt as _, future::join_all};
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    },
    types::FieldTable,
};
use packhorse::{
    event::Event,
    format::{Format, Limits, Style},
    mapping::{Context, Mapping},
    template::Texts,
};
use serde_json::{Value, json};
use standins::http::{Answer, Request, Server};
use std::{
    io::Write as _,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};
use support::{Folder, Node, Site, Vhost, example, root, until};

/// How many are under way at once, for every contender.
const WINDOW: usize = 256;
/// How often each contender runs; they take turns, and the median counts.
const ROUNDS: usize = 3;

#[tokio::main]
async fn main() {
    // `cargo bench` adds `--bench`.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let number = |at: usize, usual: usize| {
        arguments.get(at).map_or(usual, |text| text.replace('_', "").parse().expect("a number"))
    };
    match arguments.first().map(String::as_str) {
        None => {
            amqp(30_000).await;
            http(5_000).await;
            mapping(20_000);
        }
        Some("amqp") => amqp(number(1, 30_000)).await,
        Some("http") => http(number(1, 5_000)).await,
        Some("mapping") => mapping(number(1, 20_000)),
        Some("soak") => soak(number(1, 1_000_000)).await,
        Some("load") => load(&arguments[1], &arguments[2], number(3, 10_000)).await,
        Some(other) => panic!("{other}: amqp, http, mapping, soak or load"),
    }
}

/// A payment that succeeded: 1.6 kB as an event.
fn event(number: usize) -> Value {
    let mut data = example("payment.succeeded.v1");
    data["payment_id"] = json!(format!("payment-{number}"));
    data["provider_reference"] = json!(format!("reference-{number}"));
    json!({ "specversion": "1.0", "id": format!("event-{number}"), "source": "urn:platform:payments", "type": "payment.succeeded.v1",
            "time": "2026-11-23T09:41:06.884Z", "datacontenttype": "application/json", "data": data })
}

async fn channel(url: &str) -> (Connection, Channel) {
    let connection = Connection::connect(url, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    (connection, channel)
}

const MANDATORY: BasicPublishOptions = BasicPublishOptions { mandatory: true, immediate: false };

/// The load generator: so many different events into a queue, confirmed.
async fn load(url: &str, queue: &str, count: usize) {
    let (_connection, channel) = channel(url).await;
    for start in (0..count).step_by(1_000) {
        let mut confirms = Vec::new();
        for number in start..count.min(start + 1_000) {
            let properties = BasicProperties::default()
                .with_delivery_mode(2)
                .with_message_id(format!("event-{number}").into())
                .with_content_type("application/cloudevents+json".into());
            let body = event(number).to_string();
            confirms.push(
                channel
                    .basic_publish("".into(), queue.into(), MANDATORY, body.as_bytes(), properties)
                    .await
                    .unwrap(),
            );
        }
        for confirm in join_all(confirms).await {
            assert!(confirm.unwrap().is_ack());
        }
    }
}

/// Waits until a queue holds so many.
async fn filled(vhost: &Vhost, queue: &str, count: usize) {
    until(queue, async || (vhost.depth(queue).await >= count as u64).then_some(())).await;
}

/// What the bridge's route does, and nothing else: takes in windows, publishes confirmed and mandatory, acknowledges.
async fn bare_forwarder(url: String, from: String, to: String) {
    let (_in, consuming) = channel(&url).await;
    let (_out, publishing) = channel(&url).await;
    consuming.basic_qos(2 * WINDOW as u16, BasicQosOptions::default()).await.unwrap();
    let mut consumer = consuming
        .basic_consume(from.into(), "bare".into(), BasicConsumeOptions::default(), FieldTable::default())
        .await
        .unwrap();
    while let Some(Ok(first)) = consumer.next().await {
        let mut window = vec![first];
        while window.len() < WINDOW {
            match consumer.next().now_or_never() {
                Some(Some(Ok(next))) => window.push(next),
                _ => break,
            }
        }
        let mut confirms = Vec::with_capacity(window.len());
        for delivery in &window {
            let properties = delivery.properties.clone();
            confirms.push(
                publishing
                    .basic_publish("".into(), to.clone().into(), MANDATORY, &delivery.data, properties)
                    .await
                    .unwrap(),
            );
        }
        for confirm in join_all(confirms).await {
            assert!(confirm.unwrap().is_ack());
        }
        let last = window.pop().unwrap();
        last.ack(BasicAckOptions { multiple: true }).await.unwrap();
    }
}

/// A project with one route that translates an event to a JSON document and publishes it to a queue.
const ADAPTER: &str = r#"
version = 1
title = "The benchmark's own"
about = "Translates and publishes to another queue of the same broker."
[settings.out]
about = "The queue to publish to"
[amqp]
addresses = ""
[deliver.translate]
about = "Translates."
event = "payment.succeeded.v1"
mapping = "bench/row"
makes = "record"
repeat = "key"
publish = { exchange = "", routing_key = "{{ settings.out }}" }
"#;

const MAPPING: &str = r#"
version = 1
about = "A row as an income system wants it."
event = "payment.succeeded.v1"
only = "to-document"
document = { format = "json" }
fields = [
  { event = "provider_reference", document = "PspReference" },
  { event = "payment_id", document = "InternalReference" },
  { event = "paid_at", document = "TransactionDate", time = { pattern = "%Y-%m-%dT%H:%M:%S", zone = "Europe/London" }, lossy = "whole seconds" },
  { event = "total_amount", document = "Amount", money = "pounds" },
  { event = "description", document = "Narrative", text = { max = 100 } },
  { event = "payer.name", document = "Payer/Name" },
  { event = "payer.email", document = "Payer/Email" },
  { event = "lines[]", document = "Lines[]", fields = [
    { event = "account", document = "AccountReference" },
    { event = "fund", document = "FundCode", codes = "fund" },
    { event = "amount", document = "Amount", money = "pounds" },
    { event = "vat.code", document = "VatCode", codes = "ims-vat", default = "outside" },
    { event = "vat.rate", document = "VatRate", decimal = { places = 4 } },
  ] },
]
"#;

async fn translating(node: &Node) -> Site {
    let site = Site::on(node.broker.clone(), "[adapters.bench]\nsettings = { out = \"out.bridge\" }\n").await;
    site.folder.write("adapters/bench.toml", ADAPTER);
    site.folder.write("mappings/bench/row.toml", MAPPING);
    site
}

const ROUTE: &str = "packhorse.bench.translate";

async fn amqp(count: usize) {
    println!(
        "\nAMQP to AMQP, {count} events of {} bytes, window {WINDOW}, quorum queues, persistent, mandatory, confirms",
        event(0).to_string().len()
    );
    let node = Node::with(&["rabbitmq_management", "rabbitmq_shovel", "rabbitmq_shovel_management"]).await;
    let mut rates: [Vec<f64>; 3] = Default::default();
    for round in 0..ROUNDS {
        let site = translating(&node).await;
        let vhost = &site.vhost;
        let url = vhost.address_with_login();
        for queue in ["in.bare", "out.bare", "in.shovel", "out.shovel", "out.bridge"] {
            vhost.queue(queue).await;
        }
        site.good(&["topology", "apply"]).await;
        // They take turns in going first.
        for turn in 0..3 {
            let contender = (turn + round) % 3;
            let (input, output) =
                [(ROUTE, "out.bridge"), ("in.bare", "out.bare"), ("in.shovel", "out.shovel")][contender];
            load(&url, input, count).await;
            let began = Instant::now();
            let took = match contender {
                0 => {
                    let bridge = site.start().await;
                    filled(vhost, output, count).await;
                    let took = began.elapsed();
                    assert!(bridge.stop().await);
                    took
                }
                1 => {
                    let task = tokio::spawn(bare_forwarder(url.clone(), input.to_owned(), output.to_owned()));
                    filled(vhost, output, count).await;
                    task.abort();
                    began.elapsed()
                }
                _ => {
                    let value = json!({ "value": {
                        "src-protocol": "amqp091", "src-uri": url, "src-queue": input, "src-prefetch-count": 2 * WINDOW,
                        "dest-protocol": "amqp091", "dest-uri": url, "dest-queue": output, "ack-mode": "on-confirm" } });
                    vhost.shovel("PUT", value).await;
                    filled(vhost, output, count).await;
                    let took = began.elapsed();
                    vhost.shovel("DELETE", Value::Null).await;
                    took
                }
            };
            rates[contender].push(count as f64 / took.as_secs_f64());
        }
        site.account("bench.translate").await;
    }
    let [bridge, bare, shovel] = rates.map(median);
    println!("  packhorse, translating, journal on   {bridge:>8.0} /s");
    println!(
        "  bare lapin forwarder                 {bare:>8.0} /s   packhorse is {:.2} of it",
        bridge / bare
    );
    println!(
        "  RabbitMQ's Shovel                    {shovel:>8.0} /s   packhorse is {:.2} of it",
        bridge / shovel
    );
}

async fn http(count: usize) {
    println!("\nAMQP to HTTP, {count} events, one request each, 8 at once");
    let node = Node::start().await;
    let sink = |request: &Request| Answer::json(201, &json!({ "Reference": request.body.len() }));
    let server = Server::start(Arc::new(sink), 0).await.unwrap();
    let mut rates: [Vec<f64>; 2] = Default::default();
    for round in 0..ROUNDS {
        let settings = format!("[adapters.bench]\nsettings = {{ url = \"{}\" }}\n", server.url);
        let site = Site::on(node.broker.clone(), &settings).await;
        let adapter = ADAPTER
            .replace(
                "[settings.out]\nabout = \"The queue to publish to\"",
                "[settings.url]\nabout = \"Where\"",
            )
            .replace("[amqp]\naddresses = \"\"", "[http]\nbase_url = \"{{ settings.url }}\"")
            .replace(
                "publish = { exchange = \"\", routing_key = \"{{ settings.out }}\" }",
                "request = { method = \"POST\", path = \"/bridge\" }\nconcurrency = 8",
            );
        site.folder.write("adapters/bench.toml", adapter);
        site.folder.write("mappings/bench/row.toml", MAPPING);
        site.vhost.queue("in.bare").await;
        site.good(&["topology", "apply"]).await;
        let url = site.vhost.address_with_login();
        for turn in 0..2 {
            let contender = (turn + round) % 2;
            let (queue, path) = [(ROUTE, "/bridge"), ("in.bare", "/bare")][contender];
            load(&url, queue, count).await;
            let before = server.requests("POST", path).len();
            let began = Instant::now();
            if contender == 0 {
                let bridge = site.start().await;
                server.until("POST", path, before + count).await;
                rates[0].push(count as f64 / began.elapsed().as_secs_f64());
                assert!(bridge.stop().await);
            } else {
                let task =
                    tokio::spawn(bare_poster(url.clone(), queue.to_owned(), format!("{}{path}", server.url)));
                server.until("POST", path, before + count).await;
                rates[1].push(count as f64 / began.elapsed().as_secs_f64());
                task.abort();
            }
        }
    }
    let [bridge, bare] = rates.map(median);
    println!("  packhorse, translating, journal on   {bridge:>8.0} /s");
    println!(
        "  bare loop of lapin and reqwest       {bare:>8.0} /s   packhorse is {:.2} of it",
        bridge / bare
    );
}

/// Eight at once, each acknowledged when it was answered.
async fn bare_poster(url: String, queue: String, to: String) {
    let (_connection, channel) = channel(&url).await;
    channel.basic_qos(8, BasicQosOptions::default()).await.unwrap();
    let consumer = channel
        .basic_consume(queue.into(), "bare".into(), BasicConsumeOptions::default(), FieldTable::default())
        .await
        .unwrap();
    let client = reqwest::Client::new();
    consumer
        .for_each_concurrent(8, |delivery| {
            let (client, to) = (client.clone(), to.clone());
            async move {
                let delivery = delivery.unwrap();
                let answer = client.post(to).body(delivery.data.clone()).send().await.unwrap();
                assert_eq!(answer.status().as_u16(), 201);
                delivery.ack(BasicAckOptions::default()).await.unwrap();
            }
        })
        .await;
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

/// Runs a command over an input, and says how long it took. None if it is not installed.
fn timed(command: &mut Command, input: &[u8]) -> Option<Duration> {
    let began = Instant::now();
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().ok()?;
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writing = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    writing.join().unwrap().unwrap();
    assert!(output.status.success() && !output.stdout.is_empty());
    Some(began.elapsed())
}

fn mapped(mapping: &Mapping, count: usize, settings: &Texts, one: impl Fn(&Mapping, Context<'_>)) -> f64 {
    let values = Texts::new();
    let context =
        Context { settings, values: &values, cause: None, now: jiff::Timestamp::UNIX_EPOCH, trace: None };
    let rates = (0..ROUNDS).map(|_| {
        let began = Instant::now();
        (0..count).for_each(|_| one(mapping, context));
        count as f64 / began.elapsed().as_secs_f64()
    });
    median(rates.collect())
}

fn beside(what: &str, own: f64, name: &str, count: usize, run: impl Fn() -> Option<Duration>) {
    let times: Option<Vec<f64>> =
        (0..ROUNDS).map(|_| run().map(|took| count as f64 / took.as_secs_f64())).collect();
    println!("  {what:<36} {own:>8.0} /s");
    match times.map(median) {
        None => println!("  {name:<36} is not installed"),
        Some(other) => println!("  {name:<36} {other:>8.0} /s   packhorse is {:.2} of it", own / other),
    }
}

fn mapping(count: usize) {
    println!("\nMapping alone: bytes in, bytes out, {count} documents, one core");
    let folder = Folder::new();
    support::copy(&root().join("adapters"), &folder.0.join("adapters"));
    support::copy(&root().join("mappings"), &folder.0.join("mappings"));
    folder.write("mappings/bench/row.toml", MAPPING);
    folder.write(
        "mappings/bench/xml.toml",
        MAPPING.replace("document = { format = \"json\" }", "").replace("Lines[]", "Lines/Line[]")
            + "[document]\nformat = \"xml\"\nroot = \"Row\"\n",
    );
    folder.write("mappings/bench/back.toml", BACK);
    let project = packhorse::config::Project::load(&folder.0.join("packhorse.toml"));
    let get = |name: &str| {
        project.mappings.get(name).unwrap_or_else(|| panic!("{name}: {:?}", project.diagnostics)).clone()
    };
    let data = event(1)["data"].to_string();
    let settings = Texts::new();
    let read = |data: &str| Event {
        id: "event-1".to_owned(),
        source: "urn:bench".to_owned(),
        event_type: "payment.succeeded.v1".to_owned(),
        data: Format::Json.decode(data.as_bytes(), None, &Limits::default()).unwrap(),
        ..Event::default()
    };
    let out = |mapping: &Mapping, context: Context<'_>| {
        let document = mapping.to_document(&read(&data), context).unwrap();
        std::hint::black_box(mapping.format.encode(&document, &mapping.style).unwrap());
    };
    let stream = format!("{data}\n").repeat(count).into_bytes();
    let own = mapped(&get("bench/row"), count, &settings, out);
    beside("packhorse, JSON to JSON", own, "jq, the same fields", count, || {
        timed(Command::new("jq").args(["-c", JQ]), &stream)
    });
    let own = mapped(&get("bench/xml"), count, &settings, out);
    println!("  {:<36} {own:>8.0} /s", "packhorse, JSON to XML");
    // The other way, from the XML that was just made.
    let context = Context {
        settings: &settings,
        values: &settings,
        cause: None,
        now: jiff::Timestamp::UNIX_EPOCH,
        trace: None,
    };
    let xml = get("bench/xml");
    let bytes =
        xml.format.encode(&xml.to_document(&read(&data), context).unwrap(), &Style::default()).unwrap();
    let own = mapped(&get("bench/back"), count, &settings, |mapping, context| {
        let document = mapping.format.decode(&bytes, None, &Limits::default()).unwrap();
        let event = mapping.to_event(&document, context).unwrap();
        std::hint::black_box(packhorse::format::write_json(&event.data));
    });
    let text = String::from_utf8(bytes.clone()).unwrap();
    let (_, row) = text.split_once("?>").unwrap_or(("", &text));
    let many = format!("<Rows>{}</Rows>", row.repeat(count));
    let stylesheet = folder.write("rows.xsl", XSL);
    beside("packhorse, XML to JSON", own, "xsltproc, the same fields", count, || {
        timed(Command::new("xsltproc").arg("--huge").arg(&stylesheet).arg("-"), many.as_bytes())
    });
}

const BACK: &str = r#"
version = 1
about = "The row back to an event."
event = "payment.posted.v1"
only = "to-event"
document = { format = "xml", root = "Row" }
fields = [
  { event = "payment_id", document = "InternalReference" },
  { event = "provider_reference", document = "PspReference" },
  { event = "line_id", constant = "1" },
  { event = "posting_reference", document = "PspReference" },
  { event = "amount", document = "Amount", money = "pounds" },
  { event = "fund", document = "Lines/Line[1]/FundCode", codes = "fund" },
  { event = "account", document = "Lines/Line[1]/AccountReference" },
  { event = "posted_at", document = "TransactionDate", time = { pattern = "%Y-%m-%dT%H:%M:%S", zone = "Europe/London" } },
  { event = "system", constant = "bench" },
]
ignore = ["Narrative", "Payer", "Lines"]
"#;

const JQ: &str = r#"{PspReference: .provider_reference, InternalReference: .payment_id, TransactionDate: .paid_at[0:19],
 Amount: (.total_amount / 100), Narrative: .description[0:100], Payer: {Name: .payer.name, Email: .payer.email},
 Lines: [.lines[] | {AccountReference: .account, FundCode: ({"garden-waste":"21","sundry-sales":"13","card-surcharge":"40"}[.fund]),
 Amount: (.amount / 100), VatCode: ({"outside":"N0","standard":"W0"}[.vat.code // "outside"]), VatRate: .vat.rate}]}"#;

const XSL: &str = r#"<xsl:stylesheet version="1.0" xmlns:xsl="http://www.w3.org/1999/XSL/Transform"><xsl:output method="text"/>
<xsl:template match="/Rows"><xsl:apply-templates select="Row"/></xsl:template>
<xsl:template match="Row">{"payment_id":"<xsl:value-of select="InternalReference"/>","provider_reference":"<xsl:value-of select="PspReference"/>","line_id":"1","posting_reference":"<xsl:value-of select="PspReference"/>","amount":<xsl:value-of select="round(Amount * 100)"/>,"fund":"<xsl:choose><xsl:when test="Lines/Line[1]/FundCode='21'">garden-waste</xsl:when><xsl:when test="Lines/Line[1]/FundCode='13'">sundry-sales</xsl:when></xsl:choose>","account":"<xsl:value-of select="Lines/Line[1]/AccountReference"/>","posted_at":"<xsl:value-of select="TransactionDate"/>Z","system":"bench"}
</xsl:template></xsl:stylesheet>"#;

/// The resident memory of this process, in MiB.
fn memory() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

async fn soak(count: usize) {
    println!("\nThe memory of a bridge (with this program around it) over a backlog of {count}");
    let node = Node::start().await;
    let site = translating(&node).await;
    site.vhost.queue("out.bridge").await;
    site.good(&["topology", "apply"]).await;
    load(&site.vhost.address_with_login(), ROUTE, count).await;
    println!("  before {:>6.1} MiB", memory());
    let began = Instant::now();
    let bridge = site.start().await;
    for tenth in 1..=10 {
        let wanted = (count * tenth / 10) as u64;
        while site.vhost.depth("out.bridge").await < wanted {
            assert!(began.elapsed() < Duration::from_secs(3_600), "an hour");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        println!("  {:>3} %  {:>6.1} MiB   {:>7.0} s", tenth * 10, memory(), began.elapsed().as_secs_f64());
    }
    assert!(bridge.stop().await);
}
