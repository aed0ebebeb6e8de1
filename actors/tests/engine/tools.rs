//! Turns that wait for people, across two conversations and through every fault.

use std::sync::Arc;
use std::time::Duration;

use actors::agent::Provider;
use actors::agent::builtin::{Behaviour, Builtin, ScriptEntry};
use actors::channel::{Channel, ChannelKind, conversation_of};
use actors::codec;
use actors::conversation::{
    BusyPolicy, Command, Conversation, Event, Post, Posted, Reply, TurnRequest, TurnStatus, message_of,
};
use actors::directory::{Answer, CommandContext, Refusal};
use actors::id::{EntityKey, MessageId};
use actors::memories::recall::Remembered;
use actors::message::{Content, Json, Message, Review, ReviewState, ReviewStatus};
use actors::node::Node;
use actors::ports::Ports;
use actors::store::faulty::{FaultyStore, Rates};
use actors::store::memory::MemoryStore;
use actors::store::{KeyRange, Order, Scan, Store};
use actors::tables::{CALLS, CHANNELS, ERRANDS};
use actors::tool::{Ask, Called, Invocation, Plan, Tools};
use tokio::time::sleep;

use crate::support::*;

/// Every call asks the people of the channel `people`.
pub(crate) struct AskPeople;

impl Tools for AskPeople {
    fn plan(&self, _: &Invocation) -> Plan {
        let review = Review {
            kind: "approval".to_owned(),
            payload: None,
            callback: None,
            expires_at: NOW,
            on_expire: None,
            quorum: None,
            asker: None,
            place: None,
        };
        let content = Content { review: Some(review), ..content("may I?") };
        Plan::Ask(Box::new(Ask { channel: "people".to_owned(), content, review_millis: Some(3_600_000) }))
    }

    fn recorded(&self, _: &[Invocation]) -> Json {
        Json::from_checked("[{}]")
    }

    fn ids_of(&self, _: &Json) -> Vec<String> {
        Vec::new()
    }

    fn answered(&self, _: &Json) -> Option<String> {
        None
    }

    fn files_of(&self, _: &Json) -> Vec<String> {
        Vec::new()
    }

    fn scripted(&self, _: &Json) -> Called {
        Called { id: None, name: "request_review".to_owned(), arguments: "{}".to_owned() }
    }

    fn reviewed(&self, state: &ReviewState) -> String {
        format!("{:?}", state.status)
    }

    fn remembered(&self, _: &[Remembered]) -> String {
        String::new()
    }

    fn failed(&self, code: &str, _: &str) -> String {
        code.to_owned()
    }
}

pub(crate) fn people() -> EntityKey {
    conversation_of(WORKSPACE, "people", 0)
}

/// A node whose agent asks people when it hears `ask`, and then says `done`.
async fn asking(store: Arc<dyn Store>) -> Arc<Node> {
    let ports = Ports { tools: Arc::new(AskPeople), ..Ports::default() };
    Node::start(store, TokioClock::start(), entropy(), ports)
}

pub(crate) async fn configure(node: &Arc<Node>) {
    let call = Some(Json::from_checked("{}"));
    let script = vec![ScriptEntry { on: "ask".to_owned(), reply: vec!["done".to_owned()], tool_call: call }];
    let builtin = Builtin { behaviour: Behaviour::Scripted, script, ..Builtin::default() };
    make_agent(node, Provider::Builtin(builtin)).await;
    let channel = Channel {
        id: "people".to_owned(),
        name: "People".to_owned(),
        kind: ChannelKind::Human,
        agent: None,
        busy_policy: BusyPolicy::Queue,
        enabled: true,
        webhook_url: None,
        webhook_secret: String::new(),
        review_defaults: None,
        review_seconds: None,
        created_at: NOW,
        updated_at: None,
        retired_secret: None,
        routed_at: None,
        retired_earlier: None,
        life: None,
    };
    put(node, CHANNELS, b"people", codec::encode(&channel)).await;
}

