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
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

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
        let writer = lines.clone();
        tracing::subscriber::with_default(subscriber(filter, format, move || writer.clone()).unwrap(), log);
        String::from_utf8(lines.0.lock().unwrap().clone()).unwrap()
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
