//! Reviews: a question to people, decided once.
//!
//! The deadline is compared inside the decision, with the decision's own time; the alarm only announces what has
//! become true by then (invariant I4).

use bytes::Bytes;

use super::amend::{message_needs, overlay_of, shown};
use super::errand::Errand;
use super::keys::{deadline_key, parse_deadline, review_key};
use super::{Conversation, Event, Rejection, Reply, ReviewEnd, State, message_of, number_key};
use crate::clock::Millis;
use crate::codec;
use crate::id::MessageId;
use crate::key::Principal;
use crate::limits;
use crate::machine::{Change, Decision, DecisionContext, Need, ReadSet, Undecided};
use crate::message::{Alike, Json, Overlay, Review, ReviewState, ReviewStatus, Vote};
use crate::store::{RowWrite, StoreError, ViewWrite};
use crate::tables::{DEADLINES, OVERLAYS, PENDING_REVIEWS};

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
pub(super) fn expire_due(
    state: &State,
    moment: &DecisionContext,
    found: &ReadSet,
    change: &mut Change<Conversation>,
) -> Result<(), Undecided> {
    if state.next_deadline.is_none_or(|next| next > moment.now) {
        return Ok(());
    }
    let mut deadlines = Vec::new();
    for (key, _) in found.first(DEADLINES, EXPIRED_AT_ONCE + 1)? {
        deadlines.extend(parse_deadline(key));
    }
    let due: Vec<_> = deadlines.iter().take(EXPIRED_AT_ONCE).filter(|(at, _)| *at <= moment.now).copied().collect();
    let needs = due.iter().flat_map(|(_, seq)| message_needs(*seq));
    let missing: Vec<Need> = needs.filter(|need| !found.has(need)).collect();
    if !missing.is_empty() {
        return Err(Undecided::Missing(missing));
    }
    let mut ended = 0;
    for (at, seq) in &due {
        match expire(*seq, moment, found, change) {
            Err(Undecided::Corrupt(error)) => change.rows.push(given_up(*at, *seq, &error, moment)),
            expired => expired?,
        }
        ended += 1;
        if weight(change) > limits::BATCH_BYTES {
            break;
        }
    }
    change.events.push(Event::DeadlineMoved { next: deadlines.get(ended).map(|(at, _)| *at) });
    Ok(())
}

/// About how many bytes ended reviews take: each outcome is in a row and in an event.
fn weight(change: &Change<Conversation>) -> usize {
    change.rows.iter().map(|row| 2 * row.value.as_ref().map_or(0, Bytes::len)).sum()
}

/// Ends one review whose time is over.
fn expire(
    seq: u64,
    moment: &DecisionContext,
    found: &ReadSet,
    change: &mut Change<Conversation>,
) -> Result<(), Undecided> {
    let Some((id, review)) = asked(seq, found)? else { return Ok(()) };
    let overlay = overlay_of(seq, found)?;
    let state = standing(&review, overlay.review.as_ref(), moment.now);
    end(id, review, overlay, state, moment, change);
    Ok(())
}

/// The message or its review cannot be read: it is skipped from now on, so that it delays no other review's end.
fn given_up(at: Millis, seq: u64, error: &StoreError, moment: &DecisionContext) -> RowWrite {
    let entity = moment.entity;
    tracing::error!(?entity, seq, %error, "an expired review cannot be read; it is abandoned");
    RowWrite::delete(DEADLINES, deadline_key(at, seq))
}

/// The writes when a review ends with the event of sequence `end`.
pub(super) fn review_ended(
    id: MessageId,
    review: &Review,
    overlay: Overlay,
    state: &ReviewState,
    end: u64,
    moment: &DecisionContext,
) -> (Vec<RowWrite>, Vec<ViewWrite>) {
    let overlay = Overlay { review: Some(state.clone()), review_end: Some(end), ..overlay };
    let mut rows = vec![
        RowWrite::put(OVERLAYS, number_key(id.number), codec::encode(&overlay)),
        RowWrite::delete(DEADLINES, deadline_key(review.expires_at, id.number)),
    ];
    rows.extend(review.asker.clone().map(|asker| Errand::Tell { asker, message: id, trace: moment.trace }.row()));
    (rows, vec![ViewWrite::remove(PENDING_REVIEWS, review_key(id, review))])
}

