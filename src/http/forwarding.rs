//! Forwarding whole requests to the server that owns the entity that they write to.
//!
//! Any server of a store accepts any request, but two servers that write to one conversation cause each other
//! conflicts. So a handler that knows its request's entity comes here once, before the request has any effect.
//! Correctness does not depend on it: ownership is advice, and a commit names the head that it was decided on
//! (invariant I6). The request is forwarded as received, with its caller's key, and its answer is returned unchanged; a
//! request that cannot be forwarded is handled here. `docs/decisions/0050-requests-forwarded-unchanged.md` says why.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use actors::clock::Millis;
use actors::directory::CommandContext;
use actors::id::EntityKey;
use actors::metrics::ForwardEnd;
use actors::sync::LockUnpoisoned;
use actors::trace::{SpanKind, TraceContext, names};
use axum::body::Body;
use axum::extract::FromRef;
use axum::response::Response;
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use reqwest::Client;
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use url::{Position, Url};

use super::body::MaxBodyBytes;
use super::call::Call;
use super::context::REQUEST_ID;
use super::context::render::{PROBLEM_JSON, is_error};
use super::refusal::outcome_unknown;
use crate::openapi::ERRORS;
use crate::problem::Problem;
use crate::server::{HEADER_BYTES, MAX_HEADERS};
use crate::trace_context::{RequestTrace, TRACEPARENT};
use crate::{bounded_body, http_client};

/// On a forwarded request: the receiving server handles it, whichever server owns the entity by then, and not after the
/// time in this header (milliseconds since 1970), when the forwarding server has given it up. For a client the header
/// only means that the receiving server handles its request, so this needs no secret.
pub(crate) const FORWARDED_UNTIL: HeaderName = HeaderName::from_static("x-tertulia-forwarded-until");
/// On the answer to a forwarded request that came too late: it had no effect, so the forwarding server, if it still
/// waits because its clock differs, does it with or without a key.
const NOT_DONE: HeaderName = HeaderName::from_static("x-tertulia-not-done");

/// How long a connection may take. Servers of one store are near each other.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// How long an answer may take that does not wait for an agent: longer than a server waits for its store (six seconds
/// for a commit whose outcome is unknown) and for earlier commands in the mailbox.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// How long nothing is forwarded to a server that did not answer, so that not every request runs into its timeout.
const FAILED_SERVER_PAUSE: Duration = Duration::from_secs(5);
/// How long a connection is kept unused; a server keeps one for 30 seconds.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);
/// Unused connections kept to one server: each counts among that server's connections.
const MAX_IDLE: usize = 64;
/// The connections per concurrently forwarded request: each such request holds one here and one there, so servers that
/// forward to each other must not use all of them. Further requests are handled where they are.
const CONNECTIONS_PER_FORWARD: usize = 10;
/// The bytes of an answer beyond twice the bound of a request: an agent's text, and what surrounds it.
const ANSWER_BYTES: usize = 16 * 1024 * 1024;

/// The headers that forwarding and the client that sends the request may add.
const ADDED_HEADERS: usize = 8;
/// Their bytes, with the request's first line.
const ADDED_BYTES: usize = 1024;

/// Headers that belong to one connection, not to the request.
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];
/// Headers of a request that are replaced or not forwarded.
const REPLACED_HEADERS: [HeaderName; 4] =
    [header::HOST, header::CONTENT_LENGTH, header::EXPECT, HeaderName::from_static("tracestate")];

/// Marks an answer of another server, which already names the ignored members.
#[derive(Clone, Copy, Debug)]
pub(super) struct Forwarded {
    /// The code of its error, if this program knows it: counted and recorded as on the server that made it.
    pub(super) code: Option<&'static str>,
}

/// Connections to the other servers of a store.
#[derive(Debug)]
pub(crate) struct Forwarding {
    /// Made at first use. `None`: it cannot be made, which is logged.
    client: OnceLock<Option<Client>>,
    /// Since when nothing is forwarded to a server. Entries are removed after that, so there are no more than servers.
    paused: Mutex<HashMap<Arc<str>, Instant>>,
    permits: Semaphore,
}

