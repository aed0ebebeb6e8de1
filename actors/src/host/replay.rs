//! Rebuilding an entity's state from its stored snapshot and records.

use crate::clock::Millis;
use crate::codec;
use crate::machine::{Machine, Record};
use crate::store::{Loaded, StoreError};

/// A snapshot: the state and the time of the newest record in it.
#[derive(minicbor::Encode, minicbor::Decode)]
pub(crate) struct Snapshot<S> {
    #[n(0)]
    pub(crate) at: Millis,
    #[n(1)]
    pub(crate) state: S,
}

/// The state of a loaded entity, and the time of its newest record.
///
/// # Errors
///
/// [`StoreError::Corrupt`] if it does not decode.
pub(crate) fn replay<M: Machine>(loaded: &Loaded) -> Result<(Millis, Option<M::State>), StoreError> {
    let (mut at, mut state) = match &loaded.state {
        Some(bytes) => {
            let snapshot: Snapshot<M::State> = codec::decode(bytes)?;
            (snapshot.at, Some(snapshot.state))
        }
        None => (Millis(0), None),
    };
    for stored in &loaded.tail {
        let record: Record<M::Event> = codec::decode_record(stored.seq, &stored.payload)?;
        at = record.at;
        M::apply(&mut state, &record);
    }
    Ok((at, state))
}
