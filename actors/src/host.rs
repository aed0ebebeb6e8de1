//! The actor that runs any [`Machine`]: commands in, one commit at a time out.
//!
//! ```text
//! queue ──► take a batch ──► read what it needs ──► decide on a copy ──► store.commit
//!   ▲                                                                        │ the mailbox is served
//!   └── Conflict: adopt what the store holds, decide again ◄─────────────────┤
//!            Committed: swap the state, answer all, notify subscribers, next batch
//!            Indeterminate: answer all, forget the state, reload it settled
//! ```
//!
//! A batch grows while a commit is in flight, so group commit needs no timer. No handler awaits I/O: reads and
//! commits come back as mail. A refusal is a reply; `Err` would end the actor.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use ractor::{Actor, ActorProcessingErr, ActorRef};

use crate::alarms::Wake;
use crate::directory::{Directory, Envelope, Occupancy, Refusal};
use crate::id::EntityKey;
use crate::machine::{Effects, Machine, Need, ReadSet};
use crate::node::Node;
use crate::store::{Head, KeyHash, Loaded, Outcome, ReadLevel, StoreError};

mod batch;
mod draft;
mod entity_cache;
mod in_flight;
mod keys;
mod loading;
mod reader;
mod replay;
mod telemetry;
mod timing;
mod waking;

use batch::Batch;
use draft::Draft;
pub(crate) use entity_cache::EntityCache;
use in_flight::{Answers, InFlight};
use loading::Load;
use reader::Completion;
pub(crate) use replay::replay;
use timing::Timing;

/// A message in an entity's mailbox.
pub(crate) enum Mail<M: Machine> {
    /// A command from outside.
    Do(Envelope<M>),
    /// The reads for the batch have ended.
    Read(Result<ReadSet, StoreError>),
    /// The commit in flight has ended.
    Ended(Result<Outcome, StoreError>),
    /// The entity's head in the store, to compare with the head that a refusal was decided on.
    Compared(Result<Option<Head>, StoreError>),
    /// The entity as the store holds it.
    Reloaded(Result<Option<Loaded>, StoreError>),
    /// The entity's alarm is due.
    Alarm(Wake),
    /// The entity has been idle for a while; leave if it still is.
    Passivate(Afterwards),
}

/// Whether an actor's in-memory state outlives the actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Afterwards {
    /// Its state is kept in memory for the next incarnation.
    Kept,
    /// It is dropped; the next incarnation loads it from the store.
    Forgotten,
}

/// What an actor is waiting for; its mailbox is open in every phase.
enum Phase<M: Machine> {
    /// Nothing is in flight: it waits for the next command.
    Idle,
    /// The data that these commands need is being read.
    Reading(Batch<M>),
    /// Nothing changes, and these answers wait for the store's head: it must be the one that they were decided on.
    Comparing(Box<Answers<M>>),
    /// A commit is with the store, and is timed; this follows from its outcome.
    Committing(Box<InFlight<M>>, Timing),
    /// The entity has been loading again, settled, since then.
    Reloading(Instant),
    /// It waits for nothing more: it drains its mailbox, and hands back commands that still arrive.
    Leaving,
}

/// Starts an entity; see the module's text.
pub(crate) struct Host<M>(std::marker::PhantomData<fn() -> M>);

impl<M> Host<M> {
    pub(crate) fn new() -> Self {
        Self(std::marker::PhantomData)
    }
}

/// The arguments of a new actor.
pub(crate) struct Start<M: Effects> {
    pub(crate) node: Arc<Node>,
    pub(crate) directory: Directory<M>,
    pub(crate) entity: EntityKey,
}

/// An entity in memory.
pub(crate) struct Resident<M: Effects> {
    node: Arc<Node>,
    entity: EntityKey,
    myself: ActorRef<Mail<M>>,
    known: Box<EntityCache<M>>,
    queue: VecDeque<Envelope<M>>,
    phase: Phase<M>,
    conflicts: u32,
    /// How it was loaded; kept while commands that waited for the load may still arrive.
    load: Option<Box<Load>>,
    /// Its alarm rang while the in-memory state was stale: due work is done after the reload.
    rang: bool,
    /// Why it cannot serve.
    failed: Option<StoreError>,
    /// Removes the directory's slot when the actor ends, normally or by a panic.
    occupancy: Occupancy<M>,
}

/// After how many conflicts in a row a batch is given up; each means that another process committed first.
const MAX_CONFLICTS: u32 = 16;

