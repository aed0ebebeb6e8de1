//! Which traces are recorded. The choice is made once, at the front door: an unrecorded trace creates no spans at all.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::config::otel::{Otel, Root, Sampler};

/// Unsampled requests that are kept per second and reason: a storm of errors must not become a storm of spans.
const KEPT_PER_SECOND: u32 = 100;

/// Why an unsampled request was recorded. Each reason has its own budget, so that frequent ones do not crowd out rare
/// ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordReason {
    /// The server failed.
    Error,
    /// An agent that it waited for failed: mostly its model.
    Agent,
    /// It was refused because of overload, or an unavailable part.
    Refused,
    /// It took long.
    Slow,
    /// It took long and waited for others: an agent, a copy, an erasure.
    Waited,
}

impl RecordReason {
    /// How many reasons there are.
    const COUNT: usize = Self::Waited as usize + 1;

    /// The value of the attribute.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Agent => "agent",
            Self::Refused => "refused",
            Self::Slow => "slow",
            Self::Waited => "waited",
        }
    }
}

/// The sampler at the front door.
#[derive(Debug)]
pub struct Sampling {
    /// Traces have a receiver.
    exported: bool,
    sampler: Sampler,
    /// The budget of callers' choices.
    remote: Budget,
    /// One for each [`RecordReason`].
    kept: [Budget; RecordReason::COUNT],
    slow_after: Duration,
    began: Instant,
}

impl Sampling {
    /// A sampler by the configuration. Callers' sampled traces are recorded up to a number per second; past that this
    /// server's own sampler decides, so that a client cannot have everything recorded.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self::of(&config.otel, config.remote_traces_per_second, config.slow_request)
    }

    /// Nothing is recorded.
    #[must_use]
    pub fn none() -> Self {
        Self {
            exported: false,
            sampler: Sampler { root: Root::Never, parent_based: true },
            remote: Budget::new(0),
            kept: std::array::from_fn(|_| Budget::new(0)),
            slow_after: Duration::MAX,
            began: Instant::now(),
        }
    }

    fn of(otel: &Otel, remote_per_second: u32, slow_after: Duration) -> Self {
        Self {
            exported: otel.receiver.is_some(),
            sampler: otel.sampler,
            remote: Budget::new(remote_per_second),
            kept: std::array::from_fn(|_| Budget::new(KEPT_PER_SECOND)),
            slow_after,
            began: Instant::now(),
        }
    }

    /// Whether the request is recorded; `parent` is the caller's choice, if it made one.
    pub fn decide(&self, trace_id: &[u8; 16], parent: Option<bool>, now: Instant) -> bool {
        if !self.exported {
            // Nothing is recorded here; services called by this one may still follow the caller's choice.
            return parent == Some(true);
        }
        match parent.filter(|_| self.sampler.parent_based) {
            Some(false) => false,
            Some(true) if self.remote.take(self.second(now)) => true,
            _ => self.begins(trace_id),
        }
    }

    /// Whether a trace that begins here is recorded.
    pub fn begins(&self, trace_id: &[u8; 16]) -> bool {
        self.exported
            && match self.sampler.root {
                Root::Always => true,
                Root::Never => false,
                Root::Ratio(ratio) => chosen(trace_id, ratio),
            }
    }

    /// Whether a request took long enough to be recorded.
    pub fn is_slow(&self, took: Duration) -> bool {
        took > self.slow_after
    }

    /// Whether an unsampled request is recorded after all, alone, for this reason.
    pub fn keeps(&self, why: RecordReason, now: Instant) -> bool {
        self.exported && self.kept[why as usize].take(self.second(now))
    }

    fn second(&self, now: Instant) -> u32 {
        // 136 years.
        now.saturating_duration_since(self.began).as_secs() as u32
    }
}

/// The choice of OpenTelemetry's `TraceIdRatioBased`, so that every service with the same ratio chooses the same
/// traces.
fn chosen(trace_id: &[u8; 16], ratio: f64) -> bool {
    if ratio >= 1.0 {
        return true;
    }
    let bound = (ratio.max(0.0) * (1_u64 << 63) as f64) as u64;
    let mut low = [0; 8];
    low.copy_from_slice(&trace_id[8..]);
    u64::from_be_bytes(low) >> 1 < bound
}

