use futures_util::FutureExt;

use super::super::return_times::{CROWDED_MILLIS, MAX_RETURN_MILLIS};
use super::state::{FAILURES, MAX_TRIPPED_MILLIS, TRIPPED_MILLIS};
use super::*;

const NOW: Millis = Millis(1_000_000);
const ANY: SendRequest = SendRequest { retry_requested: false, url: None, unanswered: 0, returns: false };
const REQUESTED: SendRequest = SendRequest { retry_requested: true, ..ANY };

fn enter(breaker: &Arc<CircuitBreaker>, now: Millis) -> Option<Admitted> {
    breaker.enter(now, ANY).now_or_never()
}

fn pass(breaker: &Arc<CircuitBreaker>, now: Millis) -> Pass {
    match enter(breaker, now) {
        Some(Admitted::Now(pass)) => pass,
        other => panic!("{other:?}"),
    }
}

fn return_time(breaker: &Arc<CircuitBreaker>, now: Millis) -> Millis {
    match enter(breaker, now) {
        Some(Admitted::Later(at)) => at,
        other => panic!("{other:?}"),
    }
}

fn tripped() -> Arc<CircuitBreaker> {
    let breaker = Arc::default();
    for failures in 1..=FAILURES {
        let change = if failures == FAILURES { HealthChange::Paused } else { HealthChange::Nothing };
        assert_eq!(pass(&breaker, NOW).end(Health::Down, NOW), change);
    }
    breaker
}

#[test]
fn a_receiver_gets_few_at_once_and_more_with_each_success() {
    let breaker: Arc<CircuitBreaker> = Arc::default();
    for _ in 0..3 {
        pass(&breaker, NOW).end(Health::Well, NOW);
    }
    let through: Vec<_> = (0..limits::BREAKER_FIRST + 3).map(|_| pass(&breaker, NOW)).collect();
    assert!(enter(&breaker, NOW).is_none(), "the next one waits");
    drop(through);
    for _ in 0..limits::MAX_BREAKER_PERMITS * 2 {
        pass(&breaker, NOW).end(Health::Well, NOW);
    }
    let through: Vec<_> = (0..limits::MAX_BREAKER_PERMITS).map(|_| pass(&breaker, NOW)).collect();
    assert!(enter(&breaker, NOW).is_none());
    drop(through);
    pass(&breaker, NOW);
}

#[test]
fn waiting_senders_are_admitted_in_order_and_departed_ones_are_skipped() {
    let breaker: Arc<CircuitBreaker> = Arc::default();
    let mut through: Vec<_> = (0..limits::BREAKER_FIRST).map(|_| pass(&breaker, NOW)).collect();
    let mut waiting: Vec<_> = (0..3).map(|_| Box::pin(breaker.enter(NOW, ANY))).collect();
    assert!(waiting.iter_mut().all(|waiting| waiting.now_or_never().is_none()));
    drop(waiting.remove(0));
    through.pop();
    let Some(Admitted::Now(_pass)) = (&mut waiting[0]).now_or_never() else { panic!("it was its turn") };
    assert!((&mut waiting[1]).now_or_never().is_none());
}

#[test]
fn more_than_may_wait_are_refused_with_retry_after() {
    let breaker: Arc<CircuitBreaker> = Arc::default();
    let _through: Vec<_> = (0..limits::BREAKER_FIRST).map(|_| pass(&breaker, NOW)).collect();
    let mut waiting: Vec<_> = (0..limits::BREAKER_WAITING).map(|_| Box::pin(breaker.enter(NOW, ANY))).collect();
    assert!(waiting.iter_mut().all(|waiting| waiting.now_or_never().is_none()));
    assert!(return_time(&breaker, NOW) >= NOW.plus(CROWDED_MILLIS));
}

#[test]
fn a_departed_waiter_frees_its_place_in_the_queue() {
    let breaker: Arc<CircuitBreaker> = Arc::default();
    let _through: Vec<_> = (0..limits::BREAKER_FIRST).map(|_| pass(&breaker, NOW)).collect();
    let mut waiting: Vec<_> = (0..limits::BREAKER_WAITING).map(|_| Box::pin(breaker.enter(NOW, ANY))).collect();
    assert!(waiting.iter_mut().all(|waiting| waiting.now_or_never().is_none()));
    waiting.truncate(limits::BREAKER_WAITING - 1);
    let mut next = Box::pin(breaker.enter(NOW, ANY));
    assert!((&mut next).now_or_never().is_none(), "one has left");
    assert!(return_time(&breaker, NOW) >= NOW.plus(CROWDED_MILLIS), "nobody has since");
}

