//! What a note does where its data is damaged.

use super::settle::TRIMMED_AT_ONCE;
use super::*;
use crate::id::{Address, Kind};
use crate::outbox::lane::Receiver;
use crate::store::{StoreError, Table};

/// A note about a lane, with what it reads of these tables damaged.
fn noted(damaged: &[Table]) -> Result<Written, Undecided> {
    let lane = Lane::to(Receiver::Channel);
    let now = Millis(2 * KEPT_MILLIS);
    let before = LaneRow::new(1, 3, now);
    let after = LaneRow::new(2, 3, now);
    let damage = |table| match damaged.contains(&table) {
        true => Err(StoreError::Corrupt("damaged by the test".into())),
        false => Ok(()),
    };
    let mut reads = ReadSet::default();
    reads.add_row(LANES, lane.key(), damage(LANES).map(|()| Some(codec::encode(&before))));
    for (table, limit) in [(LANE_TIMES, 2), (DELIVERIES, TRIMMED_AT_ONCE)] {
        reads.add_first(table, limit, damage(table).map(|()| Vec::new()));
    }
    let entity = EntityKey { workspace: Address([1; 10]), kind: Kind::Conversation, id: Address([2; 10]) };
    let outbox = Outbox { from: None, check_at: now, lanes: 2 };
    let lanes = vec![LaneChange { lane, before: Some(before), after: Some(after) }];
    let settlement = Settlement { unread_from: 4, lanes, ended: Vec::new() };
    settle(&Log { entity, began: Millis(0), last_seq: 3 }, Some(&outbox), &settlement, now, &reads)
}

#[test]
fn damage_refuses_no_note() {
    let rows = |damaged: &[Table]| noted(damaged).unwrap().rows;
    let sound = rows(&[]);
    assert_eq!(sound.iter().filter(|row| row.table == LANES).count(), 1);
    for damaged in [LANES, LANE_TIMES, DELIVERIES] {
        assert_eq!(rows(&[damaged]), sound, "{damaged:?}");
    }
}
