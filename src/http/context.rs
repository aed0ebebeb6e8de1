//! The outermost layer: common to every request and response, whatever the route does.
//!
//! A request gets an id and a trace context, as a [`RequestContext`] in its extensions; its response carries both.
//! Every error becomes one `application/problem+json` form (see [`render`]), a panic too, and one log line says how
//! the request ended. Put it on the whole router with `Router::layer`, so that the log line knows the route's pattern.

use std::any::Any;
use std::convert::Infallible;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use actors::clock::Entropy;
use actors::id::MessageId;
use actors::trace::current;
use actors::trace::underway::StageEntry;
use axum::body::Body;
use axum::extract::{FromRequestParts, MatchedPath};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use tower::{Layer, Service};

use super::answer::name_ignored_parameters;
use super::forwarding::Forwarded;
use super::refusal::broken;
use crate::metrics::http::{Unanswered, method_name};
use crate::problem::Problem;
use crate::server::{Ending, Unreadable};
use crate::trace_context::{RequestTrace, TRACEPARENT, hex_into};

pub mod render;
mod request_telemetry;

pub use request_telemetry::RequestTelemetry;
use request_telemetry::{End, RouteMetrics};

/// The header that names a request, in both directions.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// `Cache-Control` of reads whose route sets none: a key in `X-API-Key` does not show a shared cache that the answer is
/// for one client alone. That client may cache it, and revalidates it.
const PRIVATE_NO_CACHE: HeaderValue = HeaderValue::from_static("private, no-cache");

/// Longest request id that is accepted from a client, in bytes.
const MAX_REQUEST_ID_BYTES: usize = 128;

/// The id of a request: the client's own if it sent a valid one, else `req_` and 32 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// The id as text; at most 128 characters of visible ASCII.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Both constructors accept only ASCII.
        self.0.to_str().unwrap_or_default()
    }

    fn from_client(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(&REQUEST_ID).into_iter();
        let value = values.next().filter(|value| {
            (1..=MAX_REQUEST_ID_BYTES).contains(&value.len())
                && value.as_bytes().iter().all(|byte| byte.is_ascii_alphanumeric() || b"_.:/+=-".contains(byte))
        })?;
        values.next().is_none().then(|| Self(value.clone()))
    }

    fn generated(random: &[u8; 16]) -> Self {
        let mut text = *b"req_00000000000000000000000000000000";
        hex_into(random, &mut text[4..]);
        Self(HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static("req_")))
    }
}

/// The data of a request before any route sees it. An extractor, and an extension of the request; clones share one
/// value.
#[derive(Clone, Debug)]
pub struct RequestContext(Arc<RequestInfo>);

impl Deref for RequestContext {
    type Target = RequestInfo;

    fn deref(&self) -> &RequestInfo {
        &self.0
    }
}

/// What is known of a request before any route sees it; see [`RequestContext`].
#[derive(Debug)]
pub struct RequestInfo {
    /// The request's id.
    pub request_id: RequestId,
    /// The request's place in its trace.
    pub trace: RequestTrace,
    /// The method as it came.
    pub method: Method,
    /// The target as it came, before any router has stripped a prefix.
    pub uri: Uri,
    /// The pattern of the route that answers, for example `/api/v1/messages/{id}`; `None` where no route matches.
    pub route: Option<MatchedPath>,
    /// The first message that the request created, once it is accepted.
    message: OnceLock<MessageId>,
    /// It has begun to wait for an agent, a copy or an erasure.
    waited: AtomicBool,
}

impl RequestInfo {
    /// The path of the target, without the query.
    #[must_use]
    pub fn path(&self) -> &str {
        self.uri.path()
    }

    /// The first message of the request is accepted, now or by an earlier request with its key. Its span records it.
    pub fn record_message(&self, message: MessageId) {
        self.message.get_or_init(|| message);
    }

    /// From here on it waits for an agent, a copy or an erasure: its duration is not the server's fault.
    pub fn begin_wait(&self) {
        self.waited.store(true, Ordering::Relaxed);
    }

    fn has_waited(&self) -> bool {
        self.waited.load(Ordering::Relaxed)
    }

