//! One running process: everything its actors share, and the only surface that the front door calls.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::alarms::{self, Alarms};
use crate::attachment::{Attachment, settle, settle::Settling};
use crate::catalog::Catalog;
use crate::clock::{Clock, Entropy, Millis};
use crate::contact::Contact;
use crate::conversation::{Beginnings, Conversation, Turn};
use crate::deltas::{Deltas, Listener};
use crate::directory::{Admission, Bounds, Directory};
use crate::id::{Address, ConversationId, EntityKey, Kind};
use crate::id_clock::IdClocks;
use crate::members::{self, Members};
use crate::memories::Memories;
use crate::memories::draw::Drawing;
use crate::metrics::{Metrics, StoreMetrics};
use crate::outbox::Outboxes;
use crate::ports::Ports;
use crate::registry::Registry;
use crate::store::{NodeId, Store};
use crate::subscriptions::{self, Subscription, Subscriptions};
use crate::tasks::drain;
use crate::tasks::log_limiter::LogLimiter;
use crate::tasks::shared_job::SharedJobs;
use crate::trace::{Span, SpanKind, TraceContext, Traces};
use crate::turns::{Crowded, Turns};
use crate::usage::UsedDays;
use crate::workflows::errands::Errands;

mod ask;
pub mod census;
mod configured;
mod read;
mod residents;

pub use read::{KeyedEffect, Readable, Stretch, stored_state};
use residents::Residents;

/// How often idle entities are searched.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);
/// How often a log line reports due work that needs what is damaged: it is tried every second.
const DAMAGE_LOG_INTERVAL: Duration = Duration::from_secs(60);
/// How often the numbers of actors and of resident entities of each kind are compared with their bounds. An allocator
/// hardly returns the memory that many first messages take in that time.
const COUNT_INTERVAL: Duration = Duration::from_millis(200);

/// One running process, in tests one of many: its entities, what they share, and the services that run for them.
pub struct Node {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Entropy,
    pub(crate) id_clocks: IdClocks,
    pub(crate) ports: Ports,
    pub(crate) metrics: Metrics,
    pub(crate) admission: Arc<Admission>,
    pub(crate) alarms: Alarms,
    pub(crate) catalog: Catalog,
    pub(crate) members: Members,
    pub(crate) subscriptions: Arc<Subscriptions>,
    pub(crate) deltas: Arc<Deltas>,
    pub(crate) turns: Turns,
    pub(crate) errands: Errands,
    pub(crate) used_days: UsedDays,
    pub(crate) outbox: Outboxes,
    /// Log lines about entities that an unavailable store could not load.
    pub(crate) not_loaded: LogLimiter,
    /// Log lines about due work that was refused, and about due work that needs what is damaged.
    pub(crate) not_done: LogLimiter,
    pub(crate) never_done: LogLimiter,
    pub(crate) conversations: Directory<Conversation>,
    pub(crate) beginnings: Beginnings,
    pub(crate) contacts: Directory<Contact>,
    pub(crate) attachments: Directory<Attachment>,
    pub(crate) settling: Settling,
    pub(crate) shared_jobs: SharedJobs,
    pub(crate) memories: Directory<Memories>,
    pub(crate) drawing: Drawing,
    pub(crate) workspaces: Directory<Registry>,
    pub(crate) installation: Directory<Registry>,
    pub(crate) stopping: CancellationToken,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("resident", &self.resident()).finish_non_exhaustive()
    }
}

impl Node {
    /// Starts the services of a node; must be called within a Tokio runtime.
    #[must_use]
    pub fn start(store: Arc<dyn Store>, clock: Arc<dyn Clock>, entropy: Entropy, ports: impl Into<Ports>) -> Arc<Self> {
        let node = Self::without_services(store, clock, entropy, ports);
        tokio::spawn(alarms::run(Arc::clone(&node)));
        tokio::spawn(settle::run(Arc::clone(&node)));
        tokio::spawn(sweep(Arc::clone(&node)));
        if node.store.is_shared() {
            tokio::spawn(members::run(Arc::clone(&node)));
            tokio::spawn(subscriptions::watch(Arc::clone(&node)));
        }
        node
    }

