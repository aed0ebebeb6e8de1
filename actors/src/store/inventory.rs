//! Enumerating everything in a store, for tools that export or verify it. Serving requests never needs it.

use futures_util::future::BoxFuture;

use super::{KeyHash, KeyRow, Store, StoreError, Table, View};
use crate::id::{Address, EntityKey};

/// A [`Store`] that can list its content. Each list is complete for entries acknowledged before it was begun and not
/// written meanwhile.
pub trait Inventory: Store {
    /// Up to `limit` entities after `after`, in the store's own order; a page that is not full is the last. An entity
    /// that was created meanwhile may be missing.
    fn entities(&self, after: Option<EntityKey>, limit: usize) -> BoxFuture<'_, Result<Vec<EntityKey>, StoreError>>;

    /// Up to `limit` idempotency keys of an entity after `after`, ascending. An expired one may be missing.
    fn keys(
        &self,
        entity: EntityKey,
        after: Option<KeyHash>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<(KeyHash, KeyRow)>, StoreError>>;

    /// The tables in which an entity has keyed rows, ascending. A table whose rows were all deleted may be among them.
    fn tables(&self, entity: EntityKey) -> BoxFuture<'_, Result<Vec<Table>, StoreError>>;

    /// The lists of a workspace that have entries, ascending. A list whose entries were all deleted may be among them.
    fn views(&self, workspace: Address) -> BoxFuture<'_, Result<Vec<View>, StoreError>>;
}
