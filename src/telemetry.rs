//! Telemetry: log lines on standard error, and traces and metrics by OTLP if a receiver is configured.
//!
//! Spans come in two kinds. A *stage* of a message's life crosses mailboxes, batches and processes; the actors and the
//! front door report it when it has ended (`actors::trace`), including calls of models, tools and receivers. A *piece of
//! code* within a stage is a span of `tracing` and comes through `tracing-opentelemetry`; the program opens none unless
//! it is built with them for measuring ([`SPANS`]). Both wait in the same bounded queue ([`span_queue`]) and are sent by
//! the same thread ([`export`]). See `docs/TELEMETRY.md`.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actors::clock::{Clock as _, SystemClock};
use actors::trace::Traces;
use actors::trace::underway::Underway;
use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::TelemetryResourceDetector;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::{EnvFilter, filter, fmt, registry};

use crate::config::{Config, LogFormat};
use crate::metrics::Sources;
use crate::secret::{NoRandomness, random};

mod clock_anchor;
mod code;
pub mod export;
mod failure_log;
mod log;
mod otlp;
pub mod push;
pub mod sampling;
mod sender;
pub mod span_queue;

use export::Export;
use push::Push;
use sampling::Sampling;
use span_queue::{Recorder, SpanQueue};

/// The target of exported `tracing` spans, as parts of the stage that the code works for; others are not exported.
pub const SPANS: &str = "tertulia::span";

