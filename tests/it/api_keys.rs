use serde_json::{Value, json};

use crate::support::{ADMIN_KEY, Answer, TestApp};

async fn post(app: &TestApp, body: Value) -> Answer {
    app.post("/api/v1/api-keys").json(body).await
}

#[tokio::test]
async fn a_key_is_shown_once_and_works_until_it_is_revoked() {
    let app = TestApp::new().await;
    let made = post(&app, json!({"name": "ci", "scopes": ["messages:read"]})).await;
    let location = made.header("location").to_owned();
    let made = made.expect(201);
    let id = made["id"].as_str().unwrap();
    let key = made["key"].as_str().unwrap();
    assert!(id.starts_with("key_") && key.starts_with("tert_"));
    assert_eq!(
        made,
        json!({"id": id, "name": "ci", "scopes": ["messages:read"], "workspaceId": "default",
            "principal": {"type": "agent", "id": id}, "createdAt": "2025-01-01T00:00:00.000Z", "key": key})
    );
    app.get("/api/v1/channels").key(key).await.expect(200);
    let listed = app.get("/api/v1/api-keys").await.expect(200);
    let mut shown = made.clone();
    shown.as_object_mut().unwrap().remove("key");
    assert!(listed["data"].as_array().unwrap().contains(&shown));
    let path = format!("/api/v1/api-keys/{id}");
    assert_eq!(location, path);
    assert_eq!(app.get(&path).await.expect(200), shown, "where Location leads it is shown without its secret");
    app.get(&path).key(key).await.problem(403, "insufficient_scope");
    app.delete(&path).await.expect(204);
    app.get("/api/v1/channels").key(key).await.problem(401, "unauthenticated");
    app.delete(&path).await.problem(404, "key_not_found");
    app.get(&path).await.problem(404, "key_not_found");
    assert_eq!(app.get("/api/v1/api-keys").await.expect(200)["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_key_is_nowhere_in_what_is_stored() {
    let app = TestApp::new().await;
    let key = app.key(json!({"name": "continuous-integration", "scopes": ["admin"]})).await;
    let stored = app.store.configuration().await;
    assert!(stored.contains("continuous-integration"), "what is stored can be searched");
    assert!(!stored.contains(&key) && !stored.contains(ADMIN_KEY));
}

#[tokio::test]
async fn every_fault_of_a_key_is_named_at_once() {
    let app = TestApp::new().await;
    for (body, faults) in [
        (json!({}), vec!["required /name", "required /scopes"]),
        (json!({"name": "x", "scopes": []}), vec!["too_few /scopes"]),
        (
            json!({"name": "", "scopes": ["admin", "root", 1, "admin"], "workspaceId": 1,
                "principal": {"type": "robot"}}),
            vec![
                "too_short /name",
                "invalid_enum /scopes/1",
                "invalid_type /scopes/2",
                "duplicate_value /scopes/3",
                "invalid_type /workspaceId",
                "invalid_enum /principal/type",
                "required /principal/id",
            ],
        ),
        (
            json!({"name": "x", "scopes": "admin", "principal": "bob"}),
            vec!["invalid_type /scopes", "invalid_type /principal"],
        ),
        (
            json!({"name": "x", "scopes": ["admin"], "principal": {"type": "user", "id": "x".repeat(256)}}),
            vec!["too_long /principal/id"],
        ),
    ] {
        assert_eq!(post(&app, body.clone()).await.faults(), faults, "{body}");
    }
}

#[tokio::test]
async fn a_principal_is_kept() {
    let app = TestApp::new().await;
    let principal = json!({"type": "user", "id": "bob"});
    let body = json!({"name": "bob", "scopes": ["reviews:respond"], "principal": principal, "workspaceId": null});
    assert_eq!(post(&app, body).await.expect(201)["principal"], principal);
    // `system` stands for the service, which decides expired reviews, so no key may have this id.
    let body = json!({"name": "x", "scopes": ["admin"], "principal": {"type": "user", "id": "system"}});
    assert_eq!(post(&app, body).await.faults(), ["invalid_id /principal/id"]);
}

#[tokio::test]
async fn keys_of_other_workspaces_are_made_by_operators_only() {
    let app = TestApp::new().await;
    let one = app.workspace("one").await;
    app.workspace("two").await;
    let body = |workspace: &str| json!({"name": "x", "scopes": ["admin"], "workspaceId": workspace});
    let as_one = |workspace: &str| app.post("/api/v1/api-keys").key(&one).json(body(workspace));
    assert_eq!(as_one("one").await.expect(201)["workspaceId"], "one");
    for foreign in ["two", "default", "unknown", "no id"] {
        as_one(foreign).await.problem(403, "workspace_forbidden");
    }
    // A request beyond the key's rights is refused before its other faults are reported.
    let wrong = json!({"workspaceId": "two"});
    app.post("/api/v1/api-keys").key(&one).json(wrong).await.problem(403, "workspace_forbidden");
    assert_eq!(post(&app, body("two")).await.expect(201)["workspaceId"], "two");
    post(&app, body("unknown")).await.problem(404, "workspace_not_found");
    post(&app, body("no id")).await.problem(404, "workspace_not_found");
    let chosen = app.post("/api/v1/api-keys").header("x-workspace-id", "two");
    assert_eq!(chosen.json(json!({"name": "x", "scopes": ["admin"]})).await.expect(201)["workspaceId"], "two");
    // An admin of another workspace is not an operator.
    let admin = as_one("one").await.expect(201);
    let admin = admin["key"].as_str().unwrap();
    app.post("/api/v1/workspaces").key(admin).json(json!({"name": "x"})).await.problem(403, "insufficient_scope");
}

#[tokio::test]
async fn keys_of_another_workspace_cannot_be_seen_or_revoked() {
    let app = TestApp::new().await;
    let one = app.workspace("one").await;
    let two = app.workspace("two").await;
    let keys = |key: &str| app.get("/api/v1/api-keys").key(key);
    let listed = keys(&two).await.expect(200);
    assert_eq!(listed["data"].as_array().unwrap().len(), 1);
    let path = format!("/api/v1/api-keys/{}", listed["data"][0]["id"].as_str().unwrap());
    app.delete(&path).key(&one).await.problem(404, "key_not_found");
    app.delete("/api/v1/api-keys/unknown").await.problem(404, "key_not_found");
    app.get(&path).key(&one).await.problem(404, "key_not_found");
    app.get("/api/v1/api-keys/unknown").await.problem(404, "key_not_found");
    app.get(&path).header("x-workspace-id", "two").await.expect(200);
    keys(&two).await.expect(200);
    // An operator sees and revokes the keys of another workspace by choosing it.
    let chosen = app.get("/api/v1/api-keys").header("x-workspace-id", "two").await.expect(200);
    assert_eq!(chosen, listed);
    app.delete(&path).header("x-workspace-id", "two").await.expect(204);
    keys(&two).await.problem(401, "unauthenticated");
}

#[tokio::test]
async fn the_location_of_a_key_for_another_workspace_leads_to_it() {
    let app = TestApp::new().await;
    let one = app.workspace("one").await;
    app.workspace("two").await;
    let body = json!({"name": "ci", "scopes": ["messages:read"], "workspaceId": "two"});
    let made = post(&app, body).await;
    let location = made.header("location").to_owned();
    let made = made.expect(201);
    let shown = crate::support::without(made.clone(), "key");
    assert_eq!(app.get(&location).await.expect(200), shown);
    for workspace in ["two", "one"] {
        assert_eq!(app.get(&location).header("x-workspace-id", workspace).await.expect(200), shown);
    }
    // A caller without access to that workspace gets the answer of an unknown key.
    let unknown = "/api/v1/api-keys/key_06a1yabw00z27t0p00wnjjhkh4";
    for path in [&location, unknown] {
        app.get(path).key(&one).await.problem(404, "key_not_found");
        app.delete(path).key(&one).await.problem(404, "key_not_found");
    }
    app.get("/api/v1/channels").key(made["key"].as_str().unwrap()).await.expect(200);
    app.get(unknown).await.problem(404, "key_not_found");
    app.delete(&location).await.expect(204);
    app.get("/api/v1/channels").key(made["key"].as_str().unwrap()).await.problem(401, "unauthenticated");
    app.get(&location).await.problem(404, "key_not_found");
    app.delete(&location).await.problem(404, "key_not_found");
}

#[tokio::test]
async fn keys_are_listed_page_by_page_oldest_first() {
    let app = TestApp::new().await;
    let key = app.workspace("one").await;
    for n in 0..4 {
        app.clock.advance(1);
        let body = json!({"name": format!("k{n}"), "scopes": ["admin"]});
        app.post("/api/v1/api-keys").key(&key).json(body).await.expect(201);
    }
    for (order, expected) in [("asc", ["all", "k0", "k1", "k2", "k3"]), ("desc", ["k3", "k2", "k1", "k0", "all"])] {
        let mut names = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = app.get(format!("/api/v1/api-keys?limit=2&order={order}{cursor}")).key(&key).await.expect(200);
            names.extend(page["data"].as_array().unwrap().iter().map(|key| key["name"].as_str().unwrap().to_owned()));
            let Some(next) = page["nextCursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        assert_eq!(names, expected, "{order}");
    }
}

#[tokio::test]
async fn a_retry_gets_the_same_key_and_makes_no_second_one() {
    let app = TestApp::new().await;
    let body = json!({"name": "ci", "scopes": ["messages:read"]});
    let send = |body: &Value| app.post("/api/v1/api-keys").idempotency_key("once").json(body.clone());
    let first = send(&body).await;
    app.clock.advance(60_000);
    let again = send(&body).await;
    assert_eq!((again.status, again.header("idempotent-replayed")), (201, "true"));
    assert_eq!(again.bytes, first.bytes);
    let key = first.json["key"].as_str().unwrap();
    app.get("/api/v1/channels").key(key).await.expect(200);
    send(&json!({"name": "other", "scopes": ["admin"]})).await.problem(422, "idempotency_key_reused");
    assert_eq!(app.get("/api/v1/api-keys").await.expect(200)["data"].as_array().unwrap().len(), 2);
    // In another workspace the same idempotency key is a different one.
    let other = app.workspace("other").await;
    let answer = send(&body).key(&other).await;
    assert_eq!((answer.status, answer.header("idempotent-replayed")), (201, ""));
    assert_ne!(answer.json["key"], first.json["key"]);
}
