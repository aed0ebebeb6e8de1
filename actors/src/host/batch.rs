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
    /// The span from here until they are answered. It is the first field, since it must end before its parent.
    pub(crate) span: Span,
    pub(crate) envelopes: Vec<Envelope<M>>,
    /// When they were taken from the queue.
    pub(crate) taken: Instant,
}

impl<M: Machine> Batch<M> {
    /// Takes the commands of one commit from the queue.
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
        let taken = Instant::now();
        node.metrics.batch_commands.record(envelopes.len() as u64);
        waited(node, entity, &mut envelopes, &span, taken);
        Self { span, envelopes, taken }
    }

    /// The work of its alarm goes back to these earlier requests: the alarm's span is linked to them. If that decides
    /// that the alarm is recorded, so is the batch.
    pub(crate) fn link_to_causes(&mut self, node: &Node, entity: EntityKey, causes: &[TraceContext]) {
        let alarm = self.envelopes.iter_mut().find(|envelope| envelope.is_internal());
        let Some(alarm) = alarm.filter(|_| !causes.is_empty()) else { return };
        let before = alarm.span.recorded();
        causes.iter().for_each(|cause| alarm.span.link(*cause));
        let Some(now_recorded) = alarm.span.recorded().filter(|_| before.is_none()) else { return };
        if self.span.recorded().is_some() {
            self.span.link(now_recorded);
        } else {
            self.span = process_span(node, entity, &self.envelopes);
            self.span.began(self.taken);
        }
    }

    /// Returns the commands after the first `decided` to the front of the queue.
    pub(crate) fn give_back(&mut self, decided: usize, queue: &mut VecDeque<Envelope<M>>) {
        for envelope in self.envelopes.drain(decided..).rev() {
            queue.push_front(envelope);
        }
    }

    /// Answers all commands with the same refusal.
    pub(crate) fn refuse(mut self, refusal: &Refusal<M::Rejection>) {
        let word = match refusal {
            Refusal::Unknown(_) => "indeterminate",
            Refusal::TooLarge(_) => "too_large",
            Refusal::Corrupt(_) => "corrupt",
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

/// The span of a batch: a child of the one recorded command in it, or, with several, the root of a trace linked to all
/// of them. If none is recorded but the task list is on, the same with unrecorded ones.
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

/// Records how long each command waited. A command retried after a conflict was recorded before.
fn waited<M: Machine>(node: &Node, entity: EntityKey, envelopes: &mut [Envelope<M>], span: &Span, now: Instant) {
    let together = span.context();
    for envelope in envelopes {
        let Some(admitted) = envelope.admitted.take() else { continue };
        let listed = envelope.wait.take();
        let mut wait = listed.unwrap_or_else(|| node.span(names::WAIT, SpanKind::Internal, envelope.trace));
        let took = now.saturating_duration_since(admitted);
        node.metrics.mailbox_wait.of(entity.kind).observe(took, wait.recorded(), || node.now());
        wait.began(admitted);
        // If the batch is not a part of this command's trace, this link leads to it.
        if let (Some(batch), Some(of_command)) = (together, envelope.trace)
            && batch.trace_id != of_command.trace_id
        {
            wait.link(batch);
        }
    }
}
