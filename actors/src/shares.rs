//! Shares: how many of a process's permits one workspace may hold, so that hanging work of one leaves permits for
//! others.

use std::sync::Arc;

use dashmap::DashMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::id::Address;

/// Permits that each workspace has for itself. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Shares {
    each: usize,
    /// The permits of workspaces that hold some, or wait for one.
    of: Arc<DashMap<Address, Arc<Semaphore>>>,
}

/// One of a workspace's permits, returned when dropped.
#[derive(Debug)]
pub struct OwnPermit {
    all: Shares,
    workspace: Address,
    permit: Option<OwnedSemaphorePermit>,
}

impl Shares {
    /// This many permits for each.
    pub fn of(each: usize) -> Self {
        Self { each, of: Arc::default() }
    }

    /// A permit of this workspace's, once one is free.
    pub async fn enter(&self, workspace: Address) -> OwnPermit {
        let (mut permit, share) = self.begin(workspace);
        // No semaphore here is ever closed.
        permit.permit = share.acquire_owned().await.ok();
        permit
    }

    /// The same, if one is free.
    pub fn try_enter(&self, workspace: Address) -> Option<OwnPermit> {
        let (mut permit, share) = self.begin(workspace);
        permit.permit = Some(share.try_acquire_owned().ok()?);
        Some(permit)
    }

    /// Whether one is free.
    pub(crate) fn has_room(&self, workspace: Address) -> bool {
        self.of.get(&workspace).is_none_or(|share| share.available_permits() > 0)
    }

    /// Whether no permit is held or waited for.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// A permit not acquired yet: made before the first await, so that a cancelled wait leaves nothing behind.
    fn begin(&self, workspace: Address) -> (OwnPermit, Arc<Semaphore>) {
        let permit = OwnPermit { all: self.clone(), workspace, permit: None };
        let share = self.of.entry(workspace).or_insert_with(|| Arc::new(Semaphore::new(self.each)));
        (permit, Arc::clone(&share))
    }
}

impl Drop for OwnPermit {
    fn drop(&mut self) {
        self.permit = None;
        // No permit is held or waited for: only the map refers to it.
        self.all.of.remove_if(&self.workspace, |_, share| Arc::strong_count(share) == 1);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn a_workspace_has_its_places_whatever_others_hold_and_leaves_nothing_behind() {
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
