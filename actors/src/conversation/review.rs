//! Reviews: a question to people, decided once.
//!
//! The deadline is compared inside the decision, with the decision's own time; the alarm only announces what has
//! become true by then (invariant I4).

use bytes::Bytes;

use super::amend::{message_needs, overlay_of, store_replay};
use super::errand::Errand;
use super::keys::{deadline_key, parse_deadline, review_key};
use super::writing::{Decided, Halt, Writing};
use super::{Conversation, Event, Rejection, Reply, ReviewEnd, State, message_of};
use crate::clock::Millis;
use crate::id::MessageId;
use crate::key::Principal;
use crate::limits;
use crate::machine::{Decision, Need, ReadSet, Undecided};
use crate::message::{ComparableResponse, Json, Overlay, Quorum, Review, ReviewState, ReviewStatus, Vote};
use crate::store::{RowWrite, StoreError};
use crate::tables::{DEADLINES, PENDING_REVIEWS, REVIEWS};
use crate::trace::TraceContext;

/// The principal that decides a review at its deadline.
pub const SYSTEM: &str = "system";

/// Reviews that one wake-up ends, or fewer if they exceed a commit; the next one ends more, at once.
const EXPIRED_AT_ONCE: usize = 64;

/// The reads of [`expire_due`] that are known in advance.
pub(super) fn expiry_needs(state: Option<&State>) -> Vec<Need> {
    match state {
        Some(state) if state.next_deadline.is_some() => vec![Need::First(DEADLINES, EXPIRED_AT_ONCE + 1)],
        _ => Vec::new(),
    }
}

/// Ends the reviews whose deadline has passed.
pub(super) fn expire_due(state: &State, writing: &mut Writing<'_>) -> Result<(), Undecided> {
    let context = writing.context;
    let reads = writing.reads;
    if state.next_deadline.is_none_or(|next| next > context.now) {
        return Ok(());
    }
    let mut deadlines = Vec::new();
    for (key, _) in reads.first(DEADLINES, EXPIRED_AT_ONCE + 1)? {
        deadlines.extend(parse_deadline(key));
    }
    let due: Vec<_> = deadlines.iter().take(EXPIRED_AT_ONCE).filter(|(at, _)| *at <= context.now).copied().collect();
    let needs = due.iter().flat_map(|(_, seq)| message_needs(*seq));
    let missing: Vec<Need> = needs.filter(|need| !reads.has(need)).collect();
    if !missing.is_empty() {
        return Err(Undecided::Missing(missing));
    }
    let mut ended = 0;
    for (at, seq) in &due {
        match expire(*seq, writing) {
            Err(Undecided::Corrupt(error)) => give_up(*at, *seq, &error, writing),
            expired => expired?,
        }
        ended += 1;
        if weight(writing.rows()) > limits::BATCH_BYTES {
            break;
        }
    }
    writing.event(Event::DeadlineMoved { next: deadlines.get(ended).map(|(at, _)| *at) });
    Ok(())
}

/// About how many bytes ended reviews take: each outcome is in a row and in an event.
fn weight(rows: &[RowWrite]) -> usize {
    rows.iter().map(|row| 2 * row.value.as_ref().map_or(0, Bytes::len)).sum()
}

/// Ends one review whose time is over.
fn expire(seq: u64, writing: &mut Writing<'_>) -> Result<(), Undecided> {
    let Some(requested) = requested_review(seq, writing.reads)? else { return Ok(()) };
    let mut overlay = overlay_of(seq, writing.reads)?;
    let state = requested.state_at(&overlay, writing.context.now);
    // It was requested hours ago, and nobody has ended it: its effects belong to the trace of its request.
    end(&requested, &mut overlay, state, requested.trace, writing);
    writing.overlay(seq, &overlay);
    Ok(())
}

/// The message or its review cannot be read: it is skipped from now on, so that it delays no other review's end.
fn give_up(at: Millis, seq: u64, error: &StoreError, writing: &mut Writing<'_>) {
    let entity = writing.context.entity;
    tracing::error!(?entity, seq, %error, "an expired review cannot be read; it is abandoned");
    writing.delete(DEADLINES, deadline_key(at, seq));
}

