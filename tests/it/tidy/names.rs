//! Checks that the name of a test can be read in the line that says that it failed.

use super::steps::tests;
use super::{refuse, sources};

/// The most characters of a test's name.
const MAX_NAME: usize = 72;

#[test]
fn test_names_are_short_enough_to_say_one_promise() {
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
        }
    }
    assert!(seen > 1_000, "only {seen} tests were found: the search no longer fits the files");
    refuse(
        &faults,
        "begin with what breaks, and promise one thing: a second promise is a test of its own, and a circumstance \
         stands in a comment above the test.",
    );
}
