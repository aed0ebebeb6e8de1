//! Reviews: a question to people, decided once.
//!
//! The deadline is compared inside the decision, with the decision's own time; the alarm only announces what has
//! become true by then (DESIGN invariant I4).

use bytes::Bytes;

use super::post::{overlay_of, review_ended};
use super::{Conversation, DEADLINES, Event, OVERLAYS, Reply, ReviewEnd, State, message_of, number_key, turn};
use crate::clock::Millis;
use crate::codec;
use crate::id::MessageId;
use crate::limits;
use crate::machine::{Change, Decision, Found, Missing, Moment, Need};
use crate::message::{Review, ReviewState, ReviewStatus};

/// Reviews that one wake-up ends, or fewer if they are too much for a commit; more are ended by the next, at once.
const EXPIRED_AT_ONCE: usize = 64;

pub(super) fn needs(state: Option<&State>) -> Vec<Need> {
    match state {
        Some(state) if state.next_deadline.is_some() => vec![Need::First(DEADLINES, EXPIRED_AT_ONCE + 1)],
        _ => Vec::new(),
    }
}

/// The alarm is due: ends the reviews whose time is over, and recovers a turn that was lost with its process.
pub(super) fn wake(
    state: &State,
    lost: Option<turn::Attempt>,
    moment: &Moment,
    found: &Found,
) -> Result<Decision<Conversation>, Missing> {
    let mut change = Change::new(Vec::new(), Reply::Nothing);
    turn::recover(state, lost, moment, &mut change.events, &mut change.rows);
    if state.next_deadline.is_some_and(|next| next <= moment.now) {
        let mut deadlines = Vec::new();
        for (key, _) in found.first(DEADLINES, EXPIRED_AT_ONCE + 1)? {
            deadlines.extend(parse_deadline(key));
        }
        let due: Vec<_> = deadlines.iter().take(EXPIRED_AT_ONCE).filter(|(at, _)| *at <= moment.now).copied().collect();
        let missing: Vec<Need> = due
            .iter()
            .flat_map(|(_, seq)| [Need::Event(*seq), Need::Row(OVERLAYS, number_key(*seq))])
            .filter(|need| !found.has(need))
            .collect();
        if !missing.is_empty() {
            return Err(Missing(missing));
        }
        let mut ended = 0;
        for (_, seq) in &due {
            expire(*seq, moment, found, &mut change)?;
            ended += 1;
            if weight(&change) > limits::BATCH_BYTES {
                break;
            }
        }
        change.events.push(Event::DeadlineMoved { next: deadlines.get(ended).map(|(at, _)| *at) });
    }
    Ok(if change.events.is_empty() { Decision::Answer(Reply::Nothing) } else { Decision::Change(change) })
}

/// About how many bytes ended reviews take: each outcome stands in a row and in an event.
fn weight(change: &Change<Conversation>) -> usize {
    change.rows.iter().map(|row| 2 * row.value.as_ref().map_or(0, Bytes::len)).sum()
}

fn parse_deadline(key: &[u8]) -> Option<(Millis, u64)> {
    let (at, seq) = key.split_at_checked(8)?;
    Some((Millis(u64::from_be_bytes(at.try_into().ok()?)), u64::from_be_bytes(seq.try_into().ok()?)))
}

/// Ends one review whose time is over.
fn expire(seq: u64, moment: &Moment, found: &Found, change: &mut Change<Conversation>) -> Result<(), Missing> {
    let Some((id, review)) = asked(seq, found)? else { return Ok(()) };
    let overlay = overlay_of(seq, found)?;
    let votes = overlay.review.as_ref().map(|review| review.votes.clone()).unwrap_or_default();
    let by_default = review.on_expire.is_some();
    let state = ReviewState {
        status: if by_default { ReviewStatus::Completed } else { ReviewStatus::Expired },
        response: review.on_expire,
        feedback: None,
        decided_by: by_default.then(|| "system".to_owned()),
        completed_at: Some(moment.now),
        votes,
    };
    let (rows, views) = review_ended(id, review.expires_at, overlay, &state);
    change.rows.extend(rows);
    change.views.extend(views);
    let end = ReviewEnd { message: id, state };
    change.events.push(if by_default { Event::ReviewCompleted(end) } else { Event::ReviewExpired(end) });
    Ok(())
}

/// The review that the message with this sequence asks for.
fn asked(seq: u64, found: &Found) -> Result<Option<(MessageId, Review)>, Missing> {
    let Some(bytes) = found.event(seq)? else { return Ok(None) };
    let message = codec::decode_record::<Event>(seq, bytes).ok().as_ref().and_then(message_of);
    Ok(message.and_then(|message| Some((message.id, message.content.review.clone()?))))
}
