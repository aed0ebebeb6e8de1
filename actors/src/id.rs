//! Ids: the addresses of entities, and the ids that clients see.
//!
//! An [`Address`] is 80 bits. Entities that a retry must find again (a contact by its identifier, a conversation by an
//! idempotency key) derive theirs by hashing data that the retry also knows, so no table of claims is needed.
//! Client-visible ids begin with the time of creation, so they sort by time, and, for things inside an entity, contain
//! the entity's address and a number, so that `msg_…` alone leads to the message: no index, and no index that lags. The
//! time is compared when the thing is found; a forged id with another time names nothing.

use std::fmt;
use std::hash::{Hash, Hasher};

use crate::clock::Millis;

/// Crockford's alphabet in lower case: ascending, so that text sorts as the bytes do.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// The first half of a hash of `parts`. Each has its length before it, so `["ab","c"]` and `["a","bc"]` differ.
#[must_use]
pub fn hash_parts<'p>(hasher: &mut blake3::Hasher, parts: impl IntoIterator<Item = &'p [u8]>) -> [u8; 16] {
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    half(&hasher.finalize())
}

/// The first half of a hash: enough to tell apart what a hash names.
#[must_use]
pub fn half(hash: &blake3::Hash) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&hash.as_bytes()[..16]);
    half
}

/// The 80-bit address of an entity within its workspace, or of a workspace within the installation.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(pub [u8; 10]);

impl Address {
    /// The address derived from `parts`.
    #[must_use]
    pub fn derive(domain: &'static str, parts: &[&[u8]]) -> Self {
        let parts = std::iter::once(domain.as_bytes()).chain(parts.iter().copied());
        Self::from_prefix(&hash_parts(&mut blake3::Hasher::new(), parts))
    }

    /// An address from random bytes.
    #[must_use]
    pub fn random(bytes: [u8; 16]) -> Self {
        Self::from_prefix(&bytes)
    }

    fn from_prefix(bytes: &[u8]) -> Self {
        let mut out = [0; 10];
        out.copy_from_slice(&bytes[..10]);
        Self(out)
    }
}

impl fmt::Display for Address {
    /// In hexadecimal. It is stored (the keys of files' bytes begin with it) and shown, and never changes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<C> minicbor::Encode<C> for Address {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.bytes(&self.0)?.ok()
    }
}

impl<'b, C> minicbor::Decode<'b, C> for Address {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let bytes = d.bytes()?;
        bytes.try_into().map(Self).map_err(|_| minicbor::decode::Error::message("an address has 10 bytes"))
    }
}

/// The kind of an entity, which selects its state machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// The one entity that knows the workspaces and the keys of an installation.
    Installation = 1,
    /// Channels, agents and webhook endpoints of one workspace.
    Workspace = 2,
    /// One contact.
    Contact = 3,
    /// One conversation; a human channel's messages are one too.
    Conversation = 4,
    /// One uploaded or fetched file.
    Attachment = 5,
    /// The memories of one contact or owner.
    Memories = 6,
}

impl Kind {
    /// Every kind, in the order in which a stopping node evicts its entities: kinds that ask others come first.
    pub const ALL: [Self; 6] =
        [Self::Conversation, Self::Contact, Self::Attachment, Self::Memories, Self::Workspace, Self::Installation];

    /// The kind that [`EntityKey::to_bytes`] wrote as this byte.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// The name of an entity: the unit of atomicity, of order, and of ownership.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntityKey {
    /// The workspace's address; zero for the installation.
    pub workspace: Address,
    /// The state machine.
    pub kind: Kind,
    /// The address within the workspace and kind.
    pub id: Address,
}

impl Hash for EntityKey {
    /// In one piece, as every message is looked up in several maps: a derived implementation writes each part and its
    /// length separately.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(&self.to_bytes());
    }
}

impl EntityKey {
    /// Length of [`EntityKey::to_bytes`].
    pub const LEN: usize = 21;

    /// The installation's only entity of its kind.
    pub const INSTALLATION: Self = Self { workspace: Address([0; 10]), kind: Kind::Installation, id: Address([0; 10]) };