/// Ends a review that no principal has decided: by its default, as expired, or cancelled.
pub(super) fn end(
    id: MessageId,
    review: Review,
    overlay: Overlay,
    state: ReviewState,
    moment: &DecisionContext,
    change: &mut Change<Conversation>,
) {
    let end = Event::next_seq(moment, &change.events);
    let (rows, views) = review_ended(id, &review, overlay, &state, end, moment);
    change.rows.extend(rows);
    change.views.extend(views);
    let event = match state.status {
        ReviewStatus::Completed => Event::ReviewCompleted,
        ReviewStatus::Cancelled => Event::ReviewCancelled,
        ReviewStatus::Pending | ReviewStatus::Expired => Event::ReviewExpired,
    };
    change.events.push(event(ReviewEnd { message: id, state, asker: review.asker }));
}

/// The state of a review at `now`, whether or not its expiry was announced already.
#[must_use]
pub fn standing(review: &Review, stored: Option<&ReviewState>, now: Millis) -> ReviewState {
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
#[must_use]
pub fn at_present(review: Option<&Review>, overlay: Overlay, now: Millis) -> Overlay {
    match review.filter(|review| now >= review.expires_at) {
        Some(review) => Overlay { review: Some(standing(review, overlay.review.as_ref(), now)), ..overlay },
        None => overlay,
    }
}

/// A review is to be cancelled.
#[derive(Clone, Copy, Debug)]
pub struct CancelReview {
    /// The message that asked.
    pub message: MessageId,
}

/// A principal answers a review.
#[derive(Clone, Debug)]
pub struct Response {
    /// The message that asked.
    pub message: MessageId,
    /// The answer as it was sent, checked for the review's type.
    pub response: Json,
    /// The form that is compared with other votes' answers; without it, the text is compared.
    pub alike: Option<Alike>,
    /// Feedback on it.
    pub feedback: Option<String>,
    /// The principal.
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

/// The review of `message` and its state; or why nothing can be decided about it.
fn pending(
    state: &State,
    message: MessageId,
    moment: &DecisionContext,
    found: &ReadSet,
) -> Result<Result<(Review, ReviewState), Rejection>, Undecided> {
    if state.erasure.is_some() {
        return Ok(Err(Rejection::Erased));
    }
    if !state.reaches(message) {
        return Ok(Err(Rejection::ReviewNotFound));
    }
    let Some((_, review)) = asked(message.number, found)?.filter(|(id, _)| *id == message) else {
        return Ok(Err(Rejection::ReviewNotFound));
    };
    let standing = standing(&review, overlay_of(message.number, found)?.review.as_ref(), moment.now);
    Ok(match standing.status {
        ReviewStatus::Pending => Ok((review, standing)),
        // An answer after the deadline is too late, whatever the default is.
        ReviewStatus::Completed if standing.completed_at >= Some(review.expires_at) => {
            Err(Rejection::ReviewExpired(Box::new(standing)))
        }
        ReviewStatus::Expired => Err(Rejection::ReviewExpired(Box::new(standing))),
        ReviewStatus::Completed | ReviewStatus::Cancelled => Err(Rejection::ReviewOver(Box::new(standing))),
    })
}

/// The first decision wins; where several must agree, it is a vote.
pub(super) fn respond(
    state: &State,
    given: &Response,
    moment: &DecisionContext,
    found: &ReadSet,
) -> Result<Decision<Conversation>, Undecided> {
    let (review, standing) = match pending(state, given.message, moment, found)? {
        Ok(pending) => pending,
        Err(rejection) => return Ok(Decision::Reject(rejection)),
    };
    let mut after = standing;
    let mut needed = 1;
    if let Some(quorum) = &review.quorum {
        if !quorum.allows(&given.principal) {
            return Ok(Decision::Reject(Rejection::NotAllowed));
        }
        if after.votes.iter().any(|vote| vote.is_of(&given.principal)) {
            return Ok(Decision::Reject(Rejection::AlreadyVoted));
        }
        let size = |response: &Json, feedback: &Option<String>| {
            100 + response.as_str().len() + feedback.as_ref().map_or(0, String::len)
        };
        let before: usize = after.votes.iter().map(|vote| size(&vote.response, &vote.feedback)).sum();
        if before + size(&given.response, &given.feedback) > limits::VOTE_BYTES {
            return Ok(Decision::Reject(Rejection::TooManyVotes));
        }
        after.votes.push(given.vote(moment.now));
        needed = quorum.of as usize;
    }
    let agreed = after.votes.iter().filter(|vote| given.agrees_with(vote)).count().max(1);
    if agreed < needed {
        return Ok(Decision::Change(voted(given.message, after, moment, found)?));
    }
    after.status = ReviewStatus::Completed;
    // Of equal answers with different texts the deciding one is shown, and each vote keeps its own.
    after.response = Some(given.response.clone());
    after.feedback.clone_from(&given.feedback);
    after.decided_by = Some(given.principal.id.clone());
    after.completed_at = Some(moment.now);
    Ok(Decision::Change(ended((given.message, &review), after, moment, found, Event::ReviewCompleted)?))
}

/// A review is taken back.
pub(super) fn cancel(
    state: &State,
    message: MessageId,
    moment: &DecisionContext,
    found: &ReadSet,
) -> Result<Decision<Conversation>, Undecided> {
    let (review, standing) = match pending(state, message, moment, found)? {
        Ok(pending) => pending,
        Err(rejection) => return Ok(Decision::Reject(rejection)),
    };
    let after = ReviewState { status: ReviewStatus::Cancelled, completed_at: Some(moment.now), ..standing };
    Ok(Decision::Change(ended((message, &review), after, moment, found, Event::ReviewCancelled)?))
}

/// A vote that decides nothing yet.
fn voted(
    message: MessageId,
    after: ReviewState,
    moment: &DecisionContext,
    found: &ReadSet,
) -> Result<Change<Conversation>, Undecided> {
    let overlay = overlay_of(message.number, found)?;
    let mut rows: Vec<_> = shown_text(message.number, &overlay, moment).into_iter().collect();
    let overlay = Overlay { review: Some(after.clone()), ..overlay };
    rows.push(RowWrite::put(OVERLAYS, number_key(message.number), codec::encode(&overlay)));
    Ok(Change { rows, ..Change::new(Vec::new(), Reply::Review(Box::new(after))) })
}

/// Stores the text that the answer shows if it differs from the accepted one. The review's earlier state follows from
/// its events and votes.
fn shown_text(seq: u64, overlay: &Overlay, moment: &DecisionContext) -> Option<RowWrite> {
    let text = Some(overlay.text.clone()?);
    shown(seq, &Overlay { text, ..Overlay::default() }, moment)
}

fn ended(
    (message, review): (MessageId, &Review),
    after: ReviewState,
    moment: &DecisionContext,
    found: &ReadSet,
    event: fn(ReviewEnd) -> Event,
) -> Result<Change<Conversation>, Undecided> {
    let overlay = overlay_of(message.number, found)?;
    let text = shown_text(message.number, &overlay, moment);
    let (mut rows, views) = review_ended(message, review, overlay, &after, moment.next_seq, moment);
    rows.extend(text);
    let events = vec![event(ReviewEnd { message, state: after.clone(), asker: review.asker.clone() })];
    Ok(Change { rows, views, ..Change::new(events, Reply::Review(Box::new(after))) })
}

/// The review that the message with this sequence asks for.
pub(super) fn asked(seq: u64, found: &ReadSet) -> Result<Option<(MessageId, Review)>, Undecided> {
    let message = found.record(seq)?.as_ref().and_then(message_of);
    Ok(message.and_then(|message| Some((message.id, message.content.review.clone()?))))
}
