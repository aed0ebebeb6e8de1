//! The contents of columns: numbers of kinds, names of partitions, and the encodings of blobs.

use actors::clock::Millis;
use actors::id::EntityKey;
use actors::store::{CommitId, Head, KeyHash, LogRecord, NewRecord, Redaction, StoreError, View, ViewWrite};
use bytes::Bytes;

/// Shards of the due index: enough that many nodes of the cluster write its newest slot.
pub(super) const SHARDS: i8 = 64;
/// A slot of the due index: a quarter of an hour, so that a slot is a partition of some thousand rows.
const SLOT_MILLIS: u64 = 15 * 60 * 1000;
const MINUTE_MILLIS: u64 = 60 * 1000;
/// After how long nobody reads any more who began before a commit.
pub(super) const RESTED_AFTER_MILLIS: u64 = MINUTE_MILLIS;
/// Bits of a list entry's key that select its part. Keys begin with a time of 48 bits in milliseconds, so a part is
/// three days.
const PART_BITS: u32 = 20;

/// Bytes of an entity's name.
pub(super) fn entity_bytes(entity: EntityKey) -> [u8; EntityKey::LEN] {
    entity.to_bytes()
}

/// The entity of a stored name.
pub(super) fn entity_of(bytes: &[u8]) -> Result<EntityKey, StoreError> {
    EntityKey::from_bytes(bytes).ok_or_else(|| StoreError::Corrupt("an entity's name is damaged".into()))
}

/// As a signed number of CQL. A number that does not fit is greater than everything stored.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The inverse of [`signed`]; nothing stored is negative.
pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// Sixteen stored bytes.
pub(super) fn sixteen(bytes: &[u8]) -> Result<[u8; 16], StoreError> {
    bytes.try_into().map_err(|_| StoreError::Corrupt("an id or a hash has the wrong length".into()))
}

/// The second part of a commit's position in its bucket; the first is its sequence.
pub(super) fn commit_k(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

/// The inverse of [`commit_k`].
pub(super) fn commit_of(k: &[u8]) -> Result<u64, StoreError> {
    let bytes = k.try_into().map_err(|_| StoreError::Corrupt("a commit's number is damaged".into()))?;
    Ok(u64::from_be_bytes(bytes))
}

/// The part of the closed buckets' keys for a hash.
pub(super) fn key_part(hash: KeyHash) -> i8 {
    (hash.0[0] & 0x0f) as i8
}

/// The part of a list for a key. Keys in ascending order are in parts in ascending order.
pub(super) fn list_part(key: &[u8]) -> i32 {
    let mut first = [0; 4];
    for (to, from) in first[1..].iter_mut().zip(key) {
        *to = *from;
    }
    (u32::from_be_bytes(first) >> (24 - PART_BITS)) as i32
}

/// A key such that no key of an earlier part is at or after it, and only its own prefixes in `part` are before it;
/// `None`: there is no such part.
pub(super) fn part_begin(part: i32) -> Option<Vec<u8>> {
    let part = u32::try_from(part).ok().filter(|part| *part < 1 << PART_BITS)?;
    Some((part << (24 - PART_BITS)).to_be_bytes()[1..].to_vec())
}

/// The shard of the due index for an entity.
pub(super) fn shard(entity: EntityKey) -> i8 {
    // An address is a hash or random, but the one of a workspace's registry is all zeros.
    let [a, b, ..] = entity.id.0;
    let [c, d, ..] = entity.workspace.0;
    ((a ^ b.rotate_left(3) ^ c ^ d.rotate_left(5)) % SHARDS as u8) as i8
}

/// The slot of a time.
pub(super) fn slot(at: Millis) -> i64 {
    signed(at.0 / SLOT_MILLIS)
}

/// The end of a slot.
pub(super) fn slot_end(slot: i64) -> Millis {
    Millis(unsigned(slot).saturating_add(1).saturating_mul(SLOT_MILLIS))
}

/// A key greater than every allowed key.
pub(super) const BEYOND: [u8; actors::limits::ROW_KEY_BYTES + 1] = [0xff; actors::limits::ROW_KEY_BYTES + 1];

/// The least key greater than `key`.
pub(super) fn after(key: &[u8]) -> Vec<u8> {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next
}

/// Bytes of [`encode_records`].
pub(super) fn records_len(records: &[NewRecord]) -> usize {
    records.iter().map(|record| 4 + record.payload.len()).sum()
}

/// All records of one commit: `(length << 1 | event) 4 ‖ payload` each.
pub(super) fn encode_records(records: &[NewRecord]) -> Vec<u8> {
    let mut out = Vec::with_capacity(records_len(records));
    for record in records {
        // A payload is far below 2^31: commits are bounded before this.
        let tag = (record.payload.len() as u32) << 1 | u32::from(record.event);
        out.extend_from_slice(&tag.to_le_bytes());
        out.extend_from_slice(&record.payload);
    }
    out
}

/// The records of the commit that led to `last`, in order, marks too. They share one allocation.
pub(super) fn decode_records(payload: &Bytes, last: u64) -> Result<Vec<LogRecord>, StoreError> {
    let damaged = || StoreError::Corrupt("a commit's records are damaged".into());
    let mut records = Vec::new();
    let mut rest = payload.clone();
    while !rest.is_empty() {
        if rest.len() < 4 {
            return Err(damaged());
        }
        let tag = rest.split_to(4);
        let tag = u32::from_le_bytes([tag[0], tag[1], tag[2], tag[3]]);
        let len = (tag >> 1) as usize;
        if rest.len() < len {
            return Err(damaged());
        }
        records.push(LogRecord { seq: 0, event: tag & 1 == 1, payload: rest.split_to(len) });
    }
    let events = records.iter().filter(|record| record.event).count() as u64;
    let mut seq = last.checked_sub(events).ok_or_else(damaged)?;
    for record in &mut records {
        seq += u64::from(record.event);
        record.seq = seq;
    }
    Ok(records)
}

/// The writes that follow from an applied commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FollowUps {
    /// List entries.
    pub(super) views: Vec<ViewWrite>,
    /// Redactions of the log.
    pub(super) redactions: Vec<Redaction>,
}