/// A review that a message requests.
pub(super) struct RequestedReview {
    /// The message that requests it.
    pub(super) message: MessageId,
    /// The question, its deadline, and who may answer.
    pub(super) review: Review,
    /// The request that it came with.
    trace: Option<TraceContext>,
}

impl RequestedReview {
    /// Its state at `now`, by the overlay of its message.
    pub(super) fn state_at(&self, overlay: &Overlay, now: Millis) -> ReviewState {
        state_at(&self.review, overlay.review.as_ref(), now)
    }
}

/// The review that the message with this sequence requests.
pub(super) fn requested_review(seq: u64, reads: &ReadSet) -> Result<Option<RequestedReview>, Undecided> {
    let Some(record) = reads.record(seq)? else { return Ok(None) };
    let trace = record.trace;
    let message = message_of(&record);
    Ok(message.and_then(|message| {
        Some(RequestedReview { message: message.id, review: message.content.review.clone()?, trace })
    }))
}

/// Writes the request of a review by an accepted message.
pub(super) fn request(message: MessageId, review: &Review, writing: &mut Writing<'_>) {
    let expires_at = review.expires_at;
    writing.event(Event::ReviewRequested { message, expires_at, kind: Some(review.kind.clone()) });
    writing.row(RowWrite::put(DEADLINES, deadline_key(expires_at, message.number), Bytes::new()));
    let key = review_key(message, review);
    writing.list(REVIEWS, key.clone());
    writing.list(PENDING_REVIEWS, key);
}

/// Ends a review: decided, by its default, expired or cancelled; because of the request of trace `cause`, or if that is
/// `None`, of this command. The caller writes the message's overlay.
pub(super) fn end(
    requested: &RequestedReview,
    overlay: &mut Overlay,
    state: ReviewState,
    cause: Option<TraceContext>,
    writing: &mut Writing<'_>,
) {
    let &RequestedReview { message, ref review, .. } = requested;
    let event = match state.status {
        ReviewStatus::Completed => Event::ReviewCompleted,
        ReviewStatus::Cancelled => Event::ReviewCancelled,
        ReviewStatus::Pending | ReviewStatus::Expired => Event::ReviewExpired,
    };
    overlay.review = Some(state.clone());
    let kind = Some(review.kind.clone());
    let expires_at = Some(review.expires_at);
    let event = event(ReviewEnd { message, state, asker: review.asker.clone(), kind, expires_at });
    overlay.review_end = Some(match cause {
        Some(cause) => writing.event_of(cause, event),
        None => writing.event(event),
    });
    writing.delete(DEADLINES, deadline_key(review.expires_at, message.number));
    writing.unlist(PENDING_REVIEWS, review_key(message, review));
    if let Some(asker) = review.asker.clone() {
        let context = writing.context;
        let trace = cause.map_or(context.trace, |cause| Some(context.trace_of_work_for(cause)));
        writing.row(Errand::NotifyAsker { asker, message, trace }.row());
    }
}

/// The state of a review at `now`, whether or not its expiry was announced already.
pub(crate) fn state_at(review: &Review, stored: Option<&ReviewState>, now: Millis) -> ReviewState {
    if let Some(stored) = stored.filter(|stored| stored.status != ReviewStatus::Pending || now < review.expires_at) {
        return stored.clone();
    }
    let votes = stored.map(|stored| stored.votes.clone()).unwrap_or_default();
    let over = now >= review.expires_at;
    let by_default = over && review.on_expire.is_some();
    ReviewState {
        status: match (over, by_default) {
            (false, _) => ReviewStatus::Pending,
            (true, true) => ReviewStatus::Completed,
            (true, false) => ReviewStatus::Expired,
        },
        response: review.on_expire.clone().filter(|_| by_default),
        feedback: None,
        decided_by: by_default.then(|| SYSTEM.to_owned()),
        // The deadline itself, not the time when it was noticed: so every reader sees the same.
        completed_at: over.then_some(review.expires_at),
        votes,
    }
}

