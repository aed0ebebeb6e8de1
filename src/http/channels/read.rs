//! A channel as a client describes it.

use actors::channel::{Channel, ChannelKind};
use actors::clock::Millis;
use actors::conversation::BusyPolicy;
use actors::message::Json;

use super::super::incoming::Incoming;
use super::super::resource::{self, given};
use super::kind_name;
use crate::json::fields::{Fields, Length, Value};
use crate::json::report::Report;
use crate::wire::channel_message::review::seconds_open;
use crate::wire::url::{self, Allow};

const KINDS: [(&str, ChannelKind); 2] = [("human", ChannelKind::Human), ("api", ChannelKind::Api)];

/// The busy policies, by name.
pub(super) const BUSY_POLICIES: [(&str, BusyPolicy); 5] = [
    ("queue", BusyPolicy::Queue),
    ("merge", BusyPolicy::Merge),
    ("latest", BusyPolicy::Latest),
    ("reject", BusyPolicy::Reject),
    ("interrupt", BusyPolicy::Interrupt),
];

/// A channel to be created.
pub(super) struct NewChannel {
    /// The id, if the client chose one.
    pub(super) id: Option<String>,
    /// Everything but the id, the secret and the time.
    pub(super) channel: Channel,
}

/// Reads the body of `POST /channels`.
pub(super) fn new_channel(incoming: &mut Incoming<'_>, allow: Allow<'_>) -> NewChannel {
    let mut fields = incoming.fields();
    let report = &mut incoming.report;
    let id = fields.optional("id").and_then(|value| resource::chosen_id(&value, report));
    let kind = fields.required(report, "kind").and_then(|value| value.choice(report, &KINDS));
    let mut channel = Channel { kind: kind.unwrap_or(ChannelKind::Human), ..nothing() };
    read(&mut channel, &mut fields, report, allow);
    fields.finish(report);
    NewChannel { id, channel }
}

/// Reads the body of `PATCH /channels/{id}` over the stored channel. Without one, only the faults matter.
pub(super) fn changed_channel(stored: Option<&Channel>, incoming: &mut Incoming<'_>, allow: Allow<'_>) -> Channel {
    let mut fields = incoming.fields();
    let report = &mut incoming.report;
    resource::immutable(&mut fields, report, "id", stored.map(|channel| channel.id.as_str()));
    resource::immutable(&mut fields, report, "kind", stored.map(|channel| kind_name(channel.kind)));
    let mut channel = stored.cloned().unwrap_or_else(|| Channel { name: "unknown".to_owned(), ..nothing() });
    read(&mut channel, &mut fields, report, allow);
    fields.finish(report);
    channel
}

fn nothing() -> Channel {
    Channel {
        id: String::new(),
        name: String::new(),
        kind: ChannelKind::Human,
        agent: None,
        busy_policy: BusyPolicy::default(),
        enabled: true,
        webhook_url: None,
        webhook_secret: String::new(),
        retired_secret: None,
        routed_at: None,
        retired_earlier: None,
        life: None,
        review_defaults: None,
        review_seconds: None,
        created_at: Millis(0),
        updated_at: None,
    }
}

/// Reads the changeable members; `null` resets a member to its default.
fn read(channel: &mut Channel, fields: &mut Fields<'_>, report: &mut Report, allow: Allow<'_>) {
    resource::read_name(&mut channel.name, fields, report);
    let mut agent_is_wrong = false;
    if let Some(value) = given(fields, "agentId") {
        channel.agent = value.and_then(|value| value.string(report, Length::ANY)).map(Into::into);
        agent_is_wrong = value.is_some() && channel.agent.is_none();
    }
    if channel.kind == ChannelKind::Api && channel.agent.is_none() && !agent_is_wrong {
        report.fault(&fields.path().name("agentId"), "required", "a channel of kind api requires an agent");
    }
    if let Some(value) = given(fields, "busyPolicy") {
        channel.busy_policy = value.and_then(|value| value.choice(report, &BUSY_POLICIES)).unwrap_or_default();
    }
    if let Some(value) = given(fields, "enabled") {
        channel.enabled = value.and_then(|value| value.boolean(report)).unwrap_or(true);
    }
    if let Some(value) = given(fields, "webhookUrl") {
        channel.webhook_url = value.and_then(|value| url::read(&value, report, allow));
    }
    if let Some(value) = given(fields, "reviewDefaults") {
        channel.review_seconds = value.and_then(|value| review_seconds(&value, report));
        let json = |seconds| Json::from_checked(format!("{{\"expiresInSeconds\":{seconds}}}"));
        channel.review_defaults = channel.review_seconds.map(json);
    }
}

fn review_seconds(value: &Value<'_>, report: &mut Report) -> Option<u64> {
    let mut fields = value.object(report)?;
    let seconds = fields.optional("expiresInSeconds").and_then(|value| seconds_open(&value, report));
    fields.finish(report);
    seconds
}
