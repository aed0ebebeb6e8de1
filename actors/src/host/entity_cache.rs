//! The in-memory state of an entity: its stored data, and enough to decide the next command without a read.

use crate::clock::Millis;
use crate::machine::Machine;
use crate::store::{Head, Loaded, StoreError};

use super::keys::KeyCache;
use super::replay::replay;

/// The stored data of an entity, as far as this process knows.
pub(crate) struct EntityCache<M: Machine> {
    /// Its head; `None` for an entity that does not exist yet.
    pub(super) head: Option<Head>,
    pub(super) state: Option<M::State>,
    /// The time of the newest record: time never runs backwards within an entity.
    pub(super) last_at: Millis,
    /// The durable alarm.
    pub(super) alarm: Option<Millis>,
    /// The postponed alarm while due work is running; work due earlier must ring before.
    pub(super) put_off: Option<Millis>,
    pub(super) commits_since_snapshot: u64,
    pub(super) keys: KeyCache,
    /// Another process is working on it, so it must be reloaded before this process acts on it.
    pub(super) is_stale: bool,
}

impl<M: Machine> Default for EntityCache<M> {
    /// Nothing is known before the first read, not even that there is no key.
    fn default() -> Self {
        Self {
            head: None,
            state: None,
            last_at: Millis(0),
            alarm: None,
            put_off: None,
            commits_since_snapshot: 0,
            keys: KeyCache::new(false),
            is_stale: false,
        }
    }
}

impl<M: Machine> EntityCache<M> {
    /// The state from loaded data.
    ///
    /// # Errors
    ///
    /// [`StoreError::Corrupt`] if it does not decode.
    pub(super) fn of(loaded: Option<&Loaded>) -> Result<Self, StoreError> {
        // An entity that does not exist yet has used no key.
        let Some(loaded) = loaded else { return Ok(Self { keys: KeyCache::new(true), ..Self::default() }) };
        let (last_at, state) = replay::<M>(loaded)?;
        Ok(Self {
            head: Some(loaded.head),
            state,
            last_at,
            alarm: loaded.alarm,
            // Only the store knows how many commits the tail has; the number of records is close enough to decide when
            // the next snapshot is due.
            commits_since_snapshot: loaded.tail.len() as u64,
            ..Self::default()
        })
    }
}