impl Forwarding {
    /// For a server with at most this many connections.
    pub(crate) fn of(connections: usize) -> Self {
        let permits = (connections / CONNECTIONS_PER_FORWARD).max(1);
        Self { client: OnceLock::new(), paused: Mutex::default(), permits: Semaphore::new(permits) }
    }

    fn client(&self) -> Option<&Client> {
        self.client.get_or_init(client).as_ref()
    }

    fn is_paused(&self, server: &str) -> bool {
        let paused = self.paused.lock_unpoisoned();
        paused.get(server).is_some_and(|since| since.elapsed() < FAILED_SERVER_PAUSE)
    }

    /// Forwards nothing to this server for a while; returns whether it got requests before.
    fn pause(&self, server: &Arc<str>) -> bool {
        let mut paused = self.paused.lock_unpoisoned();
        paused.retain(|_, since| since.elapsed() < FAILED_SERVER_PAUSE);
        paused.insert(Arc::clone(server), Instant::now()).is_none()
    }
}

fn client() -> Option<Client> {
    let build = || -> Result<Client, Box<dyn std::error::Error>> {
        Ok(http_client::client()?
            // With one exchange per connection, dropping a request closes its socket, and the other server learns that
            // its answer is no longer wanted.
            .http1_only()
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(MAX_IDLE)
            .build()?)
    };
    build().inspect_err(|error| tracing::error!(%error, "requests cannot be forwarded to other servers")).ok()
}

/// Why there is no answer of the other server.
#[derive(Debug, thiserror::Error)]
enum ForwardError {
    /// The request did not reach it.
    #[error("no connection: {0}")]
    Unreached(String),
    /// It refused for now, and has done nothing.
    #[error("it answered {1}")]
    Refused(StatusCode, &'static str),
    /// It got the request, and may have done it.
    #[error("incomplete response: {0}")]
    Broken(String),
    /// The other server got the request, and this server stopped waiting for its answer.
    #[error("this server is stopping")]
    Stopping,
}

impl ForwardError {
    /// Whether the other server may have carried the request out.
    fn may_have_taken_effect(&self) -> bool {
        matches!(self, Self::Broken(_) | Self::Stopping)
    }

    /// The span's error type.
    fn error_type(&self) -> &'static str {
        match self {
            Self::Unreached(_) => "unreachable",
            Self::Refused(..) => "refused",
            Self::Broken(_) | Self::Stopping => "outcome_unknown",
        }
    }
}

/// The codes of a server that starts, stops or has lost its store: nothing was stored.
const CANNOT: [&str; 2] = ["store_unavailable", "stopping"];

/// The member of a problem that is read here.
#[derive(Deserialize)]
struct ProblemCode<'a> {
    #[serde(borrow)]
    code: Cow<'a, str>,
}

/// The code of an answer, if it is an error of this program.
fn code_of(answer: &Response, body: &[u8]) -> Option<&'static str> {
    if !is_error(answer.status()) || answer.headers().get(header::CONTENT_TYPE) != Some(&PROBLEM_JSON) {
        return None;
    }
    let problem: ProblemCode<'_> = serde_json::from_slice(body).ok()?;
    ERRORS.iter().map(|page| page.code).find(|code| *code == problem.code)
}

/// A request as received, with what forwarding needs to know: whether a repetition has no second effect, and how long
/// its answer may wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct ForwardableRequest<'a> {
    pub(super) call: &'a Call,
    /// `None`: it has none.
    pub(super) body: Option<&'a Bytes>,
    /// A repetition has no second effect.
    pub(super) is_keyed: bool,
    /// How long its answer may wait for agents or downloads.
    pub(super) waits: Duration,
}

