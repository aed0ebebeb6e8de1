//! Requests as a shell command, and their answers.

use serde_json::Value;
use utoipa::openapi::example::Example;
use utoipa::openapi::path::{Operation, ParameterIn};
use utoipa::openapi::{Content, RefOr, Schema};

use super::html::escape;

/// The request, once for each example of its body.
pub(super) fn requests(path: &str, method: &str, operation: &Operation) -> String {
    let needs_key = operation.security.as_ref().is_some_and(|security| !security.is_empty());
    let query = query(operation);
    let mut bodies = Vec::new();
    if let Some(RefOr::T(body)) = &operation.request_body {
        for content in body.content.values() {
            let RefOr::T(content) = content else { continue };
            bodies.extend(values(content));
        }
    }
    if bodies.is_empty() {
        return block(&command(path, &query, method, needs_key, None));
    }
    let several = bodies.len() > 1;
    let one = |(at, (name, value)): (usize, (&str, &Value))| {
        let command = command(path, &query, method, needs_key, Some(value));
        if several { folded(name, &command, at == 0) } else { block(&command) }
    };
    bodies.into_iter().enumerate().map(one).collect()
}

/// The examples of an answer.
pub(super) fn examples(status: &str, content: &Content) -> String {
    values(content).map(|(name, value)| folded(&format!("{status} {name}"), &pretty(value), false)).collect()
}

/// The query parameters that have an example.
fn query(operation: &Operation) -> String {
    let parameters = operation.parameters.iter().flatten().filter_map(|parameter| {
        let RefOr::T(parameter) = parameter else { return None };
        let Some(RefOr::T(Schema::Object(shape))) = &parameter.schema else { return None };
        let in_query = matches!(parameter.parameter_in, ParameterIn::Query);
        in_query.then(|| Some(format!("{}={}", parameter.name, shape.examples.first()?.as_str()?))).flatten()
    });
    let parameters: Vec<_> = parameters.collect();
    if parameters.is_empty() { String::new() } else { format!("?{}", parameters.join("&")) }
}

fn values(content: &Content) -> impl Iterator<Item = (&str, &Value)> {
    content.examples.iter().filter_map(|(name, example)| match example {
        RefOr::T(Example { value: Some(value), .. }) => Some((name.as_str(), value)),
        _ => None,
    })
}

fn command(path: &str, query: &str, method: &str, needs_key: bool, body: Option<&Value>) -> String {
    let mut out = match method {
        "GET" => "curl".to_owned(),
        method => format!("curl -X {method}"),
    };
    // Values for the reader to fill in are shell variables, like the server and the key.
    let path = path.replace("{id}", "$ID").replace("{code}", "$CODE");
    out += &format!(" \"$TERTULIA{path}{query}\"");
    if needs_key {
        out += " \\\n  -H \"Authorization: Bearer $TERTULIA_KEY\"";
    }
    if let Some(body) = body {
        let text = pretty(body).replace('\'', "'\\''");
        out += &format!(" \\\n  -H 'Content-Type: application/json' \\\n  -d '{text}'");
    }
    out
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

/// A block of code.
fn block(text: &str) -> String {
    format!("<pre tabindex=\"0\"><code>{}</code></pre>\n", escape(text))
}

/// The same under its name, unfolded if it is `open`.
fn folded(name: &str, text: &str, open: bool) -> String {
    let open = if open { " open" } else { "" };
    format!("<details{open}><summary>{}</summary>{}</details>\n", escape(name), block(text))
}
