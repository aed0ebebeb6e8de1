//! Errors: `application/problem+json` (RFC 9457).

use super::super::shape::{Bounded as _, Members, boolean, integer, list, named, text};
use super::Component;

pub(super) fn schemas() -> Vec<Component> {
    vec![("Problem", problem().done()), ("ContactProblem", contact_problem().done()), ("Fault", fault().done())]
}

fn problem() -> Members {
    Members::new("An error. Some have members of their own beside these.")
        .must("type", text("The page of this error: `/docs/errors/` and the code."))
        .must("title", text("The code in words."))
        .must("status", integer("The HTTP status.", 400, Some(599)))
        .must("detail", text("What happened, for people."))
        .must("instance", text("The path of the request."))
        .must("code", text("Which error this is, for programs; stable."))
        .must("requestId", text("The request, as in `X-Request-Id`."))
        .may("errors", list("Every fault of the request's data.", named("Fault")).least(1))
}

fn contact_problem() -> Members {
    problem().must("success", boolean("Always false."))
}

fn fault() -> Members {
    Members::new("One thing that is wrong in the request's data.")
        .must("pointer", text("JSON Pointer into the body; `/name` of a query parameter or header."))
        .must("code", text("What is wrong, for programs."))
        .must("message", text("What is wrong and what would be right, for people."))
}
