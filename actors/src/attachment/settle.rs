//! Checking whether a message uses a file, and deleting the files that none uses.
//!
//! A file is checked for three reasons: a day has passed since it was made, its message may have been deleted, or its
//! bytes were to be deleted and may still exist. In each case the conversation that may have the file is asked, and the
//! result is one of two commands that apply only if the file has not changed since.

use std::sync::{Arc, Mutex};

use tokio::sync::{Semaphore, mpsc};

use super::{Attachment, Command, Erase, Rejection, Reply, State};
use crate::conversation::attach::{file_of, mention_key};
use crate::conversation::{self, Conversation, Disclaim, message_of};
use crate::directory::{Answer, CommandContext, Refusal};
use crate::id::{Address, EntityKey, MessageId};
use crate::limits;
use crate::node::Node;
use crate::requests::Request;
use crate::store::{KeyRange, Order, ReadLevel, SeqRange, StoreError};
use crate::sync::LockUnpoisoned;
use crate::tables::{ATTACHED, MENTIONED};
use crate::tasks::retry_command::{RETRY_TIMEOUT, Stopped, retry_command};
use crate::tasks::single_flight::{Flight, SingleFlight};

/// Rows of one read.
const ROWS_PER_PAGE: usize = 64;

/// Files to check, each once at a time. A file that has no room here is checked at its next alarm.
#[derive(Debug)]
pub(crate) struct Settling {
    flights: Arc<SingleFlight>,
    queue: mpsc::Sender<Flight>,
    /// Permits for concurrent checks.
    permits: Arc<Semaphore>,
    /// Taken by the worker.
    waiting: Mutex<Option<mpsc::Receiver<Flight>>>,
}

impl Default for Settling {
    fn default() -> Self {
        let (queue, receiver) = mpsc::channel(limits::SETTLING_WAITING);
        let permits = Arc::new(Semaphore::new(limits::SETTLING));
        Self { flights: Arc::default(), queue, permits, waiting: Mutex::new(Some(receiver)) }
    }
}

impl Settling {
    /// Requests a check of a file, which begins after this.
    pub(crate) fn request(&self, entity: EntityKey) {
        if let Some(flight) = self.flights.begin(entity) {
            // Without room the flight ends here.
            _ = self.queue.try_send(flight);
        }
    }

    fn take_queue(&self) -> Option<mpsc::Receiver<Flight>> {
        self.waiting.lock_unpoisoned().take()
    }
}

/// Runs the service until the node stops.
pub(crate) async fn run(node: Arc<Node>) {
    let Some(mut queue) = node.settling.take_queue() else { return };
    while let Some(Some(mut flight)) = node.stopping.run_until_cancelled(queue.recv()).await {
        // The semaphore is never closed.
        let Ok(permit) = Arc::clone(&node.settling.permits).acquire_owned().await else { return };
        let node = Arc::clone(&node);
        tokio::spawn(async move {
            let _permit = permit;
            let entity = flight.key();
            loop {
                flight.start_run();
                check(&node, entity).await;
                if !flight.again() {
                    return;
                }
            }
        });
    }
}

/// Checks a file now, or if too many are being checked, in its turn. Other checks may run at the same time: the result
/// applies only if the file is unchanged.
pub(crate) async fn check_now(node: &Arc<Node>, entity: EntityKey) {
    match node.settling.permits.try_acquire() {
        Ok(_permit) => check(node, entity).await,
        Err(_) => node.settling.request(entity),
    }
}

/// Checks a file; a failure is logged, and the file's alarm repeats the check.
async fn check(node: &Arc<Node>, entity: EntityKey) {
    if let Err(error) = settle(node, entity).await {
        tracing::warn!(?entity, %error, "could not check an attachment; it will be checked again");
    }
}

/// The use of a file.
enum FileUse {
    /// The message that has it.
    Message(MessageId),
    /// Messages that mention it.
    Mention,
    /// No message uses it.
    Unused,
}

async fn settle(node: &Arc<Node>, entity: EntityKey) -> Result<(), Stopped> {
    let Some(state) = begin(node, entity).await? else { return Ok(()) };
    if state.erased {
        return sweep(node, entity).await;
    }
    let seen = Box::new(state.clone());
    let message = match find_use(node, entity, &state).await? {
        FileUse::Message(message) => Some(message),
        FileUse::Mention => None,
        FileUse::Unused => {
            return match ask(node, entity, Erase { seen }).await? {
                Some(state) if state.erased => sweep(node, entity).await,
                // It is held, or was changed; either has postponed the next check.
                Some(_) | None => Ok(()),
            };
        }
    };
    if state.is_doubted(node.now()) {
        return Ok(());
    }
    // Failed attempts to write its bytes may have left some.
    let kept = state.file.map(|file| file.storage_key);
    clear(node, entity, kept).await?;
    ask(node, entity, Command::Keep { seen, message }).await.map(|_| ())
}

