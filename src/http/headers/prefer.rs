//! `Prefer` (RFC 7240): how long a client wants to wait.

use std::time::Duration;

use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::wire::digits::digits;

/// The header that carries preferences.
pub const PREFER: HeaderName = HeaderName::from_static("prefer");
/// The header that names the preference applied by an answer.
pub const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// The preferences that this service knows. Others, and malformed ones, are ignored, as the RFC requires.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prefer {
    /// The longest a synchronous answer may take, in seconds; not bounded here.
    pub wait: Option<u32>,
    /// Whether the client wants 202 at once.
    pub respond_async: bool,
}

impl Prefer {
    /// The wait that the client asks for, in seconds, at most `most`; `None` if it names none, or wants 202 at once.
    #[must_use]
    pub fn explicit_wait(self, most: u32) -> Option<u32> {
        self.wait.filter(|_| !self.respond_async).map(|wait| wait.min(most))
    }

    /// How long to wait for background work: as preferred, at most `most`.
    #[must_use]
    pub fn max_wait(self, most: Duration) -> Duration {
        match self.wait {
            _ if self.respond_async => Duration::ZERO,
            Some(wait) => most.min(Duration::from_secs(wait.into())),
            None => most,
        }
    }
}

/// Reads all `Prefer` headers as one list. Of a repeated preference, the first counts.
#[must_use]
pub fn prefer(headers: &HeaderMap) -> Prefer {
    let mut prefer = Prefer::default();
    let mut wait_seen = false;
    for value in headers.get_all(&PREFER).iter().filter_map(|value| value.to_str().ok()) {
        for preference in split_unquoted(value, ',') {
            // A semicolon begins parameters; neither preference has any.
            let Some(preference) = split_unquoted(preference, ';').next() else { continue };
            let (name, word) = preference.split_once('=').unwrap_or((preference, ""));
            let name = name.trim();
            let word = unquoted(word.trim());
            if name.eq_ignore_ascii_case("respond-async") {
                prefer.respond_async = true;
            } else if name.eq_ignore_ascii_case("wait") && !wait_seen {
                wait_seen = true;
                prefer.wait = seconds(word);
            }
        }
    }
    prefer
}

/// Names the applied preference in an answer.
#[must_use]
pub fn applying(mut response: Response, preference: Option<String>) -> Response {
    if let Some(value) = preference.and_then(|preference| HeaderValue::try_from(preference).ok()) {
        response.headers_mut().insert(PREFERENCE_APPLIED, value);
    }
    response
}

/// A number that overflows counts as the largest one.
fn seconds(word: &str) -> Option<u32> {
    digits(word).map(|seconds| u32::try_from(seconds).unwrap_or(u32::MAX))
}

fn unquoted(word: &str) -> &str {
    word.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(word)
}

/// Splits at separators outside of quotes.
pub(super) fn split_unquoted(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    let mut escaped = false;
    text.split(move |c| {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => {}
        }
        c == separator && !quoted
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn known_preferences_are_read_and_everything_else_is_ignored() {
        for (values, wait, respond_async) in [
            (&[][..], None, false),
            (&["wait=10"], Some(10), false),
            (&["respond-async"], None, true),
            (&["respond-async, wait=10"], Some(10), true),
            (&["Respond-Async", "WAIT = 5"], Some(5), true),
            (&["wait=\"7\""], Some(7), false),
            (&["wait=0"], Some(0), false),
            (&["wait=3; foo=\"a;b\""], Some(3), false),
            (&["foo=\"x, wait=1\", wait=2"], Some(2), false),
            (&["foo=\"\\\", wait=1\", wait=2"], Some(2), false),
            (&["wait=99999999999"], Some(u32::MAX), false),
            (&["wait=4", "wait=5"], Some(4), false),
            (&["wait=+4"], None, false),
            (&["wait=1.5"], None, false),
            (&["wait"], None, false),
            (&["wait=soon"], None, false),
            (&["return=minimal; respond-async, handling=lenient"], None, false),
            (&[",,;=,"], None, false),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(PREFER, HeaderValue::from_static(value));
            }
            assert_eq!(prefer(&headers), Prefer { wait, respond_async }, "{values:?}");
        }
    }
}
