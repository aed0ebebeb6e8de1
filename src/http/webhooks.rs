//! `/webhook-endpoints`: who wants to hear of a workspace's events.

use actors::channel::CHANNELS;
use actors::codec;
use actors::directory::Circumstances;
use actors::id::{Address, EndpointId, EntityKey};
use actors::limits;
use actors::registry::{Command, RowChange};
use actors::store::{KeyRange, Order, Table};
use actors::webhook::{RetiredSecret, WEBHOOK_ENDPOINTS, WebhookEndpoint};
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::answer::{ignoring, json, located, replayed};
use super::body::{JsonBytes, OptionalJsonBytes};
use super::caller::{Admin, Allowed, Caller};
use super::channels::{channel_not_found, secret};
use super::context::RequestContext;
use super::idempotency::without_key;
use super::incoming::Incoming;
use super::paging::{Page, PageRequest};
use super::problem::Problem;
use super::query::Query;
use super::refusal::store_problem;
use super::resource::{self, ATTEMPTS, Submitted};
use crate::app::App;

mod read;
mod view;

pub use read::MAX_PATTERNS;
use view::EndpointView;

/// 404: no such endpoint in the workspace.
#[must_use]
pub fn endpoint_not_found() -> Problem {
    Problem::not_found("endpoint_not_found", "this workspace has no such webhook endpoint")
}

/// `POST /webhook-endpoints`. The secret stands in this answer and in that of a rotation only.
///
/// # Errors
/// 400, 404 `channel_not_found`, 409 `too_many_endpoints`, 422.
pub async fn create(
    State(app): State<App>,
    allowed: Allowed<Admin>,
    context: RequestContext,
    headers: HeaderMap,
    JsonBytes(body): JsonBytes,
) -> Result<Response, Problem> {
    let caller = allowed.0;
    let mut incoming = Incoming::read(&context, &headers, Some(&body))?;
    let with = incoming.circumstances(&context, &caller);
    let new = read::new_endpoint(&mut incoming, &|ip| app.egress_allow().contains(ip));
    let ignored = incoming.report.check()?;
    if let Some(changes) = resource::repeated(&app, caller.registry(), &with).await? {
        return repeat(StatusCode::CREATED, &changes, &ignored);
    }
    let now = app.now();
    let id = EndpointId::new(now, Address::random(app.node().random()));
    let endpoint = WebhookEndpoint { id, secret: secret()?, since: now, ..new };
    for _ in 0..ATTEMPTS {
        let channel = expect_channel(&app, &caller, endpoint.channel.as_deref()).await?;
        let rows = app.node().rows(
            caller.registry(),
            WEBHOOK_ENDPOINTS,
            KeyRange::default(),
            Order::Asc,
            limits::WEBHOOK_ENDPOINTS,
        );
        if rows.await.map_err(store_problem)?.len() == limits::WEBHOOK_ENDPOINTS {
            let detail = format!("a workspace has at most {} webhook endpoints", limits::WEBHOOK_ENDPOINTS);
            return Err(Problem::conflict("too_many_endpoints", detail));
        }
        let expected = std::iter::once((WEBHOOK_ENDPOINTS, key_of(&endpoint), None)).chain(channel).collect();
        match submit(&app, &caller, expected, &endpoint, with).await? {
            Submitted::Done => {
                return Ok(with_secret(StatusCode::CREATED, &endpoint, &ignored));
            }
            Submitted::Repeat(changes) => return repeat(StatusCode::CREATED, &changes, &ignored),
            // The channel was changed or deleted since it was looked at.
            Submitted::Unexpected(_) => {}
        }
    }
    Err(resource::contended())
}

/// A row that must be as it was read.
type Expected = (Table, Bytes, Option<Bytes>);

fn key_of(endpoint: &WebhookEndpoint) -> Bytes {
    endpoint.id.to_string().into_bytes().into()
}

