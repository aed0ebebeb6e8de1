use serde_json::{Value, json};

use crate::support::TestApp;

#[tokio::test]
async fn an_operator_makes_workspaces_and_sees_all_of_them() {
    let app = TestApp::new().await;
    let made = app.post("/api/v1/workspaces").json(json!({"name": "Acme"})).await.expect(201);
    let id = made["id"].as_str().unwrap();
    assert!(id.starts_with("ws_"));
    assert_eq!(made, json!({"id": id, "name": "Acme", "createdAt": "2025-01-01T00:00:00.000Z"}));
    assert_eq!(app.get(format!("/api/v1/workspaces/{id}")).await.expect(200), made);
    assert_eq!(app.ids("/api/v1/workspaces").await, ["default", id]);
    app.get("/api/v1/workspaces/unknown").await.problem(404, "workspace_not_found");
}

#[tokio::test]
async fn others_see_their_own_workspace_and_make_none() {
    let app = TestApp::new().await;
    let key = app.workspace("mine").await;
    app.workspace("theirs").await;
    let listed = app.get("/api/v1/workspaces").key(&key).await.expect(200);
    assert_eq!((&listed["data"][0]["id"], listed["data"].as_array().unwrap().len()), (&json!("mine"), 1));
    app.get("/api/v1/workspaces/mine").key(&key).await.expect(200);
    for foreign in ["theirs", "default", "unknown"] {
        app.get(format!("/api/v1/workspaces/{foreign}")).key(&key).await.problem(404, "workspace_not_found");
    }
    let refused = app.post("/api/v1/workspaces").key(&key).body("text/plain", "x").await;
    refused.problem(403, "insufficient_scope");
}

#[tokio::test]
async fn every_fault_of_a_workspace_is_named_at_once_and_a_taken_id_is_a_conflict() {
    let app = TestApp::new().await;
    let post = |body: Value| app.post("/api/v1/workspaces").json(body);
    assert_eq!(post(json!({"id": "a/b", "name": 1})).await.faults(), ["invalid_id /id", "invalid_type /name"]);
    assert_eq!(post(json!({})).await.faults(), ["required /name"]);
    post(json!({"id": "default", "name": "x"})).await.problem(409, "workspace_exists");
    let answer = post(json!({"id": "x", "name": "x", "plan": 1})).await;
    assert_eq!(answer.header("x-ignored-fields"), "plan");
}

#[tokio::test]
async fn a_retry_gets_the_first_answer() {
    let app = TestApp::new().await;
    let send = |name: &str| app.post("/api/v1/workspaces").idempotency_key("k").json(json!({"name": name}));
    let first = send("x").await;
    app.clock.advance(1_000);
    let again = send("x").await;
    assert_eq!((again.status, again.header("idempotent-replayed"), &again.bytes), (201, "true", &first.bytes));
    send("y").await.problem(422, "idempotency_key_reused");
    assert_eq!(app.get("/api/v1/workspaces").await.expect(200)["data"].as_array().unwrap().len(), 2);
}
