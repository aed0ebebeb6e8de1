//! Appending messages.

use std::sync::Arc;

use bytes::Bytes;

use super::amend::{message_needs, overlay_of};
use super::attach;
use super::fork::Forked;
use super::keys::{deadline_key, review_key};
use super::review::review_ended;
use super::turn::{self, Turn};
use super::{Accepted, Conversation, Event, Opening, Origin, Rejection, Reply, ReviewEnd, State, number_key};
use crate::codec;
use crate::id::{ConversationId, MessageId};
use crate::limits;
use crate::machine::{Change, Decision, DecisionContext, Need, ReadSet, Record, Undecided};
use crate::message::{Content, Message, NewMessage, Overlay, Parent, ReviewState, ReviewStatus};
use crate::store::{RowWrite, ViewWrite};
use crate::tables::{CONTACT_CONVERSATIONS, CONVERSATIONS, DEADLINES, DETAILS, OVERLAYS, PENDING_REVIEWS, REVIEWS};

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

/// An agent shall answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TurnRequest {
    /// Which.
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
    /// The turn that the last of them asks for.
    pub turn: Option<TurnRequest>,
}

/// The accepted messages and their turn.
#[derive(Clone, Debug, PartialEq)]
pub struct Posted {
    /// The messages, in order.
    pub messages: Vec<Message>,
    /// The turn that was asked for.
    pub turn: Option<Box<Turn>>,
}

/// The change that a post makes, piece by piece.
struct Posting<'a> {
    moment: &'a DecisionContext,
    conversation: ConversationId,
    owner: Option<String>,
    events: Vec<Event>,
    rows: Vec<RowWrite>,
    views: Vec<ViewWrite>,
    next_seq: u64,
    messages: Vec<Message>,
}

/// The event, rows and list entries of a conversation's beginning.
pub(super) fn begin(opening: &Opening, forked: Option<Forked>) -> (Event, Vec<RowWrite>, Vec<ViewWrite>) {
    let event = Event::ConversationCreated {
        id: opening.id,
        origin: opening.origin.clone(),
        owner: opening.owner.clone(),
        details: opening.details.clone(),
        forked,
    };
    let mut rows = Vec::new();
    if opening.details != super::Details::default() {
        rows.push(RowWrite::put(DETAILS, Bytes::new(), codec::encode(&opening.details)));
    }
    let id = opening.id.to_bytes();
    let views = match &opening.origin {
        Origin::Human { .. } => Vec::new(),
        Origin::Direct => vec![ViewWrite::add(CONVERSATIONS, id.to_vec())],
        Origin::Api { contact, .. } => vec![
            ViewWrite::add(CONVERSATIONS, id.to_vec()),
            ViewWrite::add(CONTACT_CONVERSATIONS, [contact.to_bytes(), id].concat()),
        ],
    };
    (event, rows, views)
}

