//! Alarms: one durable alarm per entity, rung on time.
//!
//! The store's due index is authoritative (invariant I5). This service keeps its near part in memory and wakes
//! entities; it decides nothing. A spurious wake costs one check of the state, a lost one is found by the next scan,
//! and the first scan after a restart finds all overdue alarms.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dashmap::DashSet;
use futures_util::future::BoxFuture;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::clock::Millis;
use crate::id::EntityKey;
use crate::limits;
use crate::node::Node;
use crate::store::{Due, StoreError};
use crate::sync::LockUnpoisoned;

/// The length of the near part of the due index.
const HORIZON_MILLIS: u64 = 120_000;
/// How often it is read.
const SCAN_INTERVAL_MILLIS: u64 = 15_000;
/// How long an alarm that another process owns may be overdue before any process that finds it rings it.
pub(crate) const FORGOTTEN_AFTER_MILLIS: u64 = 5_000;
/// How long a starting process rings alarms that others may own: until it knows the live processes and has read the
/// index once more. If the owner is alive, that ring is superfluous.
const BEGINNING_MILLIS: u64 = 8_000;
/// The longest sleep of the service. Sleeping and deadlines follow different clocks: a wall clock that is set forward,
/// or a suspended machine, makes deadlines due without notice.
const SLEEP_MILLIS: u64 = 1_000;
/// Rows of one read.
const ALARMS_PER_PAGE: usize = 1_000;
/// The pause before an alarm that is still due is checked again, or an undelivered one is sent again.
const RETRY_PAUSE_MILLIS: u64 = 1_000;

/// One wake of an entity, until the entity has read it.
#[derive(Debug)]
pub(crate) struct Wake {
    entity: EntityKey,
    unread: Arc<DashSet<EntityKey>>,
    _place: OwnedSemaphorePermit,
}

impl Drop for Wake {
    fn drop(&mut self) {
        self.unread.remove(&self.entity);
    }
}

/// The near alarms of this node.
#[derive(Debug)]
pub(crate) struct Alarms {
    near: Mutex<NearAlarms>,
    earlier: Notify,
    wakes: Arc<Semaphore>,
    /// Entities with an unread wake. Each holds one permit.
    unread: Arc<DashSet<EntityKey>>,
}

impl Default for Alarms {
    fn default() -> Self {
        let wakes = Arc::new(Semaphore::new(limits::WAKES));
        Self { near: Mutex::default(), earlier: Notify::new(), wakes, unread: Arc::default() }
    }
}

/// The near alarm of an entity.
#[derive(Clone, Copy, Debug)]
struct NearAlarm {
    at: Millis,
    /// The stored alarm that it replaces, while a task of this process does what is due.
    put_off: Option<Millis>,
}

#[derive(Debug, Default)]
struct NearAlarms {
    ordered: BTreeSet<(Millis, EntityKey)>,
    by_entity: HashMap<EntityKey, NearAlarm>,
    /// Some alarms had no room here and are only in the store's index.
    left_out: bool,
}

impl NearAlarms {
    fn set(&mut self, entity: EntityKey, at: Option<Millis>) {
        self.put(entity, at.map(|at| NearAlarm { at, put_off: None }));
    }

    fn put(&mut self, entity: EntityKey, noted: Option<NearAlarm>) {
        if let Some(before) = self.by_entity.remove(&entity) {
            self.ordered.remove(&(before.at, entity));
        }
        if let Some(noted) = noted {
            self.by_entity.insert(entity, noted);
            self.ordered.insert((noted.at, entity));
        }
        if self.ordered.len() > limits::NEAR_ALARMS
            && let Some((_, latest)) = self.ordered.pop_last()
        {
            self.by_entity.remove(&latest);
            self.left_out = true;
        }
    }

    /// Notes a stored alarm. A due one that was just rung is noted to be rung again later, and keeps that time:
    /// otherwise an entity that cannot do its work would be woken without a pause.
    fn found(&mut self, entity: EntityKey, at: Millis, now: Millis) {
        let rung = self.by_entity.get(&entity).is_some_and(|noted| noted.at <= now.plus(RETRY_PAUSE_MILLIS));
        if at > now || !rung {
            self.set(entity, Some(at));
        }
    }
}

