//! The outbox of one log as data: its cursor, its waiting lanes, and how they change.
//!
//! The log itself is the queue. A receiver that keeps up has no row at all: one number in the entity's state is the
//! first event that was not read. Only a lane that falls behind gets a row with its own cursor, and an entry in
//! the list of resume times.

use std::collections::BTreeMap;

use bytes::Bytes;
use minicbor::{Decode, Encode};

use super::lane::{ATTEMPT_BYTES, Delivery, End, Lane, LaneRow, Receiver, TAG_BYTES};
use crate::clock::Millis;
use crate::codec;
use crate::id::{Address, EntityKey, EventId, Kind};
use crate::machine::{Need, ReadSet, Undecided};
use crate::store::{KeyHash, RowWrite, ViewWrite};
use crate::tables::{DELIVERIES, ENDED, ENDED_BY_ENDPOINT, FAILED, LANE_TIMES, LANES, PENDING, RETRIED};

mod retried;
mod retry_requests;

pub use retried::{RETRIES_KEPT, Retried};
use retry_requests::once_more;

/// After this time events are searched whose sending was lost with its process. Long enough for the usual receiver to
/// answer, so that nothing is sent twice without need.
pub const LOST_SEND_CHECK_DELAY_MILLIS: u64 = 2_000;
/// After this time the lanes are read again whose resume times cannot be read.
const DAMAGED_MILLIS: u64 = 600_000;
/// How long ended deliveries are shown and kept: at least 30 days. A later note of the same log removes older ones.
pub const KEPT_MILLIS: u64 = 30 * 24 * 60 * 60 * 1000;
/// Expired deliveries that one settlement removes; more than it usually adds.
const TRIMMED_AT_ONCE: usize = 16;

/// The outbox in an entity's state; `None` if everything is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Outbox {
    /// The first event that was not read; `None`: all were read.
    #[n(0)]
    pub from: Option<u64>,
    /// When the outbox must be checked, at the latest.
    #[n(1)]
    pub check_at: Millis,
    /// How many lanes wait.
    #[n(2)]
    pub lanes: u64,
}

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
pub fn ended_key(at: Millis, entity: EntityKey, key: DeliveryKey) -> [u8; ENDED_KEY_BYTES] {
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
pub const ENDED_KEY_BYTES: usize = 26;

/// The inverse of [`ended_key`].
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

/// The prefix of a [`pending_key`]: zeros for events that were not read, an endpoint's id for its lanes, ones for
/// the lanes of others.
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
pub fn pending_key(pending: PendingKey) -> Bytes {
    let mut out = Vec::with_capacity(53);
    out.extend_from_slice(&pending_prefix(pending.lane));
    out.push(pending.entity.kind as u8);
    out.extend_from_slice(&pending.entity.id.0);
    if let Some(lane) = pending.lane {
        out.extend_from_slice(&lane.key());
    }
    out.into()
}

/// The inverse of [`pending_key`].
#[must_use]
pub fn parse_pending_key(workspace: Address, key: &[u8]) -> Option<PendingKey> {
    let (_, rest) = key.split_at_checked(16)?;
    let (kind, rest) = rest.split_first()?;
    let (id, lane) = rest.split_at_checked(10)?;
    let entity = EntityKey { workspace, kind: Kind::from_byte(*kind)?, id: Address(id.try_into().ok()?) };
    let lane = if lane.is_empty() { None } else { Some(Lane::parse(lane)?) };
    Some(PendingKey { entity, lane })
}

/// The outbox after new events from `first` on that have receivers, and its list entry; `None` if nothing changes.
#[must_use]
pub fn opened(entity: EntityKey, outbox: Option<&Outbox>, first: u64, now: Millis) -> Option<(Outbox, ViewWrite)> {
    if outbox.is_some_and(|outbox| outbox.from.is_some()) {
        return None;
    }
    let check_at = now.plus(LOST_SEND_CHECK_DELAY_MILLIS);
    let check_at = outbox.map_or(check_at, |outbox| outbox.check_at.min(check_at));
    let after = Outbox { from: Some(first), check_at, lanes: outbox.map_or(0, |outbox| outbox.lanes) };
    Some((after, entry(entity, None, true)))
}

fn entry(entity: EntityKey, lane: Option<Lane>, there: bool) -> ViewWrite {
    let value = there.then(Bytes::new);
    ViewWrite { view: PENDING, key: pending_key(PendingKey { entity, lane }), value }
}

/// The progress of a lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneChange {
    /// The lane.
    pub lane: Lane,
    /// Its row as it was read; `None`: it had none.
    pub before: Option<LaneRow>,
    /// Its new row; `None`: nothing waits any more.
    pub after: Option<LaneRow>,
}

