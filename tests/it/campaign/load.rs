//! What is said on every route, round by round, so that it can be compared with what arrived.

use super::{DRAIN, world::World};
use crate::{
    broker::paid,
    ordered,
    support::{event, example, until_within},
};
use futures_util::FutureExt as _;
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    panic::AssertUnwindSafe,
    time::Duration,
};
use tokio::task::JoinHandle;

/// Records of one file.
const RECORDS: usize = 25;
/// Subjects of the ordered route.
const SUBJECTS: u64 = 12;
/// Rows of the extract.
const CHILDREN: usize = 40;

/// Everything that was said so far.
#[derive(Default)]
pub struct Said {
    pub payments: usize,
    pub updates: usize,
    pub collections: usize,
    pub files: usize,
    /// How many of each subject.
    pub cases: BTreeMap<String, u32>,
    /// Messages that the system refuses until they are replayed.
    pub doomed: BTreeSet<(String, u32)>,
    /// Payments that are refunded, in Pay's words.
    pub refunds: Vec<String>,
    /// The notices that are on their way, until they are thanked for.
    pub notices: Vec<JoinHandle<()>>,
    /// The extract as it stands, and how many there were.
    pub children: BTreeMap<String, String>,
    pub nights: usize,
    /// What the extracts that were written have changed.
    pub changes: BTreeSet<String>,
    /// Rows of the table, and how often they were changed. One that changes again before it is looked at is told once.
    pub records: Vec<usize>,
}

impl Said {
    /// The identities of so many things of a kind.
    pub fn all(name: &str, count: usize) -> BTreeSet<String> {
        (0..count).map(|number| format!("{name}-{number}")).collect()
    }

    /// The records of the files that have this letter.
    pub fn rows(&self, letter: &str) -> BTreeSet<String> {
        let rows = |file| (0..RECORDS).map(move |row| format!("{letter}{file}-{row}"));
        (0..self.files).flat_map(rows).collect()
    }

    pub fn cases(&self) -> BTreeSet<String> {
        let numbers = |(subject, most): (&String, &u32)| -> Vec<String> {
            (1..=*most).map(|number| format!("{subject}-{number}")).collect()
        };
        self.cases.iter().flat_map(numbers).collect()
    }

    /// What the rows of the table said last, and everything that they ever said.
    pub fn records(&self) -> (BTreeSet<String>, BTreeSet<String>) {
        let texts =
            |(row, changes): (usize, &usize)| (0..=*changes).map(move |change| format!("r{row} {change}"));
        let last = self.records.iter().enumerate().map(|(row, changes)| format!("r{row} {changes}"));
        (last.collect(), self.records.iter().enumerate().flat_map(texts).collect())
    }

    /// How many messages a route has been given, as far as that can be known.
    pub fn count(&self, route: &str) -> usize {
        match route {
            super::POST | super::CROSS | super::BANK => self.payments,
            super::UPDATES => self.updates,
            super::COLLECT => self.collections,
            super::REFUND => self.refunds.len(),
            super::ROWS | super::REMOTE => self.files * RECORDS,
            super::EXTRACTS => self.changes.len(),
            super::CASES => self.cases().len(),
            super::QUERY => self.records.len(),
            super::REFUNDED | super::NOTICES => 0,
            _ => unreachable!("{route}"),
        }
    }
}

impl World {
    /// Publishes until it is confirmed; after a fault in the middle the same again, under the same ids.
    async fn say(&self, vhost: &crate::support::Vhost, queue: &str, events: &[(String, Vec<u8>)]) {
        until_within(DRAIN, &format!("{queue} takes events"), async || {
            let saying = AssertUnwindSafe(vhost.publish_many(queue, events));
            tokio::time::timeout(Duration::from_secs(20), saying.catch_unwind()).await.ok()?.ok()
        })
        .await;
    }

    /// One round of load on every route.
    pub async fn load(&mut self) {
        let vhost = &self.site().vhost;
        let numbers = self.said.payments..self.said.payments + 30;
        let events: Vec<_> =
            numbers.map(|n| event("payment.succeeded.v1", &format!("event-{n}"), &paid(n as u32))).collect();
        self.say(vhost, "packhorse.localgov-ims.post", &events).await;
        self.say(vhost, "packhorse.council-broker.payments", &events).await;
        self.say(vhost, "packhorse.council-bank.payments", &events).await;
        let kind = "payment.posted.v1";
        let numbers = self.said.updates..self.said.updates + 10;
        let events: Vec<_> = numbers.map(|n| event(kind, &format!("posted-{n}"), &example(kind))).collect();
        self.say(&self.council, "platform.outbox", &events).await;
        let kind = "direct-debit.collection.requested.v1";
        let events: Vec<_> = (self.said.collections..self.said.collections + 9)
            .map(|n| {
                let mut data = example(kind);
                data["reference"] = json!(format!("CT{n:010}"));
                data["collect_on"] = json!("2026-01-05");
                event(kind, &format!("collection-{n}"), &data)
            })
            .collect();
        self.say(vhost, "packhorse.bacs-standard-18.collections", &events).await;
        self.said.payments += 30;
        self.said.updates += 10;
        self.said.collections += 9;
        self.load_cases().await;
        self.load_cards().await;
        self.load_files();
        self.load_table().await;
    }

    /// Messages of several subjects; some fail once, some are refused until a person has them replayed, and now and then
    /// the system is away.
    async fn load_cases(&mut self) {
        let mut events = Vec::new();
        for _ in 0..30 {
            let subject = format!("case-{}", self.chance.below(SUBJECTS));
            let number = self.said.cases.entry(subject.clone()).or_default();
            *number += 1;
            match self.chance.below(40) {
                0..5 => self.cases.wish(&subject, *number, &[500, 201]),
                5 => self.cases.wish(&subject, *number, &[503, 201]),
                6..8 => {
                    self.cases.wish(&subject, *number, &[422, 201]);
                    self.said.doomed.insert((subject.clone(), *number));
                }
                _ => {}
            }
            events.push(ordered::message(&subject, *number));
        }
        self.say(&self.site().vhost, ordered::QUEUE, &events).await;
    }

