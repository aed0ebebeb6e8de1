//! The request whose trace an attempt at a turn belongs to, whatever lies between the two.

use std::sync::Arc;
use std::time::Duration;

use actors::agent::{Completion, Models, Prompt};
use actors::conversation::Failure;
use actors::directory::CommandContext;
use actors::metrics::{ModelError, ModelOperation, ModelProvider};
use actors::node::Node;
use actors::ports::Ports;
use actors::store::Store;
use actors::store::memory::MemoryStore;
use actors::trace::recording_tracer::RecordingTracer;
use actors::trace::{Finished, TraceContext, Traces, Value};
use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep};

use crate::support::*;
use crate::tools::{AskPeople, approve, configure, people, questions};
use crate::traces::in_trace;

/// A node that records its spans, and whose agents ask people unless their models are `puppet`.
fn traced(
    store: impl Store,
    clock: Arc<TokioClock>,
    puppet: Option<&Arc<Puppet>>,
) -> (Arc<Node>, Arc<RecordingTracer>) {
    traced_by(RecordingTracer::default(), store, clock, puppet)
}

/// The same by this tracer.
fn traced_by(
    tracer: RecordingTracer,
    store: impl Store,
    clock: Arc<TokioClock>,
    puppet: Option<&Arc<Puppet>>,
) -> (Arc<Node>, Arc<RecordingTracer>) {
    let kept = Arc::new(tracer);
    let ports = Ports { traces: Traces::to(kept.clone()), tools: Arc::new(AskPeople), ..Ports::default() };
    let models = puppet.map(|puppet| -> Arc<dyn Models> { Arc::new(Strings(Arc::clone(puppet))) });
    let ports = Ports { models: models.unwrap_or_else(|| Arc::clone(&ports.models)), ..ports };
    (Node::start(Arc::new(store), clock, entropy(), ports), kept)
}

/// The attempts that were traced, in the order of their ends.
fn attempts(kept: &RecordingTracer) -> Vec<Finished> {
    kept.spans().into_iter().filter(|span| span.name == "invoke_agent bot").collect()
}

/// Fails unless the attempt and all that is below it are part of the request of trace `n`.
#[track_caller]
fn is_part_of(kept: &RecordingTracer, attempt: &Finished, n: u8) {
    assert_eq!((attempt.context.trace_id, attempt.parent), ([n; 16], Some([n; 8])));
    assert_eq!(attempt.links, []);
    let calls = kept.spans().into_iter().filter(|span| span.parent == Some(attempt.context.span_id));
    assert!(calls.map(|call| call.context.trace_id).all(|trace| trace == [n; 16]));
}

