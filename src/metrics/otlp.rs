//! Metrics as OTLP has them, for a receiver that they are sent to.

use actors::metrics::{MetricKind, Snapshot};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::Exemplar as OtlpExemplar;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, Sum, exemplar,
    number_data_point,
};

use super::exemplar::Exemplar;
use super::sink::{Number, Sink};

/// Metrics while they are collected. All of them count from the start of the process.
pub struct Collected {
    metrics: Vec<Metric>,
    kind: MetricKind,
    began: u64,
    now: u64,
}

impl Collected {
    /// None yet. Both times are nanoseconds since 1970: from when counters count, and what it is now.
    #[must_use]
    pub fn new(began: u64, now: u64) -> Self {
        Self { metrics: Vec::new(), kind: MetricKind::Gauge, began, now }
    }

    /// All of them.
    #[must_use]
    pub fn finish(self) -> Vec<Metric> {
        self.metrics
    }
}

impl Sink for Collected {
    fn metric(&mut self, name: &'static str, help: &str, kind: MetricKind) {
        self.kind = kind;
        let temporality = AggregationTemporality::Cumulative.into();
        let data = match kind {
            MetricKind::Counter => {
                Data::Sum(Sum { data_points: Vec::new(), aggregation_temporality: temporality, is_monotonic: true })
            }
            MetricKind::Gauge => Data::Gauge(Gauge { data_points: Vec::new() }),
            MetricKind::Histogram => {
                Data::Histogram(Histogram { data_points: Vec::new(), aggregation_temporality: temporality })
            }
        };
        // A collector that hands them on to Prometheus puts the ending there again.
        let name = name.strip_suffix("_total").unwrap_or(name);
        self.metrics.push(Metric {
            name: name.to_owned(),
            description: help.to_owned(),
            unit: unit(name).to_owned(),
            data: Some(data),
            ..Metric::default()
        });
    }

    fn value(&mut self, labels: &[(&str, &str)], value: impl Into<Number>) {
        let value = match value.into() {
            Number::Whole(number) => number_data_point::Value::AsInt(number),
            Number::Real(number) => number_data_point::Value::AsDouble(number),
        };
        let point = NumberDataPoint {
            attributes: attributes(labels),
            start_time_unix_nano: self.began,
            time_unix_nano: self.now,
            value: Some(value),
            ..NumberDataPoint::default()
        };
        match self.metrics.last_mut().and_then(|metric| metric.data.as_mut()) {
            Some(Data::Sum(sum)) => sum.data_points.push(point),
            Some(Data::Gauge(gauge)) => gauge.data_points.push(point),
            _ => {}
        }
    }

    fn histogram(&mut self, labels: &[(&str, &str)], snapshot: &Snapshot, exemplars: &[Option<Exemplar>]) {
        let Some(Data::Histogram(histogram)) = self.metrics.last_mut().and_then(|metric| metric.data.as_mut()) else {
            return;
        };
        histogram.data_points.push(HistogramDataPoint {
            attributes: attributes(labels),
            start_time_unix_nano: self.began,
            time_unix_nano: self.now,
            count: snapshot.count(),
            sum: Some(snapshot.sum as f64 / snapshot.per_unit),
            bucket_counts: snapshot.counts.clone(),
            explicit_bounds: snapshot.limits.iter().map(|limit| *limit as f64 / snapshot.per_unit).collect(),
            exemplars: exemplars.iter().flatten().map(stands_for).collect(),
            ..HistogramDataPoint::default()
        });
    }
}

/// The unit that a name ends in, as UCUM writes it. What counts things has none: `1` would be a ratio, and who writes for
/// Prometheus would put that behind the name of a gauge.
fn unit(name: &str) -> &'static str {
    match name.rsplit('_').next() {
        Some("seconds") => "s",
        Some("bytes") => "By",
        _ => "",
    }
}

fn attributes(labels: &[(&str, &str)]) -> Vec<KeyValue> {
    let attribute = |(name, value): &(&str, &str)| KeyValue {
        key: (*name).to_owned(),
        value: Some(AnyValue { value: Some(any_value::Value::StringValue((*value).to_owned())) }),
        ..KeyValue::default()
    };
    labels.iter().map(attribute).collect()
}

fn stands_for(exemplar: &Exemplar) -> OtlpExemplar {
    OtlpExemplar {
        time_unix_nano: exemplar.at_millis * 1_000_000,
        span_id: exemplar.span_id.to_vec(),
        trace_id: exemplar.trace_id.to_vec(),
        value: Some(exemplar::Value::AsDouble(exemplar.value)),
        ..OtlpExemplar::default()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use actors::metrics::{Histogram as Instrument, Short};

    use super::*;

    #[test]
    fn counters_gauges_and_histograms_keep_their_labels_values_and_bounds() {
        let mut collected = Collected::new(1, 2);
        collected.metric("things_total", "Things.", MetricKind::Counter);
        collected.value(&[("kind", "a")], 3_u64);
        collected.metric("held_bytes", "Held.", MetricKind::Gauge);
        collected.value(&[], 0.5);
        collected.metric("took_seconds", "How long.", MetricKind::Histogram);
        let took = Instrument::<Short>::default();
        let exemplar = Exemplar { trace_id: [1; 16], span_id: [2; 8], value: 0.000_06, at_millis: 7 };
        let mut exemplars = vec![None; took.snapshot().counts.len()];
        exemplars[took.observe(Duration::from_micros(60))] = Some(exemplar);
        collected.histogram(&[], &took.snapshot(), &exemplars);

        let [things, held, took] = &collected.finish()[..] else { panic!("three metrics") };
        assert_eq!((things.name.as_str(), things.unit.as_str(), held.unit.as_str()), ("things", "", "By"));
        let Some(Data::Sum(sum)) = &things.data else { panic!("a sum: {things:?}") };
        assert!(sum.is_monotonic && sum.data_points[0].attributes[0].key == "kind");
        assert_eq!(sum.data_points[0].value, Some(number_data_point::Value::AsInt(3)));
        let Some(Data::Gauge(gauge)) = &held.data else { panic!("a gauge: {held:?}") };
        assert_eq!(gauge.data_points[0].value, Some(number_data_point::Value::AsDouble(0.5)));
        let Some(Data::Histogram(histogram)) = &took.data else { panic!("a histogram: {took:?}") };
        let point = &histogram.data_points[0];
        assert_eq!((point.count, point.sum, took.unit.as_str()), (1, Some(0.000_06), "s"));
        assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
        assert_eq!((point.start_time_unix_nano, point.time_unix_nano), (1, 2));
        assert_eq!((&point.exemplars[0].trace_id[..], point.exemplars[0].time_unix_nano), (&[1; 16][..], 7_000_000));
    }
}
