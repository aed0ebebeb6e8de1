//! The embedded store.

use std::path::Path;
use std::sync::{Arc, Mutex};

use actors::clock::SystemClock;
use actors::id::{Address, EntityKey};
use actors::store::conformance::{self, commit, events};
use actors::store::{Head, Outcome, ReadLevel, Store};
use schema::embedded::{EmbeddedStore, OpenError, Options};

mod crash;
mod damage;
mod opening;
mod redaction;
mod writing;

fn options() -> Options {
    Options::new(Arc::new(SystemClock), Box::new(|reason| panic!("fatal: {reason}"))).cache_bytes(4 << 20)
}

fn open(dir: &Path) -> EmbeddedStore {
    EmbeddedStore::open(dir, options()).expect("the store opens")
}

fn refused(dir: &Path) -> OpenError {
    EmbeddedStore::open(dir, options()).map(drop).expect_err("the store is refused")
}

fn entity(n: u64) -> EntityKey {
    EntityKey::conversation(Address([1; 10]), Address::derive("entity", &[&n.to_le_bytes()]))
}

/// Commits one event with this payload, after `head`.
async fn append(store: &EmbeddedStore, entity: EntityKey, head: Option<Head>, payload: &str) -> Head {
    match commit(store, events(entity, head, &[payload])).await {
        Ok(Outcome::Committed(head)) => head,
        other => panic!("{other:?}"),
    }
}

/// All payloads in an entity's log, newest last.
async fn payloads(store: &EmbeddedStore, entity: EntityKey) -> Vec<String> {
    let loaded = store.load(entity, ReadLevel::Acknowledged).await.expect("a read");
    let tail = loaded.map(|loaded| loaded.tail).unwrap_or_default();
    tail.iter().map(|record| String::from_utf8_lossy(&record.payload).into_owned()).collect()
}

/// A hook for `Options::new`, and the reasons that it was called with.
fn fatal() -> (schema::embedded::OnFatal, Arc<Mutex<Vec<String>>>) {
    let reasons = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&reasons);
    (Box::new(move |reason| heard.lock().unwrap().push(reason)), reasons)
}

#[tokio::test]
async fn the_store_keeps_every_promise_of_the_port() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    conformance::run(async || store.clone(), 1).await;
    store.flush().unwrap();
    conformance::run(async || store.clone(), 2).await;
    conformance::run_inventory(async || store.clone(), 3).await;
}
