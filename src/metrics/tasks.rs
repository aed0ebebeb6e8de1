//! `GET /admin/tasks`: running stages, the oldest first, for an operator who investigates why a request makes no
//! progress.
//!
//! Each entry is a stage in the form of its later span, so it names what is waited for: an entry without a child is the
//! current stage of its request, turn or delivery. The list is kept if the setting `telemetry.task_list` is on.

use std::time::Instant;

use actors::trace::Value as Attribute;
use actors::trace::underway::Stage;
use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::Sources;
use crate::problem::Problem;
use crate::trace_context::Hex;
use crate::wire::time;

/// Entries shown: of an overloaded node the oldest, which are the stuck ones.
const MAX_TASKS_SHOWN: usize = 1_000;

/// The list, or why there is none.
pub(super) async fn tasks(State(sources): State<Sources>) -> Result<Json<Value>, Problem> {
    let node = sources.app.node();
    let Some(underway) = node.traces().underway() else {
        let why = "the list of tasks is disabled: start the program with TERTULIA_TASK_LIST=true";
        return Err(Problem::new(StatusCode::NOT_IMPLEMENTED, "not_implemented", why));
    };
    let at = time::format(node.now());
    let (stages, all) = underway.oldest(MAX_TASKS_SHOWN);
    let now = Instant::now();
    let shown: Vec<Value> = stages.iter().map(|stage| shown(stage, now)).collect();
    Ok(Json(json!({ "at": at.as_str(), "underway": all, "tasks": shown })))
}

fn shown(stage: &Stage, now: Instant) -> Value {
    let attributes: Map<String, Value> =
        stage.attributes.iter().map(|(name, value)| ((*name).to_owned(), attribute(value))).collect();
    json!({
        "name": stage.name,
        "millis": u64::try_from(now.saturating_duration_since(stage.began).as_millis()).unwrap_or(u64::MAX),
        "traceId": Hex(&stage.context.trace_id).to_string(),
        "spanId": Hex(&stage.context.span_id).to_string(),
        "parentSpanId": stage.parent.map(|parent| Hex(&parent).to_string()),
        "attributes": attributes,
    })
}

fn attribute(value: &Attribute) -> Value {
    match value {
        Attribute::Text(text) => text.as_ref().into(),
        Attribute::Integer(number) => (*number).into(),
        Attribute::Float(number) => (*number).into(),
        Attribute::Truth(truth) => (*truth).into(),
        Attribute::Words(words) => words.as_slice().into(),
    }
}
