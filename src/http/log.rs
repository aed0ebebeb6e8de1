//! Ranges of a conversation's log, for several handlers.

use actors::conversation::{Conversation, Event};
use actors::id::EntityKey;
use actors::machine::Record;
use actors::node::Node;
use actors::store::{Order, SeqRange, StoreError};

/// Events of the first read, while their size is unknown.
pub(super) const FIRST_CHUNK: usize = 8;
/// Events of the first read for an unfiltered page: as many as a page has, of the usual length.
pub(super) const FIRST_OF_PAGE: usize = 64;
/// Bytes that are read at once, as estimated by the length of earlier reads.
pub(super) const CHUNK_BYTES: usize = 1024 * 1024;

/// How many events of this `length` to read next: about `bytes` of them, at most `most`, at least one.
pub(super) fn chunk_of(length: usize, bytes: usize, most: usize) -> usize {
    most.min(bytes / length.max(1)).max(1)
}

/// The events of a range.
pub(super) async fn between(node: &Node, entity: EntityKey, range: SeqRange) -> Result<Vec<Record<Event>>, StoreError> {
    node.events::<Conversation>(entity, range, Order::Asc, range.len()).await
}

/// The sequences from `first` on that come after `at` in this order.
pub(super) fn seqs_after(first: u64, at: Option<u64>, order: Order) -> SeqRange {
    SeqRange::from(first).after(at, order)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_events_are_the_fewer_are_read_at_once_and_always_one() {
        for (length, chunk) in [(0, 128), (1, 128), (8, 128), (9, 113), (500, 2), (1_024, 1), (1_000_000, 1)] {
            assert_eq!(chunk_of(length, 1_024, 128), chunk, "{length}");
        }
    }

    #[test]
    fn the_events_behind_a_place_depend_on_the_order() {
        assert_eq!(seqs_after(3, None, Order::Desc), SeqRange::from(3));
        assert_eq!(seqs_after(3, Some(7), Order::Asc), SeqRange::from(8));
        assert_eq!(seqs_after(3, Some(1), Order::Asc), SeqRange::from(3));
        assert_eq!(seqs_after(3, Some(7), Order::Desc), SeqRange::new(3, 6));
        assert_eq!(seqs_after(1, Some(u64::MAX), Order::Asc), SeqRange::one(u64::MAX));
    }
}
