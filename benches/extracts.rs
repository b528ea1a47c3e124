//! How long it takes to see what is new in a nightly extract, and to make events of a file's rows, beside named references in one
//! run on one machine; and how much memory a bridge has while it does.
//!
//!   cargo bench --bench extracts                  all of it
//!   cargo bench --bench extracts -- compare [N]   two extracts of N rows (a million unless said), one row in a hundred changed, beside
//!                                                 `sort` of both and `comm`
//!   cargo bench --bench extracts -- split [N]     a file of N rows (a million unless said) to N events on the broker, beside files of a
//!                                                 hundredth and a tenth of it; at the end the account must close
//!
//! Starts a RabbitMQ node of its own (`scripts/broker`); the bridge is the program itself, built for release.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, dead_code)]

#[path = "../tests/it/nightly.rs"]
mod nightly;
#[path = "../tests/standins/mod.rs"]
mod standins;
#[path = "../tests/it/support.rs"]
mod support;

use nightly::Nightly;
use std::{
    io::{BufWriter, Write as _},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};
use support::Node;

#[tokio::main]
async fn main() {
    // `cargo bench` adds `--bench`.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let count = arguments.get(1).map_or(1_000_000, |text| text.replace('_', "").parse().expect("a number"));
    let node = Node::start().await;
    match arguments.first().map(String::as_str) {
        None => {
            compare(&node, count).await;
            split(&node, count).await;
        }
        Some("compare") => compare(&node, count).await,
        Some("split") => split(&node, count).await,
        Some(other) => panic!("{other}: compare or split"),
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