/// Begins a conversation without a message, or a copy; an existing one is answered unchanged.
pub(super) fn open(
    state: Option<&State>,
    opening: &Opening,
    forked: Option<Forked>,
    moment: &DecisionContext,
    found: &ReadSet,
) -> Result<Decision<Conversation>, Undecided> {
    if let Some(state) = state {
        let details = super::Details::stored(found)?;
        return Ok(Decision::Elsewhere(Reply::Conversation(Box::new(state.clone()), details)));
    }
    let (event, rows, views) = begin(opening, forked);
    let record = Record { seq: moment.next_seq, at: moment.now, trace: None, event: event.clone() };
    let Some(state) = State::begun(&record) else { return Ok(Decision::Reject(Rejection::NotFound)) };
    let reply = Reply::Conversation(Box::new(state), opening.details.clone());
    Ok(Decision::Change(Change { rows, views, ..Change::new(vec![event], reply) }))
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

    pub(super) fn decide(
        &self,
        state: Option<&State>,
        moment: &DecisionContext,
        found: &ReadSet,
    ) -> Result<Decision<Conversation>, Undecided> {
        let (conversation, owner) = match (state, &self.opening) {
            (Some(state), _) if self.expected.is_some_and(|expected| expected != state.id) => {
                return Ok(Decision::Reject(Rejection::NotFound));
            }
            (Some(state), _) => (state.id, state.owner.clone()),
            (None, Some(opening)) => (opening.id, opening.owner.clone()),
            (None, None) => return Ok(Decision::Reject(Rejection::NotFound)),
        };
        if let Some(rejection) = self.check(state, found)? {
            return Ok(Decision::Reject(rejection));
        }
        // Faults of the messages themselves are reported first: no later attempt could succeed.
        if state.is_some_and(|state| state.closed) {
            return Ok(Decision::Reject(Rejection::Closed));
        }
        if state.is_some_and(State::is_being_copied) {
            return Ok(Decision::Reject(Rejection::BeingCopied));
        }
        if let (Some(request), Some(state)) = (&self.turn, state)
            && let Some(rejection) = refuse_turn(request, state)
        {
            return Ok(Decision::Reject(rejection));
        }
        // Each message is an event, and so are the conversation's beginning and the requested turn.
        let events = self.messages.len() + usize::from(state.is_none()) + usize::from(self.turn.is_some());
        let mut posting = Posting {
            moment,
            conversation,
            owner,
            events: Vec::with_capacity(events),
            rows: Vec::new(),
            views: Vec::new(),
            next_seq: moment.next_seq,
            messages: Vec::with_capacity(self.messages.len()),
        };
        if let (None, Some(opening)) = (state, &self.opening) {
            let (event, rows, views) = begin(opening, None);
            posting.event(event);
            posting.rows = rows;
            posting.views = views;
        }
        let turn = self.turn.as_ref().map(|request| posting.request(state, request));
        for message in &self.messages {
            posting.append(message, turn.as_ref().map(|(turn, _)| turn));
            if let Some(id) = message.content.iteration_of {
                posting.supersede(id, found)?;
            }
        }
        let turn = turn.map(|(turn, how)| posting.schedule(state, turn, how, found)).transpose()?;
        let reply = Reply::Posted(Posted { messages: posting.messages, turn: turn.map(Box::new) });
        Ok(Decision::Change(Change { rows: posting.rows, views: posting.views, ..Change::new(posting.events, reply) }))
    }

    /// Checks that what the messages refer to exists.
    fn check(&self, state: Option<&State>, found: &ReadSet) -> Result<Option<Rejection>, Undecided> {
        let mut orphans = Vec::new();
        for (item, message) in self.messages.iter().enumerate() {
            let parent_found = match message.parent {
                None => true,
                Some(Parent::Item(earlier)) => earlier < item,
                Some(Parent::Message(id)) => is_message(state, id, found)?,
            };
            if !parent_found {
                orphans.push(item);
            }
            if let Some(id) = message.content.iteration_of
                && !is_message(state, id, found)?
            {
                return Ok(Some(Rejection::IterationNotFound));
            }
            if let Some(rejection) = attach::check(&message.content, found)? {
                return Ok(Some(rejection));
            }
        }
        Ok((!orphans.is_empty()).then_some(Rejection::ParentNotFound { items: orphans }))
    }
}

/// Whether `id` names a message of this conversation.
pub(super) fn is_message(state: Option<&State>, id: MessageId, found: &ReadSet) -> Result<bool, Undecided> {
    if !state.is_some_and(|state| state.reaches(id)) {
        return Ok(false);
    }
    let record = found.record::<Event>(id.number)?;
    Ok(record.is_some_and(|record| record.at == id.at && matches!(record.event, Event::MessageCreated(_))))
}

/// Whether the busy policy refuses another turn now.
fn refuse_turn(request: &TurnRequest, state: &State) -> Option<Rejection> {
    let busy = state.running.is_some();
    let is_full = state.queued.len() >= limits::QUEUED_TURNS;
    match request.policy {
        BusyPolicy::Reject if busy => Some(Rejection::TurnInProgress),
        BusyPolicy::Queue if is_full => Some(Rejection::TooManyTurns),
        BusyPolicy::Merge if is_full && joinable(state, request).is_none() => Some(Rejection::TooManyTurns),
        _ => None,
    }
}

/// The waiting turn that a message may join: it is the same agent's, and the newest requested. A retried older turn
/// does not see messages that came after it.
fn joinable<'a>(state: &'a State, request: &TurnRequest) -> Option<&'a Turn> {
    state.queued.last().filter(|waiting| waiting.agent == request.agent && waiting.id.number == state.turns)
}

/// How a requested turn is queued.
enum Place {
    /// It begins now.
    Start,
    /// It waits.
    Wait,
    /// A waiting turn takes the message.
    Join,
    /// It waits, and the turns that waited are cancelled.
    Replace,
    /// It begins now, and the running one ends.
    Interrupt,
}

