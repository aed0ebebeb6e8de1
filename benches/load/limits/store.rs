//! L3: the embedded store alone: the rows of an append, without an actor or a server.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actors::clock::{Millis, SystemClock};
use actors::id::{Address, EntityKey};
use actors::store::{Commit, CommitId, Fingerprint, Head, KeyHash, KeyRow, NewRecord, Outcome, SeqRange, Store as _};
use bytes::Bytes;
use schema::embedded::{EmbeddedStore, Options};
use tokio::sync::oneshot;

use super::{Limit, repeat};
use crate::Error;
use crate::server::data_dir;

/// Entities that each client commits to in turn.
const ENTITIES: u64 = 64;
/// A message record of the usual size.
const RECORD: [u8; 360] = [7; 360];

/// Commits of one record and one key.
pub(super) async fn commit(clients: u32, time: Duration) -> Result<Limit, Error> {
    let dir = data_dir()?;
    // After a fatal error commits fail too, which ends the run.
    let fatal = |_: String| {};
    let store = EmbeddedStore::open(&dir, Options::new(Arc::new(SystemClock), Box::new(fatal)))?;
    let of_all = store.clone();
    let numbers = (0..clients).map(|_| AtomicU64::new(0)).collect::<Arc<[_]>>();
    let limit = repeat("L3 embedded store", clients, time, move |client| {
        let store = of_all.clone();
        let nth = numbers[client as usize].fetch_add(1, Ordering::Relaxed);
        async move {
            let (done, outcome) = oneshot::channel();
            // The receiver is right below.
            store.commit(next(client, nth), Box::new(move |outcome| drop(done.send(outcome))));
            match outcome.await?? {
                Outcome::Committed(_) => Ok(()),
                Outcome::Conflict => Err("nobody else commits, and yet there was a conflict".into()),
            }
        }
    })
    .await;
    store.close().await;
    std::fs::remove_dir_all(&dir)?;
    limit
}

/// A client's next commit, on its next entity.
fn next(client: u32, nth: u64) -> Commit {
    let entity = nth % ENTITIES;
    let round = nth / ENTITIES;
    let mut address = [0; 10];
    // Addresses are random in their first bytes.
    let mixed = (u64::from(client) * ENTITIES + entity + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    address[..8].copy_from_slice(&mixed.to_be_bytes());
    let mut id = [0; 16];
    id[..8].copy_from_slice(&mixed.to_be_bytes());
    id[8..].copy_from_slice(&round.to_be_bytes());
    let at = Millis(1_735_689_600_000);
    let entity = EntityKey::conversation(Address([1; 10]), Address(address));
    let expected = (round > 0).then_some(Head { seq: round, commit: round });
    Commit {
        records: vec![NewRecord { event: true, payload: Bytes::from_static(&RECORD) }],
        keys: vec![(KeyHash(id), KeyRow::new(Fingerprint([9; 16]), SeqRange::one(round + 1), at))],
        ..Commit::on(entity, expected, CommitId(id), at)
    }
}
