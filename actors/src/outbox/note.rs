//! Notes of a courier's progress: their bounds, and how an entity is made to store one.

use std::sync::Arc;
use std::time::Duration;

use super::attempt_telemetry;
use super::keys::DeliveryKey;
use super::lane::{Attempt, Delivery, EarlierEnd, End, Receiver, keep};
use super::port::Sends;
use super::state::Settlement;
use super::step::Unsent;
use crate::clock::Millis;
use crate::directory::{CommandContext, Refusal};
use crate::id::EntityKey;
use crate::limits;
use crate::node::Node;
use crate::store::{ReadLevel, StoreError};
use crate::tables::DELIVERIES;
use crate::tasks::backoff::{Backoff, retry_transient};

/// How long a note is offered if other processes share the store: less than the time for which they leave a log alone.
const SHARED_STORE_TIMEOUT: Duration = Duration::from_secs(4);
/// After so many offers a log line reports that the note is not stored.
const LOGGED_AFTER: u32 = 9;

/// A delivery that was not made and will not be.
#[derive(Debug)]
pub(super) struct NotSent {
    pub(super) receiver: Receiver,
    /// The event.
    pub(super) seq: u64,
    /// The attempts so far.
    pub(super) attempts: Vec<Attempt>,
    /// How it had ended before its retry was requested, if it was not tried since.
    pub(super) was: Option<EarlierEnd>,
}

/// Deliveries that have ended and are not noted yet.
#[derive(Debug, Default)]
pub(super) struct Ended {
    deliveries: Vec<(DeliveryKey, Delivery)>,
    /// About how many bytes they add to a commit.
    bytes: usize,
}

impl Ended {
    pub(super) fn push(&mut self, key: DeliveryKey, delivery: Delivery) {
        self.bytes += delivery.weight();
        self.deliveries.push((key, delivery));
    }

    /// An event that was not sent and will not be, with the reason in one word. If it had ended before, its earlier end
    /// is kept.
    pub(super) fn not_sent(&mut self, event: NotSent, why: &str, unsent: Unsent, now: Millis) {
        let NotSent { receiver, seq, mut attempts, was } = event;
        keep(&mut attempts, Attempt::not_made(now, why));
        let Unsent { happened: at, event, url } = unsent;
        let EarlierEnd { end, url } = match was {
            Some(was) if was.url.is_some() => was,
            was => EarlierEnd { end: was.map_or(End::Failed, |was| was.end), url },
        };
        let url = url.unwrap_or_default();
        let delivery = Delivery { at, event: event.to_owned(), receiver, url, end, attempts };
        self.push(DeliveryKey::new(seq, receiver), delivery);
    }

    /// Those of one event.
    pub(super) fn of(&self, seq: u64) -> impl Iterator<Item = &Delivery> {
        self.deliveries.iter().filter(move |(key, _)| key.seq == seq).map(|(_, delivery)| delivery)
    }

    /// Whether they must be noted before more steps: deliveries that end without waiting could otherwise exceed what a
    /// store accepts, and would be sent again and again.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= limits::NOTE_BYTES
    }

    /// All of them; none are left here.
    pub(super) fn take(&mut self) -> Vec<(DeliveryKey, Delivery)> {
        std::mem::take(self).deliveries
    }
}

/// Has the entity store the progress of sending, in as many commits as needed.
///
/// # Errors
///
/// `StoreError` if it cannot; part of it may be stored then.
pub(super) async fn note<M: Sends>(
    node: &Arc<Node>,
    entity: EntityKey,
    settlement: Settlement,
) -> Result<(), StoreError> {
    let mut backoff = Backoff::of_report(node.store.is_shared(), SHARED_STORE_TIMEOUT);
    for part in parts(settlement) {
        let failed: Vec<_> = part.ended.iter().filter(|(_, delivery)| delivery.end == End::Failed).cloned().collect();
        let noted = offer::<M>(node, entity, part, &mut backoff).await;
        // Only now: deliveries that are not noted are retried, and would be reported twice.
        let is_noted = match &noted {
            Ok(()) => true,
            Err(StoreError::Indeterminate(_)) => {
                is_stored(node, entity, &failed).await.is_ok_and(|is_stored| is_stored)
            }
            Err(_) => false,
        };
        if is_noted {
            attempt_telemetry::log_given_up(node, entity, &failed);
        }
        noted?;
    }
    Ok(())
}

/// Whether these deliveries, all of one commit, are stored: if they are, nothing reports them later, so that is checked
/// now.
async fn is_stored(node: &Node, entity: EntityKey, deliveries: &[(DeliveryKey, Delivery)]) -> Result<bool, StoreError> {
    let [(key, delivery), ..] = deliveries else { return Ok(false) };
    // After this read the commit is either stored or never will be.
    retry_transient(SHARED_STORE_TIMEOUT, || node.store.head(entity, ReadLevel::Settled)).await?;
    let stored =
        retry_transient(SHARED_STORE_TIMEOUT, || node.stored::<Delivery>(entity, DELIVERIES, key.row())).await?;
    Ok(stored.as_ref() == Some(delivery))
}

