//! The tools that an agent declares: their form, their validation, and their description for a model.
//!
//! A tool is `{name, description?, parameters?, url?, method?, headers?}`, or the protocol's own `{type: "function",
//! function: {name, description?, parameters?}}` with `url`, `method` and `headers` beside it. One of the program's own
//! tools is declared by its name alone.

use actors::message::Json;
use actors::tool::{REQUEST_REVIEW, SEARCH_MEMORIES};
use serde_json::Value as JsonValue;
use serde_json::value::RawValue;

use crate::json::fields::{Fields, Length, Value};
use crate::json::report::Report;
use crate::json::{self, Member, Object};
use crate::wire::channel_message::payload::usable_schema;
use crate::wire::channel_message::review::{Headers, headers};
use crate::wire::url::{self, Allow};

/// The longest description, in characters; it is part of every prompt.
const MAX_DESCRIPTION_CHARS: usize = 4_096;
/// The methods of tools.
const METHODS: [(&str, &str); 5] =
    [("GET", "GET"), ("POST", "POST"), ("PUT", "PUT"), ("PATCH", "PATCH"), ("DELETE", "DELETE")];
/// Replaces a header's value wherever an agent is shown.
pub const HIDDEN: &str = "***";

/// The parameters of `request_review`.
const REVIEW_PARAMETERS: &str = r#"{"type":"object","required":["channelId","type"],"properties":{
"channelId":{"type":"string","description":"The channel whose people are asked."},
"text":{"type":"string","description":"The question, in Markdown."},
"type":{"type":"string","description":"approval, selection, form, text-input, or a custom type."},
"payload":{"type":"object","description":"The possible answers, in the form that the type requires."},
"expiresInSeconds":{"type":"integer","minimum":1,"description":"How long to wait for an answer."}}}"#;
/// The parameters of `search_memories`.
const MEMORIES_PARAMETERS: &str = r#"{"type":"object","required":["query"],"properties":{
"query":{"type":"string","description":"What to look for."},
"limit":{"type":"integer","minimum":1,"maximum":20}}}"#;

/// A declared tool.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    /// Its name.
    pub name: String,
    /// Its description for the model.
    pub description: Option<String>,
    /// The JSON Schema of its arguments.
    pub parameters: Option<JsonValue>,
    /// Its URL.
    pub url: Option<String>,
    /// Its method.
    pub method: String,
    /// Its headers.
    pub headers: Vec<(String, String)>,
}

impl Definition {
    /// The tools that an agent declares, checked when it was stored.
    #[must_use]
    pub fn of_agent(tools: &Json) -> Vec<Self> {
        let items: Vec<&RawValue> = serde_json::from_str(tools.as_str()).unwrap_or_default();
        items.into_iter().filter_map(Self::read).collect()
    }

    /// One tool. Members unknown here are not read, so that none of them invalidates the tool.
    fn read(item: &RawValue) -> Option<Self> {
        let tool = Object::from_raw(item)?;
        let function = tool.get("function").and_then(Object::from_raw);
        let named = function.as_ref().unwrap_or(&tool);
        let name = text(named, "name")?;
        let own = own(&name);
        let parameters = named.get("parameters").and_then(|raw| serde_json::from_str(raw.get()).ok());
        let headers = tool.get("headers").and_then(Object::from_raw);
        let headers = headers.iter().flat_map(Object::members);
        let header = |member: &Member<'_>| Some((member.name.to_string(), json::string(member.value)?.into_owned()));
        Some(Self {
            description: text(named, "description").or_else(|| own.map(|own| own.0.to_owned())),
            parameters: parameters.filter(|schema: &JsonValue| !schema.is_null()).or_else(|| super::value(own?.1)),
            url: text(&tool, "url"),
            method: text(&tool, "method").unwrap_or_else(|| "POST".to_owned()),
            headers: headers.filter_map(header).collect(),
            name,
        })
    }
}

/// A member that is a text.
fn text(object: &Object<'_>, name: &str) -> Option<String> {
    Some(json::string(object.get(name)?)?.into_owned())
}

/// Description and parameters of a tool of the program's own.
fn own(name: &str) -> Option<(&'static str, &'static str)> {
    match name {
        REQUEST_REVIEW => Some(("Asks people on a channel and waits for their answer.", REVIEW_PARAMETERS)),
        SEARCH_MEMORIES => Some(("Searches the memories of the user.", MEMORIES_PARAMETERS)),
        _ => None,
    }
}

/// Reports the faults of a declared tool; returns its name, if it has one.
pub fn check(value: &Value<'_>, allow: Allow<'_>, report: &mut Report) -> Option<String> {
    let mut fields = value.object(report)?;
    if let Some(kind) = fields.optional("type") {
        kind.choice(report, &[("function", ())]);
    }
    let name = match fields.optional("function") {
        Some(function) => {
            // Its other members have no effect; they must still be well-formed.
            if fields.object().get("name").is_some_and(|name| name.get() != "null") {
                named(&mut fields, report);
            } else {
                fields.optional("name");
                described(&mut fields, report);
            }
            called(function.object(report)?, report)
        }
        None => named(&mut fields, report),
    };
    if let Some(value) = fields.optional("url") {
        url::read(&value, report, allow);
    }
    if let Some(value) = fields.optional("method") {
        value.choice(report, &METHODS);
    }
    if let Some(value) = fields.optional("headers") {
        for (name, _) in headers(&value, Headers::OfTool, report).iter().filter(|(_, value)| value == HIDDEN) {
            let message = format!("{name:?} has the placeholder value of hidden headers; send the header's own value");
            report.fault_at(value.path.member(name), "forbidden_header", message);
        }
    }
    fields.finish(report);
    name
}

