//! Appending messages.

use super::*;
use crate::codec;
use crate::message::Overlay;
use crate::tables::{DEADLINES, OVERLAYS, PENDING_REVIEWS};

#[test]
fn the_first_post_opens_the_conversation_before_its_messages() {
    let mut sim = nothing();
    let (messages, turn) = posted(sim.run(&post(vec![say(content("a")), say(content("b"))])));
    assert_eq!(messages.iter().map(|message| message.id.number).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(turn, None);
    assert_eq!(messages[0].owner.as_deref(), Some("ana"));
    let state = sim.state.as_ref().unwrap();
    assert_eq!((state.messages, state.last_seq, state.last_message_at), (2, 3, Some(NOW)));
    let logged: Vec<Message> = sim.log.iter().filter_map(|(record, _)| message_of(record)).collect();
    assert_eq!(logged, messages, "the log tells the messages as they were answered");
}

#[test]
fn an_item_answers_an_earlier_item_or_a_message_of_the_conversation_only() {
    let mut sim = nothing();
    let (messages, _) = posted(sim.run(&post(vec![ask(NOW.plus(1_000), None), say(content("b"))])));
    let [asked, plain] = [messages[0].id, messages[1].id];
    let elsewhere = MessageId { entity: Address([9; 10]), ..plain };
    let table = [
        (Parent::Message(plain), true),
        (Parent::Message(asked), true),
        (Parent::Item(0), true),
        (Parent::Item(1), false),
        (Parent::Item(2), false),
        (Parent::Message(elsewhere), false),
        (Parent::Message(MessageId { number: 99, ..plain }), false),
        (Parent::Message(MessageId { number: 0, ..plain }), false),
        // 1 opened the conversation, 3 asked for the review: neither is a message.
        (Parent::Message(MessageId { number: 1, ..plain }), false),
        (Parent::Message(MessageId { number: 3, ..plain }), false),
        (Parent::Message(MessageId { at: plain.at.plus(1), ..plain }), false),
    ];
    for (parent, found) in table {
        let before = sim.seq;
        let second = NewMessage { parent: Some(parent), ..say(content("d")) };
        let reply = sim.run(&post(vec![say(content("c")), second]));
        if found {
            let (messages, _) = posted(reply);
            let expected = match parent {
                Parent::Message(id) => id,
                Parent::Item(item) => messages[item].id,
            };
            assert_eq!(messages[1].parent, Some(expected));
        } else {
            assert_eq!(reply, Err(Rejection::ParentNotFound { items: vec![1] }), "{parent:?}");
            assert_eq!(sim.seq, before, "all or none");
        }
    }
}

#[test]
fn a_parent_in_a_conversation_that_does_not_exist_is_not_found() {
    let parent = Some(Parent::Message(MessageId::new(NOW, entity().id, 2)));
    let reply = nothing().run(&post(vec![NewMessage { parent, ..say(content("x")) }]));
    assert_eq!(reply, Err(Rejection::ParentNotFound { items: vec![0] }));
}

fn revise(id: MessageId) -> NewMessage {
    say(Content { iteration_of: Some(id), ..content("again") })
}

#[test]
fn a_revision_cancels_the_pending_review_of_what_it_revises() {
    let mut sim = nothing();
    let asked = posted(sim.run(&post(vec![ask(NOW.plus(1_000), None)]))).0[0].id;
    assert_eq!(sim.views.keys().filter(|(view, _)| *view == PENDING_REVIEWS).count(), 1);
    sim.now = NOW.plus(999);
    let known = sim.log.len();
    posted(sim.run(&post(vec![revise(asked)])));
    assert_eq!(names(&sim.since(known)), ["message.created", "review.cancelled"]);
    assert_eq!(sim.views.keys().filter(|(view, _)| *view == PENDING_REVIEWS).count(), 0);
    assert_eq!(sim.rows.keys().filter(|(table, _)| *table == DEADLINES).count(), 0);
    posted(sim.run(&post(vec![revise(asked)])));
    assert_eq!(names(&sim.since(known + 2)), ["message.created"], "it has its one outcome");
    sim.now = NOW.plus(2_000);
    let known = sim.log.len();
    sim.run(&Command::Wake { lost: None }).unwrap();
    assert_eq!(names(&sim.since(known)), ["mark"], "a cancelled review does not expire");
}

#[test]
fn two_revisions_in_one_post_cancel_a_review_once() {
    let mut sim = nothing();
    let asked = posted(sim.run(&post(vec![ask(NOW.plus(1_000), None)]))).0[0].id;
    let known = sim.log.len();
    posted(sim.run(&post(vec![revise(asked), revise(asked)])));
    assert_eq!(names(&sim.since(known)), ["message.created", "review.cancelled", "message.created"]);
}

#[test]
fn a_second_revision_of_a_message_keeps_the_first_one() {
    let mut sim = nothing();
    let first = posted(sim.run(&post(vec![say(content("x"))]))).0[0].id;
    let revisions: Vec<_> = (0..3).map(|_| posted(sim.run(&post(vec![revise(first)]))).0[0].id).collect();
    let overlay = |sim: &Sim<Conversation>, id: MessageId| {
        let row = sim.rows.get(&(OVERLAYS, number_key(id.number)));
        row.map_or_else(Overlay::default, |row| codec::decode(row).unwrap())
    };
    assert_eq!(overlay(&sim, first).superseded_by, Some(revisions[2]));
    let earlier: Vec<_> = revisions.iter().map(|id| overlay(&sim, *id).revised_before).collect();
    assert_eq!(earlier, [None, Some(revisions[0]), Some(revisions[1])]);
    let deleted = amend::Amendment::Delete { seen: None };
    sim.run(&Command::Amend(Amend { message: revisions[2], amendment: deleted })).unwrap();
    assert_eq!(overlay(&sim, revisions[2]).revised_before, Some(revisions[1]), "a deleted one keeps it too");
}

#[test]
fn a_revision_at_the_deadline_leaves_the_review_to_expire() {
    let mut sim = nothing();
    let asked = posted(sim.run(&post(vec![ask(NOW.plus(1_000), None)]))).0[0].id;
    sim.now = NOW.plus(1_000);
    let known = sim.log.len();
    posted(sim.run(&post(vec![revise(asked)])));
    sim.run(&Command::Wake { lost: None }).unwrap();
    assert_eq!(names(&sim.since(known)), ["message.created", "review.expired", "mark"]);
}

#[test]
fn an_iteration_of_an_unknown_message_is_refused() {
    let mut sim = opened();
    for number in [0, 1, 2] {
        let reply = sim.run(&post(vec![revise(MessageId::new(NOW, entity().id, number))]));
        assert_eq!(reply, Err(Rejection::IterationNotFound));
    }
}
