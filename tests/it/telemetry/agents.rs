//! Traces and metrics of an agent at work and of what its events cause: the turn, the model, the tool, the deliveries.

use std::collections::BTreeSet;

use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use serde_json::json;

use super::receiver::{Got, Manner, Receiver, hex};
use super::{CLIENT, GRPC, SERVER, contained, place, says_nothing, tables, traced_on_store};
use crate::models::{PATH, calling, completion, whole};
use crate::support::client::Client;
use crate::support::origin::{Origin, bare};
use crate::support::until::until;

/// An endpoint that serves as a model, which first calls a tool, and as a receiver of events.
async fn outside() -> Origin {
    let asked = std::sync::atomic::AtomicUsize::new(0);
    Origin::serve(move |heard| match heard.path() {
        "/hook" => bare(204, ""),
        _ if asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0 => {
            whole(&calling("search_memories", &json!({"query": "the secret word"})))
        }
        _ => whole(&completion("A secret reply")),
    })
    .await
}

/// The metrics that the server sends at its end include the turn.
fn counted(receiver: &Receiver) {
    let (_, request) = receiver.metrics().expect("metrics are sent in the end");
    let metrics = || request.resource_metrics.iter().flat_map(|all| &all.scope_metrics).flat_map(|all| &all.metrics);
    let of = |name: &str| metrics().find(|metric| metric.name == name).and_then(|metric| metric.data.clone()).unwrap();
    let Data::Histogram(turns) = of("tertulia_turn_seconds") else { panic!("a histogram") };
    let counts: Vec<u64> = turns.data_points.iter().map(|point| point.count).collect();
    assert_eq!(counts, [1, 0, 0], "one turn, completed");
    let Data::Histogram(first) = of("tertulia_time_to_first_token_seconds") else { panic!("a histogram") };
    assert_eq!(first.data_points[0].count, 1);
    let Data::Sum(tokens) = of("tertulia_tokens") else { panic!("a sum") };
    let tokens: Vec<_> = tokens.data_points.iter().map(|point| point.value).collect();
    assert_eq!(tokens, [Some(Value::AsInt(16)), Some(Value::AsInt(5))], "read and written");
}

/// Histograms with exemplars, and the spans to which these lead.
const LEAD_TO: [(&str, &str); 8] = [
    ("http.server.request.duration", "POST "),
    ("tertulia_mailbox_wait_seconds", "wait"),
    ("tertulia_commit_seconds", "commit"),
    ("tertulia_store_sync_seconds", "commit"),
    ("tertulia_turn_seconds", "invoke_agent echo"),
    ("gen_ai.client.inference.duration", "chat small"),
    ("tertulia_time_to_first_token_seconds", "chat small"),
    ("tertulia_webhook_attempt_seconds", "deliver turn.completed"),
];

/// Every histogram of times, except that of alarms, none of which rings here, has buckets with exemplars that lead to
/// its own spans, and these have arrived.
fn leads_to(receiver: &Receiver, spans: &[Got]) {
    let (_, request) = receiver.metrics().unwrap();
    let metrics = || request.resource_metrics.iter().flat_map(|all| &all.scope_metrics).flat_map(|all| &all.metrics);
    for (metric, name) in LEAD_TO {
        let found = metrics().find(|found| found.name == metric).and_then(|metric| metric.data.as_ref());
        let Some(Data::Histogram(histogram)) = found else { panic!("{metric} is a histogram") };
        let mut led = 0;
        for exemplar in histogram.data_points.iter().flat_map(|point| &point.exemplars) {
            let [trace, id] = [hex(&exemplar.trace_id), hex(&exemplar.span_id)];
            let span = spans.iter().find(|span| (&span.trace, &span.id) == (&trace, &id));
            let span = span.unwrap_or_else(|| panic!("{metric} leads to {trace}, where nothing is"));
            let is_of_it = span.name.starts_with(name) || name == "POST " && span.kind == SERVER;
            assert!(is_of_it, "{metric} leads to {span:?}");
            led += 1;
        }
        assert!(led > 0, "{metric} leads nowhere");
    }
}

