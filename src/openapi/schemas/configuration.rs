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

/// The policies of a channel for messages while a turn runs.
const BUSY_POLICIES: [&str; 5] = ["queue", "merge", "latest", "reject", "interrupt"];

pub(super) fn schemas() -> Vec<Component> {
    vec![
        ("ChannelNew", channel_settings(Body::New)),
        ("ChannelChange", channel_settings(Body::Change)),
        ("ReviewDefaults", review_defaults()),
        ("Channel", channel().done()),
        (
            "ChannelWithSecret",
            channel().must("webhookSecret", text("Signs deliveries; shown only in this response.")).done(),
        ),
        ("ChannelPage", page("A page of channels.", named("Channel"))),
        ("Scope", word("The scopes of a key.", &Scope::ALL.map(Scope::name)).into()),
        ("Principal", principal()),
        ("ApiKeyNew", key_new()),
        ("ApiKey", key().done()),
        ("ApiKeyWithSecret", key().must("key", text("The key itself; shown only in this response.")).done()),
        ("ApiKeyPage", page("A page of keys, without their secrets.", named("ApiKey"))),
        ("WorkspaceNew", workspace_new()),
        ("Workspace", workspace()),
        ("WorkspacePage", page("A page of workspaces.", named("Workspace"))),
        ("Status", Members::new("The state of the process.").must("status", word("", &["ok", "ready"])).done()),
    ]
}

fn channel_settings(body: Body) -> RefOr<Schema> {
    let name = text("Human-readable name.").least(1).longest(MAX_NAME_CHARS);
    let kind = word("Answered by people, or by an agent. Cannot be changed.", &["human", "api"]);
    let busy = word(
        "How a new message is handled while a turn runs: it waits, is answered together with the others, is the only \
         waiting message to be answered, is refused, or cancels the turn.",
        &BUSY_POLICIES,
    );
    body.members("The channel to create.")
        .may("id", body.id())
        .of_all(body, "name", name)
        .of_all(body, "kind", kind)
        .may("agentId", text("The agent that answers; required for the kind `api`.").nullable())
        .may("busyPolicy", busy.by_default(body, "queue".into()).nullable())
        .may("enabled", boolean("Whether it accepts messages.").by_default(body, true.into()).nullable())
        .may(
            "webhookUrl",
            url("The URL that receives every event of the channel. http or https, a public host.").nullable(),
        )
        .may("reviewDefaults", nullable("ReviewDefaults", "Defaults for reviews."))
        .done()
}

fn review_defaults() -> RefOr<Schema> {
    let max = i64::try_from(MAX_EXPIRY_SECONDS).unwrap_or(i64::MAX);
    Members::new("Defaults for reviews that do not set these members.")
        .may("expiresInSeconds", integer("How long a review stays open; at most 365 days.", 1, Some(max)).nullable())
        .done()
}

fn channel() -> Members {
    Members::new("A channel: where messages arrive.")
        .must("id", chosen_id("The channel."))
        .must("name", text("Human-readable name."))
        .must("kind", word("Answered by people, or by an agent.", &["human", "api"]))
        .must("agentId", text("The agent that answers.").nullable())
        .must("busyPolicy", word("How a new message is handled while a turn runs.", &BUSY_POLICIES))
        .must("enabled", boolean("Whether it accepts messages."))
        .must("webhookUrl", text("The URL that receives every event of the channel.").nullable())
        .must("reviewDefaults", nullable("ReviewDefaults", "Defaults for reviews."))
        .must("createdAt", time("When the channel was created."))
        .must("updatedAt", time("When the channel was last changed.").nullable())
}

fn principal() -> RefOr<Schema> {
    Members::new("The principal that a key acts for.")
        .must("type", word("A program or a person.", &["agent", "user"]))
        .must("id", text("Its name.").least(1).longest(MAX_NAME_CHARS))
        .done()
}

fn key_new() -> RefOr<Schema> {
    Members::new("The key to create.")
        .must("name", text("Human-readable name.").least(1).longest(MAX_NAME_CHARS))
        .must("scopes", set("Its scopes.", named("Scope")).least(1))
        .may("workspaceId", text("Another workspace; only for operators.").nullable())
        .may(
            "principal",
            any_of(
                "The principal that it acts for; default an agent with the key's id.",
                [named("Principal"), Object::with_type(Type::Null).into()],
            ),
        )
        .done()
}

fn key() -> Members {
    Members::new("An API key, without its secret.")
        .must("id", made_id("The key's id.", "key_", 26))
        .must("name", text("Human-readable name."))
        .must("scopes", list("Its scopes.", named("Scope")))
        .must("workspaceId", text("Its workspace."))
        .must("principal", component("Principal", "The principal that it acts for."))
        .must("createdAt", time("When the key was created."))
}

fn workspace_new() -> RefOr<Schema> {
    Members::new("The workspace to create.")
        .may("id", chosen_id("An id of your choice; generated if absent.").nullable())
        .must("name", text("Human-readable name.").least(1).longest(MAX_NAME_CHARS))
        .done()
}

fn workspace() -> RefOr<Schema> {
    Members::new("A workspace: isolated from all others.")
        .must("id", chosen_id("The workspace."))
        .must("name", text("Human-readable name."))
        .must("createdAt", time("When the workspace was created."))
        .done()
}
