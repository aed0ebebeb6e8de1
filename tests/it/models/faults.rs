//! Faults of an endpoint, and the reason for each.

use tokio::net::{TcpSocket, TcpStream};

use super::*;

/// Sends a message whose turn must fail with this reason; the message is kept, and the turn shows the same reason.
async fn fails(app: &TestApp, words: &str, reason: &str) {
    let problem = say(app, words, "wait=100").await.problem(500, "agent_failed");
    assert_eq!(problem["reason"], reason, "{words}: {problem}");
    assert_eq!(problem["success"], false);
    let turn = app.get(format!("/api/v1/turns/{}", problem["turnId"].as_str().unwrap())).await.expect(200);
    assert_eq!((&turn["status"], &turn["error"]["code"]), (&json!("failed"), &json!(reason)));
    let message = app.get(format!("/api/v1/messages/{}", problem["messageId"].as_str().unwrap())).await.expect(200);
    assert_eq!(message["content"], words);
}

/// A stream with this body.
fn body(body: impl Into<Vec<u8>>) -> Vec<Part> {
    streamed([body.into()])
}

/// A complete answer that is larger than any reply may be.
fn giant() -> Vec<Part> {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    vec![Part::Bytes(head.into()), Part::Zeros(10 << 20)]
}

/// Each has its reason.
#[tokio::test]
async fn a_fault_of_an_endpoint_is_retried_only_where_that_helps() {
    let json_type = "Content-Type: application/json\r\n";
    let long = "a".repeat(300 * 1024);
    let cases: Vec<(&str, &str, usize, Vec<Part>)> = vec![
        ("is busy", "rate_limited", 2, refusing(429, "Retry-After: 0\r\n")),
        ("is busy for an hour", "rate_limited", 1, refusing(429, "Retry-After: 3600\r\n")),
        ("fails", "upstream_error", 2, refusing(503, "Retry-After: 0\r\n")),
        ("fails for an hour", "upstream_error", 1, refusing(500, "Retry-After: 3600\r\n")),
        ("hangs up", "connect_failed", 2, vec![Part::Close]),
        ("wants another key", "unauthorized", 1, refusing(401, "")),
        ("forbids", "unauthorized", 1, refusing(403, "")),
        ("does not understand", "bad_request", 1, refusing(400, json_type)),
        ("is not there", "bad_request", 1, refusing(404, "")),
        ("is elsewhere", "unexpected_redirect", 1, refusing(302, "Location: http://127.0.0.1:9/\r\n")),
        ("is a page", "not_json", 1, ok("text/html", b"<html></html>")),
        ("is plain", "not_json", 1, ok("text/plain", completion("Hello").to_string().as_bytes())),
        (
            "says nothing of its type",
            "not_json",
            1,
            vec![Part::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}".to_vec())],
        ),
        ("is no JSON", "not_json", 1, ok("application/json", b"{")),
        ("is another JSON", "invalid_reply", 1, whole(&json!({"ok": true}))),
        ("reports an error", "reported_error", 1, whole(&json!({"error": {"message": "out of memory"}}))),
        ("has no choice", "empty_reply", 1, whole(&json!({"choices": []}))),
        ("says nothing", "empty_reply", 1, whole(&completion(" \n"))),
        ("is giant", "too_large", 1, giant()),
        ("says too much", "too_large", 1, whole(&completion(&long))),
        ("streams too much", "too_large", 1, body(stream(&[piece(&long)]))),
        ("streams a line without end", "too_large", 1, body(format!("data: {}", "x".repeat(3 << 20)))),
        ("streams no JSON", "invalid_reply", 1, body("data: <html>\n\n")),
        (
            "streams half a character",
            "invalid_reply",
            1,
            body(b"data: {\"choices\":[{\"delta\":{\"content\":\"\xc3\"}}]}\n\n"),
        ),
        ("breaks off", "invalid_reply", 1, body(format!("data: {}\n\n", piece("Hel")))),
        ("streams nothing", "invalid_reply", 1, body("")),
        (
            "reports an error late",
            "reported_error",
            1,
            body(format!("data: {}\n\ndata: {}\n\n", piece("Hel"), json!({"error": "oh"}))),
        ),
        (
            "does not speak HTTP",
            "invalid_reply",
            1,
            vec![Part::Bytes(b"SSH-2.0-OpenSSH_9.9\r\n\r\n".to_vec()), Part::Close],
        ),
    ];
    let (app, origin) = asking(json!({}), {
        let answers: Vec<Vec<Part>> = cases.iter().map(|case| case.3.clone()).collect();
        move |heard| {
            let case: usize = heard.path().split('/').nth(1).unwrap().parse().unwrap();
            answers[case].clone()
        }
    })
    .await;
    for (number, (words, reason, times, _)) in cases.iter().enumerate() {
        ask_at(&app, &origin.url(&format!("/{number}")), json!({})).await;
        let before = origin.requests().len();
        fails(&app, words, reason).await;
        assert_eq!(origin.requests().len() - before, *times, "the endpoint that {words}");
    }
}

