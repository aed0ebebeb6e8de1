//! Reviews and their deadlines.

use super::*;
use crate::machine::{DecisionContext, ReadSet, Undecided};
use crate::message::{ComparableResponse, Json, Overlay, Quorum, ReviewStatus, Vote};
use crate::store::NodeId;
use crate::tables::{DEADLINES, OVERLAYS};

fn wake(sim: &mut Sim<Conversation>) -> Vec<Event> {
    let known = sim.log.len();
    sim.run(&Command::Wake { lost: None }).unwrap();
    sim.since(known).into_iter().cloned().collect()
}

fn alarm(sim: &Sim<Conversation>) -> Option<Millis> {
    Conversation::alarm(sim.state.as_ref().unwrap())
}

#[test]
fn a_review_expires_at_its_deadline_and_not_a_millisecond_before() {
    let mut sim = nothing();
    let deadline = NOW.plus(1_000);
    posted(sim.run(&post(vec![ask(deadline, None)])));
    assert_eq!(alarm(&sim), Some(deadline));
    sim.now = Millis(deadline.0 - 1);
    assert_eq!(wake(&mut sim), []);
    sim.now = deadline;
    let events = wake(&mut sim);
    let Event::ReviewExpired(end) = &events[0] else { panic!("{events:?}") };
    assert_eq!((end.state.status, end.state.completed_at), (ReviewStatus::Expired, Some(deadline)));
    assert_eq!(events[1], Event::DeadlineMoved { next: None });
    assert_eq!(alarm(&sim), None);
    assert_eq!(wake(&mut sim), [], "one outcome");
}

#[test]
fn a_review_with_a_default_is_completed_by_the_system() {
    let mut sim = nothing();
    posted(sim.run(&post(vec![ask(NOW.plus(5), Some("{\"a\":1}"))])));
    sim.now = NOW.plus(5);
    let events = wake(&mut sim);
    let Event::ReviewCompleted(end) = &events[0] else { panic!("{events:?}") };
    assert_eq!(end.state.decided_by.as_deref(), Some("system"));
    assert_eq!(end.state.response.as_ref().map(|json| json.as_str()), Some("{\"a\":1}"));
    let overlay: Overlay = codec_decode(&sim.rows[&(OVERLAYS, number_key(2))]);
    assert_eq!(overlay.review, Some(end.state.clone()), "the row tells what the log tells");
}

fn codec_decode<T: for<'b> minicbor::Decode<'b, ()>>(bytes: &[u8]) -> T {
    crate::codec::decode(bytes).unwrap()
}

#[test]
fn more_due_reviews_than_one_wake_ends_are_ended_by_the_next_ones() {
    let mut sim = nothing();
    let asks = (0..150).map(|i| ask(NOW.plus(1_000 + i), None)).collect();
    posted(sim.run(&post(asks)));
    posted(sim.run(&post(vec![ask(NOW.plus(9_000), None)])));
    sim.now = NOW.plus(5_000);
    for (expired, next) in [(64, 1_064), (64, 1_128), (22, 9_000), (0, 9_000)] {
        let events = wake(&mut sim);
        assert_eq!(events.iter().filter(|event| matches!(event, Event::ReviewExpired(_))).count(), expired);
        assert_eq!(alarm(&sim), Some(NOW.plus(next)), "the alarm stands at the next one");
    }
}

#[test]
fn a_wake_ends_no_more_than_fits_a_commit() {
    let mut sim = nothing();
    let response = format!("\"{}\"", "x".repeat(50_000));
    posted(sim.run(&post((0..5).map(|_| ask(NOW.plus(1_000), Some(&response))).collect())));
    sim.now = NOW.plus(1_000);
    for ended in [2, 2, 1] {
        let events = wake(&mut sim);
        assert_eq!(events.iter().filter(|event| matches!(event, Event::ReviewCompleted(_))).count(), ended);
    }
    assert_eq!(alarm(&sim), None);
}

/// Two commands decided in one batch: the second sees what the first has written.
#[test]
fn a_wake_behind_another_in_one_batch_loses_no_review() {
    let mut sim = nothing();
    let asks = (0..150).map(|i| ask(NOW.plus(1_000 + i), None)).collect();
    posted(sim.run(&post(asks)));
    sim.now = NOW.plus(5_000);
    // The host reads before it decides, and lays the batch's writes over what it read.
    let deadlines = sim.rows.iter().filter(|((table, _), _)| *table == DEADLINES);
    let deadlines: Vec<_> = deadlines.map(|((_, key), value)| (key.clone(), value.clone())).collect();
    let mut reads = ReadSet::default();
    let rows =
        deadlines.iter().take(65).map(|(key, value)| crate::store::Row { key: key.clone(), value: value.clone() });
    reads.add_first(DEADLINES, 65, Ok(rows.collect()));
    for (key, _) in deadlines.iter().take(64) {
        reads.write_row(&crate::store::RowWrite::delete(DEADLINES, key.clone()));
    }
    let context = DecisionContext {
        entity: entity(),
        now: sim.now,
        place: sim.now,
        next_seq: 1_000,
        random: [0; 16],
        node: NodeId([1; 16]),
        key: None,
        trace: None,
        alarm: None,
    };
    let decision = Conversation::decide(sim.state.as_ref(), &Command::Wake { lost: None }, &context, &reads);
    let Err(Undecided::Missing(missing)) = decision else { panic!("{decision:?}") };
    assert_eq!(missing, [Need::First(DEADLINES, 65 + 64)], "it reads on behind what was deleted");
}

