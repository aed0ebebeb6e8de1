//! I5: no timer is lost, and none is early.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actors::agent::NoModels;
use actors::clock::{Clock, Millis};
use actors::conversation::{Command, Event};
use actors::directory::CommandContext;
use actors::id::EntityKey;
use actors::message::{Content, Review};
use actors::node::Node;
use actors::random::Random;
use actors::store::Store;
use actors::store::faulty::{FaultyStore, Rates};
use actors::store::memory::MemoryStore;
use tokio::time::{Instant, sleep};

use crate::support::*;

/// How late an alarm may be while its node runs.
const LATE_MILLIS: u64 = 50;

pub(crate) fn ask(e: EntityKey, expires_at: Millis) -> Command {
    let review = Review {
        kind: "approval".to_owned(),
        payload: None,
        callback: None,
        expires_at,
        on_expire: None,
        quorum: None,
        asker: None,
        place: None,
    };
    post_of(e, Content { review: Some(review), ..content("may I?") })
}

/// When the reviews of a conversation expired.
pub(crate) async fn expired(node: &Node, e: EntityKey) -> Vec<Millis> {
    let log = log(node, e).await.into_iter();
    log.filter(|record| matches!(record.event, Event::ReviewExpired(_))).map(|record| record.at).collect()
}

async fn due(store: &impl Store) -> usize {
    store.due(None, Millis(u64::MAX), 1_000).await.unwrap().alarms.len()
}

#[tokio::test(start_paused = true)]
async fn i5_reviews_expire_on_time_and_never_early_near_and_far() {
    let store = Arc::new(MemoryStore::default());
    let clock = TokioClock::start();
    let node = node_by(&store, &clock);
    let mut random = Random(3);
    let mut deadlines = Vec::new();
    for n in 0..5 {
        let mut of = Vec::new();
        for _ in 0..20 {
            // Some deadlines are beyond the alarms kept in memory, and beyond the time after which an idle entity is
            // passivated.
            let deadline = clock.now().plus(1 + random.below(600_000));
            node.conversation(entity(n), ask(entity(n), deadline), CommandContext::default()).await.unwrap();
            of.push(deadline);
            sleep(Duration::from_millis(random.below(50))).await;
        }
        of.sort();
        deadlines.push(of);
    }
    for _ in 0..61 {
        sleep(Duration::from_secs(10)).await;
        for (n, of) in (0..).zip(&deadlines) {
            let past = of.iter().filter(|at| at.plus(LATE_MILLIS) < clock.now()).count();
            assert!(expired(&node, entity(n)).await.len() >= past);
        }
    }
    for (n, of) in (0..).zip(&deadlines) {
        let expired = expired(&node, entity(n)).await;
        assert_eq!(expired.len(), of.len());
        for (at, deadline) in expired.iter().zip(of) {
            assert!(at >= deadline, "early by {} ms", deadline.since(*at));
            assert!(at.since(*deadline) <= LATE_MILLIS, "late by {} ms", at.since(*deadline));
        }
    }
    assert_eq!(due(store.as_ref()).await, 0, "nothing is left to wake for");
    sleep(Duration::from_secs(200)).await;
    assert_eq!(node.resident(), 0, "and nobody is woken any more");
}

#[tokio::test(start_paused = true)]
async fn i5_an_alarm_rings_in_the_next_process_overdue_or_not() {
    let gate = Arc::new(Gate::new());
    let clock = TokioClock::start();
    let node = node_by(&gate, &clock);
    let [overdue, ahead] = [clock.now().plus(5_000), clock.now().plus(300_000)];
    for (n, deadline) in [(1, overdue), (2, ahead)] {
        node.conversation(entity(n), ask(entity(n), deadline), CommandContext::default()).await.unwrap();
    }
    node.drain(Instant::now() + Duration::from_secs(1)).await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(expired(&node, entity(1)).await, [], "a stopped node wakes nobody");
    let next = node_by(&gate, &clock);
    sleep(Duration::from_millis(LATE_MILLIS)).await;
    assert_eq!(expired(&next, entity(1)).await.len(), 1);
    sleep(Duration::from_secs(300)).await;
    let expired = expired(&next, entity(2)).await;
    assert!(expired.len() == 1 && expired[0] >= ahead && expired[0].since(ahead) <= LATE_MILLIS);
    assert_eq!(due(gate.as_ref()).await, 0);
}