impl NearAlarms {
    /// Notes a row of the index, which may be outdated: it can only make an entity ring earlier. The alarm of work that
    /// is in flight here is kept in the index, and is put off.
    fn listed(&mut self, entity: EntityKey, at: Millis, now: Millis) {
        let tells_more = |noted: &NearAlarm| at < noted.at && noted.put_off != Some(at);
        if self.by_entity.get(&entity).is_none_or(tells_more) {
            self.found(entity, at, now);
        }
    }
}

impl Alarms {
    /// Notes an entity's durable alarm. One beyond the horizon is left to the scan.
    pub(crate) fn set(&self, entity: EntityKey, at: Option<Millis>, now: Millis) {
        let at = at.filter(|at| *at <= now.plus(HORIZON_MILLIS));
        self.change(|near| near.set(entity, at));
    }

    /// Notes that an entity rings at `at` instead of at its durable alarm, because a task of this process does what is
    /// due.
    pub(crate) fn put_off(&self, entity: EntityKey, alarm: Option<Millis>, at: Millis) {
        self.change(|near| near.put(entity, Some(NearAlarm { at, put_off: alarm })));
    }

    /// Notes an entity's alarm as it was loaded.
    pub(crate) fn note(&self, entity: EntityKey, at: Option<Millis>, now: Millis) {
        match at.filter(|at| *at <= now.plus(HORIZON_MILLIS)) {
            Some(at) => self.change(|near| near.found(entity, at, now)),
            None => self.change(|near| near.set(entity, None)),
        }
    }

    /// How many are noted, and when the earliest of them is due.
    pub(crate) fn near(&self) -> (usize, Option<Millis>) {
        let near = self.lock();
        (near.ordered.len(), near.ordered.first().map(|(at, _)| *at))
    }

    /// Changes the near alarms, and notifies the service if one is now earlier than all were before.
    fn change(&self, change: impl FnOnce(&mut NearAlarms)) {
        let mut near = self.lock();
        let first_before = near.ordered.first().copied();
        change(&mut near);
        let first = near.ordered.first().copied();
        drop(near);
        if first < first_before || first_before.is_none() {
            self.earlier.notify_one();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, NearAlarms> {
        // Nothing panics while it is held, and a half-done change would only cost a spurious wake.
        self.near.lock_unpoisoned()
    }

    /// Whether there is room again for the alarms that were left out.
    fn has_room(&self) -> bool {
        let mut near = self.lock();
        let room = near.left_out && near.ordered.len() <= limits::NEAR_ALARMS / 2;
        near.left_out &= !room;
        room
    }

    /// Takes due alarms, as many as may be rung at once, and returns when the next one is due.
    fn take_due(&self, now: Millis) -> (Vec<EntityKey>, Option<Millis>) {
        let mut near = self.lock();
        let mut due = Vec::new();
        while let Some((at, entity)) = near.ordered.first().copied() {
            if at > now || due.len() == limits::WAKES {
                return (due, Some(at));
            }
            // It is kept, a little later, until the entity reports that it is done: a wake that is lost between
            // here and a decision is repeated.
            near.set(entity, Some(now.plus(RETRY_PAUSE_MILLIS)));
            due.push(entity);
        }
        (due, None)
    }

    /// A wake for an entity, once there is a permit; `None` if the entity has an unread one, which suffices. Otherwise
    /// an entity that is slow to load would take all permits, one after the other. Only the service calls this, for one
    /// entity at a time.
    async fn wake_for(&self, entity: EntityKey) -> Option<Wake> {
        if self.unread.contains(&entity) {
            return None;
        }
        // The semaphore is never closed.
        let place = Arc::clone(&self.wakes).acquire_owned().await.ok()?;
        self.unread.insert(entity);
        Some(Wake { entity, unread: Arc::clone(&self.unread), _place: place })
    }
}

/// Reads the due index up to the horizon, as far as there is room for it and it can be read. Returns why a part could
/// not be read: then the index is to be read again from its beginning.
async fn scan(node: &Arc<Node>, is_first: bool) -> Result<Option<StoreError>, StoreError> {
    let upto = node.clock.now().plus(HORIZON_MILLIS);
    let (mut after, mut missing): (Option<Due>, _) = (None, None);
    loop {
        let page = node.store.due(after, upto, ALARMS_PER_PAGE).await?;
        let now = node.clock.now();
        let mut near = node.alarms.lock();
        for due in &page.alarms {
            // An alarm of another process is rung here too once it seems forgotten.
            let is_anybodys = match is_first {
                true => due.at <= now.plus(BEGINNING_MILLIS),
                false => due.at <= now && now.since(due.at) >= FORGOTTEN_AFTER_MILLIS,
            };
            if is_anybodys || node.members.owns(due.entity) {
                near.listed(due.entity, due.at, now);
            }
        }
        // The index is in order of time, so alarms left out now are later than all that are here.
        let full = near.ordered.len() >= limits::NEAR_ALARMS;
        near.left_out |= full;
        drop(near);
        node.alarms.earlier.notify_one();
        missing = missing.or(page.missing);
        match page.alarms.last() {
            Some(last) if page.alarms.len() == ALARMS_PER_PAGE && !full => after = Some(*last),
            _ => return Ok(missing),
        }
    }
}

/// Runs the service until the node stops.
pub(crate) async fn run(node: Arc<Node>) {
    node.stopping.run_until_cancelled(serve(&node)).await;
}

async fn serve(node: &Arc<Node>) {
    let mut scans = Scans::new(node);
    loop {
        scans.begin();
        let next = ring(node).await;
        let next = next.into_iter().chain(scans.next_at()).min();
        let wait = next.map_or(SLEEP_MILLIS, |next| next.since(node.clock.now()).clamp(1, SLEEP_MILLIS));
        tokio::select! {
            () = scans.ended() => {}
            () = node.alarms.earlier.notified() => {}
            () = tokio::time::sleep(Duration::from_millis(wait)) => {}
        }
    }
}

/// Rings due alarms, and returns when the next alarm is due.
async fn ring(node: &Arc<Node>) -> Option<Millis> {
    let (due, next) = node.alarms.take_due(node.clock.now());
    for entity in due {
        if let Some(wake) = node.alarms.wake_for(entity).await {
            // A wake that fails is repeated: the alarm is kept.
            let _told = node.residents(entity.kind).wake(node, entity, wake);
        }
    }
    next
}

/// Schedules reads of the due index: one at a time, and in parallel with ringing, because a store may take long.
struct Scans<'n> {
    node: &'n Arc<Node>,
    next: Millis,
    /// No scan has ended yet.
    is_first: bool,
    /// The other processes that own entities.
    others: u128,
    /// They have changed since the last scan began.
    moved: bool,
    running: Option<BoxFuture<'n, Result<Option<StoreError>, StoreError>>>,
}

impl<'n> Scans<'n> {
    fn new(node: &'n Arc<Node>) -> Self {
        let next = node.clock.now();
        let others = node.members.view();
        Self { node, next, is_first: true, others, moved: false, running: None }
    }