/// Divides a note into parts within its bound, as far as single lanes and deliveries allow. Ended deliveries come
/// first, so that they are never forgotten, and the cursor last: by then every unsent event has its row.
fn parts(settlement: Settlement) -> Vec<Settlement> {
    let mut parts = Parts::default();
    for (key, delivery) in settlement.ended {
        parts.with_room_for(delivery.weight()).ended.push((key, delivery));
    }
    for lane in settlement.lanes {
        parts.with_room_for(lane.weight()).lanes.push(lane);
    }
    parts.last.unread_from = settlement.unread_from;
    parts.full.push(parts.last);
    parts.full
}

/// A note that is being divided.
#[derive(Default)]
struct Parts {
    full: Vec<Settlement>,
    last: Settlement,
    /// About how many bytes the last part adds to a commit.
    bytes: usize,
}

impl Parts {
    /// The part with room for this weight.
    fn with_room_for(&mut self, bytes: usize) -> &mut Settlement {
        if self.bytes > 0 && self.bytes + bytes > limits::NOTE_BYTES {
            self.full.push(std::mem::take(&mut self.last));
            self.bytes = 0;
        }
        self.bytes += bytes;
        &mut self.last
    }
}

/// Offers a note until it is stored or the node stops. Arrived deliveries are known nowhere else: if the note were
/// dropped, all of them would be sent again. If other processes may take over, it is dropped before they do: it would
/// be outdated then.
async fn offer<M: Sends>(
    node: &Arc<Node>,
    entity: EntityKey,
    settlement: Settlement,
    backoff: &mut Backoff,
) -> Result<(), StoreError> {
    let command = Arc::new(M::settle(settlement));
    for offers in 1_u32.. {
        match M::directory(node).ask(node, entity, Arc::clone(&command), CommandContext::default()).await {
            Ok(_) | Err(Refusal::Rejected(_) | Refusal::KeyReused | Refusal::KeyHeld | Refusal::Misanswered(_)) => {
                return Ok(());
            }
            // Whether it was stored is unknown; the next courier finds out.
            Err(refusal @ Refusal::Unknown(_)) => return Err(StoreError::Indeterminate(refusal.into())),
            Err(refusal @ Refusal::Draining) => return Err(StoreError::Unavailable(refusal.into())),
            // Nothing was stored.
            Err(
                refusal @ (Refusal::Backlog
                | Refusal::Overloaded
                | Refusal::Unavailable(_)
                | Refusal::Corrupt(_)
                | Refusal::TooLarge(_)
                | Refusal::Moved),
            ) => {
                if offers == LOGGED_AFTER {
                    tracing::warn!(?entity, %refusal, "could not store the progress of deliveries; retrying");
                }
            }
        }
        if node.stopping.run_until_cancelled(backoff.wait()).await != Some(true) {
            break;
        }
    }
    Err(StoreError::Unavailable("could not store the progress of deliveries".into()))
}

#[cfg(test)]
mod tests {
    use super::super::lane::{Lane, LaneRow};
    use super::super::state::LaneChange;
    use super::*;

    fn ended(seq: u64, url: &str) -> (DeliveryKey, Delivery) {
        let event = "message.created".to_owned();
        let url = url.to_owned();
        let attempts = Vec::new();
        let receiver = Receiver::Channel;
        let delivery = Delivery { at: Millis(seq), event, receiver, url, end: End::Failed, attempts };
        (DeliveryKey::new(seq, receiver), delivery)
    }

    fn lane(seq: u64) -> LaneChange {
        let mut waiting = LaneRow::new(seq, seq, Millis(0));
        for _ in 0..20 {
            keep(&mut waiting.attempts, Attempt::not_made(Millis(0), "timeout"));
        }
        LaneChange { lane: Lane::to(Receiver::Message(seq)), before: None, after: Some(waiting) }
    }

    #[test]
    fn a_note_of_any_size_is_divided_into_parts_that_a_store_takes() {
        let url = "x".repeat(2_000);
        for (deliveries, lanes, url) in [(0, 0, ""), (3, 2, ""), (3_000, 300, url.as_str()), (5_000, 1, "")] {
            let ended: Vec<_> = (0..deliveries).map(|seq| ended(seq, url)).collect();
            let lanes: Vec<_> = (0..lanes).map(lane).collect();
            let settlement = Settlement { unread_from: 7, lanes, ended };
            let divided = parts(settlement.clone());
            assert_eq!(divided.len() == 1, settlement.weight() <= limits::NOTE_BYTES, "{deliveries} {}", divided.len());
            for part in &divided {
                assert!(part.weight() <= limits::NOTE_BYTES + 1_000, "{}", part.weight());
            }
            let (last, others) = divided.split_last().unwrap();
            assert!(
                last.unread_from == 7 && others.iter().all(|part| part.unread_from == 0),
                "all has its row by then"
            );
            assert!(divided.iter().flat_map(|part| &part.ended).eq(&settlement.ended));
            assert!(divided.iter().flat_map(|part| &part.lanes).eq(&settlement.lanes));
        }
    }

    #[test]
    fn many_that_have_ended_or_a_few_with_long_urls_must_be_noted_at_once() {
        for (url, most) in [("", 3_500), ("x".repeat(10_000).as_str(), 110)] {
            let mut all = Ended::default();
            for seq in 0..most {
                let (key, delivery) = ended(seq, url);
                all.push(key, delivery);
            }
            assert!(all.is_full(), "{most}");
            all.take();
            assert!(!all.is_full(), "what is noted counts no more");
        }
    }
}
