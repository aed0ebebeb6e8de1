//! Who asks: authentication, workspace, scope and rate, before a handler or a body is looked at.

use std::marker::PhantomData;
use std::sync::Arc;

use actors::id::{Address, EntityKey};
use actors::key::{ApiKey, KEYS_BY_HASH, Scope};
use actors::workspace::{WORKSPACES, Workspace, address_of};
use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderMap, StatusCode};

use super::context::render::internal_error;
use super::headers::auth::{presented_key, unauthenticated, workspace_forbidden, workspace_id};
use super::problem::Problem;
use super::refusal::store_problem;
use crate::app::App;
use crate::secret::Pepper;

/// The workspace whose admin keys look after the whole installation.
pub const OPERATORS: &str = "default";

/// An authenticated caller.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The key.
    pub key: Arc<ApiKey>,
    /// The workspace that the request is about.
    pub workspace: Arc<str>,
    /// Where it lives.
    pub address: Address,
}

impl Caller {
    /// The workspace's configuration.
    #[must_use]
    pub fn registry(&self) -> EntityKey {
        EntityKey::workspace(self.address)
    }

    /// Whether the key looks after the whole installation.
    #[must_use]
    pub fn is_operator(&self) -> bool {
        is_operator(&self.key)
    }
}

fn is_operator(key: &ApiKey) -> bool {
    key.workspace == OPERATORS && key.scopes.contains(&Scope::Admin)
}

/// The middleware of every route under `/api/v1`.
pub async fn authenticate(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let key = match key_of(&app, request.headers()).await {
        Ok(key) => key,
        Err(problem) => return problem.into_response(),
    };
    let verdict = app.limiter().count(&app.meter(key.id), app.now());
    let mut response = match verdict.admit() {
        Err(problem) => problem.into_response(),
        Ok(()) => match workspace_of(&app, request.headers(), &key).await {
            Err(problem) => problem.into_response(),
            Ok(workspace) => {
                let address = address_of(&workspace);
                request.extensions_mut().insert(Caller { key, workspace, address });
                next.run(request).await
            }
        },
    };
    app.limiter().write(verdict, response.headers_mut());
    response
}

async fn key_of(app: &App, headers: &HeaderMap) -> Result<Arc<ApiKey>, Problem> {
    let hash = app.pepper().hash(presented_key(headers)?);
    let row = app.node().configured::<ApiKey>(EntityKey::INSTALLATION, KEYS_BY_HASH, &hash[..16]).await;
    let key = row.map_err(store_problem)?;
    key.filter(|key| Pepper::same(&hash, &key.hash)).ok_or_else(|| unauthenticated("this key is not known"))
}

async fn workspace_of(app: &App, headers: &HeaderMap, key: &ApiKey) -> Result<Arc<str>, Problem> {
    let Some(chosen) = workspace_id(headers)?.filter(|chosen| *chosen != key.workspace) else {
        return Ok(key.workspace.as_str().into());
    };
    if !is_operator(key) {
        return Err(workspace_forbidden());
    }
    let row = app.node().configured::<Workspace>(EntityKey::INSTALLATION, WORKSPACES, chosen.as_bytes()).await;
    let known = row.map_err(store_problem)?;
    known.map(|workspace| workspace.id.as_str().into()).ok_or_else(workspace_forbidden)
}

/// What a route needs a key to be allowed.
pub trait Needs {
    /// Any of these scopes will do.
    const SCOPES: &'static [Scope];
}

/// Sending messages.
#[derive(Clone, Copy, Debug)]
pub struct Write;
impl Needs for Write {
    const SCOPES: &'static [Scope] = &[Scope::MessagesWrite];
}

/// Reading.
#[derive(Clone, Copy, Debug)]
pub struct Read;
impl Needs for Read {
    const SCOPES: &'static [Scope] = &[Scope::MessagesRead];
}

/// Deciding reviews.
#[derive(Clone, Copy, Debug)]
pub struct Respond;
impl Needs for Respond {
    const SCOPES: &'static [Scope] = &[Scope::ReviewsRespond];
}

/// Configuring.
#[derive(Clone, Copy, Debug)]
pub struct Admin;
impl Needs for Admin {
    const SCOPES: &'static [Scope] = &[Scope::Admin];
}

/// Looking at what is configured.
#[derive(Clone, Copy, Debug)]
pub struct Look;
impl Needs for Look {
    const SCOPES: &'static [Scope] = &[Scope::Admin, Scope::MessagesRead];
}

/// A caller whose key has what the route needs. Stands before the body among a handler's arguments, so that a body
/// is not even read for somebody who may not send it.
#[derive(Clone, Debug)]
pub struct Allowed<N>(pub Caller, pub PhantomData<N>);

impl<N: Needs, S: Sync> FromRequestParts<S> for Allowed<N> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        // Missing only where a router was put together without the middleware.
        let caller = parts.extensions.get::<Caller>().cloned().ok_or_else(internal_error)?;
        if N::SCOPES.iter().any(|scope| caller.key.scopes.contains(scope)) {
            return Ok(Self(caller, PhantomData));
        }
        let names: Vec<_> = N::SCOPES.iter().map(|scope| scope.name()).collect();
        let detail = format!("this needs a key with the scope {}", names.join(" or "));
        Err(Problem::new(StatusCode::FORBIDDEN, "insufficient_scope", detail))
    }
}
