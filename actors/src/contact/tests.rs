//! Decisions as data.

use std::collections::HashSet;

use super::*;
use crate::conversation::Origin;
use crate::machine::sim::Sim;
use crate::patch::Patch;
use crate::tables::{CHANNELS_ASIDE, CONTACTS_BY_NAME};

const NOW: Millis = Millis(1_763_000_000_000);

fn nobody() -> Sim<Contact> {
    Sim::new(entity_of(Address([1; 10]), "ana@example.com"), NOW)
}

fn resolve(channel: &str, closed: Option<ConversationId>) -> Command {
    let identifier = "Ana@example.com".to_owned();
    let name = Some("Ana".to_owned());
    Command::Resolve(Resolve { identifier, name, channel: channel.to_owned(), closed, revives: true })
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
    assert_eq!(sim.seq, 1);
    let state = sim.state.as_ref().unwrap();
    assert_eq!((state.identifier.as_str(), state.name.as_deref()), ("Ana@example.com", Some("Ana")));
    assert_eq!(sim.views.len(), 2, "by id and by name");
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
        earlier.truncate(MAX_EARLIER);
        assert_eq!(next.earlier, earlier, "newest first, and bounded");
        assert_eq!(resolved(&mut sim, &command).1, next, "who found the same one closed gets the same next one");
        open = next;
    }
    assert_eq!(sim.state.as_ref().unwrap().open.len(), 1);
}

/// A contact whose state has room for no more channels: its conversation on `0` began first.
fn on_many_channels() -> Sim<Contact> {
    let mut sim = nobody();
    for n in 0..limits::CONTACT_CHANNELS {
        resolved(&mut sim, &resolve(&n.to_string(), None));
    }
    sim
}

/// Its state stays bounded.
#[test]
fn a_contact_has_conversations_on_any_number_of_channels() {
    let mut sim = nobody();
    sim.now = Millis(0xffff_ffff_ffff);
    let long = "\u{10ffff}".repeat(255);
    let channel = |n: usize| format!("{n:0>64}");
    let mut last = Vec::new();
    for n in 0..3 * limits::CONTACT_CHANNELS {
        let identifier = long.clone();
        let name = Some(long.clone());
        let first = Resolve { identifier, name, channel: channel(n), closed: None, revives: true };
        let (_, mut open) = resolved(&mut sim, &Command::Resolve(first));
        for _ in 0..MAX_EARLIER + 1 {
            open = resolved(&mut sim, &resolve(&channel(n), Some(open.id))).1;
        }
        last.push(open);
    }
    let before = sim.log.len();
    for (n, last) in last.iter().enumerate() {
        assert_eq!(resolved(&mut sim, &resolve(&channel(n), None)).1, *last, "it goes on with the same one");
    }
    assert_eq!(sim.log.len(), before, "nothing has to be kept for that");
    assert_eq!(sim.state.as_ref().unwrap().open.len(), limits::CONTACT_CHANNELS);
}

#[test]
fn a_conversation_kept_outside_the_state_can_have_a_next_one() {
    let mut sim = on_many_channels();
    let (_, first) = resolved(&mut sim, &resolve("0", None));
    resolved(&mut sim, &resolve("one more", None));
    let (_, second) = resolved(&mut sim, &resolve("0", Some(first.id)));
    assert_eq!((second.generation, &second.earlier[..]), (2, &[first.id][..]));
    assert_eq!(resolved(&mut sim, &resolve("0", Some(first.id))).1, second);
}

/// Every conversation on these channels of whoever was erased, as an erasure finds them.
fn gone(sim: &Sim<Contact>) -> HashSet<Address> {
    let state = sim.state.as_ref().unwrap();
    let rows = sim.rows.iter().filter(|((table, _), _)| *table == CHANNELS_ASIDE);
    let aside = rows.map(|(_, row)| codec::decode::<OverflowRow>(row).unwrap().seen_by(state));
    let aside: Vec<_> = aside.flat_map(|open| state.erased_on(sim.entity, &open)).collect();
    state.erased_conversations(sim.entity).chain(aside).map(|(conversation, _)| conversation.id).collect()
}

