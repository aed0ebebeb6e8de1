//! `ETag` (RFC 9110, 8.8.3) of resources whose checksum does not cover all members.

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::trace_context::Hex;

/// A tag, without quotes, of all that is in `seen`: 32 hex digits that another value does not have.
#[must_use]
pub fn tag_of(seen: &impl Serialize) -> String {
    // What is tagged is text, numbers and truth values, which can always be written.
    let digest = Sha256::digest(serde_json::to_vec(seen).unwrap_or_default());
    Hex(&digest[..16]).to_string()
}
