//! A stand-in for GOV.UK Pay's public API v1 and its webhooks, as documented and as its published source behaves: the
//! refund lock, states that differ between API and webhook, webhooks that come several times, an `Idempotency-Key` that is
//! ignored. The payer's page is at `next_url`.

use super::http::{Answer, Handle, Request};
use jiff::Timestamp;
use ring::hmac;
use serde_json::{Map, Value, json};
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

/// The API key of the stand-in's service.
pub const API_KEY: &str = "api_test_standin";
/// The signing secret of its webhook.
pub const SIGNING_SECRET: &str = "webhook_test_standin";

/// Where payers are sent; a name that nobody has. The page itself is at the stand-in's own address.
const PAGES: &str = "https://pay.standin.example";

#[derive(Debug, Clone)]
pub struct Refund {
    pub id: String,
    pub amount: u64,
    pub status: String,
    pub created: String,
}

#[derive(Debug, Clone)]
pub struct Payment {
    pub id: String,
    /// What the caller sent.
    pub asked: Map<String, Value>,
    pub amount: u64,
    /// A surcharge on a company card.
    pub surcharge: u64,
    /// `created`, `submitted`, `capturable`, `success`, `failed`, `cancelled`, `error`: the API's words.
    pub status: String,
    pub code: String,
    pub created: String,
    pub paid_at: String,
    pub settled: Option<String>,
    pub refunds: Vec<Refund>,
}

impl Payment {
    fn finished(&self) -> bool {
        !matches!(self.status.as_str(), "created" | "started" | "submitted" | "capturable")
    }

    fn available(&self) -> u64 {
        if self.status != "success" {
            return self.amount;
        }
        let gone: u64 =
            self.refunds.iter().filter(|refund| refund.status != "error").map(|refund| refund.amount).sum();
        self.amount + self.surcharge - gone
    }

    /// The payment as an answer holds it; `webhook` with the states that webhooks name.
    fn shown(&self, base: &str, webhook: bool) -> Value {
        let mut state = json!({ "status": self.status, "finished": self.finished() });
        if !self.code.is_empty() {
            // A webhook's own words, and its first match by them: both cancellations come as P0030.
            let (status, code) = match (webhook, self.code.as_str()) {
                (true, "P0010") => ("declined", "P0010"),
                (true, "P0020") => ("timedout", "P0020"),
                (true, "P0030" | "P0040") => ("cancelled", "P0030"),
                _ => (self.status.as_str(), self.code.as_str()),
            };
            state = json!({ "status": status, "finished": true, "code": code, "message": "see code" });
        }
        let submitted: u64 =
            self.refunds.iter().filter(|refund| refund.status != "error").map(|refund| refund.amount).sum();
        let summary = match self.status.as_str() {
            "success" if self.available() == 0 => "full",
            "success" => "available",
            "failed" | "cancelled" | "error" => "unavailable",
            _ => "pending",
        };
        let mut shown = self.asked.clone();
        shown.remove("prefilled_cardholder_details");
        let mut set = |name: &str, value: Value| {
            shown.insert(name.to_owned(), value);
        };
        set("state", state);
        set("payment_id", json!(self.id));
        set("payment_provider", json!("sandbox"));
        set("created_date", json!(self.created));
        set(
            "refund_summary",
            json!({ "status": summary, "amount_available": self.available(), "amount_submitted": submitted }),
        );
        let mut settlement = Map::new();
        if self.status == "success" {
            settlement.insert("capture_submit_time".to_owned(), json!(self.paid_at));
            settlement.insert("captured_date".to_owned(), json!(self.paid_at.get(..10)));
            set(
                "card_details",
                json!({ "last_digits_card_number": "1111", "first_digits_card_number": "444433", "cardholder_name": "A RESIDENT",
                        "expiry_date": "10/28", "billing_address": { "line1": "1 High Street", "postcode": "EX1 1AA", "city": "Exampleton", "country": "GB" },
                        "card_brand": "Visa", "card_type": "credit" }),
            );
            if self.surcharge > 0 {
                set("corporate_card_surcharge", json!(self.surcharge));
                set("total_amount", json!(self.amount + self.surcharge));
            }
        }
        if let Some(date) = &self.settled {
            settlement.insert("settled_date".to_owned(), json!(date));
            set("fee", json!(25));
            set("net_amount", json!(self.amount - 25));
        }
        set("settlement_summary", Value::Object(settlement));
        for (name, value) in
            [("language", json!("en")), ("delayed_capture", json!(false)), ("moto", json!(false))]
        {
            shown.entry(name).or_insert(value);
        }
        if !webhook {
            let own = format!("{base}/v1/payments/{}", self.id);
            let link = |href: String, method: &str| json!({ "href": href, "method": method });
            let links = json!({
                "self": link(own.clone(), "GET"),
                "next_url": link(format!("{PAGES}/secure/{}", self.id), "GET"),
                "events": link(format!("{own}/events"), "GET"),
                "refunds": link(format!("{own}/refunds"), "GET"),
                "cancel": if self.finished() { Value::Null } else { link(format!("{own}/cancel"), "POST") },
            });
            shown.insert("authorisation_mode".to_owned(), json!("web"));
            shown.insert("_links".to_owned(), links);
        }
        Value::Object(shown)
    }
}

