//! Whether a failed exchange is retried, and when.

use std::time::Duration;

use actors::clock::Millis;
use http::{HeaderMap, header};

use super::fault::Refused;
use crate::wire::time::http_date;

/// How long to wait before the second and last try.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retries {
    /// The pause without a `Retry-After`: a restarting process is often back by then.
    pub(super) usual: Duration,
    /// The longest pause. An endpoint that asks for more is not retried, as it would only refuse again.
    pub(super) longest: Duration,
}

impl Default for Retries {
    fn default() -> Self {
        Self { usual: Duration::from_millis(500), longest: Duration::from_secs(10) }
    }
}

impl Retries {
    /// The pause before the second try; `None` if there is none, with `left` of the call's time remaining.
    pub(super) fn pause(&self, refused: &Refused, left: Duration) -> Option<Duration> {
        let pause = refused.retry_after.unwrap_or(self.usual);
        (refused.fault.is_transient() && pause <= self.longest && pause < left).then_some(pause)
    }
}

/// The pause in `Retry-After`, in either of its forms. A date is compared with the answer's own `Date`, so the two
/// machines' clocks need not agree; without one, with `now`, if given.
pub(crate) fn retry_after(headers: &HeaderMap, now: Option<Millis>) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // An overflowing number of seconds is longer than any wait.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let until = http_date(value)?.as_second();
    let told = headers.get(header::DATE).and_then(|told| http_date(told.to_str().ok()?));
    let now = told.map(|told| told.as_second()).or_else(|| i64::try_from(now?.0 / 1_000).ok())?;
    Some(Duration::from_secs(u64::try_from(until - now).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, StatusCode};

    use super::super::fault::Fault;
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn pause(fault: Fault, retry_after: Option<u64>, left: Duration) -> Option<Duration> {
        let refused = Refused { fault, retry_after: retry_after.map(Duration::from_secs) };
        Retries::default().pause(&refused, left)
    }

    fn asked(retry_after_value: &'static str, date: Option<&'static str>) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static(retry_after_value));
        if let Some(date) = date {
            headers.insert(header::DATE, HeaderValue::from_static(date));
        }
        retry_after(&headers, None)
    }

    #[test]
    fn only_what_passes_is_tried_again() {
        let usual = Some(Retries::default().usual);
        for fault in [Fault::Connect, Fault::RateLimited, Fault::Upstream(StatusCode::BAD_GATEWAY)] {
            assert_eq!(pause(fault, None, MINUTE), usual, "{fault:?}");
        }
        for fault in [
            Fault::Timeout,
            Fault::Unauthorized(StatusCode::FORBIDDEN),
            Fault::BadRequest(StatusCode::NOT_FOUND),
            Fault::Redirect(StatusCode::FOUND),
            Fault::NotJson,
            Fault::TooLarge(1),
            Fault::InvalidReply("was interrupted"),
        ] {
            assert_eq!(pause(fault, Some(0), MINUTE), None, "{fault:?}");
        }
    }

    #[test]
    fn a_wait_is_honoured_up_to_the_longest_and_as_far_as_the_time_goes() {
        let second = Duration::from_secs(1);
        assert_eq!(pause(Fault::RateLimited, Some(0), MINUTE), Some(Duration::ZERO));
        assert_eq!(pause(Fault::RateLimited, Some(10), MINUTE), Some(10 * second));
        assert_eq!(pause(Fault::RateLimited, Some(11), MINUTE), None);
        assert_eq!(pause(Fault::RateLimited, Some(3), 4 * second), Some(3 * second));
        assert_eq!(pause(Fault::RateLimited, Some(4), 4 * second), None);
        assert_eq!(pause(Fault::Connect, None, Duration::ZERO), None);
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
