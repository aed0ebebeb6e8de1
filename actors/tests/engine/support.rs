//! Shared by the tests: nodes, commands, and stores and models that a test controls.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use actors::agent::{Agent, Completion, ModelOutput, Models, NoModels, Prompt, Provider};
use actors::clock::{Clock, Entropy, ManualClock, Millis};
use actors::codec;
use actors::conversation::{
    BusyPolicy, Command, Conversation, Event, Opening, Origin, Post, Rejection, Reply, TurnRequest, TurnStatus, Usage,
    message_of,
};
use actors::directory::{Answer, Bounds, CommandContext, KeyUse, Refusal};
use actors::id::{Address, ConversationId, EntityKey};
use actors::key::{Principal, PrincipalKind};
use actors::machine::{Change, Decision, DecisionContext, Effects, Machine, Need, ReadSet, Record, Undecided};
use actors::message::{Content, Message, NewMessage, Sender, SenderKind};
use actors::node::Node;
use actors::registry::{self, RowChange};
use actors::store::{Fingerprint, KeyHash, Order, SeqRange, Store, Table};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

mod gate;

pub(crate) use gate::{Gate, Rule};

pub(crate) const NOW: Millis = Millis(1_763_000_000_000);
pub(crate) const WORKSPACE: Address = Address([1; 10]);

pub(crate) type ConversationRefusal = Refusal<Rejection>;

pub(crate) fn entity(n: u64) -> EntityKey {
    EntityKey::conversation(WORKSPACE, Address::derive("test", &[&n.to_le_bytes()]))
}

pub(crate) fn entropy() -> Entropy {
    static NODES: AtomicUsize = AtomicUsize::new(0);
    let mut seed = [7; 32];
    seed[..8].copy_from_slice(&(NODES.fetch_add(1, Ordering::SeqCst) as u64).to_le_bytes());
    Entropy::seeded(seed)
}

/// No entity may stay resident.
pub(crate) const NONE: Bounds = Bounds { idle_millis: 0, actors: 0, entities: 0 };
/// No actor may stay, but what it knows may.
pub(crate) const NO_ACTORS: Bounds = Bounds { idle_millis: u64::MAX, actors: 0, entities: usize::MAX };

pub(crate) fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(NOW))
}

pub(crate) fn node_on(store: impl Store) -> Arc<Node> {
    Node::start(Arc::new(store), clock(), entropy(), Arc::new(NoModels))
}

/// Shares a store with its node, so that a test can inspect or change it meanwhile.
pub(crate) fn node_over<S: Store>(store: &Arc<S>) -> Arc<Node> {
    let store: Arc<S> = Arc::clone(store);
    Node::start(store, clock(), entropy(), Arc::new(NoModels))
}

/// The same with this clock, which several nodes can share.
pub(crate) fn node_by<S: Store>(store: &Arc<S>, clock: &Arc<TokioClock>) -> Arc<Node> {
    let (store, clock): (Arc<S>, Arc<TokioClock>) = (Arc::clone(store), Arc::clone(clock));
    Node::start(store, clock, entropy(), Arc::new(NoModels))
}

/// A clock that follows Tokio's, so that paused time drives both.
pub(crate) struct TokioClock(tokio::time::Instant, AtomicU64);

impl TokioClock {
    pub(crate) fn start() -> Arc<Self> {
        Arc::new(Self(tokio::time::Instant::now(), AtomicU64::new(0)))
    }

    /// Sets the clock back by so much.
    pub(crate) fn set_back(&self, millis: u64) {
        self.1.fetch_add(millis, Ordering::SeqCst);
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Millis {
        Millis(NOW.plus(self.0.elapsed().as_millis() as u64).0 - self.1.load(Ordering::SeqCst))
    }
}

/// Lets all work run that waits for nothing; time must be paused.
pub(crate) async fn settle() {
    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
}

pub(crate) fn opening(entity: EntityKey) -> Opening {
    Opening {
        id: ConversationId::new(NOW, entity.id),
        origin: Origin::Direct,
        owner: None,
        details: actors::conversation::Details::default(),
    }
}

/// A person.
pub(crate) fn user(id: &str) -> Principal {
    Principal { kind: PrincipalKind::User, id: id.to_owned() }
}

pub(crate) fn content(text: &str) -> Content {
    Content::text("user", Sender { kind: SenderKind::User, id: "ana".to_owned() }, text)
}

pub(crate) fn post_of(entity: EntityKey, content: Content) -> Command {
    let message = NewMessage { content: Arc::new(content), parent: None, review_millis: None };
    Command::Post(Post { opening: Some(opening(entity)), expected: None, messages: vec![message], turn: None })
}

pub(crate) fn post(entity: EntityKey, text: &str) -> Command {
    post_of(entity, content(text))
}

pub(crate) fn post_with_turn(entity: EntityKey, text: &str) -> Command {
    post_with_turn_of(entity, text, "bot")
}

pub(crate) fn post_with_turn_of(entity: EntityKey, text: &str, agent: &str) -> Command {
    let Command::Post(post) = post(entity, text) else { unreachable!() };
    Command::Post(Post { turn: Some(TurnRequest { agent: agent.to_owned(), policy: BusyPolicy::Queue }), ..post })
}

pub(crate) fn key(key: u64, request: u64) -> CommandContext {
    let bytes = |n: u64| {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&n.to_le_bytes());
        bytes
    };
    CommandContext { key: Some(KeyUse::within(KeyHash(bytes(key)), Fingerprint(bytes(request)))), trace: None }
}

