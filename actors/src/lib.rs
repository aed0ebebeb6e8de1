//! The domain: conversations and contacts as durable actors, without HTTP and without a database.
//!
//! # What it promises
//!
//! - **Acknowledged means durable.** An answer leaves an actor only after its commit.
//! - **One order.** A conversation's events have gapless sequences from 1.
//! - **One effect per idempotency key**, one outcome per review, at most one reply per turn.
//! - **No timer lost.** A deadline's alarm is durable no later than the deadline itself.
//!
//! # Where to look
//!
//! A message arrives through [`node::Node::conversation`], finds its actor in the [`directory`], is decided by the pure
//! [`conversation`] machine, which the one generic `host` runs, and is stored through the [`store`] port. [`limits`]
//! holds every bound.

pub mod agent;
mod alarms;
pub mod attachment;
mod catalog;
pub mod channel;
pub mod clock;
pub mod codec;
pub mod contact;
pub mod conversation;
pub mod deltas;
pub mod directory;
mod host;
pub mod id;
mod id_clock;
pub mod key;
pub mod limits;
pub mod machine;
mod members;
pub mod memories;
pub mod message;
pub mod metrics;
pub mod node;
pub mod outbox;
pub mod patch;
pub mod ports;
#[cfg(any(test, feature = "test-support"))]
pub mod random;
pub mod registry;
pub mod requests;
pub mod store;
pub mod subscriptions;
pub mod sync;
pub mod tables;
pub mod tasks;
pub mod tool;
pub mod trace;
pub mod turns;
mod url;
pub mod usage;
pub mod webhook;
pub mod workflows;
pub mod workspace;
