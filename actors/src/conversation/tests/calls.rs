//! Calls of tools as data: each has one result, in its place, however its turn goes on or ends.

use super::*;
use crate::codec;
use crate::limits;
use crate::message::{Json, ReviewStatus};
use crate::tables::{CALLS, ERRANDS};
use crate::tool::{Ask, Asker};

const LATER: u64 = 5_000;

fn ask() -> Ask {
    Ask { channel: "demo".to_owned(), content: content("may I?"), review_millis: None }
}

fn call(id: &str, ask: Option<Ask>) -> Call {
    Call { id: id.to_owned(), name: "tool".to_owned(), ask, wait: None, answered: false, given: None }
}

/// The attempt's model calls these tools.
fn step(attempt: u32, calls: Vec<Call>) -> Command {
    let tool_calls = Some(Json::from_checked("[{}]"));
    let message = Arc::new(Content { tool_calls, ..Content::text("assistant", message_sender(), "") });
    Command::StepTurn(Step { attempt: Attempt { number: 1, attempt }, message, calls, branch: None, usage: usage() })
}

fn answers(attempt: u32, results: &[&str], waits: &[&str]) -> Command {
    let results = results.iter().map(|id| ((*id).to_owned(), format!("result of {id}"))).collect();
    let waits = waits.iter().map(|id| ((*id).to_owned(), wait())).collect();
    Command::AnswerCalls(CallResults { attempt: Attempt { number: 1, attempt }, results, waits, is_lost: false })
}

fn wait() -> Wait {
    Wait { review: MessageId::new(NOW, Address([9; 10]), 2), expires_at: NOW.plus(600_000) }
}

fn end_wait(call: &str) -> Command {
    Command::EndWait(EndWait { number: 1, call: call.to_owned(), result: "decided".to_owned() })
}

fn turn(sim: &Sim<Conversation>) -> Turn {
    codec::decode(&sim.rows[&(TURNS, number_key(1))]).unwrap()
}

/// The messages that tools and their caller have in the log, as role and words.
fn steps(sim: &Sim<Conversation>) -> Vec<String> {
    let messages = sim.log.iter().filter_map(|(record, _)| message_of(record));
    let steps = messages.filter(|message| message.content.role != "user");
    steps.map(|m| format!("{} {}", m.content.role, m.content.text.clone().unwrap_or_default())).collect()
}

fn errands(sim: &Sim<Conversation>) -> Vec<Errand> {
    let rows = sim.rows.iter().filter(|((table, _), _)| *table == ERRANDS);
    rows.map(|(_, row)| codec::decode(row).unwrap()).collect()
}

/// A turn whose first attempt has called `a`, and `b` that asks people.
fn called() -> Sim<Conversation> {
    let mut sim = opened();
    posted(sim.run(&post_with_turn("hi", BusyPolicy::Queue)));
    turned(sim.run(&step(1, vec![call("a", None), call("b", Some(ask()))])));
    sim
}

/// The same, waiting for `b`.
fn waiting() -> Sim<Conversation> {
    let mut sim = called();
    turned(sim.run(&answers(1, &["a"], &["b"])));
    sim
}

#[test]
fn calls_are_recorded_before_their_results_and_each_once() {
    let mut sim = opened();
    posted(sim.run(&post_with_turn("hi", BusyPolicy::Queue)));
    let calls = || vec![call("a", None), call("b", None)];
    let known = sim.log.len();
    let after = turned(sim.run(&step(1, calls())));
    assert_eq!(names(&sim.since(known)), ["message.created", "mark"]);
    assert_eq!((after.rounds(), after.open_calls, after.status), (1, Some(2), TurnStatus::Running));
    let known = sim.log.len();
    assert_eq!(turned(sim.run(&step(1, calls()))), after, "said again, it is heard once");
    assert_eq!(sim.run(&step(1, vec![call("c", None)])), Ok(Reply::Nothing), "nothing else before that has results");
    assert_eq!(sim.log.len(), known);
    let after = turned(sim.run(&answers(1, &["b", "a"], &[])));
    assert_eq!((after.open_calls, after.status), (None, TurnStatus::Running));
    assert_eq!(turned(sim.run(&answers(1, &["b", "a"], &[]))), after);
    assert_eq!(steps(&sim), ["assistant ", "tool result of b", "tool result of a"]);
    assert!(!sim.rows.keys().any(|(table, _)| *table == CALLS), "nothing is open");
    turned(sim.run(&step(1, vec![call("c", None)])));
    assert_eq!(turn(&sim).usage.unwrap().output_tokens, 4, "usage adds up");
}

