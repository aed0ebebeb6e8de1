use http::Method;
use serde_json::json;

use crate::support::{ADMIN_KEY, TestApp};

#[tokio::test]
async fn public_routes_need_no_key_and_carry_a_request_id_and_a_trace() {
    let app = TestApp::new().await;
    for path in ["/healthz", "/readyz"] {
        let answer = app.get(path).no_key().header("x-request-id", "mine-1").await;
        assert_eq!((answer.header("x-request-id"), answer.header("traceparent").len()), ("mine-1", 55));
        answer.expect(200);
    }
    assert_eq!(app.get("/healthz").no_key().await.expect(200), json!({"status": "ok"}));
}

#[tokio::test]
async fn a_server_that_stops_is_alive_but_not_ready() {
    let app = TestApp::new().await;
    app.app.leave();
    app.app.stopping().await;
    app.get("/healthz").await.expect(200);
    let answer = app.get("/readyz").await;
    assert_ne!(answer.header("retry-after"), "");
    answer.problem(503, "stopping");
}

#[tokio::test]
async fn every_route_under_the_api_needs_a_key_known_paths_and_unknown_ones_alike() {
    let app = TestApp::new().await;
    for path in
        ["channels", "channels/demo", "agents", "api-keys", "workspaces", "nothing", "workspaces/a/b/c", "", "/"]
    {
        for method in [Method::GET, Method::POST, Method::PUT] {
            let answer = app.request(method, format!("/api/v1/{path}")).no_key().await;
            assert_eq!(answer.header("www-authenticate"), "Bearer", "{path}");
            answer.problem(401, "unauthenticated");
        }
    }
}

#[tokio::test]
async fn a_path_or_method_that_is_not_there_is_a_problem() {
    let app = TestApp::new().await;
    app.get("/api/v1").no_key().await.problem(401, "unauthenticated");
    for path in ["/api/v1", "/api/v1/"] {
        app.get(path).await.problem(404, "not_found");
    }
    app.get("/api/v1/nothing").await.problem(404, "not_found");
    app.get("/nothing").no_key().await.problem(404, "not_found");
    app.get("/api/v2/channels").no_key().await.problem(404, "not_found");
    let answer = app.request(Method::PUT, "/api/v1/channels").await;
    assert!(answer.header("allow").contains("POST"));
    answer.problem(405, "method_not_allowed");
    app.post("/healthz").no_key().await.problem(405, "method_not_allowed");
}

#[tokio::test]
async fn a_key_may_come_in_either_header_but_not_two_different_ones() {
    let app = TestApp::new().await;
    let path = "/api/v1/channels";
    let bearer = format!("Bearer {ADMIN_KEY}");
    app.get(path).await.expect(200);
    app.get(path).no_key().header("authorization", &bearer).await.expect(200);
    app.get(path).header("authorization", &bearer).await.expect(200);
    app.get(path).header("authorization", "").await.expect(200);
    app.get(path).no_key().header("x-api-key", "").header("authorization", &bearer).await.expect(200);
    app.get(path).no_key().header("x-api-key", "").header("authorization", "").await.problem(401, "unauthenticated");
    for wrong in ["Bearer other", "Basic abc", "Bearer", ADMIN_KEY] {
        app.get(path).header("authorization", wrong).await.problem(401, "unauthenticated");
    }
    app.get(path).key("unknown").await.problem(401, "unauthenticated");
    app.get(path).key(&ADMIN_KEY.to_uppercase()).await.problem(401, "unauthenticated");
}

