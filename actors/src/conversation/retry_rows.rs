//! Rows kept to answer retries: they are kept as long as idempotency keys are, and are then removed by the write of
//! another such row.
//!
//! The store drops a key's own row when it expires; these rows belong to the entity, so the entity must remove them. A
//! key may be used again once it is forgotten, while its old row still waits to be removed. So the time of a row is
//! the end of its key, and a retry gets the last row of its key; a row of the first release has no time.

use bytes::Bytes;

use super::Conversation;
use crate::clock::Millis;
use crate::limits;
use crate::machine::{Change, DecisionContext, ReadSet, Undecided};
use crate::store::{RowWrite, Table};
use crate::tables::{REPLAYS, REQUESTED_TURNS, RETRY_ROWS};

/// Rows that one write removes. More than one, so that a backlog of a busy time shrinks in a quiet one.
const MAX_REMOVED_ROWS: usize = 16;

fn is_kept(row: &RowWrite) -> bool {
    [REPLAYS, REQUESTED_TURNS].contains(&row.table) && row.value.is_some()
}

/// The row with its time.
fn dated(now: Millis, row: RowWrite) -> RowWrite {
    let key = [&row.key[..], &now.0.to_be_bytes()].concat();
    RowWrite { key: key.into(), ..row }
}

/// The row that records since when another row exists.
fn since(now: Millis, row: &RowWrite) -> RowWrite {
    let key = [&now.0.to_be_bytes()[..], &[row.table.0], &row.key].concat();
    RowWrite::put(RETRY_ROWS, key, Bytes::new())
}

fn parse(key: &[u8]) -> Option<(Millis, Table, Bytes)> {
    let (at, rest) = key.split_first_chunk()?;
    let (table, row) = rest.split_first()?;
    Some((Millis(u64::from_be_bytes(*at)), Table(*table), Bytes::copy_from_slice(row)))
}

/// Records the temporary rows of a change, and removes expired ones.
pub(super) fn tracked(
    change: Change<Conversation>,
    context: &DecisionContext,
    reads: &ReadSet,
) -> Result<Change<Conversation>, Undecided> {
    if !change.rows.iter().any(is_kept) {
        return Ok(change);
    }
    let oldest = match reads.first(RETRY_ROWS, MAX_REMOVED_ROWS) {
        // Damaged rows, and the rows after them, are kept.
        Err(Undecided::Corrupt(_)) => Vec::new(),
        oldest => oldest?,
    };
    let mut rows = Vec::new();
    for (key, _) in oldest {
        let Some((at, table, row)) = parse(key) else { continue };
        if context.now.since(at) < limits::KEY_KEPT_MILLIS {
            break;
        }
        rows.extend([RowWrite::delete(table, row), RowWrite::delete(RETRY_ROWS, key.clone())]);
    }
    for row in change.rows {
        if is_kept(&row) {
            let row = dated(context.now, row);
            rows.extend([since(context.now, &row), row]);
        } else {
            rows.push(row);
        }
    }
    Ok(Change { rows, ..change })
}
