//! Deciding a review, and cancelling one.

use actors::conversation::review::Response as Given;
use actors::conversation::{CancelReview, Conversation, Event, Rejection};
use actors::directory::{Answer, CommandContext, Refusal};
use actors::id::Address;
use actors::key::Principal;
use actors::message::{ComparableResponse, Json, Overlay, Review, ReviewState, ReviewStatus};
use actors::requests::Request;
use axum::extract::Path;
use axum::response::Response;
use http::StatusCode;

use super::{StoredReview, find, parse_id};
use crate::http::answer::{json, mark_replayed, with_ignored_fields};
use crate::http::body::{JsonBytes, OptionalJsonBytes};
use crate::http::call::{Allowed, Call};
use crate::http::caller::{Respond, Write};
use crate::http::log;
use crate::http::messages::stored::StoredMessage;
use crate::http::messages::{answered_overlay, sender};
use crate::http::refusal::conversation::rejected;
use crate::http::refusal::{broken, problem_of};
use crate::json::canonical::canonical;
use crate::json::fields::{Fields, Length};
use crate::json::report::Report;
use crate::problem::{Fault, Problem};
use crate::validation::{self, Progress};
use crate::wire::bounds::ANSWER;
use crate::wire::fingerprint;
use crate::wire::review_response::{self, RESPONSE_SCHEMA, decision};

/// The longest feedback, in bytes of UTF-8.
const FEEDBACK_BYTES: usize = 16 * 1024;
/// A payload and an answer up to this length without a schema are compared within microseconds.
const QUICK_BYTES: usize = 4 * 1024;

/// Reads the answer in a body. The contract has one code for every invalid answer to the question, none at all too.
fn read_answer(fields: &mut Fields<'_>, report: &mut Report) -> (Option<Json>, Option<String>) {
    let response = match fields.optional("response") {
        Some(value) if value.is_object() => value.free_object(report, ANSWER),
        Some(value) => {
            report.fault(&value.path, "invalid_response", "must be an object");
            None
        }
        None => {
            report.fault(&fields.path().name("response"), "invalid_response", "response is required, an object");
            None
        }
    };
    let feedback = fields.string(report, "feedback", Length::bytes(0, FEEDBACK_BYTES));
    (response, feedback.map(std::borrow::Cow::into_owned))
}

/// Every fault of an answer to this review.
fn faults_of(review: &Review, response: &Json) -> Progress<Vec<Fault>> {
    match serde_json::from_str(response.as_str()) {
        Ok(value) => review_response::faults(review, value, response),
        // It is valid JSON, so only a number beyond the doubles is unreadable.
        Err(error) => {
            let message = format!("cannot be read: {error}");
            Progress::Done(vec![Fault::new("/response", "invalid_response", message)])
        }
    }
}

/// Every fault of an answer. A client's own schema or a long answer may take a while to check, so that runs on another
/// thread.
async fn check_response(workspace: Address, review: &Review, response: Json) -> Result<Vec<Fault>, Problem> {
    let is_short = |json: &Json| json.as_str().len() <= QUICK_BYTES;
    // A name may be written with escapes.
    let has_no_schema = |json: &Json| !json.as_str().contains(RESPONSE_SCHEMA) && !json.as_str().contains('\\');
    if is_short(&response)
        && review.payload.as_ref().is_none_or(|payload| is_short(payload) && has_no_schema(payload))
        && let Progress::Done(faults) = faults_of(review, &response)
    {
        return Ok(faults);
    }
    let review = review.clone();
    validation::run(workspace, move || faults_of(&review, &response)).await
}

/// The review that a path names; its absence is judged after the body.
async fn find_by_text(call: &Call, id: &str) -> Result<StoredReview, Problem> {
    find(call, parse_id(id)?).await
}

