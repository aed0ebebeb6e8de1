//! Tools of agents: parsing calls and writing results, both as JSON.
//!
//! Two tools are the program's own and can be called by every agent: `request_review` and `search_memories`. Others are
//! HTTP requests described by the agent's `tools`. A model is offered the tools that its agent declares.

use std::sync::Arc;

use actors::clock::Clock;
use actors::memories::recall::Remembered;
use actors::message::{Json, ReviewState};
use actors::tool::{Called, Invocation, Plan, REQUEST_REVIEW, SEARCH_MEMORIES, Tools};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::egress::Egress;
use crate::json::Object;
use crate::json::report::Report;
use crate::models::{attached, pairing};
use crate::problem::Fault;
use crate::validation;
use crate::wire::json_view::{Raw, review_status};
use crate::wire::time::Time;

pub mod definition;
mod fetch;
mod memories;
mod review;

use definition::Definition;

/// Faults of a call's arguments that are reported to the model; more would not help it.
const MAX_FAULTS: usize = 10;

/// The tools of this program's agents.
pub struct AgentTools {
    clock: Arc<dyn Clock>,
    egress: Egress,
}

impl std::fmt::Debug for AgentTools {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgentTools").finish_non_exhaustive()
    }
}

impl AgentTools {
    /// Tools that use this clock, and make their calls through this client.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, egress: Egress) -> Self {
        Self { clock, egress }
    }

    /// A call of a tool that the agent declares.
    fn declared(&self, invocation: &Invocation) -> Plan {
        let called = &invocation.called;
        let tools = invocation.agent.tools.as_ref().map(Definition::of_agent).unwrap_or_default();
        let Some(mut tool) = tools.into_iter().find(|tool| tool.name == called.name) else {
            return Plan::Answer(refusal("unknown_tool", "no such tool", &[]));
        };
        let Some(url) = tool.url.take() else {
            return Plan::Answer(refusal("tool_unavailable", "this tool has no handler", &[]));
        };
        let arguments = value(text_of(called)).unwrap_or_default();
        fetch::plan(self.egress.clone(), tool, url, arguments, invocation)
    }
}

/// A call in the form of an assistant's message.
#[derive(Serialize)]
struct Recorded<'a> {
    id: &'a str,
    r#type: &'static str,
    function: Function<'a>,
}

#[derive(Serialize)]
struct Function<'a> {
    name: &'a str,
    /// A text that should be JSON, by the protocol.
    arguments: &'a str,
}

/// A review's outcome.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Reviewed<'a> {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<Raw<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    feedback: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decided_by: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed_at: Option<Time>,
}

#[derive(Serialize)]
struct Memories<'a> {
    memories: Vec<Memory<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Memory<'a> {
    text: &'a str,
    created_at: Time,
}

/// A failure.
#[derive(Serialize)]
struct Failed<'a> {
    error: &'a str,
    detail: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    faults: &'a [Fault],
}

fn written(value: &impl Serialize) -> String {
    // Only a map with non-string keys cannot be serialized, and there is none.
    serde_json::to_string(value).unwrap_or_else(|_| "{}".to_owned())
}

/// A result with the faults of the call.
fn refusal(error: &str, detail: &str, faults: &[Fault]) -> String {
    let faults = &faults[..faults.len().min(MAX_FAULTS)];
    written(&Failed { error, detail, faults })
}

/// The arguments as written; models write nothing if a tool has no parameters.
fn text_of(called: &Called) -> &str {
    if called.arguments.trim().is_empty() { "{}" } else { &called.arguments }
}

impl Tools for AgentTools {
    fn plan(&self, invocation: &Invocation) -> Plan {
        let called = &invocation.called;
        let Ok(arguments) = Object::parse(text_of(called).as_bytes()) else {
            return Plan::Answer(refusal("invalid_arguments", "the arguments are not a JSON object", &[]));
        };
        let mut report = Report::new(false);
        let plan = match called.name.as_str() {
            REQUEST_REVIEW => review::plan(arguments, self.clock.now(), &mut report),
            SEARCH_MEMORIES => memories::plan(arguments, &mut report),
            _ => return self.declared(invocation),
        };
        if let Err(problem) = validation::run_deferred_here(&mut report) {
            return Plan::Answer(refusal(problem.code, &problem.detail, &[]));
        }
        report.faults.append(&mut report.late);
        let refused =
            || refusal("invalid_arguments", "the arguments do not match the tool's parameters", &report.faults);
        plan.filter(|_| report.faults.is_empty()).unwrap_or_else(|| Plan::Answer(refused()))
    }

    fn recorded(&self, calls: &[Invocation]) -> Json {
        let calls: Vec<Recorded<'_>> = calls
            .iter()
            .map(|call| Recorded {
                id: call.public_id(),
                r#type: "function",
                function: Function { name: &call.called.name, arguments: &call.called.arguments },
            })
            .collect();
        Json::from_checked(written(&calls))
    }

    fn ids_of(&self, tool_calls: &Json) -> Vec<String> {
        pairing::ids_of(tool_calls)
    }

    fn answered(&self, metadata: &Json) -> Option<String> {
        pairing::answered(metadata)
    }

    fn files_of(&self, references: &Json) -> Vec<String> {
        attached::lines(references)
    }

    fn scripted(&self, call: &Json) -> Called {
        #[derive(serde::Deserialize)]
        struct Scripted<'a> {
            name: String,
            #[serde(borrow)]
            arguments: Option<&'a RawValue>,
        }
        // It was checked when the agent was stored.
        let read = serde_json::from_str::<Scripted<'_>>(call.as_str()).ok();
        let arguments = read.as_ref().and_then(|call| call.arguments).map_or("{}", RawValue::get).to_owned();
        Called { id: None, name: read.map(|call| call.name).unwrap_or_default(), arguments }
    }

    fn reviewed(&self, state: &ReviewState) -> String {
        written(&Reviewed {
            status: review_status(state.status),
            response: state.response.as_ref().map(Raw),
            feedback: state.feedback.as_deref(),
            decided_by: state.decided_by.as_deref(),
            completed_at: state.completed_at.map(Time),
        })
    }

    fn remembered(&self, memories: &[Remembered]) -> String {
        let shown = memories.iter().map(|memory| Memory { text: &memory.text, created_at: Time(memory.at) });
        written(&Memories { memories: shown.collect() })
    }

    fn failed(&self, code: &str, detail: &str) -> String {
        written(&Failed { error: code, detail, faults: &[] })
    }
}

/// A JSON text as a value; `None` if it is invalid.
fn value(text: &str) -> Option<Value> {
    serde_json::from_str(text).ok()
}
