//! An entity's commands about the sending of its events.

use super::keys::DeliveryKey;
use super::lane::{ATTEMPT_BYTES, ATTEMPTS_KEPT, Receiver};
use super::port::Sends;
use super::state::{self, RETRIES_KEPT, Retry, Settlement};
use crate::machine::{Change, Decision, DecisionContext, Need, ReadSet, Undecided};
use crate::tables::{DELIVERIES, RETRIED};

/// A command about the sending of an entity's events.
#[derive(Debug)]
pub enum Sending {
    /// Note the progress.
    Settle(Settlement),
    /// Try a delivery now.
    Again {
        /// The delivery.
        key: DeliveryKey,
        /// The receiver.
        receiver: Receiver,
    },
    /// Nothing: the requested delivery has no destination. Its idempotency key is compared anyway, and is not used up.
    Nothing,
}

impl Sending {
    pub(crate) fn needs(&self) -> Vec<Need> {
        match self {
            Self::Settle(settlement) => settlement.needs(),
            Self::Again { key, .. } => [DELIVERIES, RETRIED].map(|table| Need::Row(table, key.row())).into(),
            Self::Nothing => Vec::new(),
        }
    }

    /// About how many bytes it adds to a commit.
    pub(crate) fn weight(&self) -> usize {
        match self {
            Self::Settle(settlement) => settlement.weight(),
            Self::Again { .. } => 1_200 + RETRIES_KEPT * ATTEMPTS_KEPT * ATTEMPT_BYTES,
            Self::Nothing => 0,
        }
    }

    /// Decides a note of the sending of an entity's events.
    ///
    /// # Errors
    ///
    /// [`Undecided`] rows.
    pub(crate) fn decide<M: Sends>(
        &self,
        state: &M::State,
        context: &DecisionContext,
        reads: &ReadSet,
    ) -> Result<Decision<M>, Undecided> {
        let outbox = M::outbox(state);
        let written = match self {
            Self::Settle(settlement) => {
                state::settle(&M::log(context.entity, state), outbox, settlement, context.now, reads)?
            }
            Self::Again { key, receiver } => {
                let retry = Retry { key: *key, receiver: *receiver, requested_with: context.key, now: context.now };
                state::retry(context.entity, outbox, retry, reads)?.unwrap_or_default()
            }
            Self::Nothing => return Ok(Decision::Elsewhere(M::noted(None))),
        };
        let reply = M::noted(written.again);
        let events: Vec<_> = written.outbox.map(M::moved).into_iter().collect();
        if events.is_empty() && written.rows.is_empty() && written.views.is_empty() {
            return Ok(Decision::Answer(reply));
        }
        Ok(Decision::Change(Change { rows: written.rows, views: written.views, ..Change::new(events, reply) }))
    }
}