impl Call {
    /// Forwards a request that waits neither for an agent nor for people; see [`ForwardableRequest::forward`].
    ///
    /// # Errors
    /// As [`ForwardableRequest::forward`].
    pub(super) async fn forward(
        &self,
        entity: EntityKey,
        body: impl Into<Option<&Bytes>>,
        command_context: &CommandContext,
    ) -> Result<Option<Response>, Problem> {
        let is_keyed = command_context.key.is_some();
        let request = ForwardableRequest { call: self, body: body.into(), is_keyed, waits: Duration::ZERO };
        request.forward(entity).await
    }
}

impl ForwardableRequest<'_> {
    /// The answer of the server that owns `entity`; `None`: handle it here. To be called once the request is known to
    /// be allowed, and before it has any effect.
    ///
    /// # Errors
    /// 503 `outcome_unknown` if the other server got the request, gave no complete answer, and may not get it again;
    /// `store_unavailable` if this request was forwarded and the forwarding server has given it up.
    pub(super) async fn forward(self, entity: EntityKey) -> Result<Option<Response>, Problem> {
        if !self.call.node().shares_its_store() {
            return Ok(None);
        }
        if let Some(until) = self.call.headers.get(FORWARDED_UNTIL) {
            let until = until.to_str().ok().and_then(|until| until.parse().ok()).map(Millis);
            if until.is_some_and(|until| until < self.call.app.now()) {
                let detail = "the forwarded request arrived after its deadline; nothing was stored";
                let late = Problem::unavailable("store_unavailable", detail, 1);
                return Err(late.header(NOT_DONE, HeaderValue::from_static("late")));
            }
            return Ok(None);
        }
        if !arrives_as_it_is(&self.call.headers) {
            return Ok(None);
        }
        match self.call.node().members().server_of(entity) {
            // A stopping server forwards nothing.
            Some(server) if self.call.app.stopping().now_or_never().is_none() => {
                Box::pin(self.forward_to(server)).await
            }
            _ => Ok(None),
        }
    }

    async fn forward_to(self, server: Arc<str>) -> Result<Option<Response>, Problem> {
        let forwarding = self.call.app.forwarding();
        let count = |outcome| self.call.node().metrics().forwarded.of(outcome).inc();
        let permit = (!self.waits.is_zero()).then(|| self.call.app.long_requests().enter(self.call.caller.address));
        // If too many requests wait already, this one does not wait, and its answer says so.
        let is_full = permit.as_ref().is_some_and(Option::is_none);
        let (Some(client), Some(target), Ok(_pass), false) = (
            forwarding.client(),
            self.target(&server),
            forwarding.permits.try_acquire(),
            is_full || forwarding.is_paused(&server),
        ) else {
            count(ForwardEnd::FellBack);
            return Ok(None);
        };
        if permit.is_some() {
            self.call.context.begin_wait();
        }
        let cause = TraceContext::from(&self.call.context.trace);
        let mut span = self.call.node().span(names::FORWARD, SpanKind::Client, Some(cause));
        span.set(names::HTTP_METHOD, self.call.context.method.to_string());
        span.asks(&server);
        let trace = RequestTrace::from(span.context().unwrap_or(cause));
        let failed = match self.answered(client, target, trace).await {
            Ok(answer) => {
                span.set(names::HTTP_STATUS, u32::from(answer.status().as_u16()));
                count(ForwardEnd::Sent);
                return Ok(Some(answer));
            }
            Err(failed) => failed,
        };
        if !matches!(failed, ForwardError::Stopping) && forwarding.pause(&server) {
            tracing::warn!(%server, error = %failed, "another server does not answer; its requests are processed here");
        }
        if let ForwardError::Refused(status, _) = failed {
            span.set(names::HTTP_STATUS, u32::from(status.as_u16()));
        }
        span.fail(failed.error_type());
        if failed.may_have_taken_effect() && !self.is_keyed {
            count(ForwardEnd::Unknown);
            let detail = "the request was forwarded to another server, which did not answer; it may have taken \
                          effect, and without an Idempotency-Key a retry may apply it twice";
            return Err(outcome_unknown(detail));
        }
        count(ForwardEnd::FellBack);
        Ok(None)
    }

    /// The target URL; `None`: the request would not arrive unchanged.
    fn target(&self, server: &str) -> Option<Url> {
        let path = self.call.context.uri.path_and_query()?.as_str();
        let target = Url::parse(&[server, path].concat()).ok()?;
        (target[Position::BeforePath..] == *path).then_some(target)
    }

    /// The answer, unless this server stops.
    async fn answered(self, client: &Client, target: Url, trace: RequestTrace) -> Result<Response, ForwardError> {
        let broken = |why: &str| Err(ForwardError::Broken(why.to_owned()));
        tokio::select! {
            biased;
            answered = timeout(ANSWER_TIMEOUT + self.waits, self.exchange(client, target, trace)) => {
                answered.unwrap_or_else(|_| broken("timed out"))
            }
            () = self.call.app.wait_cutoff() => Err(ForwardError::Stopping),
        }
    }

    async fn exchange(self, client: &Client, target: Url, trace: RequestTrace) -> Result<Response, ForwardError> {
        let headers = self.forwarded_headers(trace, self.call.app.now().plus(millis(ANSWER_TIMEOUT + self.waits)));
        let mut request = client.request(self.call.context.method.clone(), target).headers(headers);
        if let Some(body) = self.body {
            request = request.body(body.clone());
        }
        let answer = request.send().await.map_err(unanswered)?;
        let status = answer.status();
        let mut headers = answer.headers().clone();
        // The answer comes from a proxy, or from another program that now has the address.
        if headers.get(REQUEST_ID).is_none_or(|id| id.as_bytes() != self.call.context.request_id.as_str().as_bytes()) {
            return Err(ForwardError::Broken(format!("{status}, not from the server")));
        }
        let at_most = ANSWER_BYTES + 2 * MaxBodyBytes::from_ref(&self.call.app).0;
        let body =
            bounded_body::body(answer, at_most).await.map_err(|unread| ForwardError::Broken(format!("{unread:?}")))?;
        remove_hop_by_hop(&mut headers);
        headers.remove(header::CONTENT_LENGTH);
        let mut answer = Response::new(Body::empty());
        (*answer.status_mut(), *answer.headers_mut()) = (status, headers);
        if answer.headers().contains_key(NOT_DONE) {
            return Err(ForwardError::Refused(status, "that the request is late by its clock"));
        }
        let code = code_of(&answer, &body);
        let cannot = code.filter(|code| status == StatusCode::SERVICE_UNAVAILABLE && CANNOT.contains(code));
        // A stopping server has stored nothing, so the request is handled here even without a key.
        if let Some(code) = cannot.filter(|code| self.is_keyed || *code == "stopping") {
            return Err(ForwardError::Refused(status, code));
        }
        answer.extensions_mut().insert(Forwarded { code });
        *answer.body_mut() = Body::from(body);
        Ok(answer)
    }

    /// Its headers for forwarding, with the deadline `until`.
    fn forwarded_headers(&self, trace: RequestTrace, until: Millis) -> HeaderMap {
        let mut headers = self.call.headers.clone();
        remove_hop_by_hop(&mut headers);
        for name in REPLACED_HEADERS {
            headers.remove(name);
        }
        if let Ok(id) = HeaderValue::from_str(self.call.context.request_id.as_str()) {
            headers.insert(REQUEST_ID, id);
        }
        headers.insert(TRACEPARENT, trace.traceparent());
        headers.insert(FORWARDED_UNTIL, HeaderValue::from(until.0));
        headers
    }
}