#[tokio::test]
async fn a_key_without_the_scope_is_refused_before_its_body_is_looked_at() {
    let app = TestApp::new().await;
    let reader = app.key_with(&["messages:read"]).await;
    let writer = app.key_with(&["messages:write"]).await;
    app.get("/api/v1/channels").key(&reader).await.expect(200);
    app.get("/api/v1/agents/echo").key(&reader).await.expect(200);
    for path in ["channels", "agents", "api-keys", "workspaces"] {
        let path = format!("/api/v1/{path}");
        app.get(&path).key(&writer).await.problem(403, "insufficient_scope");
        app.post(&path).key(&reader).body("text/plain", "no json").await.problem(403, "insufficient_scope");
        app.post(&path).body("text/plain", "no json").await.problem(415, "unsupported_media_type");
        let malformed = app.post(&path).body("application/json", "{\"name\":\n 1").await.problem(400, "malformed_json");
        assert_eq!((&malformed["line"], malformed["column"].is_u64()), (&json!(2), true));
        let large = "x".repeat(4 * 1024 * 1024 + 1);
        app.post(&path).body("application/json", large).await.problem(413, "body_too_large");
    }
    for path in ["channels/demo", "agents/echo"] {
        let path = format!("/api/v1/{path}");
        app.patch(&path).key(&reader).json(json!({})).await.problem(403, "insufficient_scope");
        app.delete(&path).key(&reader).await.problem(403, "insufficient_scope");
    }
    app.get("/api/v1/api-keys").key(&reader).await.problem(403, "insufficient_scope");
    app.get("/api/v1/workspaces/default").key(&reader).await.problem(403, "insufficient_scope");
}

#[tokio::test]
async fn a_workspace_is_chosen_by_header_where_the_key_may_use_it() {
    let app = TestApp::new().await;
    let other = app.workspace("other").await;
    let channels =
        |key: &str, workspace: &str| app.get("/api/v1/channels").key(key).header("x-workspace-id", workspace);
    for own in ["", "null", "other"] {
        assert_eq!(channels(&other, own).await.expect(200)["data"], json!([]), "{own:?}");
    }
    for foreign in ["default", "unknown", "not an id", "../default"] {
        channels(&other, foreign).await.problem(403, "workspace_forbidden");
    }
    assert_eq!(channels(ADMIN_KEY, "other").await.expect(200)["data"], json!([]));
    assert_eq!(channels(ADMIN_KEY, "").await.expect(200)["data"].as_array().unwrap().len(), 2);
    channels(ADMIN_KEY, "unknown").await.problem(403, "workspace_forbidden");
    // Only an admin of the workspace `default` administers the others.
    let reader = app.key_with(&["messages:read"]).await;
    channels(&reader, "other").await.problem(403, "workspace_forbidden");
}

#[tokio::test]
async fn two_keys_of_two_workspaces_see_nothing_of_each_other() {
    let app = TestApp::new().await;
    let keys = [app.workspace("one").await, app.workspace("two").await];
    let agent = json!({"id": "agent", "name": "Agent", "provider": "builtin"});
    let channel = json!({"id": "channel", "name": "Channel", "kind": "api", "agentId": "agent"});
    // The same ids may exist in both: a workspace cannot find out which ids another has taken.
    for key in &keys {
        app.post("/api/v1/agents").key(key).json(agent.clone()).await.expect(201);
        app.post("/api/v1/channels").key(key).json(channel.clone()).await.expect(201);
    }
    app.delete("/api/v1/channels/channel").key(&keys[0]).await.expect(204);
    app.delete("/api/v1/agents/agent").key(&keys[0]).await.expect(204);
    app.get("/api/v1/channels/channel").key(&keys[0]).await.problem(404, "channel_not_found");
    app.get("/api/v1/channels/channel").key(&keys[1]).await.expect(200);
    app.get("/api/v1/agents/agent").key(&keys[1]).await.expect(200);
    let foreign_agent = json!({"name": "x", "kind": "api", "agentId": "agent"});
    let refused = app.post("/api/v1/channels").key(&keys[0]).json(foreign_agent).await;
    assert_eq!(refused.faults(), ["agent_not_found /agentId"]);
    // A cursor of one workspace is invalid in another.
    app.post("/api/v1/agents").key(&keys[1]).json(json!({"name": "b", "provider": "builtin"})).await.expect(201);
    let page = app.get("/api/v1/agents?limit=1").key(&keys[1]).await.expect(200);
    let cursor = page["nextCursor"].as_str().unwrap();
    let foreign = app.get(format!("/api/v1/agents?cursor={cursor}")).key(&keys[0]).await;
    assert_eq!(foreign.faults(), ["invalid_cursor /cursor"]);
}
