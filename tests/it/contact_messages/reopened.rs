//! Conversations that a client has reopened.

use std::time::Duration;

use actors::id::{ConversationId, EntityKey};
use actors::workspace::{DEFAULT, address_of};
use tokio::time::sleep;

use super::*;

#[tokio::test]
async fn a_reopened_conversation_is_not_mixed_up_with_the_one_that_followed_it() {
    let app = TestApp::new().await;
    let first = post(&app, text("x")).await.expect(200);
    set_status(&app, &first["conversationId"], "closed").await;
    set_status(&app, &first["conversationId"], "open").await;
    assert_eq!(post(&app, text("y")).await.expect(200)["conversationId"], first["conversationId"]);
}

#[tokio::test]
async fn a_message_goes_to_the_newest_open_conversation() {
    let app = TestApp::new().await;
    let send = |key: &str| app.post(PATH).idempotency_key(key).json(text("x"));
    let mut ids = Vec::new();
    for key in ["a", "b", "c"] {
        ids.push(send(key).await.expect(200)["conversationId"].clone());
        set_status(&app, ids.last().unwrap(), "closed").await;
    }
    set_status(&app, &ids[1], "open").await;
    let reopened = send("d").await;
    assert_eq!(reopened.json["conversationId"], ids[1]);
    assert_eq!(send("d").await.bytes, reopened.bytes, "its key is known there");
    assert_eq!(send("c").await.expect(200)["conversationId"], ids[2], "a key of the closed one replays");
    set_status(&app, &ids[0], "open").await;
    assert_eq!(send("e").await.expect(200)["conversationId"], ids[1], "the newest of two that are open");
    set_status(&app, &ids[2], "open").await;
    assert_eq!(send("f").await.expect(200)["conversationId"], ids[2], "the last one is open again");
    for id in &ids {
        set_status(&app, id, "closed").await;
    }
    let next = send("g").await.expect(200)["conversationId"].clone();
    assert!(!ids.contains(&next), "none is open: another one begins");
}

#[tokio::test]
async fn a_key_of_a_reopened_conversation_replays_whichever_is_open_then() {
    let app = TestApp::new().await;
    let send = |key: &str| app.post(PATH).idempotency_key(key).json(text("x"));
    let first = send("a").await.expect(200)["conversationId"].clone();
    set_status(&app, &first, "closed").await;
    let second = send("b").await.expect(200)["conversationId"].clone();
    // Longer than keys are kept, so that a retry would look no further back than the second conversation.
    app.clock.advance(72 * 3_600_000);
    set_status(&app, &second, "closed").await;
    set_status(&app, &first, "open").await;
    let reopened = send("c").await;
    assert_eq!(reopened.json["conversationId"], first);
    set_status(&app, &first, "closed").await;
    assert_eq!(send("c").await.bytes, reopened.bytes, "none is open");
    set_status(&app, &second, "open").await;
    assert_eq!(send("c").await.bytes, reopened.bytes, "the second one is open");
    set_status(&app, &second, "closed").await;
    let third = send("d").await.expect(200)["conversationId"].clone();
    assert!(third != first && third != second);
    assert_eq!(send("c").await.bytes, reopened.bytes, "a third one is open");
    let page = app.get(format!("/api/v1/conversations/{}/messages", first.as_str().unwrap())).await.expect(200);
    assert_eq!(page["data"].as_array().unwrap().len(), 4, "two messages and their replies");
}

/// Polls the other tasks so often before the request.
async fn after(turns: usize, request: impl Future<Output = Answer>) -> Answer {
    for _ in 0..turns {
        tokio::task::yield_now().await;
    }
    request.await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_has_one_effect_while_a_client_reopens_a_conversation() {
    let app = TestApp::new().await;
    for round in 0..300 {
        let send = |key: &str| {
            let body =
                json!({"type": "TEXT", "contactIdentifier": format!("c{round}"), "content": {"text": {"body": "x"}}});
            app.post(PATH).idempotency_key(key).json(body).send()
        };
        let mut ids = Vec::new();
        for key in ["a", "b"] {
            ids.push(send(key).await.expect(200)["conversationId"].clone());
            set_status(&app, ids.last().unwrap(), "closed").await;
        }
        let path = format!("/api/v1/conversations/{}", ids[0].as_str().unwrap());
        let reopens = app.patch(path).json(json!({"status": "open"})).send();
        let (one, other, reopened) =
            tokio::join!(send("k"), after(round % 7, send("k")), after(round / 7 % 60, reopens));
        reopened.expect(200);
        assert_eq!(one.expect(200)["messageId"], other.expect(200)["messageId"], "round {round}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_has_one_effect_although_its_client_hangs_up_before_a_reopening() {
    let (app, store) = TestApp::faulty_in_memory().await;
    let send = |key: &str| app.post(PATH).idempotency_key(key).json(text("x")).send();
    let mut ids = Vec::new();
    for key in ["a", "b"] {
        ids.push(send(key).await.expect(200)["conversationId"].clone());
        set_status(&app, ids.last().unwrap(), "closed").await;
    }
    set_status(&app, &ids[0], "open").await;
    assert_eq!(send("c").await.expect(200)["conversationId"], ids[0]);
    let first = ConversationId::parse(ids[0].as_str().unwrap()).unwrap();
    store.hold(Some(EntityKey::conversation(address_of(DEFAULT), first.address)));
    let hung_up = tokio::spawn(send("k"));
    sleep(Duration::from_secs(1)).await;
    hung_up.abort();
    set_status(&app, &ids[1], "open").await;
    let retry = tokio::spawn(send("k"));
    sleep(Duration::from_secs(1)).await;
    store.hold(None);
    assert_eq!(retry.await.unwrap().expect(200)["conversationId"], ids[0], "where the first was about to store it");
    assert_eq!(history(&app, &ids[1]).await.len(), 2, "the message of another key and its reply");
}
