//! Copies of conversations, and other operations on whole conversations, through HTTP.

use std::sync::Arc;

use actors::conversation::fork::{Copying, Original};
use actors::conversation::{Command, Details, Forked, Forking, Opening, Origin};
use actors::id::{ContactId, ConversationId, EntityKey};
use actors::limits::KEY_KEPT_MILLIS;
use actors::message::{Content, Sender, SenderKind};
use actors::store::{KeyRange, Order, Scan, Store};
use actors::tables::FORKS;
use actors::workspace::address_of;
use serde_json::{Value, json};

use crate::models::{asked, asking, completion, whole};
use crate::support::{TestApp, text};

#[cfg(unix)]
mod kills;

const CONVERSATIONS: &str = "/api/v1/conversations";

/// A conversation with these messages; returns them.
async fn said(app: &TestApp, messages: Value) -> Vec<Value> {
    let opened = app.post(CONVERSATIONS).json(json!({"title": "Trip", "ownerId": "ana"})).await.expect(201);
    let body = json!({"content": messages, "conversation_id": opened["id"]});
    app.post("/api/v1/messages").json(body).await.expect(200).as_array().unwrap().clone()
}

async fn messages(app: &TestApp, conversation: &Value) -> Vec<Value> {
    let page = app.get(format!("{CONVERSATIONS}/{}/messages?limit=200", text(conversation))).await.expect(200);
    page["data"].as_array().unwrap().clone()
}

fn of(messages: &[Value], member: &str) -> Vec<Value> {
    messages.iter().map(|message| message[member].clone()).collect()
}

fn fork(app: &TestApp, message: &Value) -> crate::support::Request {
    app.post(format!("{CONVERSATIONS}/{}/fork", text(&message["conversation_id"])))
}

#[tokio::test]
async fn a_copy_has_the_same_content_in_messages_of_its_own() {
    let app = TestApp::new().await;
    let originals = said(
        &app,
        json!([
            {"content": "one", "created_at": "2023-11-07T05:31:56Z", "tags": ["a"], "meta_data": {"n": 1.50}},
            {"content": "two", "role": "assistant", "parent_message_id": "#0", "tool_calls": [{"id": "c"}]},
            {"content": "gone", "parent_message_id": "#1"},
            {"content": "four", "parent_message_id": "#2", "attachments": [{"url": "x"}]},
            {"content": "five"},
        ]),
    )
    .await;
    app.delete(format!("/api/v1/messages/{}", text(&originals[2]["id"]))).await.expect(204);
    let first = format!("/api/v1/messages/{}", text(&originals[0]["id"]));
    app.patch(first).json(json!({"content": "one, edited", "tags": ["b"]})).await.expect(200);

    let answer = fork(&app, &originals[0]).json(json!({"atMessageId": originals[3]["id"]})).await;
    assert_eq!(answer.header("location"), format!("{CONVERSATIONS}/{}", text(&answer.json["id"])));
    let copy = answer.expect(201);
    assert_eq!((&copy["title"], &copy["ownerId"], &copy["status"]), (&json!("Trip"), &json!("ana"), &json!("open")));
    assert_eq!((&copy["forkedFrom"], &copy["messageCount"]), (&originals[0]["conversation_id"], &json!(3)));
    assert_eq!(app.get(format!("{CONVERSATIONS}/{}", text(&copy["id"]))).await.expect(200), copy);

    let copies = messages(&app, &copy["id"]).await;
    assert_eq!(of(&copies, "content"), ["one, edited", "two", "four"]);
    assert_eq!(of(&copies, "role"), ["user", "assistant", "user"]);
    assert_eq!(copies[0]["created_at"], "2023-11-07T05:31:56.000Z");
    assert_eq!((&copies[0]["tags"], &copies[0]["updated_at"]), (&json!(["b"]), &json!(null)));
    assert_eq!(copies[0]["meta_data"].to_string(), json!({"n": 1.5}).to_string());
    assert_eq!(
        (&copies[1]["tool_calls"], &copies[1]["created_at"]),
        (&json!([{"id": "c"}]), &originals[1]["created_at"])
    );
    assert_eq!(copies[2]["attachments"], json!([{"url": "x"}]));
    let parents = of(&copies, "parent_message_id");
    assert_eq!(parents, [json!(null), copies[0]["id"].clone(), copies[1]["id"].clone()], "past the deleted one");
    for (one, other) in copies.iter().zip(&originals) {
        assert_ne!(one["id"], other["id"]);
        assert_eq!((&one["conversation_id"], &one["owner_id"]), (&copy["id"], &json!("ana")));
    }

    let more = json!({"content": {"content": "on its own"}, "conversation_id": copy["id"]});
    app.post("/api/v1/messages").json(more).await.expect(200);
    assert_eq!(messages(&app, &originals[0]["conversation_id"]).await.len(), 5, "the original stays as it was");
    let events = app.get(format!("{CONVERSATIONS}/{}/events", text(&copy["id"]))).await.expect(200);
    let sequences: Vec<_> = of(events["data"].as_array().unwrap(), "sequence");
    assert_eq!(sequences, [1, 2, 3, 4, 5], "and the copy has a log without gaps");
    assert_eq!(events["data"][0]["data"]["forkedFrom"], originals[0]["conversation_id"]);
}

