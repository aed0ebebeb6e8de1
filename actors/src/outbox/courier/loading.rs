//! Loading the lanes that new events are put on.

use tokio::time::Instant;

use super::Courier;
use crate::id::EntityKey;
use crate::node::Node;
use crate::outbox::lane::{Lane, Receiver};
use crate::outbox::port::Sends;
use crate::outbox::run::Run;
use crate::store::StoreError;
use crate::tables::LANES;
use crate::tasks::log_limiter::Line;

impl<M: Sends> Courier<M> {
    /// Loads into memory the lane on which a receiver gets this new event, and returns it. A waiting lane keeps waiting
    /// for its time.
    pub(super) async fn load_lane(&mut self, receiver: Receiver, seq: u64) -> Result<Lane, StoreError> {
        let usual = Lane::to(receiver);
        if self.runs.contains_key(&usual) {
            return Ok(usual);
        }
        let (lane, run) = match load_run(&self.node, self.entity, usual).await {
            Err(error) if !error.is_transient() => {
                log_damaged_lane(&self.node, self.entity, receiver, &error);
                load_separate(&self.node, self.entity, receiver, seq).await?
            }
            run => (usual, run?),
        };
        self.runs.entry(lane).or_insert(run);
        Ok(lane)
    }
}

/// Loads a stored lane, which waits for its time.
pub(super) async fn load_run(node: &Node, entity: EntityKey, lane: Lane) -> Result<Run, StoreError> {
    let stored = node.stored(entity, LANES, lane.key()).await?;
    Ok(stored.map_or_else(Run::default, |stored| Run::waiting(lane, stored)))
}

/// Loads the separate lane on which a receiver gets an event while its usual lane is damaged.
async fn load_separate(
    node: &Node,
    entity: EntityKey,
    receiver: Receiver,
    seq: u64,
) -> Result<(Lane, Run), StoreError> {
    let lane = Lane { receiver, again: Some(seq) };
    let run = match node.stored(entity, LANES, lane.key()).await {
        // It is damaged too, and is replaced.
        Err(error) if !error.is_transient() => Run::separate(),
        stored => stored?.map_or_else(Run::separate, |stored| Run::waiting(lane, stored)),
    };
    Ok((lane, run))
}

/// Reports that a lane is set aside, which is found out with each new event for its receiver.
pub(super) fn log_damaged_lane(node: &Node, entity: EntityKey, receiver: Receiver, error: &StoreError) {
    if let Some(Line { left_out }) = node.outbox.set_aside.line(Instant::now()) {
        let line = "a lane is damaged; new events for its receiver are sent separately";
        tracing::error!(?entity, ?receiver, %error, left_out, "{line}");
    }
}