async fn submit(
    app: &App,
    caller: &Caller,
    expected: Vec<Expected>,
    endpoint: &WebhookEndpoint,
    with: Circumstances,
) -> Result<Submitted, Problem> {
    let changes = vec![RowChange::put(WEBHOOK_ENDPOINTS, &key_of(endpoint), &codec::encode(endpoint))];
    resource::submit(app, caller.registry(), Command { expected, changes }, with).await
}

/// The answer that was given before, secret included: it belongs to that answer.
fn repeat(status: StatusCode, changes: &[RowChange], ignored: &[String]) -> Result<Response, Problem> {
    let endpoint: WebhookEndpoint = resource::put_into(changes, WEBHOOK_ENDPOINTS)?;
    Ok(replayed(with_secret(status, &endpoint, ignored)))
}

/// An answer that shows the secret; 201 says where what was made is found.
fn with_secret(status: StatusCode, endpoint: &WebhookEndpoint, ignored: &[String]) -> Response {
    let response = ignoring(json(status, &EndpointView::with_secret(endpoint)), ignored);
    if status == StatusCode::CREATED {
        located(response, &format!("/webhook-endpoints/{}", endpoint.id))
    } else {
        response
    }
}

/// The row of the channel that is subscribed to, which must still be there when the endpoint is stored.
async fn expect_channel(app: &App, caller: &Caller, channel: Option<&str>) -> Result<Option<Expected>, Problem> {
    let Some(channel) = channel else { return Ok(None) };
    let row = resource::row(app, caller.registry(), CHANNELS, channel).await?.ok_or_else(channel_not_found)?;
    Ok(Some((CHANNELS, Bytes::copy_from_slice(channel.as_bytes()), Some(row))))
}

async fn find(app: &App, registry: EntityKey, id: &str) -> Result<(Bytes, WebhookEndpoint), Problem> {
    let row = match EndpointId::parse(id) {
        Some(_) => resource::row(app, registry, WEBHOOK_ENDPOINTS, id).await?,
        None => None,
    };
    let row = row.ok_or_else(endpoint_not_found)?;
    let endpoint = resource::decode(&row)?;
    Ok((row, endpoint))
}

/// `GET /webhook-endpoints`.
///
/// # Errors
/// 400 for a wrong page.
pub async fn list(
    State(app): State<App>,
    allowed: Allowed<Admin>,
    context: RequestContext,
    query: Query,
) -> Result<Response, Problem> {
    let caller = allowed.0;
    let list = format!("workspaces/{}/webhook-endpoints", caller.workspace);
    let request = PageRequest::from_query(&query, &list)?;
    let (rows, next) = resource::page(&app, caller.registry(), WEBHOOK_ENDPOINTS, b"", &request).await?;
    let endpoints: Vec<WebhookEndpoint> = resource::values(&rows)?;
    Ok(Page { data: endpoints.iter().map(EndpointView::new).collect(), next }.into_response(&list, &context.uri))
}

/// `GET /webhook-endpoints/{id}`.
///
/// # Errors
/// 404 `endpoint_not_found`.
pub async fn get(State(app): State<App>, allowed: Allowed<Admin>, Path(id): Path<String>) -> Result<Response, Problem> {
    let (_, endpoint) = find(&app, allowed.0.registry(), &id).await?;
    Ok(json(StatusCode::OK, &EndpointView::new(&endpoint)))
}

