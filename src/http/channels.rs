//! `/channels`: human channels and api channels.

use actors::channel::{Channel, ChannelKind};
use actors::clock::Millis;
use actors::codec;
use actors::id::ChannelId;
use actors::registry::{Expect, RowChange};
use actors::store::Table;
use actors::tables::{AGENTS, CHANNELS, DELETED_CHANNELS};
use actors::webhook::retire;
use axum::extract::Path;
use axum::response::Response;
use serde::Serialize;

use super::body::JsonBytes;
use super::call::{Allowed, Call};
use super::caller::Admin;
use super::resource::{self, Change, HasSecret, Resource};
use crate::http::refusal::channel::channel_not_found;
use crate::json::path::Path as JsonPath;
use crate::json::report::Report;
use crate::problem::Problem;

mod read;
mod view;

use view::ChannelView;

impl Resource for Channel {
    const TABLE: Table = CHANNELS;
    const LIST: &'static str = "channels";

    fn not_found() -> Problem {
        channel_not_found()
    }

    fn taken(&self) -> Problem {
        Problem::conflict("channel_exists", format!("the workspace already has a channel {}", self.id))
    }

    fn id(&self) -> String {
        self.id.clone()
    }

    /// A deleted channel's messages stay stored and keep their ids, but are no longer reachable through it. The
    /// remaining row counts the channels that have had the id, so that the next one gets no messages of this one.
    fn delete(&self) -> Vec<RowChange> {
        let lives = codec::encode(&self.life.unwrap_or_default());
        vec![RowChange::delete(CHANNELS, &self.key()), RowChange::put(DELETED_CHANNELS, &self.key(), &lives)]
    }

    fn view(&self) -> impl Serialize {
        ChannelView::new(self)
    }

    fn view_with_secret(&self) -> impl Serialize {
        ChannelView::with_secret(self)
    }
}

impl HasSecret for Channel {
    fn renewed(self, secret: String, now: Millis) -> Self {
        let before = self.clone();
        let (retired, retired_earlier) = retire(self.webhook_secret, self.retired_secret, self.retired_earlier, now);
        Self { webhook_secret: secret, retired_secret: Some(retired), retired_earlier, ..self }.changed(&before, now)
    }
}

/// `POST /channels`. Only this answer and that of a rotation show the secret.
///
/// # Errors
/// 400, 409 `channel_exists`, 422.
pub(super) async fn create(Allowed { call, body, .. }: Allowed<Admin, JsonBytes>) -> Result<Response, Problem> {
    let registry = call.caller.registry();
    let mut incoming = call.read(&body)?;
    let command_context = incoming.command_context();
    let new = read::new_channel(&mut incoming, &|ip| call.app.egress_allow().contains(ip));
    let report = incoming.report;
    if report.faults.is_empty()
        && let Some(first) =
            resource::repeated::<Channel>(&call.app, registry, &command_context, &report.ignored).await?
    {
        return Ok(first.created());
    }
    let now = call.app.now();
    let channel = Channel {
        id: new.id.unwrap_or_else(|| resource::new_id(&call.app, ChannelId::new)),
        webhook_secret: resource::secret()?,
        created_at: now,
        ..new.channel
    };
    let make = || async {
        let mut report = report.clone();
        let agent = expect_agent(&call, channel.agent.as_deref(), &mut report).await?;
        let ignored = report.check()?;
        let deleted = resource::row(&call.app, registry, DELETED_CHANNELS, &channel.id).await?;
        let lives: Option<u32> = deleted.as_ref().map(|row| resource::decode(row)).transpose()?;
        let channel = Channel { life: lives.map(|before| before.saturating_add(1)), ..channel.clone() };
        let deleted = Expect::new(DELETED_CHANNELS, &channel.key(), deleted);
        Ok(Change::create(channel).expecting([deleted]).expecting(agent).ignoring(ignored))
    };
    Ok(resource::commit(&call.app, registry, command_context, make).await?.created())
}

/// The agent's row, which must still exist when the channel is stored; a fault if it does not exist now.
async fn expect_agent(call: &Call, agent: Option<&str>, report: &mut Report) -> Result<Option<Expect>, Problem> {
    let Some(agent) = agent else { return Ok(None) };
    let row = resource::row(&call.app, call.caller.registry(), AGENTS, agent).await?;
    if row.is_none() {
        report.fault(&JsonPath::ROOT.name("agentId"), "agent_not_found", "names no agent of this workspace");
    }
    Ok(row.map(|row| Expect::new(AGENTS, agent.as_bytes(), Some(row))))
}

/// `PATCH /channels/{id}`: changes the given members.
///
/// # Errors
/// 400, 404 `channel_not_found`.
pub(super) async fn update(
    Path(id): Path<String>,
    Allowed { call, body, .. }: Allowed<Admin, JsonBytes>,
) -> Result<Response, Problem> {
    let registry = call.caller.registry();
    let change = || async {
        let mut incoming = call.read_unkeyed(&body)?;
        let before = resource::find::<Channel>(&call.app, registry, &id).await?;
        let stored = before.as_ref().map(|before| &before.value);
        let mut channel = read::changed_channel(stored, &mut incoming, &|ip| call.app.egress_allow().contains(ip));
        let changed_agent = channel.agent.as_deref().filter(|_| incoming.object.has("agentId"));
        let agent = expect_agent(&call, changed_agent, &mut incoming.report).await?;
        let ignored = incoming.report.check()?;
        let before = before.ok_or_else(channel_not_found)?;
        if channel != before.value {
            channel = channel.changed(&before.value, call.app.now());
        }
        Ok(Change::update(before, channel).expecting(agent).ignoring(ignored))
    };
    Ok(resource::commit(&call.app, registry, call.without_key(), change).await?.updated())
}

/// The word for a kind.
fn kind_name(kind: ChannelKind) -> &'static str {
    match kind {
        ChannelKind::Human => "human",
        ChannelKind::Api => "api",
    }
}