impl Posting<'_> {
    fn event(&mut self, event: Event) -> u64 {
        let seq = self.next_seq;
        if event.name().is_some() {
            self.next_seq += 1;
        }
        self.events.push(event);
        seq
    }

    /// The requested turn, and how it is queued.
    fn request(&self, state: Option<&State>, request: &TurnRequest) -> (Turn, Place) {
        let waiting = state.and_then(|state| joinable(state, request));
        let place = match (state.is_some_and(|state| state.running.is_some()), request.policy) {
            (false, _) => Place::Start,
            (true, BusyPolicy::Merge) if waiting.is_some() => Place::Join,
            (true, BusyPolicy::Latest) => Place::Replace,
            (true, BusyPolicy::Interrupt) => Place::Interrupt,
            (true, _) => Place::Wait,
        };
        let turn = match (&place, waiting) {
            (Place::Join, Some(waiting)) => waiting.clone(),
            _ => {
                let number = state.map_or(0, |state| state.turns) + 1;
                Turn::requested(self.moment.now, self.conversation, number, &request.agent)
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
        let content = content_at(message, self.moment);
        let accepted = Accepted {
            conversation: self.conversation,
            content: Arc::clone(&content),
            parent,
            owner: self.owner.clone(),
            turn: turn.map(|turn| turn.id),
        };
        let seq = self.event(Event::MessageCreated(accepted));
        let id = MessageId::new(self.moment.now, self.conversation.address, seq);
        self.messages.push(Message {
            id,
            conversation: self.conversation,
            owner: self.owner.clone(),
            parent,
            turn: turn.map(|turn| turn.id),
            content: Arc::clone(&content),
        });
        self.rows.extend(self.messages.last().map(attach::rows).unwrap_or_default());
        if let Some(review) = &content.review {
            let expires_at = review.expires_at;
            self.event(Event::ReviewRequested { message: id, expires_at });
            let key = review_key(id, review);
            self.rows.push(RowWrite::put(DEADLINES, deadline_key(expires_at, id.number), Bytes::new()));
            self.views.extend([ViewWrite::add(REVIEWS, key.clone()), ViewWrite::add(PENDING_REVIEWS, key)]);
        }
    }

    /// The message `id` is revised by the one just appended: its pending review is cancelled.
    fn supersede(&mut self, id: MessageId, found: &ReadSet) -> Result<(), Undecided> {
        let by_this_post = |event: &Event| matches!(event, Event::ReviewCancelled(end) if end.message == id);
        if self.events.iter().any(by_this_post) {
            return Ok(());
        }
        let superseded_by = self.messages.last().map(|message| message.id);
        let overlay = Overlay { superseded_by, ..overlay_of(id.number, found)? };
        let pending = super::review::asked(id.number, found)?.and_then(|(_, review)| {
            let standing = super::review::standing(&review, overlay.review.as_ref(), self.moment.now);
            (standing.status == ReviewStatus::Pending).then_some((review, standing))
        });
        let Some((review, standing)) = pending else {
            self.rows.push(RowWrite::put(OVERLAYS, number_key(id.number), codec::encode(&overlay)));
            return Ok(());
        };
        let completed_at = Some(self.moment.now);
        let state = ReviewState { status: ReviewStatus::Cancelled, completed_at, ..standing };
        let (rows, views) = review_ended(id, &review, overlay, &state, self.next_seq, self.moment);
        self.rows.extend(rows);
        self.views.extend(views);
        self.event(Event::ReviewCancelled(ReviewEnd { message: id, state, asker: review.asker }));
        Ok(())
    }

    /// Queues the requested turn.
    fn schedule(
        &mut self,
        state: Option<&State>,
        turn: Turn,
        place: Place,
        found: &ReadSet,
    ) -> Result<Turn, Undecided> {
        let trigger = self.messages.last().map(|message| message.id.number);
        let turn = Turn { trigger, ..turn };
        if let Some(state) = state {
            let running = state.running.iter().filter(|_| matches!(place, Place::Interrupt));
            let waiting = state.queued.iter().filter(|_| matches!(place, Place::Interrupt | Place::Replace));
            for turn in running.chain(waiting) {
                self.cancel(state, turn, found)?;
            }
        }
        let turn = match place {
            Place::Start | Place::Interrupt => turn.started(self.moment),
            Place::Wait | Place::Join | Place::Replace => turn,
        };
        self.rows.push(turn.row());
        self.event(match place {
            Place::Start | Place::Interrupt => Event::TurnStarted(turn.clone()),
            Place::Wait | Place::Join | Place::Replace => Event::TurnQueued(turn.clone()),
        });
        Ok(turn)
    }

    /// Cancels a turn in favour of the requested one.
    fn cancel(&mut self, state: &State, turn: &Turn, found: &ReadSet) -> Result<(), Undecided> {
        let moment = DecisionContext { next_seq: self.next_seq, ..*self.moment };
        let mut change = Change::new(Vec::new(), Reply::Nothing);
        let cancelled = turn::end_as(state, turn, Turn::cancelled, &moment, found, &mut change)?;
        self.rows.push(cancelled.row());
        self.rows.extend(change.rows);
        for event in change.events.into_iter().chain([Event::TurnCancelled(cancelled)]) {
            self.event(event);
        }
        Ok(())
    }
}

/// The content of an accepted message: its review gets a place in the lists, and its deadline if it has a duration.
fn content_at(message: &NewMessage, moment: &DecisionContext) -> Arc<Content> {
    let mut content = Arc::clone(&message.content);
    if content.review.is_some()
        && let Some(review) = &mut Arc::make_mut(&mut content).review
    {
        review.place = Some(moment.place);
        if let Some(millis) = message.review_millis {
            review.expires_at = moment.now.plus(millis);
        }
    }
    content
}

/// Whether it asks for a review.
pub(super) fn asks(post: &Post) -> bool {
    post.messages.iter().any(|message| message.content.review.is_some())
}
