//! Shared by tests of the CQL store.

use std::io::Write as _;
use std::sync::Arc;

use ::schema::cql::{Contact, CqlStore, MigrateError, Options, Quorum, migrate};
use actors::clock::{Millis, SystemClock};
use actors::store::{DuePage, Store as _};
use scylla::client::session_builder::SessionBuilder;

/// How to reach `keyspace` through these nodes.
pub(super) fn contact_at(nodes: &[String], keyspace: &str) -> Contact {
    Contact {
        nodes: nodes.to_vec(),
        keyspace: keyspace.to_owned(),
        datacenter: None,
        quorum: Quorum::Local,
        user: None,
        tls: None,
    }
}

/// Creates the keyspace, or migrates it.
pub(super) async fn migrated(nodes: &[String], keyspace: &str) {
    let contact = contact_at(nodes, keyspace);
    if let Err(MigrateError::Altered { .. }) = migrate(&contact, None).await {
        // An earlier state of this program left this keyspace on a server that outlives the run.
        let session = SessionBuilder::new().known_nodes(nodes).build().await.unwrap();
        session.query_unpaged(format!("DROP KEYSPACE {keyspace}"), ()).await.unwrap();
    }
    migrate(&contact, None).await.unwrap();
}

/// A store in an existing keyspace.
pub(super) async fn store_at(nodes: &[String], keyspace: &str) -> CqlStore {
    CqlStore::open(Options::new(contact_at(nodes, keyspace), Arc::new(SystemClock))).await.unwrap()
}

/// Reads the due index, and waits until the rows that are left to be checked are.
pub(super) async fn scan(store: &CqlStore, upto: Millis) -> DuePage {
    let page = store.due(None, upto, 100_000).await.unwrap();
    store.checked().await;
    page
}

/// Bytes as CQL writes them.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold("0x".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

/// A number from the environment.
pub(super) fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name} is {value}")))
}

/// Writes a line where the runner shows it, although the test passes.
pub(super) fn say(line: &str) {
    std::io::stderr().write_all(format!("{line}\n").as_bytes()).unwrap();
}
