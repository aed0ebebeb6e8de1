//! API keys: who may do what, where.

use minicbor::{Decode, Encode};

use crate::clock::Millis;
use crate::id::KeyId;

/// What a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Scope {
    /// Send messages.
    #[n(0)]
    MessagesWrite,
    /// Read.
    #[n(1)]
    MessagesRead,
    /// Decide reviews.
    #[n(2)]
    ReviewsRespond,
    /// Everything that configures.
    #[n(3)]
    Admin,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::MessagesWrite, Self::MessagesRead, Self::ReviewsRespond, Self::Admin];

    /// Its name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::MessagesWrite => "messages:write",
            Self::MessagesRead => "messages:read",
            Self::ReviewsRespond => "reviews:respond",
            Self::Admin => "admin",
        }
    }
}

/// Whose key it is.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Principal {
    /// A program. On a human channel it speaks as the channel.
    #[n(0)]
    pub is_agent: bool,
    /// Their id.
    #[n(1)]
    pub id: String,
}

/// A key, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ApiKey {
    /// Its id.
    #[n(0)]
    pub id: KeyId,
    /// What people call it.
    #[n(1)]
    pub name: String,
    /// What it may do.
    #[n(2)]
    pub scopes: Vec<Scope>,
    /// Where.
    #[n(3)]
    pub workspace: String,
    /// Whose it is.
    #[n(4)]
    pub principal: Principal,
    /// The keyed hash of the secret; the secret itself is nowhere.
    #[cbor(n(5), with = "minicbor::bytes")]
    pub hash: [u8; 32],
    /// When it was made.
    #[n(6)]
    pub created_at: Millis,
}