    /// Whether its route has this pattern.
    fn is_of(&self, route: &str) -> bool {
        self.route.as_ref().is_some_and(|known| known.as_str() == route)
    }
}

impl<S: Sync> FromRequestParts<S> for RequestContext {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        // Missing only in a router that was built without the layer.
        parts.extensions.get::<Self>().cloned().ok_or_else(|| broken("every request has a context"))
    }
}

/// Puts [`ContextService`] around a service.
#[derive(Clone, Debug)]
pub struct ContextLayer {
    entropy: Arc<Entropy>,
    request_telemetry: Arc<RequestTelemetry>,
}

impl ContextLayer {
    /// Ids are drawn from `entropy`; `request_telemetry` decides which requests are recorded, and observes all of them.
    #[must_use]
    pub fn new(entropy: Arc<Entropy>, request_telemetry: Arc<RequestTelemetry>) -> Self {
        Self { entropy, request_telemetry }
    }

    fn context<B>(&self, request: &Request<B>, now: Instant) -> RequestContext {
        let [random, trace_id] = self.entropy.draw_two();
        let mut span_id = [0; 8];
        span_id.copy_from_slice(&random[..8]);
        let caller = RequestTrace::continued(request.headers(), span_id);
        let mut trace = caller.unwrap_or(RequestTrace { trace_id, span_id, parent_span_id: None, flags: 0 });
        trace.flags = self.request_telemetry.flags(&trace.trace_id, caller.map(|caller| caller.flags), now);
        RequestContext(Arc::new(RequestInfo {
            request_id: RequestId::from_client(request.headers()).unwrap_or_else(|| RequestId::generated(&random)),
            trace,
            method: request.method().clone(),
            uri: target(request),
            route: request.extensions().get::<MatchedPath>().cloned(),
            message: OnceLock::new(),
            waited: AtomicBool::new(false),
        }))
    }
}

/// The target of a request: one that cannot be read, or names no host, is routed as `/`.
fn target<B>(request: &Request<B>) -> Uri {
    let unreadable = || request.extensions().get::<Unreadable>()?.target.clone();
    let target = if request.uri().path() == "/" { unreadable() } else { None };
    target.unwrap_or_else(|| request.uri().clone())
}

impl<S> Layer<S> for ContextLayer {
    type Service = ContextService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ContextService { inner, layer: self.clone(), known: RouteMetrics::default() }
    }
}

/// The layer's service; see the module.
#[derive(Clone, Debug)]
pub struct ContextService<S> {
    inner: S,
    layer: ContextLayer,
    known: RouteMetrics,
}

impl<S> Service<Request<Body>> for ContextService<S>
where
    S: Service<Request<Body>, Response = Response, Error = Infallible>,
    S::Future: Unpin,
{
    type Response = Response;
    type Error = Infallible;
    type Future = ContextFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let began = Instant::now();
        let context = self.layer.context(&request, began);
        let _entered = current::enter(Some((&context.trace).into()));
        let doing = self.layer.request_telemetry.begun(&context, began);
        let request_telemetry = Arc::clone(&self.layer.request_telemetry);
        let known = Arc::clone(&self.known);
        let ending = request.extensions_mut().remove();
        request.extensions_mut().insert(context.clone());
        let running = RunningRequest { request_telemetry, known, context, ending, began, ended: false, _doing: doing };
        let inner = catch_unwind(AssertUnwindSafe(|| self.inner.call(request)));
        ContextFuture { inner, running }
    }
}

/// A request in progress. If it is dropped before its answer, its client has left, or the server ends.
#[derive(Debug)]
struct RunningRequest {
    request_telemetry: Arc<RequestTelemetry>,
    known: RouteMetrics,
    context: RequestContext,
    /// Whether its server, if it has one, has begun to cut requests off.
    ending: Option<Ending>,
    began: Instant,
    ended: bool,
    /// Its entry in the task list.
    _doing: Option<StageEntry>,
}

