//! Telemetry of attempts: their spans, and the trace context of their log lines and requests. And the log lines about
//! deliveries that are given up, and receivers that fail and recover.

use super::circuit_breaker::HealthChange;
use super::keys::{DeliveryKey, ended_key};
use super::lane::{Delivery, Receiver};
use super::port::{Answer, DeliveryRequest, Undelivered};
use super::receivers::Subject;
use crate::id::{DeliveryId, EntityKey, EventId};
use crate::node::Node;
use crate::trace::{Span, SpanKind, TraceContext, names};
use crate::url::Server;

/// The telemetry of an attempt; its span ends when this is dropped.
pub(super) struct AttemptTelemetry {
    span: Span,
    /// Its trace context, recorded or not.
    pub(super) context: TraceContext,
}

impl AttemptTelemetry {
    /// The `nth` attempt to send `request` to `receiver` begins.
    pub(super) fn begin(
        node: &Node,
        request: &DeliveryRequest,
        subject: &Subject,
        receiver: Receiver,
        nth: u32,
    ) -> Self {
        // A trace of its own, since it may be made days after its event.
        let mut span = node.root_span(names::DELIVER, SpanKind::Client, request.trace.into_iter().collect());
        if span.is_recorded() {
            span.name(|| format!("{} {}", names::DELIVER, subject.event));
            span.set(names::EVENT_ID, request.id.to_string());
            if let Some(message) = request.event.message() {
                span.set(names::MESSAGE_ID, message.to_string());
            }
            let key = DeliveryKey::new(request.id.number, receiver);
            span.set(names::DELIVERY_ID, DeliveryId(ended_key(subject.at, request.entity, key)).to_string());
            span.set(names::DELIVERY_ATTEMPT, nth);
            if nth > 1 {
                span.set(names::HTTP_RESENT, nth - 1);
            }
            span.set(names::RECEIVER, receiver.word());
            if let Some(endpoint) = receiver.endpoint() {
                span.set(names::ENDPOINT_ID, endpoint.to_string());
            }
            span.set(names::HTTP_METHOD, request.method.clone());
            let server = Server::of(&request.url);
            span.set(names::URL_SCHEME, server.scheme.to_owned());
            span.set(names::SERVER, server.host.to_owned());
            span.set(names::SERVER_PORT, server.port);
        }
        let context = span.context_or(request.trace).unwrap_or_else(|| TraceContext::unrecorded(&node.entropy));
        Self { span, context }
    }

    /// Its trace context if it is recorded.
    pub(super) fn recorded(&self) -> Option<TraceContext> {
        self.span.recorded()
    }

    /// The attempt has ended with this outcome.
    pub(super) fn end(mut self, outcome: Result<Answer, Undelivered>) {
        if let Ok(answer) = outcome {
            self.span.set(names::HTTP_STATUS, u32::from(answer.status));
        }
        if let Some(error) = outcome.map_or_else(|why| Some(why.word()), |answer| answer.error) {
            self.span.fail(error);
        }
    }
}

/// Counts and logs given-up deliveries. Consecutive ones to the same receiver share a log line, since a disabled
/// endpoint may end thousands at once. No line contains the URL: it may hold a secret.
pub(super) fn log_given_up(node: &Node, entity: EntityKey, deliveries: &[(DeliveryKey, Delivery)]) {
    node.metrics.webhooks_failed.add(deliveries.len() as u64);
    for together in deliveries.chunk_by(|(_, one), (_, next)| one.receiver == next.receiver) {
        let [(key, first), ..] = together else { continue };
        let last = first.attempts.last();
        tracing::warn!(
            ?entity,
            event = %EventId::new(first.at, entity.id, key.seq),
            delivery = %DeliveryId(ended_key(first.at, entity, *key)),
            receiver = first.receiver.word(),
            endpoint = first.receiver.endpoint().map(tracing::field::display),
            status = last.and_then(|attempt| attempt.status),
            reason = last.and_then(|attempt| attempt.error.as_deref()),
            deliveries = together.len(),
            "a delivery was given up"
        );
    }
}

/// An attempt at `url` has changed whether others send to its receiver. That is rare, however much is sent: a receiver
/// found still down has not changed.
pub(super) fn log_health_change(entity: EntityKey, receiver: Receiver, url: &str, change: HealthChange) {
    macro_rules! line {
        ($words:literal) => {
            tracing::info!(
                ?entity,
                receiver = receiver.word(),
                endpoint = receiver.endpoint().map(tracing::field::display),
                server = %Server::of(url).host,
                $words
            )
        };
    }
    match change {
        HealthChange::Nothing => {}
        HealthChange::Paused => line!("deliveries to a receiver are paused because attempts fail"),
        HealthChange::AnswersAgain => line!("a receiver answers again"),
        HealthChange::Recovered => line!("deliveries to a receiver resumed"),
    }
}
