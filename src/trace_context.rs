//! W3C trace context: the trace of a request.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};

/// The header that carries a trace context, in both directions.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

pub use actors::trace::SAMPLED;

/// Length of a `traceparent` of version 00.
const LEN: usize = 55;

/// The position of one request in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestTrace {
    /// The trace; never all zero.
    pub trace_id: [u8; 16],
    /// This request's own span; never all zero.
    pub span_id: [u8; 8],
    /// The caller's span, if the caller sent one.
    pub parent_span_id: Option<[u8; 8]>,
    /// Trace flags in wire form; see [`SAMPLED`].
    pub flags: u8,
}

impl RequestTrace {
    /// Continues the caller's trace in a span of its own; `None` if the request has no valid `traceparent`, or several,
    /// which would be ambiguous.
    #[must_use]
    pub fn continued(headers: &HeaderMap, span_id: [u8; 8]) -> Option<Self> {
        let mut values = headers.get_all(&TRACEPARENT).into_iter();
        let (trace_id, parent, flags) = parse(values.next()?.as_bytes())?;
        if values.next().is_some() {
            return None;
        }
        Some(Self { trace_id, span_id, parent_span_id: Some(parent), flags: flags & SAMPLED })
    }

    /// The `traceparent` of this span, for the response and for calls made on the request's behalf.
    #[must_use]
    pub fn traceparent(&self) -> HeaderValue {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        hex_into(&self.trace_id, &mut text[3..35]);
        hex_into(&self.span_id, &mut text[36..52]);
        hex_into(&[self.flags], &mut text[53..55]);
        // Digits and dashes are always a header value; the fallback only spares the hot path a panic branch.
        HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
    }
}

/// The context of calls that are a part of it.
impl From<actors::trace::TraceContext> for RequestTrace {
    fn from(place: actors::trace::TraceContext) -> Self {
        let actors::trace::TraceContext { trace_id, span_id, flags } = place;
        Self { trace_id, span_id, parent_span_id: None, flags }
    }
}

/// The context for actors.
impl From<&RequestTrace> for actors::trace::TraceContext {
    fn from(trace: &RequestTrace) -> Self {
        Self { trace_id: trace.trace_id, span_id: trace.span_id, flags: trace.flags }
    }
}

/// Bytes that display as lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug)]
pub struct Hex<'a>(pub &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Writes `bytes` as lower-case hexadecimal digits; `out` is twice as long.
pub(crate) fn hex_into(bytes: &[u8], out: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in out.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 0x0f)];
    }
}

/// Trace id, parent span id and flags. Of versions above 00 the part that 00 defines is read, by the standard.
fn parse(text: &[u8]) -> Option<([u8; 16], [u8; 8], u8)> {
    let fixed = text.get(..LEN)?;
    let version = unhex::<1>(&fixed[..2])?[0];
    let tail_fits = match version {
        0 => text.len() == LEN,
        0xff => false,
        _ => text.len() == LEN || text[LEN] == b'-',
    };
    if !tail_fits || [fixed[2], fixed[35], fixed[52]] != *b"---" {
        return None;
    }
    let trace_id = unhex::<16>(&fixed[3..35]).filter(|id| *id != [0; 16])?;
    let parent = unhex::<8>(&fixed[36..52]).filter(|id| *id != [0; 8])?;
    Some((trace_id, parent, unhex::<1>(&fixed[53..])?[0]))
}

fn unhex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(out)
}

/// Upper-case digits are invalid by the standard.
fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIVEN: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn continued(values: &[&str]) -> Option<RequestTrace> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(TRACEPARENT, HeaderValue::from_str(value).unwrap());
        }
        RequestTrace::continued(&headers, [7; 8])
    }

    #[test]
    fn a_valid_traceparent_keeps_its_trace_and_gets_a_new_span() {
        let trace = continued(&[GIVEN]).unwrap();
        assert_eq!(Hex(&trace.trace_id).to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(Hex(&trace.parent_span_id.unwrap()).to_string(), "b7ad6b7169203331");
        assert_eq!(trace.flags, SAMPLED);
        assert_eq!(trace.traceparent(), "00-0af7651916cd43dd8448eb211c80319c-0707070707070707-01");
    }

    #[test]
    fn a_later_version_is_read_as_far_as_version_00_goes() {
        assert!(continued(&["01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more"]).is_some());
        assert!(continued(&["01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01more"]).is_none());
    }

    #[test]
    fn unknown_flags_are_not_passed_on() {
        let trace = continued(&["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-fe"]).unwrap();
        assert_eq!(trace.flags, 0);
    }

    #[test]
    fn an_invalid_traceparent_counts_as_none() {
        for value in [
            "",
            "00",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0x",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-",
            "00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(continued(&[value]), None, "{value:?}");
        }
        assert_eq!(continued(&[GIVEN, GIVEN]), None, "two headers");
    }
}
