//! Dropping expired idempotency keys at compaction.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use actors::clock::Clock;
use actors::limits;
use fjall::compaction::filter::{CompactionFilter, CompactionFilterResult, Context, Factory, ItemAccessor, Verdict};

use super::layout;

/// Makes the filters of the `keys` keyspace, which drop rows past their time whenever they are compacted.
pub(super) struct Forgetting {
    clock: AssertUnwindSafe<Arc<dyn Clock>>,
}

impl Forgetting {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        // The engine asks for unwind safety; reading a clock leaves nothing half done.
        Self { clock: AssertUnwindSafe(clock) }
    }
}

impl Factory for Forgetting {
    fn name(&self) -> &str {
        "forgetting"
    }

    fn make_filter(&self, _: &Context) -> Box<dyn CompactionFilter> {
        Box::new(Forget { before: self.clock.now().0.saturating_sub(limits::KEY_KEPT_MILLIS) })
    }
}

struct Forget {
    before: u64,
}

impl CompactionFilter for Forget {
    fn filter_item(&mut self, item: ItemAccessor<'_>, _: &Context) -> CompactionFilterResult {
        let value = item.value()?;
        let row = layout::unseal(item.key(), &value).and_then(layout::read_key_row);
        // A row that cannot be read is kept, so that a read can say that it is damaged. An older row under the same
        // key could come to light again, but it is past its time too.
        Ok(if row.is_some_and(|row| row.at.0 < self.before) { Verdict::Destroy } else { Verdict::Keep })
    }
}
