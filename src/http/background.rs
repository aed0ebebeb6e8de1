//! What goes on although whoever asked for it has hung up.

use std::fmt::Display;
use std::time::Duration;

use actors::id::EntityKey;

use crate::app::App;

/// Runs `work` in a task of its own and waits at most for `wait`, less when the server stops; `true`: it succeeded in
/// that time, which it never does in none. What takes longer goes on, and what fails is found again by the alarm of
/// `entity`, so it only stands in the log.
pub(super) async fn ends_within<E: Display + Send + 'static>(
    app: &App,
    wait: Duration,
    (entity, what): (EntityKey, &'static str),
    work: impl Future<Output = Result<(), E>> + Send + 'static,
) -> bool {
    let working = tokio::spawn(work);
    if wait.is_zero() {
        return false;
    }
    let ended = tokio::select! {
        ended = tokio::time::timeout(wait, working) => ended,
        () = app.waits_no_longer() => return false,
    };
    match ended {
        Ok(Ok(Ok(()))) => return true,
        Ok(Ok(Err(error))) => tracing::warn!(?entity, %error, "{what} is not at its end yet"),
        Ok(Err(error)) => tracing::error!(?entity, %error, "{what} broke down"),
        Err(_) => {}
    }
    false
}
