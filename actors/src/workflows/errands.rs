//! Running errands, instructions from one conversation to another (see [`crate::conversation::errand`]).
//!
//! Nothing here needs to be durable: an errand is removed from its conversation once it has run, and that
//! conversation's alarm rings for those that have not.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::codec;
use crate::conversation::{Calls, CancelReview, Command, Conversation, EndWait, Errand, Turn, message_of, number_key};
use crate::directory::{CommandContext, KeyUse, Refusal};
use crate::id::{Address, EntityKey, MessageId, TurnId, hash_parts};
use crate::limits;
use crate::message::{ReviewState, ReviewStatus};
use crate::node::Node;
use crate::store::{Fingerprint, KeyHash, KeyRange, Order, Pages, SeqRange, StoreError};
use crate::tables::{CALLS, ERRANDS};
use crate::tasks::single_flight::SingleFlight;
use crate::trace::TraceContext;

/// The errands that are being run in this process, by conversation.
#[derive(Debug)]
pub(crate) struct Errands {
    running: Arc<SingleFlight>,
    /// Conversations whose turn is checking its reviews.
    checking: Arc<SingleFlight>,
    permits: Arc<Semaphore>,
}

impl Default for Errands {
    fn default() -> Self {
        let permits = Arc::new(Semaphore::new(limits::RUNNING_ERRANDS));
        Self { running: Arc::default(), checking: Arc::default(), permits }
    }
}

impl Errands {
    /// Runs the errands of a conversation.
    pub(crate) fn run(&self, node: &Arc<Node>, entity: EntityKey) {
        let Some(mut flight) = self.running.begin(entity) else { return };
        let node = Arc::clone(node);
        tokio::spawn(async move {
            loop {
                // The semaphore is never closed.
                let Ok(_permit) = Arc::clone(&node.errands.permits).acquire_owned().await else { return };
                if let Err(error) = run_all(&node, entity).await {
                    tracing::warn!(?entity, %error, "could not run errands; retrying");
                }
                if !flight.again() {
                    return;
                }
            }
        });
    }

    /// Checks whether the reviews that a turn waits for are over. They notify the turn; this covers a lost
    /// notification.
    pub(crate) fn check_reviews(&self, node: &Arc<Node>, entity: EntityKey, turn: &Turn) {
        let Some(flight) = self.checking.begin(entity) else { return };
        let node = Arc::clone(node);
        let number = turn.id.number;
        tokio::spawn(async move {
            let _flight = flight;
            let Ok(_permit) = Arc::clone(&node.errands.permits).acquire_owned().await else { return };
            if let Err(error) = check_reviews(&node, entity, number).await {
                tracing::warn!(?entity, %error, "could not check pending reviews; retrying");
            }
        });
    }
}

/// Runs the errands one after the other; one that cannot run now does not keep the others from running.
async fn run_all(node: &Arc<Node>, entity: EntityKey) -> Result<(), StoreError> {
    let mut pages = Pages::of_rows(node.store.as_ref(), entity, ERRANDS, KeyRange::default(), limits::ERRANDS);
    while let Some(rows) = pages.next().await? {
        let mut keys = Vec::new();
        for row in rows {
            let ran = match codec::decode(&row.value) {
                Ok(errand) => run(node, entity, &errand).await,
                Err(error) => Err(error),
            };
            match ran {
                Ok(true) => keys.push(row.key),
                Ok(false) => {}
                Err(error) => tracing::warn!(?entity, %error, "could not run an errand; retrying"),
            }
        }
        if !keys.is_empty() && !ask(node, entity, Command::ErrandsRun { keys }, None).await {
            return Ok(());
        }
    }
    Ok(())
}

/// Runs an errand; `false`: it could not be done now.
async fn run(node: &Arc<Node>, entity: EntityKey, errand: &Errand) -> Result<bool, StoreError> {
    let trace = errand.trace();
    match errand {
        Errand::NotifyAsker { asker, message, .. } => {
            let Some(state) = review_of(node, entity, *message).await? else { return Ok(true) };
            let result = node.ports.tools.reviewed(&state);
            let end = EndWait { number: asker.turn, call: asker.call.clone(), result };
            let to = EntityKey::conversation(entity.workspace, asker.conversation);
            Ok(ask(node, to, Command::EndWait(end), trace).await)
        }
        Errand::Withdraw { channel, turn, call, review, .. } => {
            let message = match review {
                Some(review) => Some(*review),
                None => {
                    review_message(node, entity.workspace, channel, review_key(entity.workspace, *turn, call)).await?
                }
            };
            let Some(message) = message else { return Ok(errand.is_hopeless(node.now())) };
            let from = EntityKey::conversation(entity.workspace, message.entity);
            let Some(_) = review_of(node, from, message).await? else { return Ok(true) };
            Ok(ask(node, from, Command::CancelReview(CancelReview { message }), trace).await)
        }
    }
}

