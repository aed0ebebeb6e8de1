//! A draft: what commands of a batch do to a copy of the state, before it is committed.

use std::num::NonZeroU64;
use std::sync::Arc;

use bytes::Bytes;

use crate::clock::Millis;
use crate::codec;
use crate::directory::{Answer, Envelope, KeyUse, Refusal, Reply};
use crate::id::EntityKey;
use crate::limits;
use crate::machine::{Change, Decision, DecisionContext, Effects, Machine, Need, ReadSet, Record, Undecided};
use crate::store::{
    AlarmChange, Commit, CommitId, KeyEffect, KeyHash, KeyRow, NewRecord, Redaction, RowWrite, SeqRange, ViewWrite,
};
use crate::trace::{Span, TraceContext, names};

use super::batch::Batch;
use super::in_flight::{Answers, InFlight};
use super::replay::Snapshot;
use super::{EntityCache, Resident, telemetry};

/// The answer to a request whose key was used before; `None`: it must be decided.
fn known_to<M: Machine>(key: KeyUse, row: KeyRow) -> Option<Reply<M>> {
    match row.effect {
        KeyEffect::Held { claim } if key.claim.is_some_and(|own| own.get() > claim) => None,
        KeyEffect::Held { .. } => Some(Err(Refusal::KeyHeld)),
        KeyEffect::Events(events) if key.fingerprint == row.fingerprint => Some(Ok(Answer::Repeat(events))),
        KeyEffect::Events(_) => Some(Err(Refusal::KeyReused)),
    }
}

/// The decisions of a batch, and the commit that they make.
pub(crate) struct Draft<M: Machine> {
    /// One for each command decided.
    replies: Vec<Reply<M>>,
    state: Option<M::State>,
    records: Vec<Arc<Record<M::Event>>>,
    encoded: Vec<NewRecord>,
    rows: Vec<RowWrite>,
    views: Vec<ViewWrite>,
    redactions: Vec<Redaction>,
    /// Whether one of its changes erases content.
    erases: bool,
    /// The traces of earlier requests that its events go back to.
    causes: Vec<TraceContext>,
    keys: Vec<(KeyHash, KeyRow)>,
    last_at: Millis,
    /// The commit's id.
    id: CommitId,
    /// The random bytes of the first decision, drawn with the id; `None` once they are used.
    first: Option<[u8; 16]>,
    next_seq: u64,
    /// About how many bytes it writes.
    bytes: usize,
    /// Whether more commands follow the one being decided: only they read its writes.
    has_more: bool,
}

impl<M: Effects> Draft<M> {
    /// Decides `batch` in order, each command on the state after those before it, as many as fit one commit. `Err`:
    /// these must be read first.
    pub(crate) fn decide(
        resident: &Resident<M>,
        batch: &[Envelope<M>],
        reads: &mut ReadSet,
    ) -> Result<Self, Vec<Need>> {
        let mut draft = Self::on(&resident.known, batch.len(), resident.node.entropy.draw_two());
        let clock = resident.node.clock.now();
        for (place, envelope) in batch.iter().enumerate() {
            draft.has_more = place + 1 < batch.len();
            let reply = draft.decide_one(resident, envelope, clock, reads)?;
            draft.replies.push(reply);
            if draft.bytes > limits::DRAFT_BYTES {
                break;
            }
        }
        Ok(draft)
    }

    /// Decides a command on the state that the commands before it have left.
    fn decide_one(
        &mut self,
        resident: &Resident<M>,
        envelope: &Envelope<M>,
        clock: Millis,
        reads: &mut ReadSet,
    ) -> Result<Reply<M>, Vec<Need>> {
        let known = envelope.key.and_then(|key| {
            let row = reads.key(key.hash).or_else(|| resident.known.keys.get(key.hash)).flatten();
            // By the clock, as the newest record may be from a time when the clock was ahead.
            row.filter(|row| clock.since(row.at) < limits::KEY_KEPT_MILLIS).and_then(|row| known_to::<M>(key, row))
        });
        let now = clock.max(resident.known.last_at);
        if let Some(reply) = known {
            return Ok(reply);
        }
        let Some(command) = &envelope.command else {
            // Held, so that a request whose claim was overtaken has no effect with the key.
            let claim = envelope.key.and_then(|key| key.claim).map_or(0, NonZeroU64::get);
            self.remember(envelope, self.next_seq, Some(claim), now, reads);
            return Ok(Err(Refusal::KeyHeld));
        };
        let context = self.context_of(resident, envelope, command, now);
        let state = self.state.as_ref();
        reads.set_listeners(M::listeners(&resident.node, resident.entity, state, command));
        match M::decide(state, command, &context, reads) {
            Ok(decision) => Ok(self.follow(decision, envelope, now, reads)),
            Err(Undecided::Missing(needs)) => Err(needs),
            Err(Undecided::Corrupt(error)) => {
                let entity = resident.entity;
                let refusal = Refusal::of_store(&error);
                if envelope.is_internal() {
                    telemetry::not_done(&resident.node, entity, &refusal);
                } else {
                    tracing::error!(?entity, %error, "stored data cannot be read; a command is refused");
                }
                Ok(Err(refusal))
            }
        }
    }

