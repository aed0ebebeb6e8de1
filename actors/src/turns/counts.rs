//! Live attempts per agent, so that a slow model is distinguished from a full node.

use std::sync::Arc;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use crate::id::Address;

/// An agent of a workspace.
type AgentKey = (Address, String);

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Counts {
    of: DashMap<AgentKey, usize>,
}

/// One attempt, until it is dropped.
#[derive(Debug)]
pub(super) struct Counted {
    counts: Arc<Counts>,
    agent: AgentKey,
}

impl Counts {
    /// How many attempts of this agent are alive.
    pub(super) fn of(&self, workspace: Address, agent: &str) -> usize {
        self.of.get(&(workspace, agent.to_owned())).map_or(0, |count| *count)
    }

    /// Counts an attempt until the returned value is dropped.
    pub(super) fn count(self: &Arc<Self>, workspace: Address, agent: &str) -> Counted {
        let agent = (workspace, agent.to_owned());
        *self.of.entry(agent.clone()).or_default() += 1;
        Counted { counts: Arc::clone(self), agent }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let agent = (self.agent.0, std::mem::take(&mut self.agent.1));
        if let Entry::Occupied(mut count) = self.counts.of.entry(agent) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}
