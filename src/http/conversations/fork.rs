//! `POST /conversations/{id}/fork`: a conversation that begins as a copy of another one.

use std::time::Duration;

use actors::contact;
use actors::conversation::{self, Details, Forked, Forking, Opening, Origin, Rejection, message_of};
use actors::directory::Answer;
use actors::id::{ConversationId, EntityKey, MessageId};
use actors::store::SeqRange;
use actors::workflows::claims::MAX_LIVES;
use axum::extract::Path;
use axum::response::Response;
use http::StatusCode;

use super::{StoredConversation, find, opening_event, state};
use crate::app::App;
use crate::http::answer::{Replay, with_ignored_fields};
use crate::http::background::ends_within;
use crate::http::body::OptionalJsonBytes;
use crate::http::call::{Allowed, Call};
use crate::http::caller::Write;
use crate::http::headers::prefer;
use crate::http::log;
use crate::http::messages::new_id;
use crate::http::refusal::conversation::{message_not_found, rejected};
use crate::http::refusal::{broken, problem_of, unreadable_outcome};
use crate::problem::Problem;
use crate::wire::bounds::NAME;

/// The longest wait of a request for the copying; it continues after that.
const COPY_TIMEOUT: Duration = Duration::from_secs(20);

/// `POST /conversations/{id}/fork`: a conversation that begins as a copy, up to a message or completely.
///
/// # Errors
/// 400, 404 `conversation_not_found` and `message_not_found`, 409 `conversation_erased`, 422, 503 `contended` if the
/// source is to be copied completely and is itself still being copied.
pub(in crate::http) async fn create(
    Path(id): Path<String>,
    Allowed { call, body, .. }: Allowed<Write, OptionalJsonBytes>,
) -> Result<Response, Problem> {
    let mut incoming = call.read(body.as_ref())?;
    let key = incoming.key;
    // The conversation that the key opens is its home, so it needs no claim there.
    let command_context = incoming.command_context().without_claim();
    let mut fields = incoming.fields();
    let at = fields.string(&mut incoming.report, "atMessageId", NAME);
    fields.finish(&mut incoming.report);
    let ignored = incoming.report.check()?;
    let StoredConversation { state: source, details } = find(&call, &id).await?;
    let upto = match at {
        Some(at) => message(&call, &source, &at).await?,
        // A copy of the messages so far would lack the rest, and claim to be complete.
        None if source.is_being_copied() && source.erasure.is_none() => return Err(rejected(Rejection::BeingCopied)),
        None => source.last_seq,
    };
    let of = Forked { source: source.id, upto };
    for life in 0..MAX_LIVES {
        let id = new_id(&call, key, life);
        let entity = call.caller.conversation(id.address);
        // If a conversation exists there already none begins, and the contact must not take it for a copy.
        if call.node().conversation_id(entity).await?.is_none() {
            admit(&call, &source, id).await?;
        }
        let forking = Forking { opening: opening(id, &source, &details), of };
        let answer = call.node().conversation(entity, forking, command_context).await;
        let (first, replay) = match answer.map_err(|refusal| problem_of(refusal, rejected))? {
            // The key that opened this conversation is so old that it was forgotten.
            Answer::Done((state, _)) if state.id != id => continue,
            Answer::Done((state, _)) if state.erasure.is_some() => return Err(rejected(Rejection::Erased)),
            Answer::Done(_) => (1, Replay::First),
            Answer::Repeat(effect) => (effect.first, Replay::Repeated),
        };
        call.context.begin_wait();
        let response = with_ignored_fields(
            copied(&call.app, entity, first, prefer(&call.headers).max_wait(COPY_TIMEOUT)).await?,
            &ignored,
        );
        // A 202 is not recorded.
        let is_recorded = response.status() == StatusCode::CREATED;
        return Ok(if is_recorded { replay.mark(response) } else { response });
    }
    Err(broken("a key opens a copy in one of its lives"))
}

/// The sequence of a message of the source that a body names.
async fn message(call: &Call, source: &conversation::State, id: &str) -> Result<u64, Problem> {
    let id = MessageId::parse(id).filter(|id| id.entity == source.id.address).ok_or_else(message_not_found)?;
    let entity = source.entity(call.caller.address);
    let events = log::between(call.node(), entity, SeqRange::one(id.number)).await?;
    let exists = events.iter().filter_map(message_of).any(|message| message.id == id);
    if exists { Ok(id.number) } else { Err(message_not_found()) }
}

/// A contact's messages belong to the contact in every copy: the contact must note the copy before it is made.
async fn admit(call: &Call, source: &conversation::State, copy: ConversationId) -> Result<(), Problem> {
    if source.erasure.is_some() {
        return Err(rejected(Rejection::Erased));
    }
    let Origin::Api { contact: id, .. } = source.origin else { return Ok(()) };
    let entity = call.caller.contact(id.address);
    let noted = call.node().contact(entity, contact::Command::Fork { id, copy }, call.without_key()).await;
    noted.map(|_| ()).map_err(|refusal| problem_of(refusal, |_| rejected(Rejection::Erased)))
}

/// The beginning of the copy: like the source now, and open. A human channel's own conversation stays the channel's.
fn opening(id: ConversationId, source: &conversation::State, details: &Details) -> Opening {
    let origin = match &source.origin {
        Origin::Human { .. } => Origin::Direct,
        origin => origin.clone(),
    };
    Opening { id, origin, owner: source.owner.clone(), details: details.clone() }
}

/// Copies, and answers 201 with the copy as it was right after, or 202 if that takes longer. The answer contains only
/// unchanging data, so that a retry gets the same.
async fn copied(app: &App, entity: EntityKey, first: u64, patience: Duration) -> Result<Response, Problem> {
    ends_within(app, patience, actors::workflows::fork::begin(app.node(), entity)).await;
    let mut copy =
        StoredConversation::opened(&opening_event(app.node(), entity, first).await.map_err(unreadable_outcome)?)?;
    let now = state(app, entity, copy.state.id)
        .await
        .map_err(unreadable_outcome)?
        .ok_or_else(|| broken("a copy that began exists"))?;
    let fork = now.fork.ok_or_else(|| broken("a copy knows its progress"))?;
    let status = if fork.next.is_none() { StatusCode::CREATED } else { StatusCode::ACCEPTED };
    copy.state.messages = fork.copied;
    copy.state.last_message_at = Some(fork.at).filter(|_| fork.copied > 0);
    copy.state.updated_at = fork.at;
    Ok(copy.created(status))
}