    /// Begins the next scan if it is due.
    fn begin(&mut self) {
        let now = self.node.clock.now();
        // A clock that was set back must not delay the next scan by as much.
        let set_back = self.next.since(now) > SCAN_INTERVAL_MILLIS;
        // A process that has ended leaves alarms that this one has skipped.
        let view = self.node.members.view();
        self.moved |= view != self.others;
        self.others = view;
        if self.running.is_none() && (now >= self.next || set_back || self.moved || self.node.alarms.has_room()) {
            self.moved = false;
            self.next = now.plus(SCAN_INTERVAL_MILLIS);
            self.running = Some(Box::pin(scan(self.node, self.is_first)));
        }
    }

    /// When the next scan begins; `None` while one is running.
    fn next_at(&self) -> Option<Millis> {
        self.running.is_none().then_some(self.next)
    }

    /// Continues the running scan, and returns when it has ended.
    async fn ended(&mut self) {
        let Some(running) = &mut self.running else { return std::future::pending().await };
        let ended = running.await;
        self.running = None;
        // Alarms missed by a failed first scan still count as forgotten.
        self.is_first &= ended.is_err();
        if let Some(error) = ended.unwrap_or_else(Some) {
            tracing::warn!(%error, "could not read all due alarms; retrying");
            self.next = self.node.clock.now().plus(RETRY_PAUSE_MILLIS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Address;

    const NOW: Millis = Millis(1_000_000);

    fn entity(n: usize) -> EntityKey {
        EntityKey::conversation(Address([1; 10]), Address::derive("test", &[&n.to_le_bytes()]))
    }

    #[test]
    fn the_earliest_alarms_are_kept_when_there_is_no_room_for_all() {
        let alarms = Alarms::default();
        let later = 10;
        for n in (0..limits::NEAR_ALARMS + later).rev() {
            alarms.set(entity(n), Some(NOW.plus(n as u64 / 100)), NOW);
        }
        assert_eq!(alarms.lock().ordered.len(), limits::NEAR_ALARMS);
        assert_eq!(alarms.lock().by_entity.len(), limits::NEAR_ALARMS);
        assert!((0..limits::NEAR_ALARMS - 100).step_by(997).all(|n| alarms.lock().by_entity.contains_key(&entity(n))));
        assert!(!alarms.has_room());
        for n in 0..limits::NEAR_ALARMS / 2 {
            alarms.set(entity(n), None, NOW);
        }
        assert!(alarms.has_room(), "now what was left out is read");
        assert!(!alarms.has_room(), "once");
    }

    #[test]
    fn due_alarms_are_taken_in_order_so_many_at_once_and_noted_again() {
        let alarms = Alarms::default();
        let due = limits::WAKES + 5;
        for n in 0..due {
            alarms.set(entity(n), Some(Millis(n as u64)), NOW);
        }
        alarms.set(entity(due), Some(NOW.plus(1)), NOW);
        let (first, next) = alarms.take_due(NOW);
        assert_eq!(first, (0..limits::WAKES).map(entity).collect::<Vec<_>>());
        assert_eq!(next, Some(Millis(limits::WAKES as u64)));
        let (rest, next) = alarms.take_due(NOW);
        assert_eq!((rest.len(), next), (5, Some(NOW.plus(1))), "one that is not due is not taken");
        assert_eq!(alarms.take_due(NOW).0, []);
        assert_eq!(
            alarms.take_due(NOW.plus(RETRY_PAUSE_MILLIS)).0.len(),
            limits::WAKES,
            "no entity has reported that it is done"
        );
    }

    #[test]
    fn a_row_of_the_index_may_be_history_and_puts_nothing_off() {
        let alarms = Alarms::default();
        alarms.set(entity(1), Some(NOW.plus(5_000)), NOW);
        alarms.lock().listed(entity(1), NOW.plus(100_000), NOW);
        assert_eq!(alarms.near(), (1, Some(NOW.plus(5_000))));
        alarms.lock().listed(entity(1), NOW.plus(2_000), NOW);
        assert_eq!(alarms.near(), (1, Some(NOW.plus(2_000))));
    }

    #[test]
    fn an_alarm_put_off_is_not_rung_for_the_row_that_it_replaces() {
        let alarms = Alarms::default();
        let rings = |now| alarms.take_due(now).0.len();
        alarms.set(entity(1), Some(NOW), NOW);
        assert_eq!(rings(NOW), 1);
        alarms.put_off(entity(1), Some(NOW), NOW.plus(60_000));
        alarms.lock().listed(entity(1), NOW, NOW.plus(15_000));
        assert_eq!((rings(NOW.plus(59_999)), rings(NOW.plus(60_000))), (0, 1));
        alarms.put_off(entity(1), Some(NOW), NOW.plus(120_000));
        alarms.lock().listed(entity(1), NOW.plus(70_000), NOW.plus(75_000));
        assert_eq!(rings(NOW.plus(75_000)), 1, "another process has moved it");
        alarms.put_off(entity(1), Some(NOW), NOW.plus(140_000));
        alarms.set(entity(1), Some(NOW.plus(150_000)), NOW.plus(80_000));
        alarms.lock().listed(entity(1), NOW, NOW.plus(90_000));
        assert_eq!(rings(NOW.plus(90_000)), 1, "the work is over, and this row may be of the next");
    }

    #[test]
    fn an_alarm_just_rung_for_is_not_rung_again_by_being_found_stored() {
        let alarms = Alarms::default();
        let rings = |now| alarms.take_due(now).0.len();
        alarms.note(entity(1), Some(NOW), NOW);
        assert_eq!(rings(NOW), 1);
        alarms.note(entity(1), Some(NOW), NOW);
        assert_eq!(rings(NOW.plus(RETRY_PAUSE_MILLIS - 1)), 0);
        assert_eq!(rings(NOW.plus(RETRY_PAUSE_MILLIS)), 1);
        alarms.note(entity(1), Some(NOW.plus(5_000)), NOW);
        assert_eq!((rings(NOW.plus(4_999)), rings(NOW.plus(5_000))), (0, 1), "one that was moved rings then");
        alarms.note(entity(1), None, NOW);
        assert_eq!(rings(NOW.plus(100_000)), 0, "one that was cleared does not");
    }
}
