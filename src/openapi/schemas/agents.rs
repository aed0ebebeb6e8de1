//! Agents: who answers, and with which model.

use super::super::shape::{
    Body, Bounded as _, Detailed as _, Members, any_of, boolean, chosen_id, free, integer, list, map, named, nullable,
    number, one_of, text, time, url, word,
};
use super::{Component, page};
use crate::wire::bounds::MAX_NAME_CHARS;
use crate::wire::channel_message::review::MAX_CALLBACK_HEADERS;
use actors::agent::TIMEOUT_SECONDS;
use actors::limits::{AGENT_TURNS, RUNNING_TURNS};
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
    let name = text("For people.").least(1).longest(MAX_NAME_CHARS);
    let provider = word(
        "The deterministic agent that is part of the product, or a model behind the OpenAI chat-completions protocol.",
        &PROVIDERS,
    );
    let price = |about: &str| number(about, 0, Some(1_000)).by_default(body, 1.into()).nullable();
    let turns = integer("Its turns that run at once; further ones wait.", 1, Some(RUNNING_TURNS as i64));
    body.members("An agent to be made.")
        .may("id", body.id())
        .of_all(body, "name", name)
        .of_all(body, "provider", provider)
        .may("model", text("The model; required for `openai`.").least(1).longest(MAX_NAME_CHARS).nullable())
        .may("baseUrl", url("`openai`: where the model is; required there. May be a private host.").nullable())
        .may(
            "apiKey",
            text("`openai`: the key for it. Only sent, never shown.")
                .least(1)
                .longest(4096)
                .pattern("^[!-~]+$")
                .nullable()
                .write_only(),
        )
        .may(
            "systemPrompt",
            text("What the model is told first; at most 65536 bytes of UTF-8.").longest(64 * 1024).nullable(),
        )
        .may("temperature", number("How freely it answers.", 0, Some(2)).nullable())
        .may("maxOutputTokens", integer("The longest answer, in tokens.", 1, Some(i64::from(i32::MAX))).nullable())
        .may(
            "timeoutSeconds",
            integer("The longest time of one attempt.", 1, Some(600))
                .by_default(body, TIMEOUT_SECONDS.into())
                .nullable(),
        )
        .may(
            "tools",
            list("What a model may call, each with a name of its own; together at most 65536 bytes.", named("Tool"))
                .longest(128)
                .nullable(),
        )
        .may("maxConcurrentTurns", turns.by_default(body, AGENT_TURNS.into()).nullable())
        .may("inputPrice", price("Credits for a thousand tokens that it reads."))
        .may("outputPrice", price("Credits for a thousand tokens that it writes."))
        .may(
            "stream",
            boolean("`openai`: its endpoint is asked for a stream.").by_default(body, true.into()).nullable(),
        )
        .may("builtin", nullable("BuiltinNew", "`builtin`: how it behaves."))
        .done()
}

fn tool_name(about: &str) -> Object {
    text(about).pattern("^[A-Za-z0-9_-]{1,64}$")
}

fn tool() -> RefOr<Schema> {
    let called = || {
        Members::new("What the model is told: the protocol's own form of a tool.")
            .must("name", tool_name("Its name: letters, digits, `_` and `-`."))
            .may("description", text("What it does.").longest(4_096).nullable())
            .may("parameters", free("A JSON Schema of its arguments, by which every call is checked.").nullable())
            .done()
    };
    Members::new(
        "A tool, by its `name` or with `function`; one of them must be given. `request_review` and `search_memories` are \
         declared by their name; another one is an HTTP request to `url`, with the arguments as its JSON body or, for \
         GET and DELETE, as its query.",
    )
    .may("name", tool_name("Its name: letters, digits, `_` and `-`. Required where there is no `function`."))
    .may("description", text("What it does.").longest(4_096).nullable())
    .may("parameters", free("A JSON Schema of its arguments, by which every call is checked.").nullable())
    .may("url", url("Where it is called.").nullable())
    .may("method", word("How.", &["GET", "POST", "PUT", "PATCH", "DELETE"]).usually("POST".into()).nullable())
    .may(
        "headers",
        map("Headers of the request: secrets, shown as `***`.", text("")).longest(MAX_CALLBACK_HEADERS).nullable(),
    )
    .may("type", word("", &["function"]).nullable())
    .may(
        "function",
        one_of("What the model is told, in the protocol's own form.", [called(), Object::with_type(Type::Null).into()]),
    )
    .done()
}

