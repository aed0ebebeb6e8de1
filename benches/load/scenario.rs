//! The operations of clients: each scenario is one operation that clients repeat.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use tokio::task::JoinSet;

use crate::Error;
use crate::connection::Connection;
use crate::dialect::{Api, Dialect};

pub(crate) mod append;
pub(crate) mod exchange;
pub(crate) mod read;
pub(crate) mod review;
pub(crate) mod zipf;

/// Clients that prepare a run; a batch on the disk takes many requests at once.
const PREPARERS: u32 = 64;

/// An operation that clients repeat.
pub(crate) trait Scenario: Send + Sync + 'static {
    /// Does it once; returns the status of the last answer, or of the first one that was no 2xx.
    fn once(&self, connection: &mut Connection) -> impl Future<Output = std::io::Result<u16>> + Send;
}

/// Does something for every number below `count` over many connections; returns the results in no order.
pub(crate) async fn for_each<T, F>(address: SocketAddr, count: u32, what: F) -> Result<Vec<T>, Error>
where
    T: 'static,
    F: AsyncFn(&mut Connection, u32) -> Result<T, Error> + 'static,
{
    let next = Rc::new(Cell::new(0));
    let what = Rc::new(what);
    let local = tokio::task::LocalSet::new();
    let mut preparers = JoinSet::new();
    for _ in 0..PREPARERS.min(count) {
        let next = Rc::clone(&next);
        let what = Rc::clone(&what);
        preparers.spawn_local_on(
            async move {
                let mut connection = Connection::new(address);
                let mut given = Vec::new();
                loop {
                    let nth = next.get();
                    if nth >= count {
                        return Ok::<_, Error>(given);
                    }
                    next.set(nth + 1);
                    given.push(what(&mut connection, nth).await?);
                }
            },
            &local,
        );
    }
    local
        .run_until(async {
            let mut all = Vec::new();
            while let Some(given) = preparers.join_next().await {
                all.extend(given??);
            }
            Ok(all)
        })
        .await
}

/// Opens `count` conversations on a server that speaks the API, and returns their ids.
pub(crate) async fn open_conversations(address: SocketAddr, key: &str, count: u32) -> Result<Vec<String>, Error> {
    open(address, Arc::new(Api::new(address, key)), count).await
}

/// The same in a server's own dialect.
pub(crate) async fn open(address: SocketAddr, dialect: Arc<dyn Dialect>, count: u32) -> Result<Vec<String>, Error> {
    for_each(address, count, async move |connection: &mut Connection, nth| {
        let answer = connection.request(&dialect.open(nth)).await?;
        Ok(dialect.opened(nth, &answer).ok_or("the answer names no conversation")?)
    })
    .await
}
