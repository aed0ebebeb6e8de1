//! Pieces of code as spans: from `tracing` through `tracing-opentelemetry`.
//!
//! The program itself opens none: it reports stages, which cost a third (decision 0026). A developer who measures where
//! time goes within a stage adds them: a function with `#[tracing::instrument(target = "tertulia::span")]`, or a span
//! of that target ([`SPANS`](super::SPANS)), is exported as a part of the stage that it runs in, with all spans below
//! it; see `docs/TELEMETRY.md`.

use std::sync::Arc;
use std::time::Duration;

use actors::trace::current;
use opentelemetry::Context;
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState, TracerProvider as _,
};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider, Span, SpanData, SpanProcessor};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Metadata, Subscriber};
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::filter::{FilterFn, Filtered};
use tracing_subscriber::layer::{Context as Layered, Layer};
use tracing_subscriber::registry::{self, LookupSpan};

use super::SPANS;
use super::otlp::SCOPE;
use super::span_queue::{Ended, SpanQueue};

/// Puts ended spans into the queue.
#[derive(Debug)]
struct ToWaiting(Arc<SpanQueue>);

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

/// Converts spans of `tracing` to those of OpenTelemetry. A span within a recorded stage is recorded, and so are its
/// children; a span outside of stages is not.
pub(super) fn provider(waiting: Arc<SpanQueue>) -> SdkTracerProvider {
    SdkTracerProvider::builder()
        .with_span_processor(ToWaiting(waiting))
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOff)))
        .build()
}

type Exported = OpenTelemetryLayer<registry::Registry, SdkTracer>;
type SpanLayer = Filtered<Placed<Exported>, FilterFn, registry::Registry>;

/// The layer for them. It takes only spans of the target [`SPANS`], and none of libraries.
pub(super) fn layer(provider: &SdkTracerProvider) -> SpanLayer {
    let ours: FilterFn = FilterFn::new(is_ours);
    let exported = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer(SCOPE))
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_level(false)
        .with_tracked_inactivity(false);
    Placed(exported).with_filter(ours.with_max_level_hint(LevelFilter::INFO))
}

/// A layer that gives an outermost span its parent: the stage that the running code works for.
pub(super) struct Placed<L>(L);

impl<S, L> Layer<S> for Placed<L>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    L: Layer<S>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, ctx: Layered<'_, S>) {
        let is_first = attributes.is_contextual() && ctx.lookup_current().is_none();
        let _around = is_first.then(|| stage().attach());
        self.0.on_new_span(attributes, id, ctx);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, ctx: Layered<'_, S>) {
        self.0.on_record(id, values, ctx);
    }

    fn on_follows_from(&self, id: &Id, follows: &Id, ctx: Layered<'_, S>) {
        self.0.on_follows_from(id, follows, ctx);
    }

    fn on_enter(&self, id: &Id, ctx: Layered<'_, S>) {
        self.0.on_enter(id, ctx);
    }

    fn on_exit(&self, id: &Id, ctx: Layered<'_, S>) {
        self.0.on_exit(id, ctx);
    }

    fn on_close(&self, id: Id, ctx: Layered<'_, S>) {
        self.0.on_close(id, ctx);
    }
}

/// The stage that the running code works for, as an OpenTelemetry context; an empty one if there is none.
fn stage() -> Context {
    let Some(stage) = current::get() else { return Context::new() };
    let trace = TraceId::from_bytes(stage.trace_id);
    let span = SpanId::from_bytes(stage.span_id);
    let flags = TraceFlags::new(stage.flags);
    Context::new().with_remote_span_context(SpanContext::new(trace, span, flags, false, TraceState::default()))
}

/// Whether the span is exported.
pub(super) fn is_ours(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && metadata.target() == SPANS
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use actors::trace::{SAMPLED, TraceContext};
    use tracing_subscriber::layer::SubscriberExt as _;
    use tracing_subscriber::registry;

    use super::*;
    use crate::config::otel::Batching;

    const STAGE: TraceContext = TraceContext { trace_id: [1; 16], span_id: [2; 8], flags: SAMPLED };

    #[tracing::instrument(target = "tertulia::span", skip_all)]
    fn judge(_secret: &str) {
        drop(tracing::info_span!(target: SPANS, "one line").entered());
        drop(tracing::info_span!(target: "library", "inside").entered());
    }

    #[tracing::instrument(target = "tertulia::span", skip_all)]
    async fn judged() {
        tokio::task::yield_now().await;
        judge("secret");
    }

    /// The spans that `work` exports.
    async fn exported(work: impl Future<Output = ()>) -> Vec<SpanData> {
        let batching = Batching { queue: 8, batch: 8, delay: Duration::ZERO, timeout: Duration::ZERO };
        let waiting = Arc::new(SpanQueue::new(batching));
        let provider = provider(Arc::clone(&waiting));
        let _all = tracing::subscriber::set_default(registry().with(layer(&provider)));
        work.await;
        waiting.take().into_iter().filter_map(of_code).collect()
    }

    #[tokio::test]
    async fn a_piece_of_code_is_exported_as_a_part_of_its_stage() {
        let spans = exported(current::within(Some(STAGE), judged())).await;
        let [line, inner, outer] = &spans[..] else { panic!("three of ours: {spans:?}") };
        assert_eq!((&*outer.name, outer.parent_span_id), ("judged", SpanId::from_bytes([2; 8])));
        assert_eq!((&*inner.name, inner.parent_span_id), ("judge", outer.span_context.span_id()));
        assert_eq!((&*line.name, line.parent_span_id), ("one line", inner.span_context.span_id()));
        assert!(spans.iter().all(|span| span.span_context.trace_id() == TraceId::from_bytes([1; 16])));
        assert!(spans.iter().all(|span| span.attributes.iter().all(|told| !told.value.as_str().contains("secret"))));
    }

    #[tokio::test]
    async fn a_piece_of_code_without_a_recorded_stage_is_not_exported() {
        assert_eq!(exported(judged()).await, []);
        let unrecorded = TraceContext { flags: 0, ..STAGE };
        assert_eq!(exported(current::within(Some(unrecorded), judged())).await, []);
    }

    fn of_code(ended: Ended) -> Option<SpanData> {
        match ended {
            Ended::Code(span) => Some(*span),
            Ended::Stage(_) => None,
        }
    }
}
