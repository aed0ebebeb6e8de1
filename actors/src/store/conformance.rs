//! What every store must do, as test cases that run against any store.
//!
//! `run(async || MyStore::new(), salt).await` in a store's own tests runs them all. Each case works in a workspace of
//! its own, so the factory may return the same store every time; a store that survives the run needs another salt.

use bytes::Bytes;

use super::{
    Commit, CommitId, Fingerprint, Head, KeyHash, KeyRange, KeyRow, Loaded, LogRecord, LogScan, NewRecord, Order,
    Outcome, ReadLevel, Redaction, RowWrite, SeqRange, Store, StoreError, Table, View, ViewWrite,
};
use crate::clock::Millis;
use crate::id::{Address, EntityKey};
use crate::store::Scan;

mod alarms;
mod commits;
mod inventory;
mod lists;
mod log;

pub use alarms::*;
pub use commits::*;
pub use inventory::run_inventory;
pub use lists::*;
pub use log::*;

/// Runs every case against a store; panics at the first broken promise, after logging the case's name.
///
/// `salt` makes this run's entities different from those of any other run on the same data.
pub async fn run<S: Store, F: AsyncFn() -> S>(make: F, salt: u64) {
    macro_rules! cases {
        ($($case:ident),* $(,)?) => {$({
            let place = Place::new(make().await, stringify!($case), salt);
            tracing::debug!(case = stringify!($case));
            Box::pin($case(&place)).await;
        })*};
    }
    cases![
        an_entity_that_was_never_written_does_not_exist,
        exactly_one_of_two_writers_on_one_head_wins,
        exactly_one_of_two_creations_wins,
        a_resent_commit_that_was_applied_is_committed,
        a_resent_commit_behind_a_competitor_is_a_conflict,
        a_commit_on_a_head_that_never_was_is_a_conflict,
        a_conflict_leaves_nothing_behind,
        a_commit_without_records_moves_the_head,
        many_writers_that_retry_lose_no_record,
        sequences_have_no_gaps,
        marks_are_loaded_but_are_no_events,
        a_state_and_the_records_since_it_make_the_whole,
        a_state_is_replaced_by_a_newer_one,
        the_log_is_read_from_and_to_any_sequence,
        the_log_is_read_in_both_orders_up_to_a_limit,
        a_redacted_record_is_gone_and_its_place_stays,
        a_redacted_record_is_gone_for_loads_too,
        keys_are_found_in_their_entity_only,
        rows_are_put_overwritten_and_deleted,
        rows_are_listed_between_two_keys_in_both_orders,
        the_last_write_of_a_row_in_a_commit_wins,
        tables_do_not_mix,
        view_entries_are_put_overwritten_and_deleted,
        view_entries_are_listed_between_two_keys_in_both_orders,
        workspaces_do_not_see_each_other,
        entities_do_not_see_each_other,
        an_alarm_is_set_moved_and_cleared,
        alarms_come_in_order_of_time,
        reading_on_behind_a_due_alarm_skips_none,
        an_alarm_is_loaded_with_its_entity,
        every_process_of_a_shared_store_is_seen_until_it_leaves,
    ];
}

/// A store and a workspace of one case in it.
#[derive(Debug)]
pub struct Place<S> {
    /// The store.
    pub store: S,
    /// The workspace.
    pub workspace: Address,
    name: &'static str,
    salt: u64,
}

impl<S: Store> Place<S> {
    /// The workspace of the case `name`.
    pub fn new(store: S, name: &'static str, salt: u64) -> Self {
        Self { store, workspace: derive(name, salt, 0), name, salt }
    }

    /// The `n`th entity of this workspace.
    pub fn entity(&self, n: u64) -> EntityKey {
        EntityKey::conversation(self.workspace, derive(self.name, self.salt, n))
    }

    /// A neighbouring workspace.
    pub fn elsewhere(&self) -> Address {
        derive(self.name, self.salt, u64::MAX)
    }

    /// Commits, and returns what the store answers.
    pub async fn commit(&self, commit: Commit) -> Result<Outcome, StoreError> {
        self::commit(&self.store, commit).await
    }

    /// Makes a commit that must succeed.
    ///
    /// # Panics
    /// If it does not.
    pub async fn put(&self, commit: Commit) -> Head {
        let expected = commit.next_head();
        assert_eq!(self.commit(commit).await.expect("a commit"), Outcome::Committed(expected));
        expected
    }

    /// Loads an entity that must exist.
    ///
    /// # Panics
    /// If it does not.
    pub async fn load(&self, entity: EntityKey) -> Loaded {
        self.store.load(entity, ReadLevel::Acknowledged).await.expect("a read").expect("the entity exists")
    }

    /// The whole log of an entity with few events.
    async fn log(&self, entity: EntityKey, order: Order) -> Vec<LogRecord> {
        let all = LogScan { range: SeqRange::from(0), order, limit: 100 };
        self.store.read_log(entity, all).await.expect("a read")
    }

    async fn view(&self, workspace: Address, view: View, range: KeyRange, order: Order, limit: usize) -> Vec<Bytes> {
        let rows = self.store.view(workspace, view, Scan::new(range, order, limit)).await.expect("a read");
        rows.into_iter().map(|row| row.key).collect()
    }
}

fn derive(name: &str, salt: u64, n: u64) -> Address {
    Address::derive("conformance", &[name.as_bytes(), &salt.to_le_bytes(), &n.to_le_bytes()])
}

/// Commits and waits for the answer.
///
/// # Errors
/// The store's error, and [`StoreError::Indeterminate`] if it drops the callback without an answer.
pub async fn commit<S: Store>(store: &S, commit: Commit) -> Result<Outcome, StoreError> {
    let (answer, answered) = tokio::sync::oneshot::channel();
    store.commit(commit, Box::new(move |outcome| drop(answer.send(outcome))));
    answered.await.unwrap_or_else(|_| Err(StoreError::Indeterminate("the callback was dropped".into())))
}

/// An empty commit, named after `name` and its position in the chain.
#[must_use]
pub fn on(entity: EntityKey, expected: Option<Head>, name: &str) -> Commit {
    let number = expected.map_or(0, |head| head.commit) + 1;
    let hash = Address::derive("commit", &[&entity.to_bytes(), &number.to_le_bytes(), name.as_bytes()]);
    let mut id = [0; 16];
    id[..10].copy_from_slice(&hash.0);
    Commit::on(entity, expected, CommitId(id), Millis(1_000 + number))
}

/// A commit of events with these payloads.
#[must_use]
pub fn events(entity: EntityKey, expected: Option<Head>, payloads: &[&str]) -> Commit {
    let mut commit = on(entity, expected, &payloads.concat());
    commit.records = payloads.iter().map(|payload| record(true, payload)).collect();
    commit
}

fn record(event: bool, payload: &str) -> NewRecord {
    NewRecord { event, payload: bytes(payload) }
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn row(table: Table, key: &str, value: Option<&str>) -> RowWrite {
    RowWrite { table, key: bytes(key), value: value.map(bytes) }
}

fn entry(view: View, key: &str, value: Option<&str>) -> ViewWrite {
    ViewWrite { view, key: bytes(key), value: value.map(bytes) }
}

fn range(after: Option<&str>, before: Option<&str>) -> KeyRange {
    KeyRange { after: after.map(bytes), before: before.map(bytes) }
}

fn key_row(first: u64, last: u64) -> KeyRow {
    KeyRow::new(Fingerprint([7; 16]), SeqRange::new(first, last), Millis(1_000))
}

fn key(byte: u8) -> KeyHash {
    KeyHash([byte; 16])
}
