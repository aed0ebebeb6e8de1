//! `builtin`: the behaviour of the deterministic agent.

use actors::agent::builtin::{Behaviour, Builtin, ScriptEntry};
use actors::limits;
use actors::message::Json;

use super::super::resource::given;
use crate::json::fields::ObjectBounds;
use crate::json::fields::{Fields, Length, Value};
use crate::json::report::Report;

/// The behaviours, by name.
pub(super) const BEHAVIOURS: [(&str, Behaviour); 2] = [("echo", Behaviour::Echo), ("scripted", Behaviour::Scripted)];

/// Entries of a script.
const MAX_ENTRIES: usize = 100;
/// Replies of one entry, and messages that one reply is split into.
const MAX_REPLIES: u8 = 20;
/// The longest latency: ten minutes, as the longest timeout of an agent.
const MAX_LATENCY_MILLIS: i64 = 600_000;
/// The longest reply, in bytes of UTF-8, as of any message.
const MAX_REPLY_BYTES: usize = 64 * 1024;
/// A tool call's arguments, in bytes of compact JSON, and its levels.
const ARGUMENTS: ObjectBounds = ObjectBounds { bytes: 16 * 1024, depth: 16 };

/// Reads `builtin` over the existing value; `null` resets a member to its default.
pub(super) fn read(mut builtin: Builtin, value: &Value<'_>, report: &mut Report) -> Builtin {
    let Some(mut fields) = value.object(report) else { return builtin };
    if let Some(value) = given(&mut fields, "behaviour") {
        builtin.behaviour = value.and_then(|value| value.choice(report, &BEHAVIOURS)).unwrap_or_default();
    }
    if let Some(value) = given(&mut fields, "script") {
        builtin.script = value.and_then(|value| script(&value, report)).unwrap_or_default();
    }
    if let Some(number) = number(&mut fields, report, "latencyMs", (0, MAX_LATENCY_MILLIS)) {
        builtin.latency_ms = u64::from(number);
    }
    if let Some(number) = number(&mut fields, report, "split", (1, MAX_REPLIES.into())) {
        builtin.split = number;
    }
    if let Some(number) = number(&mut fields, report, "failEvery", (0, i64::from(i32::MAX))) {
        builtin.fail_every = number;
    }
    fields.finish(report);
    builtin
}

/// A given integer; the smallest one for `null`.
fn number(fields: &mut Fields<'_>, report: &mut Report, name: &'static str, (min, max): (i64, i64)) -> Option<u32> {
    let number = match given(fields, name)? {
        Some(value) => value.integer(report, min..=max)?,
        None => min,
    };
    u32::try_from(number).ok()
}

fn script(value: &Value<'_>, report: &mut Report) -> Option<Vec<ScriptEntry>> {
    let items = value.array(report)?;
    if items.len() > MAX_ENTRIES {
        let message = format!("must have at most {MAX_ENTRIES} entries, has {}", items.len());
        report.fault(&value.path, "too_many", message);
        return None;
    }
    let mut entries = Vec::with_capacity(items.len());
    items.each(report, |item, report| entries.extend(entry(&item, report)));
    Some(entries)
}

fn entry(value: &Value<'_>, report: &mut Report) -> Option<ScriptEntry> {
    let mut fields = value.object(report)?;
    let on = fields.required_string(report, "match", Length::chars(0, 1_000)).unwrap_or_default().into_owned();
    let tool_call = fields.optional("toolCall");
    let reply = match fields.optional("reply") {
        Some(value) => replies(&value, report),
        // A tool call may be the whole answer.
        None if tool_call.is_some() => Vec::new(),
        None => {
            fields.missing(report, "reply");
            Vec::new()
        }
    };
    let tool_call = tool_call.and_then(|value| call(&value, report));
    fields.finish(report);
    Some(ScriptEntry { on, reply, tool_call })
}

fn replies(value: &Value<'_>, report: &mut Report) -> Vec<String> {
    let Some(mut items) = value.array(report) else { return Vec::new() };
    // No reply is an answer too: the agent says nothing to that.
    items.at_most(MAX_REPLIES.into(), "replies", report);
    let mut texts = Vec::new();
    items.each(report, |item, report| {
        texts.extend(item.string(report, Length::bytes(1, MAX_REPLY_BYTES)).map(|text| text.into_owned()));
    });
    texts
}

/// `{name, arguments}`, stored as given.
fn call(value: &Value<'_>, report: &mut Report) -> Option<Json> {
    let mut fields = value.object(report)?;
    fields.required_string(report, "name", Length::chars(1, 64));
    if let Some(arguments) = fields.optional("arguments") {
        let given = arguments.free_object(report, ARGUMENTS);
        // The arguments are passed as written.
        if given.is_some_and(|json| json.as_str().len() > limits::CALL_BYTES) {
            let message = format!("must have at most {} bytes as sent", limits::CALL_BYTES);
            report.fault(&arguments.path, "too_large", message);
        }
    }
    fields.finish(report);
    Some(value.json())
}
