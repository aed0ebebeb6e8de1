//! What a lane sends for others too, because they have one URL, and does not send there any more: it is handed to them
//! before that lane is done with it, so that nobody's events depend on what becomes of somebody else's endpoint.
//!
//! Nothing says which events those are; it follows from what is stored. Who wants an event either has a lane that has
//! it, or has a delivery of it that ended, or else had it on the lane of another. What is handed over is noted before
//! the lane that it came from, and handing it over once more changes nothing.

use super::Courier;
use crate::clock::Millis;
use crate::codec;
use crate::id::EntityKey;
use crate::node::Node;
use crate::outbox::lane::{Delivery, Lane, Waiting};
use crate::outbox::port::Sends;
use crate::outbox::run::Place;
use crate::outbox::state::DeliveryKey;
use crate::outbox::step::{Left, Step, Stepped};
use crate::store::{KeyRange, Pages, StoreError};
use crate::tables::{DELIVERIES, LANES};

/// Deliveries of an event read at once.
const PAGE: usize = 64;
/// After which is tried again to hand over what could not be just now.
const AGAIN_MILLIS: u64 = 1_000;

impl<M: Sends> Courier<M> {
    /// What came of a step, once what it leaves to others is handed over. Where that cannot be done it was not made.
    pub(super) async fn settled(&mut self, made: Result<Stepped, StoreError>, now: Millis) -> Result<Step, StoreError> {
        let Stepped { step, left } = made?;
        Ok(if self.hand_over(left).await? { step } else { Step::Later(now.plus(AGAIN_MILLIS)) })
    }

    /// Hands over events that a lane leaves to others. `false`: some cannot be handed over just now.
    ///
    /// # Errors
    ///
    /// `StoreError` where the store cannot be read, or holds what cannot be. Then too it is to be done again.
    async fn hand_over(&mut self, left: Vec<Left>) -> Result<bool, StoreError> {
        for event in left {
            let had = |delivery: &Delivery| delivery.receiver == event.receiver || delivery.was_tried_at(&event.url);
            if self.ended.of(event.seq).any(had) || had_before(&self.node, self.entity, event.seq, had).await? {
                continue;
            }
            let [lane, beside] = [None, Some(event.seq)].map(|again| Lane { receiver: event.receiver, again });
            if self.runs.contains_key(&beside) || is_stored(&self.node, self.entity, beside).await? {
                continue;
            }
            self.take_up(lane).await?;
            let place = self.runs.get(&lane).map_or(Place::Behind, |run| run.place_of(event.seq));
            let lane = match place {
                Place::Has => continue,
                Place::Searched => return Ok(false),
                // Its own lane has come further. It goes beside that, and what waits there does not wait for it.
                Place::Before if !self.has_room() => return Ok(false),
                Place::Before => beside,
                Place::Within | Place::Behind => lane,
            };
            self.runs.entry(lane).or_default().insert(event.seq, event.at);
        }
        Ok(true)
    }
}

/// Whether a delivery of an event that is noted is one that counts.
async fn had_before(
    node: &Node,
    entity: EntityKey,
    seq: u64,
    had: impl Fn(&Delivery) -> bool,
) -> Result<bool, StoreError> {
    let range = KeyRange::under(&DeliveryKey::of_event(seq));
    let mut pages = Pages::of_rows(node.store.as_ref(), entity, DELIVERIES, range, PAGE);
    while let Some(rows) = pages.next().await? {
        for row in rows {
            if had(&codec::decode(&row.value)?) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

async fn is_stored(node: &Node, entity: EntityKey, lane: Lane) -> Result<bool, StoreError> {
    Ok(node.stored::<Waiting>(entity, LANES, lane.key()).await?.is_some())
}
