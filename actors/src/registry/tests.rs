//! Decisions as data.

use super::*;
use crate::id::{Address, EntityKey};
use crate::machine::sim::Sim;
use crate::requests::ChecksReplies;
use crate::tables::{CHANNELS, IN_ORDER};

const T: Table = Table(40);

/// There is one reply only.
impl ChecksReplies for Registry {
    fn answers(_: &Command, (): &()) -> bool {
        true
    }
}

fn sim() -> Sim<Registry> {
    Sim::new(EntityKey::workspace(Address([1; 10])), Millis(5))
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn change(expected: &[(&'static str, Option<&'static str>)], puts: &[(&'static str, Option<&'static str>)]) -> Command {
    let put = |(key, value): &(&'static str, Option<&'static str>)| match value {
        Some(value) => RowChange::put(T, key.as_bytes(), &bytes(value)),
        None => RowChange::delete(T, key.as_bytes()),
    };
    Command {
        expected: expected.iter().map(|(key, value)| Expect::new(T, key.as_bytes(), value.map(bytes))).collect(),
        changes: puts.iter().map(put).collect(),
    }
}

#[test]
fn rows_change_together_if_all_are_as_expected() {
    let mut sim = sim();
    sim.run(&change(&[("a", None), ("b", None)], &[("a", Some("1")), ("b", Some("2"))])).unwrap();
    assert_eq!(sim.rows.len(), 2);
    let table = [
        (change(&[("a", None)], &[("a", Some("x"))]), 0),
        (change(&[("a", Some("1")), ("b", Some("1"))], &[("a", Some("x")), ("b", Some("x"))]), 1),
        (change(&[("c", Some("1"))], &[("c", None)]), 0),
    ];
    for (command, index) in table {
        assert_eq!(sim.run(&command), Err(Rejection::Mismatch { index }));
        assert_eq!(sim.seq, 1, "nothing changed");
    }
    sim.run(&change(&[("a", Some("1"))], &[("a", None), ("b", Some("3"))])).unwrap();
    assert_eq!(sim.rows.values().collect::<Vec<_>>(), ["3"]);
}

#[test]
fn only_the_first_of_two_changes_that_expect_the_same_value_succeeds() {
    let mut sim = sim();
    let command = change(&[("a", None)], &[("a", Some("1"))]);
    assert_eq!((sim.run(&command), sim.run(&command)), (Ok(()), Err(Rejection::Mismatch { index: 0 })));
}

/// Stores a channel of this id, or deletes it.
fn channel(id: &'static str, before: Option<&'static str>, after: Option<&'static str>) -> Command {
    let change = match after {
        Some(value) => RowChange::put(CHANNELS, id.as_bytes(), &bytes(value)),
        None => RowChange::delete(CHANNELS, id.as_bytes()),
    };
    Command { expected: vec![Expect::new(CHANNELS, id.as_bytes(), before.map(bytes))], changes: vec![change] }
}

#[test]
fn a_search_through_the_channels_is_stale_once_one_has_changed() {
    let mut sim = sim();
    let searched = |at| {
        let mut command = change(&[("a", Some("1"))], &[("a", None)]);
        command.expected.push(Expect::Channels(at));
        command
    };
    sim.run(&change(&[], &[("a", Some("1"))])).unwrap();
    for (before, after, seq) in [(None, Some("1"), 2), (Some("1"), Some("2"), 3), (Some("2"), None, 4)] {
        let seen = sim.state.as_ref().unwrap().channels_at;
        sim.run(&channel("c", before, after)).unwrap();
        assert_eq!(sim.run(&searched(seen)), Err(Rejection::Mismatch { index: 1 }));
        assert_eq!(sim.seq, seq, "nothing changed");
    }
    let seen = sim.state.as_ref().unwrap().channels_at;
    sim.run(&change(&[("b", None)], &[("b", Some("1"))])).unwrap();
    assert_eq!(sim.run(&searched(seen)), Ok(()), "what else changes is no matter");
}

/// The ids of the channels, in order.
fn in_order(sim: &Sim<Registry>) -> Vec<&str> {
    let rows = sim.rows.iter().filter(|((table, _), _)| *table == IN_ORDER);
    rows.map(|(_, id)| std::str::from_utf8(id).unwrap()).collect()
}

#[test]
fn rows_are_listed_in_the_order_of_creation_whatever_their_ids() {
    let mut sim = sim();
    for id in ["m", "z", "a"] {
        sim.run(&channel(id, None, Some("1"))).unwrap();
    }
    assert_eq!(in_order(&sim), ["m", "z", "a"]);
    sim.run(&channel("m", Some("1"), Some("2"))).unwrap();
    assert_eq!(in_order(&sim), ["m", "z", "a"], "a change is no beginning");
    sim.run(&channel("z", Some("1"), None)).unwrap();
    assert_eq!(in_order(&sim), ["m", "a"]);
    sim.run(&channel("z", None, Some("3"))).unwrap();
    assert_eq!(in_order(&sim), ["m", "a", "z"], "another one with its id is new");
    for (id, value) in [("m", "2"), ("a", "1"), ("z", "3")] {
        sim.run(&channel(id, Some(value), None)).unwrap();
    }
    assert!(sim.rows.is_empty(), "nothing is left of what has gone");
}

/// A row without a place in the order gets one when it is stored again.
#[test]
fn rows_of_one_change_stand_together_in_the_order() {
    let mut sim = sim();
    sim.rows.insert((CHANNELS, bytes("old")), bytes("1"));
    let mut both = channel("y", None, Some("1"));
    both.changes.extend(channel("x", None, Some("1")).changes);
    sim.run(&both).unwrap();
    assert_eq!(in_order(&sim), ["x", "y"]);
    sim.run(&channel("old", Some("1"), Some("1"))).unwrap();
    assert_eq!(in_order(&sim), ["x", "y", "old"]);
}
