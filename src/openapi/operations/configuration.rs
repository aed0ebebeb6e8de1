//! Channels, agents, keys and workspaces.

use utoipa::openapi::HttpMethod::{Delete, Get, Patch, Post};

use super::super::examples;
use super::super::operation::{Example, OperationDoc};
use super::super::shape::named;
use super::{ADMIN, LOOK, id};

const CHANNEL_DATA: &[&str] = &[
    "too_short",
    "too_long",
    "invalid_id",
    "invalid_enum",
    "invalid_url",
    "blocked_url",
    "out_of_range",
    "expiry_too_far",
    "agent_not_found",
];
const AGENT_DATA: &[&str] = &[
    "too_short",
    "too_long",
    "too_many",
    "too_few",
    "too_large",
    "too_deep",
    "invalid_id",
    "invalid_enum",
    "invalid_url",
    "invalid_characters",
    "out_of_range",
    "duplicate_value",
    "blocked_url",
    "forbidden_header",
    "invalid_schema",
];

pub(super) fn operations() -> Vec<OperationDoc> {
    let mut all = channels();
    all.extend(agents());
    all.extend(keys());
    all.extend(workspaces());
    all
}

fn channels() -> Vec<OperationDoc> {
    let tag = "Channels";
    let rotate = "A new webhook secret, shown only in this response. For 24 hours, deliveries also carry a signature \
                  of the old one.";
    vec![
        create("/api/v1/channels", ("createChannel", "Create a channel"), tag, "ChannelNew", &examples::CHANNELS)
            .answers(201, "The new channel.", named("ChannelWithSecret"), &[])
            .with_headers(&["Location", "Idempotent-Replayed"])
            .refused(400, CHANNEL_DATA)
            .refused(409, &["channel_exists"]),
        list("/api/v1/channels", ("listChannels", "List channels"), tag, LOOK, "ChannelPage"),
        get("/api/v1/channels/{id}", ("getChannel", "Read a channel"), tag, LOOK, "Channel")
            .refused(404, &["channel_not_found"]),
        change("/api/v1/channels/{id}", ("changeChannel", "Change a channel"), tag, "ChannelChange", examples::DISABLE)
            .answers(200, "The changed channel.", named("Channel"), &[])
            .refused(400, CHANNEL_DATA)
            .refused(400, &["immutable_field"])
            .refused(404, &["channel_not_found"]),
        delete("/api/v1/channels/{id}", ("deleteChannel", "Delete a channel"), tag)
            .refused(404, &["channel_not_found"]),
        OperationDoc::new(
            Post,
            "/api/v1/channels/{id}/rotate-secret",
            ("rotateChannelSecret", "Rotate the webhook secret"),
            tag,
            ADMIN,
            rotate,
        )
        .path("id", "The channel.", id())
        .keyed()
        .empty_body()
        .answers(200, "The channel with its new secret.", named("ChannelWithSecret"), &[])
        .with_headers(&["Idempotent-Replayed"])
        .refused(404, &["channel_not_found"])
        .refused(429, &["conversation_backlog"])
        .refused(503, &["contended"]),
    ]
}

fn agents() -> Vec<OperationDoc> {
    let tag = "Agents";
    vec![
        create("/api/v1/agents", ("createAgent", "Create an agent"), tag, "AgentNew", &examples::AGENTS)
            .answers(201, "The new agent.", named("Agent"), &[])
            .with_headers(&["Location", "Idempotent-Replayed"])
            .refused(400, AGENT_DATA)
            .refused(409, &["agent_exists"]),
        list("/api/v1/agents", ("listAgents", "List agents"), tag, LOOK, "AgentPage"),
        get("/api/v1/agents/{id}", ("getAgent", "Read an agent"), tag, LOOK, "Agent")
            .refused(404, &["agent_not_found"]),
        change("/api/v1/agents/{id}", ("changeAgent", "Change an agent"), tag, "AgentChange", examples::PROMPT)
            .answers(200, "The changed agent. A running turn continues with the earlier settings.", named("Agent"), &[])
            .refused(400, AGENT_DATA)
            .refused(400, &["immutable_field"])
            .refused(404, &["agent_not_found"]),
        delete("/api/v1/agents/{id}", ("deleteAgent", "Delete an agent"), tag)
            .refused(404, &["agent_not_found"])
            .refused(409, &["agent_in_use"]),
    ]
}

