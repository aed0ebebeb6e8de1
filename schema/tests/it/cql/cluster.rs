//! Three nodes, one of which hangs or dies during writes.
//!
//! Three servers are a lot for a small machine, and too much beside other tests, so this test runs by itself, where
//! `TERTULIA_TEST_CLUSTER` is set.

use std::sync::Arc;
use std::time::Duration;

use actors::random::Random;
use scylla::client::session_builder::SessionBuilder;

use super::histories::{OPERATIONS_IN_ALL, World, node, summary};
use super::support::{contact_at, say, setting, store_at};

const KEYSPACE: &str = "cql_cluster";

/// What happens to the cluster, in this order.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    Pause(usize),
    Resume(usize),
    Kill(usize),
    Start(usize),
}

/// A node hangs and resumes, another dies and returns, and the third hangs and resumes; never two at once.
const TROUBLES: [Trouble; 6] =
    [Trouble::Pause(0), Trouble::Resume(0), Trouble::Kill(1), Trouble::Start(1), Trouble::Pause(2), Trouble::Resume(2)];

/// How often and how many times a starting cluster is checked. Real servers have no clock that a test could move.
const LOOK: Duration = Duration::from_millis(500);
const LOOKS: u32 = 240;

/// Checks again and again until all is well.
async fn well(look: impl AsyncFn() -> Result<(), String>) {
    for _ in 1..LOOKS {
        if look().await.is_ok() {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
    look().await.unwrap();
}

/// Creates the keyspace once the nodes have found each other. They accept clients before that: then each of them
/// refuses requests that need a majority, and two nodes that are asked for one table create one each. The other nodes
/// learn a little later what one node has created; a migration that meets this is started again, as an operator would.
async fn migrated(cluster: &bed::Server) {
    for node in cluster.nodes() {
        well(async || {
            let session = SessionBuilder::new().known_node(node).build().await.unwrap();
            let known = session.get_cluster_state().get_nodes_info().len();
            (known == cluster.nodes().len()).then_some(()).ok_or(format!("{node} has found {known} nodes"))
        })
        .await;
    }
    let contact = contact_at(cluster.nodes(), KEYSPACE);
    let replication = [("datacenter1".to_owned(), 3)];
    well(async || {
        ::schema::cql::migrate(&contact, Some(&replication)).await.map(drop).map_err(|error| error.to_string())
    })
    .await;
}

async fn trouble(cluster: &'static bed::Server, trouble: Trouble) {
    // Starting a node takes half a minute.
    let happens = tokio::task::spawn_blocking(move || match trouble {
        Trouble::Pause(node) => cluster.pause(node),
        Trouble::Resume(node) => cluster.resume(node),
        Trouble::Kill(node) => cluster.kill(node),
        Trouble::Start(node) => cluster.start(node),
    });
    happens.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_hangs_and_one_that_dies_lose_double_and_reorder_nothing() {
    if std::env::var_os("TERTULIA_TEST_CLUSTER").is_none() {
        return say("skipped: cql::cluster: three nodes are started where TERTULIA_TEST_CLUSTER is set");
    }
    let Some(cluster) = bed::cluster() else { return };
    migrated(cluster).await;
    let seed = setting("TERTULIA_HISTORY_SEED", 1);
    let salt = Random::unforeseen();
    let stores = [store_at(cluster.nodes(), KEYSPACE).await, store_at(cluster.nodes(), KEYSPACE).await];
    let world = Arc::new(World::new(salt, [node(&stores[0], salt), node(&stores[1], salt + 1)]));
    let troubled = Arc::clone(&world);
    let troubles = tokio::spawn(async move {
        // Spread over the first three quarters of the clients' operations, so that every trouble is over before the
        // end.
        for (n, what) in (1..).zip(TROUBLES) {
            troubled.until(OPERATIONS_IN_ALL * 3 / 4 * n / TROUBLES.len() as u64).await;
            trouble(cluster, what).await;
        }
    });
    let histories = world.play(&mut Random(seed)).await;
    troubles.await.unwrap();
    let reader = node(&store_at(cluster.nodes(), KEYSPACE).await, salt + 2);
    let messages = world.check(&reader, &histories).await;
    say(&format!(
        "cluster: seed {seed}: {TROUBLES:?} of 3 nodes: {}; stores {:?} and {:?}",
        summary(&histories, messages),
        stores[0].counts(),
        stores[1].counts()
    ));

    // Without a majority nothing is acknowledged; with one, everything goes on.
    trouble(cluster, Trouble::Kill(0)).await;
    trouble(cluster, Trouble::Kill(2)).await;
    world.is_refused("without a majority").await;
    trouble(cluster, Trouble::Start(0)).await;
    world.is_accepted("with a majority again").await;
}
