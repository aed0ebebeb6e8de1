//! The front door: HTTP, wire types, configuration, wiring.

pub mod http;
pub mod json;
pub mod wire;
