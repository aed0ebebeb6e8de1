//! The domain: conversations and contacts as durable actors.

pub mod clock;
pub mod id;
pub mod limits;
pub mod message;
pub mod store;
