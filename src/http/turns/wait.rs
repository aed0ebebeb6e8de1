//! Waiting for the end of a turn that is requested directly, where the client asks for it.

use std::time::Duration;

use actors::conversation::Turn;
use actors::id::EntityKey;
use actors::subscriptions::Subscription;
use axum::response::Response;
use tokio::time::Instant;

use crate::app::App;
use crate::http::call::Call;
use crate::http::caller::recheck_key;
use crate::http::headers::prefer::{Prefer, applying};
use crate::http::long_requests::LongRequestPermit;
use crate::http::messages::turn_wait::{self, KEY_CHECK_DELAY, MAX_WAIT_SECONDS, ObservedReplies};
use crate::http::refusal::unreadable_outcome;
use crate::problem::Problem;

/// How long the request may wait: zero unless it asks for at least a second.
pub(super) fn budget(prefer: Prefer) -> Duration {
    Duration::from_secs(prefer.explicit_wait(MAX_WAIT_SECONDS).unwrap_or_default().into())
}

/// The wait of one request, which begins before its turn so that the turn's end cannot be missed.
pub(super) struct TurnWait {
    budget: Duration,
    events: Subscription,
    _permit: LongRequestPermit,
}

impl TurnWait {
    /// `None` if the request does not wait: its client did not ask for it, or too many requests wait already.
    pub(super) fn begin(app: &App, entity: EntityKey, budget: Duration) -> Option<Self> {
        if budget.is_zero() {
            return None;
        }
        let permit = app.long_requests().enter(entity.workspace)?;
        Some(Self { budget, events: app.node().subscribe(entity), _permit: permit })
    }

    /// The turn when it has ended, or as it is when the time is over or the server stops. `turn` is its state after
    /// this wait began.
    ///
    /// # Errors
    /// 401 if the key was revoked meanwhile, 503 if the outcome cannot be read.
    pub(super) async fn ended(&mut self, call: &Call, entity: EntityKey, turn: Turn) -> Result<Turn, Problem> {
        if turn.is_over() {
            return Ok(turn);
        }
        call.context.begin_wait();
        let begun = Instant::now();
        let mut observed = ObservedReplies::default();
        let accepted = turn.clone();
        let deadline = begun + self.budget;
        let waiting = turn_wait::wait(call.node(), entity, &mut self.events, accepted, &mut observed, deadline);
        let turn = tokio::select! {
            biased;
            turn = waiting => turn.map_err(unreadable_outcome)?,
            () = call.app.wait_cutoff() => turn,
        };
        if begun.elapsed() >= KEY_CHECK_DELAY {
            recheck_key(call).await?;
        }
        Ok(turn)
    }

    /// The answer to the request, which names the wait.
    pub(super) fn applied(&self, response: Response) -> Response {
        applying(response, Some(format!("wait={}", self.budget.as_secs())))
    }
}