#[test]
fn failures_in_a_row_stop_all_sending_but_rare_probes() {
    let breaker: Arc<CircuitBreaker> = Arc::default();
    for _ in 0..FAILURES - 1 {
        pass(&breaker, NOW).end(Health::Down, NOW);
    }
    pass(&breaker, NOW).end(Health::Well, NOW);
    for _ in 0..FAILURES - 1 {
        pass(&breaker, NOW).end(Health::Down, NOW);
    }
    pass(&breaker, NOW).end(Health::Down, NOW);
    let mut until = NOW.plus(TRIPPED_MILLIS);
    for tripped in [2 * TRIPPED_MILLIS, 4 * TRIPPED_MILLIS, 8 * TRIPPED_MILLIS, MAX_TRIPPED_MILLIS, MAX_TRIPPED_MILLIS]
    {
        assert!(return_time(&breaker, Millis(until.0 - 1)) > until);
        let probe = pass(&breaker, until);
        assert!(return_time(&breaker, until) > until.plus(TRIPPED_MILLIS), "one at a time");
        probe.end(Health::Down, until);
        until = until.plus(tripped);
    }
    assert_eq!(pass(&breaker, until).end(Health::Well, until), HealthChange::Recovered);
    pass(&breaker, until);
}

#[test]
fn senders_return_to_a_tripped_breaker_one_by_one_within_bounds() {
    let breaker = tripped();
    let mut times: Vec<_> = (0..200_000).map(|_| return_time(&breaker, NOW)).collect();
    assert!(times.is_sorted());
    assert!(times[0] > NOW.plus(TRIPPED_MILLIS));
    assert_eq!(times.last(), Some(&NOW.plus(MAX_RETURN_MILLIS)));
    times.truncate(100_000);
    times.dedup();
    assert_eq!(times.len(), 100_000, "no two at once");
}

#[test]
fn a_tripping_breaker_sends_its_waiters_away() {
    let breaker: Arc<CircuitBreaker> = Arc::default();
    let through: Vec<_> = (0..limits::BREAKER_FIRST).map(|_| pass(&breaker, NOW)).collect();
    let mut waiting = Box::pin(breaker.enter(NOW, ANY));
    assert!((&mut waiting).now_or_never().is_none());
    breaker.lock().failures = FAILURES - 1;
    for pass in through {
        pass.end(Health::Down, NOW);
    }
    assert!(matches!(waiting.now_or_never(), Some(Admitted::Later(at)) if at > NOW.plus(TRIPPED_MILLIS)));
}

#[test]
fn a_requested_retry_passes_a_tripped_breaker_and_may_reset_it() {
    let breaker = tripped();
    let Some(Admitted::Now(requested)) = breaker.enter(NOW, REQUESTED).now_or_never() else {
        panic!("it was asked for")
    };
    assert_eq!(requested.end(Health::Well, NOW), HealthChange::Recovered);
    pass(&breaker, NOW);
}

#[test]
fn a_requested_delivery_waits_only_for_another_requested_one() {
    let breaker: Arc<CircuitBreaker> = Arc::default();
    let mut through: Vec<_> = (0..limits::BREAKER_FIRST).map(|_| pass(&breaker, NOW)).collect();
    let mut waiting = Box::pin(breaker.enter(NOW, ANY));
    assert!((&mut waiting).now_or_never().is_none());
    let Some(Admitted::Now(requested)) = breaker.enter(NOW, REQUESTED).now_or_never() else {
        panic!("it was asked for")
    };
    let mut next = Box::pin(breaker.enter(NOW, REQUESTED));
    assert!((&mut next).now_or_never().is_none(), "one at a time");
    through.pop();
    let Some(Admitted::Now(next)) = next.now_or_never() else { panic!("whatever permit is free is for it") };
    assert!((&mut waiting).now_or_never().is_none());
    breaker.lock().failures = FAILURES - 1;
    assert_eq!(next.end(Health::Down, NOW), HealthChange::Paused);
    let mut last = Box::pin(breaker.enter(NOW, REQUESTED));
    let taken = last.as_mut().now_or_never();
    assert!(matches!(taken, Some(Admitted::Now(_))), "one permit is free, although it is tripped");
    let mut after_it = Box::pin(breaker.enter(NOW, REQUESTED));
    assert!((&mut after_it).now_or_never().is_none());
    requested.end(Health::Down, NOW);
    assert!(matches!(after_it.now_or_never(), Some(Admitted::Now(_))));
}

/// One of a host's URLs, which was not answered so often in a row.
fn one(url: u64, unanswered: u32) -> SendRequest {
    SendRequest { url: Some(url), unanswered, ..ANY }
}

fn pass_of(breaker: &Arc<CircuitBreaker>, now: Millis, request: SendRequest) -> Pass {
    match breaker.enter(now, request).now_or_never() {
        Some(Admitted::Now(pass)) => pass,
        other => panic!("{other:?}"),
    }
}