/// Those of the contact's next life stay.
#[test]
fn an_erasure_takes_conversations_kept_outside_the_state_too() {
    let mut sim = on_many_channels();
    let (_, aside) = resolved(&mut sim, &resolve("0", None));
    resolved(&mut sim, &resolve("one more", None));
    assert!(gone(&sim).is_empty());
    erased(&mut sim);
    let while_gone = sim.state.clone().unwrap();
    assert_eq!(gone(&sim).len(), limits::CONTACT_CHANNELS + 1);
    // The next life comes to the channel that stands aside, and its conversation goes there too.
    resolved(&mut sim, &resolve("elsewhere", None));
    let (_, next) = resolved(&mut sim, &resolve("0", None));
    assert_eq!(next.generation, 2);
    for n in 1..=limits::CONTACT_CHANNELS {
        resolved(&mut sim, &resolve(&format!("next {n}"), None));
    }
    assert_eq!(resolved(&mut sim, &resolve("0", None)).1, next);
    let gone = gone(&sim);
    assert_eq!(gone.len(), limits::CONTACT_CHANNELS + 1);
    assert!(gone.contains(&aside.id.address) && !gone.contains(&next.id.address));
    // Nor to an erasure that has looked at the contact before.
    let row = sim.rows[&(CHANNELS_ASIDE, Bytes::from_static(b"0"))].clone();
    let seen = codec::decode::<OverflowRow>(&row).unwrap().seen_by(&while_gone);
    assert!(while_gone.erased_on(sim.entity, &seen).all(|(conversation, _)| conversation.id != next.id.address));
}

fn of(reply: Result<Reply, Rejection>) -> (State, bool) {
    match reply {
        Ok(Reply::Contact(Saved { state, created })) => (*state, created),
        other => panic!("{other:?}"),
    }
}

fn save(name: Patch<&str>) -> Command {
    let name = match name {
        Patch::Keep => Patch::Keep,
        Patch::Clear => Patch::Clear,
        Patch::Set(name) => Patch::Set(name.to_owned()),
    };
    Command::Save(Save { identifier: "ana@example.com".to_owned(), name })
}

fn names(sim: &Sim<Contact>) -> Vec<String> {
    let keys = sim.views.keys().filter(|(view, _)| *view == CONTACTS_BY_NAME).map(|(_, key)| key);
    keys.map(|key| String::from_utf8_lossy(&key[..key.len() - 17]).into_owned()).collect()
}

#[test]
fn a_name_changes_when_it_is_another_and_only_a_contacts() {
    let mut sim = nobody();
    let update = |id, name: Option<&str>| Command::Update(Update { id, name: Patch::to(name.map(str::to_owned)) });
    assert_eq!(sim.run(&update(ContactId::new(NOW, Address([0; 10])), None)), Err(Rejection::NotFound));
    let (id, _) = resolved(&mut sim, &resolve("shop", None));
    let before = sim.seq;
    sim.now = NOW.plus(5);
    let (same, _) = of(sim.run(&update(id, Some("Ana"))));
    assert_eq!((sim.seq, same.updated_at), (before, NOW));
    let (after, _) = of(sim.run(&update(id, None)));
    let state = sim.state.clone().unwrap();
    assert_eq!(after, State { last_seq: after.last_seq, ..state });
    assert_eq!((sim.seq, after.name, after.updated_at), (before + 1, None, NOW.plus(5)));
    let other = ContactId::new(NOW.plus(1), id.address);
    assert_eq!(sim.run(&update(other, Some("Eve"))), Err(Rejection::NotFound));
}

#[test]
fn a_change_that_gives_no_name_leaves_the_one_that_was_given_last() {
    let mut sim = nobody();
    let (id, _) = resolved(&mut sim, &resolve("shop", None));
    of(sim.run(&Command::Update(Update { id, name: Patch::Set("Eve".to_owned()) })));
    let before = sim.seq;
    let (same, _) = of(sim.run(&Command::Update(Update { id, name: Patch::Keep })));
    assert_eq!((sim.seq, same.name.as_deref()), (before, Some("Eve")));
}

