//! Finds or starts the actor of an entity, and passivates it: the only place that spawns entities.
//!
//! Every race of activation and passivation ends here:
//!
//! | race | how it ends |
//! |---|---|
//! | two tasks activate at once | one map entry, one synchronous spawn under its lock |
//! | a command right before the actor drains | decided, or handed back as [`Refusal::Moved`] and sent again |
//! | a command right after | the mailbox refuses it; wait for the old incarnation to end, then activate anew |
//! | a new incarnation while the old one commits | an actor drains only when nothing is in flight |
//! | a new incarnation before the old one has left its state | it leaves that first, then drains, then its slot |
//! | an actor that panicked | its guard removes the slot; callers get an unknown outcome, subscribers read again |
//! | loading fails | all waiting commands are refused; the next command activates the entity again |
//! | idle actor, due alarm | the alarm activates it again |

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use dashmap::mapref::multiple::RefMulti;
use ractor::{ActorId, ActorRef, ActorRuntime, ActorStatus};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::alarms::Wake;
use crate::clock::Millis;
use crate::host::{Afterwards, EntityCache, Host, Mail, Start};
use crate::id::EntityKey;
use crate::limits;
use crate::machine::Effects;
use crate::node::Node;
use crate::node::census::Mailbox;
use crate::store::Cause;
use crate::trace::{Span, SpanKind, names};

mod admission;
mod command;
mod parked;
mod refusal;
mod sweep;

pub use admission::Admission;
use admission::{PendingCount, Permit};
pub(crate) use command::Envelope;
use command::weight;
pub use command::{Answer, CommandContext, KeyUse, Reply};
use parked::ParkedStates;
pub use refusal::Refusal;
pub use sweep::Bounds;

/// An incarnation of an entity.
struct Slot<M: Effects> {
    actor: ActorRef<Mail<M>>,
    pending: Arc<PendingCount>,
    used_at: AtomicU64,
}

/// The resident entities of one kind: those with an actor, and those whose actor has left its state in memory.
pub struct Directory<M: Effects> {
    entities: Arc<Entities<M>>,
}

struct Entities<M: Effects> {
    slots: DashMap<EntityKey, Slot<M>>,
    parked: ParkedStates<M>,
}

impl<M: Effects> Clone for Directory<M> {
    fn clone(&self) -> Self {
        Self { entities: Arc::clone(&self.entities) }
    }
}

impl<M: Effects> std::fmt::Debug for Directory<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Directory").field("actors", &self.actors()).field("resident", &self.resident()).finish()
    }
}

impl<M: Effects> Default for Directory<M> {
    fn default() -> Self {
        Self { entities: Arc::new(Entities { slots: DashMap::new(), parked: ParkedStates::default() }) }
    }
}

/// Removes an incarnation's slot when dropped, and no other's.
pub(crate) struct Occupancy<M: Effects> {
    directory: Directory<M>,
    node: Arc<Node>,
    entity: EntityKey,
    actor: ActorId,
    has_left: bool,
}

impl<M: Effects> Occupancy<M> {
    /// The state that the previous incarnation left.
    pub(crate) fn take_kept(&self) -> Option<Box<EntityCache<M>>> {
        self.directory.entities.parked.take(self.entity)
    }

    /// Leaves the in-memory state to the next incarnation; this one must not act on the entity afterwards.
    pub(crate) fn keep(&self, known: Box<EntityCache<M>>) {
        let used_at = self.directory.entities.slots.get(&self.entity).map(|slot| slot.used_at.load(Ordering::Relaxed));
        // Without a slot the state could not be found.
        if let Some(used_at) = used_at {
            self.directory.entities.parked.put(self.entity, known, Millis(used_at));
        }
    }

    /// The incarnation ends by itself, with nothing in flight.
    pub(crate) fn leaves(&mut self) {
        self.has_left = true;
    }
}

impl<M: Effects> Drop for Occupancy<M> {
    fn drop(&mut self) {
        if !self.has_left {
            // It panicked, perhaps with a commit that subscribers have not seen: they are made to read the store before
            // the next incarnation announces anything.
            M::adopted(&self.node, self.entity, None);
        }
        self.directory.vacate(self.entity, self.actor);
    }
}

