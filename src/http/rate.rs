//! Rate limits of API keys, and the headers that report them.
//!
//! A fixed window per key in one atomic word: one compare-and-swap per request, no lock, no memory per request. So a
//! key may make up to twice its quota across the edge of two windows; the limit protects the node, which has its own
//! admission behind it, and clients can read a window out of the headers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use actors::clock::Millis;
use actors::id::KeyId;
use dashmap::DashMap;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::problem::Problem;

/// `RateLimit-Policy` of the IETF httpapi draft.
pub const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// `RateLimit` of the IETF httpapi draft.
pub const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// Seconds in one window.
pub const WINDOW_SECONDS: u32 = 60;

/// The usage of one key. One per key, wherever keys are cached; a new one has the whole quota.
#[derive(Debug, Default)]
pub struct Meter(
    /// The window's number in the upper half, the requests made in it in the lower half.
    AtomicU64,
);

impl Meter {
    /// Whether its count no longer matters at `now`.
    fn is_idle(&self, now: Millis) -> bool {
        self.0.load(Ordering::Relaxed) >> 32 < window(now)
    }
}

/// The number of the window that `now` lies in.
fn window(now: Millis) -> u64 {
    (now.0 / 1000 / u64::from(WINDOW_SECONDS)) & u64::from(u32::MAX)
}

/// Meters kept before idle ones are removed; about 100 bytes each.
const MAX_METERS: usize = 100_000;

/// The meters of all keys that are in use. Only keys that exist have one.
#[derive(Debug, Default)]
pub struct Meters(DashMap<KeyId, Arc<Meter>>);

impl Meters {
    /// The meter of a key.
    pub fn of(&self, key: KeyId, now: Millis) -> Arc<Meter> {
        if let Some(meter) = self.0.get(&key) {
            return Arc::clone(&meter);
        }
        if self.0.len() >= MAX_METERS {
            // A counter in use is kept.
            self.0.retain(|_, meter| Arc::strong_count(meter) > 1 || !meter.is_idle(now));
        }
        Arc::clone(&self.0.entry(key).or_default())
    }

    /// The key was revoked.
    pub fn forget(&self, key: KeyId) {
        self.0.remove(&key);
    }
}

/// The limit that holds for every key.
#[derive(Clone, Debug)]
pub struct RateLimiter {
    quota: u32,
    policy: HeaderValue,
}

impl RateLimiter {
    /// Allows `quota` requests per key in [`WINDOW_SECONDS`].
    #[must_use]
    pub fn new(quota: u32) -> Self {
        let text = format!("\"default\";q={quota};w={WINDOW_SECONDS}");
        // Digits and this punctuation are always a header value.
        let policy = HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""));
        Self { quota, policy }
    }

    /// Counts one request of the meter's key at `now`.
    pub fn count(&self, meter: &Meter, now: Millis) -> Verdict {
        let seconds = now.0 / 1000;
        let window = window(now);
        // At most WINDOW_SECONDS, so it fits.
        let reset = WINDOW_SECONDS - (seconds % u64::from(WINDOW_SECONDS)) as u32;
        let mut known = meter.0.load(Ordering::Relaxed);
        loop {
            // A clock that steps back slightly continues in the later window, or every step would grant a new quota. A
            // clock that was far ahead for a moment must not lock a key out until the time catches up.
            let continues = known >> 32 == window || known >> 32 == window + 1;
            let (current, used) = if continues { (known >> 32, known as u32) } else { (window, 0) };
            if used >= self.quota {
                return Verdict { allowed: false, remaining: 0, reset };
            }
            let next = current << 32 | u64::from(used + 1);
            match meter.0.compare_exchange_weak(known, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Verdict { allowed: true, remaining: self.quota - used - 1, reset },
                Err(actual) => known = actual,
            }
        }
    }

    /// Writes the remaining quota into a response's headers; on every response to a key, refused ones too.
    pub fn write(&self, verdict: Verdict, headers: &mut HeaderMap) {
        let text = format!("\"default\";r={};t={}", verdict.remaining, verdict.reset);
        headers.insert(RATELIMIT_POLICY, self.policy.clone());
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(RATELIMIT, value);
        }
    }
}

