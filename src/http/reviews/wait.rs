//! Waiting for a review's outcome.

use std::pin::pin;
use std::time::Duration;

use actors::conversation::Event;
use actors::message::ReviewStatus;
use axum::extract::Path;
use axum::response::Response;
use http::StatusCode;
use tokio::time::{Instant, timeout_at};

use super::{find, parse_id};
use crate::http::answer::json;
use crate::http::call::{Allowed, Call};
use crate::http::caller::{Read, recheck_key};
use crate::http::headers::prefer;
use crate::http::headers::prefer::applying;
use crate::http::query::Query;
use crate::problem::Problem;
use crate::wire::digits::digits;

/// The longest wait for an outcome, in seconds.
pub(crate) const MAX_WAIT_SECONDS: u32 = 55;
/// The default wait, in seconds.
pub(crate) const DEFAULT_WAIT_SECONDS: u32 = 30;
/// How often the store is read without events, if the review may be decided in another process.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// How long a wait may last: by the query, but no longer than the client prefers.
fn wait_seconds(query: &Query, preferred: Option<u32>) -> Result<u32, Problem> {
    let most = preferred.unwrap_or(MAX_WAIT_SECONDS).min(MAX_WAIT_SECONDS);
    let Some(text) = query.get("timeout") else { return Ok(preferred.map_or(DEFAULT_WAIT_SECONDS, |_| most)) };
    // The contract has one code for every value that is no number of seconds in the range.
    let seconds = digits(text).and_then(|seconds| u32::try_from(seconds).ok());
    seconds.filter(|seconds| *seconds <= MAX_WAIT_SECONDS).map(|seconds| seconds.min(most)).ok_or_else(|| {
        Problem::fault("/timeout", "out_of_range", format!("must be from 0 to {MAX_WAIT_SECONDS} seconds"))
    })
}

/// When to read next whatever events arrive: if other processes may decide the review, or if a read has failed.
fn next_poll(call: &Call, read_failed: bool) -> Option<Instant> {
    (read_failed || call.node().shares_its_store()).then(|| Instant::now() + POLL_INTERVAL)
}

/// Answers with the outcome as soon as there is one, or with the pending review when the time is over.
pub(in crate::http) async fn wait(
    Allowed { call, .. }: Allowed<Read>,
    Path(id): Path<String>,
    query: Query,
) -> Result<Response, Problem> {
    let preferred = prefer(&call.headers).wait;
    let (seconds, ()) = Problem::both(wait_seconds(&query, preferred), query.check())?;
    // If too many requests wait already, it is answered at once.
    let permit = call.app.long_requests().enter(call.caller.address);
    let deadline = Instant::now() + Duration::from_secs(if permit.is_some() { seconds.into() } else { 0 });
    let id = parse_id(&id)?;
    let stored = find(&call, id).await?;
    let mut events = call.node().subscribe(stored.found.entity);
    // From here on nothing can be missed; a read shows what happened before the subscription.
    let mut stored = find(&call, id).await?;
    let mut stopped = pin!(call.app.stopping());
    // A read fails too if it cannot tell how the review has ended.
    let mut read_failed = stored.is_unsettled(call.app.now());
    let mut poll_at = next_poll(&call, read_failed);
    while stored.state.status == ReviewStatus::Pending && Instant::now() < deadline {
        let left = Duration::from_millis(stored.review.expires_at.since(call.app.now()).max(1));
        // A review past its deadline is read, unless that has just failed.
        let until = if read_failed { deadline } else { deadline.min(Instant::now() + left) };
        let until = poll_at.map_or(until, |poll_at| until.min(poll_at));
        let received = tokio::select! {
            received = timeout_at(until, events.recv()) => received,
            // A request that waits when the server stops gets the current state, and can be repeated at another server.
            () = &mut stopped => break,
        };
        let about_this = match &received {
            Ok(Ok(record)) => match &record.event {
                Event::ReviewCompleted(end) | Event::ReviewExpired(end) | Event::ReviewCancelled(end) => {
                    end.message == stored.message().id
                }
                _ => false,
            },
            Ok(Err(_)) | Err(_) => true,
        };
        if about_this || poll_at.is_some_and(|at| at <= Instant::now()) {
            match find(&call, id).await {
                Ok(found) => {
                    read_failed = found.is_unsettled(call.app.now());
                    (stored, poll_at) = (found, next_poll(&call, read_failed));
                }
                // The next read may succeed. The last one reports its error.
                Err(problem) if problem.status == StatusCode::SERVICE_UNAVAILABLE => {
                    (poll_at, read_failed) = (next_poll(&call, true), true);
                }
                Err(problem) => return Err(problem),
            }
        }
    }
    if read_failed {
        stored = find(&call, id).await?;
    }
    recheck_key(&call).await?;
    let applied = preferred.filter(|_| permit.is_some()).map(|_| format!("wait={seconds}"));
    Ok(applying(json(StatusCode::OK, &stored.view()), applied))
}
