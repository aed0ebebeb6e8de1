//! Liveness and readiness probes.

use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use super::answer;
use super::long_requests::stopping;
use super::not_found;
use crate::app::App;
use crate::problem::Problem;
use crate::server::Unreadable;

/// Seconds after which an unreachable store is retried, at the latest.
const RETRY_STORE_SECONDS: u32 = 5;

#[derive(Serialize)]
struct Status {
    status: &'static str,
}

/// `GET /healthz`: the process answers.
pub async fn healthz() -> Response {
    uncached(answer::json(StatusCode::OK, &Status { status: "ok" }))
}

/// `GET /readyz`: the process accepts requests; 503 from the moment it begins to stop, and while it has lost its store.
pub async fn readyz(State(app): State<App>) -> Response {
    if !app.is_ready() || app.node().admission().is_closed() {
        return uncached(stopping("the server is stopping").into_response());
    }
    if !app.node().members().is_connected() {
        let detail = "the store has not answered for some time";
        return uncached(Problem::unavailable("store_unavailable", detail, RETRY_STORE_SECONDS).into_response());
    }
    uncached(answer::json(StatusCode::OK, &Status { status: "ready" }))
}

/// Marks an answer as not to be cached: it is true only at the moment of the request.
fn uncached(mut response: Response) -> Response {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Any other request, before the store was first reached.
pub async fn refuse_while_starting(unreadable: Option<Extension<Unreadable>>) -> Response {
    let problem =
        || Problem::unavailable("store_unavailable", "the store has not been reached yet", RETRY_STORE_SECONDS);
    refuse(unreadable, problem).await
}

/// Any other request, once the server is stopping. The connection ends with the answer, so that the next request opens
/// one to another server.
pub async fn refuse_while_stopping(unreadable: Option<Extension<Unreadable>>) -> Response {
    let mut response = refuse(unreadable, || stopping("the server is stopping")).await;
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

async fn refuse(unreadable: Option<Extension<Unreadable>>, problem: impl FnOnce() -> Problem) -> Response {
    match unreadable {
        Some(_) => not_found(unreadable).await,
        None => uncached(problem().into_response()),
    }
}
