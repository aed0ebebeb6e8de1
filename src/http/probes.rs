//! Whether this process lives, and whether it wants requests.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Serialize;

use super::answer;
use super::problem::Problem;
use crate::app::App;

/// Seconds after which a process that stops may have a successor.
const RETRY_ELSEWHERE: u32 = 5;

#[derive(Serialize)]
struct Status {
    status: &'static str,
}

/// `GET /healthz`: the process answers.
pub async fn healthz() -> Response {
    answer::json(StatusCode::OK, &Status { status: "ok" })
}

/// `GET /readyz`: the process takes requests; 503 from the moment it begins to stop.
pub async fn readyz(State(app): State<App>) -> Response {
    if app.is_ready() && !app.node().admission().is_closed() {
        answer::json(StatusCode::OK, &Status { status: "ready" })
    } else {
        Problem::unavailable("stopping", "the server is stopping", RETRY_ELSEWHERE).into_response()
    }
}
