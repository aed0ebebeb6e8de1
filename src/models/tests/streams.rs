//! Answers that come in pieces, and everything that can be wrong with them.

use actors::conversation::AttemptId;
use actors::deltas::Listener;
use actors::id::{EntityKey, TurnId};
use actors::tool::Called;

use super::stub::Seen;
use super::*;

const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\nconnection: close\r\n\r\n";

/// A stream of these events.
fn stream(events: &[Value]) -> String {
    let events: String = events.iter().map(|event| format!("data: {event}\n\n")).collect();
    format!("{events}data: [DONE]\n\n")
}

fn piece(delta: Value) -> Value {
    json!({"model": "small-2025", "choices": [{"index": 0, "delta": delta, "finish_reason": null}], "usage": null})
}

fn words(text: &str) -> Value {
    piece(json!({"content": text}))
}

fn end(reason: &str) -> Value {
    json!({"model": "small-2025", "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
}

fn bill() -> Value {
    json!({"model": "small-2025", "choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 3}})
}

fn good_events() -> Vec<Value> {
    vec![
        piece(json!({"role": "assistant", "content": ""})),
        words("Güte"),
        words(" – n"),
        words("ä!"),
        end("stop"),
        bill(),
    ]
}

/// Asks an endpoint that answers with these pieces of bytes after the head, one after the other.
async fn asked(pieces: Vec<Vec<u8>>) -> Result<ModelOutput, Fault> {
    let mut all = vec![HEAD.as_bytes().to_vec()];
    all.extend(pieces);
    let stub = Stub::start(vec![Act::Pieces(all)]).await;
    let outcome = client().ask(&prompt(stub.base_url()), AMPLE).await;
    assert_eq!(stub.requests().len(), 1, "what has begun is not tried again");
    outcome
}

async fn code(body: impl Into<Vec<u8>>) -> &'static str {
    asked(vec![body.into()]).await.map(|said| said.replies).unwrap_err().code()
}

fn usage() -> Usage {
    Usage { input_tokens: 11, output_tokens: 3, millicredits: 14, model: "small-2025".to_owned() }
}

#[tokio::test]
async fn a_streamed_reply_is_the_sum_of_its_pieces_with_its_usage() {
    let said = asked(vec![stream(&good_events()).into()]).await.unwrap();
    assert_eq!((said.replies, said.usage), (vec!["Güte – nä!".to_owned()], usage()));
}

#[tokio::test]
async fn deltas_are_sent_as_they_arrive() {
    let stub = Stub::start(vec![Act::Pieces(vec![HEAD.into(), stream(&good_events()).into()])]).await;
    let heard = Heard::default();
    let prompt = Prompt { deltas: heard.saying(), ..prompt(stub.base_url()) };
    let mut listener = heard.listen();
    client().ask(&prompt, AMPLE).await.unwrap();
    assert!(prompt.exchange.first_chunk().is_some() && prompt.exchange.finish_reason() == Some("stop"));
    let texts: Vec<String> = std::iter::from_fn(|| listener.try_recv()).map(|delta| delta.text.clone()).collect();
    assert_eq!(texts, ["Güte", " – n", "ä!"]);
}

#[tokio::test]
async fn a_piece_that_ends_within_a_character_costs_only_that_one() {
    let half = |escaped: &str| words("HALF").to_string().replace("HALF", escaped);
    let stream = |pieces: &[&str]| {
        let pieces = pieces.iter().map(|piece| format!("data: {}\n\n", half(piece))).collect::<String>();
        format!("{pieces}data: {}\n\ndata: [DONE]\n\n", end("stop")).into_bytes()
    };
    let said = asked(vec![stream(&[r"a\ud83d", r"\ude00b", r"\ud83d\ude00"])]).await.unwrap();
    assert_eq!(said.replies, ["a\u{fffd}\u{fffd}b\u{1f600}"]);
}

/// Somebody who listens.
#[derive(Default)]
struct Heard(Arc<actors::deltas::Deltas>);

impl Heard {
    fn entity() -> EntityKey {
        EntityKey::INSTALLATION
    }

    fn saying(&self) -> DeltaSink {
        let turn = TurnId::new(Millis(0), Self::entity().id, 1);
        DeltaSink::new(&self.0, Self::entity(), AttemptId { turn, attempt: 1 }, 0)
    }

    fn listen(&self) -> Listener {
        self.0.listen(Self::entity())
    }
}

#[tokio::test]
async fn a_chunk_may_end_anywhere() {
    let body = stream(&good_events()).replace('\n', "\r\n").into_bytes();
    let by_byte = body.iter().map(|byte| vec![*byte]).collect();
    for pieces in [by_byte, body.chunks(7).map(<[u8]>::to_vec).collect()] {
        assert_eq!(asked(pieces).await.unwrap().replies, ["Güte – nä!"]);
    }
}

#[tokio::test]
async fn lines_may_end_with_returns_alone_behind_a_byte_order_mark() {
    let body = format!("\u{feff}{}", stream(&good_events()).replace('\n', "\r"));
    assert_eq!(asked(vec![body.into()]).await.unwrap().replies, ["Güte – nä!"]);
    let later = stream(&good_events()).replacen("\n\n", "\n\n\u{feff}", 2);
    assert_ne!(
        asked(vec![later.into()]).await.unwrap().replies,
        ["Güte – nä!"],
        "a mark elsewhere is a part of a name"
    );
}

#[tokio::test]
async fn null_members_are_the_same_as_missing_ones() {
    let null = json!({"choices": null, "usage": null, "model": null});
    let unnumbered = json!({"choices": [{"index": null, "delta": {"content": "b"}, "finish_reason": null}]});
    let said = asked(vec![stream(&[words("a"), null, unnumbered, end("stop")]).into()]).await.unwrap();
    assert_eq!(said.replies, ["ab"]);
}

#[tokio::test]
async fn a_stream_with_a_finish_reason_and_no_end_is_a_reply() {
    let open = format!("{HEAD}{}", stream(&good_events()).replace("data: [DONE]\n\n", ""));
    let mut stub = Stub::start(vec![Act::Hold(open)]).await;
    let heard = Heard::default();
    let mut listener = heard.listen();
    let prompt = Prompt { deltas: heard.saying(), ..prompt(stub.base_url()) };
    let asked = tokio::spawn(async move { client().ask(&prompt, AMPLE).await });
    assert_eq!(stub.seen.recv().await, Some(Seen::Request));
    listener.recv().await;
    // From here on time passes whenever nobody has anything to do.
    tokio::time::pause();
    let said = asked.await.unwrap().unwrap();
    assert_eq!((said.replies, said.usage), (vec!["Güte – nä!".to_owned()], usage()));
}

#[tokio::test]
async fn an_event_stream_is_read_as_the_standard_says() {
    let body = format!(
        ": hello\n\nevent: message\nid: 7\nretry: 5\ndata:{}\n\ndata: {{\"choices\":\ndata: [{{\"delta\":{{\"content\":\"b\"}},\
         \"finish_reason\":\"stop\"}}]}}\n\n: bye\n\ndata:[DONE]\n\n",
        words("a")
    );
    assert_eq!(asked(vec![body.into()]).await.unwrap().replies, ["ab"]);
}

#[tokio::test]
async fn ending_twice_or_never_is_harmless() {
    let twice = format!("{}data: [DONE]\n\ndata: [DONE]\n\ndata: nonsense\n\n", stream(&good_events()));
    assert_eq!(asked(vec![twice.into()]).await.unwrap().replies, ["Güte – nä!"]);
    let never = stream(&good_events()).replace("data: [DONE]\n\n", "");
    assert_eq!(asked(vec![never.into()]).await.unwrap().usage, usage());
    let unfinished = stream(&good_events()).replace("[DONE]\n\n", "[DONE]");
    assert_eq!(asked(vec![unfinished.into()]).await.unwrap().usage, usage(), "the last empty line is missing");
}

#[tokio::test]
async fn a_stream_that_breaks_off_is_no_reply() {
    let body = stream(&[words("Good"), words(" morning")]).replace("data: [DONE]\n\n", "");
    assert_eq!(code(body.clone()).await, "invalid_reply");
    assert_eq!(code(&body.as_bytes()[..body.len() - 9]).await, "invalid_reply");
    assert_eq!(code("").await, "invalid_reply");
    let pieces = vec![HEAD.into(), body.into()];
    let stub = Stub::start(vec![Act::Reset(pieces)]).await;
    let outcome = client().ask(&prompt(stub.base_url()), AMPLE).await;
    assert_eq!(outcome.unwrap_err().code(), "invalid_reply", "a connection that is reset");
}

#[tokio::test]
async fn an_invalid_stream_has_the_code_of_its_fault() {
    for (events, expected) in [
        (vec![words("a"), json!({"error": {"message": "overloaded", "code": 503}})], "reported_error"),
        (vec![json!({"error": "overloaded"})], "reported_error"),
        (vec![json!([1])], "invalid_reply"),
        (vec![piece(json!({"content": 7}))], "invalid_reply"),
        (vec![], "empty_reply"),
        (vec![words(" "), end("stop")], "empty_reply"),
        (vec![words("I will"), end("content_filter")], "content_filtered"),
    ] {
        assert_eq!(code(stream(&events)).await, expected, "{events:?}");
    }
    assert_eq!(code("data: {\"choices\": [\n\n").await, "invalid_reply");
    assert_eq!(code("data: <html>\n\n").await, "invalid_reply");
    let odd = b"data: {\"choices\":[{\"delta\":{\"content\":\"\xff\"}}]}\n\n".to_vec();
    assert_eq!(code(odd).await, "invalid_reply", "bytes that are no UTF-8");
}

#[tokio::test]
async fn a_stream_by_another_name_is_none() {
    for kind in ["text/plain", "application/x-ndjson", "text/html"] {
        let head = HEAD.replace("text/event-stream", kind);
        let stub = Stub::start(vec![Act::Say(format!("{head}{}", stream(&good_events())))]).await;
        let outcome = client().ask(&prompt(stub.base_url()), AMPLE).await;
        assert_eq!(outcome.unwrap_err().code(), "not_json", "{kind}");
    }
}

#[tokio::test]
async fn silence_before_and_between_words_has_a_reason_each() {
    let begun = format!("{HEAD}data: {}\n\n", words("Good"));
    let role_only = format!("{HEAD}data: {}\n\n: waiting\n\n", piece(json!({"role": "assistant"})));
    let reasoned = |reason: &str| {
        let piece = json!({"choices": [{"index": 0, "delta": {"content": "Good"}, "finish_reason": reason}]});
        format!("{HEAD}data: {piece}\n\n")
    };
    let behind = format!("{HEAD}data: {}\n\ndata: {}\n\n", end("stop"), words("Good"));
    for (held, expected) in [
        (reasoned(""), "stalled"),
        (reasoned("stop"), "stalled"),
        (behind, "stalled"),
        (String::new(), "first_token_timeout"),
        (HEAD.to_owned(), "first_token_timeout"),
        (role_only, "first_token_timeout"),
        (begun, "stalled"),
    ] {
        let mut stub = Stub::start(vec![Act::Hold(held.clone())]).await;
        let heard = Heard::default();
        let mut listener = heard.listen();
        let prompt = Prompt { deltas: heard.saying(), ..prompt(stub.base_url()) };
        let asked = tokio::spawn(async move { client().ask(&prompt, 20 * AMPLE).await });
        assert_eq!(stub.seen.recv().await, Some(Seen::Request));
        if expected == "stalled" {
            listener.recv().await;
        }
        // From here on time passes whenever nobody has anything to do.
        tokio::time::pause();
        let outcome = asked.await.unwrap();
        tokio::time::resume();
        assert_eq!(outcome.unwrap_err().code(), expected, "{held}");
        assert_eq!(stub.seen.recv().await, Some(Seen::Closed));
    }
}

#[tokio::test]
async fn a_stream_that_drips_for_ever_ends_with_the_calls_time() {
    let stub = Stub::start(vec![Act::Drip(HEAD.to_owned(), format!("data: {}\n\n", words("x")))]).await;
    let outcome = client().ask(&prompt(stub.base_url()), Duration::from_millis(200)).await;
    assert_eq!(outcome, Err(Fault::Timeout));
}

#[tokio::test]
async fn nothing_that_is_too_large_is_kept() {
    let long_line = format!("data: {}", "x".repeat(3 * 1024 * 1024));
    assert_eq!(code(long_line).await, "too_large", "a line without an end");
    let lines = format!("data: {}\n", "x".repeat(1_000)).repeat(3_000);
    assert_eq!(code(lines).await, "too_large", "an event without an end");
    let long = words(&"a".repeat(1024));
    let events: Vec<Value> = std::iter::repeat_n(long, 257).collect();
    assert_eq!(code(stream(&events)).await, "too_large", "a reply beyond a message's bound");
    let stub = Stub::start(vec![Act::Drip(HEAD.to_owned(), format!(": {}\n\n", "c".repeat(1024 * 1024)))]).await;
    let outcome = client().ask(&prompt(stub.base_url()), AMPLE).await;
    assert_eq!(outcome.unwrap_err().code(), "too_large", "comments without end");
    let fragment = piece(json!({"tool_calls": [{"index": 0, "function": {"arguments": "x".repeat(1024)}}]}));
    let events: Vec<Value> = std::iter::repeat_n(fragment, 65).collect();
    assert_eq!(code(stream(&events)).await, "too_large", "a call's arguments");
    let calls: Vec<Value> =
        (0..65).map(|n| piece(json!({"tool_calls": [{"index": n, "id": "c", "function": {"name": "f"}}]}))).collect();
    assert_eq!(code(stream(&calls)).await, "invalid_reply", "calls without end");
}

#[tokio::test]
async fn calls_of_tools_come_in_fragments_numbered_or_not() {
    let fragment = |call: Value| piece(json!({"tool_calls": [call]}));
    let numbered = [
        words("One moment."),
        fragment(json!({"index": 0, "id": "a", "type": "function", "function": {"name": "find", "arguments": ""}})),
        fragment(json!({"index": 1, "id": "b", "function": {"name": "ask", "arguments": "{}"}})),
        fragment(json!({"index": 0, "function": {"arguments": "{\"q\":"}})),
        fragment(json!({"index": 0, "function": {"arguments": "\"é\"}"}})),
        end("tool_calls"),
    ];
    let unnumbered = [
        words("One moment."),
        fragment(json!({"id": "a", "function": {"name": "find", "arguments": "{\"q\":"}})),
        fragment(json!({"function": {"arguments": "\"é\"}"}})),
        fragment(json!({"id": "b", "function": {"name": "ask", "arguments": "{}"}})),
        end("tool_calls"),
    ];
    let halved = [
        fragment(json!({"id": "a", "function": {"name": "find", "arguments": "{\"q\":\"\\ud83d"}})),
        fragment(json!({"function": {"arguments": "\"}"}})),
        end("tool_calls"),
    ];
    let call = |id: &str, name: &str, arguments: &str| Called {
        id: Some(id.to_owned()),
        name: name.to_owned(),
        arguments: arguments.to_owned(),
    };
    for events in [numbered.to_vec(), unnumbered.to_vec()] {
        let said = asked(vec![stream(&events).into()]).await.unwrap();
        assert_eq!(said.calls, [call("a", "find", "{\"q\":\"é\"}"), call("b", "ask", "{}")]);
        assert_eq!(said.replies, ["One moment."]);
    }
    let said = asked(vec![stream(&halved).into()]).await.unwrap();
    assert_eq!(said.calls, [call("a", "find", "{\"q\":\"\\ufffd\"}")], "half a character costs no more than itself");
    let whole = json!({"choices": [{"message": {"content": null, "tool_calls": [
        {"id": "a", "type": "function", "function": {"name": "find", "arguments": "{}"}},
        {"id": "b", "type": "function", "function": {"name": "ask", "arguments": {"a": 1}}}]}, "finish_reason": "tool_calls"}]});
    let stub = Stub::start(vec![Act::Say(json_answer(&whole))]).await;
    let said = client().ask(&prompt(stub.base_url()), AMPLE).await.unwrap();
    assert_eq!((said.calls, said.replies), (vec![call("a", "find", "{}"), call("b", "ask", "{\"a\":1}")], vec![]));
}

#[tokio::test]
async fn a_refusal_before_the_stream_is_tried_once_more() {
    let busy = answer("429 Too Many Requests", &["retry-after: 0"], "");
    let good = format!("{HEAD}{}", stream(&good_events()));
    let (outcome, requests) = ask(vec![Act::Say(busy.clone()), Act::Say(good)]).await;
    assert_eq!((outcome.unwrap().0.as_str(), requests.len()), ("Güte – nä!", 2));
    let (outcome, requests) = ask(vec![Act::Say(busy.clone()), Act::Say(busy)]).await;
    assert_eq!((outcome.unwrap_err().code(), requests.len()), ("rate_limited", 2));
}

#[tokio::test]
async fn a_cancelled_stream_closes_its_socket() {
    let mut stub = Stub::start(vec![Act::Hold(format!("{HEAD}data: {}\n\n", words("Good")))]).await;
    let prompt = prompt(stub.base_url());
    let call = tokio::spawn(async move { client().complete(prompt).await });
    assert_eq!(stub.seen.recv().await, Some(Seen::Request));
    call.abort();
    assert_eq!(stub.seen.recv().await, Some(Seen::Closed));
}

#[tokio::test]
async fn an_agent_that_wants_whole_answers_asks_for_them() {
    let stub = Stub::start(vec![good()]).await;
    let agent = Agent { without_streaming: Some(true), ..agent(stub.base_url()) };
    client().ask(&prompt_of(agent), AMPLE).await.unwrap();
    let request = stub.requests().remove(0);
    assert!(request.contains("\"stream\":false") && !request.contains("stream_options"), "{request}");
    assert!(request.contains("accept: application/json\r\n"), "{request}");
}

#[tokio::test]
async fn a_models_tools_calls_and_results_are_sent_in_the_protocols_form() {
    let stub = Stub::start(vec![good()]).await;
    let tools = r#"[{"name":"find","description":"Finds.","parameters":{"type":"object"},"url":"https://x.example/","headers":{"a":"secret"}}]"#;
    let agent = Agent { tools: Some(actors::message::Json::from_checked(tools)), ..agent(stub.base_url()) };
    let json = |text: &str| Some(actors::message::Json::from_checked(text));
    let calls = r#"[{"id":"c1","type":"function","function":{"name":"find","arguments":"{}"}}]"#;
    let messages = vec![
        said("user", "find"),
        ChatMessage { tool_calls: json(calls), ..said("assistant", "") },
        ChatMessage { metadata: json(r#"{"tool_call_id":"c1"}"#), ..said("tool", "found") },
    ];
    client().ask(&Prompt { messages, ..prompt_of(agent) }, AMPLE).await.unwrap();
    let request = stub.requests().remove(0);
    let body: Value = serde_json::from_str(request.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(
        body["messages"],
        json!([{"role": "user", "content": "find"},
            {"role": "assistant", "content": null, "tool_calls": serde_json::from_str::<Value>(calls).unwrap()},
            {"role": "tool", "content": "found", "tool_call_id": "c1"}])
    );
    let function = json!({"name": "find", "description": "Finds.", "parameters": {"type": "object"}});
    assert_eq!(body["tools"], json!([{"type": "function", "function": function}]), "neither URL nor headers are told");
}
