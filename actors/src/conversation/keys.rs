//! The keys of a conversation's rows, and of its list entries.

use bytes::Bytes;

use crate::clock::Millis;
use crate::id::{Address, MessageId};
use crate::message::Review;

/// Rows sort by number.
#[must_use]
pub fn number_key(number: u64) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

/// The key of a review in a workspace's lists: sorts by its place.
pub(super) fn review_key(id: MessageId, review: &Review) -> Bytes {
    let mut key = review.place.map_or_else(Vec::new, |place| place.0.to_be_bytes().to_vec());
    key.extend_from_slice(&id_key(id));
    key.into()
}

/// The message of a review that has this key in a workspace's lists.
#[must_use]
pub fn parse_review_key(key: &[u8]) -> Option<MessageId> {
    // An entry of an earlier build has no place of its own and is sorted by its message's time.
    parse_id_key(key).or_else(|| parse_id_key(key.get(8..)?))
}

/// A message's id as bytes: sorts by time.
pub(super) fn id_key(id: MessageId) -> Bytes {
    let mut key = Vec::with_capacity(26);
    key.extend_from_slice(&id.at.0.to_be_bytes());
    key.extend_from_slice(&id.entity.0);
    key.extend_from_slice(&id.number.to_be_bytes());
    key.into()
}

/// The inverse of [`id_key`].
pub(super) fn parse_id_key(key: &[u8]) -> Option<MessageId> {
    let (at, rest) = key.split_at_checked(8)?;
    let (entity, number) = rest.split_at_checked(10)?;
    let at = Millis(u64::from_be_bytes(at.try_into().ok()?));
    let number = u64::from_be_bytes(number.try_into().ok()?);
    Some(MessageId::new(at, Address(entity.try_into().ok()?), number))
}

/// The key of a pending review among the deadlines.
pub(super) fn deadline_key(expires_at: Millis, seq: u64) -> Bytes {
    [expires_at.0.to_be_bytes(), seq.to_be_bytes()].concat().into()
}

/// When a review's time is over and the sequence of its message, by its key among the deadlines.
pub(super) fn parse_deadline(key: &[u8]) -> Option<(Millis, u64)> {
    let (at, seq) = key.split_at_checked(8)?;
    Some((Millis(u64::from_be_bytes(at.try_into().ok()?)), u64::from_be_bytes(seq.try_into().ok()?)))
}
