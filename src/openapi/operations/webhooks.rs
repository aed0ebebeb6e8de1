//! Webhook endpoints and deliveries.

use utoipa::openapi::HttpMethod::{Get, Post};

use super::super::examples;
use super::super::operation::OperationDoc;
use super::super::shape::{named, text, word};
use super::configuration::{change, create, delete, get, list};
use super::{ADMIN, id};

const DATA: &[&str] = &["too_short", "too_long", "too_few", "too_many", "invalid_enum", "duplicate_value"];
const URL: &[&str] = &["invalid_url", "blocked_url"];

pub(super) fn operations() -> Vec<OperationDoc> {
    let tag = "Webhooks";
    let rotate =
        "A new secret, shown only in this response. For 24 hours, deliveries also carry a signature of the old one.";
    let all = "/api/v1/webhook-endpoints";
    let one = "/api/v1/webhook-endpoints/{id}";
    vec![
        create(all, ("createWebhookEndpoint", "Create an endpoint"), tag, "WebhookEndpointNew", &[examples::ENDPOINT])
            .answers(201, "The new endpoint.", named("WebhookEndpointWithSecret"), &[])
            .with_headers(&["Location", "Idempotent-Replayed"])
            .refused(400, DATA)
            .refused(400, URL)
            .refused(404, &["channel_not_found"])
            .refused(409, &["too_many_endpoints"]),
        list(all, ("listWebhookEndpoints", "List endpoints"), tag, ADMIN, "WebhookEndpointPage"),
        get(one, ("getWebhookEndpoint", "Read an endpoint"), tag, ADMIN, "WebhookEndpoint")
            .refused(404, &["endpoint_not_found"]),
        change(
            one,
            ("changeWebhookEndpoint", "Change an endpoint"),
            tag,
            "WebhookEndpointChange",
            examples::ENDPOINT_CHANGE,
        )
        .answers(200, "The changed endpoint; pending deliveries go to its new settings.", named("WebhookEndpoint"), &[])
        .refused(400, DATA)
        .refused(400, URL)
        .refused(400, &["immutable_field"])
        .refused(404, &["endpoint_not_found", "channel_not_found"]),
        delete(one, ("deleteWebhookEndpoint", "Delete an endpoint"), tag).refused(404, &["endpoint_not_found"]),
        OperationDoc::new(
            Post,
            "/api/v1/webhook-endpoints/{id}/rotate-secret",
            ("rotateWebhookEndpointSecret", "Rotate the secret"),
            tag,
            ADMIN,
            rotate,
        )
        .path("id", "The endpoint.", id())
        .keyed()
        .empty_body()
        .answers(200, "The endpoint with its new secret.", named("WebhookEndpointWithSecret"), &[])
        .with_headers(&["Idempotent-Replayed"])
        .refused(404, &["endpoint_not_found"])
        .refused(429, &["conversation_backlog"])
        .refused(503, &["contended"]),
        deliveries(tag),
        get(
            "/api/v1/webhook-deliveries/{id}",
            ("getWebhookDelivery", "Read a delivery"),
            tag,
            ADMIN,
            "WebhookDelivery",
        )
        .refused(404, &["delivery_not_found"]),
        retry(tag),
    ]
}

fn deliveries(tag: &'static str) -> OperationDoc {
    let about = "The state of each delivery: first those that have ended, by the time of their event, kept for 30 \
                 days; then pending ones, by endpoint and log.";
    OperationDoc::new(
        Get,
        "/api/v1/webhook-deliveries",
        ("listWebhookDeliveries", "List deliveries"),
        tag,
        ADMIN,
        about,
    )
    .paged()
    .query("status", "Only deliveries with this status.", word("", &["pending", "delivered", "failed"]))
    .query("endpointId", "Only deliveries to this endpoint.", text(""))
    .query("eventId", "Only deliveries of this event: the `webhook-id` that a receiver got.", text(""))
    .refused(400, &["invalid_enum"])
    .answers(200, "A page of deliveries.", named("WebhookDeliveryPage"), &[])
    .with_headers(&["Link"])
}

fn retry(tag: &'static str) -> OperationDoc {
    let about = "A delivery that has ended is sent once more, beside the others and with the same `webhook-id`; a \
                 pending delivery is attempted now. Repeating the request is harmless.";
    let path = "/api/v1/webhook-deliveries/{id}/retry";
    OperationDoc::new(Post, path, ("retryWebhookDelivery", "Retry a delivery"), tag, ADMIN, about)
        .path("id", "The delivery.", id())
        .keyed()
        .empty_body()
        .answers(202, "The delivery, pending again.", named("WebhookDelivery"), &[])
        .with_headers(&["Location", "Idempotent-Replayed"])
        .refused(404, &["delivery_not_found"])
        .refused(409, &["endpoint_deleted"])
        .refused(429, &["conversation_backlog"])
}
