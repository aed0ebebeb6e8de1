//! State that all request handlers share.

use std::sync::Arc;
use std::time::Duration;

use actors::clock::Millis;
use actors::id::{EntityKey, KeyId};
use actors::node::Node;
use actors::store::KeyHash;
use actors::tasks::shares::{OwnPermit, Shares};
use axum::extract::FromRef;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::config::{CidrList, Config};
use crate::egress::{Egress, EgressError};
use crate::files::{FileStore, FilesError};
use crate::http::body::{BodyRoom, MaxBodyBytes};
use crate::http::context::RequestTelemetry;
use crate::http::forwarding::Forwarding;
use crate::http::history::HistoryPermits;
use crate::http::idempotency::InProgress;
use crate::http::long_requests::LongRequests;
use crate::http::messages::WaitQueues;
use crate::http::messages::list::Scans;
use crate::http::messages::media::Fetches;
use crate::http::rate::{Meter, Meters, RateLimiter};
use crate::secret::Pepper;
use crate::telemetry::sampling::Sampling;

/// How long requests may still wait for their results once the server stops; well within the time for running requests.
const STOPPING_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a request waits for a lock that others hold: as long as for the answer to a command.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// Clients for the outside of this process.
#[derive(Clone, Debug)]
pub struct ExternalClients {
    /// Users' URLs.
    pub egress: Egress,
    /// The bytes of attachments.
    pub files: FileStore,
}

