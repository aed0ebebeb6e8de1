use std::future::{pending, ready};
use std::io::ErrorKind;

use actors::agent::NoModels;
use actors::store::memory::MemoryStore;
use actors::store::{Store, StoreError, Table};
use actors::{clock::ManualClock, id::EntityKey};
use bytes::Bytes;

use super::*;
use crate::bootstrap;
use crate::config::{CidrList, ConfigArgs};
use crate::egress::Egress;
use crate::files::FileStore;

/// Any free ports, and a configured key, so that nothing is printed but the ready line.
fn config() -> Config {
    let env = |name: &str| match name {
        "TERTULIA_LISTEN" | "TERTULIA_METRICS_LISTEN" => Some("127.0.0.1:0".to_owned()),
        "TERTULIA_BOOTSTRAP_API_KEY" => Some("an-admin-key-of-more-than-32-characters".to_owned()),
        _ => None,
    };
    Config::load(&ConfigArgs::default(), &env, &|_| Err(ErrorKind::NotFound.into())).unwrap()
}

/// With a directory of its own for attachments.
fn outside(directory: &tempfile::TempDir) -> Outside {
    Outside {
        egress: Egress::new(CidrList::default(), &[]).unwrap(),
        files: FileStore::directory(directory.path()).unwrap(),
    }
}

/// What exports nothing.
fn telemetry() -> Telemetry {
    Telemetry::start(&config()).unwrap().0
}

fn node(store: &MemoryStore) -> Arc<Node> {
    let entropy = Entropy::seeded([3; 32]);
    Node::start(Arc::new(store.clone()), Arc::new(ManualClock::default()), entropy, Arc::new(NoModels))
}

/// How a server of this node ends.
async fn served(
    node: &Arc<Node>,
    asked: impl Future<Output = &'static str>,
    failure: mpsc::Receiver<String>,
) -> Result<Stopped, ServeError> {
    let outside = outside(&tempfile::tempdir().unwrap());
    let serving = Serving::begin(node, outside, &config(), None, &telemetry()).await?;
    serving.until(asked, failure).await
}

#[tokio::test]
async fn a_server_that_is_asked_to_stop_closes_its_store_and_ends_well() {
    let store = MemoryStore::default();
    let (_failed, failure) = mpsc::channel(1);
    assert!(served(&node(&store), ready("SIGTERM"), failure).await.is_ok());
    let read = store.row(EntityKey::INSTALLATION, Table(35), Bytes::new()).await;
    assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
}

#[tokio::test]
async fn a_store_that_fails_ends_the_server_with_its_reason() {
    let (failed, failure) = mpsc::channel(1);
    failed.try_send("no space left".to_owned()).unwrap();
    let served = served(&node(&MemoryStore::default()), pending(), failure).await;
    let Err(error) = served else { panic!("it ended well") };
    assert_eq!(error.to_string(), "the store failed: no space left");
}

#[tokio::test]
async fn without_a_word_from_anybody_it_goes_on() {
    let (failed, failure) = mpsc::channel(1);
    drop(failed);
    let node = node(&MemoryStore::default());
    tokio::select! {
        biased;
        _ = served(&node, pending(), failure) => panic!("nobody asked it to stop"),
        () = async { while bootstrap::pepper(&node).await.ok().flatten().is_none() { tokio::task::yield_now().await } } => {}
    }
}