#[tokio::test(start_paused = true)]
async fn many_overdue_reviews_of_many_entities_are_all_worked_off() {
    let gate = Arc::new(Gate::new());
    let clock = TokioClock::start();
    let node = node_by(&gate, &clock);
    for n in 0..1_500 {
        let deadline = clock.now().plus(10_000 + n);
        node.conversation(entity(n), ask(entity(n), deadline), CommandContext::default()).await.unwrap();
    }
    // More reviews of one entity than one wake expires.
    for _ in 0..199 {
        node.conversation(entity(0), ask(entity(0), clock.now().plus(9_000)), CommandContext::default()).await.unwrap();
    }
    node.drain(Instant::now() + Duration::from_secs(1)).await;
    sleep(Duration::from_secs(60)).await;
    let next = node_by(&gate, &clock);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(due(gate.as_ref()).await, 0);
    assert_eq!(expired(&next, entity(0)).await.len(), 200);
    assert_eq!(expired(&next, entity(1_499)).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn scans_wakes_and_commits_that_fail_are_repeated_until_they_succeed() {
    let clock = TokioClock::start();
    let store = Arc::new(FaultyStore::new(MemoryStore::default(), 11, Rates::default()));
    let node = node_by(&store, &clock);
    let deadline = clock.now().plus(200_000);
    for n in 0..10 {
        node.conversation(entity(n), ask(entity(n), deadline), CommandContext::default()).await.unwrap();
    }
    let broken = Rates { refused: 300, unanswered: 300, late: 300, unread: 900, competed: 0 };
    store.set_rates(broken);
    sleep(Duration::from_secs(230)).await;
    store.calm();
    sleep(Duration::from_secs(5)).await;
    for n in 0..10 {
        assert_eq!(expired(&node, entity(n)).await.len(), 1, "entity {n}, {:?}", store.injected());
    }
    assert_eq!(due(store.inner()).await, 0);
}

#[tokio::test(start_paused = true)]
async fn wakes_do_not_pile_up_behind_a_slow_commit() {
    let gate = Arc::new(Gate::new());
    let clock = TokioClock::start();
    let node = node_by(&gate, &clock);
    let e = entity(1);
    node.conversation(e, ask(e, clock.now().plus(1_000)), CommandContext::default()).await.unwrap();
    gate.rule(Rule::Hold);
    sleep(Duration::from_secs(600)).await;
    let commits = gate.commits();
    gate.rule(Rule::Pass);
    settle().await;
    assert_eq!(expired(&node, e).await.len(), 1);
    assert!(gate.commits() <= commits + 1);
}

/// Its own alarms are read soon after.
#[tokio::test(start_paused = true)]
async fn i5_an_unreadable_part_of_the_index_keeps_no_alarm_back() {
    let gate = Arc::new(Gate::new());
    let clock = TokioClock::start();
    let first = node_by(&gate, &clock);
    for n in 1..=2 {
        first
            .conversation(entity(n), ask(entity(n), clock.now().plus(5_000)), CommandContext::default())
            .await
            .unwrap();
    }
    first.drain(Instant::now() + Duration::from_secs(1)).await;
    sleep(Duration::from_secs(60)).await;
    gate.unlist(Some(entity(1)));
    let node = node_by(&gate, &clock);
    sleep(Duration::from_millis(LATE_MILLIS)).await;
    assert_eq!((expired(&node, entity(1)).await.len(), expired(&node, entity(2)).await.len()), (0, 1));
    sleep(Duration::from_secs(20)).await;
    gate.unlist(None);
    sleep(Duration::from_millis(1_000 + LATE_MILLIS)).await;
    assert_eq!(expired(&node, entity(1)).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn alarms_ring_on_time_while_the_due_index_is_read() {
    let gate = Arc::new(Gate::new());
    let clock = TokioClock::start();
    let node = node_by(&gate, &clock);
    let deadline = clock.now().plus(60_000);
    node.conversation(entity(1), ask(entity(1), deadline), CommandContext::default()).await.unwrap();
    gate.hang_due(true);
    sleep(Duration::from_millis(60_000 + LATE_MILLIS)).await;
    let rung = expired(&node, entity(1)).await;
    assert!(rung.len() == 1 && rung[0].since(deadline) <= LATE_MILLIS, "{rung:?}");
    // The read that hung completes, and others follow.
    let far = clock.now().plus(200_000);
    node.conversation(entity(2), ask(entity(2), far), CommandContext::default()).await.unwrap();
    gate.hang_due(false);
    sleep(Duration::from_millis(200_000 + LATE_MILLIS)).await;
    assert_eq!(expired(&node, entity(2)).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn wakes_do_not_pile_up_behind_a_slow_load() {
    let gate = Arc::new(Gate::new());
    let clock = TokioClock::start();
    let first = node_by(&gate, &clock);
    let wakes = actors::limits::WAKES as u64;
    let later = clock.now().plus((wakes + 100) * 1_000);
    for (n, deadline) in [(1, clock.now().plus(1_000)), (2, later)] {
        first.conversation(entity(n), ask(entity(n), deadline), CommandContext::default()).await.unwrap();
    }
    first.drain(Instant::now() + Duration::from_secs(1)).await;
    gate.hang_loads(Some(entity(1)));
    let node = node_by(&gate, &clock);
    sleep(Duration::from_millis(later.since(clock.now()) + LATE_MILLIS)).await;
    assert_eq!(expired(&node, entity(2)).await.len(), 1, "a healthy one rings");
    gate.hang_loads(None);
    settle().await;
    assert_eq!(expired(&node, entity(1)).await.len(), 1);
}

/// A clock that follows Tokio's and can be set.
struct SetClock {
    inner: Arc<TokioClock>,
    back: AtomicU64,
    forward: AtomicU64,
}

impl SetClock {
    fn start() -> Arc<Self> {
        Arc::new(Self { inner: TokioClock::start(), back: 0.into(), forward: 0.into() })
    }
}

impl Clock for SetClock {
    fn now(&self) -> Millis {
        Millis(self.inner.now().0 - self.back.load(Ordering::SeqCst) + self.forward.load(Ordering::SeqCst))
    }
}

#[tokio::test(start_paused = true)]
async fn i5_a_clock_set_forward_announces_due_alarms_within_a_second() {
    let hour = 3_600_000;
    let clock = SetClock::start();
    let node = Node::start(Arc::new(MemoryStore::default()), clock.clone(), entropy(), Arc::new(NoModels));
    // One alarm that is kept in memory and one that is only in the store.
    let deadlines = [clock.now().plus(90_000), clock.now().plus(hour / 2)];
    for (n, deadline) in deadlines.into_iter().enumerate() {
        let e = entity(n as u64);
        node.conversation(e, ask(e, deadline), CommandContext::default()).await.unwrap();
    }
    sleep(Duration::from_secs(20)).await;
    clock.forward.store(hour, Ordering::SeqCst);
    sleep(Duration::from_millis(1_000 + LATE_MILLIS)).await;
    for n in 0..2 {
        assert_eq!(expired(&node, entity(n)).await.len(), 1, "{n}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_without_services_does_what_it_is_asked_and_rings_nothing() {
    let store = MemoryStore::default();
    let clock = TokioClock::start();
    let node = || Node::without_services(Arc::new(store.clone()), clock.clone(), entropy(), Arc::new(NoModels));
    let asking = node();
    asking.conversation(entity(1), ask(entity(1), clock.now().plus(1_000)), CommandContext::default()).await.unwrap();
    let looking = node();
    sleep(Duration::from_secs(3_600)).await;
    assert_eq!(expired(&looking, entity(1)).await.len(), 0);
    let serving = Node::start(Arc::new(store.clone()), clock.clone(), entropy(), Arc::new(NoModels));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(expired(&serving, entity(1)).await.len(), 1, "it was due");
}

#[tokio::test(start_paused = true)]
async fn i5_a_clock_that_is_set_back_puts_no_later_alarm_off() {
    let hour = 3_600_000;
    let clock = SetClock::start();
    let node = Node::start(Arc::new(MemoryStore::default()), clock.clone(), entropy(), Arc::new(NoModels));
    sleep(Duration::from_secs(1)).await;
    clock.back.store(hour, Ordering::SeqCst);
    // Beyond the alarms kept in memory, so that it must be read from the store.
    let deadline = clock.now().plus(300_000);
    node.conversation(entity(1), ask(entity(1), deadline), CommandContext::default()).await.unwrap();
    sleep(Duration::from_millis(300_000 + LATE_MILLIS)).await;
    assert_eq!(expired(&node, entity(1)).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn i5_a_review_is_announced_on_time_though_its_actor_has_left() {
    let clock = TokioClock::start();
    let puppet = Puppet::new(false);
    let store = Arc::new(MemoryStore::default());
    let node = Node::start(store, clock.clone(), entropy(), Arc::new(Strings(puppet)));
    make_agent(&node, remote()).await;
    let e = entity(1);
    node.conversation(e, post_with_turn(e, "hi"), CommandContext::default()).await.unwrap();
    // By then the turn has been checked once; the next check is some seconds away.
    sleep(Duration::from_millis(1_500)).await;
    node.let_go(NO_ACTORS).await;
    settle().await;
    assert_eq!(node.actors(), 0);
    node.conversation(e, ask(e, clock.now().plus(500)), CommandContext::default()).await.unwrap();
    sleep(Duration::from_millis(500 + LATE_MILLIS)).await;
    assert_eq!(expired(&node, e).await.len(), 1);
}

/// What a commit writes: records, rows, list entries, and the bytes of these and of the state; and the number of its
/// reads.
fn weight((commit, reads): (actors::store::Commit, usize)) -> (usize, usize, usize, usize, usize) {
    let records = commit.records.iter().map(|record| record.payload.len());
    let rows = commit.rows.iter().map(|row| row.key.len() + row.value.as_ref().map_or(0, |value| value.len()));
    let views = commit.views.iter().map(|view| view.key.len() + view.value.as_ref().map_or(0, |value| value.len()));
    let state = commit.state.as_ref().map_or(0, |state| state.len());
    let bytes = records.chain(rows).chain(views).sum::<usize>() + state;
    (commit.records.len(), commit.rows.len(), commit.views.len(), bytes, reads)
}

#[tokio::test(start_paused = true)]
async fn thousands_of_pending_reviews_make_no_commit_of_their_channel_larger() {
    let gate = Arc::new(Gate::new());
    let clock = TokioClock::start();
    let node = node_by(&gate, &clock);
    let e = entity(1);
    let year = 365 * 24 * 3_600_000;
    let ask_next = |n: u64| {
        let node = Arc::clone(&node);
        let deadline = clock.now().plus(year - n);
        async move { node.conversation(e, ask(e, deadline), CommandContext::default()).await.unwrap() }
    };
    let say = || node.conversation(e, post(e, "words"), CommandContext::default());
    // Numbers in the records take a few bytes more as they grow.
    let grown_by = |before: (usize, usize, usize, usize, usize), after: (usize, usize, usize, usize, usize)| {
        assert_eq!((after.0, after.1, after.2, after.4), (before.0, before.1, before.2, before.4));
        assert!(after.3 <= before.3 + 24, "{before:?} became {after:?}");
    };
    let first = messages(ask_next(0).await);
    gate.last();
    ask_next(1).await;
    let asked = weight(gate.last());
    say().await.unwrap();
    let said = weight(gate.last());
    for n in 2..5_000 {
        ask_next(n).await;
    }
    gate.last();
    ask_next(5_000).await;
    grown_by(asked, weight(gate.last()));
    say().await.unwrap();
    grown_by(said, weight(gate.last()));
    // One review is decided without reading the others.
    let response = actors::conversation::review::Response {
        message: first[0].id,
        response: actors::message::Json::from_checked("{}"),
        alike: None,
        feedback: None,
        principal: user("ana"),
    };
    node.conversation(e, Command::Respond(response), CommandContext::default()).await.unwrap();
    let (records, rows, views, bytes, reads) = weight(gate.last());
    assert!(
        (records, rows, views) == (1, 2, 1) && bytes < 400 && reads <= 3,
        "{records} {rows} {views} {bytes} {reads}"
    );
    // The current state is the largest that was ever stored: nothing in it has grown with the reviews.
    let stored = gate.load(e, actors::store::ReadLevel::Acknowledged).await.unwrap().unwrap().state.unwrap();
    assert!(stored.len() < 200, "{} bytes", stored.len());
}
