//! Reading what a batch needs.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, stream};
use ractor::ActorRef;

use crate::id::EntityKey;
use crate::machine::{MAX_ROWS_UNDER_PREFIX, Machine, Need, ReadSet};
use crate::store::{KeyHash, KeyRange, KeyRow, LogScan, Order, Row, Scan, SeqRange, Store, StoreError, Table};

use super::Mail;

/// Returns a store's answer as mail. An actor that awaits one awaits nothing else, so the mail must come even if
/// the store loses the answer: dropping this unused reports the loss.
pub(crate) struct Completion<M: Machine, T> {
    myself: ActorRef<Mail<M>>,
    mail: fn(Result<T, StoreError>) -> Mail<M>,
    lost: Option<fn() -> StoreError>,
}

impl<M: Machine, T> Completion<M, T> {
    pub(crate) fn new(
        myself: &ActorRef<Mail<M>>,
        mail: fn(Result<T, StoreError>) -> Mail<M>,
        lost: fn() -> StoreError,
    ) -> Self {
        Self { myself: myself.clone(), mail, lost: Some(lost) }
    }

    /// Sends the answer to the actor. A mailbox that refuses it belongs to an actor that has ended, as have its
    /// callers.
    pub(crate) fn send(mut self, answer: Result<T, StoreError>) {
        self.lost = None;
        let _ = self.myself.cast((self.mail)(answer));
    }
}

impl<M: Machine, T> Drop for Completion<M, T> {
    fn drop(&mut self) {
        if let Some(lost) = self.lost {
            let _ = self.myself.cast((self.mail)(Err(lost())));
        }
    }
}

/// Concurrent reads for one batch, if each takes a round trip: a burst of deadlines needs only a few rounds, and one
/// entity's reads do not take the connections of others.
const MAX_CONCURRENT_READS: usize = 32;

/// One thing that was read; the machine decides about what is damaged.
enum Read {
    Key(KeyHash, Option<KeyRow>),
    Row(Table, Bytes, Result<Option<Bytes>, StoreError>),
    First(Table, usize, Result<Vec<Row>, StoreError>),
    Under(Table, Bytes, Result<Vec<Row>, StoreError>),
    Event(u64, Result<Option<Bytes>, StoreError>),
}

/// Reads `needs` and `keys` into `read_set`.
pub(crate) fn read(
    store: Arc<dyn Store>,
    entity: EntityKey,
    mut read_set: ReadSet,
    needs: HashSet<Need>,
    keys: Vec<KeyHash>,
) -> BoxFuture<'static, Result<ReadSet, StoreError>> {
    Box::pin(async move {
        if store.is_shared() && needs.len() + keys.len() > 1 {
            let keys = keys.into_iter().map(|key| read_key(&store, entity, key).boxed());
            let needs = needs.into_iter().map(|need| read_need(&store, entity, need).boxed());
            let all: Vec<BoxFuture<'_, _>> = keys.chain(needs).collect();
            let mut reads = stream::iter(all).buffer_unordered(MAX_CONCURRENT_READS);
            while let Some(read) = reads.next().await {
                read?.add_to(&mut read_set);
            }
        } else {
            for key in keys {
                read_key(&store, entity, key).await?.add_to(&mut read_set);
            }
            for need in needs {
                read_need(&store, entity, need).await?.add_to(&mut read_set);
            }
        }
        Ok(read_set)
    })
}

async fn read_key(store: &Arc<dyn Store>, entity: EntityKey, key: KeyHash) -> Result<Read, StoreError> {
    Ok(Read::Key(key, store.find_key(entity, key).await?))
}

async fn read_need(store: &Arc<dyn Store>, entity: EntityKey, need: Need) -> Result<Read, StoreError> {
    Ok(match need {
        Need::Row(table, key) => {
            let row = store.row(entity, table, key.clone()).await;
            Read::Row(table, key, damage_or_retry(row)?)
        }
        Need::First(table, limit) => {
            let rows = store.rows(entity, table, Scan::new(KeyRange::default(), Order::Asc, limit)).await;
            Read::First(table, limit, damage_or_retry(rows)?)
        }
        Need::Under(table, prefix) => {
            let rows =
                store.rows(entity, table, Scan::new(KeyRange::under(&prefix), Order::Asc, MAX_ROWS_UNDER_PREFIX)).await;
            Read::Under(table, prefix, damage_or_retry(rows)?)
        }
        Need::Event(seq) => {
            let scan = LogScan { range: SeqRange::one(seq), order: Order::Asc, limit: 1 };
            let events = store.read_log(entity, scan).await;
            let event = events.map(|events| events.into_iter().next().map(|event| event.payload));
            Read::Event(seq, damage_or_retry(event)?)
        }
    })
}

/// What was read, or how it is damaged. `Err`: the store may be readable later.
fn damage_or_retry<T>(read: Result<T, StoreError>) -> Result<Result<T, StoreError>, StoreError> {
    match read {
        Err(error) if error.is_transient() => Err(error),
        read => Ok(read),
    }
}

impl Read {
    fn add_to(self, reads: &mut ReadSet) {
        match self {
            Self::Key(key, row) => reads.add_key(key, row),
            Self::Row(table, key, row) => reads.add_row(table, key, row),
            Self::First(table, limit, rows) => reads.add_first(table, limit, rows),
            Self::Under(table, prefix, rows) => reads.add_under(table, prefix, rows),
            Self::Event(seq, event) => reads.add_event(seq, event),
        }
    }
}

/// The result, if it is available without waiting, as with the embedded store; else it comes as mail.
pub(crate) fn now_or_later<M: Machine, T: Send + 'static>(
    mut reading: BoxFuture<'static, Result<T, StoreError>>,
    myself: &ActorRef<Mail<M>>,
    mail: fn(Result<T, StoreError>) -> Mail<M>,
) -> Option<Result<T, StoreError>> {
    let now = (&mut reading).now_or_never();
    if now.is_none() {
        let completion = Completion::new(myself, mail, || StoreError::Unavailable("a read was lost".into()));
        tokio::spawn(async move { completion.send(reading.await) });
    }
    now
}
