//! A node that stops.

use std::sync::Arc;
use std::time::Duration;

use actors::directory::{CommandContext, Refusal};
use actors::node::Node;
use tokio::time::Instant;

use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn messages_acknowledged_before_or_during_a_drain_are_stored() {
    let gate = Gate::new();
    let node = node_on(gate.clone());
    let writers: Vec<_> = (0..16_u64)
        .map(|writer| {
            let node = Arc::clone(&node);
            tokio::spawn(async move {
                let mut acknowledged = Vec::new();
                for i in 0.. {
                    let e = entity(i % 3);
                    let text = format!("{writer} {i}");
                    match node.conversation(e, post(e, &text), CommandContext::default()).await {
                        Ok(answer) => acknowledged.push((i % 3, messages(answer)[0].id.number, text)),
                        Err(Refusal::Draining) => break,
                        Err(other) => panic!("{other}"),
                    }
                }
                acknowledged
            })
        })
        .collect();
    while gate.commits() < 200 {
        tokio::task::yield_now().await;
    }
    node.drain(Instant::now() + Duration::from_secs(10)).await;
    let mut acknowledged = Vec::new();
    for writer in writers {
        acknowledged.extend(writer.await.unwrap());
    }
    assert_eq!((node.resident(), node.admission().in_flight()), (0, 0));
    acknowledged.sort();
    let mut found = Vec::new();
    for n in 0..3 {
        found.extend(texts(&node, entity(n)).await.into_iter().map(|(seq, text)| (n, seq, text)));
    }
    assert_eq!(found, acknowledged);
}

#[tokio::test(start_paused = true)]
async fn a_stopping_node_answers_what_it_has_and_refuses_the_rest() {
    let gate = Gate::new();
    let node = node_on(gate.clone());
    let e = entity(1);
    gate.rule(Rule::Hold);
    let ask = || {
        let node = Arc::clone(&node);
        tokio::spawn(async move { node.conversation(e, post(e, "x"), CommandContext::default()).await })
    };
    let waiting: Vec<_> = (0..100).map(|_| ask()).collect();
    settle().await;
    let stopping = tokio::spawn({
        let node = Arc::clone(&node);
        async move { node.drain(Instant::now() + Duration::from_secs(20)).await }
    });
    settle().await;
    assert!(matches!(ask().await.unwrap(), Err(Refusal::Draining)));
    gate.rule(Rule::Pass);
    for waiting in waiting {
        waiting.await.unwrap().unwrap();
    }
    stopping.await.unwrap();
    assert_eq!(texts(&node, e).await.len(), 100);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_does_not_keep_a_node_from_stopping_in_time() {
    let gate = Gate::new();
    let node = node_on(gate.clone());
    let e = entity(1);
    gate.rule(Rule::Hold);
    let waiting = tokio::spawn({
        let node = Arc::clone(&node);
        async move { node.conversation(e, post(e, "x"), CommandContext::default()).await }
    });
    settle().await;
    let began = Instant::now();
    node.drain(began + Duration::from_secs(3)).await;
    assert!(began.elapsed() < Duration::from_millis(3_200), "{:?}", began.elapsed());
    assert!(!waiting.is_finished(), "what was not acknowledged is not answered");
}

#[tokio::test(start_paused = true)]
async fn a_turn_cut_off_by_the_stop_goes_on_in_the_next_process() {
    let gate = Gate::new();
    let clock = TokioClock::start();
    let silent = Puppet::new(false);
    let node = Node::start(Arc::new(gate.clone()), clock.clone(), entropy(), Arc::new(Strings(silent)));
    make_agent(&node, remote()).await;
    let e = entity(1);
    node.conversation(e, post_with_turn(e, "hi"), CommandContext::default()).await.unwrap();
    settle().await;
    assert_eq!(node.running_turns(), 1);
    node.drain(Instant::now() + Duration::from_secs(2)).await;
    assert_eq!(node.running_turns(), 0);
    let puppet = Puppet::new(true);
    let next = Node::start(Arc::new(gate), clock, entropy(), Arc::new(Strings(Arc::clone(&puppet))));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(puppet.asked(), 1);
    let found = texts(&next, e).await;
    assert_eq!(found.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>(), ["hi", "re: hi"]);
    let turn = next.turn(e, 1).await.unwrap().unwrap();
    assert_eq!((turn.status, turn.attempt), (actors::conversation::TurnStatus::Completed, 2));
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(texts(&next, e).await.len(), 2, "once");
}
