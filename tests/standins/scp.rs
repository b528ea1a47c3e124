//! A stand-in for the Secure Card Portal's simple interface: SOAP 1.1, `scpSimpleInvoke` and `scpSimpleQuery`, with the
//! credential digest checked and every `uniqueReference` accepted once. The payer's page is at the redirect URL.

use super::http::{Answer, Handle, Request};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use packhorse::{
    format::{Format, Limits},
    tree::{Record, Tree},
};
use ring::hmac;
use std::{
    collections::{BTreeMap, HashSet},
    sync::Mutex,
};

/// The ids and the key of the portal's test account.
pub const SCP_ID: &str = "373224939";
pub const SITE_ID: &str = "147";
pub const KEY_ID: &str = "456";
pub const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// Where payers are sent; a name that nobody has. The page itself is at the stand-in's own address.
const PAGES: &str = "https://scp.standin.example";

#[derive(Debug, Clone)]
pub struct Sale {
    pub request_id: String,
    pub amount: u64,
    pub lines: Vec<String>,
    /// `IN_PROGRESS`, or how it ended: `SUCCESS`, `CANCELLED`, `CARD_DETAILS_REJECTED` …
    pub state: String,
}

#[derive(Default)]
pub struct Scp {
    pub sales: Mutex<BTreeMap<String, Sale>>,
    seen: Mutex<HashSet<String>>,
}

/// The text below a path of local names, whatever the prefixes.
fn text(record: &Record, path: &[&str]) -> String {
    let Some((last, above)) = path.split_last() else { return String::new() };
    let mut record = record;
    for name in above {
        match record.get_local(name).and_then(Tree::as_record) {
            Some(inner) => record = inner,
            None => return String::new(),
        }
    }
    record.get_local(last).and_then(Tree::to_plain_text).unwrap_or_default()
}

/// Every child element of this local name.
fn children<'r>(record: &'r Record, name: &str) -> Vec<&'r Record> {
    record
        .entries()
        .iter()
        .filter(|(own, _)| own.local == name)
        .flat_map(|(_, tree)| match tree {
            Tree::List(entries) => entries.iter().collect(),
            one => vec![one],
        })
        .filter_map(Tree::as_record)
        .collect()
}

fn fault(text: &str) -> Answer {
    Answer::of(
        500,
        "text/xml; charset=utf-8",
        format!(
            r#"<SOAP-ENV:Envelope xmlns:SOAP-ENV="http://schemas.xmlsoap.org/soap/envelope/"><SOAP-ENV:Header/><SOAP-ENV:Body><SOAP-ENV:Fault><faultcode>SOAP-ENV:Client</faultcode><faultstring xml:lang="en">{text}</faultstring></SOAP-ENV:Fault></SOAP-ENV:Body></SOAP-ENV:Envelope>"#
        ),
    )
}

fn envelope(body: &str) -> Answer {
    Answer::of(
        200,
        "text/xml; charset=utf-8",
        format!(
            r#"<SOAP-ENV:Envelope xmlns:SOAP-ENV="http://schemas.xmlsoap.org/soap/envelope/"><SOAP-ENV:Header/><SOAP-ENV:Body>{body}</SOAP-ENV:Body></SOAP-ENV:Envelope>"#
        ),
    )
}

impl Scp {
    /// The payer does this at the portal: `SUCCESS`, `CANCELLED`, `CARD_DETAILS_REJECTED` …
    pub fn payer(&self, reference: &str, does: &str) {
        if let Some(sale) = self.sales.lock().unwrap().get_mut(reference)
            && sale.state == "IN_PROGRESS"
        {
            does.clone_into(&mut sale.state);
        }
    }

    /// The credential block, checked as the portal does: ids, digest, a reference that is new.
    fn trusted(&self, request: &Record) -> Result<(), String> {
        let credentials = |path: &[&str]| text(request, &[&["credentials"], path].concat());
        let unique = credentials(&["requestIdentification", "uniqueReference"]);
        let signed = [
            credentials(&["subject", "subjectType"]),
            credentials(&["subject", "identifier"]),
            unique.clone(),
            credentials(&["requestIdentification", "timeStamp"]),
            credentials(&["signature", "algorithm"]),
            credentials(&["signature", "hmacKeyID"]),
        ]
        .join("!");
        let key = hmac::Key::new(hmac::HMAC_SHA256, &STANDARD.decode(KEY).unwrap());
        let digest = STANDARD.decode(credentials(&["signature", "digest"])).unwrap_or_default();
        if hmac::verify(&key, signed.as_bytes(), &digest).is_err() {
            return Err("The digest is not valid".to_owned());
        }
        if credentials(&["subject", "identifier"]) != SCP_ID
            || credentials(&["signature", "hmacKeyID"]) != KEY_ID
        {
            return Err("The subject is not known".to_owned());
        }
        match self.seen.lock().unwrap().insert(unique) {
            true => Ok(()),
            false => Err("The unique reference was used before".to_owned()),
        }
    }

