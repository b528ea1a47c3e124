//! What a whole bridge needs for an extract, a file of rows and a batch, beside named references in one run on one machine; and
//! how much memory it has while it does.
//!
//!   cargo bench --bench bridge                  all of it
//!   cargo bench --bench bridge -- compare [N]   two extracts of N rows (a million unless said), one row in a hundred changed, beside
//!                                               `sort` of both and `comm`
//!   cargo bench --bench bridge -- split [N]     a file of N rows (a million unless said) to N events on the broker, beside files of a
//!                                               hundredth and a tenth of it; at the end the account must close
//!   cargo bench --bench bridge -- care [N]      N events (30,000 unless said) with order, claims and the account, beside the same
//!                                               without them (care.rs says what that means); on PostgreSQL with
//!                                               `PACKHORSE_STORE=postgres` and what `scripts/postgres start` prints in the environment
//!   cargo bench --bench bridge -- held [N]      the same beside N held messages (100,000 unless said)
//!   cargo bench --bench bridge -- journal [N]   the same beside a journal of N rows (ten million unless said), and while it is pruned
//!   cargo bench --bench bridge -- batch [N]     N Direct Debit collections (500,000 unless said) from the broker into one Bacs
//!                                               submission, beside a Python script that writes the same records of what it has
//!
//! Starts a RabbitMQ node of its own (`scripts/broker`); the bridge is the program itself, built for release.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, dead_code)]

#[path = "bridge/care.rs"]
mod care;
#[path = "../tests/it/nightly.rs"]
mod nightly;
#[path = "../tests/standins/mod.rs"]
mod standins;
#[path = "../tests/it/support.rs"]
mod support;

use nightly::Nightly;
use serde_json::json;
use std::{
    io::{BufWriter, Write as _},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};
use support::{Node, Site};

/// How many events go through, to see what care costs.
const EVENTS: usize = 60_000;

#[tokio::main]
async fn main() {
    // `cargo bench` adds `--bench`.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let given = arguments.get(1).map(|text| text.replace('_', "").parse().expect("a number"));
    let (count, items) = (given.unwrap_or(1_000_000), given.unwrap_or(500_000));
    let node = Node::start().await;
    match arguments.first().map(String::as_str) {
        None => {
            compare(&node, count).await;
            split(&node, count).await;
            batch(&node, items).await;
            care::cost(&node, EVENTS).await;
            care::held(&node, EVENTS, 100_000).await;
            care::journal(&node, EVENTS, 10_000_000).await;
        }
        Some("compare") => compare(&node, count).await,
        Some("split") => split(&node, count).await,
        Some("batch") => batch(&node, items).await,
        Some("care") => care::cost(&node, given.unwrap_or(EVENTS)).await,
        Some("held") => care::held(&node, EVENTS, given.unwrap_or(100_000) as u64).await,
        Some("journal") => care::journal(&node, EVENTS, given.unwrap_or(10_000_000) as u64).await,
        Some(other) => panic!("{other}: compare, split, batch, care, held or journal"),
    }
}

/// Writes an extract; every `changed`th row says something else than in the one before.
fn extract(path: &Path, rows: usize, changed: Option<usize>) {
    let mut file = BufWriter::new(std::fs::File::create(path).unwrap());
    file.write_all(b"CHILD,NAME,DOB\r\n").unwrap();
    for n in 0..rows {
        let name = if changed.is_some_and(|every| n % every == 0) { "Other" } else { "Name" };
        write!(file, "c{n},\"{name}, {n}\",{:02}/{:02}/2015\r\n", n % 28 + 1, n % 12 + 1).unwrap();
    }
    file.flush().unwrap();
}

async fn compare(node: &Node, rows: usize) {
    println!("compare: two extracts of {rows} rows, one in a hundred changed");
    let nightly = Nightly::on(node.broker.clone()).await;
    let (first, second) = (nightly.path("1.tmp"), nightly.path("2.tmp"));
    extract(&first, rows, None);
    extract(&second, rows, Some(100));
    // What a person at a shell would do.
    let began = Instant::now();
    let script = "sort 1.tmp > 1.sorted && sort 2.tmp > 2.sorted && comm -3 1.sorted 2.sorted | wc -l";
    let shell =
        Command::new("bash").args(["-c", script]).env("LC_ALL", "C").current_dir(nightly.path("")).output();
    let (shell, reference) = (shell.unwrap(), began.elapsed());
    println!(
        "  sort, sort, comm: {:.1} s, {} lines",
        reference.as_secs_f64(),
        String::from_utf8_lossy(&shell.stdout).trim()
    );
    let running = nightly.site.run().await;
    let began = Instant::now();
    std::fs::rename(&first, nightly.path("children-1.csv")).unwrap();
    nightly.file_within("children-1.csv", "done", Duration::from_secs(1_800)).await;
    println!("  the baseline: {:.1} s", began.elapsed().as_secs_f64());
    let began = Instant::now();
    std::fs::rename(&second, nightly.path("children-2.csv")).unwrap();
    nightly.file_within("children-2.csv", "done", Duration::from_secs(1_800)).await;
    let ours = began.elapsed();
    println!(
        "  the second, to its news on disk: {:.1} s, {:.2} of sort and comm; most memory {} MiB",
        ours.as_secs_f64(),
        ours.as_secs_f64() / reference.as_secs_f64(),
        running.most_memory() / 1024
    );
    running.terminate().await;
}

