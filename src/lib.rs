//! The front door: HTTP, wire types, configuration, wiring.

pub mod app;
pub mod bootstrap;
mod bounded_body;
pub mod config;
mod descriptors;
pub mod egress;
pub mod embeddings;
pub mod files;
pub mod http;
mod http_client;
pub mod json;
pub mod keys;
pub mod metrics;
pub mod models;
pub mod openapi;
pub mod operators;
pub mod problem;
pub mod secret;
pub mod serve;
pub mod server;
pub mod shutdown;
pub mod stores;
pub mod telemetry;
pub mod tls;
pub mod tools;
pub mod trace_context;
pub mod transfer;
pub mod validation;
pub mod webhooks;
pub mod wire;

/// The `User-Agent` of calls to other servers.
pub(crate) const USER_AGENT: &str = concat!("tertulia/", env!("CARGO_PKG_VERSION"));