fn unanswered(error: reqwest::Error) -> ForwardError {
    let is_unsent = error.is_connect() || error.is_builder();
    let why = http_client::unanswered(error);
    if is_unsent { ForwardError::Unreached(why) } else { ForwardError::Broken(why) }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Whether another server would act on the same headers: it must accept as many and as large ones, and none that this
/// server has acted on may belong to the connection, as a client's `Connection` could say of any.
fn arrives_as_it_is(headers: &HeaderMap) -> bool {
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len()).sum();
    headers.len() + ADDED_HEADERS <= MAX_HEADERS
        && bytes + ADDED_BYTES <= HEADER_BYTES
        && of_connection(headers).all(|name| name == "close" || HOP_BY_HOP.iter().any(|hop| name == hop.as_str()))
}

/// The names in `Connection`, in lower case.
fn of_connection(headers: &HeaderMap) -> impl Iterator<Item = String> {
    let named = headers.get_all(header::CONNECTION).iter();
    let named = named.flat_map(|names| names.as_bytes().split(|byte| *byte == b','));
    let named = named.map(|name| String::from_utf8_lossy(name.trim_ascii()).to_ascii_lowercase());
    named.filter(|name| !name.is_empty())
}

/// Removes the headers of a single connection.
fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = of_connection(headers).filter_map(|name| name.parse().ok()).collect();
    for name in HOP_BY_HOP.iter().chain(&named) {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_forwarded_only_with_headers_that_another_server_acts_on_too() {
        let with = |name: &'static str, value: &str, times: usize| {
            let mut headers = HeaderMap::new();
            for _ in 0..times {
                headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
            }
            headers
        };
        assert!(arrives_as_it_is(&with("connection", "close, Keep-Alive,, TE", 2)));
        assert!(!arrives_as_it_is(&with("connection", "keep-alive, X-Workspace-Id", 1)));
        assert!(arrives_as_it_is(&with("x", "1", MAX_HEADERS - ADDED_HEADERS)));
        assert!(!arrives_as_it_is(&with("x", "1", MAX_HEADERS - ADDED_HEADERS + 1)));
        assert!(arrives_as_it_is(&with("x", &"1".repeat(HEADER_BYTES - ADDED_BYTES - 5), 1)));
        assert!(!arrives_as_it_is(&with("x", &"1".repeat(HEADER_BYTES - ADDED_BYTES - 4), 1)));
    }

    #[test]
    fn only_hop_by_hop_headers_and_their_names_are_not_forwarded() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Hop"),
            ("connection", "keep-alive,, \u{e9}"),
            ("keep-alive", "timeout=5"),
            ("x-hop", "1"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("x-api-key", "k"),
            ("prefer", "wait=1"),
            ("prefer", "respond-async"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        remove_hop_by_hop(&mut headers);
        let mut left: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        // The values of one name keep their order.
        left.sort_by_key(|(name, _)| *name);
        assert_eq!(left, [("prefer", "wait=1"), ("prefer", "respond-async"), ("x-api-key", "k")]);
    }

    #[tokio::test]
    async fn a_server_that_cannot_be_reached_is_reported_with_the_cause() {
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let unsent = client().unwrap().get(format!("http://{address}/path")).send().await.unwrap_err();
        let error = unanswered(unsent);
        assert!(matches!(error, ForwardError::Unreached(_)), "{error}");
        let words = error.to_string();
        assert!(words.contains("onnection refused") && !words.contains("/path"), "{words}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_did_not_answer_is_spared_for_a_while() {
        let forwarding = Forwarding::of(100);
        let [one, other] = ["http://one", "http://other"].map(Arc::<str>::from);
        assert!(!forwarding.is_paused(&one) && forwarding.pause(&one) && forwarding.is_paused(&one));
        assert!(!forwarding.pause(&one) && !forwarding.is_paused(&other), "it is told once");
        tokio::time::advance(FAILED_SERVER_PAUSE).await;
        assert!(!forwarding.is_paused(&one) && forwarding.pause(&other));
        assert_eq!(forwarding.paused.lock().unwrap().len(), 1, "what is over is forgotten");
        assert!(forwarding.pause(&one));
    }
}
