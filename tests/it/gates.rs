//! A route stops when its system is closed, away or when a person says so: nothing is sent, nothing is burnt, everything goes
//! on by itself.

use crate::{
    standins::http::{Answer, Request, Server},
    support::{Site, example, until},
};
use serde_json::{Value, json};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

const QUEUE: &str = "packhorse.ledger.post";
const ROUTE: &str = "ledger.post";
const POST: &str = "[deliver.post]\nabout = \"Posts every payment.\"\nevent = \"payment.succeeded.v1\"\nconcurrency = 4\n\
                    request = { method = \"POST\", path = \"/payments\", headers = { Content-Type = \"application/cloudevents+json\" } }\n";

/// A ledger that can be down, and remembers what it has taken and when it was called.
struct Ledger {
    server: Server,
    up: Arc<AtomicBool>,
    taken: Arc<Mutex<Vec<String>>>,
    called: Arc<Mutex<Vec<Instant>>>,
}

impl Ledger {
    async fn new(up: bool) -> Ledger {
        let (up, taken, called) = (
            Arc::new(AtomicBool::new(up)),
            Arc::<Mutex<Vec<String>>>::default(),
            Arc::<Mutex<Vec<_>>>::default(),
        );
        let (is_up, takes, calls) = (up.clone(), taken.clone(), called.clone());
        let handler = move |request: &Request| {
            calls.lock().unwrap().push(Instant::now());
            if !is_up.load(Ordering::SeqCst) {
                return Answer::empty(503);
            }
            if request.method == "GET" {
                return Answer::json(200, &json!({ "results": [] }));
            }
            takes.lock().unwrap().push(request.json()["id"].as_str().unwrap_or_default().to_owned());
            Answer::empty(201)
        };
        Ledger { server: Server::start(Arc::new(handler), 0).await.unwrap(), up, taken, called }
    }

    fn calls(&self) -> usize {
        self.called.lock().unwrap().len()
    }

    /// A project with this ledger; `bears` stands at the head of its adapter, `rest` behind its table `[http]`.
    async fn site(&self, bears: &str, rest: &str) -> Site {
        let settings = format!("[adapters.ledger]\nsettings = {{ base_url = \"{}\" }}\n", self.server.url);
        let site = Site::new(&settings).await;
        site.folder.write(
            "adapters/ledger.toml",
            format!(
                "version = 1\ntitle = \"A ledger\"\nabout = \"A stand-in of the tests\"\n{bears}\n\
                 [settings.base_url]\nabout = \"Where it is\"\n[http]\nbase_url = \"{{{{ settings.base_url }}}}\"\n{POST}{rest}"
            ),
        );
        site
    }

    /// Everything that was said is taken, once.
    async fn has(&self, count: usize) {
        until(&format!("{count} are taken"), async || {
            (self.taken.lock().unwrap().len() >= count).then_some(())
        })
        .await;
        let mut taken = self.taken.lock().unwrap().clone();
        taken.sort();
        taken.dedup();
        assert_eq!(taken.len(), self.taken.lock().unwrap().len(), "each once");
    }
}

async fn pay(site: &Site, count: u32) {
    for number in 1..=count {
        let mut data = example("payment.succeeded.v1");
        data["payment_id"] = json!(format!("pay-{number}"));
        site.vhost.say("payment.succeeded.v1", &format!("event-{number}"), &data).await;
    }
}

/// How a route stands, as `packhorse routes` says.
async fn stands(site: &Site, route: &str) -> Value {
    let out = site.good(&["routes", "--json"]).await;
    let mut lines = out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.find(|line| line["route"] == route).unwrap_or_else(|| panic!("no {route} in {out}"))
}

async fn stands_as(site: &Site, state: &str) -> Value {
    until(&format!("the route is {state}"), async || {
        let line = stands(site, ROUTE).await;
        (line["state"] == state).then_some(line)
    })
    .await
}

fn query<T: rusqlite::types::FromSql>(site: &Site, sql: &str) -> T {
    let store = rusqlite::Connection::open(site.folder.0.join("var/packhorse.db")).unwrap();
    store.query_row(sql, [], |row| row.get(0)).unwrap()
}