/// A budget per second.
#[derive(Debug)]
struct Budget {
    per_second: u32,
    /// The second, and how much was used in it.
    used: AtomicU64,
}

impl Budget {
    fn new(per_second: u32) -> Self {
        Self { per_second, used: AtomicU64::new(0) }
    }

    fn take(&self, second: u32) -> bool {
        let taken = self.used.try_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            let taken = if used >> 32 == u64::from(second) { used & u64::from(u32::MAX) } else { 0 };
            (taken < u64::from(self.per_second)).then_some((u64::from(second) << 32) | (taken + 1))
        });
        taken.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanKind, TraceId};
    use opentelemetry_sdk::trace::{SamplingDecision, ShouldSample as _};

    use super::*;

    fn sampling(env: &[(&str, &str)], remote: u32) -> Sampling {
        let env = |name: &str| env.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        Sampling::of(&Otel::read(&env, Some("http://localhost:4318"), &mut Vec::new()), remote, Duration::from_secs(1))
    }

    fn ids() -> impl Iterator<Item = [u8; 16]> {
        let entropy = actors::clock::Entropy::seeded([5; 32]);
        std::iter::repeat_with(move || entropy.draw())
    }

    #[test]
    fn a_share_takes_the_traces_that_opentelemetry_takes() {
        for ratio in [0.0, 0.01, 0.25, 0.5, 0.999, 1.0] {
            let sdk = opentelemetry_sdk::trace::Sampler::TraceIdRatioBased(ratio);
            for id in ids().take(2_000) {
                let theirs = sdk.should_sample(None, TraceId::from_bytes(id), "", &SpanKind::Server, &[], &[]);
                assert_eq!(chosen(&id, ratio), theirs.decision == SamplingDecision::RecordAndSample, "{ratio}");
            }
        }
    }

    #[test]
    fn a_callers_wish_to_sample_is_followed_up_to_a_bound() {
        let sampling = sampling(&[("OTEL_TRACES_SAMPLER", "parentbased_always_off")], 3);
        let now = Instant::now();
        let taken = ids().take(10).filter(|id| sampling.decide(id, Some(true), now)).count();
        assert_eq!(taken, 3, "past the bound this side's own sampler decides");
        let later = now + Duration::from_secs(1);
        assert!(sampling.decide(&[1; 16], Some(true), later), "in the next second there is room again");
        assert!(!sampling.decide(&[1; 16], Some(false), later) && !sampling.decide(&[1; 16], None, later));
    }

    #[test]
    fn a_sampler_without_parents_asks_no_caller() {
        let never = sampling(&[("OTEL_TRACES_SAMPLER", "always_off")], 100);
        assert!(!never.decide(&[1; 16], Some(true), Instant::now()));
        let always = sampling(&[("OTEL_TRACES_SAMPLER", "always_on")], 100);
        assert!(always.decide(&[1; 16], Some(false), Instant::now()));
    }

    #[test]
    fn a_callers_decision_is_forwarded_where_nothing_is_exported() {
        let sampling = Sampling::of(&Otel::read(&|_| None, None, &mut Vec::new()), 0, Duration::ZERO);
        let now = Instant::now();
        assert!(sampling.decide(&[1; 16], Some(true), now) && !sampling.decide(&[1; 16], None, now));
        assert!(!sampling.keeps(RecordReason::Error, now));
    }

    #[test]
    fn requests_are_kept_up_to_a_bound_for_each_reason() {
        let sampling = sampling(&[("OTEL_TRACES_SAMPLER", "always_off")], 0);
        let now = Instant::now();
        let mut words = std::collections::BTreeSet::new();
        for why in
            [RecordReason::Waited, RecordReason::Slow, RecordReason::Refused, RecordReason::Agent, RecordReason::Error]
        {
            let kept = (0..1_000).filter(|_| sampling.keeps(why, now)).count();
            assert_eq!(kept as u32, KEPT_PER_SECOND, "{why:?}, whatever was kept before");
            words.insert(why.word());
        }
        assert_eq!(words.len(), RecordReason::COUNT, "each says its own word");
        assert!(
            sampling.keeps(RecordReason::Error, now + Duration::from_secs(1)),
            "in the next second there is room again"
        );
        assert!(sampling.is_slow(Duration::from_secs(2)) && !sampling.is_slow(Duration::from_millis(2)));
    }
}
