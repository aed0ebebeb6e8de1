//! The deliveries of a page that is being composed.

use actors::outbox::pending::DeliveryState;
use actors::store::Order;

use super::position::Position;

/// Each delivery once, with its position in the list.
pub(super) struct PageDeliveries {
    order: Order,
    all: Vec<(Position, DeliveryState)>,
}

impl PageDeliveries {
    pub(super) fn of(order: Order) -> Self {
        Self { order, all: Vec::new() }
    }

    /// Whether it is found already. If it has moved since to where the list shows it earlier, it is found there: after
    /// the end of this page the next one would not show it again.
    pub(super) fn has(&mut self, position: &Position, delivery: &DeliveryState) -> bool {
        let Some(known) = self.all.iter_mut().find(|(_, known)| known.id == delivery.id) else { return false };
        if self.order.is_after(&known.0, position) {
            *known = (position.clone(), delivery.clone());
        }
        true
    }

    pub(super) fn add(&mut self, position: Position, delivery: DeliveryState) {
        self.all.push((position, delivery));
    }

    /// The position of the one that was found last.
    pub(super) fn last(&self) -> Option<Position> {
        self.all.last().map(|(position, _)| position.clone())
    }

    /// Puts them in the order of the list, and keeps at most `limit`. Returns the position of the next page if they
    /// fill this one and `more` follows.
    pub(super) fn cut(&mut self, limit: usize, more: bool) -> Option<Position> {
        let order = self.order;
        self.all.sort_by(|(one, _), (other, _)| if order == Order::Asc { one.cmp(other) } else { other.cmp(one) });
        let is_full = self.all.len() > limit || more && self.all.len() == limit;
        self.all.truncate(limit);
        is_full.then(|| self.last()).flatten()
    }

    pub(super) fn into_deliveries(self) -> Vec<DeliveryState> {
        self.all.into_iter().map(|(_, delivery)| delivery).collect()
    }
}

#[cfg(test)]
mod tests {
    use actors::clock::Millis;
    use actors::id::{Address, DeliveryId, EventId};
    use actors::outbox::lane::Receiver;
    use actors::outbox::pending::Status;

    use super::*;

    fn delivery(id: u8, status: Status) -> DeliveryState {
        DeliveryState {
            id: DeliveryId([id; _]),
            receiver: Receiver::Channel,
            event: EventId::new(Millis(1), Address([1; 10]), 1),
            event_type: "message.created".to_owned(),
            url: String::new(),
            status,
            attempts: Vec::new(),
            next_at: None,
        }
    }

    #[test]
    fn a_delivery_that_moves_forward_is_on_this_page_or_the_next() {
        let ended = |key: u8| Position::Ended(vec![key]);
        let pending = |key: u8| Position::Pending(vec![key], Some((1, [0; 4])));
        for (order, [early, moved, late], was) in [
            (Order::Asc, [ended(3), ended(2), ended(7)], pending(0)),
            (Order::Asc, [ended(3), ended(5), ended(7)], pending(0)),
            (Order::Desc, [pending(7), pending(9), pending(3)], pending(0)),
        ] {
            let mut found = PageDeliveries::of(order);
            for (id, position) in [(1, early), (2, was)] {
                found.add(position, delivery(id, Status::Pending));
            }
            assert!(!found.has(&late, &delivery(3, Status::Delivered)));
            found.add(late, delivery(3, Status::Delivered));
            assert!(found.has(&moved, &delivery(2, Status::Delivered)));
            let next = found.cut(2, false).unwrap();
            let shown: Vec<_> =
                found.into_deliveries().into_iter().map(|shown| (shown.id.0[0], shown.status)).collect();
            let is_shown = shown.contains(&(2, Status::Delivered));
            assert!(is_shown || order.is_after(&moved, &next), "{order:?} {moved:?}: {shown:?} {next:?}");
        }
    }

    #[test]
    fn a_delivery_that_moves_back_is_shown_once_where_it_was() {
        let mut found = PageDeliveries::of(Order::Desc);
        let was = Position::Pending(vec![7], None);
        let is = Position::Ended(vec![1]);
        found.add(was.clone(), delivery(1, Status::Pending));
        assert!(found.has(&is, &delivery(1, Status::Delivered)));
        assert_eq!((found.last(), found.into_deliveries()), (Some(was), vec![delivery(1, Status::Pending)]));
    }
}
