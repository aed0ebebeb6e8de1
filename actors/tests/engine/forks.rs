//! A copy of a conversation completes, whichever process ends meanwhile; and erased content survives in no copy.

use std::sync::Arc;
use std::time::Duration;

use actors::contact::{self, Resolve, entity_of};
use actors::conversation::{self, Command, Conversation, Forked, Forking, Opening, Origin, Post, Rejection};
use actors::directory::{Answer, CommandContext, Refusal};
use actors::id::{Address, ContactId, ConversationId, EntityKey};
use actors::message::NewMessage;
use actors::node::Node;
use actors::store::faulty::{FaultyStore, Rates};
use actors::store::memory::MemoryStore;
use actors::subscriptions::Missed;
use actors::workflows::{erasure, fork};

use crate::support::*;

const NONE: CommandContext = CommandContext { key: None, trace: None };
/// Messages of the original, which a copy takes several steps for.
const MESSAGES: usize = 300;

fn say(opening: Opening) -> Command {
    let message =
        |n| NewMessage { content: Arc::new(content(&format!("secret {n}"))), parent: None, review_millis: None };
    let messages = (0..MESSAGES).map(message).collect();
    Command::Post(Post { opening: Some(opening), expected: None, messages, turn: None })
}

#[tokio::test(start_paused = true)]
async fn a_copy_is_finished_by_the_next_process_after_faults_and_crashes() {
    let said: Vec<String> = (0..MESSAGES).map(|n| format!("secret {n}")).collect();
    let mut unfinished = 0;
    for seed in 0..12 {
        let store = Arc::new(FaultyStore::new(MemoryStore::default(), seed, Rates::default()));
        let clock = TokioClock::start();
        let node = node_by(&store, &clock);
        let source = entity(1);
        let copy = entity(2);
        node.conversation(source, say(opening(source)), NONE).await.unwrap();
        let of = Forked { source: opening(source).id, upto: MESSAGES as u64 + 1 };
        node.conversation(copy, Forking { opening: opening(copy), of }, NONE).await.unwrap();
        store.set_rates(Rates { refused: 200, unanswered: 200, late: 100, competed: 100, unread: 30 });
        // The process that was asked works for a while, and is gone.
        let _ = tokio::time::timeout(Duration::from_millis(seed * 5), fork::run(Arc::clone(&node), copy)).await;
        let is_over = async |node: &Arc<Node>| {
            let state = node.state::<Conversation>(copy).await;
            state.is_ok_and(|state| state.and_then(|state| state.fork).is_some_and(|fork| fork.next.is_none()))
        };
        unfinished += u32::from(!is_over(&node).await);
        let node = node_by(&store, &clock);
        for _ in 0..200 {
            tokio::time::sleep(Duration::from_secs(10)).await;
            if is_over(&node).await {
                break;
            }
        }
        store.calm();
        let copied: Vec<String> =
            texts(&node_by(&store, &clock), copy).await.into_iter().map(|(_, text)| text).collect();
        assert_eq!(copied, said, "seed {seed}: each message once, in order");
    }
    assert!(unfinished > 6, "most copies were cut off in the middle: {unfinished}");
}

/// A contact with messages, and their conversation.
async fn talkative(node: &Arc<Node>, ana: EntityKey) -> (ContactId, ConversationId) {
    let identifier = "secret@example.com".to_owned();
    let channel = "shop".to_owned();
    let resolve = Resolve { identifier, name: None, channel: channel.clone(), closed: None, revives: true };
    let command = contact::Command::Resolve(resolve);
    let (contact, open) = match node.contact(ana, command, NONE).await.unwrap() {
        Answer::Done(contact::Reply::Resolved { contact, conversation }) => (contact, conversation),
        other => panic!("{other:?}"),
    };
    let conversation = contact::conversation_of(ana, &channel, open.generation);
    node.conversation(conversation, say(of_contact(open.id, contact)), NONE).await.unwrap();
    (contact, open.id)
}

fn of_contact(id: ConversationId, contact: ContactId) -> Opening {
    let origin = Origin::Api { channel: "shop".to_owned(), contact, agent: "bot".to_owned() };
    Opening { id, origin, owner: None, details: conversation::Details::default() }
}

