//! Replies that arrive in pieces, and the clients that see the pieces.

use super::*;

async fn conversation(app: &TestApp) -> String {
    let page = app.get("/api/v1/conversations").await.expect(200);
    page["data"][0]["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_chunk_may_end_anywhere_in_a_stream_and_its_usage_is_counted() {
    let body = stream(&[piece("Güte"), piece(" – n"), piece("ä! 👋")]).replace('\n', "\r\n").into_bytes();
    for size in [1, 2, 3, 7, 64, body.len()] {
        let chunks: Vec<Vec<u8>> = body.chunks(size).map(<[u8]>::to_vec).collect();
        let (app, origin) = asking(json!({}), move |_| streamed(chunks.clone())).await;
        let answer = say(&app, "hello", "wait=100").await.expect(200);
        assert_eq!(answer["aiMessages"][0]["content"]["text"]["body"], "Güte – nä! 👋", "{size}");
        let usage = json!({"credits": 0.027, "inputTokens": 21, "outputTokens": 6, "model": "small-2025"});
        assert_eq!(answer["usage"], usage, "{size}");
        let sum = &app.get("/api/v1/usage").await.expect(200)["total"];
        assert_eq!((&sum["inputTokens"], &sum["turns"]), (&json!(21), &json!(1)));
        let request = asked(&origin).remove(0);
        assert_eq!((&request["stream"], &request["stream_options"]["include_usage"]), (&json!(true), &json!(true)));
    }
}

#[tokio::test]
async fn a_conversations_stream_shows_the_pieces_between_the_events_of_its_log() {
    let body = stream(&[piece("Güte"), piece(" – n"), piece("ä!")]).into_bytes();
    let (app, _origin) = asking(json!({}), move |_| streamed([body.clone()])).await;
    say(&app, "first", "wait=100").await.expect(200);
    let path = format!("/api/v1/conversations/{}/events", conversation(&app).await);
    let mut live = app.get(format!("{path}?deltas=true")).follow().await;
    let answer = say(&app, "second", "wait=100").await.expect(200);
    let told = live.up_to("turn.completed").await;
    let kinds: Vec<&str> = told.iter().filter_map(|told| told.event.as_deref()).collect();
    let pieces = ["turn.delta"; 3];
    assert_eq!(kinds[..2], ["message.created", "turn.started"]);
    assert_eq!((&kinds[2..5], &kinds[5..]), (&pieces[..], &["message.created", "turn.completed"][..]));
    for (chunk, (told, text)) in told[2..5].iter().zip(["Güte", " – n", "ä!"]).enumerate() {
        assert_eq!(told.id, None, "a piece has no place in the log");
        let data = json!({"turnId": answer["turn"]["id"], "attempt": 1, "message": 0, "chunk": chunk, "text": text});
        assert_eq!((&told.data["type"], &told.data["data"]), (&json!("turn.delta"), &data));
    }
    assert_eq!(told[5].data["data"]["id"], answer["aiMessages"][0]["id"]);
    let log = app.get(&path).await.expect(200);
    let log: Vec<&str> = log["data"].as_array().unwrap().iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert!(!log.contains(&"turn.delta"), "{log:?}");
}

#[tokio::test]
async fn a_stream_that_stops_halfway_fails_its_turn_without_a_reply() {
    let parts = vec![stream_head(), Part::Bytes(format!("data: {}\n\n", piece("Good")).into()), Part::Silence];
    let (app, origin) = asking(json!({}), in_turn(vec![whole(&completion("Hello")), parts])).await;
    say(&app, "first", "wait=100").await.expect(200);
    let path = format!("/api/v1/conversations/{}", conversation(&app).await);
    let mut live = app.get(format!("{path}/events?deltas=true")).follow().await;
    let sender = Arc::clone(&app);
    let answer = tokio::spawn(async move { say(&sender, "second", "wait=110").await });
    assert_eq!(live.up_to("turn.delta").await.last().unwrap().data["data"]["text"], "Good");
    tokio::time::pause();
    let problem = answer.await.unwrap().problem(500, "agent_failed");
    tokio::time::resume();
    assert_eq!(problem["reason"], "stalled");
    let told = live.next().await;
    assert_eq!((told.event.as_deref(), &told.data["data"]["error"]), (Some("turn.failed"), &json!("stalled")));
    until(|| origin.open_connections() <= 1).await;
    let messages = app.get(format!("{path}/messages")).await.expect(200);
    assert_eq!(messages["data"].as_array().unwrap().len(), 3, "{messages}");
}

#[tokio::test]
async fn a_cancelled_or_interrupted_turn_closes_the_socket_of_its_call() {
    let begun = vec![stream_head(), Part::Bytes(format!("data: {}\n\n", piece("Good")).into()), Part::Silence];
    for parts in [vec![Part::Silence], begun] {
        let (app, origin) = asking(json!({}), in_turn(vec![parts.clone(), parts, whole(&completion("Yes"))])).await;
        app.patch("/api/v1/channels/demo-api").json(json!({"busyPolicy": "interrupt"})).await.expect(200);
        let early = say(&app, "one", "wait=0").await.expect(202);
        until(|| origin.requests().len() == 1).await;
        let path = format!("/api/v1/turns/{}/cancel", early["turn"]["id"].as_str().unwrap());
        app.post(&path).await.expect(200);
        until(|| origin.open_connections() == 0).await;
        app.post(&path).await.problem(409, "turn_over");
        say(&app, "two", "wait=0").await.expect(202);
        until(|| origin.requests().len() == 2).await;
        let answer = say(&app, "three", "wait=100").await.expect(200);
        assert_eq!(answer["aiMessages"][0]["content"]["text"]["body"], "Yes");
        until(|| origin.open_connections() <= 1).await;
        assert_eq!(say(&app, "two", "wait=100").await.expect(200)["turn"]["status"], "cancelled");
    }
}
