//! Runs decisions as values: the host's work, without an actor, a store or a clock.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Change, Decision, DecisionContext, Machine, Need, ReadSet, Record, Undecided};
use crate::clock::Millis;
use crate::codec;
use crate::id::EntityKey;
use crate::limits;
use crate::outbox::Listeners;
use crate::requests::ChecksReplies;
use crate::store::{NodeId, Row, StoreError, Table, View};
use crate::trace::TraceContext;

/// An entity as a list of records, rows and list entries.
pub(crate) struct Sim<M: Machine> {
    pub(crate) entity: EntityKey,
    pub(crate) now: Millis,
    pub(crate) state: Option<M::State>,
    /// Every record, marks too, with its encoding.
    pub(crate) log: Vec<(Record<M::Event>, Bytes)>,
    pub(crate) rows: BTreeMap<(Table, Bytes), Bytes>,
    pub(crate) views: BTreeMap<(View, Bytes), Bytes>,
    /// How many events there are.
    pub(crate) seq: u64,
    /// The trace of the commands. In a server nothing happens outside of a trace.
    pub(crate) trace: Option<TraceContext>,
    /// No row of this table can be read.
    pub(crate) damaged: Option<Table>,
}

impl<M: ChecksReplies> Sim<M> {
    pub(crate) fn new(entity: EntityKey, now: Millis) -> Self {
        let rows = BTreeMap::new();
        let views = BTreeMap::new();
        Self { entity, now, state: None, log: Vec::new(), rows, views, seq: 0, trace: None, damaged: None }
    }

