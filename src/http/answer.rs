//! Answers, and what several handlers add to them.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::Serialize;

use super::BASE;
use super::context::render::internal_error;
use super::query::Query;
use crate::json::report::MAX_IGNORED;

/// Names the members of a body that were not known and had no effect.
pub const X_IGNORED_FIELDS: HeaderName = HeaderName::from_static("x-ignored-fields");
/// Says that this is the answer of an earlier request with the same idempotency key.
pub const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Headers that an answer usually has; those that say how long it is and when it was made are not kept with it.
const HEADERS: usize = 6;

/// `value` as JSON.
pub fn json<T: Serialize>(status: StatusCode, value: &T) -> Response {
    match serde_json::to_vec(value) {
        Ok(text) => json_text(status, text),
        Err(error) => {
            tracing::error!(%error, "an answer cannot be written as JSON");
            internal_error().into_response()
        }
    }
}

/// An answer whose JSON is written already.
pub fn json_text(status: StatusCode, text: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    // With those that every answer gets on its way out.
    response.headers_mut().reserve(HEADERS);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Bytes that the names of what was ignored may take: many clients and proxies refuse an answer with longer headers.
const IGNORED_BYTES: usize = 4 * 1024;
/// What is escaped in a name: clients may use any for a member; a header may not, and a comma would make two names of
/// one.
const ESCAPED: &AsciiSet = &CONTROLS.add(b' ').add(b',').add(b'%');
/// Stands for the names that have no room.
const AND_OTHERS: &str = "...";

/// The same, naming what was ignored in the request, as far as there is room.
#[must_use]
pub fn ignoring(mut response: Response, ignored: &[String]) -> Response {
    if ignored.is_empty() {
        return response;
    }
    let mut names = String::new();
    for (place, name) in ignored.iter().enumerate() {
        let room = IGNORED_BYTES.saturating_sub(names.len());
        // No name is shorter for being made safe, so one that is too long as it is need not be.
        let name = Some(name)
            .filter(|name| place < MAX_IGNORED && name.len() <= room)
            .map(|name| utf8_percent_encode(name, ESCAPED).to_string());
        names.push_str(if place == 0 { "" } else { ", " });
        let Some(name) = name.filter(|name| name.len() <= room) else {
            names.push_str(AND_OTHERS);
            break;
        };
        names.push_str(&name);
    }
    if let Ok(value) = HeaderValue::try_from(names) {
        response.headers_mut().insert(X_IGNORED_FIELDS, value);
    }
    response
}

/// The same, marked as a replay.
#[must_use]
pub fn replayed(mut response: Response) -> Response {
    response.headers_mut().insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
    response
}

/// When what a request asks for was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// By this request.
    Now,
    /// By an earlier one with the same idempotency key.
    Before,
}

impl When {
    /// The same answer, marked as a replay where it is one.
    #[must_use]
    pub fn told(self, response: Response) -> Response {
        match self {
            Self::Now => response,
            Self::Before => replayed(response),
        }
    }
}

/// The same, saying where what was made is found: a path behind `/api/v1`.
#[must_use]
pub fn located(mut response: Response, path: &str) -> Response {
    if let Ok(location) = HeaderValue::try_from(format!("{BASE}{path}")) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

/// Whether `?strict=true` makes unknown members faults.
#[must_use]
pub fn strict(query: &Query) -> bool {
    query.get("strict").is_some_and(|value| matches!(value, "true" | "1" | ""))
}
