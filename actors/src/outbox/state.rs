//! The outbox of one log as data: its cursor, its waiting lanes, and how they change.
//!
//! The log itself is the queue. A receiver that keeps up has no row at all: one number in the entity's state is the
//! first event that was not read. Only a lane that falls behind gets a row with its own cursor, and an entry in
//! the list of resume times.

use bytes::Bytes;
use minicbor::{Decode, Encode};

use super::keys::{DeliveryKey, PendingKey, ended_lists, pending_key};
use super::lane::{ATTEMPT_BYTES, Delivery, Lane, LaneRow};
use crate::clock::Millis;
use crate::codec;
use crate::id::EntityKey;
use crate::machine::{ReadSet, Undecided};
use crate::store::{RowWrite, ViewWrite};
use crate::tables::{DELIVERIES, LANE_TIMES, LANES, PENDING};

mod retried;
mod retry;
mod retry_requests;
mod settle;

pub(crate) use retried::RETRIES_KEPT;
pub use retried::Retried;
pub use retry::{Retry, retry};
pub use settle::{KEPT_MILLIS, settle};

/// After this time events are searched whose sending was lost with its process. Long enough for the usual receiver to
/// answer, so that nothing is sent twice without need.
pub(crate) const LOST_SEND_CHECK_DELAY_MILLIS: u64 = 2_000;
/// After this time the lanes are read again whose resume times cannot be read.
const DAMAGED_MILLIS: u64 = 600_000;

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

/// The outbox after new events from `first` on that have receivers, and its list entry; `None` if nothing changes.
#[must_use]
pub fn opened(entity: EntityKey, outbox: Option<&Outbox>, first: u64, now: Millis) -> Option<(Outbox, ViewWrite)> {
    if outbox.is_some_and(|outbox| outbox.from.is_some()) {
        return None;
    }
    let check_at = now.plus(LOST_SEND_CHECK_DELAY_MILLIS);
    let check_at = outbox.map_or(check_at, |outbox| outbox.check_at.min(check_at));
    let after = Outbox { from: Some(first), check_at, lanes: outbox.map_or(0, |outbox| outbox.lanes) };
    Some((after, ViewWrite::add(PENDING, pending_key(PendingKey { entity, lane: None }))))
}

/// The progress of a lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LaneChange {
    /// The lane.
    pub(crate) lane: Lane,
    /// Its row as it was read; `None`: it had none.
    pub(crate) before: Option<LaneRow>,
    /// Its new row; `None`: nothing waits any more.
    pub(crate) after: Option<LaneRow>,
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
    pub(crate) lanes: Vec<LaneChange>,
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
    /// How many lanes wait.
    lanes: u64,
    /// Keys of the resume times that are removed.
    removed_times: Vec<Bytes>,
    /// The earliest resume time that is added.
    earliest: Option<Millis>,
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
            rows.push(RowWrite::delete(LANE_TIMES, key));
        }
        if let Some(after) = after {
            rows.push(RowWrite::put(LANE_TIMES, lane.time_key(after.next_at), Bytes::new()));
            self.earliest = Some(self.earliest.map_or(after.next_at, |earliest| earliest.min(after.next_at)));
        }
        rows.push(match after {
            Some(after) => RowWrite::put(LANES, lane.key(), codec::encode(after)),
            None => RowWrite::delete(LANES, lane.key()),
        });
        let entry = pending_key(PendingKey { entity: self.entity, lane: Some(lane) });
        match (stored.is_some(), after.is_some()) {
            (false, true) => {
                self.lanes += 1;
                self.written.views.push(ViewWrite::add(PENDING, entry));
            }
            (true, false) => {
                self.lanes = self.lanes.saturating_sub(1);
                self.written.views.push(ViewWrite::remove(PENDING, entry));
            }
            _ => {}
        }
    }

    /// Stores a delivery that has ended, and lists it.
    fn end(&mut self, key: DeliveryKey, delivery: &Delivery) {
        let lists = ended_lists(self.entity, key, delivery);
        self.written.views.extend(lists.map(|(view, key)| ViewWrite::add(view, key)));
        self.written.rows.push(RowWrite::put(DELIVERIES, key.row(), codec::encode(delivery)));
    }

    /// Removes a delivery that had ended, also from the lists.
    fn forget(&mut self, key: DeliveryKey, delivery: &Delivery) {
        let lists = ended_lists(self.entity, key, delivery);
        self.written.views.extend(lists.map(|(view, key)| ViewWrite::remove(view, key)));
        self.written.rows.push(RowWrite::delete(DELIVERIES, key.row()));
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
