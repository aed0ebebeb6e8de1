//! `/webhook-endpoints`: receivers of a workspace's events. The pending deliveries of a deleted endpoint are dropped.

use actors::clock::Millis;
use actors::id::EndpointId;
use actors::limits;
use actors::registry::Expect;
use actors::store::Table;
use actors::tables::{CHANNELS, WEBHOOK_ENDPOINTS};
use actors::webhook::{WebhookEndpoint, retire};
use axum::extract::Path;
use axum::response::Response;
use serde::Serialize;

use super::body::JsonBytes;
use super::call::{Allowed, Call};
use super::caller::Admin;
use super::resource::{self, Change, HasSecret, Resource};
use crate::http::refusal::channel::channel_not_found;
use crate::problem::Problem;

mod read;
mod view;

pub use read::MAX_PATTERNS;
use view::EndpointView;

/// 404: no such endpoint in the workspace.
fn endpoint_not_found() -> Problem {
    Problem::not_found("endpoint_not_found", "this workspace has no such webhook endpoint")
}

impl Resource for WebhookEndpoint {
    const TABLE: Table = WEBHOOK_ENDPOINTS;
    const LIST: &'static str = "webhook-endpoints";

    fn not_found() -> Problem {
        endpoint_not_found()
    }

    fn limit_reached() -> Problem {
        let detail = format!("a workspace has at most {} webhook endpoints", limits::WEBHOOK_ENDPOINTS);
        Problem::conflict("too_many_endpoints", detail)
    }

    fn id(&self) -> String {
        self.id.to_string()
    }

    fn view(&self) -> impl Serialize {
        EndpointView::new(self)
    }

    fn view_with_secret(&self) -> impl Serialize {
        EndpointView::with_secret(self)
    }
}

impl HasSecret for WebhookEndpoint {
    /// The previous secret also signs for 24 hours.
    fn renewed(self, secret: String, now: Millis) -> Self {
        let before = self.clone();
        let (retired, retired_earlier) = retire(self.secret, self.retired_secret, self.retired_earlier, now);
        Self { secret, retired_secret: Some(retired), retired_earlier, ..self }.changed(&before, now)
    }
}

/// `POST /webhook-endpoints`. Only this answer and that of a rotation show the secret.
///
/// # Errors
/// 400, 404 `channel_not_found`, 409 `too_many_endpoints`, 422.
pub(super) async fn create(Allowed { call, body, .. }: Allowed<Admin, JsonBytes>) -> Result<Response, Problem> {
    let registry = call.caller.registry();
    let mut incoming = call.read(&body)?;
    let command_context = incoming.command_context();
    let new = read::new_endpoint(&mut incoming, &|ip| call.app.egress_allow().contains(ip));
    let ignored = incoming.report.check()?;
    if let Some(first) = resource::repeated::<WebhookEndpoint>(&call.app, registry, &command_context, &ignored).await? {
        return Ok(first.created());
    }
    let now = call.app.now();
    let (at, address) = call.node().new_id();
    let id = EndpointId::new(at, address);
    let endpoint = WebhookEndpoint { id, secret: resource::secret()?, since: now, ..new };
    let make = || async {
        let channel = expect_channel(&call, endpoint.channel.as_deref()).await?;
        Ok(Change::create(endpoint.clone()).expecting(channel).ignoring(ignored.clone()))
    };
    Ok(resource::commit(&call.app, registry, command_context, make).await?.created())
}

/// The row of the subscribed channel, which must still exist when the endpoint is stored.
async fn expect_channel(call: &Call, channel: Option<&str>) -> Result<Option<Expect>, Problem> {
    let Some(id) = channel else { return Ok(None) };
    let row = resource::row(&call.app, call.caller.registry(), CHANNELS, id).await?.ok_or_else(channel_not_found)?;
    Ok(Some(Expect::new(CHANNELS, id.as_bytes(), Some(row))))
}

/// `PATCH /webhook-endpoints/{id}`: changes the given members. Pending events go to the changed endpoint; one that is
/// enabled again gets the events from then on.
///
/// # Errors
/// 400, 404 `endpoint_not_found` or `channel_not_found`.
pub(super) async fn update(
    Path(id): Path<String>,
    Allowed { call, body, .. }: Allowed<Admin, JsonBytes>,
) -> Result<Response, Problem> {
    let registry = call.caller.registry();
    let change = || async {
        let mut incoming = call.read_unkeyed(&body)?;
        let before = resource::find::<WebhookEndpoint>(&call.app, registry, &id).await?;
        let stored = before.as_ref().map(|before| &before.value);
        let now = call.app.now();
        let allow = |ip| call.app.egress_allow().contains(ip);
        let mut endpoint = read::changed_endpoint(stored, &mut incoming, &allow, now);
        let changed_channel = endpoint.channel.as_deref().filter(|_| incoming.object.has("channelId"));
        let ignored = incoming.report.check()?;
        let before = before.ok_or_else(endpoint_not_found)?;
        let channel = expect_channel(&call, changed_channel).await?;
        if endpoint != before.value {
            endpoint = endpoint.changed(&before.value, now);
        }
        Ok(Change::update(before, endpoint).expecting(channel).ignoring(ignored))
    };
    Ok(resource::commit(&call.app, registry, call.without_key(), change).await?.updated())
}