#[test]
fn a_contact_is_written_down_once_and_its_name_is_what_was_given_last() {
    let mut sim = nobody();
    let (first, created) = of(sim.run(&save(Patch::Set("Ana"))));
    assert!(created);
    assert_eq!(first, *sim.state.as_ref().unwrap());
    assert_eq!(of(sim.run(&save(Patch::Keep))), (first.clone(), false));
    let (renamed, created) = of(sim.run(&save(Patch::Set("\u{c4}nne"))));
    assert_eq!((renamed.id, renamed.name.as_deref(), created), (first.id, Some("\u{c4}nne"), false));
    assert_eq!(names(&sim), ["\u{e4}nne"]);
    of(sim.run(&save(Patch::Clear)));
    assert_eq!((names(&sim).len(), sim.views.len()), (0, 1));
}

#[test]
fn the_key_of_a_long_name_is_cut_between_characters() {
    let long = "\u{20ac}".repeat(40);
    assert_eq!(name_key(&long), "\u{20ac}".repeat(21).as_bytes());
    assert_eq!(name_key("ANA"), b"ana");
}

fn erased(sim: &mut Sim<Contact>) -> ContactId {
    let id = sim.state.as_ref().unwrap().id;
    let (after, _) = of(sim.run(&Command::Erase { id }));
    assert_eq!(after.erased_at, Some(sim.now));
    assert_eq!(sim.run(&Command::Erase { id }), Err(Rejection::NotFound), "once");
    id
}

fn id_of_erased(sim: &Sim<Contact>) -> ContactId {
    sim.state.as_ref().unwrap().erasing.unwrap().id
}

/// Brings an erasure to its end.
fn finish(sim: &mut Sim<Contact>) {
    let id = id_of_erased(sim);
    while sim.state.as_ref().unwrap().erasing.unwrap().next.is_some() {
        of(sim.run(&Command::AdvanceErasure(AdvanceErasure(id, ErasureStep::Log))));
    }
    of(sim.run(&Command::AdvanceErasure(AdvanceErasure(id, ErasureStep::Done))));
}

#[test]
fn an_erasure_is_not_ended_by_the_one_of_the_life_before() {
    let mut sim = nobody();
    resolved(&mut sim, &resolve("shop", None));
    let first = erased(&mut sim);
    let (second, _) = resolved(&mut sim, &resolve("shop", None));
    assert_eq!(erased(&mut sim), second);
    for step in [ErasureStep::Log, ErasureStep::Done, ErasureStep::PutOff] {
        let before = sim.state.clone();
        let (told, _) = of(sim.run(&Command::AdvanceErasure(AdvanceErasure(first, step))));
        assert!(told.erasing.is_some_and(|erasing| erasing.id != first), "another one is under way");
        assert_eq!(sim.state, before, "and is not this one's to go on with");
    }
    assert_eq!(id_of_erased(&sim), second);
    finish(&mut sim);
}

#[test]
fn an_erased_contact_leaves_no_personal_data_in_its_log_or_views() {
    let mut sim = nobody();
    resolved(&mut sim, &resolve("shop", None));
    for n in 0..200 {
        of(sim.run(&save(Patch::Set(&format!("Ana the {n}th")))));
    }
    erased(&mut sim);
    assert!(sim.views.is_empty());
    let mut steps = 0;
    while sim.state.as_ref().unwrap().erasing.unwrap().next.is_some() {
        of(sim.run(&Command::AdvanceErasure(AdvanceErasure(id_of_erased(&sim), ErasureStep::Log))));
        steps += 1;
    }
    assert_eq!(steps, 4);
    of(sim.run(&Command::AdvanceErasure(AdvanceErasure(id_of_erased(&sim), ErasureStep::Done))));
    assert_eq!(sim.state.as_ref().unwrap().erasing, None);
    for (_, bytes) in &sim.log {
        assert!(!String::from_utf8_lossy(bytes).to_lowercase().contains("ana"), "{bytes:?}");
    }
    assert_eq!(Contact::alarm(sim.state.as_ref().unwrap()), None);
}

