//! The wire types of the three message APIs: bytes to checked requests, stored messages to JSON answers.
//!
//! Everything here is pure: no I/O, no clock. What only a store can say (whether a channel, a parent or an attachment
//! exists) is left to the handler, which adds its faults to the [`Report`](crate::json::report::Report) that it gets
//! from here, so that a client sees all of them at once.

pub mod time;
pub mod url;
