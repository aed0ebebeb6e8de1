//! Discarding the rest of a request's body after its answer.
//!
//! A request may be answered before its body has arrived: because it is too large, or because it is refused. If the
//! connection were closed then, a client that is still sending would get a reset, and most clients never read the
//! answer after that. So the rest of the body is read and discarded, within bounds.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, SizeHint};
use tokio::runtime::Handle;
use tokio::time::timeout;

/// Bytes that are discarded: several times any route's limit, so that a client slightly over its limit gets the answer.
const MAX_DISCARDED_BYTES: usize = 64 * 1024 * 1024;
/// How long they may take to arrive; a slower client is cut off.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// A body whose rest is read once it is dropped.
#[derive(Debug)]
pub(super) struct DrainedBody<B: Body<Data = Bytes> + Send + Unpin + 'static> {
    /// `None` once it has ended.
    body: Option<B>,
    /// Whether its client sends: without waiting for `100 Continue`, or after it.
    lingers: bool,
}

impl<B: Body<Data = Bytes> + Send + Unpin + 'static> DrainedBody<B> {
    /// `lingers`: the client sends without waiting for `100 Continue`, so bytes are in flight.
    pub(super) fn new(body: B, lingers: bool) -> Self {
        Self { body: Some(body), lingers }
    }
}

impl<B: Body<Data = Bytes> + Send + Unpin + 'static> Body for DrainedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        // Polling the body sends `100 Continue` to a client that waits for it.
        self.lingers = true;
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(context);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.body = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl<B: Body<Data = Bytes> + Send + Unpin + 'static> Drop for DrainedBody<B> {
    fn drop(&mut self) {
        if let Some(body) = self.body.take().filter(|body| self.lingers && !body.is_end_stream())
            && let Ok(runtime) = Handle::try_current()
        {
            // One at most for each connection: the next request is read only after this body.
            runtime.spawn(timeout(DRAIN_TIMEOUT, discard(body)));
        }
    }
}

async fn discard<B: Body<Data = Bytes> + Unpin>(mut body: B) {
    let mut left = MAX_DISCARDED_BYTES;
    while left > 0
        && let Some(Ok(frame)) = body.frame().await
    {
        left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
    }
}
