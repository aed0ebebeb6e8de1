//! What follows a review that nobody answered, traced back to the request that asked for it.

use std::sync::Arc;

use actors::clock::Millis;
use actors::conversation::Event;
use actors::directory::CommandContext;
use actors::message::{Content, Json};
use actors::store::memory::MemoryStore;
use actors::trace::recording_tracer::RecordingTracer;
use actors::trace::{Finished, TraceContext};
use tokio::time::sleep;

use super::fixture::{Fixture, ONE};
use super::secs;
use crate::alarms::ask;
use crate::support::*;
use crate::traces::{in_trace, one};

/// When the reviews expire.
const DEADLINE: Millis = Millis(NOW.0 + 3_600_000);

fn unsampled(n: u8) -> CommandContext {
    let trace = in_trace(n).trace.map(|trace| TraceContext { flags: 0, ..trace });
    CommandContext { trace, ..CommandContext::default() }
}

/// The spans of a node by this tracer, whose reviews of these requests expire, and the traces of the deadlines' records.
async fn expired(tracer: RecordingTracer, asking: &[CommandContext]) -> (Vec<Finished>, Vec<Option<TraceContext>>) {
    let (fixture, kept) = Fixture::traced_by(MemoryStore::default(), tracer);
    fixture.endpoint(1, |endpoint| endpoint.events = vec!["review.expired".to_owned()]).await;
    for context in asking {
        fixture.node.conversation(entity(1), ask(entity(1), DEADLINE), *context).await.unwrap();
    }
    sleep(secs(3_700)).await;
    assert_eq!(fixture.sink.taken(ONE).len(), asking.len());
    let log = log(&fixture.node, entity(1)).await.into_iter();
    let ends = log.filter(|record| matches!(record.event, Event::ReviewExpired(_)));
    (kept.spans(), ends.map(|record| record.trace).collect())
}

fn deliveries(spans: &[Finished]) -> Vec<&Finished> {
    spans.iter().filter(|span| span.name == "deliver review.expired").collect()
}

/// Whatever the sampler says of traces that begin with an alarm or a delivery.
#[tokio::test(start_paused = true)]
async fn the_end_of_an_unanswered_review_leads_to_who_asked_for_it() {
    let cause = in_trace(1).trace.unwrap();
    for tracer in [RecordingTracer::default(), RecordingTracer::declining()] {
        let (spans, ends) = expired(tracer, &[in_trace(1)]).await;
        let linked = spans.iter().filter(|span| span.name == "alarm conversation" && !span.links.is_empty());
        let [alarm] = linked.collect::<Vec<_>>()[..] else { panic!("one alarm ends it: {spans:#?}") };
        assert_eq!((alarm.parent, &alarm.links[..]), (None, &[cause][..]));
        let [delivery] = deliveries(&spans)[..] else { panic!("it is delivered once: {spans:#?}") };
        assert_eq!((delivery.parent, &delivery.links[..], &ends[..]), (None, &[cause][..], &[Some(cause)][..]));
        let part_of = |whole: &Finished| spans.iter().find(|span| span.parent == Some(whole.context.span_id)).cloned();
        let process = part_of(alarm).expect("the alarm's decision is a part of it");
        let commit = part_of(&process).expect("and so is its commit");
        assert_eq!((&*process.name, &*commit.name), ("process conversation", "commit"));
        for (whole, part) in [(alarm, &process), (&process, &commit)] {
            assert_eq!(whole.context.trace_id, part.context.trace_id);
            assert!(whole.began <= part.began && part.ended <= whole.ended, "{whole:?} {part:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_alarm_of_several_reviews_leads_to_each_request_that_is_recorded() {
    let asking = [unsampled(1), in_trace(2), unsampled(3), in_trace(4)];
    let (spans, ends) = expired(RecordingTracer::declining(), &asking).await;
    assert_eq!(ends, asking.map(|context| context.trace));
    let recorded: Vec<TraceContext> = [2, 4].map(|n| in_trace(n).trace.unwrap()).into();
    assert_eq!(one(&spans, "alarm conversation").links, recorded);
    let links: Vec<_> = deliveries(&spans).iter().flat_map(|delivery| delivery.links.clone()).collect();
    assert_eq!(links, recorded, "one delivery of each, and none of the others");
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_review_is_not_recorded_where_the_request_for_it_was_not() {
    for tracer in [RecordingTracer::default(), RecordingTracer::declining()] {
        let (spans, ends) = expired(tracer, &[unsampled(1)]).await;
        assert_eq!(ends, [unsampled(1).trace]);
        assert_eq!(deliveries(&spans), Vec::<&Finished>::new());
        assert!(spans.iter().all(|span| span.links.is_empty()), "{spans:#?}");
    }
}

/// A review that ends by its default is answered by nobody either.
#[tokio::test(start_paused = true)]
async fn a_review_that_ends_by_its_default_leads_to_who_asked_too() {
    let (fixture, kept) = Fixture::traced_by(MemoryStore::default(), RecordingTracer::declining());
    fixture.endpoint(1, |endpoint| endpoint.events = vec!["review.completed".to_owned()]).await;
    let actors::conversation::Command::Post(mut asks) = ask(entity(1), DEADLINE) else { unreachable!() };
    let asked = &mut asks.messages[0].content;
    let review = asked
        .review
        .clone()
        .map(|review| actors::message::Review { on_expire: Some(Json::from_checked("{}")), ..review });
    *asked = Arc::new(Content { review, ..Content::clone(asked) });
    fixture.node.conversation(entity(1), asks, in_trace(1)).await.unwrap();
    sleep(secs(3_700)).await;
    let spans = kept.spans();
    let cause = in_trace(1).trace.unwrap();
    for name in ["alarm conversation", "deliver review.completed"] {
        assert_eq!(one(&spans, name).links, [cause], "{name}");
    }
}
