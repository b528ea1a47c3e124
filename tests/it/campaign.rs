//! The campaign: a bridge with several routes under load, while at random the program is killed, also at gaps by name, the
//! broker stops, the network cuts and stalls, and the system cuts its answers, gives them late, twice, or says nothing.
//! Afterwards everything drains, and what arrived is compared with what was said. Started by `scripts/faults`, which gives
//! it time and seed; the seed decides what happens, the machine decides when.

use crate::{
    bacs::read,
    broker::paid,
    nightly::Nightly,
    proxy::{Proxy, Way},
    standins::{
        http::{Fault, Server},
        ims::Ims,
    },
    support::{Node, Running, Site, Vhost, example, until_within},
};
use futures_util::FutureExt as _;
use packhorse::kill::POINTS;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Write as _,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

/// How long draining may take: breaks between attempts are part of it.
const DRAIN: Duration = Duration::from_secs(300);
const POST: &str = "localgov-ims.post";
const CROSS: &str = "council-broker.payments";
const COLLECT: &str = "bacs-standard-18.collections";
const RECORDS: &str = "nightly.rows";

/// Numbers from a seed (xorshift).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, most: u64) -> u64 {
        self.next() % most
    }

    fn of<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len() as u64) as usize]
    }

    async fn pause(&mut self, most: u64) {
        tokio::time::sleep(Duration::from_millis(self.below(most))).await;
    }
}

/// Everything that takes part.
struct World {
    node: Node,
    nightly: Nightly,
    council: Vhost,
    ims: Arc<Ims>,
    server: Server,
    proxy: Arc<Proxy>,
    running: Option<Running>,
    chance: Chance,
    payments: usize,
    collections: usize,
    files: usize,
}

/// Whether a route of this world passes a gap.
fn is_passed(point: &str) -> bool {
    let (way, gap) = point.split_once('.').unwrap();
    match way {
        "ask" | "extract" => false,
        "deliver" => gap != "kept",
        "collect" => matches!(gap, "published" | "finished"),
        _ => true,
    }
}

/// Records of one file.
const ROWS: usize = 25;