fn return_time_of(breaker: &Arc<CircuitBreaker>, now: Millis, request: SendRequest) -> Millis {
    match breaker.enter(now, request).now_or_never() {
        Some(Admitted::Later(at)) => at,
        other => panic!("{other:?}"),
    }
}

/// As many as there are permits for it.
const PLACES: u64 = (limits::BREAKER_FRESH + limits::BREAKER_FIRST) as u64;

/// A breaker that URLs from 0 on have tripped by not answering.
fn tripped_by_silence() -> Arc<CircuitBreaker> {
    let breaker = Arc::default();
    for url in 0..u64::from(FAILURES) {
        pass_of(&breaker, NOW, one(url, 0)).end(Health::Silent, NOW);
    }
    assert!(breaker.lock().tripped.is_some());
    breaker
}

#[test]
fn silent_urls_keep_no_answering_url_waiting_however_many_they_are() {
    let breaker = tripped_by_silence();
    for url in 10..1_000 {
        pass_of(&breaker, NOW, one(url, 0)).end(Health::Silent, NOW);
        return_time_of(&breaker, NOW, one(url, 1));
    }
    assert_eq!(pass_of(&breaker, NOW, one(1_000, 0)).end(Health::Well, NOW), HealthChange::Recovered);
    pass_of(&breaker, NOW, one(0, 3));
}

