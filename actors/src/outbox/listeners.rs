//! Who listens to a workspace's events, as far as its configuration says.
//!
//! Every decision asks this, so it must be known without waiting: a workspace's endpoints are kept in memory and read again
//! when they have changed. Where they are not known, an event counts as wanted: then its sending finds out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;

use crate::clock::Millis;
use crate::codec;
use crate::id::{Address, EntityKey};
use crate::limits;
use crate::store::{KeyRange, Order, Store, StoreError};
use crate::webhook::{WEBHOOK_ENDPOINTS, WebhookEndpoint};

/// After which another node's changes of endpoints are seen, where several nodes share a store.
const FRESH_MILLIS: u64 = 2_000;

/// The endpoints of a workspace.
pub(crate) type Endpoints = Arc<[WebhookEndpoint]>;

/// Who wants to hear of the events that a decision makes.
#[derive(Clone, Debug, Default)]
pub struct Listeners {
    /// The workspace's endpoints; `None`: not known.
    endpoints: Option<Endpoints>,
    /// The channel has a `webhookUrl`, or nobody knows.
    channel: bool,
}

impl Listeners {
    /// As they are known now.
    pub(crate) fn new(endpoints: Option<Endpoints>, channel: bool) -> Self {
        Self { endpoints, channel }
    }

    /// Nobody.
    #[must_use]
    pub fn none() -> Self {
        // An empty slice is shared, so that this costs nothing.
        Self { endpoints: Some(Arc::default()), channel: false }
    }

    /// Whether one of them wants events of this type on this channel.
    #[must_use]
    pub fn want(&self, event: &str, channel: Option<&str>) -> bool {
        let subscribed =
            |endpoint: &WebhookEndpoint| endpoint.disabled.is_none() && endpoint.subscribes(event, channel);
        self.channel || self.endpoints.as_ref().is_none_or(|endpoints| endpoints.iter().any(subscribed))
    }
}

/// The endpoints of the workspaces that this node works for.
#[derive(Debug, Default)]
pub(crate) struct EndpointCache {
    known: DashMap<Address, (Endpoints, Millis)>,
    version: AtomicU64,
}

impl EndpointCache {
    /// A workspace's endpoints, if they are known.
    pub(crate) fn peek(&self, workspace: Address) -> Option<Endpoints> {
        self.known.get(&workspace).map(|known| Arc::clone(&known.0))
    }

    /// Whether they would have to be read.
    pub(crate) fn is_stale(&self, store: &dyn Store, workspace: Address, now: Millis) -> bool {
        let known = self.known.get(&workspace);
        known.is_none_or(|known| store.is_shared() && now.since(known.1) > FRESH_MILLIS)
    }

    /// A workspace's endpoints.
    ///
    /// # Errors
    ///
    /// What the store says.
    pub(crate) async fn get(
        &self,
        store: &dyn Store,
        workspace: Address,
        now: Millis,
    ) -> Result<Endpoints, StoreError> {
        if !self.is_stale(store, workspace, now)
            && let Some(known) = self.peek(workspace)
        {
            return Ok(known);
        }
        let version = self.version.load(Ordering::SeqCst);
        let entity = EntityKey::workspace(workspace);
        let limit = limits::WEBHOOK_ENDPOINTS * 2;
        let rows = store.rows(entity, WEBHOOK_ENDPOINTS, KeyRange::default(), Order::Asc, limit).await?;
        let endpoints: Result<Vec<WebhookEndpoint>, _> = rows.iter().map(|row| codec::decode(&row.value)).collect();
        let endpoints: Endpoints = endpoints?.into();
        if self.known.len() >= limits::ENDPOINT_WORKSPACES {
            self.known.clear();
        }
        // As in the catalog: what was read before a change must not be kept after it.
        let place = self.known.entry(workspace);
        if self.version.load(Ordering::SeqCst) == version {
            place.insert((Arc::clone(&endpoints), now));
        }
        Ok(endpoints)
    }

    /// A workspace's endpoints have changed.
    pub(crate) fn forget(&self, workspace: Address) {
        self.version.fetch_add(1, Ordering::SeqCst);
        self.known.remove(&workspace);
    }

    /// Endpoints may have changed, nobody knows whose.
    pub(crate) fn forget_all(&self) {
        self.version.fetch_add(1, Ordering::SeqCst);
        self.known.clear();
    }
}
