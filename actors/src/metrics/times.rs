//! Latency histograms with exemplars: a recorded trace for each bucket.

use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

use super::instrument::{Buckets, Histogram, LabelPair, Metric, MetricKind, Sample, Snapshot};
use crate::clock::Millis;
use crate::sync::LockUnpoisoned;
use crate::trace::TraceContext;

/// A recorded span whose duration fell into a bucket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exemplar {
    /// Its trace.
    pub trace_id: [u8; 16],
    /// The span.
    pub span_id: [u8; 8],
    /// The duration, in seconds.
    pub value: f64,
    /// When.
    pub at: Millis,
}

/// A histogram of durations, with an exemplar for each bucket that a recorded one fell into.
pub struct Times<B> {
    took: Histogram<B>,
    /// One for each bucket up to the last one that has any: empty if nothing is ever recorded.
    exemplars: Mutex<Vec<Option<Exemplar>>>,
}

impl<B: Buckets> Default for Times<B> {
    fn default() -> Self {
        Self { took: Histogram::default(), exemplars: Mutex::default() }
    }
}

impl<B> fmt::Debug for Times<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Times").field(&self.took).finish()
    }
}

impl<B: Buckets> Times<B> {
    /// Records a duration. `of`: the measured span, if it is recorded, which becomes its bucket's exemplar. Without it,
    /// this is one branch more than counting.
    pub fn observe(&self, took: Duration, of: Option<TraceContext>, now: impl FnOnce() -> Millis) {
        let bucket = self.took.observe(took);
        if let Some(TraceContext { trace_id, span_id, .. }) = of {
            self.keep(bucket, Exemplar { trace_id, span_id, value: took.as_secs_f64(), at: now() });
        }
    }

    /// The newest one is its bucket's exemplar, unless another thread is storing one right now.
    #[cold]
    fn keep(&self, bucket: usize, exemplar: Exemplar) {
        let Ok(mut exemplars) = self.exemplars.try_lock() else { return };
        if exemplars.len() <= bucket {
            exemplars.resize(bucket + 1, None);
        }
        exemplars[bucket] = Some(exemplar);
    }

    /// The values so far.
    pub fn snapshot(&self) -> Snapshot {
        let exemplars = self.exemplars.lock_unpoisoned().clone();
        Snapshot { exemplars, ..self.took.snapshot() }
    }
}

impl<B: Buckets> Metric for Times<B> {
    const KIND: MetricKind = MetricKind::Histogram;

    fn read(&self, take: &mut dyn FnMut(Vec<LabelPair>, Sample)) {
        take(Vec::new(), Sample::Histogram(self.snapshot()));
    }
}

#[cfg(test)]
mod tests {
    use super::super::instrument::Short;
    use super::*;

    #[test]
    fn the_newest_recorded_one_stands_for_its_bucket_and_no_other_does() {
        let times = Times::<Short>::default();
        let place = |n: u8| TraceContext { trace_id: [n; 16], span_id: [n; 8], flags: 1 };
        let unasked = || -> Millis { unreachable!("no exemplar is recorded") };
        times.observe(Duration::from_micros(60), None, unasked);
        assert!(times.snapshot().exemplars.is_empty());
        for n in [1, 2] {
            times.observe(Duration::from_micros(60), Some(place(n)), || Millis(u64::from(n)));
        }
        times.observe(Duration::from_micros(70), None, unasked);
        times.observe(Duration::from_secs(99), Some(place(3)), || Millis(3));
        let snapshot = times.snapshot();
        assert_eq!((snapshot.counts[1], snapshot.count()), (4, 5));
        assert_eq!(snapshot.exemplars.len(), snapshot.counts.len());
        let kept: Vec<_> =
            snapshot.exemplars.iter().flatten().map(|kept| (kept.span_id, kept.value, kept.at)).collect();
        assert_eq!(kept, [([2; 8], 0.000_06, Millis(2)), ([3; 8], 99.0, Millis(3))]);
        assert!(snapshot.exemplars[1].is_some());
    }
}
