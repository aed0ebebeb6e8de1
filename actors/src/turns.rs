//! Running turns: calls a model in a task of its own and brings the outcome back to the conversation.
//!
//! Nothing here is durable, and nothing needs to be: the conversation has committed the attempt before it comes here,
//! accepts only that attempt's outcome, and starts another one if this task was lost with its process.

use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::agent::builtin::{self, TurnCounter};
use crate::agent::{AGENTS, Agent, ChatMessage, Completion, Prompt, Provider};
use crate::codec;
use crate::conversation::{self, Event, Failure, Finish, Turn, message_of};
use crate::directory::{Circumstances, Refusal};
use crate::id::EntityKey;
use crate::limits;
use crate::machine::Record;
use crate::message::Message;
use crate::node::Node;
use crate::store::{Order, Store, StoreError};
use crate::trace::TraceContext;

/// How long an outcome is offered to its conversation when that cannot take it; after that the alarm has the turn
/// run again.
const OFFERED: Duration = Duration::from_secs(30);

/// The attempts that are alive in this process.
#[derive(Debug)]
pub struct Turns {
    alive: DashMap<(EntityKey, u64), (u32, AbortHandle)>,
    places: Arc<Semaphore>,
    counter: TurnCounter,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            alive: DashMap::new(),
            places: Arc::new(Semaphore::new(limits::RUNNING_TURNS)),
            counter: TurnCounter::default(),
        }
    }
}

impl Turns {
    /// How many attempts are alive.
    pub fn running(&self) -> usize {
        self.alive.len()
    }

    /// Whether this attempt is alive in this process.
    pub(crate) fn is_alive(&self, entity: EntityKey, turn: &Turn) -> bool {
        self.alive.get(&(entity, turn.id.number)).is_some_and(|alive| alive.0 == turn.attempt)
    }

    /// Runs an attempt that has been committed.
    pub(crate) fn start(&self, node: &Arc<Node>, entity: EntityKey, turn: &Turn, trace: Option<TraceContext>) {
        let key = (entity, turn.id.number);
        let attempt = turn.attempt;
        let task_node = Arc::clone(node);
        let turn = turn.clone();
        let (registered, go) = tokio::sync::oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            // The attempt must be known to be alive before it can end.
            let _ = go.await;
            let _alive = Alive { node: &task_node, key, attempt };
            run(&task_node, entity, &turn, trace).await;
        });
        if let Some((_, older)) = self.alive.insert(key, (attempt, task.abort_handle())) {
            older.abort();
        }
        let _ = registered.send(());
    }

    /// Stops the attempts of a turn that was cancelled.
    pub(crate) fn stop(&self, entity: EntityKey, turn: &Turn) {
        if let Some((_, (_, task))) = self.alive.remove(&(entity, turn.id.number)) {
            task.abort();
        }
    }

    /// Waits for what runs, until `deadline`; then stops it. What is stopped is started again by the next process.
    pub(crate) async fn drain(&self, deadline: Instant) {
        while !self.alive.is_empty() && Instant::now() < deadline {
            sleep(Duration::from_millis(10)).await;
        }
        self.alive.retain(|_, (_, task)| {
            task.abort();
            false
        });
    }
}

/// Takes an attempt off the list when it ends, however it ends: one that panicked must not count as alive for ever.
struct Alive<'a> {
    node: &'a Node,
    key: (EntityKey, u64),
    attempt: u32,
}

impl Drop for Alive<'_> {
    fn drop(&mut self) {
        self.node.turns.alive.remove_if(&self.key, |_, alive| alive.0 == self.attempt);
    }
}

async fn run(node: &Arc<Node>, entity: EntityKey, turn: &Turn, trace: Option<TraceContext>) {
    // The semaphore is never closed.
    let Ok(_place) = Arc::clone(&node.turns.places).acquire_owned().await else { return };
    let outcome = match attempt(node, entity, turn, trace).await {
        Ok(outcome) => outcome,
        Err(error) => {
            tracing::warn!(?entity, turn = %turn.id, %error, "a turn could not be prepared; it is tried again");
            return;
        }
    };
    let finish = Finish { number: turn.id.number, attempt: turn.attempt, outcome };
    let command = Arc::new(conversation::Command::FinishTurn(finish));
    let until = Instant::now() + OFFERED;
    let mut pause = Duration::from_millis(20);
    while Instant::now() < until {
        let with = Circumstances { key: None, trace };
        match node.conversations.ask(node, entity, Arc::clone(&command), with).await {
            // Offering it again after an unknown outcome is harmless: the attempt is over then, or it was not heard.
            Err(
                Refusal::Backlog | Refusal::Overloaded | Refusal::Unavailable(_) | Refusal::Unknown(_) | Refusal::Moved,
            ) => sleep(pause).await,
            Ok(_) | Err(Refusal::Rejected(_) | Refusal::KeyReused | Refusal::Draining) => return,
        }
        pause = (pause * 2).min(Duration::from_secs(2));
    }
    tracing::warn!(?entity, turn = %turn.id, "a turn's outcome could not be delivered; it is tried again");
}

