//! A file: uploaded by a client or fetched for a message, and the one message that it belongs to.
//!
//! The bytes are stored elsewhere (the port [`Files`](crate::ports::Files)); this is their record. It is made before
//! the first byte is written, so there are no bytes without a record. It has an alarm until a message is known to use
//! it, so an unused file is deleted even if a process died at any point in between.
//!
//! **Linking** crosses entities: a file belongs to at most one message, and a message never has a file that belongs to
//! another. The message's conversation decides, in the commit that accepts the message. It can, because the file is
//! *bound* to that conversation before, and to only one at a time. Each binding has a number, which the message
//! carries. To use the file elsewhere, a request first has the old conversation *disclaim* it: from then on that
//! conversation refuses a message with that number, however late it comes. So nothing depends on clocks, and a process
//! that dies between two steps leaves at most a file that is bound and unused, which the alarm settles by asking the
//! conversation.

use std::sync::Arc;

use minicbor::{Decode, Encode};

use crate::clock::Millis;
use crate::id::{Address, AttachmentId, EntityKey, MessageId};
use crate::limits;
use crate::machine::{Decision, DecisionContext, Effects, Machine, Need, ReadSet, Record, Undecided};
use crate::message;
use crate::node::Node;

mod decide;
mod requests;
pub mod settle;

/// A file whose bytes are durable.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct File {
    /// The name it was given, without directories.
    #[n(0)]
    pub filename: String,
    /// Its media type, with parameters such as its charset.
    #[n(1)]
    pub mime_type: String,
    /// Its size in bytes.
    #[n(2)]
    pub size: u64,
    /// A hash of the bytes.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub digest: [u8; 32],
    /// The key of the bytes in the file store; opaque to clients.
    #[n(4)]
    pub storage_key: String,
}

impl File {
    /// The file without its name, and without its hash, which would confirm a guess at its bytes.
    #[must_use]
    fn redacted(&self) -> Self {
        Self { filename: String::new(), digest: [0; 32], ..self.clone() }
    }
}

/// The conversation whose messages may have a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Bound {
    /// The conversation.
    #[n(0)]
    pub conversation: Address,
    /// Which of the file's bindings this is, from 1.
    #[n(1)]
    pub number: u32,
}

/// The state of a file.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct State {
    /// Its id; the time in it is that of its creation.
    #[n(0)]
    pub id: AttachmentId,
    /// The file; `None`: its bytes are not stored yet.
    #[n(1)]
    pub file: Option<File>,
    /// The conversation whose messages may have it.
    #[n(2)]
    pub bound: Option<Bound>,
    /// The message that has it, as far as is known.
    #[n(3)]
    pub message: Option<MessageId>,
    /// Conversations whose messages mention it without having it.
    #[n(4)]
    pub mentioned: Vec<Address>,
    /// When to check whether a message uses it; `None`: one does.
    #[n(5)]
    pub check_at: Option<Millis>,
    /// It is deleted, or about to be.
    #[n(6)]
    pub erased: bool,
    /// The sequence of its completion.
    #[n(7)]
    pub completed: Option<u64>,
    /// Until then a message that mentions it may be in flight, so finding none proves nothing.
    #[n(8)]
    pub held_until: Option<Millis>,
}

impl State {
    /// A file that has just begun.
    fn begun(id: AttachmentId) -> Self {
        Self {
            id,
            file: None,
            bound: None,
            message: None,
            mentioned: Vec::new(),
            check_at: None,
            erased: false,
            completed: None,
            held_until: None,
        }
    }

    /// The file that a client may see and use; `None` if there is no such file, not yet or not any more.
    #[must_use]
    pub fn ready(&self) -> Option<&File> {
        self.file.as_ref().filter(|_| !self.erased)
    }

    /// So many conversations mention it that it is kept without asking any of them.
    #[must_use]
    pub(crate) fn is_mentioned_widely(&self) -> bool {
        self.mentioned.len() >= limits::MENTIONED_IN
    }

    /// Until when it is kept although no message is found to use it: a message that will mention it may not have
    /// arrived.
    fn is_held(&self, now: Millis) -> Option<Millis> {
        self.held_until.filter(|until| now < *until)
    }

    /// A message that needs it may be about to be deleted, so finding one proves nothing yet; the alarm checks again.
    fn is_doubted(&self, now: Millis) -> bool {
        self.check_at.is_some_and(|check_at| now < check_at && check_at <= now.plus(limits::DOUBT_MILLIS))
    }

    /// The file as a message has it; `claim` is the number of its binding.
    #[must_use]
    pub fn attachment(&self, claim: Option<u32>) -> Option<message::Attachment> {
        let file = self.ready()?;
        Some(message::Attachment {
            id: self.id,
            filename: file.filename.clone(),
            mime_type: file.mime_type.clone(),
            size: file.size,
            storage_key: file.storage_key.clone(),
            claim,
        })
    }
}

