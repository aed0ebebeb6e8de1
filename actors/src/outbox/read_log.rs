//! Reading a range of a log in which an event may be damaged.

use super::port::Sends;
use crate::id::EntityKey;
use crate::machine::Record;
use crate::node::Node;
use crate::store::{Order, SeqRange, StoreError};

/// A part of a range that was read.
pub(super) struct LogPart<E> {
    pub(super) records: Vec<Record<E>>,
    /// The last event that it covers.
    pub(super) upto: u64,
}

/// The next part of a range in this order, at most `limit` events. The events before a damaged one are read one by one.
///
/// # Errors
///
/// `StoreError` where the store cannot be read, or the next event is damaged.
pub(super) async fn next_part<M: Sends>(
    node: &Node,
    entity: EntityKey,
    range: SeqRange,
    order: Order,
    limit: usize,
) -> Result<LogPart<M::Event>, StoreError> {
    let (near, far) = if order == Order::Asc { (range.first, range.last) } else { (range.last, range.first) };
    let part = async |upto: u64| {
        let records = node.events::<M>(entity, SeqRange::new(near.min(upto), near.max(upto)), order, limit).await?;
        let upto = records.last().map_or(upto, |record| record.seq);
        Ok::<_, StoreError>(LogPart { records, upto })
    };
    match part(far).await {
        Err(error) if !error.is_transient() && near != far => part(near).await,
        read => read,
    }
}
