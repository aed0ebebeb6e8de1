//! The front door: HTTP, wire types, configuration, wiring.

pub mod http;
