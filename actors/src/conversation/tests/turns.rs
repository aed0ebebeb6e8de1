//! Turns and what a message does while one runs.

use super::*;
use crate::limits;
use crate::store::SeqRange;
use crate::tables::{REQUESTED_TURNS, RETRY_ROWS};

/// A conversation with a running turn 1.
fn busy() -> Sim<Conversation> {
    let mut sim = nothing();
    let (_, turn) = posted(sim.run(&post_with_turn("first", BusyPolicy::Queue)));
    assert_eq!(turn.map(|turn| (turn.id.number, turn.status, turn.attempt)), Some((1, TurnStatus::Running, 1)));
    sim
}

/// A policy; the events of a second and of a third message; who runs and who waits then.
type Case<'a> = (BusyPolicy, &'a [&'a str], &'a [&'a str], u64, &'a [u64]);

fn queued(sim: &Sim<Conversation>) -> Vec<u64> {
    sim.state.as_ref().unwrap().queued.iter().map(|turn| turn.id.number).collect()
}

fn running(sim: &Sim<Conversation>) -> Option<(u64, u32)> {
    sim.state.as_ref().unwrap().running.as_ref().map(|turn| (turn.id.number, turn.attempt))
}

fn stored(sim: &Sim<Conversation>, number: u64) -> Turn {
    crate::codec::decode(&sim.rows[&(TURNS, number_key(number))]).unwrap()
}

#[test]
fn a_message_starts_a_turn_where_none_runs_whatever_the_policy() {
    for policy in [BusyPolicy::Queue, BusyPolicy::Merge, BusyPolicy::Latest, BusyPolicy::Reject, BusyPolicy::Interrupt]
    {
        let mut sim = opened();
        let known = sim.log.len();
        let (messages, turn) = posted(sim.run(&post_with_turn("hi", policy)));
        assert_eq!(names(&sim.since(known)), ["message.created", "turn.started"]);
        let turn = turn.unwrap();
        assert_eq!(turn.trigger, Some(messages[0].id.number));
        assert_eq!(messages[0].turn, Some(turn.id));
        assert_eq!(stored(&sim, 1), turn);
    }
}

#[test]
fn every_busy_policy_is_applied_while_a_turn_runs() {
    let message_queued = ["message.created", "mark"];
    let table: [Case<'_>; 4] = [
        (BusyPolicy::Queue, &message_queued, &message_queued, 1, &[2, 3]),
        (BusyPolicy::Merge, &message_queued, &message_queued, 1, &[2]),
        (BusyPolicy::Latest, &message_queued, &["message.created", "turn.cancelled", "mark"], 1, &[3]),
        (
            BusyPolicy::Interrupt,
            &["message.created", "turn.cancelled", "turn.started"],
            &["message.created", "turn.cancelled", "turn.started"],
            3,
            &[],
        ),
    ];
    for (policy, second, third, runs, waits) in table {
        let mut sim = busy();
        for expected in [second, third] {
            let known = sim.log.len();
            let (messages, turn) = posted(sim.run(&post_with_turn("more", policy)));
            assert_eq!(names(&sim.since(known)), expected, "{policy:?}");
            let turn = turn.unwrap();
            assert_eq!(messages[0].turn, Some(turn.id));
            assert_eq!(stored(&sim, turn.id.number).trigger, Some(messages[0].id.number));
        }
        assert_eq!((running(&sim).map(|turn| turn.0), queued(&sim)), (Some(runs), waits.to_vec()), "{policy:?}");
    }
    let mut sim = busy();
    let before = sim.seq;
    assert_eq!(sim.run(&post_with_turn("more", BusyPolicy::Reject)), Err(Rejection::TurnInProgress));
    assert_eq!(sim.seq, before, "nothing is stored");
}

#[test]
fn a_turn_that_gets_none_of_its_own_is_stored_as_cancelled() {
    let mut sim = busy();
    posted(sim.run(&post_with_turn("b", BusyPolicy::Latest)));
    posted(sim.run(&post_with_turn("c", BusyPolicy::Latest)));
    assert_eq!(stored(&sim, 2).status, TurnStatus::Cancelled);
    posted(sim.run(&post_with_turn("d", BusyPolicy::Interrupt)));
    assert_eq!(stored(&sim, 1).status, TurnStatus::Cancelled);
    assert_eq!(running(&sim), Some((4, 1)));
}

#[test]
fn turns_run_one_after_the_other_in_order() {
    let mut sim = busy();
    for _ in 0..2 {
        posted(sim.run(&post_with_turn("more", BusyPolicy::Queue)));
    }
    let known = sim.log.len();
    let turn = turned(sim.run(&done(1, 1, &["a", "b"])));
    assert_eq!(names(&sim.since(known)), ["message.created", "message.created", "turn.completed", "turn.started"]);
    let first = turn.replies.unwrap().first;
    assert_eq!(turn.replies, Some(SeqRange::new(first, first + 1)));
    let reply = sim.log.iter().find(|(record, _)| record.seq == first && message_of(record).is_some()).unwrap();
    assert_eq!(message_of(&reply.0).unwrap().turn, Some(turn.id));
    assert_eq!(running(&sim), Some((2, 1)));
    turned(sim.run(&failed(2, 1)));
    assert_eq!((running(&sim), stored(&sim, 2).status), (Some((3, 1)), TurnStatus::Failed));
    assert_eq!(turned(sim.run(&done(3, 1, &[]))).replies, None);
    assert_eq!((running(&sim), queued(&sim)), (None, vec![]));
}

#[test]
fn an_outcome_of_another_than_the_current_attempt_is_ignored() {
    let mut sim = busy();
    sim.now = NOW.plus(1_000);
    sim.run(&Command::Wake { lost: Some(Attempt { number: 1, attempt: 1 }) }).unwrap();
    assert_eq!(running(&sim), Some((1, 2)));
    let before = sim.log.len();
    for stale in [done(1, 1, &["late"]), done(1, 3, &["?"]), done(2, 2, &["?"]), failed(1, 1)] {
        assert_eq!(sim.run(&stale), Ok(Reply::Nothing), "{stale:?}");
    }
    assert_eq!(sim.log.len(), before);
    turned(sim.run(&done(1, 2, &["in time"])));
    assert_eq!(sim.run(&done(1, 2, &["twice"])), Ok(Reply::Nothing), "an outcome counts once");
}

#[test]
fn as_many_turns_wait_as_the_limit_says() {
    let mut sim = busy();
    for _ in 0..limits::QUEUED_TURNS {
        posted(sim.run(&post_with_turn("more", BusyPolicy::Queue)));
    }
    assert_eq!(sim.run(&post_with_turn("more", BusyPolicy::Queue)), Err(Rejection::TooManyTurns));
    assert_eq!(
        sim.run(&Command::StartTurn(StartTurn { agent: AGENT.to_owned(), key: None })),
        Err(Rejection::TooManyTurns)
    );
    posted(sim.run(&post_with_turn("joins", BusyPolicy::Merge)));
    assert_eq!(queued(&sim).len(), limits::QUEUED_TURNS);
}

#[test]
fn a_message_joins_only_the_newest_requested_turn_of_its_agent() {
    let mut sim = busy();
    turned(sim.run(&Command::StartTurn(StartTurn { agent: "another".to_owned(), key: None })));
    let (_, turn) = posted(sim.run(&post_with_turn("is not for it", BusyPolicy::Merge)));
    assert_eq!((turn.unwrap().agent.as_str(), queued(&sim)), (AGENT, vec![2, 3]));
    posted(sim.run(&post_with_turn("joins", BusyPolicy::Merge)));
    assert_eq!(queued(&sim), [2, 3]);
    let mut sim = busy();
    turned(sim.run(&failed(1, 1)));
    posted(sim.run(&post_with_turn("runs", BusyPolicy::Merge)));
    turned(sim.run(&Command::RetryTurn(RetryTurn { number: 1, agent: None })));
    posted(sim.run(&post_with_turn("knows what the second turn says", BusyPolicy::Merge)));
    assert_eq!((running(&sim).map(|turn| turn.0), queued(&sim)), (Some(2), vec![1, 3]));
    for _ in 2..limits::QUEUED_TURNS {
        turned(sim.run(&Command::StartTurn(StartTurn { agent: "another".to_owned(), key: None })));
    }
    assert_eq!(sim.run(&post_with_turn("finds no room", BusyPolicy::Merge)), Err(Rejection::TooManyTurns));
}

#[test]
fn turns_that_are_tried_again_wait_within_the_same_limit() {
    let mut sim = opened();
    let turns = limits::QUEUED_TURNS as u64 + 2;
    for number in 1..=turns {
        turned(sim.run(&Command::StartTurn(StartTurn { agent: AGENT.to_owned(), key: None })));
        turned(sim.run(&failed(number, 1)));
    }
    for number in 1..turns {
        turned(sim.run(&Command::RetryTurn(RetryTurn { number, agent: None })));
    }
    assert_eq!(sim.run(&Command::RetryTurn(RetryTurn { number: turns, agent: None })), Err(Rejection::TooManyTurns));
}

#[test]
fn a_failed_turn_is_tried_again_and_others_are_not() {
    let mut sim = busy();
    assert_eq!(sim.run(&Command::RetryTurn(RetryTurn { number: 2, agent: None })), Err(Rejection::TurnNotFound));
    assert_eq!(
        turned(sim.run(&Command::RetryTurn(RetryTurn { number: 1, agent: None }))).status,
        TurnStatus::Running,
        "it runs already"
    );
    turned(sim.run(&failed(1, 1)));
    let turn = turned(sim.run(&Command::RetryTurn(RetryTurn { number: 1, agent: None })));
    assert_eq!((turn.status, turn.attempt, turn.failure, turn.ended_at), (TurnStatus::Running, 2, None, None));
    turned(sim.run(&done(1, 2, &["ok"])));
    assert_eq!(
        sim.run(&Command::RetryTurn(RetryTurn { number: 1, agent: None })),
        Err(Rejection::TurnNotPossible(TurnStatus::Completed))
    );
    posted(sim.run(&post_with_turn("b", BusyPolicy::Queue)));
    turned(sim.run(&failed(2, 1)));
    posted(sim.run(&post_with_turn("c", BusyPolicy::Queue)));
    let waits = turned(sim.run(&Command::RetryTurn(RetryTurn { number: 2, agent: None })));
    assert_eq!((waits.status, waits.failure, queued(&sim)), (TurnStatus::Queued, None, vec![2]));
    turned(sim.run(&done(3, 1, &[])));
    assert_eq!(running(&sim), Some((2, 2)), "its next attempt");
    turned(sim.run(&failed(2, 2)));
    sim.run(&Command::Update(Update { closed: Some(true), ..Update::default() })).unwrap();
    let turn = turned(sim.run(&Command::RetryTurn(RetryTurn { number: 2, agent: None })));
    assert_eq!(turn.status, TurnStatus::Running, "its message was accepted before the conversation was closed");
    turned(sim.run(&done(2, 3, &["late"])));
}

#[test]
fn a_cancelled_turn_makes_room_for_the_next() {
    let mut sim = busy();
    for _ in 0..2 {
        posted(sim.run(&post_with_turn("more", BusyPolicy::Queue)));
    }
    assert_eq!(turned(sim.run(&Command::CancelTurn(CancelTurn { number: 2 }))).status, TurnStatus::Cancelled);
    assert_eq!((running(&sim), queued(&sim)), (Some((1, 1)), vec![3]), "one that waits leaves the queue");
    let known = sim.log.len();
    turned(sim.run(&Command::CancelTurn(CancelTurn { number: 1 })));
    assert_eq!(names(&sim.since(known)), ["turn.cancelled", "turn.started"]);
    assert_eq!((running(&sim), queued(&sim)), (Some((3, 1)), vec![]));
    assert_eq!(sim.run(&done(1, 1, &["late"])), Ok(Reply::Nothing), "a cancelled turn says nothing more");
    for (number, expected) in [(1, Rejection::TurnNotPossible(TurnStatus::Cancelled)), (9, Rejection::TurnNotFound)] {
        assert_eq!(sim.run(&Command::CancelTurn(CancelTurn { number })), Err(expected));
    }
}

#[test]
fn a_lost_attempt_is_followed_by_the_next_until_they_are_used_up() {
    let mut sim = busy();
    posted(sim.run(&post_with_turn("more", BusyPolicy::Queue)));
    for attempt in 1..=limits::TURN_ATTEMPTS {
        let lost = Some(Attempt { number: 1, attempt });
        sim.now = Conversation::alarm(sim.state.as_ref().unwrap()).unwrap();
        let before = sim.log.len();
        sim.run(&Command::Wake { lost: None }).unwrap();
        sim.run(&Command::Wake { lost: Some(Attempt { number: 1, attempt: attempt - 1 }) }).unwrap();
        assert_eq!(sim.log.len(), before, "only the attempt that runs can be lost");
        sim.run(&Command::Wake { lost }).unwrap();
    }
    let turn = stored(&sim, 1);
    assert_eq!((turn.status, turn.attempt), (TurnStatus::Failed, limits::TURN_ATTEMPTS));
    assert_eq!(turn.failure.unwrap().code, "attempts_exhausted");
    assert_eq!(running(&sim), Some((2, 1)), "the next one goes on");
}

#[test]
fn rows_for_a_retry_are_deleted_once_their_key_has_expired() {
    let mut sim = busy();
    let key = |n: u8| crate::store::KeyHash([n; 16]);
    let ask = |n: u8| Command::StartTurn(StartTurn { agent: AGENT.to_owned(), key: Some(key(n)) });
    let kept = |sim: &Sim<Conversation>| {
        let known =
            |table| sim.rows.keys().filter(|(of, _)| *of == table).map(|(_, key)| key.clone()).collect::<Vec<_>>();
        assert_eq!(known(REQUESTED_TURNS).len(), known(RETRY_ROWS).len());
        known(REQUESTED_TURNS).iter().map(|key| key[0]).collect::<Vec<_>>()
    };
    let begun = sim.now;
    for n in 1..=3 {
        sim.now = begun.plus(u64::from(n));
        turned(sim.run(&ask(n)));
    }
    sim.now = begun.plus(limits::KEY_KEPT_MILLIS + 2);
    turned(sim.run(&Command::StartTurn(StartTurn { agent: AGENT.to_owned(), key: None })));
    assert_eq!(kept(&sim), [1, 2, 3], "nothing is written that is kept for a while");
    // A key whose time is over is used again.
    turned(sim.run(&ask(2)));
    assert_eq!(kept(&sim), [2, 3]);
    sim.now = begun.plus(2 * limits::KEY_KEPT_MILLIS + 10);
    turned(sim.run(&ask(4)));
    assert_eq!(kept(&sim), [4]);
}

#[test]
fn a_key_that_is_used_again_keeps_its_new_row_while_its_old_one_is_deleted() {
    let mut sim = busy();
    let key = |n: u8| crate::store::KeyHash([n; 16]);
    let ask = |n: u8| Command::StartTurn(StartTurn { agent: AGENT.to_owned(), key: Some(key(n)) });
    // More than are deleted at once.
    (1..=20).for_each(|n| drop(turned(sim.run(&ask(n)))));
    // One of the first release has no time.
    let old = sim.rows.keys().find(|(table, key)| *table == REQUESTED_TURNS && key[0] == 19).unwrap().clone();
    let value = sim.rows.remove(&old).unwrap();
    sim.rows.insert((REQUESTED_TURNS, Bytes::copy_from_slice(&key(19).0)), value);
    sim.rows.retain(|(table, key), _| *table != RETRY_ROWS || key[9] != 19);
    sim.rows.insert(
        (RETRY_ROWS, [&sim.now.0.to_be_bytes()[..], &[REQUESTED_TURNS.0], &[19; 16]].concat().into()),
        Bytes::new(),
    );
    sim.now = sim.now.plus(limits::KEY_KEPT_MILLIS);
    let again = turned(sim.run(&ask(20))).id.number;
    turned(sim.run(&ask(21)));
    let rows: Vec<_> = sim.rows.iter().filter(|((table, _), _)| *table == REQUESTED_TURNS).collect();
    assert_eq!(rows.iter().map(|((_, key), _)| key[0]).collect::<Vec<_>>(), [20, 21]);
    assert_eq!(super::super::turn::parse_requested_turn(rows[0].1).unwrap().0, again);
}

#[test]
fn damage_among_what_is_kept_for_retries_refuses_no_request() {
    let mut sim = busy();
    sim.damaged = Some(RETRY_ROWS);
    turned(
        sim.run(&Command::StartTurn(StartTurn { agent: AGENT.to_owned(), key: Some(crate::store::KeyHash([1; 16])) })),
    );
}