/// The messages in an answer.
pub(crate) fn messages(answer: Answer<Reply>) -> Vec<Message> {
    match answer {
        Answer::Done(Reply::Posted(posted)) => posted.messages,
        other => panic!("{other:?}"),
    }
}

/// The whole log, checked for gaps and for decreasing times.
pub(crate) async fn log(node: &Node, entity: EntityKey) -> Vec<Record<Event>> {
    let records = node.events::<Conversation>(entity, SeqRange::ALL, Order::Asc, 1_000_000).await.unwrap();
    for (i, record) in records.iter().enumerate() {
        assert_eq!(record.seq, i as u64 + 1, "I2: sequences have no gaps");
    }
    assert!(records.windows(2).all(|pair| pair[0].at <= pair[1].at), "time does not run backwards");
    records
}

/// The message texts in the log, with their sequences.
pub(crate) async fn texts(node: &Node, entity: EntityKey) -> Vec<(u64, String)> {
    let messages = log(node, entity).await.into_iter().filter_map(|record| message_of(&record));
    messages.map(|message| (message.id.number, message.content.text.clone().unwrap())).collect()
}

/// A turn's status, and how often it was tried.
pub(crate) async fn status(node: &Node, entity: EntityKey, number: u64) -> (TurnStatus, u32) {
    let turn = node.turn(entity, number).await.unwrap().unwrap();
    (turn.status, turn.attempt)
}

/// Creates the agent `bot`, with this provider of its model.
pub(crate) async fn make_agent(node: &Arc<Node>, provider: Provider) {
    let agent = Agent::new("bot", "Bot", provider, NOW);
    put(node, actors::tables::AGENTS, b"bot", codec::encode(&agent)).await;
}

pub(crate) async fn put(node: &Arc<Node>, table: Table, key: &[u8], value: Bytes) {
    let changes = vec![RowChange::put(table, key, &value)];
    let command = registry::Command { expected: Vec::new(), changes };
    node.registry(EntityKey::workspace(WORKSPACE), command, CommandContext::default()).await.unwrap();
}

pub(crate) fn remote() -> Provider {
    Provider::OpenAi { base_url: "https://api.example.com/v1".to_owned(), api_key: None }
}

/// A model that answers once a test allows it.
#[derive(Debug)]
pub(crate) struct Puppet {
    pub(crate) asked: AtomicUsize,
    may_answer: watch::Sender<bool>,
}

impl Puppet {
    pub(crate) fn new(may_answer: bool) -> Arc<Self> {
        Arc::new(Self { asked: AtomicUsize::new(0), may_answer: watch::Sender::new(may_answer) })
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    pub(crate) fn may_answer(&self) {
        self.may_answer.send_replace(true);
    }
}

/// A local type, for which [`Models`] can be implemented: the puppet is shared with the test.
#[derive(Debug)]
pub(crate) struct Strings(pub(crate) Arc<Puppet>);

impl Models for Strings {
    fn complete(&self, prompt: Prompt) -> BoxFuture<'_, Completion> {
        self.0.asked.fetch_add(1, Ordering::SeqCst);
        let mut may_answer = self.0.may_answer.subscribe();
        Box::pin(async move {
            let _ = may_answer.wait_for(|may| *may).await;
            let last = prompt.messages.last().map(|message| message.text.clone()).unwrap_or_default();
            assert_ne!(last, "make the model panic");
            let usage = Usage { input_tokens: 1, output_tokens: 1, millicredits: 1, model: "puppet".to_owned() };
            Ok(ModelOutput { replies: vec![format!("re: {last}")], calls: Vec::new(), usage })
        })
    }
}

/// A machine that adds numbers, which also give the weight of a command, and panics on a command without one.
#[derive(Debug)]
pub(crate) struct Bomb;

#[derive(Clone, Debug, PartialEq, minicbor::Encode, minicbor::Decode)]
pub(crate) struct Count(#[n(0)] pub(crate) u64);

impl Machine for Bomb {
    type State = Count;
    type Event = Count;
    type Command = Option<u64>;
    type Reply = u64;
    type Rejection = ();

    fn needs(_: Option<&Count>, _: &Option<u64>) -> Vec<Need> {
        Vec::new()
    }

    fn decide(
        state: Option<&Count>,
        command: &Option<u64>,
        _: &DecisionContext,
        _: &ReadSet,
    ) -> Result<Decision<Self>, Undecided> {
        let add = command.expect("told to panic");
        let count = state.map_or(0, |count| count.0) + add;
        Ok(Decision::Change(Change::new(vec![Count(count)], count)))
    }

    fn apply(state: &mut Option<Count>, record: &Record<Count>) {
        *state = Some(record.event.clone());
    }

    fn is_event(_: &Count) -> bool {
        true
    }

    fn alarm(_: &Count) -> Option<Millis> {
        None
    }

    fn weight(command: &Option<u64>) -> usize {
        command.unwrap_or_default() as usize
    }
}

impl Effects for Bomb {
    fn on_alarm(_: &Arc<Node>, _: EntityKey, _: &Count) -> Option<u64> {
        Some(0)
    }

    fn committed(_: &Arc<Node>, _: EntityKey, _: &Count, _: &[Arc<Record<Self::Event>>]) {}
}