    /// Decides a command, reading whatever it asks for.
    pub(crate) fn decide(&self, command: &M::Command) -> Decision<M> {
        self.try_decide(command).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Decides a command on stored data that may be damaged.
    pub(crate) fn try_decide(&self, command: &M::Command) -> Result<Decision<M>, StoreError> {
        let mut reads = ReadSet::default();
        // There are no receivers here; the tests of the outbox cover them.
        reads.set_listeners(Listeners::none());
        for need in M::needs(self.state.as_ref(), command) {
            self.read(need, &mut reads);
        }
        let context = DecisionContext {
            entity: self.entity,
            now: self.now,
            place: self.now,
            next_seq: self.seq + 1,
            random: [7; 16],
            node: NodeId([1; 16]),
            key: None,
            trace: self.trace,
            alarm: None,
        };
        for _ in 0..8 {
            match M::decide(self.state.as_ref(), command, &context, &reads) {
                Ok(decision) => {
                    let reply = match &decision {
                        Decision::Answer(reply) | Decision::Elsewhere(reply) => Some(reply),
                        Decision::Change(change) => Some(&change.reply),
                        Decision::Reject(_) => None,
                    };
                    let is_answered = reply.is_none_or(|reply| M::answers(command, reply));
                    assert!(is_answered, "{command:?} is answered by {reply:?}");
                    return Ok(decision);
                }
                Err(Undecided::Corrupt(error)) => return Err(error),
                Err(Undecided::Missing(needs)) => {
                    assert!(needs.iter().any(|need| !reads.has(need)), "it asks for what it has: {needs:?}");
                    needs.into_iter().for_each(|need| self.read(need, &mut reads));
                }
            }
        }
        panic!("it never has enough for {command:?}");
    }

    fn read(&self, need: Need, reads: &mut ReadSet) {
        match need {
            Need::Row(table, key) => {
                let row = self.rows.get(&(table, key.clone())).cloned();
                reads.add_row(table, key, self.unless_damaged(table, row));
            }
            Need::First(table, limit) => {
                let rows = self.rows.iter().filter(|((of, _), _)| *of == table).take(limit);
                let rows = rows.map(|((_, key), value)| Row { key: key.clone(), value: value.clone() });
                reads.add_first(table, limit, self.unless_damaged(table, rows.collect()));
            }
            Need::Under(table, prefix) => {
                let rows = self.rows.iter().filter(|((of, key), _)| *of == table && key.starts_with(&prefix));
                let rows = rows.map(|((_, key), value)| Row { key: key.clone(), value: value.clone() });
                reads.add_under(table, prefix.clone(), self.unless_damaged(table, rows.collect()));
            }
            Need::Event(seq) => {
                let mut events = self.log.iter().filter(|(record, _)| M::is_event(&record.event) && record.seq == seq);
                reads.add_event(seq, Ok(events.next().map(|(_, bytes)| bytes.clone())));
            }
        }
    }

    fn unless_damaged<T>(&self, table: Table, read: T) -> Result<T, StoreError> {
        if self.damaged == Some(table) { Err(StoreError::Corrupt("damaged by the test".into())) } else { Ok(read) }
    }

    /// Applies a change, as the host does, and checks the invariants of every change.
    pub(crate) fn take(&mut self, change: Change<M>) -> M::Reply {
        let mut causes = change.causes.into_iter().peekable();
        for (place, event) in change.events.into_iter().enumerate() {
            let seq = self.seq + u64::from(M::is_event(&event));
            let cause = causes.next_if(|(of, _)| *of == place).map(|(_, cause)| cause);
            let record = Record { seq, at: self.now, trace: cause.or(self.trace), event };
            M::apply(&mut self.state, &record);
            let bytes = codec::encode_record(&record);
            self.log.push((record, bytes));
            self.seq = seq;
        }
        for write in change.rows {
            assert!(write.key.len() <= limits::ROW_KEY_BYTES);
            match write.value {
                Some(value) => self.rows.insert((write.table, write.key), value),
                None => self.rows.remove(&(write.table, write.key)),
            };
        }
        for write in change.views {
            match write.value {
                Some(value) => self.views.insert((write.view, write.key), value),
                None => self.views.remove(&(write.view, write.key)),
            };
        }
        for record in change.redactions {
            let seq = record.seq;
            let bytes = codec::encode_record(&record);
            let mut events = self.log.iter_mut().filter(|(known, _)| M::is_event(&known.event));
            *events.find(|(known, _)| known.seq == seq).expect("what is redacted is there") = (record, bytes);
        }
        self.check();
        change.reply
    }

    /// Checks that the state follows from the encoded log, survives its own encoding, and is small.
    pub(crate) fn check(&self) {
        let mut replayed = None;
        let mut seq = 0;
        for (record, bytes) in &self.log {
            seq += u64::from(M::is_event(&record.event));
            assert_eq!(record.seq, seq, "sequences have no gaps");
            let decoded: Record<M::Event> = codec::decode_record(record.seq, bytes).unwrap();
            assert_eq!(format!("{decoded:?}"), format!("{record:?}"));
            M::apply(&mut replayed, &decoded);
        }
        assert_eq!(format!("{replayed:?}"), format!("{:?}", self.state));
        if let Some(state) = &self.state {
            let bytes = codec::encode(state);
            assert!(bytes.len() <= limits::STATE_BYTES, "the state takes {} bytes", bytes.len());
            let decoded: M::State = codec::decode(&bytes).unwrap();
            assert_eq!(format!("{decoded:?}"), format!("{state:?}"));
        }
    }

    /// Decides and applies; returns the reply.
    pub(crate) fn run(&mut self, command: &M::Command) -> Result<M::Reply, M::Rejection> {
        match self.decide(command) {
            Decision::Answer(reply) | Decision::Elsewhere(reply) => Ok(reply),
            Decision::Reject(rejection) => Err(rejection),
            Decision::Change(change) => Ok(self.take(change)),
        }
    }

    /// The newest records, oldest first: those after the first `known`.
    pub(crate) fn since(&self, known: usize) -> Vec<&M::Event> {
        self.log[known..].iter().map(|(record, _)| &record.event).collect()
    }
}
