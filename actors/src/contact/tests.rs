//! Decisions as data.

use super::*;
use crate::machine::sim::Sim;

const NOW: Millis = Millis(1_763_000_000_000);

fn nobody() -> Sim<Contact> {
    Sim::new(entity_of(Address([1; 10]), "ana@example.com"), NOW)
}

fn resolve(channel: &str, closed: Option<ConversationId>) -> Command {
    Command::Resolve {
        identifier: "Ana@example.com".to_owned(),
        name: Some("Ana".to_owned()),
        channel: channel.to_owned(),
        closed,
    }
}

fn resolved(sim: &mut Sim<Contact>, command: &Command) -> (ContactId, OpenConversation) {
    match sim.run(command) {
        Ok(Reply::Resolved { contact, conversation }) => (contact, conversation),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_new_contact_is_created_once_with_the_identifier_as_it_was_given() {
    let mut sim = nobody();
    let first = resolved(&mut sim, &resolve("shop", None));
    sim.now = NOW.plus(1_000);
    assert_eq!(resolved(&mut sim, &resolve("shop", None)), first, "a known one is found");
    assert_eq!(sim.seq, 2);
    let state = sim.state.as_ref().unwrap();
    assert_eq!((state.identifier.as_str(), state.name.as_deref()), ("Ana@example.com", Some("Ana")));
    assert_eq!(sim.views.len(), 1);
}

#[test]
fn each_channel_has_a_conversation_of_its_own() {
    let mut sim = nobody();
    let (contact, shop) = resolved(&mut sim, &resolve("shop", None));
    let (same, help) = resolved(&mut sim, &resolve("help", None));
    assert_eq!((contact, shop.generation, help.generation), (same, 1, 1));
    assert_ne!(shop.id, help.id);
}

#[test]
fn a_closed_conversation_is_followed_by_the_next_generation_once() {
    let mut sim = nobody();
    let (_, mut open) = resolved(&mut sim, &resolve("shop", None));
    let mut earlier = Vec::new();
    for generation in 2..8 {
        earlier.insert(0, open.id);
        let command = resolve("shop", Some(open.id));
        let (_, next) = resolved(&mut sim, &command);
        assert_eq!(next.generation, generation);
        earlier.truncate(EARLIER_MAX);
        assert_eq!(next.earlier, earlier, "newest first, and bounded");
        assert_eq!(resolved(&mut sim, &command).1, next, "who found the same one closed gets the same next one");
        open = next;
    }
    assert_eq!(sim.state.as_ref().unwrap().open.len(), 1);
}

#[test]
fn a_contact_has_conversations_on_as_many_channels_as_the_limit_says_within_a_bounded_state() {
    let mut sim = nobody();
    sim.now = Millis(0xffff_ffff_ffff);
    let long = "\u{10ffff}".repeat(255);
    let channel = |n: usize| format!("{n:0>64}");
    for n in 0..limits::CONTACT_CHANNELS {
        let (identifier, name) = (long.clone(), Some(long.clone()));
        let first = Command::Resolve { identifier, name, channel: channel(n), closed: None };
        let (_, mut open) = resolved(&mut sim, &first);
        for _ in 0..EARLIER_MAX + 1 {
            open = resolved(&mut sim, &resolve(&channel(n), Some(open.id))).1;
        }
    }
    assert_eq!(sim.run(&resolve("one more", None)), Err(Rejection::TooManyChannels));
    resolved(&mut sim, &resolve(&channel(3), None));
}

#[test]
fn a_name_changes_when_it_is_another_and_only_a_contacts() {
    let mut sim = nobody();
    assert_eq!(sim.run(&Command::Update { name: None }), Err(Rejection::NotFound));
    resolved(&mut sim, &resolve("shop", None));
    let before = sim.seq;
    sim.now = NOW.plus(5);
    let Ok(Reply::Contact(same)) = sim.run(&Command::Update { name: Some("Ana".to_owned()) }) else { panic!() };
    assert_eq!((sim.seq, same.updated_at), (before, NOW));
    let Ok(Reply::Contact(after)) = sim.run(&Command::Update { name: None }) else { panic!() };
    assert_eq!(*after, *sim.state.as_ref().unwrap());
    assert_eq!((sim.seq, after.name, after.updated_at), (before + 1, None, NOW.plus(5)));
}
