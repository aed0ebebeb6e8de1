//! The jobs that wait for the writer, and the room that waiting commits take.

use std::sync::Arc;

use actors::store::{Commit, Done, Outcome, StoreError};
use tokio::sync::oneshot;

use super::shared::Shared;

/// Commits that may wait for the writer: half of all commands of a node, because a commit holds at least one.
pub(super) const QUEUE_COMMITS: usize = actors::limits::NODE_COMMANDS / 2;
/// Bytes that may wait for the writer: about what a disk writes in a second.
pub(super) const QUEUE_BYTES: usize = 64 * 1024 * 1024;

/// A job for the writer.
pub(super) enum Job {
    /// Commit, then call back.
    Commit(QueuedCommit),
    /// Notify when all earlier jobs have been answered.
    Barrier(oneshot::Sender<()>),
    /// Do all earlier jobs, then end.
    Close(oneshot::Sender<()>),
}

/// A job that was not queued, and why.
pub(super) struct Refused {
    pub(super) job: Job,
    pub(super) why: &'static str,
}

impl Refused {
    /// Answers the caller of a commit. Whoever waits for another job is notified by the end of its channel.
    pub(super) fn answer(self) {
        match self.job {
            Job::Commit(QueuedCommit { permit, caller, .. }) => {
                drop(permit);
                caller.answer(Err(StoreError::Unavailable(self.why.into())));
            }
            Job::Barrier(_) | Job::Close(_) => {}
        }
    }
}

/// A commit that waits for the writer.
pub(super) struct QueuedCommit {
    pub(super) commit: Box<Commit>,
    /// Before `caller`, so that its room is free when the caller is answered.
    pub(super) permit: QueuePermit,
    pub(super) caller: Caller,
}

/// The caller of a commit, who is answered exactly once: by the writer, or if the commit is dropped unanswered.
pub(super) struct Caller {
    /// `None` once answered.
    done: Option<Done>,
    /// The commit may be in a batch.
    is_decided: bool,
}

impl Caller {
    pub(super) fn new(done: Done) -> Self {
        Self { done: Some(done), is_decided: false }
    }

    /// Notes that the commit may be in a batch.
    pub(super) fn decided(mut self) -> Self {
        self.is_decided = true;
        self
    }

    /// Sends the commit's outcome to the caller.
    pub(super) fn answer(mut self, outcome: Result<Outcome, StoreError>) {
        self.send(outcome);
    }

    fn send(&mut self, outcome: Result<Outcome, StoreError>) {
        if let Some(done) = self.done.take() {
            done(outcome);
        }
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.send(Err(if self.is_decided {
            StoreError::Indeterminate("the writer has ended".into())
        } else {
            StoreError::Unavailable("the store is closed".into())
        }));
    }
}

/// The room of one commit in the queue, until it is dropped.
pub(super) struct QueuePermit {
    shared: Arc<Shared>,
    bytes: usize,
}

impl QueuePermit {
    /// Takes room for a commit of so many bytes; `None`: the queue has too many bytes already.
    pub(super) fn take(shared: &Arc<Shared>, bytes: usize) -> Option<Self> {
        let has_room = shared.enters(bytes);
        let permit = Self { shared: Arc::clone(shared), bytes };
        has_room.then_some(permit)
    }

    /// The bytes of the commit.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for QueuePermit {
    fn drop(&mut self) {
        self.shared.leaves(self.bytes);
    }
}
