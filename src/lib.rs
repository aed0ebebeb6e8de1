//! The front door: HTTP, wire types, configuration, wiring.

pub mod app;
pub mod config;
pub mod http;
pub mod json;
pub mod secret;
pub mod server;
pub mod shutdown;
pub mod telemetry;
pub mod wire;
