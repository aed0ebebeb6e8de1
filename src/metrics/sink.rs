//! Outputs of metrics: a page, or an export.

use std::borrow::Cow;
use std::fmt;

use actors::metrics::{MetricKind, Sample, Snapshot};

/// A value of a counter or gauge.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// A count.
    Whole(i64),
    /// A measure.
    Real(f64),
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(number) => number.fmt(f),
            Self::Real(number) => number.fmt(f),
        }
    }
}

impl From<f64> for Number {
    fn from(number: f64) -> Self {
        Self::Real(number)
    }
}

impl From<i64> for Number {
    fn from(number: i64) -> Self {
        Self::Whole(number)
    }
}

impl From<u64> for Number {
    fn from(number: u64) -> Self {
        Self::Whole(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<usize> for Number {
    fn from(number: usize) -> Self {
        Self::Whole(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

/// The Prometheus name of a metric or label: names of OpenTelemetry's conventions have dots, and no unit.
pub(super) fn prometheus(name: &'static str) -> Cow<'static, str> {
    match name.contains('.') {
        true => Cow::Owned(name.replace('.', "_") + if name.ends_with(".duration") { "_seconds" } else { "" }),
        false => Cow::Borrowed(name),
    }
}

/// Takes metrics one after the other, each followed by its samples. Metrics and labels of OpenTelemetry's conventions
/// have their names here; all others have those of Prometheus.
pub trait Sink {
    /// Begins a metric, to which the following samples belong. The name of a counter of ours ends in `_total`.
    fn metric(&mut self, name: &'static str, help: &str, kind: MetricKind);

    /// A sample of a counter or gauge.
    fn value(&mut self, labels: &[(&str, &str)], value: impl Into<Number>);

    /// A sample of a histogram, with its buckets' exemplars.
    fn histogram(&mut self, labels: &[(&str, &str)], snapshot: &Snapshot);

    /// A sample of any kind.
    fn sample(&mut self, labels: &[(&str, &str)], sample: &Sample) {
        match sample {
            Sample::Counter(value) => self.value(labels, *value),
            Sample::Gauge(value) => self.value(labels, *value),
            Sample::Histogram(snapshot) => self.histogram(labels, snapshot),
        }
    }
}
