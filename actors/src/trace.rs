//! Traces: the context that travels with a message, and the stages of its life as spans.
//!
//! A [`TraceContext`] is 25 bytes of data: it travels in commands, is stored with records and goes out with calls, and
//! holds nothing open. A [`Span`] is a stage that is being timed; when it is dropped it goes to the [`Tracer`], which
//! the front door implements. If the trace is not sampled there is no span, only an empty shell that costs nothing: the
//! choice is made once, at the door. See `docs/TELEMETRY.md` for the list of spans.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use minicbor::{Decode, Encode};

use crate::clock::Entropy;

pub mod current;
pub mod names;
mod span;
pub mod underway;

pub use span::Span;
use underway::{Stage, Underway};

/// The bit of [`TraceContext::flags`] that says the trace is recorded.
pub const SAMPLED: u8 = 0x01;

/// Bytes of a text in a span; a longer one is cut. Clients and models choose some of them. A long one would fill the
/// memory of the queue of spans, and a receiver would refuse the batch that it is in.
const MAX_TEXT_BYTES: usize = 256;

/// W3C trace context of the request that caused something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct TraceContext {
    /// The trace; never all zero.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub trace_id: [u8; 16],
    /// The span that caused it; never all zero.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub span_id: [u8; 8],
    /// Trace flags; bit 0: sampled.
    #[n(2)]
    pub flags: u8,
}

impl TraceContext {
    /// A new, unrecorded trace context for work without a cause: calls carry it, and log lines name it.
    #[must_use]
    pub fn unrecorded(entropy: &Entropy) -> Self {
        let [trace_id, span] = entropy.draw_two();
        Self { trace_id, span_id: span_id(&span), flags: 0 }
    }

    /// Whether the trace is recorded.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// This context with the sampled flag.
    #[must_use]
    pub fn sampled(self) -> Self {
        Self { flags: self.flags | SAMPLED, ..self }
    }
}

/// The kind of a span, as in OpenTelemetry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    /// Within the process.
    Internal,
    /// It serves a request.
    Server,
    /// It makes a request.
    Client,
    /// It processes a queued message.
    Consumer,
}

/// An attribute's value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Text.
    Text(Cow<'static, str>),
    /// A whole number.
    Integer(i64),
    /// A number.
    Float(f64),
    /// Yes or no.
    Truth(bool),
    /// A list of words.
    Words(Vec<&'static str>),
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Value {
    /// A text of more than 256 bytes is cut.
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(bounded(text)))
    }
}

/// The text, or the beginning of one that is too long.
fn bounded(mut text: String) -> String {
    if text.len() > MAX_TEXT_BYTES {
        text.truncate(text.floor_char_boundary(MAX_TEXT_BYTES));
        text.shrink_to_fit();
    }
    text
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Integer(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Self {
        Self::Integer(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Integer(number.into())
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Float(number)
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Self::Truth(truth)
    }
}

/// A span that has ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Finished {
    /// The operation, one of a few words: never an id.
    pub name: Cow<'static, str>,
    /// Its kind.
    pub kind: SpanKind,
    /// Its own trace context.
    pub context: TraceContext,
    /// Its parent span.
    pub parent: Option<[u8; 8]>,
    /// Its other causes.
    pub links: Vec<TraceContext>,
    /// When it began.
    pub began: Instant,
    /// When it ended.
    pub ended: Instant,
    /// Its attributes.
    pub attributes: Vec<(&'static str, Value)>,
    /// Why it failed: one of a few words, as `error.type`.
    pub error: Option<Cow<'static, str>>,
}

/// The port to the exporter of spans. It must be quick and must not block.
pub trait Tracer: Send + Sync + 'static {
    /// Takes a span. If there is no room it is dropped and counted.
    fn record(&self, span: Finished);

    /// Whether a trace that begins within the node, without a request, is recorded.
    fn samples(&self, trace_id: [u8; 16]) -> bool;
}

/// The spans of a node.
#[derive(Clone, Default)]
pub struct Traces {
    tracer: Option<Arc<dyn Tracer>>,
    underway: Option<Arc<Underway>>,
}

impl fmt::Debug for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let recorded = self.tracer.is_some();
        let listed = self.underway.is_some();
        f.debug_struct("Traces").field("recorded", &recorded).field("listed", &listed).finish()
    }
}

