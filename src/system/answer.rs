//! What an answer means: the adapter's rules first, then what holds for all systems over HTTP.

use crate::{
    code::Code,
    config::{
        plan::{AnswerCondition, AnswerTest, Rule},
        raw::adapter::{BodyIs, Meaning},
    },
    format::{self, Format, Limits},
    mapping::path::Path,
    template::Scope,
    tree::Tree,
    verdict::{Class, Failure},
};
use bytes::Bytes;
use std::time::Duration;

/// An answer as it was heard.
#[derive(Debug, Clone)]
pub struct Heard {
    /// The HTTP status.
    pub status: u16,
    /// The content type.
    pub content_type: Option<String>,
    /// How long the system asks to be left alone.
    pub retry_after: Option<Duration>,
    /// The body.
    pub body: Bytes,
    /// Whether the request only reads: then an unknown outcome is none.
    pub reads_only: bool,
}

/// An answer that is understood.
#[derive(Debug, Clone)]
pub struct Said {
    /// What it means.
    pub meaning: Meaning,
    /// Whether a rule of the adapter says so, and not only the status.
    pub ruled: bool,
    /// The document, where there is one in the route's format: the whole, or the entry that a rule with `any` found.
    pub document: Option<Tree>,
}

/// Understands an answer.
///
/// # Errors
/// Everything that is not `delivered` or `absent`, as a failure with its class.
pub fn classify(
    heard: &Heard,
    rules: &[Rule],
    format: Option<Format>,
    error_code: Option<&Path>,
    scope: &Scope<'_>,
) -> Result<Said, Failure> {
    let charset = heard.content_type.as_deref().and_then(charset_of);
    let read = format
        .filter(|_| !heard.body.is_empty())
        .map(|format| format.decode(&heard.body, charset.as_deref(), &Limits::default()));
    let (document, unreadable) = match read {
        None => (None, None),
        Some(Ok(tree)) => (Some(tree), None),
        Some(Err(error)) => (None, Some(error)),
    };
    let rule = rules.iter().find_map(|rule| fits(rule, heard, document.as_ref(), scope));
    if let Some((rule, entry)) = rule {
        let document = entry.or(document);
        if matches!(rule.then, Meaning::Delivered | Meaning::Absent) {
            return Ok(Said { meaning: rule.then, ruled: true, document });
        }
        let mut failure = of_rule(rule, heard);
        failure.what = with_code(failure.what, document.as_ref(), error_code);
        return Err(failure);
    }
    // A page for people instead of an answer: a proxy, a login form, a maintenance notice.
    let page = heard
        .content_type
        .as_deref()
        .is_some_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with("text/html"));
    if (200..300).contains(&heard.status) {
        return match (unreadable, document.as_ref().and_then(format::fault)) {
            (_, Some(fault)) => Err(of_fault(&fault.code, heard)),
            (Some(error), None) => {
                Err(unclear(heard, format!("{} with an answer that cannot be read: {error}", heard.status)))
            }
            (None, None) if page && !heard.body.is_empty() => {
                Err(unclear(heard, format!("{} with an HTML page instead of an answer", heard.status)))
            }
            (None, None) => Ok(Said { meaning: Meaning::Delivered, ruled: false, document }),
        };
    }
    let mut failure = match document.as_ref().and_then(format::fault) {
        Some(fault) => of_fault(&fault.code, heard),
        None => of_status(heard),
    };
    failure.what = with_code(failure.what, document.as_ref(), error_code);
    Err(failure)
}

/// The system's own error code behind the sentence; a code, not a text that might hold somebody's data.
fn with_code(what: String, document: Option<&Tree>, error_code: Option<&Path>) -> String {
    let code = document.zip(error_code).and_then(|(document, path)| path.find(document)?.to_plain_text());
    match code.filter(|code| code.len() <= 40 && code.chars().all(|c| c.is_ascii_graphic())) {
        Some(code) => format!("{what}, code {code}"),
        None => what,
    }
}