/// Why the outside cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum OutsideError {
    /// Users' URLs cannot be called.
    #[error(transparent)]
    Egress(#[from] EgressError),
    /// Attachments cannot be stored.
    #[error(transparent)]
    Files(#[from] FilesError),
}

impl ExternalClients {
    /// Opens it by the configuration.
    ///
    /// # Errors
    /// [`OutsideError`].
    pub fn open(config: &Config) -> Result<Self, OutsideError> {
        Ok(Self {
            egress: Egress::new(config.egress_allow.clone(), &config.egress_name_servers)?,
            files: FileStore::open(&config.attachments)?,
        })
    }
}

/// Cheap to clone; one a server.
#[derive(Clone, Debug)]
pub struct App(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    node: Arc<Node>,
    pepper: Pepper,
    limiter: RateLimiter,
    meters: Meters,
    in_progress: InProgress,
    /// A lock for each key of contacts' messages that are being stored.
    key_locks: Shares<KeyHash>,
    /// Contacts' messages that wait for room among the turns of a conversation.
    wait_queues: WaitQueues,
    /// A lock for each registry that is being changed.
    registry_locks: Shares<EntityKey>,
    egress_allow: CidrList,
    egress: Egress,
    files: FileStore,
    /// A lock for each file that is being linked to a message.
    link_locks: Shares<EntityKey>,
    fetches: Fetches,
    scans: Scans,
    history: HistoryPermits,
    long_requests: LongRequests,
    forwarding: Forwarding,
    wait_budget: Duration,
    max_body: MaxBodyBytes,
    body_room: BodyRoom,
    request_telemetry: Arc<RequestTelemetry>,
    /// Since when the server stops.
    leaving: watch::Sender<Option<Instant>>,
}

impl App {
    /// The handlers' view of a running node, which other servers may forward to from now on if the configuration allows
    /// it.
    #[must_use]
    pub fn new(node: Arc<Node>, pepper: Pepper, outside: ExternalClients, config: &Config) -> Self {
        let request_telemetry = Arc::new(RequestTelemetry::new(Sampling::new(config), node.traces().clone()));
        Self::with_telemetry(request_telemetry, node, pepper, outside, config)
    }

    /// The app of a process whose front door has answered requests before it was ready.
    #[must_use]
    pub fn with_telemetry(
        request_telemetry: Arc<RequestTelemetry>,
        node: Arc<Node>,
        pepper: Pepper,
        outside: ExternalClients,
        config: &Config,
    ) -> Self {
        let ExternalClients { egress, files } = outside;
        if let Some(address) = &config.cluster_address {
            node.members().answers_at(address);
        }
        let history = HistoryPermits::of_process(&node);
        Self(Arc::new(Shared {
            node,
            pepper,
            limiter: RateLimiter::new(config.rate_limit),
            meters: Meters::default(),
            in_progress: InProgress::default(),
            key_locks: Shares::of(1),
            wait_queues: WaitQueues::default(),
            registry_locks: Shares::of(1),
            egress_allow: config.egress_allow.clone(),
            egress,
            files,
            link_locks: Shares::of(1),
            fetches: Fetches::of(config.max_connections),
            scans: Scans::default(),
            history,
            long_requests: LongRequests::of(config.max_connections),
            forwarding: Forwarding::of(config.max_connections),
            wait_budget: config.wait_budget,
            max_body: MaxBodyBytes(config.max_body_bytes),
            body_room: BodyRoom::default(),
            request_telemetry,
            leaving: watch::Sender::new(None),
        }))
    }

    /// The actors.
    #[must_use]
    pub fn node(&self) -> &Arc<Node> {
        &self.0.node
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Millis {
        self.0.node.now()
    }

    /// The secret under which API keys are hashed.
    #[must_use]
    pub fn pepper(&self) -> &Pepper {
        &self.0.pepper
    }

    /// The rate limit of keys.
    #[must_use]
    pub fn limiter(&self) -> &RateLimiter {
        &self.0.limiter
    }

    /// The usage of a key.
    #[must_use]
    pub fn meter(&self, key: KeyId, now: Millis) -> Arc<Meter> {
        self.0.meters.of(key, now)
    }

    /// Drops the meter of a revoked key.
    pub fn forget_meter(&self, key: KeyId) {
        self.0.meters.forget(key);
    }

    /// The requests with idempotency keys whose turns are waited for. Duplicates get the answers of these.
    #[must_use]
    pub fn in_progress(&self) -> &InProgress {
        &self.0.in_progress
    }

    /// The lock of the idempotency key of a contact's message, if no other request holds it or waits for it.
    #[must_use]
    pub fn try_lock_message_key(&self, key: KeyHash) -> Option<OwnPermit<KeyHash>> {
        self.0.key_locks.try_enter(key)
    }

    /// Locks the idempotency key of a contact's message while it is stored. `None`: others held the lock for too long.
    pub async fn lock_message_key(&self, key: KeyHash) -> Option<OwnPermit<KeyHash>> {
        timeout(LOCK_TIMEOUT, self.0.key_locks.enter(key)).await.ok()
    }

    /// Contacts' messages that wait for room among the turns of a conversation.
    pub(crate) fn wait_queues(&self) -> &WaitQueues {
        &self.0.wait_queues
    }

    /// Locks a registry for a change. `None`: others held the lock for too long.
    pub async fn lock_registry(&self, registry: EntityKey) -> Option<OwnPermit<EntityKey>> {
        timeout(LOCK_TIMEOUT, self.0.registry_locks.enter(registry)).await.ok()
    }

    /// Networks that users' URLs may reach although they are not public.
    #[must_use]
    pub fn egress_allow(&self) -> &CidrList {
        &self.0.egress_allow
    }

    /// Calls users' URLs.
    #[must_use]
    pub fn egress(&self) -> &Egress {
        &self.0.egress
    }

    /// The store of attachments' bytes.
    #[must_use]
    pub fn files(&self) -> &FileStore {
        &self.0.files
    }

    /// A lock for each file that is being linked to a message.
    #[must_use]
    pub(crate) fn link_locks(&self) -> &Shares<EntityKey> {
        &self.0.link_locks
    }

    /// Files being fetched for contacts' messages.
    #[must_use]
    pub(crate) fn fetches(&self) -> &Fetches {
        &self.0.fetches
    }

    /// Requests that hold their connection for long.
    #[must_use]
    pub(crate) fn long_requests(&self) -> &LongRequests {
        &self.0.long_requests
    }

    /// Forwards requests to other servers of the store.
    #[must_use]
    pub(crate) fn forwarding(&self) -> &Forwarding {
        &self.0.forwarding
    }

    /// The permits of requests that search logs.
    #[must_use]
    pub(crate) fn scans(&self) -> &Scans {
        &self.0.scans
    }

    /// The permits of requests that read and render logs.
    #[must_use]
    pub(crate) fn history(&self) -> &HistoryPermits {
        &self.0.history
    }

    /// The longest a request waits for an agent's reply.
    #[must_use]
    pub fn wait_budget(&self) -> Duration {
        self.0.wait_budget
    }

    /// Sampling and telemetry of all requests.
    #[must_use]
    pub fn request_telemetry(&self) -> &Arc<RequestTelemetry> {
        &self.0.request_telemetry
    }

    /// Whether the server is ready for requests.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.0.leaving.borrow().is_none()
    }

    /// From now on `readyz` fails, so that no new requests are sent here, and everything waiting for [`App::stopping`]
    /// ends.
    pub fn leave(&self) {
        self.0.leaving.send_if_modified(|since| {
            let begins = since.is_none();
            since.get_or_insert_with(Instant::now);
            begins
        });
    }

    /// Completes when the server begins to stop. Long-lived requests (event streams, long polls) end with it.
    pub fn stopping(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut leaving = self.0.leaving.subscribe();
        // The sender lives as long as the app; without it, the server has stopped.
        async move { drop(leaving.wait_for(Option::is_some).await) }
    }

    /// Completes a while after the server has begun to stop. Waiting requests then get an answer without the result,
    /// instead of being cut off.
    pub(crate) fn wait_cutoff(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut leaving = self.0.leaving.subscribe();
        async move {
            let since = leaving.wait_for(Option::is_some).await.ok().and_then(|since| *since);
            tokio::time::sleep_until(since.unwrap_or_else(Instant::now) + STOPPING_TIMEOUT).await;
        }
    }
}

impl FromRef<App> for BodyRoom {
    fn from_ref(app: &App) -> Self {
        app.0.body_room.clone()
    }
}

impl FromRef<App> for MaxBodyBytes {
    fn from_ref(app: &App) -> Self {
        app.0.max_body
    }
}
