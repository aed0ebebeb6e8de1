//! What a message costs the cluster.

use std::sync::Arc;

use actors::agent::builtin::Builtin;
use actors::agent::{Agent, Provider};
use actors::clock::Millis;
use actors::codec;
use actors::conversation::{BusyPolicy, Command, Conversation, Event, Post, TurnRequest};
use actors::directory::Circumstances;
use actors::id::EntityKey;
use actors::node::Node;
use actors::random::Random;
use actors::registry::{self, RowChange};
use actors::store::Order;
use actors::tables::AGENTS;

use super::histories::{World, node, post};
use super::support::{migrated, say, store_at};

const KEYSPACE: &str = "cql_counting";
const MESSAGES: u64 = 10;

async fn make_agent(node: &Arc<Node>, workspace: EntityKey) {
    let agent = Agent::new("bot", "Bot", Provider::Builtin(Builtin::default()), Millis(1));
    let changes = vec![RowChange::put(AGENTS, b"bot", &codec::encode(&agent))];
    let command = registry::Command { expected: Vec::new(), changes };
    node.registry(workspace, command, Circumstances::default()).await.unwrap();
}

async fn completed_turns(node: &Node, entity: EntityKey) -> usize {
    let records = node.events::<Conversation>(entity, (1, u64::MAX), Order::Asc, 1_000).await.unwrap();
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
        let with = world.key(&format!("message {n}"));
        node.conversation(entity, post(entity, "a message", None), with).await.unwrap();
    }
    let appended = store.counts();
    for n in 0..MESSAGES {
        let Command::Post(message) = post(entity, "a question", None) else { unreachable!() };
        let turn = Some(TurnRequest { agent: "bot".to_owned(), policy: BusyPolicy::Queue });
        let with = world.key(&format!("exchange {n}"));
        node.conversation(entity, Command::Post(Post { turn, ..message }), with).await.unwrap();
        while completed_turns(&node, entity).await <= n as usize {}
    }
    let exchanged = store.counts();
    let (append, exchange) = (appended.conditional - before.conditional, exchanged.conditional - appended.conditional);
    say(&format!(
        "counting: {MESSAGES} messages took {append} conditional batches, {MESSAGES} exchanges with an agent {exchange}"
    ));
    assert_eq!(append, MESSAGES);
    assert_eq!(exchange, 2 * MESSAGES);
}
