//! The receivers of a workspace's events, by its configuration.
//!
//! Every decision needs this without waiting, so a workspace's endpoints are cached and read again after a change, here
//! or, as far as the [`catalog`](crate::catalog) has seen it, elsewhere. While they are unknown, an event counts as
//! wanted, and the courier finds out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;

use crate::codec;
use crate::id::{Address, EntityKey};
use crate::limits;
use crate::store::{KeyRange, Order, Scan, Store, StoreError};
use crate::tables::WEBHOOK_ENDPOINTS;
use crate::webhook::WebhookEndpoint;

/// The endpoints of a workspace.
pub(crate) type Endpoints = Arc<[WebhookEndpoint]>;

/// The receivers of the events that a decision makes.
#[derive(Clone, Debug, Default)]
pub struct Listeners {
    /// The workspace's endpoints; `None`: not known.
    endpoints: Option<Endpoints>,
    /// The channel has a `webhookUrl`, or it is not known whether it has.
    channel: bool,
}

impl Listeners {
    /// The receivers as they are known now.
    pub(crate) fn new(endpoints: Option<Endpoints>, channel: bool) -> Self {
        Self { endpoints, channel }
    }

    /// No receivers.
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

/// The endpoints of this node's workspaces, each with how many changes of its configuration had been seen when they
/// were read.
#[derive(Debug, Default)]
pub(crate) struct EndpointCache {
    known: DashMap<Address, (Endpoints, u64)>,
    version: AtomicU64,
}

impl EndpointCache {
    /// A workspace's endpoints as of this number of seen changes, if they are known.
    pub(crate) fn peek(&self, workspace: Address, moves: u64) -> Option<Endpoints> {
        self.known.get(&workspace).filter(|known| known.1 == moves).map(|known| Arc::clone(&known.0))
    }

    /// A workspace's endpoints; `moves`: the changes of its configuration seen so far.
    ///
    /// # Errors
    ///
    /// `StoreError` if the store, or the stored data, cannot be read.
    pub(crate) async fn get(&self, store: &dyn Store, workspace: Address, moves: u64) -> Result<Endpoints, StoreError> {
        if let Some(known) = self.peek(workspace, moves) {
            return Ok(known);
        }
        let version = self.version.load(Ordering::SeqCst);
        let entity = EntityKey::workspace(workspace);
        let limit = limits::WEBHOOK_ENDPOINTS * 2;
        let rows = store.rows(entity, WEBHOOK_ENDPOINTS, Scan::new(KeyRange::default(), Order::Asc, limit)).await?;
        // An unreadable endpoint is not a deleted one: its waiting events are kept, so the others alone do not count as
        // the configuration.
        let endpoints: Result<Vec<WebhookEndpoint>, _> = rows.iter().map(|row| codec::decode(&row.value)).collect();
        let endpoints: Endpoints = endpoints?.into();
        if self.known.len() >= limits::ENDPOINT_WORKSPACES {
            self.known.clear();
        }
        // As in the catalog: data read before a change must not be cached after it.
        let place = self.known.entry(workspace);
        if self.version.load(Ordering::SeqCst) == version {
            place.insert((Arc::clone(&endpoints), moves));
        }
        Ok(endpoints)
    }

    /// A workspace's endpoints have changed.
    pub(crate) fn forget(&self, workspace: Address) {
        self.version.fetch_add(1, Ordering::SeqCst);
        self.known.remove(&workspace);
    }

    /// The endpoints of any workspace may have changed.
    pub(crate) fn forget_all(&self) {
        self.version.fetch_add(1, Ordering::SeqCst);
        self.known.clear();
    }
}
