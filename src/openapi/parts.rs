//! Parameters and headers that many routes share, as components of the document.

use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::{Header, Object};

use super::known::STRICT;
use super::shape::{Bounded as _, Detailed as _, boolean, integer, text, word};
use crate::http::idempotency::KEY_HOURS;
use crate::http::paging::{DEFAULT_LIMIT, MAX_LIMIT};
use crate::wire::channel_message::MAX_KEY_CHARS;

/// A parameter that is not required.
pub(super) fn parameter(place: ParameterIn, name: &str, about: &str, shape: Object) -> Parameter {
    ParameterBuilder::new().name(name).parameter_in(place).description(Some(about)).schema(Some(shape)).build()
}

/// Every shared parameter, by the name of its component.
pub(super) fn parameters() -> Vec<(&'static str, Parameter)> {
    [of_keys(), of_head(), of_query()].concat()
}

/// Parameters for idempotency and for the workspace.
fn of_keys() -> Vec<(&'static str, Parameter)> {
    let key = format!(
        "Makes a retry safe: requests with the same key and content get the same response and have one effect, \
         however many retries race. Kept for {KEY_HOURS} hours. Quotes around it are not part of it."
    );
    let old_key = "The same as `Idempotency-Key`, under the name that callers of api channels know. Two different \
                   keys in one request are refused.";
    let key_shape = || text("").least(1).longest(MAX_KEY_CHARS).pattern("^[!-~]+$");
    let workspace = "The workspace of the request. Absent, empty or `null` means the key's own; only operators may \
                     name another one.";
    let header = || ParameterIn::Header;
    vec![
        ("IdempotencyKey", parameter(header(), "Idempotency-Key", &key, key_shape())),
        ("XIdempotencyKey", parameter(header(), "X-Idempotency-Key", old_key, key_shape())),
        ("XWorkspaceId", parameter(header(), "X-Workspace-Id", workspace, text("").longest(64))),
        (
            "XRequestId",
            parameter(
                header(),
                "X-Request-Id",
                "An id for this request: 1 to 128 of `A-Z a-z 0-9 _ . : / + = -`. The server generates one if it is \
                 absent or invalid.",
                text(""),
            ),
        ),
        (
            "Traceparent",
            parameter(header(), "traceparent", "The trace that the request belongs to (W3C Trace Context).", text("")),
        ),
    ]
}

/// Parameters for the form of the answer.
fn of_head() -> Vec<(&'static str, Parameter)> {
    let schemas = word("", &["channel", "conversation"]);
    let header = |name, about, shape| parameter(ParameterIn::Header, name, about, shape);
    let words = [
        (
            "Prefer",
            "Prefer",
            "`wait=N` limits the wait, in seconds; `respond-async` responds with 202 at once (RFC 7240). At most \
             120 seconds for a reply or a turn, 55 for a review, 20 for a copy or an erasure.",
        ),
        ("IfMatch", "If-Match", "The `ETag`, or a message's `checksum`, that the resource must still have."),
        ("IfNoneMatch", "If-None-Match", "The `ETag`s that the client has; 304 if the current one is among them."),
        ("IfModifiedSince", "If-Modified-Since", "304 if the file is not newer; ignored with `If-None-Match`."),
        ("IfUnmodifiedSince", "If-Unmodified-Since", "412 if the file is newer; ignored with `If-Match`."),
        ("Range", "Range", "The range of bytes to return, such as `bytes=0-99`."),
        (
            "IfRange",
            "If-Range",
            "The `ETag` or `Last-Modified` of the file that the client has in part; if it differs, the whole file is \
             returned.",
        ),
        ("LastEventId", "Last-Event-ID", "The sequence of the last event that the client received."),
    ];
    let words = words.map(|(component, name, about)| (component, header(name, about, text(""))));
    let about = "Selects the shape of the body, whatever members it has.";
    words.into_iter().chain([("XMessageSchema", header("X-Message-Schema", about, schemas))]).collect()
}

/// Those of the query.
fn of_query() -> Vec<(&'static str, Parameter)> {
    let limit = integer("", 1, i64::try_from(MAX_LIMIT).ok()).or(DEFAULT_LIMIT);
    let query = || ParameterIn::Query;
    let strict = "`true` refuses unknown members of the body and unknown parameters of the query.";
    vec![
        (STRICT, parameter(query(), "strict", strict, boolean("").or(false))),
        ("Limit", parameter(query(), "limit", "The maximum number of items in a page.", limit)),
        ("Cursor", parameter(query(), "cursor", "The `nextCursor` of the previous page; opaque.", text("").least(1))),
        (
            "Order",
            parameter(query(), "order", "Oldest or newest first, by sequence.", word("", &["asc", "desc"]).or("asc")),
        ),
    ]
}

/// Every response header, by its name; its component has the name without hyphens.
pub(super) const HEADERS: [(&str, &str); 21] = [
    ("X-Request-Id", "The id of the request: the client's own, else a generated one."),
    ("traceparent", "The request's position in its trace (W3C Trace Context)."),
    ("RateLimit-Policy", "How many requests the key may make, and in how many seconds: `\"default\";q=…;w=60`."),
    ("RateLimit", "How many requests remain, and for how many seconds: `\"default\";r=…;t=…`."),
    ("Idempotent-Replayed", "`true` if this is the response of an earlier request with the same idempotency key."),
    ("Preference-Applied", "The preference that was applied: `wait=…` or `respond-async`."),
    ("Location", "The URL of the resource."),
    ("Link", "The next page: `<…>; rel=\"next\"`."),
    (
        "X-Ignored-Fields",
        "Unknown members of the body, and unknown parameters of the query as `?name`, that were ignored.",
    ),
    ("Retry-After", "Seconds to wait before a retry."),
    ("WWW-Authenticate", "How to authenticate: `Bearer`."),
    ("ETag", "The message's checksum, or the version of the resource, in quotes."),
    ("Content-Disposition", "The file's name; the file is to be saved, not displayed."),
    ("Content-Range", "The range and the total size: `bytes 0-9/100`."),
    ("Cache-Control", "Who may cache the response, and for how long without revalidation."),
    ("Vary", "The request header besides the key that selects the response: `accept`."),
    ("Last-Modified", "When the file was uploaded."),
    ("Accept-Ranges", "Range requests are supported: `bytes`."),
    ("X-Content-Type-Options", "Disables content sniffing: `nosniff`."),
    ("Cross-Origin-Resource-Policy", "Pages of other origins may not embed the file: `same-origin`."),
    ("X-Accel-Buffering", "Proxies must not buffer the stream: `no`."),
];

/// The name of a header's component.
pub(super) fn header_component(name: &str) -> String {
    name.split('-').map(|part| part[..1].to_uppercase() + &part[1..]).collect()
}

/// Every response header as a component.
pub(super) fn headers() -> Vec<(String, Header)> {
    let seconds = |name| if name == "Retry-After" { integer("", 0, None) } else { text("") };
    HEADERS
        .iter()
        .map(|(name, about)| {
            let header = HeaderBuilder::new().schema(Some(seconds(*name))).description(Some(*about)).build();
            (header_component(name), header)
        })
        .collect()
}
