//! A tool that is an HTTP request to a user's URL, made through the guarded client.

use std::time::Duration;

use actors::id::Address;
use actors::limits;
use actors::tool::{Fetched, Invocation, Plan};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use serde::Serialize;
use serde_json::{Map, Value};

use super::definition::Definition;
use super::{MAX_FAULTS, refusal, written};
use crate::egress::{Egress, Fault, Outgoing, Reply};
use crate::problem::Fault as DataFault;
use crate::trace_context::{RequestTrace, TRACEPARENT};
use crate::validation::{self, Progress};
use crate::wire::channel_message::schema::{PlannedValidation, Schema, ValidationResult, Violation};

/// A call that was answered without success.
#[derive(Serialize)]
struct Unsuccessful<'a> {
    error: &'static str,
    detail: String,
    body: &'a str,
}

/// Calls `tool` with these arguments once they fit its schema.
pub(super) fn plan(egress: Egress, tool: Definition, url: String, arguments: Value, invocation: &Invocation) -> Plan {
    let workspace = invocation.workspace;
    let headers = headers(&tool, invocation);
    Plan::Fetch(Box::pin(async move {
        // A client's schema may take a while, so it runs on another thread.
        let parameters = tool.parameters.clone();
        let (faults, arguments) = match validation::run(workspace, move || validate(parameters, arguments)).await {
            Ok(validated) => validated,
            Err(problem) => return refused(problem.code, &problem.detail, &[]),
        };
        if !faults.is_empty() {
            return refused("invalid_arguments", "the arguments do not match the tool's parameters", &faults);
        }
        call(&egress, workspace, &tool.method, (url, headers), &arguments).await
    }))
}

/// The faults of the arguments, and the arguments. Validation is deferred if it is not quick.
fn validate(parameters: Option<Value>, arguments: Value) -> Progress<(Vec<DataFault>, Value)> {
    let Some(schema) = parameters else { return Progress::Done((Vec::new(), arguments)) };
    let Ok(schema) = Schema::stored(schema) else {
        return Progress::Done((faults(ValidationResult::UnusableSchema), arguments));
    };
    let validation = PlannedValidation::new(schema, &arguments);
    let is_quick = validation.is_quick();
    let validate = move || (faults(validation.run(&arguments, MAX_FAULTS)), arguments);
    if is_quick { Progress::Done(validate()) } else { Progress::Deferred(Box::new(validate)) }
}

fn faults(run: ValidationResult) -> Vec<DataFault> {
    let to_fault = |found: Violation| DataFault::new(found.pointer, "invalid_request", found.message);
    let (code, message) = match run {
        ValidationResult::Valid => return Vec::new(),
        ValidationResult::Invalid(found) => return found.into_iter().map(to_fault).collect(),
        ValidationResult::InvalidUnlisted => ("invalid_request", "they are too long for the differences to be listed"),
        ValidationResult::TooExpensive => ("too_large", "they are too long to be validated"),
        ValidationResult::UnusableSchema => ("invalid_schema", "the tool's parameters cannot be read"),
    };
    vec![DataFault::new("", code, message)]
}

/// The tool's own headers, and those by which a repetition of the same call is recognised.
fn headers(tool: &Definition, invocation: &Invocation) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut put = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    put(HeaderName::from_static("idempotency-key"), &format!("{}.{}", invocation.turn, invocation.id));
    put(header::ACCEPT, "application/json, text/*;q=0.9, */*;q=0.1");
    for (name, value) in &tool.headers {
        if let Ok(name) = HeaderName::from_bytes(name.as_bytes()) {
            put(name, value);
        }
    }
    if let Some(trace) = invocation.trace {
        headers.insert(TRACEPARENT, RequestTrace::from(trace).traceparent());
    }
    headers
}

async fn call(
    egress: &Egress,
    workspace: Address,
    method: &str,
    (url, mut headers): (String, HeaderMap),
    arguments: &Value,
) -> Fetched {
    // It was checked when the agent was stored.
    let method = Method::from_bytes(method.as_bytes()).unwrap_or(Method::POST);
    let in_query = matches!(method, Method::GET | Method::DELETE);
    let (url, body) = if in_query {
        (with_query(&url, arguments.as_object()), Bytes::new())
    } else {
        headers.entry(header::CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
        (url, Bytes::from(arguments.to_string()))
    };
    let outgoing = Outgoing { workspace, method, url: &url, headers, body };
    let within = Duration::from_millis(limits::TOOL_MILLIS);
    match egress.call(outgoing, within, limits::ANSWER_BYTES).await {
        Ok(reply) => result(&reply),
        Err(fault) => {
            // Its text may name addresses, which only the operator may see.
            tracing::debug!(%fault, "a tool call failed");
            let detail = match fault {
                Fault::Timeout => "the tool did not answer in time",
                Fault::TooLarge(_) => "the tool's response is too large",
                _ => "the tool could not be called",
            };
            refused(fault.code(), detail, &[])
        }
    }
}

/// The URL with the arguments as its query: texts unchanged, other values as JSON.
fn with_query(url: &str, arguments: Option<&Map<String, Value>>) -> String {
    let Ok(mut with_query) = ::url::Url::parse(url) else { return url.to_owned() };
    if arguments.is_some_and(|arguments| !arguments.is_empty()) {
        let mut pairs = with_query.query_pairs_mut();
        for (name, value) in arguments.into_iter().flatten() {
            match value {
                Value::String(text) => pairs.append_pair(name, text),
                other => pairs.append_pair(name, &other.to_string()),
            };
        }
    }
    with_query.into()
}

fn result(reply: &Reply) -> Fetched {
    let body = String::from_utf8_lossy(&reply.excerpt);
    if reply.status.is_success() {
        let result = if body.trim().is_empty() { "{}".to_owned() } else { body.into_owned() };
        return Fetched { result, error: None };
    }
    let error = "unexpected_status";
    let detail = format!("the tool answered {}", reply.status.as_u16());
    Fetched { result: written(&Unsuccessful { error, detail, body: &body }), error: Some(error) }
}

/// The result of a call that the tool has not answered.
fn refused(error: &'static str, detail: &str, faults: &[DataFault]) -> Fetched {
    Fetched { result: refusal(error, detail, faults), error: Some(error) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn arguments_are_appended_to_an_existing_query() {
        let with = |url: &str, arguments: Value| with_query(url, arguments.as_object());
        assert_eq!(with("https://a.example/x", json!({})), "https://a.example/x");
        assert_eq!(
            with("https://a.example/x?k=1", json!({"q": "a b&c", "n": [1, 2]})),
            "https://a.example/x?k=1&n=%5B1%2C2%5D&q=a+b%26c"
        );
    }

    #[test]
    fn arguments_that_violate_the_schema_are_named_with_their_pointers() {
        let schema = json!({"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}, "n": {"maximum": 3}}});
        let of = |arguments: Value| {
            let Progress::Done((faults, _)) = validate(Some(schema.clone()), arguments) else { panic!("it is quick") };
            faults.into_iter().map(|fault| fault.pointer).collect::<Vec<_>>()
        };
        assert_eq!(of(json!({"id": "a", "n": 3})), Vec::<String>::new());
        assert_eq!(of(json!({"id": 1, "n": 4})), ["/id", "/n"]);
        assert_eq!(of(json!({})), [""]);
    }
}
