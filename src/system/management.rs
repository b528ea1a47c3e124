//! RabbitMQ's management interface: what queue arguments and policies really come to. Asked, never told.

use crate::{
    broker::topology::{Argument, Topology},
    code::Code,
    config::Config,
    format::{Format, Limits},
    template::percent_encode,
    tree::Tree,
    verdict::Failure,
};
use secrecy::ExposeSecret as _;
use std::time::Duration;

/// What was found of one queue: its name, and what is wrong with it.
pub type Found = (String, Option<String>);

/// Compares what the broker makes of each queue, its policies included, with what there must be. `None` if no management
/// interface is set.
pub async fn effective(config: &Config, wanted: &Topology) -> Option<Result<Vec<Found>, Failure>> {
    let base = config.management.as_ref()?;
    Some(compare(config, base, wanted).await)
}

async fn compare(config: &Config, base: &str, wanted: &Topology) -> Result<Vec<Found>, Failure> {
    let vhost = config.broker.addresses.first().map_or("/", |address| address.vhost.as_str());
    let mut found = Vec::new();
    for queue in &wanted.queues {
        let path = format!("/api/queues/{}/{}", percent_encode(vhost), percent_encode(&queue.name));
        let Some(answer) = get(config, base, &path).await? else {
            found.push((
                format!("effective {}", queue.name),
                Some(format!("{}: the queue is not there", Code::TopologyMissing)),
            ));
            continue;
        };
        let mut wrong = Vec::new();
        for (name, argument) in &queue.arguments {
            let wanted = match argument {
                Argument::Text(text) => text.clone(),
                Argument::Number(number) => number.to_string(),
                Argument::True => "true".to_owned(),
            };
            let key = name.trim_start_matches("x-");
            let policy = ["effective_policy_definition", "operator_policy_definition"]
                .iter()
                .find_map(|part| answer.at(&[part, key]).and_then(Tree::to_plain_text));
            let own = answer.at(&["arguments", name]).and_then(Tree::to_plain_text);
            // An argument counts before a policy, but of two limits the lower one holds.
            let limit = matches!(
                key,
                "message-ttl" | "delivery-limit" | "max-length" | "max-length-bytes" | "expires"
            );
            let effective = match (own, policy) {
                (Some(own), Some(policy)) if limit => {
                    let lower = |a: &str, b: &str| {
                        a.parse::<i64>().ok().zip(b.parse::<i64>().ok()).is_some_and(|(a, b)| a <= b)
                    };
                    if lower(&own, &policy) { own } else { policy }
                }
                (Some(own), _) => own,
                (None, Some(policy)) => policy,
                (None, None) => "nothing".to_owned(),
            };
            if effective != wanted {
                wrong.push(format!("{name} is effectively {effective}, must be {wanted}"));
            }
        }
        for loses in ["message-ttl", "expires", "max-length", "max-length-bytes"] {
            let stated = queue.arguments.iter().any(|(name, _)| name.trim_start_matches("x-") == loses);
            let policy = answer.at(&["effective_policy_definition", loses]).and_then(Tree::to_plain_text);
            if let (false, Some(value)) = (stated, policy) {
                wrong.push(format!("a policy sets {loses} = {value}, by which messages are lost"));
            }
        }
        let error = (!wrong.is_empty()).then(|| format!("{}: {}", Code::TopologyDiffers, wrong.join("; ")));
        found.push((format!("effective {}", queue.name), error));
    }
    Ok(found)
}

/// A resource of the interface; `None` if it is not there.
///
/// # Errors
/// It cannot be reached, or does not let us in.
pub async fn get(config: &Config, base: &str, path: &str) -> Result<Option<Tree>, Failure> {
    let unreachable = |what: String| {
        Failure::not_done(Code::BrokerUnreachable, format!("the management interface at {base}: {what}"))
    };
    let mut builder = reqwest::Client::builder()
        .timeout(Duration::from_secs(10))
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy();
    if let Some(ca) = &config.broker.tls.ca {
        let pem = std::fs::read(ca).map_err(|error| unreachable(error.to_string()))?;
        let certificates =
            reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| unreachable(error.to_string()))?;
        builder = builder.tls_certs_merge(certificates);
    }
    let client = builder.build().map_err(|error| unreachable(error.to_string()))?;
    let password = match &config.broker.password {
        None => None,
        Some(reference) => Some(reference.resolve().map_err(|no| Failure::not_done(no.code, no.what))?),
    };
    let user = config.broker.username.as_deref().unwrap_or("guest");
    let request = client
        .get(format!("{}{path}", base.trim_end_matches('/')))
        .basic_auth(user, Some(password.as_ref().map_or("guest", |password| password.expose_secret())));
    let response = request.send().await.map_err(|error| unreachable(error.to_string()))?;
    match response.status().as_u16() {
        200 => {
            let body = response.bytes().await.map_err(|error| unreachable(error.to_string()))?;
            let tree = Format::Json
                .decode(&body, None, &Limits::default())
                .map_err(|error| unreachable(error.to_string()))?;
            Ok(Some(tree))
        }
        404 => Ok(None),
        401 | 403 => Err(Failure::not_done(
            Code::BrokerLoginRefused,
            format!("the management interface at {base} does not let {user} in"),
        )),
        status => Err(unreachable(format!("it answered {status}"))),
    }
}
