//! Memories, through HTTP.

use std::time::Duration;

use serde_json::{Value, json};

use crate::models::{asked, asking, completion, whole};
use crate::support::origin::Origin;
use crate::support::until::until;
use crate::support::{TestApp, text};

fn texts(page: &Value) -> Vec<&str> {
    page["data"].as_array().unwrap().iter().map(|memory| text(&memory["text"])).collect()
}

async fn contact(app: &TestApp) -> String {
    let made = app.post("/api/v1/contacts").json(json!({"identifier": "ana@example.com"})).await.expect(201);
    format!("/api/v1/contacts/{}/memories", text(&made["id"]))
}

/// Lets background work draw memories; time must be paused.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}

async fn say(app: &TestApp, conversation: &Value, sender: &str, words: &str) -> Value {
    let content = json!({"content": words, "sender_id": sender});
    let body = json!({"content": content, "conversation_id": conversation, "enable_memories": true});
    app.post("/api/v1/messages").json(body).await.expect(200)[0].clone()
}

async fn search(app: &TestApp, owner: &str, query: &str) -> Value {
    app.post("/api/v1/memories/search").json(json!({"query": query, "ownerId": owner})).await.expect(200)
}

#[tokio::test]
async fn a_search_takes_no_key_and_refuses_a_wrong_one() {
    let app = TestApp::new().await;
    let ask = || app.post("/api/v1/memories/search").json(json!({"query": "x", "ownerId": "ana"}));
    for _ in 0..2 {
        let answer = ask().idempotency_key("k").await;
        assert_eq!(answer.header("idempotent-replayed"), "");
        answer.expect(200);
    }
    assert_eq!(ask().idempotency_key("a b").await.faults(), ["invalid_idempotency_key /Idempotency-Key"]);
}

