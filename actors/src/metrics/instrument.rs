//! Instruments made of atomics: counting never waits and costs some nanoseconds.

use std::fmt;
use std::marker::PhantomData;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use super::times::Exemplar;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn inc(&self) {
        self.add(1);
    }

    /// `n` more.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// How many so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Sets it.
    pub fn set(&self, value: i64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Adds `change`, which may be negative.
    pub fn add(&self, change: i64) {
        self.0.fetch_add(change, Ordering::Relaxed);
    }

    /// Its value.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The limits of a histogram's buckets, and its unit.
pub trait Buckets: Send + Sync + 'static {
    /// The upper limits, ascending and inclusive; values above the last one are counted too.
    const LIMITS: &'static [u64];
    /// How many recorded units make one exported unit.
    const PER_UNIT: f64;
}

const MICRO: u64 = 1_000;
const MILLI: u64 = 1_000 * MICRO;
const SECOND: u64 = 1_000 * MILLI;

/// The limits of stages within a request.
const STAGES: [u64; 17] = [
    50 * MICRO,
    100 * MICRO,
    250 * MICRO,
    500 * MICRO,
    MILLI,
    2_500 * MICRO,
    5 * MILLI,
    10 * MILLI,
    25 * MILLI,
    50 * MILLI,
    100 * MILLI,
    250 * MILLI,
    500 * MILLI,
    SECOND,
    2_500 * MILLI,
    5 * SECOND,
    10 * SECOND,
];
/// The limits beyond these, of what waits for others.
const MINUTES: [u64; 4] = [30 * SECOND, 60 * SECOND, 120 * SECOND, 300 * SECOND];

/// The limits of all parts, `N` together.
const fn joined<const N: usize>(parts: &[&[u64]]) -> [u64; N] {
    let mut all = [0; N];
    let mut joined = 0;
    let mut part = 0;
    while part < parts.len() {
        let mut nth = 0;
        while nth < parts[part].len() {
            all[joined] = parts[part][nth];
            joined += 1;
            nth += 1;
        }
        part += 1;
    }
    assert!(joined == N, "the parts are as long as the whole");
    all
}

/// Recorded in nanoseconds and exported in seconds, from 50 µs to 10 s: for stages within a request.
#[derive(Debug)]
pub struct Short;

impl Buckets for Short {
    const LIMITS: &'static [u64] = &STAGES;
    const PER_UNIT: f64 = 1e9;
}

/// Recorded in nanoseconds and exported in seconds, from 50 µs to 5 minutes: for requests, some of which wait for an
/// agent.
#[derive(Debug)]
pub struct Requests;

impl Buckets for Requests {
    const LIMITS: &'static [u64] = &joined::<21>(&[&STAGES, &MINUTES]);
    const PER_UNIT: f64 = 1e9;
}

/// Recorded in nanoseconds and exported in seconds, from 50 µs to an hour: for alarms, which may be due while no server
/// runs.
#[derive(Debug)]
pub struct Lateness;

impl Buckets for Lateness {
    const LIMITS: &'static [u64] = &joined::<22>(&[&STAGES, &MINUTES, &[3_600 * SECOND]]);
    const PER_UNIT: f64 = 1e9;
}

/// Recorded in nanoseconds and exported in seconds, from 10 ms to 5 minutes: for calls of other services.
#[derive(Debug)]
pub struct Long;

impl Buckets for Long {
    const LIMITS: &'static [u64] = &[
        10 * MILLI,
        50 * MILLI,
        100 * MILLI,
        250 * MILLI,
        500 * MILLI,
        SECOND,
        2_500 * MILLI,
        5 * SECOND,
        10 * SECOND,
        30 * SECOND,
        60 * SECOND,
        120 * SECOND,
        300 * SECOND,
    ];
    const PER_UNIT: f64 = 1e9;
}

/// Sizes of batches, from 1 to 1,024.
#[derive(Debug)]
pub struct Sizes;