    /// The workspace entity of a workspace.
    #[must_use]
    pub fn workspace(workspace: Address) -> Self {
        Self { workspace, kind: Kind::Workspace, id: Address([0; 10]) }
    }

    /// A contact.
    #[must_use]
    pub fn contact(workspace: Address, id: Address) -> Self {
        Self { workspace, kind: Kind::Contact, id }
    }

    /// A conversation.
    #[must_use]
    pub fn conversation(workspace: Address, id: Address) -> Self {
        Self { workspace, kind: Kind::Conversation, id }
    }

    /// A file.
    #[must_use]
    pub fn attachment(workspace: Address, id: Address) -> Self {
        Self { workspace, kind: Kind::Attachment, id }
    }

    /// Workspace, kind, id: sorts by workspace first.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        out[..10].copy_from_slice(&self.workspace.0);
        out[10] = self.kind as u8;
        out[11..].copy_from_slice(&self.id.0);
        out
    }

    /// The inverse of [`EntityKey::to_bytes`]; `None` for anything else.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::LEN] = bytes.try_into().ok()?;
        Some(Self {
            workspace: Address::from_prefix(&bytes[..10]),
            kind: Kind::from_byte(bytes[10])?,
            id: Address::from_prefix(&bytes[11..]),
        })
    }
}

impl<C> minicbor::Encode<C> for EntityKey {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.bytes(&self.to_bytes())?.ok()
    }
}

impl<'b, C> minicbor::Decode<'b, C> for EntityKey {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        Self::from_bytes(d.bytes()?).ok_or_else(|| minicbor::decode::Error::message("not the name of an entity"))
    }
}

impl fmt::Debug for EntityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}/{:?}/{:?}", self.workspace, self.kind, self.id)
    }
}

/// Writes the 5-bit groups of `bytes`, most significant first, the last one filled with zero bits.
fn base32(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut text = [0u8; 42];
    let mut bits = 0u32;
    let mut held = 0;
    let mut chars = 0;
    for byte in bytes {
        // Bits already written leave at the top.
        bits = bits << 8 | u32::from(*byte);
        held += 8;
        while held >= 5 {
            held -= 5;
            text[chars] = ALPHABET[(bits >> held & 31) as usize];
            chars += 1;
        }
    }
    if held > 0 {
        text[chars] = ALPHABET[(bits << (5 - held) & 31) as usize];
        chars += 1;
    }
    f.write_str(std::str::from_utf8(&text[..chars]).map_err(|_| fmt::Error)?)
}

/// Marks bytes outside [`ALPHABET`] in [`GROUPS`].
const NO_GROUP: u8 = u8::MAX;

/// The inverse of [`ALPHABET`].
const GROUPS: [u8; 256] = {
    let mut groups = [NO_GROUP; 256];
    let mut group = 0;
    while group < ALPHABET.len() {
        groups[ALPHABET[group] as usize] = group as u8;
        group += 1;
    }
    groups
};

/// The inverse of [`base32`] for exactly `N` bytes; refuses any other spelling of the same bits.
fn unbase32<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != (N * 8).div_ceil(5) {
        return None;
    }
    let mut out = [0u8; N];
    let mut bits = 0u32;
    let mut held = 0;
    let mut read = 0;
    for char in text.bytes() {
        let group = GROUPS[usize::from(char)];
        if group == NO_GROUP {
            return None;
        }
        bits = bits << 5 | u32::from(group);
        held += 5;
        if held >= 8 {
            held -= 8;
            out[read] = (bits >> held) as u8;
            read += 1;
        }
    }
    // The padding bits of the last group are zero, or the text would be another name of the same bytes.
    (bits & ((1 << held) - 1) == 0).then_some(out)
}

fn put_time(out: &mut [u8], at: Millis) {
    out[..6].copy_from_slice(&at.to_bytes());
}

fn get_time(bytes: &[u8]) -> Millis {
    let mut time = [0; 6];
    time.copy_from_slice(&bytes[..6]);
    Millis::from_bytes(time)
}

