//! `/agents`: agents and their models.

use actors::agent::Agent;
use actors::channel::Channel;
use actors::id::{AgentId, EntityKey};
use actors::registry::{Expect, Registry};
use actors::store::{KeyRange, Table};
use actors::tables::{AGENTS, CHANNELS};
use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Serialize;

use super::body::JsonBytes;
use super::call::Allowed;
use super::caller::Admin;
use super::resource::{self, Change, Resource};
use crate::app::App;
use crate::problem::Problem;
use crate::validation;

mod builtin;
mod read;
mod view;

use view::AgentView;

/// Channels per read while an agent's users are searched.
const CHANNELS_AT_ONCE: usize = 500;

/// 404: no such agent in the workspace.
pub(super) fn agent_not_found() -> Problem {
    Problem::not_found("agent_not_found", "this workspace has no such agent")
}

impl Resource for Agent {
    const TABLE: Table = AGENTS;
    const LIST: &'static str = "agents";

    fn not_found() -> Problem {
        agent_not_found()
    }

    fn taken(&self) -> Problem {
        Problem::conflict("agent_exists", format!("the workspace already has an agent {}", self.id))
    }

    fn id(&self) -> String {
        self.id.clone()
    }

    fn view(&self) -> impl Serialize {
        AgentView::new(self)
    }
}

/// `POST /agents`.
///
/// # Errors
/// 400, 409 `agent_exists`, 422.
pub(super) async fn create(Allowed { call, body, .. }: Allowed<Admin, JsonBytes>) -> Result<Response, Problem> {
    let mut incoming = call.read(&body)?;
    let command_context = incoming.command_context();
    let (id, agent) = read::new_agent(&mut incoming, &|ip| call.app.egress_allow().contains(ip));
    validation::run_deferred(&mut incoming.report, call.caller.address).await?;
    let ignored = incoming.report.check()?;
    let now = call.app.now();
    let id = id.unwrap_or_else(|| resource::new_id(&call.app, AgentId::new));
    let agent = Agent { id, created_at: now, ..agent };
    Ok(resource::create(&call.app, call.caller.registry(), command_context, agent, ignored).await?.created())
}

/// `PATCH /agents/{id}`: changes the given members. A running turn continues with the former agent.
///
/// # Errors
/// 400, 404 `agent_not_found`.
pub(super) async fn update(
    Path(id): Path<String>,
    Allowed { call, body, .. }: Allowed<Admin, JsonBytes>,
) -> Result<Response, Problem> {
    let registry = call.caller.registry();
    let change = || async {
        let mut incoming = call.read_unkeyed(&body)?;
        let before = resource::find::<Agent>(&call.app, registry, &id).await?;
        let stored = before.as_ref().map(|before| &before.value);
        let mut agent = read::changed_agent(stored, &mut incoming, &|ip| call.app.egress_allow().contains(ip));
        validation::run_deferred(&mut incoming.report, call.caller.address).await?;
        let ignored = incoming.report.check()?;
        let before = before.ok_or_else(agent_not_found)?;
        if agent != before.value {
            agent.updated_at = Some(call.app.now());
        }
        Ok(Change::update(before, agent).ignoring(ignored))
    };
    Ok(resource::commit(&call.app, registry, call.without_key(), change).await?.updated())
}

/// `DELETE /agents/{id}`.
///
/// A channel is stored only while its agent exists, and the agent is deleted only if no channel has changed since the
/// search for its users began: so no channel ever lacks its agent, and no agent is missing for a moment.
///
/// # Errors
/// 404 `agent_not_found`, 409 `agent_in_use`.
pub(super) async fn delete(Allowed { call, .. }: Allowed<Admin>, Path(id): Path<String>) -> Result<Response, Problem> {
    let registry = call.caller.registry();
    let forget = || async {
        // First of all: a change during the search leads to another search.
        let seen = call.node().settled_state::<Registry>(registry).await?;
        let before = resource::find::<Agent>(&call.app, registry, &id).await?.ok_or_else(agent_not_found)?;
        match user_of(&call.app, registry, &id).await? {
            Some(channel) => Err(in_use(&channel)),
            None => Ok(Change::delete(before).expecting([Expect::Channels(seen.and_then(|seen| seen.channels_at))])),
        }
    };
    resource::commit(&call.app, registry, call.without_key(), forget).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn in_use(channel: &str) -> Problem {
    Problem::conflict("agent_in_use", format!("the channel {channel} uses this agent; give it another agent first"))
}

/// A channel that uses the agent.
async fn user_of(app: &App, entity: EntityKey, agent: &str) -> Result<Option<String>, Problem> {
    let mut pages = app.node().pages(entity, CHANNELS, KeyRange::default(), CHANNELS_AT_ONCE);
    while let Some(rows) = pages.next().await? {
        for row in &rows {
            let channel: Channel = resource::decode(&row.value)?;
            if channel.agent.as_deref() == Some(agent) {
                return Ok(Some(channel.id));
            }
        }
    }
    Ok(None)
}
