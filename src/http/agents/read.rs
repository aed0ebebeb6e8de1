//! An agent as a client describes it.

use std::collections::HashSet;

use actors::agent::builtin::Builtin;
use actors::agent::{Agent, Provider, TIMEOUT_SECONDS};
use actors::clock::Millis;
use actors::limits;
use actors::message::Json;

use super::super::incoming::Incoming;
use super::super::resource::{self, given};
use super::builtin;
use crate::json::fields::{Fields, Length, Value};
use crate::json::raw;
use crate::json::report::Report;
use crate::tools::definition;
use crate::wire::bounds::NAME;
use crate::wire::url::{self, Allow};

/// The longest system prompt, in bytes of UTF-8.
const MAX_PROMPT_BYTES: usize = 64 * 1024;
/// The tools of an agent together, in bytes of compact JSON.
const MAX_TOOLS_BYTES: usize = 64 * 1024;
/// Tools of one agent; models accept no more.
const MAX_TOOLS: usize = 128;
/// The highest temperature.
const MAX_TEMPERATURE: u32 = 2;
/// The highest price of a thousand tokens, in credits.
const MAX_PRICE: u32 = 1_000;
/// The longest time an attempt may take, in seconds.
const MAX_TIMEOUT_SECONDS: i64 = 600;

/// The kind of provider.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    Builtin,
    OpenAi,
}

const PROVIDERS: [(&str, Which); 2] = [("builtin", Which::Builtin), ("openai", Which::OpenAi)];

/// What a body is read over.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Basis {
    /// Nothing: the agent is to be created.
    New,
    /// A stored agent, which is to be changed.
    Stored,
}

/// Reads the body of `POST /agents`: the id, if the client chose one, and everything but the id and the time.
pub(super) fn new_agent(incoming: &mut Incoming<'_>, allow: Allow<'_>) -> (Option<String>, Agent) {
    let mut fields = incoming.fields();
    let report = &mut incoming.report;
    let id = fields.optional("id").and_then(|value| resource::chosen_id(&value, report));
    let agent = read(nothing(), Basis::New, &mut fields, allow, report);
    fields.finish(report);
    (id, agent)
}

/// Reads the body of `PATCH /agents/{id}` over the stored agent. Without one, only the faults matter.
pub(super) fn changed_agent(stored: Option<&Agent>, incoming: &mut Incoming<'_>, allow: Allow<'_>) -> Agent {
    let mut fields = incoming.fields();
    let report = &mut incoming.report;
    resource::immutable(&mut fields, report, "id", stored.map(|agent| agent.id.as_str()));
    let before = stored.cloned().unwrap_or_else(|| Agent { name: "unknown".to_owned(), ..nothing() });
    let agent = read(before, Basis::Stored, &mut fields, allow, report);
    fields.finish(report);
    agent
}

fn nothing() -> Agent {
    Agent::new("", "", Provider::Builtin(Builtin::default()), Millis(0))
}

/// Reads the changeable members over `agent`; `null` resets a member to its default. Members of another provider are
/// left unread, so that they are reported as having no effect.
fn read(mut agent: Agent, basis: Basis, fields: &mut Fields<'_>, allow: Allow<'_>, report: &mut Report) -> Agent {
    resource::read_name(&mut agent.name, fields, report);
    if let Some(value) = given(fields, "model") {
        agent.model = value.and_then(|value| value.string(report, NAME)).map(Into::into);
    }
    agent.provider = provider(agent.provider, basis, fields, report);
    let model_is_wrong = fields.object().get("model").is_some_and(|model| model.get() != "null");
    if matches!(agent.provider, Provider::OpenAi { .. }) && agent.model.is_none() && !model_is_wrong {
        fields.missing(report, "model");
    }
    if let Some(value) = given(fields, "systemPrompt") {
        agent.system_prompt =
            value.and_then(|value| value.string(report, Length::bytes(0, MAX_PROMPT_BYTES))).map(Into::into);
    }
    if let Some(value) = given(fields, "temperature") {
        agent.temperature_milli = value.and_then(|value| thousandths(&value, MAX_TEMPERATURE, report));
    }
    if let Some(value) = given(fields, "maxOutputTokens") {
        let tokens = value.and_then(|value| value.integer(report, 1..=i64::from(i32::MAX)));
        agent.max_output_tokens = tokens.and_then(|tokens| u32::try_from(tokens).ok());
    }
    if let Some(value) = given(fields, "timeoutSeconds") {
        let seconds = value.and_then(|value| value.integer(report, 1..=MAX_TIMEOUT_SECONDS));
        agent.timeout_seconds = seconds.and_then(|seconds| u32::try_from(seconds).ok()).unwrap_or(TIMEOUT_SECONDS);
    }
    if let Some(value) = given(fields, "tools") {
        agent.tools = value.and_then(|value| tools(&value, allow, report));
    }
    running(&mut agent, fields, report);
    agent
}

/// Reads its concurrency, its prices, and whether its endpoint streams.
fn running(agent: &mut Agent, fields: &mut Fields<'_>, report: &mut Report) {
    if let Some(value) = given(fields, "maxConcurrentTurns") {
        let turns = value.and_then(|value| value.integer(report, 1..=limits::RUNNING_TURNS_OF_WORKSPACE as i64));
        agent.concurrency = turns.and_then(|turns| u32::try_from(turns).ok());
    }
    for (name, price) in [("inputPrice", &mut agent.input_price), ("outputPrice", &mut agent.output_price)] {
        if let Some(value) = given(fields, name) {
            *price = value.and_then(|value| thousandths(&value, MAX_PRICE, report));
        }
    }
    if matches!(agent.provider, Provider::OpenAi { .. })
        && let Some(value) = given(fields, "stream")
    {
        agent.without_streaming = value.and_then(|value| value.boolean(report)).map(|streams| !streams);
    }
}

