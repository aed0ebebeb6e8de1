//! How much is read for one page: a filter with few matches gives a short page with a cursor after it instead of an
//! unbounded request.

use std::time::Duration;

/// How long the larger bound holds.
const LARGER_BOUND_TIMEOUT: Duration = Duration::from_secs(1);

/// How much is read for one page.
#[derive(Clone, Copy, Debug)]
pub(in crate::http) struct ScanBudget {
    /// Within a second.
    pub(in crate::http) at_first: usize,
    /// However long it takes.
    pub(in crate::http) in_any_case: usize,
}

impl ScanBudget {
    /// Whether it is spent `after` this time.
    pub(in crate::http) fn is_spent(self, looked_at: usize, after: Duration) -> bool {
        looked_at >= if after < LARGER_BOUND_TIMEOUT { self.at_first } else { self.in_any_case }
    }
}