/// An id of the form `prefix_` + 26 characters: 48 bits of time, 80 bits of address.
macro_rules! entity_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, minicbor::Encode, minicbor::Decode)]
        pub struct $name {
            /// When it was made.
            #[n(0)] pub at: Millis,
            /// Its address.
            #[n(1)] pub address: Address,
        }

        impl $name {
            /// An id made at `at` (48 bits of it are kept, which last until the year 10889).
            #[must_use]
            pub fn new(at: Millis, address: Address) -> Self {
                Self { at: Millis(at.0 & 0xffff_ffff_ffff), address }
            }

            /// Time, then address: sorts as the text does.
            #[must_use]
            pub fn to_bytes(self) -> [u8; 16] {
                let mut out = [0; 16];
                put_time(&mut out, self.at);
                out[6..].copy_from_slice(&self.address.0);
                out
            }

            /// The inverse of [`Self::to_bytes`].
            #[must_use]
            pub fn from_bytes(bytes: &[u8; 16]) -> Self {
                Self { at: get_time(bytes), address: Address::from_prefix(&bytes[6..]) }
            }

            /// The id that prints as `text`; `None` for anything else.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                let bytes = unbase32::<16>(text.strip_prefix($prefix)?)?;
                Some(Self::from_bytes(&bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($prefix)?;
                base32(&self.to_bytes(), f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

/// An id of the form `prefix_` + 34 characters: 48 bits of time, 80 of the entity, 40 of a number within it.
macro_rules! item_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, minicbor::Encode, minicbor::Decode)]
        pub struct $name {
            /// When it was made.
            #[n(0)] pub at: Millis,
            /// The entity it belongs to.
            #[n(1)] pub entity: Address,
            /// Its number there.
            #[n(2)] pub number: u64,
        }

        impl $name {
            /// The id of the thing numbered `number` of `entity`.
            #[must_use]
            pub fn new(at: Millis, entity: Address, number: u64) -> Self {
                Self { at: Millis(at.0 & 0xffff_ffff_ffff), entity, number: number & 0xff_ffff_ffff }
            }

            /// The id that prints as `text`; `None` for anything else.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                let bytes = unbase32::<21>(text.strip_prefix($prefix)?)?;
                let mut number = [0; 8];
                number[3..].copy_from_slice(&bytes[16..]);
                Some(Self {
                    at: get_time(&bytes),
                    entity: Address::from_prefix(&bytes[6..16]),
                    number: u64::from_be_bytes(number),
                })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut bytes = [0; 21];
                put_time(&mut bytes, self.at);
                bytes[6..16].copy_from_slice(&self.entity.0);
                bytes[16..].copy_from_slice(&self.number.to_be_bytes()[3..]);
                f.write_str($prefix)?;
                base32(&bytes, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

entity_id!(/// A conversation.
    ConversationId, "conv_");
entity_id!(/// A contact.
    ContactId, "cont_");
entity_id!(/// An API key (its name, not the secret).
    KeyId, "key_");
entity_id!(/// The id of a channel that the server generates; a client may choose one of its own.
    ChannelId, "chan_");
entity_id!(/// The id of an agent that the server generates; a client may choose one of its own.
    AgentId, "agt_");
entity_id!(/// The id of a workspace that the server generates; a client may choose one of its own.
    WorkspaceId, "ws_");
entity_id!(/// An uploaded or fetched file.
    AttachmentId, "att_");
entity_id!(/// A webhook endpoint.
    EndpointId, "wh_");
item_id!(/// A message: its conversation and its sequence there.
    MessageId, "msg_");
item_id!(/// An event of a conversation's log: its conversation and its sequence there.
    EventId, "evt_");
item_id!(/// A turn of an agent: its conversation and which of its turns it is.
    TurnId, "turn_");
item_id!(/// A memory: whose it is, and which of theirs.
    MemoryId, "mem_");

/// The id of an event's delivery to a receiver: its key in the list of those that have ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryId(pub [u8; 26]);

impl DeliveryId {
    /// The prefix of every id of this type.
    const PREFIX: &'static str = "del_";

    /// The id that prints as `text`; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        unbase32(text.strip_prefix(Self::PREFIX)?).map(Self)
    }
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::PREFIX)?;
        base32(&self.0, f)
    }
}

impl fmt::Debug for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests;
