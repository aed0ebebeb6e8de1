//! Memories are drawn once, whatever fails and whichever process ends meanwhile; and they are found again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actors::agent::{Completion, ModelOutput, Models, NoModels, Prompt};
use actors::clock::Clock as _;
use actors::conversation::{
    BusyPolicy, Command, Conversation, Details, Event, Failure, Opening, Origin, Post, Remembering, TurnRequest,
    TurnStatus, Usage,
};
use actors::directory::CommandContext;
use actors::id::{ContactId, ConversationId, EntityKey};
use actors::limits;
use actors::memories::recall::{Embeddings, all, recall, search};
use actors::memories::{self, Memory, Subject};
use actors::message::{Content, NewMessage};
use actors::metrics::{ModelError, ModelOperation, ModelProvider, TokenType};
use actors::node::Node;
use actors::ports::Ports;
use actors::store::Store;
use actors::store::faulty::{FaultyStore, Rates};
use actors::store::memory::MemoryStore;
use actors::tables::SLOTS;
use actors::trace::Traces;
use actors::trace::recording_tracer::RecordingTracer;
use actors::usage::{Day, Sum};
use futures_util::future::BoxFuture;
use tokio::time::sleep;

use crate::alarms;
use crate::support::*;

const NONE: CommandContext = CommandContext { key: None, trace: None };
const HOUR: Duration = Duration::from_secs(3_600);

fn ana() -> Subject {
    Subject::Contact(ContactId::new(NOW, actors::id::Address([9; 10])))
}

/// A message of a contact that is to be remembered.
fn said(e: EntityKey, agent: &str, texts: &[&str]) -> Command {
    let Subject::Contact(contact) = ana() else { unreachable!() };
    let origin = Origin::Api { channel: "shop".to_owned(), contact, agent: agent.to_owned() };
    let id = ConversationId::new(NOW, e.id);
    let opening = Opening { id, origin, owner: None, details: Details::default() };
    let message = |text: &&str| {
        let content = Arc::new(Content { memories: true, ..content(text) });
        NewMessage { content, parent: None, review_millis: None }
    };
    let messages = texts.iter().map(message).collect();
    Command::Post(Post { opening: Some(opening), expected: None, messages, turn: None })
}

async fn remembered(node: &Node) -> Vec<Memory> {
    all(node, ana().entity(WORKSPACE), &ana()).await.unwrap()
}

async fn texts_of(node: &Node) -> Vec<String> {
    remembered(node).await.into_iter().map(|memory| memory.text).collect()
}

/// What is left to be drawn from a conversation.
async fn left(node: &Node, e: EntityKey) -> Option<Remembering> {
    node.state::<Conversation>(e).await.unwrap().unwrap().remembering
}

/// The names of a conversation's events about memories.
async fn told(node: &Node, e: EntityKey) -> Vec<&'static str> {
    let names = log(node, e).await.into_iter().filter_map(|record| record.event.name());
    names.filter(|name| name.starts_with("memory.")).collect()
}

fn on(store: impl Store, clock: &Arc<TokioClock>, ports: Ports) -> Arc<Node> {
    let clock: Arc<TokioClock> = Arc::clone(clock);
    Node::start(Arc::new(store), clock, entropy(), ports)
}

#[tokio::test(start_paused = true)]
async fn facts_are_remembered_after_the_commit_and_recorded_in_the_log() {
    let node = on(MemoryStore::default(), &TokioClock::start(), Ports::default());
    let e = entity(1);
    node.conversation(e, said(e, "bot", &["My name is Ana. I live in Porto"]), NONE).await.unwrap();
    settle().await;
    assert_eq!(texts_of(&node).await, ["My name is Ana", "I live in Porto"]);
    node.conversation(e, said(e, "bot", &["hm", "I moved to Oslo"]), NONE).await.unwrap();
    settle().await;
    assert_eq!(texts_of(&node).await, ["My name is Ana", "I moved to Oslo"]);
    assert_eq!(told(&node, e).await, ["memory.created", "memory.created", "memory.updated"]);
    assert_eq!(left(&node, e).await, None);
}

