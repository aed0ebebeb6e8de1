//! Reading what a batch needs.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ractor::ActorRef;

use crate::id::EntityKey;
use crate::machine::{Found, Machine, Need, UNDER};
use crate::store::{KeyHash, KeyRange, Order, Store, StoreError};

use super::Mail;

/// How an answer of the store comes back as mail. An actor that waits for one waits for nothing else, so it must come
/// even if the store loses it: what is dropped untold tells that it was lost.
pub(crate) struct News<M: Machine, T> {
    myself: ActorRef<Mail<M>>,
    mail: fn(Result<T, StoreError>) -> Mail<M>,
    lost: Option<fn() -> StoreError>,
}

impl<M: Machine, T> News<M, T> {
    pub(crate) fn new(
        myself: &ActorRef<Mail<M>>,
        mail: fn(Result<T, StoreError>) -> Mail<M>,
        lost: fn() -> StoreError,
    ) -> Self {
        Self { myself: myself.clone(), mail, lost: Some(lost) }
    }

    /// A mailbox that refuses belongs to an actor that is gone, and so are its callers.
    pub(crate) fn tell(mut self, answer: Result<T, StoreError>) {
        self.lost = None;
        let _ = self.myself.cast((self.mail)(answer));
    }
}

impl<M: Machine, T> Drop for News<M, T> {
    fn drop(&mut self) {
        if let Some(lost) = self.lost {
            let _ = self.myself.cast((self.mail)(Err(lost())));
        }
    }
}

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
                Need::Under(table, prefix) => {
                    let range = KeyRange::under(&prefix);
                    let rows = store.rows(entity, table, range, Order::Asc, UNDER).await?;
                    found.add_under(table, prefix, rows);
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

/// What was read, if it is there without waiting, as it is with the embedded store; else it comes as mail.
pub(crate) fn now_or_later<M: Machine, T: Send + 'static>(
    mut reading: BoxFuture<'static, Result<T, StoreError>>,
    myself: &ActorRef<Mail<M>>,
    mail: fn(Result<T, StoreError>) -> Mail<M>,
) -> Option<Result<T, StoreError>> {
    let now = (&mut reading).now_or_never();
    if now.is_none() {
        let news = News::new(myself, mail, || StoreError::Unavailable("a read was lost".to_owned()));
        tokio::spawn(async move { news.tell(reading.await) });
    }
    now
}
