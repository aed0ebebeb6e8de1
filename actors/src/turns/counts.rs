//! Live attempts per agent and per workspace, so that a slow model or a crowded workspace is distinguished from a full
//! node.

use std::hash::Hash;
use std::sync::Arc;

use dashmap::DashMap;

/// See the module's text. Attempts that were committed before count too, so there may be more than the bound.
#[derive(Debug)]
pub(super) struct Counts<K: Eq + Hash> {
    of: DashMap<K, usize>,
}

/// One attempt, until it is dropped.
#[derive(Debug)]
pub(super) struct Counted<K: Eq + Hash> {
    counts: Arc<Counts<K>>,
    key: K,
}

impl<K: Eq + Hash> Default for Counts<K> {
    fn default() -> Self {
        Self { of: DashMap::new() }
    }
}

impl<K: Clone + Eq + Hash> Counts<K> {
    /// How many attempts with this key are alive.
    pub(super) fn of(&self, key: &K) -> usize {
        self.of.get(key).map_or(0, |count| *count)
    }

    /// Counts an attempt until the returned value is dropped.
    pub(super) fn count(self: &Arc<Self>, key: K) -> Counted<K> {
        *self.of.entry(key.clone()).or_default() += 1;
        Counted { counts: Arc::clone(self), key }
    }
}

impl<K: Eq + Hash> Drop for Counted<K> {
    fn drop(&mut self) {
        if let Some(mut count) = self.counts.of.get_mut(&self.key) {
            *count -= 1;
        }
        self.counts.of.remove_if(&self.key, |_, count| *count == 0);
    }
}
