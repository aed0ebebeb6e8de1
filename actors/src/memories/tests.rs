//! Decisions as data.

use super::extract::{Fact, facts};
use super::*;
use crate::codec;
use crate::limits;
use crate::machine::sim::Sim;

const NOW: Millis = Millis(1_763_000_000_000);

fn contact(at: u64) -> Subject {
    Subject::Contact(ContactId::new(NOW.plus(at), Address([2; 10])))
}

fn nobody() -> Sim<Memories> {
    Sim::new(contact(0).entity(Address([1; 10])), NOW)
}

fn source(number: u64) -> MessageId {
    MessageId::new(NOW, Address([3; 10]), number)
}

fn remember(sim: &mut Sim<Memories>, subject: Subject, edits: Vec<Edit>, said: u64) -> Result<Vec<Outcome>, Rejection> {
    match sim.run(&Command::Remember(Remember { subject, edits, source: Some(source(said)) })) {
        Ok(Reply::Remembered(outcomes)) => Ok(outcomes),
        Ok(other) => panic!("{other:?}"),
        Err(rejection) => Err(rejection),
    }
}

fn said(sim: &mut Sim<Memories>, text: &str, number: u64) -> Vec<Outcome> {
    let edits = facts(text).into_iter().map(Edit::Keep).collect();
    remember(sim, contact(0), edits, number).unwrap()
}

fn texts(sim: &Sim<Memories>) -> Vec<String> {
    let rows = sim.rows.iter().filter(|((table, _), _)| *table == MEMORIES);
    rows.map(|(_, bytes)| codec::decode::<Memory>(bytes).unwrap().text).collect()
}

fn forget_all(sim: &mut Sim<Memories>, subject: &Subject, for_good: bool) -> usize {
    let command = Command::ForgetAll(ForgetAll { subject: subject.clone(), for_good });
    (1..).find(|_| sim.run(&command) == Ok(Reply::Left(0))).unwrap()
}

#[test]
fn a_newer_statement_replaces_the_one_that_it_contradicts() {
    let mut sim = nobody();
    let first = said(&mut sim, "I live in Porto. I like tea. I am allergic to nuts.", 1);
    assert!(first.iter().all(|outcome| matches!(outcome, Outcome::Created(_))));
    sim.now = NOW.plus(5);
    let second = said(&mut sim, "I moved to Oslo, and I hate tea. I am allergic to milk", 2);
    let [Outcome::Updated(lives), Outcome::Updated(_), Outcome::Created(_)] = &second[..] else { panic!("{second:?}") };
    assert_eq!((lives.id.number, lives.source, lives.updated_at), (1, Some(source(2)), Some(NOW.plus(5))));
    assert_eq!(texts(&sim), ["I moved to Oslo", "I hate tea", "I am allergic to nuts", "I am allergic to milk"]);
    assert_eq!(sim.state.as_ref().unwrap().count, 4);
}

#[test]
fn a_newer_statement_leaves_what_it_does_not_contradict() {
    let mut sim = nobody();
    said(&mut sim, "my name is Ana, I'm allergic to nuts, I live in Porto and call me Annie", 1);
    said(&mut sim, "my name is Bea", 2);
    assert_eq!(texts(&sim), ["My name is Bea", "I'm allergic to nuts", "I live in Porto", "Call me Annie"]);
    let denied = said(&mut sim, "I don't live in Lisbon. My name isn't Ana. Don't call me Ana", 3);
    assert!(denied.iter().all(|outcome| matches!(outcome, Outcome::Known(_))), "{denied:?}");
    said(&mut sim, "I don't live in Porto anymore, and don't call me Annie", 4);
    let last = ["My name is Bea", "I'm allergic to nuts", "I don't live in Porto anymore", "Don't call me Annie"];
    assert_eq!(texts(&sim), last);
}

#[test]
fn a_known_fact_is_not_remembered_twice() {
    let mut sim = nobody();
    said(&mut sim, "My name is Ana", 1);
    let before = sim.seq;
    let again = said(&mut sim, "My name is Ana", 2);
    assert!(matches!(again[..], [Outcome::Known(_)]));
    let repeated = said(&mut sim, "My name is Ana", 1);
    assert!(matches!(repeated[..], [Outcome::Created(_)]), "its outcome was not known");
    assert_eq!(sim.seq, before);
}

