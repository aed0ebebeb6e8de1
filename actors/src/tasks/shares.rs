//! Shares: how many of a process's permits one workspace, or another key, may hold, so that hanging work of one leaves
//! permits for others.

use std::hash::Hash;
use std::sync::Arc;

use dashmap::DashMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::id::Address;

/// Permits that each workspace, or each key of another kind, has for itself. Cheap to clone.
#[derive(Debug)]
pub struct Shares<K: Eq + Hash = Address> {
    each: usize,
    /// The permits of those that hold some, or wait for one.
    of: Arc<DashMap<K, Arc<Semaphore>>>,
}

/// One of the permits of a workspace or key, returned when dropped.
#[derive(Debug)]
pub struct OwnPermit<K: Eq + Hash = Address> {
    of: Arc<DashMap<K, Arc<Semaphore>>>,
    key: K,
    permit: Option<OwnedSemaphorePermit>,
}

impl<K: Eq + Hash> Clone for Shares<K> {
    fn clone(&self) -> Self {
        Self { each: self.each, of: Arc::clone(&self.of) }
    }
}

impl<K: Copy + Eq + Hash> Shares<K> {
    /// This many permits for each.
    pub fn of(each: usize) -> Self {
        Self { each, of: Arc::default() }
    }

    /// A permit of this key's, once one is free.
    pub async fn enter(&self, key: K) -> OwnPermit<K> {
        let (mut permit, share) = self.begin(key);
        // No semaphore here is ever closed.
        permit.permit = share.acquire_owned().await.ok();
        permit
    }

    /// A permit of this key's, if one is free.
    pub fn try_enter(&self, key: K) -> Option<OwnPermit<K>> {
        let (mut permit, share) = self.begin(key);
        permit.permit = Some(share.try_acquire_owned().ok()?);
        Some(permit)
    }

    /// Whether one is free.
    pub(crate) fn has_room(&self, key: K) -> bool {
        self.of.get(&key).is_none_or(|share| share.available_permits() > 0)
    }

    /// Whether no permit is held or waited for.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// A permit not acquired yet: made before the first await, so that a cancelled wait leaves nothing behind.
    fn begin(&self, key: K) -> (OwnPermit<K>, Arc<Semaphore>) {
        let permit = OwnPermit { of: Arc::clone(&self.of), key, permit: None };
        let share = self.of.entry(key).or_insert_with(|| Arc::new(Semaphore::new(self.each)));
        (permit, Arc::clone(&share))
    }
}

impl<K: Eq + Hash> Drop for OwnPermit<K> {
    fn drop(&mut self) {
        self.permit = None;
        // No permit is held or waited for: only the map refers to it.
        self.of.remove_if(&self.key, |_, share| Arc::strong_count(share) == 1);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn a_workspace_has_its_places_whatever_others_hold() {
        let (shares, [one, other]) = (Shares::of(2), [1, 2].map(|n| Address([n; 10])));
        let mut held: Vec<_> = std::iter::from_fn(|| shares.try_enter(one)).take(9).collect();
        assert_eq!(held.len(), 2);
        assert!(shares.try_enter(other).is_some());
        let mut waits = Box::pin(shares.enter(one));
        assert!((&mut waits).now_or_never().is_none());
        held.pop();
        assert!(waits.now_or_never().is_some());
        let mut given_up = Box::pin(shares.enter(one));
        held.push(shares.try_enter(one).unwrap());
        assert!((&mut given_up).now_or_never().is_none());
        drop(held);
        drop(given_up);
        assert!(shares.of.is_empty());
    }
}
