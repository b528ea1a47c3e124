//! What care costs: order, claims and the account, a store that holds much, a journal that remembers much. Every number is a
//! ratio of the same run without it, on the same machine, in turns; the median of the rounds counts.
//!
//! What is compared, and what "off" means:
//!
//! - `off`: an unordered route to another queue of the same broker whose repeat is harmless. Its messages are only looked up, and
//!   recorded in one commit. The journal and the count of what was taken in cannot be turned off: the account is made of them.
//! - `claims`: the same with `repeat = "never"`: every message is claimed, and that committed, before it is sent.
//! - `order`: the same as `off` with `order = "subject"`, a thousand subjects in turn.
//! - `order, claims`: both.
//! - `order, claims, account`: both, while `packhorse account` is drawn up once a second, each time by a process of its own.
//! - `requests`: to a system over HTTP, with claims, since these cannot be turned off there; without and with order.
//!
//! Then: 100,000 messages in the parking lot, held by dead letters, while other subjects go through; a journal of ten million
//! rows; and the same while it is pruned as fast as it may be.

use super::{
    standins::http::{Answer, Request, Server},
    support::{self, Node, Running, Site},
};
use packhorse::event::Key;
use rusqlite::{Connection, params};
use serde_json::{Value, json};
use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// How often each contender runs.
const ROUNDS: usize = 5;
/// Subjects, in turn.
const SUBJECTS: usize = 1_000;
const QUEUE: &str = "packhorse.care.post";
const ROUTE: &str = "care.post";

/// A contender.
#[derive(Clone, Copy)]
struct With {
    order: bool,
    claims: bool,
    account: bool,
    http: bool,
}

const OFF: With = With { order: false, claims: false, account: false, http: false };
const ALL: With = With { order: true, claims: true, ..OFF };

fn adapter(with: With) -> String {
    let order = if with.order { "order = \"subject\"\n" } else { "" };
    let repeat = if with.claims { "never" } else { "harmless" };
    let (setting, how) = match with.http {
        true => (
            "[http]\nbase_url = \"{{ settings.url }}\"\n",
            "request = { method = \"POST\", path = \"/cases\" }\nconcurrency = 32\n",
        ),
        false => ("[amqp]\naddresses = \"\"\n", "publish = { exchange = \"\", routing_key = \"out\" }\n"),
    };
    format!(
        "version = 1\ntitle = \"Care\"\nabout = \"For the benchmark\"\n[settings.url]\nabout = \"Where\"\n{setting}\
         [deliver.post]\nabout = \"Posts.\"\nevent = \"payment.succeeded.v1\"\nmakes = \"record\"\nrepeat = \"{repeat}\"\n{order}{how}"
    )
}

/// A bridge with a route of this kind.
async fn bridge(node: &Node, with: With, url: &str) -> Site {
    let settings = format!("[adapters.care]\nsettings = {{ url = \"{url}\" }}\n");
    let site = Site::on(node.broker.clone(), &settings).await;
    site.folder.write("adapters/care.toml", adapter(with));
    site.vhost.queue("out").await;
    site.good(&["topology", "apply"]).await;
    site
}

/// Fills its queue.
async fn fill(site: &Site, numbers: Range<usize>) {
    let mut data = support::example("payment.succeeded.v1");
    let numbers: Vec<usize> = numbers.collect();
    for part in numbers.chunks(2_000) {
        let event = |number: &usize| {
            data["payment_id"] = json!(format!("case-{}", number % SUBJECTS));
            data["provider_reference"] = json!(format!("step-{}", number / SUBJECTS));
            let id = format!("event-{number}");
            let event = json!({ "specversion": "1.0", "id": id, "source": "urn:bench", "type": "payment.succeeded.v1",
                "time": "2026-11-24T09:41:06Z", "datacontenttype": "application/json", "data": data });
            (id, event.to_string().into_bytes())
        };
        site.vhost.publish_many(QUEUE, &part.iter().map(event).collect::<Vec<_>>()).await;
    }
}

