use futures_util::FutureExt;

use super::super::away::{AWAY_MAX_MILLIS, CROWDED_MILLIS};
use super::*;

const NOW: Millis = Millis(1_000_000);

fn enter(gate: &Arc<Gate>, now: Millis) -> Option<Admitted> {
    gate.enter(now, false).now_or_never()
}

fn pass(gate: &Arc<Gate>, now: Millis) -> Pass {
    match enter(gate, now) {
        Some(Admitted::Now(pass)) => pass,
        other => panic!("{other:?}"),
    }
}

fn away(gate: &Arc<Gate>, now: Millis) -> Millis {
    match enter(gate, now) {
        Some(Admitted::Later(at)) => at,
        other => panic!("{other:?}"),
    }
}

fn closed() -> Arc<Gate> {
    let gate = Arc::default();
    for failures in 1..=FAILURES {
        let turned = if failures == FAILURES { Turned::Closed } else { Turned::Nothing };
        assert_eq!(pass(&gate, NOW).end(Health::Down, NOW), turned);
    }
    gate
}

#[test]
fn a_receiver_gets_few_at_once_and_more_with_each_success() {
    let gate: Arc<Gate> = Arc::default();
    for _ in 0..3 {
        pass(&gate, NOW).end(Health::Well, NOW);
    }
    let through: Vec<_> = (0..limits::GATE_FIRST + 3).map(|_| pass(&gate, NOW)).collect();
    assert!(enter(&gate, NOW).is_none(), "the next one waits");
    drop(through);
    for _ in 0..limits::GATE_MOST * 2 {
        pass(&gate, NOW).end(Health::Well, NOW);
    }
    let through: Vec<_> = (0..limits::GATE_MOST).map(|_| pass(&gate, NOW)).collect();
    assert!(enter(&gate, NOW).is_none());
    drop(through);
    pass(&gate, NOW);
}

#[test]
fn who_waits_is_let_through_in_turn_and_who_has_left_is_passed_over() {
    let gate: Arc<Gate> = Arc::default();
    let mut through: Vec<_> = (0..limits::GATE_FIRST).map(|_| pass(&gate, NOW)).collect();
    let mut waiting: Vec<_> = (0..3).map(|_| Box::pin(gate.enter(NOW, false))).collect();
    assert!(waiting.iter_mut().all(|waiting| waiting.now_or_never().is_none()));
    drop(waiting.remove(0));
    through.pop();
    let Some(Admitted::Now(_pass)) = (&mut waiting[0]).now_or_never() else { panic!("it was its turn") };
    assert!((&mut waiting[1]).now_or_never().is_none());
}

#[test]
fn more_than_may_wait_are_told_to_come_again() {
    let gate: Arc<Gate> = Arc::default();
    let _through: Vec<_> = (0..limits::GATE_FIRST).map(|_| pass(&gate, NOW)).collect();
    let mut waiting: Vec<_> = (0..limits::GATE_WAITING).map(|_| Box::pin(gate.enter(NOW, false))).collect();
    assert!(waiting.iter_mut().all(|waiting| waiting.now_or_never().is_none()));
    assert!(away(&gate, NOW) >= NOW.plus(CROWDED_MILLIS));
}

#[test]
fn after_so_many_failures_in_a_row_nothing_is_sent_but_one_probe_now_and_then() {
    let gate: Arc<Gate> = Arc::default();
    for _ in 0..FAILURES - 1 {
        pass(&gate, NOW).end(Health::Down, NOW);
    }
    pass(&gate, NOW).end(Health::Well, NOW);
    for _ in 0..FAILURES - 1 {
        pass(&gate, NOW).end(Health::Down, NOW);
    }
    pass(&gate, NOW).end(Health::Down, NOW);
    let mut until = NOW.plus(CLOSED_MILLIS);
    for closed in [2 * CLOSED_MILLIS, 4 * CLOSED_MILLIS, 8 * CLOSED_MILLIS, CLOSED_MAX_MILLIS, CLOSED_MAX_MILLIS] {
        assert!(away(&gate, Millis(until.0 - 1)) > until);
        let probe = pass(&gate, until);
        assert!(away(&gate, until) > until.plus(CLOSED_MILLIS), "one at a time");
        probe.end(Health::Down, until);
        until = until.plus(closed);
    }
    assert_eq!(pass(&gate, until).end(Health::Well, until), Turned::Back);
    pass(&gate, until);
}

