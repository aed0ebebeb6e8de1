//! A conversation's alarm: one decision does all that is due.

use super::turn::{self, Attempt};
use super::{Conversation, Reply, State, fork, remember, review};
use crate::machine::{Change, Decision, DecisionContext, Need, ReadSet, Undecided};

/// The reads that a due alarm may need; `lost` is a turn's attempt that no process runs.
pub(super) fn needs(state: Option<&State>, lost: Option<Attempt>) -> Vec<Need> {
    let calls = lost.map(|_| turn::calls::needs(state)).unwrap_or_default();
    review::expiry_needs(state).into_iter().chain(calls).collect()
}

/// Handles a due alarm: recovers a turn that was lost with its process, checks memories and copying again, and ends the
/// reviews whose deadline has passed.
pub(super) fn decide(
    state: &State,
    lost: Option<Attempt>,
    moment: &DecisionContext,
    found: &ReadSet,
) -> Result<Decision<Conversation>, Undecided> {
    let mut change = Change::new(Vec::new(), Reply::Nothing);
    turn::recover(state, lost, moment, found, &mut change)?;
    remember::look_again(state, moment, &mut change.events);
    fork::look_again(state, moment, &mut change.events);
    review::expire_due(state, moment, found, &mut change)?;
    Ok(if change.events.is_empty() { Decision::Answer(Reply::Nothing) } else { Decision::Change(change) })
}