    fn context_of(
        &mut self,
        resident: &Resident<M>,
        envelope: &Envelope<M>,
        command: &M::Command,
        now: Millis,
    ) -> DecisionContext {
        let needs_place = M::needs_place(self.state.as_ref(), command);
        DecisionContext {
            entity: resident.entity,
            now,
            place: if needs_place { resident.node.new_place(resident.entity.kind, now) } else { now },
            next_seq: self.next_seq,
            random: self.first.take().unwrap_or_else(|| resident.node.entropy.draw()),
            node: resident.node.members.me(),
            key: envelope.key.map(|key| key.hash),
            trace: envelope.trace,
            alarm: envelope.span.context(),
        }
    }
}

impl<M: Machine> Draft<M> {
    /// A draft of up to so many commands that has decided none yet.
    fn on(known: &EntityCache<M>, commands: usize, [id, first]: [[u8; 16]; 2]) -> Self {
        Self {
            replies: Vec::with_capacity(commands),
            state: known.state.clone(),
            records: Vec::new(),
            encoded: Vec::new(),
            rows: Vec::new(),
            views: Vec::new(),
            redactions: Vec::new(),
            erases: false,
            causes: Vec::new(),
            keys: Vec::new(),
            last_at: known.last_at,
            id: CommitId(id),
            first: Some(first),
            next_seq: known.head.map_or(0, |head| head.seq) + 1,
            bytes: 0,
            has_more: true,
        }
    }

    /// How many commands were decided: the first ones of the batch, at least one.
    pub(crate) fn decided(&self) -> usize {
        self.replies.len()
    }

    /// The earlier requests that caused its events, in addition to those that its commands belong to.
    pub(crate) fn causes(&self) -> &[TraceContext] {
        &self.causes
    }

    /// Takes a decision into the draft, and returns the reply to send once it is durable.
    fn follow(&mut self, decision: Decision<M>, envelope: &Envelope<M>, now: Millis, reads: &mut ReadSet) -> Reply<M> {
        match decision {
            Decision::Answer(reply) => {
                self.remember(envelope, self.next_seq, None, now, reads);
                Ok(Answer::Done(reply))
            }
            Decision::Elsewhere(reply) => Ok(Answer::Done(reply)),
            Decision::Reject(rejection) => Err(Refusal::Rejected(rejection)),
            Decision::Change(change) => Ok(Answer::Done(self.take(change, envelope, now, reads))),
        }
    }

    /// Takes a change into the draft.
    fn take(&mut self, change: Change<M>, envelope: &Envelope<M>, now: Millis, reads: &mut ReadSet) -> M::Reply {
        let first = self.next_seq;
        let mut causes = change.causes.into_iter().peekable();
        for (place, event) in change.events.into_iter().enumerate() {
            let is_event = M::is_event(&event);
            let seq = if is_event { self.next_seq } else { self.next_seq - 1 };
            let cause = causes.next_if(|(of, _)| *of == place).map(|(_, cause)| cause);
            self.causes.extend(cause);
            let record = Record { seq, at: now, trace: cause.or(envelope.trace), event };
            M::apply(&mut self.state, &record);
            let payload = codec::encode_record(&record);
            if is_event && self.has_more {
                reads.write_event(seq, payload.clone());
            }
            self.next_seq += u64::from(is_event);
            self.bytes += payload.len();
            self.encoded.push(NewRecord { event: is_event, payload });
            self.records.push(Arc::new(record));
        }
        if self.has_more {
            change.rows.iter().for_each(|row| reads.write_row(row));
        }
        self.bytes += change.rows.iter().filter_map(|row| row.value.as_ref()).map(Bytes::len).sum::<usize>();
        self.rows.extend(change.rows);
        self.views.extend(change.views);
        self.erases |= change.erases || !change.redactions.is_empty();
        for record in change.redactions {
            self.redact(record, reads);
        }
        self.last_at = now;
        self.remember(envelope, first, change.holds, now, reads);
        change.reply
    }

