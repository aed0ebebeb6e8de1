//! Log lines, metrics and spans of an entity's actor: failed loads, due work that is refused, how late alarms ring, and
//! what the store is.

use std::fmt::Debug;
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::Millis;
use crate::directory::Refusal;
use crate::id::EntityKey;
use crate::node::Node;
use crate::store::StoreError;
use crate::tasks::log_limiter::Line;
use crate::trace::{Span, SpanKind, names};

/// Reports that an entity could not be loaded or reloaded. Damage needs an operator. An unreachable store recovers, and
/// every request may meet it, so those lines are rate-limited.
pub(super) fn not_loaded(node: &Node, entity: EntityKey, error: &StoreError) {
    node.metrics.activations_failed.inc();
    if error.is_transient() {
        if let Some(Line { left_out }) = node.not_loaded.line(Instant::now()) {
            tracing::warn!(?entity, %error, left_out, "could not load an entity");
        }
    } else {
        tracing::error!(?entity, %error, "could not load an entity");
    }
}

/// Adds to the span of a call which store is called, and what for.
pub(super) fn of_store(span: &mut Span, node: &Node, operation: &'static str) {
    if !span.is_recorded() {
        return;
    }
    span.set(names::DB_SYSTEM, node.store.system());
    span.set(names::DB_OPERATION, operation);
    if let Some(cluster) = node.store.cluster() {
        span.set(names::DB_NAMESPACE, cluster.namespace.to_owned());
        span.set(names::CONSISTENCY, cluster.consistency);
    }
}

/// Reports that a command which an entity has sent to itself was refused: no caller learns it. The alarm repeats the
/// command every second, for ever if what it needs is damaged, so the lines are rate-limited.
pub(super) fn not_done<R: Debug>(node: &Node, entity: EntityKey, refusal: &Refusal<R>) {
    match refusal {
        Refusal::Corrupt(_) | Refusal::TooLarge(_) => {
            if let Some(Line { left_out }) = node.never_done.line(Instant::now()) {
                tracing::error!(?entity, %refusal, left_out, "due work of an entity cannot be done; retrying");
            }
        }
        _ => {
            if let Some(Line { left_out }) = node.not_done.line(Instant::now()) {
                tracing::warn!(?entity, %refusal, left_out, "could not do the due work of an entity; retrying");
            }
        }
    }
}

/// The alarm of an entity, due at `due` as far as known, rings now. Returns the span of the work that it causes; which
/// requests that work goes back to is known once it is decided.
pub(super) fn rung(node: &Node, entity: EntityKey, due: Option<Millis>, now: Millis) -> Span {
    let late = due.map_or(0, |at| now.since(at));
    let mut span = node.root_span_ahead(names::alarm(entity.kind), SpanKind::Internal);
    node.metrics.alarm_lateness.observe(Duration::from_millis(late), span.recorded(), || node.now());
    span.set(names::LATE_MS, late);
    span
}