    /// A node that runs commands but no services: it rings no alarms, so that a tool that changes only a setting
    /// affects no turn, delivery or file.
    #[must_use]
    pub fn without_services(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        entropy: Entropy,
        ports: impl Into<Ports>,
    ) -> Arc<Self> {
        let members = Members::new(NodeId(entropy.draw()), store.is_shared());
        Arc::new(Self {
            store,
            clock,
            entropy,
            id_clocks: IdClocks::default(),
            ports: ports.into(),
            metrics: Metrics::default(),
            admission: Arc::default(),
            alarms: Alarms::default(),
            catalog: Catalog::default(),
            members,
            subscriptions: Arc::default(),
            deltas: Arc::default(),
            turns: Turns::default(),
            errands: Errands::default(),
            used_days: UsedDays::default(),
            outbox: Outboxes::default(),
            not_loaded: LogLimiter::new(),
            not_done: LogLimiter::new(),
            never_done: LogLimiter::every(DAMAGE_LOG_INTERVAL),
            conversations: Directory::default(),
            beginnings: Beginnings::default(),
            contacts: Directory::default(),
            attachments: Directory::default(),
            settling: Settling::default(),
            shared_jobs: SharedJobs::default(),
            memories: Directory::default(),
            drawing: Drawing::default(),
            workspaces: Directory::default(),
            installation: Directory::default(),
            stopping: CancellationToken::new(),
        })
    }

    /// The time.
    pub fn now(&self) -> Millis {
        self.clock.now()
    }

    /// 16 unpredictable bytes, good for ids.
    pub fn random(&self) -> [u8; 16] {
        self.entropy.draw()
    }

    /// Time and address of a new configured resource or key; its id sorts after those of all that this process made
    /// before.
    pub fn new_id(&self) -> (Millis, Address) {
        self.id_clocks.things.any(self.clock.now(), self.entropy.draw())
    }

    /// Time and address of a new conversation. The address may be given: the time in its id may be a little ahead then.
    pub fn new_conversation(&self, home: Option<Address>) -> ConversationId {
        let now = self.clock.now();
        let id_clock = &self.id_clocks.entities;
        let (at, address) = match home {
            Some(home) => (id_clock.time_of(now, home), home),
            None => id_clock.any(now, self.entropy.draw()),
        };
        ConversationId::new(at, address)
    }

    /// The time for a list entry that a decision of an entity of this kind makes.
    pub(crate) fn new_place(&self, of: Kind, now: Millis) -> Millis {
        let id_clock = match of {
            Kind::Conversation => &self.id_clocks.reviews,
            Kind::Contact | Kind::Attachment | Kind::Memories => &self.id_clocks.entities,
            Kind::Workspace | Kind::Installation => &self.id_clocks.things,
        };
        id_clock.time(now)
    }

    /// How many entities are resident.
    pub fn resident(&self) -> usize {
        Kind::ALL.into_iter().map(|kind| self.residents(kind).resident()).sum()
    }

    /// How many of them have an actor.
    pub fn actors(&self) -> usize {
        Kind::ALL.into_iter().map(|kind| self.residents(kind).actors()).sum()
    }

    /// Its entities of a kind.
    pub(crate) fn residents(&self, kind: Kind) -> &dyn Residents {
        match kind {
            Kind::Conversation => &self.conversations,
            Kind::Contact => &self.contacts,
            Kind::Memories => &self.memories,
            Kind::Attachment => &self.attachments,
            Kind::Workspace => &self.workspaces,
            Kind::Installation => &self.installation,
        }
    }

    /// The node's metrics.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The counters of its store, if it has any.
    pub fn store_metrics(&self) -> Option<&StoreMetrics> {
        self.store.metrics()
    }

    /// The destination of spans.
    pub fn traces(&self) -> &Traces {
        &self.ports.traces
    }

    /// A child span of `parent`; see [`Traces::child`].
    pub fn span(&self, name: &'static str, kind: SpanKind, parent: Option<TraceContext>) -> Span {
        self.ports.traces.child(&self.entropy, name, kind, parent)
    }

    /// The root span of a new trace, linked to `causes`; see [`Traces::root`].
    pub(crate) fn root_span(&self, name: &'static str, kind: SpanKind, causes: Vec<TraceContext>) -> Span {
        self.ports.traces.root(&self.entropy, name, kind, causes)
    }

    /// The root span of a new trace whose causes are not known yet; see [`Traces::root_ahead`].
    pub(crate) fn root_span_ahead(&self, name: &'static str, kind: SpanKind) -> Span {
        self.ports.traces.root_ahead(&self.entropy, name, kind)
    }

