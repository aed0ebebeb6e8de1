use serde_json::{Value, json};

use crate::support::{Answer, TestApp};

async fn post(app: &TestApp, body: Value) -> Answer {
    app.post("/api/v1/agents").json(body).await
}

#[tokio::test]
async fn an_agent_is_answered_as_it_was_described_with_its_defaults() {
    let app = TestApp::new().await;
    let made = post(&app, json!({"name": "Bot", "provider": "builtin"})).await.expect(201);
    assert!(made["id"].as_str().unwrap().starts_with("agt_"));
    assert_eq!(
        made,
        json!({"id": made["id"], "name": "Bot", "provider": "builtin", "model": null, "baseUrl": null,
            "apiKeySet": false, "systemPrompt": null, "temperature": null, "maxOutputTokens": null,
            "timeoutSeconds": 120, "tools": null, "maxConcurrentTurns": 64, "inputPrice": 1.0, "outputPrice": 1.0,
            "builtin": {"behaviour": "echo", "script": [], "latencyMs": 0, "split": 1, "failEvery": 0},
            "createdAt": "2025-01-01T00:00:00.000Z", "updatedAt": null})
    );
    let builtin = json!({"behaviour": "scripted", "latencyMs": 600_000, "split": 20, "failEvery": 3, "script": [
        {"match": "price", "reply": ["5", "6"]},
        {"match": "ask", "reply": [], "toolCall": {"name": "request_review", "arguments": {"n": 1.50}}}]});
    let silent = json!({"id": "t", "name": "T", "provider": "builtin", "builtin": builtin});
    post(&app, silent).await.expect(201);
    let builtin = json!({"behaviour": "scripted", "latencyMs": 600_000, "split": 20, "failEvery": 3, "script": [
        {"match": "price", "reply": ["5", "6"]},
        {"match": "ask", "toolCall": {"name": "request_review", "arguments": {"n": 1.5}}}]});
    let made = post(&app, json!({"id": "s", "name": "S", "provider": "builtin", "builtin": builtin})).await.expect(201);
    assert_eq!(made["builtin"]["script"][0], builtin["script"][0]);
    assert_eq!(made["builtin"]["script"][1]["toolCall"], builtin["script"][1]["toolCall"]);
    assert_eq!(app.get("/api/v1/agents/s").await.expect(200), made);
}

#[tokio::test]
async fn a_models_key_is_taken_and_never_shown() {
    let app = TestApp::new().await;
    let all = json!({"id": "gpt", "name": "GPT", "provider": "openai", "model": "m-1", "baseUrl": "http://10.1.2.3:8000/v1",
        "systemPrompt": "Be kind.", "temperature": 0.7, "maxOutputTokens": 1, "timeoutSeconds": 600,
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"b": 1, "a": 2}}}]});
    let mut body = all.clone();
    body["apiKey"] = json!("sk-very-secret");
    let made = post(&app, body).await.expect(201);
    for (name, value) in all.as_object().unwrap() {
        assert_eq!(&made[name], value, "{name}");
    }
    assert_eq!((&made["apiKeySet"], &made["builtin"]), (&json!(true), &json!(null)));
    let path = "/api/v1/agents/gpt";
    for answer in [
        app.get(path).await,
        app.get("/api/v1/agents").await,
        app.patch(path).json(json!({"name": "x", "temperature": 2})).await,
    ] {
        assert_eq!(answer.status, 200);
        assert!(!String::from_utf8_lossy(&answer.bytes).contains("secret"));
    }
    assert_eq!(app.get(path).await.expect(200)["apiKeySet"], true);
    assert_eq!(app.patch(path).json(json!({"apiKey": null})).await.expect(200)["apiKeySet"], false);
}

#[tokio::test]
async fn a_tools_headers_are_taken_and_never_shown() {
    let app = TestApp::new().await;
    let tool = json!({"name": "find", "url": "https://example.com/find", "method": "GET",
        "headers": {"Authorization": "Bearer very-secret"}});
    let body = json!({"id": "a", "name": "A", "provider": "builtin", "tools": [tool, {"name": "request_review"}]});
    let made = post(&app, body).await;
    assert!(!String::from_utf8_lossy(&made.bytes).contains("secret"));
    let made = made.expect(201);
    assert_eq!(made["tools"][0]["headers"], json!({"Authorization": "***"}));
    let shown = app.patch("/api/v1/agents/a").json(json!({"tools": made["tools"]})).await.faults();
    assert_eq!(shown, ["forbidden_header /tools/0/headers/Authorization"], "what is shown is not the secret");
}