#[tokio::test]
async fn branches_stay_apart_in_a_copy_although_what_they_answer_was_deleted() {
    let (app, origin) = asking(json!({}), |_| whole(&completion("seen"))).await;
    let originals = said(
        &app,
        json!([
            {"content": "root"},
            {"content": "one", "parent_message_id": "#0"},
            {"content": "other", "parent_message_id": "#0"},
            {"content": "one more", "parent_message_id": "#1"},
        ]),
    )
    .await;
    app.delete(format!("/api/v1/messages/{}", text(&originals[0]["id"]))).await.expect(204);
    let copy = fork(&app, &originals[0]).await.expect(201);
    let copies = messages(&app, &copy["id"]).await;
    assert_eq!(of(&copies, "content"), ["", "one", "other", "one more"]);
    assert_eq!(of(&copies, "deleted"), [json!(true), Value::Null, Value::Null, Value::Null]);
    let id = |n: usize| copies[n]["id"].clone();
    assert_eq!(of(&copies, "parent_message_id"), [Value::Null, id(0), id(0), id(1)]);
    let place = format!("/api/v1/messages/{}", text(&id(0)));
    app.patch(place).json(json!({"content": "back"})).await.problem(409, "message_deleted");

    for conversation in [&originals[0]["conversation_id"], &copy["id"]] {
        let other = &messages(&app, conversation).await[2]["id"];
        let question = json!({"content": "?", "parent_message_id": other});
        let body = json!({"content": question, "conversation_id": conversation});
        app.post("/api/v1/messages").json(body).await.expect(200);
        let turns = format!("{CONVERSATIONS}/{}/turns", text(conversation));
        app.post(turns).json(json!({"agentId": "echo"})).await.expect(202);
        let log = format!("{CONVERSATIONS}/{}/events?after=0", text(conversation));
        app.get(log).follow().await.up_to("turn.completed").await;
    }
    for asked in asked(&origin) {
        assert_eq!(of(asked["messages"].as_array().unwrap(), "content"), ["other", "?"]);
    }
}

#[tokio::test]
async fn a_deleted_message_without_children_is_in_no_copy() {
    let app = TestApp::new().await;
    let originals = said(&app, json!([{"content": "gone"}, {"content": "one"}, {"content": "two"}])).await;
    app.delete(format!("/api/v1/messages/{}", text(&originals[0]["id"]))).await.expect(204);
    let copy = fork(&app, &originals[0]).await.expect(201);
    assert_eq!(of(&messages(&app, &copy["id"]).await, "content"), ["one", "two"]);
}

#[tokio::test]
async fn a_long_conversation_is_copied_whole_and_in_order() {
    let app = TestApp::new().await;
    let hundred = |from: usize| (from..from + 100).map(|n| json!({"content": n.to_string()})).collect::<Vec<_>>();
    let first = said(&app, json!(hundred(0))).await;
    for from in [100, 200, 300] {
        let parent = json!({"content": format!("answers the {from}th"), "parent_message_id": first[7]["id"]});
        let items: Vec<_> = hundred(from).into_iter().take(99).chain([parent]).collect();
        let body = json!({"content": items, "conversation_id": first[0]["conversation_id"]});
        app.post("/api/v1/messages").json(body).await.expect(200);
    }
    let copy = fork(&app, &first[0]).await.expect(201);
    assert_eq!(copy["messageCount"], 400);
    let copies = messages(&app, &copy["id"]).await;
    let originals = messages(&app, &first[0]["conversation_id"]).await;
    assert_eq!(of(&copies, "content"), of(&originals, "content"));
    assert_eq!(copies[199]["parent_message_id"], copies[7]["id"], "a parent may stand far before");
}

