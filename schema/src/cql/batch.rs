//! The one conditional batch of a commit.

use std::collections::BTreeMap;

use actors::store::{Commit, Head, RowWrite};
use bytes::Bytes;
use scylla::SerializeRow;
use scylla::errors::ExecutionError;
use scylla::response::query_result::QueryResult;
use scylla::serialize::SerializationError;
use scylla::serialize::row::{RowSerializationContext, SerializeRow};
use scylla::serialize::writers::RowWriter;
use scylla::statement::batch::{Batch, BatchStatement, BatchType};
use scylla::value::MaybeUnset;

use super::answer;
use super::db::Db;
use super::known_heads::KnownHead;
use super::layout::{commit_row, encode_follow_ups, encode_records, entity_bytes, signed, unsigned};
use super::plan::Plan;
use super::settle::BucketHead;

/// Opens a bucket.
#[derive(SerializeRow)]
struct Open<'a> {
    entity: &'a [u8],
    bucket: i32,
    seq: i64,
    commit: i64,
    id: &'a [u8],
    stamp: i64,
    closed: bool,
    listed: bool,
    records: i32,
    bytes: i64,
    base_seq: i64,
    base_commit: i64,
    state: Option<&'a [u8]>,
    state_seq: Option<i64>,
    state_commit: Option<i64>,
    alarm: Option<i64>,
    alarm_slot: Option<i64>,
    alarm_id: Option<&'a [u8]>,
}

/// Moves a head. Unset values do not change.
#[derive(SerializeRow)]
struct Advance<'a> {
    entity: &'a [u8],
    bucket: i32,
    seq: i64,
    commit: i64,
    id: &'a [u8],
    stamp: i64,
    closed: bool,
    listed: bool,
    records: i32,
    bytes: i64,
    state: MaybeUnset<&'a [u8]>,
    state_seq: MaybeUnset<i64>,
    state_commit: MaybeUnset<i64>,
    alarm: MaybeUnset<Option<i64>>,
    alarm_slot: MaybeUnset<Option<i64>>,
    alarm_id: MaybeUnset<Option<&'a [u8]>>,
    was_seq: i64,
    was_commit: i64,
}

type CommitValues<'a> = (
    &'a [u8],
    i32,
    i64,
    &'a [u8],
    &'a [u8],
    i64,
    i64,
    MaybeUnset<&'a [u8]>,
    MaybeUnset<i32>,
    MaybeUnset<&'a [u8]>,
    MaybeUnset<&'a [u8]>,
);

