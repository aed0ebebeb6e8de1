//! Malformed HTTP requests.
//!
//! hyper refuses them before routing, with a status and no body. The API promises one form of error, so that bare head
//! is replaced on its way out by the router's answer for the same status.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};

use axum::Router;
use axum::body::Body;
use bytes::{Buf as _, Bytes};
use futures_util::FutureExt as _;
use http::{HeaderMap, Request, Response, StatusCode, Uri, Version, header};
use http_body_util::BodyExt as _;
use hyper::body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tower::Service as _;

/// The longest bare head, in bytes, with room to spare.
const BARE: usize = 256;

/// An extension of the request that the router gets in place of a malformed or unanswerable one.
#[derive(Clone, Debug)]
pub struct Unreadable {
    /// The status of its refusal.
    pub status: StatusCode,
    /// The reason, if more than the status is known.
    pub why: Option<&'static str>,
    /// Its target, if that is known; the router gets `/`.
    pub target: Option<Uri>,
}

/// The request itself if it may be answered, else the one that the router gets in its place.
pub(super) fn readable<B>(mut request: Request<B>) -> Request<B> {
    let Some(why) = wrong_host(&request).or_else(|| wrong_coding(request.headers())) else { return request };
    // No route may take it as a request of its own.
    let target = Some(std::mem::take(request.uri_mut()));
    request.extensions_mut().insert(Unreadable { status: StatusCode::BAD_REQUEST, why: Some(why), target });
    request
}

/// Why a request does not name one host (RFC 9112, 3.2).
fn wrong_host<B>(request: &Request<B>) -> Option<&'static str> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if is_host(host.as_bytes()) => None,
        (None, _) if request.version() < Version::HTTP_11 => None,
        (Some(_), None) => Some("the Host header must be a host with an optional port"),
        _ => Some("an HTTP/1.1 request must have exactly one Host header"),
    }
}

/// Why a body's transfer coding is refused: a proxy that decodes others would read another body (RFC 9112, 6.1).
fn wrong_coding(headers: &HeaderMap) -> Option<&'static str> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let is_known = codings.all(|coding| coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"));
    (!is_known).then_some("the only supported transfer coding is chunked")
}

/// Whether this is a host with or without a port, or nothing at all (RFC 9110, 7.2; RFC 3986, 3.2.2).
fn is_host(value: &[u8]) -> bool {
    let is_known = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%".contains(byte);
    let (is_name, port) = match value {
        [b'[', inside @ ..] => {
            let Some(end) = inside.iter().position(|byte| *byte == b']') else { return false };
            let is_address = end > 0 && inside[..end].iter().all(|byte| is_known(byte) || *byte == b':');
            (is_address, &inside[end + 1..])
        }
        _ => {
            let (name, port) = value.split_at(value.iter().position(|byte| *byte == b':').unwrap_or(value.len()));
            (name.iter().all(is_known), port)
        }
    };
    is_name && (port.is_empty() || port.strip_prefix(b":").is_some_and(|port| port.iter().all(u8::is_ascii_digit)))
}

/// Whether the router's answer is being sent: only between answers can a head be hyper's own.
#[derive(Debug, Default)]
pub(super) struct Turn(AtomicU8);

impl Turn {
    const BETWEEN: u8 = 0;
    const ANSWERING: u8 = 1;
    const SENDING: u8 = 2;

    /// The router has a request.
    pub(super) fn begin(&self) {
        self.0.store(Self::ANSWERING, Ordering::Relaxed);
    }

    /// The answer's body has been read; its last bytes may still have to be sent.
    fn ended(&self) {
        self.0.store(Self::SENDING, Ordering::Relaxed);
    }

    /// Everything has been sent.
    fn flushed(&self) {
        let _ = self.0.compare_exchange(Self::SENDING, Self::BETWEEN, Ordering::Relaxed, Ordering::Relaxed);
    }

    fn is_between(&self) -> bool {
        self.0.load(Ordering::Relaxed) == Self::BETWEEN
    }
}

/// The body of the router's answer, which reports its end.
#[derive(Debug)]
pub(super) struct Answering {
    body: Body,
    turn: Arc<Turn>,
}

impl Answering {
    pub(super) fn of(response: Response<Body>, turn: Arc<Turn>) -> Response<Self> {
        response.map(|body| Self { body, turn })
    }
}

impl hyper::body::Body for Answering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.turn.ended();
    }
}

/// A stream on which bare heads are replaced.
#[derive(Debug)]
pub(super) struct Explained<S> {
    stream: S,
    router: Router,
    turn: Arc<Turn>,
    /// The bytes written instead of a bare head.
    instead: Bytes,
}

impl<S: AsyncWrite + Unpin> Explained<S> {
    pub(super) fn new(stream: S, router: Router, turn: Arc<Turn>) -> Self {
        Self { stream, router, turn, instead: Bytes::new() }
    }

    /// Takes a bare head, if this is one.
    fn take(&mut self, parts: &[IoSlice<'_>]) -> Option<usize> {
        let start = parts.first()?.get(..10)?;
        // The second form if the previous request was HTTP/1.0.
        if !matches!(start, b"HTTP/1.1 4" | b"HTTP/1.0 4") || !self.turn.is_between() {
            return None;
        }
        let length = parts.iter().map(|part| part.len()).sum::<usize>();
        if length > BARE {
            return None;
        }
        let head: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        self.instead = instead(&mut self.router, std::str::from_utf8(&head).ok()?)?.into();
        Some(length)
    }

    fn poll_instead(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.instead.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(context, &self.instead))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.instead.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

/// The router's answer for a bare head's status, in wire form; `None` if its status differs.
fn instead(router: &mut Router, head: &str) -> Option<Vec<u8>> {
    let lines = head.strip_suffix("\r\n\r\n")?;
    let empty = lines.split("\r\n").any(|line| line.eq_ignore_ascii_case("content-length: 0"));
    let date = lines.split("\r\n").find(|line| line.starts_with("date: ")).filter(|_| empty)?;
    let version = head.get(..8)?;
    let status = StatusCode::from_bytes(head.get(9..12)?.as_bytes()).ok()?;
    let mut request = Request::new(Body::empty());
    request.extensions_mut().insert(Unreadable { status, why: None, target: None });
    // Nothing waits here: neither a store nor a body is read.
    let response = router.call(request).now_or_never()?.ok().filter(|response| response.status() == status)?;
    let (parts, body) = response.into_parts();
    let body = body.collect().now_or_never()?.ok()?.to_bytes();
    let mut out = format!("{version} {status}\r\n{date}\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    write_headers(&parts.headers, &mut out);
    Some([out.as_bytes(), b"\r\n", &body].concat())
}

fn write_headers(headers: &HeaderMap, out: &mut String) {
    for (name, value) in headers.iter().filter(|(name, _)| **name != header::CONTENT_LENGTH) {
        if let Ok(value) = value.to_str() {
            out.extend([name.as_str(), ": ", value, "\r\n"]);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Explained<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Explained<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.as_mut().poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_instead(context))?;
        match self.take(parts) {
            Some(length) => Poll::Ready(Ok(length)),
            None => Pin::new(&mut self.stream).poll_write_vectored(context, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_instead(context))?;
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        self.turn.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_instead(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
