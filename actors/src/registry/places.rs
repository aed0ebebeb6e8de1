//! The creation order of a registry's resources.
//!
//! Clients choose most ids, so the rows themselves have no meaningful order. Each kind therefore has a list by the
//! sequence of the change that created the resource, which depends on no clock. A resource without a position in it
//! (stored before this list existed) gets one when it is next stored.

use bytes::Bytes;

use super::RowChange;
use crate::machine::{Need, ReadSet, Undecided};
use crate::store::{RowWrite, Table};
use crate::tables::{AGENTS, CHANNELS, IN_ORDER, PLACES, WEBHOOK_ENDPOINTS, WORKSPACES};

/// The kinds of resources with a position.
pub const KINDS: [Table; 4] = [CHANNELS, AGENTS, WEBHOOK_ENDPOINTS, WORKSPACES];

/// The prefix of a kind's keys in creation order.
#[must_use]
pub fn in_order(kind: Table) -> [u8; 1] {
    [kind.0]
}

/// The key of a resource's position.
#[must_use]
pub fn place_key(kind: Table, id: &[u8]) -> Bytes {
    [&[kind.0], id].concat().into()
}

/// The key of a resource in creation order. Several of one change are ordered by their ids.
fn order_key(kind: Table, place: &[u8], id: &[u8]) -> Bytes {
    [&in_order(kind), place, id].concat().into()
}

/// The changes of resources with a position.
fn placed(changes: &[RowChange]) -> impl Iterator<Item = &RowChange> {
    changes.iter().filter(|change| KINDS.contains(&change.table()))
}

/// The reads that these changes need.
pub(super) fn needs(changes: &[RowChange]) -> impl Iterator<Item = Need> {
    placed(changes).map(|change| Need::Row(PLACES, place_key(change.table(), change.key())))
}

/// The rows that give a position to resources created by these changes with this sequence, and remove the positions of
/// deleted ones.
///
/// # Errors
/// [`Undecided`] if their [needs](needs) were not read.
pub(super) fn writes(changes: &[RowChange], seq: u64, reads: &ReadSet) -> Result<Vec<RowWrite>, Undecided> {
    let mut rows = Vec::new();
    for change in placed(changes) {
        let kind = change.table();
        let id = change.key();
        let place = place_key(kind, id);
        match (reads.row(PLACES, place.clone())?, change.value()) {
            (None, Some(_)) => {
                let at = Bytes::copy_from_slice(&seq.to_be_bytes());
                rows.push(RowWrite::put(IN_ORDER, order_key(kind, &at, id), Bytes::copy_from_slice(id)));
                rows.push(RowWrite::put(PLACES, place, at));
            }
            (Some(at), None) => {
                rows.push(RowWrite::delete(IN_ORDER, order_key(kind, at, id)));
                rows.push(RowWrite::delete(PLACES, place));
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
    }
    Ok(rows)
}