impl Traces {
    /// Spans that go to `tracer`.
    #[must_use]
    pub fn to(tracer: Arc<dyn Tracer>) -> Self {
        Self { tracer: Some(tracer), underway: None }
    }

    /// Lists every stage in `underway` too, until it has ended.
    #[must_use]
    pub fn listed(self, underway: Option<Arc<Underway>>) -> Self {
        Self { underway, ..self }
    }

    /// The running stages, if they are listed.
    #[must_use]
    pub fn underway(&self) -> Option<&Arc<Underway>> {
        self.underway.as_ref()
    }

    /// Records a span that its caller has timed.
    pub fn record(&self, span: Finished) {
        if let Some(tracer) = &self.tracer {
            tracer.record(span);
        }
    }

    /// Whether any stage is recorded or listed.
    #[must_use]
    pub(crate) fn is_active(&self) -> bool {
        self.tracer.is_some() || self.underway.is_some()
    }

    /// Whether spans of this trace are recorded.
    #[must_use]
    pub fn records(&self, context: Option<TraceContext>) -> bool {
        self.tracer.is_some() && context.as_ref().is_some_and(TraceContext::is_sampled)
    }

    /// A child span of `parent`; empty if it is neither recorded nor listed.
    pub fn child(&self, entropy: &Entropy, name: &'static str, kind: SpanKind, parent: Option<TraceContext>) -> Span {
        let recorded = self.records(parent);
        if !recorded && self.underway.is_none() {
            return Span::default();
        }
        let span_id = entropy.draw_distinct();
        let context = match parent {
            Some(parent) => TraceContext { span_id, ..parent },
            None => TraceContext { span_id, ..TraceContext::unrecorded(entropy) },
        };
        self.open(name, kind, recorded, context, parent.map(|parent| parent.span_id), Vec::new())
    }

    /// The root span of a new trace, linked to `causes`: for the work of a batch or a delivery, now or hours later. It
    /// is recorded if one of them is; if there is none, the tracer decides.
    pub fn root(&self, entropy: &Entropy, name: &'static str, kind: SpanKind, mut causes: Vec<TraceContext>) -> Span {
        if !self.is_active() {
            return Span::default();
        }
        let cause = causes.first().copied();
        causes.retain(TraceContext::is_sampled);
        let trace_id = entropy.draw();
        let recorded = self.tracer.as_ref().is_some_and(|tracer| match cause {
            Some(_) => !causes.is_empty(),
            None => tracer.samples(trace_id),
        });
        if !recorded && self.underway.is_none() {
            return Span::default();
        }
        let span_id = entropy.draw_distinct();
        let context = match cause {
            // Its own id would lead to nothing.
            Some(cause) if !recorded => TraceContext { span_id, flags: 0, ..cause },
            _ => TraceContext { trace_id, span_id, flags: if recorded { SAMPLED } else { 0 } },
        };
        self.open(name, kind, recorded, context, None, causes)
    }

    /// The root span of a new trace whose causes are found only while it runs: for an alarm. It is recorded if the
    /// tracer decides so, and otherwise as soon as it is [linked](Span::link) to a recorded cause.
    pub(crate) fn root_ahead(&self, entropy: &Entropy, name: &'static str, kind: SpanKind) -> Span {
        if !self.is_active() {
            return Span::default();
        }
        let trace_id = entropy.draw();
        let is_chosen = self.tracer.as_ref().is_some_and(|tracer| tracer.samples(trace_id));
        let context =
            TraceContext { trace_id, span_id: entropy.draw_distinct(), flags: if is_chosen { SAMPLED } else { 0 } };
        self.open(name, kind, true, context, None, Vec::new())
    }

