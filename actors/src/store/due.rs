//! Results of reading the due index.

use super::StoreError;
use crate::clock::Millis;
use crate::id::EntityKey;

/// A due alarm. `(at, entity)` is also the cursor for the next page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Due {
    /// When it is due.
    pub at: Millis,
    /// Its entity.
    pub entity: EntityKey,
}

/// Due alarms, as far as the index could be read.
#[derive(Clone, Debug, Default)]
pub struct DuePage {
    /// The earliest first. Fewer than requested means that no more can be read.
    pub alarms: Vec<Due>,
    /// Why some may be missing, in this page or before its last alarm. No later page has them: a reader that wants all
    /// starts over, a while later.
    pub missing: Option<StoreError>,
}

impl DuePage {
    /// A page of which nothing is missing.
    #[must_use]
    pub fn complete(alarms: Vec<Due>) -> Self {
        Self { alarms, missing: None }
    }
}
