//! SOAP envelopes, 1.1 and 1.2: the mapping sees the element inside the body, faults are recognised apart.

use super::{FormatError, Style, xml};
use crate::{
    code::Code,
    tree::{Record, Tree},
};
/// The envelope's namespace in SOAP 1.1.
pub const SPACE_11: &str = "http://schemas.xmlsoap.org/soap/envelope/";
/// The envelope's namespace in SOAP 1.2.
pub const SPACE_12: &str = "http://www.w3.org/2003/05/soap-envelope";

/// A SOAP fault: what the other side says went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The fault code without its prefix: `Client`, `Server`, `Sender`, `Receiver`, or the system's own.
    pub code: String,
    /// The sentence that came with it. May hold personal data: never logged.
    pub reason: String,
}

/// Takes the element inside the body out of an envelope. Headers are passed over; an envelope of the other version is
/// read as well, since systems answer in either.
pub fn open(document: Tree) -> Result<Tree, FormatError> {
    let wrong = |what: &str| FormatError::nowhere(Code::NotSoap, what);
    let envelope = document
        .as_record()
        .and_then(|record| record.entries().first())
        .filter(|(name, _)| name.local == "Envelope")
        .ok_or_else(|| wrong("the document is XML but not a SOAP envelope"))?;
    let space = envelope.0.space.as_deref();
    if !matches!(space, Some(SPACE_11 | SPACE_12)) {
        return Err(wrong("the envelope is in a namespace that is neither SOAP 1.1 nor SOAP 1.2"));
    }
    let body = envelope.1.as_record().and_then(|record| {
        record.entries().iter().find(|(name, _)| name.local == "Body" && name.space.as_deref() == space)
    });
    let Some((_, body)) = body else { return Err(wrong("the SOAP envelope has no body")) };
    let content = body.as_record().and_then(|record| {
        record.entries().iter().find(|(name, _)| !name.is_attribute() && name.local != crate::tree::TEXT)
    });
    match content {
        Some((name, tree)) => Ok(Tree::Record(Record::from_iter([(name.clone(), tree.clone())]))),
        None => Err(wrong("the SOAP body is empty")),
    }
}

/// The fault in an opened body, if that is what the other side answered.
pub fn fault(body: &Tree) -> Option<Fault> {
    let (name, fault) = body.as_record()?.entries().first()?;
    let space = name.space.as_deref();
    if name.local != "Fault" || !matches!(space, Some(SPACE_11 | SPACE_12)) {
        return None;
    }
    let fault = fault.as_record()?;
    let text = |record: Option<&Record>, local| record?.get_local(local)?.as_text().map(str::to_owned);
    let (code, reason) = if space == Some(SPACE_12) {
        let part = |local| fault.get_local(local).and_then(Tree::as_record);
        (text(part("Code"), "Value"), text(part("Reason"), "Text"))
    } else {
        (text(Some(fault), "faultcode"), text(Some(fault), "faultstring"))
    };
    let code = code.unwrap_or_else(|| "unknown".to_owned());
    let code = code.trim();
    Some(Fault {
        code: code.rsplit(':').next().unwrap_or(code).to_owned(),
        reason: reason.unwrap_or_default().trim().to_owned(),
    })
}

/// Wraps the document into an envelope.
pub fn write(tree: &Tree, style: &Style, space: &str) -> Result<String, FormatError> {
    xml::write_in(tree, style, Some(space))
}