#[tokio::test]
async fn unknown_members_of_a_tool_are_named_and_never_shown() {
    let app = TestApp::new().await;
    let function = json!({"name": "find", "strict": true, "headers": {"Authorization": "Bearer very-secret"}});
    let tools = json!([
        {"type": "function", "function": function, "name": null, "timeout": 5},
        {"name": "look", "header": {"a": "secret"}, "function": null}
    ]);
    let body = json!({"id": "a", "name": "A", "provider": "builtin", "tools": tools});
    let strict = app.post("/api/v1/agents?strict=true").json(body.clone()).await.faults();
    let unknown = ["/tools/0/function/headers", "/tools/0/timeout", "/tools/1/header"];
    assert_eq!(strict, unknown.map(|pointer| format!("unknown_field {pointer}")));
    let made = post(&app, body).await;
    assert_eq!(made.header("x-ignored-fields"), "tools.0.function.headers, tools.0.timeout, tools.1.header");
    let patched = app.patch("/api/v1/agents/a").json(json!({"name": "B"})).await;
    for answer in [made, patched, app.get("/api/v1/agents/a").await, app.get("/api/v1/agents").await] {
        assert!(answer.status < 300 && !String::from_utf8_lossy(&answer.bytes).contains("secret"));
    }
    let wrong = json!([{"function": {"name": "x", "strict": "yes"}}]);
    assert_eq!(
        app.patch("/api/v1/agents/a").json(json!({"tools": wrong})).await.faults(),
        ["invalid_type /tools/0/function/strict"]
    );
}

#[tokio::test]
async fn how_many_turns_run_and_what_they_cost_can_be_set() {
    let app = TestApp::new().await;
    let all = json!({"maxConcurrentTurns": 2, "inputPrice": 0.25, "outputPrice": 1000, "stream": false});
    let mut body = json!({"id": "gpt", "name": "G", "provider": "openai", "model": "m", "baseUrl": "http://a.b/"});
    body.as_object_mut().unwrap().extend(all.as_object().unwrap().clone());
    let made = post(&app, body).await.expect(201);
    for (name, value) in all.as_object().unwrap() {
        assert_eq!(made[name].as_f64(), value.as_f64(), "{name}");
    }
    assert_eq!(made["stream"], false);
    let reset = json!({"maxConcurrentTurns": null, "inputPrice": null, "stream": null});
    let after = app.patch("/api/v1/agents/gpt").json(reset).await.expect(200);
    assert_eq!(
        (&after["maxConcurrentTurns"], &after["inputPrice"], &after["stream"]),
        (&json!(64), &json!(1.0), &json!(true))
    );
    let faults = app.patch("/api/v1/agents/gpt");
    let wrong = json!({"maxConcurrentTurns": 257, "inputPrice": -1, "outputPrice": "1", "stream": 1});
    assert_eq!(
        faults.json(wrong).await.faults(),
        [
            "out_of_range /maxConcurrentTurns",
            "out_of_range /inputPrice",
            "invalid_type /outputPrice",
            "invalid_type /stream"
        ]
    );
}

#[tokio::test]
async fn every_fault_of_a_tool_is_named() {
    let app = TestApp::new().await;
    let tools = json!([
        {}, {"name": "a b"}, {"name": "x", "parameters": {"type": 7}}, {"name": "x", "description": 1},
        {"type": "web", "function": {"parameters": 1}}, {"name": "y", "url": "http://10.0.0.1/", "method": "HEAD"},
        {"name": "z", "headers": {"Host": "a"}}, {"name": "v", "url": "x"}
    ]);
    let faults = post(&app, json!({"name": "x", "provider": "builtin", "tools": tools})).await.faults();
    assert_eq!(
        faults,
        [
            "required /tools/0/name",
            "invalid_characters /tools/1/name",
            "invalid_schema /tools/2/parameters/type",
            "invalid_type /tools/3/description",
            "duplicate_value /tools/3",
            "invalid_enum /tools/4/type",
            "required /tools/4/function/name",
            "invalid_type /tools/4/function/parameters",
            "blocked_url /tools/5/url",
            "invalid_enum /tools/5/method",
            "forbidden_header /tools/6/headers/Host",
            "invalid_url /tools/7/url",
        ]
    );
}