impl LaneChange {
    /// Its new row if another writer has added newer events to it meanwhile.
    fn with_newer(&self, stored: &LaneRow, now: Millis) -> Option<LaneRow> {
        let Some(after) = &self.after else {
            let next = self.before.as_ref().map_or(stored.next, |before| before.until + 1);
            return (next <= stored.until).then(|| LaneRow::new(next, stored.until, now));
        };
        Some(LaneRow { until: stored.until.max(after.until), ..after.clone() })
    }

    /// About how many bytes it adds to a commit.
    pub(crate) fn weight(&self) -> usize {
        let of_row = |after: &LaneRow| {
            let urls = [after.was.as_ref().and_then(|was| was.url.as_ref()), after.url.as_ref()];
            let urls: usize = urls.into_iter().flatten().map(String::len).sum();
            after.retries_weight() + ATTEMPT_BYTES * after.attempts.len() + urls
        };
        600 + self.after.as_ref().map_or(0, of_row)
    }
}

/// The log that an outbox sends from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// Its entity.
    pub entity: EntityKey,
    /// When it began.
    pub began: Millis,
    /// Its newest event.
    pub last_seq: u64,
}

/// A note of progress: which events were sent, and which are to be sent later.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settlement {
    /// Events before this one were read; those of them that could not be sent are in `lanes`.
    pub unread_from: u64,
    /// Lanes that have moved.
    pub lanes: Vec<LaneChange>,
    /// Deliveries that have ended.
    pub ended: Vec<(DeliveryKey, Delivery)>,
}

/// The writes of a decision about an outbox.
#[derive(Debug, Default)]
pub struct Written {
    /// The lane of the requested delivery.
    pub again: Option<LaneRow>,
    /// The outbox now; the outer `None`: as before.
    pub outbox: Option<Option<Outbox>>,
    /// Keyed rows.
    pub rows: Vec<RowWrite>,
    /// List entries.
    pub views: Vec<ViewWrite>,
}

/// An outbox that is being changed.
struct Change<'a> {
    entity: EntityKey,
    reads: &'a ReadSet,
    written: Written,
    lanes: u64,
    /// Resume times that are removed, and those that are added.
    removed_times: Vec<Bytes>,
    earliest: Option<Millis>,
}

impl Settlement {
    /// The reads that its decision needs.
    pub(crate) fn needs(&self) -> Vec<Need> {
        let rows = self.lanes.iter().map(|moved| Need::Row(LANES, moved.lane.key()));
        rows.chain((!self.lanes.is_empty()).then_some(Need::First(LANE_TIMES, self.lanes.len() + 1))).collect()
    }

    /// About how many bytes it adds to a commit.
    pub(crate) fn weight(&self) -> usize {
        let ended: usize = self.ended.iter().map(|(_, delivery)| delivery.weight()).sum();
        200 + ended + self.lanes.iter().map(LaneChange::weight).sum::<usize>()
    }
}

/// Notes the sent events; the rest waits. If another writer has moved a lane meanwhile, the lane keeps that position
/// and takes only newer events: sending twice is allowed, losing is not. If the other writer has only added newer
/// events, or a retry was requested, the lane continues from here, and no attempt is forgotten.
///
/// # Errors
///
/// [`Undecided`] rows.
pub fn settle(
    log: &Log,
    outbox: Option<&Outbox>,
    settlement: &Settlement,
    now: Millis,
    reads: &ReadSet,
) -> Result<Written, Undecided> {
    let entity = log.entity;
    let mut change = Change::of(entity, outbox, reads);
    let mut ended: BTreeMap<_, _> = settlement.ended.iter().map(|(key, delivery)| (*key, delivery)).collect();
    for moved in &settlement.lanes {
        change.settle_lane(moved, &mut ended, now)?;
    }
    for (key, delivery) in ended {
        change.end(key, delivery);
    }
    // Before that nothing can have expired, so that this costs no read.
    if log.began.plus(KEPT_MILLIS) < now {
        change.trim(now)?;
    }
    let before = outbox.and_then(|outbox| outbox.from);
    let from = before.map(|from| from.max(settlement.unread_from)).filter(|from| *from <= log.last_seq);
    if before.is_some() && from.is_none() {
        change.written.views.push(entry(entity, None, false));
    }
    change.done(outbox, from, now)
}

