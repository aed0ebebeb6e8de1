//! Long-lived requests: event streams, and waits for agents and people.
//!
//! Each holds its connection. If they could hold all connections, a slow agent would block plain messages; therefore
//! some connections are reserved for short requests, and some long ones for other workspaces.

use actors::id::Address;
use actors::tasks::shares::{SharedPermit, SharedPermits};
use tokio::sync::Semaphore;

use crate::app::App;
use crate::problem::Problem;

/// Seconds after which a stopping process may have a successor.
const RETRY_ELSEWHERE_SECONDS: u32 = 5;

/// The permits of long-lived requests. One workspace may hold half of them.
#[derive(Clone, Debug)]
pub(crate) struct LongRequests(SharedPermits);

/// Held while a request lasts.
pub(crate) type LongRequestPermit = SharedPermit;

impl LongRequests {
    /// Permits for three quarters of this many connections.
    pub(crate) fn of(connections: usize) -> Self {
        Self(SharedPermits::halved((connections - connections / 4).min(Semaphore::MAX_PERMITS)))
    }

    /// A permit for a request of this workspace, if there is one: else the request must not last.
    pub(crate) fn enter(&self, workspace: Address) -> Option<LongRequestPermit> {
        self.0.try_enter(workspace).ok()
    }
}

/// The outcome of `work`, or 503 if the server stops and `work` does not end soon; it is then dropped as if the client
/// had disconnected.
///
/// # Errors
/// Those of `work`, and 503 `stopping`.
pub(super) async fn unless_stopping<T>(
    app: &App,
    work: impl Future<Output = Result<T, Problem>>,
) -> Result<T, Problem> {
    tokio::select! {
        biased;
        done = work => done,
        () = app.wait_cutoff() => Err(stopping("the server is stopping; the request was not processed, retry")),
    }
}

/// 503: another process will accept this request.
pub(super) fn stopping(detail: &'static str) -> Problem {
    Problem::unavailable("stopping", detail, RETRY_ELSEWHERE_SECONDS)
}
