//! Giving calls their results: a tool message for each, and the new row and turn.

use std::sync::Arc;

use super::{Call, Calls};
use crate::conversation::turn::Turn;
use crate::conversation::writing::Writing;
use crate::conversation::{Accepted, Event, State};
use crate::id::MessageId;
use crate::limits;
use crate::message::{Content, Json, Sender, SenderKind, role};

/// Writes the effects of results: tool messages, and the new row and turn.
pub(super) struct Answering<'w, 'a> {
    state: &'w State,
    pub(super) turn: Turn,
    pub(super) calls: Calls,
    pub(super) writing: &'w mut Writing<'a>,
}

impl<'w, 'a> Answering<'w, 'a> {
    pub(super) fn of(state: &'w State, turn: &Turn, calls: Calls, writing: &'w mut Writing<'a>) -> Self {
        Self { state, turn: turn.clone(), calls, writing }
    }

    /// Gives the call its result, unless it has one.
    pub(super) fn answer(&mut self, id: &str, result: &str) {
        let Some(call) = self.calls.calls.iter_mut().find(|call| call.id == id && !call.answered) else { return };
        call.answered = true;
        let sender = Sender { kind: SenderKind::Agent, id: call.name.clone() };
        // Ids are visible ASCII, of which JSON escapes these two.
        let public_id = call.public_id().replace('\\', r"\\").replace('"', r#"\""#);
        let metadata = Json::from_checked(format!(r#"{{"tool_call_id":"{public_id}"}}"#));
        let content = Content { metadata: Some(metadata), ..Content::text(role::TOOL, sender, cut(result)) };
        let parent = self.calls.branch;
        let seq = self.writing.event(Event::MessageCreated(Accepted {
            conversation: self.state.id,
            content: Arc::new(content),
            parent,
            owner: self.state.owner.clone(),
            turn: Some(self.turn.id),
        }));
        self.calls.branch = parent.map(|_| MessageId::new(self.writing.context.now, self.state.id.address, seq));
    }

    /// Gives this result to every call that has none and matches `which`.
    pub(super) fn answer_all(&mut self, result: &str, which: impl Fn(&Call) -> bool) {
        let open: Vec<String> =
            self.calls.calls.iter().filter(|call| !call.answered && which(call)).map(|call| call.id.clone()).collect();
        open.iter().for_each(|id| self.answer(id, result));
    }

    /// Updates the row of the calls, and the turn's number of open ones.
    pub(super) fn settle(&mut self) {
        if self.turn.open_calls.is_some() {
            self.turn.open_calls = Some(self.calls.open()).filter(|open| *open > 0);
            self.writing.row(self.calls.row(self.turn.id.number));
        }
    }
}

/// At most [`limits::RESULT_BYTES`] of a result.
fn cut(result: &str) -> String {
    if result.len() <= limits::RESULT_BYTES {
        return result.to_owned();
    }
    format!("{}…", &result[..result.floor_char_boundary(limits::RESULT_BYTES)])
}
