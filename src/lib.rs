//! The front door: HTTP, wire types, configuration, wiring.

pub mod app;
pub mod bootstrap;
pub mod config;
pub mod http;
pub mod json;
pub mod keys;
pub mod metrics;
pub mod models;
pub mod openapi;
pub mod operators;
pub mod secret;
pub mod serve;
pub mod server;
pub mod shutdown;
pub mod stores;
pub mod telemetry;
pub mod tools;
pub mod wire;