#[tokio::test]
async fn a_retry_of_a_copy_is_answered_with_the_same_copy() {
    let app = TestApp::new().await;
    let originals = said(&app, json!([{"content": "one"}, {"content": "two"}])).await;
    let first = fork(&app, &originals[0]).json(json!({})).idempotency_key("k").await;
    let more = json!({"content": {"content": "three"}, "conversation_id": first.json["id"]});
    app.post("/api/v1/messages").json(more).await.expect(200);
    let renamed = json!({"title": "Another"});
    app.patch(format!("{CONVERSATIONS}/{}", text(&first.json["id"]))).json(renamed).await.expect(200);
    let retry = fork(&app, &originals[0]).json(json!({})).idempotency_key("k").await;
    assert_eq!((retry.header("idempotent-replayed"), retry.status, &retry.bytes), ("true", 201, &first.bytes));
    let other = fork(&app, &originals[0]).json(json!({"atMessageId": originals[0]["id"]})).idempotency_key("k").await;
    other.problem(422, "idempotency_key_reused");
    let (one, two) = tokio::join!(
        fork(&app, &originals[0]).idempotency_key("r").send(),
        fork(&app, &originals[0]).idempotency_key("r").send()
    );
    assert_eq!((one.status, one.bytes), (two.status, two.bytes), "two that race are one");
}

#[tokio::test]
async fn each_refusal_of_a_fork_has_its_own_code() {
    let app = TestApp::new().await;
    let originals = said(&app, json!([{"content": "one"}])).await;
    let elsewhere = said(&app, json!([{"content": "two"}])).await;
    for at in [json!("msg_x"), json!("#0"), elsewhere[0]["id"].clone()] {
        fork(&app, &originals[0]).json(json!({"atMessageId": at})).await.problem(404, "message_not_found");
    }
    for (body, fault) in [
        (json!({"atMessageId": 5}), "invalid_type /atMessageId"),
        (json!({"atMessageId": ""}), "too_short /atMessageId"),
        (json!({"atMessageId": "x".repeat(256)}), "too_long /atMessageId"),
    ] {
        assert_eq!(fork(&app, &originals[0]).json(body).await.faults(), [fault]);
    }
    for id in ["conv_x", "conv_00000000000000000000000000"] {
        app.post(format!("{CONVERSATIONS}/{id}/fork")).json(json!({})).await.problem(404, "conversation_not_found");
    }
    let other = app.workspace("other").await;
    fork(&app, &originals[0]).key(&other).json(json!({})).await.problem(404, "conversation_not_found");
    let reader = app.key_with(&["messages:read"]).await;
    fork(&app, &originals[0]).key(&reader).json(json!({})).await.problem(403, "insufficient_scope");
    let ignored = fork(&app, &originals[0]).json(json!({"depth": 1, "atMessageId": null})).await;
    assert_eq!((ignored.status, ignored.header("x-ignored-fields")), (201, "depth"));
    let closed = format!("{CONVERSATIONS}/{}", text(&originals[0]["conversation_id"]));
    app.patch(closed).json(json!({"status": "closed"})).await.expect(200);
    assert_eq!(fork(&app, &originals[0]).await.expect(201)["status"], "open", "a closed one can be copied");
}

#[tokio::test]
async fn a_contacts_erasure_reaches_every_copy_of_its_conversations() {
    let app = TestApp::new().await;
    let message = json!({"type": "TEXT", "contactIdentifier": "ana", "content": {"text": {"body": "secret"}}});
    let asked = app.post("/api/v1/channels/demo-api/messages").json(message).await.expect(200);
    let source = json!({"conversation_id": asked["conversationId"]});
    app.clock.advance(1);
    let copy = fork(&app, &source).await.expect(201);
    app.clock.advance(1);
    assert_eq!((&copy["contactId"], &copy["channelId"]), (&asked["contactId"], &json!("demo-api")));
    let again = fork(&app, &json!({"conversation_id": copy["id"]})).await.expect(201);
    let listed = app.get(format!("/api/v1/contacts/{}/conversations", text(&asked["contactId"]))).await.expect(200);
    assert_eq!(
        of(listed["data"].as_array().unwrap(), "id"),
        [asked["conversationId"].clone(), copy["id"].clone(), again["id"].clone()]
    );
    assert_eq!(of(&messages(&app, &again["id"]).await, "content"), ["secret", "secret"]);
    app.delete(format!("/api/v1/contacts/{}", text(&asked["contactId"]))).await.expect(204);
    for conversation in [&copy["id"], &again["id"]] {
        assert!(messages(&app, conversation).await.iter().all(|message| message["erased"] == true));
        let more = json!({"content": {"content": "late"}, "conversation_id": conversation});
        app.post("/api/v1/messages").json(more).await.problem(409, "conversation_closed");
    }
    fork(&app, &source).await.problem(409, "conversation_erased");
}

