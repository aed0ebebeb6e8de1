//! The caller: authentication, workspace and rate limit, checked before a handler runs or a body is read; and the
//! scopes, which `call` checks.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use actors::id::{Address, EntityKey};
use actors::key::{ApiKey, Scope};
use actors::store::StoreError;
use actors::workspace::{self, address_of};
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt as _;
use http::HeaderMap;
use tokio::time::timeout;
use tower::{Layer, Service};

use super::call::Call;
use super::headers::auth::{presented_key, unauthenticated, workspace_forbidden, workspace_id};
use super::query::decode;
use super::rate::Verdict;
use crate::app::App;
use crate::keys;
use crate::problem::Problem;

/// An authenticated caller.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The API key.
    pub key: Arc<ApiKey>,
    /// The id of the workspace that the request works in.
    pub workspace: Arc<str>,
    /// The workspace's address.
    pub address: Address,
}

impl Caller {
    /// The workspace's configuration.
    #[must_use]
    pub fn registry(&self) -> EntityKey {
        EntityKey::workspace(self.address)
    }

    /// The conversation with this address in the workspace.
    #[must_use]
    pub fn conversation(&self, address: Address) -> EntityKey {
        EntityKey::conversation(self.address, address)
    }

    /// The contact with this address in the workspace.
    #[must_use]
    pub fn contact(&self, address: Address) -> EntityKey {
        EntityKey::contact(self.address, address)
    }

    /// The attachment with this address in the workspace.
    #[must_use]
    pub fn attachment(&self, address: Address) -> EntityKey {
        EntityKey::attachment(self.address, address)
    }

    /// Whether the key is for the whole installation.
    #[must_use]
    pub fn is_operator(&self) -> bool {
        is_operator(&self.key)
    }
}

fn is_operator(key: &ApiKey) -> bool {
    key.workspace == workspace::DEFAULT && key.scopes.contains(&Scope::Admin)
}

/// Puts [`Authenticated`] around every route under `/api/v1`.
#[derive(Clone, Debug)]
pub struct Authentication(pub App);

impl<S> Layer<S> for Authentication {
    type Service = Authenticated<S>;

    fn layer(&self, inner: S) -> Authenticated<S> {
        Authenticated { app: self.0.clone(), inner }
    }
}

/// Admits requests whose key is known and has quota left, and reports the remaining quota to every caller.
///
/// A key is nearly always cached, so the caller is known without waiting; only a read of the store needs a future of
/// its own.
#[derive(Clone, Debug)]
pub struct Authenticated<S> {
    app: App,
    inner: S,
}

impl<S> Service<Request> for Authenticated<S>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + Unpin,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Authenticating<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        if let Some(identity) = identify(&self.app, request.headers()).now_or_never() {
            return match admit(&self.app, identity, request) {
                Ok((request, verdict)) => {
                    let inner = self.inner.call(request);
                    Authenticating::Admitted { inner, app: self.app.clone(), verdict }
                }
                Err(refused) => Authenticating::Refused(Some(refused)),
            };
        }
        let app = self.app.clone();
        let mut inner = self.inner.clone();
        Authenticating::Reading(Box::pin(async move {
            let identity = identify(&app, request.headers()).await;
            let (mut response, verdict) = match admit(&app, identity, request) {
                Ok((request, verdict)) => (inner.call(request).await?, verdict),
                Err(refused) => return Ok(refused),
            };
            app.limiter().write(verdict, response.headers_mut());
            Ok(response)
        }))
    }
}

/// The answer of an [`Authenticated`] service.
pub enum Authenticating<F> {
    /// The request is admitted.
    Admitted {
        /// Its answer.
        inner: F,
        /// Writes the remaining quota.
        app: App,
        /// The remaining quota.
        verdict: Verdict,
    },
    /// The request is refused, with this answer.
    Refused(Option<Response>),
    /// The store is being read.
    Reading(Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>),
}

impl<F> std::fmt::Debug for Authenticating<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Admitted { .. } => "Admitted",
            Self::Refused(_) => "Refused",
            Self::Reading(_) => "Reading",
        })
    }
}

impl<F: Future<Output = Result<Response, Infallible>> + Unpin> Future for Authenticating<F> {
    type Output = Result<Response, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Admitted { inner, app, verdict } => Pin::new(inner).poll(cx).map_ok(|mut response| {
                app.limiter().write(*verdict, response.headers_mut());
                response
            }),
            // A future that is polled again after its end never completes.
            Self::Refused(refused) => refused.take().map_or(Poll::Pending, |refused| Poll::Ready(Ok(refused))),
            Self::Reading(reading) => reading.as_mut().poll(cx),
        }
    }
}

/// The key and the workspace; a workspace that the key may not use is a fault of its own, after the key's.
type Identity = Result<(Arc<ApiKey>, Result<Arc<str>, Problem>), Problem>;