/// Fails unless the attempt begins a trace with links to the request of trace `n` and to the cause that continued it.
/// Returns the latter.
#[track_caller]
fn leads_to(attempt: &Finished, n: u8) -> TraceContext {
    let [asked_for, goes_on] = attempt.links[..] else { panic!("two links: {attempt:?}") };
    assert_eq!((attempt.parent, asked_for), (None, in_trace(n).trace.unwrap()));
    assert!(![asked_for, goes_on].map(|link| link.trace_id).contains(&attempt.context.trace_id));
    goes_on
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_waited_is_traced_under_the_request_for_it() {
    let puppet = Puppet::new(false);
    let (node, kept) = traced(MemoryStore::default(), TokioClock::start(), Some(&puppet));
    make_agent(&node, remote()).await;
    let e = entity(1);
    for n in 1..=3 {
        node.conversation(e, post_with_turn(e, "hi"), in_trace(n)).await.unwrap();
    }
    settle().await;
    assert_eq!(puppet.asked(), 1, "the others wait");
    puppet.may_answer();
    sleep(Duration::from_secs(1)).await;
    let attempts = attempts(&kept);
    assert_eq!(attempts.len(), 3);
    (1..).zip(&attempts).for_each(|(n, attempt)| is_part_of(&kept, attempt, n));
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_waited_is_not_recorded_where_its_own_request_is_not() {
    let puppet = Puppet::new(false);
    let (node, kept) = traced(MemoryStore::default(), TokioClock::start(), Some(&puppet));
    make_agent(&node, remote()).await;
    let e = entity(1);
    let unsampled = in_trace(2).trace.map(|trace| TraceContext { flags: 0, ..trace });
    node.conversation(e, post_with_turn(e, "hi"), in_trace(1)).await.unwrap();
    node.conversation(e, post_with_turn(e, "hi"), CommandContext { key: None, trace: unsampled }).await.unwrap();
    puppet.may_answer();
    sleep(Duration::from_secs(1)).await;
    let [attempt] = &attempts(&kept)[..] else { panic!("one of the two is recorded") };
    is_part_of(&kept, attempt, 1);
}

#[tokio::test(start_paused = true)]
async fn a_turn_resumed_by_a_review_links_to_who_asked_and_who_answered() {
    let (node, kept) = traced(MemoryStore::default(), TokioClock::start(), None);
    configure(&node).await;
    let e = entity(1);
    node.conversation(e, post_with_turn(e, "ask"), in_trace(1)).await.unwrap();
    settle().await;
    let [review] = questions(&node).await[..] else { panic!("people are asked once") };
    node.conversation(people(), approve(review), in_trace(2)).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    let [first, second] = &attempts(&kept)[..] else { panic!("one attempt before and one after") };
    is_part_of(&kept, first, 1);
    assert_eq!(Some(leads_to(second, 1)), in_trace(2).trace);
    // The channel decided the people's answer, and the conversation decided how its turn continues.
    let decided = kept.spans().into_iter().filter(|span| span.name == "process conversation");
    let answering = decided.filter(|span| span.context.trace_id == [2; 16] && span.parent == Some([2; 8])).count();
    assert_eq!(answering, 2, "both are parts of the request that answered");
}

#[tokio::test(start_paused = true)]
async fn a_turn_resumed_without_an_answer_links_to_its_alarm() {
    // However seldom the traces of alarms are sampled.
    for tracer in [RecordingTracer::default(), RecordingTracer::declining()] {
        let (node, kept) = traced_by(tracer, MemoryStore::default(), TokioClock::start(), None);
        configure(&node).await;
        let e = entity(1);
        node.conversation(e, post_with_turn(e, "ask"), in_trace(1)).await.unwrap();
        sleep(Duration::from_secs(61 * 60)).await;
        let [first, second] = &attempts(&kept)[..] else { panic!("one attempt before and one after") };
        is_part_of(&kept, first, 1);
        let alarm = leads_to(second, 1);
        let spans = kept.spans();
        let rang = spans.iter().find(|span| span.context == alarm && span.name == "alarm conversation").unwrap();
        // The channel's alarm leads to the call that asked people.
        let asked = spans.iter().find(|span| span.name.starts_with("execute_tool")).unwrap();
        assert_eq!(rang.links, [asked.context], "{rang:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_a_stop_cut_off_leads_to_its_request_from_the_next_process() {
    let store = Gate::new();
    let clock = TokioClock::start();
    let silent = Puppet::new(false);
    let (node, before) = traced(store.clone(), Arc::clone(&clock), Some(&silent));
    make_agent(&node, remote()).await;
    let e = entity(1);
    for n in 1..=2 {
        node.conversation(e, post_with_turn(e, "hi"), in_trace(n)).await.unwrap();
    }
    settle().await;
    node.drain(Instant::now() + Duration::from_secs(1)).await;
    let [cut_off] = &attempts(&before)[..] else { panic!("it was told of") };
    is_part_of(&before, cut_off, 1);
    let (_next, kept) = traced(store, clock, Some(&Puppet::new(true)));
    sleep(Duration::from_secs(60)).await;
    let [recovered, waited] = &attempts(&kept)[..] else { panic!("both are answered") };
    let alarm = leads_to(recovered, 1);
    assert!(kept.spans().iter().any(|span| span.context == alarm && span.name == "alarm conversation"), "{alarm:?}");
    is_part_of(&kept, waited, 2);
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_is_tried_again_is_a_part_of_the_request_that_wanted_it() {
    let (node, kept) = traced(MemoryStore::default(), TokioClock::start(), None);
    let e = entity(1);
    node.conversation(e, post_with_turn(e, "hi"), in_trace(1)).await.unwrap();
    settle().await;
    configure(&node).await;
    let again = actors::conversation::Command::RetryTurn(actors::conversation::RetryTurn { number: 1, agent: None });
    node.conversation(e, again, in_trace(2)).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    let [failed, again] = &attempts(&kept)[..] else { panic!("it failed without its agent") };
    is_part_of(&kept, failed, 1);
    is_part_of(&kept, again, 2);
}

/// A model whose endpoint fails, is asked again, and fails again.
struct Unable;

impl Models for Unable {
    fn complete(&self, prompt: Prompt) -> BoxFuture<'_, Completion> {
        prompt.exchange.resend();
        prompt.exchange.chunk();
        prompt.exchange.finished("tool_calls");
        Box::pin(async { Err(Failure { code: "upstream_error".to_owned(), detail: String::new() }) })
    }
}

#[tokio::test(start_paused = true)]
async fn a_model_asked_twice_in_vain_is_traced_as_asked_twice() {
    let kept = Arc::new(RecordingTracer::default());
    let ports = Ports { traces: Traces::to(kept.clone()), ..Ports::from(Arc::new(Unable)) };
    let node = Node::start(Arc::new(MemoryStore::default()), TokioClock::start(), entropy(), ports);
    make_agent(&node, remote()).await;
    let e = entity(1);
    node.conversation(e, post_with_turn(e, "hi"), in_trace(1)).await.unwrap();
    settle().await;
    let spans = kept.spans();
    let chat = spans.iter().find(|span| span.name.starts_with("chat")).unwrap();
    assert_eq!(chat.error.as_deref(), Some("upstream_error"));
    let conversation = opening(e).id.to_string();
    let expected = [
        ("gen_ai.conversation.id", conversation.clone().into()),
        ("gen_ai.provider.name", "openai".into()),
        ("gen_ai.response.finish_reasons", Value::Words(vec!["tool_calls"])),
        ("http.request.resend_count", 1_u32.into()),
        ("server.address", "api.example.com".to_owned().into()),
        ("server.port", 443_u32.into()),
    ];
    for attribute in &expected {
        assert!(chat.attributes.contains(attribute), "{attribute:?} is not on {chat:?}");
    }
    assert!(chat.attributes.iter().any(|(name, _)| *name == "gen_ai.response.time_to_first_chunk"), "{chat:?}");
    let calls = node.metrics().model_calls.of(ModelOperation::Chat).of(ModelProvider::OpenAi);
    let [failed, answered] =
        [Some("upstream_error"), None].map(|code| calls.of(ModelError::of(code)).used().snapshot());
    assert_eq!((failed.count(), answered.count()), (1, 0));
    let led: Vec<_> = failed.exemplars.iter().flatten().map(|exemplar| exemplar.span_id).collect();
    assert_eq!(led, [chat.context.span_id], "the metric leads to the call");
    let [attempt] = &attempts(&kept)[..] else { panic!("one attempt") };
    assert!(attempt.attributes.contains(&("gen_ai.agent.name", "Bot".to_owned().into())), "{attempt:?}");
    assert!(attempt.attributes.contains(&("gen_ai.conversation.id", conversation.into())), "{attempt:?}");
    assert!(attempt.attributes.contains(&("gen_ai.provider.name", "openai".into())), "{attempt:?}");
}
