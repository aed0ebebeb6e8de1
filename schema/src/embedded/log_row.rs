//! One row of the log: all records of one commit.
//!
//! ```text
//! version 1 ‖ flags ‖ batch ‖ commit id 16 ‖ previous hash 16 ‖ state commit ‖ at ‖ [alarm] ‖ records… ‖ hash 16
//! record = (length << 1 | event) 4 ‖ payload
//! ```
//! The hash is of key and value, so it is the row's checksum, its link in the entity's chain, and its share of the
//! store's sum in one. The newest row of an entity is its head; there is no other.
//!
//! Version 2 is a redacted row. It has its former hash in the place of the commit id: to its neighbours and to the
//! store's sum it is still the same row. The last hash is its checksum alone. The commit id was random and is removed,
//! so the old hash confirms no guess at the redacted content.

use actors::clock::Millis;
use actors::id::{EntityKey, half};
use actors::store::{CommitId, Head, LogRecord, NewRecord};
use bytes::Bytes;

use super::layout::{Fields, LOG_KEY};

const VERSION: u8 = 1;
const REDACTED: u8 = 2;
const HAS_ALARM: u8 = 1;
/// Everything but the alarm and the records.
const FIXED: usize = 1 + 1 + 8 + 16 + 16 + 8 + 8 + 16;

/// The hash of a log row.
pub(super) type RowHash = [u8; 16];

/// An entity's head, by its newest log row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KnownHead {
    pub(super) head: Head,
    pub(super) id: CommitId,
    pub(super) hash: RowHash,
    pub(super) alarm: Option<Millis>,
    /// The commit that wrote the newest state; 0 if there is none.
    pub(super) state_commit: u64,
}

/// The parts of a log row besides its key, its records and its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RowFields {
    pub(super) batch: u64,
    pub(super) id: CommitId,
    pub(super) previous: RowHash,
    pub(super) state_commit: u64,
    pub(super) at: Millis,
    pub(super) alarm: Option<Millis>,
}

/// The length of a row with these records.
pub(super) fn encoded_len(records: &[NewRecord]) -> usize {
    FIXED + 8 + records.iter().map(|record| 4 + record.payload.len()).sum::<usize>()
}

/// Writes a row into `out`, which is cleared first; returns its hash.
pub(super) fn encode(key: &[u8; LOG_KEY], facts: &RowFields, records: &[NewRecord], out: &mut Vec<u8>) -> RowHash {
    out.clear();
    out.reserve(encoded_len(records));
    write(VERSION, facts, facts.id.0, out);
    for record in records {
        write_record(record.event, &record.payload, out);
    }
    let hash = hash(key, out);
    out.extend_from_slice(&hash);
    hash
}

/// Everything in front of the records.
fn write(version: u8, facts: &RowFields, name: [u8; 16], out: &mut Vec<u8>) {
    out.extend_from_slice(&[version, if facts.alarm.is_some() { HAS_ALARM } else { 0 }]);
    out.extend_from_slice(&facts.batch.to_le_bytes());
    out.extend_from_slice(&name);
    out.extend_from_slice(&facts.previous);
    out.extend_from_slice(&facts.state_commit.to_le_bytes());
    out.extend_from_slice(&facts.at.0.to_le_bytes());
    if let Some(alarm) = facts.alarm {
        out.extend_from_slice(&alarm.0.to_le_bytes());
    }
}

fn write_record(event: bool, payload: &[u8], out: &mut Vec<u8>) {
    // A payload is far below 2^31: commits are bounded before this.
    let tag = (payload.len() as u32) << 1 | u32::from(event);
    out.extend_from_slice(&tag.to_le_bytes());
    out.extend_from_slice(payload);
}

fn hash(key: &[u8], value: &[u8]) -> RowHash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(key);
    hasher.update(value);
    half(&hasher.finalize())
}

/// A row as read, with a correct hash.
#[derive(Debug)]
pub(super) struct LogRow {
    pub(super) entity: EntityKey,
    pub(super) head: Head,
    pub(super) facts: RowFields,
    /// Its hash in the chain.
    pub(super) hash: RowHash,
    /// How many of the records are events.
    pub(super) events: u64,
    records: Bytes,
}

