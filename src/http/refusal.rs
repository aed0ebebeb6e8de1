//! Mapping refusals of actors and store to errors of the API.

use actors::directory::Refusal;
use actors::store::StoreError;
use actors::tasks::log_limiter::{Line, LogLimiter};
use http::StatusCode;
use tokio::time::Instant;

use super::context::render::internal_error;
use super::idempotency::{KEY_HOURS, in_progress};
use crate::problem::Problem;

pub(super) mod channel;
pub(super) mod conversation;

/// Seconds after which an overloaded node may be retried.
const RETRY_SOON_SECONDS: u32 = 1;

/// Seen by a client, a failed read of the store is 503, or 500 if the stored data is damaged, which no retry helps. The
/// conversion also logs the error: a client learns nothing of its cause.
impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Corrupt(_) | StoreError::TooLarge { .. } => {
                tracing::error!(%error, "the store failed");
                internal_error()
            }
            StoreError::Indeterminate(_) | StoreError::Unavailable(_) => {
                static LINES: LogLimiter = LogLimiter::new();
                if let Some(Line { left_out }) = LINES.line(Instant::now()) {
                    tracing::warn!(%error, left_out, "the store is unavailable");
                }
                Self::unavailable("store_unavailable", "the store is unavailable; retry later", RETRY_SOON_SECONDS)
            }
        }
    }
}

/// 500 for what cannot happen. The log has the promise that the code or the stored data does not keep.
#[must_use]
pub fn broken(invariant: &'static str) -> Problem {
    tracing::error!(invariant, "an invariant does not hold");
    internal_error()
}

/// The request had its effect, but the store cannot be read to render the answer.
#[must_use]
pub fn unreadable_outcome(error: impl Into<Problem>) -> Problem {
    let problem = error.into();
    if problem.code != "store_unavailable" {
        return problem;
    }
    let detail = "the request was stored, but its result cannot be read now; with an idempotency key a retry is safe";
    outcome_unknown(detail)
}

/// 503: the outcome of the request is unknown.
pub(in crate::http) fn outcome_unknown(detail: &str) -> Problem {
    Problem::unavailable("outcome_unknown", detail, RETRY_SOON_SECONDS)
}

/// The problem of any refusal; `rejected` maps the entity's own rejections.
pub fn problem_of<R>(refusal: Refusal<R>, rejected: impl FnOnce(R) -> Problem) -> Problem {
    match refusal {
        Refusal::Rejected(rejection) => rejected(rejection),
        Refusal::KeyReused => key_reused(),
        Refusal::KeyHeld => in_progress(),
        Refusal::Backlog => {
            let detail = "too many requests are waiting for this resource; nothing was stored";
            Problem::too_many("conversation_backlog", detail, RETRY_SOON_SECONDS)
        }
        Refusal::Overloaded => {
            Problem::unavailable("overloaded", "the server is overloaded; nothing was stored", RETRY_SOON_SECONDS)
        }
        Refusal::Draining => {
            Problem::unavailable("stopping", "the server is stopping; nothing was stored", RETRY_SOON_SECONDS)
        }
        Refusal::Unavailable(why) => {
            static LINES: LogLimiter = LogLimiter::new();
            if let Some(Line { left_out }) = LINES.line(Instant::now()) {
                tracing::warn!(%why, left_out, "a command could not be stored");
            }
            Problem::unavailable("store_unavailable", "nothing was stored; retry later", RETRY_SOON_SECONDS)
        }
        Refusal::Corrupt(why) => {
            tracing::error!(%why, "a command met damaged data");
            internal_error()
        }
        Refusal::TooLarge(why) => {
            tracing::error!(%why, "an accepted request exceeds the store's limit");
            let detail = "the request is too large to be stored in one transaction; nothing was stored";
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail)
        }
        Refusal::Unknown(why) => {
            static LINES: LogLimiter = LogLimiter::new();
            if let Some(Line { left_out }) = LINES.line(Instant::now()) {
                tracing::warn!(%why, left_out, "the outcome of a command is unknown");
            }
            outcome_unknown("the request may or may not have been stored; with an idempotency key a retry is safe")
        }
        Refusal::Misanswered(request) => {
            tracing::error!(request, "a request was answered by what answers something else");
            internal_error()
        }
        // The directory resends such a command itself.
        Refusal::Moved => {
            Problem::unavailable("store_unavailable", "nothing was stored; retry later", RETRY_SOON_SECONDS)
        }
    }
}

/// 422: the idempotency key was used with another request before.
#[must_use]
pub fn key_reused() -> Problem {
    let detail = format!(
        "this idempotency key was used for a different request; a key identifies one request for {KEY_HOURS} hours"
    );
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", detail)
}

/// 412: it differs from what the client saw.
pub(in crate::http) fn precondition_failed() -> Problem {
    let detail = "the resource has changed since the version in If-Match (or the time in If-Unmodified-Since); fetch \
                  it again and retry";
    Problem::new(StatusCode::PRECONDITION_FAILED, "precondition_failed", detail)
}

/// 503: other requests kept changing the same data.
pub(in crate::http) fn contended() -> Problem {
    Problem::unavailable(
        "contended",
        "too many concurrent updates to this resource; nothing was stored, retry later",
        1,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_that_is_too_large_answers_413_without_retry_after() {
        let problem = problem_of::<()>(Refusal::TooLarge("16 MiB".into()), |_| internal_error());
        assert_eq!((problem.status, problem.code), (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large"));
        assert!(problem.headers.iter().all(|(name, _)| name != http::header::RETRY_AFTER));
    }
}
