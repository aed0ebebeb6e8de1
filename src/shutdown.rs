//! The signals to stop.

use std::io;

/// Completes when the process is asked to stop, by `SIGTERM` or `SIGINT` (Ctrl-C), and returns which. From this call on
/// neither signal ends the process by itself, so call it once, before the first request is accepted.
///
/// # Errors
/// If the operating system does not allow a handler.
pub fn signal() -> io::Result<impl Future<Output = &'static str>> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        Ok(async move {
            tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            }
        })
    }
    #[cfg(not(unix))]
    {
        Ok(async {
            // Without a handler there is nothing to wait for; the system then ends the process.
            if tokio::signal::ctrl_c().await.is_err() {
                std::future::pending::<()>().await;
            }
            "Ctrl-C"
        })
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::process::Command;

    use super::*;

    #[tokio::test]
    async fn either_signal_completes_it_and_is_named() {
        for (flag, name) in [("TERM", "SIGTERM"), ("INT", "SIGINT")] {
            let asked = signal().unwrap();
            let kill = format!("kill -{flag} {}", std::process::id());
            assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
            assert_eq!(asked.await, name);
        }
    }
}
