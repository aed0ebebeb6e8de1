//! Appending messages.

use std::sync::Arc;

use bytes::Bytes;

use super::amend::{message_needs, overlay_of};
use super::fork::Forked;
use super::turn::{self, Turn};
use super::writing::{Decided, Halt, Writing};
use super::{Accepted, Details, Event, Opening, Origin, Rejection, Reply, State, attach, review};
use crate::id::{ConversationId, MessageId};
use crate::limits;
use crate::machine::{Decision, DecisionContext, Need, ReadSet, Record, Undecided};
use crate::message::{Content, Message, NewMessage, Overlay, Parent, ReviewStatus};
use crate::store::StoreError;
use crate::tables::{CONTACT_CONVERSATIONS, CONVERSATIONS, DETAILS};

/// The effect of a new message while a turn runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(index_only)]
pub enum BusyPolicy {
    /// It gets a turn of its own, after the waiting ones.
    #[default]
    #[n(0)]
    Queue,
    /// It is answered together with the other waiting messages, in the next turn.
    #[n(1)]
    Merge,
    /// It gets the next turn; older waiting messages get none.
    #[n(2)]
    Latest,
    /// It is refused.
    #[n(3)]
    Reject,
    /// It ends the running turn and gets the next one.
    #[n(4)]
    Interrupt,
}

/// A request that an agent answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TurnRequest {
    /// The id of the agent.
    pub agent: String,
    /// The policy while a turn runs.
    pub policy: BusyPolicy,
}

/// Messages to append, all or none.
#[derive(Clone, Debug)]
pub struct Post {
    /// How the conversation begins where it does not exist; `None`: it must exist.
    pub opening: Option<Opening>,
    /// The id that the client named; an id with the same address and another time names nothing.
    pub expected: Option<ConversationId>,
    /// The messages, in order.
    pub messages: Vec<NewMessage>,
    /// The turn that the last of them requests.
    pub turn: Option<TurnRequest>,
}

/// The accepted messages and their turn.
#[derive(Clone, Debug, PartialEq)]
pub struct Posted {
    /// The messages, in order.
    pub messages: Vec<Message>,
    /// The turn that the request asked for, in its state after the commit; `None`: it asked for none.
    pub turn: Option<Box<Turn>>,
}

/// The change that a post makes, with its messages so far.
struct Posting<'a> {
    writing: Writing<'a>,
    conversation: ConversationId,
    owner: Option<String>,
    messages: Vec<Message>,
}

/// The event of a conversation's beginning.
fn created(opening: &Opening, forked: Option<Forked>) -> Event {
    Event::ConversationCreated {
        id: opening.id,
        origin: opening.origin.clone(),
        owner: opening.owner.clone(),
        details: opening.details.clone(),
        forked,
    }
}

/// A conversation begins: its event, rows and list entries.
pub(super) fn begin(opening: &Opening, forked: Option<Forked>, writing: &mut Writing<'_>) {
    writing.event(created(opening, forked));
    if opening.details != Details::default() {
        writing.put(DETAILS, Bytes::new(), &opening.details);
    }
    let id = opening.id.to_bytes();
    match &opening.origin {
        Origin::Human { .. } => {}
        Origin::Direct => writing.list(CONVERSATIONS, id.to_vec()),
        Origin::Api { contact, .. } => {
            writing.list(CONVERSATIONS, id.to_vec());
            writing.list(CONTACT_CONVERSATIONS, [contact.to_bytes(), id].concat());
        }
    }
}

/// Begins a conversation without a message, or a copy; an existing one is answered unchanged.
pub(super) fn open(
    state: Option<&State>,
    opening: &Opening,
    forked: Option<Forked>,
    mut writing: Writing<'_>,
) -> Decided {
    if let Some(state) = state {
        let details = Details::stored(writing.reads)?;
        return Ok(Decision::Elsewhere(Reply::Conversation(Box::new(state.clone()), details)));
    }
    let seq = writing.next_seq();
    let at = writing.context.now;
    let record = Record { seq, at, trace: None, event: created(opening, forked) };
    let state = State::begun(&record);
    let state = state.ok_or_else(|| StoreError::Corrupt("a conversation begins with its creation".into()))?;
    begin(opening, forked, &mut writing);
    Ok(writing.done(Reply::Conversation(Box::new(state), opening.details.clone())))
}

impl Post {
    pub(super) fn needs(&self, state: Option<&State>) -> Vec<Need> {
        let Some(state) = state else { return Vec::new() };
        let mut needs = Vec::new();
        for message in &self.messages {
            needs.extend(attach::needs(&message.content));
            if let Some(Parent::Message(id)) = message.parent
                && state.reaches(id)
            {
                needs.push(Need::Event(id.number));
            }
            if let Some(id) = message.content.iteration_of
                && state.reaches(id)
            {
                needs.extend(message_needs(id.number));
            }
        }
        needs
    }

