//! Bodies and headers from hostile or careless clients, for each message API.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::support::TestApp;

const PATHS: [&str; 3] = ["/api/v1/messages", "/api/v1/channels/demo-api/messages", "/api/v1/channels/demo/messages"];

#[tokio::test]
async fn a_body_that_is_not_one_json_object_is_malformed() {
    let app = TestApp::new().await;
    let deep = "[".repeat(100_000);
    let nested = format!("{{\"channelId\":\"demo\",\"metadata\":{}{}}}", "{\"a\":".repeat(5_000), "1");
    let bodies: [&[u8]; 22] = [
        b"",
        b" ",
        b"{",
        b"}",
        b"nul",
        b"{\"a\":1,}",
        b"{'a':1}",
        b"{\"a\":01}",
        b"{\"a\":NaN}",
        b"{\"a\":1}{}",
        b"{\"a\":1} x",
        b"\xef\xbb\xbf{",
        b"{\"a\":\"\xff\"}",
        b"{\"a\":\"\\ud800\"}",
        b"{\"a\":\"\n\"}",
        b"{\"a\" 1}",
        b"{\"a\":+1}",
        b"{\"a\":.5}",
        b"{\"a\":\"\\x\"}",
        b"{a:1}",
        deep.as_bytes(),
        nested.as_bytes(),
    ];
    for path in PATHS {
        for body in bodies {
            let answer = app.post(path).body("application/json", body.to_vec()).await;
            let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
            assert_eq!(answer.status, 400, "{path} {shown}");
            assert_eq!(answer.json["code"], "malformed_json", "{path} {shown} {}", answer.json);
            let detail = answer.json["detail"].as_str().unwrap();
            assert!(detail.contains("line") && detail.contains("column"), "{detail}");
        }
    }
}

#[tokio::test]
async fn json_of_another_kind_is_a_fault_of_the_whole_body() {
    let app = TestApp::new().await;
    for path in PATHS {
        for body in ["[]", "null", "5", "\"x\"", "[{\"channelId\":\"demo\",\"text\":\"x\"}]"] {
            let answer = app.post(path).body("application/json", body).await;
            assert_eq!(answer.status, 400, "{path} {body}");
        }
    }
}

#[tokio::test]
async fn a_body_that_is_no_object_or_too_deep_hides_no_fault_beside_it() {
    let app = TestApp::new().await;
    let deep = format!("{{\"metadata\":{}{}}}", "[".repeat(200), "]".repeat(200));
    let others = ["/api/v1/channels", "/api/v1/conversations"];
    for path in PATHS.into_iter().chain(others) {
        let send = |body: &str| {
            let request = app.post(format!("{path}?limit=1&limit=2")).idempotency_key("a b");
            request.body("application/json", body.to_owned()).send()
        };
        for (body, of_body) in [("[]", "invalid_type "), (&deep, "too_deep /metadata")] {
            let mut faults = send(body).await.faults();
            faults.sort();
            let wanted = ["invalid_idempotency_key /Idempotency-Key", "invalid_query /limit", of_body];
            assert_eq!(faults, wanted, "{path} {of_body}");
        }
        send("{").await.problem(400, "malformed_json");
    }
    // A route without idempotency keys.
    let patched = app.patch("/api/v1/channels/demo?limit=1&limit=2").body("application/json", "[]").await;
    assert_eq!(patched.faults(), ["invalid_query /limit", "invalid_type "]);
}

