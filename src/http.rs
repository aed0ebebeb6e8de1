//! The front door.

pub mod agents;
pub mod answer;
pub mod api_keys;
pub mod body;
pub mod caller;
pub mod channels;
pub mod contacts;
pub mod context;
pub mod conversations;
pub mod events;
pub mod headers;
pub mod idempotency;
mod incoming;
pub mod messages;
pub mod paging;
pub mod probes;
pub mod problem;
pub mod query;
pub mod rate;
pub mod refusal;
mod resource;
pub mod reviews;
pub mod trace;
pub mod turns;
pub mod workspaces;

use std::sync::Arc;

use actors::clock::Entropy;
use axum::routing::{delete, get, post};
use axum::{Router, middleware};

use crate::app::App;

/// Every route of the API's listener.
///
/// What no route answers needs no handler here: the outermost layer turns a bare 404 or 405 into a problem.
pub fn router(app: App) -> Router {
    let mut seed = [0; 32];
    seed[..16].copy_from_slice(&app.node().random());
    seed[16..].copy_from_slice(&app.node().random());
    let context = context::ContextLayer::new(Arc::new(Entropy::seeded(seed)), app.samples_new_traces());
    let authenticated = middleware::from_fn_with_state(app.clone(), caller::authenticate);
    // The layer is around the fallback too: without a key nobody learns which paths there are.
    let api = config_routes()
        .merge(messages::routes())
        .merge(conversations::routes())
        .merge(contacts::routes())
        .merge(turns::routes())
        .merge(reviews::routes())
        .merge(events::routes())
        .fallback(|| async { http::StatusCode::NOT_FOUND })
        .layer(authenticated);
    Router::new()
        .nest("/api/v1", api)
        .route("/healthz", get(probes::healthz))
        .route("/readyz", get(probes::readyz))
        .merge(crate::openapi::routes())
        .with_state(app)
        .layer(context)
}

/// Channels, agents, keys and workspaces.
pub fn config_routes() -> Router<App> {
    Router::new()
        .route("/channels", get(channels::list).post(channels::create))
        .route("/channels/{id}", get(channels::get).patch(channels::change).delete(channels::delete))
        .route("/channels/{id}/rotate-secret", post(channels::rotate_secret))
        .route("/agents", get(agents::list).post(agents::create))
        .route("/agents/{id}", get(agents::get).patch(agents::change).delete(agents::delete))
        .route("/api-keys", get(api_keys::list).post(api_keys::create))
        .route("/api-keys/{id}", delete(api_keys::delete))
        .route("/workspaces", get(workspaces::list).post(workspaces::create))
        .route("/workspaces/{id}", get(workspaces::get))
}