/// Retries a delivery now: an ended one once more, a waiting one without further waiting. `None`: this log has no such
/// delivery. `asked_with` is the request's idempotency key.
///
/// # Errors
///
/// [`Undecided`] rows.
pub fn again(
    entity: EntityKey,
    outbox: Option<&Outbox>,
    key: DeliveryKey,
    receiver: Receiver,
    asked_with: Option<KeyHash>,
    now: Millis,
    reads: &ReadSet,
) -> Result<Option<Written>, Undecided> {
    let mut change = Change::of(entity, outbox, reads);
    let ended = reads.stored::<Delivery>(DELIVERIES, key.row())?;
    let (lane, after) = if let Some(ended) = ended {
        change.forget(key, &ended);
        once_more(key.seq, &ended, now)
    } else {
        // The two lanes on which it may wait; the usual one may be damaged if it is not there.
        let [again, usual] = [Some(key.seq), None].map(|again| Lane { receiver, again });
        let waits = |row: &LaneRow| (row.next..=row.until).contains(&key.seq);
        let (lane, waiting) = match change.lane(again)? {
            Some(row) => (again, Some(row)),
            None => (usual, change.lane(usual)?.filter(waits)),
        };
        let Some(row) = waiting else { return Ok(None) };
        (lane, row.with_request(key.seq, now))
    };
    let before = change.lane(lane)?;
    let mut answer = after.clone();
    if after.next != key.seq {
        // Those were made for an event that waits before it.
        answer.attempts.clear();
    }
    if let Some(asked_with) = asked_with {
        let before = match reads.stored(RETRIED, key.row()) {
            // Damaged answers to earlier requests must not prevent this one.
            Err(Undecided::Corrupt(_)) => None,
            before => before?,
        };
        let retried = Retried::with(asked_with, answer.clone(), before);
        let value = Some(codec::encode(&retried));
        change.written.rows.push(RowWrite { table: RETRIED, key: key.row(), value });
    }
    change.written.again = Some(answer);
    change.move_lane(&LaneChange { lane, before, after: Some(after) }, now)?;
    change.done(outbox, outbox.and_then(|outbox| outbox.from), now).map(Some)
}

impl<'a> Change<'a> {
    fn of(entity: EntityKey, outbox: Option<&Outbox>, reads: &'a ReadSet) -> Self {
        let lanes = outbox.map_or(0, |outbox| outbox.lanes);
        Self { entity, reads, written: Written::default(), lanes, removed_times: Vec::new(), earliest: None }
    }

    fn lane(&self, lane: Lane) -> Result<Option<LaneRow>, Undecided> {
        self.reads.stored(LANES, lane.key())
    }

    /// The row of a lane that moves. A damaged one counts as it was before, and is replaced, so that notes go on.
    fn moving(&self, moved: &LaneChange) -> Result<Option<LaneRow>, Undecided> {
        match self.lane(moved.lane) {
            Err(Undecided::Corrupt(_)) => Ok(moved.before.clone()),
            stored => stored,
        }
    }

    fn move_lane(&mut self, moved: &LaneChange, now: Millis) -> Result<(), Undecided> {
        let stored = self.moving(moved)?;
        let grew = |stored: &LaneRow| moved.before.as_ref().is_some_and(|before| before.has_grown_to(stored));
        let after = match (&stored, &moved.after) {
            (stored, after) if *stored == moved.before => after.clone(),
            (Some(stored), _) if grew(stored) => moved.with_newer(stored, now),
            (Some(stored), Some(after)) => Some(LaneRow { until: stored.until.max(after.until), ..stored.clone() }),
            (Some(stored), None) => Some(stored.clone()),
            (None, after) => after.clone(),
        };
        self.put_lane(moved.lane, stored.as_ref(), after.as_ref());
        Ok(())
    }

