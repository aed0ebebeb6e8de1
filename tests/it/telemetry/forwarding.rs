//! Traces of requests that are forwarded to another server.

use std::sync::Arc;

use actors::trace::recording_tracer::RecordingTracer;
use actors::trace::{Finished, SpanKind, Traces, Value};
use axum::body::{Body, to_bytes};
use http::Request;
use serde_json::json;
use tertulia::metrics::{self, Sources};
use tokio::time::{resume, sleep};
use tower::ServiceExt as _;

use super::receiver::Got;
use super::tables::describes;
use super::{CLIENT, SERVER};
use crate::forwarding::{KNOWN_AFTER, address, beside_traced, theirs};
use crate::support::origin::{Heard, Origin, Part};
use crate::support::{TestApp, TestStore};

/// The span as a receiver would get it.
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
        attributes: {
            let told = span.attributes.iter().map(|(name, value)| ((*name).to_owned(), text(value)));
            told.chain(span.error.iter().map(|error| ("error.type".to_owned(), error.to_string()))).collect()
        },
        failed: span.error.is_some(),
        began: 0,
        ended: 0,
        service: String::new(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_forwarded_request_is_one_trace_on_both_servers() {
    let store = TestStore::shared().await;
    let kept = [Arc::new(RecordingTracer::default()), Arc::new(RecordingTracer::default())];
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
    let of = |kept: &RecordingTracer| -> Vec<Got> {
        kept.spans().iter().map(got).filter(|got| got.trace == trace).collect()
    };
    let [here, there] = [of(&kept[0]), of(&kept[1])];
    let [passed, request] = &here[..] else { panic!("two spans: {here:#?}") };
    assert_eq!((&*passed.name, passed.kind, &passed.parent), ("forward", CLIENT, &request.id));
    assert!(!passed.failed && !request.failed);
    let asked = there.iter().find(|span| span.name == "POST /api/v1/messages").unwrap();
    assert_eq!(asked.parent, passed.id, "the other server's request is a part of it");
    let commit = there.iter().any(|span| span.name == "commit");
    assert!(commit && asked.attributes.contains_key("messaging.message.id"), "{there:#?}");
    describes(&[passed.clone(), asked.clone()]);
    assert!(!format!("{here:?}{there:?}").contains("secret"));
}

/// Another server's error answer, with this status and code.
fn fails(heard: &Heard, status: u16, code: &str) -> Vec<Part> {
    let body = json!({"code": code}).to_string();
    let head = format!(
        "HTTP/1.1 {status} X\r\nContent-Type: application/problem+json\r\nX-Request-Id: {}\r\nContent-Length: {}\r\n\r\n",
        heard.header("x-request-id"),
        body.len()
    );
    vec![Part::Bytes([head, body].concat().into_bytes())]
}

/// Another server whose agent fails, and which handles no request that could be done twice.
async fn failing(kept: &Arc<RecordingTracer>) -> (TestApp, Origin, String) {
    let origin = Origin::serve(|heard: &Heard| match heard.header("idempotency-key") {
        "" => fails(heard, 500, "agent_failed"),
        _ => fails(heard, 503, "stopping"),
    });
    let origin = origin.await;
    let env =
        [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318"), ("OTEL_TRACES_SAMPLER", "parentbased_always_off")];
    let app = beside_traced(TestStore::shared().await, &env, &origin.url(""), Traces::to(kept.clone())).await;
    let conversation = theirs(&app).await;
    (app, origin, conversation)
}

fn message(conversation: &str) -> serde_json::Value {
    json!({"conversation_id": conversation, "content": {"content": "x"}})
}

#[tokio::test(start_paused = true)]
async fn a_forwarded_error_has_its_code_on_both_servers() {
    let kept = Arc::new(RecordingTracer::default());
    let (app, _origin, conversation) = failing(&kept).await;
    app.post("/api/v1/messages").json(message(&conversation)).await.problem(500, "agent_failed");
    let spans: Vec<Got> = kept.spans().iter().map(got).collect();
    let [request] = &spans[..] else { panic!("one span, though nobody sampled it: {spans:#?}") };
    let told = ["tertulia.problem.code", "tertulia.kept"].map(|name| &*request.attributes[name]);
    assert_eq!(told, ["agent_failed", "agent"]);
    assert_eq!(kept.spans()[0].error.as_deref(), Some("500"));
    let router = metrics::router(Sources { app: app.app.clone(), spans: None });
    let page = router.oneshot(Request::get("/metrics").body(Body::empty()).unwrap()).await.unwrap();
    let page = String::from_utf8(to_bytes(page.into_body(), usize::MAX).await.unwrap().to_vec()).unwrap();
    assert!(page.contains("\ntertulia_http_problems_total{code=\"agent_failed\"} 1\n"), "{page}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_failed_was_reached_and_its_status_is_passed_on() {
    let kept = Arc::new(RecordingTracer::default());
    let (app, _origin, conversation) = failing(&kept).await;
    let caller = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let sent = app.post("/api/v1/messages").json(message(&conversation)).idempotency_key("k");
    sent.header("traceparent", caller).await.expect(200);
    let spans = kept.spans();
    let passed = spans.iter().find(|span| span.name == "forward").expect("it was sampled");
    assert_eq!(passed.error.as_deref(), Some("refused"));
    assert!(passed.attributes.contains(&("http.response.status_code", 503_u32.into())), "{passed:?}");
    describes(&[got(passed)]);
}
