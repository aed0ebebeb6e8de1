//! Building answers: bodies and headers that several handlers use.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::Serialize;

use super::BASE;
use super::context::RequestInfo;
use super::context::render::internal_error;
use super::query::Query;
use crate::json::report::MAX_IGNORED;

/// Names the unknown members of a body and parameters of a query, which had no effect.
pub const X_IGNORED_FIELDS: HeaderName = HeaderName::from_static("x-ignored-fields");
/// Marks the answer of an earlier request with the same idempotency key.
pub const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Headers that an answer usually has; length and date are not among them.
const USUAL_HEADERS: usize = 6;

/// An answer whose body is `value` as JSON; 500 if that cannot be written.
pub fn json<T: Serialize>(status: StatusCode, value: &T) -> Response {
    match serde_json::to_vec(value) {
        Ok(text) => json_text(status, text),
        Err(error) => {
            tracing::error!(%error, "an answer could not be written as JSON");
            internal_error().into_response()
        }
    }
}

/// An answer whose JSON is already rendered.
pub fn json_text(status: StatusCode, text: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    // Includes the headers that every answer gets on its way out.
    response.headers_mut().reserve(USUAL_HEADERS);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Bytes of the names of ignored members: many clients and proxies refuse an answer with longer headers.
const IGNORED_BYTES: usize = 4 * 1024;
/// The characters escaped in a name: clients may use any for a member; a header may not, and a comma would make two
/// names of one. The mark of a parameter is in no name.
const ESCAPED: &AsciiSet = &CONTROLS.add(b' ').add(b',').add(b'%').add(b'?');
/// Precedes the name of a query parameter.
const PARAMETER: &str = "?";
/// Replaces the names that do not fit.
const AND_OTHERS: &str = "...";
/// Separates two names.
const SEPARATOR: &str = ", ";

/// Names the ignored members of the request's body in a header, as far as there is room.
#[must_use]
pub fn with_ignored_fields(mut response: Response, ignored: &[String]) -> Response {
    name_ignored(&mut response, ignored.iter().map(|name| IgnoredName::Raw("", name)));
    response
}

/// Names the ignored parameters of the query too, before the names already there, as far as there is room.
pub(super) fn name_ignored_parameters(response: &mut Response, request: &RequestInfo) {
    // An unreadable query was refused, unless no handler reads it.
    let Ok(query) = Query::of(request) else { return };
    let before = response.headers_mut().remove(X_IGNORED_FIELDS);
    let before = before.as_ref().and_then(|before| before.to_str().ok());
    let parameters = query.unknown().map(|name| IgnoredName::Raw(PARAMETER, name));
    let members = before.into_iter().flat_map(|before| before.split(SEPARATOR)).map(IgnoredName::Escaped);
    name_ignored(response, parameters.chain(members));
}

/// A name of an ignored member or parameter, for the header.
enum IgnoredName<'a> {
    /// The name as the client wrote it, and the mark that precedes it.
    Raw(&'static str, &'a str),
    /// A name that is already escaped.
    Escaped(&'a str),
}

impl IgnoredName<'_> {
    /// Its form in a header; `None` if that is longer than `room`.
    fn within(&self, room: usize) -> Option<String> {
        let text = match self {
            // Escaping never shortens a name, so one that is too long as it is need not be escaped.
            Self::Raw(_, name) if name.len() > room => return None,
            Self::Raw(mark, name) => format!("{mark}{}", utf8_percent_encode(name, ESCAPED)),
            Self::Escaped(text) => (*text).to_owned(),
        };
        Some(text).filter(|text| text.len() <= room)
    }
}

fn name_ignored<'a>(response: &mut Response, ignored: impl Iterator<Item = IgnoredName<'a>>) {
    let mut names = String::new();
    for (nth, name) in ignored.enumerate() {
        let room = IGNORED_BYTES.saturating_sub(names.len());
        let name = if nth < MAX_IGNORED { name.within(room) } else { None };
        names.push_str(if nth == 0 { "" } else { SEPARATOR });
        let Some(name) = name else {
            names.push_str(AND_OTHERS);
            break;
        };
        names.push_str(&name);
    }
    if names.is_empty() {
        return;
    }
    if let Ok(value) = HeaderValue::try_from(names) {
        response.headers_mut().insert(X_IGNORED_FIELDS, value);
    }
}

/// Marks an answer as that of an earlier request with the same idempotency key.
#[must_use]
pub fn mark_replayed(mut response: Response) -> Response {
    response.headers_mut().insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
    response
}

/// Which request with an idempotency key had the effect that is being answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    /// This request, or one without a key.
    First,
    /// An earlier request with the same key.
    Repeated,
}

impl Replay {
    /// Marks the answer if it repeats that of an earlier request.
    #[must_use]
    pub fn mark(self, response: Response) -> Response {
        match self {
            Self::First => response,
            Self::Repeated => mark_replayed(response),
        }
    }
}

/// What a request did, or an earlier one with its idempotency key.
#[derive(Clone, Copy, Debug)]
pub struct Replayed<T> {
    /// The result.
    pub value: T,
    /// Whose result it is.
    pub replay: Replay,
}

/// Adds the `Location` of the created resource; `path` follows `/api/v1`.
#[must_use]
pub fn with_location(mut response: Response, path: &str) -> Response {
    if let Ok(location) = HeaderValue::try_from(format!("{BASE}{path}")) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}
