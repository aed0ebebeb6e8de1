//! Copying a conversation: the steps outside of the copy's own entity.
//!
//! Each step is a commit of the copy that records the progress, so a process that takes over from one that ended
//! continues there, and two processes that do it at once do no harm. A message edited or deleted during the copying is
//! copied in its state at that time.

use std::collections::HashMap;
use std::sync::Arc;

use crate::attachment;
use crate::conversation::fork::{Copying, Fork, Original};
use crate::conversation::{self, Conversation, message_of};
use crate::directory::{CommandContext, Refusal};
use crate::id::{AttachmentId, EntityKey};
use crate::limits;
use crate::message::{Content, Message, Overlay};
use crate::node::Node;
use crate::store::{SeqRange, StoreError};
use crate::tasks::retry_command::{Stopped, retry_command};
use crate::tasks::shared_job::{self, JobHandle};

/// Events of the source that one step reads.
const EVENTS_PER_STEP: u64 = 128;

/// Copies the rest, in a task of its own; a running task checks once more.
pub fn begin(node: &Arc<Node>, entity: EntityKey) -> JobHandle {
    shared_job::begin(node, entity, "a copy of a conversation", run)
}

/// Copies the rest, unless a task does so already.
pub(crate) fn resume(node: &Arc<Node>, entity: EntityKey) {
    shared_job::resume(node, entity, "a copy of a conversation", run);
}

/// Copies the rest; returns once nothing is left, or if the copy was erased.
///
/// # Errors
///
/// The error that stopped it. The copy's alarm has it resumed.
pub async fn run(node: Arc<Node>, entity: EntityKey) -> Result<(), Stopped> {
    let node = &node;
    let mut is_tree = None;
    loop {
        let Some(state) = node.state::<Conversation>(entity).await? else { return Ok(()) };
        let Some(fork) = state.fork.filter(|_| state.erasure.is_none()) else { return Ok(()) };
        let Some(from) = fork.next else { return Ok(()) };
        let copying = next_part(node, entity, &fork, from, &mut is_tree).await?;
        let files = copying.originals.iter().filter_map(|original| original.content.as_ref());
        let files: Vec<AttachmentId> = files.flat_map(|content| content.mentions.iter().flatten().copied()).collect();
        for file in files {
            mention(node, entity, file).await?;
        }
        match retry_command(node, &node.conversations, entity, conversation::Command::Copy(copying)).await? {
            // Another process is copying too, and was faster.
            Ok(_) | Err(conversation::Rejection::Changed) => {}
            Err(conversation::Rejection::Erased) => return Ok(()),
            Err(rejection) => return Err(Stopped::by_answer(rejection)),
        }
    }
}

/// The next messages of the source, in their current state. `is_tree`: whether messages name parents, once that is
/// known.
async fn next_part(
    node: &Node,
    entity: EntityKey,
    fork: &Fork,
    from: u64,
    is_tree: &mut Option<bool>,
) -> Result<Copying, Stopped> {
    let source = EntityKey::conversation(entity.workspace, fork.of.source.address);
    let upto = fork.of.upto.min(from + EVENTS_PER_STEP - 1);
    let step = SeqRange::new(from, upto);
    let read = node.readable::<Conversation>(source, step).await?;
    let overlays: HashMap<u64, _> = node.stored_overlays(source, step).await?.into_iter().collect();
    let mut originals = Vec::new();
    let mut bytes = 0;
    let mut next = Some(upto + 1).filter(|next| *next <= fork.of.upto);
    for (seq, error) in &read.damaged {
        log_omitted(entity, *seq, error);
    }
    for event in &read.events {
        let Some(message) = message_of(event) else { continue };
        let parent = message.parent.map(|parent| parent.number);
        let overlay = match overlays.get(&event.seq) {
            None => Overlay::default(),
            Some(Ok(overlay)) => overlay.clone(),
            Some(Err(error)) => {
                log_omitted(entity, event.seq, error);
                originals.push(Original { number: event.seq, parent, content: None });
                continue;
            }
        };
        let mut content = copy(&message, &overlay);
        if let Some(removal) = message.removal(&overlay).filter(|_| message.parent.is_none()) {
            let known = match *is_tree {
                Some(known) => known,
                None => names_parents(node, source, SeqRange::new(event.seq + 1, fork.of.upto)).await?,
            };
            *is_tree = Some(known);
            // Without it its children would have no parent, and be one branch.
            content = known.then(|| as_copy(&message, message.content.redacted(removal)));
        }
        bytes += content.as_ref().map_or(0, Content::weight);
        if bytes > limits::BATCH_BYTES && !originals.is_empty() {
            next = Some(event.seq);
            break;
        }
        originals.push(Original { number: event.seq, parent, content: content.map(Arc::new) });
    }
    Ok(Copying { from, next, originals })
}

/// Logs that a message's current content cannot be read: it is skipped, like a deleted one.
fn log_omitted(copy: EntityKey, seq: u64, error: &StoreError) {
    tracing::error!(?copy, seq, %error, "a message cannot be read and is omitted from a copy of its conversation");
}

/// Whether a message among these events names its parent.
async fn names_parents(node: &Node, source: EntityKey, mut rest: SeqRange) -> Result<bool, Stopped> {
    while !rest.is_empty() {
        let step = SeqRange { last: rest.last.min(rest.first + EVENTS_PER_STEP - 1), ..rest };
        let read = node.readable::<Conversation>(source, step).await?;
        if read.events.iter().filter_map(message_of).any(|message| message.parent.is_some()) {
            return Ok(true);
        }
        rest.first = step.last + 1;
    }
    Ok(false)
}

/// The content of a message's copy: the message's current content, with its time; `None` if its content was removed.
fn copy(message: &Message, overlay: &Overlay) -> Option<Content> {
    if message.removal(overlay).is_some() {
        return None;
    }
    let content = message.content.as_ref().clone();
    let text = overlay.text_of(&message.content).map(str::to_owned);
    let metadata = overlay.metadata.clone().or(content.metadata);
    let tags = overlay.tags_of(&message.content).map(<[String]>::to_vec);
    Some(as_copy(message, Content { text, metadata, tags, ..content }))
}

/// `content` as a copy of `message`. Requests of a message are not copied: reviews, webhooks, memories.
fn as_copy(message: &Message, content: Content) -> Content {
    Content {
        sent_at: Some(content.sent_at.unwrap_or(message.id.at.into())),
        review: None,
        webhook_url: None,
        iteration_of: None,
        memories: false,
        ..content
    }
}

/// Keeps a file as long as the copy mentions it.
async fn mention(node: &Arc<Node>, conversation: EntityKey, file: AttachmentId) -> Result<(), Stopped> {
    let entity = EntityKey::attachment(conversation.workspace, file.address);
    let command = attachment::Command::Mention(conversation.id);
    match node.attachment(entity, command, CommandContext::default()).await {
        // The original also names a deleted file.
        Ok(_) | Err(Refusal::Rejected(_)) => Ok(()),
        Err(refusal) => Err(Stopped::by_refusal(refusal)),
    }
}
