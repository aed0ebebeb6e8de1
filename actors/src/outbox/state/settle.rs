//! Notes of progress: which events were sent, and what waits.

use std::collections::BTreeMap;

use super::{Change, LaneChange, Log, Outbox, Settlement, Written};
use crate::clock::Millis;
use crate::codec;
use crate::machine::{Need, ReadSet, Undecided};
use crate::outbox::keys::{DeliveryKey, PendingKey, pending_key};
use crate::outbox::lane::Delivery;
use crate::store::{RowWrite, ViewWrite};
use crate::tables::{DELIVERIES, LANE_TIMES, LANES, PENDING, RETRIED};

/// How long ended deliveries are shown and kept: at least 30 days. A later note of the same log removes older ones.
pub const KEPT_MILLIS: u64 = 30 * 24 * 60 * 60 * 1000;
/// Expired deliveries that one settlement removes; more than it usually adds.
pub(super) const TRIMMED_AT_ONCE: usize = 16;

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
        let entry = pending_key(PendingKey { entity, lane: None });
        change.written.views.push(ViewWrite::remove(PENDING, entry));
    }
    change.done(outbox, from, now)
}

impl Change<'_> {
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
            self.written.rows.push(RowWrite::delete(RETRIED, key.row()));
        }
        Ok(())
    }
}
