//! An event that cannot be read delays nothing unrelated to it.

use std::sync::Arc;
use std::time::Duration;

use actors::conversation::{
    CancelTurn, Command, Conversation, Erase, Event, Forked, Forking, TurnStatus, message_of, number_key,
};
use actors::directory::{Answer, CommandContext};
use actors::id::EntityKey;
use actors::memories::recall::all;
use actors::memories::{self, Edit, Subject};
use actors::message::Content;
use actors::node::Node;
use actors::ports::Ports;
use actors::store::conformance::{commit, on};
use actors::store::{Commit, KeyRange, Order, ReadLevel, Row, RowWrite, Scan, Store as _};
use actors::tables::{CALLS, DEADLINES, ERRANDS, MEMORIES, OVERLAYS};
use actors::workflows::fork;
use bytes::Bytes;
use tokio::time::sleep;
use tracing::Level;

use crate::alarms::{ask, expired};
use crate::lines::Lines;
use crate::support::*;
use crate::tools::{AskPeople, approve, configure, people, questions};

const NONE: CommandContext = CommandContext { key: None, trace: None };
const HOUR: Duration = Duration::from_secs(3_600);

#[tokio::test(start_paused = true)]
async fn a_review_that_cannot_be_read_keeps_no_other_from_expiring() {
    let (lines, _catching) = Lines::catch();
    let gate = Gate::new();
    let node = node_by(&Arc::new(gate.clone()), &TokioClock::start());
    let e = entity(1);
    for millis in [1_000, 2_000, 60_000] {
        node.conversation(e, ask(e, NOW.plus(millis)), NONE).await.unwrap();
    }
    gate.damage(Some(2));
    sleep(Duration::from_secs(100)).await;
    let before = gate.commits();
    sleep(HOUR).await;
    assert_eq!(gate.commits(), before, "nothing is left to be done");
    gate.damage(None);
    let log = log(&node, e).await;
    let expired = log.iter().filter_map(|record| match &record.event {
        Event::ReviewExpired(end) => Some(end.message.number),
        _ => None,
    });
    assert_eq!(expired.collect::<Vec<_>>(), [4, 6]);
    assert_eq!(lines.of(Level::ERROR, "").len(), 1, "it is said once");
    assert_eq!(lines.of(Level::ERROR, "an expired review cannot be read").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_review_whose_state_is_damaged_keeps_no_other_from_expiring() {
    let (lines, _catching) = Lines::catch();
    let gate = Gate::new();
    let node = node_by(&Arc::new(gate.clone()), &TokioClock::start());
    let e = entity(1);
    for millis in [1_000, 2_000, 60_000] {
        node.conversation(e, ask(e, NOW.plus(millis)), NONE).await.unwrap();
    }
    gate.damage_row(OVERLAYS, number_key(2));
    sleep(Duration::from_secs(100)).await;
    let before = gate.commits();
    sleep(HOUR).await;
    assert_eq!(gate.commits(), before, "nothing is left to be done");
    assert_eq!(expired(&node, e).await.len(), 2);
    assert_eq!(lines.of(Level::ERROR, "").len(), 1, "it is said once");
    assert_eq!(lines.of(Level::ERROR, "an expired review cannot be read").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn due_work_that_needs_what_is_damaged_is_an_error_of_the_log_once_a_minute() {
    let (lines, _catching) = Lines::catch();
    let gate = Gate::new();
    let node = node_by(&Arc::new(gate.clone()), &TokioClock::start());
    let e = entity(1);
    node.conversation(e, ask(e, NOW.plus(1_000)), NONE).await.unwrap();
    gate.damage_rows(DEADLINES);
    sleep(HOUR).await;
    let said = lines.of(Level::ERROR, "");
    assert!((58..=61).contains(&said.len()), "{}", said.len());
    assert!(said.iter().all(|line| line.contains("due work of an entity cannot be done")), "{said:?}");
    gate.mend_rows();
    sleep(Duration::from_secs(10)).await;
    assert_eq!(expired(&node, e).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn due_work_that_an_unavailable_store_refuses_is_in_the_log() {
    let (lines, _catching) = Lines::catch();
    let gate = Gate::new();
    let node = node_by(&Arc::new(gate.clone()), &TokioClock::start());
    let e = entity(1);
    node.conversation(e, ask(e, NOW.plus(1_000)), NONE).await.unwrap();
    gate.lose_rows(DEADLINES, 2);
    sleep(Duration::from_secs(10)).await;
    assert_eq!(expired(&node, e).await.len(), 1);
    assert!(!lines.of(Level::WARN, "could not do the due work of an entity").is_empty());
}

/// A node whose agent asks people, with a turn that waits for their answer.
async fn waiting(gate: &Gate) -> Arc<Node> {
    let ports = Ports { tools: Arc::new(AskPeople), ..Ports::default() };
    let node = Node::start(Arc::new(gate.clone()), TokioClock::start(), entropy(), ports);
    configure(&node).await;
    node.conversation(entity(1), post_with_turn(entity(1), "ask"), NONE).await.unwrap();
    settle().await;
    node
}

/// Whether the turn has completed after it was told that its question is gone.
async fn went_on_without(node: &Node) -> bool {
    let results =
        log(node, entity(1)).await.iter().filter_map(message_of).any(|message| {
            message.content.role == "tool" && message.content.text.as_deref() == Some("review_not_found")
        });
    results && status(node, entity(1), 1).await.0 == TurnStatus::Completed
}

#[tokio::test(start_paused = true)]
async fn a_turn_whose_question_cannot_be_read_goes_on_without_an_answer() {
    let (_lines, _catching) = Lines::catch();
    let gate = Gate::new();
    let node = waiting(&gate).await;
    let [question] = questions(&node).await[..] else { panic!("people are asked once") };
    gate.damage_in(people(), question.number);
    sleep(2 * HOUR).await;
    assert!(went_on_without(&node).await);
}

#[tokio::test(start_paused = true)]
async fn an_errand_for_an_unreadable_question_is_struck_off() {
    let (_lines, _catching) = Lines::catch();
    let gate = Gate::new();
    let node = waiting(&gate).await;
    let [question] = questions(&node).await[..] else { panic!("people are asked once") };
    gate.rule(Rule::Hold);
    let asked = Arc::clone(&node);
    let command = approve(question);
    let answering = tokio::spawn(async move { asked.conversation(people(), command, NONE).await });
    settle().await;
    gate.damage_in(people(), question.number);
    gate.rule(Rule::Pass);
    answering.await.unwrap().unwrap();
    settle().await;
    let errands = node.rows(people(), ERRANDS, Scan::new(KeyRange::default(), Order::Asc, 9)).await.unwrap();
    assert_eq!(errands, [], "it is struck off");
    sleep(HOUR).await;
    assert!(went_on_without(&node).await);
}

#[tokio::test(start_paused = true)]
async fn a_question_that_cannot_be_read_is_not_taken_back_for_ever() {
    let gate = Gate::new();
    let node = waiting(&gate).await;
    let [question] = questions(&node).await[..] else { panic!("people are asked once") };
    gate.damage_in(people(), question.number);
    node.conversation(entity(1), CancelTurn { number: 1 }, NONE).await.unwrap();
    settle().await;
    let errands = node.rows(entity(1), ERRANDS, Scan::new(KeyRange::default(), Order::Asc, 9)).await.unwrap();
    assert_eq!(errands, [], "it is struck off");
}

/// The rows of open calls.
async fn open_calls(node: &Node) -> Vec<Row> {
    node.rows(entity(1), CALLS, Scan::new(KeyRange::default(), Order::Asc, 9)).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_turn_whose_calls_cannot_be_read_fails_and_the_next_one_runs() {
    let (lines, _catching) = Lines::catch();
    let gate = Gate::new();
    let node = waiting(&gate).await;
    node.conversation(entity(1), post_with_turn(entity(1), "hi"), NONE).await.unwrap();
    gate.damage_row(CALLS, number_key(1));
    sleep(2 * HOUR).await;
    let failed = node.turn(entity(1), 1).await.unwrap().unwrap();
    assert_eq!((failed.status, failed.failure.unwrap().code), (TurnStatus::Failed, "calls_unreadable".to_owned()));
    assert_eq!(status(&node, entity(1), 2).await.0, TurnStatus::Completed);
    gate.mend_rows();
    assert_eq!(open_calls(&node).await, [], "the damaged row is deleted");
    assert_eq!(lines.of(Level::ERROR, "the tool calls of a turn cannot be read").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_conversation_whose_open_calls_cannot_be_read_is_erased() {
    let (_lines, _catching) = Lines::catch();
    let gate = Gate::new();
    let node = waiting(&gate).await;
    gate.damage_row(CALLS, number_key(1));
    let erase = || node.conversation(entity(1), Erase { unused: None }, NONE);
    let mut erasure = erase().await.and_then(Answer::unkeyed).unwrap();
    while erasure.next.is_some() {
        erasure = erase().await.and_then(Answer::unkeyed).unwrap();
    }
    assert_eq!(erasure.first_unread, None);
    assert_eq!(status(&node, entity(1), 1).await.0, TurnStatus::Cancelled);
    gate.mend_rows();
    assert_eq!(open_calls(&node).await, [], "the damaged row is deleted");
}

fn to_remember(e: EntityKey, text: &str) -> Command {
    post_of(e, Content { memories: true, ..content(text) })
}

async fn remembered(node: &Node) -> Vec<String> {
    let subject = Subject::Owner("ana".to_owned());
    let memories = all(node, subject.entity(WORKSPACE), &subject).await.unwrap();
    memories.into_iter().map(|memory| memory.text).collect()
}

/// Whether no memories are left to be drawn, and how often the log says that drawing failed.
async fn drawn(node: &Node, e: EntityKey) -> (bool, usize) {
    let state = node.state::<Conversation>(e).await.unwrap().unwrap();
    let failed = log(node, e).await.iter().filter(|record| matches!(record.event, Event::MemoryFailed { .. })).count();
    (state.remembering.is_none(), failed)
}

#[tokio::test(start_paused = true)]
async fn a_message_that_cannot_be_read_keeps_no_other_from_being_remembered() {
    let gate = Gate::new();
    let node = node_by(&Arc::new(gate.clone()), &TokioClock::start());
    let e = entity(1);
    gate.damage(Some(2));
    node.conversation(e, to_remember(e, "My name is Ana"), NONE).await.unwrap();
    node.conversation(e, to_remember(e, "I live in Porto"), NONE).await.unwrap();
    settle().await;
    assert_eq!(remembered(&node).await, ["I live in Porto"]);
    let before = gate.commits();
    sleep(HOUR).await;
    assert_eq!(gate.commits(), before, "nothing is left to be done");
    gate.damage(None);
    assert_eq!(drawn(&node, e).await, (true, 1));
}

/// A model would be shown memories of an earlier conversation, which cannot be read.
#[tokio::test(start_paused = true)]
async fn an_unreadable_memory_keeps_nothing_from_being_remembered() {
    let gate = Gate::new();
    let node = node_by(&Arc::new(gate.clone()), &TokioClock::start());
    make_agent(&node, remote()).await;
    let subject = Subject::Owner("ana".to_owned());
    let memories = subject.entity(WORKSPACE);
    let edits = vec![Edit::text_as_it_is("tea")];
    let command = memories::Remember { subject, edits, source: None };
    node.memories(memories, command, NONE).await.unwrap();
    let head = gate.load(memories, ReadLevel::Settled).await.unwrap().unwrap().head;
    let row = RowWrite { table: MEMORIES, key: Bytes::from_static(b"?"), value: Some("\u{7f}?".into()) };
    commit(&gate.inner, Commit { rows: vec![row], ..on(memories, Some(head), "garbled") }).await.unwrap();
    let e = entity(1);
    node.conversation(e, post_with_turn(e, "hello"), NONE).await.unwrap();
    settle().await;
    let before = gate.commits();
    node.conversation(e, to_remember(e, "My name is Ana"), NONE).await.unwrap();
    sleep(HOUR).await;
    assert_eq!(drawn(&node, e).await, (true, 0));
    assert!(gate.commits() - before < 20, "{} commits", gate.commits() - before);
}

#[tokio::test(start_paused = true)]
async fn a_damaged_memory_keeps_none_from_being_forgotten() {
    let gate = Gate::new();
    let node = node_by(&Arc::new(gate.clone()), &TokioClock::start());
    let subject = Subject::Owner("ana".to_owned());
    let memories = subject.entity(WORKSPACE);
    let edits = ["likes tea", "lives in Porto"].map(Edit::text_as_it_is).into();
    let command = memories::Remember { subject: subject.clone(), edits, source: None };
    node.memories(memories, command, NONE).await.unwrap();
    gate.damage_rows(MEMORIES);
    for _ in 0..2 {
        let all = memories::ForgetAll { subject: subject.clone(), for_good: true };
        node.memories(memories, all, NONE).await.unwrap();
    }
    gate.mend_rows();
    assert_eq!(remembered(&node).await, [""; 0]);
    let stored = format!("{:?}", gate.inner);
    assert!(!stored.contains("tea") && !stored.contains("Porto"));
}

#[tokio::test(start_paused = true)]
async fn a_copy_is_complete_without_a_message_that_cannot_be_read() {
    let gate = Gate::new();
    let node = node_by(&Arc::new(gate.clone()), &TokioClock::start());
    let source = entity(1);
    let copy = entity(2);
    for n in 0..5 {
        node.conversation(source, post(source, &format!("message {n}")), NONE).await.unwrap();
    }
    let of = Forked { source: opening(source).id, upto: 6 };
    gate.damage_in(source, 4);
    node.conversation(copy, Forking { opening: opening(copy), of }, NONE).await.unwrap();
    fork::run(Arc::clone(&node), copy).await.unwrap();
    let said = texts(&node, copy).await.into_iter().map(|(_, text)| text);
    assert_eq!(said.collect::<Vec<_>>(), ["message 0", "message 1", "message 3", "message 4"]);
    node.conversation(copy, post(copy, "and on"), NONE).await.unwrap();
}
