//! Reading one message.

use actors::conversation::{Conversation, Origin, State as ConversationState, message_of};
use actors::id::{EntityKey, MessageId};
use actors::message::{Message, Overlay};
use axum::extract::{Path, State};
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};

use crate::app::App;
use crate::http::answer::json;
use crate::http::caller::{Allowed, Caller, Read};
use crate::http::context::RequestContext;
use crate::http::log;
use crate::http::paging::Page;
use crate::http::problem::Problem;
use crate::http::refusal::store_problem;
use crate::wire::channel_message::view::channel_view;
use crate::wire::conversation_message::view::{conversation_view, etag};

/// A message with what it takes to show it.
pub(crate) struct Found {
    pub(crate) message: Message,
    pub(crate) overlay: Overlay,
    pub(crate) conversation: ConversationState,
}

/// 404 for a message that does not exist, here or at all.
pub(crate) fn message_not_found() -> Problem {
    Problem::not_found("message_not_found", "there is no such message")
}

/// A message of the caller's workspace by its id.
pub(crate) async fn find(app: &App, caller: &Caller, id: &str) -> Result<Found, Problem> {
    let id = MessageId::parse(id).ok_or_else(message_not_found)?;
    let entity = EntityKey::conversation(caller.address, id.entity);
    let range = (id.number, id.number);
    let events = log::between(app.node(), entity, range).await;
    let events = events.map_err(store_problem)?;
    let message = events.iter().find_map(message_of).filter(|message| message.id == id);
    let message = message.ok_or_else(message_not_found)?;
    let overlays = app.node().overlays(entity, range).await.map_err(store_problem)?;
    let overlay = overlays.into_iter().next().map(|(_, overlay)| overlay).unwrap_or_default();
    let state = app.node().state::<Conversation>(entity).await.map_err(store_problem)?;
    Ok(Found { message, overlay, conversation: state.ok_or_else(message_not_found)? })
}

/// The message in the form of the API that it belongs to.
pub(super) fn shown(caller: &Caller, found: &Found) -> Response {
    let Found { message, overlay, conversation } = found;
    let mut response = match &conversation.origin {
        Origin::Human { channel } => json(StatusCode::OK, &channel_view(channel, message, overlay)),
        Origin::Api { .. } | Origin::Store => {
            json(StatusCode::OK, &conversation_view(&caller.workspace, message, overlay))
        }
    };
    if let Ok(etag) = HeaderValue::try_from(etag(message, overlay)) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    response
}

/// `GET /messages/{id}`.
pub(in crate::http) async fn get(
    State(app): State<App>,
    Allowed(caller, ..): Allowed<Read>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    Ok(shown(&caller, &find(&app, &caller, &id).await?))
}

/// Revisions of one message that are followed; a longer chain is shown from its middle.
const ITERATIONS_MAX: usize = 200;

/// `GET /messages/{id}/iterations`: the revision chain that the message is part of, oldest first.
pub(in crate::http) async fn iterations(
    State(app): State<App>,
    Allowed(caller, ..): Allowed<Read>,
    context: RequestContext,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let asked = find(&app, &caller, &id).await?;
    let mut earlier = Vec::new();
    let mut next = asked.message.content.iteration_of;
    while let Some(id) = next.filter(|_| earlier.len() < ITERATIONS_MAX / 2) {
        let found = find(&app, &caller, &id.to_string()).await?;
        next = found.message.content.iteration_of;
        earlier.push(found);
    }
    let mut chain: Vec<Found> = earlier.into_iter().rev().collect();
    next = asked.overlay.superseded_by;
    chain.push(asked);
    while let Some(id) = next.filter(|_| chain.len() < ITERATIONS_MAX) {
        let found = find(&app, &caller, &id.to_string()).await?;
        next = found.overlay.superseded_by;
        chain.push(found);
    }
    let list = format!("iterations/{}/{id}", caller.workspace);
    let origin = chain.first().map(|found| found.conversation.origin.clone());
    let Some(Origin::Human { channel }) = origin else {
        let workspace = &caller.workspace;
        let data = chain.iter().map(|found| conversation_view(workspace, &found.message, &found.overlay)).collect();
        return Ok(Page { data, next: None }.into_response(&list, &context.uri));
    };
    let data = chain.iter().map(|found| channel_view(&channel, &found.message, &found.overlay)).collect();
    Ok(Page { data, next: None }.into_response(&list, &context.uri))
}
