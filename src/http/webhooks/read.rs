//! A webhook endpoint as a client describes it.

use actors::clock::Millis;
use actors::id::{Address, EndpointId};
use actors::webhook::{DisabledReason, EVENT_TYPES, EVERYTHING, Format, WebhookEndpoint, is_pattern};

use super::super::incoming::Incoming;
use super::super::resource::{self, given};
use crate::json::fields::{Fields, Length, Value};
use crate::json::report::Report;
use crate::wire::url::{self, Allow};

/// Patterns of one endpoint; listing every type by name takes fewer.
pub const MAX_PATTERNS: usize = 50;

/// The forms of events, by name.
pub(super) const FORMATS: [(&str, Format); 2] = [("standard", Format::Standard), ("cloudevents", Format::CloudEvents)];

/// Reads the body of `POST /webhook-endpoints`: everything but id, secret and times.
pub(super) fn new_endpoint(incoming: &mut Incoming<'_>, allow: Allow<'_>) -> WebhookEndpoint {
    let mut fields = incoming.fields();
    let mut endpoint = nothing();
    read(&mut endpoint, &mut fields, &mut incoming.report, allow);
    fields.finish(&mut incoming.report);
    endpoint
}

/// Reads the body of `PATCH /webhook-endpoints/{id}` over the stored endpoint. Without one, only the faults matter.
pub(super) fn changed_endpoint(
    stored: Option<&WebhookEndpoint>,
    incoming: &mut Incoming<'_>,
    allow: Allow<'_>,
    now: Millis,
) -> WebhookEndpoint {
    let mut fields = incoming.fields();
    let report = &mut incoming.report;
    let id = stored.map(|endpoint| endpoint.id.to_string());
    resource::immutable(&mut fields, report, "id", id.as_deref());
    let before = stored.cloned().unwrap_or_else(|| WebhookEndpoint { url: "unknown".to_owned(), ..nothing() });
    let mut endpoint = before.clone();
    read(&mut endpoint, &mut fields, report, allow);
    fields.finish(report);
    if before.disabled.is_some() && endpoint.disabled.is_none() {
        endpoint.since = now;
    }
    endpoint
}

fn nothing() -> WebhookEndpoint {
    WebhookEndpoint {
        id: EndpointId::new(Millis(0), Address::default()),
        url: String::new(),
        events: vec![EVERYTHING.to_owned()],
        channel: None,
        format: Format::default(),
        disabled: None,
        secret: String::new(),
        retired_secret: None,
        routed_at: None,
        retired_earlier: None,
        since: Millis(0),
        updated_at: None,
    }
}

/// Reads the changeable members; `null` resets a member to its default.
fn read(endpoint: &mut WebhookEndpoint, fields: &mut Fields<'_>, report: &mut Report, allow: Allow<'_>) {
    match given(fields, "url") {
        None if !endpoint.url.is_empty() => {}
        None | Some(None) => fields.missing(report, "url"),
        Some(Some(value)) => endpoint.url = url::read(&value, report, allow).unwrap_or_default(),
    }
    if let Some(value) = given(fields, "events") {
        let everything = || vec![EVERYTHING.to_owned()];
        endpoint.events = value.and_then(|value| patterns(&value, report)).unwrap_or_else(everything);
    }
    if let Some(value) = given(fields, "channelId") {
        endpoint.channel = value.and_then(|value| value.string(report, Length::chars(1, usize::MAX))).map(Into::into);
    }
    if let Some(value) = given(fields, "format") {
        endpoint.format = value.and_then(|value| value.choice(report, &FORMATS)).unwrap_or_default();
    }
    if let Some(value) = given(fields, "enabled") {
        let enabled = value.and_then(|value| value.boolean(report)).unwrap_or(true);
        endpoint.disabled = if enabled { None } else { endpoint.disabled.or(Some(DisabledReason::Manual)) };
    }
}

fn patterns(value: &Value<'_>, report: &mut Report) -> Option<Vec<String>> {
    let items = value.array(report)?;
    if items.is_empty() {
        report.fault(&value.path, "too_few", "must name at least 1 event type; absent or null means all");
    }
    if items.len() > MAX_PATTERNS {
        report.fault(&value.path, "too_many", format!("must have at most {MAX_PATTERNS} items, has {}", items.len()));
        return None;
    }
    let mut patterns: Vec<String> = Vec::with_capacity(items.len());
    items.each(report, |item, report| {
        let Some(pattern) = item.string(report, Length::ANY) else { return };
        if !is_pattern(&pattern) {
            let types = EVENT_TYPES.join(", ");
            let message = format!("must be {EVERYTHING}, a family such as review.*, or one of {types}");
            report.fault(&item.path, "invalid_enum", message);
        } else if patterns.iter().any(|known| *known == pattern) {
            report.fault(&item.path, "duplicate_value", format!("duplicate {pattern}"));
        } else {
            patterns.push(pattern.into_owned());
        }
    });
    Some(patterns)
}
