//! Whether a failed exchange is retried, and when.

use std::time::Duration;

use super::fault::Refused;

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

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::super::fault::Fault;
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn pause(fault: Fault, retry_after: Option<u64>, left: Duration) -> Option<Duration> {
        let refused = Refused { fault, retry_after: retry_after.map(Duration::from_secs) };
        Retries::default().pause(&refused, left)
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
}
