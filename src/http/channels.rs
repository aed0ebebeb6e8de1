//! `/channels`: where messages come in, and who answers there.

use actors::agent::AGENTS;
use actors::channel::{CHANNELS, Channel, ChannelKind, DELETED_CHANNELS};
use actors::clock::Millis;
use actors::codec;
use actors::id::{Address, ChannelId};
use actors::registry::{Command, RowChange};
use actors::store::Table;
use actors::webhook::RetiredSecret;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::answer::{ignoring, json, located, replayed};
use super::body::{JsonBytes, OptionalJsonBytes};
use super::caller::{Admin, Allowed, Caller, Look};
use super::context::RequestContext;
use super::context::render::internal_error;
use super::idempotency::without_key;
use super::incoming::Incoming;
use super::paging::{Page, PageRequest};
use super::problem::Problem;
use super::query::Query;
use super::resource::{self, ATTEMPTS, Submitted};
use crate::app::App;
use crate::json::path::Path as JsonPath;
use crate::json::report::Report;
use crate::secret::webhook_secret;

mod read;
mod view;

use view::ChannelView;

/// A row that must be as it was read.
type Expected = (Table, Bytes, Option<Bytes>);

/// 404: no such channel in the workspace.
#[must_use]
pub fn channel_not_found() -> Problem {
    Problem::not_found("channel_not_found", "this workspace has no such channel")
}

/// `POST /channels`.
///
/// # Errors
/// 400, 409 `channel_exists`, 422.
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
    let new = read::new_channel(&mut incoming, &|ip| app.egress_allow().contains(ip));
    if incoming.report.faults.is_empty()
        && let Some(changes) = resource::repeated(&app, caller.registry(), &with).await?
    {
        return repeat(StatusCode::CREATED, &changes, &incoming.report.ignored);
    }
    let now = app.now();
    let mut channel = Channel {
        id: new.id.clone().unwrap_or_else(|| made_id(&app, now)),
        webhook_secret: secret()?,
        created_at: now,
        ..new.channel
    };
    for _ in 0..ATTEMPTS {
        let mut report = incoming.report.clone();
        let agent = expect_agent(&app, &caller, channel.agent.as_deref(), &mut report).await?;
        let ignored = report.check()?;
        let key = Bytes::copy_from_slice(channel.id.as_bytes());
        let deleted = resource::row(&app, caller.registry(), DELETED_CHANNELS, &channel.id).await?;
        let lives: Option<u32> = deleted.as_ref().map(|row| resource::decode(row)).transpose()?;
        channel.life = lives.map(|before| before.saturating_add(1));
        let changes = vec![RowChange::put(CHANNELS, &key, &codec::encode(&channel))];
        let free = [(CHANNELS, key.clone(), None), (DELETED_CHANNELS, key, deleted)];
        let expected = free.into_iter().chain(agent).collect();
        match resource::submit(&app, caller.registry(), Command { expected, changes }, with).await? {
            Submitted::Done => {
                return Ok(with_secret(StatusCode::CREATED, &channel, &ignored));
            }
            Submitted::Repeat(changes) => return repeat(StatusCode::CREATED, &changes, &ignored),
            Submitted::Unexpected(0) => {
                let detail = format!("the workspace has a channel {} already", channel.id);
                return Err(Problem::conflict("channel_exists", detail));
            }
            // The agent was changed or deleted since it was looked at, or another channel has had the id meanwhile.
            Submitted::Unexpected(_) => {}
        }
    }
    Err(resource::contended())
}

fn made_id(app: &App, now: Millis) -> String {
    ChannelId::new(now, Address::random(app.node().random())).to_string()
}

pub(super) fn secret() -> Result<String, Problem> {
    webhook_secret().map_err(|error| {
        tracing::error!(%error, "no secret can be made");
        internal_error()
    })
}

/// The answer that was given before, secret included: it belongs to that answer.
fn repeat(status: StatusCode, changes: &[RowChange], ignored: &[String]) -> Result<Response, Problem> {
    let channel: Channel = resource::put_into(changes, CHANNELS)?;
    Ok(replayed(with_secret(status, &channel, ignored)))
}

/// An answer that shows the secret; 201 says where what was made is found.
fn with_secret(status: StatusCode, channel: &Channel, ignored: &[String]) -> Response {
    let response = ignoring(json(status, &ChannelView::with_secret(channel)), ignored);
    if status == StatusCode::CREATED { located(response, &format!("/channels/{}", channel.id)) } else { response }
}

/// The agent's row, which must still be there when the channel is stored; a fault where it is not there now.
async fn expect_agent(
    app: &App,
    caller: &Caller,
    agent: Option<&str>,
    report: &mut Report,
) -> Result<Option<Expected>, Problem> {
    let Some(agent) = agent else { return Ok(None) };
    let row = resource::row(app, caller.registry(), AGENTS, agent).await?;
    if row.is_none() {
        report.fault(&JsonPath::ROOT.name("agentId"), "agent_not_found", "this workspace has no such agent");
    }
    Ok(row.map(|row| (AGENTS, Bytes::copy_from_slice(agent.as_bytes()), Some(row))))
}

/// `GET /channels`.
///
/// # Errors
/// 400 for a wrong page.
pub async fn list(
    State(app): State<App>,
    allowed: Allowed<Look>,
    context: RequestContext,
    query: Query,
) -> Result<Response, Problem> {
    let caller = allowed.0;
    let list = format!("workspaces/{}/channels", caller.workspace);
    let request = PageRequest::from_query(&query, &list)?;
    let (rows, next) = resource::page(&app, caller.registry(), CHANNELS, b"", &request).await?;
    let channels: Vec<Channel> = resource::values(&rows)?;
    Ok(Page { data: channels.iter().map(ChannelView::new).collect(), next }.into_response(&list, &context.uri))
}

