//! The HTTP front door: routes and layers.

pub mod agents;
pub mod answer;
pub mod api_keys;
pub(crate) mod attachments;
mod background;
pub mod body;
pub mod call;
pub mod caller;
pub mod channels;
pub mod contacts;
pub mod context;
pub mod conversations;
pub mod deliveries;
pub mod events;
pub(crate) mod forwarding;
pub mod headers;
pub(crate) mod history;
pub mod idempotency;
mod incoming;
mod listing;
mod log;
pub(crate) mod long_requests;
pub mod memories;
pub mod messages;
pub mod paging;
pub mod probes;
pub mod query;
pub mod rate;
pub mod refusal;
mod resource;
pub mod reviews;
pub mod turns;
pub mod usage;
pub mod webhooks;
pub mod workspaces;

use std::sync::Arc;

use actors::agent::Agent;
use actors::channel::Channel;
use actors::clock::Entropy;
use actors::webhook::WebhookEndpoint;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, any, get, post};
use axum::{Extension, Router};
use http::StatusCode;

use self::caller::{Admin, ReadConfiguration};
use self::context::{ContextLayer, RequestTelemetry};
use crate::app::App;
use crate::problem::Problem;
use crate::server::Unreadable;

/// Every route of the API's listener.
///
/// Paths without a route need no handler here: the outermost layer turns a bare 404 or 405 into a problem.
pub fn router(app: App) -> Router {
    let context = context_layer(&app, Arc::clone(app.request_telemetry()));
    let authenticated = caller::Authentication(app.clone());
    // Both layers around a route at once: each separate layer is one more boxed service, which is cloned for every
    // request.
    let api = messaging_routes().merge(configuration_routes()).0.route_layer((context.clone(), authenticated.clone()));
    // Around the fallback too: without a key a client cannot find out which paths exist.
    let unknown = || async { StatusCode::NOT_FOUND };
    let base = any(unknown).layer(authenticated.clone());
    let below = Router::new().fallback(unknown).layer(authenticated);
    // `nest` does not match its prefix with a trailing slash.
    let others = Router::route(Router::new().nest(BASE, below), &[BASE, "/"].concat(), base)
        .route("/healthz", get(probes::healthz))
        .route("/readyz", get(probes::readyz))
        .merge(crate::openapi::routes())
        .fallback(not_found)
        .layer(context);
    api.merge(others).with_state(app)
}

/// The outermost layer of a listener; `request_telemetry` observes its requests.
pub(crate) fn context_layer(app: &App, request_telemetry: Arc<RequestTelemetry>) -> ContextLayer {
    let mut seed = [0; 32];
    seed[..16].copy_from_slice(&app.node().random());
    seed[16..].copy_from_slice(&app.node().random());
    ContextLayer::new(Arc::new(Entropy::seeded(seed)), request_telemetry)
}

/// The prefix of every path of the API.
pub(crate) const BASE: &str = "/api/v1";

/// Routes of the API, written without [`BASE`]. They are not nested under it: that too would be one more boxed service,
/// which cuts and parses the path of every request again.
struct Routes(Router<App>);

impl Routes {
    fn new() -> Self {
        Self(Router::new())
    }

    fn route(self, path: &str, methods: MethodRouter<App>) -> Self {
        Self(Router::route(self.0, &[BASE, path].concat(), methods))
    }

    fn merge(self, others: Self) -> Self {
        Self(self.0.merge(others.0))
    }
}

/// Answers a path without a route with 404, and a request that could not be read with the status that the server's
/// connection has noted.
pub(crate) async fn not_found(unreadable: Option<Extension<Unreadable>>) -> Response {
    match unreadable {
        None => StatusCode::NOT_FOUND.into_response(),
        Some(Extension(Unreadable { status, why: None, .. })) => status.into_response(),
        Some(Extension(Unreadable { status, why: Some(why), .. })) => {
            Problem::new(status, "invalid_request", why).into_response()
        }
    }
}

/// The router of a process that has not reached its store yet: `/healthz` answers, and every other request gets 503.
pub fn starting_router(entropy: Entropy, request_telemetry: Arc<RequestTelemetry>) -> Router {
    let context = ContextLayer::new(Arc::new(entropy), request_telemetry);
    Router::new().route("/healthz", get(probes::healthz)).fallback(probes::refuse_while_starting).layer(context)
}

