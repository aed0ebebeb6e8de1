//! The wire types of the three message APIs: bytes to checked requests, stored messages to JSON answers.
//!
//! Everything here is pure: no I/O, no clock. Checks that need the store (whether a channel, a parent or an attachment
//! exists) are the handler's, which adds its faults to this module's [`Report`](crate::json::report::Report), so that a
//! client sees all of them at once.

pub mod bounds;
pub mod channel_message;
pub mod contact;
pub mod contact_message;
pub mod conversation_message;
pub mod digits;
pub mod event;
pub mod filename;
pub mod fingerprint;
pub mod json_view;
pub mod memory;
pub mod review_response;
pub mod shape;
pub mod time;
pub mod url;

use std::net::IpAddr;

use actors::clock::Millis;
use actors::key::PrincipalKind;

/// The types of principals, by name.
pub const PRINCIPAL_TYPES: [(&str, PrincipalKind); 2] = {
    let [first, second] = PrincipalKind::ALL;
    [(first.name(), first), (second.name(), second)]
};

/// What a check needs besides the body.
#[derive(Clone, Copy)]
pub struct Rules<'f> {
    /// The time of the request.
    pub now: Millis,
    /// The addresses that may be reached although they are not public.
    pub allow: &'f dyn Fn(IpAddr) -> bool,
}

#[cfg(test)]
mod tests;
