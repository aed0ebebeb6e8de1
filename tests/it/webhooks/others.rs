//! Events of all areas: contacts, memories, turns, files; and events sent after their content was deleted.

use serde_json::{Value, json};

use super::{DELIVERIES, LOOPBACK, Receiver, all, attempts, body, endpoint, once, once_so, retry};
use crate::attachments::uploaded;
use crate::support::TestApp;
use crate::support::origin::Heard;

fn kinds(heard: &[Heard]) -> Vec<String> {
    heard.iter().map(|heard| body(heard)["type"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_contacts_events_run_from_its_first_message_to_its_erasure() {
    let app = TestApp::with_env(LOOPBACK).await;
    let receiver = Receiver::new(200).await;
    let cloud = json!({"url": receiver.origin.url("/cloud"), "events": ["contact.erased"], "format": "cloudevents"});
    endpoint(&app, cloud).await;
    endpoint(&app, json!({"url": receiver.origin.url("/"), "events": ["contact.*"]})).await;
    endpoint(&app, json!({"url": receiver.origin.url("/channel"), "channelId": "demo"})).await;
    let said = json!({"type": "TEXT", "contactIdentifier": "Ana@example.com", "contactName": "Ana",
        "content": {"text": {"body": "Hello"}}});
    let said = app.post("/api/v1/channels/demo-api/messages").json(said).await.expect(200);
    let contact = said["contactId"].as_str().unwrap();
    let path = format!("/api/v1/contacts/{contact}");
    let created = receiver.heard(1).await.remove(0);
    assert_eq!(
        body(&created),
        json!({"type": "contact.created", "timestamp": "2025-01-01T00:00:00.000Z",
            "data": {"contactId": contact, "identifier": "Ana@example.com", "name": "Ana"}})
    );
    let events = app.get(format!("{path}/events")).await.expect(200);
    assert_eq!(created.header("webhook-id"), events["data"][0]["id"], "the same event as in the list");
    app.patch(&path).json(json!({"name": "Anna"})).await.expect(200);
    receiver.heard(2).await;
    let first = once(&app, "delivered", 2).await.remove(0);
    app.delete(&path).await.expect(204);
    let heard = receiver.heard(4).await;
    let mut told = kinds(&heard);
    told.sort();
    assert_eq!(told, ["contact.created", "contact.erased", "contact.erased", "contact.updated"]);
    let erased = heard.iter().find(|heard| heard.path() == "/cloud").map(body).unwrap();
    assert_eq!(
        (&erased["source"], &erased["subject"]),
        (&json!(format!("/api/v1/contacts/{contact}")), &json!(contact))
    );
    assert_eq!(erased["data"], json!({"contactId": contact}));
    // A repeated delivery no longer contains the contact's identity either.
    once(&app, "delivered", 4).await;
    assert_eq!(retry(&app, &first).await["status"], "pending");
    let again = receiver.heard(5).await.remove(4);
    assert_eq!(again.header("webhook-id"), created.header("webhook-id"));
    assert_eq!(body(&again)["data"], json!({"contactId": contact}));
    once(&app, "delivered", 4).await;
    let other = app.workspace("other").await;
    app.get(format!("{DELIVERIES}/{}", first["id"].as_str().unwrap()))
        .key(&other)
        .await
        .problem(404, "delivery_not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_message_is_delivered_without_its_content() {
    let app = TestApp::with_env(LOOPBACK).await;
    let receiver = Receiver::new(500).await;
    let hook = receiver.origin.url("/");
    endpoint(&app, json!({"url": receiver.origin.url("/e"), "events": ["message.*"], "channelId": "demo-api"})).await;
    let posted =
        json!({"channelId": "demo", "text": "Schaumwein", "metadata": {"x": "Schaumwein"}, "webhookUrl": hook});
    let posted = app.post("/api/v1/messages").json(posted).await.expect(201);
    let said = json!({"type": "TEXT", "contactIdentifier": "ana", "content": {"text": {"body": "Schaumwein"}}});
    let said = app.post("/api/v1/channels/demo-api/messages").json(said).await.expect(200);
    // Each receiver was tried once and waits; then the content is deleted.
    once_so(&app, "pending", 3, |all| all.iter().filter(|delivery| attempts(delivery) == 1).count() == 2).await;
    let tried = receiver.heard(2).await.len();
    app.delete(format!("/api/v1/messages/{}", posted["id"].as_str().unwrap())).await.expect(204);
    app.delete(format!("/api/v1/contacts/{}", said["contactId"].as_str().unwrap())).await.expect(204);
    receiver.answer(200);
    let heads = once(&app, "pending", 4).await;
    for head in heads.iter().filter(|delivery| attempts(delivery) > 0) {
        retry(&app, head).await;
    }
    once(&app, "delivered", 4).await;
    let sent: Vec<_> = receiver.origin.requests().split_off(tried).iter().map(body).collect();
    assert!(sent.len() >= 4 && sent.iter().all(|body| !body.to_string().contains("Schaumwein")), "{sent:#?}");
    assert!(all(&app, "", 200).await.iter().all(|delivery| !delivery.to_string().contains("Schaumwein")));
    let deleted = sent.iter().find(|body| body["type"] == "message.deleted").unwrap();
    let data = &deleted["data"];
    let expected = json!({"conversationId": data["conversationId"], "channelId": "demo", "id": posted["id"],
        "messageId": posted["id"]});
    assert_eq!(*data, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_turns_and_memories_look_as_in_the_event_log() {
    let app = TestApp::with_env(LOOPBACK).await;
    let receiver = Receiver::new(200).await;
    let all = ["message.created", "turn.*", "memory.*"];
    endpoint(&app, json!({"url": receiver.origin.url("/"), "events": all})).await;
    let file = uploaded(&app, "a text").await;
    let with_file = json!({"channelId": "demo", "text": "see", "attachmentIds": [file]});
    let posted = app.post("/api/v1/messages").json(with_file).await.expect(201);
    let heard = body(&receiver.heard(1).await[0]);
    assert_eq!(heard["data"]["attachments"], posted["attachments"]);
    assert_eq!(heard["data"]["attachments"][0]["filename"], "a.txt");
    let said = json!({"type": "TEXT", "contactIdentifier": "ana", "content": {"text": {"body": "Hello"}}});
    let said = app.post("/api/v1/channels/demo-api/messages").json(said).await.expect(200);
    let heard = receiver.heard(5).await.split_off(1);
    assert_eq!(kinds(&heard), ["message.created", "turn.started", "message.created", "turn.completed"]);
    assert!(heard[1..].iter().all(|heard| !heard.header("traceparent").is_empty()));
    assert_eq!(body(&heard[3])["data"]["turnId"], said["turn"]["id"]);
    let opened = app.post("/api/v1/conversations").json(json!({"ownerId": "ana"})).await.expect(201);
    let content = json!({"content": "My name is Ana"});
    let said = json!({"content": content, "conversation_id": opened["id"], "enable_memories": true});
    app.post("/api/v1/messages").json(said).await.expect(200);
    let heard = receiver.heard(7).await.split_off(5);
    assert_eq!(kinds(&heard), ["message.created", "memory.created"]);
    let events = app.get(format!("/api/v1/conversations/{}/events", opened["id"].as_str().unwrap())).await.expect(200);
    let events = events["data"].as_array().unwrap();
    let told: &Value = events.iter().find(|event| event["type"] == "memory.created").unwrap();
    assert_eq!(
        (&body(&heard[1])["data"], heard[1].header("webhook-id")),
        (&told["data"], told["id"].as_str().unwrap())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pending_deliveries_of_a_contacts_event_are_found_by_its_id() {
    let app = TestApp::with_env(LOOPBACK).await;
    let receiver = Receiver::new(500).await;
    for path in ["/one", "/two"] {
        endpoint(&app, json!({"url": receiver.origin.url(path), "events": ["contact.*"]})).await;
    }
    for identifier in ["ana", "bob"] {
        app.post("/api/v1/contacts").json(json!({"identifier": identifier})).await.expect(201);
    }
    let tried = |data: &[Value]| data.iter().all(|delivery| attempts(delivery) == 1);
    let pending = once_so(&app, "pending", 4, tried).await;
    for delivery in &pending {
        let event = delivery["eventId"].as_str().unwrap();
        let of_event: Vec<_> = pending.iter().filter(|other| other["eventId"] == event).collect();
        assert_eq!(of_event.len(), 2);
        for limit in [1, 2] {
            let found = all(&app, &format!("eventId={event}"), limit).await;
            assert!(found.len() == 2 && of_event.iter().all(|wanted| found.contains(wanted)), "{found:?}");
        }
    }
}
