//! Turns that begin long after their request: behind another turn, and in another process.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use super::receiver::{Got, Manner, Receiver};
use super::{GRPC, append, contained, conversation, place, tables, traced_on_store};
use crate::models::{completion, whole};
use crate::support::client::{Client, Reply};
use crate::support::origin::{Origin, Part};
use crate::support::until::{seen, until};

/// An endpoint that never answers its first request.
async fn model() -> Origin {
    let asked = AtomicUsize::new(0);
    Origin::serve(move |_| match asked.fetch_add(1, Ordering::SeqCst) {
        0 => vec![Part::Silence],
        _ => whole(&completion("A reply")),
    })
    .await
}

fn ask(client: &mut Client, conversation: &str) -> Reply {
    let path = format!("/api/v1/conversations/{conversation}/turns");
    let reply = client.send("POST", &path, None, &json!({"agentId": "echo"}).to_string()).unwrap();
    assert_eq!(reply.status, 202, "{}", String::from_utf8_lossy(&reply.body));
    reply
}

/// Waits until the conversation has so many replies.
async fn answered(client: &mut Client, conversation: &str, replies: usize) {
    let path = format!("/api/v1/conversations/{conversation}/messages");
    let agents = |message: &&serde_json::Value| message["role"] == "assistant";
    seen(async || {
        let list = client.send("GET", &path, None, "").unwrap().json();
        (list["data"].as_array().unwrap().iter().filter(agents).count() == replies).then_some(())
    })
    .await;
}

/// One that waited behind it is a part of its own request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_turn_links_to_its_request_when_it_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::grpc(Manner::Takes);
    let model = model().await;
    let data = dir.path().join("data");
    let server = traced_on_store(&data, &receiver, &[GRPC]);
    let mut client = Client::connect(&server.address).unwrap();
    let agent = json!({"provider": "openai", "model": "small", "baseUrl": model.url("/v1"), "stream": false});
    assert_eq!(client.send("PATCH", "/api/v1/agents/echo", None, &agent.to_string()).unwrap().status, 200);
    let id = conversation(&mut client);
    append(&mut client, &id, "a");
    let first = ask(&mut client, &id);
    until(|| !model.requests().is_empty()).await;
    let second = ask(&mut client, &id);
    // Dropping the server kills it.
    drop(server);
    let server = traced_on_store(&data, &receiver, &[GRPC]);
    answered(&mut Client::connect(&server.address).unwrap(), &id, 2).await;
    assert_eq!(server.terminate(), Some(0));
    let spans = receiver.spans();
    let attempts: Vec<&Got> = spans.iter().filter(|span| span.name == "invoke_agent echo").collect();
    let [recovered, waited] = attempts[..] else { panic!("one for each turn: {attempts:#?}") };
    let ((trace, request), (other, other_request)) = (place(&first), place(&second));
    let [asked, rang] = &recovered.links[..] else { panic!("who asked, and what had it go on: {recovered:?}") };
    assert_eq!((&*recovered.parent, asked), ("", &format!("{trace}-{request}")));
    let alarm = spans.iter().find(|span| *rang == format!("{}-{}", span.trace, span.id));
    assert_eq!(alarm.map(|span| &*span.name), Some("alarm conversation"));
    assert_eq!((&waited.trace, &waited.parent, waited.links.len()), (&other, &other_request, 0));
    for attempt in [recovered, waited] {
        let chat = spans.iter().find(|span| span.name == "chat small" && span.parent == attempt.id);
        assert_eq!(chat.map(|chat| &chat.trace), Some(&attempt.trace), "the model's call stands with its turn");
    }
    contained(&spans);
    tables::describes(&spans);
}
