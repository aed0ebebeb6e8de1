//! A turn's context: the newest messages of the conversation that fit, in the order that a model expects.

use std::sync::Arc;

use super::prompt_message::PromptMessage;
use super::recent::{RecentMessages, TAIL_BYTES};
use crate::agent::builtin;
use crate::agent::{Agent, ChatMessage};
use crate::clock::Millis;
use crate::codec;
use crate::conversation::{Event, Turn, message_of, number_key};
use crate::id::{EntityKey, MessageId};
use crate::limits;
use crate::machine::Record;
use crate::memories::recall::Remembered;
use crate::message::{Json, Overlay, role};
use crate::node::Node;
use crate::store::{KeyRange, LogScan, Order, Scan, SeqRange, Store, StoreError};
use crate::tables::OVERLAYS;
use crate::tool::Tools;

/// Events of one read. An exchange has about five in two commits, so this many are read inline: more would make the
/// embedded store start over on a thread that may block.
const EVENTS_PER_PAGE: usize = 128;
/// The most events read for one context. A turn that waited while more than these happened has lost its question.
const MAX_EVENTS_READ: usize = 3_000;
/// Bytes of events after which no more are read.
const MAX_BYTES_READ: usize = 8 * limits::QUESTION_BYTES;

/// A turn's context. Every list is oldest first.
#[derive(Debug, Default)]
pub(super) struct Context {
    /// Before the question.
    before: Vec<Arc<PromptMessage>>,
    /// The messages to be answered.
    question: Vec<Arc<PromptMessage>>,
    /// The turn's steps so far: tool calls and their results.
    steps: Vec<Arc<PromptMessage>>,
    /// The sequence of the newest event.
    pub(super) newest: u64,
    /// Whether a message on the branch names its parent.
    is_tree: bool,
    /// Whether a message to be answered was removed.
    question_removed: bool,
    /// The newest message of the question, and of those before it, whether or not the model gets it.
    newest_in_question: Option<MessageId>,
    newest_before: Option<MessageId>,
}

/// Reads a log backwards.
struct Reader<'a> {
    turn: &'a Turn,
    tools: &'a dyn Tools,
    context: Context,
    /// Characters of the model's messages so far.
    chars: usize,
    /// A message did not fit.
    full: bool,
    /// There is a message to answer: the turn's own question, or an earlier message of a person.
    has_question: bool,
    /// Messages that do not fit but are to be answered if the turn has no question of its own: the newest message of
    /// all, and the newest message of a person.
    held: (Vec<Arc<PromptMessage>>, Option<Arc<PromptMessage>>),
    /// Results whose calls have not been read yet, the newest first. Most calls come right before them; a result whose
    /// call never comes is dropped.
    results: Vec<PendingResult>,
    /// Bytes of the question so far.
    question_bytes: usize,
    /// Only this message, or an older one, belongs to the branch: the parent of the one before.
    wanted: Option<u64>,
}

/// A tool's result whose call was not read yet.
struct PendingResult {
    /// The id of the call.
    call: String,
    message: Arc<PromptMessage>,
}

impl Context {
    /// The turn's context now. `began`: the event with which the attempt began, if it has done nothing since; then
    /// cached messages up to that event suffice.
    pub(super) async fn read(
        node: &Node,
        entity: EntityKey,
        turn: &Turn,
        began: Option<u64>,
    ) -> Result<Self, StoreError> {
        let mut reader = Reader::of(turn, node.ports.tools.as_ref());
        // If other processes write too, this process's last write may not be the newest.
        let began = began.filter(|_| !node.store.is_shared());
        let known = began.and_then(|began| node.turns.recent.of(entity, began));
        let upto = known.as_ref().map_or(u64::MAX, |known| known.first - 1);
        let is_known = known.is_some();
        if known.is_some_and(|known| reader.take_cached(known)) {
            return Ok(reader.finish());
        }
        let read = reader.read(node.store.as_ref(), entity, upto).await?;
        if let Some(read) = read.filter(|_| began.is_some() && !is_known) {
            node.turns.recent.put(entity, read);
        }
        Ok(reader.finish())
    }