#[test]
fn those_who_find_it_closed_come_back_one_after_the_other_within_bounds() {
    let gate = closed();
    let mut times: Vec<_> = (0..200_000).map(|_| away(&gate, NOW)).collect();
    assert!(times.is_sorted());
    assert!(times[0] > NOW.plus(CLOSED_MILLIS));
    assert_eq!(times.last(), Some(&NOW.plus(AWAY_MAX_MILLIS)));
    times.truncate(100_000);
    times.dedup();
    assert_eq!(times.len(), 100_000, "no two at once");
}

#[test]
fn those_who_wait_when_it_closes_are_sent_away() {
    let gate: Arc<Gate> = Arc::default();
    let through: Vec<_> = (0..limits::GATE_FIRST).map(|_| pass(&gate, NOW)).collect();
    let mut waiting = Box::pin(gate.enter(NOW, false));
    assert!((&mut waiting).now_or_never().is_none());
    gate.lock().failures = FAILURES - 1;
    for pass in through {
        pass.end(Health::Down, NOW);
    }
    assert!(matches!(waiting.now_or_never(), Some(Admitted::Later(at)) if at > NOW.plus(CLOSED_MILLIS)));
}

#[test]
fn what_somebody_asked_for_is_sent_although_it_is_closed_and_may_open_it() {
    let gate = closed();
    let Some(Admitted::Now(asked)) = gate.enter(NOW, true).now_or_never() else { panic!("it was asked for") };
    assert_eq!(asked.end(Health::Well, NOW), Turned::Back);
    pass(&gate, NOW);
}

#[test]
fn what_somebody_asked_for_waits_for_those_on_their_way_and_for_no_probe() {
    let gate: Arc<Gate> = Arc::default();
    let mut through: Vec<_> = (0..limits::GATE_FIRST + 1)
        .map(|_| {
            gate.lock().limit = limits::GATE_MOST;
            pass(&gate, NOW)
        })
        .collect();
    gate.lock().failures = FAILURES - 1;
    through.pop().unwrap().end(Health::Down, NOW);
    let mut asked = Box::pin(gate.enter(NOW, true));
    assert!((&mut asked).now_or_never().is_none(), "it is closed, and as many are on their way as may be");
    through.pop().unwrap().end(Health::Down, NOW);
    assert!(matches!(asked.now_or_never(), Some(Admitted::Now(_))));
}

#[test]
fn a_probe_that_was_cut_off_leaves_the_place_to_the_next() {
    let gate = closed();
    let until = NOW.plus(CLOSED_MILLIS);
    drop(pass(&gate, until));
    assert_eq!(pass(&gate, until).end(Health::Down, until), Turned::Nothing);
}

#[test]
fn a_clock_that_is_set_back_keeps_a_gate_closed_for_twice_as_long_at_most() {
    let gate = closed();
    let by_little = Millis(NOW.0 - CLOSED_MILLIS);
    away(&gate, by_little);
    let by_more = Millis(NOW.0 - 100 * CLOSED_MILLIS);
    let probe = pass(&gate, by_more);
    // One at a time.
    away(&gate, by_more);
    probe.end(Health::Down, by_more);
    let until = by_more.plus(2 * CLOSED_MILLIS);
    away(&gate, Millis(until.0 - 1));
    pass(&gate, until).end(Health::Well, until);
}

#[test]
fn gates_of_receivers_that_are_well_are_forgotten() {
    let gates = Gates::default();
    let held = pass(&gates.of([1; 16]), NOW);
    pass(&gates.of([2; 16]), NOW).end(Health::Well, NOW);
    pass(&gates.of([3; 16]), NOW).end(Health::Down, NOW);
    gates.sweep();
    assert!(gates.gates.contains_key(&[1; 16]) && gates.gates.contains_key(&[3; 16]));
    assert!(!gates.gates.contains_key(&[2; 16]));
    drop(held);
    for _ in 0..FAILURES {
        pass(&gates.of([4; 16]), NOW).end(Health::Down, NOW);
    }
    gates.sweep();
    assert_eq!(gates.closed(), 1);
}
