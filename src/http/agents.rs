//! `/agents`: who answers, and with which model.

use actors::agent::{AGENTS, Agent};
use actors::channel::{CHANNELS, Channel};
use actors::codec;
use actors::id::{Address, AgentId, EntityKey};
use actors::registry::{Command, RowChange};
use actors::store::{KeyRange, Order};
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::answer::{ignoring, json, located, replayed};
use super::body::JsonBytes;
use super::caller::{Admin, Allowed, Look};
use super::context::RequestContext;
use super::idempotency::without_key;
use super::incoming::Incoming;
use super::paging::{Page, PageRequest};
use super::problem::Problem;
use super::query::Query;
use super::refusal::store_problem;
use super::resource::{self, ATTEMPTS, Submitted};
use crate::app::App;

mod builtin;
mod read;
mod view;

use view::AgentView;

/// Channels looked at in one read while an agent's users are searched for.
const CHANNELS_AT_ONCE: usize = 500;

/// 404: no such agent in the workspace.
#[must_use]
pub fn agent_not_found() -> Problem {
    Problem::not_found("agent_not_found", "this workspace has no such agent")
}

/// `POST /agents`.
///
/// # Errors
/// 400, 409 `agent_exists`, 422.
pub async fn create(
    State(app): State<App>,
    allowed: Allowed<Admin>,
    context: RequestContext,
    headers: HeaderMap,
    JsonBytes(body): JsonBytes,
) -> Result<Response, Problem> {
    let caller = allowed.0;
    let entity = caller.registry();
    let mut incoming = Incoming::read(&context, &headers, Some(&body))?;
    let with = incoming.circumstances(&context, &caller);
    let (id, agent) = read::new_agent(&mut incoming, &|ip| app.egress_allow().contains(ip));
    let ignored = incoming.report.check()?;
    let now = app.now();
    let id = id.unwrap_or_else(|| AgentId::new(now, Address::random(app.node().random())).to_string());
    let agent = Agent { id, created_at: now, ..agent };
    let key = Bytes::copy_from_slice(agent.id.as_bytes());
    let changes = vec![RowChange::put(AGENTS, &key, &codec::encode(&agent))];
    let command = Command { expected: vec![(AGENTS, key, None)], changes };
    match resource::submit(&app, entity, command, with).await? {
        Submitted::Done => Ok(created(&agent, &ignored)),
        Submitted::Repeat(changes) => repeat(&changes, &ignored),
        Submitted::Unexpected(_) => {
            let detail = format!("the workspace has an agent {} already", agent.id);
            Err(Problem::conflict("agent_exists", detail))
        }
    }
}

/// 201, saying where it is found.
fn created(agent: &Agent, ignored: &[String]) -> Response {
    let response = json(StatusCode::CREATED, &AgentView::new(agent));
    ignoring(located(response, &format!("/agents/{}", agent.id)), ignored)
}

/// The answer that was given before.
fn repeat(changes: &[RowChange], ignored: &[String]) -> Result<Response, Problem> {
    let agent: Agent = resource::put_into(changes, AGENTS)?;
    Ok(replayed(created(&agent, ignored)))
}

/// `GET /agents`.
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
    let list = format!("workspaces/{}/agents", caller.workspace);
    let request = PageRequest::from_query(&query, &list)?;
    let (rows, next) = resource::page(&app, caller.registry(), AGENTS, b"", &request).await?;
    let agents: Vec<Agent> = resource::values(&rows)?;
    Ok(Page { data: agents.iter().map(AgentView::new).collect(), next }.into_response(&list, &context.uri))
}

/// `GET /agents/{id}`.
///
/// # Errors
/// 404 `agent_not_found`.
pub async fn get(State(app): State<App>, allowed: Allowed<Look>, Path(id): Path<String>) -> Result<Response, Problem> {
    let agent: Option<Agent> = resource::find(&app, allowed.0.registry(), AGENTS, &id).await?;
    let agent = agent.ok_or_else(agent_not_found)?;
    Ok(json(StatusCode::OK, &AgentView::new(&agent)))
}

