//! `GET /metrics` in the text formats of Prometheus, and the operator's view below `/admin`, on a listener of their
//! own.

use std::sync::Arc;

use ::http::{HeaderMap, header};
use actors::clock::Entropy;
use actors::id::Kind;
use actors::metrics::{Described, LabelPair, MetricKind, Sample};
use actors::node::census::{NodeStatus, OutboxStatus};
use axum::Router;
use axum::extract::State;
use axum::routing::get;

mod census;
mod heap;
pub mod http;
pub mod otlp;
pub mod page;
mod process;
mod runtime;
pub mod sink;
mod tasks;

use crate::app::App;
use crate::http::context::{ContextLayer, RequestTelemetry};
use crate::http::headers::prefers_openmetrics;
use crate::http::{context_layer, not_found, probes};
use crate::telemetry::span_queue::SpanQueue;
use opentelemetry_proto::tonic::metrics::v1::Metric;
use otlp::Collected;
use page::{Format, Page};
use sink::Sink;

/// The sources of the metrics listener.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The handlers' shared state.
    pub app: App,
    /// The queue of spans, if they are sent.
    pub spans: Option<Arc<SpanQueue>>,
}

impl Sources {
    /// Shows the current value of every metric.
    fn write(&self, page: &mut impl Sink) {
        write_up(page, true);
        let node = self.app.node();
        let status = node.status();
        let all = |each: &[(Kind, usize)]| each.iter().map(|(_, count)| count).sum::<usize>();
        let seconds = |millis: u64| usize::try_from(millis / 1_000).unwrap_or(usize::MAX);
        let NodeStatus { commands, turns, outbox, .. } = status;
        let OutboxStatus { active, in_flight, open_circuits, oldest_millis, untried_millis } = outbox;
        let untried = seconds(untried_millis);
        let age = seconds(oldest_millis);
        let gauges = [
            ("tertulia_resident_entities", "Entities in memory.", all(&status.resident)),
            ("tertulia_actors", "Entities in memory that have an actor.", all(&status.actors)),
            ("tertulia_commands_in_flight", "Commands that are admitted and unanswered.", commands),
            ("tertulia_running_turns", "Attempts at agents' turns that run or wait for a permit.", turns),
            ("tertulia_outbox_active", "Logs with events being sent.", active),
            ("tertulia_outbox_in_flight", "Events being sent.", in_flight),
            (
                "tertulia_outbox_open_circuits",
                "Receivers that are paused because deliveries to them fail.",
                open_circuits,
            ),
            ("tertulia_outbox_untried_seconds", "Age of the oldest event waiting for its first attempt.", untried),
            ("tertulia_outbox_age_seconds", "Longest time that a log has been sending without a pause.", age),
        ];
        for (name, help, value) in gauges {
            page.metric(name, help, MetricKind::Gauge);
            page.value(&[], value);
        }
        let mut show = |described: Described, samples: &[(Vec<LabelPair>, Sample)]| {
            page.metric(described.name, described.help, described.kind);
            for (labels, sample) in samples {
                page.sample(labels, sample);
            }
        };
        node.metrics().visit(&mut show);
        if let Some(store) = node.store_metrics() {
            store.visit(&mut show);
        }
        write_process(page, self.app.request_telemetry(), self.spans.as_deref());
    }

    /// The same for a receiver; both times are nanoseconds since 1970, see [`Collected::new`].
    #[must_use]
    pub fn collect(&self, began: u64, now: u64) -> Vec<Metric> {
        let mut collected = Collected::new(began, now);
        self.write(&mut collected);
        collected.finish()
    }
}

/// The sources of the metrics listener while the server waits for its store: the process, and early requests.
#[derive(Clone, Debug)]
pub struct Starting {
    /// Sampling and telemetry of all requests, before and after the start.
    pub request_telemetry: Arc<RequestTelemetry>,
    /// The queue of spans, if they are sent.
    pub spans: Option<Arc<SpanQueue>>,
}

impl Starting {
    fn write(&self, page: &mut impl Sink) {
        write_up(page, false);
        write_process(page, &self.request_telemetry, self.spans.as_deref());
    }
}