#[tokio::test(start_paused = true)]
async fn an_owners_statements_are_remembered_and_newer_ones_replace_them() {
    let app = TestApp::new().await;
    let opened = app.post("/api/v1/conversations").json(json!({"ownerId": "ana"})).await.expect(201);
    let said = say(&app, &opened["id"], "x", "My name is Ana and I live in Porto").await;
    settle().await;
    let found = search(&app, "ana", "where does she live").await;
    assert_eq!(texts(&found), ["I live in Porto"]);
    let memory = &found["data"][0];
    assert_eq!(
        (&memory["ownerId"], &memory["sourceMessageId"], memory.get("contactId")),
        (&json!("ana"), &said["id"], None)
    );
    say(&app, &opened["id"], "x", "I live in Oslo now").await;
    settle().await;
    assert_eq!(texts(&search(&app, "ana", "live").await), ["I live in Oslo now"]);
    assert_eq!(texts(&search(&app, "somebody", "live").await), [""; 0]);
    let all = app.get("/api/v1/memories?ownerId=ana").await.expect(200);
    assert_eq!(texts(&all), ["My name is Ana", "I live in Oslo now"]);
    let events = app.get(format!("/api/v1/conversations/{}/events", text(&opened["id"]))).await.expect(200);
    let told: Vec<_> =
        events["data"].as_array().unwrap().iter().filter(|e| text(&e["type"]).starts_with("memory")).collect();
    assert_eq!(
        told.iter().map(|e| text(&e["type"])).collect::<Vec<_>>(),
        ["memory.created", "memory.created", "memory.updated"]
    );
    let expected = json!({"conversationId": opened["id"], "memoryId": memory["id"], "ownerId": "ana", "sourceMessageId": said["id"]});
    assert_eq!(told[1]["data"], expected);
    app.delete("/api/v1/memories?ownerId=ana").await.expect(204);
    assert_eq!(texts(&app.get("/api/v1/memories?ownerId=ana").await.expect(200)), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn an_api_channels_message_is_remembered_only_where_it_asks() {
    let app = TestApp::new().await;
    let send = async |words: &str, enable: Value| {
        let body = json!({"type": "TEXT", "contactIdentifier": "ana", "enableMemories": enable,
            "content": {"text": {"body": words}}});
        app.post("/api/v1/channels/demo-api/messages").idempotency_key(&words.replace(' ', "-")).json(body).await
    };
    send("I live in Porto", json!(null)).await.expect(200);
    send("I like tea", json!(false)).await.expect(200);
    let said = send("I am allergic to nuts", json!(true)).await.expect(200);
    send("I am allergic to milk", json!("yes")).await.problem(400, "invalid_type");
    settle().await;
    let contact = text(&said["contactId"]);
    let all = app.get(format!("/api/v1/contacts/{contact}/memories")).await.expect(200);
    assert_eq!(texts(&all), ["I am allergic to nuts"]);
    assert_eq!(
        (&all["data"][0]["sourceMessageId"], &all["data"][0]["contactId"]),
        (&said["messageId"], &json!(contact))
    );
    // A retry returns the same message, whose memories were already drawn.
    let again = send("I am allergic to nuts", json!(true)).await.expect(200);
    settle().await;
    assert_eq!(again["messageId"], said["messageId"]);
    assert_eq!(texts(&app.get(format!("/api/v1/contacts/{contact}/memories")).await.expect(200)).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_conversation_without_an_owner_remembers_things_of_the_sender() {
    let app = TestApp::new().await;
    let said = say(&app, &json!(null), "u1", "I am allergic to peanuts").await;
    let quiet =
        json!({"content": {"content": "I like tea", "sender_id": "u1"}, "conversation_id": said["conversation_id"]});
    app.post("/api/v1/messages").json(quiet).await.expect(200);
    let reply =
        json!({"content": {"content": "I like you", "sender_id": "u1", "role": "assistant"}, "enable_memories": true});
    app.post("/api/v1/messages").json(reply).await.expect(200);
    settle().await;
    let all = app.get("/api/v1/memories?ownerId=u1").await.expect(200);
    assert_eq!(texts(&all), ["I am allergic to peanuts"]);
}

#[tokio::test]
async fn memories_of_a_contact_are_written_read_and_forgotten() {
    let app = TestApp::new().await;
    let path = contact(&app).await;
    let made = app.post(&path).json(json!({"text": " Prefers window seats "})).idempotency_key("k").await;
    assert!(made.header("location").ends_with(text(&made.json["id"])));
    let made = made.expect(201);
    assert_eq!((text(&made["text"]), &made["sourceMessageId"]), ("Prefers window seats", &json!(null)));
    let retry = app.post(&path).json(json!({"text": " Prefers window seats "})).idempotency_key("k").await;
    assert_eq!((retry.header("idempotent-replayed"), &retry.json, retry.status), ("true", &made, 201));
    assert_eq!(app.post(&path).json(json!({"text": "Prefers window seats"})).await.expect(200), made);
    app.post(&path).json(json!({"text": "Speaks Portuguese"})).await.expect(201);
    let one = format!("{path}/{}", text(&made["id"]));
    assert_eq!(app.get(&one).await.expect(200), made);
    let first = app.get(format!("{path}?limit=1&order=desc")).await.expect(200);
    assert_eq!(texts(&first), ["Speaks Portuguese"]);
    let next = app.get(format!("{path}?limit=1&order=desc&cursor={}", text(&first["nextCursor"]))).await.expect(200);
    assert_eq!((texts(&next), &next["hasMore"]), (vec!["Prefers window seats"], &json!(false)));
    let id = made["contactId"].clone();
    let question = json!({"query": "seat preference", "contactId": id, "limit": 1});
    let found = app.post("/api/v1/memories/search").json(question.clone()).await.expect(200);
    assert_eq!((texts(&found), found["data"][0]["score"].is_number()), (vec!["Prefers window seats"], true));
    app.delete(&one).await.expect(204);
    app.delete(&one).await.problem(404, "memory_not_found");
    app.get(&one).await.problem(404, "memory_not_found");
    let retry = app.post(&path).json(json!({"text": " Prefers window seats "})).idempotency_key("k").await;
    retry.problem(404, "memory_not_found");
    assert_eq!(texts(&app.post("/api/v1/memories/search").json(question).await.expect(200)), [""; 0]);
    app.delete(&path).await.expect(204);
    assert_eq!(app.get(&path).await.expect(200)["data"], json!([]));
}

#[tokio::test]
async fn a_key_has_one_effect_also_where_nothing_changes() {
    let app = TestApp::new().await;
    let path = contact(&app).await;
    let made = app.post(&path).json(json!({"text": "Likes tea"})).await.expect(201);
    let known = app.post(&path).json(json!({"text": "Likes tea"})).idempotency_key("k").await.expect(200);
    let retry = app.post(&path).json(json!({"text": "Likes tea"})).idempotency_key("k").await;
    assert_eq!((retry.header("idempotent-replayed"), retry.status, &retry.json), ("true", 200, &known));
    app.delete(format!("{path}/{}", text(&made["id"]))).await.expect(204);
    let retry = app.post(&path).json(json!({"text": "Likes tea"})).idempotency_key("k").await;
    retry.problem(404, "memory_not_found");
    assert_eq!(app.get(&path).await.expect(200)["data"], json!([]), "and is not remembered again");
    let channel = json!({"id": "c", "name": "c", "kind": "human"});
    app.post("/api/v1/channels").json(channel).idempotency_key("k").await.problem(422, "idempotency_key_reused");
}

#[tokio::test]
async fn every_fault_of_a_question_is_named() {
    let app = TestApp::new().await;
    let path = contact(&app).await;
    let search = "/api/v1/memories/search";
    for (body, faults) in [
        (json!({}), vec!["required /query", "required /contactId", "required /ownerId"]),
        (json!({"query": " ", "ownerId": "a"}), vec!["required /query"]),
        (json!({"query": 5, "ownerId": 6}), vec!["invalid_type /query", "invalid_type /ownerId"]),
        (json!({"query": "x", "ownerId": "a", "limit": 0}), vec!["out_of_range /limit"]),
        (json!({"query": "x", "ownerId": "a", "limit": 201}), vec!["out_of_range /limit"]),
        (json!({"query": "x".repeat(1_001), "ownerId": "a"}), vec!["too_long /query"]),
        (json!({"query": "x", "ownerId": "a", "contactId": "b"}), vec!["invalid_request /ownerId"]),
    ] {
        assert_eq!(app.post(search).json(body.clone()).await.faults(), faults, "{body}");
    }
    let unknown = json!({"query": "x", "contactId": "cont_00000000000000000000000000"});
    app.post(search).json(unknown).await.problem(404, "contact_not_found");
    assert_eq!(app.get("/api/v1/memories").await.faults(), ["required /contactId", "required /ownerId"]);
    assert_eq!(app.post(&path).json(json!({"text": ""})).await.faults(), ["required /text"]);
    assert_eq!(app.post(&path).json(json!({"text": "x".repeat(501)})).await.faults(), ["too_long /text"]);
    app.get("/api/v1/contacts/cont_x/memories").await.problem(404, "contact_not_found");
}

#[tokio::test(start_paused = true)]
async fn memories_belong_to_one_contact_and_are_erased_with_it() {
    let app = TestApp::new().await;
    let message = json!({"type": "TEXT", "contactIdentifier": "ana@example.com", "content": {"text": {"body": "hi"}}});
    let first = app.post("/api/v1/channels/demo-api/messages").json(message.clone()).await.expect(200);
    let contact = text(&first["contactId"]);
    let conversation = &first["conversationId"];
    say(&app, conversation, "ana", "My name is Ana, and I love secret gardens").await;
    settle().await;
    let path = format!("/api/v1/contacts/{contact}/memories");
    assert_eq!(texts(&app.get(&path).await.expect(200)), ["My name is Ana", "I love secret gardens"]);
    let key = app.workspace("other").await;
    app.get(&path).key(&key).await.problem(404, "contact_not_found");
    let question = json!({"query": "gardens", "contactId": contact});
    app.post("/api/v1/memories/search").key(&key).json(question.clone()).await.problem(404, "contact_not_found");
    let other = json!({"query": "gardens", "ownerId": "ana"});
    let found = app.post("/api/v1/memories/search").key(&key).json(other).await.expect(200);
    assert_eq!(texts(&found), [""; 0]);
    app.delete(format!("/api/v1/contacts/{contact}")).await.expect(204);
    app.get(&path).await.problem(404, "contact_not_found");
    app.post("/api/v1/memories/search").json(question).await.problem(404, "contact_not_found");
    let again = app.post("/api/v1/channels/demo-api/messages").json(message).await.expect(200);
    let new = format!("/api/v1/contacts/{}/memories", text(&again["contactId"]));
    assert_eq!(app.get(&new).await.expect(200)["data"], json!([]), "somebody new begins afresh");
}

#[tokio::test]
async fn a_retry_returns_the_memory_of_the_first_answer() {
    let app = TestApp::new().await;
    let path = contact(&app).await;
    let add = async |text: &str, key: Option<&str>| {
        app.clock.advance(1_000);
        let request = app.post(&path).json(json!({"text": text}));
        match key {
            Some(key) => request.idempotency_key(key).await,
            None => request.await,
        }
    };
    let made = add("Likes Tea", Some("made")).await.expect(201);
    let changed = add("likes tea", Some("changed")).await.expect(200);
    let known = add("likes tea", Some("known")).await.expect(200);
    assert_eq!((&changed["id"], &changed), (&made["id"], &known), "it is one memory");
    add("LIKES TEA", None).await.expect(200);
    for (text, key, status, first) in [
        ("Likes Tea", "made", 201, &made),
        ("likes tea", "changed", 200, &changed),
        ("likes tea", "known", 200, &known),
    ] {
        let retry = add(text, Some(key)).await;
        assert_eq!((retry.header("idempotent-replayed"), retry.status, &retry.json), ("true", status, first), "{key}");
    }
    app.delete(&path).await.expect(204);
    add("likes tea", None).await.expect(201);
    for (text, key) in [("Likes Tea", "made"), ("likes tea", "changed"), ("likes tea", "known")] {
        add(text, Some(key)).await.problem(404, "memory_not_found");
    }
}

#[tokio::test]
async fn memories_are_drawn_by_the_agent_that_answers_on_the_channel_now() {
    let (app, before) = asking(json!({}), |_| whole(&completion("hello"))).await;
    let now = Origin::serve(|_| whole(&completion("hello"))).await;
    let send = async |words: &str, memories: bool| {
        let body = json!({"type": "TEXT", "contactIdentifier": "ana", "enableMemories": memories,
            "content": {"text": {"body": words}}});
        app.post("/api/v1/channels/demo-api/messages").json(body).await.expect(200)
    };
    send("hi", false).await;
    let other = json!({"id": "other", "name": "o", "provider": "openai", "model": "small", "baseUrl": now.url("/v1")});
    app.post("/api/v1/agents").json(other).await.expect(201);
    app.patch("/api/v1/channels/demo-api").json(json!({"agentId": "other"})).await.expect(200);
    let said = send("I live in Porto", true).await;
    until(|| asked(&now).len() + asked(&before).len() == 3).await;
    assert_eq!((asked(&before).len(), asked(&now).len()), (1, 2), "what was said goes to nobody else");
    // It is also the sender of an assistant's message that names none.
    let answer = async || {
        let content = json!({"content": "noted", "role": "assistant"});
        let body = json!({"content": content, "conversation_id": said["conversationId"]});
        app.post("/api/v1/messages").json(body).await.expect(200)[0]["sender_id"].clone()
    };
    assert_eq!(answer().await, "other");
    app.delete("/api/v1/channels/demo-api").await.expect(204);
    assert_eq!(answer().await, "echo", "the one with which it began, where there is no channel any more");
}