    /// Records a key's effect: the events from `first` on, which may be none. Or the key is only held, up to this many
    /// claims.
    fn remember(&mut self, envelope: &Envelope<M>, first: u64, holds: Option<u64>, now: Millis, reads: &mut ReadSet) {
        let Some(KeyUse { hash, fingerprint, .. }) = envelope.key else { return };
        self.last_at = now;
        let effect = KeyRow::new(fingerprint, SeqRange::new(first, self.next_seq - 1), now);
        let row = holds.map_or(effect, |claim| KeyRow::held(fingerprint, claim, now));
        if self.has_more {
            reads.write_key(hash, row);
        }
        self.keys.push((hash, row));
    }

    /// Redacts an earlier event, in the log or in this draft.
    fn redact(&mut self, record: Record<M::Event>, reads: &mut ReadSet) {
        let payload = codec::encode_record(&record);
        self.bytes += payload.len();
        if self.has_more {
            reads.write_event(record.seq, payload.clone());
        }
        match self.records.iter().position(|known| known.seq == record.seq && M::is_event(&known.event)) {
            Some(place) => {
                self.encoded[place].payload = payload;
                self.records[place] = Arc::new(record);
            }
            None => self.redactions.push(Redaction { seq: record.seq, payload }),
        }
    }

    /// The commit of the draft, and what is done with it once its outcome is known. `batch` has the decided commands
    /// and no others; a snapshot is due every `snapshot_every` commits. `Err`: nothing changes, so there are only
    /// answers.
    pub(crate) fn into_commit(
        self,
        entity: EntityKey,
        mut batch: Batch<M>,
        known: &EntityCache<M>,
        snapshot_every: u64,
    ) -> Result<(Commit, InFlight<M>), Answers<M>> {
        self.describe(&mut batch.span);
        let alarm = self.state.as_ref().and_then(M::alarm);
        let moved = alarm != known.alarm && self.state.is_some();
        if self.is_empty() && !moved {
            return Err(Answers { batch, replies: self.replies });
        }
        // An older snapshot may contain what is being redacted from the log.
        let is_due = known.commits_since_snapshot + 1 >= snapshot_every || !self.redactions.is_empty();
        let snapshot = self.state.as_ref().filter(|_| is_due);
        let snapshot = snapshot.map(|state| codec::encode(&Snapshot { at: self.last_at, state }));
        let in_flight = InFlight {
            answers: Answers { batch, replies: self.replies },
            state: self.state,
            records: self.records,
            keys: self.keys.clone(),
            last_at: self.last_at,
            alarm,
            has_snapshot: snapshot.is_some(),
        };
        let commit = Commit {
            entity,
            expected: known.head,
            id: self.id,
            at: self.last_at,
            records: self.encoded,
            keys: self.keys,
            rows: self.rows,
            views: self.views,
            state: snapshot,
            alarm: moved.then_some(AlarmChange { previous: known.alarm, next: alarm }),
            redactions: self.redactions,
            erases: self.erases,
            watch: None,
        };
        Ok((commit, in_flight))
    }

    /// Sets the entity and the accepted message of a batch's span.
    fn describe(&self, span: &mut Span) {
        if !span.is_recorded() {
            return;
        }
        let Some(id) = self.state.as_ref().and_then(M::public_id) else { return };
        let mut accepted = self.records.iter().filter_map(|record| M::accepted(record));
        if let Some(first) = accepted.next() {
            span.set(names::MESSAGE_ID, first.to_string());
            span.set(names::MESSAGE_CONVERSATION, id.clone());
            let others = accepted.count();
            if others > 0 {
                span.set(names::MESSAGES, others + 1);
            }
        }
        span.set(names::ENTITY_ID, id);
    }

    /// Whether nothing is written.
    fn is_empty(&self) -> bool {
        self.encoded.is_empty()
            && self.rows.is_empty()
            && self.views.is_empty()
            && self.keys.is_empty()
            && self.redactions.is_empty()
    }
}

#[cfg(test)]
mod tests;
