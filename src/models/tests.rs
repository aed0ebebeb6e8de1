//! Calls over real sockets on the loopback address; each endpoint here plays a script of answers.

use std::sync::Arc;
use std::time::Duration;

use actors::agent::{Agent, ChatMessage, Exchange, Models as _, Prompt, Provider};
use actors::clock::{ManualClock, Millis};
use actors::conversation::{Failure, Usage};
use actors::deltas::DeltaSink;
use serde_json::{Value, json};

use self::stub::{Act, Stub, answer, json_answer};
use super::*;

mod calls;
mod replies;
mod secrets;
mod streams;
mod stub;

/// More than any exchange on the loopback address takes.
const AMPLE: Duration = Duration::from_secs(30);
/// Wednesday, 21 October 2015, 07:28:00 UTC.
const NOW: Millis = Millis(1_445_412_480_000);
const SECRET: &str = "sk-7f3a-never-shown";

fn client() -> OpenAi {
    let mut client = OpenAi::new(Arc::new(ManualClock::at(NOW))).unwrap();
    client.retries.usual = Duration::ZERO;
    client
}

fn agent(base_url: String) -> Agent {
    let provider = Provider::OpenAi { base_url, api_key: Some(SECRET.to_owned()) };
    Agent {
        model: Some("small".to_owned()),
        temperature_milli: Some(700),
        max_output_tokens: Some(64),
        timeout_seconds: 30,
        ..Agent::new("agt_1", "Clara", provider, Millis(0))
    }
}

fn said(role: &str, text: &str) -> ChatMessage {
    ChatMessage::text(role, text)
}

fn prompt_of(agent: Agent) -> Prompt {
    let messages = vec![said("system", "Be kind."), said("user", "Good morning")];
    let trace = actors::trace::TraceContext { trace_id: [0xab; 16], span_id: [0xcd; 8], flags: 1 };
    Prompt {
        agent: Arc::new(agent),
        messages,
        may_be_empty: false,
        trace: Some(trace),
        deltas: DeltaSink::silent(),
        exchange: Exchange::default(),
    }
}

fn prompt(base_url: String) -> Prompt {
    prompt_of(agent(base_url))
}

/// Asks an endpoint that plays `script`, and returns the requests it got.
async fn ask(script: Vec<Act>) -> (Result<(String, Usage), Fault>, Vec<String>) {
    let stub = Stub::start(script).await;
    let outcome = client().ask(&prompt(stub.base_url()), AMPLE).await;
    (outcome.map(words), stub.requests())
}

/// The one reply and what it cost.
fn words(said: ModelOutput) -> (String, Usage) {
    assert_eq!((said.replies.len(), said.calls.len()), (1, 0), "{said:?}");
    (said.replies.concat(), said.usage)
}

/// What is wrong with one answer that is not tried again.
async fn fault(answer: String) -> &'static str {
    let (outcome, requests) = ask(vec![Act::Say(answer)]).await;
    assert_eq!(requests.len(), 1, "asked once");
    outcome.unwrap_err().code()
}

/// An answer whose only choice says `content`.
fn completion(content: Value) -> Value {
    json!({
        "model": "small-2025",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14},
    })
}

fn good() -> Act {
    Act::Say(json_answer(&completion(json!("Good morning!"))))
}
