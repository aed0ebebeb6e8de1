//! Running turns: a task calls models and tools and reports the outcome to the conversation.
//!
//! Nothing here needs to be durable: the conversation has committed the attempt before it starts here, accepts only
//! that attempt's outcome, and starts another one if the task was lost with its process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dashmap::DashMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::agent::Agent;
use crate::agent::builtin::TurnCounter;
use crate::clock::Millis;
use crate::conversation::{Turn, check_after_attempt};
use crate::id::{Address, EntityKey};
use crate::limits;
use crate::node::Node;
use crate::tasks::drain;
use crate::tasks::shares::{SharedPermit, SharedPermits, Shares};

mod attempt;
mod attempt_telemetry;
mod context;
mod counts;
mod prompt_message;
mod recent;

pub(crate) use attempt::Begun;
use counts::Counts;
pub(crate) use recent::Recent;

/// Why no further turn is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crowded {
    /// The agent has as many live attempts as one agent may.
    Agent,
    /// The workspace has as many as one workspace may.
    Workspace,
    /// The node has as many live attempts as it may.
    Node,
}

/// An agent of a workspace.
type AgentKey = (Address, String);

/// The attempts that are alive in this process.
#[derive(Debug)]
pub struct Turns {
    alive: DashMap<(EntityKey, u64), (u32, AbortHandle)>,
    of_agents: Arc<Counts<AgentKey>>,
    of_workspaces: Arc<Counts<Address>>,
    /// One workspace may hold half of them.
    permits: SharedPermits,
    /// Permits of each agent that has turns.
    agents: DashMap<AgentKey, Arc<AgentPermits>>,
    /// Whether the node stops: unfinished attempts are left to the next process.
    closing: AtomicBool,
    /// A permit for each conversation whose running turn is being checked.
    pub(crate) checking: Shares<EntityKey>,
    pub(crate) counter: TurnCounter,
    pub(crate) recent: Recent,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            alive: DashMap::new(),
            of_agents: Arc::default(),
            of_workspaces: Arc::default(),
            permits: SharedPermits::halved(limits::RUNNING_TURNS),
            agents: DashMap::new(),
            closing: AtomicBool::new(false),
            checking: Shares::of(1),
            counter: TurnCounter::default(),
            recent: Recent::default(),
        }
    }
}

impl Turns {
    /// How many attempts are alive.
    pub fn running(&self) -> usize {
        self.alive.len()
    }

    /// Whether another turn of this agent is accepted.
    ///
    /// # Errors
    ///
    /// Why not; the agent is the reason if it has too many itself, otherwise its workspace if that has.
    pub(crate) fn admit(&self, workspace: Address, agent: &str) -> Result<(), Crowded> {
        if self.of_agents.of(&(workspace, agent.to_owned())) >= limits::ALIVE_TURNS_OF_AGENT {
            return Err(Crowded::Agent);
        }
        if self.of_workspaces.of(&workspace) >= limits::ALIVE_TURNS_OF_WORKSPACE {
            return Err(Crowded::Workspace);
        }
        if self.running() < limits::ALIVE_TURNS { Ok(()) } else { Err(Crowded::Node) }
    }

    /// Takes all room that this agent, its workspace or the node has.
    #[cfg(any(test, feature = "test-support"))]
    pub(crate) fn crowd(&self, what: Crowded, workspace: Address, agent: &str) {
        match what {
            Crowded::Agent => (0..limits::ALIVE_TURNS_OF_AGENT)
                .for_each(|_| std::mem::forget(self.of_agents.count((workspace, agent.to_owned())))),
            Crowded::Workspace => (0..limits::ALIVE_TURNS_OF_WORKSPACE)
                .for_each(|_| std::mem::forget(self.of_workspaces.count(workspace))),
            Crowded::Node => {
                let nobody = EntityKey::workspace(Address::default());
                let over = tokio::spawn(std::future::ready(())).abort_handle();
                for number in 0..limits::ALIVE_TURNS as u64 {
                    self.alive.insert((nobody, number), (1, over.clone()));
                }
            }
        }
    }

    /// Whether this attempt is alive in this process, or the process does nothing about it any more.
    pub(crate) fn is_alive(&self, entity: EntityKey, turn: &Turn) -> bool {
        self.closing.load(Ordering::SeqCst)
            || self.alive.get(&(entity, turn.id.number)).is_some_and(|alive| alive.0 == turn.attempt)
    }

