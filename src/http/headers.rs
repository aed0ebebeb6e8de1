//! Request headers with a meaning of their own, read into values.

pub mod auth;
pub mod if_match;
pub mod key;
pub mod prefer;

pub use auth::{presented_key, workspace_id};
pub use if_match::{IfMatch, if_match};
pub use key::idempotency_key;
pub use prefer::{Prefer, prefer};
