//! The front door: HTTP, wire types, configuration, wiring.

pub mod config;
pub mod http;
pub mod models;
pub mod server;
pub mod shutdown;
pub mod telemetry;
