//! `GET /metrics` in the text format of Prometheus, on a listener of its own.

use std::fmt::Write as _;
use std::sync::Arc;

use actors::node::Node;
use axum::Router;
use axum::extract::State;
use axum::routing::get;
use http::header;

/// The version of the text format.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The routes of the metrics listener.
pub fn router(node: Arc<Node>) -> Router {
    Router::new().route("/metrics", get(metrics)).with_state(node)
}

async fn metrics(State(node): State<Arc<Node>>) -> ([(header::HeaderName, &'static str); 1], String) {
    ([(header::CONTENT_TYPE, TEXT_FORMAT)], text(&node))
}

fn text(node: &Node) -> String {
    let gauges = [
        ("tertulia_up", "Whether the process serves.", 1),
        ("tertulia_resident_entities", "Entities in memory.", node.resident()),
        ("tertulia_commands_in_flight", "Commands admitted and not answered yet.", node.admission().in_flight()),
        ("tertulia_running_turns", "Agents' turns that are running.", node.running_turns()),
    ];
    let mut out = String::new();
    for (name, help, value) in gauges {
        // Writing to a string cannot fail.
        let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}\n");
    }
    out
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

    #[tokio::test]
    async fn every_metric_has_its_help_its_type_and_a_number() {
        let entropy = Entropy::seeded([1; 32]);
        let clock = Arc::new(ManualClock::default());
        let node = Node::start(Arc::new(MemoryStore::default()), clock, entropy, Arc::new(NoModels));
        let request = Request::get("/metrics").body(Body::empty()).unwrap();
        let response = router(node).oneshot(request).await.unwrap();
        assert_eq!(response.headers()[header::CONTENT_TYPE], TEXT_FORMAT);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let text = std::str::from_utf8(&body).unwrap();
        assert!(text.ends_with('\n') && text.contains("\ntertulia_up 1\n"), "{text}");
        for lines in text.lines().collect::<Vec<_>>().chunks(3) {
            let name = lines[2].split_once(' ').unwrap().0;
            assert!(lines[0].starts_with(&format!("# HELP {name} ")), "{lines:?}");
            assert_eq!(lines[1], format!("# TYPE {name} gauge"));
            assert!(lines[2].rsplit(' ').next().unwrap().parse::<f64>().is_ok());
        }
    }
}
