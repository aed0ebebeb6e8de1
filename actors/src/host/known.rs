//! The in-memory state of an entity: as the store holds it, and enough to decide the next command without a read.

use crate::clock::Millis;
use crate::machine::Machine;
use crate::store::{Head, Loaded, StoreError};

use super::keys::KeyCache;
use super::replay::replay;

/// An entity as the store holds it, as far as this process knows.
pub(crate) struct Known<M: Machine> {
    /// Where its log ends; `None` for an entity that does not exist yet.
    pub(super) head: Option<Head>,
    pub(super) state: Option<M::State>,
    /// The time of the newest record: time never runs backwards within an entity.
    pub(super) last_at: Millis,
    /// What is durable.
    pub(super) alarm: Option<Millis>,
    /// When its alarm rings here although what is due is under way; what is due earlier must ring before.
    pub(super) put_off: Option<Millis>,
    pub(super) commits_since_snapshot: u64,
    pub(super) keys: KeyCache,
    /// Another process is at work on it, so what is known here is to be loaded again before it is acted upon.
    pub(super) is_stale: bool,
}

impl<M: Machine> Default for Known<M> {
    /// What is known before anything was asked: nothing, and least of all that there is no key.
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

impl<M: Machine> Known<M> {
    /// What the store has loaded.
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
            // How many commits the tail holds is the store's to know; the number of records is close enough for
            // deciding when the next snapshot is due.
            commits_since_snapshot: loaded.tail.len() as u64,
            ..Self::default()
        })
    }
}