/// The limiter's decision on one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the request is allowed.
    pub allowed: bool,
    /// Requests left in this window.
    pub remaining: u32,
    /// Seconds until the next window begins; 1 to [`WINDOW_SECONDS`].
    pub reset: u32,
}

impl Verdict {
    /// Admits the request, or refuses it with the time to retry.
    ///
    /// # Errors
    /// 429 `rate_limited` with `Retry-After`.
    pub fn admit(self) -> Result<(), Problem> {
        if self.allowed {
            return Ok(());
        }
        let detail = format!("rate limit exceeded for this key; retry in {} s", self.reset);
        Err(Problem::too_many("rate_limited", detail, self.reset))
    }
}

#[cfg(test)]
mod tests {
    use http::header;

    use super::*;

    #[test]
    fn a_key_has_a_quota_per_window_and_sees_what_remains() {
        let limiter = RateLimiter::new(2);
        let meter = Meter::default();
        let at = |millis| limiter.count(&meter, Millis(millis));
        assert_eq!(at(120_000), Verdict { allowed: true, remaining: 1, reset: 60 });
        assert_eq!(at(150_999), Verdict { allowed: true, remaining: 0, reset: 30 });
        assert_eq!(at(179_999), Verdict { allowed: false, remaining: 0, reset: 1 });
        assert_eq!(at(180_000), Verdict { allowed: true, remaining: 1, reset: 60 });
    }

    #[test]
    fn a_clock_that_steps_back_grants_nothing_new() {
        let limiter = RateLimiter::new(1);
        let meter = Meter::default();
        assert!(limiter.count(&meter, Millis(600_000)).allowed);
        assert!(!limiter.count(&meter, Millis(540_000)).allowed);
        assert!(!limiter.count(&meter, Millis(600_001)).allowed);
        assert!(limiter.count(&meter, Millis(660_000)).allowed);
    }

    #[test]
    fn a_clock_far_ahead_for_a_moment_locks_out_no_client() {
        let limiter = RateLimiter::new(1);
        let meter = Meter::default();
        assert!(limiter.count(&meter, Millis(600_000 + 86_400_000)).allowed);
        assert!(limiter.count(&meter, Millis(600_000)).allowed);
        assert!(!limiter.count(&meter, Millis(600_001)).allowed);
    }

    #[test]
    fn idle_meters_are_evicted_when_there_are_too_many() {
        let limiter = RateLimiter::new(1);
        let meters = Meters::default();
        let key = |n: usize| KeyId::new(Millis(n as u64), actors::id::Address([1; 10]));
        let now = Millis(600_000);
        for n in 0..MAX_METERS - 1 {
            limiter.count(&meters.of(key(n), now), now);
        }
        let next = now.plus(60_000);
        assert!(limiter.count(&meters.of(key(MAX_METERS), next), next).allowed);
        assert_eq!(meters.0.len(), MAX_METERS);
        meters.of(key(MAX_METERS + 1), next);
        assert_eq!(meters.0.len(), 2);
        assert!(!limiter.count(&meters.of(key(MAX_METERS), next), next).allowed, "one that counts stays");
        meters.forget(key(MAX_METERS));
        assert_eq!(meters.0.len(), 1);
    }

    #[test]
    fn racing_requests_share_one_quota() {
        let limiter = RateLimiter::new(100);
        let meter = Meter::default();
        let allowed: usize = std::thread::scope(|scope| {
            let count = || (0..50).filter(|_| limiter.count(&meter, Millis(1)).allowed).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(count)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(allowed, 100);
    }

    #[test]
    fn the_headers_follow_the_draft() {
        let mut headers = HeaderMap::new();
        RateLimiter::new(6_000_000).write(Verdict { allowed: true, remaining: 5_999_999, reset: 42 }, &mut headers);
        assert_eq!(headers[&RATELIMIT_POLICY], "\"default\";q=6000000;w=60");
        assert_eq!(headers[&RATELIMIT], "\"default\";r=5999999;t=42");
    }

    #[test]
    fn a_rate_limited_key_gets_retry_after() {
        let problem = Verdict { allowed: false, remaining: 0, reset: 17 }.admit().unwrap_err();
        assert_eq!((problem.status.as_u16(), problem.code), (429, "rate_limited"));
        assert_eq!(problem.headers, [(header::RETRY_AFTER, HeaderValue::from(17))]);
    }
}
