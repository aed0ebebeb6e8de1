//! `GET /metrics` in the text formats of Prometheus, on a listener of its own.

use std::sync::Arc;

use actors::metrics::{Described, LabelPair, MetricKind, Sample};
use actors::node::Node;
use axum::Router;
use axum::extract::State;
use axum::routing::get;
use http::{HeaderMap, header};

pub mod exemplar;
pub mod page;

use page::{Format, Page};

/// The routes of the metrics listener.
pub fn router(node: Arc<Node>) -> Router {
    Router::new().route("/metrics", get(metrics)).with_state(node)
}

async fn metrics(
    State(node): State<Arc<Node>>,
    headers: HeaderMap,
) -> ([(header::HeaderName, &'static str); 1], String) {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let format = Format::accepted(accept);
    ([(header::CONTENT_TYPE, format.content_type())], text(&node, format))
}

fn text(node: &Node, format: Format) -> String {
    let mut page = Page::new(format);
    let closed = node.outbox().closed_gates();
    let age = usize::try_from(node.outbox().oldest(node.now()) / 1_000).unwrap_or(usize::MAX);
    let gauges = [
        ("tertulia_up", "Whether the process serves.", 1),
        ("tertulia_resident_entities", "Entities in memory.", node.resident()),
        ("tertulia_commands_in_flight", "Commands admitted and not answered yet.", node.admission().in_flight()),
        ("tertulia_running_turns", "Agents' turns that are running.", node.running_turns()),
        ("tertulia_outbox_active", "Logs that are being sent from.", node.outbox().active()),
        ("tertulia_outbox_in_flight", "Events that are being sent.", node.outbox().in_flight()),
        ("tertulia_outbox_closed_gates", "Receivers that get nothing for now, as nothing arrives there.", closed),
        ("tertulia_outbox_age_seconds", "For how long the slowest log has had something to send.", age),
    ];
    for (name, help, value) in gauges {
        page.metric(name, help, MetricKind::Gauge);
        page.value(&[], value);
    }
    let mut show = |described: Described, samples: &[(Option<LabelPair>, Sample)]| {
        page.metric(described.name, described.help, described.kind);
        for (label, sample) in samples {
            page.sample(label.as_slice(), sample);
        }
    };
    node.metrics().visit(&mut show);
    if let Some(store) = node.store_metrics() {
        store.visit(&mut show);
    }
    page.finish()
}

#[cfg(test)]
mod tests {
    use actors::agent::NoModels;
    use actors::clock::{Entropy, ManualClock};
    use actors::store::memory::MemoryStore;
    use axum::body::Body;
    use http::Request;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    async fn scraped(accept: &str) -> (String, String) {
        let entropy = Entropy::seeded([1; 32]);
        let clock = Arc::new(ManualClock::default());
        let node = Node::start(Arc::new(MemoryStore::default()), clock, entropy, Arc::new(NoModels));
        let request = Request::get("/metrics").header(header::ACCEPT, accept).body(Body::empty()).unwrap();
        let response = router(node).oneshot(request).await.unwrap();
        let content_type = response.headers()[header::CONTENT_TYPE].to_str().unwrap().to_owned();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (content_type, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn every_series_has_the_help_and_type_of_its_metric_before_it() {
        let (content_type, text) = scraped("*/*").await;
        assert_eq!(content_type, Format::Text.content_type());
        assert!(text.ends_with('\n') && text.contains("\ntertulia_up 1\n"), "{text}");
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
}
