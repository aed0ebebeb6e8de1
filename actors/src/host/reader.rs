//! Reading what a batch needs.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::id::EntityKey;
use crate::machine::{Found, Need};
use crate::store::{KeyHash, KeyRange, Order, Store, StoreError};

/// Reads `needs` and `keys` into `found`.
pub(crate) fn read(
    store: Arc<dyn Store>,
    entity: EntityKey,
    mut found: Found,
    needs: HashSet<Need>,
    keys: Vec<KeyHash>,
) -> BoxFuture<'static, Result<Found, StoreError>> {
    Box::pin(async move {
        for key in keys {
            found.add_key(key, store.find_key(entity, key).await?);
        }
        for need in needs {
            match need {
                Need::Row(table, key) => {
                    let row = store.row(entity, table, key.clone()).await?;
                    found.add_row(table, key, row);
                }
                Need::First(table, limit) => {
                    let rows = store.rows(entity, table, KeyRange::default(), Order::Asc, limit).await?;
                    found.add_first(table, limit, rows);
                }
                Need::Event(seq) => {
                    let events = store.read_log(entity, seq, seq, Order::Asc, 1).await?;
                    found.add_event(seq, events.into_iter().next().map(|event| event.payload));
                }
            }
        }
        Ok(found)
    })
}

/// Gives the result to `now` if it is there without waiting, as it is with the embedded store, else later to `later`.
pub(crate) fn now_or_later<T: Send + 'static>(
    mut future: BoxFuture<'static, T>,
    now: impl FnOnce(T),
    later: impl FnOnce(T) + Send + 'static,
) {
    match (&mut future).now_or_never() {
        Some(value) => now(value),
        None => drop(tokio::spawn(async move { later(future.await) })),
    }
}
