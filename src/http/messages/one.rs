//! Reading one message.

use actors::conversation::{Conversation, Origin, State as ConversationState, message_of};
use actors::id::{EntityKey, MessageId};
use actors::message::{Message, Overlay};
use actors::store::Order;
use axum::extract::{Path, State};
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};

use crate::app::App;
use crate::http::answer::json;
use crate::http::caller::{Allowed, Caller, Read};
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
    let events = app.node().events::<Conversation>(entity, range, Order::Asc, 1).await;
    let events = events.map_err(|error| store_problem(&error))?;
    let message = events.iter().find_map(message_of).filter(|message| message.id == id);
    let message = message.ok_or_else(message_not_found)?;
    let overlays = app.node().overlays(entity, range).await.map_err(|error| store_problem(&error))?;
    let overlay = overlays.into_iter().next().map(|(_, overlay)| overlay).unwrap_or_default();
    let state = app.node().state::<Conversation>(entity).await.map_err(|error| store_problem(&error))?;
    Ok(Found { message, overlay, conversation: state.ok_or_else(message_not_found)? })
}

/// In the form of the API that it belongs to.
pub(super) async fn get(
    State(app): State<App>,
    Allowed(caller, ..): Allowed<Read>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let Found { message, overlay, conversation } = find(&app, &caller, &id).await?;
    let mut response = match &conversation.origin {
        Origin::Human { channel } => json(StatusCode::OK, &channel_view(channel, &message, &overlay)),
        Origin::Api { .. } | Origin::Store => {
            json(StatusCode::OK, &conversation_view(&caller.workspace, &message, &overlay))
        }
    };
    if let Ok(etag) = HeaderValue::try_from(etag(&message, &overlay)) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    Ok(response)
}
