//! The plan of a commit's writes: a pure decision.

use actors::clock::Millis;
use actors::store::{Commit, Head, StoreError};

use super::known_heads::KnownHead;
use super::layout::{self, DueRow};

/// The size at which a bucket is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BucketSize {
    /// Rows of commits, keys and lists in it.
    pub(super) records: i32,
    /// Bytes in it.
    pub(super) bytes: i64,
}

/// Records of more bytes than this are stored in chunks: a conditional batch is written four times.
pub(super) const INLINE_BYTES: usize = 128 * 1024;
/// The largest sum of everything else in one conditional batch. A server accepts half a segment of its commit log at
/// once, which is 8 MiB with segments of 16 MiB.
pub(super) const BATCH_BYTES: usize = 6 * 1024 * 1024;
/// The largest commit, chunks included; as in the embedded store.
pub(super) const COMMIT_BYTES: usize = 16 * 1024 * 1024;
/// Bytes of one chunk.
pub(super) const CHUNK_BYTES: usize = 512 * 1024;
/// After how long the scan checks a commit's follow-up writes and its chunks.
pub(super) const LISTS_AFTER_MILLIS: u64 = 60_000;

/// The plan of a commit's writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// The entity's head once it is applied.
    pub(super) after: KnownHead,
    /// The head that its partition must have; `None`: the row must not exist.
    pub(super) expected: Option<Head>,
    /// The previous bucket, whose content must be found elsewhere from now on.
    pub(super) follows: Option<i32>,
    /// How many chunks hold the records; `None`: they are in the batch.
    pub(super) chunks: Option<i32>,
    /// The row of the due index that must be durable before.
    pub(super) alarm: Option<DueRow>,
    /// As `alarm`: has the scan check the commit's follow-up writes, and its chunks if it is never applied, and empty the
    /// bucket that it follows.
    pub(super) lists: Option<DueRow>,
    /// As `alarm`: has the scan remove what closed buckets keep of content that the commit erases.
    pub(super) erasure: Option<DueRow>,
}

/// Bytes of a commit in the batch.
fn measure(commit: &Commit, records: usize, inline: bool) -> Result<usize, StoreError> {
    let redactions: usize = commit.redactions.iter().map(|redaction| 16 + redaction.payload.len()).sum();
    let others = redactions + commit.measure_rows()?;
    let batch = if inline { others + records } else { others };
    for (bytes, max) in [(batch, BATCH_BYTES), (others + records, COMMIT_BYTES)] {
        if bytes > max {
            return Err(StoreError::TooLarge { bytes, max });
        }
    }
    Ok(batch)
}

/// Plans `commit` for an entity with this head (`None`: it does not exist), at the time `now`.
///
/// # Errors
/// [`StoreError::TooLarge`].
pub(super) fn plan(
    known: Option<&KnownHead>,
    commit: &Commit,
    size: BucketSize,
    now: Millis,
) -> Result<Plan, StoreError> {
    let records = layout::records_len(&commit.records);
    let inline = records <= INLINE_BYTES;
    let batch = measure(commit, records, inline)?;
    let head = commit.next_head();
    let nowhere = Head { seq: 0, commit: 0 };
    let before = known.map_or(nowhere, |known| known.head);
    // Its own rows: the head, its records, its keys and its keyed rows.
    let rows =
        i32::try_from(1 + commit.records.len().max(1) + commit.keys.len() + commit.rows.len()).unwrap_or(i32::MAX);
    let bytes = i64::try_from(batch).unwrap_or(i64::MAX);
    let opens = known.is_none_or(|known| known.closed);
    let (bucket, base, filled) = match known {
        Some(known) if opens => (known.bucket + 1, before, (0, 0)),
        Some(known) => (known.bucket, known.base, (known.records, known.bytes)),
        None => (0, before, (0, 0)),
    };
    let filled_records = filled.0 + rows;
    let filled_bytes = filled.1 + bytes;
    let alarm = match commit.alarm {
        Some(change) => change.next.map(|at| DueRow::new(at, commit.id, now)),
        None => known.and_then(|known| known.alarm),
    };
    let stamp = layout::signed(commit.at.0.saturating_mul(1000)).max(known.map_or(0, |known| known.stamp) + 1);
    let listed = !(commit.views.is_empty() && commit.redactions.is_empty());
    Ok(Plan {
        after: KnownHead {
            bucket,
            head,
            id: commit.id,
            stamp,
            closed: filled_records >= size.records || filled_bytes >= size.bytes,
            listed,
            projected: !listed,
            settled: true,
            records: filled_records,
            bytes: filled_bytes,
            base,
            state: if commit.state.is_some() { Some(head) } else { known.and_then(|known| known.state) },
            alarm,
        },
        expected: known.filter(|_| !opens).map(|known| known.head),
        follows: known.filter(|_| opens).map(|known| known.bucket),
        chunks: (!inline).then(|| i32::try_from(records.div_ceil(CHUNK_BYTES)).unwrap_or(i32::MAX)),
        alarm: commit.alarm.and(alarm),
        lists: (listed || !inline || (opens && known.is_some()))
            .then(|| DueRow::new(commit.at.plus(LISTS_AFTER_MILLIS), commit.id, now)),
        erasure: (bucket > 0 && commit.erases).then(|| layout::erasure_row(commit.entity, commit.at, now)),
    })
}

#[cfg(test)]
mod tests {
    use actors::id::EntityKey;
    use actors::store::{AlarmChange, CommitId, NewRecord, Redaction, View, ViewWrite};
    use bytes::Bytes;

    use super::super::known_heads::known_head;
    use super::*;

