//! Many clients on few conversations, on two processes that each act as the owner of everything, through a faulty
//! network: each acknowledged message is stored once, in order, without gaps.
//!
//! `TERTULIA_HISTORY_ROUNDS` and `TERTULIA_HISTORY_SEED` set the number of rounds and the seed. A round's line says
//! what happened.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::schema::cql::CqlStore;
use actors::agent::NoModels;
use actors::clock::{Entropy, SystemClock};
use actors::conversation::review::Response;
use actors::conversation::{Conversation, Details, Event, Opening, Origin, Post, message_of};
use actors::directory::{Answer, CommandContext, KeyUse, Refusal};
use actors::id::{Address, ConversationId, EntityKey, MessageId};
use actors::key::{Principal, PrincipalKind};
use actors::message::{Content, Json, NewMessage, Review, Sender, SenderKind};
use actors::node::Node;
use actors::random::Random;
use actors::store::{Fingerprint, KeyHash, Order, SeqRange};
use futures_util::future::join_all;
use tokio::sync::watch;

use super::faults::FaultyWay;
use super::support::{migrated, say, setting, store_at};

const KEYSPACE: &str = "cql_histories";
const CLIENTS: u64 = 24;
const CONVERSATIONS: u64 = 4;
/// Operations of each client.
const OPERATIONS: u64 = 16;
/// Operations of all clients.
pub(super) const OPERATIONS_IN_ALL: u64 = CLIENTS * OPERATIONS;
/// The least number of commits that each process makes, retries included; faults are spread over so many.
const FRAMES: u64 = 200;
/// How long a client retries before a missing answer counts as a defect: longer than a driver needs for a new
/// connection on a busy machine.
const HISTORY_TIMEOUT: Duration = Duration::from_secs(90);
/// The pause between two tries. Real servers have no clock that a test could move.
const AGAIN: Duration = Duration::from_millis(2);

/// Pauses, and returns whether there is time for another try: a client that is refused at once must not keep the driver
/// from connecting again.
async fn in_time(late: Instant) -> bool {
    tokio::time::sleep(AGAIN).await;
    Instant::now() < late
}

/// One process with its own proxy to the server.
struct Process {
    way: FaultyWay,
    store: CqlStore,
    node: Arc<Node>,
}

impl Process {
    async fn start(server: &str, keyspace: &str, seed: u64) -> Self {
        let way = FaultyWay::to(server).await;
        let store = store_at(std::slice::from_ref(&way.address), keyspace).await;
        let node = node(&store, seed);
        Self { way, store, node }
    }
}

