//! Coalesces concurrent requests for one long-running job over several entities, such as an erasure or a copy: one run
//! at a time. A request during a run waits for it, and makes it repeat all steps once more, because the run may have
//! passed the data that the request is about.

use std::sync::Arc;

use tokio::sync::watch;

use crate::id::EntityKey;
use crate::node::Node;
use crate::tasks::retry_command::Stopped;
use crate::tasks::single_flight::SingleFlight;

/// The runs of this process, each with its handle.
#[derive(Debug, Default)]
pub(crate) struct SharedJobs(Arc<SingleFlight<EntityKey, JobHandle>>);

/// A handle that waits for the end of a run.
#[derive(Clone, Debug)]
pub struct JobHandle(watch::Receiver<Option<bool>>);

impl JobHandle {
    /// Waits for it. `true`: all was done; the entity's alarm finds what was not.
    pub async fn is_done(mut self) -> bool {
        // A run that panicked reports nothing.
        self.0.wait_for(Option::is_some).await.is_ok_and(|done| *done == Some(true))
    }
}

/// Runs `work` for an entity, in a task of its own, unless the node stops. `what` names the work in the log if it
/// fails.
pub(crate) fn begin<W>(
    node: &Arc<Node>,
    entity: EntityKey,
    what: &'static str,
    work: fn(Arc<Node>, EntityKey) -> W,
) -> JobHandle
where
    W: Future<Output = Result<(), Stopped>> + Send + 'static,
{
    let (sender, receiver) = watch::channel(None);
    let handle = JobHandle(receiver);
    let mut flight = match node.shared_jobs.0.join(entity, handle.clone()) {
        Ok(flight) => flight,
        Err(of_another) => return of_another,
    };
    let node = Arc::clone(node);
    tokio::spawn(async move {
        loop {
            let done = node.stopping.run_until_cancelled(work(Arc::clone(&node), entity)).await;
            if let Some(Err(error)) = &done {
                tracing::warn!(?entity, %error, "{what} did not complete; retrying");
            }
            if done.is_none() || !flight.again() {
                return sender.send_replace(Some(matches!(done, Some(Ok(())))));
            }
        }
    });
    handle
}

/// Runs `work` for an entity if no run is in progress; a running one does everything anyway.
pub(crate) fn resume<W>(node: &Arc<Node>, entity: EntityKey, what: &'static str, work: fn(Arc<Node>, EntityKey) -> W)
where
    W: Future<Output = Result<(), Stopped>> + Send + 'static,
{
    if !node.shared_jobs.0.is_flying(entity) {
        begin(node, entity, what, work);
    }
}
