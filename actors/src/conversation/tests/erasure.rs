//! Words that are taken away.

use super::*;
use crate::conversation::amend::{Amendment, Edit};
use crate::conversation::review::Response;
use crate::message::{Json, Overlay, Removal};
use crate::store::KeyHash;
use crate::tables::{CONVERSATIONS, OVERLAYS, PENDING_REVIEWS, REPLAYS};

fn has(bytes: &[u8], words: &str) -> bool {
    bytes.windows(words.len()).any(|part| part == words.as_bytes())
}

/// Whether the words stand in any record or row.
fn found(sim: &Sim<Conversation>, words: &str) -> Vec<String> {
    let log = sim.log.iter().filter(|(_, bytes)| has(bytes, words)).map(|(record, _)| format!("{:?}", record.event));
    let rows = sim.rows.iter().filter(|(_, bytes)| has(bytes, words)).map(|((table, _), _)| format!("{table:?}"));
    log.chain(rows).collect()
}

fn amend(message: MessageId, amendment: Amendment) -> Command {
    Command::Amend(Amend { message, amendment })
}

fn edit(text: &str) -> Amendment {
    Amendment::Edit(Edit { text: Patch::Set(text.to_owned()), ..Edit::default() })
}

fn erasing(reply: Result<Reply, Rejection>) -> Erasure {
    match reply {
        Ok(Reply::Erasing(erasure)) => erasure,
        other => panic!("{other:?}"),
    }
}

/// Erases to the end; in how many steps.
fn erase(sim: &mut Sim<Conversation>) -> usize {
    (0..).find(|_| erasing(sim.run(&Command::Erase(Erase { unused: None }))).next.is_none()).unwrap()
}

fn answer(message: MessageId) -> Command {
    let response = Json::from_checked("{\"text\":\"secret\"}");
    let feedback = Some("secret".to_owned());
    Command::Respond(Response { message, response, alike: None, feedback, principal: user("bob") })
}

#[test]
fn the_words_of_a_deleted_message_are_in_no_record() {
    let mut sim = opened();
    let (messages, _) = posted(sim.run(&post(vec![say(content("secret one")), say(content("kept"))])));
    sim.run(&amend(messages[0].id, edit("secret two"))).unwrap();
    assert_eq!(found(&sim, "secret").len(), 2);
    sim.run(&amend(messages[0].id, Amendment::Delete { seen: None })).unwrap();
    assert_eq!(found(&sim, "secret"), [""; 0]);
    assert_eq!(found(&sim, "kept").len(), 1);
    let record = sim.log.iter().map(|(record, _)| record).find(|record| record.seq == messages[0].id.number);
    let shown = message_of(record.unwrap()).unwrap();
    assert_eq!((shown.id, shown.removal(&Overlay::default())), (messages[0].id, Some(Removal::Deleted)));
}

#[test]
fn a_commit_that_removes_an_open_question_writes_its_words_nowhere() {
    let mut sim = opened();
    let asked = posted(sim.run(&post(vec![ask(NOW.plus(1_000), None)]))).0[0].id;
    sim.run(&amend(asked, edit("secret"))).unwrap();
    let deleted = sim.decide(&amend(asked, Amendment::Delete { seen: None }));
    sim.run(&Command::Erase(Erase { unused: None })).unwrap();
    let erased = sim.decide(&Command::Erase(Erase { unused: None }));
    for decision in [deleted, erased] {
        let Decision::Change(change) = decision else { panic!("{decision:?}") };
        assert!(change.rows.iter().flat_map(|row| &row.value).all(|value| !has(value, "secret")));
    }
}

#[test]
fn an_expired_review_is_announced_before_its_message_is_deleted() {
    for (on_expire, event) in [(Some("{\"secret\":1}"), "review.completed"), (None, "review.expired")] {
        let mut sim = opened();
        let asked = posted(sim.run(&post(vec![ask(NOW.plus(1_000), on_expire)]))).0[0].id;
        sim.now = NOW.plus(1_000);
        let known = sim.log.len();
        sim.run(&amend(asked, Amendment::Delete { seen: None })).unwrap();
        assert_eq!(names(&sim.since(known)), [event, "message.deleted"]);
        assert_eq!(found(&sim, "secret"), [""; 0]);
        let known = sim.log.len();
        sim.run(&Command::Wake { lost: None }).unwrap();
        assert!(sim.since(known).iter().all(|event| event.name().is_none()), "it has its one outcome");
    }
}

