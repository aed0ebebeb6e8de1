//! An erasure completes, whatever fails and whichever process ends meanwhile.

use std::sync::Arc;
use std::time::Duration;

use actors::attachment::{self, settle};
use actors::contact::{self, Contact, OpenConversation, Resolve, entity_of};
use actors::conversation::amend::{Amend, Amendment, Edit as Edited};
use actors::conversation::{Command, Conversation, Details, Opening, Origin, Post, number_key};
use actors::directory::{Answer, CommandContext};
use actors::id::{Address, AttachmentId, ContactId, ConversationId, EntityKey};
use actors::memories::{self, Edit, Subject};
use actors::message::{Attachment, Content, NewMessage};
use actors::node::Node;
use actors::patch::Patch;
use actors::store::conformance::{commit, on};
use actors::store::faulty::{FaultyStore, Rates};
use actors::store::memory::MemoryStore;
use actors::store::{Commit, KeyRange, LogScan, Order, ReadLevel, RowWrite, Scan, SeqRange, Store as _};
use actors::tables::{BARRED, CHANNELS_ASIDE, FORKS, OVERLAYS, REPLAYS};
use actors::workflows::erasure;
use bytes::Bytes;
use tokio::time::sleep;
use tracing::Level;

use crate::lines::Lines;
use crate::support::*;

const NONE: CommandContext = CommandContext { key: None, trace: None };

fn ana() -> actors::id::EntityKey {
    entity_of(WORKSPACE, "secret@example.com")
}