    /// Runs an attempt at a turn that has been committed, unless the node stops.
    pub(crate) fn start(&self, node: &Arc<Node>, entity: EntityKey, begun: Begun) {
        if self.closing.load(Ordering::SeqCst) {
            return;
        }
        let key = (entity, begun.turn.id.number);
        let attempt = begun.turn.attempt;
        let task_node = Arc::clone(node);
        let of_agent = self.of_agents.count((entity.workspace, begun.turn.agent.clone()));
        let counted = (of_agent, self.of_workspaces.count(entity.workspace));
        let (registered, go) = tokio::sync::oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            // The attempt must be known to be alive before it can end.
            let _ = go.await;
            let _counted = counted;
            let _alive = Alive { node: &task_node, key, attempt, began: begun.turn.started_at };
            attempt::run(&task_node, entity, begun).await;
        });
        if let Some((_, older)) = self.alive.insert(key, (attempt, task.abort_handle())) {
            older.abort();
        }
        // The stop may have passed the list a moment before.
        if self.closing.load(Ordering::SeqCst)
            && let Some((_, (_, task))) = self.alive.remove(&key)
        {
            return task.abort();
        }
        let _ = registered.send(());
    }

    /// Stops the attempts of a turn that was cancelled.
    pub(crate) fn stop(&self, entity: EntityKey, turn: &Turn) {
        if let Some((_, (_, task))) = self.alive.remove(&(entity, turn.id.number)) {
            task.abort();
        }
    }

    /// Stops the attempts of a conversation whose turn is over, or now belongs to another process: their outcome would
    /// be refused.
    pub(crate) fn stop_others(&self, entity: EntityKey, running: Option<&Turn>) {
        if self.alive.is_empty() {
            return;
        }
        let is_running =
            |number: u64, attempt: u32| running.is_some_and(|turn| turn.id.number == number && turn.attempt <= attempt);
        self.alive.retain(|(of, number), (attempt, task)| {
            let is_over = *of == entity && !is_running(*number, *attempt);
            if is_over {
                task.abort();
            }
            !is_over
        });
    }

    /// A permit for a turn of this agent, once there is one: first one of the agent's own permits, so that turns
    /// waiting for a slow agent hold none of the node's, then one of those that its workspace may hold.
    async fn permit(&self, workspace: Address, agent: &Agent) -> TurnPermit<'_> {
        let key = (workspace, agent.id.clone());
        let most = agent.concurrency.map_or(limits::AGENT_TURNS, |most| most as usize);
        // Made before the first await, so that a cancelled wait leaves nothing behind.
        let mut permit = TurnPermit { turns: self, key, own: None, of_agent: None, of_node: None };
        let mut own = self.permits_of(&permit.key, |permits| permits.most != most, most);
        while permit.of_agent.is_none() {
            permit.own = Some(Arc::clone(&own));
            match Arc::clone(&own.free).acquire_owned().await {
                Ok(free) => permit.of_agent = Some(free),
                // The agent's limit was changed meanwhile.
                Err(_) => own = self.permits_of(&permit.key, |_| false, most),
            }
        }
        permit.of_node = Some(self.permits.enter(workspace).await);
        permit
    }

    /// The permits of an agent; `most` new ones if there are none or they are to be replaced: holders of an old permit
    /// keep it, and all others share the new ones.
    fn permits_of(
        &self,
        key: &AgentKey,
        replaced: impl FnOnce(&AgentPermits) -> bool,
        most: usize,
    ) -> Arc<AgentPermits> {
        let fresh = || Arc::new(AgentPermits { most, free: Arc::new(Semaphore::new(most)) });
        let mut permits = self.agents.entry(key.clone()).or_insert_with(fresh);
        if replaced(&permits) {
            permits.free.close();
            *permits = fresh();
        }
        Arc::clone(&permits)
    }

    /// Waits for running attempts, until `deadline`; then stops them. The next process starts stopped ones again.
    pub(crate) async fn drain(&self, deadline: Instant) {
        drain::wait(|| self.alive.is_empty(), deadline).await;
        self.closing.store(true, Ordering::SeqCst);
        self.alive.retain(|_, (_, task)| {
            task.abort();
            false
        });
    }
}

/// The permits of one agent.
#[derive(Debug)]
struct AgentPermits {
    /// How many there are.
    most: usize,
    free: Arc<Semaphore>,
}

/// A turn's permit to run.
struct TurnPermit<'a> {
    turns: &'a Turns,
    key: AgentKey,
    /// Shared by all tasks that hold a permit or wait for one.
    own: Option<Arc<AgentPermits>>,
    of_agent: Option<OwnedSemaphorePermit>,
    of_node: Option<SharedPermit>,
}

