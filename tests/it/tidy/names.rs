//! Checks that names can be read where they stand: a test's in the line that says that it failed, a bound's where it
//! is used.

use super::steps::tests;
use super::{refuse, sources};

/// The most characters of a test's name.
const MAX_NAME: usize = 72;
/// First words that name no subject.
const RIDDLES: [&str; 9] = ["what", "who", "whoever", "whatever", "those", "of", "so", "it", "where"];

#[test]
fn test_names_are_one_short_promise_that_begins_with_its_subject() {
    let mut faults = Vec::new();
    let mut seen = 0;
    for file in sources() {
        for test in tests(&file) {
            let name = test.rsplit("::").next().unwrap_or(&test);
            let length = name.chars().count();
            seen += 1;
            if length > MAX_NAME {
                faults.push(format!("{}: {name} has {length} characters, more than {MAX_NAME}", file.path));
            }
            if RIDDLES.contains(&name.split('_').next().unwrap_or_default()) {
                faults.push(format!("{}: {name} does not begin with its subject", file.path));
            }
        }
    }
    assert!(seen > 1_000, "only {seen} tests were found: the search no longer fits the files");
    refuse(
        &faults,
        "begin with what breaks, and promise one thing: a second promise is a test of its own, and a circumstance \
         stands in a comment above the test.",
    );
}

/// The constants that a file defines.
fn constants(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| {
        let line = line.trim_start().trim_start_matches(|c: char| c.is_ascii_lowercase() || "(): ".contains(c));
        let (name, _) = line.split_once(": ")?;
        name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_').then_some(name)
    })
}

#[test]
fn names_of_bounds_begin_with_max() {
    let mut faults = Vec::new();
    let mut seen = 0;
    for file in sources() {
        for name in constants(&file.text) {
            seen += 1;
            if name.ends_with("_MAX") || name.contains("_MAX_") || name.split('_').any(|word| word == "MOST") {
                faults.push(format!("{}: {name}", file.path));
            }
        }
    }
    assert!(seen > 500, "only {seen} constants were found: the search no longer fits the files");
    refuse(&faults, "a bound is MAX_ and what it bounds, so that all of them read alike.");
}