fn respond(message: MessageId, principal: &str, response: &str) -> Command {
    respond_as(message, user(principal), response)
}

fn respond_as(message: MessageId, principal: Principal, response: &str) -> Command {
    let response = Json::from_checked(response);
    Command::Respond(review::Response { message, response, alike: None, feedback: None, principal })
}

#[test]
fn i4_the_first_decision_wins_and_none_is_taken_at_the_deadline() {
    let mut sim = nothing();
    let deadline = NOW.plus(1_000);
    let messages = posted(sim.run(&post(vec![ask(deadline, None), ask(deadline, Some("{}"))]))).0;
    sim.now = Millis(deadline.0 - 1);
    sim.run(&respond(messages[0].id, "ana", "1")).unwrap();
    for late in [respond(messages[0].id, "bob", "2"), Command::CancelReview(CancelReview { message: messages[0].id })] {
        assert!(
            matches!(sim.run(&late), Err(Rejection::ReviewOver(state)) if state.decided_by.as_deref() == Some("ana"))
        );
    }
    sim.now = deadline;
    // Nobody has announced that the second one is over; it is over all the same.
    for late in [respond(messages[1].id, "bob", "2"), Command::CancelReview(CancelReview { message: messages[1].id })] {
        assert!(matches!(sim.run(&late), Err(Rejection::ReviewExpired(_))));
    }
    let events = wake(&mut sim);
    assert_eq!(names(&events.iter().collect::<Vec<_>>()), ["review.completed", "mark"]);
    let elsewhere = MessageId { at: messages[0].id.at.plus(1), ..messages[0].id };
    assert_eq!(sim.run(&respond(elsewhere, "ana", "1")), Err(Rejection::ReviewNotFound));
}

#[test]
fn a_reader_ends_a_review_at_its_deadline_and_once() {
    let mut sim = nothing();
    let deadline = NOW.plus(1_000);
    let messages = posted(sim.run(&post(vec![ask(deadline, None), ask(deadline, Some("{}"))]))).0;
    let read = |sim: &mut Sim<Conversation>, n: usize| {
        let known = sim.log.len();
        let reply = sim.run(&Command::ExpireReview(ExpireReview { message: messages[n].id }));
        let Ok(Reply::Review(state)) = reply else { panic!("{reply:?}") };
        (state.status, state.completed_at, sim.log.len() - known)
    };
    sim.now = Millis(deadline.0 - 1);
    assert_eq!(read(&mut sim, 0), (ReviewStatus::Pending, None, 0));
    sim.now = deadline.plus(5);
    assert_eq!(read(&mut sim, 0), (ReviewStatus::Expired, Some(deadline), 1));
    assert_eq!(read(&mut sim, 0), (ReviewStatus::Expired, Some(deadline), 0));
    assert_eq!(read(&mut sim, 1), (ReviewStatus::Completed, Some(deadline), 1), "by its default");
    assert_eq!(wake(&mut sim), [Event::DeadlineMoved { next: None }], "nothing is left to announce");
}

#[test]
fn a_quorum_counts_one_vote_of_each_principal() {
    let mut sim = nothing();
    let quorum = Some(Quorum::new(2, ["a", "b", "c"].map(|id| (id.to_owned(), None)).into()));
    let asks = say(Content { review: Some(Review { quorum, ..review(NOW.plus(1_000), None) }), ..content("?") });
    let id = posted(sim.run(&post(vec![asks]))).0[0].id;
    assert_eq!(sim.run(&respond(id, "eve", "1")), Err(Rejection::NotAllowed));
    let known = sim.log.len();
    for (principal, response) in [("a", "1"), ("b", "2")] {
        let reply = sim.run(&respond(id, principal, response)).unwrap();
        assert!(matches!(reply, Reply::Review(state) if state.status == ReviewStatus::Pending));
    }
    assert_eq!(sim.run(&respond(id, "a", "2")), Err(Rejection::AlreadyVoted));
    assert_eq!(sim.log.len(), known, "votes are no outcome");
    sim.run(&respond(id, "c", "2")).unwrap();
    assert_eq!(names(&sim.since(known)), ["review.completed"]);
    sim.now = NOW.plus(1_000);
    assert_eq!(wake(&mut sim), [Event::DeadlineMoved { next: None }], "and nothing is left to expire");
}

