//! API keys: a principal, its scopes and its workspaces.

use minicbor::{Decode, Encode};

use crate::clock::Millis;
use crate::id::KeyId;

/// A permission of a key.
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
    /// Change the configuration.
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

/// The type of a principal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrincipalKind {
    /// A program. On a human channel it speaks as the channel.
    Agent,
    /// A person.
    User,
}

impl PrincipalKind {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::Agent, Self::User];

    /// Its name on the wire and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::User => "user",
        }
    }
}

/// Stored as a flag: whether it is an agent.
impl<C> Encode<C> for PrincipalKind {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.bool(*self == Self::Agent)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for PrincipalKind {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        Ok(if d.bool()? { Self::Agent } else { Self::User })
    }
}

/// The owner of a key.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Principal {
    /// Its type.
    #[n(0)]
    pub kind: PrincipalKind,
    /// Its id.
    #[n(1)]
    pub id: String,
}

impl Principal {
    /// Whether it has this id and kind; `None`: any kind.
    #[must_use]
    pub fn is(&self, id: &str, kind: Option<PrincipalKind>) -> bool {
        self.id == id && kind.is_none_or(|kind| self.kind == kind)
    }
}

/// A key, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ApiKey {
    /// Its id.
    #[n(0)]
    pub id: KeyId,
    /// Its display name.
    #[n(1)]
    pub name: String,
    /// Its scopes.
    #[n(2)]
    pub scopes: Vec<Scope>,
    /// The workspace in which it is valid.
    #[n(3)]
    pub workspace: String,
    /// Its owner.
    #[n(4)]
    pub principal: Principal,
    /// The keyed hash of the secret; the secret itself is not stored.
    #[cbor(n(5), with = "minicbor::bytes")]
    pub hash: [u8; 32],
    /// When it was made.
    #[n(6)]
    pub created_at: Millis,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_principal_is_stored_as_whether_it_is_an_agent() {
        for (kind, stored) in [(PrincipalKind::Agent, 0xf5), (PrincipalKind::User, 0xf4)] {
            let mut out = Vec::new();
            assert!(minicbor::encode(kind, &mut out).is_ok());
            assert_eq!(out, [stored]);
            assert_eq!(minicbor::decode(&out).ok(), Some(kind));
        }
    }
}
