//! Checks that every published metric is counted somewhere: one that nothing counts stays at 0 and seems to say that
//! all is well.

use super::{files, refuse, without_tests};

const TABLE: &str = "actors/src/metrics.rs";
/// The calls that write a metric. A histogram takes times by `observe`, sizes by `record`.
const WRITES: [&str; 5] = [".inc(", ".add(", ".set(", ".observe(", ".record("];

/// The field names in the tables of metrics.
fn fields(table: &str) -> impl Iterator<Item = &str> {
    table.lines().filter_map(|line| {
        let (name, rest) = line.trim().strip_prefix("pub ")?.split_once(": ")?;
        rest.ends_with("\",").then_some(name)
    })
}

/// Whether `code` writes the metric with this name, directly or (`of`) for a value of its label.
fn writes(code: &str, name: &str) -> bool {
    let whole = [".", name].concat();
    code.match_indices(&whole).any(|(at, _)| {
        let rest = &code[at + whole.len()..];
        let statement = rest.split(';').next().unwrap_or(rest);
        let is_of = statement.starts_with(".of(");
        WRITES.iter().any(|write| statement.starts_with(write) || is_of && statement.contains(write))
    })
}

#[test]
fn every_number_that_is_shown_is_counted() {
    let [table] = &files(&[TABLE], &[".rs"])[..] else { panic!("{TABLE} is not there") };
    let production = files(&["src", "actors/src", "schema/src"], &[".rs"]);
    let production = production.iter().filter(|file| file.path != TABLE && !file.path.ends_with("tests.rs"));
    let code: Vec<&str> = production.map(|file| without_tests(&file.text)).collect();
    let all: Vec<&str> = fields(without_tests(&table.text)).collect();
    assert!(all.len() > 15, "only {} numbers were found: the search no longer fits the table", all.len());
    let dead = all.iter().filter(|name| !code.iter().any(|code| writes(code, name)));
    let dead: Vec<String> = dead.map(|name| format!("{TABLE}: {name}")).collect();
    refuse(&dead, "nothing counts this number: count it where it happens, or take it out of the table and the page");
}
