//! Sending events to receivers: Standard Webhooks and CloudEvents over the guarded client.

use std::sync::Arc;

use actors::clock::{Clock, Millis};
use actors::outbox::{ATTEMPT_TIMEOUT, Answer, Deliverer, DeliveryRequest, Undelivered};
use actors::webhook::Format;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use crate::egress::{Egress, Fault, Outgoing};
use crate::http_client::retry_after;
use crate::trace_context::{RequestTrace, TRACEPARENT};

mod body;
mod signature;

pub use signature::sign;

/// The event's id, the same for every attempt and every receiver.
pub const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
/// When it was sent, in seconds since 1970.
pub const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
/// `v1,` and the signature; with several secrets one each, separated by spaces.
pub const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// Sends events; the clients of one server share it.
pub struct Webhooks {
    egress: Egress,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Webhooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhooks").finish_non_exhaustive()
    }
}

impl Webhooks {
    /// Sends through `egress`.
    #[must_use]
    pub fn new(egress: Egress, clock: Arc<dyn Clock>) -> Self {
        Self { egress, clock }
    }

    async fn send(&self, request: &DeliveryRequest) -> Result<Answer, Undelivered> {
        let body = Bytes::from(body::of(request).ok_or(Undelivered::Other("not_an_event"))?);
        let headers = self.headers(request, &body, self.clock.now()).ok_or(Undelivered::Other("unsigned"))?;
        let method = Method::from_bytes(request.method.as_bytes()).map_err(|_| Undelivered::Other("invalid_method"))?;
        let outgoing = Outgoing { workspace: request.entity.workspace, method, url: &request.url, headers, body };
        let reply = self.egress.send(outgoing, ATTEMPT_TIMEOUT).await.map_err(|fault| {
            tracing::debug!(event = %request.id, %fault, "an event could not be sent");
            undelivered(&fault)
        })?;
        let error = match reply.status.as_u16() {
            200..=299 => None,
            300..=399 => Some("unexpected_redirect"),
            _ => Some("unexpected_status"),
        };
        let wanted = retry_after(&reply.headers, Some(self.clock.now())).filter(|_| error.is_some());
        Ok(Answer {
            status: reply.status.as_u16(),
            error,
            retry_after_millis: wanted.map(|wanted| u64::try_from(wanted.as_millis()).unwrap_or(u64::MAX)),
        })
    }

    /// `None` if there is no secret to sign it: then it is not sent.
    fn headers(&self, request: &DeliveryRequest, body: &[u8], now: Millis) -> Option<HeaderMap> {
        let content_type = match request.format {
            Format::Standard => "application/json",
            Format::CloudEvents => "application/cloudevents+json",
        };
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        for (name, value) in &request.headers {
            // They were checked on input.
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                headers.insert(name, value);
            }
        }
        if let Some(trace) = request.trace {
            headers.insert(TRACEPARENT, RequestTrace::from(trace).traceparent());
        }
        let id = request.id.to_string();
        let seconds = now.0 / 1_000;
        let signatures: Option<Vec<String>> =
            request.secrets.iter().map(|secret| sign(secret, &id, seconds, body)).collect();
        let signatures = signatures.filter(|signatures| !signatures.is_empty())?.join(" ");
        headers.insert(WEBHOOK_ID, HeaderValue::try_from(id).ok()?);
        headers.insert(WEBHOOK_TIMESTAMP, HeaderValue::from(seconds));
        headers.insert(WEBHOOK_SIGNATURE, HeaderValue::try_from(signatures).ok()?);
        Some(headers)
    }
}

impl Deliverer for Webhooks {
    fn deliver(&self, request: DeliveryRequest) -> BoxFuture<'_, Result<Answer, Undelivered>> {
        Box::pin(async move { self.send(&request).await })
    }
}

/// The delivery's error for a call without an answer.
fn undelivered(fault: &Fault) -> Undelivered {
    match fault {
        Fault::Timeout => Undelivered::Timeout,
        Fault::Broken(_) => Undelivered::BrokenAnswer,
        _ => Undelivered::Other(fault.code()),
    }
}
