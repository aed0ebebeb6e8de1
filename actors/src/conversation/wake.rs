//! A conversation's alarm: one decision does all that is due.

use super::turn::{self, Attempt};
use super::writing::{Decided, Writing};
use super::{Reply, State, fork, remember, review};
use crate::machine::Need;

/// The reads that a due alarm may need; `lost` is a turn's attempt that no process runs.
pub(super) fn needs(state: Option<&State>, lost: Option<Attempt>) -> Vec<Need> {
    let calls = lost.map(|_| turn::calls::needs(state)).unwrap_or_default();
    review::expiry_needs(state).into_iter().chain(calls).collect()
}

/// Handles a due alarm: recovers a turn that was lost with its process, checks memories and copying again, and ends the
/// reviews whose deadline has passed.
pub(super) fn decide(state: &State, lost: Option<Attempt>, mut writing: Writing<'_>) -> Decided {
    turn::recover(state, lost, &mut writing)?;
    remember::look_again(state, &mut writing);
    fork::look_again(state, &mut writing);
    review::expire_due(state, &mut writing)?;
    Ok(writing.done(Reply::Nothing))
}
