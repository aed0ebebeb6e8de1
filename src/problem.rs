//! Errors as clients see them: `application/problem+json` (RFC 9457), with every fault of a request at once.
//!
//! A handler returns a [`Problem`]; it travels in the response's extensions to the outermost layer, which knows the
//! request id and path and writes the body. So every error of every layer has the same form, and an internal cause
//! cannot leak through a `Display`.

use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

/// Faults that an answer lists: more than a full batch can reasonably have, and far fewer than a body could be made to
/// have.
pub const MAX_FAULTS: usize = 1_000;
/// Faults that are kept until the answer: one more than it lists, so that it can say that there are others.
pub const MAX_KEPT_FAULTS: usize = MAX_FAULTS + 1;

/// One fault in the request's data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// JSON Pointer (RFC 6901) into the body; for a query parameter or header its name as the only step.
    pub pointer: String,
    /// The code of the fault, for programs.
    pub code: &'static str,
    /// The fault and what is allowed, for people.
    pub message: String,
}

impl Fault {
    /// A fault at `pointer`.
    pub fn new(pointer: impl Into<String>, code: &'static str, message: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), code, message: message.into() }
    }
}

/// An error answer.
#[derive(Clone, Debug)]
pub struct Problem {
    /// The HTTP status of the answer.
    pub status: StatusCode,
    /// The error's code, for programs; stable, with a page in `docs/errors/`.
    pub code: &'static str,
    /// What happened, for people.
    pub detail: String,
    /// Every fault of the request's data, of very many the first [`MAX_KEPT_FAULTS`]; empty for other errors.
    pub faults: Vec<Fault>,
    /// Headers that belong to this error.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Members besides the standard ones, for example the state that a conflict is about.
    pub extra: Vec<(&'static str, Box<RawValue>)>,
}

impl Problem {
    /// An error without faults.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), faults: Vec::new(), headers: Vec::new(), extra: Vec::new() }
    }

    /// 400 with every fault in the request's data. If all faults have one code it is the problem's code too, otherwise
    /// that is `invalid_request`. Of very many faults the first [`MAX_FAULTS`] are listed, and the detail says that there
    /// are more.
    pub fn invalid(mut faults: Vec<Fault>) -> Self {
        faults.truncate(MAX_KEPT_FAULTS);
        let code = match faults.as_slice() {
            [first, rest @ ..] if rest.iter().all(|fault| fault.code == first.code) => first.code,
            _ => "invalid_request",
        };
        let detail = match faults.as_slice() {
            [only] => only.message.clone(),
            many if many.len() > MAX_FAULTS => {
                format!("the request has more than {MAX_FAULTS} faults; errors lists the first {MAX_FAULTS}")
            }
            several => format!("the request has {} faults; see errors", several.len()),
        };
        Self { faults, ..Self::new(StatusCode::BAD_REQUEST, code, detail) }
    }

    /// The faults that the answer lists.
    #[must_use]
    pub fn listed_faults(&self) -> &[Fault] {
        &self.faults[..self.faults.len().min(MAX_FAULTS)]
    }

    /// 400 with one fault.
    pub fn fault(pointer: impl Into<String>, code: &'static str, message: impl Into<String>) -> Self {
        Self::invalid(vec![Fault::new(pointer, code, message)])
    }

    /// Both of two readings of a request, or the faults of both at once.
    ///
    /// # Errors
    /// The errors of either.
    pub fn both<A, B>(one: Result<A, Self>, other: Result<B, Self>) -> Result<(A, B), Self> {
        match (one, other) {
            (Ok(one), Ok(other)) => Ok((one, other)),
            (Err(one), Err(other)) if !one.faults.is_empty() && !other.faults.is_empty() => {
                Err(Self::invalid([one.faults, other.faults].concat()))
            }
            (Err(problem), _) | (_, Err(problem)) => Err(problem),
        }
    }

    /// 404.
    pub fn not_found(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, detail)
    }

    /// 409.
    pub fn conflict(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, detail)
    }

    /// 503 with `Retry-After` in seconds.
    pub fn unavailable(code: &'static str, detail: impl Into<String>, retry_after: u32) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail).retry_after(retry_after)
    }

    /// 429 with `Retry-After` in seconds.
    pub fn too_many(code: &'static str, detail: impl Into<String>, retry_after: u32) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, code, detail).retry_after(retry_after)
    }

    /// Adds a `Retry-After` in seconds.
    #[must_use]
    pub fn retry_after(self, seconds: u32) -> Self {
        self.header(header::RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Adds a member to the body.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Serialize) -> Self {
        match to_raw_value(&value) {
            Ok(value) => {
                self.extra.retain(|(known, _)| *known != name);
                self.extra.push((name, value));
            }
            // The error is useful without it.
            Err(error) => tracing::error!(%error, name, "a member of an error could not be written as JSON"),
        }
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        for (name, value) in &self.headers {
            response.headers_mut().insert(name, value.clone());
        }
        response.extensions_mut().insert(self);
        response
    }
}