/// Why no log could be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is invalid; a checked [`Config`] has no such filter.
    #[error("cannot read the log filter: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// One was set up in this process already.
    #[error("logging is already set up")]
    Twice(#[from] tracing::subscriber::SetGlobalDefaultError),
    /// Traces are configured and cannot be sent.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// The instance id of this process could not be generated.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

/// Why nothing can be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The HTTP client could not be created.
    #[error("cannot export telemetry: cannot create the HTTP client: {0}")]
    Client(#[from] reqwest::Error),
    /// The receiver's address is invalid for gRPC.
    #[error("cannot export telemetry: {0}")]
    Channel(#[from] tonic::transport::Error),
    /// There is no TLS.
    #[error("cannot export telemetry: cannot configure TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The receiver's certificates cannot be checked.
    #[error("cannot export telemetry: {0}, which an OTEL_EXPORTER_OTLP_…CERTIFICATE names, cannot be used: {1}")]
    Certificates(PathBuf, String),
    /// There is no thread for it.
    #[error("cannot export traces: {0}")]
    Thread(#[from] io::Error),
}

/// The running telemetry of a process.
#[derive(Debug)]
pub struct Telemetry {
    /// The resource of this process.
    resource: Resource,
    sampling: Arc<Sampling>,
    exporting: Option<(Export, Arc<SpanQueue>)>,
    /// The list of running stages, if it is kept.
    underway: Option<Arc<Underway>>,
}

/// Sends the log lines of the whole process to standard error, panics too, so that all lines have one form, and traces
/// to their receiver.
///
/// # Errors
/// See [`TelemetryError`].
pub fn init(config: &Config) -> Result<Telemetry, TelemetryError> {
    let (telemetry, provider) = Telemetry::start(config)?;
    let spans = provider.as_ref().map(code::layer);
    let subscriber = subscriber(&config.log_filter, config.log_format, io::stderr, spans)?;
    tracing::subscriber::set_global_default(subscriber)?;
    std::panic::set_hook(Box::new(|panic| {
        let at = panic.location().map(ToString::to_string).unwrap_or_default();
        let words = panic.payload_as_str().unwrap_or("not text");
        tracing::error!(panic = words, at, "panicked");
    }));
    for complaint in &config.otel.complaints {
        tracing::warn!("{complaint}");
    }
    if let Some(receiver) = &config.otel.receiver {
        tracing::info!(protocol = ?receiver.protocol, sampler = %config.otel.sampler, "traces are exported");
    }
    Ok(telemetry)
}

/// Logs to standard error without the log's filter: for lines that nobody must miss.
pub fn unfiltered(format: LogFormat, log: impl FnOnce()) {
    // It fails only for an invalid filter.
    if let Ok(subscriber) = subscriber("trace", format, io::stderr, None::<LevelFilter>) {
        tracing::subscriber::with_default(subscriber, log);
    }
}

impl Telemetry {
    /// Starts the export, if there is a receiver; the provider is for spans of `tracing`.
    ///
    /// # Errors
    /// See [`TelemetryError`].
    pub(crate) fn start(config: &Config) -> Result<(Self, Option<SdkTracerProvider>), TelemetryError> {
        let sampling = Arc::new(Sampling::new(config));
        let underway = config.task_list.then(Arc::default);
        let resource = resource(&random()?[..16], &config.otel.attributes);
        let Some(receiver) = &config.otel.receiver else {
            return Ok((Self { resource, sampling, exporting: None, underway }, None));
        };
        let waiting = Arc::new(SpanQueue::new(config.otel.batching));
        let export = Export::start(receiver, &resource, Arc::clone(&waiting))?;
        let provider = code::provider(Arc::clone(&waiting));
        Ok((Self { resource, sampling, exporting: Some((export, waiting)), underway }, Some(provider)))
    }

    /// The destination of the actors' spans.
    #[must_use]
    pub fn traces(&self) -> Traces {
        let traces = match &self.exporting {
            None => Traces::default(),
            Some((_, waiting)) => {
                let recorder = Recorder { waiting: Arc::clone(waiting), sampling: Arc::clone(&self.sampling) };
                Traces::to(Arc::new(recorder))
            }
        };
        traces.listed(self.underway.clone())
    }

    /// The queue of spans, if they are sent.
    #[must_use]
    pub fn span_queue(&self) -> Option<&Arc<SpanQueue>> {
        self.exporting.as_ref().map(|(_, waiting)| waiting)
    }

    /// Sends metrics too, if they have a receiver.
    ///
    /// # Errors
    /// See [`TelemetryError`].
    pub fn push(&self, config: &Config, sources: Sources) -> Result<Option<Push>, TelemetryError> {
        let Some(pushing) = &config.otel.metrics else { return Ok(None) };
        let nanos = || SystemClock.now().0.saturating_mul(1_000_000);
        let began = nanos();
        Ok(Some(Push::start(pushing, &self.resource, move || sources.collect(began, nanos()))?))
    }

    /// Sends the queued spans, within this time.
    pub async fn finish(self, within: Duration) {
        if let Some((export, _)) = self.exporting {
            export.finish(within).await;
        }
    }
}

/// The resource of this process, common to all its spans; attributes of the environment come first.
fn resource(instance: &[u8], said: &[(String, String)]) -> Resource {
    let id: String = crate::trace_context::Hex(instance).to_string();
    let own = [
        ("service.name", "tertulia".to_owned()),
        ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
        ("service.instance.id", id),
    ];
    let own = own.into_iter().filter(|(name, _)| !said.iter().any(|(said, _)| said == name));
    let said = said.iter().map(|(name, value)| KeyValue::new(name.clone(), value.clone()));
    let attributes = own.map(|(name, value)| KeyValue::new(name, value)).chain(said);
    Resource::builder_empty().with_detector(Box::new(TelemetryResourceDetector)).with_attributes(attributes).build()
}

/// The subscriber that turns events into lines, and exports spans.
///
/// # Errors
/// If the filter is invalid.
pub fn subscriber<W, L>(
    filter: &str,
    format: LogFormat,
    writer: W,
    spans: Option<L>,
) -> Result<Box<dyn Subscriber + Send + Sync>, tracing_subscriber::filter::ParseError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
    L: Layer<registry::Registry> + Send + Sync,
{
    let lines = fmt::layer().event_format(format).with_writer(writer).with_ansi(false);
    // Spans of exported code are not for the log; filtering them there would cost each of them.
    let lines =
        lines.with_filter(EnvFilter::try_new(filter)?).with_filter(filter::filter_fn(|metadata| metadata.is_event()));
    // Evaluated once per callsite. Without it a span that neither layer wants is still created, and a library's span
    // that lasts as long as an actor is entered with each of its messages.
    let known = filter::filter_fn(|metadata| metadata.is_event() || code::is_ours(metadata));
    Ok(Box::new(registry().with(spans).with(lines).with(known)))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::{Arc, LazyLock, Mutex};

    use tracing::Dispatch;
    use tracing_subscriber::registry;

    use super::*;
    use crate::config::ConfigArgs;

    /// While a process has only one subscriber, a callsite first reached by another thread is evaluated by that
    /// thread's own subscriber, so by none, and is then off for all. Two that live as long as the process prevent that.
    static KEPT: LazyLock<[Dispatch; 2]> = LazyLock::new(|| [Dispatch::new(registry()), Dispatch::new(registry())]);

    /// The configuration with only these environment variables.
    pub(crate) fn config(env: &[(&str, &str)]) -> Config {
        let env = |name: &str| env.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        Config::load(&ConfigArgs::default(), &env, &|_| Err(io::ErrorKind::NotFound.into())).unwrap()
    }

    /// Log lines kept for a test to read.
    #[derive(Clone, Default)]
    pub(crate) struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Lines {
        /// A subscriber that logs to these lines.
        pub(crate) fn subscriber(&self, filter: &str, format: LogFormat) -> Box<dyn Subscriber + Send + Sync> {
            LazyLock::force(&KEPT);
            let writer = self.clone();
            subscriber(filter, format, move || writer.clone(), None::<LevelFilter>).unwrap()
        }

        /// The lines so far.
        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(filter: &str, format: LogFormat, log: impl FnOnce()) -> String {
        let lines = Lines::default();
        tracing::subscriber::with_default(lines.subscriber(filter, format), log);
        lines.text()
    }

    #[test]
    fn configured_resource_attributes_override_the_defaults() {
        let said = [("service.version", "mine"), ("team", "a,b")].map(|(name, value)| (name.into(), value.into()));
        let resource = resource(&[1; 16], &said);
        let told =
            |name: &'static str| resource.get_ref(&opentelemetry::Key::from_static_str(name)).map(ToString::to_string);
        let names = ["service.name", "service.version", "team", "service.instance.id"];
        let expected = ["tertulia", "mine", "a,b", &"01".repeat(16)].map(|value| Some(value.to_owned()));
        assert_eq!(names.map(told), expected);
        assert!(told("telemetry.sdk.name").is_some());
    }

    #[test]
    fn the_task_list_is_shared_and_exists_only_if_enabled() {
        let telemetry = |env: &[_]| Telemetry::start(&config(env)).unwrap().0;
        assert!(telemetry(&[]).traces().underway().is_none());
        let telemetry = telemetry(&[("TERTULIA_TASK_LIST", "true")]);
        let front = telemetry.traces();
        let node = telemetry.traces();
        assert!(Arc::ptr_eq(front.underway().unwrap(), node.underway().unwrap()));
    }

    #[test]
    fn a_json_line_has_its_ids_as_fields() {
        let line = logged("info", LogFormat::Json, || tracing::info!(request.id = "req_1", "done"));
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            (&line["request.id"], &line["message"], &line["level"]),
            (&"req_1".into(), &"done".into(), &"INFO".into())
        );
        assert!(line["timestamp"].is_string());
    }

    #[test]
    fn a_text_line_is_one_line_without_colours() {
        let line = logged("info", LogFormat::Text, || tracing::info!(request.id = "req_1", "done"));
        assert!(line.contains("done request.id=\"req_1\"") && !line.contains('\u{1b}'), "{line:?}");
        assert_eq!(line.lines().count(), 1);
    }

    #[test]
    fn a_span_that_is_not_exported_is_never_made() {
        tracing::subscriber::with_default(Lines::default().subscriber("trace", LogFormat::Text), || {
            assert!(tracing::info_span!(target: "ractor::actor", "Actor").is_disabled());
            assert!(!tracing::info_span!(target: SPANS, "GET /who").is_disabled());
        });
    }

    #[test]
    fn the_filter_decides_what_is_written() {
        let log = || {
            tracing::debug!(target: "tertulia::http", "request");
            tracing::debug!(target: "elsewhere", "detail");
        };
        assert_eq!(logged("info", LogFormat::Text, log), "");
        let lines = logged("info,tertulia::http=debug", LogFormat::Text, log);
        assert!(lines.contains("request") && !lines.contains("detail"));
    }
}