#[test]
fn a_second_attempt_of_a_message_reads_what_the_first_made() {
    let mut sim = nobody();
    let edits = |texts: &[&str]| texts.iter().flat_map(|text| facts(text)).map(Edit::Keep).collect::<Vec<_>>();
    let both = ["I live in Porto", "I live in Faro"];
    remember(&mut sim, contact(0), edits(&both), 1).unwrap();
    said(&mut sim, "I live in Oslo", 2);
    let again = remember(&mut sim, contact(0), edits(&both), 1).unwrap();
    let [Outcome::Created(made), Outcome::Known(_)] = &again[..] else { panic!("{again:?}") };
    assert_eq!(made.first, Some(source(1)));
    let again = remember(&mut sim, contact(0), edits(&["I live in Oslo"]), 2).unwrap();
    assert!(matches!(again[..], [Outcome::Updated(_)]), "{again:?}");
    assert_eq!(texts(&sim), ["I live in Oslo"]);
}

#[test]
fn a_statement_that_arrives_late_replaces_no_newer_one() {
    let mut sim = nobody();
    said(&mut sim, "I live in Oslo", 7);
    let late = said(&mut sim, "I live in Porto", 6);
    assert!(matches!(late[..], [Outcome::Known(_)]));
    assert_eq!(texts(&sim), ["I live in Oslo"]);
    said(&mut sim, "I live in Rome", 8);
    assert_eq!(texts(&sim), ["I live in Rome"]);
}

#[test]
fn a_model_changes_and_drops_what_there_is() {
    let mut sim = nobody();
    let keep = |text: &str| Edit::text_as_it_is(text);
    remember(&mut sim, contact(0), vec![keep("Likes tea"), keep("Lives in Porto"), keep("likes TEA ")], 1).unwrap();
    let edits =
        vec![Edit::Change(1, "Likes coffee".to_owned()), Edit::Drop(2), Edit::Drop(9), Edit::Change(2, "x".to_owned())];
    let outcomes = remember(&mut sim, contact(0), edits, 2).unwrap();
    assert!(matches!(outcomes[..], [Outcome::Updated(_), Outcome::Forgotten(2), Outcome::Forgotten(9), ..]));
    assert!(texts(&sim).contains(&"Likes coffee".to_owned()));
    // What was dropped may be said again, and is another memory.
    let again = remember(&mut sim, contact(0), vec![keep("Lives in Porto")], 3).unwrap();
    assert!(matches!(&again[..], [Outcome::Created(memory)] if memory.id.number > 2));
}

#[test]
fn the_oldest_make_room_for_new_ones() {
    let mut sim = nobody();
    for n in 0..(limits::MEMORIES + 40) / 20 {
        let edits = (0..20).map(|m| Edit::text_as_it_is(&format!("fact {n} {m}"))).collect();
        remember(&mut sim, contact(0), edits, 1).unwrap();
    }
    let texts = texts(&sim);
    assert_eq!((texts.len(), sim.state.as_ref().unwrap().count), (limits::MEMORIES, limits::MEMORIES as u64));
    assert_eq!((texts[0].as_str(), sim.rows.len()), ("fact 2 0", 2 * limits::MEMORIES));
    // What goes because somebody drops it does not go once more to make room.
    let lowest = sim.rows.keys().filter(|(table, _)| *table == MEMORIES).map(|(_, key)| key.clone()).min().unwrap();
    let lowest = u64::from_be_bytes(lowest[..].try_into().unwrap());
    let edits = vec![Edit::Drop(lowest), Edit::text_as_it_is("new"), Edit::text_as_it_is("newer")];
    remember(&mut sim, contact(0), edits, 2).unwrap();
    let memories = sim.rows.keys().filter(|(table, _)| *table == MEMORIES).count();
    assert_eq!((memories, sim.state.as_ref().unwrap().count), (limits::MEMORIES, limits::MEMORIES as u64));
}

