//! Drawing memories from messages, after they are committed.
//!
//! A message with `enableMemories` is committed like any other; the conversation's state then holds from which message
//! on memories are to be drawn, and its alarm when to check that. So drawing can neither delay nor fail a message, and
//! it is completed even if the process ends between message and memory. A message may be drawn from twice; the same
//! fact is stored once.

use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::Semaphore;

use super::model::{self, INSTRUCTIONS};
use super::permits::DrawPermits;
use super::recall::subject_of;
use super::{Edit, Memory, Outcome, Remember, Subject, extract, recall};
use crate::agent::chat::Chat;
use crate::agent::{Agent, ChatMessage, Prompt, Provider};
use crate::conversation::remember::{Drawn, Note, Remembering};
use crate::conversation::{self, Conversation, Usage, message_of};
use crate::deltas::DeltaSink;
use crate::id::{EntityKey, MessageId};
use crate::limits;
use crate::message::Message;
use crate::node::Node;
use crate::store::{SeqRange, StoreError};
use crate::tasks::retry_command::{Stopped, retry_command};
use crate::tasks::single_flight::SingleFlight;
use crate::trace::TraceContext;
use crate::usage;

/// Messages that one read and one report cover.
const MESSAGES_PER_READ: u64 = 64;
/// How long a model may take.
const MODEL_TIMEOUT: Duration = Duration::from_secs(60);
/// Failures after which the fixed phrases are used instead of the model.
const MAX_MODEL_ATTEMPTS: u32 = 3;
/// Attempts after which messages are skipped.
const MAX_ATTEMPTS: u32 = 12;
/// Known memories in a model's prompt.
const MAX_KNOWN_MEMORIES: usize = 50;
/// The longest text, in bytes, that is searched within a fraction of a millisecond.
const QUICK_BYTES: usize = 4 * 1024;

/// The conversations that memories are being drawn from in this process.
#[derive(Debug)]
pub(crate) struct Drawing {
    flights: Arc<SingleFlight>,
    /// Held from beginning to end, even while waiting for a permit.
    waiting: Arc<Semaphore>,
    permits: DrawPermits,
    /// Held while vectors are made.
    pub(super) learning: Arc<Semaphore>,
}

impl Default for Drawing {
    fn default() -> Self {
        let waiting = Semaphore::new(limits::DRAWING_WAITING);
        let learning = Semaphore::new(1);
        let waiting = Arc::new(waiting);
        let learning = Arc::new(learning);
        Self { flights: Arc::default(), waiting, permits: DrawPermits::default(), learning }
    }
}

impl Drawing {
    /// Draws the due memories from a conversation's messages; a running task checks once more. Past the bound nothing
    /// begins: the alarm resumes it later.
    pub(crate) fn start(&self, node: &Arc<Node>, entity: EntityKey) {
        let Some(mut flight) = self.flights.begin(entity) else { return };
        let node = Arc::clone(node);
        let Ok(waiting) = Arc::clone(&self.waiting).try_acquire_owned() else { return };
        tokio::spawn(async move {
            let _waiting = waiting;
            loop {
                match node.stopping.run_until_cancelled(run(&node, entity)).await {
                    Some(Ok(())) => {}
                    Some(Err(error)) => {
                        tracing::warn!(?entity, %error, "could not extract memories; retrying");
                        return;
                    }
                    None => return,
                }
                if !flight.again() {
                    return;
                }
            }
        });
    }

    /// Whether another start would do nothing: a task is running, or waits for a permit, or the queue is full.
    pub(crate) fn is_under_way(&self, entity: EntityKey) -> bool {
        let has_room = self.waiting.available_permits() > 0 && self.permits.has_room(entity.workspace);
        self.flights.is_flying(entity) || !has_room
    }
}

