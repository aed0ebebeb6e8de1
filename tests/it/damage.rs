//! Damaged data is a fault of the server that no retry mends, whether a read or a command meets it.

use actors::attachment;
use actors::channel::conversation_of;
use actors::id::{AttachmentId, ContactId, ConversationId, EntityKey};
use actors::store::conformance::{commit, on};
use actors::store::{Commit, Outcome, ReadLevel, Redaction, Store as _};
use actors::workspace::address_of;
use serde_json::{Value, json};

use crate::attachments::uploaded;
use crate::support::{Request, TestApp, TestStore};

const CONVERSATION: &str = "/api/v1/conversations";
const CONTACT_MESSAGES: &str = "/api/v1/channels/demo-api/messages";

/// A payload as no release writes it.
const GARBLED: &str = "\u{7f}?";

/// Damages an entity's data behind the server's back.
async fn damage(store: &TestStore, entity: EntityKey, how: impl FnOnce(Commit) -> Commit) {
    let head = store.load(entity, ReadLevel::Settled).await.unwrap().unwrap().head;
    let outcome = commit(store, how(on(entity, Some(head), "garbled"))).await.unwrap();
    assert!(matches!(outcome, Outcome::Committed(_)));
}

async fn damage_state(store: &TestStore, entity: EntityKey) {
    damage(store, entity, |commit| Commit { state: Some(GARBLED.into()), ..commit }).await;
}

/// What is stored of a contact who wrote one message, of a conversation, and of a message to a channel.
struct Stored {
    app: TestApp,
    contact: ContactId,
    conversation: ConversationId,
    /// The path of the message to the channel `demo`.
    message: String,
    file: AttachmentId,
}

async fn stored() -> Stored {
    let app = TestApp::new().await;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let said = app.post(CONTACT_MESSAGES).json(of_contact()).await.expect(200);
    let begun = app.post(CONVERSATION).json(json!({"title": "t"})).await.expect(201);
    let posted = app.post("/api/v1/messages").json(json!({"channelId": "demo", "text": "x"})).await.expect(201);
    Stored {
        contact: ContactId::parse(&text(&said["contactId"])).unwrap(),
        conversation: ConversationId::parse(&text(&begun["id"])).unwrap(),
        message: format!("/api/v1/messages/{}", text(&posted["id"])),
        file: AttachmentId::parse(&uploaded(&app, "a").await).unwrap(),
        app,
    }
}

fn of_contact() -> Value {
    json!({"type": "TEXT", "contactIdentifier": "c", "content": {"text": {"body": "x"}}})
}

/// No answer to damage says that a retry helps.
async fn is_the_servers_fault(requests: impl IntoIterator<Item = Request>) {
    for request in requests {
        let answer = request.await;
        assert_eq!(answer.header("retry-after"), "");
        answer.problem(500, "internal_error");
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_and_a_command_that_meet_the_same_damage_get_the_same_answer() {
    let stored = stored().await;
    let workspace = address_of("default");
    damage_state(&stored.app.store, EntityKey::conversation(workspace, stored.conversation.address)).await;
    damage_state(&stored.app.store, EntityKey::contact(workspace, stored.contact.address)).await;
    damage_state(&stored.app.store, EntityKey::attachment(workspace, stored.file.address)).await;
    let garbled = |commit| {
        let event = Redaction { seq: 2, payload: GARBLED.into() };
        Commit { redactions: vec![event], ..commit }
    };
    damage(&stored.app.store, conversation_of(workspace, "demo", 0), garbled).await;

    let app = TestApp::start(stored.app.store.clone(), &[]).await;
    let conversation = format!("{CONVERSATION}/{}", stored.conversation);
    let contact = format!("/api/v1/contacts/{}", stored.contact);
    let say = json!({"content": {"content": "x"}});
    let with_file = json!({"channelId": "demo", "text": "x", "attachmentIds": [stored.file.to_string()]});
    is_the_servers_fault([
        app.get(&conversation),
        app.post(format!("{conversation}/messages")).json(say.clone()),
        app.post(format!("{conversation}/messages")).json(say).idempotency_key("k"),
        app.patch(&conversation).json(json!({"title": "u"})),
        app.get(&contact),
        app.patch(&contact).json(json!({"name": "n"})),
        app.delete(&contact),
        app.post(CONTACT_MESSAGES).json(of_contact()),
        app.get(&stored.message),
        app.delete(&stored.message),
        app.get(format!("/api/v1/attachments/{}", stored.file)),
        app.post("/api/v1/messages").json(with_file),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_file_whose_conversation_is_damaged_is_no_reason_for_a_retry_either() {
    let stored = stored().await;
    let workspace = address_of("default");
    let conversation = EntityKey::conversation(workspace, stored.conversation.address);
    let bind = attachment::Bind { conversation: conversation.id, instead_of: None };
    let file = EntityKey::attachment(workspace, stored.file.address);
    stored.app.app.node().attachment(file, bind, Default::default()).await.unwrap();
    damage_state(&stored.app.store, conversation).await;

    let app = TestApp::start(stored.app.store.clone(), &[]).await;
    let with_file = json!({"channelId": "demo", "text": "x", "attachmentIds": [stored.file.to_string()]});
    is_the_servers_fault([app.post("/api/v1/messages").json(with_file)]).await;
}