/// One attempt, up to its outcome.
async fn attempt(
    node: &Arc<Node>,
    entity: EntityKey,
    turn: &Turn,
    trace: Option<TraceContext>,
) -> Result<Completion, StoreError> {
    let store = node.store.as_ref();
    let workspace = EntityKey::workspace(entity.workspace);
    let agent = node.catalog.get::<Agent>(store, workspace, AGENTS, turn.agent.as_bytes()).await?;
    let Some(agent) = agent else {
        let detail = format!("agent {} does not exist", turn.agent);
        return Ok(Err(Failure { code: "agent_not_found".to_owned(), detail }));
    };
    let context = Context::read(store, entity, turn).await?;
    let allowed = Duration::from_secs(u64::from(agent.timeout_seconds));
    let call = async {
        match &agent.provider {
            Provider::Builtin(builtin) => {
                let text = context.asked();
                let counter = (&node.turns.counter, entity.workspace);
                let heard = context.tokens(&agent);
                builtin::complete(counter, &agent, builtin, &text, heard).await
            }
            Provider::OpenAi { .. } => {
                let messages = context.prompt(&agent);
                node.ports.models.complete(Prompt { agent: Arc::clone(&agent), messages, trace }).await
            }
        }
    };
    Ok(timeout(allowed, call).await.unwrap_or_else(|_| {
        let detail = format!("the agent did not answer within {} s", agent.timeout_seconds);
        Err(Failure { code: "agent_timeout".to_owned(), detail })
    }))
}

/// What a turn knows of its conversation.
struct Context {
    /// Before the question, oldest first.
    before: Vec<Message>,
    /// What is to be answered, oldest first.
    question: Vec<Message>,
}

impl Context {
    async fn read(store: &dyn Store, entity: EntityKey, turn: &Turn) -> Result<Self, StoreError> {
        let limit = limits::CONTEXT_MESSAGES * 3;
        let mut context = Self { before: Vec::new(), question: Vec::new() };
        let mut chars = 0;
        for stored in store.read_log(entity, 1, u64::MAX, Order::Desc, limit).await? {
            let record: Record<Event> = codec::decode_record(stored.seq, &stored.payload)?;
            let Some(message) = message_of(&record) else { continue };
            let others = message.turn.is_some_and(|of| of.number > turn.id.number);
            let asks = message.turn == Some(turn.id) && message.content.role != "assistant";
            chars += message.content.text.as_ref().map_or(0, String::len);
            if others {
                continue;
            }
            let over = chars > limits::CONTEXT_CHARS || context.before.len() >= limits::CONTEXT_MESSAGES;
            match (asks, over) {
                (true, _) => context.question.push(message),
                (false, false) => context.before.push(message),
                (false, true) => break,
            }
        }
        context.before.reverse();
        context.question.reverse();
        Ok(context)
    }

    /// The words to be answered.
    fn asked(&self) -> String {
        let messages = if self.question.is_empty() {
            let last = self.before.iter().rposition(|message| message.content.role == "user");
            last.map(|last| &self.before[last..=last]).unwrap_or_default()
        } else {
            &self.question
        };
        let texts: Vec<&str> = messages.iter().map(|message| message.content.words()).collect();
        texts.join("\n")
    }

    /// About how many tokens the model would read.
    fn tokens(&self, agent: &Agent) -> u64 {
        let texts = self.before.iter().chain(&self.question).map(|message| message.content.words());
        builtin::tokens_of(agent.system_prompt.as_deref().into_iter().chain(texts))
    }

    /// What the model is asked. Roles of the client's own are not for models.
    fn prompt(&self, agent: &Agent) -> Vec<ChatMessage> {
        let system =
            agent.system_prompt.iter().map(|text| ChatMessage { role: "system".to_owned(), text: text.clone() });
        let messages =
            self.before.iter().chain(&self.question).filter(|message| {
                matches!(message.content.role.as_str(), "user" | "assistant" | "system" | "developer")
            });
        let messages = messages
            .map(|message| ChatMessage { role: message.content.role.clone(), text: message.content.for_a_model() });
        system.chain(messages).collect()
    }
}
