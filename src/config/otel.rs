//! The `OTEL_` variables, as OpenTelemetry defines them: a value that makes no sense is told and then counts as absent.
//! Only an endpoint that cannot be one ends the start, since whoever gives it waits for what is sent there.
//!
//! What describes this process (service name, resource attributes) is read by OpenTelemetry's own library.

use std::fmt;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::print::hidden;

/// How spans and metrics travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// gRPC.
    Grpc,
    /// HTTP with protobuf bodies.
    Http,
}

/// Whether a trace that begins here is recorded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Root {
    /// Each.
    Always,
    /// None.
    Never,
    /// This share of them, 0 to 1, chosen by the trace's id.
    Ratio(f64),
}

/// `OTEL_TRACES_SAMPLER` and its argument.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampler {
    /// For traces that begin here, or for all where the caller's choice does not count.
    pub root: Root,
    /// The choice of a caller counts.
    pub parent_based: bool,
}

/// The words of `OTEL_TRACES_SAMPLER`, and its argument where there is one.
impl fmt::Display for Sampler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.parent_based { "parentbased_" } else { "" })?;
        match self.root {
            Root::Always => f.write_str("always_on"),
            Root::Never => f.write_str("always_off"),
            Root::Ratio(ratio) => write!(f, "traceidratio {ratio}"),
        }
    }
}

/// Bounds and pace of the way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batching {
    /// Spans that may wait; further ones are dropped.
    pub queue: usize,
    /// Spans that are sent together at most.
    pub batch: usize,
    /// How long a span waits for others.
    pub delay: Duration,
    /// How long sending a batch may take, with every retry.
    pub timeout: Duration,
}

/// A receiver, and how to reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receiver {
    /// The whole URL.
    pub endpoint: String,
    /// How.
    pub protocol: Protocol,
    /// What is sent along; it may be secret, and is not shown.
    pub headers: HeaderMap,
    /// Requests are compressed.
    pub gzip: bool,
    /// How long an answer may take.
    pub timeout: Duration,
}

/// A receiver of metrics, and how they are sent there.
#[derive(Clone, Debug, PartialEq)]
pub struct Pushing {
    /// Where to.
    pub receiver: Receiver,
    /// How often.
    pub every: Duration,
    /// How long it may take.
    pub timeout: Duration,
}

/// Everything about the export of traces and metrics.
#[derive(Clone, Debug, PartialEq)]
pub struct Otel {
    /// Where traces are sent; `None`: nowhere, and nothing is recorded.
    pub receiver: Option<Receiver>,
    /// Where metrics are sent, beside the page that they are scraped from; `None`: nowhere.
    pub metrics: Option<Pushing>,
    /// Which traces are recorded.
    pub sampler: Sampler,
    /// Bounds and pace.
    pub batching: Batching,
    /// What of the variables was not understood, a sentence each.
    pub complaints: Vec<String>,
}

/// What OpenTelemetry has for one of its signals.
struct Signal {
    exporter: &'static str,
    endpoint: &'static str,
    protocol: &'static str,
    headers: &'static str,
    compression: &'static str,
    timeout: &'static str,
    path: &'static str,
}

const TRACES: Signal = Signal {
    exporter: "OTEL_TRACES_EXPORTER",
    endpoint: "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    protocol: "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    headers: "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
    compression: "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION",
    timeout: "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
    path: "/v1/traces",
};
const METRICS: Signal = Signal {
    exporter: "OTEL_METRICS_EXPORTER",
    endpoint: "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
    protocol: "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL",
    headers: "OTEL_EXPORTER_OTLP_METRICS_HEADERS",
    compression: "OTEL_EXPORTER_OTLP_METRICS_COMPRESSION",
    timeout: "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT",
    path: "/v1/metrics",
};
/// How often metrics are sent where nobody says.
const EVERY: Duration = Duration::from_secs(60);
/// A node at full speed makes this many spans in half a second; about 400 bytes each.
const QUEUE: usize = 32_768;
/// With 64 links each, this many spans stay below the 4 MiB that receivers take at once.
const BATCH: usize = 1_024;
/// Shorter than OpenTelemetry's 5 s, so that a trace is there when somebody goes to look for it.
const DELAY: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long an answer may take where nobody says.
const ANSWER: Duration = Duration::from_secs(10);
/// The port that is registered for OTLP over gRPC.
const GRPC_PORT: u16 = 4317;

