//! The trace that the running code works for, for log lines. It is data on the side: it opens, enters and holds
//! nothing, sampled or not.

use std::cell::Cell;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::TraceContext;

thread_local! {
    static CURRENT: Cell<Option<TraceContext>> = const { Cell::new(None) };
}

/// The trace that this thread works for now.
#[must_use]
pub fn get() -> Option<TraceContext> {
    CURRENT.get()
}

/// Keeps `trace` current until it is dropped, on this thread and not across an await.
#[derive(Debug)]
#[must_use = "dropped at once it does nothing"]
pub struct CurrentGuard {
    before: Option<TraceContext>,
    /// It belongs to the thread that it was made on.
    _here: std::marker::PhantomData<*const ()>,
}

/// Makes `trace` current from now on.
pub fn enter(trace: Option<TraceContext>) -> CurrentGuard {
    CurrentGuard { before: CURRENT.replace(trace), _here: std::marker::PhantomData }
}

impl Drop for CurrentGuard {
    fn drop(&mut self) {
        CURRENT.set(self.before);
    }
}

/// A future that works for a trace whenever it is polled.
#[derive(Debug)]
pub struct WithTrace<F> {
    trace: Option<TraceContext>,
    inner: Pin<Box<F>>,
}

/// Runs `work` for `trace`.
pub fn within<F: Future>(trace: Option<TraceContext>, work: F) -> WithTrace<F> {
    WithTrace { trace, inner: Box::pin(work) }
}

impl<F: Future> Future for WithTrace<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let _entered = enter(self.trace);
        self.inner.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: TraceContext = TraceContext { trace_id: [1; 16], span_id: [1; 8], flags: 0 };

    #[tokio::test]
    async fn a_trace_is_current_only_inside_its_future() {
        let inside = within(Some(ONE), async {
            assert_eq!(get(), Some(ONE));
            tokio::task::yield_now().await;
            assert_eq!(within(None, async { get() }).await, None, "one inside for its own");
            get()
        });
        let concurrent = async {
            tokio::task::yield_now().await;
            get()
        };
        assert_eq!(tokio::join!(inside, concurrent), (Some(ONE), None));
        assert_eq!(get(), None);
    }
}