/// The state of a file that is to be checked. A due check is postponed before it begins: the alarm rings every second
/// until it is moved, but the file store, a damaged conversation, or a store that refuses the check's result may be in
/// the way for hours.
async fn begin(node: &Arc<Node>, entity: EntityKey) -> Result<Option<State>, Stopped> {
    let state = node.state::<Attachment>(entity).await?;
    let check_at = state.as_ref().and_then(|state| state.check_at);
    if check_at.is_none_or(|at| node.now() < at) {
        return Ok(state.filter(|_| check_at.is_some()));
    }
    match ask(node, entity, Command::PutOff).await? {
        Some(Reply::Attachment(state)) => Ok(Some(*state).filter(|state| state.check_at.is_some())),
        _ => Ok(None),
    }
}

/// Deletes the bytes, and notes that they are deleted.
async fn sweep(node: &Arc<Node>, entity: EntityKey) -> Result<(), Stopped> {
    clear(node, entity, None).await?;
    ask(node, entity, Command::Swept).await.map(|_| ())
}

/// Deletes the bytes of all attempts to store a file, except those under one storage key.
async fn clear(node: &Arc<Node>, entity: EntityKey, except: Option<String>) -> Result<(), Stopped> {
    Ok(node.ports.files.clear(super::folder(entity), except).await?)
}

/// How messages use a file, by asking the conversations that may have or mention it.
async fn find_use(node: &Arc<Node>, entity: EntityKey, state: &State) -> Result<FileUse, Stopped> {
    if state.file.is_none() {
        return Ok(FileUse::Unused);
    }
    let owner = match (state.message, state.bound) {
        (Some(message), _) => Some(message),
        (None, Some(bound)) => disclaim(node, entity, bound).await.map_err(Stopped::by_refusal)?,
        (None, None) => None,
    };
    if let Some(message) = owner {
        let conversation = EntityKey::conversation(entity.workspace, message.entity);
        if has_content(node, conversation, message.number).await? {
            return Ok(FileUse::Message(message));
        }
    }
    if state.is_mentioned_widely() {
        return Ok(FileUse::Mention);
    }
    for conversation in &state.mentioned {
        let conversation = EntityKey::conversation(entity.workspace, *conversation);
        if mentioned(node, conversation, entity.id).await? {
            return Ok(FileUse::Mention);
        }
    }
    Ok(FileUse::Unused)
}

/// Whether a message exists and has its content. No message of an erased conversation does, even one that cannot be
/// read and so is not emptied yet.
async fn has_content(node: &Node, conversation: EntityKey, seq: u64) -> Result<bool, StoreError> {
    let events = match node.events::<Conversation>(conversation, SeqRange::one(seq), Order::Asc, 1).await {
        Err(error) if !error.is_transient() => {
            let state = node.state::<Conversation>(conversation).await?;
            return if state.is_some_and(|state| state.erasure.is_some()) { Ok(false) } else { Err(error) };
        }
        events => events?,
    };
    let message = events.first().and_then(message_of);
    Ok(message.is_some_and(|message| message.content.removal.is_none()))
}