/// The steps of a request for a copy.
async fn copy(node: Arc<Node>, contact: ContactId, source: ConversationId, id: ConversationId) {
    let ana = EntityKey::contact(WORKSPACE, contact.address);
    // The contact notes the copy first; an erased contact refuses it.
    if node.contact(ana, contact::Command::Fork { id: contact, copy: id }, NONE).await.is_err() {
        return;
    }
    tokio::task::yield_now().await;
    let entity = EntityKey::conversation(WORKSPACE, id.address);
    let of = Forked { source, upto: MESSAGES as u64 + 1 };
    match node.conversation(entity, Forking { opening: of_contact(id, contact), of }, NONE).await {
        Err(Refusal::Rejected(Rejection::Erased)) => return,
        begun => begun.unwrap(),
    };
    fork::run(node, entity).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_erasure_that_races_with_a_copy_leaves_no_word_in_it() {
    let mut begun = 0;
    for round in 0..40 {
        let store = MemoryStore::default();
        let node = node_on(store.clone());
        let ana = entity_of(WORKSPACE, "secret@example.com");
        let (contact, source) = talkative(&node, ana).await;
        let id = ConversationId::new(NOW, Address::derive("copy", &[&[round]]));
        let entity = EntityKey::conversation(WORKSPACE, id.address);
        let mut told = node.subscribe(entity);
        let copying = tokio::spawn(copy(Arc::clone(&node), contact, source, id));
        // Half of the copies have begun for certain; whether the others have is the scheduler's choice.
        let has_begun = round % 2 == 1;
        if has_begun {
            // More events than are kept for a subscriber may have come at once; that also shows that the copy has
            // begun.
            assert!(matches!(told.recv().await, Ok(_) | Err(Missed(1..))));
        }
        for _ in 0..round {
            tokio::task::yield_now().await;
        }
        node.contact(ana, contact::Command::Erase { id: contact }, NONE).await.unwrap();
        erasure::run(Arc::clone(&node), ana).await.unwrap();
        copying.await.unwrap();
        let state = node.state::<Conversation>(entity).await.unwrap();
        assert!(state.is_some() || !has_begun, "round {round}: a copy that had begun is there");
        if let Some(state) = state {
            assert!(state.erasure.is_some_and(|erasure| erasure.next.is_none()), "round {round}: {state:?}");
            begun += u32::from(state.fork.is_some());
        }
        assert!(!format!("{store:?}").contains("secret"), "round {round}");
    }
    assert!(begun > 0, "some copies had begun");
}

#[tokio::test]
async fn a_conversation_begun_at_a_copys_address_is_not_erased_with_it() {
    let store = MemoryStore::default();
    let node = node_on(store.clone());
    let ana = entity_of(WORKSPACE, "secret@example.com");
    let (contact, source) = talkative(&node, ana).await;
    let elsewhere = entity(1);
    let copy = opening(elsewhere).id;
    node.contact(ana, contact::Command::Fork { id: contact, copy }, NONE).await.unwrap();
    node.conversation(elsewhere, post(elsewhere, "said to others"), NONE).await.unwrap();
    node.contact(ana, contact::Command::Erase { id: contact }, NONE).await.unwrap();
    erasure::run(Arc::clone(&node), ana).await.unwrap();
    let state = node.state::<Conversation>(elsewhere).await.unwrap().unwrap();
    assert_eq!((state.erasure, state.closed), (None, false));
    assert_eq!(texts(&node, elsewhere).await, [(2, "said to others".to_owned())]);
    assert!(!format!("{store:?}").contains("secret"));
    let source = node.state::<Conversation>(EntityKey::conversation(WORKSPACE, source.address)).await.unwrap();
    assert!(source.unwrap().erasure.is_some_and(|erasure| erasure.next.is_none()));
    assert_eq!(node.state::<contact::Contact>(ana).await.unwrap().unwrap().erasing, None);
}

/// Its place is left as it was.
#[tokio::test]
async fn a_copy_overtaken_by_an_erasure_is_refused() {
    let store = MemoryStore::default();
    let node = node_on(store.clone());
    let ana = entity_of(WORKSPACE, "secret@example.com");
    let (contact, source) = talkative(&node, ana).await;
    let place = entity(1);
    let copy = opening(place).id;
    node.contact(ana, contact::Command::Fork { id: contact, copy }, NONE).await.unwrap();
    node.contact(ana, contact::Command::Erase { id: contact }, NONE).await.unwrap();
    erasure::run(Arc::clone(&node), ana).await.unwrap();
    assert_eq!(node.state::<contact::Contact>(ana).await.unwrap().unwrap().erasing, None);
    assert_eq!(node.state::<Conversation>(place).await.unwrap(), None, "a key that is at home here did nothing");
    let of = Forked { source, upto: MESSAGES as u64 + 1 };
    let refused = node.conversation(place, Forking { opening: of_contact(copy, contact), of }, NONE).await;
    assert!(matches!(refused, Err(Refusal::Rejected(Rejection::Erased))), "{refused:?}");
    node.conversation(place, post(place, "said to others"), NONE).await.unwrap();
    // The erasure of the contact's next life covers the same entities.
    let (again, _) = talkative(&node, ana).await;
    node.contact(ana, contact::Command::Erase { id: again }, NONE).await.unwrap();
    erasure::run(Arc::clone(&node), ana).await.unwrap();
    assert_eq!(texts(&node, place).await, [(2, "said to others".to_owned())]);
}
