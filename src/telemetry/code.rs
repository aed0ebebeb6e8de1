//! Pieces of code as spans: from `tracing` through `tracing-opentelemetry`.

use std::sync::Arc;
use std::time::Duration;

use actors::trace::TraceContext;
use opentelemetry::Context;
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState, TracerProvider as _,
};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider, Span, SpanData, SpanProcessor};
use tracing::Metadata;
use tracing::level_filters::LevelFilter;
use tracing_opentelemetry::{OpenTelemetryLayer, OpenTelemetrySpanExt as _};
use tracing_subscriber::filter::{FilterFn, Filtered};
use tracing_subscriber::layer::Layer as _;
use tracing_subscriber::registry;

use super::SPANS;
use super::otlp::SCOPE;
use super::waiting::{Ended, Waiting};

/// Spans that have ended go to those that wait.
#[derive(Debug)]
struct ToWaiting(Arc<Waiting>);

impl SpanProcessor for ToWaiting {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() {
            self.0.push(Ended::Code(Box::new(span)));
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// What makes spans of `tracing` those of OpenTelemetry. A span is only opened where its trace is recorded, so there is
/// nothing left to sample.
pub(super) fn provider(waiting: Arc<Waiting>) -> SdkTracerProvider {
    SdkTracerProvider::builder()
        .with_span_processor(ToWaiting(waiting))
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOn)))
        .build()
}

type SpanLayer = Filtered<OpenTelemetryLayer<registry::Registry, SdkTracer>, FilterFn, registry::Registry>;

/// The layer for them. It takes spans of the target [`SPANS`], so that none of a library's comes in unasked.
pub(super) fn layer(provider: &SdkTracerProvider) -> SpanLayer {
    let ours: FilterFn = FilterFn::new(is_ours);
    tracing_opentelemetry::layer()
        .with_tracer(provider.tracer(SCOPE))
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_level(false)
        .with_tracked_inactivity(false)
        .with_filter(ours.with_max_level_hint(LevelFilter::INFO))
}

/// Whether it is a span that is exported.
pub(super) fn is_ours(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && metadata.target() == SPANS
}

/// Makes a span a part of `parent`; it must not have been entered yet. Nothing happens where spans are not exported.
pub fn child_of(span: &tracing::Span, parent: &TraceContext) {
    let place = SpanContext::new(
        TraceId::from_bytes(parent.trace_id),
        SpanId::from_bytes(parent.span_id),
        TraceFlags::new(parent.flags),
        false,
        TraceState::default(),
    );
    let parent = Context::new().with_remote_span_context(place);
    // It fails for a span that is switched off, which is what it then shall be.
    drop(span.set_parent(parent));
}

/// The place of a span, for what it causes; `None` where it is not exported.
pub fn place_of(span: &tracing::Span) -> Option<TraceContext> {
    let context = span.context();
    let place = context.span().span_context().clone();
    place.is_valid().then(|| TraceContext {
        trace_id: place.trace_id().to_bytes(),
        span_id: place.span_id().to_bytes(),
        flags: place.trace_flags().to_u8(),
    })
}
