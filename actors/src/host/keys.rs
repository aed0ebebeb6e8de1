//! The idempotency keys of a resident entity, so that a new key on a young entity costs no read.

use std::collections::{HashMap, VecDeque};

use crate::limits;
use crate::store::{KeyHash, KeyRow};

/// A bounded cache that knows whether it is complete.
#[derive(Debug)]
pub(crate) struct KeyCache {
    rows: HashMap<KeyHash, KeyRow>,
    oldest: VecDeque<KeyHash>,
    /// Every key of the entity is here, so a missing one was never used.
    complete: bool,
}

impl KeyCache {
    /// An empty cache; `complete` for an entity that does not exist yet.
    pub(crate) fn new(complete: bool) -> Self {
        Self { rows: HashMap::new(), oldest: VecDeque::new(), complete }
    }

    /// The key's effect; `None`: only the store knows.
    pub(crate) fn get(&self, key: KeyHash) -> Option<Option<KeyRow>> {
        match self.rows.get(&key) {
            Some(row) => Some(Some(*row)),
            None => self.complete.then_some(None),
        }
    }

    /// Adds a key, and drops the oldest if there are too many.
    pub(crate) fn insert(&mut self, key: KeyHash, row: KeyRow) {
        if self.rows.insert(key, row).is_none() {
            self.oldest.push_back(key);
        }
        if self.oldest.len() > limits::KEYS_CACHED
            && let Some(oldest) = self.oldest.pop_front()
        {
            self.rows.remove(&oldest);
            self.complete = false;
        }
    }
}