impl<M: Effects> Actor for Host<M> {
    type Msg = Mail<M>;
    type State = Resident<M>;
    type Arguments = Start<M>;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        start: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        let occupancy = start.directory.occupancy(&start.node, start.entity, &myself);
        let kept = occupancy.take_kept();
        let is_kept = kept.is_some();
        let mut resident = Resident {
            known: kept.unwrap_or_default(),
            node: start.node,
            entity: start.entity,
            myself,
            // Most entities have at most one command waiting, and there are many entities.
            queue: VecDeque::with_capacity(1),
            phase: Phase::Idle,
            conflicts: 0,
            load: None,
            rang: false,
            failed: None,
            occupancy,
        };
        if !is_kept {
            resident.load_first().await;
        }
        Ok(resident)
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        mail: Self::Msg,
        resident: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match mail {
            Mail::Do(mut envelope) if matches!(resident.phase, Phase::Leaving) => {
                resident.came_after_load(&mut envelope);
                let failed = resident.failed.as_ref();
                envelope.answer(Err(failed.map_or(Refusal::Moved, Refusal::of_store)));
            }
            Mail::Do(mut envelope) => {
                resident.came_after_load(&mut envelope);
                resident.queue.push_back(envelope);
                resident.step();
            }
            Mail::Read(found) => {
                resident.read(found);
                resident.step();
            }
            Mail::Compared(head) => {
                resident.compared(head);
                resident.step();
            }
            Mail::Ended(outcome) => resident.ended(outcome),
            Mail::Reloaded(loaded) => {
                resident.reloaded(loaded);
                resident.step();
            }
            Mail::Alarm(_waking) => resident.wake(),
            Mail::Passivate(afterwards) => {
                if matches!(resident.phase, Phase::Idle) && resident.queue.is_empty() {
                    resident.passivate(afterwards);
                }
            }
        }
        Ok(())
    }
}

impl<M: Effects> Resident<M> {
    /// Replaces the in-memory state by the stored one.
    fn adopt(&mut self, loaded: Option<Loaded>) -> Result<(), StoreError> {
        self.node.alarms.note(self.entity, loaded.as_ref().and_then(|loaded| loaded.alarm), self.node.clock.now());
        *self.known = EntityCache::of(loaded.as_ref())?;
        Ok(())
    }

    /// Continues if nothing is in flight: decides and commits the next batch, until the queue is empty. Only the mail
    /// handler calls it, so that a long queue of refusals is a loop and not a recursion.
    fn step(&mut self) {
        while matches!(self.phase, Phase::Idle) && !self.queue.is_empty() {
            if self.known.is_stale {
                self.reload();
                continue;
            }
            let batch = Batch::take(&self.node, self.entity, &mut self.queue);
            self.decide(batch, ReadSet::default());
        }
    }

    /// Decides a batch, reading first what it needs.
    fn decide(&mut self, batch: Batch<M>, mut reads: ReadSet) {
        let mut needs = HashSet::new();
        for command in batch.envelopes.iter().filter_map(|envelope| envelope.command.as_deref()) {
            needs.extend(M::needs(self.known.state.as_ref(), command).into_iter().filter(|need| !reads.has(need)));
        }
        let keys: Vec<KeyHash> = batch
            .envelopes
            .iter()
            .filter_map(|envelope| envelope.key.map(|key| key.hash))
            .filter(|key| self.known.keys.get(*key).is_none() && reads.key(*key).is_none())
            .collect();
        if needs.is_empty() && keys.is_empty() {
            match Draft::decide(self, &batch.envelopes, &mut reads) {
                Ok(draft) => return self.commit(draft, batch),
                Err(more) => {
                    reads.forget_writes();
                    needs.extend(more);
                }
            }
        }
        self.fetch(batch, reads, needs, keys);
    }

    /// Reads synchronously if the store can, else receives the result as mail.
    fn fetch(&mut self, batch: Batch<M>, reads: ReadSet, needs: HashSet<Need>, keys: Vec<KeyHash>) {
        let store = Arc::clone(&self.node.store);
        let reading = reader::read(store, self.entity, reads, needs, keys);
        self.phase = Phase::Reading(batch);
        if let Some(reads) = reader::now_or_later(reading, &self.myself, Mail::Read) {
            self.read(reads);
        }
    }

    fn read(&mut self, reads: Result<ReadSet, StoreError>) {
        let Phase::Reading(mut batch) = std::mem::replace(&mut self.phase, Phase::Idle) else { return };
        match reads {
            Ok(reads) => self.decide(batch, reads),
            // A damaged idempotency key refuses the command that came with it, and no other one of its batch.
            Err(error) if !error.is_transient() && batch.envelopes.len() > 1 => {
                batch.give_back(1, &mut self.queue);
                self.decide(batch, ReadSet::default());
            }
            Err(error) => self.refuse(batch, &Refusal::of_store(&error)),
        }
    }

    /// Refuses all commands of a batch.
    fn refuse(&self, batch: Batch<M>, refusal: &Refusal<M::Rejection>) {
        if batch.envelopes.iter().any(Envelope::is_internal) {
            telemetry::not_done(&self.node, self.entity, refusal);
        }
        batch.refuse(refusal);
    }