impl World {
    async fn new(seed: u64) -> World {
        let node = Node::start().await;
        let nightly = Nightly::on(node.broker.clone()).await;
        let council = Vhost::new(node.broker.clone()).await;
        council.queue("payments.succeeded").await;
        council.queue("platform.outbox").await;
        let ims = Arc::new(Ims::default());
        let server = Server::start(ims.clone(), 0).await.unwrap();
        let site = &nightly.site;
        let address = site.vhost.address();
        let (_, at) = address.split_once("://").unwrap();
        let (at, vhost) = at.split_once('/').unwrap();
        let proxy = Proxy::to(at.parse().unwrap()).await;
        let more = format!(
            "[adapters.nightly]\nsettings = {{ folder = \"$FOLDER/extracts\" }}\n\
             [adapters.localgov-ims]\nsettings = {{ base_url = \"{}\" }}\n\
             [adapters.council-broker]\nsettings = {{ addresses = \"{}\", username = \"{}\", password = \"file:$FOLDER/secrets/broker\", payments_queue = \"payments.succeeded\", updates_queue = \"platform.outbox\" }}\n\
             [adapters.bacs-standard-18]\nsettings = {{ folder = \"$FOLDER/out\", service_user_number = \"123456\", service_user_name = \"EXAMPLE COUNCIL\", sort_code = \"601613\", account = \"87654321\", account_name = \"EXAMPLE COUNCIL\" }}\n",
            server.url,
            council.address(),
            node.broker.user
        );
        site.settings(&format!("amqp://{}/{vhost}", proxy.address), &more);
        site.edit("packhorse.toml", "[broker]", "[broker]\nheartbeat = \"2s\"");
        std::fs::create_dir_all(site.folder.0.join("out")).unwrap();
        // What waits comes again soon: a campaign has no hours.
        for (adapter, route) in
            [("localgov-ims", "[deliver.post]\n"), ("council-broker", "[deliver.payments]\n")]
        {
            site.edit(
                &format!("adapters/{adapter}.toml"),
                route,
                &format!("{route}retry = {{ waits = [\"5s\"] }}\n"),
            );
        }
        // Its search lags behind, and the adapter says by how much.
        site.edit(
            "adapters/localgov-ims.toml",
            "[deliver.post.probe]\n",
            "[deliver.post.probe]\nsettle = \"4s\"\n",
        );
        *ims.lag.lock().unwrap() = Duration::from_secs(2);
        site.edit("adapters/bacs-standard-18.toml", "cut_off = [\"16:00\"]", "cut_off = []\nmost = 20");
        for (queue, key) in [("records", "test.child.v1.#"), ("replies", "payment.posted.v1.#")] {
            site.vhost.queue(queue).await;
            site.vhost.bind("platform.updates", queue, key).await;
        }
        site.good(&["topology", "apply"]).await;
        let chance = Chance(seed.max(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        World {
            node,
            nightly,
            council,
            ims,
            server,
            proxy,
            running: None,
            chance,
            payments: 0,
            collections: 0,
            files: 0,
        }
    }

    fn site(&self) -> &Site {
        &self.nightly.site
    }

    /// Publishes until it is confirmed; after a fault in the middle the same again, under the same ids.
    async fn say(&self, queue: &str, events: &[(String, Vec<u8>)]) {
        until_within(DRAIN, &format!("{queue} takes events"), async || {
            let saying = AssertUnwindSafe(self.site().vhost.publish_many(queue, events));
            tokio::time::timeout(Duration::from_secs(20), saying.catch_unwind()).await.ok()?.ok()
        })
        .await;
    }

    /// One round of load on every route.
    async fn load(&mut self) {
        let event = |event_type: &str, id: &str, data: &Value| {
            let event = json!({ "specversion": "1.0", "id": id, "source": "urn:platform:payments", "type": event_type, "data": data });
            (id.to_owned(), event.to_string().into_bytes())
        };
        let events: Vec<_> = (self.payments..self.payments + 30)
            .map(|n| event("payment.succeeded.v1", &format!("event-{n}"), &paid(n as u32)))
            .collect();
        self.payments += 30;
        self.say("packhorse.localgov-ims.post", &events).await;
        self.say("packhorse.council-broker.payments", &events).await;
        let kind = "direct-debit.collection.requested.v1";
        let events: Vec<_> = (self.collections..self.collections + 9)
            .map(|n| {
                let mut data = example(kind);
                data["reference"] = json!(format!("CT{n:010}"));
                data["collect_on"] = json!("2026-01-05");
                event(kind, &format!("collection-{n}"), &data)
            })
            .collect();
        self.collections += 9;
        self.say("packhorse.bacs-standard-18.collections", &events).await;
        let n = self.files;
        self.files += 1;
        let mut text = "CHILD,NAME,DOB\r\n".to_owned();
        for row in 0..ROWS {
            let _ = write!(text, "c{n}-{row},Name,01/02/2015\r\n");
        }
        self.nightly.writes(&format!("rows-{n}.csv"), text);
    }

    /// Starts the program, now and then so that it dies at a gap by name.
    async fn begin(&mut self) -> String {
        let to_die = self.chance.below(2) == 0;
        let reached: Vec<&str> =
            POINTS.iter().map(|point| point.name).filter(|name| is_passed(name)).collect();
        let point = format!("{}:{}", self.chance.of(&reached), 1 + self.chance.below(4));
        let environment = [("PACKHORSE_KILL", point.as_str())];
        self.running = Some(self.site().begin(if to_die { &environment } else { &[] }));
        if to_die { format!(", to die at {point}") } else { String::new() }
    }

    async fn kill(&mut self) {
        if let Some(running) = self.running.take() {
            running.kill().await;
        }
    }

    /// The system misbehaves in one way for some requests.
    fn misbehave(&mut self) -> String {
        let times = 1 + self.chance.below(4) as u32;
        let fault = match self.chance.below(8) {
            0 => Fault::CutBefore,
            1 => Fault::CutAfter,
            2 => Fault::HalfAnswer,
            3 => Fault::Status(503, None),
            4 => Fault::Late(Duration::from_secs(2)),
            5 => Fault::Twice,
            6 => Fault::HtmlPage,
            _ => {
                *self.ims.store_and_fail.lock().unwrap() += times;
                return format!("400 with nothing after storing, {times} times");
            }
        };
        let told = format!("{fault:?}, {times} times");
        self.server.misbehave("POST", "/api", fault, times);
        told
    }

    /// Something happens; what.
    async fn fault(&mut self) -> String {
        match self.chance.below(12) {
            0..3 => {
                self.kill().await;
                let how = self.begin().await;
                format!("the program is killed and started{how}")
            }
            3..5 => {
                self.proxy.cut();
                "every connection to the broker is cut".to_owned()
            }
            5..7 => {
                let way = *self.chance.of(&[Way::Up, Way::Down]);
                self.proxy.stall(way);
                self.chance.pause(8_000).await;
                self.proxy.open();
                format!("the network stalled, {way:?}")
            }
            7 => {
                let way = *self.chance.of(&[Way::Up, Way::Down]);
                self.proxy.half_close(way);
                format!("connections are closed in one direction, {way:?}")
            }
            8 => {
                self.node.ctl(&["stop_app"]).await;
                self.chance.pause(2_000).await;
                self.node.ctl(&["start_app"]).await;
                "the broker stopped and started".to_owned()
            }
            9 => {
                self.node.kill().await;
                self.node.again().await;
                "the broker was killed and started".to_owned()
            }
            _ => {
                let way = *self.chance.of(&[Way::Up, Way::Down]);
                self.proxy.slow(way, 2_000);
                self.chance.pause(3_000).await;
                self.proxy.open();
                format!("the network was slow, {way:?}")
            }
        }
    }

    async fn lines(&self, arguments: &[&str]) -> Vec<Value> {
        let (_, out, _) = self.site().command(arguments).await;
        out.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Nothing misbehaves any more; returns when nothing is under way.
    async fn drain(&mut self) {
        self.server.behave();
        *self.ims.store_and_fail.lock().unwrap() = 0;
        self.proxy.open();
        self.kill().await;
        self.running = Some(self.site().run().await);
        let by = ["--by", "the campaign", "--reason", "its end"];
        until_within(DRAIN, "everything drains", async || {
            for batch in self.lines(&["batches", "list", "--json"]).await {
                let number = batch["number"].to_string();
                if batch["code"] == "PH2006" {
                    // The person who looks: the file is in the folder, or the system has not had it.
                    let there = self.site().folder.0.join("out").read_dir().unwrap().flatten().any(|file| {
                        batch["serial"].as_u64().is_some_and(|serial| {
                            file.file_name().to_string_lossy() == format!("BACS{serial:06}.txt")
                        })
                    });
                    let word = if there { "--received" } else { "--not-received" };
                    self.site().command(&[&["batches", "settle", &number, word], &by[..]].concat()).await;
                } else if batch["stage"] == "open" && batch["items"].as_u64() > Some(0) {
                    let joined = self.lines(&["account", "--json"]).await;
                    let line = joined.iter().find(|line| line["route"] == COLLECT);
                    let all = line.is_some_and(|line| {
                        line["delivered"].as_u64().unwrap_or(0) + line["batched"].as_u64().unwrap_or(0)
                            >= self.collections as u64
                    });
                    if all {
                        self.site().command(&[&["batches", "seal", &number], &by[..]].concat()).await;
                    }
                }
            }
            let account = self.lines(&["account", "--json"]).await;
            let of = |route: &str, name: &str| {
                let line = account.iter().find(|line| line["route"] == route);
                line.and_then(|line| line[name].as_u64()).unwrap_or(0)
            };
            let whole = [
                (POST, self.payments),
                (CROSS, self.payments),
                (COLLECT, self.collections),
                (RECORDS, self.files * ROWS),
            ];
            let ended = whole
                .iter()
                .all(|(route, count)| of(route, "delivered") + of(route, "dead") >= *count as u64);
            (ended && account.iter().all(|line| line["waiting"] == 0)).then_some(())
        })
        .await;
        for queue in ["post", "payments"].iter().zip(["localgov-ims", "council-broker"]) {
            self.site().vhost.drained(&format!("packhorse.{}.{}", queue.1, queue.0)).await;
        }
        assert_eq!(self.running.take().unwrap().terminate().await, 0);
    }
}

/// What became of the messages of one route.
struct Row {
    route: &'static str,
    published: usize,
    once: usize,
    again: usize,
    lost: Vec<String>,
    money_twice: Option<usize>,
    inversions: usize,
}

/// The order in which messages first arrived, against the order in which those of one subject were said.
fn inversions(arrived: &[usize]) -> usize {
    let (mut last, mut seen, mut count) = (HashMap::new(), BTreeSet::new(), 0);
    for number in arrived.iter().filter(|number| seen.insert(**number)) {
        let last: &mut usize = last.entry(number % 7).or_default();
        count += usize::from(number < last);
        *last = (*last).max(*number);
    }
    count
}

fn row(
    route: &'static str,
    said: BTreeSet<String>,
    arrived: &[String],
    dead: &BTreeSet<String>,
    money: bool,
) -> Row {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for id in arrived {
        *counts.entry(id).or_default() += 1;
    }
    let numbers: Vec<usize> =
        arrived.iter().filter_map(|id| id.rsplit(['-', 'T']).next()?.parse().ok()).collect();
    let extra = arrived.len() - counts.len();
    Row {
        route,
        published: said.len(),
        once: counts.values().filter(|count| **count == 1).count(),
        again: if money { 0 } else { extra },
        lost: said.into_iter().filter(|id| !counts.contains_key(id.as_str()) && !dead.contains(id)).collect(),
        money_twice: money.then_some(extra),
        inversions: inversions(&numbers),
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes as long as it is told to; run scripts/faults"]
async fn under_any_faults_nothing_is_lost_and_nothing_is_paid_twice_and_the_account_closes() {
    let number = |name: &str, default: u64| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let (seconds, seed) = (number("PACKHORSE_FAULTS_SECONDS", 60), number("PACKHORSE_FAULTS_SEED", 1));
    let mut world = World::new(seed).await;
    world.running = Some(world.site().run().await);
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(seconds) {
        world.load().await;
        let system = world.misbehave();
        world.chance.pause(1_500).await;
        let what = world.fault().await;
        println!("{:>4} s  {what}; the system: {system}", began.elapsed().as_secs());
        world.chance.pause(1_500).await;
        if world.running.as_mut().is_some_and(Running::has_ended) {
            println!("        it has died, and is started");
            world.begin().await;
        }
    }
    world.drain().await;
    let site = world.site();
    let letters = world.lines(&["dead-letters", "list", "--json"]).await;
    let of = |route: &str, doubt: bool| -> BTreeSet<String> {
        let own = |letter: &&Value| letter["route"] == route && letter["in_doubt"] == doubt;
        let id = |letter: &Value| letter["event"]["id"].as_str().unwrap_or_default().to_owned();
        letters.iter().filter(own).map(id).collect()
    };
    let gone =
        |route: &str| of(route, true).into_iter().chain(of(route, false)).collect::<BTreeSet<String>>();
    let said =
        |name: &str, count: usize| (0..count).map(|n| format!("{name}-{n}")).collect::<BTreeSet<String>>();
    let rows: Vec<String> = world
        .ims
        .rows()
        .iter()
        .map(|row| row["PspReference"].as_str().unwrap().replace("reference-", "event-"))
        .collect();
    let mut submissions: Vec<_> = site.folder.0.join("out").read_dir().unwrap().flatten().collect();
    submissions.sort_by_key(std::fs::DirEntry::file_name);
    let collected: Vec<String> =
        submissions.iter().flat_map(|file| read(&std::fs::read(file.path()).unwrap()).references).collect();
    let collections = (0..world.collections).map(|n| format!("CT{n:010}")).collect();
    // A record's identity is made by the bridge: the distinct ones are counted.
    let records = site.vhost.everything("records").await;
    let distinct: BTreeSet<&String> = records.iter().collect();
    let missing = (world.files * ROWS).saturating_sub(distinct.len());
    let replies: BTreeSet<String> = site.vhost.everything("replies").await.into_iter().collect();
    let results = [
        row(POST, said("event", world.payments), &rows, &gone(POST), true),
        row(
            CROSS,
            said("event", world.payments),
            &world.council.everything("payments.succeeded").await,
            &gone(CROSS),
            false,
        ),
        row(COLLECT, collections, &collected, &gone(COLLECT), true),
        Row {
            published: world.files * ROWS,
            lost: (0..missing).map(|n| format!("record {n}")).collect(),
            ..row(RECORDS, BTreeSet::new(), &records, &BTreeSet::new(), false)
        },
    ];
    let account = world.lines(&["account", "--json"]).await;
    let (closes, _, _) = site.command(&["account"]).await;
    println!(
        "\nseed {seed}, {seconds} s\n{:<30}{:>10}{:>10}{:>10}{:>9}{:>6}{:>6}{:>11}{:>12}  account",
        "route", "published", "once", "again", "doubt", "dead", "lost", "paid twice", "inversions"
    );
    let mut wrong = Vec::new();
    for row in &results {
        let line = account.iter().find(|line| line["route"] == row.route).cloned().unwrap_or_default();
        let sum = if line["difference"] == 0 { "closes" } else { "DOES NOT CLOSE" };
        let (doubt, dead) = (of(row.route, true).len(), of(row.route, false).len());
        let twice = row.money_twice.map_or("-".to_owned(), |twice| twice.to_string());
        // None of these routes keeps an order: what is counted is only shown.
        let inversions = format!("({})", row.inversions);
        println!(
            "{:<30}{:>10}{:>10}{:>10}{doubt:>9}{dead:>6}{:>6}{twice:>11}{inversions:>12}  {sum}",
            row.route,
            row.published,
            row.once,
            row.again,
            row.lost.len()
        );
        if !row.lost.is_empty() || row.money_twice.unwrap_or(0) > 0 || line["difference"] != 0 {
            wrong.push(format!("{}: lost {:?}, twice {twice}, {line}", row.route, row.lost));
        }
    }
    println!(
        "again: under the same id, where a repeat is harmless; inversions in brackets: the route keeps no order"
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(closes, 0, "every sum closes");
    assert_eq!(replies.len(), BTreeSet::from_iter(&rows).len(), "each posting is told to the platform");
}
