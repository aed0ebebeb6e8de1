//! What somebody has asked for while it was being sent or noted.

use std::collections::BTreeMap;

use super::{Change, DeliveryKey, LaneChange};
use crate::clock::Millis;
use crate::machine::Undecided;
use crate::outbox::lane::{Delivery, Lane, Waiting, Was};
use crate::tables::DELIVERIES;

/// The lane on which a delivery that has ended is sent once more, and its row.
pub(super) fn once_more(seq: u64, ended: &Delivery, now: Millis) -> (Lane, Waiting) {
    let lane = Lane { receiver: ended.receiver, again: Some(seq) };
    let was = Some(Was { end: ended.end, url: ended.url.clone() });
    let fresh = Waiting::fresh(seq, seq, now);
    (lane, Waiting { attempts: ended.attempts.clone(), asked_for: true, was, ..fresh })
}

impl Change<'_> {
    /// Moves a lane. What somebody has asked for meanwhile is as if they had asked when all this was noted: what has
    /// ended is sent once more with all its attempts, and nothing that came behind it on the lane is.
    pub(super) fn settle_lane(
        &mut self,
        moved: &LaneChange,
        ended: &mut BTreeMap<DeliveryKey, &Delivery>,
        now: Millis,
    ) -> Result<(), Undecided> {
        let asked = self.lane(moved.lane)?;
        // What is asked for is due; what another node has under way is looked for later.
        let asked = asked.filter(|stored| stored.next_at <= now);
        let asked = asked.filter(|stored| moved.before.as_ref().is_some_and(|before| before.was_asked_for(stored)));
        let Some(stored) = asked else { return self.move_lane(moved, now) };
        if let Some(after) = moved.after.as_ref().filter(|after| after.next == stored.next) {
            let after = Waiting { until: stored.until.max(after.until), ..after.clone() }.asked(stored.next_at);
            self.put_lane(moved.lane, Some(&stored), Some(&after));
            return Ok(());
        }
        let key = DeliveryKey::new(stored.next, moved.lane.receiver);
        let noted = self.found.stored::<Delivery>(DELIVERIES, key.row())?;
        let again = ended.get(&key).copied().or(noted.as_ref()).map(|of_it| once_more(key.seq, of_it, now));
        match again {
            Some((beside, again)) if beside == moved.lane => self.put_lane(beside, Some(&stored), Some(&again)),
            Some((beside, again)) if self.lane(beside)?.is_none() => {
                self.put_lane(beside, None, Some(&again));
                self.put_lane(moved.lane, Some(&stored), moved.with_newer(&stored, now).as_ref());
            }
            // It was dropped, or is on its way already.
            _ => {
                self.put_lane(moved.lane, Some(&stored), moved.with_newer(&stored, now).as_ref());
                return Ok(());
            }
        }
        ended.remove(&key);
        if let Some(noted) = &noted {
            self.forget(key, noted);
        }
        Ok(())
    }
}
