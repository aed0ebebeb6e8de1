//! A conversation's events as they are sent to receivers, and the marks that decisions leave for the outbox.

use std::sync::Arc;

use super::event::accepted;
use super::{Command, Conversation, Event, Origin, Reply, State, message_of};
use crate::directory::Directory;
use crate::id::{EntityKey, MessageId};
use crate::machine::{Change, DecisionContext, ReadSet, Record, Undecided};
use crate::message::Content;
use crate::node::Node;
use crate::outbox::receivers::{Hooks, Subject};
use crate::outbox::state::{self, Log, Outbox, Settlement};
use crate::outbox::{Happened, LaneRow, Listeners, LogChannel, LogOf, LogScope, Sending, Sends};
use crate::store::StoreError;

/// The earlier message that an event is about.
fn earlier(event: &Event) -> Option<MessageId> {
    match event {
        Event::MessageUpdated { message }
        | Event::MessageDeleted { message }
        | Event::MessageDelivered { message }
        | Event::MessageRead { message }
        | Event::ReviewRequested { message, .. } => Some(*message),
        Event::ReviewCompleted(end) | Event::ReviewExpired(end) | Event::ReviewCancelled(end) => Some(end.message),
        _ => None,
    }
}

/// The message that an event is about.
fn message_seq(seq: u64, event: &Event) -> Option<u64> {
    match event {
        Event::MessageCreated(_) => Some(seq),
        event => earlier(event).map(|message| message.number),
    }
}

/// The message that a record is about.
pub(crate) fn message_about(record: &Record<Event>) -> Option<MessageId> {
    accepted(record).map(|(message, _)| message).or_else(|| earlier(&record.event))
}

/// Whether an event is the outcome of a review.
fn is_outcome(event: &Event) -> bool {
    matches!(event, Event::ReviewCompleted(_) | Event::ReviewExpired(_) | Event::ReviewCancelled(_))
}

fn hooks_of(content: &Content) -> Hooks {
    let callback = content.review.as_ref().and_then(|review| review.callback.clone());
    Hooks { webhook_url: content.webhook_url.clone(), callback }
}

/// Whether a message's own webhooks want this event. Called for every message, so it copies nothing.
fn wants(content: &Content, is_outcome: bool) -> bool {
    let has_callback = || content.review.as_ref().is_some_and(|review| review.callback.is_some());
    content.webhook_url.is_some() || is_outcome && has_callback()
}

/// Whether any receiver subscribes to one of the events that were just decided.
fn is_wanted(
    change: &Change<Conversation>,
    channel: Option<&str>,
    context: &DecisionContext,
    reads: &ReadSet,
) -> Result<bool, Undecided> {
    let mut seq = context.next_seq;
    for event in &change.events {
        let Some(name) = event.name() else { continue };
        if reads.listeners().want(name, channel) || wants_own(change, seq, event, context, reads)? {
            return Ok(true);
        }
        seq += 1;
    }
    Ok(false)
}

/// Whether the webhooks of the event's own message want it.
fn wants_own(
    change: &Change<Conversation>,
    seq: u64,
    event: &Event,
    context: &DecisionContext,
    reads: &ReadSet,
) -> Result<bool, Undecided> {
    let Some(message) = message_seq(seq, event) else { return Ok(false) };
    let want = |content: &Content| wants(content, is_outcome(event));
    if let Event::MessageCreated(accepted) = event {
        return Ok(want(&accepted.content));
    }
    // A message of this very change is not in the log yet.
    if let Some(nth) = message.checked_sub(context.next_seq) {
        let event = change.events.iter().filter(|event| event.name().is_some()).nth(usize::try_from(nth).unwrap_or(0));
        return Ok(matches!(event, Some(Event::MessageCreated(accepted)) if want(&accepted.content)));
    }
    let record = reads.record(message)?;
    Ok(record.is_some_and(|record| message_of(&record).is_some_and(|message| want(&message.content))))
}

/// Adds to a change the mark that has its events sent, if any receiver subscribes to them, and with it the entity's
/// alarm, so that they are sent even if this process ends right after the commit.
pub(super) fn marked(
    state: Option<&State>,
    mut change: Change<Conversation>,
    context: &DecisionContext,
    reads: &ReadSet,
) -> Result<Change<Conversation>, Undecided> {
    let outbox = state.and_then(|state| state.outbox.as_ref());
    let begun = change.events.iter().find_map(|event| match event {
        Event::ConversationCreated { origin, .. } => Some(origin),
        _ => None,
    });
    let channel = state.map(|state| &state.origin).or(begun).and_then(Origin::channel);
    if outbox.is_some_and(|outbox| outbox.from.is_some()) || !is_wanted(&change, channel, context, reads)? {
        return Ok(change);
    }
    if let Some((outbox, entry)) = state::opened(context.entity, outbox, context.next_seq, context.now) {
        change.events.push(Event::OutboxMoved { outbox: Some(outbox) });
        change.views.push(entry);
    }
    Ok(change)
}

/// The receivers that listen to the command's conversation.
pub(super) fn listeners(node: &Node, entity: EntityKey, state: Option<&State>, command: &Command) -> Listeners {
    let opening = match command {
        Command::Open(opening) => Some(opening),
        Command::Post(post) => post.opening.as_ref(),
        _ => None,
    };
    let origin = state.map(|state| &state.origin).or(opening.map(|opening| &opening.origin));
    node.outbox.listeners(node, entity.workspace, origin.and_then(Origin::channel))
}

impl Sends for Conversation {
    fn directory(node: &Node) -> &Directory<Self> {
        &node.conversations
    }

    fn outbox(state: &State) -> Option<&Outbox> {
        state.outbox.as_ref()
    }

    fn log(entity: EntityKey, state: &State) -> Log {
        Log { entity, began: state.id.at, last_seq: state.last_seq }
    }

    fn scope(state: &State) -> LogScope {
        let channel = match &state.origin {
            Origin::Human { channel } => Some(LogChannel::Human(channel.as_str().into())),
            Origin::Api { channel, .. } => Some(LogChannel::Api(channel.as_str().into())),
            Origin::Direct => None,
        };
        LogScope { log: LogOf::Conversation(state.id), channel }
    }

    fn subject(record: &Record<Event>) -> Option<Subject> {
        Some(Subject {
            event: record.event.name()?,
            at: record.at,
            message: message_seq(record.seq, &record.event),
            is_outcome: is_outcome(&record.event),
        })
    }

    fn hooks(record: &Record<Event>) -> Option<Hooks> {
        match &record.event {
            Event::MessageCreated(accepted) => Some(hooks_of(&accepted.content)),
            _ => None,
        }
    }

    async fn happened(_: &Node, _: EntityKey, record: Arc<Record<Event>>) -> Result<Happened, StoreError> {
        Ok(Happened::Conversation(record))
    }

    fn settle(settlement: Settlement) -> Command {
        Command::Outbox(Sending::Settle(settlement))
    }

    fn moved(outbox: Option<Outbox>) -> Event {
        Event::OutboxMoved { outbox }
    }

    fn noted(again: Option<LaneRow>) -> Reply {
        again.map_or(Reply::Nothing, |lane| Reply::Again(Box::new(lane)))
    }
}
