//! Decisions about a file, by command.

use super::{Attachment, Begin, Bind, Bound, Command, Event, File, Rejection, Reply, State};
use crate::id::{Address, AttachmentId, MessageId};
use crate::limits;
use crate::machine::{Change, Decision, DecisionContext, ReadSet, Record, Undecided};

pub(super) fn decide(
    state: Option<&State>,
    command: &Command,
    context: &DecisionContext,
    reads: &ReadSet,
) -> Result<Decision<Attachment>, Undecided> {
    let Some(state) = state else {
        return Ok(match command {
            Command::Begin(Begin(id)) => begin(None, *id, context),
            _ => Decision::Reject(Rejection::NotFound),
        });
    };
    Ok(match command {
        Command::Begin(Begin(id)) => begin(Some(state), *id, context),
        Command::Complete(_) if state.erased => Decision::Reject(Rejection::NotFound),
        Command::Complete(_) if state.file.is_some() => Decision::Reject(Rejection::Exists),
        Command::Complete(file) => {
            change(vec![Event::Completed(file.clone())], State { file: Some(file.clone()), ..state.clone() })
        }
        Command::Bind(_) | Command::Mention(_) if state.ready().is_none() => Decision::Reject(Rejection::NotFound),
        Command::Bind(Bind { conversation, .. })
            if state.message.is_some_and(|message| message.entity != *conversation) =>
        {
            state
                .message
                .map_or(Decision::Reject(Rejection::NotFound), |message| Decision::Reject(Rejection::Linked(message)))
        }
        Command::Bind(Bind { conversation, instead_of }) => bind(state, *conversation, *instead_of, context),
        Command::Mention(conversation) => mention(state, *conversation, context),
        Command::Doubt => doubt(state, context),
        Command::Keep { seen, message } => keep(state, seen, *message),
        Command::Erase(check) => return erase(state, &check.seen, context, reads),
        Command::Swept if state.erased && state.check_at.is_some() => {
            change(vec![Event::CheckMoved(None)], State { check_at: None, ..state.clone() })
        }
        Command::PutOff if state.check_at.is_some_and(|check_at| check_at <= context.now) => {
            let check_at = Some(context.now.plus(limits::SWEEP_AGAIN_MILLIS));
            change(vec![Event::CheckMoved(check_at)], State { check_at, ..state.clone() })
        }
        Command::Swept | Command::PutOff => Decision::Answer(Reply::Attachment(Box::new(state.clone()))),
    })
}

/// A change after which its state is `after`.
fn change(events: Vec<Event>, after: State) -> Decision<Attachment> {
    Decision::Change(Change::new(events, Reply::Attachment(Box::new(after))))
}

fn begin(state: Option<&State>, id: AttachmentId, context: &DecisionContext) -> Decision<Attachment> {
    if let Some(state) = state {
        return Decision::Elsewhere(Reply::Attachment(Box::new(state.clone())));
    }
    let check_at = Some(context.now.plus(limits::ORPHAN_KEPT_MILLIS));
    let begun = State { check_at, ..State::begun(id) };
    change(vec![Event::Begun(id), Event::CheckMoved(check_at)], begun)
}

fn bind(
    state: &State,
    conversation: Address,
    instead_of: Option<Bound>,
    context: &DecisionContext,
) -> Decision<Attachment> {
    let number = match state.bound {
        None => 1,
        // The previous number was disclaimed, for whatever reason, so it needs a new one.
        Some(bound) if instead_of == Some(bound) => bound.number + 1,
        Some(bound) if bound.conversation == conversation => {
            return match later(state, context) {
                None => Decision::Answer(Reply::Bound(bound.number)),
                Some(moved) => Decision::Change(Change::new(vec![moved], Reply::Bound(bound.number))),
            };
        }
        Some(bound) => return Decision::Reject(Rejection::Elsewhere(bound)),
    };
    let mut events = vec![Event::Bound(Bound { conversation, number })];
    events.extend(later(state, context));
    Decision::Change(Change::new(events, Reply::Bound(number)))
}

