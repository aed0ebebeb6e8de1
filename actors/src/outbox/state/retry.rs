//! Retries of deliveries on request.

use super::retry_requests::once_more;
use super::{Change, LaneChange, Outbox, Retried, Written};
use crate::clock::Millis;
use crate::codec;
use crate::id::EntityKey;
use crate::machine::{ReadSet, Undecided};
use crate::outbox::keys::DeliveryKey;
use crate::outbox::lane::{Delivery, Lane, LaneRow, Receiver};
use crate::store::{KeyHash, RowWrite};
use crate::tables::{DELIVERIES, RETRIED};

/// A request to retry a delivery now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// The delivery.
    pub key: DeliveryKey,
    /// Its receiver.
    pub receiver: Receiver,
    /// The idempotency key of the request.
    pub requested_with: Option<KeyHash>,
    /// When the request is decided.
    pub now: Millis,
}

/// Retries a delivery now: an ended one once more, a waiting one without further waiting. `None`: this log has no such
/// delivery.
///
/// # Errors
///
/// [`Undecided`] rows.
pub fn retry(
    entity: EntityKey,
    outbox: Option<&Outbox>,
    retry: Retry,
    reads: &ReadSet,
) -> Result<Option<Written>, Undecided> {
    let Retry { key, receiver, requested_with, now } = retry;
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
    if let Some(requested_with) = requested_with {
        let before = match reads.stored(RETRIED, key.row()) {
            // Damaged answers to earlier requests must not prevent this one.
            Err(Undecided::Corrupt(_)) => None,
            before => before?,
        };
        let retried = Retried::with(requested_with, answer.clone(), before);
        change.written.rows.push(RowWrite::put(RETRIED, key.row(), codec::encode(&retried)));
    }
    change.written.again = Some(answer);
    change.move_lane(&LaneChange { lane, before, after: Some(after) }, now)?;
    change.done(outbox, outbox.and_then(|outbox| outbox.from), now).map(Some)
}
