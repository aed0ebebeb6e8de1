//! From a stage, as the actors tell it, to a span of OpenTelemetry.

use std::time::{Duration, Instant, SystemTime};

use actors::trace::names::ERROR_TYPE;
use actors::trace::{Finished, SpanKind, TraceContext, Value};
use opentelemetry::trace::{self, SpanContext, SpanId, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::waiting::Ended;

/// Clocks that are so far apart at most have not been set; reading both takes a while on a busy machine.
const AGREES: Duration = Duration::from_millis(100);

/// The same moment on both clocks: spans are timed by the one that never jumps, and told by the one that people read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    steady: Instant,
    wall: SystemTime,
}

impl Moment {
    /// Now.
    #[expect(clippy::disallowed_methods, reason = "what is shown to people is not decided on")]
    pub(super) fn now() -> Self {
        Self { steady: Instant::now(), wall: SystemTime::now() }
    }

    /// The same one while both clocks still agree about it, so that spans of one trace that are sent apart stay in
    /// order; now, where somebody has set the wall clock since.
    pub(super) fn still(self) -> Self {
        let now = Self::now();
        let told = self.wall(now.steady);
        let apart = told.duration_since(now.wall).unwrap_or_else(|error| error.duration());
        if apart < AGREES { self } else { now }
    }

    fn wall(self, at: Instant) -> SystemTime {
        let ago = self.steady.saturating_duration_since(at);
        self.wall.checked_sub(ago).unwrap_or(self.wall) + at.saturating_duration_since(self.steady)
    }
}

/// The place of a span.
#[must_use]
pub(super) fn place(context: &TraceContext, remote: bool) -> SpanContext {
    SpanContext::new(
        TraceId::from_bytes(context.trace_id),
        SpanId::from_bytes(context.span_id),
        TraceFlags::new(context.flags),
        remote,
        TraceState::default(),
    )
}

/// A span as the exporter takes it.
#[must_use]
pub(super) fn span(ended: Ended, now: Moment, scope: &InstrumentationScope) -> SpanData {
    match ended {
        Ended::Stage(stage) => of_stage(stage, now, scope),
        Ended::Code(span) => *span,
    }
}

fn of_stage(stage: Finished, now: Moment, scope: &InstrumentationScope) -> SpanData {
    let mut attributes = Vec::with_capacity(stage.attributes.len() + usize::from(stage.error.is_some()));
    attributes.extend(stage.attributes.into_iter().map(|(key, value)| KeyValue::new(key, of_value(value))));
    let status = match stage.error {
        Some(error) => {
            attributes.push(KeyValue::new(ERROR_TYPE, error));
            Status::error("")
        }
        None => Status::Unset,
    };
    let mut links = SpanLinks::default();
    links.links = stage.links.iter().map(|cause| trace::Link::new(place(cause, true), Vec::new(), 0)).collect();
    SpanData {
        span_context: place(&stage.context, false),
        parent_span_id: stage.parent.map_or(SpanId::INVALID, SpanId::from_bytes),
        parent_span_is_remote: stage.kind == SpanKind::Server,
        span_kind: match stage.kind {
            SpanKind::Internal => trace::SpanKind::Internal,
            SpanKind::Server => trace::SpanKind::Server,
            SpanKind::Client => trace::SpanKind::Client,
            SpanKind::Consumer => trace::SpanKind::Consumer,
        },
        name: stage.name,
        start_time: now.wall(stage.began),
        end_time: now.wall(stage.ended),
        attributes,
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links,
        status,
        instrumentation_scope: scope.clone(),
    }
}

fn of_value(value: Value) -> opentelemetry::Value {
    match value {
        Value::Text(text) => text.into(),
        Value::Integer(number) => number.into(),
        Value::Float(number) => number.into(),
        Value::Truth(truth) => truth.into(),
    }
}
