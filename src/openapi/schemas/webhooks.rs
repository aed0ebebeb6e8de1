//! Webhook endpoints and deliveries.

use std::collections::BTreeSet;

use actors::outbox::lane::ATTEMPTS_KEPT;
use actors::webhook::{EVENT_TYPES, EVERYTHING};
use utoipa::openapi::{Object, RefOr, Schema};

use super::super::shape::{
    Body, Bounded as _, Detailed as _, Members, boolean, integer, list, made_id, named, set, text, time, url, word,
};
use super::{Component, page};
use crate::http::webhooks::MAX_PATTERNS;

const FORMATS: [&str; 2] = ["standard", "cloudevents"];

pub(super) fn schemas() -> Vec<Component> {
    vec![
        ("WebhookEndpointNew", settings(Body::New).done()),
        ("WebhookEndpointChange", settings(Body::Change).done()),
        ("EventPattern", pattern().into()),
        ("WebhookEndpoint", endpoint().done()),
        (
            "WebhookEndpointWithSecret",
            endpoint().must("secret", text("`whsec_…`; signs deliveries. Shown only in this response.")).done(),
        ),
        ("WebhookEndpointPage", page("A page of endpoints.", named("WebhookEndpoint"))),
        ("WebhookDelivery", delivery()),
        ("WebhookAttempt", attempt()),
        ("WebhookDeliveryPage", page("A page of deliveries.", named("WebhookDelivery"))),
    ]
}

fn settings(body: Body) -> Members {
    let address = url("Where events are sent. http or https, a public host.");
    let format = word("Standard Webhooks, or CloudEvents 1.0.", &FORMATS);
    let enabled = boolean("Whether events are sent. Events that happen while it is false are not sent later.");
    body.members("The endpoint to create.")
        .of_all(body, "url", address)
        .may(
            "events",
            set(
                body.pick("The types of events; all by default.", "The types of events; `null` means all."),
                named("EventPattern"),
            )
            .least(1)
            .longest(MAX_PATTERNS)
            .nullable(),
        )
        .may("channelId", text("Only events on this channel.").least(1).nullable())
        .may("format", format.by_default(body, "standard".into()).nullable())
        .may("enabled", enabled.by_default(body, true.into()).nullable())
}

/// Every pattern that matches events of some type.
fn pattern() -> Object {
    let families = EVENT_TYPES.iter().filter_map(|kind| kind.split_once('.'));
    let families: BTreeSet<_> = families.map(|(family, _)| format!("{family}.*")).collect();
    let words: Vec<_> =
        [EVERYTHING].into_iter().chain(families.iter().map(String::as_str)).chain(EVENT_TYPES).collect();
    word("Every event, the events of a family, or those of one type.", &words)
}

fn delivery() -> RefOr<Schema> {
    Members::new("The delivery of an event to a receiver.")
        .must("id", made_id("The delivery.", "del_", 42))
        .must("endpointId", made_id("The endpoint, if it goes to an endpoint.", "wh_", 26).nullable())
        .must("receiver", word("The kind of the receiver.", &["endpoint", "channel", "message", "callback"]))
        .must("eventId", made_id("The event; also the `webhook-id`.", "evt_", 34))
        .must("eventType", text("The type of the event."))
        .must("url", text("The URL that it goes to, or last went to; empty if nothing was sent."))
        .must("status", word("Its status.", &["pending", "delivered", "failed"]))
        .must("attempts", list("The attempts, oldest first.", named("WebhookAttempt")).longest(ATTEMPTS_KEPT))
        .must("nextAttemptAt", time("When it is attempted next; events are sent one after the other.").nullable())
        .done()
}

fn attempt() -> RefOr<Schema> {
    Members::new("One attempt to send an event.")
        .must("at", time("When it began."))
        .must("statusCode", integer("The receiver's status.", 100, Some(999)).nullable())
        .must("error", text("The reason of the failure, in one word; see `docs/WEBHOOKS.md`.").nullable())
        .must("durationMs", integer("The duration.", 0, None))
        .done()
}

fn endpoint() -> Members {
    Members::new("A receiver of a workspace's events.")
        .must("id", made_id("The endpoint.", "wh_", 26))
        .must("url", text("Where events are sent."))
        .must("events", list("The types of events.", text("")))
        .must("channelId", text("Only events on this channel.").nullable())
        .must("format", word("The format of an event.", &FORMATS))
        .must("enabled", boolean("Whether events are sent."))
        .must(
            "disabledReason",
            word("Why not: by request, or because the receiver answered 410.", &["manual", "gone"]).nullable(),
        )
        .must("createdAt", time("When the endpoint was created."))
        .must("updatedAt", time("When the endpoint was last changed.").nullable())
}