/// The list number that marks a redaction, whose key is the event's sequence; no list has it.
const REDACTED: u8 = u8::MAX;

/// The writes that follow from a commit: `list 1 ‖ key length 2 ‖ key ‖ (0 | 1 ‖ value length 4 ‖ value)` each.
pub(super) fn encode_follow_ups(views: &[ViewWrite], redactions: &[Redaction]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut put = |list: u8, key: &[u8], value: Option<&Bytes>| {
        out.push(list);
        // A key is far below 2^16: commits are measured before this.
        out.extend_from_slice(&(key.len() as u16).to_le_bytes());
        out.extend_from_slice(key);
        match value {
            Some(value) => {
                out.push(1);
                out.extend_from_slice(&(value.len() as u32).to_le_bytes());
                out.extend_from_slice(value);
            }
            None => out.push(0),
        }
    };
    for write in views {
        put(write.view.0, &write.key, write.value.as_ref());
    }
    for redaction in redactions {
        put(REDACTED, &redaction.seq.to_be_bytes(), Some(&redaction.payload));
    }
    out
}

/// The inverse of [`encode_follow_ups`].
pub(super) fn decode_follow_ups(bytes: &Bytes) -> Result<FollowUps, StoreError> {
    let damaged = || StoreError::Corrupt("a commit's list entries are damaged".into());
    let mut rest = bytes.clone();
    let take = |rest: &mut Bytes, len: usize| if rest.len() < len { Err(damaged()) } else { Ok(rest.split_to(len)) };
    let mut follows = FollowUps::default();
    while !rest.is_empty() {
        let fixed = take(&mut rest, 3)?;
        let key = take(&mut rest, usize::from(u16::from_le_bytes([fixed[1], fixed[2]])))?;
        let value = if take(&mut rest, 1)?[0] == 0 {
            None
        } else {
            let len = take(&mut rest, 4)?;
            Some(take(&mut rest, u32::from_le_bytes([len[0], len[1], len[2], len[3]]) as usize)?)
        };
        if fixed[0] == REDACTED {
            let seq = u64::from_be_bytes(key.as_ref().try_into().map_err(|_| damaged())?);
            follows.redactions.push(Redaction { seq, payload: value.ok_or_else(damaged)? });
        } else {
            follows.views.push(ViewWrite { view: View(fixed[0]), key, value });
        }
    }
    Ok(follows)
}