    /// The conversation and its owner.
    fn target(&self, state: Option<&State>) -> Result<(ConversationId, Option<String>), Rejection> {
        match (state, &self.opening) {
            (Some(state), _) if self.expected.is_some_and(|expected| expected != state.id) => Err(Rejection::NotFound),
            (Some(state), _) => Ok((state.id, state.owner.clone())),
            (None, Some(opening)) => Ok((opening.id, opening.owner.clone())),
            (None, None) => Err(Rejection::NotFound),
        }
    }

    /// Checks that what the messages refer to exists.
    fn check(&self, state: Option<&State>, reads: &ReadSet) -> Result<(), Halt> {
        let mut orphans = Vec::new();
        for (item, message) in self.messages.iter().enumerate() {
            let parent_found = match message.parent {
                None => true,
                Some(Parent::Item(earlier)) => earlier < item,
                Some(Parent::Message(id)) => is_message(state, id, reads)?,
            };
            if !parent_found {
                orphans.push(item);
            }
            if let Some(id) = message.content.iteration_of
                && !is_message(state, id, reads)?
            {
                return Err(Rejection::IterationNotFound.into());
            }
            attach::check(&message.content, reads)?;
        }
        if orphans.is_empty() { Ok(()) } else { Err(Rejection::ParentNotFound { items: orphans }.into()) }
    }
}

/// Appends the messages, and queues their turn.
pub(super) fn append(state: Option<&State>, post: &Post, writing: Writing<'_>) -> Decided {
    let (conversation, owner) = post.target(state)?;
    post.check(state, writing.reads)?;
    // Faults of the messages themselves are reported first: no later attempt could succeed.
    state.map_or(Ok(()), |state| takes(state, post.turn.as_ref()))?;
    let messages = Vec::with_capacity(post.messages.len());
    let mut posting = Posting { writing, conversation, owner, messages };
    // Each message is an event, and so are the conversation's beginning and the requested turn.
    posting.writing.expect(post.messages.len() + usize::from(state.is_none()) + usize::from(post.turn.is_some()));
    if let (None, Some(opening)) = (state, &post.opening) {
        begin(opening, None, &mut posting.writing);
    }
    let turn = post.turn.as_ref().map(|request| posting.request(state, request));
    for message in &post.messages {
        posting.append(message, turn.as_ref().map(|(turn, _)| turn));
        if let Some(id) = message.content.iteration_of {
            posting.supersede(id)?;
        }
    }
    let turn = turn.map(|(turn, place)| posting.schedule(state, turn, place)).transpose()?;
    let reply = Reply::Posted(Posted { messages: posting.messages, turn: turn.map(Box::new) });
    Ok(posting.writing.done(reply))
}

/// Whether the conversation takes messages now, and this turn.
fn takes(state: &State, turn: Option<&TurnRequest>) -> Result<(), Rejection> {
    if state.closed {
        return Err(Rejection::Closed);
    }
    if state.is_being_copied() {
        return Err(Rejection::BeingCopied);
    }
    turn.map_or(Ok(()), |request| takes_turn(state, request))
}

/// Whether `id` names a message of this conversation.
pub(super) fn is_message(state: Option<&State>, id: MessageId, reads: &ReadSet) -> Result<bool, Undecided> {
    if !state.is_some_and(|state| state.reaches(id)) {
        return Ok(false);
    }
    let record = reads.record::<Event>(id.number)?;
    Ok(record.is_some_and(|record| record.at == id.at && matches!(record.event, Event::MessageCreated(_))))
}

/// Whether the busy policy allows another turn now.
fn takes_turn(state: &State, request: &TurnRequest) -> Result<(), Rejection> {
    let busy = state.running.is_some();
    let is_full = state.queued.len() >= limits::QUEUED_TURNS;
    match request.policy {
        BusyPolicy::Reject if busy => Err(Rejection::TurnInProgress),
        BusyPolicy::Queue if is_full => Err(Rejection::TooManyTurns),
        BusyPolicy::Merge if is_full && joinable(state, request).is_none() => Err(Rejection::TooManyTurns),
        _ => Ok(()),
    }
}

/// The waiting turn that a message may join: it is the same agent's, and the newest requested. A retried older turn
/// does not see messages that came after it.
fn joinable<'a>(state: &'a State, request: &TurnRequest) -> Option<&'a Turn> {
    state.queued.last().filter(|waiting| waiting.agent == request.agent && waiting.id.number == state.turns)
}

/// How a requested turn is queued.
enum Scheduling {
    /// It begins now.
    Start,
    /// It is queued after the other waiting turns.
    Wait,
    /// A waiting turn takes the message.
    Join,
    /// It waits, and the turns that waited are cancelled.
    Replace,
    /// It begins now, and the running one ends.
    Interrupt,
}

