//! Tools: functions that an agent's model can call.
//!
//! The port [`Tools`] parses a call's arguments, because they are JSON; the effect of the call is decided here. A call
//! is recorded before it runs, and its result before the model continues.

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use minicbor::{Decode, Encode};

use crate::agent::Agent;
use crate::id::{Address, TurnId};
use crate::memories::recall::Remembered;
use crate::message::{Content, Json, ReviewState};
use crate::trace::TraceContext;

/// The tool that asks people.
pub const REQUEST_REVIEW: &str = "request_review";
/// The tool that searches memories.
pub const SEARCH_MEMORIES: &str = "search_memories";

/// A call as a model makes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Called {
    /// The model's own id for the call, unchecked.
    pub id: Option<String>,
    /// The tool's name.
    pub name: String,
    /// Its arguments: the model's text, which should be a JSON object.
    pub arguments: String,
}

/// The longest model-given id that is kept for a call, in bytes.
pub const GIVEN_ID_BYTES: usize = 128;

/// A call with the id that links its result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// The id: visible ASCII, unique in the conversation. Models may give an id twice in a conversation, so it is
    /// generated.
    pub id: String,
    /// The model's own id, if it can be used: 1 to [`GIVEN_ID_BYTES`] of visible ASCII, unique in its answer.
    pub given: Option<String>,
    /// The model's call.
    pub called: Called,
    /// The agent.
    pub agent: Arc<Agent>,
    /// The turn.
    pub turn: TurnId,
    /// The workspace.
    pub workspace: Address,
    /// The call's trace context, or if it is not recorded, that of its parent.
    pub trace: Option<TraceContext>,
}

impl Invocation {
    /// The id that models and clients see.
    #[must_use]
    pub fn public_id(&self) -> &str {
        self.given.as_deref().unwrap_or(&self.id)
    }
}

/// The ids that a model gave its calls, as far as they can be used; `made` are the generated ids.
pub(crate) fn given_ids(calls: &[Called], made: &[String]) -> Vec<Option<String>> {
    let is_usable = |id: &str| {
        let named = |call: &&Called| call.id.as_deref() == Some(id);
        (1..=GIVEN_ID_BYTES).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_graphic())
            && calls.iter().filter(named).count() == 1
            && !made.iter().any(|made| made == id)
    };
    calls.iter().map(|call| call.id.clone().filter(|id| is_usable(id))).collect()
}

/// A question for the people of a human channel.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Ask {
    /// The channel.
    #[n(0)]
    pub channel: String,
    /// The message with the question.
    #[n(1)]
    pub content: Content,
    /// How long the review remains open, in milliseconds from its acceptance; `None`: the channel's default.
    #[n(2)]
    pub review_millis: Option<u64>,
}

/// The asker of a review: the call of a turn that waits for its outcome.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Asker {
    /// The turn's conversation.
    #[n(0)]
    pub conversation: Address,
    /// The turn's number there.
    #[n(1)]
    pub turn: u64,
    /// The call's id.
    #[n(2)]
    pub call: String,
}

/// The execution plan of a call.
pub enum Plan {
    /// No work is needed: this is the result.
    Answer(String),
    /// People are asked; the turn waits.
    Ask(Box<Ask>),
    /// Memories are searched.
    Recall {
        /// The query.
        query: String,
        /// The most memories to return.
        limit: usize,
    },
    /// An external service is called, and its answer is the result. Dropping it cancels the call.
    Fetch(BoxFuture<'static, Fetched>),
}

/// The outcome of an external call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// The text for the model.
    pub result: String,
    /// Why the tool did not answer: one of a few codes, for spans.
    pub error: Option<&'static str>,
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answer(result) => f.debug_tuple("Answer").field(result).finish(),
            Self::Ask(ask) => f.debug_tuple("Ask").field(ask).finish(),
            Self::Recall { query, limit } => {
                f.debug_struct("Recall").field("query", query).field("limit", limit).finish()
            }
            Self::Fetch(_) => f.debug_tuple("Fetch").finish_non_exhaustive(),
        }
    }
}

/// Reads the arguments of calls and writes their results, both as JSON.
pub trait Tools: Send + Sync + 'static {
    /// Plans a call. It must be quick; slow work is in [`Plan::Fetch`].
    fn plan(&self, invocation: &Invocation) -> Plan;

    /// The calls as the `tool_calls` of a message.
    fn recorded(&self, calls: &[Invocation]) -> Json;

    /// The ids of the calls that the `tool_calls` of a message make, as far as a model can be given them.
    fn ids_of(&self, tool_calls: &Json) -> Vec<String>;

    /// Which call a tool's message with this metadata answers.
    fn answered(&self, metadata: &Json) -> Option<String>;

    /// The description for a model of the files that a message's `references` name: a short line for each.
    fn files_of(&self, references: &Json) -> Vec<String>;

    /// The call in a script, a JSON object with `name` and `arguments`.
    fn scripted(&self, call: &Json) -> Called;

    /// A review's outcome as a result.
    fn reviewed(&self, state: &ReviewState) -> String;

    /// Memories as a result.
    fn remembered(&self, memories: &[Remembered]) -> String;

    /// A failure as a result.
    fn failed(&self, code: &str, detail: &str) -> String;
}

/// No tools: every call gets that answer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct NoTools;

impl Tools for NoTools {
    fn plan(&self, _: &Invocation) -> Plan {
        Plan::Answer(r#"{"error":"tools_unavailable"}"#.to_owned())
    }

    fn recorded(&self, _: &[Invocation]) -> Json {
        Json::from_checked("[]")
    }

    fn ids_of(&self, _: &Json) -> Vec<String> {
        Vec::new()
    }

    fn answered(&self, _: &Json) -> Option<String> {
        None
    }

    fn files_of(&self, _: &Json) -> Vec<String> {
        Vec::new()
    }

    fn scripted(&self, _: &Json) -> Called {
        Called { id: None, name: String::new(), arguments: "{}".to_owned() }
    }

    fn reviewed(&self, _: &ReviewState) -> String {
        "{}".to_owned()
    }

    fn remembered(&self, _: &[Remembered]) -> String {
        "{}".to_owned()
    }

    fn failed(&self, _: &str, _: &str) -> String {
        "{}".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_the_model_is_kept_where_it_is_visible_short_and_no_other_calls() {
        let long = "x".repeat(GIVEN_ID_BYTES);
        let longer = format!("{long}x");
        for (given, kept) in [
            (vec![Some("call_a"), Some("call_b")], vec![Some("call_a"), Some("call_b")]),
            (vec![Some("1"), None, Some("")], vec![Some("1"), None, None]),
            (vec![Some("twice"), Some("once"), Some("twice")], vec![None, Some("once"), None]),
            (vec![Some("a b"), Some("a\n"), Some("é"), Some("\"\\")], vec![None, None, None, Some("\"\\")]),
            (vec![Some(long.as_str()), Some(longer.as_str())], vec![Some(long.as_str()), None]),
            (vec![Some("made"), None], vec![None, None]),
        ] {
            let called = |id: &Option<&str>| Called {
                id: id.map(str::to_owned),
                name: "tool".to_owned(),
                arguments: String::new(),
            };
            let calls: Vec<Called> = given.iter().map(called).collect();
            let found = given_ids(&calls, &["made".to_owned()]);
            assert_eq!(found.iter().map(Option::as_deref).collect::<Vec<_>>(), kept);
        }
    }
}
