//! Requests of systems: who they come from is proved before anything is parsed, and they are answered only when what they
//! brought is on disk.

use super::sign;
use crate::{
    code::Code,
    config::{
        CollectRoute, Instance,
        plan::{LoginKind, Receive},
        receive_path,
    },
    telemetry::Metrics,
};
use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::State,
    http::{HeaderMap, HeaderValue, Request, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use ring::hmac;
use secrecy::ExposeSecret as _;
use std::{collections::HashMap, future::Future, pin::Pin, sync::Arc, time::Duration};
use tokio::{sync::Semaphore, time::timeout};
use tracing::warn;

/// How long a caller may take to send its body.
const SLOWEST: Duration = Duration::from_secs(15);
/// How long a caller is asked to wait when there is no room.
const WAIT: &str = "60";

/// What was received, proved and whole.
#[derive(Debug)]
pub struct Received {
    /// The content type.
    pub content_type: Option<String>,
    /// The body.
    pub body: Bytes,
}

/// What the taker says of a received document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// It is on disk.
    Yes,
    /// There is no room, or the store fails: not now.
    NotNow,
}

/// Stores a received document of a route.
pub type Take = Arc<dyn Fn(Received) -> Pin<Box<dyn Future<Output = Stored> + Send>> + Send + Sync>;

/// A route that is called, and who stores what it receives.
pub struct Called {
    /// The route.
    pub route: Arc<CollectRoute>,
    /// Who stores it.
    pub take: Take,
}

struct Shared {
    called: HashMap<String, Called>,
    room: Semaphore,
    metrics: Metrics,
}

/// The router of all routes that are called.
pub fn router(called: Vec<Called>, most_at_once: usize, metrics: Metrics) -> Router {
    let called = called
        .into_iter()
        .filter_map(|called| match &called.route.plan.source {
            crate::config::plan::Source::Receive(receive) => {
                Some((receive_path(&called.route, receive), called))
            }
            _ => None,
        })
        .collect();
    let shared = Arc::new(Shared { called, room: Semaphore::new(most_at_once), metrics });
    Router::new().fallback(handle).with_state(shared)
}

async fn handle(State(shared): State<Arc<Shared>>, request: Request<Body>) -> Response {
    let Some(called) = shared.called.get(request.uri().path()) else {
        return refusal(StatusCode::NOT_FOUND, Code::NoSuchPath, "nothing is received here");
    };
    let crate::config::plan::Source::Receive(receive) = &called.route.plan.source else {
        return refusal(StatusCode::NOT_FOUND, Code::NoSuchPath, "nothing is received here");
    };
    let Ok(_permit) = shared.room.try_acquire() else {
        return not_now();
    };
    match take(called, receive, request).await {
        Ok(response) => response,
        Err((status, code, what)) => {
            Metrics::inc(&shared.metrics.refused, &called.route.id);
            // The caller is told what is wrong in general; the particulars are for our log.
            warn!(route = called.route.id, code = %code, status = status.as_u16(), "a request was refused: {what}");
            let mut response = refusal(status, code, code.title());
            // Many clients send user and password only when they are asked for them so (RFC 9110 s.11.6.1).
            if let Some(challenge) = challenge(receive).filter(|_| status == StatusCode::UNAUTHORIZED) {
                response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
            }
            response
        }
    }
}

/// How a caller is asked to show who it is.
fn challenge(receive: &Receive) -> Option<&'static str> {
    match &receive.login.as_ref()?.how {
        LoginKind::Basic { .. } => Some("Basic realm=\"packhorse\", charset=\"UTF-8\""),
        LoginKind::Bearer { .. } => Some("Bearer"),
        LoginKind::Header { .. } | LoginKind::Oauth2 { .. } => None,
    }
}

type Refused = (StatusCode, Code, String);