/// Whether a message of a conversation mentions a file.
async fn mentioned(node: &Node, conversation: EntityKey, attachment: Address) -> Result<bool, StoreError> {
    // An unacknowledged message counts too.
    if node.store.is_shared() {
        node.store.head(conversation, ReadLevel::Settled).await?;
    }
    let range = KeyRange { after: Some(mention_key(attachment, 0)), before: Some(mention_key(attachment, u64::MAX)) };
    let mut pages = node.pages(conversation, MENTIONED, range, ROWS_PER_PAGE);
    while let Some(rows) = pages.next().await? {
        for row in &rows {
            let seq = row.key.last_chunk().map(|seq| u64::from_be_bytes(*seq)).unwrap_or_default();
            if has_content(node, conversation, seq).await? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Has every file checked that a conversation's messages have or mention, because all may have lost their content. Once
/// this has returned, it happens even if the process dies. Transient failures are retried here, because there may be
/// thousands of files and a new run begins with the first. A failed file does not stop the others.
///
/// # Errors
/// The error of the first file that could not be notified; then this must be repeated.
pub async fn release(node: &Arc<Node>, conversation: EntityKey) -> Result<(), Stopped> {
    let mut first = Ok(());
    for table in [ATTACHED, MENTIONED] {
        let mut pages = node.pages(conversation, table, KeyRange::default(), ROWS_PER_PAGE).patient(RETRY_TIMEOUT);
        loop {
            let rows = match pages.next().await {
                Ok(Some(rows)) => rows,
                end => {
                    first = first.and(end.map(|_| ()).map_err(Stopped::from));
                    break;
                }
            };
            for attachment in rows.iter().filter_map(|row| file_of(&row.key)) {
                let entity = EntityKey::attachment(conversation.workspace, attachment);
                // A missing file needs nothing.
                let notified = retry_command(node, &node.attachments, entity, Command::Doubt).await;
                if notified.is_ok() {
                    node.settling.request(entity);
                }
                first = first.and(notified.map(|_| ()));
            }
        }
    }
    first
}

/// The message of a conversation that has a file by this binding; if there is none, there never will be.
///
/// # Errors
/// Why the conversation could not be asked.
pub async fn disclaim(
    node: &Arc<Node>,
    attachment: EntityKey,
    bound: super::Bound,
) -> Result<Option<MessageId>, Refusal<conversation::Rejection>> {
    let conversation = EntityKey::conversation(attachment.workspace, bound.conversation);
    let disclaim = Disclaim { attachment: attachment.id, number: bound.number };
    node.conversation(conversation, disclaim, CommandContext::default()).await.and_then(Answer::unkeyed)
}

/// The file's reply; `None`: it has changed since it was seen, and that change has postponed the next check.
async fn ask<R: Request<Attachment>>(
    node: &Arc<Node>,
    entity: EntityKey,
    request: R,
) -> Result<Option<R::Reply>, Stopped> {
    match node.attachment(entity, request, CommandContext::default()).await.and_then(Answer::unkeyed) {
        Ok(reply) => Ok(Some(reply)),
        Err(Refusal::Rejected(Rejection::Changed)) => Ok(None),
        Err(refusal) => Err(Stopped::by_refusal(refusal)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entity(n: u8) -> EntityKey {
        EntityKey::attachment(Address([9; 10]), Address([n; 10]))
    }

    #[test]
    fn a_look_asked_for_during_another_follows_it_once() {
        let settling = Settling::default();
        let mut queue = settling.take_queue().unwrap();
        settling.request(entity(1));
        settling.request(entity(1));
        let mut flight = queue.try_recv().unwrap();
        assert!(queue.try_recv().is_err(), "one waiting check is enough");
        flight.start_run();
        settling.request(entity(1));
        settling.request(entity(1));
        settling.request(entity(2));
        assert_eq!(queue.try_recv().unwrap().key(), entity(2));
        assert!(queue.try_recv().is_err(), "it is not checked twice at a time");
        assert!(flight.again(), "what it read may be old");
        flight.start_run();
        assert!(!flight.again(), "and that was all");
        settling.request(entity(1));
        assert_eq!(queue.try_recv().unwrap().key(), entity(1), "the next one is a check of its own");
    }

    #[test]
    fn a_check_that_panics_does_not_stop_the_next() {
        let settling = Settling::default();
        let mut queue = settling.take_queue().unwrap();
        settling.request(entity(1));
        let flight = queue.try_recv().unwrap();
        flight.start_run();
        settling.request(entity(1));
        let broken = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _flight = flight;
            std::panic::resume_unwind(Box::new("the check"));
        }));
        assert!(broken.is_err());
        settling.request(entity(1));
        assert_eq!(queue.try_recv().unwrap().key(), entity(1));
    }

    #[test]
    fn an_entity_past_the_full_queue_is_dropped_and_can_be_asked_for_again() {
        let settling = Settling::default();
        let mut queue = settling.take_queue().unwrap();
        let far = |n: usize| EntityKey::attachment(Address([9; 10]), Address::derive("test", &[&n.to_le_bytes()]));
        for n in 0..limits::SETTLING_WAITING {
            settling.request(far(n));
        }
        settling.request(entity(1));
        assert_eq!(queue.try_recv().unwrap().key(), far(0));
        settling.request(entity(1));
        let last = std::iter::from_fn(|| queue.try_recv().ok()).last().unwrap();
        assert_eq!(last.key(), entity(1));
    }
}
