//! The keys of deliveries and of their lists.

use bytes::Bytes;

use super::lane::{Delivery, End, Lane, Receiver, TAG_BYTES};
use crate::clock::Millis;
use crate::id::{Address, EntityKey, EventId, Kind};
use crate::store::View;
use crate::tables::{ENDED, ENDED_BY_ENDPOINT, FAILED};

/// The key of the delivery of an event to a receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryKey {
    /// The event.
    pub seq: u64,
    /// The receiver.
    pub tag: [u8; TAG_BYTES],
}

impl DeliveryKey {
    /// The delivery of an event to a receiver.
    #[must_use]
    pub fn new(seq: u64, receiver: Receiver) -> Self {
        Self { seq, tag: receiver.tag() }
    }

    /// Its key among the rows of an entity.
    #[must_use]
    pub fn row(self) -> Bytes {
        [&self.seq.to_be_bytes()[..], &self.tag].concat().into()
    }

    /// The key prefix of all deliveries of an event.
    pub(crate) fn of_event(seq: u64) -> [u8; 8] {
        seq.to_be_bytes()
    }

    pub(crate) fn parse(key: &[u8]) -> Option<Self> {
        let (seq, tag) = key.split_at_checked(8)?;
        Some(Self { seq: u64::from_be_bytes(seq.try_into().ok()?), tag: tag.try_into().ok()? })
    }
}

/// The key of a workspace's list of ended deliveries: time of the event, entity, event, kind of entity, receiver.
#[must_use]
pub(crate) fn ended_key(at: Millis, entity: EntityKey, key: DeliveryKey) -> [u8; ENDED_KEY_BYTES] {
    let mut out = [0; ENDED_KEY_BYTES];
    out[..6].copy_from_slice(&at.0.to_be_bytes()[2..]);
    out[6..16].copy_from_slice(&entity.id.0);
    out[16..21].copy_from_slice(&key.seq.to_be_bytes()[3..]);
    out[21] = entity.kind as u8;
    out[22..].copy_from_slice(&key.tag);
    out
}

/// A bound below the keys of all deliveries of events at or after a time.
#[must_use]
pub fn ended_from(at: Millis) -> [u8; 6] {
    let mut out = [0; 6];
    out.copy_from_slice(&at.0.to_be_bytes()[2..]);
    out
}

/// The key prefix of all deliveries of an event: its time and its place, as in its id.
#[must_use]
pub fn ended_of(event: EventId) -> [u8; 21] {
    let mut out = [0; 21];
    out[..6].copy_from_slice(&event.at.0.to_be_bytes()[2..]);
    out[6..16].copy_from_slice(&event.entity.0);
    out[16..].copy_from_slice(&event.number.to_be_bytes()[3..]);
    out
}

/// Length of an [`ended_key`].
pub(crate) const ENDED_KEY_BYTES: usize = 26;

/// The parts of the key of an ended delivery.
#[must_use]
pub fn parse_ended_key(workspace: Address, key: &[u8]) -> Option<(Millis, EntityKey, DeliveryKey)> {
    let key: &[u8; ENDED_KEY_BYTES] = key.try_into().ok()?;
    let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
    let mut id = Address::default();
    id.0.copy_from_slice(&key[6..16]);
    let mut tag = [0; TAG_BYTES];
    tag.copy_from_slice(&key[22..]);
    let entity = EntityKey { workspace, kind: Kind::from_byte(key[21])?, id };
    Some((Millis(number(&key[..6])), entity, DeliveryKey { seq: number(&key[16..21]), tag }))
}

/// A pending part of one entity's log: events that were not read yet, or those of a waiting lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingKey {
    /// The entity.
    pub entity: EntityKey,
    /// The lane; `None`: events that were not read yet.
    pub lane: Option<Lane>,
}

/// The prefix of a pending delivery's key: zeros for events that were not read, an endpoint's id for its lanes, ones
/// for the lanes of others.
#[must_use]
pub fn pending_prefix(lane: Option<Lane>) -> [u8; 16] {
    match lane.map(|lane| lane.receiver.endpoint()) {
        None => [0; 16],
        Some(Some(endpoint)) => endpoint.to_bytes(),
        Some(None) => [u8::MAX; 16],
    }
}

/// The key of a workspace's list of pending deliveries.
#[must_use]
pub(crate) fn pending_key(pending: PendingKey) -> Bytes {
    let mut out = Vec::with_capacity(53);
    out.extend_from_slice(&pending_prefix(pending.lane));
    out.push(pending.entity.kind as u8);
    out.extend_from_slice(&pending.entity.id.0);
    if let Some(lane) = pending.lane {
        out.extend_from_slice(&lane.key());
    }
    out.into()
}

/// The parts of the key of a pending delivery.
#[must_use]
pub fn parse_pending_key(workspace: Address, key: &[u8]) -> Option<PendingKey> {
    let (_, rest) = key.split_at_checked(16)?;
    let (kind, rest) = rest.split_first()?;
    let (id, lane) = rest.split_at_checked(10)?;
    let entity = EntityKey { workspace, kind: Kind::from_byte(*kind)?, id: Address(id.try_into().ok()?) };
    let lane = if lane.is_empty() { None } else { Some(Lane::parse(lane)?) };
    Some(PendingKey { entity, lane })
}

/// The lists with a delivery that has ended, and its key in each.
pub(super) fn ended_lists(
    entity: EntityKey,
    key: DeliveryKey,
    delivery: &Delivery,
) -> impl Iterator<Item = (View, Bytes)> + use<> {
    let id = ended_key(delivery.at, entity, key);
    let of_endpoint = delivery.receiver.endpoint().map(|endpoint| [&endpoint.to_bytes()[..], &id].concat().into());
    let failed = (delivery.end == End::Failed).then(|| Bytes::copy_from_slice(&id));
    let all = [(ENDED, Some(Bytes::copy_from_slice(&id))), (ENDED_BY_ENDPOINT, of_endpoint), (FAILED, failed)];
    all.into_iter().filter_map(|(view, key)| Some((view, key?)))
}
