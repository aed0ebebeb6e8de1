//! `GET /admin/runtime`: the current state of the process, for an operator who follows an alert.
//!
//! It is served by the metrics listener, which answers while the API is overloaded, and which is loopback unless
//! configured otherwise. It shows counts, ids and times, never words of messages.

use actors::id::Kind;
use actors::metrics::Label as _;
use actors::node::census::Mailbox;
use axum::Json;
use axum::extract::State;
use serde_json::{Map, Value, json};

use super::{Sources, runtime};
use crate::wire::time;

/// Mailboxes shown.
const MAX_MAILBOXES: usize = 20;

/// The current state of the process.
pub(super) async fn census(State(sources): State<Sources>) -> Json<Value> {
    let node = sources.app.node();
    let census = node.census(MAX_MAILBOXES).await;
    let status = node.status();
    let tasks = runtime::tasks();
    let now = status.at;
    let outbox = status.outbox;
    let store = node
        .store_metrics()
        .map(|store| json!({ "queuedCommits": store.queued_commits.get(), "queuedBytes": store.queued_bytes.get() }));
    let spans = sources.spans.as_ref().map(|spans| {
        let counts = spans.counts();
        let dropped = json!({ "queueFull": counts.overflowed.get(), "refused": counts.refused.get() });
        json!({ "waiting": spans.len(), "exported": counts.exported.get(), "dropped": dropped })
    });
    Json(json!({
        "at": time::format(now).as_str(),
        "ready": sources.app.is_ready(),
        "resident": by_kind(&status.resident),
        "actors": by_kind(&status.actors),
        "commands": { "inFlight": status.commands, "bytes": status.command_bytes },
        "mailboxes": census.mailboxes.iter().map(mailbox).collect::<Vec<_>>(),
        "alarms": {
            "near": census.near_alarms,
            "earliest": census.earliest_alarm.map(|at| time::format(at).as_str().to_owned()),
            "overdueMillis": census.earliest_alarm.map_or(0, |at| now.since(at)),
        },
        "turns": { "alive": status.turns },
        "outbox": {
            "active": outbox.active,
            "inFlight": outbox.in_flight,
            "openCircuits": outbox.open_circuits,
            "oldestMillis": outbox.oldest_millis,
            "untriedMillis": outbox.untried_millis,
        },
        "store": store,
        "spans": spans,
        "tasks": { "alive": tasks.alive, "waiting": tasks.waiting },
    }))
}

fn by_kind(counts: &[(Kind, usize)]) -> Map<String, Value> {
    counts.iter().map(|(kind, count)| (name(*kind).to_owned(), (*count).into())).collect()
}

fn mailbox(mailbox: &Mailbox) -> Value {
    json!({
        "entity": name(mailbox.entity.kind),
        "id": mailbox.id,
        "commands": mailbox.commands,
        "bytes": mailbox.bytes,
    })
}

fn name(kind: Kind) -> &'static str {
    Kind::VALUES[kind.index()]
}
