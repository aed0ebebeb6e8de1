//! The request to a model's endpoint.

use actors::agent::{Prompt, Provider};
use bytes::Bytes;
use http::HeaderValue;
use serde::Serialize;
use serde_json::Value;
use url::Url;

use super::endpoint::endpoint;
use super::fault::Fault;
use super::pairing::{Line, lines};
use crate::http_client::bearer;
use crate::tools::definition::Definition;

/// A prompt in its wire form; rendered once, sent at most twice.
pub(super) struct Call {
    pub(super) url: Url,
    /// Marked sensitive, so that no layer below prints it.
    pub(super) authorization: Option<HeaderValue>,
    pub(super) body: Bytes,
    /// Whether a stream is requested.
    pub(super) streams: bool,
}

impl Call {
    /// The call that asks `prompt`.
    pub(super) fn of(prompt: &Prompt) -> Result<Self, Fault> {
        let Provider::OpenAi { base_url, api_key } = &prompt.agent.provider else { return Err(Fault::Provider) };
        let url = endpoint(base_url)?;
        let authorization = api_key.as_deref().map(bearer).transpose().map_err(|_| Fault::ApiKey)?;
        let body = Body::of(prompt);
        let streams = body.stream;
        let body = serde_json::to_vec(&body).map_err(|_| Fault::Provider)?;
        Ok(Self { url, authorization, body: body.into(), streams })
    }
}

#[derive(Serialize)]
struct Body<'a> {
    /// Servers of a single model need none.
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    messages: Vec<Line<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Tool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    /// Deprecated by its inventor, but the only name that every server of this protocol knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_options: Option<StreamOptions>,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

#[derive(Serialize)]
struct Tool {
    r#type: &'static str,
    function: Function,
}

#[derive(Serialize)]
struct Function {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<Value>,
}

impl From<Definition> for Tool {
    fn from(tool: Definition) -> Self {
        let Definition { name, description, parameters, .. } = tool;
        Self { r#type: "function", function: Function { name, description, parameters } }
    }
}

impl<'a> Body<'a> {
    fn of(prompt: &'a Prompt) -> Self {
        let agent = &prompt.agent;
        let stream = agent.without_streaming != Some(true);
        let tools = agent.tools.as_ref().map(Definition::of_agent).unwrap_or_default();
        Self {
            model: agent.model.as_deref(),
            messages: lines(&prompt.messages),
            tools: tools.into_iter().map(Tool::from).collect(),
            temperature: agent.temperature_milli.map(|milli| f64::from(milli) / 1000.0),
            max_tokens: agent.max_output_tokens,
            stream,
            stream_options: stream.then_some(StreamOptions { include_usage: true }),
        }
    }
}
