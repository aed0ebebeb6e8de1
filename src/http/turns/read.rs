//! Reads stored turns: their replies, their triggers, and the turn that an idempotency key requested.

use actors::conversation::{Conversation, Event, Turn, message_of};
use actors::id::{EntityKey, MessageId};
use actors::message::Message;
use actors::node::Node;
use actors::store::{KeyHash, Order, SeqRange, StoreError};

use crate::http::log;

/// The replies of a turn that is over, in order.
pub(in crate::http) async fn replies(node: &Node, entity: EntityKey, turn: &Turn) -> Result<Vec<Message>, StoreError> {
    let Some(range) = turn.replies else { return Ok(Vec::new()) };
    let events = log::between(node, entity, range).await?;
    Ok(events.iter().filter_map(message_of).collect())
}

/// The newest message that a turn answers.
pub(in crate::http) async fn trigger(
    node: &Node,
    entity: EntityKey,
    turn: &Turn,
) -> Result<Option<MessageId>, StoreError> {
    let Some(seq) = turn.trigger else { return Ok(None) };
    let events = log::between(node, entity, SeqRange::one(seq)).await?;
    Ok(events.iter().find_map(message_of).map(|message| message.id))
}

/// The turn that an idempotency key requested, as first answered, by the key's effect.
pub(in crate::http) async fn turn_of(
    node: &Node,
    entity: EntityKey,
    effect: SeqRange,
    key: KeyHash,
) -> Result<Option<Turn>, StoreError> {
    if !effect.is_empty() {
        let events = node.events::<Conversation>(entity, effect, Order::Asc, 1).await?;
        return Ok(events.into_iter().find_map(|record| match record.event {
            Event::TurnStarted(turn) => Some(turn),
            _ => None,
        }));
    }
    // The turn had to wait, and waiting is no event. More messages may have joined it since.
    let Some((number, newest)) = node.asked_turn(entity, key).await? else { return Ok(None) };
    let turn = node.turn(entity, number).await?;
    Ok(turn.map(|turn| Turn { trigger: newest.or(Some(effect.last)), ..Turn::requested_again(&turn) }))
}