impl RunningRequest {
    fn end(&mut self, at: Instant, end: Result<End, Unanswered>) {
        self.ended = true;
        log(&self.context, at.saturating_duration_since(self.began), end);
        self.request_telemetry.ended(&self.context, &self.known, (self.began, at), end);
    }
}

impl Drop for RunningRequest {
    fn drop(&mut self) {
        if !self.ended {
            let _entered = current::enter(Some((&self.context.trace).into()));
            let is_cut_off = self.ending.as_ref().is_some_and(Ending::has_begun);
            let why = if is_cut_off { Unanswered::Stopping } else { Unanswered::ClientLeft };
            self.end(Instant::now(), Err(why));
        }
    }
}

/// The answer of a [`ContextService`].
#[derive(Debug)]
pub struct ContextFuture<F> {
    /// The running handler, or what it panicked with before it ran.
    inner: Result<F, Box<dyn Any + Send>>,
    running: RunningRequest,
}

impl<F: Future<Output = Result<Response, Infallible>> + Unpin> Future for ContextFuture<F> {
    type Output = Result<Response, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let _entered = current::enter(Some((&this.running.context.trace).into()));
        let polled = match &mut this.inner {
            // A handler that panicked is never polled again: this future ends with it.
            Ok(inner) => catch_unwind(AssertUnwindSafe(|| Pin::new(inner).poll(cx))),
            Err(panic) => Err(std::mem::replace(panic, Box::new(()))),
        };
        let response = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(Ok(response))) => response,
            Err(panic) => after_panic(&this.running.context, panic.as_ref()),
        };
        Poll::Ready(Ok(finish(&mut this.running, response)))
    }
}

/// The panic's message goes to the log; the client learns only that the server is at fault.
fn after_panic(context: &RequestContext, panic: &(dyn Any + Send)) -> Response {
    let message = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    tracing::error!(
        panic = message.unwrap_or("not text"),
        request.id = context.request_id.as_str(),
        "a request handler panicked"
    );
    render::internal_error().into_response()
}

fn finish(running: &mut RunningRequest, response: Response) -> Response {
    let context = &running.context;
    let (mut response, code) = render::render(context, response);
    let is_forwarded = || response.extensions().get::<Forwarded>().is_some();
    if context.uri.query().is_some() && !render::is_error(response.status()) && !is_forwarded() {
        name_ignored_parameters(&mut response, context);
    }
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, context.request_id.0.clone());
    headers.insert(TRACEPARENT, context.trace.traceparent());
    if matches!(context.method, Method::GET | Method::HEAD) {
        // Caches store answers to other methods only if told to.
        headers.entry(header::CACHE_CONTROL).or_insert(PRIVATE_NO_CACHE);
    }
    running.end(Instant::now(), Ok(End { status: response.status(), code }));
    response
}

/// One log line per request: `debug` for answers and where the client left; `warn` where the node refuses or cuts off,
/// `error` where it failed. A request without an answer has no status, and its line says why.
fn log(context: &RequestContext, took: Duration, end: Result<End, Unanswered>) {
    let status = end.map(|end| end.status);
    let code = end.ok().and_then(|end| end.code);
    macro_rules! line {
        ($level:expr) => {
            tracing::event!(
                target: "tertulia::http",
                $level,
                http.request.method = method_name(&context.method),
                http.route = context.route.as_ref().map_or("", MatchedPath::as_str),
                http.response.status_code = status.ok().map(|status| status.as_u16()),
                error.type = status.err().map(Unanswered::word),
                problem.code = code,
                duration_ms = took.as_secs_f64() * 1e3,
                request.id = context.request_id.as_str(),
                "request"
            )
        };
    }
    match status {
        // A customer's model is no matter for the operator; its cause has a line of its own.
        Ok(_) if code == Some("agent_failed") => line!(tracing::Level::WARN),
        Ok(StatusCode::INTERNAL_SERVER_ERROR) => line!(tracing::Level::ERROR),
        Ok(status) if status.is_server_error() => line!(tracing::Level::WARN),
        Err(Unanswered::Stopping) => line!(tracing::Level::WARN),
        _ => line!(tracing::Level::DEBUG),
    }
}

#[cfg(test)]
mod tests;
