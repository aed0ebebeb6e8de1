//! The outbox: sends events to their receivers, in order for each log and receiver, at least once, and never before
//! they are durable.
//!
//! ```text
//! a decision makes events ──► any receivers? ──► a mark in the same commit: send from here, check again at that time
//!                                                        │ (durable, with the entity's alarm)
//!                 committed ──► the log's courier ◄──────┘
//!                                 │ reads each event once, puts it on the lanes of its receivers
//!                                 ├── lane ► circuit breaker ► POST ► 2xx ─┐
//!                                 └── lane ► circuit breaker ► POST ► 500 ─┤ one note for as much as was done
//!                                                                          ▼ meanwhile: what arrived, which lanes
//!                                                                            wait, until when
//! ```
//!
//! The log is the queue (see [`state`]): nothing is copied, and a log without receivers writes nothing. The
//! configuration at the time of sending decides which events go to which receivers ([`receivers`]). If the process
//! ends, the alarm finds unfinished deliveries; an event may then be sent twice, with the same id, but is not lost.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::channel::Channel;
use crate::clock::Millis;
use crate::codec;
use crate::id::{Address, EndpointId, EntityKey};
use crate::limits;
use crate::machine::Record;
use crate::node::Node;
use crate::store::{KeyRange, Pages, Store, StoreError};
use crate::sync::LockUnpoisoned;
use crate::tables::{CHANNELS, WORKSPACES};
use crate::tasks::drain;
use crate::tasks::log_limiter::LogLimiter;
use crate::tasks::single_flight::SingleFlight;
use crate::workspace::address_of;

mod attempt_telemetry;
mod circuit_breaker;
mod courier;
pub mod keys;
pub mod lane;
mod listeners;
mod note;
pub mod pending;
pub(crate) mod port;
mod read_log;
pub mod receivers;
pub(crate) mod resume;
mod retry_signal;
mod return_times;
mod run;
mod schedule;
mod send_permits;
mod sending;
mod settings;
pub mod state;
mod step;

pub use keys::DeliveryKey;
pub use lane::{Attempt, Delivery, EarlierEnd, End, Lane, LaneRow, Receiver, RetryRequest};
pub use listeners::Listeners;
pub(crate) use port::Sends;
pub use port::{Answer, Deliverer, DeliveryRequest, Happened, LogChannel, LogOf, LogScope, NoDeliverer, Undelivered};
pub use sending::Sending;
pub use state::{Outbox, Settlement};
pub use step::ATTEMPT_TIMEOUT;

/// How often a log line reports damaged events: a damaged log is read every second.
const DAMAGE_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The couriers of a node, and what they share.
#[derive(Debug)]
pub struct Outboxes {
    couriers: DashMap<EntityKey, Arc<CourierSignal>>,
    active: AtomicUsize,
    breakers: circuit_breaker::CircuitBreakers,
    send_permits: send_permits::SendPermits,
    endpoints: listeners::EndpointCache,
    workspaces: DashMap<Address, Arc<str>>,
    resuming: Arc<SingleFlight<circuit_breaker::BreakerKey>>,
    stopping: AtomicBool,
    /// Log lines about unreadable logs, about damaged ones, and about damaged lanes.
    unread: LogLimiter,
    damaged: LogLimiter,
    set_aside: LogLimiter,
}

impl Default for Outboxes {
    fn default() -> Self {
        Self {
            couriers: DashMap::new(),
            active: AtomicUsize::new(0),
            breakers: circuit_breaker::CircuitBreakers::default(),
            send_permits: send_permits::SendPermits::default(),
            endpoints: listeners::EndpointCache::default(),
            workspaces: DashMap::new(),
            resuming: Arc::default(),
            stopping: AtomicBool::new(false),
            unread: LogLimiter::new(),
            damaged: LogLimiter::every(DAMAGE_LOG_INTERVAL),
            set_aside: LogLimiter::every(DAMAGE_LOG_INTERVAL),
        }
    }
}

/// How a courier is notified of more work.
#[derive(Debug)]
struct CourierSignal {
    /// The first event that its courier has to read; `None`: the courier finds it.
    from: Option<u64>,
    /// The newest event.
    upto: AtomicU64,
    is_raised: AtomicBool,
    /// An alarm rang.
    check: AtomicBool,
    /// Lanes to resume now, before their time.
    resume: Mutex<Vec<Lane>>,
    notify: Notify,
    /// When the courier began.
    since: Millis,
    /// When the oldest untried event that could be sent now happened; `u64::MAX`: there is none.
    untried_since: AtomicU64,
}

/// Why a courier is notified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signal {
    /// Events were committed.
    NewEvents,
    /// The lane is to be resumed now, before its time.
    Resume(Lane),
    /// The log's alarm rang.
    AlarmRang,
}

/// What a courier was notified of.
struct Raised {
    is_raised: bool,
    check: bool,
    resume: Vec<Lane>,
}

