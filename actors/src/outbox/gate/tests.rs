use futures_util::FutureExt;

use super::super::away::{AWAY_MAX_MILLIS, CROWDED_MILLIS};
use super::state::{CLOSED_MAX_MILLIS, CLOSED_MILLIS, FAILURES};
use super::*;

const NOW: Millis = Millis(1_000_000);
const ANY: Want = Want { retry_requested: false, url: None, unanswered: 0, returns: false };
const ASKED: Want = Want { retry_requested: true, ..ANY };

fn enter(gate: &Arc<Gate>, now: Millis) -> Option<Admitted> {
    gate.enter(now, ANY).now_or_never()
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
    let mut waiting: Vec<_> = (0..3).map(|_| Box::pin(gate.enter(NOW, ANY))).collect();
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
    let mut waiting: Vec<_> = (0..limits::GATE_WAITING).map(|_| Box::pin(gate.enter(NOW, ANY))).collect();
    assert!(waiting.iter_mut().all(|waiting| waiting.now_or_never().is_none()));
    assert!(away(&gate, NOW) >= NOW.plus(CROWDED_MILLIS));
}

#[test]
fn who_has_left_takes_no_room_of_those_who_may_wait() {
    let gate: Arc<Gate> = Arc::default();
    let _through: Vec<_> = (0..limits::GATE_FIRST).map(|_| pass(&gate, NOW)).collect();
    let mut waiting: Vec<_> = (0..limits::GATE_WAITING).map(|_| Box::pin(gate.enter(NOW, ANY))).collect();
    assert!(waiting.iter_mut().all(|waiting| waiting.now_or_never().is_none()));
    waiting.truncate(limits::GATE_WAITING - 1);
    let mut next = Box::pin(gate.enter(NOW, ANY));
    assert!((&mut next).now_or_never().is_none(), "one has left");
    assert!(away(&gate, NOW) >= NOW.plus(CROWDED_MILLIS), "nobody has since");
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
    let mut waiting = Box::pin(gate.enter(NOW, ANY));
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
    let Some(Admitted::Now(asked)) = gate.enter(NOW, ASKED).now_or_never() else { panic!("it was asked for") };
    assert_eq!(asked.end(Health::Well, NOW), Turned::Back);
    pass(&gate, NOW);
}

#[test]
fn what_somebody_asks_for_waits_for_no_place_of_others_and_for_one_that_was_asked_for_before() {
    let gate: Arc<Gate> = Arc::default();
    let mut through: Vec<_> = (0..limits::GATE_FIRST).map(|_| pass(&gate, NOW)).collect();
    let mut waiting = Box::pin(gate.enter(NOW, ANY));
    assert!((&mut waiting).now_or_never().is_none());
    let Some(Admitted::Now(asked)) = gate.enter(NOW, ASKED).now_or_never() else { panic!("it was asked for") };
    let mut next = Box::pin(gate.enter(NOW, ASKED));
    assert!((&mut next).now_or_never().is_none(), "one at a time");
    through.pop();
    let Some(Admitted::Now(next)) = next.now_or_never() else { panic!("whatever permit is free is for it") };
    assert!((&mut waiting).now_or_never().is_none());
    gate.lock().failures = FAILURES - 1;
    assert_eq!(next.end(Health::Down, NOW), Turned::Closed);
    let mut last = Box::pin(gate.enter(NOW, ASKED));
    let taken = last.as_mut().now_or_never();
    assert!(matches!(taken, Some(Admitted::Now(_))), "one permit is free, although it is closed");
    let mut behind = Box::pin(gate.enter(NOW, ASKED));
    assert!((&mut behind).now_or_never().is_none());
    asked.end(Health::Down, NOW);
    assert!(matches!(behind.now_or_never(), Some(Admitted::Now(_))));
}

/// One of a host's URLs, which was not answered so often in a row.
fn one(url: u64, unanswered: u32) -> Want {
    Want { url: Some(url), unanswered, ..ANY }
}