    fn invoke(&self, request: &Record) -> Answer {
        let request_id = text(request, &["requestId"]);
        let base = "http://www.capita-software-services.com/scp/base";
        let refused = |what: &str| {
            envelope(&format!(
                r#"<scpSimpleInvokeResponse xmlns="http://www.capita-software-services.com/scp/simple"><requestId xmlns="{base}">{request_id}</requestId><scpReference xmlns="{base}"></scpReference><transactionState xmlns="{base}">COMPLETE</transactionState><invokeResult xmlns="{base}"><status>INVALID_REQUEST</status><errorDetails><errorId>1</errorId><errorMessage>{what}</errorMessage></errorDetails></invokeResult></scpSimpleInvokeResponse>"#
            ))
        };
        if text(request, &["routing", "siteId"]) != SITE_ID {
            return refused("The site is not known");
        }
        let sale = request.get_local("sale").and_then(Tree::as_record).cloned().unwrap_or_default();
        let amount: u64 = text(&sale, &["saleSummary", "amountInMinorUnits"]).parse().unwrap_or(0);
        let items = sale.get_local("items").and_then(Tree::as_record).cloned().unwrap_or_default();
        let items = children(&items, "item");
        let sum: u64 = items
            .iter()
            .map(|item| text(item, &["itemSummary", "amountInMinorUnits"]).parse().unwrap_or(0))
            .sum();
        if amount == 0 || sum != amount {
            return refused("The amounts do not add up");
        }
        let lines: Vec<String> = items.iter().map(|item| text(item, &["lineId"])).collect();
        let mut sales = self.sales.lock().unwrap();
        let reference = format!("72ak0h{:06}", sales.len() + 1);
        let state = "IN_PROGRESS".to_owned();
        sales.insert(reference.clone(), Sale { request_id: request_id.clone(), amount, lines, state });
        envelope(&format!(
            r#"<scpSimpleInvokeResponse xmlns="http://www.capita-software-services.com/scp/simple"><requestId xmlns="{base}">{request_id}</requestId><scpReference xmlns="{base}">{reference}</scpReference><transactionState xmlns="{base}">IN_PROGRESS</transactionState><invokeResult xmlns="{base}"><status>SUCCESS</status><redirectUrl>{PAGES}/scp/scpcli?ssk={reference}</redirectUrl></invokeResult></scpSimpleInvokeResponse>"#
        ))
    }

    fn query(&self, request: &Record) -> Answer {
        let reference = text(request, &["scpReference"]);
        let sales = self.sales.lock().unwrap();
        let (request_id, state, rest) = match sales.get(&reference) {
            None => (String::new(), "INVALID_REFERENCE", String::new()),
            Some(sale) if sale.state == "IN_PROGRESS" => {
                (sale.request_id.clone(), "IN_PROGRESS", String::new())
            }
            Some(sale) if sale.state == "SUCCESS" => {
                let audit: String = sale
                    .lines
                    .iter()
                    .map(|line| {
                        format!("<itemSummary><b:lineId>{line}</b:lineId><b:continuousAuditNumber>123</b:continuousAuditNumber></itemSummary>")
                    })
                    .collect();
                let number = reference.trim_start_matches("72ak0h");
                let details = format!(
                    "<paymentResult><b:status>SUCCESS</b:status><paymentDetails>\
                     <b:paymentHeader><b:transactionDate>2026-11-23T09:44:31</b:transactionDate><b:machineCode>SCP01</b:machineCode><b:uniqueTranId>PBTEST{number}</b:uniqueTranId></b:paymentHeader>\
                     <b:authDetails><b:authCode>789DE</b:authCode><b:amountInMinorUnits>{}</b:amountInMinorUnits><b:maskedCardNumber>444433******1111</b:maskedCardNumber><b:cardDescription>VISA</b:cardDescription><b:cardType>CREDIT</b:cardType><b:merchantNumber>11111111</b:merchantNumber><b:expiryDate>1028</b:expiryDate><b:continuousAuditNumber>123</b:continuousAuditNumber></b:authDetails>\
                     <saleSummary><items>{audit}</items></saleSummary></paymentDetails></paymentResult>",
                    sale.amount
                );
                (sale.request_id.clone(), "COMPLETE", details)
            }
            Some(sale) => {
                let rest = format!("<paymentResult><b:status>{}</b:status></paymentResult>", sale.state);
                (sale.request_id.clone(), "COMPLETE", rest)
            }
        };
        envelope(&format!(
            r#"<scpSimpleQueryResponse xmlns="http://www.capita-software-services.com/scp/simple" xmlns:b="http://www.capita-software-services.com/scp/base"><b:requestId>{request_id}</b:requestId><b:scpReference>{reference}</b:scpReference><b:transactionState>{state}</b:transactionState>{rest}</scpSimpleQueryResponse>"#
        ))
    }
}

impl Handle for Scp {
    fn answer(&self, request: &Request) -> Answer {
        match (request.method.as_str(), request.path.as_str()) {
            ("POST", "/scp/scpws") => {
                if request.header("soapaction") != Some("\"\"") {
                    return fault("SOAPAction must be empty");
                }
                let charset = request.header("content-type").and_then(|value| value.split_once("charset="));
                let charset = charset.map(|(_, charset)| charset.trim_matches('"').to_owned());
                let read = Format::Soap11.decode(&request.body, charset.as_deref(), &Limits::default());
                let Ok(Tree::Record(body)) = read else { return fault("The message is not valid") };
                let root = |name: &str| body.get_local(name).and_then(Tree::as_record);
                let request_of = root("scpSimpleInvokeRequest").or_else(|| root("scpSimpleQueryRequest"));
                let Some(inner) = request_of else { return fault("No such operation") };
                if let Err(what) = self.trusted(inner) {
                    return fault(&what);
                }
                match root("scpSimpleInvokeRequest") {
                    Some(inner) => self.invoke(inner),
                    None => self.query(inner),
                }
            }
            // The payer's page: the form's field `outcome` says what the payer does.
            ("POST", "/scp/scpcli") => {
                let outcome = request.form().into_iter().find(|(name, _)| name == "outcome");
                let outcome = outcome.map_or_else(|| "SUCCESS".to_owned(), |(_, value)| value);
                self.payer(request.query("ssk").unwrap_or_default(), &outcome);
                Answer::empty(204)
            }
            _ => Answer::empty(404),
        }
    }
}
