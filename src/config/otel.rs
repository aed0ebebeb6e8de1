//! The `OTEL_` variables, as OpenTelemetry defines them: an invalid value is logged and then counts as absent. Only an
//! invalid endpoint ends the start, because the operator expects data there. Variables that this program ignores are
//! logged too (`unsupported`).

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::InvalidSetting;
use super::parse;
use super::print::hidden;

mod given;
mod unsupported;

/// The protocol of spans and metrics.
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

/// Bounds and pace of the export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batching {
    /// Spans in the queue; further ones are dropped.
    pub queue: usize,
    /// Spans sent together at most.
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
    /// The protocol.
    pub protocol: Protocol,
    /// The headers sent along; they may be secret, and are not shown.
    pub headers: HeaderMap,
    /// Requests are compressed.
    pub gzip: bool,
    /// How long an answer may take.
    pub timeout: Duration,
    /// The file with the certificates that sign its own; `None`: those that the platform trusts.
    pub certificates: Option<PathBuf>,
}

/// A receiver of metrics, and the schedule of sending.
#[derive(Clone, Debug, PartialEq)]
pub struct Pushing {
    /// The receiver.
    pub receiver: Receiver,
    /// How often.
    pub every: Duration,
    /// How long it may take.
    pub timeout: Duration,
}

/// Everything about the export of traces and metrics.
#[derive(Clone, Debug, PartialEq)]
pub struct Otel {
    /// The receiver of traces; `None`: none, and nothing is recorded.
    pub receiver: Option<Receiver>,
    /// The receiver of metrics, beside the scraped page; `None`: none.
    pub metrics: Option<Pushing>,
    /// Which traces are recorded.
    pub sampler: Sampler,
    /// Bounds and pace.
    pub batching: Batching,
    /// Resource attributes of this process, name and value, beside and before its own.
    pub attributes: Vec<(String, String)>,
    /// The variables that were not understood, a sentence each.
    pub complaints: Vec<String>,
    /// The variables that are set and have an effect here, with their values as they may be shown.
    pub given: Vec<(&'static str, String)>,
}

/// The names of one OpenTelemetry signal.
struct Signal {
    exporter: &'static str,
    endpoint: &'static str,
    protocol: &'static str,
    headers: &'static str,
    compression: &'static str,
    timeout: &'static str,
    certificate: &'static str,
    path: &'static str,
}

const TRACES: Signal = Signal {
    exporter: "OTEL_TRACES_EXPORTER",
    endpoint: "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    protocol: "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    headers: "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
    compression: "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION",
    timeout: "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
    certificate: "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE",
    path: "/v1/traces",
};
const METRICS: Signal = Signal {
    exporter: "OTEL_METRICS_EXPORTER",
    endpoint: "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
    protocol: "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL",
    headers: "OTEL_EXPORTER_OTLP_METRICS_HEADERS",
    compression: "OTEL_EXPORTER_OTLP_METRICS_COMPRESSION",
    timeout: "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT",
    certificate: "OTEL_EXPORTER_OTLP_METRICS_CERTIFICATE",
    path: "/v1/metrics",
};
/// The default interval of metrics.
const METRICS_INTERVAL: Duration = Duration::from_secs(60);
/// A node at full speed makes this many spans in half a second; about 400 bytes each.
const QUEUED_SPANS: usize = 32_768;
/// A longer queue would take gigabytes.
const MAX_QUEUED_SPANS: usize = 1 << 24;
/// With 64 links each, this many spans usually stay below the 4 MiB that receivers accept at once; of more bytes, fewer
/// are sent together.
const SPANS_PER_BATCH: usize = 1_024;
/// Shorter than OpenTelemetry's 5 s, so that a trace is there when an operator looks for it.
const BATCH_DELAY: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(30);
/// The default timeout of an export.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// No limit: longer than any process lives, and short enough for arithmetic.
const NO_LIMIT: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// The port that is registered for OTLP over gRPC.
const GRPC_PORT: u16 = 4317;

impl Otel {
    /// Reads the variables; `endpoint` is the setting that may also be in a file. An invalid endpoint is added to
    /// `wrong`.
    #[must_use]
    pub fn read(env: &dyn Fn(&str) -> Option<String>, endpoint: Option<&str>, wrong: &mut Vec<InvalidSetting>) -> Self {
        let mut reader = Reader { env, complaints: Vec::new() };
        let [of_traces, of_metrics] =
            [&TRACES, &METRICS].map(|signal| SignalEndpoint::of(&reader, signal, endpoint, wrong));
        let sampler = reader.sampler();
        let batching = reader.batching();
        let attributes = reader.attributes();
        let receiver = reader.receiver(&TRACES, of_traces);
        let metrics = reader.pushing(of_metrics);
        unsupported::tell(&mut reader);
        let given = given::shown(&reader);
        Self { receiver, metrics, sampler, batching, attributes, complaints: reader.complaints, given }
    }
}

/// The destination of a signal.
struct SignalEndpoint {
    url: url::Url,
    /// It is for this signal alone, so it is the whole URL; the general one is the base of every signal's path.
    is_whole: bool,
}

impl SignalEndpoint {
    /// `None` if it is not exported. A configured endpoint that is invalid is added to `wrong`.
    fn of(
        reader: &Reader<'_>,
        signal: &Signal,
        general: Option<&str>,
        wrong: &mut Vec<InvalidSetting>,
    ) -> Option<Self> {
        let own = reader.get(signal.endpoint);
        if let Some(Err(allowed)) = own.as_deref().map(parse::endpoint) {
            let value = own.as_deref().map(|own| hidden(own).into_owned());
            wrong.push(InvalidSetting { name: signal.endpoint.to_owned(), value, allowed });
        }
        // The general one was checked before, like other settings.
        let url = url::Url::parse(own.as_deref().or(general)?).ok()?;
        Some(Self { url, is_whole: own.is_some() })
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
        // Common variables are read for both traces and metrics.
        if !self.complaints.contains(&complaint) {
            self.complaints.push(complaint);
        }
    }

