//! Payments over the bridge, end to end: on a real RabbitMQ, with the adapters and mappings of this repository, against
//! stand-ins that speak the real protocols. Each test is a promise about money.

use crate::{
    standins::{
        http::{Fault, Server},
        ims::Ims,
        pay::Pay,
        scp::{self, Scp},
    },
    support::{Site, example, until},
};
use serde_json::{Value, json};
use std::sync::Arc;

/// A council with LocalGovIMS, and a bridge that posts to it.
struct Ledger {
    ims: Arc<Ims>,
    server: Server,
    site: Site,
}

async fn ledger() -> Ledger {
    let ims = Arc::new(Ims::default());
    let server = Server::start(ims.clone(), 0).await.unwrap();
    let settings = format!("[adapters.localgov-ims]\nsettings = {{ base_url = \"{}\" }}\n", server.url);
    Ledger { ims, server, site: Site::new(&settings).await }
}

const POSTS: &str = "packhorse.localgov-ims.post";
const PATH: &str = "/api/ProcessedTransactions";

/// A payment of one line that succeeded.
fn paid() -> Value {
    let mut data = example("payment.succeeded.v1");
    data["amount"] = json!(6250);
    data["total_amount"] = json!(6250);
    data["lines"] = json!([{ "line_id": "1", "description": "Council tax", "amount": 6250, "fund": "council-tax", "account": "771234561" }]);
    data
}

#[tokio::test]
async fn each_line_of_a_payment_becomes_one_posting_and_the_platform_is_told_of_each() {
    let Ledger { ims, site, .. } = ledger().await;
    let bridge = site.start().await;
    site.vhost.say("payment.succeeded.v1", "event-1", &example("payment.succeeded.v1")).await;
    let told = site.vhost.until("platform", 3).await;
    let rows = ims.rows();
    assert_eq!(rows.len(), 3);
    let amounts: Vec<f64> = rows.iter().map(|row| row["Amount"].as_f64().unwrap()).collect();
    assert_eq!(amounts, [62.50, 38.00, 2.50]);
    let funds: Vec<&str> = rows.iter().map(|row| row["FundCode"].as_str().unwrap()).collect();
    assert_eq!(funds, ["21", "13", "40"]);
    for event in told {
        assert_eq!(event.routing_key, "payment.posted.v1.example");
        assert_eq!(event.properties["content_type"], "application/cloudevents+json");
    }
    site.vhost.drained(POSTS).await;
    assert!(bridge.stop().await);
    let account = site.good(&["account"]).await;
    assert!(account.contains("closes"), "{account}");
}
