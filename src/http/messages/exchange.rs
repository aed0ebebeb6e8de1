//! Waiting for an agent's reply.

use std::time::Duration;

use actors::codec;
use actors::conversation::{Conversation, Event, TURNS, Turn, message_of};
use actors::id::{EntityKey, MessageId};
use actors::limits;
use actors::message::Message;
use actors::node::Node;
use actors::store::{KeyRange, Order, StoreError};
use actors::subscriptions::Subscription;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, timeout_at};

use crate::http::log;

/// How often the store is asked while nothing is heard: the turn may be running in another process.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Waits until a turn is over, and says how it stands then or when the time is over.
///
/// `turn` is how it stood after `events` was subscribed to, so nothing can be missed.
///
/// # Errors
///
/// What the store says.
pub(super) async fn wait(
    node: &Node,
    entity: EntityKey,
    events: &mut Subscription,
    mut turn: Turn,
    deadline: Instant,
) -> Result<Turn, StoreError> {
    while !turn.is_over() && Instant::now() < deadline {
        let until = deadline.min(Instant::now() + ASK_AGAIN);
        match timeout_at(until, events.events.recv()).await {
            Ok(Ok(record)) => match &record.event {
                Event::TurnCompleted(ended) | Event::TurnFailed(ended) | Event::TurnCancelled(ended)
                    if ended.id == turn.id =>
                {
                    turn = ended.clone();
                }
                _ => {}
            },
            Ok(Err(RecvError::Lagged(_))) | Err(_) => {
                if let Some(stored) = node.turn(entity, turn.id.number).await? {
                    turn = stored;
                }
            }
            Ok(Err(RecvError::Closed)) => return Ok(turn),
        }
    }
    Ok(turn)
}

/// The replies of a turn that is over, in order.
///
/// # Errors
///
/// What the store says.
pub(in crate::http) async fn replies(node: &Node, entity: EntityKey, turn: &Turn) -> Result<Vec<Message>, StoreError> {
    let Some((first, last)) = turn.replies else { return Ok(Vec::new()) };
    let events = log::between(node, entity, (first, last)).await?;
    Ok(events.iter().filter_map(message_of).collect())
}

/// The newest message that a turn answers.
///
/// # Errors
///
/// What the store says.
pub(in crate::http) async fn trigger(
    node: &Node,
    entity: EntityKey,
    turn: &Turn,
) -> Result<Option<MessageId>, StoreError> {
    let Some(seq) = turn.trigger else { return Ok(None) };
    let events = log::between(node, entity, (seq, seq)).await?;
    Ok(events.iter().find_map(message_of).map(|message| message.id))
}

/// The turn that an idempotency key asked for, by the key's range of events.
///
/// A turn that had to wait began no event of its own; it is known by what it shall answer: everything before.
///
/// # Errors
///
/// What the store says.
pub(in crate::http) async fn turn_of(
    node: &Node,
    entity: EntityKey,
    (first, last): (u64, u64),
    agent: &str,
) -> Result<Option<Turn>, StoreError> {
    if first <= last {
        let events = node.events::<Conversation>(entity, (first, last), Order::Asc, 1).await?;
        return Ok(events.into_iter().find_map(|record| match record.event {
            Event::TurnStarted(turn) => Some(turn),
            _ => None,
        }));
    }
    let newest = node.rows(entity, TURNS, KeyRange::default(), Order::Desc, limits::QUEUED_TURNS * 4).await?;
    for row in newest {
        let turn: Turn = codec::decode(&row.value)?;
        if turn.trigger == Some(last) && turn.agent == agent {
            // As it was answered first: waiting.
            return Ok(Some(Turn::requested_again(&turn)));
        }
    }
    Ok(None)
}
