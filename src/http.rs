//! The front door.

pub mod answer;
pub mod body;
pub mod caller;
pub mod context;
pub mod headers;
pub mod idempotency;
pub mod paging;
pub mod problem;
pub mod query;
pub mod rate;
pub mod refusal;
pub mod trace;