/// A row of the due index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct DueRow {
    /// When it is due.
    pub(super) at: Millis,
    /// Its slot: that of `at`, or of the time when it was written, if that was later.
    pub(super) slot: i64,
    /// The commit that wrote it.
    pub(super) id: CommitId,
}

impl DueRow {
    /// A row written at `now`. A past slot may be removed already, so a row never goes into one.
    pub(super) fn new(at: Millis, id: CommitId, now: Millis) -> Self {
        Self { at, slot: slot(at.max(now)), id }
    }
}

/// The purpose of a row of the due index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i8)]
pub(super) enum DueKind {
    /// The entity wants to be woken.
    Alarm = 0,
    /// The writes that follow from the commit must exist by then, or are repeated; the chunks of a commit that was
    /// never applied are deleted; a bucket that the commit left is emptied.
    Lists = 1,
    /// What closed buckets keep of erased content is removed then (see [`erasure_row`]).
    Erasure = 2,
}

impl DueKind {
    /// The kind that is stored as this number.
    pub(super) fn of(number: i8) -> Self {
        match number {
            0 => Self::Alarm,
            2 => Self::Erasure,
            _ => Self::Lists,
        }
    }
}

/// The row that has erased content removed once the entity has rested after a commit of this time. An entity has one for
/// each minute, however many commits erase something, and whichever process writes it: the id is the entity's own.
pub(super) fn erasure_row(entity: EntityKey, commit: Millis, now: Millis) -> DueRow {
    let mut id = [0; 16];
    let (address, workspace) = id.split_at_mut(entity.id.0.len());
    address.copy_from_slice(&entity.id.0);
    workspace.copy_from_slice(&entity.workspace.0[..workspace.len()]);
    let minute = commit.plus(RESTED_AFTER_MILLIS).0.div_ceil(MINUTE_MILLIS);
    // Not all entities at once.
    let spread = u64::from(entity.id.0[0]) * MINUTE_MILLIS / 256;
    DueRow::new(Millis(minute * MINUTE_MILLIS + spread), CommitId(id), now)
}

/// The head of a commit, as the sequence and number that name its row.
pub(super) fn commit_row(head: Head) -> (i64, [u8; 8]) {
    (signed(head.seq), commit_k(head.commit))
}

/// The position of a commit in the log: `sequence 8 ‖ number 8`.
pub(super) fn encode_place(head: Head) -> [u8; 16] {
    let mut out = [0; 16];
    out[..8].copy_from_slice(&head.seq.to_be_bytes());
    out[8..].copy_from_slice(&head.commit.to_be_bytes());
    out
}

/// The inverse of [`encode_place`].
pub(super) fn decode_place(bytes: &[u8]) -> Result<Head, StoreError> {
    let number = u128::from_be_bytes(sixteen(bytes)?);
    Ok(Head { seq: (number >> 64) as u64, commit: number as u64 })
}

#[cfg(test)]
mod tests {
    use actors::id::Address;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn records_are_read_back_with_their_sequences(
            records in proptest::collection::vec((any::<bool>(), proptest::collection::vec(any::<u8>(), 0..40)), 0..8),
        ) {
            let records: Vec<_> =
                records.into_iter().map(|(event, payload)| NewRecord { event, payload: payload.into() }).collect();
            let events = records.iter().filter(|record| record.event).count() as u64;
            let encoded = Bytes::from(encode_records(&records));
            prop_assert_eq!(encoded.len(), records_len(&records));
            let read = decode_records(&encoded, 100 + events).expect("records");
            let sequences: Vec<_> = read.iter().filter(|record| record.event).map(|record| record.seq).collect();
            prop_assert_eq!(sequences, (101..=100 + events).collect::<Vec<_>>());
            let back: Vec<_> =
                read.into_iter().map(|record| NewRecord { event: record.event, payload: record.payload }).collect();
            prop_assert_eq!(back, records);
        }

