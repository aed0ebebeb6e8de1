//! How long and how large what clients send may be, where more than one kind of thing goes by it.

use crate::json::fields::{Length, ObjectBounds};

/// Whatever a client has chosen to know somebody or something by, in characters: ids of owners, senders and contacts,
/// names, titles.
pub const MAX_NAME_CHARS: usize = 255;
/// Somebody outside of this service: an owner, a contact, whoever has a key.
pub const PRINCIPAL_ID: Length = Length::chars(1, MAX_NAME_CHARS);
/// What people call something; there must be one.
pub const NAME: Length = Length::chars(1, MAX_NAME_CHARS);
/// The same where it may be empty.
pub const NAME_OR_EMPTY: Length = Length::chars(0, MAX_NAME_CHARS);
/// An answer to a review, also the one that stands where nobody answers; in the body that has it it is one level below
/// the top or more.
pub const ANSWER: ObjectBounds = ObjectBounds { bytes: 64 * 1024, depth: crate::json::MAX_DEPTH - 1 };
/// An object of the client's own.
pub const METADATA: ObjectBounds = ObjectBounds { bytes: 16 * 1024, depth: 8 };