/// The result of an attempt to hand over a command.
enum HandOff<M: Effects> {
    Waiting(oneshot::Receiver<Reply<M>>),
    /// The incarnation is ending; wait for it.
    Ending(ractor::ActorCell),
}

impl<M: Effects> Directory<M> {
    /// Sends a command to an entity, activating it if necessary.
    ///
    /// # Errors
    ///
    /// A [`Refusal`]; after any but `Unknown` nothing was stored.
    pub async fn ask(
        &self,
        node: &Arc<Node>,
        entity: EntityKey,
        command: impl Into<Arc<M::Command>>,
        context: CommandContext,
    ) -> Reply<M> {
        let reply = self.send(node, entity, Some(command.into()), context).await;
        if let Err(refusal) = &reply
            && let Some(reason) = refusal.turned_away()
        {
            node.metrics.turned_away.of(reason).inc();
        }
        reply
    }

    /// Ensures that no command with this key, up to its claim, has an effect in this entity. It answers
    /// [`Refusal::KeyHeld`] if none had, and [`Refusal::KeyReused`] if it is too late.
    pub(crate) async fn hold(
        &self,
        node: &Arc<Node>,
        entity: EntityKey,
        context: CommandContext,
    ) -> Refusal<M::Rejection> {
        // An envelope without a command is always answered with a refusal.
        self.send(node, entity, None, context).await.err().unwrap_or(Refusal::KeyReused)
    }