/// Reports faults of the chat-completions form, `function`. Its `strict` changes nothing: every call is checked.
fn called(mut function: Fields<'_>, report: &mut Report) -> Option<String> {
    let name = named(&mut function, report);
    if let Some(value) = function.optional("strict") {
        value.boolean(report);
    }
    function.finish(report);
    name
}

fn named(fields: &mut Fields<'_>, report: &mut Report) -> Option<String> {
    let name = fields.required(report, "name").and_then(|value| {
        let text = value.string(report, Length::chars(1, 64))?;
        if text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')) {
            return Some(text.into_owned());
        }
        report.fault(&value.path, "invalid_characters", "must consist of letters, digits, _ and -");
        None
    });
    described(fields, report);
    name
}

fn described(fields: &mut Fields<'_>, report: &mut Report) {
    fields.string(report, "description", Length::chars(0, MAX_DESCRIPTION_CHARS));
    if let Some(value) = fields.optional("parameters") {
        parameters(&value, report);
    }
}

fn parameters(value: &Value<'_>, report: &mut Report) {
    if !value.is_object() {
        return value.wrong_type(report, "an object");
    }
    usable_schema(value, report);
}

/// The tools as clients see them: without the values of headers, which are secrets, and without members that
/// [`check`] ignores, where a secret may have been written by mistake.
#[must_use]
pub fn shown(tools: &Json) -> Json {
    match serde_json::from_str::<Vec<&RawValue>>(tools.as_str()) {
        Ok(items) => {
            let items: Vec<_> = items.into_iter().map(shown_tool).collect();
            Json::from_checked(format!("[{}]", items.join(",")))
        }
        Err(_) => tools.clone(),
    }
}

fn shown_tool(raw: &RawValue) -> String {
    with_values(raw, |member| match &*member.name {
        "headers" if member.value.get() == "null" => Some("null".to_owned()),
        "headers" => Some(with_values(member.value, |_| Some(quoted(HIDDEN)))),
        "function" => Some(with_values(member.value, |member| {
            ["name", "description", "parameters", "strict"]
                .contains(&&*member.name)
                .then(|| member.value.get().to_owned())
        })),
        "type" | "name" | "description" | "parameters" | "url" | "method" => Some(member.value.get().to_owned()),
        _ => None,
    })
}

/// An object with these values for its members, without those that get none. Other JSON becomes `null`.
fn with_values(raw: &RawValue, value: impl Fn(&Member<'_>) -> Option<String>) -> String {
    let Some(object) = Object::from_raw(raw) else { return "null".to_owned() };
    let members: Vec<_> = object
        .members()
        .iter()
        .filter_map(|member| Some(format!("{}:{}", quoted(&member.name), value(member)?)))
        .collect();
    format!("{{{}}}", members.join(","))
}

fn quoted(text: &str) -> String {
    JsonValue::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read_and_own_tools_need_only_their_name() {
        let tools = r#"[{"name":"a","url":"https://x.example/","headers":{"x-key":"s"},"method":"GET"},
            {"type":"function","function":{"name":"b","description":"B","parameters":{"type":"object"}}},
            {"name":"request_review"},{"nothing":1}]"#;
        let tools = Definition::of_agent(&Json::from_checked(tools));
        let names: Vec<_> = tools.iter().map(|tool| tool.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "request_review"]);
        assert_eq!((tools[0].method.as_str(), tools[0].headers.len()), ("GET", 1));
        assert_eq!((tools[1].description.as_deref(), tools[1].method.as_str()), (Some("B"), "POST"));
        let parameters = tools[2].parameters.as_ref().unwrap();
        assert_eq!(parameters["required"], serde_json::json!(["channelId", "type"]));
        assert!(super::super::value(MEMORIES_PARAMETERS).is_some());
    }

    #[test]
    fn an_unknown_member_removes_no_tool() {
        let tools = r#"[{"name":"a"},{"type":"function","function":{"name":"b","strict":1e400},"name":5,
            "description":[],"parameters":"x","more":1e400},
            {"name":"c","function":null,"headers":null,"url":null,"method":null},7]"#;
        let tools = Definition::of_agent(&Json::from_checked(tools));
        let names: Vec<_> = tools.iter().map(|tool| tool.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "c"]);
    }

    /// One may be a secret in the wrong place.
    #[test]
    fn ignored_members_of_a_tool_are_not_shown() {
        let tools = r#"[{"function":{"name":"a","headers":{"Authorization":"s"},"strict":true},"headers":null},
            {"type":"function","function":null,"name":"b","Headers":{"Authorization":"s"},"auth":"s"},{"headers":"s"}]"#;
        let expected = r#"[{"function":{"name":"a","strict":true},"headers":null},{"type":"function","function":null,"name":"b"},{"headers":null}]"#;
        assert_eq!(shown(&Json::from_checked(tools)).as_str(), expected);
    }

    #[test]
    fn a_headers_value_is_never_shown_and_no_other_member_changes() {
        let tools = r#"[{"name":"a","parameters":{"b":1.50,"a":2},"headers":{"Authorization":"Bearer s","x\"":"t"}},{"url":"u"}]"#;
        let expected =
            r#"[{"name":"a","parameters":{"b":1.50,"a":2},"headers":{"Authorization":"***","x\"":"***"}},{"url":"u"}]"#;
        assert_eq!(shown(&Json::from_checked(tools)).as_str(), expected);
    }
}
