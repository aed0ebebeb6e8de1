//! Evicting entities from memory.

use std::sync::atomic::Ordering;

use tokio::task::yield_now;

use crate::clock::Millis;
use crate::host::{Afterwards, Mail};
use crate::limits;
use crate::machine::Effects;

use super::Directory;

/// Actors that are requested to end at once. Each then runs once, and requests must not wait for all of them.
const ACTORS_PER_YIELD: usize = 64;

/// The bounds of resident entities of one kind.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// How long an unused entity is kept.
    pub idle_millis: u64,
    /// Actors.
    pub actors: usize,
    /// Entities, with an actor or without.
    pub entities: usize,
}

impl Default for Bounds {
    /// The bounds of a node.
    fn default() -> Self {
        Self {
            idle_millis: limits::PASSIVATE_AFTER_MILLIS,
            actors: limits::ACTORS,
            entities: limits::RESIDENT_ENTITIES,
        }
    }
}

impl<M: Effects> Directory<M> {
    /// Whether the bounds are exceeded.
    pub fn is_beyond(&self, bounds: &Bounds) -> bool {
        self.actors() > bounds.actors || self.resident() > bounds.entities
    }

    /// Asks idle actors to leave: those unused for too long, and the least recently used ones beyond the bound. The
    /// states of the latter are kept within their own bound, until the entity was unused for too long.
    pub async fn sweep(&self, now: Millis, bounds: Bounds) {
        let slots = &self.entities.slots;
        let mut idle: Vec<_> = slots
            .iter()
            .filter(|slot| slot.pending.commands.load(Ordering::Relaxed) == 0)
            .map(|slot| (slot.used_at.load(Ordering::Relaxed), slot.actor.clone()))
            .collect();
        let excess = slots.len().saturating_sub(bounds.actors);
        idle.sort_unstable_by_key(|(used_at, _)| *used_at);
        for (place, (used_at, actor)) in idle.into_iter().enumerate() {
            let afterwards = if now.0.saturating_sub(used_at) >= bounds.idle_millis {
                Afterwards::Forgotten
            } else if place < excess {
                Afterwards::Kept
            } else {
                break;
            };
            // An ending actor needs no message.
            let _ = actor.cast(Mail::Passivate(afterwards));
            if place % ACTORS_PER_YIELD == ACTORS_PER_YIELD - 1 {
                yield_now().await;
            }
        }
        self.entities.parked.forget(now, bounds.idle_millis, bounds.entities.saturating_sub(slots.len()));
    }
}
