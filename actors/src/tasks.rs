//! Helpers for concurrent work: pauses, retries, work that is shared or bounded, and log lines that do not flood.

pub mod backoff;
pub(crate) mod drain;
pub mod log_limiter;
pub(crate) mod retry_command;
pub mod shared_job;
pub mod shares;
pub(crate) mod single_flight;