#[test]
fn an_erased_conversation_keeps_its_sequences_and_no_content() {
    let mut sim = opened();
    let told = Update { title: Patch::Set("secret".to_owned()), ..Update::default() };
    sim.run(&Command::Update(told)).unwrap();
    let far = NOW.plus(1_000_000);
    for n in 0..150 {
        let asked = Content {
            tags: Some(vec!["secret".to_owned()]),
            review: Some(review(far, Some("{\"secret\":1}"))),
            ..content("secret")
        };
        let asked = say(asked);
        let (messages, _) = posted(sim.run(&post(vec![asked])));
        match n % 3 {
            0 => sim.run(&answer(messages[0].id)).unwrap(),
            1 => sim.run(&amend(messages[0].id, edit("secret, edited"))).unwrap(),
            _ => sim.run(&Command::CancelReview(CancelReview { message: messages[0].id })).unwrap(),
        };
    }
    let (_, turn) = posted(sim.run(&post_with_turn("secret?", BusyPolicy::Queue)));
    let before: Vec<_> = sim.log.iter().map(|(record, _)| (record.seq, record.at)).collect();
    let messages = sim.state.as_ref().unwrap().messages;
    assert_eq!(erase(&mut sim), before.len().div_ceil(64));
    assert_eq!(found(&sim, "secret"), [""; 0]);
    assert_eq!(sim.log.iter().map(|(record, _)| (record.seq, record.at)).collect::<Vec<_>>()[..before.len()], before);
    let state = sim.state.clone().unwrap();
    assert_eq!((state.messages, state.closed, state.running.as_ref()), (messages, true, None));
    assert!(sim.views.keys().all(|(view, _)| *view != PENDING_REVIEWS));
    // Whatever was on its way finds nobody.
    let turn = turn.unwrap();
    assert_eq!(sim.run(&done(turn.id.number, 1, &["secret reply"])), Ok(Reply::Nothing));
    assert_eq!(sim.run(&post(vec![say(content("secret"))])), Err(Rejection::Closed));
    let reopened = Update { closed: Some(false), ..Update::default() };
    assert_eq!(sim.run(&Command::Update(reopened)), Err(Rejection::Erased));
    let first = MessageId::new(NOW, entity().id, 3);
    assert_eq!(sim.run(&amend(first, edit("secret"))), Err(Rejection::MessageDeleted));
    assert_eq!(sim.run(&answer(first)), Err(Rejection::Erased));
    assert_eq!(erase(&mut sim), 0, "and it is done");
}

#[test]
fn between_two_steps_nothing_is_logged() {
    let mut sim = opened();
    posted(sim.run(&post((0..100).map(|_| say(content("secret"))).collect())));
    let begun = erasing(sim.run(&Command::Erase(Erase { unused: None })));
    assert_eq!((begun.next, begun.last), (Some(1), 101));
    let last = MessageId::new(NOW, entity().id, 101);
    assert_eq!(sim.run(&amend(last, edit("secret"))), Err(Rejection::MessageDeleted));
    assert_eq!(sim.run(&post(vec![say(content("secret"))])), Err(Rejection::Closed));
    erase(&mut sim);
    assert_eq!(found(&sim, "secret"), [""; 0]);
}

#[test]
fn an_unused_conversation_cannot_begin_after_its_erasure() {
    let mut sim = nothing();
    assert_eq!(sim.run(&Command::Erase(Erase { unused: None })), Err(Rejection::NotFound));
    erasing(sim.run(&Command::Erase(Erase { unused: Some(opening()) })));
    assert_eq!(sim.run(&post(vec![say(content("secret"))])), Err(Rejection::Closed));
    erase(&mut sim);
    assert!(sim.views.keys().any(|(view, _)| *view == CONVERSATIONS), "who has heard of it finds it");
}