async fn identify(app: &App, headers: &HeaderMap) -> Identity {
    let key = key_of(app, headers).await?;
    let workspace = workspace_of(app, headers, &key).await;
    Ok((key, workspace))
}

/// Counts the request and passes the caller on with it, or refuses it.
#[expect(clippy::result_large_err, reason = "the error is the answer, and is moved once")]
fn admit(app: &App, identity: Identity, mut request: Request) -> Result<(Request, Verdict), Response> {
    let (key, workspace) = identity.map_err(IntoResponse::into_response)?;
    let now = app.now();
    let verdict = app.limiter().count(&app.meter(key.id, now), now);
    match verdict.admit().and(workspace).and_then(|workspace| has_text(&request).map(|()| workspace)) {
        Ok(workspace) => {
            let address = address_of(&workspace);
            request.extensions_mut().insert(Caller { key, workspace, address });
            Ok((request, verdict))
        }
        Err(problem) => {
            let mut refused = problem.into_response();
            app.limiter().write(verdict, refused.headers_mut());
            Err(refused)
        }
    }
}

/// 404 for a path that is no text, and so names nothing.
fn has_text(request: &Request) -> Result<(), Problem> {
    let path = request.uri().path();
    // Nearly no path has anything to decode.
    if !path.contains('%') || decode(path).is_some() {
        return Ok(());
    }
    Err(Problem::not_found("not_found", "no such route: the path is not percent-encoded UTF-8"))
}

async fn key_of(app: &App, headers: &HeaderMap) -> Result<Arc<ApiKey>, Problem> {
    let hash = app.pepper().hash(presented_key(headers)?);
    let key = keys::by_hash(app.node(), &hash).await?;
    key.ok_or_else(|| unauthenticated("unknown key"))
}

/// Checks that the caller's key is still valid, for requests that began long before their answer.
///
/// # Errors
/// 401 `unauthenticated`.
pub(super) async fn recheck_key(call: &Call) -> Result<(), Problem> {
    match is_valid(&call.app, &call.caller.key).await {
        Some(false) => Err(unauthenticated("the key is no longer valid")),
        Some(true) | None => Ok(()),
    }
}

/// How long such a check may delay its caller.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);

/// Reads the configuration; `None` if the store does not answer in time.
pub(super) async fn read_configuration<T, F: Future<Output = Result<T, StoreError>>>(
    read: impl Fn() -> F,
) -> Option<T> {
    // Nearly always it is cached; on the heap if not.
    let found = match read().now_or_never() {
        Some(found) => found,
        None => Box::pin(timeout(CHECK_TIMEOUT, read())).await.ok()?,
    };
    found.ok()
}

/// Whether a key that was valid before still is; `None` if the store does not answer in time.
pub(super) async fn is_valid(app: &App, key: &ApiKey) -> Option<bool> {
    let found = read_configuration(|| keys::by_hash(app.node(), &key.hash)).await?;
    Some(found.is_some_and(|found| found.id == key.id))
}

async fn workspace_of(app: &App, headers: &HeaderMap, key: &ApiKey) -> Result<Arc<str>, Problem> {
    let Some(chosen) = workspace_id(headers)?.filter(|chosen| *chosen != key.workspace) else {
        return Ok(key.workspace.as_str().into());
    };
    if !is_operator(key) {
        return Err(workspace_forbidden());
    }
    let known = app.node().workspace(chosen).await?;
    known.map(|workspace| workspace.id.as_str().into()).ok_or_else(workspace_forbidden)
}

/// The scopes that a route requires of a key.
pub trait RequiredScope {
    /// Any one of these scopes suffices.
    const SCOPES: &'static [Scope];

    /// What the route requires of a caller besides a scope.
    ///
    /// # Errors
    /// 403 `insufficient_scope`.
    fn check(_: &Caller) -> Result<(), Problem> {
        Ok(())
    }
}

/// Sending messages.
#[derive(Clone, Copy, Debug)]
pub struct Write;
impl RequiredScope for Write {
    const SCOPES: &'static [Scope] = &[Scope::MessagesWrite];
}

/// Reading.
#[derive(Clone, Copy, Debug)]
pub struct Read;
impl RequiredScope for Read {
    const SCOPES: &'static [Scope] = &[Scope::MessagesRead];
}

/// Deciding reviews.
#[derive(Clone, Copy, Debug)]
pub struct Respond;
impl RequiredScope for Respond {
    const SCOPES: &'static [Scope] = &[Scope::ReviewsRespond];
}

/// Configuring.
#[derive(Clone, Copy, Debug)]
pub struct Admin;
impl RequiredScope for Admin {
    const SCOPES: &'static [Scope] = &[Scope::Admin];
}

/// Reading the configuration.
#[derive(Clone, Copy, Debug)]
pub struct ReadConfiguration;
impl RequiredScope for ReadConfiguration {
    const SCOPES: &'static [Scope] = &[Scope::Admin, Scope::MessagesRead];
}
