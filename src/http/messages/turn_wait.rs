//! Waiting for an agent's reply.

use std::collections::VecDeque;
use std::time::Duration;

use actors::conversation::{Event, Turn, message_of};
use actors::id::EntityKey;
use actors::message::Message;
use actors::node::Node;
use actors::store::{SeqRange, StoreError};
use actors::subscriptions::{Missed, Notice, Subscription};
use tokio::time::{Instant, timeout_at};

use crate::http::turns::read;

/// The longest wait that a client may ask for, in seconds.
pub(in crate::http) const MAX_WAIT_SECONDS: u32 = 120;
/// After so long a wait for a reply the key is checked again before the answer.
pub(in crate::http) const KEY_CHECK_DELAY: Duration = Duration::from_secs(1);
/// How often the store is read: the turn may be running in another process.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Received messages that are kept while waiting. More are read from the store.
const MAX_KEPT_MESSAGES: usize = 8;

/// The newest received messages of a turn.
#[derive(Debug, Default)]
pub(in crate::http) struct ObservedReplies(VecDeque<Notice>);

impl ObservedReplies {
    fn observe(&mut self, turn: &Turn, notice: Notice) {
        let is_reply = matches!(&notice.event, Event::MessageCreated(message) if message.turn == Some(turn.id));
        if is_reply {
            if self.0.len() == MAX_KEPT_MESSAGES {
                self.0.pop_front();
            }
            self.0.push_back(notice);
        }
    }

    /// The messages with these sequences, if all were received.
    fn between(&self, range: SeqRange) -> Option<Vec<Message>> {
        let inside = self.0.iter().filter(|notice| range.contains(notice.seq));
        let is_complete = inside.clone().map(|notice| notice.seq).eq(range.seqs());
        is_complete.then(|| inside.filter_map(|notice| message_of(notice)).collect())
    }
}

/// Waits until a turn has ended or the time is over, and returns its state then.
///
/// `turn` is its state after `events` was subscribed to, so nothing can be missed. Messages received meanwhile are kept
/// in `observed`.
pub(in crate::http) async fn wait(
    node: &Node,
    entity: EntityKey,
    events: &mut Subscription,
    mut turn: Turn,
    observed: &mut ObservedReplies,
    deadline: Instant,
) -> Result<Turn, StoreError> {
    let mut poll_at = Instant::now() + POLL_INTERVAL;
    while !turn.is_over() && Instant::now() < deadline {
        match timeout_at(deadline.min(poll_at), events.recv()).await {
            Ok(Ok(notice)) => match end_of(&turn, &notice.event) {
                Some(ended) => turn = ended.clone(),
                None => observed.observe(&turn, notice),
            },
            Ok(Err(Missed(_))) => poll_at = Instant::now(),
            Err(_) => {}
        }
        if turn.is_over() || Instant::now() < poll_at {
            continue;
        }
        poll_at = Instant::now() + POLL_INTERVAL;
        turn = poll(node, entity, turn).await?;
    }
    if turn.is_over() {
        return Ok(turn);
    }
    // Waiting for people is no event.
    poll(node, entity, turn).await
}

/// The turn's current state, or its last known one while the store cannot be read.
async fn poll(node: &Node, entity: EntityKey, turn: Turn) -> Result<Turn, StoreError> {
    match node.turn(entity, turn.id.number).await {
        Ok(stored) => Ok(stored.unwrap_or(turn)),
        Err(error) if error.is_transient() => Ok(turn),
        Err(error) => Err(error),
    }
}

/// The end of `turn`, if the event is that. The end of an earlier attempt may arrive after a later one began.
fn end_of<'a>(turn: &Turn, event: &'a Event) -> Option<&'a Turn> {
    match event {
        Event::TurnCompleted(ended) | Event::TurnFailed(ended) | Event::TurnCancelled(ended) => {
            (ended.id == turn.id && ended.attempt >= turn.attempt).then_some(ended)
        }
        _ => None,
    }
}

/// The replies of an ended turn, in order: from `observed` if it has them all, else from the log.
pub(super) async fn observed_replies(
    node: &Node,
    entity: EntityKey,
    turn: &Turn,
    observed: &ObservedReplies,
) -> Result<Vec<Message>, StoreError> {
    match turn.replies.and_then(|range| observed.between(range)) {
        Some(replies) => Ok(replies),
        None => read::replies(node, entity, turn).await,
    }
}

#[cfg(test)]
mod tests {
    use actors::clock::Millis;
    use actors::conversation::TurnStatus;
    use actors::id::{Address, ConversationId};

    use super::*;

    #[test]
    fn a_turn_is_not_ended_by_an_earlier_attempt_or_another_turn() {
        let conversation = ConversationId::new(Millis(1), Address([1; 10]));
        let at =
            |number, attempt, status| Turn { attempt, status, ..Turn::requested(Millis(1), conversation, number, "a") };
        let running = at(1, 2, TurnStatus::Running);
        for other in [at(1, 1, TurnStatus::Failed), at(2, 2, TurnStatus::Failed)] {
            assert_eq!(end_of(&running, &Event::TurnFailed(other)), None);
        }
        for attempt in [2, 3] {
            let ended = at(1, attempt, TurnStatus::Completed);
            assert_eq!(end_of(&running, &Event::TurnCompleted(ended.clone())), Some(&ended));
        }
        let waiting = at(1, 0, TurnStatus::Queued);
        assert!(end_of(&waiting, &Event::TurnCancelled(waiting.clone())).is_some());
    }
}
