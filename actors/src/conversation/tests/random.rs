//! Any commands in any order keep what must always be so.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::message::ReviewStatus;
use crate::tables::{CALLS, DEADLINES, ERRANDS, PENDING_REVIEWS};
use crate::trace::TraceContext;

#[derive(Clone, Debug)]
enum Step {
    Post { texts: usize, review: Option<u64>, parent: Option<u64>, revises: Option<u64> },
    Turn(BusyPolicy),
    Start,
    Finish { ok: bool, stale: bool, replies: usize },
    Call { asks: Vec<bool> },
    Answer { waits: bool },
    EndWait,
    Look,
    Errands,
    Cancel(u64),
    Retry(u64),
    Wake { lost: bool },
    Respond(u64),
    Withdraw(u64),
    Close(bool),
    Pass(u64),
}

fn policy() -> impl Strategy<Value = BusyPolicy> {
    prop_oneof![
        Just(BusyPolicy::Queue),
        Just(BusyPolicy::Merge),
        Just(BusyPolicy::Latest),
        Just(BusyPolicy::Reject),
        Just(BusyPolicy::Interrupt),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let seq = || prop::option::of(1_u64..30);
    prop_oneof![
        4 => (1_usize..4, prop::option::of(1_u64..4_000), seq(), seq())
            .prop_map(|(texts, review, parent, revises)| Step::Post { texts, review, parent, revises }),
        4 => policy().prop_map(Step::Turn),
        1 => Just(Step::Start),
        3 => (any::<bool>(), prop::bool::weighted(0.2), 0_usize..3)
            .prop_map(|(ok, stale, replies)| Step::Finish { ok, stale, replies }),
        3 => prop::collection::vec(any::<bool>(), 1..4).prop_map(|asks| Step::Call { asks }),
        4 => any::<bool>().prop_map(|waits| Step::Answer { waits }),
        3 => Just(Step::EndWait),
        1 => Just(Step::Look),
        1 => Just(Step::Errands),
        1 => (1_u64..12).prop_map(Step::Cancel),
        2 => (1_u64..12).prop_map(Step::Retry),
        3 => any::<bool>().prop_map(|lost| Step::Wake { lost }),
        2 => (1_u64..30).prop_map(Step::Respond),
        1 => (1_u64..30).prop_map(Step::Withdraw),
        1 => prop::bool::weighted(0.3).prop_map(Step::Close),
        3 => (0_u64..3_000).prop_map(Step::Pass),
    ]
}

fn command(sim: &Sim<Conversation>, step: &Step) -> Command {
    let running = sim.state.as_ref().and_then(|state| state.running.as_ref()).map(Turn::current);
    let id = |seq: u64| {
        let found = sim.log.iter().map(|(record, _)| record).find(|record| record.seq == seq);
        MessageId::new(found.map_or(NOW, |record| record.at), entity().id, seq)
    };
    match step {
        Step::Post { texts, review, parent, revises } => {
            let mut messages: Vec<NewMessage> = (0..*texts).map(|i| say(content(&format!("text {i}")))).collect();
            messages[0].parent = parent.map(|seq| Parent::Message(id(seq)));
            let first = Content {
                review: review.map(|millis| super::review(sim.now.plus(millis), None)),
                iteration_of: revises.map(id),
                ..content("first")
            };
            messages[0].content = Arc::new(first);
            post(messages)
        }
        Step::Turn(policy) => post_with_turn("hi", *policy),
        Step::Start => Command::StartTurn(StartTurn { agent: AGENT.to_owned(), key: None }),
        Step::Finish { ok, stale, replies } => {
            let Attempt { number, attempt } = running.unwrap_or(Attempt { number: 1, attempt: 1 });
            let attempt = attempt - u32::from(*stale);
            if *ok { done(number, attempt, &["reply"; 3][..*replies]) } else { failed(number, attempt) }
        }
        Step::Call { .. } | Step::Answer { .. } | Step::EndWait | Step::Look | Step::Errands => tools(sim, step),
        Step::Cancel(number) => Command::CancelTurn(CancelTurn { number: *number }),
        Step::Retry(number) => Command::RetryTurn(RetryTurn { number: *number, agent: None }),
        Step::Wake { lost } => Command::Wake { lost: running.filter(|_| *lost) },
        Step::Respond(seq) => Command::Respond(review::Response {
            message: id(*seq),
            response: crate::message::Json::from_checked("{}"),
            alike: None,
            feedback: None,
            principal: user("ana"),
        }),
        Step::Withdraw(seq) => Command::CancelReview(CancelReview { message: id(*seq) }),
        Step::Close(closed) => Command::Update(Update { closed: Some(*closed), ..Update::default() }),
        Step::Pass(_) => Command::Wake { lost: None },
    }
}

/// The id that the model gives to the first call of each round.
const GIVEN: &str = "call_a";

/// The calls of the turn that runs, and the turn.
fn calls(sim: &Sim<Conversation>) -> (Attempt, Calls) {
    let running = sim.state.as_ref().and_then(|state| state.running.as_ref()).map(Turn::current);
    let running = running.unwrap_or(Attempt { number: 1, attempt: 1 });
    let row = sim.rows.get(&(CALLS, number_key(running.number)));
    (running, row.map(|row| crate::codec::decode(row).unwrap()).unwrap_or_default())
}

fn tools(sim: &Sim<Conversation>, step: &Step) -> Command {
    let (Attempt { number, attempt }, calls) = calls(sim);
    let open = || calls.calls.iter().filter(|call| !call.answered);
    match step {
        Step::Call { asks } => {
            let ask = crate::tool::Ask { channel: "d".to_owned(), content: content("?"), review_millis: None };
            let call = |(place, asks): (usize, &bool)| Call {
                id: format!("c{}_{place}", sim.log.len()),
                name: "t".to_owned(),
                ask: asks.then(|| ask.clone()),
                wait: None,
                answered: false,
                given: (place == 0).then(|| GIVEN.to_owned()),
            };
            let message = Arc::new(Content::text("assistant", message_sender(), ""));
            let calls = asks.iter().enumerate().map(call).collect();
            Command::StepTurn(super::Step {
                attempt: Attempt { number, attempt },
                message,
                calls,
                branch: None,
                usage: usage(),
            })
        }
        Step::Answer { waits } => {
            let (asking, other): (Vec<&Call>, Vec<&Call>) = open().partition(|call| call.ask.is_some() && *waits);
            let wait = Wait { review: MessageId::new(NOW, Address([9; 10]), 2), expires_at: NOW.plus(9_000) };
            let waits = asking.iter().map(|call| (call.id.clone(), wait.clone())).collect();
            let results = other.iter().map(|call| (call.id.clone(), "ok".to_owned())).collect();
            Command::AnswerCalls(CallResults { attempt: Attempt { number, attempt }, results, waits, is_lost: false })
        }
        Step::EndWait => {
            let call = open().find(|call| call.ask.is_some()).map_or_else(String::new, |call| call.id.clone());
            Command::EndWait(EndWait { number, call, result: "decided".to_owned() })
        }
        Step::Look => Command::KeepWaiting { number },
        _ => {
            let errands = sim.rows.keys().filter(|(table, _)| *table == ERRANDS);
            Command::ErrandsRun { keys: errands.map(|(_, key)| key.clone()).collect() }
        }
    }
}

/// What must be so of calls after any command.
fn check_calls(sim: &Sim<Conversation>, state: &State) {
    let open = state.running.as_ref().and_then(|turn| turn.open_calls).unwrap_or(0);
    let (_, calls) = calls(sim);
    assert_eq!(calls.calls.iter().filter(|call| !call.answered).count() as u32, open, "the row is what the turn says");
    let rows = sim.rows.keys().filter(|(table, _)| *table == CALLS).count();
    assert_eq!(rows, usize::from(open > 0), "no turn that is over leaves a call open");
    let mut answered: HashMap<String, usize> = HashMap::new();
    let messages: Vec<_> = sim.log.iter().filter_map(|(record, _)| message_of(record)).collect();
    let of_tools = messages.iter().filter(|message| message.content.role == "tool");
    for metadata in of_tools.filter_map(|message| message.content.metadata.clone()) {
        *answered.entry(metadata.as_str().to_owned()).or_default() += 1;
    }
    // The first call of each round has an id that models give again and again.
    let rounds = messages.iter().filter(|message| message.content.role == "assistant").count();
    for (metadata, results) in answered {
        let calls = if metadata.contains(GIVEN) { rounds } else { 1 };
        assert!(results <= calls, "a call has one result");
    }
    let errands = sim.rows.keys().any(|(table, _)| *table == ERRANDS);
    assert!(!errands || state.errands_at.is_some(), "no errand is forgotten");
}

/// What must be so after any command.
fn check(sim: &Sim<Conversation>) {
    let Some(state) = &sim.state else { return };
    assert!(state.queued.is_empty() || state.running.is_some(), "nothing waits behind nothing");
    assert!(state.queued.len() <= crate::limits::QUEUED_TURNS);
    assert_eq!(state.last_seq, sim.seq);
    check_calls(sim, state);
    let deadlines = sim.rows.keys().filter(|(table, _)| *table == DEADLINES);
    let first = deadlines.map(|(_, key)| u64::from_be_bytes(key[..8].try_into().unwrap())).min();
    assert!(first.is_none_or(|first| state.next_deadline.is_some_and(|next| next.0 <= first)), "no timer is lost");
    let mut outcomes: HashMap<MessageId, u32> = HashMap::new();
    let mut completed: HashMap<TurnId, u32> = HashMap::new();
    let mut at = Millis(0);
    for (record, _) in &sim.log {
        assert!(record.at >= at);
        at = record.at;
        match &record.event {
            Event::ReviewCompleted(end) | Event::ReviewExpired(end) | Event::ReviewCancelled(end) => {
                assert_ne!(end.state.status, ReviewStatus::Pending);
                *outcomes.entry(end.message).or_default() += 1;
            }
            Event::TurnCompleted(turn) => *completed.entry(turn.id).or_default() += 1,
            _ => {}
        }
    }
    assert!(outcomes.values().chain(completed.values()).all(|count| *count == 1), "one outcome each");
    for turn in state.running.iter().chain(&state.queued) {
        let row: Turn = crate::codec::decode(&sim.rows[&(TURNS, number_key(turn.id.number))]).unwrap();
        assert_eq!(row, *turn, "the row is what the state says");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_commands_keep_state_rows_and_log_in_step(steps in prop::collection::vec(step(), 1..40)) {
        let mut sim = nothing();
        for step in &steps {
            if let Step::Pass(millis) = step {
                sim.now = sim.now.plus(*millis);
            }
            let command = command(&sim, step);
            let _ = sim.run(&command);
            check(&sim);
        }
        // In the end every review has its time over, and every one gets its outcome.
        sim.now = sim.now.plus(10_000);
        for _ in 0..4 {
            let _ = sim.run(&Command::Wake { lost: None });
        }
        check(&sim);
        prop_assert!(!sim.rows.keys().any(|(table, _)| *table == DEADLINES));
        prop_assert!(!sim.views.keys().any(|(view, _)| *view == PENDING_REVIEWS));
    }
}

#[test]
fn the_largest_state_is_within_its_bound() {
    let mut sim = nothing();
    sim.trace = Some(TraceContext { trace_id: [0xab; 16], span_id: [0xcd; 8], flags: 1 });
    let long = "\u{10ffff}".repeat(255);
    let contact = ContactId::new(Millis(u64::MAX), Address([255; 10]));
    let origin = Origin::Api { channel: "c".repeat(64) + "~4294967295", contact, agent: "a".repeat(64) };
    let details = Details { title: Some(long.clone()), ..Details::default() };
    sim.now = Millis(0xffff_ffff_ffff);
    sim.run(&Command::Open(Opening { origin, owner: Some(long), details, ..opening() })).unwrap();
    let agent = "a".repeat(64);
    for number in 1..=crate::limits::QUEUED_TURNS as u64 {
        turned(sim.run(&Command::StartTurn(StartTurn { agent: agent.clone(), key: None })));
        let failure = Failure { code: "c".repeat(64), detail: "d".repeat(2_000) };
        turned(sim.run(&Command::FinishTurn(Finish {
            attempt: Attempt { number, attempt: 1 },
            outcome: Err(failure),
            branch: None,
        })));
    }
    turned(sim.run(&Command::StartTurn(StartTurn { agent, key: None })));
    for number in 1..=crate::limits::QUEUED_TURNS as u64 {
        turned(sim.run(&Command::RetryTurn(RetryTurn { number, agent: None })));
    }
    // The simulation compares every state with the bound.
    assert_eq!(sim.state.unwrap().queued.len(), crate::limits::QUEUED_TURNS);
}
