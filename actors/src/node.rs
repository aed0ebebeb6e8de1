//! One running process: everything its actors share, and the only surface that the front door calls.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::alarms::{self, Alarms};
use crate::attachment::{self, Attachment, settle, settle::Settling};
use crate::catalog::{self, Catalog};
use crate::claims;
use crate::clock::{Clock, Entropy, Millis};
use crate::codec;
use crate::contact::{self, Contact};
use crate::conversation::{self, CALLS, Calls, Conversation, OVERLAYS, TURNS, Turn, number_key};
use crate::deltas::{Deltas, Listener};
use crate::directory::{Admission, Circumstances, Directory, Reply};
use crate::errands::Errands;
use crate::host;
use crate::id::{Address, AttachmentId, EntityKey, Kind};
use crate::limits;
use crate::machine::{Machine, Record};
use crate::members::{self, Members};
use crate::memories::draw::Drawing;
use crate::memories::{self, Memories};
use crate::message::Overlay;
use crate::metrics::{Metrics, StoreMetrics};
use crate::outbox::Outboxes;
use crate::ports::Ports;
use crate::registry::{self, Registry};
use crate::store::{Fresh, KeyHash, KeyRange, KeyRow, NodeId, Order, Row, Store, StoreError, Table, View};
use crate::subscriptions::{self, Subscription, Subscriptions};
use crate::trace::{Span, SpanKind, TraceContext, Traces};
use crate::turns::Turns;
use crate::usage::{Day, Used, UsedDays};

pub mod census;

/// How often idle entities are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// How long a command waits for who listens to what it does.
const LISTENERS_WITHIN: Duration = Duration::from_millis(500);
/// How often the number of resident entities is compared with its bound.
const COUNT_EVERY: Duration = Duration::from_secs(1);