/// The routes of the metrics listener of a server that waits for its store.
pub fn starting(entropy: Entropy, sources: Starting) -> Router {
    let context = ContextLayer::new(Arc::new(entropy), Arc::new(RequestTelemetry::silent()));
    let metrics = async move |headers: HeaderMap| page(&headers, |page| sources.write(page));
    Router::new().route("/metrics", get(metrics)).fallback(probes::refuse_while_starting).layer(context)
}

/// The routes of the metrics listener.
pub fn router(sources: Sources) -> Router {
    let context = context_layer(&sources.app, Arc::new(RequestTelemetry::silent()));
    let routes = Router::new()
        .route("/metrics", get(metrics))
        .route("/admin/runtime", get(census::census))
        .route("/admin/tasks", get(tasks::tasks))
        .route("/admin/heap", get(heap::heap));
    // Around the fallback too: every answer has its request's id.
    routes.fallback(not_found).layer(context).with_state(sources)
}

/// A page and its type.
type Shown = ([(header::HeaderName, &'static str); 1], String);

async fn metrics(State(sources): State<Sources>, headers: HeaderMap) -> Shown {
    page(&headers, |page| sources.write(page))
}

fn page(headers: &HeaderMap, write: impl FnOnce(&mut Page)) -> Shown {
    let format = if prefers_openmetrics(headers) { Format::OpenMetrics } else { Format::Text };
    let mut page = Page::new(format);
    write(&mut page);
    ([(header::CONTENT_TYPE, format.content_type())], page.finish())
}

fn write_up(page: &mut impl Sink, serves: bool) {
    page.metric("tertulia_up", "Whether the process serves requests.", MetricKind::Gauge);
    page.value(&[], usize::from(serves));
}

/// The metrics that exist with and without a store.
fn write_process(page: &mut impl Sink, request_telemetry: &RequestTelemetry, spans: Option<&SpanQueue>) {
    page.metric("tertulia_build_info", "The program's version, in a label; always 1.", MetricKind::Gauge);
    page.value(&[("version", env!("CARGO_PKG_VERSION"))], 1_u64);
    request_telemetry.metrics().write(page);
    if let Some(spans) = spans {
        write_spans(page, spans);
    }
    runtime::write(page);
    process::write(page);
}

fn write_spans(page: &mut impl Sink, spans: &SpanQueue) {
    page.metric("tertulia_spans_waiting", "Spans waiting to be exported.", MetricKind::Gauge);
    page.value(&[], spans.len());
    let counts = spans.counts();
    page.metric("tertulia_spans_exported_total", "Spans that the receiver accepted.", MetricKind::Counter);
    page.value(&[], counts.exported.get());
    page.metric("tertulia_spans_dropped_total", "Spans that were dropped.", MetricKind::Counter);
    page.value(&[("reason", "queue_full")], counts.overflowed.get());
    page.value(&[("reason", "refused")], counts.refused.get());
}

#[cfg(test)]
mod tests {
    use actors::agent::NoModels;
    use std::io::ErrorKind;

    use ::http::Request;
    use actors::clock::ManualClock;
    use actors::node::Node;
    use actors::store::memory::MemoryStore;
    use axum::body::Body;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;
    use crate::app::ExternalClients;
    use crate::config::{Config, ConfigArgs};
    use crate::egress::Egress;
    use crate::files::FileStore;
    use crate::secret::Pepper;

    fn sources() -> Sources {
        let entropy = Entropy::seeded([1; 32]);
        let clock = Arc::new(ManualClock::default());
        let node = Node::start(Arc::new(MemoryStore::default()), clock, entropy, Arc::new(NoModels));
        let config = Config::load(&ConfigArgs::default(), &|_| None, &|_| Err(ErrorKind::NotFound.into())).unwrap();
        let spans = Some(Arc::new(SpanQueue::new(config.otel.batching)));
        let outside = ExternalClients {
            egress: Egress::new(config.egress_allow.clone(), &config.egress_name_servers).unwrap(),
            files: FileStore::directory(tempfile::tempdir().unwrap().path()).unwrap(),
        };
        let app = App::new(node, Pepper::new([1; 32]), outside, &config);
        Sources { app, spans }
    }

    async fn scraped(accept: &str) -> (String, String) {
        let request = Request::get("/metrics").header(header::ACCEPT, accept).body(Body::empty()).unwrap();
        let response = router(sources()).oneshot(request).await.unwrap();
        let content_type = response.headers()[header::CONTENT_TYPE].to_str().unwrap().to_owned();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (content_type, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn every_series_has_the_help_and_type_of_its_metric_before_it() {
        let (content_type, text) = scraped("*/*").await;
        assert_eq!(content_type, Format::Text.content_type());
        assert!(text.ends_with('\n') && text.contains("\ntertulia_up 1\n"), "{text}");
        let version = format!("\ntertulia_build_info{{version=\"{}\"}} 1\n", env!("CARGO_PKG_VERSION"));
        assert!(text.contains(&version), "{text}");
        let mut name = "";
        for line in text.lines() {
            match line.strip_prefix("# HELP ") {
                Some(help) => name = help.split_once(' ').unwrap().0,
                None if line.starts_with("# TYPE ") => assert!(line.starts_with(&format!("# TYPE {name} ")), "{line}"),
                None => {
                    assert!(line.starts_with(name), "{line}");
                    assert!(line.rsplit(' ').next().unwrap().parse::<f64>().is_ok(), "{line}");
                }
            }
        }
    }

    #[tokio::test]
    async fn openmetrics_is_served_to_who_asks_for_it() {
        let (content_type, text) = scraped("application/openmetrics-text; version=1.0.0").await;
        assert_eq!(content_type, Format::OpenMetrics.content_type());
        assert!(text.ends_with("# EOF\n"));
    }

    #[tokio::test]
    async fn a_missing_heap_profile_explains_how_to_enable_it() {
        let request = Request::get("/admin/heap").body(Body::empty()).unwrap();
        let response = router(sources()).oneshot(request).await.unwrap();
        assert_eq!(response.status().as_u16(), 501);
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["code"], "not_implemented");
        // If it is built in, this test's process was not started for it.
        assert!(body["detail"].as_str().unwrap().contains("_RJEM_MALLOC_CONF=prof:true"), "{body}");
    }

    #[tokio::test]
    async fn answers_of_this_listener_name_their_request_and_are_not_counted() {
        let sources = sources();
        for (method, path, status) in [
            ("GET", "/metrics", 200),
            ("GET", "/admin/runtime", 200),
            ("HEAD", "/metrics", 200),
            ("POST", "/metrics", 405),
            ("GET", "/nowhere", 404),
        ] {
            let request = Request::builder().method(method).uri(path).header("x-request-id", "mine");
            let response = router(sources.clone()).oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
            assert_eq!(response.status().as_u16(), status, "{method} {path}");
            assert_eq!(response.headers()["x-request-id"], "mine", "{method} {path}");
            assert!(response.headers().contains_key("traceparent"), "{method} {path}");
            if status >= 400 {
                assert_eq!(response.headers()["content-type"], "application/problem+json", "{method} {path}");
            }
        }
        let (_, page) = page(&HeaderMap::new(), |page| sources.write(page));
        assert!(!page.contains("/admin/runtime") && !page.contains("not_found"), "{page}");
    }

    #[tokio::test]
    async fn the_runtime_page_shows_what_waits_and_where() {
        let request = Request::get("/admin/runtime").body(Body::empty()).unwrap();
        let response = router(sources()).oneshot(request).await.unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((&body["ready"], &body["mailboxes"]), (&true.into(), &serde_json::json!([])));
        assert_eq!((&body["resident"]["conversation"], &body["actors"]["conversation"]), (&0.into(), &0.into()));
        let of_the_outbox =
            ["active", "inFlight", "openCircuits", "oldestMillis", "untriedMillis"].map(|member| ("outbox", member));
        let others = [("commands", "inFlight"), ("turns", "alive"), ("tasks", "alive"), ("spans", "waiting")];
        for (group, member) in others.into_iter().chain(of_the_outbox) {
            assert!(body[group][member].is_u64(), "{group}.{member}: {body}");
        }
        assert_eq!(body["alarms"]["overdueMillis"], 0);
    }
}
