//! What is told of requests that are passed on to another server.

use std::sync::Arc;

use actors::trace::kept::Kept;
use actors::trace::{Finished, SpanKind, Traces, Value};
use serde_json::json;
use tokio::time::{resume, sleep};

use super::receiver::Got;
use super::tables::describes;
use super::{CLIENT, SERVER};
use crate::passing::{KNOWN_AFTER, address, theirs};
use crate::support::{TestApp, TestStore};

/// As it would have arrived.
fn got(span: &Finished) -> Got {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let text = |value: &Value| match value {
        Value::Text(text) => text.to_string(),
        other => format!("{other:?}"),
    };
    Got {
        trace: hex(&span.context.trace_id),
        id: hex(&span.context.span_id),
        parent: span.parent.map_or_else(String::new, |parent| hex(&parent)),
        name: span.name.to_string(),
        kind: if span.kind == SpanKind::Client { CLIENT } else { SERVER },
        links: Vec::new(),
        attributes: span.attributes.iter().map(|(name, value)| ((*name).to_owned(), text(value))).collect(),
        failed: span.error.is_some(),
        began: 0,
        ended: 0,
        service: String::new(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_passed_on_is_one_trace_on_both_servers() {
    let store = TestStore::shared().await;
    let kept = [Arc::new(Kept::default()), Arc::new(Kept::default())];
    let mut apps = Vec::new();
    for kept in &kept {
        let (listener, address) = address().await;
        let env = [("TERTULIA_CLUSTER_ADDRESS", &*address)];
        let app = TestApp::start_traced(store.clone(), &env, Traces::to(kept.clone())).await;
        app.listen(listener);
        apps.push(app);
    }
    sleep(KNOWN_AFTER).await;
    resume();
    let conversation = theirs(&apps[0]).await;
    let body = json!({"conversation_id": conversation, "content": {"content": "the secret word"}});
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let caller = format!("00-{trace}-b7ad6b7169203331-01");
    let answer = apps[0].post("/api/v1/messages").json(body).header("traceparent", &caller).await;
    assert_eq!(answer.status, 200);
    let of = |kept: &Kept| -> Vec<Got> { kept.spans().iter().map(got).filter(|got| got.trace == trace).collect() };
    let [here, there] = [of(&kept[0]), of(&kept[1])];
    let [passed, request] = &here[..] else { panic!("two spans: {here:#?}") };
    assert_eq!((&*passed.name, passed.kind, &passed.parent), ("pass on", CLIENT, &request.id));
    assert!(!passed.failed && !request.failed);
    let asked = there.iter().find(|span| span.name == "POST /api/v1/messages").unwrap();
    assert_eq!(asked.parent, passed.id, "the other server's request is a part of it");
    let commit = there.iter().any(|span| span.name == "commit");
    assert!(commit && asked.attributes.contains_key("messaging.message.id"), "{there:#?}");
    describes(&[passed.clone(), asked.clone()]);
    assert!(!format!("{here:?}{there:?}").contains("secret"));
}
