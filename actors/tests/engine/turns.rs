//! Turns in execution: one model call, one outcome, whatever is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actors::agent::builtin::Builtin;
use actors::agent::{Agent, Completion, ModelOutput, Models, NoModels, Prompt, Provider};
use actors::conversation::{CancelTurn, Conversation, Event, TurnStatus};
use actors::directory::{Answer, CommandContext, Refusal};
use actors::id::{Address, EntityKey};
use actors::limits;
use actors::node::Node;
use actors::store::faulty::{FaultyStore, Rates};
use actors::store::memory::MemoryStore;
use actors::turns::Crowded;
use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep};

use crate::support::*;

async fn with_puppet(puppet: &Arc<Puppet>) -> Arc<Node> {
    let models = Arc::new(Strings(Arc::clone(puppet)));
    let node = Node::start(Arc::new(MemoryStore::default()), TokioClock::start(), entropy(), models);
    make_agent(&node, remote()).await;
    node
}

/// The number of replies and of turn outcomes in the log.
async fn outcomes(node: &Node, e: EntityKey) -> (usize, usize) {
    let log = log(node, e).await;
    let reply = |event: &Event| matches!(event, Event::MessageCreated(message) if message.content.role == "assistant");
    let over = |event: &Event| matches!(event, Event::TurnCompleted(_) | Event::TurnFailed(_));
    let count = |is: &dyn Fn(&Event) -> bool| log.iter().filter(|record| is(&record.event)).count();
    (count(&reply), count(&over))
}