fn builtin_settings() -> RefOr<Schema> {
    Members::new(
        "How the deterministic agent behaves. Where it is changed, what is absent stays and `null` takes the default.",
    )
    .may(
        "behaviour",
        word("Repeat the text, or answer from the script.", &BEHAVIOURS).usually("echo".into()).nullable(),
    )
    .may(
        "script",
        list(
            "What it answers to what; the first entry that matches counts, else it repeats the text.",
            named("ScriptEntry"),
        )
        .longest(100)
        .nullable(),
    )
    .may(
        "latencyMs",
        integer("How long it takes to answer, in milliseconds.", 0, Some(600_000)).usually(0.into()).nullable(),
    )
    .may("split", integer("Into how many messages it splits its answer.", 1, Some(20)).usually(1.into()).nullable())
    .may(
        "failEvery",
        integer("With n, every n-th turn fails; 0 is never.", 0, Some(i64::from(i32::MAX)))
            .usually(0.into())
            .nullable(),
    )
    .done()
}

fn call() -> RefOr<Schema> {
    Members::new("A tool that is called before the answer.")
        .must("name", text("Its name.").least(1).longest(64))
        .may("arguments", free("What it is given.").nullable())
        .done()
}

fn entry() -> RefOr<Schema> {
    let reply = || list("The answer, one message each.", text("").least(1).longest(64 * 1024)).longest(20);
    let line = |about: &str| {
        Members::new(about)
            .must("match", text("Stands in the text, in any case; an empty one stands in every text.").longest(1_000))
    };
    any_of(
        "One line of a script: an answer, a tool's call, or both.",
        [
            line("With an answer.")
                .must("reply", reply())
                .may("toolCall", nullable("ScriptCall", "What is called before it."))
                .done(),
            line("With a tool's call.").may("reply", reply().nullable()).must("toolCall", named("ScriptCall")).done(),
        ],
    )
}

fn agent() -> RefOr<Schema> {
    Members::new("An agent. Its API key is never shown.")
        .must("id", chosen_id("The agent."))
        .must("name", text("For people."))
        .must("provider", word("Who answers.", &PROVIDERS))
        .must("model", text("The model.").nullable())
        .must("baseUrl", text("Where the model is.").nullable())
        .must("apiKeySet", boolean("Whether it has an API key."))
        .must("systemPrompt", text("What the model is told first.").nullable())
        .must("temperature", number("How freely it answers.", 0, Some(2)).nullable())
        .must("maxOutputTokens", integer("The longest answer, in tokens.", 1, None).nullable())
        .must("timeoutSeconds", integer("The longest time of one attempt.", 1, Some(600)))
        .must("tools", list("Its tools; the values of their headers are hidden.", named("Tool")).nullable())
        .must("maxConcurrentTurns", integer("Its turns that run at once.", 1, Some(RUNNING_TURNS as i64)))
        .must("inputPrice", number("Credits for a thousand tokens that it reads.", 0, Some(1_000)))
        .must("outputPrice", number("Credits for a thousand tokens that it writes.", 0, Some(1_000)))
        .may("stream", boolean("`openai`: its endpoint is asked for a stream."))
        .must("builtin", nullable("Builtin", "How the deterministic agent behaves."))
        .must("createdAt", time("When it was made."))
        .must("updatedAt", time("When it was changed.").nullable())
        .done()
}

fn builtin() -> RefOr<Schema> {
    Members::new("How the deterministic agent behaves.")
        .must("behaviour", word("Repeat the text, or answer from the script.", &BEHAVIOURS))
        .must("script", list("What it answers to what.", named("ScriptEntry")))
        .must("latencyMs", integer("How long it takes to answer, in milliseconds.", 0, None))
        .must("split", integer("Into how many messages it splits its answer.", 1, None))
        .must("failEvery", integer("With n, every n-th turn fails; 0 is never.", 0, None))
        .done()
}
