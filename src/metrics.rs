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