/// See the module's text. Cheap to share; one a process, as many as wanted in tests.
pub struct Node {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Entropy,
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
    pub(crate) conversations: Directory<Conversation>,
    pub(crate) contacts: Directory<Contact>,
    pub(crate) attachments: Directory<Attachment>,
    pub(crate) settling: Settling,
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
        let members = Members::new(NodeId(entropy.draw()), store.is_shared());
        let node = Arc::new(Self {
            store,
            clock,
            entropy,
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
            conversations: Directory::default(),
            contacts: Directory::default(),
            attachments: Directory::default(),
            settling: Settling::default(),
            memories: Directory::default(),
            drawing: Drawing::default(),
            workspaces: Directory::default(),
            installation: Directory::default(),
            stopping: CancellationToken::new(),
        });
        tokio::spawn(alarms::run(Arc::clone(&node)));
        tokio::spawn(settle::run(Arc::clone(&node)));
        tokio::spawn(sweep(Arc::clone(&node)));
        if node.store.is_shared() {
            tokio::spawn(members::run(Arc::clone(&node)));
            tokio::spawn(subscriptions::watch(Arc::clone(&node)));
        }
        node
    }

    /// The time.
    pub fn now(&self) -> Millis {
        self.clock.now()
    }

    /// 16 unpredictable bytes, good for ids.
    pub fn random(&self) -> [u8; 16] {
        self.entropy.draw()
    }

    /// How many entities are resident.
    pub fn resident(&self) -> usize {
        self.conversations.resident()
            + self.contacts.resident()
            + self.attachments.resident()
            + self.memories.resident()
            + self.workspaces.resident()
            + self.installation.resident()
    }

    /// What the node has counted and timed.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// What its store has, if that counts.
    pub fn store_metrics(&self) -> Option<&StoreMetrics> {
        self.store.metrics()
    }

    /// Where spans go.
    pub fn traces(&self) -> &Traces {
        &self.ports.traces
    }

    /// A stage of what `parent` is the whole of; see [`Traces::child`].
    pub fn span(&self, name: &'static str, kind: SpanKind, parent: Option<TraceContext>) -> Span {
        self.ports.traces.child(&self.entropy, name, kind, parent)
    }

    /// A trace of its own that goes back to `causes`; see [`Traces::root`].
    pub fn root_span(&self, name: &'static str, kind: SpanKind, causes: Vec<TraceContext>) -> Span {
        self.ports.traces.root(&self.entropy, name, kind, causes)
    }

    /// The processes that serve the same store.
    pub fn members(&self) -> &Members {
        &self.members
    }

    /// Whether an attempt at a turn runs in this process, or in another one that lives.
    pub(crate) fn is_at_work(&self, entity: EntityKey, turn: &Turn) -> bool {
        self.turns.is_alive(entity, turn) || self.is_at_work_elsewhere(turn)
    }

    /// Whether an attempt at a turn was begun by another process, which lives.
    pub(crate) fn is_at_work_elsewhere(&self, turn: &Turn) -> bool {
        turn.runner.is_some_and(|runner| runner != self.members.me() && self.members.is_live(runner))
    }

    /// Whether other processes may change what this one serves, without telling.
    pub fn shares_its_store(&self) -> bool {
        self.store.is_shared()
    }

    /// What the node has to do.
    pub fn admission(&self) -> &Admission {
        &self.admission
    }

    /// How many turns are running.
    pub fn running_turns(&self) -> usize {
        self.turns.running()
    }

    /// What sends events to receivers.
    pub fn outbox(&self) -> &Outboxes {
        &self.outbox
    }

    /// Asks a conversation.
    ///
    /// # Errors
    ///
    /// As [`Directory::ask`].
    pub async fn conversation(
        self: &Arc<Self>,
        entity: EntityKey,
        command: conversation::Command,
        with: Circumstances,
    ) -> Reply<Conversation> {
        // Where the store cannot say at once who listens, the decision takes it that somebody does.
        let _ = timeout(LISTENERS_WITHIN, self.outbox.endpoints(self, entity.workspace)).await;
        claims::ask(self, &self.conversations, entity, Arc::new(command), with).await
    }

    /// Asks a contact.
    ///
    /// # Errors
    ///
    /// As [`Directory::ask`].
    pub async fn contact(
        self: &Arc<Self>,
        entity: EntityKey,
        command: contact::Command,
        with: Circumstances,
    ) -> Reply<Contact> {
        let _ = self.outbox.endpoints(self, entity.workspace).await;
        claims::ask(self, &self.contacts, entity, Arc::new(command), with).await
    }

    /// Asks a file.
    ///
    /// # Errors
    ///
    /// As [`Directory::ask`].
    pub async fn attachment(
        self: &Arc<Self>,
        entity: EntityKey,
        command: attachment::Command,
        with: Circumstances,
    ) -> Reply<Attachment> {
        claims::ask(self, &self.attachments, entity, Arc::new(command), with).await
    }

    /// Has files looked at whose message was deleted or erased a moment ago. Before that, each of them was told to
    /// [doubt](attachment::Command::Doubt), so that a process that dies in between leaves none behind.
    pub fn settle(&self, workspace: Address, attachments: &[AttachmentId]) {
        for id in attachments {
            self.settling.wanted(EntityKey::attachment(workspace, id.address));
        }
    }

    /// Asks what is remembered of somebody.
    ///
    /// # Errors
    ///
    /// As [`Directory::ask`].
    pub async fn memories(
        self: &Arc<Self>,
        entity: EntityKey,
        command: memories::Command,
        with: Circumstances,
    ) -> Reply<Memories> {
        claims::ask(self, &self.memories, entity, Arc::new(command), with).await
    }

    /// Asks the configuration of a workspace or of the installation. A change of what other processes may have in
    /// memory is answered once none of them goes by what was before.
    ///
    /// # Errors
    ///
    /// As [`Directory::ask`].
    pub async fn registry(
        self: &Arc<Self>,
        entity: EntityKey,
        command: registry::Command,
        with: Circumstances,
    ) -> Reply<Registry> {
        let directory = match entity.kind {
            Kind::Installation => &self.installation,
            _ => &self.workspaces,
        };
        let may_be_known = command.may_be_known();
        let reply = claims::ask(self, directory, entity, Arc::new(command), with).await;
        if may_be_known && reply.is_ok() && self.members.has_others() {
            // What another process goes by is at most so old. So whoever has this answer finds the change everywhere.
            sleep(catalog::STALE_AT_MOST).await;
        }
        reply
    }

    /// A row of configuration, decoded once.
    ///
    /// # Errors
    ///
    /// `StoreError` where the store cannot be read, or holds what cannot be.
    pub async fn configured<T>(&self, entity: EntityKey, table: Table, key: &[u8]) -> Result<Option<Arc<T>>, StoreError>
    where
        T: for<'b> minicbor::Decode<'b, ()> + Send + Sync + 'static,
    {
        self.catalog.get(self.store.as_ref(), entity, table, key).await
    }

    /// The state of an entity as it is stored.
    ///
    /// # Errors
    ///
    /// `StoreError` where the store cannot be read, or holds what cannot be.
    pub async fn state<M: Machine>(&self, entity: EntityKey) -> Result<Option<M::State>, StoreError> {
        match self.store.load(entity, Fresh::Acknowledged).await? {
            Some(loaded) => Ok(host::replay::<M>(&loaded)?.1),
            None => Ok(None),
        }
    }

    /// Up to `limit` events of an entity's log with `from <= seq <= to`.
    ///
    /// # Errors
    ///
    /// `StoreError` where the store cannot be read, or holds what cannot be.
    pub async fn events<M: Machine>(
        &self,
        entity: EntityKey,
        (from, to): (u64, u64),
        order: Order,
        limit: usize,
    ) -> Result<Vec<Record<M::Event>>, StoreError> {
        let stored = self.store.read_log(entity, from, to, order, limit).await?;
        stored.iter().map(|record| codec::decode_record(record.seq, &record.payload)).collect()
    }

    /// What has become of the messages with `from <= seq <= to`.
    ///
    /// # Errors
    ///
    /// `StoreError` where the store cannot be read, or holds what cannot be.
    pub async fn overlays(&self, entity: EntityKey, (from, to): (u64, u64)) -> Result<Vec<(u64, Overlay)>, StoreError> {
        let range = KeyRange {
            after: Some(number_key(from.saturating_sub(1))),
            before: Some(number_key(to.saturating_add(1))),
        };
        let limit = usize::try_from(to.saturating_sub(from)).unwrap_or(usize::MAX).saturating_add(1);
        let rows = self.store.rows(entity, OVERLAYS, range, Order::Asc, limit).await?;
        let overlay = |row: &Row| {
            let key =
                row.key.as_ref().try_into().map_err(|_| StoreError::Corrupt("a row's key is damaged".to_owned()))?;
            Ok((u64::from_be_bytes(key), codec::decode(&row.value)?))
        };
        rows.iter().map(overlay).collect()
    }

    /// A turn of a conversation.
    ///
    /// # Errors
    ///
    /// `StoreError` where the store cannot be read, or holds what cannot be.
    pub async fn turn(&self, entity: EntityKey, number: u64) -> Result<Option<Turn>, StoreError> {
        let row = self.store.row(entity, TURNS, number_key(number)).await?;
        row.map(|bytes| codec::decode(&bytes)).transpose()
    }

    /// A keyed row of an entity.
    ///
    /// # Errors
    ///
    /// `StoreError` where the store cannot be read, or holds what cannot be.
    pub async fn row(&self, entity: EntityKey, table: Table, key: Bytes) -> Result<Option<Bytes>, StoreError> {
        self.store.row(entity, table, key).await
    }

    /// Keyed rows of an entity.
    ///
    /// # Errors
    ///
    /// `StoreError` where the store cannot be read, or holds what cannot be.
    pub async fn rows(
        &self,
        entity: EntityKey,
        table: Table,
        range: KeyRange,
        order: Order,
        limit: usize,
    ) -> Result<Vec<Row>, StoreError> {
        self.store.rows(entity, table, range, order, limit).await
    }

    /// Entries of a workspace's list.
    ///
    /// # Errors
    ///
    /// `StoreError` where the store cannot be read, or holds what cannot be.
    pub async fn view(
        &self,
        workspace: Address,
        view: View,
        range: KeyRange,
        order: Order,
        limit: usize,
    ) -> Result<Vec<Row>, StoreError> {
        self.store.view(workspace, view, range, order, limit).await
    }

    /// What an idempotency key has done in an entity, if it has done anything and is still remembered.
    ///
    /// # Errors
    ///
    /// `StoreError` where the store cannot be read, or holds what cannot be.
    pub async fn key(&self, entity: EntityKey, key: KeyHash) -> Result<Option<KeyRow>, StoreError> {
        let row = self.store.find_key(entity, key).await?;
        let row = row.filter(|row| row.held_upto().is_none());
        Ok(row.filter(|row| self.now().since(row.at) < limits::KEY_KEPT_MILLIS))
    }

    /// Listens to a conversation from now on.
    #[must_use]
    pub fn subscribe(&self, entity: EntityKey) -> Subscription {
        self.subscriptions.subscribe(entity)
    }

    /// Ends its services and turns at once and tells nobody, as a process that is killed.
    #[cfg(any(test, feature = "test-support"))]
    pub async fn halt(&self) {
        self.admission.close();
        self.stopping.cancel();
        self.turns.drain(Instant::now()).await;
        self.outbox.drain(Instant::now()).await;
    }

    /// Listens to what agents are saying in a conversation, from now on.
    #[must_use]
    pub fn listen(&self, entity: EntityKey) -> Listener {
        self.deltas.listen(entity)
    }

    /// The calls of a turn that has some without a result.
    ///
    /// # Errors
    ///
    /// `StoreError` where the store cannot be read, or holds what cannot be.
    pub async fn calls(&self, entity: EntityKey, number: u64) -> Result<Calls, StoreError> {
        let row = self.store.row(entity, CALLS, number_key(number)).await?;
        Ok(row.map(|bytes| codec::decode(&bytes)).transpose()?.unwrap_or_default())
    }

    /// What models have used in a workspace on a day, by agent.
    ///
    /// # Errors
    ///
    /// `StoreError` where the store cannot be read, or holds what cannot be.
    pub async fn used(&self, workspace: Address, day: Day) -> Result<Arc<Used>, StoreError> {
        self.used_days.get(self.store.as_ref(), workspace, day, self.now()).await
    }

    /// Stops: lets turns and commands end, entities leave and the store close, by `deadline`. What is cut off then
    /// was not acknowledged, or goes on in the next process.
    pub async fn drain(self: &Arc<Self>, deadline: Instant) {
        let half = Instant::now() + deadline.saturating_duration_since(Instant::now()) / 2;
        self.turns.drain(half).await;
        // What is under way may take as long as a receiver may; what is cut off is sent again by the next process.
        self.outbox.drain(half).await;
        self.admission.close();
        self.stopping.cancel();
        self.conversations.drain(deadline).await;
        self.contacts.drain(deadline).await;
        self.attachments.drain(deadline).await;
        self.memories.drain(deadline).await;
        self.workspaces.drain(deadline).await;
        self.installation.drain(deadline).await;
        if !matches!(timeout_at(deadline, self.store.leave(self.members.me())).await, Ok(Ok(()))) {
            tracing::debug!("others will miss this process only after a while");
        }
        self.store.close().await;
    }
}

/// Lets idle entities go, until the node stops.
async fn sweep(node: Arc<Node>) {
    let (idle, cap) = (limits::PASSIVATE_AFTER_MILLIS, limits::RESIDENT_ENTITIES);
    let mut next = Instant::now() + SWEEP_EVERY;
    while node.stopping.run_until_cancelled(sleep(COUNT_EVERY)).await.is_some() {
        if Instant::now() < next && node.resident() <= cap {
            continue;
        }
        next = Instant::now() + SWEEP_EVERY;
        let now = node.clock.now();
        node.conversations.sweep(now, idle, cap);
        node.contacts.sweep(now, idle, cap);
        node.attachments.sweep(now, idle, cap);
        node.memories.sweep(now, idle, cap);
        node.workspaces.sweep(now, idle, cap);
        node.outbox.sweep();
    }
}
