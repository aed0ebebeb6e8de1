//! Reading configuration: rows of a [`registry`](crate::registry), decoded once and kept until they change.
//!
//! A row read before a change must not be cached after it. So every change raises a version, and what was read is
//! kept only if the version is still that from before the read.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use dashmap::DashMap;

use crate::codec;
use crate::id::EntityKey;
use crate::limits;
use crate::store::{Store, StoreError, Table};

/// Decoded rows of this node.
#[derive(Debug, Default)]
pub struct Catalog {
    rows: DashMap<[u8; 16], Arc<dyn Any + Send + Sync>>,
    version: AtomicU64,
}

/// One name for a row of any entity, without keeping its parts.
fn name(entity: EntityKey, table: Table, key: &[u8]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&entity.to_bytes()).update(&[table.0]).update(key);
    let mut name = [0; 16];
    name.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    name
}

impl Catalog {
    /// The row as it is now, if there is one.
    ///
    /// # Errors
    ///
    /// What the store says.
    pub async fn get<T>(
        &self,
        store: &dyn Store,
        entity: EntityKey,
        table: Table,
        key: &[u8],
    ) -> Result<Option<Arc<T>>, StoreError>
    where
        T: for<'b> minicbor::Decode<'b, ()> + Send + Sync + 'static,
    {
        let name = name(entity, table, key);
        if let Some(row) = self.rows.get(&name)
            && let Ok(row) = Arc::clone(&row).downcast::<T>()
        {
            return Ok(Some(row));
        }
        let version = self.version.load(Ordering::SeqCst);
        let Some(bytes) = store.row(entity, table, Bytes::copy_from_slice(key)).await? else { return Ok(None) };
        let row: Arc<T> = Arc::new(codec::decode(&bytes)?);
        if self.rows.len() >= limits::CATALOG_ROWS {
            self.rows.clear();
        }
        // The entry's lock is held while the version is compared: a change comes either before, and is seen, or after,
        // and removes what is put here.
        let place = self.rows.entry(name);
        if self.version.load(Ordering::SeqCst) == version {
            place.insert(Arc::clone(&row) as Arc<dyn Any + Send + Sync>);
        }
        Ok(Some(row))
    }

    /// The row as it was last read, if it is known without waiting.
    pub(crate) fn peek<T: Send + Sync + 'static>(&self, entity: EntityKey, table: Table, key: &[u8]) -> Option<Arc<T>> {
        let row = Arc::clone(&*self.rows.get(&name(entity, table, key))?);
        row.downcast().ok()
    }

    /// Rows may have changed, nobody knows which.
    pub(crate) fn forget_all(&self) {
        self.version.fetch_add(1, Ordering::SeqCst);
        self.rows.clear();
    }

    /// A row has changed.
    pub(crate) fn forget(&self, entity: EntityKey, table: Table, key: &[u8]) {
        self.version.fetch_add(1, Ordering::SeqCst);
        self.rows.remove(&name(entity, table, key));
    }
}
