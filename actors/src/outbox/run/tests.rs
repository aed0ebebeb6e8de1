use super::super::lane::{Receiver, RetryRequest};
use super::*;

const NOW: Millis = Millis(1_000_000);

fn found(seq: u64) -> FoundEvent {
    FoundEvent { seq, at: NOW }
}

/// A lane with an attempt under way at its only event, as this node knows its row.
fn under_way(seq: u64) -> Run {
    let mut run = Run::of(Lane::to(Receiver::Channel), LaneRow::new(seq, seq, NOW));
    run.found(vec![found(seq)], seq);
    assert!(run.start().is_some());
    run
}

fn requested_row(next: u64, until: u64) -> LaneRow {
    LaneRow { retry_requested: true, ..LaneRow::new(next, until, NOW) }
}

#[test]
fn a_run_keeps_what_another_node_has_put_on_its_lane() {
    for until in [6, 9] {
        let mut run = under_way(5);
        run.retry_now(requested_row(5, until));
        run.end_step();
        assert_eq!(run.pop(), Some(5));
        let row = run.row_to_store(NOW, 0, 0).map(|row| (row.next, row.until));
        assert_eq!(row, Some((6, until)), "it is not forgotten with the row that named it");
    }
}

#[test]
fn a_retry_request_adds_nothing_that_the_run_has_or_is_done_with() {
    let mut run = under_way(5);
    run.retry_now(requested_row(5, 5));
    run.end_step();
    assert_eq!(run.pop(), Some(5));
    run.retry_now(LaneRow { tries: 1, ..requested_row(5, 5) });
    assert_eq!(run.row_to_store(NOW, 0, 0), None);
}

/// What is behind it does not wait.
#[test]
fn a_retry_request_for_an_ended_delivery_is_left_to_the_note() {
    let mut run = Run::of(Lane::to(Receiver::Channel), LaneRow::new(5, 7, NOW));
    run.found((5..=7).map(found).collect(), 7);
    run.pop();
    let row = LaneRow::new(5, 7, NOW).with_request(5, NOW.plus(1));
    run.retry_now(row.clone());
    assert!(!run.retries.any(), "nobody asks for the next one");
    let before = run.stored.clone().unwrap();
    assert_eq!(
        row.requests_since(Some(&before)),
        [RetryRequest { seq: 5, at: NOW.plus(1) }],
        "whoever notes it finds it"
    );
    let row = row.with_request(7, NOW.plus(2));
    run.retry_now(row.clone());
    assert!(run.retries.any());
    let before = run.stored.clone().unwrap();
    assert!(before.has_requests_in(&row));
    assert_eq!(row.requests_since(Some(&before)), [RetryRequest { seq: 5, at: NOW.plus(1) }]);
}

#[test]
fn a_retry_request_lasts_until_its_own_event_was_tried() {
    let row = LaneRow::new(5, 8, NOW).with_request(7, NOW);
    let mut run = Run::of(Lane::to(Receiver::Channel), row);
    run.found((5..=8).map(found).collect(), 8);
    assert!(run.retries.any() && !run.is_head_requested(), "the first is sent for the other");
    run.answer_requests(None);
    assert!(!run.retries.any(), "where that fails it waits for its time");
    let row = run.row_to_store(NOW, 0, 0).unwrap();
    let mut run = Run::of(Lane::to(Receiver::Channel), row);
    run.found((5..=8).map(found).collect(), 8);
    assert!(!run.retries.any());
    run.pop();
    assert!(run.retries.any() && !run.is_head_requested(), "the next one is on the way to it too");
    run.pop();
    assert!(run.retries.any() && run.is_head_requested());
    run.answer_requests(None);
    run.pop();
    assert!(!run.retries.any(), "what is behind it waits as it would");
    let mut run = Run::of(Lane::to(Receiver::Channel), LaneRow::new(5, 8, NOW).with_request(7, NOW));
    run.found(vec![found(5), found(8)], 8);
    run.pop();
    assert!(!run.retries.any(), "it was dropped");
    let row = LaneRow { retry_requested: false, tries: 1, ..LaneRow::new(5, 8, NOW).with_request(7, NOW) };
    let mut run = Run::of(Lane::to(Receiver::Channel), row);
    assert!(run.found(vec![found(6), found(7)], 8).is_some_and(|lost| lost.seq == 5) && run.retries.any());
}

#[test]
fn a_retry_request_reaches_the_current_step_or_the_next() {
    let mut run = under_way(5);
    run.retry_now(requested_row(5, 5));
    assert_eq!(run.retry_signal.take(), Some(RetryOf::Head), "the step hears of it");
    assert_eq!(run.end_step(), None);
    let mut run = under_way(5);
    run.retry_now(requested_row(5, 5));
    assert_eq!(run.end_step(), Some(RetryOf::Head), "it does not");
    assert_eq!(run.end_step(), None, "once");
    run.pop();
    assert!(!run.retries.any(), "nothing is left to ask for");
}

#[test]
fn a_tried_retry_request_is_not_repeated_by_a_later_one() {
    let row = LaneRow::new(5, 7, NOW).with_request(5, NOW);
    for (seq, requested) in [(5, RetryOf::Head), (7, RetryOf::LaterEvent)] {
        let mut run = Run::of(Lane::to(Receiver::Channel), row.clone());
        run.found((5..=7).map(found).collect(), 7);
        assert!(run.start().is_some() && run.is_head_requested());
        run.retry_now(row.clone().with_request(seq, NOW.plus(1)));
        let since = run.end_step();
        assert_eq!(since, Some(requested));
        run.answer_requests(since);
        assert_eq!((run.retries.any(), run.is_head_requested()), (true, requested == RetryOf::Head), "{seq}");
    }
}

#[test]
fn an_event_that_another_node_appends_requests_no_retry() {
    let row = LaneRow::new(5, 7, NOW).with_request(7, NOW);
    let mut run = Run::of(Lane::to(Receiver::Channel), row.clone());
    run.found((5..=7).map(found).collect(), 7);
    assert!(run.start().is_some());
    run.answer_requests(None);
    run.row.deferred_until = Some(NOW.plus(60_000));
    run.retry_now(LaneRow { until: 9, ..row });
    assert_eq!(run.end_step(), None);
    let row = run.row_to_store(NOW, 0, 0).unwrap();
    assert_eq!((row.until, row.retry_requested, row.deferred_until), (9, false, Some(NOW.plus(60_000))));
}