#[tokio::test(start_paused = true)]
async fn memories_left_undone_are_made_once_by_the_next_process() {
    for seed in 0..16 {
        let store = Arc::new(FaultyStore::new(MemoryStore::default(), seed, Rates::default()));
        let clock = TokioClock::start();
        let mut node = node_by(&store, &clock);
        let e = entity(1);
        store.set_rates(Rates { unanswered: 150, late: 100, refused: 150, competed: 50, unread: 20 });
        for n in 0..6 {
            let text = format!("My thing {n} is {n}. I live in Town{n}");
            while node.conversation(e, said(e, "bot", &[&text]), key(n, n)).await.is_err() {
                sleep(Duration::from_millis(5)).await;
            }
            if n % 2 == seed % 2 {
                node = node_by(&store, &clock);
            }
        }
        for _ in 0..600 {
            sleep(Duration::from_secs(10)).await;
            let state = node.state::<Conversation>(e).await;
            if state.is_ok_and(|state| state.unwrap().remembering.is_none()) {
                break;
            }
        }
        store.calm();
        node = node_by(&store, &clock);
        assert_eq!(left(&node, e).await, None, "seed {seed}");
        let texts: BTreeSet<_> = texts_of(&node).await.into_iter().collect();
        let things = (0..6).map(|n| format!("My thing {n} is {n}")).chain(["I live in Town5".to_owned()]);
        assert_eq!(texts, things.collect(), "seed {seed}");
        let mut made = BTreeSet::new();
        for record in log(&node, e).await {
            if let Event::MemoryNoted(note) = record.event
                && note.created
            {
                assert!(made.insert(note.memory), "seed {seed}: {} is told to be made once", note.memory);
            }
        }
        assert_eq!(made.len(), 7, "seed {seed}");
    }
}

/// A model that draws memories, or fails.
struct Drawer {
    answer: Result<String, ()>,
    asked: Arc<AtomicUsize>,
}

impl Models for Drawer {
    fn complete(&self, prompt: Prompt) -> BoxFuture<'_, Completion> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        assert!(prompt.messages[1].text.contains("The person said"), "{prompt:?}");
        let usage = Usage { input_tokens: 1, output_tokens: 1, millicredits: 1, model: "m".to_owned() };
        let failure = || Failure { code: "upstream_error".to_owned(), detail: String::new() };
        Box::pin(async move {
            let said = |text| ModelOutput { replies: vec![text], calls: Vec::new(), usage };
            self.answer.clone().map(said).map_err(|()| failure())
        })
    }
}

async fn with_model(answer: Result<&str, ()>) -> (Arc<Node>, Arc<AtomicUsize>) {
    with_model_on(MemoryStore::default(), answer).await
}

async fn with_model_on(store: impl Store, answer: Result<&str, ()>) -> (Arc<Node>, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let drawer = Drawer { answer: answer.map(str::to_owned), asked: Arc::clone(&asked) };
    let node = on(store, &TokioClock::start(), Ports::from(Arc::new(drawer)));
    make_agent(&node, remote()).await;
    (node, asked)
}

#[tokio::test(start_paused = true)]
async fn an_agent_with_a_model_draws_in_its_own_words() {
    let (node, asked) = with_model(Ok("NEW: Is called Ana\nNEW: Sells boats")).await;
    let e = entity(1);
    node.conversation(e, said(e, "bot", &["I am Ana", "my job is selling boats"]), NONE).await.unwrap();
    settle().await;
    assert_eq!(texts_of(&node).await, ["Is called Ana", "Sells boats"]);
    assert_eq!(asked.load(Ordering::SeqCst), 1, "all that waits is one question");
}

#[tokio::test(start_paused = true)]
async fn a_model_that_fails_again_and_again_is_done_without() {
    let (node, asked) = with_model(Err(())).await;
    let e = entity(1);
    node.conversation(e, said(e, "bot", &["My name is Ana"]), NONE).await.unwrap();
    settle().await;
    assert_eq!(texts_of(&node).await, [""; 0]);
    sleep(Duration::from_secs(120)).await;
    assert_eq!(texts_of(&node).await, ["My name is Ana"]);
    assert_eq!((asked.load(Ordering::SeqCst), told(&node, e).await), (3, vec!["memory.created"]));
}

