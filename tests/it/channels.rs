use actors::store::faulty::{FaultyStore, Rates};
use serde_json::{Value, json};

use crate::support::{Answer, TestApp, ids, without};

async fn post(app: &TestApp, body: Value) -> Answer {
    app.post("/api/v1/channels").json(body).await
}

#[tokio::test]
async fn a_channel_is_answered_as_it_was_described_with_its_defaults() {
    let app = TestApp::new().await;
    let made = post(&app, json!({"name": "Sales", "kind": "human"})).await.expect(201);
    assert!(made["id"].as_str().unwrap().starts_with("chan_"));
    assert!(made["webhookSecret"].as_str().unwrap().starts_with("whsec_"));
    let shown = without(without(made.clone(), "id"), "webhookSecret");
    assert_eq!(
        shown,
        json!({"name": "Sales", "kind": "human", "agentId": null, "busyPolicy": "queue", "enabled": true,
            "webhookUrl": null, "reviewDefaults": null, "createdAt": "2025-01-01T00:00:00.000Z", "updatedAt": null})
    );
    let path = format!("/api/v1/channels/{}", made["id"].as_str().unwrap());
    assert_eq!(app.get(path).await.expect(200), without(made, "webhookSecret"));
    let all = json!({"id": "Support_1-x", "name": "é".repeat(255), "kind": "api", "agentId": "echo",
        "busyPolicy": "interrupt", "enabled": false, "webhookUrl": "https://example.com/hook?a=1",
        "reviewDefaults": {"expiresInSeconds": 31_536_000}});
    let made = post(&app, all.clone()).await.expect(201);
    for (name, value) in all.as_object().unwrap() {
        assert_eq!(&made[name], value, "{name}");
    }
}

