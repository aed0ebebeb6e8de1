//! A webhook endpoint as clients see it.

use actors::id::EndpointId;
use actors::webhook::{DisabledReason, WebhookEndpoint};
use serde::Serialize;

use super::read::FORMATS;
use crate::wire::json_view::AsText;
use crate::wire::time::Time;

/// An endpoint's answer.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EndpointView<'a> {
    id: AsText<EndpointId>,
    url: &'a str,
    events: &'a [String],
    channel_id: Option<&'a str>,
    format: &'static str,
    enabled: bool,
    disabled_reason: Option<&'static str>,
    created_at: Time,
    updated_at: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<&'a str>,
}

impl<'a> EndpointView<'a> {
    /// Without its secret.
    pub(super) fn new(endpoint: &'a WebhookEndpoint) -> Self {
        let format = FORMATS.iter().find(|(_, format)| *format == endpoint.format);
        Self {
            id: AsText(endpoint.id),
            url: &endpoint.url,
            events: &endpoint.events,
            channel_id: endpoint.channel.as_deref(),
            format: format.map_or("standard", |(word, _)| word),
            enabled: endpoint.disabled.is_none(),
            disabled_reason: endpoint.disabled.map(reason_word),
            created_at: Time(endpoint.id.at),
            updated_at: endpoint.updated_at.map(Time),
            secret: None,
        }
    }

    /// With its secret, for the answer that may show it.
    pub(super) fn with_secret(endpoint: &'a WebhookEndpoint) -> Self {
        Self { secret: Some(&endpoint.secret), ..Self::new(endpoint) }
    }
}

/// The word for a reason.
fn reason_word(reason: DisabledReason) -> &'static str {
    match reason {
        DisabledReason::Manual => "manual",
        DisabledReason::Gone => "gone",
    }
}
