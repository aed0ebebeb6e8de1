//! Positions in the list of deliveries, for cursors.

use actors::outbox::keys::pending_prefix;
use actors::outbox::lane::TAG_BYTES;
use actors::store::Order;

use super::filter::Part;
use super::place::EntryPosition;

/// The beginning of a page of the list: its part, and the entry there after which it begins. In the order of the list,
/// oldest first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Position {
    /// After this ended entry.
    Ended(Vec<u8>),
    /// After this pending entry; or within it, after that delivery. A single event has no entries.
    Pending(Vec<u8>, Option<EntryPosition>),
}

impl Position {
    pub(super) fn parse(cursor: &[u8]) -> Option<Self> {
        match cursor.split_first()? {
            (0, key) => Some(Self::Ended(key.to_vec())),
            (1, key) => Some(Self::Pending(key.to_vec(), None)),
            (2, rest) => {
                let (seq, rest) = rest.split_at_checked(8)?;
                let (tag, key) = rest.split_at_checked(TAG_BYTES)?;
                let place = (u64::from_be_bytes(seq.try_into().ok()?), tag.try_into().ok()?);
                Some(Self::Pending(key.to_vec(), Some(place)))
            }
            _ => None,
        }
    }

    pub(super) fn cursor(&self) -> Vec<u8> {
        match self {
            Self::Ended(key) => [&[0], &key[..]].concat(),
            Self::Pending(key, None) => [&[1], &key[..]].concat(),
            Self::Pending(key, Some((seq, tag))) => [&[2], &seq.to_be_bytes()[..], tag, &key[..]].concat(),
        }
    }

    /// Whether a list in this order has shown all of a part before it comes here.
    pub(super) fn has_passed(&self, part: &Part, order: Order) -> bool {
        match (self, part) {
            (Self::Pending(..), Part::Ended) => order == Order::Asc,
            (Self::Ended(_), Part::Pending(_) | Part::Lanes | Part::Event(_)) => order == Order::Desc,
            (Self::Pending(key, _), Part::Lanes) => order == Order::Desc && key.starts_with(&pending_prefix(None)),
            (Self::Pending(key, _), Part::Pending(prefix)) => {
                order.is_after(&key[..prefix.len().min(key.len())], &prefix[..])
            }
            (Self::Ended(_), Part::Ended) | (Self::Pending(..), Part::Event(_)) => false,
        }
    }
}
