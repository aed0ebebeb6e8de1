//! What is sent.

use actors::agent::{Prompt, Provider};
use bytes::Bytes;
use http::HeaderValue;
use serde::Serialize;
use url::Url;

use super::endpoint::endpoint;
use super::fault::Fault;

/// A prompt as it goes over the wire; made once, sent at most twice.
pub(super) struct Call {
    pub(super) url: Url,
    /// Marked sensitive, so that no layer below prints it.
    pub(super) authorization: Option<HeaderValue>,
    pub(super) body: Bytes,
}

impl Call {
    /// The call that asks `prompt`.
    pub(super) fn of(prompt: &Prompt) -> Result<Self, Fault> {
        let Provider::OpenAi { base_url, api_key } = &prompt.agent.provider else { return Err(Fault::Provider) };
        let url = endpoint(base_url)?;
        let authorization = api_key.as_deref().map(bearer).transpose()?;
        let body = serde_json::to_vec(&Body::of(prompt)).map_err(|_| Fault::Provider)?;
        Ok(Self { url, authorization, body: body.into() })
    }
}

fn bearer(api_key: &str) -> Result<HeaderValue, Fault> {
    let mut value = HeaderValue::from_str(&format!("Bearer {api_key}")).map_err(|_| Fault::ApiKey)?;
    value.set_sensitive(true);
    Ok(value)
}

#[derive(Serialize)]
struct Body<'a> {
    /// Servers of a single model do without.
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    messages: Vec<Said<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    /// Deprecated by its inventor, but the one name that every server of this protocol knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    stream: bool,
}

#[derive(Serialize)]
struct Said<'a> {
    role: &'a str,
    content: &'a str,
}

impl<'a> Body<'a> {
    fn of(prompt: &'a Prompt) -> Self {
        Self {
            model: prompt.agent.model.as_deref(),
            messages: prompt.messages.iter().map(|said| Said { role: &said.role, content: &said.text }).collect(),
            temperature: prompt.agent.temperature_milli.map(|milli| f64::from(milli) / 1000.0),
            max_tokens: prompt.agent.max_output_tokens,
            stream: false,
        }
    }
}