    /// Payments that are made on Pay's pages: each is told by a notice, and refunded in part.
    async fn load_cards(&mut self) {
        self.refunds_end();
        let (mut events, pay) = (Vec::new(), self.pay.is.clone());
        for _ in 0..4 {
            let asked = json!({ "amount": 6250, "reference": "GW-2026-004417", "description": "Garden waste",
                                "return_url": "https://forms.example.gov.uk/paid/1",
                                "metadata": { "fund_code": "21", "account": "H4410-R2010" } });
            let id = pay.taken(asked, jiff::Timestamp::now());
            pay.payer(&id, "success");
            self.said.notices.push(self.notice(&id, "card_payment_succeeded"));
            let mut data = example("refund.requested.v1");
            data["provider_reference"] = json!(id);
            data["refund_id"] = json!(format!("refund-{}", self.said.refunds.len()));
            data["amount"] = json!(2000);
            events.push(event("refund.requested.v1", &format!("refund-of-{id}"), &data));
            self.said.refunds.push(id);
        }
        self.say(&self.site().vhost, "packhorse.govuk-pay.refund", &events).await;
    }

    /// Every refund that was made so far is final, and Pay says so.
    pub fn refunds_end(&mut self) {
        for payment in self.pay.is.payments() {
            if payment.refunds.iter().any(|refund| refund.status == "submitted") {
                self.pay.is.change(&payment.id, |payment| {
                    payment.refunds.iter_mut().for_each(|refund| "success".clone_into(&mut refund.status));
                });
                self.said.notices.push(self.notice(&payment.id, "card_payment_refunded"));
            }
        }
    }

    /// A notice about a payment, sent again until it is thanked for, as Pay does.
    fn notice(&self, id: &str, what: &str) -> JoinHandle<()> {
        let (body, signature) = self.pay.is.webhook(id, what, &self.pay.is.next("w"));
        // What stands before several bridges tries one after the other.
        let urls: Vec<String> = self
            .machines
            .iter()
            .map(|machine| format!("http://{}/govuk-pay/notices", machine.receiver))
            .collect();
        tokio::spawn(async move {
            let client = reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap();
            for url in urls.iter().cycle() {
                let request = client
                    .post(url)
                    .header("Content-Type", "application/json")
                    .header("Pay-Signature", &signature)
                    .timeout(Duration::from_secs(5))
                    .body(body.clone());
                if request.send().await.is_ok_and(|answer| answer.status().is_success()) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        })
    }

    /// A file of records here and one on the server, and the extract of the next night if the last one was read.
    fn load_files(&mut self) {
        let n = self.said.files;
        self.said.files += 1;
        let text = |letter: &str| {
            let mut text = "CHILD,NAME,DOB\r\n".to_owned();
            for row in 0..RECORDS {
                let _ = write!(text, "{letter}{n}-{row},Name,01/02/2015\r\n");
            }
            text
        };
        self.nightly.writes(&format!("rows-{n}.csv"), text("c"));
        if let Some(remote) = &self.remote {
            let part = remote.files.join(format!("rows-{n}.csv.tmp"));
            std::fs::write(&part, text("r")).unwrap();
            std::fs::rename(part, remote.files.join(format!("rows-{n}.csv"))).unwrap();
        }
        let last = self.said.nights.checked_sub(1).map(|night| format!("done/children-{night}.csv"));
        if last.is_none_or(|last| self.nightly.path(&last).exists()) {
            self.next_night();
        }
    }

    /// Some children have another name, one is new and one is gone.
    fn next_night(&mut self) {
        let night = self.said.nights;
        self.said.nights += 1;
        if night == 0 {
            // What the comparing starts from.
            let child = |number| (format!("k{number}"), format!("Name {number}"));
            self.said.children = (0..CHILDREN).map(child).collect();
        } else {
            let mut names: Vec<String> = self.said.children.keys().cloned().collect();
            self.chance.shuffle(&mut names);
            let new = format!("k{}", CHILDREN + night);
            self.said.children.remove(&names[0]);
            self.said.changes.insert(format!("{} removed ", names[0]));
            let changed = names.iter().skip(1).take(3).map(|name| (name.clone(), "changed"));
            for (name, change) in changed.chain([(new, "created")]) {
                let called = format!("Name {name} of night {night}");
                self.said.changes.insert(format!("{name} {change} {called}"));
                self.said.children.insert(name, called);
            }
        }
        let mut text = "CHILD,NAME,DOB\r\n".to_owned();
        for (child, name) in &self.said.children {
            let _ = write!(text, "{child},{name},01/02/2015\r\n");
        }
        self.nightly.writes(&format!("children-{night}.csv"), text);
    }

    /// Rows are new, others have changed.
    async fn load_table(&mut self) {
        let Some(database) = &self.database else { return };
        let from = self.said.records.len();
        database
            .sql(&format!(
                "INSERT INTO record SELECT n, 'r' || n || ' 0', n, now() FROM generate_series({from}, {}) n",
                from + 9
            ))
            .await;
        for _ in 0..if from == 0 { 0 } else { 3 } {
            let row = self.chance.below(from as u64) as usize;
            self.said.records[row] += 1;
            let text = format!("r{row} {}", self.said.records[row]);
            database
                .sql(&format!("UPDATE record SET name = '{text}', changed = now() WHERE id = {row}"))
                .await;
        }
        self.said.records.extend([0; 10]);
    }
}
