//! Real CQL servers for tests, and a real model.
//!
//! A test asks for [`server`] (one node, for any use) or [`cluster`] (three nodes that it may pause and kill). It gets
//! the first of these that is available:
//!
//! 1. the nodes that `TERTULIA_TEST_CQL_NODES` names (`host:port`, comma-separated; not for clusters);
//! 2. ScyllaDB by `docker run`, where a Docker daemon answers (not for clusters);
//! 3. Apache Cassandra, fetched once with Maven into the user's cache, on a JDK 17.
//!
//! Without any of them a test is skipped by name, and fails where `CI` is set.
//!
//! A process of its own, the *keeper*, starts a server, and all test binaries of a checkout share it. Each holds a
//! connection to the keeper until it ends, in whatever way. Once the last one has ended, the keeper waits for the next
//! binary of the same run ([`LINGER`]), then stops the server and removes its files. If the keeper itself is killed,
//! its servers end too.
//!
//! A [`Model`] is for tests that are run by name only. It is fetched once too, and belongs to the process that starts
//! it.

mod cache;
mod cassandra;
mod client;
mod docker;
mod keeper;
mod model;
mod node;

pub use client::{NoServer, Server, cluster, server};
pub use keeper::{LINGER, keep};
pub use model::Model;

/// The kinds of servers that a keeper starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Size {
    One,
    Three,
}

impl Size {
    fn name(self) -> &'static str {
        match self {
            Self::One => "one",
            Self::Three => "three",
        }
    }

    fn named(name: &str) -> Option<Self> {
        [Self::One, Self::Three].into_iter().find(|size| size.name() == name)
    }
}

/// A hash of a text. FNV-1a: the same in every binary, whatever compiler built it.
fn hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// Writes a line that neither the test runner nor a test's capture hides.
fn say(line: &str) {
    use std::io::Write as _;
    // Standard error may be closed, which is no fault of the test.
    _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}