fn pass_of(gate: &Arc<Gate>, now: Millis, want: Want) -> Pass {
    match gate.enter(now, want).now_or_never() {
        Some(Admitted::Now(pass)) => pass,
        other => panic!("{other:?}"),
    }
}

fn away_of(gate: &Arc<Gate>, now: Millis, want: Want) -> Millis {
    match gate.enter(now, want).now_or_never() {
        Some(Admitted::Later(at)) => at,
        other => panic!("{other:?}"),
    }
}

/// As many as there are permits for it.
const PLACES: u64 = (limits::GATE_FRESH + limits::GATE_FIRST) as u64;

/// A gate that URLs from 0 on have closed by not answering.
fn closed_by_silence() -> Arc<Gate> {
    let gate = Arc::default();
    for url in 0..u64::from(FAILURES) {
        pass_of(&gate, NOW, one(url, 0)).end(Health::Silent, NOW);
    }
    assert!(gate.lock().closed.is_some());
    gate
}

#[test]
fn urls_that_leave_everything_unanswered_keep_none_waiting_that_has_not_however_many_they_are() {
    let gate = closed_by_silence();
    for url in 10..1_000 {
        pass_of(&gate, NOW, one(url, 0)).end(Health::Silent, NOW);
        away_of(&gate, NOW, one(url, 1));
    }
    assert_eq!(pass_of(&gate, NOW, one(1_000, 0)).end(Health::Well, NOW), Turned::Back);
    pass_of(&gate, NOW, one(0, 3));
}

#[test]
fn where_many_urls_hang_that_came_before_it_a_new_one_is_let_through_within_two_turns() {
    let gate: Arc<Gate> = Arc::default();
    let mut through: Vec<_> = (0..PLACES).map(|url| pass_of(&gate, NOW, one(url, 0))).collect();
    let mut waiting: Vec<_> = (100..116).map(|url| Box::pin(gate.enter(NOW, one(url, 0)))).collect();
    assert!(waiting.iter_mut().all(|waiting| waiting.now_or_never().is_none()));
    let mut turns = Vec::new();
    for _ in 0..4 {
        through.remove(0).end(Health::Silent, NOW);
        let turn = waiting.iter_mut().position(|waiting| match waiting.now_or_never() {
            Some(Admitted::Now(pass)) => {
                through.push(pass);
                true
            }
            _ => false,
        });
        drop(waiting.remove(turn.unwrap()));
        turns.extend(turn);
    }
    assert_eq!(turns, [0, 14, 0, 12], "the one that waits longest, and the one that came last");
}

#[test]
fn a_url_has_one_of_the_places_for_those_that_leave_nothing_unanswered_and_none_once_it_has() {
    let gate: Arc<Gate> = Arc::default();
    let mut of_one: Vec<_> = (0..=limits::GATE_FIRST).map(|_| pass_of(&gate, NOW, one(7, 0))).collect();
    let mut next = Box::pin(gate.enter(NOW, one(7, 0)));
    assert!((&mut next).now_or_never().is_none(), "a receiver that hangs holds few sockets");
    drop(pass_of(&gate, NOW, one(8, 0)));
    of_one.remove(0).end(Health::Silent, NOW);
    assert!(matches!(next.now_or_never(), Some(Admitted::Later(_))), "few wait for it from now on");
    assert!(gate.enter(NOW, one(7, 0)).now_or_never().is_none(), "another message to it gets none of the others");
    of_one.pop().unwrap().end(Health::Answers, NOW);
    let _usual = pass_of(&gate, NOW, ANY);
    pass_of(&gate, NOW, one(7, 0));
}

