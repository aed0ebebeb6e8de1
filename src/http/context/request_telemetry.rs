//! Telemetry of every request: its metrics always, its span if its trace is recorded.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use actors::clock::Millis;
use actors::trace::underway::{Stage, StageEntry};
use actors::trace::{Finished, SAMPLED, SpanKind, TraceContext, Traces, Value, names};
use axum::extract::MatchedPath;
use http::StatusCode;

use super::RequestContext;
use crate::metrics::http::{HttpMetrics, OTHER, Route, UNMATCHED, Unanswered, error_type, method_name};
use crate::telemetry::sampling::{RecordReason, Sampling};

/// The route whose requests wait on purpose: they are not slow.
const WAITING: &str = "/api/v1/reviews/{id}/wait";

/// The code of an agent's failure: mostly its model's, which this program cannot fix.
const AGENT_FAILED: &str = "agent_failed";
/// The code of a request that exceeds the key's rate.
const RATE_LIMITED: &str = "rate_limited";

/// The length to which an unknown method is cut in a span.
const METHOD_CHARS: usize = 32;

/// Chooses which requests are recorded, and observes all of them.
#[derive(Debug)]
pub struct RequestTelemetry {
    sampling: Sampling,
    traces: Traces,
    metrics: HttpMetrics,
    /// The wall-clock time, for exemplars.
    now: fn() -> Millis,
}

/// The instruments of the route that a service was made for, found at its first request.
pub(super) type RouteMetrics = Arc<OnceLock<Arc<Route>>>;

impl RequestTelemetry {
    /// Spans chosen by `sampling` go to `traces`.
    #[must_use]
    pub fn new(sampling: Sampling, traces: Traces) -> Self {
        let now = || actors::clock::Clock::now(&actors::clock::SystemClock);
        Self { sampling, traces, metrics: HttpMetrics::default(), now }
    }

    /// No telemetry: requests of the metrics listener are not counted as work.
    #[must_use]
    pub fn silent() -> Self {
        Self::new(Sampling::none(), Traces::default())
    }

    /// The metrics of requests.
    pub fn metrics(&self) -> &HttpMetrics {
        &self.metrics
    }

    /// The flags of a request's trace; `caller`: the flags that the request came with.
    pub(super) fn flags(&self, trace_id: &[u8; 16], caller: Option<u8>, now: Instant) -> u8 {
        let parent = caller.map(|flags| flags & SAMPLED != 0);
        if self.sampling.decide(trace_id, parent, now) { SAMPLED } else { 0 }
    }

    /// A request has begun; it is in the task list, if there is one, until the returned value is dropped.
    pub(super) fn begun(&self, context: &RequestContext, began: Instant) -> Option<StageEntry> {
        self.metrics.begun(&context.method);
        self.traces.underway().map(|underway| {
            underway.begin(Stage {
                name: name(context),
                context: TraceContext::from(&context.trace),
                parent: context.trace.parent_span_id,
                began,
                attributes: attributes(context),
            })
        })
    }

    /// A request has ended: with an answer, or without one.
    pub(super) fn ended(
        &self,
        context: &RequestContext,
        known: &RouteMetrics,
        (began, ended): (Instant, Instant),
        end: Result<End, Unanswered>,
    ) {
        self.metrics.ended(&context.method);
        let took = ended.saturating_duration_since(began);
        let mut own = TraceContext::from(&context.trace);
        let status = end.map(|end| end.status);
        // Before its duration is observed: a request that is kept becomes an exemplar too.
        let kept = if self.traces.records(Some(own)) { None } else { self.keep_reason(context, end, took, ended) };
        if kept.is_some() {
            own.flags |= SAMPLED;
        }
        let recorded = self.traces.records(Some(own));
        self.instruments(context, known).observe(status, took, recorded.then_some(own), self.now);
        if let Some(code) = end.ok().and_then(|end| end.code) {
            self.metrics.problem(code);
        }
        if recorded {
            let mut span = span(context, own, (began, ended), end);
            span.attributes.extend(kept.map(|why| (names::KEPT, Value::from(why.word()))));
            self.traces.record(span);
        }
    }

