//! How many of a node's permits to send one workspace may hold.
//!
//! A hanging receiver holds its permit for the timeout of an attempt, and a workspace may have any number of receivers:
//! each message may name another one. So while more than half of the node's permits are free, any workspace gets one;
//! of the other half a workspace gets only its share. The hanging receivers of many workspaces may hold all of these,
//! so some permits are reserved for workspaces that hold hardly any.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use dashmap::DashMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::return_times;
use crate::clock::Millis;
use crate::id::Address;
use crate::limits;

/// Permits that any workspace gets, however many it holds.
const OPEN_PERMITS: usize = limits::DELIVERIES / 2;
/// Reserved permits, of which a workspace has at most [`MAX_RESERVED_PER_WORKSPACE`].
const RESERVED_PERMITS: usize = limits::DELIVERIES / 4;
/// Enough for a workspace whose receivers answer at once.
const MAX_RESERVED_PER_WORKSPACE: usize = 4;

/// A node's permits, and how they are shared.
#[derive(Debug)]
pub(super) struct SendPermits {
    permits: Arc<Semaphore>,
    reserved_permits: Arc<Semaphore>,
    of: DashMap<Address, Arc<WorkspacePermits>>,
}

/// What one workspace may hold.
#[derive(Debug)]
struct WorkspacePermits {
    permits: Arc<Semaphore>,
    /// Its permits among the reserved ones.
    reserved: Arc<Semaphore>,
    waiting: AtomicUsize,
    /// Arrived deliveries, each of which lets one rejected lane come back soon.
    arrived: AtomicUsize,
    /// When the lane that was sent away last comes back.
    last_return: AtomicU64,
}

/// Whether a lane may be sent away when many wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Urgency {
    /// It may.
    Normal,
    /// It waits in any case: its retry was requested, or others wait for its result.
    Urgent,
}

/// Permission to send one delivery, until it is dropped.
#[derive(Debug)]
pub(super) struct SendPermit {
    of_workspace: Arc<WorkspacePermits>,
    _of_share: Option<OwnedSemaphorePermit>,
    _reserved: Option<OwnedSemaphorePermit>,
    _of_node: Option<OwnedSemaphorePermit>,
}

/// A lane waits for a permit of its workspace.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Default for SendPermits {
    fn default() -> Self {
        let permits = Semaphore::new(limits::DELIVERIES);
        let reserved_permits = Semaphore::new(RESERVED_PERMITS);
        Self { permits: Arc::new(permits), reserved_permits: Arc::new(reserved_permits), of: DashMap::new() }
    }
}

impl Default for WorkspacePermits {
    fn default() -> Self {
        Self {
            permits: Arc::new(Semaphore::new(limits::DELIVERIES_OF_WORKSPACE)),
            reserved: Arc::new(Semaphore::new(MAX_RESERVED_PER_WORKSPACE)),
            waiting: AtomicUsize::new(0),
            arrived: AtomicUsize::new(0),
            last_return: AtomicU64::new(0),
        }
    }
}

impl SendPermits {
    /// How many permits are taken.
    pub(super) fn taken(&self) -> usize {
        (limits::DELIVERIES + RESERVED_PERMITS)
            .saturating_sub(self.permits.available_permits() + self.reserved_permits.available_permits())
    }

    /// Waits for a permit. `Err`: too many lanes of this workspace wait; come back at this time. An urgent lane waits
    /// in any case.
    pub(super) async fn enter(&self, workspace: Address, urgency: Urgency, now: Millis) -> Result<SendPermit, Millis> {
        let of_workspace = Arc::clone(&self.of.entry(workspace).or_default());
        let mut of_share = Arc::clone(&of_workspace.permits).try_acquire_owned().ok();
        if of_share.is_none() && self.permits.available_permits() <= OPEN_PERMITS {
            let waiting = of_workspace.waiting.fetch_add(1, Ordering::Relaxed);
            let _waiting = Waiting(&of_workspace.waiting);
            if waiting >= limits::SHARE_WAITING && urgency == Urgency::Normal {
                return Err(of_workspace.return_time(now));
            }
            of_share = Arc::clone(&of_workspace.permits).acquire_owned().await.ok();
        }
        let reserved_permits = async {
            let reserved = Arc::clone(&of_workspace.reserved).acquire_owned().await;
            (reserved.ok(), Arc::clone(&self.reserved_permits).acquire_owned().await.ok())
        };
        // No semaphore here is ever closed.
        let (reserved, of_node) = tokio::select! {
            biased;
            open = Arc::clone(&self.permits).acquire_owned() => (None, open.ok()),
            reserved_permits = reserved_permits => reserved_permits,
        };
        Ok(SendPermit { of_workspace, _of_share: of_share, _reserved: reserved, _of_node: of_node })
    }

