//! Work in several entities on behalf of one, such as an erasure or a copy: one run of it at a time, whoever asks. Who
//! asks while it runs waits for that run, and has it go through all of it once more, since it may have come too late
//! for what they ask for.

use std::sync::Arc;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use tokio::sync::watch;

use crate::id::EntityKey;
use crate::insist::Stopped;
use crate::node::Node;

/// The runs of this process.
#[derive(Debug, Default)]
pub(crate) struct Joint {
    running: DashMap<EntityKey, Run>,
}

#[derive(Debug)]
struct Run {
    ended: Ended,
    /// Somebody has asked since it began to go through all of it.
    again: bool,
}

/// The end of a run.
#[derive(Clone, Debug)]
pub struct Ended(watch::Receiver<Option<bool>>);

impl Ended {
    /// Waits for it. `true`: all was done; what was not is found again by the entity's alarm.
    pub async fn is_done(mut self) -> bool {
        // One that broke down tells nothing.
        self.0.wait_for(Option::is_some).await.is_ok_and(|done| *done == Some(true))
    }
}

/// Being the run of an entity, until it is dropped.
struct Running {
    node: Arc<Node>,
    entity: EntityKey,
    has_ended: bool,
}

impl Running {
    /// Whether somebody has asked since the last time. If nobody has, it is over with this very answer: whoever asks
    /// from now on begins another.
    fn again(&mut self) -> bool {
        let running = &self.node.joint.running;
        self.has_ended = running.remove_if(&self.entity, |_, run| !run.again).is_some();
        if let Some(mut run) = running.get_mut(&self.entity).filter(|_| !self.has_ended) {
            run.again = false;
        }
        !self.has_ended
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.has_ended {
            self.node.joint.running.remove(&self.entity);
        }
    }
}

/// Has `work` done for an entity, in a task of its own, unless the node stops. `what` says which it is where it stopped.
pub(crate) fn begin<W>(
    node: &Arc<Node>,
    entity: EntityKey,
    what: &'static str,
    work: fn(Arc<Node>, EntityKey) -> W,
) -> Ended
where
    W: Future<Output = Result<(), Stopped>> + Send + 'static,
{
    let (tell, ended) = match node.joint.running.entry(entity) {
        Entry::Occupied(mut run) => {
            run.get_mut().again = true;
            return run.get().ended.clone();
        }
        Entry::Vacant(place) => {
            let (tell, ended) = watch::channel(None);
            let ended = Ended(ended);
            place.insert(Run { ended: ended.clone(), again: false });
            (tell, ended)
        }
    };
    let mut running = Running { node: Arc::clone(node), entity, has_ended: false };
    tokio::spawn(async move {
        loop {
            let node = Arc::clone(&running.node);
            let done = node.stopping.run_until_cancelled(work(Arc::clone(&node), entity)).await;
            if let Some(Err(error)) = &done {
                tracing::warn!(?entity, %error, "{what} could not be brought to its end; it is tried again");
            }
            if done.is_none() || !running.again() {
                return tell.send_replace(Some(matches!(done, Some(Ok(())))));
            }
        }
    });
    ended
}

/// The same where nobody is at it; who is does it all.
pub(crate) fn resume<W>(node: &Arc<Node>, entity: EntityKey, what: &'static str, work: fn(Arc<Node>, EntityKey) -> W)
where
    W: Future<Output = Result<(), Stopped>> + Send + 'static,
{
    if !node.joint.running.contains_key(&entity) {
        begin(node, entity, what, work);
    }
}