    fn put_lane(&mut self, lane: Lane, stored: Option<&LaneRow>, after: Option<&LaneRow>) {
        if after == stored {
            return;
        }
        let rows = &mut self.written.rows;
        if let Some(stored) = stored {
            let key = lane.time_key(stored.next_at);
            self.removed_times.push(key.clone());
            rows.push(RowWrite { table: LANE_TIMES, key, value: None });
        }
        if let Some(after) = after {
            let key = lane.time_key(after.next_at);
            rows.push(RowWrite { table: LANE_TIMES, key, value: Some(Bytes::new()) });
            self.earliest = Some(self.earliest.map_or(after.next_at, |earliest| earliest.min(after.next_at)));
        }
        let value = after.map(codec::encode);
        rows.push(RowWrite { table: LANES, key: lane.key(), value });
        match (stored.is_some(), after.is_some()) {
            (false, true) => self.lanes += 1,
            (true, false) => self.lanes = self.lanes.saturating_sub(1),
            _ => return,
        }
        self.written.views.push(entry(self.entity, Some(lane), after.is_some()));
    }

    fn list(&mut self, key: DeliveryKey, delivery: &Delivery, there: bool) {
        let id = ended_key(delivery.at, self.entity, key);
        let mut put = |view, prefix: &[u8]| {
            let key = [prefix, &id].concat().into();
            self.written.views.push(ViewWrite { view, key, value: there.then(Bytes::new) });
        };
        put(ENDED, &[]);
        if let Some(endpoint) = delivery.receiver.endpoint() {
            put(ENDED_BY_ENDPOINT, &endpoint.to_bytes());
        }
        if delivery.end == End::Failed {
            put(FAILED, &[]);
        }
    }

    fn end(&mut self, key: DeliveryKey, delivery: &Delivery) {
        self.list(key, delivery, true);
        let value = Some(codec::encode(delivery));
        self.written.rows.push(RowWrite { table: DELIVERIES, key: key.row(), value });
    }

    fn forget(&mut self, key: DeliveryKey, delivery: &Delivery) {
        self.list(key, delivery, false);
        self.written.rows.push(RowWrite { table: DELIVERIES, key: key.row(), value: None });
    }

    /// Removes the oldest expired deliveries, so that the history of a log stays bounded.
    fn trim(&mut self, now: Millis) -> Result<(), Undecided> {
        let old = Millis(now.0.saturating_sub(KEPT_MILLIS));
        let oldest = match self.reads.first(DELIVERIES, TRIMMED_AT_ONCE) {
            // Damaged ones, and those after them, are kept.
            Err(Undecided::Corrupt(_)) => return Ok(()),
            oldest => oldest?,
        };
        let mut past = Vec::new();
        for (key, value) in oldest {
            let (Some(key), Ok(delivery)) = (DeliveryKey::parse(key), codec::decode::<Delivery>(value)) else {
                continue;
            };
            if delivery.at >= old {
                break;
            }
            past.push((key, delivery));
        }
        for (key, delivery) in past {
            self.forget(key, &delivery);
            self.written.rows.push(RowWrite { table: RETRIED, key: key.row(), value: None });
        }
        Ok(())
    }

    fn done(mut self, before: Option<&Outbox>, from: Option<u64>, now: Millis) -> Result<Written, Undecided> {
        let mut check_at = from.map(|_| now.plus(LOST_SEND_CHECK_DELAY_MILLIS));
        if self.lanes > 0 {
            // Of the earlier times, the first that is kept.
            let kept = match self.reads.first(LANE_TIMES, self.removed_times.len() + 1) {
                Err(Undecided::Corrupt(_)) => Some(now.plus(DAMAGED_MILLIS)),
                times => {
                    let kept = times?.into_iter().map(|(key, _)| key).find(|key| !self.removed_times.contains(key));
                    kept.and_then(|key| Lane::parse_time_key(key)).map(|(at, _)| at)
                }
            };
            check_at = [check_at, kept, self.earliest].into_iter().flatten().min();
        }
        let after = check_at.map(|check_at| Outbox { from, check_at, lanes: self.lanes });
        self.written.outbox = (after.as_ref() != before).then_some(after);
        Ok(self.written)
    }
}

#[cfg(test)]
mod tests;
