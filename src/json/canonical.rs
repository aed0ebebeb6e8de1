//! Canonical JSON (RFC 8785), the form that is hashed: one text for one value, however it was written.

use std::borrow::Cow;

use serde_json::Value;

use crate::json::raw;

/// The canonical form of valid JSON. Numbers are compared as in RFC 8785, as doubles: `1` and `1.0` are one number.
/// Text without a canonical form (a number beyond the doubles) is returned compacted, so that it still equals itself.
#[must_use]
pub fn canonical(text: &str) -> Cow<'_, str> {
    serde_json::from_str::<Value>(text)
        .and_then(|value| serde_json_canonicalizer::to_string(&value))
        .map_or_else(|_| raw::compact(text), Cow::Owned)
}