    fn open(
        &self,
        name: &'static str,
        kind: SpanKind,
        recorded: bool,
        context: TraceContext,
        parent: Option<[u8; 8]>,
        links: Vec<TraceContext>,
    ) -> Span {
        let began = Instant::now();
        let doing = self.underway.as_ref().map(|underway| {
            underway.begin(Stage { name: name.to_owned(), context, parent, began, attributes: Vec::new() })
        });
        let name = Cow::Borrowed(name);
        let attributes = Vec::new();
        let error = None;
        let finished = Finished { name, kind, context, parent, links, began, ended: began, attributes, error };
        let tracer = self.tracer.as_ref().filter(|_| recorded).map(Arc::clone);
        Span::open(tracer, doing, finished)
    }
}

/// A span's id from random bytes.
fn span_id(random: &[u8; 16]) -> [u8; 8] {
    let mut id = [0; 8];
    id.copy_from_slice(&random[..8]);
    id
}

#[cfg(any(test, feature = "test-support"))]
pub mod recording_tracer;

#[cfg(test)]
mod tests {
    use super::recording_tracer::RecordingTracer;
    use super::*;

    const ASKED: TraceContext = TraceContext { trace_id: [1; 16], span_id: [2; 8], flags: SAMPLED };
    const UNASKED: TraceContext = TraceContext { flags: 0, ..ASKED };

    fn traces() -> (Traces, Arc<RecordingTracer>, Entropy) {
        let kept = Arc::new(RecordingTracer::default());
        (Traces::to(kept.clone()), kept, Entropy::seeded([3; 32]))
    }

    #[test]
    fn a_stage_is_recorded_when_it_ends_as_a_part_of_its_parent() {
        let (traces, kept, entropy) = traces();
        let mut span = traces.child(&entropy, "wait", SpanKind::Internal, Some(ASKED));
        span.set("size", 3_usize);
        let context = span.context().unwrap();
        assert!(kept.spans().is_empty());
        drop(span);
        let [span] = &kept.spans()[..] else { panic!("one span") };
        assert_eq!((span.context, span.parent), (context, Some(ASKED.span_id)));
        assert_eq!((span.context.trace_id, &span.attributes[..]), (ASKED.trace_id, &[("size", Value::Integer(3))][..]));
        assert_ne!(span.context.span_id, ASKED.span_id);
    }

    #[test]
    fn a_long_text_in_a_span_is_cut_between_two_characters() {
        let (traces, kept, entropy) = traces();
        let mut span = traces.child(&entropy, "chat", SpanKind::Client, Some(ASKED));
        let long = format!("x{}", "é".repeat(MAX_TEXT_BYTES));
        span.set("model", long.clone());
        span.name(|| long.clone());
        drop(span);
        let [span] = &kept.spans()[..] else { panic!("one span") };
        let cut = &long[..MAX_TEXT_BYTES - 1];
        assert_eq!((&*span.name, &span.attributes[..]), (cut, &[("model", cut.to_owned().into())][..]));
        assert_eq!(Value::from(long[..=MAX_TEXT_BYTES].to_owned()), cut.to_owned().into());
        assert_eq!(bounded(cut.to_owned()), cut);
    }

    #[test]
    fn an_unsampled_trace_makes_no_span_and_passes_its_context_on() {
        let (traces, kept, entropy) = traces();
        for parent in [None, Some(UNASKED)] {
            let span = traces.child(&entropy, "wait", SpanKind::Internal, parent);
            assert!(!span.is_recorded() && !traces.records(parent));
            assert_eq!(span.context_or(parent), parent);
        }
        assert!(!Traces::default().child(&entropy, "wait", SpanKind::Internal, Some(ASKED)).is_recorded());
        drop(traces.root(&entropy, "process", SpanKind::Consumer, vec![UNASKED]));
        traces.child(&entropy, "wait", SpanKind::Internal, Some(ASKED)).forget();
        assert!(kept.spans().is_empty());
    }

