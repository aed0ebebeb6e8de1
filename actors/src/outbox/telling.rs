//! What is told of an attempt: its span, and the trace that its log lines and its request name.

use super::lane::Receiver;
use super::port::{Parcel, Receipt};
use super::receivers::Subject;
use super::server::Server;
use super::state::{DeliveryKey, ended_key};
use crate::id::DeliveryId;
use crate::node::Node;
use crate::trace::{Span, SpanKind, TraceContext, names};

/// An attempt that is being told of; the span ends when it is dropped.
pub(super) struct Telling {
    span: Span,
    /// Its place in a trace, recorded or not.
    pub(super) place: TraceContext,
}

impl Telling {
    /// The `nth` attempt to send `parcel` to `receiver` begins.
    pub(super) fn begin(node: &Node, parcel: &Parcel, subject: &Subject, receiver: Receiver, nth: u32) -> Self {
        // A trace of its own, since it may be made days after what it tells of.
        let mut span = node.root_span(names::DELIVER, SpanKind::Client, parcel.trace.into_iter().collect());
        if span.is_recorded() {
            span.name(|| format!("{} {}", names::DELIVER, subject.event));
            span.set(names::EVENT_ID, parcel.id.to_string());
            let key = DeliveryKey::new(parcel.id.number, receiver);
            span.set(names::DELIVERY_ID, DeliveryId(ended_key(subject.at, parcel.entity, key)).to_string());
            span.set(names::DELIVERY_ATTEMPT, nth);
            if nth > 1 {
                span.set(names::HTTP_RESENT, nth - 1);
            }
            span.set(names::RECEIVER, receiver.word());
            if let Some(endpoint) = receiver.endpoint() {
                span.set(names::ENDPOINT_ID, endpoint.to_string());
            }
            span.set(names::HTTP_METHOD, parcel.method.clone());
            let server = Server::of(&parcel.url);
            span.set(names::URL_SCHEME, server.scheme.to_owned());
            span.set(names::SERVER, server.host.to_owned());
            span.set(names::SERVER_PORT, server.port);
        }
        let place = span.context_or(parcel.trace).unwrap_or_else(|| TraceContext::unrecorded(&node.entropy));
        Self { span, place }
    }

    /// This came of it.
    pub(super) fn end(mut self, receipt: &Receipt) {
        if let Some(status) = receipt.status {
            self.span.set(names::HTTP_STATUS, u32::from(status));
        }
        if let Some(error) = receipt.error.as_ref().filter(|_| self.span.is_recorded()) {
            self.span.fail(error.clone());
        }
    }
}
