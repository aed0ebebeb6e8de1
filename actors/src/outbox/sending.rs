//! What an entity is asked about the sending of its events.

use super::lane::Receiver;
use super::state::{self, DELIVERIES, DeliveryKey, Log, Outbox, Settlement, Written};
use crate::clock::Millis;
use crate::machine::{Found, Missing, Need};

/// See the module's text.
#[derive(Debug)]
pub enum Sending {
    /// It has come so far.
    Settle(Settlement),
    /// A delivery is to be tried now.
    Again {
        /// Which event's.
        key: DeliveryKey,
        /// To whom.
        receiver: Receiver,
    },
}

impl Sending {
    pub(crate) fn needs(&self) -> Vec<Need> {
        match self {
            Self::Settle(settlement) => settlement.needs(),
            Self::Again { key, .. } => vec![Need::Row(DELIVERIES, key.row())],
        }
    }

    /// About how many bytes it adds to a commit.
    pub(crate) fn weight(&self) -> usize {
        match self {
            Self::Settle(settlement) => settlement.weight(),
            Self::Again { .. } => 600,
        }
    }

    /// What is to be written for it.
    ///
    /// # Errors
    ///
    /// [`Missing`] rows.
    pub(crate) fn written(
        &self,
        log: &Log,
        outbox: Option<&Outbox>,
        now: Millis,
        found: &Found,
    ) -> Result<Written, Missing> {
        match self {
            Self::Settle(settlement) => state::settle(log, outbox, settlement, now, found),
            Self::Again { key, receiver } => {
                Ok(state::again(log.entity, outbox, (*key, *receiver), now, found)?.unwrap_or_default())
            }
        }
    }
}