    /// Whether a request that was not sampled is recorded after all, and why.
    fn keep_reason(
        &self,
        context: &RequestContext,
        end: Result<End, Unanswered>,
        took: Duration,
        now: Instant,
    ) -> Option<RecordReason> {
        let status = end.map(|end| end.status);
        let code = end.ok().and_then(|end| end.code);
        let why = match status {
            Ok(StatusCode::SERVICE_UNAVAILABLE) => RecordReason::Refused,
            // A 429 for the key's own rate shows nothing about this server's load.
            Ok(StatusCode::TOO_MANY_REQUESTS) if code != Some(RATE_LIMITED) => RecordReason::Refused,
            Ok(status) if status.is_server_error() && code == Some(AGENT_FAILED) => RecordReason::Agent,
            Ok(status) if status.is_server_error() => RecordReason::Error,
            Err(Unanswered::Stopping) => RecordReason::Error,
            _ if !self.sampling.is_slow(took) || context.is_of(WAITING) => return None,
            _ if context.has_waited() => RecordReason::Waited,
            _ => RecordReason::Slow,
        };
        self.sampling.keeps(why, now).then_some(why)
    }

    /// One service answers one route, and nearly always one method: `HEAD` goes where `GET` goes.
    fn instruments(&self, context: &RequestContext, known: &RouteMetrics) -> Arc<Route> {
        let method = method_name(&context.method);
        let find = || self.metrics.of(context.route.as_ref().map_or(UNMATCHED, MatchedPath::as_str), method);
        let route = known.get_or_init(find);
        if route.method() == method { Arc::clone(route) } else { find() }
    }
}

/// How a request was answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    pub(super) status: StatusCode,
    /// The error's code, if the answer is an error.
    pub(super) code: Option<&'static str>,
}

/// The name of a request in its span and in the task list; never a method made up by its client.
fn name(context: &RequestContext) -> String {
    let method = Some(method_name(&context.method)).filter(|method| *method != OTHER).unwrap_or("HTTP");
    match &context.route {
        Some(route) => [method, " ", route.as_str()].concat(),
        None => method.to_owned(),
    }
}

/// The attributes of a request known from its beginning. The query is left out: it may contain search terms. So is a
/// path without a route: it may be any text. A long path is cut, like every text that becomes a [`Value`].
fn attributes(context: &RequestContext) -> Vec<(&'static str, Value)> {
    let mut attributes = Vec::with_capacity(8);
    let method = method_name(&context.method);
    attributes.push((names::HTTP_METHOD, Value::from(method)));
    if method == OTHER {
        let original: String = context.method.as_str().chars().take(METHOD_CHARS).collect();
        attributes.push((names::HTTP_METHOD_ORIGINAL, Value::from(original)));
    }
    attributes.push((names::URL_SCHEME, Value::from("http")));
    attributes.push((names::REQUEST_ID, Value::from(context.request_id.as_str().to_owned())));
    if let Some(route) = &context.route {
        attributes.push((names::URL_PATH, Value::from(context.path().to_owned())));
        attributes.push((names::HTTP_ROUTE, Value::from(route.as_str().to_owned())));
    }
    attributes
}

/// The span of a request.
fn span(
    context: &RequestContext,
    own: TraceContext,
    (began, ended): (Instant, Instant),
    end: Result<End, Unanswered>,
) -> Finished {
    let mut attributes = attributes(context);
    attributes.extend(context.message.get().map(|id| (names::MESSAGE_ID, Value::from(id.to_string()))));
    let error = match end {
        Ok(End { status, code }) => {
            attributes.push((names::HTTP_STATUS, Value::from(u32::from(status.as_u16()))));
            attributes.extend(code.map(|code| (names::PROBLEM, Value::from(code))));
            error_type(status)
        }
        Err(why) => Some(why.word()),
    };
    Finished {
        name: Cow::Owned(name(context)),
        kind: SpanKind::Server,
        context: own,
        parent: context.trace.parent_span_id,
        links: Vec::new(),
        began,
        ended,
        attributes,
        error: error.map(Cow::Borrowed),
    }
}
