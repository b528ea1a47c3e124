//! A stand-in for LocalGovIMS's API: `api/ProcessedTransactions` as its controllers behave. Not idempotent; a 400 with a
//! sentence is a refusal, a 400 without a word is any fault; a row may end under another fund than was sent.

use super::http::{Answer, Handle, Request};
use serde_json::{Map, Value, json};
use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

/// The fund codes of its demonstration data that it accepts.
const FUNDS: [&str; 13] = ["5", "05", "11", "13", "19", "21", "23", "24", "25", "31", "32", "40", "SP"];

#[derive(Default)]
pub struct Ims {
    rows: Mutex<Vec<Map<String, Value>>>,
    /// When each was stored.
    stored: Mutex<Vec<Instant>>,
    /// A search does not find what is younger than this.
    pub lag: Mutex<Duration>,
    /// The next rows are stored, and the answer is a 400 without a word.
    pub store_and_fail: Mutex<u32>,
    /// The next rows are stored, and the answer is a 400 with the sentence of an exception.
    pub store_and_refuse: Mutex<u32>,
    /// The rule engine puts rows of this fund under that one.
    pub reroute: Mutex<Option<(String, String)>>,
}

impl Ims {
    /// Every row that was stored.
    pub fn rows(&self) -> Vec<Value> {
        self.rows.lock().unwrap().iter().cloned().map(Value::Object).collect()
    }

    fn post(&self, request: &Request) -> Answer {
        let refused = |text: &str| Answer::json(400, &json!(text));
        let Ok(Value::Object(mut row)) = serde_json::from_slice::<Value>(&request.body) else {
            return refused("The request is invalid.");
        };
        let text = |row: &Map<String, Value>, name: &str| {
            row.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        for (name, most) in
            [("PspReference", 36), ("OfficeCode", 2), ("AccountReference", 30), ("Narrative", 100)]
        {
            if text(&row, name).chars().count() > most {
                return refused(&format!("{name} is too long"));
            }
        }
        if !FUNDS.contains(&text(&row, "FundCode").as_str()) {
            return refused("Unable to process the transaction: the fund is not valid");
        }
        if !row.get("Amount").is_some_and(Value::is_number) {
            return refused("The Amount field is required.");
        }
        for name in ["MopCode", "VatCode", "TransactionDate"] {
            if text(&row, name).is_empty() {
                return refused(&format!("The {name} field is required."));
            }
        }
        if let Some((from, to)) = &*self.reroute.lock().unwrap()
            && text(&row, "FundCode") == *from
        {
            row.insert("FundCode".to_owned(), json!(to));
            row.insert("AccountReference".to_owned(), json!("SUSPENSE"));
        }
        let mut rows = self.rows.lock().unwrap();
        let reference = format!("{:012}", 740_000 + rows.len());
        // What the server sets is set, whatever the caller sent there.
        row.insert("Reference".to_owned(), json!(reference));
        row.insert("InternalReference".to_owned(), json!(format!("I{reference}")));
        row.insert("EntryDate".to_owned(), json!("2026-11-23T10:15:02.117"));
        rows.push(row.clone());
        self.stored.lock().unwrap().push(Instant::now());
        let mut fail = self.store_and_fail.lock().unwrap();
        if *fail > 0 {
            *fail -= 1;
            return Answer::empty(400);
        }
        let mut refuse = self.store_and_refuse.lock().unwrap();
        if *refuse > 0 {
            *refuse -= 1;
            return refused("Object reference not set to an instance of an object.");
        }
        // The answer to a POST has the machine's own clock, with its offset; what is read back from the database has none.
        row.insert("EntryDate".to_owned(), json!("2026-11-23T10:15:02.1171234+00:00"));
        Answer::json(201, &Value::Object(row))
            .with("Location", &format!("/api/ProcessedTransactions/{reference}"))
    }

    fn search(&self, request: &Request) -> Answer {
        let (rows, lag) = (self.rows.lock().unwrap(), *self.lag.lock().unwrap());
        let stored = self.stored.lock().unwrap();
        let found: Vec<Value> = rows
            .iter()
            .zip(stored.iter())
            .filter(|(_, stored)| stored.elapsed() >= lag)
            .map(|(row, _)| row)
            .filter(|row| {
                request.query.iter().all(|(name, value)| {
                    row.get(name).and_then(Value::as_str).is_some_and(|own| own == value)
                })
            })
            .cloned()
            .map(Value::Object)
            .collect();
        match found.is_empty() {
            true => Answer::empty(404),
            false => Answer::json(200, &Value::Array(found)),
        }
    }
}

impl Handle for Ims {
    fn answer(&self, request: &Request) -> Answer {
        match (request.method.as_str(), request.path.as_str()) {
            ("POST", "/api/ProcessedTransactions") => self.post(request),
            ("GET", "/api/ProcessedTransactions") => self.search(request),
            ("GET", path) if path.starts_with("/api/ProcessedTransactions/") => {
                let reference = path.rsplit('/').next().unwrap_or_default();
                let rows = self.rows.lock().unwrap();
                let row = rows.iter().find(|row| row.get("Reference").is_some_and(|own| own == reference));
                row.map_or(Answer::empty(404), |row| Answer::json(200, &Value::Object(row.clone())))
            }
            _ => Answer::empty(404),
        }
    }
}
