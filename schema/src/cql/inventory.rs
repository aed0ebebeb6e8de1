//! Listing everything in the store; see `actors::store::inventory`.

use std::collections::BTreeMap;

use actors::id::{Address, EntityKey};
use actors::store::inventory::Inventory;
use actors::store::{KeyHash, KeyRow, StoreError, Table, View};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use super::CqlStore;
use super::layout::{BEYOND, entity_bytes, entity_of, sixteen};
use super::read::key_row;

/// Partitions of one read.
const PARTITIONS_PER_PAGE: i32 = 1_000;
/// Concurrent reads, if many are needed.
const MAX_CONCURRENT_READS: usize = 32;
/// Parts of the keys of closed buckets, see `layout::key_part`.
const KEY_PARTS: std::ops::Range<i8> = 0..16;

/// The kind that follows that of keyed rows.
const AFTER_ROWS: i8 = 4;
/// The least key.
const NOTHING: &[u8] = &[];

/// A stored key row.
type StoredKey = (Bytes, Bytes, i64, i64, i64);

impl CqlStore {
    /// In the order of the partitions' tokens; every entity has a first bucket.
    async fn first_buckets(&self, after: Option<EntityKey>, limit: usize) -> Result<Vec<EntityKey>, StoreError> {
        let statements = &self.db().statements;
        let mut cursor = after.map(|entity| (Bytes::copy_from_slice(&entity_bytes(entity)), 0));
        let mut found = Vec::new();
        while found.len() < limit {
            let page: Vec<(Bytes, i32)> = match &cursor {
                Some((entity, bucket)) => {
                    self.db().select(&statements.partitions_after, (&entity[..], bucket, PARTITIONS_PER_PAGE)).await?
                }
                None => self.db().select(&statements.partitions, (PARTITIONS_PER_PAGE,)).await?,
            };
            let first = page.iter().filter(|(_, bucket)| *bucket == 0);
            for (entity, _) in first {
                found.push(entity_of(entity)?);
            }
            if page.len() < PARTITIONS_PER_PAGE as usize {
                break;
            }
            cursor = page.into_iter().next_back();
        }
        found.truncate(limit);
        Ok(found)
    }

    /// Keys of the entity's current bucket, and of all earlier ones.
    async fn all_keys(
        &self,
        entity: EntityKey,
        after: Option<KeyHash>,
        limit: usize,
    ) -> Result<Vec<(KeyHash, KeyRow)>, StoreError> {
        let Some(bucket) = self.bucket(entity).await? else { return Ok(Vec::new()) };
        let name = entity_bytes(entity);
        let statements = &self.db().statements;
        let after = after.map_or_else(Vec::new, |hash| hash.0.to_vec());
        let most = i32::try_from(limit).unwrap_or(i32::MAX);
        let mut rows: Vec<StoredKey> =
            self.db().select(&statements.bucket_keys, (&name[..], bucket, &after, most)).await?;
        if bucket > 0 {
            for part in KEY_PARTS {
                let old = self.db().select(&statements.old_keys, (&name[..], part, &after, most)).await?;
                rows.extend::<Vec<StoredKey>>(old);
            }
        }
        // The open bucket's keys come first: a key that was used again hides its earlier effect.
        let mut found = BTreeMap::new();
        for (hash, fingerprint, first, last, at) in rows {
            found.entry(KeyHash(sixteen(&hash)?)).or_insert(key_row(&fingerprint, first, last, at)?);
        }
        Ok(found.into_iter().take(limit).collect())
    }

    async fn all_tables(&self, entity: EntityKey) -> Result<Vec<Table>, StoreError> {
        let Some(bucket) = self.bucket(entity).await? else { return Ok(Vec::new()) };
        let name = entity_bytes(entity);
        let statements = &self.db().statements;
        let mut found = Vec::new();
        let mut next = 0_i64;
        // From the first row of each table to the next table's.
        loop {
            let values = (&name[..], bucket, next, NOTHING, AFTER_ROWS, NOTHING, 1_i32);
            let row: Option<(i64,)> = self.db().select_one(&statements.row_table, values).await?;
            let Some(table) = row.and_then(|(table,)| u8::try_from(table).ok()) else { break };
            found.push(Table(table));
            next = i64::from(table) + 1;
        }
        if bucket > 0 {
            let closed = self.numbers(|list| async move {
                let values = (&name[..], i16::from(list), NOTHING, &BEYOND[..], 1_i32);
                let row: Option<(Bytes, Option<Bytes>)> =
                    self.db().select_one(&statements.old_rows_asc, values).await?;
                Ok(row.is_some())
            });
            found.extend(closed.await?.into_iter().map(Table));
            found.sort();
            found.dedup();
        }
        Ok(found)
    }

    async fn all_views(&self, workspace: Address) -> Result<Vec<View>, StoreError> {
        let statements = &self.db().statements;
        let found = self.numbers(|list| async move {
            let values = (&workspace.0[..], i16::from(list), i32::MIN, i32::MAX, 1_i32);
            let part: Option<(i32,)> = self.db().select_one(&statements.parts_asc, values).await?;
            Ok(part.is_some())
        });
        Ok(found.await?.into_iter().map(View).collect())
    }

    /// The numbers for which `has` holds, ascending.
    async fn numbers<F>(&self, has: impl Fn(u8) -> F) -> Result<Vec<u8>, StoreError>
    where
        F: Future<Output = Result<bool, StoreError>>,
    {
        let checks = stream::iter(0..=u8::MAX).map(|number| {
            let has = has(number);
            async move { has.await.map(|has| has.then_some(number)) }
        });
        checks.buffered(MAX_CONCURRENT_READS).try_filter_map(|number| async move { Ok(number) }).try_collect().await
    }
}

impl Inventory for CqlStore {
    fn entities(&self, after: Option<EntityKey>, limit: usize) -> BoxFuture<'_, Result<Vec<EntityKey>, StoreError>> {
        Box::pin(self.first_buckets(after, limit))
    }

    fn keys(
        &self,
        entity: EntityKey,
        after: Option<KeyHash>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<(KeyHash, KeyRow)>, StoreError>> {
        Box::pin(self.all_keys(entity, after, limit))
    }

    fn tables(&self, entity: EntityKey) -> BoxFuture<'_, Result<Vec<Table>, StoreError>> {
        Box::pin(self.all_tables(entity))
    }

    fn views(&self, workspace: Address) -> BoxFuture<'_, Result<Vec<View>, StoreError>> {
        Box::pin(self.all_views(workspace))
    }
}