/// `PATCH /webhook-endpoints/{id}`: what is given changes. What still waits goes to the endpoint as it is then; one
/// that is enabled again gets what happens from then on.
///
/// # Errors
/// 400, 404 `endpoint_not_found` or `channel_not_found`.
pub async fn change(
    State(app): State<App>,
    allowed: Allowed<Admin>,
    Path(id): Path<String>,
    context: RequestContext,
    headers: HeaderMap,
    JsonBytes(body): JsonBytes,
) -> Result<Response, Problem> {
    let caller = allowed.0;
    for _ in 0..ATTEMPTS {
        let mut incoming = Incoming::read(&context, &headers, Some(&body))?;
        let found = match find(&app, caller.registry(), &id).await {
            Ok(found) => Ok(found),
            Err(problem) if problem.status == StatusCode::NOT_FOUND => Err(problem),
            Err(problem) => return Err(problem),
        };
        let (stored, now) = (found.as_ref().ok().map(|(_, endpoint)| endpoint), app.now());
        let allow = |ip| app.egress_allow().contains(ip);
        let mut endpoint = read::changed_endpoint(stored, &mut incoming, &allow, now);
        let changed_channel = endpoint.channel.clone().filter(|_| incoming.object.has("channelId"));
        let ignored = incoming.report.check()?;
        let (row, stored) = found?;
        let channel = expect_channel(&app, &caller, changed_channel.as_deref()).await?;
        if endpoint == stored {
            return Ok(ignoring(json(StatusCode::OK, &EndpointView::new(&endpoint)), &ignored));
        }
        endpoint.updated_at = Some(now);
        let expected = std::iter::once((WEBHOOK_ENDPOINTS, key_of(&endpoint), Some(row))).chain(channel).collect();
        if let Submitted::Done = submit(&app, &caller, expected, &endpoint, without_key(&context)).await? {
            return Ok(ignoring(json(StatusCode::OK, &EndpointView::new(&endpoint)), &ignored));
        }
    }
    Err(resource::contended())
}

/// `DELETE /webhook-endpoints/{id}`. What waits for it is dropped.
///
/// # Errors
/// 404 `endpoint_not_found`.
pub async fn delete(
    State(app): State<App>,
    allowed: Allowed<Admin>,
    Path(id): Path<String>,
    context: RequestContext,
) -> Result<Response, Problem> {
    let entity = allowed.0.registry();
    for _ in 0..ATTEMPTS {
        let (row, endpoint) = find(&app, entity, &id).await?;
        let key = key_of(&endpoint);
        let changes = vec![RowChange::delete(WEBHOOK_ENDPOINTS, &key)];
        let command = Command { expected: vec![(WEBHOOK_ENDPOINTS, key, Some(row))], changes };
        if let Submitted::Done = resource::submit(&app, entity, command, without_key(&context)).await? {
            return Ok(StatusCode::NO_CONTENT.into_response());
        }
    }
    Err(resource::contended())
}

/// `POST /webhook-endpoints/{id}/rotate-secret`: a new secret, shown in this answer only. The one before it signs
/// beside it for 24 hours.
///
/// # Errors
/// 404 `endpoint_not_found`, 422.
pub async fn rotate_secret(
    State(app): State<App>,
    allowed: Allowed<Admin>,
    Path(id): Path<String>,
    context: RequestContext,
    headers: HeaderMap,
    OptionalJsonBytes(body): OptionalJsonBytes,
) -> Result<Response, Problem> {
    let caller = allowed.0;
    let (with, ignored) = Incoming::bare(&context, &caller, &headers, body.as_ref())?;
    if let Some(changes) = resource::repeated(&app, caller.registry(), &with).await? {
        return repeat(StatusCode::OK, &changes, &ignored);
    }
    for _ in 0..ATTEMPTS {
        let (row, stored) = find(&app, caller.registry(), &id).await?;
        let now = app.now();
        let retired_secret = Some(RetiredSecret::at(now, stored.secret));
        let endpoint = WebhookEndpoint { secret: secret()?, retired_secret, updated_at: Some(now), ..stored };
        let expected = vec![(WEBHOOK_ENDPOINTS, key_of(&endpoint), Some(row))];
        match submit(&app, &caller, expected, &endpoint, with).await? {
            Submitted::Done => {
                return Ok(ignoring(json(StatusCode::OK, &EndpointView::with_secret(&endpoint)), &ignored));
            }
            Submitted::Repeat(changes) => return repeat(StatusCode::OK, &changes, &ignored),
            Submitted::Unexpected(_) => {}
        }
    }
    Err(resource::contended())
}