/// A node whose ids differ from those of other processes, and of other runs on the same keyspace.
pub(super) fn node(store: &CqlStore, seed: u64) -> Arc<Node> {
    let mut bytes = [7; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    Node::start(Arc::new(store.clone()), Arc::new(SystemClock), Entropy::seeded(bytes), Arc::new(NoModels))
}

/// What a client did and what it knows of the outcome.
#[derive(Debug)]
struct Done {
    conversation: u64,
    text: String,
    began: Instant,
    ended: Instant,
    known: Known,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// It is in the log, at this sequence.
    At(u64),
    /// It is in the log once or not at all.
    Perhaps,
    /// It is not in the log.
    No,
}

/// A review, and the only outcome that the clients were told.
#[derive(Debug)]
struct Decided {
    conversation: u64,
    message: MessageId,
    response: Option<String>,
}

/// The state that the clients share.
pub(super) struct World {
    salt: u64,
    nodes: [Arc<Node>; 2],
    /// The number of operations that have ended.
    ended: watch::Sender<u64>,
}

#[derive(Default)]
pub(super) struct History {
    done: Vec<Done>,
    decided: Vec<Decided>,
    unknown: u64,
}

pub(super) fn post(entity: EntityKey, text: &str, review: Option<Review>) -> Post {
    let sender = Sender { kind: SenderKind::User, id: "ana".to_owned() };
    let content = Content { review, ..Content::text("user", sender, text) };
    let opening = Opening {
        id: ConversationId::new(actors::clock::Millis(1), entity.id),
        origin: Origin::Direct,
        owner: None,
        details: Details::default(),
    };
    let message = NewMessage { content: Arc::new(content), parent: None, review_millis: None };
    Post { opening: Some(opening), expected: None, messages: vec![message], turn: None }
}

impl World {
    /// Clients of these two processes, with conversations that no other run has.
    pub(super) fn new(salt: u64, nodes: [Arc<Node>; 2]) -> Self {
        Self { salt, nodes, ended: watch::Sender::new(0) }
    }

    /// Waits until so many operations have ended.
    pub(super) async fn until(&self, operations: u64) {
        self.ended.subscribe().wait_for(|ended| *ended >= operations).await.unwrap();
    }

    /// Runs all clients.
    pub(super) async fn play(self: &Arc<Self>, random: &mut Random) -> Vec<History> {
        let clients = (0..CLIENTS).map(|number| {
            let random = Random(random.below(u64::MAX >> 33));
            tokio::spawn(Arc::clone(self).client(number, random))
        });
        let clients: Vec<_> = clients.collect();
        join_all(clients).await.into_iter().map(|client| client.unwrap_or_else(|error| panic!("{error}"))).collect()
    }

    /// Compares everything stored with what the clients know; returns the number of messages. `node` took no part
    /// before.
    pub(super) async fn check(&self, node: &Arc<Node>, histories: &[History]) -> usize {
        let after = Self::new(self.salt, [Arc::clone(node), Arc::clone(node)]);
        let mut messages = 0;
        for conversation in 0..CONVERSATIONS {
            // A last message settles late commits.
            let text = format!("the last of {conversation}");
            after.surely(&mut Random(0), conversation, &text, None, &mut History::default()).await;
            let read = read(node, after.entity(conversation)).await;
            check(conversation, &read, histories);
            messages += read.texts.len();
        }
        messages
    }

    pub(super) fn entity(&self, conversation: u64) -> EntityKey {
        let parts = [&self.salt.to_le_bytes()[..], &conversation.to_le_bytes()];
        EntityKey::conversation(Address::derive("history", &parts[..1]), Address::derive("history", &parts))
    }

    pub(super) fn key(&self, text: &str) -> CommandContext {
        let hash = Address::derive("key", &[&self.salt.to_le_bytes(), text.as_bytes()]);
        let mut bytes = [0; 16];
        bytes[..10].copy_from_slice(&hash.0);
        CommandContext { key: Some(KeyUse::within(KeyHash(bytes), Fingerprint(bytes))), trace: None }
    }

    /// Sends once; returns the message's sequence, or what the error says about the message.
    async fn once(
        &self,
        node: usize,
        conversation: u64,
        text: &str,
        review: Option<Review>,
        context: CommandContext,
    ) -> Known {
        let entity = self.entity(conversation);
        let reviewed = u64::from(review.is_some());
        match self.nodes[node].conversation(entity, post(entity, text, review), context).await {
            Ok(Answer::Done(posted)) => Known::At(posted.messages[0].id.number),
            Ok(Answer::Repeat(events)) => Known::At(events.last - reviewed),
            Err(Refusal::Unknown(_)) => Known::Perhaps,
            Err(Refusal::Unavailable(_) | Refusal::Backlog | Refusal::Overloaded) => Known::No,
            other => panic!("{text}: {other:?}"),
        }
    }

    /// Sends with a key, to either node or to both at once, until the message's sequence is known.
    async fn surely(
        &self,
        random: &mut Random,
        conversation: u64,
        text: &str,
        review: Option<&Review>,
        history: &mut History,
    ) -> u64 {
        let late = Instant::now() + HISTORY_TIMEOUT;
        while in_time(late).await {
            let nodes: &[usize] = match random.below(3) {
                0 => &[0],
                1 => &[1],
                _ => &[0, 1],
            };
            let tries = nodes.iter().map(|node| self.once(*node, conversation, text, review.cloned(), self.key(text)));
            let known = join_all(tries).await;
            history.unknown += known.iter().filter(|known| **known == Known::Perhaps).count() as u64;
            let places: BTreeSet<u64> =
                known.iter().filter_map(|known| if let Known::At(seq) = known { Some(*seq) } else { None }).collect();
            assert!(places.len() <= 1, "{text}: one key, {places:?}");
            if let Some(place) = places.first() {
                return *place;
            }
        }
        panic!("{text} is never answered");
    }

    /// Asks for a review, and has both nodes decide it at once, each differently.
    async fn review(&self, random: &mut Random, conversation: u64, text: &str, history: &mut History) -> u64 {
        let review = Review {
            kind: "approval".to_owned(),
            payload: None,
            callback: None,
            expires_at: actors::clock::Clock::now(&SystemClock).plus(3_600_000),
            on_expire: None,
            quorum: None,
            asker: None,
            place: None,
        };
        let seq = self.surely(random, conversation, text, Some(&review), history).await;
        let message = self.message(conversation, seq).await;
        let mut told: BTreeSet<String> = BTreeSet::new();
        let late = Instant::now() + HISTORY_TIMEOUT;
        while in_time(late).await {
            let answers = [0, 1].map(|node| self.respond(node, conversation, message, text));
            for answer in join_all(answers).await {
                match answer {
                    Ok(response) => drop(told.insert(response)),
                    Err(is_unknown) => history.unknown += u64::from(is_unknown),
                }
            }
            if !told.is_empty() {
                break;
            }
        }
        assert_eq!(told.len(), 1, "I4: {text}: everybody is told the same outcome, {told:?}");
        history.decided.push(Decided { conversation, message, response: told.pop_first() });
        seq
    }

    /// The id of a message, from the log.
    async fn message(&self, conversation: u64, seq: u64) -> MessageId {
        let late = Instant::now() + HISTORY_TIMEOUT;
        while in_time(late).await {
            let read = self.nodes[0]
                .events::<Conversation>(self.entity(conversation), SeqRange::one(seq), Order::Asc, 1)
                .await;
            if let Some(record) = read.ok().and_then(|records| records.into_iter().next()) {
                return message_of(&record).unwrap().id;
            }
        }
        panic!("{seq} is never read");
    }

    /// The outcome of the review at this decision; an error where there is none yet, `true` if it is unknown.
    async fn respond(&self, node: usize, conversation: u64, message: MessageId, text: &str) -> Result<String, bool> {
        let response = Response {
            message,
            response: Json::from_checked(format!("{{\"selectedOption\":\"{node}\"}}")),
            alike: None,
            feedback: None,
            principal: Principal { kind: PrincipalKind::User, id: format!("decider {node}") },
        };
        let entity = self.entity(conversation);
        match self.nodes[node].conversation(entity, response, CommandContext::default()).await {
            Ok(Answer::Done(state)) => Ok(state.response.unwrap().as_str().to_owned()),
            Err(Refusal::Rejected(actors::conversation::Rejection::ReviewOver(state))) => {
                Ok(state.response.unwrap().as_str().to_owned())
            }
            Err(Refusal::Unknown(_)) => Err(true),
            Err(Refusal::Unavailable(_) | Refusal::Backlog | Refusal::Overloaded) => Err(false),
            other => panic!("{text}: {other:?}"),
        }
    }

    /// Checks that no message sent now is acknowledged and that its sender may retry later.
    pub(super) async fn is_refused(&self, text: &str) {
        for conversation in 0..CONVERSATIONS {
            let known = self.once(0, conversation, text, None, self.key(text)).await;
            assert!(!matches!(known, Known::At(_)), "{known:?}");
        }
    }

    /// Checks that messages sent now are acknowledged in the end.
    pub(super) async fn is_accepted(&self, text: &str) {
        for conversation in 0..CONVERSATIONS {
            self.surely(&mut Random(1), conversation, text, None, &mut History::default()).await;
        }
    }

    async fn client(self: Arc<Self>, number: u64, mut random: Random) -> History {
        let mut history = History::default();
        for operation in 0..OPERATIONS {
            let conversation = random.below(CONVERSATIONS);
            let text = format!("client {number}, message {operation}");
            let began = Instant::now();
            let known = match random.below(8) {
                0 => self.once(random.below(2) as usize, conversation, &text, None, CommandContext::default()).await,
                1 => Known::At(self.review(&mut random, conversation, &text, &mut history).await),
                _ => Known::At(self.surely(&mut random, conversation, &text, None, &mut history).await),
            };
            history.unknown += u64::from(known == Known::Perhaps);
            history.done.push(Done { conversation, text, began, ended: Instant::now(), known });
            self.ended.send_modify(|ended| *ended += 1);
        }
        history
    }
}

/// The content of a conversation at the end, read by a node that took no part.
struct Final {
    /// Texts by sequence.
    texts: BTreeMap<u64, String>,
    /// Responses by review, each as often as it was made.
    outcomes: Vec<(MessageId, String)>,
}

async fn read(node: &Node, entity: EntityKey) -> Final {
    let records = node.events::<Conversation>(entity, SeqRange::ALL, Order::Asc, 1_000_000).await.unwrap();
    let mut read = Final { texts: BTreeMap::new(), outcomes: Vec::new() };
    for (seq, record) in (1..).zip(&records) {
        assert_eq!(record.seq, seq, "I2: {entity:?} has no gaps");
        if let Some(message) = message_of(record) {
            read.texts.insert(seq, message.content.text.clone().unwrap());
        }
        if let Event::ReviewCompleted(end) = &record.event {
            read.outcomes.push((end.message, end.state.response.as_ref().unwrap().as_str().to_owned()));
        }
    }
    read
}

/// The content matches what the clients know, in an order that fits what they saw.
fn check(conversation: u64, read: &Final, histories: &[History]) {
    let distinct: BTreeSet<&String> = read.texts.values().collect();
    assert_eq!(distinct.len(), read.texts.len(), "I3: nothing is doubled");
    let places: BTreeMap<&String, u64> = read.texts.iter().map(|(seq, text)| (text, *seq)).collect();
    let done: Vec<&Done> =
        histories.iter().flat_map(|history| &history.done).filter(|done| done.conversation == conversation).collect();
    for done in &done {
        let found = places.get(&done.text).copied();
        match done.known {
            Known::At(seq) => assert_eq!(found, Some(seq), "I1: {}", done.text),
            Known::No => assert_eq!(found, None, "I7: {}", done.text),
            Known::Perhaps => {}
        }
    }
    // Linearizable: a message sent after another one was acknowledged has a higher sequence.
    let mut by_end: Vec<(Instant, u64)> =
        done.iter().filter_map(|done| at(done).map(|seq| (done.ended, seq))).collect();
    by_end.sort();
    let mut by_begin = done.clone();
    by_begin.sort_by_key(|done| done.began);
    let mut ended = by_end.into_iter().peekable();
    let mut newest = 0;
    for done in by_begin {
        while let Some((_, seq)) = ended.next_if(|(end, _)| *end < done.began) {
            newest = newest.max(seq);
        }
        assert!(at(done).is_none_or(|seq| seq > newest), "{} stands before what came first", done.text);
    }
    for decided in histories.iter().flat_map(|history| &history.decided).filter(|d| d.conversation == conversation) {
        let outcomes: Vec<&String> =
            read.outcomes.iter().filter(|(of, _)| *of == decided.message).map(|(_, response)| response).collect();
        assert_eq!(outcomes, decided.response.iter().collect::<Vec<_>>(), "I4: one outcome, the one that was told");
    }
}

fn at(done: &Done) -> Option<u64> {
    if let Known::At(seq) = done.known { Some(seq) } else { None }
}

/// Runs one history; returns its line.
async fn history(server: &str, keyspace: &str, seed: u64) -> String {
    let mut random = Random(seed);
    // Earlier runs on this keyspace used other conversations.
    let salt = Random::unforeseen();
    let mut processes =
        [Process::start(server, keyspace, salt).await, Process::start(server, keyspace, salt + 1).await];
    for process in &mut processes {
        process.way.begin(&mut random, FRAMES);
    }
    let nodes = [Arc::clone(&processes[0].node), Arc::clone(&processes[1].node)];
    let world = Arc::new(World::new(salt, nodes));
    let histories = world.play(&mut random).await;
    for process in &mut processes {
        process.way.end();
    }
    let reader = node(&store_at(&[server.to_owned()], keyspace).await, salt + 2);
    let messages = world.check(&reader, &histories).await;
    let mut line = format!("history: seed {seed}: {};", summary(&histories, messages));
    for (process, name) in processes.iter().zip(["one", "other"]) {
        line +=
            &format!(" faults on the way of {name} {:?}, its store {:?};", process.way.done(), process.store.counts());
    }
    line
}

/// Summarizes what was done and found, after the check.
pub(super) fn summary(histories: &[History], messages: usize) -> String {
    let unknown: u64 = histories.iter().map(|history| history.unknown).sum();
    let reviews: usize = histories.iter().map(|history| history.decided.len()).sum();
    format!(
        "{CLIENTS} clients, 2 processes, {CONVERSATIONS} conversations, {OPERATIONS_IN_ALL} operations, {messages} \
         messages, {reviews} reviews, {unknown} answers unknown to clients and all settled: 0 lost, 0 doubled, 0 gaps"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_records_are_there_once_and_in_order_after_faults() {
    let Some(server) = bed::server() else { return };
    let rounds = setting("TERTULIA_HISTORY_ROUNDS", 1);
    let seed = setting("TERTULIA_HISTORY_SEED", 1);
    migrated(server.nodes(), KEYSPACE).await;
    for seed in seed..seed + rounds {
        say(&history(&server.nodes()[0], KEYSPACE, seed).await);
    }
}
