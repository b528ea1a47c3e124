//! Order per subject: on a route that keeps it, no message overtakes another of its subject, whatever becomes of either; on a
//! real RabbitMQ, with a system that fails, refuses, is killed behind, and keeps a list of what it took.

use crate::{
    standins::http::{Answer, Fault, Request, Server},
    support::{Broker, Site, example, until},
};
use packhorse::{
    event::Key,
    order::{Strand, Subject},
    store::{Claim, Due, Kept, Opener, Parking, Record, Store},
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
};

const EVENT: &str = "payment.succeeded.v1";
pub const ROUTE: &str = "cases.post";
pub const QUEUE: &str = "packhorse.cases.post";

/// What the system does with the next requests about a subject's message, by both.
type Wishes = Arc<Mutex<HashMap<(String, u32), Vec<u16>>>>;

/// What the system took, in order.
type Taken = Arc<Mutex<Vec<(String, u32)>>>;

/// A system with cases, which does as it is wished and keeps a list of what it took.
pub struct System {
    pub server: Server,
    wishes: Wishes,
    taken: Taken,
}

/// A system with cases, and the bridge to it.
pub struct Cases {
    pub site: Site,
    system: System,
}

fn about(body: &Value) -> (String, u32) {
    let data = &body["data"];
    let number = data["provider_reference"].as_str().unwrap().trim_start_matches("step-").parse().unwrap();
    (data["payment_id"].as_str().unwrap().to_owned(), number)
}

/// The adapter of the system, with more keys of its route.
pub fn adapter(more: &str) -> String {
    format!(
        "version = 1\ntitle = \"Cases\"\nabout = \"A stand-in of the tests\"\n[settings.url]\nabout = \"Where\"\n\
         [http]\nbase_url = \"{{{{ settings.url }}}}\"\n[deliver.post]\nabout = \"Posts what happens in a case.\"\n\
         event = \"{EVENT}\"\norder = \"subject\"\nrequest = {{ method = \"POST\", path = \"/cases\", headers = {{ Content-Type = \"application/cloudevents+json\" }} }}\n\
         retry = {{ at_once = 0, waits = [\"5s\"] }}\n{more}"
    )
}

/// A message about a subject, with its id.
pub fn message(subject: &str, number: u32) -> (String, Vec<u8>) {
    let mut data = example(EVENT);
    data["payment_id"] = json!(subject);
    data["provider_reference"] = json!(format!("step-{number}"));
    let id = format!("{subject}-{number}");
    let event = json!({ "specversion": "1.0", "id": id, "source": "urn:platform:cases", "type": EVENT,
        "time": "2026-11-24T09:41:06Z", "datacontenttype": "application/json", "data": data });
    (id, event.to_string().into_bytes())
}

impl System {
    pub async fn start() -> System {
        let (wishes, taken): (Wishes, Taken) = Default::default();
        let (wanted, list) = (wishes.clone(), taken.clone());
        let handler = move |request: &Request| {
            let message = about(&request.json());
            let wish = wanted.lock().unwrap().get_mut(&message).and_then(|wishes| {
                let next = wishes.first().copied();
                if wishes.len() > 1 {
                    wishes.remove(0);
                }
                next
            });
            match wish {
                Some(status) if status >= 300 => Answer::empty(status),
                _ => {
                    list.lock().unwrap().push(message);
                    Answer::empty(201)
                }
            }
        };
        let server = Server::start(Arc::new(handler), 0).await.unwrap();
        System { server, wishes, taken }
    }

    /// The bridge's settings of its adapter.
    pub fn settings(&self) -> String {
        let url = &self.server.url;
        format!(
            "[adapters.cases]\nsettings = {{ url = \"{url}\" }}\nwhen_away = {{ first = \"1s\", most = \"2s\" }}\n"
        )
    }

    /// What it answers to a message, in turn; the last is repeated. 201: it takes it.
    pub fn wish(&self, subject: &str, number: u32, answers: &[u16]) {
        self.wishes.lock().unwrap().insert((subject.to_owned(), number), answers.to_vec());
    }

    /// What it took, in order.
    pub fn taken(&self) -> Vec<(String, u32)> {
        self.taken.lock().unwrap().clone()
    }
}

impl Cases {
    pub async fn new(more: &str) -> Cases {
        Cases::on(Broker::shared(), "", more).await
    }

