//! Stretches of a conversation's log, as several handlers read them.

use actors::conversation::{Conversation, Event};
use actors::id::EntityKey;
use actors::machine::Record;
use actors::node::Node;
use actors::store::{Order, StoreError};

/// The events from one sequence to another, both included.
///
/// # Errors
/// What the store says.
pub(super) async fn between(
    node: &Node,
    entity: EntityKey,
    (first, last): (u64, u64),
) -> Result<Vec<Record<Event>>, StoreError> {
    let limit = usize::try_from(last.saturating_sub(first)).unwrap_or(usize::MAX).saturating_add(1);
    node.events::<Conversation>(entity, (first, last), Order::Asc, limit).await
}

/// The sequences from `first` on that stand behind `at` in this order.
pub(super) fn behind(first: u64, at: Option<u64>, order: Order) -> (u64, u64) {
    match (order, at) {
        (_, None) => (first, u64::MAX),
        (Order::Asc, Some(at)) => (first.max(at.saturating_add(1)), u64::MAX),
        (Order::Desc, Some(at)) => (first, at.saturating_sub(1)),
    }
}
