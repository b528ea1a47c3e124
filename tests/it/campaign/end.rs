//! The end: everything drains, and what arrived is compared with what was said, identity by identity.

use super::{
    BANK, CASES, COLLECT, CROSS, DRAIN, EXTRACTS, NOTICES, POST, QUERY, REFUND, REFUNDED, REMOTE, ROWS,
    UPDATES, load::Said, operators::Acts, world::World,
};
use crate::bacs::read;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

const BY: [&str; 4] = ["--by", "the campaign", "--reason", "its end"];

/// Each posting is told to the platform.
const REPLIES: &str = "the replies to the postings";

type Identities = BTreeSet<String>;
/// An event as it arrived: its id and its bytes.
type Event = (String, Vec<u8>);

/// What became of the messages of one route.
struct Row {
    route: &'static str,
    /// What must have arrived.
    said: Identities,
    /// What may have arrived besides.
    may: Identities,
    /// What did arrive, in order.
    arrived: Vec<String>,
    /// How many events told it, by their ids, where it was told in events.
    events: Option<usize>,
    /// Whether a repeat is money or a record.
    money: bool,
    /// How often one overtook another, where the route keeps an order.
    inversions: Option<Vec<String>>,
}

impl Row {
    fn of(route: &'static str, said: Identities, arrived: Vec<String>) -> Row {
        Row { route, said, may: Identities::new(), arrived, events: None, money: false, inversions: None }
    }

    /// The identities are in fields of events.
    fn told(route: &'static str, said: Identities, events: &[Event], fields: &[&str]) -> Row {
        let ids: BTreeSet<&String> = events.iter().map(|(id, _)| id).collect();
        Row { events: Some(ids.len()), ..Row::of(route, said, texts(events, fields)) }
    }

    fn money(self) -> Row {
        Row { money: true, ..self }
    }
}

/// Which messages of a subject came, for the first time, after a later one of the same. `late` may: it was let past.
fn inversions(taken: &[(String, u32)], late: &BTreeSet<(String, u32)>) -> Vec<String> {
    let (mut last, mut seen, mut found) = (BTreeMap::new(), BTreeSet::new(), Vec::new());
    for (at, message) in taken.iter().enumerate().filter(|(_, message)| !late.contains(message)) {
        if seen.insert(message) {
            let last: &mut u32 = last.entry(&message.0).or_default();
            if message.1 < *last {
                let of_subject = taken.iter().enumerate().filter(|(_, (subject, _))| *subject == message.0);
                let came: Vec<String> =
                    of_subject.map(|(at, (_, number))| format!("{number}@{at}")).collect();
                found.push(format!(
                    "{}-{} at {at} after {last}, of: {}",
                    message.0,
                    message.1,
                    came.join(" ")
                ));
            }
            *last = (*last).max(message.1);
        }
    }
    found
}

/// The texts in some fields of the data of events.
fn texts(events: &[Event], fields: &[&str]) -> Vec<String> {
    let text = |(_, body): &Event| {
        let event: Value = serde_json::from_slice(body).unwrap();
        let field = |field: &&str| event["data"][field].as_str().unwrap_or_default().to_owned();
        fields.iter().map(field).collect::<Vec<_>>().join(" ")
    };
    events.iter().map(text).collect()
}

impl World {
    async fn lines(&self, arguments: &[&str]) -> Vec<Value> {
        let (_, out, _) = self.site().command(arguments).await;
        out.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    fn routes(&self) -> Vec<&'static str> {
        let mut routes =
            vec![CASES, POST, REFUND, COLLECT, CROSS, BANK, UPDATES, NOTICES, REFUNDED, ROWS, EXTRACTS];
        routes.extend(self.remote.as_ref().map(|_| REMOTE));
        routes.extend(self.database.as_ref().map(|_| QUERY));
        routes
    }

    /// Nothing misbehaves any more; returns when nothing is under way.
    pub async fn drain(&mut self) {
        for server in [&self.ims.server, &self.pay.server, &self.cases.server] {
            server.behave();
        }
        *self.ims.is.store_and_fail.lock().unwrap() = 0;
        self.proxy.open();
        self.kill_all().await;
        self.run().await;
        self.settles(|_| true).await;
        self.refunds_end();
        for notice in std::mem::take(&mut self.said.notices) {
            notice.await.unwrap();
        }
        self.settles(|account| {
            account.iter().all(|line| line["route"] != REFUNDED || line["open_items"] == 0)
        })
        .await;
        for route in [POST, CROSS, BANK, REFUND, COLLECT, CASES] {
            self.site().vhost.drained(&format!("packhorse.{route}")).await;
        }
        for machine in &mut self.machines {
            assert_eq!(machine.running.take().unwrap().terminate().await, 0);
        }
    }

