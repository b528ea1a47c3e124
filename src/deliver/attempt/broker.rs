//! A message for a broker: what is sent, and what becomes of it if the broker does not take it.

use super::*;
use crate::verdict::{Tried, Verdict};

/// The message for a broker: the mapped document, or the event itself.
///
/// # Errors
/// The mapping or a template fails.
pub fn document_for_broker(
    deliverer: &Deliverer,
    letter: &Letter,
    event: &Event,
) -> Result<Message, Failure> {
    let plan = &deliverer.route.plan;
    let (System::Amqp(system), Action::Publish(publish)) = (&*deliverer.system, &plan.action) else {
        return Err(Failure::refused(Code::ExclusiveKeys, "", "this route sends over HTTP"));
    };
    let instance = &deliverer.route.instance;
    let nonce = String::new();
    let now = Timestamp::now();
    let scope = |values| Scope {
        event: Some(event),
        settings: Some(&instance.settings),
        values: Some(values),
        now,
        nonce: &nonce,
        ..Scope::default()
    };
    let none = Texts::new();
    let values = match instance.adapter.values.is_empty() {
        true => Texts::new(),
        false => sign::values(instance, &scope(&none))?,
    };
    let (body, mut properties) = match &plan.mapping {
        Some(mapping) => {
            let context =
                Context { settings: &instance.settings, values: &values, cause: None, now, trace: None };
            let document =
                mapping.to_document(event, context).map_err(|failures| emit::of_mapping(&failures))?;
            let bytes = mapping
                .format
                .encode(&document, &mapping.style)
                .map_err(|error| Failure::refused(error.code, "", error.what))?;
            (Bytes::from(bytes), Properties::of_document(&content_type(mapping), Some(&event.id)))
        }
        None => {
            let seconds = event
                .time
                .as_deref()
                .and_then(|time| time.parse::<Timestamp>().ok())
                .map(|time| time.as_second());
            let seconds = seconds.and_then(|seconds| u64::try_from(seconds).ok());
            (
                Bytes::from(event.to_json()),
                Properties::of_event(&event.id, &event.event_type, seconds, &instance.name),
            )
        }
    };
    if let Some(trace) = &letter.trace {
        properties = properties.with_text("traceparent", trace);
    }
    system.message(publish, &scope(&values), body, properties)
}

/// How a message that a broker did not take has ended.
pub fn end_of(deliverer: &Deliverer, letter: &Letter, went: &Went, failure: Failure) -> End {
    let plan = &deliverer.route.plan;
    let first_failed = letter.past.first_failed.unwrap_or_else(Timestamp::now);
    let tried = Tried {
        attempt: letter.past.attempt,
        // A window is not repeated at once: what failed in it waits for the shortest tier.
        at_once: plan.retry.at_once,
        failing_for: Timestamp::now().duration_since(first_failed).unsigned_abs(),
        doubt: went.doubt,
    };
    let doubt = went.doubt || failure.class == Class::Unknown;
    match verdict::judge(&failure, tried, &plan.retry, plan.repeat, false) {
        Verdict::Dead(code) => {
            End::Dead { stage: Stage::Sending, doubt: doubt && code == Code::OutcomeUnknown, code, failure }
        }
        Verdict::Later(wait) => End::Later { failure, wait, doubt, first_failed, costs: Costs::Attempt },
        Verdict::AtOnce | Verdict::Ask | Verdict::ReadAnew => {
            let wait = verdict::wait(letter.past.attempt, &plan.retry);
            End::Later { failure, wait, doubt, first_failed, costs: Costs::Attempt }
        }
    }
}
