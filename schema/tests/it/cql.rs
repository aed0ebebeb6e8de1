//! The CQL store, on a real server.

use std::sync::Arc;

use ::schema::cql::{Contact, CqlStore, Options, migrate};
use actors::clock::{Clock, ManualClock, Millis, SystemClock};
use actors::store::conformance;

mod buckets;
mod chunks;
mod cluster;
mod counting;
mod crash;
mod due;
mod faults;
mod histories;
mod schema;
mod support;

/// A time before anything that the suite writes expires.
const SUITE_BEGINS: Millis = Millis(2_000);

/// How to reach this keyspace; `None`: there is no server, and the test is skipped.
fn contact(keyspace: &str) -> Option<Contact> {
    bed::server().map(|server| support::contact_at(server.nodes(), keyspace))
}

/// A store in a keyspace of its own.
async fn open(keyspace: &str, clock: Arc<dyn Clock>, configure: impl FnOnce(Options) -> Options) -> Option<CqlStore> {
    let contact = contact(keyspace)?;
    support::migrated(&contact.nodes, keyspace).await;
    Some(CqlStore::open(configure(Options::new(contact, clock))).await.expect("the store opens"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_keeps_every_promise_of_the_port() {
    let salt = SystemClock.now().0;
    let Some(store) = open("cql_conformance", Arc::new(SystemClock), |options| options).await else { return };
    conformance::run(async || store.clone(), salt).await;
    conformance::run_inventory(async || store.clone(), salt).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_keeps_every_promise_across_buckets() {
    let salt = SystemClock.now().0 + 1;
    let clock = Arc::new(ManualClock::at(SUITE_BEGINS));
    let Some(store) = open("cql_conformance_buckets", clock, |options| options.bucket_rows(3)).await else { return };
    conformance::run(async || store.clone(), salt).await;
    conformance::run_inventory(async || store.clone(), salt).await;
}
