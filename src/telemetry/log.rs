//! The format of log lines: structured fields, with the id of the line's trace.

use std::fmt;

use actors::trace::{TraceContext, current};
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::config::LogFormat;
use crate::trace_context::Hex;

impl<S, N> FormatEvent<S, N> for LogFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        match self {
            Self::Json => json(&mut out, event)?,
            Self::Text => {
                SystemTime.format_time(&mut out)?;
                write!(out, " {:>5} {}: ", event.metadata().level(), event.metadata().target())?;
                context.format_fields(out.by_ref(), event)?;
                if let Some(TraceContext { trace_id, span_id, .. }) = current::get() {
                    write!(out, " trace_id={} span_id={}", Hex(&trace_id), Hex(&span_id))?;
                }
            }
        }
        writeln!(out)
    }
}

fn json(out: &mut Writer<'_>, event: &Event<'_>) -> fmt::Result {
    out.write_str("{\"timestamp\":\"")?;
    SystemTime.format_time(out)?;
    write!(out, "\",\"level\":\"{}\"", event.metadata().level())?;
    let mut members = Members { out, written: Ok(()) };
    event.record(&mut members);
    members.written?;
    write!(out, ",\"target\":\"{}\"", event.metadata().target())?;
    if let Some(TraceContext { trace_id, span_id, .. }) = current::get() {
        write!(out, ",\"trace_id\":\"{}\",\"span_id\":\"{}\"", Hex(&trace_id), Hex(&span_id))?;
    }
    out.write_str("}")
}

/// Writes fields as members of a JSON object.
struct Members<'a, 'w> {
    out: &'a mut Writer<'w>,
    written: fmt::Result,
}

impl Members<'_, '_> {
    fn member(&mut self, field: &Field, value: &Value) {
        if self.written.is_ok() {
            // A field's name is from the code, and has nothing that JSON would escape.
            self.written = write!(self.out, ",\"{}\":{value}", field.name());
        }
    }
}

impl Visit for Members<'_, '_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.member(field, &format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.member(field, &value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.member(field, &value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.member(field, &value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.member(field, &value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // A number that JSON cannot represent becomes null.
        self.member(field, &value.into());
    }
}
