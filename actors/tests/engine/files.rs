//! Files whose bytes cannot be deleted, or whose use cannot be found out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use actors::attachment::{Attachment, Begin, Bind, Command, File};
use actors::directory::CommandContext;
use actors::id::{Address, AttachmentId, EntityKey};
use actors::limits;
use actors::node::Node;
use actors::ports::{Files, Ports};
use actors::store::conformance::{commit, on};
use actors::store::faulty::{FaultyStore, Rates};
use actors::store::memory::MemoryStore;
use actors::store::{Cause, Commit, ReadLevel, Store as _};
use futures_util::future::BoxFuture;
use tokio::time::sleep;
use tracing::Level;

use crate::lines::Lines;
use crate::support::*;

/// A file storage that is unavailable until `is_back`.
#[derive(Default)]
struct Place {
    asked: AtomicUsize,
    is_back: AtomicBool,
}

/// A local type, for which the port can be implemented.
struct Way(Arc<Place>);

impl Files for Way {
    fn clear(&self, _: String, _: Option<String>) -> BoxFuture<'_, Result<(), Cause>> {
        self.0.asked.fetch_add(1, Ordering::SeqCst);
        let is_back = self.0.is_back.load(Ordering::SeqCst);
        Box::pin(async move { if is_back { Ok(()) } else { Err("it is away".into()) } })
    }
}

/// A file whose bytes have arrived.
async fn arrived(node: &Arc<Node>) -> EntityKey {
    let e = EntityKey::attachment(WORKSPACE, Address([3; 10]));
    let file = File {
        filename: "a.png".to_owned(),
        mime_type: "image/png".to_owned(),
        size: 1,
        digest: [0; 32],
        storage_key: "a".to_owned(),
    };
    for command in [Command::Begin(Begin(AttachmentId::new(NOW, e.id))), Command::Complete(file)] {
        node.attachment(e, command, CommandContext::default()).await.unwrap();
    }
    e
}

#[tokio::test(start_paused = true)]
async fn a_place_of_bytes_that_is_away_is_asked_until_it_is_back() {
    let place = Arc::new(Place::default());
    let clock = TokioClock::start();
    let ports = Ports { files: Arc::new(Way(Arc::clone(&place))), ..Ports::default() };
    let node = Node::start(Arc::new(MemoryStore::default()), clock, entropy(), ports);
    let e = arrived(&node).await;
    sleep(Duration::from_millis(limits::ORPHAN_KEPT_MILLIS + 1_000)).await;
    let state = node.state::<Attachment>(e).await.unwrap().unwrap();
    assert!(state.erased && state.check_at.is_some());
    sleep(Duration::from_secs(3_600)).await;
    let asked = place.asked.load(Ordering::SeqCst);
    assert!((5..=8).contains(&asked), "{asked} times in an hour");
    place.is_back.store(true, Ordering::SeqCst);
    sleep(Duration::from_secs(660)).await;
    assert_eq!(node.state::<Attachment>(e).await.unwrap().unwrap().check_at, None);
}

#[tokio::test(start_paused = true)]
async fn a_file_of_a_damaged_conversation_is_checked_now_and_then_and_stays() {
    let (lines, _catching) = Lines::catch();
    let store = Arc::new(MemoryStore::default());
    let node = node_by(&store, &TokioClock::start());
    let e = arrived(&node).await;
    let conversation = entity(1);
    node.conversation(conversation, post(conversation, "a"), CommandContext::default()).await.unwrap();
    let bind = Bind { conversation: conversation.id, instead_of: None };
    node.attachment(e, bind, CommandContext::default()).await.unwrap();
    let head = store.load(conversation, ReadLevel::Settled).await.unwrap().unwrap().head;
    let damage = Commit { state: Some("\u{7f}?".into()), ..on(conversation, Some(head), "garbled") };
    commit(&*store, damage).await.unwrap();
    node.attachment(e, Command::Doubt, CommandContext::default()).await.unwrap();
    sleep(Duration::from_secs(3_600)).await;
    let checks = lines.of(Level::WARN, "could not check an attachment").len();
    assert!((5..=8).contains(&checks), "{checks} times in an hour");
    let state = node.state::<Attachment>(e).await.unwrap().unwrap();
    assert!(!state.erased && state.check_at.is_some(), "it is not known to be unused");
}

#[tokio::test(start_paused = true)]
async fn bytes_are_not_deleted_while_the_store_refuses_to_record_it() {
    let place = Arc::new(Place::default());
    let ports = Ports { files: Arc::new(Way(Arc::clone(&place))), ..Ports::default() };
    let store = FaultyStore::new(MemoryStore::default(), 0, Rates::default());
    let node = Node::start(Arc::new(store.clone()), TokioClock::start(), entropy(), ports);
    let e = arrived(&node).await;
    sleep(Duration::from_millis(limits::ORPHAN_KEPT_MILLIS + 1_000)).await;
    assert!(node.state::<Attachment>(e).await.unwrap().unwrap().erased);
    store.set_rates(Rates { refused: 1_000, ..Rates::default() });
    place.is_back.store(true, Ordering::SeqCst);
    sleep(Duration::from_secs(3_600)).await;
    assert_eq!(place.asked.load(Ordering::SeqCst), 1, "before its store refused");
    store.calm();
    sleep(Duration::from_secs(5)).await;
    let check_at = node.state::<Attachment>(e).await.unwrap().unwrap().check_at;
    assert_eq!((place.asked.load(Ordering::SeqCst), check_at), (2, None));
}
