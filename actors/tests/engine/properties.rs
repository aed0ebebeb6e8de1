//! The invariants hold after any commands and any faults.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use actors::agent::NoModels;
use actors::clock::Clock;
use actors::conversation::{Conversation, Event};
use actors::directory::{Answer, Bounds, CommandContext, Directory, Refusal};
use actors::id::MessageId;
use actors::message::{Content, Review};
use actors::node::Node;
use actors::store::SeqRange;
use actors::store::faulty::{FaultyStore, Rates};
use actors::store::memory::MemoryStore;
use proptest::prelude::*;
use tokio::time::sleep;

use crate::support::*;

/// How the caller of a command behaves.
#[derive(Clone, Copy, Debug)]
enum Caller {
    /// Asks once.
    Once,
    /// Asks with a key until it learns the outcome.
    Retries,
    /// Asks with a key twice at the same time.
    Races,
}

#[derive(Clone, Debug)]
struct Ask {
    entity: u64,
    /// The directory that is asked; each acts as an owner of its own.
    owner: usize,
    caller: Caller,
    /// Milliseconds until its review expires.
    review: Option<u64>,
}

#[derive(Clone, Debug)]
enum Step {
    Together(Vec<Ask>),
    Sweep(usize, Bounds),
    Pass(u64),
    /// Another node replaces this one on the same store, without notice.
    Crash,
}

fn ask() -> impl Strategy<Value = Ask> {
    let caller = prop_oneof![Just(Caller::Once), Just(Caller::Retries), Just(Caller::Races)];
    (0_u64..2, prop_oneof![4 => Just(0_usize), 1 => Just(1)], caller, prop::option::weighted(0.2, 1_u64..3_000))
        .prop_map(|(entity, owner, caller, review)| Ask { entity, owner, caller, review })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop::collection::vec(ask(), 1..8).prop_map(Step::Together),
        2 => (0_usize..2, prop_oneof![Just(NONE), Just(NO_ACTORS)])
            .prop_map(|(owner, bounds)| Step::Sweep(owner, bounds)),
        2 => (0_u64..2_000).prop_map(Step::Pass),
        1 => Just(Step::Crash),
    ]
}

fn rates() -> impl Strategy<Value = Rates> {
    let rate = || prop_oneof![Just(0_u16), 1_u16..150];
    (rate(), rate(), rate(), rate(), rate()).prop_map(|(refused, unanswered, late, competed, unread)| Rates {
        refused,
        unanswered,
        late,
        competed,
        unread,
    })
}

/// What the caller knows about a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// It is in the log, at this sequence.
    At(u64),
    /// It is in the log once or not at all.
    Perhaps,
    /// It is not in the log.
    No,
}

#[derive(Clone)]
struct World {
    store: Arc<FaultyStore<MemoryStore>>,
    clock: Arc<TokioClock>,
    node: Arc<Node>,
    owners: [Directory<Conversation>; 2],
}

impl World {
    fn start(store: Arc<FaultyStore<MemoryStore>>, clock: Arc<TokioClock>) -> Self {
        let shared: Arc<FaultyStore<MemoryStore>> = Arc::clone(&store);
        let told: Arc<TokioClock> = Arc::clone(&clock);
        let node = Node::start(shared, told, entropy(), Arc::new(NoModels));
        Self { store, clock, node, owners: Default::default() }
    }

    /// Asks once; returns what is known then, and `false` if asking again is worthwhile.
    async fn once(&self, ask: &Ask, text: &str, context: CommandContext) -> (Known, bool) {
        let e = entity(ask.entity);
        let review = ask.review.map(|millis| Review {
            kind: "approval".to_owned(),
            payload: None,
            callback: None,
            expires_at: self.clock.now().plus(millis),
            on_expire: None,
            quorum: None,
            asker: None,
            place: None,
        });
        let command = post_of(e, Content { review, ..content(text) });
        match self.owners[ask.owner].ask(&self.node, e, command, context).await {
            Ok(Answer::Done(reply)) => (Known::At(messages(Answer::Done(reply))[0].id.number), true),
            Ok(Answer::Repeat(SeqRange { first, last })) => {
                // The message is the first event, or the second where the post opened the conversation.
                let reviewed = u64::from(ask.review.is_some());
                assert!(last - reviewed == first || first == 1, "{first} to {last}");
                (Known::At(last - reviewed), true)
            }
            Err(Refusal::Unknown(_)) => (Known::Perhaps, false),
            Err(Refusal::Unavailable(_) | Refusal::Backlog) => (Known::No, false),
            Err(other) => panic!("{other}"),
        }
    }