#[test]
fn a_turn_that_asked_people_waits_without_running_and_goes_on_once() {
    let mut sim = waiting();
    let waits = turn(&sim);
    assert_eq!((waits.status, waits.open_calls, waits.attempt), (TurnStatus::AwaitingReview, Some(1), 1));
    assert!(Conversation::alarm(sim.state.as_ref().unwrap()).unwrap() >= NOW.plus(60_000), "no ringing every second");
    assert_eq!(sim.run(&Command::Wake { lost: None }), Ok(Reply::Nothing));
    assert_eq!(sim.run(&done(1, 1, &["late"])), Ok(Reply::Nothing), "the attempt is over");
    let known = sim.log.len();
    let on = turned(sim.run(&end_wait("b")));
    assert_eq!(names(&sim.since(known)), ["message.created", "turn.started"]);
    assert_eq!((on.status, on.attempt, on.open_calls), (TurnStatus::Running, 2, None));
    assert_eq!(sim.run(&end_wait("b")), Ok(Reply::Nothing), "told twice, it goes on once");
    turned(sim.run(&done(1, 2, &["done"])));
    assert_eq!(steps(&sim), ["assistant ", "tool result of a", "tool decided", "assistant done"]);
}

#[test]
fn an_outcome_that_comes_before_its_wait_is_not_lost() {
    let mut sim = called();
    assert_eq!(turned(sim.run(&end_wait("b"))).status, TurnStatus::Running, "the attempt is still at it");
    let on = turned(sim.run(&answers(1, &["a"], &["b"])));
    assert_eq!((on.status, on.open_calls, on.attempt), (TurnStatus::Running, None, 1));
    assert_eq!(steps(&sim), ["assistant ", "tool decided", "tool result of a"]);
}

#[test]
fn a_lost_attempt_leaves_no_call_without_a_result_and_asks_people_again() {
    let mut sim = called();
    sim.now = NOW.plus(LATER);
    let lost = Some(Attempt { number: 1, attempt: 1 });
    let known = sim.log.len();
    sim.run(&Command::Wake { lost }).unwrap();
    assert_eq!(names(&sim.since(known)), ["message.created", "turn.started"]);
    assert!(steps(&sim)[1].contains("interrupted"), "{:?}", steps(&sim));
    let calls: Calls = codec::decode(&sim.rows[&(CALLS, number_key(1))]).unwrap();
    let open: Vec<_> = calls.calls.iter().filter(|call| !call.answered).map(|call| call.id.as_str()).collect();
    assert_eq!((open, turn(&sim).open_calls), (vec!["b"], Some(1)));
    assert_eq!(sim.run(&answers(1, &["a"], &["b"])), Ok(Reply::Nothing), "the lost attempt is not heard");
    assert_eq!(turned(sim.run(&answers(2, &[], &["b"]))).status, TurnStatus::AwaitingReview);
}

#[test]
fn losses_use_up_a_turn_only_in_a_row() {
    let mut sim = waiting();
    for round in 0..4 {
        let attempt = turned(sim.run(&end_wait("b"))).attempt;
        for more in 0..limits::TURN_ATTEMPTS - 1 {
            sim.now = sim.now.plus(LATER);
            let lost = Some(Attempt { number: 1, attempt: attempt + more });
            sim.run(&Command::Wake { lost }).unwrap();
        }
        let attempt = turn(&sim).attempt;
        assert_eq!(turn(&sim).status, TurnStatus::Running, "round {round}");
        turned(sim.run(&step(attempt, vec![call("b", Some(ask()))])));
        turned(sim.run(&answers(attempt, &[], &["b"])));
    }
}

