//! Webhook requests, one for each type of event.

use actors::webhook::{EVENT_TYPES, MAX_SIGNATURES};
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::path::{OperationBuilder, Parameter, ParameterIn, PathItem, PathsBuilder};
use utoipa::openapi::request_body::{RequestBody, RequestBodyBuilder};
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::{HttpMethod, Object, Paths, RefOr, Required, Schema};

use super::parts::parameter;
use super::schemas::told;
use super::shape::{Bounded as _, Detailed as _, Members, integer, made_id, named, text, time, word};
use crate::trace_context::TRACEPARENT;
use crate::webhooks::{WEBHOOK_ID, WEBHOOK_SIGNATURE, WEBHOOK_TIMESTAMP};

/// The description of each.
const ABOUT: &str = "Sent to each subscriber: an endpoint, a channel's or a message's `webhookUrl`, the callback of a \
                     review. Signed as Standard Webhooks requires, and retried for 72 hours until the receiver \
                     accepts it, so it may arrive twice: `webhook-id` is then the same. In order for each \
                     conversation at an endpoint and at a channel's URL. A callback may ask for `PUT` or `PATCH` \
                     instead of `POST`.";

/// The meaning of answers; of their rest only `Retry-After` is read.
const ANSWERS: [(&str, &str); 3] = [
    ("2XX", "Accepted; the next event follows."),
    ("410", "The receiver wants no more events: the endpoint is disabled; for any other URL this event is given up."),
    (
        "default",
        "Any other status, or no response within 15 seconds: not accepted. Redirects are not followed. The event is \
         retried after increasing pauses, or when `Retry-After` says.",
    ),
];

/// By the type of the event; one without a description is left out.
pub(super) fn all() -> Paths {
    let mut paths = PathsBuilder::new().build();
    for kind in EVENT_TYPES {
        if let Some((about, data)) = told(kind) {
            paths.paths.insert(kind.to_owned(), PathItem::new(HttpMethod::Post, request(kind, about, data)));
        }
    }
    paths
}

fn request(kind: &str, about: &str, data: &str) -> OperationBuilder {
    let operation = OperationBuilder::new()
        .operation_id(Some(operation_id(kind)))
        .summary(Some(about))
        .description(Some(ABOUT))
        .tag("Webhooks")
        .securities(Some(Vec::new()))
        .request_body(Some(body(kind, data)));
    let operation = headers().into_iter().fold(operation, OperationBuilder::parameter);
    ANSWERS.iter().fold(operation, |operation, (status, about)| {
        operation.response(*status, ResponseBuilder::new().description(*about).build())
    })
}

/// `onMessageCreated` for `message.created`.
fn operation_id(kind: &str) -> String {
    let capital =
        |word: &str| word.chars().take(1).map(|c| c.to_ascii_uppercase()).chain(word.chars().skip(1)).collect();
    let words: Vec<String> = kind.split('.').map(capital).collect();
    format!("on{}", words.concat())
}

fn headers() -> Vec<Parameter> {
    let id = made_id("", "evt_", 34);
    let one = "v1,[A-Za-z0-9+/]+={0,2}";
    let signatures = text("").pattern(&format!("^{one}( {one}){{0,{}}}$", MAX_SIGNATURES - 1));
    let header = |name: &str, about, shape: Object, required| {
        let mut header = parameter(ParameterIn::Header, name, about, shape);
        header.required = required;
        header
    };
    vec![
        header(WEBHOOK_ID.as_str(), "The event, the same in every attempt and for every receiver.", id, Required::True),
        header(
            WEBHOOK_TIMESTAMP.as_str(),
            "When it was sent, in seconds since 1970.",
            integer("", 0, None),
            Required::True,
        ),
        header(
            WEBHOOK_SIGNATURE.as_str(),
            "`v1,` and the Base64 of the HMAC-SHA256 over `webhook-id.webhook-timestamp.body`; one for each secret of \
             each receiver at this URL, those of the receiver whose format it has first, the newest first, separated \
             by spaces: eight at most.",
            signatures,
            Required::True,
        ),
        header(
            TRACEPARENT.as_str(),
            "The attempt's own position in a trace, if it is recorded; else the trace of the request that caused the \
             event (W3C Trace Context).",
            text(""),
            Required::False,
        ),
    ]
}

fn body(kind: &str, data: &str) -> RequestBody {
    let content = |schema: RefOr<Schema>| ContentBuilder::new().schema(Some(schema)).build();
    RequestBodyBuilder::new()
        .description(Some("By the `format` of the endpoint; all other receivers get Standard Webhooks."))
        .required(Some(Required::True))
        .content("application/json", content(standard(kind, data)))
        .content("application/cloudevents+json", content(cloud_event(kind, data)))
        .build()
}

fn standard(kind: &str, data: &str) -> RefOr<Schema> {
    Members::new("Standard Webhooks.")
        .must("type", word("The type of the event.", &[kind]))
        .must("timestamp", time("When."))
        .must("data", named(data))
        .done()
}

fn cloud_event(kind: &str, data: &str) -> RefOr<Schema> {
    Members::new("CloudEvents 1.0 in structured mode.")
        .must("specversion", word("", &["1.0"]))
        .must("id", made_id("The event.", "evt_", 34))
        .must("source", text("The log, such as `/api/v1/conversations/conv_…`.").least(1))
        .must("type", word("The type of the event.", &[kind]))
        .must("time", time("When."))
        .may("subject", text("The id of the most specific resource that it is about.").least(1))
        .must("datacontenttype", word("", &["application/json"]))
        .must("sequence", text("Its position in the log.").pattern("^[1-9][0-9]*$"))
        .must("data", named(data))
        .done()
}
