//! Card payments both ways: GOV.UK Pay and the Secure Card Portal, with the adapters and mappings of this repository,
//! against stand-ins that keep to the documented behaviour, on a real RabbitMQ.

use crate::{
    standins::{
        http::{Fault, Server},
        ims::Ims,
        pay::{self, Pay},
        scp::{self, Scp},
    },
    support::{Seen, Site, example},
};
use jiff::{SignedDuration, Timestamp};
use packhorse::bridge::Bridge;
use serde_json::{Value, json};
use std::{collections::BTreeSet, sync::Arc};

/// Every route of the Pay adapter that looks for itself, so that a test can leave out what it does not want.
const LOOKING: [&str; 6] =
    ["unfinished", "sweep", "sweep-delayed", "refund-status", "refund-sweep", "settlements"];

pub struct PaySite {
    pub pay: Arc<Pay>,
    pub server: Server,
    pub site: Site,
}

/// A council with GOV.UK Pay; of the routes that look for themselves only these run, every second.
pub async fn pay_site(looking: &[&str]) -> PaySite {
    let pay = Arc::new(Pay::default());
    let server = Server::start(pay.clone(), 0).await.unwrap();
    let mut settings = format!(
        "[receiver]\nlisten = \"127.0.0.1:0\"\n\n[adapters.govuk-pay]\n\
         settings = {{ base_url = \"{}\", api_key = \"file:$FOLDER/secrets/pay-key\", signing_secret = \"file:$FOLDER/secrets/pay-signing\" }}\n",
        server.url
    );
    for route in LOOKING {
        let keys = match (looking.contains(&route), route) {
            (false, _) => "enabled = false",
            (true, "unfinished" | "refund-status") => "waits = [\"1s\"]",
            (true, _) => "every = \"1s\"",
        };
        // A delivery that opens an item needs the route that asks.
        let needed = matches!(route, "unfinished" | "refund-status") && !looking.contains(&route);
        let keys = if needed { "waits = [\"1h\"]" } else { keys };
        settings.push_str(&format!("[adapters.govuk-pay.routes.{route}]\n{keys}\n"));
    }
    PaySite { pay, server, site: Site::new(&settings).await }
}

impl PaySite {
    /// Sends a webhook; the status of the answer.
    async fn notify(&self, bridge: &Bridge, body: &str, signature: Option<&str>) -> u16 {
        let url = format!("http://{}/govuk-pay/notices", bridge.receiver.unwrap());
        let mut request =
            reqwest::Client::new().post(url).header("Content-Type", "application/json").body(body.to_owned());
        if let Some(signature) = signature {
            request = request.header("Pay-Signature", signature);
        }
        request.send().await.unwrap().status().as_u16()
    }

    /// A payment that somebody made on a payment page of the council's own.
    pub fn made_elsewhere(&self) -> String {
        let asked = json!({ "amount": 6250, "reference": "GW-2026-004417", "description": "Garden waste subscription 2026/27",
                            "return_url": "https://forms.example.gov.uk/paid/1", "email": "resident@example.org",
                            "metadata": { "fund_code": "21", "account": "H4410-R2010" } });
        self.pay.taken(asked, Timestamp::now())
    }

    async fn told(&self, count: usize) -> Vec<Seen> {
        self.site.vhost.until("platform", count).await
    }
}

pub fn types(events: &[Seen]) -> Vec<&str> {
    events.iter().map(|event| event.routing_key.as_str()).collect()
}

#[tokio::test]
async fn a_webhook_is_a_wake_up_and_the_event_is_made_of_what_the_api_says() {
    let world = pay_site(&[]).await;
    let bridge = world.site.start().await;
    let id = world.made_elsewhere();
    world.pay.payer(&id, "success");
    let (body, signature) = world.pay.webhook(&id, "card_payment_succeeded", "message-1");
    assert_eq!(world.notify(&bridge, &body, Some(&signature)).await, 200);
    let told = world.told(1).await;
    assert_eq!(types(&told), ["payment.succeeded.v1.example"]);
    let data = told[0].json()["data"].clone();
    assert_eq!((&data["amount"], &data["posting"]), (&json!(6250), &json!("needed")));
    assert_eq!(data["lines"][0]["fund"], "garden-waste");
    assert_eq!(data["provider_reference"], id);
    // Pay sends several notices for one payment, and each of them again until it is thanked: one event all the same.
    assert_eq!(world.notify(&bridge, &body, Some(&signature)).await, 200);
    let (body, signature) = world.pay.webhook(&id, "card_payment_captured", "message-2");
    assert_eq!(world.notify(&bridge, &body, Some(&signature)).await, 200);
    assert!(bridge.stop().await);
    let bridge = world.site.start().await;
    assert!(bridge.stop().await);
    assert_eq!(world.told(1).await.len(), 1);
    let account = world.site.account("govuk-pay.notices").await;
    assert_eq!(
        (&account["taken"], &account["waiting"], &account["dead"]),
        (&json!(3), &json!(0), &json!(0)),
        "{account}"
    );
}

