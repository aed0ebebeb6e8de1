//! Checks that the tests that `.ci/run` excludes exist: a renamed test would run where it must not.

use super::{File, files, refuse};

const STEPS: &str = ".ci/run";

/// The tests in a file, by the names of the test runner; the file's path below the last `tests/it` gives the module.
pub(super) fn tests(file: &File) -> Vec<String> {
    let below = file.path.rsplit_once("tests/it/").map_or("", |(_, below)| below);
    let module = below.trim_end_matches(".rs").replace('/', "::");
    let mut found = Vec::new();
    let mut is_test = false;
    for line in file.text.lines().map(str::trim) {
        is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        let name = line.trim_start_matches("async ").strip_prefix("fn ").filter(|_| is_test);
        if let Some((name, _)) = name.and_then(|rest| rest.split_once('(')) {
            found.push(format!("{module}::{name}"));
            is_test = false;
        }
    }
    found
}

#[test]
fn every_test_that_the_steps_leave_out_is_there() {
    let [steps] = &files(&[STEPS], &["run"])[..] else { panic!("{STEPS} is not there") };
    let all: Vec<String> = files(&["tests", "schema/tests/it"], &[".rs"]).iter().flat_map(tests).collect();
    assert!(all.len() > 300, "only {} tests were found: the search no longer fits the files", all.len());
    let mut words = steps.text.split(|c: char| c.is_whitespace() || "()".contains(c)).peekable();
    let mut left_out = Vec::new();
    while let Some(word) = words.next() {
        if word == "--skip" {
            left_out.extend(words.peek().copied());
        }
    }
    assert!(left_out.len() > 20, "only {} names were found: the search no longer fits {STEPS}", left_out.len());
    let gone = left_out.iter().filter(|name| !all.iter().any(|test| test.contains(**name)));
    let gone: Vec<String> = gone.map(|name| format!("{STEPS} skips {name}")).collect();
    refuse(&gone, "no test is called so: name the tests that are meant, or leave it out");
}