    /// The lists, which were read newest first, with the oldest first.
    fn reversed(mut self) -> Self {
        for list in [&mut self.before, &mut self.question, &mut self.steps] {
            list.reverse();
        }
        self
    }

    fn all(&self) -> impl Iterator<Item = &PromptMessage> {
        self.before.iter().chain(&self.question).chain(&self.steps).map(AsRef::as_ref)
    }

    /// The parent of the next message, if the conversation is a tree.
    pub(super) fn branch(&self) -> Option<MessageId> {
        let step = self.steps.last().map(|step| step.id);
        step.or(self.newest_in_question).or(self.newest_before).filter(|_| self.is_tree)
    }

    /// The text to be answered; for a message without text, the lines of its files.
    pub(super) fn question_text(&self) -> String {
        let messages = if self.question.is_empty() {
            let last = self.before.iter().rposition(|message| message.role == Some(role::USER));
            last.map(|last| &self.before[last..=last]).unwrap_or_default()
        } else {
            &self.question
        };
        let texts: Vec<&str> = messages.iter().map(|message| message.question_text()).collect();
        texts.join("\n")
    }

    /// Whether nothing is left to be answered: all questions were removed before any step, and earlier messages have
    /// their answer.
    pub(super) fn is_pointless(&self) -> bool {
        let mut newest_first = self.before.iter().rev();
        let question = newest_first.find(|message| message.role == Some(role::USER)).and_then(|message| message.turn);
        let replied = |turn| {
            self.before.iter().any(|message| message.role == Some(role::ASSISTANT) && message.turn == Some(turn))
        };
        let is_unanswered = question.is_some_and(|turn| !replied(turn));
        self.question_removed && self.question.is_empty() && self.steps.is_empty() && !is_unanswered
    }

    /// The number of the newest message of the turn with text beside calls.
    pub(super) fn said(&self) -> Option<u64> {
        let is_said = |step: &&Arc<PromptMessage>| step.role == Some(role::ASSISTANT) && !step.text().trim().is_empty();
        self.steps.iter().rfind(is_said).map(|step| step.id.number)
    }

    /// Results of the tools that the turn has called, in order.
    pub(super) fn results(&self) -> Vec<&str> {
        self.steps.iter().filter(|step| step.role == Some(role::TOOL)).map(|step| step.text()).collect()
    }

    /// About how many tokens the model would read.
    pub(super) fn tokens(&self, agent: &Agent) -> u64 {
        let calls = self.all().filter_map(PromptMessage::calls).map(Json::as_str);
        builtin::tokens_of(
            agent.system_prompt.as_deref().into_iter().chain(self.all().map(PromptMessage::text)).chain(calls),
        )
    }

    /// The model's prompt.
    pub(super) fn prompt(&self, agent: &Agent, memories: &[Remembered]) -> Vec<ChatMessage> {
        let prompt = agent.system_prompt.iter().map(|text| ChatMessage::text(role::SYSTEM, text.clone()));
        let known: Vec<String> = memories.iter().map(|memory| format!("- {}", memory.text)).collect();
        let known = (!known.is_empty()).then(|| format!("What is known about the user:\n{}", known.join("\n")));
        let known = known.into_iter().map(|text| ChatMessage::text(role::SYSTEM, text));
        let messages = self.all().map(|message| ChatMessage {
            role: message.role.unwrap_or_default().to_owned(),
            text: message.rendered().to_owned(),
            tool_calls: message.tool_calls.clone(),
            metadata: message.metadata.clone(),
        });
        prompt.chain(known).chain(messages).collect()
    }
}

