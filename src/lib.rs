//! The front door: HTTP, wire types, configuration, wiring.

pub mod config;
pub mod http;
