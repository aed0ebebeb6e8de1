//! `ETag` (RFC 9110, 8.8.3) of resources whose checksum does not cover all members.

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::trace_context::Hex;

/// A tag, without quotes, of everything in `seen`: 32 hex digits, different for each value.
#[must_use]
pub fn tag_of(seen: &impl Serialize) -> String {
    // Tagged values are texts, numbers and booleans, which can always be serialized.
    let digest = Sha256::digest(serde_json::to_vec(seen).unwrap_or_default());
    Hex(&digest[..16]).to_string()
}
