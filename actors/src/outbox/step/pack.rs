//! Packs an event: reads it and its destination now, since settings may have changed while it waited for a permit. Only
//! an event that is about to be sent is held in memory.

use std::sync::Arc;

use super::{FoundEvent, HandedOver, Intent, KnownEvent, Route, Step, StepOutcome, Unsent, hooks_of};
use crate::clock::Millis;
use crate::id::EventId;
use crate::machine::Record;
use crate::outbox::lane::{Lane, Receiver};
use crate::outbox::port::{DeliveryRequest, Sends};
use crate::outbox::receivers::{
    Configured, DISABLED, Destination, Hooks, Subject, Unsendable, destination, is_still_due, is_unsubscribed,
    other_receivers, url_of,
};
use crate::outbox::settings;
use crate::store::{Order, SeqRange, StoreError};

/// An event, packed or not.
pub(super) enum Packed {
    /// It is ready to be sent.
    Ready(Box<Parcel>),
    /// It has no destination, or must be handed over first.
    NotSent(StepOutcome),
}

/// An event that is ready to be sent.
pub(super) struct Parcel {
    pub(super) request: DeliveryRequest,
    pub(super) subject: Subject,
}

/// Packs an event for the receiver of a lane.
///
/// # Errors
///
/// `StoreError` if the store, or the stored data, cannot be read.
pub(super) async fn pack<M: Sends>(
    route: &Route,
    lane: Lane,
    mut hooks: Option<Arc<Hooks>>,
    known: KnownEvent,
    intent: Intent,
) -> Result<Packed, StoreError> {
    let node = &route.node;
    let receiver = lane.receiver;
    let Some((record, subject)) = event::<M>(route, known.seq).await? else {
        return Err(StoreError::Corrupt("an event is missing from the log".into()));
    };
    // The message itself may name the receiver's URL; then its channel's secret signs too.
    if let (None, Some(message)) = (&hooks, subject.message) {
        hooks = match M::hooks(&record) {
            Some(of_record) => Some(Arc::new(of_record)),
            None => hooks_of::<M>(node, route.entity, message).await?,
        };
    }
    let settings = settings::read(node, route.entity, &route.scope).await?;
    let configured = settings.configured();
    let to = choose_destination(receiver, &subject, &configured, hooks.as_deref(), intent, node.clock.now());
    let url = to.as_ref().ok().map(|to| to.url.as_str());
    let event = FoundEvent { seq: known.seq, at: record.at };
    let handed_over = match known.is_handed_over {
        false => to_hand_over(lane, url, event, &subject, &configured, hooks.as_deref()),
        true => Vec::new(),
    };
    let to = match to {
        Ok(_) if !handed_over.is_empty() => {
            return Ok(Packed::NotSent(StepOutcome { step: Step::HandsOver, handed_over }));
        }
        Ok(destination) => destination,
        Err(why) => {
            let url = url_of(receiver, &configured, hooks.as_deref()).map(str::to_owned);
            let unsent = Unsent { happened: subject.at, event: subject.event, url };
            return Ok(Packed::NotSent(StepOutcome { step: Step::NotSent(why, Some(unsent)), handed_over }));
        }
    };
    let request = DeliveryRequest {
        workspace: Arc::clone(&route.workspace),
        entity: route.entity,
        scope: Arc::clone(&route.scope),
        id: EventId::new(record.at, route.entity.id, record.seq),
        trace: record.trace,
        event: M::happened(node, route.entity, record).await?,
        url: to.url,
        method: to.method,
        headers: to.headers,
        secrets: to.secrets,
        format: to.format,
    };
    Ok(Packed::Ready(Box::new(Parcel { request, subject })))
}

/// Where an event goes now. If its own retry was requested, it goes to its endpoint whatever that subscribes to.
fn choose_destination(
    receiver: Receiver,
    subject: &Subject,
    configured: &Configured<'_>,
    hooks: Option<&Hooks>,
    intent: Intent,
    now: Millis,
) -> Result<Destination, Unsendable> {
    let destination = destination(receiver, subject, configured, hooks, now)?;
    match intent {
        // It is dropped, unless it was tried: the search for events finds that out.
        Intent::Scheduled if is_unsubscribed(receiver, subject, configured) => Err(Unsendable::Deleted),
        Intent::Scheduled if !is_still_due(receiver, subject, configured) => Err(DISABLED),
        Intent::Scheduled | Intent::Requested => Ok(destination),
    }
}

/// Whether the event's destination `to` is unchanged since it happened.
fn is_as_before(receiver: Receiver, to: Option<&str>, subject: &Subject, configured: &Configured<'_>) -> bool {
    to.is_some() && !configured.may_have_changed(receiver, subject.at)
}

/// The other receivers of an event that a lane now sends to `to`, if anywhere. There are none if nothing has changed
/// since the event, if it is sent again, or if it is for the URL of a message.
pub(super) fn to_hand_over(
    lane: Lane,
    to: Option<&str>,
    event: FoundEvent,
    subject: &Subject,
    configured: &Configured<'_>,
    hooks: Option<&Hooks>,
) -> Vec<HandedOver> {
    let is_as_before = is_as_before(lane.receiver, to, subject, configured);
    if lane.again.is_some() || is_as_before || matches!(lane.receiver, Receiver::Message(_) | Receiver::Callback(_)) {
        return Vec::new();
    }
    let others = other_receivers(lane.receiver, to, subject, configured, hooks);
    others.into_iter().map(|(receiver, url)| HandedOver { receiver, url: url.to_owned(), event }).collect()
}

async fn event<M: Sends>(route: &Route, seq: u64) -> Result<Option<(Arc<Record<M::Event>>, Subject)>, StoreError> {
    let records = route.node.events::<M>(route.entity, SeqRange::one(seq), Order::Asc, 1).await?;
    let record = records.into_iter().next();
    Ok(record.and_then(|record| M::subject(&record).map(|subject| (Arc::new(record), subject))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Address, EndpointId};
    use crate::webhook::{Format, WebhookEndpoint};

    /// An endpoint for the one type of event that does not happen.
    #[test]
    fn only_a_requested_retry_goes_to_an_endpoint_that_has_unsubscribed() {
        let now = Millis(1_000_000);
        let id = EndpointId::new(Millis(1), Address([9; 10]));
        let endpoints = [WebhookEndpoint {
            id,
            url: "https://example.com/".to_owned(),
            events: vec!["message.deleted".to_owned()],
            channel: None,
            format: Format::default(),
            disabled: None,
            secret: "whsec_1".to_owned(),
            retired_secret: None,
            since: id.at,
            updated_at: None,
            routed_at: None,
            retired_earlier: None,
        }];
        let configured = Configured { channel_id: None, channel: None, endpoints: &endpoints, skew_millis: 0, now };
        let subject = Subject { event: "message.created", at: now, message: None, is_outcome: false };
        let to = |intent| choose_destination(Receiver::Endpoint(id), &subject, &configured, None, intent, now);
        assert_eq!(to(Intent::Scheduled), Err(Unsendable::Deleted));
        assert_eq!(to(Intent::Requested).map(|to| to.url), Ok("https://example.com/".to_owned()));
    }
}