    /// The same on a broker of the test's own, with other adapters of the bridge besides.
    pub async fn on(broker: Broker, others: &str, more: &str) -> Cases {
        let system = System::start().await;
        let site = Site::on(broker, &(system.settings() + others)).await;
        site.folder.write("adapters/cases.toml", adapter(more));
        Cases { site, system }
    }

    /// What the system answers to a message, in turn; the last is repeated. 201: it takes it.
    pub fn wish(&self, subject: &str, number: u32, answers: &[u16]) {
        self.system.wish(subject, number, answers);
    }

    pub async fn say(&self, messages: &[(&str, u32)]) {
        let events: Vec<_> = messages.iter().map(|(subject, number)| message(subject, *number)).collect();
        self.site.vhost.publish_many(QUEUE, &events).await;
    }

    pub fn taken(&self) -> Vec<(String, u32)> {
        self.system.taken()
    }

    /// In which order each subject's messages came for the first time.
    pub fn first(&self) -> BTreeMap<String, Vec<u32>> {
        let mut first: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for (subject, number) in self.taken() {
            let own = first.entry(subject).or_default();
            if !own.contains(&number) {
                own.push(number);
            }
        }
        first
    }

    /// Everything that came of each subject, what came twice included.
    pub fn all(&self) -> BTreeMap<String, Vec<u32>> {
        let mut all: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for (subject, number) in self.taken() {
            all.entry(subject).or_default().push(number);
        }
        all
    }

    fn of(&self, subject: &str) -> Vec<u32> {
        self.taken().into_iter().filter(|(own, _)| own == subject).map(|(_, number)| number).collect()
    }

    async fn takes(&self, count: usize) {
        until(&format!("the system takes {count}"), async || (self.taken().len() >= count).then_some(()))
            .await;
    }

