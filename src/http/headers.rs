//! Request headers with a meaning of their own, read into values.

pub mod accept;
pub mod auth;
pub mod etag;
pub mod if_match;
pub mod if_none_match;
pub mod key;
pub mod media_type;
pub mod prefer;

pub use accept::{prefers_event_stream, prefers_openmetrics};
pub use etag::tag_of;
pub use if_match::if_match;
pub use if_none_match::unless_known;
pub use key::idempotency_key;
pub use media_type::essence;
pub use prefer::prefer;