/// `PATCH /agents/{id}`: what is given changes. A turn that runs goes on with the agent as it was.
///
/// # Errors
/// 400, 404 `agent_not_found`.
pub async fn change(
    State(app): State<App>,
    allowed: Allowed<Admin>,
    Path(id): Path<String>,
    context: RequestContext,
    headers: HeaderMap,
    JsonBytes(body): JsonBytes,
) -> Result<Response, Problem> {
    let entity = allowed.0.registry();
    for _ in 0..ATTEMPTS {
        let mut incoming = Incoming::read(&context, &headers, Some(&body))?;
        let row = resource::row(&app, entity, AGENTS, &id).await?;
        let stored: Option<Agent> = row.as_ref().map(|row| resource::decode(row)).transpose()?;
        let mut agent = read::changed_agent(stored.as_ref(), &mut incoming, &|ip| app.egress_allow().contains(ip));
        let ignored = incoming.report.check()?;
        let (Some(row), Some(stored)) = (row, stored) else { return Err(agent_not_found()) };
        if agent == stored {
            return Ok(ignoring(json(StatusCode::OK, &AgentView::new(&agent)), &ignored));
        }
        agent.updated_at = Some(app.now());
        let key = Bytes::copy_from_slice(id.as_bytes());
        let changes = vec![RowChange::put(AGENTS, &key, &codec::encode(&agent))];
        let command = Command { expected: vec![(AGENTS, key, Some(row))], changes };
        if let Submitted::Done = resource::submit(&app, entity, command, without_key(&context)).await? {
            return Ok(ignoring(json(StatusCode::OK, &AgentView::new(&agent)), &ignored));
        }
    }
    Err(resource::contended())
}

/// `DELETE /agents/{id}`.
///
/// A channel is stored only while its agent is there, so once the agent is gone no channel can begin to use it. One
/// that began between the search and the deletion is found by a second search, and the agent is put back. (A process
/// that dies right there leaves a channel whose agent is unknown; its turns fail until it gets another agent.)
///
/// # Errors
/// 404 `agent_not_found`, 409 `agent_in_use`.
pub async fn delete(
    State(app): State<App>,
    allowed: Allowed<Admin>,
    Path(id): Path<String>,
    context: RequestContext,
) -> Result<Response, Problem> {
    let entity = allowed.0.registry();
    let key = Bytes::copy_from_slice(id.as_bytes());
    for _ in 0..ATTEMPTS {
        let row = resource::row(&app, entity, AGENTS, &id).await?.ok_or_else(agent_not_found)?;
        if let Some(channel) = user_of(&app, entity, &id).await? {
            return Err(in_use(&channel));
        }
        let changes = vec![RowChange::delete(AGENTS, id.as_bytes())];
        let command = Command { expected: vec![(AGENTS, key.clone(), Some(row.clone()))], changes };
        let Submitted::Done = resource::submit(&app, entity, command, without_key(&context)).await? else { continue };
        let Some(channel) = user_of(&app, entity, &id).await? else {
            return Ok(StatusCode::NO_CONTENT.into_response());
        };
        let changes = vec![RowChange::put(AGENTS, id.as_bytes(), &row)];
        let command = Command { expected: vec![(AGENTS, key, None)], changes };
        // Where another agent took the id meanwhile, the channel has that one.
        resource::submit(&app, entity, command, without_key(&context)).await?;
        return Err(in_use(&channel));
    }
    Err(resource::contended())
}

fn in_use(channel: &str) -> Problem {
    Problem::conflict("agent_in_use", format!("the channel {channel} has this agent; give it another one first"))
}

/// A channel that has the agent.
async fn user_of(app: &App, entity: EntityKey, agent: &str) -> Result<Option<String>, Problem> {
    let mut after = None;
    loop {
        let range = KeyRange { after: after.take(), before: None };
        let rows = app.node().rows(entity, CHANNELS, range, Order::Asc, CHANNELS_AT_ONCE).await;
        let rows = rows.map_err(store_problem)?;
        for row in &rows {
            let channel: Channel = resource::decode(&row.value)?;
            if channel.agent.as_deref() == Some(agent) {
                return Ok(Some(channel.id));
            }
        }
        match rows.last() {
            Some(last) if rows.len() == CHANNELS_AT_ONCE => after = Some(last.key.clone()),
            _ => return Ok(None),
        }
    }
}