impl<'a> Reader<'a> {
    /// A reader that has read nothing yet.
    fn of(turn: &'a Turn, tools: &'a dyn Tools) -> Self {
        Self {
            turn,
            tools,
            context: Context::default(),
            chars: 0,
            full: false,
            has_question: false,
            held: (Vec::new(), None),
            results: Vec::new(),
            question_bytes: 0,
            wanted: None,
        }
    }

    /// Takes the cached end of the conversation; returns whether that is the full context.
    fn take_cached(&mut self, known: RecentMessages) -> bool {
        let RecentMessages { messages, first, last } = known;
        self.context.newest = last;
        let mut through = first == 1;
        for message in messages {
            through |= self.is_through(message.id.at);
            self.take(message);
        }
        through
    }

    /// Reads the log backwards from the event `upto`. Returns the messages read, unless some were dropped since.
    async fn read(
        &mut self,
        store: &dyn Store,
        entity: EntityKey,
        mut upto: u64,
    ) -> Result<Option<RecentMessages>, StoreError> {
        let mut known = None::<RecentMessages>;
        let mut events_read = 0;
        let mut bytes = 0;
        let mut is_complete = true;
        while events_read < MAX_EVENTS_READ && bytes < MAX_BYTES_READ {
            let page = store
                .read_log(entity, LogScan { range: SeqRange::upto(upto), order: Order::Desc, limit: EVENTS_PER_PAGE })
                .await?;
            let (Some(first), Some(last)) = (page.first(), page.last()) else { break };
            events_read += page.len();
            self.context.newest = self.context.newest.max(first.seq);
            let range = KeyRange { after: Some(number_key(last.seq - 1)), before: Some(number_key(first.seq + 1)) };
            let overlays = store.rows(entity, OVERLAYS, Scan::new(range, Order::Asc, EVENTS_PER_PAGE)).await?;
            let known = known.get_or_insert_with(|| RecentMessages { messages: Vec::new(), first: 0, last: first.seq });
            // Messages that would be evicted at once are not cached.
            let keeps = bytes <= TAIL_BYTES;
            if keeps {
                known.first = last.seq;
            }
            bytes += page.iter().map(|stored| stored.payload.len()).sum::<usize>();
            let mut through = last.seq == 1;
            for stored in &page {
                let record: Record<Event> = codec::decode_record(stored.seq, &stored.payload)?;
                through |= self.is_through(record.at);
                let key = number_key(stored.seq);
                let overlay = overlays.iter().find(|row| row.key == key).map(|row| codec::decode(&row.value));
                let overlay: Overlay = overlay.transpose()?.unwrap_or_default();
                if let Some(message) = message_of(&record) {
                    let message = Arc::new(PromptMessage::of(message, &overlay, self.tools));
                    is_complete &= !message.is_removed || !keeps;
                    known.messages.extend(keeps.then(|| Arc::clone(&message)));
                    self.take(message);
                }
            }
            if through {
                break;
            }
            upto = last.seq - 1;
        }
        Ok(known.filter(|_| is_complete))
    }

    /// Whether nothing older than an event `at` this time can belong to the context.
    fn is_through(&self, at: Millis) -> bool {
        self.is_full() && self.has_question && at < self.turn.id.at
    }

    /// Whether the model gets no older messages.
    fn is_full(&self) -> bool {
        self.full || self.context.before.len() >= limits::CONTEXT_MESSAGES
    }