#[test]
fn an_erasure_is_looked_after_until_it_is_done() {
    let mut sim = nobody();
    resolved(&mut sim, &resolve("shop", None));
    erased(&mut sim);
    of(sim.run(&Command::AdvanceErasure(AdvanceErasure(id_of_erased(&sim), ErasureStep::Done))));
    assert!(sim.state.as_ref().unwrap().erasing.is_some(), "its own log is not gone through yet");
    let mut last = Millis(0);
    for _ in 0..40 {
        let at = Contact::alarm(sim.state.as_ref().unwrap()).unwrap();
        assert!(at > last && at.since(sim.now) <= 600_000);
        (last, sim.now) = (at, at);
        of(sim.run(&Command::AdvanceErasure(AdvanceErasure(id_of_erased(&sim), ErasureStep::PutOff))));
    }
}

#[test]
fn a_contact_after_an_erasure_is_new_with_new_conversations() {
    let mut sim = nobody();
    let (_, shop) = resolved(&mut sim, &resolve("shop", None));
    let (_, help) = resolved(&mut sim, &resolve("help", None));
    let old = erased(&mut sim);
    let (new, again) = resolved(&mut sim, &resolve("shop", None));
    assert_ne!(new, old, "though no time has passed");
    assert_eq!((again.generation, again.earlier.clone()), (2, vec![shop.id]));
    assert_eq!(resolved(&mut sim, &resolve("shop", None)).1, again);
    let state = sim.state.clone().unwrap();
    let gone: Vec<_> = state.erased_conversations(sim.entity).map(|(conversation, _)| conversation.id).collect();
    assert_eq!(gone, [help.id.address, shop.id.address]);
    assert_eq!(sim.run(&Command::Update(Update { id: old, name: Patch::Clear })), Err(Rejection::NotFound));
    // The second life ends too.
    erased(&mut sim);
    let state = sim.state.clone().unwrap();
    assert_eq!(state.erased_conversations(sim.entity).count(), 3);
    assert_eq!(resolved(&mut sim, &resolve("shop", None)).1.generation, 3);
}

#[test]
fn an_unused_conversation_belongs_to_the_life_that_assigned_it() {
    let mut sim = nobody();
    let (former, slow) = resolved(&mut sim, &resolve("shop", None));
    erased(&mut sim);
    let (_, next) = resolved(&mut sim, &resolve("shop", None));
    resolved(&mut sim, &resolve("shop", Some(next.id)));
    let state = sim.state.clone().unwrap();
    let gone: Vec<_> = state.erased_conversations(sim.entity).collect();
    let [(conversation, Some(unused))] = &gone[..] else { panic!("{gone:?}") };
    assert_eq!((conversation.id, unused.id), (slow.id.address, slow.id), "its place is taken before its message comes");
    assert!(matches!(&unused.origin, Origin::Api { contact, .. } if *contact == former));
}

#[test]
fn a_copy_is_known_before_it_is_made_and_only_while_its_contact_lives() {
    let mut sim = nobody();
    let (id, shop) = resolved(&mut sim, &resolve("shop", None));
    let fork = Command::Fork { id, copy: shop.id };
    of(sim.run(&fork));
    let rows: Vec<_> = sim.rows.iter().filter(|((table, _), _)| *table == FORKS).collect();
    assert_eq!(rows.len(), 1);
    assert_eq!(codec::decode::<Copied>(rows[0].1).unwrap(), Copied { contact: id, copy: shop.id });
    erased(&mut sim);
    assert_eq!(sim.run(&fork), Err(Rejection::NotFound));
}

#[test]
fn an_erasure_of_a_contact_also_removes_undecodable_records() {
    let mut sim = nobody();
    resolved(&mut sim, &resolve("shop", None));
    of(sim.run(&save(Patch::Set("Anna"))));
    erased(&mut sim);
    let renamed = sim.log.iter_mut().find(|(record, _)| matches!(record.event, Event::ContactUpdated { .. })).unwrap();
    renamed.1 = Bytes::from_static(b"Anna, as a newer server writes it");
    finish(&mut sim);
    for (_, bytes) in &sim.log {
        let text = String::from_utf8_lossy(bytes).to_lowercase();
        assert!(!text.contains("ana") && !text.contains("anna"), "{bytes:?}");
    }
}
