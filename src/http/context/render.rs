//! Rendering errors as `application/problem+json`.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::RequestContext;
use crate::http::BASE;
use crate::http::forwarding::Forwarded;
use crate::problem::Problem;

/// The media type of every error's body.
pub const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// 500, saying nothing of the cause.
#[must_use]
pub fn internal_error() -> Problem {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "the server failed to process this request")
}

/// Gives an error its body; other responses pass through. An error without a [`Problem`] (of the router, of an
/// extractor) gets one by its status and keeps its headers, so that errors have one form. An answer forwarded from
/// another server already has that form. Returns the code as well.
pub(super) fn render(context: &RequestContext, mut response: Response) -> (Response, Option<&'static str>) {
    let problem = match response.extensions_mut().remove::<Problem>() {
        Some(problem) => problem,
        None if !is_error(response.status()) => return (response, None),
        None if response.headers().get(header::CONTENT_TYPE) == Some(&PROBLEM_JSON) => {
            let code = response.extensions().get::<Forwarded>().and_then(|passed| passed.code);
            return (response, code);
        }
        None => by_status(response.status()),
    };
    let document = ProblemBody { problem: &problem, context, type_uri: format!("/docs/errors/{}", problem.code) };
    // Only numbers, text and JSON values go in; an empty body would still carry the right status.
    let body = serde_json::to_vec(&document).unwrap_or_default();
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    response.headers_mut().insert(header::CONTENT_TYPE, PROBLEM_JSON);
    if matches!(response.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        // A temporary refusal always says when to retry.
        response.headers_mut().entry(header::RETRY_AFTER).or_insert(HeaderValue::from_static("1"));
    }
    *response.body_mut() = Body::from(body);
    (response, Some(problem.code))
}

pub(in crate::http) fn is_error(status: StatusCode) -> bool {
    status.is_client_error() || status.is_server_error()
}

/// The problem for a status that lower layers set without a body.
fn by_status(status: StatusCode) -> Problem {
    let (code, detail) = match status {
        StatusCode::BAD_REQUEST => ("invalid_request", "the request is not valid"),
        StatusCode::UNAUTHORIZED => ("unauthenticated", "a valid key is required"),
        StatusCode::FORBIDDEN => ("forbidden", "this key is not allowed to do that"),
        StatusCode::NOT_FOUND => ("not_found", "no such route"),
        StatusCode::METHOD_NOT_ALLOWED => ("method_not_allowed", "this path does not support the method; see Allow"),
        StatusCode::NOT_ACCEPTABLE => ("not_acceptable", "no accepted media type is available"),
        StatusCode::REQUEST_TIMEOUT => ("request_timeout", "the request did not arrive in time"),
        StatusCode::CONFLICT => ("conflict", "the request conflicts with the current state"),
        StatusCode::PRECONDITION_FAILED => ("precondition_failed", "a precondition of the request failed"),
        StatusCode::PAYLOAD_TOO_LARGE => ("body_too_large", "the body is too large"),
        StatusCode::URI_TOO_LONG => ("uri_too_long", "the request target is too long"),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => ("unsupported_media_type", "the body must be JSON"),
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => ("request_failed", "the request's headers are too large"),
        StatusCode::RANGE_NOT_SATISFIABLE => ("range_not_satisfiable", "the range is outside the content"),
        StatusCode::UNPROCESSABLE_ENTITY => ("invalid_request", "the request is not valid"),
        StatusCode::TOO_MANY_REQUESTS => ("rate_limited", "too many requests"),
        StatusCode::NOT_IMPLEMENTED => ("not_implemented", "this server does not support that"),
        StatusCode::SERVICE_UNAVAILABLE => ("unavailable", "the service is unavailable; retry later"),
        status if status.is_server_error() => return Problem { status, ..internal_error() },
        _ => ("request_failed", "the request was refused"),
    };
    Problem::new(status, code, detail)
}

/// The code in words: the title must be the same for each occurrence of an error, and so must the code.
fn title(code: &str) -> String {
    let mut title = code.replace('_', " ");
    if let Some(first) = title.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    title
}

/// Whether the request goes to the path whose answers all contain `success`, whatever the method.
fn has_success_member(context: &RequestContext) -> bool {
    let path = context.path().strip_prefix(BASE).and_then(|path| path.strip_prefix("/channels/"));
    let channel = path.and_then(|path| path.strip_suffix("/messages"));
    channel.is_some_and(|id| !id.contains('/'))
}

/// Members that an error has anyway, so no other member may use the name.
const STANDARD: [&str; 9] = ["type", "title", "status", "detail", "instance", "code", "requestId", "errors", "success"];

struct ProblemBody<'a> {
    problem: &'a Problem,
    context: &'a RequestContext,
    type_uri: String,
}

impl Serialize for ProblemBody<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if has_success_member(self.context) {
            map.serialize_entry("success", &false)?;
        }
        map.serialize_entry("type", &self.type_uri)?;
        map.serialize_entry("title", &title(self.problem.code))?;
        map.serialize_entry("status", &self.problem.status.as_u16())?;
        map.serialize_entry("detail", &self.problem.detail)?;
        map.serialize_entry("instance", self.context.path())?;
        map.serialize_entry("code", self.problem.code)?;
        map.serialize_entry("requestId", self.context.request_id.as_str())?;
        if !self.problem.faults.is_empty() {
            map.serialize_entry("errors", self.problem.listed_faults())?;
        }
        for (name, value) in self.problem.extra.iter().filter(|(name, _)| !STANDARD.contains(name)) {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}