impl Buckets for Sizes {
    const LIMITS: &'static [u64] = &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024];
    const PER_UNIT: f64 = 1.0;
}

/// A histogram of values.
pub struct Histogram<B> {
    /// One for each limit, and one for values above; not cumulated.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
    buckets: PhantomData<fn() -> B>,
}

impl<B: Buckets> Default for Histogram<B> {
    fn default() -> Self {
        let counts = (0..=B::LIMITS.len()).map(|_| AtomicU64::new(0)).collect();
        Self { counts, sum: AtomicU64::new(0), buckets: PhantomData }
    }
}

impl<B> fmt::Debug for Histogram<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Histogram").field("sum", &self.sum).finish_non_exhaustive()
    }
}

impl<B: Buckets> Histogram<B> {
    /// Records a value, and returns its bucket.
    pub fn record(&self, value: u64) -> usize {
        let bucket = B::LIMITS.partition_point(|limit| *limit < value);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
        bucket
    }

    /// Records a duration.
    pub fn observe(&self, took: Duration) -> usize {
        self.record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX))
    }

    /// The values so far. While others record, its sum may be slightly older than its counts.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            limits: B::LIMITS,
            per_unit: B::PER_UNIT,
            counts: self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect(),
            sum: self.sum.load(Ordering::Relaxed),
            exemplars: Vec::new(),
        }
    }
}

/// A histogram at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// The buckets' upper limits, as recorded.
    pub limits: &'static [u64],
    /// How many recorded units make one exported unit.
    pub per_unit: f64,
    /// The counts of the buckets; one more than there are limits.
    pub counts: Vec<u64>,
    /// All values together, as recorded.
    pub sum: u64,
    /// The exemplar of each bucket, as long as there are any.
    pub exemplars: Vec<Option<Exemplar>>,
}

impl Snapshot {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// A label whose values are all known at build time, so that there are never more series.
pub trait Label: Copy + Send + Sync + 'static {
    /// The label's name.
    const NAME: &'static str;
    /// All values. An empty one means that the sample lacks the label.
    const VALUES: &'static [&'static str];

    /// Which of them this is.
    fn index(self) -> usize;

    /// The value itself.
    fn value(self) -> &'static str {
        Self::VALUES[self.index()]
    }
}

/// One instrument for each value of a label.
pub struct By<L, I> {
    each: Box<[I]>,
    label: PhantomData<fn(L)>,
}

impl<L: Label, I: Default> Default for By<L, I> {
    fn default() -> Self {
        Self { each: L::VALUES.iter().map(|_| I::default()).collect(), label: PhantomData }
    }
}

impl<L, I: fmt::Debug> fmt::Debug for By<L, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.each).finish()
    }
}

impl<L: Label, I> By<L, I> {
    /// The one for this value.
    pub fn of(&self, value: L) -> &I {
        &self.each[value.index()]
    }
}

/// An instrument that is exported from its first use on: for a label with many values of which few ever occur.
#[derive(Debug)]
pub struct Rare<I>(OnceLock<Box<I>>);

impl<I> Default for Rare<I> {
    fn default() -> Self {
        Self(OnceLock::new())
    }
}

impl<I: Default> Rare<I> {
    /// The instrument, which is about to be used.
    pub fn used(&self) -> &I {
        self.0.get_or_init(Box::default)
    }
}

/// The kind of a metric, as in Prometheus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// It only grows; its name ends in `_total`.
    Counter,
    /// It goes up and down.
    Gauge,
    /// It goes up and down, and the values of several processes are combined into one.
    Level,
    /// A histogram.
    Histogram,
}

/// The value of a metric.
#[derive(Clone, Debug, PartialEq)]
pub enum Sample {
    /// Of a counter.
    Counter(u64),
    /// Of a gauge.
    Gauge(i64),
    /// Of a histogram.
    Histogram(Snapshot),
}