impl LogRow {
    /// Reads the row stored under `key`; `None` if it is not what was written there.
    pub(super) fn decode(key: &[u8], value: &[u8]) -> Option<Self> {
        let (entity, head) = super::layout::read_log_key(key)?;
        let (body, stored) = value.split_last_chunk::<16>()?;
        if hash(key, body) != *stored {
            return None;
        }
        let mut fields = Fields(body);
        let version = fields.u8()?;
        let flags = fields.u8()?;
        let batch = fields.u64()?;
        let name = fields.bytes()?;
        let (id, hash) = match version {
            VERSION => (CommitId(name), *stored),
            REDACTED => (CommitId([0; 16]), name),
            _ => return None,
        };
        let facts = RowFields {
            batch,
            id,
            previous: fields.bytes()?,
            state_commit: fields.u64()?,
            at: Millis(fields.u64()?),
            alarm: if flags & HAS_ALARM == 0 { None } else { Some(Millis(fields.u64()?)) },
        };
        let records = fields.0;
        let mut events = 0;
        while !fields.end() {
            let tag = fields.u32()?;
            fields.slice((tag >> 1) as usize)?;
            events += u64::from(tag & 1);
        }
        head.seq.checked_sub(events)?;
        Some(Self { entity, head, facts, hash, events, records: Bytes::copy_from_slice(records) })
    }

    /// The row with other payloads for some of its events, to be stored under its key.
    pub(super) fn redacted(&self, key: &[u8], payload: impl Fn(u64) -> Option<Bytes>) -> Vec<u8> {
        let mut out = Vec::with_capacity(FIXED + 8 + self.records.len());
        write(REDACTED, &self.facts, self.hash, &mut out);
        for record in self.records() {
            let other = if record.event { payload(record.seq) } else { None };
            write_record(record.event, other.as_ref().unwrap_or(&record.payload), &mut out);
        }
        let checksum = hash(key, &out);
        out.extend_from_slice(&checksum);
        out
    }

    /// The entity's head after this row.
    pub(super) fn known_head(&self) -> KnownHead {
        KnownHead {
            head: self.head,
            id: self.facts.id,
            hash: self.hash,
            alarm: self.facts.alarm,
            state_commit: self.facts.state_commit,
        }
    }

    /// Its records in order, marks too. They share one allocation.
    pub(super) fn records(&self) -> impl Iterator<Item = LogRecord> + '_ {
        let mut seq = self.head.seq - self.events;
        let mut fields = Fields(&self.records);
        std::iter::from_fn(move || {
            let tag = fields.u32()?;
            let payload = fields.slice((tag >> 1) as usize)?;
            let event = tag & 1 == 1;
            seq += u64::from(event);
            Some(LogRecord { seq, event, payload: self.records.slice_ref(payload) })
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::layout::log_key;
    use super::*;

    fn any_records() -> impl Strategy<Value = Vec<NewRecord>> {
        let record = (any::<bool>(), proptest::collection::vec(any::<u8>(), 0..40))
            .prop_map(|(event, payload)| NewRecord { event, payload: payload.into() });
        proptest::collection::vec(record, 0..8)
    }

    proptest! {
        #[test]
        fn a_row_is_read_back_and_any_changed_bit_is_noticed(
            records in any_records(),
            alarm in proptest::option::of(any::<u64>()),
            flip in any::<prop::sample::Index>(),
        ) {
            let events = records.iter().filter(|record| record.event).count() as u64;
            let facts = RowFields {
                batch: 9, id: CommitId([1; 16]), previous: [2; 16], state_commit: 3, at: Millis(4),
                alarm: alarm.map(Millis),
            };
            let key = log_key(EntityKey::INSTALLATION, Head { seq: 100 + events, commit: 50 });
            let mut value = Vec::new();
            let hash = encode(&key, &facts, &records, &mut value);
            let row = LogRow::decode(&key, &value).expect("a row");
            prop_assert_eq!((row.facts, row.hash, row.events), (facts, hash, events));
            let read: Vec<_> = row.records().map(|r| NewRecord { event: r.event, payload: r.payload }).collect();
            prop_assert_eq!(read, records);
            let sequences: Vec<_> = row.records().filter(|r| r.event).map(|r| r.seq).collect();
            prop_assert_eq!(sequences, (101..=100 + events).collect::<Vec<_>>());

            // Redacted content is removed, and to its neighbours the row is unchanged.
            let redacted = row.redacted(&key, |seq| seq.is_multiple_of(2).then(|| Bytes::from_static(b"-")));
            let again = LogRow::decode(&key, &redacted).expect("a row");
            prop_assert_eq!((again.head, again.hash, again.events), (row.head, hash, events));
            prop_assert_eq!(again.facts, RowFields { id: CommitId([0; 16]), ..facts });
            for (before, after) in row.records().zip(again.records()) {
                let is_redacted = before.event && before.seq.is_multiple_of(2);
                let payload = if is_redacted { Bytes::from_static(b"-") } else { before.payload };
                prop_assert_eq!(after, LogRecord { payload, ..before });
            }
            prop_assert_eq!(&again.redacted(&key, |_| None), &redacted);

            for mut value in [value, redacted] {
                let bit = flip.index(value.len() * 8);
                value[bit / 8] ^= 1 << (bit % 8);
                prop_assert!(LogRow::decode(&key, &value).is_none());
            }
        }
    }
}
