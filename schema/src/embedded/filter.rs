//! Dropping expired idempotency keys at compaction.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use actors::clock::Clock;
use actors::limits;
use fjall::compaction::filter::{CompactionFilter, CompactionFilterResult, Context, Factory, ItemAccessor, Verdict};

use super::layout;

/// Makes the filters of the `keys` keyspace, which drop expired rows whenever they are compacted.
pub(super) struct ExpiredKeyFilters {
    clock: AssertUnwindSafe<Arc<dyn Clock>>,
}

impl ExpiredKeyFilters {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        // The engine requires unwind safety; reading a clock leaves nothing half done.
        Self { clock: AssertUnwindSafe(clock) }
    }
}

impl Factory for ExpiredKeyFilters {
    fn name(&self) -> &str {
        "forgetting"
    }

    fn make_filter(&self, _: &Context) -> Box<dyn CompactionFilter> {
        Box::new(ExpiredKeyFilter { before: self.clock.now().0.saturating_sub(limits::KEY_KEPT_MILLIS) })
    }
}

struct ExpiredKeyFilter {
    before: u64,
}

impl CompactionFilter for ExpiredKeyFilter {
    fn filter_item(&mut self, item: ItemAccessor<'_>, _: &Context) -> CompactionFilterResult {
        let value = item.value()?;
        let row = layout::unseal(item.key(), &value).and_then(layout::read_key_row);
        // An unreadable row is kept, so that a read can report the damage. Dropping a row could expose an older one
        // under the same key, but that is expired too.
        Ok(if row.is_some_and(|row| row.at.0 < self.before) { Verdict::Destroy } else { Verdict::Keep })
    }
}