/// Draws until nothing is left, or, if too many wait for models, until the alarm resumes it.
async fn run(node: &Arc<Node>, entity: EntityKey) -> Result<(), Stopped> {
    loop {
        let Some(state) = node.state::<Conversation>(entity).await? else { return Ok(()) };
        let Some(remembering) = state.remembering else { return Ok(()) };
        match draw_next(node, entity, &state, remembering).await {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(error) if !error.is_transient() => {
                let command = conversation::Command::NotRemembered(remembering);
                // If not even that can be reported, the alarm still resumes it.
                let _ = retry_command(node, &node.conversations, entity, command).await?;
                return Err(error);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Draws from the next messages and reports it; returns whether to continue after them.
async fn draw_next(
    node: &Arc<Node>,
    entity: EntityKey,
    state: &conversation::State,
    Remembering { next, last, attempts, .. }: Remembering,
) -> Result<bool, Stopped> {
    let range = SeqRange::new(next, last.min(next + MESSAGES_PER_READ - 1));
    let Some(drawn) = draw_with_permit(node, entity, state, (attempts, range)).await? else { return Ok(false) };
    let report =
        |drawn| retry_command(node, &node.conversations, entity, conversation::Command::Remembered { range, drawn });
    let reported = match report(drawn).await {
        // Such a report will never be stored.
        Err(error) if attempts >= MAX_ATTEMPTS && !error.is_transient() => {
            report(Drawn { failed: true, ..Drawn::default() }).await?
        }
        reported => reported?,
    };
    Ok(reported.is_ok())
}

/// Draws from the messages of a range once there is a permit; `None`: too many wait for one.
async fn draw_with_permit(
    node: &Arc<Node>,
    entity: EntityKey,
    state: &conversation::State,
    (attempts, range): (u32, SeqRange),
) -> Result<Option<Drawn>, Stopped> {
    let permits = &node.drawing.permits;
    let model = if attempts < MAX_MODEL_ATTEMPTS { agent(node, entity, state).await? } else { None };
    if model.is_none() {
        let _permit = permits.for_forms().await;
        return draw(node, entity, state, None, (attempts, range)).await.map(Some);
    }
    let mut permit = pin!(permits.for_model(entity.workspace));
    let (permit, agent) = match permit.as_mut().now_or_never() {
        Some(permit) => (permit, model),
        // Waiting may take minutes, in which another agent may take over.
        None => (permit.await, agent(node, entity, state).await?),
    };
    let Some(_permit) = permit else { return Ok(None) };
    draw(node, entity, state, agent, (attempts, range)).await.map(Some)
}

/// The agent that answers here now, if it has a model: the channel's or, if there is none, that of the newest turn or
/// of the beginning.
async fn agent(node: &Node, entity: EntityKey, state: &conversation::State) -> Result<Option<Arc<Agent>>, StoreError> {
    let id = match node.api_channel(entity, &state.origin).await? {
        Some(channel) => channel.agent.clone(),
        None => {
            let turn = node.turn(entity, state.turns).await?.map(|turn| turn.agent);
            turn.or_else(|| state.origin.agent().map(str::to_owned))
        }
    };
    let Some(id) = id else { return Ok(None) };
    let agent = node.agent(entity.workspace, &id).await?;
    Ok(agent.filter(|agent| matches!(agent.provider, Provider::OpenAi { .. })))
}

/// Draws from the messages of a range, and returns whether some failed: those are skipped for good, and the
/// conversation continues.
async fn draw(
    node: &Arc<Node>,
    entity: EntityKey,
    state: &conversation::State,
    agent: Option<Arc<Agent>>,
    (attempts, range): (u32, SeqRange),
) -> Result<Drawn, Stopped> {
    let is_last = attempts >= MAX_ATTEMPTS;
    let MessagesToDraw { messages, trace, failed } = match messages_to_draw(node, entity, range).await {
        Err(error) if is_last && !error.is_transient() => return Ok(Drawn { failed: true, ..Drawn::default() }),
        read => read?,
    };
    let mut drawn = Drawn { failed, ..Drawn::default() };
    let pass = DrawPass { node, entity, state, agent, trace };
    for (subject, messages) in by_subject(state, messages) {
        match pass.draw(&subject, &messages, &mut drawn.used).await {
            Err(_) if is_last => drawn.failed = true,
            notes => drawn.notes.extend(notes?),
        }
    }
    Ok(drawn)
}

/// The messages of a range that request memories.
struct MessagesToDraw {
    /// The messages with their newest text.
    messages: Vec<Message>,
    /// The trace of the newest one's request.
    trace: Option<TraceContext>,
    /// There may be more, unreadable ones.
    failed: bool,
}

/// Reads the messages of a range that request memories.
async fn messages_to_draw(node: &Node, entity: EntityKey, range: SeqRange) -> Result<MessagesToDraw, StoreError> {
    let read = node.readable::<Conversation>(entity, range).await?;
    let overlays: HashMap<_, _> = node.stored_overlays(entity, range).await?.into_iter().collect();
    let mut found = MessagesToDraw { messages: Vec::new(), trace: None, failed: !read.damaged.is_empty() };
    let mut damage = read.damaged.first().map(|(seq, error)| (*seq, error));
    for event in &read.events {
        let Some(message) = message_of(event).filter(conversation::remember::requests_memories) else { continue };
        let message = match overlays.get(&event.seq) {
            None => Some(message),
            Some(Ok(overlay)) => message.as_edited(overlay),
            Some(Err(error)) => {
                found.failed = true;
                damage.get_or_insert((event.seq, error));
                None
            }
        };
        if let Some(message) = message {
            found.messages.push(message);
            found.trace = event.trace;
        }
    }
    if let Some((seq, error)) = damage {
        tracing::error!(?entity, seq, %error, "a message cannot be read; no memories are extracted from it");
    }
    Ok(found)
}

/// The messages by subject: the conversation's contact or owner; if it has neither, their senders.
fn by_subject(state: &conversation::State, messages: Vec<Message>) -> Vec<(Subject, Vec<Message>)> {
    let mut groups: Vec<(Subject, Vec<Message>)> = Vec::new();
    for message in messages {
        let subject = subject_of(state).unwrap_or_else(|| Subject::Owner(message.content.sender.id.clone()));
        match groups.iter_mut().find(|(known, _)| *known == subject) {
            Some((_, group)) => group.push(message),
            None => groups.push((subject, vec![message])),
        }
    }
    groups
}

/// One pass over a conversation.
struct DrawPass<'a> {
    node: &'a Arc<Node>,
    entity: EntityKey,
    state: &'a conversation::State,
    /// The agent whose model is called, if any.
    agent: Option<Arc<Agent>>,
    /// The trace of the newest message's request.
    trace: Option<TraceContext>,
}

impl DrawPass<'_> {
    /// Draws from messages about this subject, and adds the usage to the earlier usage.
    async fn draw(
        &self,
        subject: &Subject,
        messages: &[Message],
        used: &mut Option<usage::Entry>,
    ) -> Result<Vec<Note>, Stopped> {
        let mut notes = Vec::new();
        if let Some(agent) = &self.agent {
            let known = recall::all(self.node, subject.entity(self.entity.workspace), subject).await?;
            // Created by an attempt whose outcome is unknown: the model sees it as known and does not repeat it.
            let made = |memory: &&Memory| messages.iter().any(|message| memory.first == Some(message.id));
            let note = |memory: &Memory| note(memory, subject, memory.first, true);
            notes.extend(known.iter().filter(made).map(note));
            let (edits, usage) = self.by_model(agent, known, messages).await?;
            *used = Some(usage::Entry::and_call(used.take(), &agent.id, usage));
            // The answer is about all of them; the last one counts as the source.
            let source = messages.last().map(|message| message.id);
            notes.extend(self.remember(subject, edits, source).await?);
            let mut noted = HashSet::new();
            notes.retain(|note| !note.created || noted.insert(note.memory));
        } else {
            for message in messages {
                let edits = facts(message.content.text.as_deref().unwrap_or_default()).await;
                notes.extend(self.remember(subject, edits, Some(message.id)).await?);
            }
        }
        Ok(notes)
    }

    /// Has the agent's model draw edits from messages, given the known memories; returns its usage too.
    async fn by_model(
        &self,
        agent: &Agent,
        mut known: Vec<Memory>,
        messages: &[Message],
    ) -> Result<(Vec<Edit>, Usage), Stopped> {
        known.sort_by_key(|memory| std::cmp::Reverse(memory.at()));
        known.truncate(MAX_KNOWN_MEMORIES);
        let texts: Vec<&str> = messages.iter().filter_map(|message| message.content.text.as_deref()).collect();
        let most = share(texts.iter().map(|text| text.chars().count()).collect(), limits::CONTEXT_CHARS);
        let texts: Vec<String> = texts.into_iter().map(|text| text.chars().take(most).collect()).collect();
        let system = ChatMessage::text("system", INSTRUCTIONS);
        let question = ChatMessage::text("user", model::question(&known, &texts));
        // Notes need neither the agent's character nor its tools.
        let agent = Agent { tools: None, system_prompt: None, temperature_milli: Some(0), ..agent.clone() };
        let chat = Chat::begin(self.node, &agent, self.state.id, self.trace);
        let trace = chat.trace;
        let exchange = chat.exchange.clone();
        let deltas = DeltaSink::silent();
        let messages = vec![system, question];
        let prompt = Prompt { agent: Arc::new(agent), messages, may_be_empty: false, trace, deltas, exchange };
        match chat.within(MODEL_TIMEOUT, self.node.ports.models.complete(prompt)).await {
            Ok(output) => Ok((model::edits(&output.replies.join("\n"), &known), output.usage)),
            Err(failure) => Err(Stopped::Refused(format!("the model failed: {}", failure.code).into())),
        }
    }

    /// Stores memories, and returns the notes for the conversation's log.
    async fn remember(
        &self,
        subject: &Subject,
        edits: Vec<Edit>,
        source: Option<MessageId>,
    ) -> Result<Vec<Note>, Stopped> {
        if edits.is_empty() {
            return Ok(Vec::new());
        }
        let remember = Remember { subject: subject.clone(), edits, source };
        let memories = subject.entity(self.entity.workspace);
        match retry_command(self.node, &self.node.memories, memories, remember).await? {
            Ok(outcomes) => {
                let note_of = |outcome: &Outcome| match outcome {
                    Outcome::Created(memory) => Some(note(memory, subject, source, true)),
                    Outcome::Updated(memory) => Some(note(memory, subject, source, false)),
                    Outcome::Known(_) | Outcome::Forgotten(_) => None,
                };
                Ok(outcomes.iter().filter_map(note_of).collect())
            }
            // The subject was erased.
            Err(super::Rejection::NotFound) => Ok(Vec::new()),
            Err(rejection) => Err(Stopped::by_answer(rejection)),
        }
    }
}

/// The facts that a text states about its author. A long text takes some milliseconds, so it runs on another thread.
async fn facts(text: &str) -> Vec<Edit> {
    let found = if text.len() <= QUICK_BYTES {
        extract::facts(text)
    } else {
        let text = text.to_owned();
        // It ends early only with the runtime.
        tokio::task::spawn_blocking(move || extract::facts(&text)).await.unwrap_or_default()
    };
    found.into_iter().map(Edit::Keep).collect()
}

/// The longest allowed length, so that together they fit `room`: the space left by short ones goes to the long ones.
fn share(mut lengths: Vec<usize>, mut room: usize) -> usize {
    lengths.sort_unstable();
    for (done, length) in lengths.iter().enumerate() {
        let each = room / (lengths.len() - done);
        if *length > each {
            return each;
        }
        room -= length;
    }
    usize::MAX
}

/// The note of a memory for the conversation's log.
fn note(memory: &Memory, subject: &Subject, source: Option<MessageId>, created: bool) -> Note {
    Note { memory: memory.id, subject: subject.clone(), source, created }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_get_the_room_that_short_ones_leave() {
        for (lengths, room, most) in [
            (vec![], 10, usize::MAX),
            (vec![5, 5], 10, usize::MAX),
            (vec![2, 100, 2], 30, 26),
            (vec![100, 100, 1], 21, 10),
        ] {
            assert_eq!(share(lengths.clone(), room), most, "{lengths:?} in {room}");
        }
    }
}