    fn take(&mut self, message: Arc<PromptMessage>) {
        let own = message.turn == Some(self.turn.id);
        if !own && message.turn.is_some_and(|of| of.number > self.turn.id.number) {
            return;
        }
        let is_step = own && matches!(message.role, Some(role::ASSISTANT | role::TOOL));
        if !own && self.wanted.is_some_and(|wanted| message.id.number > wanted) {
            return;
        }
        if !is_step {
            self.wanted = message.parent;
        }
        let full = self.is_full();
        self.context.is_tree |= message.parent.is_some() && (own || !full);
        if message.is_removed {
            self.context.question_removed |= own && !is_step;
            return;
        }
        if own && !is_step && message.role.is_some() {
            self.context.newest_in_question.get_or_insert(message.id);
        }
        // Custom roles of clients are not for models, nor are messages without content.
        let Some(role) = message.role.filter(|role| *role == role::TOOL || message.chars() > 0) else { return };
        match (is_step, own, full) {
            (true, ..) => {
                self.chars += message.chars();
                self.context.steps.push(message);
            }
            (false, true, _) if self.question_bytes > limits::QUESTION_BYTES => {}
            (false, true, _) => {
                self.has_question = true;
                self.question_bytes += message.text().len();
                self.chars += message.chars();
                self.context.question.push(message);
            }
            (false, false, true) if self.has_question => {}
            (false, false, _) => self.take_earlier(message, role),
        }
    }

    /// Adds a message before the question, with the results of its calls, which are shortened if they do not fit: all
    /// of it or nothing, and then nothing older.
    fn take_earlier(&mut self, message: Arc<PromptMessage>, role: &str) {
        self.context.newest_before.get_or_insert(message.id);
        if role == role::TOOL {
            let call = message.metadata.as_ref().and_then(|metadata| self.tools.answered(metadata));
            let is_unshortened = chars_of(&self.results) + message.chars() <= limits::QUESTION_BYTES;
            let result = call.map(|call| PendingResult { call, message });
            self.results.extend(result.map(|result| if is_unshortened { result } else { result.shortened() }));
            return;
        }
        let own = message.chars();
        let is_newest = self.context.before.is_empty() && !self.full;
        let is_question = role == role::USER && !self.has_question;
        self.has_question |= is_question;
        let fits = |chars: usize| chars <= limits::CONTEXT_CHARS;
        if !is_newest && (self.full || !fits(self.chars + own)) {
            self.full = true;
            self.held.1 = Some(message).filter(|_| is_question).or(self.held.1.take());
            return;
        }
        let mut results = self.results_of(&message);
        let is_sole_question = is_newest && self.context.question.is_empty();
        if !is_sole_question && !fits(self.chars + own + chars_of(&results)) {
            results = results.into_iter().map(PendingResult::shortened).collect();
        }
        let more = own + chars_of(&results);
        let group = results.into_iter().map(|result| result.message).chain([message]);
        if fits(self.chars + more) {
            self.chars += more;
            self.context.before.extend(group);
            return;
        }
        self.full = true;
        if is_newest {
            self.held.0 = group.collect();
        }
    }

    /// The context, oldest first. The question of a turn without one of its own is included however long it is.
    fn finish(self) -> Context {
        let Self { mut context, held: (newest, question), .. } = self;
        if context.question.is_empty() {
            context.before.splice(..0, newest);
            context.before.extend(question);
        }
        context.reversed()
    }

    /// The results of a message's calls, the newest first: of each call the oldest one read, and if an id occurs twice
    /// among the calls, one after the other. Other results are dropped, since a repeated id means the later call.
    fn results_of(&mut self, message: &PromptMessage) -> Vec<PendingResult> {
        let ids = message.calls().map(|calls| self.tools.ids_of(calls)).unwrap_or_default();
        let mut found = Vec::new();
        if ids.is_empty() {
            return found;
        }
        for id in &ids {
            if let Some(at) = self.results.iter().rposition(|result| result.call == *id) {
                found.push(self.results.remove(at));
            }
        }
        self.results.retain(|result| !ids.contains(&result.call));
        found.reverse();
        found
    }
}

impl PendingResult {
    /// The result with only its beginning, if it is long.
    fn shortened(self) -> Self {
        let message = self.message.shortened(limits::SHORTENED_CHARS).map(Arc::new).unwrap_or(self.message);
        Self { call: self.call, message }
    }
}

/// How many characters a model reads of these results.
fn chars_of(results: &[PendingResult]) -> usize {
    results.iter().map(|result| result.message.chars()).sum()
}

#[cfg(test)]
mod tests;
