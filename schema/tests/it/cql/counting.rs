//! What a message costs the cluster.

use std::sync::Arc;

use actors::agent::builtin::Builtin;
use actors::agent::{Agent, Provider};
use actors::clock::Millis;
use actors::codec;
use actors::conversation::{BusyPolicy, Command, Conversation, Event, Post, TurnRequest};
use actors::directory::{Bounds, CommandContext, Directory};
use actors::id::EntityKey;
use actors::node::Node;
use actors::random::Random;
use actors::registry::{self, RowChange};
use actors::store::{Order, SeqRange};
use actors::tables::AGENTS;

use super::histories::{World, node, post};
use super::support::{migrated, say, store_at};

const KEYSPACE: &str = "cql_counting";
/// Servers of one keyspace look after each other's alarms, which would be counted.
const ANOTHER_KEYSPACE: &str = "cql_counting_again";
const MESSAGES: u64 = 10;

async fn make_agent(node: &Arc<Node>, workspace: EntityKey) {
    let agent = Agent::new("bot", "Bot", Provider::Builtin(Builtin::default()), Millis(1));
    let changes = vec![RowChange::put(AGENTS, b"bot", &codec::encode(&agent))];
    let command = registry::Command { expected: Vec::new(), changes };
    node.registry(workspace, command, CommandContext::default()).await.unwrap();
}

async fn completed_turns(node: &Node, entity: EntityKey) -> usize {
    let records = node.events::<Conversation>(entity, SeqRange::ALL, Order::Asc, 1_000).await.unwrap();
    records.iter().filter(|record| matches!(record.event, Event::TurnCompleted(_))).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_one_round_of_consensus_and_an_exchange_with_an_agent_two() {
    let Some(server) = bed::server() else { return };
    migrated(server.nodes(), KEYSPACE).await;
    let store = store_at(server.nodes(), KEYSPACE).await;
    let salt = Random::unforeseen();
    let node = node(&store, salt);
    let world = World::new(salt, [Arc::clone(&node), Arc::clone(&node)]);
    let entity = world.entity(0);
    make_agent(&node, EntityKey::workspace(entity.workspace)).await;

    let before = store.counts();
    for n in 0..MESSAGES {
        let context = world.key(&format!("message {n}"));
        node.conversation(entity, post(entity, "a message", None), context).await.unwrap();
    }
    let appended = store.counts();
    for n in 0..MESSAGES {
        let turn = Some(TurnRequest { agent: "bot".to_owned(), policy: BusyPolicy::Queue });
        let context = world.key(&format!("exchange {n}"));
        node.conversation(entity, Post { turn, ..post(entity, "a question", None) }, context).await.unwrap();
        while completed_turns(&node, entity).await <= n as usize {}
    }
    let exchanged = store.counts();
    let append = appended.conditional - before.conditional;
    let exchange = exchanged.conditional - appended.conditional;
    say(&format!(
        "counting: {MESSAGES} messages took {append} conditional batches, {MESSAGES} exchanges with an agent {exchange}"
    ));
    assert_eq!(append, MESSAGES);
    assert_eq!(exchange, 2 * MESSAGES);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entity_coming_back_is_settled_only_by_a_process_new_to_it() {
    let Some(server) = bed::server() else { return };
    migrated(server.nodes(), ANOTHER_KEYSPACE).await;
    let salt = Random::unforeseen();
    let stores = [store_at(server.nodes(), ANOTHER_KEYSPACE).await, store_at(server.nodes(), ANOTHER_KEYSPACE).await];
    let nodes = [node(&stores[0], salt), node(&stores[1], salt + 1)];
    let world = World::new(salt, nodes.clone());
    let entity = world.entity(0);
    let nobody = Bounds { actors: 0, entities: 0, ..Bounds::default() };
    let directories = [Directory::<Conversation>::default(), Directory::default()];
    // The conditional batches and the settlings that a message costs a process.
    let say_and_leave = async |at: usize| {
        let before = stores[at].counts();
        let context = CommandContext::default();
        directories[at].ask(&nodes[at], entity, Command::Post(post(entity, "a message", None)), context).await.unwrap();
        while directories[at].resident() > 0 {
            directories[at].sweep(nodes[at].now(), nobody).await;
            tokio::task::yield_now().await;
        }
        let after = stores[at].counts();
        (after.conditional - before.conditional, after.settling - before.settling)
    };
    // A process also settles other entities, such as configuration, and with a slow server it may do so twice; both
    // only add to the count. The entity itself may be settled in the background, but not before the other process's
    // last message.
    let mut unsettled = [0, 0];
    for (at, first) in [(0, 0), (1, 1), (0, 1)] {
        say_and_leave(at).await;
        assert!(stores[at].counts().settling - unsettled[at] >= first, "{at}");
        // A process that has just started settles much else.
        let mut least = (u64::MAX, u64::MAX);
        let mut said = 0;
        while least > (1, 0) && said < 50 * MESSAGES {
            unsettled[1 - at] = stores[1 - at].counts().settling;
            least = least.min(say_and_leave(at).await);
            said += 1;
        }
        assert_eq!(least, (1, 0), "{at}");
    }
}