    /// Until every route has come to an end, and this is so besides.
    async fn settles(&self, also: impl Fn(&[Value]) -> bool) {
        let began = Instant::now();
        loop {
            let account = self.cared_for().await;
            if self.have_come_to_an_end(&account) && also(&account) {
                return;
            }
            assert!(began.elapsed() < DRAIN, "not all has come to an end: {account:#?}");
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    fn have_come_to_an_end(&self, account: &[Value]) -> bool {
        let ended = |route: &&str| {
            let line = account.iter().find(|line| line["route"] == **route);
            let of = |name: &str| line.and_then(|line| line[name].as_u64()).unwrap_or(0) as usize;
            // Everything of an ordered route gets through in the end: what is dead holds others.
            let dead = if *route == CASES { 0 } else { of("dead") + of("discarded") };
            of("waiting") == 0 && of("delivered") + dead >= self.said.count(route)
        };
        self.routes().iter().all(ended)
    }

    /// What people do for what waits for them; the account after it.
    async fn cared_for(&self) -> Vec<Value> {
        let account = self.lines(&["account", "--json"]).await;
        let of = |route: &str, name: &str| {
            let line = account.iter().find(|line| line["route"] == route);
            line.and_then(|line| line[name].as_u64()).unwrap_or(0)
        };
        // What the broker gave up, and what holds others, is replayed.
        let letters = self.lines(&["dead-letters", "list", "--json", "--limit", "1000"]).await;
        if letters.iter().any(|letter| letter["code"] == "PH3010") {
            let of_broker = ["dead-letters", "replay", "--code", "PH3010"];
            let (_, out, _) = self.site().command(&[&of_broker, &BY[..]].concat()).await;
            println!("        given up by the broker: {}", out.lines().last().unwrap_or_default());
        }
        if of(CASES, "dead") > 0 {
            self.site().command(&[&["dead-letters", "replay", "--route", CASES], &BY[..]].concat()).await;
        }
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
                self.site().command(&[&["batches", "settle", &number, word], &BY[..]].concat()).await;
            } else if batch["stage"] == "open"
                && batch["items"].as_u64() > Some(0)
                && of(COLLECT, "delivered") + of(COLLECT, "batched") >= self.said.collections as u64
            {
                self.site().command(&[&["batches", "seal", &number], &BY[..]].concat()).await;
            }
        }
        account
    }

    /// What arrived on each route, beside what was said.
    async fn rows(&self, acts: &Acts) -> Vec<Row> {
        let (vhost, said) = (&self.site().vhost, &self.said);
        let taken = self.cases.taken();
        let late =
            said.doomed.iter().filter(|(subject, _)| acts.released.contains(subject)).cloned().collect();
        let cases = taken.iter().map(|(subject, number)| format!("{subject}-{number}")).collect();
        let posted = self.ims.is.rows();
        let posted =
            posted.iter().map(|row| row["PspReference"].as_str().unwrap().replace("reference-", "event-"));
        let refunds = self.pay.is.payments().into_iter();
        let (mut refunded, mut made) = (Vec::new(), Identities::new());
        for payment in refunds {
            refunded.extend(payment.refunds.iter().map(|_| format!("refund-of-{}", payment.id)));
            made.extend(payment.refunds.into_iter().map(|refund| refund.id));
        }
        let mut submissions: Vec<_> =
            self.site().folder.0.join("out").read_dir().unwrap().flatten().collect();
        submissions.sort_by_key(std::fs::DirEntry::file_name);
        let collected =
            submissions.iter().flat_map(|file| read(&std::fs::read(file.path()).unwrap()).references);
        let collected = collected.map(|reference| {
            format!("collection-{}", reference.trim_start_matches("CT").parse::<u32>().unwrap())
        });
        // The replies to the postings, and what came from the council's broker.
        let told = vhost.bodies("posted").await;
        let (updates, replies): (Vec<_>, Vec<_>) =
            told.into_iter().partition(|(id, _)| id.starts_with("posted-"));
        let children = vhost.bodies("rows").await;
        // Which of the routes told of a child is seen in its name.
        let of = |letter: &str| -> Vec<Event> {
            let own = |event: &&Event| texts(std::slice::from_ref(event), &["child"])[0].starts_with(letter);
            children.iter().filter(own).cloned().collect()
        };
        let payments = Said::all("event", said.payments);
        let mut rows = vec![
            Row { inversions: Some(inversions(&taken, &late)), ..Row::of(CASES, said.cases(), cases) },
            Row::of(POST, payments.clone(), posted.collect()).money(),
            Row::of(REFUND, said.refunds.iter().map(|id| format!("refund-of-{id}")).collect(), refunded)
                .money(),
            Row::of(COLLECT, Said::all("collection", said.collections), collected.collect()).money(),
            Row::of(BANK, payments.clone(), self.council.everything("bank").await).money(),
            Row::of(CROSS, payments, self.council.everything("payments.succeeded").await),
            Row::of(
                UPDATES,
                Said::all("posted", said.updates),
                updates.into_iter().map(|(id, _)| id).collect(),
            ),
            Row::told(
                NOTICES,
                said.refunds.iter().cloned().collect(),
                &vhost.bodies("paid").await,
                &["provider_reference"],
            ),
            Row::told(REFUNDED, made, &vhost.bodies("refunds").await, &["provider_refund_reference"]),
            Row::told(ROWS, said.rows("c"), &of("c"), &["child"]),
            Row::told(EXTRACTS, said.changes.clone(), &of("k"), &["child", "change", "name"]),
        ];
        if self.remote.is_some() {
            rows.push(Row::told(REMOTE, said.rows("r"), &of("r"), &["child"]));
        }
        if self.database.is_some() {
            let (last, may) = said.records();
            rows.push(Row { may, ..Row::told(QUERY, last, &vhost.bodies("seen").await, &["name"]) });
        }
        let posted = rows.iter().find(|row| row.route == POST).unwrap();
        let told = Row::told(REPLIES, posted.said.clone(), &replies, &["provider_reference"]);
        let payments =
            told.arrived.iter().map(|reference| reference.replace("reference-", "event-")).collect();
        let posted = posted.arrived.iter().cloned().collect();
        rows.push(Row { said: posted, arrived: payments, ..told });
        rows
    }