#[tokio::test(start_paused = true)]
async fn a_model_that_draws_memories_is_traced_under_the_message() {
    let kept = Arc::new(RecordingTracer::default());
    let drawer = Drawer { answer: Ok("NEW: Is called Ana".to_owned()), asked: Arc::default() };
    let ports = Ports { traces: Traces::to(kept.clone()), ..Ports::from(Arc::new(drawer)) };
    let node = on(MemoryStore::default(), &TokioClock::start(), ports);
    make_agent(&node, remote()).await;
    let e = entity(1);
    node.conversation(e, said(e, "bot", &["I am Ana"]), crate::traces::in_trace(7)).await.unwrap();
    settle().await;
    let spans = kept.spans();
    let chat = spans.iter().find(|span| span.name.starts_with("chat")).expect("the model was asked");
    assert_eq!((chat.context.trace_id, chat.parent), ([7; 16], Some([7; 8])));
    let tokens = |kind| node.metrics().tokens.of(kind).get();
    assert_eq!((tokens(TokenType::Input), tokens(TokenType::Output)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_refuses_memories_has_a_model_asked_once_until_it_takes_them() {
    let store = FaultyStore::new(MemoryStore::default(), 0, Rates::default());
    let puppet = Puppet::new(false);
    let models = Ports::from(Arc::new(Strings(Arc::clone(&puppet))));
    let node = on(store.clone(), &TokioClock::start(), models);
    make_agent(&node, remote()).await;
    let e = entity(1);
    node.conversation(e, said(e, "bot", &["My name is Ana"]), NONE).await.unwrap();
    settle().await;
    // As one whose disk is full does.
    store.set_rates(Rates { refused: 1_000, ..Rates::default() });
    puppet.may_answer();
    sleep(HOUR).await;
    assert_eq!((puppet.asked(), left(&node, e).await.map(|left| left.attempts)), (1, Some(0)));
    store.calm();
    sleep(Duration::from_secs(5)).await;
    assert_eq!((puppet.asked(), left(&node, e).await), (2, None), "once more, and that answer is stored");
}

/// Its conversation can be stored, so the looks at it are.
#[tokio::test(start_paused = true)]
async fn a_model_is_asked_ever_less_often_while_memories_cannot_be_stored() {
    let gate = Gate::new();
    let (node, asked) = with_model_on(gate.clone(), Ok("NEW: Is called Ana")).await;
    gate.lose_rows(SLOTS, usize::MAX);
    let e = entity(1);
    node.conversation(e, said(e, "bot", &["My name is Ana"]), NONE).await.unwrap();
    sleep(HOUR).await;
    let asked = asked.load(Ordering::SeqCst);
    assert!((5..=12).contains(&asked), "{asked} times in an hour");
    assert_eq!(left(&node, e).await.map(|left| left.attempts), Some(0), "the model has not failed");
    gate.lose_rows(SLOTS, 0);
    sleep(HOUR).await;
    assert_eq!((texts_of(&node).await, left(&node, e).await), (vec!["Is called Ana".to_owned()], None));
}

#[tokio::test(start_paused = true)]
async fn memories_beside_damaged_ones_have_no_model_asked_for_ever() {
    let gate = Gate::new();
    let (node, asked) = with_model_on(gate.clone(), Ok("NEW: Is called Ana")).await;
    gate.damage_rows(SLOTS);
    let e = entity(1);
    node.conversation(e, said(e, "bot", &["My name is Ana"]), NONE).await.unwrap();
    sleep(HOUR * 5).await;
    assert_eq!((asked.load(Ordering::SeqCst), told(&node, e).await), (3, vec!["memory.failed"]));
    assert_eq!(left(&node, e).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_report_of_memories_that_no_commit_has_room_for_is_given_up() {
    let gate = Gate::new();
    let node = on(gate.clone(), &TokioClock::start(), Ports::default());
    let e = entity(1);
    let facts: Vec<String> = (0..40).map(|n| format!("My thing {n} is {n}")).collect();
    let facts: Vec<&str> = facts.iter().map(String::as_str).collect();
    gate.hang_loads(Some(ana().entity(WORKSPACE)));
    node.conversation(e, said(e, "bot", &facts), NONE).await.unwrap();
    gate.rule(Rule::FewEvents(20));
    gate.hang_loads(None);
    sleep(HOUR * 5).await;
    assert_eq!((left(&node, e).await, told(&node, e).await), (None, vec!["memory.failed"]));
    assert_eq!(texts_of(&node).await, facts, "each of them was small enough");
}

/// A slow model.
struct Slow;

impl Models for Slow {
    fn complete(&self, _: Prompt) -> BoxFuture<'_, Completion> {
        let usage = Usage { input_tokens: 1, output_tokens: 1, millicredits: 1, model: "m".to_owned() };
        Box::pin(async move {
            sleep(Duration::from_secs(55)).await;
            Ok(ModelOutput { replies: vec!["NEW: Is called Ana".to_owned()], calls: Vec::new(), usage })
        })
    }
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_slow_model_is_no_failure() {
    let node = on(MemoryStore::default(), &TokioClock::start(), Ports::from(Arc::new(Slow)));
    make_agent(&node, remote()).await;
    let e = entity(1);
    node.conversation(e, said(e, "bot", &["My name is Ana"]), NONE).await.unwrap();
    sleep(Duration::from_secs(50)).await;
    assert_eq!(left(&node, e).await.unwrap().attempts, 0, "however often somebody has looked after it");
    sleep(Duration::from_secs(30)).await;
    assert_eq!(texts_of(&node).await, ["Is called Ana"]);
}

#[tokio::test(start_paused = true)]
async fn tokens_for_drawing_memories_count_for_the_agent_and_no_turn() {
    let clock = TokioClock::start();
    let node = on(MemoryStore::default(), &clock, Ports::from(Arc::new(Slow)));
    make_agent(&node, remote()).await;
    node.conversation(entity(1), said(entity(1), "bot", &["My name is Ana", "I live in Porto"]), NONE).await.unwrap();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(texts_of(&node).await, ["Is called Ana"]);
    let used = node.used(WORKSPACE, Day::of(clock.now())).await.unwrap();
    let of_one_call = Sum { turns: 0, calls: 1, input_tokens: 1, output_tokens: 1, millicredits: 1 };
    assert_eq!(*used, BTreeMap::from([("bot".to_owned(), of_one_call)]));
}

/// A model that finds nothing to remember, at once, and answers turns later.
struct Forgetful;

impl Models for Forgetful {
    fn complete(&self, prompt: Prompt) -> BoxFuture<'_, Completion> {
        let usage = Usage { input_tokens: 1, output_tokens: 1, millicredits: 1, model: "m".to_owned() };
        Box::pin(async move {
            if !prompt.messages.iter().any(|message| message.text.contains("The person said")) {
                sleep(Duration::from_secs(10)).await;
            }
            Ok(ModelOutput { replies: vec!["NOTHING".to_owned()], calls: Vec::new(), usage })
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_drawing_that_finds_nothing_is_counted_beside_the_turn_that_ends_next() {
    let clock = TokioClock::start();
    let node = on(MemoryStore::default(), &clock, Ports::from(Arc::new(Forgetful)));
    make_agent(&node, remote()).await;
    let e = entity(1);
    let Command::Post(post) = said(e, "bot", &["hm"]) else { unreachable!() };
    let turn = Some(TurnRequest { agent: "bot".to_owned(), policy: BusyPolicy::Queue });
    node.conversation(e, Command::Post(Post { turn, ..post }), NONE).await.unwrap();
    settle().await;
    assert_eq!((left(&node, e).await, status(&node, e, 1).await.0), (None, TurnStatus::Running));
    sleep(Duration::from_secs(11)).await;
    assert_eq!(status(&node, e, 1).await.0, TurnStatus::Completed);
    let used = node.used(WORKSPACE, Day::of(clock.now())).await.unwrap();
    let of_both = Sum { turns: 1, calls: 2, input_tokens: 2, output_tokens: 2, millicredits: 2 };
    assert_eq!(*used, BTreeMap::from([("bot".to_owned(), of_both)]));
}

#[tokio::test(start_paused = true)]
async fn a_failure_reported_twice_counts_once() {
    let (_gate, node) = with_a_model_that_hangs(1).await;
    let e = entity(0);
    let before = left(&node, e).await.unwrap();
    let failed = || Command::NotRemembered(before);
    node.conversation(e, failed(), NONE).await.unwrap();
    assert!(node.conversation(e, failed(), NONE).await.is_err(), "as whoever has no answer does");
    assert_eq!(left(&node, e).await.unwrap().attempts, before.attempts + 1);
}

/// A node whose agent has a hanging model, and conversations that it is to draw memories from.
async fn with_a_model_that_hangs(conversations: u64) -> (Gate, Arc<Node>) {
    let gate = Gate::new();
    let puppet = Puppet::new(false);
    let node = on(gate.clone(), &TokioClock::start(), Ports::from(Arc::new(Strings(puppet))));
    make_agent(&node, remote()).await;
    for n in 0..conversations {
        node.conversation(entity(n), said(entity(n), "bot", &["My name is Ana"]), NONE).await.unwrap();
    }
    (gate, node)
}

#[tokio::test(start_paused = true)]
async fn a_hanging_model_delays_no_memories_of_other_agents() {
    let (_, node) = with_a_model_that_hangs(100).await;
    node.conversation(entity(100), said(entity(100), "plain", &["I live in Porto"]), NONE).await.unwrap();
    settle().await;
    assert_eq!(texts_of(&node).await, ["I live in Porto"]);
}

#[tokio::test(start_paused = true)]
async fn a_conversation_waiting_for_its_memories_commits_nothing() {
    let (gate, node) = with_a_model_that_hangs(limits::DRAWING_WAITING as u64).await;
    // Until each conversation has noted that its events have no receiver.
    sleep(Duration::from_secs(1)).await;
    let commits = gate.commits();
    sleep(Duration::from_secs(50)).await;
    assert_eq!(gate.commits(), commits, "neither one that has a place nor those that wait, nor who finds no room");
    let asks = alarms::ask(entity(0), node.now().plus(7_000));
    node.conversation(entity(0), asks, NONE).await.unwrap();
    sleep(Duration::from_millis(7_050)).await;
    assert_eq!(alarms::expired(&node, entity(0)).await.len(), 1, "what else is due is done on time");
}

#[tokio::test(start_paused = true)]
async fn an_erased_contact_gets_no_late_memories() {
    let node = on(MemoryStore::default(), &TokioClock::start(), Ports::default());
    let entity_of_ana = ana().entity(WORKSPACE);
    let forget = memories::ForgetAll { subject: ana(), for_good: true };
    node.memories(entity_of_ana, forget, NONE).await.unwrap();
    let e = entity(1);
    node.conversation(e, said(e, "bot", &["My name is Ana"]), NONE).await.unwrap();
    settle().await;
    assert_eq!((texts_of(&node).await, told(&node, e).await), (vec![], vec![]));
    assert_eq!(left(&node, e).await, None);
}

/// Embeddings by a few groups of synonyms.
struct Meanings;

impl Embeddings for Meanings {
    fn model(&self) -> &'static str {
        "meanings"
    }

    fn embed(&self, texts: Vec<String>) -> BoxFuture<'_, Result<Vec<Vec<f32>>, String>> {
        let meanings = [["dog", "pet", "puppy"], ["sea", "ocean", "beach"], ["bread", "bakery", "loaf"]];
        let vector = move |text: &String| {
            let has = |words: &[&str; 3]| words.iter().filter(|word| text.contains(**word)).count() as f32;
            meanings.iter().map(has).collect()
        };
        Box::pin(async move { Ok(texts.iter().map(vector).collect()) })
    }
}

#[tokio::test(start_paused = true)]
async fn memories_are_found_by_what_they_mean_once_that_is_learned() {
    let ports = Ports { embeddings: Some(Arc::new(Meanings)), ..Ports::from(Arc::new(NoModels)) };
    let node = on(MemoryStore::default(), &TokioClock::start(), ports);
    let e = entity(1);
    let words = ["I like my dog", "I love the ocean", "I hate stale bread"];
    node.conversation(e, said(e, "bot", &words), NONE).await.unwrap();
    settle().await;
    let entity = ana().entity(WORKSPACE);
    let asked = async || {
        let found = search(&node, entity, &ana(), "any pet?", 5).await.unwrap();
        found.into_iter().map(|(memory, _)| memory.text).collect::<Vec<_>>()
    };
    assert_eq!(asked().await, [""; 0], "no word of it stands there, and nothing is learned yet");
    settle().await;
    assert_eq!(asked().await, ["I like my dog"]);
    let state = node.state::<Conversation>(e).await.unwrap().unwrap();
    let told = recall(&node, e, &state, "a pet", 2).await.unwrap();
    assert_eq!(told.iter().map(|told| told.text.as_str()).collect::<Vec<_>>(), ["I like my dog", "I love the ocean"]);
    let calls = node.metrics().embeddings.of(ModelOperation::Embeddings).of(ModelProvider::OpenAi);
    let [answered, late] = [None, Some("timeout")].map(|error| calls.of(ModelError::of(error)).used().snapshot());
    assert!(answered.count() >= 3 && late.count() == 0, "each call is counted, by how it ended");
}
