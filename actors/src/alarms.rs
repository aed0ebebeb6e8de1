//! What happens later: one durable alarm per entity, woken on time.
//!
//! The store's due index is the truth (DESIGN invariant I5). This service keeps the near part of it in memory and
//! wakes entities; it never decides anything. A spurious wake costs a look at the state, a lost one is found by the
//! next scan, and after a restart everything that is overdue is found by the first.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock::Millis;
use crate::id::{EntityKey, Kind};
use crate::node::Node;
use crate::store::{Due, StoreError};

/// How far ahead of now the due index is read.
const HORIZON_MILLIS: u64 = 120_000;
/// How often it is read.
const SCAN_EVERY_MILLIS: u64 = 15_000;
/// Rows of one read.
const PAGE: usize = 1_000;
/// After which an alarm that is still due is looked at again, or one that could not be delivered is sent again.
const AGAIN_MILLIS: u64 = 1_000;

/// The near alarms of this node.
#[derive(Debug, Default)]
pub struct Alarms {
    near: Mutex<Near>,
    earlier: Notify,
}

#[derive(Debug, Default)]
struct Near {
    ordered: BTreeSet<(Millis, EntityKey)>,
    by_entity: HashMap<EntityKey, Millis>,
}

impl Near {
    fn set(&mut self, entity: EntityKey, at: Option<Millis>) {
        if let Some(before) = self.by_entity.remove(&entity) {
            self.ordered.remove(&(before, entity));
        }
        if let Some(at) = at {
            self.by_entity.insert(entity, at);
            self.ordered.insert((at, entity));
        }
    }
}

impl Alarms {
    /// Takes note of an entity's alarm, as it is durable now. One beyond the horizon is left to the scan.
    pub(crate) fn set(&self, entity: EntityKey, at: Option<Millis>, now: Millis) {
        let at = at.filter(|at| *at <= now.plus(HORIZON_MILLIS));
        let mut near = self.lock();
        let first_before = near.ordered.first().copied();
        near.set(entity, at);
        let first = near.ordered.first().copied();
        drop(near);
        if first < first_before || first_before.is_none() {
            self.earlier.notify_one();
        }
    }

    /// Takes note of an entity's alarm as it was found stored. One that is due and was just rung for is noted to be
    /// rung for again, and stays so: else an entity that cannot do its work would be woken without a pause.
    pub(crate) fn note(&self, entity: EntityKey, at: Option<Millis>, now: Millis) {
        let rung = |near: &Near| near.by_entity.get(&entity).is_some_and(|noted| *noted <= now.plus(AGAIN_MILLIS));
        if at.is_none_or(|at| at > now) || !rung(&self.lock()) {
            self.set(entity, at, now);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Near> {
        // Nothing panics while it is held, and a half-done change would only cost a spurious wake.
        self.near.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the alarms that are due, and tells when the next one is.
    fn take_due(&self, now: Millis) -> (Vec<EntityKey>, Option<Millis>) {
        let mut near = self.lock();
        let mut due = Vec::new();
        while let Some((at, entity)) = near.ordered.first().copied() {
            if at > now {
                return (due, Some(at));
            }
            // It stays noted, a little later, until the entity says that it is done with it: a wake that gets lost
            // between here and a decision is repeated.
            near.set(entity, Some(now.plus(AGAIN_MILLIS)));
            due.push(entity);
        }
        (due, None)
    }
}

/// Reads the due index up to the horizon.
async fn scan(node: &Arc<Node>) -> Result<(), StoreError> {
    let upto = node.clock.now().plus(HORIZON_MILLIS);
    let mut after: Option<Due> = None;
    loop {
        let page = node.store.due(after, upto, PAGE).await?;
        let mut near = node.alarms.lock();
        for due in &page {
            if near.by_entity.get(&due.entity).is_none_or(|at| due.at < *at) {
                near.set(due.entity, Some(due.at));
            }
        }
        drop(near);
        match page.last() {
            Some(last) if page.len() == PAGE => after = Some(*last),
            _ => return Ok(()),
        }
    }
}

/// Runs the service until the node is told to stop.
pub(crate) async fn run(node: Arc<Node>) {
    let mut next_scan = node.clock.now();
    while !node.admission.is_closed() {
        let now = node.clock.now();
        if now >= next_scan {
            next_scan = now.plus(SCAN_EVERY_MILLIS);
            if let Err(error) = scan(&node).await {
                tracing::warn!(%error, "the due alarms could not be read; trying again");
                next_scan = now.plus(AGAIN_MILLIS);
            }
        }
        let (due, next) = node.alarms.take_due(node.clock.now());
        for entity in due {
            wake(&node, entity);
        }
        let next = next.map_or(next_scan, |next| next.min(next_scan));
        let wait = Duration::from_millis(next.since(node.clock.now()).max(1));
        tokio::select! {
            () = node.alarms.earlier.notified() => {}
            () = node.stopping.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

fn wake(node: &Arc<Node>, entity: EntityKey) {
    // A wake that fails is repeated: the alarm stays noted.
    let _told = match entity.kind {
        Kind::Conversation => node.conversations.wake(node, entity),
        Kind::Contact => node.contacts.wake(node, entity),
        Kind::Workspace => node.workspaces.wake(node, entity),
        Kind::Installation => node.installation.wake(node, entity),
    };
}
