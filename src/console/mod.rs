//! What a machine asks of a bridge: is it alive, is it ready, how does it do. Pages for people come here as well; no
//! logic does.

use crate::{broker::Link, store::Store, telemetry::Metrics};
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
};

/// What can be seen from here.
#[derive(Clone)]
pub struct View {
    /// The connections to the platform's broker, by name.
    pub links: Vec<(String, Link)>,
    /// The metrics.
    pub metrics: Metrics,
    /// The store.
    pub store: Store,
}

/// `/health`: the process lives. `/ready`: it can do its work. `/metrics`: OpenMetrics.
pub fn router(view: View) -> Router {
    Router::new()
        .route("/health", get(async || "ok\n"))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .with_state(view)
}

async fn ready(State(view): State<View>) -> Response {
    let mut wrong = Vec::new();
    for (name, link) in &view.links {
        if !link.is_connected() {
            let why = link.last_error().map_or_else(|| "connecting".to_owned(), |error| error.to_string());
            wrong.push(format!("broker ({name}): not connected: {why}"));
        } else if link.is_blocked() {
            wrong.push(format!("broker ({name}): blocked, out of memory or disk"));
        }
    }
    if !view.store.has_room(0) && !view.store.has_room_now(0).await.unwrap_or(false) {
        wrong.push(format!("store: {}", view.store.full().what));
    }
    match wrong.is_empty() {
        true => (StatusCode::OK, "ready\n".to_owned()).into_response(),
        false => (StatusCode::SERVICE_UNAVAILABLE, wrong.join("\n") + "\n").into_response(),
    }
}

async fn metrics(State(view): State<View>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], view.metrics.encode()).into_response()
}
