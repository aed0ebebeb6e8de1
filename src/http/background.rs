//! Work that continues although its client has hung up.

use std::time::Duration;

use actors::tasks::shared_job::JobHandle;

use crate::app::App;

/// Waits for background work, at most for `wait`, less if the server stops; returns whether all was done in time.
/// Without any wait that is `false`.
pub(super) async fn ends_within(app: &App, wait: Duration, ended: JobHandle) -> bool {
    if wait.is_zero() {
        return false;
    }
    tokio::select! {
        ended = tokio::time::timeout(wait, ended.is_done()) => ended.unwrap_or(false),
        () = app.wait_cutoff() => false,
    }
}
