//! `GET /attachments/{id}/content`: all bytes or a range of them.

use actors::attachment::File;
use actors::clock::Millis;
use actors::trace::names;
use axum::body::Body;
use axum::extract::Path;
use axum::response::Response;
use futures_util::TryStreamExt as _;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};

use super::arrival::{transfer_result, transfer_span};
use super::range::{RequestedRange, requested_range};
use super::{attachment_not_found, disposition, find};
use crate::files::Written;
use crate::http::call::Allowed;
use crate::http::caller::Read;
use crate::http::headers::if_match;
use crate::http::headers::if_none_match::is_known;
use crate::http::refusal::{broken, precondition_failed};
use crate::problem::Problem;
use crate::trace_context::Hex;
use crate::wire::time;

/// Users upload any content; a browser that opens it must neither guess its type nor run it.
const GUARDS: [(HeaderName, &str); 5] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; sandbox"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    // It may be erased, so caches must revalidate; the ETag makes that cheap.
    (header::CACHE_CONTROL, "private, no-cache"),
    (header::ACCEPT_RANGES, "bytes"),
];

/// The validators of a file: its bytes never change.
struct Validators {
    etag: String,
    modified: String,
    created_at: Millis,
}

impl Validators {
    fn of(file: &File, created_at: Millis) -> Self {
        let etag = format!("\"{}\"", Hex(&file.digest[..16]));
        Self { etag, modified: http_date(created_at), created_at }
    }

    /// Whether the file is newer than a client's date, to the second as in HTTP; `None`: that is no date.
    fn newer_than(&self, date: &str) -> Option<bool> {
        let date = time::http_date(date)?;
        Some(i64::try_from(self.created_at.0 / 1_000).is_ok_and(|created| created > date.as_second()))
    }
}

/// An HTTP date; empty past the year 9999.
fn http_date(at: Millis) -> String {
    let timestamp = i64::try_from(at.0).ok().and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok());
    let written =
        timestamp.map(|timestamp| jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&timestamp));
    written.and_then(Result::ok).unwrap_or_default()
}

/// `GET /attachments/{id}/content`.
pub(in crate::http) async fn get(
    Allowed { call, .. }: Allowed<Read>,
    Path(id): Path<String>,
    method: Method,
) -> Result<Response, Problem> {
    let wanted_tags = if_match(&call.headers)?;
    let state = find(&call, &id).await?.ok_or_else(attachment_not_found)?;
    let file = state.ready().ok_or_else(|| broken("a file that is found has arrived"))?;
    let validators = Validators::of(file, state.id.at);
    let given = |name: HeaderName| call.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
    let is_meant = match wanted_tags {
        Some(tags) => tags.holds(validators.etag.trim_matches('"')),
        None => given(header::IF_UNMODIFIED_SINCE).and_then(|date| validators.newer_than(&date)) != Some(true),
    };
    if !is_meant {
        return Err(precondition_failed());
    }
    let is_known = match is_known(&call.headers, &validators.etag) {
        Some(is_known) => is_known,
        None => given(header::IF_MODIFIED_SINCE).and_then(|date| validators.newer_than(&date)) == Some(false),
    };
    if is_known {
        return response(StatusCode::NOT_MODIFIED, file, &validators, Body::empty());
    }
    // A range is only useful to a client that has the rest of this same file; ranges are for GET only (RFC 9110, 14.2).
    let same = given(header::IF_RANGE).is_none_or(|tag| tag == validators.etag || tag == validators.modified);
    let counts = same && method == Method::GET;
    let part = match requested_range(given(header::RANGE).as_deref().filter(|_| counts), file.size) {
        RequestedRange::Full => None,
        RequestedRange::Part(range) => Some(range),
        RequestedRange::Nothing => {
            let detail = format!("the attachment has {} bytes", file.size);
            let all = header_value(&format!("bytes */{}", file.size))?;
            return Err(Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, "range_not_satisfiable", detail)
                .header(header::CONTENT_RANGE, all));
        }
    };
    let (status, length) = match &part {
        None => (StatusCode::OK, file.size),
        Some(range) => (StatusCode::PARTIAL_CONTENT, range.end - range.start),
    };
    let content_range = part.as_ref().map(|range| format!("bytes {}-{}/{}", range.start, range.end - 1, file.size));
    let mut span = transfer_span(&call.app, names::READ);
    let bytes = transfer_result(&mut span, call.app.files().read(&file.storage_key, Written::of(file), part).await)?;
    drop(span);
    let attachment = state.id;
    let bytes = bytes.inspect_err(move |error| tracing::error!(%attachment, %error, "a download was interrupted"));
    let mut response = response(status, file, &validators, Body::from_stream(bytes))?;
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    if let Some(content_range) = content_range {
        let value = header_value(&content_range)?;
        response.headers_mut().insert(header::CONTENT_RANGE, value);
    }
    Ok(response)
}

fn response(status: StatusCode, file: &File, validators: &Validators, body: Body) -> Result<Response, Problem> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    for (name, value) in GUARDS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    for (name, value) in [
        (header::CONTENT_TYPE, file.mime_type.as_str()),
        (header::CONTENT_DISPOSITION, &disposition::attachment(&file.filename)),
        (header::ETAG, &validators.etag),
        (header::LAST_MODIFIED, &validators.modified),
    ] {
        headers.insert(name, header_value(value)?);
    }
    Ok(response)
}

fn header_value(text: &str) -> Result<HeaderValue, Problem> {
    HeaderValue::try_from(text).map_err(|_| broken("what describes a file fits a header"))
}
