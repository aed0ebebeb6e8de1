//! A delivery as clients see it.

use actors::id::{DeliveryId, EndpointId, EventId};
use actors::outbox::Attempt;
use actors::outbox::pending::{DeliveryState, Status};
use serde::Serialize;

use crate::wire::json_view::AsText;
use crate::wire::time::Time;

/// The statuses of deliveries, by name.
pub(super) const STATUSES: [(&str, Status); 3] =
    [("pending", Status::Pending), ("delivered", Status::Delivered), ("failed", Status::Failed)];

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeliveryView {
    id: AsText<DeliveryId>,
    endpoint_id: Option<AsText<EndpointId>>,
    /// The kind of receiver.
    receiver: &'static str,
    event_id: AsText<EventId>,
    event_type: String,
    url: String,
    status: &'static str,
    attempts: Vec<AttemptView>,
    next_attempt_at: Option<Time>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AttemptView {
    at: Time,
    status_code: Option<u16>,
    error: Option<String>,
    duration_ms: u64,
}

impl DeliveryView {
    pub(super) fn of(delivery: DeliveryState) -> Self {
        let status = STATUSES.iter().find(|(_, status)| *status == delivery.status);
        let attempt = |attempt: Attempt| AttemptView {
            at: Time(attempt.at),
            status_code: attempt.status,
            error: attempt.error,
            duration_ms: attempt.duration_millis,
        };
        Self {
            id: AsText(delivery.id),
            endpoint_id: delivery.receiver.endpoint().map(AsText),
            receiver: delivery.receiver.word(),
            event_id: AsText(delivery.event),
            event_type: delivery.event_type,
            url: delivery.url,
            status: status.map_or("pending", |(word, _)| word),
            attempts: delivery.attempts.into_iter().map(attempt).collect(),
            next_attempt_at: delivery.next_at.map(Time),
        }
    }
}