#[tokio::test]
async fn a_model_endpoints_error_body_reaches_no_client() {
    let secret = b"{\"error\":\"key sk-123 of ana@example.com\"}";
    let (app, origin) = asking(json!({"apiKey": "sk-123"}), move |_| {
        let head =
            format!("HTTP/1.1 400 Bad\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", secret.len());
        vec![Part::Bytes([head.as_bytes(), secret].concat())]
    })
    .await;
    let answer = say(&app, "hello", "wait=100").await;
    let turn = app.get(format!("/api/v1/turns/{}", answer.json["turnId"].as_str().unwrap())).await;
    for bytes in [&answer.bytes, &turn.bytes] {
        let text = String::from_utf8_lossy(bytes);
        assert!(!text.contains("sk-123") && !text.contains(&origin.address.to_string()), "{text}");
    }
}

#[tokio::test]
async fn a_refusal_that_passes_is_no_failure() {
    let busy = refusing(429, "Retry-After: 0\r\n");
    let (app, origin) = asking(json!({}), in_turn(vec![busy, whole(&completion("Good morning"))])).await;
    let answer = say(&app, "hello", "wait=100").await.expect(200);
    assert_eq!(answer["aiMessages"][0]["content"]["text"]["body"], "Good morning");
    assert_eq!(answer["usage"], json!({"credits": 0.014, "inputTokens": 11, "outputTokens": 3, "model": "small-2025"}));
    let requests = asked(&origin);
    assert_eq!((requests.len(), &requests[0]), (2, &requests[1]));
}

#[tokio::test]
async fn a_failed_turn_is_tried_again_by_a_retry_and_has_one_reply() {
    let (app, origin) = asking(json!({}), in_turn(vec![refusing(400, ""), whole(&completion("Now"))])).await;
    fails(&app, "hello", "bad_request").await;
    let answer = say(&app, "hello", "wait=100").await.expect(200);
    assert_eq!(answer["aiMessages"].as_array().unwrap().len(), 1);
    assert_eq!(say(&app, "hello", "wait=100").await.header("idempotent-replayed"), "true");
    assert_eq!(origin.requests().len(), 2, "a replay asks nobody");
    let messages = format!("/api/v1/conversations/{}/messages", answer["conversationId"].as_str().unwrap());
    assert_eq!(app.get(messages).await.expect(200)["data"].as_array().unwrap().len(), 2);
    assert_eq!(app.get("/api/v1/usage").await.expect(200)["total"]["modelCalls"], 1, "a failed call is not charged");
}

#[tokio::test]
async fn a_count_that_no_call_can_have_is_no_count() {
    let mut answer = completion("Good morning");
    answer["usage"] = json!({"prompt_tokens": u64::MAX, "completion_tokens": -3});
    let (app, _origin) = asking(json!({}), move |_| whole(&answer)).await;
    let answer = say(&app, "hello", "wait=100").await.expect(200);
    assert_eq!((&answer["usage"]["inputTokens"], &answer["usage"]["outputTokens"]), (&json!(2), &json!(3)));
    assert_eq!(app.get("/api/v1/usage").await.expect(200)["total"]["inputTokens"], 2);
}

/// Sends a message and lets time pass once the endpoint has received `requests`; returns why the turn failed.
async fn reason_after_a_while(app: &Arc<TestApp>, origin: &Origin, requests: usize) -> Value {
    let sender = Arc::clone(app);
    let answer = tokio::spawn(async move { say(&sender, "hello", "wait=110").await });
    until(|| origin.requests().len() >= requests).await;
    // From here on time advances whenever all tasks wait.
    tokio::time::pause();
    let problem = answer.await.unwrap().problem(500, "agent_failed");
    tokio::time::resume();
    problem["reason"].clone()
}

#[tokio::test]
async fn an_endpoint_that_is_silent_runs_out_of_time_and_its_socket_is_closed() {
    let json_head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{".to_vec();
    for (settings, parts, reason) in [
        (json!({}), vec![Part::Silence], "first_token_timeout"),
        (json!({}), vec![stream_head(), Part::Silence], "first_token_timeout"),
        (json!({"timeoutSeconds": 7}), vec![Part::Silence], "timeout"),
        (json!({"stream": false, "timeoutSeconds": 100}), vec![Part::Silence], "timeout"),
        (json!({"timeoutSeconds": 100}), vec![Part::Bytes(json_head.clone()), Part::Silence], "timeout"),
        (json!({"timeoutSeconds": 50}), vec![Part::Bytes(json_head), Part::Drip], "timeout"),
    ] {
        let (app, origin) = asking(settings.clone(), in_turn(vec![parts])).await;
        let found = reason_after_a_while(&app, &origin, 1).await;
        let found = found.as_str().unwrap().trim_start_matches("agent_");
        assert_eq!(found, reason, "{settings}");
        until(|| origin.open_connections() == 0).await;
        assert_eq!(origin.requests().len(), 1, "what was silent is not asked again");
    }
}

#[tokio::test]
async fn an_address_that_answers_no_connection_is_given_up_after_some_seconds() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    // The listener accepts nothing, so the system completes no further connection once the queue is full.
    let queue: Vec<_> = (0..8).map(|_| tokio::spawn(TcpStream::connect(address))).collect();
    let app = TestApp::with_models().await;
    ask_at(&app, &format!("http://{address}"), json!({})).await;
    let begun = tokio::time::Instant::now();
    tokio::time::pause();
    let problem = say(&app, "hello", "wait=100").await.problem(500, "agent_failed");
    assert_eq!(problem["reason"], "connect_failed");
    assert!(begun.elapsed().as_secs() < 15, "two attempts of five seconds");
    queue.iter().for_each(tokio::task::JoinHandle::abort);
}
