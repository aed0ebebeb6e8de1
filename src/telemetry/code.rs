//! Pieces of code as spans: from `tracing` through `tracing-opentelemetry`.
//!
//! The program opens none by itself: all that it tells of is a stage, which costs a third (decision 0026). This is the
//! way for whoever must know where the time goes within a stage: a span of the target [`SPANS`](super::SPANS), made a
//! part of the stage with [`child_of`], is exported beside it, with all that is opened below it.

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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;
    use crate::config::otel::Batching;

    #[test]
    fn a_piece_of_code_is_exported_as_a_part_of_its_stage_and_so_is_what_is_opened_below_it() {
        let batching = Batching { queue: 8, batch: 8, delay: Duration::ZERO, timeout: Duration::ZERO };
        let waiting = Arc::new(Waiting::new(batching));
        let provider = provider(Arc::clone(&waiting));
        let stage = TraceContext { trace_id: [1; 16], span_id: [2; 8], flags: 1 };
        tracing::subscriber::with_default(registry().with(layer(&provider)), || {
            let piece = tracing::info_span!(target: SPANS, "parse");
            child_of(&piece, &stage);
            piece.in_scope(|| drop(tracing::info_span!(target: SPANS, "one line").entered()));
            drop(tracing::info_span!(target: "library", "inside").entered());
        });
        let spans: Vec<SpanData> = waiting.take().into_iter().filter_map(of_code).collect();
        let [inner, piece] = &spans[..] else { panic!("two of ours: {spans:?}") };
        assert_eq!((&*piece.name, piece.parent_span_id), ("parse", SpanId::from_bytes([2; 8])));
        assert_eq!((&*inner.name, inner.parent_span_id), ("one line", piece.span_context.span_id()));
        assert!(spans.iter().all(|span| span.span_context.trace_id() == TraceId::from_bytes([1; 16])));
    }

    fn of_code(ended: Ended) -> Option<SpanData> {
        match ended {
            Ended::Code(span) => Some(*span),
            Ended::Stage(_) => None,
        }
    }
}
