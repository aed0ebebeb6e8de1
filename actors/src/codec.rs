//! The encoding of records and states: CBOR arrays of numbered fields after a version byte. A field added at the end
//! as an `Option` leaves old bytes readable, since a missing field is `None`. `tests/engine/golden.rs` keeps an example
//! of every type.

use bytes::Bytes;
use minicbor::{Decode, Encode};

use crate::clock::Millis;
use crate::machine::Record;
use crate::store::{Cause, StoreError};
use crate::trace::TraceContext;

/// The version in front of every encoding.
const VERSION: u8 = 1;
/// Fits a message of some sentences, so that its encoding is not moved while it grows.
const USUAL_BYTES: usize = 512;

/// [`Stored`] without owning the event; the same bytes.
#[derive(Encode)]
struct StoredRef<'a, E> {
    #[n(0)]
    at: Millis,
    #[n(1)]
    event: &'a E,
    #[n(2)]
    trace: Option<TraceContext>,
}

#[derive(Decode)]
struct Stored<E> {
    #[n(0)]
    at: Millis,
    #[n(1)]
    event: E,
    #[n(2)]
    trace: Option<TraceContext>,
}

/// The bytes of `value`.
pub fn encode<T: Encode<()>>(value: &T) -> Bytes {
    let mut out = Vec::with_capacity(USUAL_BYTES);
    out.push(VERSION);
    // Writing to a Vec cannot fail, and no Encode of ours refuses a value.
    if let Err(error) = minicbor::encode(value, &mut out) {
        unreachable!("encoding in memory failed: {error}");
    }
    out.into()
}

/// The value that `bytes` were made from.
///
/// # Errors
///
/// [`StoreError::Corrupt`] if they were not made by [`encode`] of such a type.
pub fn decode<T: for<'b> Decode<'b, ()>>(bytes: &[u8]) -> Result<T, StoreError> {
    match bytes {
        [VERSION, rest @ ..] => {
            minicbor::decode(rest).map_err(|error| StoreError::Corrupt(Cause::of("an encoding", error)))
        }
        [other, ..] => Err(StoreError::Corrupt(format!("unknown encoding version {other}").into())),
        [] => Err(StoreError::Corrupt("an encoding is empty".into())),
    }
}

/// The bytes of a record; its sequence is the store's to keep.
pub fn encode_record<E: Encode<()>>(record: &Record<E>) -> Bytes {
    encode(&StoredRef { at: record.at, event: &record.event, trace: record.trace })
}

/// The record that was stored as `bytes` under `seq`.
///
/// # Errors
///
/// [`StoreError::Corrupt`] as [`decode`].
pub fn decode_record<E: for<'b> Decode<'b, ()>>(seq: u64, bytes: &[u8]) -> Result<Record<E>, StoreError> {
    let Stored { at, event, trace } = decode(bytes)?;
    Ok(Record { seq, at, trace, event })
}
