//! Positions of pending deliveries within the entry of their log.

use actors::outbox::lane::TAG_BYTES;
use actors::outbox::pending::DeliveryState;
use actors::store::Order;

/// A pending delivery in one entry of the list: its event and its receiver.
pub(super) type EntryPosition = (u64, [u8; TAG_BYTES]);

/// The deliveries of an entry that a list in this order shows after the end of the previous page, even if the last one
/// there is no longer pending.
pub(super) fn deliveries_after(
    found: Vec<(u64, DeliveryState)>,
    last: Option<EntryPosition>,
    order: Order,
) -> Vec<(EntryPosition, DeliveryState)> {
    let placed = found.into_iter().map(|(seq, delivery)| ((seq, tag_of(&delivery)), delivery));
    let is_wanted = |position: EntryPosition| last.is_none_or(|last| order.is_after(position, last));
    let mut wanted: Vec<_> = placed.filter(|(place, _)| is_wanted(*place)).collect();
    wanted.sort_by_key(|(place, _)| *place);
    if order == Order::Desc {
        wanted.reverse();
    }
    wanted
}

/// The receiver's tag in a delivery's id.
pub(super) fn tag_of(delivery: &DeliveryState) -> [u8; TAG_BYTES] {
    let mut tag = [0; TAG_BYTES];
    tag.copy_from_slice(&delivery.id.0[delivery.id.0.len() - TAG_BYTES..]);
    tag
}

#[cfg(test)]
mod tests {
    use actors::clock::Millis;
    use actors::id::{Address, DeliveryId, EventId};
    use actors::outbox::lane::Receiver;
    use actors::outbox::pending::Status;

    use super::*;

    /// The pending deliveries of the event with this sequence, to receivers with these tags.
    fn pending(seq: u64, tags: &[u8]) -> Vec<(u64, DeliveryState)> {
        let delivery = |tag: &u8| DeliveryState {
            id: DeliveryId([*tag; _]),
            receiver: Receiver::Channel,
            event: EventId::new(Millis(1), Address([1; 10]), seq),
            event_type: "message.created".to_owned(),
            url: String::new(),
            status: Status::Pending,
            attempts: Vec::new(),
            next_at: None,
        };
        tags.iter().map(|tag| (seq, delivery(tag))).collect()
    }

    #[test]
    fn a_receiver_gone_before_the_next_page_takes_no_others_place() {
        let left = Some((7, [5; TAG_BYTES]));
        for (tags, order, shown) in [
            (vec![9, 2, 8, 5], Order::Asc, vec![(7, 8), (7, 9), (8, 1)]),
            (vec![9, 2, 8], Order::Asc, vec![(7, 8), (7, 9), (8, 1)]),
            (vec![3, 9, 5, 4], Order::Desc, vec![(7, 4), (7, 3), (6, 1)]),
            (vec![3, 9, 4], Order::Desc, vec![(7, 4), (7, 3), (6, 1)]),
        ] {
            let other = if order == Order::Asc { 8 } else { 6 };
            let found = [pending(7, &tags), pending(other, &[1])].concat();
            let after = deliveries_after(found, left, order).into_iter().map(|((seq, tag), _)| (seq, tag[0]));
            assert_eq!(after.collect::<Vec<_>>(), shown, "{tags:?} {order:?}");
        }
    }
}
