//! An agent as clients see it: everything but its API key.

use actors::agent::builtin::{Builtin, ScriptEntry};
use actors::agent::{Agent, PRICE, Provider};
use actors::limits;
use serde::Serialize;

use super::builtin::BEHAVIOURS;
use crate::tools::definition;
use crate::wire::json_view::{Raw, RawOwned};
use crate::wire::time::Time;

/// An agent's answer.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AgentView<'a> {
    id: &'a str,
    name: &'a str,
    provider: &'static str,
    model: Option<&'a str>,
    base_url: Option<&'a str>,
    api_key_set: bool,
    system_prompt: Option<&'a str>,
    temperature: Option<f64>,
    max_output_tokens: Option<u32>,
    timeout_seconds: u32,
    tools: Option<RawOwned>,
    max_concurrent_turns: u32,
    input_price: f64,
    output_price: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<bool>,
    builtin: Option<BuiltinView<'a>>,
    created_at: Time,
    updated_at: Option<Time>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BuiltinView<'a> {
    behaviour: &'static str,
    script: Vec<EntryView<'a>>,
    latency_ms: u64,
    split: u32,
    fail_every: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EntryView<'a> {
    r#match: &'a str,
    reply: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call: Option<Raw<'a>>,
}

impl<'a> AgentView<'a> {
    pub(super) fn new(agent: &'a Agent) -> Self {
        let (provider, base_url, api_key_set, builtin) = match &agent.provider {
            Provider::Builtin(builtin) => ("builtin", None, false, Some(BuiltinView::new(builtin))),
            Provider::OpenAi { base_url, api_key } => ("openai", Some(base_url.as_str()), api_key.is_some(), None),
        };
        Self {
            id: &agent.id,
            name: &agent.name,
            provider,
            model: agent.model.as_deref(),
            base_url,
            api_key_set,
            system_prompt: agent.system_prompt.as_deref(),
            temperature: agent.temperature_milli.map(|milli| f64::from(milli) / 1000.0),
            max_output_tokens: agent.max_output_tokens,
            timeout_seconds: agent.timeout_seconds,
            tools: agent.tools.as_ref().map(|tools| RawOwned(definition::shown(tools))),
            max_concurrent_turns: agent.concurrency.unwrap_or(limits::AGENT_TURNS as u32),
            input_price: credits(agent.input_price),
            output_price: credits(agent.output_price),
            stream: builtin.is_none().then(|| agent.without_streaming != Some(true)),
            builtin,
            created_at: Time(agent.created_at),
            updated_at: agent.updated_at.map(Time),
        }
    }
}

/// A price in credits.
fn credits(price: Option<u32>) -> f64 {
    f64::from(price.unwrap_or(PRICE)) / 1000.0
}

impl<'a> BuiltinView<'a> {
    fn new(builtin: &'a Builtin) -> Self {
        let behaviour = BEHAVIOURS.iter().find(|(_, behaviour)| *behaviour == builtin.behaviour);
        Self {
            behaviour: behaviour.map_or("echo", |(word, _)| word),
            script: builtin.script.iter().map(EntryView::new).collect(),
            latency_ms: builtin.latency_ms,
            // Stored as 0 if it was not given.
            split: builtin.split.max(1),
            fail_every: builtin.fail_every,
        }
    }
}

impl<'a> EntryView<'a> {
    fn new(entry: &'a ScriptEntry) -> Self {
        Self { r#match: &entry.on, reply: &entry.reply, tool_call: entry.tool_call.as_ref().map(Raw) }
    }
}