/// The overlay of a message with its `review`'s state at `now`, whether or not the expiry was announced already.
pub(super) fn at_present(review: Option<&Review>, overlay: Overlay, now: Millis) -> Overlay {
    match review.filter(|review| now >= review.expires_at) {
        Some(review) => Overlay { review: Some(state_at(review, overlay.review.as_ref(), now)), ..overlay },
        None => overlay,
    }
}

/// Whether the deadline has passed and no end is stored. A decision that was made in time may still be on its way to
/// the store, so only the conversation knows how such a review ended: [`ExpireReview`].
#[must_use]
pub fn is_unsettled(review: &Review, stored: Option<&ReviewState>, now: Millis) -> bool {
    now >= review.expires_at && stored.is_none_or(|stored| stored.status == ReviewStatus::Pending)
}

/// A review is to be ended if its deadline has passed. The reply is its state, which is final unless it is pending.
#[derive(Clone, Copy, Debug)]
pub struct ExpireReview {
    /// The message that requested the review.
    pub message: MessageId,
}

/// A review is to be cancelled.
#[derive(Clone, Copy, Debug)]
pub struct CancelReview {
    /// The message that requested the review.
    pub message: MessageId,
}

/// A principal answers a review.
#[derive(Clone, Debug)]
pub struct Response {
    /// The message that requested the review.
    pub message: MessageId,
    /// The answer as it was sent, checked for the review's type.
    pub response: Json,
    /// The form that is compared with other votes' answers; without it, the text is compared.
    pub alike: Option<ComparableResponse>,
    /// What the principal writes about the answer.
    pub feedback: Option<String>,
    /// The principal that answers.
    pub principal: Principal,
}

impl Response {
    /// Whether this vote gives the same answer.
    pub(super) fn agrees_with(&self, vote: &Vote) -> bool {
        match (&self.alike, &vote.print) {
            (Some(alike), Some(print)) => alike.print == *print,
            (Some(alike), None) => alike.canonical == vote.response,
            (None, _) => self.response == vote.response,
        }
    }

    /// The response as a vote.
    fn vote(&self, at: Millis) -> Vote {
        Vote {
            principal: self.principal.id.clone(),
            response: self.response.clone(),
            feedback: self.feedback.clone(),
            at,
            print: self.alike.as_ref().map(|alike| alike.print),
            kind: Some(self.principal.kind),
        }
    }

    /// About how many bytes it adds to a commit, where it is in a row and in an event.
    pub(super) fn weight(&self) -> usize {
        limits::COMMAND_BYTES + 2 * (self.response.as_str().len() + self.feedback.as_ref().map_or(0, String::len))
    }
}

/// A review that is open, with its state and the overlay of its message.
struct OpenReview {
    requested: RequestedReview,
    overlay: Overlay,
    current: ReviewState,
}

/// The review of `message`, open or not.
fn review_of(state: &State, message: MessageId, writing: &Writing<'_>) -> Result<RequestedReview, Halt> {
    if !state.reaches(message) {
        return Err(Rejection::ReviewNotFound.into());
    }
    let requested = requested_review(message.number, writing.reads)?.filter(|requested| requested.message == message);
    requested.ok_or_else(|| Rejection::ReviewNotFound.into())
}

/// The review of `message`, if anything can still be decided about it.
fn open_review(state: &State, message: MessageId, writing: &Writing<'_>) -> Result<OpenReview, Halt> {
    if state.erasure.is_some() {
        return Err(Rejection::Erased.into());
    }
    let requested = review_of(state, message, writing)?;
    let overlay = overlay_of(message.number, writing.reads)?;
    let current = requested.state_at(&overlay, writing.context.now);
    match current.status {
        ReviewStatus::Pending => Ok(OpenReview { requested, overlay, current }),
        // An answer after the deadline is too late, whatever the default is.
        ReviewStatus::Completed if current.completed_at >= Some(requested.review.expires_at) => {
            Err(Rejection::ReviewExpired(Box::new(current)).into())
        }
        ReviewStatus::Expired => Err(Rejection::ReviewExpired(Box::new(current)).into()),
        ReviewStatus::Completed | ReviewStatus::Cancelled => Err(Rejection::ReviewOver(Box::new(current)).into()),
    }
}