#[tokio::test]
async fn every_fault_of_an_agent_is_named_at_once() {
    let app = TestApp::new().await;
    for (body, faults) in [
        (json!({}), vec!["required /name", "required /provider"]),
        (json!({"name": "x", "provider": "openai"}), vec!["required /baseUrl", "required /model"]),
        (
            json!({"id": "é", "name": 1, "provider": "openai", "model": "", "baseUrl": "x", "apiKey": "a b",
                "systemPrompt": false, "temperature": 2.1, "maxOutputTokens": 0, "timeoutSeconds": 601, "tools": [1]}),
            vec![
                "invalid_id /id",
                "invalid_type /name",
                "too_short /model",
                "invalid_url /baseUrl",
                "invalid_characters /apiKey",
                "invalid_type /systemPrompt",
                "out_of_range /temperature",
                "out_of_range /maxOutputTokens",
                "out_of_range /timeoutSeconds",
                "invalid_type /tools/0",
            ],
        ),
        (
            json!({"name": "x", "provider": "builtin", "temperature": "1", "builtin": {"behaviour": "x",
                "latencyMs": 600_001, "split": 0, "failEvery": -1,
                "script": [{"match": "", "reply": [""]}, {"match": "a"}, {"match": "a", "reply": "b"}, 1,
                    {"match": "a", "toolCall": {"arguments": []}}]}}),
            vec![
                "invalid_enum /builtin/behaviour",
                "too_short /builtin/script/0/reply/0",
                "required /builtin/script/1/reply",
                "invalid_type /builtin/script/2/reply",
                "invalid_type /builtin/script/3",
                "required /builtin/script/4/toolCall/name",
                "invalid_type /builtin/script/4/toolCall/arguments",
                "out_of_range /builtin/latencyMs",
                "out_of_range /builtin/split",
                "out_of_range /builtin/failEvery",
                "invalid_type /temperature",
            ],
        ),
        (json!({"name": "x", "provider": "other", "baseUrl": "x"}), vec!["invalid_enum /provider"]),
        (
            json!({"name": "x", "provider": "builtin", "systemPrompt": "x".repeat(65_537)}),
            vec!["too_long /systemPrompt"],
        ),
    ] {
        assert_eq!(post(&app, body.clone()).await.faults(), faults, "{body}");
    }
}

#[tokio::test]
async fn a_model_may_live_next_door_but_its_url_holds_no_password() {
    let app = TestApp::new().await;
    let body = |url: &str| json!({"name": "x", "provider": "openai", "model": "m", "baseUrl": url});
    for url in ["http://localhost:11434/v1", "http://ollama:11434", "https://models.internal/v1", "http://[::1]:80/"] {
        assert_eq!(post(&app, body(url)).await.expect(201)["baseUrl"], url);
    }
    for url in ["https://user:pw@example.com/", "/v1", "ftp://example.com", "http://", "http://[fe80::1%25eth0]/", ""] {
        assert_eq!(post(&app, body(url)).await.faults(), ["invalid_url /baseUrl"], "{url}");
    }
}

#[tokio::test]
async fn members_of_another_provider_have_no_effect_and_are_named() {
    let app = TestApp::new().await;
    let answer = post(&app, json!({"name": "x", "provider": "builtin", "baseUrl": "http://a.b/", "apiKey": "k"})).await;
    assert_eq!(answer.header("x-ignored-fields"), "apiKey, baseUrl");
    assert_eq!(answer.expect(201)["apiKeySet"], false);
    let strict = app.post("/api/v1/agents?strict=true");
    let body = json!({"name": "x", "provider": "openai", "model": "m", "baseUrl": "http://a.b/", "builtin": {}});
    assert_eq!(strict.json(body).await.faults(), ["unknown_field /builtin"]);
}

#[tokio::test]
async fn a_patch_changes_what_is_given_down_to_the_members_of_builtin() {
    let app = TestApp::new().await;
    let path = "/api/v1/agents/echo";
    app.clock.advance(2_000);
    let patch = json!({"systemPrompt": "x", "builtin": {"latencyMs": 5, "split": 2}});
    let after = app.patch(path).json(patch).await.expect(200);
    assert_eq!(after["updatedAt"], "2025-01-01T00:00:02.000Z");
    let after = app.patch(path).json(json!({"builtin": {"split": null, "failEvery": 2}})).await.expect(200);
    assert_eq!(
        after["builtin"],
        json!({"behaviour": "echo", "script": [], "latencyMs": 5, "split": 1, "failEvery": 2})
    );
    assert_eq!(after["systemPrompt"], "x");
    let after = app.patch(path).json(json!({"builtin": null, "systemPrompt": null})).await.expect(200);
    assert_eq!((&after["builtin"]["latencyMs"], &after["systemPrompt"]), (&json!(0), &json!(null)));
    assert_eq!(app.patch(path).json(json!({"id": "x"})).await.faults(), ["immutable_field /id"]);
    let faults = app.patch(path).json(json!({"provider": "openai"})).await.faults();
    assert_eq!(faults, ["required /baseUrl", "required /model"]);
    let model = json!({"provider": "openai", "baseUrl": "http://a.b/", "model": "m"});
    assert_eq!(app.patch(path).json(model).await.expect(200)["provider"], "openai");
    assert_eq!(app.patch(path).json(json!({"model": null})).await.faults(), ["required /model"]);
}

