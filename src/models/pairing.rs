//! Ordering messages as the protocol requires: each of an assistant's calls is followed by exactly one result, and no
//! result comes without its call. The conversation may differ: other messages came in between, the oldest were cut off,
//! or it was imported.

use actors::agent::ChatMessage;
use actors::message::{Json, role};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The result of a call whose own is missing.
const NO_RESULT: &str = r#"{"error":"no_result","detail":"the result of this call is not known"}"#;

/// A message in the protocol's form.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Line<'a> {
    role: &'a str,
    content: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Call>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<String>,
}

/// A call in the protocol's form.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Call {
    id: String,
    r#type: &'static str,
    function: Function,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Function {
    name: String,
    arguments: String,
}

/// A call as stored, possibly a client's own in an imported conversation.
#[derive(Deserialize)]
struct Kept {
    id: String,
    function: KeptFunction,
}

#[derive(Deserialize)]
struct KeptFunction {
    name: String,
    #[serde(default)]
    arguments: Value,
}

/// Reads a message's calls; those that do not fit the protocol are left out.
fn calls(kept: Option<&Json>) -> Vec<Call> {
    let values: Vec<Value> = kept.and_then(|kept| serde_json::from_str(kept.as_str()).ok()).unwrap_or_default();
    let calls = values.into_iter().filter_map(|value| serde_json::from_value::<Kept>(value).ok());
    let call = |Kept { id, function }| {
        let arguments = match function.arguments {
            Value::String(text) => text,
            Value::Null => "{}".to_owned(),
            other => other.to_string(),
        };
        Call { id, r#type: "function", function: Function { name: function.name, arguments } }
    };
    calls.filter(|kept| !kept.id.is_empty()).map(call).collect()
}

/// The ids of a message's calls.
pub(crate) fn ids_of(tool_calls: &Json) -> Vec<String> {
    calls(Some(tool_calls)).into_iter().map(|call| call.id).collect()
}

/// Which call a tool's message with this metadata answers.
pub(crate) fn answered(metadata: &Json) -> Option<String> {
    let metadata: Value = serde_json::from_str(metadata.as_str()).ok()?;
    metadata.get("tool_call_id")?.as_str().map(str::to_owned)
}

/// The messages in the order and the form of the protocol.
pub(super) fn lines(messages: &[ChatMessage]) -> Vec<Line<'_>> {
    let calls: Vec<Vec<Call>> = messages
        .iter()
        .map(|message| if message.role == role::ASSISTANT { calls(message.tool_calls.as_ref()) } else { Vec::new() })
        .collect();
    let answer = |message: &ChatMessage| message.metadata.as_ref().and_then(answered);
    let answers: Vec<Option<String>> =
        messages.iter().map(|message| answer(message).filter(|_| message.role == role::TOOL)).collect();
    let mut used = vec![false; messages.len()];
    let mut lines = Vec::with_capacity(messages.len());
    for (at, message) in messages.iter().enumerate().filter(|(_, message)| message.role != role::TOOL) {
        if message.text.is_empty() && message.role == role::ASSISTANT && calls[at].is_empty() {
            continue;
        }
        let content = Some(message.text.as_str()).filter(|text| !text.is_empty() || calls[at].is_empty());
        lines.push(Line { role: &message.role, content, tool_calls: calls[at].clone(), tool_call_id: None });
        for call in &calls[at] {
            // A repeated id means the later call from there on.
            let upto = (at + 1..messages.len()).find(|later| calls[*later].iter().any(|other| other.id == call.id));
            let mut later = at + 1..upto.unwrap_or(messages.len());
            let result = later.find(|later| !used[*later] && answers[*later].as_ref() == Some(&call.id));
            if let Some(result) = result {
                used[result] = true;
            }
            let content = Some(result.map_or(NO_RESULT, |result| messages[result].text.as_str()));
            lines.push(Line { role: role::TOOL, content, tool_calls: Vec::new(), tool_call_id: Some(call.id.clone()) });
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(role: &str, text: &str) -> ChatMessage {
        ChatMessage::text(role, text)
    }

    fn calling(text: &str, ids: &[&str]) -> ChatMessage {
        let call = |id: &&str| json!({"id": id, "type": "function", "function": {"name": "f", "arguments": "{}"}});
        let tool_calls = Value::from(ids.iter().map(call).collect::<Vec<_>>()).to_string();
        ChatMessage { tool_calls: Some(Json::from_checked(tool_calls)), ..said("assistant", text) }
    }

    fn result(id: &str, text: &str) -> ChatMessage {
        let metadata = json!({"tool_call_id": id}).to_string();
        ChatMessage { metadata: Some(Json::from_checked(metadata)), ..said("tool", text) }
    }

    /// Each line as its role, its text, and its calls or the call it answers.
    fn shown(messages: &[ChatMessage]) -> Vec<String> {
        let line = |line: Line<'_>| {
            let ids: Vec<String> = line.tool_calls.iter().map(|call| call.id.clone()).collect();
            let content = line.content.unwrap_or("-");
            format!("{} {content} {}{}", line.role, ids.join(","), line.tool_call_id.unwrap_or_default())
        };
        lines(messages).into_iter().map(line).map(|line| line.trim_end().to_owned()).collect()
    }

    #[test]
    fn results_come_right_after_their_calls_in_the_calls_order() {
        let messages = [
            said("user", "a"),
            calling("", &["1", "2"]),
            said("user", "b"),
            result("2", "two"),
            said("assistant", "meanwhile"),
            result("1", "one"),
        ];
        assert_eq!(
            shown(&messages),
            ["user a", "assistant - 1,2", "tool one 1", "tool two 2", "user b", "assistant meanwhile"]
        );
    }

    #[test]
    fn a_call_without_a_result_gets_one_and_a_result_without_a_call_is_left_out() {
        let messages = [result("0", "cut off"), calling("so", &["1"]), said("user", "a"), said("tool", "whose?")];
        let lines = shown(&messages);
        assert_eq!((lines.len(), lines[0].as_str(), lines[2].as_str()), (3, "assistant so 1", "user a"));
        assert!(lines[1].contains("no_result") && lines[1].ends_with('1'), "{lines:?}");
    }

    #[test]
    fn an_id_that_is_used_twice_is_answered_twice() {
        let messages =
            [calling("", &["1"]), result("1", "first"), calling("", &["1"]), result("1", "second"), said("user", "a")];
        assert_eq!(shown(&messages), ["assistant - 1", "tool first 1", "assistant - 1", "tool second 1", "user a"]);
        let second_only = [calling("", &["1"]), calling("", &["1"]), result("1", "second")];
        assert!(shown(&second_only)[1].contains("no_result"));
    }

    #[test]
    fn results_of_a_call_id_that_stands_twice_keep_their_order() {
        let messages = [calling("", &["1", "2", "1"]), result("1", "first"), result("1", "second"), result("2", "two")];
        assert_eq!(shown(&messages), ["assistant - 1,2,1", "tool first 1", "tool two 2", "tool second 1"]);
    }

    #[test]
    fn malformed_tool_calls_are_left_out_of_the_prompt() {
        for tool_calls in ["[{}]", "[1]", "[]", r#"[{"id":"","function":{"name":"f"}}]"#, r#"[{"id":"1"}]"#] {
            let message = |text: &str| ChatMessage {
                tool_calls: Some(Json::from_checked(tool_calls)),
                ..said("assistant", text)
            };
            assert_eq!(shown(&[message("words"), message("")]), ["assistant words"], "{tool_calls}");
        }
        let user = ChatMessage { tool_calls: calling("", &["1"]).tool_calls, ..said("user", "a") };
        assert_eq!(shown(&[user]), ["user a"], "only an assistant calls");
        let kept = r#"[{"id":"1","function":{"name":"f","arguments":{"a":1}}}]"#;
        let object = ChatMessage { tool_calls: Some(Json::from_checked(kept)), ..said("assistant", "") };
        assert_eq!(lines(&[object])[0].tool_calls[0].function.arguments, r#"{"a":1}"#);
    }
}