        #[test]
        fn encoded_views_and_redactions_are_decoded_unchanged(
            redactions in proptest::collection::vec((any::<u64>(), proptest::collection::vec(any::<u8>(), 0..40)), 0..4),
            writes in proptest::collection::vec(
                (0..REDACTED, proptest::collection::vec(any::<u8>(), 0..130),
                 proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40))), 0..8),
        ) {
            let writes: Vec<_> = writes
                .into_iter()
                .map(|(view, key, value)| ViewWrite { view: View(view), key: key.into(), value: value.map(Bytes::from) })
                .collect();
            let redactions: Vec<_> =
                redactions.into_iter().map(|(seq, payload)| Redaction { seq, payload: payload.into() }).collect();
            let encoded = Bytes::from(encode_follow_ups(&writes, &redactions));
            let decoded = decode_follow_ups(&encoded).expect("what follows");
            prop_assert_eq!(decoded, FollowUps { views: writes, redactions });
        }

        #[test]
        fn no_bytes_are_too_strange_to_be_decoded_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            // Neither panics on any input.
            let bytes = Bytes::from(bytes);
            let _ = decode_follow_ups(&bytes);
            let _ = decode_records(&bytes, 3);
            let _ = decode_place(&bytes);
        }

        #[test]
        fn a_place_is_read_back(seq in any::<u64>(), commit in any::<u64>()) {
            let head = Head { seq, commit };
            prop_assert_eq!(decode_place(&encode_place(head)).expect("a place"), head);
        }

        #[test]
        fn parts_ascend_with_keys(a in proptest::collection::vec(any::<u8>(), 0..6),
                                  b in proptest::collection::vec(any::<u8>(), 0..6)) {
            let (low, high) = if a <= b { (a, b) } else { (b, a) };
            prop_assert!(list_part(&low) <= list_part(&high));
        }

        #[test]
        fn a_part_begins_behind_all_keys_of_those_before_it(key in proptest::collection::vec(any::<u8>(), 0..6)) {
            let part = list_part(&key);
            prop_assert!(part_begin(part + 1).is_none_or(|next| key < next));
            prop_assert_eq!(part_begin(part).map(|begin| list_part(&begin)), Some(part));
        }

        #[test]
        fn the_next_key_has_none_before_it(key in proptest::collection::vec(any::<u8>(), 0..6),
                                           other in proptest::collection::vec(any::<u8>(), 0..6)) {
            prop_assert_eq!(other > key, other >= after(&key));
        }
    }

    #[test]
    fn a_part_of_a_list_in_order_of_time_is_some_days() {
        let day = 24 * 60 * 60 * 1000_u64;
        let begin = 6_500_u64 << 28;
        let part = |at: u64| list_part(&at.to_be_bytes()[2..]);
        assert_eq!(part(begin + 3 * day), part(begin));
        assert_eq!(part(begin + 4 * day), part(begin) + 1);
    }

    #[test]
    fn a_due_row_is_never_put_into_a_past_slot() {
        let now = Millis(10 * SLOT_MILLIS + 5);
        assert_eq!(DueRow::new(Millis(7), CommitId([0; 16]), now).slot, 10);
        assert_eq!(DueRow::new(Millis(12 * SLOT_MILLIS), CommitId([0; 16]), now).slot, 12);
        assert!(slot_end(10) > now && slot_end(9) <= now);
    }

    #[test]
    fn shards_are_within_bounds_and_many() {
        let shards: std::collections::BTreeSet<_> = (0..1000_u64)
            .map(|n| shard(EntityKey::conversation(Address([1; 10]), Address::derive("test", &[&n.to_le_bytes()]))))
            .collect();
        assert_eq!(shards.len(), SHARDS as usize);
        assert!(shards.iter().all(|shard| (0..SHARDS).contains(shard)));
    }
}
