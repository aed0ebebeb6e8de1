//! The front door.

pub mod body;
pub mod context;
pub mod headers;
pub mod paging;
pub mod problem;
pub mod query;
pub mod rate;
pub mod trace;
