//! What a trace shows of a command: its wait, the decision it was part of, and the commit.

use std::sync::Arc;
use std::time::Duration;

use actors::clock::Clock as _;
use actors::conversation::{Command, Update};
use actors::directory::CommandContext;
use actors::metrics::{CommitEnd, RefusalReason, Sample, Snapshot};
use actors::node::Node;
use actors::ports::Ports;
use actors::store::Store;
use actors::store::faulty::{FaultyStore, Rates};
use actors::store::memory::MemoryStore;
use actors::trace::recording_tracer::RecordingTracer;
use actors::trace::underway::Underway;
use actors::trace::{Finished, SAMPLED, SpanKind, TraceContext, Traces, Value};

use tokio::time::sleep;

use crate::alarms::ask;
use crate::support::*;

/// A node that records its spans.
fn traced(store: impl Store) -> (Arc<Node>, Arc<RecordingTracer>) {
    let kept = Arc::new(RecordingTracer::default());
    let ports = Ports { traces: Traces::to(kept.clone()), ..Ports::default() };
    (Node::start(Arc::new(store), clock(), entropy(), ports), kept)
}

/// The command context of a request in trace `n`.
pub(crate) fn in_trace(n: u8) -> CommandContext {
    CommandContext { key: None, trace: Some(TraceContext { trace_id: [n; 16], span_id: [n; 8], flags: SAMPLED }) }
}

/// The one span of this name.
#[track_caller]
pub(crate) fn one<'a>(spans: &'a [Finished], name: &str) -> &'a Finished {
    let mut found = spans.iter().filter(|span| span.name == name);
    let span = found.next().unwrap_or_else(|| panic!("no span {name} in {spans:?}"));
    assert!(found.next().is_none(), "several spans {name}");
    span
}

fn attribute<'a>(span: &'a Finished, key: &str) -> Option<&'a Value> {
    span.attributes.iter().find(|(known, _)| *known == key).map(|(_, value)| value)
}

#[tokio::test(start_paused = true)]
async fn a_commands_wait_decision_and_commit_are_parts_of_its_trace() {
    let (node, kept) = traced(MemoryStore::default());
    let e = entity(1);
    let context = in_trace(1);
    node.conversation(e, post(e, "hi"), context).await.unwrap();
    settle().await;
    let spans = kept.spans();
    let trace = context.trace.unwrap();
    assert_eq!(spans.len(), 4, "{spans:?}");
    assert!(spans.iter().all(|span| span.context.trace_id == trace.trace_id && span.links.is_empty()));
    let wait = one(&spans, "wait");
    let process = one(&spans, "process conversation");
    let commit = one(&spans, "commit");
    let load = one(&spans, "load");
    assert_eq!((wait.parent, process.parent), (Some(trace.span_id), Some(trace.span_id)));
    assert_eq!((commit.parent, load.parent), (Some(process.context.span_id), Some(wait.context.span_id)));
    assert!(wait.began <= load.began && load.ended <= wait.ended);
    assert!(wait.began <= wait.ended && wait.ended <= process.ended);
    assert!(process.began <= commit.began && commit.ended <= process.ended);
    assert_eq!((process.kind, commit.kind), (SpanKind::Consumer, SpanKind::Client));
    assert_eq!(attribute(process, "tertulia.entity.id"), Some(&opening(e).id.to_string().into()));
    assert_eq!(attribute(process, "messaging.batch.message_count"), None, "one is no batch");
    assert_eq!(attribute(process, "messaging.destination.name"), Some(&"conversation".into()));
    assert_eq!(attribute(commit, "tertulia.outcome"), Some(&"committed".into()));
    assert!(matches!(attribute(commit, "db.operation.batch.size"), Some(Value::Integer(2..))), "{commit:?}");
}