impl Posting<'_> {
    /// The requested turn, and how it is queued.
    fn request(&self, state: Option<&State>, request: &TurnRequest) -> (Turn, Scheduling) {
        let waiting = state.and_then(|state| joinable(state, request));
        let place = match (state.is_some_and(|state| state.running.is_some()), request.policy) {
            (false, _) => Scheduling::Start,
            (true, BusyPolicy::Merge) if waiting.is_some() => Scheduling::Join,
            (true, BusyPolicy::Latest) => Scheduling::Replace,
            (true, BusyPolicy::Interrupt) => Scheduling::Interrupt,
            (true, _) => Scheduling::Wait,
        };
        let turn = match (&place, waiting) {
            (Scheduling::Join, Some(waiting)) => waiting.clone(),
            _ => {
                let number = state.map_or(0, |state| state.turns) + 1;
                Turn::requested(self.writing.context.now, self.conversation, number, &request.agent)
            }
        };
        (turn, place)
    }

    /// One message, with its review.
    fn append(&mut self, message: &NewMessage, turn: Option<&Turn>) {
        let parent = match message.parent {
            Some(Parent::Message(id)) => Some(id),
            Some(Parent::Item(earlier)) => self.messages.get(earlier).map(|message| message.id),
            None => None,
        };
        let content = content_at(message, self.writing.context);
        let accepted = Accepted {
            conversation: self.conversation,
            content: Arc::clone(&content),
            parent,
            owner: self.owner.clone(),
            turn: turn.map(|turn| turn.id),
        };
        let seq = self.writing.event(Event::MessageCreated(accepted));
        let message = Message {
            id: MessageId::new(self.writing.context.now, self.conversation.address, seq),
            conversation: self.conversation,
            owner: self.owner.clone(),
            parent,
            turn: turn.map(|turn| turn.id),
            content,
        };
        self.writing.extend(attach::rows(&message));
        if let Some(review) = &message.content.review {
            review::request(message.id, review, &mut self.writing);
        }
        self.messages.push(message);
    }

    /// The message `id` is revised by the one just appended: its pending review is cancelled. The new message keeps the
    /// revision that was the newest before it.
    fn supersede(&mut self, id: MessageId) -> Result<(), Undecided> {
        let by_this_post = |event: &Event| matches!(event, Event::ReviewCancelled(end) if end.message == id);
        if self.writing.events().iter().any(by_this_post) {
            return Ok(());
        }
        let Some(revision) = self.messages.last().map(|message| message.id) else { return Ok(()) };
        let before = overlay_of(id.number, self.writing.reads)?;
        if let Some(earlier) = before.superseded_by {
            let overlay = Overlay { revised_before: Some(earlier), ..Overlay::default() };
            self.writing.overlay(revision.number, &overlay);
        }
        let mut overlay = Overlay { superseded_by: Some(revision), ..before };
        if let Some(requested) = review::requested_review(id.number, self.writing.reads)? {
            let current = requested.state_at(&overlay, self.writing.context.now);
            if current.status == ReviewStatus::Pending {
                let cancelled = current.cancelled(self.writing.context.now);
                review::end(&requested, &mut overlay, cancelled, None, &mut self.writing);
            }
        }
        self.writing.overlay(id.number, &overlay);
        Ok(())
    }

    /// Queues the requested turn.
    fn schedule(&mut self, state: Option<&State>, turn: Turn, place: Scheduling) -> Result<Turn, Undecided> {
        let trigger = self.messages.last().map(|message| message.id.number);
        let turn = Turn { trigger, ..turn };
        if let Some(state) = state {
            let running = state.running.iter().filter(|_| matches!(place, Scheduling::Interrupt));
            let waiting = state.queued.iter().filter(|_| matches!(place, Scheduling::Interrupt | Scheduling::Replace));
            for turn in running.chain(waiting) {
                turn::end_cancelled(state, turn, &mut self.writing)?;
            }
        }
        Ok(match place {
            Scheduling::Start | Scheduling::Interrupt => turn::begin(&turn, &mut self.writing),
            Scheduling::Wait | Scheduling::Join | Scheduling::Replace => {
                turn::write(turn, Event::TurnQueued, &mut self.writing)
            }
        })
    }
}

/// The content of an accepted message: its review gets a place in the lists, and its deadline if it has a duration.
fn content_at(message: &NewMessage, context: &DecisionContext) -> Arc<Content> {
    let mut content = Arc::clone(&message.content);
    if content.review.is_some()
        && let Some(review) = &mut Arc::make_mut(&mut content).review
    {
        review.place = Some(context.place);
        if let Some(millis) = message.review_millis {
            review.expires_at = context.now.plus(millis);
        }
    }
    content
}

/// Whether one of its messages requests a review.
pub(super) fn requests_review(post: &Post) -> bool {
    post.messages.iter().any(|message| message.content.review.is_some())
}