    /// The processes that serve the same store.
    pub fn members(&self) -> &Members {
        &self.members
    }

    /// Whether an attempt at a turn runs in this process, or in another live one.
    pub(crate) fn is_at_work(&self, entity: EntityKey, turn: &Turn) -> bool {
        self.turns.is_alive(entity, turn) || self.is_at_work_elsewhere(turn)
    }

    /// Whether an attempt at a turn runs in another live process.
    pub(crate) fn is_at_work_elsewhere(&self, turn: &Turn) -> bool {
        turn.runner.is_some_and(|runner| runner != self.members.me() && self.members.is_live(runner))
    }

    /// Whether other processes may change this one's entities without notifying it.
    pub fn shares_its_store(&self) -> bool {
        self.store.is_shared()
    }

    /// The node's admission control.
    pub fn admission(&self) -> &Admission {
        &self.admission
    }

    /// How many turns are running.
    pub fn running_turns(&self) -> usize {
        self.turns.running()
    }

    /// Whether the node accepts another turn of this agent.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn admits_turn(&self, workspace: Address, agent: &str) -> Result<(), Crowded> {
        self.turns.admit(workspace, agent)
    }

    /// As many turns seem to be alive as may be: of this agent, of its workspace, or of the node.
    #[cfg(any(test, feature = "test-support"))]
    pub fn crowd(&self, what: Crowded, workspace: Address, agent: &str) {
        self.turns.crowd(what, workspace, agent);
    }

    /// The couriers that send events to receivers.
    pub fn outbox(&self) -> &Outboxes {
        &self.outbox
    }

    /// Subscribes to a conversation's events from now on.
    #[must_use]
    pub fn subscribe(&self, entity: EntityKey) -> Subscription {
        self.subscriptions.subscribe(entity)
    }

    /// Subscribes to the replies that agents are writing in a conversation, from now on.
    #[must_use]
    pub fn listen(&self, entity: EntityKey) -> Listener {
        self.deltas.listen(entity)
    }

    /// Evicts entities beyond these bounds.
    #[cfg(any(test, feature = "test-support"))]
    pub async fn let_go(&self, bounds: Bounds) {
        for kind in Kind::ALL {
            self.residents(kind).sweep(self.clock.now(), bounds).await;
        }
    }

    /// Ends its services and turns at once without notice, like a killed process.
    #[cfg(any(test, feature = "test-support"))]
    pub async fn halt(&self) {
        self.admission.close();
        self.stopping.cancel();
        self.turns.drain(Instant::now()).await;
        self.outbox.drain(Instant::now()).await;
    }

    /// Stops by `deadline`: lets turns and commands end, entities leave and the store close. Work that is cut off was
    /// not acknowledged, or the next process continues it.
    pub async fn drain(self: &Arc<Self>, deadline: Instant) {
        let begun = Instant::now();
        let quarters = |n: u32| begun + deadline.saturating_duration_since(begun) * n / 4;
        self.turns.drain(quarters(2)).await;
        // A running delivery may take as long as its receiver's timeout; the next process sends again what is cut off.
        // So the outbox has time of its own, however long turns take.
        self.outbox.drain(quarters(3)).await;
        self.admission.close();
        self.stopping.cancel();
        // A request that was just admitted may still be about to start an entity.
        drain::wait(|| self.admission.in_flight() == 0, deadline).await;
        for kind in Kind::ALL {
            self.residents(kind).drain(deadline).await;
        }
        if !matches!(timeout_at(deadline, self.store.leave(self.members.me())).await, Ok(Ok(()))) {
            tracing::debug!("could not deregister this process; others notice its end only later");
        }
        self.store.close().await;
    }
}

/// Evicts idle entities, until the node stops.
async fn sweep(node: Arc<Node>) {
    let bounds = Bounds::default();
    let mut next = Instant::now() + SWEEP_INTERVAL;
    while node.stopping.run_until_cancelled(sleep(COUNT_INTERVAL)).await.is_some() {
        if Instant::now() < next && !Kind::ALL.into_iter().any(|kind| node.residents(kind).is_beyond(&bounds)) {
            continue;
        }
        next = Instant::now() + SWEEP_INTERVAL;
        let now = node.clock.now();
        for kind in Kind::ALL {
            node.residents(kind).sweep(now, bounds).await;
        }
        node.outbox.sweep();
    }
}