fn fits<'r>(
    rule: &'r Rule,
    heard: &Heard,
    document: Option<&Tree>,
    scope: &Scope<'_>,
) -> Option<(&'r Rule, Option<Tree>)> {
    let status = rule.statuses.is_empty()
        || rule.statuses.iter().any(|(from, to)| (*from..=*to).contains(&heard.status));
    let body = match rule.body {
        None => true,
        Some(BodyIs::Empty) => heard.body.is_empty(),
        Some(BodyIs::Present) => !heard.body.is_empty(),
    };
    let fault = match &rule.fault {
        None => true,
        Some(wanted) => {
            document.and_then(format::fault).is_some_and(|fault| wanted == "*" || *wanted == fault.code)
        }
    };
    if !status || !body || !fault {
        return None;
    }
    let all = |tree: &Tree| rule.conditions.iter().all(|condition| holds(condition, tree, scope));
    match (&rule.any, document) {
        (None, _) if rule.conditions.is_empty() => Some((rule, None)),
        (None, Some(document)) => all(document).then_some((rule, None)),
        (Some(list), Some(document)) => {
            let entry = list.find_all(document).into_iter().find(|entry| all(entry));
            entry.map(|entry| (rule, Some(entry.clone())))
        }
        (_, None) => None,
    }
}

fn holds(condition: &AnswerCondition, document: &Tree, scope: &Scope<'_>) -> bool {
    let value = condition.path.find(document);
    let text = value.and_then(Tree::to_plain_text).filter(|text| !text.is_empty());
    let is = |templates: &[crate::template::Template]| {
        templates.iter().any(|template| match (template.render(scope), &text) {
            (Ok(wanted), Some(text)) => same(&wanted, text, value),
            _ => false,
        })
    };
    match &condition.test {
        AnswerTest::Is(templates) => is(templates),
        AnswerTest::Not(templates) => !is(templates),
        AnswerTest::Present(wanted) => {
            value.is_some_and(|value| text.is_some() || value.as_record().is_some()) == *wanted
        }
    }
}

/// Equal texts; or, where the answer holds a number, equal numbers: 62.5 is 62.50. Texts that look like numbers are codes
/// and compared as such: fund 05 is not fund 5.
fn same(wanted: &str, text: &str, value: Option<&Tree>) -> bool {
    if wanted == text {
        return true;
    }
    let number = |text: &str| text.parse::<rust_decimal::Decimal>().ok();
    matches!(value, Some(Tree::Number(_))) && number(wanted).is_some() && number(wanted) == number(text)
}

fn of_rule(rule: &Rule, heard: &Heard) -> Failure {
    let (code, class) = match rule.then {
        Meaning::Retry => (Code::SystemBusy, Class::NotDone),
        Meaning::Dead => (Code::SystemRefuses, Class::Refused),
        Meaning::Guarded => (Code::GuardRefused, Class::Guarded),
        Meaning::Unknown | Meaning::Delivered | Meaning::Absent => (Code::OutcomeUnknown, Class::Unknown),
    };
    let what = match &rule.why {
        Some(why) => format!("the system answered {}: {why}", heard.status),
        None => format!("the system answered {}", heard.status),
    };
    Failure { code, class, what, field: String::new(), retry_after: heard.retry_after }
}

/// A SOAP fault: the caller's fault is a refusal; the system's own leaves open what was done.
fn of_fault(code: &str, heard: &Heard) -> Failure {
    let ours = matches!(code, "Client" | "Sender");
    let what = format!("the system answered with a SOAP fault `{code}`");
    match ours {
        true => Failure::refused(Code::SystemRefuses, "", what),
        false => unclear(heard, what),
    }
}

fn of_status(heard: &Heard) -> Failure {
    let status = heard.status;
    let what = format!("the system answered {status}");
    let mut failure = match status {
        300..=399 => {
            let what = format!("{what}: it redirects us elsewhere, and redirects are not followed");
            Failure::refused(Code::RedirectRefused, "", what)
        }
        401 | 407 => Failure::away(Code::LoginRefused, format!("{what}: our login is not accepted")),
        403 => Failure::refused(Code::LoginRefused, "", format!("{what}: our login may not do this")),
        429 | 503 => Failure::away(Code::SystemBusy, what),
        408 | 425 => Failure::not_done(Code::SystemBusy, what),
        400..=499 => Failure::refused(Code::SystemRefuses, "", what),
        _ => unclear(heard, what),
    };
    failure.retry_after = heard.retry_after;
    failure
}

/// An answer that does not say whether the request was carried out.
fn unclear(heard: &Heard, what: String) -> Failure {
    let code = if (200..300).contains(&heard.status) { Code::AnswerUnreadable } else { Code::SystemFails };
    let class = if heard.reads_only { Class::NotDone } else { Class::Unknown };
    Failure { code, class, what, field: String::new(), retry_after: heard.retry_after }
}

/// The `charset` parameter of a content type.
pub fn charset_of(content_type: &str) -> Option<String> {
    content_type.split(';').skip(1).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"').to_owned())
    })
}