    const SIZE: BucketSize = BucketSize { records: 10, bytes: 1_000_000 };
    const NOW: Millis = Millis(1_735_689_600_000);

    fn commit(expected: Option<Head>, payloads: &[usize]) -> Commit {
        let record = |len: &usize| NewRecord { event: true, payload: Bytes::from(vec![0; *len]) };
        Commit {
            records: payloads.iter().map(record).collect(),
            ..Commit::on(EntityKey::INSTALLATION, expected, CommitId([9; 16]), NOW)
        }
    }

    #[test]
    fn the_first_commit_opens_the_first_bucket() {
        let plan = plan(None, &commit(None, &[1, 1]), SIZE, NOW).expect("a plan");
        assert_eq!((plan.after.bucket, plan.expected, plan.follows), (0, None, None));
        assert_eq!(plan.after.head, Head { seq: 2, commit: 1 });
        assert_eq!((plan.after.records, plan.after.closed), (3, false));
    }

    #[test]
    fn a_commit_goes_on_in_its_bucket_and_closes_it_when_it_is_full() {
        let before = KnownHead { records: 7, ..known_head(4, 3) };
        let plan = plan(Some(&before), &commit(Some(before.head), &[1, 1]), SIZE, NOW).expect("a plan");
        assert_eq!((plan.after.bucket, plan.expected, plan.follows), (0, Some(before.head), None));
        assert!(plan.after.closed, "it may overshoot: a commit is in one bucket");
    }

    #[test]
    fn bytes_close_a_bucket_too() {
        let before = KnownHead { bytes: 999_990, ..known_head(4, 3) };
        assert!(!plan(Some(&before), &commit(Some(before.head), &[1]), SIZE, NOW).expect("a plan").after.closed);
        assert!(plan(Some(&before), &commit(Some(before.head), &[6]), SIZE, NOW).expect("a plan").after.closed);
    }

    #[test]
    fn behind_a_closed_bucket_the_next_one_is_opened() {
        let before = KnownHead { records: 70, closed: true, bucket: 4, ..known_head(4, 3) };
        let plan = plan(Some(&before), &commit(Some(before.head), &[1]), SIZE, NOW).expect("a plan");
        assert_eq!((plan.after.bucket, plan.expected, plan.follows), (5, None, Some(4)));
        assert_eq!((plan.after.base, plan.after.records), (before.head, 2));
    }

    #[test]
    fn write_times_of_lists_ascend_although_the_clock_stands() {
        let before = KnownHead { stamp: 1_735_689_600_000_007, ..known_head(4, 3) };
        let next = |commit: &Commit| plan(Some(&before), commit, SIZE, NOW).expect("a plan").after.stamp;
        assert_eq!(next(&commit(Some(before.head), &[])), 1_735_689_600_000_008);
        let later = Commit { at: NOW.plus(1), ..commit(Some(before.head), &[]) };
        assert_eq!(next(&later), 1_735_689_600_001_000);
    }

    #[test]
    fn large_records_stand_in_chunks_and_too_large_ones_are_refused() {
        let chunks = |payloads: &[usize]| plan(None, &commit(None, payloads), SIZE, NOW).map(|plan| plan.chunks);
        assert_eq!(chunks(&[100_000]).expect("a plan"), None);
        assert_eq!(chunks(&[CHUNK_BYTES]).expect("a plan"), Some(2), "with the records' frames");
        assert!(matches!(chunks(&[COMMIT_BYTES]), Err(StoreError::TooLarge { .. })));
        let mut wide = commit(None, &[]);
        wide.state = Some(Bytes::from(vec![0; BATCH_BYTES + 1]));
        assert!(matches!(plan(None, &wide, SIZE, NOW), Err(StoreError::TooLarge { .. })));
    }

    #[test]
    fn an_alarm_stays_is_moved_or_is_cleared() {
        let alarm = DueRow::new(NOW.plus(5), CommitId([1; 16]), NOW);
        let before = KnownHead { alarm: Some(alarm), ..known_head(4, 3) };
        let next = |change| {
            let commit = Commit { alarm: change, ..commit(Some(before.head), &[]) };
            let plan = plan(Some(&before), &commit, SIZE, NOW).expect("a plan");
            (plan.after.alarm, plan.alarm)
        };
        assert_eq!(next(None), (Some(alarm), None));
        let moved = DueRow::new(NOW.plus(9), CommitId([9; 16]), NOW);
        let change = AlarmChange { previous: Some(alarm.at), next: Some(moved.at) };
        assert_eq!(next(Some(change)), (Some(moved), Some(moved)));
        assert_eq!(next(Some(AlarmChange { next: None, ..change })), (None, None));
    }

    #[test]
    fn only_a_commit_with_consequences_or_chunks_is_looked_after() {
        let mut listed = commit(None, &[]);
        assert_eq!(plan(None, &listed, SIZE, NOW).expect("a plan").lists, None);
        listed.views = vec![ViewWrite { view: View(1), key: Bytes::from_static(b"k"), value: None }];
        let plan = plan(None, &listed, SIZE, NOW).expect("a plan");
        assert_eq!(plan.lists.map(|row| row.at), Some(NOW.plus(LISTS_AFTER_MILLIS)));
        assert!(plan.after.listed && !plan.after.projected);
        let mut redacting = commit(None, &[]);
        redacting.redactions = vec![Redaction { seq: 1, payload: Bytes::new() }];
        assert!(super::plan(None, &redacting, SIZE, NOW).expect("a plan").lists.is_some());
        let large = super::plan(None, &commit(None, &[CHUNK_BYTES]), SIZE, NOW).expect("a plan");
        assert!(large.lists.is_some() && !large.after.listed && large.after.projected);
    }
}
