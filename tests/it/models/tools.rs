//! Models that call tools: HTTP requests configured for the agent, with bounds that keep a model from running away.

use super::*;

/// A tool at this URL.
fn tool(url: &str) -> Value {
    json!({"name": "find", "description": "Finds.", "url": url, "headers": {"x-key": "s3cret"},
        "parameters": {"type": "object", "required": ["q"], "properties": {"q": {"type": "string"}}}})
}

/// Model and tool behind one endpoint: the model makes one call and then reports its result.
async fn with_tool(arguments: Value, answer: impl Fn() -> Vec<Part> + Send + Sync + 'static) -> (Arc<TestApp>, Origin) {
    let (app, origin) = asking(json!({}), move |heard| {
        if heard.path().starts_with("/tool") {
            return answer();
        }
        let body: Value = serde_json::from_slice(&heard.body).unwrap();
        let last = body["messages"].as_array().unwrap().last().unwrap().clone();
        if last["role"] == "tool" {
            whole(&completion(&format!("It said {}", last["content"].as_str().unwrap())))
        } else {
            whole(&calling("find", &arguments))
        }
    })
    .await;
    let tools = json!([tool(&origin.url("/tool"))]);
    app.echo(json!({"tools": tools})).await;
    (app, origin)
}

fn said(answer: &Value) -> &str {
    answer["aiMessages"][0]["content"]["text"]["body"].as_str().unwrap()
}