impl Drop for TurnPermit<'_> {
    fn drop(&mut self) {
        (self.of_node, self.of_agent, self.own) = (None, None, None);
        // No permit of this agent is held or waited for.
        self.turns.agents.remove_if(&self.key, |_, permits| Arc::strong_count(permits) == 1);
    }
}

/// Removes an attempt from the list when it ends, even by a panic: it must not count as alive for ever.
struct Alive<'a> {
    node: &'a Arc<Node>,
    key: (EntityKey, u64),
    attempt: u32,
    began: Option<Millis>,
}

impl Drop for Alive<'_> {
    fn drop(&mut self) {
        self.node.turns.alive.remove_if(&self.key, |_, alive| alive.0 == self.attempt);
        check_after_attempt(self.node, self.key.0, self.began);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use futures_util::future::join_all;

    use super::*;
    use crate::agent::Provider;
    use crate::agent::builtin::Builtin;

    const WORKSPACE: Address = Address([1; 10]);

    fn agent(concurrency: u32) -> Agent {
        let agent = Agent::new("bot", "Bot", Provider::Builtin(Builtin::default()), Millis(1));
        Agent { concurrency: Some(concurrency), ..agent }
    }

    #[tokio::test]
    async fn a_busy_agent_that_gets_fewer_permits_has_no_more_of_them_from_then_on() {
        let turns = Turns::default();
        let many = agent(3);
        let few = agent(1);
        let running = join_all((0..3).map(|_| turns.permit(WORKSPACE, &many))).await;
        let mut waiting = Box::pin(turns.permit(WORKSPACE, &many));
        assert!(waiting.as_mut().now_or_never().is_none());
        let first = turns.permit(WORKSPACE, &few).await;
        let mut second = Box::pin(turns.permit(WORKSPACE, &few));
        drop(running);
        assert!(second.as_mut().now_or_never().is_none(), "permits that others had are gone");
        assert!(waiting.as_mut().now_or_never().is_none(), "who has waited for one of them waits for one of these");
        drop(first);
        let permits = [second.as_mut().now_or_never(), waiting.as_mut().now_or_never()];
        assert_eq!(permits.iter().flatten().count(), 1);
    }

    #[tokio::test]
    async fn a_raised_number_of_permits_frees_turns_that_wait_already() {
        let turns = Turns::default();
        let few = agent(1);
        let many = agent(4);
        let _running = turns.permit(WORKSPACE, &few).await;
        let mut waiting: Vec<_> = (0..2).map(|_| Box::pin(turns.permit(WORKSPACE, &few))).collect();
        assert!(waiting.iter_mut().all(|waits| waits.as_mut().now_or_never().is_none()));
        let _newest = turns.permit(WORKSPACE, &many).await;
        assert!(waiting.iter_mut().all(|waits| waits.as_mut().now_or_never().is_some()));
    }

    #[test]
    fn slow_models_of_a_workspace_leave_permits_to_the_turns_of_others() {
        let turns = &Turns::default();
        let slow: Vec<_> = (0..9).map(|n| Agent { id: format!("slow{n}"), ..agent(64) }).collect();
        let begun = |workspace, agent| turns.permit(workspace, agent).now_or_never();
        let held: Vec<_> = slow.iter().flat_map(|agent| (0..64).map_while(move |_| begun(WORKSPACE, agent))).collect();
        assert_eq!(held.len(), limits::RUNNING_TURNS_OF_WORKSPACE);
        let mut waiting = Box::pin(turns.permit(WORKSPACE, &slow[8]));
        assert!((&mut waiting).now_or_never().is_none());
        assert!(begun(Address([2; 10]), &slow[0]).is_some());
        drop(held);
        assert!(waiting.now_or_never().is_some());
    }

    #[tokio::test]
    async fn an_abandoned_wait_for_a_permit_leaves_nothing_behind() {
        let turns = &Turns::default();
        let others = |n| std::iter::from_fn(move || turns.permits.try_enter(Address([n; 10])).ok());
        let all: Vec<_> = (2..9).flat_map(others).collect();
        assert!(turns.permit(WORKSPACE, &agent(2)).now_or_never().is_none());
        assert!(turns.agents.is_empty());
        drop(all);
        drop(turns.permit(WORKSPACE, &agent(2)).await);
        assert!(turns.agents.is_empty());
    }
}