fn keys() -> Vec<OperationDoc> {
    let tag = "Keys and workspaces";
    vec![
        create("/api/v1/api-keys", ("createApiKey", "Create a key"), tag, "ApiKeyNew", &[examples::KEY])
            .answers(201, "The new key; its secret is shown only in this response.", named("ApiKeyWithSecret"), &[])
            .with_headers(&["Location", "Idempotent-Replayed"])
            .refused(400, &["too_short", "too_long", "too_few", "invalid_enum", "invalid_id", "duplicate_value"])
            .refused(404, &["workspace_not_found"]),
        list("/api/v1/api-keys", ("listApiKeys", "List keys"), tag, ADMIN, "ApiKeyPage"),
        get("/api/v1/api-keys/{id}", ("getApiKey", "Read a key"), tag, ADMIN, "ApiKey")
            .refused(404, &["key_not_found"]),
        delete("/api/v1/api-keys/{id}", ("deleteApiKey", "Revoke a key"), tag).refused(404, &["key_not_found"]),
    ]
}

fn workspaces() -> Vec<OperationDoc> {
    let tag = "Keys and workspaces";
    vec![
        create(
            "/api/v1/workspaces",
            ("createWorkspace", "Create a workspace"),
            tag,
            "WorkspaceNew",
            &[examples::WORKSPACE],
        )
        .answers(
            201,
            "The new workspace. Only operators may create one: admins of the workspace `default`.",
            named("Workspace"),
            &[],
        )
        .with_headers(&["Location", "Idempotent-Replayed"])
        .refused(400, &["too_short", "too_long", "invalid_id"])
        .refused(409, &["workspace_exists"]),
        list("/api/v1/workspaces", ("listWorkspaces", "List workspaces"), tag, ADMIN, "WorkspacePage"),
        get("/api/v1/workspaces/{id}", ("getWorkspace", "Read a workspace"), tag, ADMIN, "Workspace")
            .refused(404, &["workspace_not_found"]),
    ]
}

pub(super) fn create(
    path: &'static str,
    named_so: (&'static str, &'static str),
    tag: &'static str,
    schema: &str,
    bodies: &[Example],
) -> OperationDoc {
    OperationDoc::new(Post, path, named_so, tag, ADMIN, "A retry with the same idempotency key gets the same response.")
        .keyed()
        .body(named(schema), "The resource to create.", bodies)
        .refused(429, &["conversation_backlog"])
        .refused(503, &["contended"])
}

pub(super) fn list(
    path: &'static str,
    named_so: (&'static str, &'static str),
    tag: &'static str,
    scopes: &[&'static str],
    schema: &str,
) -> OperationDoc {
    OperationDoc::new(Get, path, named_so, tag, scopes, "All of the workspace, in pages.")
        .paged()
        .answers(200, "A page of the list.", named(schema), &[])
        .with_headers(&["Link"])
}

pub(super) fn get(
    path: &'static str,
    named_so: (&'static str, &'static str),
    tag: &'static str,
    scopes: &[&'static str],
    schema: &str,
) -> OperationDoc {
    OperationDoc::new(Get, path, named_so, tag, scopes, "The current state.").path("id", "Its id.", id()).answers(
        200,
        "The current state.",
        named(schema),
        &[],
    )
}

pub(super) fn change(
    path: &'static str,
    named_so: (&'static str, &'static str),
    tag: &'static str,
    schema: &str,
    body: Example,
) -> OperationDoc {
    OperationDoc::new(
        Patch,
        path,
        named_so,
        tag,
        ADMIN,
        "Changes the given members; `null` resets a member to its default.",
    )
    .path("id", "Its id.", id())
    .body(named(schema), "The members to change.", &[body])
    .refused(429, &["conversation_backlog"])
    .refused(503, &["contended", "outcome_unknown"])
}

pub(super) fn delete(path: &'static str, named_so: (&'static str, &'static str), tag: &'static str) -> OperationDoc {
    OperationDoc::new(Delete, path, named_so, tag, ADMIN, "Takes effect at once.")
        .path("id", "Its id.", id())
        .answers_nothing(204, "Deleted.")
        .refused(429, &["conversation_backlog"])
        .refused(503, &["contended", "outcome_unknown"])
}
