//! Agents and their models.

use super::super::shape::{
    Body, Bounded as _, Detailed as _, Members, any_of, boolean, chosen_id, free, integer, list, map, named, nullable,
    number, one_of, text, time, url, word,
};
use super::{Component, page};
use crate::wire::bounds::MAX_NAME_CHARS;
use crate::wire::channel_message::review::MAX_CALLBACK_HEADERS;
use actors::agent::TIMEOUT_SECONDS;
use actors::limits::{AGENT_TURNS, RUNNING_TURNS_OF_WORKSPACE};
use utoipa::openapi::schema::Type;
use utoipa::openapi::{Object, RefOr, Schema};

const PROVIDERS: [&str; 2] = ["builtin", "openai"];
const BEHAVIOURS: [&str; 2] = ["echo", "scripted"];

pub(super) fn schemas() -> Vec<Component> {
    vec![
        ("AgentNew", settings(Body::New)),
        ("AgentChange", settings(Body::Change)),
        ("BuiltinNew", builtin_settings()),
        ("Agent", agent()),
        ("Builtin", builtin()),
        ("ScriptEntry", entry()),
        ("ScriptCall", call()),
        ("Tool", tool()),
        ("AgentPage", page("A page of agents.", named("Agent"))),
    ]
}

fn settings(body: Body) -> RefOr<Schema> {
    let name = text("Human-readable name.").least(1).longest(MAX_NAME_CHARS);
    let provider =
        word("The deterministic built-in agent, or a model behind the OpenAI chat-completions protocol.", &PROVIDERS);
    let price = |about: &str| number(about, 0, Some(1_000)).by_default(body, 1.into()).nullable();
    let turns = integer(
        "The maximum number of turns that run at once; further ones wait.",
        1,
        Some(RUNNING_TURNS_OF_WORKSPACE as i64),
    );
    body.members("The agent to create.")
        .may("id", body.id())
        .of_all(body, "name", name)
        .of_all(body, "provider", provider)
        .may("model", text("The model; required for `openai`.").least(1).longest(MAX_NAME_CHARS).nullable())
        .may("baseUrl", url("`openai`: the model's base URL; required there. May be a private host.").nullable())
        .may(
            "apiKey",
            text(body.pick(
                "`openai`: the key for the model's endpoint. Only sent, never shown.",
                "`openai`: the key for the model's endpoint. Only sent, never shown. Required, be it `null`, with a \
                 `baseUrl` of another scheme, host or port if a key is stored.",
            ))
            .least(1)
            .longest(4096)
            .pattern("^[!-~]+$")
            .nullable()
            .write_only(),
        )
        .may("systemPrompt", text("The system prompt; at most 65536 bytes of UTF-8.").longest(64 * 1024).nullable())
        .may("temperature", number("The sampling temperature.", 0, Some(2)).nullable())
        .may(
            "maxOutputTokens",
            integer("The maximum length of an answer, in tokens.", 1, Some(i64::from(i32::MAX))).nullable(),
        )
        .may(
            "timeoutSeconds",
            integer("The time limit of one attempt.", 1, Some(600)).by_default(body, TIMEOUT_SECONDS.into()).nullable(),
        )
        .may(
            "tools",
            list(
                "The tools that the model may call, each with a unique name; together at most 65536 bytes.",
                named("Tool"),
            )
            .longest(128)
            .nullable(),
        )
        .may("maxConcurrentTurns", turns.by_default(body, AGENT_TURNS.into()).nullable())
        .may("inputPrice", price("Credits per thousand tokens that the model reads."))
        .may("outputPrice", price("Credits per thousand tokens that the model writes."))
        .may(
            "stream",
            boolean("`openai`: whether to request a stream from the endpoint.")
                .by_default(body, true.into())
                .nullable(),
        )
        .may("builtin", nullable("BuiltinNew", "`builtin`: its behaviour."))
        .done()
}

fn tool_name(about: &str) -> Object {
    text(about).pattern("^[A-Za-z0-9_-]{1,64}$")
}

fn tool() -> RefOr<Schema> {
    let called = || {
        Members::new("The tool's definition in the protocol's own form, sent to the model.")
            .must("name", tool_name("Its name: letters, digits, `_` and `-`."))
            .may("description", text("What it does.").longest(4_096).nullable())
            .may("parameters", free("A JSON Schema of its arguments, which every call must match.").nullable())
            .may("strict", boolean("Without effect: the schema holds for every call.").nullable())
            .done()
    };
    Members::new(
        "A tool, by its `name` or with `function`; one of them is required. `request_review` and `search_memories` \
         are declared by name; any other tool is an HTTP request to `url`, with the arguments as its JSON body or, \
         for GET and DELETE, as its query.",
    )
    .may("name", tool_name("Its name: letters, digits, `_` and `-`. Required without `function`."))
    .may("description", text("What it does.").longest(4_096).nullable())
    .may("parameters", free("A JSON Schema of its arguments, which every call must match.").nullable())
    .may("url", url("The URL of the HTTP request.").nullable())
    .may("method", word("How.", &["GET", "POST", "PUT", "PATCH", "DELETE"]).usually("POST".into()).nullable())
    .may(
        "headers",
        map("Headers of the request: secrets, shown as `***`.", text("")).longest(MAX_CALLBACK_HEADERS).nullable(),
    )
    .may("type", word("", &["function"]).nullable())
    .may(
        "function",
        one_of(
            "The tool's definition in the protocol's own form, sent to the model.",
            [called(), Object::with_type(Type::Null).into()],
        ),
    )
    .done()
}