    #[test]
    fn a_stage_ahead_of_its_causes_is_recorded_once_one_of_them_is() {
        let kept = Arc::new(RecordingTracer::declining());
        let entropy = Entropy::seeded([3; 32]);
        let traces = Traces::to(kept.clone());
        let mut span = traces.root_ahead(&entropy, "alarm", SpanKind::Internal);
        let ahead = span.context().unwrap();
        assert_eq!((ahead.is_sampled(), span.recorded()), (false, None));
        for cause in [UNASKED, ASKED, ASKED] {
            span.link(cause);
            assert_eq!(span.recorded(), Some(ahead.sampled()).filter(|_| cause == ASKED));
        }
        drop(span);
        let mut unlinked = traces.root_ahead(&entropy, "alarm", SpanKind::Internal);
        unlinked.link(UNASKED);
        drop(unlinked);
        let [span] = &kept.spans()[..] else { panic!("one span") };
        assert_eq!((span.context, span.parent, &span.links[..]), (ahead.sampled(), None, &[ASKED][..]));
        let chosen = Traces::to(Arc::new(RecordingTracer::default())).root_ahead(&entropy, "alarm", SpanKind::Internal);
        assert!(chosen.recorded().is_some(), "the tracer chose it");
        assert!(!Traces::default().root_ahead(&entropy, "alarm", SpanKind::Internal).is_recorded());
    }

    #[test]
    fn the_list_of_stages_shows_each_until_its_end_recorded_or_not() {
        let (traces, kept, entropy) = traces();
        let underway = Arc::new(Underway::default());
        let traces = traces.listed(Some(Arc::clone(&underway)));
        let turn_span = traces.child(&entropy, "turn", SpanKind::Internal, Some(UNASKED));
        let mut call_span = traces.child(&entropy, "call", SpanKind::Client, turn_span.context());
        call_span.set("size", 3_usize);
        call_span.name(|| "call it".to_owned());
        let alone = traces.root(&entropy, "deliver", SpanKind::Client, vec![UNASKED]);
        let nameless = traces.child(&entropy, "load", SpanKind::Internal, None);
        let (stages, all) = underway.oldest(3);
        let names: Vec<&str> = stages.iter().map(|stage| stage.name.as_str()).collect();
        assert_eq!((&names[..], all), (&["turn", "call it", "deliver"][..], 4));
        let [turn, call, deliver] = &stages[..] else { panic!("three stages") };
        assert_eq!((turn.parent, call.parent), (Some(UNASKED.span_id), Some(turn.context.span_id)));
        assert_eq!(&call.attributes[..], &[("size", Value::Integer(3))][..]);
        assert!(!call.context.is_sampled() && !deliver.context.is_sampled() && deliver.parent.is_none());
        assert_eq!(deliver.context.trace_id, UNASKED.trace_id, "the receiver still gets the trace");
        drop((turn_span, call_span, alone));
        nameless.forget();
        assert_eq!(underway.oldest(3).1, 0);
        assert!(kept.spans().is_empty(), "nobody asked for spans of these");
        drop(traces.child(&entropy, "turn", SpanKind::Internal, Some(ASKED)));
        assert_eq!((kept.spans().len(), underway.oldest(3).1), (1, 0));
    }

    #[test]
    fn a_trace_of_its_own_is_linked_to_its_sampled_causes() {
        let (traces, kept, entropy) = traces();
        let mut span = traces.root(&entropy, "deliver", SpanKind::Client, vec![UNASKED, ASKED]);
        span.link(UNASKED);
        span.fail("timeout");
        drop(span);
        drop(traces.root(&entropy, "alarm", SpanKind::Internal, Vec::new()));
        let [caused, uncaused] = &kept.spans()[..] else { panic!("two spans") };
        assert_eq!((&caused.links[..], caused.parent), (&[ASKED][..], None));
        assert_eq!(caused.error.as_deref(), Some("timeout"));
        assert!(uncaused.links.is_empty() && uncaused.context.trace_id != caused.context.trace_id);
    }
}