#[tokio::test]
async fn an_erasure_spares_the_conversation_that_a_copys_key_once_opened() {
    let app = TestApp::new().await;
    let other = json!({"conversation_id": null, "content": {"content": "said to others"}});
    let other = app.post("/api/v1/messages").json(other).idempotency_key("k").await.expect(200);
    let other = &other.as_array().unwrap()[0]["conversation_id"];
    app.clock.advance(KEY_KEPT_MILLIS + 1);
    let message = json!({"type": "TEXT", "contactIdentifier": "ana", "content": {"text": {"body": "secret"}}});
    let asked = app.post("/api/v1/channels/demo-api/messages").json(message).await.expect(200);
    let copy = fork(&app, &json!({"conversation_id": asked["conversationId"]})).idempotency_key("k").await.expect(201);
    assert_ne!(&copy["id"], other);
    let contact = ContactId::parse(text(&asked["contactId"])).unwrap();
    let contact = EntityKey::contact(address_of("default"), contact.address);
    let noted = app.store.rows(contact, FORKS, Scan::new(KeyRange::default(), Order::Asc, 10)).await.unwrap();
    let noted: Vec<_> = noted.iter().map(|row| &row.key[..]).collect();
    let copied = ConversationId::parse(text(&copy["id"])).unwrap();
    assert_eq!(noted, [&copied.address.0[..]], "no other conversation is noted as a copy");
    app.delete(format!("/api/v1/contacts/{}", text(&asked["contactId"]))).await.expect(204);
    assert!(messages(&app, &copy["id"]).await.iter().all(|message| message["erased"] == true));
    assert_eq!(of(&messages(&app, other).await, "content"), ["said to others"]);
    assert_eq!(app.get(format!("{CONVERSATIONS}/{}", text(other))).await.expect(200)["status"], "open");
}

/// Also once the contact of that conversation is erased.
#[tokio::test]
async fn a_used_key_makes_nothing_else_after_a_fork_with_it_was_refused() {
    let app = TestApp::new().await;
    let agent = json!({"id": "bot", "name": "Bot", "provider": "builtin"});
    app.post("/api/v1/agents").json(agent).idempotency_key("k").await.expect(201);
    let message = json!({"type": "TEXT", "contactIdentifier": "ana", "content": {"text": {"body": "secret"}}});
    let asked = app.post("/api/v1/channels/demo-api/messages").json(message).await.expect(200);
    let source = json!({"conversation_id": asked["conversationId"]});
    fork(&app, &source).idempotency_key("k").await.problem(422, "idempotency_key_reused");
    app.delete(format!("/api/v1/contacts/{}", text(&asked["contactId"]))).await.expect(204);
    let upload = app.post("/api/v1/attachments").body("application/pdf", b"%PDF-1.4".to_vec()).idempotency_key("k");
    upload.await.problem(422, "idempotency_key_reused");
    let opened = app.post(CONVERSATIONS).json(json!({"title": "t"})).idempotency_key("k").await;
    opened.problem(422, "idempotency_key_reused");
}

#[tokio::test]
async fn a_copy_still_being_made_is_forked_only_as_far_as_it_has_come() {
    let app = TestApp::new().await;
    let originals = said(&app, json!([{"content": "one"}, {"content": "two"}])).await;
    let source = ConversationId::parse(text(&originals[0]["conversation_id"])).unwrap();
    // A process that dies after copying the first message has done this much.
    let id = app.app.node().new_conversation(None);
    let entity = EntityKey::conversation(address_of("default"), id.address);
    let opening = Opening { id, origin: Origin::Direct, owner: None, details: Details::default() };
    let begin = Forking { opening, of: Forked { source, upto: 3 } };
    app.app.node().conversation(entity, begin, Default::default()).await.unwrap();
    let content = Content::text("user", Sender { kind: SenderKind::User, id: "ana".to_owned() }, "one");
    let first = Original { number: 2, parent: None, content: Some(content.into()) };
    let first = Command::Copy(Copying { from: 1, next: Some(3), originals: vec![first] });
    app.app.node().conversation(entity, first, Default::default()).await.unwrap();

    let unfinished = json!({"conversation_id": id.to_string()});
    let refused = fork(&app, &unfinished).idempotency_key("k").await;
    assert_eq!(refused.header("retry-after"), "1");
    refused.problem(503, "contended");
    let first = &messages(&app, &unfinished["conversation_id"]).await[0];
    let part = fork(&app, &unfinished).json(json!({"atMessageId": first["id"]})).await.expect(201);
    assert_eq!(of(&messages(&app, &part["id"]).await, "content"), ["one"]);
    actors::workflows::fork::run(Arc::clone(app.app.node()), entity).await.unwrap();
    let whole = fork(&app, &unfinished).idempotency_key("k").await.expect(201);
    assert_eq!(of(&messages(&app, &whole["id"]).await, "content"), ["one", "two"]);
}

