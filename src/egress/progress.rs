//! What last happened on a connection, by which a call knows whether it may be repeated.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};

use http::Extensions;
use hyper_rustls::MaybeHttpsStream;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Nothing has been received yet.
const NEW: u8 = 0;
/// The newest bytes are received ones.
const ANSWERED: u8 = 1;
/// After an answer something was sent, and nothing has been received since.
const ASKED_AGAIN: u8 = 2;

/// What last happened on a connection. The rest of a body that is sent after its answer has begun looks like the next
/// request.
#[derive(Clone, Debug)]
struct Progress(Arc<AtomicU8>);

impl Progress {
    fn new() -> Self {
        Self(Arc::new(AtomicU8::new(NEW)))
    }

    // The connection's task changes it, and wakes the call that reads it afterwards, so no order is needed here.
    fn sent(&self) {
        _ = self.0.compare_exchange(ANSWERED, ASKED_AGAIN, Ordering::Relaxed, Ordering::Relaxed);
    }

    fn received(&self) {
        self.0.store(ANSWERED, Ordering::Relaxed);
    }
}

/// Whether a call failed because its connection, kept from an earlier call, ended before any byte of an answer: servers
/// close idle connections when they like, also while a request is on its way.
pub(super) fn ended_unanswered(error: &legacy::Error) -> bool {
    let Some(connected) = error.connect_info() else { return false };
    let mut extensions = Extensions::new();
    connected.get_extras(&mut extensions);
    extensions.get::<Progress>().is_some_and(|progress| progress.0.load(Ordering::Relaxed) == ASKED_AGAIN)
}

/// A connection that records its progress, in plain text: what TLS itself sends does not count.
pub(super) struct Observed {
    inner: TokioIo<MaybeHttpsStream<TokioIo<TcpStream>>>,
    progress: Progress,
}

impl Observed {
    pub(super) fn new(inner: MaybeHttpsStream<TokioIo<TcpStream>>) -> Self {
        Self { inner: TokioIo::new(inner), progress: Progress::new() }
    }
}

impl Connection for Observed {
    fn connected(&self) -> Connected {
        self.inner.inner().connected().extra(self.progress.clone())
    }
}

impl AsyncRead for Observed {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(context, buf))?;
        if buf.filled().len() > before {
            self.progress.received();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Observed {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.progress.sent();
        Pin::new(&mut self.inner).poll_write(context, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.progress.sent();
        Pin::new(&mut self.inner).poll_write_vectored(context, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
