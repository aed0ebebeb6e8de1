//! The front door.

pub mod answer;
pub mod body;
pub mod caller;
pub mod contacts;
pub mod context;
pub mod conversations;
pub mod headers;
pub mod idempotency;
pub mod messages;
pub mod paging;
pub mod problem;
pub mod query;
pub mod rate;
pub mod refusal;
pub mod trace;
pub mod turns;