#[tokio::test]
async fn a_model_calls_a_tool_and_goes_on_with_its_result_and_both_are_paid_for() {
    let (app, origin) = with_tool(json!({"q": "cats"}), || ok("application/json", b"{\"found\":2}")).await;
    let answer = say(&app, "hello", "wait=100").await.expect(200);
    assert_eq!(said(&answer), "It said {\"found\":2}");
    assert_eq!((&answer["usage"]["inputTokens"], &answer["usage"]["outputTokens"]), (&json!(16), &json!(5)));
    let sum = &app.get("/api/v1/usage").await.expect(200)["total"];
    assert_eq!((&sum["turns"], &sum["modelCalls"], &sum["inputTokens"]), (&json!(1), &json!(2), &json!(16)));
    let requests = origin.requests();
    let called = requests.iter().find(|heard| heard.path() == "/tool").unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&called.body).unwrap(), json!({"q": "cats"}));
    assert!(called.head.contains("x-key: s3cret\r\n") && called.head.contains(".call_1_1_1_0\r\n"));
    let second: Value = serde_json::from_slice(&requests.last().unwrap().body).unwrap();
    assert!(!second.to_string().contains("s3cret"), "a header is no model's business");
    let roles: Vec<&str> = second["messages"].as_array().unwrap().iter().map(|m| m["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["user", "assistant", "tool"]);
    assert_eq!(second["messages"][1]["tool_calls"][0]["id"], second["messages"][2]["tool_call_id"]);
    let shown = app.get("/api/v1/agents/echo").await.expect(200);
    assert_eq!(shown["tools"][0]["headers"], json!({"x-key": "***"}));
}

#[tokio::test]
async fn a_tool_is_called_with_the_type_of_content_that_its_own_headers_name() {
    let (app, origin) = with_tool(json!({"q": "cats"}), || ok("application/json", b"{}")).await;
    let called = async |words: &str, headers: Value| {
        let mut tool = tool(&origin.url("/tool"));
        tool["headers"] = headers;
        app.echo(json!({"tools": [tool]})).await;
        say(&app, words, "wait=100").await.expect(200);
        let requests = origin.requests();
        let called = requests.iter().rfind(|heard| heard.path() == "/tool").unwrap();
        let types = called.head.lines().filter_map(|line| line.strip_prefix("content-type: "));
        types.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(called("hello", json!({})).await, ["application/json"]);
    let own = json!({"Content-Type": "application/vnd.example+json"});
    assert_eq!(called("hello again", own).await, ["application/vnd.example+json"]);
}

#[tokio::test]
async fn arguments_that_make_a_long_url_reach_the_tool_whole() {
    let q = "x".repeat(3_000);
    let (app, origin) = with_tool(json!({"q": q}), || ok("application/json", b"{}")).await;
    for method in ["GET", "DELETE"] {
        let mut tool = tool(&origin.url("/tool"));
        tool["method"] = json!(method);
        app.echo(json!({"tools": [tool]})).await;
        let answer = say(&app, method, "wait=100").await.expect(200);
        assert_eq!(said(&answer), "It said {}");
        let heard = origin.requests().into_iter().rfind(|heard| heard.path().starts_with("/tool")).unwrap();
        assert_eq!(heard.line, format!("{method} /tool?q={q} HTTP/1.1"));
    }
}

#[tokio::test]
async fn a_turn_goes_on_after_every_fault_of_a_tool() {
    let giant = || {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n";
        vec![Part::Bytes(head.into()), Part::Zeros(10 << 20)]
    };
    type Tool = (&'static str, Value, fn() -> Vec<Part>);
    let cases: [Tool; 6] = [
        ("unexpected_status", json!({"q": "x"}), || bare(500, "")),
        ("unexpected_status", json!({"q": "x"}), || bare(302, "Location: http://127.0.0.1:9/\r\n")),
        ("broken_answer", json!({"q": "x"}), || vec![Part::Close]),
        ("invalid_arguments", json!({"q": 7}), || ok("text/plain", b"never")),
        ("invalid_arguments", json!([1]), || ok("text/plain", b"never")),
        ("{}", json!({"q": "x"}), || bare(204, "")),
    ];
    for (expected, arguments, answer) in cases {
        let (app, _origin) = with_tool(arguments.clone(), answer).await;
        let answer = say(&app, "hello", "wait=100").await.expect(200);
        assert!(said(&answer).contains(expected), "{expected} {arguments}: {answer}");
    }
    let long = || ok("text/plain", "a".repeat(40 * 1024).as_bytes());
    let (app, _origin) = with_tool(json!({"q": "x"}), long).await;
    let answer = say(&app, "hello", "wait=100").await.expect(200);
    assert_eq!(
        said(&answer),
        format!("It said {}…", "a".repeat(actors::limits::RESULT_BYTES)),
        "what is longer is cut"
    );
    let (app, _origin) = with_tool(json!({"q": "x"}), giant).await;
    let answer = say(&app, "hello", "wait=100").await.expect(200);
    assert!(said(&answer).contains("too_large"), "{answer}");
}

#[tokio::test]
async fn a_silent_tool_times_out_and_the_model_reads_so() {
    let (app, origin) = with_tool(json!({"q": "x"}), || vec![Part::Silence]).await;
    let sender = Arc::clone(&app);
    let answer = tokio::spawn(async move { say(&sender, "hello", "wait=110").await });
    until(|| origin.requests().len() == 2).await;
    tokio::time::pause();
    let answer = answer.await.unwrap().expect(200);
    tokio::time::resume();
    assert!(said(&answer).contains("timeout"), "{answer}");
}

#[tokio::test]
async fn a_model_that_calls_without_end_is_stopped_and_its_history_is_whole() {
    let (app, origin) = asking(json!({}), |_| whole(&calling("nothing", &json!({})))).await;
    let problem = say(&app, "hello", "wait=100").await.problem(500, "agent_failed");
    assert_eq!(problem["reason"], "too_many_tool_rounds");
    assert_eq!(origin.requests().len(), 17);
    let page = app.get("/api/v1/conversations").await.expect(200);
    let path = format!("/api/v1/conversations/{}/messages?limit=200", page["data"][0]["id"].as_str().unwrap());
    let messages = app.get(path).await.expect(200);
    let of = |role: &str| messages["data"].as_array().unwrap().iter().filter(|m| m["role"] == role).count();
    assert_eq!((of("assistant"), of("tool")), (16, 16), "each call has its result");
}

#[tokio::test]
async fn a_tool_on_a_blocked_address_is_neither_declared_nor_called() {
    let app = TestApp::new().await;
    for url in ["http://127.0.0.1:1/", "http://[::1]/", "http://169.254.169.254/latest/meta-data", "http://2130706433/"]
    {
        let answer = app.patch("/api/v1/agents/echo").json(json!({"tools": [tool(url)]})).await;
        assert_eq!(answer.faults(), ["blocked_url /tools/0/url"], "{url}");
    }
    // Declared where the address was allowed, and called where it no longer is.
    let app = TestApp::with_models().await;
    let origin = Origin::canary("127.0.0.1".parse().unwrap()).await;
    let script = json!([{"match": "go", "reply": [], "toolCall": {"name": "find", "arguments": {"q": "x"}}}]);
    let tools = json!([tool(&origin.url("/x"))]);
    let body = json!({"tools": tools, "builtin": {"behaviour": "scripted", "script": script}});
    app.echo(body).await;
    let stricter = TestApp::start(app.store.clone(), &[]).await;
    let answer = say(&stricter, "go", "wait=100").await.expect(200);
    assert!(said(&answer).contains("blocked_url"), "{answer}");
    assert_eq!(origin.connections(), 0);
}

/// The ids of `tool_calls` of assistant lines or messages, and the ids that results answer.
fn ids(lines: &[Value]) -> Vec<String> {
    let id = |id: &Value| id.as_str().unwrap().to_owned();
    let of = |line: &Value| match line["tool_calls"].as_array() {
        Some(calls) => calls.iter().map(|call| id(&call["id"])).collect(),
        None if line["role"] == "tool" => {
            let answers = line.get("tool_call_id").unwrap_or(&line["meta_data"]["tool_call_id"]);
            vec![format!("={}", id(answers))]
        }
        None => Vec::new(),
    };
    lines.iter().flat_map(of).collect()
}

#[tokio::test]
async fn a_models_own_id_of_a_call_is_what_it_reads_again_and_what_clients_see() {
    let call = |id: Value| json!({"id": id, "type": "function", "function": {"name": "nothing", "arguments": "{}"}});
    let answer = |ids: &[Value]| {
        let calls: Vec<Value> = ids.iter().cloned().map(call).collect();
        whole(&json!({"choices": [{"message": {"content": null, "tool_calls": calls}, "finish_reason": "tool_calls"}]}))
    };
    let answers = in_turn(vec![
        answer(&[json!("call_a"), json!("a \"quote\"".replace(' ', "-"))]),
        // The same id again, and invalid ids: one twice in an answer, none, one with a blank.
        answer(&[json!("call_a"), json!("b"), json!("b"), Value::Null, json!("c d")]),
        whole(&completion("done")),
    ]);
    let (app, origin) = asking(json!({}), answers).await;
    let answer = say(&app, "hello", "wait=100").await.expect(200);
    assert_eq!(said(&answer), "done");
    let first = ["call_a", "a-\"quote\"", "=call_a", "=a-\"quote\""];
    let mut second = vec!["call_a".to_owned()];
    second.extend((1..5).map(|place| format!("call_1_1_2_{place}")));
    let results = second.iter().map(|id| format!("={id}")).collect::<Vec<_>>();
    let expected = [first.map(str::to_owned).to_vec(), second, results].concat();
    let asked = asked(&origin);
    assert_eq!(ids(asked[1]["messages"].as_array().unwrap()), first);
    assert_eq!(ids(asked[2]["messages"].as_array().unwrap()), expected);
    let path = format!("/api/v1/conversations/{}/messages", answer["conversationId"].as_str().unwrap());
    assert_eq!(ids(app.get(path).await.expect(200)["data"].as_array().unwrap()), expected);
}

#[tokio::test]
async fn text_beside_calls_is_in_the_conversation_and_not_in_the_reply() {
    let mut speaking = calling("nothing", &json!({}));
    speaking["choices"][0]["message"]["content"] = json!("One moment.");
    let (app, origin) = asking(json!({}), in_turn(vec![whole(&speaking), whole(&completion("done"))])).await;
    let answer = say(&app, "hello", "wait=100").await.expect(200);
    assert_eq!((said(&answer), answer["aiMessages"].as_array().unwrap().len()), ("done", 1));
    let turn = app.get(format!("/api/v1/turns/{}", answer["turn"]["id"].as_str().unwrap())).await.expect(200);
    assert_eq!(turn["aiMessages"], answer["aiMessages"]);
    let path = format!("/api/v1/conversations/{}/messages", answer["conversationId"].as_str().unwrap());
    let messages = app.get(path).await.expect(200)["data"].clone();
    assert_eq!(
        (&messages[1]["content"], &messages[1]["tool_calls"][0]["id"]),
        (&json!("One moment."), &json!("call_1"))
    );
    assert_eq!(asked(&origin)[1]["messages"][1]["content"], "One moment.", "the model reads it again");
}

#[tokio::test]
async fn text_beside_calls_is_the_reply_of_a_model_that_adds_nothing() {
    for nothing in [Value::Null, json!(" \n")] {
        let speaking = |text: &str| {
            let mut answer = calling("nothing", &json!({}));
            answer["choices"][0]["message"]["content"] = json!(text);
            whole(&answer)
        };
        let mut empty = completion("");
        empty["choices"][0]["message"]["content"] = nothing;
        let answers = vec![speaking("One moment."), speaking("It is noted."), speaking(""), whole(&empty)];
        let (app, _origin) = asking(json!({}), in_turn(answers)).await;
        let answer = say(&app, "hello", "wait=100").await.expect(200);
        assert_eq!((said(&answer), answer["aiMessages"].as_array().unwrap().len()), ("It is noted.", 1));
        let turn = app.get(format!("/api/v1/turns/{}", answer["turn"]["id"].as_str().unwrap())).await.expect(200);
        assert_eq!((&turn["status"], &turn["aiMessages"]), (&json!("completed"), &answer["aiMessages"]));
        let path = format!("/api/v1/conversations/{}/messages", answer["conversationId"].as_str().unwrap());
        let messages = app.get(path).await.expect(200)["data"].clone();
        let contents: Vec<_> = messages.as_array().unwrap().iter().filter(|m| m["role"] == "assistant").collect();
        assert_eq!(contents.len(), 3, "nothing is said twice: {messages}");
        assert_eq!(contents[1]["id"], answer["aiMessages"][0]["id"]);
    }
}

#[tokio::test]
async fn a_model_that_calls_in_silence_and_adds_nothing_fails_its_turn() {
    let answers = in_turn(vec![whole(&calling("nothing", &json!({}))), whole(&completion(""))]);
    let (app, _origin) = asking(json!({}), answers).await;
    say(&app, "hello", "wait=100").await.problem(500, "agent_failed");
}

#[tokio::test]
async fn a_model_that_gives_an_id_twice_still_asks_people_twice() {
    let review = json!({"channelId": "demo", "text": "Ship it?", "type": "approval"});
    let answers = in_turn(vec![
        whole(&calling("request_review", &review)),
        whole(&calling("request_review", &review)),
        whole(&completion("done")),
    ]);
    let (app, origin) = asking(json!({}), answers).await;
    let turn = say(&app, "hello", "respond-async").await.expect(202)["turn"]["id"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/turns/{turn}");
    let mut reviews: Vec<Value> = Vec::new();
    for option in ["approve", "reject"] {
        let waits = async {
            loop {
                let turn = app.get(&path).await.expect(200);
                let wait = turn["waitsFor"][0].clone();
                if !wait.is_null() && !reviews.contains(&wait["reviewId"]) {
                    break wait;
                }
                tokio::task::yield_now().await;
            }
        };
        let wait = tokio::time::timeout(std::time::Duration::from_secs(30), waits).await.expect("the turn waits");
        assert_eq!(wait["callId"], "call_1");
        let id = wait["reviewId"].as_str().unwrap();
        let response = json!({"response": {"selectedOption": option}});
        app.post(format!("/api/v1/reviews/{id}/respond")).json(response).await.expect(200);
        reviews.push(wait["reviewId"].clone());
    }
    let answer = say(&app, "hello", "wait=100").await.expect(200);
    assert_eq!(said(&answer), "done");
    let last = asked(&origin).pop().unwrap();
    assert_eq!(ids(last["messages"].as_array().unwrap()), ["call_1", "=call_1", "call_1", "=call_1"]);
    let results: Vec<&str> =
        last["messages"].as_array().unwrap().iter().filter_map(|line| line["content"].as_str()).collect();
    assert!(results[1].contains("approve") && results[2].contains("reject"), "each has its own answer: {results:?}");
}