async fn take(called: &Called, receive: &Receive, request: Request<Body>) -> Result<Response, Refused> {
    if request.method().as_str() != receive.method {
        return Err((
            StatusCode::METHOD_NOT_ALLOWED,
            Code::NoSuchPath,
            format!("{} is not the method", request.method()),
        ));
    }
    let headers = request.headers().clone();
    let instance = &called.route.instance;
    if let Some(login) = receive.login.as_ref().filter(|login| instance.uses(login)) {
        authenticate(instance, &login.how, &headers)
            .map_err(|what| (StatusCode::UNAUTHORIZED, Code::NotAuthenticated, what))?;
    }
    let too_large = || {
        (
            StatusCode::PAYLOAD_TOO_LARGE,
            Code::RequestTooLarge,
            format!("the body has more than {} bytes", receive.limit),
        )
    };
    let announced =
        headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > receive.limit) {
        return Err(too_large());
    }
    let limit = usize::try_from(receive.limit).unwrap_or(usize::MAX);
    let body = match timeout(SLOWEST, to_bytes(request.into_body(), limit)).await {
        Ok(Ok(body)) => body,
        Ok(Err(error)) if error_is_length(&error) => return Err(too_large()),
        Ok(Err(_)) => {
            return Err((StatusCode::BAD_REQUEST, Code::RequestTooLarge, "the body was cut off".to_owned()));
        }
        Err(_) => {
            return Err((
                StatusCode::REQUEST_TIMEOUT,
                Code::RequestTooLarge,
                "the body took too long".to_owned(),
            ));
        }
    };
    if let Some(verify) = receive.verify.as_ref().and_then(|name| instance.adapter.verify.get(name)) {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        sign::verify(instance, verify, header, &body, Timestamp::now())
            .map_err(|no| (StatusCode::UNAUTHORIZED, no.code, no.what))?;
    }
    let content_type =
        headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(str::to_owned);
    match (called.take)(Received { content_type, body }).await {
        Stored::Yes => Ok(StatusCode::OK.into_response()),
        Stored::NotNow => Ok(not_now()),
    }
}

fn error_is_length(error: &axum::Error) -> bool {
    let mut source: Option<&dyn std::error::Error> = Some(error);
    while let Some(cause) = source {
        if cause.is::<http_body_util::LengthLimitError>() {
            return true;
        }
        source = cause.source();
    }
    false
}

/// Checks who calls, in constant time.
fn authenticate(instance: &Instance, how: &LoginKind, headers: &HeaderMap) -> Result<(), String> {
    let given = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let equal = |given: &str, secret: &str| {
        // Compared by what a key of this moment makes of them: nothing of either shows in the time it takes.
        let key = hmac::Key::new(hmac::HMAC_SHA256, crate::telemetry::nonce().as_bytes());
        hmac::verify(&key, given.as_bytes(), hmac::sign(&key, secret.as_bytes()).as_ref()).is_ok()
    };
    let secret = |name: &str| sign::secret(instance, name).map_err(|failure| failure.what);
    let fits = match how {
        LoginKind::Basic { username, password } => {
            let username = instance.render(username).map_err(|failed| failed.0)?;
            let wanted = STANDARD.encode(format!("{username}:{}", secret(password)?.expose_secret()));
            given("authorization").is_some_and(|text| {
                text.split_once(' ').is_some_and(|(scheme, value)| {
                    scheme.eq_ignore_ascii_case("basic") && equal(value.trim(), &wanted)
                })
            })
        }
        LoginKind::Bearer { token } => {
            let wanted = secret(token)?;
            given("authorization").is_some_and(|text| {
                text.split_once(' ').is_some_and(|(scheme, value)| {
                    scheme.eq_ignore_ascii_case("bearer") && equal(value.trim(), wanted.expose_secret())
                })
            })
        }
        LoginKind::Header { name, value } => {
            let name = instance.render(name).map_err(|failed| failed.0)?;
            let wanted = secret(value)?;
            given(&name).is_some_and(|text| equal(&text, wanted.expose_secret()))
        }
        LoginKind::Oauth2 { .. } => false,
    };
    match fits {
        true => Ok(()),
        false => Err("the login is missing or wrong".to_owned()),
    }
}

fn not_now() -> Response {
    let mut response = refusal(StatusCode::SERVICE_UNAVAILABLE, Code::SpoolFull, "not now, try again later");
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(WAIT));
    response
}

fn refusal(status: StatusCode, code: Code, what: &str) -> Response {
    (status, format!("{code}: {what}\n")).into_response()
}
