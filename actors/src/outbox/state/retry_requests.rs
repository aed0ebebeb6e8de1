//! Retries that were requested while the delivery was being sent or noted.

use std::collections::BTreeMap;

use super::{Change, LaneChange};
use crate::clock::Millis;
use crate::machine::Undecided;
use crate::outbox::keys::DeliveryKey;
use crate::outbox::lane::{Delivery, EarlierEnd, Lane, LaneRow, RetryRequest};
use crate::tables::DELIVERIES;

/// The lane on which an ended delivery is sent once more, and its row.
pub(super) fn once_more(seq: u64, ended: &Delivery, now: Millis) -> (Lane, LaneRow) {
    let lane = Lane { receiver: ended.receiver, again: Some(seq) };
    let was = Some(EarlierEnd::of(ended));
    let fresh = LaneRow::new(seq, seq, now).with_request(seq, now);
    (lane, LaneRow { attempts: ended.attempts.clone(), was, ..fresh })
}

impl Change<'_> {
    /// Moves a lane. Retries requested meanwhile count as if they came after this note: an ended delivery is sent once
    /// more with all its attempts, a waiting one does not wait any longer, and no earlier or later event is sent
    /// because of them.
    pub(super) fn settle_lane(
        &mut self,
        moved: &LaneChange,
        ended: &mut BTreeMap<DeliveryKey, &Delivery>,
        now: Millis,
    ) -> Result<(), Undecided> {
        let stored = self.moving(moved)?;
        // A requested event is due; one in flight on another node is checked later.
        let stored = stored.filter(|stored| stored.next_at <= now);
        let stored = stored.filter(|stored| moved.before.as_ref().is_some_and(|before| before.has_requests_in(stored)));
        let Some(stored) = stored else { return self.move_lane(moved, now) };
        let requested = stored.requests_since(moved.before.as_ref());
        let mut after = moved.with_newer(&stored, now);
        let is_here = |requested: &RetryRequest| after.as_ref().is_some_and(|after| after.next <= requested.seq);
        let (here, ended_before): (Vec<_>, Vec<_>) = requested.into_iter().partition(is_here);
        for requested in here {
            after = after.map(|after| after.with_earlier_request(requested, stored.next_at));
        }
        for requested in ended_before {
            let key = DeliveryKey::new(requested.seq, moved.lane.receiver);
            after = self.send_ended_once_more(key, moved.lane, after, ended, now)?;
        }
        self.put_lane(moved.lane, Some(&stored), after.as_ref());
        Ok(())
    }

    /// Sends once more the deliveries of a lane that ended and were requested before the end was noted. Returns the
    /// lane's new row, which differs if they are sent on this lane.
    fn send_ended_once_more(
        &mut self,
        key: DeliveryKey,
        lane: Lane,
        after: Option<LaneRow>,
        ended: &mut BTreeMap<DeliveryKey, &Delivery>,
        now: Millis,
    ) -> Result<Option<LaneRow>, Undecided> {
        let noted = self.reads.stored::<Delivery>(DELIVERIES, key.row())?;
        // It may have been dropped.
        let Some(of_it) = ended.get(&key).copied().or(noted.as_ref()) else { return Ok(after) };
        let (separate, again) = once_more(key.seq, of_it, now);
        let is_itself = separate == lane;
        if !is_itself && self.lane(separate)?.is_some() {
            // It is in flight already.
            return Ok(after);
        }
        ended.remove(&key);
        if let Some(noted) = &noted {
            self.forget(key, noted);
        }
        if is_itself {
            return Ok(Some(again));
        }
        self.put_lane(separate, None, Some(&again));
        Ok(after)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Log, Settlement, Written, settle};
    use super::*;
    use crate::codec;
    use crate::id::{Address, EntityKey, Kind};
    use crate::machine::ReadSet;
    use crate::outbox::lane::{End, Receiver};
    use crate::tables::{LANE_TIMES, LANES};

    const NOW: Millis = Millis(1_000_000);

    fn gave_up(seq: u64) -> (DeliveryKey, Delivery) {
        let event = "message.created".to_owned();
        let url = "https://example.com/".to_owned();
        let receiver = Receiver::Channel;
        let attempts = Vec::new();
        let delivery = Delivery { at: NOW, event, receiver, url, end: End::Failed, attempts };
        (DeliveryKey::new(seq, receiver), delivery)
    }

    /// The writes when the lane has moved from 5 to `next` and 5 has been given up, and these were requested before
    /// that was noted.
    fn settled(next: u64, requested: &[u64]) -> Written {
        let lane = Lane::to(Receiver::Channel);
        let before = LaneRow::new(5, 8, NOW);
        let stored = requested.iter().fold(before.clone(), |row, seq| row.with_request(*seq, NOW.plus(1)));
        let mut reads = ReadSet::default();
        reads.add_row(LANES, lane.key(), Ok(Some(codec::encode(&stored))));
        for seq in 5..=8 {
            reads.add_row(DELIVERIES, DeliveryKey::new(seq, Receiver::Channel).row(), Ok(None));
            reads.add_row(LANES, Lane { again: Some(seq), ..lane }.key(), Ok(None));
        }
        reads.add_first(LANE_TIMES, 10, Ok(Vec::new()));
        let after = Some(LaneRow::new(next, 8, NOW.plus(60_000)));
        let ended = (5..next).map(gave_up).collect();
        let lanes = vec![LaneChange { lane, before: Some(before), after }];
        let entity = EntityKey { workspace: Address([1; 10]), kind: Kind::Conversation, id: Address([2; 10]) };
        let log = Log { entity, began: NOW, last_seq: 8 };
        settle(&log, None, &Settlement { unread_from: 9, lanes, ended }, NOW.plus(2), &reads).unwrap()
    }

    /// What has not ended does not wait any longer.
    #[test]
    fn a_retry_request_before_the_note_resends_what_has_ended() {
        for (requested, once_more) in [(&[5][..], &[5][..]), (&[7], &[]), (&[5, 7], &[5]), (&[6, 5, 8], &[5, 6])] {
            let written = settled(7, requested);
            let rows: Vec<(Lane, LaneRow)> = (written.rows.iter().filter(|row| row.table == LANES))
                .map(|row| (Lane::parse(&row.key).unwrap(), codec::decode(row.value.as_ref().unwrap()).unwrap()))
                .collect();
            let mut separate: Vec<_> = rows.iter().filter_map(|(lane, _)| lane.again).collect();
            separate.sort_unstable();
            assert_eq!(separate, once_more, "{requested:?}");
            let ended: Vec<_> = (written.rows.iter().filter(|row| row.table == DELIVERIES))
                .map(|row| DeliveryKey::parse(&row.key).unwrap().seq)
                .collect();
            assert_eq!(ended, [5, 6].into_iter().filter(|seq| !once_more.contains(seq)).collect::<Vec<_>>());
            let waits_on: Vec<_> = rows.iter().filter(|(lane, _)| lane.again.is_none()).map(|(_, row)| row).collect();
            let is_requested = requested.iter().any(|seq| *seq > 6);
            let next_at = if is_requested { NOW.plus(1) } else { NOW.plus(60_000) };
            assert!(
                waits_on.iter().all(|row| (row.next, row.retry_requested, row.next_at) == (7, is_requested, next_at))
            );
            assert_eq!(waits_on.len(), 1, "{requested:?}");
        }
    }
}
