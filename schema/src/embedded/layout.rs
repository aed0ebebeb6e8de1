//! The layout of keys and small rows in the four keyspaces.
//!
//! ```text
//! log    entity ‖ seq ‖ commit           one row a commit, see `log_row`
//!        0                               the heartbeat
//! rows   entity ‖ 0                      the newest state
//!        entity ‖ 1 ‖ table ‖ key        a keyed row
//!        0                               the heartbeat
//! keys   entity ‖ key hash               what an idempotency key has done
//!        0                               the heartbeat
//! index  0                               the chain, see `chain`
//!        1 ‖ at ‖ entity                 a due alarm
//!        2 ‖ workspace ‖ view ‖ key      an entry of a workspace's list
//! ```
//! An entity is written as id ‖ kind ‖ workspace: nothing reads a workspace's entities together, ids differ in their
//! first bytes while workspaces do not, and the engine compares first bytes without following a pointer. Only due
//! alarms have the workspace first, because they are read in the order of `Due`.
//! Numbers in keys are big-endian, so that bytes sort as numbers do; numbers in values are little-endian.
//! An entity's key has 21 bytes, so the one-byte keys collide with nothing and sort outside of every entity.
//! Values outside the log end in a CRC-32C of key and value: a row under another's key is detected too.

use actors::clock::Millis;
use actors::id::{Address, EntityKey, Kind};
use actors::store::{Cause, Due, Fingerprint, Head, KeyEffect, KeyHash, KeyRow, SeqRange, StoreError, Table, View};

/// The key of the heartbeat row in `log`, `rows` and `keys`, and of the chain in `index`.
pub(super) const META: [u8; 1] = [0];
const DUE: u8 = 1;
const VIEW: u8 = 2;
const STATE: u8 = 0;
const ROW: u8 = 1;

/// An entity as the prefix of a key.
pub(super) fn entity_key(entity: EntityKey) -> [u8; EntityKey::LEN] {
    let mut key = [0; EntityKey::LEN];
    key[..10].copy_from_slice(&entity.id.0);
    key[10] = entity.kind as u8;
    key[11..].copy_from_slice(&entity.workspace.0);
    key
}

/// The inverse of [`entity_key`].
pub(super) fn read_entity_key(key: &[u8]) -> Option<EntityKey> {
    let mut fields = Fields(key);
    let id = fields.bytes()?;
    let kind = fields.u8()?;
    let workspace = fields.bytes()?;
    let entity = EntityKey { workspace: Address(workspace), kind: Kind::from_byte(kind)?, id: Address(id) };
    fields.end().then_some(entity)
}

/// Length of a key in `log`.
pub(super) const LOG_KEY: usize = EntityKey::LEN + 16;

/// The key of the log row that led to `head`.
pub(super) fn log_key(entity: EntityKey, head: Head) -> [u8; LOG_KEY] {
    let mut key = [0; LOG_KEY];
    key[..EntityKey::LEN].copy_from_slice(&entity_key(entity));
    key[EntityKey::LEN..][..8].copy_from_slice(&head.seq.to_be_bytes());
    key[EntityKey::LEN + 8..].copy_from_slice(&head.commit.to_be_bytes());
    key
}

/// The inverse of [`log_key`].
pub(super) fn read_log_key(key: &[u8]) -> Option<(EntityKey, Head)> {
    let (entity, rest) = key.split_at_checked(EntityKey::LEN)?;
    let (seq, commit) = rest.split_at_checked(8)?;
    let head =
        Head { seq: u64::from_be_bytes(seq.try_into().ok()?), commit: u64::from_be_bytes(commit.try_into().ok()?) };
    Some((read_entity_key(entity)?, head))
}

/// The key of an entity's state in `rows`.
pub(super) fn state_key(entity: EntityKey) -> [u8; EntityKey::LEN + 1] {
    let mut key = [STATE; EntityKey::LEN + 1];
    key[..EntityKey::LEN].copy_from_slice(&entity_key(entity));
    key
}