    fn exports(&mut self, signal: &Signal) -> bool {
        if self.is_disabled() {
            return false;
        }
        let Some(exporters) = self.get(signal.exporter) else { return true };
        let is = |exporter: &str, word: &str| exporter.eq_ignore_ascii_case(word);
        let names = || exporters.split(',').map(str::trim).filter(|exporter| !exporter.is_empty());
        let exports = names().any(|exporter| is(exporter, "otlp"));
        let used = if exports { "otlp" } else { "none" };
        for exporter in names().filter(|exporter| !is(exporter, "otlp") && !is(exporter, "none")) {
            self.complain(signal.exporter, exporter, &format!("only otlp and none are supported; {used} is used"));
        }
        exports
    }

    /// By OpenTelemetry's rules, true is one word only.
    fn is_disabled(&mut self) -> bool {
        let name = "OTEL_SDK_DISABLED";
        let Some(value) = self.get(name) else { return false };
        match &*value.to_ascii_lowercase() {
            "true" => return true,
            "false" => {}
            _ => self.complain(name, &value, "only true and false are supported; false is used"),
        }
        false
    }

    fn receiver(&mut self, signal: &Signal, place: Option<SignalEndpoint>) -> Option<Receiver> {
        let SignalEndpoint { mut url, is_whole } = place.filter(|_| self.exports(signal))?;
        let protocol = self.protocol(signal, &url);
        if protocol == Protocol::Http && !is_whole {
            let path = format!("{}{}", url.path().trim_end_matches('/'), signal.path);
            url.set_path(&path);
        }
        let headers = self.headers(signal);
        let gzip = self.gzip(signal);
        let usual = self.timeout("OTEL_EXPORTER_OTLP_TIMEOUT", ANSWER_TIMEOUT);
        let timeout = self.timeout(signal.timeout, usual);
        let certificates = self.get(signal.certificate).or_else(|| self.get("OTEL_EXPORTER_OTLP_CERTIFICATE"));
        // Without TLS there are no certificates to trust.
        let certificates = certificates.filter(|_| url.scheme() == "https").map(PathBuf::from);
        Some(Receiver { endpoint: url.into(), protocol, headers, gzip, timeout, certificates })
    }

    fn pushing(&mut self, place: Option<SignalEndpoint>) -> Option<Pushing> {
        let receiver = self.receiver(&METRICS, place)?;
        let every = self.duration("OTEL_METRIC_EXPORT_INTERVAL", METRICS_INTERVAL, 1);
        let timeout = self.timeout("OTEL_METRIC_EXPORT_TIMEOUT", TIMEOUT);
        Some(Pushing { receiver, every, timeout })
    }

    /// The attributes of `OTEL_RESOURCE_ATTRIBUTES`, names and values in percent encoding, preceded by
    /// `OTEL_SERVICE_NAME`. If a part of it is invalid, all of it counts as absent, by OpenTelemetry's rules.
    fn attributes(&mut self) -> Vec<(String, String)> {
        let name = "OTEL_RESOURCE_ATTRIBUTES";
        let given = self.get(name).unwrap_or_default();
        let decoded =
            |text: &str| percent_encoding::percent_decode_str(text.trim()).decode_utf8().ok().map(String::from);
        let pairs = given.split(',').filter(|pair| !pair.trim().is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=')?;
            Some((decoded(name).filter(|name| !name.is_empty())?, decoded(value)?))
        });
        let pairs: Option<Vec<_>> = pairs.collect();
        if pairs.is_none() {
            self.complain(name, &given, "comma-separated name=value pairs are needed; the setting is ignored");
        }
        let mut pairs = pairs.unwrap_or_default();
        if let Some(service) = self.get("OTEL_SERVICE_NAME") {
            pairs.retain(|(name, _)| name != "service.name");
            pairs.push(("service.name".to_owned(), service));
        }
        pairs
    }