async fn all_messages(node: &Node, e: EntityKey) -> Vec<Message> {
    log(node, e).await.iter().filter_map(message_of).collect()
}

/// The reviews that people were asked for, oldest first.
pub(crate) async fn questions(node: &Node) -> Vec<MessageId> {
    all_messages(node, people()).await.into_iter().map(|message| message.id).collect()
}

/// Repeats the command until it is done or refused.
async fn persist(node: &Arc<Node>, e: EntityKey, command: impl Fn() -> Command, context: CommandContext) -> bool {
    loop {
        match node.conversation(e, command(), context).await {
            Ok(Answer::Done(_) | Answer::Repeat(_)) => return true,
            Err(Refusal::Unavailable(_) | Refusal::Unknown(_)) => {}
            Err(Refusal::Rejected(_)) => return false,
            Err(other) => panic!("{other}"),
        }
    }
}

pub(crate) fn approve(message: MessageId) -> Command {
    let response = Json::from_checked("{}");
    let principal = user("ana");
    Command::Respond(actors::conversation::review::Response {
        message,
        response,
        alike: None,
        feedback: None,
        principal,
    })
}

async fn turn_status(node: &Node, e: EntityKey, number: u64) -> TurnStatus {
    node.turn(e, number).await.unwrap().unwrap().status
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_waits_holds_no_task() {
    let store = Arc::new(MemoryStore::default());
    let node = asking(store).await;
    configure(&node).await;
    let e = entity(1);
    node.conversation(e, post_with_turn(e, "ask"), CommandContext::default()).await.unwrap();
    settle().await;
    assert_eq!((turn_status(&node, e, 1).await, node.running_turns()), (TurnStatus::AwaitingReview, 0));
    sleep(Duration::from_secs(1_000)).await;
    assert_eq!(node.running_turns(), 0);
    let resident = node.resident();
    assert!(resident <= 3, "{resident} entities stay in memory for a turn that waits");
    let [review] = questions(&node).await[..] else { panic!("people are asked once") };
    node.conversation(people(), approve(review), CommandContext::default()).await.unwrap();
    settle().await;
    assert_eq!(turn_status(&node, e, 1).await, TurnStatus::Completed);
    let words: Vec<_> = all_messages(&node, e).await.iter().map(|m| m.content.text.clone().unwrap()).collect();
    assert_eq!(words, ["ask", "", "Completed", "done"]);
    let errands = node.rows(people(), ERRANDS, Scan::new(KeyRange::default(), Order::Asc, 9)).await.unwrap();
    assert_eq!(errands, [], "what was told is struck off");
}

#[tokio::test(start_paused = true)]
async fn a_waiting_turn_finds_a_review_whose_outcome_was_not_announced() {
    let node = asking(Arc::new(MemoryStore::default())).await;
    configure(&node).await;
    let e = entity(1);
    node.conversation(e, post_with_turn(e, "ask"), CommandContext::default()).await.unwrap();
    settle().await;
    let [review] = questions(&node).await[..] else { panic!("people are asked once") };
    // The errand is removed before it can run, as if it had been lost.
    let (answered, struck) =
        tokio::join!(node.conversation(people(), approve(review), CommandContext::default()), async {
            let key = [b"t".as_slice(), &review.number.to_be_bytes()].concat();
            let command = Command::ErrandsRun { keys: vec![key.into()] };
            node.conversation(people(), command, CommandContext::default()).await
        });
    answered.unwrap();
    struck.unwrap();
    sleep(Duration::from_secs(130)).await;
    assert_eq!(turn_status(&node, e, 1).await, TurnStatus::Completed);
}

#[tokio::test(start_paused = true)]
async fn a_review_is_raised_and_answered_once_through_every_fault() {
    for seed in 0..12 {
        let store = Arc::new(FaultyStore::new(MemoryStore::default(), seed, Rates::default()));
        let node = asking(Arc::clone(&store) as Arc<dyn Store>).await;
        configure(&node).await;
        store.set_rates(Rates::OFTEN);
        for n in 0..4 {
            for turn in 0..3 {
                let e = entity(n);
                assert!(persist(&node, e, || post_with_turn(e, "ask"), key(turn, 0)).await);
            }
        }
        for round in 0..200 {
            sleep(Duration::from_secs(5)).await;
            store.calm();
            let reviews = questions(&node).await;
            store.set_rates(if round < 100 { Rates::OFTEN } else { Rates::default() });
            for review in reviews {
                persist(&node, people(), || approve(review), CommandContext::default()).await;
            }
        }
        store.calm();
        sleep(Duration::from_secs(200)).await;
        let mut turns_that_asked = 0;
        for e in (0..4).map(entity) {
            let state = node.state::<Conversation>(e).await.unwrap().unwrap();
            assert!(state.running.is_none() && state.queued.is_empty(), "seed {seed}: every turn ends");
            assert_eq!(state.errands_at, None, "seed {seed}");
            let calls = node.rows(e, CALLS, Scan::new(KeyRange::default(), Order::Asc, 9)).await.unwrap();
            assert_eq!(calls, [], "seed {seed}: no call is left open");
            let messages = all_messages(&node, e).await;
            let count = |role: &str, text: &str| {
                let is = |m: &&Message| m.content.role == role && m.content.text.as_deref() == Some(text);
                messages.iter().filter(is).count()
            };
            let called = messages.iter().filter(|m| m.content.tool_calls.is_some()).count();
            let results = messages.iter().filter(|m| m.content.role == "tool").count();
            assert_eq!(called, results, "seed {seed}: each call has one result");
            let mut completed = 0;
            for number in 1..=3 {
                completed += usize::from(turn_status(&node, e, number).await == TurnStatus::Completed);
            }
            assert_eq!(count("assistant", "done"), completed, "seed {seed}: one reply for each turn");
            assert_eq!(completed, 3, "seed {seed}: none is given up");
            turns_that_asked += called;
        }
        let mut states = Vec::new();
        for record in log(&node, people()).await {
            if let Event::ReviewCompleted(end) | Event::ReviewExpired(end) | Event::ReviewCancelled(end) = record.event
            {
                states.push(end.state.status);
            }
        }
        let reviews = questions(&node).await.len();
        assert!(reviews <= turns_that_asked, "seed {seed}: {reviews} were asked for {turns_that_asked} calls");
        assert_eq!(states.len(), reviews, "seed {seed}: nobody is asked for nothing");
        assert!(states.iter().filter(|status| **status == ReviewStatus::Completed).count() >= 8, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn turns_of_one_conversation_wait_behind_the_one_that_waits_for_people() {
    let node = asking(Arc::new(MemoryStore::default())).await;
    configure(&node).await;
    let e = entity(1);
    node.conversation(e, post_with_turn(e, "ask"), CommandContext::default()).await.unwrap();
    settle().await;
    let Command::Post(post) = post_with_turn(e, "hello") else { unreachable!() };
    let turn = Some(TurnRequest { agent: "bot".to_owned(), policy: BusyPolicy::Reject });
    let refused = node.conversation(e, Command::Post(Post { turn, ..post }), CommandContext::default()).await;
    assert!(matches!(refused, Err(Refusal::Rejected(actors::conversation::Rejection::TurnInProgress))));
    let answer = node.conversation(e, post_with_turn(e, "hello"), CommandContext::default()).await.unwrap();
    let Answer::Done(Reply::Posted(Posted { turn: Some(turn), .. })) = answer else { panic!("{answer:?}") };
    assert_eq!(turn.status, TurnStatus::Queued);
    let [review] = questions(&node).await[..] else { panic!("people are asked once") };
    node.conversation(people(), approve(review), CommandContext::default()).await.unwrap();
    settle().await;
    let words: Vec<_> = all_messages(&node, e).await.iter().map(|m| m.content.text.clone().unwrap()).collect();
    assert_eq!(words, ["ask", "", "hello", "Completed", "done", "hello"]);
}
