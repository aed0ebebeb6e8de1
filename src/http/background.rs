//! Work that continues although its client has hung up.

use std::time::Duration;

use actors::joint::Ended;

use crate::app::App;

/// Waits for work that goes on by itself, at most for `wait`, less when the server stops; `true`: all was done in that
/// time, which it never is in none.
pub(super) async fn ends_within(app: &App, wait: Duration, ended: Ended) -> bool {
    if wait.is_zero() {
        return false;
    }
    tokio::select! {
        ended = tokio::time::timeout(wait, ended.is_done()) => ended.unwrap_or(false),
        () = app.waits_no_longer() => false,
    }
}