/// Reads the provider and its members, over the existing ones if the provider is unchanged.
fn provider(before: Provider, basis: Basis, fields: &mut Fields<'_>, report: &mut Report) -> Provider {
    let which = match given(fields, "provider") {
        Some(Some(value)) => value.choice(report, &PROVIDERS),
        None if basis == Basis::Stored => Some(which(&before)),
        None | Some(None) => {
            fields.missing(report, "provider");
            None
        }
    };
    match which {
        Some(Which::Builtin) => {
            let mut builtin = match before {
                Provider::Builtin(builtin) => builtin,
                Provider::OpenAi { .. } => Builtin::default(),
            };
            if let Some(value) = given(fields, "builtin") {
                builtin = value.map(|value| builtin::read(builtin, &value, report)).unwrap_or_default();
            }
            Provider::Builtin(builtin)
        }
        Some(Which::OpenAi) => openai(before, fields, report),
        None => {
            // Its members are unknown here, so none of them is reported as unknown.
            for name in ["builtin", "baseUrl", "apiKey"] {
                fields.optional(name);
            }
            before
        }
    }
}

fn which(provider: &Provider) -> Which {
    match provider {
        Provider::Builtin(_) => Which::Builtin,
        Provider::OpenAi { .. } => Which::OpenAi,
    }
}

fn openai(before: Provider, fields: &mut Fields<'_>, report: &mut Report) -> Provider {
    let (mut base_url, mut api_key) = match before {
        Provider::OpenAi { base_url, api_key } => (Some(base_url), api_key),
        Provider::Builtin(_) => (None, None),
    };
    let former_url = base_url.clone();
    match given(fields, "baseUrl") {
        None if base_url.is_some() => {}
        None | Some(None) => fields.missing(report, "baseUrl"),
        Some(Some(value)) => base_url = model_url(&value, report),
    }
    let is_moved = former_url.zip(base_url.as_ref()).is_some_and(|(former, new)| !same_origin(&former, new));
    match given(fields, "apiKey") {
        Some(value) => api_key = value.and_then(|value| secret(&value, report)),
        // Whoever may change the agent could read the key at a server of their own.
        None if is_moved && api_key.is_some() => {
            let message = "apiKey is required with a baseUrl of another scheme, host or port, which must not get the \
                           stored key; null removes that";
            report.fault(&fields.path().name("apiKey"), "required", message);
        }
        None => {}
    }
    Provider::OpenAi { base_url: base_url.unwrap_or_default(), api_key }
}

/// Whether two URLs have one scheme, host and port.
fn same_origin(one: &str, other: &str) -> bool {
    let origin = |text: &str| ::url::Url::parse(text).ok().map(|url| url.origin());
    origin(one).is_some_and(|one| Some(one) == origin(other))
}

/// An absolute http(s) URL without userinfo. Unlike other users' URLs it may name a private host: only an admin sets
/// it, and models often run nearby.
fn model_url(value: &Value<'_>, report: &mut Report) -> Option<String> {
    let text = value.string(report, Length::ANY)?;
    match url::check(&text, &|_| true) {
        Ok(_) => return Some(text.into_owned()),
        // It is well-formed, and names a private host.
        Err(("blocked_url", _)) if ::url::Url::parse(&text).is_ok() => return Some(text.into_owned()),
        Err(("blocked_url", message)) => report.fault(&value.path, "invalid_url", message),
        Err((code, message)) => report.fault(&value.path, code, message),
    }
    None
}

/// Reads a bearer token.
fn secret(value: &Value<'_>, report: &mut Report) -> Option<String> {
    let text = value.string(report, Length::chars(1, 4096))?;
    if text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Some(text.into_owned());
    }
    report.fault(&value.path, "invalid_characters", "must consist of visible ASCII characters");
    None
}

/// A number from 0 to `max`, in thousandths.
fn thousandths(value: &Value<'_>, max: u32, report: &mut Report) -> Option<u32> {
    let text = value.raw.get();
    let number = Some(text).filter(|text| text.starts_with(|c: char| c == '-' || c.is_ascii_digit()));
    match number.and_then(|text| text.parse::<f64>().ok()) {
        // Far below the limit, so the cast loses only fractions of a thousandth.
        Some(number) if (0.0..=f64::from(max)).contains(&number) => return Some((number * 1000.0).round() as u32),
        Some(_) => report.fault(&value.path, "out_of_range", format!("must be a number from 0 to {max}")),
        None => value.wrong_type(report, "a number"),
    }
    None
}

fn tools(value: &Value<'_>, allow: Allow<'_>, report: &mut Report) -> Option<Json> {
    let mut items = value.array(report)?;
    let before = report.faults.len();
    items.at_most(MAX_TOOLS, "items", report);
    let mut names = HashSet::new();
    items.each(report, |item, report| {
        if let Some(name) = definition::check(&item, allow, report)
            && !names.insert(name.clone())
        {
            report.fault(&item.path, "duplicate_value", format!("duplicate tool name {name:?}"));
        }
    });
    let json = value.json();
    let len = raw::shortest_len(json.as_str());
    if len > MAX_TOOLS_BYTES {
        let message = format!("must have at most {MAX_TOOLS_BYTES} bytes as compact JSON, has {len}");
        report.fault(&value.path, "too_large", message);
    }
    (report.faults.len() == before).then_some(json)
}
