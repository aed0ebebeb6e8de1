use actors::limits;
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::{Answer, TestApp, without};

const PATH: &str = "/api/v1/webhook-endpoints";

async fn post(app: &TestApp, body: Value) -> Answer {
    app.post(PATH).json(body).await
}

fn path_of(endpoint: &Value) -> String {
    format!("{PATH}/{}", endpoint["id"].as_str().unwrap())
}

#[tokio::test]
async fn an_endpoint_is_answered_as_it_was_described_with_its_defaults() {
    let app = TestApp::new().await;
    let made = post(&app, json!({"url": "https://example.com/hook"})).await.expect(201);
    assert!(made["id"].as_str().unwrap().starts_with("wh_"));
    assert!(made["secret"].as_str().unwrap().starts_with("whsec_"));
    assert_eq!(
        without(without(made.clone(), "id"), "secret"),
        json!({"url": "https://example.com/hook", "events": ["*"], "channelId": null, "format": "standard",
            "enabled": true, "disabledReason": null, "createdAt": "2025-01-01T00:00:00.000Z", "updatedAt": null})
    );
    assert_eq!(app.get(path_of(&made)).await.expect(200), without(made, "secret"));
    let all = json!({"url": "http://example.com:8080/a?b=c", "events": ["review.*", "message.created"],
        "channelId": "demo", "format": "cloudevents", "enabled": false});
    let made = post(&app, all.clone()).await.expect(201);
    for (name, value) in all.as_object().unwrap() {
        assert_eq!(&made[name], value, "{name}");
    }
    assert_eq!(made["disabledReason"], "manual");
}

#[tokio::test]
async fn every_fault_of_an_endpoint_is_named_at_once() {
    let app = TestApp::new().await;
    for (body, faults) in [
        (json!({}), vec!["required /url"]),
        (json!({"url": null}), vec!["required /url"]),
        (
            json!({"url": "http://10.0.0.1/", "events": ["review.*", "review.decided", 7, "review.*"], "channelId": 1,
                "format": "xml", "enabled": "yes"}),
            vec![
                "blocked_url /url",
                "invalid_enum /events/1",
                "invalid_type /events/2",
                "duplicate_value /events/3",
                "invalid_type /channelId",
                "invalid_enum /format",
                "invalid_type /enabled",
            ],
        ),
        (json!({"url": "ftp://example.com/", "events": []}), vec!["invalid_url /url", "too_few /events"]),
        (json!({"url": "https://example.com/", "events": vec!["*"; 51]}), vec!["too_many /events"]),
        (json!({"url": "https://example.com/", "events": "*"}), vec!["invalid_type /events"]),
        (json!({"url": "https://example.com/", "channelId": ""}), vec!["too_short /channelId"]),
    ] {
        assert_eq!(post(&app, body.clone()).await.faults(), faults, "{body}");
    }
    let unknown = json!({"url": "https://example.com/", "channelId": "nowhere"});
    post(&app, unknown.clone()).await.problem(404, "channel_not_found");
    let made = post(&app, json!({"url": "https://example.com/"})).await.expect(201);
    app.patch(path_of(&made)).json(json!({"channelId": "nowhere"})).await.problem(404, "channel_not_found");
    assert_eq!(app.patch(path_of(&made)).json(json!({"url": null})).await.faults(), ["required /url"]);
    let other = json!({"id": "wh_06a1yabw00z27t0p00wnjjhkh4"});
    assert_eq!(app.patch(path_of(&made)).json(other).await.faults(), ["immutable_field /id"]);
}

#[tokio::test]
async fn a_patch_changes_what_is_given_and_null_takes_it_back() {
    let app = TestApp::new().await;
    let described = json!({"url": "https://example.com/", "events": ["turn.*"], "channelId": "demo"});
    let made = post(&app, described).await.expect(201);
    app.clock.advance(1_000);
    let changed = app.patch(path_of(&made)).json(json!({"enabled": false, "events": null})).await.expect(200);
    let mut expected = without(made.clone(), "secret");
    expected["enabled"] = json!(false);
    expected["disabledReason"] = json!("manual");
    expected["events"] = json!(["*"]);
    expected["updatedAt"] = json!("2025-01-01T00:00:01.000Z");
    assert_eq!(changed, expected);
    let again = app.patch(path_of(&made)).json(json!({"enabled": null, "channelId": null})).await.expect(200);
    assert_eq!(
        (&again["enabled"], &again["disabledReason"], &again["channelId"]),
        (&json!(true), &Value::Null, &Value::Null)
    );
    app.delete(path_of(&made)).await.expect(204);
    app.get(path_of(&made)).await.problem(404, "endpoint_not_found");
    app.delete(path_of(&made)).await.problem(404, "endpoint_not_found");
    assert_eq!(app.get(PATH).await.expect(200)["data"], json!([]));
}

