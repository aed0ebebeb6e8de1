//! Queries with unknown parameters.

use http::Method;
use serde_json::{Value, json};

use crate::openapi::{document, of_thing, operations};
use crate::support::TestApp;

/// Sends a request of each operation of the API with this query.
async fn asked(app: &TestApp, query: &str) -> Vec<(String, u16, Vec<String>)> {
    let document = document(app).await;
    let mut out = Vec::new();
    for (path, method, _) in operations(&document).into_iter().filter(|(path, ..)| path.starts_with("/api/v1")) {
        let id = if path.ends_with("{channelId}/messages") { "demo" } else { "nothing-of-this-name" };
        let path = of_thing(&path, id).replace("{memory}", id);
        let request = app.request(method.to_uppercase().parse().unwrap(), format!("{path}?{query}"));
        let answer = match method.as_str() {
            "post" | "patch" => request.json(json!({"channelId": "demo"})).await,
            _ => request.await,
        };
        let faults = answer.json["errors"].as_array().into_iter().flatten();
        let faults = faults.map(|fault| format!("{} {}", fault["code"], fault["pointer"]).replace('"', ""));
        out.push((format!("{method} {path}"), answer.status, faults.collect()));
    }
    assert!(out.len() > 60, "{}", out.len());
    out
}

#[tokio::test]
async fn a_strict_request_is_refused_for_a_parameter_its_route_ignores() {
    let app = TestApp::new().await;
    for (what, status, faults) in asked(&app, "strict=true&sk%69p=1&a%2Fb").await {
        assert_eq!(status, 400, "{what}");
        for wanted in ["unknown_field /skip", "unknown_field /a~1b"] {
            assert!(faults.contains(&wanted.to_owned()), "{what}: {faults:?}");
        }
        assert!(!faults.iter().any(|fault| fault.ends_with("/strict")), "{what}: {faults:?}");
    }
    for (what, _, faults) in asked(&app, "skip=1").await {
        assert!(!faults.iter().any(|fault| fault.starts_with("unknown_field")), "{what}: {faults:?}");
    }
}

#[tokio::test]
async fn a_parameter_that_comes_twice_is_refused_also_where_no_parameter_is_read() {
    let app = TestApp::new().await;
    for (what, status, faults) in asked(&app, "skip=1&sk%69p=2").await {
        let is_refused = status == 400 && faults.contains(&"invalid_query /skip".to_owned());
        assert!(is_refused, "{what}: {status} {faults:?}");
    }
}

#[tokio::test]
async fn a_filter_that_is_misspelt_is_named_and_with_strict_refused() {
    let app = TestApp::new().await;
    app.post("/api/v1/conversations").json(json!({"ownerId": "ana"})).await.expect(201);
    for (path, name) in [
        ("/api/v1/conversations", "owner"),
        ("/api/v1/webhook-deliveries", "event"),
        ("/api/v1/reviews", "stats"),
        ("/api/v1/contacts", "identifer"),
        ("/api/v1/channels/demo", "limit"),
        ("/api/v1/channels/demo/events", "afer"),
    ] {
        let answer = app.get(format!("{path}?{name}=x")).await;
        assert_eq!((answer.status, answer.header("x-ignored-fields")), (200, format!("?{name}").as_str()), "{path}");
        let known = app.get(path).await;
        assert_eq!((known.status, known.header("x-ignored-fields")), (200, ""), "{path}");
        for strict in ["strict=true", "strict=1", "strict", "strict=True", "strict=yes"] {
            let problem = app.get(format!("{path}?{name}=x&{strict}")).await.problem(400, "unknown_field");
            assert_eq!(problem["errors"][0]["pointer"], format!("/{name}"), "{path}");
            assert!(problem["detail"].as_str().unwrap().contains(name), "{problem}");
        }
        let lax = app.get(format!("{path}?strict=false&{name}=x")).await;
        assert_eq!((lax.status, lax.header("x-ignored-fields")), (200, format!("?{name}").as_str()), "{path}");
    }
}