    /// Sends a draft to the store, or answers at once where nothing changes.
    fn commit(&mut self, draft: Draft<M>, mut batch: Batch<M>) {
        batch.give_back(draft.decided(), &mut self.queue);
        batch.link_to_causes(&self.node, self.entity, draft.causes());
        let snapshot_every = self.node.store.snapshot_every();
        let (mut commit, in_flight) = match draft.into_commit(self.entity, batch, &self.known, snapshot_every) {
            Ok(both) => both,
            Err(answers) => return self.answer(answers),
        };
        let timing = Timing::begin(&self.node, in_flight.answers.batch.span.context(), &mut commit);
        self.phase = Phase::Committing(Box::new(in_flight), timing);
        let lost = || StoreError::Indeterminate("the store did not answer".into());
        let completion = Completion::new(&self.myself, Mail::Ended, lost);
        self.node.store.commit(commit, Box::new(move |outcome| completion.send(outcome)));
    }

    /// Answers a batch that changes nothing. A commit proves the state that it was decided on; here nothing does. So if
    /// other processes write too, the answer is sent only if the store's head is unchanged. A refusal compares with a
    /// settled head: it may have read part of an unacknowledged commit, such as an effect's row without its key.
    fn answer(&mut self, answers: Answers<M>) {
        if !self.node.store.is_shared() || !answers.decides() {
            return answers.answer();
        }
        let store = Arc::clone(&self.node.store);
        let entity = self.entity;
        let read_level = if answers.refuses() { ReadLevel::Settled } else { ReadLevel::Acknowledged };
        self.phase = Phase::Comparing(Box::new(answers));
        let reading = Box::pin(async move { store.head(entity, read_level).await });
        if let Some(head) = reader::now_or_later(reading, &self.myself, Mail::Compared) {
            self.compared(head);
        }
    }

    fn compared(&mut self, head: Result<Option<Head>, StoreError>) {
        let Phase::Comparing(answers) = std::mem::replace(&mut self.phase, Phase::Idle) else { return };
        match head {
            Ok(head) if head == self.known.head => {
                self.conflicts = 0;
                answers.answer();
            }
            Ok(_) => self.conflict(answers.batch),
            Err(error) => self.refuse(answers.batch, &Refusal::of_store(&error)),
        }
    }

    /// Another process committed first: decides the batch again on what the store holds, up to a bound.
    fn conflict(&mut self, mut batch: Batch<M>) {
        self.conflicts += 1;
        if self.conflicts > MAX_CONFLICTS {
            self.conflicts = 0;
            self.refuse(batch, &Refusal::Unavailable("other servers keep changing the entity".into()));
        } else {
            batch.give_back(0, &mut self.queue);
        }
        self.reload();
    }

    fn ended(&mut self, outcome: Result<Outcome, StoreError>) {
        let Phase::Committing(in_flight, timing) = std::mem::replace(&mut self.phase, Phase::Idle) else { return };
        timing.end(&self.node, &outcome);
        match outcome {
            Ok(Outcome::Committed(head)) => self.committed(head, *in_flight),
            Ok(Outcome::Conflict) => self.conflict(in_flight.answers.batch),
            Err(StoreError::Indeterminate(cause)) => {
                self.refuse(in_flight.answers.batch, &Refusal::Unknown(cause));
                self.reload();
            }
            Err(error) => self.refuse(in_flight.answers.batch, &Refusal::of_store(&error)),
        }
        self.step();
    }

    fn committed(&mut self, head: Head, in_flight: InFlight<M>) {
        let InFlight { answers, state, records, keys, last_at, alarm, has_snapshot } = in_flight;
        self.conflicts = 0;
        self.known.head = Some(head);
        self.known.last_at = last_at;
        self.known.commits_since_snapshot = if has_snapshot { 0 } else { self.known.commits_since_snapshot + 1 };
        for (key, row) in keys {
            self.known.keys.insert(key, row);
        }
        // A wake that did only part of the due work leaves the alarm unchanged, and continues at once.
        let continues =
            answers.batch.envelopes.iter().any(Envelope::is_internal) && alarm.is_some_and(|at| at <= last_at);
        if alarm != self.known.alarm || continues {
            self.known.alarm = alarm;
            self.known.put_off = None;
            self.node.alarms.set(self.entity, alarm, last_at);
        }
        self.known.state = state;
        if let Some(state) = &self.known.state {
            let next = M::alarm_meanwhile(state, last_at);
            let earlier = next.filter(|next| self.known.put_off.is_some_and(|put_off| *next < put_off));
            M::committed(&self.node, self.entity, state, &records);
            if let Some(earlier) = earlier {
                self.ring_meanwhile(earlier);
            }
        }
        answers.answer();
    }

    /// No state could be loaded: refuses all commands and leaves. The next command activates the entity again.
    fn fail(&mut self, error: StoreError) {
        telemetry::not_loaded(&self.node, self.entity, &error);
        for envelope in self.queue.drain(..) {
            envelope.answer(Err(Refusal::of_store(&error)));
        }
        self.failed = Some(error);
        self.leave();
    }

    /// No command is waiting, and nothing is in flight.
    fn passivate(&mut self, afterwards: Afterwards) {
        if afterwards == Afterwards::Kept {
            self.occupancy.keep(std::mem::take(&mut self.known));
        }
        self.leave();
    }

    fn leave(&mut self) {
        self.phase = Phase::Leaving;
        self.occupancy.leaves();
        let _ = self.myself.get_cell().drain();
    }
}
