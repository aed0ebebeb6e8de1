//! Requests that stand for others of their kind: from a bucket of a histogram to a trace.

use std::fmt;

use crate::http::trace::Hex;

/// One request that fell into a bucket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exemplar {
    /// Its trace.
    pub trace_id: [u8; 16],
    /// Its span.
    pub span_id: [u8; 8],
    /// What was measured, in seconds.
    pub value: f64,
    /// When, in milliseconds since 1970.
    pub at_millis: u64,
}

/// As `OpenMetrics` writes it behind a bucket.
impl fmt::Display for Exemplar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (trace, span) = (Hex(&self.trace_id), Hex(&self.span_id));
        let at = self.at_millis as f64 / 1e3;
        write!(f, "# {{trace_id=\"{trace}\",span_id=\"{span}\"}} {} {at}", self.value)
    }
}
