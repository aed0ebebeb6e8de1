//! A connection that is closed if its client stops reading.
//!
//! A client that does not read costs no memory beyond the socket's buffer, but it holds its connection and blocks
//! whatever waits for it. One that has read nothing for a while is disconnected. A reader of an event stream reconnects
//! with the last id that it has.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// A stream that fails once a write has waited for too long.
#[derive(Debug)]
pub(super) struct ReaderTimeout<S> {
    stream: S,
    within: Duration,
    /// The deadline of a waiting write.
    late: Option<Pin<Box<Sleep>>>,
}

impl<S> ReaderTimeout<S> {
    /// The other side must read some bytes `within` this time.
    pub(super) fn new(stream: S, within: Duration) -> Self {
        Self { stream, within, late: None }
    }

    /// The result of a write, unless it has waited for too long.
    fn judge<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.late = None;
            return written;
        }
        let within = self.within;
        let late = self.late.get_or_insert_with(|| Box::pin(sleep(within)));
        ready!(late.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ReaderTimeout<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ReaderTimeout<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judge(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.judge(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.judge(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = Pin::new(&mut self.stream).poll_shutdown(context);
        self.judge(context, ended)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_reader_may_be_slow_but_not_stand_still() {
        let (here, mut there) = duplex(10);
        let mut stream = ReaderTimeout::new(here, Duration::from_secs(30));
        let reading = tokio::spawn(async move {
            for _ in 0..5 {
                sleep(Duration::from_secs(29)).await;
                there.read_exact(&mut [0; 10]).await.unwrap();
            }
            there
        });
        stream.write_all(&[0; 60]).await.unwrap();
        let _there = reading.await.unwrap();
        let begun = Instant::now();
        let cut_off = stream.write_all(&[0; 60]).await.unwrap_err();
        assert_eq!((cut_off.kind(), begun.elapsed()), (io::ErrorKind::TimedOut, Duration::from_secs(30)));
    }
}
