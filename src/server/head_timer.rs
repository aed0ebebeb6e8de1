//! The timer that bounds how long a connection waits for a request's head.
//!
//! Such a wait begins with every request and nearly always ends soon, so a runtime timer for each would be set and
//! cancelled for every request. Here the waits of one connection share one timer, which is moved only when it fires: if
//! it fired for a wait that is over, it is set to the end of the present one.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use actors::sync::LockUnpoisoned;
use hyper::rt::{Sleep, Timer};

type Alarm = Pin<Box<tokio::time::Sleep>>;

/// The timer of one connection, whose waits all take equally long: a later one ends later.
#[derive(Clone, Debug, Default)]
pub(super) struct HeadTimer {
    /// Set with the first wait.
    alarm: Arc<Mutex<Option<Alarm>>>,
}

impl Timer for HeadTimer {
    fn sleep(&self, within: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(self.now() + within)
    }

    fn sleep_until(&self, end: Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(Wait { alarm: Arc::clone(&self.alarm), end: end.into() })
    }

    fn now(&self) -> Instant {
        tokio::time::Instant::now().into()
    }
}

/// One wait.
struct Wait {
    alarm: Arc<Mutex<Option<Alarm>>>,
    end: tokio::time::Instant,
}

impl Sleep for Wait {}

impl Future for Wait {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        // Only the connection's own task takes it.
        let mut alarm = self.alarm.lock_unpoisoned();
        let alarm = alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(self.end)));
        loop {
            ready!(alarm.as_mut().poll(context));
            if alarm.deadline() >= self.end {
                return Poll::Ready(());
            }
            alarm.as_mut().reset(self.end);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, timeout};

    use super::*;

    const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn each_wait_lasts_as_long_as_it_should_however_many_came_before() {
        let timer = HeadTimer::default();
        for _ in 0..5 {
            let wait = timer.sleep(HEAD_TIMEOUT);
            assert!(timeout(Duration::from_secs(20), wait).await.is_err(), "this one is over before its end");
            advance(Duration::from_secs(1)).await;
        }
        let begun = tokio::time::Instant::now();
        timer.sleep(HEAD_TIMEOUT).await;
        assert_eq!(begun.elapsed(), HEAD_TIMEOUT);
        timer.sleep(HEAD_TIMEOUT).await;
        assert_eq!(begun.elapsed(), 2 * HEAD_TIMEOUT);
    }
}
