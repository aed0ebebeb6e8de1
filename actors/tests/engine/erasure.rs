//! An erasure reaches its end, whatever fails and whoever ends meanwhile.

use std::sync::Arc;
use std::time::Duration;

use actors::contact::{self, Contact, OpenConversation, entity_of};
use actors::conversation::{Command, Details, Opening, Origin, Post};
use actors::directory::{Answer, Circumstances};
use actors::erasure;
use actors::id::ContactId;
use actors::message::NewMessage;
use actors::node::Node;
use actors::store::faulty::{FaultyStore, Rates};
use actors::store::memory::MemoryStore;

use crate::support::*;

const NONE: Circumstances = Circumstances { key: None, trace: None };

fn ana() -> actors::id::EntityKey {
    entity_of(WORKSPACE, "secret@example.com")
}

async fn resolve(node: &Arc<Node>, channel: &str) -> (ContactId, OpenConversation) {
    let (identifier, name) = ("secret@example.com".to_owned(), Some("secret name".to_owned()));
    let command =
        contact::Command::Resolve { identifier, name, channel: channel.to_owned(), closed: None, revives: true };
    match node.contact(ana(), command, NONE).await.unwrap() {
        Answer::Done(contact::Reply::Resolved { contact, conversation }) => (contact, conversation),
        other => panic!("{other:?}"),
    }
}

fn say(contact: ContactId, conversation: &OpenConversation, texts: usize) -> Command {
    let origin = Origin::Api { channel: conversation.channel.clone(), contact, agent: "bot".to_owned() };
    let opening = Opening { id: conversation.id, origin, owner: None, details: Details::default() };
    let message =
        |n| NewMessage { content: Arc::new(content(&format!("secret {n}"))), parent: None, review_millis: None };
    Command::Post(Post {
        opening: Some(opening),
        expected: None,
        messages: (0..texts).map(message).collect(),
        turn: None,
    })
}

/// A contact who has said something on two channels, and is about to on a third.
async fn talkative(node: &Arc<Node>) -> (ContactId, OpenConversation) {
    for channel in ["shop", "help"] {
        let (contact, conversation) = resolve(node, channel).await;
        let e = contact::conversation_of(ana(), channel, conversation.generation);
        node.conversation(e, say(contact, &conversation, 150), NONE).await.unwrap();
    }
    resolve(node, "later").await
}

async fn erase(node: &Arc<Node>, id: ContactId) {
    while node.contact(ana(), contact::Command::Erase { id }, NONE).await.is_err() {
        let state = node.state::<Contact>(ana()).await;
        if state.is_ok_and(|state| state.is_some_and(|state| state.erased_at.is_some())) {
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_erasure_is_finished_by_whoever_comes_after_faults_and_crashes() {
    for seed in 0..12 {
        let store = Arc::new(FaultyStore::new(MemoryStore::default(), seed, Rates::default()));
        let clock = TokioClock::start();
        let mut node = node_by(&store, &clock);
        let (id, later) = talkative(&node).await;
        assert!(format!("{:?}", store.inner()).contains("secret"));
        store.set_rates(Rates { refused: 100, unanswered: 100, late: 50, competed: 50, unread: 3 });
        erase(&node, id).await;
        // Whoever was asked goes on for a while, and is gone.
        let _ = tokio::time::timeout(Duration::from_millis(seed), erasure::run(Arc::clone(&node), ana())).await;
        node = node_by(&store, &clock);
        for _ in 0..200 {
            tokio::time::sleep(Duration::from_secs(10)).await;
            if node.state::<Contact>(ana()).await.is_ok_and(|state| state.unwrap().erasing.is_none()) {
                break;
            }
        }
        store.calm();
        node = node_by(&store, &clock);
        let state = node.state::<Contact>(ana()).await.unwrap().unwrap();
        assert_eq!((state.erasing, state.name), (None, None), "seed {seed}");
        // A message that was on its way when the contact was erased.
        let e = contact::conversation_of(ana(), "later", later.generation);
        node.conversation(e, say(id, &later, 1), NONE).await.unwrap_err();
        assert!(!format!("{:?}", store.inner()).contains("secret"), "seed {seed}");
    }
}
