//! Commands decided together, with their waiting times and the span of their decision.

use std::collections::VecDeque;
use std::time::Instant;

use crate::directory::{Envelope, Refusal};
use crate::id::{EntityKey, Kind};
use crate::limits;
use crate::machine::Machine;
use crate::metrics::Label as _;
use crate::node::Node;
use crate::trace::{Span, SpanKind, TraceContext, names};

/// The commands of one commit, oldest first.
pub(crate) struct Batch<M: Machine> {
    /// From here until they are answered. It stands first, since it ends before what it is a part of.
    pub(crate) span: Span,
    pub(crate) envelopes: Vec<Envelope<M>>,
}

impl<M: Machine> Batch<M> {
    /// Takes from the queue what goes into one commit.
    pub(crate) fn take(node: &Node, entity: EntityKey, queue: &mut VecDeque<Envelope<M>>) -> Self {
        let mut envelopes = Vec::with_capacity(queue.len().min(limits::BATCH_COMMANDS));
        let mut bytes = 0;
        while let Some(next) = queue.front() {
            bytes += next.weight();
            if envelopes.len() == limits::BATCH_COMMANDS || (bytes > limits::BATCH_BYTES && !envelopes.is_empty()) {
                break;
            }
            envelopes.extend(queue.pop_front());
        }
        let span = process_span(node, entity, &envelopes);
        node.metrics.batch_commands.record(envelopes.len() as u64);
        waited(node, entity, &mut envelopes, &span);
        Self { span, envelopes }
    }

    /// Gives those behind the first `decided` back to the queue, whose first they are.
    pub(crate) fn give_back(&mut self, decided: usize, queue: &mut VecDeque<Envelope<M>>) {
        for envelope in self.envelopes.drain(decided..).rev() {
            queue.push_front(envelope);
        }
    }

    /// Answers all commands with the same refusal.
    pub(crate) fn refuse(mut self, refusal: &Refusal<M>) {
        let word = match refusal {
            Refusal::Unknown(_) => "indeterminate",
            Refusal::TooLarge(_) => "too_large",
            _ => "unavailable",
        };
        self.span.fail(word);
        drop(self.span);
        for mut envelope in self.envelopes {
            envelope.span.fail(word);
            envelope.answer(Err(refusal.clone()));
        }
    }
}

/// The span of a batch: a part of the one recorded command in it, or with several a trace of its own that is linked to
/// all of them. Where none is recorded and stages are listed, the same goes for those that are not.
fn process_span<M: Machine>(node: &Node, entity: EntityKey, envelopes: &[Envelope<M>]) -> Span {
    let contexts = || envelopes.iter().filter_map(Envelope::context);
    let mut causes: Vec<TraceContext> = contexts().filter(|context| node.traces().records(Some(*context))).collect();
    if causes.is_empty() && node.traces().underway().is_some() {
        causes = contexts().collect();
    }
    let mut span = match causes[..] {
        [] => return Span::default(),
        [only] => node.span(names::process(entity.kind), SpanKind::Consumer, Some(only)),
        _ => node.root_span(names::process(entity.kind), SpanKind::Consumer, causes),
    };
    span.set(names::MESSAGING_SYSTEM, names::SYSTEM);
    span.set(names::MESSAGING_DESTINATION, Kind::VALUES[entity.kind.index()]);
    span.set(names::MESSAGING_OPERATION, "process");
    span.set(names::MESSAGING_OPERATION_TYPE, "process");
    if envelopes.len() > 1 {
        span.set(names::BATCH_COUNT, envelopes.len());
    }
    span
}

/// Tells how long each command waited. One that comes back after a conflict was told of before.
fn waited<M: Machine>(node: &Node, entity: EntityKey, envelopes: &mut [Envelope<M>], span: &Span) {
    let now = Instant::now();
    let together = span.context();
    for envelope in envelopes {
        let Some(admitted) = envelope.admitted.take() else { continue };
        let listed = envelope.wait.take();
        let mut wait = listed.unwrap_or_else(|| node.span(names::WAIT, SpanKind::Internal, envelope.trace));
        let took = now.saturating_duration_since(admitted);
        node.metrics.mailbox_wait.of(entity.kind).observe(took, wait.recorded(), || node.now());
        wait.began(admitted);
        // Where the batch is not a part of this command's trace, this is the way to it.
        if let (Some(batch), Some(own)) = (together, envelope.trace)
            && batch.trace_id != own.trace_id
        {
            wait.link(batch);
        }
    }
}
