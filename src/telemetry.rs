//! Log lines: to standard error, as JSON or as text.

use std::io;

use tracing::Subscriber;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::{EnvFilter, fmt};

use crate::config::{Config, LogFormat};

/// Why no log could be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is none; a checked [`Config`] has no such filter.
    #[error("the log filter cannot be read: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// Somebody in this process has set one up already.
    #[error("logging is set up already")]
    Twice(#[from] tracing::subscriber::SetGlobalDefaultError),
}

/// Sends the log lines of the whole process to standard error, and panics too, so that no line has another form.
///
/// # Errors
/// See [`TelemetryError`].
pub fn init(config: &Config) -> Result<(), TelemetryError> {
    tracing::subscriber::set_global_default(subscriber(&config.log_filter, config.log_format, io::stderr)?)?;
    std::panic::set_hook(Box::new(|panic| {
        let at = panic.location().map(ToString::to_string).unwrap_or_default();
        let words = panic.payload_as_str().unwrap_or("not text");
        tracing::error!(panic = words, at, "panicked");
    }));
    Ok(())
}

/// What turns events into lines. Fields stay fields, so `request.id` and `trace.id` can be searched for.
///
/// # Errors
/// Where the filter is none.
pub fn subscriber<W>(
    filter: &str,
    format: LogFormat,
    writer: W,
) -> Result<Box<dyn Subscriber + Send + Sync>, tracing_subscriber::filter::ParseError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let builder = fmt().with_env_filter(EnvFilter::try_new(filter)?).with_writer(writer).with_ansi(false);
    Ok(match format {
        LogFormat::Json => Box::new(builder.json().flatten_event(true).with_span_list(false).finish()),
        LogFormat::Text => Box::new(builder.finish()),
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::{Arc, LazyLock, Mutex};

    use tracing::Dispatch;
    use tracing_subscriber::registry;

    use super::*;

    /// While a process has one subscriber only, a line that another thread meets first is judged by that thread's
    /// own subscriber, so by none, and is then off for all. Two that live as long as the process prevent that.
    static KEPT: LazyLock<[Dispatch; 2]> = LazyLock::new(|| [Dispatch::new(registry()), Dispatch::new(registry())]);

    /// Log lines kept for a test to read.
    #[derive(Clone, Default)]
    pub(crate) struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Lines {
        /// What logs to these lines.
        pub(crate) fn subscriber(&self, filter: &str, format: LogFormat) -> Box<dyn Subscriber + Send + Sync> {
            LazyLock::force(&KEPT);
            let writer = self.clone();
            subscriber(filter, format, move || writer.clone()).unwrap()
        }

        /// What was logged so far.
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