/// The key of a keyed row in `rows`; with an empty `key`, the prefix of the table.
pub(super) fn row_key(entity: EntityKey, table: Table, key: &[u8]) -> Vec<u8> {
    [&entity_key(entity)[..], &[ROW, table.0], key].concat()
}

/// The key of an idempotency key's row in `keys`.
pub(super) fn idempotency_key(entity: EntityKey, hash: KeyHash) -> [u8; EntityKey::LEN + 16] {
    let mut key = [0; EntityKey::LEN + 16];
    key[..EntityKey::LEN].copy_from_slice(&entity_key(entity));
    key[EntityKey::LEN..].copy_from_slice(&hash.0);
    key
}

/// The key of a list entry in `index`; with an empty `key`, the prefix of the list.
pub(super) fn view_key(workspace: Address, view: View, key: &[u8]) -> Vec<u8> {
    [&[VIEW], &workspace.0[..], &[view.0], key].concat()
}

/// Length of a due alarm's key.
pub(super) const DUE_KEY: usize = 1 + 8 + EntityKey::LEN;

/// The key of a due alarm in `index`.
pub(super) fn due_key(due: Due) -> [u8; DUE_KEY] {
    let mut key = [DUE; DUE_KEY];
    key[1..9].copy_from_slice(&due.at.0.to_be_bytes());
    key[9..].copy_from_slice(&due.entity.to_bytes());
    key
}

/// Sorts before every due alarm's key.
pub(super) const DUE_FIRST: [u8; DUE_KEY] = {
    let mut key = [0; DUE_KEY];
    key[0] = DUE;
    key
};
/// No entity sorts after this one.
pub(super) const LAST_ENTITY: EntityKey =
    EntityKey { workspace: Address([u8::MAX; 10]), kind: Kind::Memories, id: Address([u8::MAX; 10]) };

/// The inverse of [`due_key`].
pub(super) fn read_due_key(key: &[u8]) -> Option<Due> {
    let (at, entity) = key.strip_prefix(&[DUE])?.split_at_checked(8)?;
    Some(Due { at: Millis(u64::from_be_bytes(at.try_into().ok()?)), entity: EntityKey::from_bytes(entity)? })
}

/// The checksum of a row outside the log.
pub(super) fn checksum(key: &[u8], value: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(key), value)
}

/// `value` and its checksum; the checksum alone is also part of the chain.
pub(super) fn seal(key: &[u8], mut value: Vec<u8>) -> (Vec<u8>, u32) {
    let sum = checksum(key, &value);
    value.extend_from_slice(&sum.to_le_bytes());
    (value, sum)
}

/// The value given to [`seal`]; `None` if it has changed.
pub(super) fn unseal<'a>(key: &[u8], sealed: &'a [u8]) -> Option<&'a [u8]> {
    let (value, sum) = sealed.split_last_chunk::<4>()?;
    (checksum(key, value) == u32::from_le_bytes(*sum)).then_some(value)
}

/// The value of an idempotency key's row.
pub(super) fn key_row(row: KeyRow) -> Vec<u8> {
    let mut value = Vec::with_capacity(16 + 24 + 4);
    value.extend_from_slice(&row.fingerprint.0);
    let stored = row.effect.to_stored();
    [stored.first, stored.last, row.at.0].iter().for_each(|number| value.extend_from_slice(&number.to_le_bytes()));
    value
}

/// The inverse of [`key_row`].
pub(super) fn read_key_row(value: &[u8]) -> Option<KeyRow> {
    let (fingerprint, rest) = value.split_first_chunk::<16>()?;
    let mut fields = Fields(rest);
    let row = KeyRow {
        fingerprint: Fingerprint(*fingerprint),
        effect: KeyEffect::from_stored(SeqRange::new(fields.u64()?, fields.u64()?)),
        at: Millis(fields.u64()?),
    };
    fields.end().then_some(row)
}