/// A label's name and value.
pub type LabelPair = (&'static str, &'static str);

/// An instrument that can be exported.
pub trait Metric {
    /// Its kind.
    const KIND: MetricKind;

    /// Passes on its current value, once for each value of its labels.
    fn read(&self, take: &mut dyn FnMut(Vec<LabelPair>, Sample));
}

impl Metric for Counter {
    const KIND: MetricKind = MetricKind::Counter;

    fn read(&self, take: &mut dyn FnMut(Vec<LabelPair>, Sample)) {
        take(Vec::new(), Sample::Counter(self.get()));
    }
}

impl Metric for Gauge {
    const KIND: MetricKind = MetricKind::Gauge;

    fn read(&self, take: &mut dyn FnMut(Vec<LabelPair>, Sample)) {
        take(Vec::new(), Sample::Gauge(self.get()));
    }
}

impl<B: Buckets> Metric for Histogram<B> {
    const KIND: MetricKind = MetricKind::Histogram;

    fn read(&self, take: &mut dyn FnMut(Vec<LabelPair>, Sample)) {
        take(Vec::new(), Sample::Histogram(self.snapshot()));
    }
}

impl<L: Label, I: Metric> Metric for By<L, I> {
    const KIND: MetricKind = I::KIND;

    fn read(&self, take: &mut dyn FnMut(Vec<LabelPair>, Sample)) {
        for (value, each) in L::VALUES.iter().copied().zip(&self.each) {
            each.read(&mut |mut labels, sample| {
                if !value.is_empty() {
                    labels.insert(0, (L::NAME, value));
                }
                take(labels, sample);
            });
        }
    }
}

impl<I: Metric> Metric for Rare<I> {
    const KIND: MetricKind = I::KIND;

    fn read(&self, take: &mut dyn FnMut(Vec<LabelPair>, Sample)) {
        if let Some(used) = self.0.get() {
            used.read(take);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_falls_into_the_first_bucket_that_it_does_not_exceed() {
        let sizes = Histogram::<Sizes>::default();
        for value in [0, 1, 2, 3, 1_024, 1_025, 9_999] {
            sizes.record(value);
        }
        let snapshot = sizes.snapshot();
        assert_eq!(snapshot.counts, [2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!((snapshot.count(), snapshot.sum), (7, 12_054));
    }

    #[test]
    fn durations_are_nanoseconds_shown_as_seconds() {
        let short = Histogram::<Short>::default();
        assert_eq!(short.observe(Duration::from_micros(50)), 0);
        assert_eq!(short.observe(Duration::from_micros(51)), 1);
        assert_eq!(short.observe(Duration::from_secs(11)), Short::LIMITS.len());
        assert_eq!(short.snapshot().sum as f64 / Short::PER_UNIT, 11.000_101);
        assert_eq!(short.observe(Duration::MAX), Short::LIMITS.len(), "and never overflows on the way in");
    }

    #[test]
    fn minutes_of_a_request_and_an_hour_of_an_alarm_have_buckets() {
        let [ten, minute, hour] = [10, 60, 3_600].map(Duration::from_secs);
        let request = Histogram::<Requests>::default();
        let alarm = Histogram::<Lateness>::default();
        let limit = |limits: &[u64], bucket: usize| limits[bucket] / SECOND;
        assert_eq!([ten, minute].map(|took| limit(Requests::LIMITS, request.observe(took))), [10, 60]);
        assert_eq!([minute, hour].map(|late| limit(Lateness::LIMITS, alarm.observe(late))), [60, 3_600]);
        assert_eq!(request.observe(minute * 4), Requests::LIMITS.len() - 1);
    }

    #[test]
    fn every_limit_is_above_the_one_before() {
        for limits in [Short::LIMITS, Requests::LIMITS, Lateness::LIMITS, Long::LIMITS, Sizes::LIMITS] {
            assert!(limits.is_sorted_by(|a, b| a < b), "{limits:?}");
        }
    }
}
