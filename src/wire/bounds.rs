//! Bounds of clients' values that more than one kind of resource uses.

use crate::json::fields::{Length, ObjectBounds};

/// Names that clients choose, in characters: ids of owners, senders and contacts, names, titles.
pub const MAX_NAME_CHARS: usize = 255;
/// A person or program outside of this service: an owner, a contact, a key's principal.
pub const PRINCIPAL_ID: Length = Length::chars(1, MAX_NAME_CHARS);
/// A display name; required.
pub const NAME: Length = Length::chars(1, MAX_NAME_CHARS);
/// A display name that may be empty.
pub const NAME_OR_EMPTY: Length = Length::chars(0, MAX_NAME_CHARS);
/// A response to a review, also the default one; in its body it is at least one level below the top.
pub const ANSWER: ObjectBounds = ObjectBounds { bytes: 64 * 1024, depth: crate::json::MAX_DEPTH - 1 };
/// An object of the client's own.
pub const METADATA: ObjectBounds = ObjectBounds { bytes: 16 * 1024, depth: 8 };