async fn split(node: &Node, rows: usize) {
    println!("split: every row an event on the broker");
    for rows in [rows / 100, rows / 10, rows] {
        let nightly = Nightly::on(node.broker.clone()).await;
        let part = nightly.path("1.tmp");
        extract(&part, rows, None);
        let running = nightly.site.run().await;
        let began = Instant::now();
        std::fs::rename(&part, nightly.path("rows-1.csv")).unwrap();
        loop {
            let line = nightly.site.account("nightly.rows").await;
            if line["delivered"] == rows && line["files"]["read"] == 1 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        let took = began.elapsed().as_secs_f64();
        println!(
            "  {rows} rows: {took:.1} s, {:.0}/s; most memory {} MiB; the account closes",
            rows as f64 / took,
            running.most_memory() / 1024
        );
        running.terminate().await;
    }
}

/// What somebody would write who has the collections in memory already.
const SCRIPT: &str = r#"
import sys
count, total = int(sys.argv[1]), 0
with open(sys.argv[2], "w", newline="") as file:
    for n in range(count):
        amount = 100 + n % 1000
        total += amount
        file.write("%-6s%-8s0%-2s%-6s%-8s    %011d%-18s%-18s%-18s\r\n" % (
            "200415", "55779911", "17", "601613", "87654321", amount, "EXAMPLE COUNCIL", "CT%010d" % n, "A PAYER"))
print(total)
"#;

async fn batch(node: &Node, items: usize) {
    const QUEUE: &str = "packhorse.bacs-standard-18.collections";
    println!("batch: {items} collections into one submission");
    let settings = "[adapters.bacs-standard-18]\nsettings = { folder = \"$FOLDER/out\", service_user_number = \"123456\", \
        service_user_name = \"EXAMPLE COUNCIL\", sort_code = \"601613\", account = \"87654321\", account_name = \"EXAMPLE COUNCIL\" }\n";
    let site = Site::on(node.broker.clone(), settings).await;
    site.edit("adapters/bacs-standard-18.toml", "cut_off = [\"16:00\"]", "cut_off = []");
    let out = site.folder.0.join("out");
    std::fs::create_dir_all(&out).unwrap();
    site.good(&["topology", "apply"]).await;
    let mut data = support::example("direct-debit.collection.requested.v1");
    data["collect_on"] = json!("2026-01-05");
    let numbers: Vec<usize> = (0..items).collect();
    for part in numbers.chunks(2_000) {
        let event = |number: &usize| {
            data["reference"] = json!(format!("CT{number:010}"));
            data["amount"] = json!(100 + number % 1_000);
            let id = format!("event-{number}");
            let event = json!({ "specversion": "1.0", "id": id, "source": "urn:platform:payments", "time": "2026-11-23T09:41:06Z",
                "type": "direct-debit.collection.requested.v1", "datacontenttype": "application/json", "data": data });
            (id, event.to_string().into_bytes())
        };
        site.vhost.publish_many(QUEUE, &part.iter().map(event).collect::<Vec<_>>()).await;
    }
    let running = site.run().await;
    let began = Instant::now();
    support::until_within(Duration::from_secs(3_600), "all in the batch", async || {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let line = site.account("bacs-standard-18.collections").await;
        (line["batched"] == items).then_some(())
    })
    .await;
    let joined = began.elapsed().as_secs_f64();
    println!("  in the batch: {joined:.1} s, {:.0}/s", items as f64 / joined);
    let began = Instant::now();
    site.good(&["batches", "seal", "1", "--by", "A Benchmark", "--reason", "it is full"]).await;
    let file = out.join("BACS000001.txt");
    support::until_within(Duration::from_secs(3_600), "the submission", async || {
        tokio::time::sleep(Duration::from_millis(20)).await;
        file.exists().then_some(())
    })
    .await;
    let sealed = began.elapsed().as_secs_f64();
    let bytes = std::fs::metadata(&file).unwrap().len();
    let script = site.folder.write("script.py", SCRIPT);
    let began = Instant::now();
    let written =
        Command::new("python3").arg(&script).arg(items.to_string()).arg(out.join("script.txt")).output();
    assert!(written.unwrap().status.success());
    let reference = began.elapsed().as_secs_f64();
    println!(
        "  sealed, rendered, put: {sealed:.1} s, {} MB, {:.2} of the script; most memory {} MiB",
        bytes / 1_000_000,
        sealed / reference,
        running.most_memory() / 1024
    );
    let began = Instant::now();
    support::until_within(Duration::from_secs(3_600), "all delivered", async || {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let line = site.account("bacs-standard-18.collections").await;
        (line["delivered"] == items).then_some(())
    })
    .await;
    println!("  all on record as delivered: {:.1} s more; the account closes", began.elapsed().as_secs_f64());
    running.terminate().await;
}
