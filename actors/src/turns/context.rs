//! What a turn knows of its conversation: the newest messages that fit, in the order that a model wants them.

use super::recent::Known;
use crate::agent::builtin;
use crate::agent::{Agent, ChatMessage};
use crate::clock::Millis;
use crate::codec;
use crate::conversation::{Event, Turn, message_of, number_key};
use crate::id::{EntityKey, MessageId};
use crate::limits;
use crate::machine::Record;
use crate::memories::recall::Remembered;
use crate::message::{Message, Overlay};
use crate::node::Node;
use crate::store::{KeyRange, LogScan, Order, Scan, Store, StoreError};
use crate::tables::OVERLAYS;

/// Events of one read. An exchange has about five in two commits, so this many are read where the turn runs: more would
/// have the embedded store begin again on a thread that may block.
const PAGE: usize = 128;
/// Events that are looked at in all. A turn that waited while more than that happened has lost sight of its question.
const LOOKED_AT: usize = 3_000;

/// See the module's text. Every list is oldest first.
#[derive(Debug, Default)]
pub(super) struct Context {
    /// Before the question.
    before: Vec<Message>,
    /// What is to be answered.
    question: Vec<Message>,
    /// What the turn has done so far: calls of tools and their results.
    steps: Vec<Message>,
    /// The sequence of the newest event that was there.
    pub(super) newest: u64,
    /// Whether a message on the way names its parent.
    is_tree: bool,
    /// Whether something that was to be answered was taken back.
    taken_back: bool,
}

/// Reads a log backwards.
struct Reader<'a> {
    turn: &'a Turn,
    context: Context,
    chars: usize,
    /// Bytes of the question so far.
    asked: usize,
    /// Only this message, or one that is older, belongs to the way: the parent of the one before.
    wanted: Option<u64>,
}

impl Context {
    /// What the turn knows now. `began`: the event with which the attempt began, where it has done nothing since; then
    /// what is known up to there will do.
    pub(super) async fn read(
        node: &Node,
        entity: EntityKey,
        turn: &Turn,
        began: Option<u64>,
    ) -> Result<Self, StoreError> {
        let mut reader = Reader { turn, context: Self::default(), chars: 0, asked: 0, wanted: None };
        // Where others write too, what this process has written may not be the last word.
        let began = began.filter(|_| !node.store.is_shared());
        let known = began.and_then(|began| node.turns.recent.of(entity, began));
        let upto = known.as_ref().map_or(u64::MAX, |known| known.first - 1);
        let is_known = known.is_some();
        if known.is_some_and(|known| reader.takes(known)) {
            return Ok(reader.context.turned_round());
        }
        let read = reader.read(node.store.as_ref(), entity, upto).await?;
        if let Some(read) = read.filter(|_| began.is_some() && !is_known) {
            node.turns.recent.put(entity, read);
        }
        Ok(reader.context.turned_round())
    }

    fn turned_round(mut self) -> Self {
        for list in [&mut self.before, &mut self.question, &mut self.steps] {
            list.reverse();
        }
        self
    }

    fn all(&self) -> impl Iterator<Item = &Message> {
        self.before.iter().chain(&self.question).chain(&self.steps)
    }

    /// What the next message answers, where the conversation is a tree.
    pub(super) fn branch(&self) -> Option<MessageId> {
        self.all().last().filter(|_| self.is_tree).map(|message| message.id)
    }

    /// The words to be answered.
    pub(super) fn asked(&self) -> String {
        let messages = if self.question.is_empty() {
            let last = self.before.iter().rposition(|message| message.content.role == "user");
            last.map(|last| &self.before[last..=last]).unwrap_or_default()
        } else {
            &self.question
        };
        let texts: Vec<&str> = messages.iter().map(words).collect();
        texts.join("\n")
    }

    /// Whether there is nothing left to be answered: all that was asked was taken back before anything was done about
    /// it, and what was said before that has had its answer.
    pub(super) fn is_pointless(&self) -> bool {
        let mut newest_first = self.before.iter().rev();
        let asked = newest_first.find(|message| message.content.role == "user").and_then(|message| message.turn);
        let replied = |turn| self.before.iter().any(|m| m.content.role == "assistant" && m.turn == Some(turn));
        let waits = asked.is_some_and(|turn| !replied(turn));
        self.taken_back && self.question.is_empty() && self.steps.is_empty() && !waits
    }

    /// Results of the tools that the turn has called, in order.
    pub(super) fn results(&self) -> Vec<&str> {
        self.steps.iter().filter(|step| step.content.role == "tool").map(words).collect()
    }

    /// About how many tokens the model would read.
    pub(super) fn tokens(&self, agent: &Agent) -> u64 {
        builtin::tokens_of(agent.system_prompt.as_deref().into_iter().chain(self.all().map(words)))
    }

