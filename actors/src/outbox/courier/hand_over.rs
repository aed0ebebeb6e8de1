//! Handing over: receivers with one URL share a lane, so that each event is sent there once. If that lane's receiver is
//! deleted, disabled, moved or unsubscribed, its events are handed to the other receivers before the lane drops them,
//! so that no receiver depends on the fate of another one's endpoint.
//!
//! Which events are handed over is not recorded; it follows from the stored data. An event of a receiver is on the
//! receiver's own lane, or has an ended delivery to it, or else was on the shared lane. Events handed over are noted
//! before the lane that they came from, and handing over twice changes nothing.

use std::collections::{HashMap, HashSet};

use super::Courier;
use super::loading::{load_run, log_damaged_lane};
use crate::clock::Millis;
use crate::codec;
use crate::id::EntityKey;
use crate::node::Node;
use crate::outbox::keys::DeliveryKey;
use crate::outbox::lane::{Delivery, Lane, TAG_BYTES};
use crate::outbox::port::Sends;
use crate::outbox::run::LanePosition;
use crate::outbox::step::{HandedOver, Step, StepOutcome};
use crate::store::{KeyRange, Pages, Row, StoreError};
use crate::tables::{DELIVERIES, LANES};

/// Deliveries of an event, or lanes on which it waits, read at once.
const ROWS_PER_PAGE: usize = 64;
/// The pause before a failed handing over is retried.
const RETRY_PAUSE_MILLIS: u64 = 1_000;

impl<M: Sends> Courier<M> {
    /// The result of a step, once its events for others are handed over. If they cannot be, the step does not count.
    pub(super) async fn hand_over_first(
        &mut self,
        outcome: Result<StepOutcome, StoreError>,
        now: Millis,
    ) -> Result<Step, StoreError> {
        let StepOutcome { step, handed_over } = outcome?;
        Ok(if self.hand_over(handed_over).await? { step } else { Step::Later(now.plus(RETRY_PAUSE_MILLIS)) })
    }

    /// Hands over events that a lane leaves to others. `false`: some cannot be handed over now.
    ///
    /// # Errors
    ///
    /// `StoreError` if the store, or the stored data, cannot be read. The handing over is then repeated.
    async fn hand_over(&mut self, all: Vec<HandedOver>) -> Result<bool, StoreError> {
        let mut at_rest = HashMap::new();
        let mut has_begun = false;
        for of_event in all.chunk_by(|one, next| one.event.seq == next.event.seq) {
            // Each event may have many receivers. The first is always handed over, so that this makes progress.
            if has_begun && !self.has_room() {
                return Ok(false);
            }
            let Some(seq) = of_event.first().map(|handed_over| handed_over.event.seq) else { continue };
            let noted = NotedDeliveries::read(&self.node, self.entity, seq).await?;
            for handed_over in of_event {
                let separate = Lane { receiver: handed_over.receiver, again: Some(seq) };
                let had = |delivery: &Delivery| {
                    delivery.receiver == handed_over.receiver || delivery.was_tried_at(&handed_over.url)
                };
                if self.ended.of(seq).any(had)
                    || self.runs.contains_key(&separate)
                    || noted.contains(handed_over, separate)
                {
                    continue;
                }
                let usual = Lane::to(handed_over.receiver);
                if !self.runs.contains_key(&usual) && !at_rest.contains_key(&usual) {
                    let run = match load_run(&self.node, self.entity, usual).await {
                        Err(error) if !error.is_transient() => {
                            log_damaged_lane(&self.node, self.entity, usual.receiver, &error);
                            None
                        }
                        run => Some(run?),
                    };
                    at_rest.insert(usual, run);
                }
                let run = self.runs.get(&usual).or(at_rest.get(&usual).and_then(Option::as_ref));
                let lane = match run.map_or(LanePosition::Before, |run| run.position_of(seq)) {
                    LanePosition::Has => continue,
                    LanePosition::Searched => return Ok(false),
                    // Its own lane is past this event, or damaged. The event goes to a separate lane, where no other
                    // event delays it.
                    LanePosition::Before => separate,
                    LanePosition::Within | LanePosition::After => usual,
                };
                let run = self.runs.entry(lane).or_insert_with(|| at_rest.remove(&lane).flatten().unwrap_or_default());
                run.insert(handed_over.event);
                run.row.handed = (lane == separate).then_some(true);
                has_begun = true;
            }
        }
        Ok(true)
    }
}

/// The noted deliveries and lanes of an event that may be handed over.
struct NotedDeliveries {
    /// Its ended deliveries, by receiver; `None`: that one cannot be read.
    ended: Vec<([u8; TAG_BYTES], Option<Delivery>)>,
    /// The separate lanes on which it waits.
    separate_lanes: HashSet<Lane>,
}

impl NotedDeliveries {
    async fn read(node: &Node, entity: EntityKey, seq: u64) -> Result<Self, StoreError> {
        let mut ended = Vec::new();
        let mut separate_lanes = HashSet::new();
        let range = KeyRange::under(&DeliveryKey::of_event(seq));
        let mut pages = Pages::of_rows(node.store.as_ref(), entity, DELIVERIES, range, ROWS_PER_PAGE);
        while let Some(rows) = pages.next().await? {
            let of_row = |row: &Row| Some((DeliveryKey::parse(&row.key)?.tag, codec::decode(&row.value).ok()));
            ended.extend(rows.iter().filter_map(of_row));
        }
        let range = KeyRange::under(&Lane::separate_prefix(seq));
        let mut pages = Pages::of_rows(node.store.as_ref(), entity, LANES, range, ROWS_PER_PAGE);
        while let Some(rows) = pages.next().await? {
            separate_lanes.extend(rows.iter().filter_map(|row| Lane::parse(&row.key)));
        }
        Ok(Self { ended, separate_lanes })
    }

    /// Whether it waits for its receiver on a separate lane, or its delivery has ended there or at its URL.
    fn contains(&self, handed_over: &HandedOver, separate: Lane) -> bool {
        let tag = handed_over.receiver.tag();
        let is_it = |(of, delivery): &([u8; TAG_BYTES], Option<Delivery>)| {
            *of == tag || delivery.as_ref().is_some_and(|delivery| delivery.was_tried_at(&handed_over.url))
        };
        self.separate_lanes.contains(&separate) || self.ended.iter().any(is_it)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::lane::Receiver;
    use crate::outbox::step::FoundEvent;

    #[test]
    fn an_unreadable_delivery_keeps_only_its_own_receiver_waiting() {
        let event = FoundEvent { seq: 7, at: Millis(0) };
        let handed_over = |receiver| HandedOver { receiver, url: "https://example.com/".to_owned(), event };
        let noted = NotedDeliveries { ended: vec![(Receiver::Channel.tag(), None)], separate_lanes: HashSet::new() };
        for (receiver, expected) in [(Receiver::Channel, true), (Receiver::Message(7), false)] {
            let separate = Lane { receiver, again: Some(7) };
            assert_eq!(noted.contains(&handed_over(receiver), separate), expected, "{receiver:?}");
        }
    }
}