/// Ends the waits for reviews that are over, and sets when to check the others again.
async fn check_reviews(node: &Arc<Node>, entity: EntityKey, number: u64) -> Result<(), StoreError> {
    let calls = match node.stored::<Calls>(entity, CALLS, number_key(number)).await {
        Ok(Some(calls)) => calls,
        Ok(None) => return Ok(()),
        // The command below ends the turn.
        Err(error) if !error.is_transient() => Calls::default(),
        Err(error) => return Err(error),
    };
    for call in calls.calls.iter().filter(|call| !call.answered) {
        let Some(wait) = &call.wait else { continue };
        let channel = EntityKey::conversation(entity.workspace, wait.review.entity);
        let result = match review_of(node, channel, wait.review).await? {
            Some(state) if state.status == ReviewStatus::Pending => continue,
            Some(state) => node.ports.tools.reviewed(&state),
            None => node.ports.tools.failed("review_not_found", "the review no longer exists"),
        };
        ask(node, entity, Command::EndWait(EndWait { number, call: call.id.clone(), result }), None).await;
    }
    ask(node, entity, Command::KeepWaiting { number }, None).await;
    Ok(())
}

/// A review's current state; `None`: it does not exist, or its state cannot be known any more.
async fn review_of(node: &Arc<Node>, entity: EntityKey, message: MessageId) -> Result<Option<ReviewState>, StoreError> {
    match settled_review(node, entity, message).await {
        Err(error) if !error.is_transient() => {
            tracing::error!(?entity, seq = message.number, %error, "a review cannot be read; it is treated as deleted");
            Ok(None)
        }
        read => read,
    }
}

async fn settled_review(
    node: &Arc<Node>,
    entity: EntityKey,
    message: MessageId,
) -> Result<Option<ReviewState>, StoreError> {
    let events = node.events::<Conversation>(entity, SeqRange::one(message.number), Order::Asc, 1).await?;
    let found = events.iter().find_map(message_of).filter(|found| found.id == message);
    let Some(review) = found.and_then(|message| message.content.review.clone()) else { return Ok(None) };
    let overlay = node.overlay(entity, message.number).await?;
    let stored = overlay.and_then(|overlay| overlay.review);
    match node.settled_review(entity, message, &review, stored.as_ref(), None).await {
        Ok(state) => Ok(Some(state.unwrap_or_default())),
        Err(Refusal::Rejected(_)) => Ok(None),
        // It is not known yet: it stays open, and the next check asks again.
        Err(_) => Ok(Some(stored.unwrap_or_default())),
    }
}

/// The idempotency key of a call's review: the same however often the call is resumed.
pub(crate) fn review_key(workspace: Address, turn: TurnId, call: &str) -> KeyUse {
    let parts: [&[u8]; 4] = [&workspace.0, &turn.entity.0, &turn.number.to_be_bytes(), call.as_bytes()];
    let mut hasher = blake3::Hasher::new_derive_key("tertulia: the review that a turn's call asks for");
    let hash = hash_parts(&mut hasher, parts);
    KeyUse::within(KeyHash(hash), Fingerprint(hash))
}

/// The message that was posted to a channel with this key, if it was.
async fn review_message(
    node: &Node,
    workspace: Address,
    channel: &str,
    key: KeyUse,
) -> Result<Option<MessageId>, StoreError> {
    let channel = node.channel(workspace, channel).await?;
    let Some(entity) = channel.map(|channel| channel.conversation(workspace)) else { return Ok(None) };
    let Some(row) = node.key(entity, key.hash).await? else { return Ok(None) };
    let readable = node.readable::<Conversation>(entity, row.events).await?;
    Ok(readable.events.iter().find_map(message_of).map(|message| message.id))
}

/// Sends a command to the conversation, in the trace of its cause. Returns whether it was decided; a rejection counts
/// too.
async fn ask(node: &Arc<Node>, entity: EntityKey, command: Command, trace: Option<TraceContext>) -> bool {
    let reply = node.conversations.ask(node, entity, command, CommandContext { key: None, trace }).await;
    matches!(reply, Ok(_) | Err(Refusal::Rejected(_)))
}