    /// What the model is asked.
    pub(super) fn prompt(&self, agent: &Agent, memories: &[Remembered]) -> Vec<ChatMessage> {
        let prompt = agent.system_prompt.iter().map(|text| ChatMessage::words("system", text.clone()));
        let known: Vec<String> = memories.iter().map(|memory| format!("- {}", memory.text)).collect();
        let known = (!known.is_empty()).then(|| format!("What is known about the user:\n{}", known.join("\n")));
        let known = known.into_iter().map(|text| ChatMessage::words("system", text));
        let messages = self.all().map(|message| ChatMessage {
            role: message.content.role.clone(),
            text: message.content.for_a_model(),
            tool_calls: message.content.tool_calls.clone(),
            metadata: message.content.metadata.clone(),
        });
        prompt.chain(known).chain(messages).collect()
    }
}

impl Reader<'_> {
    /// Takes what is known of the conversation's end; whether that is all that belongs here.
    fn takes(&mut self, known: Known) -> bool {
        let Known { messages, first, last } = known;
        self.context.newest = last;
        let mut through = first == 1;
        for message in messages {
            through |= self.is_through(message.id.at);
            self.take(message, &Overlay::default());
        }
        through
    }

    /// Reads the log backwards from the event `upto`. Answers what it has read where nothing of it was taken away since.
    async fn read(&mut self, store: &dyn Store, entity: EntityKey, mut upto: u64) -> Result<Option<Known>, StoreError> {
        let (mut known, mut looked_at, mut is_whole) = (None::<Known>, 0, true);
        while looked_at < LOOKED_AT {
            let page = store.read_log(entity, LogScan { from: 1, to: upto, order: Order::Desc, limit: PAGE }).await?;
            let (Some(first), Some(last)) = (page.first(), page.last()) else { break };
            looked_at += page.len();
            self.context.newest = self.context.newest.max(first.seq);
            let range = KeyRange { after: Some(number_key(last.seq - 1)), before: Some(number_key(first.seq + 1)) };
            let overlays = store.rows(entity, OVERLAYS, Scan::new(range, Order::Asc, PAGE)).await?;
            let known = known.get_or_insert_with(|| Known { messages: Vec::new(), first: 0, last: first.seq });
            known.first = last.seq;
            let mut through = last.seq == 1;
            for stored in &page {
                let record: Record<Event> = codec::decode_record(stored.seq, &stored.payload)?;
                through |= self.is_through(record.at);
                let key = number_key(stored.seq);
                let overlay = overlays.iter().find(|row| row.key == key).map(|row| codec::decode(&row.value));
                let overlay: Overlay = overlay.transpose()?.unwrap_or_default();
                if let Some(message) = message_of(&record) {
                    let edited = message.clone().as_edited(&overlay);
                    is_whole &= edited.is_some();
                    known.messages.extend(edited);
                    self.take(message, &overlay);
                }
            }
            if through {
                break;
            }
            upto = last.seq - 1;
        }
        Ok(known.filter(|_| is_whole))
    }

    /// Whether nothing that is older than what happened `at` then can belong here.
    fn is_through(&self, at: Millis) -> bool {
        self.is_full() && at < self.turn.id.at
    }

    /// Whether a model is handed no older messages.
    fn is_full(&self) -> bool {
        self.chars > limits::CONTEXT_CHARS || self.context.before.len() >= limits::CONTEXT_MESSAGES
    }

    fn take(&mut self, message: Message, overlay: &Overlay) {
        let own = message.turn == Some(self.turn.id);
        if !own && message.turn.is_some_and(|of| of.number > self.turn.id.number) {
            return;
        }
        let is_step = own && matches!(message.content.role.as_str(), "assistant" | "tool");
        if !own && self.wanted.is_some_and(|wanted| message.id.number > wanted) {
            return;
        }
        if !is_step {
            self.wanted = message.parent.map(|parent| parent.number);
        }
        let full = self.is_full();
        self.context.is_tree |= message.parent.is_some() && (own || !full);
        let Some(message) = message.as_edited(overlay) else {
            self.context.taken_back |= own && !is_step;
            return;
        };
        // Roles of the client's own are not for models.
        if !matches!(message.content.role.as_str(), "user" | "assistant" | "system" | "developer" | "tool") {
            return;
        }
        self.chars += words(&message).len();
        match (is_step, own, full) {
            (true, ..) => self.context.steps.push(message),
            (false, true, _) if self.asked > limits::QUESTION_BYTES => {}
            (false, true, _) => {
                self.asked += words(&message).len();
                self.context.question.push(message);
            }
            (false, false, false) => self.context.before.push(message),
            (false, false, true) => {}
        }
    }
}

/// The words of a message; those of a file without a caption are its name.
fn words(message: &Message) -> &str {
    message.content.words()
}
