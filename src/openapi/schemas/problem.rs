//! Errors: `application/problem+json` (RFC 9457).

use super::super::shape::{Bounded as _, Members, boolean, component, integer, list, made_id, named, text};
use super::Component;
use crate::problem::MAX_FAULTS;

pub(super) fn schemas() -> Vec<Component> {
    vec![("Problem", problem().done()), ("ContactProblem", contact_problem().done()), ("Fault", fault().done())]
}

fn problem() -> Members {
    let faults_words = format!(
        "All faults in the request's data; of more than {MAX_FAULTS} the first {MAX_FAULTS}, and `detail` says that there \
         are more."
    );
    Members::new("An error. The members from `line` on belong to the errors that their descriptions name.")
        .must("type", text("The page of this error: `/docs/errors/` and the code."))
        .must("title", text("The code as text."))
        .must("status", integer("The HTTP status.", 400, Some(599)))
        .must("detail", text("What happened, for people."))
        .must("instance", text("The path of the request."))
        .must("code", text("The error's code, for programs; stable."))
        .must("requestId", text("The id of the request, as in `X-Request-Id`."))
        .may("errors", list(&faults_words, named("Fault")).least(1).longest(MAX_FAULTS))
        .may("line", integer("`malformed_json`: the line, from 1.", 1, None))
        .may("column", integer("`malformed_json`: the byte of the line, from 1; 0 if unknown.", 0, None))
        .may("review", component("Review", "`review_already_completed`, `review_expired`: the review."))
        .may("attachmentId", made_id("`attachment_already_linked`: the file.", "att_", 26))
        .may("reason", text("`agent_failed`: the reason, for programs; the `code` of the turn's `error`."))
        .may("messageId", made_id("`agent_failed`: the message, which is stored.", "msg_", 34))
        .may("turnId", made_id("`agent_failed`: the turn.", "turn_", 34))
}

fn contact_problem() -> Members {
    problem().must("success", boolean("Always false."))
}

fn fault() -> Members {
    Members::new("One fault in the request's data.")
        .must("pointer", text("JSON Pointer into the body; `/name` for a query parameter or header."))
        .must("code", text("The fault's code, for programs."))
        .must("message", text("The fault and the allowed values, for people."))
}