#[tokio::test]
async fn an_answer_that_comes_twice_is_not_taken_for_that_to_the_next_question() {
    const COUNT: usize = 10;
    let world = pay_site(&[]).await;
    let bridge = world.site.start().await;
    world.server.misbehave("GET", "/v1/payments", Fault::Twice, 2 * COUNT as u32);
    let mut paid = BTreeSet::new();
    for number in 0..COUNT {
        let id = world.made_elsewhere();
        world.pay.payer(&id, "success");
        let (body, signature) =
            world.pay.webhook(&id, "card_payment_succeeded", &format!("message-{number}"));
        assert_eq!(world.notify(&bridge, &body, Some(&signature)).await, 200);
        paid.insert(id);
    }
    let told: BTreeSet<String> = world
        .told(COUNT)
        .await
        .iter()
        .map(|event| event.json()["data"]["provider_reference"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(told, paid);
    assert!(bridge.stop().await);
}

#[tokio::test]
async fn a_webhook_that_pay_did_not_sign_is_refused_and_nothing_is_taken_in() {
    let world = pay_site(&[]).await;
    let bridge = world.site.start().await;
    let id = world.made_elsewhere();
    let (body, signature) = world.pay.webhook(&id, "card_payment_succeeded", "message-1");
    assert_eq!(world.notify(&bridge, &body, None).await, 401);
    assert_eq!(world.notify(&bridge, &body, Some(&"0".repeat(64))).await, 401);
    assert_eq!(world.notify(&bridge, &body, Some(&pay::sign("another secret", body.as_bytes()))).await, 401);
    assert_eq!(world.notify(&bridge, &body.replace("6250", "1"), Some(&signature)).await, 401);
    assert_eq!(world.notify(&bridge, &"x".repeat(300_000), Some(&signature)).await, 413);
    // The key is new, the old one still counts: both are taken while it is being changed.
    assert!(bridge.stop().await);
    let path = world.site.folder.write("secrets/pay-next", "webhook_test_next");
    let from = "signing_secret = \"";
    world.site.edit(
        "packhorse.toml",
        from,
        &format!("signing_secret_next = \"file:{}\", {from}", path.display()),
    );
    let bridge = world.site.start().await;
    world.pay.payer(&id, "success");
    let (body, signature) = world.pay.webhook(&id, "card_payment_succeeded", "message-2");
    assert_eq!(world.notify(&bridge, &body, Some(&signature)).await, 200);
    let (body, _) = world.pay.webhook(&id, "card_payment_succeeded", "message-3");
    assert_eq!(
        world.notify(&bridge, &body, Some(&pay::sign("webhook_test_next", body.as_bytes()))).await,
        200
    );
    world.told(1).await;
    assert!(bridge.stop().await);
    assert_eq!(world.site.account("govuk-pay.notices").await["taken"], 2);
}

#[tokio::test]
async fn a_body_that_cannot_be_read_is_thanked_for_and_lies_whole_in_the_dead_letters() {
    let world = pay_site(&[]).await;
    let bridge = world.site.start().await;
    let body = "{\"webhook_message_id\": \"message-1\", ";
    assert_eq!(
        world.notify(&bridge, body, Some(&pay::sign(pay::SIGNING_SECRET, body.as_bytes()))).await,
        200
    );
    let dead = world.site.dead(1).await;
    assert_eq!(dead[0].body, body.as_bytes());
    assert_eq!(dead[0].header("packhorse_code"), "PH1101");
    assert!(bridge.stop().await);
    assert_eq!(world.site.account("govuk-pay.notices").await["dead"], 1);
}

#[tokio::test]
async fn the_words_of_a_webhook_are_not_trusted_for_how_a_payment_ended() {
    let world = pay_site(&[]).await;
    let bridge = world.site.start().await;
    for (does, wanted) in [
        ("decline", "payment.failed.v1.example"),
        ("expire", "payment.failed.v1.example"),
        ("cancel", "payment.cancelled.v1.example"),
    ] {
        let id = world.made_elsewhere();
        world.pay.payer(&id, does);
        let (body, signature) = world.pay.webhook(&id, "card_payment_failed", &format!("message-{does}"));
        assert!(!body.contains("\"failed\""), "{body}");
        assert_eq!(world.notify(&bridge, &body, Some(&signature)).await, 200);
        let told = world.site.vhost.until("platform", 1).await;
        let of = |event: &&Seen| event.json()["data"]["provider_reference"] == id;
        let told = match told.iter().find(of) {
            Some(event) => event.clone(),
            None => {
                crate::support::until("the event", async || {
                    world.site.vhost.peek("platform").await.iter().find(of).cloned()
                })
                .await
            }
        };
        assert_eq!(told.routing_key, wanted, "{does}");
    }
    assert!(bridge.stop().await);
}

#[tokio::test]
async fn while_the_api_is_away_a_notice_waits_in_the_spool() {
    let world = pay_site(&[]).await;
    world.server.misbehave("GET", "/v1/payments/", Fault::Status(503, None), 1);
    let bridge = world.site.start().await;
    let id = world.made_elsewhere();
    world.pay.payer(&id, "success");
    let (body, signature) = world.pay.webhook(&id, "card_payment_succeeded", "message-1");
    assert_eq!(world.notify(&bridge, &body, Some(&signature)).await, 200);
    assert_eq!(types(&world.told(1).await), ["payment.succeeded.v1.example"]);
    assert!(bridge.stop().await);
}

#[tokio::test]
async fn a_payment_asked_for_by_the_platform_is_created_its_link_given_out_once_and_its_end_told() {
    let world = pay_site(&["unfinished"]).await;
    let bridge = world.site.start().await;
    let asked = example("payment.requested.v1");
    world.site.vhost.say("payment.requested.v1", "event-1", &asked).await;
    let told = world.told(1).await;
    assert_eq!(types(&told), ["payment.started.v1.example"]);
    let payments = world.pay.payments();
    assert_eq!(payments.len(), 1);
    assert_eq!(payments[0].amount, 10_050);
    assert!(told[0].body.windows(8).any(|window| window == b"/secure/"), "{}", told[0].json());
    // The same wish again, and another event for the same payment: no second payment while one is open.
    world.site.vhost.say("payment.requested.v1", "event-1", &asked).await;
    world.site.vhost.say("payment.requested.v1", "event-2", &asked).await;
    world.site.vhost.drained("packhorse.govuk-pay.create").await;
    world.pay.payer(&payments[0].id, "success");
    let told = world.told(2).await;
    assert_eq!(types(&told), ["payment.started.v1.example", "payment.succeeded.v1.example"]);
    let data = &told[1].json()["data"];
    assert_eq!((&data["amount"], data["lines"].as_array().unwrap().len()), (&json!(10_050), 2));
    assert_eq!(data["payment_id"], asked["payment_id"]);
    // The second wish, which waited, finds the payment made: it goes before a person, and nobody pays twice.
    let dead = world.site.dead(1).await;
    assert_eq!(dead[0].header("packhorse_code"), "PH2015");
    assert_eq!(world.pay.payments().len(), 1);
    assert!(bridge.stop().await);
}

#[tokio::test]
async fn a_refund_whose_answer_is_cut_is_not_made_twice() {
    for fault in [Fault::CutAfter, Fault::CutBefore, Fault::Status(503, None)] {
        let world = pay_site(&["refund-status"]).await;
        let bridge = world.site.start().await;
        let id = world.made_elsewhere();
        world.pay.payer(&id, "success");
        world.server.misbehave("POST", "/v1/payments/", fault.clone(), 1);
        let mut data = example("refund.requested.v1");
        data["provider_reference"] = json!(id);
        data["amount"] = json!(2000);
        world.site.vhost.say("refund.requested.v1", "event-1", &data).await;
        world.site.vhost.drained("packhorse.govuk-pay.refund").await;
        // Once it is asked about, it is recorded as done.
        world.server.until("GET", &format!("/v1/payments/{id}/refunds/"), 1).await;
        assert!(bridge.stop().await);
        let refunds = world.pay.payments()[0].refunds.clone();
        assert_eq!(refunds.len(), 1, "{fault:?}: {refunds:?}");
        let posts = world.server.requests("POST", "/v1/payments/");
        assert!(
            posts.iter().all(|post| post.json()["refund_amount_available"] == 6250),
            "the lock is always the first one read"
        );
        assert_eq!(world.site.account("govuk-pay.refund").await["delivered"], 1);
    }
}

#[tokio::test]
async fn what_the_question_does_not_settle_is_neither_done_nor_sent_again() {
    let world = pay_site(&[]).await;
    let bridge = world.site.start().await;
    let id = world.made_elsewhere();
    world.pay.payer(&id, "success");
    world.server.misbehave("POST", "/v1/payments/", Fault::Status(503, None), 1);
    world.server.misbehave("POST", "/v1/payments/", Fault::CutBefore, 1);
    let mut data = example("refund.requested.v1");
    data["provider_reference"] = json!(id);
    data["amount"] = json!(2000);
    // While ours is in doubt, somebody refunds another amount at Pay's own page.
    world.site.vhost.say("refund.requested.v1", "event-1", &data).await;
    world.server.until("POST", "/v1/payments/", 1).await;
    let staff = pay::Refund {
        id: "staff".to_owned(),
        amount: 1000,
        status: "submitted".to_owned(),
        created: String::new(),
    };
    world.pay.change(&id, |payment| payment.refunds.push(staff));
    crate::support::until("it waits, in doubt", async || {
        (world.site.vhost.depth("packhorse.retry.5s").await == 1).then_some(())
    })
    .await;
    assert!(bridge.stop().await);
    let account = world.site.account("govuk-pay.refund").await;
    assert_eq!((&account["waiting"], &account["delivered"]), (&json!(1), &json!(0)));
    let posts = world.server.requests("POST", "/v1/payments/");
    assert!(posts.iter().all(|post| post.json()["refund_amount_available"] == 6250));
    assert_eq!(world.pay.payments()[0].refunds.len(), 1, "only what the staff did");
}

#[tokio::test]
async fn a_refund_is_followed_until_it_is_settled() {
    let world = pay_site(&["refund-status"]).await;
    let bridge = world.site.start().await;
    let id = world.made_elsewhere();
    world.pay.payer(&id, "success");
    let mut data = example("refund.requested.v1");
    data["provider_reference"] = json!(id);
    data["amount"] = json!(2000);
    world.site.vhost.say("refund.requested.v1", "event-1", &data).await;
    world.server.until("GET", &format!("/v1/payments/{id}/refunds/"), 2).await;
    world.pay.change(&id, |payment| "success".clone_into(&mut payment.refunds[0].status));
    // Pay's own notice of it names no refund: the event is made by the route that knows which refund was asked for.
    let (body, signature) = world.pay.webhook(&id, "card_payment_refunded", "message-1");
    assert_eq!(world.notify(&bridge, &body, Some(&signature)).await, 200);
    let told = world.told(1).await;
    assert_eq!(types(&told), ["refund.settled.v1.example"]);
    assert_eq!(told[0].json()["data"]["outcome"], "succeeded");
    assert_eq!(told[0].json()["data"]["refund_id"], data["refund_id"]);
    assert!(bridge.stop().await);
}

#[tokio::test]
async fn a_refund_of_more_than_is_left_goes_before_a_person() {
    let world = pay_site(&[]).await;
    let bridge = world.site.start().await;
    let id = world.made_elsewhere();
    world.pay.payer(&id, "success");
    let mut data = example("refund.requested.v1");
    data["provider_reference"] = json!(id);
    data["amount"] = json!(9000);
    world.site.vhost.say("refund.requested.v1", "event-1", &data).await;
    let dead = world.site.dead(1).await;
    assert!(dead[0].header("packhorse_what").contains("P0602"), "{}", dead[0].header("packhorse_what"));
    assert!(world.pay.payments()[0].refunds.is_empty());
    assert!(bridge.stop().await);
}

#[tokio::test]
async fn a_cancel_and_a_capture_reach_the_payment() {
    let world = pay_site(&[]).await;
    let bridge = world.site.start().await;
    let open = world.made_elsewhere();
    let mut data = example("payment.cancel.requested.v1");
    data["provider_reference"] = json!(open);
    // The answer is cut: asking shows that it is done.
    world.server.misbehave("POST", "/v1/payments/", Fault::CutAfter, 1);
    world.site.vhost.say("payment.cancel.requested.v1", "event-1", &data).await;
    crate::support::until("cancelled", async || {
        (world.pay.payments()[0].status == "cancelled").then_some(())
    })
    .await;
    let asked = json!({ "amount": 6250, "reference": "GW-1", "description": "Garden waste", "return_url": "https://x.example", "delayed_capture": true });
    let held = world.pay.taken(asked, Timestamp::now());
    world.pay.payer(&held, "success");
    assert_eq!(world.pay.payments()[1].status, "capturable");
    let mut data = example("payment.capture.requested.v1");
    data["provider_reference"] = json!(held);
    world.site.vhost.say("payment.capture.requested.v1", "event-2", &data).await;
    crate::support::until("captured", async || (world.pay.payments()[1].status == "success").then_some(()))
        .await;
    world.site.vhost.drained("packhorse.govuk-pay.capture").await;
    assert!(bridge.stop().await);
    assert_eq!(world.site.account("govuk-pay.cancel").await["delivered"], 1);
    assert_eq!(world.site.account("govuk-pay.capture").await["delivered"], 1);
    assert_eq!(world.server.requests("POST", "/v1/payments/").len(), 2);
}

#[tokio::test]
async fn what_no_webhook_told_of_is_found_by_the_sweep_page_by_page_and_told_once() {
    let world = pay_site(&["sweep"]).await;
    let before = Timestamp::now() - SignedDuration::from_mins(100);
    for number in 0..5 {
        let asked = json!({ "amount": 1000 + number, "reference": format!("GW-{number}"), "description": "Garden waste",
                            "return_url": "https://x.example", "metadata": { "fund_code": "21", "account": "H4410-R2010" } });
        let id = world.pay.taken(asked, before);
        world.pay.payer(&id, "success");
    }
    let bridge = world.site.start().await;
    let told = world.told(5).await;
    assert!(told.iter().all(|event| event.routing_key == "payment.succeeded.v1.example"));
    // The next looks see the same payments again.
    let looks = world.server.requests("GET", "/v1/payments").len();
    world.server.until("GET", "/v1/payments", looks + 6).await;
    assert!(bridge.stop().await);
    assert_eq!(world.told(5).await.len(), 5);
}

#[tokio::test]
async fn a_delayed_capture_that_never_came_goes_before_a_person_and_one_that_came_is_told() {
    let world = pay_site(&["sweep-delayed"]).await;
    let before = Timestamp::now() - SignedDuration::from_hours(122);
    let taken = |delayed: bool| {
        let asked = json!({ "amount": 6250, "reference": format!("GW-{delayed}"), "description": "Garden waste", "delayed_capture": delayed,
                            "return_url": "https://x.example", "metadata": { "fund_code": "21", "account": "H4410-R2010" } });
        let id = world.pay.taken(asked, before);
        world.pay.payer(&id, "success");
        id
    };
    let (never, came) = (taken(true), taken(false));
    let bridge = world.site.start().await;
    let told = world.told(1).await;
    assert_eq!(told[0].json()["data"]["provider_reference"], json!(came));
    let dead = world.site.dead(1).await;
    assert_eq!(dead[0].json()["payment_id"], json!(never));
    assert!(dead[0].header("packhorse_what").contains("121 hours"), "{:?}", dead[0].properties);
    // The next looks see both again, and add nothing.
    let looks = world.server.requests("GET", "/v1/payments").len();
    world.server.until("GET", "/v1/payments", looks + 3).await;
    assert!(bridge.stop().await);
    assert_eq!((world.told(1).await.len(), world.site.dead(1).await.len()), (1, 1));
}

#[tokio::test]
async fn a_payment_that_was_paid_out_becomes_one_line_to_reconcile() {
    let world = pay_site(&["settlements"]).await;
    let ids: Vec<String> = (0..3).map(|_| world.made_elsewhere()).collect();
    for id in &ids {
        world.pay.payer(id, "success");
    }
    let today = Timestamp::now().strftime("%Y-%m-%d").to_string();
    // The third is not paid out yet.
    for id in &ids[..2] {
        world.pay.change(id, |payment| payment.settled = Some(today.clone()));
    }
    let bridge = world.site.start().await;
    let told = world.told(2).await;
    let looks = world.server.requests("GET", "/v1/payments").len();
    world.server.until("GET", "/v1/payments", looks + 3).await;
    assert!(bridge.stop().await);
    assert_eq!(types(&told), ["reconciliation.line.v1.example"; 2]);
    let data = &told[0].json()["data"];
    assert_eq!(
        (&data["gross"], &data["fee"], &data["net"], &data["settled_on"]),
        (&json!(6250), &json!(25), &json!(6225), &json!(today))
    );
    assert_eq!(world.told(2).await.len(), 2);
}

#[tokio::test]
async fn a_payment_taken_on_pay_ends_once_as_a_posting_in_the_councils_income_system() {
    let world = pay_site(&[]).await;
    let ims = Arc::new(Ims::default());
    let ledger = Server::start(ims.clone(), 0).await.unwrap();
    let path = world.site.folder.0.join("packhorse.toml");
    let mut text = std::fs::read_to_string(&path).unwrap();
    text.push_str(&format!("\n[adapters.localgov-ims]\nsettings = {{ base_url = \"{}\" }}\n", ledger.url));
    std::fs::write(&path, text).unwrap();
    // The platform hands what it hears of payments back to the councils.
    let key = json!({ "routing_key": "payment.succeeded.v1.*" });
    world.site.vhost.call("POST", "bindings/e/platform.updates/e/platform.events", key).await;
    ledger.misbehave("POST", "/api", Fault::CutAfter, 1);
    let bridge = world.site.start().await;
    let id = world.made_elsewhere();
    world.pay.payer(&id, "success");
    for message in ["message-1", "message-2"] {
        let (body, signature) = world.pay.webhook(&id, "card_payment_succeeded", message);
        assert_eq!(world.notify(&bridge, &body, Some(&signature)).await, 200);
    }
    let told = world.told(2).await;
    assert_eq!(types(&told), ["payment.succeeded.v1.example", "payment.posted.v1.example"]);
    assert!(bridge.stop().await);
    let rows = ims.rows();
    assert_eq!(rows.len(), 1);
    assert_eq!(
        (&rows[0]["PspReference"], &rows[0]["Amount"], &rows[0]["FundCode"]),
        (&json!(id), &json!(62.5), &json!("21"))
    );
}

pub struct ScpSite {
    pub scp: Arc<Scp>,
    pub server: Server,
    pub site: Site,
}

pub async fn scp_site() -> ScpSite {
    let portal = Arc::new(Scp::default());
    let server = Server::start(portal.clone(), 0).await.unwrap();
    let settings = format!(
        "[adapters.capita-scp]\nsettings = {{ base_url = \"{}\", scp_id = {}, site_id = {}, hmac_key_id = {}, hmac_key = \"file:$FOLDER/secrets/scp-key\" }}\n\
         [adapters.capita-scp.routes.sales]\nwaits = [\"1s\"]\n",
        server.url,
        scp::SCP_ID,
        scp::SITE_ID,
        scp::KEY_ID
    );
    ScpSite { scp: portal, server, site: Site::new(&settings).await }
}

pub fn wish() -> Value {
    let mut data = example("payment.requested.v1");
    data["provider"] = json!("capita-scp");
    data["payer"]["name"] = json!("Siân & Co. <Exampleton>");
    data
}

#[tokio::test]
async fn a_sale_is_opened_on_the_portal_and_its_end_is_told_as_posted_by_the_provider() {
    let world = scp_site().await;
    let bridge = world.site.start().await;
    world.site.vhost.say("payment.requested.v1", "event-1", &wish()).await;
    let told = world.site.vhost.until("platform", 1).await;
    assert_eq!(types(&told), ["payment.started.v1.example"]);
    let (reference, sale) =
        world.scp.sales.lock().unwrap().first_key_value().map(|(k, v)| (k.clone(), v.clone())).unwrap();
    assert_eq!((sale.amount, sale.request_id.as_str()), (10_050, wish()["payment_id"].as_str().unwrap()));
    // Asked about while the payer is still there: nothing is told.
    world.server.until("POST", "/scp/scpws", 3).await;
    world.scp.payer(&reference, "SUCCESS");
    let told = world.site.vhost.until("platform", 2).await;
    assert_eq!(types(&told), ["payment.started.v1.example", "payment.succeeded.v1.example"]);
    let data = told[1].json()["data"].clone();
    assert_eq!((&data["total_amount"], &data["posting"]), (&json!(10_050), &json!("done-by-provider")));
    assert_eq!(data["paid_at"], "2026-11-23T09:44:31Z");
    assert!(bridge.stop().await);
    assert_eq!(world.scp.sales.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn an_invoke_whose_answer_is_lost_is_made_again_and_only_the_last_link_is_given_out() {
    let world = scp_site().await;
    world.server.misbehave("POST", "/scp/scpws", Fault::CutAfter, 1);
    let bridge = world.site.start().await;
    world.site.vhost.say("payment.requested.v1", "event-1", &wish()).await;
    let told = world.site.vhost.until("platform", 1).await;
    let sales: Vec<String> = world.scp.sales.lock().unwrap().keys().cloned().collect();
    assert_eq!(sales.len(), 2, "the first sale is open, and nobody has its link");
    let link = told[0].json().to_string();
    assert!(link.contains(&sales[1]) && !link.contains(&sales[0]), "{link}");
    assert!(bridge.stop().await);
}

#[tokio::test]
async fn no_second_sale_is_opened_while_the_first_is_in_progress_or_after_it_was_paid() {
    let world = scp_site().await;
    let bridge = world.site.start().await;
    world.site.vhost.say("payment.requested.v1", "event-1", &wish()).await;
    world.site.vhost.until("platform", 1).await;
    world.site.vhost.say("payment.requested.v1", "event-2", &wish()).await;
    world.server.until("POST", "/scp/scpws", 4).await;
    assert_eq!(world.scp.sales.lock().unwrap().len(), 1);
    let reference = world.scp.sales.lock().unwrap().keys().next().unwrap().clone();
    world.scp.payer(&reference, "SUCCESS");
    let dead = world.site.dead(1).await;
    assert_eq!(dead[0].header("packhorse_code"), "PH2015");
    assert!(bridge.stop().await);
    assert_eq!(world.scp.sales.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn after_a_sale_that_was_not_paid_the_payer_may_try_again() {
    let world = scp_site().await;
    let bridge = world.site.start().await;
    world.site.vhost.say("payment.requested.v1", "event-1", &wish()).await;
    world.site.vhost.until("platform", 1).await;
    let reference = world.scp.sales.lock().unwrap().keys().next().unwrap().clone();
    world.scp.payer(&reference, "CARD_DETAILS_REJECTED");
    let told = world.site.vhost.until("platform", 2).await;
    assert_eq!(told[1].routing_key, "payment.failed.v1.example");
    world.site.vhost.say("payment.requested.v1", "event-2", &wish()).await;
    let told = world.site.vhost.until("platform", 3).await;
    assert_eq!(told[2].routing_key, "payment.started.v1.example");
    assert_eq!(world.scp.sales.lock().unwrap().len(), 2);
    assert!(bridge.stop().await);
}

#[tokio::test]
async fn what_the_portal_refuses_is_a_dead_letter_that_says_so() {
    let world = scp_site().await;
    world.site.edit("packhorse.toml", "site_id = 147", "site_id = 148");
    let bridge = world.site.start().await;
    world.site.vhost.say("payment.requested.v1", "event-1", &wish()).await;
    let dead = world.site.dead(1).await;
    assert!(
        dead[0].header("packhorse_what").contains("INVALID_REQUEST"),
        "{}",
        dead[0].header("packhorse_what")
    );
    assert!(bridge.stop().await);
    // A wrong key is a SOAP fault.
    world.site.folder.write("secrets/scp-key", "AAAA");
    world.site.edit("packhorse.toml", "site_id = 148", "site_id = 147");
    let bridge = world.site.start().await;
    world.site.vhost.say("payment.requested.v1", "event-2", &wish()).await;
    let dead = world.site.dead(2).await;
    assert!(dead[1].header("packhorse_what").contains("fault"), "{}", dead[1].header("packhorse_what"));
    assert!(bridge.stop().await);
}
