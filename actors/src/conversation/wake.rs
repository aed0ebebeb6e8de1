//! A conversation's alarm: one decision does all that is due, except what needs damaged data.

use super::turn::{self, Attempt};
use super::writing::{Decided, Writing};
use super::{Reply, State, fork, remember, review};
use crate::machine::{Decision, Need, Undecided};

/// The reads that a due alarm may need; `lost` is a turn's attempt that no process runs.
pub(super) fn needs(state: Option<&State>, lost: Option<Attempt>) -> Vec<Need> {
    let calls = lost.map(|_| turn::calls::needs(state)).unwrap_or_default();
    review::expiry_needs(state).into_iter().chain(calls).collect()
}

/// Handles a due alarm: recovers a turn that was lost with its process, checks memories and copying again, and ends the
/// reviews whose deadline has passed. What is damaged delays nothing else; it is an error only where nothing is left to
/// be done.
pub(super) fn decide(state: &State, lost: Option<Attempt>, mut writing: Writing<'_>) -> Decided {
    let recovered = turn::recover(state, lost, &mut writing);
    remember::recheck(state, &mut writing);
    fork::recheck(state, &mut writing);
    let expired = review::expire_due(state, &mut writing);
    let mut damage = None;
    for part in [recovered, expired] {
        match part {
            // Nothing of that part was written.
            Err(Undecided::Corrupt(error)) => damage = damage.or(Some(error)),
            part => part?,
        }
    }
    match (writing.done(Reply::Nothing), damage) {
        (Decision::Answer(_), Some(error)) => Err(error.into()),
        (decision, _) => Ok(decision),
    }
}