/// Runs the program until all are at the other end: messages a second, and the most memory in MiB.
async fn run(site: &Site, with: With, server: Option<&AtomicUsize>, count: usize) -> (f64, u64) {
    let before = match server {
        Some(server) => server.load(Ordering::Relaxed),
        None => site.vhost.depth("out").await as usize,
    };
    let began = Instant::now();
    let running: Running = site.run().await;
    let account = async {
        match with.account {
            true => loop {
                account_of(site).await;
                tokio::time::sleep(Duration::from_secs(1)).await;
            },
            false => std::future::pending::<()>().await,
        }
    };
    let through = async {
        match server {
            Some(server) => {
                while server.load(Ordering::Relaxed) < before + count {
                    assert!(began.elapsed() < Duration::from_secs(1_800), "half an hour");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
            None => {
                while (site.vhost.depth("out").await as usize) < before + count {
                    assert!(began.elapsed() < Duration::from_secs(1_800), "half an hour");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    };
    tokio::select! {
        () = through => {}
        () = account => {}
    }
    let rate = count as f64 / began.elapsed().as_secs_f64();
    let memory = running.most_memory() / 1024;
    running.terminate().await;
    account_of(site).await;
    (rate, memory)
}

/// The account, which must close. The dead letters of these stores were never at the broker, which is not asked for them.
async fn account_of(site: &Site) -> Value {
    let out = site.good(&["account", "--json", "--offline", "--route", ROUTE]).await;
    serde_json::from_str(&out).unwrap()
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

/// Contenders in turns; their medians beside the first's.
async fn beside(
    node: &Node,
    contenders: &[(&str, With)],
    server: Option<(&str, &AtomicUsize)>,
    count: usize,
    aim: f64,
) {
    let mut rates: Vec<Vec<f64>> = vec![Vec::new(); contenders.len()];
    let mut memory = vec![0; contenders.len()];
    let url = server.map_or("", |(url, _)| url);
    for round in 0..ROUNDS {
        for turn in 0..contenders.len() {
            let at = (turn + round) % contenders.len();
            let site = bridge(node, contenders[at].1, url).await;
            fill(&site, 0..count).await;
            let (rate, most) = run(&site, contenders[at].1, server.map(|(_, came)| came), count).await;
            rates[at].push(rate);
            memory[at] = most.max(memory[at]);
        }
    }
    tell(contenders.iter().map(|(name, _)| *name), rates, &memory, aim);
}

/// Medians, beside the first's.
fn tell<'a>(names: impl Iterator<Item = &'a str>, rates: Vec<Vec<f64>>, memory: &[u64], aim: f64) {
    let first = median(rates[0].clone());
    for (at, name) in names.enumerate() {
        let rate = median(rates[at].clone());
        let ratio = rate / first;
        let verdict = if ratio < aim { "  below the aim" } else { "" };
        let rounds: Vec<String> = rates[at].iter().map(|rate| format!("{rate:.0}")).collect();
        println!(
            "  {name:<26} {rate:>8.0} /s   {ratio:.2} of the first   {} MiB   ({}){verdict}",
            memory[at],
            rounds.join(" ")
        );
    }
}

pub async fn cost(node: &Node, count: usize) {
    // The tests' own way to have every store on a server.
    let (store, aim) = match std::env::var("PACKHORSE_STORE").as_deref() {
        Ok("postgres") => ("PostgreSQL", 0.6),
        _ => ("SQLite", 0.8),
    };
    println!("care: {count} events of {SUBJECTS} subjects, {store}; the aim is {aim}");
    let contenders = [
        ("off", OFF),
        ("claims", With { claims: true, ..OFF }),
        ("order", With { order: true, ..OFF }),
        ("order, claims", ALL),
        ("order, claims, account", With { account: true, ..ALL }),
    ];
    beside(node, &contenders, None, count, aim).await;
    println!("requests: {count} events, 32 at once, with claims");
    let came = Arc::new(AtomicUsize::new(0));
    let counted = came.clone();
    let handler = move |_: &Request| {
        counted.fetch_add(1, Ordering::Relaxed);
        Answer::empty(201)
    };
    let server = Server::start(Arc::new(handler), 0).await.unwrap();
    let unordered = With { http: true, claims: true, ..OFF };
    let contenders = [("no order", unordered), ("order", With { order: true, ..unordered })];
    beside(node, &contenders, Some((&server.url, &came)), count, aim).await;
}

fn now() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// The store of a site, made by the program, opened to be filled in one go.
async fn store(site: &Site) -> (Connection, i64) {
    // The tables are made, and the route has its number, when the bridge has run once.
    let running = site.run().await;
    assert_eq!(running.terminate().await, 0);
    site.good(&["topology", "apply"]).await;
    let store = Connection::open(site.folder.0.join("var/packhorse.db")).unwrap();
    store
        .execute_batch("PRAGMA synchronous = OFF; PRAGMA journal_mode = OFF; PRAGMA cache_size = -1200000")
        .unwrap();
    let route = store.query_row("SELECT n FROM route WHERE name = ?1", [ROUTE], |row| row.get(0)).unwrap();
    (store, route)
}

/// All of it on the disk, so that no run waits for it.
fn done(store: Connection) {
    store.execute_batch("PRAGMA journal_mode = WAL").unwrap();
    let path = store.path().unwrap().to_owned();
    drop(store);
    std::fs::File::open(path).unwrap().sync_all().unwrap();
}

/// Messages of other subjects in the parking lot, held by dead letters: a thousand subjects.
fn hold(store: &Connection, route: i64, messages: u64) {
    let messages = messages as usize;
    let tx = store.unchecked_transaction().unwrap();
    let at = now() - 86_400_000;
    let (mut high, mut low) = (0, 0);
    let mut count = 0;
    let mut row = |id: &str, state: i64| {
        let key = Key::of("urn:held", id).0;
        tx.prepare_cached(
            "INSERT INTO journal (route, key, part, state, attempt, replay, doubt, run, source, id, taken_at, done_at)
             VALUES (?1, ?2, 0, ?3, 1, 0, 0, 1, 'urn:held', ?4, ?5, ?5)",
        )
        .unwrap()
        .execute(params![route, key, state, id, at])
        .unwrap();
        high += i64::from(u32::from_be_bytes(key[..4].try_into().unwrap()));
        low += i64::from(u32::from_be_bytes(key[4..8].try_into().unwrap()));
        count += 1;
        key
    };
    let body = vec![b'x'; 750];
    for subject in 0..SUBJECTS {
        let shown = format!("held-{subject}");
        let digest = Key::of("subject", &shown).0;
        let key = row(&format!("{shown}-dead"), 5);
        tx.execute(
            "INSERT INTO held (route, subject, shown, key, code, since) VALUES (?1, ?2, ?3, ?4, 'PH2002', ?5)",
            params![route, digest, shown, key, at],
        )
        .unwrap();
        for place in 0..messages / SUBJECTS {
            let key = row(&format!("{shown}-{place}"), 2);
            tx.prepare_cached(
                "INSERT INTO parked (route, subject, shown, place, key, exchange, routing_key, properties, body, parked_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, '', ?6, '{}', ?7, ?8)",
            )
            .unwrap()
            .execute(params![route, digest, shown, place as i64, key, QUEUE, body, at])
            .unwrap();
        }
    }
    tx.execute(
        "UPDATE route SET parked = ?2, parked_bytes = ?3 WHERE n = ?1",
        params![route, messages as i64, (messages * body.len()) as i64],
    )
    .unwrap();
    intake(&tx, route, at, (count, high, low));
    tx.commit().unwrap();
}

fn intake(tx: &Connection, route: i64, at: i64, (messages, high, low): (i64, i64, i64)) {
    tx.execute(
        "INSERT INTO intake (route, hour, messages, copies, high, low) VALUES (?1, ?2, ?3, 0, ?4, ?5)",
        params![route, at / 3_600_000, messages, high, low],
    )
    .unwrap();
}

/// So many messages that were delivered, the last of them taken in so long ago, a hundred thousand an hour: as they come, in the
/// order of time, with keys that are all over.
fn remember(store: &Connection, route: i64, messages: u64, ago: i64) {
    let tx = store.unchecked_transaction().unwrap();
    let (source, mapping) =
        ("urn:platform:payments", "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef");
    let began = now() - ago - messages as i64 * 36;
    let mut hours: std::collections::BTreeMap<i64, (i64, i64, i64)> = Default::default();
    for n in 0..messages {
        let id = format!("event-{n}");
        let key = Key::of(source, &id).0;
        let at = began + n as i64 * 36;
        tx.prepare_cached(
            "INSERT INTO journal (route, key, part, state, attempt, replay, doubt, run, source, id, taken_at, sent_at, done_at, mapping)
             VALUES (?1, ?2, 0, 4, 1, 0, 0, 1, ?6, ?3, ?4, ?4, ?4, ?5)",
        )
        .unwrap()
        .execute(params![route, key, id, at, mapping, source])
        .unwrap();
        let sums = hours.entry(at / 3_600_000).or_default();
        sums.0 += 1;
        sums.1 += i64::from(u32::from_be_bytes(key[..4].try_into().unwrap()));
        sums.2 += i64::from(u32::from_be_bytes(key[4..8].try_into().unwrap()));
    }
    for (hour, sums) in hours {
        intake(&tx, route, hour * 3_600_000, sums);
    }
    tx.commit().unwrap();
}

/// What a store is filled with.
type Filling = fn(&Connection, i64, u64);

/// The same run over an empty store and over full ones, which are filled once.
async fn over(node: &Node, with: With, count: usize, rows: u64, fillings: &[(&str, &str, Filling)]) {
    let mut sites = Vec::new();
    for (name, settings, filling) in fillings {
        let site = bridge(node, with, "").await;
        let (connection, route) = store(&site).await;
        let began = Instant::now();
        filling(&connection, route, rows);
        done(connection);
        site.edit("packhorse.toml", "[admin]", &format!("{settings}[admin]"));
        let bytes = std::fs::metadata(site.folder.0.join("var/packhorse.db")).unwrap().len();
        println!("  {name}: {} MiB, filled in {:.0} s", bytes >> 20, began.elapsed().as_secs_f64());
        sites.push(site);
    }
    let mut rates: Vec<Vec<f64>> = vec![Vec::new(); fillings.len()];
    let mut memory = vec![0; fillings.len()];
    for round in 0..ROUNDS {
        for turn in 0..sites.len() {
            let at = (turn + round) % sites.len();
            fill(&sites[at], round * count..(round + 1) * count).await;
            let (rate, most) = run(&sites[at], with, None, count).await;
            rates[at].push(rate);
            memory[at] = most.max(memory[at]);
        }
    }
    tell(fillings.iter().map(|(name, ..)| *name), rates, &memory, 0.9);
    for (site, (name, ..)) in sites.iter().zip(fillings) {
        let began = Instant::now();
        let line = account_of(site).await;
        println!(
            "  {name}: the account of {} closes, in {:.1} s",
            line["taken"],
            began.elapsed().as_secs_f64()
        );
    }
}

fn nothing(_: &Connection, _: i64, _: u64) {}

/// How old the memory is that is not yet to be forgotten, and the one that is.
const YOUNG: i64 = 10 * 86_400_000;
const OLD: i64 = 200 * 86_400_000;

pub async fn held(node: &Node, count: usize, messages: u64) {
    println!("held: {count} events while {messages} messages of other subjects are held; the aim is 0.9");
    over(node, ALL, count, messages, &[("an empty store", "", nothing), ("a full parking lot", "", hold)])
        .await;
}

pub async fn journal(node: &Node, count: usize, rows: u64) {
    println!("journal: {count} events beside {rows} rows, unordered, claimed; the aim is 0.9");
    let young: Filling = |store, route, rows| remember(store, route, rows, YOUNG);
    let old: Filling = |store, route, rows| remember(store, route, rows, OLD);
    let with = With { claims: true, ..OFF };
    let fillings: [(&str, &str, Filling); 3] =
        [("an empty journal", "", nothing), ("a full journal", "", young), ("one that is pruned", "", old)];
    over(node, with, count, rows, &fillings).await;
}
