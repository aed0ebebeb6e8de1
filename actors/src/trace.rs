//! The trace a command belongs to, as it travels through mailboxes and rows: 25 bytes, no open span.

use minicbor::{Decode, Encode};

/// W3C trace context of the request that caused something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TraceContext {
    /// The trace.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub trace_id: [u8; 16],
    /// The span that caused it.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub span_id: [u8; 8],
    /// Trace flags; bit 0: sampled.
    #[n(2)]
    pub flags: u8,
}