#[tokio::test]
async fn a_member_that_stands_twice_is_refused_by_its_name() {
    let app = TestApp::new().await;
    for (path, body, fault) in [
        (PATHS[0], r#"{"channelId":"demo","text":"a","text":"b"}"#, "duplicate_field /text"),
        (PATHS[0], r#"{"channelId":"demo","review":{"type":"a","type":"b"}}"#, "duplicate_field /review/type"),
        (PATHS[0], r#"{"content":{"content":"a","role":"user","role":"tool"}}"#, "duplicate_field /content/role"),
        (
            PATHS[0],
            r#"{"content":{"content":"a","attachments":[{"id":null,"id":"att_1"}]}}"#,
            "duplicate_field /content/attachments/0/id",
        ),
        (
            PATHS[1],
            r#"{"type":"TEXT","contactIdentifier":"a","contactIdentifier":"b","content":{"text":{"body":"x"}}}"#,
            "duplicate_field /contactIdentifier",
        ),
    ] {
        assert_eq!(app.post(path).body("application/json", body).await.faults(), [fault], "{body}");
    }
}

#[tokio::test]
async fn only_json_in_utf8_is_read() {
    let app = TestApp::new().await;
    let body = r#"{"channelId":"demo","text":"x"}"#;
    for (content_type, status) in [
        ("application/json", 201),
        ("application/json; charset=utf-8", 201),
        ("Application/JSON;charset=\"UTF-8\"", 201),
        ("application/vnd.tertulia+json", 201),
        ("application/json; charset=latin1", 415),
        ("text/json", 415),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("application/jsonp", 415),
        ("", 415),
    ] {
        assert_eq!(app.post(PATHS[0]).body(content_type, body).await.status, status, "{content_type}");
    }
    let packed = app.post(PATHS[0]).header("content-encoding", "gzip").body("application/json", body).await;
    packed.problem(415, "unsupported_media_type");
    let of_two = |second| app.post(PATHS[0]).body("application/json", body).one_more_header("content-type", second);
    of_two("text/plain").await.problem(415, "unsupported_media_type");
    of_two("application/json").await.expect(201);
}

/// `curl -d ''` sends this.
#[tokio::test]
async fn an_empty_body_may_have_any_type_where_none_is_needed() {
    let app = TestApp::new().await;
    let asked = json!({"channelId": "demo", "text": "x", "review": {"type": "approval", "payload": {}}});
    let review = app.post(PATHS[0]).json(asked).await.expect(201)["id"].as_str().unwrap().to_owned();
    let form = "application/x-www-form-urlencoded";
    let cancel = |body: &'static str| app.post(format!("/api/v1/reviews/{review}/cancel")).body(form, body).send();
    cancel("a=b").await.problem(415, "unsupported_media_type");
    assert_eq!(cancel("").await.expect(200)["status"], "cancelled");
    app.post(PATHS[0]).body(form, "").await.problem(415, "unsupported_media_type");
}

#[tokio::test]
async fn the_largest_body_is_read_and_one_byte_more_is_not() {
    let app = TestApp::new().await;
    let fill = |length: usize| {
        let head = r#"{"channelId":"demo","text":"x","pad":""#;
        format!("{head}{}\"}}", "p".repeat(length - head.len() - 2))
    };
    let limit = 4 << 20;
    let answer = app.post(PATHS[0]).body("application/json", fill(limit)).await;
    assert_eq!((answer.status, answer.header("x-ignored-fields")), (201, "pad"));
    app.post(PATHS[0]).body("application/json", fill(limit + 1)).await.problem(413, "body_too_large");
}

#[tokio::test]
async fn every_answer_carries_the_requests_name_and_a_place_in_its_trace() {
    let app = TestApp::new().await;
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let send = |body: serde_json::Value| {
        app.post(PATHS[0]).header("x-request-id", "my-id.1").header("traceparent", parent).json(body)
    };
    for answer in [send(json!({"channelId": "demo", "text": "x"})).await, send(json!({})).await] {
        assert_eq!(answer.header("x-request-id"), "my-id.1");
        assert!(answer.header("traceparent").starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"));
        assert!(!answer.header("ratelimit").is_empty() && !answer.header("ratelimit-policy").is_empty());
        if answer.status == 400 {
            assert_eq!(answer.json["requestId"], "my-id.1");
        }
    }
    for wild in ["a b", "é", &"x".repeat(200), "<script>"] {
        let request = app.get("/api/v1/contacts");
        let answer = request.header("x-request-id", wild).await;
        assert!(answer.header("x-request-id").starts_with("req_"), "{wild}");
    }
}

#[tokio::test]
async fn a_request_without_a_host_is_refused_in_the_form_of_its_path() {
    let app = TestApp::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    app.listen(listener);
    for path in PATHS {
        for hosts in ["", "Host: a\r\nHost: b\r\n", "Host: a/b\r\n"] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let request = format!("POST {path}?x=1 HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
            let problem: Value = serde_json::from_str(body).unwrap();
            assert_eq!((&problem["code"], &problem["instance"]), (&json!("invalid_request"), &json!(path)));
            assert_eq!(problem.get("success"), path.contains("channels").then_some(&json!(false)), "{problem}");
        }
    }
}

#[tokio::test]
async fn a_problem_has_every_member_and_only_faults_of_the_data_have_errors() {
    let app = TestApp::new().await;
    let problem = app.post(PATHS[0]).json(json!({"channelId": "demo"})).await.problem(400, "empty_message");
    for name in ["type", "title", "status", "detail", "instance", "code", "requestId", "errors"] {
        assert!(problem.get(name).is_some(), "{name}: {problem}");
    }
    assert_eq!((&problem["status"], &problem["instance"]), (&json!(400), &json!(PATHS[0])));
    assert!(problem.get("success").is_none());
    let missing = app.post(PATHS[0]).json(json!({"channelId": "none", "text": "x"})).await;
    assert!(missing.problem(404, "channel_not_found").get("errors").is_none());
}

#[tokio::test]
async fn ids_of_any_form_in_a_path_are_unknown_and_nothing_worse() {
    let app = TestApp::new().await;
    let long = "x".repeat(5_000);
    for id in [
        "..",
        "%2e%2e",
        "%00",
        "a%2Fb",
        "conv_",
        "%F0%9F%92%A9",
        "-",
        "*",
        &long,
        "msg_zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz",
    ] {
        for path in ["messages", "conversations", "contacts", "turns", "channels", "agents"] {
            let answer = app.get(format!("/api/v1/{path}/{id}")).await;
            assert_eq!(answer.status, 404, "{path} {id:.40} {}", answer.json);
        }
        let body = json!({"content": {"text": {"body": "x"}}, "type": "TEXT", "contactIdentifier": "a"});
        let answer = app.post(format!("/api/v1/channels/{id}/messages")).json(body).await;
        assert_eq!(answer.status, 404, "{id:.40}");
    }
    for id in ["%ff", "%C3"] {
        assert_eq!(app.get(format!("/api/v1/messages/{id}")).await.status, 404, "{id}");
    }
}

#[tokio::test]
async fn the_header_of_ignored_fields_stays_short_enough_for_clients() {
    let app = TestApp::new().await;
    let header = async |unknown: Vec<String>| {
        let mut body = json!({"title": "t"});
        body.as_object_mut().unwrap().extend(unknown.into_iter().map(|name| (name, json!(1))));
        let answer = app.post("/api/v1/conversations").json(body).await;
        assert_eq!(answer.status, 201);
        answer.header("x-ignored-fields").to_owned()
    };
    assert_eq!(header(vec!["k".repeat(70_000)]).await, "...");
    let long = header(vec!["a".to_owned(), "é".repeat(1_000), "z".repeat(9_000)]).await;
    assert!(long.len() < 4_200 && long.ends_with("...") && !long.contains("zz"), "{long}");
    let many = header((0..64).map(|n| format!("u{n:02}")).collect()).await;
    assert_eq!((many.split(", ").count(), many.contains("...")), (64, false));
    let more = header((0..100).map(|n| format!("u{n:02}")).collect()).await;
    assert_eq!((more.split(", ").count(), more.ends_with("u63, ...")), (65, true));
}

#[tokio::test]
async fn an_objects_length_does_not_depend_on_its_escapes() {
    let app = TestApp::new().await;
    let post = |metadata: String| {
        let body = format!(r#"{{"channelId": "demo", "text": "x", "metadata": {metadata}}}"#);
        app.post("/api/v1/messages").body("application/json", body).send()
    };
    let escaped = |chars: usize| format!(r#"{{"k": "{}"}}"#, "\\u00e9".repeat(chars));
    // {"k":""} takes eight bytes, and each é two of the 16,384.
    let most = post(escaped(8_188)).await;
    assert_eq!(most.status, 201, "{}", most.json);
    post(escaped(8_189)).await.problem(400, "too_large");
    assert_eq!(post(escaped(8_188).replace("\\u00e9", "é")).await.status, 201);
    post(escaped(8_189).replace("\\u00e9", "é")).await.problem(400, "too_large");
}