/// `POST /reviews/{id}/respond`.
pub(in crate::http) async fn respond(
    Path(id): Path<String>,
    Allowed { call, body, .. }: Allowed<Respond, Result<JsonBytes, Problem>>,
) -> Result<Response, Problem> {
    // A caller who may not answer gets 403 whatever the answer is.
    let stored = find_by_text(&call, &id).await;
    if let Ok(stored) = &stored {
        stored.check_responder(&call.caller)?;
    }
    let bytes = body?;
    let mut incoming = call.read(&bytes)?;
    let command_context = incoming.command_context();
    let mut fields = incoming.fields();
    let (response, feedback) = read_answer(&mut fields, &mut incoming.report);
    fields.finish(&mut incoming.report);
    if let Ok(stored) = &stored {
        // A deleted message has no question any more. Its review has ended, and the decision reports that.
        if let Some(given) = response.clone().filter(|_| stored.message().removal(&stored.found.overlay).is_none()) {
            incoming.report.faults.extend(check_response(call.caller.address, &stored.review, given).await?);
        }
    }
    let ignored = incoming.report.check()?;
    let stored = stored?;
    let response = response.ok_or_else(|| broken("a body without faults has a response"))?;
    if let Some(response) = call.forward(stored.found.entity, &bytes, &command_context).await? {
        return Ok(response);
    }
    let alike = stored.review.quorum.as_ref().map(|_| {
        let decision = decision(&stored.review, &response);
        ComparableResponse {
            print: fingerprint::of_value(&decision),
            canonical: Json::from_checked(canonical(&decision)),
        }
    });
    let principal = call.caller.key.principal.clone();
    let given = Given { message: stored.message().id, response, alike, feedback, principal };
    let answered = decide(&call, stored, given, command_context).await?;
    Ok(with_ignored_fields(answered, &ignored))
}

/// `POST /reviews/{id}/cancel`.
pub(in crate::http) async fn cancel(
    Path(id): Path<String>,
    Allowed { call, body, .. }: Allowed<Write, Result<OptionalJsonBytes, Problem>>,
) -> Result<Response, Problem> {
    let stored = find_by_text(&call, &id).await;
    if let Ok(stored) = &stored {
        let channel = stored.found.origin.human_channel().unwrap_or_default();
        if sender(&call.caller, channel) != stored.message().content.sender {
            let detail = "only the sender of a review may cancel it";
            return Err(Problem::new(StatusCode::FORBIDDEN, "not_the_sender", detail));
        }
    }
    let body = body?;
    let (command_context, ignored) = call.read_without_members(body.as_ref())?;
    let stored = stored?;
    if let Some(response) = call.forward(stored.found.entity, body.as_ref(), &command_context).await? {
        return Ok(response);
    }
    let cancel = CancelReview { message: stored.message().id };
    Ok(with_ignored_fields(decide(&call, stored, cancel, command_context).await?, &ignored))
}

/// The review right after this principal's vote, which did not decide it; as it is now if there is no such vote.
fn after_vote(now: &ReviewState, principal: &Principal) -> ReviewState {
    match now.votes.iter().position(|vote| vote.is_of(principal)) {
        Some(at) => ReviewState {
            status: ReviewStatus::Pending,
            response: None,
            feedback: None,
            decided_by: None,
            completed_at: None,
            votes: now.votes[..=at].to_vec(),
        },
        None => now.clone(),
    }
}

/// Sends the command to the conversation, and renders the review's state then.
async fn decide(
    call: &Call,
    stored: StoredReview,
    request: impl Request<Conversation, Reply = Box<ReviewState>>,
    command_context: CommandContext,
) -> Result<Response, Problem> {
    let entity = stored.found.entity;
    let key = command_context.key.map(|key| key.hash);
    let answer = match call.node().conversation(entity, request, command_context).await {
        Ok(answer) => answer,
        Err(refusal) => {
            let over = match &refusal {
                Refusal::Rejected(Rejection::ReviewOver(state) | Rejection::ReviewExpired(state)) => {
                    Some(state.clone())
                }
                _ => None,
            };
            let problem = problem_of(refusal, rejected);
            return Err(match over {
                Some(state) => problem.with("review", StoredReview { state: *state, ..stored }.review()),
                None => problem,
            });
        }
    };
    match answer {
        Answer::Done(state) => Ok(json(StatusCode::OK, &StoredReview { state: *state, ..stored }.view())),
        Answer::Repeat(effect) => {
            let events = log::between(call.node(), entity, effect).await?;
            let ended = events.into_iter().find_map(|record| match record.event {
                Event::ReviewCompleted(end) | Event::ReviewCancelled(end) => Some(end.state),
                _ => None,
            });
            let state = match ended {
                Some(state) => state,
                // A vote that decided nothing is no event: it is among the votes. The earlier read may be from before
                // it.
                None => after_vote(&find(call, stored.message().id).await?.state, &call.caller.key.principal),
            };
            // The content at that time: edited, or as accepted. Only erased content stays removed.
            let overlay =
                answered_overlay(&call.app, entity, stored.message().id.number, key).await?.unwrap_or_default();
            let overlay = Overlay { erased: stored.found.overlay.erased, ..overlay };
            let found = StoredMessage { overlay, ..stored.found };
            Ok(mark_replayed(json(StatusCode::OK, &StoredReview { state, found, ..stored }.view())))
        }
    }
}
