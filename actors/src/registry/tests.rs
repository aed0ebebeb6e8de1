//! Decisions as data.

use super::*;
use crate::id::Address;
use crate::machine::sim::Sim;

const T: Table = Table(40);

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
    for (command, unexpected) in table {
        assert_eq!(sim.run(&command), Err(Unexpected(unexpected)));
        assert_eq!(sim.seq, 1, "nothing changed");
    }
    sim.run(&change(&[("a", Some("1"))], &[("a", None), ("b", Some("3"))])).unwrap();
    assert_eq!(sim.rows.values().collect::<Vec<_>>(), ["3"]);
}

#[test]
fn of_two_changes_that_expect_the_same_one_happens() {
    let mut sim = sim();
    let command = change(&[("a", None)], &[("a", Some("1"))]);
    assert_eq!((sim.run(&command), sim.run(&command)), (Ok(()), Err(Unexpected(0))));
}