#[tokio::test]
async fn a_retry_shows_the_same_secret_and_a_rotation_a_new_one() {
    let app = TestApp::new().await;
    let body = json!({"url": "https://example.com/"});
    let made = app.post(PATH).idempotency_key("one").json(body.clone()).await.expect(201);
    let again = app.post(PATH).idempotency_key("one").json(body).await;
    assert_eq!(again.header("idempotent-replayed"), "true");
    assert_eq!(again.expect(201), made);
    let other = json!({"url": "https://example.com/other"});
    app.post(PATH).idempotency_key("one").json(other).await.problem(422, "idempotency_key_reused");
    let rotate = format!("{}/rotate-secret", path_of(&made));
    let rotated = app.post(&rotate).idempotency_key("two").await.expect(200);
    assert_ne!(rotated["secret"], made["secret"]);
    assert_eq!(app.post(&rotate).idempotency_key("two").await.expect(200), rotated);
    app.post(format!("{PATH}/wh_06a1yabw00z27t0p00wnjjhkh4/rotate-secret")).await.problem(404, "endpoint_not_found");
}

#[tokio::test]
async fn endpoints_are_for_admins_and_seen_by_their_workspace_alone() {
    let app = TestApp::new().await;
    let made = post(&app, json!({"url": "https://example.com/"})).await.expect(201);
    let other = app.workspace("other").await;
    app.get(path_of(&made)).key(&other).await.problem(404, "endpoint_not_found");
    app.patch(path_of(&made)).key(&other).json(json!({"enabled": false})).await.problem(404, "endpoint_not_found");
    app.delete(path_of(&made)).key(&other).await.problem(404, "endpoint_not_found");
    let foreign = json!({"url": "https://example.com/", "channelId": "demo"});
    app.post(PATH).key(&other).json(foreign).await.problem(404, "channel_not_found");
    assert_eq!(app.get(PATH).key(&other).await.expect(200)["data"], json!([]));
    let reader = app.key_with(&["messages:read", "messages:write", "reviews:respond"]).await;
    app.get(PATH).key(&reader).await.problem(403, "insufficient_scope");
    app.post(PATH).key(&reader).json(json!({})).await.problem(403, "insufficient_scope");
}

#[tokio::test]
async fn a_workspace_has_so_many_endpoints_and_lists_them_in_pages() {
    let app = TestApp::new().await;
    for n in 0..limits::WEBHOOK_ENDPOINTS {
        app.clock.advance(1);
        post(&app, json!({"url": format!("https://example.com/{n}")})).await.expect(201);
    }
    post(&app, json!({"url": "https://example.com/"})).await.problem(409, "too_many_endpoints");
    let first = app.get(format!("{PATH}?limit=70")).await.expect(200);
    let cursor = first["nextCursor"].as_str().unwrap();
    let second = app.get(format!("{PATH}?limit=70&cursor={cursor}")).await.expect(200);
    let urls: Vec<_> = [&first, &second].into_iter().flat_map(|page| page["data"].as_array().unwrap()).collect();
    assert!(urls.iter().enumerate().all(|(n, endpoint)| endpoint["url"] == format!("https://example.com/{n}")));
    assert_eq!((urls.len(), &second["hasMore"]), (limits::WEBHOOK_ENDPOINTS, &json!(false)));
}

#[tokio::test]
async fn a_used_key_is_refused_before_it_is_seen_that_there_is_no_room() {
    let app = TestApp::new().await;
    let send = |path: &str, key: &str, body: Value| app.post(path).idempotency_key(key).json(body).send();
    let url = |n: usize| json!({"url": format!("https://example.com/{n}")});
    for n in 0..limits::WEBHOOK_ENDPOINTS {
        send(PATH, &format!("k{n}"), url(n)).await.expect(201);
    }
    let channel = json!({"name": "c", "kind": "human"});
    send("/api/v1/channels", "channel", channel.clone()).await.expect(201);
    for used in ["k0", "channel"] {
        send(PATH, used, url(500)).await.problem(422, "idempotency_key_reused");
        let nowhere = json!({"url": "https://example.com/", "channelId": "nowhere"});
        send(PATH, used, nowhere).await.problem(404, "channel_not_found");
    }
    send(PATH, "new", url(500)).await.problem(409, "too_many_endpoints");
    assert_eq!(send(PATH, "k0", url(0)).await.header("idempotent-replayed"), "true");
    send("/api/v1/channels", "new", channel).await.expect(201);
}

#[tokio::test]
async fn as_many_as_come_at_once_there_are_no_more_endpoints_than_there_may_be() {
    let app = TestApp::new().await;
    let url = |n: usize| json!({"url": format!("https://example.com/{n}")});
    for n in 1..limits::WEBHOOK_ENDPOINTS {
        post(&app, url(n)).await.expect(201);
    }
    let answers = join_all((0..20).map(|n| post(&app, url(n)))).await;
    let made = answers.iter().filter(|answer| answer.status == 201).count();
    assert_eq!(made, 1);
    for answer in answers.into_iter().filter(|answer| answer.status != 201) {
        answer.problem(409, "too_many_endpoints");
    }
}