#[tokio::test]
async fn a_stored_key_does_not_follow_a_base_url_to_another_origin() {
    let app = TestApp::new().await;
    let path = "/api/v1/agents/m";
    let url = "https://models.example/v1";
    let agent = json!({"id": "m", "name": "M", "provider": "openai", "model": "m", "baseUrl": url, "apiKey": "secret"});
    post(&app, agent).await.expect(201);
    let patch = |body: Value| app.patch(path).json(body).send();
    for other in ["http://models.example/v1", "https://models.example:8443/v1", "https://models.example.org/v1"] {
        assert_eq!(patch(json!({"baseUrl": other})).await.faults(), ["required /apiKey"], "{other}");
    }
    assert_eq!(app.get(path).await.expect(200)["baseUrl"], url);
    for same in ["https://models.example/v2", "https://MODELS.example:443/v1"] {
        let moved = patch(json!({"baseUrl": same})).await.expect(200);
        assert_eq!((&moved["baseUrl"], &moved["apiKeySet"]), (&json!(same), &json!(true)));
    }
    for (other, key) in [("https://a.example/", json!("other")), ("https://b.example/", Value::Null)] {
        let moved = patch(json!({"baseUrl": other, "apiKey": key})).await.expect(200);
        assert_eq!((&moved["baseUrl"], &moved["apiKeySet"]), (&json!(other), &json!(!key.is_null())));
    }
    // Without a key there is nothing to be sent.
    patch(json!({"baseUrl": "https://c.example/"})).await.expect(200);
}

#[tokio::test]
async fn an_agent_that_a_channel_has_cannot_be_deleted() {
    let app = TestApp::new().await;
    app.delete("/api/v1/agents/echo").await.problem(409, "agent_in_use");
    app.get("/api/v1/agents/echo").await.expect(200);
    app.delete("/api/v1/channels/demo-api").await.expect(204);
    app.delete("/api/v1/agents/echo").await.expect(204);
    for answer in [app.get("/api/v1/agents/echo").await, app.delete("/api/v1/agents/echo").await] {
        answer.problem(404, "agent_not_found");
    }
    app.patch("/api/v1/agents/echo").json(json!({})).await.problem(404, "agent_not_found");
}

#[tokio::test]
async fn no_channel_is_ever_left_with_an_agent_that_was_deleted_meanwhile() {
    for round in 0..50 {
        let app = TestApp::new().await;
        post(&app, json!({"id": "a", "name": "A", "provider": "builtin"})).await.expect(201);
        let channel = json!({"id": "c", "name": "C", "kind": "api", "agentId": "a"});
        let creating = app.post("/api/v1/channels").json(channel).send();
        let deleting = app.delete("/api/v1/agents/a").send();
        let (created, deleted) = if round % 2 == 0 {
            tokio::join!(creating, deleting)
        } else {
            let (deleted, created) = tokio::join!(deleting, creating);
            (created, deleted)
        };
        let agent = app.get("/api/v1/agents/a").await.status;
        match created.status {
            201 => assert_eq!((deleted.status, agent), (409, 200), "round {round}"),
            _ => assert_eq!((created.status, deleted.status, agent), (400, 204, 404), "round {round}"),
        }
    }
}

#[tokio::test]
async fn an_id_that_is_taken_is_a_conflict_and_a_retry_is_no_second_agent() {
    let app = TestApp::new().await;
    post(&app, json!({"id": "echo", "name": "x", "provider": "builtin"})).await.problem(409, "agent_exists");
    let send = |name: &str| {
        app.post("/api/v1/agents").idempotency_key("k").json(json!({"id": "a", "name": name, "provider": "builtin"}))
    };
    let first = send("x").await;
    let again = send("x").await;
    assert_eq!((again.status, again.header("idempotent-replayed")), (201, "true"));
    assert_eq!(again.bytes, first.bytes);
    send("y").await.problem(422, "idempotency_key_reused");
    assert_eq!(app.get("/api/v1/agents").await.expect(200)["data"].as_array().unwrap().len(), 2);
}