#[tokio::test]
async fn unknown_parameters_are_faults_beside_the_others_of_the_request() {
    let app = TestApp::new().await;
    for (path, wanted) in [
        ("/api/v1/contacts?strict=true&limit=0&skip=1", vec!["unknown_field /skip", "out_of_range /limit"]),
        ("/api/v1/usage?strict=true&from=x&skip=1", vec!["invalid_datetime /from", "unknown_field /skip"]),
        (
            "/api/v1/messages?strict=true&skip=1",
            vec!["required /channelId", "required /conversationId", "unknown_field /skip"],
        ),
    ] {
        assert_eq!(app.get(path).await.faults(), wanted, "{path}");
    }
    let posted = app.post("/api/v1/messages?strict=true&skip=1").json(json!({"channelId": "demo", "x": 1}));
    assert_eq!(posted.await.faults(), ["unknown_field /skip", "empty_message ", "unknown_field /x"]);
    let reader = app.key_with(&["messages:read"]).await;
    let post = app.post("/api/v1/messages?strict=true&skip=1").key(&reader).json(json!({}));
    post.await.problem(403, "insufficient_scope");
    app.delete("/api/v1/messages/none?strict=true&skip=1").key(&reader).await.problem(403, "insufficient_scope");
}

#[tokio::test]
async fn a_strict_request_that_is_refused_for_its_query_has_no_effect() {
    let app = TestApp::new().await;
    let said = app.post("/api/v1/messages").json(json!({"channelId": "demo", "text": "Hello"})).await.expect(201);
    let path = format!("/api/v1/messages/{}", said["id"].as_str().unwrap());
    app.delete(format!("{path}?strict=true&skip=1")).await.problem(400, "unknown_field");
    assert_eq!(app.get(&path).await.expect(200)["text"], "Hello");
    app.delete(format!("{path}?strict=true")).await.expect(204);
}

#[tokio::test]
async fn ignored_parameters_are_named_apart_from_members_of_the_body() {
    let app = TestApp::new().await;
    let post = async |query: &str, body: &Value| {
        let answer = app.post(format!("/api/v1/messages{query}")).json(body.clone()).await;
        assert_eq!(answer.status, 201, "{query} {}", answer.json);
        answer.header("x-ignored-fields").to_owned()
    };
    let body = json!({"channelId": "demo", "text": "Hello", "skip": 1, "?skip": 2});
    assert_eq!(post("", &body).await, "%3Fskip, skip");
    assert_eq!(post("?skip=1&b=&%C3%A9%2C=1&%3Fskip", &body).await, "?skip, ?b, ?%C3%A9%2C, ?%3Fskip, %3Fskip, skip");
    let many: Vec<_> = (0..70).map(|n| format!("p{n}")).collect();
    let named = post(&format!("?{}", many.join("&")), &body).await;
    assert_eq!(named.split(", ").count(), 65);
    assert!(named.starts_with("?p0, ?p1, ") && named.ends_with(", ?p63, ..."), "{named}");
    let long = post(&format!("?{}", "%2C".repeat(1_400)), &body).await;
    assert_eq!(long, "...");
    let long = post(&format!("?a&{}&b", "x".repeat(4_095)), &body).await;
    assert_eq!(long, "?a, ...");
}

#[tokio::test]
async fn a_head_a_stream_and_an_answer_without_a_body_name_unknown_parameters_too() {
    let app = TestApp::new().await;
    let head = app.request(Method::HEAD, "/api/v1/channels/demo?skip=1").await;
    assert_eq!((head.status, head.header("x-ignored-fields")), (200, "?skip"));
    let head = app.request(Method::HEAD, "/api/v1/channels/demo?skip=1&strict").await;
    assert_eq!(head.status, 400);
    let stream = app.get("/api/v1/channels/demo/events?skip=1&deltas=true").header("accept", "text/event-stream");
    assert_eq!(stream.head().await["x-ignored-fields"], "?skip");
    let channel = json!({"id": "other", "name": "other", "kind": "human"});
    app.post("/api/v1/channels").json(channel).await.expect(201);
    let gone = app.delete("/api/v1/channels/other?skip=1").await;
    assert_eq!((gone.status, gone.header("x-ignored-fields")), (204, "?skip"));
    let public = app.get("/healthz?skip=1&strict=true").no_key().await;
    assert_eq!((public.status, public.header("x-ignored-fields")), (200, ""));
}