#[tokio::test]
async fn every_fault_of_a_channel_is_named_at_once() {
    let app = TestApp::new().await;
    for (body, faults) in [
        (json!({}), vec!["required /kind", "required /name"]),
        (json!({"name": null, "kind": null}), vec!["required /kind", "required /name"]),
        (
            json!({"id": "a b", "name": "", "kind": "x", "agentId": 1, "busyPolicy": "y", "enabled": "true",
                "webhookUrl": "http://10.0.0.1/", "reviewDefaults": {"expiresInSeconds": 0}}),
            vec![
                "invalid_id /id",
                "invalid_enum /kind",
                "too_short /name",
                "invalid_type /agentId",
                "invalid_enum /busyPolicy",
                "invalid_type /enabled",
                "blocked_url /webhookUrl",
                "out_of_range /reviewDefaults/expiresInSeconds",
            ],
        ),
        (json!({"name": "x", "kind": "api"}), vec!["required /agentId"]),
        (json!({"name": "x", "kind": "api", "agentId": "nobody"}), vec!["agent_not_found /agentId"]),
        (
            json!({"name": "x".repeat(256), "kind": "human", "agentId": "no body"}),
            vec!["too_long /name", "agent_not_found /agentId"],
        ),
        (json!({"name": "x", "kind": "human", "id": "x".repeat(65)}), vec!["invalid_id /id"]),
        (json!({"name": "x", "kind": "human", "id": ""}), vec!["invalid_id /id"]),
        (json!({"name": "x", "kind": "human", "webhookUrl": "ftp://example.com/"}), vec!["invalid_url /webhookUrl"]),
        (
            json!({"name": "x", "kind": "human", "reviewDefaults": {"expiresInSeconds": 31_536_001}}),
            vec!["expiry_too_far /reviewDefaults/expiresInSeconds"],
        ),
        (
            json!({"name": "x", "kind": "human", "reviewDefaults": {"expiresInSeconds": 1_u64 << 53}}),
            vec!["expiry_too_far /reviewDefaults/expiresInSeconds"],
        ),
        (json!({"name": "x", "kind": "human", "reviewDefaults": []}), vec!["invalid_type /reviewDefaults"]),
    ] {
        assert_eq!(post(&app, body.clone()).await.faults(), faults, "{body}");
    }
    assert_eq!(app.get("/api/v1/channels").await.expect(200)["data"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_private_webhook_is_accepted_where_the_operator_allows_its_network() {
    let app = TestApp::with_env(&[("TERTULIA_EGRESS_ALLOW", "10.0.0.0/8")]).await;
    let body = |url| json!({"name": "x", "kind": "human", "webhookUrl": url});
    post(&app, body("http://10.0.0.1/")).await.expect(201);
    assert_eq!(post(&app, body("http://192.168.0.1/")).await.faults(), ["blocked_url /webhookUrl"]);
}

#[tokio::test]
async fn unknown_members_are_named_and_with_strict_they_are_faults() {
    let app = TestApp::new().await;
    let body = json!({"name": "x", "kind": "human", "colour": 1, "reviewDefaults": {"quorum": 2}});
    let answer = post(&app, body.clone()).await;
    assert_eq!(answer.header("x-ignored-fields"), "reviewDefaults.quorum, colour");
    answer.expect(201);
    let answer = app.post("/api/v1/channels?strict=true").json(body).await;
    assert_eq!(answer.faults(), ["unknown_field /reviewDefaults/quorum", "unknown_field /colour"]);
    let answer = app.patch("/api/v1/channels/demo").json(json!({"colour": 1})).await;
    assert_eq!(answer.header("x-ignored-fields"), "colour");
}

#[tokio::test]
async fn a_wrong_query_or_idempotency_key_is_named_together_with_the_body() {
    let app = TestApp::new().await;
    let answer = app.post("/api/v1/channels?a=1&a=2").idempotency_key("a b").json(json!({"kind": "human"})).await;
    assert_eq!(answer.faults(), ["invalid_query /a", "invalid_idempotency_key /Idempotency-Key", "required /name"]);
}

#[tokio::test]
async fn an_id_that_is_taken_is_a_conflict() {
    let app = TestApp::new().await;
    let body = json!({"id": "demo", "name": "x", "kind": "human"});
    post(&app, body.clone()).await.problem(409, "channel_exists");
    app.delete("/api/v1/channels/demo").await.expect(204);
    post(&app, body).await.expect(201);
}

#[tokio::test]
async fn a_patch_changes_what_is_given_and_null_takes_it_back() {
    let app = TestApp::new().await;
    let path = "/api/v1/channels/demo-api";
    let before = app.get(path).await.expect(200);
    app.clock.advance(1_500);
    let patch = json!({"name": "Renamed", "busyPolicy": "merge", "enabled": false,
        "webhookUrl": "https://example.com/", "reviewDefaults": {"expiresInSeconds": 60}});
    let after = app.patch(path).json(patch).await.expect(200);
    assert_eq!(after["updatedAt"], "2025-01-01T00:00:01.500Z");
    for kept in ["id", "kind", "agentId", "createdAt"] {
        assert_eq!(after[kept], before[kept], "{kept}");
    }
    assert_eq!((&after["name"], &after["busyPolicy"]), (&json!("Renamed"), &json!("merge")));
    assert_eq!(app.get(path).await.expect(200), after);
    let nulls = json!({"busyPolicy": null, "enabled": null, "webhookUrl": null, "reviewDefaults": null});
    let back = app.patch(path).json(nulls).await.expect(200);
    for name in ["busyPolicy", "enabled", "webhookUrl", "reviewDefaults"] {
        assert_eq!(back[name], before[name], "{name}");
    }
    let human = app.patch("/api/v1/channels/demo").json(json!({"agentId": "echo"})).await.expect(200);
    assert_eq!(human["agentId"], "echo");
    let human = app.patch("/api/v1/channels/demo").json(json!({"agentId": null})).await.expect(200);
    assert_eq!(human["agentId"], json!(null));
}

#[tokio::test]
async fn a_patch_that_changes_nothing_is_no_change() {
    let app = TestApp::new().await;
    let before = app.get("/api/v1/channels/demo").await.expect(200);
    app.clock.advance(1_000);
    for same in [json!({}), json!({"id": "demo", "kind": "human", "name": before["name"]})] {
        assert_eq!(app.patch("/api/v1/channels/demo").json(same).await.expect(200), before);
    }
}

#[tokio::test]
async fn id_and_kind_cannot_change_and_wrong_values_are_faults_in_a_patch_too() {
    let app = TestApp::new().await;
    let patch = |body| app.patch("/api/v1/channels/demo-api").json(body);
    let faults = patch(json!({"id": "other", "kind": "human"})).await.faults();
    assert_eq!(faults, ["immutable_field /id", "immutable_field /kind"]);
    assert_eq!(patch(json!({"id": null, "kind": 3})).await.faults(), ["immutable_field /id", "immutable_field /kind"]);
    assert_eq!(patch(json!({"name": null, "agentId": null})).await.faults(), ["required /name", "required /agentId"]);
    assert_eq!(patch(json!({"agentId": "nobody"})).await.faults(), ["agent_not_found /agentId"]);
    assert_eq!(patch(json!([])).await.problem(400, "invalid_type")["errors"][0]["pointer"], "");
}

#[tokio::test]
async fn an_unknown_channel_is_not_found_but_faults_come_first() {
    let app = TestApp::new().await;
    for id in ["unknown", "not%20an%20id", &"x".repeat(300)] {
        let path = format!("/api/v1/channels/{id}");
        app.get(&path).await.problem(404, "channel_not_found");
        app.patch(&path).json(json!({"name": "x"})).await.problem(404, "channel_not_found");
        app.delete(&path).await.problem(404, "channel_not_found");
        app.post(format!("{path}/rotate-secret")).await.problem(404, "channel_not_found");
        assert_eq!(app.patch(&path).json(json!({"name": 1})).await.faults(), ["invalid_type /name"]);
    }
}

#[tokio::test]
async fn a_deleted_channel_is_unknown() {
    let app = TestApp::new().await;
    let answer = app.delete("/api/v1/channels/demo").await;
    assert_eq!((answer.status, answer.bytes.len()), (204, 0));
    app.get("/api/v1/channels/demo").await.problem(404, "channel_not_found");
    app.delete("/api/v1/channels/demo").await.problem(404, "channel_not_found");
}

#[tokio::test]
async fn a_secret_is_shown_when_it_is_made_and_never_again() {
    let app = TestApp::new().await;
    let path = "/api/v1/channels/demo";
    let first = app.post(format!("{path}/rotate-secret")).await.expect(200);
    let second = app.post(format!("{path}/rotate-secret")).json(json!({})).await.expect(200);
    assert!(first["webhookSecret"].as_str().unwrap().starts_with("whsec_"));
    assert_ne!(first["webhookSecret"], second["webhookSecret"]);
    for shown in [
        app.get(path).await.expect(200),
        app.patch(path).json(json!({"name": "x"})).await.expect(200),
        app.get("/api/v1/channels").await.expect(200)["data"][0].clone(),
    ] {
        assert_eq!(shown.get("webhookSecret"), None);
    }
}

#[tokio::test]
async fn a_repeated_key_gets_the_first_answer_after_later_changes() {
    let app = TestApp::new().await;
    let agent = json!({"id": "a", "name": "A", "provider": "builtin"});
    app.post("/api/v1/agents").json(agent).await.expect(201);
    let body = json!({"name": "x", "kind": "api", "agentId": "a"});
    let send = || app.post("/api/v1/channels").idempotency_key("k").json(body.clone());
    let first = send().await;
    assert_eq!(first.header("idempotent-replayed"), "");
    let path = format!("/api/v1/channels/{}", first.json["id"].as_str().unwrap());
    app.clock.advance(1_000);
    app.patch(&path).json(json!({"name": "renamed"})).await.expect(200);
    app.delete(&path).await.expect(204);
    app.delete("/api/v1/agents/a").await.expect(204);
    let again = send().await;
    assert_eq!((again.status, again.header("idempotent-replayed")), (201, "true"));
    assert_eq!(again.bytes, first.bytes);
    // A different request with the key is refused; an invalid one is refused for its faults first.
    let other = |body| app.post("/api/v1/channels").idempotency_key("k").json(body);
    other(json!({"name": "y", "kind": "human"})).await.problem(422, "idempotency_key_reused");
    assert_eq!(other(json!({"name": "y"})).await.faults(), ["required /kind"]);
    // Without the key the same request is judged by the current state.
    assert_eq!(post(&app, body.clone()).await.faults(), ["agent_not_found /agentId"]);
    let again = TestApp::start(app.store.clone(), &[]).await;
    assert_eq!(again.post("/api/v1/channels").idempotency_key("k").json(body).await.bytes, first.bytes);
}

#[tokio::test]
async fn a_repeated_rotation_gets_the_same_secret() {
    let app = TestApp::new().await;
    let rotate = |key: &str| app.post("/api/v1/channels/demo/rotate-secret").idempotency_key(key);
    let first = rotate("a").await;
    rotate("b").await.expect(200);
    let again = rotate("a").await;
    assert_eq!((again.header("idempotent-replayed"), &again.bytes), ("true", &first.bytes));
    app.post("/api/v1/channels/demo-api/rotate-secret")
        .idempotency_key("a")
        .await
        .problem(422, "idempotency_key_reused");
}

#[tokio::test]
async fn a_refused_request_does_not_burn_its_key() {
    let app = TestApp::new().await;
    let body = json!({"id": "demo", "name": "x", "kind": "human"});
    let send = || app.post("/api/v1/channels").idempotency_key("k").json(body.clone());
    send().await.problem(409, "channel_exists");
    app.delete("/api/v1/channels/demo").await.expect(204);
    send().await.expect(201);
}

#[tokio::test]
async fn many_equal_requests_with_one_key_make_one_channel() {
    let app = TestApp::new().await;
    let body = json!({"name": "x", "kind": "api", "agentId": "echo"});
    let all = (0..20).map(|_| app.post("/api/v1/channels").idempotency_key("k").json(body.clone()).send());
    let answers = futures_util::future::join_all(all).await;
    assert!(answers.iter().all(|answer| answer.status == 201 && answer.bytes == answers[0].bytes));
    assert_eq!(answers.iter().filter(|answer| answer.header("idempotent-replayed").is_empty()).count(), 1);
    assert_eq!(app.get("/api/v1/channels").await.expect(200)["data"].as_array().unwrap().len(), 3);
}

/// Every refusal says when to retry.
#[tokio::test]
async fn a_retried_request_has_one_effect_on_a_store_that_fails() {
    for seed in 0..40 {
        let app = TestApp::with_store(|store| FaultyStore::new(store, seed, Rates::OFTEN)).await;
        for n in 0..5 {
            let body = json!({"name": format!("c{n}"), "kind": "api", "agentId": "echo"});
            for attempt in 0.. {
                assert!(attempt < 100, "seed {seed}: it is never done");
                let answer = app.post("/api/v1/channels").idempotency_key(&format!("k{n}")).json(body.clone()).await;
                if answer.status == 201 {
                    break;
                }
                assert!(answer.status == 503 && !answer.header("retry-after").is_empty(), "seed {seed}: {answer:?}");
            }
        }
        let sound = TestApp::start(app.store.clone(), &[]).await;
        let listed = sound.get("/api/v1/channels").await.expect(200);
        let mut names: Vec<_> =
            listed["data"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
        names.sort_unstable();
        assert_eq!(names, ["Demo", "Demo API", "c0", "c1", "c2", "c3", "c4"], "seed {seed}");
    }
}

#[tokio::test]
async fn patches_of_different_members_at_once_all_hold() {
    let app = TestApp::new().await;
    let patches = [
        json!({"name": "new"}),
        json!({"busyPolicy": "reject"}),
        json!({"enabled": false}),
        json!({"webhookUrl": "https://example.com/"}),
    ];
    let all = patches.iter().map(|patch| app.patch("/api/v1/channels/demo").json(patch.clone()).send());
    for answer in futures_util::future::join_all(all).await {
        answer.expect(200);
    }
    let after = app.get("/api/v1/channels/demo").await.expect(200);
    for patch in &patches {
        for (name, value) in patch.as_object().unwrap() {
            assert_eq!(&after[name], value);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_patches_at_once_are_all_done() {
    let app = TestApp::new().await;
    let patch = |n| app.patch("/api/v1/channels/demo").json(json!({"name": format!("c{n}")})).send();
    let all: Vec<_> = (0..100).map(|n| tokio::spawn(patch(n))).collect();
    for answer in all {
        answer.await.unwrap().expect(200);
    }
}

#[tokio::test]
async fn a_list_is_read_page_by_page_in_either_order() {
    let app = TestApp::new().await;
    for n in 0..5 {
        post(&app, json!({"id": format!("c{n}"), "name": "x", "kind": "human"})).await.expect(201);
    }
    let mut expected = vec!["demo".to_owned(), "demo-api".to_owned()];
    expected.extend((0..5).map(|n| format!("c{n}")));
    for order in ["asc", "desc"] {
        let mut listed = Vec::new();
        let mut path = format!("/api/v1/channels?limit=3&order={order}");
        for page in 0.. {
            let answer = app.get(&path).await;
            let link = answer.header("link").to_owned();
            let body = answer.expect(200);
            listed.extend(ids(&body));
            assert_eq!(body["hasMore"], json!(page < 2));
            if body["nextCursor"].is_null() {
                assert_eq!(link, "");
                break;
            }
            let next = link.strip_prefix('<').and_then(|link| link.strip_suffix(">; rel=\"next\"")).unwrap();
            next.clone_into(&mut path);
        }
        assert_eq!(listed, expected, "{order}");
        expected.reverse();
    }
    let wrong = app.get("/api/v1/channels?limit=0&cursor=x&order=up").await;
    assert_eq!(wrong.faults(), ["out_of_range /limit", "invalid_cursor /cursor", "invalid_enum /order"]);
}

#[tokio::test]
async fn a_channel_with_the_id_of_a_deleted_one_is_another_channel() {
    let app = TestApp::new().await;
    let make = || app.post("/api/v1/channels").json(json!({"id": "h", "name": "h", "kind": "human"})).send();
    let mut shown = Vec::new();
    for n in 0..3 {
        make().await.expect(201);
        make().await.problem(409, "channel_exists");
        assert_eq!(app.get("/api/v1/messages?channelId=h").await.expect(200)["data"], json!([]));
        let body = json!({"channelId": "h", "text": format!("{n}"), "review": {"type": "approval"}});
        let said = app.post("/api/v1/messages").idempotency_key("k").json(body).await;
        assert_eq!((said.status, said.header("idempotent-replayed")), (201, ""));
        let events = app.get("/api/v1/channels/h/events").await.expect(200);
        assert_eq!(events["data"].as_array().unwrap().len(), 3);
        assert_eq!(app.get("/api/v1/reviews?channelId=h").await.expect(200)["data"][0]["id"], said.json["id"]);
        shown.push(said.json["id"].as_str().unwrap().to_owned());
        app.delete("/api/v1/channels/h").await.expect(204);
        app.get("/api/v1/reviews?channelId=h").await.problem(404, "channel_not_found");
        app.get("/api/v1/messages?channelId=h").await.problem(404, "channel_not_found");
    }
    // Old messages keep their conversation and their id.
    for (n, id) in shown.iter().enumerate() {
        assert_eq!(app.get(format!("/api/v1/messages/{id}")).await.expect(200)["text"], json!(format!("{n}")));
    }
}

#[tokio::test]
async fn a_contact_begins_anew_on_an_api_channel_with_the_id_of_a_deleted_one() {
    let app = TestApp::new().await;
    let message = |text: &str| json!({"type": "TEXT", "contactIdentifier": "ana", "content": {"text": {"body": text}}});
    let make = async || {
        let made = json!({"id": "a", "name": "A", "kind": "api", "agentId": "echo"});
        app.post("/api/v1/channels").json(made).await.expect(201);
    };
    let send = async |text: &str| {
        app.post("/api/v1/channels/a/messages").idempotency_key("k").json(message(text)).await.expect(200)
    };
    make().await;
    let before = send("before").await;
    app.delete("/api/v1/channels/a").await.expect(204);
    make().await;
    let after = send("after").await;
    assert_eq!(after["contactId"], before["contactId"]);
    assert_ne!(after["conversationId"], before["conversationId"]);
    assert_eq!(after["conversation"]["channelId"], "a");
    assert_eq!(after["aiMessages"][0]["content"]["text"]["body"], "after");
    assert_eq!(send("after").await["messageId"], after["messageId"]);
}

#[tokio::test]
async fn a_human_channels_own_conversation_stays_open_and_takes_messages() {
    let app = TestApp::new().await;
    let say = || app.post("/api/v1/messages").json(json!({"channelId": "demo", "text": "x"}));
    say().await.expect(201);
    let events = app.get("/api/v1/channels/demo/events").await.expect(200);
    let id = events["data"][0]["data"]["conversationId"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/conversations/{id}");
    let refused = app.patch(&path).json(json!({"status": "closed", "title": "t"})).await;
    refused.problem(409, "conversation_not_closable");
    let now = app.get(&path).await.expect(200);
    assert_eq!((&now["status"], &now["title"]), (&json!("open"), &Value::Null), "nothing of it was changed");
    app.patch(&path).json(json!({"status": "open", "title": "t"})).await.expect(200);
    say().await.expect(201);
}