#[test]
fn a_forgotten_memory_leaves_no_row_and_no_text_in_the_log() {
    let mut sim = nobody();
    let outcomes = said(&mut sim, "My name is Ana. I live in Porto.", 1);
    let id = outcomes[0].memory().unwrap().id;
    let vector = Vector { model: "m".to_owned(), of: NOW, numbers: vec![0.5, -1.0] };
    sim.run(&Command::Learn(vec![(id, vector.clone())])).unwrap();
    assert_eq!(sim.rows.len(), 5);
    let other = MemoryId::new(NOW.plus(1), id.entity, id.number);
    assert_eq!(sim.run(&Command::Forget { id: other }), Err(Rejection::NotFound));
    sim.run(&Command::Forget { id }).unwrap();
    assert_eq!(sim.run(&Command::Forget { id }), Err(Rejection::NotFound));
    sim.run(&Command::Learn(vec![(id, vector)])).unwrap();
    assert_eq!(sim.rows.len(), 2, "and what comes late is not kept");
    forget_all(&mut sim, &contact(0), false);
    assert!(sim.rows.is_empty());
    said(&mut sim, "My name is Ana", 2);
    for (_, bytes) in &sim.log {
        assert!(!String::from_utf8_lossy(bytes).contains("Ana"), "its log never says what it was");
    }
}

#[test]
fn an_unreadable_memory_is_refused_and_forgotten_with_the_others() {
    let mut sim = nobody();
    said(&mut sim, "My name is Ana. I live in Porto. I like tea.", 1);
    let id = MemoryId::new(NOW, sim.entity.id, 2);
    sim.run(&Command::Learn(vec![(id, Vector { model: "m".to_owned(), of: NOW, numbers: vec![0.5] })])).unwrap();
    assert_eq!(sim.rows.len(), 7);
    sim.rows.insert((MEMORIES, number_key(2)), Bytes::from_static(b"\xff"));
    let edits = vec![Edit::Keep(facts("I live in Faro").remove(0))];
    let again = Command::Remember(Remember { subject: contact(0), edits, source: Some(source(2)) });
    assert!(sim.try_decide(&again).is_err(), "it is never taken for absent");
    assert!(sim.try_decide(&Command::Forget { id }).is_err());

    forget_all(&mut sim, &contact(0), true);
    assert!(sim.rows.is_empty(), "{:?}", sim.rows);
    assert_eq!(sim.state.as_ref().unwrap().count, 0);
}

#[test]
fn an_erased_contact_is_remembered_no_more_and_its_successor_is() {
    let mut sim = nobody();
    let many = |n: usize| (0..n).map(|n| Edit::text_as_it_is(&format!("{n}"))).collect::<Vec<_>>();
    remember(&mut sim, contact(0), many(600), 1).unwrap();
    let fact = || vec![Edit::Keep(Fact { text: "late".to_owned(), slot: "x".to_owned() })];
    assert_eq!(remember(&mut sim, contact(1), fact(), 2), Err(Rejection::Busy), "the former one goes first");
    assert_eq!(forget_all(&mut sim, &contact(0), true), 3);
    assert!(sim.rows.is_empty());
    assert_eq!(remember(&mut sim, contact(0), fact(), 3), Err(Rejection::NotFound));
    let new = remember(&mut sim, contact(1), fact(), 4).unwrap();
    assert_eq!(new[0].memory().unwrap().id.number, 601, "numbers are not used again");
    assert_eq!(remember(&mut sim, contact(0), fact(), 5), Err(Rejection::NotFound));
    forget_all(&mut sim, &contact(0), true);
    assert_eq!(texts(&sim), ["late"], "the former one's end is not the new one's");
    // Two lives that end one after the other, the first not cleaned up yet.
    forget_all(&mut sim, &contact(2), true);
    assert!(sim.rows.is_empty());
    assert_eq!(remember(&mut sim, contact(2), fact(), 6), Err(Rejection::NotFound));
}

#[test]
fn a_contact_erased_before_its_first_memory_is_not_remembered() {
    let mut sim = nobody();
    forget_all(&mut sim, &contact(0), true);
    assert_eq!(remember(&mut sim, contact(0), vec![Edit::text_as_it_is("late")], 1), Err(Rejection::NotFound));
}