fn builtin_settings() -> RefOr<Schema> {
    Members::new(
        "The behaviour of the built-in agent. In a change, absent members stay as they are and `null` resets to the \
         default.",
    )
    .may(
        "behaviour",
        word("Repeats the text, or answers from the script.", &BEHAVIOURS).usually("echo".into()).nullable(),
    )
    .may(
        "script",
        list(
            "The scripted answers; the first matching entry counts, and without one the agent repeats the text.",
            named("ScriptEntry"),
        )
        .longest(100)
        .nullable(),
    )
    .may(
        "latencyMs",
        integer("The delay before the answer, in milliseconds.", 0, Some(600_000)).usually(0.into()).nullable(),
    )
    .may(
        "split",
        integer("The number of messages that the answer is split into.", 1, Some(20)).usually(1.into()).nullable(),
    )
    .may(
        "failEvery",
        integer("With n, every n-th turn fails; with 0, none.", 0, Some(i64::from(i32::MAX)))
            .usually(0.into())
            .nullable(),
    )
    .done()
}

fn call() -> RefOr<Schema> {
    Members::new("A tool call before the answer.")
        .must("name", text("The tool's name.").least(1).longest(64))
        .may("arguments", free("The arguments.").nullable())
        .done()
}

fn entry() -> RefOr<Schema> {
    let reply = || list("The answer, one item per message.", text("").least(1).longest(64 * 1024)).longest(20);
    let line = |about: &str| {
        Members::new(about).must(
            "match",
            text("Matches a text that contains it, in any case; an empty one matches every text.").longest(1_000),
        )
    };
    any_of(
        "One script entry: an answer, a tool call, or both.",
        [
            line("With an answer.")
                .must("reply", reply())
                .may("toolCall", nullable("ScriptCall", "The tool call before the answer."))
                .done(),
            line("With a tool call.").may("reply", reply().nullable()).must("toolCall", named("ScriptCall")).done(),
        ],
    )
}

fn agent() -> RefOr<Schema> {
    Members::new("An agent. Its API key is never shown.")
        .must("id", chosen_id("The agent."))
        .must("name", text("Human-readable name."))
        .must("provider", word("The provider.", &PROVIDERS))
        .must("model", text("The model.").nullable())
        .must("baseUrl", text("The model's base URL.").nullable())
        .must("apiKeySet", boolean("Whether it has an API key."))
        .must("systemPrompt", text("The system prompt.").nullable())
        .must("temperature", number("The sampling temperature.", 0, Some(2)).nullable())
        .must("maxOutputTokens", integer("The maximum length of an answer, in tokens.", 1, None).nullable())
        .must("timeoutSeconds", integer("The time limit of one attempt.", 1, Some(600)))
        .must("tools", list("Its tools; the values of their headers are hidden.", named("Tool")).nullable())
        .must(
            "maxConcurrentTurns",
            integer("The maximum number of turns that run at once.", 1, Some(RUNNING_TURNS_OF_WORKSPACE as i64)),
        )
        .must("inputPrice", number("Credits per thousand tokens that the model reads.", 0, Some(1_000)))
        .must("outputPrice", number("Credits per thousand tokens that the model writes.", 0, Some(1_000)))
        .may("stream", boolean("`openai`: whether a stream is requested from the endpoint."))
        .must("builtin", nullable("Builtin", "The behaviour of the built-in agent."))
        .must("createdAt", time("When the agent was created."))
        .must("updatedAt", time("When the agent was last changed.").nullable())
        .done()
}

fn builtin() -> RefOr<Schema> {
    Members::new("The behaviour of the built-in agent.")
        .must("behaviour", word("Repeats the text, or answers from the script.", &BEHAVIOURS))
        .must("script", list("The scripted answers.", named("ScriptEntry")))
        .must("latencyMs", integer("The delay before the answer, in milliseconds.", 0, None))
        .must("split", integer("The number of messages that the answer is split into.", 1, None))
        .must("failEvery", integer("With n, every n-th turn fails; with 0, none.", 0, None))
        .done()
}