fn log(site: &Site) -> String {
    std::fs::read_to_string(site.folder.0.join("log")).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_system_that_is_down_is_tried_with_one_message_at_a_time_and_no_message_pays_for_it() {
    let ledger = Ledger::new(false).await;
    let site = ledger.site("when_away = { first = \"400ms\", most = \"800ms\" }", "").await;
    let running = site.run().await;
    pay(&site, 12).await;
    let away = until("it is away for the fifth time", async || {
        let line = stands(&site, ROUTE).await;
        (line["times"].as_u64() >= Some(5)).then_some(line)
    })
    .await;
    assert!(away["next_try"].is_string() && away["code"] == "PH2003", "{away}");
    // Each of four lanes has tried its message thrice at most; from then on it was one at a time, and one for each pause.
    let called = ledger.called.lock().unwrap().clone();
    let first = called[0];
    let later: Vec<Instant> =
        called.into_iter().filter(|at| *at > first + Duration::from_millis(2_500)).collect();
    for two in later.windows(2) {
        assert!(two[1] - two[0] >= Duration::from_millis(350), "{:?}", two[1] - two[0]);
    }
    assert!(ledger.taken.lock().unwrap().is_empty());
    let waiting = site.vhost.depth(QUEUE).await + site.vhost.depth("packhorse.retry.5s").await;
    assert!(waiting >= 11, "all but the one that is tried are in the broker: {waiting}");
    assert_eq!(query::<i64>(&site, "SELECT max(attempt) FROM journal"), 1, "no attempt is burnt");

    ledger.up.store(true, Ordering::SeqCst);
    ledger.has(12).await;
    stands_as(&site, "open").await;
    site.vhost.drained(QUEUE).await;
    assert_eq!(running.terminate().await, 0);
    let account = site.account(ROUTE).await;
    assert_eq!((&account["delivered"], &account["dead"]), (&json!(12), &json!(0)));
    assert_eq!(query::<i64>(&site, "SELECT max(attempt) FROM journal"), 1);
    let log = log(&site);
    assert!(log.contains("PH2306") && log.contains("the system is there again"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_own_fault_it_is_does_not_hold_up_the_others() {
    let ledger = Ledger::new(true).await;
    let site = ledger.site("when_away = { first = \"300ms\", most = \"300ms\" }", "").await;
    site.edit(
        "adapters/ledger.toml",
        "concurrency = 4\n",
        "concurrency = 1\nretry = { at_once = 0, waits = [\"5s\"], give_up = \"1s\" }\n",
    );
    // The first message is answered 503 whenever it comes, the others are taken.
    let taken = ledger.taken.clone();
    let handler = move |request: &Request| match request.json()["id"].as_str() {
        Some("event-1") => Answer::empty(503),
        id => {
            taken.lock().unwrap().push(id.unwrap_or_default().to_owned());
            Answer::empty(201)
        }
    };
    let poisoned = Server::start(Arc::new(handler), 0).await.unwrap();
    site.edit("packhorse.toml", &ledger.server.url, &poisoned.url);
    let running = site.run().await;
    pay(&site, 6).await;
    ledger.has(5).await;
    let dead = site.dead(1).await;
    assert_eq!(dead[0].json()["id"], "event-1");
    assert_eq!(dead[0].header("packhorse_code"), "PH2014");
    assert_eq!(running.terminate().await, 0);
    let account = site.account(ROUTE).await;
    assert_eq!((&account["delivered"], &account["dead"]), (&json!(5), &json!(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_stops_a_running_route_survives_a_crash_and_ends_when_a_person_says_so() {
    let ledger = Ledger::new(true).await;
    let site = ledger.site("", "").await;
    let running = site.run().await;
    pay(&site, 1).await;
    ledger.has(1).await;
    let paused = site.good(&["pause", ROUTE, "--by", "Olu", "--reason", "the ledger is upgraded"]).await;
    assert!(paused.contains("ledger.post is paused"), "{paused}");
    until("the bridge has seen it", async || log(&site).contains("the route is paused").then_some(())).await;
    until("nobody consumes", async || {
        let queue = site.vhost.call("GET", &format!("queues/{QUEUE}"), Value::Null).await?;
        (queue["consumers"] == 0).then_some(())
    })
    .await;
    pay(&site, 4).await;
    running.kill().await;
    let running = site.run().await;
    let line = stands(&site, "ledger.post").await;
    assert_eq!((&line["state"], &line["by"]), (&json!("paused"), &json!("Olu")));
    let (code, _, err) = site.command(&["pause", "ledger", "--by", "Ann", "--reason", "again"]).await;
    assert!(code == 1 && err.contains("PH5008") && err.contains("Olu"), "{err}");
    assert_eq!(site.vhost.depth(QUEUE).await, 4);
    assert_eq!(ledger.taken.lock().unwrap().len(), 1);
    site.good(&["resume", "ledger", "--by", "Olu", "--reason", "done"]).await;
    until("all are taken", async || (ledger.taken.lock().unwrap().len() >= 4).then_some(())).await;
    site.vhost.drained(QUEUE).await;
    assert_eq!(running.terminate().await, 0);
    let account = site.account(ROUTE).await;
    assert_eq!((&account["delivered"], &account["duplicate"]), (&json!(4), &json!(1)));
    let acts: String =
        query(&site, "SELECT group_concat(who || ' ' || what || ' ' || about, '; ') FROM audit");
    assert_eq!(acts, "Olu pause route ledger.post; Olu resume route ledger.post");
    let (code, _, err) = site.command(&["resume", ROUTE, "--reason", "again"]).await;
    assert!(code == 1 && err.contains("PH5008"), "{err}");
    let (code, _, err) = site.command(&["pause", "ledger.pots", "--reason", "again"]).await;
    assert!(code == 1 && err.contains("PH5007") && err.contains("ledger.post"), "{err}");
}

/// Hours that are open at the moment, or that begin in two hours.
fn hours(open: bool) -> String {
    let now = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC);
    let at = |hours: i64| (now.clone() + jiff::Span::new().hours(hours)).strftime("%H:00").to_string();
    let (from, to) = if open { (at(-2), at(3)) } else { (at(2), at(4)) };
    let days = "[\"mon\", \"tue\", \"wed\", \"thu\", \"fri\", \"sat\", \"sun\"]";
    format!("{{ open = [{{ days = {days}, from = \"{from}\", to = \"{to}\" }}], zone = \"UTC\" }}")
}

#[tokio::test(flavor = "multi_thread")]
async fn outside_its_hours_a_system_is_neither_sent_to_nor_asked_and_what_waits_too_long_is_told() {
    let ledger = Ledger::new(true).await;
    let poll = "[collect.look]\nabout = \"Looks.\"\nformat = \"json\"\nevents = [{ ignore = \"nothing of interest\" }]\n\
                poll = { every = \"1s\", request = { method = \"GET\", path = \"/news\" }, split = \"results[]\" }\n";
    let site = ledger.site(&format!("hours = {}\ntell_after = \"1s\"", hours(false)), poll).await;
    let running = site.run().await;
    pay(&site, 3).await;
    let line = stands_as(&site, "closed").await;
    assert!(line["until"].as_str().is_some_and(|until| until.ends_with(":00:00Z")), "{line}");
    assert_eq!(stands(&site, "ledger.look").await["state"], "closed");
    // The head of the queue is looked at, and it is older than a second.
    until("a person is told", async || log(&site).contains("PH2307").then_some(())).await;
    until("and it is shown", async || {
        stands(&site, ROUTE).await["oldest_waiting"].as_str().map(str::to_owned)
    })
    .await;
    assert_eq!(ledger.calls(), 0, "neither sent to nor asked");
    running.kill().await;

    // The bridge's own word counts before the adapter's.
    let settings = std::fs::read_to_string(site.folder.0.join("packhorse.toml")).unwrap();
    site.folder.write("packhorse.toml", format!("{settings}hours = {}\n", hours(true)));
    let running = site.run().await;
    ledger.has(3).await;
    ledger.server.until("GET", "/news", 1).await;
    assert_eq!(running.terminate().await, 0);
    assert_eq!(site.account(ROUTE).await["delivered"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_system_is_called_no_more_often_in_a_minute_and_no_more_at_once_than_it_bears() {
    let ledger = Ledger::new(true).await;
    let site = ledger.site("per_minute = 5\nmost_at_once = 1", "").await;
    let running = site.run().await;
    pay(&site, 8).await;
    until("five are taken", async || (ledger.calls() >= 5).then_some(())).await;
    // Neither the three that are left nor a bridge that goes on may call it: two seconds stand for the minute.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(ledger.calls(), 5);
    running.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hours_that_never_open_or_contradict_themselves_are_refused() {
    let ledger = Ledger::new(true).await;
    let cases = [
        ("hours = { open = [] }", "PH0240"),
        ("hours = { open = [{ from = \"07:00\", to = \"07:00\" }] }", "PH0240"),
        ("hours = { open = [{ days = [], from = \"07:00\", to = \"08:00\" }] }", "PH0240"),
        (
            "hours = { open = [{ from = \"07:00\", to = \"12:00\" }, { from = \"11:00\", to = \"13:00\" }] }",
            "PH0240",
        ),
        ("hours = { open = [{ from = \"7 am\", to = \"12:00\" }] }", "PH0105"),
        ("hours = { open = [{ from = \"07:00\", to = \"12:00\" }], holidays = \"wales\" }", "PH0106"),
        ("hours = { open = [{ from = \"07:00\", to = \"12:00\" }], zone = \"London\" }", "PH0106"),
        ("per_minute = 0", "PH0105"),
        ("when_away = { first = \"soon\" }", "PH0108"),
        ("hours = { open = [{ from = \"20:00\", to = \"06:00\" }], holidays = \"england-and-wales\" }", ""),
    ];
    for (bears, code) in cases {
        let site = ledger.site(bears, "").await;
        let (exit, out, err) = site.command(&["check"]).await;
        let said = format!("{out}{err}");
        match code {
            "" => assert_eq!(exit, 0, "{bears}: {said}"),
            code => assert!(exit == 1 && said.contains(code), "{bears}: {said}"),
        }
    }
}