    /// Forgets workspaces that send nothing.
    pub(super) fn sweep(&self) {
        self.of.retain(|_, of_workspace| Arc::strong_count(of_workspace) > 1);
    }
}

impl SendPermit {
    /// The delivery has arrived.
    pub(super) fn arrived(&self) {
        self.of_workspace.arrived.fetch_add(1, Ordering::Relaxed);
    }
}

impl WorkspacePermits {
    /// When a lane that comes at `now` is to come back.
    fn return_time(&self, now: Millis) -> Millis {
        let one_less = |arrived: usize| arrived.min(limits::SHARE_WAITING).checked_sub(1);
        let finds_room = self.arrived.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok();
        let next =
            |last: u64| return_times::next(Millis(last), now.plus(return_times::CROWDED_MILLIS), finds_room, now).0;
        let moved = self.last_return.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(next(last)));
        Millis(next(moved.unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::return_times::{APART_MILLIS, APART_WELL_MILLIS, CROWDED_MILLIS};
    use super::*;

    const NOW: Millis = Millis(1_000_000);

    fn workspace(n: u8) -> Address {
        Address([n; 10])
    }

    #[test]
    fn hanging_receivers_of_a_workspace_leave_permits_to_others() {
        let send_permits = SendPermits::default();
        let enter = |n| send_permits.enter(workspace(n), Urgency::Normal, NOW).now_or_never();
        let mut held: Vec<_> = std::iter::from_fn(|| enter(1)).take(limits::DELIVERIES).collect();
        assert_eq!(held.len(), OPEN_PERMITS, "half of the permits were free for whoever came");
        held.extend(std::iter::from_fn(|| enter(2)).take(limits::DELIVERIES));
        assert_eq!(send_permits.taken(), OPEN_PERMITS + limits::DELIVERIES_OF_WORKSPACE);
        held.extend(std::iter::from_fn(|| enter(3)).take(limits::DELIVERIES));
        assert_eq!(send_permits.taken(), limits::DELIVERIES);
        // Three workspaces hold all permits, and others still get some, none of them many.
        for n in 4..4 + (RESERVED_PERMITS / MAX_RESERVED_PER_WORKSPACE) as u8 {
            let reserved: Vec<_> = std::iter::from_fn(|| enter(n)).take(limits::DELIVERIES).collect();
            assert_eq!(reserved.len(), MAX_RESERVED_PER_WORKSPACE, "{n}");
            held.extend(reserved);
        }
        assert!(enter(100).is_none());
        let mut fifth = Box::pin(send_permits.enter(workspace(4), Urgency::Normal, NOW));
        assert!((&mut fifth).now_or_never().is_none());
        let fourth = held.iter().position(|permit| {
            Arc::ptr_eq(&permit.as_ref().unwrap().of_workspace, &send_permits.of.get(&workspace(4)).unwrap())
        });
        drop(held.swap_remove(fourth.unwrap()));
        assert!((&mut fifth).now_or_never().is_some(), "who waits gets what its workspace gives back");
        drop((fifth, held));
        assert_eq!(send_permits.taken(), 0);
        send_permits.sweep();
        assert!(send_permits.of.is_empty());
    }

    #[test]
    fn a_crowded_workspace_sends_deliveries_back_at_spread_times() {
        let send_permits = SendPermits::default();
        let held = std::iter::from_fn(|| send_permits.enter(workspace(1), Urgency::Normal, NOW).now_or_never());
        let held: Vec<_> = held.map(Result::unwrap).collect();
        let mut waiting: Vec<_> = (0..limits::SHARE_WAITING)
            .map(|_| Box::pin(send_permits.enter(workspace(1), Urgency::Normal, NOW)))
            .collect();
        for one in &mut waiting {
            assert!(one.as_mut().now_or_never().is_none());
        }
        let return_time = || {
            send_permits.enter(workspace(1), Urgency::Normal, NOW).now_or_never().map(|entered| entered.unwrap_err())
        };
        assert_eq!(return_time(), Some(NOW.plus(CROWDED_MILLIS + APART_MILLIS)));
        held[0].arrived();
        assert_eq!(return_time(), Some(NOW.plus(CROWDED_MILLIS + APART_MILLIS + APART_WELL_MILLIS)));
        assert_eq!(return_time(), Some(NOW.plus(CROWDED_MILLIS + 2 * APART_MILLIS + APART_WELL_MILLIS)));
        let urgent = send_permits.enter(workspace(1), Urgency::Urgent, NOW);
        assert!(urgent.now_or_never().is_none(), "it waits with the others");
        drop(waiting);
        assert!(return_time().is_none(), "there is room to wait again");
    }
}