    /// Prints the table; what is wrong.
    pub async fn table(&self, acts: &Acts, run: &str) -> Vec<String> {
        let letters = self.lines(&["dead-letters", "list", "--json", "--limit", "10000"]).await;
        let account = self.lines(&["account", "--json"]).await;
        let (closes, _, err) = self.site().command(&["account"]).await;
        println!(
            "\n{run}\n{:<30}{:>10}{:>10}{:>10}{:>9}{:>6}{:>6}{:>11}{:>12}  account",
            "route", "published", "once", "again", "doubt", "dead", "lost", "paid twice", "inversions"
        );
        let mut wrong = acts.wrong.clone();
        for row in self.rows(acts).await {
            let dead = |doubt: bool| -> Identities {
                // What was not posted for sure has no reply.
                let route = if row.route == REPLIES { POST } else { row.route };
                let own = |letter: &&Value| letter["route"] == route && letter["in_doubt"] == doubt;
                let id = |letter: &Value| letter["event"]["id"].as_str().unwrap_or_default().to_owned();
                letters.iter().filter(own).map(id).collect()
            };
            let (doubt, dead) = (dead(true), dead(false));
            let mut counts: BTreeMap<&String, usize> = BTreeMap::new();
            row.arrived.iter().for_each(|id| *counts.entry(id).or_default() += 1);
            let extra = row.arrived.len() - counts.len();
            let accounted = |id: &&String| {
                counts.contains_key(id)
                    || doubt.contains(*id)
                    || dead.contains(*id)
                    || (row.route == CROSS && acts.discarded.contains(*id))
            };
            let lost: Vec<&String> = row.said.iter().filter(|id| !accounted(id)).collect();
            let strange: Vec<&&String> =
                counts.keys().filter(|id| !row.said.contains(**id) && !row.may.contains(**id)).collect();
            let line = account.iter().find(|line| line["route"] == row.route);
            let sum = match line {
                None => "-",
                Some(line) if line["difference"] == 0 => "closes",
                Some(_) => "DOES NOT CLOSE",
            };
            println!(
                "{:<30}{:>10}{:>10}{:>10}{:>9}{:>6}{:>6}{:>11}{:>12}  {sum}",
                row.route,
                row.said.len(),
                counts.values().filter(|count| **count == 1).count(),
                if row.money { 0 } else { extra },
                doubt.len(),
                dead.len(),
                lost.len(),
                if row.money { extra.to_string() } else { "-".to_owned() },
                row.inversions.as_ref().map_or("-".to_owned(), |found| found.len().to_string()),
            );
            let twice = if row.money { extra } else { 0 };
            if let Some(events) = row.events.filter(|events| *events != counts.len()) {
                wrong.push(format!("{}: {} things were told under {events} ids", row.route, counts.len()));
            }
            if !lost.is_empty()
                || !strange.is_empty()
                || twice + row.inversions.as_ref().map_or(0, Vec::len) > 0
                || sum.len() > 10
            {
                wrong.push(format!(
                    "{}: lost {lost:?}, never said {strange:?}, paid twice {twice}, inversions {:?}, {line:?}",
                    row.route, row.inversions
                ));
            }
        }
        println!("again: under the same id, where a repeat is harmless; -: nothing that could be");
        println!("operators meanwhile: {}; {} subjects released", acts.told(), acts.released.len());
        if closes != 0 {
            wrong.push(format!("the account does not close: {err}"));
        }
        wrong
    }
}
