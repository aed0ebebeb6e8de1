//! Configuration is read from memory and is never older than what was acknowledged.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use actors::clock::Millis;
use actors::codec;
use actors::directory::{CommandContext, Refusal};
use actors::id::EntityKey;
use actors::registry::{Command, RowChange};
use actors::store::Table;
use actors::store::faulty::{FaultyStore, Rates};
use actors::store::memory::MemoryStore;

use crate::support::*;

const T: Table = Table(99);

fn workspace() -> EntityKey {
    EntityKey::workspace(WORKSPACE)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_row_read_after_a_change_was_acknowledged_is_not_older() {
    let node = node_on(MemoryStore::default());
    put(&node, T, b"row", codec::encode(&Millis(0))).await;
    let acknowledged = Arc::new(AtomicU64::new(0));
    let over = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let node = Arc::clone(&node);
            let acknowledged = Arc::clone(&acknowledged);
            let over = Arc::clone(&over);
            tokio::spawn(async move {
                let mut read = 0;
                while !over.load(Ordering::SeqCst) {
                    let floor = acknowledged.load(Ordering::SeqCst);
                    let row = node.configured::<Millis>(workspace(), T, b"row").await.unwrap().unwrap();
                    assert!(row.0 >= floor, "{} was acknowledged, {} is served", floor, row.0);
                    read += 1;
                    if read % 64 == 0 {
                        tokio::task::yield_now().await;
                    }
                }
            })
        })
        .collect();
    for version in 1..=2_000 {
        put(&node, T, b"row", codec::encode(&Millis(version))).await;
        acknowledged.store(version, Ordering::SeqCst);
    }
    over.store(true, Ordering::SeqCst);
    for reader in readers {
        reader.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_whose_outcome_was_unknown_is_seen_once_it_is_settled() {
    let store = Arc::new(FaultyStore::new(MemoryStore::default(), 1, Rates::default()));
    let node = node_over(&store);
    put(&node, T, b"row", codec::encode(&Millis(1))).await;
    let read = async || *node.configured::<Millis>(workspace(), T, b"row").await.unwrap().unwrap();
    assert_eq!(read().await, Millis(1));
    store.set_rates(Rates { unanswered: 1_000, ..Rates::default() });
    let changes = vec![RowChange::put(T, b"row", &codec::encode(&Millis(2)))];
    let command = Command { expected: Vec::new(), changes };
    let unknown = node.registry(workspace(), command, CommandContext::default()).await;
    assert!(matches!(unknown, Err(Refusal::Unknown(_))));
    store.calm();
    settle().await;
    assert_eq!(read().await, Millis(2));
}
