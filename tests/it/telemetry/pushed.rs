//! Pushed metrics: the same as the scraped ones, at an interval and at the end.

use std::collections::BTreeMap;
use std::sync::{Mutex, mpsc};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{Metric, number_data_point};

use super::receiver::{Manner, Receiver, attributes};
use super::{GRPC, append, conversation, place, traced};
use crate::models::{completion, whole};
use crate::support::client::Client;
use crate::support::origin::Origin;
use crate::support::until::{seen_here, until};

/// A receiver's newest metrics by name, their service, and a header of their request.
fn received(receiver: &Receiver) -> (BTreeMap<String, Metric>, String, String) {
    let (headers, request) = receiver.metrics().expect("metrics came");
    let [all] = &request.resource_metrics[..] else { panic!("one resource: {request:?}") };
    let service = attributes(&all.resource.as_ref().unwrap().attributes).remove("service.name").unwrap();
    assert_eq!(all.scope_metrics[0].schema_url, "https://opentelemetry.io/schemas/1.44.0");
    let metrics = all.scope_metrics.iter().flat_map(|scope| &scope.metrics);
    let metrics = metrics.map(|metric| (metric.name.clone(), metric.clone())).collect();
    (metrics, service, headers["x-tenant"].to_str().unwrap().to_owned())
}

/// Also a last time in the end.
#[test]
fn metrics_are_sent_over_both_protocols_with_exemplars() {
    for (receiver, protocol) in
        [(Receiver::grpc(Manner::Takes), "grpc"), (Receiver::http(Manner::Takes), "http/protobuf")]
    {
        let dir = tempfile::tempdir().unwrap();
        // So long that only the metrics at the end are sent.
        let env = [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
            ("OTEL_METRIC_EXPORT_INTERVAL", "3600000"),
            ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "x-tenant=se%20ven"),
        ];
        let server = traced(&dir.path().join("data"), &receiver, &env);
        let mut client = Client::connect(&server.address).unwrap();
        let id = conversation(&mut client);
        let reply = append(&mut client, &id, "a");
        assert_eq!(server.terminate(), Some(0));

        let (metrics, service, tenant) = received(&receiver);
        assert_eq!((service.as_str(), tenant.as_str()), ("tertulia", "se ven"));
        let Some(Data::Gauge(up)) = &metrics["tertulia_up"].data else { panic!("a gauge") };
        assert_eq!(up.data_points[0].value, Some(number_data_point::Value::AsInt(1)));
        let Some(Data::Sum(activations)) = &metrics["tertulia_activations"].data else { panic!("a sum") };
        assert!(activations.is_monotonic);
        let Some(Data::Histogram(took)) = &metrics["http.server.request.duration"].data else { panic!("a histogram") };
        let ours = took.data_points.iter().find(|point| {
            attributes(&point.attributes).get("http.route").is_some_and(|route| route == "/api/v1/messages")
        });
        let ours = ours.expect("the request was timed");
        assert_eq!((ours.count, ours.exemplars.len()), (1, 1));
        let trace: String = ours.exemplars[0].trace_id.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(trace, place(&reply).0, "the exemplar leads to the request's trace");
        assert!(ours.start_time_unix_nano < ours.time_unix_nano);
    }
}

#[test]
fn metrics_are_sent_as_often_as_asked_for_and_not_where_unwanted() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::grpc(Manner::Takes);
    let server = traced(&dir.path().join("one"), &receiver, &[GRPC, ("OTEL_METRIC_EXPORT_INTERVAL", "20")]);
    let next = |after: Option<&ExportMetricsServiceRequest>| {
        seen_here(|| receiver.metrics().map(|(_, newest)| newest).filter(|newest| Some(newest) != after))
    };
    let first = next(None);
    next(Some(&first));
    drop(server);
    let silent = Receiver::grpc(Manner::Takes);
    let server = traced(&dir.path().join("two"), &silent, &[GRPC, ("OTEL_METRICS_EXPORTER", "none")]);
    conversation(&mut Client::connect(&server.address).unwrap());
    assert_eq!(server.terminate(), Some(0));
    assert!(silent.metrics().is_none() && !silent.spans().is_empty());
}

/// A model that answers once the test allows it.
async fn model() -> (Origin, mpsc::Sender<()>) {
    let (may, answer) = mpsc::channel();
    let answer = Mutex::new(answer);
    let origin = Origin::serve(move |_| {
        // Fails if the test has failed.
        _ = answer.lock().unwrap().recv();
        whole(&completion("A reply"))
    });
    (origin.await, may)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_numbers_count_what_ends_only_while_the_server_stops() {
    let (dir, receiver, (model, may)) = (tempfile::tempdir().unwrap(), Receiver::grpc(Manner::Takes), model().await);
    let env = [GRPC, ("OTEL_METRIC_EXPORT_INTERVAL", "3600000"), ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=seven")];
    let server = traced(&dir.path().join("data"), &receiver, &env);
    let mut client = Client::connect(&server.address).unwrap();
    let agent =
        serde_json::json!({"provider": "openai", "model": "small", "baseUrl": model.url("/v1"), "stream": false});
    assert_eq!(client.send("PATCH", "/api/v1/agents/echo", None, &agent.to_string()).unwrap().status, 200);
    let id = conversation(&mut client);
    append(&mut client, &id, "a");
    let turns = format!("/api/v1/conversations/{id}/turns");
    assert_eq!(client.send("POST", &turns, None, r#"{"agentId": "echo"}"#).unwrap().status, 202);
    drop(client);
    // The origin records a request only once it is answered, so the test waits for the connection.
    until(|| model.connections() > 0).await;
    server.ask_to_stop();
    until(|| server.get("/readyz", None).0 == 503).await;
    may.send(()).unwrap();
    assert_eq!(server.terminate(), Some(0));
    let (metrics, ..) = received(&receiver);
    let Some(Data::Histogram(turns)) = &metrics["tertulia_turn_seconds"].data else { panic!("a histogram") };
    assert_eq!(turns.data_points.iter().map(|point| point.count).sum::<u64>(), 1);
    assert!(receiver.spans().iter().any(|span| span.name == "invoke_agent echo"), "its span has arrived too");
}