impl CourierSignal {
    fn raise(&self, upto: u64, signal: Signal) {
        self.upto.fetch_max(upto, Ordering::SeqCst);
        match signal {
            Signal::NewEvents => {}
            Signal::Resume(lane) => self.resume_again(std::iter::once(&lane)),
            Signal::AlarmRang => self.check.store(true, Ordering::SeqCst),
        }
        self.is_raised.store(true, Ordering::SeqCst);
        self.notify.notify_one();
    }

    /// Lanes to resume before their time, again: their courier has achieved nothing with them.
    fn resume_again<'a>(&self, lanes: impl Iterator<Item = &'a Lane>) {
        let mut resume = self.resume.lock_unpoisoned();
        // A lane without room resumes at its own time.
        let room = limits::COURIER_LANES.saturating_sub(resume.len());
        resume.extend(lanes.take(room));
    }

    fn take(&self) -> Raised {
        let is_raised = self.is_raised.swap(false, Ordering::SeqCst);
        let check = self.check.swap(false, Ordering::SeqCst);
        let resume = std::mem::take(&mut *self.resume.lock_unpoisoned());
        Raised { is_raised, check, resume }
    }

    fn is_raised(&self) -> bool {
        self.is_raised.load(Ordering::SeqCst)
    }

    /// Whether a lane is to be resumed now, and the courier has not taken it up yet.
    fn has_lanes_to_resume(&self) -> bool {
        !self.resume.lock_unpoisoned().is_empty()
    }

    fn upto(&self) -> u64 {
        self.upto.load(Ordering::SeqCst)
    }

    async fn raised(&self) {
        self.notify.notified().await;
    }
}

impl Outboxes {
    /// How many logs have a running courier.
    pub fn active(&self) -> usize {
        self.active.load(Ordering::Relaxed)
    }

    /// How many deliveries are in flight.
    pub fn in_flight(&self) -> usize {
        self.send_permits.taken()
    }

    /// How many receivers are paused because nothing arrives there.
    pub fn open_circuits(&self) -> usize {
        self.breakers.open_circuits()
    }

    /// How many milliseconds the longest-running courier has worked without a pause. That is not the age of its events,
    /// and a failed receiver whose next attempt is in the future keeps no courier running.
    pub fn oldest(&self, now: Millis) -> u64 {
        self.couriers.iter().map(|signal| now.since(signal.since)).max().unwrap_or(0)
    }

    /// The age in milliseconds of the oldest event that waits for its first attempt, and not because its receiver is
    /// paused. The age of events that could not be read yet is unknown, so the time since their courier began counts;
    /// logs without one do not count.
    pub fn oldest_untried(&self, now: Millis) -> u64 {
        let since = self.couriers.iter().map(|signal| signal.untried_since.load(Ordering::Relaxed)).min();
        since.filter(|since| *since != u64::MAX).map_or(0, |since| now.since(Millis(since)))
    }

    /// The receivers of a log's events, as far as known without waiting. Changes of another process are known within
    /// [`MAX_STALENESS`](crate::catalog::MAX_STALENESS), or count as unknown.
    pub(crate) fn listeners(&self, node: &Node, workspace: Address, channel: Option<&str>) -> Listeners {
        let registry = EntityKey::workspace(workspace);
        let moves = node.catalog.moves_seen(node.store.as_ref(), registry);
        let hook = |channel: &str| {
            let known = node.catalog.peek::<Channel>(moves?, registry, CHANNELS, channel.as_bytes());
            known.map(|channel| channel.webhook_url.is_some())
        };
        let endpoints = moves.and_then(|moves| self.endpoints.peek(workspace, moves));
        Listeners::new(endpoints, channel.is_some_and(|channel| hook(channel).unwrap_or(true)))
    }

    /// Reads the endpoints of a workspace if they are not known.
    ///
    /// # Errors
    ///
    /// `StoreError` if the store, or the stored data, cannot be read.
    pub(crate) async fn endpoints(&self, node: &Node, workspace: Address) -> Result<listeners::Endpoints, StoreError> {
        let store = node.store.as_ref();
        let moves = node.catalog.moves(store, EntityKey::workspace(workspace)).await?;
        self.endpoints.get(store, workspace, moves).await
    }

    /// An endpoint's row has changed.
    pub(crate) fn endpoint_changed(&self, node: &Arc<Node>, workspace: Address, id: &[u8]) {
        self.endpoints.forget(workspace);
        if let Some(id) = std::str::from_utf8(id).ok().and_then(EndpointId::parse) {
            self.breakers.renew(circuit_breaker::endpoint_key(workspace, id));
            resume::resume_endpoint(node, workspace, id);
        }
    }

    /// A channel's row has changed. Events for a URL that is removed, or whose channel is deleted, wait for their time.
    pub(crate) fn channel_changed(&self, node: &Arc<Node>, workspace: Address, row: &[u8]) {
        let Ok(channel) = codec::decode::<Channel>(row) else { return };
        let is_rerouted = channel.updated_at == Some(channel.routed_at());
        if channel.webhook_url.is_some() && is_rerouted {
            self.breakers.renew(circuit_breaker::channel_key(workspace, &channel.id));
            resume::resume_channel(node, workspace, channel);
        }
    }

