//! A page of metrics in one of the two text formats of Prometheus.

use std::borrow::Cow;
use std::fmt::Write as _;

use actors::metrics::{Exemplar, MetricKind, Snapshot};

use super::sink::{Number, Sink, prometheus};
use crate::trace_context::Hex;

/// The format of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' own, version 0.0.4.
    Text,
    /// `OpenMetrics`, which has exemplars.
    OpenMetrics,
}

impl Format {
    /// The answer's `Content-Type`.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// A page being written. Writing to a string cannot fail, so the results of `write!` are ignored.
pub struct Page {
    out: String,
    format: Format,
    name: Cow<'static, str>,
}

impl Page {
    /// An empty page.
    #[must_use]
    pub fn new(format: Format) -> Self {
        Self { out: String::with_capacity(64 * 1024), format, name: Cow::Borrowed("") }
    }

    /// The whole page.
    #[must_use]
    pub fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.out.push_str("# EOF\n");
        }
        self.out
    }

    fn exemplar(&mut self, exemplar: &Exemplar) {
        let trace = Hex(&exemplar.trace_id);
        let span = Hex(&exemplar.span_id);
        let at = exemplar.at.0 as f64 / 1e3;
        let _ = write!(self.out, " # {{trace_id=\"{trace}\",span_id=\"{span}\"}} {} {at}", exemplar.value);
    }

    fn series(&mut self, suffix: &str, labels: &[(&str, &str)], last: Option<(&str, &str)>) {
        self.out.push_str(&self.name);
        self.out.push_str(suffix);
        let mut opening = '{';
        for (name, value) in labels.iter().copied().chain(last) {
            self.out.push(opening);
            opening = ',';
            self.out.extend(name.chars().map(|c| if c == '.' { '_' } else { c }));
            self.out.push_str("=\"");
            escape(&mut self.out, value);
            self.out.push('"');
        }
        if opening == ',' {
            self.out.push('}');
        }
    }
}

impl Sink for Page {
    fn metric(&mut self, name: &'static str, help: &str, kind: MetricKind) {
        self.name = prometheus(name);
        let family = match (self.format, kind) {
            (Format::OpenMetrics, MetricKind::Counter) => self.name.strip_suffix("_total").unwrap_or(&self.name),
            _ => &self.name,
        };
        let kind = match kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge | MetricKind::Level => "gauge",
            MetricKind::Histogram => "histogram",
        };
        let _ = write!(self.out, "# HELP {family} {help}\n# TYPE {family} {kind}\n");
    }

    fn value(&mut self, labels: &[(&str, &str)], value: impl Into<Number>) {
        self.series("", labels, None);
        let _ = writeln!(self.out, " {}", value.into());
    }

    fn histogram(&mut self, labels: &[(&str, &str)], snapshot: &Snapshot) {
        let mut cumulated = 0;
        for (bucket, count) in snapshot.counts.iter().enumerate() {
            cumulated += count;
            match snapshot.limits.get(bucket) {
                Some(limit) => {
                    let limit = (*limit as f64 / snapshot.per_unit).to_string();
                    self.series("_bucket", labels, Some(("le", &limit)));
                }
                None => self.series("_bucket", labels, Some(("le", "+Inf"))),
            }
            let _ = write!(self.out, " {cumulated}");
            if let (Format::OpenMetrics, Some(Some(exemplar))) = (self.format, snapshot.exemplars.get(bucket)) {
                self.exemplar(exemplar);
            }
            self.out.push('\n');
        }
        self.series("_sum", labels, None);
        let _ = writeln!(self.out, " {}", snapshot.sum as f64 / snapshot.per_unit);
        self.series("_count", labels, None);
        let _ = writeln!(self.out, " {cumulated}");
    }
}

fn escape(out: &mut String, value: &str) {
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use actors::clock::Millis;
    use actors::metrics::{Short, Times};
    use actors::trace::TraceContext;
    use std::time::Duration;

    use super::*;

    fn page(format: Format) -> String {
        let mut page = Page::new(format);
        page.metric("things_total", "Things.", MetricKind::Counter);
        page.value(&[("kind", "a \"b\"\\\n")], 3_u64);
        page.metric("took_seconds", "How long.", MetricKind::Histogram);
        let took = Times::<Short>::default();
        let of = TraceContext { trace_id: [1; 16], span_id: [2; 8], flags: 1 };
        took.observe(Duration::from_micros(60), Some(of), || Millis(1_735_689_600_000));
        page.histogram(&[], &took.snapshot());
        page.finish()
    }

    #[test]
    fn the_plain_format_has_cumulated_buckets_and_no_exemplars() {
        let text = page(Format::Text);
        assert!(text.starts_with("# HELP things_total Things.\n# TYPE things_total counter\n"), "{text}");
        assert!(text.contains("things_total{kind=\"a \\\"b\\\"\\\\\\n\"} 3\n"), "{text}");
        assert!(
            text.contains("took_seconds_bucket{le=\"0.00005\"} 0\ntook_seconds_bucket{le=\"0.0001\"} 1\n"),
            "{text}"
        );
        assert!(text.ends_with("took_seconds_bucket{le=\"+Inf\"} 1\ntook_seconds_sum 0.00006\ntook_seconds_count 1\n"));
    }

    #[test]
    fn openmetrics_names_counters_without_their_suffix_and_shows_exemplars() {
        let text = page(Format::OpenMetrics);
        assert!(text.starts_with("# HELP things Things.\n# TYPE things counter\nthings_total{"), "{text}");
        let exemplar =
            "# {trace_id=\"01010101010101010101010101010101\",span_id=\"0202020202020202\"} 0.00006 1735689600";
        assert!(text.contains(&format!("took_seconds_bucket{{le=\"0.0001\"}} 1 {exemplar}\n")), "{text}");
        assert!(text.ends_with("\n# EOF\n"));
    }
}