#[test]
fn principals_of_two_kinds_with_one_id_are_two() {
    let user = user("same");
    let agent = Principal { kind: PrincipalKind::Agent, ..user.clone() };
    let allowing = |allowed: &[Option<PrincipalKind>]| {
        let quorum = Quorum::new(2, allowed.iter().map(|kind| ("same".to_owned(), *kind)).collect());
        (quorum.allows(&agent), quorum.allows(&user))
    };
    assert_eq!(allowing(&[]), (true, true));
    assert_eq!(allowing(&[None]), (true, true));
    assert_eq!(allowing(&[Some(PrincipalKind::Agent)]), (true, false));
    assert_eq!(allowing(&[Some(PrincipalKind::User)]), (false, true));
    assert_eq!(allowing(&[Some(PrincipalKind::User), Some(PrincipalKind::Agent)]), (true, true));

    let mut sim = nothing();
    let quorum = Some(Quorum::new(2, Vec::new()));
    let asks = say(Content { review: Some(Review { quorum, ..review(NOW.plus(1_000), None) }), ..content("?") });
    let id = posted(sim.run(&post(vec![asks]))).0[0].id;
    sim.run(&respond_as(id, agent.clone(), "1")).unwrap();
    assert_eq!(sim.run(&respond_as(id, agent, "1")), Err(Rejection::AlreadyVoted));
    let reply = sim.run(&respond_as(id, user, "1")).unwrap();
    assert!(matches!(reply, Reply::Review(state) if state.status == ReviewStatus::Completed));
}

#[test]
fn a_quorum_or_vote_stored_without_kinds_compares_only_ids() {
    let user = user("same");
    let agent = Principal { kind: PrincipalKind::Agent, ..user.clone() };
    let quorum = Quorum { of: 2, allowed: vec!["same".to_owned()], kinds: None };
    let vote = |kind| Vote {
        principal: "same".to_owned(),
        response: Json::from_checked("1"),
        feedback: None,
        at: NOW,
        print: None,
        kind,
    };
    for principal in [&user, &agent] {
        assert!(quorum.allows(principal) && vote(None).is_of(principal));
    }
    assert!(vote(Some(PrincipalKind::User)).is_of(&user) && !vote(Some(PrincipalKind::User)).is_of(&agent));
    let stranger = Principal { id: "other".to_owned(), ..user };
    assert!(!quorum.allows(&stranger) && !vote(None).is_of(&stranger));
}

#[test]
fn votes_that_would_not_fit_a_commit_are_refused_before_they_are_stored() {
    let mut sim = nothing();
    let quorum = Some(Quorum::new(100, Vec::new()));
    let asks = say(Content { review: Some(Review { quorum, ..review(NOW.plus(1_000), None) }), ..content("?") });
    let id = posted(sim.run(&post(vec![asks]))).0[0].id;
    let words = "x".repeat(crate::limits::VOTE_BYTES / 4);
    let voters = (0..4).map(|voter| sim.run(&respond(id, &format!("p{voter}"), &words)));
    let taken: Vec<bool> = voters.map(|vote| vote.is_ok()).collect();
    assert_eq!(taken, [true, true, true, false]);
    assert_eq!(sim.run(&respond(id, "late", &words)), Err(Rejection::TooManyVotes));
    assert!(sim.run(&respond(id, "brief", "1")).is_ok());
}

#[test]
fn a_vote_that_was_kept_in_canonical_form_agrees_with_the_same_answer() {
    let json = Json::from_checked;
    let vote = |text: &'static str, print| Vote {
        principal: "ana".to_owned(),
        response: json(text),
        feedback: None,
        at: Millis(1),
        print,
        kind: Some(PrincipalKind::User),
    };
    let alike = ComparableResponse { print: [1; 16], canonical: json("{\"n\":1}") };
    let given = review::Response {
        message: MessageId::new(NOW, entity().id, 1),
        response: json("{\"n\":1.0}"),
        alike: Some(alike),
        feedback: None,
        principal: user("bob"),
    };
    assert!(given.agrees_with(&vote("{\"n\":1}", None)));
    assert!(!given.agrees_with(&vote("{\"n\":2}", None)));
    assert!(given.agrees_with(&vote("{\"n\":1e0}", Some([1; 16]))));
    assert!(!given.agrees_with(&vote("{\"n\":1.0}", Some([2; 16]))));
}