#[tokio::test(start_paused = true)]
async fn a_long_turn_that_is_alive_is_not_started_again() {
    let puppet = Puppet::new(false);
    let node = with_puppet(&puppet).await;
    let e = entity(1);
    node.conversation(e, post_with_turn(e, "hi"), CommandContext::default()).await.unwrap();
    sleep(Duration::from_secs(100)).await;
    assert_eq!((puppet.asked(), status(&node, e, 1).await), (1, (TurnStatus::Running, 1)));
    puppet.may_answer();
    settle().await;
    assert_eq!(status(&node, e, 1).await, (TurnStatus::Completed, 1));
    assert_eq!((outcomes(&node, e).await, node.running_turns()), ((1, 1), 0));
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_waits_for_slow_commits_is_not_taken_for_lost() {
    let gate = Gate::new();
    let puppet = Puppet::new(false);
    let models = Arc::new(Strings(Arc::clone(&puppet)));
    let node = Node::start(Arc::new(gate.clone()), TokioClock::start(), entropy(), models);
    make_agent(&node, remote()).await;
    let e = entity(1);
    for text in ["a", "b"] {
        node.conversation(e, post_with_turn(e, text), CommandContext::default()).await.unwrap();
    }
    sleep(Duration::from_millis(1_500)).await;
    for _ in 0..2 {
        gate.rule(Rule::Hold);
        puppet.may_answer();
        sleep(Duration::from_millis(5_500)).await;
        gate.rule(Rule::Pass);
        sleep(Duration::from_millis(500)).await;
    }
    assert_eq!((puppet.asked(), outcomes(&node, e).await), (2, (2, 2)));
    assert_eq!(
        (status(&node, e, 1).await, status(&node, e, 2).await),
        ((TurnStatus::Completed, 1), (TurnStatus::Completed, 1))
    );
}

#[tokio::test(start_paused = true)]
async fn a_turn_lost_while_the_clock_was_ahead_does_not_wait_for_that_time() {
    let store = Gate::new();
    let clock = TokioClock::start();
    let start = |puppet| {
        let clock: Arc<TokioClock> = Arc::clone(&clock);
        Node::start(Arc::new(store.clone()), clock, entropy(), Arc::new(Strings(puppet)))
    };
    let node = start(Puppet::new(false));
    make_agent(&node, remote()).await;
    let e = entity(1);
    node.conversation(e, post_with_turn(e, "hi"), CommandContext::default()).await.unwrap();
    settle().await;
    node.drain(Instant::now()).await;
    clock.set_back(3_600_000);
    let next = start(Puppet::new(true));
    next.conversation(e, post(e, "are you there?"), CommandContext::default()).await.unwrap();
    sleep(Duration::from_secs(2)).await;
    assert_eq!(status(&next, e, 1).await, (TurnStatus::Completed, 2));
    assert_eq!(outcomes(&next, e).await, (1, 1));
}

/// Its store cannot be read for longer than its attempt waits.
#[tokio::test(start_paused = true)]
async fn a_turn_lost_in_a_living_process_does_not_wait_for_its_old_time() {
    let store = FaultyStore::new(MemoryStore::default().shared(), 0, Rates::default());
    let clock = TokioClock::start();
    let of_node: Arc<TokioClock> = Arc::clone(&clock);
    let node = Node::start(Arc::new(store.clone()), of_node, entropy(), Arc::new(NoModels));
    make_agent(&node, Provider::Builtin(Builtin::default())).await;
    let e = entity(1);
    node.conversation(e, post(e, "hi"), CommandContext::default()).await.unwrap();
    store.set_rates(Rates { unread: 1_000, ..Rates::default() });
    node.conversation(e, post_with_turn(e, "hi"), CommandContext::default()).await.unwrap();
    clock.set_back(3_600_000);
    sleep(Duration::from_secs(40)).await;
    assert_eq!(node.running_turns(), 0);
    store.calm();
    sleep(Duration::from_secs(20)).await;
    assert_eq!(status(&node, e, 1).await, (TurnStatus::Completed, 2));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_panics_is_made_again_though_the_clock_was_set_back() {
    let clock = TokioClock::start();
    let of_node: Arc<TokioClock> = Arc::clone(&clock);
    let puppet = Puppet::new(false);
    let models = Arc::new(Strings(Arc::clone(&puppet)));
    let node = Node::start(Arc::new(MemoryStore::default()), of_node, entropy(), models);
    make_agent(&node, remote()).await;
    let e = entity(1);
    node.conversation(e, post_with_turn(e, "make the model panic"), CommandContext::default()).await.unwrap();
    settle().await;
    clock.set_back(3_600_000);
    puppet.may_answer();
    sleep(Duration::from_secs(30)).await;
    assert_eq!(status(&node, e, 1).await, (TurnStatus::Failed, limits::TURN_ATTEMPTS));
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_does_not_answer_in_time_fails_its_turn() {
    let puppet = Puppet::new(false);
    let node = with_puppet(&puppet).await;
    let e = entity(1);
    node.conversation(e, post_with_turn(e, "hi"), CommandContext::default()).await.unwrap();
    sleep(Duration::from_secs(121)).await;
    let turn = node.turn(e, 1).await.unwrap().unwrap();
    assert_eq!((turn.status, turn.failure.unwrap().code), (TurnStatus::Failed, "timeout".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_turn_stops_and_the_next_one_runs() {
    let puppet = Puppet::new(false);
    let node = with_puppet(&puppet).await;
    let e = entity(1);
    for text in ["a", "b"] {
        node.conversation(e, post_with_turn(e, text), CommandContext::default()).await.unwrap();
    }
    settle().await;
    node.conversation(e, CancelTurn { number: 1 }, CommandContext::default()).await.unwrap();
    settle().await;
    assert_eq!((puppet.asked(), node.running_turns()), (2, 1));
    puppet.may_answer();
    sleep(Duration::from_secs(3)).await;
    assert_eq!(status(&node, e, 1).await, (TurnStatus::Cancelled, 1));
    assert_eq!(status(&node, e, 2).await, (TurnStatus::Completed, 1));
    assert_eq!(outcomes(&node, e).await, (1, 1));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_panics_is_lost_and_not_alive_for_ever() {
    let puppet = Puppet::new(true);
    let node = with_puppet(&puppet).await;
    let e = entity(1);
    node.conversation(e, post_with_turn(e, "make the model panic"), CommandContext::default()).await.unwrap();
    sleep(Duration::from_secs(30)).await;
    assert_eq!(status(&node, e, 1).await, (TurnStatus::Failed, limits::TURN_ATTEMPTS));
    assert_eq!((puppet.asked(), node.running_turns()), (limits::TURN_ATTEMPTS as usize, 0));
}

/// Counts calls that run at once.
#[derive(Debug, Default)]
struct Crowd {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Models for Crowd {
    fn complete(&self, _: Prompt) -> BoxFuture<'_, Completion> {
        Box::pin(async {
            let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(now, Ordering::SeqCst);
            sleep(Duration::from_secs(1)).await;
            self.now.fetch_sub(1, Ordering::SeqCst);
            let usage = actors::conversation::Usage {
                input_tokens: 0,
                output_tokens: 0,
                millicredits: 0,
                model: "crowd".to_owned(),
            };
            Ok(ModelOutput { replies: vec!["ok".to_owned()], calls: Vec::new(), usage })
        })
    }
}

/// Requests so many turns of each of so many agents at once; returns how many model calls ran at once at most.
async fn crowd(agents: usize, turns: u64, concurrency: Option<u32>) -> usize {
    let crowd = Arc::new(Crowd::default());
    let models: Arc<Crowd> = Arc::clone(&crowd);
    let node = Node::start(Arc::new(MemoryStore::default()), TokioClock::start(), entropy(), models);
    let mut asked = Vec::new();
    for agent in (0..agents).map(|n| format!("bot{n}")) {
        let bot = Agent { concurrency, ..Agent::new(agent.clone(), "Bot", remote(), NOW) };
        put(&node, actors::tables::AGENTS, agent.as_bytes(), actors::codec::encode(&bot)).await;
        for _ in 0..turns {
            let e = entity(asked.len() as u64);
            node.conversation(e, post_with_turn_of(e, "hi", &agent), CommandContext::default()).await.unwrap();
            asked.push(e);
        }
    }
    sleep(Duration::from_secs(20)).await;
    for e in asked {
        assert_eq!(status(&node, e, 1).await, (TurnStatus::Completed, 1));
    }
    crowd.most.load(Ordering::SeqCst)
}

#[tokio::test(start_paused = true)]
async fn i7_only_so_many_models_are_called_at_once_and_the_others_wait() {
    assert_eq!(crowd(8, limits::AGENT_TURNS as u64, None).await, limits::RUNNING_TURNS_OF_WORKSPACE);
}

#[tokio::test(start_paused = true)]
async fn i7_a_slow_agent_takes_no_more_places_than_its_own() {
    assert_eq!(crowd(1, limits::AGENT_TURNS as u64 * 3, None).await, limits::AGENT_TURNS);
    assert_eq!(crowd(1, 6, Some(2)).await, 2);
}

/// A quarter of what the node takes; others are asked all the same.
#[tokio::test(start_paused = true)]
async fn i7_a_slow_agent_gets_no_more_than_its_share_of_turns() {
    let puppet = Puppet::new(false);
    let node = with_puppet(&puppet).await;
    for e in (0..limits::ALIVE_TURNS_OF_AGENT as u64).map(entity) {
        assert_eq!(node.admits_turn(WORKSPACE, "bot"), Ok(()));
        node.conversation(e, post_with_turn(e, "hi"), CommandContext::default()).await.unwrap();
    }
    assert_eq!(node.admits_turn(WORKSPACE, "bot"), Err(Crowded::Agent));
    assert_eq!(node.admits_turn(WORKSPACE, "another"), Ok(()));
    let cancelled = node.conversation(entity(0), CancelTurn { number: 1 }, CommandContext::default()).await;
    cancelled.unwrap();
    settle().await;
    assert_eq!(node.admits_turn(WORKSPACE, "bot"), Ok(()), "one has ended");
    node.crowd(Crowded::Node, WORKSPACE, "bot");
    assert_eq!(node.admits_turn(WORKSPACE, "another"), Err(Crowded::Node));
}

#[tokio::test(start_paused = true)]
async fn i7_slow_agents_of_a_workspace_leave_half_of_the_turns_to_others() {
    let puppet = Puppet::new(false);
    let node = with_puppet(&puppet).await;
    let agents = ["bot", "second", "third"];
    for agent in &agents[1..] {
        let bot = Agent::new(*agent, "Bot", remote(), NOW);
        put(&node, actors::tables::AGENTS, agent.as_bytes(), actors::codec::encode(&bot)).await;
    }
    for n in 0..limits::ALIVE_TURNS_OF_WORKSPACE as u64 {
        let (e, agent) = (entity(n), agents[n as usize % 3]);
        assert_eq!(node.admits_turn(WORKSPACE, agent), Ok(()));
        node.conversation(e, post_with_turn_of(e, "hi", agent), CommandContext::default()).await.unwrap();
    }
    assert_eq!(node.admits_turn(WORKSPACE, "bot"), Err(Crowded::Workspace));
    assert_eq!(node.admits_turn(Address([9; 10]), "bot"), Ok(()));
    let cancelled = node.conversation(entity(0), CancelTurn { number: 1 }, CommandContext::default()).await;
    cancelled.unwrap();
    settle().await;
    assert_eq!(node.admits_turn(WORKSPACE, "bot"), Ok(()), "one has ended");
}

#[tokio::test(start_paused = true)]
async fn i7_models_that_do_not_answer_hold_nothing_that_other_messages_need() {
    let puppet = Puppet::new(false);
    let node = with_puppet(&puppet).await;
    // Four times as many as run at once: some are at their model, the others wait for a permit.
    let turns = limits::RUNNING_TURNS as u64 * 4;
    for e in (0..turns).map(entity) {
        node.conversation(e, post_with_turn(e, "hi"), CommandContext::default()).await.unwrap();
    }
    sleep(Duration::from_secs(5)).await;
    assert_eq!((node.running_turns() as u64, puppet.asked()), (turns, limits::AGENT_TURNS));
    let waiting = |node: &Node| (node.admission().in_flight(), node.admission().bytes_in_flight());
    assert_eq!(waiting(&node), (0, 0));
    let rung = node.metrics().alarm_lateness.snapshot().count();
    let begun = tokio::time::Instant::now();
    for e in (0..turns * 2).map(entity) {
        node.conversation(e, post(e, "plain"), CommandContext::default()).await.unwrap();
    }
    assert_eq!((begun.elapsed(), waiting(&node)), (Duration::ZERO, (0, 0)), "nobody was waited for");
    // Nor do alarms ring for turns that are alive.
    sleep(Duration::from_secs(20)).await;
    assert_eq!(node.metrics().alarm_lateness.snapshot().count(), rung);
    assert_eq!(node.running_turns() as u64, turns);
}

#[tokio::test(start_paused = true)]
async fn a_turn_has_at_most_one_outcome_through_every_fault() {
    for seed in 0..12 {
        let store = Arc::new(FaultyStore::new(MemoryStore::default(), seed, Rates::default()));
        let shared: Arc<FaultyStore<MemoryStore>> = Arc::clone(&store);
        let node = Node::start(shared, TokioClock::start(), entropy(), Arc::new(NoModels));
        make_agent(&node, Provider::Builtin(Builtin::default())).await;
        store.set_rates(Rates::OFTEN);
        for n in 0..5 {
            let e = entity(n);
            for turn in 0..4 {
                loop {
                    match node.conversation(e, post_with_turn(e, "hi"), key(turn, 0)).await {
                        Ok(Answer::Done(_) | Answer::Repeat(_)) => break,
                        Err(Refusal::Unavailable(_) | Refusal::Unknown(_)) => {}
                        Err(other) => panic!("seed {seed}: {other}"),
                    }
                }
            }
        }
        sleep(Duration::from_secs(100)).await;
        store.calm();
        sleep(Duration::from_secs(100)).await;
        for e in (0..5).map(entity) {
            let (replies, over) = outcomes(&node, e).await;
            assert_eq!(over, 4, "seed {seed}: every turn ends, once");
            let state = node.state::<Conversation>(e).await.unwrap().unwrap();
            assert!(state.running.is_none() && state.queued.is_empty(), "seed {seed}");
            let mut completed = 0;
            for number in 1..=4 {
                completed += usize::from(status(&node, e, number).await.0 == TurnStatus::Completed);
            }
            assert_eq!(replies, completed, "seed {seed}");
            assert_eq!(completed, 4, "seed {seed}: none is given up");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_turn_waits_for_a_store_that_cannot_be_read_for_some_seconds() {
    let store = FaultyStore::new(MemoryStore::default().shared(), 0, Rates::default());
    let node = Node::start(Arc::new(store.clone()), TokioClock::start(), entropy(), Arc::new(NoModels));
    make_agent(&node, Provider::Builtin(Builtin::default())).await;
    let e = entity(1);
    node.conversation(e, post(e, "hi"), CommandContext::default()).await.unwrap();
    store.set_rates(Rates { unread: 1_000, ..Rates::default() });
    node.conversation(e, post_with_turn(e, "hi"), CommandContext::default()).await.unwrap();
    sleep(Duration::from_secs(20)).await;
    assert_eq!(outcomes(&node_on(store.inner().clone()), e).await, (0, 0));
    store.calm();
    sleep(Duration::from_secs(5)).await;
    assert_eq!(status(&node, e, 1).await, (TurnStatus::Completed, 1), "it is the same attempt");
}

/// As a store whose disk is full.
const REFUSED: Rates = Rates { refused: 1_000, unanswered: 0, late: 0, competed: 0, unread: 0 };

/// A node on this store with the agent `bot`, which runs one turn at a time, and a turn in each of two conversations:
/// the store refuses everything when the model has the first of them.
async fn refusing(store: &FaultyStore<MemoryStore>, puppet: &Arc<Puppet>) -> Arc<Node> {
    let models = Arc::new(Strings(Arc::clone(puppet)));
    let node = Node::start(Arc::new(store.clone()), TokioClock::start(), entropy(), models);
    let bot = Agent { concurrency: Some(1), ..Agent::new("bot", "Bot", remote(), NOW) };
    put(&node, actors::tables::AGENTS, b"bot", actors::codec::encode(&bot)).await;
    for e in [entity(1), entity(2)] {
        node.conversation(e, post_with_turn(e, "hi"), CommandContext::default()).await.unwrap();
    }
    settle().await;
    store.set_rates(REFUSED);
    node
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_kept_until_its_store_takes_it() {
    let store = FaultyStore::new(MemoryStore::default(), 0, Rates::default());
    let puppet = Puppet::new(false);
    let node = refusing(&store, &puppet).await;
    assert_eq!(puppet.asked(), 1);
    puppet.may_answer();
    sleep(Duration::from_secs(3_600)).await;
    assert_eq!(puppet.asked(), 2, "each is asked once, and no answer that waits keeps another turn waiting");
    store.calm();
    sleep(Duration::from_secs(11)).await;
    for e in [entity(1), entity(2)] {
        assert_eq!((status(&node, e, 1).await, outcomes(&node, e).await), ((TurnStatus::Completed, 1), (1, 1)));
    }
    assert_eq!((puppet.asked(), node.running_turns()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_given_up_after_half_a_minute_if_another_could_answer() {
    let store = FaultyStore::new(MemoryStore::default().shared(), 0, Rates::default());
    let puppet = Puppet::new(false);
    let node = refusing(&store, &puppet).await;
    puppet.may_answer();
    sleep(Duration::from_secs(100)).await;
    assert_eq!((puppet.asked(), node.running_turns()), (2, 0));
    store.calm();
    sleep(Duration::from_secs(15)).await;
    for e in [entity(1), entity(2)] {
        assert_eq!(status(&node, e, 1).await, (TurnStatus::Completed, 2), "it was asked again");
    }
}
