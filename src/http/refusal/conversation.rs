//! Errors of conversations, messages, turns and reviews.

use actors::conversation::Rejection;
use http::StatusCode;

use super::precondition_failed;
use crate::http::attachments::link::already_linked;
use crate::problem::{Fault, Problem};

/// Seconds after which an agent or a workspace with too many turns may be retried: thousands of answers of models are
/// ahead.
const TURN_RETRY_SECONDS: u32 = 5;

/// 404 for a conversation that does not exist, here or at all.
pub(in crate::http) fn conversation_not_found() -> Problem {
    Problem::not_found("conversation_not_found", "there is no such conversation")
}

/// 404 for a message that does not exist, here or at all.
pub(in crate::http) fn message_not_found() -> Problem {
    Problem::not_found("message_not_found", "there is no such message")
}

/// 404 for a review that does not exist, here or at all.
pub(in crate::http) fn review_not_found() -> Problem {
    Problem::not_found("review_not_found", "there is no such review")
}

/// 404 for a turn that does not exist, here or at all.
pub(in crate::http) fn turn_not_found() -> Problem {
    Problem::not_found("turn_not_found", "there is no such turn")
}

/// 429: the agent has as many waiting or running turns as one agent may.
pub(in crate::http) fn agent_backlog() -> Problem {
    Problem::too_many(
        "agent_backlog",
        "too many turns of this agent are waiting or running; nothing was stored",
        TURN_RETRY_SECONDS,
    )
}

/// 429: the workspace has as many waiting or running turns as one workspace may.
pub(in crate::http) fn workspace_backlog() -> Problem {
    Problem::too_many(
        "rate_limited",
        "too many turns of this workspace are waiting or running; nothing was stored",
        TURN_RETRY_SECONDS,
    )
}

/// A parent that is no message of the conversation: of this item of a batch, or of a request's only message.
pub(in crate::http) fn parent_not_found(item: Option<usize>) -> Fault {
    let pointer = match item {
        Some(item) => format!("/content/{item}/parent_message_id"),
        None => "/content/parent_message_id".to_owned(),
    };
    Fault::new(pointer, "parent_not_found", "names no message of this conversation")
}

/// The problems of a conversation's rejections.
pub(in crate::http) fn rejected(rejection: Rejection) -> Problem {
    match rejection {
        Rejection::NotFound => conversation_not_found(),
        Rejection::Closed => Problem::conflict("conversation_closed", "this conversation is closed"),
        Rejection::NotClosable => Problem::conflict(
            "conversation_not_closable",
            "a human channel's own conversation stays open; disable or delete the channel instead",
        ),
        Rejection::Erased => Problem::conflict(
            "conversation_erased",
            "the contact of this conversation was erased, and the conversation's content with it",
        ),
        Rejection::BeingCopied => {
            Problem::unavailable("contended", "this conversation is a copy that is not complete yet; retry later", 1)
        }
        Rejection::ParentNotFound { .. } => Problem::invalid(vec![parent_not_found(None)]),
        Rejection::IterationNotFound => {
            Problem::fault("/iterationOf", "message_not_found", "names no earlier message of this channel")
        }
        Rejection::AttachmentLinked(id) | Rejection::AttachmentLost(id) => already_linked(id),
        Rejection::TurnInProgress => Problem::conflict(
            "turn_in_progress",
            "a turn is running, and this channel's busyPolicy rejects messages meanwhile",
        ),
        Rejection::TooManyTurns => {
            Problem::too_many("conversation_backlog", "too many turns are waiting in this conversation", 1)
        }
        Rejection::MessageNotFound => message_not_found(),
        Rejection::MessageDeleted => Problem::conflict("message_deleted", "this message was deleted"),
        Rejection::MessageChanged | Rejection::Changed => precondition_failed(),
        Rejection::ReviewNotFound => review_not_found(),
        Rejection::ReviewOver(_) => {
            Problem::conflict("review_already_completed", "this review has ended; see review for its outcome")
        }
        Rejection::ReviewExpired(_) => Problem::conflict("review_expired", "the deadline of this review has passed"),
        Rejection::AlreadyVoted => {
            Problem::conflict("already_voted", "this principal has already answered this review")
        }
        Rejection::TooManyVotes => {
            let detail =
                "the votes on this review have reached their maximum size; a shorter response or feedback may fit";
            Problem::conflict("too_many_votes", detail)
        }
        Rejection::NotAllowed => Problem::new(
            StatusCode::FORBIDDEN,
            "responder_not_allowed",
            "this principal is not allowed to answer this review",
        ),
        Rejection::TurnNotFound => turn_not_found(),
        Rejection::TurnNotPossible(_) => Problem::conflict("turn_over", "this turn has ended"),
    }
}
