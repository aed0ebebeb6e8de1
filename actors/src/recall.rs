//! What is remembered of the one a conversation is with, for an agent that answers there.

use crate::clock::Millis;
use crate::conversation;
use crate::id::EntityKey;
use crate::node::Node;
use crate::store::StoreError;

/// Something that is remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// What.
    pub text: String,
    /// Since when.
    pub at: Millis,
}

/// Up to `limit` memories of the contact or owner of a conversation, the best answer to `query` first.
///
/// # Errors
///
/// What the store says. A turn goes on without.
pub async fn recall(
    _node: &Node,
    _conversation: EntityKey,
    _state: &conversation::State,
    _query: &str,
    _limit: usize,
) -> Result<Vec<Remembered>, StoreError> {
    Ok(Vec::new())
}