fn one<'a>(spans: &'a [Got], name: &str) -> Vec<&'a Got> {
    spans.iter().filter(|span| span.name == name).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_turn_is_traced_from_its_request_to_its_delivery() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::grpc(Manner::Takes);
    let origin = outside().await;
    let env = [GRPC, ("TERTULIA_EGRESS_ALLOW", "127.0.0.0/8")];
    let server = traced_on_store(&dir.path().join("data"), &receiver, &env);
    let mut client = Client::connect(&server.address).unwrap();
    let mut send = |method: &str, path: &str, body: serde_json::Value, status: u16| {
        let reply = client.send(method, path, None, &body.to_string()).unwrap();
        assert_eq!(reply.status, status, "{path}: {}", String::from_utf8_lossy(&reply.body));
        reply
    };
    let agent = json!({"provider": "openai", "model": "small", "baseUrl": origin.url("/v1"), "stream": false,
        "tools": [{"name": "search_memories"}]});
    send("PATCH", "/api/v1/agents/echo", agent, 200);
    let endpoint = json!({"url": origin.url("/hook"), "events": ["turn.completed"]});
    let endpoint = send("POST", "/api/v1/webhook-endpoints", endpoint, 201).json();
    let message = json!({"type": "TEXT", "contactIdentifier": "ana@example.com",
        "content": {"text": {"body": "the secret word"}}});
    let reply = send("POST", PATH, message, 200);
    until(|| origin.requests().iter().any(|heard| heard.path() == "/hook")).await;
    assert_eq!(server.terminate(), Some(0));
    counted(&receiver);

    let spans = receiver.spans();
    leads_to(&receiver, &spans);
    let (trace, request) = place(&reply);
    let of_trace: Vec<Got> = spans.iter().filter(|span| span.trace == trace).cloned().collect();
    let [turn] = one(&of_trace, "invoke_agent echo")[..] else { panic!("one turn: {of_trace:#?}") };
    let above: BTreeSet<&str> = of_trace.iter().map(|span| span.id.as_str()).collect();
    assert!(above.contains(turn.parent.as_str()) || turn.parent == request, "the turn is a part of the request");
    assert_eq!(turn.attributes["gen_ai.agent.id"], "echo");
    let chats = one(&of_trace, "chat small");
    assert_eq!(chats.len(), 2, "the model was asked twice: {of_trace:#?}");
    let written: BTreeSet<&str> = chats.iter().map(|chat| &*chat.attributes["gen_ai.usage.output_tokens"]).collect();
    assert_eq!(written, ["2", "3"].into());
    let ended: BTreeSet<&str> = chats.iter().map(|chat| &*chat.attributes["gen_ai.response.finish_reasons"]).collect();
    assert_eq!(ended, ["stop", "tool_calls"].into());
    for chat in &chats {
        assert_eq!((chat.kind, &chat.parent), (CLIENT, &turn.id));
        assert_eq!(chat.attributes["gen_ai.response.model"], "small-2025");
    }
    let [tool] = one(&of_trace, "execute_tool search_memories")[..] else { panic!("one call: {of_trace:#?}") };
    assert_eq!(tool.parent, turn.id);
    let asked = origin.requests();
    let sent: BTreeSet<&str> = asked.iter().map(|heard| heard.header("traceparent")).collect();
    for call in chats {
        assert!(sent.contains(&*format!("00-{trace}-{}-01", call.id)), "the model is told where its call stands");
    }
    let [delivery] = one(&spans, "deliver turn.completed")[..] else { panic!("one delivery: {spans:#?}") };
    assert_eq!((delivery.kind, delivery.parent.as_str()), (CLIENT, ""));
    assert!(delivery.links.iter().all(|link| link.starts_with(&trace)) && delivery.links.len() == 1, "{delivery:?}");
    let expected = [
        ("http.request.method", "POST"),
        ("http.response.status_code", "204"),
        ("server.address", "127.0.0.1"),
        ("server.port", &*origin.address.port().to_string()),
        ("tertulia.delivery.attempt", "1"),
        ("tertulia.delivery.receiver", "endpoint"),
        ("tertulia.endpoint.id", endpoint["id"].as_str().unwrap()),
        ("url.scheme", "http"),
    ];
    for (name, value) in expected {
        assert_eq!(delivery.attributes[name], value, "{name}");
    }
    assert!(sent.contains(&*format!("00-{}-{}-01", delivery.trace, delivery.id)), "and so is who hears of it");
    contained(&spans);
    says_nothing(&spans);
    tables::describes(&spans);
}
