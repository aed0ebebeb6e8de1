//! Metrics in the form of OTLP, for a receiver.

use actors::metrics::{Exemplar, MetricKind, Snapshot};
use actors::trace::names::{HTTP_ROUTE, HTTP_SERVER, HTTP_STATUS, SERVER_ACTIVE, URL_SCHEME};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::Exemplar as OtlpExemplar;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, Sum, exemplar,
    number_data_point,
};

use super::http::UNMATCHED;
use super::sink::{Number, Sink};

/// Metrics while they are collected. All of them count from the start of the process.
pub struct Collected {
    metrics: Vec<Metric>,
    kind: MetricKind,
    began: u64,
    now: u64,
}

impl Collected {
    /// No metrics yet. Both times are nanoseconds since 1970: the start of the counters, and now.
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
            MetricKind::Level => {
                Data::Sum(Sum { data_points: Vec::new(), aggregation_temporality: temporality, is_monotonic: false })
            }
            MetricKind::Gauge => Data::Gauge(Gauge { data_points: Vec::new() }),
            MetricKind::Histogram => {
                Data::Histogram(Histogram { data_points: Vec::new(), aggregation_temporality: temporality })
            }
        };
        // A collector that forwards them to Prometheus appends this ending again.
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
        let Some(Metric { name, data: Some(data), .. }) = self.metrics.last_mut() else { return };
        let point = NumberDataPoint {
            attributes: attributes(name, labels),
            start_time_unix_nano: self.began,
            time_unix_nano: self.now,
            value: Some(value),
            ..NumberDataPoint::default()
        };
        match data {
            Data::Sum(sum) => sum.data_points.push(point),
            Data::Gauge(gauge) => gauge.data_points.push(point),
            _ => {}
        }
    }

    fn histogram(&mut self, labels: &[(&str, &str)], snapshot: &Snapshot) {
        let Some(Metric { name, data: Some(Data::Histogram(histogram)), .. }) = self.metrics.last_mut() else { return };
        histogram.data_points.push(HistogramDataPoint {
            attributes: attributes(name, labels),
            start_time_unix_nano: self.began,
            time_unix_nano: self.now,
            count: snapshot.count(),
            sum: Some(snapshot.sum as f64 / snapshot.per_unit),
            bucket_counts: snapshot.counts.clone(),
            explicit_bounds: snapshot.limits.iter().map(|limit| *limit as f64 / snapshot.per_unit).collect(),
            exemplars: snapshot.exemplars.iter().flatten().map(exemplar).collect(),
            ..HistogramDataPoint::default()
        });
    }
}

/// The unit at the end of a name, in UCUM, or by the conventions. Counts have none: `1` would be a ratio, which an
/// exporter to Prometheus would append to the name of a gauge.
fn unit(name: &str) -> &'static str {
    match name.rsplit(['_', '.']).next() {
        Some("seconds" | "duration") => "s",
        Some("bytes") => "By",
        _ if name == SERVER_ACTIVE => "{request}",
        _ => "",
    }
}

/// The attributes of a sample of `metric`. The page leaves out the scheme of requests, because there is only one.
/// Without a route the attribute is absent, by the conventions.
fn attributes(metric: &str, labels: &[(&str, &str)]) -> Vec<KeyValue> {
    let scheme = metric.starts_with(HTTP_SERVER).then_some((URL_SCHEME, "http"));
    let attribute = |(name, value): (&str, &str)| {
        let number = Some(value).filter(|_| name == HTTP_STATUS).and_then(|value| value.parse().ok());
        let text = || any_value::Value::StringValue(value.to_owned());
        let value = AnyValue { value: Some(number.map_or_else(text, any_value::Value::IntValue)) };
        KeyValue { key: name.to_owned(), value: Some(value), ..KeyValue::default() }
    };
    let told = labels.iter().copied().filter(|label| *label != (HTTP_ROUTE, UNMATCHED));
    told.chain(scheme).map(attribute).collect()
}

fn exemplar(exemplar: &Exemplar) -> OtlpExemplar {
    OtlpExemplar {
        time_unix_nano: exemplar.at.0 * 1_000_000,
        span_id: exemplar.span_id.to_vec(),
        trace_id: exemplar.trace_id.to_vec(),
        value: Some(exemplar::Value::AsDouble(exemplar.value)),
        ..OtlpExemplar::default()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use actors::clock::Millis;
    use actors::metrics::{Short, Times};
    use actors::trace::TraceContext;
    use actors::trace::names::SERVER_DURATION;

    use super::*;

    #[test]
    fn counters_gauges_and_histograms_keep_their_labels_values_and_bounds() {
        let mut collected = Collected::new(1, 2);
        collected.metric("things_total", "Things.", MetricKind::Counter);
        collected.value(&[("kind", "a")], 3_u64);
        collected.metric("held_bytes", "Held.", MetricKind::Gauge);
        collected.value(&[], 0.5);
        collected.metric("took_seconds", "How long.", MetricKind::Histogram);
        let took = Times::<Short>::default();
        let of = TraceContext { trace_id: [1; 16], span_id: [2; 8], flags: 1 };
        took.observe(Duration::from_micros(60), Some(of), || Millis(7));
        collected.histogram(&[], &took.snapshot());

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

    #[test]
    fn metrics_of_the_semantic_conventions_are_sent_under_their_names() {
        let mut collected = Collected::new(1, 2);
        collected.metric(SERVER_DURATION, "How long.", MetricKind::Histogram);
        for route in ["/a", UNMATCHED] {
            let labels = [(HTTP_ROUTE, route), (HTTP_STATUS, "201")];
            collected.histogram(&labels, &Times::<Short>::default().snapshot());
        }
        collected.metric(SERVER_ACTIVE, "How many.", MetricKind::Level);
        collected.value(&[], 3_i64);

        let [took, active] = &collected.finish()[..] else { panic!("two metrics") };
        assert_eq!((took.name.as_str(), took.unit.as_str()), ("http.server.request.duration", "s"));
        let Some(Data::Histogram(histogram)) = &took.data else { panic!("a histogram: {took:?}") };
        let [told, unmatched] = [0, 1].map(|nth: usize| -> Vec<_> {
            let told = histogram.data_points[nth].attributes.iter();
            let value = |attribute: &KeyValue| attribute.value.as_ref().unwrap().value.clone().unwrap();
            told.map(|attribute| (attribute.key.as_str(), value(attribute))).collect()
        });
        let text = |value: &str| any_value::Value::StringValue(value.to_owned());
        let code = any_value::Value::IntValue(201);
        assert_eq!(told, [("http.route", text("/a")), (HTTP_STATUS, code), (URL_SCHEME, text("http"))]);
        assert_eq!(unmatched[..], told[1..], "no route is none, and not one of that name");
        assert_eq!((active.name.as_str(), active.unit.as_str()), ("http.server.active_requests", "{request}"));
        let Some(Data::Sum(sum)) = &active.data else { panic!("a sum: {active:?}") };
        assert!(!sum.is_monotonic && sum.data_points.len() == 1);
    }
}
