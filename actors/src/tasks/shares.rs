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

/// The permits of a process, shared by its workspaces, or by keys of another kind. Each has some permits of its own, and
/// there may be open ones for all. Unless its own are as many as there are, none holds everything. A task waits for one
/// of these first, and only then, in order, for a permit of the process: so few tasks of a crowded workspace are ahead
/// of those of others. Cheap to clone.
#[derive(Debug)]
pub struct SharedPermits<K: Eq + Hash = Address> {
    all: Arc<Semaphore>,
    open: Arc<Semaphore>,
    own: Shares<K>,
}

/// One of the permits of a process, returned when dropped.
#[derive(Debug)]
pub struct SharedPermit<K: Eq + Hash = Address> {
    _of_all: Option<OwnedSemaphorePermit>,
    /// One of the two.
    _open: Option<OwnedSemaphorePermit>,
    _own: Option<OwnPermit<K>>,
}

/// Permits that workspaces, or keys of another kind, share, and for which a bounded number of each one's tasks wait.
#[derive(Debug)]
pub struct BoundedPermits<K: Eq + Hash = Address> {
    permits: SharedPermits<K>,
    waiting: Shares<K>,
}

/// One of such permits, returned when dropped.
#[derive(Debug)]
pub struct BoundedPermit<K: Eq + Hash = Address> {
    _permit: SharedPermit<K>,
    /// Held from when the task began to wait.
    _waiting: OwnPermit<K>,
}

/// Why there is no permit now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPermit {
    /// This workspace or key holds as many as it may.
    OfShare,
    /// All permits are taken.
    OfAll,
}

impl<K: Eq + Hash> Clone for SharedPermits<K> {
    fn clone(&self) -> Self {
        Self { all: Arc::clone(&self.all), open: Arc::clone(&self.open), own: self.own.clone() }
    }
}

impl<K: Copy + Eq + Hash> SharedPermits<K> {
    /// `many` permits, of which one workspace or key may hold at most `each`.
    pub fn of(many: usize, each: usize) -> Self {
        Self::with_open(many, each, 0)
    }

    /// `many` permits, of which one workspace or key may hold at most half: a quarter is its own, and a second quarter is
    /// open. So two that hold as many as they can leave a quarter to a third.
    pub fn halved(many: usize) -> Self {
        let own = many.div_ceil(4);
        Self::with_open(many, own, many.div_ceil(2) - own)
    }

    fn with_open(many: usize, own: usize, open: usize) -> Self {
        let [all, open] = [many, open].map(|permits| Arc::new(Semaphore::new(permits)));
        Self { all, open, own: Shares::of(own) }
    }

    /// A permit for this key, once there is one.
    pub async fn enter(&self, key: K) -> SharedPermit<K> {
        // No semaphore here is ever closed.
        let (own, open) = tokio::select! {
            biased;
            own = self.own.enter(key) => (Some(own), None),
            open = Arc::clone(&self.open).acquire_owned() => (None, open.ok()),
        };
        let of_all = Arc::clone(&self.all).acquire_owned().await.ok();
        SharedPermit { _of_all: of_all, _open: open, _own: own }
    }

    /// A permit for this key, if there is one.
    ///
    /// # Errors
    /// Why there is none.
    pub fn try_enter(&self, key: K) -> Result<SharedPermit<K>, NoPermit> {
        let own = self.own.try_enter(key);
        let open = match &own {
            Some(_) => None,
            None => Some(Arc::clone(&self.open).try_acquire_owned().map_err(|_| NoPermit::OfShare)?),
        };
        let of_all = Arc::clone(&self.all).try_acquire_owned().map_err(|_| NoPermit::OfAll)?;
        Ok(SharedPermit { _of_all: Some(of_all), _open: open, _own: own })
    }

    /// Whether no workspace or key holds one of its own permits or waits for one.
    #[cfg(test)]
    pub(crate) fn is_unused(&self) -> bool {
        self.own.is_empty()
    }
}

impl<K: Copy + Eq + Hash> BoundedPermits<K> {
    /// These permits; at most `waiting` tasks of one workspace or key hold one or wait for one.
    pub fn of(permits: SharedPermits<K>, waiting: usize) -> Self {
        Self { permits, waiting: Shares::of(waiting) }
    }

    /// A permit for this key, once there is one; `None`: too many of its tasks wait.
    pub fn enter(&self, key: K) -> Option<impl Future<Output = BoundedPermit<K>>> {
        let waiting = self.waiting.try_enter(key)?;
        Some(async move { BoundedPermit { _permit: self.permits.enter(key).await, _waiting: waiting } })
    }

    /// Whether one more task of this key may wait.
    pub fn has_room(&self, key: K) -> bool {
        self.waiting.has_room(key)
    }

    /// Whether no permit is held or waited for.
    #[cfg(test)]
    pub(crate) fn is_unused(&self) -> bool {
        self.permits.is_unused() && self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn two_workspaces_that_take_all_they_can_leave_a_quarter_to_a_third() {
        for (many, taken) in [(16, [8, 4, 4, 0]), (5, [3, 2, 0, 0]), (1, [1, 0, 0, 0])] {
            let permits = SharedPermits::halved(many);
            let mut held = Vec::new();
            let mut take = |n| {
                let all: Vec<_> = std::iter::from_fn(|| permits.try_enter(Address([n; 10])).ok()).take(99).collect();
                held.push(all);
                held.last().map_or(0, Vec::len)
            };
            assert_eq!([1, 2, 3, 4].map(&mut take), taken, "{many}");
            drop(held);
            assert!(permits.is_unused());
        }
    }

    #[test]
    fn a_workspace_with_few_tasks_waits_for_one_of_each_other_at_most() {
        let permits = SharedPermits::of(1, 1);
        let [crowded, quiet] = [1, 2].map(|n| Address([n; 10]));
        let held = permits.try_enter(crowded).unwrap();
        assert_eq!(permits.try_enter(crowded).unwrap_err(), NoPermit::OfShare);
        assert_eq!(permits.try_enter(quiet).unwrap_err(), NoPermit::OfAll);
        let mut many: Vec<_> = (0..9).map(|_| Box::pin(permits.enter(crowded))).collect();
        assert!(many.iter_mut().all(|waits| waits.now_or_never().is_none()));
        let mut one = Box::pin(permits.enter(quiet));
        assert!((&mut one).now_or_never().is_none());
        drop(held);
        // The next one of the crowded workspace has begun to wait for all after the quiet one.
        assert!(many.iter_mut().all(|waits| waits.now_or_never().is_none()));
        let permit = (&mut one).now_or_never().unwrap();
        drop(permit);
        assert!((&mut many[0]).now_or_never().is_some());
    }

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