    async fn send(
        &self,
        node: &Arc<Node>,
        entity: EntityKey,
        command: Option<Arc<M::Command>>,
        context: CommandContext,
    ) -> Reply<M> {
        let deadline = Instant::now() + Duration::from_millis(limits::COMMAND_MILLIS);
        loop {
            if node.admission.is_closed() {
                return Err(Refusal::Draining);
            }
            match self.hand_over(node, entity, command.as_ref(), context)? {
                HandOff::Waiting(reply) => match timeout_at(deadline, reply).await {
                    Ok(Ok(Err(Refusal::Moved))) => {}
                    Ok(Ok(reply)) => return reply,
                    Ok(Err(_)) => return Err(Refusal::Unknown("the actor failed".into())),
                    Err(_) => return Err(Refusal::Unknown("no answer in time".into())),
                },
                HandOff::Ending(cell) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if cell.wait(Some(left)).await.is_err() {
                        return Err(Refusal::Unavailable("the entity is still being passivated".into()));
                    }
                    self.vacate(entity, cell.get_id());
                    // During the runtime's shutdown every actor ends before it begins; without this the loop would
                    // never yield.
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    /// One attempt. No await happens while the map's lock is held.
    fn hand_over(
        &self,
        node: &Arc<Node>,
        entity: EntityKey,
        command: Option<&Arc<M::Command>>,
        context: CommandContext,
    ) -> Result<HandOff<M>, Refusal<M::Rejection>> {
        let now = node.clock.now().0;
        let weight = weight::<M>(command.map(Arc::as_ref));
        let admit = |pending: &Arc<PendingCount>| Permit::take(pending, &node.admission, weight);
        let (actor, permit) = match self.entities.slots.entry(entity) {
            Entry::Occupied(slot) => {
                let slot = slot.get();
                slot.used_at.store(now, Ordering::Relaxed);
                if slot.actor.get_status() >= ActorStatus::Draining {
                    return Ok(HandOff::Ending(slot.actor.get_cell()));
                }
                (slot.actor.clone(), admit(&slot.pending)?)
            }
            Entry::Vacant(place) => {
                let pending = Arc::default();
                // A refused command starts no actor.
                let permit = admit(&pending)?;
                let actor = self.activate(node, entity)?;
                place.insert(Slot { actor: actor.clone(), pending, used_at: AtomicU64::new(now) });
                (actor, permit)
            }
        };
        let (sender, receiver) = oneshot::channel();
        let envelope = Envelope {
            command: command.cloned(),
            key: context.key,
            trace: context.trace,
            admitted: Some(std::time::Instant::now()),
            wait: node.traces().underway().map(|_| node.span(names::WAIT, SpanKind::Internal, context.trace)),
            reply: Some(sender),
            span: Span::default(),
            permit: Some(permit),
        };
        match actor.cast(Mail::Do(envelope)) {
            Ok(()) => Ok(HandOff::Waiting(receiver)),
            Err(_) => Ok(HandOff::Ending(actor.get_cell())),
        }
    }

    fn activate(&self, node: &Arc<Node>, entity: EntityKey) -> Result<ActorRef<Mail<M>>, Refusal<M::Rejection>> {
        let start = Start { node: Arc::clone(node), directory: self.clone(), entity };
        // Unlinked: links take a lock of the whole process, and a slot is removed by the actor's own guard.
        let (actor, _starting) = ActorRuntime::<Host<M>>::spawn_instant(None, Host::new(), start)
            .map_err(|error| Refusal::Unavailable(Cause::of("the actor did not start", error)))?;
        Ok(actor)
    }

    /// Wakes an entity for its alarm, activating it if necessary. `false`: it could not be woken now; try again.
    pub(crate) fn wake(&self, node: &Arc<Node>, entity: EntityKey, waking: Wake) -> bool {
        let now = node.clock.now().0;
        let actor = match self.entities.slots.entry(entity) {
            Entry::Occupied(slot) => {
                // An entity that rings repeatedly, as during a long turn, would be reloaded at once if it were evicted.
                slot.get().used_at.store(now, Ordering::Relaxed);
                slot.get().actor.clone()
            }
            Entry::Vacant(place) => {
                let Ok(actor) = self.activate(node, entity) else { return false };
                place.insert(Slot { actor: actor.clone(), pending: Arc::default(), used_at: AtomicU64::new(now) });
                actor
            }
        };
        actor.get_status() < ActorStatus::Draining && actor.cast(Mail::Alarm(waking)).is_ok()
    }

    /// The guard that an incarnation holds while it lives.
    pub(crate) fn occupancy(&self, node: &Arc<Node>, entity: EntityKey, actor: &ActorRef<Mail<M>>) -> Occupancy<M> {
        let node = Arc::clone(node);
        let actor = actor.get_id();
        Occupancy { directory: self.clone(), node, entity, actor, has_left: false }
    }

    fn vacate(&self, entity: EntityKey, actor: ActorId) {
        self.entities.slots.remove_if(&entity, |_, slot| slot.actor.get_id() == actor);
    }

    /// How many entities are resident.
    pub fn resident(&self) -> usize {
        self.entities.slots.len() + self.entities.parked.len()
    }

    /// How many of them have an actor.
    pub fn actors(&self) -> usize {
        self.entities.slots.len()
    }

    /// The entities with the most waiting or running commands, at most `limit` of those that have any.
    pub(crate) fn deepest(&self, limit: usize) -> Vec<Mailbox> {
        let mailbox = |slot: RefMulti<'_, EntityKey, Slot<M>>| {
            let (commands, bytes) = slot.pending.now();
            (commands > 0).then(|| Mailbox { entity: *slot.key(), id: None, commands, bytes })
        };
        let mut deepest: Vec<Mailbox> = self.entities.slots.iter().filter_map(mailbox).collect();
        deepest.sort_unstable_by_key(|mailbox| std::cmp::Reverse((mailbox.commands, mailbox.bytes)));
        deepest.truncate(limit);
        deepest
    }

    /// Lets every entity finish its commands and leave; returns when all have ended or at `deadline`.
    pub async fn drain(&self, deadline: Instant) {
        loop {
            let actors: Vec<_> = self.entities.slots.iter().map(|slot| slot.actor.clone()).collect();
            if actors.is_empty() {
                return self.entities.parked.clear();
            }
            for actor in &actors {
                let _ = actor.cast(Mail::Passivate(Afterwards::Forgotten));
            }
            for actor in &actors {
                let left = deadline.saturating_duration_since(Instant::now());
                // A busy entity remains; the next round asks it again.
                let _ = actor.get_cell().wait(Some(left.min(Duration::from_millis(100)))).await;
            }
            self.entities.slots.retain(|_, slot| slot.actor.get_status() < ActorStatus::Stopped);
            if Instant::now() >= deadline {
                return;
            }
        }
    }
}