/// The first decision wins; where several must agree, it is a vote.
pub(super) fn respond(state: &State, given: &Response, writing: Writing<'_>) -> Decided {
    let OpenReview { requested, overlay, current: mut after } = open_review(state, given.message, &writing)?;
    let now = writing.context.now;
    let mut needed = 1;
    if let Some(quorum) = &requested.review.quorum {
        check_vote(given, quorum, &after.votes)?;
        after.votes.push(given.vote(now));
        needed = quorum.of as usize;
    }
    let agreed = after.votes.iter().filter(|vote| given.agrees_with(vote)).count().max(1);
    if agreed < needed {
        return Ok(voted(given.message, overlay, after, writing));
    }
    after.status = ReviewStatus::Completed;
    // Of equal answers with different texts the deciding one is reported, and each vote keeps its own.
    after.response = Some(given.response.clone());
    after.feedback.clone_from(&given.feedback);
    after.decided_by = Some(given.principal.id.clone());
    after.completed_at = Some(now);
    Ok(ended(&requested, overlay, after, writing))
}

/// Checks that a vote counts.
fn check_vote(given: &Response, quorum: &Quorum, votes: &[Vote]) -> Result<(), Rejection> {
    if !quorum.allows(&given.principal) {
        return Err(Rejection::NotAllowed);
    }
    if votes.iter().any(|vote| vote.is_of(&given.principal)) {
        return Err(Rejection::AlreadyVoted);
    }
    let size = |response: &Json, feedback: &Option<String>| {
        100 + response.as_str().len() + feedback.as_ref().map_or(0, String::len)
    };
    let before: usize = votes.iter().map(|vote| size(&vote.response, &vote.feedback)).sum();
    if before + size(&given.response, &given.feedback) > limits::VOTE_BYTES {
        return Err(Rejection::TooManyVotes);
    }
    Ok(())
}

/// A review is taken back.
pub(super) fn cancel(state: &State, cancel: CancelReview, writing: Writing<'_>) -> Decided {
    let OpenReview { requested, overlay, current } = open_review(state, cancel.message, &writing)?;
    let after = current.cancelled(writing.context.now);
    Ok(ended(&requested, overlay, after, writing))
}

/// Ends one review ahead of its alarm, for a reader.
pub(super) fn expire_now(state: &State, request: ExpireReview, mut writing: Writing<'_>) -> Decided {
    let requested = review_of(state, request.message, &writing)?;
    let overlay = overlay_of(request.message.number, writing.reads)?;
    let now = writing.context.now;
    let state = requested.state_at(&overlay, now);
    if is_unsettled(&requested.review, overlay.review.as_ref(), now) {
        expire(request.message.number, &mut writing)?;
    }
    Ok(writing.done(Reply::Review(Box::new(state))))
}

/// A vote that decides nothing yet.
fn voted(message: MessageId, overlay: Overlay, after: ReviewState, mut writing: Writing<'_>) -> Decision<Conversation> {
    store_replay_text(message.number, &overlay, &mut writing);
    writing.overlay(message.number, &Overlay { review: Some(after.clone()), ..overlay });
    writing.done(Reply::Review(Box::new(after)))
}

/// Stores, for retries, the text that the answer contains if it differs from the accepted one. The review's earlier
/// state follows from its events and votes.
fn store_replay_text(seq: u64, overlay: &Overlay, writing: &mut Writing<'_>) {
    if let Some(text) = overlay.text.clone() {
        store_replay(seq, &Overlay { text: Some(text), textless: overlay.textless, ..Overlay::default() }, writing);
    }
}

/// A review that a principal ends.
fn ended(
    requested: &RequestedReview,
    mut overlay: Overlay,
    after: ReviewState,
    mut writing: Writing<'_>,
) -> Decision<Conversation> {
    let seq = requested.message.number;
    end(requested, &mut overlay, after.clone(), None, &mut writing);
    store_replay_text(seq, &overlay, &mut writing);
    writing.overlay(seq, &overlay);
    writing.done(Reply::Review(Box::new(after)))
}