/// Gives a message in flight the time to arrive before its conversation is asked about it.
fn later(state: &State, context: &DecisionContext) -> Option<Event> {
    let soonest = context.now.plus(limits::LINKING_MILLIS);
    let moved = state.check_at.filter(|check_at| *check_at < soonest)?;
    Some(Event::CheckMoved(Some(moved.max(soonest))))
}

fn mention(state: &State, conversation: Address, context: &DecisionContext) -> Decision<Attachment> {
    let is_known = state.mentioned.contains(&conversation);
    // Half of the time is enough for a message to arrive, so only some of many mentions are noted.
    if is_known && state.is_held(context.now.plus(limits::LINKING_MILLIS / 2)).is_some() {
        return Decision::Answer(Reply::Attachment(Box::new(state.clone())));
    }
    // Even if a message is known to use it: that message may be deleted, and then the others are asked.
    let noted = (!state.is_mentioned_widely()).then_some(Event::Mentioned(conversation));
    let is_the_last = noted.is_some() && !is_known && state.mentioned.len() + 1 >= limits::MENTIONED_IN;
    let moved = if is_the_last && state.check_at.is_some() {
        // With so many mentions it is kept without asking any of them.
        Some(Event::CheckMoved(None))
    } else {
        later(state, context)
    };
    let events: Vec<Event> = noted.into_iter().chain(moved).collect();
    if events.is_empty() {
        return Decision::Answer(Reply::Attachment(Box::new(state.clone())));
    }
    change(events, state.clone())
}

fn keep(state: &State, seen: &State, message: Option<MessageId>) -> Decision<Attachment> {
    if state != seen {
        return Decision::Reject(Rejection::Changed);
    }
    let linked = message.filter(|message| state.message != Some(*message)).map(Event::Linked);
    let mut events: Vec<Event> = linked.into_iter().collect();
    if state.check_at.is_some() {
        events.push(Event::CheckMoved(None));
    }
    if events.is_empty() {
        return Decision::Answer(Reply::Attachment(Box::new(state.clone())));
    }
    change(events, State { message: message.or(state.message), check_at: None, ..state.clone() })
}

fn erase(
    state: &State,
    seen: &State,
    context: &DecisionContext,
    reads: &ReadSet,
) -> Result<Decision<Attachment>, Undecided> {
    if state != seen {
        return Ok(Decision::Reject(Rejection::Changed));
    }
    if let Some(until) = state.is_held(context.now).filter(|_| !state.erased) {
        // Checked again once a message in flight has arrived.
        let after = State { check_at: Some(until), ..state.clone() };
        return Ok(change(vec![Event::CheckMoved(Some(until))], after));
    }
    let mut redactions = Vec::new();
    if let Some(seq) = state.completed
        && let Some(record) = reads.record::<Event>(seq)?
        && let Event::Completed(file) = &record.event
    {
        redactions.push(Record { event: Event::Completed(file.redacted()), ..record });
    }
    // Checked again until its bytes are known to be deleted.
    let check_at = Some(context.now.plus(limits::SWEEP_AGAIN_MILLIS));
    let file = state.file.as_ref().map(File::redacted);
    let after = State { check_at, erased: true, file, ..state.clone() };
    let events = vec![Event::Erased, Event::CheckMoved(check_at)];
    Ok(Decision::Change(Change { redactions, ..Change::new(events, Reply::Attachment(Box::new(after))) }))
}

/// Moves the next check to when the deletion is complete, even from an earlier time: an earlier check would find that
/// the message still exists, and stop, and a running check finds the file changed.
fn doubt(state: &State, context: &DecisionContext) -> Decision<Attachment> {
    let check_at = context.now.plus(limits::DOUBT_MILLIS);
    if state.erased || state.check_at == Some(check_at) {
        return Decision::Answer(Reply::Attachment(Box::new(state.clone())));
    }
    let after = State { check_at: Some(check_at), ..state.clone() };
    change(vec![Event::CheckMoved(Some(check_at))], after)
}