    /// `name=value` pairs with commas between them, values in percent encoding; the signal's own come first.
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
                    None => self.tell(format!("{name} has a pair that is not a valid header; it is not sent")),
                }
            }
        }
        headers
    }

    fn gzip(&mut self, signal: &Signal) -> bool {
        let known = [("gzip", true), ("none", false)];
        self.choice([signal.compression, "OTEL_EXPORTER_OTLP_COMPRESSION"], known, false)
    }

    fn protocol(&mut self, signal: &Signal, url: &url::Url) -> Protocol {
        let usual = if url.port() == Some(GRPC_PORT) { Protocol::Grpc } else { Protocol::Http };
        let known = [("grpc", Protocol::Grpc), ("http/protobuf", Protocol::Http)];
        self.choice([signal.protocol, "OTEL_EXPORTER_OTLP_PROTOCOL"], known, usual)
    }

    /// The value of the first of these variables that has one of two known values, else the usual one.
    fn choice<T: Copy + PartialEq>(&mut self, names: [&str; 2], known: [(&str, T); 2], usual: T) -> T {
        let mut choice = usual;
        let mut unknown = Vec::new();
        for name in names {
            let Some(value) = self.get(name) else { continue };
            if let Some((_, found)) = known.iter().find(|(word, _)| word.eq_ignore_ascii_case(&value)) {
                choice = *found;
                break;
            }
            unknown.push((name, value));
        }
        let [one, other] = known;
        let used = if choice == one.1 { one.0 } else { other.0 };
        for (name, value) in unknown {
            self.complain(name, &value, &format!("only {} and {} are supported; {used} is used", one.0, other.0));
        }
        choice
    }

    fn sampler(&mut self) -> Sampler {
        let usual = Sampler { root: Root::Always, parent_based: true };
        let Some(given) = self.get("OTEL_TRACES_SAMPLER") else { return usual };
        let name = given.to_ascii_lowercase();
        let (name, parent_based) = match name.strip_prefix("parentbased_") {
            Some(name) => (name, true),
            None => (&*name, false),
        };
        let root = match name {
            "always_on" => Root::Always,
            "always_off" => Root::Never,
            "traceidratio" => Root::Ratio(self.ratio()),
            _ => {
                self.complain("OTEL_TRACES_SAMPLER", &given, "parentbased_always_on is used");
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
        let queue = self.number_within("OTEL_BSP_MAX_QUEUE_SIZE", QUEUED_SPANS, MAX_QUEUED_SPANS);
        let batch = self.number_within("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", SPANS_PER_BATCH.min(queue), queue);
        let delay = self.duration("OTEL_BSP_SCHEDULE_DELAY", BATCH_DELAY, 0);
        let timeout = self.timeout("OTEL_BSP_EXPORT_TIMEOUT", TIMEOUT);
        Batching { queue, batch, delay, timeout }
    }

    /// A number from 1; a larger one than `most` counts as that.
    fn number_within(&mut self, name: &str, usual: usize, most: usize) -> usize {
        let number = self.number(name, usual as u64, 1);
        if number > most as u64 {
            self.complain(name, &number.to_string(), &format!("{most} is the maximum here and is used"));
        }
        number.min(most as u64) as usize
    }

    /// A number of milliseconds; 0 is no limit.
    fn timeout(&mut self, name: &str, usual: Duration) -> Duration {
        Some(self.duration(name, usual, 0)).filter(|timeout| !timeout.is_zero()).unwrap_or(NO_LIMIT)
    }

    fn duration(&mut self, name: &str, usual: Duration, least: u64) -> Duration {
        let usual_millis = usual.as_millis() as u64;
        let shown = if usual >= NO_LIMIT { "no limit".to_owned() } else { usual_millis.to_string() };
        Duration::from_millis(self.number_or(name, (usual_millis, &shown), least)).min(NO_LIMIT)
    }

    fn number(&mut self, name: &str, usual: u64, least: u64) -> u64 {
        self.number_or(name, (usual, &usual.to_string()), least)
    }

    /// A number from `least`, or else the usual one, whose text a complaint shows.
    fn number_or(&mut self, name: &str, (usual, shown): (u64, &str), least: u64) -> u64 {
        let Some(text) = self.get(name) else { return usual };
        match text.parse::<u64>() {
            Ok(number) if number >= least => number,
            _ => {
                self.complain(name, &text, &format!("a whole number from {least} is needed; {shown} is used"));
                usual
            }
        }
    }
}

#[cfg(test)]
mod tests;