#[test]
fn a_new_url_gets_through_within_two_turns_though_many_hang() {
    let breaker: Arc<CircuitBreaker> = Arc::default();
    let mut through: Vec<_> = (0..PLACES).map(|url| pass_of(&breaker, NOW, one(url, 0))).collect();
    let mut waiting: Vec<_> = (100..116).map(|url| Box::pin(breaker.enter(NOW, one(url, 0)))).collect();
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
fn a_url_loses_its_place_among_new_ones_once_it_hangs() {
    let breaker: Arc<CircuitBreaker> = Arc::default();
    let mut of_one: Vec<_> = (0..=limits::BREAKER_FIRST).map(|_| pass_of(&breaker, NOW, one(7, 0))).collect();
    let mut next = Box::pin(breaker.enter(NOW, one(7, 0)));
    assert!((&mut next).now_or_never().is_none(), "a receiver that hangs holds few sockets");
    drop(pass_of(&breaker, NOW, one(8, 0)));
    of_one.remove(0).end(Health::Silent, NOW);
    assert!(matches!(next.now_or_never(), Some(Admitted::Later(_))), "few wait for it from now on");
    assert!(breaker.enter(NOW, one(7, 0)).now_or_never().is_none(), "another message to it gets none of the others");
    of_one.pop().unwrap().end(Health::Answers, NOW);
    let _usual = pass_of(&breaker, NOW, ANY);
    pass_of(&breaker, NOW, one(7, 0));
}

#[test]
fn a_tripped_breaker_lets_the_url_with_fewest_failures_go_first() {
    let breaker = tripped_by_silence();
    let until = NOW.plus(TRIPPED_MILLIS);
    let mut back: Vec<_> =
        [5, 1, 3, 9].map(|times| (return_time_of(&breaker, NOW, one(100 + times, times as u32)), times)).into();
    assert!(back.iter().all(|(at, _)| *at > until));
    back.sort_unstable();
    assert_eq!(back.iter().map(|(_, times)| *times).collect::<Vec<_>>(), [1, 3, 5, 9]);
    assert!(return_time_of(&breaker, until, one(105, 5)) > back[0].0, "who comes first has no permit for it");
    let first = pass_of(&breaker, back[0].0, one(101, 1));
    assert_eq!(first.end(Health::Well, until), HealthChange::Recovered);
    // A URL that has hung for one message is not new for another.
    let breaker = tripped_by_silence();
    for _ in 0..2 {
        let Some(Admitted::Now(requested)) =
            breaker.enter(NOW, SendRequest { retry_requested: true, ..one(7, 0) }).now_or_never()
        else {
            panic!("it was asked for")
        };
        requested.end(Health::Silent, NOW);
    }
    assert!(return_time_of(&breaker, NOW, one(7, 0)) > return_time_of(&breaker, NOW, one(101, 1)).plus(2_000));
}

#[test]
fn new_urls_wait_while_a_receiver_is_down() {
    let breaker: Arc<CircuitBreaker> = Arc::default();
    for url in 0..u64::from(FAILURES) {
        pass_of(&breaker, NOW, one(url, 0)).end(Health::Down, NOW);
    }
    assert!(return_time_of(&breaker, NOW, one(100, 0)) > NOW.plus(TRIPPED_MILLIS));
    let until = NOW.plus(TRIPPED_MILLIS);
    let probe = pass_of(&breaker, until, one(100, 0));
    return_time_of(&breaker, until, one(101, 0));
    // Somebody is there, and only this URL hangs.
    probe.end(Health::Silent, until);
    let mut through = Vec::new();
    let mut waiting = Vec::new();
    for url in 200..200 + PLACES {
        let mut one = Box::pin(breaker.enter(until, one(url, 0)));
        match (&mut one).now_or_never() {
            Some(Admitted::Now(pass)) => through.push(pass),
            Some(other) => panic!("{other:?}"),
            None => waiting.push(one),
        }
    }
    assert_eq!((through.len(), waiting.len()), (limits::BREAKER_FRESH, limits::BREAKER_FIRST));
    through.pop().unwrap().end(Health::Down, until);
    assert!(waiting.into_iter().all(|one| matches!(one.now_or_never(), Some(Admitted::Later(_)))));
}

/// It takes the place of another one, which comes back soon.
#[test]
fn a_first_comer_waits_although_new_urls_are_past_their_bound() {
    let breaker = tripped_by_silence();
    let _through: Vec<_> =
        (100..100 + limits::BREAKER_FRESH as u64).map(|url| pass_of(&breaker, NOW, one(url, 0))).collect();
    let most = 200 + limits::BREAKER_FEW_WAITING as u64;
    let mut waiting: Vec<_> = (200..most).map(|url| Box::pin(breaker.enter(NOW, one(url, 0)))).collect();
    assert!(waiting.iter_mut().all(|waiting| waiting.now_or_never().is_none()));
    let soon = |at: Millis| (CROWDED_MILLIS..TRIPPED_MILLIS).contains(&at.since(NOW));
    assert!(soon(return_time_of(&breaker, NOW, SendRequest { returns: true, ..one(most, 0) })));
    let mut newest = Box::pin(breaker.enter(NOW, one(most, 0)));
    assert!((&mut newest).now_or_never().is_none());
    assert!(matches!(waiting.pop().unwrap().now_or_never(), Some(Admitted::Later(at)) if soon(at)));
    assert!(waiting.iter_mut().all(|waiting| waiting.now_or_never().is_none()));
}

#[test]
fn the_breaker_remembers_only_the_latest_silent_urls() {
    let breaker: Arc<CircuitBreaker> = Arc::default();
    for url in 0..=limits::BREAKER_SILENT as u64 {
        pass_of(&breaker, NOW, one(url, 0)).end(Health::Silent, NOW);
    }
    let known = |url| breaker.lock().silent.iter().any(|(known, _)| *known == url);
    assert!(!known(0) && known(1) && known(limits::BREAKER_SILENT as u64));
    let requested = SendRequest { retry_requested: true, ..one(1, 0) };
    let Some(Admitted::Now(requested)) = breaker.enter(NOW, requested).now_or_never() else {
        panic!("it was asked for")
    };
    requested.end(Health::Answers, NOW);
    assert!(!known(1));
}

#[test]
fn a_probe_that_was_cut_off_leaves_the_place_to_the_next() {
    let breaker = tripped();
    let until = NOW.plus(TRIPPED_MILLIS);
    drop(pass(&breaker, until));
    assert_eq!(pass(&breaker, until).end(Health::Down, until), HealthChange::Nothing);
}

#[test]
fn a_clock_set_back_keeps_a_breaker_tripped_at_most_twice_as_long() {
    let breaker = tripped();
    let by_little = Millis(NOW.0 - TRIPPED_MILLIS);
    return_time(&breaker, by_little);
    let by_more = Millis(NOW.0 - 100 * TRIPPED_MILLIS);
    let probe = pass(&breaker, by_more);
    // One at a time.
    return_time(&breaker, by_more);
    probe.end(Health::Down, by_more);
    let until = by_more.plus(2 * TRIPPED_MILLIS);
    return_time(&breaker, Millis(until.0 - 1));
    pass(&breaker, until).end(Health::Well, until);
}

#[test]
fn breakers_of_receivers_that_are_well_are_forgotten() {
    let breakers = CircuitBreakers::default();
    let held = pass(&breakers.of([1; 16]), NOW);
    pass(&breakers.of([2; 16]), NOW).end(Health::Well, NOW);
    pass(&breakers.of([3; 16]), NOW).end(Health::Down, NOW);
    breakers.sweep();
    assert!(breakers.breakers.contains_key(&[1; 16]) && breakers.breakers.contains_key(&[3; 16]));
    assert!(!breakers.breakers.contains_key(&[2; 16]));
    drop(held);
    for _ in 0..FAILURES {
        pass(&breakers.of([4; 16]), NOW).end(Health::Down, NOW);
    }
    breakers.sweep();
    assert_eq!(breakers.open_circuits(), 1);
}
