//! Reading configuration: rows of a [`registry`](crate::registry), decoded once and kept until they change.
//!
//! A row read before a change must not be cached after it. So every change raises a version, and a row is cached only
//! if the version is the one from before the read.
//!
//! If other processes may change a registry too, its cached rows are valid only while its head is unchanged. The head
//! is read every `CHECK_INTERVAL`, so a key that was revoked anywhere is refused everywhere within `MAX_STALENESS`.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use dashmap::DashMap;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::codec;
use crate::id::{EntityKey, half};
use crate::limits;
use crate::store::{Head, ReadLevel, Store, StoreError, Table};
use crate::sync::LockUnpoisoned;

/// After this time the head of a registry that others may change is read before a cached row is used.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// While one such read is running, others use their cached rows for this long.
pub(crate) const MAX_STALENESS: Duration = Duration::from_secs(2);

/// A decoded row, and how many changes of its registry had been seen when it was read.
type CachedRow = (u64, Arc<dyn Any + Send + Sync>);

/// Decoded rows of this node.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    rows: DashMap<[u8; 16], CachedRow>,
    version: AtomicU64,
    registries: DashMap<EntityKey, Arc<Registry>>,
}

/// A registry that others may change.
#[derive(Debug, Default)]
struct Registry {
    seen: std::sync::Mutex<Option<SeenHead>>,
    /// When the last read of the head failed, and why.
    failed: std::sync::Mutex<Option<(Instant, StoreError)>>,
    /// Held by the task that reads the head.
    reading: Mutex<()>,
}

/// The last seen state of a registry.
#[derive(Clone, Copy, Debug)]
struct SeenHead {
    at: Instant,
    head: Option<Head>,
    /// How many changes were seen.
    moves: u64,
}

/// A hashed name for a row of any entity.
fn name(entity: EntityKey, table: Table, key: &[u8]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&entity.to_bytes()).update(&[table.0]).update(key);
    half(&hasher.finalize())
}

impl Registry {
    fn seen_within(&self, age: Duration) -> Option<SeenHead> {
        let seen = *self.seen.lock_unpoisoned();
        seen.filter(|seen| seen.at.elapsed() < age)
    }

    /// The error of a read of the head since then, if one failed.
    fn failed_since(&self, then: Instant) -> Option<StoreError> {
        let failed = self.failed.lock_unpoisoned();
        failed.as_ref().filter(|failed| failed.0 >= then).map(|failed| failed.1.clone())
    }

    /// The head of a registry. A changed one is settled before its rows are read: a row missed then would stay missed
    /// until the next change.
    async fn head_in(&self, store: &dyn Store, entity: EntityKey) -> Result<Option<Head>, StoreError> {
        let before = *self.seen.lock_unpoisoned();
        if let Some(before) = before {
            let found = store.head(entity, ReadLevel::Acknowledged).await?;
            if found == before.head {
                return Ok(found);
            }
        }
        store.head(entity, ReadLevel::Settled).await
    }

    fn saw(&self, at: Instant, head: Option<Head>) -> u64 {
        let mut seen = self.seen.lock_unpoisoned();
        let moves = seen.map_or(0, |before| before.moves + u64::from(before.head != head));
        *seen = Some(SeenHead { at, head, moves });
        moves
    }
}

impl Catalog {
    /// The row as it is now, if there is one.
    ///
    /// # Errors
    ///
    /// `StoreError` if the store, or the stored data, cannot be read.
    pub(crate) async fn get<T>(
        &self,
        store: &dyn Store,
        entity: EntityKey,
        table: Table,
        key: &[u8],
    ) -> Result<Option<Arc<T>>, StoreError>
    where
        T: for<'b> minicbor::Decode<'b, ()> + Send + Sync + 'static,
    {
        // No row has such a key, and not every store accepts it.
        if key.len() > limits::CATALOG_KEY_BYTES {
            return Ok(None);
        }
        let moves = self.moves(store, entity).await?;
        let name = name(entity, table, key);
        if let Some(kept) = self.rows.get(&name)
            && kept.0 == moves
            && let Ok(row) = Arc::clone(&kept.1).downcast::<T>()
        {
            return Ok(Some(row));
        }
        let version = self.version.load(Ordering::SeqCst);
        let Some(bytes) = store.row(entity, table, Bytes::copy_from_slice(key)).await? else { return Ok(None) };
        let row: Arc<T> = Arc::new(codec::decode(&bytes)?);
        if self.rows.len() >= limits::CATALOG_ROWS {
            self.rows.clear();
        }
        // The entry's lock is held while the version is compared: a change either comes before, and is seen, or after,
        // and removes this entry.
        let place = self.rows.entry(name);
        if self.version.load(Ordering::SeqCst) == version {
            place.insert((moves, Arc::clone(&row) as Arc<dyn Any + Send + Sync>));
        }
        Ok(Some(row))
    }

    /// How many changes of a registry were seen, as of at most [`MAX_STALENESS`] ago. Changes of this process do not
    /// count, and in an unshared store it is 0.
    ///
    /// # Errors
    ///
    /// `StoreError` if the store, or the stored data, cannot be read.
    pub(crate) async fn moves(&self, store: &dyn Store, entity: EntityKey) -> Result<u64, StoreError> {
        if !store.is_shared() {
            return Ok(0);
        }
        let registry = match self.registries.get(&entity) {
            Some(registry) => Arc::clone(&registry),
            None => Arc::clone(&self.registries.entry(entity).or_default()),
        };
        if let Some(seen) = registry.seen_within(CHECK_INTERVAL) {
            return Ok(seen.moves);
        }
        let began = Instant::now();
        let reading = match registry.reading.try_lock() {
            Ok(reading) => reading,
            Err(_) => match registry.seen_within(MAX_STALENESS) {
                Some(seen) => return Ok(seen.moves),
                None => registry.reading.lock().await,
            },
        };
        // Another task may have read the head while this one waited.
        if let Some(seen) = registry.seen_within(CHECK_INTERVAL) {
            return Ok(seen.moves);
        }
        // A task that waited for a failed read takes its error: otherwise tasks would ask an unresponsive store one
        // after the other, each after the timeouts of all before it.
        if let Some(error) = registry.failed_since(began) {
            return Err(error);
        }
        // The time before the read, which does not see later changes.
        let at = Instant::now();
        let head = registry.head_in(store, entity).await.inspect_err(|error| {
            let failed = (Instant::now(), error.clone());
            *registry.failed.lock_unpoisoned() = Some(failed);
        })?;
        let moves = registry.saw(at, head);
        drop(reading);
        Ok(moves)
    }

    /// How many changes of a registry were seen, as in [`Catalog::moves`], if that is known without waiting.
    pub(crate) fn moves_seen(&self, store: &dyn Store, entity: EntityKey) -> Option<u64> {
        if !store.is_shared() {
            return Some(0);
        }
        let seen = self.registries.get(&entity)?.seen_within(MAX_STALENESS)?;
        Some(seen.moves)
    }

    /// The row of a registry as of this number of changes, if it is known without waiting.
    pub(crate) fn peek<T: Send + Sync + 'static>(
        &self,
        moves: u64,
        entity: EntityKey,
        table: Table,
        key: &[u8],
    ) -> Option<Arc<T>> {
        let name = name(entity, table, key);
        let kept = self.rows.get(&name).filter(|kept| kept.0 == moves)?;
        Arc::clone(&kept.1).downcast().ok()
    }

    /// Any row may have changed.
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
