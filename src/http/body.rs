//! Reading a JSON body as bytes, within bounds.
//!
//! The handler parses: it knows the type, and reports every fault with its pointer. This module only decides whether
//! there is a body to parse: 415 for content that is not plain JSON, 413 for a body that is too large, in that order.

use std::pin::pin;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::FromRef;
use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt;

pub use self::room::BodyRoom;
use super::headers::media_type;
use crate::problem::Problem;

mod room;

/// How long a body may take to arrive in all: 4 MiB in it is 70 kB/s. A client that sends a byte now and then must not
/// hold a connection for ever.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(60);

/// First reservation for a body in pieces. A merely announced length reserves no more than this.
const FIRST_RESERVATION: usize = 64 * 1024;

/// The largest body that is read, in bytes; larger ones are answered with 413. Part of the router's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxBodyBytes(pub usize);

/// The bytes of a body that claims to be JSON; not parsed, perhaps empty.
///
/// Refused with 415 `unsupported_media_type` where the content type is not `application/json` or `application/…+json`
/// in UTF-8, or the body is compressed; with 413 `body_too_large` above [`MaxBodyBytes`]; with 408 `request_timeout`
/// where the body does not arrive in a minute; with 400 `incomplete_body` where it breaks off; with 503 `overloaded`
/// where other large bodies have taken the [`BodyRoom`].
pub type JsonBytes = Bytes;

/// As [`JsonBytes`], but `None` where the body is empty, whatever its type: some clients send the type of a form with
/// every request (`curl -d ''`).
pub type OptionalJsonBytes = Option<Bytes>;

/// A body in the form that a handler reads.
pub trait RequestBody: Sized {
    /// Reads the body of a request with these headers; `state` has the bounds.
    ///
    /// # Errors
    /// Why there is no such body: see [`JsonBytes`].
    fn read<S>(headers: &HeaderMap, body: Body, state: &S) -> impl Future<Output = Result<Self, Problem>> + Send
    where
        S: Sync,
        MaxBodyBytes: FromRef<S>,
        BodyRoom: FromRef<S>;
}

impl RequestBody for JsonBytes {
    async fn read<S>(headers: &HeaderMap, body: Body, state: &S) -> Result<Self, Problem>
    where
        S: Sync,
        MaxBodyBytes: FromRef<S>,
        BodyRoom: FromRef<S>,
    {
        check_media_type(headers)?;
        read(body, MaxBodyBytes::from_ref(state), &BodyRoom::from_ref(state)).await
    }
}

impl RequestBody for OptionalJsonBytes {
    async fn read<S>(headers: &HeaderMap, body: Body, state: &S) -> Result<Self, Problem>
    where
        S: Sync,
        MaxBodyBytes: FromRef<S>,
        BodyRoom: FromRef<S>,
    {
        let room = BodyRoom::from_ref(state);
        let Err(wrong_type) = check_media_type(headers) else {
            let bytes = read(body, MaxBodyBytes::from_ref(state), &room).await?;
            return Ok(Some(bytes).filter(|bytes| !bytes.is_empty()));
        };
        // Any byte is one too many. An empty chunked body shows that it is empty only at its end, so it is read.
        match read(body, MaxBodyBytes(0), &room).await {
            Ok(_) => Ok(None),
            Err(problem) if problem.status == StatusCode::PAYLOAD_TOO_LARGE => Err(wrong_type),
            Err(problem) => Err(problem),
        }
    }
}

/// The body as it comes, for a handler that streams it.
impl RequestBody for Body {
    async fn read<S>(_: &HeaderMap, body: Body, _: &S) -> Result<Self, Problem>
    where
        S: Sync,
        MaxBodyBytes: FromRef<S>,
        BodyRoom: FromRef<S>,
    {
        Ok(body)
    }
}

/// For a handler that judges something else before a wrong body.
impl<B: RequestBody> RequestBody for Result<B, Problem> {
    async fn read<S>(headers: &HeaderMap, body: Body, state: &S) -> Result<Self, Problem>
    where
        S: Sync,
        MaxBodyBytes: FromRef<S>,
        BodyRoom: FromRef<S>,
    {
        Ok(B::read(headers, body, state).await)
    }
}