#[tokio::test(start_paused = true)]
async fn a_load_is_traced_under_each_command_that_waited_for_it() {
    let gate = Gate::new();
    let e = entity(1);
    node_on(gate.clone()).conversation(e, post(e, "hi"), CommandContext::default()).await.unwrap();
    let (node, kept) = traced(gate.clone());
    gate.hang_loads(Some(e));
    let answers: Vec<_> = (1..=2)
        .map(|n| {
            let node = Arc::clone(&node);
            tokio::spawn(async move { node.conversation(e, post(e, "hi"), in_trace(n)).await })
        })
        .collect();
    settle().await;
    gate.hang_loads(None);
    for answer in answers {
        answer.await.unwrap().unwrap();
    }
    node.conversation(e, post(e, "hi"), in_trace(3)).await.unwrap();
    settle().await;
    let spans = kept.spans();
    assert_eq!(containing(&spans, "wait", "load"), 2);
    let loads: Vec<&Finished> = spans.iter().filter(|span| span.name == "load").collect();
    let traces: Vec<u8> = loads.iter().map(|load| load.context.trace_id[0]).collect();
    assert_eq!(traces, [1, 2], "the third one found it in memory");
    for load in loads {
        assert_eq!((load.kind, &load.error), (SpanKind::Client, &None));
        assert_eq!(attribute(load, "tertulia.load.records"), Some(&Value::Integer(2)), "{load:?}");
        assert_eq!(attribute(load, "db.operation.name"), Some(&"load".into()));
    }
    for call in spans.iter().filter(|span| ["load", "commit"].contains(&&*span.name)) {
        assert_eq!(attribute(call, "db.namespace"), Some(&"gated".to_owned().into()), "{call:?}");
        assert_eq!(attribute(call, "cassandra.consistency.level"), Some(&"quorum".into()), "{call:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_entity_that_cannot_be_loaded_is_why_a_command_is_seen_to_fail() {
    let rates = Rates { refused: 0, unanswered: 0, late: 0, competed: 0, unread: 1_000 };
    let (node, kept) = traced(FaultyStore::new(MemoryStore::default(), 5, rates));
    let e = entity(1);
    node.conversation(e, post(e, "hi"), in_trace(1)).await.unwrap_err();
    settle().await;
    let spans = kept.spans();
    assert_eq!(containing(&spans, "wait", "load"), 1, "{spans:?}");
    assert_eq!(one(&spans, "load").error.as_deref(), Some("unavailable"));
}

#[tokio::test(start_paused = true)]
async fn a_load_after_a_conflict_is_traced_beside_the_decisions() {
    let rates = Rates { refused: 0, unanswered: 0, late: 0, competed: 1_000, unread: 0 };
    let (node, kept) = traced(FaultyStore::new(MemoryStore::default(), 5, rates));
    let e = entity(1);
    node.conversation(e, post(e, "hi"), CommandContext::default()).await.unwrap();
    node.conversation(e, post(e, "hi"), in_trace(1)).await.unwrap_err();
    settle().await;
    let spans = kept.spans();
    one(&spans, "wait");
    let count = |name: &str| spans.iter().filter(|span| span.name == name).count();
    assert!(count("load") > 1 && count("load") + 1 == count("commit"), "for all conflicts but the one it gave up at");
    assert!(spans.iter().filter(|span| span.name == "load").all(|load| load.parent == Some([1; 8])), "{spans:?}");
}

#[tokio::test(start_paused = true)]
async fn one_record_is_no_batch_of_the_store() {
    let (node, kept) = traced(MemoryStore::default());
    let e = entity(1);
    node.conversation(e, post(e, "hi"), CommandContext::default()).await.unwrap();
    let close = Command::Update(Update { closed: Some(true), ..Update::default() });
    node.conversation(e, close, in_trace(1)).await.unwrap();
    settle().await;
    assert_eq!(attribute(one(&kept.spans(), "commit"), "db.operation.batch.size"), None);
}

#[tokio::test(start_paused = true)]
async fn several_commands_share_a_trace_that_is_linked_to_each_of_theirs() {
    let gate = Gate::new();
    let (node, kept) = traced(gate.clone());
    let e = entity(1);
    gate.rule(Rule::Hold);
    let answers: Vec<_> = (1..=4)
        .map(|n| {
            let node = Arc::clone(&node);
            tokio::spawn(async move { node.conversation(e, post(e, "hi"), in_trace(n)).await })
        })
        .collect();
    settle().await;
    gate.rule(Rule::Pass);
    for answer in answers {
        answer.await.unwrap().unwrap();
    }
    settle().await;
    let spans = kept.spans();
    let batch = spans.iter().find(|span| !span.links.is_empty() && span.name == "process conversation").unwrap();
    assert_eq!(batch.parent, None);
    assert_eq!(attribute(batch, "messaging.batch.message_count"), Some(&Value::Integer(3)));
    let linked: Vec<u8> = batch.links.iter().map(|link| link.trace_id[0]).collect();
    assert_eq!(linked, [2, 3, 4]);
    let waits: Vec<&Finished> = spans.iter().filter(|span| span.links.contains(&batch.context)).collect();
    assert_eq!(waits.len(), 3, "and each of theirs leads there");
    assert!(waits.iter().all(|wait| wait.name == "wait" && linked.contains(&wait.context.trace_id[0])));
    let commit = spans.iter().find(|span| span.context.trace_id == batch.context.trace_id && span.name == "commit");
    assert_eq!(commit.unwrap().parent, Some(batch.context.span_id));
}

#[tokio::test(start_paused = true)]
async fn the_only_recorded_command_of_a_batch_has_the_batch_in_its_trace() {
    let gate = Gate::new();
    let (node, kept) = traced(gate.clone());
    let e = entity(1);
    gate.rule(Rule::Hold);
    let unsampled =
        CommandContext { trace: in_trace(9).trace.map(|trace| TraceContext { flags: 0, ..trace }), key: None };
    let answers: Vec<_> = [CommandContext::default(), unsampled, in_trace(2), unsampled]
        .map(|context| {
            let node = Arc::clone(&node);
            tokio::spawn(async move { node.conversation(e, post(e, "hi"), context).await })
        })
        .into();
    settle().await;
    assert!(kept.spans().iter().all(|span| span.name == "load"), "what is not sampled makes no spans");
    gate.rule(Rule::Pass);
    for answer in answers {
        answer.await.unwrap().unwrap();
    }
    settle().await;
    let spans = kept.spans();
    assert!(spans.iter().all(|span| span.context.trace_id == [2; 16]), "{spans:?}");
    let process = one(&spans, "process conversation");
    assert_eq!(process.parent, Some([2; 8]));
    assert_eq!(attribute(process, "messaging.batch.message_count"), Some(&Value::Integer(3)));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_shows_a_decision_without_a_commit() {
    let (node, kept) = traced(MemoryStore::default());
    let e = entity(1);
    let update = Command::Update(Update { closed: Some(true), ..Update::default() });
    node.conversation(e, update, in_trace(1)).await.unwrap_err();
    settle().await;
    let spans = kept.spans();
    assert_eq!(spans.len(), 3);
    one(&spans, "load");
    one(&spans, "wait");
    one(&spans, "process conversation");
}

/// How many spans named `part` belong to a span named `whole`; fails where one is not within its whole.
#[track_caller]
fn containing(spans: &[Finished], whole: &str, part: &str) -> usize {
    let pairs = spans.iter().filter(|span| span.name == part).filter_map(|part| {
        let is_whole = |span: &&Finished| Some(span.context.span_id) == part.parent && span.name == whole;
        Some((spans.iter().find(is_whole)?, part))
    });
    pairs
        .map(|(whole, part)| assert!(whole.began <= part.began && part.ended <= whole.ended, "{whole:?} {part:?}"))
        .count()
}

#[tokio::test(start_paused = true)]
async fn spans_of_alarms_and_decisions_contain_what_they_wait_for() {
    let rates = Rates { refused: 100, unanswered: 100, late: 50, competed: 100, unread: 100 };
    for rates in [Rates::default(), rates] {
        let kept = Arc::new(RecordingTracer::default());
        let clock = TokioClock::start();
        let ports = Ports { traces: Traces::to(kept.clone()), ..Ports::default() };
        let store = Arc::new(FaultyStore::new(MemoryStore::default(), 6, rates));
        let node = Node::start(store, clock.clone(), entropy(), ports);
        for n in 1..=20 {
            let command = ask(entity(n), clock.now().plus(1_000 * n));
            // The store refuses some of them.
            let _ = node.conversation(entity(n), command, in_trace(1)).await;
        }
        sleep(Duration::from_secs(60)).await;
        let spans = kept.spans();
        assert!(containing(&spans, "alarm conversation", "process conversation") >= 10);
        assert!(containing(&spans, "process conversation", "commit") >= 20);
        let mut alarms = spans.iter().filter(|span| span.name == "alarm conversation");
        assert!(alarms.clone().all(|alarm| attribute(alarm, "tertulia.alarm.late_ms").is_some()));
        let fails = rates != Rates::default();
        assert_eq!(alarms.any(|alarm| alarm.error.as_deref() == Some("indeterminate")), fails, "{rates:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn listed_stages_show_that_a_request_waits_for_a_hanging_store() {
    let gate = Gate::new();
    let underway = Arc::new(Underway::default());
    let kept = Arc::new(RecordingTracer::default());
    let e = entity(1);
    let traces = Traces::to(kept.clone()).listed(Some(Arc::clone(&underway)));
    let node = Node::start(Arc::new(gate.clone()), clock(), entropy(), Ports { traces, ..Ports::default() });
    gate.rule(Rule::Hold);
    let ask = |n: u8| {
        let node = Arc::clone(&node);
        let context = in_trace(n);
        let context =
            CommandContext { trace: context.trace.map(|trace| TraceContext { flags: 0, ..trace }), ..context };
        tokio::spawn(async move { node.conversation(e, post(e, "hi"), context).await })
    };
    let first = ask(1);
    settle().await;
    let second = ask(2);
    settle().await;
    let (stages, all) = underway.oldest(10);
    let listed = |name: &str| stages.iter().find(|stage| stage.name == name).unwrap_or_else(|| panic!("{stages:#?}"));
    let process = listed("process conversation");
    let commit = listed("commit");
    let wait = listed("wait");
    assert_eq!(all, 3, "{stages:#?}");
    assert_eq!((process.context.trace_id, process.parent), ([1; 16], Some([1; 8])));
    assert_eq!(commit.parent, Some(process.context.span_id));
    assert_eq!((wait.context.trace_id, wait.parent), ([2; 16], Some([2; 8])), "the second one waits behind it");
    gate.rule(Rule::Pass);
    first.await.unwrap().unwrap();
    second.await.unwrap().unwrap();
    settle().await;
    assert_eq!((underway.oldest(10).1, kept.spans().len()), (0, 0), "nobody has asked for their traces");
}

#[tokio::test(start_paused = true)]
async fn a_store_error_is_traced_and_counted() {
    let rates = Rates { refused: 0, unanswered: 1_000, late: 0, competed: 0, unread: 0 };
    let (node, kept) = traced(FaultyStore::new(MemoryStore::default(), 5, rates));
    let e = entity(1);
    node.conversation(e, post(e, "hi"), in_trace(1)).await.unwrap_err();
    settle().await;
    let spans = kept.spans();
    let commit = one(&spans, "commit");
    assert_eq!(commit.error.as_deref(), Some("indeterminate"));
    assert_eq!(one(&spans, "process conversation").error.as_deref(), Some("indeterminate"));
    assert_eq!(node.metrics().commit.of(CommitEnd::Indeterminate).snapshot().count(), 1);
    let mut entities = Vec::new();
    node.metrics().visit(&mut |metric, samples| {
        if metric.name == "tertulia_activations_total" {
            entities.extend(samples.iter().map(|(_, sample)| sample.clone()));
        }
    });
    assert_eq!(entities[3], Sample::Counter(1), "one conversation");
}

#[tokio::test(start_paused = true)]
async fn commands_are_timed_and_counted_without_any_trace() {
    let node = node_on(MemoryStore::default());
    let e = entity(1);
    for _ in 0..3 {
        node.conversation(e, post(e, "hi"), CommandContext::default()).await.unwrap();
    }
    node.admission().close();
    node.conversation(e, post(e, "hi"), CommandContext::default()).await.unwrap_err();
    let metrics = node.metrics();
    assert_eq!(metrics.mailbox_wait.of(e.kind).snapshot().count(), 3);
    assert_eq!((metrics.batch_commands.snapshot().count(), metrics.batch_commands.snapshot().sum), (3, 3));
    assert_eq!(metrics.commit.of(CommitEnd::Committed).snapshot().count(), 3);
    assert_eq!(metrics.turned_away.of(RefusalReason::Draining).get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_time_of_what_is_recorded_leads_to_its_span_and_others_lead_nowhere() {
    let kept = Arc::new(RecordingTracer::default());
    let traces = Traces::to(kept.clone()).listed(Some(Arc::new(Underway::default())));
    let ports = Ports { traces, ..Ports::default() };
    let node = Node::start(Arc::new(MemoryStore::default()), clock(), entropy(), ports);
    let e = entity(1);
    let metrics = node.metrics();
    let led = || {
        let times = [&metrics.mailbox_wait.of(e.kind).snapshot(), &metrics.commit.of(CommitEnd::Committed).snapshot()];
        let led = |times: &Snapshot| times.exemplars.iter().flatten().map(|led| (led.trace_id, led.span_id)).collect();
        times.map(led)
    };
    // The command's span is listed, as all are here, and not recorded.
    node.conversation(e, post(e, "hi"), CommandContext::default()).await.unwrap();
    let nothing: [Vec<([u8; 16], [u8; 8])>; 2] = led();
    assert_eq!(nothing, [vec![], vec![]]);
    node.conversation(e, post(e, "hi"), in_trace(1)).await.unwrap();
    settle().await;
    let spans = kept.spans();
    let of = |name: &str| vec![([1; 16], one(&spans, name).context.span_id)];
    assert_eq!(led(), [of("wait"), of("commit")]);
    assert_eq!(metrics.commit.of(CommitEnd::Committed).snapshot().count(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_deepest_mailboxes_are_listed_with_public_ids() {
    let gate = Gate::new();
    let node = node_on(gate.clone());
    let quiet = entity(1);
    let busy = entity(2);
    for e in [quiet, busy] {
        node.conversation(e, post(e, "hi"), CommandContext::default()).await.unwrap();
    }
    gate.rule(Rule::Hold);
    for e in [quiet, busy, busy, busy] {
        let node = Arc::clone(&node);
        tokio::spawn(async move { node.conversation(e, post(e, "hi"), CommandContext::default()).await });
    }
    settle().await;
    let census = node.census(10).await;
    let seen: Vec<_> = census.mailboxes.iter().map(|mailbox| (mailbox.entity, mailbox.commands)).collect();
    assert_eq!(seen, [(busy, 3), (quiet, 1)]);
    assert_eq!(census.mailboxes[0].id, Some(opening(busy).id.to_string()));
    assert_eq!(node.census(1).await.mailboxes.len(), 1);
    gate.rule(Rule::Pass);
    settle().await;
    assert!(node.census(10).await.mailboxes.is_empty(), "what is answered does not wait");
}