    /// The endpoints of any workspace may have changed.
    pub(crate) fn endpoints_changed(&self) {
        self.endpoints.forget_all();
    }

    /// Resumes a lane before its time: notifies the log's courier, or starts one. Past the bound of couriers nothing is
    /// started; the log's alarm resumes the lane later.
    pub(crate) fn resume_lane<M: Sends>(&self, node: &Arc<Node>, entity: EntityKey, state: &M::State, lane: Lane) {
        self.signal_courier::<M>(node, entity, state, Signal::Resume(lane));
    }

    /// Records are durable: notifies the log's courier if there is something new to send.
    pub(crate) fn committed<M: Sends>(
        &self,
        node: &Arc<Node>,
        entity: EntityKey,
        state: &M::State,
        records: &[Arc<Record<M::Event>>],
    ) {
        let is_open = M::outbox(state).is_some_and(|outbox| outbox.from.is_some());
        if is_open && records.iter().any(|record| M::is_event(&record.event)) {
            self.signal_courier::<M>(node, entity, state, Signal::NewEvents);
        }
    }

    /// A log's alarm rang for its outbox.
    pub(crate) fn alarm<M: Sends>(&self, node: &Arc<Node>, entity: EntityKey, state: &M::State) {
        self.signal_courier::<M>(node, entity, state, Signal::AlarmRang);
    }

    fn signal_courier<M: Sends>(&self, node: &Arc<Node>, entity: EntityKey, state: &M::State, signal: Signal) {
        let Some(outbox) = M::outbox(state) else { return };
        let upto = M::log(entity, state).last_seq;
        match self.couriers.entry(entity) {
            Entry::Occupied(known) => known.get().raise(upto, signal),
            Entry::Vacant(_) if self.active() >= limits::COURIERS || self.is_stopping() => {}
            Entry::Vacant(place) => {
                // The caller that resumes a lane has read the state before; a courier may have come and gone since.
                let from = match signal {
                    Signal::Resume(_) => None,
                    Signal::NewEvents | Signal::AlarmRang => Some(outbox.from.unwrap_or(upto + 1)),
                };
                let courier = Arc::new(CourierSignal {
                    from,
                    upto: AtomicU64::new(upto),
                    is_raised: AtomicBool::new(false),
                    check: AtomicBool::new(false),
                    resume: Mutex::default(),
                    notify: Notify::new(),
                    since: node.clock.now(),
                    untried_since: AtomicU64::new(u64::MAX),
                });
                courier.raise(upto, signal);
                place.insert(Arc::clone(&courier));
                self.active.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(courier::run_until_idle::<M>(Arc::clone(node), entity, courier, M::scope(state)));
            }
        }
    }

    /// A courier has nothing to do. `false`: it has received work just now.
    fn remove_idle(&self, entity: EntityKey, signal: &Arc<CourierSignal>) -> bool {
        // The entry's lock is held: a notification before this is seen, one after it starts another courier.
        let removed = self.couriers.remove_if(&entity, |_, own| Arc::ptr_eq(own, signal) && !signal.is_raised());
        if removed.is_some() {
            self.active.fetch_sub(1, Ordering::Relaxed);
        }
        removed.is_some()
    }

    /// A courier has ended, normally or by a panic.
    fn remove_ended(&self, entity: EntityKey, signal: &Arc<CourierSignal>) {
        if self.couriers.remove_if(&entity, |_, own| Arc::ptr_eq(own, signal)).is_some() {
            self.active.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Starts no more attempts, and waits until running ones have ended and are noted, or until `deadline`.
    pub(crate) async fn drain(&self, deadline: Instant) {
        self.stopping.store(true, Ordering::SeqCst);
        // Couriers that wait for a retry need not wait any longer.
        self.couriers.iter().for_each(|signal| signal.notify.notify_one());
        drain::wait(|| self.active() == 0, deadline).await;
    }

    /// Drops unused breakers and permits.
    pub(crate) fn sweep(&self) {
        self.breakers.sweep();
        self.send_permits.sweep();
    }

    /// The id of the workspace with this address.
    async fn workspace_id(&self, store: &dyn Store, address: Address) -> Result<Arc<str>, StoreError> {
        const WORKSPACES_PER_PAGE: usize = 500;
        if let Some(known) = self.workspaces.get(&address) {
            return Ok(Arc::clone(&known));
        }
        if self.workspaces.len() >= limits::ENDPOINT_WORKSPACES {
            self.workspaces.clear();
        }
        let entity = EntityKey::INSTALLATION;
        let range = KeyRange::default();
        let mut pages = Pages::of_rows(store, entity, WORKSPACES, range, WORKSPACES_PER_PAGE);
        // An address leads to its id only by scanning all of them, so all scanned ids are cached.
        while let Some(rows) = pages.next().await? {
            for row in &rows {
                let Ok(id) = std::str::from_utf8(&row.key) else { continue };
                let of = address_of(id);
                let id = Arc::from(id);
                self.workspaces.insert(of, Arc::clone(&id));
                if of == address {
                    return Ok(id);
                }
            }
        }
        // An address that no installation knows is named by itself.
        Ok(address.to_string().into())
    }
}
