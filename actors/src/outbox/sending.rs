//! What an entity is asked about the sending of its events.

use super::lane::Receiver;
use super::state::{self, DeliveryKey, Log, Outbox, Settlement, Written};
use crate::machine::{Found, Moment, Need, Undecided};
use crate::tables::DELIVERIES;

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
            Self::Again { .. } => 1_200,
        }
    }

    /// What is to be written for it.
    ///
    /// # Errors
    ///
    /// [`Undecided`] rows.
    pub(crate) fn written(
        &self,
        log: &Log,
        outbox: Option<&Outbox>,
        moment: &Moment,
        found: &Found,
    ) -> Result<Written, Undecided> {
        match self {
            Self::Settle(settlement) => state::settle(log, outbox, settlement, moment.now, found),
            Self::Again { key, receiver } => {
                let asked = (*key, *receiver);
                Ok(state::again(log.entity, outbox, asked, moment.key, moment.now, found)?.unwrap_or_default())
            }
        }
    }
}
