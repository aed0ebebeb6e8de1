//! The filters of a list of deliveries, and the parts of the list that may have matches.

use actors::id::{EndpointId, EventId};
use actors::outbox::DeliveryKey;
use actors::outbox::keys::pending_prefix;
use actors::outbox::lane::{Lane, Receiver};
use actors::outbox::pending::{DeliveryState, Status};
use actors::store::Order;

use super::view::STATUSES;
use crate::http::query::Query;
use crate::problem::Problem;

/// A part of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Ended deliveries, by the time of their event.
    Ended,
    /// Pending deliveries of the logs whose entries have this prefix.
    Pending(Vec<u8>),
    /// Pending deliveries on lanes, to all receivers.
    Lanes,
    /// Pending deliveries of one event.
    Event(EventId),
}

/// The filter of a list of deliveries.
pub(super) struct Filter {
    status: Option<Status>,
    /// The inner `None`: an id that no endpoint has.
    endpoint: Option<Option<EndpointId>>,
    /// The inner `None`: an id that no event has.
    event: Option<Option<EventId>>,
}

impl Filter {
    pub(super) fn of(query: &Query) -> Result<Self, Problem> {
        Ok(Self {
            status: query.choice("status", &STATUSES)?,
            endpoint: query.given("endpointId").map(EndpointId::parse),
            event: query.given("eventId").map(EventId::parse),
        })
    }

    pub(super) fn status(&self) -> Option<Status> {
        self.status
    }

    pub(super) fn endpoint(&self) -> Option<EndpointId> {
        self.endpoint.flatten()
    }

    pub(super) fn event(&self) -> Option<EventId> {
        self.event.flatten()
    }

    pub(super) fn matches(&self, delivery: &DeliveryState) -> bool {
        self.status.is_none_or(|status| status == delivery.status)
            && self.endpoint.is_none_or(|endpoint| endpoint.is_some() && endpoint == delivery.receiver.endpoint())
            && self.event.is_none_or(|event| event == Some(delivery.event))
    }

    /// Whether a delivery may be to the wanted endpoint, by its key.
    pub(super) fn may_match(&self, key: DeliveryKey) -> bool {
        let is_to = |endpoint| key.tag == Receiver::Endpoint(endpoint).tag();
        self.endpoint.is_none_or(|endpoint| endpoint.is_some_and(is_to))
    }

    /// The parts of the list that may have matches, in this order.
    pub(super) fn parts(&self, order: Order) -> Vec<Part> {
        // An id that does not exist.
        if self.endpoint == Some(None) || self.event == Some(None) {
            return Vec::new();
        }
        let mut parts = Vec::new();
        if self.status != Some(Status::Pending) {
            parts.push(Part::Ended);
        }
        if matches!(self.status, None | Some(Status::Pending)) {
            match (self.event(), self.endpoint()) {
                (Some(event), _) => parts.push(Part::Event(event)),
                (None, Some(endpoint)) => {
                    let lanes = [None, Some(Lane::to(Receiver::Endpoint(endpoint)))];
                    parts.extend(lanes.map(|lane| Part::Pending(pending_prefix(lane).to_vec())));
                }
                (None, None) => parts.extend([Part::Pending(pending_prefix(None).to_vec()), Part::Lanes]),
            }
        }
        if order == Order::Desc {
            parts.reverse();
        }
        parts
    }
}
