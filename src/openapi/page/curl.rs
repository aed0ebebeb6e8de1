//! Requests as a shell command, and what they answer.

use serde_json::Value;
use utoipa::openapi::example::Example;
use utoipa::openapi::path::Operation;
use utoipa::openapi::{Content, RefOr};

use super::html::escape;

/// The request, once for each example of its body.
pub(super) fn requests(path: &str, method: &str, operation: &Operation) -> String {
    let needs_key = operation.security.as_ref().is_some_and(|security| !security.is_empty());
    let mut bodies = Vec::new();
    if let Some(RefOr::T(body)) = &operation.request_body {
        for content in body.content.values() {
            let RefOr::T(content) = content else { continue };
            bodies.extend(values(content));
        }
    }
    if bodies.is_empty() {
        return block("", &command(path, method, needs_key, None));
    }
    let several = bodies.len() > 1;
    let one = |(name, value): (&str, &Value)| {
        let command = command(path, method, needs_key, Some(value));
        block(if several { name } else { "" }, &command)
    };
    bodies.into_iter().map(one).collect()
}

/// The examples of an answer.
pub(super) fn examples(status: &str, content: &Content) -> String {
    values(content).map(|(name, value)| block(&format!("{status} {name}"), &pretty(value))).collect()
}

fn values(content: &Content) -> impl Iterator<Item = (&str, &Value)> {
    content.examples.iter().filter_map(|(name, example)| match example {
        RefOr::T(Example { value: Some(value), .. }) => Some((name.as_str(), value)),
        _ => None,
    })
}

fn command(path: &str, method: &str, needs_key: bool, body: Option<&Value>) -> String {
    let mut out = match method {
        "GET" => "curl".to_owned(),
        method => format!("curl -X {method}"),
    };
    // Ids in braces are for the reader to fill in; a shell must not read them.
    out += &format!(" \"$TERTULIA{path}\"");
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

/// A block of code; with a name it is folded.
fn block(name: &str, text: &str) -> String {
    let code = format!("<pre tabindex=\"0\"><code>{}</code></pre>\n", escape(text));
    if name.is_empty() { code } else { format!("<details><summary>{}</summary>{code}</details>\n", escape(name)) }
}
