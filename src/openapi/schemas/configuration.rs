//! Channels, keys, workspaces and probes.

use super::super::shape::{
    Body, Bounded as _, Detailed as _, Members, any_of, boolean, chosen_id, component, integer, list, made_id, named,
    nullable, set, text, time, url, word,
};
use super::{Component, page};
use crate::wire::bounds::MAX_NAME_CHARS;
use crate::wire::channel_message::review::MAX_EXPIRY_SECONDS;
use actors::key::Scope;
use utoipa::openapi::{Object, RefOr, Schema, Type};

/// What a channel does with a message while a turn runs.
const BUSY_POLICIES: [&str; 5] = ["queue", "merge", "latest", "reject", "interrupt"];

pub(super) fn schemas() -> Vec<Component> {
    vec![
        ("ChannelNew", channel_settings(Body::New)),
        ("ChannelChange", channel_settings(Body::Change)),
        ("ReviewDefaults", review_defaults()),
        ("Channel", channel().done()),
        (
            "ChannelWithSecret",
            channel().must("webhookSecret", text("Signs deliveries; shown in this answer only.")).done(),
        ),
        ("ChannelPage", page("A page of channels.", named("Channel"))),
        ("Scope", word("What a key may do.", &Scope::ALL.map(Scope::name)).into()),
        ("Principal", principal()),
        ("ApiKeyNew", key_new()),
        ("ApiKey", key().done()),
        ("ApiKeyWithSecret", key().must("key", text("The key itself; shown in this answer only.")).done()),
        ("ApiKeyPage", page("A page of keys, without their secrets.", named("ApiKey"))),
        ("WorkspaceNew", workspace_new()),
        ("Workspace", workspace()),
        ("WorkspacePage", page("A page of workspaces.", named("Workspace"))),
        ("Status", Members::new("How the process is.").must("status", word("", &["ok", "ready"])).done()),
    ]
}

fn channel_settings(body: Body) -> RefOr<Schema> {
    let name = text("For people.").least(1).longest(MAX_NAME_CHARS);
    let kind = word("Answered by people, or by an agent. Cannot be changed.", &["human", "api"]);
    let busy = word(
        "What a new message does while a turn runs: wait, be answered together with others, be the only one answered of \
         those that wait, be refused, or cancel the turn.",
        &BUSY_POLICIES,
    );
    body.members("A channel to be made.")
        .may("id", body.id())
        .of_all(body, "name", name)
        .of_all(body, "kind", kind)
        .may("agentId", text("Who answers; required for the kind `api`.").nullable())
        .may("busyPolicy", busy.by_default(body, "queue".into()).nullable())
        .may("enabled", boolean("Whether it takes messages.").by_default(body, true.into()).nullable())
        .may("webhookUrl", url("Gets every event of the channel. http or https, a public host.").nullable())
        .may("reviewDefaults", nullable("ReviewDefaults", "For reviews that do not say."))
        .done()
}

fn review_defaults() -> RefOr<Schema> {
    let max = i64::try_from(MAX_EXPIRY_SECONDS).unwrap_or(i64::MAX);
    Members::new("What holds for reviews that do not say.")
        .may("expiresInSeconds", integer("How long a review stays open; at most 365 days.", 1, Some(max)).nullable())
        .done()
}

fn channel() -> Members {
    Members::new("A channel: where messages come in.")
        .must("id", chosen_id("The channel."))
        .must("name", text("For people."))
        .must("kind", word("Answered by people, or by an agent.", &["human", "api"]))
        .must("agentId", text("Who answers.").nullable())
        .must("busyPolicy", word("What a new message does while a turn runs.", &BUSY_POLICIES))
        .must("enabled", boolean("Whether it takes messages."))
        .must("webhookUrl", text("Gets every event of the channel.").nullable())
        .must("reviewDefaults", nullable("ReviewDefaults", "For reviews that do not say."))
        .must("createdAt", time("When it was made."))
        .must("updatedAt", time("When it was changed.").nullable())
}

fn principal() -> RefOr<Schema> {
    Members::new("For whom a key speaks.")
        .must("type", word("A program or a person.", &["agent", "user"]))
        .must("id", text("Its name.").least(1).longest(MAX_NAME_CHARS))
        .done()
}

fn key_new() -> RefOr<Schema> {
    Members::new("A key to be made.")
        .must("name", text("For people.").least(1).longest(MAX_NAME_CHARS))
        .must("scopes", set("What it may do.", named("Scope")).least(1))
        .may("workspaceId", text("Another workspace; only for operators.").nullable())
        .may(
            "principal",
            any_of(
                "For whom it speaks; default an agent that has the key's id.",
                [named("Principal"), Object::with_type(Type::Null).into()],
            ),
        )
        .done()
}

fn key() -> Members {
    Members::new("An API key, without its secret.")
        .must("id", made_id("The key's id.", "key_", 26))
        .must("name", text("For people."))
        .must("scopes", list("What it may do.", named("Scope")))
        .must("workspaceId", text("Its workspace."))
        .must("principal", component("Principal", "For whom it speaks."))
        .must("createdAt", time("When it was made."))
}

fn workspace_new() -> RefOr<Schema> {
    Members::new("A workspace to be made.")
        .may("id", chosen_id("Your own id; made where it is absent.").nullable())
        .must("name", text("For people.").least(1).longest(MAX_NAME_CHARS))
        .done()
}

fn workspace() -> RefOr<Schema> {
    Members::new("A workspace: nothing of it can be seen from another one.")
        .must("id", chosen_id("The workspace."))
        .must("name", text("For people."))
        .must("createdAt", time("When it was made."))
        .done()
}