    async fn held(&self) -> Vec<Value> {
        let out = self.site.good(&["held", "list", "--json"]).await;
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The one subject that is held, when so many messages of it wait.
    async fn holds(&self, messages: u64) -> Value {
        until(&format!("{messages} messages are held"), async || {
            self.held().await.into_iter().find(|held| held["messages"] == messages)
        })
        .await
    }

    /// Everything has come to its end, and the account says so.
    async fn ends(&self, delivered: u64, dead: u64) {
        let line = until("all is delivered", async || {
            let line = self.site.account(ROUTE).await;
            (line["delivered"] == delivered).then_some(line)
        })
        .await;
        assert_eq!(
            (&line["waiting"], &line["parked"], &line["dead"]),
            (&json!(0), &json!(0), &json!(dead)),
            "{line}"
        );
    }
}

#[tokio::test]
async fn what_fails_is_sent_again_before_what_came_after_it_and_other_subjects_go_on() {
    let cases = Cases::new("").await;
    cases.wish("A", 1, &[500]);
    let bridge = cases.site.start().await;
    cases.say(&[("A", 1), ("A", 2), ("B", 1), ("A", 3), ("B", 2)]).await;
    // A's first is tried, B goes through, and nothing more of A is sent.
    cases.takes(2).await;
    let held = cases.holds(3).await;
    assert_eq!((&held["subject"], &held["dead_letter"]), (&json!("A"), &Value::Null), "{held}");
    assert_eq!((cases.of("A"), cases.of("B")), (vec![], vec![1, 2]));
    let line = cases.site.account(ROUTE).await;
    assert_eq!((&line["waiting"], &line["parked"]), (&json!(3), &json!(3)), "{line}");
    // What comes now waits behind them, and all of it goes in its order when the first has got through.
    cases.say(&[("A", 4)]).await;
    cases.wish("A", 1, &[201]);
    cases.takes(6).await;
    assert_eq!(cases.of("A"), [1, 2, 3, 4]);
    cases.ends(6, 0).await;
    assert!(cases.held().await.is_empty());
    assert!(bridge.stop().await);
}

#[tokio::test]
async fn a_dead_letter_holds_what_came_after_it_until_it_is_replayed_and_then_all_go_in_their_order() {
    let cases = Cases::new("").await;
    cases.wish("A", 1, &[422]);
    let bridge = cases.site.start().await;
    cases.say(&[("A", 1), ("A", 2), ("B", 1), ("A", 3)]).await;
    cases.takes(1).await;
    let held = cases.holds(2).await;
    assert_eq!((&held["subject"], &held["code"]), (&json!("A"), &json!("PH2002")), "{held}");
    let (code, out, _) = cases.site.command(&["held", "list", "--fail-if-any"]).await;
    assert!(code == 1 && out.contains("the dead letter"), "{out}");
    let shown = cases.site.good(&["held", "show", ROUTE, "A"]).await;
    assert!(shown.lines().count() >= 4, "its messages in their order: {shown}");
    // It survives a restart.
    assert!(bridge.stop().await);
    let bridge = cases.site.start().await;
    cases.say(&[("A", 4)]).await;
    cases.holds(3).await;
    assert!(cases.of("A").is_empty());
    // The system is mended, the letter replayed: the sequence goes through in its order.
    cases.wish("A", 1, &[503, 201]);
    let by = ["--by", "A Tester", "--reason", "mended"];
    cases.site.good(&[&["dead-letters", "replay", "--route", ROUTE], &by[..]].concat()).await;
    cases.takes(5).await;
    assert_eq!(cases.of("A"), [1, 2, 3, 4]);
    cases.ends(5, 0).await;
    assert!(cases.held().await.is_empty());
    assert!(bridge.stop().await);
}

#[tokio::test]
async fn a_dead_letter_that_is_discarded_lets_the_others_go_and_a_person_may_release_them_by_name_and_reason()
{
    let cases = Cases::new("").await;
    cases.wish("A", 1, &[422]);
    cases.wish("B", 1, &[422]);
    let bridge = cases.site.start().await;
    cases.say(&[("A", 1), ("A", 2), ("B", 1), ("A", 3), ("B", 2)]).await;
    cases.holds(2).await;
    let held = cases.holds(1).await;
    let by = ["--by", "A Tester", "--reason", "it was wrong"];
    // Nobody is guessed, and nothing is released that no dead letter holds.
    assert_ne!(cases.site.command(&["held", "release", ROUTE, "B", "--reason", "x"]).await.0, 0);
    let (code, _, err) = cases.site.command(&[&["held", "release", ROUTE, "C"], &by[..]].concat()).await;
    assert!(code == 1 && err.contains("PH5011"), "{err}");
    cases.site.good(&[&["held", "release", ROUTE, held["name"].as_str().unwrap()], &by[..]].concat()).await;
    cases.takes(1).await;
    assert_eq!((cases.of("A"), cases.of("B")), (vec![], vec![2]));
    let letters = cases.site.good(&["dead-letters", "list", "--json"]).await;
    let of_a = letters.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mut of_a =
        of_a.filter(|letter| letter.to_string().contains("A-1")).map(|letter| letter["key"].clone());
    let key = of_a.next_back().unwrap();
    cases.site.good(&[&["dead-letters", "discard", key.as_str().unwrap()], &by[..]].concat()).await;
    cases.takes(3).await;
    assert_eq!(cases.of("A"), [2, 3]);
    cases.ends(3, 1).await;
    assert!(bridge.stop().await);
}

#[tokio::test]
async fn a_route_that_says_so_goes_on_without_what_was_given_up() {
    let cases = Cases::new("held = { when_dead = \"go-on\" }\n").await;
    cases.wish("A", 2, &[422]);
    let bridge = cases.site.start().await;
    cases.say(&[("A", 1), ("A", 2), ("A", 3)]).await;
    cases.takes(2).await;
    assert_eq!(cases.of("A"), [1, 3]);
    cases.ends(2, 1).await;
    assert!(bridge.stop().await);
}

#[tokio::test]
async fn when_more_is_held_than_may_be_the_route_leaves_the_rest_in_its_queue_and_reorders_nothing() {
    let cases = Cases::new("held = { most = 2 }\nwindow = 8\n").await;
    cases.wish("A", 1, &[500, 500, 201]);
    let bridge = cases.site.start().await;
    let all: Vec<(&str, u32)> = (1..=9).flat_map(|number| [("A", number), ("B", number)]).collect();
    cases.say(&all).await;
    cases.holds(2).await;
    cases.takes(18).await;
    assert_eq!((cases.of("A"), cases.of("B")), ((1..=9).collect(), (1..=9).collect()));
    cases.ends(18, 0).await;
    let log = cases.system.server.requests("POST", "/cases").len();
    assert_eq!(log, 20, "only the first was sent more than once");
    assert!(bridge.stop().await);
}

#[tokio::test]
async fn the_bytes_that_may_be_held_are_those_of_all_subjects_also_of_one_that_has_just_begun_to_fail() {
    let size = message("A", 1).1.len();
    // Room for three messages and a half.
    let cases = Cases::new(&format!("held = {{ most_bytes = \"{}B\" }}\nwindow = 8\n", size * 7 / 2)).await;
    for subject in ["A", "B"] {
        cases.wish(subject, 1, &[500, 500, 500, 201]);
    }
    let bridge = cases.site.run().await;
    let parked = async |count: u64| {
        until(&format!("{count} are parked"), async || {
            (cases.site.account(ROUTE).await["parked"] == count).then_some(())
        })
        .await;
    };
    cases.say(&[("A", 1), ("A", 2)]).await;
    parked(2).await;
    cases.say(&[("B", 1), ("B", 2), ("B", 3)]).await;
    let log = cases.site.folder.0.join("log");
    until("it is told", async || std::fs::read_to_string(&log).unwrap().contains("PH4004").then_some(()))
        .await;
    assert!(cases.site.account(ROUTE).await["parked"].as_u64() <= Some(3), "the third of B fits nowhere");
    cases.takes(5).await;
    cases.ends(5, 0).await;
    assert_eq!((cases.of("A"), cases.of("B")), (vec![1, 2], vec![1, 2, 3]));
    bridge.terminate().await;
}

#[tokio::test]
async fn an_event_that_is_about_nothing_is_a_dead_letter_and_holds_nobody() {
    let cases = Cases::new("").await;
    let schema = "mappings/events/payment.succeeded.v1.schema.json";
    cases.site.edit(
        schema,
        "\"x-subject\": [\"payment_id\", \"provider_reference\"]",
        "\"x-subject\": [\"description\"]",
    );
    let bridge = cases.site.start().await;
    let mut data = example(EVENT);
    data["provider_reference"] = json!("step-1");
    data["description"] = json!("   ");
    cases.site.vhost.say(EVENT, "event-1", &data).await;
    let dead = cases.site.dead(1).await;
    assert_eq!(dead[0].header("packhorse_code"), "PH1011");
    data["description"] = json!("x".repeat(100));
    cases.site.vhost.say(EVENT, "event-2", &data).await;
    cases.takes(1).await;
    assert!(bridge.stop().await);
}

#[tokio::test]
async fn a_route_that_keeps_no_order_any_more_sends_what_waited_for_it() {
    let cases = Cases::new("").await;
    cases.wish("A", 1, &[422]);
    cases.wish("B", 1, &[500]);
    let bridge = cases.site.start().await;
    cases.say(&[("A", 1), ("A", 2), ("B", 1), ("B", 2), ("A", 3)]).await;
    until("four wait", async || (cases.site.account(ROUTE).await["parked"] == 4).then_some(())).await;
    assert!(bridge.stop().await);
    // The queue of an ordered route cannot become another: it is made anew.
    cases.wish("B", 1, &[201]);
    cases.site.edit("adapters/cases.toml", "order = \"subject\"\n", "");
    cases.site.vhost.call("DELETE", &format!("queues/{QUEUE}"), Value::Null).await;
    let bridge = cases.site.start().await;
    cases.takes(4).await;
    cases.ends(4, 1).await;
    assert!(cases.held().await.is_empty());
    assert!(bridge.stop().await);
}

#[tokio::test]
async fn what_is_parked_behind_something_that_a_person_has_just_let_go_is_due_at_once() {
    let folder = crate::support::Folder::new();
    let store = Store::open(&folder.0.join("packhorse.db"), 1 << 20, Opener::Bridge).unwrap();
    let route = store.route(ROUTE).await.unwrap();
    let subject = Subject::of("A").unwrap();
    let key = Key::of("urn:platform:cases", "A-2");
    let kept = Kept {
        exchange: String::new(),
        routing_key: QUEUE.to_owned(),
        properties: String::new(),
        body: "2".into(),
    };
    let parking = Parking {
        subject,
        first: false,
        attempt: 1,
        due_at: None,
        failed_at: None,
        doubt: None,
        kept: kept.clone(),
    };
    let claim = Claim {
        key,
        part: 0,
        source: String::new(),
        id: String::new(),
        attempt: 1,
        replay: 0,
        settled: false,
    };
    store.claim_and_record(route, 5, None, vec![(claim, Record::Parked(Box::new(parking)))]).await.unwrap();
    let all = Strand::all(1)[0];
    assert_eq!(store.lot(route, all, 5, 9, true).await.unwrap().due, [Due { key, kept }]);
}

#[tokio::test]
async fn an_order_that_cannot_be_kept_is_told_by_check() {
    let cases = Cases::new("held = { most_bytes = \"many\" }\n").await;
    let schema = "mappings/events/payment.succeeded.v1.schema.json";
    cases.site.edit(schema, "\"x-subject\": [\"payment_id\", \"provider_reference\"]", "\"x-subject\": []");
    let (code, out, err) = cases.site.command(&["check"]).await;
    let told = format!("{out}{err}");
    assert!(code == 1 && told.contains("PH0118") && told.contains("PH0108"), "{told}");
    let adapter = "adapters/cases.toml";
    cases.site.edit(adapter, "order = \"subject\"\n", "");
    let (code, out, err) = cases.site.command(&["check"]).await;
    assert!(code == 1 && format!("{out}{err}").contains("keeps no order"), "{out}{err}");
}

#[tokio::test]
async fn killed_again_and_again_while_the_system_fails_every_subject_keeps_its_order() {
    let cases = Cases::new("concurrency = 4\n").await;
    let subjects: Vec<String> = (0..10).map(|number| format!("case-{number}")).collect();
    for (at, subject) in subjects.iter().enumerate() {
        for number in (1..=30).filter(|number| (number + at as u32).is_multiple_of(11)) {
            cases.wish(subject, number, &[if at == 3 { 503 } else { 500 }, 201]);
        }
    }
    let all: Vec<(&str, u32)> =
        (1..=30).flat_map(|number| subjects.iter().map(move |subject| (subject.as_str(), number))).collect();
    let running = cases.site.run().await;
    cases.say(&all).await;
    let mut running = Some(running);
    for taken in [40, 90, 150, 200] {
        cases.takes(taken).await;
        running.take().unwrap().kill().await;
        running = Some(cases.site.run().await);
    }
    cases.ends(300, 0).await;
    // The route makes nothing: what was under way at a kill is sent again, and counts where it came first.
    let first = cases.first();
    for subject in &subjects {
        assert_eq!(first[subject], (1..=30).collect::<Vec<u32>>(), "{subject}");
    }
    running.take().unwrap().terminate().await;
}

#[tokio::test]
async fn while_the_system_keeps_one_subject_waiting_the_others_go_on_and_leave_the_queue() {
    const STRANDS: usize = 4;
    let cases = Cases::new("concurrency = 4\n").await;
    let strand = |subject: &str| Strand::of(&Subject::of(subject).unwrap().digest, STRANDS);
    let names: Vec<String> = (0..40).map(|number| format!("case-{number}")).collect();
    let others: Vec<&str> =
        names.iter().map(String::as_str).filter(|name| strand(name) != strand("A")).collect();
    cases.system.server.misbehave("POST", "/cases", Fault::Hang, 1);
    let running = cases.site.run().await;
    cases.say(&[("A", 1), ("A", 2)]).await;
    cases.system.server.until("POST", "/cases", 1).await;
    let all: Vec<(&str, u32)> =
        (1..=3).flat_map(|number| others.iter().map(move |subject| (*subject, number))).collect();
    cases.say(&all).await;
    cases.takes(all.len()).await;
    for (subject, numbers) in cases.all() {
        assert_eq!(numbers, [1, 2, 3], "{subject}");
    }
    // What came before them is still out, and does not keep them from being acknowledged.
    until("the broker has two left", async || {
        let queue = cases.site.vhost.call("GET", &format!("queues/{QUEUE}"), Value::Null).await?;
        (queue["messages"] == 2).then_some(())
    })
    .await;
    assert!(cases.of("A").is_empty());
    running.kill().await;
    let running = cases.site.run().await;
    cases.ends(all.len() as u64 + 2, 0).await;
    assert_eq!(cases.of("A"), [1, 2]);
    running.terminate().await;
}