/// The router of a stopping process: `/healthz` answers, and every other request gets 503.
pub fn stopping_router(app: &App) -> Router {
    let context = context_layer(app, Arc::clone(app.request_telemetry()));
    Router::new().route("/healthz", get(probes::healthz)).fallback(probes::refuse_while_stopping).layer(context)
}

/// Routes of messages, conversations, reviews and events.
fn messaging_routes() -> Routes {
    Routes::new()
        .route("/messages", get(messages::list::get).post(messages::post_message))
        .route(
            "/messages/{id}",
            get(messages::stored::get).patch(messages::amend::edit).delete(messages::amend::delete),
        )
        .route("/messages/{id}/ack", post(messages::amend::acknowledge))
        .route("/messages/{id}/iterations", get(messages::stored::iterations))
        .route("/channels/{channelId}/messages", post(messages::post_to_channel))
        .route("/channels/{id}/events", get(events::of_channel))
        .route("/conversations", get(conversations::list).post(conversations::create))
        .route("/conversations/{id}", get(conversations::get).patch(conversations::update))
        .route(
            "/conversations/{id}/messages",
            get(messages::list::of_conversation).post(messages::post_to_conversation),
        )
        .route("/conversations/{id}/fork", post(conversations::fork::create))
        .route("/conversations/{id}/turns", post(turns::start))
        .route("/conversations/{id}/events", get(events::of_conversation))
        .route("/turns/{id}", get(turns::get))
        .route("/turns/{id}/cancel", post(turns::cancel))
        .route("/reviews", get(reviews::list))
        .route("/reviews/{id}", get(reviews::get))
        .route("/reviews/{id}/wait", get(reviews::wait))
        .route("/reviews/{id}/respond", post(reviews::respond))
        .route("/reviews/{id}/cancel", post(reviews::cancel))
        .route("/attachments", post(attachments::upload::create))
        .route("/attachments/{id}", get(attachments::get))
        .route("/attachments/{id}/content", get(attachments::content::get))
        .route("/contacts", get(contacts::list).post(contacts::save::create))
        .route("/contacts/bulk", post(contacts::save::bulk))
        .route("/contacts/{id}", get(contacts::get).patch(contacts::update).delete(contacts::erase))
        .route("/contacts/{id}/events", get(contacts::events))
        .route(
            "/contacts/{id}/memories",
            get(memories::of_contact).post(memories::add).delete(memories::forget_all_of_contact),
        )
        .route("/contacts/{id}/memories/{memory}", get(memories::get).delete(memories::forget))
        .route("/memories", get(memories::list).delete(memories::forget_all_named))
        .route("/memories/search", post(memories::search))
        .route("/contacts/{id}/conversations", get(contacts::conversations_of))
}

/// Routes of the configuration. Routes with a common handler name their resource and the required scope. The others
/// require [`Admin`], except for `/usage`, which requires [`ReadConfiguration`].
fn configuration_routes() -> Routes {
    Routes::new()
        .route("/channels", get(resource::list::<Channel, ReadConfiguration>).post(channels::create))
        .route(
            "/channels/{id}",
            get(resource::get::<Channel, ReadConfiguration>)
                .patch(channels::update)
                .delete(resource::delete::<Channel, Admin>),
        )
        .route("/channels/{id}/rotate-secret", post(resource::rotate_secret::<Channel, Admin>))
        .route("/webhook-endpoints", get(resource::list::<WebhookEndpoint, Admin>).post(webhooks::create))
        .route(
            "/webhook-endpoints/{id}",
            get(resource::get::<WebhookEndpoint, Admin>)
                .patch(webhooks::update)
                .delete(resource::delete::<WebhookEndpoint, Admin>),
        )
        .route("/webhook-endpoints/{id}/rotate-secret", post(resource::rotate_secret::<WebhookEndpoint, Admin>))
        .route("/webhook-deliveries", get(deliveries::list))
        .route("/webhook-deliveries/{id}", get(deliveries::get))
        .route("/webhook-deliveries/{id}/retry", post(deliveries::retry))
        .route("/agents", get(resource::list::<Agent, ReadConfiguration>).post(agents::create))
        .route(
            "/agents/{id}",
            get(resource::get::<Agent, ReadConfiguration>).patch(agents::update).delete(agents::delete),
        )
        .route("/api-keys", get(api_keys::list).post(api_keys::create))
        .route("/api-keys/{id}", get(api_keys::get).delete(api_keys::delete))
        .route("/usage", get(usage::get))
        .route("/workspaces", get(workspaces::list).post(workspaces::create))
        .route("/workspaces/{id}", get(workspaces::get))
}