#[test]
fn the_end_of_a_turn_answers_its_calls_and_withdraws_its_questions() {
    type End = (&'static str, fn(&mut Sim<Conversation>));
    let ends: [End; 4] = [
        ("cancel", |sim| drop(turned(sim.run(&Command::CancelTurn(CancelTurn { number: 1 }))))),
        ("interrupt", |sim| drop(posted(sim.run(&post_with_turn("stop", BusyPolicy::Interrupt))))),
        ("fail", |sim| drop(turned(sim.run(&failed(1, 1))))),
        ("loss", |sim| {
            for attempt in 1..=limits::TURN_ATTEMPTS {
                sim.now = sim.now.plus(LATER);
                sim.run(&Command::Wake { lost: Some(Attempt { number: 1, attempt }) }).unwrap();
            }
        }),
    ];
    for (how, end) in ends {
        let mut sim = called();
        end(&mut sim);
        assert!(turn(&sim).is_over(), "{how}");
        let steps = steps(&sim);
        assert_eq!(steps.iter().filter(|step| step.starts_with("tool")).count(), 2, "{how}: {steps:?}");
        assert!(!sim.rows.keys().any(|(table, _)| *table == CALLS), "{how}");
        let since = turn(&sim).ended_at.unwrap();
        let channel = "demo".to_owned();
        let call = "b".to_owned();
        assert_eq!(
            errands(&sim),
            [Errand::Withdraw { channel, turn: turn(&sim).id, call, review: None, since, trace: None }],
            "{how}"
        );
        assert!(sim.state.as_ref().unwrap().errands_at.is_some(), "{how}: an alarm is behind it");
        let events: Vec<_> = sim.log.iter().map(|(record, _)| &record.event).collect();
        let ended = events.iter().position(|event| matches!(event, Event::TurnCancelled(_) | Event::TurnFailed(_)));
        let last = events.iter().rposition(|event| match event {
            Event::MessageCreated(message) => message.content.role == "tool",
            _ => false,
        });
        assert!(last < ended, "{how}: results come before the end");
    }
    let mut sim = waiting();
    turned(sim.run(&Command::CancelTurn(CancelTurn { number: 1 })));
    let review = Some(wait().review);
    assert!(matches!(&errands(&sim)[..], [Errand::Withdraw { review: known, .. }] if *known == review));
}

#[test]
fn a_waiting_turn_polls_ever_more_rarely_and_after_its_deadline() {
    let mut sim = waiting();
    let mut looks = Vec::new();
    for _ in 0..12 {
        sim.now = Conversation::alarm(sim.state.as_ref().unwrap()).unwrap();
        looks.push(sim.now.since(NOW) / 1_000);
        sim.run(&Command::KeepWaiting { number: 1 }).unwrap();
    }
    assert_eq!(looks[..6], [60, 120, 240, 480, 660, 1_320], "doubling, and a minute after the deadline of 600 s");
    assert!(looks.windows(2).all(|pair| pair[1] - pair[0] <= 3_600), "{looks:?}");
    let before = sim.log.len();
    sim.run(&Command::KeepWaiting { number: 1 }).unwrap();
    assert_eq!(sim.log.len(), before, "not before its time");
}

#[test]
fn a_review_that_a_turn_asked_for_leaves_an_errand_however_it_ends() {
    let asker = Asker { conversation: Address([5; 10]), turn: 3, call: "c".to_owned() };
    let asked = || {
        let review = Review { asker: Some(asker.clone()), ..review(NOW.plus(1_000), None) };
        let mut sim = opened();
        let (messages, _) = posted(sim.run(&post(vec![say(Content { review: Some(review), ..content("?") })])));
        (sim, messages[0].id)
    };
    type End = (&'static str, fn(&mut Sim<Conversation>, MessageId));
    let ends: [End; 5] = [
        ("answer", |sim, message| {
            let response = Json::from_checked("{}");
            let principal = user("ana");
            sim.run(&Command::Respond(review::Response { message, response, alike: None, feedback: None, principal }))
                .unwrap();
        }),
        ("expiry", |sim, _| {
            sim.now = NOW.plus(1_000);
            sim.run(&Command::Wake { lost: None }).unwrap();
        }),
        ("cancel", |sim, message| drop(sim.run(&Command::CancelReview(CancelReview { message })).unwrap())),
        ("revision", |sim, message| {
            posted(sim.run(&post(vec![say(Content { iteration_of: Some(message), ..content("again") })])));
        }),
        ("deletion", |sim, message| {
            let amendment = amend::Amendment::Delete { seen: None };
            sim.run(&Command::Amend(Amend { message, amendment })).unwrap();
        }),
    ];
    for (how, end) in ends {
        let (mut sim, message) = asked();
        end(&mut sim, message);
        assert_eq!(errands(&sim), [Errand::NotifyAsker { asker: asker.clone(), message, trace: None }], "{how}");
        let due = sim.state.as_ref().unwrap().errands_at;
        assert_eq!(due, Some(sim.now.plus(1_000)), "{how}");
        let ends = sim.log.iter().filter_map(|(record, _)| match &record.event {
            Event::ReviewCompleted(end) | Event::ReviewExpired(end) | Event::ReviewCancelled(end) => Some(end),
            _ => None,
        });
        assert!(ends.into_iter().all(|end| end.state.status != ReviewStatus::Pending && end.asker.is_some()));
        let keys: Vec<Bytes> =
            sim.rows.keys().filter(|(table, _)| *table == ERRANDS).map(|(_, key)| key.clone()).collect();
        sim.run(&Command::ErrandsRun { keys: vec![Bytes::from_static(b"other")] }).unwrap();
        assert_eq!(errands(&sim).len(), 1, "{how}: only what was run is struck off");
        sim.run(&Command::ErrandsRun { keys: keys.clone() }).unwrap();
        assert_eq!((errands(&sim), sim.state.as_ref().unwrap().errands_at), (vec![], None), "{how}");
        let known = sim.log.len();
        sim.run(&Command::ErrandsRun { keys }).unwrap();
        assert_eq!(sim.log.len(), known, "{how}: once");
    }
}

#[test]
fn a_lost_attempt_keeps_its_results_and_asks_only_for_the_others() {
    let mut sim = called();
    let results = vec![("a".to_owned(), "done".to_owned())];
    let said = CallResults { attempt: Attempt { number: 1, attempt: 1 }, results, waits: Vec::new(), is_lost: true };
    let after = turned(sim.run(&Command::AnswerCalls(said)));
    assert_eq!((after.open_calls, after.status, after.attempt), (Some(1), TurnStatus::Running, 1));
    sim.now = NOW.plus(LATER);
    sim.run(&Command::Wake { lost: Some(Attempt { number: 1, attempt: 1 }) }).unwrap();
    assert_eq!(steps(&sim), ["assistant ", "tool done"], "nobody takes it for interrupted");
    assert_eq!((turn(&sim).open_calls, turn(&sim).attempt), (Some(1), 2));
}

#[test]
fn a_long_result_is_cut_at_a_character() {
    let mut sim = called();
    let long = "é".repeat(limits::RESULT_BYTES);
    let results = vec![("a".to_owned(), long), ("b".to_owned(), "x".repeat(limits::RESULT_BYTES))];
    turned(sim.run(&Command::AnswerCalls(CallResults {
        attempt: Attempt { number: 1, attempt: 1 },
        results,
        waits: Vec::new(),
        is_lost: false,
    })));
    let steps = steps(&sim);
    assert!(steps[1].len() <= limits::RESULT_BYTES + 10 && steps[1].ends_with("é…"));
    assert_eq!(steps[2].len(), "tool ".len() + limits::RESULT_BYTES);
}

#[test]
fn records_that_end_calls_in_an_erasure_name_no_owner() {
    let mut sim = waiting();
    assert!(sim.state.as_ref().unwrap().owner.is_some());
    while matches!(sim.run(&Command::Erase(Erase { unused: None })), Ok(Reply::Erasing(erasure)) if erasure.next.is_some())
    {
    }
    let owners = sim.log.iter().filter_map(|(record, _)| message_of(record)).filter(|message| message.owner.is_some());
    assert_eq!((owners.count(), sim.state.as_ref().unwrap().owner.as_ref()), (0, None));
    assert_eq!(turn(&sim).in_closed, Some(true));
}

#[test]
fn a_lost_turn_whose_calls_are_damaged_keeps_no_review_from_expiring() {
    let mut sim = called();
    posted(sim.run(&post(vec![super::ask(NOW.plus(1_000), None)])));
    sim.now = NOW.plus(LATER);
    sim.damaged = Some(CALLS);
    let wake = Command::Wake { lost: Some(Attempt { number: 1, attempt: 1 }) };
    let known = sim.log.len();
    sim.run(&wake).unwrap();
    assert_eq!(names(&sim.since(known)), ["turn.failed", "review.expired", "mark"]);
    assert_eq!(sim.run(&wake), Ok(Reply::Nothing), "nothing is left to be done");
}

#[test]
fn a_turn_whose_calls_cannot_be_read_fails_at_any_command_that_needs_them() {
    type Begun = fn() -> Sim<Conversation>;
    let lost = Some(Attempt { number: 1, attempt: 1 });
    let commands: [(Begun, Command); 5] = [
        (called, step(1, vec![call("a", None)])),
        (called, answers(1, &["a"], &["b"])),
        (called, end_wait("b")),
        (called, Command::Wake { lost }),
        (waiting, Command::KeepWaiting { number: 1 }),
    ];
    for (begun, command) in commands {
        let mut sim = begun();
        posted(sim.run(&post_with_turn("more", BusyPolicy::Queue)));
        sim.now = NOW.plus(100_000);
        sim.damaged = Some(CALLS);
        assert_eq!(sim.run(&command), Ok(Reply::Nothing), "{command:?}");
        let failed = turn(&sim);
        assert_eq!((failed.status, failed.open_calls), (TurnStatus::Failed, None), "{command:?}");
        assert_eq!(failed.failure.unwrap().code, "calls_unreadable");
        assert!(!sim.rows.keys().any(|(table, _)| *table == CALLS), "the row is deleted");
        let running = sim.state.as_ref().unwrap().running.as_ref().unwrap();
        assert_eq!((running.id.number, running.status), (2, TurnStatus::Running), "{command:?}");
    }
}

#[test]
fn a_turn_whose_calls_cannot_be_read_is_cancelled_and_erased_like_any_other() {
    for command in [Command::CancelTurn(CancelTurn { number: 1 }), Command::Erase(Erase { unused: None })] {
        let mut sim = waiting();
        sim.damaged = Some(CALLS);
        sim.run(&command).unwrap();
        assert_eq!(turn(&sim).status, TurnStatus::Cancelled, "{command:?}");
        assert!(!sim.rows.keys().any(|(table, _)| *table == CALLS), "the row is deleted");
    }
}
