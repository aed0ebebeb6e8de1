//! A channel as clients see it.

use actors::channel::Channel;
use serde::Serialize;

use super::kind_name;
use super::read::BUSY_POLICIES;
use crate::wire::json_view::Raw;
use crate::wire::time::Time;

/// A channel's answer.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ChannelView<'a> {
    id: &'a str,
    name: &'a str,
    kind: &'static str,
    agent_id: Option<&'a str>,
    busy_policy: &'static str,
    enabled: bool,
    webhook_url: Option<&'a str>,
    review_defaults: Option<Raw<'a>>,
    created_at: Time,
    updated_at: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    webhook_secret: Option<&'a str>,
}

impl<'a> ChannelView<'a> {
    /// Without its secret.
    pub(super) fn new(channel: &'a Channel) -> Self {
        let policy = BUSY_POLICIES.iter().find(|(_, policy)| *policy == channel.busy_policy);
        Self {
            id: &channel.id,
            name: &channel.name,
            kind: kind_name(channel.kind),
            agent_id: channel.agent.as_deref(),
            busy_policy: policy.map_or("queue", |(word, _)| word),
            enabled: channel.enabled,
            webhook_url: channel.webhook_url.as_deref(),
            review_defaults: channel.review_defaults.as_ref().map(Raw),
            created_at: Time(channel.created_at),
            updated_at: channel.updated_at.map(Time),
            webhook_secret: None,
        }
    }

    /// With its secret, for the answer that may show it.
    pub(super) fn with_secret(channel: &'a Channel) -> Self {
        Self { webhook_secret: Some(&channel.webhook_secret), ..Self::new(channel) }
    }
}
