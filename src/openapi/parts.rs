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

/// What makes a retry safe, and where a request belongs.
fn of_keys() -> Vec<(&'static str, Parameter)> {
    let key = format!(
        "Makes a retry safe: the same key with the same request gets the same answer and has one effect, however many \
         retries race. Kept for {KEY_HOURS} hours. Quotes around it are no part of it."
    );
    let old_key = "The same as `Idempotency-Key`, under the name that callers of api channels know. Two different keys \
                   in one request are refused.";
    let key_shape = || text("").least(1).longest(MAX_KEY_CHARS).pattern("^[!-~]+$");
    let workspace = "The workspace that the request is about. Absent, empty or `null` is the key's own; another one only \
                     for operators.";
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
                "A name for this request: 1 to 128 of `A-Z a-z 0-9 _ . : / + = -`. Made where it is absent or another.",
                text(""),
            ),
        ),
        (
            "Traceparent",
            parameter(header(), "traceparent", "The trace that the request belongs to (W3C Trace Context).", text("")),
        ),
    ]
}

/// How a request is to be answered.
fn of_head() -> Vec<(&'static str, Parameter)> {
    let schemas = word("", &["channel", "conversation"]);
    let header = |name, about, shape| parameter(ParameterIn::Header, name, about, shape);
    let words = [
        ("Prefer", "Prefer", "`wait=N` bounds the wait, in seconds; `respond-async` answers 202 at once (RFC 7240)."),
        ("IfMatch", "If-Match", "The `ETag`, or a message's `checksum`, that it must still have."),
        ("IfNoneMatch", "If-None-Match", "The `ETag`s that the client has; 304 where it is one of them."),
        ("IfModifiedSince", "If-Modified-Since", "304 where it is no newer; counts without `If-None-Match`."),
        ("IfUnmodifiedSince", "If-Unmodified-Since", "412 where it is newer; counts without `If-Match`."),
        ("Range", "Range", "The bytes that are wanted, such as `bytes=0-99`."),
        (
            "IfRange",
            "If-Range",
            "The `ETag` or `Last-Modified` of what the client has a part of; all where it is another.",
        ),
        ("LastEventId", "Last-Event-ID", "The sequence of the last event that was seen."),
    ];
    let words = words.map(|(component, name, about)| (component, header(name, about, text(""))));
    let about = "Says which of the two shapes the body has, whatever members it has.";
    words.into_iter().chain([("XMessageSchema", header("X-Message-Schema", about, schemas))]).collect()
}

/// Those of the query.
fn of_query() -> Vec<(&'static str, Parameter)> {
    let limit = integer("", 1, i64::try_from(MAX_LIMIT).ok()).or(DEFAULT_LIMIT);
    let query = || ParameterIn::Query;
    let strict = "`true` makes unknown members of the body and unknown parameters of the query faults.";
    vec![
        (STRICT, parameter(query(), "strict", strict, boolean("").or(false))),
        ("Limit", parameter(query(), "limit", "Items in a page, at most.", limit)),
        ("Cursor", parameter(query(), "cursor", "The `nextCursor` of the page before; opaque.", text("").least(1))),
        (
            "Order",
            parameter(query(), "order", "Oldest or newest first, by sequence.", word("", &["asc", "desc"]).or("asc")),
        ),
    ]
}

/// Every response header, by its name; its component has the name without hyphens.
pub(super) const HEADERS: [(&str, &str); 21] = [
    ("X-Request-Id", "The request: the client's own name for it, else a new one."),
    ("traceparent", "The request's place in its trace (W3C Trace Context)."),
    ("RateLimit-Policy", "How many requests the key may make, and in how many seconds: `\"default\";q=…;w=60`."),
    ("RateLimit", "How many are left, and for how many seconds: `\"default\";r=…;t=…`."),
    ("Idempotent-Replayed", "`true` where this is the answer of an earlier request with the same idempotency key."),
    ("Preference-Applied", "The preference that the answer goes by: `wait=…` or `respond-async`."),
    ("Location", "Where the thing is."),
    ("Link", "The next page: `<…>; rel=\"next\"`."),
    (
        "X-Ignored-Fields",
        "Members of the body, and parameters of the query as `?name`, that are not known and had no effect.",
    ),
    ("Retry-After", "Seconds after which another try is worth it."),
    ("WWW-Authenticate", "How to authenticate: `Bearer`."),
    ("ETag", "The message's checksum, or the version of what this is, in quotes."),
    ("Content-Disposition", "The file's name, and that it is to be saved and not shown."),
    ("Content-Range", "Which bytes these are, and of how many: `bytes 0-9/100`."),
    ("Cache-Control", "Who may keep it, and for how long without asking again."),
    ("Vary", "Which header of the request it goes by besides the key: `accept`."),
    ("Last-Modified", "When it was uploaded."),
    ("Accept-Ranges", "That stretches can be asked for: `bytes`."),
    ("X-Content-Type-Options", "That nobody guesses what the bytes are: `nosniff`."),
    ("Cross-Origin-Resource-Policy", "That no page from elsewhere embeds it: `same-origin`."),
    ("X-Accel-Buffering", "That a proxy hands a stream on at once: `no`."),
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