    async fn call(&self, ask: &Ask, text: &str, number: u64) -> Known {
        let context = key(number, number);
        match ask.caller {
            Caller::Once => self.once(ask, text, CommandContext::default()).await.0,
            Caller::Retries => loop {
                if let (known, true) = self.once(ask, text, context).await {
                    return known;
                }
            },
            Caller::Races => {
                let ((one, _), (other, _)) = tokio::join!(self.once(ask, text, context), self.once(ask, text, context));
                match (one, other) {
                    (Known::At(one), Known::At(other)) => {
                        assert_eq!(one, other, "one answer");
                        Known::At(one)
                    }
                    (Known::At(at), _) | (_, Known::At(at)) => Known::At(at),
                    (Known::No, Known::No) => Known::No,
                    _ => Known::Perhaps,
                }
            }
        }
    }
}

async fn run(steps: Vec<Step>, seed: u64, rates: Rates) {
    let store = Arc::new(FaultyStore::new(MemoryStore::new(1 + seed % 5), seed, rates));
    let mut world = World::start(store, TokioClock::start());
    let mut known: BTreeMap<(u64, String), Known> = BTreeMap::new();
    let mut number = 0;
    for step in steps {
        match step {
            Step::Sweep(owner, bounds) => world.owners[owner].sweep(world.node.now(), bounds).await,
            Step::Pass(millis) => sleep(Duration::from_millis(millis)).await,
            Step::Crash => world = World::start(Arc::clone(&world.store), Arc::clone(&world.clock)),
            Step::Together(asks) => {
                let mut calls = Vec::new();
                for ask in asks {
                    number += 1;
                    let world = world.clone();
                    let text = format!("text {number}");
                    calls.push(tokio::spawn(async move {
                        let known = world.call(&ask, &text, number).await;
                        (ask.entity, text, known)
                    }));
                }
                for call in calls {
                    let (entity, text, of) = call.await.unwrap();
                    known.insert((entity, text), of);
                }
            }
        }
    }
    sleep(Duration::from_secs(5)).await;
    world.store.calm();
    // A last command settles late commits.
    for n in 0..2 {
        let last = Ask { entity: n, owner: 0, caller: Caller::Retries, review: None };
        let text = format!("last {n}");
        let at = world.call(&last, &text, 1_000_000 + n).await;
        known.insert((n, text), at);
    }
    sleep(Duration::from_secs(30)).await;
    check(&world, &known).await;
}

async fn check(world: &World, known: &BTreeMap<(u64, String), Known>) {
    for n in 0..2 {
        let found = texts(&world.node, entity(n)).await;
        let distinct: BTreeSet<&String> = found.iter().map(|(_, text)| text).collect();
        assert_eq!(distinct.len(), found.len(), "nothing is doubled");
        let expected = known.iter().filter(|((of, _), _)| *of == n);
        for ((_, text), known) in expected {
            let at = found.iter().find(|(_, found)| found == text).map(|(seq, _)| *seq);
            match known {
                Known::At(seq) => assert_eq!(at, Some(*seq), "I1: {text}"),
                Known::No => assert_eq!(at, None, "I7: {text}"),
                Known::Perhaps => {}
            }
        }
        let mut open: BTreeMap<MessageId, actors::clock::Millis> = BTreeMap::new();
        for record in log(&world.node, entity(n)).await {
            match record.event {
                Event::ReviewRequested { message, expires_at, .. } => {
                    assert!(open.insert(message, expires_at).is_none());
                }
                Event::ReviewExpired(end) => {
                    let deadline = open.remove(&end.message).expect("I4: one outcome");
                    assert!(record.at >= deadline, "never early");
                }
                _ => {}
            }
        }
        assert!(open.is_empty(), "I5: no timer is lost");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(96) })]

    #[test]
    fn i1_to_i7_hold_through_any_faults(
        steps in prop::collection::vec(step(), 1..14),
        seed in any::<u64>(),
        rates in rates(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(run(steps, seed, rates));
    }
}