impl Otel {
    /// Reads the variables; `endpoint` is the setting that has a place in files too.
    #[must_use]
    pub fn read(env: &dyn Fn(&str) -> Option<String>, endpoint: Option<&str>) -> Self {
        let mut reader = Reader { env, complaints: Vec::new() };
        let sampler = reader.sampler();
        let batching = reader.batching();
        let receiver = if reader.exports(&TRACES) { reader.receiver(&TRACES, endpoint) } else { None };
        let metrics = if reader.exports(&METRICS) { reader.pushing(endpoint) } else { None };
        Self { receiver, metrics, sampler, batching, complaints: reader.complaints }
    }
}

struct Reader<'a> {
    env: &'a dyn Fn(&str) -> Option<String>,
    complaints: Vec<String>,
}

impl Reader<'_> {
    fn get(&self, name: &str) -> Option<String> {
        (self.env)(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    fn complain(&mut self, name: &str, value: &str, instead: &str) {
        self.tell(format!("{name} is {:?}; {instead}", hidden(value)));
    }

    fn tell(&mut self, complaint: String) {
        // What concerns traces and metrics is read for each of them.
        if !self.complaints.contains(&complaint) {
            self.complaints.push(complaint);
        }
    }

    fn exports(&mut self, signal: &Signal) -> bool {
        if self.get("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return false;
        }
        let Some(exporters) = self.get(signal.exporter) else { return true };
        for exporter in exporters.split(',').map(str::trim) {
            match exporter {
                "otlp" => return true,
                "none" => {}
                other => self.complain(signal.exporter, other, "only otlp and none are known"),
            }
        }
        false
    }

    fn receiver(&mut self, signal: &Signal, endpoint: Option<&str>) -> Option<Receiver> {
        let own = self.get(signal.endpoint);
        let given = own.as_deref().or(endpoint)?;
        let Some(mut url) = url::Url::parse(given).ok().filter(|url| matches!(url.scheme(), "http" | "https")) else {
            self.complain(signal.endpoint, given, "an http or https URL is needed");
            return None;
        };
        let protocol = self.protocol(signal, &url);
        // What is meant for one signal alone is the whole URL; the general one is where every signal's path begins.
        if protocol == Protocol::Http && own.is_none() {
            let path = format!("{}{}", url.path().trim_end_matches('/'), signal.path);
            url.set_path(&path);
        }
        let (headers, gzip) = (self.headers(signal), self.gzip(signal));
        let usual = self.number("OTEL_EXPORTER_OTLP_TIMEOUT", ANSWER.as_millis() as u64, 1);
        let timeout = Duration::from_millis(self.number(signal.timeout, usual, 1));
        Some(Receiver { endpoint: url.into(), protocol, headers, gzip, timeout })
    }

    fn pushing(&mut self, endpoint: Option<&str>) -> Option<Pushing> {
        let receiver = self.receiver(&METRICS, endpoint)?;
        let every = self.number("OTEL_METRIC_EXPORT_INTERVAL", EVERY.as_millis() as u64, 1);
        let timeout = self.number("OTEL_METRIC_EXPORT_TIMEOUT", TIMEOUT.as_millis() as u64, 1);
        let (every, timeout) = (Duration::from_millis(every), Duration::from_millis(timeout));
        Some(Pushing { receiver, every, timeout })
    }

    /// `name=value` pairs with commas between them, values in percent encoding; those of the signal go before.
    fn headers(&mut self, signal: &Signal) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for name in ["OTEL_EXPORTER_OTLP_HEADERS", signal.headers] {
            for pair in self.get(name).unwrap_or_default().split(',').filter(|pair| !pair.trim().is_empty()) {
                let parsed = pair.split_once('=').and_then(|(header, value)| {
                    let header = HeaderName::try_from(header.trim()).ok()?;
                    let value: Vec<u8> = percent_encoding::percent_decode_str(value.trim()).collect();
                    Some((header, HeaderValue::from_bytes(&value).ok()?))
                });
                match parsed {
                    Some((header, mut value)) => {
                        value.set_sensitive(true);
                        headers.insert(header, value);
                    }
                    // The pair may be a secret.
                    None => self.tell(format!("{name} has a pair that is no header; it is not sent")),
                }
            }
        }
        headers
    }

    fn gzip(&mut self, signal: &Signal) -> bool {
        let known = [("gzip", true), ("none", false)];
        self.choice([signal.compression, "OTEL_EXPORTER_OTLP_COMPRESSION"], known).unwrap_or(false)
    }

    fn protocol(&mut self, signal: &Signal, url: &url::Url) -> Protocol {
        let usual = if url.port() == Some(GRPC_PORT) { Protocol::Grpc } else { Protocol::Http };
        let known = [("grpc", Protocol::Grpc), ("http/protobuf", Protocol::Http)];
        self.choice([signal.protocol, "OTEL_EXPORTER_OTLP_PROTOCOL"], known).unwrap_or(usual)
    }

    /// What the first of these variables says that has one of two known values.
    fn choice<T: Copy>(&mut self, names: [&str; 2], known: [(&str, T); 2]) -> Option<T> {
        for name in names {
            let Some(value) = self.get(name) else { continue };
            if let Some((_, choice)) = known.iter().find(|(word, _)| *word == value) {
                return Some(*choice);
            }
            self.complain(name, &value, &format!("only {} and {} are known", known[0].0, known[1].0));
        }
        None
    }

    fn sampler(&mut self) -> Sampler {
        let usual = Sampler { root: Root::Always, parent_based: true };
        let Some(name) = self.get("OTEL_TRACES_SAMPLER") else { return usual };
        let (name, parent_based) = match name.strip_prefix("parentbased_") {
            Some(name) => (name.to_owned(), true),
            None => (name, false),
        };
        let root = match name.as_str() {
            "always_on" => Root::Always,
            "always_off" => Root::Never,
            "traceidratio" => Root::Ratio(self.ratio()),
            other => {
                self.complain("OTEL_TRACES_SAMPLER", other, "parentbased_always_on is used");
                return usual;
            }
        };
        Sampler { root, parent_based }
    }

    fn ratio(&mut self) -> f64 {
        let Some(text) = self.get("OTEL_TRACES_SAMPLER_ARG") else { return 1.0 };
        match text.parse::<f64>() {
            Ok(ratio) if (0.0..=1.0).contains(&ratio) => ratio,
            _ => {
                self.complain("OTEL_TRACES_SAMPLER_ARG", &text, "a number from 0 to 1 is needed; 1 is used");
                1.0
            }
        }
    }

    fn batching(&mut self) -> Batching {
        let queue = self.number("OTEL_BSP_MAX_QUEUE_SIZE", QUEUE as u64, 1) as usize;
        let batch = self.number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", BATCH as u64, 1) as usize;
        let delay = self.number("OTEL_BSP_SCHEDULE_DELAY", DELAY.as_millis() as u64, 0);
        let timeout = self.number("OTEL_BSP_EXPORT_TIMEOUT", TIMEOUT.as_millis() as u64, 1);
        Batching {
            queue: queue.min(1 << 24),
            batch: batch.min(queue),
            delay: Duration::from_millis(delay),
            timeout: Duration::from_millis(timeout),
        }
    }

    fn number(&mut self, name: &str, usual: u64, least: u64) -> u64 {
        let Some(text) = self.get(name) else { return usual };
        match text.parse::<u64>() {
            Ok(number) if number >= least => number,
            _ => {
                self.complain(name, &text, &format!("a number is needed; {usual} is used"));
                usual
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_go_where_traces_go_with_the_headers_of_both_unless_they_are_told_otherwise() {
        let endpoint = Some("http://localhost:4318");
        let env = [
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=seven, authorization=Bearer%20a"),
            ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "x-tenant=eight,%,=b,c=%0a"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "5000"),
        ];
        let Otel { metrics, complaints, .. } = read(&env, endpoint);
        let pushing = metrics.unwrap();
        assert_eq!(pushing.receiver.endpoint, "http://localhost:4318/v1/metrics");
        let headers = &pushing.receiver.headers;
        assert_eq!(
            (&headers["x-tenant"], &headers["authorization"]),
            (&"eight".parse().unwrap(), &"Bearer a".parse().unwrap())
        );
        assert_eq!((pushing.every, headers.len(), complaints.len()), (Duration::from_secs(5), 2, 1));
        assert!(!format!("{pushing:?}").contains("Bearer"), "headers may be secret");
        let off = [("OTEL_METRICS_EXPORTER", "none")];
        let Otel { metrics, receiver, .. } = read(&off, endpoint);
        assert!(metrics.is_none() && receiver.is_some());
    }

    fn read(env: &[(&str, &str)], endpoint: Option<&str>) -> Otel {
        let env = |name: &str| env.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        Otel::read(&env, endpoint)
    }

    fn receiver(env: &[(&str, &str)], endpoint: Option<&str>) -> Option<(String, Protocol)> {
        read(env, endpoint).receiver.map(|receiver| (receiver.endpoint, receiver.protocol))
    }

    #[test]
    fn without_an_endpoint_nothing_is_exported() {
        assert_eq!(receiver(&[], None), None);
        for off in [("OTEL_SDK_DISABLED", "TRUE"), ("OTEL_TRACES_EXPORTER", "none")] {
            assert_eq!(receiver(&[off], Some("http://localhost:4317")), None, "{off:?}");
        }
        let console = read(&[("OTEL_TRACES_EXPORTER", "console")], Some("http://localhost:4317"));
        assert_eq!((console.receiver, console.complaints.len()), (None, 1));
    }

    #[test]
    fn the_path_of_the_signal_is_added_to_the_general_endpoint_only() {
        let http = ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");
        let whole = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://otel.example/in/traces");
        for (env, endpoint, expected) in [
            (&[http][..], "http://localhost:4318", "http://localhost:4318/v1/traces"),
            (&[http], "http://localhost:4318/", "http://localhost:4318/v1/traces"),
            (&[http], "https://otel.example/otlp", "https://otel.example/otlp/v1/traces"),
            (&[http, whole], "http://localhost:4318", "https://otel.example/in/traces"),
            (&[], "http://localhost:9999", "http://localhost:9999/v1/traces"),
        ] {
            assert_eq!(receiver(env, Some(endpoint)), Some((expected.to_owned(), Protocol::Http)));
        }
    }

    #[test]
    fn compression_and_patience_of_a_signal_go_before_those_of_all() {
        let env = [
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "3000"),
            ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "none"),
            ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "700"),
        ];
        let Otel { receiver, metrics, complaints, .. } = read(&env, Some("http://localhost:4318"));
        let (traces, metrics) = (receiver.unwrap(), metrics.unwrap().receiver);
        assert_eq!((traces.gzip, traces.timeout), (false, Duration::from_secs(3)));
        assert_eq!((metrics.gzip, metrics.timeout), (true, Duration::from_millis(700)));
        assert!(complaints.is_empty());
        let zstd = read(&[("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd")], Some("http://localhost:4318"));
        assert_eq!((zstd.receiver.map(|receiver| receiver.gzip), zstd.complaints.len()), (Some(false), 1));
    }

    #[test]
    fn the_port_of_grpc_means_grpc_where_no_protocol_is_named() {
        let local = "http://localhost:4317";
        let grpc = Some(("http://localhost:4317/".to_owned(), Protocol::Grpc));
        assert_eq!(receiver(&[], Some(local)), grpc);
        assert_eq!(receiver(&[("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc")], Some(local)), grpc);
        let named = [("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")];
        assert_eq!(receiver(&named, Some(local)).map(|found| found.1), Some(Protocol::Http));
        let unknown = read(&[("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")], Some(local));
        assert_eq!((unknown.receiver.map(|r| r.protocol), unknown.complaints.len()), (Some(Protocol::Grpc), 1));
    }

    #[test]
    fn samplers_are_those_of_opentelemetry() {
        for (name, arg, root, parent_based) in [
            ("always_on", "", Root::Always, false),
            ("always_off", "", Root::Never, false),
            ("traceidratio", "0.25", Root::Ratio(0.25), false),
            ("traceidratio", "", Root::Ratio(1.0), false),
            ("parentbased_always_on", "", Root::Always, true),
            ("parentbased_always_off", "", Root::Never, true),
            ("parentbased_traceidratio", "0.01", Root::Ratio(0.01), true),
        ] {
            let otel = read(&[("OTEL_TRACES_SAMPLER", name), ("OTEL_TRACES_SAMPLER_ARG", arg)], None);
            assert_eq!((otel.sampler, otel.complaints.len()), (Sampler { root, parent_based }, 0), "{name}");
            let said = otel.sampler.to_string();
            assert_eq!(said.split(' ').next(), Some(name), "it is told in the same words");
        }
        assert_eq!(read(&[], None).sampler, Sampler { root: Root::Always, parent_based: true });
    }

    #[test]
    fn a_value_without_sense_is_told_and_the_usual_one_used() {
        let otel = read(
            &[
                ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
                ("OTEL_BSP_MAX_QUEUE_SIZE", "many"),
                ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "0"),
                ("OTEL_BSP_SCHEDULE_DELAY", "250"),
            ],
            Some("http://localhost:4318"),
        );
        assert_eq!(otel.complaints.len(), 3, "{:?}", otel.complaints);
        assert_eq!((otel.batching.queue, otel.batching.batch), (QUEUE, BATCH));
        assert_eq!(otel.batching.delay, Duration::from_millis(250));
        let ratio = [("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "2")];
        assert_eq!(read(&ratio, None).sampler.root, Root::Ratio(1.0));
    }
}
