//! Enumerating everything in the store; see `actors::store::inventory`.

use std::ops::Bound;

use actors::id::{Address, EntityKey};
use actors::store::inventory::Inventory;
use actors::store::{Cause, Head, KeyHash, KeyRow, StoreError, Table, View};
use fjall::Readable;
use futures_util::future::BoxFuture;

use super::EmbeddedStore;
use super::engine::{Engine, guarded};
use super::layout::{self, corrupt, unreadable};

/// No log row sorts after this one.
const LAST_HEAD: Head = Head { seq: u64::MAX, commit: u64::MAX };

impl Engine {
    /// Entities in the order of their keys: one seek each, however long their logs are.
    pub(super) fn entities(&self, after: Option<EntityKey>, limit: usize) -> Result<Vec<EntityKey>, StoreError> {
        guarded(EntityKey::INSTALLATION, || {
            let snapshot = self.snapshot();
            let mut found = Vec::new();
            let after_entity = |entity| Bound::Excluded(layout::log_key(entity, LAST_HEAD).to_vec());
            let mut from = after.map_or(Bound::Excluded(layout::META.to_vec()), after_entity);
            while found.len() < limit {
                let Some(next) = snapshot.range::<Vec<u8>, _>(&self.log, (from, Bound::Unbounded)).next() else {
                    break;
                };
                let key = next.key().map_err(|error| StoreError::Corrupt(Cause::of("the log", error)))?;
                let (entity, _) = layout::read_log_key(&key)
                    .ok_or_else(|| StoreError::Corrupt("the key of a log row is damaged".into()))?;
                found.push(entity);
                from = after_entity(entity);
            }
            Ok(found)
        })
    }

    pub(super) fn keys_of(
        &self,
        entity: EntityKey,
        after: Option<KeyHash>,
        limit: usize,
    ) -> Result<Vec<(KeyHash, KeyRow)>, StoreError> {
        guarded(entity, || {
            let first = Bound::Included(layout::idempotency_key(entity, KeyHash([0; 16])));
            let from = after.map_or(first, |hash| Bound::Excluded(layout::idempotency_key(entity, hash)));
            let to = Bound::Included(layout::idempotency_key(entity, KeyHash([u8::MAX; 16])));
            let mut found = Vec::new();
            for guard in self.snapshot().range(&self.keys, (from, to)).take(limit) {
                let (key, sealed) = guard.into_inner().map_err(|error| unreadable(entity, error))?;
                let row = layout::unseal(&key, &sealed).and_then(layout::read_key_row);
                let hash = key.get(EntityKey::LEN..).and_then(|hash| hash.try_into().ok()).map(KeyHash);
                found.push(hash.zip(row).ok_or_else(|| corrupt(entity, "an idempotency key is damaged"))?);
            }
            Ok(found)
        })
    }

    pub(super) fn tables(&self, entity: EntityKey) -> Result<Vec<Table>, StoreError> {
        let numbers = self.numbers(entity, &self.rows, |table| layout::row_key(entity, Table(table), &[]))?;
        Ok(numbers.into_iter().map(Table).collect())
    }

    pub(super) fn views(&self, workspace: Address) -> Result<Vec<View>, StoreError> {
        let entity = EntityKey::workspace(workspace);
        let numbers = self.numbers(entity, &self.index, |view| layout::view_key(workspace, View(view), &[]))?;
        Ok(numbers.into_iter().map(View).collect())
    }

    /// The numbers whose prefix has rows.
    fn numbers(
        &self,
        entity: EntityKey,
        keyspace: &fjall::Keyspace,
        prefix: impl Fn(u8) -> Vec<u8>,
    ) -> Result<Vec<u8>, StoreError> {
        guarded(entity, || {
            let snapshot = self.snapshot();
            let mut found = Vec::new();
            for number in 0..=u8::MAX {
                if let Some(guard) = snapshot.prefix(keyspace, prefix(number)).next() {
                    guard.key().map_err(|error| unreadable(entity, error))?;
                    found.push(number);
                }
            }
            Ok(found)
        })
    }
}

impl Inventory for EmbeddedStore {
    fn entities(&self, after: Option<EntityKey>, limit: usize) -> BoxFuture<'_, Result<Vec<EntityKey>, StoreError>> {
        Box::pin(self.read(move |engine| engine.entities(after, limit)))
    }

    fn keys(
        &self,
        entity: EntityKey,
        after: Option<KeyHash>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<(KeyHash, KeyRow)>, StoreError>> {
        Box::pin(self.read(move |engine| engine.keys_of(entity, after, limit)))
    }

    fn tables(&self, entity: EntityKey) -> BoxFuture<'_, Result<Vec<Table>, StoreError>> {
        Box::pin(self.read(move |engine| engine.tables(entity)))
    }

    fn views(&self, workspace: Address) -> BoxFuture<'_, Result<Vec<View>, StoreError>> {
        Box::pin(self.read(move |engine| engine.views(workspace)))
    }
}
