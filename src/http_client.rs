//! The client for servers that an operator or an admin configures: models, embeddings, buckets, receivers of traces
//! over HTTP, other servers of the store. Users' URLs are called by [`egress`](crate::egress). Also what the answers
//! and errors of any server say: `Retry-After`, and the cause of a failure.

use std::error::Error;
use std::time::Duration;

use actors::clock::Millis;
use http::header::InvalidHeaderValue;
use http::{HeaderMap, HeaderValue, header};
use reqwest::ClientBuilder;
use reqwest::redirect::Policy;
use reqwest::retry;

use crate::wire::digits::digits;
use crate::wire::time::http_date;

/// A client without redirects, proxy variables or retries, which trusts the platform's root certificates. Callers add
/// their own settings.
///
/// # Errors
/// If TLS cannot be configured.
pub(crate) fn client() -> Result<ClientBuilder, rustls::Error> {
    Ok(reqwest::Client::builder()
        .tls_backend_preconfigured(crate::tls::client()?)
        .no_proxy()
        .redirect(Policy::none())
        .retry(retry::never())
        .user_agent(crate::USER_AGENT))
}

/// The value of `Authorization` with a secret that no log shows.
///
/// # Errors
/// If the secret is not valid in a header.
pub(crate) fn bearer(secret: &str) -> Result<HeaderValue, InvalidHeaderValue> {
    let mut value = HeaderValue::try_from(format!("Bearer {secret}"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// The pause in `Retry-After`, in either of its forms. A date is compared with the answer's own `Date`, so the two
/// machines' clocks need not agree; without one, with `now`, if given.
pub(crate) fn retry_after(headers: &HeaderMap, now: Option<Millis>) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Some(seconds) = digits(value) {
        // An overflowing number of seconds is longer than any wait.
        return Some(Duration::from_secs(seconds));
    }
    let until = http_date(value)?.as_second();
    let told = headers.get(header::DATE).and_then(|told| http_date(told.to_str().ok()?));
    let now = told.map(|told| told.as_second()).or_else(|| i64::try_from(now?.0 / 1_000).ok())?;
    Some(Duration::from_secs(u64::try_from(until - now).unwrap_or(0)))
}

/// The error below all others: the reason of this machine, such as "Connection refused". `None`: there is no other.
pub(crate) fn root_cause(error: &dyn Error) -> Option<&(dyn Error + 'static)> {
    std::iter::successors(error.source(), |&cause| cause.source()).last()
}

/// An error as a log line shows it: with its root cause, because many errors only say that something failed.
pub(crate) fn described(error: &dyn Error) -> String {
    match root_cause(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// Why a request got no answer; without the URL, which may be a secret.
pub(crate) fn unanswered(error: reqwest::Error) -> String {
    described(&error.without_url())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(retry_after_value: &'static str, date: Option<&'static str>) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static(retry_after_value));
        if let Some(date) = date {
            headers.insert(header::DATE, HeaderValue::from_static(date));
        }
        retry_after(&headers, None)
    }

    #[test]
    fn retry_after_is_read_as_seconds_or_as_a_date() {
        let now = Some("Wed, 21 Oct 2015 07:28:00 GMT");
        assert_eq!(asked("7", None), Some(Duration::from_secs(7)));
        assert_eq!(asked(" 0 ", None), Some(Duration::ZERO));
        assert_eq!(asked("99999999999999999999", None), Some(Duration::from_secs(u64::MAX)));
        assert_eq!(asked("Wed, 21 Oct 2015 07:28:05 GMT", now), Some(Duration::from_secs(5)));
        assert_eq!(asked("Wed, 21 Oct 2015 07:27:05 GMT", now), Some(Duration::ZERO));
        assert_eq!(asked("Wed, 21 Oct 2015 07:28:05 GMT", None), None);
        let headers =
            HeaderMap::from_iter([(header::RETRY_AFTER, HeaderValue::from_static("Wed, 21 Oct 2015 07:28:05 GMT"))]);
        let own = Millis(1_445_412_480_999);
        assert_eq!(retry_after(&headers, Some(own)), Some(Duration::from_secs(5)), "by one's own clock");
        for unreadable in ["", "-1", "1.5", "soon"] {
            assert_eq!(asked(unreadable, now), None, "{unreadable:?}");
        }
    }
}