/// The values of one statement of the batch.
enum Values<'a> {
    Open(Open<'a>),
    Advance(Advance<'a>),
    Commit(CommitValues<'a>),
    Key((&'a [u8], i32, &'a [u8], &'a [u8], i64, i64, i64)),
    Row((&'a [u8], i32, i64, &'a [u8], Option<&'a [u8]>)),
}

impl SerializeRow for Values<'_> {
    fn serialize(
        &self,
        context: &RowSerializationContext<'_>,
        writer: &mut RowWriter<'_>,
    ) -> Result<(), SerializationError> {
        match self {
            Self::Open(values) => values.serialize(context, writer),
            Self::Advance(values) => values.serialize(context, writer),
            Self::Commit(values) => values.serialize(context, writer),
            Self::Key(values) => values.serialize(context, writer),
            Self::Row(values) => values.serialize(context, writer),
        }
    }

    fn is_empty(&self) -> bool {
        false
    }
}

/// A commit's batch, the same on every attempt.
pub(super) struct Attempt<'a> {
    commit: &'a Commit,
    plan: &'a Plan,
    entity: [u8; actors::id::EntityKey::LEN],
    k: [u8; 8],
    /// The state to write: the commit's own, or the one copied into a new bucket.
    state: Option<&'a Bytes>,
    payload: Option<Vec<u8>>,
    lists: Option<Vec<u8>>,
    /// The last write of each row.
    rows: BTreeMap<(i64, &'a Bytes), &'a RowWrite>,
}

impl<'a> Attempt<'a> {
    pub(super) fn new(commit: &'a Commit, plan: &'a Plan, carried: Option<&'a Bytes>) -> Self {
        Self {
            commit,
            plan,
            entity: entity_bytes(commit.entity),
            k: commit_row(plan.after.head).1,
            state: commit.state.as_ref().or(carried),
            payload: plan.chunks.is_none().then(|| encode_records(&commit.records)),
            lists: plan.after.listed.then(|| encode_follow_ups(&commit.views, &commit.redactions)),
            rows: commit.rows.iter().map(|row| ((i64::from(row.table.0), &row.key), row)).collect(),
        }
    }

    fn head(&self) -> Values<'_> {
        let KnownHead { bucket, head, stamp, closed, listed, records, bytes, base, state, alarm, .. } = self.plan.after;
        let entity = &self.entity[..];
        let id = &self.commit.id.0[..];
        let seq = signed(head.seq);
        let commit = signed(head.commit);
        // An unchanged alarm keeps the id of its earlier commit.
        let alarm_id = self.plan.after.alarm.as_ref().map(|alarm| &alarm.id.0[..]);
        let alarm_slot = alarm.map(|alarm| alarm.slot);
        let alarm = alarm.map(|alarm| signed(alarm.at.0));
        match self.plan.expected {
            None => Values::Open(Open {
                entity,
                bucket,
                seq,
                commit,
                id,
                stamp,
                closed,
                listed,
                records,
                bytes,
                base_seq: signed(base.seq),
                base_commit: signed(base.commit),
                state: self.state.map(|state| &state[..]),
                state_seq: state.map(|at| signed(at.seq)),
                state_commit: state.map(|at| signed(at.commit)),
                alarm,
                alarm_slot,
                alarm_id,
            }),
            Some(was) => {
                let has_state = self.commit.state.is_some();
                let moves_alarm = self.commit.alarm.is_some();
                Values::Advance(Advance {
                    entity,
                    bucket,
                    seq,
                    commit,
                    id,
                    stamp,
                    closed,
                    listed,
                    records,
                    bytes,
                    state: self.state.map_or(MaybeUnset::Unset, |state| MaybeUnset::Set(&state[..])),
                    state_seq: set_if(has_state, seq),
                    state_commit: set_if(has_state, commit),
                    alarm: set_if(moves_alarm, alarm),
                    alarm_slot: set_if(moves_alarm, alarm_slot),
                    alarm_id: set_if(moves_alarm, alarm_id),
                    was_seq: signed(was.seq),
                    was_commit: signed(was.commit),
                })
            }
        }
    }

    /// Sends it. `Ok(None)`: it was applied; else the current head.
    pub(super) async fn send(&self, db: &Db) -> Result<Option<Option<BucketHead>>, ExecutionError> {
        let statements = &db.statements;
        let known = &self.plan.after;
        let entity = &self.entity[..];
        let bucket = known.bucket;
        let count = 2 + self.commit.keys.len() + self.rows.len();
        let mut prepared = Vec::with_capacity(count);
        let mut values = Vec::with_capacity(count);
        // The head comes first: its partition key decides which node gets the batch.
        prepared.push(if self.plan.expected.is_none() { &statements.open } else { &statements.advance });
        values.push(self.head());
        prepared.push(&statements.put_commit);
        values.push(Values::Commit((
            entity,
            bucket,
            signed(known.head.seq),
            &self.k[..],
            &self.commit.id.0[..],
            known.stamp,
            signed(self.commit.at.0),
            self.payload.as_ref().map_or(MaybeUnset::Unset, |payload| MaybeUnset::Set(&payload[..])),
            self.plan.chunks.map_or(MaybeUnset::Unset, MaybeUnset::Set),
            set_if(self.plan.chunks.is_some(), &self.commit.id.0[..]),
            self.lists.as_ref().map_or(MaybeUnset::Unset, |lists| MaybeUnset::Set(&lists[..])),
        )));
        for (hash, row) in &self.commit.keys {
            prepared.push(&statements.put_key);
            let stored = row.effect.to_stored();
            let first = signed(stored.first);
            let last = signed(stored.last);
            let at = signed(row.at.0);
            values.push(Values::Key((entity, bucket, &hash.0[..], &row.fingerprint.0[..], first, last, at)));
        }
        for ((table, key), row) in &self.rows {
            prepared.push(&statements.put_row);
            values.push(Values::Row((entity, bucket, *table, &key[..], row.value.as_ref().map(|value| &value[..]))));
        }
        let prepared = prepared.into_iter().map(|statement| BatchStatement::from(statement.clone())).collect();
        let mut batch = Batch::new_with_statements(BatchType::Unlogged, prepared);
        batch.set_execution_profile_handle(Some(db.profiles.conditional.clone().into_handle()));
        let result = Box::pin(db.session.batch(&batch, values)).await?;
        Ok(outcome(result))
    }
}

fn set_if<T>(condition: bool, value: T) -> MaybeUnset<T> {
    if condition { MaybeUnset::Set(value) } else { MaybeUnset::Unset }
}

/// The answer of a conditional batch: `None`: applied.
fn outcome(result: QueryResult) -> Option<Option<BucketHead>> {
    let mut found = None;
    let applied = answer::find(result, |row| {
        if let (Some(seq), Some(commit)) = (row.long("seq"), row.long("commit")) {
            let head = Head { seq: unsigned(seq), commit: unsigned(commit) };
            found = Some(BucketHead { head, closed: row.is("closed") });
        }
        row.is_applied().then_some(())
    });
    if applied.is_some() { None } else { Some(found) }
}