#[test]
fn an_erasure_takes_only_copies_of_its_contact_or_an_earlier_life() {
    let of = |at: u64, address: u8| ContactId::new(Millis(at), Address([address; 10]));
    let with = |contact| Origin::Api { channel: "shop".to_owned(), contact, agent: "bot".to_owned() };
    for (origin, belongs_to) in [
        (with(of(5, 1)), true),
        (with(of(4, 1)), true),
        (with(of(6, 1)), false),
        (with(of(5, 2)), false),
        (Origin::Direct, false),
        (Origin::Human { channel: "shop".to_owned() }, false),
    ] {
        let mut sim = nothing();
        sim.run(&Command::Open(Opening { origin: origin.clone(), ..opening() })).unwrap();
        let before = sim.state.clone();
        let erased = sim.run(&Command::EraseCopy(EraseCopy(of(5, 1))));
        assert_eq!(erased.is_ok(), belongs_to, "{origin:?}");
        if !belongs_to {
            assert_eq!((erased, sim.state), (Err(Rejection::NotFound), before), "{origin:?}");
        }
    }
}

/// Anything else may begin in its place.
#[test]
fn an_erased_copy_that_was_noted_and_not_begun_cannot_begin() {
    let of = |at: u64, address: u8| ContactId::new(Millis(at), Address([address; 10]));
    let with = |contact| Origin::Api { channel: "shop".to_owned(), contact, agent: "bot".to_owned() };
    let copy = |origin| {
        Command::Fork(Forking {
            opening: Opening { origin, ..opening() },
            of: Forked { source: opening().id, upto: 1 },
        })
    };
    for (origin, begins) in [
        (with(of(4, 1)), false),
        (with(of(5, 1)), false),
        (with(of(6, 1)), true),
        (with(of(5, 2)), true),
        (Origin::Direct, true),
    ] {
        let mut sim = nothing();
        for erased in [4, 5, 3] {
            assert_eq!(sim.run(&Command::EraseCopy(EraseCopy(of(erased, 1)))), Ok(Reply::Nothing));
        }
        assert_eq!((sim.state.is_none(), sim.log.len()), (true, 0));
        match sim.run(&copy(origin.clone())) {
            Ok(_) => assert!(begins, "{origin:?}"),
            Err(rejection) => assert_eq!((rejection, begins), (Rejection::Erased, false), "{origin:?}"),
        }
    }
    let mut sim = nothing();
    sim.run(&Command::EraseCopy(EraseCopy(of(5, 1)))).unwrap();
    posted(sim.run(&post(vec![say(content("said to others"))])));
}

#[test]
fn an_erasure_of_a_conversation_also_removes_undecodable_rows() {
    let mut sim = opened();
    let (messages, _) = posted(sim.run(&post((0..30).map(|_| say(content("secret"))).collect())));
    for message in [0, 20] {
        sim.run(&amend(messages[message].id, edit("secret, edited"))).unwrap();
    }
    let garbled = Bytes::from_static(b"secret, as a newer server writes it");
    sim.rows.insert((OVERLAYS, number_key(messages[20].id.number)), garbled.clone());
    erasing(sim.run(&Command::Erase(Erase { unused: None })));
    let edited = sim.log.iter().position(|(record, _)| matches!(record.event, Event::MessageUpdated { .. })).unwrap();
    sim.log[edited].1 = garbled.clone();
    let seq = sim.log[edited].0.seq;
    sim.rows.insert((OVERLAYS, number_key(seq)), garbled.clone());
    sim.rows.insert((REPLAYS, replay_key(seq, KeyHash([1; 16]))), garbled);
    erase(&mut sim);
    assert_eq!(found(&sim, "secret"), [""; 0]);
    let message = MessageId::new(NOW, entity().id, seq);
    assert_eq!(sim.log[edited].0.event, Event::MessageDeleted { message }, "its place stays");
}