fn refund_shown(payment: &Payment, refund: &Refund, base: &str) -> Value {
    let own = format!("{base}/v1/payments/{}", payment.id);
    json!({ "refund_id": refund.id, "created_date": refund.created, "amount": refund.amount, "status": refund.status,
            "_links": { "self": { "href": format!("{own}/refunds/{}", refund.id), "method": "GET" },
                        "payment": { "href": own, "method": "GET" } } })
}

#[derive(Default)]
pub struct Pay {
    payments: Mutex<Vec<Payment>>,
    numbers: AtomicU64,
    /// Where webhooks go, once known.
    pub webhook: Arc<Mutex<Option<String>>>,
}

fn error(status: u16, code: &str, description: &str) -> Answer {
    Answer::json(status, &json!({ "code": code, "description": description }))
}

fn field(status: u16, field: &str, code: &str) -> Answer {
    Answer::json(
        status,
        &json!({ "field": field, "code": code, "description": format!("Invalid attribute value: {field}") }),
    )
}

fn millis(moment: Timestamp) -> String {
    moment.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

impl Pay {
    pub fn payments(&self) -> Vec<Payment> {
        self.payments.lock().unwrap().clone()
    }

    /// Changes a payment, as Pay's own side does.
    pub fn change(&self, id: &str, change: impl FnOnce(&mut Payment)) {
        let mut payments = self.payments.lock().unwrap();
        change(payments.iter_mut().find(|payment| payment.id == id).unwrap());
    }

    /// A payment that somebody made without the bridge; its id.
    pub fn taken(&self, asked: Value, created: Timestamp) -> String {
        let Value::Object(asked) = asked else { panic!("a payment is an object") };
        let id = self.next("p");
        let amount = asked.get("amount").and_then(Value::as_u64).unwrap();
        self.payments.lock().unwrap().push(Payment {
            id: id.clone(),
            asked,
            amount,
            surcharge: 0,
            status: "created".to_owned(),
            code: String::new(),
            created: millis(created),
            paid_at: String::new(),
            settled: None,
            refunds: Vec::new(),
        });
        id
    }

    /// The payer does this on Pay's page: `success`, `decline`, `cancel`; or does nothing until it `expire`s.
    pub fn payer(&self, id: &str, does: &str) {
        self.change(id, |payment| {
            let (status, code) = match does {
                "decline" => ("failed", "P0010"),
                "expire" => ("failed", "P0020"),
                "cancel" => ("failed", "P0030"),
                _ if payment.asked.get("delayed_capture") == Some(&json!(true)) => ("capturable", ""),
                _ => ("success", ""),
            };
            status.clone_into(&mut payment.status);
            code.clone_into(&mut payment.code);
            payment.paid_at = millis(Timestamp::now());
        });
    }

    /// A webhook's body and its signature.
    pub fn webhook(&self, id: &str, event_type: &str, message: &str) -> (String, String) {
        let payments = self.payments.lock().unwrap();
        let payment = payments.iter().find(|payment| payment.id == id).unwrap();
        let body = json!({ "webhook_message_id": message, "created_date": millis(Timestamp::now()), "resource_id": id,
                           "api_version": 1, "resource_type": "payment", "event_type": event_type,
                           "resource": payment.shown("", true) })
        .to_string();
        let signature = sign(SIGNING_SECRET, body.as_bytes());
        (body, signature)
    }

    /// A number for a new webhook message, payment or refund: 26 characters.
    pub fn next(&self, letter: &str) -> String {
        format!("{letter}{:025}", self.numbers.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Sends the webhook of what the payer did, as Pay does: again until it is answered with 2xx.
    fn tell(&self, id: &str) {
        let Some(url) = self.webhook.lock().unwrap().clone() else { return };
        let event_type = match self.payments().iter().find(|payment| payment.id == id) {
            Some(payment) if payment.status == "success" => "card_payment_succeeded",
            Some(payment) if payment.code == "P0020" => "card_payment_expired",
            _ => "card_payment_failed",
        };
        let (body, signature) = self.webhook(id, event_type, &self.next("w"));
        tokio::spawn(async move {
            let client = reqwest::Client::new();
            for _ in 0..30 {
                let sent = client
                    .post(&url)
                    .header("Content-Type", "application/json")
                    .header("Pay-Signature", &signature)
                    .body(body.clone());
                if sent.send().await.is_ok_and(|answer| answer.status().is_success()) {
                    return;
                }
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            }
        });
    }

    fn create(&self, request: &Request, base: &str) -> Answer {
        let Ok(Value::Object(asked)) = serde_json::from_slice::<Value>(&request.body) else {
            return error(400, "P0197", "Unable to parse JSON");
        };
        let Some(amount) = asked.get("amount").and_then(Value::as_u64) else {
            return field(400, "amount", "P0102");
        };
        for name in ["reference", "description"] {
            match asked.get(name).and_then(Value::as_str) {
                None | Some("") => return field(400, name, "P0101"),
                Some(text) if text.contains(['<', '>', '|']) => return field(400, name, "P0102"),
                Some(text) if text.chars().count() > 255 => return field(422, name, "P0102"),
                Some(_) => {}
            }
        }
        if asked.get("return_url").is_none() {
            return field(400, "return_url", "P0101");
        }
        if amount == 0 || amount > 10_000_000 {
            return field(422, "amount", "P0102");
        }
        if let Some(metadata) = asked.get("metadata").and_then(Value::as_object) {
            let long = |value: &Value| value.as_str().is_some_and(|text| text.chars().count() > 100);
            if metadata.len() > 15 || metadata.values().any(|value| long(value) || value.is_null()) {
                return field(422, "metadata", "P0102");
            }
        }
        let id = self.taken(Value::Object(asked), Timestamp::now());
        let payments = self.payments.lock().unwrap();
        let payment = payments.iter().find(|payment| payment.id == id).unwrap();
        Answer::json(201, &payment.shown(base, false))
            .with("Location", &format!("{base}/v1/payments/{id}"))
            .with("Cache-Control", "no-store")
    }

    fn refund(&self, id: &str, request: &Request, base: &str) -> Answer {
        let number = self.next("r");
        let mut payments = self.payments.lock().unwrap();
        let Some(payment) = payments.iter_mut().find(|payment| payment.id == id) else {
            return error(404, "P0600", "Not found");
        };
        let asked = request.json();
        let Some(amount) = asked["amount"].as_u64() else { return field(400, "amount", "P0601") };
        if payment.status != "success" {
            return error(400, "P0603", "The payment is not available for refund");
        }
        // Left out, it is filled in here: the lock guards nothing then.
        let available = asked["refund_amount_available"].as_u64().unwrap_or(payment.available());
        if available != payment.available() {
            return error(412, "P0604", "Refund amount available mismatch");
        }
        if amount == 0 || amount > available {
            return field(422, "amount", "P0602");
        }
        let created = millis(Timestamp::now());
        let refund = Refund { id: number, amount, status: "submitted".to_owned(), created };
        payment.refunds.push(refund.clone());
        Answer::json(202, &refund_shown(payment, &refund, base))
    }

    fn list(&self, request: &Request, base: &str, refunds: bool) -> Answer {
        let payments = self.payments.lock().unwrap();
        let within = |date: &str, from: &str, to: &str| {
            request.query(from).is_none_or(|from| date >= from)
                && request.query(to).is_none_or(|to| date < to)
        };
        let mut found: Vec<Value> = Vec::new();
        for payment in payments.iter().rev() {
            if refunds {
                let mine =
                    payment.refunds.iter().filter(|refund| within(&refund.created, "from_date", "to_date"));
                found.extend(mine.map(|refund| refund_shown(payment, refund, base)));
            } else if within(&payment.created, "from_date", "to_date")
                && (request.query("from_settled_date").is_none()
                    || payment
                        .settled
                        .as_deref()
                        // Both ends are inclusive here, as Pay's description of its API says.
                        .is_some_and(|date| {
                            request.query("from_settled_date").is_none_or(|from| date >= from)
                                && request.query("to_settled_date").is_none_or(|to| date <= to)
                        }))
                && request
                    .query("reference")
                    .is_none_or(|own| payment.asked.get("reference").and_then(Value::as_str) == Some(own))
            {
                found.push(payment.shown(base, false));
            }
        }
        let number = |name: &str, default: usize| {
            request.query(name).and_then(|text| text.parse().ok()).unwrap_or(default)
        };
        // Small pages, so that paging is exercised whatever is asked for.
        let (page, size) = (number("page", 1), number("display_size", 500).min(2));
        let code = if refunds { "P1100" } else { "P0402" };
        let results: Vec<Value> = found.iter().skip((page - 1) * size).take(size).cloned().collect();
        if results.is_empty() && page > 1 {
            return error(404, code, "Page not found");
        }
        let path = if refunds { "refunds" } else { "payments" };
        let page_link = |page: usize| {
            let mut query: Vec<String> = request
                .query
                .iter()
                .filter(|(name, _)| name != "page")
                .map(|(name, value)| format!("{name}={}", value.replace(':', "%3A")))
                .collect();
            query.push(format!("page={page}"));
            json!({ "href": format!("{base}/v1/{path}?{}", query.join("&")) })
        };
        let mut links = json!({ "self": page_link(page), "first_page": page_link(1) });
        if page * size < found.len() {
            links["next_page"] = page_link(page + 1);
        }
        Answer::json(
            200,
            &json!({ "total": found.len(), "count": results.len(), "page": page, "results": results, "_links": links }),
        )
    }

    fn of_payment(&self, method: &str, id: &str, rest: &[&str], request: &Request, base: &str) -> Answer {
        if (method, rest) == ("POST", &["refunds"]) {
            return self.refund(id, request, base);
        }
        let mut payments = self.payments.lock().unwrap();
        let Some(payment) = payments.iter_mut().find(|payment| payment.id == id) else {
            return error(404, "P0200", "Not found");
        };
        match (method, rest) {
            ("GET", []) => Answer::json(200, &payment.shown(base, false)),
            ("GET", ["refunds"]) => {
                let refunds: Vec<Value> =
                    payment.refunds.iter().map(|refund| refund_shown(payment, refund, base)).collect();
                let own = format!("{base}/v1/payments/{id}");
                Answer::json(
                    200,
                    &json!({ "payment_id": id, "_embedded": { "refunds": refunds },
                             "_links": { "self": { "href": format!("{own}/refunds") }, "payment": { "href": own } } }),
                )
            }
            ("GET", ["refunds", number]) => {
                match payment.refunds.iter().find(|refund| refund.id == *number) {
                    Some(refund) => Answer::json(200, &refund_shown(payment, refund, base)),
                    None => error(404, "P0700", "Not found"),
                }
            }
            ("POST", ["cancel"]) if payment.finished() => {
                error(400, "P0501", "Cancellation of payment failed")
            }
            ("POST", ["cancel"]) => {
                "cancelled".clone_into(&mut payment.status);
                "P0040".clone_into(&mut payment.code);
                Answer::empty(204)
            }
            ("POST", ["capture"]) if payment.status != "capturable" => error(409, "P1003", "not capturable"),
            ("POST", ["capture"]) => {
                "success".clone_into(&mut payment.status);
                Answer::empty(204)
            }
            _ => Answer::empty(404),
        }
    }
}

/// A webhook's signature: HMAC-SHA-256 of the body in small hex.
pub fn sign(secret: &str, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    hmac::sign(&key, body).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Handle for Pay {
    fn answer(&self, request: &Request) -> Answer {
        let base = format!("http://{}", request.header("host").unwrap_or_default());
        let path: Vec<&str> = request.path.trim_start_matches('/').split('/').collect();
        // The payer's page asks for no key.
        if let ("POST", ["secure", id]) = (request.method.as_str(), path.as_slice()) {
            let outcome = request.form().into_iter().find(|(name, _)| name == "outcome");
            self.payer(id, &outcome.map_or_else(|| "success".to_owned(), |(_, value)| value));
            self.tell(id);
            return Answer::empty(204);
        }
        if request.header("authorization") != Some(&format!("Bearer {API_KEY}")) {
            return Answer::empty(401);
        }
        match (request.method.as_str(), path.as_slice()) {
            ("POST", ["v1", "payments"]) => self.create(request, &base),
            ("GET", ["v1", "payments"]) => self.list(request, &base, false),
            ("GET", ["v1", "refunds"]) => self.list(request, &base, true),
            (method, ["v1", "payments", id, rest @ ..]) => self.of_payment(method, id, rest, request, &base),
            _ => Answer::empty(404),
        }
    }
}