async fn resolve(node: &Arc<Node>, channel: &str) -> (ContactId, OpenConversation) {
    let identifier = "secret@example.com".to_owned();
    let name = Some("secret name".to_owned());
    let resolve = Resolve { identifier, name, channel: channel.to_owned(), closed: None, revives: true };
    let command = contact::Command::Resolve(resolve);
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

/// A contact who has written on two channels, and is about to write on a third.
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
async fn an_erasure_is_finished_by_the_next_process_after_crashes() {
    for seed in 0..12 {
        let store = Arc::new(FaultyStore::new(MemoryStore::default(), seed, Rates::default()));
        let clock = TokioClock::start();
        let mut node = node_by(&store, &clock);
        let (id, later) = talkative(&node).await;
        assert!(format!("{:?}", store.inner()).contains("secret"));
        store.set_rates(Rates { refused: 100, unanswered: 100, late: 50, competed: 50, unread: 3 });
        erase(&node, id).await;
        // The process that was asked works for a while, and is gone.
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
        // A message that was in flight when the contact was erased.
        let e = contact::conversation_of(ana(), "later", later.generation);
        node.conversation(e, say(id, &later, 1), NONE).await.unwrap_err();
        assert!(!format!("{:?}", store.inner()).contains("secret"), "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_erasure_of_many_files_ends_on_a_store_that_fails_now_and_then() {
    let store = Arc::new(FaultyStore::new(MemoryStore::default(), 3, Rates::default()));
    let node = node_by(&store, &TokioClock::start());
    let (id, conversation) = resolve(&node, "shop").await;
    let Command::Post(post) = say(id, &conversation, 1) else { unreachable!() };
    let file = |n: u64| Attachment {
        id: AttachmentId::new(NOW, Address::derive("file", &[&n.to_le_bytes()])),
        filename: "a.png".to_owned(),
        mime_type: "image/png".to_owned(),
        size: 1,
        storage_key: "a".to_owned(),
        claim: Some(1),
    };
    let e = contact::conversation_of(ana(), "shop", conversation.generation);
    for n in 0..30 {
        let files = (n * 10..n * 10 + 10).map(file).collect();
        let content = Content { attachments: files, ..content("secret") };
        let message = NewMessage { content: Arc::new(content), parent: None, review_millis: None };
        let post = Command::Post(Post { messages: vec![message], ..post.clone() });
        node.conversation(e, post, NONE).await.unwrap();
    }
    store.set_rates(Rates::OFTEN);
    settle::release(&node, e).await.expect("each file is told");
    // One step of an erasure reads a hundred items, so with as many faults it would hardly ever succeed.
    store.set_rates(Rates { unread: 10, ..Rates::OFTEN });
    erase(&node, id).await;
    let ended = tokio::time::timeout(Duration::from_secs(120), erasure::run(Arc::clone(&node), ana())).await;
    ended.expect("it ends in time").expect("it reaches its end");
    store.calm();
    let state = node.state::<Contact>(ana()).await.unwrap().unwrap();
    assert_eq!(state.erasing, None);
}

/// Stores content that this program does not write.
async fn garble(store: &MemoryStore, entity: EntityKey, damage: impl FnOnce(Commit) -> Commit) {
    let head = store.load(entity, ReadLevel::Settled).await.unwrap().unwrap().head;
    commit(store, damage(on(entity, Some(head), "garbled"))).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_part_of_a_contact_keeps_no_other_part_from_erasure() {
    let (lines, _catching) = Lines::catch();
    let store = Arc::new(MemoryStore::default());
    let node = node_over(&store);
    let (id, _) = talkative(&node).await;
    let copied = ConversationId::new(NOW, Address::derive("copy", &[]));
    node.contact(ana(), contact::Command::Fork { id, copy: copied }, NONE).await.unwrap();
    let subject = Subject::Contact(id);
    let remember =
        memories::Remember { subject: subject.clone(), edits: vec![Edit::text_as_it_is("secret tea")], source: None };
    node.memories(subject.entity(WORKSPACE), remember, NONE).await.unwrap();
    let [shop, help] = ["shop", "help"].map(|channel| contact::conversation_of(ana(), channel, 1));
    let garbled = Some("\u{7f}?".into());
    garble(&store, shop, |on| Commit { state: garbled.clone(), ..on }).await;
    let rows: Vec<_> = [CHANNELS_ASIDE, FORKS]
        .into_iter()
        .flat_map(|table| (0..10).map(move |n: u8| (table, Bytes::copy_from_slice(&[0, n]))))
        .map(|(table, key)| RowWrite { table, key, value: garbled.clone() })
        .collect();
    garble(&store, ana(), |on| Commit { rows, ..on }).await;
    let node = node_over(&store);
    erase(&node, id).await;
    for _ in 0..2 {
        erasure::run(Arc::clone(&node), ana()).await.expect_err("not all of it is gone");
    }
    let state = node.state::<Contact>(ana()).await.unwrap().unwrap();
    assert!(state.erasing.is_some_and(|erasing| erasing.next.is_none()), "{state:?}");
    let state = node.state::<Conversation>(help).await.unwrap().unwrap();
    assert!(state.erasure.is_some_and(|erasure| erasure.next.is_none()), "{state:?}");
    let place = EntityKey::conversation(WORKSPACE, copied.address);
    let barred = node.rows(place, BARRED, Scan::new(KeyRange::default(), Order::Asc, 9)).await.unwrap();
    assert_eq!(barred.len(), 1, "no copy begins there any more");
    let of_shop = store.read_log(shop, LogScan { range: SeqRange::ALL, order: Order::Asc, limit: 1_000 });
    let stored = format!("{store:?}");
    let of_shop = format!("{:?}", of_shop.await.unwrap());
    let count = |text: &str| text.matches("secret").count();
    // The store holds the log whole, and again as the records since the newest state.
    assert!(count(&stored) <= 2 * count(&of_shop), "only one conversation is left");
    assert!(!stored.contains("secret name") && !stored.contains("secret@") && !stored.contains("tea"));
    let said = lines.of(Level::WARN, "part of a contact could not be erased");
    assert_eq!(said.len(), 2 * 8, "a line for each of so many, in each run");
    assert!(lines.of(Level::WARN, "many parts of a contact could not be erased")[0].contains("parts=21 "));
}

/// Everything else goes at once.
#[tokio::test(start_paused = true)]
async fn an_erasure_is_not_done_before_damaged_events_are_gone() {
    let (lines, _catching) = Lines::catch();
    let gate = Gate::new();
    let node = node_by(&Arc::new(gate.clone()), &TokioClock::start());
    let (id, _) = talkative(&node).await;
    erase(&node, id).await;
    gate.damage(Some(70));
    erasure::run(Arc::clone(&node), ana()).await.expect_err("some words stay");
    let stored = format!("{:?}", gate.inner);
    assert!(stored.contains("secret 68"), "the store rewrites nothing that it cannot read");
    assert!(!stored.replace("secret 68", "").contains("secret"));
    let said = lines.of(Level::ERROR, "events to be erased cannot be read");
    assert!(said.len() == 2 && said.iter().all(|line| line.contains("seq=70 ")), "{said:?}");
    sleep(Duration::from_secs(3_600)).await;
    let before = gate.commits();
    let said = lines.of(Level::ERROR, "").len();
    sleep(Duration::from_secs(3_600)).await;
    assert!((5..=7).contains(&(gate.commits() - before)), "it is looked at every ten minutes, and only that is noted");
    assert!(lines.of(Level::ERROR, "").len() - said <= 2 * 2 * 7);
    assert!(node.state::<Contact>(ana()).await.unwrap().unwrap().erasing.is_some());
    gate.damage(None);
    sleep(Duration::from_secs(660)).await;
    assert_eq!(node.state::<Contact>(ana()).await.unwrap().unwrap().erasing, None);
    assert!(!format!("{:?}", gate.inner).contains("secret"));
}

/// A contact with a message that was edited, the conversation, and the idempotency key of the edit.
async fn edited(node: &Arc<Node>) -> (ContactId, EntityKey, CommandContext) {
    let (contact, conversation) = resolve(node, "shop").await;
    let e = contact::conversation_of(ana(), "shop", conversation.generation);
    let said = messages(node.conversation(e, say(contact, &conversation, 3), NONE).await.unwrap());
    let edit = Amendment::Edit(Edited { text: Patch::Set("secret edit".to_owned()), ..Edited::default() });
    node.conversation(e, Amend { message: said[0].id, amendment: edit }, key(1, 1)).await.unwrap();
    (contact, e, key(1, 1))
}

#[tokio::test(start_paused = true)]
async fn a_damaged_edit_is_erased_with_everything_else() {
    let gate = Gate::new();
    let node = node_by(&Arc::new(gate.clone()), &TokioClock::start());
    let (id, ..) = edited(&node).await;
    assert!(format!("{:?}", gate.inner).contains("secret edit"));
    gate.damage_row(OVERLAYS, number_key(2));
    erase(&node, id).await;
    erasure::run(Arc::clone(&node), ana()).await.expect("all of it is gone");
    assert!(!format!("{:?}", gate.inner).contains("secret"));
}

#[tokio::test(start_paused = true)]
async fn an_erasure_is_not_done_before_damaged_answers_are_gone() {
    let (lines, _catching) = Lines::catch();
    let gate = Gate::new();
    let node = node_by(&Arc::new(gate.clone()), &TokioClock::start());
    let (id, e, _) = edited(&node).await;
    let shown = || node.rows(e, REPLAYS, Scan::new(KeyRange::default(), Order::Asc, 9));
    gate.damage_row(REPLAYS, shown().await.unwrap().remove(0).key);
    erase(&node, id).await;
    for _ in 0..2 {
        erasure::run(Arc::clone(&node), ana()).await.expect_err("an answer stays");
        let stored = format!("{:?}", gate.inner);
        assert!(stored.contains("secret edit") && !stored.replace("secret edit", "").contains("secret"));
    }
    assert!(lines.of(Level::ERROR, "events to be erased cannot be read").iter().all(|line| line.contains("seq=2 ")));
    assert!(shown().await.is_err());
    gate.mend_rows();
    erasure::run(Arc::clone(&node), ana()).await.expect("now it is gone");
    assert_eq!(shown().await.unwrap(), []);
    assert!(!format!("{:?}", gate.inner).contains("secret"));
}

#[tokio::test(start_paused = true)]
async fn an_erasure_is_not_done_while_the_contacts_own_log_is_damaged() {
    let (_lines, _catching) = Lines::catch();
    let gate = Gate::new();
    let node = node_by(&Arc::new(gate.clone()), &TokioClock::start());
    let (id, _) = talkative(&node).await;
    gate.damage_in(ana(), 1);
    erase(&node, id).await;
    erasure::run(Arc::clone(&node), ana()).await.expect_err("its name stays");
    let stored = format!("{:?}", gate.inner);
    assert!(stored.contains("secret name") && !stored.replace("secret name", "").contains("secret 1"));
    gate.damage(None);
    erasure::run(Arc::clone(&node), ana()).await.expect("now it is gone");
    assert_eq!(node.state::<Contact>(ana()).await.unwrap().unwrap().erasing, None);
    assert!(!format!("{:?}", gate.inner).contains("secret"));
}

#[tokio::test(start_paused = true)]
async fn an_erasure_that_was_taken_over_is_not_done_before_the_other() {
    let gate = Gate::new();
    let node = node_by(&Arc::new(gate.clone()), &TokioClock::start());
    let (id, _) = talkative(&node).await;
    erase(&node, id).await;
    // The first run erases everything but the memories and the contact's own log, and then hangs.
    gate.hang_loads(Some(Subject::Contact(id).entity(WORKSPACE)));
    let first = tokio::spawn(erasure::run(Arc::clone(&node), ana()));
    settle().await;
    let (again, _) = resolve(&node, "shop").await;
    assert_ne!(again, id);
    erase(&node, again).await;
    gate.hang_loads(None);
    first.await.unwrap().expect_err("the first name is still in the log");
    assert!(format!("{:?}", gate.inner).contains("secret name"));
    erasure::run(Arc::clone(&node), ana()).await.unwrap();
    assert_eq!(node.state::<Contact>(ana()).await.unwrap().unwrap().erasing, None);
    assert!(!format!("{:?}", gate.inner).contains("secret"));
}

#[tokio::test(start_paused = true)]
async fn a_repeated_erasure_waits_for_the_one_under_way() {
    let gate = Gate::new();
    let node = node_by(&Arc::new(gate.clone()), &TokioClock::start());
    let (id, _) = talkative(&node).await;
    erase(&node, id).await;
    gate.hang_loads(Some(Subject::Contact(id).entity(WORKSPACE)));
    let first = erasure::begin(&node, ana());
    settle().await;
    let reads = gate.reads();
    let commits = gate.commits();
    let others: Vec<_> = (0..10).map(|_| erasure::begin(&node, ana())).collect();
    settle().await;
    assert!(reads > 0 && (gate.reads(), gate.commits()) == (0, commits), "nothing is gone through beside it");
    // Meanwhile the next contact at the same address is to be erased too.
    let (again, _) = resolve(&node, "shop").await;
    erase(&node, again).await;
    let second = erasure::begin(&node, ana());
    gate.hang_loads(None);
    for ended in others.into_iter().chain([first, second]) {
        assert!(ended.is_done().await);
    }
    assert_eq!(node.state::<Contact>(ana()).await.unwrap().unwrap().erasing, None);
    assert!(!format!("{:?}", gate.inner).contains("secret"));
}

/// A file, and a contact's message with it.
async fn with_file(node: &Arc<Node>) -> (ContactId, EntityKey, EntityKey) {
    let (contact, conversation) = resolve(node, "shop").await;
    let e = contact::conversation_of(ana(), "shop", conversation.generation);
    let at = EntityKey::attachment(WORKSPACE, Address([3; 10]));
    let file = attachment::File {
        filename: "a.png".to_owned(),
        mime_type: "image/png".to_owned(),
        size: 1,
        digest: [0; 32],
        storage_key: "a".to_owned(),
    };
    let id = AttachmentId::new(NOW, at.id);
    let bind = attachment::Command::Bind(attachment::Bind { conversation: e.id, instead_of: None });
    for command in [attachment::Command::Begin(attachment::Begin(id)), attachment::Command::Complete(file), bind] {
        node.attachment(at, command, NONE).await.unwrap();
    }
    let file = Attachment {
        id,
        filename: "a.png".to_owned(),
        mime_type: "image/png".to_owned(),
        size: 1,
        storage_key: "a".to_owned(),
        claim: Some(1),
    };
    let Command::Post(post) = say(contact, &conversation, 1) else { unreachable!() };
    let content = Content { attachments: vec![file], ..content("secret") };
    let message = NewMessage { content: Arc::new(content), parent: None, review_millis: None };
    node.conversation(e, Command::Post(Post { messages: vec![message], ..post }), NONE).await.unwrap();
    (contact, e, at)
}

#[tokio::test(start_paused = true)]
async fn a_file_goes_although_its_message_cannot_be_read_to_be_erased() {
    let (_lines, _catching) = Lines::catch();
    let gate = Gate::new();
    let node = node_by(&Arc::new(gate.clone()), &TokioClock::start());
    let (id, e, file) = with_file(&node).await;
    gate.damage_in(e, 2);
    erase(&node, id).await;
    erasure::run(Arc::clone(&node), ana()).await.expect_err("the message stays");
    sleep(Duration::from_secs(3_600)).await;
    assert!(node.state::<attachment::Attachment>(file).await.unwrap().unwrap().erased);
}

#[tokio::test(start_paused = true)]
async fn a_file_whose_message_cannot_be_read_is_kept_and_looked_at_now_and_then() {
    let (_lines, _catching) = Lines::catch();
    let gate = Gate::new();
    let node = node_by(&Arc::new(gate.clone()), &TokioClock::start());
    let (_, e, file) = with_file(&node).await;
    gate.damage_in(e, 2);
    node.attachment(file, attachment::Command::Doubt, NONE).await.unwrap();
    sleep(Duration::from_secs(2 * 3_600)).await;
    gate.reads();
    sleep(Duration::from_secs(3_600)).await;
    assert!(!node.state::<attachment::Attachment>(file).await.unwrap().unwrap().erased);
    let reads = gate.reads();
    assert!((6..200).contains(&reads), "{reads} in an hour");
}