#[tokio::test]
async fn a_question_to_people_is_not_asked_again_by_a_copy() {
    let app = TestApp::new().await;
    let asked = json!({"channelId": "demo", "text": "Ship?", "status": "info", "review": {"type": "approval"}});
    app.post("/api/v1/messages").json(asked).await.expect(201);
    let events = app.get("/api/v1/channels/demo/events").await.expect(200);
    let conversation = json!({"conversation_id": events["data"][0]["data"]["conversationId"]});
    let copy = fork(&app, &conversation).await.expect(201);
    assert_eq!(of(&messages(&app, &copy["id"]).await, "content"), ["Ship?"]);
    let reviews = app.get("/api/v1/reviews?status=pending").await.expect(200);
    assert_eq!(reviews["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_conversation_changes_only_if_it_is_as_it_was_seen() {
    let app = TestApp::new().await;
    let made = app.post(CONVERSATIONS).json(json!({"title": "one"})).await;
    let tag = made.header("etag").to_owned();
    let path = format!("{CONVERSATIONS}/{}", text(&made.json["id"]));
    let hello = json!({"content": {"content": "hi"}, "conversation_id": made.json["id"]});
    app.post("/api/v1/messages").json(hello).await.expect(200);
    let read = async |tag: &str| app.get(&path).header("if-none-match", tag).await;
    let with_message = read(&tag).await;
    assert_eq!((with_message.status, &with_message.json["messageCount"]), (200, &json!(1)));
    let known = with_message.header("etag").to_owned();
    let again = read(&format!("W/{known}, \"x\"")).await;
    assert_eq!((again.status, again.bytes.len(), again.header("etag")), (304, 0, known.as_str()));
    assert_eq!(read("*").await.status, 304);
    let changed = app.patch(&path).header("if-match", &tag).json(json!({"title": "two"})).await;
    assert_eq!(read(&known).await.status, 200, "a message does no harm to If-Match, and a change is seen");
    let newer = changed.header("etag").to_owned();
    changed.expect(200);
    let stale = app.patch(&path).header("if-match", &tag).json(json!({"status": "closed"})).await;
    stale.problem(412, "precondition_failed");
    assert_eq!(app.get(&path).await.expect(200)["status"], "open");
    app.patch(&path).header("if-match", "*").json(json!({"summary": "s"})).await.expect(200);
    app.patch(&path).header("if-match", &newer).json(json!({"title": "x"})).await.problem(412, "precondition_failed");
    app.patch(&path).header("if-match", "\"").json(json!({"title": "x"})).await.problem(400, "invalid_header");
    let racing = app.get(&path).await.header("etag").to_owned();
    let change = |title: &str| app.patch(&path).header("if-match", &racing).json(json!({"title": title})).send();
    let (one, two) = tokio::join!(change("a"), change("b"));
    let mut statuses = [one.status, two.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 412], "of two that saw the same, one changes it");
}

#[tokio::test]
async fn a_search_finds_words_in_any_order_and_phrases_as_they_stand() {
    let app = TestApp::new().await;
    let originals = said(
        &app,
        json!([{"content": "The Quick brown fox"}, {"content": "a brown, quick dog"}, {"content": "ÄRGER"}]),
    )
    .await;
    app.post("/api/v1/messages").json(json!({"channelId": "demo", "text": "quick **brown** bread"})).await.expect(201);
    let found = async |search: &str| {
        let at = format!("{CONVERSATIONS}/{}/messages?search={search}", text(&originals[0]["conversation_id"]));
        of(app.get(at).await.expect(200)["data"].as_array().unwrap(), "content")
    };
    assert_eq!(found("brown%20quick").await, ["The Quick brown fox", "a brown, quick dog"]);
    assert_eq!(found("%22quick%20brown%22").await, ["The Quick brown fox"]);
    assert_eq!(found("%22brown%22%20FOX").await, ["The Quick brown fox"]);
    assert_eq!(found("%C3%A4rger").await, ["ÄRGER"]);
    assert_eq!(found("cat").await, [""; 0]);
    assert_eq!(found("%20").await.len(), 3);
    let channel = app.get("/api/v1/messages?channelId=demo&search=bread+quick").await.expect(200);
    assert_eq!(channel["data"].as_array().unwrap().len(), 1);
}