/// An event of a file.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Event {
    /// Its upload begins.
    #[n(0)]
    Begun(#[n(0)] AttachmentId),
    /// Its bytes are durable.
    #[n(1)]
    Completed(#[n(0)] File),
    /// It is bound to a conversation.
    #[n(2)]
    Bound(#[n(0)] Bound),
    /// A conversation's message is going to mention it; repeated after a while.
    #[n(3)]
    Mentioned(#[n(0)] Address),
    /// It was found to belong to a message.
    #[n(4)]
    Linked(#[n(0)] MessageId),
    /// When it is checked next.
    #[n(5)]
    CheckMoved(#[n(0)] Option<Millis>),
    /// No message can have it any more; its bytes are to be deleted.
    #[n(6)]
    Erased,
}

/// The upload of a file with this id begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begin(pub AttachmentId);

/// A message of a conversation wants to have a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bind {
    /// The conversation.
    pub conversation: Address,
    /// The binding that was disclaimed.
    pub instead_of: Option<Bound>,
}

/// An unused file is to be deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Erase {
    /// Its state when it was checked.
    pub seen: Box<State>,
}

/// The commands of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Its upload begins.
    Begin(Begin),
    /// Its bytes are durable.
    Complete(File),
    /// A message of this conversation wants to have it.
    Bind(Bind),
    /// A message of this conversation wants to mention it.
    Mention(Address),
    /// Its message may be about to lose it, or just has: check soon.
    Doubt,
    /// The check of the file as `seen` found this message that has it, or a mention.
    Keep {
        /// Its state.
        seen: Box<State>,
        /// The message that has it.
        message: Option<MessageId>,
    },
    /// The check of the file as `seen` found no message that uses it. It is kept for a while if one may be in flight.
    Erase(Erase),
    /// Its bytes are deleted.
    Swept,
    /// A due check begins: the next one is a while later, unless this one settles it.
    PutOff,
}

/// The replies of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Its state now.
    Attachment(Box<State>),
    /// It is bound by this number.
    Bound(u32),
}

/// Why a file refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// There is no such file.
    NotFound,
    /// Its bytes were completed before.
    Exists,
    /// It belongs to this message, of another conversation.
    Linked(MessageId),
    /// It is bound to another conversation, or by another number.
    Elsewhere(Bound),
    /// It has changed since it was seen.
    Changed,
}

/// The state machine.
#[derive(Debug)]
pub struct Attachment;

/// The folder of a file's bytes, of all attempts; storage keys begin with it.
#[must_use]
pub fn folder(entity: EntityKey) -> String {
    format!("{}/{}", entity.workspace, entity.id)
}

impl Machine for Attachment {
    type State = State;
    type Event = Event;
    type Command = Command;
    type Reply = Reply;
    type Rejection = Rejection;

    fn needs(state: Option<&State>, command: &Command) -> Vec<Need> {
        match command {
            Command::Erase(_) => state.and_then(|state| state.completed).map(Need::Event).into_iter().collect(),
            _ => Vec::new(),
        }
    }

    fn decide(
        state: Option<&State>,
        command: &Command,
        context: &DecisionContext,
        reads: &ReadSet,
    ) -> Result<Decision<Self>, Undecided> {
        decide::decide(state, command, context, reads)
    }

    fn apply(state: &mut Option<State>, record: &Record<Event>) {
        match (&record.event, state) {
            (Event::Begun(id), state) => {
                *state = Some(State::begun(*id));
            }
            (Event::Completed(file), Some(state)) => {
                state.file = Some(file.clone());
                state.completed = Some(record.seq);
            }
            (Event::Bound(bound), Some(state)) => state.bound = Some(*bound),
            (Event::Mentioned(conversation), Some(state)) => {
                if !state.mentioned.contains(conversation) {
                    state.mentioned.push(*conversation);
                }
                state.held_until = Some(record.at.plus(limits::LINKING_MILLIS));
            }
            (Event::Linked(message), Some(state)) => state.message = Some(*message),
            (Event::CheckMoved(at), Some(state)) => state.check_at = *at,
            (Event::Erased, Some(state)) => {
                state.erased = true;
                state.file = state.file.as_ref().map(File::redacted);
            }
            // A log begins with `Begun`; the store's checks ensure that.
            (_, None) => {}
        }
    }

    fn is_event(_: &Event) -> bool {
        true
    }

    fn alarm(state: &State) -> Option<Millis> {
        state.check_at
    }

    fn public_id(state: &State) -> Option<String> {
        Some(state.id.to_string())
    }

    fn weight(command: &Command) -> usize {
        match command {
            Command::Complete(file) => 300 + file.filename.len() + file.mime_type.len() + file.storage_key.len(),
            _ => limits::COMMAND_BYTES,
        }
    }
}

impl Effects for Attachment {
    /// A check involves other entities and the file store, so it is a task of its own. The alarm is kept until that
    /// task has begun, and rings for it again.
    fn on_alarm(node: &Arc<Node>, entity: EntityKey, state: &State) -> Command {
        node.settling.request(entity);
        Command::Begin(Begin(state.id))
    }

    fn committed(_: &Arc<Node>, _: EntityKey, _: &State, _: &[Arc<Record<Event>>]) {}
}

#[cfg(test)]
mod tests;