/// A state in `rows`, with its log row, so that the rows after it can be found and checked.
pub(super) struct StateRow<'a> {
    /// The entity's head then.
    pub(super) head: Head,
    /// The hash of the log row that was written with it.
    pub(super) hash: [u8; 16],
    /// The state.
    pub(super) state: &'a [u8],
}

impl<'a> StateRow<'a> {
    /// The value without its checksum.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut value = Vec::with_capacity(32 + self.state.len() + 4);
        value.extend_from_slice(&self.head.seq.to_le_bytes());
        value.extend_from_slice(&self.head.commit.to_le_bytes());
        value.extend_from_slice(&self.hash);
        value.extend_from_slice(self.state);
        value
    }

    /// The inverse of [`StateRow::encode`].
    pub(super) fn decode(value: &'a [u8]) -> Option<Self> {
        let mut fields = Fields(value);
        let head = Head { seq: fields.u64()?, commit: fields.u64()? };
        Some(Self { head, hash: fields.bytes()?, state: fields.0 })
    }
}

/// Reads fields from the front of a value.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (front, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*front)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.bytes().map(u8::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.bytes().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.bytes().map(u64::from_le_bytes)
    }

    pub(super) fn slice(&mut self, len: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(front)
    }

    pub(super) fn end(&self) -> bool {
        self.0.is_empty()
    }
}

/// A read that found other data than was written, in an entity.
pub(super) fn corrupt(entity: EntityKey, what: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt(format!("entity {entity:?}: {what}").into())
}

/// A failed read of the engine, in an entity.
pub(super) fn unreadable(entity: EntityKey, error: fjall::Error) -> StoreError {
    StoreError::Corrupt(Cause::of(format!("entity {entity:?}"), error))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTITY: EntityKey = EntityKey::INSTALLATION;

    #[test]
    fn keys_are_read_back() {
        let head = Head { seq: 7, commit: u64::MAX };
        assert_eq!(read_log_key(&log_key(ENTITY, head)), Some((ENTITY, head)));
        assert_eq!(read_log_key(&META), None);
        let contact = EntityKey::contact(Address([1; 10]), Address([2; 10]));
        assert_eq!(read_entity_key(&entity_key(contact)), Some(contact));
        assert_eq!(read_entity_key(&[0; EntityKey::LEN]), None);
        let due = Due { at: Millis(1 << 40), entity: ENTITY };
        assert_eq!(read_due_key(&due_key(due)), Some(due));
        assert_eq!(read_due_key(&view_key(Address([0; 10]), View(1), b"")), None);
    }

    #[test]
    fn log_keys_sort_by_sequence_then_by_commit() {
        let key = |seq, commit| log_key(ENTITY, Head { seq, commit });
        let sorted = [key(0, 1), key(0, 2), key(1, 3), key(255, 4), key(256, 5)];
        assert!(sorted.is_sorted());
    }

    #[test]
    fn a_sealed_row_is_not_read_under_another_key_nor_changed_nor_cut() {
        let (sealed, _) = seal(b"key", b"value".to_vec());
        assert_eq!(unseal(b"key", &sealed), Some(&b"value"[..]));
        assert_eq!(unseal(b"kez", &sealed), None);
        assert_eq!(unseal(b"key", &sealed[..sealed.len() - 1]), None);
        for bit in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(unseal(b"key", &changed), None, "bit {bit}");
        }
    }

    #[test]
    fn an_idempotency_row_is_read_back() {
        for row in [
            KeyRow::new(Fingerprint([3; 16]), SeqRange::upto(1 << 50), Millis(99)),
            KeyRow::held(Fingerprint([3; 16]), 2, Millis(99)),
        ] {
            assert_eq!(read_key_row(&key_row(row)), Some(row));
        }
        assert_eq!(read_key_row(&[]), None);
    }
}