/// Whether the headers announce uncompressed JSON in UTF-8.
fn check_media_type(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return Err(not_json("the request has no Content-Type"));
    };
    if media_type::differ(headers) {
        return Err(not_json("the request has two different Content-Types"));
    }
    let text = value.to_str().map_err(|_| not_json("the Content-Type is not text"))?;
    let mut parts = text.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default();
    if !is_json(essence) {
        return Err(not_json("the Content-Type is not JSON"));
    }
    let charset = parts
        .filter_map(|parameter| parameter.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("charset"))
        .map(|(_, charset)| charset.trim().trim_matches('"'));
    if charset.is_some_and(|charset| !charset.eq_ignore_ascii_case("utf-8") && !charset.eq_ignore_ascii_case("utf8")) {
        return Err(not_json("the charset is not UTF-8"));
    }
    let encoded = headers.get_all(header::CONTENT_ENCODING).iter();
    if encoded.into_iter().any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(not_json("the body has a Content-Encoding"));
    }
    Ok(())
}

fn is_json(essence: &str) -> bool {
    let Some((kind, subtype)) = essence.split_once('/') else { return false };
    let suffix = subtype.len().checked_sub(5).and_then(|at| subtype.get(at..));
    kind.eq_ignore_ascii_case("application")
        && (subtype.eq_ignore_ascii_case("json")
            || (subtype.len() > 5 && suffix.is_some_and(|suffix| suffix.eq_ignore_ascii_case("+json"))))
}

fn not_json(what: &str) -> Problem {
    let detail = format!("{what}; send uncompressed application/json in UTF-8");
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail)
}

/// The whole body, refused as soon as it is known to exceed `max`.
///
/// # Errors
/// 413 `body_too_large`, 408 `request_timeout`, 400 `incomplete_body`, 503 `overloaded`; see [`JsonBytes`].
pub async fn read(body: Body, max: MaxBodyBytes, room: &BodyRoom) -> Result<Bytes, Problem> {
    // The announced length saves reading a body that would be refused; it is never trusted to be the real one.
    if body.size_hint().lower() > max.0 as u64 {
        return Err(too_large(max));
    }
    let mut collecting = pin!(collect(body, max, room));
    // Most bodies arrive with their headers; only waiting for one needs a timeout.
    if let Some(read) = collecting.as_mut().now_or_never() {
        return read;
    }
    match tokio::time::timeout(ARRIVAL_TIMEOUT, collecting).await {
        Ok(read) => read,
        Err(_) => Err(Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "request_timeout",
            format!("the body did not arrive within {} s", ARRIVAL_TIMEOUT.as_secs()),
        )),
    }
}

async fn collect(mut body: Body, max: MaxBodyBytes, room: &BodyRoom) -> Result<Bytes, Problem> {
    let mut taken = room.body();
    let Some(first) = next_data(&mut body, max, 0).await? else { return Ok(Bytes::new()) };
    taken.grow(first.len())?;
    // Most bodies arrive in one piece, which is passed on without a copy.
    let Some(second) = next_data(&mut body, max, first.len()).await? else { return Ok(taken.hold(first)) };
    taken.grow(first.len() + second.len())?;
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    let mut all = BytesMut::with_capacity(first.len() + second.len() + announced.min(FIRST_RESERVATION));
    all.extend_from_slice(&first);
    all.extend_from_slice(&second);
    while let Some(data) = next_data(&mut body, max, all.len()).await? {
        taken.grow(all.len() + data.len())?;
        all.extend_from_slice(&data);
    }
    Ok(taken.hold(all.freeze()))
}

/// The next non-empty piece; `None` at the end. `before`: the bytes received already.
async fn next_data(body: &mut Body, max: MaxBodyBytes, before: usize) -> Result<Option<Bytes>, Problem> {
    while !body.is_end_stream() {
        let Some(frame) = body.frame().await else { break };
        let frame =
            frame.map_err(|_| Problem::new(StatusCode::BAD_REQUEST, "incomplete_body", "the body ended early"))?;
        match frame.into_data() {
            Ok(data) if data.len() > max.0 - before.min(max.0) => return Err(too_large(max)),
            Ok(data) if data.is_empty() => {}
            Ok(data) => return Ok(Some(data)),
            // Trailers say nothing about the body.
            Err(_) => {}
        }
    }
    Ok(None)
}

fn too_large(max: MaxBodyBytes) -> Problem {
    let detail = format!("the body is larger than {} bytes", max.0);
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail)
}

#[cfg(test)]
mod tests;