/// `GET /channels/{id}`.
///
/// # Errors
/// 404 `channel_not_found`.
pub async fn get(State(app): State<App>, allowed: Allowed<Look>, Path(id): Path<String>) -> Result<Response, Problem> {
    let channel: Option<Channel> = resource::find(&app, allowed.0.registry(), CHANNELS, &id).await?;
    let channel = channel.ok_or_else(channel_not_found)?;
    Ok(json(StatusCode::OK, &ChannelView::new(&channel)))
}

/// `PATCH /channels/{id}`: what is given changes.
///
/// # Errors
/// 400, 404 `channel_not_found`.
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
        let row = resource::row(&app, caller.registry(), CHANNELS, &id).await?;
        let stored: Option<Channel> = row.as_ref().map(|row| resource::decode(row)).transpose()?;
        let allow = |ip| app.egress_allow().contains(ip);
        let mut channel = read::changed_channel(stored.as_ref(), &mut incoming, &allow);
        let changed_agent = channel.agent.as_deref().filter(|_| incoming.object.has("agentId"));
        let agent = expect_agent(&app, &caller, changed_agent, &mut incoming.report).await?;
        let ignored = incoming.report.check()?;
        let (Some(row), Some(stored)) = (row, stored) else { return Err(channel_not_found()) };
        if channel == stored {
            return Ok(ignoring(json(StatusCode::OK, &ChannelView::new(&channel)), &ignored));
        }
        channel.updated_at = Some(app.now());
        let key = Bytes::copy_from_slice(id.as_bytes());
        let changes = vec![RowChange::put(CHANNELS, &key, &codec::encode(&channel))];
        let expected = std::iter::once((CHANNELS, key, Some(row))).chain(agent).collect();
        let with = without_key(&context);
        if let Submitted::Done = resource::submit(&app, caller.registry(), Command { expected, changes }, with).await? {
            return Ok(ignoring(json(StatusCode::OK, &ChannelView::new(&channel)), &ignored));
        }
    }
    Err(resource::contended())
}

/// `DELETE /channels/{id}`. Its messages stay stored and have their ids, but are reachable through it no more, nor
/// through another channel that is given its id later.
///
/// # Errors
/// 404 `channel_not_found`.
pub async fn delete(
    State(app): State<App>,
    allowed: Allowed<Admin>,
    Path(id): Path<String>,
    context: RequestContext,
) -> Result<Response, Problem> {
    let entity = allowed.0.registry();
    for _ in 0..ATTEMPTS {
        let row = resource::row(&app, entity, CHANNELS, &id).await?.ok_or_else(channel_not_found)?;
        let life = resource::decode::<Channel>(&row)?.life.unwrap_or_default();
        let expected = vec![(CHANNELS, Bytes::copy_from_slice(id.as_bytes()), Some(row))];
        let deleted = RowChange::put(DELETED_CHANNELS, id.as_bytes(), &codec::encode(&life));
        let changes = vec![RowChange::delete(CHANNELS, id.as_bytes()), deleted];
        let with = without_key(&context);
        if let Submitted::Done = resource::submit(&app, entity, Command { expected, changes }, with).await? {
            return Ok(StatusCode::NO_CONTENT.into_response());
        }
    }
    Err(resource::contended())
}

/// `POST /channels/{id}/rotate-secret`: a new webhook secret, shown in this answer only.
///
/// # Errors
/// 404 `channel_not_found`, 422.
pub async fn rotate_secret(
    State(app): State<App>,
    allowed: Allowed<Admin>,
    Path(id): Path<String>,
    context: RequestContext,
    headers: HeaderMap,
    OptionalJsonBytes(body): OptionalJsonBytes,
) -> Result<Response, Problem> {
    let caller = allowed.0;
    let entity = caller.registry();
    let (with, ignored) = Incoming::bare(&context, &caller, &headers, body.as_ref())?;
    if let Some(changes) = resource::repeated(&app, entity, &with).await? {
        return repeat(StatusCode::OK, &changes, &ignored);
    }
    for _ in 0..ATTEMPTS {
        let row = resource::row(&app, entity, CHANNELS, &id).await?.ok_or_else(channel_not_found)?;
        let stored: Channel = resource::decode(&row)?;
        let now = app.now();
        let retired_secret = Some(RetiredSecret::at(now, stored.webhook_secret));
        let channel = Channel { webhook_secret: secret()?, retired_secret, updated_at: Some(now), ..stored };
        let key = Bytes::copy_from_slice(id.as_bytes());
        let changes = vec![RowChange::put(CHANNELS, &key, &codec::encode(&channel))];
        let expected = vec![(CHANNELS, key, Some(row))];
        match resource::submit(&app, entity, Command { expected, changes }, with).await? {
            Submitted::Done => {
                return Ok(ignoring(json(StatusCode::OK, &ChannelView::with_secret(&channel)), &ignored));
            }
            Submitted::Repeat(changes) => return repeat(StatusCode::OK, &changes, &ignored),
            Submitted::Unexpected(_) => {}
        }
    }
    Err(resource::contended())
}

/// The word for a kind.
#[must_use]
pub fn kind_name(kind: ChannelKind) -> &'static str {
    match kind {
        ChannelKind::Human => "human",
        ChannelKind::Api => "api",
    }
}
