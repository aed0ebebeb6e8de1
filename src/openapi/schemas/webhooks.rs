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
            endpoint().must("secret", text("`whsec_…`; signs deliveries. Shown in this answer only.")).done(),
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
    let enabled = boolean("Whether anything is sent. What happens meanwhile is not.");
    body.members("An endpoint to be made.")
        .of_all(body, "url", address)
        .may(
            "events",
            set(
                body.pick("Which types of events; all by default.", "Which types of events; `null` takes all."),
                named("EventPattern"),
            )
            .least(1)
            .longest(MAX_PATTERNS)
            .nullable(),
        )
        .may("channelId", text("Only what happens on this channel.").least(1).nullable())
        .may("format", format.by_default(body, "standard".into()).nullable())
        .may("enabled", enabled.by_default(body, true.into()).nullable())
}

/// Every word that stands for events of some type.
fn pattern() -> Object {
    let families = EVENT_TYPES.iter().filter_map(|kind| kind.split_once('.'));
    let families: BTreeSet<_> = families.map(|(family, _)| format!("{family}.*")).collect();
    let words: Vec<_> =
        [EVERYTHING].into_iter().chain(families.iter().map(String::as_str)).chain(EVENT_TYPES).collect();
    word("Every event, those of a family, or those of one type.", &words)
}

fn delivery() -> RefOr<Schema> {
    Members::new("An event on its way to a receiver.")
        .must("id", made_id("The delivery.", "del_", 42))
        .must("endpointId", made_id("The endpoint, if it goes to one.", "wh_", 26).nullable())
        .must("receiver", word("Whose URL it goes to.", &["endpoint", "channel", "message", "callback"]))
        .must("eventId", made_id("The event; it is the `webhook-id`.", "evt_", 34))
        .must("eventType", text("What happened."))
        .must("url", text("Where it goes, or went at last; empty where nothing was ever sent."))
        .must("status", word("How it stands.", &["pending", "delivered", "failed"]))
        .must("attempts", list("What was tried, oldest first.", named("WebhookAttempt")).longest(ATTEMPTS_KEPT))
        .must("nextAttemptAt", time("When it is tried again; events go one after the other.").nullable())
        .done()
}

fn attempt() -> RefOr<Schema> {
    Members::new("One try to send an event.")
        .must("at", time("When it began."))
        .must("statusCode", integer("What the receiver answered.", 100, Some(999)).nullable())
        .must("error", text("What went wrong, in one word; see `docs/WEBHOOKS.md`.").nullable())
        .must("durationMs", integer("How long it took.", 0, None))
        .done()
}

fn endpoint() -> Members {
    Members::new("Who is told of a workspace's events.")
        .must("id", made_id("The endpoint.", "wh_", 26))
        .must("url", text("Where events are sent."))
        .must("events", list("Which types of events.", text("")))
        .must("channelId", text("Only what happens on this channel.").nullable())
        .must("format", word("What an event looks like.", &FORMATS))
        .must("enabled", boolean("Whether anything is sent."))
        .must(
            "disabledReason",
            word("Why not: somebody wanted it so, or the receiver answered 410.", &["manual", "gone"]).nullable(),
        )
        .must("createdAt", time("When it was made."))
        .must("updatedAt", time("When it was changed.").nullable())
}
