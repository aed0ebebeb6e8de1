//! A request of an authenticated caller, as its handler gets it.

use std::marker::PhantomData;
use std::sync::Arc;

use actors::directory::CommandContext;
use actors::key::Scope;
use actors::node::Node;
use axum::extract::{FromRequest, FromRequestParts, Request};
use http::request::Parts;
use http::{HeaderMap, StatusCode};

use super::body::RequestBody;
use super::caller::{Caller, RequiredScope};
use super::context::RequestContext;
use super::idempotency::without_key;
use super::query::check_unread_query;
use super::refusal::broken;
use crate::app::App;
use crate::problem::Problem;

/// The head of a request whose caller is known, and what its handler works with.
#[derive(Debug)]
pub struct Call {
    /// The state that all handlers share.
    pub app: App,
    /// The request's key, and the workspace that it works in.
    pub caller: Caller,
    /// The request's id, trace, method and target.
    pub context: RequestContext,
    /// The request's headers.
    pub headers: HeaderMap,
}

impl Call {
    /// Takes the head of a request whose key has the scope `S`. Routes whose handler reads no query have it checked here.
    fn take<S: RequiredScope>(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        // Both are missing only in a router that was built without its layers.
        let caller = parts.extensions.get::<Caller>().ok_or_else(|| broken("a route with a scope has a caller"))?;
        if !S::SCOPES.iter().any(|scope| caller.key.scopes.contains(scope)) {
            return Err(insufficient_scope(S::SCOPES));
        }
        S::check(caller)?;
        let context = parts.extensions.get::<RequestContext>();
        let context = context.ok_or_else(|| broken("every request has a context"))?;
        check_unread_query(context)?;
        Ok(Self {
            app: app.clone(),
            caller: caller.clone(),
            context: context.clone(),
            headers: std::mem::take(&mut parts.headers),
        })
    }

    /// The actors.
    pub(super) fn node(&self) -> &Arc<Node> {
        self.app.node()
    }

    /// The context of a command without idempotency key.
    pub(super) fn without_key(&self) -> CommandContext {
        without_key(&self.context)
    }
}

/// 403: the key has none of the scopes of which the route requires one.
fn insufficient_scope(scopes: &[Scope]) -> Problem {
    let names: Vec<_> = scopes.iter().map(|scope| scope.name()).collect();
    let detail = format!("the key lacks the scope {}", names.join(" or "));
    Problem::new(StatusCode::FORBIDDEN, "insufficient_scope", detail)
}

/// A call whose key has the scope that the route requires, and its body if the handler reads one. The scope is checked
/// before the body is read.
#[derive(Debug)]
pub struct Allowed<S, B = ()> {
    /// The head of the request.
    pub call: Call,
    /// The body, in the form that the handler reads.
    pub body: B,
    scope: PhantomData<S>,
}

impl<S: RequiredScope> FromRequestParts<App> for Allowed<S> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        Ok(Self { call: Call::take::<S>(parts, app)?, body: (), scope: PhantomData })
    }
}

impl<S: RequiredScope, B: RequestBody> FromRequest<App> for Allowed<S, B> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        let (call, body) = {
            let (mut parts, body) = request.into_parts();
            (Call::take::<S>(&mut parts, app)?, body)
        };
        let body = B::read(&call.headers, body, app).await?;
        Ok(Self { call, body, scope: PhantomData })
    }
}