#[test]
fn at_a_closed_gate_the_url_goes_first_that_was_not_answered_least_often() {
    let gate = closed_by_silence();
    let until = NOW.plus(CLOSED_MILLIS);
    let mut back: Vec<_> =
        [5, 1, 3, 9].map(|times| (away_of(&gate, NOW, one(100 + times, times as u32)), times)).into();
    assert!(back.iter().all(|(at, _)| *at > until));
    back.sort_unstable();
    assert_eq!(back.iter().map(|(_, times)| *times).collect::<Vec<_>>(), [1, 3, 5, 9]);
    assert!(away_of(&gate, until, one(105, 5)) > back[0].0, "who comes first has no permit for it");
    let first = pass_of(&gate, back[0].0, one(101, 1));
    assert_eq!(first.end(Health::Well, until), Turned::Back);
    // A URL that has hung for one message is not new for another.
    let gate = closed_by_silence();
    for _ in 0..2 {
        let Some(Admitted::Now(asked)) = gate.enter(NOW, Want { retry_requested: true, ..one(7, 0) }).now_or_never()
        else {
            panic!("it was asked for")
        };
        asked.end(Health::Silent, NOW);
    }
    assert!(away_of(&gate, NOW, one(7, 0)) > away_of(&gate, NOW, one(101, 1)).plus(2_000));
}

#[test]
fn where_nobody_is_there_new_urls_wait_like_the_others_and_find_out_when_somebody_is() {
    let gate: Arc<Gate> = Arc::default();
    for url in 0..u64::from(FAILURES) {
        pass_of(&gate, NOW, one(url, 0)).end(Health::Down, NOW);
    }
    assert!(away_of(&gate, NOW, one(100, 0)) > NOW.plus(CLOSED_MILLIS));
    let until = NOW.plus(CLOSED_MILLIS);
    let probe = pass_of(&gate, until, one(100, 0));
    away_of(&gate, until, one(101, 0));
    // Somebody is there, and only this URL hangs.
    probe.end(Health::Silent, until);
    let (mut through, mut waiting) = (Vec::new(), Vec::new());
    for url in 200..200 + PLACES {
        let mut one = Box::pin(gate.enter(until, one(url, 0)));
        match (&mut one).now_or_never() {
            Some(Admitted::Now(pass)) => through.push(pass),
            Some(other) => panic!("{other:?}"),
            None => waiting.push(one),
        }
    }
    assert_eq!((through.len(), waiting.len()), (limits::GATE_FRESH, limits::GATE_FIRST));
    through.pop().unwrap().end(Health::Down, until);
    assert!(waiting.into_iter().all(|one| matches!(one.now_or_never(), Some(Admitted::Later(_)))));
}

#[test]
fn of_new_urls_past_those_that_may_wait_one_that_comes_for_the_first_time_waits_and_others_come_back_soon() {
    let gate = closed_by_silence();
    let _through: Vec<_> = (100..100 + limits::GATE_FRESH as u64).map(|url| pass_of(&gate, NOW, one(url, 0))).collect();
    let most = 200 + limits::GATE_FEW_WAITING as u64;
    let mut waiting: Vec<_> = (200..most).map(|url| Box::pin(gate.enter(NOW, one(url, 0)))).collect();
    assert!(waiting.iter_mut().all(|waiting| waiting.now_or_never().is_none()));
    let soon = |at: Millis| (CROWDED_MILLIS..CLOSED_MILLIS).contains(&at.since(NOW));
    assert!(soon(away_of(&gate, NOW, Want { returns: true, ..one(most, 0) })));
    let mut newest = Box::pin(gate.enter(NOW, one(most, 0)));
    assert!((&mut newest).now_or_never().is_none());
    assert!(matches!(waiting.pop().unwrap().now_or_never(), Some(Admitted::Later(at)) if soon(at)));
    assert!(waiting.iter_mut().all(|waiting| waiting.now_or_never().is_none()));
}

#[test]
fn of_urls_that_were_not_answered_the_latest_are_remembered() {
    let gate: Arc<Gate> = Arc::default();
    for url in 0..=limits::GATE_SILENT as u64 {
        pass_of(&gate, NOW, one(url, 0)).end(Health::Silent, NOW);
    }
    let known = |url| gate.lock().silent.iter().any(|(known, _)| *known == url);
    assert!(!known(0) && known(1) && known(limits::GATE_SILENT as u64));
    let asked = Want { retry_requested: true, ..one(1, 0) };
    let Some(Admitted::Now(asked)) = gate.enter(NOW, asked).now_or_never() else { panic!("it was asked for") };
    asked.end(Health::Answers, NOW);
    assert!(!known(1));
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
