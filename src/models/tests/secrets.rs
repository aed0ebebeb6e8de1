//! What must not leave: the key, and the endpoint's own words.

use actors::clock::Millis;
use actors::conversation::AttemptId;
use actors::id::{Address, EntityKey, TurnId};

use super::*;
use crate::config::LogFormat;
use crate::telemetry::tests::Lines;

/// What the endpoint says in its errors; it may quote the conversation or the key.
const VERBATIM: &str = "verbatim-words-of-the-endpoint";

#[tokio::test]
async fn neither_the_key_nor_the_endpoints_words_stand_in_a_failure_or_in_the_log() {
    let lines = Lines::default();
    let _logging = tracing::subscriber::set_default(lines.subscriber("trace", LogFormat::Text));
    let reason = format!("x-reason: {VERBATIM} {SECRET}");
    let body = format!("{{\"error\":{{\"message\":\"{VERBATIM} {SECRET}\"}}}}");
    for (line, code) in [
        ("400 verbatim-words-of-the-endpoint", "bad_request"),
        ("401 Unauthorized", "unauthorized"),
        ("302 Found", "unexpected_redirect"),
        ("500 Internal Server Error", "upstream_error"),
        ("200 OK", "reported_error"),
    ] {
        let said = answer(line, &["content-type: application/json", &reason], &body);
        let stub = Stub::start(vec![Act::Say(said.clone()), Act::Say(said)]).await;
        let Err(Failure { code: got, detail }) = client().complete(prompt(stub.base_url())).await else {
            panic!("{line} is no reply")
        };
        assert_eq!(got, code);
        assert!(!detail.contains(VERBATIM) && !detail.contains(SECRET), "{detail}");
    }
    let log = lines.text();
    assert!(!log.contains("turn="), "nobody's turn: {log}");
    assert!(log.contains("a model call failed") && log.contains("upstream_error"), "the log was caught: {log}");
    assert!(!log.contains(SECRET), "{log}");
    assert!(!log.contains(VERBATIM), "{log}");
}

#[tokio::test]
async fn the_line_of_a_failure_names_the_turn_that_asked() {
    let lines = Lines::default();
    let _logging = tracing::subscriber::set_default(lines.subscriber("info", LogFormat::Text));
    let entity = EntityKey::conversation(Address([1; 10]), Address([2; 10]));
    let turn = TurnId::new(Millis(7), entity.id, 3);
    let deltas = DeltaSink::new(&Arc::default(), entity, AttemptId { turn, attempt: 1 }, 0);
    let stub = Stub::start(vec![Act::Say(answer("401 Unauthorized", &[], ""))]).await;
    client().complete(Prompt { deltas, ..prompt(stub.base_url()) }).await.unwrap_err();
    let log = lines.text();
    assert!(log.contains("a model call failed") && log.contains(&format!("turn={turn}")), "{log}");
}

#[test]
fn neither_a_client_nor_a_prompt_shows_the_key_when_it_is_printed() {
    let prompt = prompt("http://127.0.0.1:9".to_owned());
    let shown = format!("{:?} {prompt:?}", client());
    assert!(shown.contains("127.0.0.1:9"), "{shown}");
    assert!(!shown.contains(SECRET), "{shown}");
}
