//! Reading configured resources by id; each is decoded once.
//!
//! Unless a function says otherwise, it fails with a `StoreError` if the store, or the stored data, cannot be read.

use std::sync::Arc;

use super::Node;
use crate::agent::Agent;
use crate::channel::{Channel, id_of};
use crate::conversation::Origin;
use crate::id::{Address, EntityKey};
use crate::store::{StoreError, Table};
use crate::tables::{AGENTS, CHANNELS, WORKSPACES};
use crate::workspace::Workspace;

impl Node {
    /// A workspace of the installation.
    pub async fn workspace(&self, id: &str) -> Result<Option<Arc<Workspace>>, StoreError> {
        self.configured(EntityKey::INSTALLATION, WORKSPACES, id.as_bytes()).await
    }

    /// A channel of a workspace.
    pub async fn channel(&self, workspace: Address, id: &str) -> Result<Option<Arc<Channel>>, StoreError> {
        self.configured(EntityKey::workspace(workspace), CHANNELS, id.as_bytes()).await
    }

    /// The current channel of a contact's conversation; `None`: it was deleted, even if another one has its id, or the
    /// conversation is no contact's.
    pub async fn api_channel(
        &self,
        conversation: EntityKey,
        origin: &Origin,
    ) -> Result<Option<Arc<Channel>>, StoreError> {
        let Origin::Api { channel: known, .. } = origin else { return Ok(None) };
        let found = self.channel(conversation.workspace, id_of(known)).await?;
        Ok(found.filter(|channel| channel.incarnation() == known.as_str()))
    }

    /// An agent of a workspace.
    pub async fn agent(&self, workspace: Address, id: &str) -> Result<Option<Arc<Agent>>, StoreError> {
        self.configured(EntityKey::workspace(workspace), AGENTS, id.as_bytes()).await
    }

    /// A row of configuration, decoded once.
    pub async fn configured<T>(&self, entity: EntityKey, table: Table, key: &[u8]) -> Result<Option<Arc<T>>, StoreError>
    where
        T: for<'b> minicbor::Decode<'b, ()> + Send + Sync + 'static,
    {
        self.catalog.get(self.store.as_ref(), entity, table, key).await
    }
}
